// SPDX-License-Identifier: Apache-2.0

package signature

import (
	"errors"
	"strings"
	"testing"
)

// Every error, with the place it points at: the text from there on.
func TestSyntaxErrors(t *testing.T) {
	for _, c := range []struct{ text, at, want string }{
		{"", "", "column 1: no expression: ip or ip6 matches everything"},
		{"udp and", "", "column 8: ends too soon: want a condition"},
		{"udp and and", "and", `column 9: unexpected "and": want a condition`},
		{"(udp", "", "column 5: ends too soon: want and, or, or )"},
		{"udp)", ")", `column 4: unexpected ")": want and, or, or the end`},
		{"udp foo", "foo", `column 5: unexpected "foo": want and, or, or the end`},
		{"foo", "foo", "column 1: unknown word `foo`: docs/signatures.md has the language"},
		{"udp and ü", "ü", `column 9: unexpected "ü": want a condition`},
		{"udp and tcp", "tcp", "column 9: matches nothing: no packet is both this and what stands before it"},
		{"udp and tcp[13] = 2", "tcp[13] = 2", "column 9: matches nothing: no packet is both this and what stands before it"},
		{"icmp and src port 53", "icmp and src port 53", "column 1: matches nothing: no packet of these protocols has src port"},
		{"ip and dst host 2001:db8::1", "2001:db8::1", "column 17: matches nothing: no packet is both this and what stands before it"},
		{"dst host 192.0.2.1 and dst net 198.51.100.0/24", "198.51.100.0/24", "column 32: matches nothing: no packet is both this and what stands before it"},
		{"ip6 and df", "ip6 and df", "column 1: matches nothing: IPv6 has no df"},
		{"ttl > 255", "ttl > 255", "column 1: matches nothing: the field has no such value"},
		{"ttl 256", "256", "column 5: 256 is out of range: ttl is 0 to 255"},
		{"ttl", "", "column 4: ends too soon: want =, !=, <, <=, > or >="},
		{"ttl 7-5", "7-5", "column 5: range 7-5 begins behind its end"},
		{"len 9-5", "9-5", `column 5: "9-5" is no length: write a number, or two with a dash between`},
		{"ttl 5 or src port 53", "or src port 53", "column 7: the two sides differ in more than one field (and tcpdump does not know `ttl`, so that it cannot run as a filter): a rule holds alternatives of one field; write a rule for each side"},
		{"payload[0] = 1 and payload[0] = 2", "payload[0] = 2", "column 20: matches nothing: no packet is both this and what stands before it"},
		{"payload[0] = 0x100", "0x100", "column 14: matches nothing: 0x100 has bits that the mask 0xff clears"},
		{"udp[8:4] & 0xff00 = 0x1234", "0x1234", "column 21: matches nothing: 0x1234 has bits that the mask 0xff00 clears"},
		{"payload[0:9] = 1", "9] = 1", "column 11: a word is 1 to 8 bytes"},
		{"payload[ttl] = 1", "ttl] = 1", "column 9: the offset must be a number"},
		{"udp[8:3] = 5", "3] = 5", "column 7: tcpdump looks at 1, 2 or 4 bytes: payload[0:8] takes 1 to 8"},
		{"udp[70000] = 5", "70000] = 5", "column 5: offset 70000 lies behind every packet"},
		{"tcp[13", "", "column 7: ends too soon: want ]"},
		{"tcp[13] & 2", "", "column 12: ends too soon: want =, !=, <, <=, > or >="},
		{"tcp[13] & 0 = 0", "tcp[13] & 0 = 0", "column 1: mask 0 looks at nothing"},
		{"tcp[13] / 0 = 1", "/ 0 = 1", "column 9: division by zero"},
		{"tcp[13] = 1 % 0", "% 0", "column 13: division by zero"},
		{"tcp[13] = 1 << 64", "<< 64", "column 13: shift by more bits than a number has"},
		{"tcp[13] = 0x100000000", "0x100000000", "column 11: number does not fit 32 bits"},
		{"tcp[13] = 08", "08", `column 11: "08" is no number: write decimal, 0x and hexadecimal, or 0 and octal`},
		{"tcp[13] = 0b1", "0b1", `column 11: "0b1" is no number: write decimal, 0x and hexadecimal, or 0 and octal`},
		{"1 = 1", "= 1", "column 3: compares two numbers, and nothing of the packet"},
		{"src port 65536", "65536", "column 10: 65536 is out of range: src port is 0 to 65535"},
		{"dst port foo", "foo", `column 10: "foo" is no dst port: write its number`},
		{"src port 5-9", "5-9", "column 10: `port` takes one port: write portrange 5-9"},
		{"src port", "", "column 9: ends too soon: want a value"},
		{"src foo", "foo", `column 5: unexpected "foo": want host, net, port or portrange`},
		{"dst host a.example", "a.example", `column 10: "a.example" is no address: names are not looked up: write the address`},
		{"dst net 192.0.2.1/24", "192.0.2.1/24", "column 9: 192.0.2.1/24 has host bits set: write 192.0.2.0/24"},
		{"dst host 192.0.2.0/24", "192.0.2.0/24", "column 10: `host` takes an address without a length: write net 192.0.2.0/24"},
		{"dst host ::ffff:192.0.2.1", "::ffff:192.0.2.1", "column 10: IPv4 address mapped into IPv6: write the IPv4 address"},
		{"frag foo", "foo", `column 6: unexpected "foo": want none, first, later or any`},
		{"inner udp", "udp", `column 7: unexpected "udp": want proto`},
		{"less foo", "foo", `column 6: unexpected "foo": want a number`},
		{"proto foo", "foo", `column 7: "foo" is no proto: write its number`},
		{strings.Repeat("(", 65) + "udp", "", "column 65: nested deeper than 64"},
		{strings.Repeat("not ", 65) + "udp", "", "column 257: nested deeper than 64"},
		{"ttl = " + strings.Repeat("(", 70), "", "column 70: nested deeper than 64"},
		{"udp" + strings.Repeat(" and ttl < 9", 65), "", "column 781: more than 64 comparisons"},
		{"ttl = 1" + strings.Repeat("+1", 300), "", "column 520: more than 256 operations on numbers"},
		{strings.Repeat(" ", 70000), "", "column 1: longer than 65536 bytes"},
	} {
		_, err := Parse(c.text)
		var syntax *SyntaxError
		switch {
		case !errors.As(err, &syntax):
			t.Errorf("Parse(%.60q): %v, want a SyntaxError", c.text, err)
		case err.Error() != c.want:
			t.Errorf("Parse(%.60q)\n got %v\nwant %v", c.text, err, c.want)
		case len(c.text) < 60 && syntax.Text[syntax.Offset:] != c.at:
			t.Errorf("Parse(%q) points at %q, want %q", c.text, syntax.Text[syntax.Offset:], c.at)
		}
	}
}

