// SPDX-License-Identifier: Apache-2.0

// Package capture reads capture files, pcap and pcapng, packet by packet as Ethernet
// frames, and says of a damaged one what is wrong with it and where.
package capture

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

const (
	magicMicroseconds = 0xa1b2c3d4
	magicNanoseconds  = 0xa1b23c4d
	magicSection      = 0x0a0d0d0a // of pcapng, the same in both byte orders
	magicGzip         = 0x1f8b

	// maxRecord bounds what a damaged length can make us read: libpcap's
	// largest snapshot length.
	maxRecord = 262144
)

// File is an open capture. It is not safe for concurrent use.
type File struct {
	path    string
	file    *os.File
	counted *countingReader
	r       *bufio.Reader
	format  format
	packets uint64
	last    time.Time // of a packet that had a time
	frame   []byte    // made-up Ethernet header and packet
}

// Packet is one of a capture.
type Packet struct {
	// Frame is Ethernet as it was captured; the packet of any other link type is
	// behind a header of zero addresses and the ethertype that its own link header
	// names (0x0000, no ethertype, if it names none). What is too short for its own
	// link header stays as it is, at most 13 bytes: truncated, like Ethernet that short.
	Frame  []byte // valid until the next call
	Time   time.Time
	Length int  // bytes on the wire, as the capture says
	Cut    bool // the capture has not all of them
}

// format reads the records of one file format. It returns io.EOF at a
// clean end only. The data is valid until the next call.
type format interface {
	next() (link layers.LinkType, data []byte, info gopacket.CaptureInfo, err error)
}

type countingReader struct {
	r io.Reader
	n int64
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// Open opens a capture: pcap with microseconds or nanoseconds in either
// byte order, or pcapng. The error says what is wrong with the file and where.
func Open(path string) (*File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open capture: %w", err)
	}
	c := newFile(path, f)
	c.file = f
	if err := c.detect(); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), f.Close())
	}
	return c, nil
}

func newFile(path string, r io.Reader) *File {
	c := &File{path: path, counted: &countingReader{r: r}}
	c.r = bufio.NewReaderSize(c.counted, 1<<18)
	return c
}

// Close closes the file.
func (c *File) Close() error { return c.file.Close() }

// offset is the position in the file of the next byte to be read.
func (c *File) offset() int64 { return c.counted.n - int64(c.r.Buffered()) }

func (c *File) detect() error {
	head, err := c.r.Peek(4)
	switch {
	case len(head) == 0 && errors.Is(err, io.EOF):
		return errors.New("the file is empty, not a capture")
	case len(head) < 4 && errors.Is(err, io.EOF):
		return fmt.Errorf("not a capture: %d bytes are too few for a pcap or pcapng header", len(head))
	case err != nil:
		return fmt.Errorf("read capture: %w", err)
	}
	switch {
	case binary.BigEndian.Uint32(head) == magicSection:
		c.format, err = newNgFormat(c.r)
	case binary.BigEndian.Uint16(head) == magicGzip:
		return errors.New("the file is compressed; unpack it first (gunzip)")
	default:
		c.format, err = newPcapFormat(c.r)
	}
	return err
}

// Next returns the next packet. It returns io.EOF behind the last one; any other
// error names the file, the packet and the byte. After a LinkError the next packet
// can be read, after every other one nothing more.
func (c *File) Next() (Packet, error) {
	start := c.offset()
	link, data, info, err := c.format.next()
	if errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return Packet{}, io.EOF
	}
	if err == nil {
		c.packets++
		c.frame, err = etherFrame(c.frame[:0], link, data)
	}
	if err != nil {
		return Packet{}, fmt.Errorf("%s: %w", c.path, c.explain(err, start))
	}
	if !info.Timestamp.IsZero() { // simple packet blocks have no time
		c.last = info.Timestamp
	} else if c.last.IsZero() {
		c.last = time.Unix(0, 0).UTC()
	}
	return Packet{Frame: c.frame, Time: c.last, Length: info.Length, Cut: len(data) < info.Length}, nil
}

