// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"net/netip"
	"testing"
)

// The values are those of the reference implementation of splitmix64: its state after n steps
// is n times the golden gamma, and its output the finalizer of that.
func TestHashMix(t *testing.T) {
	const gamma = 0x9e3779b97f4a7c15
	for n, want := range []uint64{0, 0xe220a8397b1dcdaf, 0x6e789e6aa1b965f4, 0x06c45d188009454f} {
		if got := HashMix(uint64(n) * gamma); got != want {
			t.Errorf("step %d: %#x, want %#x", n, got, want)
		}
	}
}

func TestBinsAreEven(t *testing.T) {
	const bins, each = 64, 1000
	var count [bins]int
	for v := range uint64(bins * each) {
		count[Bin(12345, v, bins)]++
	}
	for i, n := range count {
		if n < each*8/10 || n > each*12/10 {
			t.Errorf("bin %d of %d has %d of %d", i, bins, n, bins*each)
		}
	}
	if top := HashMix(7^9) >> 56; Bin(7, 9, 256) != int(top) {
		t.Errorf("the bin of 256 is not the top byte, %d", top)
	}
}

func TestValues(t *testing.T) {
	for a, want := range map[string][2]uint64{
		"192.0.2.7":          {0xc0000207, 0xc00002},
		"2001:db8:1:2:3::99": {0x20010db800010002, 0x20010db80001},
	} {
		addr := netip.MustParseAddr(a)
		if got := [2]uint64{SourceValue(addr), SourceNetValue(addr)}; got != want {
			t.Errorf("%s: %#x, want %#x", a, got, want)
		}
	}
	f := Fingerprint{Protocol: 6, TCPFlags: 0x12, DataOffset: 10, Size: 3, TTL: 255, DF: true, Fragment: 2, Window: 0xabcd}
	if got, want := f.Word(), uint64(0xabcd)<<30|2<<28|1<<27|7<<24|3<<20|10<<16|0x12<<8|6; got != want {
		t.Errorf("fingerprint %#x, want %#x", got, want)
	}
	for length, want := range map[uint32]SizeClass{0: 0, 63: 0, 64: 1, 1023: 4, 1499: 5, 1500: 6, 65535: 6} {
		if got := SizeClassOf(length); got != want {
			t.Errorf("%d bytes: class %d, want %d", length, got, want)
		}
	}
	if LengthBin(1511) != 62 || LengthBin(1512) != 63 || LengthBin(65535) != 63 || TTLBin(255) != 63 || TTLBin(3) != 0 {
		t.Error("lengths or TTLs are in other bins than Histograms says")
	}
	if ReflectionOf(53) != ReflectionDNS || ReflectionOf(4500) != ReflectionISAKMP || ReflectionOf(37810) != ReflectionOther || ReflectionOf(443) != ReflectionNone {
		t.Error("source ports stand for other services than Reflection says")
	}
}
