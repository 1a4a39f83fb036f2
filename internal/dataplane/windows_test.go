// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"encoding/binary"
	"fmt"
	"math"
	"net/netip"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"

	"github.com/sentinel-x/sentinel-x/internal/signature"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// toHost returns a TCP packet from source to 198.51.100.host.
func toHost(source string, host byte) []byte {
	f := tcpFrame(netip.MustParseAddr(source))
	f[33] = host
	return f
}

func hostTarget(host byte) traffic.Target {
	return traffic.HostTarget(netip.AddrFrom4([4]byte{198, 51, 100, host}))
}

var testNetwork = netip.MustParsePrefix("198.51.100.0/24")

// ticker sends packets through a program and ends ticks, in the program's injected time.
type ticker struct {
	*Tester
	at time.Duration
}

func newTicker(t testing.TB, o Options, prefixes ...netip.Prefix) *ticker {
	t.Helper()
	p, err := NewTester(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	if err := p.SetTargets(prefixes); err != nil {
		t.Fatal(err)
	}
	return &ticker{p, time.Hour}
}

// send returns how many packets it were: of many at once, a few more where a signal had the call begin anew.
func (k *ticker) send(t testing.TB, frame []byte, packets int) uint64 {
	t.Helper()
	before, err := k.Counters()
	if err != nil {
		t.Fatal(err)
	}
	if err := k.objs.ReplayNow.Set(uint64(k.at)); err != nil {
		t.Fatal(err)
	}
	run := ebpf.RunOptions{Data: frame, Repeat: 1}
	if packets > 5000 { // to be run more than once, the kernel waits for all CPUs: milliseconds
		run.Repeat, packets = uint32(packets), 1
	}
	for range packets {
		if _, err := k.objs.Sentinel.Run(&run); err != nil {
			t.Fatal(err)
		}
	}
	after, err := k.Counters()
	if err != nil {
		t.Fatal(err)
	}
	return after.Seen.Packets - before.Seen.Packets
}

func (k *ticker) next(t testing.TB) map[traffic.Target]traffic.Window {
	t.Helper()
	k.at += traffic.Tick
	windows, err := k.Tick(time.Unix(0, int64(k.at)))
	if err != nil {
		t.Fatal(err)
	}
	all := map[traffic.Target]traffic.Window{}
	for _, w := range windows {
		all[w.Target] = w
	}
	return all
}

// A host in a watched network has a slot within two ticks of its first packets, and what it had before is in its
// network's window: nothing is lost on the way.
func TestWindowsHostGetsASlot(t *testing.T) {
	k := newTicker(t, Options{MaxTargets: 32}, testNetwork)
	var host, network, all uint64
	for i := range 10 {
		k.send(t, toHost("192.0.2.1", 7), 20)
		w := k.next(t)
		host += w[hostTarget(7)].Packets
		network += w[traffic.Target{Scope: traffic.TargetNetwork, Prefix: testNetwork}].Packets
		all += w[traffic.Target{Scope: traffic.TargetInterface}].Packets
		if i == 2 && host == 0 {
			t.Error("no slot after two ticks")
		}
	}
	if network != 200 || all != 200 || host < 160 {
		t.Errorf("host %d, network %d, interface %d of 200 packets", host, network, all)
	}
	k.send(t, toHost("192.0.2.1", 8), 5) // too few for a slot
	for range 50 {
		if _, has := k.next(t)[hostTarget(8)]; has {
			t.Fatal("five packets got a slot")
		}
	}
}

// Wide prefixes: networks get slots as their traffic comes, IPv6 ones too.
func TestWindowsWidePrefixes(t *testing.T) {
	k := newTicker(t, Options{MaxTargets: 32}, netip.MustParsePrefix("198.48.0.0/12"), netip.MustParsePrefix("2001:db8::/32"))
	var four, six uint64
	for range 4 {
		k.send(t, toHost("192.0.2.1", 7), 20)
		k.send(t, tcpFrame(netip.MustParseAddr("2001:db8:1::1")), 30)
		w := k.next(t)
		four = w[traffic.Target{Scope: traffic.TargetNetwork, Prefix: testNetwork}].Packets
		six = w[traffic.Target{Scope: traffic.TargetNetwork, Prefix: netip.MustParsePrefix("2001:db8:ffff::/48")}].Packets
		if w[traffic.Target{Scope: traffic.TargetInterface}].Packets != 50 {
			t.Errorf("interface %+v", w)
		}
	}
	if four != 20 || six != 30 {
		t.Errorf("networks have %d and %d packets", four, six)
	}
}

// Slots of quiet targets are given back, and a large new target takes the slot of a small one; what is counted adds up all the while.
func TestWindowsRecycling(t *testing.T) {
	k := newTicker(t, Options{MaxTargets: 4}, testNetwork) // the network and three hosts
	var sent, got uint64
	step := func(packets map[byte]int) map[traffic.Target]traffic.Window {
		for host, n := range packets {
			k.send(t, toHost("192.0.2.1", host), n)
			sent += uint64(n)
		}
		w := k.next(t)
		got += w[traffic.Target{Scope: traffic.TargetInterface}].Packets
		return w
	}
	small := map[byte]int{1: 20, 2: 30, 3: 40}
	for range leastTicks + 10 {
		step(small)
	}
	if s := k.WindowStats(); s.Targets != 4 || s.Recycled != 0 {
		t.Fatalf("three hosts: %+v", s)
	}
	with4 := map[byte]int{1: 20, 2: 30, 3: 40, 4: 45} // not hysteresis times as large
	for range 20 {
		if _, has := step(with4)[hostTarget(4)]; has {
			t.Fatal("a little more traffic took another's slot")
		}
	}
	with4[4] = 400
	ticks := 0
	for w := step(with4); ; w = step(with4) {
		if _, has := w[hostTarget(4)]; has {
			break
		}
		if ticks++; ticks > 4 {
			t.Fatal("ten times the traffic got no slot in four ticks")
		}
	}
	if w := step(with4); w[hostTarget(4)].Packets != 400 || w[hostTarget(2)].Packets != 30 || w[hostTarget(3)].Packets != 40 {
		t.Errorf("after the change: %v", w)
	}
	for range quietTicks + 3 {
		step(map[byte]int{4: 1})
	}
	if s := k.WindowStats(); s.Targets != 2 || s.Recycled != 3 {
		t.Errorf("after a minute with one of them: %+v", s)
	}
	if sent != got {
		t.Errorf("%d packets sent, %d in the windows", sent, got)
	}
}

// A scan of many addresses makes no slots change hands.
func TestWindowsScan(t *testing.T) {
	k := newTicker(t, Options{MaxTargets: 8}, testNetwork)
	for range 10 {
		k.send(t, toHost("192.0.2.1", 1), 50)
		for host := range 200 {
			k.send(t, toHost("192.0.2.9", byte(20+host)), 1)
		}
		if w := k.next(t); w[traffic.Target{Scope: traffic.TargetNetwork, Prefix: testNetwork}].Packets != 250 {
			t.Fatalf("network %+v", w)
		}
	}
	if s := k.WindowStats(); s.Recycled != 0 || s.Targets > 8 {
		t.Errorf("%+v", s)
	}
}

// What is watched can change at any time: what stays keeps its slot, what goes is counted once more.
func TestWindowsChangeOfTargets(t *testing.T) {
	one, two, three := netip.MustParsePrefix("198.51.100.1/32"), netip.MustParsePrefix("198.51.100.2/32"), netip.MustParsePrefix("198.51.100.3/32")
	k := newTicker(t, Options{MaxTargets: 2}, one, two)
	k.send(t, toHost("192.0.2.1", 1), 10)
	k.send(t, toHost("192.0.2.1", 2), 20)
	if err := k.SetTargets([]netip.Prefix{two, three}); err != nil {
		t.Fatal(err)
	}
	w := k.next(t)
	if w[hostTarget(1)].Packets != 10 || w[hostTarget(2)].Packets != 20 {
		t.Errorf("at the change: %+v", w)
	}
	for range 3 {
		k.next(t)
	}
	k.send(t, toHost("192.0.2.1", 1), 1)
	k.send(t, toHost("192.0.2.1", 2), 2)
	k.send(t, toHost("192.0.2.1", 3), 3)
	w = k.next(t)
	if _, has := w[hostTarget(1)]; has || w[hostTarget(2)].Packets != 2 || w[hostTarget(3)].Packets != 3 ||
		w[traffic.Target{Scope: traffic.TargetInterface}].Packets != 6 {
		t.Errorf("after it: %+v", w)
	}
}

// A single address that is watched from now on takes the slot of the smallest target that came by itself, and only that.
func TestWindowsMakeRoomForFixed(t *testing.T) {
	k := newTicker(t, Options{MaxTargets: 4}, testNetwork)
	send := func() map[traffic.Target]traffic.Window {
		for host := range byte(3) {
			k.send(t, toHost("192.0.2.1", 1+host), 20+10*int(host))
		}
		return k.next(t)
	}
	for range 10 {
		send()
	}
	if err := k.SetTargets([]netip.Prefix{testNetwork, netip.MustParsePrefix("198.51.100.9/32")}); err != nil {
		t.Fatal(err)
	}
	send()
	send()
	k.send(t, toHost("192.0.2.1", 9), 1)
	w := send()
	if _, has := w[hostTarget(1)]; has || w[hostTarget(9)].Packets != 1 || w[hostTarget(2)].Packets != 30 || k.WindowStats().Recycled != 1 {
		t.Errorf("%+v", k.WindowStats())
	}
}

func TestWindowsRefuseTargets(t *testing.T) {
	k := newTicker(t, Options{MaxTargets: 2})
	for text, prefixes := range map[string][]string{
		"raise the number of targets": {"198.51.100.1/32", "198.51.100.2/32", "198.51.100.3/32"},
		"cannot be watched":           {"::ffff:198.51.100.0/120"},
	} {
		var all []netip.Prefix
		for _, p := range prefixes {
			all = append(all, netip.MustParsePrefix(p))
		}
		if err := k.SetTargets(all); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%v: %v", prefixes, err)
		}
	}
	if _, err := New(Options{MaxTargets: maxTargets + 1}); err == nil || !strings.Contains(err.Error(), "4096") {
		t.Errorf("too many targets: %v", err)
	}
}

