// SPDX-License-Identifier: Apache-2.0

package train

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math"
	"os"
	"slices"

	"github.com/sentinel-x/sentinel-x/internal/detect"
	"github.com/sentinel-x/sentinel-x/internal/model"
	"github.com/sentinel-x/sentinel-x/internal/scene"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// RetrainOptions say what a candidate for new trees is made from.
type RetrainOptions struct {
	Windows []detect.LabelledWindow // of the operator's own network; those of LabelUnknown are not used
	Base    *model.Trees            // that go on; nil: none
	Live    *model.Trees            // that the candidate is compared with; nil: Base, or those in the program
	Seed    uint64                  // of everything that is drawn
	Rounds  int                     // each adds a tree a class
	Draws   int                     // of the recipe's scenes, to learn from besides; 0: none
	// Progress is told what goes on; nil: nobody is.
	Progress func(format string, args ...any)

	suite []scene.Scenario // that both are judged on; nil: Suite
}

// The least and the most that a candidate is made from.
const (
	minOwnRows   = 20   // that a tree needs to say anything about another
	maxTreeCount = 2000 // of a candidate: each costs time in every window that is looked at
	// ownShare is how much the own rows weigh of each sort (no attack; attack), over all composed ones.
	ownShare = 0.25
	// mostWeight is how many composed rows one of the own may weigh, when there are few.
	mostWeight = 10
	// composedSeed keeps scenes to learn from apart from those to judge on.
	composedSeed = 1 << 40
)

// Share is a part of the own rows, by label.
type Share struct {
	Calm   int `json:"calm"`
	Benign int `json:"benign"`
	Attack int `json:"attack"`
	Groups int `json:"groups"`
}

// Score is how trees do: on the own rows that were kept from training, and in the suite.
type Score struct {
	LogLoss      float64 `json:"log_loss"`     // of the own rows; 0 without any
	Found        int     `json:"found"`        // own attack rows that the trees find likely
	False        int     `json:"false_alarms"` // own calm and benign rows that they are sure of
	Suite        int     `json:"suite_found"`  // attacks of the suite that the whole detector found
	SuiteAttacks int     `json:"suite_attacks"`
	SuiteFalse   int     `json:"suite_false_alarms"` // scenes of the suite with one
}

// Outcome is a candidate and how it compares.
type Outcome struct {
	Trees     *model.Trees `json:"-"`
	TreeCount int          `json:"trees"`
	Learnt    Share        `json:"learnt_from"`
	Tested    Share        `json:"tested_on"`
	Unused    int          `json:"unknown_windows"` // that have no label
	Composed  int          `json:"composed_rows"`
	Before    Score        `json:"before"` // of the live trees
	After     Score        `json:"after"`  // of the candidate
	// Objections say why the candidate is not to replace the live trees; none: it may.
	Objections []string `json:"objections"`
}

// LabelledFile is the name of the daemon's file of labelled incidents, as detect has it.
const LabelledFile = detect.LabelledFile

// ReadWindows reads files of windows, one after another.
func ReadWindows(paths ...string) ([]detect.LabelledWindow, error) {
	var all []detect.LabelledWindow
	for _, path := range paths {
		file, err := os.Open(path)
		if err != nil {
			return nil, fmt.Errorf("read windows: %w", err)
		}
		rows, err := detect.ReadWindows(file)
		if err = errors.Join(err, file.Close()); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		if all = append(all, rows...); len(all) > detect.MaxWindows {
			return nil, fmt.Errorf("%s: with it there are %d windows, at most %d are taken", path, len(all), detect.MaxWindows)
		}
	}
	return all, nil
}

// Passed reports whether the candidate may replace the live trees.
func (o *Outcome) Passed() bool { return len(o.Objections) == 0 }

// Retrain makes a candidate from an operator's own windows and composed scenes, and
// compares it with the live trees. The same options give the same candidate, bit for bit.
func Retrain(ctx context.Context, o RetrainOptions) (*Outcome, error) {
	if err := o.check(); err != nil {
		return nil, fmt.Errorf("train: %w", err)
	}
	if o.Live == nil {
		o.Live = o.Base
	}
	if o.Live == nil {
		var err error
		if o.Live, err = detect.DefaultTrees(); err != nil {
			return nil, err
		}
	}
	learn, test, unused := split(o.Windows, o.Seed)
	out := &Outcome{Learnt: shareOf(learn), Tested: shareOf(test), Unused: unused}
	data, err := o.data(ctx, learn)
	if err != nil {
		return nil, err
	}
	out.Composed = len(data.X) - len(learn)
	if out.Trees, err = o.grow(ctx, data); err != nil {
		return nil, err
	}
	out.TreeCount = out.Trees.Len()
	return out, o.compare(ctx, out, test)
}

