// SPDX-License-Identifier: Apache-2.0

package detect

import (
	"math"
	"sync"

	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// The histograms of a window, one behind the other in a row of bins.
const (
	hSources = iota
	hSourceNets
	hSourcePorts
	hDestPorts
	hLengths
	hTTLs
	hFingerprints
	numHistograms
)

var histogramNames = [numHistograms]string{
	"source", "source_net", "source_port", "dest_port", "length", "ttl", "fingerprint",
}

var histogramSubjects = [numHistograms]string{
	"source addresses", "source /24s and /48s", "source ports", "destination ports",
	"IP lengths", "TTLs", "header fingerprints",
}

// binsAt holds where each histogram begins in the row.
var binsAt = [numHistograms + 1]int{
	0,
	traffic.SourceBins,
	traffic.SourceBins + traffic.SourceNetBins,
	traffic.SourceBins + traffic.SourceNetBins + traffic.SourcePortBins,
	traffic.SourceBins + traffic.SourceNetBins + traffic.SourcePortBins + traffic.DestPortBins,
	traffic.SourceBins + traffic.SourceNetBins + traffic.SourcePortBins + traffic.DestPortBins + traffic.LengthBins,
	numBins - traffic.FingerprintBins,
	numBins,
}

const numBins = traffic.SourceBins + traffic.SourceNetBins + traffic.SourcePortBins + traffic.DestPortBins +
	traffic.LengthBins + traffic.TTLBins + traffic.FingerprintBins

func parts(h *traffic.Histograms) [numHistograms][]uint32 {
	return [numHistograms][]uint32{
		h.Sources[:], h.SourceNets[:], h.SourcePorts[:], h.DestPorts[:],
		h.Lengths[:], h.TTLs[:], h.Fingerprints[:],
	}
}

// onePacket is what a packet adds to a fading bin of scale 0.
const onePacket = 16

// fading is the histograms of a longer span: what was there is multiplied by
// 0.9 in each step. A step is a tick for the second, a second for ten. Bins are
// small whole numbers with a common scale, so that a target takes 1.5 KiB and
// every machine computes the same.
type fading struct {
	bins  [numBins]uint16 // packets × onePacket >> scale
	scale uint8
	used  bool // some bin is not 0
}

func (f *fading) add(h *traffic.Histograms) {
	for i, part := range parts(h) {
		at := binsAt[i]
		for j, n := range part {
			if n != 0 {
				f.addBin(at+j, n)
			}
		}
	}
}

func (f *fading) addBin(i int, n uint32) {
	for {
		sum := uint64(f.bins[i]) + uint64(n)*onePacket>>f.scale
		if sum <= math.MaxUint16 {
			f.bins[i], f.used = uint16(sum), true
			return
		}
		f.scale++
		for j := range f.bins {
			f.bins[j] >>= 1
		}
	}
}

// fade takes a step.
func (f *fading) fade() {
	if !f.used { // most targets are silent most of the time
		return
	}
	var all uint16
	for i, n := range f.bins {
		n = uint16(uint32(n) * 9 / 10)
		f.bins[i] = n
		all |= n
	}
	f.used = all != 0
	for f.scale > 0 && all < 1<<14 { // room for one more bit
		f.scale--
		all <<= 1
		for i := range f.bins {
			f.bins[i] <<= 1
		}
	}
}

// fadeSteps takes many steps; after 200 nothing is left of any number.
func (f *fading) fadeSteps(k int64) {
	if k >= 200 {
		*f = fading{}
		return
	}
	for range k {
		f.fade()
	}
}

// shape is what is told of one histogram.
type shape struct {
	entropy     float64 // of the greatest possible one, 0…1
	top         float64 // share of the fullest bin
	cardinality float64 // estimated number of values
}

// xlogx returns n·log2(n) of small numbers, from a table.
var xlogx = sync.OnceValue(func() *[math.MaxUint16 + 1]float32 {
	var table [math.MaxUint16 + 1]float32
	for n := 1; n < len(table); n++ {
		table[n] = float32(float64(n) * math.Log2(float64(n)))
	}
	return &table
})

// shapeOf sums up bins. A bin holds a value if it has at least `present`;
// packets is what the sum of the bins stands for, per unit.
func shapeOf[N uint16 | uint32](bins []N, present N, unit float64) shape {
	table := xlogx()
	var sum, most uint64
	var logs float64
	used := 0
	for _, n := range bins {
		if n == 0 {
			continue
		}
		sum += uint64(n)
		most = max(most, uint64(n))
		if n >= present {
			used++
		}
		if uint64(n) < uint64(len(table)) {
			logs += float64(table[n])
		} else {
			logs += float64(n) * math.Log2(float64(n))
		}
	}
	if sum == 0 {
		return shape{math.NaN(), math.NaN(), math.NaN()}
	}
	total := float64(sum)
	s := shape{math.NaN(), float64(most) / total, linearCount(used, len(bins))}
	if possible := min(float64(len(bins)), math.Floor(total*unit)); possible >= 2 {
		s.entropy = min(1, max(0, (math.Log2(total)-logs/total)/math.Log2(possible)))
	}
	return s
}

// linearCount estimates how many values fell into bins of which used are not
// empty. With none empty the estimate stops, as if half a bin were.
func linearCount(used, bins int) float64 {
	empty := max(0.5, float64(bins-used))
	return float64(bins) * math.Log(float64(bins)/empty)
}

func (f *fading) shape(h int) shape {
	bins := f.bins[binsAt[h]:binsAt[h+1]]
	present := uint16(onePacket / 2)
	if f.scale > 0 {
		present = 1
	}
	return shapeOf(bins, present, math.Ldexp(1.0/onePacket, int(f.scale)))
}

// spread returns the standard deviation of what the bins stand for, width apart.
func spread[N uint16 | uint32](bins []N, width float64) float64 {
	var n, sum, squares float64
	for i, c := range bins {
		x := float64(i)
		n += float64(c)
		sum += x * float64(c)
		squares += x * x * float64(c)
	}
	if n == 0 {
		return math.NaN()
	}
	mean := sum / n
	return width * math.Sqrt(max(0, squares/n-mean*mean))
}

// reference is how a target's packets are distributed in calm times: what
// lasts of histograms, addresses left out. Bins are shares, 65535 in all.
type reference struct {
	bins    [numReferenceBins]uint16
	learned uint16 // steps, stops at the greatest value
}

const (
	firstReference   = hSourcePorts
	numReferences    = numHistograms - firstReference
	numReferenceBins = numBins - traffic.SourceBins - traffic.SourceNetBins
	// referenceKnown is the number of calm seconds a reference takes to be used,
	// referenceMemory that over which it forgets.
	referenceKnown  = 60
	referenceMemory = 64
)

// learn moves the reference towards the last second.
func (r *reference) learn(f *fading) {
	weight := int64(min(int(r.learned)+1, referenceMemory))
	for h := firstReference; h < numHistograms; h++ {
		bins := f.bins[binsAt[h]:binsAt[h+1]]
		total := sum(bins)
		if total == 0 {
			continue
		}
		mine := r.of(h)
		for i, n := range bins {
			now := int64(uint64(n) * math.MaxUint16 / total)
			mine[i] += uint16((now - int64(mine[i])) / weight) // wraps around for a fall
		}
	}
	if r.learned < math.MaxUint16 {
		r.learned++
	}
}

func (r *reference) of(h int) []uint16 {
	at := binsAt[firstReference]
	return r.bins[binsAt[h]-at : binsAt[h+1]-at]
}

func sum[N uint16 | uint32](bins []N) uint64 {
	var total uint64
	for _, n := range bins {
		total += uint64(n)
	}
	return total
}

// distance returns the share of the packets in bins that would have to be
// others for the distribution to be as ever: total variation, 0…1.
func distance[N uint16 | uint32](calm []uint16, bins []N) float64 {
	total, known := sum(bins), sum(calm)
	if total == 0 || known == 0 {
		return math.NaN()
	}
	var apart float64
	a, b := 1/float64(total), 1/float64(known)
	for i, n := range bins {
		apart += math.Abs(float64(n)*a - float64(calm[i])*b)
	}
	return min(1, apart/2)
}
