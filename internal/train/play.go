// SPDX-License-Identifier: Apache-2.0

package train

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/sentinel-x/sentinel-x/internal/detect"
	"github.com/sentinel-x/sentinel-x/internal/model"
	"github.com/sentinel-x/sentinel-x/internal/scene"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// samplesPerWindow is what the live engine has for a busy target.
const samplesPerWindow = 400

// outcome is what a detector made of one scene.
type outcome struct {
	s        *scene.Scenario
	delay    float64 // from the onset to the first alarm, seconds; NaN: none
	early    int     // alarms before the onset: false ones
	kind     traffic.Kind
	protocol string
	target   traffic.Target
	grey     int
}

// detected reports whether there was an alarm in the event.
func (o *outcome) detected() bool { return !math.IsNaN(o.delay) }

// falseAlarm reports whether the scene has an alarm that nothing caused.
func (o *outcome) falseAlarm() bool { return o.early > 0 || !o.s.Attack() && o.detected() }

// falsehood says what was said.
func (o *outcome) falsehood() string {
	if o.early > 0 {
		return fmt.Sprintf("%d before the event", o.early)
	}
	return fmt.Sprintf("%s of %s", o.kind, o.target)
}

// kindRight reports whether the incident's kind is the attack's, or one that is no mistake.
func (o *outcome) kindRight() bool {
	return o.kind == o.s.Kind || slices.Contains(o.s.Also, o.kind)
}

// play lets a detector watch a scene as host, network and interface.
func play(s *scene.Scenario, d *detect.Detector, bank *detect.Bank) (outcome, error) {
	p := player{
		d: d, bank: bank, out: outcome{s: s, delay: math.NaN()}, onset: monday.Add(s.Begin + s.Onset),
		incidents: map[string]traffic.Incident{},
	}
	err := windows(s, s.Watch(), samplesPerWindow, p.add)
	p.tick(p.at.Add(traffic.Tick))
	p.finish()
	return p.out, err
}

// player hands windows on by ticks and takes down what the detector says.
type player struct {
	d         *detect.Detector
	bank      *detect.Bank
	out       outcome
	onset     time.Time
	at        time.Time
	first     string                      // incident of the first alarm in the event
	incidents map[string]traffic.Incident // as they were last
}

func (p *player) add(w *traffic.Window, _ uint64) {
	if w.Start != p.at {
		p.tick(w.Start)
	}
	p.d.Add(w)
}

// tick ends one and begins the next.
func (p *player) tick(next time.Time) {
	if !p.at.IsZero() {
		for _, u := range p.d.End() {
			p.hear(&u)
		}
	}
	if t, shadow := p.bank.Due(p.at); shadow != nil {
		candidate, err := shadow.Train(func(*model.Candidate) error { return nil })
		if err != nil {
			candidate = nil
		}
		p.bank.Take(t, candidate)
	}
	p.at = next
	p.d.Begin(next, traffic.Tick)
}

func (p *player) hear(u *detect.Update) {
	i := &u.Incident
	if u.Change == detect.GreyZone {
		p.out.grey++
		return
	}
	p.incidents[i.ID] = *i
	switch {
	case u.Change != detect.Opened:
	case i.Detected.Before(p.onset):
		p.out.early++
	case !p.out.detected():
		p.out.delay, p.first = i.Detected.Sub(p.onset).Seconds(), i.ID
	}
}

// finish says what the first alarm came to: an incident may turn out to be part of a wider or narrower one.
func (p *player) finish() {
	i := p.incidents[p.first]
	for i.MergedInto != "" {
		next, ok := p.incidents[i.MergedInto]
		if !ok {
			break
		}
		i = next
	}
	p.out.kind, p.out.protocol, p.out.target = i.Kind, i.Protocol, i.Target
}
