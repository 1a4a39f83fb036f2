// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
)

func TestOrder(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var all []netip.Prefix
	for range 5000 {
		a := netip.AddrFrom4([4]byte{byte(r.IntN(4) * 85), byte(r.IntN(2)), byte(r.IntN(256)), byte(r.IntN(256))})
		if r.IntN(2) == 0 {
			a = netip.AddrFrom16([16]byte{byte(r.IntN(4) * 85), 8: byte(r.IntN(2)), 15: byte(r.IntN(256))})
		}
		all = append(all, netip.PrefixFrom(a, r.IntN(a.BitLen()+1)).Masked())
	}
	want := make([]int, len(all))
	for i := range want {
		want[i] = i
	}
	slices.SortStableFunc(want, func(a, b int) int { return all[a].Compare(all[b]) })
	for i, at := range Order(len(all), func(i int) netip.Prefix { return all[i] }) {
		if int(at) != want[i] {
			t.Fatalf("place %d has %d, %v; want %d, %v", i, at, all[at], want[i], all[want[i]])
		}
	}
	for i, p := range all[1:] {
		if got, want := ComparePrefixes(all[i], p), all[i].Compare(p); got != want {
			t.Errorf("%v and %v compare as %d, want %d", all[i], p, got, want)
		}
	}
}
