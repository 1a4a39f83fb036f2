// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

var update = flag.Bool("update", false, "write docs/cli.md and the golden files anew")

// golden compares got with a file.
func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got), run with -update to accept:\n%s", file, diff)
	}
}

func TestOutput(t *testing.T) {
	list := writeFile(t, "198.51.100.99 ttl=1h # one\n203.0.113.0/24\n")
	bad := writeFile(t, "198.51.100.99\n198.51.100.1/24\n192.0.2.0/24\n")
	goodConfig := writeFile(t, "interfaces: [eth0]\nmode: skb\n")
	badConfig := writeFile(t, "interfaces: [eth0]\nlimts:\n  sources: 5\nmode: fast\n")
	rules := writeFile(t, "# a comment\n--target 192.0.2.10 --action drop 'udp and src port 53'\n--target 192.0.2.10 --action limit --rate 5 icmp\n")
	badRules := writeFile(t, "--target 192.0.2.10 --action drop icmp\n--target 192.0.2.10 --action drop 'udp and src prot 53'\n")
	wideRules := writeFile(t, "--target 192.0.2.10 --action drop icmp\n\n--action drop udp\n")
	for name, args := range map[string][]string{
		"status":               {"status"},
		"status-json":          {"status", "--json"},
		"block-list":           {"block", "list"},
		"block-list-json":      {"block", "list", "--json"},
		"block-list-address":   {"block", "list", "203.0.113.77"},
		"allow-list-empty":     {"allow", "list"},
		"allow-list-json":      {"allow", "list", "--json"},
		"protected-list":       {"protected", "list"},
		"block-add":            {"block", "add", "198.51.100.8", "2001:db8::/32", "--ttl", "1h", "--comment", "why"},
		"block-add-json":       {"block", "add", "198.51.100.8", "--json"},
		"block-add-refused":    {"block", "add", "198.51.100.8", "192.0.2.0/24"},
		"block-add-forced":     {"block", "add", "192.0.2.0/24", "--force"},
		"block-add-skip":       {"block", "add", "--skip-bad", "198.51.100.8", "192.0.2.0/24", "x"},
		"block-add-bad":        {"block", "add", "198.51.100.1/24"},
		"block-add-mapped":     {"block", "add", "::ffff:198.51.100.1"},
		"block-add-ttl-over":   {"block", "add", "198.51.100.8", "--ttl", "0s"},
		"block-del":            {"block", "del", "198.51.100.7"},
		"block-del-missing":    {"block", "del", "198.51.100.7", "203.0.113.9", "198.51.100.200"},
		"block-import":         {"block", "import", list},
		"block-import-replace": {"block", "import", "--replace", list, "--json"},
		"block-import-bad":     {"block", "import", bad},
		"block-import-skip":    {"block", "import", "--skip-bad", bad},
		"block-import-absent":  {"block", "import", "/nonexistent/file"},
		"block-export":         {"block", "export"},
		"block-flush":          {"block", "flush"},
		"sig-list":             {"signature", "list"},
		"sig-list-json":        {"signature", "list", "--json"},
		"sig-add":              {"signature", "add", "udp and src port 53 and len > 512", "--target", "192.0.2.10", "--action", "drop", "--ttl", "10m"},
		"sig-add-words":        {"signature", "add", "udp", "and", "src", "port", "53", "--target", "192.0.2.10", "--action", "limit", "--rate", "500", "--comment", "why"},
		"sig-add-json":         {"signature", "add", "icmp", "--target", "192.0.2.10", "--action", "drop", "--ceiling", "50%", "--json"},
		"sig-add-filter":       {"signature", "add", "udp port 53", "--target", "192.0.2.10", "--action", "drop"},
		"sig-add-no-target":    {"signature", "add", "icmp", "--action", "drop"},
		"sig-add-syntax":       {"signature", "add", "udp plus src port 53", "--target", "192.0.2.10", "--action", "drop"},
		"sig-add-no-action":    {"signature", "add", "icmp", "--target", "192.0.2.10"},
		"sig-add-bad-action":   {"signature", "add", "icmp", "--target", "192.0.2.10", "--action", "block"},
		"sig-add-bad-target":   {"signature", "add", "icmp", "--target", "192.0.2.10/24", "--action", "drop"},
		"sig-add-bad-ceiling":  {"signature", "add", "icmp", "--target", "192.0.2.10", "--action", "drop", "--ceiling", "120%"},
		"sig-add-bad-ttl":      {"signature", "add", "icmp", "--target", "192.0.2.10", "--action", "drop", "--ttl", "0s"},
		"sig-del":              {"signature", "del", "1", "12"},
		"sig-del-missing":      {"signature", "del", "1", "4", "x5"},
		"sig-del-absent":       {"signature", "del", "1", "4"},
		"sig-flush":            {"signature", "flush"},
		"sig-export":           {"signature", "export"},
		"sig-import":           {"signature", "import", rules},
		"sig-import-bad":       {"signature", "import", badRules},
		"sig-import-refused":   {"signature", "import", wideRules},
		"sig-import-forced":    {"signature", "import", "--force", wideRules},
		"incidents":            {"incidents"},
		"incidents-open":       {"incidents", "--open"},
		"incidents-json":       {"incidents", "--all", "--json"},
		"incidents-show":       {"incidents", "show", "20300131-115958-4a1f"},
		"incidents-show-over":  {"incidents", "show", "20300130-080000-0c3d"},
		"incidents-show-none":  {"incidents", "show", "x"},
		"incidents-label":      {"incidents", "label", "20300131-115958-4a1f", "benign"},
		"incidents-label-bad":  {"incidents", "label", "20300131-115958-4a1f", "maybe"},
		"bypass-on":            {"bypass", "on"},
		"bypass-status-json":   {"bypass", "status", "--json"},
		"reload":               {"reload"},
		"reload-json":          {"reload", "--json"},
		"config-check":         {"config", "check", goodConfig},
		"config-check-json":    {"config", "check", goodConfig, "--json"},
		"config-check-bad":     {"config", "check", badConfig},
		"config-check-badjson": {"config", "check", badConfig, "--json"},
		"config-check-absent":  {"config", "check", "/nonexistent/file"},
		"usage-no-command":     {"block"},
		"usage-bad-command":    {"statsu"},
		"usage-bad-subcommand": {"block", "ad"},
		"usage-bad-flag":       {"status", "--jsn"},
		"usage-no-argument":    {"block", "add"},
		"usage-extra-argument": {"status", "now"},
		"usage-run":            {"run"},
		"usage-run-mode":       {"run", "-i", "eth0", "--mode", "fast"},
		"usage-run-limit":      {"run", "-i", "eth0", "--rate-limit", "lots"},
		"usage-run-pin":        {"run", "-i", "eth0", "--pin", "--no-pin"},
		"usage-detach":         {"detach"},
		"usage-events-reason":  {"events", "--reason", "because"},
		"usage-replay-rule":    {"replay", "x.pcap", "--signature", "udp plus icmp"},
		"usage-replay-action":  {"replay", "x.pcap", "--signature", "udp", "--action", "limit"},
		"usage-replay-block":   {"replay", "x.pcap", "--block", "198.51.100.1/24"},
	} {
		t.Run(name, func(t *testing.T) {
			_, socket := serve(t, newFakeEngine())
			got := runCLI(t, "", append([]string{"--socket", socket}, args...)...).String()
			for path, word := range map[string]string{socket: "SOCKET", list: "list.txt", bad: "bad.txt", goodConfig: "good.yaml", badConfig: "bad.yaml", rules: "rules.txt", badRules: "bad-rules.txt", wideRules: "wide-rules.txt"} {
				got = strings.ReplaceAll(got, path, word)
			}
			golden(t, filepath.Join("testdata", name+".txt"), got)
		})
	}
}

