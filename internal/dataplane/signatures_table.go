// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/sentinel-x/sentinel-x/internal/signature"
)

const (
	fullCeiling     = 1 << 16 // FULL_CEILING of bpf/types.h
	sharedBucketOne = 1 << 4  // a nanosecond of lib/shared_bucket.h
)

// wideFields are the fields whose 16-bit values are sorted into classes first.
var wideFields = map[signature.Field]bpfWideField{
	signature.SourcePort: bpfWideFieldWIDE_SOURCE_PORT,
	signature.DestPort:   bpfWideFieldWIDE_DEST_PORT,
	signature.Length:     bpfWideFieldWIDE_LENGTH,
	signature.Window:     bpfWideFieldWIDE_WINDOW,
}

type placedRules = [signature.Slots]*signature.Armed // by slot; nil: free

// compileSignatures builds what the packet path looks up. A set of rules has the bits of their slots.
func (p *Plane) compileSignatures(placed *placedRules, slots [signature.Slots]armedSlot) (*bpfSignatures, error) {
	t := &bpfSignatures{}
	fillTargets(t, placed)
	for f := range signature.NumFields {
		if err := fillField(t, placed, f); err != nil {
			return nil, err
		}
	}
	if err := fillWords(t, placed); err != nil {
		return nil, err
	}
	p.fillRules(t, placed, slots)
	return t, nil
}

// where returns the set of rules that fulfil the condition.
func where(placed *placedRules, condition func(*signature.Rule) bool) (set uint64) {
	for slot, a := range placed {
		if a != nil && condition(&a.Rule) {
			set |= 1 << slot
		}
	}
	return set
}

// ruleFamily returns the address family that a rule is for; 0: both.
func ruleFamily(r *signature.Rule) uint8 {
	switch {
	case !r.Target.IsValid():
		return r.Family
	case r.Target.Addr().Is4():
		return 4
	}
	return 6
}

// fillTargets writes families and destinations: a prefix is a condition on each of its bytes.
func fillTargets(t *bpfSignatures, placed *placedRules) {
	for i, family := range []uint8{4, 6} {
		t.Families[i] = where(placed, func(r *signature.Rule) bool { f := ruleFamily(r); return f == 0 || f == family })
	}
	for i := range t.Targets {
		any := where(placed, func(r *signature.Rule) bool { _, mask := targetByte(r, i); return mask == 0 })
		for v := range t.Targets[i] {
			t.Targets[i][v] = any
		}
		for slot, a := range placed {
			if a == nil || any&(1<<slot) != 0 {
				continue
			}
			t.UsedTargets |= 1 << i
			value, mask := targetByte(&a.Rule, i)
			for v := range t.Targets[i] {
				if byte(v)&mask == value {
					t.Targets[i][v] |= 1 << slot
				}
			}
		}
	}
}

// targetByte returns what byte i of a destination, IPv4's 4 before IPv6's 16, must be under mask; mask 0: anything.
func targetByte(r *signature.Rule, i int) (value, mask byte) {
	if !r.Target.IsValid() || r.Target.Addr().Is4() != (i < 4) {
		return 0, 0
	}
	if i >= 4 {
		i -= 4
	}
	bits := min(max(r.Target.Bits()-8*i, 0), 8)
	mask = byte(uint16(0xff00) >> bits)
	return r.Target.Addr().AsSlice()[i] & mask, mask
}

// fillField writes which rules accept which value of a field.
func fillField(t *bpfSignatures, placed *placedRules, f signature.Field) error {
	t.Absent[f] = where(placed, func(r *signature.Rule) bool { return r.Fields[f] == nil })
	if t.Absent[f] == where(placed, func(*signature.Rule) bool { return true }) {
		return nil
	}
	t.Used |= 1 << f
	wide, isWide := wideFields[f]
	last := 255
	if isWide {
		last = 65535
	}
	classes := map[uint64]int{}
	cuts := cutPoints(placed, f, last)
	for i, lo := range cuts[:len(cuts)-1] {
		set := where(placed, func(r *signature.Rule) bool { return accepts(r.Fields[f], lo) })
		if !isWide {
			for v := lo; v < cuts[i+1]; v++ {
				t.Fields[f][v] = set
			}
			continue
		}
		class, ok := classes[set]
		if !ok {
			class = len(classes)
			if class == len(t.Fields[f]) {
				return fmt.Errorf("the signatures tell more than %d groups of values of %v apart: fewer or simpler ranges fit", class, f)
			}
			classes[set], t.Fields[f][class] = class, set
		}
		for v := lo; v < cuts[i+1]; v++ {
			t.Classes[wide][v] = uint8(class)
		}
	}
	return nil
}

