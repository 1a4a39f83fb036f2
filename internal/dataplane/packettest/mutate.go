// SPDX-License-Identifier: Apache-2.0

package packettest

import (
	"encoding/binary"
	"math/rand/v2"

	"github.com/gopacket/gopacket/layers"
)

// MaxFuzzFrame is the longest frame a Mutator returns: what a program without
// multi-buffer support is given.
const MaxFuzzFrame = 2048

// Mutator makes frames out of seeds: it knows where headers are and breaks
// them one field at a time, as well as blindly.
type Mutator struct {
	rand  *rand.Rand
	seeds [][]byte
	// frame under work
	frame []byte
	spare []byte
}

// NewMutator returns a mutator of the seeds, which must not be empty.
// The same seed number gives the same frames.
func NewMutator(seeds [][]byte, seed uint64) *Mutator {
	return &Mutator{rand: rand.New(rand.NewPCG(seed, 0x5e717e1)), seeds: seeds}
}

// Next returns a frame of 14 to MaxFuzzFrame bytes, valid until the next call.
// One in eight is a seed as it is.
func (m *Mutator) Next() []byte {
	m.frame = append(m.frame[:0], m.seeds[m.rand.IntN(len(m.seeds))]...)
	for n := m.rand.IntN(8); n > 0; n -= 2 {
		mutations[m.rand.IntN(len(mutations))](m)
	}
	return m.bound()
}

// Mutate returns the frame with a few mutations, valid until the next call.
func (m *Mutator) Mutate(frame []byte) []byte {
	m.frame = append(m.frame[:0], frame...)
	for n := 1 + m.rand.IntN(3); n > 0; n-- {
		mutations[m.rand.IntN(len(mutations))](m)
	}
	return m.bound()
}

func (m *Mutator) bound() []byte {
	if len(m.frame) > MaxFuzzFrame {
		m.frame = m.frame[:MaxFuzzFrame]
	}
	for len(m.frame) < 14 {
		m.frame = append(m.frame, 0)
	}
	return m.frame
}

// mutations each change m.frame. Those that say more about a packet come more often.
var mutations = []func(*Mutator){
	(*Mutator).flipBit, (*Mutator).setByte, (*Mutator).setByte,
	(*Mutator).headerByte, (*Mutator).headerByte, (*Mutator).headerByte, (*Mutator).headerByte,
	(*Mutator).truncate, (*Mutator).extend,
	(*Mutator).length4or6, (*Mutator).length4or6, (*Mutator).ihl, (*Mutator).fragmentField, (*Mutator).fragmentField,
	(*Mutator).protocol, (*Mutator).protocol, (*Mutator).ttl, (*Mutator).addresses,
	(*Mutator).tag, (*Mutator).option, (*Mutator).extension, (*Mutator).extension, (*Mutator).extensions,
	(*Mutator).extensionField, (*Mutator).extensionField, (*Mutator).fragmentHeader,
	(*Mutator).wrap, (*Mutator).wrap, (*Mutator).wrapFirst, (*Mutator).wrapFirst, (*Mutator).transportByte, (*Mutator).transportByte, (*Mutator).tcpFlags,
	(*Mutator).transportLength, (*Mutator).etherType, (*Mutator).innerField, (*Mutator).cross,
}

func (m *Mutator) at(limit int) int {
	return m.rand.IntN(max(1, min(limit, len(m.frame))))
}

func (m *Mutator) flipBit() {
	if len(m.frame) > 0 {
		m.frame[m.at(len(m.frame))] ^= 1 << m.rand.IntN(8)
	}
}

// interesting byte values: bounds, header numbers, versions.
var interesting = []byte{
	0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 20, 28, 40, 41, 43, 44, 47, 50, 51, 58, 59, 60, 0x40, 0x45,
	0x46, 0x4f, 0x60, 0x65, 0x7f, 0x80, 0x81, 0x88, 132, 133, 135, 137, 139, 140, 0xa8, 0x91, 0xdd, 0xfe, 0xff,
}

