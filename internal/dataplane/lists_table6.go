// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"encoding/binary"
	"math/bits"
	"net/netip"

	"github.com/gaissmai/bart"
)

const (
	slots6      = 5 // LIST6_SLOTS; what a line says of them follows
	link6       = 7 // the word whose upper half is the line it goes on in
	codeShift6  = 24
	refMask6    = 1<<codeShift6 - 1
	secondHalf6 = 0xff // no class
	turns6      = 3    // places of a class in its word of net6
	spareLines6 = 192
)

// need6 is what the parts for IPv6 are sized by.
type need6 struct {
	slots6 int // at most, over all lines
	keys6  int // pairs of first 32 bits and class
	short6 int // prefixes shorter than /32
}

// count6 walks the list once.
func count6(sorted []item) (n need6) {
	var last [4]byte
	var seen uint32 // classes
	for i := range sorted {
		a, length := sorted[i].prefix.Addr().As16(), sorted[i].prefix.Bits()
		copies := 1 << (-length & 3)
		n.slots6 += copies
		if length > 64 {
			n.slots6 += copies
		}
		if first := [4]byte(a[:4]); first != last {
			last, seen = first, 0
		}
		switch class := uint32(1) << ((128 - length) / 4); {
		case length <= 28:
			n.short6 += copies
		case length < 32:
			n.keys6 += copies
		case seen&class == 0:
			n.keys6++
			seen |= class
		}
	}
	return n
}

// size6 makes the parts for IPv6. Half of the slots are in use, so that one line in twenty goes on in another, and a quarter
// as many words say which classes there are: one source in twenty looks for one in vain.
func (t *table) size6(n need6, try int) {
	t.usedLines6 = (n.slots6*2/slots6 + 2*spareLines6) << try
	t.set.NumLines6, t.set.NumShort6 = uint32(t.usedLines6), uint32(min(t.usedLines6, (n.short6+64)<<try))
	t.set.NumNet6 = uint32(256 + n.keys6/4)
	t.lines6 = make([]uint64, t.usedLines6*lineWords)
	t.net6 = make([]uint64, t.set.NumNet6)
}

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

// class numbers the lengths: 0 is /128, 31 is /4.
func (p prefix6) class() int { return (128 - p.bits) / 4 }

// code marks the slot of a prefix.
func (p prefix6) code() uint32 { return uint32(p.class() + 1) }

