// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"encoding/binary"
	mathbits "math/bits"
	"net/netip"
	"slices"
	"sort"

	"github.com/gaissmai/bart"
)

const (
	leafLines = 16 // 256 verdicts of 32 bits
	leafWords = leafLines * lineWords
	cellSlots = 7 // slots of one /24 in its lines; more: a leaf

	slots4    = 15 // LIST4_SLOTS
	halves4   = slots4 + 1
	kindMask4 = 7

	wholeNet4 = 1 << 24 // bits
)

// slot4 is a prefix of /24 to /32 with its verdict, or a leaf with its number.
type slot4 struct {
	host uint8 // last byte of the address
	bits int
	leaf bool
	ref  uint32
}

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
		t.fillNet4(addr, bits, !cover.empty())
		return nil
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

// fillNet4 writes the bits of all /24s of a region. Folded ones are only ever set: others share them.
func (t *table) fillNet4(addr uint32, bits int, on bool) {
	if t.folded() && !on {
		return
	}
	n := min(1<<(24-bits), len(t.net4)*64)
	at := int(addr>>8) & (len(t.net4)*64 - 1)
	mask, words := ^uint64(0), n/64
	if n < 64 {
		mask, words = (1<<n-1)<<(at&63), 1
	}
	for i := range words {
		word := &t.net4[at/64+i]
		now := *word &^ mask
		if on {
			now |= mask
		}
		t.near += mathbits.OnesCount64(now) - mathbits.OnesCount64(*word)
		store(word, now)
	}
}

// folded: several /24s share a bit of net4.
func (t *table) folded() bool { return len(t.net4)*64 < wholeNet4 }

// crowded: more than one /24 in four would be asked for in vain.
func (t *table) crowded() bool { return t.folded() && t.near*4 > len(t.net4)*64 }

// cell4 writes a /24: its lines, then its bits of net4.
func (t *table) cell4(addr uint32, cover source, near bool, items []item4) error {
	ref, err := t.verdict(cover)
	if err != nil {
		return err
	}
	var buffer [cellSlots + 1]slot4
	slots := buffer[:0]
	if near {
		slots = append(slots, slot4{bits: 24, ref: ref})
	}
	var within []item4 // that cover the next one, with what covers them folded in
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
		slots = append(slots, slot4{host: uint8(item.addr), bits: item.bits, ref: r})
	}
	if t.m != nil || len(slots) > 0 {
		if err := t.setLines4(addr, ref, slots, len(items) > 0); err != nil {
			return err
		}
	}
	t.fillNet4(addr, 24, ref != 0 || len(items) > 0)
	return nil
}

func (i item4) covers(addr uint32) bool { return (addr^i.addr)>>(32-i.bits) == 0 }

// setLines4 makes the slots of a /24 those wanted, with `ref` for what none of them matches.
// Each address changes in one store; what is new comes in before what is old goes.
func (t *table) setLines4(addr, ref uint32, want []slot4, nested bool) error {
	head, tag := t.place4(addr)
	old := t.find4(head, tag)
	for _, at := range old {
		if nested && kind4(half(t.lines4, at)) == bpfListKindKIND_LEAF {
			t.setLeaf4(int(half(t.refs4, at)), ref, want)
			return nil
		}
	}
	if len(want) > cellSlots {
		return t.makeLeaf4(head, tag, ref, want, old)
	}
	for _, w := range want {
		if err := t.put4(head, tag, w, old); err != nil {
			return err
		}
	}
	for _, at := range old {
		slot := half(t.lines4, at)
		if !slices.ContainsFunc(want, func(w slot4) bool { return w.same(tag, slot) }) {
			t.clear4(at)
		}
	}
	return nil
}

// place4 returns the line where the chain of a /24 begins, and its tag.
func (t *table) place4(addr uint32) (head int, tag uint32) {
	net := permute4(addr>>8, t.set.Seed4)
	return int(uint64(net) * uint64(t.set.NumLines4) >> 24), net << 15
}

// word returns the slot as the packet path reads it.
func (s slot4) word(tag uint32) uint32 {
	kind := min(s.ref, uint32(bpfListKindKIND_REF))
	if s.leaf {
		kind = uint32(bpfListKindKIND_LEAF)
	}
	return tag | uint32(s.host)<<7 | uint32(s.bits-24+int(bpfListCodeCODE_24))<<3 | kind
}

func kind4(word uint32) bpfListKind { return bpfListKind(word & kindMask4) }

// same reports whether a word is the slot of the same prefix, whatever its verdict.
func (s slot4) same(tag, word uint32) bool {
	return (s.word(tag)^word)&^kindMask4 == 0 && s.leaf == (kind4(word) == bpfListKindKIND_LEAF)
}

// half returns the u32 at an index of words.
func half(words []uint64, index int) uint32 { return uint32(words[index/2] >> (index & 1 * 32)) }

