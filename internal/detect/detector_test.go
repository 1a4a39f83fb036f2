// SPDX-License-Identifier: Apache-2.0

package detect

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sentinel-x/sentinel-x/internal/config"
	"github.com/sentinel-x/sentinel-x/internal/model"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

func defaults() Settings { return SettingsOf(config.Default().Detect) }

// stubTrees is sure of a class, to a degree that a function of the vector gives.
type stubTrees struct {
	class traffic.Kind
	p     func(x Vector) float64
	asked int
}

func (s *stubTrees) Classify(x Vector, p *Probabilities) {
	s.asked++
	*p = Probabilities{}
	p[s.class] = s.p(x)
	p[traffic.KindBenign] = 1 - p[s.class]
}

func (s *stubTrees) Explain(_ Vector, _ traffic.Kind, out []float32) {
	clear(out)
	out[Index("fingerprint_drift_1s")] = 3
	out[Index("syn_bare_share_100ms")] = 2
	out[Index("pkt_rate")] = 1
	out[Index("tcp_share_1s")] = -1
	out[Index("byte_rate")] = float32(math.NaN())
}

// constantly returns trees that always say the same.
func constantly(class traffic.Kind, p float64) *stubTrees {
	return &stubTrees{class: class, p: func(Vector) float64 { return p }}
}

// stubScorer objects when it is told to.
type stubScorer struct {
	score Score
}

func (s *stubScorer) Score(traffic.Target, Vector) Score { return s.score }

func (s *stubScorer) Explain(_ traffic.Target, _ Vector, out []float32) {
	clear(out)
	out[Index("ttl_spread_1s")] = 1
}

// stubLearner remembers what it was given of one target.
type stubLearner struct {
	target  traffic.Target
	windows []model.Window
}

func (s *stubLearner) Follows(t traffic.Target) bool { return t == s.target }

func (s *stubLearner) Observe(_ traffic.Target, w model.Window) {
	w.Row = nil
	s.windows = append(s.windows, w)
}

var (
	objecting = Score{Value: 0.8, Threshold: 0.6, Armed: true}
	content   = Score{Value: 0.4, Threshold: 0.6, Armed: true}
)

// stage runs a detector on synthetic windows and keeps its updates.
type stage struct {
	*sim
	t       *testing.T
	d       *Detector
	updates []Update
}

func newStage(t *testing.T, s Settings, m Models) *stage {
	return &stage{sim: newSim(11), t: t, d: New(s, m)}
}

// run plays ticks with what play puts into the windows of the targets.
func (s *stage) run(ticks int, play func(w []traffic.Window), targets ...traffic.Target) []Update {
	s.t.Helper()
	first := len(s.updates)
	for range ticks {
		start := epoch.Add(time.Duration(s.tick) * traffic.Tick)
		windows := make([]traffic.Window, len(targets))
		for i, target := range targets {
			windows[i] = traffic.Window{Target: target, Start: start, Length: traffic.Tick}
		}
		play(windows)
		s.tick++
		for _, u := range s.d.Tick(start, traffic.Tick, windows) {
			if _, err := json.Marshal(u.Incident); err != nil {
				s.t.Fatalf("an incident cannot be written: %v", err)
			}
			s.updates = append(s.updates, u)
		}
	}
	return s.updates[first:]
}

// warm plays calm traffic for 70 s, with trees that have no objection.
func (s *stage) warm(targets ...traffic.Target) {
	s.t.Helper()
	if trees, ok := s.d.models.Trees.(*stubTrees); ok {
		p := trees.p
		trees.p = func(Vector) float64 { return 0 }
		defer func() { trees.p = p }()
	}
	if u := s.run(700, s.calm, targets...); len(u) != 0 {
		s.t.Fatalf("calm traffic: %+v", u)
	}
}

func (s *stage) calm(w []traffic.Window) {
	for i := range w {
		s.clients(&w[i], 900, 200)
	}
}

// only returns the incidents of one change.
func only(updates []Update, c Change) (list []traffic.Incident) {
	for _, u := range updates {
		if u.Change == c {
			list = append(list, u.Incident)
		}
	}
	return list
}

// one returns the only incident of a change.
func one(t *testing.T, updates []Update, c Change) traffic.Incident {
	t.Helper()
	list := only(updates, c)
	if len(list) != 1 {
		t.Fatalf("%d updates of change %d, want one: %+v", len(list), c, updates)
	}
	return list[0]
}

func (s *stage) at(tick int) time.Time { return epoch.Add(time.Duration(tick) * traffic.Tick) }

