// SPDX-License-Identifier: Apache-2.0

package dataplane_test

import (
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/gopacket/gopacket/layers"

	"github.com/sentinel-x/sentinel-x/internal/dataplane/packettest"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

const (
	defaultPackets = 300_000
	roundPackets   = 4000 // packets under one set of lists and policies
	framesPerFile  = 40   // seeds taken from each capture

	sharedData = "../../../shared/data"
)

var tunnelMixes = []packettest.Tunnels{
	packettest.AllTunnels, {}, {GRE: true, IPIP: true}, {VXLAN: true, SixInFour: true},
}

// TestDifferential gives the program and the oracle the same mutated packets
// under random lists and policies, and fails on any difference in what they
// understood, in the verdict, or in a counter.
//
//	SENTINEL_X_FUZZ_PACKETS  how many packets
//	SENTINEL_X_FUZZ_SEED     the seed of an earlier run, to have the same packets again
func TestDifferential(t *testing.T) {
	packets := envNumber(t, "SENTINEL_X_FUZZ_PACKETS", defaultPackets)
	seed := envNumber(t, "SENTINEL_X_FUZZ_SEED", rand.Uint64())
	seeds, addresses := fuzzSeeds(t)
	t.Logf("%d packets from %d seed frames; SENTINEL_X_FUZZ_SEED=%d", packets, len(seeds), seed)
	rounds := (packets + roundPackets - 1) / roundPackets
	var next, done atomic.Uint64
	var stop atomic.Bool
	var wg sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), 8) {
		pairs := make([]*pair, len(tunnelMixes))
		for i, mix := range tunnelMixes {
			pairs[i] = newPair(t, mix)
		}
		wg.Go(func() {
			for n := next.Add(1); n <= rounds && !stop.Load(); n = next.Add(1) {
				if err := round(pairs, seeds, addresses, seed, n); err != nil {
					t.Errorf("seed %d, round %d: %v", seed, n, err)
					stop.Store(true)
					return
				}
				done.Add(roundPackets)
			}
		})
	}
	wg.Wait()
	t.Logf("%d packets without a difference", done.Load())
}

// round runs one set of lists and policies. All it does follows from seed and n.
func round(pairs []*pair, seeds [][]byte, addresses []netip.Addr, seed, n uint64) error {
	r := rand.New(rand.NewPCG(seed, n))
	p := pairs[0]
	if r.IntN(3) == 0 {
		p = pairs[r.IntN(len(pairs))]
	}
	p.randomise(r, addresses)
	if err := p.apply(); err != nil {
		return err
	}
	before, err := p.program.Counters()
	if err != nil {
		return err
	}
	m := packettest.NewMutator(seeds, r.Uint64())
	for range roundPackets {
		frame := m.Next()
		difference, err := p.differs(frame)
		if err != nil {
			return fmt.Errorf("%w\nframe %s", err, hex.EncodeToString(frame))
		}
		if difference != "" {
			return fmt.Errorf("%s", p.report(frame, difference))
		}
	}
	return p.checkCounters(before)
}

func envNumber(t *testing.T, name string, without uint64) uint64 {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return without
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s=%q is not a number", name, text)
	}
	return n
}

// fuzzSeeds returns good packets, frames of captures and past failures, and
// the addresses they come from.
func fuzzSeeds(t testing.TB) ([][]byte, []netip.Addr) {
	t.Helper()
	var frames [][]byte
	for _, n := range packettest.GoodPackets() {
		frames = append(frames, n.Frame)
	}
	built := len(frames)
	frames = append(frames, captureFrames(t)...)
	for _, n := range regressions(t) {
		frames = append(frames, n.Frame)
	}
	// Built packets know every header; captures would crowd them out.
	for i := range frames {
		frames = append(frames, frames[i%built])
	}
	d := packettest.NewDecoder(packettest.AllTunnels)
	seen := map[netip.Addr]bool{}
	var addresses []netip.Addr
	for _, f := range frames {
		p := d.Decode(f)
		for _, a := range []netip.Addr{p.Source, p.OuterSource} {
			if a.IsValid() && !seen[a] {
				seen[a] = true
				addresses = append(addresses, a)
			}
		}
	}
	// Half of the draws are addresses that many packets have.
	common := []string{packettest.Source4, packettest.Source6, packettest.TunnelSource4, packettest.TunnelSource6, packettest.Destination4, "0.0.0.0", "::"}
	for i := range addresses {
		addresses = append(addresses, netip.MustParseAddr(common[i%len(common)]))
	}
	return frames, addresses
}

