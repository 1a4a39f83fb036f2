// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gaissmai/bart"

	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// tcpFrame returns a good TCP packet from a source, IPv4 or IPv6.
func tcpFrame(source netip.Addr) []byte {
	eth := []byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00}
	tcp := []byte{4, 0, 0, 80, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 32, 0, 0, 0, 0, 0}
	if source.Is4() {
		ip := []byte{0x45, 0, 0, 40, 0, 1, 0, 0, 64, 6, 0, 0}
		ip = append(append(ip, source.AsSlice()...), 198, 51, 100, 10)
		return append(append(eth, ip...), tcp...)
	}
	eth[12], eth[13] = 0x86, 0xdd
	ip := []byte{0x60, 0, 0, 0, 0, 20, 6, 64}
	dst := netip.MustParseAddr("2001:db8:ffff::10")
	ip = append(append(ip, source.AsSlice()...), dst.AsSlice()...)
	return append(append(eth, ip...), tcp...)
}

// naive is the model: every list as a map of prefixes, asked one by one.
type naive [traffic.NumLists]map[netip.Prefix]traffic.Entry

func (n *naive) covered(list traffic.List, a netip.Addr, now time.Time, forced bool) bool {
	for prefix, e := range n[list] {
		if prefix.Contains(a) && !e.Expired(now) && (!forced || e.Forced) {
			return true
		}
	}
	return false
}

func (n *naive) verdict(a netip.Addr, now time.Time) traffic.Reason {
	return precedence(func(list traffic.List, forced bool) bool { return n.covered(list, a, now, forced) })
}

// precedence is what a source ends with that the lists cover.
func precedence(covered func(list traffic.List, forced bool) bool) traffic.Reason {
	switch {
	case covered(traffic.ListAllow, false):
		return traffic.ReasonAllowlist
	case covered(traffic.ListBlock, true):
		return traffic.ReasonBlocklist
	case covered(traffic.ListProtected, false):
		return traffic.ReasonProtected
	case covered(traffic.ListBlock, false):
		return traffic.ReasonBlocklist
	}
	return traffic.ReasonPass
}

// randomPrefix draws from few addresses, so that prefixes nest and meet.
func randomPrefix(r *rand.Rand) netip.Prefix {
	if r.IntN(2) == 0 {
		a := netip.AddrFrom4([4]byte{10, byte(r.IntN(2)), byte(r.IntN(3)), byte(r.IntN(4))})
		return netip.PrefixFrom(a, 8+r.IntN(25)).Masked()
	}
	var b [16]byte
	copy(b[:], []byte{0x20, 1, 0x0d, 0xb8})
	b[5], b[7], b[15] = byte(r.IntN(2)), byte(r.IntN(3)), byte(r.IntN(4))
	return netip.PrefixFrom(netip.AddrFrom16(b), 32+r.IntN(97)).Masked()
}

// probes are addresses at and around the prefixes that randomPrefix draws.
func randomProbe(r *rand.Rand) netip.Addr {
	p := randomPrefix(r).Addr()
	if r.IntN(3) == 0 {
		return p.Next()
	}
	return p
}

func TestListsAgreeWithANaiveModel(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	p := newTester(t, Options{})
	var n naive
	for i := range n {
		n[i] = map[netip.Prefix]traffic.Entry{}
	}
	epoch := time.Unix(1_000_000, 0)
	steps := 3000
	if testing.Short() { // an emulator
		steps = 300
	}
	for step := range steps {
		now := epoch.Add(time.Duration(step) * time.Second)
		mutate(t, r, p, &n, now)
		for range 20 {
			a := randomProbe(r)
			v, err := p.Run(tcpFrame(a), time.Duration(now.UnixNano()))
			if err != nil {
				t.Fatal(err)
			}
			if want := n.verdict(a, now); v.Reason != want {
				t.Fatalf("step %d: %v is %v, want %v\nlists %v", step, a, v.Reason, want, n)
			}
		}
	}
	checkEdges(t, p)
}