func TestConfigShowReadsBack(t *testing.T) {
	_, socket := serve(t, newFakeEngine())
	shown := runCLI(t, "", "--socket", socket, "config", "show")
	if shown.exit != ExitOK || !strings.Contains(shown.stdout, "interfaces:") {
		t.Fatalf("%v", shown)
	}
	again := runCLI(t, "", "config", "show", writeFile(t, shown.stdout))
	if diff := cmp.Diff(shown, again, cmp.AllowUnexported(outcome{})); diff != "" {
		t.Error(diff)
	}
	for _, args := range [][]string{
		{"config", "show", "--json", "--socket", socket}, {"config", "schema"}, {"config", "example", "--json"}, {"version", "--json"},
	} {
		if o := runCLI(t, "", args...); o.exit != ExitOK || !json.Valid([]byte(o.stdout)) {
			t.Errorf("%v: %v", args, o)
		}
	}
	example := writeFile(t, runCLI(t, "", "config", "example").stdout)
	if o := runCLI(t, "", "config", "check", example); o.exit != ExitOK {
		t.Errorf("the example is not valid: %v", o)
	}
}

func TestImportReadsStandardInputAndWhatExportWrote(t *testing.T) {
	f := newFakeEngine()
	_, socket := serve(t, f)
	file := filepath.Join(t.TempDir(), "out.txt")
	if o := runCLI(t, "", "--socket", socket, "block", "export", file); o.exit != ExitOK || o.stdout != "" {
		t.Fatalf("export: %v", o)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	o := runCLI(t, string(text), "--socket", socket, "block", "import", "--replace", "-")
	if o.exit != ExitOK || o.stdout != "blocked 3 new entries, 3 removed\n" {
		t.Errorf("import: %v", o)
	}
	if got := f.lists[traffic.ListBlock][0]; got.Comment != "scanner" || got.Expires.IsZero() {
		t.Errorf("first entry = %+v", got)
	}
}

func TestSignatureImportReadsWhatExportWrote(t *testing.T) {
	f := newFakeEngine()
	_, socket := serve(t, f)
	file := filepath.Join(t.TempDir(), "rules.txt")
	if o := runCLI(t, "", "--socket", socket, "signature", "export", file); o.exit != ExitOK || o.stdout != "" {
		t.Fatalf("export: %v", o)
	}
	before := f.rules
	f.rules = nil
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	// The server lives in the present, where the noon of the tests may be long past.
	again := strings.ReplaceAll(string(text), "--expires 2030-01-31T12:09:58Z", "--ttl 598s")
	if o := runCLI(t, again, "--socket", socket, "signature", "import", "-"); o.exit != ExitOK || o.stdout != "armed 3 signatures\n" {
		t.Errorf("import: %v", o)
	}
	for i, s := range f.rules {
		b := before[i]
		if s.Expression != b.Expression || s.Target != b.Target || s.Action != b.Action || s.Rate != b.Rate || s.Ceiling != b.Ceiling ||
			s.Comment != b.Comment || s.Filter != b.Filter || (s.Expires == nil) != (b.Expires == nil) {
			t.Errorf("%+v\nbecame %+v", b, s)
		}
	}
}

func TestNoEngine(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "none.sock")
	want := outcome{stderr: "sentinel-x: no sentinel-x answers on " + socket +
		": is `sentinel-x run` running (and do you have the right to open it)?\n", exit: ExitFailed}
	for _, args := range [][]string{
		{"status"},
		{"events"},
		{"reload"},
		{"bypass", "on"},
		{"block", "add", "198.51.100.1"},
		{"config", "show"},
		{"incidents"},
		{"incidents", "show", "x"},
		{"incidents", "label", "x", "attack"},
		{"signature", "list"},
		{"signature", "add", "udp", "--action", "drop"},
		{"signature", "del", "1"},
	} {
		if diff := cmp.Diff(want, runCLI(t, "", append(args, "--socket", socket)...), cmp.AllowUnexported(outcome{})); diff != "" {
			t.Errorf("%v: %s", args, diff)
		}
	}
}

