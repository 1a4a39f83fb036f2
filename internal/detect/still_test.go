// SPDX-License-Identifier: Apache-2.0

package detect

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/sentinel-x/sentinel-x/internal/model"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// patient is a detector whose every window is judged, silent or not, and what is to be
// the same of one that leaves silence out.
type patient struct {
	d      *Detector
	bank   *Bank
	every  bool
	judged int
	seen   []string // windows with packets: their features and labels
	said   []string // updates
}

func newPatient(t *testing.T, every bool) *patient {
	t.Helper()
	trees := constantly(traffic.KindSYNFlood, 0.99)
	trees.p = func(v Vector) float64 { return float64(min(0.99, max(0, v[Index("syn_share_100ms")]-0.3))) * 1.4 }
	bank, err := NewBank(4, model.LearnerParams{})
	if err != nil {
		t.Fatal(err)
	}
	p := &patient{d: New(defaults(), bank.Models(nil)), bank: bank, every: every}
	p.d.models.Trees = trees
	p.d.Observe(func(s *Seen) {
		p.seen = append(p.seen, fmt.Sprint(s.Time.UnixMilli(), s.Target, s.Label, s.Known, s.Turn, s.Features()))
	})
	return p
}

func (p *patient) tick(t *testing.T, start time.Time, length time.Duration, windows []traffic.Window) {
	t.Helper()
	if !p.d.Begin(start, length) {
		return
	}
	for i := range windows {
		w := &windows[i]
		if !p.every {
			p.d.Add(w)
		} else if track := p.d.x.Observe(w); track != nil {
			p.d.judge(track)
		}
		if track := p.d.x.Find(w.Target); track != nil && track.last == p.d.x.tick {
			p.judged++
		}
	}
	for _, u := range p.d.End() {
		text, err := json.Marshal(u)
		if err != nil {
			t.Fatal(err)
		}
		p.said = append(p.said, string(text))
	}
}

// state is all that is kept of the targets, but for how far each is filled.
func (p *patient) state(t *testing.T) string {
	t.Helper()
	var b bytes.Buffer
	if err := p.d.Baselines().Write(&b); err != nil {
		t.Fatal(err)
	}
	for _, target := range []traffic.Target{victim, victims, allHosts} {
		track := p.d.x.Find(target)
		track.catchUp(p.d.x.tick)
		w := track.watch
		w.attack = nil
		stats, _ := p.bank.Stats(target)
		fmt.Fprint(&b, w, track.slides, track.fadeOne, track.fadeTen, track.reference, track.frozen,
			track.samples, track.first, track.visible, track.ranges, track.baseline.hourNow, track.baseline.hour, track.baseline.recent, stats)
	}
	b.Write(bankText(t, p.bank))
	return b.String()
}

// TestSilenceThatIsLeftOut: a target that has been silent for a while is not judged, and what is
// said and learnt is, to the bit, as if it were: after pauses of all lengths, over hours of the
// week, in floods, late ticks and ticks that never came.
func TestSilenceThatIsLeftOut(t *testing.T) {
	s := newSim(5)
	ours, reference := newPatient(t, false), newPatient(t, true)
	targets := []traffic.Target{allHosts, victims, victim}
	now := epoch
	step := func(ticks int64, play func(w *traffic.Window), silent ...int) {
		windows := make([]traffic.Window, len(targets))
		length := time.Duration(ticks) * traffic.Tick
		for i, target := range targets {
			windows[i] = traffic.Window{Target: target, Start: now, Length: length}
			if play != nil && !slices.Contains(silent, i) {
				play(&windows[i])
			}
		}
		for _, p := range []*patient{ours, reference} {
			p.tick(t, now, length, windows)
		}
		now = now.Add(length)
	}
	calm := func(w *traffic.Window) { s.clients(w, 300, 100) }
	few := func(w *traffic.Window) { s.clients(w, 12, 5) } // often none in a tick
	flood := func(w *traffic.Window) { s.clients(w, 300, 100); s.synFlood(w, 6000) }
	for range 700 {
		step(1, calm)
	}
	pauses := []int{1, 9, 19, 20, 21, 22, 25, 30, 99, 100, 101, 131, 250, 600, 2100, 45_000}
	for round, pause := range pauses {
		for i := range 40 {
			step(1, few, i%4) // one of the three is silent now and then
		}
		if round%3 == 1 {
			for range 12 {
				step(1, flood)
			}
		}
		for i := range pause {
			if round%4 == 3 && i%37 == 36 {
				now = now.Add(3 * traffic.Tick) // ticks that never came
			}
			if round%4 == 2 && i%29 == 28 {
				step(4, nil) // late
			}
			step(1, nil)
		}
		step(1, func(w *traffic.Window) { w.Bytes = 54 }, round%4) // a packet under way
		for i := range 60 {
			step(1, calm, (i/20+round)%4)
		}
		if a, b := ours.state(t), reference.state(t); a != b {
			t.Fatalf("after a pause of %d ticks the detectors differ", pause)
		}
	}
	if !slices.Equal(ours.seen, reference.seen) || !slices.Equal(ours.said, reference.said) || len(ours.said) < 10 {
		t.Errorf("%d windows and %d updates, of which not all are the same", len(ours.seen), len(ours.said))
	}
	if ours.judged*4 > reference.judged {
		t.Errorf("%d windows were judged, of %d: silence is not left out", ours.judged, reference.judged)
	}
	if a, b := ours.d.Stats(), reference.d.Stats(); a != b {
		t.Errorf("%+v, want %+v", a, b)
	}
	if now.Sub(epoch) < time.Hour {
		t.Errorf("all of it was in one hour")
	}
}

// TestStillTargetsAreThere: a target whose windows come is watched, however silent; two windows of a tick are one too many.
func TestStillTargetsAreThere(t *testing.T) {
	settings := defaults()
	settings.Targets = 2
	s := newStage(t, settings, Models{})
	s.run(5, s.calm, victim, victims)
	s.run(90, func([]traffic.Window) {}, victim, victims)
	s.run(1, s.calm, victim, victims, allHosts)
	if s.d.x.Find(victim) == nil || s.d.x.Find(victims) == nil || s.d.Stats().Refused != 1 {
		t.Errorf("%+v", s.d.Stats())
	}
	s.run(90, func([]traffic.Window) {}, victim, victims)
	s.run(1, func([]traffic.Window) {}, victim, victim)
	if s.d.Stats().Duplicates != 1 {
		t.Errorf("%+v", s.d.Stats())
	}
}
