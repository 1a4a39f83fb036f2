// SPDX-License-Identifier: Apache-2.0

package model

import (
	"math"
	"math/rand/v2"
	"testing"
)

// TestADWINHistogram: sums of buckets are those of the values in them.
func TestADWINHistogram(t *testing.T) {
	a := NewADWIN(1e-9)
	r := rand.New(rand.NewPCG(1, 1))
	var values []float64
	for range 5000 {
		x := r.Float64()
		values = append(values, x)
		a.Add(x)
	}
	if a.Width() != len(values) {
		t.Fatalf("width %d of %d values", a.Width(), len(values))
	}
	mean, vary := 0.0, 0.0
	for _, x := range values {
		mean += x / float64(len(values))
	}
	for _, x := range values {
		vary += (x - mean) * (x - mean)
	}
	if math.Abs(a.Mean()-mean) > 1e-9 || math.Abs(a.vary-vary) > 1e-6 {
		t.Errorf("mean %v, variance sum %v; exactly %v, %v", a.Mean(), a.vary, mean, vary)
	}
	next := 0 // oldest value not seen in a bucket
	for i := a.used - 1; i >= 0; i-- {
		if a.rows[i].n > adwinBuckets {
			t.Errorf("%d buckets of 2^%d", a.rows[i].n, i)
		}
		for _, b := range a.rows[i].buckets[:a.rows[i].n] {
			sum := 0.0
			for range 1 << i {
				sum += values[next]
				next++
			}
			if math.Abs(b.sum-sum) > 1e-9 {
				t.Fatalf("a bucket of 2^%d has %v, its values %v", i, b.sum, sum)
			}
		}
	}
	if next != len(values) {
		t.Errorf("%d values in buckets, of %d", next, len(values))
	}
}

// TestADWINVariance: it is that of the values still in the window after a drop.
func TestADWINVariance(t *testing.T) {
	a := NewADWIN(0)
	r := rand.New(rand.NewPCG(2, 2))
	var values []float64
	drifts := 0
	for i := range 6000 {
		x := 0.2*r.Float64() + 0.3*float64(i/2000)
		values = append(values, x)
		if a.Add(x) {
			drifts++
		}
	}
	left := values[len(values)-a.Width():]
	if drifts < 2 || len(left) > 2500 {
		t.Fatalf("%d drifts, %d values left", drifts, len(left))
	}
	vary := 0.0
	for _, x := range left {
		vary += (x - a.Mean()) * (x - a.Mean())
	}
	if math.Abs(a.vary-vary) > 0.01*vary {
		t.Errorf("variance sum %.4f, exactly %.4f", a.vary, vary)
	}
}

// TestADWINStaysCalm: the paper's theorem 1: while the mean stays, a look takes
// chance for a drift with a probability of at most delta.
func TestADWINStaysCalm(t *testing.T) {
	const series, length = 30, 10_000
	for name, draw := range map[string]func(*rand.Rand) float64{
		"coin 0.1": func(r *rand.Rand) float64 { return coin(r, 0.1) },
		"coin 0.5": func(r *rand.Rand) float64 { return coin(r, 0.5) },
		"uniform":  func(r *rand.Rand) float64 { return r.Float64() },
		"scores":   calmScore,
		"constant": func(*rand.Rand) float64 { return 0.3 },
	} {
		for _, delta := range []float64{0.002, 0.05, 0.3} {
			r := rand.New(rand.NewPCG(3, 3))
			alarms := 0
			for range series {
				a := NewADWIN(delta)
				for range length {
					if a.Add(draw(r)) {
						alarms++
					}
				}
			}
			share := float64(alarms) / (series * length / adwinClock)
			if share > delta {
				t.Errorf("%s, delta %g: %d false alarms, %.4f of the looks", name, delta, alarms, share)
			}
			if delta == 0.002 && alarms > 1 {
				t.Errorf("%s: %d false alarms in %d series", name, alarms, series)
			}
		}
	}
}

func coin(r *rand.Rand, p float64) float64 {
	if r.Float64() < p {
		return 1
	}
	return 0
}

// TestADWINFindsSuddenDrift: of coins whose bias jumps after 5 000 throws.
func TestADWINFindsSuddenDrift(t *testing.T) {
	for _, c := range []struct {
		from, to float64
		within   int
	}{{0.2, 0.8, 64}, {0.2, 0.4, 500}, {0.5, 0.4, 2000}, {0.8, 0.2, 64}} {
		for seed := range uint64(20) {
			r := rand.New(rand.NewPCG(seed, 5))
			a := NewADWIN(0.002)
			for range 5000 {
				if a.Add(coin(r, c.from)) {
					t.Fatalf("%g: drift before there was one", c.from)
				}
			}
			found := 0
			for i := range c.within {
				if a.Add(coin(r, c.to)) {
					found = i + 1
					break
				}
			}
			if found == 0 {
				t.Errorf("from %g to %g, seed %d: not found within %d", c.from, c.to, seed, c.within)
				continue
			}
			for range 3000 {
				a.Add(coin(r, c.to))
			}
			if math.Abs(a.Mean()-c.to) > 0.05 || a.Width() > 6500 {
				t.Errorf("from %g to %g: mean %.3f of %d values afterwards", c.from, c.to, a.Mean(), a.Width())
			}
		}
	}
}

// TestADWINFollowsGradualDrift: a slope of 1/5000 a value is found, and the window
// stays short enough for its mean to follow.
func TestADWINFollowsGradualDrift(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 9))
	a := NewADWIN(0.002)
	for range 2000 {
		a.Add(coin(r, 0.1))
	}
	drifts := 0
	for i := range 4000 {
		if a.Add(coin(r, 0.1+0.8*float64(i)/4000)) {
			drifts++
		}
	}
	if drifts < 3 || a.Width() > 2000 || a.Mean() < 0.65 {
		t.Errorf("%d drifts; window %d, mean %.3f, the coin's 0.9", drifts, a.Width(), a.Mean())
	}
}

func TestADWINOddValues(t *testing.T) {
	a := NewADWIN(math.NaN())
	if a.delta != 0.002 || !math.IsNaN(a.Mean()) {
		t.Errorf("delta %v, mean %v", a.delta, a.Mean())
	}
	for _, x := range []float64{math.NaN(), math.Inf(1), math.Inf(-1), 5, -5} {
		a.Add(x)
	}
	if a.Width() != 4 || a.Mean() != 0.5 {
		t.Errorf("%d values, mean %v", a.Width(), a.Mean())
	}
	a.Reset()
	if a.Width() != 0 || a.delta != 0.002 {
		t.Errorf("after reset: %+v", a)
	}
	if n := testing.AllocsPerRun(1000, func() { a.Add(0.5) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkADWIN(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 1))
	a := NewADWIN(0)
	b.ReportAllocs()
	for b.Loop() {
		a.Add(calmScore(r))
	}
}
