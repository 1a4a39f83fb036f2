// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"errors"
	"testing"

	"github.com/cilium/ebpf"
)

// verifierBudget is a tenth of what the kernel allows: the work for one unchanged
// object has doubled between kernels before, and the next must still take ours.
const verifierBudget = 100_000

func TestVerifierBudget(t *testing.T) {
	for name, tunnels := range map[string]Tunnel{
		"no tunnel":    0,
		"every tunnel": TunnelIPIP | Tunnel6in4 | TunnelGRE | TunnelVXLAN,
	} {
		t.Run(name, func(t *testing.T) {
			p, err := New(Options{Tunnels: tunnels})
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			n, err := p.VerifierCost()
			if errors.Is(err, ebpf.ErrNotSupported) {
				t.Skip("this kernel does not tell how many instructions it verified (5.16 does)")
			}
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("verified instructions: %d of %d", n, verifierBudget)
			if n > verifierBudget {
				t.Errorf("%d verified instructions, the budget is %d", n, verifierBudget)
			}
		})
	}
}
