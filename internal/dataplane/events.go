// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/cilium/ebpf/ringbuf"

	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// Events hands every sampled packet to f until ctx ends, and returns nil then. Only
// one caller may read at a time. Events that a full ring refused are in Counters.
func (p *Plane) Events(ctx context.Context, f func(traffic.Event)) error {
	r, err := ringbuf.NewReader(p.objs.Samples)
	if err != nil {
		return fmt.Errorf("open the ring of events: %w", err)
	}
	defer r.Close()
	// Close wakes a reader that waits; a deadline would wait for that reader's lock.
	stop := context.AfterFunc(ctx, func() { r.Close() })
	defer stop()
	var rec ringbuf.Record
	var e bpfEvent
	for {
		switch err := r.ReadInto(&rec); {
		case errors.Is(err, ringbuf.ErrClosed):
			return nil
		case err != nil:
			return fmt.Errorf("read the ring of events: %w", err)
		}
		if err := binary.Read(bytes.NewReader(rec.RawSample), binary.LittleEndian, &e); err != nil {
			return fmt.Errorf("decode an event of %d bytes: %w", len(rec.RawSample), err)
		}
		f(event(&e))
	}
}

func event(e *bpfEvent) traffic.Event {
	p := parsed(e)
	return traffic.Event{
		Time:      time.Now().Add(-time.Duration(monotonic() - e.Time)),
		Interface: int(e.Ifindex), Reason: traffic.Reason(e.Reason), Outcome: traffic.Outcome(e.Outcome),
		Source: p.Source, Destination: p.Destination, Protocol: p.Protocol,
		SourcePort: p.SourcePort, DestPort: p.DestPort, TCPFlags: p.TCPFlags, TTL: p.TTL,
		Length: p.Length, VLANs: p.VLANs, Fragment: p.Fragment != FragmentNone, Tunnel: p.Tunnel,
	}
}
