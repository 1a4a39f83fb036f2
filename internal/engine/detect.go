// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/sentinel-x/sentinel-x/internal/api"
	"github.com/sentinel-x/sentinel-x/internal/atomicfile"
	"github.com/sentinel-x/sentinel-x/internal/config"
	"github.com/sentinel-x/sentinel-x/internal/dataplane"
	"github.com/sentinel-x/sentinel-x/internal/detect"
	"github.com/sentinel-x/sentinel-x/internal/mitigate"
	"github.com/sentinel-x/sentinel-x/internal/model"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

const (
	baselinesTime = 5 * time.Minute // between two saves of the baselines
	flushTime     = time.Second     // between two writes of incidents
)

// windows is what detection needs of the packet path.
type windows interface {
	Tick(now time.Time) ([]traffic.Window, error)
	SetTargets(prefixes []netip.Prefix) error
	WindowStats() dataplane.WindowStats
}

// detection looks at the targets ten times a second and turns what the detectors
// say into incidents. watch does nothing that can wait for a disk; that is for keep.
type detection struct {
	cfg       config.Config
	log       *slog.Logger
	path      windows
	publish   func(api.Incident)
	addresses func([]string) ([]netip.Prefix, error)
	incidents *incidents
	evidence  *incidentWindows

	detector *detect.Detector // watch's own, as is what follows
	bank     *detect.Bank
	last     time.Time // of the last tick
	counted  time.Time // of the last look at the learners
	broken   bool      // the last tick failed
	training bool

	shadows chan training // to keep
	trained chan training // back to watch
	learnt  chan learnt   // to keep
	aim     chan struct{} // the addresses may have changed

	mu    sync.Mutex // guards what follows
	state api.Detection
	wrong map[string]string // what is not as configured, by subject
}

// training is a forest in the shadow, and then what came of it.
type training struct {
	target    traffic.Target
	shadow    *model.Shadow
	candidate *model.Candidate // nil: refused
}

// learnt is what is known of targets, to be written.
type learnt struct {
	baselines *detect.BaselineSnapshot
	learners  *detect.BankSnapshot // nil: there is no bank
}

// newDetection never fails: what cannot be read is said in the log and in health,
// and left out.
func newDetection(cfg config.Config, log *slog.Logger, path windows, publish func(api.Incident)) *detection {
	d := &detection{
		cfg: cfg, log: log, path: path, publish: publish, addresses: mitigate.OwnAddresses,
		shadows: make(chan training, 1), trained: make(chan training, 1), learnt: make(chan learnt, 1), aim: make(chan struct{}, 1),
		wrong: map[string]string{},
	}
	var err error
	if d.incidents, err = openIncidents(filepath.Join(cfg.StateDir, "incidents.jsonl"), time.Now()); err != nil {
		d.complain("incidents", err)
	}
	if d.evidence, err = openIncidentWindows(cfg.StateDir, cfg.Detect.ModelDir); err != nil {
		d.complain("windows of incidents", err)
	} else if err := d.agree(); err != nil {
		d.complain("windows of incidents", err)
	}
	d.state = api.Detection{Enabled: cfg.Detect.Enabled}
	if !cfg.Detect.Enabled {
		return d
	}
	d.state.Rule = string(cfg.Detect.Rule)
	d.detector = detect.New(detect.SettingsOf(cfg.Detect), d.models())
	d.detector.Observe(d.evidence.see)
	if err := d.readBaselines(); err != nil {
		d.complain("baselines", err)
	}
	if err := d.readLearners(); err != nil {
		d.complain("learners", err)
	}
	d.setTargets()
	d.log.Info("detecting", "rule", d.state.Rule, "trees", d.state.Trees, "targets", d.state.Capacity)
	return d
}

// complain says in the log and in health what is not as configured; nil takes it back.
func (d *detection) complain(subject string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err == nil {
		delete(d.wrong, subject)
		return
	}
	text := "detection: " + err.Error()
	if d.wrong[subject] != text {
		d.log.Error("degraded", "reason", text)
	}
	d.wrong[subject] = text
}

func (d *detection) complaints() (all []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, text := range d.wrong {
		all = append(all, text)
	}
	return all
}

// notices says what works as configured and is still worth knowing.
func (d *detection) notices() []string {
	if !d.cfg.Detect.Enabled {
		return []string{"detection is off: no target is watched for attacks"}
	}
	return nil
}

