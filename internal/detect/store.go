// SPDX-License-Identifier: Apache-2.0

package detect

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"slices"

	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// A file of baselines is the line baselineMagic, the number of targets, for
// each its text and its storedBaseline with the days it has, and the CRC-32 of
// all that; numbers are little-endian.
const (
	baselineMagic  = "sentinel-x baselines 1\n"
	maxBaselines   = 2*4096 + 1 // as SettingsOf has places for the most targets
	maxBaselineKiB = 6          // of each target
)

// storedBaseline is a baseline in a file.
type storedBaseline struct {
	Centre, Spread [numBaselines]float64
	N              uint32
	Days           uint8 // bit i: day i of the week follows
}

// storedHour is one hour of a day in a file.
type storedHour struct {
	Centre [numBaselines]uint16
	Spread [numBaselines]uint8
	N      uint16
}

// BaselineSnapshot is what is normal for targets at one moment. Any goroutine may
// write it, while the Extractor goes on: a baseline's days at rest never change.
type BaselineSnapshot struct{ list []foundBaseline }

// Snapshot copies what is normal for every target that is known, some hundred bytes
// of each. Known sources and distributions are not in it: they are soon learnt.
func (x *Extractor) Snapshot() *BaselineSnapshot {
	s := &BaselineSnapshot{}
	for _, t := range x.tracks {
		if t.baseline.known() {
			s.list = append(s.list, foundBaseline{t.Target, t.baseline})
		}
	}
	return s
}

// Write writes the baselines for ReadBaselines, target by target.
func (s *BaselineSnapshot) Write(w io.Writer) error {
	slices.SortFunc(s.list, func(a, b foundBaseline) int { return compareTargets(a.target, b.target) })
	sum := crc32.NewIEEE()
	out := bufio.NewWriterSize(io.MultiWriter(w, sum), 1<<16)
	row := binary.LittleEndian.AppendUint32([]byte(baselineMagic), uint32(len(s.list)))
	_, err := out.Write(row)
	for i := range s.list {
		if err == nil {
			row = s.list[i].append(row[:0])
			_, err = out.Write(row)
		}
	}
	if err = errors.Join(err, out.Flush()); err == nil {
		err = binary.Write(w, binary.LittleEndian, sum.Sum32())
	}
	if err != nil {
		return fmt.Errorf("write baselines: %w", err)
	}
	return nil
}

// append appends a target and its storedBaseline, and the storedHours of its days.
func (f *foundBaseline) append(to []byte) []byte {
	b, little := &f.baseline, binary.LittleEndian
	b.leave() // the hour at work rests in the file
	name := f.target.String()
	to = append(append(to, byte(len(name))), name...)
	for _, l := range b.recent.of {
		to = little.AppendUint64(to, math.Float64bits(l.centre))
	}
	for _, l := range b.recent.of {
		to = little.AppendUint64(to, math.Float64bits(l.spread))
	}
	days := byte(0)
	for i, d := range b.week {
		if d != nil {
			days |= 1 << i
		}
	}
	to = append(little.AppendUint32(to, b.recent.n), days)
	for _, d := range b.week {
		if d == nil {
			continue
		}
		for h := range d {
			for _, v := range d[h].centre {
				to = little.AppendUint16(to, v)
			}
			to = little.AppendUint16(append(to, d[h].spread[:]...), d[h].n)
		}
	}
	return to
}

// compareTargets orders targets from narrow to wide, then by prefix.
func compareTargets(a, b traffic.Target) int {
	if c := int(a.Scope) - int(b.Scope); c != 0 {
		return c
	}
	return a.Prefix.Compare(b.Prefix)
}

// ReadBaselines takes up what a snapshot wrote, before the first tick: all
// of it, or nothing when it is damaged. Of the recent level only so much is
// kept that it is known: it may be old.
func (x *Extractor) ReadBaselines(r io.Reader) error {
	data, err := io.ReadAll(io.LimitReader(r, maxBaselines*maxBaselineKiB<<10))
	if err != nil {
		return fmt.Errorf("read baselines: %w", err)
	}
	found, err := parseBaselines(data)
	if err != nil {
		return fmt.Errorf("read baselines: %w", err)
	}
	for _, f := range found {
		if x.tracks[f.target] != nil || len(x.tracks) >= x.most {
			continue
		}
		if t := x.track(f.target); t != nil {
			t.baseline = f.baseline
		}
	}
	return nil
}

type foundBaseline struct {
	target   traffic.Target
	baseline baseline
}

func parseBaselines(data []byte) ([]foundBaseline, error) {
	if !bytes.HasPrefix(data, []byte(baselineMagic)) || len(data) < len(baselineMagic)+8 {
		return nil, errors.New("this is no file of baselines, or one of another version")
	}
	body, tail := data[:len(data)-4], data[len(data)-4:]
	if crc32.ChecksumIEEE(body) != binary.LittleEndian.Uint32(tail) {
		return nil, errors.New("the file is cut or damaged: its checksum is wrong")
	}
	in := bytes.NewReader(body[len(baselineMagic):])
	var n uint32
	if err := binary.Read(in, binary.LittleEndian, &n); err != nil || n > maxBaselines {
		return nil, fmt.Errorf("it announces %d targets, at most %d are allowed", n, maxBaselines)
	}
	var list []foundBaseline
	for i := range n {
		f, err := parseBaseline(in)
		if err != nil {
			return nil, fmt.Errorf("target %d of %d: %w", i+1, n, err)
		}
		list = append(list, f)
	}
	if in.Len() != 0 {
		return nil, fmt.Errorf("%d bytes follow the last target", in.Len())
	}
	return list, nil
}

func parseBaseline(in *bytes.Reader) (f foundBaseline, err error) {
	var length uint8
	var s storedBaseline
	if err := binary.Read(in, binary.LittleEndian, &length); err != nil {
		return f, err
	}
	name := make([]byte, length)
	if _, err := io.ReadFull(in, name); err != nil {
		return f, err
	}
	if err := f.target.UnmarshalText(name); err != nil {
		return f, err
	}
	if err := binary.Read(in, binary.LittleEndian, &s); err != nil {
		return f, err
	}
	b := &f.baseline
	b.recent.n = min(s.N, recentKnown)
	for i := range s.Centre {
		b.recent.of[i] = level{s.Centre[i], s.Spread[i]}
		if !(s.Centre[i] >= 0 && s.Centre[i] <= 64 && s.Spread[i] >= 0 && s.Spread[i] <= 64) {
			return f, fmt.Errorf("a rate of 2^%g ± 2^%g is none", s.Centre[i], s.Spread[i])
		}
	}
	for day := range b.week {
		if s.Days>>day&1 == 0 {
			continue
		}
		var hours [24]storedHour
		if err := binary.Read(in, binary.LittleEndian, &hours); err != nil {
			return f, err
		}
		b.week[day] = new([24]hourLevel)
		for h, v := range hours {
			b.week[day][h] = hourLevel{v.Centre, v.Spread, min(v.N, hourMemory)}
		}
	}
	return f, nil
}

// Baselines is the Snapshot of the Extractor.
func (d *Detector) Baselines() *BaselineSnapshot { return d.x.Snapshot() }

// ReadBaselines is that of the Extractor.
func (d *Detector) ReadBaselines(r io.Reader) error { return d.x.ReadBaselines(r) }
