// SPDX-License-Identifier: Apache-2.0

package detect

import (
	"fmt"
	"math"
	"net/netip"
	"slices"

	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// The deterministic layer needs neither model nor baseline. Its thresholds:
const (
	// malformedShare of the packets, and at least the floor of them a second,
	// contradict themselves: no stack sends such packets.
	malformedShare = 0.3
	// synFloor is the least number of SYNs a second to be a flood; scanFloor that
	// of SYNs by one source each to another port or host: below it is a scan.
	synFloor  = 1000
	scanFloor = 5000
	// scanSamples of SYNs at least tell a scan.
	scanSamples = 10
	// cusumDrift is what unanswered SYNs may come to in a tick, in units of the
	// norm, before the sum rises; cusumAlarm is the sum from which they are a
	// flood, cusumMost where it stops, so that it falls again soon.
	cusumDrift = 0.5
	cusumAlarm = 1.5
	cusumMost  = 10
	cusumUnit  = 1000 // SYNs a second, the least norm
	// answerTicks is how long the answer to a SYN with options may take: clients whose
	// server is away send it again after 1 s and 3 s.
	answerTicks = 35
)

const (
	protocolTCP = 6
	protocolUDP = 17
	tcpSYN      = 2
	tcpACK      = 16
)

// findings is what the deterministic layer says of a window.
type findings struct {
	malformed, flooded bool
	reflected          bool   // reflectors' answers over the limit
	limit              string // the rate over its limit, empty if none is
	cusum              float64
}

func (f *findings) any() bool { return f.malformed || f.flooded || f.reflected || f.limit != "" }

// reasons says it in words.
func (f *findings) reasons() (list []string) {
	if f.malformed {
		list = append(list, "impossible packets")
	}
	if f.flooded {
		list = append(list, "unanswered SYNs")
	}
	if f.reflected {
		list = append(list, "reflectors' answers")
	}
	if f.limit != "" {
		list = append(list, fmt.Sprintf("%s over the target's limit", f.limit))
	}
	return list
}

// inspect applies the deterministic layer to the target observed last.
func (t *Track) inspect(s *Settings, e *excess) (f findings) {
	c := &t.x.frame.counts[spanTick]
	malformed := c.rate(cMalformed)
	f.malformed = malformed >= s.Impact.Floor && c.share(cMalformed, cPackets) >= malformedShare
	for _, limit := range []struct {
		name     string
		rate, of float64
	}{
		{"packets", e.rate[bPackets], s.Limits.Packets},
		{"bytes", e.rate[bBytes], s.Limits.Bytes},
		{"SYNs", e.rate[bSYN], s.Limits.SYN},
		{"UDP packets", e.rate[bUDP], s.Limits.UDP},
		{"ICMP packets", e.rate[bICMP], s.Limits.ICMP},
	} {
		if limit.of > 0 && limit.rate > limit.of && f.limit == "" {
			f.limit = limit.name
		}
	}
	f.reflected = t.reflected(s.Limits.Reflected)
	f.cusum = t.sumUnanswered(e)
	f.flooded = f.cusum > cusumAlarm && e.rate[bSYN] >= synFloor && (e.rate[bSYN] >= scanFloor || !t.scanned())
	return f
}

// sumUnanswered carries on the CUSUM of SYNs that nobody meant. One without
// options counts at once, for no stack sends it; any other when its answer is
// late. Both only above what is normal, and against them stands every packet
// above what is normal that may be part of a connection: each that is set up has
// one at least.
func (t *Track) sumUnanswered(e *excess) float64 {
	c := &t.x.frame.counts[spanTick]
	span := float64(t.x.span)
	perTick := span / ticksPerSecond
	bare := float64(min(c.n[cSYNNoOptions], c.n[cSYN]))
	more := max(0, bare+t.openings.due(t.last-answerTicks, t.x.span)-e.normal[bSYN]*perTick)
	norm := max(cusumUnit, e.normal[bSYN]) / ticksPerSecond
	sum := float64(t.watch.cusum) + (more-e.above[bAnswers]*perTick)/norm - cusumDrift*span
	t.watch.cusum = float32(min(cusumMost, max(0, sum)))
	if math.IsNaN(sum) {
		t.watch.cusum = 0
	}
	return float64(t.watch.cusum)
}

// openings hold the SYNs with options of the last ticks, by tick number: those that are
// due late, and some more, for windows of several ticks.
type openings [answerTicks + 13]struct {
	tick  int64
	count float32
}

// keep stores those of the ticks up to one.
func (o *openings) keep(last, span int64, c *counts) {
	count := float32(c.n[cSYN]-min(c.n[cSYN], c.n[cSYNNoOptions])) / float32(span)
	for i := range min(span, int64(len(o))) {
		at := &o[(last-i)%int64(len(o))]
		at.tick, at.count = last-i, count
	}
}

// due sums up those of the ticks up to one; what is not kept any more is none.
func (o *openings) due(last, span int64) float64 {
	sum := float32(0)
	for i := range min(span, int64(len(o))) {
		if at := &o[(last-i)%int64(len(o))]; at.tick == last-i {
			sum += at.count
		}
	}
	return float64(sum)
}

// scanned reports whether the SYNs sampled are those of a scan: of one source, each to another
// port or host.
func (t *Track) scanned() bool {
	type door struct {
		host netip.Addr
		port uint16
	}
	sources, doors, n := map[netip.Addr]int{}, map[door]bool{}, 0
	samples := t.x.frame.window.Samples
	for i := range samples {
		s := &samples[i]
		if s.Source.IsValid() && isSYN(s) {
			sources[s.Source]++
			doors[door{s.Destination, s.DestPort}] = true
			n++
		}
	}
	most := 0
	for _, of := range sources {
		most = max(most, of)
	}
	return n >= scanSamples && float64(most) >= 0.8*float64(n) && float64(len(doors)) >= 0.5*float64(n)
}

func isSYN(s *traffic.Sample) bool {
	return s.Protocol == protocolTCP && s.TCPFlags&(tcpSYN|tcpACK) == tcpSYN
}

// reflected reports whether reflectors' answers come in at that rate at least, by the samples: most
// of the UDP packets have the source port of such a service and a size that its
// usual answers do not have, or are fragments of such ones, and many servers send them.
func (t *Track) reflected(floor float64) bool {
	c := &t.x.frame.counts[spanTick]
	rate := c.rate(cUDP)
	if floor <= 0 || !(rate >= floor) || !(ratio(float64(c.reflected()), c.seconds()) >= floor/10) {
		return false
	}
	var udp, answers, rest int
	var sources [reflectors]netip.Addr
	distinct := 0
	samples := t.x.frame.window.Samples
	for i := range samples {
		s := &samples[i]
		if s.Protocol != protocolUDP {
			continue
		}
		udp++
		switch {
		case s.Fragment && s.SourcePort == 0:
			rest++
		case amplified(s):
			answers++
			if distinct < reflectors && !slices.Contains(sources[:distinct], s.Source) {
				sources[distinct] = s.Source
				distinct++
			}
		}
	}
	if answers+rest < reflectors || answers < rest/10 || distinct < reflectors {
		return false
	}
	share := float64(answers+rest) / float64(udp)
	return share >= 0.5 && share*rate >= floor
}

// reflectors is how many servers at least have to be seen.
const reflectors = 8

// amplified reports whether a datagram from a service's port is larger than what
// the service answers usually. VPNs and games have as large ones on their ports.
func amplified(s *traffic.Sample) bool {
	least, found := answerSizes[traffic.ReflectionOf(s.SourcePort)]
	return found && (s.IPLength >= least || s.Fragment)
}

// answerSizes are IP lengths that no usual answer of a service has: NTP's have 76 bytes, DNS' seldom
// more than 512. The others do not answer over the Internet at all, only in short.
var answerSizes = map[traffic.Reflection]uint16{
	traffic.ReflectionDNS:       468,
	traffic.ReflectionNTP:       200,
	traffic.ReflectionSNMP:      128,
	traffic.ReflectionCLDAP:     128,
	traffic.ReflectionSSDP:      128,
	traffic.ReflectionMemcached: 128,
	traffic.ReflectionChargen:   64,
	traffic.ReflectionRPC:       64,
}
