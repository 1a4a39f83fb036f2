// SPDX-License-Identifier: Apache-2.0

package model

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func openGenerations(t *testing.T) (*Generations, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "models")
	g, err := OpenGenerations(dir, "forest.json")
	if err != nil {
		t.Fatal(err)
	}
	return g, dir
}

func saveText(t *testing.T, g *Generations, text string) int {
	t.Helper()
	n, err := g.Save(func(w io.Writer) error {
		_, err := io.WriteString(w, text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// into reads a generation, and refuses one that begins with "bad".
func into(text *string) func(io.Reader) error {
	return func(r io.Reader) error {
		b, err := io.ReadAll(r)
		if strings.HasPrefix(string(b), "bad") {
			return errors.New("it is bad")
		}
		*text = string(b)
		return err
	}
}

func names(t *testing.T, dir string) (list []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

func TestGenerationsKeepThree(t *testing.T) {
	g, dir := openGenerations(t)
	if _, _, err := g.Load(into(new(string))); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("empty directory: %v", err)
	}
	for _, text := range []string{"one", "two", "three", "four"} {
		saveText(t, g, text)
	}
	if got := names(t, dir); !slices.Equal(got, []string{"forest.000002.json", "forest.000003.json", "forest.000004.json"}) {
		t.Errorf("files %v", got)
	}
	var text string
	if n, damaged, err := g.Load(into(&text)); n != 4 || text != "four" || damaged != nil || err != nil {
		t.Errorf("generation %d %q, %v, %v", n, text, damaged, err)
	}
	if info, err := os.Stat(g.Path(4)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

func TestGenerationsPassDamagedOnesOver(t *testing.T) {
	g, _ := openGenerations(t)
	saveText(t, g, "one")
	saveText(t, g, "bad two")
	saveText(t, g, "bad three")
	var text string
	n, damaged, err := g.Load(into(&text))
	if n != 1 || text != "one" || err != nil {
		t.Fatalf("generation %d %q, %v", n, text, err)
	}
	for _, n := range []int{2, 3} {
		if !strings.Contains(damaged.Error(), g.Path(n)+": it is bad") {
			t.Errorf("%q does not name %s", damaged, g.Path(n))
		}
	}
	saveText(t, g, "bad four")
	if _, _, err := g.Load(into(&text)); err == nil || !strings.Contains(err.Error(), g.Path(4)) || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("nothing readable: %v", err)
	}
}

func TestGenerationsRollBack(t *testing.T) {
	g, dir := openGenerations(t)
	saveText(t, g, "one")
	if _, err := g.Rollback(into(new(string))); err == nil || !strings.Contains(err.Error(), "no earlier generation") {
		t.Errorf("one generation: %v", err)
	}
	saveText(t, g, "bad two")
	saveText(t, g, "three")
	var text string
	if n, err := g.Rollback(into(&text)); n != 1 || text != "one" || err != nil {
		t.Fatalf("rolled back to %d %q, %v", n, text, err)
	}
	again, err := OpenGenerations(dir, "forest.json")
	if err != nil {
		t.Fatal(err)
	}
	if n, damaged, err := again.Load(into(&text)); n != 1 || damaged != nil || err != nil {
		t.Errorf("after a restart: %d, %v, %v", n, damaged, err)
	}
	if n := saveText(t, again, "four"); n != 4 {
		t.Errorf("the next generation is %d: a number was used twice", n)
	}
	if got := names(t, dir); !slices.Equal(got, []string{"forest.000001.json", "forest.000004.json"}) {
		t.Errorf("files %v", got)
	}
}

// TestGenerationsRollBackOnlyToAReadableOne: otherwise nothing changes.
func TestGenerationsRollBackOnlyToAReadableOne(t *testing.T) {
	g, dir := openGenerations(t)
	saveText(t, g, "bad one")
	saveText(t, g, "two")
	before := names(t, dir)
	if _, err := g.Rollback(into(new(string))); err == nil || !strings.Contains(err.Error(), g.Path(1)) {
		t.Errorf("error %v", err)
	}
	if after := names(t, dir); !slices.Equal(before, after) {
		t.Errorf("files %v, before %v", after, before)
	}
}

// TestGenerationsInterruptedRollBack: what was live stays so if not all is renamed.
func TestGenerationsInterruptedRollBack(t *testing.T) {
	g, _ := openGenerations(t)
	saveText(t, g, "one")
	saveText(t, g, "bad two")
	saveText(t, g, "three")
	if err := os.Mkdir(g.Path(2)+withdrawn, 0o700); err != nil { // in the way
		t.Fatal(err)
	}
	if _, err := g.Rollback(into(new(string))); err == nil {
		t.Error("no error")
	}
	var text string
	if n, _, err := g.Load(into(&text)); n != 3 || err != nil {
		t.Errorf("generation %d %q is live, %v", n, text, err)
	}
}

// TestGenerationsFailedSave: the live generation stays, and nothing half done.
func TestGenerationsFailedSave(t *testing.T) {
	g, dir := openGenerations(t)
	saveText(t, g, "one")
	failure := errors.New("disk full")
	_, err := g.Save(func(w io.Writer) error {
		_, _ = io.WriteString(w, "half of tw")
		return failure
	})
	if !errors.Is(err, failure) {
		t.Errorf("error %v", err)
	}
	if got := names(t, dir); !slices.Equal(got, []string{"forest.000001.json"}) {
		t.Errorf("files %v", got)
	}
	// A draft that a crash left is in nobody's way, and goes.
	if err := os.WriteFile(filepath.Join(dir, ".forest.000002.json.1.unfinished"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	saveText(t, g, "two")
	if got := names(t, dir); !slices.Equal(got, []string{"forest.000001.json", "forest.000002.json"}) {
		t.Errorf("files %v", got)
	}
	var text string
	if n, _, err := g.Load(into(&text)); n != 2 || text != "two" || err != nil {
		t.Errorf("generation %d %q, %v", n, text, err)
	}
}

func TestGenerationsLeaveOtherFilesAlone(t *testing.T) {
	g, dir := openGenerations(t)
	others := []string{"forest.json", "forest.7.json", "forest.+00008.json", "forest.000009.ubj", "trees.000010.json", "forest.0000011.json"}
	for _, name := range others {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("bad"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for range 5 {
		saveText(t, g, "text")
	}
	got := names(t, dir)
	for _, name := range others {
		if !slices.Contains(got, name) {
			t.Errorf("%s is gone", name)
		}
	}
	if list, err := g.Numbers(); err != nil || !slices.Equal(list, []int{5, 4, 3}) {
		t.Errorf("generations %v, %v", list, err)
	}
	for _, name := range []string{"", ".json", "a/b.json", ".."} {
		if _, err := OpenGenerations(dir, name); err == nil {
			t.Errorf("%q was accepted as a name", name)
		}
	}
	if _, err := OpenGenerations(filepath.Join(dir, "forest.json"), "x.json"); err == nil {
		t.Error("a file was accepted as the directory")
	}
}
