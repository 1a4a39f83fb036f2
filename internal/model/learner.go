// SPDX-License-Identifier: Apache-2.0

package model

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// LearnerParams says how a Learner learns. Zero values are the defaults.
type LearnerParams struct {
	Schema    Schema // names of a row's columns: needed
	Forest    ForestParams
	HalfSpace HalfSpaceParams
	Calm      CalmParams // of the forest's and the half-space trees' thresholds

	Hold        time.Duration // calm that must follow a window before it is learnt: 60 s
	Tick        time.Duration // time between windows: 100 ms
	SourceShare float64       // of what an hour of windows teaches, from one source: 0.2
	Day         time.Duration // age at which a window no longer counts for a forest: 24 h
	Rows        int           // windows of that day that are kept for training: 4096
	Cooldown    time.Duration // between two retrainings, at least: 1 h
	Refresh     time.Duration // between two retrainings without a drift: 6 h
	Delta       float64       // false alarms of the drift detector: 0.002
	Seed        uint64
}

func (p LearnerParams) withDefaults() LearnerParams {
	setDefault(&p.Hold, time.Minute)
	setDefault(&p.Tick, 100*time.Millisecond)
	setDefault(&p.SourceShare, 0.2)
	setDefault(&p.Day, 24*time.Hour)
	setDefault(&p.Rows, 4096)
	setDefault(&p.Cooldown, time.Hour)
	setDefault(&p.Refresh, 6*time.Hour)
	p.Calm = p.Calm.withDefaults()
	p.Forest = p.Forest.withDefaults()
	p.HalfSpace = p.HalfSpace.withDefaults()
	p.Forest.Schema, p.HalfSpace.Schema = p.Schema, p.Schema
	p.Forest.Seed, p.HalfSpace.Seed = p.Seed, p.Seed
	return p
}

func (p LearnerParams) check() error {
	if err := p.Forest.check(); err != nil {
		return err
	}
	if err := p.HalfSpace.check(len(p.Schema)); err != nil {
		return err
	}
	switch {
	case p.Tick <= 0 || p.Hold < p.Tick || p.Hold/p.Tick > maxHeld:
		return fmt.Errorf("windows every %v held back for %v: at most %d are held", p.Tick, p.Hold, maxHeld)
	case !(p.SourceShare > 0 && p.SourceShare <= 1):
		return fmt.Errorf("a source's share is between 0 and 1, not %g", p.SourceShare)
	case p.Rows < 2*p.Forest.Sample || p.Rows > maxLearnerRows:
		return fmt.Errorf("%d rows kept, not %d to %d", p.Rows, 2*p.Forest.Sample, maxLearnerRows)
	case p.Calm.Windows < float64(2*p.Forest.Sample):
		return fmt.Errorf("armed after %g windows, a forest needs %d", p.Calm.Windows, 2*p.Forest.Sample)
	case p.Cooldown < 0 || p.Refresh < p.Cooldown || p.Day <= 0:
		return fmt.Errorf("a day of %v, retraining after %v to %v", p.Day, p.Cooldown, p.Refresh)
	}
	return nil
}

const (
	maxHeld        = 10_000
	maxLearnerRows = 1 << 16
)

// Window is what a Learner sees of one window of a target.
type Window struct {
	At  time.Time // its end; windows come in order
	Row []float32 // features in the schema's order; copied

	// Calm says that no detector suspected anything. The Learner's own thresholds
	// alone are no suspicion: were what exceeds them left out, they would sink.
	Calm bool

	// Source is the number of the histogram bin of the window's top source and
	// Share its share of the packets, 0…1; NaN is taken for 1.
	Source uint32
	Share  float64
}

// Scores is what the learnt models say about a vector. A score that there is no
// model for is NaN, and over no threshold.
type Scores struct {
	Forest, HalfSpace                   float64
	ForestThreshold, HalfSpaceThreshold float64
	ForestArmed, HalfSpaceArmed         bool
}

// ForestOver says that the forest finds the vector unlike calm windows.
func (s Scores) ForestOver() bool { return s.ForestArmed && s.Forest > s.ForestThreshold }

// HalfSpaceOver says that the half-space trees find the vector unlike calm windows.
func (s Scores) HalfSpaceOver() bool { return s.HalfSpaceArmed && s.HalfSpace > s.HalfSpaceThreshold }

// LearnerStats counts what a Learner did with windows, and how often it retrained.
type LearnerStats struct {
	Held      int     // waiting for the calm that must follow
	Learnt    float64 // weight learnt
	Capped    float64 // weight not learnt: its top source had taught enough
	Discarded uint64  // windows before or in what was not calm, or with a broken clock
	Refused   uint64  // windows whose row was unusable
	Drifts    uint64
	Adopted   uint64
	Rejected  uint64 // candidates
}

