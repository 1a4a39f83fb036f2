// SPDX-License-Identifier: Apache-2.0

package model

import (
	"bytes"
	"encoding/json"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// sharedVectors has the whole of what testdata has a part of.
const sharedVectors = "../../../shared/data/model-vectors"

// vectorFiles returns the vectors' directory: the large ones where they are there.
func vectorFiles(t testing.TB) string {
	if _, err := os.Stat(filepath.Join(sharedVectors, "sklearn121_iforest.json")); err == nil {
		return sharedVectors
	}
	t.Logf("%s is absent: tested with the part of it in testdata", sharedVectors)
	return "testdata/forest"
}

// sklearnForest is the export described in testdata/forest/README.md.
type sklearnForest struct {
	Sample int `json:"max_samples"`
	Trees  []struct {
		Left, Right, Feature []int32
		Threshold            []float64
		N                    []int32
	}
}

// forest lays the trees out as ours are, through the checks of a file.
func (s sklearnForest) forest(t testing.TB, features int) *Forest {
	t.Helper()
	f := newForest(nil, make([]float32, features), s.Sample)
	for _, in := range s.Trees {
		out := forestFileTree{Size: []int32{in.N[0]}}
		queue := []int32{0}
		for i := 0; i < len(queue); i++ {
			at, left := queue[i], int32(noChild)
			if in.Left[at] >= 0 {
				left = int32(len(queue))
				queue = append(queue, in.Left[at], in.Right[at])
				out.Size = append(out.Size, in.N[in.Left[at]], in.N[in.Right[at]])
			}
			out.Left = append(out.Left, left)
			out.Feature = append(out.Feature, max(0, in.Feature[at]))
			out.Threshold = append(out.Threshold, roundDown(in.Threshold[at]))
		}
		if err := f.add(&out); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

// roundDown returns the largest float32 that is at most v: the same float32 are at
// most either.
func roundDown(v float64) float32 {
	w := float32(v)
	if float64(w) > v {
		w = math.Nextafter32(w, float32(math.Inf(-1)))
	}
	return w
}

// TestForestScoresAsScikitLearn: the oracle, vector by vector.
func TestForestScoresAsScikitLearn(t *testing.T) {
	dir := vectorFiles(t)
	text, err := os.ReadFile(filepath.Join(dir, "sklearn121_iforest.json"))
	if err != nil {
		t.Fatal(err)
	}
	var s sklearnForest
	if err := json.Unmarshal(text, &s); err != nil {
		t.Fatal(err)
	}
	up, err := filepath.Rel(vectors, dir)
	if err != nil {
		t.Fatal(err)
	}
	rows := readTable(t, filepath.Join(up, "iforest_test_X.csv"))
	scores := readTable(t, filepath.Join(up, "sklearn121_iforest_test_scores.csv"))
	if len(rows) != len(scores) || len(rows) < 50 {
		t.Fatalf("%d vectors, %d scores", len(rows), len(scores))
	}
	f := s.forest(t, len(rows[0]))
	worst := 0.0
	for i, x := range rows {
		worst = max(worst, math.Abs(f.Score(x)+float64(scores[i][0])))
	}
	t.Logf("%d trees, %d vectors: largest difference %.2g", f.Trees(), len(rows), worst)
	if worst > 1e-6 {
		t.Errorf("largest difference %g, want at most 1e-6", worst)
	}
}

// normalRows are correlated and differ in scale; some values are unknown.
func normalRows(n, width int, seed uint64) [][]float32 {
	r := rand.New(rand.NewPCG(seed, 1))
	rows := make([][]float32, n)
	for i := range rows {
		rows[i] = make([]float32, width)
		load := r.NormFloat64()
		for c := range rows[i] {
			rows[i][c] = float32((load + r.NormFloat64()) * float64(c+1))
			if r.IntN(200) == 0 {
				rows[i][c] = float32(math.NaN())
			}
		}
	}
	return rows
}

func testSchema(width int) Schema {
	s := make(Schema, width)
	for i := range s {
		s[i] = "feature_" + strconv.Itoa(i)
	}
	return s
}

func trainedForest(t testing.TB) *Forest {
	t.Helper()
	f, err := TrainForest(normalRows(3000, 8, 1), ForestParams{Seed: 7, Schema: testSchema(8)})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestForestTellsOutliers(t *testing.T) {
	f := trainedForest(t)
	if f.Trees() != 100 || f.Sample() != 256 || f.Features() != 8 {
		t.Fatalf("%d trees × %d, %d features", f.Trees(), f.Sample(), f.Features())
	}
	highest := 0.0
	for _, row := range normalRows(1000, 8, 2) {
		highest = max(highest, f.Score(row))
	}
	outlier := make([]float32, 8)
	for c := range outlier {
		outlier[c] = float32(8 * (c + 1))
	}
	if got := f.Score(outlier); got <= highest || got > 1 {
		t.Errorf("outlier scores %.3f, normal rows up to %.3f", got, highest)
	}
	if got := f.Score(make([]float32, 8)); got > 0.45 {
		t.Errorf("the middle scores %.3f", got)
	}
	if got := f.Score(make([]float32, 7)); !math.IsNaN(got) {
		t.Errorf("a short vector scores %v", got)
	}
}

// TestForestUnknownIsTheMedian: NaN neither raises nor lowers suspicion.
func TestForestUnknownIsTheMedian(t *testing.T) {
	f := trainedForest(t)
	x := normalRows(1, 8, 3)[0]
	for c := range x {
		with := append([]float32{}, x...)
		with[c] = f.fill[c]
		without := append([]float32{}, x...)
		without[c] = float32(math.NaN())
		if a, b := f.Score(with), f.Score(without); a != b {
			t.Errorf("column %d: median %.6f, NaN %.6f", c, a, b)
		}
	}
}

func TestForestContributions(t *testing.T) {
	f := trainedForest(t)
	x := make([]float32, 8)
	x[5] = 80
	got := f.Contributions(x)
	sum := 0.0
	for c, v := range got {
		sum += v
		if c != 5 && v >= got[5] {
			t.Errorf("feature %d is credited with %.3f, the outlying one with %.3f", c, v, got[5])
		}
	}
	if want := 1 + math.Log2(f.Score(x)); math.Abs(sum-want) > 1e-9 {
		t.Errorf("credits add up to %.9f, want %.9f", sum, want)
	}
	if f.Contributions(x[:3]) != nil {
		t.Error("a short vector has contributions")
	}
}

// TestForestNeighbouringNumbers: between two floats that have none between them a
// threshold must still tell them apart.
func TestForestNeighbouringNumbers(t *testing.T) {
	rows := make([][]float32, 64)
	for i := range rows {
		rows[i] = []float32{1}
		if i%2 == 0 {
			rows[i][0] = math.Nextafter32(1, 2)
		}
	}
	f, err := TrainForest(rows, ForestParams{Sample: 16})
	if err != nil {
		t.Fatal(err)
	}
	for i, n := range f.nodes {
		if n.size == 0 {
			t.Fatalf("node %d has no rows", i)
		}
	}
}

func TestForestIsDeterministic(t *testing.T) {
	a, b := trainedForest(t), trainedForest(t)
	if !reflect.DeepEqual(a, b) {
		t.Error("the same rows, parameters and seed gave two forests")
	}
	c, err := TrainForest(normalRows(3000, 8, 1), ForestParams{Seed: 8, Schema: testSchema(8)})
	if err != nil {
		t.Fatal(err)
	}
	if reflect.DeepEqual(a.nodes, c.nodes) {
		t.Error("another seed gave the same forest")
	}
}

func TestForestRefusesTrainingData(t *testing.T) {
	same := make([][]float32, 300)
	ragged := normalRows(300, 4, 1)
	infinite := normalRows(300, 4, 1)
	for i := range same {
		same[i] = []float32{1, float32(math.NaN())}
	}
	ragged[17] = ragged[17][:3]
	infinite[20][2] = float32(math.Inf(1))
	for name, c := range map[string]struct {
		rows [][]float32
		p    ForestParams
		want string
	}{
		"none":       {nil, ForestParams{}, "0 rows are too few"},
		"few":        {normalRows(255, 4, 1), ForestParams{}, "255 rows are too few, a tree takes 256"},
		"same":       {same, ForestParams{}, "all 300 rows are the same"},
		"ragged":     {ragged, ForestParams{}, "row 17 has 3 columns"},
		"infinite":   {infinite, ForestParams{}, "row 20, column 2 is infinite"},
		"no columns": {make([][]float32, 300), ForestParams{}, "0 columns"},
		"schema":     {normalRows(300, 4, 1), ForestParams{Schema: testSchema(5)}, "the schema 5 names"},
		"a name":     {normalRows(300, 2, 1), ForestParams{Schema: Schema{"a", "a"}}, "is feature 0 already"},
		"trees":      {normalRows(300, 4, 1), ForestParams{Trees: 2000}, "1 to 1000 trees"},
		"sample":     {normalRows(300, 4, 1), ForestParams{Sample: 1}, "2 to 4096 rows"},
		"nodes":      {normalRows(300, 4, 1), ForestParams{Trees: 1000, Sample: 128}, "more than 200000 nodes"},
	} {
		if _, err := TrainForest(c.rows, c.p); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func TestForestScoreAllocatesNothing(t *testing.T) {
	f, x := trainedForest(t), normalRows(1, 8, 4)[0]
	if n := testing.AllocsPerRun(100, func() { f.Score(x) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkForestScore(b *testing.B) {
	rows := normalRows(4096, 32, 1)
	f, err := TrainForest(rows, ForestParams{Seed: 1})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		f.Score(rows[i&4095])
		i++
	}
}

func BenchmarkForestTrain(b *testing.B) {
	rows := normalRows(4096, 32, 1)
	for b.Loop() {
		if _, err := TrainForest(rows, ForestParams{Seed: 1}); err != nil {
			b.Fatal(err)
		}
	}
}

func forestText(t testing.TB) string {
	t.Helper()
	f, err := TrainForest(normalRows(300, 3, 1), ForestParams{Trees: 2, Sample: 8, Schema: testSchema(3)})
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := f.Write(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestForestFileRoundTrip(t *testing.T) {
	f := trainedForest(t)
	var b bytes.Buffer
	if err := f.Write(&b); err != nil {
		t.Fatal(err)
	}
	t.Logf("100 × 256: %d bytes", b.Len())
	again, err := ReadForest(&b, testSchema(8))
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range normalRows(200, 8, 5) {
		if f.Score(row) != again.Score(row) {
			t.Fatalf("%v: %v, read again %v", row, f.Score(row), again.Score(row))
		}
	}
	if !reflect.DeepEqual(f.nodes, again.nodes) || !slices.Equal(again.Schema(), f.Schema()) {
		t.Error("the forest read is another one")
	}
	f.schema = nil
	if err := f.Write(&b); err == nil {
		t.Error("a forest without a schema was written")
	}
}

// smallForest is a file whose shape the cases below break one thing at a time.
func smallForest(change func(*forestFile)) string {
	file := forestFile{
		fileHeader: newFileHeader(forestFormat, forestVersion, testSchema(2)),
		Sample:     4,
		Fill:       []float32{0, 0},
		Trees: []forestFileTree{{
			Left:      []int32{1, noChild, 3, noChild, noChild},
			Feature:   []int32{0, 0, 1, 0, 0},
			Threshold: []float32{0.5, 0, 0.5, 0, 0},
			Size:      []int32{4, 1, 3, 1, 2},
		}},
	}
	change(&file)
	text, err := json.Marshal(file)
	if err != nil {
		panic(err)
	}
	return string(text)
}

func TestForestFileRefused(t *testing.T) {
	good := smallForest(func(*forestFile) {})
	if _, err := ReadForest(strings.NewReader(good), testSchema(2)); err != nil {
		t.Fatal(err)
	}
	tree := func(change func(*forestFileTree)) string {
		return smallForest(func(f *forestFile) { change(&f.Trees[0]) })
	}
	for name, c := range map[string]struct{ text, want string }{
		"empty":           {"", "damaged"},
		"cut":             {good[:len(good)/2], "damaged"},
		"foreign format":  {strings.Replace(good, forestFormat, "sentinel-x/tress", 1), "format"},
		"foreign version": {strings.Replace(good, `"version":1`, `"version":2`, 1), "version 2"},
		"unknown key":     {strings.Replace(good, `"sample"`, `"simple"`, 1), "simple"},
		"other hash":      {strings.Replace(good, testSchema(2).Hash(), "0123456789abcdef", 1), "hash"},
		"NaN":             {strings.Replace(good, "0.5", "NaN", 1), "damaged"},
		"1e39":            {strings.Replace(good, "0.5", "1e39", 1), "damaged"},
		"null lists":      {strings.Replace(good, `"left":[1,-1,3,-1,-1]`, `"left":null`, 1), "no nodes"},
		"huge":            {good + strings.Repeat(" ", maxForestFile), "bytes"},
		"cycle":           {tree(func(f *forestFileTree) { f.Left[2] = 1 }), "node 2 leads back to node 1: a cycle"},
		"itself":          {tree(func(f *forestFileTree) { f.Left[0] = 0 }), "cycle"},
		"two parents":     {tree(func(f *forestFileTree) { f.Left[1] = 2 }), "has a parent"},
		"orphan":          {tree(func(f *forestFileTree) { f.Left[2] = noChild }), "node 3 has no parent"},
		"far child":       {tree(func(f *forestFileTree) { f.Left[2] = 4 }), "not there"},
		"huge child":      {tree(func(f *forestFileTree) { f.Left[2] = math.MaxInt32 }), "not there"},
		"negative child":  {tree(func(f *forestFileTree) { f.Left[2] = -7 }), "not there"},
		"feature":         {tree(func(f *forestFileTree) { f.Feature[2] = 2 }), "feature 2 is none of 2"},
		"counts":          {tree(func(f *forestFileTree) { f.Size[4] = 3 }), "do not make"},
		"no rows":         {tree(func(f *forestFileTree) { f.Size[1], f.Size[2] = 0, 4 }), "do not make"},
		"root count":      {tree(func(f *forestFileTree) { f.Size[0] = 5 }), "grew from 5 rows"},
		"lists differ":    {tree(func(f *forestFileTree) { f.Size = f.Size[:3] }), "elements"},
		"many nodes":      {smallForest(func(f *forestFile) { f.Sample = 2 }), "too many"},
		"huge sample":     {smallForest(func(f *forestFile) { f.Sample = math.MaxInt32 }), "sample of 2147483647"},
		"no trees":        {smallForest(func(f *forestFile) { f.Trees = nil }), "0 trees"},
		"many trees":      {smallForest(func(f *forestFile) { f.Trees = make([]forestFileTree, 1001) }), "1001 trees"},
		"medians":         {smallForest(func(f *forestFile) { f.Fill = nil }), "medians"},
		"odd name":        {smallForest(func(f *forestFile) { f.fileHeader = newFileHeader(forestFormat, 1, Schema{"a", "a\n"}) }), "feature 1"},
		"no features":     {smallForest(func(f *forestFile) { f.fileHeader = newFileHeader(forestFormat, 1, nil) }), "0 features"},
	} {
		if _, err := ReadForest(strings.NewReader(c.text), nil); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func TestForestFileDeepTree(t *testing.T) {
	const sample = maxForestDepth + 2
	text := smallForest(func(f *forestFile) {
		f.Sample = sample
		var tree forestFileTree
		for i := range int32(2*sample - 1) {
			left, size := int32(noChild), int32(1)
			if i%2 == 0 && i < 2*sample-2 { // a chain: each split sends one row left
				left, size = i+1, sample-i/2
			}
			tree.Left, tree.Size = append(tree.Left, left), append(tree.Size, size)
			tree.Feature, tree.Threshold = append(tree.Feature, 0), append(tree.Threshold, float32(i))
		}
		f.Trees[0] = tree
	})
	if _, err := ReadForest(strings.NewReader(text), nil); err == nil || !strings.Contains(err.Error(), "deeper than 64") {
		t.Errorf("error %v", err)
	}
}

func TestForestForOtherFeatures(t *testing.T) {
	_, err := ReadForest(strings.NewReader(forestText(t)), Schema{"pkt_rate", "syn_ratio"})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, name := range []string{"feature_0", "feature_1", "feature_2", "pkt_rate", "syn_ratio"} {
		if !strings.Contains(err.Error(), name) {
			t.Errorf("error %q does not name %s", err, name)
		}
	}
}

func FuzzReadForest(f *testing.F) {
	text := forestText(f)
	f.Add([]byte(text))
	f.Add([]byte(text[:len(text)/2]))
	f.Add([]byte(smallForest(func(*forestFile) {})))
	f.Add([]byte(smallForest(func(f *forestFile) { f.Trees[0].Left[2] = 1 })))
	f.Fuzz(func(t *testing.T, text []byte) {
		forest, err := ReadForest(bytes.NewReader(text), nil)
		if err != nil {
			return
		}
		x := make([]float32, forest.Features())
		for i := range x {
			x[i] = float32(math.NaN())
		}
		if s := forest.Score(x); !(s > 0 && s <= 1) {
			t.Fatalf("score %v", s)
		}
		forest.Contributions(x)
		var b bytes.Buffer
		if err := forest.Write(&b); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadForest(&b, forest.Schema()); err != nil {
			t.Fatalf("what was written is refused: %v", err)
		}
	})
}
