// SPDX-License-Identifier: Apache-2.0

package train

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sentinel-x/sentinel-x/internal/detect"
	"github.com/sentinel-x/sentinel-x/internal/model"
	"github.com/sentinel-x/sentinel-x/internal/scene"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// ownWindows are those of scenes, as an operator would have captured and labelled
// them: in groups of ten.
func ownWindows(t *testing.T, families ...string) (rows []detect.LabelledWindow) {
	t.Helper()
	for n := range 4 * len(families) {
		family := families[n/4]
		s := catalogue(t, family, []float64{1, 2, 4, 8}[n%4], knownLead)
		data, err := rowsOf(s)
		if err != nil {
			t.Fatal(err)
		}
		for i, x := range data.X {
			w := detect.LabelledWindow{
				Time: monday.Add(time.Duration(i) * time.Second), Target: traffic.HostTarget(s.Target), Label: detect.LabelCalm,
				Kind: traffic.Kind(data.Y[i]), Group: fmt.Sprint(s.Name, i/10), Weight: 1, Features: x,
			}
			if w.Kind != traffic.KindBenign {
				w.Label = detect.LabelAttack
			}
			rows = append(rows, w)
		}
	}
	return rows
}

// shortSuite is a part of Suite.
func shortSuite(t *testing.T, families ...string) []scene.Scenario {
	t.Helper()
	all, err := Suite()
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(all, func(s scene.Scenario) bool { return !slices.Contains(families, s.Family) })
}

