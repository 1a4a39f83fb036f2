// SPDX-License-Identifier: Apache-2.0

package scene

import (
	"bytes"
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sentinel-x/sentinel-x/internal/capture"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// realAttacks returns those of ../shared/data, or, without them, the small one of testdata.
func realAttacks(t *testing.T) []*Recording {
	t.Helper()
	list, err := Recordings("../../../shared/data")
	if err == nil {
		return list
	}
	if !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	t.Logf("%v: the small capture of testdata stands in", err)
	small, err := ReadRecording("../../testdata/captures/tcp_reflection.pcapng")
	if err != nil {
		t.Fatal(err)
	}
	small.Kind = traffic.KindACKFlood
	return []*Recording{small}
}

// A recording has the rate asked for, below its own and above it, goes to the target, and its
// packets are what they were.
func TestSplice(t *testing.T) {
	for _, rec := range realAttacks(t) {
		for i, factor := range []float64{.1, 1, 3.5, .2, 5} {
			rate := rec.Rate * factor
			hold := max(3*rec.Span, 200*time.Millisecond)
			stream, err := rec.Stream(Splice{Target: target4, Rate: rate, Onset: time.Second, End: time.Second + hold, Even: i > 2, Seed: 5})
			if err != nil {
				t.Fatal(err)
			}
			n, last := 0, time.Second
			var f fields
			for p := range All(stream) {
				if p.Time < last || p.Time >= time.Second+hold || !p.Attack {
					t.Fatalf("%s: a packet at %v behind %v", rec.File, p.Time, last)
				}
				last = p.Time
				if f.parse(p.Frame); f.dst != addressOf(target4) {
					t.Fatalf("%s: a packet to %v", rec.File, f.dst.netip())
				}
				n++
			}
			if got := float64(n) / hold.Seconds(); math.Abs(got/rate-1) > .1 {
				t.Errorf("%s: %.0f packets/s, want %.0f", rec.File, got, rate)
			}
		}
	}
}

// Packets with right checksums have right ones behind their new destination.
func TestRedirect(t *testing.T) {
	for _, rec := range realAttacks(t) {
		good, mended := 0, 0
		var before, after fields
		for _, frame := range rec.frames[:min(len(rec.frames), 2000)] {
			if before.parse(frame); before.fragment != 0 || checkTransport(&before, frame) != nil {
				continue
			}
			good++
			redirect(frame, uint32(addressOf(target4).lo))
			after.parse(frame)
			if err := checkFrame(frame); err == nil && after.src == before.src && after.dport == before.dport {
				mended++
			}
		}
		if mended != good {
			t.Errorf("%s: of %d packets with right checksums %d keep them", rec.File, good, mended)
		}
		t.Logf("%s: %d packets, %.0f/s over %v; %d of 2000 with right checksums", rec.File, rec.Packets, rec.Rate, rec.Span, good)
	}
}

func TestCatalogueOfRecordings(t *testing.T) {
	recordings := realAttacks(t)
	list, err := Catalogue(CatalogueOptions{Seed: 1, Families: []string{}, Recordings: recordings, Ratios: []float64{3}, Lead: time.Second, Hold: 4 * time.Second})
	if err != nil || len(list) != len(recordings) {
		t.Fatalf("%d scenarios, %v", len(list), err)
	}
	for _, s := range list {
		if !s.Target.Is4() || !s.Attack() {
			t.Errorf("%s: target %v, kind %q", s.Name, s.Target, s.Kind)
		}
		before, during, attack := measure(t, &s, open(t, &s))
		if grown := float64(attack) / 4 / s.Local(); before.Packets == 0 || during.Packets == 0 || math.Abs(grown/3-1) > .1 {
			t.Errorf("%s: the attack has %.2f times the baseline, %d packets before it", s.Name, grown, before.Packets)
		}
	}
}

// What is no attack is played at its own rate, and not counted as one.
func TestControls(t *testing.T) {
	list, err := Controls("../../../shared/data")
	if errors.Is(err, fs.ErrNotExist) {
		t.Logf("%v: the small capture of testdata stands in", err)
		var small *Recording
		small, err = ReadRecording("../../testdata/captures/tcp_reflection.pcapng")
		list = []*Recording{small}
	}
	if err != nil {
		t.Fatal(err)
	}
	scenes, err := Catalogue(CatalogueOptions{Families: []string{}, Recordings: list, Lead: time.Second, Hold: 10 * time.Second, Low: 10, High: 20})
	if err != nil || len(scenes) != len(list) {
		t.Fatalf("%d scenes, %v", len(scenes), err)
	}
	for i, s := range scenes {
		event, err := s.Event()
		if err != nil {
			t.Fatal(err)
		}
		_, during, attack := measure(t, &s, event)
		if attack != 0 || s.Attack() || list[i].Rate > 10 && during.Packets == 0 {
			t.Errorf("%s: %d packets of an attack, %d of the control", s.Name, attack, during.Packets)
		}
		t.Logf("%s: %.1f packets/s, %d in 10 s", list[i].File, list[i].Rate, during.Packets)
	}
}

func TestWriteCapture(t *testing.T) {
	s := Scenario{Family: "udp_spoofed", Kind: traffic.KindUDPFlood, Profile: "dns", Target: target6, End: time.Second, Length: time.Second, Ratio: 3, Baseline: 200, Seed: 2}
	var want []Packet
	for p := range All(open(t, &s)) {
		p.Frame = slices.Clone(p.Frame)
		want = append(want, p)
	}
	path := filepath.Join(t.TempDir(), "scene.pcap")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	start := time.Unix(1e9, 5)
	n, err := WriteCapture(f, open(t, &s), start)
	if err := errors.Join(err, f.Close()); err != nil || n != len(want) {
		t.Fatalf("%d packets of %d, %v", n, len(want), err)
	}
	i := 0
	err = capture.Each(path, func(p capture.Packet) error {
		if !bytes.Equal(p.Frame, want[i].Frame) || p.Cut || p.Length != len(p.Frame) || !p.Time.Equal(start.Add(want[i].Time)) {
			t.Fatalf("packet %d at %v", i, p.Time)
		}
		i++
		return nil
	})
	if err != nil || i != n {
		t.Errorf("%d packets read back, %v", i, err)
	}
}

func TestWrongScenes(t *testing.T) {
	good := Scenario{Family: "syn_spoofed", Profile: "web", Target: target4, End: time.Second, Length: time.Second, Ratio: 1, Baseline: 100}
	for want, change := range map[string]func(*Scenario){
		"no family":          func(s *Scenario) { s.Family = "x" },
		"no traffic profile": func(s *Scenario) { s.Profile = "x" },
		"a ratio of 0":       func(s *Scenario) { s.Ratio = 0 },
		"not after":          func(s *Scenario) { s.Onset = time.Second },
		"rate":               func(s *Scenario) { s.Baseline = 0 },
		"cannot be played":   func(s *Scenario) { s.Lapse = Lapse{Play: 2, Period: 1} },
	} {
		s := good
		change(&s)
		if _, err := s.Stream(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	if _, err := good.Stream(); err != nil {
		t.Error(err)
	}
	if _, err := Catalogue(CatalogueOptions{Families: []string{"x"}}); err == nil {
		t.Error("a catalogue of a family that is not there")
	}
	rec := realAttacks(t)[0]
	for want, s := range map[string]Splice{
		"IPv4":      {Target: target6, Rate: 1, End: 1},
		"packets/s": {Target: target4, Rate: 0, End: 1},
	} {
		if _, err := rec.Stream(s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

func TestReadRecordingRefuses(t *testing.T) {
	if _, err := ReadRecording("../../testdata/captures/gre.pcapng"); err == nil {
		t.Error("a recording of one packet")
	}
	cut := filepath.Join(t.TempDir(), "cut.pcap")
	whole, err := os.ReadFile("../../testdata/captures/dns.pcap")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(cut, whole[:len(whole)-5], 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadRecording(cut); err == nil || !strings.Contains(err.Error(), "cut.pcap: the file is cut") {
		t.Errorf("a cut recording: %v", err)
	}
}
