// SPDX-License-Identifier: Apache-2.0

package mitigate

import (
	"container/heap"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// changes holds the new slots of a change, by list; an empty slot is gone.
type changes map[traffic.List]map[netip.Prefix]slot

func newChanges() changes {
	return changes{traffic.ListBlock: {}, traffic.ListAllow: {}}
}

// change is what a commit does to one list. The slots of the list stay as they
// are until the commit has succeeded.
type change struct {
	list          traffic.List
	before, after map[netip.Prefix]slot // after: those that change, an empty slot is gone
	steps         []step                // of after, in the order of the prefixes
	all           []step                // see remaining
}

// step is what changes for one prefix. A million of them are sorted once, and
// then are much faster to go through than the maps.
type step struct {
	prefix        netip.Prefix
	before, after slot
}

func (l *Ledger) plan(c changes) []*change {
	var plan []*change
	for _, list := range slices.Sorted(maps.Keys(c)) {
		before, after := l.lists[list], c[list]
		steps := make([]step, 0, len(after))
		for p, s := range after {
			steps = append(steps, step{p, before[p], s})
		}
		plan = append(plan, &change{list: list, before: before, after: after, steps: inOrder(steps)})
	}
	return plan
}

func inOrder(steps []step) []step {
	out := make([]step, len(steps))
	for i, at := range traffic.Order(len(steps), func(i int) netip.Prefix { return steps[i].prefix }) {
		out[i] = steps[at]
	}
	return out
}

// remaining returns, sorted, all prefixes of the list, those that do not change
// included; after is empty for those that go.
func (c *change) remaining() []step {
	if c.all != nil {
		return c.all
	}
	c.all = slices.Clip(c.steps)
	known := 0
	for _, s := range c.steps {
		if !s.before.empty() {
			known++
		}
	}
	if known == len(c.before) {
		return c.all
	}
	for p, s := range c.before {
		if _, changes := c.after[p]; !changes {
			c.all = append(c.all, step{p, s, s})
		}
	}
	c.all = inOrder(c.all)
	return c.all
}

// entries returns the list after the change, in the order of the prefixes.
func (c *change) entries() []traffic.Entry {
	n := 0
	for _, s := range c.remaining() {
		if !s.after.empty() {
			n++
		}
	}
	entries := make([]traffic.Entry, 0, n)
	for _, s := range c.remaining() {
		if !s.after.empty() {
			entries = append(entries, s.after.entry(s.prefix))
		}
	}
	return entries
}

// commit makes the changes in the packet path, then in the journal, then here.
// If one step fails, those before it are undone. With whole, the packet path
// exchanges each list in one step instead of taking the differences.
func (l *Ledger) commit(c changes, whole bool) error {
	var undo []func() error
	plan := l.plan(c)
	for _, c := range plan {
		back, err := l.enforce(c, whole)
		if err != nil {
			return l.rollback(fmt.Errorf("change the %s list of the packet path: %w", c.list, err), undo)
		}
		if back != nil {
			undo = append(undo, func() error {
				err := back()
				l.behind[c.list] = l.behind[c.list] || err != nil
				return err
			})
		}
	}
	if err := l.journal.write(plan); err != nil {
		return l.rollback(err, undo)
	}
	for _, c := range plan {
		l.remember(c)
	}
	if l.ends.Len() > 2*(len(l.lists[traffic.ListBlock])+len(l.lists[traffic.ListAllow]))+64 {
		l.ends = l.endings()
	}
	return nil
}

func (l *Ledger) rollback(err error, undo []func() error) error {
	failed := false
	for _, back := range slices.Backward(undo) {
		if e := back(); e != nil {
			failed = true
			err = errors.Join(err, e)
		}
	}
	if failed {
		return fmt.Errorf("the change was not made, but the packet path could not be put back and may differ until it is repaired, within seconds: %w", err)
	}
	return fmt.Errorf("nothing was changed: %w", err)
}

func (l *Ledger) remember(c *change) {
	slots := c.before
	if len(c.after) > len(slots) { // the fewer are copied
		slots = c.after
		for p, s := range c.before {
			if _, changes := slots[p]; !changes {
				slots[p] = s
			}
		}
	} else {
		maps.Copy(slots, c.after)
	}
	var ends []ending
	for i := range c.steps {
		p, s := c.steps[i].prefix, c.steps[i].after
		if s.empty() {
			delete(slots, p)
			delete(l.hits[c.list], p)
			continue
		}
		ends = appendEndings(ends, c.list, p, s)
	}
	if len(c.after) > len(slots)+manySlots { // a map does not shrink
		fitting := make(map[netip.Prefix]slot, len(slots))
		maps.Copy(fitting, slots)
		slots = fitting
	}
	l.lists[c.list] = slots
	l.ends.add(ends...)
}

// manySlots take room that is worth giving back.
const manySlots = 1024

// enforce changes one list of the packet path and returns what undoes that, nil
// if there was nothing to change.
func (l *Ledger) enforce(c *change, whole bool) (undo func() error, err error) {
	put, remove := c.count(step.forth)
	if put+remove == 0 {
		return nil, nil
	}
	if whole || put > 0 && remove > 0 {
		undo = func() error { return l.o.Enforcer.Replace(c.list, merged(c.before)) }
		return undo, l.o.Enforcer.Replace(c.list, c.entries())
	}
	undo = func() error { return c.delta(step.back).apply(l.o.Enforcer, c.list) }
	return undo, c.delta(step.forth).apply(l.o.Enforcer, c.list)
}

// delta is what the packet path must learn of a change to one list.
type delta struct {
	put    []traffic.Entry
	remove []netip.Prefix
}

func (d delta) apply(e Enforcer, list traffic.List) error {
	var err error
	if len(d.put) > 0 {
		err = e.Put(list, d.put)
	}
	if len(d.remove) > 0 {
		err = errors.Join(err, e.Remove(list, d.remove))
	}
	return err
}

func (s step) forth() (before, after slot) { return s.before, s.after }
func (s step) back() (before, after slot)  { return s.after, s.before }

// count says of how many prefixes the packet path must learn.
func (c *change) count(direction func(step) (before, after slot)) (put, remove int) {
	for i := range c.steps {
		b, a := direction(c.steps[i])
		switch puts, removes := c.steps[i].told(b, a); {
		case puts:
			put++
		case removes:
			remove++
		}
	}
	return put, remove
}

// delta returns what leads the packet path through the steps in a direction.
func (c *change) delta(direction func(step) (before, after slot)) (d delta) {
	put, remove := c.count(direction)
	d = delta{make([]traffic.Entry, 0, put), make([]netip.Prefix, 0, remove)}
	for i := range c.steps {
		b, a := direction(c.steps[i])
		switch puts, removes := c.steps[i].told(b, a); {
		case puts:
			d.put = append(d.put, a.entry(c.steps[i].prefix))
		case removes:
			d.remove = append(d.remove, c.steps[i].prefix)
		}
	}
	return d
}

// told returns what the packet path is told when slot b becomes a.
func (s step) told(b, a slot) (put, remove bool) {
	switch {
	case a.empty():
		return false, !b.empty()
	case b.empty():
		return true, false
	}
	return !sameVerdict(a.entry(s.prefix), b.entry(s.prefix)), false
}

// sameVerdict reports whether the packet path would not notice the difference.
func sameVerdict(a, b traffic.Entry) bool {
	return a.Forced == b.Forced && a.Expires.Equal(b.Expires)
}

// ending is a moment at which something on a list ends. It may be out of date:
// the list is what counts.
type ending struct {
	at     time.Time
	list   traffic.List
	prefix netip.Prefix
}

// endings is a heap, the soonest first.
type endings []ending

func (h endings) Len() int           { return len(h) }
func (h endings) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h endings) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }

