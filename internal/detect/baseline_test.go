// SPDX-License-Identifier: Apache-2.0

package detect

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

// teach feeds a baseline with one rate for all, seconds long.
func teach(b *baseline, at time.Time, seconds int, rate func(i int) float64) time.Time {
	for i := range seconds {
		var x [numBaselines]float64
		for j := range x {
			x[j] = logRate(rate(i))
		}
		b.learn(at, &x)
		at = at.Add(time.Second)
	}
	return at
}

func constant(rate float64) func(int) float64 { return func(int) float64 { return rate } }

func normalRate(b *baseline) float64 { return unlog(b.normal(bPackets).centre) }

func TestBaselineIsUnknownAtFirst(t *testing.T) {
	var b baseline
	teach(&b, epoch, provisionalKnown-1, constant(1000))
	if b.known() || b.guessed() || !math.IsNaN(b.normal(bPackets).centre) {
		t.Errorf("after %d s the normal rate is %g", provisionalKnown-1, normalRate(&b))
	}
	teach(&b, epoch.Add(provisionalKnown*time.Second), recentKnown-provisionalKnown, constant(1000))
	if b.known() || !b.guessed() {
		t.Errorf("after %d s: known %t, guessed %t", recentKnown-1, b.known(), b.guessed())
	}
	near(t, "provisional rate", normalRate(&b), 1000, 1)
	teach(&b, epoch.Add(recentKnown*time.Second), 1, constant(1000))
	near(t, "normal rate", normalRate(&b), 1000, 1)
}

// TestBaselineIsRobust: a fifth of the seconds at fifty times the rate moves it little.
func TestBaselineIsRobust(t *testing.T) {
	var b baseline
	r := rand.New(rand.NewPCG(1, 1))
	teach(&b, epoch, 3000, func(int) float64 {
		if r.IntN(5) == 0 {
			return 50000
		}
		return 1000 * math.Exp2(0.1*r.NormFloat64())
	})
	near(t, "normal rate", normalRate(&b), 1000, 350)
}

// TestBaselineCannotBePushed: an hour of trickled attack raises no threshold by more than a tenth.
func TestBaselineCannotBePushed(t *testing.T) {
	for _, factor := range []float64{1.4, 2, 100} {
		var b baseline
		at := teach(&b, epoch, 7200, constant(1000))
		teach(&b, at, 3600, constant(1000*factor))
		if got := normalRate(&b); got > 1102 {
			t.Errorf("an hour at %g times the rate: normal is %g", factor, got)
		}
	}
}

func TestBaselineFalls(t *testing.T) {
	var b baseline
	at := teach(&b, epoch, 3600, constant(5000))
	teach(&b, at, 6*3600, constant(500))
	near(t, "normal rate six hours after a fall", normalRate(&b), 500, 50)
}

// TestHourOfWeek: Monday noon is busy, and the next Monday at noon that is
// normal at once; on a Wednesday noon, which nobody has seen, it is too.
func TestHourOfWeek(t *testing.T) {
	var b baseline
	at := epoch.Add(36 * time.Hour) // Monday noon
	teach(&b, at, 3600, constant(8000))
	teach(&b, at.Add(time.Hour), 12*3600, constant(500))
	near(t, "normal rate at night", normalRate(&b), 500, 60)
	b.enter(epoch.Add((36 + 7*24) * time.Hour))
	near(t, "normal rate on the next Monday", normalRate(&b), 8000, 80)
	b.enter(epoch.Add((36 + 2*24) * time.Hour))
	near(t, "normal rate on a Wednesday", normalRate(&b), 8000, 80)
	if b.enter(epoch.Add(4 * time.Hour)); normalRate(&b) > 600 {
		t.Errorf("at four on a Sunday %g is normal", normalRate(&b))
	}
}

func TestHourRest(t *testing.T) {
	var h hourLevel
	var l, back levels
	for i := range l.of {
		l.of[i] = level{float64(i) * 4.3, 0.1 * float64(i)}
	}
	l.n = 5000
	h.store(&l)
	h.load(&back)
	for i := range l.of {
		near(t, "centre", back.of[i].centre, l.of[i].centre, 1.0/2048)
		near(t, "spread", back.of[i].spread, l.of[i].spread, 1.0/64)
	}
	if back.n != l.n {
		t.Errorf("n is %d", back.n)
	}
}
