// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/gaissmai/bart"
	"golang.org/x/sys/unix"
)

const (
	lineWords = 8 // 64 bytes, struct list_line
	lineHops  = 3 // LIST_HOPS

	maxLive = 1024 // prefixes changed in place in one step; more: all is built anew
)

// errGrow says that a change does not fit the tables as they are: they are to be built anew.
var errGrow = errors.New("tables have to grow")

// table is the set of lists as the packet path reads it; bpf/lists.h says what is in
// which part. It is built in private memory, then copied into a map, and from then on changed
// there word by word. What a change leaves behind (verdicts, slots of IPv6, leaves, bits of a
// prefilter that several prefixes share) is never used for anything else: a packet may be at
// it. It goes when the table is built anew.
type table struct {
	set    bpfListSet
	m      *ebpf.Map // nil: private
	mapped []byte

	net4, short4, lines4, refs4, leaves4, verdicts, net6, lines6 []uint64

	// Units in use: lines, leaves of 32 lines, verdicts of half a line.
	usedLines4, usedLeaves4, usedVerdicts, usedLines6 int

	known6     uint64 // list_known6
	tellKnown6 func(known uint64) error

	changed func() // tells readers of a change to what they look at together

	small   bool // there is no short4
	near    int  // bits of net4 that are set
	refs    map[source]uint32
	removed int // prefixes since it was built
}

// need is what the parts of a table are sized by before it is built.
type need struct {
	need6
	slots4    int // at most, over all lines
	cells4    int // /24s that a prefix is in or around
	entries4  int
	short4    bool // a prefix of /20 or shorter
	shortest4 int
}

const (
	smallEntries = 1024
	smallCells   = 4096
	noShort4     = 17 // no shorter prefix fits a short list without short4

	leastNet4   = 1 << 14 // bits
	bitsPerCell = 16      // of net4: one source in 16 that no prefix is near looks closer in vain
	perLine4    = 10      // slots in use of a line, on average: a twentieth of the lines overflow
	leastLines4 = 128     // what of a /24 its line does not tell, the tag does
	short4Words = 1 << 19 // a verdict for every /20
)

// buildTable lays the lists out in private memory; items are sorted.
func buildTable(items []item) (*table, error) {
	items4, items6 := families(items)
	n := count(items4, items6)
	for try := range 8 {
		t := newTable(n, try)
		err := t.build(items4, items6)
		if err == nil {
			return t, nil
		}
		if !errors.Is(err, errGrow) {
			return nil, err
		}
	}
	return nil, errors.New("the hashes of the entries collide whatever the seed")
}

// count walks the lists once. A line has room for what a later change may add.
func count(items4, items6 []item) need {
	n := need{need6: count6(items6), shortest4: 32, entries4: len(items4)}
	for i := range items4 {
		bits := items4[i].prefix.Bits()
		n.shortest4 = min(n.shortest4, bits)
		n.short4 = n.short4 || bits <= 20
		switch {
		case bits >= 24:
			n.slots4++
		case bits > 20:
			n.slots4 += 1 << (24 - bits)
		}
		n.cells4 += 1 << max(0, 24-bits)
	}
	return n
}

func newTable(n need, try int) *table {
	t := &table{small: n.entries4 <= smallEntries && n.cells4 <= smallCells, refs: map[source]uint32{}}
	t.set.Seed4, t.set.Seed6 = rand.Uint32(), rand.Uint64()
	if t.small {
		n.slots4 = n.cells4 + n.entries4
	} else if n.short4 {
		t.short4 = make([]uint64, short4Words)
	}
	net4 := leastNet4
	for net4 < min(n.cells4*bitsPerCell, wholeNet4) {
		net4 *= 2
	}
	t.set.Net4Mask = uint32(net4 - 1)
	t.set.NumLines4 = uint32((n.slots4/perLine4 + leastLines4) << try)
	t.net4 = make([]uint64, net4/64)
	t.usedLines4 = int(t.set.NumLines4)
	t.lines4, t.refs4 = make([]uint64, t.usedLines4*lineWords), make([]uint64, t.usedLines4*lineWords)
	t.usedVerdicts = int(bpfListRefFIRST_REF)
	t.verdicts = make([]uint64, lineWords*2)
	t.size6(n.need6, try)
	return t
}

func (t *table) build(items4, items6 []item) error {
	if err := t.build4(items4); err != nil {
		return err
	}
	return t.build6(items6)
}

// room makes a part as long as `words`; what is shared does not grow.
func (t *table) room(part *[]uint64, words int) error {
	if words <= len(*part) {
		return nil
	}
	if t.m != nil {
		return errGrow
	}
	grown := make([]uint64, max(words, len(*part)*3/2))
	copy(grown, *part)
	*part = grown
	return nil
}

