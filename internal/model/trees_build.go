// SPDX-License-Identifier: Apache-2.0

package model

import (
	"errors"
	"fmt"
	"math"
)

// What a model may be at most: far above what detects floods well, and low enough
// that a hostile file costs neither the daemon's memory nor its time.
const (
	maxTrees      = 8192
	maxTreeNodes  = 1 << 16 // of one tree; node.next counts as far
	maxModelNodes = 1 << 18 // of all trees
	maxTreeDepth  = 64
	maxClasses    = 256
)

// rawNode is a node of a tree that is read or grown: children by their index in
// the tree, −1 at a leaf.
type rawNode struct {
	left, right int32
	feature     int64
	value       float32 // threshold, or what the leaf adds
	defaultLeft bool
	stat
}

func (n *rawNode) isLeaf() bool { return n.left < 0 }

// rawTree is a tree as files and trainers have it; node 0 is its root. Nodes
// that nothing leads to (XGBoost leaves pruned ones behind) are dropped.
type rawTree struct {
	class int
	nodes []rawNode
}

// newTrees starts an ensemble without trees. baseScore holds one value, or one
// an output: a probability for Logistic, a margin for Softmax.
func newTrees(objective Objective, outputs, features int, baseScore []float32) (*Trees, error) {
	switch {
	case features < 1 || features > maxFeatures:
		return nil, fmt.Errorf("%d features, 1 to %d are allowed", features, maxFeatures)
	case outputs < 1 || outputs > maxClasses:
		return nil, fmt.Errorf("%d classes, at most %d are allowed", outputs, maxClasses)
	case len(baseScore) != 1 && len(baseScore) != outputs:
		return nil, fmt.Errorf("%d base scores for %d outputs", len(baseScore), outputs)
	}
	t := &Trees{objective: objective, features: features, baseScore: baseScore, base: make([]float32, outputs)}
	for i := range t.base {
		score := baseScore[min(i, len(baseScore)-1)]
		if !finite(score) {
			return nil, fmt.Errorf("base score %g is not finite", score)
		}
		t.base[i] = score
		if objective == Logistic {
			t.base[i] = logit(score)
		}
	}
	return t, nil
}

// logit is XGBoost's, with its clamp, rounded once. XGBoost uses the logf of its C
// library, which rounds about one value in 300 the other way (glibc); 0.5 is exact.
func logit(p float32) float32 {
	const edge = 1e-6
	p = min(max(p, edge), 1-float32(edge))
	return float32(-math.Log(float64(1/p - 1)))
}

func finite(v float32) bool { return v-v == 0 }

// add checks a tree and appends it in the layout of Margin. Errors name the node.
func (t *Trees) add(raw *rawTree) error {
	switch {
	case len(t.roots) >= maxTrees:
		return fmt.Errorf("more than %d trees", maxTrees)
	case raw.class < 0 || raw.class >= len(t.base):
		return fmt.Errorf("belongs to class %d of %d", raw.class, len(t.base))
	case len(raw.nodes) == 0:
		return errors.New("has no nodes")
	case len(raw.nodes) > maxTreeNodes:
		return fmt.Errorf("has %d nodes, at most %d are allowed", len(raw.nodes), maxTreeNodes)
	case len(t.nodes)+len(raw.nodes) > maxModelNodes:
		return fmt.Errorf("is over the %d nodes allowed for all trees", maxModelNodes)
	}
	order, depth, err := raw.walk(t.features)
	if err != nil {
		return err
	}
	t.class = append(t.class, int32(raw.class))
	t.depth = append(t.depth, uint8(depth))
	t.place(raw, order)
	return nil
}

// walk lists the nodes that can be reached, breadth first and siblings side by
// side, checking each, and returns the depth of the deepest.
func (raw *rawTree) walk(features int) (order []int32, depth int, err error) {
	seen := make([]bool, len(raw.nodes))
	seen[0] = true
	order = append(make([]int32, 0, len(raw.nodes)), 0)
	for begin := 0; begin < len(order); depth++ {
		if depth > maxTreeDepth {
			return nil, 0, fmt.Errorf("node %d: deeper than the %d levels allowed", order[begin], maxTreeDepth)
		}
		level := order[begin:]
		begin = len(order)
		for _, at := range level {
			if err := raw.check(at, features); err != nil {
				return nil, 0, fmt.Errorf("node %d: %w", at, err)
			}
			n := &raw.nodes[at]
			if n.isLeaf() {
				continue
			}
			for _, child := range [...]int32{n.left, n.right} {
				if seen[child] {
					return nil, 0, fmt.Errorf("node %d: child %d is reached twice, so this is no tree", at, child)
				}
				seen[child] = true
				order = append(order, child)
			}
		}
	}
	return order, depth - 1, nil
}

// check holds one node against the bounds of its tree.
func (raw *rawTree) check(at int32, features int) error {
	n := &raw.nodes[at]
	if !finite(n.cover) || n.cover < 0 || !finite(n.gain) || !finite(n.weight) {
		return fmt.Errorf("hessian %g, gain %g, weight %g: not finite, or a negative hessian", n.cover, n.gain, n.weight)
	}
	if n.left == -1 && n.right == -1 {
		if !finite(n.value) {
			return fmt.Errorf("leaf value %g is not finite", n.value)
		}
		return nil
	}
	for _, child := range [...]int32{n.left, n.right} {
		if child < 0 || int(child) >= len(raw.nodes) {
			return fmt.Errorf("child %d is outside of the tree's %d nodes", child, len(raw.nodes))
		}
	}
	switch {
	case n.feature < 0 || n.feature >= int64(features):
		return fmt.Errorf("splits on feature %d, the model has %d", n.feature, features)
	case !finite(n.value):
		return fmt.Errorf("threshold %g is not finite", n.value)
	}
	return nil
}

// place copies the nodes in order to the end of the ensemble.
func (t *Trees) place(raw *rawTree, order []int32) {
	root := int32(len(t.nodes))
	t.roots = append(t.roots, root)
	next := root + 1
	for i, at := range order {
		n := &raw.nodes[at]
		t.stats = append(t.stats, n.stat)
		if n.isLeaf() {
			t.nodes = append(t.nodes, node{threshold: float32(math.NaN())})
			t.leaf = append(t.leaf, n.value)
			continue
		}
		value := uint16(n.feature) << 1
		if !n.defaultLeft {
			value++
		}
		t.nodes = append(t.nodes, node{threshold: n.value, value: value, next: uint16(next - root - int32(i))})
		t.leaf = append(t.leaf, 0)
		next += 2
	}
}

// raw takes tree i out of the ensemble again, its nodes in the order of place.
func (t *Trees) raw(i int) *rawTree {
	begin, end := t.roots[i], int32(len(t.nodes))
	if i+1 < len(t.roots) {
		end = t.roots[i+1]
	}
	raw := &rawTree{class: int(t.class[i]), nodes: make([]rawNode, end-begin)}
	for at := begin; at < end; at++ {
		n := t.nodes[at]
		left, right := t.children(at)
		if t.isLeaf(at) {
			raw.nodes[at-begin] = rawNode{left: -1, right: -1, value: t.leaf[at], stat: t.stats[at]}
			continue
		}
		raw.nodes[at-begin] = rawNode{
			left: left - begin, right: right - begin,
			feature: int64(n.feature()), value: n.threshold, defaultLeft: n.defaultLeft(), stat: t.stats[at],
		}
	}
	return raw
}
