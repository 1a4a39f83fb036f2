// SPDX-License-Identifier: Apache-2.0

// Package config is the configuration file: its keys, their defaults and
// meaning, a strict reader that says where a mistake is, and what of a changed
// file can be applied to a running engine.
//
// The struct types below are the only description of the file. The reader, the
// JSON schema, docs/configuration.md and packaging/sentinel-x.example.yaml all
// follow from them and their tags:
//
//	yaml   the key
//	desc   what the key means, for people
//	enum   the words allowed, separated by |
//	min,max bounds of a number or duration, inclusive
//	live   "true": a reload applies a change; otherwise it takes a restart
//	       (inherited by the keys below)
package config

//go:generate go test -run ^TestGenerated$ -update .

import (
	"fmt"
	"net/netip"
	"time"
)

// Config is the whole file. The zero value is not valid; start with Default.
type Config struct {
	Interfaces    []string `yaml:"interfaces" json:"interfaces" desc:"Network interfaces to filter on. The flag --interface overrides the list."`
	Mode          Mode     `yaml:"mode" json:"mode" enum:"auto|native|generic|offload" desc:"How to attach: native is the driver's own hook, generic works everywhere but costs more, offload runs on the network card, auto tries native and falls back to generic with a warning."`
	DryRun        bool     `yaml:"dry_run" json:"dry_run" live:"true" desc:"Observe only: everything is judged and counted as would_drop, nothing is dropped."`
	Replace       bool     `yaml:"replace" json:"replace" desc:"Replace an XDP program of somebody else that is attached already, instead of refusing to start."`
	OnExit        OnExit   `yaml:"on_exit" json:"on_exit" enum:"detach|keep" desc:"What a clean stop does: detach removes the program, keep leaves the pinned program filtering (needs pin.enabled)."`
	Pin           Pin      `yaml:"pin" json:"pin" desc:"Pinning in the BPF file system, so that a restart takes over without a gap."`
	StateDir      string   `yaml:"state_dir" json:"state_dir" desc:"Directory of the journal that keeps list entries and their expiry over a restart."`
	Socket        string   `yaml:"socket" json:"socket" desc:"UNIX socket of the API, created with mode 0600."`
	StatsInterval Duration `yaml:"stats_interval" json:"stats_interval" live:"true" min:"0s" max:"24h" desc:"How often a summary line goes to the log. 0s: never."`
	Parse         Parsing  `yaml:"parse" json:"parse" live:"true" desc:"What becomes of packets that parsing sets apart: pass or drop. Allowed and protected sources pass whatever is set here; blocked ones are dropped."`
	Limits        Limits   `yaml:"limits" json:"limits" live:"true" desc:"Rate limits of sources, of their prefixes, and of targets."`
	Lists         Lists    `yaml:"lists" json:"lists" live:"true" desc:"Block and allow lists. Entries given here come back at every start and reload; others are added with the commands block and allow."`
	Protect       Protect  `yaml:"protect" json:"protect" live:"true" desc:"What is protected: addresses that no block may cover without --force, so that nobody is locked out, and the targets that are watched for attacks."`
	Events        Events   `yaml:"events" json:"events" desc:"Sampled packets with their verdict, for the command events."`
	Log           Log      `yaml:"log" json:"log" desc:"The daemon's log."`
	Detect        Detect   `yaml:"detect" json:"detect" desc:"Attack detection: when an incident is declared."`

	// Outdated holds a notice for each old word the file uses. It is no key.
	Outdated []string `yaml:"-" json:"-"`
}

// Mode is how the program is attached.
type Mode string

// The modes.
const (
	ModeAuto    Mode = "auto"
	ModeNative  Mode = "native"
	ModeGeneric Mode = "generic"
	ModeOffload Mode = "offload"
)

// ParseMode reads a mode, as the flag --mode has it. For an old word it also
// returns a notice that names the new one.
func ParseMode(word string) (mode Mode, notice string, err error) {
	mode, notice = oldMode(Mode(word))
	switch mode {
	case ModeAuto, ModeNative, ModeGeneric, ModeOffload:
		return mode, notice, nil
	}
	return "", "", fmt.Errorf("mode %q is not one of auto, native, generic, offload", word)
}

// oldMode translates the prototype's words.
func oldMode(m Mode) (Mode, string) {
	if m == "skb" {
		return ModeGeneric, `mode: "skb" is the old word for "generic"`
	}
	return m, ""
}

// OnExit is what a clean stop does with the attached program.
type OnExit string

