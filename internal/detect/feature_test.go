// SPDX-License-Identifier: Apache-2.0

package detect

import (
	"math"
	"math/rand/v2"
	"net/netip"
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// vectorOf observes a window and returns its features by name.
func vectorOf(t *testing.T, x *Extractor, w *traffic.Window, calm bool) map[string]float64 {
	t.Helper()
	if !x.Begin(w.Start, w.Length) {
		t.Fatalf("the tick of %s is a duplicate", w.Start)
	}
	track := x.Observe(w)
	if track == nil {
		t.Fatalf("no place for %s", w.Target)
	}
	v := make(Vector, NumFeatures())
	track.Features(v)
	track.Settle(calm)
	m := map[string]float64{}
	for i, name := range Names() {
		m[name] = float64(v[i])
	}
	return m
}

func near(t *testing.T, what string, got, want, within float64) {
	t.Helper()
	if !(math.Abs(got-want) <= within) {
		t.Errorf("%s is %g, want %g ± %g", what, got, want, within)
	}
}

func TestNames(t *testing.T) {
	names := Names()
	word := regexp.MustCompile(`^[a-z0-9_]+$`)
	for i, name := range names {
		if !word.MatchString(name) || Index(name) != i {
			t.Errorf("feature %d is named %q and found at %d", i, name, Index(name))
		}
	}
	if !slices.Equal(names[:6], PrototypeNames()) {
		t.Errorf("the list begins with %q", names[:6])
	}
	if Index("nothing") != -1 {
		t.Error("an unknown name has an index")
	}
	for _, f := range definitions {
		if f.meaning == "" || f.unit == "" || f.span == "" {
			t.Errorf("%s lacks meaning, unit or span: %+v", f.name, f)
		}
	}
	// Changing the list makes every trained model useless: a decision, not an accident.
	const want = "f3c76097648f2a0e2c9e21136eeaf0b3471ddf5fadbbf24aac92e062b6cf9a0d"
	if SchemaHash() != want {
		t.Errorf("schema hash %s, want %s", SchemaHash(), want)
	}
}

func TestRatesAndShares(t *testing.T) {
	x := NewExtractor(1)
	s := newSim(1)
	w := s.window(victim)
	for i := range 100 {
		p := packet{source: netip.MustParseAddr("198.51.100.1"), sport: 53, proto: 17, length: 1000, ttl: 64}
		if i >= 60 {
			p = packet{source: netip.MustParseAddr("203.0.113.9"), proto: 6, flags: syn, offset: 5, length: 40, ttl: 128}
		}
		p.count(&w)
	}
	v := vectorOf(t, x, &w, true)
	for name, want := range map[string]float64{
		"pkt_rate": 1000, "syn_ratio": 0.4, "byte_rate": 10 * (60*1014 + 40*54),
		"packets_100ms": math.Log2(1001), "udp_1s": math.Log2(601), "syn_10s": math.Log2(401),
		"udp_share_100ms": 0.6, "syn_bare_share_1s": 0.4, "bare_of_syn_share_100ms": 1, "reflected_share_10s": 0.6,
		"reflected_top_share_1s": 0.6, "size_512_share_1s": 0.6, "size_0_share_1s": 0.4,
		"mean_size_100ms": math.Log2(1 + (60*1014+40*54)/100.), "malformed_share_1s": 0, "source_top_share_100ms": 0.6,
		"proto_entropy": -0.6*math.Log2(0.6) - 0.4*math.Log2(0.4), "syn_ack_balance_1s": math.Log2(41),
		"ttl_spread_100ms": 64 * math.Sqrt(0.24), "packets_rise": 0,
	} {
		near(t, name, v[name], want, 1e-5*max(1, want))
	}
	for _, name := range []string{"new_source_share_1s", "packets_ratio_1s", "fingerprint_drift_1s", "packets_deviation_1s"} {
		if !math.IsNaN(v[name]) {
			t.Errorf("%s of the first window is %g, want unknown", name, v[name])
		}
	}
	empty := s.window(victim)
	v = vectorOf(t, x, &empty, true)
	if v["packets_100ms"] != 0 || !math.IsNaN(v["udp_share_100ms"]) || !math.IsNaN(v["source_entropy_100ms"]) {
		t.Errorf("silence: packets %g, UDP share %g, entropy %g", v["packets_100ms"], v["udp_share_100ms"], v["source_entropy_100ms"])
	}
	near(t, "packets of two ticks", v["packets_1s"], math.Log2(501), 1e-5)
}

func TestShapes(t *testing.T) {
	uniform := make([]uint32, 64)
	for i := range uniform {
		uniform[i] = 100
	}
	s := shapeOf(uniform, 1, 1)
	near(t, "entropy of uniform bins", s.entropy, 1, 1e-6)
	near(t, "top share of uniform bins", s.top, 1.0/64, 1e-12)
	near(t, "count of full bins", s.cardinality, 64*math.Log(128), 1e-9)
	one := make([]uint32, 64)
	one[7] = 70000 // beyond the table
	s = shapeOf(one, 1, 1)
	near(t, "entropy of one bin", s.entropy, 0, 1e-6)
	near(t, "top share of one bin", s.top, 1, 0)
	near(t, "count of one bin", s.cardinality, 1, 0.01)
	if s = shapeOf(make([]uint32, 64), 1, 1); !math.IsNaN(s.entropy) || !math.IsNaN(s.top) || !math.IsNaN(s.cardinality) {
		t.Errorf("no packets: %+v", s)
	}
	r := rand.New(rand.NewPCG(1, 1))
	for _, n := range []int{5, 50, 200, 500} {
		bins := make([]uint32, 256)
		for range n {
			bins[r.IntN(256)] += 3
		}
		near(t, "estimate", shapeOf(bins, 1, 1).cardinality, float64(n), 0.15*float64(n))
	}
}

// TestFading compares with floating point, at rates that change the scale.
func TestFading(t *testing.T) {
	var f fading
	var exact [numBins]float64
	bound := 0.0 // of the error
	r := rand.New(rand.NewPCG(2, 2))
	for step := range 300 {
		var h traffic.Histograms
		rate := []int{50, 100000, 2000000, 0}[step/75]
		for i := range h.Fingerprints {
			h.Fingerprints[i] = uint32(r.IntN(1 + rate/(i+1)))
		}
		f.fade()
		f.add(&h)
		// Rounding loses a unit in fading, one in adding, one when the scale changes.
		bound = bound*0.9 + math.Ldexp(3.0/onePacket, int(f.scale))
		at := binsAt[hFingerprints]
		for i, n := range h.Fingerprints {
			exact[at+i] = exact[at+i]*0.9 + float64(n)
			got := math.Ldexp(float64(f.bins[at+i])/onePacket, int(f.scale))
			if math.Abs(got-exact[at+i]) > bound {
				t.Fatalf("step %d, bin %d: %g, exact %g (scale %d)", step, i, got, exact[at+i], f.scale)
			}
		}
	}
	f.fadeSteps(150)
	if f != (fading{}) {
		t.Error("something is left after 225 steps of silence")
	}
	f.addBin(3, math.MaxUint32)
	f.fadeSteps(200)
	if f != (fading{}) {
		t.Error("200 steps do not clear the greatest number")
	}
}

// TestSliding compares with all ticks kept.
func TestSliding(t *testing.T) {
	var s sliding
	var all []slot
	r := rand.New(rand.NewPCG(3, 3))
	for at := range int64(500) {
		tick := slot{ticks: uint32(r.IntN(2)), bytes: r.Uint64N(1e12)}
		for i := range tick.n {
			tick.n[i] = r.Uint32N(1e6)
		}
		all = append(all, tick)
		s.push(at, &tick)
		var got, want counts
		s.lastSecond(&got)
		for i := max(0, at-9); i <= at; i++ {
			want.add(&all[i])
		}
		if got != want {
			t.Fatalf("tick %d: last second %+v, want %+v", at, got, want)
		}
		s.lastTen(&got)
		want = counts{}
		for i := max(0, at/10*10-90); i <= at; i++ {
			want.add(&all[i])
		}
		if got != want {
			t.Fatalf("tick %d: last ten seconds %+v, want %+v", at, got, want)
		}
	}
}

func TestPartsSumUp(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 4))
	for range 1000 {
		var c, sum counts
		c.bytes = r.Uint64()
		for i := range c.n {
			c.n[i] = r.Uint64N(math.MaxUint32)
		}
		k := 1 + r.Uint64N(30)
		for i := range k {
			var s slot
			s.part(&c, i, k)
			sum.add(&s)
		}
		c.ticks = k
		if sum != c {
			t.Fatalf("%d parts sum up to %+v, want %+v", k, sum, c)
		}
	}
}