// Each calls do with every packet of a capture but those of link types that do
// not become Ethernet, until do returns an error.
func Each(path string, do func(Packet) error) error {
	c, err := Open(path)
	if err != nil {
		return err
	}
	defer c.Close()
	for {
		p, err := c.Next()
		var link LinkError
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case errors.As(err, &link):
			continue
		case err != nil:
			return err
		}
		if err := do(p); err != nil {
			return fmt.Errorf("%s: packet %d: %w", path, c.packets, err)
		}
	}
}

// explain says at which packet and byte an error came up, and what to do.
func (c *File) explain(err error, start int64) error {
	var link LinkError
	switch {
	case errors.As(err, &link):
		return fmt.Errorf("packet %d at byte %d: %w", c.packets, start, err)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("the file is cut: it ends at byte %d, inside what starts at byte %d behind packet %d", c.offset(), start, c.packets)
	}
	return fmt.Errorf("packet %d at byte %d: %w; the file is damaged from here on", c.packets+1, start, err)
}

// pcapFormat is the classic file: a header, then records.
type pcapFormat struct {
	r       io.Reader
	order   binary.ByteOrder
	tick    int64 // nanoseconds
	link    layers.LinkType
	limit   uint32
	swapped func(captured, length uint32) bool
	header  [16]byte
	data    []byte
}

func newPcapFormat(r io.Reader) (*pcapFormat, error) {
	var h [24]byte
	n, err := io.ReadFull(r, h[:])
	if n < 4 {
		return nil, fmt.Errorf("read capture: %w", err)
	}
	f := &pcapFormat{r: r, order: binary.LittleEndian, tick: 1000}
	magic := f.order.Uint32(h[:])
	if magic != magicMicroseconds && magic != magicNanoseconds {
		f.order = binary.BigEndian
		magic = f.order.Uint32(h[:])
	}
	switch {
	case magic == magicNanoseconds:
		f.tick = 1
	case magic != magicMicroseconds:
		return nil, fmt.Errorf("neither pcap nor pcapng: the file starts with %x", h[:4])
	}
	if err != nil {
		return nil, fmt.Errorf("the file is cut: %d bytes of 24 of the pcap header", n)
	}
	major, minor := f.order.Uint16(h[4:]), f.order.Uint16(h[6:])
	if major != 2 {
		return nil, fmt.Errorf("pcap version %d.%d is not known; 2.0 to 2.4 are", major, minor)
	}
	f.swapped = swapRule(minor)
	f.limit = max(maxRecord, min(f.order.Uint32(h[16:]), 1<<24))
	f.link = layers.LinkType(f.order.Uint32(h[20:]) & 0xffff) // above: FCS length and flags
	return f, nil
}

// swapRule: before version 2.3, and in some files of 2.3, the two lengths of a
// record are the other way round.
func swapRule(minor uint16) func(captured, length uint32) bool {
	return func(captured, length uint32) bool {
		return minor < 3 && captured != length || minor == 3 && captured > length
	}
}

func (f *pcapFormat) next() (layers.LinkType, []byte, gopacket.CaptureInfo, error) {
	var info gopacket.CaptureInfo
	if _, err := io.ReadFull(f.r, f.header[:]); err != nil {
		return 0, nil, info, err // io.EOF if not one byte was left
	}
	captured, length := f.order.Uint32(f.header[8:]), f.order.Uint32(f.header[12:])
	if f.swapped(captured, length) {
		captured, length = length, captured
	}
	if captured > f.limit {
		return 0, nil, info, fmt.Errorf("a record of %d bytes, more than a capture can hold", captured)
	}
	if cap(f.data) < int(captured) {
		f.data = make([]byte, captured)
	}
	f.data = f.data[:captured]
	if _, err := io.ReadFull(f.r, f.data); err != nil {
		return 0, nil, info, cutOff(err)
	}
	info.Timestamp = time.Unix(int64(f.order.Uint32(f.header[:])), int64(f.order.Uint32(f.header[4:]))*f.tick).UTC()
	info.CaptureLength, info.Length = int(captured), int(length)
	return f.link, f.data, info, nil
}

