// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/sentinel-x/sentinel-x/internal/capture"
	"github.com/sentinel-x/sentinel-x/internal/dataplane"
	"github.com/sentinel-x/sentinel-x/internal/detect"
	"github.com/sentinel-x/sentinel-x/internal/model"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

const (
	replayHosts    = 16      // destinations that are watched unless told otherwise
	replayShare    = 100     // each with at least one of that many packets,
	replayNetShare = 10      // and networks with at least one of that many
	surveyWhole    = 1 << 16 // packets of which every one is looked at to choose them,
	surveyStride   = 16      // behind them one of that many

	baselineTime = time.Minute
)

// ReplayDetection is how a capture was watched for attacks.
type ReplayDetection struct {
	Targets []netip.Prefix `json:"targets"`
	Chosen  string         `json:"chosen"` // how: by the flag, the configuration, or the packets
	Trees   string         `json:"trees"`  // their file, or builtInName
	Notes   []string       `json:"notes,omitempty"`
}

// ReplayIncident is an attack that was found in a capture.
type ReplayIncident struct {
	Target     traffic.Target `json:"target"`
	Kind       traffic.Kind   `json:"kind"`
	Protocol   string         `json:"protocol,omitempty"`
	Onset      float64        `json:"onset_s"` // of the capture's time, behind its first packet
	Detected   float64        `json:"detected_s"`
	Ended      *float64       `json:"ended_s,omitempty"` // absent: not before the capture did
	Confidence float64        `json:"confidence"`
	// Features carried the votes of the models that said attack or likely.
	Features   []traffic.Evidence `json:"features"`
	Peak       traffic.Load       `json:"peak"`
	Normal     traffic.Load       `json:"normal"`
	NoBaseline bool               `json:"no_baseline,omitempty"`
	MergedInto *traffic.Target    `json:"merged_into,omitempty"` // the target whose incident explains this one
	Votes      []traffic.Vote     `json:"votes"`
	Notes      []string           `json:"notes,omitempty"`
}

// watcher lets the detector see a capture.
type watcher struct {
	tester   *dataplane.Tester
	detector *detect.Detector
	bank     *detect.Bank
	clock    replayClock
	next     time.Time // when the tick under way ends
	found    map[string]*traffic.Incident
	order    []string
	grey     int
	info     ReplayDetection
	each     func(time.Time, []traffic.Window) // sees the windows of each tick; nil: nobody does
}

// newWatcher chooses the targets and loads the models.
func newWatcher(ctx context.Context, t *dataplane.Tester, o ReplayOptions) (*watcher, error) {
	w := &watcher{tester: t, found: map[string]*traffic.Incident{}, each: o.windows}
	if err := w.aim(ctx, o); err != nil {
		return nil, err
	}
	live, err := openLive(o.Config.Detect.ModelDir)
	if err != nil {
		return nil, err
	}
	w.info.Trees = live.name
	if live.damaged != nil {
		w.info.Notes = append(w.info.Notes, live.damaged.Error()+": "+live.name+" is used instead")
	}
	if w.bank, err = detect.NewBank(detect.BankTargets, model.LearnerParams{}); err != nil {
		return nil, err
	}
	w.detector = detect.New(detect.SettingsOf(o.Config.Detect), w.bank.Models(live.trees))
	w.detector.Observe(o.seen)
	return w, nil
}

// aim sets the targets: those given, those configured, else where most packets go.
func (w *watcher) aim(ctx context.Context, o ReplayOptions) error {
	targets, chosen := o.Targets, "given"
	if len(targets) == 0 {
		targets, chosen = o.Config.Protect.Targets, "protect.targets of the configuration"
	}
	if len(targets) == 0 {
		var err error
		if targets, err = survey(ctx, o); err != nil {
			return err
		}
		chosen = fmt.Sprintf("the destinations that most packets go to: at most %d hosts with 1 %% of them each, and networks with 10 %%", replayHosts)
	}
	w.info.Targets, w.info.Chosen = slices.Concat([]netip.Prefix{}, targets), chosen
	if err := w.tester.SetTargets(targets); err != nil {
		return fmt.Errorf("watch the targets: %w", err)
	}
	return nil
}

// survey reads the capture once and returns where most packets go. A cut capture
// is surveyed up to there: the replay itself says where.
func survey(ctx context.Context, o ReplayOptions) ([]netip.Prefix, error) {
	c, err := capture.Open(o.File)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	po := PlaneOptions(o.Config)
	po.MaxTargets = 0
	t, err := dataplane.NewTester(po)
	if err != nil {
		return nil, err
	}
	defer t.Close()
	hosts, all := map[netip.Addr]uint64{}, uint64(0)
	for n := 0; ; n++ {
		if n%4096 == 0 && ctx.Err() != nil {
			return nil, fmt.Errorf("replay stopped: %w", ctx.Err())
		}
		p, err := c.Next()
		if err != nil {
			return busiest(hosts, all), nil //nolint:nilerr // said by the replay, if it is not the end
		}
		if n > surveyWhole && n%surveyStride != 0 {
			continue
		}
		v, err := t.Run(p.Frame, time.Duration(p.Time.UnixNano()))
		if to := v.Parsed.Destination; err == nil && to.IsValid() {
			hosts[to]++
			all++
		}
	}
}