// Without targets there are no windows, and the maps take a page each.
func TestWindowsOff(t *testing.T) {
	k := newTicker(t, Options{})
	k.send(t, toHost("192.0.2.1", 1), 10)
	if w := k.next(t); len(w) != 0 {
		t.Errorf("windows %+v", w)
	}
	if err := k.SetTargets([]netip.Prefix{testNetwork}); err == nil {
		t.Error("targets were taken")
	}
	if n := windowMemory(t, k.Plane); n > 10*uint64(pageSize) {
		t.Errorf("%d bytes of maps", n)
	}
}

func windowMemory(t *testing.T, p *Plane) (bytes uint64) {
	t.Helper()
	all, err := p.Memory()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range all {
		if strings.HasPrefix(m.Name, "window_") {
			bytes += m.Bytes
		}
	}
	return bytes
}

// The maps take what is configured: 2 KiB a target and CPU, and the ring.
func TestWindowsMemory(t *testing.T) {
	for _, targets := range []int{1, 256, maxTargets} {
		p := newPlane(t, Options{MaxTargets: targets})
		cells := uint64(p.windows.spec.rows * p.windows.spec.slots)
		if n := windowMemory(t, p); n > cells*2048+uint64(targets)*256+defaultSampleRing+16*uint64(pageSize) {
			t.Errorf("%d targets on %d CPUs: %d bytes", targets, p.windows.spec.rows, n)
		} else {
			t.Logf("%d targets on %d CPUs: %d bytes", targets, p.windows.spec.rows, n)
		}
	}
}

