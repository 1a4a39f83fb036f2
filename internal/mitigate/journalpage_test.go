// SPDX-License-Identifier: Apache-2.0

package mitigate

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	bolt "go.etcd.io/bbolt"

	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// manyEntries returns n entries of both families, some with the same wishes, out of order.
func manyEntries(r *rand.Rand, n int) []traffic.Entry {
	entries := make([]traffic.Entry, 0, n)
	for i := range n {
		a := netip.AddrFrom4([4]byte{192, 0, byte(i >> 8), byte(i)})
		if i%3 == 0 {
			a = netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 14: byte(i >> 8), 15: byte(i)})
		}
		e := traffic.Entry{Prefix: single(a)}
		switch r.IntN(4) {
		case 0:
			e.Comment = fmt.Sprintf("comment %d", r.IntN(3))
		case 1:
			e.Expires = start.Add(time.Hour + time.Duration(r.IntN(1e9)))
		}
		entries = append(entries, e)
	}
	r.Shuffle(n, func(i, j int) { entries[i], entries[j] = entries[j], entries[i] })
	return entries
}

func (b *bench) again(t *testing.T) {
	t.Helper()
	mustDo(t, b.Close())
	b.enforcer = newEnforcer()
	b.open(t)
	mustDo(t, b.Restore())
	b.check(t)
}

// What many changes write as pages and few as single entries over them reads back
// as it was, whatever the order of changes.
func TestPagesAndSingleEntries(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	b := newBench(t, 10_000)
	all := manyEntries(r, 2500)
	mustAdd(t, b, block, all...)
	mustDo(t, b.SetProtected([]Protected{{Prefix: netip.MustParsePrefix("192.0.9.0/24"), Why: "test"}}))
	for range 12 {
		some := slices.Clone(all[:1+r.IntN(4)])
		r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		for i := range some {
			some[i].Comment = fmt.Sprintf("change %d", r.IntN(100))
		}
		switch r.IntN(8) {
		case 0, 1, 2:
			_, err := b.Add(block, some, AddOptions{Force: true})
			mustDo(t, err)
		case 3:
			_, err := b.Add(block, all[:1500], AddOptions{Force: true})
			mustDo(t, err)
		case 4:
			_, err := b.Add(block, all[:1200+r.IntN(1000)], AddOptions{Force: true, Replace: true})
			mustDo(t, err)
		default:
			_, _, err := b.Delete(block, []netip.Prefix{some[0].Prefix, all[0].Prefix})
			mustDo(t, err)
		}
		b.check(t)
		if r.IntN(6) == 0 {
			b.again(t)
		}
	}
	_, err := b.Flush(block)
	mustDo(t, err)
	b.again(t)
	wantEntries(t, b, block)
}

// The first, the last and those where pages meet can be taken off one by one.
func TestDeleteFromPages(t *testing.T) {
	b := newBench(t, 10_000)
	mustAdd(t, b, block, manyEntries(rand.New(rand.NewPCG(5, 6)), 2*pageEntries+1)...)
	listed := b.Entries(block)
	last := len(listed) - 1
	for _, i := range []int{0, pageEntries - 1, pageEntries, 2*pageEntries - 1, last} {
		_, missing, err := b.Delete(block, []netip.Prefix{listed[i].Prefix})
		if err != nil || len(missing) > 0 {
			t.Fatalf("entry %d: %v, %v", i, missing, err)
		}
		b.again(t)
	}
	if n := b.Count(block); n != last+1-5 {
		t.Errorf("%d entries left of %d", n, last+1)
	}
	mustAdd(t, b, block, listed[0])
	mustAdd(t, b, block, entry("203.0.113.9/32"))
	_, _, err := b.Delete(block, []netip.Prefix{netip.MustParsePrefix("203.0.113.9/32")})
	mustDo(t, err)
	mustDo(t, b.journal.db.View(func(tx *bolt.Tx) error {
		if n := tx.Bucket(bucketOf(block)).Stats().KeyN; n != 5 { // four taken off, one back
			t.Errorf("%d single entries in the journal, want 5", n)
		}
		return nil
	}))
	b.again(t)
}

