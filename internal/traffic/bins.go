// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
)

// This file says where a packet is counted in the histograms of a Window by counters in Go, that of
// internal/scene above all. The packet path (bpf/windows.h) hashes the same values, with seeds and an order of
// bits of its own: a value has another bin there, and shares it with others by chance, which
// changes nothing of what a histogram's shape says.
//
//	bin = HashMix(seed XOR value) >> (64 − log2(bins))
//
// with one seed for each hashed histogram (Seeds), and these values:
//
//	Sources       SourceValue: IPv4: the address as a big-endian number; IPv6: its upper 64 bits
//	SourceNets    SourceNetValue: IPv4: the upper 24 bits; IPv6: the upper 48
//	SourcePorts   the port as a number
//	DestPorts     the port as a number
//	Fingerprints  Fingerprint.Word
//
// Lengths and TTLs are not hashed: LengthBin, TTLBin.

// Seeds are those of the hashed histograms.
type Seeds struct {
	Source, SourceNet, SourcePort, DestPort, Fingerprint uint64
}

// HashMix spreads every bit of x over all others: the finalizer of splitmix64, as hash_mix in
// bpf/lib/hash.h. No two x give the same.
func HashMix(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}

// Bin returns where value is counted among bins, a power of two.
func Bin(seed, value uint64, bins int) int {
	return int(HashMix(seed^value) >> (65 - bits.Len(uint(bins))))
}

// SourceValue is what is hashed of a source address.
func SourceValue(a netip.Addr) uint64 {
	if a.Is4() {
		b := a.As4()
		return uint64(binary.BigEndian.Uint32(b[:]))
	}
	b := a.As16()
	return binary.BigEndian.Uint64(b[:8])
}

// SourceNetValue is what is hashed of a source's network, the /24 or /48.
func SourceNetValue(a netip.Addr) uint64 {
	if a.Is4() {
		return SourceValue(a) >> 8
	}
	return SourceValue(a) >> 16
}

// Fingerprint is what packets of one sender's making have in common.
type Fingerprint struct {
	Protocol   uint8 // the last one known, as of the packet's verdict
	TCPFlags   uint8 // this and the next: 0 where no TCP header was read
	DataOffset uint8 // in words of 32 bits
	Window     uint16
	Size       SizeClass
	TTL        uint8
	DF         bool
	Fragment   uint8 // 0: none, 1: first, 2: later
}

// Word packs the fingerprint, from the lowest bit on: protocol 8, flags 8, data offset 4, size
// class 4, TTL / 32 in 3, DF 1, fragment 2, window 16.
func (f Fingerprint) Word() uint64 {
	w := uint64(f.Protocol) | uint64(f.TCPFlags)<<8 | uint64(f.DataOffset&15)<<16 |
		uint64(f.Size&15)<<20 | uint64(f.TTL>>5)<<24 | uint64(f.Fragment&3)<<28 | uint64(f.Window)<<30
	if f.DF {
		w |= 1 << 27
	}
	return w
}

// SizeClassOf returns the class of a packet of that IP length, in bytes.
func SizeClassOf(length uint32) SizeClass {
	for i, edge := range SizeEdges {
		if length < edge {
			return SizeClass(i)
		}
	}
	return NumSizeClasses - 1
}

// LengthBin returns the bin of an IP length in Histograms.Lengths.
func LengthBin(length uint32) int { return int(min(length/24, LengthBins-1)) }

// TTLBin returns the bin of a TTL in Histograms.TTLs.
func TTLBin(ttl uint8) int { return int(ttl / 4) }

// ReflectionOf returns the service that a UDP source port stands for.
func ReflectionOf(port uint16) Reflection {
	switch port {
	case 53:
		return ReflectionDNS
	case 123:
		return ReflectionNTP
	case 161:
		return ReflectionSNMP
	case 389:
		return ReflectionCLDAP
	case 1900:
		return ReflectionSSDP
	case 11211:
		return ReflectionMemcached
	case 19:
		return ReflectionChargen
	case 500, 4500:
		return ReflectionISAKMP
	case 111:
		return ReflectionRPC
	case 17, 69, 137, 520, 1194, 3283, 3389, 3702, 5353, 5683, 10001, 27015, 37810:
		return ReflectionOther
	}
	return ReflectionNone
}
