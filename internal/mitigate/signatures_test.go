// SPDX-License-Identifier: Apache-2.0

package mitigate

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	bolt "go.etcd.io/bbolt"

	"github.com/sentinel-x/sentinel-x/internal/signature"
)

const victim = "192.0.2.10"

// rule returns a signature for the victim; more may be a time to live, an
// action, a comment, a target ("" for none), or a ceiling.
func rule(t testing.TB, text string, more ...any) signature.Armed {
	t.Helper()
	r, err := signature.Parse(text)
	mustDo(t, err)
	r.Target = netip.MustParsePrefix(victim + "/32")
	s := signature.Armed{Text: text, Rule: r, Action: signature.Drop, Ceiling: 1}
	for _, m := range more {
		switch m := m.(type) {
		case time.Duration:
			s.Expires = start.Add(m)
		case signature.Action:
			s.Action = m
		case netip.Prefix:
			s.Rule.Target = m
		case float64:
			s.Ceiling = m
		case uint64:
			s.Rate = m
		}
	}
	return s
}

func filter(t testing.TB, text string) signature.Armed {
	s := rule(t, "udp", text)
	s.Text, s.Rule.Filter, s.Rule.Fields = text, text, [signature.NumFields]signature.Set{}
	return s
}

func mustArm(t testing.TB, b *bench, rules ...signature.Armed) []signature.Armed {
	t.Helper()
	armed, err := b.AddSignatures(rules, AddOptions{})
	mustDo(t, err)
	return armed
}

// describeRules writes rules in one line each, for comparisons.
func describeRules(rules []signature.Armed) []string {
	var lines []string
	for _, s := range rules {
		line := fmt.Sprintf("%d %s %s to %s by %s", s.ID, s.Action, s.Text, s.Rule.Target, s.Origin)
		if s.Rate > 0 {
			line += fmt.Sprintf(" at %d/s", s.Rate)
		}
		if s.Ceiling != 1 {
			line += fmt.Sprintf(" ceiling %v", s.Ceiling)
		}
		if !s.Expires.IsZero() {
			line += fmt.Sprintf(" until +%s", s.Expires.Sub(start))
		}
		if !s.Created.Equal(start) {
			line += fmt.Sprintf(" since +%s", s.Created.Sub(start))
		}
		if s.Comment != "" {
			line += " # " + s.Comment
		}
		lines = append(lines, line)
	}
	return lines
}

func wantRules(t testing.TB, b *bench, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, describeRules(b.Signatures()), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("signatures (-want +got):\n%s", diff)
	}
	b.check(t)
}

func TestArmChangeDisarm(t *testing.T) {
	b := newBench(t, 10)
	armed := mustArm(t, b, rule(t, "udp and src port 53", time.Hour), rule(t, "icmp", signature.Limit, uint64(100)))
	if len(armed) != 2 || armed[0].ID != 1 || armed[1].ID != 2 || !armed[0].Created.Equal(start) || armed[0].Origin != OriginOperator {
		t.Errorf("%+v", armed)
	}
	wantRules(t, b, "1 drop udp and src port 53 to 192.0.2.10/32 by operator until +1h0m0s", "2 limit icmp to 192.0.2.10/32 by operator at 100/s")

	// The same rule, however it is written, is changed in place.
	b.now = start.Add(time.Minute)
	again := rule(t, "src port 53 and udp", signature.Observe, 0.5)
	again.Comment = "resolvers"
	other := rule(t, "udp and src port 53", netip.MustParsePrefix("192.0.2.11/32"))
	armed = mustArm(t, b, again, other)
	if armed[0].ID != 1 || armed[1].ID != 3 {
		t.Errorf("%+v", armed)
	}
	wantRules(t, b, "1 observe src port 53 and udp to 192.0.2.10/32 by operator ceiling 0.5 # resolvers",
		"2 limit icmp to 192.0.2.10/32 by operator at 100/s", "3 drop udp and src port 53 to 192.0.2.11/32 by operator since +1m0s")

	removed, missing, err := b.DeleteSignatures([]uint64{3, 9, 3})
	if err != nil || len(removed) != 1 || removed[0].ID != 3 || !slices.Equal(missing, []uint64{9, 3}) {
		t.Errorf("removed %v, missing %v, %v", removed, missing, err)
	}
	calls := b.enforcer.calls
	if removed, missing, err = b.DeleteSignatures([]uint64{7}); err != nil || len(removed) != 0 || len(missing) != 1 || b.enforcer.calls != calls {
		t.Errorf("removed %v, missing %v, %v", removed, missing, err)
	}
	if n, err := b.FlushSignatures(); n != 2 || err != nil {
		t.Errorf("flushed %d, %v", n, err)
	}
	wantRules(t, b)
	if armed = mustArm(t, b, rule(t, "icmp")); armed[0].ID != 4 {
		t.Errorf("an ID is used again: %d", armed[0].ID)
	}
}

