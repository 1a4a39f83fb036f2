// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sentinel-x/sentinel-x/internal/api"
	"github.com/sentinel-x/sentinel-x/internal/config"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

var noon = time.Date(2030, 1, 31, 12, 0, 0, 0, time.UTC)

// fakeEngine answers with an invented status, and keeps lists.
type fakeEngine struct {
	status api.Status
	lists  [traffic.NumLists][]traffic.Entry
	rules  []api.Signature
	found  []api.Incident
	bypass bool
	reload error

	windows   api.WindowSchema
	noWindows error
}

func newFakeEngine() *fakeEngine {
	f := &fakeEngine{status: someStatus(), rules: someSignatures(), found: someIncidents()}
	f.lists[traffic.ListBlock] = []traffic.Entry{
		{Prefix: netip.MustParsePrefix("198.51.100.7/32"), Origin: "operator", Comment: "scanner", Expires: noon.Add(90 * time.Second), Hits: 1234567, LastHit: noon.Add(-3 * time.Second)},
		{Prefix: netip.MustParsePrefix("203.0.113.0/24"), Origin: "config"},
		{Prefix: netip.MustParsePrefix("2001:db8:bad::/48"), Origin: "operator", Forced: true, Expires: noon.Add(50 * time.Hour)},
	}
	f.lists[traffic.ListProtected] = []traffic.Entry{{Prefix: netip.MustParsePrefix("192.0.2.1/32"), Origin: "system", Comment: "default gateway"}}
	return f
}

func someStatus() api.Status {
	count := func(packets, bytes uint64) traffic.Count { return traffic.Count{Packets: packets, Bytes: bytes} }
	var before, after traffic.Counters
	set := func(c *traffic.Counters, pass, block, limit uint64) {
		c.Seen = count(pass+block+limit, (pass+block+limit)*100)
		c.Reasons[traffic.ReasonPass][traffic.Passed] = count(pass, pass*100)
		c.Reasons[traffic.ReasonBlocklist][traffic.Dropped] = count(block, block*100)
		c.Reasons[traffic.ReasonLimit][traffic.WouldDrop] = count(limit, limit*100)
	}
	set(&before, 1_000_000, 8_000_000, 0)
	set(&after, 1_002_345, 9_234_567, 12)
	after.EventsSent, after.EventsLost = 5000, 17
	a, b := api.CountersOf(&before, noon.Add(-time.Second)), api.CountersOf(&after, noon)
	return api.Status{
		Version: "v1.2.3", Kernel: "6.12.0", PID: 4242, Started: noon.Add(-75 * time.Hour), Uptime: api.Duration{Duration: 75 * time.Hour},
		ConfigFile: "/etc/sentinel-x/sentinel-x.yaml",
		Health:     api.Health{State: api.HealthDegraded, Reasons: []string{"eth1: the MTU was raised to 9000 after the program was attached: larger frames are lost"}},
		Warnings:   []string{"lists.block[0]: 198.51.100.7/32 is on lists.allow too, and allow wins"},
		Pin:        api.Pin{Pinned: true, Path: "/sys/fs/bpf/sentinel-x"},
		Interfaces: []api.Interface{
			{Name: "eth0", Index: 2, Driver: "ice", Mode: "native", RequestedMode: "auto", LinkID: 12, ProgramID: 345, MTU: 1500, Frags: true, Up: true},
			{Name: "eth1", Index: 3, Driver: "r8169", Mode: "generic", RequestedMode: "auto", FallbackReason: "the driver has no native XDP", LinkID: 13, ProgramID: 345, MTU: 9000},
		},
		Lists:      api.ListSizes{Block: 3, Protected: 1, Capacity: 200_000},
		Signatures: api.SignatureCounts{Armed: 3, OverCeiling: 1, Capacity: 64},
		Detection:  api.Detection{Enabled: true, Rule: "tiered", Trees: "built in", Targets: 17, Capacity: 256, Learners: 8, Armed: 5, Open: 1, Incidents: 2, Ticks: 2_700_000, Late: 3, SamplesSent: 9_000_000, SamplesLost: 12},
		Limits: api.Limits{
			PerSource: api.ClassLimits{
				All: api.Limit{Packets: 10_000, Bytes: 12_500_000, Burst: api.Duration{Duration: time.Second}},
				SYN: api.Limit{Packets: 500, Burst: api.Duration{Duration: time.Second}},
			},
			PerTarget:     api.ClassLimits{ICMP: api.Limit{Packets: 1000, Burst: api.Duration{Duration: time.Second}}},
			AllowedFactor: 10,
		},
		Counters: b, Rates: api.RatesBetween(a, b),
		Latency: api.Latency{Samples: 1234, P50: api.Duration{Duration: 80}, P99: api.Duration{Duration: 1200}, Width: api.Duration{Duration: 40}, Buckets: []uint64{1000, 234}},
		Memory:  api.Memory{Maps: []api.MapMemory{{Name: "sources", Bytes: 5 << 20}}, MapsBytes: 5 << 20, RSSBytes: 31 << 20},
	}
}

