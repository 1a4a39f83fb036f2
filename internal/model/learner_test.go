// SPDX-License-Identifier: Apache-2.0

package model

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"
)

const tick = 100 * time.Millisecond

// stream feeds a learner with windows of its own time.
type stream struct {
	*Learner
	at     time.Time
	random *rand.Rand
	normal [][]float32
}

func newStream(t testing.TB, p LearnerParams) *stream {
	t.Helper()
	p.Schema = testSchema(8)
	l, err := NewLearner(p)
	if err != nil {
		t.Fatal(err)
	}
	return &stream{l, noon, rand.New(rand.NewPCG(5, 5)), independentRows(5000, 11)}
}

// independentRows are normal in each of eight columns, which differ in scale.
func independentRows(n int, seed uint64) [][]float32 {
	r := rand.New(rand.NewPCG(seed, 2))
	rows := make([][]float32, n)
	for i := range rows {
		rows[i] = attackRow(r, 0)
		for c := range rows[i] {
			rows[i][c] *= 2
		}
	}
	return rows
}

// calm feeds n calm windows; what is odd about one says change.
func (s *stream) calm(n int, change func(i int, w *Window)) {
	for i := range n {
		s.at = s.at.Add(tick)
		w := Window{
			At: s.at, Row: s.normal[s.random.IntN(len(s.normal))], Calm: true,
			Source: s.random.Uint32(), Share: 0.05,
		}
		if change != nil {
			change(i, &w)
		}
		s.Observe(w)
	}
}

// attackRow lies outside the normal rows in most columns; how far says far.
func attackRow(r *rand.Rand, far float64) []float32 {
	row := make([]float32, 8)
	for c := range row {
		row[c] = float32((far + 0.5*r.NormFloat64()) * float64(c+1))
	}
	return row
}

func attackRows(n int, far float64) [][]float32 {
	r := rand.New(rand.NewPCG(8, 8))
	rows := make([][]float32, n)
	for i := range rows {
		rows[i] = attackRow(r, far)
	}
	return rows
}

func takeAll(*Candidate) error { return nil }

// retrain trains the forest that is due, if one is.
func (s *stream) retrain(t testing.TB, accept func(*Candidate) error) (trained bool, err error) {
	t.Helper()
	shadow := s.Shadow(s.at)
	if shadow == nil {
		return false, nil
	}
	c, err := shadow.Train(accept)
	s.Take(c)
	return true, err
}

// grown returns a stream with a live forest and armed thresholds.
func grown(t testing.TB, p LearnerParams) *stream {
	t.Helper()
	s := newStream(t, p)
	s.calm(6000, nil)
	if trained, err := s.retrain(t, takeAll); !trained || err != nil {
		t.Fatalf("first forest: %v, %v", trained, err)
	}
	return s
}

func TestLearnerHoldsBack(t *testing.T) {
	s := newStream(t, LearnerParams{})
	s.calm(600, nil)
	if got := s.Stats(); got.Learnt != 0 || got.Held != 600 {
		t.Fatalf("within the minute: %+v", got)
	}
	s.calm(100, nil)
	if got := s.Stats(); got.Learnt != 100 || got.Held != 600 {
		t.Fatalf("10 s later: %+v", got)
	}
	s.calm(1, func(_ int, w *Window) { w.Calm = false })
	if got := s.Stats(); got.Learnt != 100 || got.Held != 0 || got.Discarded != 601 {
		t.Fatalf("after a suspicious window: %+v", got)
	}
	s.calm(601, nil)
	if got := s.Stats(); got.Learnt != 101 {
		t.Errorf("a minute after it: %+v", got)
	}
}

func TestLearnerBrokenClock(t *testing.T) {
	for name, jump := range map[string]time.Duration{
		"backwards": -time.Hour, "standing": -tick, "a gap": time.Minute + 1, "a year": 365 * 24 * time.Hour,
	} {
		s := newStream(t, LearnerParams{})
		s.calm(500, nil)
		s.at = s.at.Add(jump)
		s.calm(1, nil)
		if got := s.Stats(); got.Learnt != 0 || got.Discarded != 500 || got.Held != 1 {
			t.Errorf("%s: %+v", name, got)
		}
	}
	s := newStream(t, LearnerParams{})
	s.calm(500, nil)
	s.at = s.at.Add(30 * time.Second)
	s.calm(1, nil)
	if got := s.Stats(); got.Discarded != 0 {
		t.Errorf("a gap shorter than the hold: %+v", got)
	}
}