// What must not be armed is refused with a sentence, and nothing changes.
func TestRefusedSignatures(t *testing.T) {
	b := newBench(t, 10)
	mustDo(t, b.SetProtected([]Protected{{Prefix: netip.MustParsePrefix(victim + "/32"), Why: "own address of eth0", Own: true}}))
	with := func(change func(*signature.Armed)) signature.Armed {
		s := rule(t, "udp and src port 53")
		change(&s)
		return s
	}
	for name, tt := range map[string]struct {
		s      signature.Armed
		want   string
		forced bool // --force arms it
	}{
		"no target":       {rule(t, "udp and src port 53", netip.Prefix{}), "has no target: name the attacked address or prefix with --target, or use --force", true},
		"target all":      {rule(t, "udp", netip.MustParsePrefix("0.0.0.0/0")), "has no target", true},
		"all of target":   {rule(t, "ip"), "matches every packet to 192.0.2.10: say what", true},
		"SSH":             {rule(t, "tcp"), "also matches SSH (TCP port 22) to 192.0.2.10", true},
		"SSH limited":     {rule(t, "tcp", signature.Limit, uint64(9)), "also matches SSH", true},
		"invalid rule":    {with(func(s *signature.Armed) { s.Rule.Target = netip.PrefixFrom(netip.MustParseAddr(victim), 24) }), "192.0.2.0/24", false},
		"no action":       {rule(t, "udp and src port 53", signature.Action(9)), "none of observe, drop and limit", false},
		"limit to none":   {rule(t, "udp and src port 53", signature.Limit), "needs a rate above 0", false},
		"rate for drop":   {rule(t, "udp and src port 53", uint64(9)), "a rate is for limit, not for drop", false},
		"absurd rate":     {rule(t, "udp and src port 53", signature.Limit, uint64(1e10)), "above 1000000000 packets", false},
		"ceiling 0":       {rule(t, "udp and src port 53", 0.), "ceiling 0 is not above 0", false},
		"ceiling above 1": {rule(t, "udp and src port 53", 1.1), "ceiling 1.1 is not", false},
		"ceiling NaN":     {rule(t, "udp and src port 53", math.NaN()), "ceiling NaN is not", false},
		"over":            {rule(t, "udp and src port 53", -time.Second), "expired TTL", false},
		"for ever":        {rule(t, "udp and src port 53", 200*365*24*time.Hour), "longer than 100 years", false},
		"no text":         {with(func(s *signature.Armed) { s.Text = " " }), "an expression is missing", false},
		"long text":       {with(func(s *signature.Armed) { s.Text = strings.Repeat("x", 4001) }), "expression of 4001 bytes; at most 4000 fit", false},
		"two lines":       {with(func(s *signature.Armed) { s.Text = "udp\nicmp" }), "not one line of text", false},
		"long comment":    {with(func(s *signature.Armed) { s.Comment = strings.Repeat("x", 201) }), "comment of 201 bytes", false},
		"config's":        {with(func(s *signature.Armed) { s.Origin = OriginConfig }), `origin "config" is not for signatures`, false},
		"automatic, SSH":  {with(func(s *signature.Armed) { *s = rule(t, "tcp"); s.Origin = "detect" }), "also matches SSH", false},
		"automatic, wide": {with(func(s *signature.Armed) { s.Rule.Target, s.Origin = netip.Prefix{}, "detect" }), "has no target", false},
	} {
		for _, force := range []bool{false, true} {
			good := rule(t, "udp and src port 1900")
			_, err := b.AddSignatures([]signature.Armed{good, tt.s}, AddOptions{Force: force})
			if force && tt.forced {
				mustDo(t, err)
				if _, err := b.FlushSignatures(); err != nil {
					t.Fatal(err)
				}
				continue
			}
			var refused *RefusedError
			if !errors.As(err, &refused) || !strings.Contains(err.Error(), tt.want) || refused.Item != 2 {
				t.Errorf("%s, force %v: %+v, want %q", name, force, err, tt.want)
			}
			if !tt.forced && strings.Contains(fmt.Sprint(err), "--force") {
				t.Errorf("%s: %v, but --force does not help", name, err)
			}
			wantRules(t, b)
		}
	}
	if b.lastSignature != 10 { // five forced pairs
		t.Errorf("%d IDs used", b.lastSignature)
	}
}

