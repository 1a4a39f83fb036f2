// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"net/netip"
	"strings"
	"testing"
	"time"
)

func flood() Flood {
	return Flood{
		Interface: 1,
		SourceMAC: []byte{2, 0, 0, 0, 0, 1},
		DestMAC:   []byte{2, 0, 0, 0, 0, 2},
		Source:    netip.MustParsePrefix("192.0.2.0/24"),
		Dest:      netip.MustParseAddr("198.51.100.1"),
		Kind:      FloodUDP,
		Count:     1,
	}
}

func TestFloodIsChecked(t *testing.T) {
	for _, c := range []struct {
		name   string
		mutate func(*Flood)
		want   string // part of the error; empty: accepted
	}{
		{"good", func(*Flood) {}, ""},
		{"duration instead of count", func(f *Flood) { f.Count, f.Duration = 0, time.Second }, ""},
		{"never ends", func(f *Flood) { f.Count = 0 }, "must end"},
		{"negative duration", func(f *Flood) { f.Duration = -1 }, "negative"},
		{"no interface", func(f *Flood) { f.Interface = 0 }, "no interface"},
		{"short MAC", func(f *Flood) { f.DestMAC = f.DestMAC[:5] }, "6 bytes"},
		{"three tags", func(f *Flood) { f.VLANs = []uint16{1, 2, 3} }, "at most 2"},
		{"no source", func(f *Flood) { f.Source = netip.Prefix{} }, "must be given"},
		{"two families", func(f *Flood) { f.Dest = netip.MustParseAddr("2001:db8::1") }, "different families"},
		{"mapped address", func(f *Flood) { f.Dest = netip.MustParseAddr("::ffff:192.0.2.1") }, "IPv4-mapped"},
		{"unknown kind", func(f *Flood) { f.Kind = "gre" }, "udp, syn or icmp"},
		{"negative sources", func(f *Flood) { f.Sources = -1 }, "not be negative"},
		{"too many sources", func(f *Flood) {
			f.Source, f.Sources = netip.MustParsePrefix("255.255.255.0/24"), 257
		}, "do not fit"},
		{"as many sources as there are", func(f *Flood) {
			f.Source, f.Sources = netip.MustParsePrefix("255.255.255.0/24"), 256
		}, ""},
		{"frame too small", func(f *Flood) { f.Size = 59 }, "from 60"},
		{"frame smaller than its headers", func(f *Flood) {
			f.Source, f.Dest = netip.MustParsePrefix("2001:db8::/64"), netip.MustParseAddr("2001:db8::1")
			f.VLANs, f.Kind, f.Size = []uint16{1, 2}, FloodSYN, 81
		}, "from 82"},
		{"frame too large", func(f *Flood) { f.Size = maxFrame + 1 }, "3400"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := flood()
			c.mutate(&f)
			_, err := newTemplate(f)
			if c.want == "" && err != nil {
				t.Fatalf("got %v, want it accepted", err)
			}
			if c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Fatalf("got %v, want an error with %q", err, c.want)
			}
		})
	}
}

func TestGeneratorIsDueAtMostRateAndCount(t *testing.T) {
	for _, c := range []struct {
		name        string
		rate, count uint64
		elapsed     time.Duration
		done        uint64
		want        uint32
	}{
		{"nothing before time has passed", 1000, 0, 0, 0, 0},
		{"rate times elapsed", 100_000, 0, time.Millisecond, 0, 100},
		{"less what is done", 100_000, 0, time.Millisecond, 99, 1},
		{"ahead of the rate", 100_000, 0, time.Millisecond, 101, 0},
		{"after a stall in steps", 100_000, 0, time.Second, 0, 301},
		{"no more than the count", 100_000, 10, time.Second, 7, 3},
		{"without a rate a burst", 0, 0, 0, 0, generatorBurst},
		{"without a rate the count", 0, 10, 0, 4, 6},
		{"a burst at most", 1 << 40, 0, time.Hour, 0, generatorBurst},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := &Generator{flood: Flood{Rate: c.rate, Count: c.count}}
			if got := g.due(c.elapsed, c.done); got != c.want {
				t.Fatalf("got %d, want %d", got, c.want)
			}
		})
	}
}

func TestGeneratorRefusesMissingInterface(t *testing.T) {
	f := flood()
	f.Interface = 1 << 30
	g, err := NewGenerator(f)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	if _, err := g.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "find interface") {
		t.Fatalf("got %v, want an error that names the interface", err)
	}
}
