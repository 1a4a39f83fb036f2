// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

const (
	// The meter counts time in ticks of 1/4 ns, in the upper 48 bits of a word.
	ticksPerSecond = 4 * int64(time.Second)
	tick           = 1 << 16 // one tick in a word

	meterLine  = int(unsafe.Sizeof(bpfMeterLine{})) // bytes
	meterWays  = len(bpfMeterLine{}.Ways)           // sources of a line
	leastLines = 1024                               // of a meter in use: fewer, and a few sources meet in one line
	sweepStep  = 1 << 20                            // bytes of the meter that are swept at once
	meterIdle  = 10 * time.Minute

	// leastBurst covers the steps of the packet path's clock, at HZ=100 as well.
	leastBurst = 20 * time.Millisecond
	// clockSlack is how far back the clock may step, as it does in captures, without
	// a full bucket being taken for one of another age.
	clockSlack = 2 * time.Second
	// largestFrame bounds what one packet adds to a bucket of bytes.
	largestFrame = 1 << 17
	// maxReach is a quarter of the time that 48 bits hold: what is ahead of the clock and what is behind stay apart.
	maxReach = 1 << 62
)

// meterTable is the meter in force: an array of lines, and the same memory as words.
type meterTable struct {
	m      *ebpf.Map
	memory []byte
}

func newMeterTable(spec *ebpf.MapSpec, lines int) (*meterTable, error) {
	spec = spec.Copy()
	spec.Name, spec.MaxEntries = "meter", uint32(lines)
	m, err := ebpf.NewMap(spec)
	if err != nil {
		return nil, fmt.Errorf("create meter of %d lines: %w", lines, err)
	}
	memory, err := unix.Mmap(m.FD(), 0, lines*meterLine, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("map meter of %d lines into memory: %w", lines, err), m.Close())
	}
	return &meterTable{m, memory}, nil
}

func (t *meterTable) lines() int { return len(t.memory) / meterLine }

// Close may be called again, as Close of a map may: by then the address is somebody else's.
func (t *meterTable) Close() error {
	if t.memory == nil {
		return nil
	}
	memory := t.memory
	t.memory = nil
	return errors.Join(unix.Munmap(memory), t.m.Close())
}

// seedMeter draws the hash's seeds, so that no sender knows who shares a line with whom.
func (p *Plane) seedMeter() error {
	var seeds [2 * traffic.NumScopes]uint64
	if err := binary.Read(rand.Reader, binary.NativeEndian, &seeds); err != nil {
		return fmt.Errorf("draw the meter's seeds: %w", err)
	}
	if err := p.spec.Variables[bpfVarMeterSeeds].Set(seeds); err != nil {
		return fmt.Errorf("set the meter's seeds: %w", err)
	}
	return nil
}

// SetLimits replaces the rate limits. Buckets are kept, unless the meter grows
// because there was no limit before.
func (p *Plane) SetLimits(l traffic.Limits) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.setLimits(l)
}

func (p *Plane) setLimits(l traffic.Limits) error {
	if err := p.sizeMeter(l); err != nil {
		return err
	}
	old := p.knobs
	p.putLimits(&p.knobs, l)
	if err := p.publish(); err != nil {
		p.knobs = old
		return err
	}
	return nil
}

// sizeMeter puts a meter in place that is large enough for the limits, and a page while there are none.
func (p *Plane) sizeMeter(l traffic.Limits) error {
	lines := pageSize / meterLine
	if !limitsOff(l) {
		lines = meterLines(p.o.Sources)
	}
	if p.meter != nil && p.meter.lines() >= lines {
		return nil
	}
	t, err := newMeterTable(p.spec.Maps[bpfMapMeters].InnerMap, lines)
	if err != nil {
		return err
	}
	if err := p.objs.Meters.Put(uint32(0), t.m); err != nil {
		return errors.Join(fmt.Errorf("put meter in place: %w", err), t.Close())
	}
	if p.meter != nil {
		p.meter.Close()
	}
	p.meter = t
	return nil
}

// meterLines returns how many lines hold so many sources: a power of two.
func meterLines(sources int) int {
	return max(leastLines, 1<<bits.Len(uint((sources-1)/meterWays)))
}

