// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// witness is a source whose verdict no change of the test touches.
type witness struct {
	source string
	drop   bool
}

// TestChangesWhilePacketsFlow: entries around sources change ten thousand times, in place and by whole
// lists, while the program judges packets from them: none gets a verdict that neither the lists before nor those
// after a change give.
func TestChangesWhilePacketsFlow(t *testing.T) {
	p, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	blocked := []traffic.Entry{
		entry("192.0.2.1/32"), entry("198.51.100.0/24"), entry("2001:db8:1::1/128"), entry("2001:db8:2::/48"),
	}
	ends := time.Now().Add(time.Hour)
	blocked = append(blocked, traffic.Entry{Prefix: netip.MustParsePrefix("203.0.113.0/25"), Expires: ends})
	allowed := []traffic.Entry{entry("192.0.2.2/32"), entry("2001:db8:1::2/128")}
	witnesses := []witness{
		{"192.0.2.1", true},
		{"198.51.100.77", true},
		{"203.0.113.5", true},
		{"2001:db8:1::1", true},
		{"2001:db8:2::5", true},
		{"192.0.2.2", false},
		{"2001:db8:1::2", false},
		{"192.0.3.9", false},
		{"2001:db8:ffff::9", false},
	}
	if err := p.Put(traffic.ListBlock, blocked); err != nil {
		t.Fatal(err)
	}
	if err := p.Put(traffic.ListAllow, allowed); err != nil {
		t.Fatal(err)
	}
	var stop atomic.Bool
	var wg sync.WaitGroup
	var packets uint64
	wg.Go(func() { packets = watch(t, p.objs.Sentinel, witnesses, &stop) })
	changes := 10_000
	if testing.Short() {
		changes = 1000
	}
	for i := range changes {
		if err := disturb(p, i, ends, blocked); err != nil {
			t.Errorf("change %d: %v", i, err)
			break
		}
	}
	stop.Store(true)
	wg.Wait()
	if packets < uint64(changes)/4 { // an emulated CPU is slow
		t.Errorf("only %d packets met the changes", packets)
	}
	t.Logf("%d packets during %d changes", packets, changes)
}

// watch runs the program on the witnesses' packets until it is told to stop.
func watch(t *testing.T, program *ebpf.Program, witnesses []witness, stop *atomic.Bool) (packets uint64) {
	const drop = 1 // XDP_DROP
	run := ebpf.RunOptions{}
	for !stop.Load() {
		for _, w := range witnesses {
			run.Data = tcpFrame(netip.MustParseAddr(w.source))
			action, err := program.Run(&run)
			if err != nil {
				t.Error(err)
				return packets
			}
			if (action == drop) != w.drop {
				t.Errorf("packet %d, from %s: action %d", packets, w.source, action)
				return packets
			}
			packets++
		}
	}
	return packets
}

// disturb makes one change of a round: prefixes around the witnesses come and go, so that lines fill up and
// become leaves, prefixes cover others and no longer do, and now and then whole lists change.
func disturb(p *Plane, i int, ends time.Time, blocked []traffic.Entry) error {
	around := [][]string{
		{"192.0.2.0/24", "198.51.100.77/32", "2001:db8:1::/64", "2001:db8:2::/64"}, // over allowed, within blocked
		{"192.0.2.1/32", "192.0.2.0/31", "2001:db8::/33", "2001:db8:1::1/128"},
		{"198.51.100.0/24", "203.0.113.0/24", "203.0.113.0/25", "2001:db8:2::/47", "2001:db8:1::/61"},
		{"203.0.0.0/24", "198.51.96.0/21", "2001:db8:2::5/128"},
	}
	// With these the tables are built anew, which waits for the packets: a twentieth of the rounds is enough.
	wide := [][]string{{"198.51.0.0/16"}, {"203.0.0.0/18", "198.48.0.0/13"}}
	var entries []traffic.Entry
	var prefixes []netip.Prefix
	names := around[i/2%len(around)]
	if i/2%21 == 0 {
		names = append(names, wide[i/42%len(wide)]...)
	}
	for _, text := range names {
		e := entry(text)
		if i%3 == 0 {
			e.Expires = ends.Add(time.Duration(i))
		}
		entries = append(entries, e)
		prefixes = append(prefixes, e.Prefix)
	}
	for j := range 12 {
		e := entry(fmt.Sprintf("192.0.2.%d/32", 16+(i*7+j)%200))
		entries = append(entries, e)
		prefixes = append(prefixes, e.Prefix)
	}
	switch {
	case i%500 == 499:
		return p.Replace(traffic.ListBlock, append(entries, blocked...))
	case i%2 == 0:
		return p.Put(traffic.ListBlock, entries)
	}
	// What the witnesses need stays.
	keep := map[netip.Prefix]bool{}
	for _, e := range blocked {
		keep[e.Prefix] = true
	}
	var gone []netip.Prefix
	for _, prefix := range prefixes {
		if !keep[prefix] {
			gone = append(gone, prefix)
		}
	}
	return p.Remove(traffic.ListBlock, gone)
}
