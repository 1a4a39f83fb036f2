// SPDX-License-Identifier: Apache-2.0

package model

import (
	"fmt"
	"io"
	"strconv"
	"strings"
)

// noParent is what XGBoost writes as the parent of a root.
const noParent = 1<<31 - 1

// WriteJSON writes the model as XGBoost 1.7.4 does, so that every later one reads
// it too. The bytes depend on nothing but the model; one that XGBoost 1.7.4 wrote,
// without names and pruned nodes, comes out as it went in, but for multi:softmax,
// which becomes multi:softprob.
func (t *Trees) WriteJSON(w io.Writer) error {
	return writeModel(w, encodeJSON(t.encode()))
}

// WriteUBJ is WriteJSON in XGBoost's binary encoding, of about the same size but
// faster to read.
func (t *Trees) WriteUBJ(w io.Writer) error {
	return writeModel(w, appendUBJ(nil, t.encode()))
}

// writeModel writes only what can be read again.
func writeModel(w io.Writer, file []byte) error {
	if len(file) > MaxModelBytes {
		return fmt.Errorf("write model: it would have %d bytes, at most %d can be read again", len(file), MaxModelBytes)
	}
	if _, err := w.Write(file); err != nil {
		return fmt.Errorf("write model: %w", err)
	}
	return nil
}

func textOf(text string) value        { return value{kind: kindString, text: text} }
func countOf(n int) value             { return textOf(strconv.Itoa(n)) }
func listOf(items ...value) value     { return value{kind: kindList, list: items} }
func numbersOf(elem byte) value       { return value{kind: kindNumbers, elem: elem} }
func object(m map[string]value) value { return value{kind: kindObject, object: m} }

// intOf is an integer in the smallest type that holds it.
func intOf(n int) value {
	v := value{kind: kindNumber, number: float64(n), elem: typeInt32}
	switch {
	case n == int(int8(n)):
		v.elem = typeInt8
	case n == int(int16(n)):
		v.elem = typeInt16
	}
	return v
}

// encode builds the file's tree of values.
func (t *Trees) encode() value {
	attributes := map[string]value{}
	for name, text := range t.attributes {
		attributes[name] = textOf(text)
	}
	names := listOf()
	for _, name := range t.schema {
		names.list = append(names.list, textOf(name))
	}
	version := listOf(intOf(1), intOf(7), intOf(4))
	if len(t.baseScore) > 1 { // a base score of each class is new in 3.1
		version = listOf(intOf(3), intOf(1), intOf(0))
	}
	return object(map[string]value{
		"version": version,
		"learner": object(map[string]value{
			"attributes":          object(attributes),
			"feature_names":       names,
			"feature_types":       listOf(),
			"gradient_booster":    t.encodeBooster(),
			"learner_model_param": t.encodeParam(),
			"objective":           t.encodeObjective(),
		}),
	})
}

func (t *Trees) encodeParam() value {
	scores := make([]string, len(t.baseScore))
	for i, score := range t.baseScore {
		scores[i] = formatFloat(score)
	}
	base := strings.Join(scores, ",")
	if len(scores) > 1 {
		base = "[" + base + "]"
	}
	classes := 0
	if t.objective == Softmax {
		classes = len(t.base)
	}
	return object(map[string]value{
		"base_score": textOf(base), "boost_from_average": textOf("0"),
		"num_class": countOf(classes), "num_feature": countOf(t.features), "num_target": textOf("1"),
	})
}

func (t *Trees) encodeObjective() value {
	if t.objective == Softmax {
		return object(map[string]value{
			"name":                     textOf(t.objective.String()),
			"softmax_multiclass_param": object(map[string]value{"num_class": countOf(len(t.base))}),
		})
	}
	return object(map[string]value{
		"name":           textOf(t.objective.String()),
		"reg_loss_param": object(map[string]value{"scale_pos_weight": textOf("1")}),
	})
}

func (t *Trees) encodeBooster() value {
	trees, info := listOf(), listOf()
	for i := range t.roots {
		trees.list = append(trees.list, t.encodeTree(i))
		info.list = append(info.list, intOf(int(t.class[i])))
	}
	return object(map[string]value{
		"name": textOf("gbtree"),
		"model": object(map[string]value{
			"gbtree_model_param": object(map[string]value{
				"num_parallel_tree": textOf("1"), "num_trees": countOf(len(t.roots)), "size_leaf_vector": textOf("0"),
			}),
			"tree_info": info,
			"trees":     trees,
		}),
	})
}

func (t *Trees) encodeTree(i int) value {
	raw := t.raw(i)
	columns := map[string]value{
		"parents": numbersOf(typeInt32), "left_children": numbersOf(typeInt32), "right_children": numbersOf(typeInt32),
		"split_indices": numbersOf(typeInt32), "split_conditions": numbersOf(typeFloat32),
		"default_left": numbersOf(typeUint8), "split_type": numbersOf(typeUint8),
		"sum_hessian": numbersOf(typeFloat32), "loss_changes": numbersOf(typeFloat32), "base_weights": numbersOf(typeFloat32),
		"categories": numbersOf(typeInt32), "categories_nodes": numbersOf(typeInt32),
		"categories_segments": numbersOf(typeInt64), "categories_sizes": numbersOf(typeInt64),
	}
	put := func(name string, number float64) {
		column := columns[name]
		column.nums = append(column.nums, number)
		columns[name] = column
	}
	parents := raw.parents()
	for at := range raw.nodes {
		put("parents", float64(parents[at]))
		raw.nodes[at].encode(put)
	}
	columns["id"] = intOf(i)
	columns["tree_param"] = object(map[string]value{
		"num_deleted": textOf("0"), "num_feature": countOf(t.features),
		"num_nodes": countOf(len(raw.nodes)), "size_leaf_vector": textOf("0"),
	})
	return object(columns)
}

// encode appends the node to the columns of its tree.
func (n *rawNode) encode(put func(string, float64)) {
	left := 0.0
	if n.defaultLeft {
		left = 1
	}
	put("left_children", float64(n.left))
	put("right_children", float64(n.right))
	put("split_indices", float64(n.feature))
	put("split_conditions", float64(n.value))
	put("default_left", left)
	put("split_type", 0)
	put("sum_hessian", float64(n.cover))
	put("loss_changes", float64(n.gain))
	put("base_weights", float64(n.weight))
}

// parents lists the parent of each node.
func (raw *rawTree) parents() []int32 {
	parents := make([]int32, len(raw.nodes))
	parents[0] = noParent
	for at := range raw.nodes {
		if n := &raw.nodes[at]; !n.isLeaf() {
			parents[n.left], parents[n.right] = int32(at), int32(at)
		}
	}
	return parents
}
