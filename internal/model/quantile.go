// SPDX-License-Identifier: Apache-2.0

package model

import (
	"errors"
	"fmt"
	"math"
	"time"
)

const (
	calmBins    = 1024
	calmRefresh = 64 // scores between two looks at the quantile
)

// CalmParams says when a score is no longer normal. Zero values are the defaults.
type CalmParams struct {
	Quantile float64 // of the calm scores: 0.999
	Windows  float64 // weight of calm windows before there is a threshold: 2000
	MaxRise  float64 // share by which the threshold may rise in an hour: 0.02
	Memory   float64 // weight after which old scores count half: 864 000, a day of ticks
}

func (p CalmParams) withDefaults() CalmParams {
	setDefault(&p.Quantile, 0.999)
	setDefault(&p.Windows, 2000)
	setDefault(&p.MaxRise, 0.02)
	setDefault(&p.Memory, 864_000)
	return p
}

func setDefault[T float64 | int | time.Duration](v *T, value T) {
	if *v == 0 {
		*v = value
	}
}

func (p CalmParams) check() error {
	switch {
	case !(p.Quantile > 0 && p.Quantile < 1):
		return fmt.Errorf("the calm quantile is between 0 and 1, not %g", p.Quantile)
	case !(p.Windows >= 1 && p.Windows <= maxCalmWeight):
		return fmt.Errorf("a threshold needs 1 to %g calm windows, not %g", maxCalmWeight, p.Windows)
	case !(p.MaxRise > 0 && p.MaxRise <= 10):
		return fmt.Errorf("a threshold rises by 0 to 10 an hour, not %g", p.MaxRise)
	case !(p.Memory >= p.Windows && p.Memory <= maxCalmWeight):
		return fmt.Errorf("the memory is %g to %g windows, not %g", p.Windows, maxCalmWeight, p.Memory)
	}
	return nil
}

const maxCalmWeight = 1e7 // a float32 still counts in ones

// Calm is the threshold above which a score is no longer normal: a quantile of the
// scores of calm windows, to about 1/1024. It needs 4 KiB, whatever it has seen.
//
// Whoever can slip windows in wants the threshold up, so it falls at once but rises
// by at most MaxRise an hour. That is little on purpose: a forest's scores of normal
// windows and of floods lie only some tenths apart. Not safe for concurrent use.
type Calm struct {
	p         CalmParams
	bins      [calmBins]float32 // weight by score
	mass      float64           // of all bins
	windows   float64           // weight ever added
	threshold float64
	armed     bool
	at        time.Time // when the threshold was last set
	pending   int       // scores since
}

// NewCalm returns a threshold that has seen nothing.
func NewCalm(p CalmParams) (*Calm, error) {
	p = p.withDefaults()
	if err := p.check(); err != nil {
		return nil, err
	}
	return &Calm{p: p}, nil
}

// Add counts the score (0…1) of a calm window seen at now, with a weight of 0…1.
// A NaN is not counted.
func (c *Calm) Add(score, weight float64, now time.Time) {
	if math.IsNaN(score) || !(weight > 0) {
		return
	}
	c.count(score, min(weight, 1))
	if c.pending++; c.pending >= calmRefresh || !c.armed {
		c.refresh(now)
	}
}

func (c *Calm) count(score, weight float64) {
	bin := min(calmBins-1, int(max(0, min(1, score))*calmBins))
	c.bins[bin] += float32(weight)
	c.mass += weight
	c.windows += weight
	if c.mass > c.p.Memory {
		c.forget(0.5)
	}
}

// Forget lets what was seen so far count only as share (0…1) of its weight, after
// a drift. The threshold still rises no faster than it may.
func (c *Calm) Forget(share float64) { c.forget(max(0, min(1, share))) }

func (c *Calm) forget(share float64) {
	c.mass = 0
	for i := range c.bins {
		c.bins[i] *= float32(share)
		c.mass += float64(c.bins[i])
	}
}

// refresh sets the threshold once there are enough windows.
func (c *Calm) refresh(now time.Time) {
	if c.windows < c.p.Windows || c.mass <= 0 {
		return
	}
	c.pending = 0
	next := c.quantile()
	if c.armed {
		// A gap, or a clock that was set, buys no more than an hour's rise.
		hours := max(0, min(1, now.Sub(c.at).Hours()))
		next = min(next, c.threshold*(1+c.p.MaxRise*hours))
	}
	c.threshold, c.armed, c.at = next, true, now
}

// quantile looks the quantile up in the bins, as if scores were even within one.
func (c *Calm) quantile() float64 {
	left := c.p.Quantile * c.mass
	last := 0
	for i, weight := range c.bins {
		if weight <= 0 {
			continue
		}
		if left <= float64(weight) {
			return (float64(i) + left/float64(weight)) / calmBins
		}
		left -= float64(weight)
		last = i
	}
	return float64(last+1) / calmBins
}

// Threshold returns the threshold; it is not armed, and no score is over it, before
// there were enough calm windows.
func (c *Calm) Threshold() (threshold float64, armed bool) { return c.threshold, c.armed }

// Over says that score is higher than in calm windows.
func (c *Calm) Over(score float64) bool { return c.armed && score > c.threshold }

// Windows returns the weight of the calm windows counted so far.
func (c *Calm) Windows() float64 { return c.windows }

// calmState is how a Calm is written, as a part of a learner's file.
type calmState struct {
	Bins      []float32 `json:"bins"`
	Windows   float64   `json:"windows"`
	Threshold float64   `json:"threshold"`
	Armed     bool      `json:"armed"`
	At        time.Time `json:"at"`
}

func (c *Calm) state() *calmState {
	return &calmState{append([]float32{}, c.bins[:]...), c.windows, c.threshold, c.armed, c.at}
}

// restore takes over what state returned; the parameters stay c's own.
func (c *Calm) restore(s *calmState) error {
	if len(s.Bins) != calmBins {
		return fmt.Errorf("%d bins of scores, not %d", len(s.Bins), calmBins)
	}
	mass := 0.0
	for i, weight := range s.Bins {
		if !(weight >= 0 && weight <= maxCalmWeight) {
			return fmt.Errorf("bin %d weighs %g", i, weight)
		}
		mass += float64(weight)
	}
	switch {
	case mass > 2*maxCalmWeight:
		return fmt.Errorf("the bins weigh %g together", mass)
	case !(s.Windows >= 0 && s.Windows <= math.MaxInt64):
		return fmt.Errorf("%g windows", s.Windows)
	case !(s.Threshold >= 0 && s.Threshold <= 1):
		return fmt.Errorf("the threshold is %g, not 0 to 1", s.Threshold)
	case s.Armed && mass == 0:
		return errors.New("there is a threshold, but no scores to have it from")
	}
	copy(c.bins[:], s.Bins)
	c.mass, c.windows, c.threshold, c.at = mass, s.Windows, s.Threshold, s.At
	c.armed = s.Armed && c.windows >= c.p.Windows
	return nil
}
