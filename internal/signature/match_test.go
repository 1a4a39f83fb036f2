// SPDX-License-Identifier: Apache-2.0

package signature

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// packet is one to 192.0.2.10 that has the fields given in pairs, and no others.
func packet(pairs ...any) Packet {
	p := Packet{Family: 4, Destination: netip.MustParseAddr("192.0.2.10")}
	for f := range p.Values {
		p.Values[f] = -1
	}
	for i := 0; i < len(pairs); i += 2 {
		p.Values[pairs[i].(Field)] = int32(pairs[i+1].(int))
	}
	return p
}

func carrying(payload string, p Packet) Packet { p.Payload = []byte(payload); return p }

// answer is a DNS answer of 600 bytes, hello a SYN without options, ping an echo request.
var (
	answer = carrying("\x12\x34\x81\x80data", packet(Protocol, 17, SourcePort, 53, DestPort, 4444, Length, 600, TTL, 60, Fragment, 0, DF, 0))
	hello  = packet(Protocol, 6, SourcePort, 1025, DestPort, 80, Length, 40, TTL, 64, TCPFlags, 2, DataOffset, 5, Window, 512, Fragment, 0, DF, 1)
	ping   = carrying("abcd", packet(Protocol, 1, Length, 84, TTL, 1, ICMPType, 8, ICMPCode, 0, Fragment, 0, DF, 0))
	later  = packet(Protocol, 17, Length, 1500, TTL, 60, Fragment, 2, DF, 0)
	inside = packet(Protocol, 17, Inner, 17, SourcePort, 53, DestPort, 9, Length, 70000, TTL, 255, Fragment, 1, DF, 0)
	six    = func() Packet {
		p := packet(Protocol, 58, Length, 1280, TTL, 255, ICMPType, 128, ICMPCode, 0, Fragment, 0)
		p.Family, p.Destination = 6, netip.MustParseAddr("2001:db8::1")
		return p
	}()
)

var named = map[string]Packet{"answer": answer, "hello": hello, "ping": ping, "later": later, "inside": inside, "six": six}

// What an expression says of packets made by hand: which of them match.
func TestMatch(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"ip or ip6", "answer hello inside later ping six"},
		{"ip", "answer hello inside later ping"},
		{"ip6", "six"},
		{"udp", "answer inside later"},
		{"not udp", "hello ping six"},
		{"udp and src port 53", "answer inside"},
		{"src port 53", "answer inside"},
		{"not src port 53", "hello"},
		{"dst portrange 0-80", "hello inside"},
		{"len >= 614", "answer inside later six"},
		{"len > 614", "inside later six"},
		{"less 54", "hello"},
		{"less 53", ""},
		{"len >= 65549", "inside"},
		{"ttl 1", "ping"},
		{"ip[8] >= 64", "hello inside"},
		{"ttl >= 64", "hello inside six"},
		{"ip6[7] >= 64", "six"},
		{"tcp[tcpflags] = tcp-syn", "hello"},
		{"tcp[tcpflags] & tcp-ack != 0", ""},
		{"tcp[12] & 0xf0 = 0x50 and tcp[14:2] = 512", "hello"},
		{"icmp[icmptype] = icmp-echo", "ping"},
		{"icmp6[icmp6type] = icmp6-echo", "six"},
		{"icmptype = 8 or icmptype = 128", "ping six"},
		{"icmpcode = 0", "ping six"},
		{"frag later", "later"},
		{"frag any", "inside later"},
		{"ip[6:2] & 0x3fff != 0", "inside later"},
		{"ip[6:2] & 0x1fff = 0", "answer hello inside ping"},
		{"df", "hello"},
		{"not df", "answer inside later ping"},
		{"inner proto udp", "inside"},
		{"udp[8:2] = 0x1234", "answer"},
		{"udp[10:2] & 0x8000 = 0x8000", "answer"},
		{"payload[0:4] = 0x61626364", "ping"},
		{"payload[3] = 0x64", "ping"},
		{"payload[3:8] & 0xff00000000000000 = 0x6400000000000000", "ping"},
		{"payload[3:2] = 0x6400", ""},
		{"payload[0:8] = 0x1234818064617461", "answer"},
		{"dst host 192.0.2.10", "answer hello inside later ping"},
		{"dst net 192.0.2.0/31", ""},
		{"dst net 2001:db8::/32", "six"},
		{"dst net 0.0.0.0/0", "answer hello inside later ping"},
	} {
		r, err := Parse(c.text)
		if err != nil {
			t.Errorf("Parse(%q): %v", c.text, err)
			continue
		}
		var got []string
		for name, p := range named {
			if r.Match(p) {
				got = append(got, name)
			}
		}
		slices.Sort(got)
		if strings.Join(got, " ") != c.want {
			t.Errorf("%q matches %q, want %q", c.text, strings.Join(got, " "), c.want)
		}
	}
}

