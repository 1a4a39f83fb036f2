// SPDX-License-Identifier: Apache-2.0

package signature

import (
	"net/netip"
	"reflect"
	"testing"
)

func rule(edit func(r *Rule)) Rule {
	var r Rule
	edit(&r)
	return r
}

// fields makes a rule of pairs of a field and its set.
func fields(pairs ...any) Rule {
	return rule(func(r *Rule) {
		for i := 0; i < len(pairs); i += 2 {
			r.Fields[pairs[i].(Field)] = pairs[i+1].(Set)
		}
	})
}

func between(lo, hi uint16) Set { return NewSet(Range{lo, hi}) }

func family(f uint8, r Rule) Rule { r.Family = f; return r }

func to(target string, r Rule) Rule { r.Target = netip.MustParsePrefix(target); return r }

func words(r Rule, words ...Word) Rule { r.Payload = words; return r }

var (
	tcp = Values(6)
	udp = Values(17)
	syn = Set{{2, 3}, {6, 7}, {10, 11}, {14, 15}}
)

func TestParse(t *testing.T) {
	for _, c := range []struct {
		text string
		want Rule
	}{
		{"ip or ip6", Rule{}},
		{"ip", family(4, Rule{})},
		{"not ip", family(6, Rule{})},
		{"udp and src port 53 and len > 512", fields(Protocol, udp, SourcePort, Values(53), Length, between(499, 65535))},
		{"udp or tcp", fields(Protocol, Values(6, 17))},
		{"proto 17 or 6", fields(Protocol, Values(6, 17))},
		{"proto udp", fields(Protocol, udp)},
		{`proto \udp`, fields(Protocol, udp)},
		{"proto (gre or esp)", fields(Protocol, Values(47, 50))},
		{"proto 1-5", fields(Protocol, between(1, 5))},
		{"ip proto 17 or 6", family(4, fields(Protocol, Values(6, 17)))},
		{"ip6 proto icmp6", family(6, fields(Protocol, Values(58)))},
		{"icmp or icmp6 or igmp or esp or gre or sctp", fields(Protocol, Values(1, 2, 47, 50, 58, 132))},
		{"not udp", fields(Protocol, NewSet(Range{0, 16}, Range{18, 255}))},
		{"src port 53 or 123", fields(SourcePort, Values(53, 123))},
		{"src port (53 or ntp)", fields(SourcePort, Values(53, 123))},
		{"(src port 1 or src port 2) and udp", fields(SourcePort, Values(1, 2), Protocol, udp)},
		{"src port 53 or 123 and udp", fields(SourcePort, Values(53, 123), Protocol, udp)},
		{"udp dst port 53 or 54", fields(DestPort, Values(53, 54), Protocol, udp)},
		{"tcp src port 1 or udp src port 1", fields(SourcePort, Values(1), Protocol, Values(6, 17))},
		{"src and dst port 53", fields(SourcePort, Values(53), DestPort, Values(53))},
		{"dst portrange 100-200", fields(DestPort, between(100, 200))},
		{"src port memcached", fields(SourcePort, Values(11211))},
		{"not (src port 53 or ttl < 5)", fields(SourcePort, NewSet(Range{0, 52}, Range{54, 65535}), TTL, between(5, 255))},
		{"dst host 192.0.2.1", to("192.0.2.1/32", Rule{})},
		{"dst 192.0.2.1 and udp", to("192.0.2.1/32", fields(Protocol, udp))},
		{"ip dst net 192.0.2", family(4, to("192.0.2.0/24", Rule{}))},
		{"dst net 2001:db8::/32", to("2001:db8::/32", Rule{})},
		{"dst net 192.0.2.0/24 and dst host 192.0.2.7", to("192.0.2.7/32", Rule{})},
		{"greater 100", fields(Length, between(86, 65535))},
		{"less 100", fields(Length, between(0, 86))},
		{"len 100-200 or 300", fields(Length, NewSet(Range{86, 186}, Range{286, 286}))},
		{"ip[2:2] >= 1000", family(4, fields(Length, between(1000, 65535)))},
		{"ip[8] = 64", family(4, fields(TTL, Values(64)))},
		{"ip6[7] == 64", family(6, fields(TTL, Values(64)))},
		{"ip[9] = 0x11", family(4, fields(Protocol, udp))},
		{"ip[6] & 0x40 != 0", family(4, fields(DF, Values(1)))},
		{"ip[6:2] & 0x4000 = 0", family(4, fields(DF, Values(0)))},
		{"ip[6:2] & 0x1fff != 0", family(4, fields(Fragment, Values(FragmentLater)))},
		{"ip[6:2] & 0x1fff = 0", family(4, fields(Fragment, Values(FragmentNone, FragmentFirst)))},
		{"ip[6:2] & 0x3fff != 0", family(4, fields(Fragment, Values(FragmentFirst, FragmentLater)))},
		{"tcp[tcpflags] = tcp-syn", fields(Protocol, tcp, TCPFlags, Values(2))},
		{"tcp[tcpflags] & (tcp-syn|tcp-ack) = tcp-syn and tcp[13] & 0xf0 = 0", fields(Protocol, tcp, TCPFlags, syn)},
		{"(tcp[13] & 0xf2) == 2", fields(Protocol, tcp, TCPFlags, syn)},
		{"tcp[13] = 2 or tcp[13] = 18", fields(Protocol, tcp, TCPFlags, Values(2, 18))},
		{"tcp[12] & 0xf0 = 0x50", fields(Protocol, tcp, DataOffset, Values(5))},
		{"tcp[12] >> 4 > 5", fields(Protocol, tcp, DataOffset, between(6, 15))},
		{"tcp[14:2] = 512", fields(Protocol, tcp, Window, Values(512))},
		{"tcp[14] = 2", fields(Protocol, tcp, Window, between(0x200, 0x2ff))},
		{"tcp[0:2] = 80", fields(Protocol, tcp, SourcePort, Values(80))},
		{"udp[2:2] & 0xff00 = 0x1200", fields(Protocol, udp, DestPort, between(0x1200, 0x12ff))},
		{"icmp[icmptype] = icmp-echo", fields(Protocol, Values(1), ICMPType, Values(8))},
		{"icmp[icmpcode] < 010", fields(Protocol, Values(1), ICMPCode, between(0, 7))},
		{"icmp6[0] != 128", fields(Protocol, Values(58), ICMPType, NewSet(Range{0, 127}, Range{129, 255}))},
		{"icmp6[icmp6type] = icmp6-echo", fields(Protocol, Values(58), ICMPType, Values(128))},
		{"not icmp[0] = 8", fields(Protocol, Values(1), ICMPType, NewSet(Range{0, 7}, Range{9, 255}))},
		{"udp[8:4] = 0x01020304", words(fields(Protocol, udp), Word{0, 4, 0xffffffff, 0x01020304})},
		{"udp[10:2] & 0xff00 = 0x1200", words(fields(Protocol, udp), Word{2, 2, 0xff00, 0x1200})},
		{"tcp[((tcp[12:1] & 0xf0) >> 2):4] = 0x47455420", words(fields(Protocol, tcp), Word{0, 4, 0xffffffff, 0x47455420})},
		{"tcp[(tcp[12]>>2):4] = 0x47455420", words(fields(Protocol, tcp), Word{0, 4, 0xffffffff, 0x47455420})},
		{"tcp[((tcp[12] & 0xf0) >> 2) + 4] = 1", words(fields(Protocol, tcp), Word{4, 1, 0xff, 1})},
		{"icmp[8:4] = 1", words(fields(Protocol, Values(1)), Word{0, 4, 0xffffffff, 1})},
		{"payload[3:8] & 0xff000000000000ff = 0x1200000000000034", words(Rule{}, Word{3, 8, 0xff000000000000ff, 0x1200000000000034})},
		{"payload[0:3] = 7 and payload[9] = 1", words(Rule{}, Word{0, 3, 0xffffff, 7}, Word{9, 1, 0xff, 1})},
		{"ttl 64 or 128", fields(TTL, Values(64, 128))},
		{"ttl 1-5", fields(TTL, between(1, 5))},
		{"not ttl 0-9", fields(TTL, between(10, 255))},
		{"window 512 and doff 5", fields(Window, Values(512), DataOffset, Values(5))},
		{"flags & tcp-syn = 0", fields(TCPFlags, rangesWithout(2))},
		{"flags = tcp-syn|tcp-ack", fields(TCPFlags, Values(18))},
		{"icmptype = 8 && icmpcode = 0", fields(ICMPType, Values(8), ICMPCode, Values(0))},
		{"frag first || frag later", fields(Fragment, Values(1, 2))},
		{"frag any", fields(Fragment, Values(1, 2))},
		{"frag none", fields(Fragment, Values(0))},
		{"df", fields(DF, Values(1))},
		{"! df", fields(DF, Values(0))},
		{"inner proto udp", fields(Inner, udp)},
		{"inner proto 17 or 6", fields(Inner, Values(6, 17))},
		{"(udp and tcp) or icmp", fields(Protocol, Values(1))},
		{"udp or (udp and src port 53)", fields(Protocol, udp)},
	} {
		got, err := Parse(c.text)
		if err != nil {
			t.Errorf("Parse(%q): %v", c.text, err)
		} else if !same(got, c.want) {
			t.Errorf("Parse(%q)\n got %+v\nwant %+v", c.text, got, c.want)
		}
	}
}

// same compares rules; a rule without words has none, nil or empty.
func same(a, b Rule) bool {
	if len(a.Payload) == 0 && len(b.Payload) == 0 {
		a.Payload, b.Payload = nil, nil
	}
	return reflect.DeepEqual(a, b)
}

// rangesWithout is the bytes in which the bit is clear.
func rangesWithout(bit uint16) Set {
	set := Set{}
	for v := range uint16(256) {
		if v&bit == 0 {
			set = set.Union(Values(v))
		}
	}
	return set
}
