// SPDX-License-Identifier: Apache-2.0

package mitigate

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sentinel-x/sentinel-x/internal/signature"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// model is the ledger in the most naive way: a list of wishes, searched from
// one end to the other.
type model struct {
	max       int
	protected []Protected
	wishes    []modelWish
}

type modelWish struct {
	list   traffic.List
	config bool
	traffic.Entry
}

func (m *model) find(list traffic.List, p netip.Prefix, config bool) int {
	return slices.IndexFunc(m.wishes, func(w modelWish) bool { return w.list == list && w.Prefix == p && w.config == config })
}

func (m *model) count(list traffic.List) int {
	all := map[netip.Prefix]bool{}
	for _, w := range m.wishes {
		if w.list == list {
			all[w.Prefix] = true
		}
	}
	return len(all)
}

// set stores a wish and reports whether that is allowed.
func (m *model) set(list traffic.List, e traffic.Entry, config, force bool, now time.Time) bool {
	objection := e.Prefix.Bits() == 0
	for _, p := range m.protected {
		objection = objection || list == block && p.Prefix.Overlaps(e.Prefix)
	}
	if objection && !force || e.Expired(now) {
		return false
	}
	e.Forced, e.Created, e.Origin = objection && list == block, now, OriginOperator
	if config {
		e.Origin = OriginConfig
	}
	if i := m.find(list, e.Prefix, config); i >= 0 {
		e.Created = m.wishes[i].Created
		m.wishes[i].Entry = e
		return true
	}
	m.wishes = append(m.wishes, modelWish{list, config, e})
	return true
}

func (m *model) drop(match func(modelWish) bool) { m.wishes = slices.DeleteFunc(m.wishes, match) }

func (m *model) expire(now time.Time) {
	m.drop(func(w modelWish) bool { return w.Expired(now) })
}

// entries merges the wishes of each prefix.
func (m *model) entries(list traffic.List) []traffic.Entry {
	var out []traffic.Entry
	for _, w := range m.wishes {
		if w.list != list {
			continue
		}
		i := slices.IndexFunc(out, func(e traffic.Entry) bool { return e.Prefix == w.Prefix })
		if i < 0 {
			out = append(out, w.Entry)
			continue
		}
		a, c := out[i], w.Entry // operator, config
		if w.Origin == OriginOperator {
			a, c = c, a
		}
		merged := a
		merged.Origin = OriginOperator + "+" + OriginConfig
		merged.Forced = a.Forced || c.Forced
		if a.Expires.IsZero() || c.Expires.IsZero() {
			merged.Expires = time.Time{}
		} else if c.Expires.After(a.Expires) {
			merged.Expires = c.Expires
		}
		if c.Created.Before(a.Created) {
			merged.Created = c.Created
		}
		if merged.Comment == "" {
			merged.Comment = c.Comment
		}
		out[i] = merged
	}
	slices.SortFunc(out, func(a, b traffic.Entry) int { return a.Prefix.Compare(b.Prefix) })
	return out
}

// world runs the ledger and the model side by side.
type world struct {
	*bench
	m model
	r *rand.Rand
	// config is what the configuration file holds: a restart reads it again.
	config [2][]traffic.Entry
}

// prefix returns one of few prefixes, so that they meet often.
func (w *world) prefix() netip.Prefix {
	bits := []int{0, 8, 22, 23, 24, 24, 30, 32, 32, 32}[w.r.IntN(10)]
	addr := netip.AddrFrom4([4]byte{192, 0, byte(w.r.IntN(4)), byte(w.r.IntN(3))})
	if w.r.IntN(3) == 0 {
		bits *= 4
		addr = netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 15: byte(w.r.IntN(3))})
	}
	return netip.PrefixFrom(addr, bits).Masked()
}

func (w *world) entries(n int) []traffic.Entry {
	var out []traffic.Entry
	for range n {
		e := traffic.Entry{Prefix: w.prefix()}
		switch w.r.IntN(4) {
		case 0:
			e.Expires = w.now.Add(time.Duration(w.r.IntN(20)-1) * time.Second)
		case 1:
			e.Comment = fmt.Sprintf("comment %d", w.r.IntN(3))
		}
		out = append(out, e)
	}
	return out
}

func (w *world) list() traffic.List { return []traffic.List{block, allow}[w.r.IntN(2)] }

// try makes a change in the model if all of it is allowed, and says whether it was.
func (w *world) try(change func(m *model) bool) bool {
	next := w.m
	next.wishes = slices.Clone(w.m.wishes)
	if !change(&next) || next.count(block) > w.m.max || next.count(allow) > w.m.max {
		return false
	}
	w.m = next
	return true
}

