// SPDX-License-Identifier: Apache-2.0

package dataplane

import "testing"

// verifierBudget is a tenth of what the kernel allows: the work for one unchanged
// object has doubled between kernels before, and the next must still take ours.
const verifierBudget = 100_000

func TestVerifierBudget(t *testing.T) {
	for name, tunnels := range map[string]Tunnel{
		"no tunnel":    0,
		"every tunnel": TunnelIPIP | Tunnel6in4 | TunnelGRE | TunnelVXLAN,
	} {
		t.Run(name, func(t *testing.T) {
			c, err := Verify(Options{Tunnels: tunnels})
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("verified instructions: %d of %d; stack of the program and each subprogram: %v bytes", c.Instructions, verifierBudget, c.Stack)
			if c.Instructions > verifierBudget {
				t.Errorf("%d verified instructions, the budget is %d", c.Instructions, verifierBudget)
			}
		})
	}
}
