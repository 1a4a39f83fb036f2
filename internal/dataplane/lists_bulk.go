// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sort"

	"github.com/gaissmai/bart"

	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// item is a prefix with what the lists themselves say of it. Slices of items are
// sorted, IPv4 first, a prefix before those in it.
type item struct {
	prefix netip.Prefix
	own    source
}

func itemsOf(sources *bart.Table[source]) []item {
	items := make([]item, 0, sources.Size())
	for prefix, own := range sources.AllSorted() {
		items = append(items, item{prefix, own})
	}
	return items
}

// families parts items into those of IPv4 and of IPv6.
func families(items []item) (items4, items6 []item) {
	n := sort.Search(len(items), func(i int) bool { return items[i].prefix.Addr().Is6() })
	return items[:n], items[n:]
}

// others returns what all lists but one say.
func (p *Plane) others(list traffic.List) (items []item) {
	for prefix, own := range p.sources.All() {
		if own.set(list, 0, false); !own.empty() {
			items = append(items, item{prefix, own})
		}
	}
	slices.SortFunc(items, func(a, b item) int { return traffic.ComparePrefixes(a.prefix, b.prefix) })
	return items
}

// with returns items with the entries of a list among them; of two for one prefix the later counts.
func (p *Plane) with(items []item, list traffic.List, entries []traffic.Entry) []item {
	until := p.clock()
	out := make([]item, 0, len(items)+len(entries))
	for e := range inOrder(entries) {
		for len(items) > 0 && traffic.ComparePrefixes(items[0].prefix, e.Prefix) < 0 {
			out, items = append(out, items[0]), items[1:]
		}
		switch last := len(out) - 1; {
		case len(items) > 0 && items[0].prefix == e.Prefix:
			out, items = append(out, items[0]), items[1:]
		case last < 0 || out[last].prefix != e.Prefix:
			out = append(out, item{prefix: e.Prefix})
		}
		out[len(out)-1].own.set(list, until(e.Expires), e.Forced)
	}
	return append(out, items...)
}

// inOrder yields entries in the order of their prefixes, equal ones in their own order.
func inOrder(entries []traffic.Entry) func(yield func(*traffic.Entry) bool) {
	var order []int32
	if !slices.IsSortedFunc(entries, func(a, b traffic.Entry) int { return traffic.ComparePrefixes(a.Prefix, b.Prefix) }) {
		order = traffic.Order(len(entries), func(i int) netip.Prefix { return entries[i].Prefix })
	}
	return func(yield func(*traffic.Entry) bool) {
		for i := range entries {
			if order != nil {
				i = int(order[i])
			}
			if !yield(&entries[i]) {
				return
			}
		}
	}
}

// without returns what the lists say without prefixes of one of them.
func (p *Plane) without(list traffic.List, prefixes []netip.Prefix) []item {
	gone := make(map[netip.Prefix]bool, len(prefixes))
	for _, prefix := range prefixes {
		gone[prefix] = true
	}
	items := itemsOf(p.sources)
	for i := range items {
		if gone[items[i].prefix] {
			items[i].own.set(list, 0, false)
		}
	}
	return slices.DeleteFunc(items, func(i item) bool { return i.own.empty() })
}

// exchange puts items in force in place of all there is, in one step. The caller holds mu.
func (p *Plane) exchange(items []item) error {
	items4, items6 := families(items)
	if err := p.checkSize(len(items4), len(items6)); err != nil {
		return err
	}
	tree := make(chan *bart.Table[source], 1)
	go func() { // half the work, and there may be a second CPU
		next := &bart.Table[source]{}
		for i := range items {
			next.Insert(items[i].prefix, items[i].own)
		}
		tree <- next
	}()
	t, err := p.sharedTable(items)
	next := <-tree
	if err != nil {
		return err
	}
	return p.install(t, next)
}

// rebuild builds the tables anew from what the lists say already. The caller holds mu.
func (p *Plane) rebuild() error {
	if err := p.checkSize(p.sources.Size4(), p.sources.Size6()); err != nil {
		return err
	}
	t, err := p.sharedTable(itemsOf(p.sources))
	if err != nil {
		return err
	}
	return p.install(t, p.sources)
}

func (p *Plane) sharedTable(items []item) (*table, error) {
	t, err := buildTable(items)
	if err == nil {
		err = t.share(p.spec.Maps[bpfMapLists].InnerMap)
	}
	if err != nil {
		return nil, fmt.Errorf("build lists: %w", err)
	}
	t.changed = p.listChanged
	return t, nil
}

func (p *Plane) install(t *table, next *bart.Table[source]) error {
	if err := p.swap(t, next); err != nil {
		return errors.Join(fmt.Errorf("put lists in place: %w", err), t.close())
	}
	return nil
}
