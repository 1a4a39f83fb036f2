// SPDX-License-Identifier: Apache-2.0

package scene

import (
	"fmt"
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
	Week    Week
	Size    int // clients about at the same time at 1 000 packets/s
}

// Profiles are the targets that there are templates for. "eyeball" is an access network behind one address,
// "resolver" a DNS resolver that asks other servers.
var Profiles = []Profile{
	{Name: "web", Shares: map[Class]float64{ClassWeb: 1}, Week: Week{3, .8}, Size: 400},
	{Name: "dns", Shares: map[Class]float64{ClassDNS: .99, ClassStream: .005, ClassWeb: .005}, Week: Week{2.5, .9}, Size: 3000},
	{Name: "game", Shares: map[Class]float64{ClassGame: .8, ClassWeb: .1, ClassVoice: .1}, Session: 40 * time.Second, Week: Week{6, 1.3}, Size: 80},
	{Name: "vpn", Shares: map[Class]float64{ClassVPN: .9, ClassWeb: .08, ClassTime: .02}, Session: 40 * time.Second, Week: Week{4, .5}, Size: 60},
	{Name: "mail", Shares: map[Class]float64{ClassMail: .8, ClassWeb: .1, ClassDNS: .1}, Week: Week{3, .5}, Size: 400},
	{Name: "voice", Shares: map[Class]float64{ClassVoice: .9, ClassWeb: .1}, Session: 30 * time.Second, Week: Week{5, .6}, Size: 100},
	{Name: "hosting", Shares: map[Class]float64{ClassWeb: .6, ClassDNS: .1, ClassMail: .1, ClassRemote: .02, ClassTime: .03, ClassOther: .15}, Session: 10 * time.Second, Week: Week{2.5, .9}, Size: 500},
	{Name: "access", Mix: true, Week: Week{3, 1.1}, Size: 600},
	{Name: "eyeball", Mix: true, Inside: true, Week: Week{4, 1.2}, Size: 200},
	{Name: "resolver", Shares: map[Class]float64{ClassDNS: .995, ClassStream: .005}, Inside: true, Week: Week{2.5, .9}, Size: 2000},
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
	}
	return list
}

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
	share := n.Noise
	if share == 0 {
		share = .003
	}
	if share < 0 {
		c.begin(n.Rate)
		return c, nil
	}
	c.begin(n.Rate * (1 - share))
	return Merge(c, newNoise(c.targets, n.Rate*share, n.Lapse, n.Seed)), nil
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
