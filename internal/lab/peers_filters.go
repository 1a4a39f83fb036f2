// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sentinel-x/sentinel-x/internal/config"
	"github.com/sentinel-x/sentinel-x/internal/dataplane"
	"github.com/sentinel-x/sentinel-x/internal/engine"
	"github.com/sentinel-x/sentinel-x/internal/signature"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// peerFilter is one way to drop the flood at the victim.
type peerFilter struct {
	name, what string
	ours       bool
	program    string // that must be installed; "": none
	setUp      func(*peerRun) error
	rate       uint64        // packets a second of each source that it is to let through
	burst      time.Duration // of this rate, at the start
}

const (
	peerBare = "xdp_drop_bare"
	peerNone = "none"

	meterRate  = 1 // packets a second, what each client sends
	meterBurst = time.Second
	meterRoom  = 4 // limits.sources for each source that is over its limit: 1 % get through (decision 8)
)

var peerFilters = []peerFilter{
	{name: peerBare, what: "an XDP program that only drops", ours: true, setUp: setUpBare},
	{name: "sentinel_x_list", what: "the sources are on the block list", ours: true, setUp: setUpList},
	{name: "sentinel_x_signature", what: "a signature matches the flood", ours: true, setUp: setUpSignature},
	{name: "sentinel_x_meter", what: "every source is over its limit", ours: true, setUp: setUpMeter, rate: meterRate, burst: meterBurst},
	{name: "xdp_filter", what: "by port, as it has no prefixes; of many, as hosts as many as its table holds", program: "xdp-filter", setUp: setUpXDPFilter},
	{name: "xdp_firewall", what: "XDP-Firewall, each source in its block map, as it has no prefixes unless built with them", program: "xdpfw", setUp: setUpXDPFirewall},
	{name: "tc_bpf", what: "a BPF classifier, the sources in an LPM trie", ours: true, setUp: setUpClassifier},
	{name: "nft_ingress", what: "nftables, netdev ingress, the sources in a set", program: "nft", setUp: setUpNFTIngress},
	{name: "nft_raw", what: "nftables, prerouting at priority raw, the sources in a set", program: "nft", setUp: setUpNFTRaw},
	{name: "iptables_raw", what: "iptables, table raw; many prefixes in an ipset", program: "iptables", setUp: setUpIptablesRaw},
	{name: "iptables_input", what: "iptables, INPUT; many prefixes in an ipset", program: "iptables", setUp: setUpIptablesInput},
	{name: peerNone, what: "no filter: the stack finds no socket", ours: true, setUp: func(*peerRun) error { return nil }},
}

// missingError says why a filter cannot be had here.
type missingError struct{ err error }

func (e *missingError) Error() string { return e.err.Error() }
func (e *missingError) Unwrap() error { return e.err }

func (f peerFilter) tool() error {
	if f.program == "" {
		return nil
	}
	if _, err := exec.LookPath(f.program); err != nil {
		return &missingError{fmt.Errorf("%s is not installed", f.program)}
	}
	return nil
}

// peerRun is one filter, the network it was set up in, and what was measured of it. The
// functions below run in a thread of the victim's namespace.
type peerRun struct {
	ctx      context.Context
	filter   peerFilter
	net      *Net
	config   config.Config
	prefixes []netip.Prefix // blocked
	sources  int            // of the flood
	undo     []func() error
	samples  peerSamples
}

func (r *peerRun) later(undo func() error) { r.undo = append(r.undo, undo) }

func (r *peerRun) release() error {
	return r.net.Victim.Do(func() error {
		var errs []error
		for _, undo := range slices.Backward(r.undo) {
			errs = append(errs, undo())
		}
		return errors.Join(errs...)
	})
}

func setUpBare(r *peerRun) error {
	p, err := dataplane.AttachDrop(r.net.VictimEnd.Index)
	if err != nil {
		return err
	}
	r.later(p.Close)
	return nil
}

func setUpClassifier(r *peerRun) error {
	p, err := dataplane.AttachClassifier(r.net.VictimEnd.Index, r.prefixes)
	if err != nil {
		return err
	}
	r.later(p.Close)
	return nil
}

