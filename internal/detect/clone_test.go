// SPDX-License-Identifier: Apache-2.0

package detect

import (
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sentinel-x/sentinel-x/internal/model"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// cloned is a detector with its bank.
type cloned struct {
	d    *Detector
	bank *Bank
}

// run plays n ticks of web traffic with an attack from the tick attack on, and returns what was said.
func (c *cloned) run(s *sim, at *time.Time, n, attack int) (said []Update) {
	for i := range n {
		*at = at.Add(traffic.Tick)
		w := s.window(victim)
		s.clients(&w, 800, 3000)
		if i >= attack {
			s.synFlood(&w, 5000)
		}
		w.Start = *at
		for _, u := range c.d.Tick(*at, traffic.Tick, []traffic.Window{w}) {
			u.Incident.Votes = nil // hold NaN
			said = append(said, u)
		}
	}
	return said
}

// pointers collects the addresses of all that v reaches and that may change.
func pointers(v reflect.Value, path string, into map[uintptr]string, seen map[uintptr]bool) {
	switch v.Type().String() {
	case "*model.Forest", "*time.Location", "*[24]detect.hourLevel", "model.Schema", "netip.Prefix", "[]string", "[]int":
		return // never changes
	}
	switch v.Kind() {
	case reflect.Pointer, reflect.Map, reflect.Slice:
		if v.IsNil() || v.Kind() == reflect.Slice && v.Cap() == 0 {
			return
		}
		if seen[v.Pointer()] {
			return
		}
		seen[v.Pointer()], into[v.Pointer()] = true, path
	}
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() {
			pointers(v.Elem(), path, into, seen)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			pointers(v.Field(i), path+"."+v.Type().Field(i).Name, into, seen)
		}
	case reflect.Map:
		for it := v.MapRange(); it.Next(); {
			pointers(it.Value(), path+"[]", into, seen)
		}
	case reflect.Slice, reflect.Array:
		if k := v.Type().Elem().Kind(); k == reflect.Struct || k == reflect.Pointer || k == reflect.Slice || k == reflect.Interface {
			for i := range v.Len() {
				pointers(v.Index(i), path+"[]", into, seen)
			}
		}
	}
}

// TestClone: a clone shares nothing that changes with the original, and both go on alike, in calm and with an open incident.
func TestClone(t *testing.T) {
	for _, before := range []int{10_000, 650} { // ticks of calm: an attack that began, and none
		bank, err := NewBank(2, model.LearnerParams{Calm: model.CalmParams{Windows: 512}, Hold: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		c := cloned{New(defaults(), bank.Models(nil)), bank}
		at := epoch
		c.run(newSim(3), &at, 700, before)
		copied := cloned{bank: bank.Clone()}
		copied.d = c.d.Clone(copied.bank.Models(nil))
		open := 0
		if before < 700 {
			open = 1
		}
		if len(c.d.open) != open || len(copied.d.open) != open {
			t.Fatalf("%d incidents are open, %d in the clone, want %d", len(c.d.open), len(copied.d.open), open)
		}

		original, clone := map[uintptr]string{}, map[uintptr]string{}
		pointers(reflect.ValueOf(c), "", original, map[uintptr]bool{})
		pointers(reflect.ValueOf(copied), "", clone, map[uintptr]bool{})
		for p, path := range clone {
			if other, shared := original[p]; shared {
				t.Errorf("the clone's %s is the original's %s", path, other)
			}
		}

		at2 := at
		want, got := c.run(newSim(9), &at, 400, 200), copied.run(newSim(9), &at2, 400, 200)
		if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b traffic.Target) bool { return a == b })); diff != "" || len(want) == 0 {
			t.Errorf("%d updates (-original +clone):\n%s", len(want), diff)
		}
		a, _ := bank.Stats(victim)
		b, _ := copied.bank.Stats(victim)
		if a != b || a.Learnt == 0 {
			t.Errorf("the original learnt %+v, the clone %+v", a, b)
		}
	}
}
