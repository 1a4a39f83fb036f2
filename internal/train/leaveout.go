// SPDX-License-Identifier: Apache-2.0

package train

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/sentinel-x/sentinel-x/internal/model"
	"github.com/sentinel-x/sentinel-x/internal/scene"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// LeftOut is how the detector did on attacks that its trees have never seen.
type LeftOut struct {
	// Name is the family, or "kind" and a kind of attack: then all scenes with an attack of that kind were left out.
	Name   string   `json:"left_out"`
	Rows   int      `json:"rows"`  // that the trees were made from
	Cells  []Cell   `json:"cells"` // by ratio, all families together
	Missed []string `json:"missed"`
}

// kindPrefix begins the names of kinds among what is left out.
const kindPrefix = "kind "

// LeaveOutRecipe is Default with fewer draws and rounds: one of its trainings takes seconds.
func LeaveOutRecipe() Recipe {
	r := Default()
	r.Draws, r.Rounds = 3, 40
	return r
}

// Leavings lists what LeaveOneOut leaves out unless it is told: every family of attacks, and every kind.
func Leavings() (names []string) {
	for _, name := range scene.Families() {
		if !isCalm(name) {
			names = append(names, name)
		}
	}
	for k := traffic.KindBenign + 1; k < traffic.NumKinds; k++ {
		if len(familiesOf(k)) > 0 {
			names = append(names, kindPrefix+k.String())
		}
	}
	return names
}

// familiesOf returns the families whose attacks are all of a kind.
func familiesOf(kind traffic.Kind) (names []string) {
	for _, name := range scene.Families() {
		list, err := scene.Catalogue(scene.CatalogueOptions{Seed: 1, Draws: 8, Families: []string{name}})
		if err == nil && !slices.ContainsFunc(list, func(s scene.Scenario) bool { return s.Kind != kind }) {
			names = append(names, name)
		}
	}
	return names
}

// leaves reports whether a scene is left out.
func leaves(name string, s *scene.Scenario) bool {
	kind, ok := strings.CutPrefix(name, kindPrefix)
	if !ok {
		return s.Family == name
	}
	isKind := func(k traffic.Kind) bool { return k.String() == kind }
	return isKind(s.Kind) || slices.ContainsFunc(s.Also, isKind)
}

// judged returns the families to judge by.
func judged(name string) ([]string, error) {
	kind, ok := strings.CutPrefix(name, kindPrefix)
	if !ok {
		if isCalm(name) || !slices.Contains(scene.Families(), name) {
			return nil, fmt.Errorf("leave out %q: it is no family of attacks", name)
		}
		return []string{name}, nil
	}
	for k := traffic.KindBenign + 1; k < traffic.NumKinds; k++ {
		if k.String() == kind && len(familiesOf(k)) > 0 {
			return familiesOf(k), nil
		}
	}
	return nil, fmt.Errorf("leave out %q: there are no families of that kind", name)
}

// LeaveOneOut trains trees anew without each of the names in turn (nil: Leavings), and judges them on it by o, whose
// trees, families and recordings do not count. Scenes to learn from are composed once. done is told of
// each as soon as it is through, in any order; nil: nobody is.
func LeaveOneOut(ctx context.Context, r Recipe, o EvalOptions, names []string, done func(LeftOut)) ([]LeftOut, error) {
	if names == nil {
		names = Leavings()
	}
	for _, name := range names {
		if _, err := judged(name); err != nil {
			return nil, err
		}
	}
	scenes, err := r.Scenes()
	if err != nil {
		return nil, err
	}
	learn, err := newLibrary(ctx, scenes)
	if err != nil {
		return nil, err
	}
	if scenes, err = r.scenes(r.Seed+validationSeed, 1); err != nil {
		return nil, err
	}
	validate, err := newLibrary(ctx, scenes)
	if err != nil {
		return nil, err
	}
	return leaveOneOut(ctx, &r, learn, validate, o, names, done)
}

// leaveOneOut is LeaveOneOut with the scenes composed.
func leaveOneOut(ctx context.Context, r *Recipe, learn, validate *library, o EvalOptions, names []string, done func(LeftOut)) ([]LeftOut, error) {
	list, errs := make([]LeftOut, len(names)), make([]error, len(names))
	var telling sync.Mutex
	inParallel(ctx, len(names), func(i int) {
		if list[i], errs[i] = leaveOut(ctx, r, learn, validate, o, names[i]); errs[i] == nil && done != nil {
			telling.Lock()
			defer telling.Unlock()
			done(list[i])
		}
	})
	if err := cmp.Or(append(errs, ctx.Err())...); err != nil {
		return nil, fmt.Errorf("leave one out: %w", err)
	}
	return list, nil
}

func leaveOut(ctx context.Context, r *Recipe, learn, validate *library, o EvalOptions, name string) (LeftOut, error) {
	rows := learn.without(name)
	left := LeftOut{Name: name, Rows: len(rows.X)}
	trees, err := r.Grow(ctx, rows, validate.without(name))
	if err != nil {
		return left, fmt.Errorf("%s: %w", name, err)
	}
	o.Trees, o.Data = trees, ""
	if err := left.judge(ctx, o); err != nil {
		return left, fmt.Errorf("%s: %w", name, err)
	}
	return left, nil
}

func (l *LeftOut) judge(ctx context.Context, o EvalOptions) (err error) {
	if o.Families, err = judged(l.Name); err != nil {
		return err
	}
	reports, err := Evaluate(ctx, o)
	if err != nil {
		return err
	}
	for _, c := range reports[0].Totals {
		if c.Attack {
			l.Cells = append(l.Cells, c)
		}
	}
	l.Missed = reports[0].Missed
	return nil
}

// library holds what can be learnt from scenes, scene by scene.
type library struct {
	scenes []scene.Scenario
	parts  []model.Data
}

func newLibrary(ctx context.Context, list []scene.Scenario) (*library, error) {
	l := &library{list, make([]model.Data, len(list))}
	errs := make([]error, len(list))
	inParallel(ctx, len(list), func(i int) { l.parts[i], errs[i] = rowsOf(&list[i]) })
	for i, err := range errs {
		if err != nil {
			return nil, fmt.Errorf("learn from scene %s: %w", list[i].Name, err)
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("compose %d scenes: %w", len(list), err)
	}
	return l, nil
}

// without returns the rows of all scenes but those that are left out, weighted anew.
func (l *library) without(name string) (d model.Data) {
	for i := range l.scenes {
		if !leaves(name, &l.scenes[i]) {
			d.X, d.Y = append(d.X, l.parts[i].X...), append(d.Y, l.parts[i].Y...)
		}
	}
	balance(&d)
	return d
}
