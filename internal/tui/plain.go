// SPDX-License-Identifier: Apache-2.0

package tui

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"
)

// showPlain writes a line for each phase and each line of the log, and the
// figures now and then.
func showPlain(ctx context.Context, out io.Writer, title string, snapshots <-chan Snapshot) error {
	p := plain{out: out}
	p.line("Sentinel-X  %s", title)
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case s, more := <-snapshots:
			if !more {
				return p.err
			}
			p.show(s)
		}
		if p.err != nil {
			return fmt.Errorf("write the view: %w", p.err)
		}
	}
}

type plain struct {
	out    io.Writer
	err    error // the first one
	phase  string
	logged int           // lines of the log that are written
	due    time.Duration // when figures are written next
}

func (p *plain) line(format string, args ...any) {
	if _, err := fmt.Fprintf(p.out, format+"\n", args...); p.err == nil {
		p.err = err
	}
}

func (p *plain) show(s Snapshot) {
	at := clock(s.Elapsed)
	if s.Phase != p.phase && s.Phase != "" {
		p.phase = s.Phase
		p.line("%s  == %s", at, s.Phase)
	}
	for ; p.logged < len(s.Log); p.logged++ {
		p.line("%s  %s", at, s.Log[p.logged])
	}
	if s.Elapsed >= p.due && s.Elapsed > 0 {
		p.due = s.Elapsed - s.Elapsed%plainInterval + plainInterval
		p.line("%s  %s", at, figures(s))
	}
}

func figures(s Snapshot) string {
	parts := []string{fmt.Sprintf("packets/s: seen %s, passed %s, dropped %s", short(s.Seen), short(s.Passed), short(s.Dropped))}
	for _, r := range s.Reasons {
		if r.Rate > 0 {
			parts = append(parts, fmt.Sprintf("%s %s", r.Name, short(r.Rate)))
		}
	}
	if c := s.Clients; c != nil {
		parts = append(parts, fmt.Sprintf("%d clients %.2f %% served", c.Count, 100*c.Success))
		if c.P50 > 0 {
			parts = append(parts, fmt.Sprintf("p50 %s, p99 %s", milliseconds(c.P50), milliseconds(c.P99)))
		}
	}
	return strings.Join(parts, "; ")
}
