// SPDX-License-Identifier: Apache-2.0

package scene

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// Scenario is normal traffic of one target and at most one event in it: an attack, or something at which
// nothing may happen. Everything that it does not say follows from its seed.
type Scenario struct {
	Name     string
	Family   string         // one of Families, or the file of the recording
	Kind     traffic.Kind   // of the attack; KindBenign: nothing may happen
	Also     []traffic.Kind // other kinds that are no mistake; of a carpet and a mixture, those of its vectors
	Protocol string         // of amplification: dns, ntp, …; tcp for SYN-ACK
	Profile  string         // one of Profiles
	Target   netip.Addr
	Onset    time.Duration // when the event begins
	End      time.Duration // when it is over; of surges, when they begin to fade
	Length   time.Duration // of the scene
	Ratio    float64       // of the event's packets a second, at its height, over those of the normal traffic then
	Baseline float64       // packets a second of the normal traffic, on average over the week
	Arrival  Arrival
	Begin    time.Duration // of the week
	Lapse    Lapse
	Seed     uint64
	Calm     uint64 // seed of the normal traffic, where scenes share it; 0: Seed

	Recording *Recording // the event is this one, whatever the family says; nil: it is made up
}

// Attack reports whether the event is one.
func (s *Scenario) Attack() bool { return s.Kind != traffic.KindBenign }

// Class returns the kind as one host sees it: of a carpet, that of what falls on it.
func (s *Scenario) Class() traffic.Kind {
	if s.Kind == traffic.KindCarpet && len(s.Also) > 0 {
		return s.Also[0]
	}
	return s.Kind
}

// Normal returns the traffic that the event happens in. A carpet has it on some hosts of its network.
func (s *Scenario) Normal() (Normal, error) {
	p, err := ProfileNamed(s.Profile)
	n := Normal{
		Profile: p, Targets: []netip.Addr{s.Target}, Rate: s.Baseline, Arrival: s.Arrival,
		Begin: s.Begin, Lapse: s.Lapse, Seed: cmp.Or(s.Calm, s.Seed),
	}
	if s.Kind == traffic.KindCarpet { // so that the network has a baseline of its own
		host := s.Target
		for range 7 {
			host = host.Next()
			n.Targets = append(n.Targets, host)
		}
	}
	return n, err
}

// Watch returns the targets that the scene is about: host, network and interface.
func (s *Scenario) Watch() []traffic.Target {
	return []traffic.Target{traffic.HostTarget(s.Target), traffic.NetworkTarget(s.Target), {Scope: traffic.TargetInterface}}
}

// Stream composes the scene: normal traffic and event, Length long.
func (s *Scenario) Stream() (Stream, error) {
	n, err := s.Normal()
	if err != nil {
		return nil, fmt.Errorf("compose %s: %w", s.Name, err)
	}
	normal, err := n.Stream()
	if err != nil {
		return nil, fmt.Errorf("compose %s: %w", s.Name, err)
	}
	event, err := s.Event()
	if err != nil {
		return nil, err
	}
	if event != nil {
		normal = Merge(normal, event)
	}
	return Until(normal, s.Length), nil
}

// Event composes the event alone; nil for a scene of normal traffic only.
func (s *Scenario) Event() (Stream, error) {
	stream, err := s.event()
	if err != nil {
		return nil, fmt.Errorf("compose %s: %w", s.Name, err)
	}
	return stream, nil
}

func (s *Scenario) event() (Stream, error) {
	if s.Family == "normal" {
		return nil, nil
	}
	if err := s.check(); err != nil {
		return nil, err
	}
	if s.Recording != nil {
		return s.Recording.Stream(Splice{
			Target: s.Target, Rate: s.Ratio * s.Local(), Onset: s.Onset, End: s.End,
			Even: s.Attack(), Lapse: s.Lapse, Seed: s.Seed,
		})
	}
	f, err := familyNamed(s.Family)
	if err != nil {
		return nil, err
	}
	r := newRNG(s.Seed, s.Family)
	return f.event(&r, s)
}

