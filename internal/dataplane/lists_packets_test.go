// SPDX-License-Identifier: Apache-2.0

package dataplane_test

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/gopacket/gopacket/layers"

	"github.com/sentinel-x/sentinel-x/internal/dataplane"
	"github.com/sentinel-x/sentinel-x/internal/dataplane/packettest"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// udpFrom returns a UDP packet of the family of the source.
func udpFrom(source string) []byte {
	a := netip.MustParseAddr(source)
	if a.Is4() {
		return with(udp4(), func(f []byte) { copy(f[atIP+12:], a.AsSlice()) })
	}
	return with(udp6(), func(f []byte) { copy(f[atIP+8:], a.AsSlice()) })
}

func forced(prefixes ...string) []traffic.Entry {
	all := entries(prefixes...)
	for i := range all {
		all[i].Forced = true
	}
	return all
}

// TestPrecedence: allow over forced block over protected over block, whatever
// the lengths of the prefixes.
func TestPrecedence(t *testing.T) {
	p := newPair(t, packettest.Tunnels{})
	join := func(all ...[]traffic.Entry) (sum []traffic.Entry) {
		for _, e := range all {
			sum = append(sum, e...)
		}
		return sum
	}
	for _, family := range []struct{ source, host, near, far string }{
		{"192.0.2.7", "192.0.2.7/32", "192.0.2.0/24", "192.0.0.0/8"},
		{"2001:db8::7", "2001:db8::7/128", "2001:db8::/64", "2001::/16"},
	} {
		host, near, far := entries(family.host), entries(family.near), entries(family.far)
		for _, c := range []struct {
			name   string
			lists  packettest.Lists
			reason traffic.Reason
		}{
			{"nothing", packettest.Lists{}, traffic.ReasonPass},
			{"block", packettest.Lists{Block: near}, traffic.ReasonBlocklist},
			{"allow", packettest.Lists{Allow: near}, traffic.ReasonAllowlist},
			{"protected", packettest.Lists{Protected: near}, traffic.ReasonProtected},
			{"block host, allow net", packettest.Lists{Block: host, Allow: far}, traffic.ReasonAllowlist},
			{"block net, allow host", packettest.Lists{Block: far, Allow: host}, traffic.ReasonAllowlist},
			{"block and allow the same", packettest.Lists{Block: near, Allow: near}, traffic.ReasonAllowlist},
			{"block host, protect net", packettest.Lists{Block: host, Protected: far}, traffic.ReasonProtected},
			{"block net, protect host", packettest.Lists{Block: far, Protected: host}, traffic.ReasonProtected},
			{"forced host, protect net", packettest.Lists{Block: forced(family.host), Protected: far}, traffic.ReasonBlocklist},
			{"forced net, protect host", packettest.Lists{Block: forced(family.far), Protected: host}, traffic.ReasonBlocklist},
			{"forced and protected the same", packettest.Lists{Block: forced(family.near), Protected: near}, traffic.ReasonBlocklist},
			{"forced host, allow net", packettest.Lists{Block: forced(family.host), Allow: far}, traffic.ReasonAllowlist},
			{"forced, allow and protect", packettest.Lists{Block: forced(family.near), Allow: far, Protected: host}, traffic.ReasonAllowlist},
			{"allow over protected", packettest.Lists{Allow: far, Protected: host}, traffic.ReasonAllowlist},
			{"forced net over block host, protected", packettest.Lists{Block: join(forced(family.far), host), Protected: near}, traffic.ReasonBlocklist},
			{"everything blocked", packettest.Lists{Block: entries("0.0.0.0/0", "::/0")}, traffic.ReasonBlocklist},
			{"the other family blocked", packettest.Lists{Block: entries(map[bool]string{true: "::/0", false: "0.0.0.0/0"}[family.host == "192.0.2.7/32"])}, traffic.ReasonPass},
			{"the neighbour blocked", packettest.Lists{Block: entries("192.0.2.6/32", "2001:db8::6/128")}, traffic.ReasonPass},
		} {
			p.lists = c.lists
			p.set(t)
			p.want(t, c.name, udpFrom(family.source), c.reason, outcomeOf(c.reason == traffic.ReasonBlocklist))
		}
	}
}

