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
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/sentinel-x/sentinel-x/internal/engine"
	"github.com/sentinel-x/sentinel-x/internal/train"
)

// The parts of bench detection.
const (
	partScenes   = "scenes"
	partDay      = "day"
	partLeaveOut = "leave-one-out"
	partPoison   = "poison"
)

var detectionParts = []string{partScenes, partDay, partLeaveOut, partPoison}

// detectionReport is what bench detection prints: what was asked for.
type detectionReport struct {
	engine.BenchHost
	Seeds   int                `json:"seeds"`
	Scenes  []train.EvalReport `json:"scenes,omitempty"` // one for each set of detectors
	Days    []train.DayReport  `json:"days,omitempty"`
	LeftOut []train.LeftOut    `json:"left_out,omitempty"`
	Poison  []train.Poisoned   `json:"poison,omitempty"`
	Seconds map[string]float64 `json:"seconds"` // that each part took
}

// detectionOptions are the flags.
type detectionOptions struct {
	eval  train.EvalOptions
	days  train.DayOptions
	parts []string
	leave []string
	docs  string
}

func (a *app) benchDetectionCommand() *cobra.Command {
	o := detectionOptions{
		eval: train.EvalOptions{Seeds: 1, Data: "../shared/data", Lead: train.EvalLead, Detectors: train.DetectorSets()[:1]},
		days: train.DayOptions{Hours: 24, Rate: 300}, parts: detectionParts[:1],
	}
	c := a.jsonFlag(&cobra.Command{
		Use:   "detection",
		Short: "Measure which attacks the detector finds, how soon, and what it takes for one",
		Long: `Play composed traffic that the model in the program has not seen to the whole detector.
Nothing is sent anywhere; docs/detection.md explains the figures. --parts chooses among:

scenes         every family of attacks, and everything at which nothing may happen;
               recordings too where they are; half a minute of one core a seed
day            hours of normal traffic of each profile, with crowds, backups and scans:
               a minute of one core a day
leave-one-out  trees trained without each family, and each kind, of attacks, judged on it;
               --leave names some; minutes
poison         an hour of fragments of attacks, too weak to be one: what it does to the
               thresholds of the learners and to what is held for normal

--detectors judges less than everything: tiered and and are the rules with all models;
trees, learners, deterministic; and rate, a plain threshold of three times the normal
rate. With several, or all, a table compares them on the same scenes.`,
		Example: `  sentinel-x bench detection
  sentinel-x bench detection --families flash_crowd,syn_spoofed --detectors rate
  sentinel-x bench detection --parts day --profiles web,game
  sentinel-x bench detection --parts scenes,day,leave-one-out,poison --seeds 20 --detectors all --docs docs`,
		Args: args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.check(); err != nil {
				return err
			}
			r, err := o.run(cmd.Context(), cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			if o.docs != "" {
				if err := writeDetectionDocs(o.docs, r); err != nil {
					return err
				}
			}
			return a.print(r, func(w io.Writer) { writeDetection(w, r) })
		},
	})
	o.flags(c.Flags())
	return c
}

func (o *detectionOptions) flags(f *pflag.FlagSet) {
	f.StringSliceVar(&o.parts, "parts", o.parts, "what is measured: "+strings.Join(detectionParts, ", "))
	f.IntVar(&o.eval.Seeds, "seeds", o.eval.Seeds, "scenes of each family and ratio")
	f.Float64SliceVar(&o.eval.Ratios, "ratios", nil, "rates of attacks, over the normal rate (default 0.5,1,3,10,30)")
	f.StringSliceVar(&o.eval.Families, "families", nil, "families of scenes and recordings (default all)")
	f.StringVar(&o.eval.Data, "data", o.eval.Data, "directory with recordings; empty: none")
	f.DurationVar(&o.eval.Lead, "lead", o.eval.Lead, "calm before an event")
	f.StringSliceVar(&o.eval.Detectors, "detectors", o.eval.Detectors, "what is judged: "+strings.Join(train.DetectorSets(), ", ")+", or all; of day the first")
	f.IntVar(&o.days.Hours, "hours", o.days.Hours, "of day, hours of normal traffic of each profile")
	f.StringSliceVar(&o.days.Profiles, "profiles", nil, "of day, profiles of normal traffic (default all)")
	f.Float64Var(&o.days.Rate, "rate", o.days.Rate, "of day, packets a second on average over the week")
	f.StringSliceVar(&o.leave, "leave", nil, `of leave-one-out, families, or kinds as "kind syn_flood" (default all of both)`)
	f.StringVar(&o.docs, "docs", "", "directory with detection.md, to write the tables into")
}