func (s *Scenario) check() error {
	switch {
	case s.Ratio <= 0 || s.Baseline <= 0:
		return fmt.Errorf("a ratio of %v and a baseline of %v packets/s make no event", s.Ratio, s.Baseline)
	case s.Onset < 0 || s.End <= s.Onset:
		return fmt.Errorf("the event ends at %v, not after its onset at %v", s.End, s.Onset)
	case !s.Target.IsValid():
		return fmt.Errorf("no target")
	}
	return nil
}

// Local returns the packets a second that the normal traffic has at the onset, by the hour of the week.
func (s *Scenario) Local() float64 {
	p, err := ProfileNamed(s.Profile)
	if err != nil {
		return s.Baseline
	}
	week := season{hours: p.Week.factors(), first: s.Begin}
	return s.Baseline * week.at(int64(s.Onset))
}

// window returns onset and end as composed time.
func (s *Scenario) window() (from, to int64) {
	return s.Lapse.played(int64(s.Onset)), s.Lapse.played(int64(s.End))
}

// Shape says how an attack's rate goes: the share of its height, from 0 to 1, at a time since the onset.
// It is nil for attacks at full rate from onset to end.
func (s *Scenario) Shape() func(time.Duration) float64 {
	f, err := familyNamed(s.Family)
	if err != nil || f.shape == nil {
		return nil
	}
	r := newRNG(s.Seed, "shape")
	return f.shape(&r, s)
}

// family is one way in which events of a kind come about.
type family struct {
	name string
	kind traffic.Kind // of its attacks; KindBenign: nothing may happen, or the vectors say
	// describe draws what a scenario of the family is labelled with.
	describe func(r *rng, s *Scenario)
	event    func(r *rng, s *Scenario) (Stream, error)
	shape    func(r *rng, s *Scenario) func(time.Duration) float64
	ratios   []float64 // benign families: the factors that make sense
	profiles []string  // nil: any but those with Inside
	only4    bool
}

// Families returns the names of all families, those of attacks first.
func Families() []string {
	var names []string
	for i := range families {
		names = append(names, families[i].name)
	}
	return names
}

func familyNamed(name string) (*family, error) {
	i := slices.IndexFunc(families, func(f family) bool { return f.name == name })
	if i < 0 {
		return nil, fmt.Errorf("no family of scenarios %q", name)
	}
	return &families[i], nil
}

// CatalogueOptions choose the scenarios of a catalogue.
type CatalogueOptions struct {
	Seed     uint64
	Draws    int       // of each family and ratio; 0: 1
	Ratios   []float64 // of attacks; nil: 0.5, 1, 3, 10, 30
	Families []string  // nil: all
	// Recordings are real captures, each a family more: attacks at the ratios, what is
	// none at its own rate. They are IPv4.
	Recordings []*Recording
	Low        float64       // packets a second of the normal traffic are drawn between Low and High; 0: 300
	High       float64       // 0: 3 000
	Lead       time.Duration // of calm in front of an event; 0: 20 s
	Hold       time.Duration // of an event; 0: 15 s
	Tail       time.Duration // behind it; 0: 5 s
	IPv6       float64       // share of scenarios; 0: a quarter, negative: none
	// Shared has all scenarios of a draw with the same profile happen in the same normal traffic, so
	// that the calm in front of them needs to be composed only once: see Lead.
	Shared bool
}

func (o *CatalogueOptions) defaults() {
	set := func(v *float64, to float64) {
		if *v == 0 {
			*v = to
		}
	}
	span := func(v *time.Duration, to time.Duration) {
		if *v == 0 {
			*v = to
		}
	}
	o.Draws = max(o.Draws, 1)
	if o.Ratios == nil {
		o.Ratios = []float64{.5, 1, 3, 10, 30}
	}
	if o.Families == nil {
		o.Families = Families()
	}
	set(&o.Low, 300)
	set(&o.High, 3000)
	set(&o.IPv6, .25)
	span(&o.Lead, 20*time.Second)
	span(&o.Hold, 15*time.Second)
	span(&o.Tail, 5*time.Second)
}

