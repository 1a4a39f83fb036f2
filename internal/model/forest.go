// SPDX-License-Identifier: Apache-2.0

package model

import (
	"math"
	"slices"
)

// Limits of a forest, whoever made it. They bound the memory of a file that is read.
const (
	MaxForestFeatures = 256     // columns
	MaxForestTrees    = 1000    // trees
	MaxForestSample   = 4096    // rows a tree grows from
	maxForestNodes    = 200_000 // of all trees: 2.4 MB
	maxForestDepth    = 64
)

// Forest is an isolation forest (Liu, Ting and Zhou, 2008): the fewer random
// splits set a vector apart from the training data, the higher its score. It is
// immutable; any number of goroutines may use it.
//
// A NaN is unknown, and counts as the median of its training column: an unknown
// feature makes a vector neither more nor less of an outlier.
type Forest struct {
	schema Schema    // nil where the caller gave none
	fill   []float32 // what stands for NaN, by column
	sample int       // rows that each tree grew from
	depth  int       // of the deepest leaf
	roots  []int32
	nodes  []forestNode
	expect []float64 // expectedPath by number of rows, 0..sample
}

// forestNode is a split or a leaf. Children are neighbours: a vector goes to left
// when its feature is at most threshold, else to left+1. A leaf leads to itself,
// with a threshold that nothing exceeds, so that a walk may go on for too long.
type forestNode struct {
	threshold float32
	left      int32
	size      uint16 // training rows that came here
	feature   uint8
	depth     uint8 // of the root 0
}

// newForest returns a forest without trees.
func newForest(schema Schema, fill []float32, sample int) *Forest {
	f := &Forest{schema: slices.Clone(schema), fill: fill, sample: sample, expect: make([]float64, sample+1)}
	for n := range f.expect {
		f.expect[n] = expectedPath(n)
	}
	return f
}

// expectedPath is the mean depth at which an unsuccessful search ends in a random
// binary tree of n rows: what an isolation tree not grown further would have added.
func expectedPath(n int) float64 {
	switch {
	case n < 2:
		return 0
	case n == 2:
		return 1
	}
	m := float64(n)
	return 2*(math.Log(m-1)+eulerGamma) - 2*(m-1)/m
}

const eulerGamma = 0.57721566490153286060651209008240243

// Features returns how many columns a vector has.
func (f *Forest) Features() int { return len(f.fill) }

// Schema returns the names of the columns, nil if the forest was trained without.
func (f *Forest) Schema() Schema { return slices.Clone(f.schema) }

// Trees returns how many trees there are.
func (f *Forest) Trees() int { return len(f.roots) }

// Sample returns how many rows each tree grew from.
func (f *Forest) Sample() int { return f.sample }

// Score returns 0…1: near 1 for what few splits isolate, about 0.5 and below for
// what looks like the training data. It is scikit-learn's -score_samples. It
// allocates nothing. A vector of another length than Features has no score: NaN.
func (f *Forest) Score(x []float32) float64 {
	if len(x) != len(f.fill) {
		return math.NaN()
	}
	var v [MaxForestFeatures]float32
	f.known(&v, x)
	sum := 0.0
	roots := f.roots
	for ; len(roots) >= 4; roots = roots[4:] {
		sum += f.pathsOfFour(&v, roots)
	}
	for _, at := range roots {
		for range f.depth {
			at = f.step(&v, at)
		}
		sum += f.path(at)
	}
	return math.Exp2(-sum / (float64(len(f.roots)) * f.expect[f.sample]))
}

// pathsOfFour adds up the paths of v in four trees, walked side by side: none of
// the walks waits for another one's memory.
func (f *Forest) pathsOfFour(v *[MaxForestFeatures]float32, roots []int32) float64 {
	a, b, c, d := roots[0], roots[1], roots[2], roots[3]
	for range f.depth {
		a, b, c, d = f.step(v, a), f.step(v, b), f.step(v, c), f.step(v, d)
	}
	return f.path(a) + f.path(b) + f.path(c) + f.path(d)
}

// step returns the child of node at on the way of v. Which one is added, not
// branched on: a processor could only guess.
func (f *Forest) step(v *[MaxForestFeatures]float32, at int32) int32 {
	n := &f.nodes[at]
	right := int32(0)
	if v[n.feature] > n.threshold {
		right = 1
	}
	return n.left + right
}

// path returns the length of the path that ends in leaf at.
func (f *Forest) path(at int32) float64 {
	n := &f.nodes[at]
	return float64(n.depth) + f.expect[n.size]
}

// known copies x, with the training median where x is NaN.
func (f *Forest) known(v *[MaxForestFeatures]float32, x []float32) {
	for i, value := range x {
		if value != value {
			value = f.fill[i]
		}
		v[i] = value
	}
}

func (f *Forest) isLeaf(at int32) bool { return f.nodes[at].left == at }

// addLeaf appends a leaf, which is what a node is until it is split.
func (f *Forest) addLeaf(size, depth int) {
	f.nodes = append(f.nodes, forestNode{
		threshold: float32(math.Inf(1)),
		left:      int32(len(f.nodes)),
		size:      uint16(size),
		depth:     uint8(depth),
	})
	f.depth = max(f.depth, depth)
}

// Contributions says which features isolated x, one number a column, positive
// where a feature made x more of an outlier and negative where it made it less.
//
// Each split on the way of x is credited to its feature with the levels that it
// saved: the expected path of the rows it had, less the one level it costs, less
// the expected path of the rows that are left with x. In units of the forest's
// mean path, averaged over the trees, the credits add up to 1 + log2(Score(x)):
// 0 for an average vector, 1 for one that nothing resembles. It returns nil for a
// vector of another length than Features.
func (f *Forest) Contributions(x []float32) []float64 {
	if len(x) != len(f.fill) {
		return nil
	}
	var v [MaxForestFeatures]float32
	f.known(&v, x)
	credit := make([]float64, len(x))
	for _, at := range f.roots {
		for !f.isLeaf(at) {
			n, next := &f.nodes[at], f.step(&v, at)
			credit[n.feature] += f.expect[n.size] - 1 - f.expect[f.nodes[next].size]
			at = next
		}
	}
	unit := float64(len(f.roots)) * f.expect[f.sample]
	for i := range credit {
		credit[i] /= unit
	}
	return credit
}
