// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sentinel-x/sentinel-x/internal/api"
	"github.com/sentinel-x/sentinel-x/internal/config"
	"github.com/sentinel-x/sentinel-x/internal/dataplane"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

var _ api.Backend = (*Engine)(nil)

// Status implements api.Backend.
func (e *Engine) Status(context.Context) (api.Status, error) {
	raw, err := e.plane.Counters()
	if err != nil {
		return api.Status{}, err
	}
	memory, err := e.memory()
	if err != nil {
		return api.Status{}, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	now := time.Now()
	return api.Status{
		Version: e.o.Version, Kernel: kernelRelease(), PID: os.Getpid(),
		Started: e.started, Uptime: api.Duration{Duration: now.Sub(e.started).Round(time.Second)},
		ConfigFile: e.o.ConfigPath,
		Health:     e.health(), Warnings: e.warnings(),
		DryRun: e.cfg.DryRun, Bypass: e.bypass,
		Pin:        e.pinState(),
		Interfaces: e.interfaces(),
		Lists:      e.listSizes(),
		Signatures: e.signatureCounts(),
		Detection:  e.detect.status(),
		Limits:     api.LimitsOf(limitsOf(e.cfg.Limits)),
		Counters:   api.CountersOf(&raw, now), Rates: e.rates,
		Latency: api.LatencyOf(raw.Latency),
		Memory:  memory,
	}, nil
}

// health says what does not work as configured. The caller holds mu.
func (e *Engine) health() api.Health {
	h := api.Health{State: api.HealthOK, Reasons: []string{}}
	for _, i := range e.ifaces {
		h.Reasons = append(h.Reasons, i.complaints()...)
	}
	h.Reasons = append(h.Reasons, complainOfCrowd(e.crowd)...)
	for id, why := range e.ledger.Unarmed() {
		h.Reasons = append(h.Reasons, fmt.Sprintf("signature %d is not in force: %s; delete it, or add it again", id, why))
	}
	h.Reasons = append(h.Reasons, e.detect.complaints()...)
	slices.Sort(h.Reasons)
	if len(h.Reasons) > 0 {
		h.State = api.HealthDegraded
	}
	return h
}

// complainOfCrowd says when the meter is too small to hold sources to their rates.
func complainOfCrowd(share float64) []string {
	if share <= maxCrowd {
		return nil
	}
	return []string{fmt.Sprintf("the meter is too small: %.0f %% of packets find no room in it, and sources over their limit get through: raise limits.sources", 100*share)}
}

// warnings says what works as configured and is still worth knowing. The caller holds mu.
func (e *Engine) warnings() []string {
	w := append([]string{}, e.cfg.Notices()...)
	if e.bypass {
		w = append(w, "bypass is on: everything passes unexamined")
	}
	if e.cfg.DryRun {
		w = append(w, "dry run: nothing is dropped")
	}
	w = append(w, e.detect.notices()...)
	if e.notPin != "" && e.cfg.Pin.Enabled {
		w = append(w, "not pinned: "+e.notPin)
	}
	return w
}

func (e *Engine) pinState() api.Pin {
	if e.notPin != "" {
		return api.Pin{Reason: e.notPin}
	}
	return api.Pin{Pinned: true, Path: e.cfg.Pin.Path}
}

func (e *Engine) interfaces() []api.Interface {
	all := []api.Interface{}
	for _, i := range e.ifaces {
		a := i.attachment
		all = append(all, api.Interface{
			Name: i.name, Index: a.Index, Driver: driver(i.name),
			Mode: string(a.Mode), RequestedMode: string(a.Requested), FallbackReason: a.Fallback,
			LinkID: a.LinkID, ProgramID: a.ProgramID,
			MTU: max(i.mtu, a.MTU), Frags: a.Frags, Up: !i.down && !i.gone,
		})
	}
	slices.SortFunc(all, func(a, b api.Interface) int { return strings.Compare(a.Name, b.Name) })
	return all
}

func (e *Engine) listSizes() api.ListSizes {
	size := e.ledger.Count
	return api.ListSizes{
		Block: size(traffic.ListBlock), Allow: size(traffic.ListAllow), Protected: size(traffic.ListProtected),
		Capacity: int(e.cfg.Lists.MaxEntries),
	}
}

func (e *Engine) memory() (api.Memory, error) {
	maps, err := e.plane.Memory()
	if err != nil {
		return api.Memory{}, err
	}
	m := api.Memory{Maps: []api.MapMemory{}, RSSBytes: residentBytes("/proc/self/statm")}
	for _, x := range maps {
		m.Maps = append(m.Maps, api.MapMemory{Name: x.Name, Bytes: x.Bytes})
		m.MapsBytes += x.Bytes
	}
	return m, nil
}

// residentBytes reads the second field of statm, pages in memory; 0 if it cannot.
func residentBytes(statm string) uint64 {
	text, err := os.ReadFile(statm)
	fields := strings.Fields(string(text))
	if err != nil || len(fields) < 2 {
		return 0
	}
	pages, _ := strconv.ParseUint(fields[1], 10, 64)
	return pages * uint64(os.Getpagesize())
}

func kernelRelease() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return ""
	}
	return string(bytes.TrimRight(u.Release[:], "\x00"))
}

