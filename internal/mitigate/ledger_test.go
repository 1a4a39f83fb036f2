// SPDX-License-Identifier: Apache-2.0

package mitigate

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

const (
	block = traffic.ListBlock
	allow = traffic.ListAllow
)

func TestAddOverwriteDelete(t *testing.T) {
	b := newBench(t, 100)
	r := mustAdd(t, b, block, entry("192.0.2.0/24", "scanner"), entry("2001:db8::/32", time.Hour), entry("192.0.2.7/32"))
	if r.Added != 3 || r.Changed != 0 {
		t.Errorf("%+v", r)
	}
	mustAdd(t, b, allow, entry("192.0.2.7/32"))
	wantEntries(t, b, block, "192.0.2.0/24 operator # scanner", "192.0.2.7/32 operator", "2001:db8::/32 operator until +1h0m0s")
	wantEntries(t, b, allow, "192.0.2.7/32 operator")

	b.now = start.Add(time.Minute)
	r = mustAdd(t, b, block, entry("192.0.2.0/24", 10*time.Minute, "again"), entry("192.0.2.7/32"))
	if r.Added != 0 || r.Changed != 1 {
		t.Errorf("overwritten: %+v", r)
	}
	wantEntries(t, b, block, "192.0.2.0/24 operator until +10m0s # again", "192.0.2.7/32 operator", "2001:db8::/32 operator until +1h0m0s")

	removed, missing, err := b.Delete(block, prefixList("192.0.2.0/24", "192.0.2.0/25", "192.0.2.0/24"))
	mustDo(t, err)
	if got := describe(removed); !slices.Equal(got, []string{"192.0.2.0/24 operator until +10m0s # again"}) {
		t.Errorf("removed %q", got)
	}
	if !slices.Equal(missing, prefixList("192.0.2.0/25")) {
		t.Errorf("missing %v", missing)
	}
	wantEntries(t, b, block, "192.0.2.7/32 operator", "2001:db8::/32 operator until +1h0m0s")
	if n, m := b.Count(block), b.Count(allow); n != 2 || m != 1 {
		t.Errorf("counts %d %d", n, m)
	}
	n, err := b.Flush(block)
	if n != 2 || err != nil {
		t.Errorf("flushed %d, %v", n, err)
	}
	wantEntries(t, b, block)
	wantEntries(t, b, allow, "192.0.2.7/32 operator")
}

func TestLastOfSamePrefixCounts(t *testing.T) {
	b := newBench(t, 1)
	if r := mustAdd(t, b, block, entry("192.0.2.0/24", "first"), entry("192.0.2.0/24", "second")); r.Added != 1 {
		t.Errorf("%+v", r)
	}
	wantEntries(t, b, block, "192.0.2.0/24 operator # second")
}

func TestReplace(t *testing.T) {
	b := newBench(t, 3)
	mustDo(t, b.SetConfig([]traffic.Entry{entry("198.51.100.0/24"), entry("192.0.2.0/24")}, nil))
	mustAdd(t, b, block, entry("192.0.2.0/24", "mine"), entry("203.0.113.0/24"))
	b.now = start.Add(time.Second)
	b.enforcer.calls = 0
	r, err := b.Add(block, []traffic.Entry{entry("203.0.113.0/24"), entry("2001:db8::/32")}, AddOptions{Replace: true})
	if err == nil {
		t.Errorf("4 entries fit into 3: %+v", r)
	}
	r, err = b.Add(block, []traffic.Entry{entry("203.0.113.0/25")}, AddOptions{Replace: true})
	mustDo(t, err)
	if want := (Result{Added: 1, Removed: 2}); !cmp.Equal(r, want) {
		t.Errorf("got %+v, want %+v", r, want)
	}
	if b.enforcer.calls != 1 {
		t.Errorf("%d calls of the enforcer, want one step", b.enforcer.calls)
	}
	wantEntries(t, b, block, "192.0.2.0/24 config", "198.51.100.0/24 config", "203.0.113.0/25 operator since +1s")
	if n, err := b.Flush(block); n != 1 || err != nil {
		t.Errorf("flushed %d, %v", n, err)
	}
	wantEntries(t, b, block, "192.0.2.0/24 config", "198.51.100.0/24 config")
}

