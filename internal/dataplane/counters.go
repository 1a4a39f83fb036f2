// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"fmt"
	"time"

	"github.com/cilium/ebpf"

	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// Counters returns what the program has counted since it was first loaded, summed over CPUs.
// Packets that pass while it reads may be in one counter and not yet in another.
func (p *Plane) Counters() (traffic.Counters, error) {
	var c traffic.Counters
	if err := p.readTotals(&c); err != nil {
		return c, err
	}
	for r := range c.Reasons {
		for o := range c.Reasons[r] {
			var perCPU []bpfCount
			if err := p.objs.Reasons.Lookup(uint32(r*int(traffic.NumOutcomes)+o), &perCPU); err != nil {
				return c, fmt.Errorf("read counter %v: %w", traffic.Reason(r), err)
			}
			for _, n := range perCPU {
				c.Reasons[r][o] = c.Reasons[r][o].Add(traffic.Count{Packets: n.Packets, Bytes: n.Bytes})
			}
		}
	}
	return c, p.readLatency(&c)
}

func (p *Plane) readTotals(c *traffic.Counters) error {
	var perCPU []bpfTotals
	if err := p.objs.Totals.Lookup(uint32(0), &perCPU); err != nil {
		return fmt.Errorf("read totals: %w", err)
	}
	for _, t := range perCPU {
		c.Seen = c.Seen.Add(traffic.Count{Packets: t.Seen.Packets, Bytes: t.Seen.Bytes})
		c.EventsSent += t.EventsSent
		c.EventsLost += t.EventsLost
		c.MetersEvicted += t.MetersEvicted
	}
	return nil
}

func (p *Plane) readLatency(c *traffic.Counters) error {
	var perCPU []bpfLatency
	if err := p.objs.Latency.Lookup(uint32(0), &perCPU); err != nil {
		return fmt.Errorf("read latency histogram: %w", err)
	}
	c.Latency.Width = latencyWidth
	c.Latency.Buckets = make([]uint64, len(bpfLatency{}.Buckets))
	for _, l := range perCPU {
		for i, n := range l.Buckets {
			c.Latency.Buckets[i] += n
		}
	}
	return nil
}

// latencyWidth is LATENCY_WIDTH of bpf/types.h, which as a macro is not in BTF.
const latencyWidth = 16 * time.Nanosecond

// MapMemory is what the kernel charges for one map.
type MapMemory struct {
	Name    string
	Bytes   uint64
	Entries uint32 // it may hold at most
}

// Memory returns what the kernel charges for every map in use, as fdinfo's memlock says; the
// constants and knobs, a page each, are left out.
func (p *Plane) Memory() ([]MapMemory, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	m := p.objs.bpfMaps
	var all []MapMemory
	for _, x := range []struct {
		name string
		m    *ebpf.Map
	}{
		{bpfMapScratch, m.Scratch},
		{bpfMapTotals, m.Totals},
		{bpfMapReasons, m.Reasons},
		{bpfMapLatency, m.Latency},
		{bpfMapSamples, m.Samples},
		{bpfMapMeters, p.meter.m},
		{bpfMapLists, p.lists.m},
		{bpfMapSignatureTables, p.armed.table},
		{bpfMapSignatureCounts, m.SignatureCounts},
		{bpfMapSignatureBuckets, m.SignatureBuckets},
		{bpfMapWindowTargets, m.WindowTargets},
		{bpfMapWindowCells, m.WindowCells},
		{bpfMapWindowSamples, m.WindowSamples},
	} {
		if x.m == nil {
			continue
		}
		info, err := x.m.Info()
		if err != nil {
			return nil, fmt.Errorf("read size of map %s: %w", x.name, err)
		}
		bytes, _ := info.Memlock()
		all = append(all, MapMemory{Name: x.name, Bytes: bytes, Entries: info.MaxEntries})
	}
	return all, nil
}
