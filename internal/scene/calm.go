// SPDX-License-Identifier: Apache-2.0

package scene

import (
	"math"
	"slices"
	"time"
)

// calm lists the families at which nothing may happen. Their ratios are what is added, over the baseline.
func calm() []family {
	return []family{
		{name: "normal", ratios: []float64{1}, profiles: everyProfile()},
		{name: "flash_crowd", event: flashCrowd, ratios: []float64{2, 5, 10, 20, 50}},
		{name: "reconnect_storm", event: reconnect, ratios: []float64{3, 10, 30}, profiles: []string{"web", "game", "mail", "vpn", "hosting", "access"}},
		{name: "download", event: download, ratios: []float64{2, 5, 20}, profiles: []string{"eyeball", "web", "hosting"}},
		{name: "backup", event: backup, ratios: []float64{2, 5, 20}, profiles: []string{"web", "hosting", "mail", "vpn"}},
		{name: "nat_users", event: natUsers, ratios: []float64{.5, 1, 3}, profiles: []string{"web", "hosting", "access", "game", "voice"}},
		{name: "resolver_answers", event: answers, ratios: []float64{1, 3, 10}, profiles: []string{"resolver"}},
		{name: "monitoring", event: monitoring, ratios: []float64{.05, .3}},
		{name: "port_scan", event: portScan, ratios: []float64{.05, .2, .8}},
	}
}

func everyProfile() (names []string) {
	for i := range Profiles {
		names = append(names, Profiles[i].Name)
	}
	return names
}

// surge is an additional crowd that does what the target's clients do, at Ratio times the baseline, for as long as the event.
func (s *Scenario) surge(ramp time.Duration, change func(*crowd)) (Stream, error) {
	n, err := s.Normal()
	if err != nil {
		return nil, err
	}
	n.Rate *= s.Ratio
	c, err := n.crowd()
	if err != nil {
		return nil, err
	}
	c.rng, c.tide = newRNG(s.Seed, "surge"), newTide(Poisson, s.Seed)
	from, to := s.window()
	ramp = min(ramp, time.Duration(to-from))
	c.surge = &Surge{From: time.Duration(from), Ramp: ramp, Hold: time.Duration(to-from) - ramp}
	if change != nil {
		change(c)
	}
	c.begin(n.Rate)
	return c, nil
}

// flashCrowd is a crowd of mostly new clients, which come within 1 s to 10 min.
func flashCrowd(r *rng, s *Scenario) (Stream, error) {
	ramp := time.Duration(r.logUniform(1, 600) * 1e9)
	fresh, known, slow := r.uniform(.3, .95), r.chance(.3), r.chance(.3)
	return s.surge(ramp, func(c *crowd) {
		if slow { // the server does not answer every first SYN
			for i, t := range c.routes {
				if i%2 == 0 && t.protocol == protoTCP {
					t.retry(1)
				}
			}
		}
		p := c.people.Population
		p.Fresh = fresh
		p.Size = int(float64(p.Size) * max(1, s.Ratio/2))
		p.Networks = int(float64(p.Networks) * math.Sqrt(max(1, s.Ratio)))
		seed := c.people.seed
		if !known { // it comes from elsewhere
			seed++
		}
		c.people = newPeople(p, seed)
	})
}

// reconnect is what a deployment or an outage ends with: all clients come back at once,
// many after SYNs that nobody answered.
func reconnect(r *rng, s *Scenario) (Stream, error) {
	tries := r.between(0, 2)
	return s.surge(time.Duration(r.logUniform(.2, 5)*1e9), func(c *crowd) {
		c.people.Fresh = 0
		for _, t := range c.routes {
			if t.protocol == protoTCP {
				t.weight *= 4 // who had a connection needs a new one
				t.retry(tries)
			}
			t.rounds = 1
		}
	})
}

// retry puts SYNs without an answer in front of a connection: after 1 s, 2 s …
func (t *route) retry(tries int) {
	syn := t.steps[0]
	if tries == 0 || syn.flags&(flagSYN|flagACK) != flagSYN {
		return
	}
	steps := []routeStep{syn}
	for i := range tries {
		next := syn
		next.gap = int64(time.Second) << i
		steps = append(steps, next)
		t.span += next.gap
	}
	t.steps = append(steps, t.steps[1:]...)
}

