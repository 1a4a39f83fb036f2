// SPDX-License-Identifier: Apache-2.0

package detect

import (
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// What the memory of sources holds: two generations of 2^24 bits, 4 MiB. Two
// bits a source: a million of them make one in 80 new sources look known.
const (
	memoryBits  = 24
	memoryWords = 1 << (memoryBits - 6)
	// memorySpan is how long a generation learns: a source is remembered for
	// this long at least and twice as long at most.
	memorySpan = 10 * time.Minute
	memoryFull = 1 << (memoryBits - 1) // set bits at which a generation gives way early
)

// memory remembers which sources sent to which target: a Bloom filter that
// forgets in two generations. It learns only from calm targets.
type memory struct {
	now, before []uint64
	set         int // bits of now
	ticks       int64
}

func newMemory() *memory {
	return &memory{now: make([]uint64, memoryWords), before: make([]uint64, memoryWords)}
}

// advance lets n ticks pass. Time in which nothing was observed ages nothing
// beyond maxSpan: a step of the clock must not make every client a new one.
func (m *memory) advance(n int64) {
	m.ticks += n
	if m.ticks < int64(memorySpan/traffic.Tick) && m.set < memoryFull {
		return
	}
	m.now, m.before = m.before, m.now
	clear(m.now)
	m.set, m.ticks = 0, 0
}

func (m *memory) knows(key uint64) bool {
	a, b := places(key)
	return has(m.now, a) && has(m.now, b) || has(m.before, a) && has(m.before, b)
}

func (m *memory) learn(key uint64) {
	a, b := places(key)
	for _, at := range [2]uint64{a, b} {
		if !has(m.now, at) {
			m.now[at/64] |= 1 << (at % 64)
			m.set++
		}
	}
}

func has(words []uint64, at uint64) bool { return words[at/64]>>(at%64)&1 == 1 }

func places(key uint64) (a, b uint64) {
	return key >> (64 - memoryBits), key & (1<<memoryBits - 1)
}

// sourceKeys returns the keys of a source of a target (IPv6: of its /64) and
// of the source's /24 or /48.
func sourceKeys(target uint64, source netip.Addr) (host, net uint64) {
	return traffic.HashMix(target ^ traffic.SourceValue(source)),
		traffic.HashMix(^target ^ traffic.SourceNetValue(source))
}

// targetKey returns a number that stands for a target.
func targetKey(t traffic.Target) uint64 {
	key := traffic.HashMix(uint64(t.Scope) + 1)
	if !t.Prefix.IsValid() {
		return key
	}
	b := t.Prefix.Addr().As16()
	for half := range 2 {
		key = traffic.HashMix(key ^ binary.BigEndian.Uint64(b[8*half:]))
	}
	return key
}
