// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"

	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

//go:generate go tool bpf2go -go-package dataplane -target bpfel -cc clang-19 -strip llvm-strip-19 generator ../../bpf/generator.bpf.c -- -O2 -g -Wall -Wextra -Werror -mcpu=v3 -I../../bpf/include

// FloodKind is what the frames of a flood carry.
type FloodKind string

// The kinds of floods.
const (
	FloodUDP  FloodKind = "udp"
	FloodSYN  FloodKind = "syn"  // TCP SYN without options, as flood tools send it
	FloodICMP FloodKind = "icmp" // echo request; ICMPv6 to an IPv6 target
)

// Flood says what a Generator sends, where to, and when it stops. Rate 0 is as
// fast as one core can. One of Count and Duration must be set.
type Flood struct {
	Interface int // ifindex in the network namespace of the thread that runs it
	SourceMAC net.HardwareAddr
	DestMAC   net.HardwareAddr
	VLANs     []uint16 // up to two tags, outer first; two are 802.1ad and 802.1Q

	// Source and Sources choose the source addresses. 0: random within Source, another
	// one each frame. 1: Source's address. N: N addresses from Source's address on,
	// in turn; IPv6 counts hosts, or /64s where Source is shorter than a /64.
	Source  netip.Prefix
	Sources int
	Dest    netip.Addr // same family as Source

	Kind       FloodKind
	SourcePort uint16 // 0: random each frame; ICMP: the identifier
	DestPort   uint16
	Size       int // bytes of the frame without FCS, tags included; 0: the smallest

	Rate     uint64 // frames a second
	Count    uint64 // frames in all; 0: Duration ends it
	Duration time.Duration
}

// FloodReport says what a generator did. Frames are those handed to the
// interface: what a full ring drops behind it is in the interface's statistics.
type FloodReport struct {
	Sent    traffic.Count
	Elapsed time.Duration
}

const (
	testXDPLiveFrames = 1 << 1 // BPF_F_TEST_XDP_LIVE_FRAMES, Linux 5.18
	generatorBurst    = 1 << 15
	// At a rate: time between bursts, and how many bursts' worth to send at once after
	// a stall. Longer bursts overflow the 256 slots of a veth's ring.
	generatorPace    = time.Millisecond
	generatorCatchUp = 3
)

// Generator sends a flood from a BPF program, without a socket: frames go from
// the page pool straight into the interface. Run it in a thread of the network
// namespace that Flood.Interface is in; it creates an interface there while it runs.
type Generator struct {
	flood Flood
	frame []byte
	objs  generatorObjects
}

// NewGenerator checks a flood and loads its program.
func NewGenerator(f Flood) (*Generator, error) {
	t, err := newTemplate(f)
	if err != nil {
		return nil, fmt.Errorf("check flood: %w", err)
	}
	spec, err := loadGenerator()
	if err != nil {
		return nil, fmt.Errorf("read generator program: %w", err)
	}
	if err := spec.Variables["config"].Set(t.config); err != nil {
		return nil, fmt.Errorf("configure generator program: %w", err)
	}
	g := &Generator{flood: f, frame: t.frame}
	if err := spec.LoadAndAssign(&g.objs, nil); err != nil {
		return nil, fmt.Errorf("load generator program: %w", err)
	}
	return g, nil
}

// Close frees the program. It must not be called during Run.
func (g *Generator) Close() error { return g.objs.Close() }

// Sent returns the frames handed to the interface so far. It may be called during Run.
func (g *Generator) Sent() (uint64, error) {
	var n uint64
	if err := g.objs.Sent.Get(&n); err != nil {
		return 0, fmt.Errorf("read generator's count: %w", err)
	}
	return n, nil
}

// Run sends the flood and returns when its count or duration is reached or ctx
// ends, which is no error. It never sends more than Count, nor more than Rate
// times the time that has passed.
func (g *Generator) Run(ctx context.Context) (report FloodReport, err error) {
	if err := g.checkInterface(); err != nil {
		return FloodReport{}, err
	}
	release, err := g.keepInDispatcher()
	if err != nil {
		return FloodReport{}, err
	}
	defer func() { err = errors.Join(err, release()) }()
	start := time.Now()
	if g.flood.Duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, start.Add(g.flood.Duration))
		defer cancel()
	}
	before, err := g.Sent()
	if err != nil {
		return FloodReport{}, err
	}
	err = g.pace(ctx, start)
	after, sentErr := g.Sent()
	n := after - before
	return FloodReport{
		Sent:    traffic.Count{Packets: n, Bytes: n * uint64(len(g.frame))},
		Elapsed: time.Since(start),
	}, errors.Join(err, sentErr)
}