// check refuses what nothing can be made from.
func (o *RetrainOptions) check() error {
	var n [4]int
	for i := range o.Windows {
		n[o.Windows[i].Label]++
	}
	usable := len(o.Windows) - n[detect.LabelUnknown]
	switch {
	case len(o.Windows) == 0:
		return errors.New("there are no windows to learn from")
	case usable < minOwnRows:
		return fmt.Errorf("%d windows with a label are too few to learn from, %d are needed: capture for longer", usable, minOwnRows)
	case o.Draws == 0 && (n[detect.LabelAttack] == 0 || n[detect.LabelAttack] == usable):
		return errors.New("one class only: without composed scenes, the windows must be both of attacks and of none")
	case o.Base == nil:
		return nil
	}
	if err := o.Base.Match(detect.Names()); err != nil {
		return fmt.Errorf("go on from the base: %w", err)
	}
	if o.Base.Outputs() != traffic.TreeClasses {
		return fmt.Errorf("go on from the base: it has %d classes, not %d", o.Base.Classes(), traffic.TreeClasses)
	}
	if n := o.Base.Len() + o.Rounds*traffic.TreeClasses; n > maxTreeCount {
		return fmt.Errorf("go on from the base: there would be %d trees, at most %d are allowed; begin again from the default model", n, maxTreeCount)
	}
	return nil
}

func (o *RetrainOptions) say(format string, args ...any) {
	if o.Progress != nil {
		o.Progress(format, args...)
	}
}

// split keeps a quarter of the windows of each label from training, whole groups in
// the order of a hash of their names. A label with one group is only learnt from.
func split(rows []detect.LabelledWindow, seed uint64) (learn, test []detect.LabelledWindow, unused int) {
	kept := map[string]bool{}
	for label := detect.LabelCalm; label <= detect.LabelAttack; label++ {
		size, all := map[string]int{}, 0
		for i := range rows {
			if rows[i].Label == label {
				size[rows[i].Group]++
				all++
			}
		}
		n := 0
		for _, name := range shuffled(size, seed)[:max(0, len(size)-1)] {
			if 4*n < all {
				kept[name] = true
				n += size[name]
			}
		}
	}
	for i := range rows {
		switch {
		case rows[i].Label == detect.LabelUnknown:
			unused++
		case kept[rows[i].Group]:
			test = append(test, rows[i])
		default:
			learn = append(learn, rows[i])
		}
	}
	return learn, test, unused
}

// shuffled returns the names in an order that depends on the seed.
func shuffled(groups map[string]int, seed uint64) []string {
	place := make(map[string]uint64, len(groups))
	names := make([]string, 0, len(groups))
	for name := range groups {
		h := fnv.New64a()
		fmt.Fprint(h, name) // a hash takes everything
		place[name] = traffic.HashMix(h.Sum64() ^ traffic.HashMix(seed))
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int {
		return cmp.Or(cmp.Compare(place[a], place[b]), cmp.Compare(a, b))
	})
	return names
}

func shareOf(rows []detect.LabelledWindow) (s Share) {
	groups := map[string]bool{}
	for i := range rows {
		groups[rows[i].Group] = true
		switch rows[i].Label {
		case detect.LabelAttack:
			s.Attack++
		case detect.LabelBenign:
			s.Benign++
		default:
			s.Calm++
		}
	}
	s.Groups = len(groups)
	return s
}

// data joins composed rows with the own ones, which weigh a fixed share of them.
func (o *RetrainOptions) data(ctx context.Context, own []detect.LabelledWindow) (data model.Data, err error) {
	if o.Draws > 0 {
		recipe := Default()
		list, err := recipe.scenes(composedSeed+o.Seed<<16, o.Draws)
		if err != nil {
			return data, err
		}
		o.say("composing %d scenes", len(list))
		if data, err = Rows(ctx, list); err != nil {
			return data, err
		}
	}
	namer, err := o.namer()
	if err != nil {
		return data, err
	}
	composed := float64(len(data.X)) // their weights are 1 on average
	if composed == 0 {
		composed = float64(len(own)) / (2 * ownShare) // they are all there is
	}
	var total [2]float64
	for i := range own {
		total[side(&own[i])] += float64(own[i].Weight)
	}
	for i := range own {
		w := &own[i]
		weight := min(mostWeight, ownShare*composed/total[side(w)]) * float64(w.Weight)
		data.X, data.Y = append(data.X, w.Features), append(data.Y, int(namer.class(w)))
		data.Weight = append(data.Weight, float32(weight))
	}
	return data, nil
}

