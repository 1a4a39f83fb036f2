// SPDX-License-Identifier: Apache-2.0

package main_test

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
)

const module = "github.com/sentinel-x/sentinel-x"

// mayImport is the import table of docs/architecture.md: which of our packages a
// package sees, besides the packages inside its own folder. A package that is
// not in it is an error: a new one needs a line here and a subject of its own.
var mayImport = map[string][]string{
	"traffic":    {},
	"config":     {},
	"signature":  {},
	"model":      {"atomicfile"},
	"atomicfile": {},
	"capture":    {},
	"scene":      {"capture", "traffic", "signature"},
	"dataplane":  {"traffic", "config", "signature"},
	"detect":     {"traffic", "model", "config"},
	"train":      {"traffic", "model", "config", "scene", "detect"},
	"mitigate":   {"traffic", "config", "signature"},
	"api":        {"traffic", "signature"},
	"tui":        {"api", "traffic"},
	"engine":     {"atomicfile", "capture", "traffic", "config", "signature", "model", "scene", "dataplane", "detect", "mitigate", "api"},
	"lab":        {"capture", "engine", "scene", "dataplane", "api", "traffic", "config", "signature"},
	"cli":        {"atomicfile", "engine", "scene", "train", "api", "tui", "lab", "config", "traffic", "signature"},
}

// onlyUser names the one package whose subject a library is.
var onlyUser = map[string]string{
	"github.com/cilium/ebpf":      "dataplane",
	"github.com/cloudflare/cbpfc": "dataplane",
}

// source is one file of ours: Go (parsed), C, or a shell script.
type source struct {
	path string
	text []byte
	syn  *ast.File // nil unless Go
}

func (s source) isTest() bool { return strings.HasSuffix(s.path, "_test.go") }

// owner is the package of the import table that the file belongs to: "dataplane"
// for internal/dataplane/packettest/build.go; "" outside internal/.
func (s source) owner() string {
	rest, ok := strings.CutPrefix(s.path, "internal/")
	if !ok {
		return ""
	}
	name, _, _ := strings.Cut(rest, "/")
	return name
}

func (s source) imports() []string {
	var list []string
	if s.syn == nil {
		return nil
	}
	for _, spec := range s.syn.Imports {
		name, err := strconv.Unquote(spec.Path.Value)
		if err == nil {
			list = append(list, name)
		}
	}
	return list
}

// generated files carry the licence of what they are made from.
var generatedLine = regexp.MustCompile(`(?m)^// Code generated .* DO NOT EDIT\.$`)

func skipDir(name string) bool {
	return name == "bpf/include/bpf" || // vendored
		name == "build" || name == "bin" ||
		(name != "." && strings.HasPrefix(path.Base(name), ".") && name != ".ci")
}

func isSource(name string) bool {
	return slices.Contains([]string{".go", ".c", ".h", ".sh"}, path.Ext(name)) || name == ".ci/run"
}

func load(fsys fs.FS) ([]source, error) {
	var sources []source
	err := fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if skipDir(name) {
				return fs.SkipDir
			}
			return nil
		}
		if !isSource(name) {
			return nil
		}
		s := source{path: name}
		if s.text, err = fs.ReadFile(fsys, name); err != nil {
			return err
		}
		if path.Ext(name) == ".go" {
			s.syn, err = parser.ParseFile(token.NewFileSet(), name, s.text, parser.ParseComments|parser.ImportsOnly)
			if err != nil {
				return fmt.Errorf("parse %s: %w", name, err)
			}
		}
		sources = append(sources, s)
		return nil
	})
	return sources, err
}

// checkImports holds mayImport. Tests may also use the lab and what dataplane
// offers to tests, and those under test/ everything.
func checkImports(sources []source) (wrong []string) {
	for _, s := range sources {
		for _, name := range s.imports() {
			rest, ours := strings.CutPrefix(name, module+"/internal/")
			if !ours {
				continue
			}
			target, _, _ := strings.Cut(rest, "/")
			if !importAllowed(s, target) {
				wrong = append(wrong, fmt.Sprintf("%s imports %s", s.path, name))
			}
		}
	}
	return wrong
}

func importAllowed(s source, target string) bool {
	owner := s.owner()
	switch {
	case owner == target:
		return true
	case strings.HasPrefix(s.path, "test/"), s.isTest() && (target == "lab" || target == "dataplane"):
		return true
	case owner == "":
		return s.path == "main.go" && target == "cli"
	}
	return slices.Contains(mayImport[owner], target)
}

// checkTable: no package outside the table, so that a new one is a decision.
func checkTable(sources []source) (wrong []string) {
	for _, s := range sources {
		owner := s.owner()
		if _, known := mayImport[owner]; owner != "" && s.syn != nil && !known {
			wrong = append(wrong, fmt.Sprintf("%s: package %s is not in the import table", s.path, owner))
		}
	}
	return wrong
}

// checkOnlyUser holds onlyUser; tests under test/ look at the kernel themselves.
func checkOnlyUser(sources []source) (wrong []string) {
	for _, s := range sources {
		for _, name := range s.imports() {
			for library, user := range onlyUser {
				if (name == library || strings.HasPrefix(name, library+"/")) &&
					s.owner() != user && !strings.HasPrefix(s.path, "test/") {
					wrong = append(wrong, fmt.Sprintf("%s imports %s: only internal/%s may", s.path, name, user))
				}
			}
		}
	}
	return wrong
}

