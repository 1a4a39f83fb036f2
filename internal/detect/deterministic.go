// SPDX-License-Identifier: Apache-2.0

package detect

import (
	"fmt"
	"math"
)

// The deterministic layer needs neither model nor baseline. Its thresholds:
const (
	// malformedShare of the packets, and at least the floor of them a second,
	// contradict themselves: no stack sends such packets.
	malformedShare = 0.3
	// synFloor is the least number of SYNs a second to be a flood: a fast port
	// scan stays below.
	synFloor = 1000
	// cusumDrift is what unanswered SYNs may come to in a tick, in units of the
	// norm, before the sum rises; cusumAlarm is the sum from which they are a
	// flood, cusumMost where it stops, so that it falls again soon.
	cusumDrift = 0.5
	cusumAlarm = 1.5
	cusumMost  = 10
	// answerTicks is how long the answer to a SYN with options may take.
	answerTicks = 3
)

// findings is what the deterministic layer says of a window.
type findings struct {
	malformed, flooded bool
	limit              string // the rate over its limit, empty if none is
	cusum              float64
}

func (f *findings) any() bool { return f.malformed || f.flooded || f.limit != "" }

// reasons says it in words.
func (f *findings) reasons() (list []string) {
	if f.malformed {
		list = append(list, "impossible packets")
	}
	if f.flooded {
		list = append(list, "unanswered SYNs")
	}
	if f.limit != "" {
		list = append(list, fmt.Sprintf("%s over the target's limit", f.limit))
	}
	return list
}

// inspect applies the deterministic layer to the target observed last.
func (t *Track) inspect(s *Settings, e *excess) (f findings) {
	c := &t.x.frame.counts[spanTick]
	malformed := c.rate(cMalformed)
	f.malformed = malformed >= s.Impact.Floor && c.share(cMalformed, cPackets) >= malformedShare
	for _, limit := range []struct {
		name     string
		rate, of float64
	}{
		{"packets", e.rate[bPackets], s.Limits.Packets},
		{"bytes", e.rate[bBytes], s.Limits.Bytes},
		{"SYNs", e.rate[bSYN], s.Limits.SYN},
		{"UDP packets", e.rate[bUDP], s.Limits.UDP},
		{"ICMP packets", e.rate[bICMP], s.Limits.ICMP},
	} {
		if limit.of > 0 && limit.rate > limit.of && f.limit == "" {
			f.limit = limit.name
		}
	}
	f.cusum = t.sumUnanswered(e)
	f.flooded = f.cusum > cusumAlarm && e.rate[bSYN] >= synFloor
	return f
}

// sumUnanswered carries on the CUSUM of SYNs that nobody meant. One without
// options counts at once, for no stack sends it; any other counts when its
// answer is late. Both only above what is normal, and against them stands
// every packet above what is normal that may be part of a connection: each that
// is set up has one at least.
func (t *Track) sumUnanswered(e *excess) float64 {
	c := &t.x.frame.counts[spanTick]
	span := float64(t.x.span)
	bare := min(c.n[cSYNNoOptions], c.n[cSYN])
	due := c.n[cSYN] - bare
	if t.x.span == 1 {
		due = uint64(t.slides.optioned(t.last - answerTicks))
	}
	perTick := span / ticksPerSecond
	more := max(0, float64(bare)+float64(due)-e.normal[bSYN]*perTick)
	unanswered := more - e.above[bAnswers]*perTick
	norm := max(synFloor, e.normal[bSYN]) / ticksPerSecond
	sum := float64(t.watch.cusum) + unanswered/norm - cusumDrift*span
	t.watch.cusum = float32(min(cusumMost, max(0, sum)))
	if math.IsNaN(sum) {
		t.watch.cusum = 0
	}
	return float64(t.watch.cusum)
}

// optioned returns the SYNs with options of one of the last ten ticks.
func (s *sliding) optioned(at int64) uint32 {
	tick := &s.ticks[at%ticksPerSecond]
	return tick.n[cSYN] - min(tick.n[cSYN], tick.n[cSYNNoOptions])
}
