// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const full = `# every key, none at its default
interfaces: [eth0, eth1.100]
mode: native
dry_run: true
replace: true
on_exit: keep
pin: {enabled: true, path: /sys/fs/bpf/other}
state_dir: /srv/state
socket: /run/other.sock
stats_interval: 1m30s
parse:
  malformed: drop
  first_fragments: drop
  later_fragments: drop
  tiny_fragments: pass
  extension_headers: pass
  vlan_depth: pass
  tunnel_depth: drop
  tunnels: [ipip, 6in4, gre, vxlan]
limits:
  sources: 1024
  allowed_factor: 0
  per_source:
    all: {packets: 10k, bytes: 10MiB, burst: 2s}
    syn: {packets: 100, bytes: 1M, burst: 500ms}
    udp:
      packets: "2k"
      bytes: 64KiB
      burst: 1s
    icmp: {packets: 1}
  per_prefix:
    all: {packets: 30k, bytes: 1G, burst: 3s}
    syn: {packets: 300, burst: 2s}
    udp: {packets: 6k, bytes: 1M}
    icmp: {packets: 3, bytes: 1k}
  per_target:
    all: {packets: 1M, bytes: 2G}
    syn: {packets: 10k, bytes: 3M}
    udp: {packets: 20k, bytes: 1GiB, burst: 50ms}
    icmp: {packets: 50, bytes: 8k}
lists:
  max_entries: 10
  block:
  - 192.0.2.0/24
  - 2001:db8::1
  - {prefix: "2001:db8:1::/48", comment: "a: b # c"}
  - prefix: 198.51.100.7
    comment: scanner
  allow: [203.0.113.0/24, 2001:db8:2::/64]
protect:
  auto: false
  addresses: [192.0.2.1]
  targets: [198.51.100.0/24]
events: {per_second: 0, ring_bytes: 65536}
log: {level: debug, format: json, file: /var/log/sentinel-x.log, max_size_mb: 1, max_files: 0}
detect:
  enabled: false
  rule: and
  threshold: 0.8
  likely: 0.4
  agree: 0.6
  window: 500ms
  floor: 2k
  factor: 2.5
  end_after: 30s
  limits: {packets: 1M, bytes: 1G, syn: 10k, udp: 100k, icmp: 1k, reflected: 500}
  max_targets: 100
  model_dir: /srv/models
