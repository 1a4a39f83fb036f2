// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"time"

	"github.com/sentinel-x/sentinel-x/internal/signature"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// BenchOptions size a benchmark.
type BenchOptions struct {
	Rounds   int // of all cases in turn
	Packets  int // of each case in a round
	Prefixes int // on the long list of each family
}

// BenchCase is what a packet costs under one state of lists, rules and limits.
type BenchCase struct {
	Name       string  `json:"name"`
	What       string  `json:"what"`
	NS         float64 `json:"ns"`          // a packet, with the harness; median over the rounds
	BaselineNS float64 `json:"baseline_ns"` // a bare XDP_DROP with the same packets, median
	AddedNS    float64 `json:"added_ns"`    // of the first over the second in the same round, median
	MinNS      float64 `json:"min_ns"`      // smallest and largest added time of a round
	MaxNS      float64 `json:"max_ns"`
	P50NS      int64   `json:"p50_ns"` // of the program's own histogram, in steps of 16 ns, two readings of the clock included
	P99NS      int64   `json:"p99_ns"`
}

// BenchResult is a run of BenchVerdict.
type BenchResult struct {
	BaselineNS float64     `json:"baseline_ns"` // of the first case
	Rounds     int         `json:"rounds"`
	Packets    int         `json:"packets"`  // a case and round
	Prefixes   int         `json:"prefixes"` // on the long lists
	Cases      []BenchCase `json:"cases"`
}

// benchState is what a plane is put into before a case is measured.
type benchState struct {
	limit uint64 // packets a second and source; 0: none
	wide  bool   // the same limit for source prefixes and targets
	rules int    // signatures
	match bool   // the last of them matches
}

// benchLists names the plane that a case is measured on: planes differ in their
// lists, which take too long to be changed between two cases.
type benchLists struct {
	family   uint32
	entries  int
	tutorial bool // in the tutorial's firewall instead
	counting benchCounting
}

// benchCounting says what of the windows is on, with the packets' target as one of 256.
type benchCounting uint8

const (
	countNothing benchCounting = iota
	countFlood                 // as the daemon has it at the rate of a benchmark: a few packets in the histograms
	countAll                   // every packet in the histograms, as at up to 80 000 a second
)

type benchSetup struct {
	name, what string
	lists      benchLists
	state      benchState
	frame      string // hex
	from       stream
	want       traffic.Reason
}

const (
	benchEthernet4 = "0200000000010200000000020800"
	benchEthernet6 = "02000000000102000000000286dd"
	// TCP ACK with eight bytes of data, ports 1024 → 80, to 198.51.100.10 or 2001:db8::2. The
	// harness writes the source.
	benchTCP  = "0400005000000001000000015010020000000000" + "1603010200010001"
	benchIPv4 = benchEthernet4 + "450000300001000040060000" + "00000000" + "c633640a" + benchTCP
	benchIPv6 = benchEthernet6 + "60000000001c0640" + benchHosts6 + benchTCP
	// Hop-by-hop, routing and destination options in front of TCP.
	benchExtended = benchEthernet6 + "6000000000340040" + benchHosts6 +
		"2b00010400000000" + "3c00000000000000" + "0600010400000000" + benchTCP
	benchHosts6 = "00000000000000000000000000000000" + "20010db8000000000000000000000002"

	noLimitReached = 1e9 // packets a second: metered, never over it
	benchSources   = 65536
	benchTargets   = 256
	floodRate      = 2_000_000 // packets a second that the windows take it for
)

var benchTarget = netip.MustParseAddr("198.51.100.10")

