// SPDX-License-Identifier: Apache-2.0

package detect

import (
	"testing"

	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// TestBurstsAreLearnt: a target's own models learn bursts that trees find benign,
// whatever those models think of them, but none that trees find likely, and none
// without trees.
func TestBurstsAreLearnt(t *testing.T) {
	for name, c := range map[string]struct {
		models Models
		calm   bool // bursts are
	}{
		"benign":           {Models{Trees: constantly(traffic.KindSYNFlood, 0.1)}, true},
		"odd to a forest":  {Models{Trees: constantly(traffic.KindSYNFlood, 0.1), Forest: &stubScorer{objecting}, Online: &stubScorer{objecting}}, true},
		"likely an attack": {Models{Trees: constantly(traffic.KindSYNFlood, 0.6)}, false},
		"without trees":    {Models{}, false},
	} {
		learner := &stubLearner{target: victim}
		c.models.Learner = learner
		s := newStage(t, defaults(), c.models)
		s.warm(victim)
		learner.windows = nil
		for range 5 {
			s.run(1, func(w []traffic.Window) { s.calm(w); s.clients(&w[0], 9000, 3000) }, victim)
			s.run(20, s.calm, victim)
		}
		suspicious := 0
		for _, w := range learner.windows {
			if !w.Calm {
				suspicious++
			}
		}
		want := 5
		if c.calm {
			want = 0
		}
		if len(learner.windows) != 105 || suspicious != want {
			t.Errorf("%s: %d of %d windows were not to be learnt, want %d of 105", name, suspicious, len(learner.windows), want)
		}
	}
}
