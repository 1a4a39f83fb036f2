// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"math"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"github.com/sentinel-x/sentinel-x/internal/api"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// someIncidents are one that goes on and one that ended, the newest first.
func someIncidents() []api.Incident {
	unknown := traffic.Float(math.NaN())
	open := traffic.Incident{
		ID: "20300131-115958-4a1f", Target: traffic.HostTarget(netip.MustParseAddr("192.0.2.10")), Kind: traffic.KindSYNFlood, Protocol: "tcp",
		Onset: noon.Add(-2 * time.Second), Detected: noon.Add(-1800 * time.Millisecond), Confidence: 0.97,
		Peak: traffic.Load{Packets: 125_000, Bytes: 7_500_000}, Normal: traffic.Load{Packets: 800, Bytes: 400_000},
		Votes: []traffic.Vote{
			{Detector: "deterministic", Opinion: traffic.OpinionAttack, Score: 12.5, Threshold: 5, Reasons: []string{"SYNs without answers"}},
			{Detector: "trees", Opinion: traffic.OpinionAttack, Score: 0.998, Threshold: 0.95, Class: traffic.KindSYNFlood, Features: []traffic.Evidence{
				{Name: "syn_share_100ms", Value: 0.99, Low: 0.01, High: 0.08, Contribution: 2.25},
				{Name: "packets_ratio_100ms", Value: 7.28, Low: unknown, High: unknown, Contribution: -0.5},
			}},
			{Detector: "forest", Opinion: traffic.OpinionUnsure, Score: unknown, Threshold: unknown},
			{Detector: "online", Opinion: traffic.OpinionAbsent, Score: unknown, Threshold: unknown},
		},
	}
	over := traffic.Incident{
		ID: "20300130-080000-0c3d", Target: traffic.NetworkTarget(netip.MustParseAddr("198.51.100.0")), Kind: traffic.KindAmplification, Protocol: "dns",
		Onset: noon.Add(-28 * time.Hour), Detected: noon.Add(-28*time.Hour + 300*time.Millisecond), Ended: noon.Add(-28*time.Hour + 95*time.Second),
		Confidence: 0.9, Peak: traffic.Load{Packets: 90_000, Bytes: 100_000_000}, NoBaseline: true,
		Notes: []string{"no baseline: the target was not known before"},
	}
	return []api.Incident{api.IncidentOf(&open, ""), api.IncidentOf(&over, api.LabelAttack)}
}

func (f *fakeEngine) Incidents(_ context.Context, filter api.IncidentFilter) (out []api.Incident, err error) {
	for _, i := range f.found {
		if i.Ended == nil || !filter.Open {
			out = append(out, i)
		}
	}
	return out, nil
}

func (f *fakeEngine) Incident(_ context.Context, id string) (api.Incident, error) {
	i := slices.IndexFunc(f.found, func(i api.Incident) bool { return i.ID == id })
	if i < 0 {
		return api.Incident{}, api.Errorf(http.StatusNotFound, "there is no incident %s", id)
	}
	return f.found[i], nil
}

func (f *fakeEngine) LabelIncident(ctx context.Context, id, label string) (api.Incident, error) {
	i, err := f.Incident(ctx, id)
	i.Label = label
	return i, err
}

func (f *fakeEngine) WindowSchema(context.Context) (api.WindowSchema, error) {
	return f.windows, f.noWindows
}
