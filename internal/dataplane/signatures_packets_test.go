// SPDX-License-Identifier: Apache-2.0

package dataplane_test

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gopacket/gopacket/layers"
	"golang.org/x/sys/unix"

	"github.com/sentinel-x/sentinel-x/internal/dataplane"
	"github.com/sentinel-x/sentinel-x/internal/dataplane/packettest"
	"github.com/sentinel-x/sentinel-x/internal/lab"
	"github.com/sentinel-x/sentinel-x/internal/signature"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// drop returns an armed rule of the text that drops.
func drop(t testing.TB, id uint64, text string) signature.Armed {
	t.Helper()
	rule, err := signature.Parse(text)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return signature.Armed{ID: id, Text: text, Rule: rule, Action: signature.Drop, Ceiling: signature.FullCeiling}
}

func filtered(id uint64, expression string) signature.Armed {
	return signature.Armed{
		ID: id, Text: expression, Rule: signature.Rule{Filter: expression},
		Action: signature.Drop, Ceiling: signature.FullCeiling,
	}
}

// arm puts the rules in force on both sides.
func (p *pair) arm(t *testing.T, armed ...signature.Armed) {
	t.Helper()
	p.armed = armed
	p.set(t)
}

// hits fails unless the packet ends as the rules say: dropped by one of them, or not.
func (p *pair) hits(t *testing.T, name string, frame []byte, want bool) {
	t.Helper()
	got, err := p.program.Run(frame, p.at)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if hit := got.Reason == traffic.ReasonSignature; hit != want {
		t.Errorf("%s: dropped by a signature: %v, want %v (%v %v)", name, hit, want, got.Reason, got.Outcome)
	}
	if _, reason, _ := p.expect(frame); (reason == traffic.ReasonSignature) != want {
		t.Errorf("%s: the oracle says %v, want a signature: %v", name, reason, want)
	}
}

