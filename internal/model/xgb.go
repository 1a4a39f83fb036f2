// SPDX-License-Identifier: Apache-2.0

package model

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Bounds of what a model says about itself.
const (
	maxAttributes     = 64
	maxAttributeBytes = 4096 // of one name and its value
)

// ReadTrees reads a model in XGBoost's JSON or UBJ, of XGBoost 1.7 to 3.x: one
// written by XGBoost, or by WriteJSON and WriteUBJ. It refuses, with the tree and
// the node, whatever is not a plain ensemble of numeric splits, and files above
// the bounds of this package.
func ReadTrees(r io.Reader) (*Trees, error) {
	data, err := io.ReadAll(io.LimitReader(r, MaxModelBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read model: %w", err)
	}
	return ParseTrees(data)
}

// ParseTrees is ReadTrees for a file that is in memory.
func ParseTrees(data []byte) (*Trees, error) {
	if len(data) > MaxModelBytes {
		return nil, fmt.Errorf("read model: larger than %d bytes", MaxModelBytes)
	}
	v, err := parseModel(data)
	if err != nil {
		return nil, fmt.Errorf("read model: %w", err)
	}
	t, err := decodeTrees(v)
	if err != nil {
		return nil, fmt.Errorf("read model: %w", err)
	}
	return t, nil
}

// parseModel tells the encodings apart: both begin with a brace, but in JSON a
// quote comes next and in UBJ the type of a length.
func parseModel(data []byte) (value, error) {
	switch text := bytes.TrimLeft(data, " \t\r\n"); {
	case len(text) == 0:
		return value{}, errors.New("the file is empty")
	case text[0] != '{':
		return value{}, errors.New("neither JSON nor UBJ: XGBoost's older binary format is not read, save the model as .json or .ubj")
	}
	if len(data) > 1 && data[0] == '{' && (data[1] == 'N' || sizeOf(data[1]) > 0) {
		return readUBJ(data)
	}
	return readJSON(data)
}

func decodeTrees(v value) (*Trees, error) {
	file := place{v, "model"}
	learner, err := file.member("learner")
	if err != nil {
		return nil, err
	}
	if err := checkWriter(file); err != nil {
		return nil, err
	}
	t, err := decodeLearner(learner)
	if err != nil {
		return nil, err
	}
	booster, err := learner.member("gradient_booster")
	if err != nil {
		return nil, err
	}
	if err := t.decodeBooster(booster); err != nil {
		return nil, err
	}
	if err := t.decodeNames(learner); err != nil {
		return nil, err
	}
	if err := t.decodeAttributes(learner); err != nil {
		return nil, err
	}
	t.seal()
	return t, nil
}

// checkWriter refuses files of an XGBoost that gives their members another meaning,
// as far as is known. XGBoost itself takes a file without a version; it writes none
// such, so neither do we know what is in it.
func checkWriter(file place) error {
	version, err := file.numbers("version", 3)
	if err != nil {
		return fmt.Errorf("the version of XGBoost that wrote it: %w", err)
	}
	major, minor := version[0], version[1]
	if old := major < 1 || major == 1 && !(minor >= 7); old || !(major < 4) {
		return file.wrong("written by XGBoost %g.%g.%g, those of 1.7 to 3.x are read: load it with one of these and save it again", major, minor, version[2])
	}
	return nil
}

// decodeLearner reads the objective and the shape of the model.
func decodeLearner(learner place) (*Trees, error) {
	param, err := learner.member("learner_model_param")
	if err != nil {
		return nil, err
	}
	objective, outputs, err := decodeObjective(learner, param)
	if err != nil {
		return nil, err
	}
	features, err := param.integer("num_feature")
	if err != nil {
		return nil, err
	}
	text, err := param.string("base_score")
	if err != nil {
		return nil, err
	}
	score, err := parseBaseScore(text)
	if err != nil {
		return nil, param.wrong("base_score: %v", err)
	}
	t, err := newTrees(objective, outputs, features, score)
	if err != nil {
		return nil, param.wrong("%v", err)
	}
	return t, nil
}

// decodeObjective returns the objective and the number of margins.
func decodeObjective(learner, param place) (Objective, int, error) {
	p, err := learner.member("objective")
	if err != nil {
		return 0, 0, err
	}
	name, err := p.string("name")
	if err != nil {
		return 0, 0, err
	}
	classes, err := param.integer("num_class")
	if err != nil {
		return 0, 0, err
	}
	if _, ok := param.object["num_target"]; ok {
		targets, err := param.integer("num_target")
		if err != nil || targets > 1 {
			return 0, 0, errors.Join(err, param.wrong("models of several targets are not read"))
		}
	}
	switch name {
	case "binary:logistic":
		if classes > 1 {
			return 0, 0, param.wrong("%d classes in a model of two", classes)
		}
		return Logistic, 1, nil
	case "multi:softprob", "multi:softmax":
		if classes < 2 {
			return 0, 0, param.wrong("%d classes in a model of many", classes)
		}
		return Softmax, classes, nil
	}
	return 0, 0, p.wrong("objective %q is not read, only binary:logistic, multi:softprob and multi:softmax are", name)
}

// integer reads a member that is a number written as a string, as XGBoost has
// its parameters.
func (p place) integer(name string) (int, error) {
	text, err := p.string(name)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(text, 10, 32)
	if err != nil || n < 0 {
		return 0, p.wrong("%s %q is no count", name, text)
	}
	return int(n), nil
}

// parseBaseScore reads "5E-1" of XGBoost 1 and 2 and "[5E-1]" or "[1E-1,2E-1]" of 3.
func parseBaseScore(text string) ([]float32, error) {
	if len(text) > 64*maxClasses {
		return nil, errors.New("too long")
	}
	text = strings.TrimSpace(text)
	if inner, ok := strings.CutPrefix(text, "["); ok {
		text = strings.TrimSuffix(inner, "]")
	}
	var scores []float32
	for part := range strings.SplitSeq(text, ",") {
		score, err := strconv.ParseFloat(strings.TrimSpace(part), 32)
		if err != nil {
			return nil, fmt.Errorf("%q is no number", part)
		}
		scores = append(scores, float32(score))
	}
	return scores, nil
}

// decodeBooster reads the trees.
func (t *Trees) decodeBooster(booster place) error {
	name, err := booster.string("name")
	if err != nil {
		return err
	}
	if name != "gbtree" {
		return booster.wrong("booster %q is not read, only gbtree is", name)
	}
	model, err := booster.member("model")
	if err != nil {
		return err
	}
	trees, err := model.items("trees")
	if err != nil {
		return err
	}
	if len(trees) > maxTrees {
		return model.wrong("%d trees, at most %d are allowed", len(trees), maxTrees)
	}
	classes, err := model.numbers("tree_info", len(trees))
	if err != nil {
		return err
	}
	for i, tree := range trees {
		raw, err := decodeTree(place{tree, "tree " + strconv.Itoa(i)})
		if err != nil {
			return err
		}
		if raw.class, err = index(classes[i]); err == nil {
			err = t.add(raw)
		}
		if err != nil {
			return fmt.Errorf("tree %d: %w", i, err)
		}
	}
	return nil
}

// index turns a number of a file into an int.
func index(number float64) (int, error) {
	if number != math.Trunc(number) || math.Abs(number) > math.MaxInt32 {
		return 0, fmt.Errorf("%g is no index", number)
	}
	return int(number), nil
}

// decodeTree reads the arrays of one tree; add checks what they say.
func decodeTree(p place) (*rawTree, error) {
	if err := checkTreeKind(p); err != nil {
		return nil, err
	}
	param, err := p.member("tree_param")
	if err != nil {
		return nil, err
	}
	n, err := param.integer("num_nodes")
	if err != nil {
		return nil, err
	}
	if n > maxTreeNodes {
		return nil, p.wrong("has %d nodes, at most %d are allowed", n, maxTreeNodes)
	}
	columns := make(map[string][]float64, len(treeColumns))
	for _, name := range treeColumns {
		if columns[name], err = p.numbers(name, n); err != nil {
			return nil, err
		}
	}
	raw := &rawTree{nodes: make([]rawNode, n)}
	for i := range raw.nodes {
		if err := decodeNode(&raw.nodes[i], columns, i); err != nil {
			return nil, p.wrong("node %d: %v", i, err)
		}
	}
	return raw, nil
}

// treeColumns are the arrays of a tree that matter, one element a node.
var treeColumns = []string{
	"left_children", "right_children", "split_indices", "split_conditions", "default_left",
	"sum_hessian", "loss_changes", "base_weights",
}

func decodeNode(n *rawNode, columns map[string][]float64, i int) error {
	left, err := index(columns["left_children"][i])
	if err != nil {
		return fmt.Errorf("left child: %w", err)
	}
	right, err := index(columns["right_children"][i])
	if err != nil {
		return fmt.Errorf("right child: %w", err)
	}
	feature, err := index(columns["split_indices"][i])
	if err != nil {
		return fmt.Errorf("split index: %w", err)
	}
	*n = rawNode{
		left: int32(left), right: int32(right), feature: int64(feature),
		value:       float32(columns["split_conditions"][i]),
		defaultLeft: columns["default_left"][i] != 0,
		stat: stat{
			cover:  float32(columns["sum_hessian"][i]),
			gain:   float32(columns["loss_changes"][i]),
			weight: float32(columns["base_weights"][i]),
		},
	}
	return nil
}

// checkTreeKind refuses what a tree of numeric splits and single values has not.
func checkTreeKind(p place) error {
	param, err := p.member("tree_param")
	if err != nil {
		return err
	}
	if _, ok := param.object["size_leaf_vector"]; ok {
		if size, err := param.integer("size_leaf_vector"); err != nil || size > 1 {
			return errors.Join(err, p.wrong("leaves of several values are not read"))
		}
	}
	for _, name := range []string{"split_type", "categories_nodes"} {
		column, ok := p.object[name]
		if !ok { // as in old files
			continue
		}
		if err := (place{column, p.at + "." + name}).want(kindNumbers); err != nil {
			return err
		}
		for i, number := range column.nums {
			if name == "split_type" && number == 0 {
				continue
			}
			if name == "categories_nodes" {
				i = int(number)
			}
			return p.wrong("node %d: a categorical split, only numeric ones are read", i)
		}
	}
	return nil
}

// decodeNames reads the feature names, which a file may do without.
func (t *Trees) decodeNames(learner place) error {
	names, err := learner.items("feature_names")
	if err != nil || len(names) == 0 {
		return err
	}
	if len(names) != t.features {
		return learner.wrong("%d feature names for %d features", len(names), t.features)
	}
	for i, name := range names {
		if err := (place{name, learner.at + ".feature_names." + strconv.Itoa(i)}).want(kindString); err != nil {
			return err
		}
		t.schema = append(t.schema, name.text)
	}
	if err := t.schema.Check(); err != nil {
		return learner.wrong("feature_names: %v", err)
	}
	return nil
}

func (t *Trees) decodeAttributes(learner place) error {
	m, err := learner.member("attributes")
	if err != nil {
		return err
	}
	if err := m.want(kindObject); err != nil {
		return err
	}
	t.attributes = make(map[string]string, len(m.object))
	for name := range m.object {
		if t.attributes[name], err = m.string(name); err != nil {
			return err
		}
	}
	if err := checkAttributes(t.attributes); err != nil {
		return err
	}
	if hash, ok := t.attributes[attributeSchema]; ok && hash != t.schema.Hash() {
		return fmt.Errorf("schema hash %q in the attributes, but the %d feature names have %s: names were changed",
			hash, len(t.schema), t.schema.Hash())
	}
	return nil
}

// checkAttributes keeps to what both encodings carry unchanged.
func checkAttributes(pairs map[string]string) error {
	if len(pairs) > maxAttributes {
		return fmt.Errorf("%d attributes, at most %d are allowed", len(pairs), maxAttributes)
	}
	for name, text := range pairs {
		both := name + text
		if len(both) > maxAttributeBytes {
			return fmt.Errorf("attribute %.40q has %d bytes, at most %d are allowed", name, len(both), maxAttributeBytes)
		}
		odd := func(r rune) bool { return unicode.IsControl(r) && r != '\n' && r != '\t' }
		if name == "" || !utf8.ValidString(both) || strings.ContainsFunc(both, odd) {
			return fmt.Errorf("attribute %q: %q is not plain text", name, text)
		}
	}
	return nil
}
