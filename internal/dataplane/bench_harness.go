// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"

	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

//go:generate go tool bpf2go -go-package dataplane -target bpfel -cc clang-19 -strip llvm-strip-19 -type prefix_key bench ../../bpf/bench.bpf.c -- -O2 -g -Wall -Wextra -Werror -Wno-unused-parameter -mcpu=v3 -I../../bpf/include

// stream says which sources the packets of a measurement have: addresses of the
// indices from first on, count of them in a random order, or, with count 0, each one once.
type stream struct {
	family uint32 // 4 or 6
	first  uint32
	count  uint32
}

// strangers is the first index of the sources that are on no list: lists begin at 0.
const strangers = 1 << 31

// harness gives every packet of a test run another source before the program sees
// it. What that costs by itself is the baseline.
type harness struct {
	objs struct {
		Stir        *ebpf.Program  `ebpf:"stir"`
		Drop        *ebpf.Program  `ebpf:"drop"`
		Next        *ebpf.Map      `ebpf:"next"`
		FirstSource *ebpf.Variable `ebpf:"first_source"`
		SourceCount *ebpf.Variable `ebpf:"source_count"`
		Family      *ebpf.Variable `ebpf:"family"`
	}
}

// newHarness loads the harness. A program can only hand packets on to one that is
// loaded with the same flags.
func newHarness(frags bool) (*harness, error) {
	spec, err := loadBench()
	if err != nil {
		return nil, fmt.Errorf("read the benchmark's programs: %w", err)
	}
	if frags {
		for _, p := range spec.Programs {
			p.Flags |= bpfFXDPHasFrags
		}
	}
	h := &harness{}
	if err := spec.LoadAndAssign(&h.objs, nil); err != nil {
		return nil, fmt.Errorf("load the benchmark's programs: %w", err)
	}
	return h, nil
}

func (h *harness) close() error {
	return errors.Join(h.objs.Stir.Close(), h.objs.Drop.Close(), h.objs.Next.Close())
}

// prepare makes the next packets come from a stream, and go to a program.
func (h *harness) prepare(program *ebpf.Program, s stream) error {
	for v, value := range map[*ebpf.Variable]uint32{
		h.objs.FirstSource: s.first, h.objs.SourceCount: s.count, h.objs.Family: s.family,
	} {
		if err := v.Set(value); err != nil {
			return fmt.Errorf("choose the sources of the test packets: %w", err)
		}
	}
	if err := h.objs.Next.Put(uint32(0), program); err != nil {
		return fmt.Errorf("put the program behind the harness: %w", err)
	}
	return nil
}

// run sends packets through a program and returns the mean time of one, in ns.
func (h *harness) run(program *ebpf.Program, frame []byte, s stream, packets int) (float64, error) {
	if err := h.prepare(program, s); err != nil {
		return 0, err
	}
	_, d, err := h.objs.Stir.Benchmark(frame, packets, nil)
	if errors.Is(err, ebpf.ErrNotSupported) {
		return 0, fmt.Errorf("this kernel cannot run a program on a test packet: %w", err)
	}
	if err != nil {
		return 0, fmt.Errorf("run the program on test packets: %w", err)
	}
	return float64(d.Nanoseconds()), nil
}

// sourceAt returns the address of an index, as the harness writes it.
func sourceAt(family, index uint32) netip.Addr {
	if family == 4 {
		var b [4]byte
		binary.LittleEndian.PutUint32(b[:], mix32(index))
		return netip.AddrFrom4(b)
	}
	var b [16]byte
	high := traffic.HashMix(uint64(index)+1)&^0xe0 | 0x20
	binary.LittleEndian.PutUint64(b[:8], high)
	binary.LittleEndian.PutUint64(b[8:], traffic.HashMix(high))
	return netip.AddrFrom16(b)
}

// mix32 is that of bpf/bench.bpf.c.
func mix32(x uint32) uint32 {
	x = (x ^ x>>16) * 0x7feb352d
	x = (x ^ x>>15) * 0x846ca68b
	return x ^ x>>16
}

// listedPrefixes returns n prefixes, each around the address of its index: of IPv4
// /24 to /32, of IPv6 /48, /56, /64 and /128, in a mixture without order.
func listedPrefixes(family uint32, n int) []netip.Prefix {
	lengths6 := [...]int{48, 56, 64, 64, 64, 64, 128, 128}
	all := make([]netip.Prefix, n)
	for i := range all {
		length := 24 + i%9
		if family == 6 {
			length = lengths6[i%len(lengths6)]
		}
		all[i] = netip.PrefixFrom(sourceAt(family, uint32(i)), length).Masked()
	}
	return all
}
