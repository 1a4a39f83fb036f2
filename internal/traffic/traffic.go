// SPDX-License-Identifier: Apache-2.0

// Package traffic holds the words that the packet path and the control path
// share: reasons, outcomes, classes, lists, counters, events, and the order of
// prefixes. It imports nothing of this module and has no state.
package traffic

import (
	"fmt"
	"net/netip"
	"time"
)

// Reason says why a packet ended as it did. Every packet ends with exactly one.
// The same word is the counter's index in the kernel, the field of an event,
// the column of the CLI and the row of docs/reasons.md. Numbers are never
// reused; the enum in bpf/types.h must agree (tested in internal/dataplane).
type Reason uint8

// The reasons, in the order of enum reason in bpf/types.h.
const (
	ReasonPass             Reason = iota // nothing objected
	ReasonAllowlist                      // source is on the allow list
	ReasonProtected                      // source is in the protected set
	ReasonNonIP                          // ARP and every other ethertype that is not IP
	ReasonND                             // IPv6 neighbour discovery
	ReasonBypass                         // bypass switch is on
	ReasonBlocklist                      // source is on the block list
	ReasonSignature                      // matched an armed signature
	ReasonChallenge                      // source has not proven itself
	ReasonLimit                          // source is over its rate limit
	ReasonMalformed                      // IP version, length or header fields contradict each other
	ReasonTruncated                      // frame ends before the headers it announces
	ReasonBadHeaderLength                // IHL < 5, TCP data offset < 5, UDP length < 8
	ReasonLand                           // source address equals destination address
	ReasonZeroTTL                        // TTL or hop limit 0
	ReasonBadTCPFlags                    // combination of TCP flags that no stack sends
	ReasonFragmentFirst                  // first fragment, where policy drops them
	ReasonFragmentLater                  // later fragment, where policy drops them
	ReasonFragmentTiny                   // first fragment too small for its L4 header, or TCP at offset 1
	ReasonExtensionHeaders               // more IPv6 extension headers than are walked
	ReasonVLANDepth                      // more VLAN tags than are parsed
	ReasonTunnelDepth                    // tunnel inside a tunnel deeper than is looked into
	ReasonPrefixLimit                    // source's prefix (/24, /48) is over its rate limit
	ReasonTargetLimit                    // destination is over its rate limit
	NumReasons
)

// Outcome is what happened to the packet, whatever the reason.
type Outcome uint8

// The outcomes, in the order of enum outcome in bpf/types.h.
const (
	Passed    Outcome = iota
	Dropped           // XDP_DROP
	WouldDrop         // passed, but only because observe mode (dry run) is on
	NumOutcomes
)

// Class selects a rate limit. A packet counts for ClassAll and for at most one other.
type Class uint8

// The classes, in the order of enum class in bpf/types.h.
const (
	ClassAll  Class = iota
	ClassSYN        // TCP with SYN set and ACK clear
	ClassUDP        // IP protocol 17, later fragments included
	ClassICMP       // ICMP and ICMPv6 (neighbour discovery is not limited)
	NumClasses
)

// Scope says whose rate a limit is.
type Scope uint8

// The scopes, in the order of enum scope in bpf/types.h.
const (
	ScopeSource Scope = iota // IPv4 /32, IPv6 /64
	ScopePrefix              // of the source: IPv4 /24, IPv6 /48
	ScopeTarget              // the destination: IPv4 /32, IPv6 /128
	NumScopes
)

// List names one of the source lists.
type List uint8

// The lists. Protected and allow win over block, whatever the prefix lengths.
const (
	ListBlock List = iota
	ListAllow
	ListProtected
	NumLists
)

// Entry is one prefix on a list.
type Entry struct {
	Prefix  netip.Prefix // masked; never an IPv4-mapped IPv6 prefix
	Expires time.Time    // zero: never
	Forced  bool         // block only: wins over the protected set too
	Origin  string       // who wants it: "operator", "config", "system", …
	Comment string
	Created time.Time
	// What it has done, where the ledger tells it; no part of what is wanted.
	Hits    uint64    // packets that ended on it, estimated from sampled events
	LastHit time.Time // of a sampled packet; zero: none
}

// Expired reports whether the entry has ended at now.
func (e Entry) Expired(now time.Time) bool {
	return !e.Expires.IsZero() && !now.Before(e.Expires)
}

// Count is a number of packets and their bytes on the wire (L2 header included, FCS not).
type Count struct {
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}

// Add returns the sum of both counts.
func (c Count) Add(o Count) Count { return Count{c.Packets + o.Packets, c.Bytes + o.Bytes} }

// Sub returns c minus an earlier count of the same counter.
func (c Count) Sub(o Count) Count { return Count{c.Packets - o.Packets, c.Bytes - o.Bytes} }

// Counters is a snapshot of the packet path's counters since it was loaded,
// summed over CPUs. Seen equals the sum of Reasons over both indices.
type Counters struct {
	Seen       Count
	Reasons    [NumReasons][NumOutcomes]Count
	EventsSent uint64 // events put into the ring buffer
	EventsLost uint64 // events the full ring buffer refused
	Latency    Histogram

	// MetersEvicted counts buckets that found every place of their line in use: they took
	// one from another, or were not counted.
	MetersEvicted uint64
}

