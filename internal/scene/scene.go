// SPDX-License-Identifier: Apache-2.0

// Package scene composes traffic as packets: normal traffic of clients, things where nothing
// may happen, and attacks, each from a seed, as streams of frames in order of time. They train
// and prove the detector, and can be replayed; nothing here touches an interface.
// docs/traffic-models.md says what is realistic about them and what is not.
package scene

import (
	"iter"
	"time"
)

// Packet is one frame on its way to the protected interface.
type Packet struct {
	Time   time.Duration // since the scene began
	Frame  []byte        // Ethernet without FCS; valid until the stream's next packet
	Attack bool          // part of an attack
}

// Stream is a sequence of packets in order of time. The same stream, made again from the
// same seed, yields the same packets. It is for one goroutine.
type Stream interface {
	// Next fills p with the next packet; false: there is none, p is undefined.
	Next(p *Packet) bool
}

// All returns what is left of the stream. A packet's frame is valid until the next one.
func All(s Stream) iter.Seq[Packet] {
	return func(yield func(Packet) bool) {
		var p Packet
		for s.Next(&p) && yield(p) {
		}
	}
}

// Until ends a stream before the first packet at end or later.
func Until(s Stream, end time.Duration) Stream { return &until{s, end} }

type until struct {
	Stream
	end time.Duration
}

func (u *until) Next(p *Packet) bool { return u.Stream.Next(p) && p.Time < u.end }

// Merge yields the packets of all streams in order of time; at the same time, those of the
// stream named first come first.
func Merge(streams ...Stream) Stream {
	if len(streams) == 1 {
		return streams[0]
	}
	m := &merge{}
	for _, s := range streams {
		h := &head{stream: s}
		if s.Next(&h.packet) {
			m.heads = append(m.heads, h)
		}
	}
	return m
}

type head struct {
	stream Stream
	packet Packet
}

type merge struct {
	heads []*head // those with a packet to come
	used  *head   // its packet is the one last yielded
}

// Next looks through all heads: scenes have a handful of streams.
func (m *merge) Next(p *Packet) bool {
	if m.used != nil && !m.used.stream.Next(&m.used.packet) {
		m.drop(m.used)
	}
	m.used = nil
	for _, h := range m.heads {
		if m.used == nil || h.packet.Time < m.used.packet.Time {
			m.used = h
		}
	}
	if m.used == nil {
		return false
	}
	*p = m.used.packet
	return true
}

func (m *merge) drop(gone *head) {
	kept := m.heads[:0]
	for _, h := range m.heads {
		if h != gone {
			kept = append(kept, h)
		}
	}
	m.heads = kept
}

// Lapse lets long scenes be composed cheaply: of each Period only its first Play is composed,
// and the clock then jumps to the next period. What is composed is whole: a window inside has every packet
// that it would have. Flows go on across the jump as if no time had passed, so
// the only thing untrue is how long they last by the clock. The zero Lapse plays everything.
type Lapse struct {
	Play, Period time.Duration // multiples of traffic.Tick; Play ≤ Period
}

// clock returns the time by the clock after t of composed time.
func (l Lapse) clock(t int64) int64 {
	if l.Play <= 0 {
		return t
	}
	return t/int64(l.Play)*int64(l.Period) + t%int64(l.Play)
}

// played is the inverse of clock: how much is composed until that time of the clock.
func (l Lapse) played(t int64) int64 {
	if l.Play <= 0 {
		return t
	}
	return t/int64(l.Period)*int64(l.Play) + min(t%int64(l.Period), int64(l.Play))
}

// Skips reports whether nothing is composed at that time of the clock.
func (l Lapse) Skips(t time.Duration) bool { return l.Play > 0 && t%l.Period >= l.Play }
