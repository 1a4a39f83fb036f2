// SPDX-License-Identifier: Apache-2.0

package scene

import (
	"math"
	"net/netip"
	"testing"
	"time"

	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// The benchmarks' operation is one packet.

func benchmarkStream(b *testing.B, s Stream) {
	var p Packet
	for b.Loop() {
		if !s.Next(&p) {
			b.Fatal("the stream ended")
		}
	}
}

func BenchmarkNormal(b *testing.B) {
	for _, name := range []string{"web", "game", "access"} {
		b.Run(name, func(b *testing.B) {
			p, err := ProfileNamed(name)
			if err != nil {
				b.Fatal(err)
			}
			s, err := Normal{Profile: p, Targets: []netip.Addr{target4}, Rate: 2000, Seed: 1}.Stream()
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			benchmarkStream(b, s)
		})
	}
}

func BenchmarkAttack(b *testing.B) {
	for _, family := range []string{"syn_spoofed", "udp_botnet", "amplification_dns", "connection_flood"} {
		b.Run(family, func(b *testing.B) {
			s := Scenario{Family: family, Kind: traffic.KindOther, Profile: "web", Target: target4, End: math.MaxInt64 / 2, Ratio: 100, Baseline: 1e4, Seed: 3}
			stream, err := s.Event()
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			benchmarkStream(b, stream)
		})
	}
}

// BenchmarkWindows composes normal traffic and counts it.
func BenchmarkWindows(b *testing.B) {
	p, err := ProfileNamed("web")
	if err != nil {
		b.Fatal(err)
	}
	s, err := Normal{Profile: p, Targets: []netip.Addr{target4}, Rate: 10000, Seed: 1}.Stream()
	if err != nil {
		b.Fatal(err)
	}
	o := CounterOptions{Targets: []traffic.Target{traffic.HostTarget(target4), traffic.NetworkTarget(target4), {Scope: traffic.TargetInterface}}, Length: time.Duration(math.MaxInt64)}
	n := uint64(0)
	b.ReportAllocs()
	for w := range Windows(s, o) {
		if w.Target.Scope != traffic.TargetHost {
			continue
		}
		if n += w.Packets; n >= uint64(b.N) {
			break
		}
	}
}
