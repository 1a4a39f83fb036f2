// SPDX-License-Identifier: Apache-2.0

package signature

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net/netip"
	"testing"
	"unicode/utf8"
)

func TestRuleString(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"ip or ip6", "ip or ip6"},
		{"len > 512 and src port 53 and udp", "udp and src port 53 and len >= 513"},
		{"tcp[tcpflags] & (tcp-syn|tcp-ack) = tcp-syn", "tcp and flags & (tcp-syn|tcp-ack) = tcp-syn"},
		{"tcp[13] & 2 != 0", "tcp and flags & tcp-syn != 0"},
		{"tcp[13] & 2 = 2", "tcp and flags & tcp-syn != 0"},
		{"tcp[13] & 2 = 0", "tcp and flags & tcp-syn = 0"},
		{"tcp[13] & 3 != 3", "tcp and flags & (tcp-fin|tcp-syn) != tcp-fin|tcp-syn"},
		{"tcp[13] = 18", "tcp and flags = tcp-syn|tcp-ack"},
		{"flags 0", "flags = 0"},
		{"flags 1 or 2 or 5-6", "(flags 1-2 or 5-6)"},
		{"src port 1 or 3 or 2", "src portrange 1-3"},
		{"src port 1 or 3 or 7 or dst host 192.0.2.1 and dst host 192.0.2.1", ""},
		{"(src port 1 or 3 or 7) and dst host 192.0.2.1", "(src port 1 or 3 or 7) and dst host 192.0.2.1"},
		{"src port 1 or src portrange 5-9 or src portrange 20-30", "(src port 1 or src portrange 5-9 or 20-30)"},
		{"src port >= 1", ""},
		{"not dst port 80", "not dst port 80"},
		{"ttl != 64", "not ttl 64"},
		{"ttl > 100", "ttl >= 101"},
		{"ttl < 100", "ttl <= 99"},
		{"ttl 5 or > 7", ""},
		{"ttl 5 or ttl > 7", "(ttl 5 or ttl >= 8)"},
		{"udp or tcp", "(tcp or udp)"},
		{"proto 200 or proto 210-220 or udp", "(udp or proto 200 or proto 210-220)"},
		{"inner proto udp and frag any and not df", "frag any and not df and inner proto udp"},
		{"frag none or frag later", "not frag first"},
		{"df or not df", "(not df or df)"},
		{"udp[8:4] & 0xff00ff00 = 0x01000200", "udp and payload[0:4] & 0xff00ff00 = 0x01000200"},
		{"ip6 and dst net 2001:db8::/32", "ip6 and dst net 2001:db8::/32"},
	} {
		r, err := Parse(c.text)
		switch {
		case c.want == "" && err == nil:
			t.Errorf("Parse(%q) = %q, want an error", c.text, r)
		case c.want == "":
		case err != nil:
			t.Errorf("Parse(%q): %v", c.text, err)
		case r.String() != c.want:
			t.Errorf("Parse(%q) = %q, want %q", c.text, r, c.want)
		}
	}
}

// An invalid rule has no text that reads back, but one to print.
func TestInvalidRuleString(t *testing.T) {
	bad := Set{{5, 3}, {1, 700}}
	var r Rule
	for f := range r.Fields {
		r.Fields[f] = bad
	}
	r.Payload = []Word{{Size: 0}, {Size: 200, Mask: 1}}
	if got, err := Parse(r.String()); err == nil {
		t.Errorf("Parse(%q) = %+v, want an error", r, got)
	}
}

// chooser draws numbers from random bytes, or from what a fuzzer wrote.
type chooser struct{ data []byte }

func (c *chooser) below(n int) int {
	var four [4]byte
	c.data = c.data[copy(four[:], c.data):]
	return int(binary.LittleEndian.Uint32(four[:])) % n
}

func (c *chooser) number() uint64 {
	return uint64(c.below(1<<31))<<33 ^ uint64(c.below(1<<31))
}

