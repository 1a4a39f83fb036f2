// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"math"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// The labels that an operator gives an incident.
const (
	LabelAttack = "attack"
	LabelBenign = "benign"
)

// Incident is one attack on one target, from its onset to its end.
type Incident struct {
	ID         string     `json:"id" example:"20300131-120000-4a1f"`
	Target     string     `json:"target" doc:"Address, /24 or /48 that is attacked, or interface" example:"192.0.2.10"`
	Kind       string     `json:"kind" doc:"What the attack consists of, a word of docs/detection.md" example:"syn_flood"`
	Protocol   string     `json:"protocol,omitempty" doc:"tcp, udp, icmp; of an amplification the reflectors' service"`
	Onset      time.Time  `json:"onset" doc:"When the excess began"`
	Detected   time.Time  `json:"detected"`
	Ended      *time.Time `json:"ended,omitempty" doc:"Absent: it goes on"`
	Confidence float64    `json:"confidence" doc:"0 to 1: how sure the detectors are, all of them together"`
	Peak       Rate       `json:"peak" doc:"Most of any tick, normal traffic included"`
	Normal     Rate       `json:"normal" doc:"What the baseline says; 0 without one"`
	NoBaseline bool       `json:"no_baseline,omitempty" doc:"The target was not known when the attack was found"`
	Hosts      int        `json:"hosts,omitempty" doc:"Of a carpet: hosts with an excess"`
	MergedInto string     `json:"merged_into,omitempty" doc:"Incident of the target that explains this one"`
	Votes      []Vote     `json:"votes" nullable:"false" doc:"What each detector said when the attack was found"`
	Notes      []string   `json:"notes,omitempty"`
	Label      string     `json:"label,omitempty" enum:"attack,benign" doc:"What an operator says that it was; absent: nothing yet"`
}

// Vote is what one detector said when the attack was found.
type Vote struct {
	Detector  string     `json:"detector" enum:"deterministic,trees,forest,online"`
	Opinion   string     `json:"opinion" enum:"absent,unsure,calm,likely,attack" doc:"absent: there is no such detector; unsure: it has not learnt enough"`
	Score     *float64   `json:"score" doc:"Of the deterministic layer: its CUSUM; null: none"`
	Threshold *float64   `json:"threshold" doc:"That the score is compared with"`
	Class     string     `json:"class,omitempty" doc:"Trees: the likeliest attack"`
	Reasons   []string   `json:"reasons,omitempty"`
	Features  []Evidence `json:"features,omitempty" doc:"The five that carried the vote, the most important first"`
}

// Evidence is a feature that carried a vote.
type Evidence struct {
	Name         string   `json:"name" doc:"As in docs/features.md"`
	Value        *float64 `json:"value"`
	Low          *float64 `json:"low" doc:"The target's normal range; null without calm times"`
	High         *float64 `json:"high"`
	Contribution *float64 `json:"contribution" doc:"In units of the model, positive: towards an attack"`
}

// maxIncidents is the most that one answer holds.
const maxIncidents = 10_000

// IncidentFilter selects incidents; the zero value is all of them.
type IncidentFilter struct {
	Open  bool      // only those that go on
	Since time.Time // only those that go on, or ended later
	Limit int       // at most so many, the newest; 0: all
}

// LabelRequest says what an incident was.
type LabelRequest struct {
	Label string `json:"label" enum:"attack,benign"`
}

// IncidentOf returns the incident i, labelled so, as it goes on the wire.
func IncidentOf(i *traffic.Incident, label string) Incident {
	out := Incident{
		ID: i.ID, Target: i.Target.String(), Kind: i.Kind.String(), Protocol: i.Protocol,
		Onset: i.Onset.UTC(), Detected: i.Detected.UTC(), Ended: timeOrNil(i.Ended), Confidence: i.Confidence,
		Peak: Rate(i.Peak), Normal: Rate(i.Normal), NoBaseline: i.NoBaseline, Hosts: i.Hosts, MergedInto: i.MergedInto,
		Votes: make([]Vote, 0, len(i.Votes)), Notes: i.Notes, Label: label,
	}
	for _, v := range i.Votes {
		out.Votes = append(out.Votes, voteOf(v))
	}
	return out
}

func voteOf(v traffic.Vote) Vote {
	out := Vote{
		Detector: v.Detector, Opinion: v.Opinion.String(), Reasons: v.Reasons,
		Score: numberOrNil(v.Score), Threshold: numberOrNil(v.Threshold),
	}
	if v.Class != traffic.KindBenign {
		out.Class = v.Class.String()
	}
	for _, e := range v.Features {
		out.Features = append(out.Features, Evidence{
			Name: e.Name, Value: numberOrNil(e.Value), Low: numberOrNil(e.Low), High: numberOrNil(e.High),
			Contribution: numberOrNil(e.Contribution),
		})
	}
	return out
}

func numberOrNil(f traffic.Float) *float64 {
	x := float64(f)
	if math.IsNaN(x) || math.IsInf(x, 0) {
		return nil
	}
	return &x
}

type incidentsBody struct {
	Incidents []Incident `json:"incidents" nullable:"false"`
}

type incidentsInput struct {
	Open  bool      `query:"open" doc:"Only those that go on"`
	Since time.Time `query:"since" doc:"Only those that go on, or ended later"`
	Limit int       `query:"limit" minimum:"1" maximum:"10000" default:"100" doc:"The newest, at most so many"`
}

type incidentID struct {
	ID string `path:"id" maxLength:"64"`
}

type labelInput struct {
	ID   string `path:"id" maxLength:"64"`
	Body LabelRequest
}

func (s *Server) registerIncidents(a huma.API) {
	huma.Register(a, op("incidents", http.MethodGet, "/v1/incidents", "List the attacks that were found, the newest first"),
		func(ctx context.Context, in *incidentsInput) (*output[incidentsBody], error) {
			all, err := s.backend.Incidents(ctx, IncidentFilter(*in))
			return answer(incidentsBody{notNil(all)}, err)
		})
	huma.Register(a, op("incident", http.MethodGet, "/v1/incidents/{id}", "Show one incident, and why it is one"),
		func(ctx context.Context, in *incidentID) (*output[Incident], error) {
			return answer(s.backend.Incident(ctx, in.ID))
		})
	huma.Register(a, op("label-incident", http.MethodPost, "/v1/incidents/{id}/label", "Say what an incident was",
		describe("The label is kept with the incident.")),
		func(ctx context.Context, in *labelInput) (*output[Incident], error) {
			return answer(s.backend.LabelIncident(ctx, in.ID, in.Body.Label))
		})
}
