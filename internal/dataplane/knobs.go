// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/cilium/ebpf"
	"github.com/gaissmai/bart"

	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

const (
	sampleLatency = 1024 // mean distance of latency samples
	eventWindow   = 100 * time.Millisecond
	knobGrace     = time.Millisecond // no packet takes as long
)

// prepare puts empty lists and a meter in place, and every knob to what the options say.
func (p *Plane) prepare() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.rebuild(&bart.Table[source]{}); err != nil {
		return err
	}
	k := &p.knobs
	if !p.replay {
		k.SampleLatency = sampleLatency
	}
	p.setEventBudget(k, p.o.EventsPerSecond)
	setPolicies(k, p.o.Policies)
	k.Observe = toByte(p.o.Observe)
	return p.setLimits(p.o.Limits)
}

// publish writes the knobs into the idle set and flips to it. The caller holds mu.
// Both stores go through shared memory: no system call, and a packet that is under
// way keeps the set it began with.
func (p *Plane) publish() error {
	var sets [2]bpfKnobs
	if err := p.objs.KnobSets.Get(&sets); err != nil {
		return fmt.Errorf("read knobs: %w", err)
	}
	// The idle set may still be read by packets that began before the last flip.
	time.Sleep(knobGrace - time.Since(p.flipped))
	idle := p.active ^ 1
	sets[idle] = p.knobs
	if err := p.objs.KnobSets.Set(&sets); err != nil {
		return fmt.Errorf("write knobs: %w", err)
	}
	// Both go through plain copies: on CPUs that reorder stores, the flip must not overtake the set.
	p.fence.Add(1)
	if err := p.objs.ActiveKnobs.Set(idle); err != nil {
		return fmt.Errorf("flip knobs: %w", err)
	}
	p.active, p.flipped = idle, time.Now()
	return nil
}

func (p *Plane) change(set func(*bpfKnobs)) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	old := p.knobs
	set(&p.knobs)
	if err := p.publish(); err != nil {
		p.knobs = old
		return err
	}
	return nil
}

// SetBypass switches the bypass: on, every packet passes unseen but counted.
func (p *Plane) SetBypass(on bool) error {
	return p.change(func(k *bpfKnobs) { k.Bypass = toByte(on) })
}

// SetObserve switches observe mode (dry run): everything is judged and counted, nothing is dropped.
func (p *Plane) SetObserve(on bool) error {
	return p.change(func(k *bpfKnobs) { k.Observe = toByte(on) })
}

// Settings is all of the options that can change while packets flow.
type Settings struct {
	Limits          traffic.Limits
	Policies        traffic.Policies
	EventsPerSecond int
	Observe         bool
}

// Apply puts all settings in force at once: a packet is judged by the old ones or by the new.
func (p *Plane) Apply(s Settings) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.sizeMeter(s.Limits); err != nil {
		return err
	}
	old := p.knobs
	setLimits(&p.knobs, s.Limits)
	setPolicies(&p.knobs, s.Policies)
	p.setEventBudget(&p.knobs, s.EventsPerSecond)
	p.knobs.Observe = toByte(s.Observe)
	if err := p.publish(); err != nil {
		p.knobs = old
		return err
	}
	p.o.EventsPerSecond = s.EventsPerSecond
	return nil
}

// SetLimits replaces the rate limits. Sources keep the buckets they have, unless
// the meter grows because there was no limit before.
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
	setLimits(&p.knobs, l)
	if err := p.publish(); err != nil {
		p.knobs = old
		return err
	}
	return nil
}

// leastMeter: below 256 entries a possible CPU, LRU maps of kernels up to 6.1 lose most of what they hold.
func leastMeter() int { return 256 * ebpf.MustPossibleCPU() }

