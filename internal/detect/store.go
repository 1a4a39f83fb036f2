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
	"slices"

	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// A file of baselines is the line baselineMagic, the number of targets, for
// each its text and its storedBaseline with the days it has, and the CRC-32 of
// all that; numbers are little-endian.
const (
	baselineMagic  = "sentinel-x baselines 1\n"
	maxBaselines   = 4096
	maxBaselineKiB = 6 // of each target
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

// WriteBaselines writes what is normal for every target that is known, for
// ReadBaselines. Known sources and distributions are not written: they are soon learnt.
func (x *Extractor) WriteBaselines(w io.Writer) error {
	var tracks []*Track
	for _, t := range x.tracks {
		if t.baseline.known() {
			tracks = append(tracks, t)
		}
	}
	slices.SortFunc(tracks, func(a, b *Track) int { return compareTargets(a.Target, b.Target) })
	sum := crc32.NewIEEE()
	out := bufio.NewWriter(io.MultiWriter(w, sum))
	_, err := out.WriteString(baselineMagic)
	err = errors.Join(err, binary.Write(out, binary.LittleEndian, uint32(len(tracks))))
	for _, t := range tracks {
		err = errors.Join(err, t.writeBaseline(out))
	}
	if err = errors.Join(err, out.Flush()); err == nil {
		err = binary.Write(w, binary.LittleEndian, sum.Sum32())
	}
	if err != nil {
		return fmt.Errorf("write baselines: %w", err)
	}
	return nil
}

func (t *Track) writeBaseline(w io.Writer) error {
	b := t.baseline
	day, hour := -1, 0
	if b.learned { // the hour at work rests in the file, not here
		day, hour = int(b.hourNow-1)/24, int(b.hourNow-1)%24
	}
	s := storedBaseline{N: b.recent.n}
	for i, l := range b.recent.of {
		s.Centre[i], s.Spread[i] = l.centre, l.spread
	}
	for i, d := range b.week {
		if d != nil || i == day {
			s.Days |= 1 << i
		}
	}
	name := t.Target.String()
	err := errors.Join(binary.Write(w, binary.LittleEndian, uint8(len(name))), binary.Write(w, binary.LittleEndian, []byte(name)),
		binary.Write(w, binary.LittleEndian, s))
	for i := range b.week {
		if s.Days>>i&1 == 0 {
			continue
		}
		var hours [24]hourLevel
		if b.week[i] != nil {
			hours = *b.week[i]
		}
		if i == day {
			hours[hour].store(&b.hour)
		}
		for h := range hours {
			err = errors.Join(err, binary.Write(w, binary.LittleEndian, storedHour{hours[h].centre, hours[h].spread, hours[h].n}))
		}
	}
	return err
}

// compareTargets orders targets from narrow to wide, then by prefix.
func compareTargets(a, b traffic.Target) int {
	if c := int(a.Scope) - int(b.Scope); c != 0 {
		return c
	}
	return a.Prefix.Compare(b.Prefix)
}

// ReadBaselines takes up what WriteBaselines wrote, before the first tick: all
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

// WriteBaselines is that of the Extractor.
func (d *Detector) WriteBaselines(w io.Writer) error { return d.x.WriteBaselines(w) }

// ReadBaselines is that of the Extractor.
func (d *Detector) ReadBaselines(r io.Reader) error { return d.x.ReadBaselines(r) }
