// SPDX-License-Identifier: Apache-2.0

package scene

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"math"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/sentinel-x/sentinel-x/internal/dataplane/packettest"
	"github.com/sentinel-x/sentinel-x/internal/signature"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

var (
	target4 = netip.MustParseAddr("198.51.100.7")
	target6 = netip.MustParseAddr("2001:db8:1::7")
)

// short are scenarios of every family, attacks at 2×, small enough to be looked at packet by packet.
func short(t *testing.T, seed uint64) []Scenario {
	t.Helper()
	list, err := Catalogue(CatalogueOptions{
		Seed: seed, Draws: 2, Ratios: []float64{2}, Low: 300, High: 600, IPv6: .4,
		Lead: 500 * time.Millisecond, Hold: time.Second, Tail: 500 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(list) < 2*len(Families()) {
		t.Fatalf("%d scenarios for %d families", len(list), len(Families()))
	}
	return list
}

func open(t *testing.T, s *Scenario) Stream {
	t.Helper()
	stream, err := s.Stream()
	if err != nil {
		t.Fatal(err)
	}
	return stream
}

func digest(s Stream) (sum uint64, n int) {
	h := fnv.New64a()
	var head [8]byte
	for p := range All(s) {
		binary.BigEndian.PutUint64(head[:], uint64(p.Time)<<1|bit(p.Attack, 0))
		h.Write(head[:])
		h.Write(p.Frame)
		n++
	}
	return h.Sum64(), n
}

func TestSameSeedSamePackets(t *testing.T) {
	all := map[uint64]string{}
	for _, s := range short(t, 1) {
		first, n := digest(open(t, &s))
		if again, m := digest(open(t, &s)); again != first || m != n {
			t.Errorf("%s: composed twice, %d and %d packets that differ", s.Name, n, m)
		}
		if n == 0 || all[first] != "" {
			t.Errorf("%s: %d packets, the same as %q", s.Name, n, all[first])
		}
		all[first] = s.Name
		s.Seed++
		if other, _ := digest(open(t, &s)); other == first {
			t.Errorf("%s: another seed makes the same packets", s.Name)
		}
	}
}

// Every frame is in order, is one that gopacket reads back as it was meant, and has right checksums.
func TestFramesAreValid(t *testing.T) {
	for _, s := range short(t, 2) {
		var last time.Duration
		broken := 0
		for p := range All(open(t, &s)) {
			if p.Time < last || p.Time >= s.Length {
				t.Fatalf("%s: a packet at %v behind one at %v, the scene lasts %v", s.Name, p.Time, last, s.Length)
			}
			last = p.Time
			if p.Attack && (!s.Attack() || p.Time < s.Onset || p.Time > s.End+100*time.Millisecond) {
				t.Fatalf("%s: an attack's packet at %v", s.Name, p.Time)
			}
			if err := checkFrame(p.Frame); err != nil {
				if broken++; broken < 3 {
					t.Errorf("%s at %v: %v\n% x", s.Name, p.Time, err, p.Frame[:min(len(p.Frame), 80)])
				}
			}
		}
	}
}

// checkFrame decodes a frame and compares its checksums with those gopacket computes.
func checkFrame(frame []byte) error {
	if len(frame) < minFrame || len(frame) > etherSize+maxIP {
		return fmt.Errorf("a frame of %d bytes", len(frame))
	}
	g := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.NoCopy)
	var f fields
	f.parse(frame)
	network := g.NetworkLayer()
	if network == nil || !f.ok {
		return fmt.Errorf("no IP header: %v", g.ErrorLayer())
	}
	if ip, ok := network.(*layers.IPv4); ok {
		if got, want := ip.Checksum, onesComplement(ip.Contents, 10); got != want {
			return fmt.Errorf("IPv4 checksum %#x, want %#x", got, want)
		}
	}
	if f.fragment != 0 { // its checksum is that of a datagram: TestFragmentsMakeDatagrams
		return nil
	}
	if e := g.ErrorLayer(); e != nil && (f.protocol == protoTCP || f.protocol == protoUDP || f.protocol == protoICMP) {
		if l := g.TransportLayer(); l == nil && f.protocol != protoICMP { // what lies behind is nobody's protocol
			return fmt.Errorf("not decoded: %w", e.Error())
		}
	}
	return checkTransport(&f, frame)
}

// checkTransport sums up pseudo header and segment.
func checkTransport(f *fields, frame []byte) error {
	end := etherSize + int(f.length)
	var pseudo, segment []byte
	if f.src.six {
		pseudo = slices.Clone(frame[etherSize+8 : etherSize+40])
		segment = frame[etherSize+40 : end]
	} else {
		pseudo = slices.Clone(frame[etherSize+12 : etherSize+20])
		segment = frame[etherSize+20 : end]
	}
	pseudo = binary.BigEndian.AppendUint16(pseudo, uint16(f.protocol))
	pseudo = binary.BigEndian.AppendUint16(pseudo, uint16(len(segment)))
	at := map[uint8]int{protoTCP: 16, protoUDP: 6, protoICMP: 2, protoICMPv6: 2}[f.protocol]
	if at == 0 {
		return nil
	}
	if f.protocol == protoICMP {
		pseudo = nil
	}
	whole := append(pseudo, segment...)
	got, want := binary.BigEndian.Uint16(segment[at:]), onesComplement(whole, len(pseudo)+at)
	if want == 0 && f.protocol == protoUDP {
		want = 0xffff
	}
	if got != want {
		return fmt.Errorf("protocol %d checksum %#x, want %#x", f.protocol, got, want)
	}
	return nil
}

// onesComplement is the Internet checksum of b with the two bytes at skip taken as 0.
func onesComplement(b []byte, skip int) uint16 {
	var s uint32
	for i := 0; i < len(b); i += 2 {
		w := uint32(b[i]) << 8
		if i+1 < len(b) {
			w |= uint32(b[i+1])
		}
		if i != skip {
			s += w
		}
	}
	for s>>16 != 0 {
		s = s&0xffff + s>>16
	}
	return ^uint16(s)
}

// The fragments of an amplifier's long answers, put together, are a datagram with a right checksum.
func TestFragmentsMakeDatagrams(t *testing.T) {
	for _, target := range []netip.Addr{target4, target6} {
		s := Scenario{
			Family: "amplification_cldap", Kind: traffic.KindAmplification, Profile: "web", Target: target,
			Onset: 0, End: 500 * time.Millisecond, Length: time.Second, Ratio: 10, Baseline: 300, Seed: 4,
		}
		stream, err := s.Event()
		if err != nil {
			t.Fatal(err)
		}
		var datagram []byte
		var first fields
		whole := 0
		for p := range All(stream) {
			var f fields
			f.parse(p.Frame)
			body := p.Frame[etherSize+int(f.length)-f.payload : etherSize+int(f.length)]
			switch f.fragment {
			case 1:
				first, datagram = f, slices.Clone(body)
				continue
			case 2:
				datagram = append(datagram, body...)
			}
			if f.fragment == 0 || f.src != first.src || len(datagram) < int(binary.BigEndian.Uint16(datagram[4:])) {
				continue
			}
			var pseudo [40]byte
			f.src.put(pseudo[:])
			f.dst.put(pseudo[16:])
			b := binary.BigEndian.AppendUint16(slices.Clone(pseudo[:]), protoUDP)
			b = binary.BigEndian.AppendUint16(b, uint16(len(datagram)))
			b = append(b, datagram...)
			if got, want := binary.BigEndian.Uint16(datagram[6:]), onesComplement(b, 44+6); got != want {
				t.Fatalf("%v: a datagram of %d bytes has checksum %#x, want %#x", target, len(datagram), got, want)
			}
			whole++
		}
		if whole < 50 {
			t.Errorf("%v: only %d datagrams in fragments", target, whole)
		}
	}
}

// measure counts a scene of a target.
func measure(t *testing.T, s *Scenario, stream Stream) (before, during traffic.Tally, attack uint64) {
	t.Helper()
	interfaceOnly := []traffic.Target{{Scope: traffic.TargetInterface}}
	start := time.Unix(1e9, 0)
	for w, n := range Windows(stream, CounterOptions{Targets: interfaceOnly, Start: start, Length: s.Length}) {
		at := w.Start.Sub(start)
		switch {
		case at+traffic.Tick <= s.Onset:
			before.Add(&w.Tally)
		case at >= s.Onset && at+traffic.Tick <= s.End:
			during.Add(&w.Tally)
		}
		attack += n
	}
	return before, during, attack
}

// Every family of attacks is what it says: its rate is the ratio's, and its packets are of its kind.
func TestAttacksAreWhatTheySay(t *testing.T) {
	share := func(n, of uint64) float64 { return float64(n) / float64(max(of, 1)) }
	kinds := map[traffic.Kind]func(*traffic.Tally) float64{
		traffic.KindSYNFlood:        func(c *traffic.Tally) float64 { return share(c.SYN, c.Packets) },
		traffic.KindACKFlood:        func(c *traffic.Tally) float64 { return share(c.TCP-c.SYN, c.Packets) },
		traffic.KindUDPFlood:        func(c *traffic.Tally) float64 { return share(c.UDP, c.Packets) },
		traffic.KindICMPFlood:       func(c *traffic.Tally) float64 { return share(c.ICMP, c.Packets) },
		traffic.KindFragmentFlood:   func(c *traffic.Tally) float64 { return share(c.Fragments, c.Packets) },
		traffic.KindConnectionFlood: func(c *traffic.Tally) float64 { return share(c.TCP, c.Packets) },
		traffic.KindOther:           func(c *traffic.Tally) float64 { return share(c.Other+c.Malformed+c.TCP, c.Packets) },
		traffic.KindAmplification:   func(c *traffic.Tally) float64 { return share(c.UDP-c.Reflections[0]+c.Fragments, c.Packets) },
		traffic.KindCarpet:          func(*traffic.Tally) float64 { return 1 },
	}
	list, err := Catalogue(CatalogueOptions{
		Seed: 3, Draws: 3, Ratios: []float64{.5, 10}, Low: 800, High: 1200,
		Lead: 200 * time.Millisecond, Hold: 5 * time.Second, Tail: 200 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range list {
		if !s.Attack() {
			continue
		}
		stream, err := s.Event()
		if err != nil {
			t.Fatal(err)
		}
		before, during, attack := measure(t, &s, stream)
		if before.Packets != 0 || attack == 0 {
			t.Errorf("%s: %d packets before the onset, %d of the attack", s.Name, before.Packets, attack)
		}
		rate := share(during.Packets, 1) / (s.End - s.Onset).Seconds() / (s.Ratio * s.Local())
		switch {
		case s.Shape() != nil:
			if rate > 1.1 {
				t.Errorf("%s: %.2f of its height on average", s.Name, rate)
			}
		case s.Kind == traffic.KindConnectionFlood && (rate < .5 || rate > 1.1), // it takes a while until the first ones end
			s.Kind != traffic.KindConnectionFlood && (rate < .85 || rate > 1.15):
			t.Errorf("%s: %.2f of the rate it says", s.Name, rate)
		}
		if s.Family != "mixed" && kinds[s.Kind](&during) < .9 {
			t.Errorf("%s: only %.2f of its packets are of a %s: %+v", s.Name, kinds[s.Kind](&during), s.Kind, during)
		}
		if s.Kind == traffic.KindAmplification && (s.Protocol == "" || services[0].name != "dns") {
			t.Errorf("%s: no protocol", s.Name)
		}
	}
}

func TestSpoofedSYNsHaveNoOptions(t *testing.T) {
	for family, want := range map[string]bool{"syn_spoofed": true, "syn_botnet": true, "syn_options": false} {
		s := Scenario{Family: family, Kind: traffic.KindSYNFlood, Profile: "web", Target: target4, End: time.Second, Length: time.Second, Ratio: 10, Baseline: 500, Seed: 9}
		stream, err := s.Event()
		if err != nil {
			t.Fatal(err)
		}
		_, during, _ := measure(t, &s, stream)
		if bare := during.SYNNoOptions == during.SYN; bare != want || during.SYN == 0 || !want && during.SYNNoOptions > 0 {
			t.Errorf("%s: of %d SYNs %d without options", family, during.SYN, during.SYNNoOptions)
		}
	}
}

// Normal traffic has the rate it is given, over the hours of a week too, and none of what only attacks have.
func TestNormalTraffic(t *testing.T) {
	for _, p := range Profiles {
		for a := range numArrivals {
			n := Normal{Profile: p, Targets: []netip.Addr{target4, target6}, IPv6: .3, Rate: 600, Arrival: a, Seed: 11, Begin: 10 * time.Hour}
			n.Profile.Week = Week{}
			s, err := n.Stream()
			if err != nil {
				t.Fatal(err)
			}
			scenario := Scenario{Onset: 40 * time.Second, End: 80 * time.Second, Length: 80 * time.Second}
			first, second, attack := measure(t, &scenario, s)
			name := fmt.Sprint(p.Name, " ", a)
			rate := float64(first.Packets+second.Packets) / 80 / n.Rate
			if math.Abs(math.Log(rate)) > math.Log(2) {
				t.Errorf("%s: %.2f of the rate asked for", name, rate)
			}
			if r := float64(first.Packets) / float64(second.Packets); r < .4 || r > 2.5 {
				t.Errorf("%s: the first half has %.2f of the packets of the second", name, r)
			}
			if p.Large > 0 && first.Fragments == 0 || p.Tunnels > 0 && first.Other*20 < first.Packets {
				t.Errorf("%s: no fragments, or nothing but TCP and UDP: %+v", name, first)
			}
			if attack != 0 || first.SYNNoOptions*50 > first.Packets || first.Malformed*200 > first.Packets || first.Fragments*50 > first.Packets {
				t.Errorf("%s: looks like an attack: %+v", name, first)
			}
		}
	}
}

// Over many seeds the average rate is the one asked for: bursts do not add to it.
func TestRateOnAverage(t *testing.T) {
	web, err := ProfileNamed("web")
	if err != nil {
		t.Fatal(err)
	}
	web.Week = Week{}
	for a := range numArrivals {
		total := 0
		const seeds, seconds = 40, 10
		for seed := range uint64(seeds) {
			s, err := Normal{Profile: web, Targets: []netip.Addr{target4}, Rate: 500, Arrival: a, Seed: seed}.Stream()
			if err != nil {
				t.Fatal(err)
			}
			for range All(Until(s, seconds*time.Second)) {
				total++
			}
		}
		if rate := float64(total) / seeds / seconds; math.Abs(rate-500) > 40 {
			t.Errorf("%v: %.0f packets/s on average, want 500", a, rate)
		}
	}
}

func TestWeek(t *testing.T) {
	w := Week{Swing: 4, Weekend: .5}
	var sum float64
	f := w.factors()
	for _, x := range f {
		sum += x
	}
	if math.Abs(sum-hoursOfWeek) > 1e-9 {
		t.Errorf("the factors add up to %v", sum)
	}
	if r := f[20] / f[8]; math.Abs(r-4) > 1e-9 {
		t.Errorf("the evening has %v times the packets of the morning", r)
	}
	if r := f[5*24+20] / f[20]; math.Abs(r-.5) > 1e-9 {
		t.Errorf("Saturday has %v times the packets of Monday", r)
	}
	s := season{hours: f, first: 19*time.Hour + 30*time.Minute}
	if got, want := s.at(0), (f[19]+f[20])/2; math.Abs(got-want) > 1e-9 {
		t.Errorf("at half past: %v, want %v", got, want)
	}
}

// What nothing may happen at is as loud as it says, and complete handshakes.
func TestCalmFamilies(t *testing.T) {
	list, err := Catalogue(CatalogueOptions{
		Seed: 5, Low: 500, High: 800, Lead: 3 * time.Second, Hold: 10 * time.Second, Tail: time.Second,
		Families: []string{"normal", "flash_crowd", "reconnect_storm", "download", "backup", "nat_users", "resolver_answers", "monitoring", "port_scan"},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range list {
		before, during, attack := measure(t, &s, open(t, &s))
		if attack != 0 || s.Attack() {
			t.Errorf("%s: %d packets of an attack", s.Name, attack)
		}
		calm := float64(before.Packets) / s.Onset.Seconds()
		grown := float64(during.Packets)/(s.End-s.Onset).Seconds()/calm - 1
		if s.Family != "normal" && s.Ratio >= 2 && (grown < s.Ratio*.05 || grown > s.Ratio*6) {
			t.Errorf("%s: %.1f times the baseline are added", s.Name, grown)
		}
		if s.Family == "flash_crowd" && during.SYNNoOptions*100 > during.Packets {
			t.Errorf("%s: %d of %d packets are SYNs without options", s.Name, during.SYNNoOptions, during.Packets)
		}
	}
}

// In a flash crowd, who begins a connection also finishes its handshake.
func TestFlashCrowdShakesHands(t *testing.T) {
	s := Scenario{
		Family: "flash_crowd", Profile: "web", Target: target4, Onset: 0, End: 20 * time.Second,
		Length: 40 * time.Second, Ratio: 5, Baseline: 400, Seed: 21,
	}
	stream, err := s.Event()
	if err != nil {
		t.Fatal(err)
	}
	type key struct {
		src  address
		port uint16
	}
	opened, done := map[key]bool{}, map[key]bool{}
	var f fields
	for p := range All(Until(stream, s.Length)) {
		f.parse(p.Frame)
		k := key{f.src, f.sport}
		switch {
		case f.protocol != protoTCP:
		case f.flags&(flagSYN|flagACK) == flagSYN:
			if p.Time < 30*time.Second {
				opened[k] = true
			}
		case f.flags&flagACK != 0 && opened[k]:
			done[k] = true
		}
	}
	if len(opened) < 100 || len(done)*100 < len(opened)*97 {
		t.Errorf("of %d connections %d were finished", len(opened), len(done))
	}
}

func TestMerge(t *testing.T) {
	var streams []Stream
	for i := range 20 {
		f := &flood{rng: newRNG(uint64(i), "m"), rate: 1000, end: 1e9, vectors: []vector{noisePing}, target: func(*rng) address { return addressOf(target4) }}
		streams = append(streams, f.begin())
	}
	var last time.Duration
	n := 0
	for p := range All(tournament(streams)) {
		if p.Time < last {
			t.Fatalf("%v behind %v", p.Time, last)
		}
		last = p.Time
		n++
	}
	if n < 19000 || n > 21000 {
		t.Errorf("%d packets of 20 streams of 1000", n)
	}
	if Merge().Next(new(Packet)) {
		t.Error("a packet of no stream")
	}
}

// A scene in lapses has the same packets as one without, at the times that are played.
func TestLapse(t *testing.T) {
	web, _ := ProfileNamed("web")
	web.Week = Week{}
	n := Normal{Profile: web, Targets: []netip.Addr{target4}, Rate: 500, Seed: 3}
	whole, err := n.Stream()
	if err != nil {
		t.Fatal(err)
	}
	n.Lapse = Lapse{Play: 2 * time.Second, Period: time.Minute}
	lapsed, err := n.Stream()
	if err != nil {
		t.Fatal(err)
	}
	var p, q Packet
	count := 0
	for lapsed.Next(&q) && q.Time < 10*time.Minute {
		if !whole.Next(&p) || !bytes.Equal(p.Frame, q.Frame) {
			t.Fatal("another packet")
		}
		if n.Lapse.Skips(q.Time) || n.Lapse.played(int64(q.Time)) != int64(p.Time) {
			t.Fatalf("%v is played at %v", p.Time, q.Time)
		}
		count++
	}
	if count < 6000 || count > 16000 {
		t.Errorf("%d packets in 20 s", count)
	}
	ticks := 0
	again, _ := n.Stream()
	for w := range Windows(again, CounterOptions{Targets: []traffic.Target{traffic.HostTarget(target4)}, Length: 10 * time.Minute, Lapse: n.Lapse}) {
		ticks++
		if w.Packets == 0 {
			t.Errorf("nothing in the window of %v", w.Start)
		}
	}
	if ticks != 200 {
		t.Errorf("%d windows, want 200", ticks)
	}
}

// The populations' clients are public addresses in clusters, with TTLs of real systems.
func TestPopulation(t *testing.T) {
	p := newPeople(DefaultPopulation(2000), 8)
	r := newRNG(1, "test")
	sources, nets := map[address]int{}, map[address]int{}
	for range 20000 {
		c := p.draw(&r, false)
		a := c.addr.netip()
		if !a.IsGlobalUnicast() || a.IsPrivate() {
			t.Fatalf("%v is no client's address", a)
		}
		if c.ttl < 32 || c.ttl > 64 && c.ttl < 96 || c.ttl > 128 && c.ttl < 220 || c.ttl == 255 {
			t.Fatalf("a TTL of %d", c.ttl)
		}
		sources[c.addr]++
		nets[c.addr.network()]++
	}
	if len(sources) < 1500 || len(sources) > 6000 || len(nets)*10 > len(sources)*9 {
		t.Errorf("%d sources in %d networks", len(sources), len(nets))
	}
	six := p.draw(&r, true).addr.netip()
	if !netip.MustParsePrefix("2000::/3").Contains(six) {
		t.Errorf("%v is no client's address", six)
	}
}

// The fields that windows count are those of the packet path's oracle, for every packet of every family
// and for packets of no family, damaged ones.
func TestParseAgreesWithOracle(t *testing.T) {
	decoder := packettest.NewDecoder(packettest.Tunnels{})
	r := newRNG(6, "damage")
	for _, s := range short(t, 7) {
		for p := range All(open(t, &s)) {
			frame := slices.Clone(p.Frame)
			if r.chance(.5) {
				for range r.between(1, 3) {
					frame[r.between(12, min(len(frame)-1, 60))] ^= 1 << r.intn(8)
				}
			}
			if r.chance(.2) {
				frame = frame[:r.intn(len(frame))]
			}
			if err := agree(decoder, frame); err != nil {
				t.Fatalf("%s: %v\n% x", s.Name, err, frame)
			}
		}
	}
}

func agree(d *packettest.Decoder, frame []byte) error {
	var f fields
	f.parse(frame)
	want := d.Decode(frame)
	if f.ok != want.IP {
		return fmt.Errorf("IP %v, want %v", f.ok, want.IP)
	}
	if !f.ok {
		return nil
	}
	if f.src.netip() != want.Source || f.dst.netip() != want.Destination || f.protocol != want.Protocol || f.ttl != want.TTL ||
		f.sport != want.SourcePort || f.dport != want.DestPort || f.flags != want.TCPFlags ||
		f.fragment != uint8(want.Fragment) || f.wrong != (want.Anomaly != traffic.ReasonPass) {
		return fmt.Errorf("%+v, want %+v", f, want)
	}
	rules := []struct {
		field signature.Field
		got   int
	}{
		{signature.Length, int(f.length)}, {signature.DataOffset, int(f.dataOffset)}, {signature.Window, int(f.window)}, {signature.DF, int(bit(f.df, 0))},
	}
	for _, r := range rules {
		if v := int(want.Rules.Values[r.field]); v != r.got && (v >= 0 || r.got != 0) && v <= 65535 {
			return fmt.Errorf("%v is %d, want %d", r.field, r.got, v)
		}
	}
	return nil
}

// A window's counts, written out by hand for one packet after the other.
func TestWindows(t *testing.T) {
	var b builder
	list := []header{
		{protocol: protoTCP, flags: flagSYN, dataOffset: 5, ttl: 60, sport: 1000, dport: 80, length: 40},
		{protocol: protoTCP, flags: flagSYN, dataOffset: 10, ttl: 60, sport: 1000, dport: 80, length: 160},
		{protocol: protoTCP, flags: flagSYN | flagACK, dataOffset: 6, ttl: 60, sport: 80, dport: 1000},
		{protocol: protoTCP, flags: flagACK, dataOffset: 5, ttl: 60, sport: 1000, dport: 80},
		{protocol: protoTCP, flags: flagACK | flagPSH, dataOffset: 5, ttl: 60, sport: 1000, dport: 80, length: 1500},
		{protocol: protoTCP, flags: flagACK | flagFIN, dataOffset: 5, ttl: 60, sport: 1000, dport: 80},
		{protocol: protoTCP, flags: flagRST, dataOffset: 5, ttl: 60, sport: 1000, dport: 80},
		{protocol: protoUDP, ttl: 60, sport: 53, dport: 80, length: 200},
		{protocol: protoUDP, ttl: 60, sport: 53, dport: 80, length: 1500, more: true},
		{protocol: protoUDP, ttl: 60, offset: 1480, length: 600},
		{protocol: protoICMP, kind: 8, ttl: 0, length: 84},
		{protocol: protoGRE, ttl: 60, length: 300},
	}
	var packets []Packet
	for i, h := range list {
		h.src, h.dst = address{lo: 0xc0000201 + uint64(i%2)}, addressOf(target4)
		packets = append(packets, Packet{Time: time.Duration(i) * time.Millisecond, Frame: slices.Clone(b.build(&h)), Attack: i == 0})
	}
	packets = append(packets, Packet{Time: 100 * time.Millisecond, Frame: packets[0].Frame})
	targets := []traffic.Target{
		traffic.HostTarget(target4), traffic.NetworkTarget(target4), {Scope: traffic.TargetInterface}, traffic.HostTarget(target6),
	}
	seeds := traffic.Seeds{Source: 1, SourceNet: 2, SourcePort: 3, DestPort: 4, Fingerprint: 5}
	var got []traffic.Window
	var attack []uint64
	start := time.Unix(1e9, 0)
	for w, n := range Windows(&fixed{packets}, CounterOptions{Targets: targets, Seeds: seeds, Start: start, Length: 250 * time.Millisecond, Samples: 5}) {
		c := *w
		c.Samples = slices.Clone(w.Samples)
		got, attack = append(got, c), append(attack, n)
	}
	if len(got) != 8 || attack[0] != 1 || attack[4] != 0 {
		t.Fatalf("%d windows, %v of attacks", len(got), attack)
	}
	w := got[0]
	want := traffic.Tally{
		Packets: 12, TCP: 7, UDP: 3, ICMP: 1, Other: 1, SYN: 2, SYNNoOptions: 1, SYNACK: 1, ACK: 1, RST: 1, FIN: 1, TCPData: 1,
		Fragments: 2, Malformed: 1, Sizes: [traffic.NumSizeClasses]uint64{5, 1, 2, 1, 1, 0, 2},
	}
	want.Reflections[traffic.ReflectionDNS], want.Reflections[traffic.ReflectionNone] = 2, 1
	for _, p := range packets[:12] {
		want.Bytes += uint64(len(p.Frame))
	}
	if w.Tally != want {
		t.Errorf("got  %+v\nwant %+v", w.Tally, want)
	}
	if got[1].Tally != want || got[2].Tally != want || got[3].Packets != 0 || got[4].Packets != 1 || got[4].Start != start.Add(traffic.Tick) {
		t.Errorf("network %d, interface %d, other host %d, next tick %d packets at %v", got[1].Packets, got[2].Packets, got[3].Packets, got[4].Packets, got[4].Start)
	}
	if h := w.Histograms; h.Counted != 12 || h.Sources[traffic.Bin(1, 0xc0000201, traffic.SourceBins)] != 6 ||
		h.SourceNets[traffic.Bin(2, 0xc00002, traffic.SourceNetBins)] != 12 || h.DestPorts[traffic.Bin(4, 80, traffic.DestPortBins)] != 8 ||
		h.TTLs[0] != 1 || h.TTLs[15] != 11 || h.Lengths[62] != 2 || h.Lengths[1] != 5 {
		t.Errorf("histograms %+v", h)
	}
	if len(w.Samples) != 5 || !slices.IsSortedFunc(w.Samples, func(a, b traffic.Sample) int { return a.Time.Compare(b.Time) }) || len(w.Samples[0].Header) < minFrame {
		t.Errorf("samples %+v", w.Samples)
	}
}

type fixed struct{ list []Packet }

func (f *fixed) Next(p *Packet) bool {
	if len(f.list) == 0 {
		return false
	}
	*p, f.list = f.list[0], f.list[1:]
	return true
}
