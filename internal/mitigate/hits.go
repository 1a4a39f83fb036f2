// SPDX-License-Identifier: Apache-2.0

package mitigate

import (
	"net/netip"
	"sync"
	"time"

	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

const (
	// maxSampled sources of one list are told apart between two counts; more only
	// make the shares of the others smaller, as they must.
	maxSampled = 1 << 14
	// maxHit entries of one list have their hits counted, so that a million
	// entries under fire do not take a million counters.
	maxHit = 1 << 16
)

// hit is what an entry has done, as far as samples tell.
type hit struct {
	packets float64
	last    time.Time
}

// sampled is what was seen of one source since the last count.
type sampled struct {
	packets uint64
	last    time.Time
}

// tally collects the samples of one list until the packets that they stand for
// are known. It has a lock of its own: samples must not wait for an import.
type tally struct {
	mu      sync.Mutex
	sources map[netip.Addr]sampled
	total   uint64
	packets uint64 // counted, but not one of them was sampled yet
}

// Hit notes a sampled packet whose source ended it on a list, at a time. It never waits long.
func (l *Ledger) Hit(list traffic.List, source netip.Addr, at time.Time) {
	t := l.tallies[list]
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.total++
	s, known := t.sources[source]
	if !known && len(t.sources) == maxSampled {
		return
	}
	t.sources[source] = sampled{s.packets + 1, at}
}

// take returns the samples so far and how many packets they stand for; no
// samples if there is nothing to share out yet.
func (t *tally) take(packets uint64) (sources map[netip.Addr]sampled, total, stand uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.packets += packets
	if t.packets == 0 || t.total == 0 {
		return nil, 0, 0
	}
	sources, total, stand = t.sources, t.total, t.packets
	t.sources, t.total, t.packets = map[netip.Addr]sampled{}, 0, 0
	return sources, total, stand
}

// CountHits shares out the packets that ended on a list since the last call
// among the entries that the samples since then hit: an entry gets the part that
// its samples are of all. So the sum is exact whatever the sampling distance was
// and however many samples were lost. Packets without any sample wait for one.
func (l *Ledger) CountHits(list traffic.List, packets uint64) {
	t := l.tallies[list]
	if t == nil {
		return
	}
	sources, total, stand := t.take(packets)
	if total == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.o.Now()
	for source, s := range sources {
		p, ok := l.longest(list, source, now)
		if !ok {
			continue // the entry has ended meanwhile, or it covers only the outer source of a tunnel
		}
		h, known := l.hits[list][p]
		if !known && len(l.hits[list]) == maxHit {
			continue
		}
		h.packets += float64(stand) * float64(s.packets) / float64(total)
		if s.last.After(h.last) {
			h.last = s.last
		}
		l.hits[list][p] = h
	}
}

// longest returns the entry that the packet path goes by: the longest that covers a source.
func (l *Ledger) longest(list traffic.List, source netip.Addr, now time.Time) (netip.Prefix, bool) {
	for bits := source.BitLen(); bits >= 0 && source.IsValid(); bits-- {
		p := netip.PrefixFrom(source, bits).Masked()
		if s := l.lists[list][p].at(now); !s.empty() {
			return p, true
		}
	}
	return netip.Prefix{}, false
}

// withHits fills in what an entry has done.
func (l *Ledger) withHits(list traffic.List, e traffic.Entry) traffic.Entry {
	if h, ok := l.hits[list][e.Prefix]; ok {
		e.Hits, e.LastHit = uint64(h.packets+0.5), h.last
	}
	return e
}