// TestExpiry: an entry ends at its moment, and the look-up falls back to a
// prefix that covers the one that ended.
func TestExpiry(t *testing.T) {
	p := newPair(t, packettest.Tunnels{})
	until := func(prefix string, at time.Duration) traffic.Entry {
		return traffic.Entry{Prefix: netip.MustParsePrefix(prefix), Expires: clock(epoch + at)}
	}
	p.lists = packettest.Lists{
		Block: []traffic.Entry{
			until("192.0.2.7/32", time.Second), until("192.0.2.0/24", 5*time.Second), until("192.0.0.0/8", 3*time.Second),
			until("2001:db8::7/128", 2*time.Second), until("2001:db8::/32", 4*time.Second),
			{Prefix: netip.MustParsePrefix("198.51.100.0/24")},
		},
		Allow:     []traffic.Entry{until("192.0.2.7/32", 500*time.Millisecond), until("198.51.100.0/25", time.Nanosecond)},
		Protected: []traffic.Entry{until("2001:db8::/64", time.Second)},
	}
	p.set(t)
	for _, c := range []struct {
		source string
		at     time.Duration
		reason traffic.Reason
	}{
		{"192.0.2.7", 0, traffic.ReasonAllowlist},
		{"192.0.2.7", 500*time.Millisecond - 1, traffic.ReasonAllowlist},
		{"192.0.2.7", 500 * time.Millisecond, traffic.ReasonBlocklist},
		{"192.0.2.7", time.Second, traffic.ReasonBlocklist},
		{"192.0.2.7", 4 * time.Second, traffic.ReasonBlocklist},
		{"192.0.2.7", 5*time.Second - 1, traffic.ReasonBlocklist},
		{"192.0.2.7", 5 * time.Second, traffic.ReasonPass},
		{"192.0.3.1", 3*time.Second - 1, traffic.ReasonBlocklist},
		{"192.0.3.1", 3 * time.Second, traffic.ReasonPass},
		{"2001:db8::7", 0, traffic.ReasonProtected},
		{"2001:db8::7", time.Second, traffic.ReasonBlocklist},
		{"2001:db8::7", 3 * time.Second, traffic.ReasonBlocklist},
		{"2001:db8::7", 4 * time.Second, traffic.ReasonPass},
		{"198.51.100.7", 0, traffic.ReasonAllowlist},
		{"198.51.100.7", 1, traffic.ReasonBlocklist},
		{"198.51.100.7", 1e6 * time.Second, traffic.ReasonBlocklist},
	} {
		p.at = epoch + c.at
		p.lists.Now = clock(p.at)
		p.want(t, c.source+" at "+c.at.String(), udpFrom(c.source), c.reason, outcomeOf(c.reason == traffic.ReasonBlocklist))
	}
	// An entry that ended comes back to life when it is put again.
	p.lists.Block = append(p.lists.Block[1:], until("192.0.2.7/32", 20*time.Second))
	p.at = epoch + 10*time.Second
	p.set(t)
	p.want(t, "put again", udpFrom("192.0.2.7"), traffic.ReasonBlocklist, traffic.Dropped)
}

// TestMappedAddresses: an IPv4-mapped source in an IPv6 packet is an IPv6
// address, and no IPv4 entry touches it.
func TestMappedAddresses(t *testing.T) {
	p := newPair(t, packettest.Tunnels{})
	p.lists.Block = entries("0.0.0.0/0", "192.0.2.7/32")
	p.set(t)
	mapped := udpFrom("::ffff:192.0.2.7")
	got := p.want(t, "mapped source", mapped, traffic.ReasonPass, traffic.Passed)
	if got.Source != netip.MustParseAddr("::ffff:192.0.2.7") {
		t.Errorf("source %v", got.Source)
	}
	if err := p.program.Put(traffic.ListBlock, []traffic.Entry{{Prefix: netip.PrefixFrom(netip.MustParseAddr("::ffff:192.0.2.7"), 128)}}); err == nil {
		t.Error("an IPv4-mapped prefix was accepted")
	}
	p.lists.Block = entries("::/0")
	p.set(t)
	p.want(t, "mapped source, ::/0 blocked", mapped, traffic.ReasonBlocklist, traffic.Dropped)
	p.want(t, "IPv4 source, ::/0 blocked", udp4(), traffic.ReasonPass, traffic.Passed)
}