// side is 1 for an attack.
func side(w *detect.LabelledWindow) int {
	if w.Label == detect.LabelAttack {
		return 1
	}
	return 0
}

// namer finds the class of attacks whose kind is not known: the likeliest, as the base sees it.
type namer struct{ base *detect.Trees }

func (o *RetrainOptions) namer() (namer, error) {
	base := o.Base
	if base == nil {
		base = o.Live
	}
	trees, err := detect.NewTrees(base)
	return namer{trees}, err
}

func (n namer) class(w *detect.LabelledWindow) traffic.Kind {
	if w.Label != detect.LabelAttack {
		return traffic.KindBenign
	}
	if w.Kind != traffic.KindBenign && int(w.Kind) < traffic.TreeClasses {
		return w.Kind
	}
	var p detect.Probabilities
	n.base.Classify(w.Features, &p)
	best := traffic.KindOther
	for k := traffic.KindSYNFlood; k < traffic.KindOther; k++ {
		if p[k] > p[best] {
			best = k
		}
	}
	return best
}

func (o *RetrainOptions) grow(ctx context.Context, data model.Data) (*model.Trees, error) {
	recipe := Default()
	recipe.Seed, recipe.Rounds = o.Seed, o.Rounds
	o.say("%d rounds on %d rows", o.Rounds, len(data.X))
	if o.Base == nil {
		return recipe.Grow(ctx, data, model.Data{})
	}
	trees, err := o.Base.Continue(ctx, data, recipe.params())
	if err != nil {
		return nil, fmt.Errorf("train: %w", err)
	}
	return trees, nil
}

// compare judges the live trees and the candidate on the rows that were kept from
// training, and on the suite.
func (o *RetrainOptions) compare(ctx context.Context, out *Outcome, test []detect.LabelledWindow) error {
	namer, err := o.namer()
	if err != nil {
		return err
	}
	suite := o.suite
	if suite == nil {
		if suite, err = Suite(); err != nil {
			return err
		}
	}
	for _, c := range []struct {
		name  string
		trees *model.Trees
		score *Score
	}{{"the live trees", o.Live, &out.Before}, {"the candidate", out.Trees, &out.After}} {
		o.say("judging %s on %d scenes", c.name, len(suite))
		if err := c.score.rows(c.trees, test, namer); err != nil {
			return err
		}
		if err := c.score.suite(ctx, c.trees, suite); err != nil {
			return err
		}
	}
	out.Objections = objections(&out.Before, &out.After)
	return nil
}

// rows judges single windows by the trees alone.
func (s *Score) rows(trees *model.Trees, test []detect.LabelledWindow, namer namer) error {
	judge, err := detect.NewTrees(trees)
	if err != nil {
		return err
	}
	settings := defaultSettings()
	loss := 0.0
	for i := range test {
		var p detect.Probabilities
		judge.Classify(test[i].Features, &p)
		loss -= math.Log(max(p[namer.class(&test[i])], 1e-7))
		attack := 1 - p[traffic.KindBenign]
		switch {
		case test[i].Label == detect.LabelAttack && attack > settings.Likely:
			s.Found++
		case test[i].Label != detect.LabelAttack && attack > settings.Sure:
			s.False++
		}
	}
	if len(test) > 0 {
		s.LogLoss = loss / float64(len(test))
	}
	return nil
}

// objections say in what the candidate is worse.
func objections(before, after *Score) []string {
	list := []string{}
	for _, c := range []struct {
		what       string
		old, young int
		more       bool // is worse
	}{
		{"attacks that the built-in suite finds", before.Suite, after.Suite, false},
		{"false alarms in the built-in suite", before.SuiteFalse, after.SuiteFalse, true},
		{"windows of your attacks that it finds", before.Found, after.Found, false},
		{"false alarms on your calm and benign windows", before.False, after.False, true},
	} {
		if c.more && c.young > c.old || !c.more && c.young < c.old {
			list = append(list, fmt.Sprintf("%s: %d, before %d", c.what, c.young, c.old))
		}
	}
	return list
}
