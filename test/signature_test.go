// SPDX-License-Identifier: Apache-2.0

package test

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/sentinel-x/sentinel-x/internal/api"
	"github.com/sentinel-x/sentinel-x/internal/dataplane"
	"github.com/sentinel-x/sentinel-x/internal/lab"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

const amplified = "udp and src port 53 and len > 512"

// signatures asks the daemon for its rules.
func (s *site) signatures(t *testing.T) []api.Signature {
	t.Helper()
	var all []api.Signature
	if err := json.Unmarshal([]byte(s.ok(t, "signature", "list", "--json")), &all); err != nil {
		t.Fatal(err)
	}
	return all
}

// underFire is a site with a flood of large answers from port 53 of many sources.
type underFire struct {
	*site
	received *lab.Receiver
}

func newUnderFire(t *testing.T) underFire {
	t.Helper()
	s := newSite(t, lab.NetOptions{Clients: 1})
	u := underFire{s, s.bannedFrames(t)}
	stop := s.floodOf(t, dataplane.Flood{
		Source: netip.MustParsePrefix("198.51.100.0/24"), Kind: dataplane.FloodUDP, SourcePort: 53, DestPort: floodPort,
		Size: 700, Rate: 5000, Duration: 3 * time.Minute,
	})
	t.Cleanup(func() { stop() })
	return u
}

func (u underFire) reached() uint64 {
	n, _ := u.received.Count()
	return n
}

// passes waits until the flood reaches the victim.
func (u underFire) passes(t *testing.T, when string) {
	t.Helper()
	before := u.reached()
	eventually(t, when+": the flood arrives", func() bool { return u.reached() > before+100 })
}

// dropped waits until what was under way has arrived, and fails the test if
// anything arrives while the rule drops a thousand frames more.
func (u underFire) dropped(t *testing.T, when string, id uint64) {
	t.Helper()
	last := u.reached()
	eventually(t, when+": the flood ends at the victim", func() bool {
		before := last
		time.Sleep(100 * time.Millisecond)
		last = u.reached()
		return last == before
	})
	start := u.one(t, id).Dropped
	eventually(t, when+": the rule drops", func() bool { return u.one(t, id).Dropped > start+1000 })
	if n := u.reached() - last; n > 0 {
		t.Errorf("%s: %d frames of the flood arrived", when, n)
	}
	u.wantReach(t, when+", other traffic", lab.Client4(0), true)
}

// one returns the rule with an ID.
func (u underFire) one(t *testing.T, id uint64) api.Signature {
	t.Helper()
	for _, s := range u.signatures(t) {
		if s.ID == id {
			return s
		}
	}
	t.Fatalf("signature %d is gone", id)
	return api.Signature{}
}

