// SPDX-License-Identifier: Apache-2.0

package mitigate

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sentinel-x/sentinel-x/internal/signature"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

var start = time.Date(2030, 1, 31, 12, 0, 0, 0, time.UTC)

var errEnforcer = errors.New("the enforcer fails")

// fakeEnforcer keeps lists as the packet path would. Calls fail, all or nothing,
// from failFrom (counted from 1) on, failures times.
type fakeEnforcer struct {
	mu                        sync.Mutex
	lists                     [traffic.NumLists]map[netip.Prefix]verdict
	calls, failFrom, failures int
	signatures                []signature.Armed
	refuse                    string // text of a rule that the packet path does not take
}

// verdict is what the packet path knows of an entry.
type verdict struct {
	expires time.Time
	forced  bool
}

func newEnforcer() *fakeEnforcer {
	f := &fakeEnforcer{}
	for i := range f.lists {
		f.lists[i] = map[netip.Prefix]verdict{}
	}
	return f
}

func (f *fakeEnforcer) call(entries []traffic.Entry) error {
	f.calls++
	if f.failFrom > 0 && f.calls >= f.failFrom && f.failures > 0 {
		f.failures--
		return errEnforcer
	}
	for _, e := range entries {
		if err := checkPrefix(e.Prefix); err != nil {
			return err
		}
	}
	return nil
}

func (f *fakeEnforcer) Put(list traffic.List, entries []traffic.Entry) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.call(entries); err != nil {
		return err
	}
	for _, e := range entries {
		f.lists[list][e.Prefix] = verdict{e.Expires, e.Forced}
	}
	return nil
}

func (f *fakeEnforcer) Remove(list traffic.List, prefixes []netip.Prefix) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.call(nil); err != nil {
		return err
	}
	for _, p := range prefixes {
		delete(f.lists[list], p)
	}
	return nil
}

func (f *fakeEnforcer) Replace(list traffic.List, entries []traffic.Entry) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.call(entries); err != nil {
		return err
	}
	f.lists[list] = map[netip.Prefix]verdict{}
	for _, e := range entries {
		f.lists[list][e.Prefix] = verdict{e.Expires, e.Forced}
	}
	return nil
}

func (f *fakeEnforcer) SetSignatures(armed []signature.Armed) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.call(nil); err != nil {
		return err
	}
	for _, s := range armed {
		if f.refuse != "" && s.Text == f.refuse {
			return fmt.Errorf("%w: %s", errEnforcer, s.Text)
		}
	}
	f.signatures = slices.Clone(armed)
	return nil
}

// bench is a ledger with its surroundings.
type bench struct {
	*Ledger
	enforcer *fakeEnforcer
	path     string
	now      time.Time
	max      int
}

func newBench(t testing.TB, max int) *bench {
	t.Helper()
	b := &bench{enforcer: newEnforcer(), path: filepath.Join(t.TempDir(), "state", "journal.db"), now: start, max: max}
	b.open(t)
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func (b *bench) open(t testing.TB) {
	t.Helper()
	l, err := Open(Options{Path: b.path, Enforcer: b.enforcer, MaxEntries: b.max, Now: func() time.Time { return b.now }})
	if err != nil {
		t.Fatal(err)
	}
	b.Ledger = l
}

func entry(prefix string, more ...any) traffic.Entry {
	e := traffic.Entry{Prefix: netip.MustParsePrefix(prefix)}
	for _, m := range more {
		switch m := m.(type) {
		case time.Duration:
			e.Expires = start.Add(m)
		case string:
			e.Comment = m
		}
	}
	return e
}

func mustAdd(t testing.TB, b *bench, list traffic.List, entries ...traffic.Entry) Result {
	t.Helper()
	r, err := b.Add(list, entries, AddOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func mustDo(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// describe writes entries in one line each, for comparisons.
func describe(entries []traffic.Entry) []string {
	lines := []string{}
	for _, e := range entries {
		line := fmt.Sprintf("%s %s", e.Prefix, e.Origin)
		if !e.Expires.IsZero() {
			line += fmt.Sprintf(" until +%s", e.Expires.Sub(start))
		}
		if e.Forced {
			line += " forced"
		}
		if !e.Created.Equal(start) {
			line += fmt.Sprintf(" since +%s", e.Created.Sub(start))
		}
		if e.Comment != "" {
			line += " # " + e.Comment
		}
		lines = append(lines, line)
	}
	return lines
}

func wantEntries(t testing.TB, b *bench, list traffic.List, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, describe(b.Entries(list)), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("%s list (-want +got):\n%s", list, diff)
	}
	b.check(t)
}

// check compares the enforcer, and what another process would find in the
// journal, with what the ledger holds.
func (b *bench) check(t testing.TB) {
	t.Helper()
	b.checkSignatures(t)
	for _, list := range []traffic.List{traffic.ListBlock, traffic.ListAllow} {
		want := map[netip.Prefix]verdict{}
		journalled := map[netip.Prefix]wish{}
		for p, s := range b.lists[list] {
			e := s.entry(p)
			want[p] = verdict{e.Expires, e.Forced}
			if s.own != nil {
				journalled[p] = *s.own
			}
		}
		if diff := cmp.Diff(want, b.enforcer.lists[list], cmp.AllowUnexported(verdict{}), prefixes); diff != "" {
			t.Errorf("%s list: -ledger +enforcer:\n%s", list, diff)
		}
		got := map[netip.Prefix]wish{}
		mustDo(t, b.journal.read(func(l traffic.List, p netip.Prefix, w *wish) {
			switch {
			case l != list:
			case w == nil:
				delete(got, p)
			default:
				got[p] = *w
			}
		}))
		if diff := cmp.Diff(journalled, got, cmp.AllowUnexported(wish{}), prefixes); diff != "" {
			t.Errorf("%s list: -ledger +journal:\n%s", list, diff)
		}
	}
}

func (b *bench) checkSignatures(t testing.TB) {
	t.Helper()
	if diff := cmp.Diff(b.enforced(b.signatures), b.enforcer.signatures, prefixes, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("signatures: -ledger +enforcer:\n%s", diff)
	}
	journalled, last, err := b.journal.readSignatures()
	mustDo(t, err)
	if diff := cmp.Diff(b.signatures, journalled, prefixes, cmpopts.EquateEmpty()); diff != "" || last > b.lastSignature {
		t.Errorf("signatures: last ID %d in the journal, %d in the ledger; -ledger +journal:\n%s", last, b.lastSignature, diff)
	}
}

var prefixes = cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })

func prefixList(s ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range s {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}

func keysOf[V any](m map[netip.Prefix]V) []string {
	var out []string
	for _, p := range slices.SortedFunc(maps.Keys(m), netip.Prefix.Compare) {
		out = append(out, p.String())
	}
	return out
}