// TestSYNFlood: the deterministic layer alone finds a flood at three times the
// normal rate in two ticks, and its end.
func TestSYNFlood(t *testing.T) {
	s := newStage(t, defaults(), Models{})
	s.warm(victim)
	begin := s.tick
	u := s.run(50, func(w []traffic.Window) {
		s.calm(w)
		s.synFlood(&w[0], 2700)
	}, victim)
	i := one(t, u, Opened)
	if i.Kind != traffic.KindSYNFlood || i.Protocol != "tcp" || i.Target != victim || i.NoBaseline {
		t.Errorf("found %+v", i)
	}
	if !i.Onset.Equal(s.at(begin)) || !i.Detected.Equal(s.at(begin+2)) {
		t.Errorf("onset %s, detected %s; want %s and 0.2 s later", i.Onset, i.Detected, s.at(begin))
	}
	near(t, "normal rate", i.Normal.Packets, 900, 60)
	near(t, "confidence", i.Confidence, 0.9, 1e-9)
	if v := i.Votes[0]; v.Opinion != traffic.OpinionAttack || !slices.Equal(v.Reasons, []string{"unanswered SYNs"}) {
		t.Errorf("the deterministic layer voted %+v", v)
	}
	if v := i.Votes[1]; v.Detector != "trees" || v.Opinion != traffic.OpinionAbsent {
		t.Errorf("absent trees voted %+v", v)
	}
	if open := s.d.Open(); len(open) != 1 || open[0].ID != i.ID || open[0].Peak.Packets < 3000 {
		t.Errorf("open: %+v", open)
	}
	end := s.tick
	u = s.run(150, s.calm, victim)
	e := one(t, u, Ended)
	if e.ID != i.ID || e.Ended.Sub(s.at(end)).Abs() > 300*time.Millisecond {
		t.Errorf("ended at %s, the flood at %s: %+v", e.Ended, s.at(end), e)
	}
	if len(s.d.Open()) != 0 {
		t.Error("it is still open")
	}
}

// TestSYNsWithOptions: as a real stack sends them, the layer waits until they could have been sent
// again and answered, and finds the flood all the same.
func TestSYNsWithOptions(t *testing.T) {
	s := newStage(t, defaults(), Models{})
	s.warm(victim)
	begin := s.tick
	u := s.run(50, func(w []traffic.Window) {
		s.calm(w)
		s.syns(&w[0], 4000, 11<<24, 1<<24)
	}, victim)
	if late := one(t, u, Opened).Detected.Sub(s.at(begin)); late < 3500*time.Millisecond || late > 4500*time.Millisecond {
		t.Errorf("found after %s", late)
	}
}

// TestFlashCrowd: twenty times the clients, by a rule that asks models which
// know a crowd, is no incident; nor do the SYNs of the first moment look like a flood.
func TestFlashCrowd(t *testing.T) {
	trees := constantly(traffic.KindConnectionFlood, 0.2)
	s := newStage(t, defaults(), Models{Trees: trees, Forest: &stubScorer{score: objecting}})
	s.warm(victim)
	var grown int
	u := s.run(300, func(w []traffic.Window) {
		grown++
		s.clients(&w[0], 900*min(20, 1+float64(grown)), uint32(200*grown))
	}, victim)
	if trees.asked < 250 {
		t.Errorf("the trees were asked %d times only", trees.asked)
	}
	if list := only(u, Opened); len(list) != 0 {
		t.Errorf("a flash crowd is an incident: %+v", list)
	}
	grey := only(u, GreyZone)
	if len(grey) < 2 || len(grey) > 5 {
		t.Errorf("%d reports of the grey zone in 30 s, want one each 10 s", len(grey))
	}
	for _, g := range grey {
		if g.ID != "" || !strings.Contains(g.Notes[0], "grey zone") {
			t.Errorf("a report that acts: %+v", g)
		}
	}
	if n := s.d.x.Find(victim).baseline.normal(bPackets).centre; n > logRate(1100) {
		t.Errorf("the crowd has become normal: %g packets/s", unlog(n))
	}
}

// TestRules runs both rules over what the models may say.
func TestRules(t *testing.T) {
	for _, c := range []struct {
		name           string
		p              float64
		forest, online Score
		tiered, and    bool
	}{
		{"trees sure", 0.98, content, content, true, false},
		{"trees sure, forest agrees", 0.98, objecting, content, true, true},
		{"trees likely", 0.6, content, content, false, false},
		{"trees likely, forest agrees", 0.6, objecting, content, true, true},
		{"trees likely, online agrees", 0.6, content, objecting, true, false},
		{"trees likely, others not armed", 0.6, Score{Value: 1}, Score{Value: 1}, false, false},
		{"trees calm, others object", 0.4, objecting, objecting, false, false},
		{"trees broken", math.NaN(), objecting, objecting, false, false},
	} {
		for _, rule := range []config.Rule{config.RuleTiered, config.RuleAnd} {
			settings := defaults()
			settings.Rule, settings.Agree = rule, 0.5
			s := newStage(t, settings, Models{
				Trees: constantly(traffic.KindUDPFlood, c.p), Forest: &stubScorer{score: c.forest}, Online: &stubScorer{score: c.online},
			})
			s.warm(victim)
			u := s.run(20, func(w []traffic.Window) {
				s.calm(w)
				s.udpFlood(&w[0], 3000, 4444, 300)
			}, victim)
			want := c.tiered
			if rule == config.RuleAnd {
				want = c.and
			}
			if got := len(only(u, Opened)) == 1; got != want {
				t.Errorf("%s, rule %s: alarm %v, want %v", c.name, rule, got, want)
			}
			if grey := len(only(u, GreyZone)) > 0; !want && !grey {
				t.Errorf("%s, rule %s: no report of the grey zone", c.name, rule)
			}
		}
	}
}

