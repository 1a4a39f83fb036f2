// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"net/netip"
	"time"
)

// TargetScope says how much of the network a target is.
type TargetScope uint8

// The scopes of targets, from narrow to wide.
const (
	TargetHost      TargetScope = iota // IPv4 /32, IPv6 /128
	TargetNetwork                      // IPv4 /24, IPv6 /48
	TargetInterface                    // all that arrives
)

// Target is what is watched for attacks and may be attacked: comparable, a key of maps.
type Target struct {
	Scope  TargetScope
	Prefix netip.Prefix // masked; zero for TargetInterface
}

// HostTarget and NetworkTarget return the targets that a destination belongs to.
func HostTarget(a netip.Addr) Target {
	return Target{TargetHost, netip.PrefixFrom(a, a.BitLen())}
}

// NetworkTarget returns the /24 or /48 of a destination.
func NetworkTarget(a netip.Addr) Target {
	bits := 24
	if a.Is6() {
		bits = 48
	}
	return Target{TargetNetwork, netip.PrefixFrom(a, bits).Masked()}
}

// String returns the prefix, the bare address of a host, or "interface".
func (t Target) String() string {
	switch t.Scope {
	case TargetHost:
		return t.Prefix.Addr().String()
	case TargetNetwork:
		return t.Prefix.String()
	}
	return "interface"
}

// Tick is the length of the shortest window.
const Tick = 100 * time.Millisecond

// SizeClass sorts packets by IP length: under 64, 128, 256, 512, 1024, 1500 bytes, and from there on.
type SizeClass uint8

// NumSizeClasses is how many there are.
const NumSizeClasses = 7

// SizeEdges are the lengths, in bytes of the IP packet, at which the next class begins.
var SizeEdges = [NumSizeClasses - 1]uint32{64, 128, 256, 512, 1024, 1500}

// Reflection is a service whose answers amplification attacks consist of, told by UDP source port.
type Reflection uint8

// The services; ReflectionNone is every other source port.
const (
	ReflectionNone      Reflection = iota
	ReflectionDNS                  // 53
	ReflectionNTP                  // 123
	ReflectionSNMP                 // 161
	ReflectionCLDAP                // 389
	ReflectionSSDP                 // 1900
	ReflectionMemcached            // 11211
	ReflectionChargen              // 19
	ReflectionISAKMP               // 500, 4500
	ReflectionRPC                  // 111
	ReflectionOther                // 17, 69, 137, 520, 1194, 3283, 3389, 3702, 5353, 5683, 10001, 27015, 37810
	NumReflections
)

// Tally holds exact counts of one target's packets, those with a readable IP header. All but Bytes
// and DroppedBytes are packets; TCP, UDP, ICMP and Other sum up to Packets.
type Tally struct {
	Packets, Bytes        uint64 // all that arrived, dropped ones included; bytes on the wire
	Dropped, DroppedBytes uint64 // of them dropped, or, in observe mode, would have been

	TCP, UDP, ICMP, Other uint64 // by protocol; ICMP includes ICMPv6

	SYN          uint64 // SYN without ACK
	SYNNoOptions uint64 // of them with a data offset of 5: no TCP options, as no stack sends them
	SYNACK       uint64 // SYN and ACK
	ACK          uint64 // ACK without SYN, FIN, RST and without data
	RST, FIN     uint64
	TCPData      uint64 // TCP packets without SYN that carry data

	Fragments uint64 // first and later ones
	Malformed uint64 // any anomaly that parsing noted

	Sizes       [NumSizeClasses]uint64
	Reflections [NumReflections]uint64 // UDP packets, and later fragments of UDP under ReflectionNone
}

// Add adds the counts of o.
func (t *Tally) Add(o *Tally) {
	t.Packets += o.Packets
	t.Bytes += o.Bytes
	t.Dropped += o.Dropped
	t.DroppedBytes += o.DroppedBytes
	t.TCP += o.TCP
	t.UDP += o.UDP
	t.ICMP += o.ICMP
	t.Other += o.Other
	t.SYN += o.SYN
	t.SYNNoOptions += o.SYNNoOptions
	t.SYNACK += o.SYNACK
	t.ACK += o.ACK
	t.RST += o.RST
	t.FIN += o.FIN
	t.TCPData += o.TCPData
	t.Fragments += o.Fragments
	t.Malformed += o.Malformed
	for i := range t.Sizes {
		t.Sizes[i] += o.Sizes[i]
	}
	for i := range t.Reflections {
		t.Reflections[i] += o.Reflections[i]
	}
}