func TestSlotsAndFilters(t *testing.T) {
	b := newBench(t, 10)
	var rules []signature.Armed
	for i := range signature.Slots {
		rules = append(rules, rule(t, fmt.Sprintf("udp and src port %d", i+1), time.Minute))
	}
	mustArm(t, b, rules...)
	var refused *RefusedError
	_, err := b.AddSignatures([]signature.Armed{rule(t, "icmp")}, AddOptions{Force: true})
	if !errors.As(err, &refused) || !strings.Contains(err.Error(), "65 signatures would be armed, and there are 64 slots") {
		t.Errorf("%v", err)
	}
	mustArm(t, b, rules[5]) // one that is there needs no slot
	b.check(t)
	b.now = start.Add(time.Minute) // nor does one that has ended, also before it is taken out
	mustArm(t, b, rule(t, "icmp"))
	wantRules(t, b, "65 drop icmp to 192.0.2.10/32 by operator since +1m0s")
	for i := range signature.MaxFilters {
		mustArm(t, b, filter(t, fmt.Sprintf("udp port %d", i+1)))
	}
	_, err = b.AddSignatures([]signature.Armed{filter(t, "udp port 99")}, AddOptions{Force: true})
	if !errors.As(err, &refused) || !strings.Contains(err.Error(), "5 signatures would run as extra programs, at most 4 can") {
		t.Errorf("%v", err)
	}
	b.check(t)
}

// What the packet path does not take is the caller's error and changes nothing.
func TestPacketPathRefuses(t *testing.T) {
	b := newBench(t, 10)
	mustArm(t, b, rule(t, "icmp"))
	b.enforcer.refuse = "udp port 53"
	var refused *RefusedError
	_, err := b.AddSignatures([]signature.Armed{rule(t, "udp"), filter(t, "udp port 53")}, AddOptions{})
	if !errors.As(err, &refused) || !errors.Is(err, errEnforcer) || !strings.Contains(err.Error(), "nothing was changed") {
		t.Errorf("%v", err)
	}
	wantRules(t, b, "1 drop icmp to 192.0.2.10/32 by operator")
}

func TestSignaturesEnd(t *testing.T) {
	b := newBench(t, 10)
	mustArm(t, b, rule(t, "icmp", time.Second), rule(t, "udp", time.Minute), rule(t, "udp and src port 53"))
	b.now = start.Add(time.Second)
	if got := describeRules(b.Signatures()); len(got) != 2 {
		t.Errorf("one that has ended is shown: %q", got)
	}
	for _, want := range []int{1, 0} {
		calls := b.enforcer.calls
		if n, err := b.Expire(); n != want || err != nil || b.enforcer.calls != calls+want {
			t.Errorf("%d ended, %v, %d calls", n, err, b.enforcer.calls-calls)
		}
	}
	wantRules(t, b, "2 drop udp to 192.0.2.10/32 by operator until +1m0s", "3 drop udp and src port 53 to 192.0.2.10/32 by operator")
}

func TestSignaturesSurviveARestart(t *testing.T) {
	b := newBench(t, 10)
	first := rule(t, "udp and src port 53 and len > 512 and ttl < 64", time.Hour, signature.Limit, uint64(1000), 0.25)
	first.Comment = "why"
	mustArm(t, b, first, rule(t, "icmp", time.Second), filter(t, "udp port 53"), rule(t, "tcp and dst port 80 and payload[3:2] & 0xff0f = 0x1203"))
	_, _, err := b.DeleteSignatures([]uint64{4})
	mustDo(t, err)
	before := b.Signatures()
	mustDo(t, b.Close())

	b.now = start.Add(time.Second)
	b.enforcer = newEnforcer()
	b.enforcer.signatures = []signature.Armed{{ID: 77}} // left by somebody
	b.open(t)
	mustDo(t, b.Restore())
	if diff := cmp.Diff([]signature.Armed{before[0], before[2]}, b.Signatures(), prefixes); diff != "" {
		t.Errorf("-before +after:\n%s", diff)
	}
	b.check(t)
	if armed := mustArm(t, b, rule(t, "udp")); armed[0].ID != 5 {
		t.Errorf("ID %d was given before", armed[0].ID)
	}
}

