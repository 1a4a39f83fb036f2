// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sentinel-x/sentinel-x/internal/engine"
	"github.com/sentinel-x/sentinel-x/internal/lab"
)

// readJSON runs a command with --json and reads what it printed, strictly.
func readJSON(t *testing.T, into any, args ...string) {
	t.Helper()
	out := runCLI(t, "", append(args, "--json")...)
	if out.exit != 0 {
		t.Fatalf("%v: exit status %d, %s", args, out.exit, out.stderr)
	}
	if err := json.Unmarshal([]byte(out.stdout), into); err != nil {
		t.Fatalf("%v: %v", args, err)
	}
}

func checkHost(t *testing.T, h engine.BenchHost) {
	t.Helper()
	if h.Kernel == "" || h.CPU == "" || h.CPUs == 0 || h.Date.IsZero() {
		t.Errorf("host %+v", h)
	}
}

func TestBenchVerdict(t *testing.T) {
	var r engine.VerdictReport
	// The first of 2 047 packets may be left to the distance of the sample before.
	readJSON(t, &r, "bench", "verdict", "--rounds", "1", "--packets", "4000", "--prefixes", "2000")
	checkHost(t, r.BenchHost)
	var names []string
	for _, c := range r.Cases {
		names = append(names, c.Name)
		if c.NS <= 0 || c.P99NS <= 0 {
			t.Errorf("case %+v", c)
		}
	}
	want := []string{
		"pass_clean", "pass_metered", "pass_new_sources", "pass_new_sources_wide", "drop_meter", "pass_ipv6_ext",
		"pass_blocklist_1m", "drop_blocklist_1k", "drop_blocklist_1m", "pass_blocklist_1m_v6", "drop_blocklist_1m_v6",
		"pass_signature_64", "drop_signature_64", "pass_counted", "pass_counted_flood", "pass_all",
	}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Errorf("cases (-want +got):\n%s", diff)
	}
	if r.BaselineNS <= 0 || r.Verifier.Instructions == 0 || len(r.Verifier.Stack) == 0 {
		t.Errorf("baseline %v, verifier %+v", r.BaselineNS, r.Verifier)
	}
}

func TestBenchScale(t *testing.T) {
	var r engine.ScaleReport
	readJSON(t, &r, "bench", "scale", "--rounds", "1", "--packets", "2000",
		"--prefixes", "10,2000", "--signatures", "1,64", "--sources", "1,5000")
	checkHost(t, r.BenchHost)
	var got []string
	for _, s := range r.Series {
		got = append(got, s.Axis+" "+s.Engine+" "+s.Case)
		if len(s.Points) != 2 || s.Points[0].NS <= 0 || s.Points[1].NS <= 0 || s.Points[0].N >= s.Points[1].N {
			t.Errorf("series %+v", s)
		}
	}
	slices.Sort(got)
	want := []string{
		"prefixes sentinel_x listed", "prefixes sentinel_x not_listed", "prefixes tutorial listed", "prefixes tutorial not_listed",
		"signatures sentinel_x match", "signatures sentinel_x no_match",
		"sources sentinel_x metered", "sources tutorial metered",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("series (-want +got):\n%s", diff)
	}
}

func TestBenchMemory(t *testing.T) {
	var r engine.MemoryReport
	readJSON(t, &r, "bench", "memory")
	checkHost(t, r.BenchHost)
	if len(r.Setups) != 2 {
		t.Fatalf("%d setups", len(r.Setups))
	}
	for _, s := range r.Setups {
		var sum uint64
		for _, m := range s.Maps {
			sum += m.Bytes
		}
		if sum == 0 || sum != s.Bytes {
			t.Errorf("%s: maps take %d bytes, the sum says %d", s.Name, sum, s.Bytes)
		}
	}
}

func TestBenchPeers(t *testing.T) {
	before := remains(t)
	var r lab.PeerReport
	readJSON(t, &r, "bench", "peers", "--rounds", "1", "--duration", "100ms", "--prefixes", "100")
	checkHost(t, r.BenchHost)
	var names []string
	for _, c := range r.Cases {
		names = append(names, c.Name)
		if c.MPPS <= 0 || c.OfBare <= 0 || c.ThreadMPPS <= 0 || c.ThreadBare <= 0 || c.OfferedMPPS <= 0 || c.Requests == 0 {
			t.Errorf("case %+v", c)
		}
	}
	for _, m := range r.Missing {
		names = append(names, m.Name)
		if m.Why == "" {
			t.Errorf("%s is missing without a reason", m.Name)
		}
	}
	want := []string{
		"iptables_input", "iptables_raw", "nft_ingress", "nft_raw", "none",
		"sentinel_x_list", "sentinel_x_meter", "sentinel_x_signature", "tc_bpf", "xdp_drop_bare", "xdp_filter", "xdp_firewall",
	}
	slices.Sort(names)
	if diff := cmp.Diff(want, names); diff != "" {
		t.Errorf("filters, present and missing (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(before, remains(t)); diff != "" {
		t.Errorf("left behind (-before +after):\n%s", diff)
	}
}

// remains lists what a run could leave on the machine: its namespaces, interfaces and pins.
func remains(t *testing.T) (found []string) {
	t.Helper()
	for _, pattern := range []string{
		fmt.Sprintf("/run/netns/sx-%d-*", os.Getpid()), fmt.Sprintf("/sys/class/net/sx*%d*", os.Getpid()), "/sys/fs/bpf/*",
	} {
		match, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, match...)
	}
	return found
}

