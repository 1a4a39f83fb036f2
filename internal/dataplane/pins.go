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
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// What is pinned beside an interface's link: the counters, which the next process goes on with.
var pinnedMaps = []string{bpfMapTotals, bpfMapReasons, bpfMapLatency}

const linkPin = "link"

// bpffsName replaces what file names on a bpffs must not have by what interface names do not.
func bpffsName(name string) string { return strings.ReplaceAll(name, ".", ":") }

// OnBPFFS reports whether path is on a mounted bpffs, and if not, how to mount one.
func OnBPFFS(path string) error {
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); err != nil {
		return fmt.Errorf("look at %s: %w", path, err)
	}
	if fs.Type != unix.BPF_FS_MAGIC {
		return fmt.Errorf("%s is not on a bpffs (`mount -t bpf bpf /sys/fs/bpf` mounts one)", path)
	}
	return nil
}

// MakePinDir makes the pin directory, if its parent is on a bpffs; an error says why nothing can be pinned.
func MakePinDir(path string) error {
	if err := OnBPFFS(filepath.Dir(path)); err != nil {
		return err
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return fmt.Errorf("make the pin directory: %w", err)
	}
	return nil
}

// ErrInUse is returned when a living process filters on the interface.
var ErrInUse = errors.New("another sentinel-x is filtering")

// claim makes the interface's pin directory this process's, if pinning is on. The
// lock goes with the process.
func (p *Plane) claim(a *attached) error {
	if p.o.PinPath == "" {
		return nil
	}
	dir, err := pinDir(p.o.PinPath, a.Interface)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make pin directory: %w", err)
	}
	lock, err := lockDir(dir)
	if err != nil {
		return fmt.Errorf("%s: %w", a.Interface, err)
	}
	a.pins, a.lock = dir, lock
	return nil
}

func lockDir(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("open pin directory: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("%w on this interface: stop it first", ErrInUse)
		}
		return nil, fmt.Errorf("lock pin directory %s: %w", dir, err)
	}
	return f, nil
}

func pinnedLink(a *attached) (link.Link, error) {
	if a.pins == "" {
		return nil, nil
	}
	l, err := link.LoadPinnedLink(filepath.Join(a.pins, linkPin), nil)
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
// network namespace; no daemon is needed. It reports whether there was anything, and
// refuses with ErrInUse while that process lives.
func DetachPinned(root, name string) (bool, error) {
	dir, err := pinDir(root, name)
	if err != nil {
		return false, err
	}
	lock, err := lockDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("%s: %w", name, err)
	}
	defer lock.Close()
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

// OnInterface describes the XDP program on an interface of the current network namespace.
type OnInterface struct {
	ProgramID uint32
	Name      string // of the program, empty without the capability to look (CAP_SYS_ADMIN)
	Mode      Mode
}

// Look returns what is attached to an interface, and false if nothing is.
func Look(name string) (OnInterface, bool, error) {
	dev, err := netlink.LinkByName(name)
	if err != nil {
		return OnInterface{}, false, explainLookup(name, err)
	}
	xdp := dev.Attrs().Xdp
	if xdp == nil || !xdp.Attached {
		return OnInterface{}, false, nil
	}
	return OnInterface{ProgramID: xdp.ProgId, Name: programName(xdp.ProgId), Mode: attachedMode(dev)}, true, nil
}

func programName(id uint32) string {
	prog, err := ebpf.NewProgramFromID(ebpf.ProgramID(id))
	if err != nil {
		return ""
	}
	defer prog.Close()
	info, err := prog.Info()
	if err != nil {
		return ""
	}
	return info.Name
}