func stats(t *testing.T, p interface {
	SignatureStats() (map[uint64]signature.Stats, error)
},
) map[uint64]signature.Stats {
	t.Helper()
	all, err := p.SignatureStats()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestSignatureFields: each field at the ends of its ranges, and on packets that lack it.
func TestSignatureFields(t *testing.T) {
	p := newPair(t, packettest.AllTunnels)
	fragment := packettest.Fragments(udp4(), 24)
	inTunnel := wrapped("GRE", udp4())
	noDF, df := udp4(), with(udp4(), put16(atIP+6, 0x4000))
	for _, c := range []struct {
		rule      string
		hit, miss [][]byte
	}{
		{"udp", [][]byte{udp4(), udp6(), fragment[0], fragment[1], inTunnel}, [][]byte{tcp4(), icmp6()}},
		{
			"src portrange 100-200",
			[][]byte{with(udp4(), put16(atL4, 100)), with(tcp4(), put16(atL4, 200)), with(udp6(), put16(at6L4, 150))},
			[][]byte{with(udp4(), put16(atL4, 99)), with(udp4(), put16(atL4, 201)), icmp4(), fragment[1]},
		},
		{
			"dst port 0 or 65535",
			[][]byte{with(udp4(), put16(atL4+2, 0)), with(tcp6(), put16(at6L4+2, 65535))},
			[][]byte{with(udp4(), put16(atL4+2, 1)), with(udp4(), put16(atL4+2, 65534)), icmp4()},
		},
		{
			"ip[2:2] >= 68 and ip[2:2] <= 69",
			[][]byte{udp4(), with(udp4(), put16(atIP+2, 69))},
			[][]byte{with(udp4(), put16(atIP+2, 67)), with(udp4(), put16(atIP+2, 70)), udp6(), with(udp4(), put16(atIP+2, 19))},
		},
		{"ttl 10", [][]byte{with(udp4(), put8(atIP+8, 10)), with(udp6(), put8(atIP+7, 10))}, [][]byte{udp4(), with(udp4(), put8(atIP+8, 11))}},
		{
			"tcp[tcpflags] & (tcp-syn|tcp-ack) = tcp-syn",
			[][]byte{with(tcp4(), put8(atL4+13, 2)), with(tcp6(), put8(at6L4+13, 0xc2))},
			[][]byte{tcp4(), with(tcp4(), put8(atL4+13, 0x12)), udp4()},
		},
		{"tcp[12] & 0xf0 = 0x50", [][]byte{tcp4(), tcp6()}, [][]byte{with(tcp4(), put8(atL4+12, 0x60)), udp4()}},
		{"window 512", [][]byte{tcp4(), tcp6()}, [][]byte{with(tcp4(), put16(atL4+14, 511)), with(tcp4(), put16(atL4+14, 513)), udp4()}},
		{"icmp[icmptype] = icmp-echo", [][]byte{icmp4()}, [][]byte{with(icmp4(), put8(atL4, 7)), icmp6(), udp4()}},
		{"icmp6[icmp6type] = 128 and icmp6[icmp6code] = 0", [][]byte{icmp6()}, [][]byte{with(icmp6(), put8(at6L4+1, 1)), icmp4()}},
		{"frag first", [][]byte{fragment[0]}, [][]byte{fragment[1], udp4(), udp6()}},
		{"frag later", [][]byte{fragment[1]}, [][]byte{fragment[0], udp4(), udp6()}},
		{"frag any", [][]byte{fragment[0], fragment[1]}, [][]byte{udp4(), udp6()}},
		{"df", [][]byte{df, tagged(df, 0x8100)}, [][]byte{noDF, udp6()}},
		{"ip and not df", [][]byte{noDF}, [][]byte{df, udp6()}},
		{"inner proto udp", [][]byte{inTunnel}, [][]byte{udp4(), udp6(), wrapped("GRE", tcp4())}},
		{"ip6", [][]byte{udp6(), wrapped("6in4", udp6())}, [][]byte{udp4(), wrapped("IPv6 tunnel, IPv4 inside", udp4())}},
		{"udp and dst port 443 and ttl 64", [][]byte{udp4(), udp6(), manyExtensions(udp6(), 3)}, [][]byte{tcp4(), with(udp4(), put8(atIP+8, 63))}},
	} {
		p.arm(t, drop(t, 1, c.rule))
		for i, frame := range c.hit {
			p.hits(t, fmt.Sprintf("%s: hit %d", c.rule, i), frame, true)
		}
		for i, frame := range c.miss {
			p.hits(t, fmt.Sprintf("%s: miss %d", c.rule, i), frame, false)
		}
	}
}

// TestSignatureTargets: a prefix of any length matches its first and last address and not their neighbours.
func TestSignatureTargets(t *testing.T) {
	p := newPair(t, packettest.Tunnels{})
	to := func(a netip.Addr) []byte {
		if a.Is4() {
			return with(udp4(), func(f []byte) { copy(f[atIP+16:], a.AsSlice()) })
		}
		return with(udp6(), func(f []byte) { copy(f[atIP+24:], a.AsSlice()) })
	}
	for i, a := range []string{packettest.Destination4, packettest.Destination6, "198.51.100.255", "2001:db8:ffff::ffff"} {
		address := netip.MustParseAddr(a)
		for bits := 0; bits <= address.BitLen(); bits += 1 + 3*i {
			prefix, _ := address.Prefix(bits)
			rule := drop(t, 1, "udp")
			rule.Rule.Target = prefix
			p.arm(t, rule)
			first, last := prefix.Addr(), lastOf(prefix)
			p.hits(t, fmt.Sprintf("%v: its first", prefix), to(first), true)
			p.hits(t, fmt.Sprintf("%v: its last", prefix), to(last), true)
			for _, beside := range []netip.Addr{first.Prev(), last.Next()} {
				if beside.IsValid() {
					p.hits(t, fmt.Sprintf("%v: %v", prefix, beside), to(beside), false)
				}
			}
		}
	}
	p.arm(t, func() signature.Armed {
		a := drop(t, 1, "udp")
		a.Rule.Target = netip.MustParsePrefix("::/0")
		return a
	}())
	p.hits(t, "IPv4 packet, IPv6 target", udp4(), false)
}

func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := range b {
		b[i] |= byte(0xff >> min(max(p.Bits()-8*i, 0), 8))
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// TestSignaturePayload: words of 1 to 8 bytes, where they begin, end, and end too late.
func TestSignaturePayload(t *testing.T) {
	p := newPair(t, packettest.AllTunnels)
	word := func(offset, size int, mask uint64) string { // of what packettest.Data holds
		var v uint64
		for i := range size {
			v = v<<8 | uint64(byte(offset+i))
		}
		return fmt.Sprintf("payload[%d:%d] & %#x = %#x", offset, size, mask, v&mask)
	}
	for size := 1; size <= 8; size++ {
		full := ^uint64(0) >> (64 - 8*size)
		for _, offset := range []int{0, 1, 31, 40 - size} {
			p.arm(t, drop(t, 1, word(offset, size, full)))
			for _, frame := range [][]byte{udp4(), udp6(), tcp4(), tcp6(), icmp4(), wrapped("VXLAN", udp4()), tagged(udp4(), 0x8100)} {
				p.hits(t, p.armed[0].Text, frame, offset+size <= 40)
			}
			p.hits(t, "last byte differs", with(udp4(), func(f []byte) { f[atL4+8+offset+size-1] ^= 0x10 }), false)
			p.arm(t, drop(t, 1, word(offset, size, full&^0x10)))
			p.hits(t, "last byte differs under the mask", with(udp4(), func(f []byte) { f[atL4+8+offset+size-1] ^= 0x10 }), true)
		}
		p.arm(t, drop(t, 1, word(40-size, size, full)))
		p.hits(t, "the announced end is one byte before", with(udp4(), put16(atIP+2, 67)), false)
		p.hits(t, "the frame ends one byte before", udp4()[:len(udp4())-1], false)
		p.arm(t, drop(t, 1, word(41-size, size, full)))
		padded := append(udp4(), 40) // as if the data went on
		p.hits(t, "behind the announced end", padded, false)
		p.arm(t, drop(t, 1, word(41-size, size, full&^0xff|1<<(8*size-1))))
		p.hits(t, "only the byte that nobody looks at is behind", udp4(), size > 1)
	}
	p.arm(t, drop(t, 1, word(0, 1, 0xff)))
	p.hits(t, "later fragment", packettest.Fragments(udp4(), 24)[1], false)
	p.hits(t, "no layer 4", with(udp4(), put8(atIP, 0x44)), false)
}

// TestSignatureDeepPayload: the farthest word, and bytes behind the linear part of a large frame.
func TestSignatureDeepPayload(t *testing.T) {
	p := newPair(t, packettest.Tunnels{})
	large := packettest.Build(packettest.Ethernet(layers.EthernetTypeIPv4), packettest.IPv4(layers.IPProtocolUDP), packettest.UDP(), packettest.Data(1100))
	p.arm(t, drop(t, 1, "payload[1016:8] = 0xf8f9fafbfcfdfeff"))
	p.hits(t, "the last 8 of 1024 bytes", large, true)
	p.hits(t, "cut in them", large[:atL4+8+1023], false)
	f, err := dataplane.Probe()
	if err != nil {
		t.Fatal(err)
	}
	if !f.Frags {
		return // such frames do not get here
	}
	frame := packettest.Build(packettest.Ethernet(layers.EthernetTypeIPv6), packettest.IPv6(layers.IPProtocolUDP), packettest.UDP(), packettest.Data(1100))
	// A test run puts what does not fit a page into fragments: headers push the data there.
	const linear = 4096 - 256 - 320 // headroom and struct skb_shared_info
	deep := must(packettest.InsertExtension(must(packettest.InsertExtension(frame, 60, 1600)), 60, 1600))
	data := len(deep) - 1100
	p.hits(t, "behind the linear part", deep, true)
	p.hits(t, "another byte there", with(deep, func(f []byte) { f[data+1023]++ }), false)
	p.hits(t, "cut there", deep[:data+1023], false)
	for first := linear - data - 12; first < linear-data+12; first += signature.MaxOffsets {
		var all []signature.Armed
		for i := range signature.MaxOffsets {
			rule := signature.Armed{ID: uint64(first + i), Ceiling: 1, Action: signature.Observe}
			word := signature.Word{Offset: uint16(first + i), Size: 8, Mask: ^uint64(0)}
			for _, b := range deep[data+first+i : data+first+i+8] {
				word.Value = word.Value<<8 | uint64(b)
			}
			rule.Rule.Payload = []signature.Word{word}
			all = append(all, rule)
		}
		p.arm(t, all...)
		p.hits(t, "all observe", deep, false)
		for id, s := range stats(t, p.program) {
			if s.Matched != 1 {
				t.Errorf("the word at byte %d of the frame is not seen: %+v", data+int(id), s)
			}
		}
	}
}

// TestSignatureSlots: 64 rules at once each act on their own packets only; a 65th is refused and changes nothing.
func TestSignatureSlots(t *testing.T) {
	p := newPair(t, packettest.Tunnels{})
	var all []signature.Armed
	for i := range signature.Slots {
		all = append(all, drop(t, uint64(1+i), fmt.Sprintf("udp and dst port %d", 1000+2*i)))
	}
	p.arm(t, all...)
	for port := 999; port < 1000+2*signature.Slots; port++ {
		p.hits(t, fmt.Sprint(port), with(udp4(), put16(atL4+2, uint16(port))), port%2 == 0)
	}
	for id, s := range stats(t, p.program) {
		if s.Matched != 1 || s.Dropped != 1 || s.Bytes != uint64(len(udp4())) || !s.LastSeen.Equal(clock(p.at)) {
			t.Errorf("signature %d: %+v, want one packet", id, s)
		}
	}
	if err := p.program.SetSignatures(append(all, drop(t, 65, "udp"))); err == nil || !strings.Contains(err.Error(), "64") {
		t.Errorf("a 65th: %v", err)
	}
	p.hits(t, "after a refusal", with(udp4(), put16(atL4+2, 1126)), true)
	p.hits(t, "after a refusal", udp4(), false)
}

// TestSignatureOrder: the lowest slot that drops ends it; those that only look let it on.
func TestSignatureOrder(t *testing.T) {
	p := newPair(t, packettest.Tunnels{})
	look := drop(t, 1, "udp")
	look.Action = signature.Observe
	p.arm(t, look, drop(t, 2, "dst port 443"), drop(t, 3, "udp and dst port 443"))
	p.hits(t, "all three", udp4(), true)
	want := map[uint64]signature.Stats{1: {Matched: 1, WouldDrop: 1}, 2: {Matched: 1, Dropped: 1}, 3: {}}
	for id, s := range stats(t, p.program) {
		if w := want[id]; s.Matched != w.Matched || s.WouldDrop != w.WouldDrop || s.Dropped != w.Dropped {
			t.Errorf("signature %d: %+v, want %+v", id, s, w)
		}
	}
}

// TestSignatureLife: a rule keeps its counters over updates, by ID; a slot that changes hands starts at nothing.
func TestSignatureLife(t *testing.T) {
	p := newPair(t, packettest.Tunnels{})
	first, second := drop(t, 1, "udp"), drop(t, 2, "tcp")
	p.arm(t, first, second)
	p.hits(t, "first", udp4(), true)
	p.hits(t, "second", tcp4(), true)
	first.Text, first.Rule = "icmp", drop(t, 1, "icmp").Rule
	p.arm(t, second, first)
	p.hits(t, "no rule any more", udp4(), false)
	p.hits(t, "the rule as it was changed", icmp4(), true)
	if s := stats(t, p.program); s[1].Matched != 2 || s[2].Matched != 1 {
		t.Errorf("counters after an update: %+v", s)
	}
	for id := uint64(3); id < 8; id++ { // on both lines of the slots, again and again
		p.arm(t, drop(t, id, "udp"), second)
		if s := stats(t, p.program); len(s) != 2 || s[id] != (signature.Stats{}) || s[2].Matched != 1 {
			t.Errorf("counters with a new rule: %+v", s)
		}
		p.hits(t, "new rule", udp4(), true)
	}
	p.arm(t)
	p.hits(t, "none", udp4(), false)
	if s := stats(t, p.program); len(s) != 0 {
		t.Errorf("counters without rules: %+v", s)
	}
}

func TestSignatureExpiry(t *testing.T) {
	p := newPair(t, packettest.Tunnels{})
	rule := drop(t, 1, "udp")
	rule.Expires = clock(epoch + 10*time.Second)
	p.arm(t, rule)
	for _, c := range []struct {
		after time.Duration
		want  bool
	}{{0, true}, {10*time.Second - 1, true}, {10 * time.Second, false}, {time.Hour, false}} {
		p.at = epoch + c.after
		p.rules.Now = p.at
		p.hits(t, c.after.String(), udp4(), c.want)
	}
}

// TestSignatureLimit: a limit lets its rate pass, of all sources together, and a tenth of a second at once.
func TestSignatureLimit(t *testing.T) {
	p := newTester(t, dataplane.Options{})
	for i, rate := range []uint64{1, 10, 997, 100_000, 5_000_000} {
		rule := drop(t, uint64(1+i), "udp")
		rule.Action, rule.Rate = signature.Limit, rate
		if err := p.SetSignatures([]signature.Armed{rule}); err != nil {
			t.Fatal(err)
		}
		const n = 3000
		spacing := time.Second / time.Duration(3*rate) // three times as fast
		passed, at := 0, epoch+time.Duration(i)*time.Hour
		for k := range n {
			v, err := p.Run(udpFrom(fmt.Sprintf("192.0.2.%d", k%250)), at+time.Duration(k)*spacing)
			if err != nil {
				t.Fatal(err)
			}
			if v.Outcome == traffic.Passed {
				passed++
			} else if v.Reason != traffic.ReasonSignature {
				t.Fatalf("dropped by %v", v.Reason)
			}
		}
		want := float64(spacing) * n * float64(rate) / 1e9
		burst := 1 + float64(rate)/10
		if got := float64(passed); got < min(n, want) || got > min(n, want+burst+1) {
			t.Errorf("%d a second: %d passed of %d, want %.0f and a burst of at most %.0f", rate, passed, n, want, burst)
		}
		s := stats(t, p)[rule.ID]
		if s.Matched != n || s.Dropped != uint64(n-passed) || s.WouldDrop != 0 {
			t.Errorf("%d a second: %+v, passed %d of %d", rate, s, passed, n)
		}
	}
}

// onOneCPU keeps the test on one CPU: ceilings count by CPU.
func onOneCPU(t *testing.T) {
	t.Helper()
	runtime.LockOSThread()
	t.Cleanup(runtime.UnlockOSThread)
	var old, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &old); err != nil {
		t.Fatal(err)
	}
	for cpu := range 1024 {
		if old.IsSet(cpu) {
			one.Set(cpu)
			break
		}
	}
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.SchedSetaffinity(0, &old); err != nil {
			t.Error(err)
		}
	})
}

