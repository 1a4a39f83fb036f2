// SPDX-License-Identifier: Apache-2.0

package detect

import (
	"fmt"
	"slices"
	"time"

	"github.com/sentinel-x/sentinel-x/internal/config"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// An attack is alive as long as its excess is that share of its peak, whatever
// the detectors say of windows in the middle of it.
const aliveShare = 0.25

// reportTicks is the shortest time between two updates of an incident, and
// greyTicks that between two reports of the grey zone of a target.
const (
	reportTicks = ticksPerSecond
	greyTicks   = 10 * ticksPerSecond
	// kindTicks is for how long the kind may still change.
	kindTicks = 5 * ticksPerSecond
	// pauseTicks is how long an excess may pause and still be the same one.
	pauseTicks = 3
)

// alarm is a target that the rule has found under attack in this tick.
type alarm struct {
	track *Track
	judgement
	kind     traffic.Kind
	hosts    int // of a network: among the samples, if none has most of them
	protocol string
	onset    time.Time
	vector   Vector
}

// attack is an open incident.
type attack struct {
	traffic.Incident
	track    *Track
	vector   Vector // of the window that raised the alarm; nil once explained
	class    traffic.Kind
	since    int64 // tick of the alarm
	reported int64 // tick of the last update
	excess   float64
	votes    [traffic.NumKinds]float64 // for each kind, by excess
	dirty    bool
}

func (a *attack) copy() traffic.Incident {
	i := a.Incident
	i.Votes = slices.Clone(i.Votes)
	i.Notes = slices.Clone(i.Notes)
	return i
}

// follow carries the target's state on by one window.
func (d *Detector) follow(t *Track, j *judgement) {
	w := &t.watch
	d.trackExcess(t, &j.excess)
	if w.attack != nil {
		d.feed(t, j)
		return
	}
	alarming := w.history.count(d.settings.Window) >= d.settings.Need
	if !alarming || w.history[0]&1 == 0 {
		if !alarming {
			w.undecided = 0
		}
		d.report(t, j)
		return
	}
	b := t.blend(&j.excess)
	a := alarm{track: t, judgement: *j, kind: b.name(j.class), onset: d.onset(t, &j.excess)}
	a.protocol = b.protocol(a.kind)
	if t.Target.Scope == traffic.TargetNetwork {
		a.hosts = spreadHosts(t.x.frame.window.Samples)
	}
	a.vector = slices.Clone(d.vector)
	d.alarms = append(d.alarms, a)
}

// trackExcess remembers since when the target gets more than half of what makes an impact.
func (d *Detector) trackExcess(t *Track, e *excess) {
	w := &t.watch
	if !e.compared() {
		w.over = 0
		return
	}
	limit := d.settings.Impact
	more := false
	for _, i := range impactRates {
		more = more || e.above[i] >= limit.Floor/2 && e.above[i] >= (limit.Factor-1)/2*e.normal[i]
	}
	switch {
	case more:
		w.over += t.x.span + int64(w.pause)
		w.pause = 0
	case w.over > 0 && w.pause < pauseTicks:
		w.pause++
	default:
		w.over, w.pause = 0, 0
	}
}

// onset finds backwards when the excess began: at the first of the ticks in a
// row that had a quarter of the present excess (of half of the packets, without
// a baseline), in what grew most. What is not kept any more is told by the ticks
// in a row with half of an impact.
func (d *Detector) onset(t *Track, e *excess) time.Time {
	counter, rate := growing(e)
	share := 0.25
	if !e.compared() {
		share = 0.5
	}
	level := (e.rate[rate] - (1-share)*e.above[rate]) / ticksPerSecond
	back := t.slides.since(t.last, counter, level)
	if back >= keptTicks-2*ticksPerSecond {
		back = max(back, t.watch.over)
	}
	back = max(back, t.x.span)
	return d.now().Add(-time.Duration(back) * traffic.Tick)
}

// growing returns the counter and the rate of most of the excess.
func growing(e *excess) (counter, rate int) {
	counter, rate = cPackets, bPackets
	for _, p := range [][2]int{{cTCP, bTCP}, {cUDP, bUDP}, {cICMP, bICMP}} {
		if e.above[p[1]] > 0.5*e.above[bPackets] {
			counter, rate = p[0], p[1]
		}
	}
	if rate == bTCP && e.above[bSYN] > 0.5*e.above[bTCP] {
		counter, rate = cSYN, bSYN
	}
	return counter, rate
}

// since counts the ticks up to now, in a row but for pauses of pauseTicks, that
// had at least that many of a counter; beyond a second it looks at whole seconds.
func (s *sliding) since(now int64, counter int, level float64) (ticks int64) {
	for back := range int64(ticksPerSecond) {
		tick := &s.ticks[(now-back)%ticksPerSecond]
		if tick.ticks > 0 && float64(tick.n[counter]) >= level {
			ticks = back + 1
		} else if tick.ticks == 0 || back-ticks >= pauseTicks {
			return ticks
		}
	}
	second := (now - ticksPerSecond) / ticksPerSecond
	for back := range int64(keptSeconds - 2) {
		sum := &s.seconds[(second-back)%keptSeconds]
		if sum.ticks == 0 || float64(sum.n[counter]) < level*float64(sum.ticks) {
			break
		}
		ticks = now - (second-back)*ticksPerSecond + 1
	}
	return ticks
}

// feed carries an open incident on.
func (d *Detector) feed(t *Track, j *judgement) {
	w, a := &t.watch, t.watch.attack
	e := &j.excess
	if e.rate[bPackets] > a.Peak.Packets {
		a.Peak.Packets, a.dirty = e.rate[bPackets], true
	}
	if e.rate[bBytes] > a.Peak.Bytes {
		a.Peak.Bytes, a.dirty = e.rate[bBytes], true
	}
	a.excess = max(a.excess, e.packets)
	if impact := e.over || j.found.limit != ""; impact && (j.anybody || e.packets >= aliveShare*a.excess) {
		w.calm = 0
	} else {
		w.calm += t.x.span
	}
	if d.x.tick-a.since < kindTicks && a.Kind != traffic.KindCarpet && e.packets > 0 {
		b := t.blend(e)
		a.votes[b.name(j.class)] += e.packets
		if k := most(&a.votes); k != a.Kind {
			a.Kind, a.Protocol, a.dirty = k, b.protocol(k), true
		}
	}
}

func most(votes *[traffic.NumKinds]float64) traffic.Kind {
	best := traffic.KindOther
	for k, v := range votes {
		if v > votes[best] {
			best = traffic.Kind(k)
		}
	}
	return best
}

// report tells of a window in the grey zone, once in a while.
func (d *Detector) report(t *Track, j *judgement) {
	w := &t.watch
	if !j.excess.known && !j.attack {
		return // of what is normal too little is known to call anything odd
	}
	if !j.excess.over || !j.anybody || w.grey != 0 && d.x.tick-w.grey < greyTicks {
		return
	}
	if j.attack && w.history.count(2) < 2 {
		return // it may well become an alarm in the next tick
	}
	w.grey = d.x.tick
	b := t.blend(&j.excess)
	kind := b.name(j.class)
	d.updates = append(d.updates, Update{GreyZone, traffic.Incident{
		Target: t.Target, Kind: kind, Protocol: b.protocol(kind), Onset: d.onset(t, &j.excess),
		Detected: d.now(), NoBaseline: !j.excess.known, Confidence: confidence(j), Votes: d.votes(j),
		Peak:   traffic.Load{Packets: j.excess.rate[bPackets], Bytes: j.excess.rate[bBytes]},
		Normal: traffic.Load{Packets: j.excess.normal[bPackets], Bytes: j.excess.normal[bBytes]},
		Notes:  []string{"grey zone: not enough detectors agree, or not for long enough"},
	}})
}

// now is when the present tick ends.
func (d *Detector) now() time.Time { return d.x.start.Add(time.Duration(d.x.span) * traffic.Tick) }

// confidence sums up the detectors: what the surest of trees and deterministic
// layer leaves open is halved by each other one that agrees.
func confidence(j *judgement) float64 {
	doubt := 1.0
	if j.found.any() {
		doubt = 0.1
	}
	if j.scored {
		doubt = min(doubt, 1-j.p)
	}
	for _, v := range j.voices {
		if v == traffic.OpinionAttack {
			doubt /= 2
		}
	}
	return max(0, min(1, 1-doubt))
}

// votes writes down what every detector said.
func (d *Detector) votes(j *judgement) []traffic.Vote {
	layer := traffic.Vote{
		Detector: "deterministic", Opinion: traffic.OpinionCalm, Score: traffic.Float(j.found.cusum),
		Threshold: cusumAlarm, Reasons: j.found.reasons(),
	}
	if j.found.any() {
		layer.Opinion = traffic.OpinionAttack
	}
	trees := traffic.Vote{Detector: "trees", Opinion: j.trees, Threshold: traffic.Float(d.settings.Sure)}
	if j.trees != traffic.OpinionAbsent {
		trees.Score, trees.Class = traffic.Float(j.p), j.class
	}
	if d.settings.Rule == config.RuleAnd {
		trees.Threshold = traffic.Float(d.settings.Likely)
	}
	vote := func(name string, i int, s Score) traffic.Vote {
		return traffic.Vote{
			Detector: name, Opinion: j.voices[i], Score: traffic.Float(s.Value), Threshold: traffic.Float(s.Threshold),
		}
	}
	return []traffic.Vote{layer, trees, vote("forest", 0, j.forest), vote("online", 1, j.online)}
}

// start opens an incident.
func (d *Detector) start(al *alarm, kind traffic.Kind, hosts int) *attack {
	t, e := al.track, &al.excess
	a := &attack{track: t, vector: al.vector, class: al.class, since: d.x.tick, reported: d.x.tick, excess: e.packets}
	a.Incident = traffic.Incident{
		ID: d.id(t), Target: t.Target, Kind: kind, Protocol: al.protocol, Hosts: hosts,
		Onset: al.onset, Detected: d.now(), NoBaseline: !e.known,
		Confidence: confidence(&al.judgement), Votes: d.votes(&al.judgement),
		Peak:   traffic.Load{Packets: e.rate[bPackets], Bytes: e.rate[bBytes]},
		Normal: traffic.Load{Packets: e.normal[bPackets], Bytes: e.normal[bBytes]},
	}
	switch {
	case e.guessed:
		a.Notes = append(a.Notes, fmt.Sprintf("no baseline yet: provisional, normal is what %d calm seconds had; judged by the deterministic layer, or by trees that are sure",
			t.baseline.recent.n))
	case a.NoBaseline:
		a.Notes = append(a.Notes, "no baseline: the target was not known before; judged by the deterministic layer, or by trees that are sure")
	}
	a.votes[al.kind] = e.packets
	t.watch.attack, t.watch.calm, t.held = a, 0, true
	d.open = append(d.open, a)
	d.waiting = append(d.waiting, a)
	d.updates = append(d.updates, Update{Opened, a.copy()})
	return a
}

// id is the time of the alarm and four digits of the target: the same in a replay.
func (d *Detector) id(t *Track) string {
	at := d.now().UTC()
	sum := traffic.HashMix(t.key ^ uint64(at.UnixNano()))
	return fmt.Sprintf("%s-%04x", at.Format("20060102-150405"), sum>>48)
}

// progress ends what is calm and reports what changed.
func (d *Detector) progress() {
	kept := d.open[:0]
	for _, a := range d.open {
		w := &a.track.watch
		switch {
		case a.MergedInto != "":
		case w.calm >= d.settings.EndAfter:
			d.finish(a, d.now().Add(-time.Duration(w.calm)*traffic.Tick))
		case a.dirty && d.x.tick-a.reported >= reportTicks:
			a.dirty, a.reported = false, d.x.tick
			d.updates = append(d.updates, Update{Changed, a.copy()})
			kept = append(kept, a)
		default:
			kept = append(kept, a)
		}
	}
	clear(d.open[len(kept):])
	d.open = kept
}

// finish ends an incident at a time.
func (d *Detector) finish(a *attack, at time.Time) {
	a.Ended = at
	w := &a.track.watch
	w.attack, w.history, w.calm, w.undecided = nil, history{}, 0, 0
	d.updates = append(d.updates, Update{Ended, a.copy()})
}
