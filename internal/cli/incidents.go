// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sentinel-x/sentinel-x/internal/api"
)

// recentIncidents is how many are listed without --all.
const recentIncidents = 20

func (a *app) incidentsCommand() *cobra.Command {
	var open, all bool
	c := a.jsonFlag(&cobra.Command{
		Use:   "incidents",
		Short: "List the attacks that were found",
		Long: `List the attacks that were found, the newest first: the last 20, or with --all every
one that is kept, that is those that go on and the last 1000 that ended.
docs/detection.md says how attacks are found, and what the kinds are.`,
		Example: "  sentinel-x incidents --open\n  sentinel-x incidents --all --json | jq -r '.[] | [.id, .target, .kind] | @tsv'",
		Args:    args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			f := api.IncidentFilter{Open: open, Limit: recentIncidents}
			if all {
				f.Limit = 0
			}
			list, err := a.client().Incidents(cmd.Context(), f)
			if err != nil {
				return err
			}
			return a.print(list, func(w io.Writer) { writeIncidents(w, list) })
		},
	})
	c.Flags().BoolVar(&open, "open", false, "only those that go on")
	c.Flags().BoolVar(&all, "all", false, "every incident that is kept")
	c.AddCommand(a.incidentShowCommand(), a.incidentLabelCommand())
	return c
}

func (a *app) incidentShowCommand() *cobra.Command {
	return a.jsonFlag(&cobra.Command{
		Use:   "show ID",
		Short: "Show why an incident is one",
		Long: `Show an incident with what each detector said when it was found: its opinion, its score
against the threshold, and the five features that carried it, with the value, the
range of the target's calm times, and the contribution (positive: towards an attack).
docs/features.md lists the features.`,
		Example:           "  sentinel-x incidents show 20300131-120000-4a1f",
		Args:              args(1, 1),
		ValidArgsFunction: a.completeIncidents,
		RunE: func(cmd *cobra.Command, args []string) error {
			i, err := a.client().Incident(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return a.print(i, func(w io.Writer) { writeIncident(w, &i) })
		},
	})
}

func (a *app) incidentLabelCommand() *cobra.Command {
	return a.jsonFlag(&cobra.Command{
		Use:     "label ID attack|benign",
		Short:   "Say what an incident was",
		Long:    "Say whether an incident was an attack or benign. The label is kept with the incident,\nand its windows go to labelled.windows of the model directory, for training.",
		Example: "  sentinel-x incidents label 20300131-120000-4a1f benign",
		Args:    args(2, 2),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 1 {
				return []string{api.LabelAttack, api.LabelBenign}, cobra.ShellCompDirectiveNoFileComp
			}
			return a.completeIncidents(cmd, args, word)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if args[1] != api.LabelAttack && args[1] != api.LabelBenign {
				return usagef("%q is neither attack nor benign", args[1])
			}
			i, err := a.client().LabelIncident(cmd.Context(), args[0], args[1])
			if err != nil {
				return err
			}
			return a.print(i, func(w io.Writer) { fmt.Fprintf(w, "incident %s is labelled %s\n", i.ID, i.Label) })
		},
	})
}

// completeIncidents offers the IDs of the newest incidents.
func (a *app) completeIncidents(cmd *cobra.Command, args []string, _ string) (ids []string, d cobra.ShellCompDirective) {
	d = cobra.ShellCompDirectiveNoFileComp
	if len(args) > 0 {
		return nil, d
	}
	list, err := a.client().Incidents(cmd.Context(), api.IncidentFilter{Limit: recentIncidents})
	if err != nil {
		return nil, d
	}
	for _, i := range list {
		ids = append(ids, i.ID+"\t"+i.Kind+" at "+i.Target)
	}
	return ids, d
}

