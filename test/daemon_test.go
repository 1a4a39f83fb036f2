// SPDX-License-Identifier: Apache-2.0

package test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/sentinel-x/sentinel-x/internal/api"
	"github.com/sentinel-x/sentinel-x/internal/lab"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// The daemon through its command line, native and generic: block, allow, expiry,
// dry run by reload, bypass, status, events, config, and a clean end.
func TestDaemonThroughItsCommandLine(t *testing.T) {
	for _, mode := range []string{"native", "generic"} {
		t.Run(mode, func(t *testing.T) {
			s := newSite(t, lab.NetOptions{Clients: 2})
			cfg := s.write(t, "sentinel.yaml", "dry_run: false\n")
			d := s.start(t, s.runArgs("--mode", mode, "--config", cfg)...)
			one, two := lab.Client4(0), lab.Client4(1)

			s.wantReach(t, "at the start", one, true)
			s.ok(t, "block", "add", one.String(), "--comment", "a test")
			s.wantReach(t, "blocked", one, false)
			s.wantReach(t, "not blocked", two, true)
			s.ok(t, "block", "add", lab.Client6(0).String())
			s.wantReach(t, "IPv6 blocked", lab.Client6(0), false)
			if list := s.ok(t, "block", "list"); !strings.Contains(list, one.String()) || !strings.Contains(list, "a test") {
				t.Errorf("block list:\n%s", list)
			}
			s.ok(t, "allow", "add", one.String())
			s.wantReach(t, "allowed above blocked", one, true)
			s.ok(t, "allow", "del", one.String())
			s.wantReach(t, "allowed no more", one, false)
			s.ok(t, "bypass", "on")
			s.wantReach(t, "bypass", one, true)
			s.ok(t, "bypass", "off")
			s.wantReach(t, "bypass off", one, false)

			s.write(t, "sentinel.yaml", "dry_run: true\n")
			s.ok(t, "reload")
			s.wantReach(t, "dry run", one, true)
			s.write(t, "sentinel.yaml", "dry_run: false\n")
			if err := d.cmd.Process.Signal(syscall.SIGHUP); err != nil {
				t.Fatal(err)
			}
			eventually(t, "SIGHUP ends the dry run", func() bool { return !s.status(t).DryRun })
			s.wantReach(t, "no dry run", one, false)

			s.ok(t, "block", "add", two.String(), "--ttl", "5s")
			s.wantReach(t, "blocked for five seconds", two, false)
			eventually(t, "the entry ends", func() bool { return s.reaches(t, two, lab.Victim4) })
			eventually(t, "the ended entry leaves the list", func() bool { return !strings.Contains(s.ok(t, "block", "list"), two.String()) })

			checkStatus(t, s, mode)
			d.stop(t)
			if on, ok := s.attached(t); ok {
				t.Errorf("still attached after SIGTERM: %+v", on)
			}
			for _, want := range []string{"Sentinel-X ran for", "blocklist", "would_drop", "p99"} {
				if !strings.Contains(d.log.String(), want) {
					t.Errorf("closing summary without %q:\n%s", want, d.log)
				}
			}
		})
	}
}

func checkStatus(t *testing.T, s *site, mode string) {
	t.Helper()
	st := s.status(t)
	if len(st.Interfaces) != 1 || st.Interfaces[0].Mode != mode || st.Health.State != api.HealthOK {
		t.Errorf("status: interfaces %+v, health %+v", st.Interfaces, st.Health)
	}
	if reasonCount(st, traffic.ReasonBlocklist) == 0 || reasonCount(st, traffic.ReasonBypass) == 0 || reasonCount(st, traffic.ReasonAllowlist) == 0 {
		t.Errorf("status: reasons %+v", st.Counters.Reasons)
	}
	c := st.Counters
	if c.WouldDrop.Packets == 0 || c.Seen.Packets != c.Passed.Packets+c.Dropped.Packets+c.WouldDrop.Packets {
		t.Errorf("status: seen %d, passed %d, dropped %d, would drop %d", c.Seen.Packets, c.Passed.Packets, c.Dropped.Packets, c.WouldDrop.Packets)
	}
	// The race detector multiplies what the process takes.
	if st.Memory.MapsBytes == 0 || raceFlags == nil && st.Memory.RSSBytes > 64<<20 {
		t.Errorf("status: memory of maps %d, resident %d", st.Memory.MapsBytes, st.Memory.RSSBytes)
	}
	if text := s.ok(t, "status"); !strings.Contains(text, mode) || !strings.Contains(text, "blocklist") {
		t.Errorf("status:\n%s", text)
	}
	if text := s.ok(t, "config", "show"); !strings.Contains(text, "dry_run: false") {
		t.Errorf("config show:\n%s", text)
	}
}

