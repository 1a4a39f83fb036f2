// SPDX-License-Identifier: Apache-2.0

package model

import (
	"errors"
	"fmt"
)

// Bounds of a model file, whatever its encoding.
const (
	// MaxModelBytes is the size of the largest model file that is read.
	MaxModelBytes = 16 << 20

	maxNesting = 32
	maxValues  = 1 << 18 // objects, lists, strings and lone numbers
	maxNumbers = 1 << 22 // numbers in arrays
)

// kind is what a value of a model file is.
type kind uint8

const (
	kindNull kind = iota
	kindNumber
	kindString
	kindNumbers // an array of numbers; an empty array, too
	kindList    // an array of anything else
	kindObject
)

func (k kind) String() string {
	return [...]string{"null", "a number", "a string", "an array of numbers", "an array", "an object"}[k]
}

// value is what JSON and UBJ files have in common. Truth values are numbers: the
// formats of different years write 1 or true for the same thing.
type value struct {
	kind   kind
	elem   byte // UBJ type of numbers when written: one of the type constants of ubj.go
	number float64
	text   string
	nums   []float64
	list   []value
	object map[string]value
}

// budget counts what a reader has built so far.
type budget struct{ values, numbers int }

func (b *budget) value() error {
	if b.values++; b.values > maxValues {
		return fmt.Errorf("more than %d values", maxValues)
	}
	return nil
}

func (b *budget) number(n int) error {
	if b.numbers += n; b.numbers > maxNumbers {
		return fmt.Errorf("more than %d numbers", maxNumbers)
	}
	return nil
}

// push appends an element to an array, which stays a plain slice of numbers as
// long as it holds nothing else.
func (v *value) push(element value, b *budget) error {
	if element.kind == kindNumber {
		if v.kind != kindNumbers {
			return errors.New("an array mixes numbers with something else")
		}
		v.nums = append(v.nums, element.number)
		return b.number(1)
	}
	if len(v.nums) > 0 {
		return errors.New("an array mixes numbers with something else")
	}
	v.kind = kindList
	v.list = append(v.list, element)
	return b.value()
}

// put sets a member of an object.
func (v *value) put(key string, member value, b *budget) error {
	if _, twice := v.object[key]; twice {
		return fmt.Errorf("member %q appears twice", key)
	}
	v.object[key] = member
	return b.value()
}

// place is a value with the way to it, for errors that say where.
type place struct {
	value
	at string
}

func (p place) wrong(format string, args ...any) error {
	return fmt.Errorf("%s: %s", p.at, fmt.Sprintf(format, args...))
}

func (p place) want(k kind) error {
	if p.kind != k {
		return p.wrong("is %v, not %v", p.kind, k)
	}
	return nil
}

// member goes down to a member that has to be there.
func (p place) member(name string) (place, error) {
	if err := p.want(kindObject); err != nil {
		return place{}, err
	}
	m, ok := p.object[name]
	if !ok {
		return place{}, p.wrong("has no member %q", name)
	}
	return place{m, p.at + "." + name}, nil
}

// string reads a member that is a string.
func (p place) string(name string) (string, error) {
	m, err := p.member(name)
	if err == nil {
		err = m.want(kindString)
	}
	return m.value.text, err
}

// numbers reads a member that is an array of exactly n numbers.
func (p place) numbers(name string, n int) ([]float64, error) {
	m, err := p.member(name)
	if err == nil {
		err = m.want(kindNumbers)
	}
	if err == nil && len(m.nums) != n {
		err = m.wrong("has %d elements, %d are needed", len(m.nums), n)
	}
	return m.nums, err
}

// items reads a member that is an array of objects or strings.
func (p place) items(name string) ([]value, error) {
	m, err := p.member(name)
	if err != nil {
		return nil, err
	}
	if m.kind == kindNumbers && len(m.nums) == 0 {
		return nil, nil
	}
	return m.list, m.want(kindList)
}
