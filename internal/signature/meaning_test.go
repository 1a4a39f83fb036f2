// SPDX-License-Identifier: Apache-2.0

package signature

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
)

// said is an expression, and what it says of a packet that has all the fields in it.
type said struct {
	text string
	of   func(p Packet) bool
}

// condition draws a condition on a field of small values; `field` is which.
func condition(random *rand.Rand, field int) said {
	n := int32(random.IntN(6))
	number := func(f Field, shift int32, words string, holds func(v int32) bool) said {
		return said{fmt.Sprintf(words, n), func(p Packet) bool { return holds(p.Values[f] + shift) }}
	}
	switch field {
	case 0:
		return number(TTL, 0, "ttl < %d", func(v int32) bool { return v < n })
	case 1:
		return number(SourcePort, 0, "tcp[0:2] != %d", func(v int32) bool { return v != n })
	case 2:
		return number(SourcePort, 0, "src portrange %d-6", func(v int32) bool { return v >= n && v <= 6 })
	case 3:
		return number(TCPFlags, 0, "tcp[13] & 3 = %d", func(v int32) bool { return v&3 == n })
	case 4:
		return number(Length, 14, "len > %d + 14", func(v int32) bool { return v > n+14 })
	case 5:
		return number(Window, 0, "%d <= window", func(v int32) bool { return n <= v })
	}
	bits := 30 + n%3
	prefix := netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(n)}), int(bits)).Masked()
	return said{"dst net " + prefix.String(), func(p Packet) bool { return prefix.Contains(p.Destination) }}
}

// expression draws conditions joined by and, or and not, mostly over one or two fields.
func expression(random *rand.Rand, depth int, among []int) said {
	if depth == 0 || random.IntN(4) == 0 {
		return condition(random, among[random.IntN(len(among))])
	}
	left := expression(random, depth-1, among)
	if random.IntN(4) == 0 {
		return said{"not (" + left.text + ")", func(p Packet) bool { return !left.of(p) }}
	}
	right := expression(random, depth-1, among)
	if random.IntN(2) == 0 {
		return said{"(" + left.text + ") and (" + right.text + ")", func(p Packet) bool { return left.of(p) && right.of(p) }}
	}
	return said{"(" + left.text + ") or (" + right.text + ")", func(p Packet) bool { return left.of(p) || right.of(p) }}
}

// Whatever is read as a rule matches exactly the packets that the expression says, and what is
// refused because it matches nothing says so of every packet.
func TestRulesMeanWhatTheExpressionSays(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	read, nothing := 0, 0
	for range 2500 {
		e := expression(random, 1+random.IntN(3), [][]int{{0}, {1, 2}, {3}, {4, 0}, {5, 1}, {6}, {0, 1, 2, 3, 4, 5, 6}}[random.IntN(7)])
		r, err := Parse(e.text)
		var syntax *SyntaxError
		empty := errors.As(err, &syntax) && strings.HasPrefix(syntax.Problem, "matches nothing")
		switch {
		case err == nil:
			read++
		case empty:
			nothing++
		default:
			continue
		}
		for range 60 {
			p := packet(Protocol, 6, SourcePort, random.IntN(8), TTL, random.IntN(8), TCPFlags, random.IntN(8), Length, random.IntN(8), Window, random.IntN(8))
			p.Destination = netip.AddrFrom4([4]byte{192, 0, 2, byte(random.IntN(8))})
			if got := err == nil && r.Match(p); got != e.of(p) {
				t.Fatalf("%q, read as %q (%v), matches %+v: %v", e.text, r, err, p, got)
			}
		}
	}
	if read < 500 || nothing < 50 {
		t.Errorf("%d expressions read, %d that match nothing: too few to tell", read, nothing)
	}
}