// Bins of the hashed histograms of a window. A value's bin is a seeded hash of it, the same seed
// for as long as the program is loaded, except for lengths and TTLs (see Lengths, TTLs).
const (
	SourceBins      = 256 // source address (IPv6: /64)
	SourceNetBins   = 128 // source /24 (IPv6: /48)
	SourcePortBins  = 64  // layer 4 source port; packets without ports are not counted
	DestPortBins    = 64
	LengthBins      = 64 // IP length / 24, the last bin everything from 1512 on; 0 where it makes no sense
	TTLBins         = 64 // TTL / 4
	FingerprintBins = 128
)

// Histograms count a window's packets by hashed values. Above a rate they hold a random share of
// the packets: Counted of them. In those of networks and of the interface each host's are scaled up to all of its
// packets, as each has a share of its own.
type Histograms struct {
	Counted     uint64 // packets in the histograms, or that they were scaled up to
	Sources     [SourceBins]uint32
	SourceNets  [SourceNetBins]uint32
	SourcePorts [SourcePortBins]uint32
	DestPorts   [DestPortBins]uint32
	Lengths     [LengthBins]uint32
	TTLs        [TTLBins]uint32
	// Fingerprints hashes protocol, TCP flags, data offset, TCP window, length class (SizeClass),
	// TTL / 32, don't-fragment and fragment kind.
	Fingerprints [FingerprintBins]uint32
}

// Add adds the counts of o.
func (h *Histograms) Add(o *Histograms) {
	h.Counted += o.Counted
	addBins(h.Sources[:], o.Sources[:])
	addBins(h.SourceNets[:], o.SourceNets[:])
	addBins(h.SourcePorts[:], o.SourcePorts[:])
	addBins(h.DestPorts[:], o.DestPorts[:])
	addBins(h.Lengths[:], o.Lengths[:])
	addBins(h.TTLs[:], o.TTLs[:])
	addBins(h.Fingerprints[:], o.Fingerprints[:])
}

func addBins(to, from []uint32) {
	for i, n := range from {
		to[i] += n
	}
}

// AddScaled adds the counts of o times factor, rounded.
func (h *Histograms) AddScaled(o *Histograms, factor float64) {
	addScaled(h.Sources[:], o.Sources[:], factor)
	addScaled(h.SourceNets[:], o.SourceNets[:], factor)
	addScaled(h.SourcePorts[:], o.SourcePorts[:], factor)
	addScaled(h.DestPorts[:], o.DestPorts[:], factor)
	addScaled(h.Lengths[:], o.Lengths[:], factor)
	addScaled(h.TTLs[:], o.TTLs[:], factor)
	addScaled(h.Fingerprints[:], o.Fingerprints[:], factor)
	h.Counted += uint64(float64(o.Counted)*factor + 0.5)
}

func addScaled(to, from []uint32, factor float64) {
	for i, n := range from {
		if n != 0 {
			to[i] += uint32(float64(n)*factor + 0.5)
		}
	}
}

// SampleBytes is how much of a sampled packet is kept.
const SampleBytes = 96

// Sample is the beginning of one packet with its verdict, drawn at random from a target's packets.
type Sample struct {
	Time    time.Time
	Reason  Reason
	Outcome Outcome
	Length  uint32  // bytes on the wire
	Weight  float64 // packets that it stands for: those of its host, or of what else was counted with it, over their samples
	// What parsing found; of a tunnel, the packet inside. Addresses are invalid without an IP header.
	Source, Destination  netip.Addr
	SourcePort, DestPort uint16
	Protocol, TCPFlags   uint8
	TTL, DataOffset      uint8
	IPLength, TCPWindow  uint16
	Fragment, DF         bool
	Header               []byte // of the frame, from its first byte on, at most SampleBytes
}

// Window is what one target saw in one span of time: a tick, or several in a row.
type Window struct {
	Target Target
	Start  time.Time     // of the first tick
	Length time.Duration // in replay a multiple of Tick; live, the time between two readings, about one
	Tally
	Histograms
	// Samples are at most 500 a tick; a network's are also those of its hosts, the interface's are all: at most
	// 2000. Those of each host are in the order of arrival.
	Samples []Sample
	Lost    uint64 // samples that were drawn and did not arrive
}

// Rate returns a count of the window as events per second.
func (w *Window) Rate(n uint64) float64 { return float64(n) / w.Length.Seconds() }
