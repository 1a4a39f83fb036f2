// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// storm runs packets of one source through the production program, whose clock and samplers are real.
func storm(t *testing.T, p *Plane, source string, packets int) (action uint32) {
	t.Helper()
	frame := tcpFrame(netip.MustParseAddr(source))
	for range packets {
		var err error
		if action, err = p.objs.Sentinel.Run(&ebpf.RunOptions{Data: frame}); err != nil {
			t.Fatal(err)
		}
	}
	return action
}

func newPlane(t *testing.T, o Options) *Plane {
	t.Helper()
	p, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// A ring that nobody reads fills up: verdicts do not change, what is lost is
// counted, and a late reader gets exactly what was sent.
func TestEventStormWithoutAReader(t *testing.T) {
	p := newPlane(t, Options{RingBytes: 4096, EventsPerSecond: 1e9})
	if err := p.Put(traffic.ListBlock, []traffic.Entry{entry("192.0.2.1/32")}); err != nil {
		t.Fatal(err)
	}
	const packets = 1000
	if action := storm(t, p, "192.0.2.1", packets); action != 1 {
		t.Errorf("a blocked packet returned action %d with a full ring", action)
	}
	c, err := p.Counters()
	if err != nil {
		t.Fatal(err)
	}
	// The first packet of each CPU only starts its sampler.
	made := c.EventsSent + c.EventsLost
	if c.EventsLost == 0 || c.EventsSent == 0 || made > packets || made < packets-uint64(ebpf.MustPossibleCPU()) {
		t.Errorf("%d packets: %d events sent, %d lost", packets, c.EventsSent, c.EventsLost)
	}
	if got := readEvents(t, p, c.EventsSent); got != c.EventsSent {
		t.Errorf("read %d events of %d sent", got, c.EventsSent)
	}
	// With room again, and a reader that came and went, none comes twice.
	storm(t, p, "192.0.2.1", 10)
	again, err := p.Counters()
	if err != nil {
		t.Fatal(err)
	}
	sent := again.EventsSent - c.EventsSent // less than 10 where the test has come to another CPU
	if sent == 0 || sent > 10 || again.EventsLost != c.EventsLost {
		t.Errorf("10 packets with room again: %d events sent, %d lost", sent, again.EventsLost-c.EventsLost)
	}
	if got := readEvents(t, p, sent); got != sent {
		t.Errorf("read %d events of %d after a reader restart", got, sent)
	}
}

// readEvents reads until there are n, or none for a while, and checks each.
func readEvents(t *testing.T, p *Plane, n uint64) (got uint64) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	idle := time.AfterFunc(2*time.Second, cancel)
	err := p.Events(ctx, func(e traffic.Event) {
		if e.Reason != traffic.ReasonBlocklist || e.Outcome != traffic.Dropped || e.Source != netip.MustParseAddr("192.0.2.1") ||
			e.Protocol != 6 || e.SourcePort != 1024 || e.DestPort != 80 || e.TTL != 64 || e.Length != 54 || time.Since(e.Time) > time.Minute {
			t.Errorf("event %+v", e)
		}
		if got++; got == n {
			idle.Reset(100 * time.Millisecond) // one too many would still come
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// The budget holds however many packets there are, and none is sampled without one.
func TestEventBudget(t *testing.T) {
	p := newPlane(t, Options{EventsPerSecond: 10 * ebpf.MustPossibleCPU()}) // one a window and CPU
	start := time.Now()
	storm(t, p, "192.0.2.1", 20000)
	windows := uint64(time.Since(start)/eventWindow) + 2
	c, err := p.Counters()
	if err != nil {
		t.Fatal(err)
	}
	if c.EventsSent == 0 || c.EventsSent > windows*uint64(ebpf.MustPossibleCPU()) {
		t.Errorf("%d events in %d windows with a budget of one", c.EventsSent, windows)
	}
	if err := p.Apply(Settings{}); err != nil {
		t.Fatal(err)
	}
	storm(t, p, "192.0.2.1", 1000)
	after, err := p.Counters()
	if err != nil {
		t.Fatal(err)
	}
	if after.EventsSent != c.EventsSent || after.EventsLost != 0 {
		t.Errorf("sampled without a budget: %d, then %d", c.EventsSent, after.EventsSent)
	}
}

// Under many packets, samples are spread at the distance that the budget allows.
func TestSamplingAdapts(t *testing.T) {
	p := newPlane(t, Options{EventsPerSecond: 1000})
	for _, c := range []struct {
		passed, dropped     float64
		every, everyDropped uint32
	}{{0, 0, 1, 1}, {500, 500, 1, 1}, {5000, 50, 10, 1}, {1e6, 3e6, 2000, 6000}} {
		if err := p.AdaptSampling(c.passed, c.dropped); err != nil {
			t.Fatal(err)
		}
		if p.knobs.SamplePassed != c.every || p.knobs.SampleDropped != c.everyDropped {
			t.Errorf("at %v passed, %v dropped: every %d and %d", c.passed, c.dropped, p.knobs.SamplePassed, p.knobs.SampleDropped)
		}
	}
	if err := p.AdaptSampling(1e6, 0); err != nil {
		t.Fatal(err)
	}
	if err := p.Apply(Settings{EventsPerSecond: 1e9}); err != nil {
		t.Fatal(err)
	}
	if err := p.AdaptSampling(1e11, 0); err != nil { // every 200th
		t.Fatal(err)
	}
	storm(t, p, "192.0.2.1", 20000)
	c, err := p.Counters()
	if err != nil {
		t.Fatal(err)
	}
	if c.EventsSent < 50 || c.EventsSent > 200 {
		t.Errorf("%d events of 20000 packets, about 100 wanted", c.EventsSent)
	}
}

func TestLatencyIsSampled(t *testing.T) {
	p := newPlane(t, Options{})
	storm(t, p, "192.0.2.1", 50*sampleLatency)
	c, err := p.Counters()
	if err != nil {
		t.Fatal(err)
	}
	var samples uint64
	for _, n := range c.Latency.Buckets {
		samples += n
	}
	if samples < 10 || samples > 200 || c.Latency.Quantile(.5) == 0 {
		t.Errorf("%d samples of %d packets, about 50 wanted; p50 %v", samples, 50*sampleLatency, c.Latency.Quantile(.5))
	}
}

// Each refusal of the kernel to attach becomes a sentence that says what to do.
func TestAttachErrorsSayWhatToDo(t *testing.T) {
	for _, c := range []struct {
		err  error
		mode Mode
		mtu  int
		want string
	}{
		{unix.EINVAL, ModeNative, 9000, "ip link set eth9 mtu 1500"},
		{unix.EINVAL, ModeNative, 1500, "queues"},
		{unix.EOPNOTSUPP, ModeNative, 1500, "--mode generic"},
		{unix.EBUSY, ModeNative, 1500, "--replace"},
		{unix.EEXIST, ModeGeneric, 1500, "--replace"},
		{unix.EINVAL, ModeOffload, 1500, "--mode auto"},
	} {
		err := explainAttach(c.err, &attached{Attachment: Attachment{Interface: "eth9", MTU: c.mtu}}, c.mode)
		if !errors.Is(err, c.err) || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "eth9") {
			t.Errorf("%v in %s mode: %q lacks %q", c.err, c.mode, err, c.want)
		}
	}
}
