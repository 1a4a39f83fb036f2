// SPDX-License-Identifier: Apache-2.0

package detect

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sentinel-x/sentinel-x/internal/model"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// ClassesAttribute is the attribute of a model file that names its classes, in
// order, with commas between; ClassNames is what it must be for several.
const ClassesAttribute = "sentinel_x_classes"

// ClassNames returns the words of the trees' classes, in order.
func ClassNames() []string {
	names := make([]string, traffic.TreeClasses)
	for k := range names {
		names[k] = traffic.Kind(k).String()
	}
	return names
}

// Trees lets boosted trees classify vectors.
type Trees struct {
	trees   *model.Trees
	columns []int // of a vector, for each of the model's; nil: all, in order
	row     []float32
	out     []float32
}

// NewTrees refuses a model that was made for other features than Names or
// PrototypeNames (the error holds both lists), or for other classes than
// ClassNames. A model with two classes tells attacks from the rest, and names no kind.
func NewTrees(t *model.Trees) (*Trees, error) {
	a := &Trees{trees: t, out: make([]float32, t.Outputs())}
	if err := t.Match(Names()); err != nil {
		if t.Match(PrototypeNames()) != nil {
			return nil, fmt.Errorf("use trees for detection: %w", err)
		}
		a.columns = columnsOf(PrototypeNames())
		a.row = make([]float32, len(a.columns))
	}
	want := strings.Join(ClassNames(), ",")
	named, has := t.Attributes()[ClassesAttribute]
	switch {
	case t.Outputs() == 1:
	case t.Outputs() != traffic.TreeClasses:
		return nil, fmt.Errorf("use trees for detection: the model has %d classes; it takes 2, or %d: %s", t.Outputs(), traffic.TreeClasses, want)
	case has && named != want:
		return nil, fmt.Errorf("use trees for detection: the model's classes are %s, not %s", named, want)
	}
	return a, nil
}

// columnsOf returns the places of features in a vector.
func columnsOf(names []string) []int {
	columns := make([]int, len(names))
	for i, name := range names {
		columns[i] = Index(name)
	}
	return columns
}

// pick copies columns of a vector.
func pick(row []float32, x Vector, columns []int) []float32 {
	for i, c := range columns {
		row[i] = x[c]
	}
	return row
}

func (a *Trees) of(x Vector) []float32 {
	if a.columns == nil {
		return x
	}
	return pick(a.row, x, a.columns)
}

// Classify implements Classifier.
func (a *Trees) Classify(x Vector, p *Probabilities) {
	a.trees.Predict(a.of(x), a.out)
	*p = Probabilities{}
	if len(a.out) == 1 {
		p[traffic.KindOther] = float64(a.out[0])
		p[traffic.KindBenign] = 1 - p[traffic.KindOther]
		return
	}
	for i, v := range a.out {
		p[i] = float64(v)
	}
}

// Explain implements Classifier: log odds of the class against benign.
func (a *Trees) Explain(x Vector, class traffic.Kind, out []float32) {
	row := a.of(x)
	parts := make([]float32, len(row)+1)
	if len(a.out) == 1 {
		a.trees.Contributions(row, 0, parts)
	} else {
		benign := make([]float32, len(parts))
		a.trees.Contributions(row, int(class), parts)
		a.trees.Contributions(row, int(traffic.KindBenign), benign)
		for i, b := range benign {
			parts[i] -= b
		}
	}
	spread32(out, parts[:len(row)], a.columns)
}

// spread32 puts the values of columns back to their places in a vector.
func spread32(out, values []float32, columns []int) {
	if columns == nil {
		copy(out, values)
		return
	}
	clear(out)
	for i, c := range columns {
		out[c] = values[i]
	}
}

// LearnedNames returns the features that a target's own models see: those that
// say how its traffic is made up and how it compares with its past. Among all of
// them an isolation forest would mostly cut along what says nothing.
func LearnedNames() []string {
	var names []string
	for _, base := range []string{"packets", "bytes", "tcp", "udp", "icmp", "syn", "answers"} {
		names = append(names, base+"_ratio_1s")
	}
	names = append(names, "packets_ratio_100ms", "syn_ratio_100ms", "udp_ratio_100ms", "sources_ratio_1s")
	for _, base := range []string{"udp", "icmp", "syn", "syn_bare", "ack", "rst", "data", "fragment", "reflected"} {
		names = append(names, base+"_share_1s")
	}
	for _, base := range histogramNames {
		names = append(names, base+"_entropy_1s")
	}
	for _, base := range histogramNames[firstReference:] {
		names = append(names, base+"_drift_1s")
	}
	return append(names, "source_top_share_1s", "fingerprint_top_share_1s", "new_source_share_1s",
		"packets_per_source_1s", "syn_ack_balance_1s", "mean_size_1s", "ttl_spread_1s")
}

// Bank holds the learners of the targets that have their own: the first that
// come, until one is silent for so long that it gives way.
type Bank struct {
	most    int
	params  model.LearnerParams
	columns []int
	row     []float32
	own     map[traffic.Target]*own
	order   []traffic.Target // by arrival

	restored bool // from a file, and no window has come since
}

type own struct {
	*model.Learner
	last int64 // UnixNano of its last window
}