// The choices of on_exit.
const (
	ExitDetach OnExit = "detach"
	ExitKeep   OnExit = "keep"
)

// Pin says whether and where programs and maps are pinned.
type Pin struct {
	Enabled bool   `yaml:"enabled" json:"enabled" desc:"Pin the program and its maps. Where no BPF file system is mounted, the engine runs unpinned and says so."`
	Path    string `yaml:"path" json:"path" desc:"Directory of the pins, on a BPF file system."`
}

// Policy is the verdict for a kind of packet: pass or drop.
type Policy string

// The policies.
const (
	PolicyPass Policy = "pass"
	PolicyDrop Policy = "drop"
)

// Tunnel is a kind of tunnel that is looked into.
type Tunnel string

// The tunnels.
const (
	TunnelIPIP  Tunnel = "ipip"
	Tunnel6in4  Tunnel = "6in4"
	TunnelGRE   Tunnel = "gre"
	TunnelVXLAN Tunnel = "vxlan"
)

// Parsing holds the policies of docs/packet-path.md and the tunnels to look into.
type Parsing struct {
	Malformed        Policy   `yaml:"malformed" json:"malformed" enum:"pass|drop" desc:"Packets whose headers contradict each other, are cut short, or are impossible (reasons malformed, truncated, bad_header_length, land, zero_ttl, bad_tcp_flags)."`
	FirstFragments   Policy   `yaml:"first_fragments" json:"first_fragments" enum:"pass|drop" desc:"First fragments of IP packets."`
	LaterFragments   Policy   `yaml:"later_fragments" json:"later_fragments" enum:"pass|drop" desc:"Later fragments, which carry no ports."`
	TinyFragments    Policy   `yaml:"tiny_fragments" json:"tiny_fragments" enum:"pass|drop" desc:"First fragments too small for their layer-4 header, and TCP fragments at offset 1 (RFC 1858)."`
	ExtensionHeaders Policy   `yaml:"extension_headers" json:"extension_headers" enum:"pass|drop" desc:"IPv6 packets with more than 8 extension headers."`
	VLANDepth        Policy   `yaml:"vlan_depth" json:"vlan_depth" enum:"pass|drop" desc:"Frames with more than 2 VLAN tags, whose source cannot be read."`
	TunnelDepth      Policy   `yaml:"tunnel_depth" json:"tunnel_depth" enum:"pass|drop" desc:"A configured tunnel inside a configured tunnel."`
	Tunnels          []Tunnel `yaml:"tunnels" json:"tunnels" enum:"ipip|6in4|gre|vxlan" live:"false" desc:"Tunnels to look into; lists, limits and policies then apply to the packet inside too. Each costs a little time a packet."`
}

// Limits sizes the meter and sets its rates.
type Limits struct {
	Sources       uint32      `yaml:"sources" json:"sources" live:"false" min:"1024" max:"16777216" desc:"How many sources are metered at once, rounded up to a power of two; at least 4096 are. Each takes 16 bytes of kernel memory once a limit is set. If an eighth of them are over their limit at the same time, 1 of 1000 of these is not held to it; of a quarter 1 of 100; of all 3 of 10. Raise it for larger botnets, and when health says that the meter is too small; a table that the CPU's caches do not hold is slower."`
	AllowedFactor uint32      `yaml:"allowed_factor" json:"allowed_factor" max:"1000000" desc:"Allowed and protected sources may send this many times the rates of per_source and per_prefix, since an allowed address can be spoofed; per_target does not hold for them. 0: they are not limited."`
	PerSource     ClassLimits `yaml:"per_source" json:"per_source" desc:"Rates of each source, one IPv4 address or one IPv6 /64, by class. A packet counts for all and for at most one of the others."`
	PerPrefix     ClassLimits `yaml:"per_prefix" json:"per_prefix" desc:"Rates of each source prefix, an IPv4 /24 or an IPv6 /48: all its sources together."`
	PerTarget     ClassLimits `yaml:"per_target" json:"per_target" desc:"Rates of each destination address, from all sources together that are neither allowed nor protected. Under attack it drops good traffic as well as bad: it keeps the target's line and host alive, not its service."`
}

// ClassLimits holds one limit per class of packet.
type ClassLimits struct {
	All  Limit `yaml:"all" json:"all" desc:"Every packet."`
	SYN  Limit `yaml:"syn" json:"syn" desc:"TCP packets with SYN set and ACK clear: new connections."`
	UDP  Limit `yaml:"udp" json:"udp" desc:"UDP packets, fragments included."`
	ICMP Limit `yaml:"icmp" json:"icmp" desc:"ICMP and ICMPv6 packets. Neighbour discovery is never limited."`
}

