// SPDX-License-Identifier: Apache-2.0

package config

import (
	"reflect"
	"strings"
)

// key is one key of the file, as the struct tags describe it.
type key struct {
	path  string
	field reflect.StructField
	live  bool
}

// name returns the last part of the path.
func (k key) name() string { return k.field.Tag.Get("yaml") }

// section reports whether the key has keys below it.
func (k key) section() bool {
	_, scalar := scalarTypes[k.field.Type]
	return k.field.Type.Kind() == reflect.Struct && !scalar
}

// enum returns the words the key allows, nil if it is free.
func (k key) enum() []string {
	if e := k.field.Tag.Get("enum"); e != "" {
		return strings.Split(e, "|")
	}
	return nil
}

// keys returns every key below the struct type t, sections before their keys.
func keys(t reflect.Type, path string, live bool) []key {
	var all []key
	for _, f := range fields(t) {
		k := key{join(path, f.Tag.Get("yaml")), f, live}
		if tag, ok := f.Tag.Lookup("live"); ok {
			k.live = tag == "true"
		}
		all = append(all, k)
		if k.section() {
			all = append(all, keys(f.Type, k.path, k.live)...)
		}
	}
	return all
}

// fields returns the fields of t that are keys of the file.
func fields(t reflect.Type) []reflect.StructField {
	var out []reflect.StructField
	for f := range t.Fields() {
		if name := f.Tag.Get("yaml"); name != "" && name != "-" {
			out = append(out, f)
		}
	}
	return out
}

func keysOf(t reflect.Type) []string {
	var names []string
	for _, f := range fields(t) {
		names = append(names, f.Tag.Get("yaml"))
	}
	return names
}

func fieldByKey(v reflect.Value, name string) (reflect.Value, bool) {
	for _, f := range fields(v.Type()) {
		if f.Tag.Get("yaml") == name {
			return v.FieldByIndex(f.Index), true
		}
	}
	return reflect.Value{}, false
}

// suggest says which key was probably meant by an unknown one: the same word
// elsewhere, the nearest in the same section, or else what there is.
func suggest(path, unknown string, section reflect.Type) string {
	names := keysOf(section)
	word := strings.NewReplacer("-", "_", " ", "_").Replace(strings.ToLower(unknown))
	for _, k := range keys(reflect.TypeFor[Config](), "", false) {
		if k.name() == word {
			return `did you mean "` + k.path + `"?`
		}
	}
	best, distance := "", max(3, len(word)/2+1)
	for _, n := range names {
		if d := editDistance(word, n); d < distance {
			best, distance = n, d
		}
	}
	if best != "" {
		return `did you mean "` + join(path, best) + `"?`
	}
	return "known here: " + strings.Join(names, ", ")
}

// editDistance is the least number of letters to insert, delete or replace.
func editDistance(a, b string) int {
	if len(a) > 64 {
		return len(a) // no key is that long: spare the quadratic work
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