// TestUnspecifiedSources: 0.0.0.0 and :: are addresses like any other.
func TestUnspecifiedSources(t *testing.T) {
	p := newPair(t, packettest.Tunnels{})
	for _, source := range []string{"0.0.0.0", "::"} {
		p.lists = packettest.Lists{}
		p.set(t)
		p.want(t, source, udpFrom(source), traffic.ReasonPass, traffic.Passed)
		a := netip.MustParseAddr(source)
		p.lists.Block = []traffic.Entry{{Prefix: netip.PrefixFrom(a, a.BitLen())}}
		p.set(t)
		p.want(t, source+" blocked", udpFrom(source), traffic.ReasonBlocklist, traffic.Dropped)
		p.want(t, "another", udpFrom("192.0.2.7"), traffic.ReasonPass, traffic.Passed)
	}
}

// TestVerbs changes lists at random by Put, Remove and Replace, and after each
// change asks about sources in and around what is listed.
func TestVerbs(t *testing.T) {
	const seed = 8
	r := rand.New(rand.NewPCG(seed, seed))
	p := newPair(t, packettest.Tunnels{})
	now := map[traffic.List]map[netip.Prefix]traffic.Entry{0: {}, 1: {}, 2: {}}
	for range fewer(400, 8) {
		list := traffic.List(r.IntN(3))
		changes := randomNested(r, list == traffic.ListBlock)
		var err error
		switch r.IntN(4) {
		case 0, 1:
			err = p.program.Put(list, changes)
			put(now[list], changes)
		case 2:
			var gone []netip.Prefix
			for _, e := range changes {
				gone = append(gone, e.Prefix)
				delete(now[list], e.Prefix)
			}
			err = p.program.Remove(list, gone)
		case 3:
			now[list] = map[netip.Prefix]traffic.Entry{}
			put(now[list], changes)
			err = p.program.Replace(list, changes)
		}
		if err != nil {
			t.Fatal(err)
		}
		p.lists = packettest.Lists{Block: values(now[0]), Allow: values(now[1]), Protected: values(now[2]), Now: clock(p.at)}
		for range 40 {
			check(t, p, "after a change", udpFrom(nestedAddr(r).String()))
		}
	}
}

func put(m map[netip.Prefix]traffic.Entry, all []traffic.Entry) {
	for _, e := range all {
		m[e.Prefix] = e
	}
}

func values(m map[netip.Prefix]traffic.Entry) (all []traffic.Entry) {
	for _, e := range m {
		all = append(all, e)
	}
	return all
}

// nestedAddr returns one of few addresses, so that prefixes nest and repeat.
func nestedAddr(r *rand.Rand) netip.Addr {
	if r.IntN(2) == 0 {
		return netip.AddrFrom4([4]byte{192, 0, byte(r.IntN(2)), byte(r.IntN(4) * 64)})
	}
	a := netip.MustParseAddr("2001:db8::").As16()
	a[7], a[15] = byte(r.IntN(2)), byte(r.IntN(4)*64)
	return netip.AddrFrom16(a)
}

func randomNested(r *rand.Rand, block bool) (all []traffic.Entry) {
	seen := map[netip.Prefix]bool{}
	for range 1 + r.IntN(5) {
		a := nestedAddr(r)
		prefix, _ := a.Prefix(a.BitLen() - []int{0, 1, 7, 8, 9, 16, 24, 32}[r.IntN(8)])
		if seen[prefix] {
			continue
		}
		seen[prefix] = true
		e := traffic.Entry{Prefix: prefix, Forced: block && r.IntN(3) == 0}
		if r.IntN(3) == 0 {
			e.Expires = clock(epoch + time.Duration(r.IntN(3)-1)*time.Second)
		}
		all = append(all, e)
	}
	return all
}

// metered is a program with limits and nothing else.
func metered(t *testing.T, l traffic.Limits) *dataplane.Tester {
	t.Helper()
	return newTester(t, dataplane.Options{Limits: l})
}

