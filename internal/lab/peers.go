// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sys/unix"

	"github.com/sentinel-x/sentinel-x/internal/config"
	"github.com/sentinel-x/sentinel-x/internal/dataplane"
	"github.com/sentinel-x/sentinel-x/internal/engine"
)

// PeerSizes size BenchPeers.
type PeerSizes struct {
	Rounds   int           // of all cases in turn
	Duration time.Duration // of each case in a round, without its start
	Prefixes int           // that are blocked
	Sources  int           // of the flood, in turn
}

// DefaultPeerSizes end within 50 s.
func DefaultPeerSizes() PeerSizes {
	return PeerSizes{Rounds: 5, Duration: 450 * time.Millisecond, Prefixes: 1, Sources: 8192}
}

// MaxPeerPrefixes and MaxPeerSources are the most that may be blocked, and flood: the
// addresses of the flood's network.
const (
	MaxPeerPrefixes = 1 << 16
	MaxPeerSources  = 1 << 16
)

const (
	peerWarmUp    = 150 * time.Millisecond // at most, and never longer than the measurement
	peerPort      = 9                      // of the flood; nobody listens
	peerRequests  = 1000
	generatorCPU  = 0 // and the clients
	victimCPU     = 1 // and the server they ask
	peerFrame     = 60
	peerMostLeaks = 0.1 // share of the flood that a filter may let through
)

var (
	floodNet  = netip.MustParsePrefix("198.18.0.0/16")
	otherNet  = netip.MustParseAddr("198.19.0.0") // prefixes that are blocked and send nothing
	clientNet = netip.MustParsePrefix("10.91.0.0/16")
)

// PeerCase is how one filter did under the flood. All but the requests are medians over the rounds.
type PeerCase struct {
	Name        string  `json:"name"`
	What        string  `json:"what"`
	MPPS        float64 `json:"mpps"`           // millions of frames a second that it dropped; none: that the stack dropped
	OfBare      float64 `json:"of_bare"`        // share of what bare XDP_DROP dropped in the same round
	ThreadMPPS  float64 `json:"thread_mpps"`    // dropped in a second of the filtering thread's own time: what its core could do
	ThreadBare  float64 `json:"thread_of_bare"` // the same share of this
	ThreadMin   float64 `json:"thread_min"`     // the slowest round
	ThreadMax   float64 `json:"thread_max"`     // the fastest
	OfferedMPPS float64 `json:"offered_mpps"`   // sent by the generator; what the ring had no room for is in no other figure
	PassedShare float64 `json:"passed"`         // share of the flood that it let through
	CPUPercent  float64 `json:"cpu_pct"`        // of the victim's core, not idle
	Requests    int     `json:"requests"`       // real ones, sent beside the flood
	LostPercent float64 `json:"requests_lost"`  // without an answer, %
	P50Micros   float64 `json:"rtt_p50_us"`     // of those answered; 0: none was
	P99Micros   float64 `json:"rtt_p99_us"`
	MaxMicros   float64 `json:"rtt_max_us"`
}

// MissingPeer is a filter that could not be set up here.
type MissingPeer struct {
	Name string `json:"name"`
	Why  string `json:"why"`
}

// PeerReport compares filters on one veth pair.
type PeerReport struct {
	engine.BenchHost
	Prefixes int           `json:"prefixes"` // blocked
	Sources  int           `json:"sources"`  // of the flood
	Rounds   int           `json:"rounds"`
	Seconds  float64       `json:"seconds"` // of each case in a round
	Cases    []PeerCase    `json:"cases"`
	Missing  []MissingPeer `json:"missing"`
}

// peerSamples is what the rounds of one case saw, a number for each round.
type peerSamples struct {
	mpps, thread         []float64
	offered, cpu, passed []float64
	requests, answered   int
	rtt                  *hdrhistogram.Histogram // ns
}

