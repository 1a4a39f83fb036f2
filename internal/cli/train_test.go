// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sentinel-x/sentinel-x/internal/api"
	"github.com/sentinel-x/sentinel-x/internal/config"
	"github.com/sentinel-x/sentinel-x/internal/engine"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
	"github.com/sentinel-x/sentinel-x/internal/train"
)

// knownSchema is what a daemon of this version says of its windows.
func knownSchema(t *testing.T) api.WindowSchema {
	t.Helper()
	s, err := engine.ShowModels(config.Detect{})
	if err != nil {
		t.Fatal(err)
	}
	return api.WindowSchema{Hash: s.Live.SchemaHash, Features: s.Live.Features}
}

// publishWindows sends calm windows of a host, one a second of its time, until some of them are in a file of dir.
func publishWindows(t *testing.T, s *api.Server, features int, dir string) {
	vector := make([]byte, 0, 4*features)
	for range features {
		vector = binary.LittleEndian.AppendUint32(vector, math.Float32bits(float32(math.NaN())))
	}
	host := traffic.HostTarget(netip.MustParseAddr("192.0.2.10"))
	for i := 0; t.Context().Err() == nil && !hasFile(dir, 64<<10); i++ {
		s.PublishWindow(host, api.Window{
			Time: noon.Add(time.Duration(i) * time.Second), Target: host.String(), Label: api.LabelCalm, Baseline: true,
		}, func() []byte { return vector })
		time.Sleep(time.Millisecond)
	}
}

// hasFile reports whether there is a file of more than that many bytes.
func hasFile(dir string, size int64) bool {
	entries, _ := os.ReadDir(dir)
	return slices.ContainsFunc(entries, func(e os.DirEntry) bool {
		info, err := e.Info()
		return err == nil && info.Size() > size
	})
}

// TestBaselineCapture writes what a daemon streams, and keeps it when it is ended early.
func TestBaselineCapture(t *testing.T) {
	f := newFakeEngine()
	f.windows = knownSchema(t)
	for name, end := range map[string]string{"Ctrl-C": "", "the daemon stops": "it has stopped"} {
		s, socket := serve(t, f)
		out := filepath.Join(t.TempDir(), "calm.windows")
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			publishWindows(t, s, len(f.windows.Features), filepath.Dir(out))
			if end == "" {
				cancel()
				return
			}
			stopped, done := context.WithTimeout(context.Background(), 5*time.Second)
			defer done()
			_ = s.Shutdown(stopped)
		}()
		var stdout, stderr strings.Builder
		exit := Run(ctx, []string{"baseline", "capture", "-o", out, "--socket", socket, "--json"}, strings.NewReader(""), &stdout, &stderr)
		cancel()
		var sum engine.CollectSummary
		if err := json.Unmarshal([]byte(stdout.String()), &sum); err != nil || sum.Windows < 50 || sum.Targets != 1 {
			t.Fatalf("%s: %v, %+v\n%s", name, err, sum, stderr.String())
		}
		if (exit == ExitOK) != (end == "") || !strings.Contains(stderr.String(), end) {
			t.Errorf("%s: exit %d, %s", name, exit, stderr.String())
		}
		if rows, err := train.ReadWindows(out); err != nil || len(rows) != sum.Windows {
			t.Errorf("%s: %d windows in the file, %d announced: %v", name, len(rows), sum.Windows, err)
		}
	}
}

// TestBaselineCaptureRefused: what a daemon without detection, none at all, and a silent one say; no file is left.
func TestBaselineCaptureRefused(t *testing.T) {
	off, silent, old := newFakeEngine(), newFakeEngine(), newFakeEngine()
	off.noWindows = api.Conflict("detection is off, so there are no windows: set detect.enabled")
	silent.windows = knownSchema(t)
	old.windows = api.WindowSchema{Hash: "1", Features: []string{"pkt_rate"}}
	socket := func(f *fakeEngine) string { _, s := serve(t, f); return s }
	dir := t.TempDir()
	out := filepath.Join(dir, "calm.windows")
	for want, args := range map[string][]string{
		"detection is off":          {"--socket", socket(off)},
		"no target had any packets": {"--socket", socket(silent), "--duration", "1s"},
		"another version":           {"--socket", socket(old)},
		"sentinel-x run":            {"--socket", filepath.Join(dir, "none.sock")},
		"--duration 1ms is under":   {"--duration", "1ms"},
		"--target is one host":      {"--target", "192.0.2.1,192.0.2.2"},
		"--config is of no use":     {"--config", "x.yaml"},
		"absent.pcap":               {"--pcap", filepath.Join(dir, "absent.pcap")},
		"name one with -o":          {"-o", ""},
	} {
		o := runCLI(t, "", append([]string{"baseline", "capture", "-o", out}, args...)...)
		if o.exit == ExitOK || !strings.Contains(o.stderr, want) {
			t.Errorf("%q: %s, want %q", args, o, want)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
			t.Errorf("%q leaves files: %v, %v", args, left, err)
		}
	}
}