func TestNotFieldsErrors(t *testing.T) {
	oneField := "the two sides differ in more than one field: a rule holds alternatives of one field; write a rule for each side"
	kinds := "a rule knows a fragment as first or later, not its offset or the more-fragments bit: write frag first, frag later, frag any or frag none"
	for _, c := range []struct{ text, want string }{
		{"port 53", "column 6: `port` alone looks at two fields: write src port 53, dst port 53, or a rule for each"},
		{"udp port 53", "column 10: `port` alone looks at two fields: write src port 53, dst port 53, or a rule for each"},
		{"src or dst portrange 1-5", "column 22: `portrange` alone looks at two fields: write src portrange 1-5, dst portrange 1-5, or a rule for each"},
		{"sctp src port 5", "column 15: a rule knows the ports of TCP and UDP only"},
		{"src host 192.0.2.1", "column 10: a rule does not look at the source: use the block list"},
		{"ip src net 192.0.2.0/24", "column 12: a rule does not look at the source: use the block list"},
		{"host 192.0.2.1", "column 6: source and destination are two fields: write dst host 192.0.2.1"},
		{"net 192.0.2.0/24", "column 5: source and destination are two fields: write dst net 192.0.2.0/24"},
		{"dst net 192.0.2.0 mask 255.255.255.0 and udp", "column 9: a net is written with its length: write dst net 192.0.2.0/24, say"},
		{"192.0.2.1", "column 1: an address alone is source or destination: write dst host 192.0.2.1"},
		{"2001:db8::1", "column 1: an address alone is source or destination: write dst host 2001:db8::1"},
		{"dst host 192.0.2.1 or 192.0.2.2", "column 20: a rule has one target: write a rule for each target, or a prefix that covers them"},
		{"not dst host 192.0.2.1", "column 14: a rule cannot leave a target out: write a rule for each target"},
		{"ether host 00:00:5e:00:53:01", "column 1: `ether` is no field of a rule"},
		{"ether[0] & 1 = 1", "column 1: bytes of `ether` are no field of a rule"},
		{"udp and vlan 5", "column 9: `vlan` is no field of a rule"},
		{"ip broadcast", "column 4: `broadcast` is no field of a rule"},
		{"udp or src port 53", "column 5: " + oneField},
		{"not tcp src port 53", "column 5: " + oneField},
		{"not (udp and src port 53)", "column 10: " + oneField},
		{"udp[8:4] = 1 or udp[8:4] = 2", "column 14: payload has no alternatives in a rule: write a rule for each side"},
		{"udp[8:4] > 5", "column 10: a rule compares payload with = and a mask only: write payload[0:2] & 0xff00 = 0x1200"},
		{"not udp[8:4] = 5", "column 5: a rule cannot ask that payload differs: compare with =, without not"},
		{"udp[2000] = 5", "column 1: a rule looks at the first 1024 bytes of the payload"},
		{"udp[8]=1 and udp[9]=1 and udp[10]=1 and udp[11]=1 and udp[12]=1", "column 1: 5 conditions on the payload: a rule holds at most 4; join neighbouring bytes to a word"},
		{"udp[4:2] > 100", "column 1: these bytes of udp are no field of a rule: write len: it is the UDP length and 34 over IPv4 without options, and 54 over IPv6"},
		{"udp[1] = 6", "column 1: src port has 256 ranges: a rule holds at most 128; write several rules"},
		{"tcp[12] = 0x50", "column 1: these bytes of tcp are no field of a rule: mask the reserved bits, as in tcp[12] & 0xf0 = 0x50"},
		{"tcp[20:4] = 1", "column 1: options are no field, and the data begins behind them: write payload[0:4] for the first four bytes of the data"},
		{"tcp[(tcp[12] >> 3):4] = 1", "column 6: the offset must be a number, or skip the TCP header: write payload[0:4] for the first four bytes of the data"},
		{"tcp[4:4] = 0", "column 1: these bytes of tcp are no field of a rule"},
		{"tcp[0:2] = tcp[2:2]", "column 10: a comparison looks at one field: compare it with a number"},
		{"ip[6] & 0x20 != 0", "column 1: " + kinds},
		{"ip[6:2] & 0x1fff > 5", "column 1: " + kinds},
		{"ip[6:2] = 0", "column 1: these bytes of ip are no field of a rule: write ip[6] & 0x40, frag first, frag later, frag any or frag none"},
		{"ip[0] & 0xf > 5", "column 1: these bytes of ip are no field of a rule"},
		{"ip[12:4] = 1", "column 1: a rule does not look at the source: use the block list"},
		{"ip6[8:4] = 1", "column 1: a rule does not look at the source: use the block list"},
		{"ip[16:4] = 1", "column 1: the target is written as an address: write dst host or dst net"},
		{"ip6[6] = 17", "column 1: these bytes of ip6 are no field of a rule: write proto, which looks behind extension headers"},
		{"ip6[4:2] > 5", "column 1: these bytes of ip6 are no field of a rule: write len: the IP packet and 14 bytes of Ethernet"},
		{"sctp[0:2] = 5", "column 1: bytes of `sctp` are no field of a rule"},
	} {
		_, err := Parse(c.text)
		if _, ok := errors.AsType[*NotFieldsError](err); !ok {
			t.Errorf("Parse(%q): %v, want a NotFieldsError", c.text, err)
		} else if err.Error() != c.want {
			t.Errorf("Parse(%q)\n got %v\nwant %v", c.text, err, c.want)
		}
	}
}

func TestCaret(t *testing.T) {
	_, err := Parse("udp\tand\nü or port")
	var syntax *SyntaxError
	if !errors.As(err, &syntax) || syntax.Caret() != "udp and ü or port\n        ^" {
		t.Errorf("%v", err)
	}
	_, err = Parse("udp and port 53")
	var unfit *NotFieldsError
	if !errors.As(err, &unfit) || unfit.Caret() != "udp and port 53\n             ^" {
		t.Errorf("%v", err)
	}
}
