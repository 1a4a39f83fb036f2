// SPDX-License-Identifier: Apache-2.0

package detect

import (
	"testing"
	"time"

	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// TestHourFollowsTheClock: what is learnt is kept under the hour of the week that the clock says, wherever it is set
// to, and under no other.
func TestHourFollowsTheClock(t *testing.T) {
	x, w := NewExtractor(2), newSim(1).window(victim)
	w.Packets, w.UDP, w.Bytes, w.Sizes[1] = 40, 40, 4000, 40
	const hour = time.Hour
	for _, start := range []time.Duration{
		34 * hour,  // Monday ten o'clock
		5 * hour,   // back to Sunday at five
		100 * hour, // on to Thursday at four
		-19 * hour, // back to Saturday at five
		0,          // and on to midnight
	} {
		at := epoch.Add(start)
		for range 600 {
			if !x.Begin(at, traffic.Tick) {
				t.Fatalf("the tick at %v is refused", at)
			}
			w.Start = at
			x.Observe(&w).Settle(true)
			at = at.Add(traffic.Tick)
		}
	}
	b := x.Find(victim).baseline
	b.leave()
	learnt := 0
	for day := range b.week {
		for h := 0; b.week[day] != nil && h < 24; h++ {
			if b.week[day][h].n == 0 {
				continue
			}
			learnt++
			switch [2]int{day, h} {
			case [2]int{1, 10}, [2]int{0, 5}, [2]int{4, 4}, [2]int{6, 5}, [2]int{0, 0}:
			default:
				t.Errorf("something was learnt on day %d at %d", day, h)
			}
		}
	}
	if learnt != 5 {
		t.Errorf("%d hours were learnt, want 5", learnt)
	}
	near(t, "normal rate", normalRate(&b), 400, 1)
	if s := x.Stats(); s.Jumps != 2 {
		t.Errorf("%+v", s)
	}
}