// A reload that cannot be applied whole changes nothing.
func TestReloadAppliesWholeOrNotAtAll(t *testing.T) {
	s := newSite(t, lab.NetOptions{Clients: 2})
	one, two := lab.Client4(0), lab.Client4(1)
	cfg := s.write(t, "sentinel.yaml", fmt.Sprintf("lists: {block: [%s]}\n", one))
	d := s.start(t, s.runArgs("--config", cfg)...)
	s.wantReach(t, "listed in the file", one, false)
	for name, c := range map[string]struct{ file, want string }{
		"unknown key":    {fmt.Sprintf("dry_runn: true\nlists: {block: [%s]}\n", two), "dry_run"},
		"takes restart":  {fmt.Sprintf("limits: {sources: 2048}\nlists: {block: [%s]}\n", two), "limits.sources"},
		"a protected":    {fmt.Sprintf("dry_run: true\nlists: {block: [%s]}\n", lab.Peer4), "gateway"},
		"bad prefix":     {"lists: {block: [192.0.2.1/24]}\n", "192.0.2.0/24"},
		"not yaml":       {"lists: [\n", "sentinel.yaml:"},
		"contradictory":  {"limits: {per_source: {all: {burst: 0s}}}\n", "burst"},
		"unreadable now": {"\x00\x01", "sentinel.yaml"},
	} {
		s.write(t, "sentinel.yaml", c.file)
		_, errOut, status := s.cli(t, "reload")
		if status == 0 || !strings.Contains(errOut, c.want) {
			t.Errorf("%s: status %d, %q lacks %q", name, status, errOut, c.want)
		}
		s.wantReach(t, name+", the old list", one, false)
		s.wantReach(t, name+", not the new list", two, true)
	}
	s.write(t, "sentinel.yaml", fmt.Sprintf("lists: {block: [%s]}\n", two))
	s.ok(t, "reload")
	s.wantReach(t, "no more in the file", one, true)
	s.wantReach(t, "in the new file", two, false)
	d.stop(t)
}

// What operators put on the lists is there again after a restart, with its expiry.
func TestEntriesSurviveARestart(t *testing.T) {
	s := newSite(t, lab.NetOptions{Clients: 2})
	one, two := lab.Client4(0), lab.Client4(1)
	d := s.start(t, s.runArgs()...)
	s.ok(t, "block", "add", one.String(), "--ttl", "1h", "--comment", "kept")
	s.ok(t, "block", "add", two.String(), "--ttl", "2s")
	before := s.ok(t, "block", "list", "--json")
	d.stop(t)
	s.wantReach(t, "stopped", one, true)
	d = s.start(t, s.runArgs()...)
	s.wantReach(t, "after the restart", one, false)
	eventually(t, "the short entry ends in the new process", func() bool { return s.reaches(t, two, lab.Victim4) })
	var entries, old []api.Entry
	for text, into := range map[string]*[]api.Entry{before: &old, s.ok(t, "block", "list", "--json"): &entries} {
		if err := json.Unmarshal([]byte(text), into); err != nil {
			t.Fatalf("%v in %s", err, text)
		}
	}
	for _, e := range old {
		if e.Comment == "kept" && !strings.Contains(fmt.Sprint(*e.Expires), fmt.Sprint(*find(t, entries, e).Expires)) {
			t.Errorf("expiry moved: %v, then %v", e.Expires, find(t, entries, e).Expires)
		}
	}
	d.stop(t)
}

func find(t *testing.T, entries []api.Entry, like api.Entry) api.Entry {
	t.Helper()
	for _, e := range entries {
		if e.Prefix == like.Prefix {
			return e
		}
	}
	t.Fatalf("%v is gone", like.Prefix)
	return api.Entry{}
}

// Unpinned, the program dies with the process, also under kill -9.
func TestKillUnpinned(t *testing.T) {
	s := newSite(t, lab.NetOptions{Clients: 1})
	d := s.start(t, s.runArgs("--no-pin")...)
	s.ok(t, "block", "add", lab.Client4(0).String())
	s.wantReach(t, "blocked", lab.Client4(0), false)
	d.kill()
	eventually(t, "the program goes with the process", func() bool { _, ok := s.attached(t); return !ok })
	s.wantReach(t, "after kill -9", lab.Client4(0), true)
	// The dead process's socket and journal do not stop the next start.
	d = s.start(t, s.runArgs("--no-pin")...)
	s.wantReach(t, "restarted", lab.Client4(0), false)
	d.stop(t)
}

