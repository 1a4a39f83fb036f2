// SPDX-License-Identifier: Apache-2.0

package model

import (
	"bytes"
	"context"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// trained are models of XGBoost 1.7.4 with its losses, as it reported them.
var trained = []struct {
	name        string
	files       string // *train.csv and *test.csv
	params      func(*TreeParams)
	train, test float64
}{
	{"exact", "", func(p *TreeParams) {
		p.Method, p.Rounds, p.MaxDepth, p.Eta = Exact, 40, 4, 0.2
	}, 0.17044807488605146, 0.24453137227357366},
	{"hist", "", func(p *TreeParams) {
		p.Rounds, p.MaxDepth, p.Eta = 40, 4, 0.2
	}, 0.17295816251940171, 0.2417748976931325},
	{"classes", "classes_", func(p *TreeParams) {
		p.Objective, p.Method, p.Rounds, p.MaxDepth, p.Lambda, p.Gamma, p.MinChildWeight = Softmax, Exact, 8, 4, 2, 1.5, 3
	}, 0.7144064779480298, 0.8525124669571718},
	{"odds", "classes_", func(p *TreeParams) {
		p.Rounds, p.MaxDepth, p.Lambda, p.Gamma, p.BaseScore = 12, 3, 2, 0.5, 0.17
	}, 0.4065735996675988, 0.4776659244981905},
}

func vectorData(t testing.TB, prefix, name string) (train, test Data) {
	t.Helper()
	train.X, train.Y = readLabelled(t, prefix+"train.csv")
	test.X, test.Y = readLabelled(t, prefix+"test.csv")
	if name == "odds" { // class 2 against the rest
		for _, labels := range [][]int{train.Y, test.Y} {
			for i, y := range labels {
				labels[i] = 0
				if y == 2 {
					labels[i] = 1
				}
			}
		}
	}
	return train, test
}

func mustTrain(t testing.TB, d Data, p TreeParams) *Trees {
	t.Helper()
	trees, err := TrainTrees(context.Background(), d, p)
	if err != nil {
		t.Fatal(err)
	}
	return trees
}

func lossOf(t testing.TB, trees *Trees, d Data) float64 {
	t.Helper()
	loss, err := trees.LogLoss(d)
	if err != nil {
		t.Fatal(err)
	}
	return loss
}

// TestLossIsThatOfXGBoost: with the same parameters, within one percent.
func TestLossIsThatOfXGBoost(t *testing.T) {
	for _, c := range trained {
		t.Run(c.name, func(t *testing.T) {
			train, test := vectorData(t, c.files, c.name)
			p := DefaultTreeParams()
			c.params(&p)
			trees := mustTrain(t, train, p)
			for what, pair := range map[string][2]float64{
				"training": {lossOf(t, trees, train), c.train},
				"test":     {lossOf(t, trees, test), c.test},
			} {
				t.Logf("%s log-loss %.6f, XGBoost %.6f: %+.2f %%", what, pair[0], pair[1], 100*(pair[0]/pair[1]-1))
				if math.Abs(pair[0]/pair[1]-1) > 0.01 {
					t.Errorf("%s log-loss %g is not within 1 %% of XGBoost's %g", what, pair[0], pair[1])
				}
			}
		})
	}
}

// TestLogLossIsThatOfXGBoost: of its own models, on the same rows.
func TestLogLossIsThatOfXGBoost(t *testing.T) {
	for _, c := range trained {
		file := map[string]string{"exact": "xgb174_exact", "hist": "xgb174_hist256"}[c.name]
		if file == "" {
			file = c.name
		}
		_, test := vectorData(t, c.files, c.name)
		if got := lossOf(t, loadVector(t, file+".ubj"), test); math.Abs(got-c.test) > 2e-6 {
			t.Errorf("%s: log-loss %.7f, XGBoost says %.7f", c.name, got, c.test)
		}
	}
}

func bytesOf(t testing.TB, trees *Trees) string {
	t.Helper()
	var file bytes.Buffer
	if err := trees.WriteUBJ(&file); err != nil {
		t.Fatal(err)
	}
	return file.String()
}

// TestTrainingIsReproducible: the same seed gives the same bytes on any number of
// processors, and another seed others.
func TestTrainingIsReproducible(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	train, test := vectorData(t, "classes_", "classes")
	for _, method := range []Method{Histogram, Exact} {
		p := DefaultTreeParams()
		p.Objective, p.Method, p.Rounds, p.Subsample, p.Colsample = Softmax, method, 5, 0.7, 0.6
		p.Validation, p.EarlyStop = &test, 3
		var want string
		for _, processors := range []int{1, 2, 7} {
			runtime.GOMAXPROCS(processors)
			got := bytesOf(t, mustTrain(t, train, p))
			if want == "" {
				want = got
			}
			if got != want {
				t.Errorf("method %d: %d processors train another model", method, processors)
			}
		}
		p.Seed++
		if bytesOf(t, mustTrain(t, train, p)) == want {
			t.Errorf("method %d: the seed changes nothing", method)
		}
	}
}

// blobs are rows of three features around a centre for each class.
func blobs(seed uint64, n, classes int) (d Data) {
	rng := rand.New(rand.NewPCG(seed, 3))
	for i := range n {
		y := i % classes
		d.X = append(d.X, []float32{
			float32(rng.NormFloat64() + 2*float64(y)), float32(rng.NormFloat64() - float64(y)), float32(rng.NormFloat64()),
		})
		d.Y = append(d.Y, y)
	}
	return d
}

func TestUnknownValuesLearnTheirSide(t *testing.T) {
	for _, method := range []Method{Histogram, Exact} {
		d := blobs(1, 400, 2)
		for i, row := range d.X {
			row[0], row[1], row[2] = float32(i%10), 0, 0
			if i%3 == 0 {
				row[0] = float32(math.NaN()) // unknown means class 1, as do 7, 8 and 9
			}
			d.Y[i] = 0
			if row[0] != row[0] || row[0] >= 7 {
				d.Y[i] = 1
			}
		}
		p := DefaultTreeParams()
		p.Method, p.Rounds, p.MaxDepth = method, 10, 1
		trees := mustTrain(t, d, p)
		out := make([]float32, 1)
		for x, want := range map[float32]bool{0: false, 6: false, 7: true, 9: true, float32(math.NaN()): true} {
			if trees.Margin([]float32{x, 0, 0}, out); (out[0] > 0) != want {
				t.Errorf("method %d: margin %g for %g", method, out[0], x)
			}
		}
		if raw := trees.raw(0); raw.nodes[0].value != 6.5 || raw.nodes[0].defaultLeft {
			t.Errorf("method %d: the first split is at %g, unknown left: %v", method, raw.nodes[0].value, raw.nodes[0].defaultLeft)
		}
	}
}

// TestUnknownAgainstKnown: when only being known tells the classes apart.
func TestUnknownAgainstKnown(t *testing.T) {
	for _, method := range []Method{Histogram, Exact} {
		d := blobs(1, 200, 2)
		for i, row := range d.X {
			row[0], row[1], row[2] = float32(i%7), 1, 1
			if d.Y[i] == 1 {
				row[0] = float32(math.NaN())
			}
		}
		p := DefaultTreeParams()
		p.Method, p.Rounds = method, 20
		if loss := lossOf(t, mustTrain(t, d, p), d); loss > 0.02 {
			t.Errorf("method %d: log-loss %g", method, loss)
		}
	}
}

func TestWeightsCount(t *testing.T) {
	d := blobs(2, 300, 2)
	twice := Data{X: append(append([][]float32{}, d.X...), d.X[:100]...), Y: append(append([]int{}, d.Y...), d.Y[:100]...)}
	d.Weight = make([]float32, len(d.X))
	for i := range d.Weight {
		d.Weight[i] = 1
		if i < 100 {
			d.Weight[i] = 2
		}
	}
	for _, method := range []Method{Histogram, Exact} {
		p := DefaultTreeParams()
		p.Method, p.Rounds = method, 10
		a, b := mustTrain(t, d, p), mustTrain(t, twice, p)
		if la, lb := lossOf(t, a, d), lossOf(t, b, d); math.Abs(la-lb) > 1e-4 {
			t.Errorf("method %d: a row of weight 2 is not two rows: log-loss %g and %g", method, la, lb)
		}
	}
}

// TestWeightlessRowsDoNotCount: not as rows, and not as edges of bins.
func TestWeightlessRowsDoNotCount(t *testing.T) {
	d := blobs(2, 300, 2)
	more := blobs(2, 400, 2)
	more.Weight = make([]float32, 400)
	for i := range more.Weight {
		if i < 300 {
			more.X[i], more.Weight[i] = d.X[i], 1
		} else {
			more.X[i], more.Y[i] = []float32{1000, -1000, 0.01}, 1-more.Y[i]
		}
	}
	for _, method := range []Method{Histogram, Exact} {
		p := DefaultTreeParams()
		p.Method, p.Rounds = method, 10
		if a, b := lossOf(t, mustTrain(t, d, p), d), lossOf(t, mustTrain(t, more, p), d); math.Abs(a-b) > 1e-3 {
			t.Errorf("method %d: log-loss %g with rows of no weight, %g without", method, b, a)
		}
	}
}

// TestTooLittleWeightTeachesNothing: below the least hessian there is no leaf.
func TestTooLittleWeightTeachesNothing(t *testing.T) {
	d := blobs(2, 100, 2)
	d.Weight = make([]float32, 100)
	for i := range d.Weight {
		d.Weight[i] = 0.001
	}
	out := make([]float32, 1)
	if mustTrain(t, d, DefaultTreeParams()).Margin(d.X[0], out); out[0] != 0 {
		t.Errorf("margin %g", out[0])
	}
}

func TestEarlyStopKeepsTheBestRounds(t *testing.T) {
	train, test := blobs(3, 300, 3), blobs(4, 300, 3)
	p := DefaultTreeParams()
	p.Objective, p.Rounds, p.Eta, p.Lambda, p.MinChildWeight = Softmax, 200, 0.5, 0, 0
	p.Validation, p.EarlyStop = &test, 5
	var rounds []Round
	p.Report = func(r Round) { rounds = append(rounds, r) }
	trees := mustTrain(t, train, p)
	best := rounds[0]
	for i, r := range rounds {
		if r.Number != i+1 {
			t.Fatalf("round %d is reported as %d", i+1, r.Number)
		}
		if r.Validation < best.Validation {
			best = r
		}
	}
	if len(rounds) != best.Number+5 || len(rounds) >= 200 {
		t.Errorf("%d rounds with the best at %d", len(rounds), best.Number)
	}
	if trees.Len() != 3*best.Number {
		t.Errorf("%d trees are left of %d rounds", trees.Len(), best.Number)
	}
	for _, c := range []struct {
		d    Data
		want float64
	}{{test, best.Validation}, {train, best.Train}} {
		if got := lossOf(t, trees, c.d); math.Abs(got-c.want) > 1e-12 {
			t.Errorf("log-loss %v, reported was %v", got, c.want)
		}
	}
}

func TestGammaAndDepthKeepTreesSmall(t *testing.T) {
	d := blobs(5, 500, 2)
	p := DefaultTreeParams()
	p.Rounds = 3
	free := mustTrain(t, d, p)
	p.MaxDepth = 2
	if shallow := mustTrain(t, d, p); shallow.MaxDepth() != 2 || free.MaxDepth() != 6 {
		t.Errorf("depths %d and %d, want 2 and 6", shallow.MaxDepth(), free.MaxDepth())
	}
	p = DefaultTreeParams()
	p.Rounds, p.Gamma = 3, 20
	pruned := mustTrain(t, d, p)
	if pruned.Nodes() >= free.Nodes() {
		t.Errorf("gamma leaves %d of %d nodes", pruned.Nodes(), free.Nodes())
	}
	for i := range pruned.nodes {
		left, right := pruned.children(int32(i))
		last := !pruned.isLeaf(int32(i)) && pruned.isLeaf(left) && pruned.isLeaf(right)
		if last && pruned.stats[i].gain < 20 {
			t.Errorf("a last split gains %g", pruned.stats[i].gain)
		}
	}
	p.Gamma, p.MinChildWeight = 0, 30
	for i, s := range mustTrain(t, d, p).stats {
		if s.cover < 30 {
			t.Errorf("node %d has a hessian of %g", i, s.cover)
		}
	}
}

func TestColsampleUsesItsShare(t *testing.T) {
	d := blobs(6, 300, 2)
	p := DefaultTreeParams()
	p.Rounds, p.Colsample = 30, 0.4 // one of three
	trees := mustTrain(t, d, p)
	used := map[uint32]bool{}
	for tree := range trees.Len() {
		raw, own := trees.raw(tree), map[int64]bool{}
		for i := range raw.nodes {
			if !raw.nodes[i].isLeaf() {
				own[raw.nodes[i].feature] = true
				used[uint32(raw.nodes[i].feature)] = true
			}
		}
		if len(own) > 1 {
			t.Errorf("tree %d uses %d features", tree, len(own))
		}
	}
	if len(used) != 3 {
		t.Errorf("all trees use %d features", len(used))
	}
	gains := trees.Importance()
	if len(gains) != 3 || gains[0] <= gains[2] {
		t.Errorf("importance %v: the first feature tells the classes apart, the last is noise", gains)
	}
}

func TestContinueLearnsNewRows(t *testing.T) {
	old := blobs(7, 400, 3)
	p := DefaultTreeParams()
	p.Objective, p.Rounds, p.Schema = Softmax, 10, Schema{"a", "b", "c"}
	first := mustTrain(t, old, p)
	before := bytesOf(t, first)
	both := blobs(7, 400, 3)
	for range 100 { // what operators say: far to the right is class 0
		both.X, both.Y = append(both.X, []float32{20, 0, 0}), append(both.Y, 0)
	}
	more, err := first.Continue(context.Background(), both, p)
	if err != nil {
		t.Fatal(err)
	}
	if more.Len() != 60 || first.Len() != 30 || bytesOf(t, first) != before {
		t.Errorf("%d trees continue %d", more.Len(), first.Len())
	}
	if err := more.Match(first.Schema()); err != nil {
		t.Error(err)
	}
	classes := make([]float32, 3)
	if first.Predict([]float32{20, 0, 0}, classes); classes[0] > 0.5 {
		t.Fatalf("the first model knows already: %v", classes)
	}
	if more.Predict([]float32{20, 0, 0}, classes); classes[0] < 0.5 {
		t.Errorf("probabilities %v", classes)
	}
	if a, b := lossOf(t, first, old), lossOf(t, more, old); b > a*1.1 {
		t.Errorf("what was known is lost: log-loss %g, was %g", b, a)
	}
	// Continuing on the same rows is training on.
	p.Rounds = 20
	whole := mustTrain(t, old, p)
	p.Rounds = 10
	again, err := first.Continue(context.Background(), old, p)
	if err != nil {
		t.Fatal(err)
	}
	if bytesOf(t, again) != bytesOf(t, whole) {
		t.Error("ten rounds and ten more are not twenty")
	}
}

// TestContinueMayKeepNothing: rows labelled at random make nothing better.
func TestContinueMayKeepNothing(t *testing.T) {
	p := DefaultTreeParams()
	p.Rounds, p.MaxDepth = 15, 3
	first := mustTrain(t, blobs(20, 600, 2), p)
	noise, held := blobs(21, 200, 2), blobs(22, 300, 2)
	rng := rand.New(rand.NewPCG(1, 5))
	for i := range noise.Y {
		noise.Y[i] = rng.IntN(2)
	}
	p.Validation, p.EarlyStop = &held, 2
	same, err := first.Continue(context.Background(), noise, p)
	if err != nil {
		t.Fatal(err)
	}
	if bytesOf(t, same) != bytesOf(t, first) {
		t.Errorf("%d trees were added: log-loss %g, was %g", same.Len()-first.Len(), lossOf(t, same, held), lossOf(t, first, held))
	}
}

// TestTrainedModelsSurviveTheirFile: bit for bit, in both encodings.
func TestTrainedModelsSurviveTheirFile(t *testing.T) {
	train, test := vectorData(t, "classes_", "classes")
	p := DefaultTreeParams()
	p.Objective, p.Rounds, p.Gamma = Softmax, 6, 2
	trees := mustTrain(t, train, p)
	var json bytes.Buffer
	if err := trees.WriteJSON(&json); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{json.String(), bytesOf(t, trees)} {
		back, err := ParseTrees([]byte(file))
		if err != nil {
			t.Fatal(err)
		}
		a, b := make([]float32, 4), make([]float32, 4)
		for _, x := range test.X {
			trees.Margin(x, a)
			back.Margin(x, b)
			if a[0] != b[0] || a[1] != b[1] || a[2] != b[2] || a[3] != b[3] {
				t.Fatalf("margins %v, from the file %v", a, b)
			}
		}
	}
}

func TestTrainingRefuses(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	for _, c := range []struct {
		name  string
		spoil func(*Data, *TreeParams)
		want  string
	}{
		{"nothing", func(d *Data, p *TreeParams) { *d = Data{} }, "train trees: no rows"},
		{"too little", func(d *Data, p *TreeParams) { d.X, d.Y = d.X[:19], d.Y[:19] }, "only 19 rows, at least 20 are needed"},
		{"labels missing", func(d *Data, p *TreeParams) { d.Y = d.Y[1:] }, "99 labels for 100 rows"},
		{"weights missing", func(d *Data, p *TreeParams) { d.Weight = make([]float32, 3) }, "3 weights for 100 rows"},
		{"a short row", func(d *Data, p *TreeParams) { d.X[7] = d.X[7][:2] }, "row 7: 2 features, 3 are needed"},
		{"an infinite value", func(d *Data, p *TreeParams) { d.X[7][1] = inf }, "row 7: feature 1 is +Inf, which is not finite"},
		{"a negative label", func(d *Data, p *TreeParams) { d.Y[9] = -1 }, "row 9: label -1, classes are 0 to 1"},
		{"a third label", func(d *Data, p *TreeParams) { d.Y[9] = 2 }, "row 9: label 2, classes are 0 to 1"},
		{"an infinite weight", func(d *Data, p *TreeParams) { d.Weight = make([]float32, 100); d.Weight[3] = inf }, "row 3: weight +Inf"},
		{"an unknown weight", func(d *Data, p *TreeParams) { d.Weight = make([]float32, 100); d.Weight[3] = nan }, "row 3: weight NaN"},
		{"a negative weight", func(d *Data, p *TreeParams) { d.Weight = make([]float32, 100); d.Weight[3] = -1 }, "row 3: weight -1"},
		{"no weight", func(d *Data, p *TreeParams) { d.Weight = make([]float32, 100) }, "all 100 rows have no weight"},
		{"one class", func(d *Data, p *TreeParams) { clear(d.Y) }, "all rows with a weight are of class 0, at least two"},
		{"one class with a weight", func(d *Data, p *TreeParams) {
			d.Weight = make([]float32, 100)
			d.Weight[1], d.Weight[3] = 1, 1
		}, "all rows with a weight are of class 1"},
		{"no columns", func(d *Data, p *TreeParams) {
			for i := range d.X {
				d.X[i] = nil
			}
		}, "0 features, 1 to 4096 are allowed"},
		{"names", func(d *Data, p *TreeParams) { p.Schema = Schema{"a", "b"} }, "2 feature names for rows of 3 features"},
		{"a name twice", func(d *Data, p *TreeParams) { p.Schema = Schema{"a", "b", "a"} }, `"a" is feature 0 already`},
		{"many classes", func(d *Data, p *TreeParams) { p.Objective, d.Y[0] = Softmax, 300 }, "301 classes, at most 256"},
		{"eta", func(d *Data, p *TreeParams) { p.Eta = 0 }, "eta 0 is not within"},
		{"an unknown eta", func(d *Data, p *TreeParams) { p.Eta = math.NaN() }, "eta NaN is not within"},
		{"lambda", func(d *Data, p *TreeParams) { p.Lambda = -1 }, "lambda -1 is not within 0"},
		{"depth", func(d *Data, p *TreeParams) { p.MaxDepth = 16 }, "max depth 16 is not within 1 and 15"},
		{"rounds", func(d *Data, p *TreeParams) { p.Rounds = 0 }, "rounds 0 is not within"},
		{"rounds of many classes", func(d *Data, p *TreeParams) { p.Objective, p.Rounds = Softmax, 5000 }, "10000 trees, at most 8192"},
		{"bins", func(d *Data, p *TreeParams) { p.MaxBins = 1 }, "max bins 1 is not within"},
		{"subsample", func(d *Data, p *TreeParams) { p.Subsample = 1.5 }, "subsample 1.5 is not within"},
		{"base score", func(d *Data, p *TreeParams) { p.BaseScore = 1 }, "base score 1 is no probability"},
		{"method", func(d *Data, p *TreeParams) { p.Method = 9 }, "unknown objective 0 or method 9"},
		{"early stop", func(d *Data, p *TreeParams) { p.EarlyStop = 3 }, "needs validation rows"},
		{"validation", func(d *Data, p *TreeParams) { p.Validation = &Data{} }, "validation: no rows"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, p := blobs(8, 100, 2), DefaultTreeParams()
			c.spoil(&d, &p)
			if _, err := TrainTrees(context.Background(), d, p); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
	d, p := blobs(8, 100, 2), DefaultTreeParams()
	first := mustTrain(t, d, p)
	d.X[3] = nil
	if _, err := first.Continue(context.Background(), d, p); err == nil || !strings.Contains(err.Error(), "continue trees: row 3") {
		t.Errorf("continuing on a short row: %v", err)
	}
	p.Eta = 2
	if _, err := first.Continue(context.Background(), blobs(8, 100, 2), p); err == nil || !strings.Contains(err.Error(), "continue trees: eta 2") {
		t.Errorf("continuing with eta 2: %v", err)
	}
	p.Eta = 1
	if _, err := first.LogLoss(Data{}); err == nil || !strings.Contains(err.Error(), "log-loss: no rows") {
		t.Errorf("log-loss of nothing: %v", err)
	}
	ended, end := context.WithCancel(context.Background())
	end()
	if _, err := TrainTrees(ended, blobs(8, 100, 2), p); err == nil || !strings.Contains(err.Error(), "context canceled") {
		t.Errorf("an ended context: %v", err)
	}
}

// TestOddColumnsAreNoTrouble: unknown or equal throughout, huge, tiny, few values.
func TestOddColumnsAreNoTrouble(t *testing.T) {
	d := blobs(9, 200, 2)
	for i, row := range d.X {
		huge := float32(math.MaxFloat32)
		if i%4 == 0 {
			huge = -huge
		}
		d.X[i] = append(row, float32(math.NaN()), 5, huge, math.SmallestNonzeroFloat32*float32(i), float32(i%2)*float32(d.Y[i]))
	}
	for _, method := range []Method{Histogram, Exact} {
		for _, bins := range []int{2, 3, 256} {
			p := DefaultTreeParams()
			p.Method, p.MaxBins, p.Lambda, p.MinChildWeight, p.Rounds = method, bins, 0, 0, 20
			if loss := lossOf(t, mustTrain(t, d, p), d); !(loss < 0.3) {
				t.Errorf("method %d, %d bins: log-loss %g", method, bins, loss)
			}
		}
	}
}

func TestSortedRowsAreSorted(t *testing.T) {
	negativeZero := float32(math.Copysign(0, -1))
	column := []float32{
		0, 1, -1, negativeZero, math.MaxFloat32, -math.MaxFloat32, float32(math.NaN()),
		math.SmallestNonzeroFloat32, -math.SmallestNonzeroFloat32, 1, 0.5, -1,
	}
	want := []int32{5, 2, 11, 8, 0, 3, 7, 10, 1, 9, 4}
	if got := sortedRows(column); !slices.Equal(got, want) {
		t.Errorf("rows %v, want %v", got, want)
	}
}

func TestBinsHoldAboutTheSame(t *testing.T) {
	var d Data
	column := make([]float32, 10000)
	for i := range column {
		column[i] = float32(i * 7919 % 10000)
		if i%5 == 0 {
			column[i] = 4 // a heavy value
		}
		d.X = append(d.X, nil)
	}
	edges := binEdges(column, &d, 64)
	if len(edges) > 64 || len(edges) < 50 {
		t.Fatalf("%d bins", len(edges))
	}
	count := make([]int, len(edges)+1)
	for _, v := range column {
		bin := binOf(edges, v)
		count[bin]++
		if v >= edges[bin] || (bin > 0 && v < edges[bin-1]) {
			t.Fatalf("%g is not within bin %d", v, bin)
		}
	}
	for bin, n := range count[:len(edges)] {
		ends := bin == 0 || bin == len(edges)-1 // of the lowest and the highest value alone
		if heavy := bin == int(binOf(edges, 4)); n > 250 != heavy || (n < 50 && !ends) {
			t.Errorf("bin %d holds %d of 10000 rows", bin, n)
		}
	}
	if count[len(edges)] != 0 {
		t.Errorf("%d known values are unknown", count[len(edges)])
	}
}

func BenchmarkTrain(b *testing.B) {
	rows := randomRows(5, 20000, 40)
	d := Data{X: rows}
	for _, row := range rows {
		y := 0
		if row[0]+row[1]*row[2] > 0 {
			y = 1
		}
		d.Y = append(d.Y, y)
	}
	for name, method := range map[string]Method{"hist": Histogram, "exact": Exact} {
		b.Run(name, func(b *testing.B) {
			p := DefaultTreeParams()
			p.Rounds, p.Method = 10, method
			for b.Loop() {
				mustTrain(b, d, p)
			}
		})
	}
}
