// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sentinel-x/sentinel-x/internal/api"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

type eventsFlags struct {
	reasons, outcomes, sources []string
	count                      uint64
}

func (a *app) eventsCommand() *cobra.Command {
	var f eventsFlags
	c := a.jsonFlag(&cobra.Command{
		Use:   "events",
		Short: "Follow sampled packets with their verdicts",
		Long: `Follow packets as they are judged, one a line, until Ctrl-C. These are samples within
the budget events.per_second, not every packet: status has the exact counts. Without
a filter, incidents are among them when they begin, change and end.

With --json each line is an object: {"event": …} or {"incident": …}, and {"lost": n}
with it when this command was too slow to take n of them.`,
		Example: `  sentinel-x events --outcome dropped
  sentinel-x events --reason limit,blocklist --source 203.0.113.0/24
  sentinel-x events --count 100 --json`,
		Args: args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.followEvents(cmd.Context(), f) },
	})
	c.Flags().StringSliceVar(&f.reasons, "reason", nil, "only these reasons")
	c.Flags().StringSliceVar(&f.outcomes, "outcome", nil, "only these outcomes: passed, dropped, would_drop")
	c.Flags().StringSliceVar(&f.sources, "source", nil, "only sources within these hosts or prefixes")
	c.Flags().Uint64Var(&f.count, "count", 0, "stop after this many events (default never)")
	completeWords(c, "reason", words(traffic.NumReasons))
	completeWords(c, "outcome", words(traffic.NumOutcomes))
	return c
}

// words returns the words of an enumeration of traffic.
func words[T interface {
	~uint8
	String() string
}](n T) (all []string) {
	for v := range n {
		all = append(all, v.String())
	}
	return all
}

func completeWords(c *cobra.Command, flag string, words []string) {
	err := c.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp))
	if err != nil {
		panic(err) // the flag is registered by the caller
	}
}

func (f eventsFlags) filter() (api.EventFilter, error) {
	var out api.EventFilter
	for _, word := range f.reasons {
		r, ok := traffic.ParseReason(word)
		if !ok {
			return out, usagef("--reason %q: the reasons are %s", word, strings.Join(words(traffic.NumReasons), ", "))
		}
		out.Reasons = append(out.Reasons, r)
	}
	for _, word := range f.outcomes {
		o, ok := parseOutcome(word)
		if !ok {
			return out, usagef("--outcome %q: the outcomes are %s", word, strings.Join(words(traffic.NumOutcomes), ", "))
		}
		out.Outcomes = append(out.Outcomes, o)
	}
	for _, text := range f.sources {
		p, err := api.ParsePrefix(text)
		if err != nil {
			return out, usagef("--source %v", err)
		}
		out.Sources = append(out.Sources, p)
	}
	return out, nil
}

func parseOutcome(word string) (traffic.Outcome, bool) {
	for o := range traffic.NumOutcomes {
		if o.String() == word {
			return o, true
		}
	}
	return 0, false
}

func (a *app) followEvents(ctx context.Context, f eventsFlags) error {
	filter, err := f.filter()
	if err != nil {
		return err
	}
	n := uint64(0)
	for m, err := range a.client().Events(ctx, filter) {
		if errors.Is(err, context.Canceled) {
			return nil // Ctrl-C is how this command ends
		}
		if err != nil {
			return err
		}
		if err := a.printEvent(m); err != nil {
			return err
		}
		if m.Event != nil {
			n++
		}
		if f.count > 0 && n == f.count {
			return nil
		}
	}
	return nil
}

func (a *app) printEvent(m api.EventMessage) error {
	if a.json {
		if err := json.NewEncoder(a.out).Encode(m); err != nil {
			return fmt.Errorf("write the event: %w", err)
		}
		return nil
	}
	if m.Lost > 0 {
		fmt.Fprintf(a.err, "sentinel-x: %d events lost: this command was too slow\n", m.Lost)
	}
	line := ""
	switch {
	case m.Event != nil:
		line = eventLine(m.Event)
	case m.Incident != nil:
		line = incidentLine(m.Incident)
	default:
		return nil
	}
	if _, err := fmt.Fprintln(a.out, line); err != nil {
		return fmt.Errorf("write the event: %w", err)
	}
	return nil
}

func eventLine(e *api.Event) string {
	flow := "no IP header"
	if e.Source != "" {
		flow = endpoint(e.Source, e.SourcePort) + " > " + endpoint(e.Destination, e.DestinationPort) + " " + protocol(e.Protocol)
	}
	parts := []string{
		e.Time.Local().Format("15:04:05.000"), fmt.Sprintf("%-8s %-10s %-9s", e.Interface, e.Outcome, e.Reason), flow,
	}
	if e.Protocol == 6 && e.TCPFlags != 0 {
		parts = append(parts, tcpFlags(e.TCPFlags))
	}
	parts = append(parts, fmt.Sprintf("%d B", e.Length))
	if e.Source != "" {
		parts = append(parts, fmt.Sprintf("ttl %d", e.TTL))
	}
	if e.VLANs > 0 {
		parts = append(parts, fmt.Sprintf("vlan x%d", e.VLANs))
	}
	if e.Fragment {
		parts = append(parts, "fragment")
	}
	if e.Tunnel {
		parts = append(parts, "tunnel")
	}
	return strings.Join(parts, "  ")
}

func endpoint(addr string, port uint16) string {
	if port == 0 {
		return addr
	}
	return net.JoinHostPort(addr, strconv.Itoa(int(port)))
}

func protocol(n uint8) string {
	names := map[uint8]string{1: "icmp", 4: "ipip", 6: "tcp", 17: "udp", 41: "6in4", 47: "gre", 50: "esp", 51: "ah", 58: "icmpv6", 132: "sctp"}
	if name, ok := names[n]; ok {
		return name
	}
	return fmt.Sprintf("proto %d", n)
}

// tcpFlags writes flags as tcpdump does: [S], [S.], [R].
func tcpFlags(flags uint8) string {
	text := []rune{'['}
	for i, c := range "FSRP.UEW" {
		if flags&(1<<i) != 0 {
			text = append(text, c)
		}
	}
	return string(append(text, ']'))
}
