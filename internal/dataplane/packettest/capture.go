// SPDX-License-Identifier: Apache-2.0

package packettest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
)

// Record is one packet of a capture, as the file has it.
type Record struct {
	Link layers.LinkType
	Data []byte // valid until the next record
	Info gopacket.CaptureInfo
}

// ReadCapture calls each for every record of a pcap or pcapng file, through
// gopacket alone. It is the tests' own count of a capture.
func ReadCapture(path string, each func(Record) error) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	next, err := records(bufio.NewReaderSize(f, 1<<20))
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	for {
		r, err := next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", path, err)
		}
		if err := each(r); err != nil {
			return err
		}
	}
}

func records(r *bufio.Reader) (func() (Record, error), error) {
	magic, err := r.Peek(4)
	if err != nil {
		return nil, err
	}
	if magic[0] == 0x0a && magic[1] == 0x0d {
		ng, err := pcapgo.NewNgReader(r, pcapgo.NgReaderOptions{WantMixedLinkType: true})
		if err != nil {
			return nil, err
		}
		return func() (Record, error) {
			data, info, err := ng.ZeroCopyReadPacketData()
			if err != nil {
				return Record{}, err
			}
			return Record{info.AncillaryData[0].(layers.LinkType), data, info}, nil
		}, nil
	}
	old, err := pcapgo.NewReader(r)
	if err != nil {
		return nil, err
	}
	link := old.LinkType() & 0xffff // above are FCS length and flags
	return func() (Record, error) {
		data, info, err := old.ZeroCopyReadPacketData()
		return Record{link, data, info}, err
	}, nil
}

// Captures returns the paths of the captures below dir's directories that
// match the patterns, sorted.
func Captures(dir string, patterns ...string) ([]string, error) {
	var all []string
	for _, p := range patterns {
		for _, ext := range []string{"*.pcap", "*.pcapng"} {
			found, err := filepath.Glob(filepath.Join(dir, p, ext))
			if err != nil {
				return nil, fmt.Errorf("list captures: %w", err)
			}
			all = append(all, found...)
		}
	}
	sort.Strings(all)
	return all, nil
}

// WriteCapture writes Ethernet frames to a pcap file, a millisecond apart.
func WriteCapture(path string, frames [][]byte) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	w := pcapgo.NewWriter(f)
	err = w.WriteFileHeader(262144, layers.LinkTypeEthernet)
	for i, frame := range frames {
		if err != nil {
			break
		}
		info := gopacket.CaptureInfo{
			Timestamp:     time.Unix(1700000000, int64(i)*int64(time.Millisecond)),
			CaptureLength: len(frame), Length: len(frame),
		}
		err = w.WritePacket(info, frame)
	}
	return errors.Join(err, f.Close())
}
