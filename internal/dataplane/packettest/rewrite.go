// SPDX-License-Identifier: Apache-2.0

package packettest

import (
	"encoding/binary"
	"net"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

// Rewriter turns a good frame into another one that carries the same packet.
// Rewrite reports false where that cannot be done: the frame is not IP of the
// right family, or there is no room. The frame given is not changed.
type Rewriter struct {
	Name    string
	Rewrite func(frame []byte) ([]byte, bool)
}

// Rewriters are what an attacker can put in front of a packet.
var Rewriters = []Rewriter{
	{"VLAN tag", func(f []byte) ([]byte, bool) { return InsertTag(f, layers.EthernetTypeDot1Q, 100) }},
	{"QinQ", func(f []byte) ([]byte, bool) {
		inner, ok := InsertTag(f, layers.EthernetTypeDot1Q, 100)
		if !ok {
			return nil, false
		}
		return InsertTag(inner, layers.EthernetTypeQinQ, 200)
	}},
	{"IPv4 option", func(f []byte) ([]byte, bool) { return InsertOption(f, 1) }},
	{"IPv6 hop-by-hop header", func(f []byte) ([]byte, bool) { return InsertExtension(f, 0, 8) }},
	{"IPv6 destination options", func(f []byte) ([]byte, bool) { return InsertExtension(f, 60, 16) }},
}

// Wrappers put a packet into a tunnel.
var Wrappers = []Rewriter{
	{"IPIP", func(f []byte) ([]byte, bool) {
		return wrap(f, layers.EthernetTypeIPv4, outer4(layers.IPProtocolIPv4))
	}},
	{"6in4", func(f []byte) ([]byte, bool) {
		return wrap(f, layers.EthernetTypeIPv6, outer4(layers.IPProtocolIPv6))
	}},
	{"IPv6 tunnel, IPv4 inside", func(f []byte) ([]byte, bool) {
		return wrap(f, layers.EthernetTypeIPv4, outer6(layers.IPProtocolIPv4))
	}},
	{"IPv6 tunnel, IPv6 inside", func(f []byte) ([]byte, bool) {
		return wrap(f, layers.EthernetTypeIPv6, outer6(layers.IPProtocolIPv6))
	}},
	{"GRE", func(f []byte) ([]byte, bool) {
		return wrap(f, etherType(f), outer4(layers.IPProtocolGRE), &layers.GRE{Protocol: etherType(f)})
	}},
	{"GRE with checksum, key and sequence", func(f []byte) ([]byte, bool) {
		return wrap(f, etherType(f), outer4(layers.IPProtocolGRE), &layers.GRE{
			Protocol: etherType(f), ChecksumPresent: true, KeyPresent: true, SeqPresent: true, Key: 7, Seq: 8,
		})
	}},
	{"GRE with Ethernet", func(f []byte) ([]byte, bool) {
		return wrapFrame(f, outer4(layers.IPProtocolGRE), &layers.GRE{Protocol: layers.EthernetTypeTransparentEthernetBridging})
	}},
	{"VXLAN", func(f []byte) ([]byte, bool) {
		return wrapFrame(f, outer4(layers.IPProtocolUDP), &layers.UDP{SrcPort: 50000, DstPort: portVXLAN},
			&layers.VXLAN{ValidIDFlag: true, VNI: 42})
	}},
	{"VXLAN over IPv6", func(f []byte) ([]byte, bool) {
		return wrapFrame(f, outer6(layers.IPProtocolUDP), &layers.UDP{SrcPort: 50000, DstPort: portVXLAN},
			&layers.VXLAN{ValidIDFlag: true, VNI: 42})
	}},
}

// The sources of tunnels, which are not those of the packets inside.
const (
	TunnelSource4 = "203.0.113.9"
	TunnelSource6 = "2001:db8:9::9"
)

func outer4(protocol layers.IPProtocol) *layers.IPv4 {
	ip := IPv4(protocol)
	ip.SrcIP = net.ParseIP(TunnelSource4).To4()
	return ip
}

func outer6(next layers.IPProtocol) *layers.IPv6 {
	ip := IPv6(next)
	ip.SrcIP = net.ParseIP(TunnelSource6)
	return ip
}

// etherType returns the type behind the VLAN tags, 0 if the frame is too short.
func etherType(frame []byte) layers.EthernetType {
	kind, _ := networkOffset(frame)
	return kind
}

// networkOffset returns the type behind all VLAN tags and where its header starts.
func networkOffset(frame []byte) (layers.EthernetType, int) {
	at := 12
	for at+2 <= len(frame) {
		kind := layers.EthernetType(binary.BigEndian.Uint16(frame[at:]))
		if !isTag(kind) {
			return kind, at + 2
		}
		at += 4
	}
	return 0, 0
}

// splice returns frame with insert put in at offset at.
func splice(frame []byte, at int, insert []byte) []byte {
	out := make([]byte, 0, len(frame)+len(insert))
	out = append(out, frame[:at]...)
	out = append(out, insert...)
	return append(out, frame[at:]...)
}

// InsertTag puts a VLAN tag in front of all others.
func InsertTag(frame []byte, tpid layers.EthernetType, id uint16) ([]byte, bool) {
	if len(frame) < 14 {
		return nil, false
	}
	tag := binary.BigEndian.AppendUint16(nil, uint16(tpid))
	return splice(frame, 12, binary.BigEndian.AppendUint16(tag, id)), true
}

// InsertOption puts words 4-byte groups of no-operation options behind the
// fixed part of the IPv4 header, with lengths and checksum corrected. It
// reports false if the frame is not IPv4 or the header or datagram would grow
// too long.
func InsertOption(frame []byte, words int) ([]byte, bool) {
	kind, at := networkOffset(frame)
	if kind != layers.EthernetTypeIPv4 || len(frame) < at+20 || frame[at]>>4 != 4 {
		return nil, false
	}
	header := int(frame[at] & 15)
	total := int(binary.BigEndian.Uint16(frame[at+2:]))
	if header < 5 || header+words > 15 || total+4*words > maxDatagram || len(frame) < at+header*4 {
		return nil, false
	}
	options := make([]byte, 4*words)
	for i := range options {
		options[i] = 1
	}
	out := splice(frame, at+20, options)
	out[at] = 4<<4 | byte(header+words)
	binary.BigEndian.PutUint16(out[at+2:], uint16(total+4*words))
	Checksum4(out[at:])
	return out, true
}

// Checksum4 corrects the header checksum of the IPv4 packet.
func Checksum4(packet []byte) {
	header := packet[:min(len(packet), int(packet[0]&15)*4)]
	if len(header) < 20 {
		return
	}
	binary.BigEndian.PutUint16(header[10:], 0)
	binary.BigEndian.PutUint16(header[10:], gopacket.FoldChecksum(gopacket.ComputeChecksum(header, 0)))
}

// InsertExtension puts an IPv6 extension header of the given kind (0, 43, 60,
// 135, 139, 140; 44: an atomic fragment; 51) and size in bytes behind the
// fixed header. It reports false if the frame is not IPv6 or would grow too long.
func InsertExtension(frame []byte, kind uint8, size int) ([]byte, bool) {
	family, at := networkOffset(frame)
	if family != layers.EthernetTypeIPv6 || len(frame) < at+40 || frame[at]>>4 != 6 {
		return nil, false
	}
	length := int(binary.BigEndian.Uint16(frame[at+4:]))
	if length == 0 && frame[at+6] == 0 || length+size > maxDatagram {
		return nil, false
	}
	out := splice(frame, at+40, Extension(kind, frame[at+6], size))
	out[at+6] = kind
	binary.BigEndian.PutUint16(out[at+4:], uint16(length+size))
	return out, true
}

// Extension returns an extension header of the given kind and size (a multiple
// of 8, of 4 for AH), padded as RFC 8200 wants it.
func Extension(kind, next uint8, size int) []byte {
	h := make([]byte, size)
	h[0] = next
	switch kind {
	case uint8(layers.IPProtocolIPv6Fragment):
		return h
	case protocolAH:
		h[1] = uint8(size/4 - 2)
		return h
	}
	h[1] = uint8(size/8 - 1)
	if kind == 0 || kind == 60 {
		h[2], h[3] = 1, uint8(size-4) // PadN
	}
	return h
}

// Cut returns the first n bytes of the frame.
func Cut(frame []byte, n int) []byte {
	return append([]byte(nil), frame[:min(n, len(frame))]...)
}

// packetOf returns the IP packet of a good frame without its padding.
func packetOf(frame []byte, kind layers.EthernetType) ([]byte, bool) {
	found, at := networkOffset(frame)
	if found != kind || len(frame) < at+headerLength(kind) {
		return nil, false
	}
	length := 40 + int(binary.BigEndian.Uint16(frame[at+4:]))
	if kind == layers.EthernetTypeIPv4 {
		length = int(binary.BigEndian.Uint16(frame[at+2:]))
	}
	if length < headerLength(kind) || len(frame) < at+length {
		return nil, false
	}
	return frame[at : at+length], true
}

func wrap(frame []byte, kind layers.EthernetType, outer ...gopacket.SerializableLayer) ([]byte, bool) {
	if kind != layers.EthernetTypeIPv4 && kind != layers.EthernetTypeIPv6 {
		return nil, false
	}
	packet, ok := packetOf(frame, kind)
	if !ok {
		return nil, false
	}
	return wrapBytes(packet, outer), true
}

func wrapFrame(frame []byte, outer ...gopacket.SerializableLayer) ([]byte, bool) {
	if kind := etherType(frame); kind != layers.EthernetTypeIPv4 && kind != layers.EthernetTypeIPv6 {
		return nil, false
	}
	return wrapBytes(frame, outer), true
}

func wrapBytes(inner []byte, outer []gopacket.SerializableLayer) []byte {
	kind := layers.EthernetTypeIPv4
	if _, six := outer[0].(*layers.IPv6); six {
		kind = layers.EthernetTypeIPv6
	}
	stack := append([]gopacket.SerializableLayer{Ethernet(kind)}, outer...)
	return Build(append(stack, gopacket.Payload(inner))...)
}

// Fragments cuts a good IP frame into fragments that carry size bytes each (a
// multiple of 8). It returns nil if the frame is not IP or too short to cut.
func Fragments(frame []byte, size int) [][]byte {
	kind, at := networkOffset(frame)
	packet, ok := packetOf(frame, kind)
	if !ok || (kind != layers.EthernetTypeIPv4 && kind != layers.EthernetTypeIPv6) {
		return nil
	}
	header := 40
	if kind == layers.EthernetTypeIPv4 {
		header = int(packet[0]&15) * 4
	}
	if header < 20 || header > len(packet) {
		return nil
	}
	body := packet[header:]
	if len(body) <= size {
		return nil
	}
	var all [][]byte
	for offset := 0; offset < len(body); offset += size {
		end := min(offset+size, len(body))
		f := append([]byte(nil), frame[:at+header]...)
		if kind == layers.EthernetTypeIPv6 {
			f = append(f, Extension(44, f[at+6], 8)...)
			f[at+6] = 44
		}
		f = append(f, body[offset:end]...)
		SetFragment(f, uint16(offset/8), end < len(body))
		fixLength(f, kind, at)
		all = append(all, f)
	}
	return all
}

func fixLength(frame []byte, kind layers.EthernetType, at int) {
	if kind == layers.EthernetTypeIPv6 {
		binary.BigEndian.PutUint16(frame[at+4:], uint16(len(frame)-at-40))
		return
	}
	binary.BigEndian.PutUint16(frame[at+2:], uint16(len(frame)-at))
	Checksum4(frame[at:])
}

// SetFragment sets offset (in units of 8 bytes) and the more-fragments bit of
// an IPv4 frame, or of an IPv6 frame whose first extension header is a
// fragment header. Other frames stay as they are.
func SetFragment(frame []byte, offset uint16, more bool) {
	kind, at := networkOffset(frame)
	var bit uint16
	if more {
		bit = 1
	}
	switch {
	case kind == layers.EthernetTypeIPv4 && len(frame) >= at+20:
		binary.BigEndian.PutUint16(frame[at+6:], bit<<13|offset&0x1fff)
		Checksum4(frame[at:])
	case kind == layers.EthernetTypeIPv6 && len(frame) >= at+48 && frame[at+6] == 44:
		binary.BigEndian.PutUint16(frame[at+42:], offset<<3|bit)
	}
}
