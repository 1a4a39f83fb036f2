// SPDX-License-Identifier: Apache-2.0

package model

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// vectors are models and margins made by XGBoost; see testdata/xgboost/README.md.
const vectors = "testdata/xgboost"

// readTable reads a file of numbers without a header, rounded to float32.
func readTable(t testing.TB, file string) (rows [][]float32) {
	t.Helper()
	f, err := os.Open(filepath.Join(vectors, file))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines, err := csv.NewReader(f).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range lines {
		row := make([]float32, len(line))
		for i, cell := range line {
			v, err := strconv.ParseFloat(cell, 32)
			if err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			row[i] = float32(v)
		}
		rows = append(rows, row)
	}
	return rows
}

// readLabelled splits off the last column, the class.
func readLabelled(t testing.TB, file string) (rows [][]float32, labels []int) {
	t.Helper()
	for _, row := range readTable(t, file) {
		last := len(row) - 1
		rows = append(rows, row[:last])
		labels = append(labels, int(row[last]))
	}
	return rows, labels
}

func readBytes(t testing.TB, file string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(vectors, file))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func loadVector(t testing.TB, file string) *Trees {
	t.Helper()
	trees, err := ReadTrees(bytes.NewReader(readBytes(t, file)))
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return trees
}

// oracle is one model of XGBoost with the rows it was asked about.
type oracle struct{ name, test, margin string }

var oracles = []oracle{
	{"xgb174_exact", "test.csv", "xgb174_exact_test_margin.csv"},
	{"xgb174_hist256", "test.csv", "xgb174_hist256_test_margin.csv"},
	{"classes", "classes_test.csv", "classes_margin.csv"},
	{"odds", "classes_test.csv", "odds_margin.csv"},
}

// checkMargins demands the margins of XGBoost to the last bit.
func (o oracle) checkMargins(t *testing.T, trees *Trees) {
	t.Helper()
	rows, _ := readLabelled(t, o.test)
	want := readTable(t, o.margin)
	if len(rows) != len(want) || len(rows) < 300 {
		t.Fatalf("%d rows and %d margins", len(rows), len(want))
	}
	out := make([]float32, trees.Outputs())
	wrong := 0
	for i, row := range rows {
		trees.Margin(row, out)
		if !slices.Equal(out, want[i]) {
			wrong++
		}
	}
	if wrong > 0 {
		t.Errorf("%d of %d rows differ from XGBoost's margin", wrong, len(rows))
	}
}

func TestMarginsAreThoseOfXGBoost(t *testing.T) {
	for _, o := range oracles {
		for _, ext := range []string{".json", ".ubj"} {
			t.Run(o.name+ext, func(t *testing.T) { o.checkMargins(t, loadVector(t, o.name+ext)) })
		}
	}
}

// TestWrittenModelsAreReadBack covers both encodings, and that writing again
// gives the same bytes.
func TestWrittenModelsAreReadBack(t *testing.T) {
	for _, o := range oracles {
		t.Run(o.name, func(t *testing.T) {
			trees := loadVector(t, o.name+".json")
			for _, write := range []func(*Trees, *bytes.Buffer) error{
				func(m *Trees, b *bytes.Buffer) error { return m.WriteJSON(b) },
				func(m *Trees, b *bytes.Buffer) error { return m.WriteUBJ(b) },
			} {
				var first, second bytes.Buffer
				if err := write(trees, &first); err != nil {
					t.Fatal(err)
				}
				back, err := ParseTrees(first.Bytes())
				if err != nil {
					t.Fatal(err)
				}
				o.checkMargins(t, back)
				if err := write(back, &second); err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(first.Bytes(), second.Bytes()) {
					t.Error("a model that was read is written differently")
				}
			}
		})
	}
}

// TestWrittenBytesAreThoseOfXGBoost: what XGBoost reads is what XGBoost writes.
func TestWrittenBytesAreThoseOfXGBoost(t *testing.T) {
	for _, name := range []string{"xgb174_exact", "xgb174_hist256"} {
		trees := loadVector(t, name+".json")
		var json, ubj bytes.Buffer
		if err := errors.Join(trees.WriteJSON(&json), trees.WriteUBJ(&ubj)); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(json.Bytes(), readBytes(t, name+".json")) {
			t.Errorf("%s.json is written differently", name)
		}
		if !bytes.Equal(ubj.Bytes(), readBytes(t, name+".ubj")) {
			t.Errorf("%s.ubj is written differently", name)
		}
	}
}

// newer rewrites a model of 1.7 as XGBoost 3.2 has it.
func newer(t *testing.T, data []byte) value {
	t.Helper()
	v, err := parseModel(data)
	if err != nil {
		t.Fatal(err)
	}
	learner := v.object["learner"].object
	param := learner["learner_model_param"].object
	param["base_score"] = textOf("[" + param["base_score"].text + "]")
	booster := learner["gradient_booster"].object["model"].object
	booster["cats"] = object(map[string]value{"enc": listOf(), "feature_segments": numbersOf(typeInt32), "sorted_idx": numbersOf(typeInt32)})
	indptr := numbersOf(typeInt32)
	for i := range booster["trees"].list {
		indptr.nums = append(indptr.nums, float64(i))
	}
	booster["iteration_indptr"] = indptr
	delete(booster["gbtree_model_param"].object, "size_leaf_vector")
	v.object["version"] = listOf(intOf(3), intOf(2), intOf(0))
	v.object["later"] = object(map[string]value{"nothing": {}, "much": intOf(70000), "more": intOf(300)}) // is skipped
	return retype(v, 0)
}

