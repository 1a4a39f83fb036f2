// SPDX-License-Identifier: Apache-2.0

package detect

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/sentinel-x/sentinel-x/internal/model"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// lessons are vectors of calm, a crowd, and two floods at several rates.
func lessons(t testing.TB, seed uint64) (data model.Data) {
	x, s := NewExtractor(1), newSim(seed)
	scene := func(ticks int, class traffic.Kind, play func(w *traffic.Window)) {
		for range ticks {
			w := s.window(victim)
			s.clients(&w, 900, 200)
			play(&w)
			v := make(Vector, NumFeatures())
			if !x.Begin(w.Start, w.Length) || !x.Stream(&w, v) {
				t.Fatal("window refused")
			}
			data.X, data.Y = append(data.X, v), append(data.Y, int(class))
		}
	}
	calm := func(*traffic.Window) {}
	scene(650, traffic.KindBenign, calm)
	for _, rate := range []float64{900, 2700, 9000} {
		scene(30, traffic.KindSYNFlood, func(w *traffic.Window) { s.synFlood(w, rate) })
		scene(30, traffic.KindBenign, calm)
		scene(30, traffic.KindUDPFlood, func(w *traffic.Window) { s.udpFlood(w, rate, 4444, 300) })
		scene(30, traffic.KindBenign, calm)
		scene(30, traffic.KindBenign, func(w *traffic.Window) { s.clients(w, rate, 20000) })
	}
	return data
}

func train(t testing.TB, data model.Data, change func(p *model.TreeParams)) *model.Trees {
	t.Helper()
	p := model.DefaultTreeParams()
	p.Objective, p.Classes, p.Rounds, p.MaxDepth, p.Schema = model.Softmax, traffic.TreeClasses, 10, 3, Names()
	change(&p)
	trees, err := model.TrainTrees(context.Background(), data, p)
	if err != nil {
		t.Fatal(err)
	}
	return trees
}

// TestTrainedTrees: features, trainer, adapter and detector together find
// floods of other sources than those of the training, and leave a crowd alone.
func TestTrainedTrees(t *testing.T) {
	trees, err := NewTrees(train(t, lessons(t, 21), func(*model.TreeParams) {}))
	if err != nil {
		t.Fatal(err)
	}
	bank, err := NewBank(2, model.LearnerParams{})
	if err != nil {
		t.Fatal(err)
	}
	s := newStage(t, defaults(), bank.Models(trees))
	if u := only(s.run(700, s.calm, victim), Opened); len(u) != 0 {
		t.Fatalf("calm traffic: %+v", u)
	}
	u := s.run(100, func(w []traffic.Window) {
		s.calm(w)
		s.clients(&w[0], 6000, 30000)
	}, victim)
	if list := only(u, Opened); len(list) != 0 {
		t.Errorf("a crowd is an incident: %+v", list)
	}
	s.run(100, s.calm, victim)
	begin := s.tick
	u = s.run(10, func(w []traffic.Window) {
		s.calm(w)
		s.udpFlood(&w[0], 2500, 5555, 200)
	}, victim)
	i := one(t, u, Opened)
	if i.Kind != traffic.KindUDPFlood || i.Detected.Sub(s.at(begin)) > 300*time.Millisecond {
		t.Errorf("found %+v, begun at %s", i, s.at(begin))
	}
	vote := i.Votes[1]
	if vote.Opinion != traffic.OpinionAttack || vote.Class != traffic.KindUDPFlood || len(vote.Features) == 0 {
		t.Errorf("the trees voted %+v", vote)
	}
}

