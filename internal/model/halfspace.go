// SPDX-License-Identifier: Apache-2.0

package model

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
)

// Limits of half-space trees, whoever made them.
const (
	maxHalfSpaceTrees  = 100
	maxHalfSpaceDepth  = 12
	maxHalfSpaceNodes  = 200_000
	maxHalfSpaceWindow = 1_000_000
)

// HalfSpaceParams says how half-space trees are built. Zero values are the defaults.
type HalfSpaceParams struct {
	Trees  int    // 25
	Depth  int    // splits from root to leaf: 8, which is 180 KiB for 25 trees
	Window int    // weight of the vectors after which the latest mass is the reference: 250
	Seed   uint64 // the same rows, parameters and seed give the same trees
	Schema Schema // names of the columns; needed to write the trees
}

func (p HalfSpaceParams) withDefaults() HalfSpaceParams {
	setDefault(&p.Trees, 25)
	setDefault(&p.Depth, 8)
	setDefault(&p.Window, 250)
	return p
}

func (p HalfSpaceParams) check(width int) error {
	switch {
	case p.Trees < 1 || p.Trees > maxHalfSpaceTrees:
		return fmt.Errorf("%d trees, not 1 to %d", p.Trees, maxHalfSpaceTrees)
	case p.Depth < 1 || p.Depth > maxHalfSpaceDepth:
		return fmt.Errorf("a depth of %d, not 1 to %d", p.Depth, maxHalfSpaceDepth)
	case p.Trees<<(p.Depth+1) > maxHalfSpaceNodes:
		return fmt.Errorf("%d trees of depth %d have more than %d nodes", p.Trees, p.Depth, maxHalfSpaceNodes)
	case p.Window < 10 || p.Window > maxHalfSpaceWindow:
		return fmt.Errorf("a window of %d vectors, not 10 to %d", p.Window, maxHalfSpaceWindow)
	case width < 1 || width > MaxForestFeatures:
		return fmt.Errorf("%d columns, not 1 to %d", width, MaxForestFeatures)
	case p.Schema != nil && len(p.Schema) != width:
		return fmt.Errorf("%d columns, the schema names %d", width, len(p.Schema))
	}
	return p.Schema.Check()
}

// HalfSpace is half-space trees (Tan, Ting and Liu, 2011): random cuts of the space,
// made before the data is seen, that count where the recent vectors fall. Scores
// come from the mass of the last full window, while the next one is counted.
//
// Its weak side is known: outliers that come packed together, as a flood does, soon
// have mass of their own. So it must learn from calm windows only. A NaN is unknown
// and counts as the median, as in a forest. Not safe for concurrent use.
type HalfSpace struct {
	p      HalfSpaceParams
	fill   []float32
	nodes  []halfSpaceNode // Trees × (2^(Depth+1) − 1); node i of a tree has children 2i+1 and 2i+2
	filled float64         // weight in the latest window
	ready  bool            // there is a reference
}

type halfSpaceNode struct {
	cut       float32 // to the left below, to the right from here on
	feature   uint8
	reference float32 // mass of the last full window
	latest    float32 // mass of the one being filled
}

// sizeLimit is the share of a window's mass below which a node is not looked into
// any further: the paper's 0.1.
const sizeLimit = 0.1

// NewHalfSpace cuts the space that rows lie in, and some of what is around it. It
// learns nothing from them but where they are and their medians: update it.
func NewHalfSpace(rows [][]float32, p HalfSpaceParams) (*HalfSpace, error) {
	p = p.withDefaults()
	if len(rows) < 2 {
		return nil, fmt.Errorf("build half-space trees: %d rows are too few to see ranges", len(rows))
	}
	if err := p.check(len(rows[0])); err != nil {
		return nil, fmt.Errorf("build half-space trees: %w", err)
	}
	if err := checkRows(rows); err != nil {
		return nil, fmt.Errorf("build half-space trees: %w", err)
	}
	p.Schema = slices.Clone(p.Schema)
	h := &HalfSpace{p: p, fill: medians(rows), nodes: make([]halfSpaceNode, p.Trees*nodesOf(p.Depth))}
	low, high := ranges(rows)
	random := rand.New(rand.NewPCG(p.Seed, 0))
	for tree := range p.Trees {
		h.tree(tree, low, high, random)
	}
	return h, nil
}

func nodesOf(depth int) int { return 1<<(depth+1) - 1 }