func TestRefusals(t *testing.T) {
	b := newBench(t, 3)
	mustDo(t, b.SetProtected([]Protected{
		{Prefix: netip.MustParsePrefix("192.0.2.1/32"), Why: "default gateway"},
		{Prefix: netip.MustParsePrefix("192.0.2.1/32"), Why: "resolver in /etc/resolv.conf"},
		{Prefix: netip.MustParsePrefix("2001:db8:1::/48"), Why: "listed under protect.addresses"},
		{Prefix: netip.MustParsePrefix("198.51.100.5/32"), Why: "own address of eth0", Own: true},
	}))
	mustAdd(t, b, block, entry("203.0.113.0/24"))
	calls := b.enforcer.calls
	mapped := traffic.Entry{Prefix: netip.MustParsePrefix("::ffff:192.0.2.0/120")}
	system := entry("203.0.113.9/32")
	system.Origin = OriginConfig
	for _, tt := range []struct {
		list traffic.List
		e    traffic.Entry
		want string
	}{
		{block, entry("192.0.2.0/24"), "192.0.2.0/24: covers 192.0.2.1 (default gateway, resolver in /etc/resolv.conf); use --force to block it all the same"},
		{block, entry("192.0.2.1/32"), "192.0.2.1/32: covers 192.0.2.1 (default gateway,"},
		{block, entry("198.51.100.0/28"), "covers 198.51.100.5 (own address of eth0); use --force"},
		{block, entry("2001:db8::/32"), "covers 2001:db8:1::/48 (listed under protect.addresses)"},
		{block, entry("2001:db8:1:2::9/128"), "2001:db8:1:2::9/128: lies in 2001:db8:1::/48 (listed under protect.addresses); use --force"},
		{block, entry("0.0.0.0/0"), "would block every source; use --force"},
		{allow, entry("0.0.0.0/0"), "would let every source pass"},
		{allow, entry("::/0"), "would let every source pass"},
		{block, entry("203.0.113.7/32", -time.Second), "expired TTL: it would have ended 2030-01-31T11:59:59Z"},
		{block, entry("203.0.113.7/32", time.Duration(0)), "expired TTL"},
		{block, entry("203.0.113.7/32", 101*365*24*time.Hour), "leave the TTL out for never"},
		{block, mapped, "is an IPv4-mapped IPv6 prefix; write the IPv4 prefix"},
		{block, entry("192.0.2.9/24"), "has host bits set; write 192.0.2.0/24"},
		{block, traffic.Entry{}, "not a prefix"},
		{block, entry("203.0.113.7/32", "two\nlines"), "is not one line of text"},
		{block, entry("203.0.113.7/32", strings.Repeat("x", 201)), "comment of 201 bytes; at most 200 fit"},
		{block, system, `origin "config" is not for entries that are added`},
		{traffic.ListProtected, entry("203.0.113.7/32"), "the protected list cannot be changed by hand"},
	} {
		_, err := b.Add(tt.list, []traffic.Entry{entry("203.0.113.8/32"), tt.e}, AddOptions{})
		var refused *RefusedError
		if !errors.As(err, &refused) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s to %s: got %v, want …%s…", tt.e.Prefix, tt.list, err, tt.want)
		}
	}
	if b.enforcer.calls != calls {
		t.Errorf("%d calls of the enforcer for refused entries", b.enforcer.calls-calls)
	}
	wantEntries(t, b, block, "203.0.113.0/24 operator")
	if _, _, err := b.Delete(traffic.ListProtected, prefixList("192.0.2.1/32")); err == nil {
		t.Error("deleted from the protected list")
	}
	if _, err := b.Flush(traffic.ListProtected); err == nil {
		t.Error("flushed the protected list")
	}
}

func TestManyRefusalsAreSummedUp(t *testing.T) {
	b := newBench(t, 100)
	var entries []traffic.Entry
	for i := range 8 {
		entries = append(entries, entry(fmt.Sprintf("203.0.113.%d/32", i), -time.Second))
	}
	_, err := b.Add(block, entries, AddOptions{})
	var refused *RefusedError
	if !errors.As(err, &refused) || len(refused.Refused) != 8 || !strings.HasSuffix(err.Error(), "; and 3 more") {
		t.Errorf("%v", err)
	}
	entries = append(entries, entry("203.0.113.99/32"))
	r, err := b.Add(block, entries, AddOptions{Skip: true})
	if err != nil || r.Added != 1 || len(r.Refused) != 8 || r.Refused[7].Prefix != entries[7].Prefix {
		t.Errorf("%+v, %v", r, err)
	}
	wantEntries(t, b, block, "203.0.113.99/32 operator")
}