// sizeMeter puts a meter in place that is large enough for the limits, and small while there are none.
func (p *Plane) sizeMeter(l traffic.Limits) error {
	size := leastMeter()
	if !limitsOff(l) {
		size = max(p.o.Sources, size)
	}
	if p.meter != nil && int(p.meter.MaxEntries()) >= size {
		return nil
	}
	spec := p.spec.Maps[bpfMapMeters].InnerMap.Copy()
	spec.Name, spec.MaxEntries = "meter", uint32(size)
	meter, err := ebpf.NewMap(spec)
	if err != nil {
		return fmt.Errorf("create meter for %d sources: %w", size, err)
	}
	if err := p.objs.Meters.Put(uint32(0), meter); err != nil {
		return errors.Join(fmt.Errorf("put meter in place: %w", err), meter.Close())
	}
	if p.meter != nil {
		p.meter.Close()
	}
	p.meter = meter
	return nil
}

// SetPolicies replaces the policies for what parsing sets apart.
func (p *Plane) SetPolicies(ps traffic.Policies) error {
	return p.change(func(k *bpfKnobs) { setPolicies(k, ps) })
}

func (p *Plane) setEventBudget(k *bpfKnobs, perSecond int) {
	k.SamplePassed, k.SampleDropped = 0, 0
	if perSecond == 0 {
		return
	}
	windows := int(time.Second / eventWindow)
	k.EventWindowNs = uint32(eventWindow)
	k.EventBudget = uint32(max(1, perSecond/windows/ebpf.MustPossibleCPU()))
	k.SamplePassed, k.SampleDropped = 1, 1
}

// AdaptSampling spreads the event budget over the packets there are: all of them
// while they are few, and of passed and dropped ones half the budget each when they
// are many. Rates are packets a second.
func (p *Plane) AdaptSampling(passed, dropped float64) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.o.EventsPerSecond == 0 {
		return nil
	}
	distance := func(rate float64) uint32 {
		return uint32(min(max(1, math.Ceil(2*rate/float64(p.o.EventsPerSecond))), 1<<24))
	}
	k := p.knobs
	k.SamplePassed, k.SampleDropped = distance(passed), distance(dropped)
	if k == p.knobs {
		return nil
	}
	p.knobs = k
	return p.publish()
}

func limitsOff(l traffic.Limits) bool {
	for _, c := range l.Class {
		if c.Packets != 0 || c.Bytes != 0 {
			return false
		}
	}
	return true
}

func setLimits(k *bpfKnobs, l traffic.Limits) {
	k.Limited = toByte(!limitsOff(l))
	for c, limit := range l.Class {
		k.Limits[c] = kernelLimit(limit, 1)
		k.AllowedLimits[c] = kernelLimit(limit, l.AllowedFactor)
	}
}

// kernelLimit turns a rate times factor into the time a unit takes, in ns·2^16; factor 0: unlimited.
func kernelLimit(l traffic.Limit, factor uint64) (k bpfLimit) {
	if factor == 0 {
		return k
	}
	k.PacketCost = unitCost(l.Packets, factor)
	k.ByteCost = unitCost(l.Bytes, factor)
	k.Burst = uint64(l.Burst)
	return k
}

func unitCost(perSecond, factor uint64) uint64 {
	if perSecond == 0 {
		return 0
	}
	cost := float64(time.Second) * 65536 / (float64(perSecond) * float64(factor))
	return uint64(math.Max(1, math.Round(cost)))
}

func setPolicies(k *bpfKnobs, p traffic.Policies) {
	drop := func(p traffic.Policy) uint8 { return toByte(p == traffic.PolicyDrop) }
	k.DropMalformed = drop(p.Malformed)
	k.DropFirstFragments = drop(p.FirstFragments)
	k.DropLaterFragments = drop(p.LaterFragments)
	k.DropTinyFragments = drop(p.TinyFragments)
	k.DropExtensionHeaders = drop(p.ExtensionHeaders)
	k.DropVlanDepth = drop(p.VLANDepth)
	k.DropTunnelDepth = drop(p.TunnelDepth)
}

func toByte(b bool) uint8 {
	if b {
		return 1
	}
	return 0
}
