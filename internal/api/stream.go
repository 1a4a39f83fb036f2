// SPDX-License-Identifier: Apache-2.0

package api

import (
	"sync"
	"sync/atomic"

	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

const (
	maxReaders  = 32   // event streams at once
	readerQueue = 1024 // events a reader may be behind before it loses some

	incidentQueue = 64 // and incidents
)

// fanOut hands every published event to the readers that want it, and never
// waits for one: a reader that is behind loses events and is told how many.
type fanOut struct {
	count   atomic.Int32
	mu      sync.RWMutex
	readers map[*reader]bool
}

type reader struct {
	filter EventFilter
	events chan Event
	lost   atomic.Uint64

	incidents chan Incident // nil: it asked for certain packets
}

func newFanOut() *fanOut { return &fanOut{readers: map[*reader]bool{}} }

// add returns a new reader, or nil if there are too many.
func (f *fanOut) add(filter EventFilter) *reader {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.readers) >= maxReaders {
		return nil
	}
	r := &reader{filter: filter, events: make(chan Event, readerQueue)}
	if filter.empty() {
		r.incidents = make(chan Incident, incidentQueue)
	}
	f.readers[r] = true
	f.count.Add(1)
	return r
}

func (f *fanOut) remove(r *reader) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.readers[r] {
		delete(f.readers, r)
		f.count.Add(-1)
	}
}

func (f *fanOut) publish(iface string, e *traffic.Event) {
	if f.count.Load() == 0 {
		return
	}
	f.mu.RLock()
	defer f.mu.RUnlock()
	for r := range f.readers {
		if !r.filter.match(e) {
			continue
		}
		select {
		case r.events <- EventOf(iface, e):
		default:
			r.lost.Add(1)
		}
	}
}

func (f *fanOut) publishIncident(i Incident) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	for r := range f.readers {
		if r.incidents == nil {
			continue
		}
		select {
		case r.incidents <- i:
		default:
			r.lost.Add(1)
		}
	}
}