// step does one random thing to both and compares whether it was allowed.
func (w *world) step(t *testing.T) (did string) {
	t.Helper()
	var allowed bool
	var err error
	switch k := w.r.IntN(20); {
	case k < 8:
		did, allowed, err = w.add()
	case k < 12:
		did, allowed, err = w.delete()
	case k < 14:
		did, allowed, err = w.setConfig()
	case k < 17:
		w.now = w.now.Add(time.Duration(w.r.IntN(3)) * time.Second)
		_, err = w.Expire()
		w.m.expire(w.now)
		did, allowed = "expire", true
	case k < 18:
		did, allowed, err = w.protect()
	case k < 19:
		list := w.list()
		w.m.drop(func(x modelWish) bool { return x.list == list && !x.config })
		_, err = w.Flush(list)
		did, allowed = "flush", true
	default:
		w.restart(t)
		did, allowed = "restart", true
	}
	if (err == nil) != allowed {
		t.Fatalf("%s: model allows %v, ledger says %v", did, allowed, err)
	}
	return did
}

func (w *world) add() (string, bool, error) {
	list, entries := w.list(), w.entries(w.r.IntN(4))
	o := AddOptions{Force: w.r.IntN(4) == 0, Skip: w.r.IntN(3) == 0, Replace: w.r.IntN(8) == 0}
	allowed := w.try(func(m *model) bool {
		given := map[netip.Prefix]bool{}
		for _, e := range entries {
			ok := m.set(list, e, false, o.Force, w.now)
			if !ok && !o.Skip {
				return false
			}
			given[e.Prefix] = given[e.Prefix] || ok
		}
		if o.Replace {
			m.drop(func(x modelWish) bool { return x.list == list && !x.config && !given[x.Prefix] })
		}
		return true
	})
	_, err := w.Add(list, entries, o)
	return fmt.Sprintf("add %v %v %+v", list, describe(entries), o), allowed, err
}

func (w *world) delete() (string, bool, error) {
	list, p := w.list(), w.prefix()
	if entries := w.m.entries(list); len(entries) > 0 && w.r.IntN(4) > 0 {
		p = entries[w.r.IntN(len(entries))].Prefix
	}
	allowed := w.try(func(m *model) bool {
		if m.find(list, p, true) >= 0 {
			return false
		}
		m.drop(func(x modelWish) bool { return x.list == list && x.Prefix == p })
		return true
	})
	_, _, err := w.Delete(list, []netip.Prefix{p})
	return fmt.Sprintf("delete %v %v", list, p), allowed, err
}

func (w *world) setConfig() (string, bool, error) {
	config := [2][]traffic.Entry{w.entries(w.r.IntN(3)), w.entries(w.r.IntN(3))}
	for _, entries := range config {
		for i := range entries {
			entries[i].Expires = time.Time{}
		}
	}
	allowed := w.try(func(m *model) bool {
		given := map[traffic.List]map[netip.Prefix]bool{block: {}, allow: {}}
		for i, list := range []traffic.List{block, allow} {
			for _, e := range config[i] {
				if !m.set(list, e, true, false, w.now) {
					return false
				}
				given[list][e.Prefix] = true
			}
		}
		m.drop(func(x modelWish) bool { return x.config && !given[x.list][x.Prefix] })
		return true
	})
	if allowed {
		w.config = config
	}
	err := w.SetConfig(config[0], config[1])
	return fmt.Sprintf("config %v", config), allowed, err
}

func (w *world) protect() (string, bool, error) {
	var set []Protected
	for range w.r.IntN(3) {
		p := w.prefix()
		if p.Bits() > 8 {
			set = append(set, Protected{Prefix: p, Why: "test", Own: w.r.IntN(2) == 0})
		}
	}
	// The file was accepted under the old protection; keep it acceptable for restarts.
	for _, e := range w.config[0] {
		set = slices.DeleteFunc(set, func(p Protected) bool { return p.Prefix.Overlaps(e.Prefix) })
	}
	w.m.protected = set
	return "protect", true, w.SetProtected(set)
}

// restart is what a power cut and a new start do: another process opens a copy
// of the journal as it is now, and fills an empty packet path.
func (w *world) restart(t *testing.T) {
	t.Helper()
	data, err := os.ReadFile(w.path)
	mustDo(t, err)
	mustDo(t, w.Close())
	w.path = filepath.Join(t.TempDir(), "journal.db")
	mustDo(t, os.WriteFile(w.path, data, 0o600))
	w.enforcer = newEnforcer()
	w.open(t)
	mustDo(t, w.SetProtected(w.m.protected))
	mustDo(t, w.SetConfig(w.config[0], w.config[1]))
	mustDo(t, w.Restore())
	w.m.expire(w.now)
	for i := range w.m.wishes {
		if w.m.wishes[i].config {
			w.m.wishes[i].Created = w.now // the file does not say
		}
	}
}

