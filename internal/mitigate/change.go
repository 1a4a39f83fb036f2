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

// commit makes the changes in the packet path, then in the journal, then here.
// If one step fails, those before it are undone. With whole, the packet path
// exchanges each list in one step instead of taking the differences.
func (l *Ledger) commit(c changes, whole bool) error {
	var undo []func() error
	for _, list := range slices.Sorted(maps.Keys(c)) {
		back, err := l.enforce(list, c[list], whole)
		if err != nil {
			return l.rollback(fmt.Errorf("change the %s list of the packet path: %w", list, err), undo)
		}
		if back != nil {
			undo = append(undo, func() error {
				err := back()
				l.behind[list] = l.behind[list] || err != nil
				return err
			})
		}
	}
	if err := l.journal.write(c, l.lists); err != nil {
		return l.rollback(err, undo)
	}
	for list, slots := range c {
		for p, s := range slots {
			l.remember(list, p, s)
		}
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

func (l *Ledger) remember(list traffic.List, p netip.Prefix, s slot) {
	if s.empty() {
		delete(l.lists[list], p)
		delete(l.hits[list], p)
		return
	}
	l.lists[list][p] = s
	for _, w := range []*wish{s.own, s.config} {
		if w != nil {
			l.ends.add(ending{w.expires, list, p})
		}
	}
}

// enforce changes one list of the packet path and returns what undoes that, nil
// if there was nothing to change.
func (l *Ledger) enforce(list traffic.List, after map[netip.Prefix]slot, whole bool) (undo func() error, err error) {
	before := l.lists[list]
	forth, back := differences(before, after)
	if forth.empty() {
		return nil, nil
	}
	if whole || forth.mixed() {
		next := maps.Clone(before)
		for p, s := range after {
			next[p] = s
			if s.empty() {
				delete(next, p)
			}
		}
		undo = func() error { return l.o.Enforcer.Replace(list, merged(before)) }
		return undo, l.o.Enforcer.Replace(list, merged(next))
	}
	return func() error { return back.apply(l.o.Enforcer, list) }, forth.apply(l.o.Enforcer, list)
}

// delta is what the packet path must learn of a change to one list.
type delta struct {
	put    []traffic.Entry
	remove []netip.Prefix
}

func (d delta) empty() bool { return len(d.put)+len(d.remove) == 0 }
func (d delta) mixed() bool { return len(d.put) > 0 && len(d.remove) > 0 }

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

// differences returns what leads the packet path from the slots before to the
// changed ones, and back.
func differences(before, changed map[netip.Prefix]slot) (forth, back delta) {
	for _, p := range slices.SortedFunc(maps.Keys(changed), netip.Prefix.Compare) {
		b, a := before[p], changed[p]
		switch {
		case a.empty() && b.empty():
		case a.empty():
			forth.remove = append(forth.remove, p)
			back.put = append(back.put, b.entry(p))
		case b.empty():
			forth.put = append(forth.put, a.entry(p))
			back.remove = append(back.remove, p)
		case !sameVerdict(a.entry(p), b.entry(p)):
			forth.put = append(forth.put, a.entry(p))
			back.put = append(back.put, b.entry(p))
		}
	}
	return forth, back
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

// add notes an ending; never (zero) needs none.
func (h *endings) add(e ending) {
	if !e.at.IsZero() {
		heap.Push(h, e)
	}
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
			for _, w := range []*wish{s.own, s.config} {
				if w != nil {
					h.add(ending{w.expires, list, p})
				}
			}
		}
	}
	return h
}
