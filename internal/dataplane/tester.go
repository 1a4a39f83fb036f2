// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"errors"
	"fmt"
	"net/netip"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// Tester is the real program, attached nowhere, that judges one frame a call
// (BPF_PROG_TEST_RUN) at a time the caller gives. It serves replay and tests; the
// verbs of Plane work on it. Frames are judged one at a time.
type Tester struct {
	*Plane
	run     ebpf.RunOptions
	verdict [unsafe.Sizeof(bpfEvent{})]byte
}

// Verdict is what the program made of one frame.
type Verdict struct {
	Reason  traffic.Reason
	Outcome traffic.Outcome
	Parsed  Parsed
}

// Fragment is what the program took a packet for.
type Fragment uint8

// The kinds, in the order of enum fragment in bpf/types.h.
const (
	FragmentNone Fragment = iota
	FragmentFirst
	FragmentLater
)

// Parsed is what the program understood of a frame; of the inner packet, where Tunnel is set.
type Parsed struct {
	Source      netip.Addr // invalid: the frame has no readable source
	Destination netip.Addr
	Protocol    uint8
	SourcePort  uint16
	DestPort    uint16
	TCPFlags    uint8
	TTL         uint8
	VLANs       uint8
	Fragment    Fragment
	Tunnel      bool
	Length      uint32 // bytes of the frame
}

// ErrFrame is returned by Run for a frame that the kernel does not take for a test
// run: under 14 bytes, or, where multi-buffer frames are missing, over about 3.5 KiB.
var ErrFrame = errors.New("the kernel does not run a frame of this size")

// NewTester loads the program with a clock that Run sets. PinPath and EventsPerSecond of the options are ignored.
func NewTester(o Options) (*Tester, error) {
	o.PinPath, o.EventsPerSecond = "", 0
	p, err := load(o.withDefaults(), true)
	if err != nil {
		return nil, err
	}
	return &Tester{Plane: p}, nil
}

// Run judges one frame, at a time after the Unix epoch: expiry of list entries and
// the meter are measured on that clock.
func (t *Tester) Run(frame []byte, at time.Duration) (Verdict, error) {
	if err := t.objs.ReplayNow.Set(uint64(max(at, 1))); err != nil {
		return Verdict{}, fmt.Errorf("set the clock: %w", err)
	}
	t.run.Data = frame
	t.running.RLock()
	action, err := t.objs.Sentinel.Run(&t.run)
	t.running.RUnlock()
	if err != nil {
		return Verdict{}, explainRun(err, len(frame))
	}
	// As bytes: for the struct, the library goes through reflection, which takes 0.4 µs.
	if err := t.objs.ReplayVerdict.Get(&t.verdict); err != nil {
		return Verdict{}, fmt.Errorf("read the verdict: %w", err)
	}
	e := (*bpfEvent)(unsafe.Pointer(&t.verdict))
	v := Verdict{Reason: traffic.Reason(e.Reason), Outcome: traffic.Outcome(e.Outcome), Parsed: parsed(e)}
	const drop = 1 // XDP_DROP
	if (action == drop) != (v.Outcome == traffic.Dropped) {
		return v, fmt.Errorf("the program returned action %d with outcome %v", action, v.Outcome)
	}
	return v, nil
}

// SweepMeter is Plane.SweepMeter at a time after the Unix epoch.
func (t *Tester) SweepMeter(at time.Duration) { t.sweepMeter(at) }

// RunShort judges a frame of under 14 bytes by the first rule of docs/packet-path.md:
// no driver delivers one, captures may hold one, and the kernel runs none.
func (t *Tester) RunShort(frame []byte) Verdict {
	t.mu.Lock()
	defer t.mu.Unlock()
	v := Verdict{Reason: traffic.ReasonTruncated, Parsed: Parsed{Length: uint32(len(frame))}}
	switch {
	case t.knobs.Bypass != 0:
		v.Reason = traffic.ReasonBypass
	case t.knobs.DropMalformed != 0 && t.knobs.Observe != 0:
		v.Outcome = traffic.WouldDrop
	case t.knobs.DropMalformed != 0:
		v.Outcome = traffic.Dropped
	}
	return v
}

func explainRun(err error, size int) error {
	if errors.Is(err, unix.EINVAL) && size < 14 || errors.Is(err, unix.EMSGSIZE) {
		return fmt.Errorf("%w: %d bytes", ErrFrame, size)
	}
	return fmt.Errorf("run the program on a frame of %d bytes: %w", size, err)
}

func parsed(e *bpfEvent) Parsed {
	return Parsed{
		Source: addr(e.Family, e.Src), Destination: addr(e.Family, e.Dst),
		Protocol: e.Protocol, SourcePort: e.SrcPort, DestPort: e.DstPort,
		TCPFlags: e.TcpFlags, TTL: e.Ttl, VLANs: e.Vlans,
		Fragment: Fragment(e.Fragment), Tunnel: e.Tunnel != 0, Length: e.Length,
	}
}

func addr(family uint8, b [16]byte) netip.Addr {
	switch family {
	case 4:
		return netip.AddrFrom4([4]byte(b[:4]))
	case 6:
		return netip.AddrFrom16(b)
	}
	return netip.Addr{}
}