// TestAgreementByDefault: the target's own models make no doubt of the trees an attack unless agree is set for it.
func TestAgreementByDefault(t *testing.T) {
	s := newStage(t, defaults(), Models{
		Trees: constantly(traffic.KindUDPFlood, 0.95), Forest: &stubScorer{score: objecting}, Online: &stubScorer{score: objecting},
	})
	s.warm(victim)
	u := s.run(20, func(w []traffic.Window) { s.calm(w); s.udpFlood(&w[0], 3000, 4444, 300) }, victim)
	if len(only(u, Opened)) != 0 || len(only(u, GreyZone)) == 0 {
		t.Errorf("want a report of the grey zone and no incident: %+v", u)
	}
}

// TestImpact: without enough packets above normal nothing is an attack.
func TestImpact(t *testing.T) {
	trees := constantly(traffic.KindUDPFlood, 1)
	s := newStage(t, defaults(), Models{Trees: trees})
	s.warm(victim)
	asked := trees.asked
	if u := s.run(100, func(w []traffic.Window) {
		s.calm(w)
		s.udpFlood(&w[0], 100, 4444, 300)
	}, victim); len(u) != 0 {
		t.Errorf("100 packets/s are an incident: %+v", u)
	}
	if trees.asked != asked {
		t.Error("the trees were asked about traffic that has no impact")
	}
	u := s.run(5, func(w []traffic.Window) {
		s.calm(w)
		s.udpFlood(&w[0], 900, 4444, 300)
	}, victim)
	if i := one(t, u, Opened); i.Kind != traffic.KindUDPFlood || i.Protocol != "udp" {
		t.Errorf("a flood as strong as normal traffic: %+v", i)
	}
}

// TestLimits: a rate over an absolute limit is an attack before anything is known.
func TestLimits(t *testing.T) {
	settings := defaults()
	settings.Limits.UDP = 2000
	s := newStage(t, settings, Models{})
	u := s.run(5, func(w []traffic.Window) { s.udpFlood(&w[0], 4000, 4444, 300) }, victim)
	i := one(t, u, Opened)
	if !i.NoBaseline || len(i.Notes) == 0 || !slices.Equal(i.Votes[0].Reasons, []string{"UDP packets over the target's limit"}) {
		t.Errorf("%+v", i)
	}
	if !i.Detected.Equal(s.at(2)) {
		t.Errorf("detected at %s", i.Detected)
	}
}

func TestImpossiblePackets(t *testing.T) {
	s := newStage(t, defaults(), Models{})
	u := s.run(5, func(w []traffic.Window) {
		s.clients(&w[0], 500, 100)
		for range s.number(2000) {
			p := packet{source: s.address(11<<24, 1<<24), proto: 6, flags: syn | fin, offset: 5, length: 40, malformed: true}
			p.count(&w[0])
		}
	}, victim)
	if i := one(t, u, Opened); !slices.Contains(i.Votes[0].Reasons, "impossible packets") {
		t.Errorf("%+v", i)
	}
}

// TestNoBaseline: a target that appears under attack is judged by trees that
// are sure, not by those that need agreement; the incident says so.
func TestNoBaseline(t *testing.T) {
	flood := func(s *stage) func(w []traffic.Window) {
		return func(w []traffic.Window) { s.udpFlood(&w[0], 5000, 4444, 300) }
	}
	s := newStage(t, defaults(), Models{
		Trees: constantly(traffic.KindUDPFlood, 0.9), Forest: &stubScorer{score: objecting}, Online: &stubScorer{score: objecting},
	})
	if u := only(s.run(30, flood(s), victim), Opened); len(u) != 0 {
		t.Errorf("trees that are not sure: %+v", u)
	}
	s = newStage(t, defaults(), Models{Trees: constantly(traffic.KindUDPFlood, 0.99), Forest: &stubScorer{score: objecting}})
	i := one(t, s.run(3, flood(s), victim), Opened)
	if !i.NoBaseline || !strings.Contains(strings.Join(i.Notes, "\n"), "no baseline") || i.Votes[2].Opinion != traffic.OpinionUnsure {
		t.Errorf("%+v", i)
	}
}

// TestOnsetWithoutBaseline is found from the jump in the ticks that are kept.
func TestOnsetWithoutBaseline(t *testing.T) {
	for _, late := range []int{1, 4, 15, 45} {
		trees := constantly(traffic.KindUDPFlood, 0)
		s := newStage(t, defaults(), Models{Trees: trees})
		s.run(120, s.calm, victim)
		begin := s.tick
		flood := func(w []traffic.Window) {
			s.calm(w)
			s.udpFlood(&w[0], 20000, 4444, 300)
		}
		s.run(late, flood, victim)
		trees.p = func(Vector) float64 { return 1 }
		i := one(t, s.run(3, flood, victim), Opened)
		slack := traffic.Tick
		if late > ticksPerSecond {
			slack = time.Second
		}
		if off := i.Onset.Sub(s.at(begin)).Abs(); off > slack {
			t.Errorf("found %d ticks late: onset is off by %s", late, off)
		}
	}
}

// TestPulseWave: pulses with pauses shorter than end_after are one incident.
func TestPulseWave(t *testing.T) {
	s := newStage(t, defaults(), Models{})
	s.warm(victim)
	for range 5 {
		s.run(20, func(w []traffic.Window) {
			s.calm(w)
			s.synFlood(&w[0], 5000)
		}, victim)
		s.run(50, s.calm, victim)
	}
	one(t, s.updates, Opened)
	if ended := only(s.updates, Ended); len(ended) != 0 {
		t.Errorf("ended between pulses: %+v", ended)
	}
	one(t, s.run(100, s.calm, victim), Ended)
}

