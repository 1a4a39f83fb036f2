// SPDX-License-Identifier: Apache-2.0

package lab_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sentinel-x/sentinel-x/internal/lab"
)

const netnsDir = "/run/netns"

// childEnv makes this test binary build a lab and wait to be killed.
const childEnv = "LAB_TEST_CHILD"

func TestMain(m *testing.M) {
	switch os.Getenv(childEnv) {
	case "":
		os.Exit(m.Run())
	case "wait":
		n, err := lab.NewNet(lab.NetOptions{})
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println(n.Victim.Name, n.Peer.Name)
		select {}
	case "own a daemon":
		if err := os.Setenv(childEnv, "daemon"); err != nil {
			panic(err)
		}
		n, err := lab.NewNet(lab.NetOptions{})
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		d, err := n.StartDaemon(context.Background(), n.VictimEnd, lab.DaemonOptions{Command: []string{os.Args[0]}})
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println(d.PID())
		select {}
	case "daemon":
		runDaemon()
	case "test":
		lab.NewTestNet(childTest{}, lab.NetOptions{})
		fmt.Println("ready")
		select {}
	}
}

// childTest is a testing.TB without a test around it.
type childTest struct{}

func (childTest) Helper() {}
func (childTest) Fatalf(format string, args ...any) {
	fmt.Printf(format+"\n", args...)
	os.Exit(1)
}
func (childTest) Errorf(format string, args ...any) { fmt.Printf(format+"\n", args...) }
func (childTest) Cleanup(func())                    {}

// child starts this binary as another lab's owner and returns its first line.
func child(t *testing.T, mode string) (*exec.Cmd, string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+mode)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended long since
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("child said %q: %v", line, err)
	}
	return cmd, strings.TrimSpace(line)
}

func exists(name string) bool {
	_, err := os.Lstat(filepath.Join(netnsDir, name))
	return err == nil
}

func TestKilledProcessIsCleanedUpByTheNext(t *testing.T) {
	dead, line := child(t, "wait")
	names := strings.Fields(line)
	_, line = child(t, "wait")
	living := strings.Fields(line)
	if len(names) != 2 || len(living) != 2 {
		t.Fatalf("children said %q and %q", names, living)
	}
	if err := dead.Process.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = dead.Wait()
	for _, name := range names {
		if !exists(name) {
			t.Fatalf("%s is gone before anybody removed it: the test proves nothing", name)
		}
	}
	lab.NewTestNet(t, lab.NetOptions{})
	for _, name := range names {
		if exists(name) {
			t.Errorf("%s of a dead process is still there", name)
		}
	}
	for _, name := range living {
		if !exists(name) {
			t.Errorf("%s of a living process was removed", name)
		}
	}
}

func TestDaemonDiesWithItsKilledOwner(t *testing.T) {
	owner, line := child(t, "own a daemon")
	pid, err := strconv.Atoi(line)
	if err != nil {
		t.Fatalf("child said %q", line)
	}
	files := filepath.Join("/run/sentinel-x-lab", fmt.Sprintf("sx-%d-*", owner.Process.Pid))
	if err := unix.Kill(pid, 0); err != nil {
		t.Fatalf("daemon %d: %v", pid, err)
	}
	if err := owner.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = owner.Wait()
	for deadline := time.Now().Add(delivery); running(pid); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("daemon %d outlived its owner", pid)
		}
	}
	if left, _ := filepath.Glob(files); len(left) != 1 {
		t.Fatalf("files of the dead: %v, want one directory", left)
	}
	lab.NewTestNet(t, lab.NetOptions{})
	if left, _ := filepath.Glob(files); len(left) > 0 {
		t.Errorf("left %v", left)
	}
}

// running reports whether a process is there and no zombie that waits for its parent.
func running(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(stat), ") Z ")
}

func TestInterruptedTestLeavesNothing(t *testing.T) {
	cmd, _ := child(t, "test")
	mine := fmt.Sprintf("sx-%d-", cmd.Process.Pid)
	if len(named(t, mine)) != 2 {
		t.Fatalf("got %v before the interrupt, want two", named(t, mine))
	}
	if err := cmd.Process.Signal(unix.SIGINT); err != nil {
		t.Fatal(err)
	}
	err := cmd.Wait()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGINT {
		t.Errorf("ended with %v, want the signal's own effect", err)
	}
	if left := named(t, mine); len(left) > 0 {
		t.Errorf("left %v", left)
	}
}

func named(t *testing.T, prefix string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(netnsDir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), prefix) {
			names = append(names, e.Name())
		}
	}
	return names
}

func TestLeftoversOfOthersStay(t *testing.T) {
	start := "1" // of no process: pid 1 started with the machine
	for _, c := range []struct {
		name string
		stay bool
	}{
		{"sx-2-999999999-1-victim", false}, // a kernel thread's number, at another time
		{"sx-1-" + start, true},            // not our form
		{"sx-notes", true},
		{"other-1-1-1-x", true},
		{"sx-x-1-1-victim", true},
		{"sx--5-1-1-victim", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(netnsDir, c.name)
			if err := os.MkdirAll(netnsDir, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, nil, 0o444); err != nil {
				t.Fatal(err)
			}
			defer os.Remove(path)
			if err := lab.RemoveLeftovers(); err != nil {
				t.Fatal(err)
			}
			if exists(c.name) != c.stay {
				t.Fatalf("there afterwards: %t, want %t", exists(c.name), c.stay)
			}
		})
	}
}