func passes(t *testing.T, p *dataplane.Tester, frame []byte, at time.Duration) bool {
	t.Helper()
	v, err := p.Run(frame, epoch+at)
	if err != nil {
		t.Fatal(err)
	}
	if v.Outcome == traffic.Dropped && v.Reason != traffic.ReasonLimit {
		t.Fatalf("dropped with reason %v, want limit", v.Reason)
	}
	return v.Outcome != traffic.Dropped
}

// offer sends n packets spaced evenly and returns how many pass.
func offer(t *testing.T, p *dataplane.Tester, frame []byte, start, spacing time.Duration, n int) (passed int) {
	t.Helper()
	for i := range n {
		if passes(t, p, frame, start+time.Duration(i)*spacing) {
			passed++
		}
	}
	return passed
}

func between(t *testing.T, what string, got, low, high int) {
	t.Helper()
	if got < low || got > high {
		t.Errorf("%s: %d, want %d to %d", what, got, low, high)
	}
}

func classLimit(c traffic.Class, l traffic.Limit) (all traffic.Limits) {
	all.Class[c] = l
	all.AllowedFactor = 10
	return all
}

// TestRateOfPackets: what conforms passes whole, what exceeds is cut to rate
// times time plus the burst.
func TestRateOfPackets(t *testing.T) {
	for _, rate := range []int{1, 7, 100, fewer(3000, 10)} {
		limit := classLimit(traffic.ClassAll, traffic.Limit{Packets: uint64(rate), Burst: time.Second})
		p := metered(t, limit)
		between(t, "at exactly the rate", offer(t, p, udp4(), 0, time.Second/time.Duration(rate), 3*rate+10), 3*rate+10, 3*rate+10)
		p = metered(t, limit)
		n := 6 * rate * 4 // four times the rate for 6 s: 6 s of rate and 1 s of burst pass
		between(t, "at four times the rate", offer(t, p, udp4(), 0, time.Second/time.Duration(4*rate), n), 7*rate-1, 7*rate+2)
	}
}

// TestBurst: after silence a source may send at once what the rate allows in
// the time of the burst, not more for a longer silence.
func TestBurst(t *testing.T) {
	p := metered(t, classLimit(traffic.ClassAll, traffic.Limit{Packets: 1000, Burst: 50 * time.Millisecond}))
	between(t, "first burst", offer(t, p, udp4(), 0, 0, 500), 50, 52)
	between(t, "right behind it", offer(t, p, udp4(), 0, 0, 100), 0, 0)
	between(t, "after 10 ms", offer(t, p, udp4(), 10*time.Millisecond, 0, 100), 9, 11)
	between(t, "after an hour", offer(t, p, udp4(), time.Hour, 0, 500), 50, 52)
	between(t, "after a year", offer(t, p, udp4(), 365*24*time.Hour, 0, 500), 50, 52)
}

// TestClockBack: a clock that steps back neither opens the meter nor shuts it for good.
func TestClockBack(t *testing.T) {
	p := metered(t, classLimit(traffic.ClassAll, traffic.Limit{Packets: 1000, Burst: 50 * time.Millisecond}))
	offer(t, p, udp4(), time.Second, 0, 100)
	between(t, "a second back, bucket full", offer(t, p, udp4(), 0, 0, 100), 0, 1)
	between(t, "a second on", offer(t, p, udp4(), 2*time.Second, 0, 500), 50, 52)
}

// TestRateOfBytes: bytes of whole frames, large and small alike.
func TestRateOfBytes(t *testing.T) {
	for _, size := range []int{0, 400, 1400} {
		frame := packettest.Build(packettest.Ethernet(layers.EthernetTypeIPv4), packettest.IPv4(layers.IPProtocolUDP), packettest.UDP(), packettest.Data(size))
		p := metered(t, classLimit(traffic.ClassAll, traffic.Limit{Bytes: 100_000, Burst: 100 * time.Millisecond}))
		passed := offer(t, p, frame, 0, 100*time.Microsecond, 10_000) // one second
		want := 110_000 / len(frame)
		between(t, "frames", passed, want-2, want+3)
	}
}

