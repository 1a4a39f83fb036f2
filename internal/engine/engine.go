// SPDX-License-Identifier: Apache-2.0

// Package engine builds the packet path, the ledger and the API from a
// configuration, runs them, reloads or keeps the old configuration, and shuts
// them down in order. Replay, doctor, detach and bench live here too: they use
// the same parts without a daemon.
package engine

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/sentinel-x/sentinel-x/internal/api"
	"github.com/sentinel-x/sentinel-x/internal/config"
	"github.com/sentinel-x/sentinel-x/internal/dataplane"
	"github.com/sentinel-x/sentinel-x/internal/mitigate"
)

// Options is what Run needs beside the configuration.
type Options struct {
	Log         *slog.Logger
	LogLevel    *slog.LevelVar // set on reload; nil: the level stays
	Version     string
	ConfigPath  string                        // shown in status; "": none
	LoadConfig  func() (config.Config, error) // reads the file again, flags applied; nil: no reload
	Reload      <-chan struct{}               // a message asks for a reload (SIGHUP)
	VerifierLog bool
	Summary     io.Writer // the closing summary goes here; nil: nowhere
	Ready       func()    // called when packets are filtered and the API answers
}

// Engine is a running Sentinel-X.
type Engine struct {
	o       Options
	log     *slog.Logger
	started time.Time
	plane   *dataplane.Plane
	ledger  *mitigate.Ledger
	server  *api.Server
	detect  *detection
	notPin  string // why nothing is pinned; "": pinned

	mu     sync.Mutex // guards what follows
	cfg    config.Config
	bypass bool
	rates  api.Rates
	last   api.Counters
	crowd  float64        // share of the last tick's packets that pushed out of the meter what was still in use
	ifaces map[int]*iface // by ifindex

	ceilings map[uint64]overCeiling // by the ID of a signature; absent: never reached
}

const (
	// How long open requests may take to end at shutdown.
	shutdownTime = 2 * time.Second
	tickTime     = time.Second
	sweepTime    = 3 * time.Minute
	// maxCrowd is the share of packets above which the meter is too small to hold sources to their rates.
	maxCrowd = 0.01
)

// Run filters on the interfaces of cfg until ctx ends; then it detaches, or, with
// on_exit: keep, leaves the pinned program filtering. An error before packets are
// filtered leaves nothing behind.
func Run(ctx context.Context, cfg config.Config, o Options) (err error) {
	e, listener, err := start(cfg, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.stop()) }()
	run, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel(nil)
	part := func(f func(context.Context) error) {
		wg.Go(func() {
			if err := f(run); err != nil {
				cancel(err)
			}
		})
	}
	part(func(context.Context) error { return e.server.Serve(listener) })
	part(func(ctx context.Context) error { return e.plane.Events(ctx, e.publish) })
	part(e.watch)
	part(e.detect.watch)
	part(e.detect.keep)
	part(e.tick)
	defer e.shutdownServer()
	e.ready()
	<-run.Done()
	if cause := context.Cause(run); ctx.Err() == nil && cause != nil {
		return cause
	}
	return nil
}

func (e *Engine) shutdownServer() {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTime)
	defer cancel()
	if err := e.server.Shutdown(ctx); err != nil {
		e.log.Warn("the API did not end in time", "error", err)
	}
}

func (e *Engine) ready() {
	for _, a := range e.plane.Attachments() {
		e.log.Info("filtering", "interface", a.Interface, "mode", string(a.Mode), "program", a.ProgramID, "pinned", a.Pinned, "dry_run", e.cfg.DryRun)
	}
	// Without systemd there is no socket to notify, and that is no error.
	_, _ = daemon.SdNotify(false, daemon.SdNotifyReady)
	if e.o.Ready != nil {
		e.o.Ready()
	}
}

// stop ends the packet path last but for the ledger, whose state it carries.
func (e *Engine) stop() error {
	_, _ = daemon.SdNotify(false, daemon.SdNotifyStopping)
	e.summarize()
	end := e.plane.Close
	if e.cfg.OnExit == config.ExitKeep && e.notPin == "" {
		end = e.plane.Leave
	}
	return errors.Join(e.detect.close(), end(), e.ledger.Close())
}