func (w *world) compare(t *testing.T, did string) {
	t.Helper()
	for _, list := range []traffic.List{block, allow} {
		want := slices.DeleteFunc(w.m.entries(list), func(e traffic.Entry) bool { return e.Expired(w.now) })
		if diff := cmp.Diff(want, w.Entries(list), prefixes, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("after %s: %s list: -model +ledger:\n%s", did, list, diff)
		}
	}
	w.check(t)
	if t.Failed() {
		t.Fatalf("after %s", did)
	}
}

func TestAgainstModel(t *testing.T) {
	for seed := range uint64(12) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			b := newBench(t, 12)
			w := &world{bench: b, m: model{max: 12}, r: rand.New(rand.NewPCG(seed, 1))}
			for range 150 {
				w.compare(t, w.step(t))
			}
		})
	}
}

// TestFailures lets each call of the enforcer, and the journal, fail in turn
// during changes of every kind. Whatever fails, ledger, packet path and journal
// must agree afterwards, and hold what they held before or what was asked for.
func TestFailures(t *testing.T) {
	operations := map[string]func(b *bench) error{
		"add": func(b *bench) error {
			_, err := b.Add(block, []traffic.Entry{entry("192.0.2.0/24", time.Hour), entry("2001:db8::/32")}, AddOptions{})
			return err
		},
		"replace": func(b *bench) error {
			_, err := b.Add(block, []traffic.Entry{entry("192.0.2.0/24", time.Hour), entry("2001:db8::/32")}, AddOptions{Replace: true})
			return err
		},
		"delete": func(b *bench) error { _, _, err := b.Delete(block, prefixList("192.0.2.0/24")); return err },
		"flush":  func(b *bench) error { _, err := b.Flush(block); return err },
		"config": func(b *bench) error {
			return b.SetConfig([]traffic.Entry{entry("192.0.2.0/24"), entry("203.0.113.7/32")}, []traffic.Entry{entry("203.0.113.9/32")})
		},
		"expire": func(b *bench) error { b.now = start.Add(time.Minute); _, err := b.Expire(); return err },
	}
	prepare := func(t *testing.T) *bench {
		b := newBench(t, 100)
		mustDo(t, b.SetConfig([]traffic.Entry{entry("203.0.113.0/24")}, []traffic.Entry{entry("203.0.113.1/32")}))
		mustAdd(t, b, block, entry("192.0.2.0/24"), entry("198.51.100.0/24", time.Minute), entry("203.0.113.0/24", time.Minute))
		mustAdd(t, b, allow, entry("192.0.2.7/32", time.Minute))
		b.enforcer.calls = 0
		return b
	}
	testFailures(t, prepare, operations)
}

// TestSignatureFailures is the same for signatures.
func TestSignatureFailures(t *testing.T) {
	testFailures(t, func(t *testing.T) *bench {
		b := newBench(t, 100)
		mustArm(t, b, rule(t, "udp and src port 53"), rule(t, "udp and src port 123", time.Minute))
		b.enforcer.calls = 0
		return b
	}, map[string]func(b *bench) error{
		"add": func(b *bench) error {
			_, err := b.AddSignatures([]signature.Armed{rule(t, "icmp", time.Hour), rule(t, "udp and src port 53", time.Hour)}, AddOptions{})
			return err
		},
		"delete": func(b *bench) error { _, _, err := b.DeleteSignatures([]uint64{1, 99}); return err },
		"flush":  func(b *bench) error { _, err := b.FlushSignatures(); return err },
		"expire": func(b *bench) error { b.now = start.Add(time.Minute); _, err := b.Expire(); return err },
	})
}