`

func fullConfig() Config {
	prefix := netip.MustParsePrefix
	return Config{
		Interfaces: []string{"eth0", "eth1.100"}, Mode: ModeNative, DryRun: true, Replace: true, OnExit: ExitKeep,
		Pin: Pin{true, "/sys/fs/bpf/other"}, StateDir: "/srv/state", Socket: "/run/other.sock",
		StatsInterval: Duration{90 * time.Second},
		Parse: Parsing{
			"drop", "drop", "drop", "pass", "pass", "pass", "drop",
			[]Tunnel{TunnelIPIP, Tunnel6in4, TunnelGRE, TunnelVXLAN},
		},
		Limits: Limits{
			1024, 0,
			ClassLimits{
				All:  Limit{10000, 10 << 20, Duration{2 * time.Second}},
				SYN:  Limit{100, 1e6, Duration{500 * time.Millisecond}},
				UDP:  Limit{2000, 64 << 10, Duration{time.Second}},
				ICMP: Limit{1, 0, Duration{time.Second}},
			},
			ClassLimits{
				All:  Limit{30000, 1e9, Duration{3 * time.Second}},
				SYN:  Limit{300, 0, Duration{2 * time.Second}},
				UDP:  Limit{6000, 1e6, Duration{time.Second}},
				ICMP: Limit{3, 1000, Duration{time.Second}},
			},
			ClassLimits{
				All:  Limit{1e6, 2e9, Duration{time.Second}},
				SYN:  Limit{10000, 3e6, Duration{time.Second}},
				UDP:  Limit{20000, 1 << 30, Duration{50 * time.Millisecond}},
				ICMP: Limit{50, 8000, Duration{time.Second}},
			},
		},
		Lists: Lists{
			10,
			[]ListEntry{
				{prefix("192.0.2.0/24"), ""},
				{prefix("2001:db8::1/128"), ""},
				{prefix("2001:db8:1::/48"), "a: b # c"},
				{prefix("198.51.100.7/32"), "scanner"},
			},
			[]ListEntry{{prefix("203.0.113.0/24"), ""}, {prefix("2001:db8:2::/64"), ""}},
		},
		Protect: Protect{false, []netip.Prefix{prefix("192.0.2.1/32")}, []netip.Prefix{prefix("198.51.100.0/24")}},
		Events:  Events{0, 65536},
		Log:     Log{"debug", "json", "/var/log/sentinel-x.log", 1, 0},
		Detect: Detect{
			false, RuleAnd, 0.8, 0.4, 0.6,
			Duration{500 * time.Millisecond},
			2000, 2.5,
			Duration{30 * time.Second},
			TargetLimits{1e6, 1e9, 10000, 100000, 1000, 500},
			100, "/srv/models",
		},
	}
}

var prefixes = cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })

func mustParse(t *testing.T, text string) Config {
	t.Helper()
	cfg, err := Parse("f.yaml", []byte(text))
	if err != nil {
		t.Fatalf("Parse(%q): %v", text, err)
	}
	return cfg
}

func TestParseEveryKey(t *testing.T) {
	want := fullConfig()
	if diff := cmp.Diff(want, mustParse(t, full), prefixes); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	live, restart := Changed(Default(), want)
	changed := len(live) + len(restart)
	leaves := 0
	for _, k := range allKeys() {
		if !k.section() {
			leaves++
		}
	}
	// pin.enabled, and of the limits two rates and seven bursts, are the defaults.
	if same := leaves - changed; same != 10 {
		t.Errorf("the full file leaves %d of %d keys at their defaults: extend it", same, leaves)
	}
}

func TestParseDefaults(t *testing.T) {
	for _, text := range []string{
		"", "\n", "# nothing\n", "---\n", "---\n...\n", "null\n", "{}\n", "\ufeff# with a byte order mark\n",
		"limits:\nlists:\n  block:\nparse: # all commented out\n", "mode: auto\r\nlists:\r\n  block: []\r\n",
	} {
		if diff := cmp.Diff(Default(), mustParse(t, text), prefixes); diff != "" {
			t.Errorf("%q: -default +got:\n%s", text, diff)
		}
	}
}

func TestExampleHoldsDefaults(t *testing.T) {
	if diff := cmp.Diff(Default(), mustParse(t, string(Example())), prefixes); diff != "" {
		t.Errorf("-default +example:\n%s", diff)
	}
}

func TestOldModeWord(t *testing.T) {
	cfg := mustParse(t, "mode: skb")
	if cfg.Mode != ModeGeneric || len(cfg.Notices()) != 1 || !strings.Contains(cfg.Notices()[0], `"generic"`) {
		t.Errorf("mode %q, notices %q", cfg.Mode, cfg.Notices())
	}
	if m, notice, err := ParseMode("skb"); m != ModeGeneric || notice == "" || err != nil {
		t.Errorf("ParseMode(skb) = %q, %q, %v", m, notice, err)
	}
	if m, notice, err := ParseMode("offload"); m != ModeOffload || notice != "" || err != nil {
		t.Errorf("ParseMode(offload) = %q, %q, %v", m, notice, err)
	}
	if _, _, err := ParseMode("fast"); err == nil || !strings.Contains(err.Error(), "auto, native, generic, offload") {
		t.Errorf("ParseMode(fast): %v", err)
	}
}

// broken lists files that must be refused, and the start of the error behind
// the file name: line:column: path: message.
var broken = []struct{ text, want string }{
	// Keys.
	{"mod: auto", `1:1: mod: unknown key; did you mean "mode"?`},
	{"interface: eth0", `1:1: interface: unknown key; did you mean "interfaces"?`},
	{"dry-run: true", `1:1: dry-run: unknown key; did you mean "dry_run"?`},
	{"DryRun: true", `1:1: DryRun: unknown key; did you mean "dry_run"?`},
	{"log:\n  levl: info", `2:3: log.levl: unknown key; did you mean "log.level"?`},
	{"limits:\n  per_source:\n    sny: {packets: 1}", `3:5: limits.per_source.sny: unknown key; did you mean "limits.per_source.syn"?`},
	{"limits: {per_source: {udp: {packet: 1}}}", `1:29: limits.per_source.udp.packet: unknown key; did you mean "limits.per_source.udp.packets"?`},
	{"sources: 4096", `1:1: sources: unknown key; did you mean "limits.sources"?`},
	{"per_second: 1", `1:1: per_second: unknown key; did you mean "events.per_second"?`},
	{"quux_zap_frobnicate: 1", "1:1: quux_zap_frobnicate: unknown key; known here: interfaces, mode,"},
	{"5: x", "1:1: 5: unknown key"},
	{"true: x", "1:1: true: unknown key"},
	{"\"mo\\nde\": x", `1:1: "mo\nde": unknown key; did you mean "mode"?`},
	{"Outdated: [x]", "1:1: Outdated: unknown key"},
	{"mode: auto\nmode: auto", "2:1: mode: given twice; the first is in line 1"},
	{"log: {level: info}\nsocket: /a\nlog: {format: text}", "3:1: log: given twice; the first is in line 1"},
	{"pin: {path: /a, path: /b}", "1:17: pin.path: given twice; the first is in line 1"},
	{"lists:\n  block:\n  - prefix: 192.0.2.1\n    prefix: 192.0.2.2", "4:5: lists.block[0].prefix: given twice"},
	{"lists:\n  block:\n  - {prefx: 192.0.2.1}", `3:6: lists.block[0].prefx: unknown key; did you mean "lists.block[0].prefix"?`},
	{"lists:\n  block:\n  - {comment: x}", "3:5: lists.block[0]: entry without a prefix"},
	// Types.
	{"interfaces: eth0", `1:13: interfaces: "eth0" where a list belongs; write [eth0]`},
	{"interfaces: {a: b}", "1:13: interfaces: a section of keys where a list belongs"},
	{"interfaces: [[eth0]]", "1:14: interfaces[0]: a list where a text belongs"},
	{"interfaces: [5]", "1:14: interfaces[0]: 5 is a number, not a text; put it in quotes"},
	{"interfaces:\n- eth0\n-", "3:3: interfaces[1]: nothing where a text belongs"},
	{"mode: true", "1:7: mode: true is a truth value, not a text"},
	{"mode:", "1:7: mode: nothing where a text belongs"},
	{"mode: [auto]", "1:7: mode: a list where a text belongs"},
	{"dry_run: yes", `1:10: dry_run: "yes" is not true or false`},
	{"dry_run: 1", "1:10: dry_run: 1 is a number, not true or false"},
	{"dry_run: \"true\"", `1:10: dry_run: "true" is not true or false`},
	{"pin: true", `1:6: pin: "true" where a section of keys belongs (enabled, path)`},
	{"log: info", `1:6: log: "info" where a section of keys belongs`},
	{"log: [level]", "1:6: log: a list where a section of keys belongs"},
	{"limits: {sources: many}", `1:19: limits.sources: "many" is not a whole number`},
	{"limits: {sources: 1.5}", "1:19: limits.sources: 1.5 is a number, not a whole number"},
	{"limits: {sources: -5}", "1:19: limits.sources: -5 is not a plain whole number"},
	{"limits: {sources: 0x1000}", "1:19: limits.sources: 0x1000 is not a plain whole number"},
	{"limits: {sources: 65_536}", "1:19: limits.sources: 65_536 is not a plain whole number"},
	{"limits: {sources: \"4096\"}", `1:19: limits.sources: "4096" is not a whole number`},
	{"limits: {sources: 99999999999999999999}", "1:19: limits.sources: 99999999999999999999 is not a plain whole number"},
	{"detect: {threshold: high}", `1:21: detect.threshold: "high" is not a number`},
	{"- interfaces", "1:1: a list where a section of keys belongs"},
	{"just text", `1:1: "just text" where a section of keys belongs`},
	{"42", `1:1: "42" where a section of keys belongs`},
	{"protect: {addresses: 192.0.2.1}", `1:22: protect.addresses: "192.0.2.1" where a list belongs; write [192.0.2.0/24]`},
	{"parse: {tunnels: gre}", `1:18: parse.tunnels: "gre" where a list belongs; write [gre, vxlan]`},
	// Values.
	{"mode: fast", `1:7: mode: "fast" is not one of auto, native, generic, offload`},
	{"on_exit: stay", `1:10: on_exit: "stay" is not one of detach, keep`},
	{"parse: {malformed: accept}", `1:20: parse.malformed: "accept" is not one of pass, drop`},
	{"parse:\n  tunnels:\n  - gre\n  - l2tp", `4:5: parse.tunnels[1]: "l2tp" is not one of ipip, 6in4, gre, vxlan`},
	{"parse: {tunnels: [gre, gre]}", `1:24: parse.tunnels[1]: "gre" is listed already, as parse.tunnels[0]`},
	{"interfaces: [eth0, eth0]", `1:20: interfaces[1]: "eth0" is listed already, as interfaces[0]`},
	{"interfaces: [a/b]", `1:14: interfaces[0]: "a/b" cannot be an interface name`},
	{"interfaces: [\"\"]", `1:14: interfaces[0]: "" cannot be an interface name`},
	{"interfaces: [abcdefghijklmnop]", `1:14: interfaces[0]: "abcdefghijklmnop" cannot be an interface name`},
	{"stats_interval: 10", "1:17: stats_interval: 10 has no unit; write 10s for seconds"},
	{"stats_interval: soon", `1:17: stats_interval: "soon" is not a duration; write 1s`},
	{"stats_interval: -1s", "1:17: stats_interval: -1s is not from 0s to 24h"},
	{"stats_interval: 10ms", "1:17: stats_interval: 10ms is shorter than 1s; 0s turns it off"},
	{"state_dir: var/lib", `1:12: state_dir: "var/lib" is not an absolute path`},
	{"state_dir: \"\"", `1:12: state_dir: "" is not an absolute path`},
	{"socket: \"/run/a\\tb\"", `1:9: socket: "/run/a\tb" holds characters that do not print`},
	{"socket: /" + strings.Repeat("a", 107), "1:9: socket: path of 108 bytes; UNIX sockets allow 107"},
	{"pin: {enabled: false}\non_exit: keep", "2:10: on_exit: keep needs pin.enabled"},
	{"pin: {path: bpf}", `1:13: pin.path: "bpf" is not an absolute path`},
	{"limits: {sources: 1023}", "1:19: limits.sources: 1023 is not from 1024 to 16777216"},
	{"limits: {sources: 16777217}", "1:19: limits.sources: 16777217 is not from 1024 to 16777216"},
	{"limits: {per_source: {all: {packets: 10x}}}", `1:38: limits.per_source.all.packets: "10x" is not a count (unknown suffix "x")`},
	{"limits: {per_source: {all: {packets: 10MiB}}}", `1:38: limits.per_source.all.packets: "10MiB" is not a count (unknown suffix "MiB")`},
	{"limits: {per_source: {all: {packets: -1}}}", `1:38: limits.per_source.all.packets: "-1" is not a count`},
	{"limits: {per_source: {all: {packets: 2G}}}", "1:38: limits.per_source.all.packets: 2000000000 is not from 0 to 1000000000"},
	{"limits: {per_source: {all: {bytes: 10MB}}}", `1:36: limits.per_source.all.bytes: "10MB" is not a number of bytes (unknown suffix "MB"); write`},
	{"limits: {per_source: {all: {bytes: 99999999999G}}}", `1:36: limits.per_source.all.bytes: "99999999999G" is not a number of bytes (too large)`},
	{"limits: {per_source: {syn: {burst: 0s}}}", "1:36: limits.per_source.syn.burst: 0s is not from 1ms to 1m"},
	{"lists: {block: [192.0.2.1/24]}", `1:17: lists.block[0]: "192.0.2.1/24" has host bits set; write 192.0.2.0/24, or 192.0.2.1 for`},
	{"lists:\n  allow:\n  - 192.0.2.1\n  - example.org", `4:5: lists.allow[1]: "example.org" is not an address or CIDR prefix`},
	{"lists: {block: ['::ffff:192.0.2.1']}", `1:17: lists.block[0]: "::ffff:192.0.2.1" is an IPv4-mapped IPv6 address; write the IPv4 address 192.0.2.1`},
	{"lists: {block: ['fe80::1%eth0']}", `1:17: lists.block[0]: "fe80::1%eth0" has a zone; write fe80::1`},
	{"lists: {block: [192.0.2.0/33]}", `1:17: lists.block[0]: "192.0.2.0/33" has no prefix length from 0 to 32`},
	{"lists: {block: [true]}", "1:17: lists.block[0]: true is a truth value, not an address"},
	{"lists:\n  block:\n  - 192.0.2.1\n  - 192.0.2.1/32", "4:5: lists.block[1]: 192.0.2.1/32 is listed already, as lists.block[0]"},
	{"lists:\n  block:\n  - {prefix: 192.0.2.1, comment: [a]}", "3:34: lists.block[0].comment: a list where a text belongs"},
	{"lists:\n  block:\n  - {prefix: 192.0.2.1, comment: \"a\\nb\"}", `3:34: lists.block[0].comment: "a\nb" holds characters that do not print`},
	{"lists: {max_entries: 1, block: [192.0.2.1, 192.0.2.2]}", "1:32: lists.block: 2 entries, but lists.max_entries is 1"},
	{"lists: {max_entries: 0}", "1:22: lists.max_entries: 0 is not from 1 to 16777216"},
	{"events: {ring_bytes: 5000}", "1:22: events.ring_bytes: 5000 is not a power of two"},
	{"events: {per_second: 1000001}", "1:22: events.per_second: 1000001 is not from 0 to 1000000"},
	{"log: {level: loud}", `1:14: log.level: "loud" is not one of debug, info, warn, error`},
	{"log: {file: out.log}", `1:13: log.file: "out.log" is not an absolute path`},
	{"log: {max_size_mb: 0}", "1:20: log.max_size_mb: 0 is not from 1 to 100000"},
	{"detect: {threshold: 1.5}", "1:21: detect.threshold: 1.5 is not from 0 to 1"},
	{"detect: {threshold: .nan}", `1:21: detect.threshold: ".nan" where a number belongs`},
	{"detect: {window: 1ms}", "1:18: detect.window: 1ms is not from 100ms to 10s"},
	// Text and YAML.
	{"mode: au\x00to", "1:9: control character 0x00"},
	{"mode: auto\n\nsocket: /\x07", "3:10: control character 0x07"},
	{"mode: \xff", "1:7: byte 0xff is not UTF-8"},
	{"mode: auto\rsocket: /a", "1:11: control character 0x0d"},
	{"mode: a\u2028b", "1:8: invisible character U+2028"},
	{"# ä\nmode: \"ä\" x", "2:"},
	{"log:\n\tlevel: info", "2:1: not readable as YAML: found character '\t' that cannot start any token"},
	{"log: {level: info", "1:6: not readable as YAML: could not find flow mapping end token"},
	{"interfaces: [eth0", "1:13: not readable as YAML: sequence end token ']' not found"},
	{"socket: \"/run", "1:9: not readable as YAML: could not find end character of double-quoted text"},
	{"mode: auto\n  socket: /a", "1:7: not readable as YAML: mapping value is not allowed in this context"},
	{"log:\n    level: info\n  format: text", "3:"},
	{"a: &x 1", "1:4: YAML anchor is not supported here"},
	{"socket: *x", "1:9: YAML alias is not supported here"},
	{"socket: !!str /a", "1:9: YAML tag is not supported here"},
	{"<<: {mode: auto}", "1:1: YAML merge key is not supported here"},
	{"? mode\n: auto", "1:1: YAML complex key is not supported here"},
	{"%YAML 1.2\n---\nmode: auto", "1:1: YAML directive is not supported here"},
	{"mode: auto\n---\nmode: native", "3:1: second document; the file holds only one"},
	{strings.Repeat("[", 100), "1:17: nested deeper than 16 levels"},
	{strings.Repeat("- ", 100), "1:33: nested deeper than 16 levels"},
	{strings.Repeat("{a: ", 100), "1:"},
	{"interfaces:\n" + strings.Repeat("a:\n", 1000), "501:2: more than 500 keys"},
	{"# " + strings.Repeat("x", 1<<20), "1:1048577: file is larger than 1048576 bytes"},
}

func TestBrokenFiles(t *testing.T) {
	for _, tt := range broken {
		_, err := Parse("f.yaml", []byte(tt.text))
		if err == nil {
			t.Errorf("%.80q was accepted", tt.text)
			continue
		}
		if got := err.Error(); !strings.HasPrefix(got, "f.yaml:"+tt.want) {
			t.Errorf("%.80q:\n got %s\nwant f.yaml:%s…", tt.text, got, tt.want)
		}
	}
}

func TestEveryMistakeIsReported(t *testing.T) {
	_, err := Parse("f.yaml", []byte("mod: x\nlog:\n  levl: y\nsocket: 5\n"))
	want := `f.yaml:1:1: mod: unknown key; did you mean "mode"?
