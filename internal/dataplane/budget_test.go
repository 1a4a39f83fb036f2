// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"reflect"
	"testing"
)

// verifierBudget is a seventh of what the kernel allows: the work for one unchanged
// object has doubled between kernels before, and the next must still take ours.
const verifierBudget = 150_000

func TestVerifierBudget(t *testing.T) {
	for name, tunnels := range map[string]Tunnel{
		"no tunnel":    0,
		"every tunnel": TunnelIPIP | Tunnel6in4 | TunnelGRE | TunnelVXLAN,
	} {
		t.Run(name, func(t *testing.T) {
			c, err := Verify(Options{Tunnels: tunnels, MaxTargets: 256})
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

// TestVerifierLog reads the statistics as kernels write them.
func TestVerifierLog(t *testing.T) {
	const processed = "processed 33506 insns (limit 1000000) max_states_per_insn 12 total_states 1710 peak_states 598 mark_read 96\n"
	want := VerifierCost{Instructions: 33506, States: 1710, Stack: []int{80, 0, 64}}
	for kernel, log := range map[string]string{
		"5.10 to 6.18": "stack depth 80+0+64\n" + processed,
		"7.3": "stack depth max 144\nsubprog 0 (sentinel) main insns_self 11694 insns_total 24186 stack 80\n" +
			"subprog 1 (ask) global insns_self 6926 insns_total 6926 stack 0\nsubprog 2 (meter) static insns_self 3 insns_total 3 stack 64\n" + processed,
	} {
		if got, err := parseVerifierLog(log); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v", kernel, got, err)
		}
	}
	for name, log := range map[string]string{"nothing": "", "no number": "stack depth 80+x\n" + processed} {
		if c, err := parseVerifierLog(log); err == nil {
			t.Errorf("%s: %+v", name, c)
		}
	}
}
