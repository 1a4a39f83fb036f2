// SPDX-License-Identifier: Apache-2.0

package scene

import "github.com/sentinel-x/sentinel-x/internal/traffic"

// senders draws the source, the TTL and the IP identification of an attack packet.
type senders func(r *rng, h *header)

// spoofed senders are random addresses, of one machine or of many.
func spoofed(r *rng) senders {
	fixed := pick[uint8](r, 64, 128, 255, 255, 64) - uint8(r.between(4, 20))
	many := r.chance(.4) // machines, at different distances
	wild := r.chance(.15)
	return func(r *rng, h *header) {
		anywhere(r, h, 255)
		switch {
		case wild:
			h.ttl = uint8(r.between(30, 255))
		case many:
			h.ttl = fixed - uint8(r.intn(14))
		default:
			h.ttl = fixed
		}
	}
}

// spoofedNet senders are random addresses of one network.
func spoofedNet(r *rng) senders {
	bits := r.between(8, 16) // of the host part in IPv4
	net := address{lo: unicast4(r.next()) &^ (1<<bits - 1)}
	net6 := address{hi: random6(r).hi &^ 0xffff, six: true}
	ttl := pick[uint8](r, 64, 128, 255) - uint8(r.between(4, 20))
	return func(r *rng, h *header) {
		h.src, h.ttl, h.id = net, ttl, uint32(r.next())
		if h.dst.six {
			h.src = net6
			h.src.hi |= r.next() & 0xffff
			h.src.lo = r.next()
			return
		}
		h.src.lo |= r.next() & (1<<bits - 1)
	}
}

// botnet senders are n real machines, some much busier than others.
func botnet(r *rng, n int) senders {
	p := newPeople(Population{Size: n, Networks: max(1, n/3)}, r.next())
	skew := r.uniform(1, 2.5)
	return func(r *rng, h *header) {
		u := r.float()
		if skew > 1.7 {
			u *= u
		}
		c := p.client(uint64(u*float64(n)), h.dst.six)
		h.src, h.ttl, h.id = c.addr, c.ttl, uint32(r.next())
	}
}

// reflectors are n servers.
func reflectors(r *rng, n int) senders {
	p := newPeople(Population{Size: n, Networks: max(1, n/2)}, r.next())
	return func(r *rng, h *header) {
		c := p.client(uint64(r.intn(n)), h.dst.six)
		h.src, h.ttl, h.id = c.addr, c.ttl, uint32(r.next())
	}
}

// anySenders are spoofed or real, few or many.
func anySenders(r *rng) senders {
	switch r.intn(5) {
	case 0:
		return spoofedNet(r)
	case 1:
		return botnet(r, int(r.logUniform(1, 60)))
	case 2, 3:
		return botnet(r, int(r.logUniform(60, 20000)))
	}
	return spoofed(r)
}

// port draws how a flood chooses a port: one, a few, one after the other, or any.
func port(r *rng, usual ...uint16) func(r *rng) uint16 {
	switch r.intn(4) {
	case 0:
		return func(r *rng) uint16 { return uint16(r.next()) }
	case 1:
		n := uint16(r.next())
		return func(*rng) uint16 { n++; return n }
	}
	one := pick(r, usual...)
	if r.chance(.2) {
		one = uint16(r.next())
	}
	return func(*rng) uint16 { return one }
}

var attackedPorts = []uint16{80, 443, 443, 22, 53, 25565, 27015, 3074, 8080, 30120, 5060, 1194}

// sized draws how a flood chooses the bytes of data: one size, or a range of them.
func sized(r *rng, lo, hi int) func(r *rng) int {
	a := r.between(lo, hi)
	if r.chance(.6) {
		return func(*rng) int { return a }
	}
	b := r.between(a, hi)
	return func(r *rng) int { return r.between(a, b) }
}

// filled draws what a flood's data are: random, always the same, or zeros.
func filled(r *rng) func(r *rng, h *header) {
	switch r.intn(4) {
	case 0:
		return func(_ *rng, h *header) { h.zero = true }
	case 1:
		one := r.intn(fillers) &^ 1
		return func(_ *rng, h *header) { h.fill = one }
	}
	return func(r *rng, h *header) { h.fill = r.intn(fillers) &^ 1 }
}

// ipLength returns the IP length of a packet with that many bytes behind the IP header.
func (h *header) ipLength(rest int) int {
	if h.dst.six {
		return 40 + rest
	}
	return 20 + rest
}

