// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sentinel-x/sentinel-x/internal/api"
	"github.com/sentinel-x/sentinel-x/internal/config"
	"github.com/sentinel-x/sentinel-x/internal/dataplane"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

func TestClosingSummary(t *testing.T) {
	c := traffic.Counters{Seen: traffic.Count{Packets: 1000, Bytes: 64000}, Latency: traffic.Histogram{Width: 16, Buckets: []uint64{0, 9, 1}}}
	c.Reasons[traffic.ReasonPass][traffic.Passed] = traffic.Count{Packets: 250, Bytes: 16000}
	c.Reasons[traffic.ReasonBlocklist][traffic.Dropped] = traffic.Count{Packets: 750, Bytes: 48000}
	var b bytes.Buffer
	if err := writeSummary(&b, &c, 90*time.Second); err != nil {
		t.Fatal(err)
	}
	want := `Sentinel-X ran for 1m30s
             seen  1000 packets  64000 bytes  100.00 %
           passed   250 packets  16000 bytes   25.00 %
          dropped   750 packets  48000 bytes   75.00 %
       would_drop     0 packets      0 bytes    0.00 %
             pass   250 packets  16000 bytes   25.00 %
        blocklist   750 packets  48000 bytes   75.00 %
  verdict latency    p50 ≤ 32ns   p99 ≤ 48ns          
`
	if d := cmp.Diff(want, b.String()); d != "" {
		t.Error(d)
	}
}

func TestOptionsFollowTheConfiguration(t *testing.T) {
	cfg, err := config.Parse("test.yaml", []byte(`
dry_run: true
parse: {later_fragments: drop, tiny_fragments: pass, tunnels: [gre, 6in4]}
limits:
  sources: 4096
  allowed_factor: 3
  per_source: {syn: {packets: 10, bytes: 20, burst: 30ms}}
  per_prefix: {all: {packets: 40}}
  per_target: {udp: {bytes: 50}}
lists: {max_entries: 7}
events: {per_second: 5, ring_bytes: 8192}
`))
	if err != nil {
		t.Fatal(err)
	}
	want := dataplane.Options{
		Tunnels: dataplane.TunnelGRE | dataplane.Tunnel6in4, Sources: 4096, MaxEntries: 14 + protectedRoom,
		RingBytes: 8192, EventsPerSecond: 5, Observe: true, MaxTargets: 256,
	}
	want.Limits.AllowedFactor = 3
	for c := range want.Limits.Class {
		want.Limits.Class[c].Burst = time.Second
		want.Limits.Prefix[c].Burst = time.Second
		want.Limits.Target[c].Burst = time.Second
	}
	want.Limits.Prefix[traffic.ClassAll].Packets = 40
	want.Limits.Target[traffic.ClassUDP].Bytes = 50
	want.Limits.Class[traffic.ClassSYN] = traffic.Limit{Packets: 10, Bytes: 20, Burst: 30 * time.Millisecond}
	want.Policies.LaterFragments, want.Policies.ExtensionHeaders, want.Policies.VLANDepth = traffic.PolicyDrop, traffic.PolicyDrop, traffic.PolicyDrop
	if d := cmp.Diff(want, PlaneOptions(cfg), cmpopts.IgnoreUnexported(dataplane.Options{})); d != "" {
		t.Error(d)
	}
}

func TestDoctor(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := config.Default()
	cfg.StateDir = filepath.Join(dir, "not", "yet", "there")
	cfg.Pin.Path = filepath.Join(dir, "pins")
	status := func(r DoctorReport, name string) string {
		for _, c := range r.Checks {
			if c.Name == name {
				return c.Status
			}
		}
		return "absent"
	}
	r, err := Doctor(context.Background(), nil, cfg)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"kernel": CheckOK, "program": CheckOK, "pins": CheckWarn, "state directory": CheckOK, "interfaces": CheckWarn,
	} {
		if got := status(r, name); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
	if !r.OK {
		t.Errorf("report %+v", r)
	}
	cfg.StateDir = file
	if r, err = Doctor(context.Background(), []string{"nosuch0"}, cfg); err != nil {
		t.Fatal(err)
	}
	if r.OK || status(r, "state directory") != CheckFail || status(r, "interface nosuch0") != CheckFail {
		t.Errorf("report %+v", r)
	}
}

func TestComplaints(t *testing.T) {
	attached := dataplane.Attachment{MTU: 1500, Mode: dataplane.ModeNative}
	for name, c := range map[string]struct {
		iface iface
		want  []string
	}{
		"fine":           {iface{name: "eth9", attachment: attached, mtu: 1500}, nil},
		"down":           {iface{name: "eth9", attachment: attached, down: true}, []string{"is down"}},
		"larger MTU":     {iface{name: "eth9", attachment: attached, mtu: 9000}, []string{"from 1500 to 9000"}},
		"smaller MTU":    {iface{name: "eth9", attachment: attached, mtu: 1280}, nil},
		"gone":           {iface{name: "eth9", attachment: attached, gone: true, down: true}, []string{"is gone"}},
		"fell back":      {iface{name: "eth9", attachment: dataplane.Attachment{Mode: dataplane.ModeGeneric, Fallback: "no driver"}}, []string{"no driver"}},
		"down and grown": {iface{name: "eth9", attachment: attached, mtu: 9000, down: true}, []string{"is down", "from 1500 to 9000"}},
	} {
		got := c.iface.complaints()
		if len(got) != len(c.want) {
			t.Errorf("%s: %q", name, got)
			continue
		}
		for i, want := range c.want {
			if !strings.Contains(got[i], want) {
				t.Errorf("%s: %q lacks %q", name, got[i], want)
			}
		}
	}
}

// Health complains of the meter while more than 1 % of the packets push out of it what is still in use.
func TestCrowdedMeter(t *testing.T) {
	before := api.Counters{Seen: traffic.Count{Packets: 1000}, MetersEvicted: 900}
	for _, c := range []struct {
		seen, evicted uint64
		complains     bool
	}{
		{0, 0, false},
		{10_000, 100, false},
		{10_000, 101, true},
	} {
		after := api.Counters{Seen: traffic.Count{Packets: 1000 + c.seen}, MetersEvicted: 900 + c.evicted}
		got := strings.Join(complainOfCrowd(crowd(before, after)), " ")
		if strings.Contains(got, "raise limits.sources") != c.complains {
			t.Errorf("%d evictions in %d packets: %q", c.evicted, c.seen, got)
		}
	}
}
