// SPDX-License-Identifier: Apache-2.0

package scene

import (
	"bufio"
	"bytes"
	"compress/gzip"
	_ "embed"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// Class is what a flow is used for.
type Class string

// The classes.
const (
	ClassWeb    Class = "web"    // HTTP, TLS and QUIC
	ClassDNS    Class = "dns"    // queries and answers over UDP
	ClassStream Class = "stream" // DNS over TCP and TLS
	ClassGame   Class = "game"   // game servers, mostly UDP
	ClassVPN    Class = "vpn"    // WireGuard, OpenVPN, IPsec, DTLS …
	ClassMail   Class = "mail"   // SMTP, POP, IMAP
	ClassVoice  Class = "voice"  // calls: signalling and media
	ClassRemote Class = "remote" // shells and desktops
	ClassTime   Class = "time"   // NTP
	ClassOther  Class = "other"  // databases, machines, file sharing …
)

// Template is one flow of a real capture, without its addresses and most of its data.
type Template struct {
	Name       string // of the capture
	Class      Class
	Protocol   uint8 // TCP or UDP
	IPv6       bool
	ClientPort uint16
	ServerPort uint16
	Weight     float64 // connections a second in the mix the capture comes with; 0: it says none
	Steps      []Step
}

// Step is one packet of a flow.
type Step struct {
	Gap        time.Duration // since the flow's packet before, to the microsecond
	Reverse    bool          // from server to client
	Length     uint16        // IP length
	TTL        uint8
	DF         bool
	Flags      uint8 // TCP from here
	DataOffset uint8
	Window     uint16
	Head       []byte // first bytes of the data, at most MaxHead; few packets of a flow have them
}

// headers is the length of the headers of a packet.
func (t *Template) headers(s *Step) int {
	n := 28
	if t.Protocol == protoTCP {
		n = 20 + 4*int(s.DataOffset)
	}
	if t.IPv6 {
		n += 20
	}
	return n
}

// data is how many bytes a packet carries behind its headers.
func (t *Template) data(s *Step) int { return int(s.Length) - t.headers(s) }

// Limits of a template file. Reading holds them.
const (
	MaxHead      = 32
	maxTemplates = 1 << 14
	maxSteps     = 1 << 10
	maxName      = 64
	maxGap       = uint64(time.Hour / time.Microsecond)
)

const templateMagic = "sentinel-x templates 1\n"

//go:embed templates/flows.bin.gz
var embedded []byte

// Templates returns the templates that come with the program. They are shared: do not change them.
var Templates = sync.OnceValue(func() []Template {
	list, err := ReadTemplates(bytes.NewReader(embedded))
	if err != nil {
		panic(fmt.Sprintf("scene: the templates in the program: %v", err))
	}
	return list
})

// WriteTemplates writes what ReadTemplates reads, the same bytes for the same templates.
func WriteTemplates(w io.Writer, list []Template) error {
	z, err := gzip.NewWriterLevel(w, gzip.BestCompression)
	if err != nil {
		return err
	}
	e := encoder{w: bufio.NewWriter(z)}
	e.w.WriteString(templateMagic)
	e.number(uint64(len(list)))
	for i := range list {
		e.template(&list[i])
	}
	if err := errors.Join(e.w.Flush(), z.Close()); err != nil {
		return fmt.Errorf("write templates: %w", err)
	}
	return nil
}

type encoder struct {
	w   *bufio.Writer
	buf [binary.MaxVarintLen64]byte
}

func (e *encoder) number(n uint64) { e.w.Write(e.buf[:binary.PutUvarint(e.buf[:], n)]) }

func (e *encoder) text(s string) {
	e.number(uint64(len(s)))
	e.w.WriteString(s)
}

func bit(set bool, at int) uint64 {
	if set {
		return 1 << at
	}
	return 0
}

func (e *encoder) template(t *Template) {
	e.text(t.Name)
	e.text(string(t.Class))
	for _, n := range []uint64{uint64(t.Protocol), bit(t.IPv6, 0), uint64(t.ClientPort), uint64(t.ServerPort), uint64(t.Weight*1000 + .5), uint64(len(t.Steps))} {
		e.number(n)
	}
	for i := range t.Steps {
		s := &t.Steps[i]
		e.number(bit(s.Reverse, 0) | bit(s.DF, 1) | bit(len(s.Head) > 0, 2))
		e.number(uint64(s.Gap / time.Microsecond))
		e.number(uint64(s.Length))
		e.number(uint64(s.TTL))
		if t.Protocol == protoTCP {
			e.number(uint64(s.Flags))
			e.number(uint64(s.DataOffset))
			e.number(uint64(s.Window))
		}
		if len(s.Head) > 0 {
			e.text(string(s.Head))
		}
	}
}

// ReadTemplates reads a template file and checks that frames can be made of every step.
func ReadTemplates(r io.Reader) ([]Template, error) {
	z, err := gzip.NewReader(r)
	if err != nil {
		return nil, fmt.Errorf("read templates: %w", err)
	}
	d := decoder{r: bufio.NewReader(z)}
	magic := make([]byte, len(templateMagic))
	if _, err := io.ReadFull(d.r, magic); err != nil || string(magic) != templateMagic {
		return nil, errors.New("read templates: not a template file of version 1")
	}
	var list []Template
	for n := d.number(maxTemplates); n > 0 && d.err == nil; n-- {
		list = append(list, d.template())
	}
	if d.err != nil {
		return nil, fmt.Errorf("read templates: template %d: %w", len(list), d.err)
	}
	switch _, err := d.r.ReadByte(); { // the checksum is behind the last byte
	case err == nil:
		return nil, errors.New("read templates: more follows the last one")
	case !errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return nil, fmt.Errorf("read templates: %w", err)
	}
	return list, nil
}

// decoder keeps the first error; after it, everything reads as 0.
type decoder struct {
	r   *bufio.Reader
	err error
}

func (d *decoder) number(limit uint64) uint64 {
	if d.err != nil {
		return 0
	}
	n, err := binary.ReadUvarint(d.r)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if err == nil && n > limit {
		err = fmt.Errorf("a field is %d, more than %d", n, limit)
	}
	if err != nil {
		d.err = err
		return 0
	}
	return n
}

func (d *decoder) text(limit uint64) string {
	b := make([]byte, d.number(limit))
	if d.err == nil {
		_, d.err = io.ReadFull(d.r, b)
	}
	return string(b)
}

func (d *decoder) template() (t Template) {
	t.Name = d.text(maxName)
	t.Class = Class(d.text(maxName))
	t.Protocol = uint8(d.number(255))
	t.IPv6 = d.number(1) == 1
	t.ClientPort, t.ServerPort = uint16(d.number(65535)), uint16(d.number(65535))
	t.Weight = float64(d.number(1e9)) / 1000
	if d.err == nil && t.Protocol != protoTCP && t.Protocol != protoUDP {
		d.err = fmt.Errorf("protocol %d", t.Protocol)
	}
	n := d.number(maxSteps)
	if d.err == nil && n == 0 {
		d.err = errors.New("a flow without packets")
	}
	for ; n > 0 && d.err == nil; n-- {
		t.Steps = append(t.Steps, d.step(&t))
	}
	return t
}

func (d *decoder) step(t *Template) (s Step) {
	bits := d.number(7)
	s.Reverse, s.DF = bits&1 != 0, bits&2 != 0
	s.Gap = time.Duration(d.number(maxGap)) * time.Microsecond
	s.Length = uint16(d.number(maxIP))
	s.TTL = uint8(d.number(255))
	if t.Protocol == protoTCP {
		s.Flags, s.DataOffset, s.Window = uint8(d.number(255)), uint8(d.number(15)), uint16(d.number(65535))
	}
	if bits&4 != 0 {
		s.Head = []byte(d.text(MaxHead))
	}
	if d.err == nil && (t.data(&s) < len(s.Head) || t.Protocol == protoTCP && s.DataOffset < 5) {
		d.err = fmt.Errorf("a packet of %d bytes has no room for its headers and %d bytes of data", s.Length, len(s.Head))
	}
	return s
}
