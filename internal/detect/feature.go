// SPDX-License-Identifier: Apache-2.0

package detect

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math"
	"slices"

	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// Vector holds the features of one target at one tick, in the order of Names.
// NaN is unknown. No feature is ever infinite.
type Vector []float32

// The spans of time that features describe.
const (
	spanTick = iota
	spanSecond
	spanTen
	numSpans
)

var spanNames = [numSpans]string{"100ms", "1s", "10s"}

// frame is what features are computed from: a target's counts and shapes over
// each span, and what is normal for it.
type frame struct {
	of     *Track // nil: of none
	window *traffic.Window
	counts [numSpans]counts

	looked  bool // whether what follows is of the present tick
	shapes  [numSpans][numHistograms]shape
	ttls    [numSpans]float64
	drift   [numSpans][numHistograms]float64 // of the tick and of the second
	normal  [numBaselines]level
	sources float64 // of the last second, log2(1 + estimated number)
	novelty bool
}

// look computes the frame of the present tick, once.
func (t *Track) look() *frame {
	f := &t.x.frame
	if f.looked {
		return f
	}
	f.looked = true
	f.novelty = t.noveltyKnown()
	t.shapes()
	t.drifts()
	for i := range f.normal {
		f.normal[i] = t.baseline.normal(i)
	}
	f.sources = 0
	if n := f.shapes[spanSecond][hSources].cardinality; n > 0 {
		f.sources = logRate(n)
	}
	return f
}

// TTLs are counted four to a bin.
const ttlWidth = 256 / traffic.TTLBins

func (t *Track) shapes() {
	f := &t.x.frame
	for h, bins := range parts(&f.window.Histograms) {
		f.shapes[spanTick][h] = shapeOf(bins, 1, 1)
		f.shapes[spanSecond][h] = t.fadeOne.shape(h)
		f.shapes[spanTen][h] = t.fadeTen.shape(h)
	}
	ttl := func(f *fading) []uint16 { return f.bins[binsAt[hTTLs]:binsAt[hTTLs+1]] }
	f.ttls = [numSpans]float64{
		spread(f.window.TTLs[:], ttlWidth), spread(ttl(&t.fadeOne), ttlWidth), spread(ttl(&t.fadeTen), ttlWidth),
	}
}

func (t *Track) drifts() {
	f := &t.x.frame
	known := t.reference.learned >= referenceKnown
	for h, bins := range parts(&f.window.Histograms) {
		f.drift[spanTick][h], f.drift[spanSecond][h] = math.NaN(), math.NaN()
		if h >= firstReference && known {
			calm := t.reference.of(h)
			f.drift[spanTick][h] = distance(calm, bins)
			f.drift[spanSecond][h] = distance(calm, t.fadeOne.bins[binsAt[h]:binsAt[h+1]])
		}
	}
}

// feature is one number of a vector and what it means.
type feature struct {
	name, meaning, unit, span string
	value                     func(f *frame) float64
}

// definitions is the one list of features. A change of it changes the schema
// hash: models trained before are refused.
var definitions = slices.Concat(
	prototypeFeatures(), spanFeatures(spanTick), spanFeatures(spanSecond), spanFeatures(spanTen), historyFeatures())

// spanFeatures are those that every span has.
func spanFeatures(span int) []feature {
	var list []feature
	for _, part := range [][]feature{rateFeatures(span), shareFeatures(span), shapeFeatures(span), balanceFeatures(span)} {
		list = append(list, part...)
	}
	for i := range list {
		list[i].name += "_" + spanNames[span]
		list[i].span = spanNames[span]
	}
	return list
}

const logUnit = "log2(1 + 1/s)"