// TestLongWindow: a window of three ticks leaves the same sums as three alike.
func TestLongWindow(t *testing.T) {
	tick := func() traffic.Window {
		w := traffic.Window{Target: victim, Start: epoch, Length: traffic.Tick}
		for i := range 30 {
			p := packet{source: netip.AddrFrom4([4]byte{198, 51, 100, byte(i)}), sport: uint16(i), proto: 17, length: 100, ttl: 60}
			p.count(&w)
		}
		return w
	}
	one, three := NewExtractor(1), NewExtractor(1)
	var short, long map[string]float64
	for i := range 3 {
		w := tick()
		w.Start = w.Start.Add(time.Duration(i) * traffic.Tick)
		short = vectorOf(t, one, &w, true)
	}
	w := tick()
	w.Length = 3 * traffic.Tick
	for range 2 {
		again := tick()
		w.Tally.Add(&again.Tally)
		w.Histograms.Add(&again.Histograms)
		w.Samples = append(w.Samples, again.Samples...)
	}
	long = vectorOf(t, three, &w, true)
	for _, name := range Names() {
		if name == "source_count_100ms" || math.IsNaN(short[name]) != math.IsNaN(long[name]) {
			continue
		}
		if slices.Contains([]string{"packets_1s", "udp_share_1s", "bytes_10s", "packets_100ms", "udp_10s"}, name) {
			near(t, name, long[name], short[name], 1e-6)
		}
	}
	if s := three.Stats(); s.Missing+s.Duplicates+s.Jumps != 0 {
		t.Errorf("a long window is out of order: %+v", s)
	}
	next := tick()
	next.Start = next.Start.Add(3 * traffic.Tick)
	vectorOf(t, three, &next, true)
	if s := three.Stats(); s.Missing+s.Duplicates+s.Jumps != 0 {
		t.Errorf("the tick after a long window is out of order: %+v", s)
	}
}