// Push is for package heap; add is for others.
func (h *endings) Push(x any) { *h = append(*h, x.(ending)) }

// Pop is for package heap; due is for others.
func (h *endings) Pop() any {
	last := len(*h) - 1
	e := (*h)[last]
	*h = (*h)[:last]
	return e
}

// add notes endings.
func (h *endings) add(all ...ending) {
	if len(all) > h.Len()/8 {
		*h = append(*h, all...)
		heap.Init(h)
		return
	}
	for _, e := range all {
		heap.Push(h, e)
	}
}

// appendEndings appends when the wishes for a prefix end; never (zero) needs no ending.
func appendEndings(all []ending, list traffic.List, p netip.Prefix, s slot) []ending {
	for _, w := range [...]*wish{s.own, s.config} {
		if w != nil && !w.expires.IsZero() {
			all = append(all, ending{w.expires, list, p})
		}
	}
	return all
}

// due takes out what has ended.
func (h *endings) due(now time.Time) []ending {
	var due []ending
	for h.Len() > 0 && ended((*h)[0].at, now) {
		due = append(due, heap.Pop(h).(ending))
	}
	return due
}

// endings collects the moments anew, without those that are out of date.
func (l *Ledger) endings() endings {
	var h endings
	for list, slots := range l.lists {
		for p, s := range slots {
			h = appendEndings(h, list, p, s)
		}
	}
	heap.Init(&h)
	return h
}
