// SPDX-License-Identifier: Apache-2.0

package train

import (
	"context"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sentinel-x/sentinel-x/internal/detect"
	"github.com/sentinel-x/sentinel-x/internal/model"
	"github.com/sentinel-x/sentinel-x/internal/scene"
)

// playAlone plays a scene from its beginning to detectors of its own.
func playAlone(t *testing.T, s *scene.Scenario, trees *model.Trees, set string) outcome {
	t.Helper()
	out, err := playScene(s, trees, set)
	if err != nil {
		t.Fatal(err)
	}
	return out
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
		serial := EvalReport{Detectors: set, Missed: []string{}, Wrong: []string{}}
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
	o.Profiles, o.Hours, o.Rate = o.Profiles[:1], 1, 60
	var twice [2][]DayReport
	for i := range twice {
		if twice[i], err = Days(context.Background(), o); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(twice[0], twice[1]); diff != "" || twice[0][0].Packets == 0 {
		t.Errorf("the same day twice, %d packets:\n%s", twice[0][0].Packets, diff)
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

// TestPoison: fragments that are too weak to be attacks raise no alarm and do not hide the attack that follows; stronger ones are found.
func TestPoison(t *testing.T) {
	o := PoisonOptions{Families: []string{"udp_spoofed"}, Calm: 80 * time.Second, Last: 40 * time.Second, Ratio: 0.02}
	list, err := Poison(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	p := list[0]
	if len(list) != 1 || p.Alarms != 0 || !(p.Delay > 0 && p.Delay < 1) || !(p.DelayClean > 0 && p.DelayClean < 1) {
		t.Errorf("weak fragments: %+v", list)
	}
	if p.NormalClean < 100 || p.Normal < p.NormalClean || p.Normal > 1.2*p.NormalClean {
		t.Errorf("%g packets/s are normal, without fragments %g", p.Normal, p.NormalClean)
	}
	o.Ratio = 4
	if list, err = Poison(context.Background(), o); err != nil || list[0].Alarms == 0 {
		t.Errorf("strong fragments: %+v, %v", list, err)
	}
	if r := (Change{0.4, 0.5}).Rise(); math.Abs(r-0.25) > 1e-9 {
		t.Errorf("from 0.4 to 0.5 is a rise of %g", r)
	}
	o.Families = []string{"nonsense"}
	if _, err := Poison(context.Background(), o); err == nil {
		t.Error("an unknown family is taken")
	}
}

// TestLeaveOneOut: what is left out is not learnt from, and is what the trees are judged on.
func TestLeaveOneOut(t *testing.T) {
	ctx := context.Background()
	var scenes []scene.Scenario
	for _, family := range []string{"syn_spoofed", "syn_botnet", "udp_spoofed", "flash_crowd"} {
		scenes = append(scenes, *catalogue(t, family, 3, coldLead))
	}
	learn, err := newLibrary(ctx, scenes)
	if err != nil {
		t.Fatal(err)
	}
	all := 0
	for _, part := range learn.parts {
		all += len(part.X)
	}
	r := Recipe{Seed: 3, Rounds: 3, Depth: 3}
	o := EvalOptions{Lead: 10 * time.Second, Ratios: []float64{10}}
	names := []string{"syn_spoofed", "kind syn_flood"}
	told := 0
	list, err := leaveOneOut(ctx, &r, learn, &library{}, o, names, func(LeftOut) { told++ })
	if err != nil || len(list) != 2 || told != 2 {
		t.Fatalf("%+v, %d told of, %v", list, told, err)
	}
	for i, left := range []int{len(learn.parts[0].X), len(learn.parts[0].X) + len(learn.parts[1].X)} {
		if list[i].Name != names[i] || list[i].Rows != all-left {
			t.Errorf("%s: learnt from %d rows, want %d of %d", list[i].Name, list[i].Rows, all-left, all)
		}
	}
	if one, kind := list[0].Cells[0], list[1].Cells[0]; one.Scenes != 1 || kind.Scenes != 3 {
		t.Errorf("judged by %d and %d scenes, want 1 and 3", one.Scenes, kind.Scenes)
	}
	again, err := leaveOneOut(ctx, &r, learn, &library{}, o, names[:1], nil)
	if diff := cmp.Diff(list[:1], again, cmpopts.IgnoreUnexported(Cell{})); err != nil || diff != "" {
		t.Errorf("the same twice: %v\n%s", err, diff)
	}
	for _, bad := range []string{"flash_crowd", "nonsense", "kind nonsense", "kind benign"} {
		if _, err := LeaveOneOut(ctx, r, o, []string{bad}, nil); err == nil {
			t.Errorf("%q can be left out", bad)
		}
	}
}

// TestLeavings: every family of attacks is left out once, and every kind that has families of its own.
func TestLeavings(t *testing.T) {
	families, kinds := 0, 0
	for _, name := range Leavings() {
		if strings.HasPrefix(name, kindPrefix) {
			kinds++
		} else {
			families++
		}
		if list, err := judged(name); err != nil || len(list) == 0 {
			t.Errorf("%s is judged by %v, %v", name, list, err)
		}
	}
	if want := len(scene.Families()) - len(calmFamilies); families != want || kinds < 8 {
		t.Errorf("%d families and %d kinds, want %d and at least 8", families, kinds, want)
	}
}