// Catalogue returns scenarios of every family asked for, the same ones for the same options.
func Catalogue(o CatalogueOptions) ([]Scenario, error) {
	o.defaults()
	var list []Scenario
	for _, name := range o.Families {
		f, err := familyNamed(name)
		if err != nil {
			return nil, err
		}
		ratios := o.Ratios
		if f.ratios != nil {
			ratios = f.ratios
		}
		for _, ratio := range ratios {
			for draw := range o.Draws {
				list = append(list, o.draw(f, ratio, draw))
			}
		}
	}
	for _, rec := range o.Recordings {
		f := &family{name: rec.File, kind: rec.Kind, only4: true}
		ratios := o.Ratios
		if rec.Kind == traffic.KindBenign {
			ratios = []float64{1} // whatever that is: below
		}
		for _, ratio := range ratios {
			for draw := range o.Draws {
				s := o.draw(f, ratio, draw)
				s.Recording, s.Also, s.Protocol = rec, rec.Also, rec.Protocol
				if rec.Kind == traffic.KindBenign {
					s.Ratio = rec.Rate / s.Local()
				}
				list = append(list, s)
			}
		}
	}
	return list, nil
}

func (o *CatalogueOptions) draw(f *family, ratio float64, draw int) Scenario {
	r := newRNG(o.Seed+uint64(draw)*gamma, fmt.Sprint(f.name, ratio))
	s := Scenario{
		Family: f.name, Kind: f.kind, Ratio: ratio, Seed: r.next(),
		Baseline: r.logUniform(o.Low, o.High), Arrival: Arrival(r.intn(int(numArrivals))),
		Begin: time.Duration(r.intn(hoursOfWeek*60)) * time.Minute,
		Onset: o.Lead + time.Duration(r.intn(1000))*time.Millisecond,
	}
	s.End = s.Onset + o.Hold
	s.Length = (s.End + o.Tail).Truncate(traffic.Tick)
	s.Target = netip.AddrFrom4([4]byte{198, 51, 100, byte(r.between(1, 200))})
	version := "4"
	if r.chance(o.IPv6) && !f.only4 {
		s.Target = netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 0, 1, 15: byte(r.between(1, 200))})
		version = "6"
	}
	profiles := f.profiles
	if profiles == nil {
		profiles = []string{"web", "dns", "game", "vpn", "mail", "voice", "time", "hosting", "access"}
	}
	s.Profile = pick(&r, profiles...)
	if o.Shared {
		version = o.share(f, &s, profiles, draw)
	}
	if f.describe != nil {
		described := newRNG(s.Seed, f.name)
		f.describe(&described, &s)
	}
	s.Name = fmt.Sprintf("%s/ipv%s/%s/%gx/%d", f.name, version, s.Profile, ratio, draw)
	return s
}

// share moves a scenario into the normal traffic that those of its draw and profile have in common,
// and returns the IP version there.
func (o *CatalogueOptions) share(f *family, s *Scenario, profiles []string, draw int) (version string) {
	use := s.Profile
	if f.kind == traffic.KindCarpet { // traffic of a whole network: one for all carpets of a draw
		use = "network"
	}
	r := newRNG(o.Seed+uint64(draw)*gamma, "calm "+use)
	s.Calm, s.Baseline, s.Arrival = r.next()|1, r.logUniform(o.Low, o.High), Arrival(r.intn(int(numArrivals)))
	s.Begin = time.Duration(r.intn(hoursOfWeek*60)) * time.Minute
	if use == "network" {
		s.Profile = pick(&r, profiles...)
	}
	host, six := byte(r.between(1, 200)), r.chance(o.IPv6)
	if six && f.only4 { // a recording: beside that of the others
		six = false
		s.Calm++
	}
	if six {
		s.Target = netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 0, 1, 15: host})
		return "6"
	}
	s.Target = netip.AddrFrom4([4]byte{198, 51, 100, host})
	return "4"
}