// natUsers are the 500 users of an office, behind one to three addresses.
func natUsers(r *rng, s *Scenario) (Stream, error) {
	addresses := r.between(1, 3)
	return s.surge(time.Duration(r.logUniform(.5, 10)*1e9), func(c *crowd) {
		c.people = newPeople(Population{Size: 1, NATs: addresses, NATShare: 1}, c.people.seed+2)
	})
}

// answers are what a resolver gets when its cache is empty or its clients are many.
func answers(r *rng, s *Scenario) (Stream, error) {
	return s.surge(time.Duration(r.logUniform(.2, 10)*1e9), nil)
}

// bulk are a few connections that carry as much as they can.
func (s *Scenario) bulk(r *rng, ports []uint16, server, quic bool) Stream {
	n := r.between(1, 6)
	p := newPeople(Population{Size: 4, Networks: 2}, r.next())
	var vectors []vector
	for range n {
		vectors = append(vectors, bulkVector(r, p.client(uint64(r.intn(4)), s.Target.Is6()), pick(r, ports...), server, quic))
	}
	d := drawn{vectors: vectors}
	f := s.flood(r, d, nil).(*flood)
	rise := r.uniform(.05, 2) * 1e9 // slow start
	f.attack, f.pace = false, paceBursts
	f.shape = func(t time.Duration) float64 { return min(1, max(.02, float64(t)/rise)) }
	return f
}

// bulkVector is one connection in the middle of a transfer: full packets, now and then a shorter one.
func bulkVector(r *rng, c client, service uint16, server, quic bool) vector {
	h0 := header{src: c.addr, ttl: c.ttl, protocol: protoTCP, df: true, dataOffset: 8, flags: flagACK, window: uint16(r.between(200, 2000))}
	h0.sport, h0.dport = uint16(r.between(32768, 60999)), service
	if server {
		h0.sport, h0.dport = h0.dport, h0.sport
	}
	size := maxIP
	if quic {
		h0.protocol, h0.sport, h0.flags, h0.dataOffset, h0.window = protoUDP, 443, 0, 0, 0
		size = r.between(1228, 1400)
	}
	seq, ack, id := uint32(r.next()), uint32(r.next()), uint32(r.next())
	return func(r *rng, h *header) bool {
		h0.dst = h.dst
		*h = h0
		id++
		h.seq, h.ack, h.id, h.length = seq, ack, id, size
		if r.chance(.03) {
			h.length = r.between(100, size)
			if !quic {
				h.flags |= flagPSH
			}
		}
		h.fill = r.intn(fillers) &^ 1
		seq += uint32(h.length - h.ipLength(32))
		return false
	}
}

func download(r *rng, s *Scenario) (Stream, error) {
	return s.bulk(r, []uint16{443, 443, 80}, true, r.chance(.4)), nil
}

func backup(r *rng, s *Scenario) (Stream, error) {
	return s.bulk(r, []uint16{22, 443, 873, 445, 9000}, false, false), nil
}

// portScan is one scanner at work on many ports of the target.
func portScan(r *rng, s *Scenario) (Stream, error) {
	from := newPeople(Population{Size: 1}, r.next()).client(0, s.Target.Is6())
	order := make([]uint16, r.between(100, 20000))
	for i := range order {
		order[i] = uint16(r.between(1, 65535))
	}
	if r.chance(.5) {
		slices.Sort(order)
	}
	udp, options := r.chance(.2), r.chance(.4)
	sport, next := uint16(r.between(32768, 60999)), 0
	v := func(r *rng, h *header) bool {
		h.src, h.ttl, h.id = from.addr, from.ttl, uint32(r.next())
		h.sport, h.dport = sport, order[next%len(order)]
		next++
		if udp {
			h.protocol, h.length = protoUDP, h.ipLength(8)
			return false
		}
		h.protocol, h.flags, h.dataOffset, h.window, h.seq = protoTCP, flagSYN, 6, 1024, uint32(r.next())
		if options {
			h.dataOffset, h.window, h.df, h.sport = 10, 64240, true, uint16(r.between(32768, 60999))
		}
		return false
	}
	f := s.flood(r, drawn{vectors: []vector{v}}, nil).(*flood)
	f.attack = false
	return f, nil
}

// monitoring are many machines that ping the target.
func monitoring(r *rng, s *Scenario) (Stream, error) {
	from := reflectors(r, r.between(5, 300))
	f := s.flood(r, drawn{vectors: []vector{func(r *rng, h *header) bool {
		noisePing(r, h)
		from(r, h)
		return false
	}}}, nil).(*flood)
	f.attack = false
	return f, nil
}
