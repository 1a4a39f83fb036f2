// SPDX-License-Identifier: Apache-2.0

package scene

import (
	"math"
	"slices"
	"time"
)

// route is one direction of a template: what arrives at a target.
type route struct {
	protocol     uint8
	class        Class
	sport, dport uint16 // 0: the client's own
	same         bool   // clients use the service's port too, unless a NAT changes it
	steps        []routeStep
	span         int64   // from the first packet to the end of a round
	rounds       float64 // how often the steps are repeated, on average
	weight       float64 // share of the flows
}

type routeStep struct {
	gap        int64 // since the route's step before
	data       int   // bytes behind layer 4
	df         bool
	flags      uint8
	dataOffset uint8
	window     uint16
	ack        uint32 // bytes that the other side sent meanwhile
	head       []byte
}

// newRoute takes one direction of a template; nil if nothing goes that way.
func newRoute(t *Template, reverse bool) *route {
	r := &route{protocol: t.Protocol, class: t.Class, rounds: 1}
	client := t.ClientPort
	if client >= 1024 {
		client = 0 // drawn with each flow
	}
	r.same = t.Protocol == protoUDP && t.ClientPort == t.ServerPort
	r.sport, r.dport = client, t.ServerPort
	if reverse {
		r.sport, r.dport = t.ServerPort, client
	}
	var gap int64
	var ack uint32
	for i := range t.Steps {
		s := &t.Steps[i]
		gap += int64(s.Gap)
		if s.Reverse != reverse {
			ack += uint32(t.data(s))
			continue
		}
		r.steps = append(r.steps, routeStep{gap, t.data(s), s.DF, s.Flags, s.DataOffset, s.Window, ack, s.Head})
		r.span += gap
		gap, ack = 0, 0
	}
	if len(r.steps) == 0 {
		return nil
	}
	r.span += gap
	return r
}

// lasting repeats the steps of UDP flows that go on and on, until they last about that long.
func (r *route) lasting(session time.Duration) {
	const shortest, most = int64(time.Second), 20
	if r.protocol != protoUDP || len(r.steps) < 8 || r.span < shortest {
		return
	}
	r.span += r.span / int64(len(r.steps)) // the pause between two rounds
	r.rounds = min(max(1, float64(session)/float64(r.span)), most)
}

func (r *route) packets() float64 { return float64(len(r.steps)) * r.rounds }

// crowd is a stream of flows that people begin.
type crowd struct {
	builder builder
	header  header
	rng     rng
	people  *people
	targets [2][]address // IPv4, IPv6
	sixPart float64      // of flows, if there are targets of both kinds
	routes  []*route
	sums    []float64 // of the routes' weights, up to and with each
	rate    float64   // flows a second at factor 1
	tide    *tide
	season  *season
	lapse   Lapse
	surge   *Surge
	attack  bool
	back    bool // the senders are servers: their ports are the templates', the receiver's are drawn

	due   int64 // of the next arrival
	flows []flow
	free  []int32
	queue []event // a heap
	last  int32   // flow whose packet was yielded
}

// flow is a connection under way.
type flow struct {
	route        *route
	src, dst     address
	sport, dport uint16
	ttl          uint8
	pos          int
	rounds       int
	stretch      float64 // of gaps
	size         float64 // of data
	window       float64
	seq, ack     uint32
	id           uint32
	fill         int
}

type event struct {
	at   int64
	flow int32
}

// begin makes the crowd ready: routes weighed, rate set so that its packets a second are
// rate on average, and, unless it is a surge, with the flows under way at time 0.
func (c *crowd) begin(rate float64) {
	var sum, packets float64
	for _, r := range c.routes {
		sum += r.weight
		packets += r.weight * r.packets()
		c.sums = append(c.sums, sum)
	}
	c.rate = rate * sum / packets
	if c.surge == nil {
		factor := c.factor(0)
		for _, r := range c.routes {
			for range c.rng.poisson(c.rate * factor * r.weight / sum * float64(r.span) / 1e9 * r.rounds) {
				c.start(r, 0, int64(c.rng.float()*float64(r.span)))
			}
		}
	}
	c.last = -1
	c.due = c.arrival(0)
}

// factor is the rate of arrivals over the average, tide apart.
func (c *crowd) factor(now int64) float64 {
	f := 1.0
	if c.season != nil {
		f = c.season.at(c.lapse.clock(now))
	}
	if c.surge != nil {
		f *= c.surge.at(now)
	}
	return f
}

// arrival returns when the next flow begins. The rate is looked at anew ten times a second.
func (c *crowd) arrival(now int64) int64 {
	if c.surge != nil && now < int64(c.surge.From) {
		now = int64(c.surge.From)
	}
	for {
		factor := c.factor(now)
		if factor == 0 && c.surge != nil && now > int64(c.surge.From+c.surge.Ramp) {
			return math.MaxInt64
		}
		level, until := c.tide.at(now)
		until = min(until, now+tideStep)
		if rate := c.rate * factor * level; rate > 0 {
			if next := now + 1 + int64(min(c.rng.exp()/rate, 1e6)*1e9); next < until {
				return next
			}
		}
		now = until
	}
}

// Next yields the packet of the flow that is due first.
func (c *crowd) Next(p *Packet) bool {
	if c.last >= 0 {
		c.advance()
	}
	for len(c.queue) == 0 || c.due <= c.queue[0].at {
		if c.due == math.MaxInt64 {
			if len(c.queue) == 0 {
				return false
			}
			break
		}
		u := c.rng.float() * c.sums[len(c.sums)-1]
		i, _ := slices.BinarySearch(c.sums, u)
		c.start(c.routes[min(i, len(c.routes)-1)], c.due, 0)
		c.due = c.arrival(c.due)
	}
	e := c.queue[0]
	c.last = e.flow
	p.Time, p.Attack = time.Duration(c.lapse.clock(e.at)), c.attack
	p.Frame = c.frame(&c.flows[e.flow])
	return true
}

