// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Link is one end of a veth pair.
type Link struct {
	Namespace *Namespace
	Name      string // unique in this machine, as it names the NAPI thread too
	Index     int    // ifindex in its namespace
	MAC       net.HardwareAddr
	MTU       int
}

// LinkStats are an interface's counters since it was created.
type LinkStats struct {
	RxPackets, RxBytes, RxDropped uint64
	TxPackets, TxBytes, TxDropped uint64
}

// Connect creates a veth pair between two namespaces, up, with GRO on at both
// ends: a veth takes redirected frames only where it runs NAPI.
func (l *Lab) Connect(a, b *Namespace, mtu int) (endA, endB *Link, err error) {
	stem := fmt.Sprintf("sx%dn%d", os.Getpid(), l.veths.Add(1))
	endA = &Link{Namespace: a, Name: stem + "a", MTU: mtu}
	endB = &Link{Namespace: b, Name: stem + "b", MTU: mtu}
	if err := endA.createPair(endB); err != nil {
		return nil, nil, fmt.Errorf("create veth pair %s, %s: %w", endA.Name, endB.Name, err)
	}
	for _, end := range []*Link{endA, endB} {
		if err := end.start(); err != nil {
			return nil, nil, fmt.Errorf("set up %s in %s: %w", end.Name, end.Namespace.Name, err)
		}
	}
	return endA, endB, nil
}

func (l *Link) createPair(peer *Link) error {
	return l.Namespace.Do(func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.MTU = l.Name, l.MTU
		return netlink.LinkAdd(&netlink.Veth{
			LinkAttrs:     attrs,
			PeerName:      peer.Name,
			PeerNamespace: netlink.NsFd(peer.Namespace.handle),
			PeerMTU:       uint32(peer.MTU),
		})
	})
}

func (l *Link) start() error {
	return l.Namespace.Do(func() error {
		dev, err := netlink.LinkByName(l.Name)
		if err != nil {
			return fmt.Errorf("find interface: %w", err)
		}
		l.Index, l.MAC = dev.Attrs().Index, dev.Attrs().HardwareAddr
		if err := setGRO(l.Name, true); err != nil {
			return err
		}
		if err := netlink.LinkSetUp(dev); err != nil {
			return fmt.Errorf("set interface up: %w", err)
		}
		return nil
	})
}

// AddAddress gives the interface addresses, each with the prefix of its network.
func (l *Link) AddAddress(prefixes ...netip.Prefix) error {
	return l.Namespace.Do(func() error {
		dev, err := netlink.LinkByIndex(l.Index)
		if err != nil {
			return fmt.Errorf("find %s: %w", l.Name, err)
		}
		for _, p := range prefixes {
			ip := &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
			if err := netlink.AddrAdd(dev, &netlink.Addr{IPNet: ip, Flags: unix.IFA_F_NODAD}); err != nil {
				return fmt.Errorf("add address %s to %s: %w", p, l.Name, err)
			}
		}
		return nil
	})
}

// AddDefaultRoute sends what is in no network of the namespace to a gateway.
func (l *Link) AddDefaultRoute(gateway netip.Addr) error {
	return l.Namespace.Do(func() error {
		all := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		if gateway.Is6() {
			all = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		}
		dst := &net.IPNet{IP: all.Addr().AsSlice(), Mask: net.CIDRMask(0, gateway.BitLen())}
		route := &netlink.Route{LinkIndex: l.Index, Gw: gateway.AsSlice(), Dst: dst}
		if err := netlink.RouteAdd(route); err != nil {
			return fmt.Errorf("add default route to %s: %w", gateway, err)
		}
		return nil
	})
}

// SetUp sets the interface up or down.
func (l *Link) SetUp(up bool) error {
	return l.Namespace.Do(func() error {
		dev, err := netlink.LinkByIndex(l.Index)
		if err != nil {
			return fmt.Errorf("find %s: %w", l.Name, err)
		}
		if up {
			return netlink.LinkSetUp(dev)
		}
		return netlink.LinkSetDown(dev)
	})
}

// SetGRO switches generic receive offload. Off, with no XDP program attached,
// the interface takes no redirected frames.
func (l *Link) SetGRO(on bool) error {
	return l.Namespace.Do(func() error { return setGRO(l.Name, on) })
}

// Stats reads the interface's counters.
func (l *Link) Stats() (s LinkStats, err error) {
	err = l.Namespace.Do(func() error { s, err = l.stats(); return err })
	return s, err
}

// stats is Stats in a thread of the interface's namespace.
func (l *Link) stats() (LinkStats, error) {
	dev, err := netlink.LinkByIndex(l.Index)
	if err != nil {
		return LinkStats{}, fmt.Errorf("read counters of %s: %w", l.Name, err)
	}
	k := dev.Attrs().Statistics
	if k == nil {
		return LinkStats{}, fmt.Errorf("read counters of %s: the kernel gave none", l.Name)
	}
	return LinkStats{k.RxPackets, k.RxBytes, k.RxDropped, k.TxPackets, k.TxBytes, k.TxDropped}, nil
}

// setGRO is `ethtool -K NAME gro on|off` in the namespace of the calling thread.
func setGRO(name string, on bool) error {
	const ethtoolSetGRO = 0x2c // ETHTOOL_SGRO
	if err := setFeature(name, ethtoolSetGRO, on); err != nil {
		return fmt.Errorf("set GRO of %s: %w", name, err)
	}
	return nil
}

