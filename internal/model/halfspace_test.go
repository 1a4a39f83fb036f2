// SPDX-License-Identifier: Apache-2.0

package model

import (
	"bytes"
	"encoding/json"
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
)

func newHalfSpace(t testing.TB, p HalfSpaceParams) *HalfSpace {
	t.Helper()
	p.Schema = testSchema(8)
	h, err := NewHalfSpace(normalRows(500, 8, 1), p)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestHalfSpaceTellsOutliers(t *testing.T) {
	h := newHalfSpace(t, HalfSpaceParams{Seed: 1})
	rows := normalRows(2000, 8, 2)
	for i, row := range rows {
		if ready := !math.IsNaN(h.Score(row)); ready != (i >= 250) {
			t.Fatalf("after %d vectors ready is %v", i, ready)
		}
		h.Update(row, 1)
	}
	outlier := make([]float32, 8)
	for c := range outlier {
		outlier[c] = float32(6 * (c + 1))
	}
	below := 0
	for _, row := range normalRows(1000, 8, 3) {
		s := h.Score(row)
		if !(s >= 0 && s <= 1) {
			t.Fatalf("score %v", s)
		}
		if s < h.Score(outlier) {
			below++
		}
	}
	if below < 990 {
		t.Errorf("the outlier scores %.3f, higher than %d of 1000 normal vectors", h.Score(outlier), below)
	}
}

// TestHalfSpaceScoreByHand: one tree of one cut.
func TestHalfSpaceScoreByHand(t *testing.T) {
	h, err := NewHalfSpace([][]float32{{0}, {1}}, HalfSpaceParams{Trees: 1, Depth: 1, Window: 20})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		x := float32(-5)
		if i < 4 {
			x = 5
		}
		h.Update([]float32{x}, 1)
	}
	for x, mass := range map[float32]float64{-5: 16, 5: 4} {
		want := 1 - math.Log2(1+2*mass/20)/math.Log2(3)
		if got := h.Score([]float32{x}); math.Abs(got-want) > 1e-12 {
			t.Errorf("%v: %v, want %v", x, got, want)
		}
	}
}

// TestHalfSpaceSizeLimit: a node with a tenth of the mass is looked into no further.
func TestHalfSpaceSizeLimit(t *testing.T) {
	h, err := NewHalfSpace([][]float32{{0}, {1}}, HalfSpaceParams{Trees: 1, Depth: 2, Window: 100})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		x := float32(-5)
		if i < 10 {
			x = 5
		}
		h.Update([]float32{x}, 1)
	}
	for x, density := range map[float32]float64{-5: 90 * 4 / 100., 5: 10 * 2 / 100.} {
		want := 1 - math.Log2(1+density)/math.Log2(5)
		if got := h.Score([]float32{x}); math.Abs(got-want) > 1e-12 {
			t.Errorf("%v: %v, want %v", x, got, want)
		}
	}
}

// TestHalfSpaceCutsAroundTheData: the work range reaches beyond the rows on both
// sides and contains them, whatever is drawn.
func TestHalfSpaceCutsAroundTheData(t *testing.T) {
	low, high := math.Inf(1), math.Inf(-1)
	for seed := range uint64(200) {
		h, err := NewHalfSpace([][]float32{{10}, {20}}, HalfSpaceParams{Trees: 1, Depth: 10, Seed: seed})
		if err != nil {
			t.Fatal(err)
		}
		for i, n := range h.nodes[:nodesOf(9)] {
			low, high = min(low, float64(n.cut)), max(high, float64(n.cut))
			if i > 0 {
				parent := h.nodes[(i-1)/2].cut
				if right := i%2 == 0; right != (n.cut > parent) {
					t.Fatalf("node %d cuts at %v, its parent at %v", i, n.cut, parent)
				}
			}
		}
	}
	if low > 0 || high < 30 || low < -10 || high > 40 {
		t.Errorf("cuts from %v to %v around 10…20", low, high)
	}
}

// TestHalfSpaceTellsPlacesApart: a thousand values in ten of about 25 units that
// 1024 leaves share are in hundreds of them.
func TestHalfSpaceTellsPlacesApart(t *testing.T) {
	h, err := NewHalfSpace([][]float32{{10}, {20}}, HalfSpaceParams{Trees: 1, Depth: 10, Window: 1000})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 1000 {
		h.Update([]float32{10 + float32(i)/100}, 1)
	}
	leaves := 0
	for _, n := range h.nodes[nodesOf(9):] {
		if n.reference > 0 {
			leaves++
		}
	}
	if leaves < 250 {
		t.Errorf("they are in %d leaves", leaves)
	}
}

