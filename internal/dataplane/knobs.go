// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"fmt"
	"math"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

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
	if err := p.openWindows(); err != nil {
		return err
	}
	if err := p.exchange(nil); err != nil {
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

// awaitPackets returns when every packet that was under way has its verdict, however long the host of a
// virtual machine kept its CPU away in the middle of one: membarrier(2) waits for RCU, and XDP
// programs are readers of RCU. Where it is refused (nohz_full, a seccomp filter), a tenth of a second must do.
func awaitPackets() {
	const global = 1 // MEMBARRIER_CMD_GLOBAL
	if _, _, err := unix.Syscall(unix.SYS_MEMBARRIER, global, 0, 0); err != 0 {
		time.Sleep(100 * time.Millisecond)
	}
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
	p.putLimits(&p.knobs, s.Limits)
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
