// SPDX-License-Identifier: Apache-2.0

package pcapfilter

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/net/bpf"
)

// qualifiers stand in front of a value: tcp src port.
type qualifiers struct {
	protocol  string // "", ip, ip6, tcp, udp, sctp
	direction direction
	kind      string // host, net, port, portrange, proto
}

type direction int

const (
	sourceOrDestination direction = iota
	sourceAndDestination
	source
	destination
)

// protocols are the words that stand for an IP protocol.
var protocols = map[string]uint32{
	"icmp": 1, "igmp": 2, "tcp": 6, "igrp": 9, "udp": 17, "gre": 47, "esp": 50, "ah": 51, "icmp6": 58, "pim": 103, "vrrp": 112, "sctp": 132,
}

// refused are tcpdump's words that have no meaning in the packet path, or none yet.
var refused = map[string]string{
	"arp": "ARP always passes: a filter never sees it", "rarp": "RARP always passes: a filter never sees it",
	"vlan": "VLAN tags cannot be tested", "mpls": "MPLS cannot be tested", "pppoed": "PPPoE cannot be tested", "pppoes": "PPPoE cannot be tested",
	"gateway": "names are not looked up", "broadcast": "broadcast cannot be tested", "multicast": "write a prefix: dst net 224.0.0.0/4",
	"inbound": "the packet path sees received frames only", "outbound": "the packet path sees received frames only",
	"ifname": "the interface cannot be tested", "on": "the interface cannot be tested", "protochain": "write proto", "geneve": "Geneve cannot be tested",
	"wlan": "frames are Ethernet", "fddi": "frames are Ethernet", "tr": "frames are Ethernet",
	"stp": "not IP: always passes", "atalk": "not IP: always passes", "ipx": "not IP: always passes", "iso": "not IP: always passes",
}

// primitive: [protocol] [direction] [kind] value, a protocol alone, less N, greater N.
func (p *parser) primitive() (node, *fault) {
	at, word := p.at(), p.peek()
	if why, ok := refused[word]; ok {
		return nil, &fault{at, why}
	}
	if p.take("less", "greater") {
		return p.lengthLimit(word)
	}
	q, any, err := p.qualify()
	if err != nil {
		return nil, err
	}
	if any && q.kind == "" && q.direction == sourceOrDestination && !p.valueAhead() {
		if q.protocol == "ether" {
			return nil, p.unexpected("src, dst, host or proto")
		}
		return protocolAlone(q.protocol), nil
	}
	if p.end() {
		return nil, p.unexpected("a condition")
	}
	if !any {
		if p.last.kind == "" && !p.valueAhead() {
			return nil, p.unexpected("a condition")
		}
		q = p.last
	}
	if q.kind == "" {
		q.kind = "host"
	}
	p.last = q
	at, word = p.at(), p.peek()
	p.pos++
	n, problem := q.test(strings.TrimPrefix(word, "\\"), p)
	if problem != "" {
		return nil, &fault{at, problem}
	}
	return n, nil
}

// valueAhead: an address or a number comes.
func (p *parser) valueAhead() bool {
	if p.end() {
		return false
	}
	c := p.peek()[0]
	return c >= '0' && c <= '9' || strings.Contains(p.peek(), ":") && p.peek() != ":"
}

func (p *parser) lengthLimit(word string) (node, *fault) {
	v, ok := parseNumber(p.peek())
	if !ok {
		return nil, p.unexpected("a number of bytes")
	}
	p.pos++
	if word == "less" {
		return not{relation{bpf.JumpGreaterThan, length{}, constant{v}}}, nil
	}
	return relation{bpf.JumpGreaterOrEqual, length{}, constant{v}}, nil
}

// qualify reads the qualifiers, and whether there are any.
func (p *parser) qualify() (q qualifiers, any bool, err *fault) {
	start := p.pos
	if word := p.peek(); word == "ip" || word == "ip6" || word == "ether" || protocols[word] != 0 {
		q.protocol = word
		p.pos++
	}
	switch {
	case p.take("src"):
		q.direction = source
		between := p.peek()
		if before := p.pos; p.take("or", "and") {
			if p.take("dst") {
				q.direction = map[string]direction{"or": sourceOrDestination, "and": sourceAndDestination}[between]
			} else {
				p.pos = before
			}
		}
		if q.direction == sourceOrDestination {
			q.kind = "host"
		}
	case p.take("dst"):
		q.direction = destination
	}
	if word := p.peek(); p.take("host", "net", "port", "portrange", "proto") {
		q.kind = word
	}
	return q, p.pos > start, nil
}

func protocolAlone(word string) node {
	switch word {
	case "ip":
		return isIPv4()
	case "ip6":
		return isIPv6()
	case "icmp", "igmp", "igrp":
		return protocol4(protocols[word])
	case "icmp6":
		return protocol6(protocols[word])
	}
	return either{protocol4(protocols[word]), protocol6(protocols[word])}
}

// test returns the condition, or what is wrong with the value.
func (q qualifiers) test(word string, p *parser) (node, string) {
	switch q.kind {
	case "host", "net":
		return q.address(word, p)
	case "port", "portrange":
		return q.port(word)
	}
	return q.proto(word)
}