// With more CPUs than rows several share a cell, and nothing is lost.
func TestWindowsSharedRows(t *testing.T) {
	fire(t, func(p *Plane) {
		s := &p.windows.spec
		s.rows, s.shared = 1, true
		for name, value := range map[string]any{bpfVarWindowRows: uint32(1), bpfVarWindowShared: true} {
			if err := p.spec.Variables[name].Set(value); err != nil {
				t.Fatal(err)
			}
		}
		p.spec.Maps[bpfMapWindowCells].MaxEntries = uint32(s.slots)
	})
}

// Ticks end while packets come on every CPU, and targets come and go: no packet is lost, none counts twice.
func TestWindowsUnderFire(t *testing.T) { fire(t, func(*Plane) {}) }

// volley is what is sent by whom, and what the windows say of it.
type volley struct {
	*Plane
	cpus, rounds, burst uint64
	sent                [3]atomic.Uint64 // to each host
	done                atomic.Uint64    // senders

	first, network, all, bins traffic.Window
}

func fire(t *testing.T, configure func(*Plane)) {
	t.Helper()
	v := &volley{
		Plane: newConfigured(t, Options{MaxTargets: 6}, configure),
		cpus:  uint64(min(2, runtime.NumCPU())), rounds: 150, burst: 500,
	}
	if testing.Short() {
		v.rounds = 6
	}
	targets := []netip.Prefix{netip.MustParsePrefix("198.51.100.1/32"), testNetwork}
	if err := v.SetTargets(targets); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for cpu := range v.cpus {
		wg.Go(func() { v.send(t, int(cpu)) })
	}
	for last := false; !last; {
		last = v.done.Load() == v.cpus
		// An emulated CPU may be away in the middle of a packet for longer than a slot that was
		// given up is waited for; the packet's bytes are then counted for nobody.
		if !testing.Short() {
			if err := v.SetTargets(targets[:1+int(v.windows.ticks%2)]); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(50 * time.Microsecond)
		v.read(t)
	}
	wg.Wait()
	v.check(t)
	t.Logf("%d packets in %d ticks", v.all.Packets, v.windows.ticks)
}

// send is one CPU's part.
func (v *volley) send(t *testing.T, cpu int) {
	defer v.done.Add(1)
	bind(t, cpu)
	for i := range v.rounds {
		run := ebpf.RunOptions{Data: toHost("192.0.2.1", byte(1+i%3))}
		for range v.burst {
			if _, err := v.objs.Sentinel.Run(&run); err != nil {
				t.Error(err)
				return
			}
		}
		v.sent[i%3].Add(v.burst)
	}
}

func (v *volley) read(t *testing.T) {
	t.Helper()
	windows, err := v.Tick(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	v.all.Tally.Add(&windows[0].Tally)
	v.bins.Histograms.Add(&windows[0].Histograms)
	for i := range windows {
		switch windows[i].Target {
		case hostTarget(1):
			v.first.Tally.Add(&windows[i].Tally)
		case traffic.Target{Scope: traffic.TargetNetwork, Prefix: testNetwork}:
			v.network.Tally.Add(&windows[i].Tally)
		}
	}
}

func (v *volley) check(t *testing.T) {
	t.Helper()
	total := v.cpus * v.rounds * v.burst
	if v.all.Packets != total || v.all.ACK != total || v.all.Sizes[0] != total || v.all.Bytes != 54*total {
		t.Errorf("%d packets sent, the interface's windows have %+v", total, v.all.Tally)
	}
	to1 := v.sent[0].Load()
	if v.first.Packets != to1 || v.network.Packets < v.first.Packets || v.network.Packets > total {
		t.Errorf("%d of %d packets to the host, its windows have %d, the network's %d", to1, total, v.first.Packets, v.network.Packets)
	}
	if v.windows.spec.shared {
		return // several CPUs add to a bin, some in vain
	}
	var ttl uint64
	for _, n := range v.bins.TTLs {
		ttl += uint64(n)
	}
	// Each slot's share is scaled up and rounded.
	if most := 3 * uint64(v.windows.ticks); ttl+most < v.bins.Counted || ttl > v.bins.Counted+most || ttl == 0 {
		t.Errorf("%d packets in the histograms, %d counted", ttl, v.bins.Counted)
	}
}

// newConfigured loads the program as New does, with a change of its constants.
func newConfigured(t *testing.T, o Options, configure func(*Plane)) *Plane {
	t.Helper()
	p, err := unloaded(o.withDefaults(), false)
	if err != nil {
		t.Fatal(err)
	}
	configure(p)
	if err := p.start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// bind keeps the calling goroutine on one CPU.
func bind(t testing.TB, cpu int) {
	runtime.LockOSThread()
	var set unix.CPUSet
	set.Set(cpu)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		t.Error(err)
	}
}

// However many packets come, samples stay within their limits, and a share of all packets is in the
// histograms; from the second tick on both are spread over the whole tick.
func TestWindowsBudgets(t *testing.T) {
	k := newTicker(t, Options{MaxTargets: 16}, testNetwork)
	for i := range 6 {
		var packets uint64
		for host := range byte(8) {
			packets += k.send(t, toHost("192.0.2.1", 1+host), 25_000)
		}
		w := k.next(t)
		all := w[traffic.Target{Scope: traffic.TargetInterface}]
		if all.Packets != packets || len(all.Samples) > sampleLimitAll || len(all.Samples) == 0 {
			t.Fatalf("tick %d: %d packets, %d samples", i, all.Packets, len(all.Samples))
		}
		var weight float64
		for _, s := range all.Samples {
			weight += s.Weight
		}
		if i > 2 && math.Abs(weight-float64(packets)) > 1 { // before, new slots may find the samples of the tick used up
			t.Errorf("tick %d: samples stand for %v packets", i, weight)
		}
		for target, x := range w {
			if target.Scope == traffic.TargetHost && len(x.Samples) > sampleLimit {
				t.Errorf("tick %d: %d samples of %v", i, len(x.Samples), target)
			}
		}
		if i < 5 {
			continue
		}
		for host := range byte(8) {
			x := w[hostTarget(1+host)]
			if n := float64(len(x.Samples)); n < 100 || n > 400 { // 1800 shared by eight
				t.Errorf("host %d: %v samples", host, n)
			}
			if x.Counted < histogramAim*6/10 || x.Counted > histogramAim*11/10 {
				t.Errorf("host %d: %d of %d packets in the histograms", host, x.Counted, x.Packets)
			}
		}
	}
}

// A daemon that ends no tick: samples and histograms stop at their limits, counters go on.
func TestWindowsStalledDaemon(t *testing.T) {
	k := newTicker(t, Options{MaxTargets: 16}, netip.MustParsePrefix("198.51.100.1/32"))
	k.next(t)
	packets := k.send(t, toHost("192.0.2.1", 1), 400_000)
	w := k.next(t)[hostTarget(1)]
	if w.Packets != packets || w.Counted > histogramMost*uint64(k.windows.spec.rows) || len(w.Samples) > sampleLimit || len(w.Samples) == 0 {
		t.Errorf("%d packets, %d counted, %d samples", w.Packets, w.Counted, len(w.Samples))
	}
	if w.TTLs[64/4] != uint32(w.Counted) {
		t.Errorf("one bin has %d of %d", w.TTLs[64/4], w.Counted)
	}
	// One more tick of it, at distances of hundreds of packets. After a quiet tick they do not hold any more.
	k.send(t, toHost("192.0.2.1", 1), 100_000)
	k.next(t)
	if w := k.next(t)[hostTarget(1)]; w.Packets != 0 || w.Counted != 0 || len(w.Samples) != 0 {
		t.Errorf("after it: %+v, %d samples", w.Tally, len(w.Samples))
	}
	k.send(t, toHost("192.0.2.1", 1), 10)
	if w := k.next(t)[hostTarget(1)]; w.Packets != 10 || w.Counted != 10 || len(w.Samples) != 10 {
		t.Errorf("after a quiet tick: %+v, %d counted, %d samples", w.Tally, w.Counted, len(w.Samples))
	}
}

// A packet that is at a cell while it is read is in this window, and in those of its network and the interface,
// with its bytes, and in the next one with the rest, also if no other comes.
func TestWindowsPacketUnderWay(t *testing.T) {
	k := newTicker(t, Options{MaxTargets: 16}, netip.MustParsePrefix("198.51.100.1/32"))
	cell := &k.windows.cells[k.windows.holders[hostTarget(1)].slot]
	cell.Bytes += 54
	windows := k.next(t)
	for target, w := range windows {
		if w.Bytes != 54 || w.Packets != 0 {
			t.Errorf("%v at first %+v", target, w.Tally)
		}
	}
	if len(windows) != 3 {
		t.Errorf("%d windows", len(windows))
	}
	cell.Kinds[bpfWindowKindWINDOW_ICMP]++
	if w := k.next(t)[hostTarget(1)]; w.Bytes != 0 || w.Packets != 1 || w.ICMP != 1 {
		t.Errorf("then %+v", w.Tally)
	}
	if w := k.next(t)[hostTarget(1)]; w.Bytes != 0 || w.Packets != 0 {
		t.Errorf("in the end %+v", w.Tally)
	}
}

// A network's histograms weigh its hosts by their packets, whatever share of them each has in its own.
func TestWindowsWeighHosts(t *testing.T) {
	k := newTicker(t, Options{MaxTargets: 16}, testNetwork, netip.MustParsePrefix("198.51.100.1/32"))
	const small = 2000
	var large uint64
	var w map[traffic.Target]traffic.Window
	for range 3 {
		large = k.send(t, toHost("192.0.2.1", 1), 200_000)
		k.send(t, toHost("203.0.113.9", 2), small)
		w = k.next(t)
	}
	if host := w[hostTarget(1)]; host.Counted > large/10 || w[hostTarget(2)].Counted != small {
		t.Fatalf("%d and %d packets in the histograms", host.Counted, w[hostTarget(2)].Counted)
	}
	bins := w[traffic.Target{Scope: traffic.TargetNetwork, Prefix: testNetwork}].Sources
	slices.Sort(bins[:])
	if n := uint64(bins[len(bins)-1]); n < large*99/100 || n > large*101/100 || bins[len(bins)-2] != small || bins[len(bins)-3] != 0 {
		t.Errorf("sources %v", bins[len(bins)-3:])
	}
}

// Samples that a full ring refuses are counted.
func TestWindowsRingFull(t *testing.T) {
	k := newTicker(t, Options{MaxTargets: 16, SampleRingBytes: pageSize}, netip.MustParsePrefix("198.51.100.1/32"))
	k.send(t, toHost("192.0.2.1", 1), 100)
	w := k.next(t)[hostTarget(1)]
	if len(w.Samples)+int(w.Lost) != 100 || w.Lost == 0 || len(w.Samples) == 0 || w.Packets != 100 {
		t.Errorf("%d samples, %d lost, of %d packets", len(w.Samples), w.Lost, w.Packets)
	}
	k.send(t, toHost("192.0.2.1", 1), 10)
	if w := k.next(t)[hostTarget(1)]; len(w.Samples) != 10 || w.Lost != 0 {
		t.Errorf("with room again: %d samples, %d lost", len(w.Samples), w.Lost)
	}
	if s := k.WindowStats(); s.Samples+s.Lost != 110 {
		t.Errorf("%+v", s)
	}
}

// The same packets give the same windows in replay, whatever is drawn at random live.
func TestWindowsReplayIsReproducible(t *testing.T) {
	run := func() (windows []traffic.Window) {
		k := newTicker(t, Options{MaxTargets: 16}, testNetwork)
		for i := range 3 {
			for j := range 300 {
				f := toHost("192.0.2.1", byte(j%3))
				binary.BigEndian.PutUint16(f[34:], uint16(i*j))
				k.send(t, f, 10)
			}
			w := k.next(t)[traffic.Target{Scope: traffic.TargetInterface}]
			var samples []traffic.Sample
			for _, s := range w.Samples {
				s.Header = append([]byte(nil), s.Header...)
				samples = append(samples, s)
			}
			w.Samples = samples
			windows = append(windows, w)
		}
		return windows
	}
	if a, b := run(), run(); !reflect.DeepEqual(a, b) {
		t.Errorf("two runs differ:\n%s", cmp.Diff(a, b, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})))
	}
}

