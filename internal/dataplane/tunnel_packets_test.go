// SPDX-License-Identifier: Apache-2.0

package dataplane_test

import (
	"net/netip"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/sentinel-x/sentinel-x/internal/dataplane/packettest"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

func entries(prefixes ...string) []traffic.Entry {
	var all []traffic.Entry
	for _, p := range prefixes {
		all = append(all, traffic.Entry{Prefix: netip.MustParsePrefix(p)})
	}
	return all
}

// TestTunnelSources: with the tunnel configured, either source can be blocked or
// allowed, the outer one first; without, only the outer one counts.
func TestTunnelSources(t *testing.T) {
	inner := entries("192.0.2.0/24", "2001:db8::/48")
	outer := entries("203.0.113.0/24", "2001:db8:9::/48")
	on, off := newPair(t, packettest.AllTunnels), newPair(t, packettest.Tunnels{})
	for _, c := range []struct {
		name            string
		lists           packettest.Lists
		on, off         traffic.Reason
		onDrop, offDrop bool
	}{
		{"no list", packettest.Lists{}, traffic.ReasonPass, traffic.ReasonPass, false, false},
		{"inner blocked", packettest.Lists{Block: inner}, traffic.ReasonBlocklist, traffic.ReasonPass, true, false},
		{"outer blocked", packettest.Lists{Block: outer}, traffic.ReasonBlocklist, traffic.ReasonBlocklist, true, true},
		{"outer blocked, inner allowed", packettest.Lists{Block: outer, Allow: inner}, traffic.ReasonBlocklist, traffic.ReasonBlocklist, true, true},
		{"outer allowed, inner blocked", packettest.Lists{Block: inner, Allow: outer}, traffic.ReasonAllowlist, traffic.ReasonAllowlist, false, false},
		{"inner allowed", packettest.Lists{Allow: inner}, traffic.ReasonAllowlist, traffic.ReasonPass, false, false},
		{"inner protected", packettest.Lists{Protected: inner}, traffic.ReasonProtected, traffic.ReasonPass, false, false},
	} {
		on.lists, off.lists = c.lists, c.lists
		on.set(t)
		off.set(t)
		for _, w := range packettest.Wrappers {
			for _, packet := range [][]byte{tcp4(), udp6(), tagged(icmp4(), 0x8100)} {
				frame, ok := w.Rewrite(packet)
				if !ok {
					continue
				}
				got := on.want(t, w.Name+", "+c.name, frame, c.on, outcomeOf(c.onDrop))
				if !got.Tunnel {
					t.Errorf("%s: not seen as a tunnel", w.Name)
				}
				got = off.want(t, w.Name+" off, "+c.name, frame, c.off, outcomeOf(c.offDrop))
				if got.Tunnel {
					t.Errorf("%s: looked into although it is off", w.Name)
				}
			}
		}
	}
}

func outcomeOf(drop bool) traffic.Outcome {
	if drop {
		return traffic.Dropped
	}
	return traffic.Passed
}

// TestTunnelsOneByOne: each kind is looked into by its own switch alone.
func TestTunnelsOneByOne(t *testing.T) {
	kinds := map[string]packettest.Tunnels{
		"IPIP": {IPIP: true}, "6in4": {SixInFour: true}, "GRE": {GRE: true}, "VXLAN": {VXLAN: true},
	}
	for name, mix := range kinds {
		p := newPair(t, mix)
		for _, other := range []string{"IPIP", "6in4", "GRE", "VXLAN"} {
			packet := udp4()
			if other == "6in4" {
				packet = udp6()
			}
			got := p.want(t, other+" with "+name+" on", wrapped(other, packet), traffic.ReasonPass, traffic.Passed)
			if got.Tunnel != (other == name) {
				t.Errorf("%s with %s on: tunnel %v", other, name, got.Tunnel)
			}
		}
	}
}

// over builds an outer packet of the given protocol around the bytes.
func over(protocol layers.IPProtocol, body []byte) []byte {
	ip := packettest.IPv4(protocol)
	ip.SrcIP = netip.MustParseAddr(packettest.TunnelSource4).AsSlice()
	return packettest.Build(packettest.Ethernet(layers.EthernetTypeIPv4), ip, gopacket.Payload(body))
}

func vxlan(header []byte, inner []byte) []byte {
	udp := []byte{0xc3, 0x50, 0x12, 0xb5, 0, byte(8 + len(header) + len(inner)), 0, 0}
	return over(layers.IPProtocolUDP, append(append(udp, header...), inner...))
}

// TestBrokenTunnels: what is not quite a tunnel stays what it is; what is one and
// does not fit is malformed.
func TestBrokenTunnels(t *testing.T) {
	p := newPair(t, packettest.AllTunnels)
	p.policies = everyPolicy(traffic.PolicyDrop)
	p.policies.FirstFragments, p.policies.LaterFragments = traffic.PolicyPass, traffic.PolicyPass
	p.set(t)
	id := []byte{8, 0, 0, 0, 0, 0, 42, 0}
	gre := func(header ...byte) []byte { return over(layers.IPProtocolGRE, append(header, udp4()[atIP:]...)) }
	for _, c := range []struct {
		name   string
		frame  []byte
		reason traffic.Reason
		tunnel bool
	}{
		{"GRE", gre(0, 0, 8, 0), traffic.ReasonPass, true},
		{"GRE version 1 (PPTP)", gre(0, 1, 8, 0), traffic.ReasonPass, false},
		{"GRE with routing", gre(0x40, 0, 8, 0), traffic.ReasonPass, false},
		{"GRE with MPLS", gre(0, 0, 0x88, 0x47), traffic.ReasonPass, false},
		{"GRE of 3 bytes", over(layers.IPProtocolGRE, []byte{0, 0, 8}), traffic.ReasonMalformed, false},
		{"GRE key cut", over(layers.IPProtocolGRE, []byte{0x20, 0, 8, 0, 1, 2}), traffic.ReasonMalformed, false},
		{"GRE with 19 bytes of IPv4", over(layers.IPProtocolGRE, append([]byte{0, 0, 8, 0}, udp4()[atIP:atIP+19]...)), traffic.ReasonMalformed, false},
		{"GRE with Ethernet that is ARP", over(layers.IPProtocolGRE, append([]byte{0, 0, 0x65, 0x58}, with(udp4(), put16(atType, 0x0806))...)), traffic.ReasonPass, false},
		{"IPIP of 19 bytes", over(layers.IPProtocolIPv4, udp4()[atIP:atIP+19]), traffic.ReasonMalformed, false},
		{"IPIP with IPv6 inside", over(layers.IPProtocolIPv4, udp6()[atIP:]), traffic.ReasonMalformed, true},
		{"6in4 of 39 bytes", over(layers.IPProtocolIPv6, udp6()[atIP:atIP+39]), traffic.ReasonMalformed, false},
		{"VXLAN", vxlan(id, udp4()), traffic.ReasonPass, true},
		{"VXLAN without the I flag", vxlan(make([]byte, 8), udp4()), traffic.ReasonPass, false},
		{"VXLAN of 7 bytes", vxlan(id[:7], nil), traffic.ReasonMalformed, false},
		{"VXLAN with 13 bytes of Ethernet", vxlan(id, udp4()[:13]), traffic.ReasonMalformed, false},
		{"VXLAN with a cut tag", vxlan(id, tagged(udp4(), 0x8100)[:16]), traffic.ReasonMalformed, false},
		{"VXLAN with ARP", vxlan(id, with(udp4(), put16(atType, 0x0806))), traffic.ReasonPass, false},
		{"VXLAN with two tags", vxlan(id, tagged(udp4(), 0x8100, 0x88a8)), traffic.ReasonPass, true},
		{"VXLAN with three tags", vxlan(id, tagged(udp4(), 0x8100, 0x88a8, 0x9100)), traffic.ReasonVLANDepth, false},
		{"VXLAN with land inside", vxlan(id, with(udp4(), land)), traffic.ReasonLand, true},
		{"VXLAN with a short packet", vxlan(id, udp4()[:60]), traffic.ReasonTruncated, true},
		{"VXLAN with neighbour discovery", vxlan(id, packettest.Neighbour(135)), traffic.ReasonPass, true},
		{"IPIP in IPIP", wrapped("IPIP", wrapped("IPIP", udp4())), traffic.ReasonTunnelDepth, true},
		{"VXLAN in GRE", wrapped("GRE", wrapped("VXLAN", udp4())), traffic.ReasonTunnelDepth, true},
		{"first fragment of VXLAN", packettest.Fragments(wrapped("VXLAN", udp4()), 64)[0], traffic.ReasonPass, true},
		{"later fragment of VXLAN", packettest.Fragments(wrapped("VXLAN", udp4()), 64)[1], traffic.ReasonPass, false},
		{"first fragment cut in the inner UDP header", packettest.Fragments(wrapped("VXLAN", udp4()), 56)[0], traffic.ReasonFragmentTiny, true},
		{"first fragment cut in the inner IP options", packettest.Fragments(wrapped("VXLAN", must(packettest.InsertOption(udp4(), 6))), 56)[0], traffic.ReasonFragmentTiny, true},
		{"first fragment cut in the inner TCP options", packettest.Fragments(wrapped("VXLAN", with(tcp4(), put8(atL4+12, 0xa0))), 72)[0], traffic.ReasonFragmentTiny, true},
		{"first fragment cut in the inner IP header", packettest.Fragments(wrapped("VXLAN", udp4()), 40)[0], traffic.ReasonFragmentTiny, false},
	} {
		outcome := traffic.Dropped
		if c.reason == traffic.ReasonPass {
			outcome = traffic.Passed
		}
		if got := p.want(t, c.name, c.frame, c.reason, outcome); got.Tunnel != c.tunnel {
			t.Errorf("%s: tunnel %v, want %v", c.name, got.Tunnel, c.tunnel)
		}
	}
}
