// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/sentinel-x/sentinel-x/internal/api"
	"github.com/sentinel-x/sentinel-x/internal/detect"
	"github.com/sentinel-x/sentinel-x/internal/model"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// calmHold is how long a calm window is held back: it is left out if its target is
// not calm any more by then, for it may have been the beginning of that.
const calmHold = 10 * time.Second

// maxColdWindows is the most that is kept of a target without a baseline: two minutes.
const maxColdWindows = 1200

// CollectOptions say which windows are collected.
type CollectOptions struct {
	All      bool                 // also those that are not calm
	Target   netip.Prefix         // of a daemon: only those within it; invalid: all
	Duration time.Duration        // of a daemon: for how long
	Progress func(CollectSummary) // is told now and then; nil: nobody is
}

// CollectSummary says what was collected.
type CollectSummary struct {
	From       string         `json:"from"` // the capture, or "daemon"
	Seconds    float64        `json:"duration_s"`
	Targets    int            `json:"targets"` // with windows that were taken
	Windows    int            `json:"windows"` // that were taken
	Labels     map[string]int `json:"labels"`  // of those
	Suspicious int            `json:"left_out_suspicious"`
	NoBaseline int            `json:"left_out_no_baseline"`
	Ordinary   int            `json:"left_out_ordinary,omitempty"` // of a capture with a label: not above what is normal
	Lost       uint64         `json:"lost,omitempty"`              // by a reader that was too slow
	Notes      []string       `json:"notes,omitempty"`
	// Broken is why the windows ended before the time was over; empty: they did not.
	Broken string `json:"broken,omitempty"`
}

// collector passes windows on that are calm and stay so.
type collector struct {
	o       CollectOptions
	take    func(*detect.LabelledWindow) error
	held    map[traffic.Target][]detect.LabelledWindow
	targets map[traffic.Target]bool
	sum     CollectSummary
	full    bool
}

func newCollector(from string, o CollectOptions, take func(*detect.LabelledWindow) error) *collector {
	return &collector{
		o: o, take: take, held: map[traffic.Target][]detect.LabelledWindow{}, targets: map[traffic.Target]bool{},
		sum: CollectSummary{From: from, Labels: map[string]int{}},
	}
}

// add takes a window; without Features it is only counted.
func (c *collector) add(w detect.LabelledWindow, known bool) error {
	switch {
	case w.Label == detect.LabelCalm:
		held := append(c.held[w.Target], w)
		ripe := 0
		for w.Time.Sub(held[ripe].Time) >= calmHold {
			if err := c.put(&held[ripe]); err != nil {
				return err
			}
			ripe++
		}
		c.held[w.Target] = slices.Delete(held, 0, ripe)
		return nil
	case known:
		c.sum.Suspicious += len(c.held[w.Target])
		delete(c.held, w.Target)
	}
	switch {
	case w.Features != nil:
		return c.put(&w)
	case known:
		c.sum.Suspicious++
	default:
		c.sum.NoBaseline++
	}
	return nil
}

func (c *collector) put(w *detect.LabelledWindow) error {
	if c.full {
		return nil
	}
	if c.sum.Windows == detect.MaxWindows {
		c.full = true
		c.sum.Notes = append(c.sum.Notes, fmt.Sprintf("%d windows is the most that a file holds: what came later is left out", detect.MaxWindows))
		return nil
	}
	c.targets[w.Target] = true
	c.sum.Windows++
	c.sum.Labels[w.Label.String()]++
	return c.take(w)
}

// end passes on what was calm to the end.
func (c *collector) end() (CollectSummary, error) {
	var targets []traffic.Target
	for t := range c.held {
		targets = append(targets, t)
	}
	slices.SortFunc(targets, func(a, b traffic.Target) int { return a.Prefix.Compare(b.Prefix) })
	for _, t := range targets {
		for i := range c.held[t] {
			if err := c.put(&c.held[t][i]); err != nil {
				return c.sum, err
			}
		}
	}
	return c.state(), nil
}

