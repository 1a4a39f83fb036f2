// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestMissingCapabilitiesAreNamed(t *testing.T) {
	bits := func(caps ...uint) (mask uint64) {
		for _, c := range caps {
			mask |= 1 << c
		}
		return mask
	}
	for name, c := range map[string]struct {
		effective uint64
		missing   []string
	}{
		"none":                 {0, []string{"CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON"}},
		"the three":            {bits(unix.CAP_BPF, unix.CAP_NET_ADMIN, unix.CAP_PERFMON), nil},
		"without perfmon":      {bits(unix.CAP_BPF, unix.CAP_NET_ADMIN), []string{"CAP_PERFMON"}},
		"sys_admin for two":    {bits(unix.CAP_SYS_ADMIN), []string{"CAP_NET_ADMIN"}},
		"sys_admin and net":    {bits(unix.CAP_SYS_ADMIN, unix.CAP_NET_ADMIN), nil},
		"net_admin by itself":  {bits(unix.CAP_NET_ADMIN), []string{"CAP_BPF", "CAP_PERFMON"}},
		"perfmon does not add": {bits(unix.CAP_PERFMON), []string{"CAP_BPF", "CAP_NET_ADMIN"}},
	} {
		if got := missingCapabilities(c.effective); !slices.Equal(got, c.missing) {
			t.Errorf("%s: missing %v, want %v", name, got, c.missing)
		}
	}
}

func TestAKernelThatLacksSomethingIsToldWhat(t *testing.T) {
	if err := (Features{}).usable(); err != nil {
		t.Errorf("nothing missing: %v", err)
	}
	err := Features{Missing: []string{"no BPF ring buffers (5.8)", "no LPM tries"}}.usable()
	if err == nil || !strings.Contains(err.Error(), "no BPF ring buffers (5.8); no LPM tries") || !strings.Contains(err.Error(), "5.10") {
		t.Errorf("err %v", err)
	}
}

func TestStatusWithoutCapabilitiesIsAnError(t *testing.T) {
	path := filepath.Join(t.TempDir(), "status")
	if err := os.WriteFile(path, []byte("Name:\tx\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{path, path + ".absent"} {
		if _, err := effectiveCapabilities(p); err == nil {
			t.Errorf("%s: no error", p)
		}
	}
}

// With exactly the documented capabilities the program loads; without one of them, the error names it.
func TestLeastPrivilege(t *testing.T) {
	all := []uint{unix.CAP_BPF, unix.CAP_NET_ADMIN, unix.CAP_PERFMON}
	if err := loadWith(t, all); err != nil {
		t.Errorf("with the documented capabilities: %v", err)
	}
	for i, name := range []string{"CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON"} {
		less := slices.Delete(slices.Clone(all), i, i+1)
		if err := loadWith(t, less); err == nil || !strings.Contains(err.Error(), "missing "+name+":") {
			t.Errorf("without %s: %v", name, err)
		}
	}
}

// loadWith loads the program on a thread of its own that has only these capabilities.
func loadWith(t *testing.T, caps []uint) error {
	t.Helper()
	if _, err := Probe(); err != nil { // once, with all rights: its answers are kept
		t.Fatal(err)
	}
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := keepOnly(caps); err != nil {
			result <- err
			return
		}
		p, err := New(Options{})
		if err == nil {
			p.Close()
		}
		result <- err
	}()
	return <-result
}

func keepOnly(caps []uint) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	for _, c := range caps {
		data[c/32].Effective |= 1 << (c % 32)
		data[c/32].Permitted |= 1 << (c % 32)
	}
	return unix.Capset(&header, &data[0])
}
