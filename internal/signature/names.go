// SPDX-License-Identifier: Apache-2.0

package signature

// Protocols with fields of their own.
const (
	protoICMP  = 1
	protoTCP   = 6
	protoUDP   = 17
	protoICMP6 = 58
	protoSCTP  = 132
)

// protocolNames stand behind `proto`; those in protocolWords also alone.
var protocolNames = map[string]uint16{
	"icmp": protoICMP, "igmp": 2, "ipip": 4, "tcp": protoTCP, "igrp": 9, "udp": protoUDP, "dccp": 33, "ipv6": 41, "rsvp": 46,
	"gre": 47, "esp": 50, "ah": 51, "icmp6": protoICMP6, "ipv6-icmp": protoICMP6, "eigrp": 88, "ospf": 89, "pim": 103,
	"vrrp": 112, "carp": 112, "l2tp": 115, "sctp": protoSCTP, "udplite": 136,
}

// protocolWords in the order in which String prefers them.
var protocolWords = []string{"tcp", "udp", "icmp", "icmp6", "sctp", "gre", "esp", "ah", "igmp", "igrp", "pim", "vrrp", "carp"}

// portNames are the services that floods are made of, and of. They are not looked up on the host,
// so that a rule means the same everywhere.
var portNames = map[string]uint16{
	"ftp": 21, "ssh": 22, "telnet": 23, "smtp": 25, "chargen": 19, "domain": 53, "tftp": 69, "http": 80, "sunrpc": 111,
	"ntp": 123, "netbios-ns": 137, "snmp": 161, "ldap": 389, "https": 443, "rip": 520, "ssdp": 1900, "sip": 5060,
	"mdns": 5353, "memcached": 11211,
}

// constants stand for numbers in comparisons, as in tcpdump.
var constants = map[string]uint64{
	"tcp-fin": 1, "tcp-syn": 2, "tcp-rst": 4, "tcp-push": 8, "tcp-ack": 16, "tcp-urg": 32, "tcp-ece": 64, "tcp-cwr": 128,

	"icmp-echoreply": 0, "icmp-unreach": 3, "icmp-sourcequench": 4, "icmp-redirect": 5, "icmp-echo": 8,
	"icmp-routeradvert": 9, "icmp-routersolicit": 10, "icmp-timxceed": 11, "icmp-paramprob": 12, "icmp-tstamp": 13,
	"icmp-tstampreply": 14, "icmp-ireq": 15, "icmp-ireqreply": 16, "icmp-maskreq": 17, "icmp-maskreply": 18,

	"icmp6-destinationunreach": 1, "icmp6-packettoobig": 2, "icmp6-timeexceeded": 3, "icmp6-parameterproblem": 4,
	"icmp6-echo": 128, "icmp6-echoreply": 129, "icmp6-multicastlistenerquery": 130,
	"icmp6-multicastlistenerreportv1": 131, "icmp6-multicastlistenerdone": 132, "icmp6-routersolicit": 133,
	"icmp6-routeradvert": 134, "icmp6-neighborsolicit": 135, "icmp6-neighboradvert": 136, "icmp6-redirect": 137,
}

// offsets stand for numbers within brackets, as in tcpdump.
var offsets = map[string]uint64{"tcpflags": 13, "icmptype": 0, "icmpcode": 1, "icmp6type": 0, "icmp6code": 1}

// flagNames by bit, lowest first.
var flagNames = [8]string{"tcp-fin", "tcp-syn", "tcp-rst", "tcp-push", "tcp-ack", "tcp-urg", "tcp-ece", "tcp-cwr"}

// scalars are the words that a comparison begins with. `len` is tcpdump's, the others are ours.
var scalars = map[string]Field{
	"len": Length, "ttl": TTL, "flags": TCPFlags, "doff": DataOffset, "window": Window, "icmptype": ICMPType, "icmpcode": ICMPCode,
}

// frameHeader is what tcpdump's len counts besides the IP packet: Ethernet without a tag.
const frameHeader = 14

// part says which bits of a header are a field; bits are counted from the header's first.
type part struct {
	first, last int
	field       Field
}

// layouts are the headers by the name that stands before the bracket.
var layouts = map[string][]part{
	"ip":    {{16, 31, Length}, {49, 49, DF}, {50, 63, Fragment}, {64, 71, TTL}, {72, 79, Protocol}},
	"ip6":   {{56, 63, TTL}},
	"tcp":   {{0, 15, SourcePort}, {16, 31, DestPort}, {96, 99, DataOffset}, {104, 111, TCPFlags}, {112, 127, Window}},
	"udp":   {{0, 15, SourcePort}, {16, 31, DestPort}},
	"icmp":  {{0, 7, ICMPType}, {8, 15, ICMPCode}},
	"icmp6": {{0, 7, ICMPType}, {8, 15, ICMPCode}},
}

// unfit are words of tcpdump that say nothing about a rule's fields. What follows them is not parsed.
var unfit = map[string]bool{
	"ether": true, "link": true, "fddi": true, "tr": true, "wlan": true, "arp": true, "rarp": true, "vlan": true, "mpls": true, "pppoed": true,
	"pppoes": true, "geneve": true, "vxlan": true, "broadcast": true, "multicast": true, "gateway": true, "inbound": true, "outbound": true,
	"protochain": true, "llc": true, "iso": true, "clnp": true, "esis": true, "isis": true, "stp": true, "ipx": true, "netbeui": true,
	"atalk": true, "aarp": true, "decnet": true, "lat": true, "moprc": true, "mopdl": true, "on": true, "ifname": true, "type": true,
	"subtype": true, "dir": true, "ppp": true, "slip": true,
}
