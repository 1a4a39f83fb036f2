// SPDX-License-Identifier: Apache-2.0

package model

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
)

// jsonReader reads the JSON that XGBoost writes: the standard's, plus NaN and
// Infinity. It is not encoding/json because that bounds neither depth (below
// 10 000) nor what a small file turns into in memory, and because numbers here
// have to be rounded once, to float32.
type jsonReader struct {
	data []byte
	pos  int
	budget
}

// readJSON parses the whole of data.
func readJSON(data []byte) (value, error) {
	r := jsonReader{data: data}
	v, err := r.value(0)
	if err == nil {
		if r.peek(); r.pos < len(data) {
			err = errors.New("something follows the model")
		}
	}
	if err != nil {
		return value{}, fmt.Errorf("JSON, byte %d: %w", r.pos, err)
	}
	return v, nil
}

// peek skips white space and returns the next byte without taking it, 0 at the end.
func (r *jsonReader) peek() byte {
	for ; r.pos < len(r.data); r.pos++ {
		switch c := r.data[r.pos]; c {
		case ' ', '\t', '\r', '\n':
		default:
			return c
		}
	}
	return 0
}

// take takes the next byte if it is c.
func (r *jsonReader) take(c byte) bool {
	if r.peek() != c || r.pos >= len(r.data) {
		return false
	}
	r.pos++
	return true
}

func (r *jsonReader) expect(c byte) error {
	if r.take(c) {
		return nil
	}
	if r.pos >= len(r.data) {
		return fmt.Errorf("the file ends where %q is due", c)
	}
	return fmt.Errorf("%q where %q is due", r.data[r.pos], c)
}

func (r *jsonReader) value(depth int) (value, error) {
	if depth > maxNesting {
		return value{}, fmt.Errorf("nested deeper than %d", maxNesting)
	}
	switch r.peek() {
	case '{':
		return r.object(depth)
	case '[':
		return r.array(depth)
	case '"':
		text, err := r.string()
		return value{kind: kindString, text: text}, err
	}
	return r.scalar()
}

func (r *jsonReader) object(depth int) (value, error) {
	v := value{kind: kindObject, object: map[string]value{}}
	r.pos++
	for first := true; !r.take('}'); first = false {
		if !first {
			if err := r.expect(','); err != nil {
				return v, err
			}
		}
		key, err := r.string()
		if err == nil {
			err = r.expect(':')
		}
		if err != nil {
			return v, err
		}
		member, err := r.value(depth + 1)
		if err == nil {
			err = v.put(key, member, &r.budget)
		}
		if err != nil {
			return v, err
		}
	}
	return v, nil
}

func (r *jsonReader) array(depth int) (value, error) {
	v := value{kind: kindNumbers}
	r.pos++
	for first := true; !r.take(']'); first = false {
		if !first {
			if err := r.expect(','); err != nil {
				return v, err
			}
		}
		element, err := r.value(depth + 1)
		if err == nil {
			err = v.push(element, &r.budget)
		}
		if err != nil {
			return v, err
		}
	}
	return v, nil
}

// string takes a literal; the common one without an escape is taken in one piece.
func (r *jsonReader) string() (string, error) {
	if err := r.expect('"'); err != nil {
		return "", err
	}
	begin := r.pos
	for ; r.pos < len(r.data); r.pos++ {
		switch c := r.data[r.pos]; {
		case c == '\\':
			r.pos++ // whatever follows, a quote too, belongs to the literal
		case c < ' ':
			return "", fmt.Errorf("control character %#02x in a string", c)
		case c == '"':
			raw := string(r.data[begin:r.pos])
			r.pos++
			return unescape(raw)
		}
	}
	r.pos = len(r.data)
	return "", errors.New("the file ends inside a string")
}

