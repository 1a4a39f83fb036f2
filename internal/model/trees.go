// SPDX-License-Identifier: Apache-2.0

package model

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
)

// Objective says what the margins of boosted trees mean.
type Objective uint8

const (
	// Logistic has one margin, the log odds of class 1 (XGBoost: binary:logistic).
	Logistic Objective = iota
	// Softmax has one margin a class (XGBoost: multi:softprob, multi:softmax).
	Softmax
)

func (o Objective) String() string {
	if o == Softmax {
		return "multi:softprob"
	}
	return "binary:logistic"
}

// attributeSchema is where a model file keeps the hash of its feature list.
const attributeSchema = "sentinel_x_schema"

// node is one step of a tree, in 8 bytes, so that a large ensemble stays in the
// caches: rows whose value is below the threshold go next nodes on, the others one
// further. A leaf has a NaN for its threshold and 0 for next, so that walking on
// from a leaf stays there.
type node struct {
	threshold float32
	value     uint16 // place in a spread row: feature × 2, and one if unknown goes right
	next      uint16
}

func (n node) feature() int      { return int(n.value >> 1) }
func (n node) defaultLeft() bool { return n.value&1 == 0 }

// spreadFeatures is up to how many features a row is spread without allocating.
const spreadFeatures = 256

// spread writes each feature of x twice: unknown is below every threshold in the
// first copy and above in the second. That settles the question once a row and
// not at each node. room is used if it is large enough.
func spread(x, room []float32) []float32 {
	if len(room) < 2*len(x) {
		room = make([]float32, 2*len(x))
	}
	room = room[:2*len(x)]
	for i, v := range x {
		low, high := v, v
		if v != v {
			low, high = float32(math.Inf(-1)), float32(math.Inf(1))
		}
		room[2*i], room[2*i+1] = low, high
	}
	return room
}

// stat is what training left behind at a node; scoring does not need it.
type stat struct {
	cover  float32 // sum of second derivatives of the training rows here
	gain   float32 // by how much the split lowered the loss; 0 at a leaf
	weight float32 // best weight of the node as a leaf, before any later change
}

// Trees is a gradient boosted ensemble of decision trees. It does not change
// once it is loaded or trained and is safe for concurrent use.
type Trees struct {
	objective  Objective
	features   int
	schema     Schema // empty if the file names no features
	baseScore  []float32
	attributes map[string]string

	base  []float32 // start of each margin
	nodes []node    // all trees, each breadth first, siblings side by side
	leaf  []float32 // by node: what a leaf adds to the margin
	stats []stat    // by node
	roots []int32   // by tree: its first node
	class []int32   // by tree: the margin that it adds to
	depth []uint8   // by tree: edges from the root to the deepest leaf
}

// Objective returns what the margins mean.
func (t *Trees) Objective() Objective { return t.objective }

// Features is the number of columns of a row.
func (t *Trees) Features() int { return t.features }

// Outputs is the number of margins: 1 for Logistic, one a class for Softmax.
func (t *Trees) Outputs() int { return len(t.base) }

// Classes is the number of classes: 2 for Logistic.
func (t *Trees) Classes() int { return max(2, len(t.base)) }

// Len is the number of trees.
func (t *Trees) Len() int { return len(t.roots) }

// Nodes is the number of nodes of all trees, leaves included.
func (t *Trees) Nodes() int { return len(t.nodes) }

// MaxDepth is the number of questions on the longest way to a leaf.
func (t *Trees) MaxDepth() int {
	if len(t.depth) == 0 {
		return 0
	}
	return int(slices.Max(t.depth))
}

// Schema returns the feature names, empty if the model file has none.
func (t *Trees) Schema() Schema { return slices.Clone(t.schema) }

// Attributes returns the free-form pairs that the model file carries.
func (t *Trees) Attributes() map[string]string { return maps.Clone(t.attributes) }

// WithAttributes returns the same model carrying the given pairs besides the
// hash of its schema, which cannot be overwritten.
func (t *Trees) WithAttributes(pairs map[string]string) (*Trees, error) {
	c := *t
	c.attributes = maps.Clone(pairs)
	if err := checkAttributes(c.attributes); err != nil {
		return nil, err
	}
	c.seal()
	return &c, nil
}

// WithSchema returns the same model under these feature names, for a file that
// has none: the caller vouches for the order of the columns.
func (t *Trees) WithSchema(names Schema) (*Trees, error) {
	switch {
	case len(t.schema) > 0:
		return nil, errors.New("the model names its features already")
	case len(names) != t.features:
		return nil, fmt.Errorf("%d feature names for a model of %d features", len(names), t.features)
	}
	if err := names.Check(); err != nil {
		return nil, err
	}
	c := *t
	c.schema = slices.Clone(names)
	c.attributes = maps.Clone(t.attributes)
	c.seal()
	return &c, nil
}

