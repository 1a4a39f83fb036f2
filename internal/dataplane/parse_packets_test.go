// SPDX-License-Identifier: Apache-2.0

package dataplane_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/gopacket/gopacket/layers"

	"github.com/sentinel-x/sentinel-x/internal/dataplane"
	"github.com/sentinel-x/sentinel-x/internal/dataplane/packettest"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// blockAll blocks both sources that built packets have.
func blockAll(p *pair, t *testing.T) {
	t.Helper()
	p.lists.Block = []traffic.Entry{{Prefix: netip.MustParsePrefix("192.0.2.0/24")}, {Prefix: netip.MustParsePrefix("2001:db8::/48")}}
	p.set(t)
}

// compared runs f over both sides and the counters behind it.
func compared(t *testing.T, p *pair, f func()) {
	t.Helper()
	p.counted = [traffic.NumReasons][traffic.NumOutcomes]traffic.Count{}
	before := counters(t, p.program)
	f()
	if err := p.checkCounters(before); err != nil {
		t.Error(err)
	}
}

// TestTags: a blocked source is dropped behind up to two tags of any kind; what
// lies behind three is for the policy.
func TestTags(t *testing.T) {
	p := newPair(t, packettest.Tunnels{})
	blockAll(p, t)
	tpids := []layers.EthernetType{0x8100, 0x88a8, 0x9100}
	for _, frame := range [][]byte{tcp4(), udp6()} {
		p.want(t, "no tag", frame, traffic.ReasonBlocklist, traffic.Dropped)
		for _, a := range tpids {
			one := tagged(frame, a)
			if got := p.want(t, fmt.Sprintf("tag %v", a), one, traffic.ReasonBlocklist, traffic.Dropped); got.VLANs != 1 {
				t.Errorf("%d tags, want 1", got.VLANs)
			}
			p.want(t, "priority tag", with(one, put16(14, 0xe000)), traffic.ReasonBlocklist, traffic.Dropped)
			for _, b := range tpids {
				two := tagged(one, b)
				if got := p.want(t, "two tags", two, traffic.ReasonBlocklist, traffic.Dropped); got.VLANs != 2 {
					t.Errorf("%d tags, want 2", got.VLANs)
				}
				for _, c := range tpids {
					three := tagged(two, c)
					p.want(t, "three tags", three, traffic.ReasonVLANDepth, traffic.Passed)
					p.want(t, "four tags", tagged(three, a), traffic.ReasonVLANDepth, traffic.Passed)
				}
				for n := 14; n < 22; n++ {
					p.want(t, "cut in tags", packettest.Cut(two, n), traffic.ReasonTruncated, traffic.Passed)
				}
				p.want(t, "third tag cut", packettest.Cut(tagged(two, a), 22), traffic.ReasonVLANDepth, traffic.Passed)
			}
		}
		p.want(t, "tagged ARP", with(tagged(frame, 0x8100), put16(16, 0x0806)), traffic.ReasonNonIP, traffic.Passed)
		p.want(t, "unknown tag", with(tagged(frame, 0x8100), put16(12, 0x9200)), traffic.ReasonNonIP, traffic.Passed)
	}
}

// TestOptions: IPv4 options of every length change nothing about the verdict or the ports.
func TestOptions(t *testing.T) {
	p := newPair(t, packettest.Tunnels{})
	blockAll(p, t)
	for words := range 11 {
		for _, frame := range [][]byte{tcp4(), udp4(), icmp4()} {
			f := must(packettest.InsertOption(frame, words))
			got := p.want(t, fmt.Sprintf("%d words", words), f, traffic.ReasonBlocklist, traffic.Dropped)
			if got.Protocol != layersICMP && (got.SourcePort != packettest.SourcePort || got.DestPort != packettest.DestPort) {
				t.Errorf("%d words: ports %d, %d", words, got.SourcePort, got.DestPort)
			}
			// Rubbish for options: the program does not look at them, gopacket would refuse them.
			p.want(t, "rubbish", with(f, func(f []byte) {
				for i := atL4; i < atL4+4*words; i++ {
					f[i] = 0xfe
				}
			}), traffic.ReasonBlocklist, traffic.Dropped)
			for cut := atL4; cut < atL4+4*words; cut++ {
				p.want(t, "options cut", packettest.Cut(f, cut), traffic.ReasonBlocklist, traffic.Dropped)
			}
		}
	}
}

const layersICMP = 1

