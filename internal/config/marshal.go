// SPDX-License-Identifier: Apache-2.0

package config

import (
	"bytes"
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"regexp"
	"strconv"
	"strings"
)

// Marshal writes the whole configuration as a file that Parse reads back to the
// same.
func (c Config) Marshal() []byte { return c.marshal(false) }

// Example returns a file that holds every default, each with its description.
func Example() []byte {
	var b bytes.Buffer
	b.WriteString("# Configuration of sentinel-x. Every key is optional; the values below are the defaults.\n")
	b.WriteString("# Check a change with `sentinel-x config check FILE`, apply it with SIGHUP.\n\n")
	b.Write(Default().marshal(true))
	return b.Bytes()
}

func (c Config) marshal(comments bool) []byte {
	w := writer{comments: comments}
	w.section(reflect.ValueOf(c), 0)
	return w.Bytes()
}

type writer struct {
	bytes.Buffer
	comments bool
}

func (w *writer) section(v reflect.Value, depth int) {
	indent := strings.Repeat("  ", depth)
	for i, f := range fields(v.Type()) {
		if w.comments {
			if i > 0 {
				w.WriteByte('\n')
			}
			w.comment(key{field: f}, indent)
		}
		fv := v.FieldByIndex(f.Index)
		w.WriteString(indent + f.Tag.Get("yaml") + ":")
		switch {
		case key{field: f}.section():
			w.WriteByte('\n')
			w.section(fv, depth+1)
		case fv.Kind() == reflect.Slice && fv.Len() > 0:
			w.WriteByte('\n')
			w.list(fv, indent+"  ")
		case fv.Kind() == reflect.Slice:
			w.WriteString(" []\n")
		default:
			w.WriteString(" " + scalarText(fv) + "\n")
		}
	}
}

// comment writes the description, wrapped, and the words allowed.
func (w *writer) comment(k key, indent string) {
	line := indent + "#"
	for word := range strings.FieldsSeq(k.field.Tag.Get("desc") + choices(k)) {
		if len(line)+1+len(word) > 110 {
			w.WriteString(line + "\n")
			line = indent + "#"
		}
		line += " " + word
	}
	w.WriteString(line + "\n")
}

func choices(k key) string {
	words := k.enum()
	if len(words) == 0 {
		return ""
	}
	last := len(words) - 1
	return " One of: " + strings.Join(words[:last], ", ") + ", " + words[last] + "."
}

func (w *writer) list(v reflect.Value, indent string) {
	for i := range v.Len() {
		item := v.Index(i)
		e, ok := reflect.TypeAssert[ListEntry](item)
		switch {
		case ok && e.Comment != "":
			fmt.Fprintf(w, "%s- {prefix: %s, comment: %s}\n", indent, quote(e.Prefix.String()), quote(e.Comment))
		case ok:
			fmt.Fprintf(w, "%s- %s\n", indent, quote(e.Prefix.String()))
		default:
			fmt.Fprintf(w, "%s- %s\n", indent, scalarText(item))
		}
	}
}

func scalarText(v reflect.Value) string {
	switch x := v.Interface().(type) {
	case fmt.Stringer:
		if m, ok := x.(encoding.TextMarshaler); ok {
			b, _ := m.MarshalText() // durations and prefixes never fail
			return plainOrQuoted(string(b))
		}
		return x.String()
	}
	switch v.Kind() {
	case reflect.Bool:
		return strconv.FormatBool(v.Bool())
	case reflect.Uint32:
		return strconv.FormatUint(v.Uint(), 10)
	case reflect.Float64:
		return strconv.FormatFloat(v.Float(), 'f', -1, 64)
	default:
		return plainOrQuoted(v.String())
	}
}

// plain matches texts that no YAML reader takes for anything else, but for the
// reserved words.
var (
	plain    = regexp.MustCompile(`^([A-Za-z/][A-Za-z0-9_./-]*|[0-9.]+(ns|µs|ms|s|m|h)[0-9.hmsµn]*)$`)
	reserved = regexp.MustCompile(`(?i)^(true|false|yes|no|on|off|y|n|null)$`)
)

func plainOrQuoted(s string) string {
	if plain.MatchString(s) && !reserved.MatchString(s) {
		return s
	}
	return quote(s)
}

// quote writes a JSON string, which is a double-quoted YAML one.
func quote(s string) string {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(s) // a string into memory: never fails
	return strings.TrimSuffix(b.String(), "\n")
}
