// SPDX-License-Identifier: Apache-2.0

// Package packettest proves the packet path. It holds the oracle, which is
// docs/packet-path.md in plain Go with gopacket as the decoder of every layer
// gopacket knows, and what the tests feed to both sides: builders of good
// packets, rewriters that keep a packet good, and a mutator that does not.
//
// The oracle is written from the page alone and shares nothing with the BPF
// program. Only tests import this package.
package packettest

import (
	"net/netip"

	"github.com/sentinel-x/sentinel-x/internal/signature"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// Tunnels says which tunnels are looked into.
type Tunnels struct {
	IPIP, SixInFour, GRE, VXLAN bool
}

// AllTunnels looks into every kind of tunnel.
var AllTunnels = Tunnels{IPIP: true, SixInFour: true, GRE: true, VXLAN: true}

// Fragment says which part of a packet a frame carries.
type Fragment uint8

// The kinds of fragment. An atomic fragment (RFC 6946) is none.
const (
	NoFragment Fragment = iota
	FirstFragment
	LaterFragment
)

// Packet is what docs/packet-path.md says a frame means.
type Packet struct {
	Anomaly     traffic.Reason // first thing that is wrong; ReasonPass if nothing is
	IP          bool           // an IP header was readable: Source and Destination are valid
	ND          bool           // neighbour discovery that only the local link can send
	Tunnel      bool           // the fields below are those of the inner packet
	OuterSource netip.Addr     // source of the outer packet; valid if Tunnel
	Source      netip.Addr
	Destination netip.Addr
	Protocol    uint8
	SourcePort  uint16
	DestPort    uint16
	TCPFlags    uint8 // FIN 1, SYN 2, RST 4, PSH 8, ACK 16, URG 32, ECE 64, CWR 128
	TCPData     int   // bytes of data, as the IP header announces them
	TTL         uint8
	Fragment    Fragment
	VLANs       uint8 // tags of the outer frame, at most 2
	// Rules is what signatures look at; of a frame with IP only.
	Rules signature.Packet
}

// Class returns the class of limits that counts the packet beside ClassAll,
// or ClassAll if there is none.
func (p Packet) Class() traffic.Class {
	const syn, ack = 0x02, 0x10
	switch {
	case p.Protocol == protocolTCP && p.TCPFlags&(syn|ack) == syn:
		return traffic.ClassSYN
	case p.Protocol == protocolUDP:
		return traffic.ClassUDP
	case p.Protocol == protocolICMP || p.Protocol == protocolICMPv6:
		return traffic.ClassICMP
	}
	return traffic.ClassAll
}

// note keeps the first anomaly.
func (p *Packet) note(r traffic.Reason) {
	if p.Anomaly == traffic.ReasonPass {
		p.Anomaly = r
	}
}
