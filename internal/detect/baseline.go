// SPDX-License-Identifier: Apache-2.0

package detect

import (
	"math"
	"time"
)

// The rates that a target's baseline holds, all as log2(1 + events per second).
const (
	bPackets = iota
	bBytes
	bTCP
	bUDP
	bICMP
	bSYN
	bAnswers // ACKs, data and FINs: what only a peer sends that took part in a handshake
	bSources
	numBaselines
)

var baselineNames = [numBaselines]string{
	"packets", "bytes", "tcp", "udp", "icmp", "syn", "answers", "sources",
}

// How fast a baseline learns, from one sample each calm second.
const (
	recentMemory = 1800 // seconds over which the recent baseline forgets
	recentKnown  = 60   // samples from which it is used
	// provisionalKnown is from how many samples on a target without a baseline is
	// compared with these few: a guess, better than none.
	provisionalKnown = 5
	hourMemory       = 10800 // seconds, three weeks of an hour of the week
	hourKnown        = 900
	// growthCap is what a baseline may rise in a second once it is known, so that
	// no traffic, however patient, raises it by more than a tenth an hour.
	growthFrom = 600
)

var growthCap = math.Log2(1.1) / 3600

// level is a robust mean and a robust deviation, both of a logarithm.
type level struct{ centre, spread float64 }

// levels is one level per rate and how many samples made it.
type levels struct {
	of [numBaselines]level
	n  uint32
}

// learn takes one sample of each rate. What lies far off counts as little as
// what lies three deviations off, so that the centre stays near the median.
func (l *levels) learn(x *[numBaselines]float64, memory uint32) {
	l.n = min(l.n+1, memory)
	step := 1 / float64(l.n)
	for i := range l.of {
		at := &l.of[i]
		if l.n == 1 {
			*at = level{x[i], 0.25}
			continue
		}
		off := x[i] - at.centre
		if limit := max(4.5*at.spread, 0.1); l.n > 30 {
			off = min(max(off, -limit), limit)
		}
		rise := step * off
		if l.n >= growthFrom {
			rise = min(rise, growthCap)
		}
		at.centre += rise
		at.spread += step * (math.Abs(off) - at.spread)
	}
}

// hourLevel is a level at rest, in three bytes a rate.
type hourLevel struct {
	centre [numBaselines]uint16 // 1/1024
	spread [numBaselines]uint8  // 1/32
	n      uint16
}

func (h *hourLevel) store(l *levels) {
	for i, at := range l.of {
		h.centre[i] = uint16(min(math.Round(at.centre*1024), math.MaxUint16))
		h.spread[i] = uint8(min(math.Round(at.spread*32), math.MaxUint8))
	}
	h.n = uint16(l.n)
}

func (h *hourLevel) load(l *levels) {
	for i := range l.of {
		l.of[i] = level{float64(h.centre[i]) / 1024, float64(h.spread[i]) / 32}
	}
	l.n = uint32(h.n)
}

// baseline is what is normal for a target: recently, and in each hour of the week.
type baseline struct {
	recent levels
	hour   levels // of hourNow, at work
	// hourNow is the hour of the week plus one; 0: none yet.
	hourNow uint8
	learned bool              // in hourNow
	week    [7]*[24]hourLevel // days that nothing was learnt on are nil
}

// hourOfWeek counts from Sunday midnight UTC.
func hourOfWeek(t time.Time) (day, hour int) {
	t = t.UTC()
	return int(t.Weekday()), t.Hour()
}

// enter makes the hour of t the one at work.
func (b *baseline) enter(t time.Time) {
	day, hour := hourOfWeek(t)
	now := uint8(day*24 + hour + 1)
	if now == b.hourNow {
		return
	}
	b.leave()
	b.hourNow, b.learned = now, false
	b.hour = levels{}
	switch {
	case b.week[day] != nil && b.week[day][hour].n > 0:
		b.week[day][hour].load(&b.hour)
	case b.sameHour(hour, &b.hour):
	case b.recent.n >= recentKnown:
		// What nothing is known of starts from the present, and may rise from
		// there no faster than any baseline.
		b.hour = b.recent
		b.hour.n = min(b.hour.n, hourKnown)
	}
}

// leave puts the hour at work to rest: in a new day, for a snapshot may have the old one.
func (b *baseline) leave() {
	if !b.learned {
		return
	}
	day, hour := int(b.hourNow-1)/24, int(b.hourNow-1)%24
	hours := new([24]hourLevel)
	if b.week[day] != nil {
		*hours = *b.week[day]
	}
	hours[hour].store(&b.hour)
	b.week[day] = hours
}

// sameHour sets l to the mean of the hour on the days that know it.
func (b *baseline) sameHour(hour int, l *levels) bool {
	days := 0.0
	var one, mean levels
	for _, day := range b.week {
		if day == nil || day[hour].n < hourKnown {
			continue
		}
		day[hour].load(&one)
		days++
		for i := range mean.of {
			mean.of[i].centre += (one.of[i].centre - mean.of[i].centre) / days
			mean.of[i].spread += (one.of[i].spread - mean.of[i].spread) / days
		}
	}
	if days == 0 {
		return false
	}
	*l = mean
	l.n = hourKnown
	return true
}

// learn takes the rates of one calm second at t.
func (b *baseline) learn(t time.Time, x *[numBaselines]float64) {
	b.enter(t)
	b.recent.learn(x, recentMemory)
	b.hour.learn(x, hourMemory)
	b.learned = true
}

// known reports whether anything is known of what is normal.
func (b *baseline) known() bool { return b.recent.n >= recentKnown || b.hour.n >= hourKnown }

// guessed reports whether there are only a few calm seconds to compare with.
func (b *baseline) guessed() bool { return !b.known() && b.recent.n >= provisionalKnown }

// normal returns what is normal of one rate: the higher of the hour's level and
// the recent one, since either is reason enough for traffic; without both that of
// the few calm seconds so far; NaN if there are none.
func (b *baseline) normal(i int) level {
	unknown := level{math.NaN(), math.NaN()}
	hour, recent := unknown, unknown
	if b.hour.n >= hourKnown {
		hour = b.hour.of[i]
	}
	if b.recent.n >= recentKnown || b.guessed() {
		recent = b.recent.of[i]
	}
	if math.IsNaN(hour.centre) || recent.centre > hour.centre {
		return recent
	}
	return hour
}

// logRate is the form in which rates are compared.
func logRate(perSecond float64) float64 { return math.Log2(1 + perSecond) }

// unlog is its reverse.
func unlog(x float64) float64 { return math.Exp2(x) - 1 }
