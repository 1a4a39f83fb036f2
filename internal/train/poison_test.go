// SPDX-License-Identifier: Apache-2.0

package train

import (
	"math"
	"slices"
	"testing"
	"time"

	"github.com/sentinel-x/sentinel-x/internal/config"
	"github.com/sentinel-x/sentinel-x/internal/detect"
	"github.com/sentinel-x/sentinel-x/internal/model"
	"github.com/sentinel-x/sentinel-x/internal/scene"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

const (
	poisonLead = 15 * time.Minute // until the baseline may rise no faster than it may, and learners are armed
	poisonHour = time.Hour
	// poisonLoop is how much traffic is composed: it comes again and again.
	poisonLoop = 4 * time.Minute
)

// loop composes the windows of a host's normal traffic, or of an attack on it alone.
func loop(t *testing.T, s *scene.Scenario, stream scene.Stream, length time.Duration) (list []traffic.Window) {
	t.Helper()
	o := scene.CounterOptions{Targets: s.Watch()[:1], Seeds: seeds, Start: monday, Length: length, Samples: 30}
	for w := range scene.Windows(stream, o) {
		c := *w
		c.Samples = slices.Clone(w.Samples)
		list = append(list, c)
	}
	return list
}

// fedHost is a detector whose one target is fed loops of windows.
type fedHost struct {
	*detect.Detector
	bank    *detect.Bank
	target  traffic.Target
	ticks   int
	seen    detect.Vector // of the last window
	opened  int
	adopted int // forests
	refused int
}

func newFedHost(t *testing.T, target traffic.Target) *fedHost {
	t.Helper()
	trees, err := detect.DefaultTrees()
	if err != nil {
		t.Fatal(err)
	}
	classify, err := detect.NewTrees(trees)
	if err != nil {
		t.Fatal(err)
	}
	bank, err := detect.NewBank(1, model.LearnerParams{})
	if err != nil {
		t.Fatal(err)
	}
	p := &fedHost{bank: bank, target: target, seen: make(detect.Vector, detect.NumFeatures())}
	p.Detector = detect.New(detect.SettingsOf(config.Default().Detect), bank.Models(classify))
	p.Observe(func(s *detect.Seen) {
		if p.ticks%600 == 0 {
			copy(p.seen, s.Features())
		}
	})
	return p
}

// feed plays the windows in a loop, with what poison adds to each.
func (p *fedHost) feed(length time.Duration, windows []traffic.Window, poison func(tick int) *traffic.Window) {
	var w traffic.Window
	for range int(length / traffic.Tick) {
		at := monday.Add(10*time.Hour + time.Duration(p.ticks)*traffic.Tick)
		w = windows[p.ticks%len(windows)]
		w.Start = at
		if more := poison(p.ticks); more != nil {
			w.Tally.Add(&more.Tally)
			w.Histograms.Add(&more.Histograms)
			w.Samples = append(slices.Clip(w.Samples), more.Samples...)
		}
		p.ticks++
		for _, u := range p.Tick(at, traffic.Tick, []traffic.Window{w}) {
			if u.Change == detect.Opened {
				p.opened++
			}
		}
		if p.ticks%10 == 0 {
			p.retrain(at)
		}
	}
}

func (p *fedHost) retrain(at time.Time) {
	target, shadow := p.bank.Due(at)
	if shadow == nil {
		return
	}
	c, err := shadow.Train(detect.NotWorse)
	if err != nil {
		c = nil
		p.refused++
	} else {
		p.adopted++
	}
	p.bank.Take(target, c)
}

// normal is what the target's baseline says, in packets a second, and the thresholds
// of its forest and of its half-space trees.
func (p *fedHost) normal() (rate, forest, online float64) {
	at := func(name string) float64 { return float64(p.seen[detect.Index(name)]) }
	f, o := p.bank.Forest().Score(p.target, p.seen), p.bank.Online().Score(p.target, p.seen)
	return math.Exp2(at("packets_1s")-at("packets_ratio_1s")) - 1, f.Threshold, o.Threshold
}

func nothing(int) *traffic.Window { return nil }

// TestPoisoning: for an hour fragments of attacks trickle into the traffic of a host,
// always so little that nothing is done about it. Neither what is normal for it nor
// the thresholds of its learners rise by more than a tenth, and the attack is found
// behind it as before.
func TestPoisoning(t *testing.T) {
	calm := catalogue(t, "normal", 1, knownLead)
	normal, err := calm.Normal()
	if err != nil {
		t.Fatal(err)
	}
	stream, err := normal.Stream()
	if err != nil {
		t.Fatal(err)
	}
	windows := loop(t, calm, stream, poisonLoop)
	for name, v := range map[string]struct {
		family string
		ratio  float64 // of the fragments to the normal traffic
		every  int     // tick has one
	}{
		"a trickle of SYNs":         {"syn_spoofed", 0.05, 1},
		"as if more clients came":   {"connection_flood", 0.15, 1},
		"many clients now and then": {"connection_flood", 0.5, 5},
	} {
		t.Run(name, func(t *testing.T) {
			fragments, attack := onHost(t, v.family, v.ratio, calm), onHost(t, v.family, 3, calm)
			p := newFedHost(t, traffic.HostTarget(calm.Target))
			p.feed(poisonLead, windows, nothing)
			rate, forest, online := p.normal()
			before := p.stats().Learnt
			p.feed(poisonHour, windows, func(tick int) *traffic.Window {
				if tick%v.every != 0 {
					return nil
				}
				return &fragments[tick/v.every%len(fragments)]
			})
			if p.opened > 0 {
				t.Errorf("%d incidents: the poison was no trickle", p.opened)
			}
			rate2, forest2, online2 := p.normal()
			t.Logf("normal %.0f packets/s, then %.0f (%+.1f %%); forest %.4f, then %.4f (%+.1f %%); online %.4f, then %.4f (%+.1f %%)",
				rate, rate2, 100*(rate2/rate-1), forest, forest2, 100*(forest2/forest-1), online, online2, 100*(online2/online-1))
			t.Logf("%.0f windows of the hour were learnt; forests: %d taken, %d refused", p.stats().Learnt-before, p.adopted, p.refused)
			if p.stats().Learnt < before+10_000 {
				t.Error("the fragments were noticed, so they are no poison")
			}
			for what, r := range map[string][2]float64{"normal": {rate, rate2}, "forest": {forest, forest2}, "online": {online, online2}} {
				if !(r[0] > 0) || !(r[1] <= 1.1*r[0]) {
					t.Errorf("%s: %.4f before the hour, %.4f after it", what, r[0], r[1])
				}
			}
			begin := p.ticks
			p.feed(time.Second, windows, func(tick int) *traffic.Window { return &attack[tick-begin] })
			if p.opened != 1 {
				t.Errorf("the attack behind it: %d incidents in a second", p.opened)
			}
		})
	}
}

func (p *fedHost) stats() model.LearnerStats {
	s, _ := p.bank.Stats(p.target)
	return s
}

// onHost composes some seconds of an attack alone, on the host of a scene.
func onHost(t *testing.T, family string, ratio float64, host *scene.Scenario) []traffic.Window {
	t.Helper()
	s := *catalogue(t, family, ratio, 0)
	s.Target, s.Profile, s.Baseline, s.Begin = host.Target, host.Profile, host.Baseline, host.Begin
	s.Onset, s.End, s.Length = 0, time.Minute, time.Minute
	event, err := s.Event()
	if err != nil {
		t.Fatal(err)
	}
	return loop(t, &s, event, s.Length)
}
