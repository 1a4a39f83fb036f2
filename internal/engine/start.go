// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"time"

	"github.com/sentinel-x/sentinel-x/internal/api"
	"github.com/sentinel-x/sentinel-x/internal/config"
	"github.com/sentinel-x/sentinel-x/internal/dataplane"
	"github.com/sentinel-x/sentinel-x/internal/mitigate"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// start builds the parts in the order in which they need each other: lists are
// filled before the first packet is judged, and nothing is attached before all
// that can fail has not.
func start(cfg config.Config, o Options) (e *Engine, l net.Listener, err error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	e = &Engine{o: o, log: o.Log, cfg: cfg, started: time.Now(), ifaces: map[int]*iface{}}
	var undo []func() error
	defer func() {
		for i := len(undo) - 1; err != nil && i >= 0; i-- {
			err = errors.Join(err, undo[i]())
		}
	}()
	if err := checkInterfaces(cfg.Interfaces); err != nil {
		return nil, nil, err
	}
	if err := e.loadPlane(); err != nil {
		return nil, nil, err
	}
	undo = append(undo, e.plane.Close)
	if err := e.openLedger(); err != nil {
		return nil, nil, err
	}
	undo = append(undo, e.ledger.Close)
	l, err = api.Listen(cfg.Socket)
	if err != nil {
		return nil, nil, err
	}
	undo = append(undo, l.Close)
	if err := e.attachAll(); err != nil {
		return nil, nil, err
	}
	e.server = api.NewServer(e, o.Log)
	e.detect = newDetection(cfg, e.log, e.plane, e.server.PublishIncident)
	e.detect.streamWindows(e.server)
	return e, l, nil
}

func checkInterfaces(names []string) error {
	if len(names) == 0 {
		return errors.New("no interface to filter on: name one with --interface or in the configuration file")
	}
	for _, name := range names {
		if err := dataplane.CheckInterface(name); err != nil {
			return err
		}
	}
	return nil
}

func (e *Engine) loadPlane() error {
	o := PlaneOptions(e.cfg)
	o.Log, o.VerifierLog = e.log, e.o.VerifierLog
	if !e.cfg.Pin.Enabled {
		e.notPin = "switched off"
	} else if err := dataplane.MakePinDir(e.cfg.Pin.Path); err != nil {
		e.notPin = err.Error()
		e.log.Warn("not pinned: the filter ends with this process, and a restart leaves a gap", "reason", e.notPin)
	} else {
		o.PinPath, o.AdoptFrom = e.cfg.Pin.Path, e.cfg.Interfaces[0]
	}
	plane, err := dataplane.New(o)
	if err != nil {
		return err
	}
	e.plane = plane
	return nil
}

func (e *Engine) openLedger() error {
	ledger, err := mitigate.Open(mitigate.Options{
		Path:       filepath.Join(e.cfg.StateDir, "journal.db"),
		Enforcer:   e.plane,
		MaxEntries: int(e.cfg.Lists.MaxEntries),
		Now:        time.Now,
		Log:        e.log,
	})
	if err != nil {
		return err
	}
	e.ledger = ledger
	if err := e.applyLists(e.cfg); err != nil {
		return errors.Join(err, ledger.Close())
	}
	if ledger.Count(traffic.ListBlock)+ledger.Count(traffic.ListAllow) > manyEntries {
		defer sparing()()
	}
	if err := ledger.Restore(); err != nil {
		return errors.Join(err, ledger.Close())
	}
	return nil
}

// applyLists gives the ledger what configuration and host say: first whom to
// protect, so that the guard judges the rest by it.
func (e *Engine) applyLists(cfg config.Config) error {
	protected, err := protectedOf(cfg)
	if err != nil {
		return err
	}
	if err := e.ledger.SetProtected(protected); err != nil {
		return fmt.Errorf("protected set: %w", err)
	}
	if err := e.ledger.SetConfig(listEntries(cfg.Lists.Block), listEntries(cfg.Lists.Allow)); err != nil {
		return fmt.Errorf("lists of the configuration: %w", err)
	}
	return nil
}

func protectedOf(cfg config.Config) ([]mitigate.Protected, error) {
	var protected []mitigate.Protected
	if cfg.Protect.Auto {
		found, err := mitigate.Discover(cfg.Interfaces)
		if err != nil {
			return nil, fmt.Errorf("find whom to protect: %w", err)
		}
		protected = found
	}
	for _, prefix := range cfg.Protect.Addresses {
		protected = append(protected, mitigate.Protected{Prefix: prefix, Why: "listed under protect.addresses"})
	}
	return protected, nil
}

func (e *Engine) attachAll() error {
	for _, name := range e.cfg.Interfaces {
		a, err := e.plane.Attach(name, dataplane.Mode(e.cfg.Mode), e.cfg.Replace)
		if err != nil {
			return err
		}
		if a.Fallback != "" {
			e.log.Warn("generic mode: the kernel filters later and slower", "interface", name, "reason", a.Fallback)
		}
		e.ifaces[a.Index] = &iface{name: name, attachment: a}
	}
	return nil
}

// listOf names the list that a reason is about.
var listOf = map[traffic.Reason]traffic.List{
	traffic.ReasonBlocklist: traffic.ListBlock,
	traffic.ReasonAllowlist: traffic.ListAllow,
}

// publish counts an event for the entry it ended on, and hands it to whoever follows them.
func (e *Engine) publish(event traffic.Event) {
	if list, ok := listOf[event.Reason]; ok {
		e.ledger.Hit(list, event.Source, event.Time)
	}
	if e.server.Readers() == 0 {
		return
	}
	e.server.Publish(e.interfaceName(event.Interface), &event)
}
