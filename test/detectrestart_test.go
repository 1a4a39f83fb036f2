// SPDX-License-Identifier: Apache-2.0

package test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sentinel-x/sentinel-x/internal/api"
	"github.com/sentinel-x/sentinel-x/internal/config"
	"github.com/sentinel-x/sentinel-x/internal/detect"
	"github.com/sentinel-x/sentinel-x/internal/lab"
	"github.com/sentinel-x/sentinel-x/internal/model"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// calmWindow is a tick of clients of the victim, a little different each time.
func calmWindow(at time.Time, tick int) traffic.Window {
	w := traffic.Window{Target: traffic.HostTarget(lab.Victim6), Start: at, Length: traffic.Tick}
	n := uint64(20 + tick%7)
	w.Packets, w.Bytes, w.TCP, w.ACK, w.TCPData, w.Counted = n, 200*n, n, n/2, n-n/2, n
	w.Sizes[1] = n
	for i := range n {
		w.Sources[(uint64(tick)+7*i)%traffic.SourceBins]++
		w.Lengths[4+(uint64(tick)+i)%5]++
	}
	return w
}

// yesterday fills a state directory as a daemon leaves it that has watched the victim
// for some minutes: learning takes longer than a test may.
func yesterday(t *testing.T, dir string) {
	t.Helper()
	bank, err := detect.NewBank(detect.BankTargets, model.LearnerParams{})
	if err != nil {
		t.Fatal(err)
	}
	d := detect.New(detect.SettingsOf(config.Default().Detect), bank.Models(nil))
	const ticks = 6000
	at := time.Now().Add(-ticks * traffic.Tick)
	for i := range ticks {
		at = at.Add(traffic.Tick)
		d.Tick(at, traffic.Tick, []traffic.Window{calmWindow(at, i)})
		if target, shadow := bank.Due(at); shadow != nil {
			c, err := shadow.Train(detect.NotWorse)
			if err != nil {
				t.Fatal(err)
			}
			bank.Take(target, c)
		}
	}
	if _, armed := bank.Learners(); armed != 1 {
		t.Fatal("the learner is not armed")
	}
	var baselines, learners bytes.Buffer
	if err := d.Baselines().Write(&baselines); err != nil {
		t.Fatal(err)
	}
	if err := bank.Snapshot().Write(&learners); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"baselines.bin": baselines.Bytes(), "learners.bin": learners.Bytes()} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// labelled returns how many windows of an incident are for training, by label.
func labelled(t *testing.T, dir, id string) map[detect.WindowLabel]int {
	t.Helper()
	file, err := os.Open(filepath.Join(dir, "labelled.windows"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	list, err := detect.ReadWindows(file)
	if err != nil {
		t.Fatal(err)
	}
	count := map[detect.WindowLabel]int{}
	for _, w := range list {
		if w.Group == id {
			count[w.Label]++
		}
	}
	return count
}

// What a daemon has learnt, its baselines and the windows of its incidents outlive
// restarts; a damaged file costs what was in it and nothing else.
func TestDaemonRemembersWhatItLearnt(t *testing.T) {
	s := newSite(t, lab.NetOptions{Clients: 1})
	state := filepath.Join(s.dir, "state")
	yesterday(t, state)
	args := s.runArgs("--config", s.write(t, "sentinel.yaml", detectConfig))
	d := s.start(t, args...)
	if st := s.status(t).Detection; st.Armed != 1 || !strings.Contains(d.log.String(), "learners are those of the last run") {
		t.Errorf("%d learners are armed\n%s", st.Armed, d.log)
	}
	var found api.Incident
	stop := s.synFlood(t)
	eventually(t, "the flood is an incident at the victim", func() bool {
		for _, i := range s.incidents(t, "--open") {
			if i.Target == lab.Victim6.String() {
				found = i
			}
		}
		return found.ID != ""
	})
	time.Sleep(500 * time.Millisecond) // of windows with the flood
	stop()
	if found.NoBaseline || found.Normal.Packets == 0 {
		t.Errorf("the baseline of before is lost: %+v", found)
	}
	s.ok(t, "incidents", "label", found.ID, "attack")
	if got := labelled(t, state, found.ID); got[detect.LabelAttack] == 0 || len(got) != 1 {
		t.Errorf("windows for training: %v", got)
	}
	d.stop(t)

	d = s.start(t, args...)
	if st := s.status(t).Detection; st.Armed != 1 {
		t.Errorf("after a restart %d learners are armed", st.Armed)
	}
	s.ok(t, "incidents", "label", found.ID, "benign")
	if got := labelled(t, state, found.ID); got[detect.LabelBenign] == 0 || len(got) != 1 {
		t.Errorf("windows for training with another label: %v", got)
	}
	d.stop(t)

	learners := filepath.Join(state, "learners.bin")
	if err := os.Truncate(learners, 1000); err != nil {
		t.Fatal(err)
	}
	d = s.start(t, args...)
	if text := d.log.String(); !strings.Contains(text, "learners.bin") || !strings.Contains(text, "checksum") {
		t.Errorf("nothing is said of the damaged file:\n%s", text)
	}
	if st := s.status(t).Detection; st.Armed != 0 || !st.Enabled {
		t.Errorf("with a damaged file: %+v", st)
	}
	eventually(t, "the daemon ticks", func() bool { return s.status(t).Detection.Ticks > 5 })
	d.stop(t)
}
