// SPDX-License-Identifier: Apache-2.0

package dataplane_test

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
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

// Where headers are in a frame without tags and options.
const (
	atType = 12
	atIP   = 14
	atL4   = atIP + 20 // IPv4
	at6L4  = atIP + 40
)

// want runs a frame and fails unless verdict, oracle and every counter are as they should be.
func (p *pair) want(t *testing.T, name string, frame []byte, reason traffic.Reason, outcome traffic.Outcome) dataplane.Parsed {
	t.Helper()
	before := counters(t, p.program)
	got, err := p.program.Run(frame, p.at)
	if err != nil {
		t.Fatalf("%s: %v\nframe %s", name, err, hex.EncodeToString(frame))
	}
	if got.Reason != reason || got.Outcome != outcome {
		t.Errorf("%s: %v %v, want %v %v\n%+v\nframe %s", name, got.Reason, got.Outcome, reason, outcome, got.Parsed, hex.EncodeToString(frame))
	}
	moved := traffic.Count{Packets: 1, Bytes: uint64(len(frame))}
	wanted := before
	wanted.Seen = wanted.Seen.Add(moved)
	wanted.Reasons[reason][outcome] = wanted.Reasons[reason][outcome].Add(moved)
	if diff := cmp.Diff(wanted, counters(t, p.program)); diff != "" {
		t.Errorf("%s: counters (-want +got):\n%s", name, diff)
	}
	packet, oracleReason, oracleOutcome := p.expect(frame)
	limit := reason == traffic.ReasonLimit || reason == traffic.ReasonPrefixLimit || reason == traffic.ReasonTargetLimit
	if !limit && (oracleReason != reason || oracleOutcome != outcome) {
		t.Errorf("%s: the oracle says %v %v, want %v %v", name, oracleReason, oracleOutcome, reason, outcome)
	}
	if !p.bypass && !sameView(got.Parsed, packet) {
		t.Errorf("%s: the program understood %+v, the oracle %+v", name, got.Parsed, packet)
	}
	return got.Parsed
}

