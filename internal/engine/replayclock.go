// SPDX-License-Identifier: Apache-2.0

package engine

import "time"

const (
	// reorderTime is how far packets may be out of order in a capture.
	reorderTime = time.Second
	// pauseTime is the longest pause that detection sits through tick by tick.
	pauseTime = time.Minute
)

// replayClock makes time that detection can use of a capture's timestamps, whatever
// they are: it never goes back, and no pause is longer than pauseTime.
type replayClock struct {
	now      time.Time
	pieces   []clockPiece
	disorder uint64 // packets a little before the one in front of them
	back     uint64 // steps back
	ahead    uint64 // pauses that were cut short
}

// clockPiece is a stretch in which the clock is the capture's time and an offset.
type clockPiece struct {
	from   time.Time     // of the clock
	offset time.Duration // what the clock is ahead of the capture
}

// at returns the time of a packet.
func (c *replayClock) at(stamp time.Time) time.Time {
	if c.pieces == nil {
		c.now = stamp
		c.pieces = []clockPiece{{from: stamp}}
		return stamp
	}
	switch step := stamp.Add(c.pieces[len(c.pieces)-1].offset).Sub(c.now); {
	case step < -reorderTime:
		c.back++
		c.cut(stamp, 0)
	case step < 0:
		c.disorder++
	case step > pauseTime:
		c.ahead++
		c.cut(stamp, pauseTime)
	default:
		c.now = c.now.Add(step)
	}
	return c.now
}

// cut begins a piece at a packet that comes that long behind the last one.
func (c *replayClock) cut(stamp time.Time, later time.Duration) {
	c.now = c.now.Add(later)
	c.pieces = append(c.pieces, clockPiece{from: c.now, offset: c.now.Sub(stamp)})
}

// stamp returns the capture's time of a time of the clock.
func (c *replayClock) stamp(at time.Time) time.Time {
	i := len(c.pieces) - 1
	for i > 0 && at.Before(c.pieces[i].from) {
		i--
	}
	return at.Add(-c.pieces[i].offset)
}