func (m *Mutator) byteValue() byte {
	if m.rand.IntN(2) == 0 {
		return interesting[m.rand.IntN(len(interesting))]
	}
	return byte(m.rand.Uint32())
}

func (m *Mutator) setByte() {
	if len(m.frame) > 0 {
		m.frame[m.at(len(m.frame))] = m.byteValue()
	}
}

// headerByte sets a byte where headers are.
func (m *Mutator) headerByte() {
	if len(m.frame) > 12 {
		m.frame[12+m.rand.IntN(min(90, len(m.frame)-12))] = m.byteValue()
	}
}

func (m *Mutator) truncate() { m.frame = m.frame[:m.at(150)] }

func (m *Mutator) extend() {
	for n := m.rand.IntN(64); n > 0; n-- {
		m.frame = append(m.frame, byte(m.rand.Uint32()))
	}
}

// near returns n moved by a little, or anything.
func (m *Mutator) near(n uint16) uint16 {
	switch m.rand.IntN(8) {
	case 0:
		return 0
	case 1:
		return 0xffff
	case 2:
		return uint16(m.rand.Uint32())
	case 3:
		return uint16(m.rand.IntN(64))
	}
	return n + uint16(m.rand.IntN(25)) - 12
}

func (m *Mutator) put16(at int) {
	if at+2 <= len(m.frame) {
		binary.BigEndian.PutUint16(m.frame[at:], m.near(binary.BigEndian.Uint16(m.frame[at:])))
	}
}

func (m *Mutator) put8(at int, v byte) {
	if at < len(m.frame) {
		m.frame[at] = v
	}
}

func (m *Mutator) network() (six bool, at int) {
	kind, at := networkOffset(m.frame)
	return kind == layers.EthernetTypeIPv6, at
}

func (m *Mutator) length4or6() {
	six, at := m.network()
	if six {
		m.put16(at + 4)
	} else {
		m.put16(at + 2)
	}
}

func (m *Mutator) ihl() {
	_, at := m.network()
	if at < len(m.frame) {
		m.frame[at] = m.frame[at]&0xf0 | byte(m.rand.IntN(16))
	}
}

func (m *Mutator) fragmentField() {
	six, at := m.network()
	at += 6
	if six {
		at += 36
	}
	if at+2 <= len(m.frame) {
		end := uint16(maxDatagram/8 + 3 - len(m.frame)/8 - m.rand.IntN(8)) // ends near the longest datagram
		values := []uint16{0, 1, 2, 8, 0x2000, 0x2001, 0x4000, 0x1fff, 0x3fff, end, end, uint16(m.rand.Uint32())}
		v := values[m.rand.IntN(len(values))]
		if six {
			v = v<<3 | v>>13
		}
		binary.BigEndian.PutUint16(m.frame[at:], v)
	}
}

var protocols = []byte{0, 1, 4, 6, 17, 41, 43, 44, 47, 50, 51, 58, 59, 60, 132, 135, 139, 140}

func (m *Mutator) protocol() {
	six, at := m.network()
	if six {
		at -= 3
	}
	m.put8(at+9, protocols[m.rand.IntN(len(protocols))])
}

func (m *Mutator) ttl() {
	six, at := m.network()
	if six {
		at--
	}
	m.put8(at+8, []byte{0, 1, 64, 255}[m.rand.IntN(4)])
}

// addresses makes source and destination equal, zero, or another's.
func (m *Mutator) addresses() {
	six, at := m.network()
	from, size := at+12, 4
	if six {
		from, size = at+8, 16
	}
	if from+2*size > len(m.frame) {
		return
	}
	source := m.frame[from : from+size]
	switch m.rand.IntN(5) {
	case 0:
		copy(m.frame[from+size:], source)
	case 1:
		clear(source)
	case 2:
		copy(source, m.frame[from+size:from+2*size])
	case 3: // IPv4-mapped, or as if
		copy(source, []byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 7})
	default:
		source[size-1] = m.byteValue()
	}
}