func rateFeatures(span int) []feature {
	list := []feature{{name: "bytes", meaning: "bytes on the wire", unit: "log2(1 + byte/s)", value: func(f *frame) float64 {
		c := &f.counts[span]
		return logRate(ratio(float64(c.bytes), c.seconds()))
	}}}
	for _, r := range []struct {
		name, meaning string
		counter       int
	}{
		{"packets", "packets", cPackets},
		{"tcp", "TCP packets", cTCP},
		{"udp", "UDP packets", cUDP},
		{"icmp", "ICMP and ICMPv6 packets", cICMP},
		{"other", "packets of other protocols", cOther},
		{"syn", "SYNs without ACK", cSYN},
		{"syn_ack", "SYN-ACKs", cSYNACK},
		{"ack", "bare ACKs: no data, no other flag", cACK},
		{"rst", "RSTs", cRST},
		{"data", "TCP packets with data, without SYN", cData},
		{"fragments", "fragments", cFragments},
	} {
		list = append(list, feature{
			name: r.name, meaning: r.meaning, unit: logUnit,
			value: func(f *frame) float64 { return logRate(f.counts[span].rate(r.counter)) },
		})
	}
	return append(list, feature{
		name: "reflected", meaning: "UDP packets from the source ports of reflectors", unit: logUnit,
		value: func(f *frame) float64 {
			c := &f.counts[span]
			return logRate(ratio(float64(c.reflected()), c.seconds()))
		},
	})
}

func shareFeatures(span int) []feature {
	var list []feature
	for _, s := range []struct {
		name, meaning string
		counter, of   int
	}{
		{"tcp", "TCP packets", cTCP, cPackets},
		{"udp", "UDP packets", cUDP, cPackets},
		{"icmp", "ICMP packets", cICMP, cPackets},
		{"other", "packets of other protocols", cOther, cPackets},
		{"syn", "SYNs", cSYN, cPackets},
		{"syn_bare", "SYNs without TCP options", cSYNNoOptions, cPackets},
		{"bare_of_syn", "of the SYNs, those without TCP options", cSYNNoOptions, cSYN},
		{"syn_ack", "SYN-ACKs", cSYNACK, cPackets},
		{"ack", "bare ACKs", cACK, cPackets},
		{"rst", "RSTs", cRST, cPackets},
		{"fin", "FINs", cFIN, cPackets},
		{"data", "TCP packets with data, without SYN", cData, cPackets},
		{"fragment", "fragments", cFragments, cPackets},
		{"malformed", "packets with an anomaly", cMalformed, cPackets},
	} {
		list = append(list, feature{
			name: s.name + "_share", meaning: "share: " + s.meaning, unit: "0…1",
			value: func(f *frame) float64 { return f.counts[span].share(s.counter, s.of) },
		})
	}
	edges := append([]uint32{0}, traffic.SizeEdges[:]...)
	for i, from := range edges {
		list = append(list, feature{
			name: fmt.Sprintf("size_%d_share", from), unit: "0…1",
			meaning: fmt.Sprintf("share: IP packets in the size class from %d bytes on", from),
			value:   func(f *frame) float64 { return f.counts[span].share(cSizes+i, cPackets) },
		})
	}
	return append(list, reflectionFeatures(span)...)
}

func reflectionFeatures(span int) []feature {
	return []feature{{
		name: "reflected_share", meaning: "share: UDP packets from the source ports of reflectors", unit: "0…1",
		value: func(f *frame) float64 {
			return ratio(float64(f.counts[span].reflected()), float64(f.counts[span].n[cPackets]))
		},
	}, {
		name: "reflected_top_share", meaning: "share: packets of the most frequent reflector service", unit: "0…1",
		value: func(f *frame) float64 {
			c := &f.counts[span]
			most := slices.Max(c.n[cReflections+int(traffic.ReflectionDNS):])
			return ratio(float64(most), float64(c.n[cPackets]))
		},
	}, {
		name: "mean_size", meaning: "mean packet size", unit: "log2(1 + byte)",
		value: func(f *frame) float64 {
			return logRate(ratio(float64(f.counts[span].bytes), float64(f.counts[span].n[cPackets])))
		},
	}}
}

