// SPDX-License-Identifier: Apache-2.0

package dataplane_test

import (
	"encoding/hex"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/sentinel-x/sentinel-x/internal/dataplane"
	"github.com/sentinel-x/sentinel-x/internal/dataplane/packettest"
	"github.com/sentinel-x/sentinel-x/internal/signature"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// epoch is where the injected clock of these tests starts.
const epoch = 1_700_000_000 * time.Second

func clock(at time.Duration) time.Time { return time.Unix(0, int64(at)) }

// fewer returns n, a part of it with -short: under an emulator a packet costs a millisecond.
func fewer(n, part int) int {
	if testing.Short() {
		return n / part
	}
	return n
}

// tunnelBits gives the program's word for what the oracle is told.
func tunnelBits(t packettest.Tunnels) (bits dataplane.Tunnel) {
	for _, b := range []struct {
		on  bool
		bit dataplane.Tunnel
	}{
		{t.IPIP, dataplane.TunnelIPIP},
		{t.SixInFour, dataplane.Tunnel6in4},
		{t.GRE, dataplane.TunnelGRE},
		{t.VXLAN, dataplane.TunnelVXLAN},
	} {
		if b.on {
			bits |= b.bit
		}
	}
	return bits
}

func newTester(t testing.TB, o dataplane.Options) *dataplane.Tester {
	t.Helper()
	p, err := dataplane.NewTester(o)
	if err != nil {
		t.Fatalf("load the program: %v", err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Errorf("close the program: %v", err)
		}
	})
	return p
}

// pair is the real program and the oracle under the same settings.
type pair struct {
	program  *dataplane.Tester
	decoder  *packettest.Decoder
	tunnels  packettest.Tunnels
	lists    packettest.Lists
	policies traffic.Policies
	observe  bool
	bypass   bool
	at       time.Duration
	armed    []signature.Armed
	rules    packettest.Signatures
	nextID   uint64
	views    []signature.Packet                // packets to draw rules for
	applied  [traffic.NumLists][]traffic.Entry // as the program has them
	changes  int
	signed   bool // the program has signatures
	// counted is what the oracle expects the counters to have moved by.
	counted [traffic.NumReasons][traffic.NumOutcomes]traffic.Count
}

func newPair(t testing.TB, tunnels packettest.Tunnels) *pair {
	views := ruleViews(t, tunnels)
	return &pair{
		views:   views,
		program: newTester(t, dataplane.Options{Tunnels: tunnelBits(tunnels)}),
		decoder: packettest.NewDecoder(tunnels),
		tunnels: tunnels, at: epoch,
	}
}

// ruleViews returns what signatures see of good packets and of frames of captures.
func ruleViews(t testing.TB, tunnels packettest.Tunnels) (views []signature.Packet) {
	t.Helper()
	frames, _ := fuzzSeeds(t)
	d := packettest.NewDecoder(tunnels)
	for _, frame := range frames {
		if p := d.Decode(frame); p.IP {
			views = append(views, p.Rules)
		}
	}
	return views
}

// apply gives the program the settings the oracle has.
func (p *pair) apply() error {
	for list, entries := range [][]traffic.Entry{p.lists.Block, p.lists.Allow, p.lists.Protected} {
		if err := p.applyList(traffic.List(list), entries); err != nil {
			return fmt.Errorf("set list %v: %w", traffic.List(list), err)
		}
	}
	p.lists.Now = clock(p.at)
	p.rules.Now = p.at
	p.rules.Set(p.armed)
	// None after none would wait for the packets, in each of hundreds of cases.
	if len(p.armed) > 0 || p.signed {
		p.signed = len(p.armed) > 0
		if err := p.program.SetSignatures(p.armed); err != nil {
			return err
		}
	}
	if err := p.program.SetPolicies(p.policies); err != nil {
		return err
	}
	if err := p.program.SetObserve(p.observe); err != nil {
		return err
	}
	return p.program.SetBypass(p.bypass)
}

// applyList changes a list, by turns with each of the verbs that can.
func (p *pair) applyList(list traffic.List, entries []traffic.Entry) error {
	old := p.applied[list]
	if slices.Equal(old, entries) {
		return nil
	}
	p.applied[list] = slices.Clone(entries)
	if p.changes++; p.changes%4 == 0 {
		return p.program.Replace(list, entries)
	}
	var gone []netip.Prefix
	for _, e := range old {
		gone = append(gone, e.Prefix)
	}
	if err := p.program.Remove(list, gone); err != nil {
		return err
	}
	return p.program.Put(list, entries)
}