func TestTreesRefused(t *testing.T) {
	data := lessons(t, 22)
	narrow := model.Data{Y: data.Y}
	for _, v := range data.X {
		narrow.X = append(narrow.X, v[:6])
	}
	other := train(t, narrow, func(p *model.TreeParams) { p.Rounds, p.Schema = 1, model.Schema{"a", "b", "c", "d", "e", "f"} })
	var mismatch *model.MismatchError
	if _, err := NewTrees(other); !errors.As(err, &mismatch) || len(mismatch.Missing) != 6 {
		t.Errorf("other features: %v", err)
	}
	few := train(t, data, func(p *model.TreeParams) { p.Rounds, p.Classes = 1, 5 })
	if _, err := NewTrees(few); err == nil || !strings.Contains(err.Error(), "5 classes") {
		t.Errorf("too few classes: %v", err)
	}
	trees := train(t, data, func(p *model.TreeParams) { p.Rounds = 1 })
	named, err := trees.WithAttributes(map[string]string{ClassesAttribute: "a,b"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewTrees(named); err == nil || !strings.Contains(err.Error(), "benign,syn_flood") {
		t.Errorf("classes of other names: %v", err)
	}
}

// TestPrototypeTrees: a model of the prototype's six features and two classes works.
func TestPrototypeTrees(t *testing.T) {
	data := lessons(t, 23)
	six := model.Data{}
	for i, v := range data.X {
		six.X = append(six.X, v[:6])
		six.Y = append(six.Y, btoi(data.Y[i] != 0))
	}
	trees, err := NewTrees(train(t, six, func(p *model.TreeParams) {
		p.Objective, p.Classes, p.Schema = model.Logistic, 0, PrototypeNames()
	}))
	if err != nil {
		t.Fatal(err)
	}
	right := 0
	for i, v := range data.X {
		var p Probabilities
		trees.Classify(v, &p)
		if attack, class := p.attack(); attack > 0.5 == (data.Y[i] != 0) && class == traffic.KindOther {
			right++
		}
	}
	if share := float64(right) / float64(len(data.X)); share < 0.9 {
		t.Errorf("%g of the windows are right", share)
	}
	out := make([]float32, NumFeatures())
	trees.Explain(data.X[700], traffic.KindOther, out)
	for i, v := range out[6:] {
		if v != 0 {
			t.Errorf("%s contributes %g to a model without it", Names()[i+6], v)
		}
	}
}

func TestLearnedNames(t *testing.T) {
	seen := map[string]bool{}
	for _, name := range LearnedNames() {
		if Index(name) < 0 || seen[name] {
			t.Errorf("%q is no feature, or twice", name)
		}
		seen[name] = true
	}
	if len(seen) > model.MaxForestFeatures {
		t.Errorf("%d features are too many", len(seen))
	}
}

// TestBank: learners arm after enough calm windows, then tell a flood from calm
// windows; a target that comes too late has none until another falls silent.
func TestBank(t *testing.T) {
	bank, err := NewBank(1, model.LearnerParams{Calm: model.CalmParams{Windows: 600}})
	if err != nil {
		t.Fatal(err)
	}
	s := newStage(t, defaults(), bank.Models(nil))
	s.run(2600, s.calm, victim, victims)
	if bank.Follows(victims) || !bank.Follows(victim) {
		t.Fatal("the first target has no learner, or the second has one too")
	}
	target, shadow := bank.Due(s.at(s.tick))
	if shadow == nil || target != victim {
		t.Fatalf("no training is due: %+v", bank.own[victim].Stats())
	}
	candidate, err := shadow.Train(NotWorse)
	if err != nil {
		t.Fatal(err)
	}
	bank.Take(target, candidate)
	x := s.d.x
	score := func(flood float64) (forest, online Score) {
		v := make(Vector, NumFeatures())
		for range 3 {
			w := s.window(victim)
			s.clients(&w, 900, 200)
			s.synFlood(&w, flood)
			if !x.Begin(w.Start, w.Length) || !x.Stream(&w, v) {
				t.Fatal("window refused")
			}
		}
		out := make([]float32, NumFeatures())
		bank.Forest().Explain(victim, v, out)
		if most := maxOf(out); flood > 0 && !(most > 0) {
			t.Errorf("nothing explains the forest's score, at most %g", most)
		}
		return bank.Forest().Score(victim, v), bank.Online().Score(victim, v)
	}
	if f, o := score(0); !f.Armed || !o.Armed || f.objects() || o.objects() {
		t.Errorf("calm: forest %+v, online %+v", f, o)
	}
	if f, o := score(5000); !f.objects() || !o.objects() {
		t.Errorf("flood: forest %+v, online %+v", f, o)
	}
	if bank.Forest().Score(victims, make(Vector, NumFeatures())).Armed {
		t.Error("a target without a learner has an armed forest")
	}
	bank.Observe(victims, model.Window{At: s.at(s.tick), Row: make(Vector, NumFeatures())})
	if bank.Follows(victims) {
		t.Error("a learner at work gave way")
	}
	bank.own[victim].last -= 2 * bankSilence
	bank.order = append(bank.order, allHosts)
	bank.own[allHosts] = &own{last: s.at(s.tick).UnixNano()}
	if !bank.Follows(victims) {
		t.Error("a learner silent for hours does not give way")
	}
}

// BenchmarkDetectorWithTrees is one tick of 256 targets, all under suspicion, with 540
// trees and learners for eight of the targets.
func BenchmarkDetectorWithTrees(b *testing.B) {
	trees, err := NewTrees(train(b, lessons(b, 24), func(p *model.TreeParams) { p.Rounds, p.MaxDepth = 60, 5 }))
	if err != nil {
		b.Fatal(err)
	}
	bank, err := NewBank(BankTargets, model.LearnerParams{})
	if err != nil {
		b.Fatal(err)
	}
	d := New(defaults(), bank.Models(trees))
	windows, at := busyTick(256), epoch
	before := processorTime(b)
	for b.Loop() {
		at = at.Add(traffic.Tick)
		d.Tick(at, traffic.Tick, windows)
	}
	b.ReportMetric(float64(processorTime(b)-before)/float64(b.N)/1e6, "cpu-ms/tick")
}

func maxOf(list []float32) float32 {
	most := float32(math.Inf(-1))
	for _, v := range list {
		most = max(most, v)
	}
	return most
}