func TestForce(t *testing.T) {
	b := newBench(t, 100)
	mustDo(t, b.SetProtected([]Protected{{Prefix: netip.MustParsePrefix("192.0.2.1/32"), Why: "default gateway"}}))
	_, err := b.Add(block, []traffic.Entry{entry("192.0.2.0/24"), entry("203.0.113.0/24"), entry("::/0")}, AddOptions{Force: true})
	mustDo(t, err)
	_, err = b.Add(allow, []traffic.Entry{entry("::/0")}, AddOptions{Force: true})
	mustDo(t, err)
	// Only what needed force gets it: the rest must not outlive a change of the protected set.
	wantEntries(t, b, block, "192.0.2.0/24 operator forced", "203.0.113.0/24 operator", "::/0 operator forced")
	wantEntries(t, b, allow, "::/0 operator")
}

func TestFull(t *testing.T) {
	b := newBench(t, 3)
	mustAdd(t, b, block, entry("192.0.2.0/24"), entry("198.51.100.0/24"))
	calls := b.enforcer.calls
	_, err := b.Add(block, []traffic.Entry{entry("203.0.113.0/32"), entry("203.0.113.1/32"), entry("192.0.2.0/24", "known")}, AddOptions{})
	if err == nil || err.Error() != "the block list is full: 1 of 3 entries are free, 2 are needed; raise lists.max_entries, or merge prefixes" {
		t.Errorf("%v", err)
	}
	if b.enforcer.calls != calls {
		t.Error("the packet path was touched")
	}
	mustAdd(t, b, block, entry("203.0.113.0/32"), entry("192.0.2.0/24", "known"))
	mustAdd(t, b, allow, entry("203.0.113.0/32"), entry("203.0.113.1/32"), entry("203.0.113.2/32"))
	if err := b.SetConfig([]traffic.Entry{entry("192.0.2.0/24")}, nil); err != nil {
		t.Errorf("a prefix that is there already takes no place: %v", err)
	}
	err = b.SetConfig([]traffic.Entry{entry("192.0.2.0/24"), entry("192.0.2.0/25")}, nil)
	var refused *RefusedError
	if !errors.As(err, &refused) || !strings.Contains(err.Error(), "the block list is full: 0 of 3") {
		t.Errorf("%v", err)
	}
	b.check(t)
}

func TestConfigEntries(t *testing.T) {
	b := newBench(t, 100)
	mustDo(t, b.SetConfig([]traffic.Entry{entry("192.0.2.0/24", "file"), entry("198.51.100.0/24", "file")}, []traffic.Entry{entry("203.0.113.1/32")}))
	b.now = start.Add(time.Minute)
	mustAdd(t, b, block, entry("192.0.2.0/24", time.Hour, "mine"), entry("203.0.113.0/24"))
	// Both wishes are kept; the later end counts, and that is never.
	wantEntries(t, b, block, "192.0.2.0/24 operator+config # mine", "198.51.100.0/24 config # file", "203.0.113.0/24 operator since +1m0s")
	wantEntries(t, b, allow, "203.0.113.1/32 config")

	_, _, err := b.Delete(block, prefixList("203.0.113.0/24", "198.51.100.0/24"))
	var refused *RefusedError
	if !errors.As(err, &refused) || err.Error() != "198.51.100.0/24: comes from the config file: remove it there, from lists.block, and reload" {
		t.Errorf("%v", err)
	}
	if _, _, err = b.Delete(block, prefixList("192.0.2.0/24")); !errors.As(err, &refused) {
		t.Errorf("%v", err)
	}
	wantEntries(t, b, block, "192.0.2.0/24 operator+config # mine", "198.51.100.0/24 config # file", "203.0.113.0/24 operator since +1m0s")

	// The file changes: the operator's wish remains, with its own end.
	mustDo(t, b.SetConfig([]traffic.Entry{entry("198.51.100.0/24", "other")}, nil))
	wantEntries(t, b, block, "192.0.2.0/24 operator until +1h0m0s since +1m0s # mine", "198.51.100.0/24 config # other", "203.0.113.0/24 operator since +1m0s")
	wantEntries(t, b, allow)

	// The same again touches nothing.
	calls := b.enforcer.calls
	mustDo(t, b.SetConfig([]traffic.Entry{entry("198.51.100.0/24", "other")}, nil))
	if b.enforcer.calls != calls {
		t.Error("an unchanged file touched the packet path")
	}
}

