// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/sentinel-x/sentinel-x/internal/api"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// tick does what is due each second: entries that have ended go, the meter is
// swept, rates are measured, and the summary line is logged.
func (e *Engine) tick(ctx context.Context) error {
	t := time.NewTicker(tickTime)
	defer t.Stop()
	var logged, swept time.Time
	before, err := e.read()
	if err != nil {
		return err
	}
	e.setReading(before)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-e.o.Reload:
			if _, err := e.Reload(ctx); err != nil {
				e.log.Error("reload: the old configuration stays", "error", err)
			}
		case now := <-t.C:
			if n, err := e.ledger.Expire(); err != nil {
				e.log.Error("remove entries that have ended", "error", err)
			} else if n > 0 {
				e.log.Info("entries ended", "count", n)
			}
			e.watchCeilings(now)
			swept = e.sweep(now, swept)
			if e.measure() != nil {
				continue
			}
			if every := e.statsInterval(); every > 0 && now.Sub(logged) >= every-tickTime/2 {
				before = e.logStats(before)
				logged = now
			}
		}
	}
}

// sweep refreshes the meter when it is due, and returns when it was last done.
func (e *Engine) sweep(now, last time.Time) time.Time {
	if now.Sub(last) < sweepTime {
		return last
	}
	if err := e.plane.SweepMeter(); err != nil {
		e.log.Error("sweep the meter", "error", err)
	}
	return now
}

func (e *Engine) statsInterval() time.Duration {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.cfg.StatsInterval.Duration
}

func (e *Engine) read() (api.Counters, error) {
	c, err := e.plane.Counters()
	if err != nil {
		return api.Counters{}, err
	}
	return api.CountersOf(&c, time.Now()), nil
}

// setReading takes the place of the last reading, which it returns.
func (e *Engine) setReading(c api.Counters) (before api.Counters) {
	e.mu.Lock()
	defer e.mu.Unlock()
	before, e.last = e.last, c
	return before
}

// countHits gives the entries of both lists what ended on them between two readings.
func (e *Engine) countHits(before, after api.Counters) {
	for reason, list := range listOf {
		word := reason.String()
		b, a := before.Reasons[word].Total().Packets, after.Reasons[word].Total().Packets
		if a >= b { // a program that was loaded anew counts from 0
			e.ledger.CountHits(list, a-b)
		}
	}
}

// measure takes the rates since the last tick.
func (e *Engine) measure() error {
	c, err := e.read()
	if err != nil {
		e.log.Error("read counters", "error", err)
		return err
	}
	before := e.setReading(c)
	e.countHits(before, c) // may wait for an import: without mu
	e.mu.Lock()
	defer e.mu.Unlock()
	e.rates = api.RatesBetween(before, c)
	e.crowd = crowd(before, c)
	if err := e.plane.AdaptSampling(e.rates.Passed.Packets, e.rates.Dropped.Packets+e.rates.WouldDrop.Packets); err != nil {
		e.log.Error("adapt sampling", "error", err)
	}
	return nil
}

// crowd returns the share of packets between two readings that found no room in the meter.
func crowd(before, after api.Counters) float64 {
	seen := after.Seen.Sub(before.Seen).Packets
	return float64(after.MetersEvicted-before.MetersEvicted) / float64(max(seen, 1))
}

func (e *Engine) logStats(before api.Counters) api.Counters {
	e.mu.Lock()
	after := e.last
	e.mu.Unlock()
	r := api.RatesBetween(before, after)
	e.log.Info("traffic", "pps", int(r.Seen.Packets), "bps", int(r.Seen.Bytes*8),
		"dropped_pps", int(r.Dropped.Packets), "would_drop_pps", int(r.WouldDrop.Packets))
	return after
}

// summarize writes what happened from start to end.
func (e *Engine) summarize() {
	if e.o.Summary == nil {
		return
	}
	c, err := e.plane.Counters()
	if err == nil {
		err = writeSummary(e.o.Summary, &c, time.Since(e.started))
	}
	if err != nil {
		e.log.Error("closing summary", "error", err)
	}
}

func writeSummary(w io.Writer, c *traffic.Counters, d time.Duration) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(t, "Sentinel-X ran for %v\n", d.Round(time.Second))
	row := func(name string, n traffic.Count) {
		fmt.Fprintf(t, "%s\t%d packets\t%d bytes\t%s\t\n", name, n.Packets, n.Bytes, share(n, c.Seen))
	}
	row("seen", c.Seen)
	for o := range traffic.NumOutcomes {
		row(o.String(), c.Outcome(o))
	}
	for r := range traffic.NumReasons {
		if n := c.Reason(r); n.Packets > 0 {
			row(r.String(), n)
		}
	}
	fmt.Fprintf(t, "verdict latency\tp50 ≤ %v\tp99 ≤ %v\t\t\n", c.Latency.Quantile(.5), c.Latency.Quantile(.99))
	return t.Flush()
}

func share(part, whole traffic.Count) string {
	if whole.Packets == 0 {
		return "–"
	}
	return fmt.Sprintf("%.2f %%", 100*float64(part.Packets)/float64(whole.Packets))
}
