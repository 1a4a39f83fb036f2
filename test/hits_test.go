// SPDX-License-Identifier: Apache-2.0

package test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/sentinel-x/sentinel-x/internal/api"
	"github.com/sentinel-x/sentinel-x/internal/lab"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// The entries of both lists say what they have done, and all of them together as
// much as the exact counters say.
func TestHitsOfEntries(t *testing.T) {
	s := newSite(t, lab.NetOptions{Clients: 3})
	d := s.start(t, s.runArgs()...)
	one, two, three := lab.Client4(0), lab.Client4(1), lab.Client4(2)
	s.ok(t, "block", "add", one.String(), two.String(), "--comment", "why")
	s.ok(t, "allow", "add", three.String())
	hits := func(list string) (all uint64, by map[string]api.Entry) {
		var entries []api.Entry
		if err := json.Unmarshal([]byte(s.ok(t, list, "list", "--json")), &entries); err != nil {
			t.Fatal(err)
		}
		by = map[string]api.Entry{}
		for _, e := range entries {
			all += e.Hits
			by[e.Prefix.Addr().String()] = e
		}
		return all, by
	}
	s.wantReach(t, "blocked", one, false)
	s.wantReach(t, "allowed", three, true)
	eventually(t, "the counters and the hits agree", func() bool {
		st := s.status(t)
		blocked, _ := hits("block")
		allowed, _ := hits("allow")
		return blocked > 0 && allowed > 0 && blocked == reasonCount(st, traffic.ReasonBlocklist) && allowed == reasonCount(st, traffic.ReasonAllowlist)
	})
	_, by := hits("block")
	if e := by[one.String()]; e.Hits < 3 || !e.HitsSampled || e.LastHit == nil || e.Comment != "why" || e.Origin != "operator" {
		t.Errorf("entry that was hit: %+v", e)
	}
	if e := by[two.String()]; e.Hits != 0 || e.HitsSampled || e.LastHit != nil {
		t.Errorf("entry that was not hit: %+v", e)
	}
	if text := s.ok(t, "block", "list"); !strings.Contains(text, "HITS") || !strings.Contains(text, "~") {
		t.Errorf("block list:\n%s", text)
	}
	d.stop(t)
}