// BankTargets is how many targets have learners of their own by default: each
// takes about 1.5 MiB once it has learnt.
const BankTargets = 8

// bankSilence is after how much silence a target gives its learner up.
const bankSilence = 3600e9

// NewBank makes a bank for at most that many targets. Of the parameters it sets
// the schema and, where they are zero, what keeps a learner small.
func NewBank(targets int, p model.LearnerParams) (*Bank, error) {
	names := LearnedNames()
	p.Schema = names
	if p.Rows == 0 {
		p.Rows = 2048
	}
	if _, err := model.NewLearner(p); err != nil {
		return nil, fmt.Errorf("make a bank of learners: %w", err)
	}
	return &Bank{
		most: targets, params: p, columns: columnsOf(names), row: make([]float32, len(names)),
		own: map[traffic.Target]*own{},
	}, nil
}

// Follows implements Learner.
func (b *Bank) Follows(t traffic.Target) bool {
	return b.own[t] != nil || len(b.own) < b.most || b.quiet() >= 0
}

// quiet returns the place in order of a learner that may go, −1 if none may.
func (b *Bank) quiet() int {
	newest := int64(0)
	for _, o := range b.own {
		newest = max(newest, o.last)
	}
	return slices.IndexFunc(b.order, func(t traffic.Target) bool { return newest-b.own[t].last > bankSilence })
}

// Observe implements Learner.
func (b *Bank) Observe(t traffic.Target, w model.Window) {
	if b.restored { // how long they were silent before the start does not count
		b.restored = false
		for _, o := range b.own {
			o.last = w.At.UnixNano()
		}
	}
	o := b.own[t]
	if o == nil {
		if o = b.adopt(t); o == nil {
			return
		}
	}
	o.last = w.At.UnixNano()
	w.Row = pick(b.row, w.Row, b.columns)
	o.Observe(w)
}

// adopt gives a target a learner of its own.
func (b *Bank) adopt(t traffic.Target) *own {
	if len(b.own) >= b.most {
		i := b.quiet()
		if i < 0 {
			return nil
		}
		delete(b.own, b.order[i])
		b.order = slices.Delete(b.order, i, i+1)
	}
	l, err := model.NewLearner(b.params)
	if err != nil {
		return nil // NewBank has made one of the same
	}
	o := &own{Learner: l}
	b.own[t] = o
	b.order = append(b.order, t)
	return o
}

// Due returns the training of a forest that is due, and whose: nil if none is.
// Train may run on another goroutine; Take gets the outcome, nil for a refused
// candidate.
func (b *Bank) Due(at time.Time) (t traffic.Target, s *model.Shadow) {
	for _, t := range b.order {
		if s := b.own[t].Shadow(at); s != nil {
			return t, s
		}
	}
	return t, nil
}

// Take makes a candidate the target's forest, if the target is still there.
func (b *Bank) Take(t traffic.Target, c *model.Candidate) {
	if o := b.own[t]; o != nil {
		o.Learner.Take(c)
	}
}

// Stats returns what the learner of a target has done, and false if it has none.
func (b *Bank) Stats(t traffic.Target) (model.LearnerStats, bool) {
	o := b.own[t]
	if o == nil {
		return model.LearnerStats{}, false
	}
	return o.Learner.Stats(), true
}

// Learners returns how many targets have learners of their own, and how many of
// those have learnt enough for a vote.
func (b *Bank) Learners() (all, armed int) {
	for _, o := range b.own {
		if o.Learner.Armed() {
			armed++
		}
	}
	return len(b.own), armed
}

// Forest returns the bank's forests as a Scorer.
func (b *Bank) Forest() Scorer { return bankForest{b} }

// Online returns the bank's half-space trees as a Scorer.
func (b *Bank) Online() Scorer { return bankOnline{b} }

// Models returns the trees together with all that the bank offers. Trees may be nil.
func (b *Bank) Models(trees *Trees) Models {
	m := Models{Forest: b.Forest(), Online: b.Online(), Learner: b}
	if trees != nil {
		m.Trees = trees
	}
	return m
}

func (b *Bank) scores(t traffic.Target, x Vector) (s model.Scores) {
	if o := b.own[t]; o != nil {
		s = o.Score(pick(b.row, x, b.columns))
	}
	return s
}

type bankForest struct{ *Bank }

func (b bankForest) Score(t traffic.Target, x Vector) Score {
	s := b.scores(t, x)
	return Score{s.Forest, s.ForestThreshold, s.ForestArmed}
}

func (b bankForest) Explain(t traffic.Target, x Vector, out []float32) {
	clear(out)
	o := b.own[t]
	if o == nil || o.Learner.Forest() == nil {
		return
	}
	for i, v := range o.Learner.Forest().Contributions(pick(b.row, x, b.columns)) {
		out[b.columns[i]] = float32(v)
	}
}

type bankOnline struct{ *Bank }

func (b bankOnline) Score(t traffic.Target, x Vector) Score {
	s := b.scores(t, x)
	return Score{s.HalfSpace, s.HalfSpaceThreshold, s.HalfSpaceArmed}
}

// Explain leaves the contributions at zero: half-space trees say where nothing
// fell, not along which feature.
func (b bankOnline) Explain(_ traffic.Target, _ Vector, out []float32) { clear(out) }
