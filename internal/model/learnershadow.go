// SPDX-License-Identifier: Apache-2.0

package model

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// Shadow is the training of a forest that may replace the live one. It shares
// nothing with its Learner and may run on another goroutine.
type Shadow struct {
	params    LearnerParams
	rows      [][]float32 // calm windows of the last day, oldest first
	weight    float64     // windows that they stand for
	live      *Forest
	threshold float64
	armed     bool
}

// Candidate is a forest that was trained in the shadow, with what it is judged by.
type Candidate struct {
	Forest        *Forest
	Threshold     float64
	Live          *Forest // nil: there is none yet
	LiveThreshold float64 // +Inf while not armed
	Calm          [][]float32

	calm *Calm
}

// Shadow returns the training of a new forest when one is due: the first, once
// enough calm windows were learnt; then after a drift, and every Refresh without.
// Otherwise it returns nil. Whoever takes it must give the outcome to Take.
func (l *Learner) Shadow(now time.Time) *Shadow {
	if l.forest != nil && l.trained.IsZero() {
		l.trained = now // it was read from a file
	}
	since := now.Sub(l.trained)
	switch {
	case l.stats.Learnt < l.p.Calm.Windows || len(l.keep.at) < 2*l.p.Forest.Sample:
		return nil
	case since >= 0 && since < l.p.Cooldown && l.round > 0:
		return nil
	case !l.due && since >= 0 && since < l.p.Refresh:
		return nil
	}
	s := &Shadow{
		params: l.p, rows: copyRows(l.keep.rows()), live: l.forest,
		weight: min(l.stats.Learnt, l.p.Calm.Memory, l.keep.stride*float64(len(l.keep.at))),
	}
	s.threshold, s.armed = l.calm.Threshold()
	s.params.Forest.Seed += l.round
	l.due, l.trained = false, now
	l.round++
	return s
}

func copyRows(rows [][]float32) [][]float32 {
	rows = slices.Clone(rows)
	for i := range rows {
		rows[i] = slices.Clone(rows[i])
	}
	return rows
}

// Train trains a forest on every other window, takes its threshold from the same,
// and lets accept judge it. A candidate is returned only if accept does not object;
// NotWorse is what it should ask for. Takes some tens of milliseconds.
func (s *Shadow) Train(accept func(*Candidate) error) (*Candidate, error) {
	var learn, judge [][]float32
	for i, row := range s.rows {
		if i%2 == 0 {
			learn = append(learn, row)
		} else {
			judge = append(judge, row)
		}
	}
	forest, err := TrainForest(learn, s.params.Forest)
	if err != nil {
		return nil, err
	}
	c := &Candidate{Forest: forest, Live: s.live, LiveThreshold: math.Inf(1), Calm: judge}
	if s.armed && s.live != nil {
		c.LiveThreshold = s.threshold
	}
	if err := s.calibrate(c, learn); err != nil {
		return nil, err
	}
	if err := accept(c); err != nil {
		return nil, fmt.Errorf("the new forest is not taken: %w", err)
	}
	return c, nil
}

// calibrate gives a candidate its threshold. Above the live one it is by no more
// than an hour's rise: retraining is no way round that limit.
func (s *Shadow) calibrate(c *Candidate, rows [][]float32) (err error) {
	if c.calm, err = NewCalm(s.params.Calm); err != nil {
		return err
	}
	for _, row := range rows {
		c.calm.count(c.Forest.Score(row), s.weight/float64(len(rows)))
	}
	c.Threshold = min(c.calm.quantile(), c.LiveThreshold*(1+s.params.Calm.MaxRise))
	return nil
}

// FalseAlarms returns the share of the calm windows of the last day that are over
// the thresholds, among windows the candidate was not trained on.
func (c *Candidate) FalseAlarms() (candidate, live float64) { return c.over(c.Calm) }

// Recall returns the share of attack windows over the thresholds.
func (c *Candidate) Recall(attacks [][]float32) (candidate, live float64) { return c.over(attacks) }

func (c *Candidate) over(rows [][]float32) (candidate, live float64) {
	if len(rows) == 0 {
		return 0, 0
	}
	for _, row := range rows {
		if c.Forest.Score(row) > c.Threshold {
			candidate++
		}
		if c.Live != nil && c.Live.Score(row) > c.LiveThreshold {
			live++
		}
	}
	n := float64(len(rows))
	return candidate / n, live / n
}

// NotWorse says why the candidate must not replace the live forest: it finds less
// of the attacks, or raises more false alarms. Nothing is worse than no forest.
func (c *Candidate) NotWorse(attacks [][]float32) error {
	if c.Live == nil || math.IsInf(c.LiveThreshold, 1) {
		return nil
	}
	if mine, live := c.Recall(attacks); mine < live {
		return fmt.Errorf("it finds %.1f %% of the attack windows, the live one %.1f %%", 100*mine, 100*live)
	}
	if mine, live := c.FalseAlarms(); mine > live {
		return fmt.Errorf("it raises an alarm in %.2f %% of the calm windows, the live one in %.2f %%", 100*mine, 100*live)
	}
	return nil
}

// Take makes a Candidate the live model; nil says that the Shadow's was refused, and
// another is due after the cool-down.
func (l *Learner) Take(c *Candidate) {
	if c == nil {
		l.stats.Rejected++
		l.due = true
		return
	}
	l.stats.Adopted++
	calm := *c.calm
	calm.windows = max(l.calm.windows, l.stats.Learnt)
	calm.threshold, calm.armed, calm.at = c.Threshold, calm.windows >= calm.p.Windows, l.guard.last
	l.forest, l.calm = c.Forest, &calm
	l.drift.Reset()
}