// TestLearnerFastWindows: more windows than the ring holds cost memory that is there.
func TestLearnerFastWindows(t *testing.T) {
	s := newStream(t, LearnerParams{})
	for range 5000 {
		s.at = s.at.Add(tick / 10)
		s.Observe(Window{At: s.at, Row: s.normal[0], Calm: true})
	}
	if got := s.Stats(); got.Held > 602 || got.Discarded == 0 {
		t.Errorf("%+v", got)
	}
}

func TestLearnerRefusesRows(t *testing.T) {
	s := newStream(t, LearnerParams{})
	infinite := append([]float32{}, s.normal[0]...)
	infinite[3] = float32(math.Inf(1))
	for _, row := range [][]float32{nil, s.normal[0][:7], infinite} {
		s.calm(1, func(_ int, w *Window) { w.Row = row })
	}
	if got := s.Stats(); got.Refused != 3 || got.Held != 0 {
		t.Errorf("%+v", got)
	}
}

// TestLearnerCapsSources: one source teaches a fifth of an hour's windows at most,
// the others as much as ever.
func TestLearnerCapsSources(t *testing.T) {
	const hour = 36_000
	s := newStream(t, LearnerParams{})
	for _, share := range []float64{1, math.NaN(), 7} {
		s := newStream(t, LearnerParams{})
		s.calm(hour+600, func(_ int, w *Window) { w.Source, w.Share = 5, share })
		if got := s.Stats().Learnt; got < 0.19*hour || got > 0.2*hour+1 {
			t.Errorf("an hour of one source with a share of %v: %.0f windows learnt", share, got)
		}
	}
	s.calm(hour+600, func(_ int, w *Window) { w.Source, w.Share = 5, 0.5 })
	half := s.Stats().Learnt
	if half < 0.39*hour || half > 0.4*hour+1 {
		t.Errorf("an hour of half the packets: %.0f windows learnt", half)
	}
	if got := s.free.Windows(); math.Abs(got-(half-2000)) > 1 {
		t.Errorf("the half-space trees' threshold counts %.0f windows, %.0f were learnt since there were trees", got, half-2000)
	}
	s.calm(6000, func(_ int, w *Window) { w.Source, w.Share = 6, 0.5 })
	if got := s.Stats().Learnt - half; got < 5300 {
		t.Errorf("another source then taught %.0f of 6000", got)
	}
	s = newStream(t, LearnerParams{})
	s.calm(hour, func(_ int, w *Window) { w.Share = 0 })
	if got := s.Stats(); got.Capped != 0 {
		t.Errorf("no top source, and still %+v", got)
	}
}

func TestLearnerArms(t *testing.T) {
	s := newStream(t, LearnerParams{})
	attack := attackRows(1, 8)[0]
	s.calm(2600, nil)
	if got := s.Stats().Learnt; got != 2000 {
		t.Fatalf("%v learnt", got)
	}
	if x := s.Score(attack); !math.IsNaN(x.Forest) || x.ForestOver() || x.HalfSpaceOver() || s.Forest() != nil {
		t.Fatalf("before there is a forest: %+v", x)
	}
	if trained, err := s.retrain(t, takeAll); !trained || err != nil {
		t.Fatal(trained, err)
	}
	if x := s.Score(attack); !x.ForestArmed || !x.ForestOver() || x.HalfSpaceOver() {
		t.Errorf("the first forest: %+v", x)
	}
	s.calm(2600, nil)
	if x := s.Score(attack); !x.HalfSpaceArmed || !x.HalfSpaceOver() {
		t.Errorf("2000 windows later: %+v", x)
	}
	over := 0
	for _, row := range s.normal {
		if x := s.Score(row); x.ForestOver() || x.HalfSpaceOver() {
			over++
		}
	}
	if over > len(s.normal)/200 {
		t.Errorf("%d of %d normal rows are over a threshold", over, len(s.normal))
	}
	if n := testing.AllocsPerRun(100, func() { s.Score(attack) }); n != 0 {
		t.Errorf("scoring allocates %v times", n)
	}
}

