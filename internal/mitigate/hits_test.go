// SPDX-License-Identifier: Apache-2.0

package mitigate

import (
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

func hitsOf(b *bench, list traffic.List) map[string]uint64 {
	out := map[string]uint64{}
	for _, e := range b.Entries(list) {
		out[e.Prefix.String()] = e.Hits
	}
	return out
}

func wantHits(t *testing.T, b *bench, list traffic.List, want map[string]uint64) {
	t.Helper()
	got := hitsOf(b, list)
	for p, n := range want {
		if got[p] != n {
			t.Errorf("%s list: %s has %d hits, want %d", list, p, got[p], n)
		}
	}
}

func sample(b *bench, list traffic.List, source string, times int) {
	for range times {
		b.Hit(list, netip.MustParseAddr(source), b.now)
	}
}

// The samples say who was hit, the counters how often, and the longest entry gets it.
func TestHitsAreSharedOut(t *testing.T) {
	b := newBench(t, 100)
	mustAdd(t, b, block, entry("192.0.2.0/24"), entry("192.0.2.7/32"), entry("2001:db8::/32"), entry("198.51.100.0/24"))
	mustAdd(t, b, allow, entry("192.0.2.0/24"))
	sample(b, block, "192.0.2.7", 3)
	sample(b, block, "192.0.2.8", 1)
	sample(b, block, "2001:db8::9", 4)
	b.CountHits(block, 8000)
	wantHits(t, b, block, map[string]uint64{"192.0.2.7/32": 3000, "192.0.2.0/24": 1000, "2001:db8::/32": 4000, "198.51.100.0/24": 0})
	wantHits(t, b, allow, map[string]uint64{"192.0.2.0/24": 0})
	b.now = start.Add(time.Second)
	sample(b, block, "192.0.2.8", 1)
	b.CountHits(block, 7)
	wantHits(t, b, block, map[string]uint64{"192.0.2.7/32": 3000, "192.0.2.0/24": 1007})
	found := b.Find(netip.MustParseAddr("192.0.2.8"))
	if len(found) != 2 || found[1].Entry.Hits != 1007 || !found[1].Entry.LastHit.Equal(b.now) {
		t.Errorf("%+v", found)
	}
	if e := b.Entries(block)[1]; e.Prefix.Bits() != 32 || !e.LastHit.Equal(start) {
		t.Errorf("%+v", e)
	}
}

// Packets that came before their samples, or samples before their packets, wait for each other.
func TestHitsWait(t *testing.T) {
	b := newBench(t, 100)
	mustAdd(t, b, block, entry("192.0.2.7/32"))
	b.CountHits(block, 500)
	wantHits(t, b, block, map[string]uint64{"192.0.2.7/32": 0})
	sample(b, block, "192.0.2.7", 1)
	b.CountHits(block, 0)
	wantHits(t, b, block, map[string]uint64{"192.0.2.7/32": 500})
	sample(b, block, "192.0.2.7", 2)
	b.CountHits(block, 0)
	b.CountHits(block, 40)
	wantHits(t, b, block, map[string]uint64{"192.0.2.7/32": 540})
}

// What no entry covers any more takes its share with it, and is given to nobody.
func TestHitsOfNoEntry(t *testing.T) {
	b := newBench(t, 100)
	mustAdd(t, b, block, entry("192.0.2.7/32", time.Second), entry("192.0.2.0/24"))
	sample(b, block, "203.0.113.1", 1)
	sample(b, block, "192.0.2.7", 1)
	b.now = start.Add(time.Second) // the packet path skips what has ended, too
	b.CountHits(block, 10)
	wantHits(t, b, block, map[string]uint64{"192.0.2.0/24": 5})
	b.Hit(block, netip.Addr{}, b.now)
	b.CountHits(block, 10)
	b.Hit(traffic.ListProtected, netip.MustParseAddr("192.0.2.7"), b.now)
	b.CountHits(traffic.ListProtected, 10)
	wantHits(t, b, block, map[string]uint64{"192.0.2.0/24": 5})
}

// Hits go with their entry: one that is added again begins anew, one that is changed goes on.
func TestHitsGoWithTheirEntry(t *testing.T) {
	b := newBench(t, 100)
	mustAdd(t, b, block, entry("192.0.2.7/32"))
	sample(b, block, "192.0.2.7", 1)
	b.CountHits(block, 9)
	mustAdd(t, b, block, entry("192.0.2.7/32", "why"))
	wantHits(t, b, block, map[string]uint64{"192.0.2.7/32": 9})
	_, _, err := b.Delete(block, prefixList("192.0.2.7/32"))
	mustDo(t, err)
	mustAdd(t, b, block, entry("192.0.2.7/32"))
	wantHits(t, b, block, map[string]uint64{"192.0.2.7/32": 0})
	if n := len(b.hits[block]); n != 0 {
		t.Errorf("%d counters left", n)
	}
}

// Neither sources nor entries take memory without bound, and those beyond it still take their share.
func TestHitsAreBounded(t *testing.T) {
	b := newBench(t, 100)
	mustAdd(t, b, block, entry("10.0.0.0/8"), entry("192.0.2.7/32"))
	sample(b, block, "192.0.2.7", maxSampled)
	for i := range 2 * maxSampled {
		b.Hit(block, netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), b.now)
	}
	if n := len(b.tallies[block].sources); n != maxSampled {
		t.Errorf("%d sources are told apart, want %d", n, maxSampled)
	}
	b.CountHits(block, 3*maxSampled)
	wantHits(t, b, block, map[string]uint64{"192.0.2.7/32": maxSampled, "10.0.0.0/8": maxSampled - 1})
	clear(b.hits[block])
	for i := range maxHit {
		b.hits[block][netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 51, byte(i >> 8), byte(i)}), 32)] = hit{}
	}
	sample(b, block, "192.0.2.7", 1)
	b.CountHits(block, 1)
	if n := len(b.hits[block]); n != maxHit {
		t.Errorf("%d entries are counted, want %d", n, maxHit)
	}
}

func TestHitsConcurrently(t *testing.T) {
	b := newBench(t, 100)
	mustAdd(t, b, block, entry("192.0.2.0/24"))
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 1000 {
				b.Hit(block, netip.MustParseAddr("192.0.2.7"), start)
				b.CountHits(block, 10)
				b.Entries(block)
			}
		})
	}
	wg.Wait()
	b.Hit(block, netip.MustParseAddr("192.0.2.7"), start)
	b.CountHits(block, 0)
	wantHits(t, b, block, map[string]uint64{"192.0.2.0/24": 40000})
}