// find4 returns where the slots of a /24 are. A table under construction has none yet.
func (t *table) find4(head int, tag uint32) (all []int) {
	if t.m == nil {
		return nil
	}
	for line := range t.chain4(head) {
		for at := line * halves4; at < line*halves4+slots4; at++ {
			if word := half(t.lines4, at); word != 0 && (word^tag)>>15 == 0 {
				all = append(all, at)
			}
		}
	}
	return all
}

// put4 writes a slot: over that of the same prefix, or into an empty one. A leaf's number and a
// prefix's verdict never take each other's place in refs4, where a packet may just be looking.
func (t *table) put4(head int, tag uint32, want slot4, old []int) error {
	for _, at := range old {
		if want.same(tag, half(t.lines4, at)) {
			t.write4(at, tag, want)
			return nil
		}
	}
	at, err := t.free4(head)
	if err != nil {
		return err
	}
	t.write4(at, tag, want)
	return nil
}

// write4 writes what the slot leads to, then the slot.
func (t *table) write4(at int, tag uint32, want slot4) {
	word := want.word(tag)
	if kind4(word) >= bpfListKindKIND_REF && half(t.refs4, at) != want.ref {
		t.change(&t.refs4[at/2], withHalf(t.refs4[at/2], at, want.ref))
	}
	if half(t.lines4, at) != word {
		t.change(&t.lines4[at/2], withHalf(t.lines4[at/2], at, word))
	}
}

func (t *table) clear4(at int) { t.change(&t.lines4[at/2], withHalf(t.lines4[at/2], at, 0)) }

// chain4 yields the lines of a chain.
func (t *table) chain4(head int) func(yield func(line int) bool) {
	return func(yield func(int) bool) {
		for line := head; yield(line); {
			if line = t.link4(line); line == 0 {
				return
			}
		}
	}
}

func (t *table) link4(line int) int { return int(half(t.lines4, line*halves4+slots4)) }

// free4 returns an empty slot of a chain, and makes the chain longer if it has none.
func (t *table) free4(head int) (int, error) {
	last, n := head, 0
	for line := range t.chain4(head) {
		for at := line * halves4; at < line*halves4+slots4; at++ {
			if half(t.lines4, at) == 0 {
				return at, nil
			}
		}
		last, n = line, n+1
	}
	next := t.usedLines4
	if n == lineHops {
		return 0, errGrow
	}
	for _, part := range []*[]uint64{&t.lines4, &t.refs4} {
		if err := t.room(part, (next+1)*lineWords); err != nil {
			return 0, err
		}
	}
	t.usedLines4++
	link := last*halves4 + slots4
	store(&t.lines4[link/2], withHalf(t.lines4[link/2], link, uint32(next))) // an empty line says nothing
	return next * halves4, nil
}

// makeLeaf4 puts a leaf in the place of a /24's slots. They match better, and go the shortest
// first: each address changes with the last one that covers it.
func (t *table) makeLeaf4(head int, tag, ref uint32, want []slot4, old []int) error {
	leaf := t.usedLeaves4
	if err := t.room(&t.leaves4, (leaf+1)*leafWords); err != nil {
		return err
	}
	if leaf >= 1<<24 {
		return errGrow
	}
	at, err := t.free4(head)
	if err != nil {
		return err
	}
	t.usedLeaves4++
	t.setLeaf4(leaf, ref, want)
	t.write4(at, tag, slot4{bits: 24, leaf: true, ref: uint32(leaf)})
	slices.SortFunc(old, func(a, b int) int { return int(half(t.lines4, a)>>3&15) - int(half(t.lines4, b)>>3&15) })
	for _, at := range old {
		t.clear4(at)
	}
	return nil
}

// setLeaf4 writes the verdict of every address of a /24; slots are sorted, the longer behind the shorter.
func (t *table) setLeaf4(leaf int, ref uint32, slots []slot4) {
	var refs [256]uint32
	for i := range refs {
		refs[i] = ref
	}
	for _, slot := range slots {
		for i := range 1 << (32 - slot.bits) {
			refs[int(slot.host)+i] = slot.ref
		}
	}
	words := t.leaves4[leaf*leafWords:][:leafWords]
	for i := range words {
		if w := uint64(refs[2*i]) | uint64(refs[2*i+1])<<32; words[i] != w {
			store(&words[i], w)
		}
	}
}

// permute4 is list_permute4 of bpf/lists.h.
func permute4(net, seed uint32) uint32 {
	net = (net ^ seed ^ net>>12) & 0xffffff
	net = net * 0x6f4a95 & 0xffffff
	net ^= net>>11 ^ seed>>24
	net = net * 0xb5297d & 0xffffff
	return net ^ net>>13
}

// scale is list_scale of bpf/lists.h.
func scale(hash, n uint32) uint32 { return uint32(uint64(hash) * uint64(n) >> 32) }
