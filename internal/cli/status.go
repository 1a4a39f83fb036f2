// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sentinel-x/sentinel-x/internal/api"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

func (a *app) statusCommand() *cobra.Command {
	return a.jsonFlag(&cobra.Command{
		Use:   "status",
		Short: "Show what the engine does and what it has counted",
		Long: `Show the interfaces, the packets by outcome and reason, the lists, the limits,
and what is not as it should be.

Packets and bytes count from the moment the program was loaded; rates are those of
the last second. docs/reasons.md lists the reasons.`,
		Example: "  sentinel-x status\n  sentinel-x status --json | jq .counters.reasons.blocklist.dropped.packets",
		Args:    args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			st, err := a.client().Status(cmd.Context())
			if err != nil {
				return err
			}
			return a.print(st, func(w io.Writer) { writeStatus(w, st) })
		},
	})
}

func writeStatus(w io.Writer, st api.Status) {
	fmt.Fprintf(w, "sentinel-x %s, up %s, Linux %s, pid %d\n\n", st.Version, age(st.Uptime.Duration), st.Kernel, st.PID)
	field := func(name, value string) { fmt.Fprintf(w, "%-9s %s\n", name, value) }
	field("state", state(st))
	field("health", st.Health.State)
	for _, reason := range st.Health.Reasons {
		field("", "! "+reason)
	}
	for _, warning := range st.Warnings {
		if st.Pin.Reason == "" || !strings.HasSuffix(warning, st.Pin.Reason) { // that one is said below
			field("", "! "+warning)
		}
	}
	field("pinned", pinned(st.Pin))
	if st.ConfigFile != "" {
		field("config", st.ConfigFile)
	}
	field("lists", fmt.Sprintf("block %s, allow %s, protected %s (room for %s each)", grouped(uint64(st.Lists.Block)),
		grouped(uint64(st.Lists.Allow)), grouped(uint64(st.Lists.Protected)), grouped(uint64(st.Lists.Capacity))))
	field("rules", signatures(st.Signatures))
	field("detect", detection(st.Detection))
	field("limits", limits(st.Limits))
	field("latency", latency(st.Latency))
	field("events", fmt.Sprintf("%s sampled, %s lost", grouped(st.Counters.EventsSent), grouped(st.Counters.EventsLost)))
	field("memory", fmt.Sprintf("maps %s, process %s", memory(st.Memory.MapsBytes), memory(st.Memory.RSSBytes)))
	fmt.Fprintln(w)
	writeInterfaces(w, st.Interfaces)
	fmt.Fprintln(w)
	writeCounters(w, st.Counters, st.Rates)
}

func state(st api.Status) string {
	switch {
	case st.Bypass:
		return "BYPASS: every packet passes unexamined"
	case st.DryRun:
		return "DRY RUN: packets are judged and counted, none is dropped"
	}
	return "filtering"
}

func pinned(p api.Pin) string {
	if p.Pinned {
		return p.Path
	}
	if p.Reason == "" {
		return "no"
	}
	return "no: " + p.Reason
}

func signatures(c api.SignatureCounts) string {
	text := fmt.Sprintf("%d of %d signatures", c.Armed, c.Capacity)
	if c.OverCeiling > 0 {
		text += fmt.Sprintf(", %d over the ceiling", c.OverCeiling)
	}
	if c.Refused > 0 {
		text += fmt.Sprintf(", %d refused", c.Refused)
	}
	return text
}

func detection(d api.Detection) string {
	if !d.Enabled {
		return "off"
	}
	trees := "no trees"
	if d.Trees != "" {
		trees = "trees " + d.Trees
	}
	return fmt.Sprintf("%s open, %s of %d targets, %s, %d of %d learners armed", plural(d.Open, "incident", "incidents"),
		grouped(uint64(d.Targets)), d.Capacity, trees, d.Armed, d.Learners)
}

func limits(l api.Limits) string {
	var parts []string
	for _, s := range []struct {
		whose  string
		limits api.ClassLimits
	}{{"a source", l.PerSource}, {"a prefix", l.PerPrefix}, {"a target", l.PerTarget}} {
		if text := classLimits(s.limits); text != "" {
			parts = append(parts, text+" "+s.whose)
		}
	}
	if len(parts) == 0 {
		return "none"
	}
	return strings.Join(parts, "; ")
}

func classLimits(l api.ClassLimits) string {
	var parts []string
	for _, c := range []struct {
		name  string
		limit api.Limit
	}{{"all", l.All}, {"syn", l.SYN}, {"udp", l.UDP}, {"icmp", l.ICMP}} {
		if text := limit(c.limit); text != "" {
			parts = append(parts, c.name+" "+text)
		}
	}
	return strings.Join(parts, ", ")
}

func limit(l api.Limit) string {
	var parts []string
	if l.Packets > 0 {
		parts = append(parts, short(float64(l.Packets))+" packets/s")
	}
	if l.Bytes > 0 {
		parts = append(parts, bits(float64(l.Bytes)))
	}
	return strings.Join(parts, " and ")
}

func latency(l api.Latency) string {
	if l.Samples == 0 {
		return "no samples yet"
	}
	return fmt.Sprintf("p50 %s, p99 %s of %s samples", l.P50, l.P99, grouped(l.Samples))
}

func writeInterfaces(w io.Writer, interfaces []api.Interface) {
	t := newTable("INTERFACE", "MODE", "DRIVER", ">MTU", "FRAGS", ">LINK", ">PROGRAM", "STATE")
	for _, i := range interfaces {
		up := "down"
		if i.Up {
			up = "up"
		}
		t.row(i.Name, i.Mode, i.Driver, fmt.Sprint(i.MTU), yesNo(i.Frags), fmt.Sprint(i.LinkID), fmt.Sprint(i.ProgramID), up)
	}
	t.write(w)
	for _, i := range interfaces {
		if i.FallbackReason != "" {
			fmt.Fprintf(w, "%s is in %s mode: %s\n", i.Name, i.Mode, i.FallbackReason)
		}
	}
}

func writeCounters(w io.Writer, c api.Counters, r api.Rates) {
	t := newTable("OUTCOME", ">PACKETS", ">SHARE", ">BYTES", ">PACKETS/S", ">RATE")
	row := func(name string, n traffic.Count, rate api.Rate) {
		t.row(name, grouped(n.Packets), percent(n.Packets, c.Seen.Packets), size(n.Bytes), short(rate.Packets), bits(rate.Bytes))
	}
	row("seen", c.Seen, r.Seen)
	row("passed", c.Passed, r.Passed)
	row("dropped", c.Dropped, r.Dropped)
	if c.WouldDrop.Packets > 0 {
		row("would drop", c.WouldDrop, r.WouldDrop)
	}
	t.write(w)
	fmt.Fprintln(w)
	t = newTable("REASON", ">PASSED", ">DROPPED", ">WOULD DROP", ">SHARE", ">PACKETS/S")
	for reason := range traffic.NumReasons {
		by, word := c.Reasons[reason.String()], reason.String()
		if n := by.Total().Packets; n > 0 {
			t.row(word, grouped(by.Passed.Packets), grouped(by.Dropped.Packets), grouped(by.WouldDrop.Packets),
				percent(n, c.Seen.Packets), short(r.Reasons[word].Packets))
		}
	}
	t.write(w)
}
