// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"encoding/hex"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sentinel-x/sentinel-x/internal/dataplane/packettest"
	"github.com/sentinel-x/sentinel-x/internal/signature"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// modelWindow is what a target's window should hold.
type modelWindow struct {
	traffic.Tally
	traffic.Histograms
}

// add counts a packet: the tally as docs/packet-path.md has it, and each histogram by the hash of the value
// that it is of.
func (m *modelWindow) add(s *windowSeeds, p packettest.Packet, length int, outcome traffic.Outcome) {
	p.Count(&m.Tally, length, outcome)
	m.Counted++
	bits, net := 64, 48
	if p.Source.Is4() {
		bits, net = 32, 24
	}
	m.Sources[s.ofPrefix(p.Source, bits)%traffic.SourceBins]++
	m.SourceNets[s.ofPrefix(p.Source, net)%traffic.SourceNetBins]++
	v := func(f signature.Field) uint32 { return uint32(max(0, p.Rules.Values[f])) }
	if p.Rules.Values[signature.SourcePort] >= 0 {
		m.SourcePorts[s.of(bpfWindowSeedWINDOW_SEED_PORT, 0, v(signature.SourcePort))%traffic.SourcePortBins]++
		m.DestPorts[s.of(bpfWindowSeedWINDOW_SEED_PORT, 0, v(signature.DestPort))%traffic.DestPortBins]++
	}
	m.Lengths[min(p.IPLength()/24, traffic.LengthBins-1)]++
	m.TTLs[p.TTL/4]++
	low := uint32(p.Protocol) | uint32(p.TCPFlags)<<8 | v(signature.DataOffset)<<16 | v(signature.DF)<<20 |
		uint32(p.Fragment)<<21 | uint32(traffic.SizeClassOf(p.IPLength()))<<24 | uint32(p.TTL/32)<<28
	m.Fingerprints[s.of(bpfWindowSeedWINDOW_SEED_FINGERPRINT, v(signature.Window), low)%traffic.FingerprintBins]++
}

func (s *windowSeeds) ofPrefix(a netip.Addr, bits int) uint64 {
	high, low := halves(netip.PrefixFrom(a, bits).Masked().Addr())
	return s.of(bpfWindowSeedWINDOW_SEED_SOURCE, high, low)
}

// TestWindowsDifferential gives the program and the model the same mutated packets, and compares the windows of watched
// hosts, of their networks, in which other hosts come and go, and of the interface.
func TestWindowsDifferential(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	for mix, tunnels := range map[packettest.Tunnels]Tunnel{
		{}: 0, packettest.AllTunnels: TunnelIPIP | Tunnel6in4 | TunnelGRE | TunnelVXLAN,
	} {
		p, err := NewTester(Options{MaxTargets: 8, Tunnels: tunnels})
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		host4, host6 := netip.MustParseAddr(packettest.Destination4), netip.MustParseAddr(packettest.Destination6)
		watched := []netip.Prefix{
			netip.PrefixFrom(host4, 32), netip.PrefixFrom(host4, 24).Masked(),
			netip.PrefixFrom(host6, 128), netip.PrefixFrom(host6, 48).Masked(),
		}
		if err := p.SetTargets(watched); err != nil {
			t.Fatal(err)
		}
		fixed := []traffic.Target{
			{Scope: traffic.TargetInterface},
			traffic.HostTarget(host4), traffic.NetworkTarget(host4),
			traffic.HostTarget(host6), traffic.NetworkTarget(host6),
		}
		var frames [][]byte
		for _, n := range packettest.GoodPackets() {
			frames = append(frames, n.Frame)
		}
		d := differential{p: p, decoder: packettest.NewDecoder(mix), mutator: packettest.NewMutator(frames, seed), at: time.Hour}
		rounds := 60
		if testing.Short() {
			rounds = 4
		}
		for range rounds {
			d.round(t, fixed)
		}
		if d.targets < 20 {
			t.Errorf("%v: %d addresses among the targets", mix, d.targets)
		}
	}
}

type differential struct {
	p       *Tester
	decoder *packettest.Decoder
	mutator *packettest.Mutator
	at      time.Duration
	targets int
}

func (d *differential) round(t *testing.T, fixed []traffic.Target) {
	t.Helper()
	want := make([]modelWindow, len(fixed))
	seen := map[netip.Addr]bool{}
	for range 1000 {
		frame := d.mutator.Next()
		v, err := d.p.Run(frame, d.at)
		if err != nil {
			t.Fatalf("%v\nframe %s", err, hex.EncodeToString(frame))
		}
		packet := d.decoder.Decode(frame)
		if !packet.IP {
			continue
		}
		seen[packet.Destination] = true
		for i, target := range fixed {
			if target.Scope == traffic.TargetInterface || target.Prefix.Contains(packet.Destination) {
				want[i].add(&d.p.windows.spec.seeds, packet, len(frame), v.Outcome)
			}
		}
	}
	d.targets = max(d.targets, len(seen))
	d.at += traffic.Tick
	windows, err := d.p.Tick(time.Unix(0, int64(d.at)))
	if err != nil {
		t.Fatal(err)
	}
	for i, target := range fixed {
		for j := range windows {
			if windows[j].Target != target {
				continue
			}
			if diff := cmp.Diff(want[i], modelWindow{windows[j].Tally, windows[j].Histograms}); diff != "" {
				t.Fatalf("%v (-want +got):\n%s", target, diff)
			}
		}
	}
}