// cutPoints returns where any rule's answer changes, from 0 to behind the last value.
func cutPoints(placed *placedRules, f signature.Field, last int) []int {
	cuts := []int{0, last + 1}
	for _, a := range placed {
		if a == nil {
			continue
		}
		for _, r := range a.Rule.Fields[f] {
			cuts = append(cuts, min(int(r.Lo), last+1), min(int(r.Hi)+1, last+1))
		}
	}
	slices.Sort(cuts)
	return slices.Compact(cuts)
}

func accepts(s signature.Set, value int) bool {
	if s == nil {
		return true
	}
	for _, r := range s {
		if value >= int(r.Lo) && value <= int(r.Hi) {
			return true
		}
	}
	return false
}

// fillWords writes which rules accept which byte of the payload, for each offset that some rule looks at.
func fillWords(t *bpfSignatures, placed *placedRules) error {
	index := map[uint16]int{}
	all := where(placed, func(*signature.Rule) bool { return true })
	for slot, a := range placed {
		if a == nil {
			continue
		}
		for _, w := range a.Rule.Payload {
			i, ok := index[w.Offset]
			if !ok {
				if i = len(index); i == signature.MaxOffsets {
					return fmt.Errorf("the signatures look at the payload at more than %d offsets; signature %d (%s) needs another one, %d",
						signature.MaxOffsets, a.ID, a.Text, w.Offset)
				}
				index[w.Offset] = i
				openWord(t, i, w.Offset, all)
			}
			t.Words[i].Rules |= 1 << slot
			fillWord(t, i, w, 1<<slot)
		}
	}
	t.NumWords = uint32(len(index))
	return nil
}

// openWord begins tables that accept everything.
func openWord(t *bpfSignatures, i int, offset uint16, all uint64) {
	t.Words[i].Offset = uint32(offset)
	for b := range t.Payload[i] {
		t.Words[i].Blind[b] = all
		for v := range t.Payload[i][b] {
			t.Payload[i][b][v] = all
		}
	}
}

// fillWord takes the rule out of the sets of bytes that it does not accept.
func fillWord(t *bpfSignatures, i int, w signature.Word, rule uint64) {
	for b := range int(w.Size) {
		shift := 8 * (int(w.Size) - 1 - b)
		mask, value := byte(w.Mask>>shift), byte(w.Value>>shift)
		if mask == 0 {
			continue
		}
		t.Words[i].Size = max(t.Words[i].Size, uint32(b)+1)
		t.Words[i].Blind[b] &^= rule
		for v := range t.Payload[i][b] {
			if byte(v)&mask != value {
				t.Payload[i][b][v] &^= rule
			}
		}
	}
}

// fillRules writes what is done with the packets of each rule. Rules with the same target
// and a ceiling share the count of its packets: on the line of the first of them.
func (p *Plane) fillRules(t *bpfSignatures, placed *placedRules, slots [signature.Slots]armedSlot) {
	type target struct {
		family uint8
		prefix any
	}
	counted := map[target]uint8{}
	for slot, a := range placed {
		if a == nil {
			continue
		}
		r := &t.Rules[slot]
		r.Until = p.clock()(a.Expires)
		r.Action = uint8(a.Action)
		r.Filter = slots[slot].filter
		r.Line = slots[slot].line(slot)
		r.Ceiling = kernelCeiling(a.Ceiling)
		if a.Action == signature.Limit {
			r.Cost = uint64(math.Max(1, math.Round(sharedBucketOne*float64(time.Second)/float64(a.Rate))))
		}
		if r.Ceiling == fullCeiling || a.Action == signature.Observe {
			r.Ceiling = fullCeiling
			continue
		}
		key := target{ruleFamily(&a.Rule), a.Rule.Target}
		line, ok := counted[key]
		if !ok {
			line = r.Line
			counted[key] = line
			t.Counted |= 1 << slot
		}
		r.TargetLine = line
	}
}

// kernelCeiling returns a share in 1/fullCeiling, at least one of them.
func kernelCeiling(share float64) uint32 {
	return uint32(max(1, math.Round(share*fullCeiling)))
}