// TestSilentTarget: an attack ends too when its target has no windows any more.
func TestSilentTarget(t *testing.T) {
	s := newStage(t, defaults(), Models{})
	s.warm(victim)
	s.run(10, func(w []traffic.Window) { s.synFlood(&w[0], 5000) }, victim)
	u := s.run(110, func([]traffic.Window) {})
	if i := one(t, u, Ended); i.Ended.Before(i.Detected) {
		t.Errorf("ended at %s, before it was detected at %s", i.Ended, i.Detected)
	}
}

// TestHysteresis: an attack whose windows look harmless in between goes on as
// long as a quarter of its excess is there.
func TestHysteresis(t *testing.T) {
	trees := constantly(traffic.KindUDPFlood, 1)
	s := newStage(t, defaults(), Models{Trees: trees})
	s.warm(victim)
	flood := func(rate float64) func(w []traffic.Window) {
		return func(w []traffic.Window) {
			s.calm(w)
			s.udpFlood(&w[0], rate, 4444, 300)
		}
	}
	one(t, s.run(10, flood(6000), victim), Opened)
	trees.p = func(Vector) float64 { return 0.1 }
	if u := only(s.run(300, flood(3000), victim), Ended); len(u) != 0 {
		t.Errorf("half of the flood is no end: %+v", u)
	}
	one(t, s.run(120, flood(800), victim), Ended)
}

// TestExplanation: an incident says which features carried the vote, their
// values, the normal range, and what the others said.
func TestExplanation(t *testing.T) {
	s := newStage(t, defaults(), Models{Trees: constantly(traffic.KindSYNFlood, 0.98), Forest: &stubScorer{score: objecting}})
	s.warm(victim)
	u := s.run(4, func(w []traffic.Window) {
		s.calm(w)
		s.synFlood(&w[0], 2700)
	}, victim)
	i := one(t, u, Opened)
	trees, forest, online := i.Votes[1], i.Votes[2], i.Votes[3]
	if trees.Opinion != traffic.OpinionAttack || trees.Class != traffic.KindSYNFlood || float64(trees.Threshold) != 0.97 {
		t.Errorf("trees: %+v", trees)
	}
	var names []string
	for _, f := range trees.Features {
		names = append(names, f.Name)
	}
	if !slices.Equal(names, []string{"fingerprint_drift_1s", "syn_bare_share_100ms", "pkt_rate"}) {
		t.Errorf("features that speak for it: %q", names)
	}
	f := trees.Features[1]
	near(t, "share of bare SYNs", float64(f.Value), 0.75, 0.05)
	if !(f.Low >= -0.001 && f.High <= 0.001) {
		t.Errorf("normal are %g to %g bare SYNs", f.Low, f.High)
	}
	f = trees.Features[2]
	if !(f.Low > 700 && f.Low < 900 && f.High > 900 && f.High < 1100) {
		t.Errorf("normal are %g to %g packets/s", f.Low, f.High)
	}
	if forest.Opinion != traffic.OpinionAttack || len(forest.Features) != 1 || online.Opinion != traffic.OpinionAbsent {
		t.Errorf("forest %+v, online %+v", forest, online)
	}
	near(t, "confidence", i.Confidence, 0.99, 1e-6)
}

// TestKinds: exact counters name the attack when there are no trees, and
// correct trees that are wrong.
func TestKinds(t *testing.T) {
	bare := func(s *stage, w *traffic.Window, p packet, rate float64) {
		for range s.number(rate) {
			p.source = s.address(11<<24, 1<<24)
			p.count(w)
		}
	}
	for _, c := range []struct {
		name     string
		says     traffic.Kind // of the trees
		want     traffic.Kind
		protocol string
		flood    func(s *stage, w *traffic.Window)
	}{
		{"SYN", traffic.KindUDPFlood, traffic.KindSYNFlood, "tcp", func(s *stage, w *traffic.Window) { s.synFlood(w, 4000) }},
		{"UDP", traffic.KindICMPFlood, traffic.KindUDPFlood, "udp", func(s *stage, w *traffic.Window) { s.udpFlood(w, 4000, 4444, 300) }},
		{"DNS", traffic.KindSYNFlood, traffic.KindAmplification, "dns", func(s *stage, w *traffic.Window) { s.udpFlood(w, 4000, 53, 1400) }},
		{"NTP, UDP by the trees", traffic.KindUDPFlood, traffic.KindUDPFlood, "udp", func(s *stage, w *traffic.Window) { s.udpFlood(w, 4000, 123, 400) }},
		{"DNS in fragments", traffic.KindOther, traffic.KindAmplification, "dns", func(s *stage, w *traffic.Window) {
			s.udpFlood(w, 1500, 53, 1500)
			bare(s, w, packet{proto: 17, length: 1500, ttl: 60, fragment: true}, 3000)
		}},
		{"fragments", traffic.KindOther, traffic.KindFragmentFlood, "udp", func(s *stage, w *traffic.Window) {
			bare(s, w, packet{proto: 17, length: 1500, ttl: 60, fragment: true}, 4000)
		}},
		{"ICMP", traffic.KindUDPFlood, traffic.KindICMPFlood, "icmp", func(s *stage, w *traffic.Window) {
			bare(s, w, packet{proto: 1, length: 84, ttl: 60}, 4000)
		}},
		{"ACK", traffic.KindUDPFlood, traffic.KindACKFlood, "tcp", func(s *stage, w *traffic.Window) {
			bare(s, w, packet{proto: 6, flags: ack, offset: 5, length: 40, ttl: 60}, 4000)
		}},
		{"SYN and ACK, connections by the trees", traffic.KindConnectionFlood, traffic.KindACKFlood, "tcp", func(s *stage, w *traffic.Window) {
			s.synFlood(w, 3000)
			bare(s, w, packet{proto: 6, flags: ack, offset: 5, length: 40, ttl: 60}, 3000)
		}},
		{"connections", traffic.KindOther, traffic.KindConnectionFlood, "tcp", func(s *stage, w *traffic.Window) { s.clients(w, 6000, 50) }},
		{"GRE", traffic.KindUDPFlood, traffic.KindOther, "", func(s *stage, w *traffic.Window) {
			bare(s, w, packet{proto: 47, length: 500, ttl: 60}, 4000)
		}},
	} {
		s := newStage(t, defaults(), Models{Trees: constantly(c.says, 1)})
		s.warm(victim)
		u := s.run(5, func(w []traffic.Window) {
			s.calm(w)
			c.flood(s, &w[0])
		}, victim)
		if i := one(t, u, Opened); i.Kind != c.want || i.Protocol != c.protocol {
			t.Errorf("%s: kind %s by %q, want %s by %q", c.name, i.Kind, i.Protocol, c.want, c.protocol)
		}
	}
}

