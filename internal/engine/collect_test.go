// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"bytes"
	"context"
	"errors"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sentinel-x/sentinel-x/internal/api"
	"github.com/sentinel-x/sentinel-x/internal/config"
	"github.com/sentinel-x/sentinel-x/internal/detect"
	"github.com/sentinel-x/sentinel-x/internal/scene"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// longScene is calm for 100 s, with an attack from then to the 108th.
func longScene(kind traffic.Kind) scene.Scenario {
	s := attackScene(kind, nil)
	s.Onset, s.End, s.Length, s.Baseline = 100*time.Second, 108*time.Second, 110*time.Second, 200
	return s
}

// TestCollectFromCapture: calm windows of a capture, once a second of each target with a baseline, and nothing
// of the attack nor of the seconds before it.
func TestCollectFromCapture(t *testing.T) {
	file := writeScene(t, longScene(traffic.KindSYNFlood))
	o := ReplayOptions{File: file, Config: config.Default()}
	var b bytes.Buffer
	s, err := CollectFromCapture(context.Background(), Capture{ReplayOptions: o}, CollectOptions{}, &b)
	if err != nil {
		t.Fatal(err)
	}
	rows, err := detect.ReadWindows(&b)
	if err != nil || len(rows) != s.Windows || s.Labels["calm"] != s.Windows || s.Suspicious == 0 || s.NoBaseline == 0 {
		t.Fatalf("%d rows, %v: %+v", len(rows), err, s)
	}
	first, targets := time.Unix(1_700_000_000, 0), map[traffic.Target]int{}
	for i := range rows {
		at := rows[i].Time.Sub(first)
		if rows[i].Label != detect.LabelCalm || at < 59*time.Second || at > 91*time.Second {
			t.Errorf("a %s window after %v", rows[i].Label, at)
		}
		targets[rows[i].Target]++
	}
	if n := targets[traffic.HostTarget(sceneTarget)]; n < 15 || len(targets) != s.Targets {
		t.Errorf("windows by target: %v", targets)
	}
	b.Reset()
	all, err := CollectFromCapture(context.Background(), Capture{ReplayOptions: o}, CollectOptions{All: true}, &b)
	if err != nil || all.Labels["attack"] < 5 || all.Labels["unknown"] < s.NoBaseline || all.Labels["calm"] < s.Windows {
		t.Errorf("all: %+v, %v", all, err)
	}
}

// TestWindowsOfLabelledCapture: what is above normal has the label; of a capture too short for a baseline, everything.
func TestWindowsOfLabelledCapture(t *testing.T) {
	file := writeScene(t, longScene(traffic.KindSYNFlood))
	get := func(file, label string) ([]detect.LabelledWindow, error) {
		rows, _, err := WindowsOf(context.Background(), Capture{ReplayOptions: ReplayOptions{File: file, Config: config.Default()}, Label: label})
		return rows, err
	}
	for label, want := range map[string]detect.LabelledWindow{
		"attack":    {Label: detect.LabelAttack},
		"udp_flood": {Label: detect.LabelAttack, Kind: traffic.KindUDPFlood},
		"benign":    {Label: detect.LabelBenign},
	} {
		rows, err := get(file, label)
		if err != nil || len(rows) < 50 {
			t.Fatalf("%s: %d windows, %v", label, len(rows), err)
		}
		outside := 0 // long bursts of the clients
		for _, w := range rows {
			if at := w.Time.Sub(time.Unix(1_700_000_000, 0)); at < 99*time.Second || at > 109*time.Second {
				outside++
			}
			if w.Label != want.Label || w.Kind != want.Kind || w.Group != filepath.Base(file) {
				t.Fatalf("%s: a window of %s, %s, %s", label, w.Label, w.Kind, w.Group)
			}
		}
		if outside*10 > len(rows) {
			t.Errorf("%s: %d of %d windows are not of the event", label, outside, len(rows))
		}
	}
	if rows, err := get(file, ""); err != nil || slices.ContainsFunc(rows, func(w detect.LabelledWindow) bool { return w.Label != detect.LabelCalm }) {
		t.Errorf("without a label: %v", err)
	}
	short := writeScene(t, attackScene(traffic.KindSYNFlood, nil))
	if rows, err := get(short, "syn_flood"); err != nil || len(rows) < 100 {
		t.Errorf("a short capture: %d windows, %v", len(rows), err)
	}
	if _, err := get(short, ""); err == nil || !strings.Contains(err.Error(), "without a baseline") {
		t.Errorf("a short capture without a label: %v", err)
	}
	if _, err := get(short, "storm"); err == nil || !strings.Contains(err.Error(), `"storm" is neither attack`) {
		t.Errorf("an unknown label: %v", err)
	}
	if _, err := get(filepath.Join(t.TempDir(), "absent.pcap"), "attack"); err == nil {
		t.Error("a capture that is not there")
	}
}

// collectSite is a collector with what it took.
func collectSite(o CollectOptions) (*collector, *[]detect.LabelledWindow) {
	var rows []detect.LabelledWindow
	return newCollector("test", o, func(w *detect.LabelledWindow) error { rows = append(rows, *w); return nil }), &rows
}

