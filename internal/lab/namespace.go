// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Namespace is a named network namespace; `ip netns exec NAME` finds it.
type Namespace struct {
	Name   string
	handle netns.NsHandle
}

// Namespace creates a namespace for a role, a word that ends its name. Loopback
// is up; addresses are usable at once (no duplicate address detection);
// nothing is forwarded.
func (l *Lab) Namespace(role string) (*Namespace, error) {
	n := &Namespace{Name: prefix + l.id + "-" + role}
	l.mu.Lock()
	defer l.mu.Unlock()
	err := onThread(func() (err error) {
		n.handle, err = netns.NewNamed(n.Name)
		if err != nil {
			return err
		}
		return prepare()
	})
	if err != nil {
		// A name that is taken is somebody's who still uses it.
		if !errors.Is(err, os.ErrExist) {
			err = errors.Join(err, removeNamed(n.Name))
		}
		return nil, fmt.Errorf("create network namespace %s (needs CAP_SYS_ADMIN and CAP_NET_ADMIN): %w", n.Name, err)
	}
	l.spaces = append(l.spaces, n)
	return n, nil
}

// prepare sets up the namespace of the calling thread.
func prepare() error {
	for key, value := range map[string]string{
		"ipv6/conf/default/accept_dad": "0",
		"ipv6/conf/all/accept_dad":     "0",
		"ipv6/conf/default/accept_ra":  "0",
		"ipv6/conf/all/forwarding":     "0",
		"ipv4/conf/default/rp_filter":  "0", // a child inherits these from the machine
		"ipv4/conf/all/rp_filter":      "0",
		"ipv4/ip_forward":              "0",
		// An address that was seen before proves its source to the SYN queue.
		"ipv4/tcp_no_metrics_save": "1",
	} {
		if err := os.WriteFile("/proc/sys/net/"+key, []byte(value), 0); err != nil {
			return fmt.Errorf("set sysctl net/%s: %w", key, err)
		}
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find loopback: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("set loopback up: %w", err)
	}
	return nil
}

// Do runs fn in the namespace, on an operating system thread of its own, and
// returns its error. Sockets that fn opens stay in the namespace wherever they
// are used later. A goroutine that fn starts is not in the namespace.
func (n *Namespace) Do(fn func() error) error {
	return onThread(func() error {
		if err := netns.Set(n.handle); err != nil {
			return fmt.Errorf("enter network namespace %s: %w", n.Name, err)
		}
		return fn()
	})
}

func (n *Namespace) close() error {
	return errors.Join(n.handle.Close(), removeNamed(n.Name))
}

// onThread runs fn on a thread that is thrown away, since it may have changed
// namespaces. A panic of fn comes out in the caller, where its defers can clean up.
func onThread(fn func() error) error {
	done := make(chan error, 1)
	panicked := make(chan string, 1)
	go lockedRun(fn, done, panicked)
	select {
	case err := <-done:
		return err
	case p := <-panicked:
		panic(p)
	}
}

func lockedRun(fn func() error, done chan<- error, panicked chan<- string) {
	runtime.LockOSThread() // never unlocked: the runtime ends the thread with the goroutine
	if unix.Gettid() == os.Getpid() {
		// The main thread cannot end, and /proc/self shows its namespace: leave it
		// as it is, blocked here, while another thread does the work.
		defer runtime.UnlockOSThread()
		inner := make(chan struct{})
		go func() {
			defer close(inner)
			lockedRun(fn, done, panicked)
		}()
		<-inner
		return
	}
	finished := false
	defer func() {
		if finished {
			return
		}
		if p := recover(); p != nil {
			panicked <- fmt.Sprintf("%v\n\nin namespace thread:\n%s", p, debug.Stack())
			return
		}
		done <- errors.New("function in namespace ended its goroutine (FailNow of a test?)")
	}()
	err := fn()
	finished = true
	done <- err
}