var anchors atomic.Uint32

// keepInDispatcher attaches the program to an interface of its own, which stays
// down. A test run puts its program into the kernel's XDP dispatcher and takes it
// out again, waiting for an RCU grace period (tens of milliseconds) each time,
// unless the program is in there already: that is all that being attached does.
func (g *Generator) keepInDispatcher() (release func() error, err error) {
	name := fmt.Sprintf("sxg%d.%d", os.Getpid(), anchors.Add(1))
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: name + "p"}); err != nil {
		return nil, fmt.Errorf("create an interface for the generator: %w", err)
	}
	dev, err := netlink.LinkByName(name)
	if err != nil {
		return nil, fmt.Errorf("find the generator's interface %s: %w", name, err)
	}
	remove := func() error {
		if err := netlink.LinkDel(dev); err != nil {
			return fmt.Errorf("remove the generator's interface %s: %w", name, err)
		}
		return nil
	}
	l, err := link.AttachXDP(link.XDPOptions{Program: g.objs.Generate, Interface: dev.Attrs().Index, Flags: link.XDPGenericMode})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("attach the generator to %s: %w", name, err), remove())
	}
	return func() error { return errors.Join(l.Close(), remove()) }, nil
}

func (g *Generator) pace(ctx context.Context, start time.Time) error {
	var done uint64
	for ctx.Err() == nil && (g.flood.Count == 0 || done < g.flood.Count) {
		if n := g.due(time.Since(start), done); n > 0 {
			if err := g.burst(n); err != nil {
				return err
			}
			done += uint64(n)
		}
		if g.flood.Rate > 0 {
			sleep(ctx, generatorPace)
		}
	}
	return nil
}

