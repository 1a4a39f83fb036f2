// SPDX-License-Identifier: Apache-2.0

package scene

import (
	"math"
	"time"
)

// Arrival is the process by which flows begin.
type Arrival uint8

// The arrival processes, from the smoothest to the most bursty.
const (
	Poisson     Arrival = iota // independent clients
	Markov                     // Poisson whose rate jumps between three levels, every few seconds
	SelfSimilar                // of sources whose busy and idle times are heavy-tailed: bursts at every scale
	numArrivals
)

// String returns poisson, markov or self_similar.
func (a Arrival) String() string {
	return [...]string{"poisson", "markov", "self_similar"}[a%numArrivals]
}

// tide is the rate of a process over time, as a factor with mean 1.
type tide struct {
	arrival Arrival
	rng     rng
	level   float64
	until   int64   // the level holds until then
	sources []int64 // of SelfSimilar: when each changes; negative: busy until then
}

const (
	tideSources = 40
	tideStep    = int64(100 * time.Millisecond)
	tidePareto  = 1.4 // of busy and idle times: a Hurst parameter of 0.8
)

func newTide(a Arrival, seed uint64) *tide {
	t := &tide{arrival: a, rng: newRNG(seed, "tide"), level: 1, until: math.MaxInt64}
	switch a {
	case Markov:
		t.until = 0
	case SelfSimilar:
		t.until = 0
		for range tideSources {
			t.sources = append(t.sources, t.change(t.rng.chance(.5), 0))
		}
	}
	return t
}

// at returns the factor at that time, and until when it holds. Time does not go backwards.
func (t *tide) at(now int64) (float64, int64) {
	for t.until <= now {
		from := t.until
		if t.arrival == Markov {
			t.level = pick(&t.rng, .6, .9, 1.5)
			t.until = from + int64(t.rng.exp()*4e9)
		} else {
			t.level = t.busy(from)
			t.until = from + tideStep
		}
	}
	return t.level, t.until
}

// busy counts the busy sources.
func (t *tide) busy(now int64) float64 {
	n := 0
	for i, s := range t.sources {
		for ; max(s, -s) <= now; s = t.sources[i] {
			t.sources[i] = t.change(s > 0, max(s, -s))
		}
		if s < 0 {
			n++
		}
	}
	return float64(n) * 2 / tideSources
}

// change begins a busy or idle time of 1 s on average.
func (t *tide) change(busy bool, now int64) int64 {
	end := now + 1 + int64(min(t.rng.pareto(tidePareto), 300)*1e9)
	if busy {
		return -end
	}
	return end
}

// Week is how traffic follows the hour of the week.
type Week struct {
	Swing   float64 // busiest hour over quietest of a day; ≤ 1: flat
	Weekend float64 // of Saturday and Sunday over other days; 0: 1
}

const hoursOfWeek = 168

// factors returns the factor of every hour from Monday 0:00 on, with mean 1.
func (w Week) factors() (f [hoursOfWeek]float64) {
	deep := 0.0
	if w.Swing > 1 {
		deep = (w.Swing - 1) / (w.Swing + 1)
	}
	sum := 0.0
	for i := range f {
		h := float64(i % 24)
		f[i] = 1 + deep*math.Cos(2*math.Pi*(h-20)/24)
		if w.Weekend > 0 && i >= 5*24 {
			f[i] *= w.Weekend
		}
		sum += f[i]
	}
	for i := range f {
		f[i] *= hoursOfWeek / sum
	}
	return f
}

// season is a Week laid on the clock of a scene.
type season struct {
	hours [hoursOfWeek]float64
	first time.Duration // of the week, when the scene begins
}

// at returns the factor, on a straight line from one hour to the next.
func (s *season) at(clock int64) float64 {
	hour := (float64(s.first) + float64(clock)) / float64(time.Hour)
	whole, part := math.Modf(hour)
	i := int(whole) % hoursOfWeek
	return s.hours[i]*(1-part) + s.hours[(i+1)%hoursOfWeek]*part
}

// Surge is an additional crowd: nothing until From, then over Ramp up to its height, which holds for Hold, and down again over Ramp.
type Surge struct {
	From, Ramp, Hold time.Duration
}

// at returns the share of the height, 0 to 1.
func (s Surge) at(now int64) float64 {
	t := time.Duration(now) - s.From
	if after := t - s.Ramp - s.Hold; after > 0 {
		t = s.Ramp - after
	}
	switch {
	case t < 0:
		return 0
	case t >= s.Ramp:
		return 1
	}
	return float64(t) / float64(s.Ramp)
}
