// SPDX-License-Identifier: Apache-2.0

package model

import (
	"math/rand/v2"
	"slices"
)

// Clone returns a learner that knows the same and shares nothing with l but the forest, which is immutable. Given
// the same windows, both learn the same.
func (l *Learner) Clone() *Learner {
	c := *l
	calm, free, drift := *l.calm, *l.free, *l.drift
	c.calm, c.free, c.drift = &calm, &free, &drift
	if l.half != nil {
		half := *l.half
		half.fill, half.nodes = slices.Clone(half.fill), slices.Clone(half.nodes)
		c.half = &half
	}
	c.guard = l.guard.clone()
	c.keep = l.keep.clone()
	return &c
}

func (g *guard) clone() guard {
	c := *g
	c.ring, c.rows = slices.Clone(g.ring), slices.Clone(g.rows)
	for i := range c.ring {
		if c.ring[i].Row != nil {
			c.ring[i].Row = c.rows[i*c.width:][:c.width]
		}
	}
	return c
}

func (r *reservoir) clone() reservoir {
	c := *r
	source := *r.source
	c.source, c.random = &source, rand.New(&source)
	c.values, c.at = slices.Clone(r.values), slices.Clone(r.at)
	return c
}
