// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sentinel-x/sentinel-x/internal/api"
	"github.com/sentinel-x/sentinel-x/internal/lab"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// asProgram makes the test binary the program itself: the demo starts it as the daemon.
const asProgram = "SENTINEL_X_CLI_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		os.Exit(Main())
	}
	os.Exit(m.Run())
}

// namespaces returns those that this process has made and not removed.
func namespaces(t *testing.T) []string {
	t.Helper()
	all, err := filepath.Glob("/run/netns/sx-*")
	if err != nil {
		t.Fatal(err)
	}
	own := fmt.Sprintf("/run/netns/sx-%d-", os.Getpid())
	return slices.DeleteFunc(all, func(name string) bool { return !strings.HasPrefix(name, own) })
}

func TestDemo(t *testing.T) {
	t.Setenv(asProgram, "1")
	o := runCLI(t, "", "demo", "--length", "7s", "--flood-rate", "40000", "--json")
	if o.exit != ExitOK {
		t.Fatalf("%v", o)
	}
	var report lab.DemoReport
	if err := json.Unmarshal([]byte(o.stdout), &report); err != nil {
		t.Fatal(err)
	}
	if len(report.Phases) != 6 || report.Drops["limit"].Packets == 0 || report.Drops["blocklist"].Packets == 0 {
		t.Errorf("report = %+v", report)
	}
	if !strings.Contains(o.stderr, "packets/s: seen") || strings.ContainsRune(o.stderr, '\x1b') {
		t.Errorf("the view's plain lines are %q", o.stderr)
	}
	if left := namespaces(t); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// watched cancels as soon as something is written that contains a word.
type watched struct {
	mu     sync.Mutex
	buf    bytes.Buffer
	word   string
	cancel func()
}

func (w *watched) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.buf.Write(p)
	if strings.Contains(w.buf.String(), w.word) {
		w.cancel()
	}
	return len(p), nil
}

func TestDemoEndsEarly(t *testing.T) {
	t.Setenv(asProgram, "1")
	ctx, cancel := context.WithCancel(t.Context())
	out := &watched{word: "packets/s: seen", cancel: cancel}
	var errOut bytes.Buffer
	start := time.Now()
	if exit := Run(ctx, []string{"demo", "--length", "10m"}, nil, out, &errOut); exit != ExitOK {
		t.Errorf("exit %d", exit)
	}
	if !strings.Contains(errOut.String(), "ended early") || time.Since(start) > time.Minute {
		t.Errorf("after %v: %s", time.Since(start), &errOut)
	}
	if left := namespaces(t); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestDemoReportText(t *testing.T) {
	count := func(n uint64) traffic.Count { return traffic.Count{Packets: n, Bytes: n * 60} }
	ms := func(n float64) api.Duration {
		return api.Duration{Duration: time.Duration(n * float64(time.Millisecond))}
	}
	r := lab.DemoReport{
		Elapsed: api.Duration{Duration: 56 * time.Second}, Seen: count(2_628_594), Passed: count(423_162), Dropped: count(2_205_432),
		Drops: map[string]traffic.Count{"limit": count(1_082_777), "blocklist": count(1_122_655)}, Block: "203.0.113.0/24", Limit: 1170,
		Latency: api.Latency{Samples: 2557, P50: api.Duration{Duration: 304}, P99: api.Duration{Duration: 1152}},
		Phases: []lab.DemoPhase{
			{Name: "calm", Title: "Calm: clients load pages", Passed: count(4507), Clients: lab.Interval{Requests: 400, Succeeded: 400, P50: ms(0.834), P99: ms(4.881)}},
			{
				Name: "limit", Title: "UDP flood from 4 sources", Sent: 1_122_817, Passed: count(47_354), Dropped: count(1_082_777),
				Drops: map[string]traffic.Count{"limit": count(1_082_777)}, Clients: lab.Interval{Requests: 1000, Succeeded: 997, P50: ms(0.845), P99: ms(1110.163)},
			},
		},
	}
	var text strings.Builder
	writeDemo(&text, r)
	golden(t, "testdata/demo.txt", text.String())
}

func TestDemoViewShortensTheDaemonsLines(t *testing.T) {
	got := snapshot(lab.DemoState{Log: []string{
		`time=2030-01-31T12:00:00.000Z level=INFO msg=filtering interface=veth0`, `time=2030-01-31T12:00:00.000Z level=WARN msg=x`, "operator: block",
	}}).Log
	want := []string{"engine: filtering interface=veth0", `time=2030-01-31T12:00:00.000Z level=WARN msg=x`, "operator: block"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestOnlyAnInterruptIsNoError(t *testing.T) {
	broken := errors.New("remove namespace: busy")
	for _, c := range []struct {
		err  error
		want bool
	}{
		{nil, false},
		{context.Canceled, true},
		{broken, false},
		{fmt.Errorf("phase: %w", context.Canceled), true},
		{errors.Join(context.Canceled, fmt.Errorf("stop: %w", context.Canceled)), true},
		{errors.Join(context.Canceled, broken), false},
		{fmt.Errorf("demo: %w", errors.Join(broken, context.Canceled)), false},
	} {
		if got := onlyCanceled(c.err); got != c.want {
			t.Errorf("%v: %v, want %v", c.err, got, c.want)
		}
	}
}
