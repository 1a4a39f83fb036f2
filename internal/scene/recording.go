// SPDX-License-Identifier: Apache-2.0

package scene

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"time"

	"github.com/sentinel-x/sentinel-x/internal/capture"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// Recording is a real capture, held in memory, that can be put into a scene.
type Recording struct {
	File     string
	Kind     traffic.Kind   // of the attack; KindBenign: nothing may happen
	Also     []traffic.Kind // other kinds that are no mistake
	Protocol string         // of amplification
	Packets  int
	Rate     float64       // packets a second of the recording itself
	Span     time.Duration // from its first packet to its last

	at     []int64
	frames [][]byte
}

// recordings are the attacks of ../shared/data, by folder.
var recordings = []Recording{
	{File: "attack-real/amp.TCP.reflection.SYNACK.pcap", Kind: traffic.KindACKFlood, Also: []traffic.Kind{traffic.KindAmplification}, Protocol: "tcp"},
	{File: "attack-real/amp.UDP.isakmp.pcap", Kind: traffic.KindAmplification, Protocol: "isakmp"},
	{File: "attack-real/amp.UDP.snmp.src161.pcapng", Kind: traffic.KindAmplification, Protocol: "snmp"},
	{File: "attack-real/pkt.TCP.synflood.spoofed.pcap", Kind: traffic.KindSYNFlood},
	{File: "attack-lab/CIC-DDoS-2019-SynFlood.pcap", Kind: traffic.KindSYNFlood},
	{File: "attack-lab/lucid-old-synflood-77f247c0.pcap", Kind: traffic.KindSYNFlood},
	{File: "attack-lab/ddosgrid-synflood.pcap", Kind: traffic.KindSYNFlood},
}

// controls are no floods: scans, broken packets, probing, and an attack on a web server at two packets a second.
var controls = []Recording{
	{File: "scan/ddosgrid-portscan.pcap"},
	{File: "scan/ddosgrid-portscan-miner.pcap"},
	{File: "scan/esnet-nmap_80_all.pcap"},
	{File: "scan/esnet-one_way_all_flags.pcap"},
	{File: "scan/esnet-tcp_0_1000_20190821.pcap"},
	{File: "scan/esnet-udp_0_1000_20190821.pcap"},
	{File: "scan/synscan.pcap"},
	{File: "attack-real/amp.TCP.syn.optionallyACK.optionallysamePort.pcapng"},
	{File: "attack-lab/CIC-DDoS-2019-WebDDoS.pcap"},
}

// Recordings reads the attacks under a folder like ../shared/data. A missing file is an error
// that errors.Is fs.ErrNotExist.
func Recordings(folder string) ([]*Recording, error) { return readAll(folder, recordings) }

// Controls reads, from the same folder, the captures at which nothing may happen.
func Controls(folder string) ([]*Recording, error) { return readAll(folder, controls) }

func readAll(folder string, files []Recording) ([]*Recording, error) {
	var list []*Recording
	for _, known := range files {
		r, err := ReadRecording(filepath.Join(folder, known.File))
		if err != nil {
			return nil, err
		}
		r.File, r.Kind, r.Also, r.Protocol = known.File, known.Kind, known.Also, known.Protocol
		list = append(list, r)
	}
	return list, nil
}

// ReadRecording reads what arrives in a capture: its whole IPv4 packets, but for those that the
// victim sent. The victim is who most packets go to.
func ReadRecording(path string) (*Recording, error) {
	rec := &Recording{File: filepath.Base(path)}
	count := map[uint32]int{}
	var first time.Time
	err := capture.Each(path, func(p capture.Packet) error {
		var f fields
		f.parse(p.Frame)
		_, packet, _ := link(p.Frame)
		if !f.ok || f.src.six || f.length == 0 || f.length > maxIP || int(f.length) > len(packet) {
			return nil
		}
		if rec.at == nil {
			first = p.Time
		}
		count[uint32(f.dst.lo)]++
		rec.at = append(rec.at, int64(p.Time.Sub(first)))
		bare := make([]byte, max(etherSize+int(f.length), minFrame)) // without tags, padded as a card receives it
		bare[12] = 0x08
		copy(bare[etherSize:], packet[:f.length])
		rec.frames = append(rec.frames, bare)
		return nil
	})
	if err != nil {
		return nil, err
	}
	rec.keep(busiest(count))
	if len(rec.at) < 2 || rec.Span <= 0 {
		return nil, fmt.Errorf("read recording %s: fewer than two packets arrive at its victim", path)
	}
	return rec, nil
}

func busiest(count map[uint32]int) (victim uint32) {
	for a, n := range count {
		if n > count[victim] || n == count[victim] && a < victim {
			victim = a
		}
	}
	return victim
}

// keep takes out what the victim sent, and puts the rest in order of time.
func (rec *Recording) keep(victim uint32) {
	var order []int
	for i, f := range rec.frames {
		if binary.BigEndian.Uint32(f[etherSize+12:]) != victim {
			order = append(order, i)
		}
	}
	slices.SortStableFunc(order, func(a, b int) int { return int(min(max(rec.at[a]-rec.at[b], -1), 1)) })
	var at []int64
	var frames [][]byte
	for _, i := range order {
		at = append(at, rec.at[i]-rec.at[order[0]])
		frames = append(frames, rec.frames[i])
	}
	rec.at, rec.frames, rec.Packets = at, frames, len(at)
	if n := len(at); n > 1 {
		rec.Span = time.Duration(at[n-1])
		rec.Rate = float64(n) / (rec.Span.Seconds() * float64(n) / float64(n-1))
	}
}