// TestClock: what never came is unknown, what was silent is zero, what came
// twice is left out, and a clock set back changes nothing.
func TestClock(t *testing.T) {
	s := newSim(5)
	x := NewExtractor(2)
	steady := func(at time.Time) map[string]float64 {
		w := traffic.Window{Target: victim, Start: at, Length: traffic.Tick}
		for range 10 {
			p := packet{source: s.address(10<<24, 5), proto: 17, length: 100, ttl: 60}
			p.count(&w)
		}
		return vectorOf(t, x, &w, true)
	}
	at := epoch
	for range 20 {
		steady(at)
		at = at.Add(traffic.Tick)
	}
	at = at.Add(5 * traffic.Tick)
	near(t, "packets after five ticks that never came", steady(at)["pkt_rate"], 100, 1e-3)
	for range 5 {
		at = at.Add(traffic.Tick)
		if !x.Begin(at, traffic.Tick) {
			t.Fatal("a silent tick is refused")
		}
	}
	at = at.Add(traffic.Tick)
	v := steady(at)
	near(t, "packets after five silent ticks", v["pkt_rate"], 20/0.7, 1e-3) // of ten ticks three are unknown
	if x.Begin(at, traffic.Tick) {
		t.Error("the same tick is taken twice")
	}
	near(t, "packets after a step back by an hour", steady(at.Add(-time.Hour))["pkt_rate"], 30/0.8, 1e-3)
	near(t, "packets after a step forward by a day", steady(at.Add(24 * time.Hour))["pkt_rate"], 100, 1e-3)
	want := ExtractorStats{Targets: 1, Duplicates: 1, Jumps: 1, Missing: 5 + 250*36 + 24*36000}
	got := x.Stats()
	got.Missing, want.Missing = min(got.Missing, 9000), min(want.Missing, 9000)
	if got != want {
		t.Errorf("counted %+v, want %+v", got, want)
	}
}