// store writes a word in one step.
func store(word *uint64, value uint64) { atomic.StoreUint64(word, value) }

// change writes a word that readers look at together with others, and tells them.
func (t *table) change(word *uint64, value uint64) {
	store(word, value)
	if t.m != nil {
		t.changed()
	}
}

// verdict returns the number under which the packet path finds s.
func (t *table) verdict(s source) (uint32, error) {
	switch {
	case s.empty():
		return uint32(bpfListRefREF_NONE), nil
	case s.Allowed == never:
		return uint32(bpfListRefREF_ALLOWED), nil
	case s.Allowed == 0 && (s.Forced == never || s.Blocked == never && s.Protected == 0):
		return uint32(bpfListRefREF_BLOCKED), nil
	}
	if ref, ok := t.refs[s]; ok {
		return ref, nil
	}
	ref := t.usedVerdicts
	if ref >= 1<<24 {
		return 0, fmt.Errorf("%w: more than %d different verdicts", ErrFull, 1<<24)
	}
	if err := t.room(&t.verdicts, (ref+1)*4); err != nil {
		return 0, err
	}
	for i, until := range [4]uint64{s.Blocked, s.Forced, s.Allowed, s.Protected} {
		store(&t.verdicts[ref*4+i], until)
	}
	t.usedVerdicts++
	t.refs[s] = uint32(ref)
	return uint32(ref), nil
}

// part is one of the table's arrays, the line where it begins, and the lines to spare.
type part struct {
	words *[]uint64
	base  *uint32
	lines int
}

// parts lists them with room for later changes: half as much again, and something for a list that begins.
func (t *table) parts() []part {
	lines := func(words []uint64) int { return (len(words) + lineWords - 1) / lineWords }
	spare := func(used, least int) int { return used + used/2 + least }
	return []part{
		{&t.net4, &t.set.Net4, lines(t.net4)},
		{&t.short4, &t.set.Short4, lines(t.short4)},
		{&t.lines4, &t.set.Lines4, t.usedLines4 + t.usedLines4/8 + 32},
		{&t.refs4, &t.set.Refs4, t.usedLines4 + t.usedLines4/8 + 32},
		{&t.leaves4, &t.set.Leaves4, spare(t.usedLeaves4, 16) * leafLines},
		{&t.verdicts, &t.set.Verdicts, spare(t.usedVerdicts, 2048)/2 + 1},
		{&t.net6, &t.set.Net6, lines(t.net6)},
		{&t.lines6, &t.set.Lines6, t.usedLines6 + t.usedLines6/8 + spareLines6},
	}
}

// share copies the table into a map of its own, where the packet path can read it.
func (t *table) share(spec *ebpf.MapSpec) error {
	parts := t.parts()
	lines := 0
	for _, p := range parts {
		*p.base = uint32(lines)
		lines += p.lines
	}
	if t.short4 == nil {
		t.set.Short4 = 0
	}
	spec = spec.Copy()
	spec.Name, spec.MaxEntries = bpfMapLists, uint32(lines)
	m, err := ebpf.NewMap(spec)
	if err != nil {
		return explainTable(err, lines)
	}
	size := (lines*lineWords*8 + pageSize - 1) / pageSize * pageSize
	mapped, err := unix.Mmap(m.FD(), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		return errors.Join(explainTable(err, lines), m.Close())
	}
	shared := unsafe.Slice((*uint64)(unsafe.Pointer(unsafe.SliceData(mapped))), lines*lineWords)
	for i, p := range parts {
		to := shared[int(*p.base)*lineWords:][:p.lines*lineWords]
		if i == 1 && t.short4 == nil {
			continue
		}
		copy(to, *p.words)
		*p.words = slices.Clip(to)
	}
	t.m, t.mapped = m, mapped
	return nil
}

func explainTable(err error, lines int) error {
	if errors.Is(err, unix.ENOMEM) {
		return fmt.Errorf("no memory for the lists in the kernel, %d MiB (the memory limit of this control group?): %w",
			lines*lineWords*8>>20+1, err)
	}
	return fmt.Errorf("create the map of the lists: %w", err)
}

func (t *table) close() error {
	if t == nil || t.m == nil {
		return nil
	}
	err := unix.Munmap(t.mapped)
	return errors.Join(err, t.m.Close())
}

// update brings one prefix, and what it covers, in line with the lists. errGrow: it does not fit in place.
func (t *table) update(sources *bart.Table[source], prefix netip.Prefix) error {
	if prefix.Addr().Is4() {
		return t.update4(sources, prefix)
	}
	return t.update6(sources, prefix)
}
