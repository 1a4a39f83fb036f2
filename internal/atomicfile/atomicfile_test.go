// SPDX-License-Identifier: Apache-2.0

package atomicfile

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func text(s string) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := io.WriteString(w, s)
		return err
	}
}

// check compares a directory with names and the first file with a text.
func check(t *testing.T, dir, want string, names ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if !slices.Equal(got, names) {
		t.Errorf("files %v, want %v", got, names)
	}
	if have, err := os.ReadFile(filepath.Join(dir, "a.txt")); string(have) != want || err != nil {
		t.Errorf("a.txt has %q, %v; want %q", have, err, want)
	}
}

func TestWriteReplaces(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.txt")
	for _, s := range []string{"one", "two"} {
		if err := Write(path, 0o640, text(s)); err != nil {
			t.Fatal(err)
		}
		check(t, dir, s, "a.txt")
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o640 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	t.Chdir(dir)
	if err := Write("a.txt", 0o600, text("three")); err != nil {
		t.Fatal(err)
	}
	check(t, dir, "three", "a.txt")
}

// TestFailedWrite: what there was stays, and nothing is beside it.
func TestFailedWrite(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.txt")
	if err := Write(path, 0o600, text("one")); err != nil {
		t.Fatal(err)
	}
	full := errors.New("disk full")
	err := Write(path, 0o600, func(w io.Writer) error {
		_ = text("half of tw")(w)
		if have, err := os.ReadFile(path); string(have) != "one" || err != nil {
			t.Errorf("while it is written: %q, %v", have, err)
		}
		return full
	})
	if !errors.Is(err, full) {
		t.Errorf("error %v", err)
	}
	check(t, dir, "one", "a.txt")
	if err := os.Mkdir(filepath.Join(dir, "d"), 0o700); err != nil {
		t.Fatal(err)
	}
	if Write(filepath.Join(dir, "d"), 0o600, text("x")) == nil {
		t.Error("a directory was replaced")
	}
	check(t, dir, "one", "a.txt", "d")
	if err := Write(filepath.Join(dir, "none", "b.txt"), 0o600, text("x")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("in no directory: %v", err)
	}
}

func TestSweep(t *testing.T) {
	dir := t.TempDir()
	if err := Write(filepath.Join(dir, "a.txt"), 0o600, text("one")); err != nil {
		t.Fatal(err)
	}
	others := []string{".a.txt", ".b.txt.1" + unfinished, "a.txt" + unfinished}
	for _, name := range append(slices.Clone(others), ".a.txt.1"+unfinished, ".a.2.txt.33"+unfinished) {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := Sweep(dir, "a."); err != nil {
		t.Fatal(err)
	}
	check(t, dir, "one", append([]string{".a.txt", ".b.txt.1" + unfinished, "a.txt"}, others[2])...)
	if Sweep(filepath.Join(dir, "none"), "a.") == nil {
		t.Error("no error without a directory")
	}
}