// retype gives numbers the UBJ types that XGBoost writes: readers do not keep them.
func retype(v value, elem byte) value {
	v.elem = elem
	if elem == 0 {
		v.elem = typeInt32
	}
	for i := range v.list {
		v.list[i] = retype(v.list[i], 0)
	}
	for name, member := range v.object {
		switch name {
		case "sum_hessian", "loss_changes", "base_weights", "split_conditions":
			v.object[name] = retype(member, typeFloat32)
		case "default_left", "split_type":
			v.object[name] = retype(member, typeUint8)
		default:
			v.object[name] = retype(member, 0)
		}
	}
	return v
}

func TestModelsOfXGBoost3AreRead(t *testing.T) {
	for _, o := range oracles {
		v := newer(t, readBytes(t, o.name+".ubj"))
		for name, data := range map[string][]byte{"json": encodeJSON(v), "ubj": appendUBJ(nil, v)} {
			t.Run(o.name+"."+name, func(t *testing.T) {
				trees, err := ParseTrees(data)
				if err != nil {
					t.Fatal(err)
				}
				o.checkMargins(t, trees)
			})
		}
	}
}

func TestBaseScoreOfEachClass(t *testing.T) {
	v := newer(t, readBytes(t, "classes.ubj"))
	v.object["learner"].object["learner_model_param"].object["base_score"] = textOf("[-1E0,2.5E-1,0E0,1E1]")
	file := encodeJSON(v)
	for range 2 { // as read, and as written by us
		trees, err := ParseTrees(file)
		if err != nil {
			t.Fatal(err)
		}
		if want := []float32{-1, 0.25, 0, 10}; !slices.Equal(trees.base, want) {
			t.Fatalf("base %v, want %v", trees.base, want)
		}
		var written bytes.Buffer
		if err := trees.WriteJSON(&written); err != nil {
			t.Fatal(err)
		}
		file = written.Bytes()
	}
}

func TestPredictIsAProbability(t *testing.T) {
	for _, o := range oracles {
		trees := loadVector(t, o.name+".ubj")
		rows, _ := readLabelled(t, o.test)
		margin, p := make([]float32, trees.Outputs()), make([]float32, trees.Outputs())
		for _, row := range rows[:50] {
			trees.Margin(row, margin)
			trees.Predict(row, p)
			want, sum := make([]float64, len(p)), 0.0
			for i, m := range margin {
				want[i] = math.Exp(float64(m))
				sum += want[i]
			}
			if trees.Objective() == Logistic {
				sum++
			}
			for i := range p {
				if math.Abs(float64(p[i])-want[i]/sum) > 1e-6 {
					t.Fatalf("%s: probabilities %v for margins %v", o.name, p, margin)
				}
			}
		}
	}
}

// TestContributionsAreThoseOfXGBoost compares with pred_contribs=True, which
// XGBoost adds up in float32, and holds the sum against the margin.
func TestContributionsAreThoseOfXGBoost(t *testing.T) {
	for _, name := range []string{"classes", "odds"} {
		trees := loadVector(t, name+".ubj")
		rows, _ := readLabelled(t, "classes_test.csv")
		want := readTable(t, name+"_contrib.csv")
		width := trees.Features() + 1
		out, margin := make([]float32, width), make([]float32, trees.Outputs())
		for i, all := range want {
			trees.Margin(rows[i], margin)
			for class := range trees.Outputs() {
				trees.Contributions(rows[i], class, out)
				sum := 0.0
				for j, v := range out {
					sum += float64(v)
					if d := math.Abs(float64(v - all[class*width+j])); d > 2e-5 {
						t.Errorf("%s, row %d, class %d, feature %d: %g, XGBoost has %g", name, i, class, j, v, all[class*width+j])
					}
				}
				if math.Abs(sum-float64(margin[class])) > 2e-6*math.Max(1, math.Abs(sum)) {
					t.Errorf("%s, row %d, class %d: contributions add up to %g, the margin is %g", name, i, class, sum, margin[class])
				}
			}
		}
	}
}

func TestNamesAndHash(t *testing.T) {
	trees := loadVector(t, "classes.json")
	names := strings.Fields("pkt_rate new_source_share syn_share port_entropy ttl_top size_mean")
	if err := trees.Match(names); err != nil {
		t.Fatal(err)
	}
	named, err := trees.WithAttributes(map[string]string{"note": "a \"b\" \\ \t ü", attributeSchema: "forged"})
	if err != nil {
		t.Fatal(err)
	}
	var file bytes.Buffer
	if err := named.WriteJSON(&file); err != nil {
		t.Fatal(err)
	}
	back, err := ParseTrees(file.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"note": "a \"b\" \\ \t ü", attributeSchema: Schema(names).Hash()}
	if got := back.Attributes(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("attributes %v, want %v", got, want)
	}
	renamed := bytes.Replace(file.Bytes(), []byte("pkt_rate"), []byte("byte_rate"), 1)
	if _, err := ParseTrees(renamed); err == nil || !strings.Contains(err.Error(), "names were changed") {
		t.Errorf("a renamed feature: %v", err)
	}
}
