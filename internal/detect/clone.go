// SPDX-License-Identifier: Apache-2.0

package detect

import (
	"maps"
	"slices"

	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// Clone returns a detector in the same state that shares nothing that changes with d, has no observer, and uses the models m: those of
// d, cloned where they learn. Given the same windows, both say the same. It is for between two ticks: after End.
func (d *Detector) Clone(m Models) *Detector {
	c := *d
	c.models, c.observer = m, nil
	c.vector, c.updates, c.alarms = slices.Clone(d.vector), nil, nil
	tracks := map[*Track]*Track{}
	c.x = d.x.clone(tracks)
	attacks := map[*attack]*attack{}
	copies := func(list []*attack) []*attack {
		list = slices.Clone(list)
		for i, a := range list {
			if attacks[a] == nil {
				attacks[a] = a.clone(tracks[a.track])
			}
			list[i] = attacks[a]
		}
		return list
	}
	c.open, c.waiting = copies(d.open), copies(d.waiting)
	for _, t := range tracks {
		t.watch.attack = attacks[t.watch.attack]
	}
	c.hot = slices.Clone(d.hot)
	for i, t := range c.hot {
		c.hot[i] = tracks[t]
	}
	return &c
}

func (a *attack) clone(t *Track) *attack {
	c := *a
	c.Incident = a.copy()
	c.track, c.vector = t, slices.Clone(a.vector)
	return &c
}

// clone copies the extractor, and says in tracks which track became which.
func (x *Extractor) clone(tracks map[*Track]*Track) *Extractor {
	c := *x
	c.tracks = make(map[traffic.Target]*Track, len(x.tracks))
	c.sources, c.idle, c.frame = x.sources.clone(), nil, frame{}
	for target, t := range x.tracks {
		copied := t.clone(&c)
		c.tracks[target], tracks[t] = copied, copied
	}
	return &c
}

func (t *Track) clone(x *Extractor) *Track {
	c := *t
	c.x, c.ranges = x, slices.Clone(t.ranges) // a baseline's days at rest never change: both may have them
	return &c
}

func (m *memory) clone() *memory {
	c := *m
	c.now, c.before = slices.Clone(m.now), slices.Clone(m.before)
	return &c
}

// Clone returns a bank whose learners know the same and share nothing with b's but forests.
func (b *Bank) Clone() *Bank {
	c := *b
	c.row, c.order, c.own = slices.Clone(b.row), slices.Clone(b.order), maps.Clone(b.own)
	for t, o := range c.own {
		c.own[t] = &own{o.Learner.Clone(), o.last}
	}
	return &c
}
