// SPDX-License-Identifier: Apache-2.0

package scene

import (
	"fmt"
	"hash/fnv"
	"testing"
	"time"

	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// windowDigest sums up windows with their samples, from a time on.
func windowDigest(t *testing.T, w *traffic.Window, attack uint64) string {
	t.Helper()
	h := fnv.New64a()
	fmt.Fprint(h, w.Target, w.Start, w.Tally, w.Histograms, attack, len(w.Samples))
	for i := range w.Samples {
		fmt.Fprint(h, w.Samples[i].Time, w.Samples[i].Source, w.Samples[i].SourcePort, string(w.Samples[i].Header))
	}
	return fmt.Sprintf("%x", h.Sum64())
}

// TestLead: scenes that share their calm have the same windows from a lead as alone, of attacks and crowds, on hosts and on a network.
func TestLead(t *testing.T) {
	list, err := Catalogue(CatalogueOptions{
		Seed: 5, Families: []string{"syn_spoofed", "udp_botnet", "carpet_udp", "flash_crowd"}, Ratios: []float64{1, 3}, Shared: true,
		Lead: 3 * time.Second, Hold: time.Second, Tail: time.Second, Low: 400, High: 500,
	})
	if err != nil {
		t.Fatal(err)
	}
	calms, leads := map[uint64]*Scenario{}, map[uint64]*Lead{}
	for i := range list {
		s := &list[i]
		o := CounterOptions{Targets: s.Watch(), Seeds: traffic.Seeds{Source: 7}, Length: 3 * time.Second, Samples: 20}
		l := leads[s.Calm]
		if l == nil {
			if l, err = NewLead(s, 6*time.Second, o); err != nil {
				t.Fatal(err)
			}
			for w := range l.Windows() {
				_ = w
			}
			leads[s.Calm], calms[s.Calm] = l, s
		}
		if first := calms[s.Calm]; first.Target != s.Target || first.Baseline != s.Baseline || first.Profile != s.Profile || first.Begin != s.Begin {
			t.Fatalf("%s and %s share a calm seed, and nothing else", first.Name, s.Name)
		}
		windows, err := l.Scene(s)
		if err != nil {
			t.Fatal(err)
		}
		var got, want []string
		for w, attack := range windows {
			got = append(got, windowDigest(t, w, attack))
		}
		stream, err := s.Stream()
		if err != nil {
			t.Fatal(err)
		}
		o.Length = s.Length
		for w, attack := range Windows(stream, o) {
			if w.Start.Sub(o.Start) >= 3*time.Second {
				want = append(want, windowDigest(t, w, attack))
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(want) || len(got) < 60 {
			t.Errorf("%s: %d windows from the lead, %d alone, or others", s.Name, len(got), len(want))
		}
	}
	if len(leads) >= len(list) {
		t.Errorf("%d scenes have %d leads", len(list), len(leads))
	}
}

// TestLeadRefuses what it cannot go on with.
func TestLeadRefuses(t *testing.T) {
	list, err := Catalogue(CatalogueOptions{Seed: 5, Families: []string{"syn_spoofed"}, Ratios: []float64{1}, Shared: true, Lead: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	s := &list[0]
	l, err := NewLead(s, s.Length-time.Second, CounterOptions{Targets: s.Watch(), Length: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Scene(s); err == nil {
		t.Error("a scene goes on before the lead is over")
	}
	for w := range l.Windows() {
		_ = w
	}
	if _, err := l.Scene(s); err == nil {
		t.Error("a scene is longer than what is kept")
	}
}

// TestDay: events follow one another, each within the day, and the day is the same twice.
func TestDay(t *testing.T) {
	d, err := NewDay("web", 50, 3*time.Hour, 4)
	if err != nil {
		t.Fatal(err)
	}
	if len(d.Events) != 2 || d.At(30*time.Minute) != nil {
		t.Fatalf("events %+v", d.Events)
	}
	last := time.Duration(0)
	for i := range d.Events {
		e := &d.Events[i]
		if e.Onset < last || e.End > d.Calm.Length || e.Attack() || d.At(e.Onset) != e || d.At(e.End) != e {
			t.Errorf("event %s from %v to %v, the one before ended at %v", e.Name, e.Onset, e.End, last)
		}
		last = e.End
	}
	var sums [2]string
	for i := range sums {
		s, err := d.Stream()
		if err != nil {
			t.Fatal(err)
		}
		n, at, h := 0, time.Duration(0), fnv.New64a()
		for p := range All(s) {
			if p.Time < at {
				t.Fatalf("a packet at %v comes after one at %v", p.Time, at)
			}
			at = p.Time
			n++
			h.Write(p.Frame)
		}
		sums[i] = fmt.Sprintf("%d packets, %x", n, h.Sum64())
		if calm := 50 * 3 * 3600; n < calm/2 || at < d.Calm.Length-time.Second {
			t.Errorf("%d packets until %v", n, at)
		}
	}
	if sums[0] != sums[1] {
		t.Errorf("%s, then %s", sums[0], sums[1])
	}
	if _, err := NewDay("nonsense", 50, time.Hour, 1); err == nil {
		t.Error("a day of an unknown profile")
	}
}