// TestSignatureCeiling: of its target's packets in a second a rule drops its share, to the packet.
func TestSignatureCeiling(t *testing.T) {
	onOneCPU(t)
	p := newTester(t, dataplane.Options{})
	for i, share := range []float64{0.5, 0.25, 0.9, 1.0 / 65536, 0.001, 1} {
		udp, tcp := drop(t, uint64(10*i+1), "udp"), drop(t, uint64(10*i+2), "tcp")
		udp.Ceiling, tcp.Ceiling = share, share
		udp.Rule.Target = netip.MustParsePrefix(packettest.Destination4 + "/32")
		tcp.Rule.Target = udp.Rule.Target
		if err := p.SetSignatures([]signature.Armed{udp, tcp}); err != nil {
			t.Fatal(err)
		}
		kernelShare := max(1, uint64(math.Round(share*65536)))
		var over, matched uint64
		at := epoch + time.Duration(i)*time.Hour
		for second := range 3 {
			var seen, dropped uint64
			for k := range fewer(2000, 10) {
				frame := udp4()
				switch k % 10 {
				case 0:
					frame = icmp4() // of the target, and matches nothing
				case 1:
					frame = udp6() // another target
				}
				v, err := p.Run(frame, at+time.Duration(second)*time.Second+time.Duration(k)*time.Microsecond)
				if err != nil {
					t.Fatal(err)
				}
				if k%10 == 1 {
					continue
				}
				seen++
				if k%10 > 1 {
					matched++
				}
				want := k%10 > 1 && (share == 1 || (dropped+1)<<16 <= seen*kernelShare)
				if got := v.Outcome == traffic.Dropped; got != want {
					t.Fatalf("ceiling %v: packet %d of second %d, %d dropped of %d seen: dropped %v, want %v", share, k, second, dropped, seen, got, want)
				}
				if want {
					dropped++
				} else if k%10 > 1 {
					over++
				}
			}
		}
		if s := stats(t, p)[udp.ID]; s.OverCeiling != over || s.WouldDrop != over || s.Dropped+over != matched {
			t.Errorf("ceiling %v: %+v, want %d over it of %d", share, s, over, matched)
		}
	}
}

