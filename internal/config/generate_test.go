// SPDX-License-Identifier: Apache-2.0

package config

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the generated files instead of comparing them")

// TestGenerated holds the files that follow from the struct tags to them.
func TestGenerated(t *testing.T) {
	for path, want := range map[string][]byte{
		"../../docs/configuration.md":             markdown(),
		"../../docs/configuration.schema.json":    Schema(),
		"../../packaging/sentinel-x.example.yaml": Example(),
	} {
		if *update {
			if err := os.WriteFile(path, want, 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		got, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), string(got)); diff != "" {
			t.Errorf("%s is not what internal/config describes; run `go generate ./internal/config` (-want +got):\n%s", path, diff)
		}
	}
}

// markdown writes docs/configuration.md.
func markdown() []byte {
	var b bytes.Buffer
	b.WriteString(markdownHead)
	b.WriteString("| key | type | default | reload | meaning |\n|---|---|---|---|---|\n")
	root := reflect.ValueOf(Default())
	for _, k := range keys(root.Type(), "", false) {
		if k.section() {
			fmt.Fprintf(&b, "| **`%s`** | section | | | **%s** |\n", k.path, k.field.Tag.Get("desc"))
			continue
		}
		reload := "restart"
		if k.live {
			reload = "live"
		}
		fmt.Fprintf(&b, "| `%s` | %s | `%s` | %s | %s |\n", k.path, describeType(k),
			defaultText(valueAt(root, k.path)), reload, k.field.Tag.Get("desc")+rangeText(k))
	}
	b.WriteString("\n## Example: every default\n\n```yaml\n")
	b.Write(Default().Marshal())
	b.WriteString("```\n")
	return b.Bytes()
}

func defaultText(v reflect.Value) string {
	if v.Kind() == reflect.Slice {
		return "[]"
	}
	return scalarText(v)
}

func rangeText(k key) string {
	low, high := k.field.Tag.Get("min"), k.field.Tag.Get("max")
	switch {
	case low == "" && high == "":
		return ""
	case low == "":
		low = "0"
	}
	return " From " + low + " to " + high + "."
}

// describeType names the type of a key in documentation.
func describeType(k key) string {
	switch t := k.field.Type; {
	case len(k.enum()) > 0 && t.Kind() == reflect.Slice:
		return "list of " + strings.Join(k.enum(), ", ")
	case len(k.enum()) > 0:
		return strings.Join(k.enum(), ", ")
	case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.String:
		return "list of names"
	case t.Kind() == reflect.Slice:
		return "list of prefixes"
	case t == reflect.TypeFor[Duration]():
		return "duration"
	case t == reflect.TypeFor[Count]():
		return "number (k, M, G)"
	case t == reflect.TypeFor[Bytes]():
		return "bytes (k, M, G, KiB, MiB, GiB)"
	case t.Kind() == reflect.Bool:
		return "true, false"
	case t.Kind() == reflect.String:
		return "text"
	case t.Kind() == reflect.Float64:
		return "number"
	}
	return "whole number"
}

const markdownHead = `# Configuration

<!-- Generated from internal/config by go generate; do not edit. -->

One YAML file, the one that ` + "`--config`" + ` names. Every key is optional; flags override the file.
[packaging/sentinel-x.example.yaml](../packaging/sentinel-x.example.yaml) holds all defaults with comments, and
[configuration.schema.json](configuration.schema.json) (` + "`sentinel-x config schema`" + `) teaches an editor the keys.

The reader is strict. An unknown key, a value of the wrong type or out of range, a key given twice: each is an error with
file, line, column and key path, and for an unknown key the nearest known one. Nothing is applied then. YAML anchors,
aliases, tags and second documents are refused, as are files over 1 MiB (long lists go in with ` + "`sentinel-x block import`" + `).

    sentinel-x config check FILE    # read it, say what is wrong with it
    sentinel-x config show          # the whole configuration of the running engine
    sentinel-x config show FILE     # ... of a file, defaults included
    sentinel-x config schema        # JSON schema

A reload (SIGHUP, or through the API) applies the whole file or keeps the old configuration. Keys marked *live* take effect at once;
a file that changes one marked *restart* is refused with the names of those keys, and takes a restart.

Durations: ` + "`10s`, `250ms`, `1h30m`" + `. Numbers of packets: ` + "`5000` or `5k`" + ` (k, M, G). Bytes: ` + "`1000000`, `1M` or `1MiB`" + ` (k, M, G are
powers of 1000; KiB, MiB, GiB of 1024). Prefixes: a host (` + "`192.0.2.7`, `2001:db8::7`" + `) or CIDR without host bits
(` + "`192.0.2.0/24`" + `); IPv4-mapped IPv6 and zones are refused. List entries are prefixes, or objects:

    lists:
      block:
        - 192.0.2.0/24
        - {prefix: "2001:db8::/48", comment: "scanner, ticket 4711"}

## Keys

`