func TestObserveTwice(t *testing.T) {
	x := NewExtractor(2)
	w := newSim(1).window(victim)
	if !x.Begin(w.Start, w.Length) || x.Observe(&w) == nil {
		t.Fatal("the first window is refused")
	}
	if x.Observe(&w) != nil || x.Stats().Duplicates != 1 {
		t.Error("a target has two windows in one tick")
	}
}

// TestSources: novelty is unknown at first, then tells known from new sources,
// learns nothing from a tick that is not calm, and forgets.
func TestSources(t *testing.T) {
	s := newSim(6)
	x := NewExtractor(1)
	var v map[string]float64
	for range 650 {
		w := s.window(victim)
		s.clients(&w, 300, 20)
		v = vectorOf(t, x, &w, true)
	}
	near(t, "new sources among old clients", v["new_source_share_1s"], 0, 0.01)
	flood := func() map[string]float64 {
		w := s.window(victim)
		s.synFlood(&w, 3000)
		return vectorOf(t, x, &w, false)
	}
	for range 3 {
		v = flood()
	}
	near(t, "new sources in a flood", v["new_source_share_100ms"], 1, 0.01)
	near(t, "new networks in a flood", v["new_net_share_100ms"], 1, 0.05)
	for range 2*int(memorySpan/traffic.Tick) + 1 { // nobody sends
		w := s.window(victim)
		if !x.Begin(w.Start, w.Length) {
			t.Fatal("a silent tick is refused")
		}
	}
	w := s.window(victim)
	s.clients(&w, 300, 20)
	v = vectorOf(t, x, &w, false)
	near(t, "new sources after twenty minutes of silence", v["new_source_share_100ms"], 1, 0.01)
}

func TestMemoryIsBounded(t *testing.T) {
	m := newMemory()
	r := rand.New(rand.NewPCG(7, 7))
	for range 300 {
		for range 100000 {
			m.learn(r.Uint64())
		}
		m.advance(1)
		if m.set > memoryFull+2*100000 {
			t.Fatalf("%d bits are set", m.set)
		}
	}
	wrong := 0
	for range 10000 {
		if m.knows(r.Uint64()) {
			wrong++
		}
	}
	if wrong > 5500 {
		t.Errorf("%d of 10000 sources that never came look known after 30 million", wrong)
	}
}

// TestDrift: the same clients do not drift, a flood does.
func TestDrift(t *testing.T) {
	s := newSim(8)
	x := NewExtractor(1)
	var v map[string]float64
	for range 650 {
		w := s.window(victim)
		s.clients(&w, 2000, 200)
		v = vectorOf(t, x, &w, true)
	}
	for _, name := range []string{"fingerprint", "length", "ttl", "dest_port"} {
		if d := v[name+"_drift_1s"]; !(d < 0.15) {
			t.Errorf("%s drifts by %g without a change", name, d)
		}
	}
	for range 3 {
		w := s.window(victim)
		s.clients(&w, 2000, 200)
		s.synFlood(&w, 6000)
		v = vectorOf(t, x, &w, false)
	}
	if d := v["fingerprint_drift_100ms"]; !(d > 0.6) {
		t.Errorf("a flood of three times the rate drifts by %g only", d)
	}
	near(t, "ratio", v["packets_ratio_100ms"], 2, 0.1)
	if r := v["syn_ratio_100ms"]; !(r > 4) {
		t.Errorf("SYNs are 2^%g of normal", r)
	}
}