// BenchPeers sends the same flood against Sentinel-X and against what else the machine
// has, each in a network of its own, and measures what each drops on the victim's core
// and how real requests fare beside it. It needs two CPUs: one sends, the other filters.
func BenchPeers(ctx context.Context, cfg config.Config, sizes PeerSizes) (r PeerReport, err error) {
	r = PeerReport{
		BenchHost: engine.NewBenchHost(), Prefixes: sizes.Prefixes, Sources: sizes.Sources,
		Rounds: sizes.Rounds, Seconds: sizes.Duration.Seconds(), Missing: []MissingPeer{},
	}
	if runtime.NumCPU() < 2 {
		return r, errors.New("compare filters: two CPUs are needed, one for the sender and one for the victim")
	}
	peers, missing, err := openPeers(ctx, cfg, sizes)
	defer func() { err = errors.Join(err, closePeers(peers)) }()
	if err != nil {
		return r, err
	}
	r.Missing = append(r.Missing, missing...)
	for range sizes.Rounds {
		for _, p := range peers {
			if err := p.measure(sizes); err != nil {
				return r, errors.Join(ctx.Err(), fmt.Errorf("%s: %w", p.filter.name, err))
			}
			if ctx.Err() != nil {
				return r, ctx.Err()
			}
		}
	}
	r.Cases = peerCases(peers)
	return r, nil
}

// openPeers sets up all filters that can be had here, each in a network of its own: so that
// rounds of all in turn lose no time.
func openPeers(ctx context.Context, cfg config.Config, sizes PeerSizes) (peers []*peerRun, missing []MissingPeer, err error) {
	for _, f := range peerFilters {
		run := &peerRun{
			ctx: ctx, filter: f, config: cfg, sources: sizes.Sources, prefixes: blockedPrefixes(sizes.Prefixes, sizes.Sources),
			samples: peerSamples{rtt: hdrhistogram.New(1, int64(10*time.Second), 3)},
		}
		err := run.open()
		if ctx.Err() != nil {
			return peers, missing, errors.Join(ctx.Err(), run.close())
		}
		if absent, ok := errors.AsType[*missingError](err); ok {
			missing = append(missing, MissingPeer{f.name, absent.Error()})
			if err := run.close(); err != nil {
				return peers, missing, err
			}
			continue
		}
		peers = append(peers, run)
		if err != nil {
			return peers, missing, fmt.Errorf("%s: %w", f.name, err)
		}
	}
	return peers, missing, nil
}

func closePeers(peers []*peerRun) error {
	var errs []error
	for _, p := range peers {
		errs = append(errs, p.close())
	}
	return errors.Join(errs...)
}

func peerCases(peers []*peerRun) (cases []PeerCase) {
	var bare *peerSamples
	for _, p := range peers {
		s := &p.samples
		if p.filter.name == peerBare {
			bare = s
		}
		c := PeerCase{
			Name: p.filter.name, What: p.filter.what, MPPS: median(s.mpps), OfferedMPPS: median(s.offered), PassedShare: median(s.passed),
			ThreadMPPS: median(s.thread), ThreadMin: slices.Min(s.thread), ThreadMax: slices.Max(s.thread), CPUPercent: median(s.cpu),
			Requests: s.requests, LostPercent: 100 * (1 - float64(s.answered)/float64(max(1, s.requests))),
		}
		if s.answered > 0 {
			c.P50Micros, c.P99Micros, c.MaxMicros = quantile(s, 50), quantile(s, 99), quantile(s, 100)
		}
		if bare != nil {
			c.OfBare, c.ThreadBare = median(ratios(s.mpps, bare.mpps)), median(ratios(s.thread, bare.thread))
		}
		cases = append(cases, c)
	}
	return cases
}

// ratios compares two filters round by round: a machine that is slow for a while is slow for both.
func ratios(a, b []float64) []float64 {
	all := make([]float64, len(a))
	for i := range a {
		if b[i] > 0 {
			all[i] = a[i] / b[i]
		}
	}
	return all
}

func quantile(s *peerSamples, q float64) float64 { return float64(s.rtt.ValueAtQuantile(q)) / 1000 }

