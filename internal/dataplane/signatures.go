// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"errors"
	"fmt"
	"math/bits"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"

	"github.com/sentinel-x/sentinel-x/internal/signature"
)

// armedSet is the rules in force.
type armedSet struct {
	slots [signature.Slots]armedSlot
	index uint32    // into the outer map
	table *ebpf.Map // in force; nil: no rule is armed
}

// armedSlot is the place of one rule.
type armedSlot struct {
	id     uint64 // 0: free
	bank   uint8  // which of the slot's two lines counts, or counted last
	filter uint8  // 1 + index of its filter program; 0: none
}

func (s armedSlot) line(slot int) uint8 { return uint8(slot) + s.bank*signature.Slots }

// SetSignatures puts exactly these rules in force, all of them in one step: no packet sees some
// of the old and some of the new. A rule that was armed before, by its ID, keeps its slot
// and what it has counted. It returns an error, and changes nothing, for more than
// signature.Slots rules, for a rule that is not valid, for what the packet path cannot hold (more than
// signature.MaxOffsets offsets of payload words, more than signature.MaxFilters filters, too
// many distinct ranges of a port, length or window), and for a filter that does not compile.
func (p *Plane) SetSignatures(armed []signature.Armed) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	slots, fresh, err := assign(p.armed.slots, armed)
	if err != nil {
		return err
	}
	if err := p.setSignatures(armed, slots, fresh); err != nil {
		return fmt.Errorf("set signatures: %w", err)
	}
	return nil
}

func (p *Plane) setSignatures(armed []signature.Armed, slots [signature.Slots]armedSlot, fresh uint64) error {
	// Packets that began before the last flip may still be at what is written now.
	time.Sleep(knobGrace - time.Since(p.flipped))
	if err := p.resetLines(slots, fresh); err != nil {
		return err
	}
	placed := place(armed, slots)
	filters, err := p.placeFilters(&placed, &slots)
	if err != nil {
		return err
	}
	if err := p.loadFilters(filters); err != nil {
		return err
	}
	return p.installSignatures(&placed, slots)
}

// installSignatures builds the table of the rules, flips to it, and frees the one before.
func (p *Plane) installSignatures(placed *placedRules, slots [signature.Slots]armedSlot) error {
	next := armedSet{slots: slots, index: p.armed.index ^ 1}
	rules := bpfRuleSet{Slot: next.index}
	rules.Rules = where(placed, func(*signature.Rule) bool { return true })
	if rules.Rules != 0 {
		table, err := p.compileSignatures(placed, slots)
		if err != nil {
			return err
		}
		if next.table, err = p.buildTable(next.index, table); err != nil {
			return err
		}
	}
	old := p.knobs
	p.knobs.Signatures = rules
	if err := p.publish(); err != nil {
		p.knobs = old
		return errors.Join(err, p.dropTable(next))
	}
	last := p.armed
	p.armed = next
	// No packet takes as long: nobody looks into the old table any more.
	awaitPackets()
	return p.dropTable(last)
}

// assign gives every rule a slot: its old one, or the lowest that is free. fresh are
// the slots of rules that were not armed before; those count on their other line.
func assign(old [signature.Slots]armedSlot, armed []signature.Armed) (slots [signature.Slots]armedSlot, fresh uint64, err error) {
	if len(armed) > signature.Slots {
		return slots, 0, fmt.Errorf("%d signatures: %d can be armed at once", len(armed), signature.Slots)
	}
	place := map[uint64]int{}
	for slot, s := range old {
		slots[slot].bank = s.bank
		if s.id != 0 {
			place[s.id] = slot
		}
	}
	seen := map[uint64]bool{}
	for _, a := range armed {
		if err := checkArmed(a); err != nil {
			return slots, 0, err
		}
		if seen[a.ID] {
			return slots, 0, fmt.Errorf("signature %d: armed twice", a.ID)
		}
		seen[a.ID] = true
		if slot, ok := place[a.ID]; ok {
			slots[slot] = old[slot]
		}
	}
	free := 0
	for _, a := range armed {
		if _, ok := place[a.ID]; ok {
			continue
		}
		for slots[free].id != 0 {
			free++
		}
		slots[free].id = a.ID
		slots[free].bank ^= 1
		fresh |= 1 << free
	}
	return slots, fresh, nil
}

