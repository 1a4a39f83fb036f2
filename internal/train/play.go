// SPDX-License-Identifier: Apache-2.0

package train

import (
	"fmt"
	"iter"
	"math"
	"slices"
	"time"

	"github.com/sentinel-x/sentinel-x/internal/config"
	"github.com/sentinel-x/sentinel-x/internal/detect"
	"github.com/sentinel-x/sentinel-x/internal/model"
	"github.com/sentinel-x/sentinel-x/internal/scene"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// samplesPerWindow is what the live engine has for a busy target.
const samplesPerWindow = 400

// DetectorSets are the combinations that can be judged: everything, by the rules tiered and and; less; or a plain
// threshold of three times what is normal, on any rate. The deterministic layer always has its say.
func DetectorSets() []string {
	return []string{"tiered", "and", "trees", "learners", "deterministic", "rate"}
}

// contender is one of DetectorSets, with trees of its own to classify with: for one goroutine.
type contender struct {
	set      string
	settings detect.Settings
	trees    detect.Classifier
	calm     detect.Classifier // before an event, if another
}

func newContender(set string, trees *model.Trees) (*contender, error) {
	classify, err := detect.NewTrees(trees)
	if err != nil {
		return nil, err
	}
	c := &contender{set: set, settings: detect.SettingsOf(config.Default().Detect), trees: classify}
	switch set {
	case "tiered", "trees", "deterministic":
	case "and":
		c.settings.Rule = config.RuleAnd
	case "learners":
		// Likely, never sure: forest or online learner decides. What is calm and may be learnt before, trees say.
		c.trees, c.calm = always(0.6), classify
		c.settings.Agree = c.settings.Likely
	case "rate":
		c.trees, c.settings.Impact.Factor = always(1), 3
	default:
		return nil, fmt.Errorf("no set of detectors %q", set)
	}
	return c, nil
}

// models are what the detector is given; the bank is used only where learners are part of the set.
func (c *contender) models(bank *detect.Bank) detect.Models {
	switch c.set {
	case "deterministic":
		return detect.Models{}
	case "trees", "rate":
		return detect.Models{Trees: c.trees}
	}
	m := bank.Models(nil)
	m.Trees = c.trees
	return m
}

// always is a classifier that gives every window the same probability of an attack, once it is known what is normal.
type always float64

func (a always) Classify(x detect.Vector, p *detect.Probabilities) {
	*p = detect.Probabilities{}
	if known := x[detect.Index("packets_ratio_1s")]; known != known {
		a = 0
	}
	p[traffic.KindBenign], p[traffic.KindOther] = 1-float64(a), float64(a)
}

func (always) Explain(_ detect.Vector, _ traffic.Kind, out []float32) { clear(out) }

// outcome is what a detector made of one scene.
type outcome struct {
	s        *scene.Scenario
	delay    float64 // from the onset to the first alarm, seconds; NaN: none
	early    int     // alarms before the onset: false ones
	kind     traffic.Kind
	protocol string
	target   traffic.Target
	grey     int
	held     bool // a false alarm's incident was open when the event began: what comes is part of it
}

// detected reports whether there was an alarm in the event; of an attack, whether it fell into an open incident.
func (o *outcome) detected() bool { return !math.IsNaN(o.delay) || o.held && o.s.Attack() }

// falseAlarm reports whether the scene has an alarm that nothing caused.
func (o *outcome) falseAlarm() bool { return o.early > 0 || !o.s.Attack() && o.detected() }

// falsehood says what was said.
func (o *outcome) falsehood() string {
	if o.early > 0 {
		return fmt.Sprintf("%d while nothing happened", o.early)
	}
	return fmt.Sprintf("%s of %s", o.kind, o.target)
}

// kindRight reports whether the incident's kind is the attack's, or one that is no mistake.
func (o *outcome) kindRight() bool {
	return o.kind == o.s.Kind || slices.Contains(o.s.Also, o.kind)
}

// player hands windows on to a detector by ticks and takes down what it says.
type player struct {
	*contender
	d         *detect.Detector
	bank      *detect.Bank
	out       outcome
	onset     time.Time                   // of the event; zero: there is none, all alarms are false
	begun     bool                        // the event has
	at        time.Time                   // of the tick under way; zero: none
	first     string                      // incident of the first alarm in the event
	incidents map[string]traffic.Incident // of the event, as they were last
	alarms    []traffic.Incident          // before the event, as they began
}

// newPlayer begins with a set of detectors that know nothing.
func newPlayer(set string, trees *model.Trees) (*player, error) {
	c, err := newContender(set, trees)
	if err != nil {
		return nil, err
	}
	bank, err := detect.NewBank(detect.BankTargets, model.LearnerParams{})
	if err != nil {
		return nil, err
	}
	models := c.models(bank)
	if c.calm != nil {
		models.Trees = c.calm
	}
	return &player{
		contender: c, d: detect.New(c.settings, models), bank: bank,
		out: outcome{delay: math.NaN()}, incidents: map[string]traffic.Incident{},
	}, nil
}

// fork returns a player in the same state that plays a scene from here on. Between two ticks only.
func (p *player) fork(s *scene.Scenario) *player {
	c := &player{
		contender: p.contender, bank: p.bank.Clone(), out: outcome{s: s, delay: math.NaN()},
		onset: monday.Add(s.Begin + s.Onset), incidents: map[string]traffic.Incident{},
	}
	c.d = p.d.Clone(c.models(c.bank))
	return c
}

// play hands on all windows, and ends the last tick.
func (p *player) play(windows iter.Seq2[*traffic.Window, uint64]) {
	for w := range windows {
		p.add(w)
	}
	p.end()
}

func (p *player) add(w *traffic.Window) {
	if w.Start != p.at {
		p.end()
		p.at = w.Start
		p.arrive(w.Start.Add(w.Length))
		p.d.Begin(w.Start, w.Length)
	}
	p.d.Add(w)
}

// arrive looks, in the tick in which the event begins, for an incident that is open already.
func (p *player) arrive(until time.Time) {
	if p.begun || p.onset.IsZero() || !until.After(p.onset) {
		return
	}
	p.begun = true
	for _, i := range p.d.Open() {
		p.out.held, p.first, p.incidents[i.ID] = true, i.ID, i
	}
}

// end ends the tick under way, if there is one.
func (p *player) end() {
	if p.at.IsZero() {
		return
	}
	for _, u := range p.d.End() {
		p.hear(&u)
	}
	if t, shadow := p.bank.Due(p.at); shadow != nil {
		candidate, err := shadow.Train(detect.NotWorse)
		if err != nil {
			candidate = nil
		}
		p.bank.Take(t, candidate)
	}
	p.at = time.Time{}
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
	case p.onset.IsZero() || i.Detected.Before(p.onset):
		p.out.early++
		p.alarms = append(p.alarms, *i)
	case math.IsNaN(p.out.delay):
		p.out.delay, p.first = i.Detected.Sub(p.onset).Seconds(), i.ID
	}
}

// thresholds returns those of the target's forest and online learner; 0: they have no say yet.
func (p *player) thresholds(t traffic.Target) (forest, online float64) {
	x := make(detect.Vector, detect.NumFeatures())
	if f := p.bank.Forest().Score(t, x); f.Armed {
		forest = f.Threshold
	}
	if o := p.bank.Online().Score(t, x); o.Armed {
		online = o.Threshold
	}
	return forest, online
}

// outcome says what the first alarm came to: an incident may turn out to be part of a wider or narrower one.
func (p *player) outcome() outcome {
	i := p.incidents[p.first]
	for i.MergedInto != "" {
		next, ok := p.incidents[i.MergedInto]
		if !ok {
			break
		}
		i = next
	}
	p.out.kind, p.out.protocol, p.out.target = i.Kind, i.Protocol, i.Target
	return p.out
}
