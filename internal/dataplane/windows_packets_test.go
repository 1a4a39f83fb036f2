// SPDX-License-Identifier: Apache-2.0

package dataplane_test

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/sentinel-x/sentinel-x/internal/dataplane"
	"github.com/sentinel-x/sentinel-x/internal/dataplane/packettest"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// watcher is a program that counts for targets, with the clock of its ticks.
type watcher struct {
	*dataplane.Tester
	at time.Duration
}

func watching(t testing.TB, o dataplane.Options, prefixes ...string) *watcher {
	t.Helper()
	if o.MaxTargets == 0 {
		o.MaxTargets = 64
	}
	w := &watcher{newTester(t, o), epoch}
	w.target(t, prefixes...)
	return w
}

func (w *watcher) target(t testing.TB, prefixes ...string) {
	t.Helper()
	var all []netip.Prefix
	for _, p := range prefixes {
		all = append(all, netip.MustParsePrefix(p))
	}
	if err := w.SetTargets(all); err != nil {
		t.Fatal(err)
	}
}

func (w *watcher) send(t testing.TB, frame []byte, times int) {
	t.Helper()
	for range times {
		if _, err := w.Run(frame, w.at); err != nil {
			t.Fatal(err)
		}
	}
}

// next ends a tick. The windows stay valid until the next call.
func (w *watcher) next(t testing.TB) map[traffic.Target]*traffic.Window {
	t.Helper()
	w.at += traffic.Tick
	windows, err := w.Tick(clock(w.at))
	if err != nil {
		t.Fatal(err)
	}
	all := map[traffic.Target]*traffic.Window{}
	for i := range windows {
		x := &windows[i]
		if all[x.Target] != nil || !x.Start.Equal(clock(w.at-traffic.Tick)) || x.Length != traffic.Tick {
			t.Errorf("window %v %v %v at %v", x.Target, x.Start, x.Length, clock(w.at))
		}
		all[x.Target] = x
	}
	return all
}

var (
	wholeInterface = traffic.Target{Scope: traffic.TargetInterface}
	host4          = traffic.HostTarget(netip.MustParseAddr(packettest.Destination4))
	host6          = traffic.HostTarget(netip.MustParseAddr(packettest.Destination6))
	net4           = traffic.NetworkTarget(netip.MustParseAddr(packettest.Destination4))
	net6           = traffic.NetworkTarget(netip.MustParseAddr(packettest.Destination6))
)

const (
	watched4 = packettest.Destination4 + "/32"
	watched6 = packettest.Destination6 + "/128"
)

// single returns the window that one packet makes for its host, and holds those of its network and the interface to it.
func (w *watcher) single(t *testing.T, frame []byte) traffic.Window {
	t.Helper()
	w.send(t, frame, 1)
	all := w.next(t)
	host := all[host4]
	network := all[net4]
	if host.Packets == 0 {
		host, network = all[host6], all[net6]
	}
	for _, wider := range []*traffic.Window{network, all[wholeInterface]} {
		if wider.Tally != host.Tally || wider.Histograms != host.Histograms || len(wider.Samples) != len(host.Samples) {
			t.Errorf("%v has %+v, its host %+v", wider.Target, wider.Tally, host.Tally)
		}
	}
	return *host
}

func ip4(protocol layers.IPProtocol, stack ...gopacket.SerializableLayer) []byte {
	return packettest.Build(append([]gopacket.SerializableLayer{packettest.Ethernet(layers.EthernetTypeIPv4), packettest.IPv4(protocol)}, stack...)...)
}

func segment(change func(*layers.TCP), data int) []byte {
	tcp := &layers.TCP{SrcPort: packettest.SourcePort, DstPort: packettest.DestPort, Window: 512}
	change(tcp)
	return ip4(layers.IPProtocolTCP, tcp, packettest.Data(data))
}

