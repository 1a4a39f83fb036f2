// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"net/netip"
	"sync"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
	"github.com/gaissmai/bart"
	"golang.org/x/sys/unix"

	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

const (
	maxTargets        = 4096
	maxWindowCells    = 1 << 16 // 128 MiB: with more CPUs than fit, several share their counters
	defaultSampleRing = 512 << 10
)

// windowSeeds are those of enum window_seed in bpf/types.h.
type windowSeeds [bpfWindowSeedNUM_WINDOW_SEEDS]uint64

// windowTable is what is counted of each target, in memory that the packet path shares, and
// who has which slot. bpf/windows.h is the other side.
type windowTable struct {
	spec windowSpec
	tick func(uint32) error // tells the packet path that the next one begins
	ring *ringbuf.Reader

	memory [2][]byte // what lines and cells are in
	lines  []bpfWindowLine
	cells  []bpfWindowCell // row · slots + slot
	base   []bpfWindowCell // the counts that have been read
	stale  []bool          // of a cell, that all of its last change has been read

	mu         sync.Mutex // guards what follows, and what it does to the above
	ticks      uint32
	last       time.Time
	protected  *bart.Lite
	holders    map[traffic.Target]*holder
	bySlot     []*holder // who has it, or had it until a moment ago
	free       []int
	order      []*holder // networks, each in front of its hosts: the windows behind the first
	pending    []traffic.Target
	candidates map[traffic.Target]*candidate
	packets    []uint64 // of each slot in this tick
	perRow     []uint64 // of each row in this tick
	got        []int    // samples of each slot in this tick
	begins     []int    // where the samples of each slot do
	most       float64  // samples that a slot may have in a tick
	clock      clockReading
	raw        []bpfWindowSample
	samples    []traffic.Sample
	windows    []traffic.Window
	own        traffic.Window // of a wide target's own slot, while it is read
	stats      WindowStats
}

// windowSpec is what is fixed when the program is loaded.
type windowSpec struct {
	slots  int // targets and one for all others
	rows   int // CPUs, or as many as there is room for
	shared bool
	seeds  windowSeeds
	replay bool
}

// WindowStats says how the slots for targets are used, since the program was loaded.
type WindowStats struct {
	Targets  int    // have a slot now
	Slots    int    // there are for targets
	Recycled uint64 // slots that were taken from one target for another, or from a quiet one
	Unplaced uint64 // times that a target of SetTargets, or one with traffic, found no slot
	Samples  uint64
	Lost     uint64 // samples that the full ring refused
}

// configureWindows writes the constants and sizes into the spec; without targets, all of it is pruned.
func (p *Plane) configureWindows() error {
	if p.o.MaxTargets == 0 {
		p.spec.Maps[bpfMapWindowSamples].MaxEntries = uint32(pageSize)
		return nil
	}
	if p.o.MaxTargets < 0 || p.o.MaxTargets > maxTargets {
		return fmt.Errorf("%d targets: 1 to %d can be watched at once", p.o.MaxTargets, maxTargets)
	}
	cpus := ebpf.MustPossibleCPU()
	w := windowSpec{slots: p.o.MaxTargets + 1, replay: p.replay}
	w.rows = min(cpus, maxWindowCells/w.slots)
	if w.replay {
		w.rows = 1 // one packet at a time, and the same samples on whatever CPU it is
	}
	w.shared = w.rows < cpus
	if err := w.seed(); err != nil {
		return err
	}
	lines := 1 << bits.Len(uint(w.slots-1))
	for name, value := range map[string]any{
		bpfVarWindows: true, bpfVarWindowSlots: uint32(w.slots), bpfVarWindowRows: uint32(w.rows),
		bpfVarWindowShared: w.shared, bpfVarWindowMask: uint32(lines - 1), bpfVarWindowSeeds: w.seeds,
		bpfVarWindowMost: p.o.histogramMost,
	} {
		if err := p.spec.Variables[name].Set(value); err != nil {
			return fmt.Errorf("set constant %s: %w", name, err)
		}
	}
	p.spec.Maps[bpfMapWindowTargets].MaxEntries = uint32(lines)
	p.spec.Maps[bpfMapWindowCells].MaxEntries = uint32(w.rows * w.slots)
	p.spec.Maps[bpfMapWindowSamples].MaxEntries = uint32(p.o.SampleRingBytes)
	p.windows = &windowTable{spec: w}
	return nil
}

// seed draws the hashes' seeds, so that no sender knows who shares a bin with whom. In replay they
// are always the same, so that a capture always gives the same windows.
func (w *windowSpec) seed() error {
	if w.replay {
		for i := range w.seeds {
			w.seeds[i] = traffic.HashMix(uint64(i + 1))
		}
		return nil
	}
	if err := binary.Read(rand.Reader, binary.NativeEndian, &w.seeds); err != nil {
		return fmt.Errorf("draw the seeds of the windows: %w", err)
	}
	return nil
}