// Limit is the rate of one class that one source, prefix or target may have.
type Limit struct {
	Packets Count    `yaml:"packets" json:"packets" max:"1000000000" desc:"Packets per second. 0: no limit."`
	Bytes   Bytes    `yaml:"bytes" json:"bytes" max:"1000000000000" desc:"Bytes per second, whole frames; under 8 counts as 8. 0: no limit."`
	Burst   Duration `yaml:"burst" json:"burst" min:"1ms" max:"1m" desc:"After silence, as much may come at once as the rate allows in this time. Less than 20ms counts as 20ms, for the packet path's clock moves in steps."`
}

// Lists sizes the block and allow lists and holds the file's own entries.
type Lists struct {
	MaxEntries uint32      `yaml:"max_entries" json:"max_entries" live:"false" min:"1" max:"16777216" desc:"Most entries of each list, from all origins together."`
	Block      []ListEntry `yaml:"block" json:"block" desc:"Sources to drop."`
	Allow      []ListEntry `yaml:"allow" json:"allow" desc:"Sources to let pass whatever the block list and the policies say."`
}

// ListEntry is one entry of a list: a host or a CIDR prefix. In the file it is
// a string, or an object with prefix and comment.
type ListEntry struct {
	Prefix  netip.Prefix `yaml:"prefix" json:"prefix" desc:"A host or a CIDR prefix, as 192.0.2.7 or 2001:db8::/32."`
	Comment string       `yaml:"comment" json:"comment,omitempty" desc:"Why the entry is there."`
}

// Protect says which addresses no block may cover, and which are watched.
type Protect struct {
	Auto      bool           `yaml:"auto" json:"auto" desc:"Protect the host's own addresses, its default gateways, its resolvers, and the peer of the SSH session the command was started from."`
	Addresses []netip.Prefix `yaml:"addresses" json:"addresses" desc:"More hosts and prefixes to protect."`
	Targets   []netip.Prefix `yaml:"targets" json:"targets" live:"false" desc:"Destinations that are watched for attacks, each of their addresses, /24s and /48s by itself. Empty: the interface's own addresses."`
}

// Events bounds the sampled events.
type Events struct {
	PerSecond uint32 `yaml:"per_second" json:"per_second" live:"true" max:"1000000" desc:"Most events a second from all CPUs together. 0: no events."`
	RingBytes uint32 `yaml:"ring_bytes" json:"ring_bytes" min:"4096" max:"268435456" desc:"Size of the ring buffer in bytes: a power of two, and a multiple of the page size."`
}

// LogLevel is the least severe level that is logged.
type LogLevel string

// LogFormat is the form of log lines.
type LogFormat string

// Log says where log lines go and what they look like.
type Log struct {
	Level     LogLevel  `yaml:"level" json:"level" live:"true" enum:"debug|info|warn|error" desc:"Least severe level to log."`
	Format    LogFormat `yaml:"format" json:"format" enum:"text|json" desc:"text: key=value lines; json: one object a line."`
	File      string    `yaml:"file" json:"file" desc:"File to log to, rotated by size. Empty: standard error."`
	MaxSizeMB uint32    `yaml:"max_size_mb" json:"max_size_mb" min:"1" max:"100000" desc:"Megabytes at which the log file is rotated."`
	MaxFiles  uint32    `yaml:"max_files" json:"max_files" max:"1000" desc:"Rotated files to keep. 0: all."`
}

// Rule says which detectors have to agree on an attack.
type Rule string

// The rules.
const (
	RuleTiered Rule = "tiered"
	RuleAnd    Rule = "and"
)