func TestLearnerWaitsForTheFirstForest(t *testing.T) {
	s := newStream(t, LearnerParams{})
	s.calm(2599, nil)
	if s.Shadow(s.at) != nil {
		t.Error("a forest from 1999 windows")
	}
	s.calm(1, nil)
	refused := errors.New("no")
	if trained, err := s.retrain(t, func(*Candidate) error { return refused }); !trained || !errors.Is(err, refused) {
		t.Fatal(trained, err)
	}
	if s.Forest() != nil || s.Stats().Rejected != 1 || s.Shadow(s.at) != nil {
		t.Errorf("refused, and then %+v", s.Stats())
	}
	s.at = s.at.Add(time.Hour)
	if s.Shadow(s.at) == nil {
		t.Error("no other try after the cool-down")
	}
}

// TestLearnerFollowsDrift: what is normal changes for good. The thresholds forget,
// and a forest of the new days replaces the old one.
func TestLearnerFollowsDrift(t *testing.T) {
	s := grown(t, LearnerParams{Day: 20 * time.Minute})
	s.calm(3000, nil)
	if got := s.Stats(); got.Drifts != 0 || s.Shadow(s.at) != nil {
		t.Fatalf("a drift without one: %+v", got)
	}
	shifted := independentRows(5000, 12)
	for _, row := range shifted {
		for c := range row {
			row[c] += float32(5 * (c + 1))
		}
	}
	alarms := func() (n int) {
		for _, row := range shifted {
			if s.Score(row).ForestOver() {
				n++
			}
		}
		return n
	}
	before := alarms()
	s.normal = shifted
	s.calm(15_000, nil)
	if s.Stats().Drifts == 0 {
		t.Fatal("the drift was not found")
	}
	s.calm(36_000, nil)
	suite := attackRows(200, 30)
	trained, err := s.retrain(t, func(c *Candidate) error { return c.NotWorse(suite) })
	if !trained || err != nil {
		t.Fatalf("trained %v, %v", trained, err)
	}
	if after := alarms(); before < 500 || after > before/20 {
		t.Errorf("%d of 5000 shifted rows over the threshold before, %d after", before, after)
	}
	for _, row := range suite {
		if !s.Score(row).ForestOver() {
			t.Fatalf("an attack scores %+v", s.Score(row))
		}
	}
}

func TestLearnerRefreshes(t *testing.T) {
	s := grown(t, LearnerParams{})
	first := s.Forest()
	s.calm(100, nil)
	s.at = s.at.Add(6*time.Hour - 11*time.Second)
	if s.Shadow(s.at) != nil {
		t.Error("a refresh too early")
	}
	s.at = s.at.Add(time.Second)
	if s.drift.Width() == 0 {
		t.Error("the drift detector has seen nothing")
	}
	if trained, err := s.retrain(t, takeAll); !trained || err != nil {
		t.Errorf("trained %v, %v", trained, err)
	}
	if reflect.DeepEqual(s.Forest().nodes, first.nodes) {
		t.Error("the same windows gave the same forest: the seed did not move on")
	}
	if s.drift.Width() != 0 {
		t.Errorf("the drift detector still has %d scores of the old forest", s.drift.Width())
	}
}

// TestLearnerKeepsRows: what was held back is what was seen, in order.
func TestLearnerKeepsRows(t *testing.T) {
	s := newStream(t, LearnerParams{})
	row := make([]float32, 8)
	s.calm(1500, func(i int, w *Window) {
		row[0] = float32(i)
		w.Row = row
	})
	rows := s.keep.rows()
	if len(rows) != 900 {
		t.Fatalf("%d rows", len(rows))
	}
	for i, r := range rows {
		if r[0] != float32(i) {
			t.Fatalf("row %d is that of window %v", i, r[0])
		}
	}
}

// TestLearnerForgetsOnce: one change found three times is one.
func TestLearnerForgetsOnce(t *testing.T) {
	s := grown(t, LearnerParams{})
	before := s.Learner.calm.mass
	for i := range 3 {
		s.recalibrate(s.at.Add(time.Duration(i) * time.Minute))
	}
	if got := s.Learner.calm.mass / before; math.Abs(got-0.1) > 0.001 {
		t.Errorf("%.3f of the scores count after three looks at a drift", got)
	}
	s.recalibrate(s.at.Add(2 * time.Hour))
	if got := s.Learner.calm.mass / before; math.Abs(got-0.01) > 0.001 {
		t.Errorf("%.3f of the scores count after the next drift", got)
	}
}

