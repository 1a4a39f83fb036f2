// SPDX-License-Identifier: Apache-2.0

package scene

import (
	"cmp"
	"encoding/binary"
	"iter"
	"net/netip"
	"slices"
	"time"

	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// CounterOptions say what windows are made of.
type CounterOptions struct {
	Targets []traffic.Target // those that windows are wanted of
	Seeds   traffic.Seeds
	Start   time.Time // of the scene
	Length  time.Duration
	Lapse   Lapse // of the stream: skipped time has no windows
	Samples int   // of each target and tick, at most; 0: none
}

// Windows counts a stream into windows of one traffic.Tick, in plain Go, as the packet path does with all
// packets passed, no tunnels, and every packet in the histograms. It yields one window a target
// and tick, empty ones too, in the order of time and, within a tick, of the targets; beside it, how many of its packets
// are part of an attack. A window is valid until its target's next.
func Windows(s Stream, o CounterOptions) iter.Seq2[*traffic.Window, uint64] {
	return newCounter(o).windows(s, 0, o)
}

// windows counts what a stream has from a time on.
func (c *counter) windows(s Stream, from time.Duration, o CounterOptions) iter.Seq2[*traffic.Window, uint64] {
	return func(yield func(*traffic.Window, uint64) bool) {
		var p Packet
		more := s.Next(&p)
		for at := from; at+traffic.Tick <= o.Length; at += traffic.Tick {
			if o.Lapse.Skips(at) {
				at += o.Lapse.Period - o.Lapse.Play - traffic.Tick
				continue
			}
			c.begin(at)
			for ; more && p.Time < at+traffic.Tick; more = s.Next(&p) {
				if p.Time >= at {
					c.add(&p)
				}
			}
			for i := range c.watched {
				w := &c.watched[i]
				w.finish()
				if !yield(&w.Window, w.attack) {
					return
				}
			}
		}
	}
}

// counter counts the packets of a tick.
type counter struct {
	seeds    traffic.Seeds
	start    time.Time
	watched  []watched
	hosts    map[address]*watched
	networks map[address]*watched
	all      *watched
	rng      rng
	fields   fields
	bins     bins
	frame    []byte
	at       time.Duration
}

// watched is a target with its window.
type watched struct {
	traffic.Window
	attack  uint64
	limit   int
	headers []byte
}

// bins are where a packet is counted in every histogram, the same for each of its targets.
type bins struct{ source, net, sport, dport, length, ttl, print int }

func newCounter(o CounterOptions) *counter {
	c := &counter{
		seeds: o.Seeds, start: o.Start, rng: newRNG(o.Seeds.Source, "samples"),
		watched: make([]watched, len(o.Targets)),
		hosts:   map[address]*watched{}, networks: map[address]*watched{},
	}
	for i, t := range o.Targets {
		w := &c.watched[i]
		w.Target, w.Length, w.limit = t, traffic.Tick, o.Samples
		w.headers = make([]byte, o.Samples*traffic.SampleBytes)
		switch t.Scope {
		case traffic.TargetHost:
			c.hosts[addressOf(t.Prefix.Addr())] = w
		case traffic.TargetNetwork:
			c.networks[addressOf(t.Prefix.Addr()).network()] = w
		default:
			c.all = w
		}
	}
	return c
}

// network returns the address with only the bits of its /24 or /48.
func (a address) network() address {
	if a.six {
		return address{hi: a.hi &^ 0xffff, six: true}
	}
	return address{lo: a.lo &^ 0xff}
}

func (a address) netip() netip.Addr {
	if !a.six {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], uint32(a.lo))
		return netip.AddrFrom4(b)
	}
	var b [16]byte
	a.put(b[:])
	return netip.AddrFrom16(b)
}

func (c *counter) begin(at time.Duration) {
	for i := range c.watched {
		w := &c.watched[i]
		w.Tally, w.Histograms = traffic.Tally{}, traffic.Histograms{}
		w.Start, w.Samples, w.attack = c.start.Add(at), w.Samples[:0], 0
	}
}

func (c *counter) add(p *Packet) {
	f := &c.fields
	f.parse(p.Frame)
	if !f.ok {
		return
	}
	host, network := c.hosts[f.dst], c.networks[f.dst.network()]
	if host == nil && network == nil && c.all == nil {
		return
	}
	c.frame, c.at = p.Frame, p.Time
	c.place()
	for _, w := range [...]*watched{host, network, c.all} {
		if w == nil {
			continue
		}
		w.attack += bit(p.Attack, 0)
		c.tally(&w.Tally)
		c.count(&w.Histograms)
		if w.limit > 0 {
			c.sample(w)
		}
	}
}