// Splice says where and how fast a recording is played.
type Splice struct {
	Target netip.Addr // every packet's new destination; IPv4
	Rate   float64    // packets a second, on average
	Onset  time.Duration
	End    time.Duration
	// Even has packets follow one another at that rate, in the recording's order. Otherwise
	// its bursts and pauses stay as they are: below its own rate, packets are left out at
	// random; above it, it is laid over itself, each copy beginning elsewhere.
	Even  bool
	Lapse Lapse
	Seed  uint64
}

// Stream plays the recording again and again from onset to end. What stays untrue is that the
// sources of a round are those of the one before.
func (rec *Recording) Stream(s Splice) (Stream, error) {
	if !s.Target.Is4() {
		return nil, errors.New("splice recording: it is IPv4, the target is not")
	}
	if s.Rate <= 0 || s.End <= s.Onset {
		return nil, fmt.Errorf("splice recording: %v packets/s from %v to %v are none", s.Rate, s.Onset, s.End)
	}
	if s.Even {
		return rec.even(s), nil
	}
	copies := int(s.Rate/rec.Rate) + 1
	keep := s.Rate / rec.Rate / float64(copies)
	r := newRNG(s.Seed, "splice")
	var list []Stream
	for range copies {
		p := &player{
			rec: rec, rng: newRNG(r.next(), "copy"), keep: keep, dst: uint32(addressOf(s.Target).lo), lapse: s.Lapse,
			end: s.Lapse.played(int64(s.End)),
		}
		p.next = r.intn(rec.Packets)
		p.base = s.Lapse.played(int64(s.Onset)) - rec.at[p.next]
		list = append(list, p)
	}
	return tournament(list), nil
}

// even plays the recording as one flood.
func (rec *Recording) even(s Splice) Stream {
	p := &evenPlayer{rec: rec, rng: newRNG(s.Seed, "splice"), rate: s.Rate, dst: uint32(addressOf(s.Target).lo), lapse: s.Lapse}
	p.next = p.rng.intn(rec.Packets)
	p.at, p.end = s.Lapse.played(int64(s.Onset)), s.Lapse.played(int64(s.End))
	return p
}

// evenPlayer plays a recording at a rate of its own.
type evenPlayer struct {
	rec     *Recording
	rng     rng
	rate    float64
	dst     uint32
	lapse   Lapse
	next    int
	at, end int64
	buf     [etherSize + maxIP]byte
}

func (p *evenPlayer) Next(out *Packet) bool {
	if p.at += int64(p.rng.exp() / p.rate * 1e9); p.at >= p.end {
		return false
	}
	f := p.buf[:copy(p.buf[:], p.rec.frames[p.next])]
	p.next = (p.next + 1) % p.rec.Packets
	redirect(f, p.dst)
	out.Time, out.Frame, out.Attack = time.Duration(p.lapse.clock(p.at)), f, p.rec.Kind != traffic.KindBenign
	return true
}

// tournament merges many streams pair by pair: Merge looks at all its streams for each packet.
func tournament(list []Stream) Stream {
	for len(list) > 8 {
		var next []Stream
		for group := range slices.Chunk(list, 8) {
			next = append(next, Merge(group...))
		}
		list = next
	}
	return Merge(list...)
}

// player plays one copy of a recording.
type player struct {
	rec   *Recording
	rng   rng
	keep  float64
	dst   uint32
	lapse Lapse
	next  int
	base  int64 // composed time of the recording's beginning
	end   int64
	buf   [etherSize + maxIP]byte
}

func (p *player) Next(out *Packet) bool {
	for {
		if p.next == p.rec.Packets {
			p.next = 0
			p.base += int64(float64(p.rec.Packets) / p.rec.Rate * 1e9)
		}
		i := p.next
		p.next++
		at := p.base + p.rec.at[i]
		if at >= p.end {
			return false
		}
		if p.keep < 1 && p.rng.float() >= p.keep {
			continue
		}
		f := p.buf[:copy(p.buf[:], p.rec.frames[i])]
		redirect(f, p.dst)
		out.Time, out.Frame, out.Attack = time.Duration(p.lapse.clock(at)), f, p.rec.Kind != traffic.KindBenign
		return true
	}
}

// redirect changes the destination of an IPv4 packet and mends its checksums by the difference; a
// checksum that was wrong stays wrong.
func redirect(frame []byte, dst uint32) {
	ip := frame[etherSize:]
	old := binary.BigEndian.Uint32(ip[16:])
	binary.BigEndian.PutUint32(ip[16:], dst)
	mend(ip[10:], old, dst)
	if binary.BigEndian.Uint16(ip[6:])&0x1fff != 0 { // a later fragment
		return
	}
	l4 := ip[int(ip[0]&15)*4:]
	switch {
	case ip[9] == protoTCP && len(l4) >= 18:
		mend(l4[16:], old, dst)
	case ip[9] == protoUDP && len(l4) >= 8 && binary.BigEndian.Uint16(l4[6:]) != 0:
		mend(l4[6:], old, dst)
		if binary.BigEndian.Uint16(l4[6:]) == 0 {
			binary.BigEndian.PutUint16(l4[6:], 0xffff)
		}
	}
}

// mend updates a checksum for a change of four bytes under it (RFC 1624).
func mend(sum []byte, old, to uint32) {
	s := uint64(^binary.BigEndian.Uint16(sum)) + uint64(^old>>16) + uint64(^old&0xffff) + uint64(to>>16) + uint64(to&0xffff)
	binary.BigEndian.PutUint16(sum, fold(s))
}
