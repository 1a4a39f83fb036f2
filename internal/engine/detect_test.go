// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sentinel-x/sentinel-x/internal/api"
	"github.com/sentinel-x/sentinel-x/internal/config"
	"github.com/sentinel-x/sentinel-x/internal/dataplane"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

var watched = netip.MustParseAddr("192.0.2.10")

// fakeWindows is a packet path with one target.
type fakeWindows struct {
	slots   int
	targets []netip.Prefix
	last    time.Time
	calm    uint64 // packets of an ordinary tick
	syn     uint64 // SYNs that come on top
	err     error
}

func (f *fakeWindows) Tick(now time.Time) ([]traffic.Window, error) {
	if f.err != nil {
		return nil, f.err
	}
	start := f.last
	if start.IsZero() {
		start = now.Add(-traffic.Tick)
	}
	f.last = now
	w := make([]traffic.Window, 2)
	w[1].Target = traffic.HostTarget(watched)
	w[0].Target.Scope = traffic.TargetInterface
	for i := range w {
		w[i].Start, w[i].Length = start, now.Sub(start)
		f.count(&w[i])
	}
	return w, nil
}

func (f *fakeWindows) count(w *traffic.Window) {
	n := f.calm + f.syn
	w.Packets, w.Bytes, w.TCP = n, 100*n, n
	w.TCPData, w.ACK, w.SYN, w.SYNNoOptions = f.calm/2, f.calm-f.calm/2, f.syn, f.syn
	w.Sizes[0] = n
	for i := range n {
		w.Sources[i%traffic.SourceBins]++
	}
}

func (f *fakeWindows) SetTargets(p []netip.Prefix) error { f.targets = p; return f.err }

func (f *fakeWindows) WindowStats() dataplane.WindowStats {
	return dataplane.WindowStats{Targets: len(f.targets), Slots: f.slots, Samples: 9, Lost: 4}
}

// site is a detection on a fake packet path, whose time goes by as the test wants.
type site struct {
	*detection
	path      *fakeWindows
	log       *bytes.Buffer
	published []api.Incident
	now       time.Time
}

func detectConfig(t *testing.T) config.Config {
	t.Helper()
	cfg := config.Default()
	cfg.StateDir = t.TempDir()
	cfg.Interfaces = []string{"eth9"}
	cfg.Protect.Targets = []netip.Prefix{netip.PrefixFrom(watched, 32)}
	cfg.Detect.Limits.SYN = 20_000
	return cfg
}

func newDetectSite(t *testing.T, cfg config.Config) *site {
	t.Helper()
	s := &site{path: &fakeWindows{slots: 4, calm: 50}, log: &bytes.Buffer{}, now: time.Now()}
	s.detection = newDetection(cfg, slog.New(slog.NewTextHandler(s.log, nil)), s.path, func(i api.Incident) { s.published = append(s.published, i) })
	s.detector.SetModels(s.bank.Models(nil)) // packets all alike are no traffic to them
	return s
}

func (s *site) ticks(n int) {
	for range n {
		s.now = s.now.Add(traffic.Tick)
		s.tick(s.now)
	}
}

// flood lets a calm minute pass and then a flood, to its end.
func (s *site) flood(t *testing.T) api.Incident {
	t.Helper()
	s.ticks(700)
	if len(s.published) != 0 {
		t.Fatalf("calm traffic: %+v", s.published)
	}
	s.path.syn = 5000
	s.ticks(20)
	if open, all := s.incidents.count(); open == 0 || all == 0 {
		t.Fatalf("no incident\n%s", s.log)
	}
	s.path.syn = 0
	s.ticks(150)
	list := s.incidents.list(api.IncidentFilter{})
	i := slices.IndexFunc(list, func(i api.Incident) bool { return i.Target == watched.String() })
	if i < 0 {
		t.Fatalf("no incident at %s: %+v", watched, list)
	}
	return list[i]
}

func TestAFloodIsAnIncidentUntilItEnds(t *testing.T) {
	s := newDetectSite(t, detectConfig(t))
	i := s.flood(t)
	if i.Kind != "syn_flood" || i.Ended == nil || i.Peak.Packets < 40_000 || len(i.Votes) != 4 {
		t.Errorf("%+v", i)
	}
	for _, want := range []string{"level=WARN msg=attack ", "kind=syn_flood", `msg="attack ended"`, "id=" + i.ID} {
		if !strings.Contains(s.log.String(), want) {
			t.Errorf("the log lacks %q:\n%s", want, s.log)
		}
	}
	if n := len(s.published); n < 2 || s.published[0].Ended != nil || s.published[n-1].Ended == nil {
		t.Errorf("published %+v", s.published)
	}
	if open, _ := s.incidents.count(); open != 0 {
		t.Errorf("%d still open", open)
	}
	st := s.status()
	if st.Trees != "built in" {
		t.Errorf("trees %q", st.Trees)
	}
	if !st.Enabled || st.Ticks != 870 || st.Late != 0 || st.SamplesLost != 4 || st.Targets != 1 || st.Learners == 0 {
		t.Errorf("%+v", st)
	}
}

