// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"errors"
	"fmt"
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
}

// DefaultPeerSizes end within 50 s.
func DefaultPeerSizes() PeerSizes {
	return PeerSizes{Rounds: 2, Duration: 1200 * time.Millisecond, Prefixes: 1}
}

// MaxPeerPrefixes is the most that may be blocked: one for each source of the flood.
const MaxPeerPrefixes = peerSources

const (
	peerSources   = 1 << 16                // of the flood
	peerWarmUp    = 300 * time.Millisecond // at most, and never longer than the measurement
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

// PeerCase is how one filter did under the flood.
type PeerCase struct {
	Name        string  `json:"name"`
	What        string  `json:"what"`
	MPPS        float64 `json:"mpps"`        // millions of frames a second that it dropped; none: that the stack dropped
	OfBare      float64 `json:"of_bare"`     // share of what bare XDP_DROP dropped
	ThreadMPPS  float64 `json:"thread_mpps"` // dropped in a second of the filtering thread's own time: what else the core did, is out
	ThreadBare  float64 `json:"thread_of_bare"`
	OfferedMPPS float64 `json:"offered_mpps"`  // sent by the generator; what the ring had no room for is in no other figure
	CPUPercent  float64 `json:"cpu_pct"`       // of the victim's core, not idle
	Requests    int     `json:"requests"`      // real ones, sent beside the flood
	LostPercent float64 `json:"requests_lost"` // without an answer, %
	P50Micros   float64 `json:"rtt_p50_us"`    // of those answered; 0: none was
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

// peerSamples is what the rounds of one case saw.
type peerSamples struct {
	mpps, thread       []float64
	offered, cpu       []float64
	requests, answered int
	rtt                *hdrhistogram.Histogram // ns
}

// BenchPeers sends the same flood against Sentinel-X and against what else the machine
// has, each in a network of its own, and measures what each drops on the victim's core
// and how real requests fare beside it. It needs two CPUs: one sends, the other filters.
func BenchPeers(ctx context.Context, cfg config.Config, sizes PeerSizes) (PeerReport, error) {
	r := PeerReport{
		BenchHost: engine.NewBenchHost(), Prefixes: sizes.Prefixes, Sources: peerSources,
		Rounds: sizes.Rounds, Seconds: sizes.Duration.Seconds(), Missing: []MissingPeer{},
	}
	if runtime.NumCPU() < 2 {
		return r, errors.New("compare filters: two CPUs are needed, one for the sender and one for the victim")
	}
	samples := map[string]*peerSamples{}
	for range sizes.Rounds {
		for _, f := range peerFilters {
			if slices.ContainsFunc(r.Missing, func(m MissingPeer) bool { return m.Name == f.name }) {
				continue
			}
			if samples[f.name] == nil {
				samples[f.name] = &peerSamples{rtt: hdrhistogram.New(1, int64(10*time.Second), 3)}
			}
			err := runPeer(ctx, cfg, sizes, f, samples[f.name])
			if ctx.Err() != nil {
				return r, ctx.Err()
			}
			if missing, ok := errors.AsType[*missingError](err); ok {
				r.Missing = append(r.Missing, MissingPeer{f.name, missing.Error()})
				continue
			}
			if err != nil {
				return r, fmt.Errorf("%s: %w", f.name, err)
			}
		}
	}
	r.Cases = peerCases(samples)
	return r, nil
}

func peerCases(samples map[string]*peerSamples) (cases []PeerCase) {
	var bare PeerCase
	for _, f := range peerFilters {
		s := samples[f.name]
		if s == nil || len(s.mpps) == 0 {
			continue
		}
		c := PeerCase{
			Name: f.name, What: f.what, MPPS: mean(s.mpps), ThreadMPPS: mean(s.thread), OfferedMPPS: mean(s.offered), CPUPercent: mean(s.cpu),
			Requests: s.requests, LostPercent: 100 * (1 - float64(s.answered)/float64(max(1, s.requests))),
		}
		if s.answered > 0 {
			c.P50Micros, c.P99Micros, c.MaxMicros = quantile(s, 50), quantile(s, 99), quantile(s, 100)
		}
		if f.name == peerBare {
			bare = c
		}
		if bare.MPPS > 0 {
			c.OfBare, c.ThreadBare = c.MPPS/bare.MPPS, c.ThreadMPPS/bare.ThreadMPPS
		}
		cases = append(cases, c)
	}
	return cases
}

func quantile(s *peerSamples, q float64) float64 { return float64(s.rtt.ValueAtQuantile(q)) / 1000 }

func mean(x []float64) float64 {
	var sum float64
	for _, v := range x {
		sum += v
	}
	return sum / float64(len(x))
}

// runPeer measures one filter once, in a network that exists only for that.
func runPeer(ctx context.Context, cfg config.Config, sizes PeerSizes, f peerFilter, s *peerSamples) (err error) {
	if err := f.tool(); err != nil {
		return err
	}
	n, err := NewNet(NetOptions{PinNAPI: true, CPU: victimCPU})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	if err := n.preparePeers(); err != nil {
		return err
	}
	run := &peerRun{ctx: ctx, net: n, config: cfg, prefixes: blockedPrefixes(sizes.Prefixes)}
	defer func() { err = errors.Join(err, run.release()) }()
	if err := n.Victim.Do(func() error { return f.setUp(run) }); err != nil {
		if f.ours {
			return err
		}
		return &missingError{err}
	}
	return n.measurePeer(ctx, sizes.Duration, f, s)
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

// measurePeer floods, and takes what passes between the end of the warm-up and the end.
func (n *Net) measurePeer(ctx context.Context, d time.Duration, f peerFilter, s *peerSamples) (err error) {
	echo, err := n.startEcho(victimCPU)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, echo.close()) }()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	g, err := dataplane.NewGenerator(dataplane.Flood{
		Interface: n.PeerEnd.Index, SourceMAC: n.PeerEnd.MAC, DestMAC: n.VictimEnd.MAC,
		Kind: dataplane.FloodUDP, Source: floodNet, Sources: peerSources, Dest: Victim4, DestPort: peerPort, Size: peerFrame,
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
	err = n.watchFlood(ctx, g, d, f, s)
	stop()
	return errors.Join(err, <-flooded)
}

func (n *Net) watchFlood(ctx context.Context, g *dataplane.Generator, d time.Duration, f peerFilter, s *peerSamples) error {
	wait(ctx, min(peerWarmUp, d))
	before, err := n.look(g)
	if err != nil {
		return err
	}
	if err := n.ask(ctx, d, s); err != nil {
		return err
	}
	after, err := n.look(g)
	if err != nil {
		return err
	}
	return s.add(f, before, after)
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

func (n *Net) look(g *dataplane.Generator) (p peerSight, err error) {
	p.at = time.Now()
	if p.sent, err = g.Sent(); err != nil {
		return p, err
	}
	stats, err := n.VictimEnd.Stats()
	if err != nil {
		return p, err
	}
	p.received = stats.RxPackets
	if err := n.Victim.Do(func() (err error) { p.stack, err = strayDatagrams(); return err }); err != nil {
		return p, err
	}
	if p.busy, p.busyOrIdle, err = coreTicks(victimCPU); err != nil {
		return p, err
	}
	p.thread, err = n.VictimEnd.napiTime()
	return p, err
}

// add takes the difference of two sights. Whatever left the ring and did not get to
// the stack was dropped by the filter, but for the few requests, which are answered.
func (s *peerSamples) add(f peerFilter, a, b peerSight) error {
	seconds := b.at.Sub(a.at).Seconds()
	received, stack := float64(b.received-a.received), float64(b.stack-a.stack)
	ran := float64(b.thread - a.thread)
	if received == 0 || ran == 0 {
		return errors.New("nothing of the flood arrived")
	}
	dropped := received - stack
	if f.name == peerNone {
		dropped = stack
	}
	if leaked := received - dropped - f.entitled(seconds); leaked > peerMostLeaks*received {
		return fmt.Errorf("it dropped %.0f of %.0f frames", dropped, received)
	}
	s.mpps = append(s.mpps, dropped/seconds/1e6)
	s.thread = append(s.thread, 1000*dropped/ran)
	s.offered = append(s.offered, float64(b.sent-a.sent)/seconds/1e6)
	if all := b.busyOrIdle - a.busyOrIdle; all > 0 {
		s.cpu = append(s.cpu, 100*float64(b.busy-a.busy)/float64(all))
	}
	return nil
}

// blockedPrefixes returns n prefixes. All of the flood's sources are in them; when n is
// no power of two, some are blocked and send nothing.
func blockedPrefixes(n int) []netip.Prefix {
	bits := floodNet.Bits()
	for used := 1; used*2 <= n; used *= 2 {
		bits++
	}
	all := make([]netip.Prefix, n)
	size := uint32(1) << (32 - bits)
	used := 1 << (bits - floodNet.Bits())
	for i := range all {
		base, at := floodNet.Addr(), uint32(i)
		if i >= used {
			base, at = otherNet, uint32(i-used)
		}
		all[i] = netip.PrefixFrom(addressAfter(base, at*size), bits)
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