// synVector is a SYN flood; dressed: with the options of a real stack.
func synVector(r *rng, from senders, dressed bool) vector {
	sport, dport := port(r, 1234, 5555, 31337), port(r, attackedPorts...)
	window := pick[uint16](r, 0, 512, 1024, 8192, 14600, 29200, 64240, 65535)
	anyWindow, df := r.chance(.25), r.chance(.4)
	offset := uint8(5)
	if dressed {
		offset, window, df = pick[uint8](r, 6, 7, 8, 10, 10, 11), pick[uint16](r, 8192, 14600, 29200, 64240, 65535), r.chance(.8)
	}
	data := 0
	if r.chance(.15) {
		data = r.between(1, 900)
	}
	fill := filled(r)
	return func(r *rng, h *header) bool {
		from(r, h)
		h.protocol, h.flags, h.dataOffset, h.df = protoTCP, flagSYN, offset, df
		h.sport, h.dport, h.seq, h.window = sport(r), dport(r), uint32(r.next()), window
		if anyWindow {
			h.window = uint16(r.next())
		}
		if data > 0 {
			h.length = h.ipLength(int(offset)*4 + data)
			fill(r, h)
		}
		return false
	}
}

// tcpVector is a flood of packets with these flags, outside of any connection.
func tcpVector(r *rng, from senders, flags uint8, most int) vector {
	sport, dport := port(r, 80, 443, 1234), port(r, attackedPorts...)
	window, anyWindow := pick[uint16](r, 0, 512, 501, 16384, 29200, 65535), r.chance(.35)
	offset, df := pick[uint8](r, 5, 5, 8), r.chance(.4)
	data := func(*rng) int { return 0 }
	if most > 0 && r.chance(.5) {
		data = sized(r, 1, most)
	}
	fill := filled(r)
	return func(r *rng, h *header) bool {
		from(r, h)
		h.protocol, h.flags, h.dataOffset, h.df = protoTCP, flags, offset, df
		h.sport, h.dport, h.seq, h.ack, h.window = sport(r), dport(r), uint32(r.next()), uint32(r.next()), window
		if anyWindow {
			h.window = uint16(r.next())
		}
		h.length = h.ipLength(int(offset)*4 + data(r))
		fill(r, h)
		return false
	}
}

// synackVector is what servers answer to SYNs in the target's name: SYN-ACKs, some RSTs.
func synackVector(r *rng, from senders) vector {
	rst := r.uniform(0, .2)
	dport := port(r, attackedPorts...)
	ports := [...]uint16{80, 443, 443, 22, 179, 25, 8080, 53}
	return func(r *rng, h *header) bool {
		from(r, h)
		p := newRNG(h.src.lo, "server") // the same server always answers alike
		h.protocol, h.df = protoTCP, p.chance(.8)
		h.sport, h.dport = ports[p.intn(len(ports))], dport(r)
		h.seq, h.ack = uint32(r.next()), uint32(r.next())
		h.flags, h.dataOffset, h.window = flagSYN|flagACK, pick[uint8](&p, 6, 6, 7, 10), pick[uint16](&p, 14600, 29200, 65535, 64240, 5840)
		if p.chance(rst) {
			h.flags, h.dataOffset, h.window = flagRST|flagACK, 5, 0
		}
		return false
	}
}

// udpVector is a UDP flood; reflects: its source port is that of a reflector.
func udpVector(r *rng, from senders) (v vector, reflects bool) {
	sport, dport := port(r, 1234, 53, 443, 40000), port(r, attackedPorts...)
	data, fill, df := sized(r, 0, 1400), filled(r), r.chance(.4)
	probe := *r // so that asking changes nothing
	fixed := sport(&probe)
	reflects = fixed == sport(&probe) && traffic.ReflectionOf(fixed) != traffic.ReflectionNone
	return func(r *rng, h *header) bool {
		from(r, h)
		h.protocol, h.df, h.sport, h.dport = protoUDP, df, sport(r), dport(r)
		h.length = h.ipLength(8 + data(r))
		fill(r, h)
		return false
	}, reflects
}

func icmpVector(r *rng, from senders) vector {
	data, fill := sized(r, 0, 1400), filled(r)
	kind, kind6 := pick[uint8](r, 8, 8, 8, 0, 3, 13), pick[uint8](r, 128, 128, 129, 1)
	return func(r *rng, h *header) bool {
		from(r, h)
		h.protocol, h.kind = protoICMP, kind
		if h.dst.six {
			h.protocol, h.kind = protoICMPv6, kind6
		}
		h.sport, h.dport = uint16(r.next()), uint16(r.next())
		h.length = h.ipLength(8 + data(r))
		fill(r, h)
		return false
	}
}

