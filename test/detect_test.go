// SPDX-License-Identifier: Apache-2.0

package test

import (
	"context"
	"encoding/json"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sentinel-x/sentinel-x/internal/api"
	"github.com/sentinel-x/sentinel-x/internal/dataplane"
	"github.com/sentinel-x/sentinel-x/internal/lab"
)

// detectConfig has a limit of SYNs a second that the flood of these tests is above, and their clients are not.
const detectConfig = "detect: {limits: {syn: 5k}}\n"

func (s *site) incidents(t *testing.T, flags ...string) (list []api.Incident) {
	t.Helper()
	if err := json.Unmarshal([]byte(s.ok(t, append([]string{"incidents", "--json"}, flags...)...)), &list); err != nil {
		t.Fatal(err)
	}
	return list
}

// synFlood sends SYNs from everywhere at the victim until the returned function is called.
func (s *site) synFlood(t *testing.T) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := s.Flood(ctx, dataplane.Flood{
			Source: netip.MustParsePrefix("2001:db8::/32"), Dest: lab.Victim6, Kind: dataplane.FloodSYN, DestPort: 80,
			Rate: 20_000, Duration: time.Minute,
		})
		done <- err
	}()
	return func() {
		cancel()
		if err := <-done; err != nil && ctx.Err() == nil {
			t.Error(err)
		}
	}
}

// Clients are no incident; a flood is one, until it ends, and over a restart of the daemon.
func TestDaemonFindsAFlood(t *testing.T) {
	s := newSite(t, lab.NetOptions{Clients: 2})
	cfg := s.write(t, "sentinel.yaml", detectConfig)
	d := s.start(t, s.runArgs("--config", cfg)...)
	for range 20 {
		s.wantReach(t, "a client", lab.Client4(0), true)
	}
	eventually(t, "the daemon ticks", func() bool { return s.status(t).Detection.Ticks > 20 })
	if st := s.status(t).Detection; !st.Enabled || st.Targets < 2 {
		t.Errorf("detection: %+v", st)
	}
	if list := s.incidents(t, "--all"); len(list) != 0 {
		t.Fatalf("clients are incidents: %+v", list)
	}
	stop := s.synFlood(t)
	var found api.Incident
	eventually(t, "the flood is an incident at the victim", func() bool {
		for _, i := range s.incidents(t, "--open") {
			if i.Target == lab.Victim6.String() {
				found = i
				return true
			}
		}
		return false
	})
	stop()
	if found.Kind != "syn_flood" || found.Peak.Packets < 1000 || found.Ended != nil {
		t.Errorf("%+v", found)
	}
	if text := s.ok(t, "incidents", "show", found.ID); !strings.Contains(text, "syn_flood at "+lab.Victim6.String()) || !strings.Contains(text, "deterministic: attack") {
		t.Errorf("incidents show:\n%s", text)
	}
	s.ok(t, "incidents", "label", found.ID, "attack")
	d.stop(t)
	if text := d.log.String(); !strings.Contains(text, "msg=attack ") || !strings.Contains(text, "id="+found.ID) {
		t.Errorf("the log does not tell of the attack:\n%s", text)
	}
	d = s.start(t, s.runArgs("--config", cfg)...)
	again := s.incidents(t)
	if len(again) == 0 || again[0].Ended == nil || !strings.Contains(s.ok(t, "incidents", "show", found.ID), "attack") {
		t.Errorf("after a restart: %+v", again)
	}
	d.stop(t)
}

// A daemon that stands still keeps no packet from its way. It counts the ticks that
// never came, and then sees what goes on.
func TestStalledDaemonSlowsNothing(t *testing.T) {
	s := newSite(t, lab.NetOptions{Clients: 2})
	d := s.start(t, s.runArgs("--config", s.write(t, "sentinel.yaml", detectConfig))...)
	s.wantReach(t, "at the start", lab.Client4(0), true)
	stop := s.synFlood(t)
	defer stop()
	eventually(t, "the flood arrives", func() bool {
		st := s.status(t)
		return st.Counters.Seen.Packets > 1000 && st.Detection.Ticks > 5
	})
	before := s.status(t)
	if err := d.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * time.Second)
	s.wantReach(t, "while the daemon stands still", lab.Client4(1), true)
	if err := d.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the daemon says which ticks never came", func() bool { return s.status(t).Detection.Late > before.Detection.Late+10 })
	after := s.status(t)
	if got := after.Counters.Seen.Packets - before.Counters.Seen.Packets; got < 10_000 {
		t.Errorf("%d packets went by while the daemon stood still", got)
	}
	ticks := after.Detection.Ticks
	eventually(t, "the daemon ticks on", func() bool { return s.status(t).Detection.Ticks > ticks+10 })
	eventually(t, "the flood is an incident", func() bool { return len(s.incidents(t, "--open")) > 0 })
	d.stop(t)
}
