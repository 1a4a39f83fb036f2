// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sentinel-x/sentinel-x/internal/api"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

func someEvents() []traffic.Event {
	at := noon.Add(123 * time.Millisecond).Local()
	src, dst := netip.MustParseAddr("198.51.100.7"), netip.MustParseAddr("192.0.2.1")
	return []traffic.Event{
		{Time: at, Reason: traffic.ReasonBlocklist, Outcome: traffic.Dropped, Source: src, Destination: dst, Protocol: 17, SourcePort: 53, DestPort: 4444, TTL: 60, Length: 512},
		{Time: at, Reason: traffic.ReasonLimit, Outcome: traffic.WouldDrop, Source: src, Destination: dst, Protocol: 6, SourcePort: 40000, DestPort: 443, TCPFlags: 0x12, TTL: 64, Length: 60, VLANs: 2},
		{
			Time: at, Reason: traffic.ReasonPass, Outcome: traffic.Passed, Source: netip.MustParseAddr("2001:db8::7"), Destination: netip.MustParseAddr("2001:db8::1"),
			Protocol: 132, TTL: 255, Length: 1500, Fragment: true, Tunnel: true,
		},
		{Time: at, Reason: traffic.ReasonNonIP, Outcome: traffic.Passed, Length: 60},
	}
}

func TestEventLines(t *testing.T) {
	var lines strings.Builder
	for _, e := range someEvents() {
		wire := api.EventOf("eth0", &e)
		lines.WriteString(strings.ReplaceAll(eventLine(&wire), noon.Local().Format("15:04:05"), "TIME") + "\n")
	}
	golden(t, "testdata/events.txt", lines.String())
}

// follow runs the events command against a server that publishes events as soon
// as the command listens.
func follow(t *testing.T, args ...string) outcome {
	t.Helper()
	s, socket := serve(t, newFakeEngine())
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
			}
			if s.Readers() > 0 {
				for _, e := range someEvents() {
					s.Publish("eth0", &e)
				}
			}
		}
	}()
	return runCLI(t, "", append([]string{"events", "--socket", socket}, args...)...)
}

func TestEventsStopAfterCount(t *testing.T) {
	o := follow(t, "--count", "6")
	if o.exit != ExitOK || strings.Count(o.stdout, "\n") != 6 || o.stderr != "" {
		t.Errorf("%v", o)
	}
}

func TestEventsFilter(t *testing.T) {
	o := follow(t, "--reason", "blocklist,pass", "--outcome", "dropped", "--source", "198.51.100.0/24", "--count", "2", "--json")
	if o.exit != ExitOK {
		t.Fatalf("%v", o)
	}
	lines := strings.Split(strings.TrimSpace(o.stdout), "\n")
	if len(lines) != 2 {
		t.Fatalf("%d lines: %v", len(lines), o)
	}
	e := someEvents()[0]
	wire := api.EventOf("eth0", &e)
	for _, line := range lines {
		var got api.EventMessage
		if err := json.Unmarshal([]byte(line), &got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(api.EventMessage{Event: &wire}, got); diff != "" {
			t.Error(diff)
		}
	}
}

func TestEventsEndCleanlyOnInterrupt(t *testing.T) {
	s, socket := serve(t, newFakeEngine())
	ctx, interrupt := context.WithCancel(t.Context())
	go func() {
		for s.Readers() == 0 {
			time.Sleep(time.Millisecond)
		}
		interrupt()
	}()
	var out, errOut strings.Builder
	if exit := Run(ctx, []string{"events", "--socket", socket}, nil, &out, &errOut); exit != ExitOK || errOut.Len() > 0 {
		t.Errorf("exit %d, %s", exit, errOut.String())
	}
}