func shapeFeatures(span int) []feature {
	var list []feature
	for h, name := range histogramNames {
		subject := histogramSubjects[h]
		list = append(list, feature{
			name: name + "_entropy", meaning: "entropy of the " + subject + ", of the greatest possible", unit: "0…1",
			value: func(f *frame) float64 { return f.shapes[span][h].entropy },
		}, feature{
			name: name + "_top_share", meaning: "share of the fullest bin of the " + subject, unit: "0…1",
			value: func(f *frame) float64 { return f.shapes[span][h].top },
		}, feature{
			name: name + "_count", meaning: "number of different " + subject + ", by linear counting", unit: "log2(1 + number)",
			value: func(f *frame) float64 { return logRate(f.shapes[span][h].cardinality) },
		})
	}
	return append(list, feature{
		name: "ttl_spread", meaning: "standard deviation of the TTL", unit: "hops",
		value: func(f *frame) float64 { return f.ttls[span] },
	}, feature{
		name: "packets_per_source", meaning: "packets per different source", unit: "log2(1 + number)",
		value: func(f *frame) float64 {
			return logRate(ratio(float64(f.counts[span].n[cPackets]), f.shapes[span][hSources].cardinality))
		},
	})
}

func balanceFeatures(span int) []feature {
	fresh := func(counter int) func(f *frame) float64 {
		return func(f *frame) float64 {
			if !f.novelty {
				return math.NaN()
			}
			return f.counts[span].share(counter, cSampled)
		}
	}
	return []feature{{
		name: "new_source_share", meaning: "share of samples: sources not seen in calm times of the last 10 min", unit: "0…1",
		value: fresh(cFresh),
	}, {
		name: "new_net_share", meaning: "share of samples: sources whose /24 or /48 was not seen either", unit: "0…1",
		value: fresh(cFreshNets),
	}, {
		name: "syn_ack_balance", unit: "log2",
		meaning: "SYNs to ACKs, data and FINs, each plus one; 0 is balance, above are unanswered SYNs",
		value: func(f *frame) float64 {
			c := &f.counts[span]
			if c.n[cTCP] == 0 {
				return math.NaN()
			}
			return math.Log2((1 + float64(c.n[cSYN])) / (1 + float64(c.answers())))
		},
	}}
}

// baselineRate returns the rate that a level of the baseline is compared with.
func baselineRate(f *frame, span, i int) float64 {
	c := &f.counts[span]
	n := [numBaselines]uint64{
		bPackets: c.n[cPackets], bBytes: c.bytes, bTCP: c.n[cTCP], bUDP: c.n[cUDP],
		bICMP: c.n[cICMP], bSYN: c.n[cSYN], bAnswers: c.answers(),
	}[i]
	return ratio(float64(n), c.seconds())
}

// historyFeatures compare the present with the target's past.
func historyFeatures() []feature {
	var list []feature
	for _, span := range []int{spanTick, spanSecond} {
		for i, name := range baselineNames[:bSources] {
			list = append(list, feature{
				name: name + "_ratio_" + spanNames[span], span: spanNames[span], unit: "log2",
				meaning: name + " to what is normal for the target at this hour",
				value:   func(f *frame) float64 { return logRate(baselineRate(f, span, i)) - f.normal[i].centre },
			})
		}
		for h := firstReference; h < numHistograms; h++ {
			list = append(list, feature{
				name: histogramNames[h] + "_drift_" + spanNames[span], span: spanNames[span], unit: "0…1",
				meaning: "how far the " + histogramSubjects[h] + " are distributed otherwise than in calm times",
				value:   func(f *frame) float64 { return f.drift[span][h] },
			})
		}
	}
	list = append(list, feature{
		name: "sources_ratio_1s", span: "1s", unit: "log2", meaning: "number of sources to what is normal for the target at this hour",
		value: func(f *frame) float64 { return f.sources - f.normal[bSources].centre },
	}, feature{
		name: "packets_deviation_1s", span: "1s", unit: "deviations",
		meaning: "packets above what is normal, in robust deviations, at most 100",
		value: func(f *frame) float64 {
			above := logRate(baselineRate(f, spanSecond, bPackets)) - f.normal[bPackets].centre
			return min(100, max(-100, above/max(0.05, f.normal[bPackets].spread)))
		},
	})
	for _, i := range []int{bPackets, bBytes, bTCP, bUDP, bICMP, bSYN} {
		list = append(list, feature{
			name: baselineNames[i] + "_rise", span: "100ms to 10s", unit: "log2",
			meaning: baselineNames[i] + " of the tick to those of the last 10 s",
			value: func(f *frame) float64 {
				return logRate(baselineRate(f, spanTick, i)) - logRate(baselineRate(f, spanTen, i))
			},
		})
	}
	return list
}

