// SPDX-License-Identifier: Apache-2.0

package model

import (
	"fmt"
	"math"
	"math/bits"
	"math/rand/v2"
	"slices"
)

// ForestParams says how a forest is grown. Zero values are the defaults.
type ForestParams struct {
	Trees  int    // 100
	Sample int    // rows a tree grows from, drawn without putting back: 256
	Seed   uint64 // the same rows, parameters and seed give the same forest
	Schema Schema // names of the columns; needed to write the forest
}

func (p ForestParams) withDefaults() ForestParams {
	if p.Trees == 0 {
		p.Trees = 100
	}
	if p.Sample == 0 {
		p.Sample = 256
	}
	return p
}

func (p ForestParams) check() error {
	switch {
	case p.Trees < 1 || p.Trees > MaxForestTrees:
		return fmt.Errorf("a forest has 1 to %d trees, not %d", MaxForestTrees, p.Trees)
	case p.Sample < 2 || p.Sample > MaxForestSample:
		return fmt.Errorf("a tree grows from 2 to %d rows, not %d", MaxForestSample, p.Sample)
	case p.Trees*(2*p.Sample-1) > maxForestNodes:
		return fmt.Errorf("%d trees of %d rows may have more than %d nodes: use fewer", p.Trees, p.Sample, maxForestNodes)
	}
	return p.Schema.Check()
}

// TrainForest grows an isolation forest from rows, one window each. NaN is
// unknown and counts as the median of what is known in its column. It refuses
// fewer rows than a tree takes, rows of different lengths, infinite values, and
// rows that are all the same.
func TrainForest(rows [][]float32, p ForestParams) (*Forest, error) {
	p = p.withDefaults()
	if err := p.check(); err != nil {
		return nil, fmt.Errorf("train forest: %w", err)
	}
	if err := checkForestRows(rows, p); err != nil {
		return nil, fmt.Errorf("train forest: %w", err)
	}
	g := newForestGrower(rows, p)
	for range p.Trees {
		g.tree()
	}
	if len(g.forest.nodes) == p.Trees {
		return nil, fmt.Errorf("train forest: all %d rows are the same: nothing can be told apart", len(rows))
	}
	g.forest.nodes = slices.Clone(g.forest.nodes) // without room to grow
	return g.forest, nil
}

func checkForestRows(rows [][]float32, p ForestParams) error {
	if len(rows) < p.Sample {
		return fmt.Errorf("%d rows are too few, a tree takes %d: record normal traffic for longer", len(rows), p.Sample)
	}
	width := len(rows[0])
	if width < 1 || width > MaxForestFeatures {
		return fmt.Errorf("a row has %d columns, not 1 to %d", width, MaxForestFeatures)
	}
	if p.Schema != nil && len(p.Schema) != width {
		return fmt.Errorf("a row has %d columns, the schema %d names", width, len(p.Schema))
	}
	return checkRows(rows)
}

// checkRows says that rows are of one length and nowhere infinite.
func checkRows(rows [][]float32) error {
	for i, row := range rows {
		if len(row) != len(rows[0]) {
			return fmt.Errorf("row %d has %d columns, the first row %d", i, len(row), len(rows[0]))
		}
		for c, v := range row {
			if math.IsInf(float64(v), 0) {
				return fmt.Errorf("row %d, column %d is infinite", i, c)
			}
		}
	}
	return nil
}

// medians returns the median of each column's known values, 0 where none is known.
func medians(rows [][]float32) []float32 {
	fill := make([]float32, len(rows[0]))
	column := make([]float32, 0, len(rows))
	for c := range fill {
		column = column[:0]
		for _, row := range rows {
			if v := row[c]; v == v {
				column = append(column, v)
			}
		}
		if len(column) > 0 {
			slices.Sort(column)
			fill[c] = column[len(column)/2]
		}
	}
	return fill
}

// forestGrower grows the trees of one forest, one after the other, in the same memory.
type forestGrower struct {
	forest *Forest
	rows   [][]float32
	limit  int // depth at which a tree ends: that of a balanced one

	random  *rand.Rand
	order   []int // rows, shuffled further for each tree
	columns []int // in the order in which a split tries them
}

func newForestGrower(rows [][]float32, p ForestParams) *forestGrower {
	g := &forestGrower{
		forest:  newForest(p.Schema, medians(rows), p.Sample),
		rows:    rows,
		limit:   bits.Len(uint(p.Sample - 1)),
		random:  rand.New(rand.NewPCG(p.Seed, 0)),
		order:   make([]int, len(rows)),
		columns: make([]int, len(rows[0])),
	}
	for i := range g.order {
		g.order[i] = i
	}
	for i := range g.columns {
		g.columns[i] = i
	}
	return g
}

// tree grows one tree.
func (g *forestGrower) tree() {
	sample := g.forest.sample
	for i := range sample {
		j := i + g.random.IntN(len(g.order)-i)
		g.order[i], g.order[j] = g.order[j], g.order[i]
	}
	root := len(g.forest.nodes)
	g.forest.roots = append(g.forest.roots, int32(root))
	g.forest.addLeaf(sample, 0)
	g.grow(root, g.order[:sample], 0)
}

// grow splits the node at that holds rows, until they are alone, alike or too deep.
func (g *forestGrower) grow(at int, rows []int, depth int) {
	f := g.forest
	if depth == g.limit || len(rows) < 2 {
		return
	}
	column, threshold, found := g.split(rows)
	if !found {
		return
	}
	middle := 0
	for i, row := range rows {
		if g.value(row, column) <= threshold {
			rows[i], rows[middle] = rows[middle], rows[i]
			middle++
		}
	}
	left := len(f.nodes)
	f.addLeaf(middle, depth+1)
	f.addLeaf(len(rows)-middle, depth+1)
	n := &f.nodes[at]
	n.left, n.feature, n.threshold = int32(left), uint8(column), threshold
	g.grow(left, rows[:middle], depth+1)
	g.grow(left+1, rows[middle:], depth+1)
}

// split draws a column among those that vary in rows, and a threshold between its
// smallest value (which goes left) and its largest (which goes right).
func (g *forestGrower) split(rows []int) (column int, threshold float32, found bool) {
	for i := range g.columns {
		j := i + g.random.IntN(len(g.columns)-i)
		g.columns[i], g.columns[j] = g.columns[j], g.columns[i]
		column = g.columns[i]
		low, high := g.bounds(rows, column)
		if low == high {
			continue
		}
		u := g.random.Float64()
		threshold = float32(float64(low) + u*(float64(high)-float64(low)))
		if threshold >= high { // rounded up
			threshold = low
		}
		return column, threshold, true
	}
	return 0, 0, false
}

func (g *forestGrower) bounds(rows []int, column int) (low, high float32) {
	low = g.value(rows[0], column)
	high = low
	for _, row := range rows[1:] {
		v := g.value(row, column)
		low, high = min(low, v), max(high, v)
	}
	return low, high
}

func (g *forestGrower) value(row, column int) float32 {
	v := g.rows[row][column]
	if v != v {
		return g.forest.fill[column]
	}
	return v
}
