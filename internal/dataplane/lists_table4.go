// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"sort"

	"github.com/gaissmai/bart"
)

const (
	leafLines = 16 // 256 verdicts of 32 bits
	leafWords = leafLines * lineWords
	cellSlots = 7 // slots of one /24 in its lines; more: a leaf
)

// item4 is a prefix with what the lists themselves say of it.
type item4 struct {
	addr uint32
	bits int
	own  source
}

func addr4(a netip.Addr) uint32 {
	b := a.As4()
	return binary.BigEndian.Uint32(b[:])
}

func (t *table) build4(sorted []item) error {
	items := make([]item4, len(sorted))
	for i, s := range sorted {
		items[i] = item4{addr4(s.prefix.Addr()), s.prefix.Bits(), s.own}
	}
	return t.paint4(0, 0, source{}, false, items)
}

// update4 paints the prefix anew, or, of a prefix within a /24, that /24.
func (t *table) update4(sources *bart.Table[source], prefix netip.Prefix) error {
	region := prefix
	if region.Bits() > 24 {
		region = netip.PrefixFrom(region.Addr(), 24).Masked()
	}
	bits := region.Bits()
	if t.small && bits < noShort4 || !t.small && bits <= 20 && t.short4 == nil {
		return errGrow
	}
	var cover source
	near := false
	for p, own := range sources.Supernets(region) {
		if p.Bits() == bits {
			continue
		}
		cover = cover.fold(own)
		near = near || t.near4(p.Bits())
	}
	var items []item4
	for p, own := range sources.Subnets(region) {
		if len(items) == maxLive {
			return errGrow
		}
		items = append(items, item4{addr4(p.Addr()), p.Bits(), own})
	}
	return t.paint4(addr4(region.Addr()), bits, cover, near, items)
}

// near4: what prefixes of this length say of whole /24s stands in lines, not in short4.
func (t *table) near4(bits int) bool { return bits > 20 || t.small }

// paint4 writes a region: items are the prefixes in it, sorted; cover is what all that cover it
// say of it, near whether one of them stands in lines. For each address, short4 and lines come before
// net4: whatever net4 says of a /24, the tables behind it are right. Which of the two knows an
// address follows from the lengths of the prefixes alone, so that it does not move
// from one to the other while a prefix that covers both changes.
func (t *table) paint4(addr uint32, bits int, cover source, near bool, items []item4) error {
	if len(items) > 0 && items[0].bits == bits {
		cover = cover.fold(items[0].own)
		items = items[1:]
		near = near || t.near4(bits)
	}
	if len(items) == 0 {
		return t.fill4(addr, bits, cover, near)
	}
	if bits == 24 {
		return t.cell4(addr, cover, near, items)
	}
	if bits == 20 {
		if err := t.fillShort4(addr, bits, cover); err != nil {
			return err
		}
	}
	half := addr | 1<<(31-bits)
	split := sort.Search(len(items), func(i int) bool { return items[i].addr >= half })
	if err := t.paint4(addr, bits+1, cover, near, items[:split]); err != nil {
		return err
	}
	return t.paint4(half, bits+1, cover, near, items[split:])
}

// fill4 writes a region without prefixes in it.
func (t *table) fill4(addr uint32, bits int, cover source, near bool) error {
	if t.m == nil && cover.empty() {
		return nil // as it was made
	}
	if !t.small && bits <= 20 {
		if err := t.fillShort4(addr, bits, cover); err != nil {
			return err
		}
		ref, err := t.verdict(cover)
		if err == nil {
			t.fillNet4(addr, bits, cellOf(ref))
		}
		return err
	}
	for i := range uint32(1) << (24 - bits) {
		if err := t.cell4(addr+i<<8, cover, near, nil); err != nil {
			return err
		}
	}
	return nil
}

