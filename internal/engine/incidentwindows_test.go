// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sentinel-x/sentinel-x/internal/api"
	"github.com/sentinel-x/sentinel-x/internal/detect"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

func windowsOf(t *testing.T, path string) []detect.LabelledWindow {
	t.Helper()
	list, err := readWindows(path)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// wantLabelled says which labels the file for training has, of incidents in order.
func wantLabelled(t *testing.T, path, when string, want map[string]detect.WindowLabel) {
	t.Helper()
	have := map[string]detect.WindowLabel{}
	for _, w := range windowsOf(t, path) {
		have[w.Group] = w.Label
	}
	if fmt.Sprint(have) != fmt.Sprint(want) {
		t.Errorf("%s: %v, want %v", when, have, want)
	}
}

// The windows of an incident are training data once it has a label, and the label
// may change, also after a restart.
func TestLabelledIncidentsAreForTraining(t *testing.T) {
	cfg := detectConfig(t)
	cfg.Detect.ModelDir = filepath.Join(t.TempDir(), "models") // is not there yet
	s := newDetectSite(t, cfg)
	i := s.flood(t)
	file := filepath.Join(cfg.Detect.ModelDir, "labelled.windows")
	if _, err := os.Stat(file); err == nil {
		t.Error("windows without a label are for training")
	}
	if _, err := s.label(i.ID, api.LabelAttack); err != nil {
		t.Fatal(err)
	}
	list := windowsOf(t, file)
	if len(list) < 10 || len(list) > 30 {
		t.Fatalf("%d windows of a flood of 2 s", len(list))
	}
	syn := detect.Index("syn_share_100ms")
	for _, w := range list {
		if w.Target.String() != i.Target || w.Group != i.ID || w.Label != detect.LabelAttack || w.Kind != traffic.KindSYNFlood ||
			w.Time.Before(i.Detected.Add(-time.Second)) || !(w.Features[syn] > 0.9) {
			t.Fatalf("%+v", w)
		}
	}
	if _, err := s.label(i.ID, api.LabelBenign); err != nil {
		t.Fatal(err)
	}
	wantLabelled(t, file, "relabelled", map[string]detect.WindowLabel{i.ID: detect.LabelBenign})
	s.path.syn = 5000
	s.ticks(20)
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	again := newDetectSite(t, cfg)
	var other string
	for _, o := range again.incidents.list(api.IncidentFilter{}) {
		if o.ID != i.ID {
			other = o.ID
		}
	}
	for id, label := range map[string]string{other: api.LabelBenign, i.ID: api.LabelAttack} {
		if _, err := again.label(id, label); err != nil {
			t.Fatal(err)
		}
	}
	both := map[string]detect.WindowLabel{i.ID: detect.LabelAttack, other: detect.LabelBenign}
	wantLabelled(t, file, "after a restart", both)
	if len(windowsOf(t, file)) <= len(list) || len(again.complaints()) != 0 {
		t.Errorf("%d windows after a restart, health %q", len(windowsOf(t, file)), again.complaints())
	}
	if _, err := again.label("nobody", api.LabelAttack); err == nil {
		t.Error("an unknown incident has a label")
	}

	// The file is damaged: those with a label are in the other one still.
	if err := os.Truncate(again.evidence.path, 100); err != nil {
		t.Fatal(err)
	}
	hurt := newDetectSite(t, cfg)
	if got := strings.Join(hurt.complaints(), ""); !strings.Contains(got, "incident.windows") || !strings.Contains(got, "cut") {
		t.Errorf("health %q", got)
	}
	if _, err := hurt.label(other, api.LabelAttack); err != nil {
		t.Fatal(err)
	}
	both[other] = detect.LabelAttack
	wantLabelled(t, file, "after damage", both)
}

// A crash between the incident's label and its windows' is made good at the start.
func TestLabelsAgree(t *testing.T) {
	cfg := detectConfig(t)
	s := newDetectSite(t, cfg)
	i := s.flood(t)
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.incidents.label(i.ID, api.LabelAttack); err != nil {
		t.Fatal(err)
	}
	newDetectSite(t, cfg)
	wantLabelled(t, filepath.Join(cfg.StateDir, "labelled.windows"), "at the start", map[string]detect.WindowLabel{i.ID: detect.LabelAttack})
}

func TestIncidentWindowsAreBounded(t *testing.T) {
	s, err := openIncidentWindows(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	vector := make(detect.Vector, detect.NumFeatures())
	at := time.Unix(1_000_000, 0)
	attack := func(id string, windows int) {
		for i := range windows {
			in := traffic.Incident{ID: id, Target: traffic.HostTarget(watched), Kind: traffic.KindUDPFlood}
			s.add(&in, at.Add(time.Duration(i)*traffic.Tick), func() detect.Vector { return vector })
		}
	}
	attack("long", 36_000)
	if err := s.label("long", api.LabelAttack, traffic.KindUDPFlood); err != nil {
		t.Fatal(err)
	}
	var ticks []int
	for _, w := range windowsOf(t, s.labelled) {
		ticks = append(ticks, int(w.Time.Sub(at)/traffic.Tick))
	}
	if n := len(ticks); n <= incidentRows/2 || n > incidentRows || ticks[incidentFirstRows-1] != incidentFirstRows-1 || ticks[n-1] < 34_000 {
		t.Errorf("an hour: windows %v", ticks)
	}
	for i := incidentFirstRows + 1; i < len(ticks); i++ {
		if ticks[i]-ticks[i-1] != ticks[i-1]-ticks[i-2] && i > incidentFirstRows+1 {
			t.Fatalf("not evenly: %v", ticks)
		}
	}
	for i := range 100 {
		attack(fmt.Sprint(i), incidentRows)
	}
	if s.rows > allIncidentRows || s.rows < allIncidentRows-2*incidentRows || len(s.list(false)) != s.rows {
		t.Errorf("%d rows, %d in the list", s.rows, len(s.list(false)))
	}
	ids := []string{}
	for _, i := range s.order {
		ids = append(ids, i.id)
	}
	if ids[0] != "long" || slices.Contains(ids, "0") || ids[len(ids)-1] != "99" {
		t.Errorf("left are %v", ids)
	}
	if err := s.label("0", api.LabelAttack, traffic.KindUDPFlood); err != nil {
		t.Errorf("an incident whose windows went: %v", err)
	}
	for _, id := range ids {
		if err := s.label(id, api.LabelAttack, traffic.KindUDPFlood); err != nil {
			t.Fatal(err)
		}
	}
	attack("last", incidentRows)
	if s.rows > allIncidentRows || s.order[0].id == "long" {
		t.Errorf("%d rows, the oldest %s", s.rows, s.order[0].id)
	}
}

// FuzzIncidentFiles: whatever is in the files of the state directory, detection starts.
func FuzzIncidentFiles(f *testing.F) {
	f.Add([]byte(`{"id":"x","target":"192.0.2.10","kind":"udp_flood","onset":"2030-01-31T12:00:00Z","detected":"2030-01-31T12:00:01Z","votes":[]}`+"\n"), []byte{})
	f.Add([]byte(`{"id":"y"}`), []byte("sentinel-x windows 1\n{}\n"))
	f.Fuzz(func(t *testing.T, lines, windows []byte) {
		dir := t.TempDir()
		for name, data := range map[string][]byte{"incidents.jsonl": lines, incidentWindowsFile: windows} {
			if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		s, _ := openIncidents(filepath.Join(dir, "incidents.jsonl"), time.Unix(2_000_000_000, 0))
		if open, all := s.count(); open != 0 || all > keptIncidents {
			t.Errorf("%d open, %d in all", open, all)
		}
		if err := s.flush(); err != nil {
			t.Fatal(err)
		}
		w, _ := openIncidentWindows(dir, "")
		if err := w.writeLabelled(); err != nil {
			t.Fatal(err)
		}
	})
}