// check completes the options.
func (o *detectionOptions) check() error {
	if slices.Equal(o.eval.Detectors, []string{"all"}) {
		o.eval.Detectors = train.DetectorSets()
	}
	switch {
	case o.eval.Seeds < 1 || o.days.Hours < 1 || !(o.days.Rate > 0) || o.eval.Lead < time.Second:
		return usagef("--seeds and --hours are at least 1, --lead 1s, and --rate is above 0")
	case !among(o.eval.Detectors, train.DetectorSets()):
		return usagef("--detectors are some of %s, or all", strings.Join(train.DetectorSets(), ", "))
	case !among(o.parts, detectionParts):
		return usagef("--parts are some of %s", strings.Join(detectionParts, ", "))
	}
	return nil
}

// among reports whether there are words, all of them known.
func among(words, known []string) bool {
	return len(words) > 0 && !slices.ContainsFunc(words, func(word string) bool { return !slices.Contains(known, word) })
}

// run measures the parts, and tells of what takes long as it gets through.
func (o *detectionOptions) run(ctx context.Context, log io.Writer) (detectionReport, error) {
	r := detectionReport{BenchHost: engine.NewBenchHost(), Seeds: o.eval.Seeds, Seconds: map[string]float64{}}
	measure := map[string]func() error{
		partScenes: func() (err error) {
			r.Scenes, err = train.Evaluate(ctx, o.eval)
			return err
		},
		partDay: func() (err error) {
			o.days.Detector = o.eval.Detectors[0]
			o.days.Done = func(d train.DayReport) {
				fmt.Fprintf(log, "%s: %s\n", d.Profile, plural(len(d.Alarms), "alarm", "alarms"))
			}
			r.Days, err = train.Days(ctx, o.days)
			return err
		},
		partLeaveOut: func() (err error) {
			r.LeftOut, err = train.LeaveOneOut(ctx, train.LeaveOutRecipe(), o.eval, o.leave, func(l train.LeftOut) {
				fmt.Fprintf(log, "without %s: %s\n", l.Name, leftOutLine(l))
			})
			return err
		},
		partPoison: func() (err error) {
			r.Poison, err = train.Poison(ctx, train.PoisonOptions{})
			return err
		},
	}
	for _, part := range detectionParts {
		if !slices.Contains(o.parts, part) {
			continue
		}
		begin := time.Now()
		if err := measure[part](); err != nil {
			return r, err
		}
		r.Seconds[part] = time.Since(begin).Round(100 * time.Millisecond).Seconds()
	}
	return r, nil
}

// detectionSection is what is said of one part.
type detectionSection struct {
	mark   string // in detection.md
	line   string
	tables []*table
	notes  []string
}

func (r *detectionReport) sections() (list []detectionSection) {
	if len(r.Scenes) > 0 {
		first := r.Scenes[0]
		list = append(list, detectionSection{
			"detection", detectionLine(r, first), []*table{totalsTable(first), attacksTable(first), benignTable(first)}, detectionNotes(first),
		})
	}
	if len(r.Scenes) > 1 {
		list = append(list, detectionSection{
			"detection-parts", fmt.Sprintf("The same scenes, by parts of the detector (%s).", took(r, partScenes)), []*table{partsTable(r.Scenes)}, nil,
		})
	}
	if len(r.Days) > 0 {
		list = append(list, daySection(r))
	}
	if len(r.LeftOut) > 0 {
		list = append(list, leftOutSection(r))
	}
	if len(r.Poison) > 0 {
		list = append(list, poisonSection(r))
	}
	return list
}

func took(r *detectionReport, part string) string {
	return fmt.Sprintf("%.0f s on %s", r.Seconds[part], plural(r.CPUs, "CPU", "CPUs"))
}

func writeDetectionDocs(dir string, r detectionReport) error {
	page := filepath.Join(dir, "detection.md")
	text, err := os.ReadFile(page)
	if err != nil {
		return fmt.Errorf("read the page for the figures: %w", err)
	}
	for _, s := range r.sections() {
		var b bytes.Buffer
		fmt.Fprintf(&b, "%s\n\n", s.line)
		for _, t := range s.tables {
			t.markdown(&b)
			fmt.Fprintln(&b)
		}
		for _, line := range s.notes {
			fmt.Fprintf(&b, "- %s\n", line)
		}
		if text, err = fillMark(text, s.mark, append(bytes.TrimRight(b.Bytes(), "\n"), '\n')); err != nil {
			return fmt.Errorf("write %s: %w", page, err)
		}
	}
	if err := os.WriteFile(page, text, 0o644); err != nil {
		return fmt.Errorf("write the page with the figures: %w", err)
	}
	return nil
}

func writeDetection(w io.Writer, r detectionReport) {
	for i, s := range r.sections() {
		if i > 0 {
			fmt.Fprintln(w)
		}
		fmt.Fprintf(w, "%s\n\n", s.line)
		for _, t := range s.tables {
			t.write(w)
			fmt.Fprintln(w)
		}
		for _, line := range s.notes {
			fmt.Fprintln(w, line)
		}
	}
}
