// SPDX-License-Identifier: Apache-2.0

package model

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
)

// TrainTrees grows a new ensemble on labelled rows, by gradient boosting as
// XGBoost does it (Chen and Guestrin 2016, arXiv:1603.02754). The result depends on
// the data and the parameters alone, to the last bit, however many processors
// there are; those of another kind may round an exponential differently. An error
// names the row and the feature, or the parameter. It ends early, with the error
// of ctx, between two trees.
func TrainTrees(ctx context.Context, data Data, p TreeParams) (*Trees, error) {
	t, err := startTrees(data, &p)
	if err == nil {
		err = boost(ctx, t, data, &p)
	}
	if err != nil {
		return nil, fmt.Errorf("train trees: %w", err)
	}
	return t, nil
}

// startTrees makes the ensemble of no trees that training begins with.
func startTrees(data Data, p *TreeParams) (*Trees, error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	if len(data.X) == 0 {
		return nil, errors.New("no rows")
	}
	features := len(data.X[0])
	if p.Schema != nil && len(p.Schema) != features {
		return nil, fmt.Errorf("%d feature names for rows of %d features", len(p.Schema), features)
	}
	if err := p.Schema.Check(); err != nil {
		return nil, err
	}
	t, err := newTrees(p.Objective, p.outputs(data), features, []float32{p.BaseScore})
	if err != nil {
		return nil, err
	}
	t.schema = slices.Clone(p.Schema)
	t.seal()
	return t, nil
}

// Continue returns a new ensemble of t's trees followed by p.Rounds more that are
// grown on data, which has t's features in t's order: incremental boosting. What t
// knows fades only as far as data contradicts it, so data should hold old rows
// besides the new. With EarlyStop, no round is kept that is not better than t on
// the validation rows. Objective, Classes, BaseScore and Schema of p are not used.
func (t *Trees) Continue(ctx context.Context, data Data, p TreeParams) (*Trees, error) {
	p.Objective, p.Classes, p.BaseScore = t.objective, len(t.base), 0.5
	if err := p.check(); err != nil {
		return nil, fmt.Errorf("continue trees: %w", err)
	}
	c := t.clone()
	for name := range c.attributes {
		if name == "best_iteration" || name == "best_score" || name == "best_ntree_limit" {
			delete(c.attributes, name) // of the rounds before
		}
	}
	if err := boost(ctx, c, data, &p); err != nil {
		return nil, fmt.Errorf("continue trees: %w", err)
	}
	return c, nil
}

// clone copies what add and seal change.
func (t *Trees) clone() *Trees {
	c := *t
	c.attributes = maps.Clone(t.attributes)
	c.nodes, c.leaf, c.stats = slices.Clone(t.nodes), slices.Clone(t.leaf), slices.Clone(t.stats)
	c.roots, c.class, c.depth = slices.Clone(t.roots), slices.Clone(t.class), slices.Clone(t.depth)
	return &c
}

// truncate drops all trees but the first n.
func (t *Trees) truncate(n int) {
	if n >= len(t.roots) {
		return
	}
	end := t.roots[n]
	t.nodes, t.leaf, t.stats = slices.Clip(t.nodes[:end]), slices.Clip(t.leaf[:end]), slices.Clip(t.stats[:end])
	t.roots, t.class, t.depth = slices.Clip(t.roots[:n]), slices.Clip(t.class[:n]), slices.Clip(t.depth[:n])
}

// boost adds p.Rounds rounds to t.
func boost(ctx context.Context, t *Trees, data Data, p *TreeParams) error {
	if err := data.checkTraining(t.features, t.Classes()); err != nil {
		return err
	}
	if n := len(t.roots) + p.Rounds*len(t.base); n > maxTrees {
		return fmt.Errorf("%d trees, at most %d are allowed", n, maxTrees)
	}
	train := newFit(t, data)
	var held *fit
	if p.Validation != nil {
		if err := p.Validation.check(t.features, t.Classes()); err != nil {
			return fmt.Errorf("validation: %w", err)
		}
		held = newFit(t, *p.Validation)
	}
	g := newGrower(data, p)
	stop := newStopper(t, p, held)
	for round := 1; round <= p.Rounds; round++ {
		if err := growRound(ctx, t, g, train, held); err != nil {
			return fmt.Errorf("round %d: %w", round, err)
		}
		if stop.after(round, train, held) {
			break
		}
	}
	stop.finish()
	return nil
}

// growRound adds one tree for each output, all on the gradients at its start.
func growRound(ctx context.Context, t *Trees, g *grower, train, held *fit) error {
	gradients := train.gradients()
	first := len(t.roots)
	for class := range t.base {
		if err := ctx.Err(); err != nil {
			return err
		}
		raw := g.grow(gradients[class], uint64(len(t.roots)))
		raw.class = class
		if err := t.add(raw); err != nil {
			return fmt.Errorf("tree %d: %w", len(t.roots), err)
		}
	}
	train.advance(first)
	if held != nil {
		held.advance(first)
	}
	return nil
}