func (d *detection) status() api.Detection {
	d.mu.Lock()
	s := d.state
	d.mu.Unlock()
	s.Open, s.Incidents = d.incidents.count()
	if s.Enabled {
		w := d.path.WindowStats()
		s.Targets, s.Capacity, s.Recycled, s.Unplaced = w.Targets, w.Slots, w.Recycled, w.Unplaced
		s.SamplesSent, s.SamplesLost = w.Samples, w.Lost
	}
	return s
}

// models opens the trees and makes a bank of learners.
func (d *detection) models() detect.Models {
	trees := d.trees()
	bank, err := detect.NewBank(detect.BankTargets, model.LearnerParams{})
	if err != nil {
		d.complain("learners", err)
		m := detect.Models{}
		if trees != nil {
			m.Trees = trees
		}
		return m
	}
	d.bank = bank
	return bank.Models(trees)
}

// trees returns those of the model directory, or without any there those that come
// with the program; nil where they are refused.
func (d *detection) trees() *detect.Trees {
	live, err := openLive(d.cfg.Detect.ModelDir)
	switch {
	case err != nil:
		d.complain("trees", fmt.Errorf("%w: the deterministic layer decides alone", err))
		return nil
	case live.damaged != nil:
		d.complain("trees", fmt.Errorf("%w: %s is used instead", live.damaged, live.name))
	}
	d.state.Trees = live.name
	return live.trees
}

// retarget makes watch look for the interface's addresses anew. It does not wait.
func (d *detection) retarget() {
	select {
	case d.aim <- struct{}{}:
	default:
	}
}

// setTargets tells the packet path whom to watch.
func (d *detection) setTargets() {
	targets := d.cfg.Protect.Targets
	if len(targets) == 0 {
		own, err := d.addresses(d.cfg.Interfaces)
		if err != nil && len(own) == 0 {
			d.complain("targets", err)
			return
		}
		targets = own
	}
	var err error
	if room := d.path.WindowStats().Slots; len(d.cfg.Protect.Targets) == 0 && len(targets) > room {
		err = fmt.Errorf("the interfaces have %d addresses, and %d can be watched: raise detect.max_targets, or name prefixes under protect.targets", len(targets), room)
		targets = targets[:room]
	}
	d.complain("targets", errors.Join(err, d.path.SetTargets(targets)))
}

// watch ticks until ctx ends.
func (d *detection) watch(ctx context.Context) error {
	if !d.cfg.Detect.Enabled {
		return nil
	}
	t := time.NewTicker(traffic.Tick)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-d.aim:
			d.setTargets()
		case r := <-d.trained:
			d.training = false
			d.bank.Take(r.target, r.candidate)
		case <-t.C:
			d.tick(time.Now())
		}
	}
}

// tick looks at what came since the last one. One that comes right after a late
// one is left to the next.
func (d *detection) tick(now time.Time) {
	since := now.Sub(d.last)
	if since >= 0 && since < traffic.Tick/2 {
		return
	}
	seen, err := d.path.Tick(now)
	if err != nil {
		d.broken = true
		d.complain("windows", err)
		return
	}
	if d.broken {
		d.broken = false
		d.complain("windows", nil)
	}
	if !d.last.IsZero() && since > traffic.Tick*3/2 {
		d.count(uint64((since-traffic.Tick/2)/traffic.Tick), 0)
	}
	d.last = now
	d.count(0, 1)
	if len(seen) > 0 && d.detector.Begin(seen[0].Start, seen[0].Length) {
		for i := range seen {
			d.detector.Add(&seen[i])
		}
		for _, u := range d.detector.End() {
			d.take(u)
		}
	}
	d.everySecond(now)
}

func (d *detection) count(late, ticks uint64) {
	d.mu.Lock()
	d.state.Late += late
	d.state.Ticks += ticks
	d.mu.Unlock()
}

// everySecond does what need not be done at each tick.
func (d *detection) everySecond(now time.Time) {
	if since := now.Sub(d.counted); since >= 0 && since < time.Second {
		return
	}
	before := d.counted
	d.counted = now
	if d.bank != nil {
		d.countLearners()
		if !d.training {
			d.train(now)
		}
	}
	if before.Truncate(baselinesTime) != now.Truncate(baselinesTime) && !before.IsZero() {
		select {
		case d.learnt <- d.snapshot():
		default: // the disk is slow; the next time will do
		}
	}
}

func (d *detection) countLearners() {
	learners, armed := d.bank.Learners()
	d.mu.Lock()
	d.state.Learners, d.state.Armed = learners, armed
	d.mu.Unlock()
}

