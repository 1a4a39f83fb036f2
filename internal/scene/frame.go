// SPDX-License-Identifier: Apache-2.0

package scene

import (
	"encoding/binary"
	"net/netip"
)

// The protocols and TCP flags that frames are built of.
const (
	protoICMP     = 1
	protoTCP      = 6
	protoUDP      = 17
	protoGRE      = 47
	protoESP      = 50
	protoFragment = 44
	protoICMPv6   = 58

	flagFIN = 1
	flagSYN = 2
	flagRST = 4
	flagPSH = 8
	flagACK = 16
	flagURG = 32
)

const (
	etherSize = 14
	minFrame  = 60   // what Ethernet pads to, without the FCS
	maxIP     = 1500 // bytes of an IP packet
	mtuData4  = maxIP - 20
	mtuData6  = maxIP - 40
)

// address is an IP address as numbers; IPv4 in the lower half of lo.
type address struct {
	hi, lo uint64
	six    bool
}

func addressOf(a netip.Addr) address {
	if a.Is4() {
		b := a.As4()
		return address{lo: uint64(binary.BigEndian.Uint32(b[:]))}
	}
	b := a.As16()
	return address{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:]), true}
}

func (a address) sum() uint64 {
	return a.hi>>32 + a.hi&0xffffffff + a.lo>>32 + a.lo&0xffffffff
}

func (a address) put(b []byte) {
	if !a.six {
		binary.BigEndian.PutUint32(b, uint32(a.lo))
		return
	}
	binary.BigEndian.PutUint64(b, a.hi)
	binary.BigEndian.PutUint64(b[8:], a.lo)
}

// header is what a frame is built from.
type header struct {
	src, dst     address // of one family
	ttl          uint8
	protocol     uint8
	length       int // IP length, at most maxIP; raised to what the headers need
	id           uint32
	df, more     bool
	offset       int // of a later fragment in bytes, a multiple of 8
	whole        int // of a first fragment: bytes of the whole datagram with its layer 4 header
	sport, dport uint16

	seq, ack   uint32 // TCP from here
	flags      uint8
	dataOffset uint8 // in words
	window     uint16

	kind, code uint8  // ICMP; id and sequence are sport and dport
	prefix     []byte // first bytes of the data, an even number
	fill       int    // where in the filler the data behind the prefix begin: even, < fillers
	zero       bool   // zeros instead
}

// Data come from a block of random bytes whose sums are known, so that a checksum costs
// the same whatever it covers.
const (
	fillers   = 1 << 13 // places where data can begin
	fillBytes = fillers + 1<<13
)

var (
	filler  [fillBytes]byte
	fillSum [fillBytes/2 + 1]uint32 // of the 16-bit words in front
)

func init() {
	r := newRNG(1, "filler")
	for i := 0; i < fillBytes; i += 8 {
		binary.BigEndian.PutUint64(filler[i:], r.next())
	}
	for i := range fillBytes / 2 {
		fillSum[i+1] = fillSum[i] + uint32(binary.BigEndian.Uint16(filler[2*i:]))
	}
}

// sumOf adds up n bytes of filler from an even place on.
func sumOf(from, n int) uint64 {
	s := uint64(fillSum[(from+n)/2] - fillSum[from/2])
	if n%2 == 1 {
		s += uint64(filler[from+n-1]) << 8
	}
	return s
}

func sumBytes(b []byte) (s uint64) {
	for len(b) >= 4 {
		s += uint64(binary.BigEndian.Uint32(b))
		b = b[4:]
	}
	switch len(b) {
	case 3:
		s += uint64(b[0])<<8 + uint64(b[1]) + uint64(b[2])<<8
	case 2:
		s += uint64(binary.BigEndian.Uint16(b))
	case 1:
		s += uint64(b[0]) << 8
	}
	return s
}

// fold returns the checksum whose words add up to s.
func fold(s uint64) uint16 {
	s = s>>32 + s&0xffffffff
	s = s>>16 + s&0xffff
	s = s>>16 + s&0xffff
	s = s>>16 + s&0xffff
	return ^uint16(s)
}

// builder makes frames in a buffer of its own.
type builder struct {
	buf [etherSize + maxIP]byte
}

// build returns the frame of h, valid until the next. Lengths, checksums and padding are right.
func (b *builder) build(h *header) []byte {
	f := b.buf[:]
	copy(f, "\x02\x00\x00\x00\x00\x01\x02\x00\x00\x00\x00\x02")
	ip := 20
	if h.src.six {
		ip = 40
		if h.more || h.offset > 0 {
			ip = 48
		}
	}
	l4 := h.layer4()
	total := min(max(h.length, ip+l4), maxIP)
	if h.more { // all but the last fragment carry a multiple of 8
		total -= (total - ip) % 8
	}
	if h.src.six {
		b.ip6(h, total)
	} else {
		b.ip4(h, total)
	}
	b.data(h, etherSize+ip+l4, etherSize+total)
	if l4 > 0 {
		b.transport(h, f[etherSize+ip:etherSize+total], l4)
	}
	n := etherSize + total
	for n < minFrame {
		f[n] = 0
		n++
	}
	return f[:n]
}

// layer4 is the length of the layer 4 header.
func (h *header) layer4() int {
	switch {
	case h.offset > 0:
		return 0
	case h.protocol == protoTCP:
		return int(max(h.dataOffset, 5)) * 4
	case h.protocol == protoUDP, h.protocol == protoICMP, h.protocol == protoICMPv6:
		return 8
	}
	return 0
}