// TestCollectorHoldsBack: calm windows right before something suspicious are left out, of that target.
func TestCollectorHoldsBack(t *testing.T) {
	c, rows := collectSite(CollectOptions{})
	begin := time.Unix(1000, 0)
	add := func(target traffic.Target, second int, label detect.WindowLabel) {
		w := detect.LabelledWindow{Time: begin.Add(time.Duration(second) * time.Second), Target: target, Label: label}
		if label == detect.LabelCalm {
			w.Features = detect.Vector{1}
		}
		if err := c.add(w, true); err != nil {
			t.Fatal(err)
		}
	}
	host, whole := traffic.HostTarget(watched), traffic.Target{Scope: traffic.TargetInterface}
	for second := range 30 {
		label := detect.LabelCalm
		if second == 20 {
			label = detect.LabelUnknown
		}
		add(host, second, label)
		add(whole, second, detect.LabelCalm)
	}
	s, err := c.end()
	var got []int
	for _, w := range *rows {
		if w.Target == host {
			got = append(got, int(w.Time.Sub(begin).Seconds()))
		}
	}
	slices.Sort(got)
	if want := []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 21, 22, 23, 24, 25, 26, 27, 28, 29}; err != nil || !slices.Equal(got, want) {
		t.Errorf("seconds %v, %v", got, err)
	}
	if s.Suspicious != 11 || s.Windows != len(got)+30 || s.Targets != 2 {
		t.Errorf("%+v", s)
	}
}

// TestCollectorHasABound: a file that is full takes no more, and says so.
func TestCollectorHasABound(t *testing.T) {
	c, rows := collectSite(CollectOptions{All: true})
	c.sum.Windows = detect.MaxWindows - 1
	for range 3 {
		if err := c.add(detect.LabelledWindow{Label: detect.LabelUnknown, Features: detect.Vector{1}}, true); err != nil {
			t.Fatal(err)
		}
	}
	if s, _ := c.end(); len(*rows) != 1 || len(s.Notes) != 1 || !strings.Contains(s.Notes[0], "200000") {
		t.Errorf("%d rows, %+v", len(*rows), s)
	}
}

// TestStreamedWindowsAreTheDetectors: what a client collects is what the detectors saw, bit by bit.
func TestStreamedWindowsAreTheDetectors(t *testing.T) {
	s := newDetectSite(t, detectConfig(t))
	vectors := map[time.Time]detect.Vector{}
	c, rows := collectSite(CollectOptions{})
	s.detector.Observe(func(w *detect.Seen) {
		if !noteworthy(w) || w.Target.Scope == traffic.TargetInterface {
			return
		}
		vectors[w.Time.UTC()] = slices.Clone(w.Features())
		m := apiWindow(w)
		if w.Label == detect.LabelCalm {
			m.Features = packVector(w.Features())
		}
		if err := c.message(&api.WindowMessage{Window: &m}); err != nil {
			t.Fatal(err)
		}
	})
	s.ticks(900)
	s.path.syn = 5000
	s.ticks(20)
	sum, err := c.end()
	if err != nil || sum.Windows == 0 || sum.NoBaseline < 55 || sum.Suspicious < 15 {
		t.Fatalf("%+v, %v", sum, err)
	}
	for _, w := range *rows {
		if !slices.EqualFunc(w.Features, vectors[w.Time], func(a, b float32) bool { return math.Float32bits(a) == math.Float32bits(b) }) {
			t.Fatalf("the window of %v has another vector", w.Time)
		}
		if w.Label != detect.LabelCalm || w.Target != traffic.HostTarget(watched) {
			t.Errorf("%+v", w)
		}
	}
}

// TestForeignMessages: a daemon of another version is refused, not learnt from.
func TestForeignMessages(t *testing.T) {
	target := traffic.HostTarget(watched).String()
	for want, m := range map[string]api.WindowMessage{
		"missing: " + detect.Names()[0]: {Schema: &api.WindowSchema{Features: detect.Names()[1:]}},
		"is no address":                 {Window: &api.Window{Target: "nobody"}},
		`unknown label "odd"`:           {Window: &api.Window{Target: target, Label: "odd"}},
		"a vector of 3 bytes":           {Window: &api.Window{Target: target, Label: "calm", Features: []byte{1, 2, 3}}},
	} {
		c, _ := collectSite(CollectOptions{})
		if err := c.message(&m); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// TestNoWindowsSaysWhy: the reason is one that can be acted upon.
func TestNoWindowsSaysWhy(t *testing.T) {
	for want, s := range map[string]CollectSummary{
		"no target had any packets": {},
		"without a baseline, which": {NoBaseline: 3},
		"2 were suspicious":         {NoBaseline: 3, Suspicious: 2},
		"its first minute":          {Ordinary: 5},
	} {
		if err := s.nothing(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v", s, err)
		}
	}
}

// TestCandidateIsLive: trees that are saved are those that the daemon and training go on from.
func TestCandidateIsLive(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "models")
	trees, name, err := LiveModel(dir)
	if err != nil || name != builtInName {
		t.Fatalf("%s, %v", name, err)
	}
	change, err := SaveModel(dir, trees)
	if err != nil || change.Number != 1 {
		t.Fatalf("%+v, %v", change, err)
	}
	again, name, err := LiveModel(dir)
	if err != nil || name != change.Model.Origin || again.Len() != trees.Len() {
		t.Errorf("%s, %v", name, err)
	}
	if read, err := ReadModel(name); err != nil || read.Len() != trees.Len() {
		t.Errorf("read %s: %v", name, err)
	}
	if _, err := ReadModel(filepath.Join(dir, "absent.json")); err == nil || errors.Is(err, context.Canceled) {
		t.Errorf("absent: %v", err)
	}
}