// fillShort4 writes the verdict of all /20s of a region.
func (t *table) fillShort4(addr uint32, bits int, cover source) error {
	if t.short4 == nil {
		return nil // and then nothing covers a /20
	}
	ref, err := t.verdict(cover)
	if err != nil {
		return err
	}
	first, n := int(addr>>12), 1<<(20-bits)
	if n == 1 {
		store(&t.short4[first/2], withHalf(t.short4[first/2], first, ref))
		return nil
	}
	for i := range n / 2 {
		store(&t.short4[first/2+i], uint64(ref)<<32|uint64(ref))
	}
	return nil
}

// withHalf returns a word of two u32 with that at an even or odd index replaced.
func withHalf(word uint64, index int, value uint32) uint64 {
	shift := index & 1 * 32
	return word&^(0xffffffff<<shift) | uint64(value)<<shift
}

// cellOf returns what net4 says of a /24 with one verdict.
func cellOf(ref uint32) bpfListCell {
	switch bpfListRef(ref) {
	case bpfListRefREF_NONE:
		return bpfListCellCELL_NOTHING
	case bpfListRefREF_BLOCKED:
		return bpfListCellCELL_BLOCKED
	case bpfListRefREF_ALLOWED:
		return bpfListCellCELL_ALLOWED
	}
	return bpfListCellCELL_CLOSER
}

func (t *table) fillNet4(addr uint32, bits int, cell bpfListCell) {
	first, n := int(addr>>8), 1<<(24-bits)
	if n < 32 {
		for i := range n {
			t.setNet4(uint32(first+i)<<8, cell)
		}
		return
	}
	word := uint64(cell) * 0x5555555555555555
	for i := range n / 32 {
		store(&t.net4[first/32+i], word)
	}
}

func (t *table) setNet4(addr uint32, cell bpfListCell) {
	word := &t.net4[int(addr>>13)&(len(t.net4)-1)]
	shift := addr >> 7 & 62
	if t.small && cell == bpfListCellCELL_NOTHING {
		return // others may share the bits
	}
	store(word, *word&^(3<<shift)|uint64(cell)<<shift)
}

func slot4(addr uint32, bits int, ref uint32) uint64 {
	code := uint64(bits - 24 + int(bpfListCodeCODE_24))
	return uint64(addr)<<32 | code<<28 | uint64(32-bits)<<24 | uint64(ref)
}

func leafSlot4(addr uint32, leaf int) uint64 {
	return uint64(addr)<<32 | uint64(bpfListCodeCODE_LEAF)<<28 | 8<<24 | uint64(leaf)
}

func isLeaf4(slot uint64) bool { return slot>>28&15 == uint64(bpfListCodeCODE_LEAF) }

// cell4 writes a /24: its lines, then its bits of net4.
func (t *table) cell4(addr uint32, cover source, near bool, items []item4) error {
	ref, err := t.verdict(cover)
	if err != nil {
		return err
	}
	var buffer [cellSlots + 1]uint64
	slots := buffer[:0]
	if near {
		slots = append(slots, slot4(addr, 24, ref))
	}
	var within []item4 // that cover the next one, with what covers them folded in
	cell := cellOf(ref)
	for _, item := range items {
		for len(within) > 0 && !within[len(within)-1].covers(item.addr) {
			within = within[:len(within)-1]
		}
		sum := cover
		if len(within) > 0 {
			sum = within[len(within)-1].own
		}
		item.own = item.own.fold(sum)
		within = append(within, item)
		r, err := t.verdict(item.own)
		if err != nil {
			return err
		}
		if r != ref {
			cell = bpfListCellCELL_CLOSER
		}
		slots = append(slots, slot4(item.addr, item.bits, r))
	}
	if t.small && (ref != 0 || len(items) > 0) {
		cell = bpfListCellCELL_CLOSER
	}
	if t.m != nil || cell == bpfListCellCELL_CLOSER {
		if err := t.setLines4(addr, ref, slots, len(items) > 0); err != nil {
			return err
		}
	}
	t.setNet4(addr, cell)
	return nil
}