f.yaml:3:3: log.levl: unknown key; did you mean "log.level"?
f.yaml:4:9: socket: 5 is a number, not a text; put it in quotes if it is meant`
	if fmt.Sprint(err) != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
	_, err = Parse("f.yaml", []byte(strings.Repeat("xyzzy: 1\n", 100)))
	if n := strings.Count(err.Error(), "\n") + 1; n != maxErrors {
		t.Errorf("%d errors reported, want %d", n, maxErrors)
	}
	var e *Error
	if !errors.As(err, &e) || e.Line != 1 || e.Column != 1 || e.Path != "xyzzy" || e.File != "f.yaml" {
		t.Errorf("first error is %+v", e)
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "c.yaml")
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(full)
	cfg, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(fullConfig(), cfg, prefixes); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	write("mode: x")
	if _, err := Load(path); err == nil || !strings.HasPrefix(err.Error(), path+":1:7: mode: ") {
		t.Errorf("bad mode: %v", err)
	}
	write(strings.Repeat("#\n", 1<<20))
	if _, err := Load(path); err == nil || !strings.Contains(err.Error(), "larger than 1048576 bytes") {
		t.Errorf("2 MiB: %v", err)
	}
	if _, err := Load(dir); err == nil || !strings.Contains(err.Error(), "is a directory") {
		t.Errorf("directory: %v", err)
	}
	if _, err := Load(filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(full))
	f.Add(Example())
	for _, tt := range broken {
		if len(tt.text) < 4096 {
			f.Add([]byte(tt.text))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		cfg, err := Parse("f", data)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || e.Line < 1 || e.Column < 1 || e.Msg == "" {
				t.Fatalf("error without a position: %v", err)
			}
			return
		}
		if err := cfg.Validate(); err != nil {
			t.Fatalf("accepted, but not valid: %v", err)
		}
		again, err := Parse("again", cfg.Marshal())
		if err != nil {
			t.Fatalf("Marshal wrote what Parse refuses: %v\n%s", err, cfg.Marshal())
		}
		cfg.Outdated = nil
		if diff := cmp.Diff(cfg, again, prefixes); diff != "" {
			t.Fatalf("Marshal and Parse change it (-before +after):\n%s", diff)
		}
	})
}
