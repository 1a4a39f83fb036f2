// SPDX-License-Identifier: Apache-2.0

// Package test tries the whole product: the daemon as a process of its own in
// network namespaces, through its command line, with real packets.
package test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sentinel-x/sentinel-x/internal/api"
	"github.com/sentinel-x/sentinel-x/internal/dataplane"
	"github.com/sentinel-x/sentinel-x/internal/lab"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// binary builds the product once.
var product = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "sentinel-x-test-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "sentinel-x")
	args := append(append([]string{"build"}, raceFlags...), "-o", path, "github.com/sentinel-x/sentinel-x")
	out, err := exec.Command("go", args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build: %w\n%s", err, out)
	}
	return path, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if path, err := product(); err == nil {
		os.RemoveAll(filepath.Dir(path))
	}
	os.Exit(code)
}

// site is a victim and its peer, with a place for the daemon's files.
type site struct {
	*lab.Net
	dir string
	bin string
}

func newSite(t *testing.T, o lab.NetOptions) *site {
	t.Helper()
	bin, err := product()
	if err != nil {
		t.Fatal(err)
	}
	return &site{Net: lab.NewTestNet(t, o), dir: t.TempDir(), bin: bin}
}

// bpffs mounts one for the site and returns the daemon's pin path on it.
func (s *site) bpffs(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(s.dir, "bpffs")
	if err := errors.Join(os.MkdirAll(dir, 0o700), unix.Mount("bpf", dir, "bpf", 0, "")); err != nil {
		t.Fatalf("mount bpffs: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount bpffs: %v", err)
		}
	})
	return filepath.Join(dir, "sentinel-x")
}

func (s *site) socket() string { return filepath.Join(s.dir, "api.sock") }

// runArgs are the arguments of run that every test needs, and then some.
func (s *site) runArgs(more ...string) []string {
	args := []string{"run", "--interface", s.VictimEnd.Name, "--socket", s.socket(), "--state-dir", filepath.Join(s.dir, "state")}
	return append(args, more...)
}

// command is one of the binary, in the victim's namespace.
func (s *site) command(args ...string) *exec.Cmd {
	cmd := exec.Command(s.bin, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// inVictim starts a command with the victim's network namespace.
func (s *site) inVictim(f func() error) error { return s.Victim.Do(f) }

// cli runs a command to its end and returns what it printed and its exit status.
func (s *site) cli(t *testing.T, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	var out, errOut bytes.Buffer
	cmd := s.command(append(args, "--socket", s.socket())...)
	cmd.SysProcAttr = nil // the thread that starts it ends before it does
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := s.inVictim(cmd.Start); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(60*time.Second, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	err := cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return out.String(), errOut.String(), cmd.ProcessState.ExitCode()
}

// ok runs a command that must succeed.
func (s *site) ok(t *testing.T, args ...string) string {
	t.Helper()
	out, errOut, status := s.cli(t, args...)
	if status != 0 {
		t.Fatalf("sentinel-x %s: status %d\n%s%s", strings.Join(args, " "), status, out, errOut)
	}
	return out
}

// status asks the daemon.
func (s *site) status(t *testing.T) api.Status {
	t.Helper()
	var st api.Status
	if err := json.Unmarshal([]byte(s.ok(t, "status", "--json")), &st); err != nil {
		t.Fatal(err)
	}
	return st
}

// process is a running daemon.
type process struct {
	cmd  *exec.Cmd
	log  *lockedBuffer
	done chan error
}

// lockedBuffer is written by the process's pipes and read by the test.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// start starts the daemon and waits until it filters.
func (s *site) start(t *testing.T, args ...string) *process {
	t.Helper()
	p := s.launch(t, args...)
	deadline := time.Now().Add(30 * time.Second)
	for time.Now().Before(deadline) {
		select {
		case err := <-p.done:
			t.Fatalf("the daemon ended: %v\n%s", err, p.log)
		case <-time.After(20 * time.Millisecond):
		}
		c := api.NewClient(s.socket())
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		_, err := c.Status(ctx)
		cancel()
		if err == nil && p.alive() {
			return p
		}
	}
	t.Fatalf("the daemon does not answer\n%s", p.log)
	return nil
}

// launch starts the daemon without waiting for it.
func (s *site) launch(t *testing.T, args ...string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(s.bin, args...), log: &lockedBuffer{}, done: make(chan error, 1)}
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	if err := s.inVictim(p.cmd.Start); err != nil {
		t.Fatal(err)
	}
	go func() { p.done <- p.cmd.Wait() }()
	t.Cleanup(p.kill)
	return p
}

func (p *process) alive() bool { return p.cmd.Process.Signal(syscall.Signal(0)) == nil }

// end sends a signal and waits for the end; a second call does nothing.
func (p *process) end(s syscall.Signal) error {
	if p.cmd.Process.Signal(s) != nil {
		return nil
	}
	err := <-p.done
	p.done <- err
	return err
}

// kill is kill -9; how the daemon ends is no question then.
func (p *process) kill() { _ = p.end(syscall.SIGKILL) }

// stop ends the daemon as systemd does, and fails the test if it does not end well.
func (p *process) stop(t *testing.T) {
	t.Helper()
	if err := p.end(syscall.SIGTERM); err != nil {
		t.Errorf("the daemon ended with %v\n%s", err, p.log)
	}
}

// attached returns what is on the victim's interface.
func (s *site) attached(t *testing.T) (on dataplane.OnInterface, ok bool) {
	t.Helper()
	err := s.Victim.Do(func() (err error) {
		on, ok, err = dataplane.Look(s.VictimEnd.Name)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return on, ok
}

// eventually waits for a condition that another process brings about.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for range 500 {
		if f() {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatalf("not within 10 s: %s", what)
}

// reaches reports whether datagrams of a client arrive at the victim.
func (s *site) reaches(t *testing.T, from, to netip.Addr) bool {
	t.Helper()
	ok, err := s.Reaches(from, to)
	if err != nil {
		t.Fatal(err)
	}
	return ok
}

// wantReach fails the test unless a client's datagrams arrive, or do not.
func (s *site) wantReach(t *testing.T, what string, from netip.Addr, want bool) {
	t.Helper()
	to := lab.Victim4
	if from.Is6() {
		to = lab.Victim6
	}
	if got := s.reaches(t, from, to); got != want {
		t.Errorf("%s: %v reaches the victim: %v, want %v", what, from, got, want)
	}
}

// write puts a file into the site's directory.
func (s *site) write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func reasonCount(st api.Status, r traffic.Reason) uint64 {
	return st.Counters.Reasons[r.String()].Total().Packets
}

// underRace reports whether the tests, and the daemons they start, run with the race detector.
func underRace() bool { return len(raceFlags) > 0 }