// unescape resolves the escapes of a literal.
func unescape(raw string) (text string, err error) {
	if !strings.Contains(raw, `\`) {
		return raw, nil
	}
	if err := json.Unmarshal([]byte(`"`+raw+`"`), &text); err != nil {
		return "", fmt.Errorf("string %q: %w", raw, err)
	}
	return text, nil
}

// words are the scalars that are not written in digits.
var words = map[string]value{
	"null":      {kind: kindNull},
	"true":      {kind: kindNumber, number: 1},
	"false":     {kind: kindNumber},
	"NaN":       {kind: kindNumber, number: math.NaN()},
	"Infinity":  {kind: kindNumber, number: math.Inf(1)},
	"-Infinity": {kind: kindNumber, number: math.Inf(-1)},
}

func (r *jsonReader) scalar() (value, error) {
	begin := r.pos
	for r.pos < len(r.data) && !strings.ContainsRune(",]}: \t\r\n", rune(r.data[r.pos])) && r.pos-begin < 64 {
		r.pos++
	}
	token := string(r.data[begin:r.pos])
	if token != "" && token[len(token)-1] > '9' { // no number ends in a letter
		if v, ok := words[token]; ok {
			return v, nil
		}
	}
	number, err := parseNumber(token)
	if err != nil {
		r.pos = begin
		return value{}, err
	}
	return value{kind: kindNumber, number: number}, nil
}

// parseNumber rounds what is written as a fraction once, to float32; integers
// are kept whole.
func parseNumber(token string) (float64, error) {
	if token == "" {
		return 0, errors.New("a value is missing")
	}
	if strings.Trim(token, "+-.eE0123456789") != "" {
		return 0, fmt.Errorf("%q is no number", token)
	}
	size := 64
	if strings.ContainsAny(token, ".eE") {
		size = 32
	}
	number, err := strconv.ParseFloat(token, size)
	if err != nil {
		return 0, fmt.Errorf("%q is no number of %d bits", token, size)
	}
	return number, nil
}

// encodeJSON writes v with the members of objects in the order of their names.
func encodeJSON(v value) []byte {
	var file bytes.Buffer
	appendJSON(&file, v)
	return file.Bytes()
}

func appendJSON(w *bytes.Buffer, v value) {
	switch v.kind {
	case kindNull:
		w.WriteString("null")
	case kindNumber:
		writeNumber(w, v.number, v.elem)
	case kindString:
		w.WriteString(quote(v.text))
	case kindNumbers:
		appendSeparated(w, '[', ']', len(v.nums), func(i int) { writeNumber(w, v.nums[i], v.elem) })
	case kindList:
		appendSeparated(w, '[', ']', len(v.list), func(i int) { appendJSON(w, v.list[i]) })
	case kindObject:
		keys := slices.Sorted(maps.Keys(v.object))
		appendSeparated(w, '{', '}', len(keys), func(i int) {
			w.WriteString(quote(keys[i]))
			w.WriteByte(':')
			appendJSON(w, v.object[keys[i]])
		})
	}
}

func appendSeparated(w *bytes.Buffer, open, end byte, n int, item func(int)) {
	w.WriteByte(open)
	for i := range n {
		if i > 0 {
			w.WriteByte(',')
		}
		item(i)
	}
	w.WriteByte(end)
}

// escapes are those that XGBoost's reader knows.
var escapes = strings.NewReplacer(`"`, `\"`, `\`, `\\`, "\n", `\n`, "\r", `\r`, "\t", `\t`)

func quote(text string) string { return `"` + escapes.Replace(text) + `"` }

// writeNumber writes floats always with an exponent: XGBoost's reader takes "1"
// for an integer and then refuses it where a float is due.
func writeNumber(w *bytes.Buffer, number float64, elem byte) {
	if elem == typeFloat32 {
		w.WriteString(formatFloat(float32(number)))
		return
	}
	w.WriteString(strconv.FormatInt(int64(number), 10))
}

// formatFloat is the shortest text that reads back as v, as XGBoost has it: 5E-1.
func formatFloat(v float32) string {
	mantissa, exponent, _ := strings.Cut(strconv.FormatFloat(float64(v), 'E', -1, 32), "E")
	sign := ""
	if exponent[0] == '-' {
		sign = "-"
	}
	digits := strings.TrimLeft(exponent[1:], "0")
	if digits == "" {
		digits, sign = "0", ""
	}
	return mantissa + "E" + sign + digits
}
