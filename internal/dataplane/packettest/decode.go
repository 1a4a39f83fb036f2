// SPDX-License-Identifier: Apache-2.0

package packettest

import (
	"encoding/binary"
	"net/netip"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/sentinel-x/sentinel-x/internal/signature"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

const (
	protocolIPIP   = 4
	protocolTCP    = 6
	protocolUDP    = 17
	protocolIPv6   = 41
	protocolGRE    = 47
	protocolAH     = 51
	protocolICMP   = 1
	protocolICMPv6 = 58

	portVXLAN = 4789

	maxVLANs            = 2
	maxExtensionHeaders = 8
	maxDatagram         = 65535
)

// Decode returns what the page says frame means.
func Decode(frame []byte, tunnels Tunnels) Packet {
	return NewDecoder(tunnels).Decode(frame)
}

// Decoder decodes many frames with the same gopacket layers. It is not safe
// for concurrent use.
type Decoder struct {
	tunnels Tunnels

	eth      layers.Ethernet
	tag      layers.Dot1Q
	ip4      layers.IPv4
	ip6      layers.IPv6
	skipper  layers.IPv6ExtensionSkipper
	fragment layers.IPv6Fragment
	ah       layers.IPSecAH
	tcp      layers.TCP
	udp      layers.UDP
	icmp6    layers.ICMPv6
	gre      layers.GRE
	vxlan    layers.VXLAN

	scratch [60]byte // IPv4 header whose options gopacket refuses
}

// NewDecoder returns a decoder that looks into the given tunnels.
func NewDecoder(tunnels Tunnels) *Decoder { return &Decoder{tunnels: tunnels} }

// Decode returns what the page says frame means.
func (d *Decoder) Decode(frame []byte) Packet {
	var p Packet
	kind, body, tags, wrong := d.ethernet(frame)
	p.VLANs = tags
	p.note(wrong)
	if wrong != traffic.ReasonPass {
		return p
	}
	if kind != layers.EthernetTypeIPv4 && kind != layers.EthernetTypeIPv6 {
		return p
	}
	if len(body) < headerLength(kind) {
		p.note(traffic.ReasonTruncated)
		return p
	}
	p.IP = true
	n := d.network(&p, kind, body, false)
	if !n.readable {
		p.finishRules()
		return p
	}
	d.transport(&p, n)
	d.discovery(&p, n)
	d.enter(&p, n)
	p.finishRules()
	return p
}

func headerLength(kind layers.EthernetType) int {
	if kind == layers.EthernetTypeIPv4 {
		return 20
	}
	return 40
}

// ethernet decodes the Ethernet header and its VLAN tags. It returns the type
// behind them, the bytes that follow, the number of tags, and truncated or
// vlan_depth if there is no way on.
func (d *Decoder) ethernet(data []byte) (layers.EthernetType, []byte, uint8, traffic.Reason) {
	if d.eth.DecodeFromBytes(data, gopacket.NilDecodeFeedback) != nil {
		return 0, nil, 0, traffic.ReasonTruncated
	}
	kind, body, tags := d.eth.EthernetType, d.eth.Payload, uint8(0)
	for isTag(kind) {
		if tags == maxVLANs {
			return 0, nil, tags, traffic.ReasonVLANDepth
		}
		if d.tag.DecodeFromBytes(body, gopacket.NilDecodeFeedback) != nil {
			return 0, nil, tags, traffic.ReasonTruncated
		}
		kind, body = d.tag.Type, d.tag.Payload
		tags++
	}
	return kind, body, tags, traffic.ReasonPass
}

func isTag(kind layers.EthernetType) bool {
	return kind == layers.EthernetTypeDot1Q || kind == layers.EthernetTypeQinQ || kind == 0x9100
}

// upper is what an IP header and its extension headers leave for layer 4.
type upper struct {
	readable bool   // layer 4 is to be parsed
	body     []byte // the bytes of layer 4 that are there
	length   int    // of layer 4, as the IP header announces it
	version  uint8
	plain    bool // no extension header
	// first: in a first fragment, of this packet or of the tunnel's.
	first bool
}

// network decodes an IP header that fits data, and all in front of layer 4.
// continued: data is the first fragment of a tunnel's payload.
func (d *Decoder) network(p *Packet, kind layers.EthernetType, data []byte, continued bool) upper {
	if kind == layers.EthernetTypeIPv4 {
		return d.ipv4(p, data, continued)
	}
	return d.ipv6(p, data, continued)
}

func (d *Decoder) ipv4(p *Packet, data []byte, continued bool) upper {
	p.Source = netip.AddrFrom4([4]byte(data[12:16]))
	p.Destination = netip.AddrFrom4([4]byte(data[16:20]))
	p.Protocol = data[9]
	p.TTL = data[8]
	p.Fragment = NoFragment
	p.beginRules(4)

	header := int(data[0]&15) * 4
	total := int(binary.BigEndian.Uint16(data[2:]))
	switch {
	case data[0]>>4 != 4:
		p.note(traffic.ReasonMalformed)
		return upper{}
	case header < 20:
		p.note(traffic.ReasonBadHeaderLength)
		return upper{}
	case total < header:
		p.note(traffic.ReasonMalformed)
		return upper{}
	case len(data) < header && continued:
		p.note(traffic.ReasonFragmentTiny)
		return upper{}
	case len(data) < header:
		p.note(traffic.ReasonTruncated)
		return upper{}
	}
	ip, body := d.decodeIPv4(data)
	if len(data) < total && !continued {
		p.note(traffic.ReasonTruncated)
	}
	p.Source, p.Destination = addr(ip.SrcIP), addr(ip.DstIP)
	p.Protocol, p.TTL = uint8(ip.Protocol), ip.TTL
	p.Fragment = fragmentOf(ip.FragOffset, ip.Flags&layers.IPv4MoreFragments != 0)
	p.Rules.Values[signature.Length] = int32(total)
	p.Rules.Values[signature.DF] = bit(ip.Flags&layers.IPv4DontFragment != 0)
	noteAddresses(p)
	if int(ip.FragOffset)*8+total-header > maxDatagram {
		p.note(traffic.ReasonMalformed)
	}
	if ip.FragOffset == 1 && p.Protocol == protocolTCP {
		p.note(traffic.ReasonFragmentTiny)
	}
	return upper{
		readable: p.Fragment != LaterFragment,
		body:     body, length: total - header, version: 4, plain: true,
		first: continued || p.Fragment == FirstFragment,
	}
}

// decodeIPv4 has gopacket decode the header and returns it with its payload.
// The page does not look at options; where gopacket refuses one, it gets the
// same header with no-operation options.
func (d *Decoder) decodeIPv4(data []byte) (*layers.IPv4, []byte) {
	if d.ip4.DecodeFromBytes(data, gopacket.NilDecodeFeedback) == nil {
		return &d.ip4, d.ip4.Payload
	}
	header := int(data[0]&15) * 4
	copy(d.scratch[:header], data)
	for i := 20; i < header; i++ {
		d.scratch[i] = 1
	}
	if err := d.ip4.DecodeFromBytes(d.scratch[:header], gopacket.NilDecodeFeedback); err != nil {
		panic("gopacket refuses an IPv4 header that the page accepts: " + err.Error())
	}
	end := min(len(data), int(d.ip4.Length))
	return &d.ip4, data[header:end]
}

func fragmentOf(offset uint16, more bool) Fragment {
	switch {
	case offset > 0:
		return LaterFragment
	case more:
		return FirstFragment
	}
	return NoFragment
}

func noteAddresses(p *Packet) {
	if p.TTL == 0 {
		p.note(traffic.ReasonZeroTTL)
	}
	if p.Source == p.Destination {
		p.note(traffic.ReasonLand)
	}
}

func addr(ip []byte) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a
}

