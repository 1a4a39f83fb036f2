// SPDX-License-Identifier: Apache-2.0

package detect

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sentinel-x/sentinel-x/internal/model"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// learnedRow returns what a learner sees of a vector.
func learnedRow(v Vector) []float32 {
	columns := columnsOf(LearnedNames())
	return pick(make([]float32, len(columns)), v, columns)
}

// learnedRows plays a scene of so many ticks and returns what a learner sees of each.
func learnedRows(t testing.TB, x *Extractor, s *sim, ticks int, play func(w *traffic.Window)) (rows [][]float32) {
	t.Helper()
	v := make(Vector, NumFeatures())
	for range ticks {
		w := s.window(victim)
		s.clients(&w, suiteRate, 200)
		play(&w)
		if !x.Begin(w.Start, w.Length) || !x.Stream(&w, v) {
			t.Fatal("window refused")
		}
		rows = append(rows, learnedRow(v))
	}
	return rows
}

// TestSuiteIsLikeFloods: what the suite computes for a flood on top of a calm window
// is about what the features of such packets are.
func TestSuiteIsLikeFloods(t *testing.T) {
	for name, play := range map[string]func(s *sim, w *traffic.Window){
		"syn_flood, spoofed": func(s *sim, w *traffic.Window) { s.synFlood(w, 3*suiteRate) },
		"icmp_flood":         func(s *sim, w *traffic.Window) { s.icmpFlood(w, 3*suiteRate) },
	} {
		x, s := NewExtractor(1), newSim(31)
		calm := learnedRows(t, x, s, 1300, func(*traffic.Window) {})
		flooded := learnedRows(t, x, s, 40, func(w *traffic.Window) { play(s, w) })
		f := floods[slices.IndexFunc(floods, func(f flood) bool { return f.name == name })]
		have, want := f.onTop(calm[len(calm)-1], 3), flooded[len(flooded)-1]
		for i, column := range LearnedNames() {
			near := 0.15
			switch {
			case strings.Contains(column, "ratio"), strings.Contains(column, "per_source"):
				near = 0.6 // log2: the sim's floods have sources and sizes of their own
			case strings.Contains(column, "balance"), strings.Contains(column, "size"):
				near = 1
			case strings.Contains(column, "ttl"), strings.Contains(column, "entropy"), strings.Contains(column, "drift"), strings.Contains(column, "top"):
				continue // profiles, not arithmetic
			}
			if d := math.Abs(float64(have[i] - want[i])); d > near || have[i] != have[i] != (want[i] != want[i]) {
				t.Errorf("%s: %s is %.3f, of real windows %.3f", name, column, have[i], want[i])
			}
		}
	}
}

// icmpFlood adds echo requests.
func (s *sim) icmpFlood(w *traffic.Window, rate float64) {
	for range s.number(rate) {
		p := packet{source: s.address(11<<24, 150), proto: 1, length: 84, ttl: uint8(50 + s.IntN(20))}
		p.count(w)
	}
}

// TestAttackSuite: floods of all kinds, the same each time; what a calm window does
// not know stays unknown.
func TestAttackSuite(t *testing.T) {
	calm := learnedRows(t, NewExtractor(1), newSim(32), 1300, func(*traffic.Window) {})
	suite := AttackSuite(calm)
	if len(suite) != suiteRows*len(floods)*len(suiteRatios) || fmt.Sprint(suite) != fmt.Sprint(AttackSuite(calm)) {
		t.Fatalf("%d rows, or others the second time", len(suite))
	}
	for _, kind := range ClassNames()[1:] {
		if kind != "other" && !slices.ContainsFunc(floods, func(f flood) bool { return strings.HasPrefix(f.name, kind) }) {
			t.Errorf("no %s", kind)
		}
	}
	for i, row := range suite {
		for c, name := range LearnedNames() {
			x := float64(row[c])
			if math.IsInf(x, 0) || strings.Contains(name, "share") && (x < 0 || x > 1) || strings.Contains(name, "entropy") && (x < 0 || x > 1) {
				t.Fatalf("row %d: %s is %g", i, name, x)
			}
		}
	}
	blank := make([]float32, len(calm[0]))
	for i := range blank {
		blank[i] = float32(math.NaN())
	}
	for _, row := range AttackSuite([][]float32{blank}) {
		for c, x := range row {
			if x == x {
				t.Fatalf("%s of the unknown is %g", LearnedNames()[c], x)
			}
		}
	}
	if AttackSuite(nil) != nil {
		t.Error("floods on top of nothing")
	}
}

// TestCandidatesMustFindTheSuite: a forest learnt from a target's calm windows finds
// the suite; a candidate with a threshold that much of it is below is refused.
func TestCandidatesMustFindTheSuite(t *testing.T) {
	rows := learnedRows(t, NewExtractor(1), newSim(33), 4000, func(*traffic.Window) {})[700:]
	l, err := model.NewLearner(model.LearnerParams{Schema: LearnedNames(), Rows: 2048})
	if err != nil {
		t.Fatal(err)
	}
	at := epoch
	observe := func() {
		for _, row := range rows {
			at = at.Add(traffic.Tick)
			l.Observe(model.Window{At: at, Row: row, Calm: true})
		}
	}
	observe()
	c, err := l.Shadow(at).Train(NotWorse)
	if err != nil {
		t.Fatal(err)
	}
	l.Take(c)
	observe()
	found, _ := c.Recall(AttackSuite(c.Calm))
	t.Logf("a forest finds %.1f %% of the suite", 100*found)
	if found < 0.9 {
		t.Errorf("%.1f %% of the suite are found", 100*found)
	}
	c, err = l.Shadow(at.Add(7 * time.Hour)).Train(func(*model.Candidate) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	worst := 1.0
	for _, row := range AttackSuite(c.Calm) {
		worst = min(worst, c.Forest.Score(row))
	}
	c.Threshold = worst + 0.02
	if err := NotWorse(c); err == nil || !strings.Contains(err.Error(), "of the attack windows") {
		t.Errorf("a candidate that misses floods: %v", err)
	}
}
