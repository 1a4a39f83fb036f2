// SPDX-License-Identifier: Apache-2.0

package detect

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// Extractor keeps what features need of each target, and makes them. A tick is
//
//	if x.Begin(start, length) {
//		for each window {
//			if t := x.Observe(&window); t != nil {
//				t.Features(vector)
//				t.Settle(calm)
//			}
//		}
//	}
//
// It is not safe for concurrent use.
type Extractor struct {
	most    int
	tracks  map[traffic.Target]*Track
	sources *memory
	idle    []*Track // scratch: tracks that may give way, the longest quiet one last

	tick  int64     // number of the present tick; of the last one, if they are several
	span  int64     // how many they are
	prior int64     // tick before the last Begin
	start time.Time // of the first
	next  time.Time // when the tick after them begins
	known [128]bool // by tick number: whether the tick was observed at all

	frame frame // of the target observed last
	stats ExtractorStats
}

// ExtractorStats counts what was out of order, since the extractor was made.
type ExtractorStats struct {
	Targets    int    // tracked now
	Recycled   uint64 // targets that gave way to others
	Refused    uint64 // windows of targets that found no place
	Duplicates uint64 // ticks and windows that had been seen already
	Missing    uint64 // ticks that never came
	Jumps      uint64 // times the clock went back
}

// quietTicks is how long a target must be silent before another may take its place.
// One that had no window in the last tick is not watched any more: its place is free at once.
const quietTicks = keptTicks

// NewExtractor makes one for at most that many targets, at least one.
func NewExtractor(targets int) *Extractor {
	targets = max(1, targets)
	return &Extractor{
		most:    targets,
		tracks:  make(map[traffic.Target]*Track),
		sources: newMemory(),
		tick:    keptTicks, // so that there is a past to be unknown
	}
}

// Stats returns what was out of order so far.
func (x *Extractor) Stats() ExtractorStats {
	s := x.stats
	s.Targets = len(x.tracks)
	return s
}

// Begin starts the tick whose windows start at that time and have that length:
// a tick, or several when the caller fell behind. It returns false for one that
// came already; its windows are to be left out. Ticks that never came are
// unknown, not silent. After a step of the clock backwards the tick counts as
// the one after the last.
func (x *Extractor) Begin(start time.Time, length time.Duration) bool {
	span, prior := min(max(1, ticksIn(length)), maxSpan), x.tick
	if !x.next.IsZero() {
		late := start.Sub(x.next)
		switch missed := ticksIn(late); {
		case missed > 0:
			x.stats.Missing += uint64(missed)
			x.pass(min(missed, maxSpan), false)
		case missed == 0:
		case missed >= -x.span:
			x.stats.Duplicates++
			return false
		default:
			x.stats.Jumps++
		}
	}
	x.span, x.prior = span, prior
	x.pass(span, true)
	x.start, x.next = start, start.Add(time.Duration(span)*traffic.Tick)
	x.idle = x.idle[:0]
	return true
}

// maxSpan bounds how many ticks pass at once: after more, nothing is left of
// what was before anyway.
const maxSpan = 10 * keptTicks

// ticksIn rounds a length to ticks.
func ticksIn(d time.Duration) int64 {
	return int64(math.Round(float64(d) / float64(traffic.Tick)))
}

// pass lets ticks pass.
func (x *Extractor) pass(n int64, observed bool) {
	for range n {
		x.tick++
		x.known[x.tick%int64(len(x.known))] = observed
	}
	x.sources.advance(n)
}

// Track is what is kept of one target.
type Track struct {
	Target  traffic.Target
	x       *Extractor
	key     uint64 // of its sources in the memory
	last    int64  // tick up to which it is filled
	seen    int64  // tick of its last window
	first   int64  // tick it appeared in
	visible int64  // last tick in which anything was counted
	frozen  int64  // ticks for which Learnable has said no
	settled int64  // second of the last Settle
	calm    bool   // all of it so far
	samples uint32 // learnt from

	slides    sliding
	fadeOne   fading
	fadeTen   fading
	reference reference
	baseline  baseline
	openings  openings

	watch  watch  // of a Detector
	ranges ranges // within which features lie in calm times; nil at first
	held   bool   // must not be recycled: its incident is open
}