// start begins a flow, as if it had begun that much earlier.
func (c *crowd) start(r *route, now, earlier int64) {
	six := c.family()
	cl := c.people.draw(&c.rng, six)
	f := flow{
		route: r, src: cl.addr, dst: pickAddress(&c.rng, c.targets[bit(six, 0)]), ttl: cl.ttl,
		sport: r.sport, dport: r.dport, rounds: c.rng.geometric(r.rounds),
		stretch: c.rng.jitter(.3), size: c.rng.uniform(.75, 1.15), window: 1,
		seq: uint32(c.rng.next()), ack: uint32(c.rng.next()), id: uint32(c.rng.next()), fill: c.rng.intn(fillers/2) &^ 1,
	}
	switch own := r.same && c.rng.chance(.6); {
	case c.back && own:
		f.dport = f.sport
	case c.back && f.dport == 0:
		f.dport = uint16(c.rng.between(1024, 65535))
	case !c.back && own && !cl.nat:
		f.sport = f.dport
	case !c.back && (f.sport == 0 || r.same || cl.nat):
		f.sport = cl.port
	}
	if c.rng.chance(.5) {
		f.window = c.rng.uniform(.6, 1)
	}
	at := now + int64(float64(r.steps[0].gap)*f.stretch)
	for earlier > 0 && f.pos < len(r.steps) {
		earlier -= r.steps[f.pos].gap
		if earlier > 0 {
			f.pos++
			continue
		}
		at = now - earlier
	}
	if f.pos == len(r.steps) { // in the pause behind the last packet
		if f.rounds--; f.rounds == 0 {
			return
		}
		f.pos, at = 0, now+c.pause(&f)
	}
	c.queue = push(c.queue, event{at, c.keep(f)})
}

// family says whether a flow is IPv6.
func (c *crowd) family() bool {
	switch {
	case len(c.targets[0]) == 0:
		return true
	case len(c.targets[1]) == 0:
		return false
	}
	return c.rng.chance(c.sixPart)
}

func pickAddress(r *rng, of []address) address {
	if len(of) == 1 {
		return of[0]
	}
	return of[r.intn(len(of))]
}

func (c *crowd) keep(f flow) int32 {
	if n := len(c.free); n > 0 {
		i := c.free[n-1]
		c.free = c.free[:n-1]
		c.flows[i] = f
		return i
	}
	c.flows = append(c.flows, f)
	return int32(len(c.flows) - 1)
}

// pause is how long a flow waits before it repeats its steps.
func (c *crowd) pause(f *flow) int64 {
	return int64(float64(f.route.span) / float64(len(f.route.steps)) * f.stretch * c.rng.exp())
}

// advance moves the flow whose packet was yielded on to its next one.
func (c *crowd) advance() {
	f := &c.flows[c.last]
	at := c.queue[0].at
	if f.pos++; f.pos < len(f.route.steps) {
		at += int64(float64(f.route.steps[f.pos].gap) * f.stretch)
	} else if f.rounds--; f.rounds > 0 {
		f.pos = 0
		at += c.pause(f)
	} else {
		c.free = append(c.free, c.last)
		c.queue = pop(c.queue)
		return
	}
	c.queue[0].at = at
	sink(c.queue, 0)
}

// frame builds the packet a flow is at.
func (c *crowd) frame(f *flow) []byte {
	s, h := &f.route.steps[f.pos], &c.header
	f.id++
	*h = header{
		src: f.src, dst: f.dst, ttl: f.ttl, protocol: f.route.protocol, df: s.df,
		sport: f.sport, dport: f.dport, flags: s.flags, dataOffset: s.dataOffset, window: s.window,
		prefix: s.head, fill: (f.fill + f.pos*34) & (fillers - 2),
	}
	if !s.df || f.src.six {
		h.id = f.id
	}
	data := s.data
	if data > 40 && data < 1300 {
		data = max(len(s.head), int(float64(data)*f.size))
	}
	h.length = 20 + h.layer4() + data
	if f.src.six {
		h.length += 20
	}
	if h.protocol == protoTCP {
		f.ack += s.ack
		h.seq, h.ack = f.seq, f.ack
		f.seq += uint32(data) + uint32(s.flags&flagFIN) + uint32(s.flags&flagSYN>>1)
		if s.flags&flagSYN == 0 {
			h.window = uint16(float64(s.window) * f.window)
		} else if s.flags&flagACK == 0 {
			h.ack = 0
		}
	}
	return c.builder.build(h)
}

// The queue is a heap with four children a place: shallower than with two.

func push(q []event, e event) []event {
	q = append(q, e)
	i := len(q) - 1
	for i > 0 {
		up := (i - 1) / 4
		if q[up].at <= e.at {
			break
		}
		q[i] = q[up]
		i = up
	}
	q[i] = e
	return q
}

func pop(q []event) []event {
	n := len(q) - 1
	q[0] = q[n]
	q = q[:n]
	if n > 0 {
		sink(q, 0)
	}
	return q
}

func sink(q []event, i int) {
	e := q[i]
	for {
		first := 4*i + 1
		if first >= len(q) {
			break
		}
		best := first
		for j := first + 1; j < min(first+4, len(q)); j++ {
			if q[j].at < q[best].at {
				best = j
			}
		}
		if q[best].at >= e.at {
			break
		}
		q[i] = q[best]
		i = best
	}
	q[i] = e
}
