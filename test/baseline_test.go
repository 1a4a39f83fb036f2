// SPDX-License-Identifier: Apache-2.0

package test

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sentinel-x/sentinel-x/internal/engine"
	"github.com/sentinel-x/sentinel-x/internal/lab"
)

// The windows of a running daemon's targets come into a file that train reads, as an attack where they are one; a target
// of which nothing is known yet has no calm ones.
func TestBaselineCaptureFromDaemon(t *testing.T) {
	s := newSite(t, lab.NetOptions{Clients: 1})
	d := s.start(t, s.runArgs("--config", s.write(t, "sentinel.yaml", detectConfig))...)
	out := filepath.Join(t.TempDir(), "all.windows")
	stop := s.synFlood(t)
	eventually(t, "the flood is an incident", func() bool { return len(s.incidents(t, "--open")) > 0 })
	fail := func(args ...string) string {
		_, text, status := s.cli(t, args...)
		if status == 0 {
			t.Errorf("sentinel-x %s does not fail", strings.Join(args, " "))
		}
		return text
	}
	var sum engine.CollectSummary
	text := s.ok(t, "baseline", "capture", "--all", "--duration", "3s", "-o", out, "--json")
	refused := fail("baseline", "capture", "--duration", "2s", "-o", out+".calm")
	stop()
	if err := json.Unmarshal([]byte(text), &sum); err != nil || sum.Labels["attack"] == 0 || sum.Labels["calm"] != 0 || sum.Targets == 0 {
		t.Errorf("%v\n%s", err, text)
	}
	if !strings.Contains(refused, "no calm windows") {
		t.Errorf("calm windows of a flood: %s", refused)
	}
	if text := fail("train", "--windows", out, "--scenes", "0"); !strings.Contains(text, "one class only") && !strings.Contains(text, "too few") {
		t.Errorf("training from a flood alone: %s", text)
	}
	d.stop(t)
}