// TestSignatureObserve: in dry run a rule that would drop says so, and drops nothing.
func TestSignatureObserve(t *testing.T) {
	p := newPair(t, packettest.Tunnels{})
	p.observe = true
	p.arm(t, drop(t, 1, "udp"))
	p.want(t, "dry run", udp4(), traffic.ReasonSignature, traffic.WouldDrop)
	if s := stats(t, p.program)[1]; s.Dropped != 0 || s.WouldDrop != 1 || s.Matched != 1 {
		t.Errorf("in dry run: %+v", s)
	}
}

// TestSignatureAndLists: lists and policies come first; an allowed source is not looked at.
func TestSignatureAndLists(t *testing.T) {
	p := newPair(t, packettest.Tunnels{})
	p.lists.Allow = entries("192.0.2.7/32")
	p.lists.Block = entries("192.0.2.8/32")
	p.policies.Malformed = traffic.PolicyDrop
	p.arm(t, drop(t, 1, "udp"))
	p.want(t, "allowed", udpFrom("192.0.2.7"), traffic.ReasonAllowlist, traffic.Passed)
	p.want(t, "blocked", udpFrom("192.0.2.8"), traffic.ReasonBlocklist, traffic.Dropped)
	p.want(t, "malformed", with(udpFrom("192.0.2.9"), put8(atIP+8, 0)), traffic.ReasonZeroTTL, traffic.Dropped)
	p.want(t, "neither", udpFrom("192.0.2.9"), traffic.ReasonSignature, traffic.Dropped)
	if s := stats(t, p.program)[1]; s.Matched != 1 {
		t.Errorf("%+v, want one packet", s)
	}
}

