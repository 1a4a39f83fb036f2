// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"errors"
	"fmt"
	"math"
	"os"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/cilium/ebpf/ringbuf"

	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// What is sampled in a tick: never more than the limits, and a little less on average, so that
// the last packets of a tick are in it like the first.
const (
	sampleLimit      = 500  // of a slot
	sampleLimitAll   = 2000 // of all slots
	sampleAim        = 450
	sampleAimAll     = 1800
	histogramAim     = 8192    // packets of a slot in its histograms; above, a share of them is
	histogramMost    = 32768   // of a cell, whatever the rate turns out to be: bins have 16 bits
	maxDistance      = 1 << 24 // of packets that are taken
	maxSampleBacklog = 1 << 14 // samples read at once
)

// drain takes the samples out of the ring.
func (w *windowTable) drain() error {
	w.raw = w.raw[:0]
	clear(w.got)
	w.readClock()
	var record ringbuf.Record
	for len(w.raw) < maxSampleBacklog {
		w.raw = append(w.raw, bpfWindowSample{})
		s := &w.raw[len(w.raw)-1]
		record.RawSample = unsafe.Slice((*byte)(unsafe.Pointer(s)), unsafe.Sizeof(*s))
		if err := w.ring.ReadInto(&record); err != nil {
			w.raw = w.raw[:len(w.raw)-1]
			if errors.Is(err, os.ErrDeadlineExceeded) {
				return nil
			}
			return fmt.Errorf("read the ring of samples: %w", err)
		}
		if int(s.Slot) >= w.spec.slots {
			return fmt.Errorf("read the ring of samples: slot %d of %d", s.Slot, w.spec.slots)
		}
		if w.bySlot[s.Slot] == nil {
			s.Slot = 0 // its target has gone meanwhile
		}
		w.got[s.Slot]++
	}
	return nil
}

// clockReading is a moment on the packet path's clock, and what time it was.
type clockReading struct {
	path uint64
	time time.Time
}

// readClock: in replay, the packet path's clock is the time since the Unix epoch.
func (w *windowTable) readClock() {
	w.clock = clockReading{0, time.Unix(0, 0)}
	if !w.spec.replay {
		w.clock = clockReading{monotonic(), time.Now()}
	}
}

// at returns when it was that the packet path's clock said so.
func (c clockReading) at(path uint64) time.Time { return c.time.Add(time.Duration(path - c.path)) }

// sortSamples puts the samples in the order of the windows, each behind those of its target that
// came before: a network's are those of its own slot and of its hosts, the interface's are all.
func (w *windowTable) sortSamples() {
	w.samples = resize(w.samples, len(w.raw))
	next := w.begins
	next[0] = 0
	at := w.got[0]
	for _, p := range w.order {
		if p.slot != 0 {
			next[p.slot] = at
			at += w.got[p.slot]
		}
	}
	for i := range w.raw {
		s := &w.raw[i]
		w.samples[next[s.Slot]] = w.sample(s)
		next[s.Slot]++
	}
	w.windows[0].Samples = w.samples
	at = w.got[0]
	begin := at
	for i, p := range w.order {
		if p.network == nil {
			begin = at
		}
		from := at
		if p.slot != 0 {
			at += w.got[p.slot]
		}
		w.windows[1+i].Samples = w.samples[from:at:at]
		if p.network != nil {
			w.windows[1+p.network.index].Samples = w.samples[begin:at:at]
		}
		w.stats.Samples += uint64(at - from)
	}
	w.stats.Samples += uint64(w.got[0])
	w.stats.Lost += w.windows[0].Lost
}

func resize[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n, n+n/2)
	}
	return s[:n]
}

func (w *windowTable) sample(s *bpfWindowSample) traffic.Sample {
	e := &s.Event
	p := parsed(e)
	return traffic.Sample{
		Time: w.clock.at(e.Time), Reason: traffic.Reason(e.Reason), Outcome: traffic.Outcome(e.Outcome), Length: e.Length,
		Weight: max(1, float64(w.packets[s.Slot])/float64(w.got[s.Slot])),
		Source: p.Source, Destination: p.Destination, SourcePort: p.SourcePort, DestPort: p.DestPort,
		Protocol: p.Protocol, TCPFlags: p.TCPFlags, TTL: p.TTL, DataOffset: s.DataOffset,
		IPLength: s.IpLength, TCPWindow: s.TcpWindow, Fragment: p.Fragment != FragmentNone, DF: s.Df != 0,
		Header: s.Header[:min(int(s.Captured), len(s.Header))],
	}
}

// expect sets the distances of a slot as for n packets a tick.
func (w *windowTable) expect(slot int, n float64) {
	w.distances(slot, distance(n, histogramAim), distance(n, w.most))
}

func (w *windowTable) distances(slot int, count, sample uint32) {
	for row := range w.spec.rows {
		c := &w.cells[row*w.spec.slots+slot]
		if c.CountEvery != count {
			atomic.StoreUint32(&c.CountEvery, count)
		}
		if c.SampleEvery != sample {
			atomic.StoreUint32(&c.SampleEvery, sample)
		}
	}
}

// shareLimits splits the limits of samples over the CPUs: three quarters by the packets that each has had, the
// rest evenly.
func (w *windowTable) shareLimits() {
	var all uint64
	for _, n := range w.perRow {
		all += n
	}
	for row, n := range w.perRow {
		share := 1 / float64(w.spec.rows)
		if all != 0 {
			share = 0.25*share + 0.75*float64(n)/float64(all)
		}
		c := &w.cells[row*w.spec.slots]
		atomic.StoreUint32(&c.Limit, uint32(share*sampleLimit))
		atomic.StoreUint32(&c.LimitAll, uint32(share*sampleLimitAll))
	}
}

// shareSamples sets the distances of samples and of packets in the histograms by what each slot had in the last tick.
func (w *windowTable) shareSamples() {
	w.most = fairShare(w.packets)
	for slot, n := range w.packets {
		if slot == 0 || w.bySlot[slot] != nil && w.bySlot[slot].age > 0 {
			w.expect(slot, float64(n))
		}
	}
}

// fairShare returns the most samples that a slot may have so that all of them together have sampleAimAll.
func fairShare(packets []uint64) float64 {
	lo, hi := 0.0, float64(sampleAim)
	for range 16 {
		most, sum := (lo+hi)/2, 0.0
		for _, n := range packets {
			sum += min(float64(n), most)
		}
		if sum > sampleAimAll {
			hi = most
		} else {
			lo = most
		}
	}
	return hi
}

// distance returns which share of n packets, one in how many, gives `aim` of them.
func distance(n, aim float64) uint32 {
	return uint32(min(max(1, math.Ceil(n/aim)), maxDistance))
}
