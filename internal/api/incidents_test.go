// SPDX-License-Identifier: Apache-2.0

package api

import (
	"errors"
	"math"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

func someIncident() *traffic.Incident {
	unknown := traffic.Float(math.NaN())
	return &traffic.Incident{
		ID: "20300131-120000-4a1f", Target: traffic.HostTarget(netip.MustParseAddr("192.0.2.10")), Kind: traffic.KindSYNFlood, Protocol: "tcp",
		Onset: time.Unix(1000, 0), Detected: time.Unix(1001, 0), Confidence: 0.9, Peak: traffic.Load{Packets: 5, Bytes: 6},
		Votes: []traffic.Vote{{
			Detector: "trees", Opinion: traffic.OpinionAttack, Score: 0.99, Threshold: unknown, Class: traffic.KindSYNFlood,
			Features: []traffic.Evidence{{Name: "syn_share_1s", Value: 1, Low: unknown, High: unknown, Contribution: 2}},
		}},
	}
}

// Incidents come over the wire as they are, unknown numbers as null.
func TestIncidents(t *testing.T) {
	f, _, c, _ := start(t)
	want := IncidentOf(someIncident(), LabelBenign)
	f.found = []Incident{want}
	since := time.Unix(900, 5).UTC()
	got, err := c.Incidents(t.Context(), IncidentFilter{Open: true, Since: since, Limit: 7})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]Incident{want}, got); d != "" {
		t.Error(d)
	}
	if v := got[0].Votes[0]; v.Threshold != nil || *v.Score != 0.99 || v.Features[0].Low != nil || got[0].Ended != nil {
		t.Errorf("%+v", got[0])
	}
	if d := cmp.Diff(IncidentFilter{Open: true, Since: since, Limit: 7}, f.asked); d != "" {
		t.Error(d)
	}
	if _, err := c.Incidents(t.Context(), IncidentFilter{}); err != nil || f.asked.Limit != maxIncidents || f.asked.Open {
		t.Errorf("%+v, %v", f.asked, err)
	}
	one, err := c.Incident(t.Context(), want.ID)
	if d := cmp.Diff(want, one); d != "" || err != nil {
		t.Error(d, err)
	}
}

func TestIncidentRequestsThatAreRefused(t *testing.T) {
	f, _, c, _ := start(t)
	f.found = []Incident{IncidentOf(someIncident(), "")}
	var e *Error
	if _, err := c.Incident(t.Context(), "none"); !errors.As(err, &e) || e.Status != http.StatusNotFound {
		t.Errorf("an unknown ID: %v", err)
	}
	if _, err := c.LabelIncident(t.Context(), f.found[0].ID, "maybe"); !errors.As(err, &e) || e.Status != http.StatusUnprocessableEntity {
		t.Errorf("an unknown label: %v", err)
	}
	if i, err := c.LabelIncident(t.Context(), f.found[0].ID, LabelAttack); err != nil || i.Label != LabelAttack {
		t.Errorf("%+v, %v", i, err)
	}
}

// Incidents are on streams that ask for everything, and on no others.
func TestIncidentsAmongEvents(t *testing.T) {
	_, s, c, _ := start(t)
	i := IncidentOf(someIncident(), "")
	go func() {
		for s.Readers() == 0 {
			time.Sleep(time.Millisecond)
		}
		s.PublishIncident(i)
	}()
	for m, err := range c.Events(t.Context(), EventFilter{}) {
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(EventMessage{Incident: &i}, m); d != "" {
			t.Error(d)
		}
		break
	}
	waitReaders(t, s, 0)
	go func() {
		for s.Readers() == 0 {
			time.Sleep(time.Millisecond)
		}
		s.PublishIncident(i)
		s.Publish("eth9", blocked("198.51.100.3"))
	}()
	for m, err := range c.Events(t.Context(), EventFilter{Outcomes: []traffic.Outcome{traffic.Dropped}}) {
		if err != nil || m.Incident != nil || m.Event == nil {
			t.Errorf("%+v, %v", m, err)
		}
		break
	}
}