// median of several; of an even number, the mean of the middle two.
func median(x []float64) float64 {
	sorted := slices.Sorted(slices.Values(x))
	n := len(sorted)
	if n == 0 {
		return 0
	}
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// open sets a filter up in a network that exists only for it. Whatever it returns, close is due.
func (r *peerRun) open() (err error) {
	if err := r.filter.tool(); err != nil {
		return err
	}
	if r.net, err = NewNet(NetOptions{PinNAPI: true, CPU: victimCPU}); err != nil {
		return err
	}
	if err := r.net.preparePeers(); err != nil {
		return err
	}
	if err := r.net.Victim.Do(func() error { return r.filter.setUp(r) }); err != nil {
		if r.filter.ours {
			return err
		}
		return &missingError{err}
	}
	return nil
}

func (r *peerRun) close() error {
	if r.net == nil {
		return nil
	}
	return errors.Join(r.release(), r.net.Close())
}

// preparePeers makes the clients' addresses local to the peer, and fixes both ends'
// neighbours: a question for them would get lost in the flood.
func (n *Net) preparePeers() error {
	if err := n.Peer.Do(func() error { return addLocalPrefix(clientNet) }); err != nil {
		return err
	}
	// With TSO, a veth without an XDP program takes what sockets send past the ring that
	// the flood fills: the requests would not be beside the flood.
	if err := n.Peer.Do(func() error { return setTSO(n.PeerEnd.Name, false) }); err != nil {
		return err
	}
	return errors.Join(n.VictimEnd.setNeighbour(Peer4, n.PeerEnd.MAC), n.PeerEnd.setNeighbour(Victim4, n.VictimEnd.MAC))
}

// measure floods, and takes what passes between the end of the warm-up and the end.
func (r *peerRun) measure(sizes PeerSizes) (err error) {
	n, d := r.net, sizes.Duration
	echo, err := n.startEcho(victimCPU)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, echo.close()) }()
	ctx, stop := context.WithCancel(r.ctx)
	defer stop()
	g, err := dataplane.NewGenerator(dataplane.Flood{
		Interface: n.PeerEnd.Index, SourceMAC: n.PeerEnd.MAC, DestMAC: n.VictimEnd.MAC,
		Kind: dataplane.FloodUDP, Source: floodNet, Sources: sizes.Sources, Dest: Victim4, DestPort: peerPort, Size: peerFrame,
		Duration: peerWarmUp + d + 10*time.Second, // stop ends it
	})
	if err != nil {
		return err
	}
	defer g.Close()
	flooded := make(chan error, 1)
	go func() {
		flooded <- n.Peer.Do(func() error {
			if err := pinThread(generatorCPU); err != nil {
				return err
			}
			_, err := g.Run(ctx)
			return err
		})
	}()
	err = r.watchFlood(ctx, g, d)
	stop()
	return errors.Join(err, <-flooded)
}

func (r *peerRun) watchFlood(ctx context.Context, g *dataplane.Generator, d time.Duration) error {
	if err := r.warmUp(ctx, min(peerWarmUp, d)); err != nil {
		return err
	}
	before, err := r.net.look(g)
	if err != nil {
		return err
	}
	// On a starved machine the filtering thread may not run in so short a time.
	for range 20 {
		if err := r.net.ask(ctx, d, &r.samples); err != nil {
			return err
		}
		after, err := r.net.look(g)
		if err != nil {
			return err
		}
		if after.received > before.received && after.thread > before.thread {
			return r.add(before, after)
		}
	}
	return errors.New("nothing of the flood arrived")
}

// warmUp waits for d, until the flood arrives, and until a filter that limits has had what it lets through of
// each source at the start: it is to be measured as in the attack's second second. It does not wait for a
// starved machine for ever.
func (r *peerRun) warmUp(ctx context.Context, d time.Duration) error {
	const patience = 3 * time.Second
	due := uint64(1) // or the flood has not begun
	if r.filter.rate > 0 {
		due = uint64(r.entitled(0)) + uint64(r.sources)
	}
	before, err := r.net.VictimEnd.Stats()
	for start := time.Now(); err == nil && ctx.Err() == nil && time.Since(start) < patience; {
		wait(ctx, d)
		var now LinkStats
		if now, err = r.net.VictimEnd.Stats(); now.RxPackets-before.RxPackets >= due {
			break
		}
	}
	return err
}

// peerSight is what the counters said at one time.
type peerSight struct {
	at               time.Time
	sent             uint64 // by the generator
	received         uint64 // out of the ring of the victim's end
	stack            uint64 // to no socket: what a filter let through
	busy, busyOrIdle uint64 // ticks of the victim's core
	thread           uint64 // ns that the filtering thread ran
}

// look reads all counters in one thread that nothing holds up: they are compared with each other.
func (n *Net) look(g *dataplane.Generator) (p peerSight, err error) {
	err = n.Victim.Do(func() error {
		if err := realTime(generatorCPU); err != nil {
			return err
		}
		p.at = time.Now()
		if p.sent, err = g.Sent(); err != nil {
			return err
		}
		stats, err := n.VictimEnd.stats()
		if err != nil {
			return err
		}
		p.received = stats.RxPackets
		if p.stack, err = strayDatagrams(); err != nil {
			return err
		}
		if p.busy, p.busyOrIdle, err = coreTicks(victimCPU); err != nil {
			return err
		}
		p.thread, err = n.VictimEnd.napiTime()
		return err
	})
	return p, err
}