// otherVector is a flood of a protocol that is none of TCP, UDP and ICMP.
func otherVector(r *rng, from senders) vector {
	data, fill := sized(r, 8, 1400), filled(r)
	protocol := pick[uint8](r, protoGRE, protoGRE, protoESP, 4, 41, 89, 132, 255)
	all := r.chance(.2)
	return func(r *rng, h *header) bool {
		from(r, h)
		h.protocol = protocol
		if all {
			h.protocol = uint8(r.between(61, 254))
		}
		for extension(h.protocol) {
			h.protocol++
		}
		h.length = h.ipLength(data(r))
		fill(r, h)
		return false
	}
}

// fragmentVector is a flood of fragments that never make a datagram.
func fragmentVector(r *rng, from senders) vector {
	protocol := pick[uint8](r, protoUDP, protoUDP, protoTCP, protoICMP)
	data, fill := sized(r, 64, 1400), filled(r)
	first, last := r.uniform(0, .5), r.chance(.3)
	dport := port(r, attackedPorts...)
	return func(r *rng, h *header) bool {
		from(r, h)
		h.protocol, h.flags, h.dataOffset = protocol, flagACK, 5
		if h.dst.six && protocol == protoICMP {
			h.protocol = protoICMPv6
		}
		h.sport, h.dport = uint16(r.next()), dport(r)
		h.more = true
		h.length = h.ipLength(40 + data(r))
		fill(r, h)
		if !r.chance(first) {
			h.offset, h.more = 8*r.between(2, 4000), !last
		}
		return false
	}
}

// service is how one kind of reflector answers.
type service struct {
	name   string
	ports  []uint16
	lo, hi int    // bytes of data of an answer; above what fits a packet it comes in fragments
	sets   bool   // answers come in several packets of the same size
	head   string // first bytes of the data, an even number
}

var services = []service{
	{name: "dns", ports: []uint16{53}, lo: 400, hi: 4000, head: "\x00\x00\x81\x80\x00\x01\x00\x0a\x00\x00\x00\x01"},
	{name: "ntp", ports: []uint16{123}, lo: 440, hi: 440, sets: true, head: "\xd7\x00\x03\x2a\x00\x06\x00\x48"},
	{name: "snmp", ports: []uint16{161}, lo: 150, hi: 2800, head: "\x30\x82\x04\x00\x02\x01\x01\x04\x06public\xa2"},
	{name: "cldap", ports: []uint16{389}, lo: 1300, hi: 3300, head: "\x30\x84\x00\x00\x0b\x00\x02\x01\x01\x64"},
	{name: "ssdp", ports: []uint16{1900}, lo: 260, hi: 420, sets: true, head: "HTTP/1.1 200 OK\r\n\r\n\x00"},
	{name: "memcached", ports: []uint16{11211}, lo: 1300, hi: 1420, sets: true, head: "\x00\x00\x00\x00\x00\x01\x00\x00VALUE "},
	{name: "chargen", ports: []uint16{19}, lo: 72, hi: 3000, head: " !\"#$%&'()*+,-./"},
	{name: "isakmp", ports: []uint16{500, 4500}, lo: 100, hi: 420},
	{name: "rpc", ports: []uint16{111}, lo: 48, hi: 700, head: "\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00"},
	{name: "other", ports: []uint16{17, 69, 137, 520, 1194, 3283, 3389, 3702, 5353, 5683, 10001, 27015, 37810}, lo: 50, hi: 1400},
}

// amplificationVector is what reflectors of a service send to the target. Each has answers of
// its own size; long ones come in fragments.
func amplificationVector(r *rng, s service, from senders) vector {
	sport := pick(r, s.ports...)
	dport := port(r, attackedPorts...)
	sizes := sized(r, s.lo, s.hi)
	own := r.chance(.5) && !s.sets // each reflector has an answer of its own
	head := []byte(s.head)
	return func(r *rng, h *header) bool {
		if h.whole > 0 {
			return continueDatagram(h)
		}
		from(r, h)
		h.protocol, h.sport, h.dport = protoUDP, sport, dport(r)
		h.prefix, h.fill = head, r.intn(fillers/2)&^1
		data := sizes(r)
		if own {
			data = s.lo + int(traffic.HashMix(h.src.lo)%uint64(s.hi-s.lo+1))
		}
		h.length = h.ipLength(8 + data)
		if h.length > maxIP {
			h.whole, h.more, h.length = 8+data, true, maxIP
			return true
		}
		return false
	}
}

// continueDatagram makes the next fragment of h; true: there is another one.
func continueDatagram(h *header) bool {
	room, ip := mtuData4&^7, 20
	if h.src.six {
		room, ip = (mtuData6-8)&^7, 48
	}
	h.offset += room
	rest := h.whole - h.offset
	h.more = rest > room
	h.length = ip + min(rest, room)
	if !h.more {
		h.whole = 0
	}
	return h.more
}