// TestWindowsOfSinglePackets: every counter, and what does not count in it.
func TestWindowsOfSinglePackets(t *testing.T) {
	w := watching(t, dataplane.Options{Tunnels: tunnelBits(packettest.AllTunnels)}, watched4, watched6)
	tcp := func(t traffic.Tally) traffic.Tally { t.TCP = 1; return t }
	other := traffic.Tally{Other: 1}
	udp := traffic.Tally{UDP: 1, Reflections: [traffic.NumReflections]uint64{traffic.ReflectionNone: 1}}
	data := tcp(traffic.Tally{TCPData: 1})
	fragment := func(t traffic.Tally) traffic.Tally { t.Fragments = 1; return t }
	malformed := func(t traffic.Tally) traffic.Tally { t.Malformed = 1; return t }
	fragments := packettest.Fragments(udp4(), 24)
	for _, c := range []struct {
		name  string
		frame []byte
		want  traffic.Tally // but packets, bytes and sizes
	}{
		{"SYN with options", packettest.Build(packettest.Ethernet(layers.EthernetTypeIPv4), packettest.IPv4(layers.IPProtocolTCP), packettest.SYN()), tcp(traffic.Tally{SYN: 1})},
		{"SYN without options", segment(func(h *layers.TCP) { h.SYN = true }, 0), tcp(traffic.Tally{SYN: 1, SYNNoOptions: 1})},
		{"SYN with data", segment(func(h *layers.TCP) { h.SYN = true }, 8), tcp(traffic.Tally{SYN: 1, SYNNoOptions: 1})},
		{"SYN-ACK", segment(func(h *layers.TCP) { h.SYN, h.ACK = true, true }, 0), tcp(traffic.Tally{SYNACK: 1})},
		{"ACK", segment(func(h *layers.TCP) { h.ACK = true }, 0), tcp(traffic.Tally{ACK: 1})},
		{"ACK with PSH and URG", segment(func(h *layers.TCP) { h.ACK, h.PSH, h.URG = true, true, true }, 0), tcp(traffic.Tally{ACK: 1})},
		{"ACK with data", tcp4(), data},
		{"RST", segment(func(h *layers.TCP) { h.RST = true }, 0), tcp(traffic.Tally{RST: 1})},
		{"RST-ACK", segment(func(h *layers.TCP) { h.RST, h.ACK = true, true }, 0), tcp(traffic.Tally{RST: 1})},
		{"FIN-ACK", segment(func(h *layers.TCP) { h.FIN, h.ACK = true, true }, 0), tcp(traffic.Tally{FIN: 1})},
		{"SYN-FIN", segment(func(h *layers.TCP) { h.SYN, h.FIN = true, true }, 0), malformed(tcp(traffic.Tally{SYN: 1, SYNNoOptions: 1, FIN: 1}))},
		{"no flags", segment(func(h *layers.TCP) {}, 0), malformed(tcp(traffic.Tally{}))},
		{"ECE and CWR", segment(func(h *layers.TCP) { h.ACK, h.ECE, h.CWR = true, true, true }, 0), tcp(traffic.Tally{ACK: 1})},
		{"data offset 4", with(tcp4(), put8(atL4+12, 0x40)), malformed(tcp(traffic.Tally{ACK: 1}))},
		{"UDP", udp4(), udp},
		{"empty UDP", ip4(layers.IPProtocolUDP, packettest.UDP()), udp},
		{"ICMP", icmp4(), traffic.Tally{ICMP: 1}},
		{"ESP", ip4(layers.IPProtocolESP, packettest.Data(40)), other},
		{"first fragment", fragments[0], fragment(udp)},
		{"later fragment", fragments[1], fragment(udp)},
		{"later fragment of TCP", packettest.Fragments(tcp4(), 24)[1], fragment(tcp(traffic.Tally{}))},
		{"tiny fragment", packettest.Fragments(tcp4(), 8)[0], malformed(fragment(tcp(traffic.Tally{})))},
		{"TTL 0", with(udp4(), put8(atIP+8, 0)), malformed(udp)},
		{"IHL 4", with(udp4(), put8(atIP, 0x44)), malformed(udp)},
		{"cut inside TCP", tcp4()[:atL4+10], malformed(tcp(traffic.Tally{}))},
		{"cut inside the data", tcp4()[:atL4+30], malformed(data)},
		{"options", must(packettest.InsertOption(tcp4(), 3)), data},
		{"two tags", tagged(tcp4(), layers.EthernetTypeDot1Q, layers.EthernetTypeQinQ), data},
		{"IPv6 TCP", tcp6(), data},
		{"IPv6 UDP", udp6(), udp},
		{"IPv6 ICMP", icmp6(), traffic.Tally{ICMP: 1}},
		{"IPv6 extension headers", manyExtensions(tcp6(), 3), data},
		{"IPv6, nine extension headers", manyExtensions(tcp6(), 9), malformed(other)},
		{"IPv6 fragment", packettest.Fragments(udp6(), 24)[1], fragment(udp)},
	} {
		got := w.single(t, c.frame)
		c.want.Packets, c.want.Bytes = 1, uint64(len(c.frame))
		c.want.Sizes = got.Sizes // TestWindowsOfSizes
		if c.want.Malformed != 0 && got.Samples[0].Outcome == traffic.Dropped {
			c.want.Dropped, c.want.DroppedBytes = 1, uint64(len(c.frame))
		}
		if diff := cmp.Diff(c.want, got.Tally); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
		checkHistograms(t, c.name, &got)
	}
}