// TestNarrowestTarget: an attack on one host is one incident, of the host,
// though its network and the interface see it too.
func TestNarrowestTarget(t *testing.T) {
	s := newStage(t, defaults(), Models{})
	s.warm(allHosts, victims, victim)
	u := s.run(60, func(w []traffic.Window) {
		s.calm(w)
		seed := s.tick
		for i := range w {
			s.Rand = rand.New(rand.NewPCG(uint64(seed), 9))
			s.synFlood(&w[i], 5000)
		}
	}, allHosts, victims, victim)
	if i := one(t, u, Opened); i.Target != victim {
		t.Errorf("the incident is that of %s", i.Target)
	}
}

// TestWideTarget: what no host explains is an incident of the network, and
// becomes the host's when a host turns out to explain it.
func TestWideTarget(t *testing.T) {
	s := newStage(t, defaults(), Models{})
	s.warm(victims, victim)
	u := s.run(20, func(w []traffic.Window) {
		s.calm(w)
		s.synFlood(&w[0], 5000)
	}, victims, victim)
	wide := one(t, u, Opened)
	if wide.Target != victims || wide.Kind != traffic.KindSYNFlood {
		t.Errorf("opened %+v", wide)
	}
	u = s.run(10, func(w []traffic.Window) {
		s.calm(w)
		s.synFlood(&w[0], 5000)
		s.synFlood(&w[1], 5000)
	}, victims, victim)
	host, merged := one(t, u, Opened), one(t, u, Ended)
	if host.Target != victim || merged.ID != wide.ID || merged.MergedInto != host.ID {
		t.Errorf("opened %+v, ended %+v", host, merged)
	}
	if open := s.d.Open(); len(open) != 1 || open[0].Target != victim {
		t.Errorf("open: %+v", open)
	}
}

// TestCarpet: many hosts of a network, each with little, are one incident.
func TestCarpet(t *testing.T) {
	var hosts []traffic.Target
	for i := range 40 {
		hosts = append(hosts, traffic.HostTarget(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)})))
	}
	targets := append([]traffic.Target{victims}, hosts...)
	for _, each := range []float64{150, 1500} { // below the floor, and above
		s := newStage(t, defaults(), Models{})
		normal := func(w []traffic.Window) {
			s.clients(&w[0], 4000, 200)
			for i := range hosts {
				s.clients(&w[i+1], 100, 200)
			}
		}
		s.run(650, normal, targets...)
		begin := s.tick
		s.run(80, func(w []traffic.Window) {
			normal(w)
			s.synFlood(&w[0], each*float64(len(hosts)))
			for i := range hosts {
				s.synFlood(&w[i+1], each)
			}
		}, targets...)
		open := s.d.Open()
		if len(open) != 1 || open[0].Target != victims || open[0].Kind != traffic.KindCarpet || open[0].Hosts < 35 {
			t.Fatalf("%g packets/s each: open %+v", each, open)
		}
		one(t, s.updates, Opened)
		if late := open[0].Detected.Sub(s.at(begin)); late > time.Second {
			t.Errorf("%g packets/s each: found after %s", each, late)
		}
	}
}

// TestCarpetInSamples: hosts that are not watched show in the samples.
func TestCarpetInSamples(t *testing.T) {
	for _, c := range []struct {
		hosts int
		kind  traffic.Kind
	}{{1, traffic.KindSYNFlood}, {3, traffic.KindSYNFlood}, {100, traffic.KindCarpet}} {
		s := newStage(t, defaults(), Models{})
		s.warm(victims)
		u := s.run(20, func(w []traffic.Window) {
			s.calm(w)
			for range s.number(6000) {
				p := packet{source: s.address(11<<24, 1<<24), proto: 6, flags: syn, offset: 5, length: 40, ttl: 60}
				p.to = netip.AddrFrom4([4]byte{192, 0, 2, byte(s.IntN(c.hosts))})
				p.count(&w[0])
			}
		}, victims)
		if i := one(t, u, Opened); i.Kind != c.kind || i.Target != victims || (i.Hosts > 50) != (c.hosts > 50) {
			t.Errorf("%d hosts: %+v", c.hosts, i)
		}
	}
}

