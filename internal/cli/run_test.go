// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/spf13/cobra"

	"github.com/sentinel-x/sentinel-x/internal/config"
)

// loadRun reads a command line of run as far as the configuration.
func loadRun(t *testing.T, args ...string) (cfg config.Config, err error) {
	t.Helper()
	var f runFlags
	c := &cobra.Command{Use: "run"}
	f.register(c)
	c.Flags().String("socket", "", "")
	if err := c.ParseFlags(args); err != nil {
		return cfg, err
	}
	socket, _ := c.Flags().GetString("socket")
	return f.load(c.Flags(), socket)
}

func TestRunFlagsOverrideTheFile(t *testing.T) {
	file := writeFile(t, "interfaces: [eth9]\nmode: native\nlimits:\n  per_source:\n    all: {packets: 7}\n    syn: {packets: 5}\npin: {enabled: false}\nstats_interval: 1m\n")
	fromFile, err := loadRun(t, "--config", file)
	if err != nil {
		t.Fatal(err)
	}
	if fromFile.Mode != config.ModeNative || fromFile.Limits.PerSource.All.Packets != 7 || fromFile.Pin.Enabled || fromFile.Interfaces[0] != "eth9" {
		t.Errorf("a flag that was not given changed the file's %+v", fromFile)
	}
	got, err := loadRun(t, "--config", file, "-i", "eth0,eth1", "--interface=eth2", "--mode", "generic", "--dry-run", "--replace",
		"--rate-limit", "10k", "--pin", "--pin-path", "/sys/fs/bpf/x", "--on-exit", "keep", "--state-dir", "/var/lib/x", "--socket", "/run/x.sock",
		"--stats-interval", "5s", "--log-file", "/var/log/x", "--log-level", "debug", "--log-format", "json", "--window", "2s", "--threshold", "0.5", "--model-dir", "/m")
	if err != nil {
		t.Fatal(err)
	}
	want := fromFile
	want.Interfaces = []string{"eth0", "eth1", "eth2"}
	want.Mode, want.DryRun, want.Replace, want.OnExit = config.ModeGeneric, true, true, config.ExitKeep
	want.Limits.PerSource.All.Packets = 10_000
	want.Pin = config.Pin{Enabled: true, Path: "/sys/fs/bpf/x"}
	want.StateDir, want.Socket, want.StatsInterval.Duration = "/var/lib/x", "/run/x.sock", 5*time.Second
	want.Log.File, want.Log.Level, want.Log.Format = "/var/log/x", "debug", "json"
	want.Detect.Window.Duration, want.Detect.Threshold, want.Detect.ModelDir = 2*time.Second, 0.5, "/m"
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable()); diff != "" {
		t.Error(diff)
	}
}

func TestRunTakesThePrototypesSpellings(t *testing.T) {
	got, err := loadRun(t, "--dev", "eth0", "--pin-maps", "--mode", "skb")
	if err != nil {
		t.Fatal(err)
	}
	if got.Interfaces[0] != "eth0" || !got.Pin.Enabled || got.Mode != config.ModeGeneric {
		t.Errorf("%+v", got)
	}
	if notices := strings.Join(got.Notices(), "\n"); !strings.Contains(notices, "generic") {
		t.Errorf("nobody is told what skb is called now: %q", notices)
	}
	help := runCLI(t, "", "run", "--help").stdout
	for _, old := range []string{"--dev", "--pin-maps", "skb"} {
		if strings.Contains(help, old) {
			t.Errorf("the help still shows %s", old)
		}
	}
}

func TestLogGoesWhereTheConfigurationSays(t *testing.T) {
	c := config.Default().Log
	c.File, c.Format, c.Level = filepath.Join(t.TempDir(), "logs", "x.log"), "json", "warn"
	var stderr strings.Builder
	log, level, closeLog, err := newLog(c, &stderr)
	if err != nil {
		t.Fatal(err)
	}
	log.Info("quiet")
	log.Warn("loud", "n", 1)
	level.Set(-4)
	log.Debug("now too")
	if err := closeLog(); err != nil {
		t.Error(err)
	}
	text, err := os.ReadFile(c.File)
	if err != nil {
		t.Fatal(err)
	}
	got := string(text)
	if !strings.Contains(got, `"msg":"loud","n":1`) || !strings.Contains(got, "now too") || strings.Contains(got, "quiet") || stderr.Len() > 0 {
		t.Errorf("file %q, standard error %q", got, stderr.String())
	}
	c.File = filepath.Join(c.File, "under-a-file")
	if _, _, _, err := newLog(c, &stderr); err == nil || !strings.Contains(err.Error(), "--log-file") {
		t.Errorf("an unwritable log file: %v", err)
	}
}

func TestReplaceFileIsWholeOrNotAtAll(t *testing.T) {
	name := writeFile(t, "before")
	o := runCLI(t, "", "replay", filepath.Join(t.TempDir(), "absent.pcap"), "--verdicts", name)
	if text, _ := os.ReadFile(name); o.exit != ExitFailed || string(text) != "before" {
		t.Errorf("%v; the file holds %q", o, text)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(name), ".*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