func TestMatchLeavesFilterOut(t *testing.T) {
	if !(Rule{Filter: "tcp"}).Match(answer) {
		t.Error("a rule with a filter only does not match: want as without it")
	}
}

func TestValidate(t *testing.T) {
	word := Word{Offset: 4, Size: 2, Mask: 0xff00, Value: 0x1200}
	edited := func(edit func(w *Word)) Rule {
		w := word
		edit(&w)
		return words(Rule{}, w)
	}
	for _, c := range []struct {
		name string
		rule Rule
		want string // what the error says; "": none
	}{
		{"zero", Rule{}, ""},
		{"last word", edited(func(w *Word) { w.Offset = MaxOffset - 1 }), ""},
		{"any target", to("0.0.0.0/0", Rule{}), ""},
		{"family", family(5, Rule{}), "want 4, 6, or 0"},
		{"host bits", Rule{Target: netip.MustParsePrefix("192.0.2.1/24")}, "write 192.0.2.0/24"},
		{"mapped", Rule{Target: netip.MustParsePrefix("::ffff:192.0.2.0/120")}, "not one mapped into IPv6"},
		{"no prefix", Rule{Target: netip.PrefixFrom(netip.MustParseAddr("192.0.2.1"), 33)}, "not a prefix"},
		{"target's family", family(6, to("192.0.2.0/24", Rule{})), "matches nothing"},
		{"empty", fields(TTL, Set{}), "matches nothing: ttl accepts no value"},
		{"order", fields(TTL, Set{{5, 6}, {1, 2}}), "want ascending ranges"},
		{"touching", fields(TTL, Set{{1, 2}, {3, 4}}), "want ascending ranges"},
		{"overlapping", fields(TTL, Set{{1, 3}, {3, 4}}), "want ascending ranges"},
		{"backwards", fields(TTL, Set{{5, 4}}), "want ascending ranges"},
		{"domain", fields(DataOffset, Set{{5, 16}}), "doff: 16 is out of range: at most 15"},
		{"ranges", fields(Window, Values(evens(MaxRanges+1)...)), "129 ranges: at most 128"},
		{"most ranges", fields(Window, Values(evens(MaxRanges)...)), ""},
		{"size 0", edited(func(w *Word) { w.Size = 0 }), "want 1 to 8"},
		{"size 9", edited(func(w *Word) { w.Size = 9 }), "want 1 to 8"},
		{"offset", edited(func(w *Word) { w.Offset = MaxOffset }), "within the first 1024 bytes"},
		{"mask 0", edited(func(w *Word) { w.Mask, w.Value = 0, 0 }), "looks at nothing"},
		{"mask", edited(func(w *Word) { w.Mask = 0x10000 }), "does not fit 2 bytes"},
		{"value", edited(func(w *Word) { w.Value = 0x1234 }), "matches nothing"},
		{"twice", words(Rule{}, word, word), "stands twice"},
		{"five words", words(Rule{}, Word{0, 1, 1, 1}, Word{1, 1, 1, 1}, Word{2, 1, 1, 1}, Word{3, 1, 1, 1}, Word{4, 1, 1, 1}), "at most 4"},
		{"clash", words(Rule{}, word, Word{3, 2, 0xff, 0x13}), "payload byte 4 cannot be two values"},
		{"no clash", words(Rule{}, word, Word{3, 2, 0xff, 0x12}), ""},
		{"udp flags", fields(Protocol, udp, TCPFlags, Values(2)), "no packet of these protocols has flags"},
		{"flags and type", fields(TCPFlags, Values(2), ICMPType, Values(8)), "matches nothing"},
		{"later ports", fields(Fragment, Values(2), SourcePort, Values(53)), "later fragments have no src port"},
		{"later payload", words(fields(Fragment, Values(2)), word), "later fragments"},
		{"df of IPv6", family(6, fields(DF, Values(1))), "IPv6 has no df"},
		{"df of a target", to("2001:db8::/32", fields(DF, Values(1))), "IPv6 has no df"},
		{"two inner protocols", fields(Inner, udp, Protocol, tcp), "matches nothing"},
		{"inner without its fields", fields(Inner, udp, TCPFlags, Values(2)), "matches nothing"},
	} {
		err := c.rule.Validate()
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v, want none", c.name, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		case strings.Contains(c.want, "matches nothing") != errors.Is(err, ErrNothing) && strings.HasPrefix(c.want, "matches"):
			t.Errorf("%s: %v is not ErrNothing", c.name, err)
		}
	}
}

