// SPDX-License-Identifier: Apache-2.0

package scene

import (
	"math"
	"net/netip"
	"slices"
	"time"

	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// drawn is what a family draws of an attack: its vectors with their shares of the packets.
type drawn struct {
	kind     traffic.Kind
	protocol string
	vectors  []vector
	weights  []float64
	also     []traffic.Kind // kinds of further vectors
}

// one is the attack of a single vector.
func one(kind traffic.Kind, v vector) drawn { return drawn{kind: kind, vectors: []vector{v}} }

func drawSYN(r *rng) drawn {
	return one(traffic.KindSYNFlood, synVector(r, anySenders(r), r.chance(.3)))
}

func drawACK(r *rng) drawn {
	return one(traffic.KindACKFlood, tcpVector(r, anySenders(r), pick[uint8](r, flagACK, flagACK, flagACK|flagPSH), 1200))
}

func drawUDP(r *rng) drawn { return udpFrom(r, anySenders(r)) }

// udpFrom is a UDP flood; from a reflector's port it is no mistake to call it amplification.
func udpFrom(r *rng, from senders) drawn {
	v, reflects := udpVector(r, from)
	d := one(traffic.KindUDPFlood, v)
	if reflects {
		d.also = []traffic.Kind{traffic.KindAmplification}
	}
	return d
}

func drawICMP(r *rng) drawn { return one(traffic.KindICMPFlood, icmpVector(r, anySenders(r))) }

func drawAmplification(r *rng) drawn { return drawService(r, pick(r, services...)) }

func drawService(r *rng, s service) drawn {
	d := one(traffic.KindAmplification, amplificationVector(r, s, reflectors(r, int(r.logUniform(50, 20000)))))
	d.protocol = s.name
	return d
}

func drawFragments(r *rng) drawn {
	return one(traffic.KindFragmentFlood, fragmentVector(r, anySenders(r)))
}

func drawSYNACK(r *rng) drawn {
	d := one(traffic.KindACKFlood, synackVector(r, reflectors(r, int(r.logUniform(500, 20000)))))
	d.protocol = "tcp"
	return d
}

// drawAny is an attack of a kind that others are made of.
func drawAny(r *rng) drawn {
	return pick(r, drawSYN, drawSYN, drawACK, drawUDP, drawUDP, drawICMP, drawAmplification, drawAmplification, drawFragments, drawSYNACK)(r)
}

// drawMixed has two to four vectors, the first with at least as many packets as the others.
func drawMixed(r *rng) drawn {
	d := drawAny(r)
	sum := 1.0
	weights := []float64{1}
	for range r.between(1, 3) {
		other := drawAny(r)
		d.vectors = append(d.vectors, other.vectors...)
		d.also = append(append(d.also, other.kind, traffic.KindOther), other.also...)
		w := r.uniform(.2, .9)
		weights = append(weights, w)
		sum += w
	}
	for i := range weights {
		weights[i] /= sum
	}
	d.weights = weights
	return d
}

// attack is a family whose vectors draw makes.
func attack(name string, kind traffic.Kind, draw func(*rng) drawn) family {
	return family{
		name: name, kind: kind,
		describe: func(r *rng, s *Scenario) { s.label(draw(r)) },
		event: func(r *rng, s *Scenario) (Stream, error) {
			d := draw(r)
			return s.flood(r, d, nil), nil
		},
	}
}

// label says what was drawn.
func (s *Scenario) label(d drawn) {
	if s.Kind == traffic.KindBenign {
		s.Kind = d.kind
	} else if s.Kind != d.kind {
		s.Also = []traffic.Kind{d.kind}
	}
	s.Also = append(s.Also, d.also...)
	s.Protocol = d.protocol
	if s.Protocol == "tcp" {
		s.Also = append(s.Also, traffic.KindAmplification)
	}
}

// flood is the attack that was drawn, on the target, or on others that to draws.
func (s *Scenario) flood(r *rng, d drawn, to func(*rng) address) Stream {
	target := addressOf(s.Target)
	if to == nil {
		to = func(*rng) address { return target }
	}
	f := &flood{
		rng: newRNG(s.Seed, "packets"), vectors: d.vectors, weights: d.weights, target: to,
		rate: s.Ratio * s.Local(), shape: s.Shape(), pace: pace(r.intn(int(numPaces))),
		lapse: s.Lapse, attack: true,
	}
	f.from, f.end = s.window()
	return f.begin()
}

// pulses are waves: on for a while, off for longer.
func pulses(r *rng, _ *Scenario) func(time.Duration) float64 {
	on := time.Duration(r.uniform(.5, 3) * 1e9)
	period := on + time.Duration(r.uniform(1, 5)*1e9)
	return func(t time.Duration) float64 {
		if t%period < on {
			return 1
		}
		return 0
	}
}

// slope rises from 2 % at the onset over most of the attack.
func slope(r *rng, s *Scenario) func(time.Duration) float64 {
	rise := float64(s.End-s.Onset) * r.uniform(.6, .95)
	straight := r.chance(.5)
	return func(t time.Duration) float64 {
		x := min(1, float64(t)/rise)
		if straight {
			return max(.02, x)
		}
		return math.Pow(.02, 1-x)
	}
}

// shaped is a family of any vectors whose rate goes its own way.
func shaped(name string, shape func(*rng, *Scenario) func(time.Duration) float64) family {
	f := attack(name, traffic.KindBenign, drawAny)
	f.shape = shape
	return f
}

// carpet spreads an attack over a /24 or a /48.
func carpet(name string, draw func(*rng) drawn) family {
	f := attack(name, traffic.KindCarpet, draw)
	f.event = func(r *rng, s *Scenario) (Stream, error) {
		d := draw(r)
		net := addressOf(s.Target).network()
		wide := r.chance(.5)
		return s.flood(r, d, func(r *rng) address {
			a := net
			a.lo |= r.next() & 0xff
			if a.six && wide {
				a.hi |= r.next() & 0xffff
				a.lo = r.next()
			}
			return a
		}), nil
	}
	return f
}

// connections are opened by real machines, with whole handshakes, and then hardly used.
func connections(r *rng, s *Scenario) (Stream, error) {
	c := &crowd{
		rng: newRNG(s.Seed, "packets"), tide: newTide(Poisson, s.Seed), lapse: s.Lapse, attack: true,
		people: newPeople(Population{Size: int(r.logUniform(100, 20000)), Networks: r.between(50, 3000)}, r.next()),
	}
	c.targets = byFamily([]netip.Addr{s.Target})
	from, to := s.window()
	c.surge = &Surge{From: time.Duration(from), Hold: time.Duration(to - from)}
	c.routes = []*route{connection(r)}
	c.begin(s.Ratio * s.Local())
	return Until(c, s.End), nil
}

// connection is what a client of a connection flood sends.
func connection(r *rng) *route {
	rtt := int64(r.uniform(.01, .2) * 1e9)
	offset, window := pick[uint8](r, 10, 10, 8), pick[uint16](r, 64240, 29200, 65535)
	bare := uint8(5)
	if offset == 10 {
		bare = 8
	}
	step := func(gap int64, data int, flags uint8) routeStep {
		return routeStep{gap: gap, data: data, df: true, flags: flags, dataOffset: bare, window: window / 64}
	}
	steps := []routeStep{{df: true, flags: flagSYN, dataOffset: offset, window: window}, step(rtt, 0, flagACK)}
	hold := int64(r.uniform(.2, 5) * 1e9)
	switch r.intn(4) {
	case 0: // gone at once
		steps = append(steps, step(rtt/2, 0, flagRST|flagACK))
	case 1: // idle
		steps = append(steps, step(hold, 0, flagFIN|flagACK), step(rtt, 0, flagACK))
	case 2: // a request
		steps = append(steps, step(1e6, r.between(60, 500), flagPSH|flagACK), step(rtt, 0, flagACK), step(hold, 0, flagFIN|flagACK), step(rtt, 0, flagACK))
	case 3: // a request that trickles in
		for range r.between(3, 10) {
			steps = append(steps, step(hold/4, r.between(4, 40), flagPSH|flagACK))
		}
	}
	t := &route{protocol: protoTCP, dport: pick[uint16](r, 80, 443, 443, 22, 25565), steps: steps, rounds: 1, weight: 1}
	for i := range steps {
		t.span += steps[i].gap
	}
	return t
}

// families are in the order in which Families lists them: attacks, then what is none.
var families []family

func init() {
	families = slices.Concat([]family{
		attack("syn_spoofed", traffic.KindSYNFlood, func(r *rng) drawn { return one(traffic.KindSYNFlood, synVector(r, spoofed(r), false)) }),
		attack("syn_options", traffic.KindSYNFlood, func(r *rng) drawn { return one(traffic.KindSYNFlood, synVector(r, anySenders(r), true)) }),
		attack("syn_botnet", traffic.KindSYNFlood, func(r *rng) drawn {
			return one(traffic.KindSYNFlood, synVector(r, botnet(r, int(r.logUniform(1, 20000))), false))
		}),
		attack("ack_flood", traffic.KindACKFlood, drawACK),
		attack("rst_flood", traffic.KindACKFlood, func(r *rng) drawn {
			return one(traffic.KindACKFlood, tcpVector(r, anySenders(r), pick[uint8](r, flagRST, flagRST|flagACK, flagFIN|flagACK), 0))
		}),
		attack("synack_reflection", traffic.KindACKFlood, drawSYNACK),
		attack("tcp_flags", traffic.KindOther, func(r *rng) drawn {
			d := one(traffic.KindOther, tcpVector(r, anySenders(r), pick[uint8](r, 0, flagFIN|flagPSH|flagURG, flagSYN|flagFIN, flagFIN, flagURG|flagACK), 200))
			d.also = []traffic.Kind{traffic.KindACKFlood} // TCP of no connection
			return d
		}),
		attack("udp_spoofed", traffic.KindUDPFlood, func(r *rng) drawn { return udpFrom(r, spoofed(r)) }),
		attack("udp_botnet", traffic.KindUDPFlood, func(r *rng) drawn { return udpFrom(r, botnet(r, int(r.logUniform(1, 20000)))) }),
		attack("icmp_flood", traffic.KindICMPFlood, drawICMP),
		attack("other_protocol", traffic.KindOther, func(r *rng) drawn { return one(traffic.KindOther, otherVector(r, anySenders(r))) }),
		attack("fragment_flood", traffic.KindFragmentFlood, drawFragments),
		{name: "connection_flood", kind: traffic.KindConnectionFlood, event: connections},
	}, amplifications(), []family{
		carpet("carpet_syn", drawSYN),
		carpet("carpet_udp", drawUDP),
		carpet("carpet_amplification", drawAmplification),
		shaped("pulse_wave", pulses),
		shaped("slow_ramp", slope),
		attack("mixed", traffic.KindBenign, drawMixed),
	}, calm())
}

// amplifications is one family a service.
func amplifications() (list []family) {
	for _, s := range services {
		list = append(list, attack("amplification_"+s.name, traffic.KindAmplification, func(r *rng) drawn { return drawService(r, s) }))
	}
	return list
}
