// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sentinel-x/sentinel-x/internal/engine"
	"github.com/sentinel-x/sentinel-x/internal/train"
)

// detectionReport is what bench detection prints.
type detectionReport struct {
	engine.BenchHost
	Seeds     int    `json:"seeds"`
	Detectors string `json:"detectors"`
	Without   string `json:"without,omitempty"` // family that the trees did not learn
	train.EvalReport
}

func (a *app) benchDetectionCommand() *cobra.Command {
	o := train.EvalOptions{Seeds: 1, Data: "../shared/data", Detectors: train.DetectorSets()[0]}
	var without, docs string
	c := a.jsonFlag(&cobra.Command{
		Use:   "detection",
		Short: "Measure which attacks the detector finds, how soon, and what it takes for one",
		Long: `Compose scenes of every family of attacks and of everything at which nothing may
happen, from seeds that the model in the program has not seen, and play them to the
whole detector. Recordings are played too where they are. One seed takes about two
minutes; docs/detection.md explains the figures. Nothing is sent anywhere.

--detectors judges less than everything: tiered and and are the rules with all models
(the learners are armed with --lead 280s only), trees, learners, deterministic, and
rate, a plain threshold of three times the normal rate. --without trains trees that
never saw a family, and judges them on it.`,
		Example: "  sentinel-x bench detection\n  sentinel-x bench detection --families flash_crowd,syn_spoofed --detectors rate",
		Args:    args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.Seeds < 1 || !slices.Contains(train.DetectorSets(), o.Detectors) {
				return usagef("--seeds is at least 1, --detectors one of %s", strings.Join(train.DetectorSets(), ", "))
			}
			r := detectionReport{BenchHost: engine.NewBenchHost(), Seeds: o.Seeds, Detectors: o.Detectors, Without: without}
			if err := evaluate(cmd.Context(), &r, o); err != nil {
				return err
			}
			if docs != "" {
				if err := writeDetectionDocs(docs, r); err != nil {
					return err
				}
			}
			return a.print(r, func(w io.Writer) { writeDetection(w, r) })
		},
	})
	c.Flags().IntVar(&o.Seeds, "seeds", o.Seeds, "scenes of each family and ratio")
	c.Flags().Float64SliceVar(&o.Ratios, "ratios", nil, "rates of attacks, over the normal rate (default 0.5,1,3,10,30)")
	c.Flags().StringSliceVar(&o.Families, "families", nil, "families of scenes (default all)")
	c.Flags().StringVar(&o.Data, "data", o.Data, "directory with recordings; empty: none")
	c.Flags().DurationVar(&o.Lead, "lead", 0, "calm before an event (default 80s)")
	c.Flags().StringVar(&o.Detectors, "detectors", o.Detectors, "what is judged: "+strings.Join(train.DetectorSets(), ", "))
	c.Flags().StringVar(&without, "without", "", "family that trees are trained without, to be judged on it (minutes)")
	c.Flags().StringVar(&docs, "docs", "", "directory with detection.md, to write the table into")
	return c
}

// evaluate runs it, after training where a family is left out.
func evaluate(ctx context.Context, r *detectionReport, o train.EvalOptions) (err error) {
	if r.Without != "" {
		recipe := train.Default()
		recipe.Without = []string{r.Without}
		o.Families, o.Data = recipe.Without, ""
		if o.Trees, err = recipe.Train(ctx); err != nil {
			return err
		}
	}
	r.EvalReport, err = train.Evaluate(ctx, o)
	return err
}