// sentinel loads the packet path as the daemon does, with as many blocked prefixes
// as the comparison has, and attaches it when arm has put in force what drops.
func (r *peerRun) sentinel(blocked []netip.Prefix, arm func(*dataplane.Plane) error) error {
	o := engine.PlaneOptions(r.config)
	o.PinPath, o.MaxEntries, o.Sources = "", max(o.MaxEntries, len(blocked)), max(o.Sources, meterRoom*r.sources)
	p, err := dataplane.New(o)
	if err != nil {
		return err
	}
	r.later(p.Close)
	entries := make([]traffic.Entry, len(blocked))
	for i, prefix := range blocked {
		entries[i] = traffic.Entry{Prefix: prefix}
	}
	// The daemon spreads its samples over the packets there are, once a tick.
	const passed, dropped = peerRequests, 4e6
	if err := errors.Join(p.Replace(traffic.ListBlock, entries), arm(p), p.AdaptSampling(passed, dropped)); err != nil {
		return err
	}
	_, err = p.Attach(r.net.VictimEnd.Name, dataplane.ModeNative, false)
	return err
}

func setUpList(r *peerRun) error {
	return r.sentinel(r.prefixes, func(*dataplane.Plane) error { return nil })
}

// silent returns as many prefixes as are blocked, none of them the flood's or a client's.
func (r *peerRun) silent() []netip.Prefix {
	all := make([]netip.Prefix, len(r.prefixes))
	for i, p := range r.prefixes {
		b := p.Addr().As4()
		b[0] = 203
		all[i] = netip.PrefixFrom(netip.AddrFrom4(b), p.Bits())
	}
	return all
}

func setUpSignature(r *peerRun) error {
	text := fmt.Sprintf("udp and dst port %d and len <= %d", peerPort, peerFrame)
	rule, err := signature.Parse(text)
	if err != nil {
		return err
	}
	rule.Target = netip.PrefixFrom(Victim4, Victim4.BitLen())
	return r.sentinel(r.silent(), func(p *dataplane.Plane) error {
		return p.SetSignatures([]signature.Armed{{
			ID: 1, Text: text, Rule: rule, Action: signature.Drop, Ceiling: signature.FullCeiling,
		}})
	})
}

func setUpMeter(r *peerRun) error {
	var limits traffic.Limits
	limits.Class[traffic.ClassUDP] = traffic.Limit{Packets: meterRate, Burst: meterBurst}
	return r.sentinel(r.silent(), func(p *dataplane.Plane) error { return p.SetLimits(limits) })
}

// setUpXDPFilter blocks the flood's port, which costs xdp-filter least. It knows no
// prefixes; of several, its table of hosts is filled with sources of the flood.
func setUpXDPFilter(r *peerRun) error {
	const tableSize = 10_000
	// Its pins go on a file system of our own, which ends with this thread.
	if err := ownBPFFS(); err != nil {
		return err
	}
	r.later(func() error { return dropXDP(r.net.VictimEnd.Index) })
	features := "udp"
	if len(r.prefixes) > 1 {
		features = "ipv4,udp"
	}
	if err := r.command("", "xdp-filter", "load", "--mode", "native", "--features", features, r.net.VictimEnd.Name); err != nil {
		return err
	}
	if err := r.command("", "xdp-filter", "port", strconv.Itoa(peerPort), "--mode", "dst", "--proto", "udp"); err != nil {
		return err
	}
	if len(r.prefixes) == 1 {
		return nil
	}
	return dataplane.FillFilterHosts("/sys/fs/bpf/xdp-filter/filter_ipv4", floodHosts(min(tableSize, len(r.prefixes))))
}

// floodHosts returns the first n addresses of the flood's network.
func floodHosts(n int) []netip.Addr {
	hosts := make([]netip.Addr, n)
	for i := range hosts {
		hosts[i] = addressAfter(floodNet.Addr(), uint32(i))
	}
	return hosts
}

// setUpXDPFirewall starts the program, which stays to the end, and blocks every source of
// the flood, and as many addresses as prefixes are blocked.
func setUpXDPFirewall(r *peerRun) error {
	if err := ownBPFFS(); err != nil {
		return err
	}
	file, err := os.CreateTemp("", "sx-xdpfw-*.conf")
	if err != nil {
		return fmt.Errorf("write the configuration of xdpfw: %w", err)
	}
	r.later(func() error { return os.Remove(file.Name()) })
	_, err = fmt.Fprintf(file, "interface = %q;\nlog_file = \"\";\nfilters = ();\n", r.net.VictimEnd.Name)
	if err := errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("write the configuration of xdpfw: %w", err)
	}
	r.later(func() error { return dropXDP(r.net.VictimEnd.Index) })
	const pin = "/sys/fs/bpf/xdpfw/map_block"
	ready := func() bool {
		dev, err := netlink.LinkByIndex(r.net.VictimEnd.Index)
		_, missing := os.Stat(pin)
		return err == nil && missing == nil && dev.Attrs().Xdp != nil && dev.Attrs().Xdp.Attached
	}
	if err := r.background(ready, "xdpfw", "-c", file.Name()); err != nil {
		return err
	}
	return dataplane.FillFirewallHosts(pin, floodHosts(max(r.sources, len(r.prefixes))))
}