// due returns how many frames to send now.
func (g *Generator) due(elapsed time.Duration, done uint64) uint32 {
	n := uint64(generatorBurst)
	if rate := float64(g.flood.Rate); rate > 0 {
		allowed := uint64(elapsed.Seconds() * rate)
		if allowed <= done {
			return 0
		}
		n = min(n, allowed-done, uint64(generatorCatchUp*rate*generatorPace.Seconds())+1)
	}
	if g.flood.Count > 0 {
		n = min(n, g.flood.Count-done)
	}
	return uint32(n)
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// burst sends n frames. A run that a signal cuts short is repeated whole by
// cilium/ebpf, so the program itself keeps to the quota.
func (g *Generator) burst(n uint32) error {
	if err := g.objs.Quota.Set(uint64(n)); err != nil {
		return fmt.Errorf("set generator's quota: %w", err)
	}
	verdict, err := g.objs.Generate.Run(&ebpf.RunOptions{Data: g.frame, Repeat: n, Flags: testXDPLiveFrames})
	if err != nil {
		return fmt.Errorf("run generator program with live frames (needs Linux 5.18 or newer and CAP_NET_ADMIN): %w", err)
	}
	// Kernels that do not know the flag ignore it, or refuse it: live runs return no verdict.
	if verdict != 0 {
		return errors.New("run generator program: this kernel has no live frames; use Linux 5.18 or newer")
	}
	return nil
}

// checkInterface finds what the kernel would answer by dropping every frame.
func (g *Generator) checkInterface() error {
	dev, err := netlink.LinkByIndex(g.flood.Interface)
	if err != nil {
		return fmt.Errorf("find interface %d in this network namespace: %w", g.flood.Interface, err)
	}
	a := dev.Attrs()
	if a.Flags&net.FlagUp == 0 {
		return fmt.Errorf("interface %s is down: set it up first", a.Name)
	}
	if limit := a.MTU + ethernetLength; len(g.frame) > limit {
		return fmt.Errorf("frames of %d bytes do not fit %s: its MTU %d allows %d", len(g.frame), a.Name, a.MTU, limit)
	}
	return nil
}

// template is a frame without source, and where the program has to write it.
type template struct {
	frame  []byte
	config generatorGenConfig
}

const (
	ethernetLength  = 14
	tagLength       = 4
	minFrame        = 60
	maxFrame        = 3400 // what a live frame's page has room for
	protocolICMP    = 1
	protocolTCP     = 6
	protocolUDP     = 17
	protocolICMPv6  = 58
	udpHeaderLength = 8
	tcpHeaderLength = 20
)

func newTemplate(f Flood) (template, error) {
	if err := f.check(); err != nil {
		return template{}, err
	}
	ip, l4 := f.headerLengths()
	eth := ethernetLength + tagLength*len(f.VLANs)
	size := max(f.Size, minFrame, eth+ip+l4)
	if size > maxFrame || (f.Size != 0 && f.Size < size) {
		return template{}, fmt.Errorf("size %d: must be from %d to %d bytes", f.Size, max(minFrame, eth+ip+l4), maxFrame)
	}
	t := template{frame: make([]byte, size)}
	t.config.Ifindex = uint32(f.Interface)
	t.config.HeaderLength = uint32(eth + ip + l4)
	t.writeLink(f)
	if f.Dest.Is4() {
		t.writeIPv4(f, eth)
	} else {
		t.writeIPv6(f, eth)
	}
	t.writeL4(f, eth+ip)
	t.chooseSources(f)
	copy(t.config.Header[:], t.frame[:eth+ip+l4])
	return t, nil
}

func (f Flood) check() error {
	switch {
	case f.Interface <= 0:
		return errors.New("no interface given")
	case len(f.SourceMAC) != 6 || len(f.DestMAC) != 6:
		return errors.New("both MAC addresses must have 6 bytes")
	case len(f.VLANs) > 2:
		return fmt.Errorf("%d VLAN tags: at most 2", len(f.VLANs))
	case !f.Source.IsValid() || !f.Dest.IsValid():
		return errors.New("source prefix and destination address must be given")
	case f.Dest.Is4In6() || f.Source.Addr().Is4In6():
		return errors.New("IPv4-mapped IPv6 addresses are not sent: give the IPv4 address")
	case f.Source.Addr().Is4() != f.Dest.Is4():
		return fmt.Errorf("source %s and destination %s are of different families", f.Source, f.Dest)
	case f.Count == 0 && f.Duration <= 0:
		return errors.New("a flood must end: give a count or a duration")
	case f.Duration < 0:
		return fmt.Errorf("duration %s is negative", f.Duration)
	}
	if _, err := f.protocol(); err != nil {
		return err
	}
	return f.checkSources()
}

func (f Flood) checkSources() error {
	if f.Sources < 0 {
		return fmt.Errorf("%d sources: must not be negative", f.Sources)
	}
	base := f.Source.Addr().AsSlice()
	end := 4 * (f.indexWord() + 1)
	first := uint64(binary.BigEndian.Uint32(base[end-4 : end]))
	if n := uint64(f.Sources); n > 1 && first+n-1 > 0xffffffff {
		return fmt.Errorf("%d sources from %s on do not fit", f.Sources, f.Source.Addr())
	}
	return nil
}

// indexWord returns the 32-bit word of the source that counts.
func (f Flood) indexWord() int {
	switch {
	case f.Dest.Is4():
		return 0
	case f.Source.Bits() < 64:
		return 1
	}
	return 3
}

func (f Flood) protocol() (uint8, error) {
	switch f.Kind {
	case FloodUDP:
		return protocolUDP, nil
	case FloodSYN:
		return protocolTCP, nil
	case FloodICMP:
		if f.Dest.Is4() {
			return protocolICMP, nil
		}
		return protocolICMPv6, nil
	}
	return 0, fmt.Errorf("unknown kind of flood %q: use udp, syn or icmp", f.Kind)
}

func (f Flood) headerLengths() (ip, l4 int) {
	ip, l4 = 40, udpHeaderLength // ICMP echo has 8 bytes too
	if f.Dest.Is4() {
		ip = 20
	}
	if f.Kind == FloodSYN {
		l4 = tcpHeaderLength
	}
	return ip, l4
}

func (t *template) writeLink(f Flood) {
	copy(t.frame, f.DestMAC)
	copy(t.frame[6:], f.SourceMAC)
	at := 12
	for i, id := range f.VLANs {
		tag := uint16(0x8100)
		if i == 0 && len(f.VLANs) == 2 {
			tag = 0x88a8
		}
		binary.BigEndian.PutUint16(t.frame[at:], tag)
		binary.BigEndian.PutUint16(t.frame[at+2:], id&0xfff)
		at += tagLength
	}
	ethertype := uint16(0x86dd)
	if f.Dest.Is4() {
		ethertype = 0x0800
	}
	binary.BigEndian.PutUint16(t.frame[at:], ethertype)
}

func (t *template) writeIPv4(f Flood, at int) {
	ip := t.frame[at:]
	ip[0] = 0x45
	binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
	ip[8] = 64
	ip[9], _ = f.protocol()
	copy(ip[16:20], f.Dest.AsSlice())
	c := &t.config
	c.IpSum = sum(ip[:20])
	c.SourceAt, c.IpCheckAt, c.SourceWords = uint16(at+12), uint16(at+10), 1
}

func (t *template) writeIPv6(f Flood, at int) {
	ip := t.frame[at:]
	ip[0] = 0x60
	binary.BigEndian.PutUint16(ip[4:], uint16(len(ip)-40))
	ip[6], _ = f.protocol()
	ip[7] = 64
	copy(ip[24:40], f.Dest.AsSlice())
	t.config.SourceAt, t.config.SourceWords = uint16(at+8), 4
}

func (t *template) writeL4(f Flood, at int) {
	l4, c := t.frame[at:], &t.config
	protocol, _ := f.protocol()
	c.SourcePort, c.PortAt, c.Pseudo = f.SourcePort, uint16(at), 1
	switch f.Kind {
	case FloodUDP:
		binary.BigEndian.PutUint16(l4[2:], f.DestPort)
		binary.BigEndian.PutUint16(l4[4:], uint16(len(l4)))
		c.L4CheckAt, c.Udp = uint16(at+6), 1
	case FloodSYN:
		binary.BigEndian.PutUint16(l4[2:], f.DestPort)
		binary.BigEndian.PutUint32(l4[4:], 0x5e17 /* any sequence number */)
		l4[12], l4[13] = tcpHeaderLength/4<<4, 0x02
		binary.BigEndian.PutUint16(l4[14:], 1024)
		c.L4CheckAt = uint16(at + 16)
	case FloodICMP:
		l4[0] = 8
		if protocol == protocolICMPv6 {
			l4[0] = 128
		} else {
			c.Pseudo = 0
		}
		c.PortAt, c.L4CheckAt = uint16(at+4), uint16(at+2)
	}
	c.L4Sum = sum(l4)
	if c.Pseudo == 1 {
		c.L4Sum += sum(pseudoHeader(f.Dest, protocol, len(l4)))
	}
}

// pseudoHeader returns what a checksum covers besides the source and layer 4.
func pseudoHeader(dest netip.Addr, protocol uint8, length int) []byte {
	b := binary.BigEndian.AppendUint32(dest.AsSlice(), uint32(length))
	return append(b, 0, protocol)
}

// sum adds the 16-bit words of b as this machine reads them, as the program
// does; one's complement addition does not mind the order of bytes.
func sum(b []byte) uint32 {
	var s uint32
	for ; len(b) > 1; b = b[2:] {
		s += uint32(binary.LittleEndian.Uint16(b))
	}
	if len(b) == 1 {
		s += uint32(b[0])
	}
	return s
}

func (t *template) chooseSources(f Flood) {
	c := &t.config
	c.SourceCount, c.IndexWord = uint32(f.Sources), uint32(f.indexWord())
	base := f.Source.Addr().AsSlice()
	mask := make([]byte, len(base))
	if f.Sources == 0 {
		base = f.Source.Masked().Addr().AsSlice()
		for i := f.Source.Bits(); i < 8*len(mask); i++ {
			mask[i/8] |= 0x80 >> (i % 8)
		}
	}
	for i := range len(base) / 4 {
		c.Source[i] = binary.LittleEndian.Uint32(base[4*i:])
		c.RandomMask[i] = binary.LittleEndian.Uint32(mask[4*i:])
	}
}
