// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"encoding/binary"
	"net/netip"

	"github.com/gaissmai/bart"
)

// prefix6 is a prefix of a length that is a multiple of four.
type prefix6 struct {
	hi, lo uint64
	bits   int
}

func (p prefix6) netip() netip.Prefix {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], p.hi)
	binary.BigEndian.PutUint64(b[8:], p.lo)
	return netip.PrefixFrom(netip.AddrFrom16(b), p.bits)
}

// copies6 yields the prefixes of the next length class that together are the prefix; none of ::/0.
func copies6(prefix netip.Prefix) func(yield func(prefix6) bool) {
	b := prefix.Addr().As16()
	hi, lo := binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])
	bits := (prefix.Bits() + 3) &^ 3
	return func(yield func(prefix6) bool) {
		if bits == 0 {
			return
		}
		for i := range uint64(1) << (bits - prefix.Bits()) {
			p := prefix6{hi, lo, bits}
			if bits > 64 {
				p.lo |= i << (128 - bits)
			} else {
				p.hi |= i << (64 - bits)
			}
			if !yield(p) {
				return
			}
		}
	}
}

// build6 goes from shorter prefixes to longer ones in them: the last to write a copy is the longest that covers it.
func (t *table) build6(sorted []item) error {
	type covering struct {
		prefix netip.Prefix
		sum    source
	}
	var within []covering
	for _, s := range sorted {
		prefix, own := s.prefix, s.own
		for len(within) > 0 && !within[len(within)-1].prefix.Contains(prefix.Addr()) {
			within = within[:len(within)-1]
		}
		if len(within) > 0 {
			own = own.fold(within[len(within)-1].sum)
		}
		within = append(within, covering{prefix, own})
		ref, err := t.verdict(own)
		if err != nil {
			return err
		}
		if prefix.Bits() == 0 {
			t.setRest6(ref)
		}
		for p := range copies6(prefix) {
			if err := t.put6(p, ref); err != nil {
				return err
			}
		}
	}
	return nil
}

// update6 writes the copies of a prefix and of all that are in it.
func (t *table) update6(sources *bart.Table[source], prefix netip.Prefix) error {
	affected := map[prefix6]bool{}
	add := func(prefix netip.Prefix) {
		for p := range copies6(prefix) {
			affected[p] = true
		}
	}
	add(prefix)
	n := 0
	for nested := range sources.Subnets(prefix) {
		if n++; n > maxLive {
			return errGrow
		}
		add(nested)
	}
	if prefix.Bits() == 0 {
		own, _ := sources.Get(prefix)
		ref, err := t.verdict(own)
		if err != nil {
			return err
		}
		t.setRest6(ref)
	}
	for p := range affected {
		if err := t.updateCopy6(sources, p); err != nil {
			return err
		}
	}
	return nil
}

func (t *table) updateCopy6(sources *bart.Table[source], p prefix6) error {
	var sum source
	exists := false
	for covering, own := range sources.Supernets(p.netip()) {
		sum = sum.fold(own)
		exists = exists || covering.Bits() > p.bits-4
	}
	if !exists {
		t.delete6(p)
		return nil
	}
	ref, err := t.verdict(sum)
	if err != nil {
		return err
	}
	return t.put6(p, ref)
}

func (t *table) setRest6(ref uint32) { t.change(&t.control[1], withHalf(t.control[1], 1, ref)) }

// find6 returns the slot of a prefix and its record, or nil.
func (t *table) find6(p prefix6, head int, tag uint64) (slot *uint64, record []uint64) {
	for line := range chain(t.lines6, head) {
		for i, entry := range line {
			if entry>>32 != tag || uint32(entry) == 0 {
				continue
			}
			r := t.records6[int(uint32(entry))*4:][:4]
			if r[0] == p.hi && r[1] == p.lo && int(r[2]>>32) == p.bits {
				return &line[i], r
			}
		}
	}
	return nil, nil
}

func (t *table) place6(p prefix6) (head int, tag uint64) {
	hash := hash6(t.set.Seed6, p.hi, p.lo, p.bits)
	return int(scale(uint32(hash>>32), t.set.NumLines6)), hash & 0xffffffff
}

// put6 writes the verdict of a prefix: the record, then the slot that leads to it, then the bit of its class.
func (t *table) put6(p prefix6, ref uint32) error {
	head, tag := t.place6(p)
	meta := uint64(p.bits)<<32 | uint64(ref)
	if _, record := t.find6(p, head, tag); record != nil {
		if record[2] != meta {
			t.change(&record[2], meta)
		}
		return nil
	}
	r := t.usedRecords6
	if err := t.room(&t.records6, (r+1)*4); err != nil {
		return err
	}
	slot, err := t.free(&t.lines6, &t.usedLines6, head)
	if err != nil {
		return err
	}
	t.usedRecords6++
	for i, word := range [3]uint64{p.hi, p.lo, meta} {
		store(&t.records6[r*4+i], word)
	}
	t.change(slot, tag<<32|uint64(r))
	t.setClass6(p)
	return nil
}

func (t *table) setClass6(p prefix6) {
	bit := uint64(1) << ((128 - p.bits) / 4)
	word := &t.control[1]
	if p.bits >= 32 {
		at := scale(mix(uint32(p.hi>>32)^t.set.Seed4), t.set.NumNet6)
		word = &t.net6[at/2]
		bit <<= at & 1 * 32
	}
	if *word&bit == 0 {
		t.change(word, *word|bit)
	}
}

// delete6 takes the slot away; the bit of the class stays, since others may need it.
func (t *table) delete6(p prefix6) {
	head, tag := t.place6(p)
	if slot, _ := t.find6(p, head, tag); slot != nil {
		t.change(slot, 0)
	}
}

// hash6 is list_hash6 of bpf/lists.h.
func hash6(seed, hi, lo uint64, bits int) uint64 {
	x := (hi ^ seed) * 0x9e3779b97f4a7c15
	x ^= x >> 32
	x = (x^lo)*0xd6e8feb86659fd93 + uint64(bits)
	x ^= x >> 32
	x *= 0xd6e8feb86659fd93
	return x ^ x>>32
}
