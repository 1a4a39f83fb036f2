// SPDX-License-Identifier: Apache-2.0

package detect

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"math"
	"time"

	"github.com/sentinel-x/sentinel-x/internal/model"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// A file of windows is
//
//	the line windowMagic
//	a line of JSON: {"schema_hash": hex, "features": [names]}
//	for each row the byte 1, and in little-endian
//		time     int64, ns of the Unix epoch
//		label    uint8
//		kind     uint8, 0 unless the label is attack; 0 then: not known
//		weight   float32
//		target   uint8 bytes, and so much text
//		group    uint8 bytes, and so much text
//		features float32 each, NaN where unknown
//	the byte 0, the number of rows as uint32, the CRC-32 of all that
//
// so that it can be written row by row without being held.
const (
	windowMagic     = "sentinel-x windows 1\n"
	maxWindowHeader = 1 << 20 // bytes of the line of JSON
)

// LabelledFile is the name of the file with the windows of incidents that an operator
// has labelled: in the model directory or, without one, the state directory.
const LabelledFile = "labelled.windows"

// MaxWindows is the most rows of one file, MaxWindowGroup the most bytes of a group.
const (
	MaxWindows     = 200_000
	MaxWindowGroup = 200
)

// WindowLabel says what a window is known to be.
type WindowLabel uint8

// The labels.
const (
	LabelUnknown WindowLabel = iota // suspicious, or nobody said
	LabelCalm                       // nothing happened, as the detectors see it
	LabelBenign                     // something happened, and an operator says that it was no attack
	LabelAttack                     // an attack, as an operator or the detectors say
	numWindowLabels
)

var windowLabels = [numWindowLabels]string{"unknown", "calm", "benign", "attack"}

// String returns the label's word.
func (l WindowLabel) String() string {
	if l < numWindowLabels {
		return windowLabels[l]
	}
	return fmt.Sprintf("label %d", uint8(l))
}

// ParseWindowLabel returns the label of a word, and false for an unknown one.
func ParseWindowLabel(word string) (WindowLabel, bool) {
	for l, name := range windowLabels {
		if name == word {
			return WindowLabel(l), true
		}
	}
	return 0, false
}

// LabelledWindow is a window's vector with what it is known to be.
type LabelledWindow struct {
	Time   time.Time // when the window began
	Target traffic.Target
	Label  WindowLabel
	Kind   traffic.Kind // of LabelAttack, KindBenign if it is not known; of others KindBenign
	// Group names what belongs together, and must not be both learnt from and tested
	// on: an incident, an hour, a capture. At most MaxWindowGroup bytes.
	Group    string
	Weight   float32 // over 0: how much it counts
	Features Vector  // NumFeatures values, none infinite
}

// check says what is wrong with a window.
func (w *LabelledWindow) check() error {
	switch {
	case w.Label >= numWindowLabels:
		return fmt.Errorf("%s is none", w.Label)
	case w.Kind >= traffic.NumKinds, w.Label != LabelAttack && w.Kind != traffic.KindBenign:
		return fmt.Errorf("a window that is %s cannot be of the kind %s", w.Label, w.Kind)
	case !(w.Weight > 0) || math.IsInf(float64(w.Weight), 0):
		return fmt.Errorf("its weight is %g, not over 0", w.Weight)
	case len(w.Group) > MaxWindowGroup:
		return fmt.Errorf("its group has %d bytes, at most %d are allowed", len(w.Group), MaxWindowGroup)
	case len(w.Features) != NumFeatures():
		return fmt.Errorf("it has %d features, not %d", len(w.Features), NumFeatures())
	}
	for i, x := range w.Features {
		if math.IsInf(float64(x), 0) {
			return fmt.Errorf("its feature %s is infinite", definitions[i].name)
		}
	}
	return nil
}

// windowHeader is the line of JSON.
type windowHeader struct {
	SchemaHash string       `json:"schema_hash"`
	Features   model.Schema `json:"features"`
}

// WindowWriter writes a file of windows, row by row.
type WindowWriter struct {
	out  *bufio.Writer
	sum  hash.Hash32
	rows uint32
	row  []byte
}

// NewWindowWriter begins a file. It is whole once Close has returned nil.
func NewWindowWriter(w io.Writer) (*WindowWriter, error) {
	sum := crc32.NewIEEE()
	f := &WindowWriter{out: bufio.NewWriter(io.MultiWriter(w, sum)), sum: sum}
	header, err := json.Marshal(windowHeader{SchemaHash(), Names()})
	if err == nil {
		_, err = f.out.WriteString(windowMagic + string(header) + "\n")
	}
	if err != nil {
		return nil, fmt.Errorf("write windows: %w", err)
	}
	return f, nil
}

// Write adds a row. After MaxWindows it refuses.
func (f *WindowWriter) Write(w *LabelledWindow) error {
	if err := w.check(); err != nil {
		return fmt.Errorf("write window %d of %s: %w", f.rows+1, w.Target, err)
	}
	if f.rows >= MaxWindows {
		return fmt.Errorf("write windows: a file holds at most %d", MaxWindows)
	}
	f.rows++
	target := w.Target.String()
	b := append(f.row[:0], 1)
	b = binary.LittleEndian.AppendUint64(b, uint64(w.Time.UnixNano()))
	b = append(b, byte(w.Label), byte(w.Kind))
	b = binary.LittleEndian.AppendUint32(b, math.Float32bits(w.Weight))
	b = append(append(b, byte(len(target))), target...)
	b = append(append(b, byte(len(w.Group))), w.Group...)
	for _, x := range w.Features {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
	}
	f.row = b
	if _, err := f.out.Write(b); err != nil {
		return fmt.Errorf("write windows: %w", err)
	}
	return nil
}

