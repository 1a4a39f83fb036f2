// SPDX-License-Identifier: Apache-2.0

package signature

import (
	"fmt"
	"math/bits"
)

// access reads bytes of a header or of the payload, or a field by its own word.
type access struct {
	at     int
	header string // "tcp", "ip" …, "payload"; "": scalar
	scalar Field
	offset int // in bytes
	size   int // in bytes
	mask   uint64
	unfit  *fault // why it is no field
}

// arith is an expression of numbers: a constant (op 0), an access, or two of them joined.
type arith struct {
	at          int
	op          string // "", "access", or an operator
	value       uint64
	access      *access
	left, right *arith
}

// levels are the operators of numbers, those that bind weakest first.
var levels = [][]string{{"|", "^"}, {"&"}, {"<<", ">>"}, {"+", "-"}, {"*", "/", "%"}}

func apply(op string, a, b uint64) (uint64, string) {
	switch op {
	case "|":
		return a | b, ""
	case "^":
		return a ^ b, ""
	case "&":
		return a & b, ""
	case "+":
		return a + b, ""
	case "-":
		return a - b, ""
	case "*":
		return a * b, ""
	}
	if op == "<<" || op == ">>" {
		switch {
		case b > 63:
			return 0, "shift by more bits than a number has"
		case op == "<<":
			return a << b, ""
		}
		return a >> b, ""
	}
	if b == 0 {
		return 0, "division by zero"
	}
	if op == "/" {
		return a / b, ""
	}
	return a % b, ""
}

// join folds constants, and a mask into the access it is applied to.
func join(at int, op string, left, right *arith) (*arith, *fault) {
	if left.op == "" && right.op == "" {
		value, problem := apply(op, left.value, right.value)
		if problem != "" {
			return nil, &fault{at: at, problem: problem}
		}
		return &arith{at: left.at, value: value}, nil
	}
	if op == "&" && left.op == "" {
		left, right = right, left
	}
	if op == "&" && left.op == "access" && right.op == "" {
		masked := *left.access
		masked.mask &= right.value
		return &arith{at: left.at, op: "access", access: &masked}, nil
	}
	if op == ">>" && left.op == "access" && right.op == "" && right.value < 64 {
		shifted := *left.access // what is shifted out is not looked at
		shifted.mask &^= 1<<right.value - 1
		left = &arith{at: left.at, op: "access", access: &shifted}
	}
	if (op == "/" || op == "%") && right.op == "" && right.value == 0 {
		return nil, &fault{at: at, problem: "division by zero"}
	}
	return &arith{at: left.at, op: op, left: left, right: right}, nil
}

// accesses returns every access below.
func (a *arith) accesses() []*access {
	switch a.op {
	case "":
		return nil
	case "access":
		return []*access{a.access}
	}
	return append(a.left.accesses(), a.right.accesses()...)
}

// eval computes in 32 bits, as tcpdump's machine does, with `value` for the access. What has no value is 0.
func (a *arith) eval(value uint64) uint64 {
	switch a.op {
	case "":
		return a.value & 0xffffffff
	case "access":
		return value & a.access.mask
	}
	left, right := a.left.eval(value), a.right.eval(value)
	if (a.op == "<<" || a.op == ">>") && right > 31 {
		return 0
	}
	result, _ := apply(a.op, left, right)
	return result & 0xffffffff
}

func compare(relation string, a, b uint64) bool {
	switch relation {
	case "=":
		return a == b
	case "!=":
		return a != b
	case "<":
		return a < b
	case "<=":
		return a <= b
	case ">":
		return a > b
	}
	return a >= b
}

// relate makes a leaf of a comparison.
func relate(at int, relation string, left, right *arith) (*node, *fault) {
	found := append(left.accesses(), right.accesses()...)
	if len(found) == 0 {
		return nil, &fault{at: at, problem: "compares two numbers, and nothing of the packet"}
	}
	if len(found) > 1 {
		return unfitNode(at, "a comparison looks at one field", "compare it with a number"), nil
	}
	from := found[0]
	if from.unfit != nil {
		return unfitNode(from.unfit.at, from.unfit.problem, from.unfit.hint), nil
	}
	if from.mask == 0 {
		return nil, &fault{at: from.at, problem: "mask 0 looks at nothing"}
	}
	if from.header == "payload" || from.dataOffset() >= 0 {
		return relatePayload(at, from, relation, left, right)
	}
	for _, side := range []*arith{left, right} {
		if side.op == "" && side.value > 0xffffffff {
			return nil, &fault{at: side.at, problem: "number does not fit 32 bits"}
		}
	}
	holds := func(value uint64) bool { return compare(relation, left.eval(value), right.eval(value)) }
	if from.header == "" {
		return relateScalar(from, holds), nil
	}
	return relateHeader(from, holds), nil
}

// accepted is the values of the field that hold.
func accepted(field Field, holds func(value uint64) bool) Set {
	set := Set{}
	for v := range int(field.Max()) + 1 {
		if !holds(uint64(v)) {
			continue
		}
		if last := len(set) - 1; last >= 0 && int(set[last].Hi) == v-1 {
			set[last].Hi++
		} else {
			set = append(set, Range{uint16(v), uint16(v)})
		}
	}
	return set
}

func relateScalar(from *access, holds func(uint64) bool) *node {
	shift := uint64(0)
	if from.scalar == Length {
		shift = frameHeader
	}
	return leafNode(from.at, fieldCond(from.scalar, accepted(from.scalar, func(v uint64) bool { return holds(v + shift) })))
}

// context is what a packet must be to have the header.
func context(header string) cond {
	switch header {
	case "ip", "ip6":
		c := everything()
		c.families = only4
		if header == "ip6" {
			c.families = only6
		}
		return c
	case "payload":
		return everything()
	}
	return fieldCond(Protocol, Values(protocolNames[header]))
}

