// SPDX-License-Identifier: Apache-2.0

package model

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// randomTree grows a full tree of the given depth on random thresholds.
func randomTree(rng *rand.Rand, class, features, depth int) *rawTree {
	raw := &rawTree{class: class, nodes: make([]rawNode, 1<<(depth+1)-1)}
	inner := 1<<depth - 1
	for i := range raw.nodes {
		n := rawNode{left: -1, right: -1, value: float32(rng.NormFloat64()), stat: stat{cover: 1}}
		if i < inner {
			n.left, n.right = int32(2*i+1), int32(2*i+2)
			n.feature, n.defaultLeft = int64(rng.IntN(features)), rng.IntN(2) == 0
		}
		raw.nodes[i] = n
	}
	for i := inner - 1; i >= 0; i-- {
		raw.nodes[i].cover = raw.nodes[2*i+1].cover + raw.nodes[2*i+2].cover
	}
	return raw
}

// randomTrees is an ensemble of rounds × outputs full trees.
func randomTrees(t testing.TB, seed uint64, objective Objective, outputs, features, rounds, depth int) *Trees {
	t.Helper()
	trees, err := newTrees(objective, outputs, features, []float32{0.5})
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(seed, 1))
	for i := range rounds * outputs {
		if err := trees.add(randomTree(rng, i%outputs, features, depth)); err != nil {
			t.Fatal(err)
		}
	}
	trees.seal()
	return trees
}

func randomRows(seed uint64, n, features int) [][]float32 {
	rng := rand.New(rand.NewPCG(seed, 2))
	rows := make([][]float32, n)
	for i := range rows {
		rows[i] = make([]float32, features)
		for j := range rows[i] {
			rows[i][j] = float32(rng.NormFloat64())
			if rng.IntN(20) == 0 {
				rows[i][j] = float32(math.NaN())
			}
		}
	}
	return rows
}

// BenchmarkPredict scores rows with trees of depth 6 over 40 features.
func BenchmarkPredict(b *testing.B) {
	for _, bench := range []struct{ rounds, classes int }{{100, 1}, {25, 4}, {100, 4}, {100, 9}} {
		b.Run(fmt.Sprintf("rounds=%d/classes=%d", bench.rounds, bench.classes), func(b *testing.B) {
			objective := Softmax
			if bench.classes == 1 {
				objective = Logistic
			}
			trees := randomTrees(b, 1, objective, bench.classes, 40, bench.rounds, 6)
			rows, out := randomRows(1, 256, 40), make([]float32, bench.classes)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				trees.Predict(rows[i%len(rows)], out)
			}
		})
	}
}

func BenchmarkContributions(b *testing.B) {
	trees := randomTrees(b, 1, Logistic, 1, 40, 100, 6)
	rows, out := randomRows(1, 256, 40), make([]float32, 41)
	for i := 0; b.Loop(); i++ {
		trees.Contributions(rows[i%len(rows)], 0, out)
	}
}

// TestMarginWalksEveryTree compares with a walk that is written the plain way, for
// numbers of trees that four does not divide.
func TestMarginWalksEveryTree(t *testing.T) {
	for rounds := range 9 {
		trees := randomTrees(t, uint64(rounds), Softmax, 3, 7, rounds, 1+rounds%5)
		out := make([]float32, 3)
		for _, x := range randomRows(uint64(rounds), 100, 7) {
			x[0] = float32(math.Inf(int(x[1] * 10)))
			want := []float32{0.5, 0.5, 0.5}
			for i := range trees.Len() {
				raw := trees.raw(i)
				want[raw.class] += raw.plain(x)
			}
			trees.Margin(x, out)
			for class := range out {
				if out[class] != want[class] {
					t.Fatalf("%d rounds: margin %v, want %v", rounds, out, want)
				}
			}
		}
	}
}

// plain is what the leaf says that x ends in.
func (raw *rawTree) plain(x []float32) float32 {
	n := &raw.nodes[0]
	for !n.isLeaf() {
		v := x[n.feature]
		if v < n.value || (v != v && n.defaultLeft) {
			n = &raw.nodes[n.left]
		} else {
			n = &raw.nodes[n.right]
		}
	}
	return n.value
}