// setTSO is `ethtool -K NAME tso on|off` in the namespace of the calling thread.
func setTSO(name string, on bool) error {
	const ethtoolSetTSO = 0x1f // ETHTOOL_STSO
	if err := setFeature(name, ethtoolSetTSO, on); err != nil {
		return fmt.Errorf("set TSO of %s: %w", name, err)
	}
	return nil
}

func setFeature(name string, command uint32, on bool) error {
	value := struct{ command, data uint32 }{command: command}
	if on {
		value.data = 1
	}
	var request struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte // the rest of struct ifreq
	}
	copy(request.name[:unix.IFNAMSIZ-1], name)
	request.data = unsafe.Pointer(&value)
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open socket for ethtool: %w", err)
	}
	defer unix.Close(fd)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request)))
	if errno != 0 {
		return errno
	}
	return nil
}

// PinNAPI gives the interface a kernel thread for its packets and pins that to
// a CPU, so that what filters them does not run on their sender's core.
func (l *Link) PinNAPI(cpu int) error {
	if err := l.Namespace.Do(func() error { return writeSysfs("class/net/"+l.Name+"/threaded", "1") }); err != nil {
		return fmt.Errorf("make NAPI of %s threaded (needs Linux 5.12): %w", l.Name, err)
	}
	pids, err := l.napiThreads(time.Second)
	if err != nil {
		return err
	}
	var set unix.CPUSet
	set.Set(cpu)
	for _, pid := range pids {
		if err := unix.SchedSetaffinity(pid, &set); err != nil {
			return fmt.Errorf("pin NAPI thread %d of %s to CPU %d: %w", pid, l.Name, cpu, err)
		}
	}
	return nil
}

// napiThreads waits until the kernel shows the threads' names.
func (l *Link) napiThreads(wait time.Duration) ([]int, error) {
	for deadline := time.Now().Add(wait); ; time.Sleep(time.Millisecond) {
		pids, err := kernelThreads("napi/" + l.Name + "-")
		if err != nil || len(pids) > 0 {
			return pids, err
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("find NAPI thread of %s: no kernel thread napi/%s-… is to be seen (a container's PID namespace hides them)", l.Name, l.Name)
		}
	}
}

// napiTime returns how long the interface's NAPI threads have run, in ns.
func (l *Link) napiTime() (sum uint64, err error) {
	pids, err := l.napiThreads(time.Second)
	if err != nil {
		return 0, err
	}
	for _, pid := range pids {
		var ran uint64
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/schedstat", pid))
		if err == nil {
			_, err = fmt.Sscan(string(text), &ran)
		}
		if err != nil {
			return 0, fmt.Errorf("read how long NAPI thread %d of %s has run: %w", pid, l.Name, err)
		}
		sum += ran
	}
	return sum, nil
}

// kernelThreads finds threads whose name starts with name; kernels before 5.17
// show only 15 characters of it.
func kernelThreads(name string) ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("look for kernel threads: %w", err)
	}
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		comm, err := os.ReadFile("/proc/" + e.Name() + "/comm")
		if err != nil {
			continue // ended meanwhile
		}
		c := strings.TrimSuffix(string(comm), "\n")
		if strings.HasPrefix(c, name) || (len(c) == 15 && strings.HasPrefix(name, c)) {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// writeSysfs writes to the sysfs of the calling thread's network namespace.
// /sys shows the one it was mounted in, so a mount of our own, seen by nobody, is used.
func writeSysfs(path, value string) error {
	fs, err := unix.Fsopen("sysfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return fmt.Errorf("open sysfs: %w", err)
	}
	defer unix.Close(fs)
	if err := unix.FsconfigCreate(fs); err != nil {
		return fmt.Errorf("create sysfs: %w", err)
	}
	root, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("mount sysfs: %w", err)
	}
	defer unix.Close(root)
	fd, err := unix.Openat(root, path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open sysfs %s: %w", path, err)
	}
	_, err = unix.Write(fd, []byte(value))
	if err != nil {
		err = fmt.Errorf("write sysfs %s: %w", path, err)
	}
	return errors.Join(err, unix.Close(fd))
}

// setNeighbour fixes the link-layer address of an IP address behind the interface.
func (l *Link) setNeighbour(ip netip.Addr, mac net.HardwareAddr) error {
	return l.Namespace.Do(func() error {
		n := &netlink.Neigh{LinkIndex: l.Index, State: netlink.NUD_PERMANENT, IP: ip.AsSlice(), HardwareAddr: mac}
		if err := netlink.NeighSet(n); err != nil {
			return fmt.Errorf("set the link-layer address of %s: %w", ip, err)
		}
		return nil
	})
}

// addLocalPrefix makes every address of a prefix the calling thread's namespace's own.
func addLocalPrefix(p netip.Prefix) error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find loopback: %w", err)
	}
	const localTable = 255
	route := &netlink.Route{
		LinkIndex: lo.Attrs().Index, Table: localTable, Type: unix.RTN_LOCAL, Scope: netlink.SCOPE_HOST,
		Dst: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())},
	}
	if err := netlink.RouteAdd(route); err != nil {
		return fmt.Errorf("make %s local: %w", p, err)
	}
	return nil
}