// Find returns the track of a target, nil if there is none.
func (x *Extractor) Find(t traffic.Target) *Track { return x.tracks[t] }

// Observe takes a window of the present tick. It returns nil if the target has
// no place or had a window in this tick already. Features and Settle are about
// the target observed last, whose window must stay as it is until Settle.
func (x *Extractor) Observe(w *traffic.Window) *Track {
	t := x.track(w.Target)
	if t == nil {
		x.stats.Refused++
		return nil
	}
	if t.last >= x.tick || t.seen >= x.tick {
		x.stats.Duplicates++
		return nil
	}
	t.seen = x.tick
	t.catchUp(x.tick - x.span)
	t.take(w)
	return t
}

// stillTicks is after how much silence one more silent tick changes nothing of a
// target but what catchUp makes up for: no second with packets is left to learn,
// none that may have been too much, and no SYN whose answer is due.
const stillTicks = 4 * ticksPerSecond

// still reports whether the window is one more silent one of such a target, and
// takes note of it. It is not to be observed.
func (t *Track) still(w *traffic.Window) bool {
	x := t.x
	if w.Packets != 0 || w.Bytes != 0 || w.Counted != 0 ||
		x.tick-x.span-t.visible < stillTicks || t.last >= x.tick || t.seen >= x.tick {
		return false
	}
	t.seen = x.tick
	return true
}

// silent is a window without packets.
var silent traffic.Window

// Idle lets the present tick pass for a target without a window: it was silent.
// Targets that are neither observed nor idled catch up when they are seen again.
func (t *Track) Idle() {
	if t.last < t.x.tick {
		t.catchUp(t.x.tick - t.x.span)
		t.take(&silent)
	}
}

func (x *Extractor) track(target traffic.Target) *Track {
	if t := x.tracks[target]; t != nil {
		return t
	}
	var t *Track
	if len(x.tracks) < x.most {
		t = new(Track)
	} else if t = x.recycle(); t == nil {
		return nil
	}
	*t = Track{Target: target, x: x, key: targetKey(target), last: x.tick - x.span, seen: x.tick - x.span, first: x.tick, visible: x.tick}
	x.tracks[target] = t
	return t
}

// recycle takes the place of the target that has had no window for the longest, or
// else of the one that has been silent for the longest.
func (x *Extractor) recycle() *Track {
	if len(x.idle) == 0 {
		for _, t := range x.tracks {
			gone, quiet := t.seen < x.prior, x.tick-t.visible > quietTicks
			if (gone || quiet) && !t.held && t.seen < x.tick {
				x.idle = append(x.idle, t)
			}
		}
		// By target among equals, so that a replay has the same ones.
		slices.SortFunc(x.idle, func(a, b *Track) int {
			return cmp.Or(cmp.Compare(b.seen, a.seen), cmp.Compare(b.visible, a.visible), compareTargets(a.Target, b.Target))
		})
		if len(x.idle) == 0 {
			return nil
		}
	}
	t := x.idle[len(x.idle)-1]
	x.idle = x.idle[:len(x.idle)-1]
	delete(x.tracks, t.Target)
	x.stats.Recycled++
	return t
}

// catchUp fills the ticks up to one with silence, where they were observed.
func (t *Track) catchUp(to int64) {
	missed := to - t.last
	if missed <= 0 {
		return
	}
	t.fade(t.last, to)
	var silence slot
	for at := max(t.last+1, to-keptTicks+1); at <= to; at++ {
		silence.ticks = 0
		if t.x.known[at%int64(len(t.x.known))] {
			silence.ticks = 1
		}
		t.slides.push(at, &silence)
	}
	t.last = to
}

