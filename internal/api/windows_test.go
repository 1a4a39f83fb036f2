// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

var (
	hostTarget  = traffic.HostTarget(netip.MustParseAddr("192.0.2.10"))
	otherTarget = traffic.HostTarget(netip.MustParseAddr("198.51.100.10"))
)

func someWindow(t traffic.Target, label string) Window {
	return Window{Time: time.Unix(1000, 0).UTC(), Target: t.String(), Label: label, Baseline: true}
}

// TestWindows: the schema comes first, then the windows of the targets asked for,
// with vectors only where they are wanted.
func TestWindows(t *testing.T) {
	for all, vector := range map[bool][]byte{false: nil, true: {1, 2, 3}} {
		_, s, c, _ := start(t)
		asked := 0
		features := func() []byte { asked++; return []byte{1, 2, 3} }
		ctx, cancel := context.WithCancel(t.Context())
		var got []WindowMessage
		for m, err := range c.Windows(ctx, WindowFilter{Target: netip.MustParsePrefix("192.0.2.0/24"), All: all}) {
			if err != nil {
				if !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
				continue
			}
			got = append(got, m)
			switch len(got) {
			case 1:
				s.PublishWindow(otherTarget, someWindow(otherTarget, LabelCalm), features)
				s.PublishWindow(traffic.Target{Scope: traffic.TargetInterface}, Window{}, features)
				s.PublishWindow(hostTarget, someWindow(hostTarget, "attack"), features)
				s.PublishWindow(hostTarget, someWindow(hostTarget, LabelCalm), features)
			case 3:
				cancel()
			}
		}
		attack, calm := someWindow(hostTarget, "attack"), someWindow(hostTarget, LabelCalm)
		attack.Features, calm.Features = vector, []byte{1, 2, 3}
		want := []WindowMessage{{Schema: &WindowSchema{"h", []string{"a", "b"}}}, {Window: &attack}, {Window: &calm}}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		if wanted := 1 + len(vector)/3; asked != wanted {
			t.Errorf("all %v: %d vectors were made, want %d", all, asked, wanted)
		}
		cancel()
	}
}

// TestSlowWindowReader: it loses windows, is told how many, and nobody waits for it.
func TestSlowWindowReader(t *testing.T) {
	var f windowFanOut
	r := f.add(WindowFilter{})
	for range windowQueue + 7 {
		f.publish(hostTarget, someWindow(hostTarget, LabelCalm), func() []byte { return nil })
	}
	if len(r.windows) != windowQueue || r.lost.Load() != 7 {
		t.Errorf("%d windows wait, %d are lost", len(r.windows), r.lost.Load())
	}
	for range maxWindowReaders - 1 {
		f.add(WindowFilter{})
	}
	if f.add(WindowFilter{}) != nil {
		t.Error("there is no limit to readers")
	}
	f.remove(r)
	if f.add(WindowFilter{}) == nil || f.count.Load() != maxWindowReaders {
		t.Error("a reader's place is not free again")
	}
}

func TestWindowsRefused(t *testing.T) {
	b, _, c, path := start(t)
	b.err = Conflict("detection is off")
	for _, err := range c.Windows(t.Context(), WindowFilter{}) {
		if e, ok := errors.AsType[*Error](err); !ok || e.Status != 409 || e.Detail != "detection is off" {
			t.Errorf("with detection off: %v", err)
		}
	}
	status, body := raw(t, path, "GET", "/v1/windows?target=nonsense", "", nil)
	if status != 422 {
		t.Errorf("status %d: %s", status, body)
	}
}
