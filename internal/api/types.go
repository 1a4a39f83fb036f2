// SPDX-License-Identifier: Apache-2.0

package api

import (
	"net/netip"
	"slices"
	"time"

	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// The two states of Health.
const (
	HealthOK       = "ok"
	HealthDegraded = "degraded"
)

// Health says whether the engine does all that it was told to do.
type Health struct {
	State   string   `json:"state" enum:"ok,degraded" doc:"ok: everything works as configured; degraded: packets are handled, but not all as configured"`
	Reasons []string `json:"reasons" nullable:"false" doc:"What is not as it should be, one sentence each"`
}

// Status describes the whole engine.
type Status struct {
	Version    string          `json:"version" doc:"Version of sentinel-x"`
	Kernel     string          `json:"kernel" doc:"Release of the running kernel"`
	PID        int             `json:"pid" doc:"Process id of the engine"`
	Started    time.Time       `json:"started" doc:"When the engine started"`
	Uptime     Duration        `json:"uptime" doc:"Time since the start"`
	ConfigFile string          `json:"config_file" doc:"Configuration file, empty without one"`
	Health     Health          `json:"health"`
	Warnings   []string        `json:"warnings" nullable:"false" doc:"What the operator ought to know, one sentence each"`
	DryRun     bool            `json:"dry_run" doc:"Observe only: what would be dropped is counted and passes"`
	Bypass     bool            `json:"bypass" doc:"Everything passes unexamined"`
	Pin        Pin             `json:"pin"`
	Interfaces []Interface     `json:"interfaces" nullable:"false"`
	Lists      ListSizes       `json:"lists"`
	Signatures SignatureCounts `json:"signatures"`
	Detection  Detection       `json:"detection"`
	Limits     Limits          `json:"limits"`
	Counters   Counters        `json:"counters"`
	Rates      Rates           `json:"rates"`
	Latency    Latency         `json:"latency"`
	Memory     Memory          `json:"memory"`
}

// Pin says whether the program outlives the process.
type Pin struct {
	Pinned bool   `json:"pinned" doc:"Program and maps are pinned: they outlive the process"`
	Path   string `json:"path" doc:"Directory of the pins, empty if not pinned"`
	Reason string `json:"reason" doc:"Why nothing is pinned, empty if pinned"`
}

// Interface is one network interface with the program on it.
type Interface struct {
	Name           string `json:"name"`
	Index          int    `json:"index" doc:"ifindex"`
	Driver         string `json:"driver" doc:"Name of the driver, empty if unknown"`
	Mode           string `json:"mode" enum:"native,generic,offload" doc:"How the program is attached"`
	RequestedMode  string `json:"requested_mode" enum:"auto,native,generic,offload"`
	FallbackReason string `json:"fallback_reason" doc:"Why the mode is not the best one, empty if it is"`
	LinkID         uint32 `json:"link_id" doc:"Id of the BPF link, 0 if unknown"`
	ProgramID      uint32 `json:"program_id" doc:"Id of the BPF program, 0 if unknown"`
	MTU            int    `json:"mtu"`
	Frags          bool   `json:"frags" doc:"The program takes frames of more than one buffer (xdp.frags)"`
	Up             bool   `json:"up" doc:"The interface is administratively up"`
}

// ListSizes counts the entries of each list.
type ListSizes struct {
	Block     int `json:"block"`
	Allow     int `json:"allow"`
	Protected int `json:"protected"`
	Capacity  int `json:"capacity" doc:"Most entries that the block list and the allow list hold each"`
}

// Limits are the rates of sources, of their prefixes, and of targets.
type Limits struct {
	PerSource     ClassLimits `json:"per_source" doc:"Of each source: IPv4 address, IPv6 /64"`
	PerPrefix     ClassLimits `json:"per_prefix" doc:"Of each source prefix: IPv4 /24, IPv6 /48"`
	PerTarget     ClassLimits `json:"per_target" doc:"Of each destination address; allowed and protected sources are free of it"`
	AllowedFactor uint64      `json:"allowed_factor" doc:"Allowed and protected sources may send this many times the rates of sources and prefixes; 0: they are not limited"`
}

// ClassLimits are the rates by class of packet.
type ClassLimits struct {
	All  Limit `json:"all" doc:"Every packet"`
	SYN  Limit `json:"syn" doc:"TCP packets with SYN set and ACK clear"`
	UDP  Limit `json:"udp" doc:"UDP packets"`
	ICMP Limit `json:"icmp" doc:"ICMP and ICMPv6 packets"`
}

// Limit is the rate of one class.
type Limit struct {
	Packets uint64   `json:"packets" doc:"Packets per second; 0: not limited"`
	Bytes   uint64   `json:"bytes" doc:"Bytes per second; 0: not limited"`
	Burst   Duration `json:"burst" doc:"How long the rate may be exceeded after silence"`
}

// Counters are the packet path's counters since it was loaded.
type Counters struct {
	Time       time.Time               `json:"time" doc:"When the counters were read"`
	Seen       traffic.Count           `json:"seen" doc:"All packets; the sum of passed, dropped and would_drop"`
	Passed     traffic.Count           `json:"passed"`
	Dropped    traffic.Count           `json:"dropped"`
	WouldDrop  traffic.Count           `json:"would_drop" doc:"Passed, but only because dry_run is on"`
	Reasons    map[string]ReasonCounts `json:"reasons" doc:"By the reason's word, every reason present"`
	EventsSent uint64                  `json:"events_sent" doc:"Sampled events that the kernel handed over"`
	EventsLost uint64                  `json:"events_lost" doc:"Sampled events that found the ring buffer full"`

	MetersEvicted uint64 `json:"meters_evicted" doc:"Times that the meter lacked room: it forgot a source, prefix or target that it was still counting, or did not count this one"`
}

// ReasonCounts are the packets that ended with one reason, by outcome.
type ReasonCounts struct {
	Passed    traffic.Count `json:"passed"`
	Dropped   traffic.Count `json:"dropped"`
	WouldDrop traffic.Count `json:"would_drop"`
}

// Total returns the sum over the outcomes.
func (r ReasonCounts) Total() traffic.Count { return r.Passed.Add(r.Dropped).Add(r.WouldDrop) }

// Rate is a speed.
type Rate struct {
	Packets float64 `json:"packets" doc:"Packets per second"`
	Bytes   float64 `json:"bytes" doc:"Bytes per second"`
}

// Rates are the speeds between two readings of the counters.
type Rates struct {
	Interval  Duration        `json:"interval" doc:"Time between the two readings; 0s: not known yet"`
	Seen      Rate            `json:"seen"`
	Passed    Rate            `json:"passed"`
	Dropped   Rate            `json:"dropped"`
	WouldDrop Rate            `json:"would_drop"`
	Reasons   map[string]Rate `json:"reasons" doc:"By the reason's word, all outcomes together, every reason present"`
}

// Latency is how long sampled packets spent in the program.
type Latency struct {
	Samples uint64   `json:"samples"`
	P50     Duration `json:"p50" doc:"Half of the samples took no longer; upper edge of the bucket"`
	P99     Duration `json:"p99"`
	Width   Duration `json:"width" doc:"Width of a bucket"`
	Buckets []uint64 `json:"buckets" nullable:"false" doc:"Samples by latency; the last bucket holds everything above"`
}

// Memory is what the engine takes up.
type Memory struct {
	Maps      []MapMemory `json:"maps" nullable:"false"`
	MapsBytes uint64      `json:"maps_bytes" doc:"What the kernel charges for all maps"`
	RSSBytes  uint64      `json:"rss_bytes" doc:"Resident memory of the process"`
}

// MapMemory is what the kernel charges for one map.
type MapMemory struct {
	Name  string `json:"name"`
	Bytes uint64 `json:"bytes"`
}

// Entry is one entry of a list.
type Entry struct {
	Prefix  netip.Prefix `json:"prefix" format:"cidr" example:"192.0.2.0/24"`
	Expires *time.Time   `json:"expires,omitempty" doc:"When it ends; absent: never"`
	Forced  bool         `json:"forced,omitempty" doc:"Blocks although it covers a protected address"`
	Origin  string       `json:"origin" doc:"Who wants it: operator, config, system"`
	Comment string       `json:"comment,omitempty"`
	Created *time.Time   `json:"created,omitempty" doc:"When it was first added"`
	// An exact count would cost every packet a write; so these say that they are none.
	Hits        uint64     `json:"hits,omitempty" doc:"Packets that ended on it since the engine started; absent: none, or events.per_second is 0"`
	HitsSampled bool       `json:"hits_sampled,omitempty" doc:"hits is an estimate from sampled events"`
	LastHit     *time.Time `json:"last_hit,omitempty" doc:"The last sampled packet that ended on it"`
}

// Refused is an entry that was not added.
type Refused struct {
	Line   int    `json:"line,omitempty" doc:"Line of the imported file; absent if it was not a file"`
	Prefix string `json:"prefix" doc:"The entry as it was given"`
	Reason string `json:"reason" doc:"Why, and what to do"`
}

// AddResult says what became of the entries.
type AddResult struct {
	Added   int       `json:"added" doc:"Entries that were not there before"`
	Changed int       `json:"changed" doc:"Entries that were there and have a new expiry or comment"`
	Removed int       `json:"removed" doc:"Entries that a replacing import took away"`
	Refused []Refused `json:"refused" nullable:"false" doc:"Entries that were left out"`
}

// DeleteResult says what became of a deletion.
type DeleteResult struct {
	Deleted int            `json:"deleted"`
	Missing []netip.Prefix `json:"missing" nullable:"false" doc:"Prefixes that were not on the list"`
}

// States of a Signature.
const (
	StateArmed       = "armed"
	StateObserving   = "observing"
	StateOverCeiling = "over_ceiling"
	StateRefused     = "refused"
)

// Signature is a rule on header fields with what it has done.
type Signature struct {
	ID          uint64     `json:"id" doc:"Stays with the rule as long as it lives, and is never given again"`
	Expression  string     `json:"expression" doc:"The rule as it was written" example:"udp and src port 53 and len > 512"`
	Rule        string     `json:"rule,omitempty" doc:"The same in canonical form, with the target; absent for a filter"`
	Target      string     `json:"target,omitempty" doc:"Destination that the rule is about; absent: any" example:"192.0.2.10/32"`
	Action      string     `json:"action" enum:"drop,limit,observe"`
	Rate        uint64     `json:"rate,omitempty" doc:"Packets a second that limit lets pass, of all sources together"`
	Ceiling     float64    `json:"ceiling" doc:"Share of its target's packets that it may drop in a second; above, it observes"`
	Filter      bool       `json:"filter" doc:"The expression does not fit the fields and runs as a program of its own"`
	Note        string     `json:"note,omitempty" doc:"Why it is a filter, or why it is not in force"`
	State       string     `json:"state" enum:"armed,observing,over_ceiling,refused" doc:"armed: acts; observing: counts only, by its action or in dry run; over_ceiling: reached its ceiling within the last ten seconds; refused: the packet path did not take it at the start"`
	Expires     *time.Time `json:"expires,omitempty" doc:"When it ends; absent: never"`
	Created     time.Time  `json:"created"`
	Origin      string     `json:"origin" doc:"Who wants it: operator …"`
	Comment     string     `json:"comment,omitempty"`
	Matched     uint64     `json:"matched" doc:"Packets since the engine armed it"`
	Bytes       uint64     `json:"bytes" doc:"Of the frames that matched"`
	Dropped     uint64     `json:"dropped"`
	WouldDrop   uint64     `json:"would_drop" doc:"Passed because it observes, in dry run, or over the ceiling"`
	OverCeiling uint64     `json:"over_ceiling" doc:"Passed because it had dropped its share of the second"`
	LastSeen    *time.Time `json:"last_seen,omitempty" doc:"Last packet that matched; absent: none"`
}

// SignatureCounts sums the signatures up.
type SignatureCounts struct {
	Armed       int `json:"armed" doc:"Rules in force"`
	OverCeiling int `json:"over_ceiling" doc:"Rules that reached their ceiling within the last ten seconds"`
	Refused     int `json:"refused" doc:"Rules that the packet path did not take at the start"`
	Capacity    int `json:"capacity" doc:"Most rules that can be armed"`
}

// Detection says how attacks are looked for.
type Detection struct {
	Enabled   bool   `json:"enabled" doc:"Targets are watched for attacks"`
	Rule      string `json:"rule,omitempty" enum:"tiered,and" doc:"Which models have to agree"`
	Trees     string `json:"trees,omitempty" doc:"Where the trees are from: a file, or built in; absent: there are none, and the deterministic layer decides"`
	Targets   int    `json:"targets" doc:"Targets with counters of their own now"`
	Capacity  int    `json:"capacity" doc:"Most of them at once"`
	Recycled  uint64 `json:"recycled" doc:"Times that one gave way to another, or was quiet for long"`
	Unplaced  uint64 `json:"unplaced" doc:"Times that a target found no room"`
	Learners  int    `json:"learners" doc:"Targets that learn models of their own"`
	Armed     int    `json:"armed" doc:"Of them have learnt enough for a vote"`
	Open      int    `json:"open" doc:"Incidents that go on"`
	Incidents int    `json:"incidents" doc:"Incidents that are kept, open ones included"`
	Ticks     uint64 `json:"ticks" doc:"Looks at the targets since the start, ten a second"`
	Late      uint64 `json:"late" doc:"Ticks that never came by themselves: the next one covered them"`

	SamplesSent uint64 `json:"samples_sent" doc:"Sampled headers that the kernel handed over"`
	SamplesLost uint64 `json:"samples_lost" doc:"Sampled headers that found the ring buffer full"`
}

// ReloadResult says what a reload changed.
type ReloadResult struct {
	Changed []string `json:"changed" nullable:"false" doc:"Keys whose new value is in force"`
	Restart []string `json:"restart" nullable:"false" doc:"Keys whose new value takes a restart"`
}

// ConfigText is the running configuration.
type ConfigText struct {
	File string `json:"file" doc:"The file it was read from, empty without one"`
	YAML string `json:"yaml" doc:"Every key with its value in force"`
}

// BypassState is the position of the bypass switch.
type BypassState struct {
	On bool `json:"on" doc:"Everything passes unexamined"`
}

// Event is one sampled packet with its verdict.
type Event struct {
	Time            time.Time `json:"time"`
	Interface       string    `json:"interface"`
	Reason          string    `json:"reason"`
	Outcome         string    `json:"outcome" enum:"passed,dropped,would_drop"`
	Source          string    `json:"source,omitempty" doc:"Absent without a readable IP header"`
	Destination     string    `json:"destination,omitempty"`
	Protocol        uint8     `json:"protocol" doc:"IP protocol number of the innermost header parsed"`
	SourcePort      uint16    `json:"source_port,omitempty"`
	DestinationPort uint16    `json:"destination_port,omitempty"`
	TCPFlags        uint8     `json:"tcp_flags,omitempty"`
	TTL             uint8     `json:"ttl" doc:"TTL or hop limit"`
	Length          uint32    `json:"length" doc:"Bytes on the wire"`
	VLANs           uint8     `json:"vlans,omitempty" doc:"Number of VLAN tags"`
	Fragment        bool      `json:"fragment,omitempty"`
	Tunnel          bool      `json:"tunnel,omitempty" doc:"Addresses and ports are those of the inner packet"`
}

// EventMessage is one line of the event stream: an event or an incident that changed, and how many
// of them this reader has lost since the last message because it was too slow.
type EventMessage struct {
	Event    *Event    `json:"event,omitempty"`
	Incident *Incident `json:"incident,omitempty"`
	Lost     uint64    `json:"lost,omitempty"`
}

// EventFilter selects events. Empty fields select everything; words of one
// field are alternatives, fields are combined.
type EventFilter struct {
	Reasons  []traffic.Reason
	Outcomes []traffic.Outcome
	Sources  []netip.Prefix
}

func (f EventFilter) empty() bool { return len(f.Reasons)+len(f.Outcomes)+len(f.Sources) == 0 }

func (f EventFilter) match(e *traffic.Event) bool {
	return oneOf(f.Reasons, e.Reason) && oneOf(f.Outcomes, e.Outcome) && f.matchSource(e.Source)
}

func (f EventFilter) matchSource(a netip.Addr) bool {
	for _, p := range f.Sources {
		if p.Contains(a) {
			return true
		}
	}
	return len(f.Sources) == 0
}

func oneOf[T comparable](wanted []T, v T) bool {
	return len(wanted) == 0 || slices.Contains(wanted, v)
}