// TestClockJumpUnderAttack: the clock may go where it likes, the incident stays one.
func TestClockJumpUnderAttack(t *testing.T) {
	s := newStage(t, defaults(), Models{})
	s.warm(victim)
	flood := func(w []traffic.Window) {
		s.calm(w)
		s.synFlood(&w[0], 5000)
	}
	one(t, s.run(20, flood, victim), Opened)
	for _, jump := range []int{-36000, 864000, 50, -1, 3} {
		s.tick += jump
		s.run(30, flood, victim)
	}
	one(t, s.updates, Opened)
	if n := len(only(s.updates, Ended)); n != 0 {
		t.Errorf("ended %d times", n)
	}
}

// TestLearning: a learner gets every window of the targets it follows in their
// order, and is told which were calm.
func TestLearning(t *testing.T) {
	learner := &stubLearner{target: victim}
	s := newStage(t, defaults(), Models{Learner: learner})
	s.warm(victim, victims)
	s.run(20, func(w []traffic.Window) {
		s.calm(w)
		s.synFlood(&w[0], 5000)
	}, victim, victims)
	s.run(130, s.calm, victim, victims)
	if len(learner.windows) != 850 {
		t.Fatalf("%d windows, want 850", len(learner.windows))
	}
	for i, w := range learner.windows {
		// Nothing is calm before there is a baseline, in a flood, or before it has ended.
		calm := i >= 599 && i < 700 || i >= 720+int(s.d.settings.EndAfter)
		if w.Calm != calm {
			t.Fatalf("window %d: calm %v", i, w.Calm)
		}
		if !w.At.Equal(s.at(i + 1)) {
			t.Fatalf("window %d ends at %s", i, w.At)
		}
		if !(w.Share > 0 && w.Share < 0.1) {
			t.Fatalf("window %d: the top source has %g of 200", i, w.Share)
		}
	}
}