// Incidents, their labels and what is normal are there again after a restart.
func TestIncidentsAndBaselinesOutliveARestart(t *testing.T) {
	cfg := detectConfig(t)
	s := newDetectSite(t, cfg)
	i := s.flood(t)
	if _, err := s.incidents.label(i.ID, api.LabelAttack); err != nil {
		t.Fatal(err)
	}
	s.path.syn = 5000
	s.ticks(20)
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	again := newDetectSite(t, cfg)
	got, err := again.incidents.get(i.ID)
	if err != nil || got.Label != api.LabelAttack || !got.Ended.Equal(*i.Ended) || len(got.Votes) != 4 {
		t.Errorf("%+v, %v", got, err)
	}
	list := again.incidents.list(api.IncidentFilter{})
	if open, all := again.incidents.count(); open != 0 || all < 2 || !strings.Contains(strings.Join(list[0].Notes, " "), "restarted") {
		t.Errorf("%d open of %d, newest %+v", open, all, list[0])
	}
	again.path.syn = 5000
	again.ticks(20)
	if len(again.published) == 0 || again.published[0].NoBaseline {
		t.Errorf("the baseline is lost: %+v", again.published)
	}
	if len(again.complaints()) != 0 {
		t.Errorf("%q", again.complaints())
	}
}

// learn lets calm traffic pass until forests and online learners are armed.
func (s *site) learn(t *testing.T) {
	t.Helper()
	r := rand.New(rand.NewPCG(3, 3))
	for i := 0; s.state.Armed == 0 && i < 6000; i++ {
		s.path.calm = 30 + r.Uint64N(40)
		s.ticks(1)
		select {
		case job := <-s.shadows:
			job = s.trainOne(job)
			s.training = false
			s.bank.Take(job.target, job.candidate)
		default:
		}
	}
	s.path.calm = 50
	if s.state.Armed == 0 {
		t.Fatalf("nothing is armed: %+v\n%s", s.state, s.log)
	}
}

