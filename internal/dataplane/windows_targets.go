// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"sync/atomic"

	"github.com/gaissmai/bart"

	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// How slots change hands. Ticks are those of traffic.Tick.
const (
	promoteScore   = 10   // packets, fading by a tenth a tick, that a target without a slot needs to get one
	promoteSamples = 2.5  // and as many samples: one of a large flood stands for many packets
	fade           = 0.9  // of scores
	smoothing      = 0.05 // of the level of those that have a slot
	quietTicks     = 600  // without a packet, and the slot is given back
	leastTicks     = 50   // that a slot is kept whoever else wants it
	hysteresis     = 4    // by which another target has to be larger
	maxCandidates  = 4096
)

// holder is a target that has a slot, or a network whose hosts have.
type holder struct {
	target  traffic.Target
	slot    int       // 0: none of its own
	network *holder   // of a host
	hosts   []*holder // of a network
	fixed   bool      // by SetTargets
	leaving bool      // the packet path does not know it any more; it is read once more
	last    uint32    // tick in which it is read
	age     int       // ticks that it has had the slot
	quiet   int       // ticks without a packet
	level   float64   // packets a tick, smoothed
	index   int       // in order
}

// candidate is a target without a slot that was seen in samples of a wider one.
type candidate struct {
	target         traffic.Target
	score, samples float64
}

// hash is that of a target in the packet path: window_slot in bpf/windows.h.
func (s *windowSeeds) hash(t traffic.Target) uint64 {
	seed, six := bpfWindowSeedWINDOW_SEED_HOST, bpfWindowSeed(0)
	if t.Scope == traffic.TargetNetwork {
		seed = bpfWindowSeedWINDOW_SEED_NETWORK
	}
	a := t.Prefix.Addr()
	high, low := halves(a)
	if a.Is6() {
		six = 1
	}
	hash := s.of(seed+six, high, low)
	if t.Scope == traffic.TargetHost && a.Is6() {
		b := a.As16()
		hash = traffic.HashMix(hash ^ (uint64(binary.NativeEndian.Uint32(b[8:]))<<32 | uint64(binary.NativeEndian.Uint32(b[12:]))))
	}
	return hash
}

// of is window_hash.
func (s *windowSeeds) of(seed bpfWindowSeed, high, low uint32) uint64 {
	return traffic.HashMix(s[seed] ^ (uint64(high)<<32 | uint64(low)))
}

// halves returns the first two words of an address as the packet path has them.
func halves(a netip.Addr) (high, low uint32) {
	if a.Is4() {
		b := a.As4()
		return binary.NativeEndian.Uint32(b[:]), 0
	}
	b := a.As16()
	return binary.NativeEndian.Uint32(b[:]), binary.NativeEndian.Uint32(b[4:])
}

// publish tells the packet path of a slot; false: the line has no room.
func (w *windowTable) publish(t traffic.Target, slot int) bool {
	hash := w.spec.seeds.hash(t)
	line := &w.lines[hash&uint64(len(w.lines)-1)]
	for i := range line.Words {
		if line.Words[i] == 0 {
			atomic.StoreUint64(&line.Words[i], hash&^0xffff|uint64(slot))
			return true
		}
	}
	return false
}

func (w *windowTable) withdraw(t traffic.Target, slot int) {
	hash := w.spec.seeds.hash(t)
	line := &w.lines[hash&uint64(len(w.lines)-1)]
	for i := range line.Words {
		if line.Words[i] == hash&^0xffff|uint64(slot) {
			atomic.StoreUint64(&line.Words[i], 0)
		}
	}
}

// setTargets replaces what is watched.
func (w *windowTable) setTargets(prefixes []netip.Prefix) error {
	fixed, err := fixedTargets(prefixes)
	if err != nil {
		return err
	}
	if len(fixed) > w.stats.Slots {
		return fmt.Errorf("%d addresses and networks are to be watched, and there are %d slots: raise the number of targets, "+
			"or give prefixes of which only those with traffic need one", len(fixed), w.stats.Slots)
	}
	w.protected = &bart.Lite{}
	for _, p := range prefixes {
		w.protected.Insert(p.Masked())
	}
	clear(w.candidates)
	stay := map[traffic.Target]bool{}
	for _, t := range fixed {
		stay[t] = true
	}
	for t, p := range w.holders {
		p.fixed = stay[t]
		if p.slot != 0 && !p.fixed && !w.protected.LookupPrefix(t.Prefix) {
			w.leave(p, w.ticks+1)
		}
	}
	w.pending = fixed
	w.settle(w.ticks + 1) // the next tick may be a moment away
	return nil
}

