// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/sentinel-x/sentinel-x/internal/config"
	"github.com/sentinel-x/sentinel-x/internal/dataplane"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// BenchHost says where and when a benchmark ran.
type BenchHost struct {
	Kernel string    `json:"kernel"`
	CPU    string    `json:"cpu"`
	CPUs   int       `json:"cpus"`
	Date   time.Time `json:"date"` // UTC, of the start
}

// NewBenchHost describes this machine, now.
func NewBenchHost() BenchHost {
	return BenchHost{
		Kernel: kernelRelease(), CPU: cpuModel("/proc/cpuinfo"), CPUs: runtime.NumCPU(),
		Date: time.Now().UTC().Truncate(time.Second),
	}
}

// The words of the benchmarks, for those who may not import dataplane.
type (
	// BenchSizes size BenchVerdict.
	BenchSizes = dataplane.BenchOptions
	// BenchCase is one of its results.
	BenchCase = dataplane.BenchCase
	// ScaleSizes size BenchScale.
	ScaleSizes = dataplane.ScaleOptions
	// ScaleSeries is what a packet costs along one axis.
	ScaleSeries = dataplane.ScaleSeries
	// ScalePoint is one measurement of it.
	ScalePoint = dataplane.ScalePoint
)

// DefaultBenchSizes end within 50 s on a small machine.
func DefaultBenchSizes() BenchSizes {
	return BenchSizes{Rounds: 9, Packets: 400_000, Prefixes: 1_000_000}
}

// DefaultScaleSizes end within 50 s on a small machine.
func DefaultScaleSizes() ScaleSizes {
	return ScaleSizes{
		Rounds: 3, Packets: 400_000,
		Prefixes:   []int{1_000, 10_000, 100_000, 1_000_000},
		Signatures: []int{1, 8, 16, 32, 64},
		Sources:    []int{1, 1_000, 65_536, 1_000_000, 10_000_000},
	}
}

// VerdictReport is what a packet costs here.
type VerdictReport struct {
	BenchHost
	dataplane.BenchResult
	Verifier dataplane.VerifierCost `json:"verifier"`
}

// BenchVerdict measures what a verdict adds to a bare XDP_DROP in the same harness.
// Of the configuration, policies, tunnels and sizes count.
func BenchVerdict(ctx context.Context, cfg config.Config, sizes BenchSizes) (VerdictReport, error) {
	r := VerdictReport{BenchHost: NewBenchHost()}
	po := PlaneOptions(cfg)
	var err error
	if r.Verifier, err = dataplane.Verify(po); err != nil {
		return r, err
	}
	r.BenchResult, err = dataplane.BenchVerdict(ctx, po, sizes)
	return r, err
}

// ScaleReport is what a packet costs against the length of the lists, the number of
// signatures and the number of sources.
type ScaleReport struct {
	BenchHost
	Rounds  int           `json:"rounds"`
	Packets int           `json:"packets"`
	Series  []ScaleSeries `json:"series"`
}

// BenchScale measures how the cost of a verdict grows.
func BenchScale(ctx context.Context, cfg config.Config, sizes ScaleSizes) (ScaleReport, error) {
	r := ScaleReport{BenchHost: NewBenchHost(), Rounds: sizes.Rounds, Packets: sizes.Packets}
	var err error
	r.Series, err = dataplane.BenchScale(ctx, PlaneOptions(cfg), sizes)
	return r, err
}

// MemoryLimit is what all maps together may take in the default configuration, bytes.
const MemoryLimit = 5_200_000

// MemoryMap is what the kernel charges for one map.
type MemoryMap struct {
	Name    string `json:"name"`
	Bytes   uint64 `json:"bytes"`
	Entries uint32 `json:"entries"` // it may hold at most
}

// MemorySetup is one configuration with its maps.
type MemorySetup struct {
	Name  string      `json:"name"`
	What  string      `json:"what"`
	Bytes uint64      `json:"bytes"` // of all maps
	Maps  []MemoryMap `json:"maps"`
}

// MemoryReport is what the kernel charges for the maps.
type MemoryReport struct {
	BenchHost
	LimitBytes uint64        `json:"limit_bytes"`
	Within     bool          `json:"within"` // every setup is
	Setups     []MemorySetup `json:"setups"`
}

// BenchMemory loads the program with a configuration, and once more with limits
// on, each with a few protected addresses on the lists as a start finds them.
func BenchMemory(cfg config.Config) (MemoryReport, error) {
	r := MemoryReport{BenchHost: NewBenchHost(), LimitBytes: MemoryLimit, Within: true}
	o := PlaneOptions(cfg)
	limited := o
	for c := range limited.Limits.Class {
		limited.Limits.Class[c] = traffic.Limit{Packets: 1000, Bytes: 1_000_000, Burst: time.Second}
	}
	for _, s := range []struct {
		name, what string
		options    dataplane.Options
	}{
		{"start", "as configured", o},
		{"limits", "with limits for every source", limited},
	} {
		maps, err := measureMemory(s.options)
		if err != nil {
			return r, err
		}
		setup := MemorySetup{Name: s.name, What: s.what}
		for _, m := range maps {
			setup.Maps = append(setup.Maps, MemoryMap(m))
			setup.Bytes += m.Bytes
		}
		r.Within = r.Within && setup.Bytes <= r.LimitBytes
		r.Setups = append(r.Setups, setup)
	}
	return r, nil
}

// benchProtected stands for the machine's own addresses, gateway and name servers.
var benchProtected = []netip.Prefix{
	netip.MustParsePrefix("192.0.2.1/32"), netip.MustParsePrefix("192.0.2.254/32"), netip.MustParsePrefix("198.51.100.53/32"),
	netip.MustParsePrefix("2001:db8::1/128"), netip.MustParsePrefix("2001:db8::53/128"),
}

func measureMemory(o dataplane.Options) ([]dataplane.MapMemory, error) {
	o.PinPath = ""
	p, err := dataplane.New(o)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	var protected []traffic.Entry
	for _, prefix := range benchProtected {
		protected = append(protected, traffic.Entry{Prefix: prefix})
	}
	if err := p.Put(traffic.ListProtected, protected); err != nil {
		return nil, err
	}
	return p.Memory()
}

func cpuModel(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
