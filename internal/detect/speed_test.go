// SPDX-License-Identifier: Apache-2.0

package detect

import (
	"encoding/binary"
	"net/netip"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// busyTick returns one window for each of n targets, of web traffic with samples.
func busyTick(n int) []traffic.Window {
	s := newSim(1)
	w := s.window(victim)
	s.clients(&w, 4000, 3000)
	windows := make([]traffic.Window, n)
	for i := range windows {
		var a [4]byte
		binary.BigEndian.PutUint32(a[:], 0xc6336400+uint32(i)) // 198.51.100.0 and on
		windows[i] = w
		windows[i].Target, windows[i].Samples = traffic.HostTarget(netip.AddrFrom4(a)), w.Samples[:8] // 20 000 a second in all
	}
	return windows
}

func extractTick(x *Extractor, at *time.Time, windows []traffic.Window, v Vector) {
	*at = at.Add(traffic.Tick)
	if !x.Begin(*at, traffic.Tick) {
		panic("tick refused")
	}
	for i := range windows {
		x.Stream(&windows[i], v)
	}
}

// TestFeaturesDoNotAllocate: in steady state a window costs no memory.
func TestFeaturesDoNotAllocate(t *testing.T) {
	x, at, v := NewExtractor(16), epoch, make(Vector, NumFeatures())
	windows := busyTick(16)
	for range 100 {
		extractTick(x, &at, windows, v)
	}
	if n := testing.AllocsPerRun(50, func() { extractTick(x, &at, windows, v) }); n != 0 {
		t.Errorf("a tick of 16 targets allocates %g times", n)
	}
}

// BenchmarkFeatures is one tick of 256 active targets.
func BenchmarkFeatures(b *testing.B) {
	x, at, v := NewExtractor(4096), epoch, make(Vector, NumFeatures())
	windows := busyTick(256)
	extractTick(x, &at, windows, v)
	before := processorTime(b)
	for b.Loop() {
		extractTick(x, &at, windows, v)
	}
	b.ReportMetric(float64(processorTime(b)-before)/float64(b.N)/1e6, "cpu-ms/tick")
}

// processorTime returns what the process has used: elapsed time says little on
// a machine that does other things too.
func processorTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// TestMemoryOfATarget: 4 096 targets with a whole week behind them fit into a
// daemon of 96 MiB.
func TestMemoryOfATarget(t *testing.T) {
	const most = 14 << 10
	size := unsafe.Sizeof(Track{}) + 7*24*unsafe.Sizeof(hourLevel{}) + uintptr(NumFeatures())*unsafe.Sizeof(bounds{})
	if size > most {
		t.Errorf("a target takes %d bytes, want at most %d", size, most)
	}
	t.Logf("a target takes %d bytes; 4096 of them and the memory of sources %d MiB", size, (4096*size+2*8*memoryWords)>>20)
}
