// SPDX-License-Identifier: Apache-2.0

package detect

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// epoch is when simulations begin: a Sunday, 00:00 UTC.
var epoch = time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)

var (
	victim   = traffic.HostTarget(netip.MustParseAddr("192.0.2.10"))
	victims  = traffic.NetworkTarget(netip.MustParseAddr("192.0.2.10"))
	allHosts = traffic.Target{Scope: traffic.TargetInterface}
)

// TCP flags.
const (
	fin = 1 << iota
	syn
	rst
	psh
	ack
)

// packet is what a window counts of one.
type packet struct {
	source, to  netip.Addr
	sport       uint16
	dport       uint16
	proto       uint8
	flags       uint8
	offset      uint8 // TCP data offset, words
	length      uint32
	ttl         uint8
	tcpWindow   uint16
	fragment    bool
	malformed   bool
	hasTCPBytes bool
}

// count adds p to w.
func (p *packet) count(w *traffic.Window) {
	w.Packets++
	w.Bytes += uint64(p.length) + 14
	switch p.proto {
	case 6:
		p.countTCP(w)
	case 17:
		w.UDP++
		w.Reflections[traffic.ReflectionOf(p.sport)]++
	case 1:
		w.ICMP++
	default:
		w.Other++
	}
	if p.fragment {
		w.Fragments++
	}
	if p.malformed {
		w.Malformed++
	}
	w.Sizes[traffic.SizeClassOf(p.length)]++
	p.countBins(&w.Histograms)
	if len(w.Samples) < 500 {
		w.Samples = append(w.Samples, traffic.Sample{
			Source: p.source, Destination: p.to, SourcePort: p.sport, DestPort: p.dport, Protocol: p.proto,
			TCPFlags: p.flags, DataOffset: p.offset, IPLength: uint16(p.length), Fragment: p.fragment,
		})
	}
}

func (p *packet) countTCP(w *traffic.Window) {
	w.TCP++
	switch {
	case p.flags&(syn|ack) == syn|ack:
		w.SYNACK++
	case p.flags&syn != 0:
		w.SYN++
		if p.offset == 5 {
			w.SYNNoOptions++
		}
	case p.flags == ack && !p.hasTCPBytes:
		w.ACK++
	}
	if p.flags&rst != 0 {
		w.RST++
	}
	if p.flags&fin != 0 {
		w.FIN++
	}
	if p.hasTCPBytes {
		w.TCPData++
	}
}

func (p *packet) countBins(h *traffic.Histograms) {
	h.Counted++
	h.Sources[traffic.Bin(1, traffic.SourceValue(p.source), traffic.SourceBins)]++
	h.SourceNets[traffic.Bin(2, traffic.SourceNetValue(p.source), traffic.SourceNetBins)]++
	if p.proto == 6 || p.proto == 17 {
		h.SourcePorts[traffic.Bin(3, uint64(p.sport), traffic.SourcePortBins)]++
		h.DestPorts[traffic.Bin(4, uint64(p.dport), traffic.DestPortBins)]++
	}
	h.Lengths[traffic.LengthBin(p.length)]++
	h.TTLs[traffic.TTLBin(p.ttl)]++
	word := traffic.Fingerprint{
		Protocol: p.proto, TCPFlags: p.flags, DataOffset: p.offset, Window: p.tcpWindow,
		Size: traffic.SizeClassOf(p.length), TTL: p.ttl,
	}.Word()
	h.Fingerprints[traffic.Bin(5, word, traffic.FingerprintBins)]++
}

// sim makes windows.
type sim struct {
	*rand.Rand
	tick int
}

func newSim(seed uint64) *sim { return &sim{Rand: rand.New(rand.NewPCG(seed, 4))} }

// number draws how many events a rate per second has in a tick.
func (s *sim) number(rate float64) int {
	mean := rate / 10
	return max(0, int(math.Round(mean+math.Sqrt(mean)*s.NormFloat64())))
}

func (s *sim) address(net uint32, hosts uint32) netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], net+s.Uint32N(hosts))
	return netip.AddrFrom4(b)
}

var ttls = []uint8{52, 55, 57, 113, 117, 120, 244}

// clients adds web traffic at a rate from a population of that size: one SYN,
// three ACKs, four with data, one FIN of nine packets.
func (s *sim) clients(w *traffic.Window, rate float64, population uint32) {
	for range s.number(rate) {
		source := s.address(10<<24, population)
		i := source.As4()[3]
		p := packet{
			source: source, sport: uint16(32768 + s.IntN(28000)), dport: 443, proto: 6,
			ttl: ttls[int(i)%len(ttls)], tcpWindow: 64240, offset: 8, length: 52,
		}
		switch s.IntN(9) {
		case 0:
			p.flags, p.offset, p.length = syn, 10, 60
		case 1, 2, 3:
			p.flags, p.tcpWindow = ack, uint16(501)
		case 8:
			p.flags, p.tcpWindow = fin|ack, 501
		default:
			p.flags, p.hasTCPBytes, p.tcpWindow = psh|ack, true, 501
			p.length = 80 + 24*uint32(s.IntN(20))
		}
		p.count(w)
	}
}

// synFlood adds SYNs without options from any address.
func (s *sim) synFlood(w *traffic.Window, rate float64) {
	for range s.number(rate) {
		p := packet{
			source: s.address(11<<24, 1<<24), sport: uint16(s.IntN(65536)), dport: 443, proto: 6, flags: syn,
			offset: 5, length: 40, ttl: uint8(40 + s.IntN(80)), tcpWindow: 512,
		}
		p.count(w)
	}
}

// udpFlood adds datagrams from a source port.
func (s *sim) udpFlood(w *traffic.Window, rate float64, sport uint16, length uint32) {
	for range s.number(rate) {
		p := packet{
			source: s.address(12<<24, 3000), sport: sport, dport: uint16(s.IntN(65536)), proto: 17,
			length: length, ttl: 54,
		}
		p.count(w)
	}
}

// window starts the next one of a target.
func (s *sim) window(target traffic.Target) traffic.Window {
	w := traffic.Window{Target: target, Start: epoch.Add(time.Duration(s.tick) * traffic.Tick), Length: traffic.Tick}
	s.tick++
	return w
}
