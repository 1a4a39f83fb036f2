// SPDX-License-Identifier: Apache-2.0

package scene

import (
	"net/netip"
	"testing"
	"time"

	"github.com/sentinel-x/sentinel-x/internal/dataplane"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// The packet path makes the same windows of a scene, but for where its own hash puts a value: of
// those histograms the sums are compared, and how many bins are in use.
func TestPacketPathMakesTheSameWindows(t *testing.T) {
	for _, s := range []Scenario{
		{Family: "mixed", Kind: traffic.KindOther, Profile: "hosting", Target: target4},
		{Family: "amplification_dns", Kind: traffic.KindAmplification, Profile: "vpn", Target: target6},
		{Family: "flash_crowd", Profile: "web", Target: target4},
		{Family: "tcp_flags", Kind: traffic.KindOther, Profile: "eyeball", Target: target6},
	} {
		s.Onset, s.End, s.Length = 300*time.Millisecond, 800*time.Millisecond, time.Second
		s.Ratio, s.Baseline, s.Seed = 8, 1500, 17
		compareWithKernel(t, &s)
	}
}

func compareWithKernel(t *testing.T, s *Scenario) {
	t.Helper()
	tester, err := dataplane.NewTester(dataplane.Options{MaxTargets: 16})
	if err != nil {
		t.Fatal(err)
	}
	defer tester.Close()
	targets := s.Watch()
	if err := tester.SetTargets([]netip.Prefix{targets[0].Prefix, targets[1].Prefix}); err != nil {
		t.Fatal(err)
	}
	start := time.Unix(3600, 0)
	kernel := map[traffic.Target]*traffic.Window{}
	source := open(t, s)
	var p Packet
	more := source.Next(&p)
	for w := range Windows(open(t, s), CounterOptions{Targets: targets, Start: start, Length: s.Length}) {
		if w.Target == targets[0] { // the first of a tick
			end := w.Start.Add(traffic.Tick)
			for ; more && start.Add(p.Time).Before(end); more = source.Next(&p) {
				if _, err := tester.Run(p.Frame, time.Duration(start.Add(p.Time).UnixNano())); err != nil {
					t.Fatal(err)
				}
			}
			windows, err := tester.Tick(end)
			if err != nil {
				t.Fatal(err)
			}
			clear(kernel)
			for i := range windows {
				kernel[windows[i].Target] = &windows[i]
			}
		}
		if k := kernel[w.Target]; k == nil {
			t.Errorf("%s at %v: no window of %v", s.Family, w.Start, w.Target)
		} else {
			sameWindow(t, s.Family, k, w)
		}
	}
}

func sameWindow(t *testing.T, name string, kernel, here *traffic.Window) {
	t.Helper()
	want := here.Tally
	want.Dropped, want.DroppedBytes = kernel.Dropped, kernel.DroppedBytes // nothing is, in a window of Windows
	if kernel.Tally != want {
		t.Errorf("%s: %v at %v: the packet path counts %+v, here %+v", name, here.Target, here.Start, kernel.Tally, want)
	}
	k, h := &kernel.Histograms, &here.Histograms
	if k.Counted != h.Counted || k.Lengths != h.Lengths || k.TTLs != h.TTLs {
		t.Errorf("%s: %v at %v: %d packets in histograms, here %d, or other lengths and TTLs", name, here.Target, here.Start, k.Counted, h.Counted)
	}
	for i, bins := range [][2][]uint32{
		{k.Sources[:], h.Sources[:]},
		{k.SourceNets[:], h.SourceNets[:]},
		{k.SourcePorts[:], h.SourcePorts[:]},
		{k.DestPorts[:], h.DestPorts[:]},
		{k.Fingerprints[:], h.Fingerprints[:]},
	} {
		sum, used := shape(bins[0])
		wantSum, wantUsed := shape(bins[1])
		if sum != wantSum || used > wantUsed+wantUsed/4+4 || wantUsed > used+used/4+4 {
			t.Errorf("%s: %v at %v: histogram %d has %d packets in %d bins, here %d in %d", name, here.Target, here.Start, i, sum, used, wantSum, wantUsed)
		}
	}
}

func shape(bins []uint32) (sum uint64, used int) {
	for _, n := range bins {
		sum += uint64(n)
		used += int(bit(n > 0, 0))
	}
	return sum, used
}