// A rule is armed by the command line while a flood runs: the flood is dropped,
// the rest passes; over dry run, reload, restart, change, deletion, expiry.
func TestSignatureUnderFire(t *testing.T) {
	u := newUnderFire(t)
	cfg := u.write(t, "sentinel.yaml", "dry_run: false\n")
	d := u.start(t, u.runArgs("--config", cfg)...)
	u.passes(t, "no rule yet")
	out := u.ok(t, "signature", "add", amplified, "--target", lab.Victim4.String(), "--action", "drop", "--ttl", "10m", "--comment", "open resolvers")
	if out != "signature 1: drop, ends in 10m0s\n" {
		t.Errorf("add says %q", out)
	}
	u.dropped(t, "armed", 1)
	armed := u.one(t, 1)
	if armed.State != api.StateArmed || armed.Matched < armed.Dropped || armed.Bytes < 500*armed.Matched || armed.LastSeen == nil || armed.Filter {
		t.Errorf("%+v", armed)
	}
	if st := u.status(t); st.Signatures.Armed != 1 || reasonCount(st, traffic.ReasonSignature) < 1000 || st.Health.State != api.HealthOK {
		t.Errorf("status: %+v, %d by reason, health %+v", st.Signatures, reasonCount(st, traffic.ReasonSignature), st.Health)
	}
	for _, want := range []string{amplified + "  # open resolvers", "drop", lab.Victim4.String(), "in "} {
		if list := u.ok(t, "signature", "list"); !strings.Contains(list, want) {
			t.Errorf("%q is not in\n%s", want, list)
		}
	}

	u.write(t, "sentinel.yaml", "dry_run: true\n")
	u.ok(t, "reload")
	u.passes(t, "dry run")
	if s := u.one(t, 1); s.State != api.StateObserving || s.WouldDrop == 0 {
		t.Errorf("dry run: %+v", s)
	}
	u.write(t, "sentinel.yaml", "dry_run: false\n")
	u.ok(t, "reload")
	u.dropped(t, "dry run over", 1)

	d.stop(t)
	u.passes(t, "stopped")
	d = u.start(t, u.runArgs("--config", cfg)...)
	u.dropped(t, "restarted", 1)
	if s := u.one(t, 1); !s.Expires.Equal(*armed.Expires) || !s.Created.Equal(armed.Created) || s.Comment != armed.Comment || s.Rule != armed.Rule {
		t.Errorf("after the restart %+v, before %+v", s, armed)
	}

	c := api.NewClient(u.socket())
	defer c.Close()
	s, err := c.AddSignature(t.Context(), api.SignatureRequest{Expression: "src port 53 and len > 512 and udp", Target: lab.Victim4.String(), Action: "observe"})
	if err != nil || s.ID != 1 || s.Action != "observe" || s.Expires != nil {
		t.Errorf("changed by the API: %+v, %v", s, err)
	}
	u.passes(t, "observed")
	if err := c.DeleteSignature(t.Context(), 1); err != nil {
		t.Error(err)
	}
	u.ok(t, "signature", "add", amplified, "--target", lab.Victim4.String(), "--action", "drop", "--ttl", "8s")
	u.dropped(t, "for eight seconds", 2)
	u.passes(t, "ended")
	eventually(t, "the ended rule leaves the list", func() bool { return len(u.signatures(t)) == 0 })
	d.stop(t)
}

// An expression that does not fit the fields runs as a filter, also after a restart.
func TestFilterUnderFire(t *testing.T) {
	u := newUnderFire(t)
	d := u.start(t, u.runArgs()...)
	target := lab.Victim4.String()
	out := u.ok(t, "signature", "add", "udp port 53", "--target", target, "--action", "drop", "--ttl", "10m")
	if !strings.Contains(out, "runs as a program of its own") || !strings.Contains(out, "src port 53") {
		t.Errorf("add says %q", out)
	}
	u.dropped(t, "filtered", 1)
	if s := u.one(t, 1); !s.Filter || s.Note == "" || s.Rule != "" {
		t.Errorf("%+v", s)
	}
	for _, c := range [][2]string{{"port 53", "may lock you out"}, {"udp and vlan 5", "nothing was changed"}} {
		if _, errOut, status := u.cli(t, "signature", "add", c[0], "--target", target, "--action", "drop"); status != 1 || !strings.Contains(errOut, c[1]) {
			t.Errorf("%s: status %d, %q", c[0], status, errOut)
		}
	}
	d.stop(t)
	d = u.start(t, u.runArgs()...)
	u.dropped(t, "restarted", 1)
	u.ok(t, "signature", "del", "1")
	u.passes(t, "deleted")
	d.stop(t)
}

// Pinned, rules go on after kill -9, end by themselves, and the next start takes them over.
func TestSignatureOutlivesTheDaemon(t *testing.T) {
	u := newUnderFire(t)
	pins := u.bpffs(t)
	d := u.start(t, u.runArgs("--pin-path", pins)...)
	u.ok(t, "signature", "add", amplified, "--target", lab.Victim4.String(), "--action", "drop")
	u.dropped(t, "armed", 1)
	d.kill()
	before := u.reached()
	time.Sleep(500 * time.Millisecond)
	if n := u.reached() - before; n > 0 {
		t.Errorf("after kill -9: %d frames of the flood arrived", n)
	}
	d = u.start(t, u.runArgs("--pin-path", pins)...)
	u.dropped(t, "taken over", 1)
	if n := u.reached() - before; n > 0 {
		t.Errorf("during the take-over: %d frames of the flood arrived", n)
	}
	u.ok(t, "signature", "add", amplified, "--target", lab.Victim4.String(), "--action", "drop", "--ttl", "2s")
	d.kill()
	u.passes(t, "a dead daemon drops for ever")
}

