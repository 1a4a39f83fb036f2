// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"errors"
	"io/fs"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sentinel-x/sentinel-x/internal/config"
	"github.com/sentinel-x/sentinel-x/internal/dataplane"
	"github.com/sentinel-x/sentinel-x/internal/detect"
	"github.com/sentinel-x/sentinel-x/internal/scene"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

var sceneTarget = netip.MustParseAddr("198.51.100.10")

// recorded returns real SYN floods and amplifications, or without ../shared none.
func recorded(t *testing.T) (list []*scene.Recording) {
	t.Helper()
	all, err := scene.Recordings("../../../shared/data")
	if errors.Is(err, fs.ErrNotExist) {
		t.Logf("%v: only the attack that is made up is replayed", err)
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range all {
		if strings.HasPrefix(r.File, "attack-real/") && (r.Kind == traffic.KindSYNFlood || r.Kind == traffic.KindAmplification) {
			list = append(list, r)
		}
	}
	if len(list) < 3 {
		t.Fatalf("only %d recordings", len(list))
	}
	return list
}

// attackScene is twelve seconds with an attack from the eighth to the eleventh.
func attackScene(kind traffic.Kind, rec *scene.Recording) scene.Scenario {
	return scene.Scenario{
		Name: "test", Family: "syn_botnet", Kind: kind, Profile: "web", Target: sceneTarget, Recording: rec,
		Onset: 8 * time.Second, End: 11 * time.Second, Length: 12 * time.Second, Ratio: 10, Baseline: 400, Seed: 3,
	}
}

func writeScene(t *testing.T, s scene.Scenario) string {
	t.Helper()
	stream, err := s.Stream()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "scene.pcap")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = scene.WriteCapture(f, stream, time.Unix(1_700_000_000, 0))
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	return path
}