// Rows returns how many were written.
func (f *WindowWriter) Rows() int { return int(f.rows) }

// Close ends the file; it does not close what it is written to.
func (f *WindowWriter) Close() error {
	f.out.Write(binary.LittleEndian.AppendUint32([]byte{0}, f.rows))
	err := f.out.Flush()
	if err == nil {
		f.out.Write(binary.LittleEndian.AppendUint32(nil, f.sum.Sum32()))
		err = f.out.Flush()
	}
	if err != nil {
		return fmt.Errorf("write windows: %w", err)
	}
	return nil
}

// WriteWindows writes a file of these rows.
func WriteWindows(w io.Writer, rows []LabelledWindow) error {
	f, err := NewWindowWriter(w)
	if err != nil {
		return err
	}
	for i := range rows {
		if err := f.Write(&rows[i]); err != nil {
			return err
		}
	}
	return f.Close()
}

// ReadWindows reads a file of windows, whole or not at all. Of another list of
// features than Names the error is a *model.MismatchError with both.
func ReadWindows(r io.Reader) ([]LabelledWindow, error) {
	in := &windowReader{in: bufio.NewReaderSize(r, 1<<16), sum: crc32.NewIEEE()}
	rows, err := in.all()
	if err != nil {
		return nil, fmt.Errorf("read windows: %w", err)
	}
	return rows, nil
}

// windowReader reads what a WindowWriter wrote.
type windowReader struct {
	in  *bufio.Reader
	sum hash.Hash32
	row []byte
}

func (f *windowReader) all() (rows []LabelledWindow, err error) {
	if err := f.header(); err != nil {
		return nil, err
	}
	for {
		more, err := f.take(1)
		if err != nil {
			return nil, f.at(len(rows), err)
		}
		switch {
		case more[0] == 0:
			return rows, f.end(len(rows))
		case more[0] != 1:
			return nil, f.at(len(rows), fmt.Errorf("it begins with %#02x, neither a row nor the end", more[0]))
		case len(rows) == MaxWindows:
			return nil, fmt.Errorf("the file has more than %d windows", MaxWindows)
		}
		w, err := f.window()
		if err != nil {
			return nil, f.at(len(rows), err)
		}
		rows = append(rows, w)
	}
}

// at says where something is wrong.
func (f *windowReader) at(row int, err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("the file is cut in window %d", row+1)
	}
	return fmt.Errorf("window %d: %w", row+1, err)
}

// take returns the next bytes, valid until the next call.
func (f *windowReader) take(n int) ([]byte, error) {
	if cap(f.row) < n {
		f.row = make([]byte, n)
	}
	b := f.row[:n]
	if _, err := io.ReadFull(f.in, b); err != nil {
		return nil, err
	}
	f.sum.Write(b)
	return b, nil
}

func (f *windowReader) header() error {
	if magic, err := f.take(len(windowMagic)); err != nil || string(magic) != windowMagic {
		return errors.New("this is no file of windows, or one of another version")
	}
	line, err := f.line()
	if err != nil {
		return err
	}
	var h windowHeader
	if err := json.Unmarshal(line, &h); err != nil {
		return fmt.Errorf("the second line is damaged: %w", err)
	}
	if err := h.Features.Check(); err != nil {
		return fmt.Errorf("the second line is damaged: %w", err)
	}
	if hash := h.Features.Hash(); hash != h.SchemaHash {
		return fmt.Errorf("the second line is damaged: its features have the hash %s, it says %.64q", hash, h.SchemaHash)
	}
	return model.Schema(Names()).Match(h.Features)
}

// line reads up to the end of a line that is not too long.
func (f *windowReader) line() (line []byte, err error) {
	for {
		part, err := f.in.ReadSlice('\n')
		f.sum.Write(part)
		line = append(line, part...)
		switch {
		case err == nil:
			return line, nil
		case len(line) > maxWindowHeader:
			return nil, fmt.Errorf("the second line has more than %d bytes", maxWindowHeader)
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, errors.New("the file is cut in the second line")
		}
	}
}

func (f *windowReader) window() (w LabelledWindow, err error) {
	b, err := f.take(14)
	if err != nil {
		return w, err
	}
	w.Time = time.Unix(0, int64(binary.LittleEndian.Uint64(b))).UTC()
	w.Label, w.Kind = WindowLabel(b[8]), traffic.Kind(b[9])
	w.Weight = math.Float32frombits(binary.LittleEndian.Uint32(b[10:]))
	target, err := f.text()
	if err == nil {
		err = w.Target.UnmarshalText([]byte(target))
	}
	if err != nil {
		return w, err
	}
	if w.Group, err = f.text(); err != nil {
		return w, err
	}
	if b, err = f.take(4 * NumFeatures()); err != nil {
		return w, err
	}
	w.Features = make(Vector, NumFeatures())
	for i := range w.Features {
		w.Features[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
	}
	return w, w.check()
}

func (f *windowReader) text() (string, error) {
	n, err := f.take(1)
	if err != nil {
		return "", err
	}
	b, err := f.take(int(n[0]))
	return string(b), err
}

// end reads the number of rows and the checksum.
func (f *windowReader) end(rows int) error {
	b, err := f.take(4)
	if err != nil {
		return errors.New("the file is cut at its end")
	}
	announced := binary.LittleEndian.Uint32(b)
	want := f.sum.Sum32()
	if b, err = f.take(4); err != nil {
		return errors.New("the file is cut at its end")
	}
	switch {
	case binary.LittleEndian.Uint32(b) != want:
		return errors.New("the file is damaged: its checksum is wrong")
	case announced != uint32(rows):
		return fmt.Errorf("the file has %d windows, its end says %d", rows, announced)
	}
	if _, err := f.in.ReadByte(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the end of the file")
	}
	return nil
}