// checkHistograms: each has every packet once, those of ports the ones that have ports.
func checkHistograms(t *testing.T, name string, w *traffic.Window) {
	t.Helper()
	sum := func(bins []uint32) (n uint64) {
		for _, b := range bins {
			n += uint64(b)
		}
		return n
	}
	h := &w.Histograms
	for i, bins := range [][]uint32{h.Sources[:], h.SourceNets[:], h.Lengths[:], h.TTLs[:], h.Fingerprints[:]} {
		if sum(bins) != h.Counted || h.Counted != w.Packets {
			t.Errorf("%s: histogram %d has %d of %d packets, %d counted", name, i, sum(bins), w.Packets, h.Counted)
		}
	}
	var ports uint64
	for i := range w.Samples {
		if w.Samples[i].SourcePort != 0 {
			ports++
		}
	}
	if sum(h.SourcePorts[:]) != ports || sum(h.DestPorts[:]) != ports {
		t.Errorf("%s: %d source and %d destination ports, want %d", name, sum(h.SourcePorts[:]), sum(h.DestPorts[:]), ports)
	}
}

// TestWindowsInTunnels: the packet inside counts.
func TestWindowsInTunnels(t *testing.T) {
	w := watching(t, dataplane.Options{Tunnels: tunnelBits(packettest.AllTunnels)}, watched4, watched6)
	for _, inner := range [][]byte{tcp4(), tcp6()} {
		for _, wrapper := range packettest.Wrappers {
			frame, ok := wrapper.Rewrite(inner)
			if !ok {
				continue
			}
			got := w.single(t, frame)
			if got.TCP != 1 || got.TCPData != 1 || got.Bytes != uint64(len(frame)) || !got.Samples[0].Source.IsValid() || got.Samples[0].DestPort != packettest.DestPort {
				t.Errorf("in %s: %+v, %+v", wrapper.Name, got.Tally, got.Samples)
			}
		}
	}
}

// TestWindowsOfSizes: both sides of every edge, by the IP length and not the frame's.
func TestWindowsOfSizes(t *testing.T) {
	w := watching(t, dataplane.Options{}, watched4, watched6)
	for _, length := range []uint32{28, 63, 64, 127, 128, 255, 256, 511, 512, 1023, 1024, 1499, 1500, 1511, 1512, 1900} {
		frame := tagged(ip4(layers.IPProtocolUDP, packettest.UDP(), packettest.Data(int(length)-28)), layers.EthernetTypeDot1Q)
		got := w.single(t, frame)
		class := traffic.SizeClassOf(length)
		if got.Sizes[class] != 1 || got.Lengths[min(length/24, 63)] != 1 || got.TTLs[64/4] != 1 {
			t.Errorf("%d bytes: classes %v, want %d; lengths %v; TTLs %v", length, got.Sizes, class, got.Lengths, got.TTLs)
		}
	}
	if got := w.single(t, with(udp4(), put8(atIP, 0x44))); got.Sizes[0] != 1 || got.Lengths[0] != 1 {
		t.Errorf("without an IP length: %v", got.Sizes)
	}
}

// TestWindowsOfReflections: every source port, those of services one by one.
func TestWindowsOfReflections(t *testing.T) {
	w := watching(t, dataplane.Options{}, watched4, watched6)
	from := func(port uint16) []byte {
		return with(udp4(), func(f []byte) { binary.BigEndian.PutUint16(f[atL4:], port) })
	}
	var want [traffic.NumReflections]uint64
	step := 1
	if testing.Short() {
		step = 37 // with the services' ports besides
	}
	for port := range 1 << 16 {
		service := traffic.ReflectionOf(uint16(port))
		if service == traffic.ReflectionNone && port%step != 0 {
			continue
		}
		want[service]++
		if service == traffic.ReflectionNone {
			w.send(t, from(uint16(port)), 1)
		}
	}
	want[traffic.ReflectionNone], want[0] = 0, want[traffic.ReflectionNone]
	none := w.next(t)[host4].Reflections
	if none != [traffic.NumReflections]uint64{want[0]} {
		t.Errorf("ports of no service: %v", none)
	}
	services := 0
	for port := range 1 << 16 {
		if service := traffic.ReflectionOf(uint16(port)); service != traffic.ReflectionNone {
			services++
			if got := w.single(t, from(uint16(port))); got.Reflections[service] != 1 || got.UDP != 1 {
				t.Errorf("port %d: %v, want service %d", port, got.Reflections, service)
			}
		}
	}
	if services != 23 {
		t.Errorf("%d ports of services", services)
	}
	tcp := with(tcp4(), put16(atL4, 53))
	if got := w.single(t, tcp); got.Reflections != [traffic.NumReflections]uint64{} {
		t.Errorf("TCP from port 53: %v", got.Reflections)
	}
}

