// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"bytes"
	"log/slog"
	"math"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/sentinel-x/sentinel-x/internal/api"
	"github.com/sentinel-x/sentinel-x/internal/config"
	"github.com/sentinel-x/sentinel-x/internal/dataplane"
	"github.com/sentinel-x/sentinel-x/internal/detect"
	"github.com/sentinel-x/sentinel-x/internal/scene"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// pathSite is a detection on the real program, with the models that come with it, whose time goes by as the test wants.
type pathSite struct {
	*detection
	tester *dataplane.Tester
	log    *bytes.Buffer
	found  []api.Incident // every change of one
	now    time.Time
}

func newPathSite(t *testing.T, o dataplane.Options, start time.Time) *pathSite {
	t.Helper()
	tester, err := dataplane.NewTester(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tester.Close(); err != nil {
			t.Error(err)
		}
	})
	cfg := config.Default()
	cfg.StateDir = t.TempDir()
	cfg.Protect.Targets = []netip.Prefix{netip.PrefixFrom(sceneTarget, 32)}
	s := &pathSite{tester: tester, log: &bytes.Buffer{}, now: start}
	s.detection = newDetection(cfg, slog.New(slog.NewTextHandler(s.log, nil)), tester, func(i api.Incident) { s.found = append(s.found, i) })
	s.tick(s.now)
	return s
}

// play lets a scene go by, from where it is to that many ticks later, with `each` ticks in one.
func (s *pathSite) play(t *testing.T, p *scenePlayer, ticks, each int) {
	t.Helper()
	for range ticks / each {
		p.due += time.Duration(each) * traffic.Tick
		for ; p.more && p.packet.Time < p.due; p.more = p.stream.Next(&p.packet) {
			if _, err := s.tester.Run(p.packet.Frame, time.Duration(1e18)+p.packet.Time); err != nil {
				t.Fatal(err)
			}
		}
		s.now = s.now.Add(time.Duration(each) * traffic.Tick)
		s.tick(s.now)
	}
}

// scenePlayer is where a scene has got to.
type scenePlayer struct {
	stream scene.Stream
	packet scene.Packet
	more   bool
	due    time.Duration
}

func playerOf(t *testing.T, s scene.Scenario) *scenePlayer {
	t.Helper()
	stream, err := s.Stream()
	if err != nil {
		t.Fatal(err)
	}
	p := &scenePlayer{stream: stream}
	p.more = stream.Next(&p.packet)
	return p
}

// opened returns the incidents that were found at the target, each once.
func (s *pathSite) opened() (list []api.Incident) {
	for _, i := range s.found {
		if i.Target == sceneTarget.String() && !slices.ContainsFunc(list, func(o api.Incident) bool { return o.ID == i.ID }) {
			list = append(list, i)
		}
	}
	return list
}

// Samples that find the ring full are counted, and the attack is found without them.
func TestLostSamplesHideNoAttack(t *testing.T) {
	s := newPathSite(t, dataplane.Options{MaxTargets: 16, SampleRingBytes: os.Getpagesize()}, time.Unix(1_700_000_000, 0))
	p := playerOf(t, scene.Scenario{
		Family: "syn_spoofed", Kind: traffic.KindSYNFlood, Profile: "web", Target: sceneTarget,
		Onset: 8 * time.Second, End: 11 * time.Second, Length: 12 * time.Second, Ratio: 10, Baseline: 600, Seed: 3,
	})
	s.play(t, p, 80, 1)
	if len(s.found) != 0 {
		t.Fatalf("clients are incidents: %+v", s.found)
	}
	s.play(t, p, 40, 1)
	if st := s.status(); st.SamplesLost < st.SamplesSent || st.SamplesSent == 0 {
		t.Errorf("%d samples lost, %d sent", st.SamplesLost, st.SamplesSent)
	}
	list := s.opened()
	if len(list) != 1 || list[0].Kind != "syn_flood" || list[0].Detected.Sub(list[0].Onset) > time.Second {
		t.Errorf("%+v\n%s", list, s.log)
	}
}

// The long window of a daemon that stood still is no incident, of whatever traffic and length.
func TestLongTickIsNoIncident(t *testing.T) {
	for i, profile := range []string{"web", "mail", "voice", "hosting", "vpn", "eyeball"} {
		s := newPathSite(t, dataplane.Options{MaxTargets: 16}, time.Unix(1_700_000_000, 0))
		p := playerOf(t, scene.Scenario{
			Family: "normal", Profile: profile, Target: sceneTarget, Length: 120 * time.Second, Baseline: 700, Seed: uint64(20 + i),
		})
		for _, stall := range []int{5, 30, 100} {
			s.play(t, p, 150, 1)
			s.play(t, p, stall, stall)
		}
		s.play(t, p, 600, 1)
		for _, stall := range []int{2, 10, 50} { // and with a baseline
			s.play(t, p, stall, stall)
			s.play(t, p, 10, 1)
		}
		if len(s.found) != 0 {
			t.Errorf("%s: %+v\n%s", profile, s.found[0], s.log)
		}
	}
}

// The host's clock may go where it likes: no incident comes of it, what is learnt stays finite, and an attack after it
// is found as ever.
func TestClockJumpsAreNoIncident(t *testing.T) {
	begin := time.Date(2030, 1, 7, 11, 0, 0, 0, time.UTC)
	s := newPathSite(t, dataplane.Options{MaxTargets: 16}, begin)
	const onset = 110 * time.Second
	p := playerOf(t, scene.Scenario{
		Family: "syn_spoofed", Kind: traffic.KindSYNFlood, Profile: "web", Target: sceneTarget,
		Onset: onset, End: onset + 3*time.Second, Length: onset + 4*time.Second, Ratio: 10, Baseline: 600, Seed: 3,
	})
	s.play(t, p, 700, 1)
	for _, to := range []time.Time{
		s.now.Add(time.Hour), s.now.Add(-time.Hour), s.now.Add(-time.Millisecond), s.now.Add(365 * 24 * time.Hour),
		time.Unix(0, 0),
		{},
		time.Date(2262, 1, 1, 0, 0, 0, 0, time.UTC), begin,
	} {
		s.now = to
		s.play(t, p, 50, 1)
		if len(s.found) != 0 {
			t.Fatalf("the clock at %v: %+v\n%s", to, s.found[0], s.log)
		}
	}
	var learnt bytes.Buffer
	if err := s.detector.Baselines().Write(&learnt); err != nil {
		t.Fatal(err)
	}
	if err := detect.New(detect.SettingsOf(s.cfg.Detect), detect.Models{}).ReadBaselines(&learnt); err != nil {
		t.Errorf("what was learnt is not finite: %v", err)
	}
	s.play(t, p, 30, 1)
	list := s.opened()
	if len(list) != 1 || list[0].Kind != "syn_flood" || list[0].NoBaseline || list[0].Detected.Sub(list[0].Onset) > time.Second {
		t.Fatalf("%+v\n%s", list, s.log)
	}
	if normal := list[0].Normal.Packets; !(math.Abs(normal-600) < 300) {
		t.Errorf("%v packets a second are normal, want about 600", normal)
	}
}