// benchSetups are the cases of BenchVerdict. Under a low limit, sources must come
// back often enough that nearly all packets are over it.
func benchSetups(o BenchOptions) []benchSetup {
	long := uint32(o.Prefixes)
	short := min(long, 1000)
	limited := uint32(max(1, min(16384, o.Packets/64)))
	known, fresh := stream{4, strangers, benchSources}, stream{4, strangers, 0}
	none, metered := benchState{}, benchState{limit: noLimitReached}
	rules, matching := benchState{rules: signature.Slots}, benchState{rules: signature.Slots, match: true}
	wide := benchState{limit: noLimitReached, wide: true}
	all := benchState{limit: noLimitReached, rules: signature.Slots}
	pass, drop := traffic.ReasonPass, traffic.ReasonBlocklist
	counted, flooded := benchLists{family: 4, counting: countAll}, benchLists{family: 4, counting: countFlood}
	long4counted := benchLists{family: 4, entries: o.Prefixes, counting: countFlood}
	empty, short4 := benchLists{family: 4}, benchLists{family: 4, entries: int(short)}
	long4, long6 := benchLists{family: 4, entries: o.Prefixes}, benchLists{family: 6, entries: o.Prefixes}
	return []benchSetup{
		{"pass_clean", "nothing is configured; 65 536 sources", empty, none, benchIPv4, known, pass},
		{"pass_metered", "limits of sources, none reached; 65 536 sources", empty, metered, benchIPv4, known, pass},
		{"pass_new_sources", "limits of sources; every source is new", empty, metered, benchIPv4, fresh, pass},
		{"pass_new_sources_wide", "limits of sources, their prefixes and targets; every source is new", empty, wide, benchIPv4, fresh, pass},
		{"drop_meter", "every source is over its limit", empty, benchState{limit: 1}, benchIPv4, stream{4, strangers, limited}, traffic.ReasonLimit},
		{"pass_ipv6_ext", "IPv6, three extension headers; 65 536 sources", empty, none, benchExtended, stream{6, strangers, benchSources}, pass},
		{"pass_blocklist_1m", "long list, source not on it; every source is new", long4, none, benchIPv4, fresh, pass},
		{"drop_blocklist_1k", "short list, source on it", short4, none, benchIPv4, stream{4, 0, short}, drop},
		{"drop_blocklist_1m", "long list, source on it", long4, none, benchIPv4, stream{4, 0, long}, drop},
		{"pass_blocklist_1m_v6", "long IPv6 list, source not on it; every source is new", long6, none, benchIPv6, stream{6, strangers, 0}, pass},
		{"drop_blocklist_1m_v6", "long IPv6 list, source on it", long6, none, benchIPv6, stream{6, 0, long}, drop},
		{"pass_signature_64", "64 signatures, none matches; 65 536 sources", empty, rules, benchIPv4, known, pass},
		{"drop_signature_64", "64 signatures, one matches; 65 536 sources", empty, matching, benchIPv4, known, traffic.ReasonSignature},
		{"pass_counted", "windows, every packet in the histograms; 65 536 sources", counted, none, benchIPv4, known, pass},
		{"pass_counted_flood", "windows, as at this rate: histograms of a share of the packets; 65 536 sources", flooded, none, benchIPv4, known, pass},
		{"pass_all", "long list, 64 signatures, limits of sources, windows as at this rate; every source is new", long4counted, all, benchIPv4, fresh, pass},
	}
}

// bench is a benchmark under way.
type bench struct {
	frags   bool
	harness *harness
	options Options
	planes  map[benchLists]*benchPlane
	others  map[tutorialState]*tutorial
	packets int
}

type benchPlane struct {
	*Plane
	state benchState
}

// BenchVerdict measures the loaded program with BPF_PROG_TEST_RUN against a bare
// XDP_DROP: in rounds of all cases in turn, so that a machine whose speed drifts
// moves them together. Nothing is attached.
func BenchVerdict(ctx context.Context, o Options, sizes BenchOptions) (r BenchResult, err error) {
	b, err := newBench(o, sizes.Packets)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	setups := benchSetups(sizes)
	runs, err := b.rounds(ctx, setups, sizes.Rounds)
	if err != nil {
		return r, err
	}
	r = BenchResult{Rounds: sizes.Rounds, Packets: sizes.Packets, Prefixes: sizes.Prefixes, BaselineNS: median(runs[0].floor)}
	for i, s := range setups {
		latency, err := b.latency(s)
		if err != nil {
			return r, fmt.Errorf("%s: %w", s.name, err)
		}
		r.Cases = append(r.Cases, BenchCase{
			Name: s.name, What: s.what,
			NS: median(runs[i].ns), BaselineNS: median(runs[i].floor), AddedNS: median(runs[i].added),
			MinNS: slices.Min(runs[i].added), MaxNS: slices.Max(runs[i].added),
			P50NS: latency.Quantile(0.5).Nanoseconds(), P99NS: latency.Quantile(0.99).Nanoseconds(),
		})
	}
	return r, nil
}