// A rule that drops more than its share lets the rest pass, and says so once.
func TestSignatureCeiling(t *testing.T) {
	u := newUnderFire(t)
	d := u.start(t, u.runArgs()...)
	u.ok(t, "signature", "add", amplified, "--target", lab.Victim4.String(), "--action", "drop", "--ceiling", "10%")
	u.passes(t, "over the ceiling")
	eventually(t, "the rule is over its ceiling", func() bool {
		s := u.one(t, 1)
		return s.State == api.StateOverCeiling && s.OverCeiling > s.Dropped && s.Dropped > 0
	})
	if list := u.ok(t, "signature", "list"); !strings.Contains(list, "ceiling of 10 % reached") {
		t.Errorf("list:\n%s", list)
	}
	if st := u.status(t); st.Signatures.OverCeiling != 1 {
		t.Errorf("status: %+v", st.Signatures)
	}
	ticks := u.one(t, 1).OverCeiling + 10000 // two seconds of the flood
	eventually(t, "two seconds go by", func() bool { return u.one(t, 1).OverCeiling > ticks })
	d.stop(t)
	if n := strings.Count(d.log.String(), "ceiling reached: it observes"); n != 1 {
		t.Errorf("said %d times:\n%s", n, d.log)
	}
}

// What must not be armed is refused by the real thing too, and a file is taken whole or not at all.
func TestSignaturesRefused(t *testing.T) {
	s := newSite(t, lab.NetOptions{})
	d := s.start(t, s.runArgs()...)
	target := lab.Victim4.String()
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"no target":     {[]string{"signature", "add", "udp", "--action", "drop"}, "has no target"},
		"all of it":     {[]string{"signature", "add", "ip", "--target", target, "--action", "drop"}, "matches every packet to " + target},
		"SSH":           {[]string{"signature", "add", "tcp", "--target", target, "--action", "drop"}, "may lock you out"},
		"syntax":        {[]string{"signature", "add", "udp and src prot 53", "--target", target, "--action", "drop"}, "            ^"},
		"many offsets":  {[]string{"signature", "import", s.write(t, "offsets", offsets(target))}, "offset"},
		"a bad line":    {[]string{"signature", "import", s.write(t, "bad", "--target "+target+" --action drop udp\n--action\n")}, "line 2"},
		"a wide line":   {[]string{"signature", "import", s.write(t, "wide", "--target "+target+" --action drop udp\n\n--action drop icmp\n")}, "line 3"},
		"no such rule":  {[]string{"signature", "del", "7"}, "there is no signature 7"},
		"other target":  {[]string{"signature", "add", "udp and dst host 192.0.2.99", "--target", target, "--action", "drop"}, "give one of them"},
		"limit to what": {[]string{"signature", "add", "udp", "--target", target, "--action", "limit"}, "needs a rate"},
	} {
		_, errOut, status := s.cli(t, c.args...)
		if status == 0 || !strings.Contains(errOut, c.want) {
			t.Errorf("%s: status %d, %q lacks %q", name, status, errOut, c.want)
		}
		if all := s.signatures(t); len(all) != 0 {
			t.Errorf("%s: armed %+v", name, all)
		}
	}
	s.ok(t, "signature", "add", "tcp", "--target", target, "--action", "drop", "--force")
	file := s.write(t, "rules", s.ok(t, "signature", "export")+"--target "+target+" --action limit --rate 100 icmp\n")
	s.ok(t, "signature", "import", "--force", file)
	if all := s.signatures(t); len(all) != 2 || all[0].ID != 1 || all[1].Rate != 100 {
		t.Errorf("imported: %+v", all)
	}
	s.ok(t, "signature", "flush")
	if all := s.signatures(t); len(all) != 0 {
		t.Errorf("flushed: %+v", all)
	}
	d.stop(t)
}

// offsets is a file of rules that look at more places of the payload than the packet path does.
func offsets(target string) string {
	var b strings.Builder
	for i := range 9 {
		b.WriteString("--target " + target + " --action drop 'udp and payload[" + strings.Repeat("1", i/4+1) + string(rune('0'+i)) + ":2] = 0x1234'\n")
	}
	return b.String()
}