// mutate does one random operation to the plane and to the model.
func mutate(t *testing.T, r *rand.Rand, p *Tester, n *naive, now time.Time) {
	t.Helper()
	list := traffic.List(r.IntN(int(traffic.NumLists)))
	var err error
	switch op := r.IntN(20); {
	case op == 0:
		entries := randomEntries(r, now)
		err = p.Replace(list, entries)
		clear(n[list])
		n.put(list, entries)
	case op < 12:
		entries := randomEntries(r, now)
		err = p.Put(list, entries)
		n.put(list, entries)
	default:
		gone := []netip.Prefix{randomPrefix(r)} // most likely not there
		for prefix := range n[list] {
			if gone = append(gone, prefix); len(gone) == 3 {
				break
			}
		}
		err = p.Remove(list, gone)
		for _, prefix := range gone {
			delete(n[list], prefix)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (n *naive) put(list traffic.List, entries []traffic.Entry) {
	for _, e := range entries {
		e.Forced = e.Forced && list == traffic.ListBlock
		n[list][e.Prefix] = e
	}
}

func randomEntries(r *rand.Rand, now time.Time) (entries []traffic.Entry) {
	for range 1 + r.IntN(4) {
		e := traffic.Entry{Prefix: randomPrefix(r), Forced: r.IntN(4) == 0}
		if r.IntN(2) == 0 {
			e.Expires = now.Add(time.Duration(r.IntN(60)-5) * time.Second)
		}
		entries = append(entries, e)
	}
	return entries
}

// checkEdges asks the program for the first and last address of every prefix, and for those beside them.
func checkEdges(t *testing.T, p *Tester) {
	t.Helper()
	for prefix := range p.sources.All() {
		for _, a := range edges(prefix) {
			checkAddr(t, p, a)
		}
	}
}

func edges(prefix netip.Prefix) (all []netip.Addr) {
	first, last := prefix.Addr(), lastAddr(prefix)
	for _, a := range []netip.Addr{first, last, first.Prev(), last.Next()} {
		if a.IsValid() && !a.Is4In6() {
			all = append(all, a)
		}
	}
	return all
}

func lastAddr(prefix netip.Prefix) netip.Addr {
	b := prefix.Addr().AsSlice()
	for i := prefix.Bits(); i < 8*len(b); i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// listClock is the time at which checkAddr asks.
const listClock = 1_000_000 * time.Second

// checkAddr compares the program with the longest match in bart, folded.
func checkAddr(t testing.TB, p *Tester, a netip.Addr) {
	t.Helper()
	v, err := p.Run(tcpFrame(a), listClock)
	if err != nil {
		t.Fatal(err)
	}
	if want := modelVerdict(p.sources, a); v.Reason != want {
		t.Fatalf("%v is %v, want %v; %v", a, v.Reason, want, covering(p.sources, a))
	}
}

func covering(sources *bart.Table[source], a netip.Addr) (all []string) {
	for prefix, s := range sources.Supernets(netip.PrefixFrom(a, a.BitLen())) {
		all = append(all, fmt.Sprintf("%v %+v", prefix, s))
	}
	return all
}

// modelVerdict asks all entries that cover the address.
func modelVerdict(sources *bart.Table[source], a netip.Addr) traffic.Reason {
	var sum source
	for _, s := range sources.Supernets(netip.PrefixFrom(a, a.BitLen())) {
		sum = sum.fold(s)
	}
	now := uint64(listClock)
	switch {
	case sum.Allowed > now:
		return traffic.ReasonAllowlist
	case sum.Forced > now:
		return traffic.ReasonBlocklist
	case sum.Protected > now:
		return traffic.ReasonProtected
	case sum.Blocked > now:
		return traffic.ReasonBlocklist
	}
	return traffic.ReasonPass
}

func entry(prefix string) traffic.Entry { return traffic.Entry{Prefix: netip.MustParsePrefix(prefix)} }

func verdictOf(t *testing.T, p *Tester, source string) traffic.Reason {
	t.Helper()
	v, err := p.Run(tcpFrame(netip.MustParseAddr(source)), time.Second)
	if err != nil {
		t.Fatal(err)
	}
	return v.Reason
}

func TestAFullListIsRefusedBeforeAnyChange(t *testing.T) {
	p := newTester(t, Options{MaxEntries: 3})
	full := []traffic.Entry{entry("192.0.2.1/32"), entry("192.0.2.2/32"), entry("192.0.2.3/32")}
	if err := p.Put(traffic.ListBlock, full); err != nil {
		t.Fatal(err)
	}
	for name, do := range map[string]func() error{
		"put":     func() error { return p.Put(traffic.ListBlock, []traffic.Entry{entry("198.51.100.1/32")}) },
		"another": func() error { return p.Put(traffic.ListAllow, []traffic.Entry{entry("198.51.100.1/32")}) },
		"replace": func() error {
			return p.Replace(traffic.ListBlock, append(full, entry("198.51.100.1/32")))
		},
	} {
		if err := do(); !errors.Is(err, ErrFull) {
			t.Errorf("%s into a full list: %v, want ErrFull", name, err)
		}
	}
	if r := verdictOf(t, p, "192.0.2.2"); r != traffic.ReasonBlocklist {
		t.Errorf("a listed source is %v after the refusals", r)
	}
	if r := verdictOf(t, p, "198.51.100.1"); r != traffic.ReasonPass {
		t.Errorf("a refused source is %v", r)
	}
	if err := p.Put(traffic.ListBlock, full); err != nil {
		t.Errorf("overwriting in a full list: %v", err)
	}
	if err := p.Put(traffic.ListBlock, []traffic.Entry{entry("2001:db8::1/128")}); err != nil {
		t.Errorf("the other address family has room of its own: %v", err)
	}
}

func TestBadPrefixesAreRefused(t *testing.T) {
	p := newTester(t, Options{})
	for _, bad := range []netip.Prefix{
		{},
		netip.PrefixFrom(netip.MustParseAddr("192.0.2.1"), 24),
		netip.MustParsePrefix("::ffff:192.0.2.0/120"),
	} {
		if err := p.Put(traffic.ListBlock, []traffic.Entry{entry("198.51.100.1/32"), {Prefix: bad}}); err == nil {
			t.Errorf("%v was taken", bad)
		}
	}
	if r := verdictOf(t, p, "198.51.100.1"); r != traffic.ReasonPass {
		t.Errorf("half of a refused call was applied: %v", r)
	}
}

// While lists A and B take turns, x (on both) is always dropped, and never do y (A) and z (B) pass both
// under one generation, nor does a packet find the list empty.
func TestReplaceIsAtomic(t *testing.T) {
	p := newTester(t, Options{})
	a := []traffic.Entry{entry("192.0.2.1/32"), entry("192.0.2.2/32")}
	b := []traffic.Entry{entry("192.0.2.1/32"), entry("192.0.2.3/32")}
	for i := range 5000 {
		a = append(a, entry(fmt.Sprintf("10.%d.%d.0/24", i/256, i%256)))
		b = append(b, entry(fmt.Sprintf("172.16.%d.%d/32", i/256, i%256)))
	}
	if err := p.Replace(traffic.ListBlock, a); err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	var wg sync.WaitGroup
	wg.Go(func() {
		var err error
		for i := 0; i < 40 && err == nil; i++ {
			err = p.Replace(traffic.ListBlock, [][]traffic.Entry{b, a}[i%2])
		}
		done <- err
	})
	defer wg.Wait()
	packets := 0
	for {
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			if packets < 1000 {
				t.Errorf("only %d packets met the replacements", packets)
			}
			return
		default:
			if r := verdictOf(t, p, "192.0.2.1"); r != traffic.ReasonBlocklist {
				t.Fatalf("a source on both lists is %v", r)
			}
			packets++
		}
	}
}

func TestManyEntries(t *testing.T) {
	p := newTester(t, Options{MaxEntries: 100000})
	var entries []traffic.Entry
	n := 100000
	if testing.Short() { // an emulator
		n = 10000
	}
	for i := range n {
		a := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		entries = append(entries, traffic.Entry{Prefix: netip.PrefixFrom(a, 32)})
	}
	if err := p.Put(traffic.ListBlock, entries[:n/2]); err != nil {
		t.Fatal(err)
	}
	if err := p.Replace(traffic.ListBlock, entries); err != nil {
		t.Fatal(err)
	}
	// One entry that covers all others changes every one of them.
	wide := entry("10.0.0.0/8")
	wide.Expires = time.Unix(10, 0)
	if err := p.Remove(traffic.ListBlock, []netip.Prefix{entries[1].Prefix}); err != nil {
		t.Fatal(err)
	}
	if err := p.Put(traffic.ListBlock, []traffic.Entry{wide}); err != nil {
		t.Fatal(err)
	}
	if r := verdictOf(t, p, "10.0.0.1"); r != traffic.ReasonBlocklist {
		t.Errorf("covered source is %v", r)
	}
	checkEdges(t, p)
}

// TestNoMemoryForALargerList: what does not fit in place needs a new map, and without memory for
// it nothing changes, however far the change had come.
func TestNoMemoryForALargerList(t *testing.T) {
	p := newTester(t, Options{})
	kept := []traffic.Entry{entry("192.0.2.1/32"), entry("2001:db8::/64")}
	if err := p.Put(traffic.ListBlock, kept); err != nil {
		t.Fatal(err)
	}
	p.spec.Maps[bpfMapLists].InnerMap.ValueSize = 1 << 30 // more than there is
	wide := entry("10.0.0.0/8")                           // does not fit the tables of a short list
	for name, do := range map[string]func() error{
		"put": func() error {
			return p.Put(traffic.ListBlock, []traffic.Entry{entry("192.0.2.2/32"), entry("2001:db8::/48"), wide, entry("192.0.2.3/32")})
		},
		"replace": func() error { return p.Replace(traffic.ListBlock, []traffic.Entry{wide}) },
		"remove many": func() error {
			return p.Remove(traffic.ListBlock, append(make([]netip.Prefix, maxLive), kept[0].Prefix))
		},
	} {
		err := do()
		if err == nil || !strings.Contains(err.Error(), "no memory for the lists in the kernel") {
			t.Errorf("%s: %v", name, err)
		}
		if n := p.sources.Size(); n != len(kept) {
			t.Errorf("%s: %d entries, want %d", name, n, len(kept))
		}
		for source, want := range map[string]traffic.Reason{
			"192.0.2.1": traffic.ReasonBlocklist, "192.0.2.2": traffic.ReasonPass, "192.0.2.3": traffic.ReasonPass, "10.0.0.1": traffic.ReasonPass,
			"2001:db8::1": traffic.ReasonBlocklist, "2001:db8:0:1::1": traffic.ReasonPass,
		} {
			if r := verdictOf(t, p, source); r != want {
				t.Errorf("%s: %s is %v, want %v", name, source, r, want)
			}
		}
	}
}

// TestMemoryFollowsTheLists: what the lists may hold at most takes no memory before they hold it.
func TestMemoryFollowsTheLists(t *testing.T) {
	p := newTester(t, Options{MaxEntries: 16_000_000})
	size := func() uint64 {
		t.Helper()
		all, err := p.Memory()
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range all {
			if m.Name == bpfMapLists {
				return m.Bytes
			}
		}
		t.Fatal("the lists are not among the maps")
		return 0
	}
	empty := size()
	if empty > 256<<10 {
		t.Errorf("empty lists take %d bytes", empty)
	}
	var many []traffic.Entry
	for i := range 20_000 {
		many = append(many, entry(fmt.Sprintf("10.%d.%d.0/25", i/256, i%256)))
	}
	if err := p.Replace(traffic.ListBlock, many); err != nil {
		t.Fatal(err)
	}
	if n := size(); n < 2*empty || n > 1<<20 {
		t.Errorf("20 000 entries take %d bytes", n)
	}
	if err := p.Replace(traffic.ListBlock, nil); err != nil {
		t.Fatal(err)
	}
	if n := size(); n != empty {
		t.Errorf("empty again, the lists take %d bytes, %d before", n, empty)
	}
}

// TestWhatIsRemovedGoes: entries that come and go leave something behind, but not without bound.
func TestWhatIsRemovedGoes(t *testing.T) {
	p := newTester(t, Options{})
	if err := p.Put(traffic.ListBlock, []traffic.Entry{entry("192.0.2.1/32")}); err != nil {
		t.Fatal(err)
	}
	changes := 60_000
	if testing.Short() {
		changes = 6000
	}
	for i := range changes {
		for _, e := range []traffic.Entry{
			{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 32), Expires: time.Unix(int64(i), 1)},
			{Prefix: netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 1, 0x0d, 0xb8, 14: byte(i >> 8), 15: byte(i)}), 128)},
		} {
			if err := p.Put(traffic.ListBlock, []traffic.Entry{e}); err != nil {
				t.Fatal(err)
			}
			if err := p.Remove(traffic.ListBlock, []netip.Prefix{e.Prefix}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if used := p.lists.usedVerdicts + p.lists.usedLines4 + p.lists.usedLines6; used > 10_000 {
		t.Errorf("one entry is left, and %d things in the tables", used)
	}
	checkEdges(t, p)
}
