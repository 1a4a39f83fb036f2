// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/sentinel-x/sentinel-x/internal/dataplane/packettest"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// TestKernelLimit: costs keep clear of the tag, every frame costs less than the reach, and none is free.
func TestKernelLimit(t *testing.T) {
	for _, c := range []struct {
		limit        traffic.Limit
		factor       uint64
		packet, byte uint64 // ticks·2^-16
	}{
		{traffic.Limit{}, 1, 0, 0},
		{traffic.Limit{Packets: 10}, 0, 0, 0},
		{traffic.Limit{Packets: 10}, 1, 4e8 * tick, 0},
		{traffic.Limit{Packets: 10}, 4, 1e8 * tick, 0},
		{traffic.Limit{Packets: 5e6}, 1, 800 * tick, 0},
		{traffic.Limit{Packets: 1e9}, 1e6, tick, 0},
		{traffic.Limit{Bytes: 1e6}, 1, 0, 4000 * tick},
		{traffic.Limit{Bytes: 1e12}, 1, 0, 262},
		{traffic.Limit{Bytes: 1e12}, 1e6, 0, 1},
		{traffic.Limit{Bytes: 1}, 1, 0, maxReach / largestFrame},
	} {
		k := kernelLimit(c.limit, c.factor)
		if k.PacketCost != c.packet || k.ByteCost != c.byte {
			t.Errorf("%+v × %d: costs %d and %d, want %d and %d", c.limit, c.factor, k.PacketCost, k.ByteCost, c.packet, c.byte)
		}
		if r := reach(k); r > maxReach || r < k.Burst || r < k.PacketCost {
			t.Errorf("%+v × %d: reach %d", c.limit, c.factor, r)
		}
		if c.factor > 0 && k.Burst != uint64(80e6*tick+tick-1) {
			t.Errorf("%+v: burst %d, want the least there is", c.limit, k.Burst)
		}
	}
}

// TestSourceOnTwoCPUs: two CPUs that meter one source at once let pass what one would, and a
// sweep meanwhile changes nothing.
func TestSourceOnTwoCPUs(t *testing.T) {
	const steps, step, offered, rate = 40, 5 * time.Millisecond, 2000, 100_000
	p, err := NewTester(Options{Sources: 1024})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	limits := traffic.Limits{Class: traffic.ClassLimits{traffic.ClassAll: {Packets: rate, Bytes: 1e9, Burst: leastBurst}}}
	if err := p.SetLimits(limits); err != nil {
		t.Fatal(err)
	}
	start := time.Duration(1e18)
	for i := range steps {
		now := start + time.Duration(i)*step
		if err := p.objs.ReplayNow.Set(uint64(now)); err != nil {
			t.Fatal(err)
		}
		var both sync.WaitGroup
		for cpu := range 2 {
			both.Go(func() { p.runOn(t, cpu, offered) })
		}
		p.SweepMeter(now)
		both.Wait()
	}
	c, err := p.Counters()
	if err != nil {
		t.Fatal(err)
	}
	// A signal has a run begin anew: a few packets more.
	if seen := c.Seen.Packets; seen < 2*steps*offered {
		t.Fatalf("%d packets seen", seen)
	}
	want := rate * (leastBurst + (steps-1)*step).Seconds()
	got := float64(c.Reason(traffic.ReasonPass).Packets)
	if got < 0.95*want || got > 1.05*want {
		t.Errorf("%.0f packets passed, want %.0f", got, want)
	}
}

// runOn runs one packet n times on a CPU, where there is such a one.
func (t *Tester) runOn(tb testing.TB, cpu, n int) {
	runtime.LockOSThread() // and never unlocked: the thread ends with its affinity
	var set unix.CPUSet
	set.Set(cpu % runtime.NumCPU())
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		tb.Logf("bind to CPU %d: %v", cpu, err)
	}
	frame := packettest.GoodPackets()[0].Frame
	if _, err := t.objs.Sentinel.Run(&ebpf.RunOptions{Data: frame, Repeat: uint32(n)}); err != nil {
		tb.Errorf("run: %v", err)
	}
}

// TestMeterSize: the meter has a page while there are no limits, and then a line for four sources.
func TestMeterSize(t *testing.T) {
	for _, c := range []struct{ sources, lines int }{
		{1, 1024}, {4096, 1024}, {4097, 2048}, {8192, 2048}, {8193, 4096}, {defaultSources, 16384},
	} {
		p := newPlane(t, Options{Sources: c.sources})
		if got := p.meter.lines(); got != 64 {
			t.Errorf("%d sources, no limit: %d lines", c.sources, got)
		}
		limits := traffic.Limits{Target: traffic.ClassLimits{traffic.ClassUDP: {Bytes: 1}}}
		if err := p.SetLimits(limits); err != nil {
			t.Fatal(err)
		}
		if got := p.meter.lines(); got != c.lines || p.knobs.MeterMask != uint32(c.lines-1) {
			t.Errorf("%d sources: %d lines, mask %#x, want %d", c.sources, got, p.knobs.MeterMask, c.lines)
		}
		meter := p.meter
		if err := p.Apply(Settings{}); err != nil {
			t.Fatal(err)
		}
		if p.meter != meter || p.knobs.Limited != [2]uint8{} {
			t.Error("without limits the meter was replaced, or is still asked")
		}
	}
}

// TestDefaultMemory: 65 536 sources and empty lists take at most 5.2 MB.
func TestDefaultMemory(t *testing.T) {
	p := newPlane(t, Options{EventsPerSecond: 1000})
	if err := p.SetLimits(traffic.Limits{Class: traffic.ClassLimits{traffic.ClassAll: {Packets: 1}}}); err != nil {
		t.Fatal(err)
	}
	maps, err := p.Memory()
	if err != nil {
		t.Fatal(err)
	}
	var sum uint64
	for _, m := range maps {
		sum += m.Bytes
	}
	t.Logf("%d bytes: %+v", sum, maps)
	if sum > 5_200_000 {
		t.Errorf("the maps take %d bytes", sum)
	}
}

// TestSweepKeepsWhatIsInUse: only what has been empty for ten minutes, or cannot be true, is touched.
func TestSweepKeepsWhatIsInUse(t *testing.T) {
	now, tag := ticks(100*time.Hour), uint64(0xbeef)
	reach := ticks(3 * time.Second)
	for _, c := range []struct {
		name    string
		ahead   time.Duration
		touched bool
	}{
		{"in use", 2 * time.Second, false},
		{"empty since now", 0, false},
		{"empty for a minute", -time.Minute, false},
		{"empty for an hour", -time.Hour, true},
		{"empty for 19 hours", -19 * time.Hour, true},
		{"beyond reach", 4 * time.Second, true},
	} {
		word := now + ticks(c.ahead) | tag
		want := word
		if c.touched {
			want = now | tag
		}
		if refresh(&word, now, reach); word != want {
			t.Errorf("%s: %#x, want %#x", c.name, word, want)
		}
	}
}
