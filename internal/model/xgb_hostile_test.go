// SPDX-License-Identifier: Apache-2.0

package model

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"runtime"
	"strings"
	"testing"
)

// tree returns the members of tree i of a model.
func (v value) tree(i int) map[string]value { return v.booster()["trees"].list[i].object }

func (v value) booster() map[string]value {
	return v.object["learner"].object["gradient_booster"].object["model"].object
}

func (v value) param() map[string]value {
	return v.object["learner"].object["learner_model_param"].object
}

// set changes one number of tree 2.
func set(column string, at int, number float64) func(value) {
	return func(v value) { v.tree(2)[column].nums[at] = number }
}

func versionOf(numbers ...float64) func(value) {
	return func(v value) {
		v.object["version"] = value{kind: kindNumbers, nums: numbers, elem: typeInt32}
	}
}

// spoiled are ways to break the model of log odds, which has 6 features, 12 trees
// and 15 nodes in tree 2, and what is said about it.
var spoiled = []struct {
	name  string
	spoil func(value)
	want  string
}{
	{"a cycle", set("left_children", 1, 0), "tree 2: node 1: child 0 is reached twice"},
	{"a node of its own child", set("right_children", 3, 3), "tree 2: node 3: child 3 is reached twice"},
	{"twins", set("left_children", 1, 4), "tree 2: node 1: child 4 is reached twice"},
	{"a child outside", set("right_children", 2, 15), "tree 2: node 2: child 15 is outside of the tree's 15 nodes"},
	{"a child far outside", set("right_children", 2, 1e300), "tree 2: node 2: right child: 1e+300 is no index"},
	{"a child below", set("left_children", 2, -2), "tree 2: node 2: child -2 is outside"},
	{"half a leaf", set("left_children", 2, -1), "tree 2: node 2: child -1 is outside"},
	{"half a child", set("left_children", 2, 1.5), "tree 2: node 2: left child: 1.5 is no index"},
	{"a child that is no number", set("left_children", 2, math.NaN()), "tree 2: node 2: left child: NaN is no index"},
	{"an unknown feature", set("split_indices", 0, 6), "tree 2: node 0: splits on feature 6, the model has 6"},
	{"a negative feature", set("split_indices", 0, -1), "tree 2: node 0: splits on feature -1"},
	{"no threshold", set("split_conditions", 0, math.NaN()), "tree 2: node 0: threshold NaN is not finite"},
	{"no end", set("split_conditions", 1, math.Inf(1)), "tree 2: node 1: threshold +Inf is not finite"},
	{"a boundless leaf", set("split_conditions", 14, math.Inf(-1)), "tree 2: node 14: leaf value -Inf is not finite"},
	{"a double", set("split_conditions", 14, 1e300), "tree 2: node 14: leaf value +Inf is not finite"},
	{"a negative hessian", set("sum_hessian", 5, -1), "tree 2: node 5: hessian -1"},
	{"a gain of nothing", set("loss_changes", 0, math.NaN()), "tree 2: node 0: hessian"},
	{"categories", func(v value) { v.tree(2)["split_type"].nums[3] = 1 }, "tree 2: node 3: a categorical split"},
	{"category nodes", func(v value) {
		v.tree(2)["categories_nodes"] = value{kind: kindNumbers, nums: []float64{4}, elem: typeInt32}
	}, "tree 2: node 4: a categorical split"},
	{"vector leaves", func(v value) { v.tree(2)["tree_param"].object["size_leaf_vector"] = textOf("3") }, "tree 2: leaves of several values"},
	{"a short column", func(v value) {
		v.tree(2)["default_left"] = value{kind: kindNumbers, nums: make([]float64, 14), elem: typeUint8}
	}, "tree 2.default_left: has 14 elements, 15 are needed"},
	{"no column", func(v value) { delete(v.tree(2), "parents"); delete(v.tree(2), "sum_hessian") }, `tree 2: has no member "sum_hessian"`},
	{"a column of text", func(v value) { v.tree(2)["sum_hessian"] = listOf(textOf("x")) }, "tree 2.sum_hessian: is an array, not an array of numbers"},
	{"no nodes", func(v value) { v.tree(2)["tree_param"].object["num_nodes"] = textOf("0") }, "has 15 elements, 0 are needed"},
	{"many nodes", func(v value) { v.tree(2)["tree_param"].object["num_nodes"] = textOf("70000") }, "tree 2: has 70000 nodes, at most 65536"},
	{"nodes without end", func(v value) { v.tree(2)["tree_param"].object["num_nodes"] = textOf("99999999999") }, `num_nodes "99999999999" is no count`},
	{"a class outside", func(v value) { v.booster()["tree_info"].nums[2] = 1 }, "tree 2: belongs to class 1 of 1"},
	{"a class below", func(v value) { v.booster()["tree_info"].nums[2] = -1 }, "tree 2: belongs to class -1 of 1"},
	{"many trees", func(v value) {
		trees := listOf()
		for range maxTrees + 1 {
			trees.list = append(trees.list, object(nil))
		}
		v.booster()["trees"] = trees
	}, "8193 trees, at most 8192"},
	{"trees that are text", func(v value) { v.booster()["trees"] = textOf("x") }, "model.trees: is a string, not an array"},
	{"no features", func(v value) { v.param()["num_feature"] = textOf("0") }, "0 features, 1 to 4096"},
	{"many features", func(v value) { v.param()["num_feature"] = textOf("100000") }, "100000 features, 1 to 4096"},
	{"fewer names", func(v value) { v.param()["num_feature"] = textOf("7") }, "6 feature names for 7 features"},
	{"no base score", func(v value) { v.param()["base_score"] = textOf("[]") }, `base_score: "" is no number`},
	{"an odd base score", func(v value) { v.param()["base_score"] = textOf("NaN") }, "base score NaN is not finite"},
	{"two base scores", func(v value) { v.param()["base_score"] = textOf("[1E-1,2E-1]") }, "2 base scores for 1 outputs"},
	{"targets", func(v value) { v.param()["num_target"] = textOf("3") }, "several targets"},
	{"classes", func(v value) { v.param()["num_class"] = textOf("3") }, "3 classes in a model of two"},
	{"ranking", func(v value) { v.object["learner"].object["objective"].object["name"] = textOf("rank:ndcg") }, `objective "rank:ndcg" is not read`},
	{"one class", func(v value) { v.object["learner"].object["objective"].object["name"] = textOf("multi:softmax") }, "0 classes in a model of many"},
	{"many classes", func(v value) {
		v.object["learner"].object["objective"].object["name"] = textOf("multi:softmax")
		v.param()["num_class"] = textOf("1000")
	}, "1000 classes, at most 256"},
	{"dart", func(v value) {
		v.object["learner"].object["gradient_booster"].object["name"] = textOf("dart")
	}, `booster "dart" is not read`},
	{"a name twice", func(v value) { v.object["learner"].object["feature_names"].list[3].text = "pkt_rate" }, `"pkt_rate" is feature 0 already`},
	{"a name with a bracket", func(v value) { v.object["learner"].object["feature_names"].list[3].text = "a<b" }, `contains '<'`},
	{"a foreign hash", func(v value) {
		v.object["learner"].object["attributes"].object[attributeSchema] = textOf("00")
	}, "names were changed"},
	{"an attribute with control characters", func(v value) {
		v.object["learner"].object["attributes"].object["a"] = textOf("\a")
	}, "not plain text"},
	{"no version", func(v value) { delete(v.object, "version") }, `has no member "version"`},
	{"half a version", versionOf(1, 7), "model.version: has 2 elements, 3 are needed"},
	{"a version of text", func(v value) { v.object["version"] = textOf("1.7.4") }, "model.version: is a string"},
	{"an old version", versionOf(1, 6, 2), "written by XGBoost 1.6.2, those of 1.7 to 3.x are read"},
	{"a very old version", versionOf(0, 90, 0), "written by XGBoost 0.90.0"},
	{"a version to come", versionOf(4, 0, 0), "written by XGBoost 4.0.0"},
	{"a minor version that is no number", versionOf(1, math.NaN(), 0), "written by XGBoost 1.NaN.0"},
	{"a version that is no number", versionOf(math.NaN(), 7, 4), "written by XGBoost NaN.7.4"},
	{"no learner", func(v value) { delete(v.object, "learner") }, `model: has no member "learner"`},
	{"a learner that is null", func(v value) { v.object["learner"] = value{} }, "model.learner: is null, not an object"},
}

