// SPDX-License-Identifier: Apache-2.0

package detect

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sentinel-x/sentinel-x/internal/model"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// someWindows are one of each label, with unknown features.
func someWindows() []LabelledWindow {
	var rows []LabelledWindow
	for i, target := range []traffic.Target{victim, victims, allHosts, victim} {
		w := LabelledWindow{
			Time: epoch.Add(time.Duration(i) * time.Second), Target: target, Label: WindowLabel(i),
			Group: strings.Repeat("g", i), Weight: 0.5 + float32(i), Features: make(Vector, NumFeatures()),
		}
		for j := range w.Features {
			w.Features[j] = float32(j) / float32(i+1)
		}
		w.Features[i] = float32(math.NaN())
		rows = append(rows, w)
	}
	rows[LabelAttack].Kind = traffic.KindSYNFlood
	return rows
}

func writtenWindows(t testing.TB, rows []LabelledWindow) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := WriteWindows(&b, rows); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// sameWindow compares every bit.
func sameWindow(a, b *LabelledWindow) bool {
	return a.Time.Equal(b.Time) && a.Target == b.Target && a.Label == b.Label && a.Kind == b.Kind && a.Group == b.Group &&
		a.Weight == b.Weight && slices.EqualFunc(a.Features, b.Features, func(x, y float32) bool {
		return math.Float32bits(x) == math.Float32bits(y)
	})
}

func TestWindowsAreReadBack(t *testing.T) {
	for _, want := range [][]LabelledWindow{nil, someWindows()} {
		got, err := ReadWindows(bytes.NewReader(writtenWindows(t, want)))
		if err != nil || len(got) != len(want) {
			t.Fatalf("%d of %d windows: %v", len(got), len(want), err)
		}
		for i := range want {
			if !sameWindow(&got[i], &want[i]) {
				t.Errorf("window %d is read back as %+v", i+1, got[i])
			}
		}
	}
	for label, word := range windowLabels {
		if got, ok := ParseWindowLabel(word); !ok || got.String() != WindowLabel(label).String() {
			t.Errorf("%q is read as %v, %v", word, got, ok)
		}
	}
	if _, ok := ParseWindowLabel("odd"); ok {
		t.Error("an unknown label is read")
	}
}

// TestWindowsOfOtherFeatures: the error has both lists.
func TestWindowsOfOtherFeatures(t *testing.T) {
	names := append(model.Schema(Names())[1:], "weather")
	header, err := json.Marshal(windowHeader{names.Hash(), names})
	if err != nil {
		t.Fatal(err)
	}
	_, err = ReadWindows(strings.NewReader(windowMagic + string(header) + "\n\x00"))
	if e, ok := errors.AsType[*model.MismatchError](err); !ok || !slices.Equal(e.Missing, Names()[:1]) || !slices.Equal(e.Unknown, []string{"weather"}) {
		t.Errorf("the error is %v", err)
	}
}

func TestDamagedWindows(t *testing.T) {
	good := writtenWindows(t, someWindows())
	head := bytes.IndexByte(good[len(windowMagic):], '\n') + len(windowMagic) + 1
	first := 1 + 8 + 2 + 4 + 1 + len(victim.String()) + 1 + 4*NumFeatures()
	edit := func(at int, value byte) []byte {
		b := bytes.Clone(good[:len(good)-4])
		b[at] = value
		return seal(b)
	}
	for name, c := range map[string]struct {
		data []byte
		want string
	}{
		"empty":         {nil, "no file of windows"},
		"other version": {bytes.Replace(good, []byte("windows 1"), []byte("windows 2"), 1), "another version"},
		"no header":     {good[:len(windowMagic)+9], "cut in the second line"},
		"long header":   {append([]byte(windowMagic), bytes.Repeat([]byte{'x'}, maxWindowHeader+1<<17)...), "more than 1048576 bytes"},
		"other hash":    {bytes.Replace(good, []byte(SchemaHash()), bytes.Repeat([]byte{'0'}, 64), 1), "have the hash " + SchemaHash()},
		"no JSON":       {bytes.Replace(good, []byte(`"features"`), []byte(`"features`), 1), "second line is damaged"},
		"cut":           {good[:head+first+5], "cut in window 2"},
		"cut at a row":  {good[:head+first], "cut in window 2"},
		"cut at end":    {good[:len(good)-2], "cut at its end"},
		"damaged":       {append(edit(head+first-2, 3)[:len(good)-4], good[len(good)-4:]...), "checksum"},
		"no row":        {edit(head+first, 7), "window 2: it begins with 0x07"},
		"label":         {edit(head+9, 9), "window 1: label 9 is none"},
		"kind":          {edit(head+10, 200), "window 1: a window that is unknown cannot"},
		"calm attack":   {edit(head+10, 1), "window 1: a window that is unknown cannot be of the kind syn_flood"},
		"weight":        {edit(head+14, 0xbf), "window 1: its weight is -0.5"},
		"target":        {edit(head+16, 'x'), "window 1: read target"},
		"infinite":      {edit(head+first-1, 0x7f), "window 1: its feature "},
		"wrong count":   {edit(len(good)-8, 9), "has 4 windows, its end says 9"},
		"longer":        {append(bytes.Clone(good), 1), "something follows"},
	} {
		if name == "infinite" {
			c.data[head+first-2], c.data[head+first-3], c.data[head+first-4] = 0x80, 0, 0
			c.data = seal(c.data[:len(c.data)-4])
		}
		rows, err := ReadWindows(bytes.NewReader(c.data))
		if err == nil || !strings.Contains(err.Error(), c.want) || rows != nil {
			t.Errorf("%s: %v, %d windows; want an error with %q", name, err, len(rows), c.want)
		}
	}
}

// TestWindowWriterRefuses: what ReadWindows would not take is not written.
func TestWindowWriterRefuses(t *testing.T) {
	for name, change := range map[string]func(w *LabelledWindow){
		"no weight": func(w *LabelledWindow) { w.Weight = 0 },
		"group":     func(w *LabelledWindow) { w.Group = strings.Repeat("x", MaxWindowGroup+1) },
		"features":  func(w *LabelledWindow) { w.Features = w.Features[1:] },
		"kind":      func(w *LabelledWindow) { w.Kind = traffic.KindCarpet },
	} {
		w := someWindows()[0]
		change(&w)
		if err := WriteWindows(&bytes.Buffer{}, []LabelledWindow{w}); err == nil {
			t.Errorf("%s: it is written", name)
		}
	}
	f, err := NewWindowWriter(&bytes.Buffer{})
	if err != nil {
		t.Fatal(err)
	}
	f.rows = MaxWindows
	if err := f.Write(&someWindows()[0]); err == nil {
		t.Error("a file grows without bound")
	}
	if err := WriteWindows(full{}, someWindows()); err == nil {
		t.Error("a full disk is no error")
	}
}

func FuzzReadWindows(f *testing.F) {
	good := writtenWindows(f, someWindows()[:2])
	f.Add(good)
	f.Add(good[:len(good)-9])
	f.Add([]byte(windowMagic))
	f.Fuzz(func(t *testing.T, data []byte) {
		rows, err := ReadWindows(bytes.NewReader(data))
		if err != nil {
			return
		}
		again, err := ReadWindows(bytes.NewReader(writtenWindows(t, rows)))
		if err != nil || len(again) != len(rows) {
			t.Fatalf("%d windows are read back as %d: %v", len(rows), len(again), err)
		}
		for i := range rows {
			if !sameWindow(&rows[i], &again[i]) {
				t.Fatalf("window %d is read back as %+v, not %+v", i, again[i], rows[i])
			}
		}
	})
}