// fixedTargets returns the targets that have a slot whether they have traffic or not.
func fixedTargets(prefixes []netip.Prefix) (fixed []traffic.Target, err error) {
	seen := map[traffic.Target]bool{}
	for _, p := range prefixes {
		a := p.Addr()
		if !p.IsValid() || a.Is4In6() {
			return nil, fmt.Errorf("%v cannot be watched: a prefix of IPv4 or IPv6 is wanted", p)
		}
		t := traffic.HostTarget(a)
		if p.Bits() < a.BitLen() {
			t = traffic.NetworkTarget(a)
			if p.Bits() < t.Prefix.Bits() {
				continue
			}
		}
		if !seen[t] {
			seen[t] = true
			fixed = append(fixed, t)
		}
	}
	return fixed, nil
}

// settle gives slots to the targets that are to have one, as far as any are free, and takes them from others.
// Those give them back after the tick `last`.
func (w *windowTable) settle(last uint32) {
	var waiting []traffic.Target
	for _, t := range w.pending {
		p := w.holders[t]
		switch {
		case p != nil && p.slot != 0 && !p.leaving:
			p.fixed = true
		case p != nil && p.leaving || len(w.free) == 0:
			waiting = append(waiting, t)
		default:
			if p = w.enter(t, 0); p != nil {
				p.fixed = true
			}
		}
	}
	w.pending = waiting
	for range len(waiting) - w.coming() {
		w.evict(0, last)
	}
}

// coming returns how many slots will be free soon.
func (w *windowTable) coming() (n int) {
	for _, p := range w.bySlot {
		if p != nil && p.leaving {
			n++
		}
	}
	return n
}

// enter gives a target a free slot, of which about n packets a tick are expected; nil: its line is full.
func (w *windowTable) enter(t traffic.Target, n float64) *holder {
	slot := w.free[len(w.free)-1]
	w.expect(slot, n)
	if !w.publish(t, slot) {
		w.stats.Unplaced++
		return nil
	}
	w.free = w.free[:len(w.free)-1]
	p := w.holder(t)
	p.slot, p.age, p.quiet, p.level = slot, 0, 0, 0
	w.bySlot[slot] = p
	w.stats.Targets++
	delete(w.candidates, t)
	return p
}

// holder returns a target's, made if need be, with its network.
func (w *windowTable) holder(t traffic.Target) *holder {
	p := w.holders[t]
	if p == nil {
		p = &holder{target: t}
		w.holders[t] = p
		if t.Scope == traffic.TargetHost {
			p.network = w.holder(traffic.NetworkTarget(t.Prefix.Addr()))
			p.network.hosts = append(p.network.hosts, p)
		}
		w.order = nil
	}
	return p
}

// leave ends what the packet path knows of a target. Packets that are at its cell still go on; ticks up to `last` read them.
func (w *windowTable) leave(p *holder, last uint32) {
	w.withdraw(p.target, p.slot)
	p.leaving, p.fixed, p.last = true, false, last
}

// review ages the holders, frees the slots of those that have left, and gives slots to candidates.
func (w *windowTable) review() {
	for slot := 1; slot < w.spec.slots; slot++ {
		p := w.bySlot[slot]
		if p == nil {
			continue
		}
		n := w.packets[slot]
		p.age++
		p.quiet++
		if n != 0 {
			p.quiet = 0
		}
		p.level += (float64(n) - p.level) * smoothing
		switch {
		case p.leaving && w.ticks > p.last:
			w.vacate(p)
		case p.leaving:
		case !p.fixed && p.quiet >= quietTicks:
			w.leave(p, w.ticks)
		}
	}
	w.settle(w.ticks)
	w.promote()
}

// vacate frees the slot of a target that has left.
func (w *windowTable) vacate(p *holder) {
	w.bySlot[p.slot] = nil
	w.free = append(w.free, p.slot)
	p.slot, p.leaving = 0, false
	w.stats.Targets--
	w.stats.Recycled++
	w.drop(p)
}

// drop forgets a holder that stands for nothing any more.
func (w *windowTable) drop(p *holder) {
	if p.slot != 0 || len(p.hosts) != 0 {
		return
	}
	delete(w.holders, p.target)
	w.order = nil
	if n := p.network; n != nil {
		n.hosts = slices.DeleteFunc(n.hosts, func(h *holder) bool { return h == p })
		w.drop(n)
	}
}

