// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"encoding/json"
	"math"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestTargetText(t *testing.T) {
	for text, want := range map[string]Target{
		"192.0.2.7":       HostTarget(netip.MustParseAddr("192.0.2.7")),
		"2001:db8::7":     HostTarget(netip.MustParseAddr("2001:db8::7")),
		"192.0.2.0/24":    NetworkTarget(netip.MustParseAddr("192.0.2.7")),
		"2001:db8:1::/48": NetworkTarget(netip.MustParseAddr("2001:db8:1::7")),
		"interface":       {Scope: TargetInterface},
	} {
		var got Target
		if err := got.UnmarshalText([]byte(text)); err != nil || got != want {
			t.Errorf("%s: %v, %v", text, got, err)
		}
		if back, err := got.MarshalText(); err != nil || string(back) != text {
			t.Errorf("%s is written as %s, %v", text, back, err)
		}
	}
	for _, text := range []string{"", "host", "192.0.2.0/25", "192.0.2.1/24", "2001:db8::/64", "192.0.2.0/33"} {
		if err := new(Target).UnmarshalText([]byte(text)); err == nil || !strings.Contains(err.Error(), "/48") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestIncidentJSON(t *testing.T) {
	want := Incident{
		ID: "x", Target: NetworkTarget(netip.MustParseAddr("192.0.2.7")), Kind: KindAmplification, Protocol: ReflectionDNS.String(),
		Onset: time.Unix(5, 0).UTC(), Detected: time.Unix(6, 0).UTC(),
		Votes: []Vote{{
			Detector: "trees", Opinion: OpinionLikely, Score: 0.7, Threshold: Float(math.NaN()), Class: KindUDPFlood,
			Features: []Evidence{{Name: "a", Value: Float(math.Inf(1)), Low: 1, High: 2, Contribution: -3}},
		}},
	}
	data, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{
		`"target":"192.0.2.0/24"`, `"kind":"amplification"`, `"protocol":"dns"`, `"threshold":null`, `"value":null`,
		`"opinion":"likely"`, `"class":"udp_flood"`,
	} {
		if !strings.Contains(string(data), part) {
			t.Errorf("%s is not in %s", part, data)
		}
	}
	if strings.Contains(string(data), "ended") {
		t.Errorf("an open incident has an end: %s", data)
	}
	var got Incident
	if err := json.Unmarshal(data, &got); err != nil {
		t.Fatal(err)
	}
	if !math.IsNaN(float64(got.Votes[0].Threshold)) || !got.Open() || got.Target != want.Target || got.Kind != want.Kind {
		t.Errorf("read back: %+v", got)
	}
	for _, bad := range []string{`{"kind":"flood"}`, `{"target":"x"}`, `{"votes":[{"opinion":"maybe"}]}`} {
		if err := json.Unmarshal([]byte(bad), &got); err == nil {
			t.Errorf("%s is read", bad)
		}
	}
}

func TestKindsHaveWords(t *testing.T) {
	for k := range NumKinds {
		if back, ok := ParseKind(k.String()); !ok || back != k || k.String() == "" {
			t.Errorf("kind %d is %q", k, k)
		}
	}
	for r := ReflectionDNS; r < NumReflections; r++ {
		if r.String() == "" {
			t.Errorf("reflection %d has no name", r)
		}
	}
}
