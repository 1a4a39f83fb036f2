// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"encoding/hex"
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"
)

// Every case must be the case it is called; how long it takes is not a matter for a test.
func TestBenchMeasuresWhatItSays(t *testing.T) {
	sizes := BenchOptions{Rounds: 2, Packets: 2000, Prefixes: 3000}
	r, err := BenchVerdict(t.Context(), Options{}, sizes)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Cases) != len(benchSetups(sizes)) || r.BaselineNS <= 0 {
		t.Errorf("result %+v", r)
	}
	for _, c := range r.Cases {
		if c.NS <= 0 || c.BaselineNS <= 0 || c.P99NS < c.P50NS || c.P50NS <= 0 {
			t.Errorf("case %+v", c)
		}
	}
}

// The lists hold what the harness sends because both sides make addresses alike.
func TestHarnessWritesTheSourcesOfTheList(t *testing.T) {
	features, err := Probe()
	if err != nil {
		t.Fatal(err)
	}
	h, err := newHarness(features.Frags)
	if err != nil {
		t.Fatal(err)
	}
	defer h.close()
	for _, kind := range []packetKind{
		{benchIPv4, stream{4, 7, 1}},
		{benchIPv4, stream{4, strangers, 1}},
		{benchIPv6, stream{6, 7, 1}},
		{benchIPv6, stream{6, strangers, 1}},
	} {
		got := firstSource(t, h, kind)
		if want := sourceAt(kind.from.family, kind.from.first); got != want {
			t.Errorf("%+v: packet from %v, want %v", kind.from, got, want)
		}
	}
	if got := sourceAt(4, 7); !listedPrefixes(4, 8)[7].Contains(got) || got == (netip.Addr{}) {
		t.Errorf("prefix 7 does not hold address 7, %v", got)
	}
}

func firstSource(t *testing.T, h *harness, kind packetKind) netip.Addr {
	t.Helper()
	frame, err := hex.DecodeString(kind.frame)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.prepare(h.objs.Drop, kind.from); err != nil {
		t.Fatal(err)
	}
	out := make([]byte, len(frame))
	if _, err := h.objs.Stir.Run(&ebpf.RunOptions{Data: frame, DataOut: out}); err != nil {
		t.Fatal(err)
	}
	source := out[26:30]
	if kind.from.family == 6 {
		source = out[22:38]
	}
	a, _ := netip.AddrFromSlice(source)
	return a
}