func writeIncidents(w io.Writer, list []api.Incident) {
	if len(list) == 0 {
		fmt.Fprintln(w, "no incidents")
		return
	}
	t := newTable("ID", "TARGET", "KIND", "ONSET", ">FOUND AFTER", ">CONFIDENCE", ">PEAK/S", "STATE", "LABEL")
	for _, i := range list {
		t.row(i.ID, i.Target, kind(&i), stamp(i.Onset), foundAfter(&i), confidence(i.Confidence),
			short(i.Peak.Packets), incidentState(&i), i.Label)
	}
	t.write(w)
}

func kind(i *api.Incident) string {
	if i.Protocol == "" || i.Kind != "amplification" {
		return i.Kind
	}
	return i.Kind + " (" + i.Protocol + ")"
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05.0Z") }

func foundAfter(i *api.Incident) string {
	return strconv.FormatFloat(i.Detected.Sub(i.Onset).Seconds(), 'f', 1, 64) + " s"
}

func confidence(c float64) string { return strconv.FormatFloat(100*c, 'f', 1, 64) + " %" }

func incidentState(i *api.Incident) string {
	switch {
	case i.Ended == nil:
		return "open"
	case i.MergedInto != "":
		return "part of " + i.MergedInto
	}
	return "ended after " + age(i.Ended.Sub(i.Onset).Round(100*time.Millisecond))
}

// incidentLine is an incident among events.
func incidentLine(i *api.Incident) string {
	return fmt.Sprintf("%s  incident %s  %s at %s, %s packets/s, confidence %s, %s",
		i.Detected.Local().Format("15:04:05.000"), i.ID, kind(i), i.Target, short(i.Peak.Packets), confidence(i.Confidence), incidentState(i))
}

func writeIncident(w io.Writer, i *api.Incident) {
	field := func(name, value string) {
		if value != "" {
			fmt.Fprintf(w, "%-10s %s\n", name, value)
		}
	}
	fmt.Fprintf(w, "%s at %s\n\n", kind(i), i.Target)
	field("id", i.ID)
	field("state", incidentState(i))
	field("onset", stamp(i.Onset))
	field("found", fmt.Sprintf("%s, after %s", stamp(i.Detected), foundAfter(i)))
	field("confidence", confidence(i.Confidence))
	field("peak", load(i.Peak))
	if i.NoBaseline {
		field("normal", "not known")
	} else {
		field("normal", load(i.Normal))
	}
	if i.Hosts > 0 {
		field("hosts", grouped(uint64(i.Hosts)))
	}
	field("label", i.Label)
	for _, note := range i.Notes {
		field("note", note)
	}
	for _, v := range i.Votes {
		fmt.Fprintf(w, "\n%s: %s\n", v.Detector, voteText(&v))
		t := newTable("  FEATURE", ">VALUE", ">NORMAL", ">CONTRIBUTION")
		for _, e := range v.Features {
			t.row("  "+e.Name, number(e.Value), normalRange(&e), signed(e.Contribution))
		}
		t.write(w)
	}
}

func load(r api.Rate) string { return short(r.Packets) + " packets/s, " + bits(r.Bytes) }

func voteText(v *api.Vote) string {
	parts := []string{v.Opinion}
	if v.Class != "" && v.Opinion != "absent" {
		parts[0] += " (" + v.Class + ")"
	}
	if v.Score != nil && v.Opinion != "absent" {
		text := "score " + number(v.Score)
		if v.Threshold != nil {
			text += " against " + number(v.Threshold)
		}
		parts = append(parts, text)
	}
	return strings.Join(append(parts, v.Reasons...), ", ")
}

func number(x *float64) string {
	if x == nil {
		return "–"
	}
	return strconv.FormatFloat(*x, 'g', 4, 64)
}

func signed(x *float64) string {
	if x != nil && *x > 0 {
		return "+" + number(x)
	}
	return number(x)
}

func normalRange(e *api.Evidence) string {
	if e.Low == nil || e.High == nil {
		return "not known"
	}
	return number(e.Low) + " … " + number(e.High)
}
