// SPDX-License-Identifier: Apache-2.0

package detect

import (
	"bufio"
	"bytes"
	"compress/flate"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/sentinel-x/sentinel-x/internal/model"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// A file of learners is the line learnersMagic, the number of learners, for each
// the length and text of its target and the length and text of the learner,
// deflated, and the CRC-32 of all that; numbers are little-endian.
const (
	learnersMagic   = "sentinel-x learners 1\n"
	maxLearners     = 64
	maxLearnerBytes = 4 << 20 // of one, unpacked
	maxLearnersFile = 16 << 20
)

// BankSnapshot is what a Bank has learnt at one moment. Any goroutine may write it,
// while the Bank goes on.
type BankSnapshot struct{ list []learnerAt }

type learnerAt struct {
	target  traffic.Target
	learner *model.LearnerSnapshot
}

// Snapshot copies what is worth being written: learners that have a model, about
// 250 KiB each.
func (b *Bank) Snapshot() *BankSnapshot {
	s := &BankSnapshot{}
	for _, t := range b.order {
		if o := b.own[t]; o.Trained() {
			s.list = append(s.list, learnerAt{t, o.Learner.Snapshot()})
		}
	}
	return s
}

// Write writes the learners for Bank.Read, one after the other.
func (s *BankSnapshot) Write(w io.Writer) error {
	sum := crc32.NewIEEE()
	out := bufio.NewWriter(io.MultiWriter(w, sum))
	_, err := out.WriteString(learnersMagic)
	err = errors.Join(err, binary.Write(out, binary.LittleEndian, uint32(len(s.list))))
	packed, text, size := &bytes.Buffer{}, &bytes.Buffer{}, 0
	for _, l := range s.list {
		packed.Reset()
		text.Reset()
		err = errors.Join(err, l.pack(packed, text))
		if size += packed.Len() + 512; size > maxLearnersFile {
			err = errors.Join(err, fmt.Errorf("they have more than %d bytes", maxLearnersFile))
			break
		}
		name := l.target.String()
		for _, part := range []any{uint8(len(name)), []byte(name), uint32(packed.Len()), packed.Bytes()} {
			err = errors.Join(err, binary.Write(out, binary.LittleEndian, part))
		}
	}
	if err = errors.Join(err, out.Flush()); err == nil {
		err = binary.Write(w, binary.LittleEndian, sum.Sum32())
	}
	if err != nil {
		return fmt.Errorf("write learners: %w", err)
	}
	return nil
}

// pack deflates a learner's text.
func (l *learnerAt) pack(packed, text *bytes.Buffer) error {
	if err := l.learner.Write(text); err != nil {
		return err
	}
	if text.Len() > maxLearnerBytes {
		return fmt.Errorf("that of %s has %d bytes, at most %d can be read again", l.target, text.Len(), maxLearnerBytes)
	}
	z, err := flate.NewWriter(packed, flate.BestSpeed)
	if err != nil {
		return err
	}
	_, err = text.WriteTo(z)
	return errors.Join(err, z.Close())
}

// Read takes up what a snapshot wrote, before the first window: all of it, or
// nothing when it is damaged or of other features. Learners beyond the bank's
// number are left out.
func (b *Bank) Read(r io.Reader) error {
	data, err := io.ReadAll(io.LimitReader(r, maxLearnersFile+1))
	if err != nil {
		return fmt.Errorf("read learners: %w", err)
	}
	found, order, err := b.parse(data)
	if err != nil {
		return fmt.Errorf("read learners: %w", err)
	}
	b.own, b.order, b.restored = found, order, true
	return nil
}

func (b *Bank) parse(data []byte) (found map[traffic.Target]*own, order []traffic.Target, err error) {
	switch {
	case len(data) > maxLearnersFile:
		return nil, nil, fmt.Errorf("the file has more than %d bytes", maxLearnersFile)
	case !bytes.HasPrefix(data, []byte(learnersMagic)) || len(data) < len(learnersMagic)+8:
		return nil, nil, errors.New("this is no file of learners, or one of another version")
	}
	body, tail := data[:len(data)-4], data[len(data)-4:]
	if crc32.ChecksumIEEE(body) != binary.LittleEndian.Uint32(tail) {
		return nil, nil, errors.New("the file is cut or damaged: its checksum is wrong")
	}
	in := bytes.NewReader(body[len(learnersMagic):])
	var n uint32
	if err := binary.Read(in, binary.LittleEndian, &n); err != nil || n > maxLearners {
		return nil, nil, fmt.Errorf("it announces %d learners, at most %d are allowed", n, maxLearners)
	}
	found = map[traffic.Target]*own{}
	for i := range n {
		target, l, err := b.unpack(in)
		if err == nil && found[target] != nil {
			err = fmt.Errorf("%s has one already", target)
		}
		if err != nil {
			return nil, nil, fmt.Errorf("learner %d of %d: %w", i+1, n, err)
		}
		if len(order) < b.most {
			found[target], order = &own{Learner: l}, append(order, target)
		}
	}
	if in.Len() != 0 {
		return nil, nil, fmt.Errorf("%d bytes follow the last learner", in.Len())
	}
	return found, order, nil
}

// unpack reads the next target and its learner.
func (b *Bank) unpack(in *bytes.Reader) (t traffic.Target, l *model.Learner, err error) {
	var length uint8
	if err := binary.Read(in, binary.LittleEndian, &length); err != nil {
		return t, nil, err
	}
	name := make([]byte, length)
	if _, err := io.ReadFull(in, name); err != nil {
		return t, nil, err
	}
	if err := t.UnmarshalText(name); err != nil {
		return t, nil, err
	}
	var size uint32
	if err := binary.Read(in, binary.LittleEndian, &size); err != nil {
		return t, nil, err
	}
	if int64(size) > int64(in.Len()) {
		return t, nil, fmt.Errorf("%s: %d bytes are announced, %d are left", t, size, in.Len())
	}
	packed := make([]byte, size)
	if _, err := io.ReadFull(in, packed); err != nil {
		return t, nil, err
	}
	text, err := io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(packed)), maxLearnerBytes+1))
	switch {
	case err != nil:
		return t, nil, fmt.Errorf("%s: unpack: %w", t, err)
	case len(text) > maxLearnerBytes:
		return t, nil, fmt.Errorf("%s: it unpacks to more than %d bytes", t, maxLearnerBytes)
	}
	if l, err = model.ReadLearner(bytes.NewReader(text), b.params); err != nil {
		return t, nil, fmt.Errorf("%s: %w", t, err)
	}
	return t, l, nil
}