func (d *Decoder) ipv6(p *Packet, data []byte, continued bool) upper {
	// Of the fixed header alone: gopacket wants a valid hop-by-hop header too.
	_ = d.ip6.DecodeFromBytes(data[:40], gopacket.NilDecodeFeedback)
	ip := &d.ip6
	p.Source, p.Destination = addr(ip.SrcIP), addr(ip.DstIP)
	p.Protocol, p.TTL = uint8(ip.NextHeader), ip.HopLimit
	p.Fragment = NoFragment
	p.beginRules(6)
	if ip.Version != 6 {
		p.note(traffic.ReasonMalformed)
		return upper{}
	}
	body := data[40:]
	length := int(ip.Length)
	if length == 0 && ip.NextHeader == layers.IPProtocolIPv6HopByHop {
		length = len(body)
	}
	p.Rules.Values[signature.Length] = int32(40 + length)
	if len(body) < length && !continued {
		p.note(traffic.ReasonTruncated)
	}
	noteAddresses(p)
	return d.extensions(p, body[:min(length, len(body))], length, continued)
}

// extensions walks the extension headers in body, the bytes that are there of
// a payload of length bytes.
func (d *Decoder) extensions(p *Packet, body []byte, length int, continued bool) upper {
	for n := 0; isExtension(p.Protocol); n++ {
		if n == maxExtensionHeaders {
			p.note(traffic.ReasonExtensionHeaders)
			return upper{}
		}
		next, size, ok := d.extension(p.Protocol, body)
		if !ok {
			p.note(traffic.ReasonMalformed)
			return upper{}
		}
		fragment := p.Protocol == uint8(layers.IPProtocolIPv6Fragment)
		p.Protocol, body, length = next, body[size:], length-size
		if fragment && p.Fragment == NoFragment {
			p.Fragment = fragmentOf(d.fragment.FragmentOffset, d.fragment.MoreFragments)
		}
		if p.Fragment == LaterFragment {
			noteLater(p, int(d.fragment.FragmentOffset), length)
			return upper{}
		}
	}
	return upper{
		readable: true,
		body:     body, length: length, version: 6, plain: isPlain(&d.ip6),
		first: continued || p.Fragment == FirstFragment,
	}
}

