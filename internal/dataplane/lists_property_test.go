// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/gaissmai/bart"

	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// model is the lists as bart has them, asked one by one.
type model [traffic.NumLists]*bart.Table[traffic.Entry]

func newModel() *model {
	var m model
	for i := range m {
		m[i] = &bart.Table[traffic.Entry]{}
	}
	return &m
}

func (m *model) size() (n int) {
	for _, t := range m {
		n += t.Size()
	}
	return n
}

func (m *model) covered(list traffic.List, a netip.Addr, now time.Time, forced bool) bool {
	for _, e := range m[list].Supernets(netip.PrefixFrom(a, a.BitLen())) {
		if !e.Expired(now) && (!forced || e.Forced) {
			return true
		}
	}
	return false
}

func (m *model) verdict(a netip.Addr, now time.Time) traffic.Reason {
	return precedence(func(list traffic.List, forced bool) bool { return m.covered(list, a, now, forced) })
}

// terrain says where random prefixes lie and how many there shall be.
type terrain struct {
	name     string
	share    int // of all operations, percent
	size     int
	prefill  int
	shortest int // of IPv4; IPv6 three times as many bits
	wide     int // one prefix in so many is short
}

// Few entries: the folded table. Clusters with short prefixes: leaves, full lines, expansion. Many: growth.
var terrains = []terrain{
	{name: "few", share: 55, size: 400, shortest: 19, wide: 10},
	{name: "clusters", share: 10, size: 2000, shortest: 1, wide: 40},
	{name: "many", share: 2, size: 60_000, prefill: 50_000, shortest: 8, wide: 4000},
	{name: "hosts", share: 33, size: 6000, shortest: 20, wide: 40},
}

// prefix draws from a few dense places, so that prefixes nest and meet, in both families.
func (g terrain) prefix(r *rand.Rand) netip.Prefix {
	six := r.IntN(2) == 1
	a := g.addr(r, six)
	bits := []int{32, 32, 32, 31, 30, 29, 28, 27, 26, 25, 24, 24, 23, 22, 21}[r.IntN(15)]
	if r.IntN(g.wide) == 0 {
		bits = g.shortest + r.IntN(21-g.shortest)
	}
	if six {
		if bits == 32 {
			bits = []int{128, 128, 127, 64, 64, 56, 48, 32}[r.IntN(8)]
		} else {
			bits = min(3*bits+r.IntN(30), 128)
		}
	}
	if six && r.IntN(2000) == 0 && g.shortest == 1 {
		bits = r.IntN(32)
	}
	return netip.PrefixFrom(a, bits).Masked()
}

func (g terrain) addr(r *rand.Rand, six bool) netip.Addr {
	if g.prefill > 0 && r.IntN(2) == 0 {
		if six {
			return netip.AddrFrom16([16]byte{0x20, 1, 0x0d, 0xb8, byte(r.IntN(256)), byte(r.IntN(256)), 0, 0, 0, 0, 0, 0, 0, 0, byte(r.IntN(256)), byte(r.IntN(256))})
		}
		return netip.AddrFrom4([4]byte{byte(r.IntN(224)), byte(r.IntN(256)), byte(r.IntN(256)), byte(r.IntN(256))})
	}
	place := byte(r.IntN(4))
	if six {
		return netip.AddrFrom16([16]byte{0x20, 1, 0x0d, 0xb8 + place, 0, byte(r.IntN(2)), 0, byte(r.IntN(3)), 0, 0, 0, 0, 0, 0, byte(r.IntN(2)), byte(r.IntN(64))})
	}
	return netip.AddrFrom4([4]byte{10 + 40*place, place, byte(r.IntN(40)), byte(r.IntN(256))})
}

func (g terrain) entry(r *rand.Rand) traffic.Entry {
	e := traffic.Entry{Prefix: g.prefix(r), Forced: r.IntN(8) == 0}
	if r.IntN(2) == 0 {
		e.Expires = time.Unix(0, int64(listClock)).Add(time.Duration(r.IntN(60)-20) * time.Second)
	}
	return e
}