func TestSpoiledModelsAreRefused(t *testing.T) {
	for _, c := range spoiled {
		t.Run(c.name, func(t *testing.T) {
			v, err := parseModel(readBytes(t, "odds.ubj"))
			if err != nil {
				t.Fatal(err)
			}
			c.spoil(v)
			_, err = decodeTrees(v)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}

// TestVersionsThatAreRead: from the first whose files are as they are now.
func TestVersionsThatAreRead(t *testing.T) {
	for _, version := range [][]float64{{1, 7, 0}, {1, 7, 6}, {2, 0, 3}, {2, 1, 4}, {3, 0, 0}, {3, 99, 1}} {
		v := decodeVector(t, "odds.ubj")
		versionOf(version...)(v)
		if _, err := decodeTrees(v); err != nil {
			t.Errorf("%v: %v", version, err)
		}
	}
}

// TestEveryMemberIsNeededOrIgnored takes each member of a model away and puts
// something of every other kind in its place: that is an error that says where, or
// changes nothing.
func TestEveryMemberIsNeededOrIgnored(t *testing.T) {
	intact := bytesOf(t, loadVector(t, "odds.ubj"))
	others := []*value{
		nil,
		{},
		{kind: kindNumber, number: 3},
		{kind: kindString, text: "x"},
		{kind: kindNumbers, nums: []float64{1, 2}},
		{kind: kindList, list: []value{{}}},
		{kind: kindObject, object: map[string]value{}},
	}
	refused := 0
	for _, path := range memberPaths(decodeVector(t, "odds.ubj"), "") {
		for _, other := range others {
			v := decodeVector(t, "odds.ubj")
			name, parent := spoilMember(v, path, other)
			trees, err := decodeTrees(v)
			switch {
			case err != nil:
				refused++
				if !strings.Contains(err.Error(), name) && !strings.Contains(err.Error(), parent) {
					t.Errorf("%s: the error names neither it nor where it is: %v", path, err)
				}
			case bytesOf(t, trees) != intact && !strings.Contains(path, ".attributes") && !strings.Contains(path, "feature_names"):
				t.Errorf("%s: another model is read", path)
			}
		}
	}
	if refused < 200 {
		t.Errorf("only %d were refused", refused)
	}
}

func decodeVector(t *testing.T, file string) value {
	t.Helper()
	v, err := parseModel(readBytes(t, file))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// memberPaths lists all members of v, of trees only those of the third.
func memberPaths(v value, prefix string) (paths []string) {
	for name, member := range v.object {
		path := prefix + "." + name
		paths = append(append(paths, path), memberPaths(member, path)...)
	}
	if len(v.list) > 2 {
		paths = append(paths, memberPaths(v.list[2], prefix+".2")...)
	}
	return paths
}

// spoilMember replaces a member, or removes it, and returns its name and that of
// what it is a member of.
func spoilMember(v value, path string, other *value) (name, parent string) {
	names := strings.Split(path[1:], ".")
	name, parent = names[len(names)-1], "model"
	for _, parent = range names[:len(names)-1] {
		if parent == "2" {
			v = v.list[2]
		} else {
			v = v.object[parent]
		}
	}
	if other == nil {
		delete(v.object, name)
	} else {
		v.object[name] = *other
	}
	return name, parent
}

func TestNumbersOfAllTypes(t *testing.T) {
	for elem, numbers := range map[byte][]float64{
		typeInt8: {-128, 127}, typeUint8: {0, 255}, typeInt16: {-32768, 32767}, typeInt32: {-1 << 31, 1<<31 - 1},
		typeInt64: {-1 << 53, 1 << 53}, typeFloat32: {-1.5, math.Inf(1)}, typeFloat64: {math.Pi, -1e300},
	} {
		want := object(map[string]value{
			"array": {kind: kindNumbers, nums: numbers, elem: elem},
			"low":   {kind: kindNumber, number: numbers[0], elem: elem},
			"high":  {kind: kindNumber, number: numbers[1], elem: elem},
		})
		got, err := readUBJ(appendUBJ(nil, want))
		if err != nil {
			t.Fatalf("%c: %v", elem, err)
		}
		if fmt.Sprint(retype(got, elem).object["array"].nums, got.object["low"].number, got.object["high"].number) !=
			fmt.Sprint(numbers, numbers[0], numbers[1]) {
			t.Errorf("%c: %v came back as %v", elem, want, got)
		}
	}
}

func TestNamesAreChecked(t *testing.T) {
	for want, s := range map[string]Schema{
		"feature 1: the name is empty":            {"a", ""},
		"the name has 201 bytes, at most 200":     {strings.Repeat("a", 201)},
		`the name "\xff" is not UTF-8`:            {"\xff"},
		`contains '\n'`:                           {"a\nb"},
		`contains '"'`:                            {`a"b`},
		`feature 2: "a" is feature 0 already`:     {"a", "b", "a"},
		"4097 features, at most 4096 are allowed": make(Schema, 4097),
	} {
		if err := s.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
	if err := (Schema{"größe", "a b", "x/y:z"}).Check(); err != nil {
		t.Error(err)
	}
	trees := small(t)
	many := map[string]string{}
	for i := range maxAttributes + 1 {
		many[fmt.Sprint(i)] = ""
	}
	for want, pairs := range map[string]map[string]string{
		"65 attributes, at most 64": many, "4097 bytes, at most 4096": {"a": strings.Repeat("b", 4096)}, "not plain text": {"": "b"},
	} {
		if _, err := trees.WithAttributes(pairs); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}

// chain is a tree as deep as it has inner nodes.
func chain(depth int) *rawTree {
	raw := &rawTree{nodes: []rawNode{{left: -1, right: -1}}}
	for range depth {
		n := len(raw.nodes)
		last := &raw.nodes[n-1]
		last.left, last.right = int32(n), int32(n+1)
		raw.nodes = append(raw.nodes, rawNode{left: -1, right: -1}, rawNode{left: -1, right: -1})
	}
	return raw
}

func TestTreesHaveBounds(t *testing.T) {
	trees, err := newTrees(Logistic, 1, 1, []float32{0.5})
	if err != nil {
		t.Fatal(err)
	}
	if err := trees.add(chain(maxTreeDepth)); err != nil {
		t.Errorf("a tree at the bound: %v", err)
	}
	trees.Contributions([]float32{0}, 0, make([]float32, 2)) // has to find the room it needs
	for want, raw := range map[string]*rawTree{
		"node 129: deeper than the 64 levels":          chain(maxTreeDepth + 1),
		"has no nodes":                                 {},
		"has 65537 nodes, at most 65536 are allowed":   {nodes: make([]rawNode, maxTreeNodes+1)},
		"node 0: child 0 is reached twice, so this is": {nodes: make([]rawNode, 1)},
	} {
		if err := trees.add(raw); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
	big := chain(10)
	big.nodes = append(big.nodes, make([]rawNode, maxTreeNodes-len(big.nodes))...)
	for range maxModelNodes {
		if err = trees.add(big); err != nil {
			break
		}
	}
	if err == nil || trees.Nodes() > maxModelNodes || trees.Len() > maxTrees {
		t.Errorf("%d nodes in %d trees: %v", trees.Nodes(), trees.Len(), err)
	}
}

// TestBrokenFilesAreRefused has what is no model at all, in both encodings.
func TestBrokenFilesAreRefused(t *testing.T) {
	length := func(n uint64) string { return "L" + string(binary.BigEndian.AppendUint64(nil, n)) }
	for _, c := range []struct{ name, file, want string }{
		{"nothing", "", "the file is empty"},
		{"old", "binf\x00\x00", "older binary format is not read"},
		{"json list", "[1]", "neither JSON nor UBJ"},
		{"json cut", `{"learner":{"a`, "byte 14: the file ends inside a string"},
		{"json cut number", `{"learner":1`, "the file ends where ',' is due"},
		{"json cut list", `{"learner":[1,`, "a value is missing"},
		{"json no value", `{"learner":}`, "byte 11: a value is missing"},
		{"json comma", `{"learner":[1 2]}`, "byte 14: '2' where ',' is due"},
		{"json word", `{"learner":nil}`, `byte 11: "nil" is no number`},
		{"json hexadecimal", `{"learner":0x10}`, "is no number"},
		{"json overflow", `{"learner":1e39}`, "is no number of 32 bits"},
		{"json control", "{\"lea\nrner\":1}", "control character 0x0a in a string"},
		{"json escape", `{"\q":1}`, "byte 5: string"},
		{"json twice", `{"a":1,"a":2}`, `member "a" appears twice`},
		{"json mixed", `{"a":[1,"x"]}`, "mixes numbers with something else"},
		{"json mixed the other way", `{"a":["x",1]}`, "mixes numbers with something else"},
		{"json tail", `{"a":1} x`, "something follows the model"},
		{"json deep", `{"a":` + strings.Repeat("[", 1e6), "nested deeper than 32"},
		{"json deep objects", strings.Repeat(`{"a":`, 1e6), "nested deeper than 32"},
		{"json many values", `{"a":[` + strings.Repeat("{},", 1e6), "more than 262144 values"},
		{"json many numbers", `{"a":[` + strings.Repeat("0,", 5e6), "more than 4194304 numbers"},
		{"ubj cut", "{" + length(3) + "ab", "length 3, but 2 bytes are left"},
		{"ubj cut length", "{L\x00", "length: the file ends inside a value"},
		{"ubj huge key", "{" + length(1<<62), "but 0 bytes are left"},
		{"ubj negative key", "{" + length(1<<63), "length -9223372036854775808, but"},
		{"ubj float length", "{d\x00\x00\x00\x00", "a length is no integer"},
		{"ubj no value", "{" + length(1) + "a}", "'}' is no type of value"},
		{"ubj huge list", "{" + length(1) + "a[#" + length(1<<40), "length 1099511627776, but 0"},
		{"ubj huge array", "{" + length(1) + "a[$d#" + length(1<<61) + "....", "length 2305843009213693952, but 4"},
		{"ubj huge array that wraps", "{" + length(1) + "a[$D#" + length(1<<61), "but 0 bytes are left"},
		{"ubj typed text", "{" + length(1) + "a[$S#" + length(1), "an array of 'S' is not read"},
		{"ubj typed, no length", "{" + length(1) + "a[$d]", "has no length"},
		{"ubj twice", "{" + length(1) + "aZ" + length(1) + "aZ}", `member "a" appears twice`},
		{"ubj tail", "{" + length(1) + "aT}}", "something follows the model"},
		{"ubj deep", "{" + length(1) + "a" + strings.Repeat("[", 1e6), "nested deeper than 32"},
		{"ubj nothing but no-ops", "{N" + strings.Repeat("N", 1e6), "the file ends inside a value"},
		{"ubj many values", "{" + length(1) + "a[" + strings.Repeat("Z", 1e6), "more than 262144 values"},
		{"ubj many numbers", "{" + length(1) + "a[" + strings.Repeat("T", 5e6), "more than 4194304 numbers"},
		{"ubj many numbers of a type", "{" + length(1) + "a[$U#" + length(5e6) + strings.Repeat("T", 5e6), "more than 4194304 numbers"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := ParseTrees([]byte(c.file))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}

// endless is a reader without an end.
type endless struct{ read int }

func (e *endless) Read(b []byte) (int, error) {
	e.read += len(b)
	return copy(b, bytes.Repeat([]byte("{"), len(b))), nil
}

type failing struct{}

func (failing) Read([]byte) (int, error)  { return 0, errors.New("the disk is gone") }
func (failing) Write([]byte) (int, error) { return 0, errors.New("the disk is gone") }

func TestReadersHaveBounds(t *testing.T) {
	file := &endless{}
	if _, err := ReadTrees(file); err == nil || !strings.Contains(err.Error(), "larger than 16777216 bytes") {
		t.Error(err)
	}
	if file.read > 2*MaxModelBytes {
		t.Errorf("%d bytes were read", file.read)
	}
	if _, err := ReadTrees(failing{}); err == nil || !strings.Contains(err.Error(), "the disk is gone") {
		t.Error(err)
	}
}

// TestLargestModels are read again, or not written in the first place.
func TestLargestModels(t *testing.T) {
	full := randomTrees(t, 1, Softmax, 8, 40, 128, 6) // 1024 trees, 130 048 nodes
	if _, err := ParseTrees([]byte(bytesOf(t, full))); err != nil {
		t.Error(err)
	}
	var json bytes.Buffer
	if err := full.WriteJSON(&json); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadTrees(&json); err != nil {
		t.Error(err)
	}
	larger := randomTrees(t, 1, Logistic, 1, 40, 8, 14) // 262 136 nodes
	if _, err := ParseTrees([]byte(bytesOf(t, larger))); err != nil {
		t.Error(err)
	}
	for i := range larger.stats { // in as many digits as a number may have
		larger.stats[i] = stat{cover: 1.1754945e-38, gain: -1.1754945e-38, weight: -1.1754945e-38}
	}
	if err := larger.WriteJSON(&json); err == nil || !strings.Contains(err.Error(), "at most 16777216 can be read again") || json.Len() > 0 {
		t.Errorf("%v, %d bytes were written", err, json.Len())
	}
	if err := small(t).WriteUBJ(failing{}); err == nil || !strings.Contains(err.Error(), "write model: the disk is gone") {
		t.Error(err)
	}
}

// TestHostileFilesStaySmall: what is built from the largest files that are read
// stays within a few times their size.
func TestHostileFilesStaySmall(t *testing.T) {
	for name, unit := range map[string]string{"numbers": "1,", "objects": "{},", "lists": "[],", "texts": `"",`} {
		data := []byte(`{"a":[` + strings.Repeat(unit, (MaxModelBytes-6)/len(unit)))
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := ParseTrees(data)
		runtime.ReadMemStats(&after)
		if err == nil {
			t.Errorf("%s: no error", name)
		}
		if grown := after.TotalAlloc - before.TotalAlloc; grown > 14*MaxModelBytes {
			t.Errorf("%s: %d MB were allocated", name, grown>>20)
		}
	}
}

// TestCutFilesAreRefused: a model without its end is none, wherever it is cut.
func TestCutFilesAreRefused(t *testing.T) {
	for _, name := range []string{"odds.json", "odds.ubj"} {
		data := readBytes(t, name)
		for end := 0; end < len(data); end += 1 + end/50 {
			if _, err := ParseTrees(data[:end]); err == nil {
				t.Errorf("%s cut to %d bytes is read", name, end)
			}
		}
	}
}

func TestMismatchNamesBothLists(t *testing.T) {
	trees := loadVector(t, "odds.ubj")
	names := trees.Schema()
	for _, c := range []struct {
		name string
		have []string
		want string
	}{
		{"missing", names[1:], "missing: pkt_rate"},
		{"renamed", append([]string{"rate"}, names[1:]...), "missing: pkt_rate; unknown to the model: rate"},
		{"more", append(trees.Schema(), "more", "still"), "unknown to the model: more, still"},
		{"swapped", append([]string{names[1], names[0]}, names[2:]...), "in another order: new_source_share (at 0, expected at 1), pkt_rate (at 1, expected at 0)"},
		{"twice", append(trees.Schema(), names[0]), "in another order: pkt_rate (at 6, expected at 0)"},
	} {
		err := trees.Match(c.have)
		var mismatch *MismatchError
		if !errors.As(err, &mismatch) || err.Error() != "features do not match the model: "+c.want {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	nameless := loadVector(t, "xgb174_exact.ubj")
	if err := nameless.Match(names); err == nil || !strings.Contains(err.Error(), "names none of its 8 features") {
		t.Errorf("a model without names: %v", err)
	}
	if _, err := nameless.WithSchema(names); err == nil {
		t.Error("six names for eight features")
	}
	named, err := nameless.WithSchema(Schema(strings.Fields("a b c d e f g h")))
	if err != nil || named.Match(strings.Fields("a b c d e f g h")) != nil {
		t.Errorf("names were not taken: %v", err)
	}
	if _, err := named.WithSchema(named.Schema()); err == nil {
		t.Error("named twice")
	}
}

func TestHashTellsListsApart(t *testing.T) {
	seen := map[string]string{}
	for _, s := range []Schema{nil, {"a"}, {"a", "b"}, {"b", "a"}, {"ab"}, {"a", "b", ""}, {"", "a", "b"}} {
		h := s.Hash()
		if other, twice := seen[h]; twice || len(h) != 64 {
			t.Errorf("%q has the hash %s of %s", s, h, other)
		}
		seen[h] = fmt.Sprintf("%q", s)
	}
	// A stored hash has to stay valid: this is sha256("a\x00b\x00").
	if got, want := (Schema{"a", "b"}).Hash(), "8fb20ef63ced4145fc2e983ffe597d1dcff39154c3bf21f0fa9dde6a0c50fdc9"; got != want {
		t.Errorf("hash %s, want %s", got, want)
	}
}

// fuzzTrees: whatever is read scores, explains itself, and survives being written.
func fuzzTrees(t *testing.T, data []byte) {
	trees, err := ParseTrees(data)
	if err != nil {
		return
	}
	row := make([]float32, trees.Features())
	for i := range row {
		row[i] = [...]float32{0, -1, 1, float32(math.NaN()), 0.4}[i%5]
	}
	before, after := make([]float32, trees.Outputs()), make([]float32, trees.Outputs())
	trees.Predict(row, before)
	trees.Margin(row, before)
	if trees.Nodes() < 4096 {
		trees.Contributions(row, 0, make([]float32, len(row)+1))
	}
	for _, write := range []func(*bytes.Buffer) error{
		func(b *bytes.Buffer) error { return trees.WriteJSON(b) }, func(b *bytes.Buffer) error { return trees.WriteUBJ(b) },
	} {
		var file bytes.Buffer
		if err := write(&file); err != nil {
			t.Fatal(err)
		}
		back, err := ParseTrees(file.Bytes())
		if err != nil {
			t.Fatalf("what was written is not read: %v", err)
		}
		back.Margin(row, after)
		for i := range before {
			if math.Float32bits(before[i]) != math.Float32bits(after[i]) {
				t.Fatalf("margin %v, after writing %v", before, after)
			}
		}
	}
}

// small is a model of two trees, short enough for a fuzzer to change all of it.
func small(t testing.TB) *Trees {
	trees := randomTrees(t, 3, Logistic, 1, 2, 2, 1)
	named, err := trees.WithSchema(Schema{"a", "b"})
	if err != nil {
		t.Fatal(err)
	}
	return named
}

func FuzzLoadJSON(f *testing.F) {
	var file bytes.Buffer
	if err := small(f).WriteJSON(&file); err != nil {
		f.Fatal(err)
	}
	f.Add(file.String())
	f.Add(`{"learner":{"attributes":{},"feature_names":["\u00e9"],"x":[true,false,null]}}`)
	f.Add(`{"a":[-Infinity,NaN,1E-1]}`)
	f.Fuzz(func(t *testing.T, data string) { fuzzTrees(t, []byte(data)) })
}

func FuzzLoadUBJ(f *testing.F) {
	var file bytes.Buffer
	if err := small(f).WriteUBJ(&file); err != nil {
		f.Fatal(err)
	}
	f.Add(file.Bytes())
	f.Add([]byte("{i\x01a[$D#i\x01\x00\x00\x00\x00\x00\x00\x00\x00i\x01b[TFZ]}"))
	f.Add([]byte("{U\x01aSI\x00\x01xN}"))
	f.Fuzz(func(t *testing.T, data []byte) { fuzzTrees(t, data) })
}
