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

// IPLength returns what the IP header announces, 0 where it makes no sense.
func (p Packet) IPLength() uint32 { return uint32(max(0, p.Rules.Values[signature.Length])) }

// Count adds one packet of a frame of length bytes, with an IP header, to a tally.
func (p Packet) Count(t *traffic.Tally, length int, outcome traffic.Outcome) {
	t.Packets++
	t.Bytes += uint64(length)
	if outcome != traffic.Passed {
		t.Dropped++
		t.DroppedBytes += uint64(length)
	}
	t.Sizes[traffic.SizeClassOf(p.IPLength())]++
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
		t.Reflections[traffic.ReflectionOf(p.SourcePort)]++
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
	set(&t.TCPData, p.TCPData > 0 && p.TCPFlags&flagSYN == 0)
}