func retrain(t *testing.T, o RetrainOptions) *Outcome {
	t.Helper()
	out, err := Retrain(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := detect.NewTrees(out.Trees); err != nil {
		t.Fatal(err)
	}
	return out
}

func modelText(t *testing.T, trees *model.Trees) string {
	t.Helper()
	var b bytes.Buffer
	if err := trees.WriteJSON(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestRetrainGetsBetter: trees that know little, and go on with windows of calm
// traffic and attacks, know more, and may replace them; always the same ones.
func TestRetrainGetsBetter(t *testing.T) {
	weak := Default()
	weak.Rounds, weak.Depth = 1, 2
	data, err := Rows(context.Background(), []scene.Scenario{*catalogue(t, "icmp_flood", 3, coldLead)})
	if err != nil {
		t.Fatal(err)
	}
	base, err := weak.Grow(context.Background(), data, model.Data{})
	if err != nil {
		t.Fatal(err)
	}
	rows := ownWindows(t, "normal", "flash_crowd", "syn_spoofed", "udp_spoofed")
	rows = append(rows, detect.LabelledWindow{Group: "nobody knows"})
	o := RetrainOptions{
		Windows: rows, Base: base, Seed: 5, Rounds: 20, suite: shortSuite(t, "syn_spoofed", "udp_spoofed", "normal"),
	}
	out := retrain(t, o)
	b, a := out.Before, out.After
	if !out.Passed() || a.Suite <= b.Suite || a.SuiteFalse > b.SuiteFalse || a.Found < b.Found || a.LogLoss >= b.LogLoss/2 {
		t.Errorf("before %+v, after %+v, objections %q", b, a, out.Objections)
	}
	if out.TreeCount != 9+20*9 || b.SuiteAttacks != 4 || out.Unused != 1 || out.Composed != 0 {
		t.Errorf("%+v", out)
	}
	k, l := out.Tested, out.Learnt
	if k.Calm == 0 || k.Attack == 0 || l.Calm <= k.Calm || l.Attack <= k.Attack || k.Calm+k.Attack+l.Calm+l.Attack+1 != len(rows) {
		t.Errorf("learnt from %+v, tested on %+v, of %d windows", l, k, len(rows))
	}
	if modelText(t, retrain(t, o).Trees) != modelText(t, out.Trees) {
		t.Error("the same windows and seed give other trees")
	}
	o.Seed++
	if modelText(t, retrain(t, o).Trees) == modelText(t, out.Trees) {
		t.Error("the seed changes nothing")
	}
}

// TestBadCandidateIsRefused: trees that learn that floods are calm find fewer of them.
func TestBadCandidateIsRefused(t *testing.T) {
	rows := ownWindows(t, "syn_spoofed", "icmp_flood")
	for i := range rows {
		if rows[i].Kind == traffic.KindSYNFlood {
			rows[i].Label, rows[i].Kind = detect.LabelCalm, traffic.KindBenign
		}
	}
	out := retrain(t, RetrainOptions{Windows: rows, Seed: 1, Rounds: 20, suite: shortSuite(t, "amplification_dns", "carpet_udp")})
	if out.Passed() || out.After.Suite >= out.Before.Suite || !strings.Contains(strings.Join(out.Objections, "\n"), "attacks that the built-in suite finds") {
		t.Errorf("before %+v, after %+v, objections %q", out.Before, out.After, out.Objections)
	}
}

// TestObjections: worse in any one thing is worse.
func TestObjections(t *testing.T) {
	before := Score{LogLoss: 1, Found: 5, False: 5, Suite: 5, SuiteFalse: 5}
	if list := objections(&before, &before); len(list) != 0 {
		t.Errorf("the same is worse: %q", list)
	}
	for name, change := range map[string]func(s *Score){
		"windows of your attacks that it finds: 4, before 5":        func(s *Score) { s.Found-- },
		"false alarms on your calm and benign windows: 6, before 5": func(s *Score) { s.False++ },
		"attacks that the built-in suite finds: 4, before 5":        func(s *Score) { s.Suite-- },
		"false alarms in the built-in suite: 6, before 5":           func(s *Score) { s.SuiteFalse++ },
	} {
		after := before
		after.LogLoss = 0.5
		change(&after)
		if list := objections(&before, &after); !slices.Equal(list, []string{name}) {
			t.Errorf("%q, want %q", list, name)
		}
	}
}

// TestSplitKeepsGroupsWhole: none is both learnt from and tested on, and a label with one group is learnt from.
func TestSplitKeepsGroupsWhole(t *testing.T) {
	var rows []detect.LabelledWindow
	for i := range 1000 {
		rows = append(rows, detect.LabelledWindow{Label: detect.LabelCalm, Group: fmt.Sprint("minute ", i/50)})
	}
	rows = append(rows, detect.LabelledWindow{Label: detect.LabelAttack, Group: "one"})
	learn, test, _ := split(rows, 1)
	if len(test) != 250 || len(learn) != 751 || shareOf(learn).Attack != 1 {
		t.Fatalf("%d windows to learn from, %d to test on", len(learn), len(test))
	}
	groups := map[string]bool{}
	for _, w := range learn {
		groups[w.Group] = true
	}
	first := test[0].Group
	for _, w := range test {
		if groups[w.Group] {
			t.Fatalf("%s is on both sides", w.Group)
		}
	}
	for seed := uint64(2); ; seed++ {
		if _, test, _ := split(rows, seed); test[0].Group != first {
			break
		} else if seed > 50 {
			t.Fatal("the seed does not choose the groups")
		}
	}
}

// TestRetrainRefuses: data that nothing can be learnt from, and bases that cannot go on.
func TestRetrainRefuses(t *testing.T) {
	rows := ownWindows(t, "syn_spoofed")
	calm := slices.DeleteFunc(slices.Clone(rows), func(w detect.LabelledWindow) bool { return w.Label == detect.LabelAttack })
	two := model.DefaultTreeParams()
	two.Rounds, two.Schema = 1, detect.Names()
	data := model.Data{}
	for i := range rows {
		data.X, data.Y = append(data.X, rows[i].Features), append(data.Y, i%2)
	}
	binary, err := model.TrainTrees(context.Background(), data, two)
	if err != nil {
		t.Fatal(err)
	}
	two.Schema = slices.Clone(two.Schema)
	two.Schema[0] = "weather"
	foreign, err := model.TrainTrees(context.Background(), data, two)
	if err != nil {
		t.Fatal(err)
	}
	base, err := detect.DefaultTrees()
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		o    RetrainOptions
		want string
	}{
		"nothing":       {RetrainOptions{Draws: 1}, "no windows"},
		"too few":       {RetrainOptions{Windows: rows[:19], Draws: 1}, "19 windows with a label are too few"},
		"without label": {RetrainOptions{Windows: make([]detect.LabelledWindow, 100), Draws: 1}, "0 windows with a label"},
		"one class":     {RetrainOptions{Windows: slices.Concat(calm, calm), Rounds: 1}, "one class only"},
		"two classes":   {RetrainOptions{Windows: rows, Base: binary, Rounds: 1}, "2 classes, not 9"},
		"other names":   {RetrainOptions{Windows: rows, Base: foreign, Rounds: 1}, "missing: weather"},
		"too many":      {RetrainOptions{Windows: rows, Base: base, Rounds: 200}, "2340 trees"},
	} {
		if _, err := Retrain(context.Background(), c.o); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Retrain(ended, RetrainOptions{Windows: rows, Rounds: 1, Draws: 1}); err == nil {
		t.Error("it goes on after Ctrl-C")
	}
}

// TestUnknownKinds: attacks of no known kind are taken for what the base finds likeliest.
func TestUnknownKinds(t *testing.T) {
	base, err := detect.DefaultTrees()
	if err != nil {
		t.Fatal(err)
	}
	n, err := (&RetrainOptions{Base: base}).namer()
	if err != nil {
		t.Fatal(err)
	}
	right, all := 0, 0
	for _, w := range ownWindows(t, "icmp_flood") {
		if want := w.Kind; want != traffic.KindBenign {
			w.Kind = traffic.KindCarpet
			all++
			if n.class(&w) == want {
				right++
			}
		} else if n.class(&w) != traffic.KindBenign {
			t.Fatal("a calm window gets a kind")
		}
	}
	if all == 0 || right < all*8/10 {
		t.Errorf("%d of %d windows of an ICMP flood are one", right, all)
	}
}

// TestReadWindowFiles: several are one after another, and what is wrong names the file.
func TestReadWindowFiles(t *testing.T) {
	rows := ownWindows(t, "normal")
	var b bytes.Buffer
	if err := detect.WriteWindows(&b, rows); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "calm.windows")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := ReadWindows(path, path); err != nil || len(got) != 2*len(rows) {
		t.Errorf("%d windows of two files of %d: %v", len(got), len(rows), err)
	}
	if err := os.Truncate(path, int64(b.Len()-9)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{path, path + "x"} {
		if _, err := ReadWindows(name); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestSuiteIsNotLearntFrom: whatever the seed, no scene of the suite is one to learn from, and it has every family.
func TestSuiteIsNotLearntFrom(t *testing.T) {
	suite, err := Suite()
	if err != nil {
		t.Fatal(err)
	}
	recipe := Default()
	for _, seed := range []uint64{0, 1, suiteSeed, 1<<32 - 1} {
		learn, err := recipe.scenes(composedSeed+seed<<16, 1)
		if err != nil {
			t.Fatal(err)
		}
		seen := map[uint64]bool{}
		for i := range learn {
			seen[learn[i].Seed] = true
		}
		for i := range suite {
			if seen[suite[i].Seed] {
				t.Errorf("seed %d: %s is learnt from", seed, suite[i].Name)
			}
		}
	}
	for _, family := range scene.Families() {
		if !slices.ContainsFunc(suite, func(s scene.Scenario) bool { return s.Family == family }) {
			t.Errorf("the suite has no %s", family)
		}
	}
}
