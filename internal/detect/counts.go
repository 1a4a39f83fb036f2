// SPDX-License-Identifier: Apache-2.0

package detect

import (
	"math"

	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// The counters of a tally that features are made of, and what became of its samples.
const (
	cPackets = iota
	cTCP
	cUDP
	cICMP
	cOther
	cSYN
	cSYNNoOptions
	cSYNACK
	cACK
	cRST
	cFIN
	cData
	cFragments
	cMalformed
	cSampled // samples with a source address
	cFresh   // of them from a source that the target had not seen
	cFreshNets
	cSizes
	cReflections = cSizes + traffic.NumSizeClasses
	numCounts    = cReflections + int(traffic.NumReflections)
)

// counts is what one span of time held of one target.
type counts struct {
	ticks uint64 // how many ticks of the span are known
	bytes uint64
	n     [numCounts]uint64
}

func (c *counts) set(t *traffic.Tally) {
	c.bytes = t.Bytes
	c.n = [numCounts]uint64{
		cPackets: t.Packets, cTCP: t.TCP, cUDP: t.UDP, cICMP: t.ICMP, cOther: t.Other,
		cSYN: t.SYN, cSYNNoOptions: t.SYNNoOptions, cSYNACK: t.SYNACK, cACK: t.ACK,
		cRST: t.RST, cFIN: t.FIN, cData: t.TCPData,
		cFragments: t.Fragments, cMalformed: t.Malformed,
	}
	copy(c.n[cSizes:], t.Sizes[:])
	copy(c.n[cReflections:], t.Reflections[:])
}

// seconds returns the known length of the span.
func (c *counts) seconds() float64 { return float64(c.ticks) * traffic.Tick.Seconds() }

// rate returns a counter as events per second, NaN if nothing is known.
func (c *counts) rate(i int) float64 { return ratio(float64(c.n[i]), c.seconds()) }

// share returns a counter as a share of another.
func (c *counts) share(i, of int) float64 { return ratio(float64(c.n[i]), float64(c.n[of])) }

// reflected returns the packets from the source ports of reflectors.
func (c *counts) reflected() uint64 {
	var sum uint64
	for _, n := range c.n[cReflections+int(traffic.ReflectionDNS):] {
		sum += n
	}
	return sum
}

// answers returns the packets that only a peer sends that took part in a handshake.
func (c *counts) answers() uint64 { return c.n[cACK] + c.n[cData] + c.n[cFIN] }

// ratio is NaN where there is nothing to divide by: unknown, not 0.
func ratio(a, b float64) float64 {
	if b <= 0 {
		return math.NaN()
	}
	return a / b
}

// slot is counts in little memory; counters stop at their greatest value.
type slot struct {
	bytes uint64
	ticks uint32
	n     [numCounts]uint32
}

// part sets the slot to the i-th of k equal parts of c; the parts of all i sum up to c.
func (s *slot) part(c *counts, i, k uint64) {
	cut := func(n uint64) uint64 {
		whole, rest := n/k, n%k
		return whole + rest*(i+1)/k - rest*i/k
	}
	s.ticks, s.bytes = 1, cut(c.bytes)
	for j, n := range c.n {
		if n != 0 {
			n = cut(n)
		}
		s.n[j] = uint32(min(n, math.MaxUint32))
	}
}

func (s *slot) add(o *slot) {
	s.ticks += o.ticks
	s.bytes += o.bytes
	for i, n := range o.n {
		s.n[i] = uint32(min(uint64(s.n[i])+uint64(n), math.MaxUint32))
	}
}

func (c *counts) add(s *slot) {
	c.ticks += uint64(s.ticks)
	c.bytes += s.bytes
	for i, n := range s.n {
		c.n[i] += uint64(n)
	}
}

// The ticks of a second, and the seconds that are kept.
const (
	ticksPerSecond = 10
	keptSeconds    = 10
	keptTicks      = ticksPerSecond * keptSeconds
)

// sliding holds the last second tick by tick and the nine before it second by
// second. Ticks one by one for ten seconds would take 15 KiB a target.
type sliding struct {
	ticks   [ticksPerSecond]slot // by tick number
	seconds [keptSeconds]slot    // by second; that of the present one is not complete
}

// push stores the tick of the number at.
func (s *sliding) push(at int64, tick *slot) {
	s.ticks[at%ticksPerSecond] = *tick
	second := &s.seconds[at/ticksPerSecond%keptSeconds]
	if at%ticksPerSecond == 0 {
		*second = slot{}
	}
	second.add(tick)
}

// lastSecond sums up the last ten ticks.
func (s *sliding) lastSecond(c *counts) {
	*c = counts{}
	for i := range s.ticks {
		c.add(&s.ticks[i])
	}
}

// lastTen sums up the second at hand and the nine before it: 9.1 to 10 s.
func (s *sliding) lastTen(c *counts) {
	*c = counts{}
	for i := range s.seconds {
		c.add(&s.seconds[i])
	}
}
