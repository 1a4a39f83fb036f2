// SPDX-License-Identifier: Apache-2.0

package packettest

import (
	"fmt"
	"net"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

// The addresses and ports that built packets have unless a layer is changed.
const (
	Source4      = "192.0.2.7"
	Destination4 = "198.51.100.1"
	Source6      = "2001:db8::7"
	Destination6 = "2001:db8:1::1"
	SourcePort   = 40000
	DestPort     = 443
)

// Build serialises layers from the outside in, with lengths and checksums
// fixed. It panics on layers that do not serialise: the test is wrong then.
func Build(stack ...gopacket.SerializableLayer) []byte {
	return serialize(gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, stack)
}

// BuildAsIs serialises layers with the lengths and checksums they carry.
func BuildAsIs(stack ...gopacket.SerializableLayer) []byte {
	return serialize(gopacket.SerializeOptions{}, stack)
}

func serialize(options gopacket.SerializeOptions, stack []gopacket.SerializableLayer) []byte {
	var network gopacket.NetworkLayer
	for _, l := range stack {
		switch l := l.(type) {
		case *layers.IPv4:
			network = l
		case *layers.IPv6:
			network = l
		case interface {
			SetNetworkLayerForChecksum(gopacket.NetworkLayer) error
		}:
			if err := l.SetNetworkLayerForChecksum(network); err != nil {
				panic(fmt.Sprintf("build packet: %v", err))
			}
		}
	}
	buffer := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(buffer, options, stack...); err != nil {
		panic(fmt.Sprintf("build packet: %v", err))
	}
	return append([]byte(nil), buffer.Bytes()...)
}

// Ethernet returns an Ethernet header of the given type.
func Ethernet(kind layers.EthernetType) *layers.Ethernet {
	return &layers.Ethernet{
		SrcMAC:       net.HardwareAddr{2, 0, 0, 0, 0, 7},
		DstMAC:       net.HardwareAddr{2, 0, 0, 0, 0, 1},
		EthernetType: kind,
	}
}

// IPv4 returns an IPv4 header from Source4 to Destination4.
func IPv4(protocol layers.IPProtocol) *layers.IPv4 {
	return &layers.IPv4{
		Version: 4, TTL: 64, Id: 4711, Protocol: protocol,
		SrcIP: net.ParseIP(Source4).To4(), DstIP: net.ParseIP(Destination4).To4(),
	}
}

// IPv6 returns an IPv6 header from Source6 to Destination6.
func IPv6(next layers.IPProtocol) *layers.IPv6 {
	return &layers.IPv6{
		Version: 6, HopLimit: 64, NextHeader: next,
		SrcIP: net.ParseIP(Source6), DstIP: net.ParseIP(Destination6),
	}
}

// TCP returns the header of a segment with ACK and PSH set.
func TCP() *layers.TCP {
	return &layers.TCP{
		SrcPort: SourcePort, DstPort: DestPort, Seq: 1, Ack: 1, ACK: true, PSH: true, Window: 512,
	}
}

// SYN returns the header of a segment that opens a connection, with an MSS option.
func SYN() *layers.TCP {
	return &layers.TCP{
		SrcPort: SourcePort, DstPort: DestPort, Seq: 1, SYN: true, Window: 64240,
		Options: []layers.TCPOption{{OptionType: layers.TCPOptionKindMSS, OptionLength: 4, OptionData: []byte{5, 180}}},
	}
}

// UDP returns a UDP header.
func UDP() *layers.UDP { return &layers.UDP{SrcPort: SourcePort, DstPort: DestPort} }

// Echo returns an ICMP echo request.
func Echo() *layers.ICMPv4 {
	return &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(layers.ICMPv4TypeEchoRequest, 0), Id: 1, Seq: 1}
}

// ICMP6 returns an ICMPv6 header of the given type and code.
func ICMP6(kind, code uint8) *layers.ICMPv6 {
	return &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(kind, code)}
}

// Data returns n bytes of payload.
func Data(n int) gopacket.Payload {
	p := make(gopacket.Payload, n)
	for i := range p {
		p[i] = byte(i)
	}
	return p
}