// TestLearnerArmsWithFewRows: 2000 windows were calm, even if few are still kept.
func TestLearnerArmsWithFewRows(t *testing.T) {
	s := grown(t, LearnerParams{Day: time.Minute})
	if n := len(s.keep.at); n > 1000 {
		t.Fatalf("%d rows", n)
	}
	if _, armed := s.Learner.calm.Threshold(); !armed {
		t.Error("not armed")
	}
}

// TestCandidateMustNotBeWorse: each of the two reasons to refuse.
func TestCandidateMustNotBeWorse(t *testing.T) {
	s := grown(t, LearnerParams{})
	attacks := attackRows(100, 8)
	c := Candidate{Forest: s.Forest(), Live: s.Forest(), Calm: s.normal}
	c.LiveThreshold, _ = s.Learner.calm.Threshold()
	for name, v := range map[string]struct {
		threshold float64
		want      string
	}{
		"the same": {c.LiveThreshold, ""},
		"lower":    {c.LiveThreshold * 0.9, "of the calm windows"},
		"higher":   {0.9, "of the attack windows"},
	} {
		c.Threshold = v.threshold
		err := c.NotWorse(attacks)
		if (err == nil) != (v.want == "") || err != nil && !strings.Contains(err.Error(), v.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	c.Live, c.LiveThreshold = nil, math.Inf(1)
	if err := c.NotWorse(attacks); err != nil {
		t.Errorf("worse than no forest: %v", err)
	}
	if a, b := c.Recall(nil); a != 0 || b != 0 {
		t.Errorf("recall of nothing: %v, %v", a, b)
	}
}

// TestLearnerPoisoning: for an hour an attacker slips fragments of an attack in
// between calm windows, from ever new sources, and no detector notices. The
// threshold must not rise by more than 10 %, and the attack still be found; without
// the guard it would have been otherwise.
func TestLearnerPoisoning(t *testing.T) {
	const hour = 36_000
	for name, source := range map[string]func(w *Window, r *rand.Rand){
		"many sources": func(w *Window, r *rand.Rand) { w.Source, w.Share = r.Uint32(), 0.05 },
		"one source":   func(w *Window, _ *rand.Rand) { w.Source, w.Share = 77, 0.9 },
	} {
		s := grown(t, LearnerParams{})
		s.calm(hour, nil)
		naive := newCalm(t, CalmParams{MaxRise: 10})
		*naive = *s.Learner.calm
		naive.p.MaxRise = 10
		forest, attacks := s.Forest(), attackRows(300, 10)
		before, _ := s.Learner.calm.Threshold()
		poison := func(i int, w *Window) {
			if i%50 == 0 {
				w.Row = attackRow(s.random, 10)
				source(w, s.random)
			}
			naive.Add(forest.Score(w.Row), 1, w.At)
		}
		for range 6 { // as often as the engine would look whether a forest is due
			s.calm(hour/6, poison)
			if trained, err := s.retrain(t, func(c *Candidate) error { return c.NotWorse(attacks) }); trained {
				t.Logf("%s: a forest trained in the shadow, %v", name, err)
			}
		}
		after, armed := s.Learner.calm.Threshold()
		without, _ := naive.Threshold()
		t.Logf("%s: attack scores %.3f, now %.3f", name, forest.Score(attacks[0]), s.Forest().Score(attacks[0]))
		t.Logf("%s: threshold %.4f, after the hour %.4f (%+.1f %%); unguarded %.4f (%+.1f %%)",
			name, before, after, 100*(after/before-1), without, 100*(without/before-1))
		if !armed || after > 1.1*before {
			t.Errorf("%s: threshold %.4f, after the hour %.4f", name, before, after)
		}
		if without < 1.1*before {
			t.Errorf("%s: the poison is none: unguarded the threshold rises to %.4f only", name, without)
		}
		found := 0
		for _, row := range attacks {
			if s.Score(row).ForestOver() {
				found++
			}
		}
		if found < len(attacks)*95/100 {
			t.Errorf("%s: %d of %d attack windows are found afterwards", name, found, len(attacks))
		}
	}
}

// TestLearnerDetectedFragments: fragments that a detector suspects teach nothing,
// and neither does the minute before each.
func TestLearnerDetectedFragments(t *testing.T) {
	s := grown(t, LearnerParams{})
	before := s.Stats().Learnt
	s.calm(10_000, func(i int, w *Window) { w.Calm = i%599 != 0 })
	if got := s.Stats().Learnt - before; got != 0 {
		t.Errorf("%v windows learnt", got)
	}
}

// TestShadowThresholdLimit: retraining does not lift the threshold either.
func TestShadowThresholdLimit(t *testing.T) {
	s := grown(t, LearnerParams{})
	live, _ := s.Learner.calm.Threshold()
	s.Learner.calm.threshold = live / 2
	s.at = s.at.Add(6 * time.Hour)
	c, err := s.Shadow(s.at).Train(takeAll)
	if err != nil {
		t.Fatal(err)
	}
	if want := live / 2 * 1.02; math.Abs(c.Threshold-want) > 1e-9 {
		t.Errorf("the candidate's threshold is %.4f, want %.4f", c.Threshold, want)
	}
}

// TestShadowRunsElsewhere: training goes on while windows come, and nothing of them
// gets into the forest. The race detector watches.
func TestShadowRunsElsewhere(t *testing.T) {
	s := grown(t, LearnerParams{})
	shadow := s.Shadow(s.at.Add(6 * time.Hour))
	before, err := shadow.Train(takeAll)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan *Candidate)
	go func() {
		c, err := shadow.Train(takeAll)
		if err != nil {
			t.Error(err)
		}
		done <- c
	}()
	s.calm(8000, func(_ int, w *Window) { w.Row = attackRow(s.random, 3) })
	if during := <-done; during == nil || !reflect.DeepEqual(during, before) {
		t.Error("the forest trained while windows came is another one")
	}
}

// TestReservoirIsEven: a day in 1000 rows, each hour with its part of them.
func TestReservoirIsEven(t *testing.T) {
	r := newReservoir(LearnerParams{Schema: testSchema(1), Day: 24 * time.Hour, Rows: 1000})
	for i := range 36 * 3600 {
		r.add(Window{At: noon.Add(time.Duration(i) * time.Second), Row: []float32{float32(i)}}, 1)
	}
	rows := r.rows()
	if len(rows) < 400 || len(rows) > 1000 || cap(r.values) > 2000 {
		t.Fatalf("%d rows, memory for %d", len(rows), cap(r.values))
	}
	quarters := [4]int{}
	for i, row := range rows {
		second := int(row[0])
		if want := noon.Add(time.Duration(second) * time.Second); !r.at[i].Equal(want) {
			t.Fatalf("row %d is of %v, its time %v", i, want, r.at[i])
		}
		age := 36*3600 - second
		if age > 26*3600 {
			t.Fatalf("a row is %d h old", age/3600)
		}
		quarters[min(3, age/(6*3600))]++
	}
	for i, n := range quarters {
		if n < len(rows)/6 || n > len(rows)*2/5 {
			t.Errorf("quarter %d has %d of %d rows", i, n, len(rows))
		}
	}
	// Then few windows come: they are not thinned for ever as the many were.
	late := noon.Add(100 * time.Hour)
	for i := range 2000 {
		r.add(Window{At: late.Add(time.Duration(i) * time.Second), Row: []float32{0}}, 1)
	}
	if len(r.at) < 20 {
		t.Errorf("%d of 2000 later rows", len(r.at))
	}
}

// TestReservoirWeights: half the weight, half the rows.
func TestReservoirWeights(t *testing.T) {
	r := newReservoir(LearnerParams{Schema: testSchema(1), Day: time.Hour, Rows: 5000})
	for range 4000 {
		r.add(Window{At: noon, Row: []float32{0}}, 0.5)
	}
	if n := len(r.at); n < 1850 || n > 2150 {
		t.Errorf("%d rows of 4000 with half the weight", n)
	}
}

func TestLearnerRefusesParameters(t *testing.T) {
	good := LearnerParams{Schema: testSchema(8)}
	if _, err := NewLearner(good); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*LearnerParams){
		"schema":   func(p *LearnerParams) { p.Schema = nil },
		"tick":     func(p *LearnerParams) { p.Tick = -1 },
		"hold":     func(p *LearnerParams) { p.Hold = 24 * time.Hour },
		"share":    func(p *LearnerParams) { p.SourceShare = 1.5 },
		"rows":     func(p *LearnerParams) { p.Rows = 100 },
		"windows":  func(p *LearnerParams) { p.Calm.Windows = 100 },
		"quantile": func(p *LearnerParams) { p.Calm.Quantile = 2 },
		"refresh":  func(p *LearnerParams) { p.Refresh = time.Minute },
		"trees":    func(p *LearnerParams) { p.Forest.Trees = -1 },
		"depth":    func(p *LearnerParams) { p.HalfSpace.Depth = 99 },
	} {
		p := good
		change(&p)
		if _, err := NewLearner(p); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestLearnerFileRoundTrip(t *testing.T) {
	s := grown(t, LearnerParams{})
	s.calm(4000, nil)
	g, err := OpenGenerations(t.TempDir(), "learner.json")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := g.Save(s.Write); err != nil {
		t.Fatal(err)
	}
	var again *Learner
	read := func(r io.Reader) (err error) {
		again, err = ReadLearner(r, LearnerParams{Schema: testSchema(8)})
		return err
	}
	if _, damaged, err := g.Load(read); damaged != nil || err != nil {
		t.Fatal(damaged, err)
	}
	for _, row := range append(attackRows(50, 5), s.normal[:200]...) {
		if a, b := s.Score(row), again.Score(row); a != b {
			t.Fatalf("%+v, read again %+v", a, b)
		}
	}
	if !reflect.DeepEqual(again.guard.source, s.guard.source) || !again.forgot.Equal(s.forgot) {
		t.Error("what sources have taught is lost")
	}
	if a, b := s.drift, again.drift; a.Width() == 0 || a.Width() != b.Width() || math.Abs(a.Mean()-b.Mean()) > 1e-12 || !reflect.DeepEqual(a.state().Buckets, b.state().Buckets) {
		t.Errorf("the drift detector has %d values of %v, read again %d of %v", a.Width(), a.Mean(), b.Width(), b.Mean())
	}
	if !again.Trained() || !again.Armed() {
		t.Error("not armed after a restart")
	}
	if again.Shadow(s.at) != nil {
		t.Error("a retraining is due right after a restart")
	}
	fresh := newStream(t, LearnerParams{})
	var b bytes.Buffer
	if err := fresh.Write(&b); err != nil {
		t.Fatal(err)
	}
	if err := read(&b); err != nil || again.Forest() != nil || again.Trained() {
		t.Errorf("a learner without models: %v", err)
	}
}

// TestSnapshotIsOfOneMoment: what comes later does not change it.
func TestSnapshotIsOfOneMoment(t *testing.T) {
	s := grown(t, LearnerParams{})
	text := func(snapshot *LearnerSnapshot) string {
		var b bytes.Buffer
		if err := snapshot.Write(&b); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	snapshot := s.Snapshot()
	before := text(snapshot)
	s.calm(2000, nil)
	if text(snapshot) != before || text(s.Snapshot()) == before {
		t.Error("a snapshot goes on, or the learner does not")
	}
}

func learnerText(t testing.TB) string {
	t.Helper()
	p := LearnerParams{
		Schema: testSchema(2), Rows: 64, Calm: CalmParams{Windows: 32},
		Forest: ForestParams{Trees: 2, Sample: 4}, HalfSpace: HalfSpaceParams{Trees: 1, Depth: 2, Window: 10},
	}
	l, err := NewLearner(p)
	if err != nil {
		t.Fatal(err)
	}
	at := noon
	for _, row := range normalRows(700, 2, 1) {
		at = at.Add(tick)
		l.Observe(Window{At: at, Row: row, Calm: true})
	}
	c, err := l.Shadow(at).Train(takeAll)
	if err != nil {
		t.Fatal(err)
	}
	l.Take(c)
	for _, row := range normalRows(10, 2, 1) {
		at = at.Add(tick)
		l.Observe(Window{At: at, Row: row, Calm: true, Share: 0.1})
	}
	var b bytes.Buffer
	if err := l.Write(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestLearnerFileRefused(t *testing.T) {
	text := learnerText(t)
	p := LearnerParams{Schema: testSchema(2)}
	if _, err := ReadLearner(strings.NewReader(text), p); err != nil {
		t.Fatal(err)
	}
	edit := func(change func(*learnerFile)) string {
		var file learnerFile
		if err := json.Unmarshal([]byte(text), &file); err != nil {
			t.Fatal(err)
		}
		change(&file)
		b, err := json.Marshal(file)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	for name, c := range map[string]struct{ text, want string }{
		"cut":             {text[:len(text)-20], "damaged"},
		"foreign version": {strings.Replace(text, `"version":1`, `"version":0`, 1), "version 0"},
		"another model":   {smallForest(func(*forestFile) {}), "format"},
		"no thresholds":   {edit(func(f *learnerFile) { f.Calm = nil }), "no thresholds"},
		"no drift":        {edit(func(f *learnerFile) { f.Drift = nil }), "no thresholds"},
		"sizes":           {edit(func(f *learnerFile) { f.Drift.Buckets = make([][][2]float64, 41) }), "drift detector: buckets of 41 sizes"},
		"buckets":         {edit(func(f *learnerFile) { f.Drift.Buckets[0] = make([][2]float64, 6) }), "6 buckets of size 2^0"},
		"bucket":          {edit(func(f *learnerFile) { f.Drift.Buckets = [][][2]float64{{}, {{3, 0}}} }), "the sum 3"},
		"variance":        {edit(func(f *learnerFile) { f.Drift.Vary = -1 }), "squared distances of -1"},
		"slot":            {edit(func(f *learnerFile) { f.Sources = []sourceState{{Slot: sourceSlots}} }), "slot 1024"},
		"level":           {edit(func(f *learnerFile) { f.Sources = []sourceState{{Level: -1}} }), "the level -1"},
		"calm":            {edit(func(f *learnerFile) { f.Calm.Threshold = 7 }), "threshold of the forest"},
		"free":            {edit(func(f *learnerFile) { f.Free.Bins = nil }), "threshold of the half-space trees"},
		"forest":          {edit(func(f *learnerFile) { f.Forest.Trees[1].Left[0] = 0 }), "forest: tree 1"},
		"forest version":  {edit(func(f *learnerFile) { f.Forest.Version = 3 }), "version 3"},
		"trees":           {edit(func(f *learnerFile) { f.HalfSpace.Latest[0] = -1 }), "half-space trees: node 0"},
		"trees format":    {edit(func(f *learnerFile) { f.HalfSpace.Format = "x" }), "half-space trees: the file's format"},
		"mixed features": {edit(func(f *learnerFile) {
			f.Forest.fileHeader = newFileHeader(forestFormat, forestVersion, Schema{"pkt_rate", "syn_ratio"})
		}), "pkt_rate"},
	} {
		if _, err := ReadLearner(strings.NewReader(c.text), p); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	_, err := ReadLearner(strings.NewReader(text), LearnerParams{Schema: Schema{"pkt_rate", "syn_ratio"}})
	if err == nil || !strings.Contains(err.Error(), "feature_0") || !strings.Contains(err.Error(), "syn_ratio") {
		t.Errorf("other features: %v, want both lists", err)
	}
	if _, err := ReadLearner(strings.NewReader(text), LearnerParams{}); err == nil {
		t.Error("no schema: accepted")
	}
}

func FuzzReadLearner(f *testing.F) {
	text := learnerText(f)
	f.Add([]byte(text))
	f.Add([]byte(text[:len(text)/2]))
	f.Add([]byte(smallForest(func(*forestFile) {})))
	f.Fuzz(func(t *testing.T, text []byte) {
		l, err := ReadLearner(bytes.NewReader(text), LearnerParams{Schema: testSchema(2)})
		if err != nil {
			return
		}
		at := noon
		for _, row := range normalRows(610, 2, 1) {
			at = at.Add(tick)
			l.Observe(Window{At: at, Row: row, Calm: true})
			l.Score(row)
		}
		if err := l.Write(io.Discard); err != nil {
			t.Fatal(err)
		}
	})
}

func BenchmarkLearner(b *testing.B) {
	s := grown(b, LearnerParams{})
	b.ReportAllocs()
	for b.Loop() {
		s.calm(1, nil)
	}
}