func (c *chooser) set(field Field) Set {
	var ranges []Range
	top := int(field.Max()) + 1
	for range 1 + c.below(4) {
		lo := c.below(top)
		ranges = append(ranges, Range{uint16(lo), uint16(min(lo+c.below(9), top-1))})
	}
	set := NewSet(ranges...)
	if c.below(4) == 0 {
		set = set.Complement(field.Max())
	}
	if field == TCPFlags && c.below(2) == 0 {
		mask := uint64(c.below(256))
		want := uint64(c.below(256)) & mask
		set = accepted(field, func(v uint64) bool { return v&mask == want })
	}
	return set
}

// rule is a random rule; many are not valid.
func (c *chooser) rule() Rule {
	r := Rule{Family: [4]uint8{0, 0, 4, 6}[c.below(4)]}
	for range c.below(4) {
		field := Field(c.below(int(NumFields)))
		r.Fields[field] = c.set(field)
	}
	for range c.below(MaxWords) * c.below(2) {
		w := Word{Offset: uint16(c.below(MaxOffset)), Size: uint8(1 + c.below(8))}
		w.Mask = c.number() & w.full()
		if c.below(2) == 0 {
			w.Mask = w.full()
		}
		w.Value = c.number() & w.Mask
		r.Payload = append(r.Payload, w)
	}
	switch c.below(3) {
	case 0:
		address := netip.AddrFrom4([4]byte{192, 0, byte(c.below(256)), byte(c.below(256))})
		r.Target = netip.PrefixFrom(address, c.below(33)).Masked()
	case 1:
		address := netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 15: byte(c.below(256))})
		r.Target = netip.PrefixFrom(address, c.below(129)).Masked()
	}
	return r
}

// checkString compares a valid rule with what its text is read as.
func checkString(t *testing.T, r Rule) {
	t.Helper()
	text := r.String()
	got, err := Parse(text)
	if err != nil {
		t.Fatalf("Parse(%q): %v\nof %+v", text, err, r)
	}
	if !same(got, r) {
		t.Fatalf("Parse(%q)\n got %+v\nwant %+v", text, got, r)
	}
}

func TestStringRoundTrip(t *testing.T) {
	const seed, want = 1, 3000
	source := rand.NewChaCha8([32]byte{seed})
	for valid := 0; valid < want; {
		data := make([]byte, 400)
		_, _ = source.Read(data)
		r := (&chooser{data}).rule()
		if r.Validate() == nil {
			checkString(t, r)
			valid++
		}
	}
}

func FuzzRuleString(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte("a rule of many fields, as the fuzzer's bytes choose them"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r := (&chooser{data}).rule()
		if r.Validate() != nil {
			_ = r.String()
			return
		}
		checkString(t, r)
	})
}

// FuzzParse: no text makes it fail, errors lie within the text, and a rule reads back from its own text.
func FuzzParse(f *testing.F) {
	for _, text := range []string{
		"udp and src port 53 and len > 512", "tcp[((tcp[12:1] & 0xf0) >> 2):4] = 0x47455420", "not (ttl < 5 or ttl > 7)",
		"src port 53 or 123 and dst net 192.0.2", "ip[6:2] & 0x1fff != 0", "payload[3:8] & 0xff = 1", "((((((", "frag any && ! df",
		"tcp[tcpflags] & (tcp-syn|tcp-ack) = tcp-syn", "dst host 2001:db8::1", "port 53", "vlan 5", "",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r, err := Parse(text)
		if err == nil {
			checkString(t, r)
			return
		}
		offset, caret := -1, ""
		var syntax *SyntaxError
		var unfit *NotFieldsError
		switch {
		case errors.As(err, &syntax):
			offset, caret = syntax.Offset, syntax.Caret()
		case errors.As(err, &unfit):
			offset, caret = unfit.Offset, unfit.Caret()
		}
		if offset < 0 || offset > len(text) || utf8.RuneCountInString(caret) < utf8.RuneCountInString(text)+2 {
			t.Errorf("Parse(%q): %v: offset %d, caret %q", text, err, offset, caret)
		}
		_ = err.Error()
	})
}
