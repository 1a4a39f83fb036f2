// SPDX-License-Identifier: Apache-2.0

package scene

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// Day is normal traffic of one target over hours, with events in it, one after the other.
type Day struct {
	Calm   Scenario   // the normal traffic
	Events []Scenario // in order of time, of the same target and calm
}

// NewDay draws a day of a profile (or less or more, by length) at a rate in packets a second, averaged over the week, that begins at midnight of some
// day of the week. From the second hour on, each has an event at which nothing may happen: a crowd of up to ten
// times the rate, a backup, a scan …
func NewDay(profile string, rate float64, length time.Duration, seed uint64) (*Day, error) {
	if _, err := ProfileNamed(profile); err != nil {
		return nil, fmt.Errorf("draw a day: %w", err)
	}
	r := newRNG(seed, "day "+profile)
	d := &Day{Calm: Scenario{
		Name: "day/" + profile, Family: "normal", Kind: traffic.KindBenign, Profile: profile, Ratio: 1, Baseline: rate,
		Target: netip.AddrFrom4([4]byte{198, 51, 100, byte(r.between(1, 200))}), Arrival: Arrival(r.intn(int(numArrivals))),
		Begin: time.Duration(r.intn(7)) * 24 * time.Hour, Length: length, Seed: r.next(),
	}}
	for hour := time.Hour; hour+time.Hour <= length; hour += time.Hour {
		d.Events = append(d.Events, d.draw(&r, hour))
	}
	return d, nil
}

// draw draws the event of an hour: with its last clients it is over when the next one begins.
func (d *Day) draw(r *rng, hour time.Duration) Scenario {
	var fitting []family
	for _, f := range calm() {
		if f.event != nil && (f.profiles == nil || slices.Contains(f.profiles, d.Calm.Profile)) {
			fitting = append(fitting, f)
		}
	}
	f := pick(r, fitting...)
	ratios := slices.DeleteFunc(slices.Clone(f.ratios), func(x float64) bool { return x > 10 })
	s := d.Calm
	s.Family, s.Seed, s.Calm, s.Ratio = f.name, r.next(), d.Calm.Seed, pick(r, ratios...)
	s.Onset = hour + time.Duration(r.between(0, 30*60))*time.Second
	s.End = s.Onset + time.Duration(r.between(60, 12*60))*time.Second
	s.Name = fmt.Sprintf("%s/%s/%gx", d.Calm.Name, f.name, s.Ratio)
	return s
}

// Stream composes normal traffic and events. An event's stream is made when its time comes, and cut when the next one's does.
func (d *Day) Stream() (Stream, error) {
	normal, err := d.Calm.Stream()
	if err != nil {
		return nil, err
	}
	for i := range d.Events {
		if _, err := d.Events[i].Event(); err != nil {
			return nil, err
		}
	}
	return Until(Merge(normal, &chain{events: d.Events}), d.Calm.Length), nil
}

// At returns the event that is under way or was the last one at a time; nil: there was none yet.
func (d *Day) At(t time.Duration) *Scenario {
	i, _ := slices.BinarySearchFunc(d.Events, t, func(s Scenario, t time.Duration) int { return int(min(1, max(-1, s.Onset-t-1))) })
	if i == 0 {
		return nil
	}
	return &d.Events[i-1]
}

// chain plays the events of a day.
type chain struct {
	events []Scenario
	now    Stream
}

func (c *chain) Next(p *Packet) bool {
	for {
		if c.now != nil && c.now.Next(p) {
			return true
		}
		if len(c.events) == 0 {
			return false
		}
		event, err := c.events[0].Event()
		c.events = c.events[1:]
		if err != nil || event == nil {
			continue // Stream has checked them
		}
		if c.now = event; len(c.events) > 0 {
			c.now = Until(event, c.events[0].Onset)
		}
	}
}
