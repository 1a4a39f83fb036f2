// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/gaissmai/bart"
	"golang.org/x/sys/unix"

	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// ErrFull is returned by Put and Replace when the entries do not fit; nothing was changed.
var ErrFull = errors.New("list is full")

const never = ^uint64(0)

// source is what each list itself says of one prefix, as times of the program's
// clock: 0 not listed, never-ending ^0. Covering prefixes are not folded in.
type source bpfSourceValue

func (s source) empty() bool { return s == source{} }

// fold returns the later end of both for each list.
func (s source) fold(o source) source {
	return source{
		Blocked: max(s.Blocked, o.Blocked), Forced: max(s.Forced, o.Forced),
		Allowed: max(s.Allowed, o.Allowed), Protected: max(s.Protected, o.Protected),
	}
}

// set writes one entry of a list, or takes it off with until 0.
func (s *source) set(list traffic.List, until uint64, forced bool) {
	switch list {
	case traffic.ListAllow:
		s.Allowed = until
	case traffic.ListProtected:
		s.Protected = until
	case traffic.ListBlock:
		s.Blocked, s.Forced = until, 0
		if forced {
			s.Forced = until
		}
	}
}

// clock returns what turns the end of an entry into the program's clock: CLOCK_MONOTONIC, which
// no change of the wall clock moves, or, in replay, the capture's own. Entries that
// end together do so to the nanosecond, and share a verdict.
func (p *Plane) clock() func(expires time.Time) uint64 {
	now, mono := time.Now(), int64(monotonic())
	return func(expires time.Time) uint64 {
		switch {
		case expires.IsZero():
			return never
		case p.replay:
			return uint64(max(1, expires.UnixNano()))
		}
		return uint64(max(1, mono+int64(expires.Sub(now))))
	}
}

func monotonic() uint64 {
	var ts unix.Timespec
	// It fails for an unknown clock or a bad pointer only.
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return uint64(ts.Nano())
}

// Put adds entries to a list; one whose prefix is on it already is overwritten. All
// or nothing. Up to 1024 of them change in place, each in one step, one after the
// other; more take effect together.
func (p *Plane) Put(list traffic.List, entries []traffic.Entry) error {
	if err := checkEntries(entries); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(entries) > maxLive {
		return p.exchange(p.with(itemsOf(p.sources), list, entries))
	}
	if err := p.checkRoom(entries); err != nil {
		return err
	}
	until := p.clock()
	return p.apply(len(entries), func(i int) (netip.Prefix, source) {
		e := entries[i]
		s, _ := p.sources.Get(e.Prefix)
		s.set(list, until(e.Expires), e.Forced)
		return e.Prefix, s
	})
}

// Remove takes prefixes off a list; those that are not on it are ignored. All or nothing, as with Put.
func (p *Plane) Remove(list traffic.List, prefixes []netip.Prefix) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	without := func(prefix netip.Prefix) source {
		s, _ := p.sources.Get(prefix)
		s.set(list, 0, false)
		return s
	}
	if len(prefixes) > maxLive {
		return p.exchange(p.without(list, prefixes))
	}
	return p.apply(len(prefixes), func(i int) (netip.Prefix, source) { return prefixes[i], without(prefixes[i]) })
}

// Replace puts a whole list in place of another in one step: no packet sees a mixture.
func (p *Plane) Replace(list traffic.List, entries []traffic.Entry) error {
	if err := checkEntries(entries); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.exchange(p.with(p.others(list), list, entries))
}

// enter makes s what the lists say of a prefix.
func enter(t *bart.Table[source], prefix netip.Prefix, s source) {
	if s.empty() {
		t.Delete(prefix)
	} else {
		t.Insert(prefix, s)
	}
}

func checkEntries(entries []traffic.Entry) error {
	for _, e := range entries {
		switch {
		case !e.Prefix.IsValid(), e.Prefix != e.Prefix.Masked():
			return fmt.Errorf("prefix %v: not a masked prefix", e.Prefix)
		case e.Prefix.Addr().Is4In6():
			return fmt.Errorf("prefix %v: IPv4-mapped IPv6 never appears on the wire, use the IPv4 prefix", e.Prefix)
		}
	}
	return nil
}

// checkRoom refuses before anything is touched.
func (p *Plane) checkRoom(entries []traffic.Entry) error {
	seen := make(map[netip.Prefix]bool, len(entries))
	size := [2]int{p.sources.Size4(), p.sources.Size6()}
	for _, e := range entries {
		if _, ok := p.sources.Get(e.Prefix); ok || seen[e.Prefix] {
			continue
		}
		seen[e.Prefix] = true
		if e.Prefix.Addr().Is4() {
			size[0]++
		} else {
			size[1]++
		}
	}
	return p.checkSize(size[0], size[1])
}