// TestTruncation cuts packets of every make at every byte: no cut gets a
// blocked source through once its address is in the frame.
func TestTruncation(t *testing.T) {
	p := newPair(t, packettest.AllTunnels)
	frames := []packettest.Named{
		{Name: "TCP over IPv4", Frame: tcp4()},
		{Name: "UDP over IPv4", Frame: udp4()},
		{Name: "TCP over IPv6", Frame: tcp6()},
		{Name: "QinQ and options", Frame: tagged(must(packettest.InsertOption(tcp4(), 4)), 0x8100, 0x88a8)},
		{Name: "eight extension headers", Frame: manyExtensions(udp6(), 8)},
		{Name: "fragment header", Frame: packettest.Fragments(udp6(), 16)[1]},
		{Name: "VXLAN", Frame: wrapped("VXLAN over IPv6", tagged(tcp4(), 0x8100))},
		{Name: "GRE", Frame: wrapped("GRE with checksum, key and sequence", tcp6())},
		{Name: "6in4", Frame: wrapped("6in4", manyExtensions(icmp6(), 2))},
		{Name: "fragmented VXLAN", Frame: packettest.Fragments(wrapped("VXLAN", udp4()), 64)[0]},
		{Name: "neighbour discovery", Frame: packettest.Neighbour(136)},
	}
	for _, policy := range []traffic.Policy{traffic.PolicyPass, traffic.PolicyDrop} {
		p.policies = everyPolicy(policy)
		p.lists = packettest.Lists{}
		p.set(t)
		compared(t, p, func() {
			for _, n := range frames {
				for size := 14; size <= len(n.Frame); size++ {
					check(t, p, fmt.Sprintf("%s cut to %d", n.Name, size), n.Frame[:size])
				}
			}
		})
	}
	p.policies = traffic.Policies{}
	blockAll(p, t)
	for _, n := range frames[:6] {
		source := 0
		for size := 14; size <= len(n.Frame); size++ {
			v, err := p.program.Run(n.Frame[:size], p.at)
			if err != nil {
				t.Fatal(err)
			}
			if v.Parsed.Source.IsValid() {
				source++
				if v.Outcome != traffic.Dropped {
					t.Errorf("%s cut to %d bytes passes with reason %v", n.Name, size, v.Reason)
				}
			}
		}
		if source < 20 {
			t.Errorf("%s: only %d cuts have a source", n.Name, source)
		}
	}
}

// TestTCPFlags runs all 64 combinations (and ECE and CWR with each).
func TestTCPFlags(t *testing.T) {
	const fin, syn, rst, ack = 1, 2, 4, 16
	p := newPair(t, packettest.Tunnels{})
	for _, c := range []struct {
		frame []byte
		at    int
	}{{tcp4(), atL4 + 13}, {tcp6(), at6L4 + 13}} {
		for flags := range 256 {
			reason := traffic.ReasonPass
			f := flags & 63
			if f == 0 || f&(syn|fin) == syn|fin || f&(syn|rst) == syn|rst || f&(fin|rst) == fin|rst || f&(fin|ack) == fin {
				reason = traffic.ReasonBadTCPFlags
			}
			got := p.want(t, fmt.Sprintf("flags %#02x", flags), with(c.frame, put8(c.at, uint8(flags))), reason, traffic.Passed)
			if int(got.TCPFlags) != flags {
				t.Errorf("flags %#02x, want %#02x", got.TCPFlags, flags)
			}
		}
	}
}

// TestFragments: first, middle, last and atomic, over both families; ports
// come from the first alone, and lists hold for all.
func TestFragments(t *testing.T) {
	p := newPair(t, packettest.Tunnels{})
	for _, frame := range [][]byte{udp4(), tcp4(), icmp4(), udp6(), tcp6(), icmp6(), manyExtensions(udp6(), 1)} {
		parts := packettest.Fragments(frame, 24)
		for i, f := range parts {
			kind, ports := dataplane.FragmentLater, uint16(0)
			if i == 0 {
				kind, ports = dataplane.FragmentFirst, packettest.DestPort
			}
			p.policies, p.lists = traffic.Policies{}, packettest.Lists{}
			p.set(t)
			got := p.want(t, "fragment", f, traffic.ReasonPass, traffic.Passed)
			if got.Fragment != kind || (got.Protocol == 17 && got.DestPort != ports) {
				t.Errorf("fragment %d: kind %d, port %d, want %d, %d", i, got.Fragment, got.DestPort, kind, ports)
			}
			p.policies = traffic.Policies{FirstFragments: traffic.PolicyDrop}
			p.set(t)
			if i == 0 {
				p.want(t, "first, dropped", f, traffic.ReasonFragmentFirst, traffic.Dropped)
			} else {
				p.want(t, "later, passed", f, traffic.ReasonPass, traffic.Passed)
			}
			p.policies = traffic.Policies{LaterFragments: traffic.PolicyDrop}
			p.set(t)
			if i > 0 {
				p.want(t, "later, dropped", f, traffic.ReasonFragmentLater, traffic.Dropped)
			} else {
				p.want(t, "first, passed", f, traffic.ReasonPass, traffic.Passed)
			}
			blockAll(p, t)
			p.want(t, "blocked", f, traffic.ReasonBlocklist, traffic.Dropped)
		}
	}
}