func isPlain(ip *layers.IPv6) bool { return !isExtension(uint8(ip.NextHeader)) }

func noteLater(p *Packet, offset, length int) {
	if offset == 1 && p.Protocol == protocolTCP {
		p.note(traffic.ReasonFragmentTiny)
	}
	if offset*8+length > maxDatagram {
		p.note(traffic.ReasonMalformed)
	}
}

func isExtension(protocol uint8) bool {
	switch protocol {
	case 0, 43, 44, 60, protocolAH, 135, 139, 140:
		return true
	}
	return false
}

// extension decodes the extension header of the given protocol number at the
// start of body: its next header, its size, and whether it fits.
func (d *Decoder) extension(protocol uint8, body []byte) (uint8, int, bool) {
	if len(body) < 8 {
		return 0, 0, false
	}
	switch protocol {
	case uint8(layers.IPProtocolIPv6Fragment):
		err := d.fragment.DecodeFromBytes(body, gopacket.NilDecodeFeedback)
		return uint8(d.fragment.NextHeader), 8, err == nil
	case protocolAH:
		// gopacket wants the whole fixed part (12 bytes), the page only
		// what the length says.
		if body[1] == 0 {
			return body[0], 8, true
		}
		err := d.ah.DecodeFromBytes(body, gopacket.NilDecodeFeedback)
		return uint8(d.ah.NextHeader), d.ah.ActualLength, err == nil
	default:
		err := d.skipper.DecodeFromBytes(body, gopacket.NilDecodeFeedback)
		return uint8(d.skipper.NextHeader), len(d.skipper.Contents), err == nil
	}
}

// transport decodes the layer-4 header.
func (d *Decoder) transport(p *Packet, n upper) {
	p.SourcePort, p.DestPort, p.TCPFlags, p.TCPData = 0, 0, 0, 0
	misfit := traffic.ReasonMalformed
	if n.first {
		misfit = traffic.ReasonFragmentTiny
	}
	if len(n.body) < transportLength(p.Protocol) {
		p.note(misfit)
		return
	}
	d.transportRules(p, n.body)
	switch p.Protocol {
	case protocolTCP:
		// gopacket fills in the header before it objects to offset or options.
		_ = d.tcp.DecodeFromBytes(n.body, gopacket.NilDecodeFeedback)
		p.SourcePort, p.DestPort = uint16(d.tcp.SrcPort), uint16(d.tcp.DstPort)
		p.TCPFlags = flags(&d.tcp)
		if d.tcp.DataOffset < 5 {
			p.note(traffic.ReasonBadHeaderLength)
		}
		if header := int(d.tcp.DataOffset) * 4; header > len(n.body) {
			p.note(misfit)
		} else if header >= 20 {
			p.TCPData = n.length - header
		}
		if impossible(&d.tcp) {
			p.note(traffic.ReasonBadTCPFlags)
		}
	case protocolUDP:
		_ = d.udp.DecodeFromBytes(n.body, gopacket.NilDecodeFeedback)
		p.SourcePort, p.DestPort = uint16(d.udp.SrcPort), uint16(d.udp.DstPort)
		if d.udp.Length < 8 {
			p.note(traffic.ReasonBadHeaderLength)
		}
		if int(d.udp.Length) > len(n.body) && !n.first {
			p.note(traffic.ReasonMalformed)
		}
	}
}

// transportLength is the part of the layer-4 header that must be there.
func transportLength(protocol uint8) int {
	switch protocol {
	case protocolTCP:
		return 20
	case protocolUDP, protocolICMP, protocolICMPv6:
		return 8
	}
	return 0
}

func flags(t *layers.TCP) uint8 {
	var f uint8
	for i, set := range []bool{t.FIN, t.SYN, t.RST, t.PSH, t.ACK, t.URG, t.ECE, t.CWR} {
		if set {
			f |= 1 << i
		}
	}
	return f
}

func impossible(t *layers.TCP) bool {
	none := !t.FIN && !t.SYN && !t.RST && !t.PSH && !t.ACK && !t.URG
	return none || t.SYN && t.FIN || t.SYN && t.RST || t.FIN && t.RST || t.FIN && !t.ACK
}

// discovery recognises neighbour discovery that no router can have forwarded.
func (d *Decoder) discovery(p *Packet, n upper) {
	if n.version != 6 || !n.plain || p.Protocol != protocolICMPv6 ||
		p.Anomaly != traffic.ReasonPass || p.TTL != 255 {
		return
	}
	if d.icmp6.DecodeFromBytes(n.body, gopacket.NilDecodeFeedback) != nil {
		return
	}
	t := d.icmp6.TypeCode.Type()
	p.ND = t >= layers.ICMPv6TypeRouterSolicitation && t <= layers.ICMPv6TypeRedirect &&
		d.icmp6.TypeCode.Code() == 0
}