// A program loaded anew for a filter goes on with the same counters.
func TestWindowsOutliveTheProgram(t *testing.T) {
	k := newTicker(t, Options{MaxTargets: 16}, netip.MustParsePrefix("198.51.100.1/32"))
	k.send(t, toHost("192.0.2.1", 1), 10)
	rule := signature.Rule{Filter: "ether[0] = 3"}
	before := k.objs.Sentinel
	if err := k.SetSignatures([]signature.Armed{{ID: 1, Text: "x", Rule: rule, Action: signature.Observe, Ceiling: signature.FullCeiling}}); err != nil {
		t.Fatal(err)
	}
	if k.objs.Sentinel == before {
		t.Fatal("the program is still the same")
	}
	k.send(t, toHost("192.0.2.1", 1), 10)
	if w := k.next(t)[hostTarget(1)]; w.Packets != 20 || len(w.Samples) != 20 {
		t.Errorf("%+v, %d samples", w.Tally, len(w.Samples))
	}
}

// Samples are shared so that small targets keep all of theirs and large ones the same share.
func TestFairShare(t *testing.T) {
	for _, c := range []struct {
		packets []uint64
		most    float64
	}{
		{[]uint64{0, 0}, sampleAim},
		{[]uint64{10, 100_000}, sampleAim},
		{[]uint64{100, 1e6, 1e6, 1e6, 1e6, 1e6}, 340},
		{[]uint64{1e6, 1e6, 1e6, 1e6, 1e6, 1e6}, 300},
	} {
		if got := fairShare(c.packets); math.Abs(got-c.most) > 1 {
			t.Errorf("%v: %v, want %v", c.packets, got, c.most)
		}
	}
	many := make([]uint64, maxTargets)
	for i := range many {
		many[i] = 1000
	}
	if d := distance(1000, fairShare(many)); d < 2000 || d > 2500 {
		t.Errorf("%d targets: one sample of %d packets", maxTargets, d)
	}
}

// BenchmarkTick is what a tick costs with 256 targets of which each has had 100 packets on each of two CPUs.
func BenchmarkTick(b *testing.B) {
	var prefixes []netip.Prefix
	for i := range 256 {
		prefixes = append(prefixes, netip.MustParsePrefix(fmt.Sprintf("198.51.100.%d/32", i)))
	}
	p, err := New(Options{MaxTargets: 256})
	if err != nil {
		b.Fatal(err)
	}
	defer p.Close()
	if err := p.SetTargets(prefixes); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		b.StopTimer()
		for i := range 2 * 256 * 100 {
			if i == 256*100 || i == 0 {
				bind(b, i/(256*100)%runtime.NumCPU())
			}
			if _, err := p.objs.Sentinel.Run(&ebpf.RunOptions{Data: toHost("192.0.2.1", byte(i))}); err != nil {
				b.Fatal(err)
			}
		}
		b.StartTimer()
		if _, err := p.Tick(time.Now()); err != nil {
			b.Fatal(err)
		}
	}
}