// TestTrainRefuses: nothing to learn from, or what cannot be read, is said, and nothing is written.
func TestTrainRefuses(t *testing.T) {
	dir := t.TempDir()
	models, out := filepath.Join(dir, "models"), filepath.Join(dir, "trees.json")
	bad := filepath.Join(dir, "bad.windows")
	if err := os.WriteFile(bad, []byte("sentinel-x windows 9\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for want, args := range map[string][]string{
		"give --windows, --pcap or --labels": {},
		"another version":                    {"--windows", bad},
		"labelled.windows: no such file":     {"--labels"},
		"a.pcap=storm: no such file":         {"--pcap", "a.pcap=storm"},
		"a.pcap: no such file":               {"--pcap", "a.pcap=udp_flood"},
		"open model":                         {"--windows", bad, "--base", filepath.Join(dir, "none.json")},
		"are not negative":                   {"--windows", bad, "--scenes", "-1"},
		"--target":                           {"--pcap", "a.pcap", "--target", "nobody"},
	} {
		o := runCLI(t, "", append([]string{"train", "-o", out, "--model-dir", models}, args...)...)
		if o.exit == ExitOK || !strings.Contains(o.stderr, want) {
			t.Errorf("%q: %s, want %q", args, o, want)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
			t.Errorf("%q leaves files: %v, %v", args, left, err)
		}
	}
}

// TestTrainDelivers: a candidate that passed becomes a generation; one that did not is only written to -o, and fails.
func TestTrainDelivers(t *testing.T) {
	trees, name, err := engine.LiveModel("")
	if err != nil {
		t.Fatal(err)
	}
	for _, passed := range []bool{true, false} {
		dir := t.TempDir()
		models, out := filepath.Join(dir, "models"), filepath.Join(dir, "trees.json")
		r := trainReport{From: []string{"calm.windows"}, Base: name, Live: name, Passed: passed, Outcome: &train.Outcome{Trees: trees, Objections: []string{}}}
		if !passed {
			r.Objections = []string{"false alarms in the built-in suite: 2, before 1"}
		}
		var text strings.Builder
		a := &app{out: &text, err: &text}
		err := a.deliver(&trainFlags{out: out}, models, &r)
		if (err == nil) != passed || !strings.Contains(text.String(), "written to "+out) {
			t.Errorf("passed %v: %v\n%s", passed, err, text.String())
		}
		if _, err := engine.ReadModel(out); err != nil {
			t.Error(err)
		}
		_, live, err := engine.LiveModel(models)
		if imported := live != name; err != nil || imported != passed {
			t.Errorf("passed %v: live is %s, %v", passed, live, err)
		}
		if !passed && !strings.Contains(text.String(), "did not pass: it is worse than the live trees in\n  false alarms in the built-in suite: 2, before 1") {
			t.Errorf("%s", text.String())
		}
	}
}

// TestCaptureLabels: only a word that is a label is one.
func TestCaptureLabels(t *testing.T) {
	for text, want := range map[string][2]string{
		"a.pcap":           {"a.pcap", ""},
		"a.pcap=attack":    {"a.pcap", "attack"},
		"a.pcap=benign":    {"a.pcap", "benign"},
		"a=b.pcap=carpet":  {"a=b.pcap", "carpet"},
		"day=monday.pcap":  {"day=monday.pcap", ""},
		"a.pcap=syn_flood": {"a.pcap", "syn_flood"},
	} {
		if file, label := captureLabel(text); file != want[0] || label != want[1] {
			t.Errorf("%s is %s and %q", text, file, label)
		}
	}
}
