// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
	"golang.org/x/sys/unix"
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

// Play sends a pcap or pcapng file out of the interface. Captures of bare IP
// packets get an Ethernet header. It ends early, without an error, when ctx does.
func (l *Link) Play(ctx context.Context, file string, o PlayOptions) (PlayReport, error) {
	f, err := os.Open(file)
	if err != nil {
		return PlayReport{}, fmt.Errorf("open capture: %w", err)
	}
	defer f.Close()
	r, err := newCaptureReader(f)
	if err != nil {
		return PlayReport{}, fmt.Errorf("read capture %s: %w", file, err)
	}
	s, err := l.NewSender()
	if err != nil {
		return PlayReport{}, err
	}
	defer s.Close()
	p := player{options: o, reader: r, sender: s, start: time.Now()}
	err = p.play(ctx)
	p.report.Elapsed = time.Since(p.start)
	if err != nil {
		err = fmt.Errorf("play capture %s: %w", file, err)
	}
	return p.report, err
}

type captureReader interface {
	ReadPacketData() ([]byte, gopacket.CaptureInfo, error)
	LinkType() layers.LinkType
}

func newCaptureReader(f io.ReadSeeker) (captureReader, error) {
	r, err := pcapgo.NewReader(f)
	if err == nil {
		return r, nil
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	ng, ngErr := pcapgo.NewNgReader(f, pcapgo.NgReaderOptions{ErrorOnMismatchingLinkType: true})
	if ngErr != nil {
		return nil, fmt.Errorf("neither pcap (%w) nor pcapng (%w)", err, ngErr)
	}
	return ng, nil
}

type player struct {
	options PlayOptions
	reader  captureReader
	sender  *Sender
	start   time.Time
	first   time.Time // of the capture
	report  PlayReport
}

func (p *player) play(ctx context.Context) error {
	for {
		data, info, err := p.reader.ReadPacketData()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("packet %d: %w", p.report.Sent+p.report.Skipped+1, err)
		}
		p.waitUntilDue(ctx, info.Timestamp)
		if ctx.Err() != nil {
			return nil
		}
		if err := p.send(data, info); err != nil {
			return err
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

func (p *player) send(data []byte, info gopacket.CaptureInfo) error {
	frame, err := p.frame(data)
	if err != nil {
		return err
	}
	if info.CaptureLength < info.Length || len(frame) < ethernetLength {
		p.report.Skipped++
		return nil
	}
	switch err := p.sender.Send(frame); {
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

func (p *player) frame(data []byte) ([]byte, error) {
	switch t := p.reader.LinkType(); t {
	case layers.LinkTypeEthernet:
		data = append([]byte(nil), data...)
	case layers.LinkTypeRaw, layers.LinkTypeIPv4, layers.LinkTypeIPv6, 12: // 12: raw IP as BSD writes it
		data = wrapIP(data)
	default:
		return nil, fmt.Errorf("link type %s cannot be sent over Ethernet: convert the capture, or use another", t)
	}
	if len(data) >= ethernetLength {
		copy(data[0:6], p.options.DestMAC)
		copy(data[6:12], p.options.SourceMAC)
	}
	return data, nil
}

func wrapIP(packet []byte) []byte {
	header := make([]byte, ethernetLength)
	header[12], header[13] = 0x08, 0x00
	if len(packet) > 0 && packet[0]>>4 == 6 {
		header[12], header[13] = 0x86, 0xdd
	}
	return append(header, packet...)
}

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