// relateHeader finds the one field that the access looks at, and its values that hold.
func relateHeader(from *access, holds func(uint64) bool) *node {
	p, ok := from.part()
	if !ok {
		problem, hint := from.whyNot()
		return unfitNode(from.at, problem, hint)
	}
	below := 8*(from.offset+from.size) - 1 - p.last
	place := func(v uint64) uint64 {
		if below < 0 {
			return v >> -below
		}
		return v << below
	}
	if p.field != Fragment {
		set := accepted(p.field, func(v uint64) bool { return holds(place(v)) })
		return contextNode(from.at, context(from.header), fieldCond(p.field, set))
	}
	set, ok := fragmentKinds(func(v uint64) bool { return holds(place(v)) })
	if !ok {
		return unfitNode(from.at, "a rule knows a fragment as first or later, not its offset or the more-fragments bit", "write frag first, frag later, frag any or frag none")
	}
	return contextNode(from.at, context("ip"), fieldCond(Fragment, set))
}

// fragmentKinds is the kinds of which every value of more-fragments and offset holds; false if a kind is split.
func fragmentKinds(holds func(v uint64) bool) (Set, bool) {
	var seen, held [FragmentLater + 1]int
	for v := range uint64(1 << 14) {
		kind := FragmentNone
		if v&0x1fff != 0 {
			kind = FragmentLater
		} else if v != 0 {
			kind = FragmentFirst
		}
		seen[kind]++
		if holds(v) {
			held[kind]++
		}
	}
	set := Set{}
	for kind := range seen {
		if held[kind] == seen[kind] {
			set = set.Union(Values(uint16(kind)))
		} else if held[kind] > 0 {
			return nil, false
		}
	}
	return set, true
}

// part finds the field in which every bit that is looked at lies.
func (a *access) part() (part, bool) {
	end := 8*(a.offset+a.size) - 1
	first, last := end-(bits.Len64(a.mask)-1), end-bits.TrailingZeros64(a.mask)
	for _, p := range layouts[a.header] {
		if first >= p.first && last <= p.last {
			return p, true
		}
	}
	return part{}, false
}

// whyNot says why bytes of a header are no field, and what to write instead.
func (a *access) whyNot() (problem, hint string) {
	first, end := a.offset, a.offset+a.size
	covers := func(lo, hi int) bool { return first < hi && end > lo }
	problem = "these bytes of " + a.header + " are no field of a rule"
	switch {
	case a.header == "ip" && covers(12, 16), a.header == "ip6" && covers(8, 24):
		return "a rule does not look at the source", "use the block list"
	case a.header == "ip" && covers(16, 20), a.header == "ip6" && covers(24, 40):
		return "the target is written as an address", "write dst host or dst net"
	case a.header == "ip" && covers(6, 8):
		return problem, "write ip[6] & 0x40, frag first, frag later, frag any or frag none"
	case a.header == "ip6" && covers(4, 6):
		return problem, "write len: the IP packet and 14 bytes of Ethernet"
	case a.header == "ip6" && covers(6, 7):
		return problem, "write proto, which looks behind extension headers"
	case a.header == "udp" && covers(4, 6):
		return problem, "write len: it is the UDP length and 34 over IPv4 without options, and 54 over IPv6"
	case a.header == "tcp" && covers(12, 13):
		return problem, "mask the reserved bits, as in tcp[12] & 0xf0 = 0x50"
	case a.header == "tcp" && first >= 20:
		return "options are no field, and the data begins behind them", "write payload[0:4] for the first four bytes of the data"
	}
	return problem, ""
}

// dataOffset is where the access lies in the payload, or -1 if it does not.
func (a *access) dataOffset() int {
	switch a.header {
	case "payload":
		return a.offset
	case "udp", "icmp", "icmp6":
		return max(a.offset-8, -1)
	case "tcp data":
		return a.offset
	}
	return -1
}

func relatePayload(at int, from *access, relation string, left, right *arith) (*node, *fault) {
	if right.op == "access" {
		left, right = right, left
	}
	if relation != "=" || left.op != "access" || right.op != "" {
		return unfitNode(at, "a rule compares payload with = and a mask only", "write payload[0:2] & 0xff00 = 0x1200"), nil
	}
	word := Word{Offset: uint16(from.dataOffset()), Size: uint8(from.size), Mask: from.mask, Value: right.value}
	if from.dataOffset()+from.size > MaxOffset+1 {
		return unfitNode(from.at, fmt.Sprintf("a rule looks at the first %d bytes of the payload", MaxOffset+1), ""), nil
	}
	if word.Value&^word.Mask != 0 {
		return nil, &fault{at: right.at, problem: fmt.Sprintf("matches nothing: %#x has bits that the mask %#x clears", word.Value, word.Mask)}
	}
	header := from.header
	if header == "tcp data" {
		header = "tcp"
	}
	c := everything()
	c.payload = []Word{word}
	return contextNode(from.at, context(header), c), nil
}

// dataIndex recognizes an index that skips the TCP header, such as (tcp[12] & 0xf0) >> 2, and returns
// what it adds to it.
func (a *arith) dataIndex() (offset int, ok bool) {
	found := a.accesses()
	if len(found) != 1 || found[0].header != "tcp" || found[0].offset != 12 || found[0].size != 1 || found[0].mask&0xf0 != 0xf0 {
		return 0, false
	}
	added := a.eval(5<<4) - 20
	for words := uint64(5); words <= 15; words++ {
		if a.eval(words<<4) != 4*words+added {
			return 0, false
		}
	}
	return int(added), added <= MaxOffset
}
