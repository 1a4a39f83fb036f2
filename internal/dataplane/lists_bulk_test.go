// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// TestBulkChanges: many entries at once, in any order and some twice, mean what they would one by one.
func TestBulkChanges(t *testing.T) {
	r := rand.New(rand.NewPCG(13, 14))
	p := newTester(t, Options{})
	model := map[netip.Prefix]source{}
	lists := []traffic.List{traffic.ListBlock, traffic.ListAllow, traffic.ListProtected}
	set := func(prefix netip.Prefix, list traffic.List, until uint64, forced bool) {
		s := model[prefix]
		s.set(list, until, forced)
		if model[prefix] = s; s.empty() {
			delete(model, prefix)
		}
	}
	for range 40 {
		list := lists[r.IntN(len(lists))]
		var entries []traffic.Entry
		var prefixes []netip.Prefix
		for range maxLive + 1 + r.IntN(1000) {
			e := traffic.Entry{Prefix: randomPrefix(r), Forced: list == traffic.ListBlock && r.IntN(2) == 0}
			entries, prefixes = append(entries, e), append(prefixes, e.Prefix)
		}
		var err error
		switch r.IntN(3) {
		case 0:
			for prefix := range model {
				set(prefix, list, 0, false)
			}
			err = p.Replace(list, entries)
		case 1:
			err = p.Put(list, entries)
		default:
			err = p.Remove(list, prefixes)
			for _, prefix := range prefixes {
				set(prefix, list, 0, false)
			}
			entries = nil
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			set(e.Prefix, list, never, e.Forced)
		}
		if n := p.sources.Size(); n != len(model) {
			t.Fatalf("%d prefixes, want %d", n, len(model))
		}
		for prefix, own := range p.sources.All() {
			if own != model[prefix] {
				t.Fatalf("%v is %v, want %v", prefix, own, model[prefix])
			}
		}
		for range 200 {
			checkAddr(t, p, randomProbe(r))
		}
	}
}
