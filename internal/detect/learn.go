// SPDX-License-Identifier: Apache-2.0

package detect

import (
	"cmp"
	"math"
	"slices"

	"github.com/sentinel-x/sentinel-x/internal/model"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// rangeTicks is how often a target learns what is normal of its features.
const rangeTicks = 2 * ticksPerSecond

// study teaches the models from the target observed last.
func (d *Detector) study(t *Track, j *judgement, calm bool) {
	follows := d.models.Learner != nil && d.models.Learner.Follows(t.Target)
	turn := calm && d.turn(t, rangeTicks)
	if !follows && !turn || t.x.frame.window.Packets == 0 {
		return
	}
	d.features(t)
	if turn {
		if t.ranges == nil {
			t.ranges = slices.Repeat(ranges{{unknownBound, unknownBound}}, NumFeatures())
		}
		t.ranges.learn(d.vector)
	}
	if follows {
		bin, share := t.fadeOne.topSource()
		d.models.Learner.Observe(t.Target, model.Window{
			At: d.now(), Row: d.vector, Calm: d.unsuspected(t, j), Source: bin, Share: share,
		})
	}
}

// unsuspected reports whether the target's own models may learn from a window: one
// below the impact, or a burst that trees were asked about and find benign. Normal
// traffic has a burst in most minutes, and would never be calm for long enough
// without it. That the models themselves find a window odd does not matter: without
// those they would find ever more so.
func (d *Detector) unsuspected(t *Track, j *judgement) bool {
	benign := !j.scored || j.trees == traffic.OpinionCalm
	return t.baseline.known() && t.watch.attack == nil && benign && !j.found.any() && j.found.cusum <= cusumAlarm
}

// topSource returns the fullest bin of the sources and its share, NaN without any.
func (f *fading) topSource() (bin uint32, share float64) {
	bins := f.bins[:traffic.SourceBins]
	for i, n := range bins {
		if n > bins[bin] {
			bin = uint32(i)
		}
	}
	return bin, ratio(float64(bins[bin]), float64(sum(bins)))
}

// ranges holds for each feature within which values calm windows lie: the
// extremes, which draw closer by a fiftieth with every window. Two bytes a
// bound, for they are only shown: the upper half of a float32.
type ranges []bounds

type bounds struct{ low, high uint16 }

// rangeStep is by how much of the distance a bound draws closer.
const rangeStep = 0.02

func (r ranges) learn(v Vector) {
	for i, x := range v {
		if x != x {
			continue
		}
		low, high := r[i].get()
		if low != low {
			low, high = x, x
		}
		low = min(x, low+(x-low)*rangeStep)
		high = max(x, high+(x-high)*rangeStep)
		r[i] = bounds{half(low, false), half(high, true)}
	}
}

// unknownBound is NaN.
const unknownBound = 0x7fc0

// get returns the bounds, NaN for a feature that was never known.
func (b bounds) get() (low, high float32) {
	return math.Float32frombits(uint32(b.low) << 16), math.Float32frombits(uint32(b.high) << 16)
}

// half keeps the upper half of a float32, rounded up or down in value.
func half(x float32, up bool) uint16 {
	bits := math.Float32bits(x)
	away := x >= 0 == up // from zero
	if away && bits&0xffff != 0 && bits>>16 != 0x7f7f && bits>>16 != 0xff7f {
		bits += 1 << 16
	}
	return uint16(bits >> 16)
}

// explanations is how many incidents are explained in a tick: trees take
// milliseconds for one.
const explanations = 2

// explain adds to incidents which features carried each model's vote.
func (d *Detector) explain() {
	n := min(explanations, len(d.waiting))
	for _, a := range d.waiting[:n] {
		d.explainOne(a)
		at := slices.IndexFunc(d.updates, func(u Update) bool { return u.Change == Opened && u.Incident.ID == a.ID })
		if at >= 0 {
			d.updates[at].Incident = a.copy()
		} else if a.Open() {
			d.updates = append(d.updates, Update{Changed, a.copy()})
		}
	}
	d.waiting = append(d.waiting[:0], d.waiting[n:]...)
}

func (d *Detector) explainOne(a *attack) {
	out := make([]float32, NumFeatures())
	for i := range a.Votes {
		v := &a.Votes[i]
		if v.Opinion == traffic.OpinionAbsent || v.Opinion == traffic.OpinionUnsure {
			continue
		}
		switch {
		case v.Detector == "trees" && d.models.Trees != nil:
			d.models.Trees.Explain(a.vector, a.class, out)
		case v.Detector == "forest" && d.models.Forest != nil:
			d.models.Forest.Explain(a.Target, a.vector, out)
		case v.Detector == "online" && d.models.Online != nil:
			d.models.Online.Explain(a.Target, a.vector, out)
		default:
			continue
		}
		v.Features = a.track.evidence(a.vector, out)
	}
	a.vector = nil
}

// evidence returns the five features that contributed most towards an attack.
func (t *Track) evidence(v Vector, contributions []float32) []traffic.Evidence {
	order := make([]int, len(contributions))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		return cmp.Compare(contributions[b], contributions[a]) // NaN comes last
	})
	var list []traffic.Evidence
	for _, i := range order[:min(5, len(order))] {
		if !(contributions[i] > 0) {
			break
		}
		e := traffic.Evidence{
			Name: definitions[i].name, Value: traffic.Float(v[i]), Contribution: traffic.Float(contributions[i]),
			Low: traffic.Float(math.NaN()), High: traffic.Float(math.NaN()),
		}
		if t.ranges != nil {
			low, high := t.ranges[i].get()
			e.Low, e.High = traffic.Float(low), traffic.Float(high)
		}
		list = append(list, e)
	}
	return list
}
