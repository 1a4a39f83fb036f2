// SPDX-License-Identifier: Apache-2.0

package mitigate

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// host is where Discover looks; tests put their own files in its place.
type host struct {
	resolvConfs []string
	proc        string
	pid         int
	getenv      func(string) string
}

func thisHost() host {
	return host{
		// The second one holds the real servers where systemd-resolved listens on loopback.
		resolvConfs: []string{"/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"},
		proc:        "/proc",
		pid:         os.Getpid(),
		getenv:      os.Getenv,
	}
}

// Discover finds whom a block must not cover: the host's own addresses, its
// default gateways, its resolvers, and the peer of the SSH session that this
// process was started from. An address that several interfaces have is called
// that of the first one named. With an error, what was found is returned too.
func Discover(interfaces []string) ([]Protected, error) {
	h := thisHost()
	own, err1 := ownAddresses(interfaces)
	gateways, err2 := gateways()
	resolvers, err3 := h.resolvers()
	return slices.Concat(own, gateways, resolvers, h.sshPeer()), errors.Join(err1, err2, err3)
}

// ownAddresses returns the addresses of all interfaces but the loopback ones,
// which no packet on a wire may carry and lists of bogus sources hold.
func ownAddresses(first []string) ([]Protected, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	rank := func(l netlink.Link) int {
		if i := slices.Index(first, l.Attrs().Name); i >= 0 {
			return i
		}
		return len(first)
	}
	slices.SortStableFunc(links, func(a, b netlink.Link) int { return cmp.Compare(rank(a), rank(b)) })
	var own []Protected
	seen := map[netip.Addr]bool{}
	for _, link := range links {
		addrs, err := netlink.AddrList(link, netlink.FAMILY_ALL)
		if err != nil {
			return own, fmt.Errorf("list addresses of %s: %w", link.Attrs().Name, err)
		}
		for _, a := range addrs {
			addr, ok := netip.AddrFromSlice(a.IP)
			addr = addr.Unmap()
			if !ok || addr.IsLoopback() || seen[addr] {
				continue
			}
			seen[addr] = true
			own = append(own, Protected{single(addr), "own address of " + link.Attrs().Name, true})
		}
	}
	return own, nil
}

// OwnAddresses returns the addresses of interfaces, each as a prefix, in their order.
func OwnAddresses(interfaces []string) ([]netip.Prefix, error) {
	var own []netip.Prefix
	for _, name := range interfaces {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return own, fmt.Errorf("find interface %s: %w", name, err)
		}
		addrs, err := netlink.AddrList(link, netlink.FAMILY_ALL)
		if err != nil {
			return own, fmt.Errorf("list addresses of %s: %w", name, err)
		}
		for _, a := range addrs {
			addr, ok := netip.AddrFromSlice(a.IP)
			if p := single(addr); ok && !slices.Contains(own, p) {
				own = append(own, p)
			}
		}
	}
	return own, nil
}

// gateways returns the next hops of the default routes of all routing tables.
func gateways() ([]Protected, error) {
	var found []Protected
	var errs []error
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := netlink.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
		if err != nil {
			errs = append(errs, fmt.Errorf("list routes: %w", err))
			continue
		}
		for _, r := range routes {
			for _, addr := range nextHops(r) {
				found = append(found, Protected{Prefix: single(addr), Why: "default gateway"})
			}
		}
	}
	return found, errors.Join(errs...)
}

// nextHops returns the gateways of a default route, nothing for other routes.
func nextHops(r netlink.Route) []netip.Addr {
	if r.Dst != nil {
		if ones, _ := r.Dst.Mask.Size(); ones != 0 {
			return nil
		}
	}
	var hops []netip.Addr
	add := func(ip []byte, via netlink.Destination) {
		// An IPv4 route may go via an IPv6 neighbour (RFC 5549).
		if v, ok := via.(*netlink.Via); ok {
			ip = v.Addr
		}
		if addr, ok := netip.AddrFromSlice(ip); ok && !addr.IsUnspecified() {
			hops = append(hops, addr.Unmap())
		}
	}
	add(r.Gw, r.Via)
	for _, hop := range r.MultiPath {
		add(hop.Gw, hop.Via)
	}
	return hops
}

// resolvers returns the name servers that are not on loopback.
func (h host) resolvers() ([]Protected, error) {
	var found []Protected
	var errs []error
	for _, path := range h.resolvConfs {
		text, err := os.ReadFile(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("read resolvers: %w", err))
		}
		for line := range strings.Lines(string(text)) {
			fields := strings.Fields(line)
			if len(fields) < 2 || fields[0] != "nameserver" {
				continue
			}
			addr, err := netip.ParseAddr(fields[1])
			if err != nil || addr.Unmap().IsLoopback() || addr.IsUnspecified() {
				continue
			}
			found = append(found, Protected{Prefix: single(addr), Why: "resolver in " + path})
		}
	}
	return found, errors.Join(errs...)
}

// sshPeer returns the peer of the SSH session that this process was started
// from. sudo takes SSH_CONNECTION out of the environment, so the processes
// above are asked too; one that cannot be read is passed over.
func (h host) sshPeer() []Protected {
	const most = 64 // processes above one another
	connection := h.getenv("SSH_CONNECTION")
	for pid, n := h.parent(h.pid), 0; connection == "" && pid > 1 && n < most; pid, n = h.parent(pid), n+1 {
		environ, _ := os.ReadFile(filepath.Join(h.proc, strconv.Itoa(pid), "environ"))
		for v := range bytes.SplitSeq(environ, []byte{0}) {
			if value, ok := bytes.CutPrefix(v, []byte("SSH_CONNECTION=")); ok {
				connection = string(value)
			}
		}
	}
	fields := strings.Fields(connection)
	if len(fields) == 0 {
		return nil
	}
	addr, err := netip.ParseAddr(fields[0])
	if err != nil || addr.Unmap().IsLoopback() {
		return nil
	}
	return []Protected{{Prefix: single(addr), Why: "peer of the SSH session"}}
}

// parent reads the fourth field of stat, 0 if it cannot. The second, the
// command in brackets, may hold blanks and brackets itself.
func (h host) parent(pid int) int {
	stat, _ := os.ReadFile(filepath.Join(h.proc, strconv.Itoa(pid), "stat"))
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 2 {
		return 0
	}
	ppid, _ := strconv.Atoi(string(fields[1]))
	return ppid
}

func single(addr netip.Addr) netip.Prefix {
	addr = addr.Unmap().WithZone("")
	return netip.PrefixFrom(addr, addr.BitLen())
}
