// SPDX-License-Identifier: Apache-2.0

package detect

import (
	"time"

	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// Seen is a window with packets as the detector judged it, for an observer.
type Seen struct {
	Time   time.Time // when the window began
	Target traffic.Target
	// Label is LabelCalm if no detector objects; LabelAttack with an impact while an incident
	// of the target is open; else LabelUnknown, as without a baseline to tell (Known).
	Label    WindowLabel
	Known    bool
	Impact   bool              // its rates are above what is normal by as much as an attack's,
	Lasting  bool              // and those of the last second as well: no single burst
	Incident *traffic.Incident // that is open, nil without
	Turn     bool              // once a second for each target: its windows overlap anyway

	d *Detector
	t *Track
}

// Features returns the window's vector.
func (s *Seen) Features() Vector { return s.d.features(s.t) }

// Observe makes f see each window that has packets, right after it was judged, along
// with those who see it already; nil: nobody does any more. What f is given is valid
// until it returns.
func (d *Detector) Observe(f func(*Seen)) {
	if before := d.observer; before != nil && f != nil {
		d.observer = func(s *Seen) { before(s); f(s) }
		return
	}
	d.observer = f
}

// features returns the vector of the target observed last.
func (d *Detector) features(t *Track) Vector {
	if !d.made {
		t.Features(d.vector)
		d.made = true
	}
	return d.vector
}

// show tells the observer of the target observed last.
func (d *Detector) show(t *Track, j *judgement) {
	if d.observer == nil || t.x.frame.window.Packets == 0 {
		return
	}
	s := Seen{Time: d.x.start, Target: t.Target, Known: t.baseline.known(), Impact: j.excess.over, Turn: d.turn(t, ticksPerSecond), d: d, t: t}
	s.Lasting = s.Impact && t.overSecond(d.settings.Impact)
	if a := t.watch.attack; a != nil {
		s.Incident = &a.Incident
	}
	switch {
	case s.Known && !j.anybody && s.Incident == nil:
		s.Label = LabelCalm
	case s.Incident != nil && s.Impact:
		s.Label = LabelAttack
	}
	d.observer(&s)
}

// turn is true for a target once in so many ticks, for each at another.
func (d *Detector) turn(t *Track, every int64) bool {
	return (d.x.tick+int64(t.key>>32))%every == 0
}