// ownBPFFS gives the calling thread a BPF file system that nobody else sees.
func ownBPFFS() error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("make a mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("bpf", "/sys/fs/bpf", "bpf", 0, ""); err != nil {
		return fmt.Errorf("mount a BPF file system: %w", err)
	}
	return nil
}

func dropXDP(index int) error {
	dev, err := netlink.LinkByIndex(index)
	if err != nil {
		return fmt.Errorf("find interface %d: %w", index, err)
	}
	if err := netlink.LinkSetXdpFd(dev, -1); err != nil {
		return fmt.Errorf("take the XDP program off %s: %w", dev.Attrs().Name, err)
	}
	return nil
}

func setUpNFTIngress(r *peerRun) error {
	return r.nft("netdev", fmt.Sprintf("type filter hook ingress device %q priority 0;", r.net.VictimEnd.Name))
}

func setUpNFTRaw(r *peerRun) error {
	return r.nft("ip", "type filter hook prerouting priority raw;")
}

func (r *peerRun) nft(family, hook string) error {
	words := make([]string, len(r.prefixes))
	for i, p := range r.prefixes {
		words[i] = p.String()
	}
	return r.command(fmt.Sprintf(`table %s peers {
	set blocked {
		type ipv4_addr; flags interval; elements = { %s }
	}
	chain filter {
		%s policy accept;
		ip saddr @blocked drop
	}
}
`, family, strings.Join(words, ","), hook), "nft", "-f", "-")
}

func setUpIptablesRaw(r *peerRun) error { return r.iptables("raw", "PREROUTING") }

func setUpIptablesInput(r *peerRun) error { return r.iptables("filter", "INPUT") }

// iptables adds one rule: for a prefix, or for a set of them.
func (r *peerRun) iptables(table, chain string) error {
	match := []string{"-s", r.prefixes[0].String()}
	if len(r.prefixes) > 1 {
		if err := makeIPSet("peers", r.prefixes); err != nil {
			return err
		}
		match = []string{"-m", "set", "--match-set", "peers", "src"}
	}
	return r.command("", "iptables", append(append([]string{"-w", "-t", table, "-A", chain}, match...), "-j", "DROP")...)
}

func makeIPSet(name string, prefixes []netip.Prefix) error {
	err := netlink.IpsetCreate(name, "hash:net", netlink.IpsetCreateOptions{Family: unix.AF_INET, MaxElements: uint32(len(prefixes))})
	if err != nil {
		return fmt.Errorf("create an ipset: %w", err)
	}
	for _, p := range prefixes {
		if err := netlink.IpsetAdd(name, &netlink.IPSetEntry{IP: net.IP(p.Addr().AsSlice()), CIDR: uint8(p.Bits())}); err != nil {
			return fmt.Errorf("add %v to the ipset: %w", p, err)
		}
	}
	return nil
}

// background starts a program in the namespaces of the calling thread, and returns when it
// is ready. It is asked to end when all is undone, and ended if it does not.
func (r *peerRun) background(ready func() bool, name string, args ...string) error {
	const patience = 5 * time.Second
	c := exec.Command(name, args...)
	var said bytes.Buffer
	c.Stdout, c.Stderr = &said, &said
	if err := c.Start(); err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	ended := make(chan struct{})
	go func() {
		_ = c.Wait() // how it ended stays in c.ProcessState
		close(ended)
	}()
	r.later(func() error {
		_ = c.Process.Signal(os.Interrupt) // it may have ended by itself
		select {
		case <-ended:
		case <-time.After(patience):
			_ = c.Process.Kill()
			<-ended
		}
		return nil
	})
	for start := time.Now(); !ready(); {
		select {
		case <-r.ctx.Done():
			return r.ctx.Err()
		case <-ended:
			return fmt.Errorf("%s ended before it filtered: %v: %s", name, c.ProcessState, firstLine(said.String()))
		case <-time.After(20 * time.Millisecond):
		}
		if time.Since(start) > patience {
			return fmt.Errorf("%s does not filter after %v", name, patience)
		}
	}
	return nil
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	return line
}

// command runs a program in the namespaces of the calling thread.
func (r *peerRun) command(input, name string, args ...string) error {
	ctx, cancel := context.WithTimeout(r.ctx, 20*time.Second)
	defer cancel()
	c := exec.CommandContext(ctx, name, args...)
	c.Stdin = strings.NewReader(input)
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	if err := c.Run(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, firstLine(out.String()))
	}
	return nil
}
