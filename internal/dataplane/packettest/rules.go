// SPDX-License-Identifier: Apache-2.0

package packettest

import (
	"encoding/binary"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/sentinel-x/sentinel-x/internal/signature"
)

// beginRules forgets what signatures would have seen of a packet around this one.
func (p *Packet) beginRules(family uint8) {
	p.Rules = signature.Packet{Family: family}
	for f := range p.Rules.Values {
		p.Rules.Values[f] = -1
	}
}

// finishRules adds what every IP packet has.
func (p *Packet) finishRules() {
	v := &p.Rules.Values
	p.Rules.Destination = p.Destination
	v[signature.Protocol] = int32(p.Protocol)
	v[signature.TTL] = int32(p.TTL)
	v[signature.Fragment] = int32(p.Fragment)
	if p.Tunnel {
		v[signature.Inner] = int32(p.Protocol)
	}
}

// transportRules adds what the layer-4 header, whose fixed part fits body, tells, and the data behind it.
func (d *Decoder) transportRules(p *Packet, body []byte) {
	v := &p.Rules.Values
	switch p.Protocol {
	case protocolTCP:
		_ = d.tcp.DecodeFromBytes(body, gopacket.NilDecodeFeedback)
		v[signature.SourcePort], v[signature.DestPort] = int32(d.tcp.SrcPort), int32(d.tcp.DstPort)
		v[signature.TCPFlags] = int32(flags(&d.tcp))
		v[signature.DataOffset] = int32(d.tcp.DataOffset)
		v[signature.Window] = int32(d.tcp.Window)
		if header := int(d.tcp.DataOffset) * 4; header >= 20 && header <= len(body) {
			p.Rules.Payload = body[header:]
		}
	case protocolUDP:
		v[signature.SourcePort] = int32(binary.BigEndian.Uint16(body))
		v[signature.DestPort] = int32(binary.BigEndian.Uint16(body[2:]))
		p.Rules.Payload = body[8:]
	case protocolICMP, protocolICMPv6:
		kind := layers.CreateICMPv4TypeCode(body[0], body[1])
		v[signature.ICMPType], v[signature.ICMPCode] = int32(kind.Type()), int32(kind.Code())
		p.Rules.Payload = body[8:]
	default:
		p.Rules.Payload = body
	}
}

func bit(set bool) int32 {
	if set {
		return 1
	}
	return 0
}