// add takes the difference of two sights. Whatever left the ring and did not get to
// the stack was dropped by the filter, but for the few requests, which are answered.
func (r *peerRun) add(a, b peerSight) error {
	seconds := b.at.Sub(a.at).Seconds()
	received, stack := float64(b.received-a.received), float64(b.stack-a.stack)
	ran := float64(b.thread - a.thread)
	dropped := received - stack
	if r.filter.name == peerNone {
		dropped = stack
	}
	if leaked := received - dropped - r.entitled(seconds); leaked > peerMostLeaks*received {
		return fmt.Errorf("it dropped %.0f of %.0f frames", dropped, received)
	}
	s := &r.samples
	s.mpps = append(s.mpps, dropped/seconds/1e6)
	s.thread = append(s.thread, 1000*dropped/ran)
	s.passed = append(s.passed, stack/received)
	s.offered = append(s.offered, float64(b.sent-a.sent)/seconds/1e6)
	if all := b.busyOrIdle - a.busyOrIdle; all > 0 {
		s.cpu = append(s.cpu, 100*float64(b.busy-a.busy)/float64(all))
	}
	return nil
}

// entitled returns how many packets of the flood the filter may let through in a time.
func (r *peerRun) entitled(seconds float64) float64 {
	if r.filter.rate == 0 {
		return 0
	}
	return float64(r.sources) * (1 + float64(r.filter.rate)*(seconds+r.filter.burst.Seconds()))
}

// blockedPrefixes returns n prefixes. All sources of the flood are in them; those that
// are left over are blocked and send nothing.
func blockedPrefixes(n, sources int) []netip.Prefix {
	length := 32 - bits.Len(uint(sources-1)) // of one that holds them all
	used := 1
	for used*2 <= n && length < 32 {
		used, length = used*2, length+1
	}
	all := make([]netip.Prefix, n)
	size := uint32(1) << (32 - length)
	for i := range all {
		base, at := floodNet.Addr(), uint32(i)
		if i >= used {
			base, at = otherNet, uint32(i-used)
		}
		all[i] = netip.PrefixFrom(addressAfter(base, at*size), length)
	}
	return all
}

func addressAfter(a netip.Addr, n uint32) netip.Addr {
	b := a.As4()
	v := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
	v += n
	return netip.AddrFrom4([4]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)})
}

// strayDatagrams counts what the stack of the calling thread's namespace got for UDP
// ports where nobody listens.
func strayDatagrams() (uint64, error) {
	text, err := os.ReadFile("/proc/thread-self/net/snmp")
	if err != nil {
		return 0, fmt.Errorf("read the stack's counters: %w", err)
	}
	var names []string
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) == 0 || fields[0] != "Udp:" {
			continue
		}
		if names == nil {
			names = fields
			continue
		}
		if i := slices.Index(names, "NoPorts"); i > 0 && i < len(fields) {
			return strconv.ParseUint(fields[i], 10, 64)
		}
	}
	return 0, errors.New("read the stack's counters: no UDP in /proc/net/snmp")
}

// coreTicks reads how long a CPU has worked, and how long it has been there.
func coreTicks(cpu int) (busy, all uint64, err error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, 0, fmt.Errorf("read the time of CPU %d: %w", cpu, err)
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) < 9 || fields[0] != fmt.Sprintf("cpu%d", cpu) {
			continue
		}
		for i, field := range fields[1:9] { // user nice system idle iowait irq softirq steal
			n, err := strconv.ParseUint(field, 10, 64)
			if err != nil {
				return 0, 0, fmt.Errorf("read the time of CPU %d: %w", cpu, err)
			}
			all += n
			if i != 3 && i != 4 {
				busy += n
			}
		}
		return busy, all, nil
	}
	return 0, 0, fmt.Errorf("read the time of CPU %d: it is not there", cpu)
}

func pinThread(cpu int) error {
	var set unix.CPUSet
	set.Set(cpu)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("pin thread to CPU %d: %w", cpu, err)
	}
	return nil
}