// seal records the hash of the schema.
func (t *Trees) seal() {
	if t.attributes == nil {
		t.attributes = map[string]string{}
	}
	delete(t.attributes, attributeSchema)
	if len(t.schema) > 0 {
		t.attributes[attributeSchema] = t.schema.Hash()
	}
}

// Match refuses a list of features that is not the model's own, in its order.
// The error is a *MismatchError with what is missing, unknown and displaced,
// unless the model names no features at all.
func (t *Trees) Match(features []string) error {
	if len(t.schema) == 0 {
		return fmt.Errorf("the model names none of its %d features, so they cannot be compared with the %d offered: %v",
			t.features, len(features), features)
	}
	return t.schema.Match(features)
}

// Importance adds up, by feature, by how much its splits lowered the training loss.
func (t *Trees) Importance() []float64 {
	gain := make([]float64, t.features)
	for i, n := range t.nodes {
		if !t.isLeaf(int32(i)) {
			gain[n.feature()] += float64(t.stats[i].gain)
		}
	}
	return gain
}

func (t *Trees) isLeaf(i int32) bool { return t.nodes[i].next == 0 }

// children returns the nodes that an inner node leads to.
func (t *Trees) children(i int32) (left, right int32) {
	left = i + int32(t.nodes[i].next)
	return left, left + 1
}

// Margin writes the raw scores of row x to out: log odds for Logistic, one
// unnormalised log probability a class for Softmax. They are bit-equal with
// XGBoost's: the trees are added in their order in float32. x holds
// Features() values, out Outputs(); other lengths panic. It does not allocate
// for up to 128 features.
func (t *Trees) Margin(x, out []float32) {
	if len(x) != t.features || len(out) != len(t.base) {
		panic(fmt.Sprintf("model: row of %d features and %d outputs for trees of %d and %d",
			len(x), len(out), t.features, len(t.base)))
	}
	copy(out, t.base)
	var room [2 * spreadFeatures]float32
	t.sum(0, spread(x, room[:]), out)
}

// sum adds the trees from first on to the margins of a spread row.
func (t *Trees) sum(first int, row, out []float32) {
	for ; first+4 <= len(t.roots); first += 4 {
		t.sumFour(first, row, out)
	}
	for ; first < len(t.roots); first++ {
		out[t.class[first]] += t.leaf[t.walk(first, row)]
	}
}

// walk returns the leaf of one tree.
func (t *Trees) walk(tree int, row []float32) int32 {
	at := t.roots[tree]
	for range t.depth[tree] {
		at = step(t.nodes, row, at)
	}
	return at
}

// sumFour walks four trees side by side, so that their loads from memory
// overlap, and adds their leaves in order.
func (t *Trees) sumFour(first int, row, out []float32) {
	roots, class, depths := t.roots[first:first+4], t.class[first:first+4], t.depth[first:first+4]
	nodes := t.nodes
	a, b, c, d := roots[0], roots[1], roots[2], roots[3]
	for range max(depths[0], depths[1], depths[2], depths[3]) {
		a, b = step(nodes, row, a), step(nodes, row, b)
		c, d = step(nodes, row, c), step(nodes, row, d)
	}
	out[class[0]] += t.leaf[a]
	out[class[1]] += t.leaf[b]
	out[class[2]] += t.leaf[c]
	out[class[3]] += t.leaf[d]
}

// step goes from a node to its child, or stays at a leaf. It has no branch: which
// way a row goes is what a processor predicts worst.
func step(nodes []node, row []float32, at int32) int32 {
	n := nodes[at]
	var right int32
	if row[n.value] >= n.threshold {
		right = 1
	}
	return at + int32(n.next) + right
}

// Predict writes probabilities to out: that of class 1 for Logistic, one a class
// for Softmax. Lengths are those of Margin; it does not allocate.
func (t *Trees) Predict(x, out []float32) {
	t.Margin(x, out)
	if t.objective == Logistic {
		out[0] = sigmoid(out[0])
		return
	}
	softmax(out)
}

func sigmoid(margin float32) float32 {
	return float32(1 / (1 + math.Exp(-float64(margin))))
}

// softmax turns margins into probabilities in place.
func softmax(margins []float32) {
	top := slices.Max(margins)
	sum := 0.0
	for i, m := range margins {
		e := math.Exp(float64(m - top))
		sum += e
		margins[i] = float32(e)
	}
	for i := range margins {
		margins[i] = float32(float64(margins[i]) / sum)
	}
}