// TestAtomicFragments: a fragment header that fragments nothing is skipped, and
// the first one that does is the one that counts.
func TestAtomicFragments(t *testing.T) {
	p := newPair(t, packettest.Tunnels{})
	p.policies = traffic.Policies{FirstFragments: traffic.PolicyDrop, LaterFragments: traffic.PolicyDrop}
	p.set(t)
	frag := func(frame []byte, offset uint16, more bool) []byte {
		f := must(packettest.InsertExtension(frame, 44, 8))
		packettest.SetFragment(f, offset, more)
		return f
	}
	for _, c := range []struct {
		name   string
		frame  []byte
		reason traffic.Reason
		kind   dataplane.Fragment
		port   uint16
	}{
		{"atomic", frag(udp6(), 0, false), traffic.ReasonPass, dataplane.FragmentNone, packettest.DestPort},
		{"two atomic", frag(frag(udp6(), 0, false), 0, false), traffic.ReasonPass, dataplane.FragmentNone, packettest.DestPort},
		{"first", frag(udp6(), 0, true), traffic.ReasonFragmentFirst, dataplane.FragmentFirst, packettest.DestPort},
		{"atomic, then first", frag(frag(udp6(), 0, true), 0, false), traffic.ReasonFragmentFirst, dataplane.FragmentFirst, packettest.DestPort},
		{"atomic, then later", frag(frag(udp6(), 5, true), 0, false), traffic.ReasonFragmentLater, dataplane.FragmentLater, 0},
		{"first, then later inside", frag(frag(udp6(), 5, true), 0, true), traffic.ReasonFragmentFirst, dataplane.FragmentFirst, packettest.DestPort},
		{"later, then anything", frag(frag(udp6(), 0, true), 5, true), traffic.ReasonFragmentLater, dataplane.FragmentLater, 0},
	} {
		outcome := traffic.Dropped
		if c.reason == traffic.ReasonPass {
			outcome = traffic.Passed
		}
		got := p.want(t, c.name, c.frame, c.reason, outcome)
		if got.Fragment != c.kind || got.DestPort != c.port {
			t.Errorf("%s: kind %d, port %d, want %d, %d", c.name, got.Fragment, got.DestPort, c.kind, c.port)
		}
	}
}

// TestFragmentOffsets runs every offset of TCP and UDP, more and last.
func TestFragmentOffsets(t *testing.T) {
	p := newPair(t, packettest.Tunnels{})
	p.policies = traffic.Policies{TinyFragments: traffic.PolicyDrop, LaterFragments: traffic.PolicyDrop}
	p.set(t)
	start, step := uint16(0), uint16(1)
	if testing.Short() {
		start, step = 1, 63 // the offsets that matter most, 1 and 8191, among them
	}
	compared(t, p, func() {
		for _, frame := range [][]byte{
			tcp4(), udp4(), must(packettest.InsertExtension(tcp6(), 44, 8)), must(packettest.InsertExtension(udp6(), 44, 8)),
		} {
			for offset := start; offset < 8192; offset += step {
				for _, more := range []bool{false, true} {
					packettest.SetFragment(frame, offset, more)
					check(t, p, fmt.Sprintf("offset %d more %v", offset, more), frame)
				}
			}
		}
	})
}

