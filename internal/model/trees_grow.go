// SPDX-License-Identifier: Apache-2.0

package model

import (
	"math"
	"math/bits"
	"math/rand/v2"
	"slices"
)

// leastGain is what a split has to gain to be one, whatever gamma says; it is
// also the least sum of second derivatives that counts as not empty.
const leastGain = 1e-6

// sums are derivatives added up. In float64, so that the order of adding, which
// is fixed anyway, hardly matters.
type sums struct{ g, h float64 }

func (s sums) minus(o sums) sums { return sums{s.g - o.g, s.h - o.h} }
func (s sums) plus(o sums) sums  { return sums{s.g + o.g, s.h + o.h} }

func (s *sums) add(d gradient) {
	s.g += float64(d.g)
	s.h += float64(d.h)
}

// split is a way to part a node's rows; gain 0: there is none.
type split struct {
	gain        float32
	feature     int
	threshold   float32
	defaultLeft bool
	left, right sums
}

// openNode is a node of the level that is being grown.
type openNode struct {
	id   int32
	rows []int32 // ascending
	sum  sums
	best split
}

// finder looks for the best split of each node of a level among some features.
type finder interface {
	find(level []openNode, features []int, gradients []gradient)
}

// grower grows one tree at a time on the same rows.
type grower struct {
	p       *TreeParams
	columns [][]float32 // feature × row
	finder  finder
	rows    []int32 // of the current tree, partitioned by node
	spare   []int32
}

func newGrower(d Data, p *TreeParams) *grower {
	g := &grower{p: p, columns: make([][]float32, len(d.X[0]))}
	parallel(len(g.columns), func(f int) {
		g.columns[f] = make([]float32, len(d.X))
		for i, row := range d.X {
			g.columns[f][i] = row[f]
		}
	})
	if p.Method == Exact {
		g.finder = newSortedColumns(g)
	} else {
		g.finder = newBinnedColumns(g, d)
	}
	return g
}

// grow fits one tree to the gradients. number is the tree's place in the ensemble,
// which with the seed decides the rows and the features it may use.
func (g *grower) grow(gradients []gradient, number uint64) *rawTree {
	rng := rand.NewPCG(g.p.Seed, number)
	g.sampleRows(rng)
	features := g.sampleFeatures(rng)
	root := openNode{rows: g.rows}
	for _, row := range root.rows {
		root.sum.add(gradients[row])
	}
	raw := &rawTree{nodes: []rawNode{g.node(root.sum)}}
	level := []openNode{root}
	for range g.p.MaxDepth {
		g.finder.find(level, features, gradients)
		if level = g.divide(raw, level); len(level) == 0 {
			break
		}
	}
	g.prune(raw, 0)
	for i := range raw.nodes {
		if n := &raw.nodes[i]; n.isLeaf() {
			n.value = float32(g.p.Eta * float64(n.weight))
		}
	}
	return raw
}

// node is a leaf of rows with these sums.
func (g *grower) node(s sums) rawNode {
	return rawNode{left: -1, right: -1, stat: stat{cover: float32(s.h), weight: float32(g.weight(s))}}
}

// weight is what lowers the loss of rows with these sums most.
func (g *grower) weight(s sums) float64 {
	if s.h < g.p.MinChildWeight || s.h <= 0 {
		return 0
	}
	return -s.g / (s.h + g.p.Lambda)
}

// score is twice by how much that weight lowers the loss.
func (g *grower) score(s sums) float64 { return s.g * s.g / (s.h + g.p.Lambda) }

// consider replaces the best split by the one that sends left sums left, if it
// gains more. Of equal ones the first stays: that of the lowest feature and value.
func (g *grower) consider(best *split, n *openNode, left sums, feature int, threshold float32, defaultLeft bool) {
	right := n.sum.minus(left)
	if left.h < g.least() || right.h < g.least() {
		return
	}
	gain := float32(g.score(left) + g.score(right) - g.score(n.sum))
	if gain > leastGain && gain > best.gain {
		*best = split{gain, feature, threshold, defaultLeft, left, right}
	}
}

