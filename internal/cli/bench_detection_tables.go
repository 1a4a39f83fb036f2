// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sentinel-x/sentinel-x/internal/train"
)

func detectionLine(r *detectionReport, e train.EvalReport) string {
	return fmt.Sprintf("%s. %s a family and ratio, %.1f h of traffic, %s; detectors: %s. In %.0f %% of the scenes the learners had a say.",
		hostLine(r.BenchHost), plural(r.Seeds, "scene", "scenes"), e.Hours, took(r, partScenes), e.Detectors, 100*e.Armed)
}

// detectionNotes say what went wrong, and what is missing.
func detectionNotes(r train.EvalReport) (list []string) {
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

func totalsTable(r train.EvalReport) *table {
	t := newTable("ATTACKS", ">SCENES", ">FOUND", ">KIND RIGHT", ">P50 S", ">P95 S")
	for _, c := range append(slices.Clone(r.Totals), r.Summary...) {
		name := c.Family
		if c.Family == "all attacks" {
			name = fmt.Sprintf("%g×", c.Ratio)
		}
		if c.Attack {
			t.row(name, fmt.Sprint(c.Scenes), share(c.Detected, c.Scenes), share(c.Kind, c.Detected),
				fmt.Sprintf("%.2f", c.P50), fmt.Sprintf("%.2f", c.P95))
		}
	}
	return t
}

// partsTable compares sets of detectors on the same scenes.
func partsTable(reports []train.EvalReport) *table {
	t := newTable("DETECTORS")
	for _, c := range append(slices.Clone(reports[0].Totals), reports[0].Summary...) {
		switch {
		case c.Family == "all attacks":
			t.head = append(t.head, fmt.Sprintf(">%g×", c.Ratio))
		case c.Attack:
			t.head = append(t.head, ">"+c.Family)
		}
	}
	t.head = append(t.head, ">P50 S, 3× AND MORE", ">P95 S", ">FALSE ALARMS", ">GREY")
	for _, r := range reports {
		row := []string{r.Detectors}
		var fast, benign train.Cell
		for _, c := range append(slices.Clone(r.Totals), r.Summary...) {
			if c.Attack {
				row = append(row, share(c.Detected, c.Scenes))
			} else {
				benign = c
			}
			if c.Attack && c.Ratio == 3 && c.Family != "all attacks" {
				fast = c
			}
		}
		t.row(append(row, fmt.Sprintf("%.2f", fast.P50), fmt.Sprintf("%.2f", fast.P95),
			fmt.Sprintf("%d of %d", benign.False, benign.Scenes), fmt.Sprint(benign.Grey))...)
	}
	return t
}

func daySection(r *detectionReport) detectionSection {
	s := detectionSection{mark: "detection-day"}
	t := newTable("PROFILE", "ARRIVALS", ">HOURS", ">PACKETS, MILLIONS", ">EVENTS", ">ALARMS", ">GREY", ">LEARNERS HAD A SAY")
	alarms, hours := 0, 0.0
	for _, d := range r.Days {
		t.row(d.Profile, d.Arrival, fmt.Sprintf("%g", d.Hours), fmt.Sprintf("%.1f", float64(d.Packets)/1e6), fmt.Sprint(d.Events),
			fmt.Sprint(len(d.Alarms)), fmt.Sprint(d.Grey), fmt.Sprintf("%.0f %%", 100*d.ArmedShare))
		alarms += len(d.Alarms)
		hours += d.Hours
		for _, line := range d.Alarms {
			s.notes = append(s.notes, "false alarm: "+line)
		}
	}
	s.line = fmt.Sprintf("%s in %.0f h of normal traffic (%s).", plural(alarms, "alarm", "alarms"), hours, took(r, partDay))
	s.tables = []*table{t}
	return s
}

func leftOutLine(l train.LeftOut) string {
	var parts []string
	for _, c := range l.Cells {
		parts = append(parts, fmt.Sprintf("%g×: %d/%d", c.Ratio, c.Detected, c.Scenes))
	}
	return strings.Join(parts, ", ")
}

func leftOutSection(r *detectionReport) detectionSection {
	recipe := train.LeaveOutRecipe()
	s := detectionSection{
		mark: "detection-leave-one-out",
		line: fmt.Sprintf("Found of attacks that the trees never saw; %s a family and ratio; trees of %d draws and at most %d rounds (%s).",
			plural(r.Seeds, "scene", "scenes"), recipe.Draws, recipe.Rounds, took(r, partLeaveOut)),
	}
	t := newTable("LEFT OUT")
	for _, c := range r.LeftOut[0].Cells {
		t.head = append(t.head, fmt.Sprintf(">%g×", c.Ratio))
	}
	t.head = append(t.head, ">P95 S, 3× AND MORE")
	for _, l := range r.LeftOut {
		row := []string{l.Name}
		slowest := 0.0
		for _, c := range l.Cells {
			row = append(row, fmt.Sprintf("%d/%d", c.Detected, c.Scenes))
			if c.Ratio >= 3 {
				slowest = max(slowest, c.P95)
			}
		}
		t.row(append(row, fmt.Sprintf("%.1f", slowest))...)
	}
	s.tables = []*table{t}
	return s
}

func poisonSection(r *detectionReport) detectionSection {
	s := detectionSection{
		mark: "detection-poison",
		line: fmt.Sprintf("An hour with fragments of an attack at 0.05 times the normal rate, 5 of 15 s, and the same hour without (%s).", took(r, partPoison)),
	}
	t := newTable("FRAGMENTS OF", ">ALARMS", ">FOREST'S THRESHOLD", ">WITHOUT", ">ONLINE'S", ">WITHOUT", ">NORMAL, PACKETS/S", ">WITHOUT", ">ATTACK AT 3× FOUND, S", ">WITHOUT")
	rise := func(c train.Change) string {
		if c.Before <= 0 || c.After <= 0 {
			return "no say"
		}
		return fmt.Sprintf("%+.1f %%", 100*c.Rise())
	}
	found := func(delay float64) string {
		if delay < 0 {
			return "no"
		}
		return fmt.Sprintf("%.1f", delay)
	}
	for _, p := range r.Poison {
		t.row(p.Family, fmt.Sprint(p.Alarms), rise(p.Forest), rise(p.ForestClean), rise(p.Online), rise(p.OnlineClean),
			fmt.Sprintf("%.0f", p.Normal), fmt.Sprintf("%.0f", p.NormalClean), found(p.Delay), found(p.DelayClean))
	}
	s.tables = []*table{t}
	return s
}

// share of a whole in percent, and nothing of nothing.
func share(part, all int) string {
	if all == 0 {
		return "–"
	}
	return fmt.Sprintf("%.1f %%", 100*float64(part)/float64(all))
}

// attacksTable has a line a family and a column a ratio: found of scenes, and the slowest of 95 %.
func attacksTable(r train.EvalReport) *table {
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
func benignTable(r train.EvalReport) *table {
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
