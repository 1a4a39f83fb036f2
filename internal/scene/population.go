// SPDX-License-Identifier: Apache-2.0

package scene

import (
	"math"

	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// Population is where clients come from. Everything about a client follows from its
// number and the seed, so that a population costs no memory however large it is.
type Population struct {
	Size     int     // clients that are about at the same time
	Fresh    float64 // share of flows by clients never seen before
	Networks int     // prefixes they live in: IPv4 /20, IPv6 /40, the first ones with most of them
	NATs     int     // addresses that many clients share
	NATShare float64 // of flows that come from one of them
}

// DefaultPopulation is that of a service with n clients about.
func DefaultPopulation(n int) Population {
	return Population{Size: n, Fresh: .02, Networks: max(8, int(math.Sqrt(float64(n))*4)), NATs: max(1, n/200), NATShare: .12}
}

// client is one sender as its packets show it.
type client struct {
	addr address
	ttl  uint8
	port uint16 // of its next flow
	nat  bool
}

// people draws clients of a population.
type people struct {
	Population
	seed  uint64
	fresh uint64 // clients never seen so far; their numbers are behind Size
}

func newPeople(p Population, seed uint64) *people {
	p.Size, p.Networks, p.NATs = max(p.Size, 1), max(p.Networks, 1), max(p.NATs, 1)
	return &people{Population: p, seed: seed}
}

// draw returns the sender of a new flow, IPv6 or not. Few clients begin many of the flows.
func (p *people) draw(r *rng, six bool) client {
	if r.chance(p.NATShare) {
		c := p.client(traffic.HashMix(uint64(r.intn(p.NATs))+1), six)
		c.ttl = hops(r.next(), c.ttl) // behind a NAT are systems of all kinds
		c.port, c.nat = uint16(r.between(1024, 65535)), true
		return c
	}
	n := uint64(float64(p.Size) * math.Pow(r.float(), 1.7))
	if r.chance(p.Fresh) {
		p.fresh++
		n = uint64(p.Size) + p.fresh
	}
	c := p.client(n<<8, six)
	if c.ttl > 64 {
		c.port = uint16(r.between(49152, 65535))
	} else {
		c.port = uint16(r.between(32768, 60999))
	}
	return c
}

// client returns the client of a number.
func (p *people) client(n uint64, six bool) client {
	h := traffic.HashMix(p.seed ^ n*gamma)
	u := float64(h>>40) / (1 << 24)
	network := uint64(float64(p.Networks) * u * u * u)
	c := client{addr: p.home(network, six), ttl: initialTTL(h)}
	// The distance is the network's, give or take one.
	c.ttl -= uint8(5+traffic.HashMix(p.seed+network)%18) + uint8(h>>8&1)
	if !six {
		c.addr.lo += h >> 16 & 0xfff
		return c
	}
	c.addr.hi += h >> 8 & 0xffffff // a /64 of its own
	c.addr.lo = traffic.HashMix(h)
	return c
}

// initialTTL is that of the client's system: phones and Linux, Windows, few others.
func initialTTL(h uint64) uint8 {
	switch h & 0xff % 20 {
	case 0:
		return 255
	case 1, 2, 3, 4, 5, 6, 7, 8:
		return 128
	}
	return 64
}

// hops takes a TTL for another system at the same distance.
func hops(h uint64, ttl uint8) uint8 {
	start := uint8(255)
	switch {
	case ttl <= 64:
		start = 64
	case ttl <= 128:
		start = 128
	}
	return initialTTL(h) - (start - ttl)
}

// home is a prefix of the population: IPv4 /20, IPv6 /40.
func (p *people) home(network uint64, six bool) address {
	h := traffic.HashMix(p.seed + gamma*(network+1))
	if six {
		return address{hi: 0x2a00<<48 | h>>16&0x0fff_ffff_ff00_0000, six: true}
	}
	return address{lo: unicast4(h) &^ 0xfff}
}

// unicast4 turns a random number into a public IPv4 address.
func unicast4(h uint64) uint64 {
	for {
		a := h >> 32
		switch first := a >> 24; {
		case first == 0, first == 10, first == 127, first >= 224,
			a>>20 == 172<<4|1, a>>16 == 192<<8|168, a>>16 == 169<<8|254, a>>22 == 100<<2|1,
			a>>8 == 192<<16|2, a>>8 == 198<<16|51<<8|100, a>>8 == 203<<16|113:
			h = traffic.HashMix(h + gamma)
		default:
			return a
		}
	}
}

// random6 turns a random number into a global IPv6 address.
func random6(r *rng) address {
	return address{0x2000<<48 | r.next()>>3, r.next(), true}
}
