// SPDX-License-Identifier: Apache-2.0

package detect

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// taught returns an extractor whose targets know two hours of Sunday and Monday.
func taught(t testing.TB) *Extractor {
	x := NewExtractor(8)
	for i, target := range []traffic.Target{victim, victims, allHosts} {
		track := x.track(target)
		teach(&track.baseline, epoch.Add(12*time.Hour), 3600, constant(1000*float64(i+1)))
		teach(&track.baseline, epoch.Add(36*time.Hour), 1800, constant(8000))
	}
	x.track(traffic.HostTarget(victims.Prefix.Addr())) // not known
	return x
}

func written(t testing.TB, x *Extractor) []byte {
	var b bytes.Buffer
	if err := x.Snapshot().Write(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestBaselinesAreReadBack(t *testing.T) {
	data := written(t, taught(t))
	x := NewExtractor(8)
	if err := x.ReadBaselines(bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	if n := x.Stats().Targets; n != 3 {
		t.Fatalf("%d targets are read back", n)
	}
	for i, target := range []traffic.Target{victim, victims, allHosts} {
		b := &x.Find(target).baseline
		if !b.known() || b.recent.n != recentKnown {
			t.Fatalf("%s: %d seconds of the recent level, want %d: it may be old", target, b.recent.n, recentKnown)
		}
		for at, want := range map[time.Duration]float64{12: 1000 * float64(i+1), 36: 8000} {
			b.recent.n = 0
			b.enter(epoch.Add(at * time.Hour))
			// The recent level has risen by a tenth an hour from the first.
			if at == 36 {
				want = normalRate(&taught(t).Find(target).baseline)
			}
			near(t, "normal rate of "+target.String(), normalRate(b), want, 0.01*want)
		}
	}
}

// TestReadTargetsWork: the first window of a target that was read has a ratio.
func TestReadTargetsWork(t *testing.T) {
	x := NewExtractor(8)
	if err := x.ReadBaselines(bytes.NewReader(written(t, taught(t)))); err != nil {
		t.Fatal(err)
	}
	s := newSim(1)
	w := s.window(victim)
	s.clients(&w, 1000, 100)
	if v := vectorOf(t, x, &w, true); math.IsNaN(v["packets_ratio_1s"]) {
		t.Error("no ratio")
	}
}

// seal puts a right checksum behind a body.
func seal(body []byte) []byte {
	return binary.LittleEndian.AppendUint32(bytes.Clone(body), crc32.ChecksumIEEE(body))
}

func TestDamagedBaselines(t *testing.T) {
	good := written(t, taught(t))
	body := good[:len(good)-4]
	edit := func(at int, value byte) []byte {
		b := bytes.Clone(body)
		b[len(baselineMagic)+at] = value
		return seal(b)
	}
	for name, c := range map[string]struct {
		data []byte
		want string
	}{
		"empty":          {nil, "no file of baselines"},
		"other version":  {seal([]byte("sentinel-x baselines 2\n\x00\x00\x00\x00")), "another version"},
		"cut":            {good[:len(good)-9], "checksum"},
		"cut and sealed": {seal(body[:len(body)-9]), "target 3 of 3"},
		"longer":         {seal(append(bytes.Clone(body), 1)), "1 bytes follow"},
		"too many":       {edit(1, 0xff), "at most 8193"},
		"no target":      {edit(5, 'x'), "is no address"},
		"huge rate":      {edit(4+1+len(victim.String())+7, 0x7f), "is none"},
	} {
		x := NewExtractor(8)
		err := x.ReadBaselines(bytes.NewReader(c.data))
		if err == nil || !strings.Contains(err.Error(), c.want) || x.Stats().Targets != 0 {
			t.Errorf("%s: %v, %d targets; want an error with %q", name, err, x.Stats().Targets, c.want)
		}
	}
	if err := NewExtractor(2).ReadBaselines(bytes.NewReader(good)); err != nil {
		t.Errorf("fewer places than targets: %v", err)
	}
	if err := taught(t).Snapshot().Write(full{}); err == nil {
		t.Error("a full disk is no error")
	}
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("no space left") }

// FuzzReadBaselines: whatever the file holds, no panic, nothing half read, and
// the features stay finite.
// TestBaselineSnapshotIsOfOneMoment: what is learnt while it is written is not in it.
func TestBaselineSnapshotIsOfOneMoment(t *testing.T) {
	x, want := taught(t), written(t, taught(t))
	snapshot := x.Snapshot()
	for i := range 3 {
		teach(&x.Find(victim).baseline, epoch.Add(time.Duration(36+i)*time.Hour), 1800, constant(9000))
	}
	var b bytes.Buffer
	if err := snapshot.Write(&b); err != nil || !bytes.Equal(b.Bytes(), want) {
		t.Errorf("%d bytes, %v; want the %d of before", b.Len(), err, len(want))
	}
	if bytes.Equal(written(t, x), want) {
		t.Error("nothing was learnt since")
	}
}

func FuzzReadBaselines(f *testing.F) {
	good := written(f, taught(f))
	f.Add(good[:len(good)-4])
	f.Add([]byte(baselineMagic + "\x01\x00\x00\x00\x09interface"))
	f.Fuzz(func(t *testing.T, body []byte) {
		x := NewExtractor(4)
		if err := x.ReadBaselines(bytes.NewReader(seal(body))); err != nil {
			if x.Stats().Targets != 0 {
				t.Fatal("half of a damaged file was read")
			}
			return
		}
		s := newSim(1)
		for _, target := range []traffic.Target{victim, allHosts} {
			w := s.window(target)
			s.clients(&w, 1000, 100)
			v := make(Vector, NumFeatures())
			if !x.Begin(w.Start, w.Length) || !x.Stream(&w, v) {
				continue
			}
			for i, n := range v {
				if math.IsInf(float64(n), 0) {
					t.Fatalf("%s is infinite", definitions[i].name)
				}
			}
		}
	})
}
