// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"net/netip"
	"reflect"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

// decodeFile decodes the tree over the defaults in cfg.
func (r *reader) decodeFile(body ast.Node, cfg *Config) {
	if body == nil {
		return
	}
	v := reflect.ValueOf(cfg).Elem()
	if _, ok := body.(*ast.NullNode); ok {
		return
	}
	r.decode(body, "", v)
	if old, notice := oldMode(cfg.Mode); notice != "" && len(r.errs) == 0 {
		cfg.Mode = old
		cfg.Outdated = append(cfg.Outdated, notice)
	}
}

// decode sets v from the tree n; path is the key path of n.
func (r *reader) decode(n ast.Node, path string, v reflect.Value) {
	at := nodePosition(n)
	if path != "" {
		if _, ok := r.at[path]; !ok {
			r.at[path] = at
		}
	}
	if set, ok := scalarTypes[v.Type()]; ok {
		r.scalar(n, path, v, set)
		return
	}
	if v.Type() == reflect.TypeFor[ListEntry]() {
		r.listEntry(n, path, v)
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		r.section(n, path, v)
	case reflect.Slice:
		r.sequence(n, path, v)
	default:
		r.scalar(n, path, v, kindSetters[v.Kind()])
	}
}

// section decodes a mapping into the fields of a struct.
func (r *reader) section(n ast.Node, path string, v reflect.Value) {
	if _, ok := n.(*ast.NullNode); ok {
		return // a heading whose keys are all commented out
	}
	values, ok := mappingValues(n)
	if !ok {
		r.fail(nodePosition(n), path, "%s where a section of keys belongs (%s)", describe(n), strings.Join(keysOf(v.Type()), ", "))
		return
	}
	seen := map[string]position{}
	for _, pair := range values {
		at := nodePosition(pair.Key)
		key := keyText(pair.Key)
		if first, twice := seen[key]; twice {
			r.fail(at, join(path, key), "given twice; the first is in line %d", first.line)
			continue
		}
		seen[key] = at
		field, ok := fieldByKey(v, key)
		if !ok {
			r.fail(at, join(path, key), "unknown key; %s", suggest(path, key, v.Type()))
			continue
		}
		r.decode(pair.Value, join(path, key), field)
	}
}

func mappingValues(n ast.Node) ([]*ast.MappingValueNode, bool) {
	switch n := n.(type) {
	case *ast.MappingNode:
		return n.Values, true
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{n}, true
	}
	return nil, false
}

// sequence decodes a list; it replaces the default.
func (r *reader) sequence(n ast.Node, path string, v reflect.Value) {
	if _, ok := n.(*ast.NullNode); ok {
		return
	}
	seq, ok := n.(*ast.SequenceNode)
	if !ok {
		r.fail(nodePosition(n), path, "%s where a list belongs; write [%s]", describe(n), listExample(v.Type()))
		return
	}
	list := reflect.MakeSlice(v.Type(), len(seq.Values), len(seq.Values))
	for i, item := range seq.Values {
		r.decode(item, fmt.Sprintf("%s[%d]", path, i), list.Index(i))
	}
	v.Set(list)
}

func listExample(list reflect.Type) string {
	switch list.Elem() {
	case reflect.TypeFor[Tunnel]():
		return "gre, vxlan"
	case reflect.TypeFor[string]():
		return "eth0"
	}
	return "192.0.2.0/24"
}

// listEntry decodes a prefix, or an object with prefix and comment.
func (r *reader) listEntry(n ast.Node, path string, v reflect.Value) {
	prefix := v.FieldByName("Prefix")
	if _, ok := mappingValues(n); !ok {
		r.scalar(n, path, prefix, setPrefix)
		return
	}
	before := r.total
	r.section(n, path, v)
	if r.total == before && prefix.IsZero() {
		r.fail(nodePosition(n), path, "entry without a prefix")
	}
}

// scalar decodes one value with the setter of its type.
func (r *reader) scalar(n ast.Node, path string, v reflect.Value, set setter) {
	at := nodePosition(n)
	s, ok := scalarOf(n)
	if !ok {
		r.fail(at, path, "%s where %s belongs", describe(n), set.want)
		return
	}
	if err := set.set(v, s); err != nil {
		r.fail(at, path, "%v", err)
	}
}

// value is a scalar as written.
type value struct {
	text   string
	kind   token.Type
	quoted bool
}

