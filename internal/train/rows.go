// SPDX-License-Identifier: Apache-2.0

package train

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/sentinel-x/sentinel-x/internal/detect"
	"github.com/sentinel-x/sentinel-x/internal/model"
	"github.com/sentinel-x/sentinel-x/internal/scene"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

const (
	// attackShare of a window's packets makes it one of the attack; one with fewer, but some, says nothing.
	attackShare = 0.15
	// calmStep: of windows without impact and event every so manieth is kept: they are all alike, and the
	// detector does not ask the trees about them.
	calmStep = 25
	// coldTicks is for how long a target has no baseline at all: there the trees are asked about every window, and
	// more are kept.
	coldTicks = 60
	coldStep  = 8
	// eventStart windows of an event are all kept: there it is decided. Of the rest, every third is.
	eventStart = 12
	eventStep  = 3
	// afterglow is how long the features of a second hold an attack that is over.
	afterglow = time.Second
)

// monday is when scenes begin: their hour of the week counts from it.
var monday = time.Date(2026, 11, 16, 0, 0, 0, 0, time.UTC)

// seeds are those of the histograms' hashes.
var seeds = traffic.Seeds{Source: 1, SourceNet: 2, SourcePort: 3, DestPort: 4, Fingerprint: 5}

// windows counts the scene for the targets, with that many sampled headers a window.
func windows(s *scene.Scenario, targets []traffic.Target, samples int, each func(w *traffic.Window, attack uint64)) error {
	stream, err := s.Stream()
	if err != nil {
		return err
	}
	o := scene.CounterOptions{
		Targets: targets, Seeds: seeds, Start: monday.Add(s.Begin), Length: s.Length, Lapse: s.Lapse, Samples: samples,
	}
	for w, attack := range scene.Windows(stream, o) {
		each(w, attack)
	}
	return nil
}

// rowsOf returns the vectors of a scene that something can be learnt from, and their classes. A carpet is
// watched as a network and as one of its hosts.
func rowsOf(s *scene.Scenario) (model.Data, error) {
	targets := s.Watch()[:1]
	if s.Kind == traffic.KindCarpet {
		targets = s.Watch()[:2]
	}
	c := collector{
		s: s, x: detect.NewExtractor(len(targets)), v: make(detect.Vector, detect.NumFeatures()),
		last: make(map[traffic.Target]time.Time, len(targets)),
	}
	samples := 50 << (s.Seed % 4) // 50 to 400: how many there are depends on how many targets are busy
	err := windows(s, targets, samples, c.add)
	return c.data, err
}

// collector turns the windows of one scene into rows.
type collector struct {
	s    *scene.Scenario
	x    *detect.Extractor
	v    detect.Vector
	at   time.Time
	last map[traffic.Target]time.Time // window with a packet of the attack
	n    int                          // ticks
	seen int                          // windows of the event
	data model.Data
}

func (c *collector) add(w *traffic.Window, attack uint64) {
	if w.Start != c.at {
		c.at = w.Start
		c.x.Begin(w.Start, w.Length)
		c.n++
	}
	t := c.x.Observe(w)
	if t == nil {
		return
	}
	learnable := t.Learnable(detect.DefaultImpact())
	if class, ok := c.label(w, attack, learnable); ok {
		t.Features(c.v)
		c.data.X, c.data.Y = append(c.data.X, slices.Clone(c.v)), append(c.data.Y, int(class))
	}
	t.Settle(learnable)
}

// label returns the class of a window, and false for one to be left out.
func (c *collector) label(w *traffic.Window, attack uint64, learnable bool) (traffic.Kind, bool) {
	if attack > 0 {
		c.last[w.Target] = w.Start
		return c.s.Class(), float64(attack) >= attackShare*float64(w.Packets) && c.wanted()
	}
	at := w.Start.Sub(monday.Add(c.s.Begin))
	last, had := c.last[w.Target]
	switch {
	case w.Packets == 0, had && w.Start.Sub(last) <= afterglow:
		return traffic.KindBenign, false
	case !learnable: // an impact, and no attack: what the trees are there for
		return traffic.KindBenign, c.wanted()
	case at >= c.s.Onset && at < c.s.End && c.s.Family != "normal":
		return traffic.KindBenign, c.wanted()
	}
	if c.n <= coldTicks {
		return traffic.KindBenign, c.n%coldStep == 0
	}
	return traffic.KindBenign, c.n%calmStep == 0
}

// wanted thins out the windows of an event.
func (c *collector) wanted() bool {
	c.seen++
	return c.seen <= eventStart || c.seen%eventStep == 0
}

// Rows composes scenes and returns what is to be learnt from them, in their order, weighted so that no
// class is learnt at the cost of another.
func Rows(ctx context.Context, list []scene.Scenario) (model.Data, error) {
	parts := make([]model.Data, len(list))
	errs := make([]error, len(list))
	inParallel(ctx, len(list), func(i int) { parts[i], errs[i] = rowsOf(&list[i]) })
	var all model.Data
	for i := range parts {
		if errs[i] != nil {
			return all, fmt.Errorf("learn from scene %s: %w", list[i].Name, errs[i])
		}
		all.X, all.Y = append(all.X, parts[i].X...), append(all.Y, parts[i].Y...)
	}
	if err := ctx.Err(); err != nil {
		return all, fmt.Errorf("compose %d scenes: %w", len(list), err)
	}
	balance(&all)
	return all, nil
}

// balance gives benign rows half of all weight, and the classes of attacks equal shares of the other half.
func balance(d *model.Data) {
	var count [traffic.TreeClasses]int
	for _, y := range d.Y {
		count[y]++
	}
	attacks := 0
	for _, n := range count[1:] {
		if n > 0 {
			attacks++
		}
	}
	d.Weight = make([]float32, len(d.Y))
	for i, y := range d.Y {
		share := 0.5
		if y != int(traffic.KindBenign) {
			share /= float64(attacks)
		}
		d.Weight[i] = float32(share * float64(len(d.Y)) / float64(count[y]))
	}
}

// inParallel calls f with 0 to n−1 on every processor, until ctx ends.
func inParallel(ctx context.Context, n int, f func(i int)) {
	var group sync.WaitGroup
	next := make(chan int)
	for range min(n, runtime.GOMAXPROCS(0)) {
		group.Go(func() {
			for i := range next {
				f(i)
			}
		})
	}
	for i := 0; i < n && ctx.Err() == nil; i++ {
		next <- i
	}
	close(next)
	group.Wait()
}
