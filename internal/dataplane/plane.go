// SPDX-License-Identifier: Apache-2.0

// Package dataplane owns the packet path: it loads the XDP program, attaches it to
// interfaces, and offers verbs over its maps. It is the only user of cilium/ebpf.
package dataplane

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"
	"github.com/gaissmai/bart"

	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// Tunnel is a kind of tunnel that the program looks into.
type Tunnel uint32

// The tunnels, bits of enum tunnel in bpf/types.h.
const (
	TunnelIPIP  = Tunnel(bpfTunnelTUNNEL_IPIP)
	Tunnel6in4  = Tunnel(bpfTunnelTUNNEL_6IN4)
	TunnelGRE   = Tunnel(bpfTunnelTUNNEL_GRE)
	TunnelVXLAN = Tunnel(bpfTunnelTUNNEL_VXLAN)
)

// TunnelNames are the words of the configuration for each tunnel.
var TunnelNames = map[string]Tunnel{
	"ipip": TunnelIPIP, "6in4": Tunnel6in4, "gre": TunnelGRE, "vxlan": TunnelVXLAN,
}

// Options fixes what cannot change while the program is loaded. The zero value of a size is its default.
type Options struct {
	Tunnels    Tunnel // bits; 0: none
	Sources    int    // sources metered at once (default 65 536)
	MaxEntries int    // prefixes on all lists together, for each address family (default 1 000 000)
	RingBytes  int    // of the ring of sampled events, a power of two and multiple of the page size (default 256 KiB)

	MaxTargets      int // addresses and networks watched at once, see SetTargets; at most 4096; 0: none, and nothing is counted for any
	SampleRingBytes int // of the ring of their samples, a power of two and multiple of the page size (default 512 KiB)

	EventsPerSecond int // budget of sampled events over all CPUs; 0: none
	Limits          traffic.Limits
	Policies        traffic.Policies
	Observe         bool

	PinPath       string // directory on a bpffs; "": nothing is pinned, the program dies with the process
	AdoptFrom     string // interface whose pinned counters are gone on with
	VerifierLog   bool   // on a refused load, the error carries the verifier's whole log
	VerifierStats bool   // ask the verifier for its statistics, see Verify
	Log           *slog.Logger

	histogramMost uint32 // packets of one target, CPU and tick in the histograms; 0: histogramMost. For benchmarks
}

const (
	defaultSources    = 65536
	defaultMaxEntries = 1_000_000
	defaultRingBytes  = 256 << 10
)