func (m *Mutator) replace(frame []byte, ok bool) {
	if ok {
		m.spare = append(m.spare[:0], frame...)
		m.frame, m.spare = m.spare, m.frame
	}
}

func (m *Mutator) tag() {
	tpids := []layers.EthernetType{0x8100, 0x88a8, 0x9100}
	m.replace(InsertTag(m.frame, tpids[m.rand.IntN(3)], uint16(m.rand.IntN(4096))))
}

func (m *Mutator) option() { m.replace(InsertOption(m.frame, m.rand.IntN(11))) }

var extensions = []uint8{0, 43, 44, 60, 51, 135, 139, 140}

func (m *Mutator) extension() {
	kind := extensions[m.rand.IntN(len(extensions))]
	size := 8 * (1 + m.rand.IntN(4))
	if kind == 44 {
		size = 8
	}
	m.replace(InsertExtension(m.frame, kind, size))
}

func (m *Mutator) extensions() {
	for n := m.rand.IntN(11); n > 0; n-- {
		m.extension()
	}
}

// extensionField breaks the start of one of the first extension headers.
func (m *Mutator) extensionField() {
	if six, at := m.network(); six {
		m.put8(at+40+8*m.rand.IntN(9)+m.rand.IntN(4), m.byteValue())
	}
}

// fragmentHeader puts a fragment header with some offset in front.
func (m *Mutator) fragmentHeader() {
	frame, ok := InsertExtension(m.frame, 44, 8)
	m.replace(frame, ok)
	if ok {
		m.fragmentField()
	}
}

func (m *Mutator) wrap() {
	m.replace(Wrappers[m.rand.IntN(len(Wrappers))].Rewrite(m.frame))
}

// wrapFirst makes the frame the first fragment of a tunnel that ends anywhere
// in the packet inside.
func (m *Mutator) wrapFirst() {
	if m.rand.IntN(2) == 0 {
		m.option()
	}
	m.wrap()
	pieces := Fragments(m.frame, 8*(1+m.rand.IntN(20)))
	if len(pieces) > 0 {
		m.replace(pieces[0], true)
		if m.rand.IntN(2) == 0 { // not only at multiples of 8
			m.length4or6()
		}
	}
}

// transport returns where layer 4 starts if no extension header is there.
func (m *Mutator) transport() int {
	six, at := m.network()
	if six {
		return at + 40
	}
	if at < len(m.frame) {
		return at + int(m.frame[at]&15)*4
	}
	return at
}

func (m *Mutator) transportByte() { m.put8(m.transport()+m.rand.IntN(24), m.byteValue()) }

func (m *Mutator) tcpFlags() { m.put8(m.transport()+13, byte(m.rand.Uint32())) }

// transportLength breaks the TCP data offset or the UDP length.
func (m *Mutator) transportLength() {
	if m.rand.IntN(2) == 0 {
		m.put8(m.transport()+12, byte(m.rand.Uint32()))
	} else {
		m.put16(m.transport() + 4)
	}
}

func (m *Mutator) etherType() {
	kinds := []uint16{0x0800, 0x86dd, 0x8100, 0x88a8, 0x9100, 0x0806, 0x05ff, 0x88e7, 0x8864}
	_, at := m.network()
	if at >= 2 && at <= len(m.frame) {
		binary.BigEndian.PutUint16(m.frame[at-2:], kinds[m.rand.IntN(len(kinds))])
	}
}

// innerField breaks something behind the first layer-4 header: a tunnel's
// header or the packet in it.
func (m *Mutator) innerField() { m.put8(m.transport()+m.rand.IntN(80), m.byteValue()) }

// cross puts the end of another seed behind the start of this frame.
func (m *Mutator) cross() {
	other := m.seeds[m.rand.IntN(len(m.seeds))]
	cut := m.at(100)
	if cut < len(other) {
		m.frame = append(m.frame[:cut], other[cut:]...)
	}
}
