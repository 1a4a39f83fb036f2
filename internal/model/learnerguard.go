// SPDX-License-Identifier: Apache-2.0

package model

import (
	"fmt"
	"math"
	"math/rand/v2"
	"time"
)

// guard holds windows back until they have proved calm, and limits what one source
// may teach.
type guard struct {
	hold  time.Duration
	width int

	// A ring of windows; slot i's row is rows[i*width:][:width].
	ring  []Window
	rows  []float32
	first int
	n     int
	last  time.Time // the newest window seen, calm or not

	source [sourceSlots]sourceLevel
	burst  float64 // weight × share that a source may teach at once
	refill float64 // and in an hour after that
}

// sourceSlots is how many sources are told apart; those that meet in a slot share.
const sourceSlots = 1024

// sourceLevel is a leaky bucket: what a source has taught and not yet lived down.
type sourceLevel struct {
	level float64
	at    time.Time
}

func newGuard(p LearnerParams) guard {
	n := int(p.Hold/p.Tick) + 2
	// An hour holds at most a full bucket and its refill: together the share.
	hour := p.SourceShare * float64(time.Hour/p.Tick)
	return guard{
		hold: p.Hold, width: len(p.Schema),
		ring: make([]Window, n), rows: make([]float32, n*len(p.Schema)),
		burst: hour / 2, refill: hour / 2,
	}
}

// push takes the next window, and returns how many were thrown away: all that are
// held when it is not calm (and it too), when time ran backwards, or when there was
// no window for longer than the calm that should have followed.
func (g *guard) push(w Window) (discarded int) {
	gap := w.At.Sub(g.last)
	broken := !g.last.IsZero() && (gap <= 0 || gap > g.hold)
	g.last = w.At
	if broken || !w.Calm {
		discarded = g.n
		g.n = 0
	}
	if !w.Calm {
		return discarded + 1
	}
	if g.n == len(g.ring) { // windows come faster than they should: the oldest goes
		g.first = (g.first + 1) % len(g.ring)
		g.n--
		discarded++
	}
	slot := (g.first + g.n) % len(g.ring)
	row := g.rows[slot*g.width:][:g.width]
	copy(row, w.Row)
	w.Row = row
	g.ring[slot] = w
	g.n++
	return discarded
}

// pop returns the oldest window if calm has followed it for long enough. Its row is
// good until the next push.
func (g *guard) pop(now time.Time) (Window, bool) {
	if g.n == 0 || now.Sub(g.ring[g.first].At) < g.hold {
		return Window{}, false
	}
	w := g.ring[g.first]
	g.first = (g.first + 1) % len(g.ring)
	g.n--
	return w, true
}

// weigh returns how much of a window may be learnt, 0…1, and charges its top source.
func (g *guard) weigh(w Window) float64 {
	share := w.Share
	if math.IsNaN(share) || share > 1 {
		share = 1
	}
	if share <= 0 {
		return 1
	}
	s := &g.source[w.Source%sourceSlots]
	if since := w.At.Sub(s.at).Hours(); since > 0 {
		s.level = max(0, s.level-g.refill*since)
	}
	s.at = w.At
	weight := max(0, min(1, (g.burst-s.level)/share))
	s.level += weight * share
	return weight
}

// sources lists what sources have taught and not lived down, by slot.
func (g *guard) sources() []sourceState {
	var list []sourceState
	for i, s := range g.source {
		if s.level > 0 {
			list = append(list, sourceState{i, s.level, s.at})
		}
	}
	return list
}

// restore takes over what sources returned.
func (g *guard) restore(list []sourceState) error {
	for _, s := range list {
		if s.Slot < 0 || s.Slot >= sourceSlots || !(s.Level >= 0 && s.Level <= math.MaxFloat32) {
			return fmt.Errorf("slot %d has the level %g", s.Slot, s.Level)
		}
		g.source[s.Slot] = sourceLevel{min(s.Level, g.burst), s.At}
	}
	return nil
}

// reservoir keeps rows of the last day, evenly: each learnt window with the
// probability weight/stride, where stride doubles whenever the rows are full.
type reservoir struct {
	width  int
	day    time.Duration
	source *rand.PCG // of random
	random *rand.Rand
	values []float32 // row i is values[i*width:][:width]
	at     []time.Time
	limit  int
	stride float64
}

func newReservoir(p LearnerParams) reservoir {
	source := rand.NewPCG(p.Seed, 1)
	return reservoir{
		width: len(p.Schema), day: p.Day, limit: p.Rows, stride: 1, source: source, random: rand.New(source),
	}
}

func (r *reservoir) add(w Window, weight float64) {
	r.expire(w.At)
	if r.random.Float64()*r.stride >= weight {
		return
	}
	if len(r.at) == r.limit {
		r.filter(func(int) bool { return r.random.Uint64()&1 == 0 })
		r.stride *= 2
	}
	r.values = append(r.values, w.Row...)
	r.at = append(r.at, w.At)
}

// expire drops what is older than a day, a sixteenth of the rows at a time.
func (r *reservoir) expire(now time.Time) {
	old := 0
	for old < len(r.at) && now.Sub(r.at[old]) > r.day {
		old++
	}
	if old == 0 || old < r.limit/16 && old < len(r.at) {
		return
	}
	r.filter(func(i int) bool { return i >= old })
	if len(r.at) < r.limit/4 {
		r.stride = max(1, r.stride/2) // fewer windows come than did
	}
}

// filter keeps the rows for which keep says so, in their order.
func (r *reservoir) filter(keep func(i int) bool) {
	n := 0
	for i := range r.at {
		if !keep(i) {
			continue
		}
		copy(r.values[n*r.width:], r.values[i*r.width:][:r.width])
		r.at[n] = r.at[i]
		n++
	}
	r.values, r.at = r.values[:n*r.width], r.at[:n]
}

// rows returns the rows, oldest first; they are good until the next add.
func (r *reservoir) rows() [][]float32 {
	rows := make([][]float32, len(r.at))
	for i := range rows {
		rows[i] = r.values[i*r.width:][:r.width]
	}
	return rows
}