// ranges returns the smallest and largest known value of each column; one that is
// constant or unknown gets a range of 1.
func ranges(rows [][]float32) (low, high []float64) {
	low, high = make([]float64, len(rows[0])), make([]float64, len(rows[0]))
	for c := range low {
		low[c], high[c] = math.Inf(1), math.Inf(-1)
		for _, row := range rows {
			if v := float64(row[c]); v == v {
				low[c], high[c] = min(low[c], v), max(high[c], v)
			}
		}
		switch {
		case low[c] > high[c]:
			low[c], high[c] = -0.5, 0.5
		case low[c] == high[c]:
			low[c], high[c] = low[c]-0.5, high[c]+0.5
		}
	}
	return low, high
}

// tree places the cuts of one tree: in a work range that is off-centre in each
// column by chance and reaches beyond the rows, halves of halves of it.
func (h *HalfSpace) tree(number int, low, high []float64, random *rand.Rand) {
	from, to := make([]float64, len(low)), make([]float64, len(low))
	for c := range from {
		s := random.Float64()
		reach := 2 * max(s, 1-s)
		span := high[c] - low[c]
		from[c], to[c] = low[c]+(s-reach)*span, low[c]+(s+reach)*span
	}
	nodes := h.treeNodes(number)
	var place func(i, depth int)
	place = func(i, depth int) {
		if depth == h.p.Depth {
			return
		}
		c := random.IntN(len(from))
		a, b := from[c], to[c]
		middle := (a + b) / 2
		cut := max(-math.MaxFloat32, min(math.MaxFloat32, middle))
		nodes[i].feature, nodes[i].cut = uint8(c), float32(cut)
		to[c] = middle
		place(2*i+1, depth+1)
		from[c], to[c] = middle, b
		place(2*i+2, depth+1)
		from[c] = a
	}
	place(0, 0)
}

func (h *HalfSpace) treeNodes(number int) []halfSpaceNode {
	n := nodesOf(h.p.Depth)
	return h.nodes[number*n : (number+1)*n]
}

// Features returns how many columns a vector has.
func (h *HalfSpace) Features() int { return len(h.fill) }

// Schema returns the names of the columns, nil if there were none.
func (h *HalfSpace) Schema() Schema { return slices.Clone(h.p.Schema) }

// Score returns 0…1, higher for where less of the last window fell: 1 for where
// nothing did, 0 if all of it fell into x's leaf in every tree. It is NaN before
// the first window is full, and for a vector of another length than Features. It
// allocates nothing.
//
// The paper sums up the trees' masses, each scaled by 2^depth. This is the same
// order, turned round, on a logarithmic scale that ends at 1.
func (h *HalfSpace) Score(x []float32) float64 {
	if !h.ready || len(x) != len(h.fill) {
		return math.NaN()
	}
	limit := float32(sizeLimit * float64(h.p.Window))
	size := nodesOf(h.p.Depth)
	sum := 0.0
	for root := 0; root < len(h.nodes); root += size {
		nodes := h.nodes[root : root+size]
		i, depth := 0, 0
		for depth < h.p.Depth && nodes[i].reference > limit {
			i = h.child(nodes, i, x)
			depth++
		}
		sum += math.Ldexp(float64(nodes[i].reference), depth)
	}
	density := sum / float64(h.p.Trees*h.p.Window) // 1: as if vectors were everywhere alike
	full := math.Ldexp(1, h.p.Depth)
	return max(0, 1-math.Log2(1+density)/math.Log2(1+full))
}

func (h *HalfSpace) child(nodes []halfSpaceNode, i int, x []float32) int {
	n := &nodes[i]
	v := x[n.feature]
	if v != v {
		v = h.fill[n.feature]
	}
	if v < n.cut {
		return 2*i + 1
	}
	return 2*i + 2
}

// Update counts x with a weight of 0…1. When the window is full it becomes the
// reference. It allocates nothing; a vector of another length is not counted.
func (h *HalfSpace) Update(x []float32, weight float64) {
	if len(x) != len(h.fill) || !(weight > 0) {
		return
	}
	weight = min(weight, 1, float64(h.p.Window)-h.filled)
	size := nodesOf(h.p.Depth)
	for root := 0; root < len(h.nodes); root += size {
		nodes := h.nodes[root : root+size]
		i := 0
		nodes[i].latest += float32(weight)
		for range h.p.Depth {
			i = h.child(nodes, i, x)
			nodes[i].latest += float32(weight)
		}
	}
	h.filled += weight
	if h.filled < float64(h.p.Window) {
		return
	}
	for i := range h.nodes {
		n := &h.nodes[i]
		n.reference, n.latest = n.latest, 0
	}
	h.filled, h.ready = 0, true
}