// checkPrograms: the product starts no other program, and links no C.
func checkPrograms(sources []source) (wrong []string) {
	for _, s := range sources {
		starts := s.isTest() || s.owner() == "lab" || strings.HasPrefix(s.path, "test/")
		for _, name := range s.imports() {
			if name == "C" || (name == "os/exec" && !starts) {
				wrong = append(wrong, fmt.Sprintf("%s imports %q", s.path, name))
			}
		}
	}
	return wrong
}

// checkPackageDocs: every package that is not only tests says what it is for.
func checkPackageDocs(sources []source) (wrong []string) {
	documented := map[string]bool{}
	for _, s := range sources {
		if s.syn == nil || s.isTest() {
			continue
		}
		dir := path.Dir(s.path)
		documented[dir] = documented[dir] || s.syn.Doc != nil
	}
	for dir, ok := range documented {
		if !ok {
			wrong = append(wrong, dir+": no package comment")
		}
	}
	return wrong
}

// checkLicences: an SPDX line within the first three lines, C under the kernel's
// terms, everything else under Apache-2.0.
func checkLicences(sources []source) (wrong []string) {
	for _, s := range sources {
		if s.syn != nil && generatedLine.Match(s.text) {
			continue
		}
		want := "SPDX-License-Identifier: Apache-2.0"
		if ext := path.Ext(s.path); ext == ".c" || ext == ".h" {
			want = "SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause"
		}
		head := bytes.SplitAfterN(s.text, []byte("\n"), 4)
		if !bytes.Contains(bytes.Join(head[:min(3, len(head))], nil), []byte(want)) {
			wrong = append(wrong, fmt.Sprintf("%s: no line %q at its top", s.path, want))
		}
	}
	return wrong
}

// rules, each with a smallest tree that breaks it: a rule that cannot fail is none.
var rules = []struct {
	name   string
	check  func([]source) []string
	broken fstest.MapFS
}{
	{"imports follow the table", checkImports, fstest.MapFS{
		"internal/config/x.go": {Data: []byte("package config\nimport _ \"" + module + "/internal/engine\"\n")},
	}},
	{"every package is in the table", checkTable, fstest.MapFS{
		"internal/util/x.go": {Data: []byte("package util\n")},
	}},
	{"a library has one user", checkOnlyUser, fstest.MapFS{
		"internal/engine/x.go": {Data: []byte("package engine\nimport _ \"github.com/cilium/ebpf/link\"\n")},
	}},
	{"no other programs, no cgo", checkPrograms, fstest.MapFS{
		"internal/engine/x.go": {Data: []byte("package engine\nimport _ \"os/exec\"\n")},
	}},
	{"every package has a comment", checkPackageDocs, fstest.MapFS{
		"internal/engine/x.go": {Data: []byte("// SPDX-License-Identifier: Apache-2.0\n\npackage engine\n")},
	}},
	{"every file names its licence", checkLicences, fstest.MapFS{
		"bpf/x.h": {Data: []byte("/* SPDX-License-Identifier: GPL-2.0 */\n")},
	}},
}

func TestRepositoryRules(t *testing.T) {
	sources, err := load(os.DirFS("."))
	if err != nil {
		t.Fatal(err)
	}
	if len(sources) < 10 {
		t.Fatalf("found %d source files: not run in the root of the repository", len(sources))
	}
	for _, rule := range rules {
		t.Run(rule.name, func(t *testing.T) {
			for _, line := range rule.check(sources) {
				t.Error(line)
			}
			broken, err := load(rule.broken)
			if err != nil {
				t.Fatal(err)
			}
			if len(rule.check(broken)) == 0 {
				t.Error("the rule accepts a tree that breaks it")
			}
		})
	}
}

// TestMakefileTargetsAreDocumented: `make help` is the list of what can be done.
func TestMakefileTargetsAreDocumented(t *testing.T) {
	text, err := os.ReadFile("Makefile")
	if err != nil {
		t.Fatal(err)
	}
	target := regexp.MustCompile(`(?m)^([a-z][a-z-]*):([^=].*)?$`)
	found := target.FindAllStringSubmatch(string(text), -1)
	if len(found) < 10 {
		t.Fatalf("found only %d targets in the Makefile", len(found))
	}
	for _, m := range found {
		if !strings.Contains(m[2], "##") {
			t.Errorf("target %s has no ## description", m[1])
		}
	}
}

// brokenLinks lists the relative links of Markdown pages that lead nowhere.
func brokenLinks(fsys fs.FS) (wrong []string, err error) {
	link := regexp.MustCompile(`\]\(([^)#]+)[^)]*\)`)
	err = fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && skipDir(name):
			return fs.SkipDir
		case path.Ext(name) != ".md":
			return nil
		}
		text, err := fs.ReadFile(fsys, name)
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			target := path.Join(path.Dir(name), m[1])
			if _, missing := fs.Stat(fsys, target); missing != nil && !strings.Contains(m[1], "://") {
				wrong = append(wrong, fmt.Sprintf("%s links to %s, which is not there", name, m[1]))
			}
		}
		return err
	})
	return wrong, err
}

func TestLinks(t *testing.T) {
	wrong, err := brokenLinks(os.DirFS("."))
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range wrong {
		t.Error(line)
	}
	broken := fstest.MapFS{"docs/x.md": {Data: []byte("[there](x.md), [not](y.md#part)")}}
	if wrong, err = brokenLinks(broken); len(wrong) != 1 || err != nil {
		t.Errorf("one broken link, found %q, %v", wrong, err)
	}
}