func limitsOff(l traffic.Limits) bool {
	for scope := range traffic.NumScopes {
		for _, c := range l.Of(scope) {
			if c.Packets != 0 || c.Bytes != 0 {
				return false
			}
		}
	}
	return true
}

// putLimits translates the limits. The caller has put a meter in place.
func (p *Plane) putLimits(k *bpfKnobs, l traffic.Limits) {
	k.MeterMask = uint32(p.meter.lines() - 1)
	k.MeterReach, k.Limited = 0, [2]uint8{}
	for scope := range traffic.NumScopes {
		for class, limit := range l.Of(scope) {
			factors := [2]uint64{1, l.AllowedFactor}
			if scope == traffic.ScopeTarget {
				factors[1] = 0 // others may fill a target's buckets: that must not shut the allowed out
			}
			for allowed, factor := range factors {
				kl := kernelLimit(limit, factor)
				k.Limits[allowed][scope][class] = kl
				if kl.PacketCost != 0 || kl.ByteCost != 0 {
					k.Limited[allowed] |= 1 << scope
					k.MeterReach = max(k.MeterReach, reach(kl))
				}
			}
		}
	}
}

// kernelLimit turns a rate times factor into the time a unit takes; factor 0: unlimited.
func kernelLimit(l traffic.Limit, factor uint64) (k bpfLimit) {
	if factor == 0 {
		return k
	}
	k.PacketCost = max(1, unitCost(l.Packets, factor)/tick) * tick
	if l.Packets == 0 {
		k.PacketCost = 0
	}
	// A frame of whatever size stays within reach: under 8 bytes a second, the rate is 8.
	k.ByteCost = min(unitCost(l.Bytes, factor), maxReach/largestFrame)
	k.Burst = ticks(max(l.Burst, leastBurst)) | (tick - 1) // whatever tag the bucket has
	return k
}

// unitCost is the time a unit takes, as a word.
func unitCost(perSecond, factor uint64) uint64 {
	if perSecond == 0 {
		return 0
	}
	cost := float64(ticksPerSecond) * tick / (float64(perSecond) * float64(factor))
	return uint64(math.Max(1, math.Round(cost)))
}

func ticks(d time.Duration) uint64 { return uint64(d) << 18 }

// reach is the longest backlog that a limit allows: every CPU may add one packet more at the same moment.
func reach(l bpfLimit) uint64 {
	packet := max(float64(l.PacketCost), float64(l.ByteCost)*largestFrame)
	longest := float64(l.Burst) + float64(ebpf.MustPossibleCPU())*packet + float64(ticks(clockSlack))
	return uint64(min(longest, maxReach))
}

// SweepMeter refreshes the buckets that have been empty for ten minutes, so that none
// is ever as old as the 19.5 hours after which its time would be read as a later one.
// Packets may flow. It is due every few minutes.
func (p *Plane) SweepMeter() error {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return fmt.Errorf("read the clock: %w", err)
	}
	p.sweepMeter(time.Duration(now.Nano()))
	return nil
}

// sweepMeter goes in steps, so that others who change settings need not wait for a large meter.
func (p *Plane) sweepMeter(now time.Duration) {
	for from := 0; p.sweepPart(from, now); from += sweepStep {
	}
}

func (p *Plane) sweepPart(from int, now time.Duration) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.meter == nil || from >= len(p.meter.memory) {
		return false
	}
	part := p.meter.memory[from:min(from+sweepStep, len(p.meter.memory))]
	words := unsafe.Slice((*uint64)(unsafe.Pointer(&part[0])), len(part)/8)
	for i := range words {
		refresh(&words[i], ticks(now), p.knobs.MeterReach)
	}
	return true
}

// refresh makes a bucket that is empty for long one that is empty since now. If the
// packet path changes it meanwhile, it is in use.
func refresh(word *uint64, clock, reach uint64) {
	old := atomic.LoadUint64(word)
	ahead := int64(old - clock)
	if ahead <= int64(reach) && ahead >= -int64(ticks(meterIdle)) {
		return
	}
	atomic.CompareAndSwapUint64(word, old, clock|old&(tick-1))
}
