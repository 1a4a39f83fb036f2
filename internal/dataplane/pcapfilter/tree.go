// SPDX-License-Identifier: Apache-2.0

// Package pcapfilter compiles tcpdump's filter expressions (pcap-filter(7)) for Ethernet frames
// into classic BPF, without cgo. It knows what is on IP: what it does not know, it
// refuses by name, and never takes for something else.
package pcapfilter

import "golang.org/x/net/bpf"

// node is a condition on a packet.
type node interface{ isNode() }

type (
	both   struct{ left, right node }
	either struct{ left, right node }
	not    struct{ of node }
	// relation compares two numbers; guard says that both can be told.
	relation struct {
		op          bpf.JumpTest
		left, right number
	}
	always struct{ value bool }
)

func (both) isNode()     {}
func (either) isNode()   {}
func (not) isNode()      {}
func (relation) isNode() {}
func (always) isNode()   {}

// number is an unsigned 32-bit value.
type number interface{ isNumber() }

type (
	constant struct{ value uint32 }
	length   struct{} // of the frame
	load     struct {
		base  base
		index number // from base
		size  int    // 1, 2, 4
	}
	operation struct {
		op          bpf.ALUOp
		left, right number
	}
)

func (constant) isNumber()  {}
func (length) isNumber()    {}
func (load) isNumber()      {}
func (operation) isNumber() {}

// base is where a load's index counts from.
type base int

const (
	baseLink   base = iota // the Ethernet header
	baseNet                // behind it
	baseUpper              // behind the IPv4 header, whatever its length
	baseUpper6             // behind the fixed IPv6 header
)

const (
	etherHeader = 14
	ip6Header   = 40
	etherIPv4   = 0x0800
	etherIPv6   = 0x86dd
)

func all(nodes ...node) node {
	n := nodes[0]
	for _, m := range nodes[1:] {
		n = both{n, m}
	}
	return n
}

func any(nodes ...node) node {
	n := nodes[0]
	for _, m := range nodes[1:] {
		n = either{n, m}
	}
	return n
}

func at(b base, offset uint32, size int) load { return load{b, constant{offset}, size} }

func equals(n number, value uint32) node { return relation{bpf.JumpEqual, n, constant{value}} }

func masked(n number, mask uint32) number {
	if mask == ^uint32(0) {
		return n
	}
	return operation{bpf.ALUOpAnd, n, constant{mask}}
}

func isIPv4() node { return equals(at(baseLink, 12, 2), etherIPv4) }
func isIPv6() node { return equals(at(baseLink, 12, 2), etherIPv6) }

// notLater: layer 4 begins in this frame.
func notLater() node { return equals(masked(at(baseNet, 6, 2), 0x1fff), 0) }

func protocol4(p uint32) node { return both{isIPv4(), equals(at(baseNet, 9, 1), p)} }

// protocol6 looks through a fragment header, and through no other, as tcpdump does.
func protocol6(p uint32) node {
	behind := both{equals(at(baseNet, 6, 1), 44), equals(at(baseNet, ip6Header, 1), p)}
	return both{isIPv6(), either{equals(at(baseNet, 6, 1), p), behind}}
}

// plain6 is protocol6 without a fragment header: layer 4 is where it is looked for.
func plain6(p uint32) node { return both{isIPv6(), equals(at(baseNet, 6, 1), p)} }
