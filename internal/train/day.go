// SPDX-License-Identifier: Apache-2.0

package train

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/sentinel-x/sentinel-x/internal/model"
	"github.com/sentinel-x/sentinel-x/internal/scene"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// DayOptions choose the normal traffic that the detector watches for hours.
type DayOptions struct {
	Trees    *model.Trees // nil: those in the program
	Profiles []string     // nil: all
	Hours    int          // of each profile; 0: 24
	Rate     float64      // packets a second, averaged over the week; 0: 300
	Seed     uint64       // 0: one that the trees have not seen
	Detector string       // one of DetectorSets; empty: the first
	// Done is told of each profile as soon as it is through, in any order, one at a time; nil: nobody is.
	Done func(DayReport)
}

// DayReport is what the detector made of hours of normal traffic of one profile.
type DayReport struct {
	Profile string   `json:"profile"`
	Arrival string   `json:"arrival"`
	Hours   float64  `json:"hours"`
	Packets uint64   `json:"packets"`
	Events  int      `json:"events"` // crowds, backups, scans … in it
	Alarms  []string `json:"alarms"` // all of them false: time, kind, target, and the event before
	Grey    int      `json:"grey"`   // reports of the grey zone
	// ArmedAfter is when the host's forest first had a say, in seconds; 0: never. ArmedShare is for which share of the time it had.
	ArmedAfter float64 `json:"armed_after_s"`
	ArmedShare float64 `json:"armed_share"`
}

// Days lets the detector watch each profile for hours. What is composed is not kept: memory does not grow with the time.
func Days(ctx context.Context, o DayOptions) ([]DayReport, error) {
	trees, err := treesOr(o.Trees)
	if err != nil {
		return nil, err
	}
	if o.Profiles == nil {
		for i := range scene.Profiles {
			o.Profiles = append(o.Profiles, scene.Profiles[i].Name)
		}
	}
	length := time.Duration(cmp.Or(o.Hours, 24)) * time.Hour
	reports, errs := make([]DayReport, len(o.Profiles)), make([]error, len(o.Profiles))
	done := make(chan DayReport)
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		for r := range done {
			if o.Done != nil {
				o.Done(r)
			}
		}
	}()
	inParallel(ctx, len(o.Profiles), func(i int) {
		var d *scene.Day
		if d, errs[i] = scene.NewDay(o.Profiles[i], cmp.Or(o.Rate, 300), length, cmp.Or(o.Seed, evalSeed)); errs[i] != nil {
			return
		}
		if reports[i], errs[i] = watchDay(ctx, d, cmp.Or(o.Detector, DetectorSets()[0]), trees); errs[i] == nil {
			done <- reports[i]
		}
	})
	close(done)
	<-finished
	if err := cmp.Or(append(errs, ctx.Err())...); err != nil {
		return nil, fmt.Errorf("watch normal traffic: %w", err)
	}
	return reports, nil
}

// watchDay plays a day to one set of detectors.
func watchDay(ctx context.Context, d *scene.Day, set string, trees *model.Trees) (r DayReport, err error) {
	p, err := newPlayer(set, trees)
	if err != nil {
		return r, err
	}
	stream, err := d.Stream()
	if err != nil {
		return r, err
	}
	s := &d.Calm
	r = DayReport{Profile: s.Profile, Arrival: s.Arrival.String(), Hours: s.Length.Hours(), Events: len(d.Events), Alarms: []string{}}
	minutes, armed := 0, 0
	for w := range scene.Windows(stream, counters(s)) {
		p.add(w)
		at := w.Start.Sub(monday.Add(s.Begin))
		if w.Target.Scope != traffic.TargetHost {
			continue
		}
		r.Packets += w.Packets
		if at%time.Minute != 0 {
			continue
		}
		minutes++
		if forest, _ := p.thresholds(w.Target); forest > 0 {
			if armed++; armed == 1 {
				r.ArmedAfter = at.Seconds()
			}
		}
		if err := ctx.Err(); err != nil {
			return r, err
		}
	}
	p.end()
	r.Grey = p.out.grey
	r.ArmedShare = float64(armed) / float64(max(1, minutes))
	for _, i := range p.alarms {
		at := i.Detected.Sub(monday.Add(s.Begin))
		line := fmt.Sprintf("%s at %s: %s of %s", s.Name, at.Truncate(traffic.Tick), i.Kind, i.Target)
		if e := d.At(at); e != nil && at < e.End+time.Minute {
			line += fmt.Sprintf(", %s after %s began", (at - e.Onset).Truncate(traffic.Tick), e.Name)
		}
		r.Alarms = append(r.Alarms, line)
	}
	return r, nil
}