// TestSignatureRefusals: what cannot be held is refused with the reason, and nothing changes.
func TestSignatureRefusals(t *testing.T) {
	p := newPair(t, packettest.Tunnels{})
	p.arm(t, drop(t, 1, "udp"))
	change := func(f func(*signature.Armed)) []signature.Armed {
		a := drop(t, 2, "tcp")
		f(&a)
		return []signature.Armed{a}
	}
	var offsets, ranges, filters []signature.Armed
	for i := range 9 {
		offsets = append(offsets, drop(t, uint64(2+i), fmt.Sprintf("payload[%d] = 1", 2*i)))
	}
	for i := range 64 {
		a := drop(t, uint64(2+i), "udp")
		for k := range 8 {
			lo := uint16(i*(k+3)*5%1000 + k*8192/2)
			a.Rule.Fields[signature.DestPort] = append(a.Rule.Fields[signature.DestPort], signature.Range{Lo: lo, Hi: lo + uint16(1000+i*k)})
		}
		ranges = append(ranges, a)
	}
	for i := range 5 {
		filters = append(filters, filtered(uint64(2+i), fmt.Sprintf("host 192.0.2.%d", i)))
	}
	for _, c := range []struct {
		armed []signature.Armed
		want  string
	}{
		{offsets, "more than 8 offsets"},
		{ranges, "groups of values"},
		{filters, "only 4"},
		{change(func(a *signature.Armed) { a.ID = 0 }), "no ID"},
		{append(change(func(*signature.Armed) {}), change(func(*signature.Armed) {})...), "armed twice"},
		{change(func(a *signature.Armed) { a.Action = 9 }), "action 9"},
		{change(func(a *signature.Armed) { a.Action = signature.Limit }), "0 packets a second"},
		{change(func(a *signature.Armed) { a.Ceiling = 0 }), "ceiling"},
		{change(func(a *signature.Armed) { a.Ceiling = 1.01 }), "ceiling"},
		{change(func(a *signature.Armed) { a.Ceiling = math.NaN() }), "ceiling"},
		{change(func(a *signature.Armed) { a.Rule.Family = 5 }), "family 5"},
		{[]signature.Armed{filtered(2, "host example.org")}, "names are not looked up"},
	} {
		err := p.program.SetSignatures(c.armed)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("want an error with %q, got %v", c.want, err)
		}
		p.hits(t, "the old rule after: "+c.want, udp4(), true)
		p.hits(t, "no new rule after: "+c.want, tcp4(), false)
	}
	if s := stats(t, p.program); len(s) != 1 {
		t.Errorf("armed after refusals: %+v", s)
	}
}

