// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Peer is a program of bpf/bench.bpf.c on an interface, to compare ours with.
type Peer struct {
	close func() error
}

// Close takes the program off the interface, in a thread of its network namespace.
func (p *Peer) Close() error { return p.close() }

// AttachDrop puts the least an XDP program can do on an interface of the calling thread's
// network namespace, in native mode: frames of 60 bytes are dropped, told by their length
// without a look at them, and all others pass.
func AttachDrop(ifindex int) (*Peer, error) {
	var objs struct {
		Drop *ebpf.Program `ebpf:"drop_smallest"`
	}
	if err := loadBenchObjects(&objs, nil); err != nil {
		return nil, fmt.Errorf("load bare XDP_DROP: %w", err)
	}
	l, err := link.AttachXDP(link.XDPOptions{Program: objs.Drop, Interface: ifindex, Flags: link.XDPDriverMode})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("attach bare XDP_DROP: %w", err), objs.Drop.Close())
	}
	return &Peer{func() error { return errors.Join(l.Close(), objs.Drop.Close()) }}, nil
}

// AttachClassifier puts a BPF classifier of tc with an LPM trie of IPv4 prefixes on an
// interface of the calling thread's network namespace. It drops what comes from them.
func AttachClassifier(ifindex int, prefixes []netip.Prefix) (*Peer, error) {
	spec, err := loadBench()
	if err != nil {
		return nil, fmt.Errorf("read the classifier: %w", err)
	}
	spec.Maps["prefixes"].MaxEntries = uint32(max(1, len(prefixes)))
	var objs struct {
		Classify *ebpf.Program `ebpf:"classify"`
		Prefixes *ebpf.Map     `ebpf:"prefixes"`
	}
	if err := spec.LoadAndAssign(&objs, nil); err != nil {
		return nil, fmt.Errorf("load the classifier: %w", err)
	}
	free := func() error { return errors.Join(objs.Classify.Close(), objs.Prefixes.Close()) }
	if err := fillTrie(objs.Prefixes, prefixes); err != nil {
		return nil, errors.Join(err, free())
	}
	qdisc := &netlink.GenericQdisc{
		QdiscAttrs: netlink.QdiscAttrs{LinkIndex: ifindex, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT},
		QdiscType:  "clsact",
	}
	if err := netlink.QdiscAdd(qdisc); err != nil {
		return nil, errors.Join(fmt.Errorf("add clsact: %w", err), free())
	}
	filter := &netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{
			LinkIndex: ifindex, Parent: netlink.HANDLE_MIN_INGRESS, Handle: 1, Priority: 1, Protocol: unix.ETH_P_ALL,
		},
		Fd: objs.Classify.FD(), Name: "classify", DirectAction: true,
	}
	remove := func() error { return errors.Join(netlink.QdiscDel(qdisc), free()) }
	if err := netlink.FilterAdd(filter); err != nil {
		return nil, errors.Join(fmt.Errorf("add the classifier: %w", err), remove())
	}
	return &Peer{remove}, nil
}

// FillFilterHosts puts addresses into the pinned host table of xdp-filter, as
// `xdp-filter ip ADDRESS -m src` does for one.
func FillFilterHosts(pin string, hosts []netip.Addr) error {
	const bySource = 1 // MAP_FLAG_SRC of xdp-filter
	values := make([]uint64, ebpf.MustPossibleCPU())
	for i := range values {
		values[i] = bySource
	}
	return fillHosts("xdp-filter", pin, hosts, values)
}

// FillFirewallHosts puts IPv4 addresses into the pinned block map of XDP-Firewall, as
// `xdpfw-add -m 1 -s ADDRESS` does for one, without an end.
func FillFirewallHosts(pin string, hosts []netip.Addr) error {
	const forever = uint64(0)
	return fillHosts("XDP-Firewall", pin, hosts, forever)
}

func fillHosts(program, pin string, hosts []netip.Addr, value any) error {
	m, err := ebpf.LoadPinnedMap(pin, nil)
	if err != nil {
		return fmt.Errorf("open the table of %s: %w", program, err)
	}
	defer m.Close()
	for _, host := range hosts {
		if err := m.Put(host.AsSlice(), value); err != nil {
			return fmt.Errorf("put %v into the table of %s: %w", host, program, err)
		}
	}
	return nil
}