// Whatever is done in whatever order, and whenever the packet path refuses or the
// power fails: ledger, packet path and journal agree, and no ID is given twice.
func TestSignaturesAtRandom(t *testing.T) {
	for seed := range uint64(8) {
		b := newBench(t, 10)
		r := rand.New(rand.NewPCG(seed, 2))
		owner := map[uint64]string{} // which rule an ID was given to
		for range 60 {
			b.enforcer.refuse = ""
			if r.IntN(4) == 0 {
				b.enforcer.refuse = fmt.Sprintf("udp and src port %d", 1+r.IntN(9))
			}
			switch r.IntN(8) {
			case 0, 1, 2, 3:
				s := rule(t, fmt.Sprintf("udp and src port %d", 1+r.IntN(9)), signature.Action(r.IntN(2)))
				if r.IntN(2) == 0 {
					s.Expires = b.now.Add(time.Duration(1+r.IntN(5)) * time.Second)
				}
				armed, err := b.AddSignatures([]signature.Armed{s}, AddOptions{})
				if refused := b.enforcer.refuse == s.Text; refused && err == nil {
					t.Fatalf("seed %d: %q is armed", seed, s.Text)
				}
				for _, a := range armed {
					if was, given := owner[a.ID]; given && was != a.Text {
						t.Fatalf("seed %d: ID %d was %q, is %q", seed, a.ID, was, a.Text)
					}
					owner[a.ID] = a.Text
				}
			case 4, 5:
				_, _, err := b.DeleteSignatures([]uint64{uint64(r.IntN(30))})
				if err != nil && !errors.Is(err, errEnforcer) {
					t.Fatal(err)
				}
			case 6:
				b.now = b.now.Add(time.Duration(r.IntN(3)) * time.Second)
				if _, err := b.Expire(); err != nil && !errors.Is(err, errEnforcer) {
					t.Fatal(err)
				}
			default:
				mustDo(t, b.Close())
				b.enforcer.signatures = nil
				b.open(t)
				mustDo(t, b.Restore())
			}
			b.check(t)
			if t.Failed() {
				t.Fatalf("seed %d", seed)
			}
		}
	}
}

// A rule that the packet path does not take at the start keeps nothing else from
// being armed; it stays in the journal, and can be deleted or added again.
func TestRuleThatCannotBeRestored(t *testing.T) {
	b := newBench(t, 10)
	mustArm(t, b, rule(t, "icmp"), filter(t, "udp port 53"), rule(t, "udp and src port 53"))
	mustDo(t, b.Close())
	b.enforcer = newEnforcer()
	b.enforcer.refuse = "udp port 53"
	b.open(t)
	mustDo(t, b.Restore())
	if len(b.enforcer.signatures) != 2 || len(b.Signatures()) != 3 || !strings.Contains(b.Unarmed()[2], "udp port 53") {
		t.Errorf("armed %v, unarmed %v", describeRules(b.enforcer.signatures), b.Unarmed())
	}
	mustArm(t, b, rule(t, "udp and src port 123"))
	b.check(t)
	if _, err := b.AddSignatures([]signature.Armed{filter(t, "udp port 53")}, AddOptions{}); !errors.Is(err, errEnforcer) || len(b.Unarmed()) != 1 {
		t.Errorf("%v, unarmed %v", err, b.Unarmed())
	}
	b.enforcer.refuse = ""
	mustArm(t, b, filter(t, "udp port 53"))
	if len(b.enforcer.signatures) != 4 || len(b.Unarmed()) != 0 {
		t.Errorf("armed %v, unarmed %v", describeRules(b.enforcer.signatures), b.Unarmed())
	}
	mustDo(t, b.Close())

	b.enforcer = newEnforcer()
	b.enforcer.refuse = "udp port 53"
	b.open(t)
	mustDo(t, b.Restore())
	_, _, err := b.DeleteSignatures([]uint64{2})
	mustDo(t, err)
	if len(b.Unarmed()) != 0 || len(b.Signatures()) != 3 {
		t.Errorf("unarmed %v, %v", b.Unarmed(), describeRules(b.Signatures()))
	}
	b.check(t)
}

func TestNoSignatureCanBeRestored(t *testing.T) {
	b := newBench(t, 10)
	mustArm(t, b, rule(t, "icmp"))
	mustDo(t, b.Close())
	b.enforcer = newEnforcer()
	b.enforcer.refuse = "icmp"
	b.open(t)
	mustDo(t, b.Restore()) // the host is protected by the rest
	if len(b.enforcer.signatures) != 0 || len(b.Unarmed()) != 1 {
		t.Errorf("unarmed %v", b.Unarmed())
	}
	b.check(t)
}

