// SPDX-License-Identifier: Apache-2.0

package model

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// noon is when the tests' time begins.
var noon = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

func newCalm(t testing.TB, p CalmParams) *Calm {
	t.Helper()
	c, err := NewCalm(p)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// calmScore looks like a forest's scores of normal windows.
func calmScore(r *rand.Rand) float64 { return 0.45 + 0.03*r.NormFloat64() }

func TestCalmIsTheQuantile(t *testing.T) {
	for _, quantile := range []float64{0.5, 0.9, 0.99, 0.999} {
		c := newCalm(t, CalmParams{Quantile: quantile, MaxRise: 10})
		r := rand.New(rand.NewPCG(1, 1))
		var all []float64
		for i := range 20_000 {
			all = append(all, calmScore(r))
			c.Add(all[i], 1, noon.Add(time.Duration(i)*100*time.Millisecond))
		}
		slices.Sort(all)
		want := all[int(quantile*float64(len(all)))]
		got, armed := c.Threshold()
		if !armed || math.Abs(got-want) > 2.0/calmBins {
			t.Errorf("quantile %g: %.4f (armed %v), exactly %.4f", quantile, got, armed, want)
		}
	}
}

func TestCalmIsNotArmedEarly(t *testing.T) {
	c := newCalm(t, CalmParams{})
	r := rand.New(rand.NewPCG(1, 1))
	for i := range 1999 {
		c.Add(calmScore(r), 1, noon)
		c.Add(math.NaN(), 1, noon)
		c.Add(0.5, 0, noon)
		if _, armed := c.Threshold(); armed || c.Over(1) {
			t.Fatalf("armed after %d windows", i+1)
		}
	}
	c.Add(0.45, 0.5, noon)
	if _, armed := c.Threshold(); armed {
		t.Error("armed after 1999.5 windows")
	}
	c.Add(0.45, 1, noon)
	if threshold, armed := c.Threshold(); !armed || !c.Over(0.9) || c.Over(0.45) || c.Over(math.NaN()) {
		t.Errorf("after 2000 windows: %.3f, armed %v", threshold, armed)
	}
}

// TestCalmRisesSlowlyAndFallsAtOnce: the former is what an attacker wants.
func TestCalmRisesSlowlyAndFallsAtOnce(t *testing.T) {
	c := newCalm(t, CalmParams{Memory: 10_000, MaxRise: 0.05})
	at := noon
	feed := func(score float64, hours float64) float64 {
		ticks := int(hours * 36_000)
		for range ticks {
			at = at.Add(100 * time.Millisecond)
			c.Add(score, 1, at)
		}
		threshold, _ := c.Threshold()
		return threshold
	}
	low := feed(0.4, 0.1)
	risen := feed(0.9, 1)
	if risen < low*1.04 || risen > low*1.06 {
		t.Errorf("an hour of 0.9: from %.4f to %.4f, want 5 %% more", low, risen)
	}
	at = at.Add(1000 * time.Hour) // a gap, or the clock was set
	if jumped := feed(0.9, 0.01); jumped > risen*1.06 {
		t.Errorf("a jump of the clock: from %.4f to %.4f", risen, jumped)
	}
	at = noon // back
	before, _ := c.Threshold()
	if after := feed(0.9, 0.01); after > before*1.001 {
		t.Errorf("the clock set back: from %.4f to %.4f", before, after)
	}
	c.Forget(0)
	if fallen := feed(0.3, 0.1); fallen > 0.31 {
		t.Errorf("after low scores: %.4f", fallen)
	}
}

func TestCalmForgets(t *testing.T) {
	c := newCalm(t, CalmParams{Memory: 4000})
	for range 100_000 {
		c.Add(0.5, 1, noon)
	}
	if c.mass > 4000 || c.Windows() != 100_000 {
		t.Errorf("mass %v, windows %v", c.mass, c.Windows())
	}
}

func TestCalmRestores(t *testing.T) {
	a := newCalm(t, CalmParams{})
	r := rand.New(rand.NewPCG(1, 1))
	for range 5000 {
		a.Add(calmScore(r), 1, noon)
	}
	b := newCalm(t, CalmParams{})
	if err := b.restore(a.state()); err != nil {
		t.Fatal(err)
	}
	for range 1000 {
		score := calmScore(r)
		a.Add(score, 1, noon)
		b.Add(score, 1, noon)
	}
	if x, _ := a.Threshold(); !b.armed || math.Abs(b.threshold-x) > 1e-3 {
		t.Errorf("threshold %v, restored %v", x, b.threshold)
	}
	strict := newCalm(t, CalmParams{Windows: 20_000})
	if err := strict.restore(a.state()); err != nil || strict.armed {
		t.Errorf("error %v, armed %v after fewer windows than it takes", err, strict.armed)
	}
}

func TestCalmRefuses(t *testing.T) {
	for name, change := range map[string]func(*calmState){
		"bins":      func(s *calmState) { s.Bins = s.Bins[:5] },
		"negative":  func(s *calmState) { s.Bins[3] = -1 },
		"NaN":       func(s *calmState) { s.Bins[3] = float32(math.NaN()) },
		"huge":      func(s *calmState) { s.Bins[3], s.Bins[4], s.Bins[5] = 1e7, 1e7, 1e7 },
		"windows":   func(s *calmState) { s.Windows = math.Inf(1) },
		"threshold": func(s *calmState) { s.Threshold = 1.1 },
		"no scores": func(s *calmState) { s.Armed = true },
	} {
		c := newCalm(t, CalmParams{})
		s := c.state()
		change(s)
		if err := c.restore(s); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	for _, p := range []CalmParams{
		{Quantile: 1}, {Quantile: math.NaN()}, {Windows: 0.5}, {Windows: 1e9, Memory: 1e9}, {MaxRise: -1}, {Memory: 100},
	} {
		if _, err := NewCalm(p); err == nil {
			t.Errorf("%+v: accepted", p)
		}
	}
}