// prototypeFeatures are the six that the prototype's models have, by its names.
func prototypeFeatures() []feature {
	const span = spanSecond
	list := []feature{
		{name: "pkt_rate", meaning: "packets", unit: "1/s", value: func(f *frame) float64 { return f.counts[span].rate(cPackets) }},
		{name: "unique_src_ips", meaning: "estimated number of sources", unit: "number", value: func(f *frame) float64 {
			return f.shapes[span][hSources].cardinality
		}},
		{name: "proto_entropy", meaning: "entropy of TCP, UDP, ICMP, other", unit: "bit", value: func(f *frame) float64 {
			return protocolEntropy(&f.counts[span])
		}},
		{name: "port_entropy", meaning: "entropy of the destination ports, of the greatest possible", unit: "0…1", value: func(f *frame) float64 {
			return f.shapes[span][hDestPorts].entropy
		}},
		{name: "byte_rate", meaning: "bytes on the wire", unit: "byte/s", value: func(f *frame) float64 {
			return ratio(float64(f.counts[span].bytes), f.counts[span].seconds())
		}},
		{name: "syn_ratio", meaning: "share of SYNs in all packets", unit: "0…1", value: func(f *frame) float64 {
			return f.counts[span].share(cSYN, cPackets)
		}},
	}
	for i := range list {
		list[i].span = spanNames[span]
	}
	return list
}

func protocolEntropy(c *counts) float64 {
	h := 0.0
	if c.n[cPackets] == 0 {
		return math.NaN()
	}
	for _, i := range []int{cTCP, cUDP, cICMP, cOther} {
		if p := c.share(i, cPackets); p > 0 {
			h -= p * math.Log2(p)
		}
	}
	return h
}

// Features fills v, which must have the length of Names, with the features of
// the target that was observed last.
func (t *Track) Features(v Vector) {
	f := t.look()
	for i := range definitions {
		v[i] = float32(definitions[i].value(f))
	}
}

// NumFeatures returns the length of a vector.
func NumFeatures() int { return len(definitions) }

// Names returns the features' names in the order of a vector.
func Names() []string {
	names := make([]string, len(definitions))
	for i := range definitions {
		names[i] = definitions[i].name
	}
	return names
}

// Index returns the place of a feature in a vector, −1 for an unknown name.
func Index(name string) int {
	return slices.IndexFunc(definitions, func(f feature) bool { return f.name == name })
}

// PrototypeNames returns the features of the prototype's models, in their order.
func PrototypeNames() []string {
	return []string{"pkt_rate", "unique_src_ips", "proto_entropy", "port_entropy", "byte_rate", "syn_ratio"}
}

// SchemaHash identifies the list of names and its order, as a model's schema
// does. A feature whose meaning changes gets another name.
func SchemaHash() string {
	sum := sha256.New()
	for _, f := range definitions {
		sum.Write(append([]byte(f.name), 0))
	}
	return hex.EncodeToString(sum.Sum(nil))
}
