// SPDX-License-Identifier: Apache-2.0

// Package lab builds networks of namespaces and veth pairs on one machine, and
// the traffic to try the engine with: floods, captures, and real clients and
// servers whose success is measured at their own end.
//
// Everything is named with the prefix sx- and the owning process, is removed by
// Close, and, after a crash, by the next New. Interfaces exist only inside the
// namespaces; the namespace the process was started in is never changed.
package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

const (
	prefix   = "sx-"
	netnsDir = "/run/netns"
	filesDir = "/run/sentinel-x-lab" // for directories named as the namespaces are
)

// Lab owns namespaces. Its methods may be called from several goroutines.
type Lab struct {
	id    string // unique in this machine: process, its start, number in the process
	veths atomic.Uint32

	mu     sync.Mutex
	spaces []*Namespace
	dir    string // "": not made
}

var labs atomic.Uint32

// New removes what dead processes left behind, and returns an empty lab. It
// needs root, or CAP_SYS_ADMIN, CAP_NET_ADMIN and CAP_NET_RAW.
func New() (*Lab, error) {
	if err := shareNetnsDir(); err != nil {
		return nil, fmt.Errorf("prepare %s for named network namespaces (run as root): %w", netnsDir, err)
	}
	if err := RemoveLeftovers(); err != nil {
		return nil, err
	}
	start, err := startTime(os.Getpid())
	if err != nil {
		return nil, err
	}
	n := labs.Add(1)
	return &Lab{id: fmt.Sprintf("%d-%s-%d", os.Getpid(), start, n)}, nil
}

// shareNetnsDir makes the directory a shared mount, as `ip netns add` does when
// it is first called: done by it later, that would hide our namespaces under it.
func shareNetnsDir() error {
	if err := os.MkdirAll(netnsDir, 0o755); err != nil {
		return err
	}
	share := func() error { return unix.Mount("", netnsDir, "", unix.MS_SHARED|unix.MS_REC, "") }
	err := share()
	if !errors.Is(err, unix.EINVAL) { // no mount yet
		return err
	}
	if err := unix.Mount(netnsDir, netnsDir, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return err
	}
	return share()
}

// Close removes all namespaces of the lab, and with them their interfaces. It
// may be called again.
func (l *Lab) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var errs []error
	for _, n := range l.spaces {
		errs = append(errs, n.close())
	}
	l.spaces = nil
	if l.dir != "" {
		errs = append(errs, removeDir(filepath.Base(l.dir)))
		l.dir = ""
	}
	return errors.Join(errs...)
}

// Dir returns a directory for the lab's files, only for root. Close removes it.
func (l *Lab) Dir() (string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dir != "" {
		return l.dir, nil
	}
	dir := filepath.Join(filesDir, prefix+l.id+"-files")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("create directory for the lab's files: %w", err)
	}
	l.dir = dir
	return dir, nil
}

func removeDir(name string) error {
	if err := os.RemoveAll(filepath.Join(filesDir, name)); err != nil {
		return fmt.Errorf("remove the lab's files: %w", err)
	}
	_ = os.Remove(filesDir) // not empty: another lab's are in it
	return nil
}

// RemoveLeftovers removes the namespaces and files that labs of dead processes
// left behind. Those of living ones, and everybody else's, stay.
func RemoveLeftovers() error {
	return errors.Join(removeDead(netnsDir, removeNamed), removeDead(filesDir, removeDir))
}

func removeDead(dir string, remove func(name string) error) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for leftovers of dead processes: %w", err)
	}
	var errs []error
	for _, e := range entries {
		if ownerDied(e.Name()) {
			errs = append(errs, remove(e.Name()))
		}
	}
	return errors.Join(errs...)
}

// ownerDied reports whether a name is that of a lab whose process is gone. A
// number that the kernel gave out again shows by its other start time.
func ownerDied(name string) bool {
	rest, ours := strings.CutPrefix(name, prefix)
	parts := strings.SplitN(rest, "-", 4) // pid, start, number, role
	if !ours || len(parts) != 4 {
		return false
	}
	pid, err := strconv.Atoi(parts[0])
	if err != nil || pid <= 0 {
		return false
	}
	start, err := startTime(pid)
	if errors.Is(err, os.ErrNotExist) {
		return true
	}
	return err == nil && start != parts[1]
}

// startTime returns when a process started, in clock ticks since boot.
func startTime(pid int) (string, error) {
	const field = 22 - 3 // of proc_pid_stat(5), counted behind the name and its bracket
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if errors.Is(err, unix.ESRCH) { // ended while we read
		err = os.ErrNotExist
	}
	if err != nil {
		return "", fmt.Errorf("read start time of process %d: %w", pid, err)
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if len(fields) <= field {
		return "", fmt.Errorf("read start time of process %d: unexpected content %q", pid, stat)
	}
	return fields[field], nil
}

func removeNamed(name string) error {
	path := filepath.Join(netnsDir, name)
	// EINVAL: its owner died between creating the file and mounting the namespace on it.
	err := unix.Unmount(path, unix.MNT_DETACH)
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmount namespace %s: %w", name, err)
	}
	// EBUSY: mounted below another mount on the directory, where nobody reaches it.
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("remove namespace %s: %w", name, err)
	}
	return nil
}