// Detect holds the settings of attack detection (docs/detection.md).
type Detect struct {
	Enabled    bool         `yaml:"enabled" json:"enabled" desc:"Watch the targets for attacks."`
	Rule       Rule         `yaml:"rule" json:"rule" enum:"tiered|and" desc:"Which models have to agree. tiered: the trees are sure, or find an attack as likely as agree says and the forest or the online learner agrees. and: the trees find it likely and the forest agrees, always both. The deterministic layer needs no model with either."`
	Threshold  float64      `yaml:"threshold" json:"threshold" min:"0" max:"1" desc:"Probability of an attack above which the trees are sure."`
	Likely     float64      `yaml:"likely" json:"likely" min:"0" max:"1" desc:"Probability of an attack above which the trees find it likely; threshold, if that is less."`
	Agree      float64      `yaml:"agree" json:"agree" min:"0" max:"1" desc:"Probability of an attack above which, with rule tiered, the trees and the forest or the online learner are enough together; likely, if that is more. With threshold, the default, the trees decide without them."`
	Window     Duration     `yaml:"window" json:"window" min:"100ms" max:"10s" desc:"How long the detectors look before they alarm, in ticks of 100ms: two thirds of the ticks have to show an attack."`
	Floor      Count        `yaml:"floor" json:"floor" min:"1" max:"1000000000" desc:"Packets per second above what is normal for a target below which nothing is an attack, whatever it looks like."`
	Factor     float64      `yaml:"factor" json:"factor" min:"1" max:"1000" desc:"How many times what is normal a rate of a target must be to be an attack."`
	EndAfter   Duration     `yaml:"end_after" json:"end_after" min:"1s" max:"10m" desc:"An incident ends when its target was calm for that long. Attacks that pause for less are one incident."`
	Limits     TargetLimits `yaml:"limits" json:"limits" desc:"Rates of any one target that are an attack whatever the models say."`
	MaxTargets uint32       `yaml:"max_targets" json:"max_targets" min:"1" max:"4096" desc:"Most addresses and networks that are watched at once; the network around each address, and the interface, come besides. Quiet ones give way. Each takes about 12 KiB, and 2 KiB of kernel memory for each CPU."`
	ModelDir   string       `yaml:"model_dir" json:"model_dir" desc:"Directory of the models. Empty, or without trees in it: the model that comes with the program."`
}

// TargetLimits are rates per second of one target.
type TargetLimits struct {
	Packets   Count `yaml:"packets" json:"packets" max:"1000000000" desc:"Packets per second. 0: no limit."`
	Bytes     Bytes `yaml:"bytes" json:"bytes" max:"1000000000000" desc:"Bytes per second, whole frames. 0: no limit."`
	SYN       Count `yaml:"syn" json:"syn" max:"1000000000" desc:"SYNs without ACK per second. 0: no limit."`
	UDP       Count `yaml:"udp" json:"udp" max:"1000000000" desc:"UDP packets per second. 0: no limit."`
	ICMP      Count `yaml:"icmp" json:"icmp" max:"1000000000" desc:"ICMP and ICMPv6 packets per second. 0: no limit."`
	Reflected Count `yaml:"reflected" json:"reflected" max:"1000000000" desc:"Answers of reflectors (DNS, NTP, SNMP, CLDAP, SSDP, memcached, chargen, portmap) and their fragments per second, larger than those services usually give, from eight servers at least, where they are half of the UDP packets. 0: no limit."`
}

// Default returns the configuration of an empty file. It names no
// interfaces: the file or the flag --interface does.
func Default() Config {
	limit := Limit{Burst: Duration{time.Second}}
	limits := ClassLimits{All: limit, SYN: limit, UDP: limit, ICMP: limit}
	return Config{
		Interfaces:    []string{},
		Mode:          ModeAuto,
		OnExit:        ExitDetach,
		Pin:           Pin{Enabled: true, Path: "/sys/fs/bpf/sentinel-x"},
		StateDir:      "/var/lib/sentinel-x",
		Socket:        "/run/sentinel-x/sentinel-x.sock",
		StatsInterval: Duration{10 * time.Second},
		Parse: Parsing{
			Malformed: PolicyPass, FirstFragments: PolicyPass, LaterFragments: PolicyPass,
			TinyFragments: PolicyDrop, ExtensionHeaders: PolicyDrop, VLANDepth: PolicyDrop,
			TunnelDepth: PolicyPass, Tunnels: []Tunnel{},
		},
		Limits: Limits{
			Sources: 65536, AllowedFactor: 10,
			PerSource: limits, PerPrefix: limits, PerTarget: limits,
		},
		Lists:   Lists{MaxEntries: 1000000, Block: []ListEntry{}, Allow: []ListEntry{}},
		Protect: Protect{Auto: true, Addresses: []netip.Prefix{}, Targets: []netip.Prefix{}},
		Events:  Events{PerSecond: 1000, RingBytes: 262144},
		Log:     Log{Level: "info", Format: "text", MaxSizeMB: 100, MaxFiles: 5},
		Detect: Detect{
			Enabled: true, Rule: RuleTiered, Threshold: 0.97, Likely: 0.5, Agree: 0.97, Window: Duration{300 * time.Millisecond},
			Floor: 200, Factor: 1.5, EndAfter: Duration{10 * time.Second}, MaxTargets: 256,
			Limits: TargetLimits{Reflected: 1000},
		},
	}
}
