// SPDX-License-Identifier: Apache-2.0

package pcapfilter

import (
	"errors"

	"golang.org/x/net/bpf"
)

const scratchSlots = 16 // of classic BPF

// label is a place in the program that is not known yet.
type label int

type jump struct {
	at int // instruction
	to label
}

type emitter struct {
	code   []bpf.Instruction
	places []int // of labels
	jumps  []jump
	used   int // scratch slots
	deep   bool
}

// emit returns the program that returns 1 for packets that fulfil the condition, else 0.
func emit(n node) ([]bpf.Instruction, error) {
	e := &emitter{}
	yes, no := e.label(), e.label()
	e.condition(n, yes, no)
	e.place(yes)
	e.add(bpf.RetConstant{Val: 1})
	e.place(no)
	e.add(bpf.RetConstant{Val: 0})
	if e.deep {
		return nil, errors.New("arithmetic is nested too deeply")
	}
	for _, j := range e.jumps {
		e.code[j.at] = bpf.Jump{Skip: uint32(e.places[j.to] - j.at - 1)}
	}
	return e.code, nil
}

func (e *emitter) add(i ...bpf.Instruction) { e.code = append(e.code, i...) }

func (e *emitter) label() label {
	e.places = append(e.places, 0)
	return label(len(e.places) - 1)
}

func (e *emitter) place(l label) { e.places[l] = len(e.code) }

func (e *emitter) jump(to label) {
	e.jumps = append(e.jumps, jump{len(e.code), to})
	e.add(bpf.Jump{})
}

// condition goes to yes or to no. Conditional jumps reach 255 instructions only: they step over plain ones.
func (e *emitter) condition(n node, yes, no label) {
	switch n := n.(type) {
	case both:
		next := e.label()
		e.condition(n.left, next, no)
		e.place(next)
		e.condition(n.right, yes, no)
	case either:
		next := e.label()
		e.condition(n.left, yes, next)
		e.place(next)
		e.condition(n.right, yes, no)
	case not:
		e.condition(n.of, no, yes)
	case relation:
		e.relation(n)
		e.jump(no)
		e.jump(yes)
	case always:
		if n.value {
			e.jump(yes)
		} else {
			e.jump(no)
		}
	}
}

// relation steps over the next instruction if it holds.
func (e *emitter) relation(r relation) {
	if c, ok := r.right.(constant); ok {
		e.number(r.left)
		e.add(bpf.JumpIf{Cond: r.op, Val: c.value, SkipTrue: 1})
		return
	}
	e.pair(r.left, r.right)
	e.add(bpf.JumpIfX{Cond: r.op, SkipTrue: 1})
}

// pair leaves left in A and right in X.
func (e *emitter) pair(left, right number) {
	slot := e.used
	if e.used++; e.used > scratchSlots {
		e.deep = true
		slot = 0
	}
	e.number(left)
	e.add(bpf.StoreScratch{Src: bpf.RegA, N: slot})
	e.number(right)
	e.add(bpf.TAX{}, bpf.LoadScratch{Dst: bpf.RegA, N: slot})
	e.used--
}

// number leaves the value in A.
func (e *emitter) number(n number) {
	switch n := n.(type) {
	case constant:
		e.add(bpf.LoadConstant{Dst: bpf.RegA, Val: n.value})
	case length:
		e.add(bpf.LoadExtension{Num: bpf.ExtLen})
	case load:
		e.load(n)
	case access:
		e.load(n.load)
	case operation:
		if c, ok := n.right.(constant); ok {
			e.number(n.left)
			e.add(bpf.ALUOpConstant{Op: n.op, Val: c.value})
			return
		}
		e.pair(n.left, n.right)
		e.add(bpf.ALUOpX{Op: n.op})
	}
}

func (e *emitter) load(l load) {
	from := uint32(etherHeader)
	switch l.base {
	case baseLink:
		from = 0
	case baseUpper6:
		from += ip6Header
	}
	index, fixed := l.index.(constant)
	switch {
	case fixed && l.base != baseUpper:
		e.add(bpf.LoadAbsolute{Off: from + index.value, Size: l.size})
		return
	case fixed:
		e.add(bpf.LoadMemShift{Off: etherHeader})
		from += index.value
	case l.base == baseUpper:
		e.number(l.index)
		e.add(bpf.LoadMemShift{Off: etherHeader}, bpf.ALUOpX{Op: bpf.ALUOpAdd}, bpf.TAX{})
	default:
		e.number(l.index)
		e.add(bpf.TAX{})
	}
	e.add(bpf.LoadIndirect{Off: from, Size: l.size})
}