// A journal of a version without signatures is read, and gets its bucket with the first of them.
func TestJournalWithoutSignatures(t *testing.T) {
	b := newBench(t, 10)
	has := func() (has bool) {
		mustDo(t, b.journal.db.View(func(tx *bolt.Tx) error { has = tx.Bucket(signatureBucket) != nil; return nil }))
		return has
	}
	if has() || len(b.Signatures()) != 0 {
		t.Error("a new journal has signatures")
	}
	mustArm(t, b, rule(t, "icmp"))
	if !has() {
		t.Error("not journalled")
	}
}

// Records that this version does not understand are damage, not rules with another meaning.
func TestUnusableSignatures(t *testing.T) {
	for want, kv := range map[string][2]string{
		"signature key 78":    {"x", "{}"},
		"signature 1: ":       {"\x00\x00\x00\x00\x00\x00\x00\x01", "{"},
		`action "shun"`:       {"\x00\x00\x00\x00\x00\x00\x00\x01", `{"action":"shun","rule":"udp"}`},
		"signature 2: column": {"\x00\x00\x00\x00\x00\x00\x00\x02", `{"action":"drop","rule":"udp and colour blue"}`},
	} {
		b := newBench(t, 10)
		mustDo(t, b.journal.db.Update(func(tx *bolt.Tx) error { return put(tx, "signatures", kv[0], kv[1]) }))
		mustDo(t, b.Close())
		_, err := openAt(b.path)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "move it away") {
			t.Errorf("%v, want %q", err, want)
		}
		mustDo(t, removeBucket(b.path))
		b.open(t)
	}
}

func removeBucket(path string) error {
	db, err := bolt.Open(path, 0o600, nil)
	if err != nil {
		return err
	}
	return errors.Join(db.Update(func(tx *bolt.Tx) error { return tx.DeleteBucket(signatureBucket) }), db.Close())
}

func TestWhatMayMatchSSH(t *testing.T) {
	for text, want := range map[string]bool{
		"tcp":                                 true,
		"ip":                                  true, // every packet, TCP among them
		"ttl < 40":                            true,
		"len > 100 and tcp":                   true,
		"tcp and window 0":                    true,
		"tcp dst port 22":                     true,
		"dst portrange 1-1023 and len < 1000": true,
		"tcp[tcpflags] = tcp-syn":             true,
		"tcp[tcpflags] = tcp-ack":             true,
		"tcp and src port 40000":              true,
		"tcp and payload[0:4] = 0x01020304":   true, // ciphertext may be anything
		"tcp[tcpflags] = tcp-syn and tcp[12] & 0xf0 = 0x50": false, // no real SYN is without options
		"tcp[tcpflags] = (tcp-syn|tcp-ack)":                 false,
		"tcp[tcpflags] = tcp-rst":                           false,
		"tcp and src port 80":                               false,
		"tcp dst port 80":                                   false,
		"tcp dst port 80 and tcp[tcpflags] = tcp-ack":       false,
		"udp":                 false,
		"udp and dst port 22": false,
		"icmp":                false,
		"frag later":          false,
	} {
		r, err := signature.Parse(text)
		mustDo(t, err)
		if got := mayMatchSSH(r); got != want {
			t.Errorf("%s: %v, want %v", text, got, want)
		}
	}
	for text, want := range map[string]bool{
		"port 22":                        true,
		"src host 198.51.100.7":          true,
		"udp port 53":                    false,
		"udp[20:2] > 7 and src net 10":   false,
		"UDP port 53 and host 192.0.2.1": false,
		"udp port 53 or tcp":             true,
		"udp port 53 || tcp":             true,
		"not udp":                        true,
		"udp and (port 53 or port 123)":  true,
	} {
		if got := mayMatchSSH(signature.Rule{Filter: text}); got != want {
			t.Errorf("filter %q: %v, want %v", text, got, want)
		}
	}
}

// The guard for SSH is about this host, where it is known which addresses are its own.
func TestSSHToOthers(t *testing.T) {
	b := newBench(t, 10)
	if _, err := b.AddSignatures([]signature.Armed{rule(t, "tcp")}, AddOptions{}); err == nil {
		t.Error("own addresses are unknown, yet the rule is armed")
	}
	mustDo(t, b.SetProtected([]Protected{{Prefix: netip.MustParsePrefix("192.0.2.1/32"), Why: "own address of eth0", Own: true}}))
	mustArm(t, b, rule(t, "tcp"), rule(t, "tcp", signature.Observe, netip.MustParsePrefix("192.0.2.0/24")))
	if _, err := b.AddSignatures([]signature.Armed{rule(t, "tcp", netip.MustParsePrefix("192.0.2.0/24"))}, AddOptions{}); err == nil {
		t.Error("the target holds an own address, yet the rule is armed")
	}
}
