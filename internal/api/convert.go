// SPDX-License-Identifier: Apache-2.0

package api

import (
	"net/netip"
	"time"

	"github.com/sentinel-x/sentinel-x/internal/signature"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// CountersOf returns the counters c, read at a time, as they go on the wire.
func CountersOf(c *traffic.Counters, read time.Time) Counters {
	out := Counters{
		Time: read, Seen: c.Seen,
		Passed: c.Outcome(traffic.Passed), Dropped: c.Outcome(traffic.Dropped), WouldDrop: c.Outcome(traffic.WouldDrop),
		Reasons:    make(map[string]ReasonCounts, traffic.NumReasons),
		EventsSent: c.EventsSent, EventsLost: c.EventsLost,
		MetersEvicted: c.MetersEvicted,
	}
	for r := range traffic.NumReasons {
		by := c.Reasons[r]
		out.Reasons[r.String()] = ReasonCounts{
			Passed: by[traffic.Passed], Dropped: by[traffic.Dropped], WouldDrop: by[traffic.WouldDrop],
		}
	}
	return out
}

// RatesBetween returns the speeds between two readings. Readings out of order,
// or counters that went back because the program was loaded anew, give zeros.
func RatesBetween(before, after Counters) Rates {
	d := after.Time.Sub(before.Time)
	known := d > 0 && after.Seen.Packets >= before.Seen.Packets
	rate := func(b, a traffic.Count) Rate {
		if !known || a.Packets < b.Packets || a.Bytes < b.Bytes {
			return Rate{}
		}
		diff := a.Sub(b)
		return Rate{Packets: float64(diff.Packets) / d.Seconds(), Bytes: float64(diff.Bytes) / d.Seconds()}
	}
	out := Rates{
		Seen: rate(before.Seen, after.Seen), Passed: rate(before.Passed, after.Passed),
		Dropped: rate(before.Dropped, after.Dropped), WouldDrop: rate(before.WouldDrop, after.WouldDrop),
		Reasons: make(map[string]Rate, traffic.NumReasons),
	}
	if known {
		out.Interval = Duration{d}
	}
	for r := range traffic.NumReasons {
		word := r.String()
		out.Reasons[word] = rate(before.Reasons[word].Total(), after.Reasons[word].Total())
	}
	return out
}

// LatencyOf returns the histogram h as it goes on the wire.
func LatencyOf(h traffic.Histogram) Latency {
	out := Latency{
		P50: Duration{h.Quantile(0.5)}, P99: Duration{h.Quantile(0.99)},
		Width: Duration{h.Width}, Buckets: append([]uint64{}, h.Buckets...),
	}
	for _, n := range h.Buckets {
		out.Samples += n
	}
	return out
}

// LimitsOf returns the limits l as they go on the wire.
func LimitsOf(l traffic.Limits) Limits {
	return Limits{
		PerSource: classLimitsOf(l.Class), PerPrefix: classLimitsOf(l.Prefix), PerTarget: classLimitsOf(l.Target),
		AllowedFactor: l.AllowedFactor,
	}
}

func classLimitsOf(l traffic.ClassLimits) ClassLimits {
	class := func(c traffic.Class) Limit {
		return Limit{Packets: l[c].Packets, Bytes: l[c].Bytes, Burst: Duration{l[c].Burst}}
	}
	return ClassLimits{
		All: class(traffic.ClassAll), SYN: class(traffic.ClassSYN),
		UDP: class(traffic.ClassUDP), ICMP: class(traffic.ClassICMP),
	}
}

// EntryOf returns the entry e as it goes on the wire.
func EntryOf(e traffic.Entry) Entry {
	return Entry{
		Prefix: e.Prefix, Expires: timeOrNil(e.Expires), Forced: e.Forced,
		Origin: e.Origin, Comment: e.Comment, Created: timeOrNil(e.Created),
		Hits: e.Hits, HitsSampled: e.Hits > 0, LastHit: timeOrNil(e.LastHit),
	}
}

// SignatureOf returns the rule s with what it has done as it goes on the wire, State and a Note of it left out.
func SignatureOf(s signature.Armed, st signature.Stats) Signature {
	out := Signature{
		ID: s.ID, Expression: s.Text, Action: s.Action.String(), Rate: s.Rate, Ceiling: s.Ceiling,
		Expires: timeOrNil(s.Expires), Created: s.Created.UTC(), Origin: s.Origin, Comment: s.Comment,
		Matched: st.Matched, Bytes: st.Bytes, Dropped: st.Dropped, WouldDrop: st.WouldDrop,
		OverCeiling: st.OverCeiling, LastSeen: timeOrNil(st.LastSeen),
	}
	if s.Rule.Target.IsValid() {
		out.Target = s.Rule.Target.String()
	}
	if s.Rule.Filter == "" {
		out.Rule = s.Rule.String()
		return out
	}
	out.Filter = true
	if _, err := signature.Parse(s.Rule.Filter); err != nil {
		out.Note = err.Error()
	}
	return out
}

func timeOrNil(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

// EventOf returns the event e, seen on an interface, as it goes on the wire.
func EventOf(iface string, e *traffic.Event) Event {
	return Event{
		Time: e.Time.UTC(), Interface: iface, Reason: e.Reason.String(), Outcome: e.Outcome.String(),
		Source: addrOrEmpty(e.Source), Destination: addrOrEmpty(e.Destination),
		Protocol: e.Protocol, SourcePort: e.SourcePort, DestinationPort: e.DestPort,
		TCPFlags: e.TCPFlags, TTL: e.TTL, Length: e.Length,
		VLANs: e.VLANs, Fragment: e.Fragment, Tunnel: e.Tunnel,
	}
}

func addrOrEmpty(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}
