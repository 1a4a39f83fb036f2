// SPDX-License-Identifier: Apache-2.0

package model

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
)

// The type bytes of Universal Binary JSON that XGBoost uses; numbers are
// big-endian.
const (
	typeFloat32 = 'd'
	typeFloat64 = 'D'
	typeInt8    = 'i'
	typeUint8   = 'U'
	typeInt16   = 'I'
	typeInt32   = 'l'
	typeInt64   = 'L'
)

// sizeOf is the number of bytes of a number of the given type, 0 for no number.
func sizeOf(elem byte) int {
	switch elem {
	case typeInt8, typeUint8:
		return 1
	case typeInt16:
		return 2
	case typeInt32, typeFloat32:
		return 4
	case typeInt64, typeFloat64:
		return 8
	}
	return 0
}

// decodeNumber reads a number of sizeOf(elem) bytes.
func decodeNumber(elem byte, b []byte) float64 {
	switch elem {
	case typeInt8:
		return float64(int8(b[0]))
	case typeUint8:
		return float64(b[0])
	case typeInt16:
		return float64(int16(binary.BigEndian.Uint16(b)))
	case typeInt32:
		return float64(int32(binary.BigEndian.Uint32(b)))
	case typeInt64:
		return float64(int64(binary.BigEndian.Uint64(b)))
	case typeFloat32:
		return float64(math.Float32frombits(binary.BigEndian.Uint32(b)))
	}
	return math.Float64frombits(binary.BigEndian.Uint64(b))
}

// appendNumber is the inverse of decodeNumber.
func appendNumber(b []byte, elem byte, number float64) []byte {
	switch elem {
	case typeInt8, typeUint8:
		return append(b, byte(int64(number)))
	case typeInt16:
		return binary.BigEndian.AppendUint16(b, uint16(int64(number)))
	case typeInt32:
		return binary.BigEndian.AppendUint32(b, uint32(int64(number)))
	case typeInt64:
		return binary.BigEndian.AppendUint64(b, uint64(int64(number)))
	case typeFloat32:
		return binary.BigEndian.AppendUint32(b, math.Float32bits(float32(number)))
	}
	return binary.BigEndian.AppendUint64(b, math.Float64bits(number))
}

type ubjReader struct {
	data []byte
	pos  int
	budget
}

var errUBJEnds = errors.New("the file ends inside a value")

// readUBJ parses the whole of data.
func readUBJ(data []byte) (value, error) {
	r := ubjReader{data: data}
	marker, err := r.marker()
	var v value
	if err == nil {
		v, err = r.value(marker, 0)
	}
	if err == nil && r.pos < len(data) {
		err = errors.New("something follows the model")
	}
	if err != nil {
		return value{}, fmt.Errorf("UBJ, byte %d: %w", r.pos, err)
	}
	return v, nil
}

// take takes n bytes.
func (r *ubjReader) take(n int) ([]byte, error) {
	if n < 0 || n > len(r.data)-r.pos {
		return nil, errUBJEnds
	}
	b := r.data[r.pos : r.pos+n]
	r.pos += n
	return b, nil
}

// marker takes the next type byte, past the N that stands for nothing.
func (r *ubjReader) marker() (byte, error) {
	for r.accept('N') {
	}
	b, err := r.take(1)
	if err != nil {
		return 0, err
	}
	return b[0], nil
}

// accept takes the next byte if it is c.
func (r *ubjReader) accept(c byte) bool {
	if r.pos >= len(r.data) || r.data[r.pos] != c {
		return false
	}
	r.pos++
	return true
}

func (r *ubjReader) value(marker byte, depth int) (value, error) {
	if depth > maxNesting {
		return value{}, fmt.Errorf("nested deeper than %d", maxNesting)
	}
	switch marker {
	case '{':
		return r.object(depth)
	case '[':
		return r.array(depth)
	case 'S':
		text, err := r.string()
		return value{kind: kindString, text: text}, err
	case 'Z':
		return value{kind: kindNull}, nil
	case 'T':
		return value{kind: kindNumber, number: 1}, nil
	case 'F':
		return value{kind: kindNumber}, nil
	}
	number, err := r.number(marker)
	return value{kind: kindNumber, number: number}, err
}