func randomList(r *rand.Rand) traffic.List {
	return []traffic.List{traffic.ListBlock, traffic.ListBlock, traffic.ListBlock, traffic.ListAllow, traffic.ListProtected}[r.IntN(5)]
}

// raced: under the race detector, which makes each operation six times as long and looks for other mistakes.
var raced bool

// TestAMillionOperations compares the program with bart after each of a million random operations, at
// and beside the prefix that it was about, and at addresses elsewhere.
func TestAMillionOperations(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	operations := 1_000_000
	switch {
	case testing.Short():
		operations = 20_000
	case raced:
		operations = 100_000
	}
	for i, g := range terrains {
		t.Run(g.name, func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(seed, uint64(i)))
			p := newTester(t, Options{})
			m := newModel()
			g.fill(t, r, p, m)
			for range operations * g.share / 100 {
				g.operate(t, r, p, m)
			}
			if got := p.sources.Size(); m.size() < got {
				t.Errorf("%d prefixes in the plane, %d on the lists", got, m.size())
			}
			checkEdges(t, p)
			t.Logf("%d prefixes; %d lines, %d leaves, %d verdicts", p.sources.Size(),
				p.lists.usedLines4+p.lists.usedLines6, p.lists.usedLeaves4, p.lists.usedVerdicts)
		})
	}
}

// fill puts a list in force at once.
func (g terrain) fill(t *testing.T, r *rand.Rand, p *Tester, m *model) {
	t.Helper()
	list := randomList(r)
	entries := make([]traffic.Entry, g.prefill)
	for i := range entries {
		entries[i] = g.entry(r)
	}
	if err := p.Replace(list, entries); err != nil {
		t.Fatal(err)
	}
	m[list] = &bart.Table[traffic.Entry]{}
	for _, e := range entries {
		m.put(list, e)
	}
}

func (m *model) put(list traffic.List, e traffic.Entry) {
	e.Forced = e.Forced && list == traffic.ListBlock
	m[list].Insert(e.Prefix, e)
}