func newBench(o Options, packets int) (*bench, error) {
	features, err := Probe()
	if err != nil {
		return nil, err
	}
	h, err := newHarness(features.Frags)
	if err != nil {
		return nil, err
	}
	o.PinPath, o.EventsPerSecond = "", 0
	return &bench{frags: features.Frags, harness: h, options: o, packets: packets, planes: map[benchLists]*benchPlane{}, others: map[tutorialState]*tutorial{}}, nil
}

func (b *bench) close() error {
	errs := []error{b.harness.close()}
	for _, p := range b.planes {
		errs = append(errs, p.Close())
	}
	for _, t := range b.others {
		errs = append(errs, t.close())
	}
	return errors.Join(errs...)
}

// benchRun collects one case's times over the rounds, ns a packet.
type benchRun struct{ ns, floor, added []float64 }

// packetKind is what a baseline is measured for once a round.
type packetKind struct {
	frame string
	from  stream
}

func (b *bench) rounds(ctx context.Context, setups []benchSetup, rounds int) ([]benchRun, error) {
	runs := make([]benchRun, len(setups))
	for range rounds {
		floors := map[packetKind]float64{}
		for i, s := range setups {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			kind := packetKind{s.frame, s.from}
			floor, ok := floors[kind]
			if !ok {
				var err error
				if floor, err = b.floor(kind); err != nil {
					return nil, err
				}
				floors[kind] = floor
			}
			ns, err := b.measure(s)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", s.name, err)
			}
			runs[i].ns = append(runs[i].ns, ns)
			runs[i].floor = append(runs[i].floor, floor)
			runs[i].added = append(runs[i].added, ns-floor)
		}
	}
	return runs, nil
}

// floor times a bare XDP_DROP.
func (b *bench) floor(k packetKind) (float64, error) {
	frame, err := hex.DecodeString(k.frame)
	if err != nil {
		return 0, fmt.Errorf("frame: %w", err)
	}
	return b.harness.run(b.harness.objs.Drop, frame, k.from, b.packets)
}

// measure times one case, and makes sure that it was the case it is called.
func (b *bench) measure(s benchSetup) (float64, error) {
	frame, err := hex.DecodeString(s.frame)
	if err != nil {
		return 0, fmt.Errorf("frame: %w", err)
	}
	if s.lists.tutorial {
		return b.measureTutorial(s, frame)
	}
	p, err := b.ready(s)
	if err != nil {
		return 0, err
	}
	before, err := p.Counters()
	if err != nil {
		return 0, err
	}
	ns, err := b.harness.run(p.objs.Sentinel, frame, s.from, b.packets)
	if err != nil {
		return 0, err
	}
	after, err := p.Counters()
	if err != nil {
		return 0, err
	}
	was, is := before.Reason(s.want), after.Reason(s.want)
	if n := is.Sub(was).Packets; n < uint64(b.packets)*9/10 {
		return 0, fmt.Errorf("%d of %d packets ended as %v", n, b.packets, s.want)
	}
	return ns, nil
}

// latency runs a case with every packet timed by the program itself.
func (b *bench) latency(s benchSetup) (h traffic.Histogram, err error) {
	p, err := b.ready(s)
	if err != nil {
		return h, err
	}
	every := func(distance uint32) error {
		return p.change(func(k *bpfKnobs) { k.SampleLatency = distance })
	}
	if err := every(1); err != nil {
		return h, err
	}
	before, err := p.Counters()
	if err == nil {
		_, err = b.measure(s)
	}
	if err := errors.Join(err, every(sampleLatency)); err != nil {
		return h, err
	}
	after, err := p.Counters()
	if err != nil {
		return h, err
	}
	h = after.Latency
	for i, n := range before.Latency.Buckets {
		h.Buckets[i] -= n
	}
	return h, nil
}