// expect returns the oracle's view of a frame.
func (p *pair) expect(frame []byte) (packettest.Packet, traffic.Reason, traffic.Outcome) {
	if p.bypass {
		return packettest.Packet{}, traffic.ReasonBypass, traffic.Passed
	}
	packet := p.decoder.Decode(frame)
	reason, outcome := packettest.Verdict(packet, p.lists, p.policies)
	if outcome == traffic.Passed {
		reason, outcome = p.rules.Judge(packet, len(frame), p.observe, reason)
	}
	if p.observe && outcome == traffic.Dropped {
		outcome = traffic.WouldDrop
	}
	return packet, reason, outcome
}

// differs runs the frame on both sides and says what differs, "" if nothing does.
func (p *pair) differs(frame []byte) (string, error) {
	got, err := p.program.Run(frame, p.at)
	if err != nil {
		return "", err
	}
	packet, reason, outcome := p.expect(frame)
	c := &p.counted[reason][outcome]
	*c = c.Add(traffic.Count{Packets: 1, Bytes: uint64(len(frame))})
	if got.Reason == reason && got.Outcome == outcome && (p.bypass || sameView(got.Parsed, packet)) {
		return "", nil
	}
	return fmt.Sprintf("program: %v %v %+v\noracle:  %v %v %+v",
		got.Reason, got.Outcome, got.Parsed, reason, outcome, packet), nil
}

// sameView compares what both sides understood of a frame.
func sameView(got dataplane.Parsed, want packettest.Packet) bool {
	if !want.IP {
		return !got.Source.IsValid() && got.VLANs == want.VLANs
	}
	return got.Source == want.Source && got.Destination == want.Destination &&
		got.Protocol == want.Protocol && got.SourcePort == want.SourcePort && got.DestPort == want.DestPort &&
		got.TCPFlags == want.TCPFlags && got.TTL == want.TTL && got.VLANs == want.VLANs &&
		uint8(got.Fragment) == uint8(want.Fragment) && got.Tunnel == want.Tunnel
}

// report describes a difference so that it can be run again.
func (p *pair) report(frame []byte, difference string) string {
	return fmt.Sprintf("%s\ntunnels %+v, policies %+v, observe %v, bypass %v\nframe     %s\nminimised %s\n%s",
		difference, p.tunnels, p.policies, p.observe, p.bypass,
		hex.EncodeToString(frame), hex.EncodeToString(p.minimise(frame)), p.covering(frame))
}

// covering names the list entries that cover the packet's sources.
func (p *pair) covering(frame []byte) string {
	packet := p.decoder.Decode(frame)
	var s string
	for list, entries := range [][]traffic.Entry{p.lists.Block, p.lists.Allow, p.lists.Protected} {
		for _, e := range entries {
			if e.Prefix.Contains(packet.Source) || e.Prefix.Contains(packet.OuterSource) {
				s += fmt.Sprintf("  %v %v forced %v expired %v\n", traffic.List(list), e.Prefix, e.Forced, e.Expired(p.lists.Now))
			}
		}
	}
	return s
}

// minimise shortens the frame and zeroes bytes as long as a difference stays.
func (p *pair) minimise(frame []byte) []byte {
	still := func(f []byte) bool {
		d, err := p.differs(f)
		return err == nil && d != ""
	}
	best := append([]byte(nil), frame...)
	for step := len(best) / 2; step > 0; step /= 2 {
		for len(best)-step >= 14 && still(best[:len(best)-step]) {
			best = best[:len(best)-step]
		}
	}
	for i := range best {
		old := best[i]
		if best[i] = 0; old != 0 && !still(best) {
			best[i] = old
		}
	}
	return best
}