// TestClasses: each class is limited by itself, counts for all as well, and the
// others go free.
func TestClasses(t *testing.T) {
	syn := func(six bool) []byte {
		if six {
			return packettest.Build(packettest.Ethernet(layers.EthernetTypeIPv6), packettest.IPv6(layers.IPProtocolTCP), packettest.SYN())
		}
		return packettest.Build(packettest.Ethernet(layers.EthernetTypeIPv4), packettest.IPv4(layers.IPProtocolTCP), packettest.SYN())
	}
	synack := with(syn(false), put8(atL4+13, 0x12))
	sctp := packettest.Build(packettest.Ethernet(layers.EthernetTypeIPv4), packettest.IPv4(layers.IPProtocolSCTP), packettest.Data(32))
	packets := []struct {
		name  string
		frame []byte
		class traffic.Class
	}{
		{"SYN", syn(false), traffic.ClassSYN},
		{"SYN over IPv6", syn(true), traffic.ClassSYN},
		{"SYN with ECE and CWR", with(syn(false), put8(atL4+13, 0xc2)), traffic.ClassSYN},
		{"SYN-ACK", synack, traffic.ClassAll},
		{"TCP data", tcp4(), traffic.ClassAll},
		{"SCTP", sctp, traffic.ClassAll},
		{"UDP", udp4(), traffic.ClassUDP},
		{"UDP over IPv6", udp6(), traffic.ClassUDP},
		{"later fragment of UDP", packettest.Fragments(udp4(), 24)[1], traffic.ClassUDP},
		{"later fragment of UDP over IPv6", packettest.Fragments(udp6(), 24)[1], traffic.ClassUDP},
		{"ICMP", icmp4(), traffic.ClassICMP},
		{"ICMPv6", icmp6(), traffic.ClassICMP},
		{"SYN behind options", must(packettest.InsertOption(syn(false), 10)), traffic.ClassSYN},
		{"UDP behind extension headers", manyExtensions(udp6(), 8), traffic.ClassUDP},
		{"tagged ICMP", tagged(icmp4(), 0x8100, 0x88a8), traffic.ClassICMP},
	}
	for class := range traffic.NumClasses {
		p := metered(t, classLimit(class, traffic.Limit{Packets: 10, Burst: time.Second}))
		for i, c := range packets {
			passed := offer(t, p, c.frame, time.Duration(i)*time.Hour, 0, 50) // by then all buckets are empty
			if class == traffic.ClassAll || class == c.class {
				between(t, c.name+" under a limit of "+class.String(), passed, 10, 12)
			} else {
				between(t, c.name+" under a limit of "+class.String(), passed, 50, 50)
			}
		}
	}
}

// TestClassesTogether: a packet that one bucket refuses takes nothing from the others.
func TestClassesTogether(t *testing.T) {
	var l traffic.Limits
	l.Class[traffic.ClassAll] = traffic.Limit{Packets: 100, Burst: time.Second}
	l.Class[traffic.ClassUDP] = traffic.Limit{Packets: 10, Burst: time.Second}
	p := metered(t, l)
	between(t, "UDP", offer(t, p, udp4(), 0, 0, 1000), 10, 12)
	between(t, "the rest of all", offer(t, p, tcp4(), 0, 0, 1000), 88, 92)
	between(t, "nothing is left", offer(t, p, tcp4(), 0, 0, 100), 0, 0)
}

// TestSources: every IPv4 address and every IPv6 /64 has buckets of its own.
func TestSources(t *testing.T) {
	p := metered(t, classLimit(traffic.ClassAll, traffic.Limit{Packets: 10, Burst: time.Second}))
	for _, source := range []string{"192.0.2.1", "192.0.2.2", "198.51.100.1", "2001:db8::1", "2001:db8:0:1::1", "::ffff:192.0.2.9", "0.0.0.0"} {
		between(t, source, offer(t, p, udpFrom(source), 0, 0, 50), 10, 12)
	}
	between(t, "another host of the same /64", offer(t, p, udpFrom("2001:db8::2"), 0, 0, 50), 0, 0)
	between(t, "the last host of the same /64", offer(t, p, udpFrom("2001:db8::ffff:ffff:ffff:ffff"), 0, 0, 50), 0, 0)
	between(t, "IPv4 whose bits are those of an IPv6 prefix", offer(t, p, udpFrom("32.1.13.184"), 0, 0, 50), 10, 12)
	between(t, "192.0.2.1 again", offer(t, p, udpFrom("192.0.2.1"), 0, 0, 50), 0, 0)
}

