// SPDX-License-Identifier: Apache-2.0

package model

import "slices"

// binnedColumns finds splits at the edges of bins.
type binnedColumns struct {
	grower *grower
	edges  [][]float32 // by feature: edges[b] is where bin b ends and b+1 begins
	bins   [][]uint16  // by feature and row; unknown is one over the last bin
}

func newBinnedColumns(g *grower, d Data) *binnedColumns {
	b := &binnedColumns{grower: g, edges: make([][]float32, len(g.columns)), bins: make([][]uint16, len(g.columns))}
	parallel(len(g.columns), func(f int) {
		b.edges[f] = binEdges(g.columns[f], &d, g.p.MaxBins)
		b.bins[f] = make([]uint16, len(g.columns[f]))
		for row, v := range g.columns[f] {
			b.bins[f][row] = binOf(b.edges[f], v)
		}
	})
	return b
}

// binOf is the bin of a value, given where each bin but the last ends and where
// all end.
func binOf(edges []float32, v float32) uint16 {
	if v != v {
		return uint16(len(edges))
	}
	bin, at := slices.BinarySearch(edges, v)
	if at {
		bin++
	}
	return uint16(min(bin, len(edges)-1))
}

// ranked is a value of a column with the next lower one, and the weight of the
// rows below it and of the rows that have it.
type ranked struct {
	value, lower float32
	below, same  float64
}

// upTo is the weight of the rows below the value or at it.
func (r ranked) upTo() float64 { return r.below + r.same }

// finer is how many times more values than bins the first selections keep.
const finer = 8

// binEdges parts the known values of a column into at most limit bins of about
// the same weight, and returns where each ends: half way to the next value. Equal
// values share a bin. The bins are those of XGBoost, whose quantile sketch selects
// three times, as long as its buffer (2 × 8 × limit rows) holds the column; for
// larger ones its bins depend on the order of the rows, and these do not.
func binEdges(column []float32, d *Data, limit int) (edges []float32) {
	values := distinct(column, d)
	if len(values) == 0 {
		return []float32{0}
	}
	last := values[len(values)-1].value
	for _, n := range []int{finer*limit + 1, finer * limit, limit + 1} {
		values = evenRanks(values, n)
	}
	for _, v := range values[1:min(len(values), limit)] {
		edges = append(edges, between(v.lower, v.value))
	}
	return append(edges, above(last))
}

// evenRanks selects at most n values at about even distances in weight, the first
// and the last among them.
func evenRanks(values []ranked, n int) (chosen []ranked) {
	if len(values) <= n {
		return values
	}
	last := len(values) - 1
	begin, steps := values[0].upTo(), n-1
	span := values[last].below - begin
	chosen = append(chosen, values[0])
	at, newest := 1, 0
	for k := 1; k < steps; k++ {
		rank := float64(k)*span/float64(steps) + begin
		for at+1 < last && 2*rank >= values[at+1].below+values[at+1].upTo() {
			at++
		}
		nearest := at
		if 2*rank >= values[at].upTo()+values[at+1].below {
			nearest++
		}
		if nearest != newest {
			chosen, newest = append(chosen, values[nearest]), nearest
		}
	}
	if newest != last {
		chosen = append(chosen, values[last])
	}
	return chosen
}

// distinct returns the known values of a column, ascending, leaving out rows
// without weight.
func distinct(column []float32, d *Data) (values []ranked) {
	total := 0.0
	for _, row := range sortedRows(column) {
		v, w := column[row], float64(d.weight(int(row)))
		if w == 0 {
			continue
		}
		if n := len(values); n == 0 || values[n-1].value != v {
			lower := v
			if n > 0 {
				lower = values[n-1].value
			}
			values = append(values, ranked{value: v, lower: lower, below: total})
		}
		values[len(values)-1].same += w
		total += w
	}
	return values
}

func (b *binnedColumns) find(level []openNode, features []int, gradients []gradient) {
	byFeature := make([][]split, len(features))
	parallel(len(features), func(i int) {
		f := features[i]
		byFeature[i] = make([]split, len(level))
		histogram := make([]sums, len(b.edges[f])+1)
		for j := range level {
			b.fill(histogram, f, level[j].rows, gradients)
			b.scan(&byFeature[i][j], &level[j], f, histogram)
		}
	})
	reduce(level, byFeature)
}

// fill adds up the gradients of some rows by the bin of feature f.
func (b *binnedColumns) fill(histogram []sums, f int, rows []int32, gradients []gradient) {
	clear(histogram)
	bins := b.bins[f]
	for _, row := range rows {
		histogram[bins[row]].add(gradients[row])
	}
}

// scan tries every edge, with the unknown values on either side.
func (b *binnedColumns) scan(best *split, n *openNode, f int, histogram []sums) {
	edges, last := b.edges[f], len(histogram)-1
	unknown := histogram[last]
	unseen := unknown.h == 0
	var left sums
	for bin, edge := range edges {
		left = left.plus(histogram[bin])
		if histogram[bin] == (sums{}) {
			continue // the same rows as at the edge before
		}
		b.grower.consider(best, n, left, f, edge, false)
		if !unseen {
			b.grower.consider(best, n, left.plus(unknown), f, edge, true)
		}
	}
	heavier(best, unseen)
}
