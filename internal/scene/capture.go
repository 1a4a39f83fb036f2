// SPDX-License-Identifier: Apache-2.0

package scene

import (
	"bufio"
	"fmt"
	"io"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
)

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