// Outcome returns the sum over all reasons of one outcome.
func (c *Counters) Outcome(o Outcome) Count {
	var sum Count
	for r := range c.Reasons {
		sum = sum.Add(c.Reasons[r][o])
	}
	return sum
}

// Reason returns the sum over all outcomes of one reason.
func (c *Counters) Reason(r Reason) Count {
	var sum Count
	for o := range c.Reasons[r] {
		sum = sum.Add(c.Reasons[r][o])
	}
	return sum
}

// Event is one sampled packet with its verdict.
type Event struct {
	Time        time.Time
	Interface   int // ifindex
	Reason      Reason
	Outcome     Outcome
	Source      netip.Addr // invalid if the packet has no readable IP header
	Destination netip.Addr
	Protocol    uint8  // IP protocol of the innermost header parsed
	SourcePort  uint16 // 0 where the packet has none
	DestPort    uint16
	TCPFlags    uint8
	TTL         uint8
	Length      uint32 // bytes on the wire
	VLANs       uint8  // number of VLAN tags
	Fragment    bool
	Tunnel      bool // addresses and ports are those of the inner packet
}

// Limit is the rate of one class that one source, prefix or target may have.
type Limit struct {
	Packets uint64        // per second; 0: unlimited
	Bytes   uint64        // per second; 0: unlimited
	Burst   time.Duration // how long the rate may be exceeded after silence
}

// ClassLimits holds one limit per class.
type ClassLimits [NumClasses]Limit

// Limits holds the limits of every scope and the factor by which sources on the
// allow list and in the protected set may exceed those of sources and prefixes.
// Limits of targets do not hold for them.
type Limits struct {
	Class         ClassLimits // of each source
	Prefix        ClassLimits // of each source prefix
	Target        ClassLimits // of each target
	AllowedFactor uint64      // ≥ 1; 0: allowed sources are not limited
}

// Of returns the limits of one scope.
func (l *Limits) Of(s Scope) ClassLimits {
	return [NumScopes]ClassLimits{l.Class, l.Prefix, l.Target}[s]
}

// Policy says what becomes of a class of packets that parsing set apart.
type Policy uint8

// The policies.
const (
	PolicyPass Policy = iota
	PolicyDrop
)

// Policies are the verdicts for what parsing sets apart. Allowed and protected
// sources pass whatever the policy; blocked ones are dropped whatever the policy.
type Policies struct {
	Malformed        Policy // malformed, truncated, bad_header_length, land, zero_ttl, bad_tcp_flags
	FirstFragments   Policy
	LaterFragments   Policy
	TinyFragments    Policy
	ExtensionHeaders Policy
	VLANDepth        Policy
	TunnelDepth      Policy
}

// Histogram counts sampled verdict latencies; bucket i holds those of
// [i*Width, (i+1)*Width) nanoseconds, the last one everything above.
type Histogram struct {
	Width   time.Duration
	Buckets []uint64
}

// Quantile returns the upper edge of the bucket that holds quantile q (0…1), 0 without samples.
func (h Histogram) Quantile(q float64) time.Duration {
	var total uint64
	for _, n := range h.Buckets {
		total += n
	}
	if total == 0 {
		return 0
	}
	rank := uint64(q * float64(total))
	var seen uint64
	for i, n := range h.Buckets {
		seen += n
		if seen > rank || seen == total {
			return time.Duration(i+1) * h.Width
		}
	}
	return time.Duration(len(h.Buckets)) * h.Width
}

var reasonNames = [NumReasons]string{
	"pass", "allowlist", "protected", "non_ip", "nd", "bypass",
	"blocklist", "signature", "challenge", "limit",
	"malformed", "truncated", "bad_header_length", "land", "zero_ttl", "bad_tcp_flags",
	"fragment_first", "fragment_later", "fragment_tiny",
	"extension_headers", "vlan_depth", "tunnel_depth",
	"prefix_limit", "target_limit",
}

// String returns the reason's word, as in docs/reasons.md.
func (r Reason) String() string { return name(reasonNames[:], int(r), "reason") }

var outcomeNames = [NumOutcomes]string{"passed", "dropped", "would_drop"}

// String returns passed, dropped or would_drop.
func (o Outcome) String() string { return name(outcomeNames[:], int(o), "outcome") }

var classNames = [NumClasses]string{"all", "syn", "udp", "icmp"}

// String returns all, syn, udp or icmp.
func (c Class) String() string { return name(classNames[:], int(c), "class") }

var scopeNames = [NumScopes]string{"source", "prefix", "target"}

// String returns source, prefix or target.
func (s Scope) String() string { return name(scopeNames[:], int(s), "scope") }

var listNames = [NumLists]string{"block", "allow", "protected"}

// String returns block, allow or protected.
func (l List) String() string { return name(listNames[:], int(l), "list") }

func name(names []string, i int, what string) string {
	if i < len(names) {
		return names[i]
	}
	return fmt.Sprintf("%s(%d)", what, i)
}

// ParseReason returns the reason of a word, and false for an unknown one.
func ParseReason(word string) (Reason, bool) { return parse[Reason](reasonNames[:], word) }

// ParseList returns the list of a word, and false for an unknown one.
func ParseList(word string) (List, bool) { return parse[List](listNames[:], word) }

func parse[T ~uint8](names []string, word string) (T, bool) {
	for i, n := range names {
		if n == word {
			return T(i), true
		}
	}
	return 0, false
}