func TestCloseRemovesEverything(t *testing.T) {
	before := links(t)
	n, err := lab.NewNet(lab.NetOptions{Clients: 3})
	if err != nil {
		t.Fatal(err)
	}
	names := []string{n.Victim.Name, n.Peer.Name}
	for _, name := range names {
		if !exists(name) {
			t.Errorf("%s is not there: ip netns exec would not find it", name)
		}
	}
	if during := links(t); during != before {
		t.Errorf("interfaces outside of the lab were %s, are %s", before, during)
	}
	for range 2 {
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range names {
		if exists(name) {
			t.Errorf("%s is still there", name)
		}
	}
}

func links(t *testing.T) string {
	t.Helper()
	all, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, l := range all {
		names = append(names, l.Attrs().Name)
	}
	return strings.Join(names, " ")
}

func TestNewFailsWholeOnBadOptions(t *testing.T) {
	before := named(t, fmt.Sprintf("sx-%d-", os.Getpid()))
	for _, o := range []lab.NetOptions{{Clients: -1}, {Clients: 1 << 20}, {MTU: 1 << 20}, {PinNAPI: true, CPU: 1000}} {
		if n, err := lab.NewNet(o); err == nil {
			n.Close()
			t.Errorf("%+v was accepted", o)
		}
	}
	if after := named(t, fmt.Sprintf("sx-%d-", os.Getpid())); len(after) != len(before) {
		t.Errorf("left %v", after)
	}
}

func TestDoRunsInTheNamespaceAndOnlyThere(t *testing.T) {
	n := lab.NewTestNet(t, lab.NetOptions{})
	outside := netNamespace(t)
	var inside string
	if err := n.Victim.Do(func() error { inside = netNamespace(t); return nil }); err != nil {
		t.Fatal(err)
	}
	if inside == outside {
		t.Error("ran in the namespace outside")
	}
	// Each of many goroutines may be given a thread that ran in the namespace, were one kept.
	for range 100 {
		done := make(chan string)
		go func() { done <- netNamespace(t) }()
		if got := <-done; got != outside {
			t.Fatalf("a thread stayed in %s", got)
		}
	}
	if main, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", os.Getpid())); main != outside {
		t.Errorf("the main thread is in %s", main)
	}
	want := errors.New("its own error")
	if err := n.Victim.Do(func() error { return want }); !errors.Is(err, want) {
		t.Errorf("got %v, want the function's error", err)
	}
}

func netNamespace(t *testing.T) string {
	name, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		t.Error(err)
	}
	return name
}

func TestPanicInNamespaceReachesTheCaller(t *testing.T) {
	n := lab.NewTestNet(t, lab.NetOptions{})
	defer func() {
		if p := recover(); p == nil || !strings.Contains(fmt.Sprint(p), "on purpose") {
			t.Errorf("recovered %v, want the panic", p)
		}
	}()
	_ = n.Victim.Do(func() error { panic("on purpose") })
}

func TestAddressesWorkAtOnce(t *testing.T) {
	n := lab.NewTestNet(t, lab.NetOptions{Clients: 2})
	for _, pair := range [][2]netip.Addr{
		{lab.Peer4, lab.Victim4}, {lab.Client4(1), lab.Victim4}, {lab.Peer6, lab.Victim6}, {lab.Client6(1), lab.Victim6},
	} {
		var server net.Listener
		err := n.Victim.Do(func() (err error) {
			server, err = net.Listen("tcp", netip.AddrPortFrom(pair[1], 0).String())
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		err = n.Peer.Do(func() error {
			d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(pair[0], 0)), Timeout: delivery}
			c, err := d.Dial("tcp", server.Addr().String())
			if err == nil {
				err = c.Close()
			}
			return err
		})
		server.Close()
		if err != nil {
			t.Errorf("connect from %s: %v", pair[0], err)
		}
	}
}

func TestPinnedNAPIRunsOnItsCPUOnly(t *testing.T) {
	if comm, err := os.ReadFile("/proc/2/comm"); err != nil || string(comm) != "kthreadd\n" {
		t.Skip("a PID namespace of its own (a container) shows no kernel threads to pin")
	}
	n := lab.NewTestNet(t, lab.NetOptions{PinNAPI: true, CPU: 1})
	threads := 0
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		comm, err := os.ReadFile(filepath.Join("/proc", e.Name(), "comm"))
		if err != nil || !strings.HasPrefix(string(comm), "napi/"+n.VictimEnd.Name) {
			continue
		}
		threads++
		status, err := os.ReadFile(filepath.Join("/proc", e.Name(), "status"))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(status), "Cpus_allowed_list:\t1\n") {
			t.Errorf("thread %s may run elsewhere: %s", comm, status)
		}
	}
	if threads == 0 {
		t.Error("no NAPI thread found")
	}
}