// checkCounters compares what the program counted since before with the oracle's count.
func (p *pair) checkCounters(before traffic.Counters) error {
	after, err := p.program.Counters()
	if err != nil {
		return err
	}
	var sum traffic.Count
	for r := range p.counted {
		for o, want := range p.counted[r] {
			sum = sum.Add(want)
			if got := after.Reasons[r][o].Sub(before.Reasons[r][o]); got != want {
				return fmt.Errorf("counter %v %v moved by %+v, want %+v", traffic.Reason(r), traffic.Outcome(o), got, want)
			}
		}
	}
	if got := after.Seen.Sub(before.Seen); got != sum {
		return fmt.Errorf("counter seen moved by %+v, want %+v", got, sum)
	}
	return p.checkSignatures()
}

// checkSignatures compares what the rules have done.
func (p *pair) checkSignatures() error {
	got, err := p.program.SignatureStats()
	if err != nil {
		return err
	}
	if want := p.rules.Stats(); !maps.Equal(got, want) {
		return fmt.Errorf("signatures have counted %+v, want %+v", got, want)
	}
	return nil
}

// randomise draws lists of prefixes around the given addresses, policies and modes.
func (p *pair) randomise(r *rand.Rand, addresses []netip.Addr) {
	p.lists = packettest.Lists{
		Block:     randomList(r, addresses, true),
		Allow:     randomList(r, addresses, false),
		Protected: randomList(r, addresses, false),
	}
	p.observe, p.bypass = r.IntN(8) == 0, r.IntN(64) == 0
	policy := func() traffic.Policy { return traffic.Policy(r.IntN(2)) }
	p.policies = traffic.Policies{
		Malformed: policy(), FirstFragments: policy(), LaterFragments: policy(), TinyFragments: policy(),
		ExtensionHeaders: policy(), VLANDepth: policy(), TunnelDepth: policy(),
	}
	p.randomiseRules(r)
	p.counted = [traffic.NumReasons][traffic.NumOutcomes]traffic.Count{}
}

// randomiseRules draws the rules that stay armed, change, go and come.
func (p *pair) randomiseRules(r *rand.Rand) {
	var next []signature.Armed
	if r.IntN(4) > 0 {
		offsets := make([]uint16, signature.MaxOffsets)
		for i := range offsets {
			offsets[i] = uint16(r.IntN(1 + r.IntN(48)))
		}
		for _, a := range p.armed {
			if r.IntN(4) == 0 {
				next = append(next, p.randomRule(r, a.ID, offsets))
			}
		}
		for n := r.IntN(r.IntN(signature.Slots-len(next)) + 1); n > 0; n-- {
			p.nextID++
			next = append(next, p.randomRule(r, p.nextID, offsets))
		}
	}
	p.armed = next
}

func (p *pair) randomRule(r *rand.Rand, id uint64, offsets []uint16) signature.Armed {
	a := signature.Armed{ID: id, Ceiling: 1, Action: signature.Action(r.IntN(3))}
	a.Rule = packettest.RandomRule(r, p.views[r.IntN(len(p.views))], offsets)
	if a.Action == signature.Limit {
		a.Rate = 1 << r.IntN(14) // a whole number of ns·16 each
	}
	switch r.IntN(8) {
	case 0:
		a.Expires = clock(p.at - time.Duration(r.IntN(2)))
	case 1:
		a.Expires = clock(p.at + 1)
	}
	return a
}

func randomList(r *rand.Rand, addresses []netip.Addr, block bool) []traffic.Entry {
	var all []traffic.Entry
	seen := map[netip.Prefix]bool{}
	for n := r.IntN(12); n > 0; n-- {
		a := addresses[r.IntN(len(addresses))]
		if a.Is4In6() {
			continue
		}
		bits := a.BitLen()
		switch r.IntN(8) {
		case 0:
			bits = r.IntN(bits + 1)
		case 1, 2, 3:
			bits -= r.IntN(bits / 2)
		}
		prefix, _ := a.Prefix(bits)
		if seen[prefix] || prefix.Addr().Is4In6() {
			continue
		}
		seen[prefix] = true
		e := traffic.Entry{Prefix: prefix, Forced: block && r.IntN(4) == 0}
		switch r.IntN(4) {
		case 0: // ended, a moment or long ago
			e.Expires = clock(epoch - time.Duration(r.IntN(2))*time.Duration(r.Int64N(int64(time.Hour))))
		case 1:
			e.Expires = clock(epoch + 1 + time.Duration(r.Int64N(int64(time.Hour))))
		}
		all = append(all, e)
	}
	return all
}