func (c *counter) place() {
	f, s := &c.fields, &c.seeds
	source, net := f.src.lo, f.src.lo>>8
	if f.src.six {
		source, net = f.src.hi, f.src.hi>>16
	}
	print := traffic.Fingerprint{
		Protocol: f.protocol, TCPFlags: f.flags, DataOffset: f.dataOffset, Window: f.window,
		Size: traffic.SizeClassOf(f.length), TTL: f.ttl, DF: f.df, Fragment: f.fragment,
	}
	c.bins = bins{
		traffic.Bin(s.Source, source, traffic.SourceBins),
		traffic.Bin(s.SourceNet, net, traffic.SourceNetBins),
		traffic.Bin(s.SourcePort, uint64(f.sport), traffic.SourcePortBins),
		traffic.Bin(s.DestPort, uint64(f.dport), traffic.DestPortBins),
		traffic.LengthBin(f.length), traffic.TTLBin(f.ttl),
		traffic.Bin(s.Fingerprint, print.Word(), traffic.FingerprintBins),
	}
}

func (c *counter) count(h *traffic.Histograms) {
	b := &c.bins
	h.Counted++
	h.Sources[b.source]++
	h.SourceNets[b.net]++
	if c.fields.ports {
		h.SourcePorts[b.sport]++
		h.DestPorts[b.dport]++
	}
	h.Lengths[b.length]++
	h.TTLs[b.ttl]++
	h.Fingerprints[b.print]++
}

func (c *counter) tally(t *traffic.Tally) {
	f := &c.fields
	t.Packets++
	t.Bytes += uint64(len(c.frame))
	t.Fragments += bit(f.fragment > 0, 0)
	t.Malformed += bit(f.wrong, 0)
	t.Sizes[traffic.SizeClassOf(f.length)]++
	switch f.protocol {
	case protoTCP:
		t.TCP++
		f.tallyTCP(t)
	case protoUDP:
		t.UDP++
		service := traffic.ReflectionNone
		if f.ports {
			service = traffic.ReflectionOf(f.sport)
		}
		t.Reflections[service]++
	case protoICMP, protoICMPv6:
		t.ICMP++
	default:
		t.Other++
	}
}

// tallyTCP counts what only a packet with a TCP header has.
func (f *fields) tallyTCP(t *traffic.Tally) {
	switch f.flags & (flagSYN | flagACK) {
	case flagSYN:
		t.SYN++
		t.SYNNoOptions += bit(f.dataOffset == 5, 0)
	case flagSYN | flagACK:
		t.SYNACK++
	case flagACK:
		t.ACK += bit(f.flags&(flagFIN|flagRST) == 0 && f.data <= 0, 0)
	}
	t.RST += bit(f.flags&flagRST != 0, 0)
	t.FIN += bit(f.flags&flagFIN != 0, 0)
	t.TCPData += bit(f.data > 0 && f.flags&flagSYN == 0, 0)
}

// sample keeps each of a tick's packets with the same probability.
func (c *counter) sample(w *watched) {
	i := len(w.Samples)
	if i < w.limit {
		w.Samples = append(w.Samples, traffic.Sample{})
	} else if i = c.rng.intn(int(w.Packets)); i >= w.limit {
		return
	}
	f := &c.fields
	kept := w.headers[i*traffic.SampleBytes:][:traffic.SampleBytes]
	w.Samples[i] = traffic.Sample{
		Time: c.start.Add(c.at), Reason: traffic.ReasonPass, Outcome: traffic.Passed,
		Length: uint32(len(c.frame)), Source: f.src.netip(), Destination: f.dst.netip(),
		SourcePort: f.sport, DestPort: f.dport, Protocol: f.protocol, TCPFlags: f.flags,
		TTL: f.ttl, DataOffset: f.dataOffset, IPLength: uint16(min(f.length, 65535)), TCPWindow: f.window,
		Fragment: f.fragment > 0, DF: f.df, Header: kept[:copy(kept, c.frame)],
	}
}

// finish puts the samples in the order of arrival.
func (w *watched) finish() {
	byTime := func(a, b traffic.Sample) int { return cmp.Compare(a.Time.UnixNano(), b.Time.UnixNano()) }
	if !slices.IsSortedFunc(w.Samples, byTime) { // they are, unless some were replaced
		slices.SortStableFunc(w.Samples, byTime)
	}
}