func (f *fakeEngine) Status(context.Context) (api.Status, error)     { return f.status, nil }
func (f *fakeEngine) Counters(context.Context) (api.Counters, error) { return f.status.Counters, nil }

func (f *fakeEngine) Entries(_ context.Context, list traffic.List, containing netip.Addr) (out []traffic.Entry, err error) {
	for _, e := range f.lists[list] {
		if !containing.IsValid() || e.Prefix.Contains(containing) {
			out = append(out, e)
		}
	}
	return out, nil
}

func (f *fakeEngine) AddEntries(_ context.Context, list traffic.List, entries []api.NewEntry, o api.AddOptions) (r api.AddResult, err error) {
	if o.Replace {
		r.Removed = len(f.lists[list])
		f.lists[list] = nil
	}
	for _, e := range entries {
		if list == traffic.ListBlock && e.Prefix.Contains(netip.MustParseAddr("192.0.2.1")) && !o.Force {
			r.Refused = append(r.Refused, api.Refused{
				Prefix: e.Prefix.String(), Reason: e.Prefix.String() + " covers 192.0.2.1, the default gateway; use --force to block it all the same",
			})
			continue
		}
		entry := traffic.Entry{Prefix: e.Prefix, Comment: e.Comment, Origin: "operator", Forced: o.Force}
		if e.TTL > 0 {
			entry.Expires = noon.Add(e.TTL)
		}
		f.lists[list] = append(f.lists[list], entry)
		r.Added++
	}
	return r, nil
}

func (f *fakeEngine) DeleteEntries(_ context.Context, list traffic.List, prefixes []netip.Prefix) (r api.DeleteResult, err error) {
	for _, p := range prefixes {
		i := slices.IndexFunc(f.lists[list], func(e traffic.Entry) bool { return e.Prefix == p })
		if i < 0 {
			r.Missing = append(r.Missing, p)
			continue
		}
		f.lists[list] = slices.Delete(f.lists[list], i, i+1)
		r.Deleted++
	}
	return r, nil
}

func (f *fakeEngine) FlushEntries(_ context.Context, list traffic.List) (r api.DeleteResult, err error) {
	r.Deleted = len(f.lists[list])
	f.lists[list] = nil
	return r, nil
}

func (f *fakeEngine) Bypass(context.Context) (bool, error) { return f.bypass, nil }

func (f *fakeEngine) SetBypass(_ context.Context, on bool) error {
	f.bypass = on
	return nil
}

func (f *fakeEngine) Reload(context.Context) (api.ReloadResult, error) {
	return api.ReloadResult{Changed: []string{"limits.per_source.all.packets", "dry_run"}, Restart: []string{"mode"}}, f.reload
}

func (f *fakeEngine) Config(context.Context) (api.ConfigText, error) {
	cfg := config.Default()
	cfg.Interfaces = []string{"eth0"}
	return api.ConfigText{File: "/etc/sentinel-x/sentinel-x.yaml", YAML: string(cfg.Marshal())}, nil
}

// serve puts a fake engine on a socket of its own.
func serve(t *testing.T, f *fakeEngine) (*api.Server, string) {
	t.Helper()
	s := api.NewServer(f, nil)
	socket := filepath.Join(t.TempDir(), "api.sock")
	l, err := api.Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Errorf("shut down: %v", err)
		}
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return s, socket
}

// outcome is what a command line left behind.
type outcome struct {
	stdout, stderr string
	exit           int
}

// String writes all of it as one text, for golden files.
func (o outcome) String() string {
	var b strings.Builder
	b.WriteString(o.stdout)
	if o.stderr != "" {
		b.WriteString("--- stderr\n" + o.stderr)
	}
	fmt.Fprintf(&b, "--- exit %d\n", o.exit)
	return b.String()
}

func runCLI(t *testing.T, stdin string, args ...string) outcome {
	t.Helper()
	var out, errOut bytes.Buffer
	a := &app{in: strings.NewReader(stdin), out: &out, err: &errOut, now: func() time.Time { return noon }}
	exit := a.execute(t.Context(), args)
	return outcome{out.String(), errOut.String(), exit}
}

func writeFile(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}