func scalarOf(n ast.Node) (value, bool) {
	switch n := n.(type) {
	case *ast.StringNode:
		quoted := n.Token.Type == token.SingleQuoteType || n.Token.Type == token.DoubleQuoteType
		return value{n.Value, token.StringType, quoted}, true
	case *ast.LiteralNode:
		return value{n.Value.Value, token.StringType, true}, true
	case *ast.IntegerNode:
		return value{n.Token.Value, token.IntegerType, false}, true
	case *ast.FloatNode:
		return value{n.Token.Value, token.FloatType, false}, true
	case *ast.BoolNode:
		return value{n.Token.Value, token.BoolType, false}, true
	}
	return value{}, false
}

// wrong is the error for a value of another type than wanted.
func (s value) wrong(want string) error {
	switch s.kind {
	case token.BoolType:
		return fmt.Errorf("%s is a truth value, not %s", clip(s.text), want)
	case token.IntegerType, token.FloatType:
		return fmt.Errorf("%s is a number, not %s", clip(s.text), want)
	}
	return fmt.Errorf("%q is not %s", clip(s.text), want)
}

// setter stores a scalar; want says what belongs there.
type setter struct {
	want string
	set  func(v reflect.Value, s value) error
}

var setPrefix = setter{"an address or a CIDR prefix", func(v reflect.Value, s value) error {
	if s.kind == token.BoolType {
		return s.wrong("an address or a CIDR prefix")
	}
	p, err := ParsePrefix(s.text)
	if err != nil {
		return err
	}
	v.Set(reflect.ValueOf(p))
	return nil
}}

var scalarTypes = map[reflect.Type]setter{
	reflect.TypeFor[netip.Prefix](): setPrefix,
	reflect.TypeFor[Duration](): {"a duration like 1s", func(v reflect.Value, s value) error {
		if s.kind == token.IntegerType && s.text != "0" {
			return fmt.Errorf("%s has no unit; write %ss for seconds", clip(s.text), clip(s.text))
		}
		return v.Addr().Interface().(*Duration).UnmarshalText([]byte(s.text))
	}},
	reflect.TypeFor[Count](): {"a number", func(v reflect.Value, s value) error {
		n, err := ParseCount(s.text)
		v.SetUint(uint64(n))
		return err
	}},
	reflect.TypeFor[Bytes](): {"a number of bytes", func(v reflect.Value, s value) error {
		n, err := ParseBytes(s.text)
		v.SetUint(uint64(n))
		return err
	}},
}

var kindSetters = map[reflect.Kind]setter{
	reflect.Bool: {"true or false", func(v reflect.Value, s value) error {
		if s.kind != token.BoolType {
			return s.wrong("true or false")
		}
		v.SetBool(strings.EqualFold(s.text, "true"))
		return nil
	}},
	reflect.String: {"a text", func(v reflect.Value, s value) error {
		if s.kind != token.StringType {
			return fmt.Errorf("%w; put it in quotes if it is meant", s.wrong("a text"))
		}
		v.SetString(s.text)
		return nil
	}},
	reflect.Uint32: {"a whole number", func(v reflect.Value, s value) error {
		// The library takes numbers beyond 64 bits for text.
		huge := !s.quoted && strings.Trim(s.text, "0123456789") == ""
		if s.kind != token.IntegerType && !huge {
			return s.wrong("a whole number")
		}
		n, err := strconv.ParseUint(s.text, 10, 32)
		if err != nil {
			return fmt.Errorf("%s is not a plain whole number from 0 to 4294967295", clip(s.text))
		}
		v.SetUint(n)
		return nil
	}},
	reflect.Float64: {"a number", func(v reflect.Value, s value) error {
		if s.kind != token.FloatType && s.kind != token.IntegerType {
			return s.wrong("a number")
		}
		f, err := strconv.ParseFloat(s.text, 64)
		if err != nil {
			return fmt.Errorf("%s is not a number", clip(s.text))
		}
		v.SetFloat(f)
		return nil
	}},
}

// describe names a tree that is not what was wanted.
func describe(n ast.Node) string {
	switch n := n.(type) {
	case *ast.NullNode:
		return "nothing"
	case *ast.SequenceNode:
		return "a list"
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a section of keys"
	default:
		if s, ok := scalarOf(n); ok {
			return fmt.Sprintf("%q", clip(s.text))
		}
		return fmt.Sprintf("%q", clip(n.GetToken().Value))
	}
}

// keyText returns a key as written, fit to be shown in a key path.
func keyText(key ast.MapKeyNode) string {
	text := key.GetToken().Value
	if s, ok := key.(*ast.StringNode); ok {
		text = s.Value
	}
	if !printable(text) {
		text = strconv.Quote(text)
	}
	return clip(text)
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}