func captureFrames(t testing.TB) [][]byte {
	t.Helper()
	files, err := packettest.Captures("testdata", "captures")
	if err != nil || len(files) == 0 {
		t.Fatalf("no captures in testdata/captures: %v", err)
	}
	large, err := packettest.Captures(sharedData, "attack-real", "attack-lab", "scan", "benign-*")
	if err != nil {
		t.Fatal(err)
	}
	if len(large) == 0 {
		t.Log("LARGE CAPTURES ABSENT: no ../shared/data beside the repository, seeds come from testdata/captures alone")
	}
	var frames [][]byte
	for _, path := range append(files, large...) {
		frames = append(frames, firstFrames(path)...)
	}
	return frames
}

// firstFrames returns some frames of a capture. A damaged file gives those
// in front of the damage.
func firstFrames(path string) (frames [][]byte) {
	_ = packettest.ReadCapture(path, func(r packettest.Record) error {
		if len(frames) == framesPerFile {
			return os.ErrExist // enough
		}
		if r.Link == layers.LinkTypeEthernet && len(r.Data) >= 14 && len(r.Data) <= packettest.MaxFuzzFrame {
			frames = append(frames, append([]byte(nil), r.Data...))
		}
		return nil
	})
	return frames
}

// regressions are frames on which program and oracle once differed: one a
// line in hex, behind a line that says what they are.
func regressions(t testing.TB) []packettest.Named {
	t.Helper()
	path := filepath.Join("testdata", "regressions.txt")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var all []packettest.Named
	var name string
	for i, line := range strings.Split(string(text), "\n") {
		switch {
		case strings.HasPrefix(line, "#"):
			name = strings.TrimSpace(line[1:])
		case line != "":
			frame, err := hex.DecodeString(line)
			if err != nil {
				t.Fatalf("%s:%d: %v", path, i+1, err)
			}
			all = append(all, packettest.Named{Name: name, Frame: frame})
		}
	}
	return all
}

// TestRegressions runs the frames of past differences, whole and cut at every
// byte, under every mix of tunnels and both policies.
func TestRegressions(t *testing.T) {
	for _, mix := range tunnelMixes {
		p := newPair(t, mix)
		for _, drop := range []traffic.Policy{traffic.PolicyPass, traffic.PolicyDrop} {
			p.policies = everyPolicy(drop)
			if err := p.apply(); err != nil {
				t.Fatal(err)
			}
			for _, n := range regressions(t) {
				for size := len(n.Frame); size >= 14; size-- {
					check(t, p, n.Name, n.Frame[:size])
				}
			}
		}
	}
}

func everyPolicy(p traffic.Policy) traffic.Policies {
	return traffic.Policies{
		Malformed: p, FirstFragments: p, LaterFragments: p, TinyFragments: p,
		ExtensionHeaders: p, VLANDepth: p, TunnelDepth: p,
	}
}

// check fails the test if program and oracle differ on the frame.
func check(t *testing.T, p *pair, name string, frame []byte) {
	t.Helper()
	difference, err := p.differs(frame)
	if err != nil {
		t.Fatalf("%s: %v\nframe %s", name, err, hex.EncodeToString(frame))
	}
	if difference != "" {
		t.Fatalf("%s:\n%s", name, p.report(frame, difference))
	}
}

// FuzzPacket is the same comparison for go test -fuzz, which keeps what
// reaches new code of the oracle.
func FuzzPacket(f *testing.F) {
	seeds, _ := fuzzSeeds(f)
	for i, frame := range seeds {
		if i%16 == 0 {
			f.Add(frame, uint8(i))
		}
	}
	pairs := make([]*pair, len(tunnelMixes))
	for i, mix := range tunnelMixes {
		pairs[i] = newPair(f, mix)
		pairs[i].lists = packettest.Lists{
			Block:     []traffic.Entry{{Prefix: netip.MustParsePrefix("192.0.2.0/24")}, {Prefix: netip.MustParsePrefix("2001:db8::/64")}},
			Allow:     []traffic.Entry{{Prefix: netip.MustParsePrefix("192.0.2.128/25")}},
			Protected: []traffic.Entry{{Prefix: netip.MustParsePrefix("2001:db8::8000:0/97")}},
		}
		pairs[i].policies = everyPolicy(traffic.Policy(i % 2))
		if err := pairs[i].apply(); err != nil {
			f.Fatal(err)
		}
	}
	f.Fuzz(func(t *testing.T, frame []byte, mix uint8) {
		if len(frame) < 14 || len(frame) > packettest.MaxFuzzFrame {
			return
		}
		check(t, pairs[int(mix)%len(pairs)], "fuzz", frame)
	})
}