func (i item4) covers(addr uint32) bool { return (addr^i.addr)>>(32-i.bits) == 0 }

// setLines4 makes the slots of a /24 those wanted, with `ref` for what none of them matches.
// Each address changes in one store; what is new comes in before what is old goes.
func (t *table) setLines4(addr, ref uint32, want []uint64, nested bool) error {
	head := int(scale(mix(addr>>8^t.set.Seed4), t.set.NumLines4))
	old := t.slots4(head, addr)
	for _, slot := range old {
		switch {
		case !isLeaf4(*slot):
		case nested:
			t.setLeaf4(int(*slot&0xffffff), ref, want)
			return nil
		case len(want) > 0:
			t.change(slot, want[0])
			return nil
		default:
			t.change(slot, 0)
			return nil
		}
	}
	if len(want) > cellSlots {
		return t.makeLeaf4(head, addr, ref, want, old)
	}
	for _, w := range want {
		if err := t.putSlot4(head, w, old); err != nil {
			return err
		}
	}
	for _, slot := range old {
		if !slices.ContainsFunc(want, func(w uint64) bool { return w>>24 == *slot>>24 }) {
			t.change(slot, 0)
		}
	}
	return nil
}

// slots4 returns where the slots of a /24 are. A table under construction has none yet.
func (t *table) slots4(head int, addr uint32) (all []*uint64) {
	if t.m == nil {
		return nil
	}
	for line := range chain(t.lines4, head) {
		for i := range line {
			if line[i] != 0 && uint32(line[i]>>40) == addr>>8 {
				all = append(all, &line[i])
			}
		}
	}
	return all
}

func (t *table) putSlot4(head int, want uint64, old []*uint64) error {
	for _, slot := range old {
		if *slot>>24 == want>>24 {
			if *slot != want {
				t.change(slot, want)
			}
			return nil
		}
	}
	slot, err := t.free(&t.lines4, &t.usedLines4, head)
	if err != nil {
		return err
	}
	t.change(slot, want)
	return nil
}

// makeLeaf4 puts a leaf in the place of a /24's slots. It counts from the first store on.
func (t *table) makeLeaf4(head int, addr, ref uint32, want []uint64, old []*uint64) error {
	leaf := t.usedLeaves4
	if err := t.room(&t.leaves4, (leaf+1)*leafWords); err != nil {
		return err
	}
	if leaf >= 1<<24 {
		return errGrow
	}
	var slot *uint64
	if len(old) > 0 {
		slot, old = old[0], old[1:]
	} else {
		var err error
		if slot, err = t.free(&t.lines4, &t.usedLines4, head); err != nil {
			return err
		}
	}
	t.usedLeaves4++
	t.setLeaf4(leaf, ref, want)
	t.change(slot, leafSlot4(addr, leaf))
	for _, slot := range old {
		t.change(slot, 0)
	}
	return nil
}

// setLeaf4 writes the verdict of every address of a /24; slots are sorted, the longer behind the shorter.
func (t *table) setLeaf4(leaf int, ref uint32, slots []uint64) {
	var refs [256]uint32
	for i := range refs {
		refs[i] = ref
	}
	for _, slot := range slots {
		first, n := int(slot>>32&255), 1<<(slot>>24&15)
		for i := range n {
			refs[first+i] = uint32(slot & 0xffffff)
		}
	}
	words := t.leaves4[leaf*leafWords:][:leafWords]
	for i := range words {
		if w := uint64(refs[2*i]) | uint64(refs[2*i+1])<<32; words[i] != w {
			store(&words[i], w)
		}
	}
}

// mix and scale are list_mix and list_scale of bpf/lists.h.
func mix(x uint32) uint32 {
	x ^= x >> 16
	x *= 0x7feb352d
	x ^= x >> 15
	x *= 0x846ca68b
	return x ^ x>>16
}

func scale(hash, n uint32) uint32 { return uint32(uint64(hash) * uint64(n) >> 32) }
