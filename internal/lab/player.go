// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sentinel-x/sentinel-x/internal/capture"
)

// PlayOptions choose how a capture is played. The zero value plays it as fast as
// it goes, unchanged.
type PlayOptions struct {
	Speed     float64          // 1: in the capture's own time, 2: twice as fast; 0: as fast as it goes
	DestMAC   net.HardwareAddr // replaces the destination, so that the receiver takes the frames
	SourceMAC net.HardwareAddr // replaces the source
}

// PlayReport says what became of a capture's packets.
type PlayReport struct {
	Sent    uint64
	Skipped uint64 // cut short by the capture, or longer than the MTU allows
	Elapsed time.Duration
}

// Play sends a pcap or pcapng file out of the interface. Captures of other
// link types get an Ethernet header. It ends early, without an error, when ctx does.
func (l *Link) Play(ctx context.Context, file string, o PlayOptions) (PlayReport, error) {
	c, err := capture.Open(file)
	if err != nil {
		return PlayReport{}, err
	}
	defer c.Close()
	s, err := l.NewSender()
	if err != nil {
		return PlayReport{}, err
	}
	defer s.Close()
	p := player{options: o, capture: c, sender: s, start: time.Now()}
	err = p.play(ctx)
	p.report.Elapsed = time.Since(p.start)
	if err != nil {
		err = fmt.Errorf("play capture: %w", err)
	}
	return p.report, err
}

type player struct {
	options PlayOptions
	capture *capture.File
	sender  *Sender
	start   time.Time
	first   time.Time // of the capture
	report  PlayReport
}

func (p *player) play(ctx context.Context) error {
	for {
		packet, err := p.capture.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		p.waitUntilDue(ctx, packet.Time)
		if ctx.Err() != nil {
			return nil
		}
		if err := p.send(packet); err != nil {
			return fmt.Errorf("packet %d: %w", p.report.Sent+p.report.Skipped+1, err)
		}
	}
}

func (p *player) waitUntilDue(ctx context.Context, at time.Time) {
	if p.first.IsZero() {
		p.first = at
	}
	if p.options.Speed <= 0 {
		return
	}
	due := p.start.Add(time.Duration(float64(at.Sub(p.first)) / p.options.Speed))
	wait(ctx, time.Until(due))
}

func (p *player) send(packet capture.Packet) error {
	if packet.Cut || len(packet.Frame) < ethernetLength {
		p.report.Skipped++
		return nil
	}
	copy(packet.Frame[0:6], p.options.DestMAC)
	copy(packet.Frame[6:12], p.options.SourceMAC)
	switch err := p.sender.Send(packet.Frame); {
	case errors.Is(err, unix.EMSGSIZE):
		p.report.Skipped++
	case err != nil:
		return err
	default:
		p.report.Sent++
	}
	return nil
}

const ethernetLength = 14

// wait waits for d, or for ctx.
func wait(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