// What learners have learnt is there again after a restart; a damaged file is said,
// costs nothing else, and is replaced.
func TestLearnersOutliveARestart(t *testing.T) {
	cfg := detectConfig(t)
	s := newDetectSite(t, cfg)
	s.learn(t)
	_, want := s.bank.Learners()
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	again := newDetectSite(t, cfg)
	if st := again.status(); st.Armed != want || st.Learners < want {
		t.Errorf("%d of %d learners are armed, %d were", st.Armed, st.Learners, want)
	}
	if !strings.Contains(again.log.String(), "learners are those of the last run") || len(again.complaints()) != 0 {
		t.Errorf("health %q, log\n%s", again.complaints(), again.log)
	}
	data, err := os.ReadFile(s.learnersFile())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.learnersFile(), data[:len(data)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	hurt := newDetectSite(t, cfg)
	if text := strings.Join(hurt.complaints(), ""); !strings.Contains(text, "learners.bin") || !strings.Contains(text, "checksum") || !strings.Contains(hurt.log.String(), "learn anew") {
		t.Errorf("health %q, log\n%s", text, hurt.log)
	}
	hurt.path.syn = 5000
	hurt.ticks(20)
	if len(hurt.published) == 0 || hurt.published[0].NoBaseline {
		t.Errorf("the baselines are lost with the learners: %+v", hurt.published)
	}
	if err := hurt.close(); err != nil {
		t.Fatal(err)
	}
	if left := newDetectSite(t, cfg).complaints(); len(left) != 0 {
		t.Errorf("after the next save: %q", left)
	}
}

// What cannot be read is said, and detection goes on without it.
func TestDamagedFilesAreSaidAndLeftOut(t *testing.T) {
	cfg := detectConfig(t)
	cfg.Detect.ModelDir = t.TempDir()
	good := `{"id":"x","target":"192.0.2.10","kind":"udp_flood","onset":"2030-01-31T12:00:00Z","detected":"2030-01-31T12:00:01Z","ended":"2030-01-31T12:00:09Z","votes":[]}` + "\n"
	for name, text := range map[string]string{
		filepath.Join(cfg.StateDir, "incidents.jsonl"):          good + `{"id":"y","tar`,
		filepath.Join(cfg.StateDir, "baselines.bin"):            "sentinel-x baselines 1\nnonsense",
		filepath.Join(cfg.Detect.ModelDir, "trees.000001.json"): "{}",
	} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := newDetectSite(t, cfg)
	all := strings.Join(s.complaints(), "\n")
	for _, want := range []string{"one line of", "checksum", "trees.000001.json"} {
		if !strings.Contains(all, want) || !strings.Contains(s.log.String(), want) {
			t.Errorf("no %q in health %q and log\n%s", want, all, s.log)
		}
	}
	if i := s.flood(t); i.Kind != "syn_flood" {
		t.Errorf("%+v", i)
	}
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	cfg.Detect.ModelDir = ""
	again := newDetectSite(t, cfg)
	if left := again.complaints(); len(left) != 0 {
		t.Errorf("what was written since: %q", left)
	}
	if i, err := again.incidents.get("x"); err != nil || i.Kind != "udp_flood" {
		t.Errorf("%+v, %v", i, err)
	}
}

// A late tick is covered by the next; one right behind it is left out.
func TestLateTicks(t *testing.T) {
	s := newDetectSite(t, detectConfig(t))
	s.ticks(5)
	s.now = s.now.Add(2 * time.Second)
	s.tick(s.now)
	s.now = s.now.Add(traffic.Tick / 4)
	s.tick(s.now)
	if st := s.status(); st.Ticks != 6 || st.Late != 19 {
		t.Errorf("%d ticks, %d late", st.Ticks, st.Late)
	}
	if st := s.detector.Stats(); st.Missing != 0 || st.Duplicates != 0 {
		t.Errorf("%+v", st)
	}
	s.path.err = errors.New("no windows today")
	s.ticks(1)
	if got := strings.Join(s.complaints(), ""); !strings.Contains(got, "no windows today") {
		t.Errorf("health %q", got)
	}
	s.path.err = nil
	s.ticks(1)
	if got := s.complaints(); len(got) != 0 {
		t.Errorf("health %q", got)
	}
}

func TestTargetsFollowTheAddresses(t *testing.T) {
	cfg := detectConfig(t)
	cfg.Protect.Targets = nil
	s := newDetectSite(t, cfg)
	if got := strings.Join(s.complaints(), ""); !strings.Contains(got, "eth9") {
		t.Errorf("an absent interface: %q", got)
	}
	own := []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32"), netip.MustParsePrefix("2001:db8::1/128")}
	s.addresses = func([]string) ([]netip.Prefix, error) { return own, nil }
	s.setTargets()
	if !slices.Equal(s.path.targets, own) || len(s.complaints()) != 0 {
		t.Errorf("%v, %q", s.path.targets, s.complaints())
	}
	for i := range 4 {
		own = append(own, netip.MustParsePrefix(fmt.Sprintf("198.51.100.%d/32", i)))
	}
	s.setTargets()
	if got := strings.Join(s.complaints(), ""); len(s.path.targets) != 4 || !strings.Contains(got, "detect.max_targets") {
		t.Errorf("%v, %q", s.path.targets, got)
	}
}

func TestIncidentsAreBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "incidents.jsonl")
	s, err := openIncidents(path, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	at := time.Unix(1000, 0)
	for i := range keptIncidents + 10 {
		in := traffic.Incident{ID: fmt.Sprint(i), Target: traffic.HostTarget(watched), Kind: traffic.KindOther, Detected: at.Add(time.Duration(i) * time.Second)}
		if i != 3 { // that one goes on
			in.Ended = in.Detected.Add(time.Second)
		}
		s.put(in)
	}
	if open, all := s.count(); open != 1 || all != keptIncidents+1 {
		t.Errorf("%d open, %d in all", open, all)
	}
	if got := s.list(api.IncidentFilter{Open: true}); len(got) != 1 || got[0].ID != "3" {
		t.Errorf("open: %+v", got)
	}
	if got := s.list(api.IncidentFilter{Limit: 2}); len(got) != 2 || got[0].ID != "1009" {
		t.Errorf("the newest: %+v", got)
	}
	if got := s.list(api.IncidentFilter{Since: at.Add(1009 * time.Second)}); len(got) != 3 {
		t.Errorf("%d ended since, or go on; want 3", len(got))
	}
	s.size = incidentFileSize
	if err := s.flush(); err != nil || s.size > incidentFileSize/2 {
		t.Errorf("written anew: %d bytes, %v", s.size, err)
	}
	before := s.size
	s.put(traffic.Incident{ID: "3", Target: traffic.HostTarget(watched), Kind: traffic.KindOther, Detected: at, Ended: at})
	if err := s.flush(); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Size() != s.size || s.size < before || s.size > before+1000 {
		t.Errorf("%d bytes, then %d: %v", before, s.size, err)
	}
	again, err := openIncidents(path, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if open, all := again.count(); open != 0 || all != keptIncidents {
		t.Errorf("after a restart %d open, %d in all", open, all)
	}
}
