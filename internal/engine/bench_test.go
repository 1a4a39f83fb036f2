// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/sentinel-x/sentinel-x/internal/config"
)

// The default configuration, with and without limits, keeps to the budget of kernel
// memory on machines of up to 32 CPUs; each more takes its own counters.
func TestMemoryBudget(t *testing.T) {
	r, err := BenchMemory(config.Default())
	if err != nil {
		t.Fatal(err)
	}
	const cpus, counters = 32, 16 << 10
	room := r.LimitBytes + uint64(max(0, runtime.NumCPU()-cpus))*counters
	for _, s := range r.Setups {
		t.Logf("%s: %d bytes of %d", s.Name, s.Bytes, r.LimitBytes)
		if s.Bytes > room {
			t.Errorf("%s: the maps take %d bytes, the budget is %d: %+v", s.Name, s.Bytes, room, s.Maps)
		}
	}
}

func TestCPUModel(t *testing.T) {
	file := filepath.Join(t.TempDir(), "cpuinfo")
	if err := os.WriteFile(file, []byte("processor\t: 0\nmodel name\t: Some: CPU \n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := cpuModel(file); got != "Some: CPU" {
		t.Errorf("model %q", got)
	}
	if got := cpuModel(file + "-missing"); got != "" {
		t.Errorf("model of nothing %q", got)
	}
}
