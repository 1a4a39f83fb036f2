// SPDX-License-Identifier: Apache-2.0

package scene

import "time"

// vector makes the packets of one kind of flood: it fills in everything but the destination
// address, which is there already and tells the family. true: the packet has a continuation (fragments of one datagram), which
// the next call makes.
type vector func(r *rng, h *header) bool

// pace is how packets follow each other.
type pace uint8

const (
	paceRandom  pace = iota // Poisson
	paceRegular             // evenly, with jitter
	paceBursts              // tools' bursts: some at once, then a pause
	numPaces
)

// flood is a stream of packets that no flow holds together.
type flood struct {
	builder builder
	header  header
	rng     rng
	vectors []vector
	weights []float64 // of the vectors' packets; nil: equal
	target  func(*rng) address
	rate    float64 // packets a second at the top of the shape
	shape   func(time.Duration) float64
	from    int64
	end     int64
	pace    pace
	lapse   Lapse
	attack  bool

	at    int64
	burst int
	going int // index of the vector with a continuation; -1: none
	extra int // packets that were continuations since the last gap: they count for the rate
}

func (f *flood) begin() *flood {
	f.at, f.going = f.from, -1
	if f.pace != paceRegular {
		f.at += f.gap()
	}
	return f
}

// gap draws the time to the next packet at full rate.
func (f *flood) gap() int64 {
	mean := 1e9 / f.rate
	switch f.pace {
	case paceRegular:
		return int64(mean * f.rng.uniform(.8, 1.2))
	case paceBursts:
		if f.burst--; f.burst > 0 {
			return 800
		}
		f.burst = f.rng.between(2, 64)
		return int64(mean * float64(f.burst))
	}
	return int64(mean * f.rng.exp())
}

// Next yields the next packet that the shape lets through.
func (f *flood) Next(p *Packet) bool {
	if f.going >= 0 {
		f.at += int64(1000 + f.rng.intn(8000))
		f.extra++
	}
	for f.going < 0 {
		f.at += 1 + f.gap()
		for ; f.extra > 0; f.extra-- {
			f.at += f.gap()
		}
		if f.at >= f.end {
			return false
		}
		if f.shape == nil || f.rng.float() < f.shape(time.Duration(f.at-f.from)) {
			break
		}
	}
	i := max(f.going, 0)
	if f.going < 0 {
		i = f.choose()
		f.header = header{dst: f.target(&f.rng)}
		f.header.src.six = f.header.dst.six
	}
	f.going = -1
	if f.vectors[i](&f.rng, &f.header) {
		f.going = i
	}
	p.Time, p.Attack = time.Duration(f.lapse.clock(f.at)), f.attack
	p.Frame = f.builder.build(&f.header)
	return true
}

func (f *flood) choose() int {
	if len(f.vectors) == 1 {
		return 0
	}
	if f.weights == nil {
		return f.rng.intn(len(f.vectors))
	}
	u := f.rng.float()
	for i, w := range f.weights {
		if u -= w; u < 0 {
			return i
		}
	}
	return len(f.weights) - 1
}

// What arrives at every address of the Internet: scans, answers to packets that others sent in its
// name, pings.

// anywhere is any public address, at its distance.
func anywhere(r *rng, h *header, initial uint8) {
	if h.dst.six {
		h.src = random6(r)
	} else {
		h.src = address{lo: unicast4(r.next())}
	}
	h.ttl = initial - uint8(r.between(6, 24))
	h.id = uint32(r.next())
}

var scannedPorts = []uint16{22, 23, 80, 443, 445, 1433, 3306, 3389, 5060, 5432, 6379, 8080, 8443, 9200}

func noiseScan(r *rng, h *header) bool {
	anywhere(r, h, pick[uint8](r, 64, 128, 255))
	h.protocol, h.flags, h.seq = protoTCP, flagSYN, uint32(r.next())
	h.sport, h.dport = uint16(r.between(1024, 65535)), pick(r, scannedPorts...)
	if r.chance(.3) {
		h.dport = uint16(r.next())
	}
	h.dataOffset, h.window = 5, pick[uint16](r, 1024, 65535, 14600, 1200)
	if r.chance(.4) {
		h.dataOffset, h.window, h.df = pick[uint8](r, 6, 10, 8), pick[uint16](r, 64240, 29200, 65535), true
	}
	return false
}

func noiseUDP(r *rng, h *header) bool {
	anywhere(r, h, pick[uint8](r, 64, 128, 255))
	h.protocol, h.length = protoUDP, r.between(30, 120)
	h.sport, h.dport = uint16(r.between(1024, 65535)), pick[uint16](r, 53, 123, 161, 389, 1900, 5060, 11211, 5683)
	h.fill = r.intn(fillers) &^ 1
	return false
}

func noisePing(r *rng, h *header) bool {
	anywhere(r, h, pick[uint8](r, 64, 64, 128))
	h.protocol, h.kind = protoICMP, 8
	h.length = pick(r, 28, 60, 84, 84)
	if h.dst.six {
		h.protocol, h.kind = protoICMPv6, 128
		h.length += 20
	}
	h.sport, h.dport = uint16(r.next()), uint16(r.intn(100))
	h.fill = r.intn(fillers) &^ 1
	return false
}

// noiseStray is an answer to what somebody sent under the target's address.
func noiseStray(r *rng, h *header) bool {
	anywhere(r, h, pick[uint8](r, 64, 128))
	h.protocol, h.dataOffset = protoTCP, 5
	h.flags, h.ack = flagRST|flagACK, uint32(r.next())
	h.sport, h.dport = pick(r, scannedPorts...), uint16(r.next())
	if r.chance(.4) {
		h.flags, h.dataOffset, h.window, h.seq = flagSYN|flagACK, 6, 29200, uint32(r.next())
	}
	return false
}

// largeDatagram is a whole datagram that does not fit one packet: certificates, big answers, long messages.
func largeDatagram(from senders) vector {
	ports := []uint16{53, 500, 4500, 5060, 40000}
	return func(r *rng, h *header) bool {
		if h.whole > 0 {
			return continueDatagram(h)
		}
		from(r, h)
		h.protocol, h.sport, h.dport = protoUDP, pick(r, ports...), uint16(r.between(1024, 65535))
		h.fill = r.intn(fillers/2) &^ 1
		h.whole, h.more, h.length = r.between(1600, 3900), true, maxIP
		return true
	}
}