// arrange puts the holders in the order of the windows.
func (w *windowTable) arrange() {
	if w.order != nil {
		return
	}
	var networks []*holder
	for _, p := range w.holders {
		if p.target.Scope == traffic.TargetNetwork {
			networks = append(networks, p)
		}
	}
	byPrefix := func(a, b *holder) int { return traffic.ComparePrefixes(a.target.Prefix, b.target.Prefix) }
	slices.SortFunc(networks, byPrefix)
	w.order = make([]*holder, 0, len(w.holders))
	for _, n := range networks {
		n.index = len(w.order)
		w.order = append(w.order, n)
		slices.SortFunc(n.hosts, byPrefix)
		for _, h := range n.hosts {
			h.index = len(w.order)
			w.order = append(w.order, h)
		}
	}
	w.windows = resize(w.windows, 1+len(w.order))
	w.windows[0].Target = traffic.Target{Scope: traffic.TargetInterface}
	for i, p := range w.order {
		w.windows[1+i].Target = p.target
	}
}

// nominate counts who of the samples of wider slots has no slot of its own.
func (w *windowTable) nominate() {
	for t, c := range w.candidates {
		c.score *= fade
		c.samples *= fade
		if c.samples < 0.3 || len(w.candidates) > maxCandidates/2 && c.samples < 1 {
			delete(w.candidates, t)
		}
	}
	w.nominateFrom(w.windows[0].Samples[:w.got[0]], true)
	for i, p := range w.order {
		if p.network == nil && p.slot != 0 {
			w.nominateFrom(w.windows[1+i].Samples[:w.got[p.slot]], false)
		}
	}
}

func (w *windowTable) nominateFrom(samples []traffic.Sample, networks bool) {
	for i := range samples {
		s := &samples[i]
		if !w.protected.Contains(s.Destination) {
			continue
		}
		w.vote(traffic.HostTarget(s.Destination), s.Weight)
		if networks {
			w.vote(traffic.NetworkTarget(s.Destination), s.Weight)
		}
	}
}

func (w *windowTable) vote(t traffic.Target, weight float64) {
	c := w.candidates[t]
	if c == nil {
		if len(w.candidates) >= maxCandidates {
			return
		}
		if p := w.holders[t]; p != nil && p.slot != 0 {
			return // it got its slot, or loses it, in this tick
		}
		c = &candidate{target: t}
		w.candidates[t] = c
	}
	c.score += weight
	c.samples++
}

// promote gives slots to the largest candidates: free ones, of which hosts leave some for networks, or those of
// targets that are much smaller.
func (w *windowTable) promote() {
	var ready []*candidate
	for _, c := range w.candidates {
		// Of a network that is watched in part only the part's hosts get slots, unless SetTargets gave it one.
		if c.score >= promoteScore && c.samples >= promoteSamples && w.protected.LookupPrefix(c.target.Prefix) {
			ready = append(ready, c)
		}
	}
	slices.SortFunc(ready, func(a, b *candidate) int {
		return cmp.Or(cmp.Compare(b.score, a.score), traffic.ComparePrefixes(a.target.Prefix, b.target.Prefix))
	})
	coming, evictions := w.coming(), 1+w.stats.Slots/16
	for _, c := range ready {
		reserve := 0
		if c.target.Scope == traffic.TargetHost {
			reserve = w.stats.Slots / 16
		}
		switch {
		case len(w.free) > reserve:
			w.enter(c.target, c.score)
		case coming > 0:
			coming--
		case evictions > 0 && w.evict(c.score*(1-fade), w.ticks):
			evictions--
		default:
			w.stats.Unplaced++
		}
	}
}

// evict takes the slot of the smallest target that is not fixed, if one with `level` packets a tick is
// hysteresis times as large; 0: whatever it has. The slot is free after the next tick.
func (w *windowTable) evict(level float64, last uint32) bool {
	var least *holder
	for _, p := range w.bySlot {
		if p == nil || p.fixed || p.leaving || level != 0 && p.age < leastTicks {
			continue
		}
		if least == nil || p.level < least.level {
			least = p
		}
	}
	if least == nil || level != 0 && level < hysteresis*least.level {
		return false
	}
	w.leave(least, last)
	return true
}