func (p *Plane) checkSize(size4, size6 int) error {
	if n := max(size4, size6); n > p.o.MaxEntries {
		return fmt.Errorf("%w: %d prefixes of one address family, %d fit", ErrFull, n, p.o.MaxEntries)
	}
	return nil
}

// edit is what the lists say, or said, of a prefix.
type edit struct {
	prefix netip.Prefix
	own    source
}

// apply makes n changes in memory and for the packet path, one after the other, or none of them.
func (p *Plane) apply(n int, change func(i int) (netip.Prefix, source)) error {
	before := make([]edit, 0, n)
	grow := false
	for i := range n {
		prefix, own := change(i)
		old, _ := p.sources.Get(prefix)
		if own == old {
			continue
		}
		before = append(before, edit{prefix, old})
		enter(p.sources, prefix, own)
		if own.empty() {
			p.lists.removed++
		}
		if grow {
			continue
		}
		switch err := p.lists.update(p.sources, prefix); {
		case errors.Is(err, errGrow):
			grow = true
		case err != nil:
			return errors.Join(err, p.undo(before))
		}
	}
	err := p.follow(grow)
	if err != nil {
		err = errors.Join(err, p.undo(before))
	}
	return err
}

// follow builds the tables anew where that is due, and has them asked if there is anything in them.
func (p *Plane) follow(grow bool) error {
	if grow {
		return p.rebuild()
	}
	if p.lists.removed > p.sources.Size()+leastGarbage || p.lists.crowded() {
		p.lists.removed = 0
		if err := p.rebuild(); err != nil {
			p.log.Warn("the lists are right, but take more room or time than they need", "err", err)
		}
	}
	return p.setListed(p.sources.Size() > 0)
}

// leastGarbage: fewer removed prefixes are not worth building the tables anew.
const leastGarbage = 8192

// listChanged counts the version up with which readers tell whether a change passed them by. On CPUs
// that reorder stores, it must not pass those before and behind it.
func (p *Plane) listChanged() {
	p.fence.Add(1)
	p.listVersion++
	if err := p.objs.ListVersion.Set(p.listVersion); err != nil {
		p.log.Error("a packet may miss a change of the lists", "err", err)
	}
	p.fence.Add(1)
}

func (p *Plane) setListed(on bool) error {
	if p.knobs.Listed == toByte(on) {
		return nil
	}
	p.knobs.Listed = toByte(on)
	err := p.publish()
	if err != nil {
		p.knobs.Listed = toByte(!on)
	}
	return err
}

// undo takes back changes. What was there before has room.
func (p *Plane) undo(before []edit) error {
	var errs []error
	for _, e := range slices.Backward(before) {
		enter(p.sources, e.prefix, e.own)
		errs = append(errs, p.lists.update(p.sources, e.prefix))
	}
	return errors.Join(errs...)
}

// setKnown6 tells the packet path what it needs of the table in a slot before it asks it.
func (p *Plane) setKnown6(slot uint32, known uint64) error {
	var both [2]uint64
	if err := p.objs.ListKnown6.Get(&both); err != nil {
		return fmt.Errorf("read the classes of IPv6 prefixes: %w", err)
	}
	both[slot] = known
	if err := p.objs.ListKnown6.Set(&both); err != nil {
		return fmt.Errorf("write the classes of IPv6 prefixes: %w", err)
	}
	return nil
}

func (p *Plane) swap(t *table, next *bart.Table[source]) error {
	old := p.lists
	if old != nil {
		t.set.Slot = old.set.Slot ^ 1
	}
	t.tellKnown6 = func(known uint64) error { return p.setKnown6(t.set.Slot, known) }
	if err := t.tellKnown6(t.known6); err != nil {
		return err
	}
	if err := p.objs.Lists.Put(t.set.Slot, t.m); err != nil {
		return err
	}
	knobs := p.knobs
	p.knobs.Lists, p.knobs.Listed = t.set, toByte(next.Size() > 0)
	if err := p.publish(); err != nil {
		p.knobs = knobs
		return errors.Join(err, p.objs.Lists.Delete(t.set.Slot))
	}
	p.lists, p.sources = t, next
	if old == nil {
		return nil
	}
	awaitPackets() // those that began before still ask the old tables
	if err := errors.Join(p.objs.Lists.Delete(old.set.Slot), old.close()); err != nil {
		p.log.Warn("memory of the replaced lists is not free", "err", err)
	}
	return nil
}