// transports are the layer-4 contents every family of good packets comes with.
func transports(six bool) []struct {
	name     string
	protocol layers.IPProtocol
	stack    []gopacket.SerializableLayer
} {
	icmp := []gopacket.SerializableLayer{Echo(), Data(24)}
	number := layers.IPProtocolICMPv4
	if six {
		icmp = []gopacket.SerializableLayer{ICMP6(128, 0), Data(24)}
		number = layers.IPProtocolICMPv6
	}
	return []struct {
		name     string
		protocol layers.IPProtocol
		stack    []gopacket.SerializableLayer
	}{
		{"TCP", layers.IPProtocolTCP, []gopacket.SerializableLayer{TCP(), Data(24)}},
		{"SYN", layers.IPProtocolTCP, []gopacket.SerializableLayer{SYN()}},
		{"UDP", layers.IPProtocolUDP, []gopacket.SerializableLayer{UDP(), Data(24)}},
		{"ICMP", number, icmp},
		{"SCTP", layers.IPProtocolSCTP, []gopacket.SerializableLayer{Data(32)}},
		{"ESP", layers.IPProtocolESP, []gopacket.SerializableLayer{Data(40)}},
		{"no next header", layers.IPProtocolNoNextHeader, nil},
		{"empty UDP", layers.IPProtocolUDP, []gopacket.SerializableLayer{UDP()}},
	}
}

// Named is a frame with what it is.
type Named struct {
	Name  string
	Frame []byte
}

// GoodPackets returns well-formed frames: IPv4 and IPv6, every transport, as
// they are and rewritten by each Rewriter, fragmented and wrapped in tunnels.
func GoodPackets() []Named {
	plain := plainPackets()
	all := append([]Named(nil), plain...)
	for _, p := range plain {
		for _, r := range Rewriters {
			if frame, ok := r.Rewrite(p.Frame); ok {
				all = append(all, Named{p.Name + ", " + r.Name, frame})
			}
		}
		for i, f := range Fragments(p.Frame, 24) {
			all = append(all, Named{fmt.Sprintf("%s, fragment %d", p.Name, i), f})
		}
		for _, w := range Wrappers {
			if frame, ok := w.Rewrite(p.Frame); ok {
				all = append(all, Named{p.Name + ", in " + w.Name, frame})
			}
		}
	}
	return all
}

func plainPackets() []Named {
	var all []Named
	for _, t := range transports(false) {
		stack := append([]gopacket.SerializableLayer{Ethernet(layers.EthernetTypeIPv4), IPv4(t.protocol)}, t.stack...)
		all = append(all, Named{"IPv4 " + t.name, Build(stack...)})
	}
	for _, t := range transports(true) {
		stack := append([]gopacket.SerializableLayer{Ethernet(layers.EthernetTypeIPv6), IPv6(t.protocol)}, t.stack...)
		all = append(all, Named{"IPv6 " + t.name, Build(stack...)})
	}
	return append(all, linkPackets()...)
}

// linkPackets are frames that only the local link sends.
func linkPackets() []Named {
	arp := &layers.ARP{
		AddrType: layers.LinkTypeEthernet, Protocol: layers.EthernetTypeIPv4, HwAddressSize: 6, ProtAddressSize: 4,
		Operation: layers.ARPRequest, SourceHwAddress: make([]byte, 6), SourceProtAddress: net.ParseIP(Source4).To4(),
		DstHwAddress: make([]byte, 6), DstProtAddress: net.ParseIP(Destination4).To4(),
	}
	return []Named{
		{"ARP", Build(Ethernet(layers.EthernetTypeARP), arp)},
		{"LLDP", Build(Ethernet(layers.EthernetTypeLinkLayerDiscovery), Data(46))},
		{"802.3 length", Build(&layers.Ethernet{
			SrcMAC: make([]byte, 6), DstMAC: make([]byte, 6), Length: 38, EthernetType: layers.EthernetTypeLLC,
		}, Data(38))},
		{"neighbour solicitation", Neighbour(135)},
	}
}

// Neighbour returns a neighbour-discovery message of the given ICMPv6 type.
func Neighbour(kind uint8) []byte {
	ip := IPv6(layers.IPProtocolICMPv6)
	ip.HopLimit = 255
	return Build(Ethernet(layers.EthernetTypeIPv6), ip, ICMP6(kind, 0), Data(20))
}