// divide turns the nodes that found a split into inner nodes and returns those of
// their children that may be split again.
func (g *grower) divide(raw *rawTree, level []openNode) (next []openNode) {
	for i := range level {
		n := &level[i]
		if n.best.gain <= 0 {
			continue
		}
		left, right := g.partition(n)
		id := int32(len(raw.nodes))
		at := &raw.nodes[n.id]
		at.left, at.right = id, id+1
		at.feature, at.value, at.defaultLeft, at.gain = int64(n.best.feature), n.best.threshold, n.best.defaultLeft, n.best.gain
		raw.nodes = append(raw.nodes, g.node(n.best.left), g.node(n.best.right))
		for i, child := range []openNode{{rows: left, sum: n.best.left}, {rows: right, sum: n.best.right}} {
			if child.id = id + int32(i); child.sum.h >= 2*g.least() {
				next = append(next, child)
			}
		}
	}
	return next
}

// least is the sum of second derivatives that each side of a split has to have.
func (g *grower) least() float64 { return max(g.p.MinChildWeight, leastGain) }

// partition parts the rows of a node in place, keeping their order.
func (g *grower) partition(n *openNode) (left, right []int32) {
	column, threshold, unknown := g.columns[n.best.feature], n.best.threshold, n.best.defaultLeft
	spare, at := g.spare[:0], 0
	for _, row := range n.rows {
		v := column[row]
		if v < threshold || (v != v && unknown) {
			n.rows[at] = row
			at++
		} else {
			spare = append(spare, row)
		}
	}
	copy(n.rows[at:], spare)
	return n.rows[:at], n.rows[at:]
}

// prune makes leaves of splits that gain less than gamma, from the leaves up.
func (g *grower) prune(raw *rawTree, at int32) {
	n := &raw.nodes[at]
	if n.isLeaf() {
		return
	}
	g.prune(raw, n.left)
	g.prune(raw, n.right)
	if raw.nodes[n.left].isLeaf() && raw.nodes[n.right].isLeaf() && float64(n.gain) < g.p.Gamma {
		*n = rawNode{left: -1, right: -1, stat: stat{cover: n.cover, weight: n.weight}}
	}
}

// sampleRows draws the rows of the next tree.
func (g *grower) sampleRows(rng *rand.PCG) {
	total := len(g.columns[0])
	if g.spare == nil {
		g.rows, g.spare = make([]int32, 0, total), make([]int32, 0, total)
	}
	g.rows = g.rows[:0]
	for row := range total {
		if g.p.Subsample >= 1 || uniform(rng) < g.p.Subsample {
			g.rows = append(g.rows, int32(row))
		}
	}
}

// sampleFeatures draws the features that the next tree may use, ascending.
func (g *grower) sampleFeatures(rng *rand.PCG) []int {
	all := make([]int, len(g.columns))
	for f := range all {
		all[f] = f
	}
	if g.p.Colsample >= 1 {
		return all
	}
	n := max(1, int(g.p.Colsample*float64(len(all))))
	for i := range n { // the first steps of a Fisher-Yates shuffle
		j, _ := bits.Mul64(rng.Uint64(), uint64(len(all)-i))
		all[i], all[i+int(j)] = all[i+int(j)], all[i]
	}
	return slices.Sorted(slices.Values(all[:n]))
}

// uniform draws from [0, 1). It is written out, as is the shuffle, because the
// methods of rand.Rand may draw differently in the next release of Go.
func uniform(rng *rand.PCG) float64 { return float64(rng.Uint64()>>11) / (1 << 53) }

// between is a threshold that parts low from high: low < threshold ≤ high.
func between(low, high float32) float32 {
	if middle := float32((float64(low) + float64(high)) / 2); middle > low {
		return middle
	}
	return high
}

// above is a threshold over a value, as far from it as XGBoost's.
func above(v float32) float32 {
	const apart = 1e-5
	return min(v+max(v, -v)+apart, math.MaxFloat32)
}

// reduce keeps, for each node, the best of the splits found by feature; of equal
// ones that of the lowest feature.
func reduce(level []openNode, byFeature [][]split) {
	for i := range level {
		for _, found := range byFeature {
			if found[i].gain > level[i].best.gain {
				level[i].best = found[i]
			}
		}
	}
}

// heavier says whether unknown values go left when no row had one: with the most.
func heavier(s *split, unseen bool) {
	if unseen {
		s.defaultLeft = s.left.h >= s.right.h
	}
}
