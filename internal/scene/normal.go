// SPDX-License-Identifier: Apache-2.0

package scene

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"time"
)

// Profile is what a target's clients do: the shares of the classes of flows.
type Profile struct {
	Name    string
	Shares  map[Class]float64 // of the flows that begin
	Session time.Duration     // how long UDP flows without an end last, on average; 0: once through their template
	Mix     bool              // flows as often as the capture mix of an access network has them; Shares is not looked at
	Inside  bool              // the target is a client (or a resolver): servers' packets arrive, from their ports
	Tunnels float64           // share of the VPN flows that are ESP or GRE instead of UDP
	Large   float64           // share of packets that are fragments of whole datagrams, too large for one
	Week    Week
	Size    int // clients about at the same time at 1 000 packets/s
}

// Profiles are the targets that there are templates for. "eyeball" is an access network behind one address,
// "resolver" a DNS resolver that asks other servers.
var Profiles = []Profile{
	{Name: "web", Shares: map[Class]float64{ClassWeb: 1}, Week: Week{3, .8}, Size: 400},
	{Name: "dns", Shares: map[Class]float64{ClassDNS: .99, ClassStream: .005, ClassWeb: .005}, Week: Week{2.5, .9}, Size: 3000},
	{Name: "game", Shares: map[Class]float64{ClassGame: .8, ClassWeb: .1, ClassVoice: .1}, Session: 40 * time.Second, Week: Week{6, 1.3}, Size: 80},
	{Name: "vpn", Shares: map[Class]float64{ClassVPN: .9, ClassWeb: .08, ClassTime: .02}, Session: 40 * time.Second, Tunnels: .3, Large: .005, Week: Week{4, .5}, Size: 60},
	{Name: "mail", Shares: map[Class]float64{ClassMail: .8, ClassWeb: .1, ClassDNS: .1}, Week: Week{3, .5}, Size: 400},
	{Name: "voice", Shares: map[Class]float64{ClassVoice: .9, ClassWeb: .1}, Session: 30 * time.Second, Large: .002, Week: Week{5, .6}, Size: 100},
	{Name: "time", Shares: map[Class]float64{ClassTime: .97, ClassDNS: .03}, Week: Week{1.3, 1}, Size: 4000},
	{Name: "hosting", Shares: map[Class]float64{ClassWeb: .6, ClassDNS: .1, ClassMail: .1, ClassRemote: .02, ClassTime: .03, ClassOther: .15}, Session: 10 * time.Second, Week: Week{2.5, .9}, Size: 500},
	{Name: "access", Mix: true, Week: Week{3, 1.1}, Size: 600},
	{Name: "eyeball", Mix: true, Inside: true, Large: .001, Week: Week{4, 1.2}, Size: 200},
	{Name: "resolver", Shares: map[Class]float64{ClassDNS: .995, ClassStream: .005}, Inside: true, Large: .005, Week: Week{2.5, .9}, Size: 2000},
}

// ProfileNamed returns the profile of that name.
func ProfileNamed(name string) (Profile, error) {
	i := slices.IndexFunc(Profiles, func(p Profile) bool { return p.Name == name })
	if i < 0 {
		return Profile{}, fmt.Errorf("no traffic profile %q", name)
	}
	return Profiles[i], nil
}

// routes returns what arrives at a target of the profile, with how often.
func (p *Profile) routes() []*route {
	templates := Templates()
	count := map[Class]float64{}
	for i := range templates {
		count[templates[i].Class]++
	}
	var list []*route
	for i := range templates {
		t := &templates[i]
		weight := t.Weight
		if !p.Mix {
			weight = p.Shares[t.Class] / count[t.Class]
		}
		if weight <= 0 {
			continue
		}
		r := newRoute(t, p.Inside)
		if r == nil {
			continue
		}
		r.weight = weight
		r.lasting(p.Session)
		list = append(list, r)
		if p.Tunnels > 0 && t.Class == ClassVPN && t.Protocol == protoUDP {
			r.weight *= 1 - p.Tunnels
			list = append(list, r.tunnel(protoESP, weight*p.Tunnels*.7), r.tunnel(protoGRE, weight*p.Tunnels*.3))
		}
	}
	return list
}