func cutOff(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// ngFormat is pcapng, whose interfaces may each have a link type of their own.
type ngFormat struct{ r *pcapgo.NgReader }

func newNgFormat(r *bufio.Reader) (*ngFormat, error) {
	// pcapgo reads from a bufio.Reader of this size directly, so that our offset stays true.
	ng, err := pcapgo.NewNgReader(r, pcapgo.NgReaderOptions{WantMixedLinkType: true})
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return nil, errors.New("the file is cut inside the pcapng section header")
	}
	if err != nil {
		return nil, fmt.Errorf("read pcapng section header: %w", err)
	}
	return &ngFormat{ng}, nil
}

func (f *ngFormat) next() (layers.LinkType, []byte, gopacket.CaptureInfo, error) {
	data, info, err := f.r.ZeroCopyReadPacketData()
	if err != nil {
		return 0, nil, info, err
	}
	link, ok := info.AncillaryData[0].(layers.LinkType)
	if !ok {
		return 0, nil, info, errors.New("the packet's interface has no link type")
	}
	return link, data, info, nil
}

// LinkError is a link type that cannot be turned into Ethernet.
type LinkError layers.LinkType

func (l LinkError) Error() string {
	return fmt.Sprintf("link type %d is not supported; Ethernet, raw IP, Linux cooked, loopback, PPP and Cisco HDLC are", int(l))
}

// Raw IP as some systems number it.
const (
	linkRaw12 layers.LinkType = 12
	linkRaw14 layers.LinkType = 14
)

// etherFrame appends a packet of the given link type to b as Packet.Frame is to be.
func etherFrame(b []byte, link layers.LinkType, data []byte) ([]byte, error) {
	if link == layers.LinkTypeEthernet {
		return append(b, data...), nil
	}
	skip, ok := linkHeader(link, data)
	if !ok {
		return b, LinkError(link)
	}
	if skip > len(data) {
		return append(b, data[:min(len(data), 13)]...), nil
	}
	b = append(b, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, etherType(link, data, skip))
	return append(b, data[skip:]...), nil
}

// linkHeader returns the size of the link header, and false for a type we do not know.
func linkHeader(link layers.LinkType, data []byte) (int, bool) {
	switch link {
	case layers.LinkTypeRaw, linkRaw12, linkRaw14, layers.LinkTypeIPv4, layers.LinkTypeIPv6:
		return 0, true
	case layers.LinkTypeLinuxSLL:
		return 16, true
	case layers.LinkTypeLinuxSLL2:
		return 20, true
	case layers.LinkTypeNull, layers.LinkTypeLoop, layers.LinkTypeC_HDLC:
		return 4, true
	case layers.LinkTypePPP, layers.LinkTypePPP_HDLC:
		if len(data) >= 2 && data[0] == 0xff && data[1] == 3 { // address and control, often left out
			return 4, true
		}
		return 2, true
	}
	return 0, false
}

// etherType returns what the link header, which fits data, says comes next.
func etherType(link layers.LinkType, data []byte, skip int) uint16 {
	const ipv4, ipv6, none = 0x0800, 0x86dd, 0
	switch link {
	case layers.LinkTypeIPv4:
		return ipv4
	case layers.LinkTypeIPv6:
		return ipv6
	case layers.LinkTypeLinuxSLL, layers.LinkTypeC_HDLC:
		return binary.BigEndian.Uint16(data[skip-2:])
	case layers.LinkTypeLinuxSLL2:
		return binary.BigEndian.Uint16(data)
	case layers.LinkTypeNull, layers.LinkTypeLoop:
		return familyType(data)
	case layers.LinkTypePPP, layers.LinkTypePPP_HDLC:
		switch binary.BigEndian.Uint16(data[skip-2:]) {
		case 0x0021:
			return ipv4
		case 0x0057:
			return ipv6
		}
		return none
	}
	if len(data) > 0 && data[0]>>4 == 6 {
		return ipv6
	}
	return ipv4
}

// familyType maps the address family of a loopback header, a 32-bit number in
// the byte order of the machine that captured.
func familyType(data []byte) uint16 {
	family := binary.BigEndian.Uint32(data)
	if family > 0xff {
		family = binary.LittleEndian.Uint32(data)
	}
	switch family {
	case 2:
		return 0x0800
	case 10, 24, 28, 30: // Linux, NetBSD, FreeBSD, macOS
		return 0x86dd
	}
	return 0
}
