// SPDX-License-Identifier: Apache-2.0

// Package atomicfile puts files in their place whole or not at all, whenever the
// machine stops.
package atomicfile

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// unfinished ends the name of a draft.
const unfinished = ".unfinished"

// Write writes a file beside its place, puts it on the disk, and then moves it
// there, in place of what there was; mode is its permissions, whatever the umask.
// When write fails, nothing has changed. Only a crash leaves a draft behind: see Sweep.
func Write(path string, mode fs.FileMode, write func(io.Writer) error) error {
	dir, name := filepath.Split(path)
	dir = filepath.Clean(dir)
	draft, err := os.CreateTemp(dir, "."+name+".*"+unfinished)
	if err != nil {
		return err
	}
	err = write(draft)
	if err == nil {
		err = errors.Join(draft.Chmod(mode), draft.Sync())
	}
	err = errors.Join(err, draft.Close())
	if err == nil {
		err = os.Rename(draft.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(draft.Name()))
	}
	return SyncDir(dir)
}

// SyncDir puts the names in a directory on the disk.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Sweep removes the drafts that crashes left of files whose names begin like
// that. Nobody may be writing one.
func Sweep(dir, prefix string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "."+prefix) && strings.HasSuffix(e.Name(), unfinished) {
			errs = append(errs, os.Remove(filepath.Join(dir, e.Name())))
		}
	}
	return errors.Join(errs...)
}
