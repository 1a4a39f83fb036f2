// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/sentinel-x/sentinel-x/internal/lab"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
	"github.com/sentinel-x/sentinel-x/internal/tui"
)

func (a *app) demoCommand() *cobra.Command {
	var o lab.DemoOptions
	var plain bool
	c := a.jsonFlag(&cobra.Command{
		Use:   "demo",
		Short: "Show the whole product on this machine, in namespaces of its own",
		Long: `Build a small network out of namespaces, with a web server, real clients and attackers;
filter with the real engine; show a flood that the meter stops and one that an
operator's block stops; and report what it did to the clients. It takes about a
minute and root, touches no interface of the machine, and leaves nothing behind.`,
		Example: "  sentinel-x demo\n  sentinel-x demo --length 30s --json",
		Args:    args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed("length") && o.Length < time.Second {
				return usagef("--length %s is too short to show anything; give 10s or more", o.Length)
			}
			return a.demo(cmd.Context(), o, plain)
		},
	})
	c.Flags().DurationVar(&o.Length, "length", 56*time.Second, "how long it takes, without setting up")
	c.Flags().IntVar(&o.Clients, "clients", 50, "clients")
	c.Flags().Uint64Var(&o.FloodRate, "flood-rate", 150_000, "packets a second that the attackers send")
	c.Flags().BoolVar(&plain, "plain", false, "write plain lines, also on a terminal")
	return c
}

// demo runs the demo beside its view. The user, a signal, or the end of the
// terminal ends both early; what was done until then is reported.
func (a *app) demo(ctx context.Context, o lab.DemoOptions, plain bool) error {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGHUP)
	defer stop()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	show := a.startView(ctx, cancel, plain)
	show.snapshots <- tui.Snapshot{Phase: "Setting up namespaces, a web server and clients"}
	o.View = func(s lab.DemoState) { show.send(snapshot(s)) }
	report, err := lab.Demo(ctx, o)
	viewErr := show.end()
	early := onlyCanceled(err)
	if err != nil && !early {
		return err
	}
	if viewErr != nil {
		return viewErr
	}
	if early {
		fmt.Fprintln(a.err, "sentinel-x: ended early; everything was taken down")
		if len(report.Phases) == 0 {
			return nil
		}
	}
	return a.print(report, func(w io.Writer) { writeDemo(w, report) })
}

// onlyCanceled reports whether nothing is wrong but that the demo was ended: an
// error of taking things down, joined to that, is not to be hidden by it.
func onlyCanceled(err error) bool {
	switch e := err.(type) { //nolint:errorlint // it walks the tree itself
	case nil:
		return false
	case interface{ Unwrap() []error }:
		for _, part := range e.Unwrap() {
			if !onlyCanceled(part) {
				return false
			}
		}
		return true
	case interface{ Unwrap() error }:
		return onlyCanceled(e.Unwrap())
	}
	return errors.Is(err, context.Canceled)
}

// view is a live view in a goroutine of its own.
type view struct {
	snapshots chan tui.Snapshot
	ended     chan struct{}
	err       error // set before ended is closed
}

// startView starts the view; if it ends first, for whatever reason, so does ctx.
func (a *app) startView(ctx context.Context, cancel func(), plain bool) *view {
	v := &view{snapshots: make(chan tui.Snapshot, 16), ended: make(chan struct{})}
	in, out := a.in, a.out
	switch {
	case a.json:
		in, out = nil, a.err // standard output is for the report
	case plain:
		in = nil
	}
	go func() {
		defer close(v.ended)
		v.err = tui.Show(ctx, in, out, "demo", v.snapshots)
		if v.err != nil {
			cancel()
		}
	}()
	return v
}

// send shows a snapshot, or drops it if the view has ended.
func (v *view) send(s tui.Snapshot) {
	select {
	case v.snapshots <- s:
	case <-v.ended:
	}
}

// end ends the view and returns why it failed, if it did.
func (v *view) end() error {
	close(v.snapshots)
	<-v.ended
	if errors.Is(v.err, tui.ErrQuit) || errors.Is(v.err, context.Canceled) {
		return nil
	}
	return v.err
}

// snapshot is a state of the demo as the view takes it.
func snapshot(s lab.DemoState) tui.Snapshot {
	out := tui.Snapshot{
		Elapsed: s.Elapsed, Phase: s.Phase, Seen: s.Seen, Passed: s.Passed, Dropped: s.Dropped, Log: shortened(s.Log),
		Clients: &tui.Clients{
			Count: s.ClientCount, Success: s.Clients.Success(), P50: s.Clients.P50.Duration, P99: s.Clients.P99.Duration,
		},
	}
	for _, r := range s.Reasons {
		out.Reasons = append(out.Reasons, tui.Reason(r))
	}
	return out
}

// shortened leaves out of the daemon's lines what the view has no room for.
func shortened(log []string) []string {
	out := make([]string, 0, len(log))
	for _, line := range log {
		if at, rest, ok := strings.Cut(line, " level=INFO msg="); ok && strings.HasPrefix(at, "time=") {
			line = "engine: " + rest
		}
		out = append(out, line)
	}
	return out
}

func writeDemo(w io.Writer, r lab.DemoReport) {
	fmt.Fprintf(w, "Demo of %s: %s packets seen, %s dropped (%s)\n\n", age(r.Elapsed.Duration),
		grouped(r.Seen.Packets), grouped(r.Dropped.Packets), percent(r.Dropped.Packets, r.Seen.Packets))
	t := newTable("PHASE", ">ATTACK SENT", ">PASSED", ">DROPPED", "BY", ">SERVED", ">P50", ">P99")
	for _, p := range r.Phases {
		t.row(p.Name, grouped(p.Sent), grouped(p.Passed.Packets), grouped(p.Dropped.Packets), reasonNames(p.Drops),
			percent(p.Clients.Succeeded, p.Clients.Requests), rounded(p.Clients.P50.Duration), rounded(p.Clients.P99.Duration))
	}
	t.write(w)
	fmt.Fprintln(w)
	for _, p := range r.Phases {
		fmt.Fprintf(w, "%-8s  %s\n", p.Name, p.Title)
	}
	fmt.Fprintln(w)
	for _, name := range slices.Sorted(maps.Keys(r.Drops)) {
		fmt.Fprintf(w, "dropped for %s: %s packets, %s\n", name, grouped(r.Drops[name].Packets), size(r.Drops[name].Bytes))
	}
	fmt.Fprintf(w, "latency of a verdict: %s\n", latency(r.Latency))
	fmt.Fprintln(w, "\nPASSED counts packets of clients and of attackers; SERVED, P50 and P99 are\nwhat the clients measured.")
}

func reasonNames(drops map[string]traffic.Count) string {
	if len(drops) == 0 {
		return "-"
	}
	return strings.Join(slices.Sorted(maps.Keys(drops)), ", ")
}

func rounded(d time.Duration) string {
	switch {
	case d >= time.Second:
		return d.Round(10 * time.Millisecond).String()
	case d >= time.Millisecond:
		return d.Round(10 * time.Microsecond).String()
	}
	return d.Round(time.Microsecond).String()
}
