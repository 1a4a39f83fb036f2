// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"os"
	"runtime"
	"strings"

	"github.com/sentinel-x/sentinel-x/internal/config"
	"github.com/sentinel-x/sentinel-x/internal/dataplane"
)

// BenchOptions sizes a benchmark; zero values are the defaults.
type BenchOptions struct {
	Rounds int // default 9
	Repeat int // packets a case and round, default 1 000 000
	Config config.Config
}

// BenchReport is what a packet costs here.
type BenchReport struct {
	Kernel string `json:"kernel"`
	CPU    string `json:"cpu"`
	CPUs   int    `json:"cpus"`
	dataplane.BenchResult
	VerifierInstructions uint32 `json:"verifier_instructions"`
}

// BenchVerdict measures what a verdict adds to a bare XDP_DROP in the same harness.
func BenchVerdict(_ context.Context, o BenchOptions) (BenchReport, error) {
	if o.Rounds == 0 {
		o.Rounds = 9
	}
	if o.Repeat == 0 {
		o.Repeat = 1_000_000
	}
	r := BenchReport{Kernel: kernelRelease(), CPU: cpuModel("/proc/cpuinfo"), CPUs: runtime.NumCPU()}
	po := planeOptions(o.Config)
	po.EventsPerSecond = 0
	p, err := dataplane.New(po)
	if err != nil {
		return r, err
	}
	r.VerifierInstructions, _ = p.VerifierCost() // 0 on kernels that do not tell
	if err := p.Close(); err != nil {
		return r, err
	}
	r.BenchResult, err = dataplane.Bench(po, o.Rounds, o.Repeat)
	return r, err
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