// TestWindowsOfOutcomes: dropped packets are sampled and counted like others, whoever dropped them, and in observe mode too.
func TestWindowsOfOutcomes(t *testing.T) {
	w := watching(t, dataplane.Options{}, watched4, watched6)
	frame := udp4()
	for _, c := range []struct {
		name    string
		change  func() error
		reason  traffic.Reason
		outcome traffic.Outcome
	}{
		{"clean", func() error { return nil }, traffic.ReasonPass, traffic.Passed},
		{"blocked", func() error { return w.Put(traffic.ListBlock, entries(packettest.Source4+"/32")) }, traffic.ReasonBlocklist, traffic.Dropped},
		{"observed", func() error { return w.SetObserve(true) }, traffic.ReasonBlocklist, traffic.WouldDrop},
	} {
		if err := c.change(); err != nil {
			t.Fatal(err)
		}
		at := w.at
		got := w.single(t, frame)
		want := uint64(0)
		if c.outcome != traffic.Passed {
			want = 1
		}
		if got.Dropped != want || got.DroppedBytes != want*uint64(len(frame)) || len(got.Samples) != 1 {
			t.Fatalf("%s: %+v, %d samples", c.name, got.Tally, len(got.Samples))
		}
		s := got.Samples[0]
		if s.Reason != c.reason || s.Outcome != c.outcome || !s.Time.Equal(clock(at)) || s.Weight != 1 {
			t.Errorf("%s: sample %+v", c.name, s)
		}
	}
}

// TestWindowsSampleHeaders: the frame's first 96 bytes, or all of it, and what parsing found.
func TestWindowsSampleHeaders(t *testing.T) {
	w := watching(t, dataplane.Options{}, watched4, watched6)
	for _, size := range []int{54, 95, 96, 97, 1514} {
		frame := segment(func(h *layers.TCP) { h.ACK, h.Window = true, 4711 }, size-54)[:size] // without Ethernet's padding
		frame[atIP+6] = 0x40                                                                   // DF
		got := w.single(t, frame).Samples[0]
		if !bytes.Equal(got.Header, frame[:min(size, traffic.SampleBytes)]) {
			t.Errorf("%d bytes: header %x", size, got.Header)
		}
		got.Header, got.Time = nil, time.Time{}
		want := traffic.Sample{
			Length: uint32(size), Weight: 1, Source: netip.MustParseAddr(packettest.Source4), Destination: netip.MustParseAddr(packettest.Destination4),
			SourcePort: packettest.SourcePort, DestPort: packettest.DestPort, Protocol: 6, TCPFlags: 16, TTL: 64, DataOffset: 5,
			IPLength: uint16(size - 14), TCPWindow: 4711, DF: true,
		}
		if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
			t.Errorf("%d bytes (-want +got):\n%s", size, diff)
		}
	}
}

// TestWindowsLeaveOut: what has no readable destination, and what passes by the bypass, is in no window; what goes to others is in the interface's.
func TestWindowsLeaveOut(t *testing.T) {
	w := watching(t, dataplane.Options{}, watched4)
	for _, n := range packettest.GoodPackets() {
		if n.Name == "ARP" || n.Name == "LLDP" {
			w.send(t, n.Frame, 1)
		}
	}
	w.send(t, udp4()[:20], 1)
	if all := w.next(t); all[wholeInterface].Packets != 0 {
		t.Errorf("without an address: %+v", all[wholeInterface].Tally)
	}
	other := with(udp4(), put8(atIP+19, 77))
	w.send(t, other, 3)
	w.send(t, udp6(), 2)
	all := w.next(t)
	if all[wholeInterface].Packets != 5 || all[net4].Packets != 0 || all[host4].Packets != 0 || len(all) != 3 {
		t.Errorf("to others: %d windows, %+v", len(all), all[wholeInterface].Tally)
	}
	if err := w.SetBypass(true); err != nil {
		t.Fatal(err)
	}
	w.send(t, udp4(), 1)
	if all := w.next(t); all[wholeInterface].Packets != 0 {
		t.Errorf("by the bypass: %+v", all[wholeInterface].Tally)
	}
}
