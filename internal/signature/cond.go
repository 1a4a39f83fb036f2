// SPDX-License-Identifier: Apache-2.0

package signature

import (
	"fmt"
	"net/netip"
	"slices"
)

// fault is what is wrong at a place of the text. With fields set, the text may be tcpdump's, but does not fit a rule.
type fault struct {
	at            int
	problem, hint string
	fields        bool
}

// Families as a set.
const (
	only4  = 1
	only6  = 2
	either = only4 | only6
)

// cond is a conjunction with one set for each dimension: what a Rule says, while it is put together.
type cond struct {
	families uint8
	target   netip.Prefix // zero: any
	fields   [NumFields]Set
	payload  []Word
}

func everything() cond { return cond{families: either} }

func fieldCond(f Field, set Set) cond {
	c := everything()
	c.fields[f] = set
	return c
}

// never tells whether one dimension alone accepts nothing.
func (c cond) never() bool {
	if _, clash := clashing(c.payload); clash || c.families == 0 {
		return true
	}
	return slices.ContainsFunc(c.fields[:], Set.empty)
}

// and returns what both accept.
func (c cond) and(d cond) cond {
	both := cond{families: c.families & d.families, target: c.target, payload: slices.Clone(c.payload)}
	switch {
	case !c.target.IsValid():
		both.target = d.target
	case !d.target.IsValid():
	case !c.target.Overlaps(d.target):
		both.families = 0
	case d.target.Bits() > c.target.Bits():
		both.target = d.target
	}
	if both.target.IsValid() && both.families&familyOf(both.target) == 0 {
		both.families = 0
	}
	for f := range c.fields {
		both.fields[f] = c.fields[f].Intersect(d.fields[f])
	}
	for _, w := range d.payload {
		if !slices.Contains(both.payload, w) {
			both.payload = append(both.payload, w)
		}
	}
	return both
}

func familyOf(p netip.Prefix) uint8 {
	if p.Addr().Is4() {
		return only4
	}
	return only6
}

// or returns what either accepts, if that is a conjunction: one side covers the other, or they differ in
// one field only.
func (c cond) or(d cond) (cond, bool) {
	switch {
	case c.never() || c.within(d):
		return d, true
	case d.never() || d.within(c):
		return c, true
	}
	differ, union := 0, c
	if c.families != d.families {
		differ, union.families = differ+1, either
	}
	for f := range c.fields {
		if !equal(c.fields[f], d.fields[f]) {
			differ, union.fields[f] = differ+1, c.fields[f].Union(d.fields[f])
		}
	}
	same := c.target == d.target && slices.Equal(c.payload, d.payload)
	return union, same && differ == 1
}

// equal: nil, which lacks nothing, differs from every other set.
func equal(s, t Set) bool { return (s == nil) == (t == nil) && slices.Equal(s, t) }

// within tells whether d accepts, dimension by dimension, all that c accepts.
func (c cond) within(d cond) bool {
	if c.families&^d.families != 0 {
		return false
	}
	if d.target.IsValid() && (!c.target.IsValid() || !d.target.Overlaps(c.target) || d.target.Bits() > c.target.Bits()) {
		return false
	}
	for f := range c.fields {
		if d.fields[f] != nil && (c.fields[f] == nil || !equal(c.fields[f].Intersect(d.fields[f]), c.fields[f])) {
			return false
		}
	}
	return !slices.ContainsFunc(d.payload, func(w Word) bool { return !slices.Contains(c.payload, w) })
}

// rule returns the conjunction as a Rule.
func (c cond) rule() Rule {
	r := Rule{Target: c.target, Fields: c.fields, Payload: c.payload}
	switch c.families {
	case only4:
		r.Family = 4
	case only6:
		r.Family = 6
	}
	return r
}

// node is an expression: and, or, not of others, or a leaf.
type node struct {
	at          int // of the operator, or of the leaf
	op          byte
	left, right *node
	leaf        func(negated bool) (cond, *fault)
}

// The operators of a node; 0: a leaf.
const (
	opAnd = '&'
	opOr  = '|'
	opNot = '!'
)

func leafNode(at int, c cond) *node {
	return &node{at: at, leaf: func(negated bool) (cond, *fault) {
		if negated {
			return c.complement(at)
		}
		return c, nil
	}}
}