func counters(t *testing.T, p *dataplane.Tester) traffic.Counters {
	t.Helper()
	c, err := p.Counters()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// set applies the pair's settings.
func (p *pair) set(t *testing.T) {
	t.Helper()
	if err := p.apply(); err != nil {
		t.Fatal(err)
	}
}

// with returns a copy of the frame after the change.
func with(frame []byte, change func(f []byte)) []byte {
	f := append([]byte(nil), frame...)
	change(f)
	return f
}

// put8, put16 return changes of one field.
func put8(at int, v uint8) func([]byte) { return func(f []byte) { f[at] = v } }

func put16(at int, v uint16) func([]byte) {
	return func(f []byte) { binary.BigEndian.PutUint16(f[at:], v) }
}

func tcp4() []byte {
	return packettest.Build(packettest.Ethernet(layers.EthernetTypeIPv4), packettest.IPv4(layers.IPProtocolTCP), packettest.TCP(), packettest.Data(40))
}

func udp4() []byte {
	return packettest.Build(packettest.Ethernet(layers.EthernetTypeIPv4), packettest.IPv4(layers.IPProtocolUDP), packettest.UDP(), packettest.Data(40))
}

func icmp4() []byte {
	return packettest.Build(packettest.Ethernet(layers.EthernetTypeIPv4), packettest.IPv4(layers.IPProtocolICMPv4), packettest.Echo(), packettest.Data(40))
}

func tcp6() []byte {
	return packettest.Build(packettest.Ethernet(layers.EthernetTypeIPv6), packettest.IPv6(layers.IPProtocolTCP), packettest.TCP(), packettest.Data(40))
}

func udp6() []byte {
	return packettest.Build(packettest.Ethernet(layers.EthernetTypeIPv6), packettest.IPv6(layers.IPProtocolUDP), packettest.UDP(), packettest.Data(40))
}

func icmp6() []byte {
	return packettest.Build(packettest.Ethernet(layers.EthernetTypeIPv6), packettest.IPv6(layers.IPProtocolICMPv6), packettest.ICMP6(128, 0), packettest.Data(40))
}

func must(frame []byte, ok bool) []byte {
	if !ok {
		panic("the packet of this test cannot be rewritten so")
	}
	return frame
}

func tagged(frame []byte, tpids ...layers.EthernetType) []byte {
	for _, tpid := range tpids {
		frame = must(packettest.InsertTag(frame, tpid, 42))
	}
	return frame
}

func manyExtensions(frame []byte, n int) []byte {
	for range n {
		frame = must(packettest.InsertExtension(frame, 60, 8))
	}
	return frame
}

func wrapped(name string, frame []byte) []byte {
	for _, w := range packettest.Wrappers {
		if w.Name == name {
			return must(w.Rewrite(frame))
		}
	}
	panic("no wrapper " + name)
}

// land copies the destination over the source.
func land(f []byte) {
	if f[atIP]>>4 == 4 {
		copy(f[atIP+12:atIP+16], f[atIP+16:])
		return
	}
	copy(f[atIP+8:atIP+24], f[atIP+24:])
}

type anomalyCase struct {
	name   string
	frame  []byte
	reason traffic.Reason
	policy func(*traffic.Policies) *traffic.Policy
}

// anomalyCases are a good packet with one mutation each, and the policy that decides on it.
func anomalyCases() []anomalyCase {
	malformed := func(p *traffic.Policies) *traffic.Policy { return &p.Malformed }
	tiny := func(p *traffic.Policies) *traffic.Policy { return &p.TinyFragments }
	frag4 := func(frame []byte, offset uint16, more bool) []byte {
		return with(frame, func(f []byte) { packettest.SetFragment(f, offset, more) })
	}
	frag6 := func(frame []byte, offset uint16, more bool) []byte {
		return frag4(must(packettest.InsertExtension(frame, 44, 8)), offset, more)
	}
	length4 := func(frame []byte, total uint16) []byte { return with(frame, put16(atIP+2, total)) }
	return []anomalyCase{
		{"IPv4 with version 5", with(tcp4(), put8(atIP, 0x55)), traffic.ReasonMalformed, malformed},
		{"IPv4 ethertype with an IPv6 packet", with(tcp6(), put16(atType, 0x0800)), traffic.ReasonMalformed, malformed},
		{"IPv6 ethertype with an IPv4 packet", with(tcp4(), put16(atType, 0x86dd)), traffic.ReasonMalformed, malformed},
		{"IPv4 total length below the header", length4(tcp4(), 19), traffic.ReasonMalformed, malformed},
		{"IPv4 total length 0", length4(tcp4(), 0), traffic.ReasonMalformed, malformed},
		{"IPv4 fragment that ends behind 65535", frag4(tcp4(), 0x1fff, false), traffic.ReasonMalformed, malformed},
		{"IPv6 fragment that ends behind 65535", frag6(tcp6(), 0x1fff, false), traffic.ReasonMalformed, malformed},
		{"TCP header beyond the IPv4 length", length4(tcp4(), 39), traffic.ReasonMalformed, malformed},
		{"TCP options beyond the IPv4 length", with(tcp4(), put8(atL4+12, 0xf0)), traffic.ReasonPass, nil},
		{"TCP data offset beyond the payload", with(length4(tcp4(), 44), put8(atL4+12, 0x70)), traffic.ReasonMalformed, malformed},
		{"UDP header beyond the IPv4 length", length4(udp4(), 27), traffic.ReasonMalformed, malformed},
		{"UDP length above the payload", with(udp4(), put16(atL4+4, 49)), traffic.ReasonMalformed, malformed},
		{"ICMP header beyond the IPv4 length", length4(icmp4(), 27), traffic.ReasonMalformed, malformed},
		{"IPv6 extension header beyond the payload", with(manyExtensions(tcp6(), 1), put8(at6L4+1, 200)), traffic.ReasonMalformed, malformed},
		{"IPv6 extension header of 7 bytes", with(manyExtensions(tcp6(), 1), put16(atIP+4, 7)), traffic.ReasonMalformed, malformed},
		{"IPv4 cut behind the header", packettest.Cut(tcp4(), atL4), traffic.ReasonTruncated, malformed},
		{"IPv4 cut inside the header", packettest.Cut(tcp4(), atL4-1), traffic.ReasonTruncated, malformed},
		{"IPv4 cut inside the options", packettest.Cut(must(packettest.InsertOption(tcp4(), 3)), atL4+11), traffic.ReasonTruncated, malformed},
		{"IPv4 one byte short", packettest.Cut(tcp4(), len(tcp4())-1), traffic.ReasonTruncated, malformed},
		{"IPv6 cut inside the header", packettest.Cut(tcp6(), at6L4-1), traffic.ReasonTruncated, malformed},
		{"IPv6 one byte short", packettest.Cut(tcp6(), len(tcp6())-1), traffic.ReasonTruncated, malformed},
		{"VLAN tag cut", packettest.Cut(tagged(tcp4(), 0x8100), 17), traffic.ReasonTruncated, malformed},
		{"IHL 4", with(tcp4(), put8(atIP, 0x44)), traffic.ReasonBadHeaderLength, malformed},
		{"TCP data offset 4", with(tcp4(), put8(atL4+12, 0x40)), traffic.ReasonBadHeaderLength, malformed},
		{"UDP length 7", with(udp4(), put16(atL4+4, 7)), traffic.ReasonBadHeaderLength, malformed},
		{"UDP length 0 over IPv6", with(udp6(), put16(at6L4+4, 0)), traffic.ReasonBadHeaderLength, malformed},
		{"IPv4 land", with(tcp4(), land), traffic.ReasonLand, malformed},
		{"IPv6 land", with(tcp6(), land), traffic.ReasonLand, malformed},
		{"TTL 0", with(tcp4(), put8(atIP+8, 0)), traffic.ReasonZeroTTL, malformed},
		{"hop limit 0", with(tcp6(), put8(atIP+7, 0)), traffic.ReasonZeroTTL, malformed},
		{"SYN and FIN", with(tcp4(), put8(atL4+13, 0x03)), traffic.ReasonBadTCPFlags, malformed},
		{"no TCP flag over IPv6", with(tcp6(), put8(at6L4+13, 0)), traffic.ReasonBadTCPFlags, malformed},
		{"first fragment of 16 bytes TCP", frag4(length4(tcp4(), 36), 0, true), traffic.ReasonFragmentTiny, tiny},
		{"first fragment that cuts TCP options", frag4(with(length4(tcp4(), 40), put8(atL4+12, 0x60)), 0, true), traffic.ReasonFragmentTiny, tiny},
		{"TCP at offset 1", frag4(tcp4(), 1, true), traffic.ReasonFragmentTiny, tiny},
		{"TCP at offset 1, last", frag4(tcp4(), 1, false), traffic.ReasonFragmentTiny, tiny},
		{"TCP at offset 1 over IPv6", frag6(tcp6(), 1, true), traffic.ReasonFragmentTiny, tiny},
		{"nine extension headers", manyExtensions(tcp6(), 9), traffic.ReasonExtensionHeaders, func(p *traffic.Policies) *traffic.Policy { return &p.ExtensionHeaders }},
		{"three VLAN tags", tagged(tcp4(), 0x8100, 0x8100, 0x88a8), traffic.ReasonVLANDepth, func(p *traffic.Policies) *traffic.Policy { return &p.VLANDepth }},
		{"IPIP in GRE", wrapped("GRE", wrapped("IPIP", tcp4())), traffic.ReasonTunnelDepth, func(p *traffic.Policies) *traffic.Policy { return &p.TunnelDepth }},
	}
}

// TestAnomalies runs every anomaly with its policy at pass and at drop, all
// other policies the other way round, then with its source allowed and blocked.
func TestAnomalies(t *testing.T) {
	p := newPair(t, packettest.AllTunnels)
	sources := []traffic.Entry{{Prefix: netip.MustParsePrefix("0.0.0.0/0")}, {Prefix: netip.MustParsePrefix("::/0")}}
	for _, c := range anomalyCases() {
		if c.policy == nil { // the counter-example of its neighbour
			p.want(t, c.name, c.frame, c.reason, traffic.Passed)
			continue
		}
		p.lists = packettest.Lists{}
		p.policies = everyPolicy(traffic.PolicyDrop)
		*c.policy(&p.policies) = traffic.PolicyPass
		p.set(t)
		p.want(t, c.name+", policy pass", c.frame, c.reason, traffic.Passed)
		p.policies = everyPolicy(traffic.PolicyPass)
		*c.policy(&p.policies) = traffic.PolicyDrop
		p.set(t)
		parsed := p.want(t, c.name+", policy drop", c.frame, c.reason, traffic.Dropped)
		allowed, blocked := traffic.ReasonAllowlist, traffic.ReasonBlocklist
		outcome := traffic.Passed
		if !parsed.Source.IsValid() { // no source, no list
			allowed, blocked, outcome = c.reason, c.reason, traffic.Dropped
		}
		p.lists = packettest.Lists{Allow: sources}
		p.set(t)
		p.want(t, c.name+", source allowed", c.frame, allowed, outcome)
		p.lists = packettest.Lists{Block: sources}
		p.policies = everyPolicy(traffic.PolicyPass)
		*c.policy(&p.policies) = traffic.PolicyDrop
		p.set(t)
		p.want(t, c.name+", source blocked", c.frame, blocked, traffic.Dropped)
		p.policies, p.lists = traffic.Policies{}, packettest.Lists{}
		p.set(t)
	}
}

// TestEveryReason gives each reason its packet. Signature and challenge have
// their place in the program and nothing yet that makes them.
func TestEveryReason(t *testing.T) {
	p := newPair(t, packettest.AllTunnels)
	p.policies = traffic.Policies{FirstFragments: traffic.PolicyDrop, LaterFragments: traffic.PolicyDrop}
	p.lists = packettest.Lists{
		Block:     []traffic.Entry{{Prefix: netip.MustParsePrefix("198.51.100.8/29")}},
		Allow:     []traffic.Entry{{Prefix: netip.MustParsePrefix("203.0.113.1/32")}},
		Protected: []traffic.Entry{{Prefix: netip.MustParsePrefix("203.0.113.2/32")}},
	}
	p.set(t)
	from := func(a string) []byte {
		return with(udp4(), func(f []byte) {
			s := netip.MustParseAddr(a).As4()
			copy(f[atIP+12:], s[:])
		})
	}
	parts := packettest.Fragments(udp4(), 24)
	seen := map[traffic.Reason]bool{traffic.ReasonSignature: true, traffic.ReasonChallenge: true}
	for _, c := range []struct {
		name    string
		frame   []byte
		reason  traffic.Reason
		outcome traffic.Outcome
	}{
		{"good packet", udp4(), traffic.ReasonPass, traffic.Passed},
		{"allowed source", from("203.0.113.1"), traffic.ReasonAllowlist, traffic.Passed},
		{"protected source", from("203.0.113.2"), traffic.ReasonProtected, traffic.Passed},
		{"blocked source", from("198.51.100.9"), traffic.ReasonBlocklist, traffic.Dropped},
		{"ARP", with(udp4(), put16(atType, 0x0806)), traffic.ReasonNonIP, traffic.Passed},
		{"802.3 length", with(udp4(), put16(atType, 0x05dc)), traffic.ReasonNonIP, traffic.Passed},
		{"neighbour solicitation", packettest.Neighbour(135), traffic.ReasonND, traffic.Passed},
		{"first fragment", parts[0], traffic.ReasonFragmentFirst, traffic.Dropped},
		{"later fragment", parts[1], traffic.ReasonFragmentLater, traffic.Dropped},
	} {
		p.want(t, c.name, c.frame, c.reason, c.outcome)
		seen[c.reason] = true
	}
	for _, c := range anomalyCases() {
		p.want(t, c.name, c.frame, c.reason, traffic.Passed)
		seen[c.reason] = true
	}
	seen[traffic.ReasonBypass] = bypassed(t, p)
	limited(t, p, seen)
	for r := range traffic.NumReasons {
		if !seen[r] {
			t.Errorf("no packet for reason %v", r)
		}
	}
}

func bypassed(t *testing.T, p *pair) bool {
	p.bypass = true
	p.set(t)
	for _, c := range anomalyCases() {
		p.want(t, c.name+" with bypass", c.frame, traffic.ReasonBypass, traffic.Passed)
	}
	p.want(t, "good packet with bypass", udp4(), traffic.ReasonBypass, traffic.Passed)
	p.bypass = false
	p.set(t)
	return true
}

// limited sees a packet over the limit of each scope.
func limited(t *testing.T, p *pair, seen map[traffic.Reason]bool) {
	one := classLimit(traffic.ClassAll, traffic.Limit{Packets: 1, Burst: 1}).Class
	for reason, l := range map[traffic.Reason]traffic.Limits{
		traffic.ReasonLimit: {Class: one}, traffic.ReasonPrefixLimit: {Prefix: one}, traffic.ReasonTargetLimit: {Target: one},
	} {
		if err := p.program.SetLimits(l); err != nil {
			t.Fatal(err)
		}
		p.at += time.Hour
		p.want(t, "first packet", udp4(), traffic.ReasonPass, traffic.Passed)
		p.want(t, "second packet", udp4(), reason, traffic.Dropped)
		seen[reason] = true
	}
}

// TestObserve: what is dropped otherwise passes as would_drop, what passes still passes.
func TestObserve(t *testing.T) {
	p := newPair(t, packettest.AllTunnels)
	p.observe, p.policies = true, everyPolicy(traffic.PolicyDrop)
	p.set(t)
	for _, c := range anomalyCases() {
		outcome := traffic.WouldDrop
		if c.reason == traffic.ReasonPass {
			outcome = traffic.Passed
		}
		p.want(t, c.name, c.frame, c.reason, outcome)
	}
	for i, f := range packettest.Fragments(udp4(), 24) {
		reason := traffic.ReasonFragmentLater
		if i == 0 {
			reason = traffic.ReasonFragmentFirst
		}
		p.want(t, "fragment", f, reason, traffic.WouldDrop)
	}
	p.lists.Block = []traffic.Entry{{Prefix: netip.MustParsePrefix("192.0.2.0/24")}}
	p.set(t)
	p.want(t, "blocked", udp4(), traffic.ReasonBlocklist, traffic.WouldDrop)
	p.want(t, "good", udp6(), traffic.ReasonPass, traffic.Passed)
	var l traffic.Limits
	l.Class[traffic.ClassUDP] = traffic.Limit{Packets: 1, Burst: 1}
	if err := p.program.SetLimits(l); err != nil {
		t.Fatal(err)
	}
	p.want(t, "first", udp6(), traffic.ReasonPass, traffic.Passed)
	p.want(t, "over the limit", udp6(), traffic.ReasonLimit, traffic.WouldDrop)
}

// TestNeighbourDiscovery: only what cannot have come through a router passes the lists.
func TestNeighbourDiscovery(t *testing.T) {
	p := newPair(t, packettest.AllTunnels)
	p.lists.Block = []traffic.Entry{{Prefix: netip.MustParsePrefix("::/0"), Forced: true}}
	p.set(t)
	for kind := uint8(128); kind < 142; kind++ {
		reason, outcome := traffic.ReasonBlocklist, traffic.Dropped
		if kind >= 133 && kind <= 137 {
			reason, outcome = traffic.ReasonND, traffic.Passed
		}
		p.want(t, "ICMPv6", packettest.Neighbour(kind), reason, outcome)
	}
	nd := packettest.Neighbour(135)
	dad := with(nd, func(f []byte) { clear(f[atIP+8 : atIP+24]) })
	p.want(t, "duplicate address detection", dad, traffic.ReasonND, traffic.Passed)
	p.want(t, "tagged", tagged(nd, 0x8100), traffic.ReasonND, traffic.Passed)
	for _, c := range []struct {
		name  string
		frame []byte
	}{
		{"hop limit 254", with(nd, put8(atIP+7, 254))},
		{"code 1", with(nd, put8(at6L4+1, 1))},
		{"behind destination options", manyExtensions(nd, 1)},
		{"atomic fragment", must(packettest.InsertExtension(nd, 44, 8))},
		{"one byte short", packettest.Cut(nd, len(nd)-1)},
		{"seven bytes", with(nd, put16(atIP+4, 7))},
		{"land", with(nd, land)},
		{"in 6in4", wrapped("IPv6 tunnel, IPv6 inside", nd)},
	} {
		p.want(t, c.name, c.frame, traffic.ReasonBlocklist, traffic.Dropped)
	}
}

// TestSizes: frames of every size that the kernel takes are judged, also those
// in several buffers, and the others are refused by name.
func TestSizes(t *testing.T) {
	p := newPair(t, packettest.Tunnels{})
	p.lists.Block = []traffic.Entry{{Prefix: netip.MustParsePrefix("192.0.2.0/24")}}
	p.set(t)
	features, err := dataplane.Probe()
	if err != nil {
		t.Fatal(err)
	}
	sizes := []int{0, 1, 1000, 1472, 3000, 3300}
	if features.Frags {
		sizes = append(sizes, 3600, 4096, 8000, 9000, 30000, 60000, 65000)
	} else if _, err := p.program.Run(make([]byte, 4096), epoch); !errors.Is(err, dataplane.ErrFrame) {
		t.Errorf("frame of 4096 bytes without multi-buffer support: error %v, want ErrFrame", err)
	}
	for _, n := range sizes {
		for _, f := range [][]byte{
			packettest.Build(packettest.Ethernet(layers.EthernetTypeIPv4), packettest.IPv4(layers.IPProtocolUDP), packettest.UDP(), packettest.Data(n)),
			tagged(packettest.Build(packettest.Ethernet(layers.EthernetTypeIPv4), packettest.IPv4(layers.IPProtocolTCP), packettest.SYN(), packettest.Data(n)), 0x8100),
		} {
			parsed := p.want(t, "blocked", f, traffic.ReasonBlocklist, traffic.Dropped)
			if int(parsed.Length) != len(f) {
				t.Errorf("length %d, want %d", parsed.Length, len(f))
			}
		}
		f := packettest.Build(packettest.Ethernet(layers.EthernetTypeIPv6), packettest.IPv6(layers.IPProtocolUDP), packettest.UDP(), gopacket.Payload(packettest.Data(n)))
		p.want(t, "free", f, traffic.ReasonPass, traffic.Passed)
	}
	for n := range 14 {
		// Kernel 5.10 runs such frames, later ones refuse.
		v, err := p.program.Run(make([]byte, n), epoch)
		if !errors.Is(err, dataplane.ErrFrame) && (err != nil || v.Reason != traffic.ReasonTruncated) {
			t.Errorf("frame of %d bytes: %v, error %v, want truncated or ErrFrame", n, v.Reason, err)
		}
	}
	p.want(t, "bare Ethernet header of IPv4", packettest.Cut(udp4(), 14), traffic.ReasonTruncated, traffic.Passed)
	p.want(t, "bare Ethernet header of ARP", with(packettest.Cut(udp4(), 14), put16(atType, 0x0806)), traffic.ReasonNonIP, traffic.Passed)
}
