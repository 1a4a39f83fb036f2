// SPDX-License-Identifier: Apache-2.0

package model

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/sentinel-x/sentinel-x/internal/atomicfile"
)

const (
	keptGenerations = 3
	withdrawn       = ".withdrawn"
)

// Generations keeps the last three versions of one model as files in a directory:
// "forest.json" is in forest.000001.json, forest.000002.json and so on, the highest
// number being the live one. A version is whole or not there at all, whenever the
// machine stops. One process may write; it is not safe for concurrent use.
type Generations struct {
	dir, stem, ext string
}

// OpenGenerations names the model and makes the directory if it is not there.
func OpenGenerations(dir, name string) (*Generations, error) {
	ext := filepath.Ext(name)
	stem := strings.TrimSuffix(name, ext)
	if stem == "" || len(ext) < 2 || name != filepath.Base(name) {
		return nil, fmt.Errorf("open model directory: %q is not a file name with an extension", name)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open model directory: %w; set --model-dir to a directory that can be written", err)
	}
	return &Generations{dir: dir, stem: stem, ext: ext}, nil
}

// Path returns the name of a generation's file.
func (g *Generations) Path(number int) string {
	return filepath.Join(g.dir, fmt.Sprintf("%s.%06d%s", g.stem, number, g.ext))
}

// Numbers lists the generations that can be gone back to, the live one first.
func (g *Generations) Numbers() ([]int, error) { return g.numbers("") }

// numbers lists the files with a suffix behind the name, newest first.
func (g *Generations) numbers(suffix string) ([]int, error) {
	entries, err := os.ReadDir(g.dir)
	if err != nil {
		return nil, fmt.Errorf("list the generations of %s%s: %w", g.stem, g.ext, err)
	}
	var list []int
	for _, e := range entries {
		digits, isOurs := strings.CutPrefix(e.Name(), g.stem+".")
		digits, ends := strings.CutSuffix(digits, g.ext+suffix)
		n, err := strconv.Atoi(digits)
		if !isOurs || !ends || err != nil || filepath.Base(g.Path(n))+suffix != e.Name() {
			continue
		}
		list = append(list, n)
	}
	slices.Sort(list)
	slices.Reverse(list)
	return list, nil
}

// Save writes a new generation and makes it the live one. The file is on the disk
// before it has its name. Generations older than the last three are removed, and so
// are those withdrawn before.
func (g *Generations) Save(write func(io.Writer) error) (number int, err error) {
	live, err := g.numbers("")
	if err != nil {
		return 0, err
	}
	back, err := g.numbers(withdrawn)
	if err != nil {
		return 0, err
	}
	for _, n := range append(slices.Clone(live), back...) {
		number = max(number, n)
	}
	number++ // never one that somebody has heard of
	if err := atomicfile.Write(g.Path(number), 0o600, write); err != nil {
		return 0, fmt.Errorf("save model %s: %w", g.Path(number), err)
	}
	return number, g.prune(live, back)
}

// prune removes what a new generation, besides those in live, makes obsolete, and
// drafts that crashes left.
func (g *Generations) prune(live, back []int) error {
	errs := []error{atomicfile.Sweep(g.dir, g.stem+".")}
	for _, n := range live[min(len(live), keptGenerations-1):] {
		errs = append(errs, os.Remove(g.Path(n)))
	}
	for _, n := range back {
		errs = append(errs, os.Remove(g.Path(n)+withdrawn))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove old generations: %w", err)
	}
	return nil
}

// Load reads the newest generation that read accepts. Those that it refuses are
// passed over: damaged then says which files, and why, even though err is nil. When
// none is left err says so (fs.ErrNotExist if there never was one).
func (g *Generations) Load(read func(io.Reader) error) (number int, damaged, err error) {
	list, err := g.numbers("")
	if err != nil {
		return 0, nil, err
	}
	return g.firstReadable(list, read)
}

func (g *Generations) firstReadable(list []int, read func(io.Reader) error) (number int, damaged, err error) {
	var errs []error
	for _, n := range list {
		err := readFile(g.Path(n), read)
		if err == nil {
			return n, errors.Join(errs...), nil
		}
		errs = append(errs, err)
	}
	if len(errs) == 0 {
		return 0, nil, fmt.Errorf("%s has no generation of %s%s: %w", g.dir, g.stem, g.ext, fs.ErrNotExist)
	}
	damaged = errors.Join(errs...)
	return 0, damaged, fmt.Errorf("no generation of %s%s can be read: %w", g.stem, g.ext, damaged)
}

func readFile(path string, read func(io.Reader) error) error {
	file, err := os.Open(path)
	if err != nil {
		return err // names the file
	}
	defer file.Close()
	if err := read(file); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// Rollback withdraws the live generation, so that the newest one before it that read
// accepts is live, now and after a restart. It changes nothing if there is none.
// What was withdrawn stays beside, renamed, until the next Save.
func (g *Generations) Rollback(read func(io.Reader) error) (number int, err error) {
	list, err := g.numbers("")
	if err != nil {
		return 0, err
	}
	if len(list) < 2 {
		return 0, fmt.Errorf("roll back %s%s: %s has no earlier generation", g.stem, g.ext, g.dir)
	}
	number, _, err = g.firstReadable(list[1:], read)
	if err != nil {
		return 0, fmt.Errorf("roll back %s%s: %w", g.stem, g.ext, err)
	}
	// The live one last: stopped in between, nothing has changed.
	for _, n := range slices.Backward(list[:slices.Index(list, number)]) {
		if err := os.Rename(g.Path(n), g.Path(n)+withdrawn); err != nil {
			return 0, fmt.Errorf("roll back %s%s: %w", g.stem, g.ext, err)
		}
	}
	if err := atomicfile.SyncDir(g.dir); err != nil {
		return 0, fmt.Errorf("roll back %s%s: %w", g.stem, g.ext, err)
	}
	return number, nil
}
