// SPDX-License-Identifier: Apache-2.0

package train

import (
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sentinel-x/sentinel-x/internal/detect"
	"github.com/sentinel-x/sentinel-x/internal/model"
	"github.com/sentinel-x/sentinel-x/internal/scene"
)

// playAlone plays a scene from its beginning to detectors of its own.
func playAlone(t *testing.T, s *scene.Scenario, trees *model.Trees, set string) outcome {
	t.Helper()
	c, err := newContender(set, trees)
	if err != nil {
		t.Fatal(err)
	}
	p, err := newPlayer(c)
	if err != nil {
		t.Fatal(err)
	}
	p.out.s, p.onset = s, monday.Add(s.Begin+s.Onset)
	stream, err := s.Stream()
	if err != nil {
		t.Fatal(err)
	}
	p.play(scene.Windows(stream, counters(s)))
	return p.outcome()
}

// small is an evaluation of few short scenes.
func small() EvalOptions {
	return EvalOptions{
		Families: []string{"syn_spoofed", "carpet_udp", "monitoring"}, Ratios: []float64{0.5, 10},
		Lead: knownLead, Detectors: []string{"tiered", "rate"},
	}
}

// sameOutcome compares outcomes, scenes apart.
var sameOutcome = cmp.Options{
	cmp.AllowUnexported(outcome{}), cmpopts.IgnoreFields(outcome{}, "s"), cmpopts.EquateNaNs(), cmpopts.EquateComparable(outcome{}.target),
}

// TestSharedLead: scenes that go on from a shared lead come out as when each is played from its beginning, for all
// sets of detectors.
func TestSharedLead(t *testing.T) {
	trees, err := detect.DefaultTrees()
	if err != nil {
		t.Fatal(err)
	}
	o := small()
	list, _, err := o.scenes()
	if err != nil {
		t.Fatal(err)
	}
	stages := stagesOf(list, o.Lead)
	scenes, shared := 0, 0
	for _, st := range stages {
		if err := st.run(trees, o.Detectors); err != nil {
			t.Fatal(err)
		}
		shared = max(shared, len(st.scenes))
		for i, s := range st.scenes {
			scenes++
			for j, set := range o.Detectors {
				want := playAlone(t, s, trees, set)
				got := st.outcomes[i][j]
				want.early -= st.lead[j].early
				want.grey -= st.lead[j].grey
				if diff := cmp.Diff(want, got, sameOutcome); diff != "" {
					t.Errorf("%s, %s (-alone +shared):\n%s", s.Name, set, diff)
				}
			}
		}
	}
	if scenes != len(list) || shared < 2 {
		t.Errorf("%d of %d scenes were played, at most %d with the same lead", scenes, len(list), shared)
	}
}

// TestEvaluateIsReproducible: the same options give the same reports, whatever runs at the same time.
func TestEvaluateIsReproducible(t *testing.T) {
	o := small()
	first, err := Evaluate(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	list, _, err := o.scenes()
	if err != nil {
		t.Fatal(err)
	}
	trees, err := detect.DefaultTrees()
	if err != nil {
		t.Fatal(err)
	}
	stages := stagesOf(list, o.Lead)
	for _, st := range stages { // one after the other
		if err := st.run(trees, o.Detectors); err != nil {
			t.Fatal(err)
		}
	}
	for i, set := range o.Detectors {
		serial := EvalReport{Detectors: set}
		serial.fill(stages, i)
		if diff := cmp.Diff(serial, first[i], cmpopts.IgnoreUnexported(Cell{})); diff != "" {
			t.Errorf("%s (-serial +parallel):\n%s", set, diff)
		}
	}
}

// TestEvaluate: the report adds up, recordings that are absent are named, and a plain threshold on the rate takes
// crowds for attacks while all detectors together do not.
func TestEvaluate(t *testing.T) {
	o := EvalOptions{
		Families: []string{"syn_spoofed", "flash_crowd"}, Ratios: []float64{10}, Data: t.TempDir(),
		Lead: knownLead, Detectors: []string{"tiered", "rate"},
	}
	reports, err := Evaluate(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	r, rate := reports[0], reports[1]
	if len(r.Notes) != 1 || len(r.Totals) != 2 || len(r.Cells) != 7 || len(r.Summary) != 2 || r.Detectors != "tiered" {
		t.Fatalf("notes %q, totals %+v, cells %+v, summary %+v", r.Notes, r.Totals, r.Cells, r.Summary)
	}
	if c := r.Totals[0]; !c.Attack || c.Scenes != 1 || c.Detected != 1 || c.Kind != 1 || !(c.P50 > 0) || c.P50 > 0.5 {
		t.Errorf("a SYN flood at 10×: %+v", c)
	}
	if c := r.Totals[1]; c.Attack || c.Scenes <= 5 || c.False != 0 {
		t.Errorf("flash crowds: %+v", c)
	}
	if c := rate.Totals[1]; c.False == 0 || len(rate.Wrong) < c.False {
		t.Errorf("flash crowds with a threshold on the rate: %+v, %q", c, rate.Wrong)
	}
	for _, bad := range []EvalOptions{{Detectors: []string{"nonsense"}, Families: o.Families}, {Families: []string{"nonsense"}}} {
		if _, err := Evaluate(context.Background(), bad); err == nil {
			t.Errorf("%+v is taken", bad)
		}
	}
}

// TestDays: the same hour of normal traffic is the same twice, and has no alarm.
func TestDays(t *testing.T) {
	told := 0
	o := DayOptions{Profiles: []string{"dns", "access"}, Hours: 2, Rate: 250, Done: func(DayReport) { told++ }}
	first, err := Days(context.Background(), o)
	if err != nil || len(first) != 2 || told != 2 {
		t.Fatalf("%d reports, %d told of, %v", len(first), told, err)
	}
	for _, r := range first {
		if r.Hours != 2 || r.Events != 1 || r.Packets < 500_000 || len(r.Alarms) != 0 {
			t.Errorf("%+v", r)
		}
	}
	o.Profiles = o.Profiles[:1]
	again, err := Days(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(first[:1], again); diff != "" {
		t.Errorf("the same day twice:\n%s", diff)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Days(ctx, o); err == nil {
		t.Error("days go on without end")
	}
	o.Profiles = []string{"nonsense"}
	if _, err := Days(context.Background(), o); err == nil {
		t.Error("an unknown profile is taken")
	}
}