func evens(n int) []uint16 {
	var list []uint16
	for i := range n {
		list = append(list, uint16(2*i))
	}
	return list
}

func TestBoundedAndSelective(t *testing.T) {
	for _, c := range []struct {
		text               string
		bounded, selective bool
	}{
		{"ip or ip6", false, false},
		{"ip and dst net 192.0.2.0/24", true, false},
		{"dst net 0.0.0.0/0 and udp", false, true},
		{"dst host 2001:db8::1 and frag any", true, true},
		{"ttl >= 0 and proto 0-255 and (frag none or frag any) and len >= 14", false, false},
		{"df or not df", false, false},
		{"ttl >= 1", false, true},
		{"src portrange 0-65535", false, true},
		{"payload[0] = 1", false, true},
	} {
		r, err := Parse(c.text)
		if err != nil {
			t.Errorf("Parse(%q): %v", c.text, err)
		} else if r.Bounded() != c.bounded || r.Selective() != c.selective {
			t.Errorf("%q: bounded %v, selective %v; want %v, %v", c.text, r.Bounded(), r.Selective(), c.bounded, c.selective)
		}
	}
	if !(Rule{Filter: "tcp"}).Selective() {
		t.Error("a rule with a filter is not selective")
	}
}

// Set operations against the same ones value by value.
func TestSetOperations(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	draw := func() Set {
		if random.IntN(8) == 0 {
			return nil
		}
		var ranges []Range
		for range random.IntN(5) {
			lo := uint16(random.IntN(256))
			ranges = append(ranges, Range{lo, min(lo+uint16(random.IntN(9)), 255)})
		}
		return NewSet(ranges...)
	}
	for range 2000 {
		a, b := draw(), draw()
		union, common, rest := a.Union(b), a.Intersect(b), a.Complement(255)
		for v := range uint16(256) {
			inA, inB := a.Contains(v), b.Contains(v)
			if union.Contains(v) != (inA || inB) || common.Contains(v) != (inA && inB) || rest.Contains(v) == inA {
				t.Fatalf("%v, %v, value %d: union %v, intersection %v, complement %v", a, b, v, union, common, rest)
			}
		}
		for _, set := range []Set{union, common, rest} {
			if len(set) > 0 && set.validate(TTL) != nil {
				t.Fatalf("%v, %v: %v", a, b, set.validate(TTL))
			}
		}
		if common == nil && (a != nil || b != nil) || rest == nil {
			t.Fatalf("%v, %v: intersection %v, complement %v: nil accepts everything", a, b, common, rest)
		}
	}
	if got := Values(65535, 0).Complement(65535); !slices.Equal(got, Set{{1, 65534}}) {
		t.Errorf("complement at the ends: %v", got)
	}
}