func (c *collector) state() CollectSummary {
	c.sum.Targets = len(c.targets)
	return c.sum
}

// calmGroup names the minute that a calm window belongs to: neighbours are much alike.
func calmGroup(from string, at time.Time) string {
	return clipGroup(strings.TrimSpace(from + at.UTC().Format(" 2006-01-02T15:04Z")))
}

func clipGroup(s string) string { return s[max(0, len(s)-detect.MaxWindowGroup):] }

// CollectFromDaemon writes a file of the windows that a running daemon judges, until
// the time is over or ctx ends: what came by then is in the file. Without any the
// error says why.
func CollectFromDaemon(ctx context.Context, client *api.Client, o CollectOptions, w io.Writer) (CollectSummary, error) {
	file, err := detect.NewWindowWriter(w)
	if err != nil {
		return CollectSummary{}, err
	}
	timed, cancel := context.WithTimeout(ctx, o.Duration)
	defer cancel()
	c := newCollector("daemon", o, file.Write)
	begin := time.Now()
	for m, err := range client.Windows(timed, api.WindowFilter{Target: o.Target, All: o.All}) {
		if timed.Err() != nil {
			break // Ctrl-C is one way to end it
		}
		if err == nil {
			err = c.message(&m)
		} else if c.sum.Windows+len(c.held) > 0 {
			c.sum.Broken = err.Error()
			break
		}
		if err != nil {
			return c.sum, fmt.Errorf("collect windows: %w", err)
		}
		c.sum.Seconds = time.Since(begin).Seconds()
		if o.Progress != nil {
			o.Progress(c.state())
		}
	}
	c.sum.Seconds = time.Since(begin).Seconds()
	return c.close(file)
}

// close ends the file.
func (c *collector) close(file *detect.WindowWriter) (CollectSummary, error) {
	sum, err := c.end()
	if err == nil && sum.Windows == 0 {
		err = sum.nothing()
	}
	return sum, errors.Join(err, file.Close())
}

// nothing says why there are no windows.
func (s *CollectSummary) nothing() error {
	switch {
	case s.Ordinary > 0:
		return errors.New("no windows: nothing in it is above what its first minute says is normal")
	case s.Suspicious+s.NoBaseline == 0:
		return errors.New("no windows: no target had any packets")
	case s.NoBaseline > 0 && s.Suspicious == 0:
		return fmt.Errorf("no calm windows: %d of targets without a baseline, which takes %v of calm traffic", s.NoBaseline, baselineTime)
	}
	return fmt.Errorf("no calm windows: %d were suspicious, %d of targets without a baseline", s.Suspicious, s.NoBaseline)
}

// message takes one line of the stream.
func (c *collector) message(m *api.WindowMessage) error {
	c.sum.Lost += m.Lost
	if m.Schema != nil {
		if err := model.Schema(detect.Names()).Match(m.Schema.Features); err != nil {
			return fmt.Errorf("the daemon is of another version than this program: %w", err)
		}
	}
	if m.Window == nil {
		return nil
	}
	w := detect.LabelledWindow{Time: m.Window.Time, Weight: 1, Group: m.Window.Incident}
	if err := w.Target.UnmarshalText([]byte(m.Window.Target)); err != nil {
		return err
	}
	label, ok := detect.ParseWindowLabel(m.Window.Label)
	if !ok {
		return fmt.Errorf("the daemon sent an unknown label %.20q", m.Window.Label)
	}
	w.Label = label
	if w.Label == detect.LabelAttack {
		w.Kind, _ = traffic.ParseKind(m.Window.Kind) // benign: not known
	}
	if w.Group == "" {
		w.Group = calmGroup("", w.Time)
	}
	if m.Window.Features != nil {
		w.Features = make(detect.Vector, detect.NumFeatures())
		if !unpackVector(m.Window.Features, w.Features) {
			return fmt.Errorf("the daemon sent a vector of %d bytes, not %d", len(m.Window.Features), 4*detect.NumFeatures())
		}
	}
	return c.add(w, m.Window.Baseline)
}

