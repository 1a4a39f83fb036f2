// SPDX-License-Identifier: Apache-2.0

package model

import (
	"fmt"
	"math"
)

const (
	adwinBuckets = 5  // of one size; the oldest two become one of the next size
	adwinSizes   = 40 // 2^39 values and more: never full
	adwinClock   = 32 // values between two looks for a drift
	adwinSide    = 5  // values on each side of a cut, at least
)

// ADWIN watches the mean of values in 0…1 (Bifet and Gavaldà, 2007). It keeps a
// window that grows while the mean stays, and drops the old part when two parts of
// it differ by more than chance allows. The window is an exponential histogram: its
// memory is fixed, one look takes a logarithm of its width. Not safe for concurrent
// use.
type ADWIN struct {
	delta float64
	rows  [adwinSizes]adwinRow // row i: buckets of 2^i values
	used  int                  // rows that have buckets
	width float64
	sum   float64
	vary  float64 // sum of squared distances from the mean
	clock int
}

// adwinRow holds the buckets of one size, oldest first.
type adwinRow struct {
	n       int
	buckets [adwinBuckets + 1]adwinBucket
}

type adwinBucket struct{ sum, vary float64 }

// NewADWIN returns a detector that takes chance for a drift with a probability of
// at most delta, at each look; 0 is 0.002.
func NewADWIN(delta float64) *ADWIN {
	if !(delta > 0 && delta < 1) {
		delta = 0.002
	}
	return &ADWIN{delta: delta}
}

// Add takes the next value and says whether the mean has changed. Values outside
// 0…1 count as 0 or 1; a NaN is left out. It allocates nothing.
func (a *ADWIN) Add(x float64) (drift bool) {
	if math.IsNaN(x) {
		return false
	}
	x = max(0, min(1, x))
	a.insert(x)
	if a.clock++; a.clock < adwinClock {
		return false
	}
	a.clock = 0
	for a.cut() {
		drift = true
	}
	return drift
}

// Mean returns the mean of the window, NaN while it is empty.
func (a *ADWIN) Mean() float64 { return a.sum / a.width }

// Width returns how many values the window holds.
func (a *ADWIN) Width() int { return int(a.width) }

// Reset forgets every value.
func (a *ADWIN) Reset() { *a = ADWIN{delta: a.delta} }

func (a *ADWIN) insert(x float64) {
	if a.width > 0 {
		d := x - a.Mean()
		a.vary += d * d * a.width / (a.width + 1)
	}
	a.width++
	a.sum += x
	a.push(0, adwinBucket{sum: x})
}

// push appends a bucket to a row, and merges the two oldest when there are too many.
func (a *ADWIN) push(i int, b adwinBucket) {
	row := &a.rows[i]
	row.buckets[row.n] = b
	row.n++
	a.used = max(a.used, i+1)
	if row.n <= adwinBuckets || i == adwinSizes-1 {
		return
	}
	n := math.Exp2(float64(i))
	x, y := row.buckets[0], row.buckets[1]
	d := (x.sum - y.sum) / n
	copy(row.buckets[:], row.buckets[2:])
	row.n -= 2
	a.push(i+1, adwinBucket{x.sum + y.sum, x.vary + y.vary + d*d*n/2})
}

// cut drops the oldest bucket if somewhere the window's older part has another mean
// than the newer one.
func (a *ADWIN) cut() bool {
	if !a.differs() {
		return false
	}
	row := &a.rows[a.used-1]
	n := math.Exp2(float64(a.used - 1))
	old := row.buckets[0]
	copy(row.buckets[:], row.buckets[1:])
	row.n--
	for a.used > 0 && a.rows[a.used-1].n == 0 {
		a.used--
	}
	a.width -= n
	a.sum -= old.sum
	d := old.sum/n - a.Mean()
	a.vary = max(0, a.vary-old.vary-d*d*n*a.width/(n+a.width))
	return true
}

// differs walks the cuts between buckets, from the oldest.
func (a *ADWIN) differs() bool {
	if a.width < 2*adwinSide {
		return false
	}
	n, sum := 0.0, 0.0
	for i := a.used - 1; i >= 0; i-- {
		row := &a.rows[i]
		size := math.Exp2(float64(i))
		for _, b := range row.buckets[:row.n] {
			n += size
			sum += b.sum
			rest := a.width - n
			if rest < adwinSide {
				return false
			}
			if n >= adwinSide && math.Abs(sum/n-(a.sum-sum)/rest) > a.bound(n, rest) {
				return true
			}
		}
	}
	return false
}

// bound is by how much two means of n and m values may differ by chance: the paper's
// bound for a known variance, with delta shared among the cuts.
func (a *ADWIN) bound(n, m float64) float64 {
	harmonic := 1/n + 1/m
	confidence := math.Log(2 * math.Log(a.width) / a.delta)
	return math.Sqrt(2*harmonic*a.vary/a.width*confidence) + 2./3*harmonic*confidence
}

// adwinState is how an ADWIN is written, as a part of a learner's file: of each
// size, the smallest first, the sum and the squared distances of each bucket.
type adwinState struct {
	Buckets [][][2]float64 `json:"buckets"`
	Vary    float64        `json:"vary"`
}

func (a *ADWIN) state() *adwinState {
	s := &adwinState{Buckets: make([][][2]float64, a.used), Vary: a.vary}
	for i := range s.Buckets {
		s.Buckets[i] = make([][2]float64, a.rows[i].n)
		for k := range s.Buckets[i] {
			s.Buckets[i][k] = [2]float64{a.rows[i].buckets[k].sum, a.rows[i].buckets[k].vary}
		}
	}
	return s
}

// restore takes over what state returned; delta stays a's own.
func (a *ADWIN) restore(s *adwinState) error {
	if len(s.Buckets) > adwinSizes {
		return fmt.Errorf("buckets of %d sizes, at most %d", len(s.Buckets), adwinSizes)
	}
	b := ADWIN{delta: a.delta, vary: s.Vary}
	for i, row := range s.Buckets {
		if len(row) > adwinBuckets {
			return fmt.Errorf("%d buckets of size 2^%d, at most %d", len(row), i, adwinBuckets)
		}
		size := math.Exp2(float64(i))
		for _, v := range row {
			if !(v[0] >= 0 && v[0] <= size*(1+1e-9)) || !(v[1] >= 0 && v[1] <= size) {
				return fmt.Errorf("a bucket of 2^%d values has the sum %g and squared distances of %g", i, v[0], v[1])
			}
			b.rows[i].buckets[b.rows[i].n] = adwinBucket{v[0], v[1]}
			b.rows[i].n++
			b.width += size
			b.sum += v[0]
		}
		if len(row) > 0 {
			b.used = i + 1
		}
	}
	if !(b.vary >= 0 && b.vary <= b.width) {
		return fmt.Errorf("squared distances of %g among %g values", b.vary, b.width)
	}
	*a = b
	return nil
}