// copies6 yields the prefixes of the next length class that together are the prefix; none of ::/0.
func copies6(prefix netip.Prefix) func(yield func(prefix6) bool) {
	b := prefix.Addr().As16()
	hi, lo := binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])
	length := (prefix.Bits() + 3) &^ 3
	return func(yield func(prefix6) bool) {
		if length == 0 {
			return
		}
		for i := range uint64(1) << (length - prefix.Bits()) {
			p := prefix6{hi, lo, length}
			if length > 64 {
				p.lo |= i << (128 - length)
			} else {
				p.hi |= i << (64 - length)
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
			t.known6 = withHalf(t.known6, 1, ref)
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
		if err := t.setKnown6(withHalf(t.known6, 1, ref)); err != nil {
			return err
		}
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

// setKnown6 writes the classes in use, and the verdict of ::/0.
func (t *table) setKnown6(known uint64) error {
	if t.known6 == known {
		return nil
	}
	t.known6 = known
	if t.m == nil {
		return nil
	}
	if err := t.tellKnown6(known); err != nil {
		return err
	}
	t.changed()
	return nil
}

// find6 returns the line that a prefix is in and its slot there, or nil.
func (t *table) find6(p prefix6, head int) (line []uint64, slot int) {
	code := p.code()
	for line := range t.chain6(head) {
		for i := range slots6 {
			if meta6(line, i)>>codeShift6 == code && line[i] == p.hi && (p.bits <= 64 || line[i+1] == p.lo) {
				return line, i
			}
		}
	}
	return nil, 0
}

// head6 is the line that the chain of a prefix begins with.
func (t *table) head6(p prefix6) int {
	heads := t.set.NumLines6
	if p.bits < 32 {
		heads = t.set.NumShort6
	}
	return int(scale(uint32(hash6(t.set.Seed6, p.hi, p.lo, p.class())>>32), heads))
}

// chain6 yields the lines of a chain, whole.
func (t *table) chain6(head int) func(yield func([]uint64) bool) {
	return func(yield func([]uint64) bool) {
		for at := head; ; {
			line := t.lines6[at*lineWords:][:lineWords]
			if at = int(line[link6] >> 32); !yield(line) || at == 0 {
				return
			}
		}
	}
}

// meta6 is what a line says of a slot: {code 8 | verdict 24}; 0: it is free.
func meta6(line []uint64, slot int) uint32 { return uint32(line[slots6+slot/2] >> (slot & 1 * 32)) }

func (t *table) setMeta6(line []uint64, slot int, meta uint32) {
	word := &line[slots6+slot/2]
	t.change(word, withHalf(*word, slot, meta))
}

// put6 writes the verdict of a prefix: its halves, then what says that they are there, then the bits of its class.
func (t *table) put6(p prefix6, ref uint32) error {
	head := t.head6(p)
	line, slot := t.find6(p, head)
	if line == nil {
		var err error
		if line, slot, err = t.free6(p, head); err != nil {
			return err
		}
		store(&line[slot], p.hi)
		if p.bits > 64 {
			store(&line[slot+1], p.lo)
			t.setMeta6(line, slot+1, secondHalf6<<codeShift6)
		}
	}
	if meta := p.code()<<codeShift6 | ref; meta6(line, slot) != meta {
		t.setMeta6(line, slot, meta)
	}
	return t.setClass6(p)
}

// free6 returns where in its chain there is room for a prefix, and makes the chain longer if there is none.
func (t *table) free6(p prefix6, head int) (line []uint64, slot int, err error) {
	hops := 0
	for line = range t.chain6(head) {
		if slot = freeIn6(line, p.bits > 64); slot >= 0 {
			return line, slot, nil
		}
		hops++
	}
	next := t.usedLines6
	if hops == lineHops {
		return nil, 0, errGrow
	}
	if err := t.room(&t.lines6, (next+1)*lineWords); err != nil {
		return nil, 0, err
	}
	for line = range t.chain6(head) { // where it is now
		continue
	}
	t.usedLines6++
	store(&line[link6], withHalf(line[link6], 1, uint32(next))) // an empty line says nothing
	line = t.lines6[next*lineWords:][:lineWords]
	return line, freeIn6(line, p.bits > 64), nil
}

// freeIn6 returns a free slot of a line, of two the first, or -1. They fill up from both ends.
func freeIn6(line []uint64, wide bool) int {
	if wide {
		for i := range slots6 - 1 {
			if meta6(line, i) == 0 && meta6(line, i+1) == 0 {
				return i
			}
		}
		return -1
	}
	for i := slots6 - 1; i >= 0; i-- {
		if meta6(line, i) == 0 {
			return i
		}
	}
	return -1
}

// setClass6 makes packets look for prefixes of a class where this one is.
func (t *table) setClass6(p prefix6) error {
	if p.bits >= 32 {
		word, bits := t.classes6(p)
		if *word&bits != bits {
			t.change(word, *word|bits)
		}
	}
	return t.setKnown6(t.known6 | 1<<p.class())
}

// classes6 returns the word of net6 for a prefix, and the bits in it that stand for its class.
func (t *table) classes6(p prefix6) (word *uint64, mask uint64) {
	hash := hash6(t.set.Seed6, p.hi>>32, 0, 0)
	for turn := range turns6 {
		mask |= bits.RotateLeft64(1<<p.class(), int(hash>>(6*turn)&63))
	}
	return &t.net6[scale(uint32(hash>>32), t.set.NumNet6)], mask
}

// delete6 leaves the prefix in its slot, without a verdict, so that no packet finds it to be another; the bits of
// the class stay, since others may need them.
func (t *table) delete6(p prefix6) {
	if line, slot := t.find6(p, t.head6(p)); line != nil && meta6(line, slot)&refMask6 != 0 {
		t.setMeta6(line, slot, p.code()<<codeShift6)
	}
}

// hash6 is list_hash6 of bpf/lists.h.
func hash6(seed, hi, lo uint64, class int) uint64 {
	x := (hi ^ seed) * 0x9e3779b97f4a7c15
	x ^= x >> 32
	x = (x^lo)*0xd6e8feb86659fd93 + uint64(class)
	x ^= x >> 32
	x *= 0xd6e8feb86659fd93
	return x ^ x>>32
}
