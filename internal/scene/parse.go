// SPDX-License-Identifier: Apache-2.0

package scene

import "encoding/binary"

// fields are what a window counts of a packet: the parse stage of docs/packet-path.md without
// tunnels, as much of it as that takes.
type fields struct {
	ok         bool // an IP header was readable
	wrong      bool // an anomaly was noted
	ports      bool // a TCP or UDP header was read
	df         bool
	src, dst   address
	length     uint32 // IP length as announced; 0: it makes no sense
	protocol   uint8
	ttl        uint8
	flags      uint8
	dataOffset uint8
	fragment   uint8 // 0: none, 1: first, 2: later
	sport      uint16
	dport      uint16
	window     uint16
	data       int // bytes behind the layer 4 header, as announced; 0 if it does not fit

	payload int // bytes announced from rest on
}

// parse reads a frame.
func (p *fields) parse(frame []byte) {
	*p = fields{}
	kind, rest, ok := link(frame)
	if !ok {
		return
	}
	more := false
	switch {
	case kind == 0x0800 && len(rest) >= 20:
		rest, more = p.ip4(rest)
	case kind == 0x86dd && len(rest) >= 40:
		rest, more = p.ip6(rest)
	}
	if more {
		p.transport(rest)
	}
}

// link steps over Ethernet and up to two tags.
func link(frame []byte) (kind uint16, rest []byte, ok bool) {
	if len(frame) < etherSize {
		return 0, nil, false
	}
	kind, rest = binary.BigEndian.Uint16(frame[12:]), frame[etherSize:]
	for range 2 {
		if kind != 0x8100 && kind != 0x88a8 && kind != 0x9100 {
			return kind, rest, true
		}
		if len(rest) < 4 {
			return 0, nil, false
		}
		kind, rest = binary.BigEndian.Uint16(rest[2:]), rest[4:]
	}
	return kind, rest, true
}

// ip4 returns what is behind the header, and whether layer 4 begins there.
func (p *fields) ip4(b []byte) ([]byte, bool) {
	p.ok = true
	p.src.lo = uint64(binary.BigEndian.Uint32(b[12:]))
	p.dst.lo = uint64(binary.BigEndian.Uint32(b[16:]))
	p.ttl, p.protocol = b[8], b[9]
	header, total := int(b[0]&15)*4, int(binary.BigEndian.Uint16(b[2:]))
	if b[0]>>4 != 4 || header < 20 || total < header || len(b) < header {
		p.wrong = true
		return nil, false
	}
	p.wrong = len(b) < total || p.ttl == 0 || p.src == p.dst
	p.length = uint32(total)
	fragment := binary.BigEndian.Uint16(b[6:])
	p.df = fragment&0x4000 != 0
	p.payload = total - header
	return b[header:], p.mark(int(fragment&0x1fff)*8, fragment&0x2000 != 0)
}

// mark notes the kind of fragment and returns whether layer 4 is in it.
func (p *fields) mark(offset int, more bool) bool {
	if offset == 0 {
		if more {
			p.fragment = 1
		}
		return true
	}
	p.fragment = 2
	p.wrong = p.wrong || offset+p.payload > 65535 || p.protocol == protoTCP && offset == 8
	return false
}

func (p *fields) ip6(b []byte) ([]byte, bool) {
	p.ok = true
	p.src = address{binary.BigEndian.Uint64(b[8:]), binary.BigEndian.Uint64(b[16:]), true}
	p.dst = address{binary.BigEndian.Uint64(b[24:]), binary.BigEndian.Uint64(b[32:]), true}
	p.protocol, p.ttl = b[6], b[7]
	if b[0]>>4 != 6 {
		p.wrong = true
		return nil, false
	}
	p.payload = int(binary.BigEndian.Uint16(b[4:]))
	if p.payload == 0 && p.protocol == 0 { // a jumbogram
		p.payload = len(b) - 40
	}
	p.wrong = len(b) < 40+p.payload || p.ttl == 0 || p.src == p.dst
	p.length = uint32(40 + p.payload)
	return p.extensions(b[40:])
}

func extension(protocol uint8) bool {
	switch protocol {
	case 0, 43, protoFragment, 51, 60, 135, 139, 140:
		return true
	}
	return false
}

func (p *fields) extensions(b []byte) ([]byte, bool) {
	fragmented := false
	for range 8 {
		if !extension(p.protocol) {
			return b, true
		}
		if len(b) < 8 || p.payload < 8 {
			p.wrong = true
			return nil, false
		}
		kind, size := p.protocol, (int(b[1])+1)*8
		switch kind {
		case protoFragment:
			size = 8
		case 51:
			size = (int(b[1]) + 2) * 4
		}
		if len(b) < size || p.payload < size {
			p.wrong = true
			return nil, false
		}
		fragment := binary.BigEndian.Uint16(b[2:])
		p.protocol, p.payload, b = b[0], p.payload-size, b[size:]
		if kind == protoFragment && !fragmented && fragment&0xfff9 != 0 {
			fragmented = true
			if !p.mark(int(fragment&0xfff8), fragment&1 != 0) {
				return nil, false
			}
		}
	}
	p.wrong = p.wrong || extension(p.protocol)
	return b, !extension(p.protocol)
}

// transport reads the layer 4 header at the beginning of b.
func (p *fields) transport(b []byte) {
	fits := min(len(b), p.payload)
	switch p.protocol {
	case protoTCP:
		if fits < 20 {
			p.wrong = true
			return
		}
		p.tcp(b, fits)
	case protoUDP:
		if fits < 8 {
			p.wrong = true
			return
		}
		p.ports, p.sport, p.dport = true, binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
		length := int(binary.BigEndian.Uint16(b[4:]))
		p.wrong = p.wrong || length < 8 || length > p.payload && p.fragment == 0
		p.data = p.payload - 8
	case protoICMP, protoICMPv6:
		p.wrong = p.wrong || fits < 8
	}
}

func (p *fields) tcp(b []byte, fits int) {
	p.ports, p.sport, p.dport = true, binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
	p.dataOffset, p.flags = b[12]>>4, b[13]
	p.window = binary.BigEndian.Uint16(b[14:])
	if header := int(p.dataOffset) * 4; header < 20 || header > fits {
		p.wrong = true
	} else {
		p.data = p.payload - header
	}
	pair := p.flags & (flagFIN | flagSYN | flagRST)
	p.wrong = p.wrong || p.flags&0x3f == 0 || pair&(pair-1) != 0 || p.flags&(flagFIN|flagACK) == flagFIN
}