func testFailures(t *testing.T, prepare func(t *testing.T) *bench, operations map[string]func(b *bench) error) {
	for name, operate := range operations {
		b := prepare(t)
		mustDo(t, operate(b))
		steps := b.enforcer.calls
		if steps == 0 {
			t.Fatalf("%s does not reach the packet path", name)
		}
		for fail := 1; fail <= steps; fail++ {
			for _, times := range []int{1, 2, 1000} {
				t.Run(fmt.Sprintf("%s/call %d fails %d times", name, fail, times), func(t *testing.T) {
					b := prepare(t)
					before := state(b)
					b.enforcer.failFrom, b.enforcer.failures = fail, times
					if err := operate(b); !errors.Is(err, errEnforcer) {
						t.Fatalf("error is %v", err)
					}
					b.enforcer.failures = 0
					mustDo(t, expireAt(b, start)) // repairs
					b.check(t)
					if diff := cmp.Diff(before, state(b)); diff != "" {
						t.Errorf("-before +after:\n%s", diff)
					}
				})
			}
		}
		for _, undoFails := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/journal fails, undo fails: %v", name, undoFails), func(t *testing.T) {
				testJournalFails(t, prepare(t), operate, undoFails, steps)
			})
		}
	}
}

func testJournalFails(t *testing.T, b *bench, operate func(*bench) error, undoFails bool, steps int) {
	before := state(b)
	mustDo(t, b.journal.close()) // every write fails from here on
	if undoFails {
		b.enforcer.failFrom, b.enforcer.failures = steps+1, 1000
	}
	err := operate(b)
	reopen := func() {
		j, err := openJournal(b.path)
		mustDo(t, err)
		b.journal = j
	}
	if err == nil { // the configuration is not journalled
		reopen()
		b.check(t)
		return
	}
	if undoFails != errors.Is(err, errEnforcer) {
		t.Errorf("error is %v", err)
	}
	b.enforcer.failures = 0
	reopen()
	mustDo(t, expireAt(b, start))
	b.check(t)
	if diff := cmp.Diff(before, state(b)); diff != "" {
		t.Errorf("-before +after:\n%s", diff)
	}
}

func expireAt(b *bench, at time.Time) error {
	b.now = at
	_, err := b.Expire()
	return err
}

func state(b *bench) map[string][]string {
	return map[string][]string{
		"block": describe(b.Entries(block)), "allow": describe(b.Entries(allow)), "signatures": describeRules(b.Signatures()),
	}
}

func TestRestoreFailure(t *testing.T) {
	b := newBench(t, 100)
	mustAdd(t, b, block, entry("192.0.2.0/24"))
	for n := 1; n <= 3; n++ {
		b.enforcer.failFrom, b.enforcer.failures = b.enforcer.calls+n, 1
		if err := b.Restore(); !errors.Is(err, errEnforcer) {
			t.Errorf("call %d fails: %v", n, err)
		}
	}
	mustDo(t, b.Restore())
	wantEntries(t, b, block, "192.0.2.0/24 operator")
}

// Many entries go in as one batch, and come back after a restart.
func TestManyEntries(t *testing.T) {
	const n = 100_000
	b := newBench(t, n)
	var protected []Protected
	for i := range 1000 {
		addr := netip.AddrFrom4([4]byte{198, 51, byte(i >> 8), byte(i)})
		protected = append(protected, Protected{Prefix: single(addr), Why: "test"})
	}
	mustDo(t, b.SetProtected(protected))
	entries := make([]traffic.Entry, n)
	for i := range entries {
		addr := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		entries[i] = traffic.Entry{Prefix: single(addr), Expires: start.Add(time.Hour + time.Duration(i)*time.Microsecond), Comment: "imported"}
	}
	b.enforcer.calls = 0
	if r := mustAdd(t, b, block, entries...); r.Added != n || b.enforcer.calls != 1 {
		t.Errorf("%+v in %d calls", r, b.enforcer.calls)
	}
	mustDo(t, b.Close())
	b.enforcer = newEnforcer()
	b.open(t)
	mustDo(t, b.Restore())
	if got := len(b.enforcer.lists[block]); got != n {
		t.Errorf("%d entries restored", got)
	}
	b.now = start.Add(2 * time.Hour)
	if got, err := b.Expire(); got != n || err != nil {
		t.Errorf("%d expired, %v", got, err)
	}
	if left := slices.Collect(maps.Keys(b.enforcer.lists[block])); len(left) > 0 || b.ends.Len() > 0 {
		t.Errorf("%d entries, %d endings left", len(left), b.ends.Len())
	}
}

// Endings that are out of date do not pile up.
func TestEndingsStayBounded(t *testing.T) {
	b := newBench(t, 10)
	for i := range 1000 {
		c := newChanges()
		c[block][netip.MustParsePrefix("192.0.2.0/24")] = slot{config: &wish{expires: start.Add(time.Hour + time.Duration(i))}}
		mustDo(t, b.commit(c, false))
	}
	if n := b.ends.Len(); n > 100 {
		t.Errorf("%d endings for one entry", n)
	}
}
