// SPDX-License-Identifier: Apache-2.0

// Package signature is the language of rules on header fields: what a rule is,
// its text (a subset of tcpdump's filters), whether a packet matches it, and what
// is done with packets that do. It decides nothing and imports nothing of this module.
package signature

import (
	"net/netip"
	"time"
)

// Field is one property of a packet that a rule can constrain. The numbers are the
// packet path's.
type Field uint8

// The fields. A packet that lacks a field (a port in a later fragment, a TTL in nothing) does not
// match a rule that constrains it.
const (
	Protocol   Field = iota // 0…255, of the innermost IP packet looked into, behind IPv6 extension headers
	SourcePort              // 0…65535, of TCP and UDP
	DestPort                // 0…65535, of TCP and UDP
	Length                  // 0…65535, of the IP packet, header included
	TTL                     // 0…255, TTL or hop limit
	TCPFlags                // 0…255, the flags byte with ECE and CWR
	DataOffset              // 0…15, of TCP, in 32-bit words
	Window                  // 0…65535, of TCP, not scaled
	ICMPType                // 0…255, of ICMP and ICMPv6
	ICMPCode                // 0…255, of ICMP and ICMPv6
	Fragment                // FragmentNone, FragmentFirst, FragmentLater
	DF                      // 0, 1; IPv4 only
	Inner                   // 0…255, the protocol, but only of a packet inside a tunnel that is looked into
	NumFields
)

// Values of Fragment.
const (
	FragmentNone uint16 = iota
	FragmentFirst
	FragmentLater
)

// Range is lo…hi, both inclusive.
type Range struct{ Lo, Hi uint16 }

// Set is the values of a field that a rule accepts: ascending ranges that neither
// overlap nor touch. nil accepts every packet, also one that lacks the field.
type Set []Range

// Word is a condition on 1 to 8 bytes of the data behind the layer-4 header (of TCP behind the
// options, of UDP and ICMP behind their 8 bytes, of other protocols behind the IP header):
// data[Offset:Offset+Size] & Mask == Value, in network order. A packet whose IP header announces less
// data than a byte that Mask looks at does not match; nor does a later fragment.
type Word struct {
	Offset uint16
	Size   uint8 // 1…8
	Mask   uint64
	Value  uint64
}

// Rule is a conjunction: a packet matches if it matches everything that is set. The zero Rule matches all.
type Rule struct {
	Family  uint8        // 4 or 6; 0: both
	Target  netip.Prefix // destination, of the innermost packet looked into; zero: any
	Fields  [NumFields]Set
	Payload []Word // each must match
	// Filter is a tcpdump expression that does not fit the fields; "": none. It is
	// evaluated on the whole frame, beside all of the above.
	Filter string
}

// Bounds of what the packet path can hold.
const (
	Slots       = 64 // rules armed at once
	MaxWords    = 4  // words of one rule
	MaxOffsets  = 8  // distinct offsets of words in all armed rules
	MaxOffset   = 1023
	MaxFilters  = 4 // rules with a Filter armed at once
	FullCeiling = 1.0
)

// Action is what is done with packets that match.
type Action uint8

// The actions.
const (
	Observe Action = iota // count only
	Drop
	Limit // drop what exceeds Rate
)

// Armed is a rule in force, or to be put in force.
type Armed struct {
	ID      uint64 // not 0; stays with the rule as long as it lives
	Text    string // as it was written
	Rule    Rule
	Action  Action
	Rate    uint64    // packets a second that Limit lets pass, of all sources together
	Ceiling float64   // 0 < c ≤ 1: share of its target's packets that it may drop in a second, by CPU; above, it observes
	Expires time.Time // zero: never
	Origin  string
	Comment string
	Created time.Time
}

// Stats is what a rule has done since it was armed, summed over CPUs.
type Stats struct {
	Matched     uint64 // packets
	Bytes       uint64 // of the frames that matched
	Dropped     uint64
	WouldDrop   uint64    // passed because the rule observes, or in dry run, or of OverCeiling
	OverCeiling uint64    // passed because the rule had dropped its share of the second
	LastSeen    time.Time // zero: never; to within a kernel tick
}