// ready returns the plane of a case, in its state.
func (b *bench) ready(s benchSetup) (*benchPlane, error) {
	p, err := b.plane(s.lists)
	if err != nil || p.state == s.state {
		return p, err
	}
	var limits traffic.Limits
	limits.Class[traffic.ClassAll] = traffic.Limit{Packets: s.state.limit, Burst: time.Second}
	if s.state.wide {
		limits.Prefix, limits.Target = limits.Class, limits.Class
	}
	if err := p.SetLimits(limits); err != nil {
		return nil, err
	}
	armed, err := benchSignatures(s.state)
	if err != nil {
		return nil, err
	}
	if err := p.SetSignatures(armed); err != nil {
		return nil, err
	}
	p.state = s.state
	return p, nil
}

// plane loads a program with lists of its own, once.
func (b *bench) plane(l benchLists) (*benchPlane, error) {
	if p, ok := b.planes[l]; ok {
		return p, nil
	}
	o := b.options
	o.Limits = traffic.Limits{}
	o.MaxEntries = max(o.MaxEntries, l.entries)
	p, err := newBenchPlane(o, l.counting)
	if err != nil {
		return nil, err
	}
	entries := make([]traffic.Entry, l.entries)
	for i, prefix := range listedPrefixes(l.family, l.entries) {
		entries[i] = traffic.Entry{Prefix: prefix}
	}
	if err := p.Replace(traffic.ListBlock, entries); err != nil {
		return nil, errors.Join(fmt.Errorf("load %d prefixes: %w", l.entries, err), p.Close())
	}
	b.planes[l] = &benchPlane{Plane: p}
	return b.planes[l], nil
}

// newBenchPlane loads a program. Nobody ends its ticks, so that the samplers are set to what they come to.
func newBenchPlane(o Options, counting benchCounting) (*Plane, error) {
	o.MaxTargets = 0
	if counting != countNothing {
		o.MaxTargets, o.histogramMost = benchTargets, math.MaxUint32
	}
	p, err := New(o)
	if err != nil || counting == countNothing {
		return p, err
	}
	if err := p.SetTargets([]netip.Prefix{netip.PrefixFrom(benchTarget, benchTarget.BitLen())}); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	const tick = floodRate / float64(time.Second/traffic.Tick)
	histograms := distance(tick, histogramAim)
	if counting == countAll {
		histograms = 1
	}
	for slot := range p.windows.spec.slots {
		p.windows.distances(slot, histograms, distance(tick, sampleAim))
	}
	return p, nil
}

// benchSignatures returns rules that between them constrain every field of a TCP
// packet, so that the program has to look at each of them.
func benchSignatures(s benchState) ([]signature.Armed, error) {
	texts := []string{
		"udp and src port %d and len > 512",
		"tcp[tcpflags] == tcp-syn and dst port %d and ip[8] > 200",
		"tcp and src port %d and tcp[14:2] == 512",
		"tcp and dst port %d and tcp[12] >> 4 == 5 and ip[6] & 0x40 != 0",
		"udp and dst port %d and len < 100",
		"icmp and icmp[0] == 8 and len == %d",
		"tcp and dst port %d and tcp[(tcp[12] & 0xf0) >> 2:4] == 0x16030100",
	}
	armed := make([]signature.Armed, s.rules)
	for i := range armed {
		text := fmt.Sprintf(texts[i%len(texts)], 2000+i)
		if s.match && i == len(armed)-1 {
			text = "tcp and src port 1024 and dst port 80"
		}
		rule, err := signature.Parse(text)
		if err != nil {
			return nil, err
		}
		rule.Target = netip.PrefixFrom(benchTarget, benchTarget.BitLen())
		armed[i] = signature.Armed{ID: uint64(i + 1), Text: text, Rule: rule, Action: signature.Drop, Ceiling: signature.FullCeiling}
	}
	return armed, nil
}

func median(x []float64) float64 {
	s := slices.Sorted(slices.Values(x))
	return s[len(s)/2]
}
