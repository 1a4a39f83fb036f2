// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/sentinel-x/sentinel-x/internal/config"
)

// An interrupted comparison says so, and not that a filter failed.
func TestPeersEndWhenInterrupted(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err := BenchPeers(ctx, config.Default(), PeerSizes{Rounds: 1000, Duration: 100 * time.Millisecond, Prefixes: 1, Sources: 1000})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
}

// Whatever the number of prefixes, every source of the flood is in one of them, no
// client is, and they do not overlap.
func TestBlockedPrefixesHoldTheFlood(t *testing.T) {
	for _, sources := range []int{1, 2, 8192, 8193, MaxPeerSources} {
		for _, n := range []int{1, 2, 3, 100, 10_000, MaxPeerPrefixes} {
			all := blockedPrefixes(n, sources)
			if len(all) != n {
				t.Fatalf("%d prefixes, want %d", len(all), n)
			}
			seen := map[netip.Prefix]bool{}
			var covered int
			for _, p := range all {
				if p != p.Masked() || seen[p] || p.Overlaps(clientNet) || p.Bits() != all[0].Bits() {
					t.Fatalf("%d prefixes for %d sources: bad %v", n, sources, p)
				}
				seen[p] = true
				if floodNet.Contains(p.Addr()) {
					covered += 1 << (32 - p.Bits())
				}
			}
			if covered < sources || covered >= 2*sources && sources > 1 {
				t.Errorf("%d prefixes hold %d addresses, of %d sources", n, covered, sources)
			}
		}
	}
}

func TestPeersCountOnlyWhatWasDropped(t *testing.T) {
	a := peerSight{}
	b := peerSight{received: 1_000_000, sent: 2_000_000, stack: 200_000, busy: 90, busyOrIdle: 100, thread: 500_000_000}
	b.at = a.at.Add(1e9)
	for name, c := range map[string]struct {
		filter peerFilter
		mpps   float64
		fails  bool
	}{
		"a filter that leaks":         {peerFilter{name: "leaky"}, 0, true},
		"a limit lets its rate pass":  {peerFilter{name: "meter", rate: 2}, 0.8, false},
		"what the stack drops itself": {peerFilter{name: peerNone}, 0, true},
	} {
		run := peerRun{filter: c.filter, sources: MaxPeerSources}
		err := run.add(a, b)
		s := run.samples
		if (err != nil) != c.fails {
			t.Errorf("%s: error %v", name, err)
			continue
		}
		if !c.fails && (s.mpps[0] != c.mpps || s.thread[0] != 2*c.mpps || s.offered[0] != 2 || s.cpu[0] != 90 || s.passed[0] != 0.2) {
			t.Errorf("%s: %+v", name, s)
		}
	}
}

// Round by round, so that a slow round of both is no difference, and one lucky round none either.
func TestPeersAreComparedRoundByRound(t *testing.T) {
	rounds := func(thread ...float64) peerSamples {
		return peerSamples{mpps: thread, thread: thread, offered: thread, cpu: thread, passed: thread}
	}
	cases := peerCases([]*peerRun{
		{filter: peerFilter{name: peerBare}, samples: rounds(10, 4, 8)},
		{filter: peerFilter{name: "other"}, samples: rounds(5, 2, 8)},
	})
	if c := cases[0]; c.OfBare != 1 || c.ThreadBare != 1 || c.MPPS != 8 {
		t.Errorf("the bare program: %+v", c)
	}
	if c := cases[1]; c.OfBare != 0.5 || c.ThreadBare != 0.5 || c.MPPS != 5 || c.ThreadMin != 2 || c.ThreadMax != 8 {
		t.Errorf("the other: %+v", c)
	}
	for want, x := range map[float64][]float64{0: nil, 3: {3}, 2: {3, 1}, 7: {9, 1, 7}} {
		if got := median(x); got != want {
			t.Errorf("median of %v: %v, want %v", x, got, want)
		}
	}
}

// A program that ends at once, or never filters, is missing and says why; one that filters is ended.
func TestPeersInTheBackground(t *testing.T) {
	never, at := func() bool { return false }, func() bool { return true }
	n, err := NewNet(NetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		script, want string
		ready        func() bool
	}{
		{"echo no such interface; exit 3", "sh ended before it filtered: exit status 3: no such interface", never},
		{"exec sleep 1000", "", at},
	} {
		r := &peerRun{ctx: t.Context(), net: n}
		got := ""
		if err := r.background(c.ready, "sh", "-c", c.script); err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", c.script, got, c.want)
		}
		if err := r.release(); err != nil {
			t.Error(err)
		}
	}
	if err := n.Close(); err != nil {
		t.Error(err)
	}
}