func TestRecycling(t *testing.T) {
	x := NewExtractor(2)
	target := func(i int) traffic.Target {
		return traffic.HostTarget(netip.AddrFrom4([4]byte{198, 51, 100, byte(i)}))
	}
	see := func(at int, list ...int) {
		if !x.Begin(epoch.Add(time.Duration(at)*traffic.Tick), traffic.Tick) {
			t.Fatal("tick refused")
		}
		for _, i := range list {
			w := traffic.Window{Target: target(i), Length: traffic.Tick, Tally: traffic.Tally{Packets: 1, UDP: 1}}
			if track := x.Observe(&w); track != nil {
				track.Settle(true)
			}
		}
	}
	see(0, 1, 2)
	see(1, 3)
	if x.Find(target(3)) != nil || x.Stats().Refused != 1 {
		t.Fatal("a busy target gave way")
	}
	see(2, 1)
	for i := 3; i < 102; i++ {
		see(i, 1)
	}
	see(102, 1, 3)
	if x.Find(target(2)) != nil || x.Find(target(1)) == nil || x.Find(target(3)) == nil {
		t.Errorf("the silent target did not give way: %+v", x.Stats())
	}
	see(103, 3)
	see(105, 3, 4) // the daemon missed one
	if x.Find(target(1)) != nil || x.Find(target(3)) == nil || x.Find(target(4)) == nil {
		t.Errorf("the target whose windows stopped did not give way: %+v", x.Stats())
	}
	see(108, 5, 3, 4)
	if x.Find(target(3)) == nil || x.Find(target(4)) == nil {
		t.Errorf("a target gave way because of ticks that never came: %+v", x.Stats())
	}
	x.Find(target(3)).held = true
	for i := 109; i < 300; i++ {
		see(i)
	}
	see(300, 6, 7)
	if x.Find(target(3)) == nil || x.Find(target(6)) == nil || x.Find(target(7)) != nil {
		t.Errorf("want the target with an open incident kept and the other replaced: %+v", x.Stats())
	}
}

// FuzzWindows feeds windows of any numbers: no panic, nothing infinite, the
// bounds of shares and entropies hold for windows that are consistent.
func FuzzWindows(f *testing.F) {
	f.Add(uint64(1), []byte{1, 2, 3, 4, 200, 100, 0, 0, 255})
	f.Add(uint64(9), []byte("\xff\xff\xff\xff\xff\xff\xff\xff\x00\x80"))
	f.Fuzz(func(t *testing.T, seed uint64, script []byte) {
		x := NewExtractor(3)
		v := make(Vector, NumFeatures())
		at := epoch
		for i, b := range script[:min(len(script), 60)] {
			r := rand.New(rand.NewPCG(seed, uint64(i)<<8|uint64(b)))
			w := randomWindow(r)
			at = at.Add(time.Duration(int8(b)) * traffic.Tick / 4)
			if b == 255 {
				at = at.Add(time.Duration(r.Int64()))
			}
			w.Start = at
			if !x.Begin(w.Start, w.Length) || !x.Stream(&w, v) {
				continue
			}
			for j, n := range v {
				if math.IsInf(float64(n), 0) {
					t.Fatalf("%s is infinite", definitions[j].name)
				}
			}
		}
	})
}

// randomWindow draws numbers of every size.
func randomWindow(r *rand.Rand) traffic.Window {
	n := func() uint64 { return r.Uint64() >> r.UintN(65) }
	w := traffic.Window{Target: []traffic.Target{victim, victims, allHosts}[r.IntN(3)]}
	w.Length = time.Duration(n())
	w.Tally = traffic.Tally{
		Packets: n(), Bytes: n(), TCP: n(), UDP: n(), ICMP: n(), Other: n(), SYN: n(), SYNNoOptions: n(), SYNACK: n(),
		ACK: n(), RST: n(), FIN: n(), TCPData: n(), Fragments: n(), Malformed: n(),
	}
	for _, bins := range parts(&w.Histograms) {
		for range r.IntN(8) {
			bins[r.IntN(len(bins))] = uint32(n())
		}
	}
	for range r.IntN(5) {
		w.Samples = append(w.Samples, traffic.Sample{Source: netip.AddrFrom4([4]byte{10, 0, 0, byte(n())})})
	}
	w.Samples = append(w.Samples, traffic.Sample{})
	return w
}