// Pinned, it goes on filtering after kill -9, entries end by themselves, the next start takes over, and detach removes it.
func TestKillPinned(t *testing.T) {
	s := newSite(t, lab.NetOptions{Clients: 2})
	pins := s.bpffs(t)
	d := s.start(t, s.runArgs("--pin-path", pins)...)
	if st := s.status(t); !st.Pin.Pinned {
		t.Fatalf("not pinned: %+v", st.Pin)
	}
	s.ok(t, "block", "add", lab.Client4(0).String())
	s.ok(t, "block", "add", lab.Client4(1).String(), "--ttl", "3s")
	d.kill()
	s.wantReach(t, "after kill -9", lab.Client4(0), false)
	eventually(t, "a dead daemon bans nobody for ever", func() bool { return s.reaches(t, lab.Client4(1), lab.Victim4) })
	d = s.start(t, s.runArgs("--pin-path", pins)...)
	s.wantReach(t, "taken over", lab.Client4(0), false)
	if n := reasonCount(s.status(t), traffic.ReasonBlocklist); n < 6 {
		t.Errorf("the counters began anew: %d blocked", n)
	}
	d.kill()
	s.ok(t, "detach", "--interface", s.VictimEnd.Name, "--pin-path", pins)
	if on, ok := s.attached(t); ok {
		t.Errorf("still attached after detach: %+v", on)
	}
	left, err := os.ReadDir(pins)
	if err != nil || len(left) > 0 {
		t.Errorf("left on the bpffs: %v %v", left, err)
	}
}

// on_exit: keep leaves the pinned program filtering after SIGTERM.
func TestKeepOnExit(t *testing.T) {
	s := newSite(t, lab.NetOptions{Clients: 1})
	pins := s.bpffs(t)
	d := s.start(t, s.runArgs("--pin-path", pins, "--on-exit", "keep")...)
	s.ok(t, "block", "add", lab.Client4(0).String())
	d.stop(t)
	s.wantReach(t, "after SIGTERM", lab.Client4(0), false)
	s.ok(t, "detach", "--interface", s.VictimEnd.Name, "--pin-path", pins)
	s.wantReach(t, "after detach", lab.Client4(0), true)
}

// Two interfaces, one daemon: one list, both filtered, both let go.
func TestTwoInterfaces(t *testing.T) {
	s := newSite(t, lab.NetOptions{Clients: 1})
	other, err := s.Namespace("peer2")
	if err != nil {
		t.Fatal(err)
	}
	second, _, err := s.Connect(s.Victim, other, 1500)
	if err != nil {
		t.Fatal(err)
	}
	d := s.start(t, s.runArgs("--interface", second.Name)...)
	s.ok(t, "block", "add", lab.Client4(0).String())
	s.wantReach(t, "first interface", lab.Client4(0), false)
	st := s.status(t)
	if len(st.Interfaces) != 2 || st.Interfaces[0].ProgramID != st.Interfaces[1].ProgramID {
		t.Errorf("interfaces %+v", st.Interfaces)
	}
	d.stop(t)
	if _, ok := s.attached(t); ok {
		t.Error("still attached")
	}
}

// An MTU raised behind the engine's back shows in its health; an interface that goes down, too.
func TestHealthFollowsTheInterface(t *testing.T) {
	s := newSite(t, lab.NetOptions{})
	d := s.start(t, s.runArgs()...)
	if err := s.VictimEnd.SetUp(false); err != nil {
		t.Fatal(err)
	}
	eventually(t, "health says the interface is down", func() bool {
		h := s.status(t).Health
		return h.State == api.HealthDegraded && strings.Contains(strings.Join(h.Reasons, " "), "is down")
	})
	if err := s.VictimEnd.SetUp(true); err != nil {
		t.Fatal(err)
	}
	eventually(t, "health is ok again", func() bool { return s.status(t).Health.State == api.HealthOK })
	d.stop(t)
}

// A source over its limit is limited; others are not.
func TestRateLimit(t *testing.T) {
	s := newSite(t, lab.NetOptions{Clients: 2})
	d := s.start(t, s.runArgs("--rate-limit", "5")...)
	sent := 0
	deadline := time.Now().Add(2 * time.Second)
	for time.Now().Before(deadline) {
		s.reaches(t, lab.Client4(0), lab.Victim4)
		sent++
	}
	if n := reasonCount(s.status(t), traffic.ReasonLimit); n == 0 {
		t.Errorf("%d times three packets in two seconds, none over the limit of 5/s", sent)
	}
	s.wantReach(t, "another source", lab.Client4(1), true)
	d.stop(t)
}

