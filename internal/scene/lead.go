// SPDX-License-Identifier: Apache-2.0

package scene

import (
	"fmt"
	"iter"
	"time"

	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// Lead is the calm that scenes with the same normal traffic (see CatalogueOptions.Shared) begin with,
// composed and counted once. What follows it of the normal traffic is kept in memory: each scene
// goes on from there with an event of its own, and has the windows that it has when composed from its beginning.
type Lead struct {
	o      CounterOptions // Length: of the lead
	c      *counter
	stream Stream
	end    time.Duration // until which normal traffic is kept
	kept   *keep
}

// NewLead prepares the lead of the scenes that have the calm of s, with counters as Windows takes them; o.Length is
// how long it is, end the longest scene's length.
func NewLead(s *Scenario, end time.Duration, o CounterOptions) (*Lead, error) {
	n, err := s.Normal()
	if err != nil {
		return nil, fmt.Errorf("compose the lead of %s: %w", s.Name, err)
	}
	stream, err := n.Stream()
	if err != nil {
		return nil, fmt.Errorf("compose the lead of %s: %w", s.Name, err)
	}
	return &Lead{o: o, c: newCounter(o), stream: stream, end: end}, nil
}

// Windows yields the windows of the lead, once. All of them must be taken before Scene is called.
func (l *Lead) Windows() iter.Seq2[*traffic.Window, uint64] {
	return func(yield func(*traffic.Window, uint64) bool) {
		s := &split{Stream: l.stream, at: l.o.Length}
		for w, attack := range l.c.windows(s, 0, l.o) {
			if !yield(w, attack) {
				return
			}
		}
		l.kept = keepUntil(s, l.end)
		l.stream = nil
	}
}

// Scene yields the windows of a scene from the end of the lead on. Several goroutines may do so at the same time.
func (l *Lead) Scene(s *Scenario) (iter.Seq2[*traffic.Window, uint64], error) {
	if l.kept == nil || s.Length > l.end || s.Onset < l.o.Length {
		return nil, fmt.Errorf("compose %s: the lead of %v must be over, and holds what scenes of %v need", s.Name, l.o.Length, l.end)
	}
	event, err := s.Event()
	if err != nil {
		return nil, err
	}
	var stream Stream = &keptStream{keep: l.kept}
	if event != nil {
		stream = Merge(stream, event)
	}
	o := l.o
	o.Length = s.Length
	c := newCounter(o)
	c.rng = l.c.rng
	return c.windows(Until(stream, s.Length), l.o.Length, o), nil
}

// split ends a stream at a time, and keeps the packet that it ended before.
type split struct {
	Stream
	at    time.Duration
	first Packet
	cut   bool
}

func (s *split) Next(p *Packet) bool {
	if s.cut || !s.Stream.Next(p) {
		return false
	}
	if p.Time >= s.at {
		s.first, s.cut = *p, true
		return false
	}
	return true
}

// keep is a piece of a stream in memory.
type keep struct {
	packets []keptPacket
	frames  []byte
}

type keptPacket struct {
	at     time.Duration
	end    int // of its frame; it begins where the one before ends
	attack bool
}

// keepUntil keeps what a split stream has from its cut to end.
func keepUntil(s *split, end time.Duration) *keep {
	k := &keep{}
	p := s.first
	for more := s.cut; more && p.Time < end; more = s.Stream.Next(&p) {
		k.frames = append(k.frames, p.Frame...)
		k.packets = append(k.packets, keptPacket{p.Time, len(k.frames), p.Attack})
	}
	return k
}

// keptStream plays it.
type keptStream struct {
	*keep
	next, from int
}

func (s *keptStream) Next(p *Packet) bool {
	if s.next == len(s.packets) {
		return false
	}
	k := &s.packets[s.next]
	p.Time, p.Frame, p.Attack = k.at, s.frames[s.from:k.end:k.end], k.attack
	s.next, s.from = s.next+1, k.end
	return true
}