// busiest returns the hosts and networks that most packets go to, the busiest first.
func busiest(hosts map[netip.Addr]uint64, all uint64) []netip.Prefix {
	if all == 0 {
		return nil
	}
	nets := map[netip.Addr]uint64{}
	for host, n := range hosts {
		nets[traffic.NetworkTarget(host).Prefix.Addr()] += n
	}
	var targets []netip.Prefix
	for _, host := range mostFirst(hosts, max(1, all/replayShare), replayHosts) {
		targets = append(targets, netip.PrefixFrom(host, host.BitLen()))
	}
	for _, net := range mostFirst(nets, max(1, all/replayNetShare), replayHosts) {
		if p := traffic.NetworkTarget(net).Prefix; !slices.ContainsFunc(targets, func(t netip.Prefix) bool { return p.Contains(t.Addr()) }) {
			targets = append(targets, p)
		}
	}
	return targets
}

func mostFirst(counts map[netip.Addr]uint64, least uint64, most int) []netip.Addr {
	var list []netip.Addr
	for a, n := range counts {
		if n >= least {
			list = append(list, a)
		}
	}
	slices.SortFunc(list, func(a, b netip.Addr) int {
		return cmp.Or(cmp.Compare(counts[b], counts[a]), a.Compare(b))
	})
	return list[:min(len(list), most)]
}

// before ends the ticks that are over when a packet with that timestamp arrives.
func (w *watcher) before(stamp time.Time) error {
	at := w.clock.at(stamp)
	if w.next.IsZero() {
		w.next = at.Add(traffic.Tick)
	}
	for !at.Before(w.next) {
		if err := w.tick(); err != nil {
			return err
		}
	}
	return nil
}

// tick ends the one that is under way.
func (w *watcher) tick() error {
	windows, err := w.tester.Tick(w.next)
	if err != nil {
		return err
	}
	if w.each != nil {
		w.each(w.next, windows)
	}
	for _, u := range w.detector.Tick(w.next.Add(-traffic.Tick), traffic.Tick, windows) {
		w.take(u)
	}
	if target, shadow := w.bank.Due(w.next); shadow != nil {
		candidate, err := shadow.Train(detect.NotWorse)
		if err != nil {
			candidate = nil // refused: what there is goes on
		}
		w.bank.Take(target, candidate)
	}
	w.next = w.next.Add(traffic.Tick)
	return nil
}

// take keeps the latest state of each incident.
func (w *watcher) take(u detect.Update) {
	if u.Change == detect.GreyZone {
		w.grey++
		return
	}
	if w.found[u.Incident.ID] == nil {
		w.order = append(w.order, u.Incident.ID)
	}
	i := u.Incident
	w.found[i.ID] = &i
}

// finish ends the last tick and writes what was found to the result.
func (w *watcher) finish(r *ReplayResult, first time.Time) error {
	if !w.next.IsZero() {
		if err := w.tick(); err != nil {
			return err
		}
	}
	for _, i := range w.detector.Open() {
		w.take(detect.Update{Change: detect.Changed, Incident: i})
	}
	r.Incidents = []ReplayIncident{}
	for _, id := range w.order {
		r.Incidents = append(r.Incidents, w.describe(w.found[id], first))
	}
	w.note()
	r.Detection = &w.info
	return nil
}

func (w *watcher) describe(i *traffic.Incident, first time.Time) ReplayIncident {
	since := func(at time.Time) float64 { return w.clock.stamp(at).Sub(first).Seconds() }
	r := ReplayIncident{
		Target: i.Target, Kind: i.Kind, Protocol: i.Protocol, Onset: since(i.Onset), Detected: since(i.Detected),
		Confidence: i.Confidence, Features: []traffic.Evidence{}, Peak: i.Peak, Normal: i.Normal,
		NoBaseline: i.NoBaseline, Votes: i.Votes, Notes: i.Notes,
	}
	if !i.Open() {
		ended := since(i.Ended)
		r.Ended = &ended
	}
	if into := w.found[i.MergedInto]; into != nil {
		r.MergedInto = &into.Target
	}
	for _, v := range i.Votes {
		if v.Opinion < traffic.OpinionLikely {
			continue
		}
		for _, e := range v.Features {
			if !slices.ContainsFunc(r.Features, func(have traffic.Evidence) bool { return have.Name == e.Name }) {
				r.Features = append(r.Features, e)
			}
		}
	}
	return r
}

// note says what limits the findings.
func (w *watcher) note() {
	say := func(format string, args ...any) { w.info.Notes = append(w.info.Notes, fmt.Sprintf(format, args...)) }
	c := &w.clock
	if len(c.pieces) > 0 && c.now.Sub(c.pieces[0].from) < baselineTime {
		say("the capture is shorter than the %v that a baseline takes: there is no normal to compare with, and forest and online learner have no say", baselineTime)
	}
	if c.back > 0 {
		say("timestamps: %d steps back of more than %v; detection went on from the time before each", c.back, reorderTime)
	}
	if c.disorder > 0 {
		say("timestamps: %d packets are out of order by up to %v; they count when they come", c.disorder, reorderTime)
	}
	if c.ahead > 0 {
		say("timestamps: %d pauses or jumps of more than %v; detection saw %v of silence for each", c.ahead, pauseTime, pauseTime)
	}
	if c.short > 0 {
		say("timestamps: pauses of %v in all; of each of %d behind them detection saw %v", silenceTime, c.short, shortPause)
	}
	if len(c.pieces) > 0 && c.now.Equal(c.pieces[0].from) {
		say("timestamps: all packets have the same time, so no rate can be told from another")
	}
	if s := w.tester.WindowStats(); s.Unplaced > 0 {
		say("%d times a target with traffic found no slot: detect.max_targets is %d", s.Unplaced, s.Slots)
	}
	if w.grey > 0 {
		say("grey zone: %d reports of something odd, not enough for an incident", w.grey)
	}
}