// What cannot work ends with one sentence that says what to do, and leaves nothing behind.
func TestRefusedStarts(t *testing.T) {
	s := newSite(t, lab.NetOptions{})
	file := s.write(t, "file", "")
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"unknown interface":   {[]string{"run", "--interface", "nosuch0", "--socket", s.socket(), "--state-dir", filepath.Join(s.dir, "a")}, "does not exist"},
		"no interface":        {[]string{"run", "--socket", s.socket()}, "--interface"},
		"state dir is a file": {s.runArgs("--state-dir", file), "file"},
		"bad mode":            {s.runArgs("--mode", "warp"), "native"},
		"no such config":      {s.runArgs("--config", filepath.Join(s.dir, "absent.yaml")), "absent.yaml"},
		"offload on veth":     {s.runArgs("--mode", "offload"), "card"},
		"protected in config": {s.runArgs("--config", s.write(t, "bad.yaml", fmt.Sprintf("lists: {block: [%s]}\n", lab.Peer4))), "gateway"},
	} {
		t.Run(name, func(t *testing.T) {
			p := s.launch(t, c.args...)
			select {
			case err := <-p.done:
				if err == nil || !strings.Contains(p.log.String(), c.want) {
					t.Errorf("ended with %v, and %q lacks %q", err, p.log, c.want)
				}
				p.done <- err
			case <-time.After(20 * time.Second):
				t.Errorf("still runs\n%s", p.log)
			}
			if on, ok := s.attached(t); ok {
				t.Errorf("left attached: %+v", on)
			}
		})
	}
}

// A second instance is refused on the interface, on the socket, and on the journal, and the first goes on.
func TestSecondInstance(t *testing.T) {
	s := newSite(t, lab.NetOptions{Clients: 1})
	pins := s.bpffs(t)
	d := s.start(t, s.runArgs("--pin-path", pins)...)
	s.ok(t, "block", "add", lab.Client4(0).String())
	elsewhere := []string{"--socket", filepath.Join(s.dir, "other.sock"), "--state-dir", filepath.Join(s.dir, "other")}
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"same everything":        {s.runArgs("--pin-path", pins), "another sentinel-x"},
		"same interface":         {s.runArgs(append(elsewhere, "--pin-path", pins)...), "another sentinel-x"},
		"same interface, no pin": {s.runArgs(append(elsewhere, "--no-pin")...), "another XDP program"},
		"same socket":            {s.runArgs("--pin-path", pins, "--state-dir", filepath.Join(s.dir, "third")), "another sentinel-x"},
	} {
		p := s.launch(t, c.args...)
		if err := <-p.done; err == nil || !strings.Contains(p.log.String(), c.want) {
			t.Errorf("%s: ended with %v, and %q lacks %q", name, err, p.log, c.want)
		} else {
			p.done <- err
		}
		s.wantReach(t, name, lab.Client4(0), false)
	}
	_, errOut, status := s.cli(t, "detach", "--interface", s.VictimEnd.Name, "--pin-path", pins)
	if status == 0 || !strings.Contains(errOut, "another sentinel-x") {
		t.Errorf("detach under a living daemon: status %d, %q", status, errOut)
	}
	d.stop(t)
}

// An interface that is removed and comes back under its name is filtered again.
func TestInterfaceComesBack(t *testing.T) {
	s := newSite(t, lab.NetOptions{Clients: 1})
	d := s.start(t, s.runArgs("--no-pin")...)
	s.ok(t, "block", "add", lab.Client4(0).String())
	name := s.VictimEnd.Name
	inVictim := func(f func() error) {
		t.Helper()
		if err := s.Victim.Do(f); err != nil {
			t.Fatal(err)
		}
	}
	inVictim(func() error {
		dev, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		return netlink.LinkDel(dev)
	})
	eventually(t, "health says that it is gone", func() bool {
		return strings.Contains(strings.Join(s.status(t).Health.Reasons, " "), "is gone")
	})
	inVictim(func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = name
		veth := &netlink.Veth{LinkAttrs: attrs, PeerName: "sxback0"}
		return errors.Join(netlink.LinkAdd(veth), netlink.LinkSetUp(veth))
	})
	eventually(t, "it is filtered again", func() bool {
		st := s.status(t)
		on, ok := s.attached(t)
		return ok && on.Name == "sentinel" && st.Health.State == api.HealthOK && st.Interfaces[0].ProgramID == on.ProgramID
	})
	d.stop(t)
}