// TestHalfSpaceFollows: what comes steadily becomes normal, with the weight it has.
func TestHalfSpaceFollows(t *testing.T) {
	moved := normalRows(2000, 8, 4)
	for _, row := range moved {
		for c := range row {
			row[c] += float32(6 * (c + 1))
		}
	}
	score := func(weight float64) (before, after float64) {
		h := newHalfSpace(t, HalfSpaceParams{Seed: 1})
		for _, row := range normalRows(1000, 8, 2) {
			h.Update(row, 1)
		}
		before = h.Score(moved[0])
		for i, row := range moved {
			h.Update(row, weight)
			h.Update(normalRows(1, 8, uint64(i))[0], 1-weight)
		}
		return before, h.Score(moved[0])
	}
	before, full := score(1)
	_, tenth := score(0.1)
	if !(full < before-0.2 && full < tenth && tenth < before) {
		t.Errorf("before %.3f, learnt with a weight of 0.1 %.3f, of 1 %.3f", before, tenth, full)
	}
}

func TestHalfSpaceWeights(t *testing.T) {
	h := newHalfSpace(t, HalfSpaceParams{Window: 10})
	x := normalRows(1, 8, 1)[0]
	for _, weight := range []float64{0, -1, math.NaN()} {
		h.Update(x, weight)
	}
	h.Update(x[:3], 1)
	if h.filled != 0 {
		t.Fatalf("%v counted", h.filled)
	}
	for range 9 {
		h.Update(x, 1000) // counts as 1
	}
	if h.ready || h.filled != 9 {
		t.Fatalf("filled %v, ready %v", h.filled, h.ready)
	}
	h.Update(x, 0.5)
	h.Update(x, 1)
	if !h.ready || h.filled != 0 || h.nodes[0].reference != 10 {
		t.Errorf("filled %v, reference %v", h.filled, h.nodes[0].reference)
	}
	if !math.IsNaN(h.Score(x[:3])) {
		t.Error("a short vector has a score")
	}
}

func TestHalfSpaceUnknownIsTheMedian(t *testing.T) {
	h := newHalfSpace(t, HalfSpaceParams{Seed: 1})
	for _, row := range normalRows(500, 8, 2) {
		h.Update(row, 1)
	}
	unknown := make([]float32, 8)
	for c := range unknown {
		unknown[c] = float32(math.NaN())
	}
	if a, b := h.Score(unknown), h.Score(h.fill); a != b {
		t.Errorf("NaN scores %v, the medians %v", a, b)
	}
}

func TestHalfSpaceIsDeterministic(t *testing.T) {
	a, b, c := newHalfSpace(t, HalfSpaceParams{Seed: 1}), newHalfSpace(t, HalfSpaceParams{Seed: 1}), newHalfSpace(t, HalfSpaceParams{Seed: 2})
	if !reflect.DeepEqual(a.nodes, b.nodes) || reflect.DeepEqual(a.nodes, c.nodes) {
		t.Error("the trees do not follow from the seed")
	}
}