func checkArmed(a signature.Armed) error {
	wrap := func(err error) error { return fmt.Errorf("signature %d (%s): %w", a.ID, a.Text, err) }
	if err := a.Rule.Validate(); err != nil {
		return wrap(err)
	}
	switch {
	case a.ID == 0:
		return wrap(errors.New("it has no ID"))
	case a.Action > signature.Limit:
		return wrap(fmt.Errorf("action %d is unknown", a.Action))
	case a.Action == signature.Limit && a.Rate == 0:
		return wrap(errors.New("a limit of 0 packets a second: use the action drop"))
	case !(a.Ceiling > 0 && a.Ceiling <= signature.FullCeiling):
		return wrap(fmt.Errorf("ceiling %v is not above 0 and at most 1", a.Ceiling))
	}
	return nil
}

// place returns the rules by slot.
func place(armed []signature.Armed, slots [signature.Slots]armedSlot) (placed [signature.Slots]*signature.Armed) {
	index := map[uint64]int{}
	for slot, s := range slots {
		index[s.id] = slot
	}
	for i := range armed {
		placed[index[armed[i].ID]] = &armed[i]
	}
	return placed
}

// resetLines zeroes the counters and buckets of slots that get a new rule.
func (p *Plane) resetLines(slots [signature.Slots]armedSlot, fresh uint64) error {
	zero := make([]bpfSignatureStats, ebpf.MustPossibleCPU())
	for ; fresh != 0; fresh &= fresh - 1 {
		slot := bits.TrailingZeros64(fresh)
		line := uint32(slots[slot].line(slot))
		if err := p.objs.SignatureCounts.Put(line, zero); err != nil {
			return fmt.Errorf("reset the counters of slot %d: %w", slot, err)
		}
		if err := p.objs.SignatureBuckets.Put(line, bpfSignatureBucket{}); err != nil {
			return fmt.Errorf("reset the bucket of slot %d: %w", slot, err)
		}
	}
	return nil
}

// buildTable puts a new table into the idle slot of the outer map.
func (p *Plane) buildTable(index uint32, table *bpfSignatures) (*ebpf.Map, error) {
	spec := p.spec.Maps[bpfMapSignatureTables].InnerMap.Copy()
	spec.Name = "signatures"
	m, err := ebpf.NewMap(spec)
	if err != nil {
		return nil, fmt.Errorf("create the table: %w", err)
	}
	bytes := unsafe.Slice((*byte)(unsafe.Pointer(table)), unsafe.Sizeof(*table))
	if err := m.Put(uint32(0), bytes); err != nil {
		return nil, errors.Join(fmt.Errorf("write the table: %w", err), m.Close())
	}
	if err := p.objs.SignatureTables.Put(index, m); err != nil {
		return nil, errors.Join(fmt.Errorf("put the table in place: %w", err), m.Close())
	}
	return m, nil
}

// dropTable frees a table that is not, or no longer, in force.
func (p *Plane) dropTable(s armedSet) error {
	if s.table == nil {
		return nil
	}
	err := s.table.Close()
	if err := p.objs.SignatureTables.Delete(s.index); err != nil {
		return fmt.Errorf("free the table: %w", err)
	}
	return err
}

// SignatureStats returns what every armed rule has done since it was armed, by ID.
func (p *Plane) SignatureStats() (map[uint64]signature.Stats, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := map[uint64]signature.Stats{}
	for slot, s := range p.armed.slots {
		if s.id == 0 {
			continue
		}
		var perCPU []bpfSignatureStats
		if err := p.objs.SignatureCounts.Lookup(uint32(s.line(slot)), &perCPU); err != nil {
			return nil, fmt.Errorf("read the counters of signature %d: %w", s.id, err)
		}
		all[s.id] = p.sumStats(perCPU)
	}
	return all, nil
}

func (p *Plane) sumStats(perCPU []bpfSignatureStats) (sum signature.Stats) {
	var last uint64
	for _, n := range perCPU {
		sum.Matched += n.Matched
		sum.Bytes += n.Bytes
		sum.Dropped += n.Dropped
		sum.WouldDrop += n.WouldDrop
		sum.OverCeiling += n.OverCeiling
		last = max(last, n.LastSeen)
	}
	switch {
	case last == 0:
	case p.replay:
		sum.LastSeen = time.Unix(0, int64(last))
	default:
		sum.LastSeen = time.Now().Add(time.Duration(last - monotonic()))
	}
	return sum
}