// A journal of the first versions is read, and a large change makes pages of it.
func TestSinglesBecomePages(t *testing.T) {
	b := newBench(t, 10_000)
	mustAdd(t, b, block, entry("198.51.100.0/24", "old", time.Hour))
	mustAdd(t, b, allow, entry("203.0.113.1/32"))
	schema := func() (s string) {
		mustDo(t, b.journal.db.View(func(tx *bolt.Tx) error {
			s = string(tx.Bucket(metaBucket).Get(schemaKey))
			return nil
		}))
		return s
	}
	if got := schema(); got != schemaSingles {
		t.Errorf("a journal without pages has schema %s", got)
	}
	b.again(t)
	mustAdd(t, b, block, manyEntries(rand.New(rand.NewPCG(7, 8)), 2000)...)
	if got := schema(); got != schemaPages {
		t.Errorf("a journal with pages has schema %s", got)
	}
	b.again(t)
	want := []string{"198.51.100.0/24 operator until +1h0m0s # old"}
	if diff := cmp.Diff(want, describe([]traffic.Entry{b.Find(netip.MustParseAddr("198.51.100.1"))[0].Entry})); diff != "" {
		t.Error(diff)
	}
	wantEntries(t, b, allow, "203.0.113.1/32 operator")
}

// Of many entries with the same prefix the last counts; a failure leaves all as it was.
func TestManyEntriesAreOneChange(t *testing.T) {
	b := newBench(t, 10_000)
	r := rand.New(rand.NewPCG(9, 10))
	mustAdd(t, b, block, entry("192.0.0.1/32", "before"))
	many := manyEntries(r, 3000)
	twice := append(slices.Clone(many), entry("192.0.0.2/32", "earlier"), entry("192.0.0.2/32", "later"))
	before := state(b)

	for _, o := range []AddOptions{{}, {Replace: true}} {
		b.enforcer.failFrom, b.enforcer.failures = b.enforcer.calls+1, 1
		if _, err := b.Add(block, twice, o); !errors.Is(err, errEnforcer) {
			t.Errorf("the packet path fails: %v", err)
		}
		bad := append(slices.Clone(twice), entry("192.0.2.0/24", -time.Hour))
		if _, err := b.Add(block, bad, o); err == nil {
			t.Error("an expired entry among many is taken")
		}
		db := b.journal.db
		mustDo(t, db.Close())
		if _, err := b.Add(block, twice, o); err == nil {
			t.Error("the journal is closed, and the entries are taken")
		}
		l, err := openJournal(b.path)
		mustDo(t, err)
		b.journal = l
		if diff := cmp.Diff(before, state(b)); diff != "" {
			t.Errorf("after failures: %s", diff)
		}
		b.check(t)
	}

	mustAdd(t, b, block, twice...)
	b.again(t)
	if m := b.Find(netip.MustParseAddr("192.0.0.2")); len(m) != 1 || m[0].Entry.Comment != "later" {
		t.Errorf("found %+v", m)
	}
	if n := b.Count(block); n != 3000 {
		t.Errorf("%d entries, want 3000", n)
	}
}

// A page that is not as it was written is refused, wherever it was changed.
func TestDamagedPage(t *testing.T) {
	b := newBench(t, 10_000)
	mustAdd(t, b, block, manyEntries(rand.New(rand.NewPCG(11, 12)), 1100)...)
	mustDo(t, b.Close())
	good, err := os.ReadFile(b.path)
	mustDo(t, err)
	b.open(t)
	for n := range 40 {
		path := filepath.Join(t.TempDir(), "journal.db")
		mustDo(t, os.WriteFile(path, bytes.Clone(good), 0o600))
		db, err := bolt.Open(path, 0o600, nil)
		mustDo(t, err)
		mustDo(t, db.Update(func(tx *bolt.Tx) error {
			pages := tx.Bucket(pagesOf(block))
			key, value := pages.Cursor().First()
			value = bytes.Clone(value)
			if n%2 == 0 {
				value = value[:n*len(value)/40]
			} else {
				value[n*len(value)/40] ^= 1 << (n % 8)
			}
			return pages.Put(key, value)
		}))
		mustDo(t, db.Close())
		if _, err := openAt(path); err == nil || !strings.Contains(err.Error(), "is cut short or was changed") {
			t.Fatalf("change %d: %v", n, err)
		}
	}
}
