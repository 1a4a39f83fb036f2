// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

func clearWindow(w *traffic.Window, start time.Time, length time.Duration) {
	*w = traffic.Window{Target: w.Target, Start: start, Length: length}
}

// read takes what every slot has counted since it was read last into its window, and adds hosts
// to networks and networks to the interface.
func (w *windowTable) read() {
	clear(w.perRow)
	all := &w.windows[0]
	w.addSlot(0, all)
	for i := 0; i < len(w.order); {
		at := i
		network, some := &w.windows[1+at], false
		if slot := w.order[at].slot; slot != 0 {
			some = w.addSlot(slot, network)
		}
		for i++; i < len(w.order) && w.order[i].network == w.order[at]; i++ {
			host := &w.windows[1+i]
			if w.readSlot(w.order[i].slot, host) {
				addWindow(network, host)
				some = true
			}
		}
		if some { // also if it has bytes alone: their packets were read with the tick before
			addWindow(all, network)
		}
	}
}

// addSlot adds what was counted of a wide target's own slot; false: nothing.
func (w *windowTable) addSlot(slot int, to *traffic.Window) bool {
	clearWindow(&w.own, time.Time{}, 0)
	some := w.readSlot(slot, &w.own)
	if some {
		addWindow(to, &w.own)
	}
	return some
}

// addWindow: what has a share of its packets in the histograms is weighed as all of them.
func addWindow(to, from *traffic.Window) {
	to.Tally.Add(&from.Tally)
	to.Lost += from.Lost
	if from.Counted >= from.Packets || from.Counted == 0 {
		to.Histograms.Add(&from.Histograms)
		return
	}
	to.AddScaled(&from.Histograms, float64(from.Packets)/float64(from.Counted))
}

// readSlot adds what a slot has counted on every CPU; false: nothing.
func (w *windowTable) readSlot(slot int, to *traffic.Window) bool {
	some := false
	w.packets[slot] = 0
	for row := range w.spec.rows {
		i := row*w.spec.slots + slot
		now, was := &w.cells[i], &w.base[i]
		changed := atomic.LoadUint64(&now.Bytes) != was.Bytes
		if !changed && !w.stale[i] {
			continue
		}
		// A packet may be at the cell: once more, when it has gone.
		w.stale[i] = changed
		packets := to.Packets
		readTally(to, now, was)
		readHistograms(&to.Histograms, now, was)
		w.packets[slot] += to.Packets - packets
		w.perRow[row] += to.Packets - packets
		some = true
	}
	return some
}

// moved returns by how much a count has gone up, and takes note of it.
func moved(now, was *uint32) uint64 {
	n := atomic.LoadUint32(now)
	d := n - *was
	*was = n
	return uint64(d)
}

func moved64(now, was *uint64) uint64 {
	n := atomic.LoadUint64(now)
	d := n - *was
	*was = n
	return d
}

func readTally(to *traffic.Window, now, was *bpfWindowCell) {
	to.Bytes += moved64(&now.Bytes, &was.Bytes)
	to.DroppedBytes += moved64(&now.DroppedBytes, &was.DroppedBytes)
	to.Dropped += moved(&now.Dropped, &was.Dropped)
	to.Fragments += moved(&now.Fragments, &was.Fragments)
	to.Malformed += moved(&now.Malformed, &was.Malformed)
	to.Counted += moved(&now.Counted, &was.Counted)
	to.Lost += moved(&now.Lost, &was.Lost)
	for i := range to.Sizes {
		to.Sizes[i] += moved(&now.Sizes[i], &was.Sizes[i])
	}
	for kind := range now.Kinds {
		if n := moved(&now.Kinds[kind], &was.Kinds[kind]); n != 0 {
			addKind(&to.Tally, bpfWindowKind(kind), n)
		}
	}
}

// addKind counts n packets of one kind: enum window_kind of bpf/types.h.
func addKind(t *traffic.Tally, kind bpfWindowKind, n uint64) {
	t.Packets += n
	switch {
	case kind >= bpfWindowKindWINDOW_TCP:
		t.TCP += n
		addTCP(t, kind-bpfWindowKindWINDOW_TCP, n)
	case kind >= bpfWindowKindWINDOW_UDP:
		t.UDP += n
		t.Reflections[kind-bpfWindowKindWINDOW_UDP] += n
	case kind == bpfWindowKindWINDOW_ICMP:
		t.ICMP += n
	default:
		t.Other += n
	}
}

func addTCP(t *traffic.Tally, kind bpfWindowKind, n uint64) {
	const fin, syn, rst, ack = 1, 2, 4, 8
	data := kind&bpfWindowKindWINDOW_TCP_DATA != 0
	if kind&syn != 0 && kind&ack == 0 {
		t.SYN += n
		if kind&bpfWindowKindWINDOW_TCP_BARE != 0 {
			t.SYNNoOptions += n
		}
	}
	if kind&(syn|ack) == syn|ack {
		t.SYNACK += n
	}
	if kind&(syn|ack|fin|rst) == ack && !data {
		t.ACK += n
	}
	if kind&rst != 0 {
		t.RST += n
	}
	if kind&fin != 0 {
		t.FIN += n
	}
	if data && kind&syn == 0 {
		t.TCPData += n
	}
}

func readHistograms(to *traffic.Histograms, now, was *bpfWindowCell) {
	readBins(to.Sources[:], now.Sources[:], was.Sources[:])
	readBins(to.SourceNets[:], now.SourceNets[:], was.SourceNets[:])
	readBins(to.SourcePorts[:], now.SourcePorts[:], was.SourcePorts[:])
	readBins(to.DestPorts[:], now.DestPorts[:], was.DestPorts[:])
	readBins(to.Lengths[:], now.Lengths[:], was.Lengths[:])
	readBins(to.TTLs[:], now.Ttls[:], was.Ttls[:])
	readBins(to.Fingerprints[:], now.Fingerprints[:], was.Fingerprints[:])
}

// readBins reads four bins at once, most of which have not changed. The fields of a cell lie on multiples of 8 bytes.
func readBins(to []uint32, now, was []uint16) {
	fresh := unsafe.Slice((*uint64)(unsafe.Pointer(&now[0])), len(now)/4)
	old := unsafe.Slice((*uint64)(unsafe.Pointer(&was[0])), len(was)/4)
	for i := range fresh {
		n := atomic.LoadUint64(&fresh[i])
		if n == old[i] {
			continue
		}
		four := to[4*i : 4*i+4]
		for j := range four {
			four[j] += uint32(uint16(n>>(16*j)) - uint16(old[i]>>(16*j)))
		}
		old[i] = n
	}
}