// Capture labels what is collected from a capture.
type Capture struct {
	ReplayOptions
	// Label is "attack", "benign" or a kind of attack, and then that of the windows above
	// what is normal for a second or, of a target without a baseline to the end, of all, and no others
	// are taken. Empty: those that are calm.
	Label string
}

// CollectFromCapture collects windows of a capture in its own time. A capture that is
// broken is an error.
func CollectFromCapture(ctx context.Context, capture Capture, o CollectOptions, w io.Writer) (CollectSummary, error) {
	file, err := detect.NewWindowWriter(w)
	if err != nil {
		return CollectSummary{}, err
	}
	c := newCollector(capture.File, o, file.Write)
	if err := c.replay(ctx, capture); err != nil {
		return c.sum, err
	}
	return c.close(file)
}

// WindowsOf returns the windows of a capture that can be learnt from.
func WindowsOf(ctx context.Context, capture Capture) ([]detect.LabelledWindow, CollectSummary, error) {
	var rows []detect.LabelledWindow
	c := newCollector(capture.File, CollectOptions{}, func(w *detect.LabelledWindow) error {
		rows = append(rows, *w)
		return nil
	})
	if err := c.replay(ctx, capture); err != nil {
		return nil, c.sum, err
	}
	sum, err := c.end()
	if err == nil && len(rows) == 0 {
		err = fmt.Errorf("%s: %w", capture.File, sum.nothing())
	}
	return rows, sum, err
}

// replay takes the windows of a capture.
func (c *collector) replay(ctx context.Context, capture Capture) error {
	label, kind, err := capture.label()
	if err != nil {
		return err
	}
	name := filepath.Base(capture.File)
	var failed error
	o := capture.ReplayOptions
	o.seen = func(s *detect.Seen) {
		w := detect.LabelledWindow{Time: s.Time, Target: s.Target, Label: s.Label, Group: clipGroup(name), Weight: 1}
		switch {
		case failed != nil:
		case capture.Label != "":
			w.Label, w.Kind = label, kind
			failed = c.addEvent(w, s)
		case noteworthy(s) || c.o.All:
			if s.Label == detect.LabelAttack {
				w.Kind = s.Incident.Kind
			} else {
				w.Group = calmGroup(name, s.Time)
			}
			if s.Label == detect.LabelCalm || c.o.All {
				w.Features = slices.Clone(s.Features())
			}
			failed = c.add(w, s.Known)
		}
	}
	r, err := Replay(ctx, o)
	c.sum.Seconds = r.Duration
	if r.Detection != nil {
		c.sum.Notes = append(c.sum.Notes, r.Detection.Notes...)
	}
	return errors.Join(err, failed)
}

// addEvent takes a window of a capture with a label, if it has a lasting impact. Those without
// a baseline count only for a target that never gets one: else they may be calm.
func (c *collector) addEvent(w detect.LabelledWindow, s *detect.Seen) error {
	switch {
	case !s.Known:
		w.Features = slices.Clone(s.Features())
		if len(c.held[w.Target]) < maxColdWindows {
			c.held[w.Target] = append(c.held[w.Target], w)
		}
		return nil
	case len(c.held[w.Target]) > 0:
		c.sum.NoBaseline += len(c.held[w.Target])
		delete(c.held, w.Target)
	}
	if s.Lasting {
		w.Features = slices.Clone(s.Features())
		return c.put(&w)
	}
	c.sum.Ordinary++
	return nil
}

// label reads the label of a capture.
func (c *Capture) label() (detect.WindowLabel, traffic.Kind, error) {
	kind, isKind := traffic.ParseKind(c.Label)
	switch {
	case c.Label == "", c.Label == api.LabelAttack:
		return detect.LabelAttack, traffic.KindBenign, nil
	case c.Label == api.LabelBenign:
		return detect.LabelBenign, traffic.KindBenign, nil
	case isKind:
		return detect.LabelAttack, kind, nil
	}
	return 0, 0, fmt.Errorf("%s: %q is neither attack, benign nor a kind of attack as docs/detection.md has them", c.File, c.Label)
}
