// SPDX-License-Identifier: Apache-2.0

package lab_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sentinel-x/sentinel-x/internal/config"
	"github.com/sentinel-x/sentinel-x/internal/dataplane"
	"github.com/sentinel-x/sentinel-x/internal/engine"
	"github.com/sentinel-x/sentinel-x/internal/lab"
)

// runDaemon is what `sentinel-x run --config FILE` does.
func runDaemon() {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
	defer stop()
	cfg, err := config.Load(os.Args[len(os.Args)-1])
	if err == nil {
		err = engine.Run(ctx, cfg, engine.Options{Log: slog.New(slog.NewTextHandler(os.Stderr, nil)), Version: "test"})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// daemonCommand makes this test binary the daemon.
func daemonCommand(t *testing.T) []string {
	t.Setenv(childEnv, "daemon")
	return []string{os.Args[0]}
}

func TestDemoShowsWhatItClaims(t *testing.T) {
	var states []lab.DemoState
	report, err := lab.Demo(t.Context(), lab.DemoOptions{
		Command: daemonCommand(t), Length: 11 * time.Second, FloodRate: 50_000, Refresh: 200 * time.Millisecond,
		View: func(s lab.DemoState) { states = append(states, s) },
	})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, p := range report.Phases {
		names = append(names, p.Name)
		checkPhase(t, report, p)
	}
	if got := strings.Join(names, " "); got != "calm limit between botnet block after" {
		t.Errorf("phases %s", got)
	}
	if report.Drops["limit"].Packets == 0 || report.Drops["blocklist"].Packets == 0 || report.Block == "" {
		t.Errorf("drops %v, block %q; want both the meter's and the block's", report.Drops, report.Block)
	}
	checkStates(t, states)
	if left := named(t, fmt.Sprintf("sx-%d-", os.Getpid())); len(left) > 0 {
		t.Errorf("left %v", left)
	}
	if _, err := os.Stat("/run/sentinel-x-lab"); err == nil {
		left, _ := filepath.Glob(fmt.Sprintf("/run/sentinel-x-lab/sx-%d-*", os.Getpid()))
		if len(left) > 0 {
			t.Errorf("left %v", left)
		}
	}
}

func checkPhase(t *testing.T, r lab.DemoReport, p lab.DemoPhase) {
	t.Helper()
	if p.Clients.Name != p.Name || p.Clients.Requests == 0 {
		t.Errorf("%s: clients %+v", p.Name, p.Clients)
	}
	flood := p.Name == "limit" || p.Name == "botnet" || p.Name == "block"
	if flood != (p.Sent > 0) {
		t.Errorf("%s: %d frames of flood sent", p.Name, p.Sent)
	}
	// All but the burst that the meter grants, and the frames before the block.
	mostly := p.Name == "limit" || p.Name == "block"
	if mostly && p.Dropped.Packets*2 < p.Seen.Packets {
		t.Errorf("%s: dropped %d of %d seen, want most", p.Name, p.Dropped.Packets, p.Seen.Packets)
	}
	if p.Name == "botnet" && p.Passed.Packets*2 < p.Seen.Packets {
		t.Errorf("%s: passed %d of %d seen, want most: each is below the limit of %d", p.Name, p.Passed.Packets, p.Seen.Packets, r.Limit)
	}
	if !flood && p.Name != "after" && p.Clients.Succeeded != p.Clients.Requests {
		t.Errorf("%s: %+v, want every request answered", p.Name, p.Clients)
	}
	if p.Clients.Succeeded == 0 {
		t.Errorf("%s: no client had an answer: %+v", p.Name, p.Clients)
	}
	t.Logf("%-8s sent %7d seen %7d passed %7d dropped %7d; clients %d/%d p50 %s p99 %s",
		p.Name, p.Sent, p.Seen.Packets, p.Passed.Packets, p.Dropped.Packets, p.Clients.Succeeded, p.Clients.Requests, p.Clients.P50, p.Clients.P99)
}

func checkStates(t *testing.T, states []lab.DemoState) {
	t.Helper()
	if len(states) < 10 {
		t.Fatalf("only %d states were shown", len(states))
	}
	var sawDrops, sawClients bool
	for i, s := range states {
		if i > 0 && s.Elapsed < states[i-1].Elapsed {
			t.Errorf("time ran back from %s to %s", states[i-1].Elapsed, s.Elapsed)
		}
		sawDrops = sawDrops || (s.Dropped > 0 && len(s.Reasons) > 0)
		sawClients = sawClients || (s.Clients.Requests > 0 && s.Clients.P50.Duration > 0)
	}
	last := states[len(states)-1]
	log := strings.Join(last.Log, "\n")
	if !sawDrops || !sawClients || !strings.Contains(log, "block add") || !strings.Contains(log, "filtering") {
		t.Errorf("saw drops %t, clients %t; log:\n%s", sawDrops, sawClients, log)
	}
}

func TestDemoEndsCleanlyWhenInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	report, err := lab.Demo(ctx, lab.DemoOptions{
		Command: daemonCommand(t), FloodRate: 10_000, Refresh: 50 * time.Millisecond, Length: 56 * time.Second / 20,
		View: func(s lab.DemoState) {
			if strings.Contains(s.Phase, "UDP flood") {
				cancel()
			}
		},
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the context's error", err)
	}
	if len(report.Phases) != 2 || report.Phases[1].Name != "limit" {
		t.Errorf("report covers %+v, want what was done", report.Phases)
	}
	if left := named(t, fmt.Sprintf("sx-%d-", os.Getpid())); len(left) > 0 {
		t.Errorf("left %v", left)
	}
}

func TestDaemonThatDoesNotStart(t *testing.T) {
	n := lab.NewTestNet(t, lab.NetOptions{})
	if _, err := n.StartDaemon(t.Context(), n.VictimEnd, lab.DaemonOptions{Command: daemonCommand(t), Config: "no_such_key: 1\n"}); err == nil || !strings.Contains(err.Error(), "no_such_key") {
		t.Errorf("got %v, want what the daemon said", err)
	}
	if _, err := n.StartDaemon(t.Context(), n.VictimEnd, lab.DaemonOptions{Command: []string{"/no/such/program"}}); err == nil {
		t.Error("a program that is not there was started")
	}
}

func TestKilledDaemonLeavesTheVethPassing(t *testing.T) {
	n := lab.NewTestNet(t, lab.NetOptions{})
	d, err := n.StartDaemon(t.Context(), n.VictimEnd, lab.DaemonOptions{Command: daemonCommand(t)})
	if err != nil {
		t.Fatal(err)
	}
	block := netip.MustParsePrefix("192.0.2.0/24")
	if err := d.Block(t.Context(), block, time.Minute); err != nil {
		t.Fatal(err)
	}
	r, err := n.VictimEnd.NewReceiver(0, fromFlood(n))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	f := dataplane.Flood{Kind: dataplane.FloodUDP, Source: block, Sources: 5, Count: 50}
	if _, err := n.Flood(t.Context(), f); err != nil {
		t.Fatal(err)
	}
	waitForDrops(t, d, f.Count)
	if got, _ := r.Count(); got != 0 {
		t.Errorf("%d frames of a blocked source reached the stack", got)
	}
	if err := d.Kill(); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Flood(t.Context(), f); err != nil {
		t.Fatal(err)
	}
	if !r.WaitFor(f.Count, delivery) {
		t.Error("frames do not pass after the daemon was killed")
	}
	if err := d.Close(); err != nil {
		t.Errorf("closing a killed daemon: %v", err)
	}
}

func waitForDrops(t *testing.T, d *lab.Daemon, n uint64) {
	t.Helper()
	for deadline := time.Now().Add(delivery); ; time.Sleep(5 * time.Millisecond) {
		c, err := d.Counters(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if c.Reasons["blocklist"].Dropped.Packets == n {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("dropped %d frames, want %d", c.Reasons["blocklist"].Dropped.Packets, n)
		}
	}
}

func TestTransferThroughTheFilterIsIntact(t *testing.T) {
	const gigabyte = 1 << 30
	for _, mode := range []string{"native", "generic"} {
		for _, mtu := range []int{1500, 9000} {
			t.Run(fmt.Sprintf("%s/%d", mode, mtu), func(t *testing.T) {
				n := lab.NewTestNet(t, lab.NetOptions{MTU: mtu})
				d, err := n.StartDaemon(t.Context(), n.VictimEnd, lab.DaemonOptions{
					Command: daemonCommand(t), Config: "mode: " + mode + "\n", Log: func(line string) { t.Log(line) },
				})
				if err != nil {
					t.Fatal(err)
				}
				before, err := d.Counters(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				o := lab.TransferOptions{From: n.Peer, To: n.Victim, Source: lab.Peer4, Target: lab.Victim4, Bytes: gigabyte}
				elapsed, err := lab.Transfer(t.Context(), o)
				if err != nil {
					t.Fatal(err)
				}
				after, err := d.Counters(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if seen := after.Seen.Sub(before.Seen); seen.Bytes < gigabyte {
					stats, err := n.VictimEnd.Stats()
					t.Errorf("the filter saw %+v, not the whole transfer; counters %+v; the interface %+v, %v", seen, after, stats, err)
				}
				t.Logf("1 GiB in %s, %d frames", elapsed, after.Seen.Packets-before.Seen.Packets)
				if err := d.Close(); err != nil {
					t.Error(err)
				}
			})
		}
	}
}