// operate puts or removes an entry, or, rarely, replaces a whole list.
func (g terrain) operate(t *testing.T, r *rand.Rand, p *Tester, m *model) {
	t.Helper()
	list := randomList(r)
	e := g.entry(r)
	var err error
	switch {
	case r.IntN(20_000) == 0:
		g.fill(t, r, p, m)
	case r.IntN(2*g.size) > m.size():
		err = p.Put(list, []traffic.Entry{e})
		m.put(list, e)
	default:
		e.Prefix = g.listed(r, m[list], e.Prefix)
		err = p.Remove(list, []netip.Prefix{e.Prefix})
		m[list].Delete(e.Prefix)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range append(edges(e.Prefix), within(r, e.Prefix), g.addr(r, e.Prefix.Addr().Is6())) {
		v, err := p.Run(tcpFrame(a), listClock)
		if err != nil {
			t.Fatal(err)
		}
		if want := m.verdict(a, time.Unix(0, int64(listClock))); v.Reason != want {
			t.Fatalf("after %v on %v: %v is %v, want %v; %v", e.Prefix, list, a, v.Reason, want, covering(p.sources, a))
		}
	}
}

// listed returns a prefix near another that is on the list, where there is one.
func (g terrain) listed(r *rand.Rand, t *bart.Table[traffic.Entry], near netip.Prefix) netip.Prefix {
	for p := range t.Supernets(near) {
		if r.IntN(2) == 0 {
			return p
		}
	}
	for p := range t.Subnets(near) {
		return p
	}
	for p := range t.Subnets(netip.PrefixFrom(near.Addr(), near.Addr().BitLen()/2).Masked()) {
		if r.IntN(4) == 0 {
			return p
		}
	}
	return near
}

// within returns a random address of a prefix.
func within(r *rand.Rand, p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < 8*len(b); i++ {
		if r.IntN(2) == 1 {
			b[i/8] ^= 0x80 >> (i % 8)
		}
	}
	a, _ := netip.AddrFromSlice(b)
	if a.Is4In6() {
		return p.Addr()
	}
	return a
}

// TestEdges puts hand-picked prefixes in, one by one and all at once, and takes them out
// again; after each step all addresses at their edges are asked.
func TestEdges(t *testing.T) {
	hosts := func(format string, n int) (all []string) {
		for i := range n {
			all = append(all, fmt.Sprintf(format, 3*i))
		}
		return all
	}
	for name, prefixes := range map[string][]string{
		"everything":          {"0.0.0.0/0", "::/0"},
		"halves":              {"0.0.0.0/1", "128.0.0.0/1", "::/1", "8000::/1", "192.0.2.1/32", "2001:db8::1/128"},
		"one chain":           {"0.0.0.0/0", "192.0.0.0/2", "192.0.0.0/8", "192.0.0.0/12", "192.0.0.0/20", "192.0.0.0/21", "192.0.2.0/23", "192.0.2.0/24", "192.0.2.0/25", "192.0.2.0/31", "192.0.2.1/32"},
		"the last of all":     {"255.255.255.255/32", "255.255.255.254/31", "255.255.255.0/24", "255.255.240.0/20", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128"},
		"the first of all":    {"0.0.0.0/32", "0.0.0.0/31", "0.0.0.0/24", "::/128", "::/127"},
		"a /24 and its hosts": append(hosts("192.0.2.%d/32", 60), "192.0.2.0/24", "192.0.2.128/25", "192.0.2.128/26"),
		"a /20 over leaves":   append(hosts("192.0.2.%d/32", 30), append(hosts("192.0.5.%d/32", 30), "192.0.0.0/20", "192.0.0.0/19", "192.0.4.0/22")...),
		"IPv6 nibbles":        {"2001:db8::/32", "2001:db8::/33", "2001:db8::/35", "2001:db8::/36", "2001:db8:8000::/33", "2001:db8:4000::/34", "2001:db8:0:8000::/49", "2001:db8::/61", "2001:db8::/62", "2001:db8::/63", "2001:db8::/64", "2001:db8::/65"},
		"IPv6 short":          {"2000::/3", "2000::/4", "2001::/16", "2001:c00::/23", "2001:d80::/25", "2001:db8::/29", "2001:db8::/30", "2001:db8::/31"},
		"IPv6 hosts":          append(hosts("2001:db8::%x/128", 40), "2001:db8::/121", "2001:db8::/122", "2001:db8::/127"),
	} {
		for _, expires := range []time.Time{{}, time.Unix(0, int64(listClock)).Add(time.Second)} {
			t.Run(fmt.Sprint(name, expires.IsZero()), func(t *testing.T) {
				p := newTester(t, Options{})
				step(t, p, prefixes, expires)
			})
		}
	}
}

func step(t *testing.T, p *Tester, prefixes []string, expires time.Time) {
	var all []traffic.Entry
	var probes []netip.Addr
	for _, prefix := range prefixes {
		e := entry(prefix)
		e.Expires = expires
		all = append(all, e)
		probes = append(probes, edges(e.Prefix)...)
	}
	ask := func(step int) {
		t.Helper()
		if testing.Short() && step%8 != 0 {
			return
		}
		for _, a := range probes {
			checkAddr(t, p, a)
		}
	}
	for i, e := range all {
		list := []traffic.List{traffic.ListBlock, traffic.ListBlock, traffic.ListAllow}[i%3]
		if err := p.Put(list, []traffic.Entry{e}); err != nil {
			t.Fatal(err)
		}
		ask(i)
	}
	for i, e := range all {
		for list := range traffic.NumLists {
			if err := p.Remove(list, []netip.Prefix{e.Prefix}); err != nil {
				t.Fatal(err)
			}
		}
		ask(i)
	}
	if p.sources.Size() != 0 || p.knobs.Listed != 0 {
		t.Errorf("%d entries left, listed %d", p.sources.Size(), p.knobs.Listed)
	}
	if err := p.Replace(traffic.ListBlock, all); err != nil {
		t.Fatal(err)
	}
	ask(0)
}
