// SPDX-License-Identifier: Apache-2.0

package detect

import (
	"math"
	"slices"

	"github.com/sentinel-x/sentinel-x/internal/model"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// flood is what a kind of attack does to the features that learners see.
type flood struct {
	name                                                  string
	udp, icmp, syn, bare, ack, rst, data, frag, reflected float64 // shares of its packets

	size    float64 // bytes of a packet
	sources float64 // per packet: 1 for a new one each time, 0 for a handful
	fresh   float64 // share of packets from sources never seen
	// Entropy of its sources, their networks, source and destination ports, lengths, TTLs
	// and fingerprints, of the greatest possible.
	entropy [numHistograms]float64
	ttls    float64 // their standard deviation
}

// Entropies of floods: 0 is a single bin, 1 all alike.
var (
	spoofed = [numHistograms]float64{0.98, 0.95, 0.98, 0, 0, 0.8, 0.05}
	botnet  = [numHistograms]float64{0.85, 0.85, 0.95, 0, 0.1, 0.5, 0.3}
	mirrors = [numHistograms]float64{0.9, 0.9, 0, 0.9, 0.3, 0.6, 0.3}
)

// floods are the attacks that a candidate has to find as well as the live model: one
// or two of each kind that trees have a class for, as docs/detection.md describes them.
var floods = []flood{
	{name: "syn_flood, spoofed", syn: 1, bare: 1, size: 60, sources: 1, fresh: 1, entropy: spoofed, ttls: 40},
	{name: "syn_flood, botnet", syn: 1, size: 74, sources: 0.05, fresh: 0.9, entropy: botnet, ttls: 20},
	{name: "ack_flood", ack: 1, size: 60, sources: 1, fresh: 1, entropy: spoofed, ttls: 40},
	{name: "ack_flood, RST", rst: 1, size: 60, sources: 0.05, fresh: 0.9, entropy: botnet, ttls: 20},
	{name: "udp_flood, spoofed", udp: 1, size: 500, sources: 1, fresh: 1, entropy: spoofed, ttls: 40},
	{name: "udp_flood, few sources", udp: 1, size: 1000, fresh: 1, entropy: [numHistograms]float64{0.2, 0.2, 0.3, 0, 0.1, 0.2, 0.1}, ttls: 4},
	{name: "icmp_flood", icmp: 1, size: 98, sources: 0.05, fresh: 0.9, entropy: botnet, ttls: 20},
	{name: "amplification", udp: 1, reflected: 1, size: 1200, sources: 0.02, fresh: 1, entropy: mirrors, ttls: 15},
	{name: "fragment_flood", udp: 1, frag: 1, size: 1500, sources: 0.1, fresh: 1, entropy: botnet, ttls: 20},
	{name: "connection_flood", syn: 0.2, ack: 0.4, data: 0.3, size: 200, sources: 0.02, fresh: 0.9, entropy: botnet, ttls: 20},
	{name: "other protocol", size: 500, sources: 1, fresh: 1, entropy: spoofed, ttls: 40},
}

const (
	suiteRows = 8 // calm windows that each flood is put on top of
	// suiteRate is how many packets a second a target is taken to have: a learner's
	// features do not tell, and the floods are multiples of it.
	suiteRate = 1000.0
)

// suiteRatios are floods in multiples of the traffic that they come on top of.
var suiteRatios = []float64{3, 10}

// AttackSuite puts floods of every kind at 3 and 10 times the traffic on top of some
// of a learner's calm rows, in the columns of LearnedNames: what a forest that was
// trained in the shadow has to find as well as the live one. It computes what
// packets of both together would give, and so depends on nothing but the rows; what
// a row does not know stays unknown.
func AttackSuite(calm [][]float32) [][]float32 {
	var suite [][]float32
	n := min(suiteRows, len(calm))
	for i := range n {
		row := calm[i*len(calm)/n]
		for k := range floods {
			for _, ratio := range suiteRatios {
				suite = append(suite, floods[k].onTop(row, ratio))
			}
		}
	}
	return suite
}

// NotWorse says why a candidate must not replace the live forest: it finds less of
// the AttackSuite, or raises more false alarms in calm windows of the last day.
func NotWorse(c *model.Candidate) error { return c.NotWorse(AttackSuite(c.Calm)) }

// learnedAt holds the columns of LearnedNames.
var learnedAt = func() map[string]int {
	at := map[string]int{}
	for i, name := range LearnedNames() {
		at[name] = i
	}
	return at
}()

// onTop returns the row with a flood of ratio times its packets.
func (f *flood) onTop(row []float32, ratio float64) []float32 {
	m := mixture{f: f, calm: row, row: slices.Clone(row), ratio: ratio, part: ratio / (1 + ratio)}
	m.shares()
	m.rates()
	m.shapes()
	m.sources()
	return m.row
}

// mixture is a calm row that a flood is put on top of.
type mixture struct {
	f           *flood
	calm, row   []float32
	ratio, part float64 // packets of the flood to those of the row, and to all
}

func (m *mixture) get(name string) float64 { return float64(m.calm[learnedAt[name]]) }

// set leaves unknown what was, or cannot be told.
func (m *mixture) set(name string, x float64) {
	if i := learnedAt[name]; m.calm[i] == m.calm[i] {
		m.row[i] = float32(x)
	}
}

// blend is the mean of a share over all packets.
func (m *mixture) blend(calm, flood float64) float64 { return (1-m.part)*calm + m.part*flood }

func (m *mixture) shares() {
	f := m.f
	for name, share := range map[string]float64{
		"udp": f.udp, "icmp": f.icmp, "syn": f.syn, "syn_bare": f.bare, "ack": f.ack, "rst": f.rst,
		"data": f.data, "fragment": f.frag, "reflected": f.reflected,
	} {
		name += "_share_1s"
		m.set(name, m.blend(m.get(name), share))
	}
	m.set("new_source_share_1s", m.blend(m.get("new_source_share_1s"), f.fresh))
	m.set("mean_size_1s", logRate(m.blend(unlog(m.get("mean_size_1s")), f.size)))
}

// rates raises the ratios to what is normal: by as much as the flood multiplies what
// there is, whatever is normal of it.
func (m *mixture) rates() {
	f := m.f
	udp, icmp := m.known("udp_share_1s"), m.known("icmp_share_1s")
	answers := m.known("ack_share_1s") + m.known("data_share_1s")
	tcp := f.syn + f.ack + f.rst + f.data
	size := unlog(m.known("mean_size_1s"))
	for name, r := range map[string][2]float64{ // shares of the packets: of the row, of the flood
		"packets": {1, 1}, "bytes": {size, f.size}, "tcp": {max(0, 1-udp-icmp), tcp}, "udp": {udp, f.udp},
		"icmp": {icmp, f.icmp}, "syn": {m.known("syn_share_1s"), f.syn}, "answers": {answers, f.ack + f.data},
	} {
		more := logRate(suiteRate*(r[0]+m.ratio*r[1])) - logRate(suiteRate*r[0])
		for _, span := range []string{"1s", "100ms"} {
			if column := name + "_ratio_" + span; isLearned(column) {
				m.set(column, m.get(column)+more)
			}
		}
	}
	answered := suiteRate * m.ratio * (f.ack + f.data)
	now := 1 + suiteRate*answers
	before := now * math.Exp2(m.get("syn_ack_balance_1s")) // 1 + SYNs
	m.set("syn_ack_balance_1s", math.Log2((before+suiteRate*m.ratio*f.syn)/(now+answered)))
}

// known is 0 for what is unknown.
func (m *mixture) known(name string) float64 {
	if x := m.get(name); x == x {
		return x
	}
	return 0
}

func isLearned(name string) bool { _, ok := learnedAt[name]; return ok }

// shapes mixes distributions that have little in common.
func (m *mixture) shapes() {
	between := -(m.part*math.Log2(m.part) + (1-m.part)*math.Log2(1-m.part))
	for h, name := range histogramNames {
		most := math.Log2(float64(binsAt[h+1] - binsAt[h]))
		calm := m.get(name + "_entropy_1s")
		m.set(name+"_entropy_1s", min(1, m.blend(calm, m.f.entropy[h])+between/most))
		if h >= firstReference {
			apart := m.get(name + "_drift_1s")
			m.set(name+"_drift_1s", m.blend(apart, max(0.5, 1-m.f.entropy[h])))
		}
		if top := name + "_top_share_1s"; isLearned(top) {
			flood := math.Exp2(-m.f.entropy[h] * most)
			m.set(top, max((1-m.part)*m.get(top), m.part*flood))
		}
	}
	spread := m.get("ttl_spread_1s")
	m.set("ttl_spread_1s", math.Sqrt(m.blend(spread*spread, m.f.ttls*m.f.ttls)))
}

// sources counts the flood's among the row's, as far as bins can tell.
func (m *mixture) sources() {
	const bins = traffic.SourceBins
	packets := suiteRate * (1 + m.ratio)
	before := suiteRate / max(1, unlog(m.get("packets_per_source_1s")))
	after := max(before, min(before+suiteRate*m.ratio*m.f.sources, bins*math.Log(bins)))
	m.set("packets_per_source_1s", logRate(packets/after))
	m.set("sources_ratio_1s", m.get("sources_ratio_1s")+math.Log2(after/before))
}
