// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/sentinel-x/sentinel-x/internal/api"
	"github.com/sentinel-x/sentinel-x/internal/dataplane"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// DemoOptions choose how the demo runs; the zero value is the usual one.
type DemoOptions struct {
	Command     []string        // the daemon; nil: this program's run command
	Length      time.Duration   // of all phases together; 0: 56 s
	Clients     int             // 0: 50
	RequestRate float64         // HTTP requests a second of all clients together; 0: 200
	FloodRate   uint64          // packets a second; 0: 150 000
	Refresh     time.Duration   // between two views; 0: 500 ms
	View        func(DemoState) // called often, from one goroutine; nil: nobody looks
}

func (o DemoOptions) withDefaults() (DemoOptions, error) {
	if o.Command == nil {
		self, err := os.Executable()
		if err != nil {
			return o, fmt.Errorf("find this program, to run it as the daemon: %w", err)
		}
		o.Command = []string{self, "run"}
	}
	o.Length = orDefault(o.Length, 56*time.Second)
	o.Clients = orDefault(o.Clients, 50)
	o.RequestRate = orDefault(o.RequestRate, 200)
	o.FloodRate = orDefault(o.FloodRate, 150_000)
	o.Refresh = orDefault(o.Refresh, 500*time.Millisecond)
	if o.View == nil {
		o.View = func(DemoState) {}
	}
	return o, nil
}

func orDefault[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}

// DemoState is one moment of the demo, for a live view.
type DemoState struct {
	Elapsed               time.Duration
	Length                time.Duration
	Phase                 string  // what goes on, one sentence
	Seen, Passed, Dropped float64 // packets a second, as the engine counts them
	Reasons               []DemoReason
	ClientCount           int
	Clients               Interval // since the last state with requests in it
	Log                   []string // every line so far; the daemon's own and what happens in the demo
}

// DemoReason is one reason for drops, in the order of traffic.Reason.
type DemoReason struct {
	Name    string
	Rate    float64 // packets a second
	Packets uint64  // since the start
}

// DemoReport is what the demo found.
type DemoReport struct {
	Elapsed api.Duration             `json:"elapsed"`
	Seen    traffic.Count            `json:"seen"`
	Passed  traffic.Count            `json:"passed"`
	Dropped traffic.Count            `json:"dropped"`
	Drops   map[string]traffic.Count `json:"drops"`   // by reason, those that occurred
	Block   string                   `json:"block"`   // the prefix that the operator blocked
	Limit   uint64                   `json:"limit"`   // packets a second that a source may send
	Latency api.Latency              `json:"latency"` // of the verdict, in the kernel
	Phases  []DemoPhase              `json:"phases"`
}

// DemoPhase is what one phase of the demo did.
type DemoPhase struct {
	Name    string                   `json:"name"`
	Title   string                   `json:"title"`
	Sent    uint64                   `json:"sent"` // frames of the flood, counted by the generator
	Seen    traffic.Count            `json:"seen"`
	Passed  traffic.Count            `json:"passed"`
	Dropped traffic.Count            `json:"dropped"`
	Drops   map[string]traffic.Count `json:"drops"`
	Clients Interval                 `json:"clients"` // measured by the clients
}

// victim is what the demo needs of the engine it shows.
type victim interface {
	Counters(ctx context.Context) (api.Counters, error)
	Block(ctx context.Context, prefix netip.Prefix, ttl time.Duration) error
	Close() error
}

var _ victim = (*Daemon)(nil)

// The attackers are in networks for documentation: nobody else's, and not the clients'.
var (
	fewSources = netip.MustParsePrefix("198.51.100.0/24")
	botnet     = netip.MustParsePrefix("203.0.113.0/24")
)

const (
	webPort      = 80
	floodFrame   = 60
	numFew       = 4
	numBots      = 256
	demoBlockTTL = 10 * time.Minute
)

// step is one phase of the demo's plan.
type step struct {
	name, title string
	seconds     int // of planSeconds; the demo's length scales it
	flood       *dataplane.Flood
	block       netip.Prefix // blocked by the operator when the phase starts
}

const planSeconds = 56

