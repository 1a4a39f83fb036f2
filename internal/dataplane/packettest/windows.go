// SPDX-License-Identifier: Apache-2.0

package packettest

import (
	"github.com/sentinel-x/sentinel-x/internal/signature"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// TCP flags, as Packet has them.
const (
	flagFIN = 1 << iota
	flagSYN
	flagRST
	flagPSH
	flagACK
)

// reflections are the services of UDP source ports.
var reflections = map[uint16]traffic.Reflection{
	53: traffic.ReflectionDNS, 123: traffic.ReflectionNTP, 161: traffic.ReflectionSNMP, 389: traffic.ReflectionCLDAP,
	1900: traffic.ReflectionSSDP, 11211: traffic.ReflectionMemcached, 19: traffic.ReflectionChargen,
	500: traffic.ReflectionISAKMP, 4500: traffic.ReflectionISAKMP, 111: traffic.ReflectionRPC,
}

func init() {
	for _, port := range []uint16{17, 69, 137, 520, 1194, 3283, 3389, 3702, 5353, 5683, 10001, 27015, 37810} {
		reflections[port] = traffic.ReflectionOther
	}
}

// ReflectionOf returns the service of a UDP source port.
func ReflectionOf(port uint16) traffic.Reflection { return reflections[port] }

// IPLength returns what the IP header announces, 0 where it makes no sense.
func (p Packet) IPLength() uint32 { return uint32(max(0, p.Rules.Values[signature.Length])) }

// SizeClass returns the class of an IP length.
func SizeClass(length uint32) traffic.SizeClass {
	var class traffic.SizeClass
	for _, edge := range traffic.SizeEdges {
		if length >= edge {
			class++
		}
	}
	return class
}

// Count adds one packet of a frame of length bytes, with an IP header, to a tally.
func (p Packet) Count(t *traffic.Tally, length int, outcome traffic.Outcome) {
	t.Packets++
	t.Bytes += uint64(length)
	if outcome != traffic.Passed {
		t.Dropped++
		t.DroppedBytes += uint64(length)
	}
	t.Sizes[SizeClass(p.IPLength())]++
	if p.Fragment != NoFragment {
		t.Fragments++
	}
	if p.Anomaly != traffic.ReasonPass {
		t.Malformed++
	}
	switch p.Protocol {
	case protocolTCP:
		t.TCP++
		p.countTCP(t)
	case protocolUDP:
		t.UDP++
		t.Reflections[ReflectionOf(p.SourcePort)]++
	case protocolICMP, protocolICMPv6:
		t.ICMP++
	default:
		t.Other++
	}
}

func (p Packet) countTCP(t *traffic.Tally) {
	set := func(n *uint64, when bool) {
		if when {
			*n++
		}
	}
	has := func(flags uint8) bool { return p.TCPFlags&flags == flags }
	open := has(flagSYN) && !has(flagACK)
	set(&t.SYN, open)
	set(&t.SYNNoOptions, open && p.Rules.Values[signature.DataOffset] == 5)
	set(&t.SYNACK, has(flagSYN|flagACK))
	set(&t.ACK, p.TCPFlags&(flagSYN|flagFIN|flagRST|flagACK) == flagACK && p.TCPData <= 0)
	set(&t.RST, has(flagRST))
	set(&t.FIN, has(flagFIN))
	set(&t.TCPData, p.TCPData > 0)
}
