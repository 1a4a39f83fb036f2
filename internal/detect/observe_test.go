// SPDX-License-Identifier: Apache-2.0

package detect

import (
	"math"
	"slices"
	"testing"

	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// TestObserverSeesJudgements: unknown without a baseline, calm with one, an attack
// while its incident is open, and unknown again behind it.
func TestObserverSeesJudgements(t *testing.T) {
	s := newStage(t, defaults(), Models{Trees: constantly(traffic.KindSYNFlood, 0.99)})
	type part struct {
		label     WindowLabel
		known, in bool // baseline, incident
	}
	var parts []part
	turns, windows := 0, 0
	var last Vector
	s.d.Observe(func(w *Seen) {
		if w.Target != victim {
			t.Fatalf("a window of %s", w.Target)
		}
		windows++
		if w.Turn {
			turns++
		}
		last = slices.Clone(w.Features())
		if w.Incident != nil && w.Incident.Kind != traffic.KindSYNFlood {
			t.Fatalf("an incident of %s", w.Incident.Kind)
		}
		if p := (part{w.Label, w.Known, w.Incident != nil}); len(parts) == 0 || parts[len(parts)-1] != p {
			parts = append(parts, p)
		}
	})
	second := 0
	s.d.Observe(func(*Seen) { second++ })
	s.warm(victim)
	if second != windows {
		t.Errorf("the second observer saw %d of %d windows", second, windows)
	}
	if turns != 70 || windows != 700 {
		t.Errorf("%d of %d windows had their turn, want one a second", turns, windows)
	}
	s.run(20, func(w []traffic.Window) { s.calm(w); s.synFlood(&w[0], 9000) }, victim)
	if p := last[Index("packets_ratio_1s")]; !(p > 3) {
		t.Errorf("the flood's ratio to what is normal is 2^%g", p)
	}
	s.run(30, s.calm, victim)
	s.run(200, func([]traffic.Window) {}, victim) // silence is no window
	want := []part{
		{LabelUnknown, false, false},
		{LabelCalm, true, false},
		{LabelUnknown, true, false},
		{LabelAttack, true, true},
		{LabelUnknown, true, true},
	}
	if !slices.Equal(parts, want) || windows != 750 {
		t.Errorf("%d windows were seen as %+v, want %+v", windows, parts, want)
	}
	s.d.Observe(nil)
	s.run(5, s.calm, victim)
	if windows != 750 || math.IsNaN(float64(last[0])) {
		t.Errorf("%d windows, of which the last has %g of %s", windows, last[0], Names()[0])
	}
}