// number takes a number of the type that its marker said.
func (r *ubjReader) number(elem byte) (float64, error) {
	size := sizeOf(elem)
	if size == 0 {
		return 0, fmt.Errorf("%q is no type of value", elem)
	}
	b, err := r.take(size)
	if err != nil {
		return 0, err
	}
	return decodeNumber(elem, b), nil
}

// length takes a length: any integer type, and never more than what can follow
// when each element has at least size bytes.
func (r *ubjReader) length(size int) (int, error) {
	elem, err := r.marker()
	if err != nil {
		return 0, err
	}
	if elem == typeFloat32 || elem == typeFloat64 {
		return 0, errors.New("a length is no integer")
	}
	n, err := r.number(elem)
	if err != nil {
		return 0, fmt.Errorf("length: %w", err)
	}
	if left := len(r.data) - r.pos; n < 0 || n*float64(size) > float64(left) {
		return 0, fmt.Errorf("length %.0f, but %d bytes are left", n, left)
	}
	return int(n), nil
}

func (r *ubjReader) string() (string, error) {
	n, err := r.length(1)
	if err != nil {
		return "", err
	}
	b, err := r.take(n)
	return string(b), err
}

func (r *ubjReader) object(depth int) (value, error) {
	v := value{kind: kindObject, object: map[string]value{}}
	for {
		for r.accept('N') {
		}
		if r.accept('}') {
			return v, nil
		}
		key, err := r.string()
		if err != nil {
			return v, err
		}
		member, err := r.element(depth)
		if err == nil {
			err = v.put(key, member, &r.budget)
		}
		if err != nil {
			return v, err
		}
	}
}

// element takes a value with its marker, one level down.
func (r *ubjReader) element(depth int) (value, error) {
	marker, err := r.marker()
	if err != nil {
		return value{}, err
	}
	return r.value(marker, depth+1)
}

// array takes one of the three kinds: of one type and with its length, of a
// given length, or up to a bracket.
func (r *ubjReader) array(depth int) (value, error) {
	if r.accept('$') {
		return r.typedArray()
	}
	v := value{kind: kindNumbers}
	counted, left := r.accept('#'), 0
	if counted {
		var err error
		if left, err = r.length(1); err != nil {
			return v, err
		}
	}
	for {
		if counted && left == 0 || !counted && r.accept(']') {
			return v, nil
		}
		left--
		element, err := r.element(depth)
		if err == nil {
			err = v.push(element, &r.budget)
		}
		if err != nil {
			return v, err
		}
	}
}

func (r *ubjReader) typedArray() (value, error) {
	elem, err := r.marker()
	if err != nil {
		return value{}, err
	}
	size := sizeOf(elem)
	if size == 0 {
		return value{}, fmt.Errorf("an array of %q is not read", elem)
	}
	if !r.accept('#') {
		return value{}, errors.New("an array with a type has no length")
	}
	n, err := r.length(size)
	if err == nil {
		err = r.budget.number(n)
	}
	if err != nil {
		return value{}, err
	}
	v := value{kind: kindNumbers, nums: make([]float64, n)}
	b, err := r.take(n * size)
	for i := range v.nums {
		v.nums[i] = decodeNumber(elem, b[i*size:])
	}
	return v, err
}

// appendUBJ appends v with the members of objects in the order of their names.
func appendUBJ(b []byte, v value) []byte {
	switch v.kind {
	case kindNull:
		return append(b, 'Z')
	case kindNumber:
		return appendNumber(append(b, v.elem), v.elem, v.number)
	case kindString:
		return append(appendLength(append(b, 'S'), len(v.text)), v.text...)
	case kindNumbers:
		b = appendLength(append(b, '[', '$', v.elem, '#'), len(v.nums))
		for _, number := range v.nums {
			b = appendNumber(b, v.elem, number)
		}
		return b
	case kindList:
		b = appendLength(append(b, '[', '#'), len(v.list))
		for _, element := range v.list {
			b = appendUBJ(b, element)
		}
		return b
	}
	b = append(b, '{')
	for _, key := range slices.Sorted(maps.Keys(v.object)) {
		b = append(appendLength(b, len(key)), key...)
		b = appendUBJ(b, v.object[key])
	}
	return append(b, '}')
}

// appendLength writes lengths in 8 bytes: XGBoost reads no other.
func appendLength(b []byte, n int) []byte {
	return appendNumber(append(b, typeInt64), typeInt64, float64(n))
}