// train hands a forest that is due to keep.
func (d *detection) train(now time.Time) {
	target, shadow := d.bank.Due(now)
	if shadow == nil {
		return
	}
	d.training = true
	d.shadows <- training{target: target, shadow: shadow} // there is room: one is under way at a time
}

// take keeps an update, and says it.
func (d *detection) take(u detect.Update) {
	i := &u.Incident
	line := []any{
		"target", i.Target.String(), "kind", i.Kind.String(), "confidence", math.Round(i.Confidence*1000) / 1000,
		"pps", int(i.Peak.Packets), "normal_pps", int(i.Normal.Packets),
	}
	if u.Change == detect.GreyZone {
		d.log.Info("grey zone: odd, and not enough to act", line...)
		return
	}
	line = append([]any{"id", i.ID}, append(line, "onset", i.Onset.UTC().Format(time.RFC3339Nano), "detected_after", i.Detected.Sub(i.Onset).Round(time.Millisecond))...)
	switch u.Change {
	case detect.Opened:
		d.log.Warn("attack", line...)
	case detect.Changed:
		d.log.Debug("attack changed", line...)
	default:
		d.log.Warn("attack ended", append(line, "lasted", i.Ended.Sub(i.Onset).Round(time.Millisecond), "merged_into", i.MergedInto)...)
	}
	d.publish(d.incidents.put(*i))
}

// keep does what may take its time: it trains, and writes files.
func (d *detection) keep(ctx context.Context) error {
	t := time.NewTicker(flushTime)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case job := <-d.shadows:
			d.trained <- d.trainOne(job)
		case l := <-d.learnt:
			d.save(l)
		case <-t.C:
			d.complain("incidents", d.incidents.flush())
		}
	}
}

func (d *detection) trainOne(job training) training {
	c, err := job.shadow.Train(detect.NotWorse)
	if err != nil {
		d.log.Info("a forest was not taken", "target", job.target.String(), "reason", err)
		return job
	}
	d.log.Info("a forest was trained", "target", job.target.String())
	job.candidate = c
	return job
}

// close writes what is to outlive the process. Neither watch nor keep runs any more.
func (d *detection) close() error {
	if d.detector != nil {
		d.save(d.snapshot())
	}
	if err := d.incidents.flush(); err != nil {
		d.log.Error("save incidents", "error", err)
	}
	return nil
}

func (d *detection) baselinesFile() string { return filepath.Join(d.cfg.StateDir, "baselines.bin") }

func (d *detection) readBaselines() error {
	file, err := os.Open(d.baselinesFile())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read baselines: %w", err)
	}
	defer file.Close()
	if err := d.detector.ReadBaselines(file); err != nil {
		return fmt.Errorf("%s: %w: what is normal is learnt anew", file.Name(), err)
	}
	return nil
}

func (d *detection) learnersFile() string { return filepath.Join(d.cfg.StateDir, "learners.bin") }

func (d *detection) readLearners() error {
	if d.bank == nil {
		return nil
	}
	file, err := os.Open(d.learnersFile())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read learners: %w", err)
	}
	defer file.Close()
	if err := d.bank.Read(file); err != nil {
		return fmt.Errorf("%s: %w: forests and online learners learn anew", file.Name(), err)
	}
	d.countLearners()
	d.log.Info("learners are those of the last run", "learners", d.state.Learners, "armed", d.state.Armed)
	return nil
}

// snapshot copies what has been learnt. It is watch's; save may run elsewhere.
func (d *detection) snapshot() learnt {
	l := learnt{baselines: d.detector.Baselines()}
	if d.bank != nil {
		l.learners = d.bank.Snapshot()
	}
	return l
}

// save writes what has been learnt, and what there is to learn from, to its files.
func (d *detection) save(l learnt) {
	d.complain("windows of incidents", d.evidence.flush())
	d.complain("baselines", replaceFile(d.baselinesFile(), l.baselines.Write))
	if l.learners != nil {
		d.complain("learners", replaceFile(d.learnersFile(), l.learners.Write))
	}
}

// writeAtomic puts a file in the place of another, whole or not at all.
func writeAtomic(path string, data []byte) error {
	return replaceFile(path, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
}

// replaceFile is writeAtomic for what is written piece by piece.
func replaceFile(path string, write func(io.Writer) error) error {
	if err := atomicfile.Write(path, 0o600, write); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
