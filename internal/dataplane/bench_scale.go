// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"

	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// ScaleOptions size BenchScale: one point for each number of prefixes, signatures and sources.
type ScaleOptions struct {
	Rounds     int
	Packets    int // of each point in a round
	Prefixes   []int
	Signatures []int
	Sources    []int
}

// The axes of BenchScale and the programs on them.
const (
	ScalePrefixes   = "prefixes"
	ScaleSignatures = "signatures"
	ScaleSources    = "sources"

	EngineSentinel = "sentinel_x"
	EngineTutorial = "tutorial" // LPM_TRIE for the list, LRU_HASH for the rates
)

// ScaleSeries is what a packet costs along one axis.
type ScaleSeries struct {
	Axis   string       `json:"axis"`
	Engine string       `json:"engine"`
	Case   string       `json:"case"`
	Points []ScalePoint `json:"points"`
}

// ScalePoint is one measurement.
type ScalePoint struct {
	N       int     `json:"n"`
	NS      float64 `json:"ns"`       // a packet, with the harness; median over the rounds
	AddedNS float64 `json:"added_ns"` // over a bare XDP_DROP with the same packets
}

// scalePoint is where in which series a setup's result belongs.
type scalePoint struct {
	axis, engine, name string
	n                  int
}

// BenchScale measures as BenchVerdict does, along the three axes that attackers and
// operators stretch, and the tutorial's firewall beside it where it has the axis.
func BenchScale(ctx context.Context, o Options, sizes ScaleOptions) (series []ScaleSeries, err error) {
	b, err := newBench(o, sizes.Packets)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	points, setups := scaleSetups(sizes)
	runs, err := b.rounds(ctx, setups, sizes.Rounds)
	if err != nil {
		return nil, err
	}
	at := map[scalePoint]int{} // without n → index in series
	for i, p := range points {
		n := p.n
		p.n = 0
		if _, ok := at[p]; !ok {
			at[p] = len(series)
			series = append(series, ScaleSeries{Axis: p.axis, Engine: p.engine, Case: p.name})
		}
		s := &series[at[p]]
		s.Points = append(s.Points, ScalePoint{N: n, NS: median(runs[i].ns), AddedNS: median(runs[i].added)})
	}
	return series, nil
}

func scaleSetups(o ScaleOptions) (points []scalePoint, setups []benchSetup) {
	add := func(axis, engine, name string, n int, s benchSetup) {
		s.name, s.frame = fmt.Sprintf("%s, %s of %d %s", engine, name, n, axis), benchIPv4
		s.lists.family, s.lists.tutorial = 4, engine == EngineTutorial
		points, setups = append(points, scalePoint{axis, engine, name, n}), append(setups, s)
	}
	for _, n := range o.Prefixes {
		for _, engine := range []string{EngineSentinel, EngineTutorial} {
			lists := benchLists{entries: n}
			add(ScalePrefixes, engine, "listed", n, benchSetup{lists: lists, from: stream{4, 0, uint32(n)}, want: traffic.ReasonBlocklist})
			add(ScalePrefixes, engine, "not_listed", n, benchSetup{lists: lists, from: stream{4, strangers, 0}, want: traffic.ReasonPass})
		}
	}
	for _, n := range o.Signatures {
		known := stream{4, strangers, benchSources}
		add(ScaleSignatures, EngineSentinel, "no_match", n, benchSetup{state: benchState{rules: n}, from: known, want: traffic.ReasonPass})
		add(ScaleSignatures, EngineSentinel, "match", n,
			benchSetup{state: benchState{rules: n, match: true}, from: known, want: traffic.ReasonSignature})
	}
	for _, n := range o.Sources {
		for _, engine := range []string{EngineSentinel, EngineTutorial} {
			add(ScaleSources, engine, "metered", n,
				benchSetup{state: benchState{limit: noLimitReached}, from: stream{4, strangers, uint32(n)}, want: traffic.ReasonPass})
		}
	}
	return points, setups
}

// tutorial is the firewall of the tutorials, in bpf/bench.bpf.c.
type tutorial struct {
	objs struct {
		Tutorial *ebpf.Program  `ebpf:"tutorial"`
		Prefixes *ebpf.Map      `ebpf:"prefixes"`
		Rates    *ebpf.Map      `ebpf:"rates"`
		Dropped  *ebpf.Variable `ebpf:"dropped"`
	}
}

type tutorialState struct {
	entries int
	limit   uint64
}

func newTutorial(s tutorialState, frags bool) (*tutorial, error) {
	spec, err := loadBench()
	if err != nil {
		return nil, fmt.Errorf("read the tutorial's firewall: %w", err)
	}
	if frags {
		spec.Programs["tutorial"].Flags |= bpfFXDPHasFrags
	}
	spec.Maps["prefixes"].MaxEntries = uint32(max(1, s.entries))
	if err := spec.Variables["rate_limit"].Set(s.limit); err != nil {
		return nil, fmt.Errorf("set the tutorial's limit: %w", err)
	}
	t := &tutorial{}
	if err := spec.LoadAndAssign(&t.objs, nil); err != nil {
		return nil, fmt.Errorf("load the tutorial's firewall: %w", err)
	}
	if err := fillTrie(t.objs.Prefixes, listedPrefixes(4, s.entries)); err != nil {
		return nil, errors.Join(err, t.close())
	}
	return t, nil
}

func (t *tutorial) close() error {
	return errors.Join(t.objs.Tutorial.Close(), t.objs.Prefixes.Close(), t.objs.Rates.Close())
}

func (b *bench) measureTutorial(s benchSetup, frame []byte) (float64, error) {
	state := tutorialState{s.lists.entries, s.state.limit}
	t, ok := b.others[state]
	if !ok {
		var err error
		if t, err = newTutorial(state, b.frags); err != nil {
			return 0, err
		}
		b.others[state] = t
	}
	if err := t.objs.Dropped.Set(uint64(0)); err != nil {
		return 0, fmt.Errorf("reset the tutorial's counter: %w", err)
	}
	ns, err := b.harness.run(t.objs.Tutorial, frame, s.from, b.packets)
	if err != nil {
		return 0, err
	}
	var n uint64
	if err := t.objs.Dropped.Get(&n); err != nil {
		return 0, fmt.Errorf("read the tutorial's counter: %w", err)
	}
	if s.want == traffic.ReasonPass {
		n = uint64(b.packets) - n
	}
	if n < uint64(b.packets)*9/10 {
		return 0, fmt.Errorf("%d of %d packets ended as %v", n, b.packets, s.want)
	}
	return ns, nil
}

// fillTrie puts IPv4 prefixes into the tutorial's trie.
func fillTrie(trie *ebpf.Map, prefixes []netip.Prefix) error {
	if len(prefixes) == 0 {
		return nil
	}
	keys, values := make([]benchPrefixKey, len(prefixes)), make([]uint32, len(prefixes))
	for i, p := range prefixes {
		b := p.Addr().As4()
		keys[i] = benchPrefixKey{Length: uint32(p.Bits()), Addr: binary.LittleEndian.Uint32(b[:])}
	}
	_, err := trie.BatchUpdate(keys, values, nil)
	if errors.Is(err, ebpf.ErrNotSupported) { // before 5.16
		err = nil
		for i := 0; err == nil && i < len(keys); i++ {
			err = trie.Put(keys[i], values[i])
		}
	}
	if err != nil {
		return fmt.Errorf("fill the trie with %d prefixes: %w", len(prefixes), err)
	}
	return nil
}