func (o Options) withDefaults() Options {
	if o.Sources == 0 {
		o.Sources = defaultSources
	}
	if o.MaxEntries == 0 {
		o.MaxEntries = defaultMaxEntries
	}
	if o.RingBytes == 0 {
		o.RingBytes = defaultRingBytes
	}
	if o.SampleRingBytes == 0 {
		o.SampleRingBytes = defaultSampleRing
	}
	if o.histogramMost == 0 {
		o.histogramMost = histogramMost
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// Plane is the loaded program with its maps. Its verbs may be called from several goroutines.
type Plane struct {
	o           Options
	log         *slog.Logger
	spec        *ebpf.CollectionSpec
	objs        bpfObjects
	features    Features
	replay      bool
	shared      map[string]*ebpf.Map // what a program loaded anew goes on with, by name
	sections    map[string]*ebpf.Map // those of the constants and variables
	running     sync.RWMutex         // held by who runs objs.Sentinel without mu
	listVersion uint64
	fence       atomic.Uint32 // orders stores to shared memory; its value means nothing
	windows     *windowTable  // nil: off

	mu      sync.Mutex // guards what follows
	knobs   bpfKnobs
	active  uint32
	flipped time.Time
	sources *bart.Table[source]
	lists   *table
	meter   *meterTable // in force
	links   map[string]*attached
	armed   armedSet
	filters filterSet // of the loaded program
}

// New loads the program with empty lists and attaches it nowhere. It returns an
// error that names the missing capability, the missing kernel feature, or the verifier's complaint.
func New(o Options) (*Plane, error) {
	return load(o.withDefaults(), false)
}

func load(o Options, replay bool) (*Plane, error) {
	p, err := unloaded(o, replay)
	if err != nil {
		return nil, err
	}
	if err := p.start(); err != nil {
		return nil, err
	}
	return p, nil
}

// unloaded returns a plane whose program is configured and not yet in the kernel.
func unloaded(o Options, replay bool) (*Plane, error) {
	features, err := Probe()
	if err != nil {
		return nil, err
	}
	spec, err := loadBpf()
	if err != nil {
		return nil, fmt.Errorf("read the embedded BPF object: %w", err)
	}
	p := &Plane{o: o, log: o.Log, spec: spec, features: features, replay: replay, sources: &bart.Table[source]{}, links: map[string]*attached{}}
	return p, p.configure()
}

func (p *Plane) start() error {
	if err := p.create(); err != nil {
		return err
	}
	if err := p.prepare(); err != nil {
		return errors.Join(err, p.free())
	}
	return nil
}

// configure writes the constants and the sizes into the spec.
func (p *Plane) configure() error {
	s := p.spec
	for name, value := range map[string]any{
		bpfVarTunnels: uint32(p.o.Tunnels), bpfVarFrags: p.features.Frags, bpfVarReplay: p.replay,
	} {
		if err := s.Variables[name].Set(value); err != nil {
			return fmt.Errorf("set constant %s: %w", name, err)
		}
	}
	if err := p.seedMeter(); err != nil {
		return err
	}
	if err := p.configureWindows(); err != nil {
		return err
	}
	if p.features.Frags {
		s.Programs[bpfProgSentinel].Flags |= bpfFXDPHasFrags
	}
	s.Maps[bpfMapSamples].MaxEntries = uint32(p.o.RingBytes)
	if p.o.EventsPerSecond == 0 {
		s.Maps[bpfMapSamples].MaxEntries = uint32(pageSize)
	}
	return nil
}

func (p *Plane) create() error {
	opts := &ebpf.CollectionOptions{MapReplacements: p.adoptMaps()}
	defer closeAll(opts.MapReplacements)
	if p.o.VerifierStats {
		opts.Programs.LogLevel = ebpf.LogLevelStats
	}
	if p.o.VerifierLog {
		opts.Programs.LogLevel = ebpf.LogLevelInstruction | ebpf.LogLevelStats
		opts.Programs.LogSizeStart = 64 << 20
	}
	coll, err := ebpf.NewCollectionWithOptions(p.spec, *opts)
	if err != nil {
		return explainLoad(err, p.o.VerifierLog)
	}
	// A program loaded anew goes on with all maps but the constants'.
	p.shared = maps.Clone(coll.Maps)
	delete(p.shared, ".rodata")
	if err := coll.Assign(&p.objs); err != nil {
		coll.Close()
		return fmt.Errorf("take over the loaded objects: %w", err)
	}
	p.sections = coll.Maps
	return nil
}

// Close detaches from every interface, removes the pins and frees the program.
func (p *Plane) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var errs []error
	for name := range p.links {
		errs = append(errs, p.detach(name))
	}
	return errors.Join(append(errs, p.free())...)
}

// Leave frees this process's hold and leaves pinned programs filtering on their
// interfaces. What is not pinned ends.
func (p *Plane) Leave() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var errs []error
	for _, a := range p.links {
		errs = append(errs, a.link.Close())
		a.release()
	}
	p.links = map[string]*attached{}
	return errors.Join(append(errs, p.free())...)
}

func (p *Plane) free() error {
	errs := []error{p.windows.close(), p.objs.Close(), p.lists.close()}
	closeAll(p.sections)
	if p.meter != nil {
		errs = append(errs, p.meter.Close())
	}
	if p.armed.table != nil {
		errs = append(errs, p.armed.table.Close())
	}
	return errors.Join(errs...)
}

func closeAll(maps map[string]*ebpf.Map) {
	for _, m := range maps {
		m.Close()
	}
}