func TestConfigIsAllOrNothing(t *testing.T) {
	b := newBench(t, 100)
	mustDo(t, b.SetProtected([]Protected{{Prefix: netip.MustParsePrefix("192.0.2.1/32"), Why: "default gateway"}}))
	mustDo(t, b.SetConfig([]traffic.Entry{entry("203.0.113.0/24")}, []traffic.Entry{entry("203.0.113.1/32")}))
	err := b.SetConfig([]traffic.Entry{entry("192.0.2.0/24")}, []traffic.Entry{entry("203.0.113.2/32")})
	want := "lists.block: 192.0.2.0/24 covers 192.0.2.1 (default gateway); take it out of the file, and add it with `block add --force`"
	if err == nil || err.Error() != want {
		t.Errorf("got %v\nwant %s", err, want)
	}
	if err := b.SetConfig(nil, []traffic.Entry{entry("0.0.0.0/0")}); err == nil || !strings.HasPrefix(err.Error(), "lists.allow: 0.0.0.0/0 would let every source pass") {
		t.Errorf("%v", err)
	}
	wantEntries(t, b, block, "203.0.113.0/24 config")
	wantEntries(t, b, allow, "203.0.113.1/32 config")
}

func TestExpiry(t *testing.T) {
	b := newBench(t, 100)
	mustAdd(t, b, block, entry("192.0.2.0/24", time.Second), entry("198.51.100.0/24", 2*time.Second), entry("203.0.113.0/24"))
	mustAdd(t, b, allow, entry("192.0.2.7/32", 2*time.Second))
	mustAdd(t, b, block, entry("192.0.2.0/24", 3*time.Second)) // longer: the first end is void
	for _, tt := range []struct {
		at time.Duration
		n  int
	}{{0, 0}, {time.Second, 0}, {2*time.Second - 1, 0}, {2 * time.Second, 2}, {2 * time.Second, 0}, {time.Hour, 1}, {time.Hour, 0}} {
		b.now = start.Add(tt.at)
		calls := b.enforcer.calls
		n, err := b.Expire()
		if n != tt.n || err != nil {
			t.Errorf("at +%s: %d expired, %v; want %d", tt.at, n, err, tt.n)
		}
		if n == 0 && b.enforcer.calls != calls {
			t.Errorf("at +%s: nothing to do, yet the packet path was touched", tt.at)
		}
		b.check(t)
	}
	wantEntries(t, b, block, "203.0.113.0/24 operator")
	wantEntries(t, b, allow)
}

func TestEntriesHidesWhatHasEnded(t *testing.T) {
	b := newBench(t, 100)
	mustAdd(t, b, block, entry("192.0.2.0/24", time.Second))
	b.now = start.Add(time.Second)
	wantEntries(t, b, block)
	if m := b.Find(netip.MustParseAddr("192.0.2.9")); len(m) != 0 {
		t.Errorf("%v", m)
	}
}

func TestExpiryIsTriedAgain(t *testing.T) {
	b := newBench(t, 100)
	mustAdd(t, b, block, entry("192.0.2.0/24", time.Second), entry("198.51.100.0/24", time.Second))
	b.now = start.Add(time.Second)
	b.enforcer.failFrom, b.enforcer.failures = b.enforcer.calls+1, 1
	if n, err := b.Expire(); n != 0 || !errors.Is(err, errEnforcer) {
		t.Errorf("%d, %v", n, err)
	}
	b.check(t)
	if n, err := b.Expire(); n != 2 || err != nil {
		t.Errorf("second try: %d, %v", n, err)
	}
	wantEntries(t, b, block)
}

// Of two wishes for a prefix the one that lasts longer counts.
func TestMergedEnd(t *testing.T) {
	at := func(d time.Duration) time.Time { return start.Add(d) }
	for _, tt := range []struct{ own, config, want time.Time }{
		{time.Time{}, time.Time{}, time.Time{}},
		{time.Time{}, at(1), time.Time{}},
		{at(1), time.Time{}, time.Time{}},
		{at(1), at(2), at(2)},
		{at(2), at(1), at(2)},
	} {
		got := slot{&wish{expires: tt.own}, &wish{expires: tt.config}}.entry(netip.MustParsePrefix("192.0.2.0/24"))
		if !got.Expires.Equal(tt.want) {
			t.Errorf("%v and %v: %v, want %v", tt.own, tt.config, got.Expires, tt.want)
		}
	}
}

// A forced wish that ends must not leave the other wish forced.
func TestForceEndsWithItsWish(t *testing.T) {
	b := newBench(t, 100)
	mustDo(t, b.SetConfig([]traffic.Entry{entry("192.0.2.0/24")}, nil))
	mustDo(t, b.SetProtected([]Protected{{Prefix: netip.MustParsePrefix("192.0.2.1/32"), Why: "default gateway"}}))
	_, err := b.Add(block, []traffic.Entry{entry("192.0.2.0/24", time.Minute)}, AddOptions{Force: true})
	mustDo(t, err)
	wantEntries(t, b, block, "192.0.2.0/24 operator+config forced")
	b.now = start.Add(time.Minute)
	if n, err := b.Expire(); n != 1 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	wantEntries(t, b, block, "192.0.2.0/24 config")
}

