// SPDX-License-Identifier: Apache-2.0

package engine

import "time"

const (
	// reorderTime is how far packets may be out of order in a capture.
	reorderTime = time.Second
	// pauseTime is the longest pause that detection sits through tick by tick.
	pauseTime = time.Minute
	// silenceTime is how much of pauses it sits through in all. From there on no pause is longer than
	// shortPause, so that a capture of nothing but jumps takes seconds, not hours.
	silenceTime = 24 * time.Hour
	shortPause  = time.Second
)

// replayClock makes time that detection can use of a capture's timestamps, whatever
// they are: it never goes back, no pause is longer than pauseTime, and few are when there are many.
type replayClock struct {
	now      time.Time
	pieces   []clockPiece
	disorder uint64 // packets a little before the one in front of them
	back     uint64 // steps back
	ahead    uint64 // pauses that were cut to pauseTime
	short    uint64 // and those that were cut to shortPause, once silence was used up
	silence  time.Duration
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
	limit := pauseTime
	if c.silence >= silenceTime {
		limit = shortPause
	}
	step := stamp.Add(c.pieces[len(c.pieces)-1].offset).Sub(c.now)
	if step > shortPause {
		c.silence += min(step, limit)
	}
	switch {
	case step < -reorderTime:
		c.back++
		c.cut(stamp, 0)
	case step < 0:
		c.disorder++
	case step > limit:
		if limit == pauseTime {
			c.ahead++
		} else {
			c.short++
		}
		c.cut(stamp, limit)
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