// openWindows maps what the loaded program counts into memory.
func (p *Plane) openWindows() error {
	w := p.windows
	if w == nil {
		return nil
	}
	*w = windowTable{
		spec: w.spec, tick: func(n uint32) error { return p.objs.WindowTick.Set(n) },
		protected: &bart.Lite{}, holders: map[traffic.Target]*holder{}, candidates: map[traffic.Target]*candidate{},
		bySlot: make([]*holder, w.spec.slots), most: sampleAim, windows: make([]traffic.Window, 1),
		packets: make([]uint64, w.spec.slots), got: make([]int, w.spec.slots), begins: make([]int, w.spec.slots), perRow: make([]uint64, w.spec.rows),
		base: make([]bpfWindowCell, w.spec.rows*w.spec.slots), stale: make([]bool, w.spec.rows*w.spec.slots),
	}
	for slot := w.spec.slots - 1; slot > 0; slot-- {
		w.free = append(w.free, slot)
	}
	w.stats.Slots = len(w.free)
	var err error
	if w.lines, err = mapMemory[bpfWindowLine](p.objs.WindowTargets, &w.memory[0]); err != nil {
		return err
	}
	if w.cells, err = mapMemory[bpfWindowCell](p.objs.WindowCells, &w.memory[1]); err != nil {
		return err
	}
	if w.ring, err = ringbuf.NewReader(p.objs.WindowSamples); err != nil {
		return fmt.Errorf("open the ring of samples: %w", err)
	}
	w.ring.SetDeadline(time.Unix(1, 0)) // what there is, and no waiting
	return w.begin()
}

// begin puts every sampler to a start of its own.
func (w *windowTable) begin() error {
	for i := range w.cells {
		w.cells[i].Random = traffic.HashMix(w.spec.seeds[0] + uint64(i))
	}
	w.base[0] = bpfWindowCell{}
	w.expect(0, 0)
	w.shareLimits()
	w.ticks = 1
	return w.tick(w.ticks)
}

// mapMemory returns the elements of an array map as the packet path sees them.
func mapMemory[T any](m *ebpf.Map, memory *[]byte) ([]T, error) {
	n := int(m.MaxEntries())
	size := (n*int(unsafe.Sizeof(*new(T))) + pageSize - 1) / pageSize * pageSize
	b, err := unix.Mmap(m.FD(), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map %d KiB of %v into memory: %w", size>>10, m, err)
	}
	*memory = b
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(b))), n), nil
}

// close may be called again.
func (w *windowTable) close() error {
	if w == nil {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	var errs []error
	if w.ring != nil {
		errs = append(errs, w.ring.Close())
	}
	for i, b := range w.memory {
		if b != nil {
			errs = append(errs, unix.Munmap(b))
		}
		w.memory[i] = nil
	}
	w.cells, w.lines = nil, nil
	return errors.Join(errs...)
}

var errNoWindows = errors.New("the packet path was loaded without windows (MaxTargets 0)")

// SetTargets says which destinations are watched: prefixes, IPv4 and IPv6. Every single address among
// them has a slot from now on, and so has the /24 or /48 around a prefix that lies in one. Of wider ones,
// hosts and networks get a slot when they have traffic. Other destinations are part of the
// interface's window only, except that the /24 or /48 around a narrower prefix is counted whole.
func (p *Plane) SetTargets(prefixes []netip.Prefix) error {
	w := p.windows
	if w == nil {
		if len(prefixes) == 0 {
			return nil
		}
		return errNoWindows
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.setTargets(prefixes)
}

// Tick ends the tick that is under way and returns what it saw: the interface first, then each network that is
// watched (own packets and those of its hosts) in front of its hosts; targets that are quiet
// included, until their slot is taken from them. All of it may be read until the next call. A tick is due every
// traffic.Tick; nil without windows. It takes no system call but one.
func (p *Plane) Tick(now time.Time) ([]traffic.Window, error) {
	w := p.windows
	if w == nil {
		return nil, nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cells == nil {
		return nil, errors.New("read the windows: the program has been freed")
	}
	return w.next(now)
}

// WindowStats returns how the slots are used.
func (p *Plane) WindowStats() WindowStats {
	if p.windows == nil {
		return WindowStats{}
	}
	p.windows.mu.Lock()
	defer p.windows.mu.Unlock()
	return p.windows.stats
}

// next is one tick.
func (w *windowTable) next(now time.Time) ([]traffic.Window, error) {
	start, length := w.last, now.Sub(w.last)
	if w.last.IsZero() || length <= 0 {
		start, length = now.Add(-traffic.Tick), traffic.Tick
	}
	w.last = now
	w.ticks++
	if err := w.tick(w.ticks); err != nil {
		return nil, fmt.Errorf("begin a tick: %w", err)
	}
	if err := w.drain(); err != nil {
		return nil, err
	}
	w.arrange()
	for i := range w.windows {
		clearWindow(&w.windows[i], start, length)
	}
	w.read()
	w.sortSamples()
	w.nominate()
	w.review()
	w.shareLimits()
	w.shareSamples()
	return w.windows, nil
}