// TestAllowedFactor: allowed and protected sources have the factor, others not, 0 sets them free.
func TestAllowedFactor(t *testing.T) {
	for _, factor := range []uint64{0, 1, 5} {
		l := classLimit(traffic.ClassAll, traffic.Limit{Packets: 10, Burst: time.Second})
		l.AllowedFactor = factor
		p := metered(t, l)
		put := func(list traffic.List, prefix string) {
			if err := p.Put(list, entries(prefix)); err != nil {
				t.Fatal(err)
			}
		}
		put(traffic.ListAllow, "192.0.2.0/24")
		put(traffic.ListProtected, "2001:db8::/32")
		for _, source := range []string{"192.0.2.7", "2001:db8::7"} {
			low, high := 10*int(factor), 10*int(factor)+2
			if factor == 0 {
				low, high = 500, 500
			}
			passed := 0
			for range 500 {
				v, err := p.Run(udpFrom(source), epoch)
				if err != nil {
					t.Fatal(err)
				}
				if v.Outcome == traffic.Passed {
					passed++
				}
			}
			between(t, source, passed, low, high)
		}
		between(t, "another source", offer(t, p, udpFrom("198.51.100.7"), 0, 0, 50), 10, 12)
	}
}

// TestWhatIsNotMetered: what ends before the meter takes nothing from it, and
// neighbour discovery and frames without a source are never limited.
func TestWhatIsNotMetered(t *testing.T) {
	p := metered(t, classLimit(traffic.ClassAll, traffic.Limit{Packets: 1, Burst: 1}))
	for _, frame := range [][]byte{
		packettest.Neighbour(135), with(udp4(), put16(atType, 0x0806)), packettest.Cut(udp4(), 20),
	} {
		for range 20 {
			v, err := p.Run(frame, epoch)
			if err != nil || v.Outcome != traffic.Passed {
				t.Fatalf("%v %v %v", v.Reason, v.Outcome, err)
			}
		}
	}
	if err := p.Put(traffic.ListBlock, entries("192.0.2.7/32")); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		if v, err := p.Run(udp4(), epoch); err != nil || v.Reason != traffic.ReasonBlocklist {
			t.Fatalf("%v %v", v.Reason, err)
		}
	}
	if err := p.Remove(traffic.ListBlock, []netip.Prefix{netip.MustParsePrefix("192.0.2.7/32")}); err != nil {
		t.Fatal(err)
	}
	if !passes(t, p, udp4(), 0) || passes(t, p, udp4(), 0) {
		t.Error("blocked packets were metered, or the meter is off")
	}
}

// TestLimitKeepsTheAnomaly: an anomaly that its policy lets pass is still the
// packet's reason, unless the meter drops it.
func TestLimitKeepsTheAnomaly(t *testing.T) {
	p := metered(t, classLimit(traffic.ClassAll, traffic.Limit{Packets: 1, Burst: 1}))
	bad := with(tcp4(), put8(atL4+13, 0))
	for i, want := range []traffic.Reason{traffic.ReasonBadTCPFlags, traffic.ReasonLimit} {
		v, err := p.Run(bad, epoch)
		if err != nil || v.Reason != want {
			t.Errorf("packet %d: %v %v, want %v", i, v.Reason, err, want)
		}
	}
}

// TestLimitsChange: limits put in force later count from then on, and none set all free.
func TestLimitsChange(t *testing.T) {
	p := metered(t, traffic.Limits{})
	between(t, "no limit", offer(t, p, udp4(), 0, 0, 1000), 1000, 1000)
	if err := p.SetLimits(classLimit(traffic.ClassUDP, traffic.Limit{Packets: 10, Burst: time.Second})); err != nil {
		t.Fatal(err)
	}
	between(t, "limit", offer(t, p, udp4(), 0, 0, 1000), 10, 12)
	if err := p.SetLimits(traffic.Limits{}); err != nil {
		t.Fatal(err)
	}
	between(t, "no limit again", offer(t, p, udp4(), 0, 0, 1000), 1000, 1000)
}
