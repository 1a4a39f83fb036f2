// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sentinel-x/sentinel-x/internal/config"
	"github.com/sentinel-x/sentinel-x/internal/detect"
	"github.com/sentinel-x/sentinel-x/internal/model"
)

// modelText returns the trees of the program as a file.
func modelText(t *testing.T) []byte {
	t.Helper()
	trees, err := detect.DefaultTrees()
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := trees.WriteJSON(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// renamed returns a model with another name for a feature, and the hash that fits.
func renamed(t *testing.T, data []byte, name string) []byte {
	t.Helper()
	names := model.Schema(detect.Names())
	names[slices.Index(names, name)] = "some_other_feature"
	data = change(t, data, detect.SchemaHash(), names.Hash())
	return change(t, data, `"`+name+`"`, `"some_other_feature"`)
}

func modelFile(t *testing.T, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "model.json")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// change replaces the first match in the text of a model, which has to be there.
func change(t *testing.T, data []byte, old, to string) []byte {
	t.Helper()
	if !bytes.Contains(data, []byte(old)) {
		t.Fatalf("the model has no %q", old)
	}
	return bytes.Replace(data, []byte(old), []byte(to), 1)
}

// What detection cannot use is refused with what is wrong, and changes nothing.
func TestBadModelsAreRefused(t *testing.T) {
	good := modelText(t)
	first := bytes.Index(good, []byte(`"left_children":[`)) + len(`"left_children":[`)
	end := first + bytes.IndexByte(good[first:], ',')
	cycle := slices.Concat(good[:first], []byte("0"), good[end:])
	at := bytes.Index(good, []byte(`"split_conditions":[`)) + len(`"split_conditions":[`)
	comma := at + bytes.IndexByte(good[at:], ',')
	nan := slices.Concat(good[:at], []byte("NaN"), good[comma:])
	name := detect.Names()[3]
	for what, c := range map[string]struct {
		data []byte
		want string
	}{
		"cut":      {good[:len(good)/2], "read model"},
		"empty":    {nil, "the file is empty"},
		"foreign":  {append([]byte("binf"), good...), "older binary format is not read"},
		"NaN":      {nan, "NaN"},
		"cycle":    {cycle, "reached twice"},
		"features": {renamed(t, good, name), "some_other_feature"},
	} {
		check, err := VerifyModel(modelFile(t, c.data))
		if err == nil || !strings.Contains(err.Error(), c.want) || check.OK || check.Error != err.Error() {
			t.Errorf("%s: %.300v, %v", what, err, check.OK)
		}
		if what == "features" && (check.Model == nil || !slices.Contains(check.Model.Features, "some_other_feature") ||
			!slices.Equal(check.Wanted, detect.Names()) || !strings.Contains(err.Error(), name)) {
			t.Errorf("the lists of features are missing: %+v", check)
		}
		dir := filepath.Join(t.TempDir(), "models")
		if _, err := ImportModel(dir, modelFile(t, c.data)); err == nil {
			t.Errorf("%s: imported", what)
		}
		if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: the refused import left %s: %v", what, dir, err)
		}
	}
	if _, err := VerifyModel(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

// Import and rollback move between generations, three of which are kept.
func TestModelGenerations(t *testing.T) {
	file, c := modelFile(t, modelText(t)), config.Detect{ModelDir: filepath.Join(t.TempDir(), "models")}
	s, err := ShowModels(c)
	if err != nil || s.Live == nil || s.Live.Origin != builtInName || len(s.Generations) != 0 || s.Live.SchemaHash != detect.SchemaHash() {
		t.Fatalf("at first: %+v, %v", s.Live, err)
	}
	if _, err := RollbackModel(c.ModelDir); err == nil {
		t.Error("rolled back in no directory")
	}
	for n := 1; n <= 4; n++ {
		if got, err := ImportModel(c.ModelDir, file); err != nil || got.Number != n {
			t.Fatalf("import %d: %d, %v", n, got.Number, err)
		}
	}
	if got, err := RollbackModel(c.ModelDir); err != nil || got.Number != 3 || got.Model.Trees == 0 {
		t.Errorf("rollback: %d, %v", got.Number, err)
	}
	if err := os.WriteFile(generationFile(t, c, 3), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err = ShowModels(c)
	if err != nil || len(s.Generations) != 2 || s.Generations[0].Error == "" || s.Generations[0].Live || !s.Generations[1].Live || s.Generations[1].Number != 2 {
		t.Errorf("with a damaged one: %+v, %v", s.Generations, err)
	}
	live, err := openLive(c.ModelDir)
	if err != nil || live.name != s.Live.Origin || live.damaged == nil {
		t.Errorf("a replay uses %s instead of %s: %v, %v", live.name, s.Live.Origin, live.damaged, err)
	}
}

// generationFile returns the file of a generation.
func generationFile(t *testing.T, c config.Detect, number int) string {
	t.Helper()
	s, err := ShowModels(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range s.Generations {
		if g.Number == number {
			return g.File
		}
	}
	t.Fatalf("no generation %d in %+v", number, s.Generations)
	return ""
}