func TestEveryCommandHasHelp(t *testing.T) {
	a := &app{out: &bytes.Buffer{}, err: &bytes.Buffer{}}
	root := a.root()
	prepare(root)
	commands := visible(root)
	if len(commands) < 25 {
		t.Fatalf("only %d commands", len(commands))
	}
	for _, c := range commands {
		args := append(strings.Fields(c.CommandPath())[1:], "--help")
		o := runCLI(t, "", args...)
		if o.exit != ExitOK || o.stderr != "" || !strings.Contains(o.stdout, "Usage:") {
			t.Errorf("%v: %v", args, o)
		}
		if c.Short == "" || strings.HasSuffix(c.Short, ".") {
			t.Errorf("%s: short help %q", c.CommandPath(), c.Short)
		}
		if prints := c.Flags().Lookup("json") != nil; c.Runnable() && !c.HasSubCommands() && !prints && !printsNothing[c.Name()] {
			t.Errorf("%s has no --json", c.CommandPath())
		}
	}
}

// printsNothing names the commands that print nothing, or something with a form
// of its own.
var printsNothing = map[string]bool{"run": true, "man": true, "bash": true, "zsh": true, "fish": true, "powershell": true}

func TestCompletion(t *testing.T) {
	_, socket := serve(t, newFakeEngine())
	for _, tc := range []struct{ line, want string }{
		{"st", "status"},
		{"block ", "import"},
		{"bypass o", "off"},
		{"signature ", "flush"},
		{"signature add udp --action l", "limit"},
		{"--socket " + socket + " signature del ", "12\tudp port 53"},
		{"--socket " + socket + " incidents show ", "20300131-115958-4a1f\tsyn_flood at 192.0.2.10"},
		{"incidents label x b", "benign"},
		{"run --mode g", "generic"},
		{"events --reason block", "blocklist"},
		{"events --outcome w", "would_drop"},
		{"--socket " + socket + " block del ", "203.0.113.0/24"},
	} {
		words := strings.Split(tc.line, " ")
		o := runCLI(t, "", append([]string{"__complete"}, words...)...)
		if o.exit != ExitOK || !strings.Contains(o.stdout, tc.want) {
			t.Errorf("%q: %v", tc.line, o)
		}
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if o := runCLI(t, "", "completion", shell); o.exit != ExitOK || !strings.Contains(o.stdout, "sentinel-x") {
			t.Errorf("completion %s: exit %d", shell, o.exit)
		}
	}
}

func TestCommandPage(t *testing.T) {
	var page strings.Builder
	a := &app{out: &bytes.Buffer{}, err: &bytes.Buffer{}}
	writeMarkdown(&page, a.root())
	golden(t, "../../docs/cli.md", page.String())
}

func TestManPages(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "man1")
	if o := runCLI(t, "", "man", dir); o != (outcome{}) {
		t.Fatalf("%v", o)
	}
	pages, err := filepath.Glob(filepath.Join(dir, "*.1"))
	if err != nil || len(pages) < 25 {
		t.Fatalf("%d pages, %v", len(pages), err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "sentinel-x-block-add.1"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{".TH", "SENTINEL-X-BLOCK-ADD", "NAME", "SYNOPSIS", "EXAMPLES", "ticket 4711", "sentinel-x-block(1)"} {
		if !strings.Contains(strings.ReplaceAll(string(text), `\-`, "-"), want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}
