// SPDX-License-Identifier: Apache-2.0

package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"
)

func allKeys() []key { return keys(reflect.TypeFor[Config](), "", false) }

// TestTags holds the struct tags to their form: everything else follows from them.
func TestTags(t *testing.T) {
	for _, k := range allKeys() {
		tag := k.field.Tag
		if tag.Get("json") != tag.Get("yaml") {
			t.Errorf("%s: json tag %q", k.path, tag.Get("json"))
		}
		if desc := tag.Get("desc"); !strings.HasSuffix(desc, ".") || strings.Contains(desc, "|") {
			t.Errorf("%s: description %q is no sentence, or breaks a table", k.path, desc)
		}
		if k.field.Type == reflect.TypeFor[Duration]() && tagDuration(k, "max") <= tagDuration(k, "min") {
			t.Errorf("%s: bounds", k.path)
		}
		if low, high := bounds(k); k.field.Type.Kind() == reflect.Uint32 && low >= high {
			t.Errorf("%s: bounds %d…%d", k.path, low, high)
		}
	}
	if err := Default().Validate(); err != nil {
		t.Errorf("defaults: %v", err)
	}
}

func TestValidateNamesTheKey(t *testing.T) {
	for want, change := range map[string]func(*Config){
		`mode: "" is not one of`:                             func(c *Config) { c.Mode = "" },
		`interfaces[0]: "a b" cannot be`:                     func(c *Config) { c.Interfaces = []string{"a b"} },
		"limits.sources: 1 is not from":                      func(c *Config) { c.Limits.Sources = 1 },
		"limits.per_source.udp.burst: 2m is not from":        func(c *Config) { c.Limits.PerSource.UDP.Burst.Duration = 2 * time.Minute },
		"detect.threshold: NaN is not from":                  func(c *Config) { c.Detect.Threshold = math.NaN() },
		"lists.block[0]: invalid Prefix is not":              func(c *Config) { c.Lists.Block = make([]ListEntry, 1) },
		"lists.allow[0]: 192.0.2.1/8 is not a masked":        func(c *Config) { c.Lists.Allow = []ListEntry{{Prefix: netip.MustParsePrefix("192.0.2.1/8")}} },
		"protect.addresses[0]: ::ffff:192.0.2.1/128 is not":  func(c *Config) { c.Protect.Addresses = []netip.Prefix{netip.MustParsePrefix("::ffff:192.0.2.1/128")} },
		`detect.rule: "or" is not one of`:                    func(c *Config) { c.Detect.Rule = "or" },
		"detect.floor: 0 is not from":                        func(c *Config) { c.Detect.Floor = 0 },
		"protect.targets[0]: 192.0.2.1/24 is not a masked":   func(c *Config) { c.Protect.Targets = []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24")} },
		`log.file: "/a\xff" holds characters that do not`:    func(c *Config) { c.Log.File = "/a\xff" },
		`state_dir: "" is not an absolute path`:              func(c *Config) { c.StateDir = "" },
		"events.ring_bytes: 4097 is not a power of two":      func(c *Config) { c.Events.RingBytes = 4097 },
		"on_exit: keep needs pin.enabled":                    func(c *Config) { c.OnExit, c.Pin.Enabled = ExitKeep, false },
		"lists.block[0].comment: \"\\x00\" holds characters": func(c *Config) { c.Lists.Block = []ListEntry{{netip.MustParsePrefix("192.0.2.0/24"), "\x00"}} },
	} {
		c := Default()
		change(&c)
		err := c.Validate()
		var e *Error
		if !errors.As(err, &e) || !strings.HasPrefix(e.Error(), want) {
			t.Errorf("got %v, want %s…", err, want)
		}
	}
}

func TestParsePrefix(t *testing.T) {
	for in, want := range map[string]string{
		"192.0.2.7": "192.0.2.7/32", "192.0.2.0/24": "192.0.2.0/24", "0.0.0.0/0": "0.0.0.0/0", "::/0": "::/0",
		"2001:db8::7": "2001:db8::7/128", "2001:DB8::/32": "2001:db8::/32", "::": "::/128", "255.255.255.255/32": "255.255.255.255/32",
	} {
		if got, err := ParsePrefix(in); err != nil || got.String() != want {
			t.Errorf("ParsePrefix(%q) = %v, %v, want %s", in, got, err, want)
		}
	}
	for in, want := range map[string]string{
		"":                        `"" is not an address or CIDR prefix`,
		"192.0.2":                 `"192.0.2" is not an address`,
		" 192.0.2.1":              `" 192.0.2.1" is not an address`,
		"192.0.2.256":             "is not an address",
		"192.0.2.01":              "is not an address",
		"192.0.2.1/":              "has no prefix length from 0 to 32",
		"192.0.2.0/024":           "has no prefix length",
		"192.0.2.0/+24":           "has no prefix length",
		"192.0.2.0/24/8":          "has no prefix length",
		"2001:db8::/129":          "has no prefix length from 0 to 128",
		"192.0.2.255/25":          "has host bits set; write 192.0.2.128/25, or 192.0.2.255 for the one address",
		"2001:db8::1/64":          "has host bits set; write 2001:db8::/64, or 2001:db8::1",
		"::ffff:192.0.2.1":        "write the IPv4 address 192.0.2.1",
		"::ffff:192.0.2.0/120":    "write the IPv4 prefix 192.0.2.0/24",
		"::ffff:192.0.2.9/120":    "write the IPv4 prefix 192.0.2.0/24",
		"::ffff:0:0/95":           "write the IPv4 prefix",
		"fe80::1%eth0":            "has a zone; write fe80::1",
		"fe80::%eth0/64":          "has a zone; write fe80::/64",
		strings.Repeat("x", 1000): "…\" is not an address",
	} {
		if p, err := ParsePrefix(in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParsePrefix(%q) = %v, %v, want …%s…", in, p, err, want)
		}
	}
}

func TestNumbers(t *testing.T) {
	for in, want := range map[string]Bytes{
		"0": 0, "1": 1, "5k": 5e3, "5M": 5e6, "5G": 5e9, "5KiB": 5 << 10, "5MiB": 5 << 20, "5GiB": 5 << 30,
		"18446744073709551615": math.MaxUint64,
	} {
		if got, err := ParseBytes(in); err != nil || got != want {
			t.Errorf("ParseBytes(%q) = %d, %v, want %d", in, got, err, want)
		}
		if got, err := ParseBytes(want.String()); err != nil || got != want {
			t.Errorf("ParseBytes(%q) = %d, %v, want %d", want.String(), got, err, want)
		}
	}
	for _, in := range []string{"", "k", "-1", "1.5M", "5K", "5m", "5MB", "5 M", "5kk", "0x10", "18446744073709551616", "18446744073709552k", "١"} {
		if got, err := ParseBytes(in); err == nil {
			t.Errorf("ParseBytes(%q) = %d, want an error", in, got)
		}
		if got, err := ParseCount(in); err == nil {
			t.Errorf("ParseCount(%q) = %d, want an error", in, got)
		}
	}
	if n, err := ParseCount("20k"); n != 20000 || err != nil || n.String() != "20k" {
		t.Errorf("ParseCount(20k) = %s, %v", n, err)
	}
	if _, err := ParseCount("1KiB"); err == nil {
		t.Error("ParseCount(1KiB) was accepted")
	}
}

func TestDurationText(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", time.Second: "1s", 10 * time.Minute: "10m", 24 * time.Hour: "24h", 90 * time.Minute: "1h30m",
		time.Hour + time.Second: "1h0m1s", 250 * time.Millisecond: "250ms", 20 * time.Second: "20s",
	} {
		got := text(Duration{d})
		var back Duration
		if err := back.UnmarshalText([]byte(got)); got != want || err != nil || back.Duration != d {
			t.Errorf("%v is written %q (want %q), read back as %v, %v", d, got, want, back, err)
		}
	}
}