func (q qualifiers) proto(word string) (node, string) {
	number, ok := parseNumber(word)
	if !ok {
		if number, ok = protocols[word]; !ok {
			return nil, fmt.Sprintf("protocol %q is unknown: write its number", word)
		}
	}
	if q.direction != sourceOrDestination {
		return nil, "a protocol has no direction"
	}
	switch q.protocol {
	case "ether":
		return equals(at(baseLink, 12, 2), number), ""
	case "ip":
		return protocol4(number), ""
	case "ip6":
		return protocol6(number), ""
	case "":
		return either{protocol4(number), protocol6(number)}, ""
	}
	return nil, fmt.Sprintf("%s has no protocols: write ip proto or ip6 proto", q.protocol)
}

func (q qualifiers) port(word string) (node, string) {
	lo, hi, ok := parsePorts(word, q.kind == "portrange")
	if !ok {
		if q.kind == "portrange" {
			return nil, fmt.Sprintf("%q is not a range of ports such as 1-1023", word)
		}
		return nil, fmt.Sprintf("%q is not a port number; service names are not looked up", word)
	}
	numbers := []uint32{6, 17, 132}
	switch q.protocol {
	case "":
	case "tcp", "udp", "sctp":
		numbers = []uint32{protocols[q.protocol]}
	default:
		return nil, fmt.Sprintf("%s has no ports", q.protocol)
	}
	var four, six []node
	for _, n := range numbers {
		four = append(four, protocol4(n))
		six = append(six, plain6(n))
	}
	test := func(b base) node {
		return q.direction.join(func(offset uint32) node { return within(at(b, offset, 2), lo, hi) }, 0, 2)
	}
	return either{all(any(six...), test(baseUpper6)), all(any(four...), notLater(), test(baseUpper))}, ""
}

func parsePorts(word string, isRange bool) (lo, hi uint32, ok bool) {
	first, last, dash := strings.Cut(word, "-")
	if !dash {
		last = first
	}
	lo, okLo := parseNumber(first)
	hi, okHi := parseNumber(last)
	return lo, hi, okLo && okHi && (isRange || !dash) && lo <= hi && hi <= 65535
}

func within(n number, lo, hi uint32) node {
	if lo == hi {
		return equals(n, lo)
	}
	return both{relation{bpf.JumpGreaterOrEqual, n, constant{lo}}, not{relation{bpf.JumpGreaterThan, n, constant{hi}}}}
}

// join applies the test to the field at one or both of the offsets.
func (d direction) join(test func(offset uint32) node, src, dst uint32) node {
	switch d {
	case source:
		return test(src)
	case destination:
		return test(dst)
	case sourceAndDestination:
		return both{test(src), test(dst)}
	}
	return either{test(src), test(dst)}
}

func (q qualifiers) address(word string, p *parser) (node, string) {
	if q.protocol == "ether" {
		return nil, "MAC addresses cannot be tested by name: write ether[0:4] and ether[4:2]"
	}
	prefix, ok := parsePrefix(word)
	switch {
	case !ok:
		return nil, fmt.Sprintf("%q is not an address; names are not looked up, and a net is written with its length: 192.0.2.0/24", word)
	case q.kind == "host" && !prefix.IsSingleIP():
		return nil, fmt.Sprintf("host %s: that is a prefix: write net", word)
	case prefix != prefix.Masked():
		return nil, fmt.Sprintf("%s has bits behind its length: write %v", word, prefix.Masked())
	case prefix.Addr().Is4In6():
		return nil, "an IPv4-mapped address never appears on the wire: write the IPv4 address"
	case q.protocol == "ip6" && prefix.Addr().Is4(), q.protocol == "ip" && !prefix.Addr().Is4():
		return nil, fmt.Sprintf("%s is not an address of %s", word, q.protocol)
	}
	if p.take("mask") {
		return nil, "mask: write the length of the prefix instead: 192.0.2.0/24"
	}
	n := inPrefix(prefix, q.direction)
	switch q.protocol {
	case "", "ip", "ip6":
		return n, ""
	}
	return both{protocolAlone(q.protocol), n}, ""
}

func parsePrefix(word string) (netip.Prefix, bool) {
	if prefix, err := netip.ParsePrefix(word); err == nil {
		return prefix, true
	}
	a, err := netip.ParseAddr(word)
	if err != nil || a.Zone() != "" {
		return netip.Prefix{}, false
	}
	return netip.PrefixFrom(a, a.BitLen()), true
}

func inPrefix(prefix netip.Prefix, d direction) node {
	bytes := prefix.Addr().AsSlice()
	test := func(offset uint32) node {
		n := node(always{true})
		for i := 0; i < len(bytes) && 8*i < prefix.Bits(); i += 4 {
			mask := ^uint32(0)
			if left := prefix.Bits() - 8*i; left < 32 {
				mask <<= 32 - left
			}
			word := equals(masked(at(baseNet, offset+uint32(i), 4), mask), binary.BigEndian.Uint32(bytes[i:])&mask)
			if i == 0 {
				n = word
			} else {
				n = both{n, word}
			}
		}
		return n
	}
	if prefix.Addr().Is4() {
		return both{isIPv4(), d.join(test, 12, 16)}
	}
	return both{isIPv6(), d.join(test, 8, 24)}
}
