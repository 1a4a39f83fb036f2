// SPDX-License-Identifier: Apache-2.0

package model

import (
	"math"
	"slices"
)

// sortedColumns finds splits between any two neighbouring values.
type sortedColumns struct {
	grower *grower
	order  [][]int32 // by feature: rows whose value is known, by value
	slot   []int32   // by row: index of its node in the level, −1 outside
}

func newSortedColumns(g *grower) *sortedColumns {
	s := &sortedColumns{grower: g, order: make([][]int32, len(g.columns)), slot: make([]int32, len(g.columns[0]))}
	parallel(len(g.columns), func(f int) { s.order[f] = sortedRows(g.columns[f]) })
	return s
}

// sortedRows lists the rows whose value is known by value, equal ones by row.
func sortedRows(column []float32) []int32 {
	keys := make([]uint64, 0, len(column))
	for row, v := range column {
		if v == v {
			keys = append(keys, uint64(ordinal(v))<<32|uint64(row))
		}
	}
	slices.Sort(keys)
	rows := make([]int32, len(keys))
	for i, key := range keys {
		rows[i] = int32(uint32(key))
	}
	return rows
}

// ordinal maps floats to integers of the same order; −0 and 0 are one.
func ordinal(v float32) uint32 {
	const negative = 1 << 31
	if v == 0 {
		return negative
	}
	bits := math.Float32bits(v)
	if bits&negative != 0 {
		return ^bits
	}
	return bits | negative
}

func (s *sortedColumns) find(level []openNode, features []int, gradients []gradient) {
	for row := range s.slot {
		s.slot[row] = -1
	}
	for i := range level {
		for _, row := range level[i].rows {
			s.slot[row] = int32(i)
		}
	}
	byFeature := make([][]split, len(features))
	parallel(len(features), func(i int) {
		byFeature[i] = s.scan(level, features[i], gradients)
	})
	reduce(level, byFeature)
}

// walker is how far a scan is in one node.
type walker struct {
	known sums // all rows whose value is known
	left  sums // those that the scan has passed
	last  float32
	count int // rows whose value is known
	any   bool
}

// scan passes over a feature's values once for all nodes of a level.
func (s *sortedColumns) scan(level []openNode, f int, gradients []gradient) []split {
	walkers, best := make([]walker, len(level)), make([]split, len(level))
	for _, row := range s.order[f] {
		if slot := s.slot[row]; slot >= 0 {
			walkers[slot].known.add(gradients[row])
			walkers[slot].count++
		}
	}
	column := s.grower.columns[f]
	for _, row := range s.order[f] {
		slot := s.slot[row]
		if slot < 0 {
			continue
		}
		w, v := &walkers[slot], column[row]
		if w.any && v != w.last {
			s.try(&best[slot], &level[slot], w, f, between(w.last, v))
		}
		w.left.add(gradients[row])
		w.last, w.any = v, true
	}
	for i := range walkers {
		if w := &walkers[i]; w.any {
			s.try(&best[i], &level[i], w, f, above(w.last))
			heavier(&best[i], w.unseen(&level[i]))
		}
	}
	return best
}

// unseen says whether no row of the node lacks the value.
func (w *walker) unseen(n *openNode) bool { return w.count == len(n.rows) }

// try considers a threshold with the unknown values on either side.
func (s *sortedColumns) try(best *split, n *openNode, w *walker, f int, threshold float32) {
	s.grower.consider(best, n, w.left, f, threshold, false)
	if !w.unseen(n) {
		unknown := n.sum.minus(w.known)
		s.grower.consider(best, n, w.left.plus(unknown), f, threshold, true)
	}
}
