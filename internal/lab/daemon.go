// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sentinel-x/sentinel-x/internal/api"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// DaemonOptions describe a Sentinel-X to run in a namespace.
type DaemonOptions struct {
	Command []string          // what to run; "--config FILE" is added
	Config  string            // YAML, without interfaces, socket, state_dir and pin
	Log     func(line string) // called for each line the daemon prints; nil: dropped
}

// Daemon is the real daemon as a process of its own in a namespace: what the
// lab measures is what users run, and the API client is all that talks to it.
type Daemon struct {
	Client  *api.Client
	process *os.Process
	ended   chan struct{}
	err     error // why it ended; set before ended is closed
	last    string
}

const (
	daemonStart = 20 * time.Second
	daemonStop  = 10 * time.Second
)

// StartDaemon runs the daemon on an interface of the lab, unpinned, with its
// files in the lab's directory, and waits until it filters. It ends with Close,
// or with this process.
func (l *Lab) StartDaemon(ctx context.Context, on *Link, o DaemonOptions) (*Daemon, error) {
	dir, err := l.Dir()
	if err != nil {
		return nil, err
	}
	socket := filepath.Join(dir, "api.sock")
	file := filepath.Join(dir, "config.yaml")
	text := fmt.Sprintf("interfaces: [%s]\nsocket: %s\nstate_dir: %s\npin: {enabled: false}\n%s", on.Name, socket, dir, o.Config)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return nil, fmt.Errorf("write the daemon's configuration: %w", err)
	}
	d := &Daemon{Client: api.NewClient(socket), ended: make(chan struct{})}
	if err := d.launch(on.Namespace, append(slices.Clip(o.Command), "--config", file), o.Log); err != nil {
		return nil, fmt.Errorf("start the daemon in %s: %w", on.Namespace.Name, err)
	}
	if err := d.waitUntilReady(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("start the daemon in %s: %w", on.Namespace.Name, err), d.Close())
	}
	return d, nil
}

// launch starts the process in a thread of the namespace, which it inherits. The
// thread waits for it, since the kernel signals a child when its parent thread ends.
func (d *Daemon) launch(n *Namespace, command []string, log func(string)) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return errors.Join(err, r.Close(), w.Close())
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		defer r.Close()
		d.readLines(r, log)
	}()
	started := make(chan error, 1)
	go func() {
		err := n.Do(func() error {
			p, err := os.StartProcess(command[0], command, &os.ProcAttr{
				Files: []*os.File{null, w, w},
				// A group of its own: Ctrl-C is for us, and we stop it in order.
				Sys: &syscall.SysProcAttr{Setpgid: true, Pdeathsig: unix.SIGKILL},
			})
			d.process = p
			started <- errors.Join(err, null.Close(), w.Close())
			if err != nil {
				return err
			}
			state, err := p.Wait()
			if err == nil && !state.Success() {
				err = fmt.Errorf("the daemon ended with %s", state)
			}
			return err
		})
		<-read
		d.err = err
		close(d.ended)
	}()
	return <-started
}

func (d *Daemon) readLines(r *os.File, log func(string)) {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		if line := strings.TrimSpace(lines.Text()); line != "" {
			d.last = line
			if log != nil {
				log(line)
			}
		}
	}
}

func (d *Daemon) waitUntilReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, daemonStart)
	defer cancel()
	for {
		_, err := d.Client.Health(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-d.ended:
			return fmt.Errorf("it ended at once: %s", d.last)
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// PID returns the daemon's process id.
func (d *Daemon) PID() int { return d.process.Pid }

// Counters reads the packet path's counters.
func (d *Daemon) Counters(ctx context.Context) (api.Counters, error) { return d.Client.Counters(ctx) }

// Block blocks a prefix as an operator does.
func (d *Daemon) Block(ctx context.Context, prefix netip.Prefix, ttl time.Duration) error {
	result, err := d.Client.AddEntries(ctx, traffic.ListBlock, []api.NewEntry{{Prefix: prefix, TTL: ttl, Comment: "lab"}}, api.AddOptions{})
	if err != nil {
		return fmt.Errorf("block %s: %w", prefix, err)
	}
	if len(result.Refused) > 0 {
		return fmt.Errorf("block %s: refused: %s", prefix, result.Refused[0].Reason)
	}
	return nil
}

// Kill ends the daemon as kill -9 does, and waits for its end.
func (d *Daemon) Kill() error {
	err := d.process.Kill()
	<-d.ended
	d.err = nil // as asked for
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}

// Close stops the daemon in order and returns how it failed, if it did. It may
// be called again.
func (d *Daemon) Close() error {
	defer d.Client.Close()
	if err := d.process.Signal(unix.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop the daemon: %w", err)
	}
	select {
	case <-d.ended:
		return d.err
	case <-time.After(daemonStop):
		return errors.Join(fmt.Errorf("the daemon did not end within %s of SIGTERM", daemonStop), d.Kill())
	}
}
