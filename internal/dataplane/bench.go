// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// BenchCase is what one packet costs under one state of lists and limits.
type BenchCase struct {
	Name    string  `json:"name"`
	What    string  `json:"what"`
	NS      float64 `json:"ns"`       // a packet, median over the rounds
	AddedNS float64 `json:"added_ns"` // over the bare XDP_DROP of the same round, median
	MinNS   float64 `json:"min_ns"`   // smallest and largest added time of a round
	MaxNS   float64 `json:"max_ns"`
}

// BenchResult is a run of Bench.
type BenchResult struct {
	BaselineNS float64     `json:"baseline_ns"` // a bare XDP_DROP in the same harness, median
	Rounds     int         `json:"rounds"`
	Repeat     int         `json:"repeat"` // packets a case and round
	Cases      []BenchCase `json:"cases"`
}

// benchSetup is a case before it is measured.
type benchSetup struct {
	name, what string
	frame      string // hex
	limits     traffic.Limits
	want       traffic.Reason
}

const (
	benchEthernet4 = "0200000000010200000000020800"
	benchEthernet6 = "02000000000102000000000286dd"
	// TCP ACK from 203.0.113.1, 203.0.113.2 and 192.0.2.1, ports 1024 → 80, to 198.51.100.10. The limited
	// source is one of its own: its bucket stays full from round to round.
	benchTCP     = "04000050000000010000000150100200000000000000000000000000"
	benchClean   = benchEthernet4 + "45000028000100004006000" + "0cb007101c633640a" + benchTCP
	benchLimited = benchEthernet4 + "45000028000100004006000" + "0cb007102c633640a" + benchTCP
	benchBlocked = benchEthernet4 + "45000028000100004006000" + "0c0000201c633640a" + benchTCP
	// Hop-by-hop, routing and destination options in front of TCP.
	benchExtended = benchEthernet6 + "60000000002c0040" + "20010db8000000000000000000000001" + "20010db8000000000000000000000002" +
		"2b00010400000000" + "3c00000000000000" + "0600010400000000" + benchTCP
)

func benchSetups() []benchSetup {
	limit := func(pps uint64) (l traffic.Limits) {
		l.Class[traffic.ClassAll] = traffic.Limit{Packets: pps, Burst: time.Second}
		return l
	}
	return []benchSetup{
		{"pass_clean", "IPv4 TCP, source on no list, no limit", benchClean, traffic.Limits{}, traffic.ReasonPass},
		{"pass_metered", "the same, metered and under its limit", benchClean, limit(1e9), traffic.ReasonPass},
		{"pass_ipv6_ext", "IPv6 TCP behind three extension headers", benchExtended, traffic.Limits{}, traffic.ReasonPass},
		{"drop_blocklist", "source on the block list (1 entry)", benchBlocked, traffic.Limits{}, traffic.ReasonBlocklist},
		{"drop_limit", "source over its limit", benchLimited, limit(1), traffic.ReasonLimit},
	}
}

// Bench measures the loaded program with BPF_PROG_TEST_RUN, in rounds of all cases
// in turn, so that a machine whose speed drifts moves them together.
func Bench(o Options, rounds, repeat int) (BenchResult, error) {
	o.PinPath = ""
	p, err := New(o)
	if err != nil {
		return BenchResult{}, err
	}
	defer p.Close()
	bare, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.XDP, License: "Dual BSD/GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 1), asm.Return()},
	})
	if err != nil {
		return BenchResult{}, fmt.Errorf("load bare XDP_DROP: %w", err)
	}
	defer bare.Close()
	if err := p.Put(traffic.ListBlock, []traffic.Entry{{Prefix: netip.MustParsePrefix("192.0.2.1/32")}}); err != nil {
		return BenchResult{}, err
	}
	return p.bench(bare, rounds, repeat)
}

func (p *Plane) bench(bare *ebpf.Program, rounds, repeat int) (BenchResult, error) {
	r := BenchResult{Rounds: rounds, Repeat: repeat}
	setups := benchSetups()
	times := make([][]float64, len(setups))
	added := make([][]float64, len(setups))
	var base []float64
	for range rounds {
		floor, err := timeOf(bare, benchClean, repeat)
		if err != nil {
			return r, err
		}
		base = append(base, floor)
		for i, s := range setups {
			ns, err := p.measure(s, repeat)
			if err != nil {
				return r, fmt.Errorf("%s: %w", s.name, err)
			}
			times[i] = append(times[i], ns)
			added[i] = append(added[i], ns-floor)
		}
	}
	r.BaselineNS = median(base)
	for i, s := range setups {
		r.Cases = append(r.Cases, BenchCase{
			Name: s.name, What: s.what, NS: median(times[i]), AddedNS: median(added[i]),
			MinNS: slices.Min(added[i]), MaxNS: slices.Max(added[i]),
		})
	}
	return r, nil
}

// measure times one case, and makes sure that it was the case it is called.
func (p *Plane) measure(s benchSetup, repeat int) (float64, error) {
	if err := p.SetLimits(s.limits); err != nil {
		return 0, err
	}
	before, err := p.Counters()
	if err != nil {
		return 0, err
	}
	ns, err := timeOf(p.objs.Sentinel, s.frame, repeat)
	if err != nil {
		return 0, err
	}
	after, err := p.Counters()
	if err != nil {
		return 0, err
	}
	b, a := before.Reason(s.want), after.Reason(s.want)
	if n := a.Sub(b).Packets; n < uint64(repeat)*9/10 {
		return 0, fmt.Errorf("%d of %d packets ended as %v", n, repeat, s.want)
	}
	return ns, nil
}

func timeOf(prog *ebpf.Program, frame string, repeat int) (float64, error) {
	data, err := hex.DecodeString(frame)
	if err != nil {
		return 0, fmt.Errorf("frame: %w", err)
	}
	_, d, err := prog.Benchmark(data, repeat, nil)
	if errors.Is(err, ebpf.ErrNotSupported) {
		return 0, fmt.Errorf("this kernel cannot run a program on a test packet: %w", err)
	}
	if err != nil {
		return 0, fmt.Errorf("run the program: %w", err)
	}
	return float64(d.Nanoseconds()), nil
}

func median(x []float64) float64 {
	s := slices.Sorted(slices.Values(x))
	return s[len(s)/2]
}