func TestBenchAllFillsThePage(t *testing.T) {
	dir := t.TempDir()
	names := []string{"verdict", "scale", "peers", "peers-many", "memory"}
	text, err := os.ReadFile("../../docs/performance.md")
	if err != nil {
		t.Fatal(err)
	}
	page := filepath.Join(dir, "performance.md")
	if err := os.WriteFile(page, text, 0o600); err != nil {
		t.Fatal(err)
	}
	var r benchReports
	readJSON(t, &r, "bench", "all", "--quick", "--docs", dir)
	if len(r.Verdict.Cases) == 0 || len(r.Scale.Series) == 0 || len(r.Peers) != 2 || len(r.Memory.Setups) == 0 {
		t.Errorf("reports %+v", r)
	}
	filled, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range []string{"| pass_all |", "| tutorial | metered |", "| sentinel_x_meter |", "| samples |"} {
		if !strings.Contains(string(filled), word) {
			t.Errorf("no %q in the page", word)
		}
	}
	for _, name := range names {
		svg, err := os.ReadFile(filepath.Join(dir, "bench-"+name+".svg"))
		if err != nil {
			t.Fatal(err)
		}
		checkSVG(t, svg, "")
	}
	if err := writeBenchDocs(dir, r); err != nil {
		t.Fatal(err)
	}
	if again, err := os.ReadFile(page); err != nil || string(again) != string(filled) {
		t.Errorf("filled twice, the page is another: %v", err)
	}
}

func TestFillMarkNeedsBothMarks(t *testing.T) {
	for _, page := range []string{"", "<!-- bench x -->\n", "<!-- end x -->", "<!-- bench y -->\n<!-- end y -->"} {
		if _, err := fillMark([]byte(page), "x", []byte("new")); err == nil {
			t.Errorf("%q was filled", page)
		}
	}
}

func TestBenchRefuses(t *testing.T) {
	for _, args := range [][]string{
		{"verdict", "--rounds", "0"},
		{"verdict", "--packets", "0"},
		{"verdict", "--prefixes", "-1"},
		{"verdict", "more"},
		{"scale", "--rounds", "0"},
		{"scale", "--prefixes", "0"},
		{"scale", "--signatures", "65"},
		{"scale", "--sources", "1,x"},
		{"memory", "more"},
		{"peers", "--rounds", "0"},
		{"peers", "--duration", "0s"},
		{"peers", "--prefixes", "0"},
		{"peers", "--prefixes", "65537"},
		{"peers", "--sources", "0"},
		{"peers", "--sources", "65537"},
		{"detection", "--seeds", "0"},
		{"detection", "--detectors", "x"},
		{"detection", "--parts", "x"},
		{"detection", "--hours", "0"},
		{"all", "more"},
		{"nonsense"},
	} {
		if out := runCLI(t, "", append([]string{"bench"}, args...)...); out.exit != 2 || out.stderr == "" {
			t.Errorf("bench %v: exit status %d, want 2; %s", args, out.exit, out.stderr)
		}
	}
}

func TestBenchDetection(t *testing.T) {
	var r detectionReport
	page := filepath.Join(t.TempDir(), "detection.md")
	text := "before\n"
	marks := []string{"detection", "detection-parts", "detection-day", "detection-leave-one-out", "detection-poison"}
	for _, mark := range marks {
		text += "<!-- bench " + mark + " -->\nold " + mark + "\n<!-- end " + mark + " -->\n"
	}
	if err := os.WriteFile(page, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	readJSON(t, &r, "bench", "detection", "--parts", "day,scenes", "--families", "syn_spoofed,monitoring", "--ratios", "10",
		"--detectors", "tiered,rate", "--hours", "1", "--profiles", "dns", "--lead", "80s", "--data", t.TempDir(), "--docs", filepath.Dir(page))
	checkHost(t, r.BenchHost)
	if len(r.Scenes) != 2 || len(r.Days) != 1 || r.Days[0].Packets == 0 || len(r.Days[0].Alarms) != 0 || r.LeftOut != nil {
		t.Fatalf("report %+v", r)
	}
	if e := r.Scenes[0]; len(e.Cells) != 4 || len(e.Notes) != 1 || e.Totals[0].Detected != 1 || e.Totals[1].False != 0 {
		t.Errorf("scenes %+v", e)
	}
	got, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	for want, is := range map[string]bool{
		"| syn_spoofed |": true, "| rate |": true, "| dns | ": true, "old detection\n": false, "old detection-day": false, "old detection-poison": true,
	} {
		if strings.Contains(string(got), want) != is {
			t.Errorf("the page holds %q: %v, want %v\n%s", want, !is, is, got)
		}
	}
	out := runCLI(t, "", "bench", "detection", "--families", "syn_spoofed", "--ratios", "10", "--data", "", "--lead", "80s")
	if out.exit != 0 || !strings.Contains(out.stdout, "attacks, 3× and more") {
		t.Errorf("exit status %d: %s%s", out.exit, out.stdout, out.stderr)
	}
}

// A tick of few targets is measured, and no model allocates. The budgets are for whoever runs it on a quiet machine.
func TestBenchTick(t *testing.T) {
	var r engine.TickReport
	readJSON(t, &r, "bench", "tick", "--targets", "8", "--ticks", "5")
	if r.Targets != 8 || r.Ticks != 5 || len(r.Cases) != 2 || len(r.Inference) != 3 || r.LimitMS != 10 {
		t.Fatalf("%+v", r)
	}
	for _, c := range r.Inference {
		if !(c.NS > 0) || c.Allocations > 0 {
			t.Errorf("%+v", c)
		}
	}
	if c := r.Cases[1]; !(c.MedianMS > 0) || c.MaxMS < c.MedianMS || c.ReadMS > c.MaxMS {
		t.Errorf("%+v", c)
	}
	if out := runCLI(t, "", "bench", "tick", "--targets", "5000"); out.exit != 2 || !strings.Contains(out.stderr, "4096") {
		t.Errorf("exit status %d: %s", out.exit, out.stderr)
	}
}