// TestContributionsAddUp: to the margin, on trees that ask for the same feature
// again and again, and where no training row went some of the ways.
func TestContributionsAddUp(t *testing.T) {
	for seed := range uint64(20) {
		trees := randomTrees(t, seed, Softmax, 2, 3, 4, 1+int(seed)%6)
		rng := rand.New(rand.NewPCG(seed, 4))
		for i := range trees.stats {
			if rng.IntN(4) == 0 {
				trees.stats[i].cover = 0
			}
		}
		margins, out := make([]float32, 2), make([]float32, 4)
		for _, x := range randomRows(seed, 50, 3) {
			trees.Margin(x, margins)
			for class, margin := range margins {
				trees.Contributions(x, class, out)
				if sum := out[0] + out[1] + out[2] + out[3]; !(math.Abs(float64(sum-margin)) < 1e-4) {
					t.Fatalf("seed %d: contributions %v add up to %g, the margin is %g", seed, out, sum, margin)
				}
			}
		}
	}
}

// TestContributionsAreShapleyValues works them out from their definition: the mean,
// over all orders of the features, of what knowing one more changes.
func TestContributionsAreShapleyValues(t *testing.T) {
	trees := randomTrees(t, 11, Logistic, 1, 3, 3, 4)
	orders := [][]int{{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}}
	out := make([]float32, 4)
	for _, x := range randomRows(12, 30, 3) {
		want := make([]float64, 3)
		for _, order := range orders {
			known := map[int]bool{}
			before := trees.expectedOf(x, known)
			for _, f := range order {
				known[f] = true
				after := trees.expectedOf(x, known)
				want[f] += (after - before) / float64(len(orders))
				before = after
			}
		}
		trees.Contributions(x, 0, out)
		for f := range want {
			if math.Abs(want[f]-float64(out[f])) > 1e-5 {
				t.Fatalf("row %v: contributions %v, want %v", x, out, want)
			}
		}
	}
}

// expectedOf is the margin when only some features of x are known: where another
// is asked for, both ways are taken, as often as training rows took them.
func (t *Trees) expectedOf(x []float32, known map[int]bool) (sum float64) {
	row := spread(x, nil)
	var walk func(at int32) float64
	walk = func(at int32) float64 {
		if t.isLeaf(at) {
			return float64(t.leaf[at])
		}
		if known[t.nodes[at].feature()] {
			return walk(step(t.nodes, row, at))
		}
		low, high := t.children(at)
		left, right := t.fractions(at)
		return left*walk(low) + right*walk(high)
	}
	for _, root := range t.roots {
		sum += walk(root)
	}
	return sum
}

func TestWrongLengthsPanic(t *testing.T) {
	trees := small(t)
	for name, call := range map[string]func(){
		"a short row":   func() { trees.Margin([]float32{1}, make([]float32, 1)) },
		"a long output": func() { trees.Predict([]float32{1, 2}, make([]float32, 2)) },
		"no bias":       func() { trees.Contributions([]float32{1, 2}, 0, make([]float32, 2)) },
		"no such class": func() { trees.Contributions([]float32{1, 2}, 1, make([]float32, 3)) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			call()
		}()
	}
}

// TestWideRows have more features than are spread on the stack.
func TestWideRows(t *testing.T) {
	const features = spreadFeatures + 5
	trees := randomTrees(t, 5, Logistic, 1, features, 30, 5)
	out := make([]float32, 1)
	for _, x := range randomRows(6, 50, features) {
		want := float32(0)
		for i := range trees.Len() {
			want += trees.raw(i).plain(x)
		}
		if trees.Margin(x, out); out[0] != want {
			t.Fatalf("margin %g, want %g", out[0], want)
		}
	}
}

func TestScoringIsSafeForConcurrentUse(t *testing.T) {
	trees := randomTrees(t, 1, Softmax, 3, 10, 10, 4)
	rows := randomRows(1, 64, 10)
	want := make([][]float32, len(rows))
	for i, x := range rows {
		want[i] = make([]float32, 3)
		trees.Predict(x, want[i])
	}
	parallel(8, func(int) {
		out := make([]float32, 3)
		for i, x := range rows {
			if trees.Predict(x, out); !slices.Equal(out, want[i]) {
				t.Errorf("row %d: %v, want %v", i, out, want[i])
			}
		}
	})
}

func TestScoringDoesNotAllocate(t *testing.T) {
	trees := randomTrees(t, 1, Softmax, 4, spreadFeatures, 20, 6)
	row, out := randomRows(1, 1, spreadFeatures)[0], make([]float32, 4)
	if n := testing.AllocsPerRun(100, func() { trees.Predict(row, out) }); n != 0 {
		t.Errorf("%v allocations a prediction", n)
	}
}