// plan is the demo's course. The limit lies between what a bot sends and what
// each of the few sources does, so that the meter stops only the latter.
func plan(rate, limit uint64) []step {
	few := &dataplane.Flood{Kind: dataplane.FloodUDP, Source: fewSources, Sources: numFew, DestPort: 9, Rate: rate, Size: floodFrame}
	bots := &dataplane.Flood{Kind: dataplane.FloodSYN, Source: botnet, Sources: numBots, DestPort: webPort, Rate: rate, Size: floodFrame}
	return []step{
		{"calm", "Calm: clients load pages", 8, nil, netip.Prefix{}},
		{"limit", fmt.Sprintf("UDP flood from %d sources: the meter holds each to %d packets/s", numFew, limit), 14, few, netip.Prefix{}},
		{"between", "Calm again", 6, nil, netip.Prefix{}},
		{"botnet", fmt.Sprintf("SYN flood from %d sources, each below the limit: it gets through", numBots), 6, bots, netip.Prefix{}},
		{"block", fmt.Sprintf("The flood goes on; the operator has blocked %s", botnet), 14, bots, botnet},
		{"after", "Calm after the attack", 8, nil, netip.Prefix{}},
	}
}

// Demo shows the product on one machine: the real daemon on a veth, a web
// server behind it, real clients, a flood that the meter stops and one that an
// operator's block stops. It ends by itself after Length, or with ctx: then the
// report covers what was done, and the error is that of ctx. Nothing is left.
func Demo(ctx context.Context, o DemoOptions) (report DemoReport, err error) {
	if o, err = o.withDefaults(); err != nil {
		return report, err
	}
	// The filter works on the flood's own core, so that what is sent is what it sees:
	// no ring overflows before it.
	n, err := NewNet(NetOptions{Clients: o.Clients})
	if err != nil {
		return report, err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	d := &demo{options: o, net: n, limit: o.FloodRate / numBots * 2, start: time.Now()}
	daemon, err := n.StartDaemon(ctx, n.VictimEnd, DaemonOptions{Command: o.Command, Config: d.config(), Log: d.log.add})
	if err != nil {
		return report, err
	}
	d.victim = daemon
	defer func() { err = errors.Join(err, daemon.Close()) }()
	server, err := n.Victim.ServeHTTP(netip.AddrPortFrom(Victim4, webPort))
	if err != nil {
		return report, err
	}
	defer func() { err = errors.Join(err, server.Close()) }()
	d.start = time.Now()
	err = d.run(ctx, server.Addr)
	if status, statusErr := daemon.Client.Status(context.WithoutCancel(ctx)); statusErr == nil {
		d.report.Latency = status.Latency
	}
	return d.report, err
}

type demo struct {
	options DemoOptions
	net     *Net
	victim  victim
	clients *Clients
	limit   uint64
	start   time.Time
	log     demoLog
	state   DemoState
	last    api.Counters
	report  DemoReport
}

func (d *demo) config() string {
	return fmt.Sprintf("stats_interval: 0s\nlimits: {per_source: {all: {packets: %d}}}\n", d.limit)
}

func (d *demo) run(ctx context.Context, server netip.AddrPort) (err error) {
	first, err := d.victim.Counters(ctx)
	if err != nil {
		return err
	}
	d.last, d.report.Limit = first, d.limit
	d.state = DemoState{Length: d.options.Length, ClientCount: d.options.Clients}
	d.clients, err = d.net.Peer.StartClients(ctx, ClientOptions{
		Service: ServiceHTTP, Server: server, Sources: d.net.Clients(), Rate: d.options.RequestRate,
	})
	if err != nil {
		return err
	}
	err = d.phases(ctx)
	for i, interval := range d.clients.Stop()[1:] { // the first is before the first phase
		d.report.Phases[i].Clients = interval
	}
	last, countErr := d.victim.Counters(context.WithoutCancel(ctx))
	d.report.Elapsed = api.Duration{Duration: time.Since(d.start)}
	d.report.Seen, d.report.Passed, d.report.Dropped, d.report.Drops = difference(first, last)
	return errors.Join(err, countErr)
}

func (d *demo) phases(ctx context.Context) error {
	for _, s := range plan(d.options.FloodRate, d.limit) {
		if err := d.phase(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

// phase runs one step to its end, and records what the engine counted in it.
func (d *demo) phase(ctx context.Context, s step) (err error) {
	length := d.options.Length * time.Duration(s.seconds) / planSeconds
	d.state.Phase = s.title
	d.clients.Phase(s.name)
	p := DemoPhase{Name: s.name, Title: s.title}
	before := d.last
	defer func() {
		p.Seen, p.Passed, p.Dropped, p.Drops = difference(before, d.last)
		d.report.Phases = append(d.report.Phases, p)
	}()
	limited, cancel := context.WithTimeout(ctx, length)
	defer cancel()
	flooded := d.flood(limited, s.flood)
	if s.block.IsValid() {
		if err := d.block(ctx, s.block); err != nil {
			cancel()
			return errors.Join(err, (<-flooded).err)
		}
	}
	err = d.watch(limited)
	cancel()
	f := <-flooded
	p.Sent = f.sent
	return errors.Join(err, f.err, ctx.Err(), d.look(context.WithoutCancel(ctx)))
}

// block is what an operator does: one request to the daemon's API.
func (d *demo) block(ctx context.Context, prefix netip.Prefix) error {
	d.log.add(fmt.Sprintf("operator: sentinel-x block add %s --ttl %s", prefix, api.Duration{Duration: demoBlockTTL}))
	start := time.Now()
	if err := d.victim.Block(ctx, prefix, demoBlockTTL); err != nil {
		return err
	}
	d.report.Block = prefix.String()
	d.log.add(fmt.Sprintf("operator: in force after %s", time.Since(start).Round(10*time.Microsecond)))
	return nil
}

type flooded struct {
	sent uint64
	err  error
}

// flood sends a flood in the background, until ctx ends.
func (d *demo) flood(ctx context.Context, f *dataplane.Flood) <-chan flooded {
	result := make(chan flooded, 1)
	if f == nil {
		result <- flooded{}
		return result
	}
	bounded := *f
	bounded.Duration = d.options.Length // beside ctx, which ends it first
	go func() {
		report, err := d.net.Flood(ctx, bounded)
		result <- flooded{report.Sent.Packets, err}
	}()
	return result
}

// watch shows a state again and again until ctx ends.
func (d *demo) watch(ctx context.Context) error {
	for {
		wait(ctx, d.options.Refresh)
		if ctx.Err() != nil {
			return nil
		}
		if err := d.look(context.WithoutCancel(ctx)); err != nil {
			return err
		}
	}
}

// look reads the counters and shows the state.
func (d *demo) look(ctx context.Context) error {
	now, err := d.victim.Counters(ctx)
	if err != nil {
		return err
	}
	d.state.Elapsed = time.Since(d.start)
	d.state.Log = d.log.lines()
	if r := d.clients.Recent(); r.Requests > 0 {
		d.state.Clients = r
	}
	d.state.setRates(d.last, now)
	d.last = now
	d.options.View(d.state)
	return nil
}

// setRates works out packets a second between two readings of the counters.
func (s *DemoState) setRates(before, now api.Counters) {
	seconds := now.Time.Sub(before.Time).Seconds()
	if seconds <= 0 {
		return
	}
	rate := func(before, now traffic.Count) float64 { return float64(now.Packets-before.Packets) / seconds }
	s.Seen, s.Passed, s.Dropped = rate(before.Seen, now.Seen), rate(before.Passed, now.Passed), rate(before.Dropped, now.Dropped)
	s.Reasons = nil // not truncated: an earlier state may still be drawn
	for r := range traffic.NumReasons {
		name := r.String()
		if dropped := now.Reasons[name].Dropped; dropped.Packets > 0 {
			s.Reasons = append(s.Reasons, DemoReason{name, rate(before.Reasons[name].Dropped, dropped), dropped.Packets})
		}
	}
}

// difference returns what was counted between two readings.
func difference(before, after api.Counters) (seen, passed, dropped traffic.Count, drops map[string]traffic.Count) {
	drops = map[string]traffic.Count{}
	for name, counts := range after.Reasons {
		if n := counts.Dropped.Sub(before.Reasons[name].Dropped); n.Packets > 0 {
			drops[name] = n
		}
	}
	return after.Seen.Sub(before.Seen), after.Passed.Sub(before.Passed), after.Dropped.Sub(before.Dropped), drops
}

// demoLog collects lines from several goroutines.
type demoLog struct {
	mu  sync.Mutex
	all []string
}

func (l *demoLog) add(line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, line)
}

func (l *demoLog) lines() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.all)
}