// complement of a conjunction on a single dimension; a fault if it cannot be said.
func (c cond) complement(at int) (cond, *fault) {
	if c.target.IsValid() {
		return cond{}, &fault{at: at, fields: true, problem: "a rule cannot leave a target out", hint: "write a rule for each target"}
	}
	if len(c.payload) > 0 {
		return cond{}, &fault{at: at, fields: true, problem: "a rule cannot ask that payload differs", hint: "compare with =, without not"}
	}
	out := everything()
	if c.families != either {
		out.families = either &^ c.families
	}
	for f, set := range c.fields {
		if set != nil {
			out.fields[f] = set.Complement(Field(f).Max())
		}
	}
	return out, nil
}

// contextNode is a leaf on a field that only packets of `context` have, negated or not.
func contextNode(at int, context, c cond) *node {
	return &node{at: at, leaf: func(negated bool) (cond, *fault) {
		if negated {
			var wrong *fault
			if c, wrong = c.complement(at); wrong != nil {
				return c, wrong
			}
		}
		return context.and(c), nil
	}}
}

func unfitNode(at int, problem, hint string) *node {
	return &node{at: at, leaf: func(bool) (cond, *fault) {
		return cond{}, &fault{at: at, fields: true, problem: problem, hint: hint}
	}}
}

func both(at int, left, right *node) *node { return &node{at: at, op: opAnd, left: left, right: right} }

// solver turns a node into a conjunction. It remembers where nothing was left.
type solver struct {
	nothing *fault
}

// solve pushes not down to the leaves, where it is a set's complement.
func (s *solver) solve(n *node, negated bool) (cond, *fault) {
	switch {
	case n.leaf != nil:
		c, wrong := n.leaf(negated)
		if wrong == nil && c.never() {
			s.empty(n.at, "matches nothing: the field has no such value")
		}
		return c, wrong
	case n.op == opNot:
		return s.solve(n.left, !negated)
	}
	left, wrong := s.solve(n.left, negated)
	if wrong != nil {
		return left, wrong
	}
	right, wrong := s.solve(n.right, negated)
	if wrong != nil {
		return right, wrong
	}
	if (n.op == opAnd) != negated {
		c := left.and(right)
		if c.never() {
			s.empty(n.right.at, "matches nothing: no packet is both this and what stands before it")
		}
		return c, nil
	}
	c, fits := left.or(right)
	if !fits {
		wrong = alternatives(n.at, left, right)
	}
	return c, wrong
}

// alternatives says why two conjunctions are not one rule.
func alternatives(at int, left, right cond) *fault {
	wrong := &fault{at: at, fields: true, problem: "the two sides differ in more than one field", hint: "a rule holds alternatives of one field; write a rule for each side"}
	switch {
	case !slices.Equal(left.payload, right.payload):
		wrong.problem, wrong.hint = "payload has no alternatives in a rule", "write a rule for each side"
	case left.target != right.target:
		wrong.problem, wrong.hint = "a rule has one target", "write a rule for each target, or a prefix that covers them"
	}
	return wrong
}

func (s *solver) empty(at int, problem string) {
	if s.nothing == nil {
		s.nothing = &fault{at: at, problem: problem}
	}
}

// finish checks what the conjunction as a whole must hold.
func (s *solver) finish(root *node) (Rule, *fault) {
	c, wrong := s.solve(root, false)
	if wrong != nil {
		return Rule{}, wrong
	}
	if c.never() {
		return Rule{}, s.nothing
	}
	r := c.rule()
	if len(r.Payload) > MaxWords {
		return Rule{}, &fault{fields: true, problem: fmt.Sprintf("%d conditions on the payload", len(r.Payload)), hint: fmt.Sprintf("a rule holds at most %d; join neighbouring bytes to a word", MaxWords)}
	}
	for f, set := range r.Fields {
		if len(set) > MaxRanges {
			return Rule{}, &fault{fields: true, problem: fmt.Sprintf("%v has %d ranges", Field(f), len(set)), hint: fmt.Sprintf("a rule holds at most %d; write several rules", MaxRanges)}
		}
	}
	if err := r.Validate(); err != nil {
		return Rule{}, &fault{problem: err.Error()}
	}
	return r, nil
}