// TestLongestDatagram: a fragment may end at byte 65535 and not behind it.
func TestLongestDatagram(t *testing.T) {
	p := newPair(t, packettest.Tunnels{})
	for _, c := range []struct {
		offset  uint16
		payload int
		reason  traffic.Reason
	}{
		{8191, 7, traffic.ReasonPass},
		{8191, 8, traffic.ReasonMalformed},
		{8190, 15, traffic.ReasonPass},
		{8190, 16, traffic.ReasonMalformed},
		{8000, 1535, traffic.ReasonPass},
		{8000, 1536, traffic.ReasonMalformed},
	} {
		four := packettest.Build(packettest.Ethernet(layers.EthernetTypeIPv4), packettest.IPv4(layers.IPProtocolUDP), packettest.Data(c.payload))
		six := must(packettest.InsertExtension(packettest.Build(packettest.Ethernet(layers.EthernetTypeIPv6),
			packettest.IPv6(layers.IPProtocolUDP), packettest.Data(c.payload)), 44, 8))
		for _, frame := range [][]byte{four, must(packettest.InsertOption(four, 10)), six, manyExtensions(six, 3)} {
			packettest.SetFragment(frame, c.offset, false)
			if frame[atIP+6] == 60 { // the fragment header is behind the others
				copy(frame[at6L4+24+2:], []byte{byte(c.offset >> 5), byte(c.offset << 3)})
			}
			p.want(t, fmt.Sprintf("%d bytes at %d", c.payload, c.offset), frame, c.reason, traffic.Passed)
		}
	}
}

// chainKinds are the extension headers the walk knows, and two it must stop at.
var chainKinds = []uint8{0, 43, 44, 60, 51, 135, 139, 140, 59, 253}

// chain puts n extension headers in front of the packet, with true lengths.
func chain(r *rand.Rand, frame []byte, n int) []byte {
	for range n {
		kind := chainKinds[r.IntN(len(chainKinds))]
		size := 8 * (1 + r.IntN(3))
		if kind == 44 {
			size = 8
		}
		frame = must(packettest.InsertExtension(frame, kind, size))
	}
	return frame
}

// TestExtensionChains: chains of 0 to 12 headers in random orders, lengths true
// and lying. No chain gets a blocked source through.
func TestExtensionChains(t *testing.T) {
	p := newPair(t, packettest.AllTunnels)
	const seed = 6
	r := rand.New(rand.NewPCG(seed, seed))
	for _, policy := range []traffic.Policy{traffic.PolicyPass, traffic.PolicyDrop} {
		p.policies, p.lists = everyPolicy(policy), packettest.Lists{}
		p.set(t)
		compared(t, p, func() {
			for n := range 13 {
				for range fewer(400, 10) {
					f := chain(r, [][]byte{tcp6(), udp6(), icmp6()}[r.IntN(3)], n)
					check(t, p, fmt.Sprintf("%d headers", n), f)
					check(t, p, fmt.Sprintf("%d headers, lying", n), lie(r, f))
				}
			}
		})
	}
	blockAll(p, t)
	for n := range 13 {
		for range fewer(100, 10) {
			f := lie(r, chain(r, tcp6(), n))
			v, err := p.program.Run(f, p.at)
			if err != nil {
				t.Fatal(err)
			}
			if v.Reason != traffic.ReasonBlocklist || v.Outcome != traffic.Dropped {
				t.Fatalf("%d headers: blocked source ends as %v %v: %x", n, v.Reason, v.Outcome, f)
			}
		}
	}
}

// lie breaks the length of the packet or of a header in the chain.
func lie(r *rand.Rand, frame []byte) []byte {
	return with(frame, func(f []byte) {
		if r.IntN(3) == 0 {
			binary.BigEndian.PutUint16(f[atIP+4:], uint16(r.IntN(300)))
			return
		}
		f[min(len(f)-1, at6L4+1+8*r.IntN(8))] = uint8(r.IntN(256))
	})
}

// TestEightExtensionHeaders: the eighth is walked, the ninth is too many.
func TestEightExtensionHeaders(t *testing.T) {
	p := newPair(t, packettest.Tunnels{})
	p.policies.ExtensionHeaders = traffic.PolicyDrop
	p.set(t)
	for n := range 14 {
		reason, outcome, port := traffic.ReasonPass, traffic.Passed, uint16(packettest.DestPort)
		if n > 8 {
			reason, outcome, port = traffic.ReasonExtensionHeaders, traffic.Dropped, 0
		}
		for _, kind := range []uint8{0, 43, 44, 60, 51, 135, 139, 140} {
			f := tcp6()
			for range n {
				f = must(packettest.InsertExtension(f, kind, 8))
			}
			if got := p.want(t, fmt.Sprintf("%d of kind %d", n, kind), f, reason, outcome); got.DestPort != port {
				t.Errorf("%d of kind %d: port %d, want %d", n, kind, got.DestPort, port)
			}
		}
	}
}