func TestJSONRoundTrip(t *testing.T) {
	data, err := json.Marshal(fullConfig())
	if err != nil {
		t.Fatal(err)
	}
	var got Config
	if err := json.Unmarshal(data, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(fullConfig(), got, prefixes); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if !strings.Contains(string(data), `"stats_interval":"1m30s"`) || !strings.Contains(string(data), `"bytes":10485760`) {
		t.Errorf("durations are text, bytes are numbers: %s", data)
	}
}

func TestChanged(t *testing.T) {
	live, restart := Changed(Default(), fullConfig())
	wantLive := []string{
		"dry_run", "stats_interval", "parse.malformed", "parse.first_fragments", "parse.later_fragments",
		"parse.tiny_fragments", "parse.extension_headers", "parse.vlan_depth", "parse.tunnel_depth",
		"limits.allowed_factor", "limits.per_source.all.packets", "limits.per_source.all.bytes",
		"limits.per_source.all.burst", "limits.per_source.syn.packets", "limits.per_source.syn.bytes",
		"limits.per_source.syn.burst", "limits.per_source.udp.packets", "limits.per_source.udp.bytes",
		"limits.per_source.icmp.packets",
		"limits.per_prefix.all.packets", "limits.per_prefix.all.bytes", "limits.per_prefix.all.burst",
		"limits.per_prefix.syn.packets", "limits.per_prefix.syn.burst", "limits.per_prefix.udp.packets",
		"limits.per_prefix.udp.bytes", "limits.per_prefix.icmp.packets", "limits.per_prefix.icmp.bytes",
		"limits.per_target.all.packets", "limits.per_target.all.bytes", "limits.per_target.syn.packets",
		"limits.per_target.syn.bytes", "limits.per_target.udp.packets", "limits.per_target.udp.bytes",
		"limits.per_target.udp.burst", "limits.per_target.icmp.packets", "limits.per_target.icmp.bytes", "lists.block", "lists.allow", "protect.auto", "protect.addresses",
		"events.per_second", "log.level",
	}
	wantRestart := []string{
		"interfaces", "mode", "replace", "on_exit", "pin.path", "state_dir", "socket", "parse.tunnels",
		"limits.sources", "lists.max_entries", "protect.targets", "events.ring_bytes", "log.format", "log.file", "log.max_size_mb",
		"log.max_files", "detect.enabled", "detect.rule", "detect.threshold", "detect.likely", "detect.agree", "detect.window", "detect.floor",
		"detect.factor", "detect.end_after", "detect.limits.packets", "detect.limits.bytes", "detect.limits.syn",
		"detect.limits.udp", "detect.limits.icmp", "detect.limits.reflected", "detect.max_targets", "detect.model_dir",
	}
	if diff := cmp.Diff(wantLive, live); diff != "" {
		t.Errorf("live (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(wantRestart, restart); diff != "" {
		t.Errorf("restart (-want +got):\n%s", diff)
	}
	empty := Default()
	empty.Interfaces, empty.Lists.Block = nil, nil
	if live, restart := Changed(Default(), empty); len(live)+len(restart) > 0 {
		t.Errorf("a missing list differs from an empty one: %v %v", live, restart)
	}
	fewer := fullConfig()
	fewer.Lists.Block = slices.Delete(fewer.Lists.Block, 0, 1)
	if live, restart := Changed(fullConfig(), fewer); !slices.Equal(live, []string{"lists.block"}) || restart != nil {
		t.Errorf("one entry fewer: %v %v", live, restart)
	}
}

func TestNotices(t *testing.T) {
	if n := Default().Notices(); len(n) != 0 {
		t.Errorf("defaults: %q", n)
	}
	c := mustParse(t, "mode: skb\nlists: {block: [192.0.2.0/24], allow: [192.0.2.0/24]}\n")
	got := strings.Join(c.Notices(), "\n")
	want := `mode: "skb" is the old word for "generic"
lists.block[0]: 192.0.2.0/24 is on lists.allow too, and allow wins`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// TestSchema checks real and broken files against the schema with a reader of
// the few words of JSON Schema that it uses.
func TestSchema(t *testing.T) {
	var schema map[string]any
	if err := json.Unmarshal(Schema(), &schema); err != nil {
		t.Fatal(err)
	}
	check := func(text string) error {
		var doc any
		if err := yaml.Unmarshal([]byte(text), &doc); err != nil {
			return err
		}
		data, err := json.Marshal(doc)
		if err != nil {
			return err
		}
		doc = nil
		if err := json.Unmarshal(data, &doc); err != nil {
			return err
		}
		return conforms(schema, doc, "")
	}
	for _, text := range []string{full, string(Example()), "{}", "lists:\n  block:\n"} {
		if err := check(text); err != nil {
			t.Errorf("%.60q: %v", text, err)
		}
	}
	for _, text := range []string{
		"mod: auto", "mode: fast", "dry_run: 1", "interfaces: eth0", "interfaces: [5]", "limits: {sources: 5}",
		"limits: {sources: x}", "limits: {per_source: {all: {packets: 10MiB}}}", "lists: {block: [{comment: x}]}",
		"lists: {block: [example.org]}", "parse: {tunnels: [l2tp]}", "detect: {threshold: 2}", "stats_interval: 10",
		"stats_interval: x", "log: {levl: info}", "pin: true",
	} {
		if err := check(text); err == nil {
			t.Errorf("%q conforms to the schema", text)
		}
	}
}

func conforms(s map[string]any, v any, path string) error {
	for word, arg := range s {
		ok := true
		switch word {
		case "type":
			ok = hasType(arg, v)
		case "enum":
			ok = slices.Contains(arg.([]any), v)
		case "pattern":
			str, is := v.(string)
			ok = !is || regexp.MustCompile(arg.(string)).MatchString(str)
		case "minimum":
			n, is := v.(float64)
			ok = !is || n >= arg.(float64)
		case "maximum":
			n, is := v.(float64)
			ok = !is || n <= arg.(float64)
		case "required":
			m, is := v.(map[string]any)
			ok = !is || m[arg.([]any)[0].(string)] != nil
		case "anyOf":
			ok = slices.ContainsFunc(arg.([]any), func(o any) bool { return conforms(o.(map[string]any), v, path) == nil })
		case "items":
			for i, item := range asList(v) {
				if err := conforms(arg.(map[string]any), item, fmt.Sprintf("%s[%d]", path, i)); err != nil {
					return err
				}
			}
		case "properties":
			for name, item := range asMap(v) {
				p, known := arg.(map[string]any)[name]
				if !known {
					return fmt.Errorf("%s.%s: not in the schema", path, name)
				}
				if err := conforms(p.(map[string]any), item, path+"."+name); err != nil {
					return err
				}
			}
		case "additionalProperties":
			ok = arg == false // what "properties" above relies on
		case "default", "description", "title", "$schema":
		default:
			return fmt.Errorf("%s: the test does not know %q", path, word)
		}
		if !ok {
			return fmt.Errorf("%s: %v does not conform to %s %v", path, v, word, arg)
		}
	}
	return nil
}

func asList(v any) []any         { l, _ := v.([]any); return l }
func asMap(v any) map[string]any { m, _ := v.(map[string]any); return m }

func hasType(want, v any) bool {
	names, ok := want.([]any)
	if !ok {
		names = []any{want}
	}
	var is string
	switch x := v.(type) {
	case nil:
		is = "null"
	case bool:
		is = "boolean"
	case string:
		is = "string"
	case []any:
		is = "array"
	case map[string]any:
		is = "object"
	case float64:
		is = "number"
		if x == math.Trunc(x) && slices.Contains(names, any("integer")) {
			return true
		}
	}
	return slices.Contains(names, any(is))
}
