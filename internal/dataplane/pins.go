// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// What is pinned beside an interface's link: the counters, which the next process goes on with.
var pinnedMaps = []string{bpfMapTotals, bpfMapReasons, bpfMapLatency}

const linkPin = "link"

// bpffsName replaces what file names on a bpffs must not have by what interface names do not.
func bpffsName(name string) string { return strings.ReplaceAll(name, ".", ":") }

// CanPin reports whether a directory can be made at path on a mounted bpffs, and if not why.
func CanPin(path string) error {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return fmt.Errorf("make the pin directory: %w", err)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); err != nil {
		return fmt.Errorf("look at %s: %w", path, err)
	}
	if fs.Type != unix.BPF_FS_MAGIC {
		os.Remove(path) // made a moment ago in the wrong place; left if not empty
		return fmt.Errorf("%s is not on a bpffs (`mount -t bpf bpf /sys/fs/bpf` mounts one)", path)
	}
	return nil
}

func (p *Plane) pinnedLink(a *attached) (link.Link, error) {
	if p.o.PinPath == "" {
		return nil, nil
	}
	dir, err := pinDir(p.o.PinPath, a.Interface)
	if err != nil {
		return nil, err
	}
	a.pins = dir
	l, err := link.LoadPinnedLink(filepath.Join(dir, linkPin), nil)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open the pinned link of %s: %w", a.Interface, err)
	}
	return l, nil
}

// adoptMaps opens the counters of an earlier process, where they have the layout of this version.
func (p *Plane) adoptMaps() map[string]*ebpf.Map {
	adopted := map[string]*ebpf.Map{}
	if p.o.PinPath == "" || p.o.AdoptFrom == "" {
		return adopted
	}
	dir, err := pinDir(p.o.PinPath, p.o.AdoptFrom)
	if err != nil {
		return adopted
	}
	for _, name := range pinnedMaps {
		m, err := ebpf.LoadPinnedMap(filepath.Join(dir, name), nil)
		if err != nil {
			continue
		}
		if err := p.spec.Maps[name].Compatible(m); err != nil {
			p.log.Warn("counters of the earlier version have another layout and begin anew", "map", name)
			m.Close()
			continue
		}
		adopted[name] = m
	}
	return adopted
}

// pin makes link and counters outlive the process. Each step can be repeated over
// what an interrupted earlier one left.
func (p *Plane) pin(a *attached) error {
	if a.pins == "" {
		return nil
	}
	if err := os.MkdirAll(a.pins, 0o700); err != nil {
		return fmt.Errorf("make pin directory: %w", err)
	}
	m := p.objs.bpfMaps
	for name, x := range map[string]*ebpf.Map{bpfMapTotals: m.Totals, bpfMapReasons: m.Reasons, bpfMapLatency: m.Latency} {
		x, err := x.Clone() // a Map remembers one pin; every interface has its own
		if err == nil {
			err = repin(x.Pin, filepath.Join(a.pins, name))
			x.Close()
		}
		if err != nil {
			return fmt.Errorf("pin %s: %w", name, err)
		}
	}
	if !a.Adopted {
		if err := repin(a.link.Pin, filepath.Join(a.pins, linkPin)); err != nil {
			return fmt.Errorf("pin the link of %s: %w", a.Interface, err)
		}
	}
	a.Pinned = true
	return nil
}

func repin(pin func(string) error, path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return pin(path)
}

// DetachPinned removes what an earlier process left pinned for an interface of the current
// network namespace; no daemon is needed. It reports whether there was anything.
func DetachPinned(root, name string) (bool, error) {
	dir, err := pinDir(root, name)
	if err != nil {
		return false, err
	}
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	l, err := link.LoadPinnedLink(filepath.Join(dir, linkPin), nil)
	switch {
	case err == nil:
		err = detachLink(l)
	case errors.Is(err, os.ErrNotExist):
		err = nil // it died between its steps
	}
	if err == nil {
		err = os.RemoveAll(dir)
	}
	if err != nil {
		return false, fmt.Errorf("detach from %s: %w", name, err)
	}
	return true, nil
}
