// SPDX-License-Identifier: Apache-2.0

package detect

import (
	"math"

	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// Impact says when a rate is worth a look: traffic below it is no attack that
// anybody would notice.
type Impact struct {
	Floor  float64 // packets/s of any kind above what is normal
	Factor float64 // times what is normal; at least 1
}

// DefaultImpact is that of the default configuration.
func DefaultImpact() Impact { return Impact{Floor: 200, Factor: 1.5} }

// excess is what a target gets above what is normal for it.
type excess struct {
	over    bool // the impact is reached, by any rate
	known   bool // there is a baseline to compare with
	guessed bool // there are only the few calm seconds since the target appeared
	packets float64
	rate    [numBaselines]float64 // per second, of the span
	normal  [numBaselines]float64 // per second; 0 while neither known nor guessed
	above   [numBaselines]float64 // of the two, never negative
}

// compared reports whether there is anything to compare with.
func (e *excess) compared() bool { return e.known || e.guessed }

// leaps reports whether a rate is so far above the few calm seconds so far that it
// is no part of what is normal, whatever the detectors say: traffic that starts grows by less.
func (e *excess) leaps() bool {
	return e.guessed && e.over && e.rate[bPackets] > leapFactor*max(e.normal[bPackets], 100)
}

// leapFactor is how many times the packets of a provisional baseline are a leap.
const leapFactor = 15

// guessFactor is how much more than usual a rate must have grown when what is
// normal was seen for a few seconds only: clients come in bursts.
const guessFactor = 2

// impactRates are those that may show an attack by themselves.
var impactRates = [...]int{bPackets, bTCP, bUDP, bICMP, bSYN}

// bytesPerPacket converts the floor for bytes: a flood of packets that large
// counts as the floor's number of packets.
const bytesPerPacket = 1000

// excess compares a span of the target that was observed last with its normal.
func (t *Track) excess(span int, limit Impact) (e excess) {
	f := &t.x.frame
	e.known, e.guessed = t.baseline.known(), t.baseline.guessed()
	if e.guessed {
		limit.Factor *= guessFactor
	}
	for i := range bSources {
		e.rate[i] = baselineRate(f, span, i)
		if math.IsNaN(e.rate[i]) {
			e.rate[i] = 0
		}
		if e.compared() {
			e.normal[i] = max(0, unlog(t.baseline.normal(i).centre))
		}
		e.above[i] = max(0, e.rate[i]-e.normal[i])
	}
	e.packets = e.above[bPackets]
	for _, i := range impactRates {
		e.over = e.over || e.above[i] >= limit.Floor && e.rate[i] >= limit.Factor*e.normal[i]
	}
	e.over = e.over || e.above[bBytes] >= limit.Floor*bytesPerPacket && e.rate[bBytes] >= limit.Factor*e.normal[bBytes]
	return e
}

// frozenTicks is how long a rate above the impact keeps a baseline from
// learning when no detector objects to it: after that it is the new normal, at
// the pace that baselines may rise.
const frozenTicks = 6000

// guessFrozenTicks is the same while there are only a few calm seconds to
// compare with: these may have been the quiet ones.
const guessFrozenTicks = 3 * ticksPerSecond

// Learnable reports whether the target, observed last, may learn from the
// present tick: its rates are within reach of what is normal. Settle takes it,
// unless a detector knows better. Training and the live engine share this rule.
func (t *Track) Learnable(limit Impact) bool {
	e := t.excess(spanTick, limit)
	if !e.compared() || !e.over && !t.overSecond(limit) {
		t.frozen = 0
		return true
	}
	t.frozen += t.x.span
	if e.guessed {
		return t.frozen > guessFrozenTicks
	}
	return t.frozen > frozenTicks
}

func (t *Track) overSecond(limit Impact) bool {
	e := t.excess(spanSecond, limit)
	return e.over
}

// Stream is what training does with a window: it fills v with the features and
// learns by the rule of Learnable. It returns false for a window out of place.
func (x *Extractor) Stream(w *traffic.Window, v Vector) bool {
	t := x.Observe(w)
	if t == nil {
		return false
	}
	t.Features(v)
	t.Settle(t.Learnable(DefaultImpact()))
	return true
}
