// SPDX-License-Identifier: Apache-2.0

package detect

import (
	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// blend is what an excess consists of, in packets per second.
type blend struct {
	tcp, syn, answers, udp, icmp, other float64
	reflected, fragments, malformed     float64
	bare                                float64 // SYNs without options, of which no connection comes
	packets                             float64
	service                             traffic.Reflection // of most of the reflected ones
}

// blend takes the excess of the target observed last apart.
func (t *Track) blend(e *excess) (b blend) {
	c := &t.x.frame.counts[spanTick]
	b = blend{
		tcp: e.above[bTCP], syn: e.above[bSYN], answers: e.above[bAnswers], udp: e.above[bUDP], icmp: e.above[bICMP],
		other: c.rate(cOther), fragments: c.rate(cFragments), malformed: c.rate(cMalformed),
		bare: c.rate(cSYNNoOptions),
	}
	b.packets = b.tcp + b.udp + b.icmp + b.other
	b.reflected = min(b.udp, ratio(float64(c.reflected()), c.seconds()))
	most := uint64(0)
	for r := traffic.ReflectionDNS; r < traffic.NumReflections; r++ {
		if n := c.n[cReflections+int(r)]; n > most {
			most, b.service = n, r
		}
	}
	return b
}

// kind names an excess by exact counters alone.
func (b *blend) kind() traffic.Kind {
	half := b.packets / 2
	switch {
	case b.packets <= 0 || b.malformed > half:
		return traffic.KindOther
	case b.udp > half && b.reflected+min(b.fragments, b.udp-b.reflected) > b.udp/2 && b.reflected > b.udp/10:
		return traffic.KindAmplification
	case b.fragments > half:
		return traffic.KindFragmentFlood
	case b.udp > half:
		return traffic.KindUDPFlood
	case b.icmp > half:
		return traffic.KindICMPFlood
	case b.tcp > half:
		return b.tcpKind()
	}
	return traffic.KindOther
}

// tcpKind tells SYNs that stay alone from those that connections follow.
func (b *blend) tcpKind() traffic.Kind {
	switch {
	case b.syn > b.tcp/2 && b.answers < b.syn/2:
		return traffic.KindSYNFlood
	case b.syn-b.bare > b.tcp/50:
		return traffic.KindConnectionFlood
	}
	return traffic.KindACKFlood
}

// confirms reports whether the counters bear a class of the trees out: at least
// three tenths of the excess are of that kind.
func (b *blend) confirms(class traffic.Kind) bool {
	enough := 0.3 * b.packets
	switch class {
	case traffic.KindSYNFlood:
		return b.syn >= enough
	case traffic.KindACKFlood:
		return b.tcp-b.syn >= enough
	case traffic.KindUDPFlood:
		return b.udp >= enough
	case traffic.KindICMPFlood:
		return b.icmp >= enough
	case traffic.KindAmplification:
		return b.udp >= enough && b.reflected >= enough/3
	case traffic.KindFragmentFlood:
		return b.fragments >= enough
	case traffic.KindConnectionFlood:
		return b.tcp >= enough && b.answers >= b.syn/2 && b.bare <= b.syn/2
	}
	return false
}

// name decides on the kind: the trees' class where the counters confirm it.
func (b *blend) name(class traffic.Kind) traffic.Kind {
	if b.confirms(class) {
		return class
	}
	return b.kind()
}

// protocol names what the kind travels by.
func (b *blend) protocol(k traffic.Kind) string {
	switch k {
	case traffic.KindSYNFlood, traffic.KindACKFlood, traffic.KindConnectionFlood:
		return "tcp"
	case traffic.KindUDPFlood:
		return "udp"
	case traffic.KindICMPFlood:
		return "icmp"
	case traffic.KindAmplification:
		return b.service.String()
	}
	for name, rate := range map[string]float64{"tcp": b.tcp, "udp": b.udp, "icmp": b.icmp} {
		if rate > 0.8*b.packets {
			return name
		}
	}
	return ""
}
