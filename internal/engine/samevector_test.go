// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sentinel-x/sentinel-x/internal/capture"
	"github.com/sentinel-x/sentinel-x/internal/config"
	"github.com/sentinel-x/sentinel-x/internal/detect"
	"github.com/sentinel-x/sentinel-x/internal/scene"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// tagged puts VLAN tags in front of what frames carry.
type tagged struct {
	scene.Stream
	tags []uint16 // their ethertypes, the outer one first
	buf  []byte
}

func (s *tagged) Next(p *scene.Packet) bool {
	if !s.Stream.Next(p) {
		return false
	}
	s.buf = append(s.buf[:0], p.Frame[:12]...)
	for i, tag := range s.tags {
		s.buf = binary.BigEndian.AppendUint16(s.buf, tag)
		s.buf = binary.BigEndian.AppendUint16(s.buf, uint16(100+i))
	}
	s.buf = append(s.buf, p.Frame[12:]...)
	p.Frame = s.buf
	return true
}

// played is a capture that is counted in Go.
type played struct{ packets []scene.Packet }

func (s *played) Next(p *scene.Packet) bool {
	if len(s.packets) == 0 {
		return false
	}
	*p, s.packets = s.packets[0], s.packets[1:]
	return true
}

func readPackets(t *testing.T, file string) (first time.Time, list []scene.Packet) {
	t.Helper()
	err := capture.Each(file, func(p capture.Packet) error {
		if first.IsZero() {
			first = p.Time
		}
		list = append(list, scene.Packet{Time: p.Time.Sub(first), Frame: append([]byte(nil), p.Frame...)})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return first, list
}

// seenWindow is a window of a target, and the features that it led to.
type seenWindow struct {
	traffic.Window
	features detect.Vector
}

// observer makes features of windows and keeps both.
type observer struct {
	x    *detect.Extractor
	calm func(time.Time) bool
	seen map[traffic.Target][]seenWindow
}

func newObserver(calm func(time.Time) bool) *observer {
	return &observer{detect.NewExtractor(64), calm, map[traffic.Target][]seenWindow{}}
}

func (o *observer) begin(t *testing.T, start time.Time) {
	if !o.x.Begin(start, traffic.Tick) {
		t.Fatalf("tick at %v is refused", start)
	}
}

func (o *observer) add(w *traffic.Window) {
	c := seenWindow{*w, make(detect.Vector, detect.NumFeatures())}
	c.Samples = nil
	for _, s := range w.Samples {
		s.Header = append([]byte(nil), s.Header...)
		c.Samples = append(c.Samples, s)
	}
	track := o.x.Observe(w)
	track.Features(c.features)
	track.Settle(o.calm(w.Start))
	o.seen[w.Target] = append(o.seen[w.Target], c)
}

// countedInGo has training's windows of a capture, and countedInKernel those of a replay.
func countedInGo(t *testing.T, file string, targets []traffic.Target, seed uint64, calm func(time.Time) bool) *observer {
	first, packets := readPackets(t, file)
	length := (packets[len(packets)-1].Time/traffic.Tick + 1) * traffic.Tick
	o := newObserver(calm)
	for w := range scene.Windows(&played{packets}, scene.CounterOptions{
		Targets: targets, Seeds: traffic.Seeds{Source: seed, SourceNet: seed + 1, SourcePort: seed + 2, DestPort: seed + 3, Fingerprint: seed + 4},
		Start: first, Length: length, Samples: 500,
	}) {
		if w.Target == targets[0] {
			o.begin(t, w.Start)
		}
		o.add(w)
	}
	return o
}

func countedInKernel(t *testing.T, file string, targets []traffic.Target, calm func(time.Time) bool) *observer {
	o := newObserver(calm)
	watchOf(t, ReplayOptions{
		File: file, Config: config.Default(), Targets: []netip.Prefix{targets[1].Prefix, targets[2].Prefix},
		windows: func(end time.Time, windows []traffic.Window) {
			o.begin(t, end.Add(-traffic.Tick))
			for i := range windows {
				if w := &windows[i]; slices.Contains(targets, w.Target) { // hosts of a carpet get windows, too
					o.add(w)
				}
			}
		},
	})
	return o
}

// sameWindow compares what does not depend on where a hash puts a value. A target with fewer packets in a
// tick than may be sampled has the same samples, too.
func sameWindow(t *testing.T, kernel, here *seenWindow) {
	t.Helper()
	want := here.Tally
	want.Dropped, want.DroppedBytes = kernel.Dropped, kernel.DroppedBytes // nothing is, in Go
	if kernel.Tally != want {
		d := cmp.Diff(want, kernel.Tally)
		t.Errorf("%v at %v: Go counts −, the packet path +\n%s", here.Target, here.Start, d)
	}
	if kernel.Counted != here.Counted || kernel.Lengths != here.Lengths || kernel.TTLs != here.TTLs {
		t.Errorf("%v at %v: %d packets in the histograms, in Go %d, or other lengths or TTLs", here.Target, here.Start, kernel.Counted, here.Counted)
	}
	if here.Packets > 400 {
		return
	}
	if d := otherSample(kernel.Samples, here.Samples); d != "" {
		t.Errorf("%v at %v: %s", here.Target, here.Start, d)
	}
}

// otherSample names the first sample, in the order of their times, that is not the same. Those of a network and
// of the interface come in the order of their hosts.
func otherSample(kernel, here []traffic.Sample) string {
	if len(kernel) != len(here) {
		return fmt.Sprintf("%d samples of the packet path, %d of Go", len(kernel), len(here))
	}
	byTime := func(a, b traffic.Sample) int { return a.Time.Compare(b.Time) }
	slices.SortStableFunc(kernel, byTime)
	slices.SortStableFunc(here, byTime)
	for i := range here {
		a, b := kernel[i], here[i]
		same := a.Time.Equal(b.Time)
		a.Time, a.Weight, b.Weight = b.Time, 0, 0
		if !same || !reflect.DeepEqual(a, b) {
			return fmt.Sprintf("sample %d of the packet path is %+v, of Go %+v", i, kernel[i], here[i])
		}
	}
	return ""
}

// hashed are the histograms whose values have another bin in the packet path than in Go, and how far that takes
// shares of them on average. A server has few ports, and two of them may share a bin.
var hashed = map[string]float64{"source": 0.03, "source_net": 0.03, "fingerprint": 0.04, "source_port": 0.06, "dest_port": 0.1}

// bound returns how far a feature may be off, and how far on average, because values share bins by chance;
// 0 for those that have nothing to do with it. A tick may have so few packets that one chance is much of it.
func bound(name string) (most, mean float64) {
	switch {
	case name == "unique_src_ips", strings.HasPrefix(name, "packets_per_source"), name == "sources_ratio_1s":
		return 2, 0.1
	case name == "port_entropy":
		return 1, hashed["dest_port"]
	case strings.HasPrefix(name, "length_") || strings.HasPrefix(name, "ttl_"):
		// Fading bins round alike until the fullest one, which may be a hashed one, takes all to another scale.
		if strings.HasSuffix(name, "_1s") || strings.HasSuffix(name, "_10s") {
			return 0.05, 0.001
		}
	}
	for h, mean := range hashed {
		switch rest, ok := strings.CutPrefix(name, h+"_"); {
		case !ok:
		case strings.HasPrefix(rest, "entropy_"), strings.HasPrefix(rest, "drift_"), strings.HasPrefix(rest, "top_share_"):
			return 1, mean
		case strings.HasPrefix(rest, "count_"):
			return 2, 4 * mean
		}
	}
	return 0, 0
}

// sameFeatures compares two vectors and adds up how far the bounded ones are off.
func sameFeatures(t *testing.T, kernel, here *seenWindow, off map[string]*offset) {
	t.Helper()
	for i, name := range detect.Names() {
		a, b := float64(kernel.features[i]), float64(here.features[i])
		if math.IsNaN(a) && math.IsNaN(b) {
			continue
		}
		if name == "unique_src_ips" {
			a, b = math.Log2(1+a), math.Log2(1+b) // as the other counts
		}
		most, _ := bound(name)
		if most > 0 && math.IsNaN(a) != math.IsNaN(b) && here.Packets < 2 {
			continue // what is left of two packets is rounded to one, and one has no entropy
		}
		d := math.Abs(a - b)
		if !(d <= most) { // NaN on one side only, too
			t.Errorf("%v at %v: %s is %v in the packet path, %v in Go", here.Target, here.Start, name, a, b)
		}
		if most > 0 {
			if off[name] == nil {
				off[name] = &offset{}
			}
			off[name].add(d)
		}
	}
}

// offset is how far a feature is off.
type offset struct{ n, sum, most float64 }

func (o *offset) add(d float64) { o.n, o.sum, o.most = o.n+1, o.sum+d, max(o.most, d) }

// One definition of a feature: of the same packets, training's windows and those of the packet path in a
// replay have the same counts, and lead to the same vectors over all three spans, but for what a hash of
// its own does to shapes: that stays within bounds.
func TestTrainingAndReplayGiveTheSameVector(t *testing.T) {
	v4, v6 := netip.MustParseAddr("198.51.100.10"), netip.MustParseAddr("2001:db8:5:6::10")
	off := map[string]*offset{}
	for i, c := range []struct {
		family  string
		kind    traffic.Kind
		profile string
		target  netip.Addr
		tags    []uint16
	}{
		{"syn_spoofed", traffic.KindSYNFlood, "web", v4, nil},
		{"amplification_dns", traffic.KindAmplification, "vpn", v6, nil},
		{"fragment_flood", traffic.KindFragmentFlood, "hosting", v4, []uint16{0x8100}},
		{"udp_botnet", traffic.KindUDPFlood, "voice", v6, []uint16{0x88a8, 0x8100}},
		{"mixed", traffic.KindOther, "mail", v4, nil},
		{"carpet_udp", traffic.KindCarpet, "eyeball", v4, nil},
		{"flash_crowd", traffic.KindBenign, "web", v6, nil},
	} {
		s := scene.Scenario{
			Family: c.family, Kind: c.kind, Profile: c.profile, Target: c.target,
			Onset: 66 * time.Second, End: 68 * time.Second, Length: 70 * time.Second, Ratio: 12, Baseline: 150, Seed: uint64(11 + i),
		}
		t.Run(c.family, func(t *testing.T) { compareVectors(t, &s, c.tags, off) })
	}
	for name, o := range off {
		if _, mean := bound(name); o.sum/o.n > mean {
			t.Errorf("%s is off by %.3f on average, at most %.3f", name, o.sum/o.n, o.most)
		}
		t.Logf("%-26s off by %.4f on average, at most %.3f", name, o.sum/o.n, o.most)
	}
}

func compareVectors(t *testing.T, s *scene.Scenario, tags []uint16, off map[string]*offset) {
	stream, err := s.Stream()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "scene.pcap")
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Unix(1_700_000_000, 0).UTC()
	_, err = scene.WriteCapture(f, &tagged{Stream: stream, tags: tags}, begin)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	calm := func(at time.Time) bool { return at.Before(begin.Add(s.Onset - time.Second)) }
	targets := []traffic.Target{{Scope: traffic.TargetInterface}, traffic.NetworkTarget(s.Target), traffic.HostTarget(s.Target)}
	here, kernel := countedInGo(t, file, targets, s.Seed<<8, calm), countedInKernel(t, file, targets, calm)
	for _, target := range targets {
		a, b := kernel.seen[target], here.seen[target]
		if len(a) != len(b) || len(a) < 690 {
			t.Fatalf("%v: %d windows of the packet path, %d of Go", target, len(a), len(b))
		}
		for i := range a {
			sameWindow(t, &a[i], &b[i])
			sameFeatures(t, &a[i], &b[i], off)
			if t.Failed() {
				return
			}
		}
		if target != targets[0] {
			continue // a host of a carpet may have had too few seconds with packets
		}
		for i, v := range b[len(b)-30].features {
			if name := detect.Names()[i]; math.IsNaN(float64(v)) && strings.Contains(name, "_ratio_1s") {
				t.Errorf("%v: %s is not known", target, name)
			}
		}
	}
}