// fade takes the fading histograms from one tick to another.
func (t *Track) fade(from, to int64) {
	t.fadeOne.fadeSteps(to - from)
	t.fadeTen.fadeSteps(to/ticksPerSecond - from/ticksPerSecond)
}

// take stores a window of the present tick.
func (t *Track) take(w *traffic.Window) {
	x := t.x
	f := &x.frame
	f.of, f.looked = t, false
	f.window = w
	now := &f.counts[spanTick]
	now.set(&w.Tally)
	t.countSamples(w, now)
	if w.Packets > 0 || w.Bytes > 0 || w.Counted > 0 {
		t.visible = x.tick
	}
	t.fade(t.last, x.tick)
	var part slot
	for i := max(0, x.span-keptTicks); i < x.span; i++ {
		part.part(now, uint64(i), uint64(x.span))
		t.slides.push(x.tick-x.span+1+i, &part)
	}
	t.last = x.tick
	now.ticks = uint64(x.span)
	if w.Packets > 0 || w.Counted > 0 {
		t.fadeOne.add(&w.Histograms)
		t.fadeTen.add(&w.Histograms)
	}
	t.slides.lastSecond(&f.counts[spanSecond])
	t.slides.lastTen(&f.counts[spanTen])
	t.openings.keep(t.last, t.x.span, now)
}

// countSamples counts the sources that are new to the target.
func (t *Track) countSamples(w *traffic.Window, c *counts) {
	for i := range w.Samples {
		source := w.Samples[i].Source
		if !source.IsValid() {
			continue
		}
		host, net := sourceKeys(t.key, source)
		c.n[cSampled]++
		if !t.x.sources.knows(host) {
			c.n[cFresh]++
		}
		if !t.x.sources.knows(net) {
			c.n[cFreshNets]++
		}
	}
}

// When it is known which sources are new: after that much of a calm target.
const (
	noveltySamples = 200
	noveltyTicks   = 600
)

func (t *Track) noveltyKnown() bool {
	return t.samples >= noveltySamples && t.x.tick-t.first >= noveltyTicks
}

// Settle ends the tick of the target. If it was calm, its sources and, after a
// whole calm second, its rates and distributions are learnt.
func (t *Track) Settle(calm bool) {
	x := t.x
	if x.frame.of != t {
		return // another was observed since: its window is gone
	}
	if second := x.tick / ticksPerSecond; second != t.settled {
		t.settled, t.calm = second, true
	}
	t.calm = t.calm && calm
	if calm {
		t.learnSources()
	}
	complete := (x.tick+1)/ticksPerSecond > (x.tick+1-x.span)/ticksPerSecond
	if t.calm && complete && x.frame.counts[spanSecond].n[cPackets] > 0 {
		rates := t.rates()
		t.baseline.learn(x.start, &rates)
		t.reference.learn(&t.fadeOne)
	}
	x.frame.of, x.frame.window = nil, nil
}

func (t *Track) learnSources() {
	samples := t.x.frame.window.Samples
	for i := range samples {
		source := samples[i].Source
		if !source.IsValid() {
			continue
		}
		host, net := sourceKeys(t.key, source)
		t.x.sources.learn(host)
		t.x.sources.learn(net)
		if t.samples < math.MaxUint32 {
			t.samples++
		}
	}
}

// rates returns the last second as the baseline keeps it.
func (t *Track) rates() (x [numBaselines]float64) {
	s := &t.x.frame.counts[spanSecond]
	for i, n := range [numBaselines]uint64{
		bPackets: s.n[cPackets], bBytes: s.bytes, bTCP: s.n[cTCP], bUDP: s.n[cUDP],
		bICMP: s.n[cICMP], bSYN: s.n[cSYN], bAnswers: s.answers(),
	} {
		x[i] = logRate(float64(n) / s.seconds())
	}
	x[bSources] = t.look().sources
	return x
}