// driver returns the name of the interface's driver, or "" where it has none to show.
func driver(name string) string {
	target, err := os.Readlink(filepath.Join("/sys/class/net", name, "device/driver"))
	if err != nil {
		return ""
	}
	return filepath.Base(target)
}

// Counters implements api.Backend.
func (e *Engine) Counters(context.Context) (api.Counters, error) { return e.read() }

// Bypass implements api.Backend.
func (e *Engine) Bypass(context.Context) (bool, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.bypass, nil
}

// SetBypass implements api.Backend.
func (e *Engine) SetBypass(_ context.Context, on bool) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.plane.SetBypass(on); err != nil {
		return err
	}
	e.bypass = on
	e.log.Warn("bypass", "on", on)
	return nil
}

// Config implements api.Backend.
func (e *Engine) Config(context.Context) (api.ConfigText, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return api.ConfigText{File: e.o.ConfigPath, YAML: string(e.cfg.Marshal())}, nil
}

// Reload implements api.Backend: the new configuration is in force whole, or the old one stays.
func (e *Engine) Reload(context.Context) (api.ReloadResult, error) {
	none := api.ReloadResult{Changed: []string{}, Restart: []string{}}
	if e.o.LoadConfig == nil {
		return none, api.Conflict("there is no configuration file to reload")
	}
	cfg, err := e.o.LoadConfig()
	if err == nil {
		err = cfg.Validate()
	}
	if err != nil {
		return none, api.Invalid("%v", err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	live, restart := config.Changed(e.cfg, cfg)
	if len(restart) > 0 {
		return none, api.Conflict("%s changed, which takes a restart: nothing was applied", strings.Join(restart, ", "))
	}
	if err := e.apply(cfg); err != nil {
		if back := e.apply(e.cfg); back != nil {
			e.log.Error("put the old configuration back", "error", back)
		}
		return none, api.Conflict("%v: the old configuration stays", err)
	}
	e.cfg = cfg
	e.log.Info("reloaded", "changed", live)
	return api.ReloadResult{Changed: append([]string{}, live...), Restart: []string{}}, nil
}

// apply puts everything a reload can change into force.
func (e *Engine) apply(cfg config.Config) error {
	if err := e.applyLists(cfg); err != nil {
		return err
	}
	if e.o.LogLevel != nil {
		if err := e.o.LogLevel.UnmarshalText([]byte(cfg.Log.Level)); err != nil {
			return fmt.Errorf("log.level: %w", err)
		}
	}
	return e.plane.Apply(dataplane.Settings{
		Limits: limitsOf(cfg.Limits), Policies: policiesOf(cfg.Parse),
		EventsPerSecond: int(cfg.Events.PerSecond), Observe: cfg.DryRun,
	})
}