func TestProtected(t *testing.T) {
	b := newBench(t, 100)
	set := []Protected{
		{Prefix: netip.MustParsePrefix("192.0.2.1/32"), Why: "default gateway"},
		{Prefix: netip.MustParsePrefix("192.0.2.5/32"), Why: "own address of eth0", Own: true},
		{Prefix: netip.MustParsePrefix("192.0.2.6/32"), Why: "own address of eth1", Own: true},
		{Prefix: netip.MustParsePrefix("192.0.2.6/32"), Why: "resolver in /etc/resolv.conf"},
		{Prefix: netip.MustParsePrefix("192.0.2.6/32"), Why: "own address of eth1", Own: true},
	}
	mustDo(t, b.SetProtected(set))
	// A packet from our own address is spoofed: the packet path does not protect it.
	if got, want := keysOf(b.enforcer.lists[traffic.ListProtected]), []string{"192.0.2.1/32", "192.0.2.6/32"}; !slices.Equal(got, want) {
		t.Errorf("packet path protects %v, want %v", got, want)
	}
	wantEntries(t, b, traffic.ListProtected, "192.0.2.1/32 system # default gateway", "192.0.2.5/32 system # own address of eth0",
		"192.0.2.6/32 system # own address of eth1, resolver in /etc/resolv.conf")
	for _, bad := range []netip.Prefix{{}, netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("192.0.2.1/24"), netip.MustParsePrefix("::ffff:192.0.2.1/128")} {
		if err := b.SetProtected([]Protected{{Prefix: bad}}); err == nil {
			t.Errorf("protected %v", bad)
		}
	}
	b.enforcer.failFrom, b.enforcer.failures = b.enforcer.calls+1, 1
	if err := b.SetProtected(nil); !errors.Is(err, errEnforcer) {
		t.Errorf("%v", err)
	}
	if n := b.Count(traffic.ListProtected); n != 3 {
		t.Errorf("%d protected after a failure, want the 3 of before", n)
	}
}

func TestFind(t *testing.T) {
	b := newBench(t, 100)
	mustDo(t, b.SetProtected([]Protected{{Prefix: netip.MustParsePrefix("192.0.2.0/26"), Why: "listed"}}))
	_, err := b.Add(block, []traffic.Entry{entry("192.0.0.0/16"), entry("192.0.2.0/24"), entry("192.0.2.7/32"), entry("2001:db8::/32"), entry("0.0.0.0/0")}, AddOptions{Force: true})
	mustDo(t, err)
	mustAdd(t, b, allow, entry("192.0.2.0/24"), entry("192.0.2.128/25"))
	for addr, want := range map[string]string{
		"192.0.2.7":        "block 192.0.2.7/32, protected 192.0.2.0/26, allow 192.0.2.0/24, block 192.0.2.0/24, block 192.0.0.0/16, block 0.0.0.0/0",
		"::ffff:192.0.2.8": "protected 192.0.2.0/26, allow 192.0.2.0/24, block 192.0.2.0/24, block 192.0.0.0/16, block 0.0.0.0/0",
		"192.0.2.200":      "allow 192.0.2.128/25, allow 192.0.2.0/24, block 192.0.2.0/24, block 192.0.0.0/16, block 0.0.0.0/0",
		"2001:db8::1%eth0": "block 2001:db8::/32",
		"2001:db9::1":      "",
	} {
		var got []string
		for _, m := range b.Find(netip.MustParseAddr(addr)) {
			got = append(got, fmt.Sprintf("%s %s", m.List, m.Entry.Prefix))
		}
		if s := strings.Join(got, ", "); s != want {
			t.Errorf("%s:\n got %s\nwant %s", addr, s, want)
		}
	}
	if m := b.Find(netip.Addr{}); len(m) != 0 {
		t.Errorf("no address: %v", m)
	}
}

func TestConcurrentUse(t *testing.T) {
	b := newBench(t, 10000)
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 25 {
				e := entry(fmt.Sprintf("203.0.%d.%d/32", g, i))
				if _, err := b.Add(block, []traffic.Entry{e}, AddOptions{}); err != nil {
					t.Error(err)
				}
				b.Entries(block)
				b.Find(e.Prefix.Addr())
				if _, err := b.Expire(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if n := b.Count(block); n != 100 {
		t.Errorf("%d entries, want 100", n)
	}
	b.check(t)
}