// stopper decides when training ends.
type stopper struct {
	trees *Trees
	p     *TreeParams
	best  float64
	round int // of the best loss
	keep  int // trees up to there
}

func newStopper(t *Trees, p *TreeParams, held *fit) *stopper {
	s := &stopper{trees: t, p: p, best: math.Inf(1), keep: len(t.roots)}
	if held != nil && len(t.roots) > 0 { // what is continued may be the best already
		s.best = held.loss()
	}
	return s
}

// after notes the losses of a round and says whether it was the last.
func (s *stopper) after(round int, train, held *fit) bool {
	validation := math.NaN()
	if held != nil {
		validation = held.loss()
	}
	if s.p.Report != nil {
		s.p.Report(Round{Number: round, Train: train.loss(), Validation: validation})
	}
	if s.p.EarlyStop == 0 {
		return false
	}
	if validation < s.best {
		s.best, s.round, s.keep = validation, round, len(s.trees.roots)
	}
	return round-s.round >= s.p.EarlyStop
}

// finish drops the rounds after the best.
func (s *stopper) finish() {
	if s.p.EarlyStop > 0 {
		s.trees.truncate(s.keep)
	}
}

// gradient is the first and the second derivative of the loss of a row.
type gradient struct{ g, h float32 }

// fit is how the ensemble stands with a set of rows.
type fit struct {
	trees   *Trees
	data    Data
	margins []float32 // row × output
	byClass [][]gradient
}

func newFit(t *Trees, d Data) *fit {
	f := &fit{trees: t, data: d, margins: make([]float32, len(d.X)*len(t.base))}
	parallel(chunks(len(d.X)), func(chunk int) {
		for i := range chunkRange(chunk, len(d.X)) {
			t.Margin(d.X[i], f.row(i))
		}
	})
	return f
}

// row returns the margins of row i.
func (f *fit) row(i int) []float32 {
	k := len(f.trees.base)
	return f.margins[i*k : (i+1)*k]
}

// advance adds the trees from first on to the margins, in the order and the
// rounding of Margin.
func (f *fit) advance(first int) {
	t := f.trees
	parallel(chunks(len(f.data.X)), func(chunk int) {
		room := make([]float32, 2*t.features)
		for i := range chunkRange(chunk, len(f.data.X)) {
			t.sum(first, spread(f.data.X[i], room), f.row(i))
		}
	})
}

func (f *fit) loss() float64 {
	var sum lossSum
	for i, y := range f.data.Y {
		sum.add(f.trees.objective, f.row(i), y, f.data.weight(i))
	}
	return sum.mean()
}

// gradients returns, by output, the derivatives of each row's loss.
func (f *fit) gradients() [][]gradient {
	if f.byClass == nil {
		f.byClass = make([][]gradient, len(f.trees.base))
		for class := range f.byClass {
			f.byClass[class] = make([]gradient, len(f.data.X))
		}
	}
	parallel(chunks(len(f.data.X)), func(chunk int) {
		p := make([]float32, len(f.trees.base))
		for i := range chunkRange(chunk, len(f.data.X)) {
			copy(p, f.row(i))
			f.derive(i, p)
		}
	})
	return f.byClass
}

// derive sets the derivatives of row i, whose margins p holds and loses.
func (f *fit) derive(i int, p []float32) {
	const least = 1e-16
	w := f.data.weight(i)
	if f.trees.objective == Logistic {
		q := sigmoid(p[0])
		f.byClass[0][i] = gradient{(q - float32(f.data.Y[i])) * w, max(q*(1-q), least) * w}
		return
	}
	softmax(p)
	for class, q := range p {
		g := q
		if class == f.data.Y[i] {
			g--
		}
		f.byClass[class][i] = gradient{g * w, max(2*q*(1-q), least) * w}
	}
}

// rowsAtOnce is how many rows a worker takes; what it computes of them does not
// depend on it.
const rowsAtOnce = 1024

func chunks(rows int) int { return (rows + rowsAtOnce - 1) / rowsAtOnce }

// chunkRange yields the rows of a chunk.
func chunkRange(chunk, rows int) func(func(int) bool) {
	return func(yield func(int) bool) {
		for i := chunk * rowsAtOnce; i < min((chunk+1)*rowsAtOnce, rows); i++ {
			if !yield(i) {
				return
			}
		}
	}
}

// parallel calls do(0) to do(n−1), on as many goroutines as there are processors.
// Each call has to write to places of its own, so that their order is no matter.
func parallel(n int, do func(int)) {
	workers := min(runtime.GOMAXPROCS(0), n)
	if workers <= 1 {
		for i := range n {
			do(i)
		}
		return
	}
	var next atomic.Int64
	var group sync.WaitGroup
	for range workers {
		group.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				do(i)
			}
		})
	}
	group.Wait()
}