// TestReplayIsTheSame: the same windows give the same updates.
func TestReplayIsTheSame(t *testing.T) {
	play := func() string {
		o := defaults()
		o.Agree = 0.5
		s := newStage(t, o, Models{Trees: constantly(traffic.KindOther, 0.7), Online: &stubScorer{score: objecting}})
		s.run(650, s.calm, victim)
		s.run(30, func(w []traffic.Window) { s.synFlood(&w[0], 3000) }, victim, victims)
		s.run(120, s.calm, victim)
		out, err := json.Marshal(s.updates)
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	if a, b := play(), play(); a != b || !strings.Contains(a, "syn_flood") {
		t.Errorf("two runs differ:\n%s\n%s", a, b)
	}
}

func TestSettings(t *testing.T) {
	for _, c := range []struct {
		window       time.Duration
		ticks, needs int
	}{{100 * time.Millisecond, 1, 1}, {300 * time.Millisecond, 3, 2}, {time.Second, 10, 7}, {10 * time.Second, 100, 67}} {
		d := config.Default().Detect
		d.Window.Duration = c.window
		if s := SettingsOf(d); s.Window != c.ticks || s.Need != c.needs {
			t.Errorf("window %s: %d of %d", c.window, s.Need, s.Window)
		}
	}
	d := config.Default().Detect
	d.Threshold = 0.3
	if s := SettingsOf(d); s.Likely != 0.3 {
		t.Errorf("likely is %g above sure", s.Likely)
	}
}

func TestHistory(t *testing.T) {
	var h history
	for i := range 130 {
		h.push(i%2 == 0)
	}
	if h.count(3) != 1 || h.count(100) != 50 || h.count(128) != 64 {
		t.Errorf("%d, %d, %d", h.count(3), h.count(100), h.count(128))
	}
}

// FuzzDetector: random windows, opinions and clocks never panic, and what
// comes out can be written.
func FuzzDetector(f *testing.F) {
	f.Add(uint64(1), []byte{4, 4, 4, 4, 4, 4, 4, 250, 4, 4})
	f.Fuzz(func(t *testing.T, seed uint64, script []byte) {
		r := rand.New(rand.NewPCG(seed, 0))
		trees := &stubTrees{class: traffic.Kind(1 + r.IntN(traffic.TreeClasses-1)), p: func(Vector) float64 { return r.Float64() * 1.2 }}
		s := defaults()
		s.Targets = 1 + r.IntN(4)
		d := New(s, Models{Trees: trees, Forest: &stubScorer{score: objecting}, Online: &stubScorer{score: content}})
		at := epoch
		for _, b := range script[:min(len(script), 60)] {
			at = at.Add(time.Duration(int8(b)) * traffic.Tick / 4)
			windows := []traffic.Window{randomWindow(r), randomWindow(r)}
			for _, u := range d.Tick(at, windows[0].Length, windows) {
				if _, err := json.Marshal(u); err != nil {
					t.Fatal(err)
				}
				if c := u.Incident.Confidence; !(c >= 0 && c <= 1) {
					t.Fatalf("confidence %g", c)
				}
			}
		}
	})
}

// TestDetectorDoesNotAllocate: in steady state a tick costs no memory, under
// suspicion neither.
func TestDetectorDoesNotAllocate(t *testing.T) {
	settings := defaults()
	d := New(settings, Models{Trees: constantly(traffic.KindOther, 0.1), Forest: &stubScorer{score: content}})
	windows, at := busyTick(16), epoch
	tick := func() {
		at = at.Add(traffic.Tick)
		d.Tick(at, traffic.Tick, windows)
	}
	for range 1000 {
		tick()
	}
	if n := testing.AllocsPerRun(50, tick); n > 0.5 {
		t.Errorf("a calm tick of 16 targets allocates %g times", n)
	}
	for i := range windows {
		windows[i].Packets, windows[i].UDP = windows[i].Packets+4000, windows[i].UDP+4000
	}
	asked := d.models.Trees.(*stubTrees).asked
	tick()
	if n := testing.AllocsPerRun(50, tick); n > 0.5 {
		t.Errorf("a tick of 16 targets with an impact allocates %g times", n)
	}
	if got := d.models.Trees.(*stubTrees).asked - asked; got != 52*16 {
		t.Errorf("the trees were asked %d times", got)
	}
}

// BenchmarkDetector is one tick of 256 targets, all under suspicion.
func BenchmarkDetector(b *testing.B) {
	d := New(defaults(), Models{Trees: constantly(traffic.KindOther, 0.1), Forest: &stubScorer{score: content}})
	windows, at := busyTick(256), epoch
	before := processorTime(b)
	for b.Loop() {
		at = at.Add(traffic.Tick)
		d.Tick(at, traffic.Tick, windows)
	}
	b.ReportMetric(float64(processorTime(b)-before)/float64(b.N)/1e6, "cpu-ms/tick")
}

// syns adds SYNs with the options of a real stack from sources of a network.
func (s *stage) syns(w *traffic.Window, rate float64, net, hosts uint32) {
	for range s.number(rate) {
		p := packet{source: s.address(net, hosts), sport: 40000, dport: 443, proto: 6, flags: syn, offset: 10, length: 60, ttl: 60}
		p.count(w)
	}
}

// TestReconnectStorm: clients send SYNs again after 1 s and 3 s, and nothing else,
// until the server answers: no flood. If nothing ever follows, it is one.
func TestReconnectStorm(t *testing.T) {
	s := newStage(t, defaults(), Models{})
	s.warm(victim)
	storm := func(w []traffic.Window) { s.syns(&w[0], 3000, 10<<24, 200) }
	if u := only(s.run(30, storm, victim), Opened); len(u) != 0 {
		t.Errorf("SYNs sent again are an incident: %+v", u)
	}
	if u := only(s.run(30, func(w []traffic.Window) {
		storm(w)
		s.clients(&w[0], 40000, 200)
	}, victim), Opened); len(u) != 0 {
		t.Errorf("connections after SYNs sent again are an incident: %+v", u)
	}
	s.run(200, s.calm, victim)
	begin := s.tick
	i := one(t, s.run(60, storm, victim), Opened)
	if late := i.Detected.Sub(s.at(begin)); late < 3*time.Second || late > 5*time.Second {
		t.Errorf("SYNs that nothing follows are found after %s", late)
	}
}

// TestPortScan: SYNs of one source to one port after the other are a scan, even when they are many; to
// one port, or from many sources, they are a flood.
func TestPortScan(t *testing.T) {
	for _, c := range []struct {
		name           string
		sources, ports int
		rate           float64
		flood          bool
	}{
		{"scan", 1, 60000, 2500, false},
		{"scan as fast as a flood", 1, 60000, 8000, true},
		{"one source, one port", 1, 1, 2500, true},
		{"many sources, any port", 60000, 60000, 2500, true},
	} {
		s := newStage(t, defaults(), Models{})
		s.warm(victim)
		u := only(s.run(30, func(w []traffic.Window) {
			s.calm(w)
			for range s.number(c.rate) {
				p := packet{
					source: s.address(11<<24, uint32(c.sources)), to: victim.Prefix.Addr(), dport: uint16(s.IntN(c.ports)),
					proto: 6, flags: syn, offset: 5, length: 40, ttl: 50,
				}
				p.count(&w[0])
			}
		}, victim), Opened)
		if (len(u) > 0) != c.flood {
			t.Errorf("%s: incidents %+v", c.name, u)
		}
	}
}

// TestReflectorsFromTheFirstSecond: what reflectors send is found before anything is known of the
// target; what looks like it, is not.
func TestReflectorsFromTheFirstSecond(t *testing.T) {
	datagrams := func(sport uint16, length, servers uint32, rate float64) func(s *stage, w *traffic.Window) {
		return func(s *stage, w *traffic.Window) {
			for range s.number(rate) {
				p := packet{source: s.address(12<<24, servers), sport: sport, dport: 443, proto: 17, length: length, ttl: 54}
				p.count(w)
			}
		}
	}
	both := func(list ...func(*stage, *traffic.Window)) func(*stage, *traffic.Window) {
		return func(s *stage, w *traffic.Window) {
			for _, f := range list {
				f(s, w)
			}
		}
	}
	rest := func(s *stage, w *traffic.Window) {
		for range s.number(3000) {
			p := packet{source: s.address(12<<24, 3000), proto: 17, length: 1500, ttl: 54, fragment: true}
			p.count(w)
		}
	}
	for _, c := range []struct {
		name     string
		protocol string // empty: no attack
		limit    float64
		play     func(s *stage, w *traffic.Window)
	}{
		{"DNS", "dns", 1000, datagrams(53, 1400, 3000, 2000)},
		{"DNS in fragments", "dns", 1000, both(datagrams(53, 1500, 3000, 1500), rest)},
		{"NTP", "ntp", 1000, datagrams(123, 468, 3000, 2000)},
		{"memcached among clients", "memcached", 1000, both(datagrams(11211, 1400, 50, 3000), datagrams(40000, 100, 500, 1000))},
		{"the limit is higher", "", 5000, datagrams(53, 1400, 3000, 2000)},
		{"no limit", "", 0, datagrams(53, 1400, 3000, 2000)},
		{"a resolver's answers", "", 1000, datagrams(53, 120, 500, 5000)},
		{"some of them large", "", 1000, both(datagrams(53, 120, 500, 5000), datagrams(53, 900, 500, 2000))},
		{"clients of a time server", "", 1000, datagrams(123, 76, 3000, 5000)},
		{"a transfer from port 53", "", 1000, datagrams(53, 1400, 1, 5000)},
		{"QUIC", "", 1000, datagrams(443, 1280, 300, 5000)},
		{"a VPN behind NAT", "", 1000, datagrams(4500, 1400, 300, 5000)},
		{"fragments alone", "", 1000, rest},
	} {
		settings := defaults()
		settings.Limits.Reflected = c.limit
		s := newStage(t, settings, Models{})
		u := only(s.run(20, func(w []traffic.Window) { c.play(s, &w[0]) }, victim), Opened)
		if c.protocol == "" {
			if len(u) != 0 {
				t.Errorf("%s: %+v", c.name, u)
			}
			continue
		}
		if len(u) != 1 || u[0].Kind != traffic.KindAmplification || u[0].Protocol != c.protocol ||
			!slices.Equal(u[0].Votes[0].Reasons, []string{"reflectors' answers"}) || !u[0].Detected.Equal(s.at(2)) {
			t.Errorf("%s: %+v", c.name, u)
		}
	}
}

// TestProvisionalBaseline: a flood some seconds after the start is compared with these seconds, and
// the incident says that this is all there is.
func TestProvisionalBaseline(t *testing.T) {
	var ratio float64
	trees := &stubTrees{class: traffic.KindUDPFlood, p: func(v Vector) float64 {
		ratio = float64(v[Index("packets_ratio_100ms")])
		if ratio > 2 {
			return 1
		}
		return 0
	}}
	s := newStage(t, defaults(), Models{Trees: trees})
	if u := s.run(80, s.calm, victim); len(u) != 0 {
		t.Errorf("calm traffic: %+v", u)
	}
	begin := s.tick
	i := one(t, s.run(5, func(w []traffic.Window) {
		s.calm(w)
		s.udpFlood(&w[0], 9000, 4444, 300)
	}, victim), Opened)
	near(t, "normal rate", i.Normal.Packets, 900, 100)
	near(t, "ratio", ratio, math.Log2(11), 0.3)
	if !i.NoBaseline || len(i.Notes) == 0 || !strings.Contains(i.Notes[0], "provisional, normal is what 8 calm seconds had") {
		t.Errorf("it says %q, no baseline: %t", i.Notes, i.NoBaseline)
	}
	if !i.Onset.Equal(s.at(begin)) {
		t.Errorf("onset %s, want %s", i.Onset, s.at(begin))
	}
	trees.p = func(Vector) float64 { return 0 }
	s = newStage(t, defaults(), Models{Trees: trees})
	s.run(80, s.calm, victim)
	s.run(50, func(w []traffic.Window) { s.udpFlood(&w[0], 30000, 4444, 60) }, victim)
	if n := unlog(s.d.x.Find(victim).baseline.normal(bPackets).centre); n > 1200 {
		t.Errorf("a flood that nobody objects to has made %g packets/s normal", n)
	}
	s = newStage(t, defaults(), Models{Trees: trees})
	if u := only(s.run(600, func(w []traffic.Window) { s.clients(&w[0], 300*min(10, 1+float64(s.tick)/20), 200) }, victim), Opened); len(u) != 0 {
		t.Errorf("traffic that starts is an incident: %+v", u)
	}
	if n := s.d.x.Find(victim).baseline; !n.known() || unlog(n.normal(bPackets).centre) < 1500 {
		t.Errorf("after a minute %g packets/s are normal, want about 3000", unlog(n.normal(bPackets).centre))
	}
}

// TestStartIsNotGrey: before it is known what is normal, doubts of the trees are none.
func TestStartIsNotGrey(t *testing.T) {
	s := newStage(t, defaults(), Models{Trees: constantly(traffic.KindConnectionFlood, 0.6)})
	if u := s.run(300, s.calm, victim); len(u) != 0 {
		t.Errorf("calm clients are reported: %+v", u)
	}
	if b := s.d.x.Find(victim).baseline; !b.guessed() {
		t.Error("doubts keep a target from learning what is normal")
	}
}