func watchOf(t *testing.T, o ReplayOptions) ReplayResult {
	t.Helper()
	r, err := Replay(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// Attacks spliced into normal traffic are found where they are, as what they are; the
// normal traffic alone is not one.
func TestReplayFindsAttacks(t *testing.T) {
	cfg := config.Default()
	cfg.Detect.Limits.UDP = 2000 // there is no baseline in so short a capture
	calm := attackScene(traffic.KindBenign, nil)
	calm.Family = "normal"
	r := watchOf(t, ReplayOptions{File: writeScene(t, calm), Config: cfg})
	if len(r.Incidents) != 0 || r.Incidents == nil || r.Detection == nil || !strings.Contains(strings.Join(r.Detection.Notes, ";"), "baseline") {
		t.Errorf("normal traffic: %+v, %+v", r.Incidents, r.Detection)
	}
	scenes := []scene.Scenario{attackScene(traffic.KindSYNFlood, nil)}
	for _, rec := range recorded(t) {
		s := attackScene(rec.Kind, rec)
		s.Protocol = rec.Protocol
		scenes = append(scenes, s)
	}
	for _, s := range scenes {
		name := s.Family
		if s.Recording != nil {
			name = s.Recording.File
		}
		r := watchOf(t, ReplayOptions{File: writeScene(t, s), Config: cfg})
		i := slices.IndexFunc(r.Incidents, func(i ReplayIncident) bool { return i.Target == traffic.HostTarget(sceneTarget) })
		if i < 0 {
			t.Errorf("%s: no incident of the host: %+v, %+v", name, r.Incidents, r.Detection)
			continue
		}
		got := r.Incidents[i]
		if got.Kind != s.Kind || s.Kind == traffic.KindAmplification && got.Protocol != s.Protocol || !got.NoBaseline ||
			math.Abs(got.Onset-8) > .3 || got.Detected < got.Onset || got.Detected > 9 || got.Confidence <= 0 || len(got.Votes) == 0 {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// What is not given is chosen by the packets, given targets come first, and --no-detect looks at nothing.
func TestReplayTargets(t *testing.T) {
	file := writeScene(t, attackScene(traffic.KindSYNFlood, nil))
	r := watchOf(t, ReplayOptions{File: file, Config: config.Default()})
	if host := netip.PrefixFrom(sceneTarget, 32); !slices.Contains(r.Detection.Targets, host) || !strings.Contains(r.Detection.Chosen, "most packets") {
		t.Errorf("chosen %+v", r.Detection)
	}
	cfg, other := config.Default(), netip.MustParsePrefix("203.0.113.7/32")
	cfg.Protect.Targets = []netip.Prefix{other}
	r = watchOf(t, ReplayOptions{File: file, Config: cfg})
	if d := cmp.Diff([]string{other.String(), "protect.targets of the configuration"}, []string{r.Detection.Targets[0].String(), r.Detection.Chosen}); d != "" {
		t.Error(d)
	}
	r = watchOf(t, ReplayOptions{File: file, Config: cfg, Targets: []netip.Prefix{netip.PrefixFrom(sceneTarget, 32)}})
	if r.Detection.Chosen != "given" || len(r.Incidents) == 0 {
		t.Errorf("given: %+v, %+v", r.Detection, r.Incidents)
	}
	r = watchOf(t, ReplayOptions{File: file, Config: cfg, NoDetect: true})
	if r.Detection != nil || r.Incidents != nil {
		t.Errorf("switched off: %+v, %+v", r.Detection, r.Incidents)
	}
}

// features returns what the extractor makes of the windows of each tick of a target.
type features struct {
	x    *detect.Extractor
	rows []detect.Vector
}

func (f *features) add(start time.Time, windows func(yield func(*traffic.Window) bool)) {
	if !f.x.Begin(start, traffic.Tick) {
		return
	}
	for w := range windows {
		t := f.x.Observe(w)
		if w.Target == traffic.HostTarget(sceneTarget) {
			v := make(detect.Vector, detect.NumFeatures())
			t.Features(v)
			f.rows = append(f.rows, v)
		}
		t.Settle(false)
	}
}

func replayFeatures(t *testing.T, file string) []detect.Vector {
	t.Helper()
	f := features{x: detect.NewExtractor(64)}
	watchOf(t, ReplayOptions{
		File: file, Config: config.Default(), Targets: []netip.Prefix{netip.PrefixFrom(sceneTarget, 32)},
		windows: func(end time.Time, windows []traffic.Window) {
			f.add(end.Add(-traffic.Tick), func(yield func(*traffic.Window) bool) {
				for i := range windows {
					if !yield(&windows[i]) {
						return
					}
				}
			})
		},
	})
	return f.rows
}

// The same packets give the same features, bit for bit.
func TestReplayTwiceGivesTheSameFeatures(t *testing.T) {
	file := writeScene(t, attackScene(traffic.KindSYNFlood, nil))
	one, two := replayFeatures(t, file), replayFeatures(t, file)
	if len(one) < 110 || len(one) != len(two) {
		t.Fatalf("%d ticks, then %d", len(one), len(two))
	}
	for i := range one {
		for k := range one[i] {
			if math.Float32bits(one[i][k]) != math.Float32bits(two[i][k]) {
				t.Fatalf("tick %d: %s is %v, then %v", i, detect.Names()[k], one[i][k], two[i][k])
			}
		}
	}
}

// Time goes on, whatever the capture says, and is told back as the capture tells it.
func TestReplayClock(t *testing.T) {
	second := func(s float64) time.Time { return time.Unix(1_700_000_000, 0).Add(time.Duration(s * 1e9)) }
	for name, c := range map[string]struct {
		stamps, want, back       []float64 // seconds
		disorder, steps, forward uint64
	}{
		"in order":     {stamps: []float64{0, 1, 1.5}, want: []float64{0, 1, 1.5}, back: []float64{0, 1, 1.5}},
		"reordered":    {stamps: []float64{0, 1, .5, 1.5}, want: []float64{0, 1, 1, 1.5}, back: []float64{0, 1, 1, 1.5}, disorder: 1},
		"stepped back": {stamps: []float64{0, 100.5 - 50, 10, 11}, want: []float64{0, 50.5, 50.5, 51.5}, back: []float64{0, 50.5, 10, 11}, steps: 1},
		"jump":         {stamps: []float64{0, 1e6, 1e6 + 1}, want: []float64{0, 60, 61}, back: []float64{0, 1e6, 1e6 + 1}, forward: 1},
		"zero inside":  {stamps: []float64{0, 1, -1.7e9, 2}, want: []float64{0, 1, 1, 61}, back: []float64{0, 1, -1.7e9, 2}, steps: 1, forward: 1},
		"all the same": {stamps: []float64{0, 0, 0}, want: []float64{0, 0, 0}, back: []float64{0, 0, 0}},
	} {
		var clock replayClock
		for i, s := range c.stamps {
			at := clock.at(second(s))
			if d := at.Sub(second(c.want[i])); d.Abs() > time.Millisecond {
				t.Errorf("%s: packet %d is at %v, %v off", name, i, at, d)
			}
			if d := clock.stamp(at).Sub(second(c.back[i])); d.Abs() > time.Millisecond {
				t.Errorf("%s: packet %d is told as %v, %v off", name, i, clock.stamp(at), d)
			}
		}
		if clock.disorder != c.disorder || clock.back != c.steps || clock.ahead != c.forward {
			t.Errorf("%s: %d out of order, %d back, %d ahead", name, clock.disorder, clock.back, clock.ahead)
		}
	}
}

// A flood with broken timestamps is found, and what is wrong with them said.
func TestReplayBrokenTimestamps(t *testing.T) {
	flood := func(shift func(i int) time.Duration) []packet {
		var list []packet
		for i := range 6000 {
			at := time.Duration(i) * 500 * time.Microsecond
			list = append(list, packet{at + shift(i), netip.AddrFrom4([4]byte{203, 0, 113, byte(i)}).String(), "S"})
		}
		return list
	}
	for want, shift := range map[string]func(i int) time.Duration{
		"steps back": func(i int) time.Duration {
			if i > 1000 {
				return -time.Hour
			}
			return 0
		},
		"pauses or jumps": func(i int) time.Duration {
			if i > 1000 {
				return 24 * time.Hour
			}
			return 0
		},
		"out of order": func(i int) time.Duration { return time.Duration(i%2) * 10 * time.Millisecond },
		"the same time": func(i int) time.Duration {
			return -time.Duration(i) * 500 * time.Microsecond
		},
	} {
		r := watchOf(t, ReplayOptions{File: writeCapture(t, flood(shift)), Config: config.Default()})
		if notes := strings.Join(r.Detection.Notes, "; "); !strings.Contains(notes, want) {
			t.Errorf("%s: only %s", want, notes)
		}
		if found := len(r.Incidents) > 0; found == (want == "the same time") {
			t.Errorf("%s: %+v", want, r.Incidents)
		}
	}
}

// Whatever the packet path has a window for, the detector has a place for. When all of it changes, it takes a tick
// to see that the others have gone.
func TestEveryWatchedTargetHasAPlace(t *testing.T) {
	cfg := config.Default()
	cfg.Detect.MaxTargets = 6
	tester, err := dataplane.NewTester(dataplane.Options{MaxTargets: int(cfg.Detect.MaxTargets)})
	if err != nil {
		t.Fatal(err)
	}
	defer tester.Close()
	d := detect.New(detect.SettingsOf(cfg.Detect), detect.Models{})
	at := time.Unix(1_700_000_000, 0)
	for round := range 3 {
		var targets []netip.Prefix
		for i := range byte(cfg.Detect.MaxTargets) { // each in a network of its own
			targets = append(targets, netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 51, 100 + byte(round)*10 + i, 1}), 32))
		}
		if err := tester.SetTargets(targets); err != nil {
			t.Fatal(err)
		}
		late := d.Stats().Refused
		for i := range 5 {
			at = at.Add(traffic.Tick)
			windows, err := tester.Tick(at)
			if err != nil {
				t.Fatal(err)
			}
			for i := range windows { // all of them busy
				windows[i].Tally = traffic.Tally{Packets: 1, Bytes: 60, UDP: 1}
			}
			d.Tick(at.Add(-traffic.Tick), traffic.Tick, windows)
			if i == 2 {
				late = d.Stats().Refused
			}
			if s := d.Stats(); s.Refused != late && (round == 0 || i > 2) || s.Refused > uint64(round)*12 {
				t.Fatalf("round %d, tick %d: %d windows, %+v", round, i, len(windows), s)
			}
		}
		if windows, _ := tester.Tick(at.Add(traffic.Tick / 2)); len(windows) != 2*len(targets)+1 {
			t.Errorf("round %d: %d windows of %d targets", round, len(windows), len(targets))
		}
	}
}

// A capture of nothing but jumps does not make detection sit through years of silence: packets that are years apart,
// in turn, and packets minutes apart for years.
func TestReplayJumpsAreBounded(t *testing.T) {
	for name, stamp := range map[string]func(i int) time.Duration{
		"to and fro":    func(i int) time.Duration { return time.Duration(i%2) * 10 * 365 * 24 * time.Hour },
		"years forward": func(i int) time.Duration { return time.Duration(i) * 365 * 24 * time.Hour / 1000 },
		"just a minute": func(i int) time.Duration { return time.Duration(i) * 59 * time.Second },
		"from zero":     func(i int) time.Duration { return time.Duration(min(i, 1)) * 54 * 365 * 24 * time.Hour },
	} {
		var clock replayClock
		const packets = 200_000
		first := clock.at(time.Unix(0, 0))
		for i := range packets {
			clock.at(time.Unix(0, 0).Add(stamp(i)))
		}
		if ticks := clock.now.Sub(first) / traffic.Tick; ticks > packets*shortPause/traffic.Tick+(silenceTime+pauseTime)/traffic.Tick {
			t.Errorf("%s: %d packets take %d ticks", name, packets, ticks)
		}
		if name != "from zero" && clock.short < packets/3 {
			t.Errorf("%s: %d pauses were cut short", name, clock.short)
		}
		if d := clock.stamp(clock.now).Sub(time.Unix(0, 0).Add(stamp(packets - 1))); d != 0 {
			t.Errorf("%s: the last packet is told as %v off", name, d)
		}
	}
	var list []packet
	for i := range 2000 { // and all of it on the packet path
		at := time.Duration(i)*time.Millisecond + time.Duration(i/500)*365*24*time.Hour
		list = append(list, packet{at, netip.AddrFrom4([4]byte{203, 0, 113, byte(i)}).String(), "A"})
	}
	r := watchOf(t, ReplayOptions{File: writeCapture(t, list), Config: config.Default()})
	if notes := strings.Join(r.Detection.Notes, "; "); r.Packets != 2000 || !strings.Contains(notes, "3 pauses or jumps") {
		t.Errorf("%d packets, %s", r.Packets, notes)
	}
}