// TestFilters: expressions that the fields cannot hold run as programs, beside the fields.
func TestFilters(t *testing.T) {
	p := newTester(t, dataplane.Options{})
	ends := func(name string, frame []byte, want bool) {
		t.Helper()
		v, err := p.Run(frame, epoch)
		if err != nil {
			t.Fatal(err)
		}
		if got := v.Reason == traffic.ReasonSignature; got != want {
			t.Errorf("%s: matches %v, want %v", name, got, want)
		}
	}
	set := func(armed ...signature.Armed) {
		t.Helper()
		if err := p.SetSignatures(armed); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		expression string
		hit, miss  []byte
	}{
		{"port 443", tcp4(), icmp4()},
		{"src host 192.0.2.7 or icmp6", udp4(), udpFrom("192.0.2.8")},
		{"ip[2:2] - 28 > udp[4:2] - 9", udp4(), with(udp4(), put16(atL4+4, 49))},
		{"len > 100 or tcp[0:2] = 40000", tcp4(), udp4()},
		{"udp[udp[40:1] + 8] = 32", udp4(), with(udp4(), put8(atL4+40, 33))},
	} {
		set(filtered(1, c.expression))
		ends(c.expression, c.hit, true)
		ends(c.expression, c.miss, false)
	}
	both := filtered(1, "port 443")
	both.Rule.Fields[signature.Protocol] = signature.Set{{Lo: 17, Hi: 17}}
	set(both)
	ends("filter and field", udp4(), true)
	ends("filter without field", tcp4(), false)
	if s := stats(t, p)[1]; s.Matched == 0 || s.Matched != s.Dropped {
		t.Errorf("%+v: counts what its filter lets go", s)
	}
	for round := range 4 { // four others every time, and in between what keeps its place
		var all []signature.Armed
		for i := range signature.MaxFilters {
			all = append(all, filtered(uint64(10*round+i+1), fmt.Sprintf("udp and src host 192.0.2.%d", 10*round+i)))
		}
		set(all...)
		for i := range 100 {
			ends(fmt.Sprintf("round %d, source %d", round, i), udpFrom(fmt.Sprintf("192.0.2.%d", i)), i/10 == round && i%10 < signature.MaxFilters)
		}
		set(all[2])
		ends("one that stays", udpFrom(fmt.Sprintf("192.0.2.%d", 10*round+2)), true)
		ends("one that went", udpFrom(fmt.Sprintf("192.0.2.%d", 10*round+1)), false)
	}
	err := p.SetSignatures([]signature.Armed{filtered(99, "vlan 3")})
	if _, syntax := errors.AsType[*signature.SyntaxError](err); !syntax {
		t.Errorf("an expression that cannot be compiled: %v", err)
	}
	ends("the old filter after a refusal", udpFrom("192.0.2.32"), true)
}