// Learner adapts an isolation forest, half-space trees and their thresholds to one
// stream of windows, and keeps attacks from teaching them:
//
//   - a window is held back, and learnt only if it and everything in the time after
//     it was calm;
//   - its weight is cut when its top source has had its share of the hour;
//   - a threshold rises slowly (see Calm);
//   - a drift, found by ADWIN, makes the thresholds forget, and has a forest trained
//     in the shadow that must prove itself before it is taken (see Shadow).
//
// It is not safe for concurrent use; only a Shadow may run elsewhere. Without its
// models it needs 4 bytes for each of (Rows + Hold/Tick) × columns.
type Learner struct {
	p      LearnerParams
	forest *Forest
	half   *HalfSpace
	calm   *Calm // of the forest
	free   *Calm // of the half-space trees
	drift  *ADWIN
	guard  guard
	keep   reservoir
	stats  LearnerStats

	due     bool      // a forest should be trained
	trained time.Time // when the last Shadow was handed out
	round   uint64    // Shadows handed out
	forgot  time.Time // when a drift last made the thresholds forget
}

// NewLearner returns a learner that has seen nothing.
func NewLearner(p LearnerParams) (*Learner, error) {
	p = p.withDefaults()
	p.Schema = slices.Clone(p.Schema)
	if err := p.check(); err != nil {
		return nil, fmt.Errorf("new learner: %w", err)
	}
	calm, err := NewCalm(p.Calm)
	if err != nil {
		return nil, fmt.Errorf("new learner: %w", err)
	}
	free := *calm
	return &Learner{
		p: p, calm: calm, free: &free, drift: NewADWIN(p.Delta),
		guard: newGuard(p), keep: newReservoir(p), due: true,
	}, nil
}

// Observe takes the next window of the target, calm or not, and learns those held
// back that have proved calm by now.
func (l *Learner) Observe(w Window) {
	if !usable(w.Row, len(l.p.Schema)) {
		l.stats.Refused++
		return
	}
	l.stats.Discarded += uint64(l.guard.push(w))
	for {
		held, ok := l.guard.pop(w.At)
		if !ok {
			return
		}
		l.learn(held)
	}
}

// usable says that a row can be trained from. Unknown values are fine.
func usable(row []float32, width int) bool {
	if len(row) != width {
		return false
	}
	for _, v := range row {
		if math.IsInf(float64(v), 0) {
			return false
		}
	}
	return true
}

// learn teaches everything that adapts from one window.
func (l *Learner) learn(w Window) {
	weight := l.guard.weigh(w)
	l.stats.Capped += 1 - weight
	if weight <= 0 {
		return
	}
	l.stats.Learnt += weight
	l.keep.add(w, weight)
	if l.half != nil {
		l.free.Add(l.half.Score(w.Row), weight, w.At)
		l.half.Update(w.Row, weight)
	} else if l.stats.Learnt >= l.p.Calm.Windows {
		l.startHalfSpace()
	}
	if l.forest == nil {
		return
	}
	score := l.forest.Score(w.Row)
	l.calm.Add(score, weight, w.At)
	if l.drift.Add(score) {
		l.recalibrate(w.At)
	}
}

// startHalfSpace cuts the space that the windows so far lie in.
func (l *Learner) startHalfSpace() {
	half, err := NewHalfSpace(l.keep.rows(), l.p.HalfSpace)
	if err != nil {
		return // fewer than two rows are left of the last day: the next window tries again
	}
	for _, row := range l.keep.rows() {
		half.Update(row, 1)
	}
	l.half = half
}

// recalibrate: what was normal before the drift counts a tenth from now on, and a
// new forest is due. One change is found several times as it goes on; forgetting
// each time would leave nothing but what came last, and so please a poisoner.
func (l *Learner) recalibrate(at time.Time) {
	l.stats.Drifts++
	l.due = true
	if since := at.Sub(l.forgot); since >= 0 && since < l.p.Cooldown {
		return
	}
	l.forgot = at
	l.calm.Forget(0.1)
	l.free.Forget(0.1)
}

// Score says what the learnt models find. It allocates nothing.
func (l *Learner) Score(x []float32) Scores {
	s := Scores{Forest: math.NaN(), HalfSpace: math.NaN()}
	if l.forest != nil {
		s.Forest = l.forest.Score(x)
		s.ForestThreshold, s.ForestArmed = l.calm.Threshold()
	}
	if l.half != nil {
		s.HalfSpace = l.half.Score(x)
		s.HalfSpaceThreshold, s.HalfSpaceArmed = l.free.Threshold()
	}
	return s
}

// Armed says whether the forest has learnt enough for its score to count.
func (l *Learner) Armed() bool {
	_, armed := l.calm.Threshold()
	return armed && l.forest != nil
}

// Forest returns the live forest, nil before there is one.
func (l *Learner) Forest() *Forest { return l.forest }

// Stats returns what has been done so far.
func (l *Learner) Stats() LearnerStats {
	s := l.stats
	s.Held = l.guard.n
	return s
}
