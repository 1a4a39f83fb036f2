// SPDX-License-Identifier: Apache-2.0

package train

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"time"

	"github.com/sentinel-x/sentinel-x/internal/model"
	"github.com/sentinel-x/sentinel-x/internal/scene"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// PoisonOptions choose what is trickled in.
type PoisonOptions struct {
	Trees    *model.Trees // nil: those in the program
	Families []string     // of attacks; nil: four
	Ratio    float64      // of the fragments, over the normal rate; 0: 0.05; more raises alarms, and then nothing is learnt
	Seed     uint64       // 0: one that the trees have not seen
	// Calm is how long there is calm before the first fragment, 0: 20 min; Last until the last one, 0: an hour.
	Calm, Last time.Duration
}

func (o *PoisonOptions) defaults() {
	if o.Families == nil {
		o.Families = []string{"syn_spoofed", "udp_spoofed", "amplification_dns", "connection_flood"}
	}
	o.Ratio, o.Seed = cmp.Or(o.Ratio, 0.05), cmp.Or(o.Seed, evalSeed)
	o.Calm, o.Last = cmp.Or(o.Calm, 20*time.Minute), cmp.Or(o.Last, time.Hour)
}

// Poisoned is what an hour with fragments of an attack did to the detector, and what the same hour without did.
type Poisoned struct {
	Family string `json:"family"`
	Alarms int    `json:"alarms"` // raised by the fragments: what is taken for an attack teaches nothing
	// The thresholds of the host's forest and online learner, at the end of the calm before and an hour later; 0: no say.
	Forest      Change `json:"forest"`
	ForestClean Change `json:"forest_clean"`
	Online      Change `json:"online"`
	OnlineClean Change `json:"online_clean"`
	// Normal is what the detector holds for normal in the attack that follows, at three times the rate.
	Normal      float64 `json:"normal_packets_s"`
	NormalClean float64 `json:"normal_clean_packets_s"`
	Delay       float64 `json:"delay_s"` // until that attack is found, 0 with an incident of the fragments still open; negative: it is not
	DelayClean  float64 `json:"delay_clean_s"`
}

// Change is a threshold before and after.
type Change struct {
	Before float64 `json:"before"`
	After  float64 `json:"after"`
}

// Rise is by which share it rose, NaN if there was none before.
func (c Change) Rise() float64 {
	if c.Before <= 0 {
		return math.NaN()
	}
	return c.After/c.Before - 1
}

// A fragment lasts fragmentLength, and another one begins every fragmentPause.
const (
	fragmentLength = 5 * time.Second
	fragmentPause  = 15 * time.Second
)

// Poison has fragments of attacks trickle in for an hour, each too weak to be one, and then attacks.
func Poison(ctx context.Context, o PoisonOptions) ([]Poisoned, error) {
	trees, err := treesOr(o.Trees)
	if err != nil {
		return nil, err
	}
	o.defaults()
	// Two runs a family: with fragments and without.
	runs, errs := make([]poisonRun, 2*len(o.Families)), make([]error, 2*len(o.Families))
	inParallel(ctx, len(runs), func(i int) {
		one := o
		if i%2 == 1 {
			one.Ratio = 0
		}
		runs[i], errs[i] = one.trickle(ctx, o.Families[i/2], trees)
	})
	if err := cmp.Or(append(errs, ctx.Err())...); err != nil {
		return nil, fmt.Errorf("poison the detector: %w", err)
	}
	var list []Poisoned
	for i, family := range o.Families {
		with, clean := &runs[2*i], &runs[2*i+1]
		list = append(list, Poisoned{
			Family: family, Alarms: with.alarms, Forest: with.forest, ForestClean: clean.forest, Online: with.online, OnlineClean: clean.online,
			Normal: with.normal, NormalClean: clean.normal, Delay: with.delay, DelayClean: clean.delay,
		})
	}
	return list, nil
}

// poisonRun is one of the two.
type poisonRun struct {
	forest, online Change
	normal, delay  float64
	alarms         int
}

// day is calm, fragments at a ratio (0: none), and an attack at three times the rate.
func (o *PoisonOptions) day(family string) (*scene.Day, error) {
	d, err := scene.NewDay("web", 1000, o.Calm+o.Last+2*time.Minute, o.Seed)
	if err != nil {
		return nil, err
	}
	d.Calm.Arrival = scene.Poisson // so that the learners have a say soon, and there is something to poison
	d.Events = nil
	event := func(at, length time.Duration, ratio float64) {
		s := d.Calm
		s.Family, s.Kind, s.Ratio, s.Onset, s.End = family, traffic.KindOther, ratio, at, at+length
		s.Seed, s.Calm = o.Seed+uint64(at), d.Calm.Seed
		s.Name = fmt.Sprintf("%s/%gx/%s", family, ratio, at)
		d.Events = append(d.Events, s)
	}
	for at := o.Calm; o.Ratio > 0 && at < o.Calm+o.Last; at += fragmentPause {
		event(at, fragmentLength, o.Ratio)
	}
	event(o.Calm+o.Last+time.Minute, 8*time.Second, 3)
	return d, nil
}

func (o *PoisonOptions) trickle(ctx context.Context, family string, trees *model.Trees) (r poisonRun, err error) {
	d, err := o.day(family)
	if err != nil {
		return r, err
	}
	p, err := newPlayer(DetectorSets()[0], trees)
	if err != nil {
		return r, err
	}
	stream, err := d.Stream()
	if err != nil {
		return r, err
	}
	s := &d.Calm
	p.onset = monday.Add(s.Begin + d.Events[len(d.Events)-1].Onset)
	host := s.Watch()[0]
	for w := range scene.Windows(stream, counters(s)) {
		p.add(w)
		switch at := w.Start.Sub(monday.Add(s.Begin)); {
		case w.Target != host:
		case at == o.Calm:
			r.forest.Before, r.online.Before = p.thresholds(host)
		case at == o.Calm+o.Last:
			r.forest.After, r.online.After = p.thresholds(host)
			if err := ctx.Err(); err != nil {
				return r, err
			}
		}
	}
	p.end()
	r.delay, r.alarms = -1, p.out.early
	switch {
	case !math.IsNaN(p.out.delay):
		r.delay, r.normal = p.out.delay, p.incidents[p.first].Normal.Packets
	case p.out.held:
		r.delay, r.normal = 0, p.incidents[p.first].Normal.Packets
	}
	return r, nil
}
