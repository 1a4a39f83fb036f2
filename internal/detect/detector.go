// SPDX-License-Identifier: Apache-2.0

package detect

import (
	"time"

	"github.com/sentinel-x/sentinel-x/internal/config"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// Detector watches targets for attacks. A tick is Begin, Add for each window,
// End; Tick does all three. It is not safe for concurrent use.
type Detector struct {
	settings Settings
	models   Models
	x        *Extractor
	hot      []*Track // targets whose silence matters
	alarms   []alarm  // of this tick
	open     []*attack
	waiting  []*attack // for explanations
	updates  []Update
	vector   Vector
	made     bool // vector is that of the target observed last
	p        Probabilities
	observer func(*Seen)
}

// Change says why an Update came.
type Change uint8

// The changes.
const (
	Opened   Change = iota // an attack was found
	Changed                // its kind, peak or explanation is another
	Ended                  // it is over, or merged into another
	GreyZone               // something is odd, not enough to act: only for the log
)

// Update is an incident that changed; of the grey zone one without an ID.
type Update struct {
	Change   Change
	Incident traffic.Incident
}

// New makes a detector that knows no target.
func New(s Settings, m Models) *Detector {
	return &Detector{
		settings: s, models: m, x: NewExtractor(s.Targets),
		vector: make(Vector, NumFeatures()),
	}
}

// SetModels replaces the models; what is learnt of targets stays.
func (d *Detector) SetModels(m Models) { d.models = m }

// SetSettings replaces all settings but the number of targets.
func (d *Detector) SetSettings(s Settings) {
	s.Targets = d.settings.Targets
	d.settings = s
}

// Stats returns what was out of order so far.
func (d *Detector) Stats() ExtractorStats { return d.x.Stats() }

// Open returns the incidents that are open, the oldest first.
func (d *Detector) Open() []traffic.Incident {
	list := make([]traffic.Incident, len(d.open))
	for i, a := range d.open {
		list[i] = a.copy()
	}
	return list
}

// Tick takes the windows of one tick. The updates are valid until the next.
func (d *Detector) Tick(start time.Time, length time.Duration, windows []traffic.Window) []Update {
	if !d.Begin(start, length) {
		return nil
	}
	for i := range windows {
		d.Add(&windows[i])
	}
	return d.End()
}

// Begin starts a tick, as Extractor.Begin: false means that it came already.
func (d *Detector) Begin(start time.Time, length time.Duration) bool {
	if !d.x.Begin(start, length) {
		return false
	}
	d.updates, d.alarms = d.updates[:0], d.alarms[:0]
	return true
}

// Add takes one window of the tick. It is not kept. Those of a target that has
// been silent for a while cost nothing.
func (d *Detector) Add(w *traffic.Window) {
	if t := d.x.Find(w.Target); t != nil && !t.watch.hot && t.still(w) {
		return
	}
	if t := d.x.Observe(w); t != nil {
		d.judge(t)
	}
}

// End decides on the tick. The updates are valid until the next Begin.
func (d *Detector) End() []Update {
	hot := d.hot
	for _, t := range hot {
		if t.last < d.x.tick {
			t.Idle()
			d.judge(t)
		}
	}
	d.keepHot()
	d.narrow()
	d.progress()
	d.explain()
	return d.updates
}

// keepHot forgets targets that are calm again.
func (d *Detector) keepHot() {
	kept := d.hot[:0]
	for _, t := range d.hot {
		if t.watch.hot = t.watch.busy(); t.watch.hot {
			kept = append(kept, t)
		}
		t.held = t.watch.hot
	}
	d.hot = kept
}

// watch is what the decision remembers of a target.
type watch struct {
	history history
	cusum   float32 // of unanswered SYNs
	hot     bool

	excess    float32 // packets/s above normal, of the last tick judged
	over      int64   // ticks in a row with an excess
	pause     int8    // ticks without, in the middle of it
	calm      int64   // ticks since the last sign of an attack
	grey      int64   // tick of the last report of the grey zone
	undecided int8    // ticks that an alarm waited for narrower targets
	attack    *attack
}

// busy reports whether silence would tell something about the target.
func (w *watch) busy() bool {
	return w.attack != nil || w.history != history{} || w.over > 0 || w.cusum > 0
}

// judgement is what all detectors say of one window.
type judgement struct {
	excess  excess
	found   findings
	trees   traffic.Opinion
	p       float64
	class   traffic.Kind
	forest  Score
	online  Score
	voices  [2]traffic.Opinion // forest, online
	scored  bool               // the models were asked
	attack  bool               // evidence enough, by the rule
	anybody bool               // some detector objects
}

// judge looks at the target observed last.
func (d *Detector) judge(t *Track) {
	d.made = false
	j := judgement{excess: t.excess(spanTick, d.settings.Impact)}
	j.found = t.inspect(&d.settings, &j.excess)
	w := &t.watch
	w.excess = float32(j.excess.packets)
	impact := j.excess.over || j.found.limit != ""
	if impact || w.attack != nil {
		d.features(t)
		d.ask(t, &j)
	}
	d.weigh(&j)
	w.history.push(impact && j.attack)
	d.follow(t, &j)
	learnable := t.Learnable(d.settings.Impact)
	calm := (learnable || !j.excess.known) && !j.excess.leaps() && !j.anybody && w.attack == nil
	d.study(t, &j, calm)
	d.show(t, &j)
	t.Settle(calm)
	if !w.hot && w.busy() {
		w.hot = true
		d.hot = append(d.hot, t)
	}
}

// ask takes the opinion of the models. Without a baseline, those that compare
// with calm windows of the target have nothing to say.
func (d *Detector) ask(t *Track, j *judgement) {
	j.scored = true
	if d.models.Trees != nil {
		d.models.Trees.Classify(d.vector, &d.p)
		j.p, j.class = d.p.attack()
		if !(j.p >= 0 && j.p <= 1) {
			j.p = 0 // a broken model must not decide
		}
		switch {
		case j.p > d.settings.Sure:
			j.trees = traffic.OpinionAttack
		case j.p > d.settings.Likely:
			j.trees = traffic.OpinionLikely
		default:
			j.trees = traffic.OpinionCalm
		}
	}
	for i, s := range []Scorer{d.models.Forest, d.models.Online} {
		if s == nil {
			continue
		}
		score := &j.forest
		if i == 1 {
			score = &j.online
		}
		*score = s.Score(t.Target, d.vector)
		j.voices[i] = opinionOf(*score, j.excess.known)
	}
}

func opinionOf(s Score, known bool) traffic.Opinion {
	switch {
	case !s.Armed || !known:
		return traffic.OpinionUnsure
	case s.objects():
		return traffic.OpinionAttack
	}
	return traffic.OpinionCalm
}

// blindDoubt is the probability of an attack from which on the trees object
// without a baseline.
const blindDoubt = 0.8

// weigh applies the rule.
func (d *Detector) weigh(j *judgement) {
	likely := j.trees >= traffic.OpinionLikely
	forest := j.voices[0] == traffic.OpinionAttack
	online := j.voices[1] == traffic.OpinionAttack
	if d.settings.Rule == config.RuleAnd {
		j.attack = likely && forest
	} else {
		j.attack = j.trees == traffic.OpinionAttack || j.p > d.settings.Agree && (forest || online)
	}
	j.attack = j.attack || j.found.any()
	if !j.excess.known { // the trees are often in doubt then, and a target has to learn what is normal
		likely = j.p > blindDoubt
	}
	j.anybody = j.attack || likely || forest || online || j.found.cusum > cusumAlarm
}