func (b *builder) ip4(h *header, total int) {
	f := b.buf[etherSize-2:]
	binary.BigEndian.PutUint16(f, 0x0800)
	f = f[2:]
	fragment := uint16(h.offset / 8)
	if h.df {
		fragment |= 0x4000
	}
	if h.more {
		fragment |= 0x2000
	}
	binary.BigEndian.PutUint64(f, 0x4500<<48|uint64(total)<<32|uint64(uint16(h.id))<<16|uint64(fragment))
	f[8], f[9] = h.ttl, h.protocol
	h.src.put(f[12:16])
	h.dst.put(f[16:20])
	sum := 0x4500 + uint64(total) + uint64(uint16(h.id)) + uint64(fragment) +
		uint64(h.ttl)<<8 + uint64(h.protocol) + h.src.lo + h.dst.lo
	binary.BigEndian.PutUint16(f[10:], fold(sum))
}

func (b *builder) ip6(h *header, total int) {
	f := b.buf[etherSize-2:]
	binary.BigEndian.PutUint16(f, 0x86dd)
	f = f[2:]
	binary.BigEndian.PutUint32(f, 6<<28|h.id&0xfffff)
	binary.BigEndian.PutUint16(f[4:], uint16(total-40))
	f[6], f[7] = h.protocol, h.ttl
	h.src.put(f[8:])
	h.dst.put(f[24:])
	if !h.more && h.offset == 0 {
		return
	}
	f[6] = protoFragment
	f[40], f[41] = h.protocol, 0
	fragment := uint16(h.offset)
	if h.more {
		fragment |= 1
	}
	binary.BigEndian.PutUint16(f[42:], fragment)
	binary.BigEndian.PutUint32(f[44:], h.id)
}

// data fills buf[from:to] with the data of the packet.
func (b *builder) data(h *header, from, to int) {
	if from >= to {
		return
	}
	d := b.buf[from:to]
	if h.zero {
		clear(d)
		return
	}
	n := 0
	if h.offset == 0 {
		n = copy(d, h.prefix)
		copy(d[n:], filler[h.fill:])
		return
	}
	at := h.fill + h.offset - 8 - len(h.prefix)
	copy(d, filler[at&(fillers-1):]) // more than a datagram of 4 KiB comes round
}

// dataSum adds up n bytes of data from the datagram's beginning on.
func (h *header) dataSum(n int) uint64 {
	if h.zero {
		return 0
	}
	p := min(n, len(h.prefix))
	return sumBytes(h.prefix[:p]) + sumOf(h.fill, n-p)
}

// transport writes the layer 4 header of l4 bytes at the beginning of t.
func (b *builder) transport(h *header, t []byte, l4 int) {
	whole := len(t)
	if h.more && h.whole > 0 {
		whole = h.whole
	}
	pseudo := h.src.sum() + h.dst.sum() + uint64(h.protocol) + uint64(whole)
	if h.protocol == protoICMP {
		pseudo = 0
	}
	sumAt := 2
	switch h.protocol {
	case protoTCP:
		sumAt = 16
		h.tcp(t, l4)
	case protoUDP:
		sumAt = 6
		binary.BigEndian.PutUint64(t, uint64(h.sport)<<48|uint64(h.dport)<<32|uint64(whole)<<16)
	default:
		binary.BigEndian.PutUint64(t, uint64(h.kind)<<56|uint64(h.code)<<48|uint64(h.sport)<<16|uint64(h.dport))
	}
	sum := fold(pseudo + sumBytes(t[:l4]) + h.dataSum(whole-l4))
	if sum == 0 && h.protocol == protoUDP {
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(t[sumAt:], sum)
}

func (h *header) tcp(t []byte, l4 int) {
	binary.BigEndian.PutUint16(t, h.sport)
	binary.BigEndian.PutUint16(t[2:], h.dport)
	binary.BigEndian.PutUint32(t[4:], h.seq)
	binary.BigEndian.PutUint32(t[8:], h.ack)
	t[12], t[13] = uint8(l4/4)<<4, h.flags
	binary.BigEndian.PutUint16(t[14:], h.window)
	binary.BigEndian.PutUint32(t[16:], 0)
	if l4 > 20 {
		h.options(t[20:l4])
	}
}

// The options of common stacks' SYNs, by length in words: of BSD, old Windows, Windows, Linux, macOS.
var synOptions = [11]string{
	1: "\x02\x04\x05\xb4",
	2: "\x02\x04\x05\xb4\x01\x01\x04\x02",
	3: "\x02\x04\x05\xb4\x01\x03\x03\x08\x01\x01\x04\x02",
	5: "\x02\x04\x05\xb4\x04\x02\x08\x0a\x00\x00\x00\x00\x00\x00\x00\x00\x01\x03\x03\x07",
	6: "\x02\x04\x05\xb4\x01\x03\x03\x06\x01\x01\x08\x0a\x00\x00\x00\x00\x00\x00\x00\x00\x04\x02\x00\x00",
}

// options fills o, whose length is a multiple of 4 up to 40, with what stacks send at that length.
func (h *header) options(o []byte) {
	stamp := 2
	if known := synOptions[len(o)/4]; h.flags&flagSYN != 0 && known != "" {
		copy(o, known)
		stamp = [11]int{5: 6, 6: 10}[len(o)/4]
	} else {
		for i := range o {
			o[i] = 1 // no operation
		}
		if len(o) < 12 {
			return
		}
		copy(o[2:], "\x08\x0a")
	}
	if stamp > 0 { // of TCP time stamps, by where the option begins
		binary.BigEndian.PutUint32(o[stamp+2:], h.seq>>8)
		binary.BigEndian.PutUint32(o[stamp+6:], h.ack>>8)
	}
}
