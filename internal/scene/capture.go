// SPDX-License-Identifier: Apache-2.0

package scene

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
)

// ReadCapture calls each with every packet of a pcap or pcapng file that has an Ethernet, raw
// IP, Linux cooked or loopback header, as an Ethernet frame that is valid during the call; others are left out. wire
// is the frame's length before the capture cut it.
func ReadCapture(path string, each func(at time.Time, frame []byte, wire int) error) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("open capture: %w", err)
	}
	defer f.Close()
	next, err := records(bufio.NewReaderSize(f, 1<<18))
	if err != nil {
		return fmt.Errorf("read capture %s: %w", path, err)
	}
	var frame []byte
	for {
		link, data, info, err := next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read capture %s: %w", path, err)
		}
		skip, kind, ok := network(link, data)
		if !ok {
			continue
		}
		frame = append(frame[:0], make([]byte, 12)...)
		frame = binary.BigEndian.AppendUint16(frame, kind)
		frame = append(frame, data[skip:]...)
		if err := each(info.Timestamp, frame, info.Length-skip+etherSize); err != nil {
			return fmt.Errorf("capture %s: %w", path, err)
		}
	}
}

type record func() (layers.LinkType, []byte, gopacket.CaptureInfo, error)

func records(r *bufio.Reader) (record, error) {
	magic, err := r.Peek(4)
	if err != nil {
		return nil, err
	}
	if binary.BigEndian.Uint32(magic) != 0x0a0d0d0a {
		old, err := pcapgo.NewReader(r)
		if err != nil {
			return nil, err
		}
		old.SetSnaplen(1 << 18) // some captures hold more than their header says
		return func() (layers.LinkType, []byte, gopacket.CaptureInfo, error) {
			data, info, err := old.ReadPacketData()
			return old.LinkType(), data, info, err
		}, nil
	}
	ng, err := pcapgo.NewNgReader(r, pcapgo.NgReaderOptions{WantMixedLinkType: true})
	if err != nil {
		return nil, err
	}
	return func() (layers.LinkType, []byte, gopacket.CaptureInfo, error) {
		data, info, err := ng.ZeroCopyReadPacketData()
		if err != nil {
			return 0, nil, info, err
		}
		link, ok := info.AncillaryData[0].(layers.LinkType)
		if !ok {
			return 0, nil, info, errors.New("a packet's interface has no link type")
		}
		return link, data, info, nil
	}, nil
}

// network says where the network header begins and what it is.
func network(link layers.LinkType, data []byte) (skip int, kind uint16, ok bool) {
	const raw12, raw14 = 12, 14 // raw IP as some systems number it
	switch link {
	case layers.LinkTypeEthernet:
		skip = etherSize
	case layers.LinkTypeLinuxSLL:
		skip = 16
	case layers.LinkTypeNull, layers.LinkTypeLoop:
		skip = 4
	case layers.LinkTypeRaw, raw12, raw14, layers.LinkTypeIPv4, layers.LinkTypeIPv6:
	default:
		return 0, 0, false
	}
	if len(data) <= skip {
		return 0, 0, false
	}
	if link == layers.LinkTypeEthernet || link == layers.LinkTypeLinuxSLL {
		return skip, binary.BigEndian.Uint16(data[skip-2:]), true
	}
	if data[skip]>>4 == 6 {
		return skip, uint16(layers.EthernetTypeIPv6), true
	}
	return skip, uint16(layers.EthernetTypeIPv4), true
}

// WriteCapture writes a stream as a pcap file with nanoseconds, for a replay, and returns the number of packets.
func WriteCapture(w io.Writer, s Stream, start time.Time) (packets int, err error) {
	b := bufio.NewWriterSize(w, 1<<18)
	out := pcapgo.NewWriterNanos(b)
	if err := out.WriteFileHeader(etherSize+maxIP, layers.LinkTypeEthernet); err != nil {
		return 0, fmt.Errorf("write capture: %w", err)
	}
	for p := range All(s) {
		info := gopacket.CaptureInfo{Timestamp: start.Add(p.Time), CaptureLength: len(p.Frame), Length: len(p.Frame)}
		if err := out.WritePacket(info, p.Frame); err != nil {
			return packets, fmt.Errorf("write capture: packet %d: %w", packets+1, err)
		}
		packets++
	}
	if err := b.Flush(); err != nil {
		return packets, fmt.Errorf("write capture: %w", err)
	}
	return packets, nil
}