func writeDetectionDocs(dir string, r detectionReport) error {
	page := filepath.Join(dir, "detection.md")
	text, err := os.ReadFile(page)
	if err != nil {
		return fmt.Errorf("read the page for the figures: %w", err)
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s\n\n", detectionLine(r))
	for _, t := range []*table{totalsTable(r), attacksTable(r), benignTable(r)} {
		t.markdown(&b)
		fmt.Fprintln(&b)
	}
	for _, line := range detectionNotes(r) {
		fmt.Fprintf(&b, "- %s\n", line)
	}
	if text, err = fillMark(text, "detection", b.Bytes()); err != nil {
		return fmt.Errorf("write %s: %w", page, err)
	}
	if err := os.WriteFile(page, text, 0o644); err != nil {
		return fmt.Errorf("write the page with the figures: %w", err)
	}
	return nil
}

func writeDetection(w io.Writer, r detectionReport) {
	fmt.Fprintf(w, "%s\n\n", detectionLine(r))
	for _, t := range []*table{totalsTable(r), attacksTable(r), benignTable(r)} {
		t.write(w)
		fmt.Fprintln(w)
	}
	for _, line := range detectionNotes(r) {
		fmt.Fprintln(w, line)
	}
}

func detectionLine(r detectionReport) string {
	line := fmt.Sprintf("%s. %s a family and ratio, %.1f h of traffic; detectors: %s.",
		hostLine(r.BenchHost), plural(r.Seeds, "scene", "scenes"), r.Hours, r.Detectors)
	if r.Without != "" {
		line += " The trees never saw " + r.Without + "."
	}
	return line
}

// detectionNotes say what went wrong, and what is missing.
func detectionNotes(r detectionReport) (list []string) {
	for _, part := range []struct {
		what  string
		lines []string
	}{{"missed", r.Missed}, {"false alarm", r.Wrong}, {"note", r.Notes}} {
		for _, line := range part.lines {
			list = append(list, part.what+": "+line)
		}
	}
	return list
}

func totalsTable(r detectionReport) *table {
	t := newTable("ATTACKS", ">RATIO", ">SCENES", ">FOUND", ">KIND RIGHT", ">P50 S", ">P95 S")
	for _, c := range r.Totals {
		if c.Attack {
			t.row(c.Family, fmt.Sprintf("%g×", c.Ratio), fmt.Sprint(c.Scenes), share(c.Detected, c.Scenes), share(c.Kind, c.Detected),
				fmt.Sprintf("%.1f", c.P50), fmt.Sprintf("%.1f", c.P95))
		}
	}
	return t
}

// share of a whole in percent, and nothing of nothing.
func share(part, all int) string {
	if all == 0 {
		return "–"
	}
	return fmt.Sprintf("%.1f %%", 100*float64(part)/float64(all))
}

// attacksTable has a line a family and a column a ratio: found of scenes, and the slowest of 95 %.
func attacksTable(r detectionReport) *table {
	var ratios []float64
	for _, c := range r.Cells {
		if c.Attack && !slices.Contains(ratios, c.Ratio) {
			ratios = append(ratios, c.Ratio)
		}
	}
	slices.Sort(ratios)
	head := []string{"FOUND, P95 S"}
	for _, ratio := range ratios {
		head = append(head, fmt.Sprintf(">%g×", ratio))
	}
	t := newTable(head...)
	var row []string
	for _, c := range r.Cells {
		if !c.Attack {
			continue
		}
		if row == nil || row[0] != c.Family {
			row = slices.Repeat([]string{"–"}, len(head))
			row[0] = c.Family
			t.row(row...)
		}
		cell := fmt.Sprintf("%d/%d", c.Detected, c.Scenes)
		if c.Detected > 0 {
			cell += fmt.Sprintf(", %.1f", c.P95)
		}
		t.rows[len(t.rows)-1][1+slices.Index(ratios, c.Ratio)] = cell
	}
	return t
}

// benignTable has a line a family at which nothing may happen, of all its ratios.
func benignTable(r detectionReport) *table {
	t := newTable("NO ATTACK", ">SCENES", ">FALSE ALARMS", ">GREY")
	var family string
	var scenes, wrong, grey int
	flush := func() {
		if family != "" {
			t.row(family, fmt.Sprint(scenes), fmt.Sprint(wrong), fmt.Sprint(grey))
		}
		scenes, wrong, grey = 0, 0, 0
	}
	for _, c := range append(slices.Clone(r.Cells), r.Totals...) {
		if c.Attack {
			continue
		}
		if c.Family != family {
			flush()
			family = c.Family
		}
		scenes, wrong, grey = scenes+c.Scenes, wrong+c.False, grey+c.Grey
	}
	flush()
	return t
}