// TestFilterOnInterface: the program with the filter takes the place of the one that is attached, with its counters.
func TestFilterOnInterface(t *testing.T) {
	n := lab.NewTestNet(t, lab.NetOptions{})
	p := newPlane(t, dataplane.Options{})
	before := mustAttach(t, n, p, dataplane.ModeNative)
	if err := p.SetSignatures([]signature.Armed{filtered(1, "udp port 9 or tcp port 9")}); err != nil {
		t.Fatal(err)
	}
	on, ok := look(t, n)
	after := p.Attachments()
	if !ok || len(after) != 1 || on.ProgramID != after[0].ProgramID || on.ProgramID == before.ProgramID {
		t.Errorf("on the interface %+v, the daemon says %+v, before it was %d", on, after, before.ProgramID)
	}
	if after[0].LinkID != before.LinkID {
		t.Errorf("link %d, was %d: there was a gap", after[0].LinkID, before.LinkID)
	}
	if err := p.SetObserve(true); err != nil { // the new program reads the same knobs
		t.Errorf("knobs after the change: %v", err)
	}
}

// TestSignatureFlips: while rules flip between two sets, every packet ends as one of them says.
func TestSignatureFlips(t *testing.T) {
	p := newTester(t, dataplane.Options{})
	// Field by field, a mixture of both would match neither of the packets, or the wrong rule.
	one := []signature.Armed{drop(t, 1, "udp and dst port 443 and payload[0] = 0"), drop(t, 2, "tcp and ttl 64")}
	two := []signature.Armed{drop(t, 3, "tcp and dst port 443 and ttl 64"), drop(t, 4, "udp and ttl 64 and payload[1] = 1")}
	never := drop(t, 5, "udp and dst port 443 and payload[1] = 2")
	if err := p.SetSignatures(one); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var flips atomic.Int64
	var ended atomic.Bool
	var flipErr error
	var wg sync.WaitGroup
	wg.Go(func() {
		defer ended.Store(true)
		for flipErr == nil {
			select {
			case <-stop:
				return
			default:
			}
			set := one
			if flips.Load()%2 == 0 {
				set = append(two[:2:2], never)
			}
			flipErr = p.SetSignatures(set)
			flips.Add(1)
		}
	})
	packets := 0
	for ; packets < fewer(100_000, 50) || flips.Load() < 10 && !ended.Load(); packets++ {
		for _, frame := range [][]byte{udp4(), tcp4()} {
			v, err := p.Run(frame, epoch)
			if err != nil || v.Reason != traffic.ReasonSignature {
				t.Errorf("a packet that both sets drop ended as %v %v (%v)", v.Reason, v.Outcome, err)
				close(stop)
				wg.Wait()
				return
			}
		}
	}
	close(stop)
	wg.Wait()
	if flipErr != nil {
		t.Error(flipErr)
	}
	if s, ok := stats(t, p)[5]; ok && s.Matched != 0 {
		t.Errorf("the rule that no packet matches: %+v", s)
	}
	t.Logf("%d packets, %d flips", 2*packets, flips.Load())
}

// TestSignatureMemory: without rules there is no table; with them there is one.
func TestSignatureMemory(t *testing.T) {
	p := newTester(t, dataplane.Options{})
	size := func() (table uint64) {
		all, err := p.Memory()
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range all {
			if m.Name == "signature_tables" {
				table += m.Bytes
			}
		}
		return table
	}
	if n := size(); n != 0 {
		t.Errorf("%d bytes without rules", n)
	}
	for range 3 {
		if err := p.SetSignatures([]signature.Armed{drop(t, 1, "udp")}); err != nil {
			t.Fatal(err)
		}
		if n := size(); n < 400<<10 || n > 512<<10 {
			t.Errorf("%d bytes with a rule, want less than half a MiB", n)
		}
		if err := p.SetSignatures(nil); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(uint64(0), size()); diff != "" {
		t.Errorf("after the last rule (-want +got):\n%s", diff)
	}
}
