// SPDX-License-Identifier: Apache-2.0

package model

import "fmt"

// Contributions says how much of margin class of row x comes from each feature:
// out[i] is feature i's share and out[Features()] the bias, all in units of the
// margin, and together they are the margin up to rounding. These are Shapley
// values under the paths the training rows took (TreeSHAP, Lundberg et al. 2018,
// arXiv:1802.03888; XGBoost's pred_contribs). The cost grows with leaves × depth²,
// a few milliseconds for 100 trees of depth 6: for an incident, not for each window.
// x holds Features() values and out Features()+1; other lengths panic.
func (t *Trees) Contributions(x []float32, class int, out []float32) {
	if len(x) != t.features || len(out) != t.features+1 || class < 0 || class >= len(t.base) {
		panic(fmt.Sprintf("model: class %d of a row of %d features into %d values, for trees of %d classes and %d features",
			class, len(x), len(out), len(t.base), t.features))
	}
	levels := t.MaxDepth() + 2
	s := shap{trees: t, row: spread(x, nil), sum: make([]float64, len(out)), scratch: make([]pathStep, levels*(levels+1))}
	bias := float64(t.base[class])
	for i, root := range t.roots {
		if int(t.class[i]) != class {
			continue
		}
		bias += t.expected(root)
		if t.depth[i] > 0 {
			s.walk(root, nil, s.scratch, pathStep{zero: 1, one: 1, feature: -1})
		}
	}
	s.sum[t.features] = bias
	for i, v := range s.sum {
		out[i] = float32(v)
	}
}

// expected is what a tree adds on average over its training rows.
func (t *Trees) expected(at int32) float64 {
	if t.isLeaf(at) {
		return float64(t.leaf[at])
	}
	left, right := t.fractions(at)
	low, high := t.children(at)
	return float64(left*t.expected(low)) + float64(right*t.expected(high))
}

// fractions is which part of the training rows of a node went left and right.
func (t *Trees) fractions(at int32) (left, right float64) {
	low, high := t.children(at)
	l, r := float64(t.stats[low].cover), float64(t.stats[high].cover)
	if l+r == 0 {
		return 0.5, 0.5
	}
	return l / (l + r), r / (l + r)
}

// pathStep is a feature on the way to a leaf: which part of the rows goes this way
// if the feature is unknown (zero) and if it is that of x (one: 0 or 1), and the
// weight of the subsets of features of each size.
type pathStep struct {
	feature   int32
	zero, one float64
	weight    float64
}

// shap is the state of one explanation.
type shap struct {
	trees   *Trees
	row     []float32 // spread
	sum     []float64
	scratch []pathStep
}

// walk goes down from a node that was reached over parent and then last. free is
// where paths may be written from here on.
func (s *shap) walk(at int32, parent, free []pathStep, last pathStep) {
	path := append(free[:0:len(parent)+1], parent...)
	path = extend(path, last)
	free = free[len(path):]
	t := s.trees
	if t.isLeaf(at) {
		for i := 1; i < len(path); i++ {
			p := path[i]
			s.sum[p.feature] += unwoundWeight(path, i) * (p.one - p.zero) * float64(t.leaf[at])
		}
		return
	}
	feature := int32(t.nodes[at].feature())
	before := pathStep{zero: 1, one: 1}
	for i := 1; i < len(path); i++ {
		if path[i].feature == feature {
			before = path[i]
			path = unwind(path, i)
			break
		}
	}
	low, _ := t.children(at)
	taken := step(t.nodes, s.row, at)
	left, right := t.fractions(at)
	for i, fraction := range [...]float64{left, right} {
		child := low + int32(i)
		step := pathStep{feature: feature, zero: before.zero * fraction}
		if child == taken {
			step.one = before.one
		}
		if step.zero != 0 || step.one != 0 { // else no subset of features leads here
			s.walk(child, path, free, step)
		}
	}
}

// extend adds a step to a path and spreads the weights over the subsets.
func extend(path []pathStep, last pathStep) []pathStep {
	n := len(path)
	last.weight = 0
	if n == 0 {
		last.weight = 1
	}
	path = append(path, last)
	for i := n - 1; i >= 0; i-- {
		path[i+1].weight += last.one * path[i].weight * float64(i+1) / float64(n+1)
		path[i].weight *= last.zero * float64(n-i) / float64(n+1)
	}
	return path
}

// unwind takes step k out of the path again.
func unwind(path []pathStep, k int) []pathStep {
	n := len(path) - 1
	removed, next := path[k], path[n].weight
	for i := n - 1; i >= 0; i-- {
		if removed.one != 0 {
			weight := path[i].weight
			path[i].weight = next * float64(n+1) / (float64(i+1) * removed.one)
			next = weight - path[i].weight*removed.zero*float64(n-i)/float64(n+1)
		} else {
			path[i].weight *= float64(n+1) / (removed.zero * float64(n-i))
		}
	}
	for i := k; i < n; i++ {
		path[i].feature, path[i].zero, path[i].one = path[i+1].feature, path[i+1].zero, path[i+1].one
	}
	return path[:n]
}

// unwoundWeight is the sum of the weights that unwind(path, k) would leave.
func unwoundWeight(path []pathStep, k int) (total float64) {
	n := len(path) - 1
	removed, next := path[k], path[n].weight
	for i := n - 1; i >= 0; i-- {
		if removed.one != 0 {
			weight := next * float64(n+1) / (float64(i+1) * removed.one)
			total += weight
			next = path[i].weight - weight*removed.zero*float64(n-i)/float64(n+1)
		} else {
			total += path[i].weight * float64(n+1) / (removed.zero * float64(n-i))
		}
	}
	return total
}