// tunnel returns the route as that protocol over IP would have it.
func (r *route) tunnel(protocol uint8, weight float64) *route {
	t := *r
	t.protocol, t.weight, t.sport, t.dport = protocol, weight, 0, 0
	t.steps = slices.Clone(r.steps)
	for i := range t.steps {
		t.steps[i].data = min(t.steps[i].data+16, mtuData6)
		t.steps[i].head = nil
		if protocol == protoGRE {
			t.steps[i].head = greHead
		}
	}
	return &t
}

// greHead is that of PPTP: a key, a sequence number.
var greHead = []byte("\x30\x01\x88\x0b")

// Normal is the traffic of a target's clients.
type Normal struct {
	Profile    Profile
	Targets    []netip.Addr // at least one; flows go to each as often as to another of its family
	IPv6       float64      // share of the flows, where targets of both families are given
	Rate       float64      // packets a second, on average over the week
	Arrival    Arrival
	Population Population    // zero: the profile's, for this rate
	Noise      float64       // share of packets that no client sent: scans, stray answers, pings; 0: 0.3 %, negative: none
	Begin      time.Duration // of the week (from Monday 0:00), when the scene begins
	Lapse      Lapse
	Seed       uint64
}

// Stream composes the traffic. It does not end.
func (n Normal) Stream() (Stream, error) {
	c, err := n.crowd()
	if err != nil {
		return nil, err
	}
	noise := n.Noise
	if noise == 0 {
		noise = .003
	}
	noise, large := max(noise, 0), n.Profile.Large
	c.begin(n.Rate * (1 - noise - large))
	list := []Stream{c}
	if noise > 0 {
		list = append(list, n.extra("noise", noise, noiseScan, noiseScan, noiseUDP, noisePing, noisePing, noiseStray))
	}
	if large > 0 {
		r := newRNG(n.Seed, "datagrams")
		list = append(list, n.extra("large", large, largeDatagram(reflectors(&r, 200))))
	}
	return Merge(list...), nil
}

// extra are packets that no flow holds together, as a share of the rate.
func (n *Normal) extra(use string, share float64, vectors ...vector) Stream {
	targets := byFamily(n.Targets)
	f := &flood{
		rng: newRNG(n.Seed, use), rate: n.Rate * share, end: math.MaxInt64, lapse: n.Lapse, vectors: vectors,
		target: func(r *rng) address {
			if len(targets[0]) == 0 || len(targets[1]) > 0 && r.chance(n.IPv6) {
				return pickAddress(r, targets[1])
			}
			return pickAddress(r, targets[0])
		},
	}
	return f.begin()
}

func (n *Normal) crowd() (*crowd, error) {
	if n.Rate <= 0 || len(n.Targets) == 0 || n.Begin < 0 {
		return nil, fmt.Errorf("compose normal traffic: a rate and targets must be given, and the begin not be negative")
	}
	if l := n.Lapse; l.Play < 0 || l.Period < l.Play {
		return nil, fmt.Errorf("compose normal traffic: of %v, %v cannot be played", l.Period, l.Play)
	}
	c := &crowd{
		rng: newRNG(n.Seed, "flows"), routes: n.Profile.routes(), sixPart: n.IPv6, lapse: n.Lapse,
		tide: newTide(n.Arrival, n.Seed), back: n.Profile.Inside,
		season: &season{hours: n.Profile.Week.factors(), first: n.Begin},
	}
	if len(c.routes) == 0 {
		return nil, fmt.Errorf("compose normal traffic: no templates for profile %q", n.Profile.Name)
	}
	c.targets = byFamily(n.Targets)
	population := n.Population
	if population == (Population{}) {
		population = DefaultPopulation(max(20, int(float64(n.Profile.Size)*n.Rate/1000)))
		if n.Profile.Inside { // servers: few, in few networks, nobody behind a NAT
			population.Networks, population.NATShare = max(8, population.Networks/3), 0
		}
	}
	c.people = newPeople(population, seedFor(n.Seed, "people"))
	return c, nil
}

// seedFor is one number drawn for a use of a seed.
func seedFor(seed uint64, use string) uint64 {
	r := newRNG(seed, use)
	return r.next()
}

func byFamily(list []netip.Addr) (targets [2][]address) {
	for _, a := range list {
		i := bit(a.Is6(), 0)
		targets[i] = append(targets[i], addressOf(a))
	}
	return targets
}
