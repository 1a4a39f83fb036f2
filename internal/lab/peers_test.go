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
	_, err := BenchPeers(ctx, config.Default(), PeerSizes{Rounds: 1000, Duration: 100 * time.Millisecond, Prefixes: 1})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
}

// Whatever the number of prefixes, every source of the flood is in one of them, no
// client is, and they do not overlap.
func TestBlockedPrefixesHoldTheFlood(t *testing.T) {
	for _, n := range []int{1, 2, 3, 100, 10_000, MaxPeerPrefixes} {
		all := blockedPrefixes(n)
		if len(all) != n {
			t.Fatalf("%d prefixes, want %d", len(all), n)
		}
		seen := map[netip.Prefix]bool{}
		var covered int
		for _, p := range all {
			if p != p.Masked() || seen[p] || p.Overlaps(clientNet) || p.Bits() != all[0].Bits() {
				t.Fatalf("%d prefixes: bad %v", n, p)
			}
			seen[p] = true
			if floodNet.Contains(p.Addr()) {
				covered += 1 << (32 - p.Bits())
			}
		}
		if covered != peerSources {
			t.Errorf("%d prefixes hold %d sources, want %d", n, covered, peerSources)
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
		s := peerSamples{}
		err := s.add(c.filter, a, b)
		if (err != nil) != c.fails {
			t.Errorf("%s: error %v", name, err)
			continue
		}
		if !c.fails && (s.mpps[0] != c.mpps || s.thread[0] != 2*c.mpps || s.offered[0] != 2 || s.cpu[0] != 90) {
			t.Errorf("%s: %+v", name, s)
		}
	}
}
