// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"encoding/json"
	"fmt"
	"math"
	"net/netip"
	"time"
)

// MarshalText writes what String returns.
func (t Target) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (t *Target) UnmarshalText(text []byte) error {
	s := string(text)
	if s == "interface" {
		*t = Target{Scope: TargetInterface}
		return nil
	}
	if a, err := netip.ParseAddr(s); err == nil {
		*t = HostTarget(a)
		return nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil || p != NetworkTarget(p.Addr()).Prefix {
		return fmt.Errorf("read target: %q is no address, /24, /48 or the word interface", s)
	}
	*t = Target{TargetNetwork, p}
	return nil
}

// Kind says what an attack consists of. Up to KindOther they are also the
// classes of the trees, in their order.
type Kind uint8

// The kinds.
const (
	KindBenign          Kind = iota // no attack
	KindSYNFlood                    // SYNs that nobody means
	KindACKFlood                    // TCP packets of no connection: ACK, RST, FIN, SYN-ACK, data
	KindUDPFlood                    // UDP datagrams
	KindICMPFlood                   // ICMP and ICMPv6
	KindAmplification               // answers of reflectors; the protocol is theirs
	KindFragmentFlood               // IP fragments
	KindConnectionFlood             // whole connections, or requests on them
	KindOther                       // something else, or no one thing
	KindCarpet                      // many hosts of a network at once, whatever with
	NumKinds
	TreeClasses = int(KindOther) + 1 // classes of the trees
)

var kindNames = [NumKinds]string{
	"benign", "syn_flood", "ack_flood", "udp_flood", "icmp_flood", "amplification", "fragment_flood",
	"connection_flood", "other", "carpet",
}

// String returns the kind's word, as in docs/detection.md.
func (k Kind) String() string { return name(kindNames[:], int(k), "kind") }

// MarshalText writes what String returns.
func (k Kind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (k *Kind) UnmarshalText(text []byte) error {
	kind, ok := ParseKind(string(text))
	if !ok {
		return fmt.Errorf("read kind of attack: unknown word %q", text)
	}
	*k = kind
	return nil
}

// ParseKind returns the kind of a word, and false for an unknown one.
func ParseKind(word string) (Kind, bool) { return parse[Kind](kindNames[:], word) }

var reflectionNames = [NumReflections]string{
	"", "dns", "ntp", "snmp", "cldap", "ssdp", "memcached", "chargen", "isakmp", "rpc", "other",
}

// String returns the service's name, empty for ReflectionNone.
func (r Reflection) String() string { return name(reflectionNames[:], int(r), "reflection") }

// Float is a number that may be unknown: NaN, written as null in JSON.
type Float float64

// MarshalJSON writes null for NaN and the infinities.
func (f Float) MarshalJSON() ([]byte, error) {
	if math.IsNaN(float64(f)) || math.IsInf(float64(f), 0) {
		return []byte("null"), nil
	}
	return json.Marshal(float64(f))
}

// UnmarshalJSON reads null as NaN.
func (f *Float) UnmarshalJSON(data []byte) error {
	if string(data) == "null" {
		*f = Float(math.NaN())
		return nil
	}
	return json.Unmarshal(data, (*float64)(f))
}

// Incident is one attack on one target, from its onset to its end.
type Incident struct {
	ID       string    `json:"id"`
	Target   Target    `json:"target"`
	Kind     Kind      `json:"kind"`
	Protocol string    `json:"protocol,omitempty"` // tcp, udp, icmp; of an amplification the reflectors' service
	Onset    time.Time `json:"onset"`              // when the excess began
	Detected time.Time `json:"detected"`
	Ended    time.Time `json:"ended,omitzero"` // zero: not yet
	// Confidence is 0…1: how sure the detectors are, all of them together.
	Confidence float64 `json:"confidence"`
	Peak       Load    `json:"peak"`   // most of any tick, normal traffic included
	Normal     Load    `json:"normal"` // what the baseline says; 0 without one
	// NoBaseline: the target was not known when the attack was found.
	NoBaseline bool     `json:"no_baseline,omitempty"`
	Hosts      int      `json:"hosts,omitempty"`       // of a carpet: hosts with an excess
	MergedInto string   `json:"merged_into,omitempty"` // incident of the target that explains this one
	Votes      []Vote   `json:"votes"`
	Notes      []string `json:"notes,omitempty"`
}

// Open reports whether the attack goes on.
func (i *Incident) Open() bool { return i.Ended.IsZero() }

// Load is a rate of packets and bytes per second.
type Load struct {
	Packets float64 `json:"packets"`
	Bytes   float64 `json:"bytes"`
}

// Opinion is what a detector thinks of a window.
type Opinion uint8

// The opinions.
const (
	OpinionAbsent Opinion = iota // there is no such detector
	OpinionUnsure                // it has not learnt enough yet
	OpinionCalm                  // no attack
	OpinionLikely                // trees: above the lower threshold
	OpinionAttack                // an attack
	numOpinions
)

var opinionNames = [numOpinions]string{"absent", "unsure", "calm", "likely", "attack"}

// String returns the opinion's word.
func (o Opinion) String() string { return name(opinionNames[:], int(o), "opinion") }

// MarshalText writes what String returns.
func (o Opinion) MarshalText() ([]byte, error) { return []byte(o.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (o *Opinion) UnmarshalText(text []byte) error {
	opinion, ok := parse[Opinion](opinionNames[:], string(text))
	if !ok {
		return fmt.Errorf("read opinion of a detector: unknown word %q", text)
	}
	*o = opinion
	return nil
}

// Vote is what one detector said when the attack was found.
type Vote struct {
	Detector  string   `json:"detector"` // deterministic, trees, forest, online
	Opinion   Opinion  `json:"opinion"`
	Score     Float    `json:"score"`           // of the deterministic layer: its CUSUM
	Threshold Float    `json:"threshold"`       // that the score is compared with
	Class     Kind     `json:"class,omitempty"` // trees: the likeliest attack
	Reasons   []string `json:"reasons,omitempty"`
	// Features are the five that carried the vote, the most important first.
	Features []Evidence `json:"features,omitempty"`
}

// Evidence is a feature that carried a vote.
type Evidence struct {
	Name         string `json:"name"`
	Value        Float  `json:"value"`
	Low          Float  `json:"low"`          // the target's normal range;
	High         Float  `json:"high"`         // unknown without calm times
	Contribution Float  `json:"contribution"` // in units of the model, positive: towards an attack
}