func TestHalfSpaceAllocatesNothing(t *testing.T) {
	h, x := newHalfSpace(t, HalfSpaceParams{Window: 10}), normalRows(1, 8, 1)[0]
	if n := testing.AllocsPerRun(100, func() { h.Update(x, 1); h.Score(x) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkHalfSpace(b *testing.B) {
	rows := normalRows(4096, 32, 1)
	h, err := NewHalfSpace(rows, HalfSpaceParams{Seed: 1})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		h.Score(rows[i&4095])
		h.Update(rows[i&4095], 1)
		i++
	}
}

func TestHalfSpaceRefusesParameters(t *testing.T) {
	rows := normalRows(10, 2, 1)
	infinite := [][]float32{{1, 2}, {float32(math.Inf(-1)), 3}}
	for name, c := range map[string]struct {
		rows [][]float32
		p    HalfSpaceParams
		want string
	}{
		"no rows":  {nil, HalfSpaceParams{}, "too few"},
		"ragged":   {[][]float32{{1, 2}, {1}}, HalfSpaceParams{}, "row 1 has 1 columns"},
		"infinite": {infinite, HalfSpaceParams{}, "infinite"},
		"empty":    {make([][]float32, 5), HalfSpaceParams{}, "0 columns"},
		"trees":    {rows, HalfSpaceParams{Trees: 101}, "101 trees"},
		"depth":    {rows, HalfSpaceParams{Depth: 13}, "depth of 13"},
		"nodes":    {rows, HalfSpaceParams{Trees: 100, Depth: 12}, "more than 200000 nodes"},
		"window":   {rows, HalfSpaceParams{Window: 5}, "window of 5"},
		"schema":   {rows, HalfSpaceParams{Schema: testSchema(3)}, "the schema names 3"},
		"a name":   {rows, HalfSpaceParams{Schema: Schema{"a", "a"}}, "is feature 0 already"},
	} {
		if _, err := NewHalfSpace(c.rows, c.p); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func TestHalfSpaceFileRoundTrip(t *testing.T) {
	a := newHalfSpace(t, HalfSpaceParams{Seed: 1})
	for i, row := range normalRows(900, 8, 2) {
		a.Update(row, float64(i%3+1)/3)
	}
	var b bytes.Buffer
	if err := a.Write(&b); err != nil {
		t.Fatal(err)
	}
	t.Logf("25 × 2^8: %d bytes", b.Len())
	again, err := ReadHalfSpace(&b, testSchema(8))
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range normalRows(600, 8, 3) {
		if x, y := a.Score(row), again.Score(row); x != y {
			t.Fatalf("score %v, read again %v", x, y)
		}
		a.Update(row, 0.7)
		again.Update(row, 0.7)
	}
	a.p.Schema = nil
	if err := a.Write(&b); err == nil {
		t.Error("trees without a schema were written")
	}
}

func smallHalfSpace(change func(*halfSpaceFile)) string {
	file := halfSpaceFile{
		fileHeader: newFileHeader(halfSpaceFormat, halfSpaceVersion, testSchema(2)),
		Trees:      1, Depth: 1, Window: 10, Fill: []float32{0, 0}, Filled: 3, Ready: true,
		Feature: []int{1, 0, 0}, Cut: []float32{0.5, 0, 0},
		Reference: []float32{10, 4, 6}, Latest: []float32{3, 3, 0},
	}
	change(&file)
	text, err := json.Marshal(file)
	if err != nil {
		panic(err)
	}
	return string(text)
}

func TestHalfSpaceFileRefused(t *testing.T) {
	good := smallHalfSpace(func(*halfSpaceFile) {})
	if _, err := ReadHalfSpace(strings.NewReader(good), testSchema(2)); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ text, want string }{
		"cut":             {good[:len(good)-5], "damaged"},
		"trailing":        {good + "{}", "damaged"},
		"foreign format":  {strings.Replace(good, halfSpaceFormat, forestFormat, 1), "format"},
		"foreign version": {strings.Replace(good, `"version":1`, `"version":9`, 1), "version 9"},
		"NaN":             {strings.Replace(good, "0.5", "NaN", 1), "damaged"},
		"huge":            {good + strings.Repeat(" ", maxHalfSpaceFile), "bytes"},
		"other features":  {smallHalfSpace(func(f *halfSpaceFile) { f.fileHeader = newFileHeader(halfSpaceFormat, 1, Schema{"pkt_rate"}) }), "pkt_rate"},
		"trees":           {smallHalfSpace(func(f *halfSpaceFile) { f.Trees = 1 << 40 }), "trees"},
		"depth":           {smallHalfSpace(func(f *halfSpaceFile) { f.Depth = 1 << 40 }), "depth"},
		"more nodes":      {smallHalfSpace(func(f *halfSpaceFile) { f.Depth = 2 }), "for 7 nodes"},
		"feature":         {smallHalfSpace(func(f *halfSpaceFile) { f.Feature[0] = 2 }), "feature 2 is none of 2"},
		"negative mass":   {smallHalfSpace(func(f *halfSpaceFile) { f.Latest[1] = -1 }), "mass of -1"},
		"huge mass":       {smallHalfSpace(func(f *halfSpaceFile) { f.Reference[1] = 1e9 }), "mass of 1e+09"},
		"overfull":        {smallHalfSpace(func(f *halfSpaceFile) { f.Filled = 10 }), "10 vectors in a window of 10"},
		"medians":         {smallHalfSpace(func(f *halfSpaceFile) { f.Fill = f.Fill[:1] }), "1 columns"},
	} {
		if _, err := ReadHalfSpace(strings.NewReader(c.text), testSchema(2)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func FuzzReadHalfSpace(f *testing.F) {
	f.Add([]byte(smallHalfSpace(func(*halfSpaceFile) {})))
	f.Add([]byte(smallHalfSpace(func(f *halfSpaceFile) { f.Depth = 2 })))
	f.Fuzz(func(t *testing.T, text []byte) {
		h, err := ReadHalfSpace(bytes.NewReader(text), nil)
		if err != nil {
			return
		}
		r := rand.New(rand.NewPCG(1, 1))
		x := make([]float32, h.Features())
		for range 20 {
			for c := range x {
				x[c] = float32(r.NormFloat64())
			}
			if s := h.Score(x); h.ready && !(s >= 0 && s <= 1) {
				t.Fatalf("score %v", s)
			}
			h.Update(x, 1)
		}
		var b bytes.Buffer
		if err := h.Write(&b); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadHalfSpace(&b, h.Schema()); err != nil {
			t.Fatalf("what was written is refused: %v", err)
		}
	})
}
