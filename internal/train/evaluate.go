// SPDX-License-Identifier: Apache-2.0

package train

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/sentinel-x/sentinel-x/internal/detect"
	"github.com/sentinel-x/sentinel-x/internal/model"
	"github.com/sentinel-x/sentinel-x/internal/scene"
)

// EvalOptions choose what the detector is judged on.
type EvalOptions struct {
	Trees    *model.Trees // nil: those in the program
	Seeds    int          // scenes of each family and ratio; 0: 1
	Ratios   []float64    // nil: 0.5, 1, 3, 10, 30
	Families []string     // families and recordings, as they are called in the report; nil: all
	Data     string       // folder of recordings; empty: none
	First    uint64       // seed; 0: one that the trees have not seen
	// Lead is the calm before an event; 0: EvalLead.
	Lead time.Duration
	// Detectors are those of DetectorSets that are judged, side by side; nil: the first.
	Detectors []string
}

// EvalLead is the calm before an event: with it, forest and online learner may have learnt enough for a say.
const EvalLead = 6 * time.Minute

// eventHold is how long attacks last that are judged, and calmHold events that are none.
const (
	eventHold = 8 * time.Second
	calmHold  = time.Minute
)

// evalSeed is far from those of Default.
const evalSeed = 7_000_000

// Cell is how the detector did on the scenes of one family and ratio. Of benign families, Detected counts
// scenes with an alarm, all of them false.
type Cell struct {
	Family   string  `json:"family"`
	Attack   bool    `json:"attack"`
	Ratio    float64 `json:"ratio"`
	Scenes   int     `json:"scenes"`
	Detected int     `json:"detected"`
	Kind     int     `json:"kind_right"`
	False    int     `json:"false_alarms"` // scenes with an alarm that nothing caused
	Grey     int     `json:"grey"`         // scenes that were reported as grey, and nothing else
	P50      float64 `json:"delay_p50_s"`  // of those detected, but for attacks in the incident of a false alarm; 0: none was
	P95      float64 `json:"delay_p95_s"`

	delays []float64
}

// EvalReport is the outcome of an evaluation for one set of detectors.
type EvalReport struct {
	Detectors string   `json:"detectors"`
	Cells     []Cell   `json:"cells"`
	Totals    []Cell   `json:"totals"`  // attacks by ratio, then all that is benign
	Summary   []Cell   `json:"summary"` // attacks at 1× to 3×, at 3× and more, at 1× and more; their ratio is the lowest
	Hours     float64  `json:"hours"`   // of composed traffic, events included
	Armed     float64  `json:"armed"`   // share of the calm beginnings after which the learners of a host have a say
	Missed    []string `json:"missed"`  // attacks at 1× and more without an alarm
	Wrong     []string `json:"wrong"`   // false alarms: the scene and what was said
	Notes     []string `json:"notes,omitempty"`
}

// Evaluate plays scenes that the trees were not made from to the whole detector, or to parts of it: one report
// for each set of detectors, all of the same scenes. Scenes that share their normal traffic are composed together.
func Evaluate(ctx context.Context, o EvalOptions) ([]EvalReport, error) {
	trees, err := treesOr(o.Trees)
	if err != nil {
		return nil, err
	}
	list, notes, err := o.scenes()
	if err != nil {
		return nil, err
	}
	sets := o.Detectors
	if len(sets) == 0 {
		sets = DetectorSets()[:1]
	}
	stages := stagesOf(list, cmp.Or(o.Lead, EvalLead))
	errs := make([]error, len(stages))
	inParallel(ctx, len(stages), func(i int) { errs[i] = stages[i].run(trees, sets) })
	if err := cmp.Or(append(errs, ctx.Err())...); err != nil {
		return nil, fmt.Errorf("evaluate detection: %w", err)
	}
	var reports []EvalReport
	for i, set := range sets {
		r := EvalReport{Detectors: set, Notes: notes, Missed: []string{}, Wrong: []string{}}
		r.fill(stages, i)
		reports = append(reports, r)
	}
	return reports, nil
}

func treesOr(trees *model.Trees) (*model.Trees, error) {
	if trees != nil {
		return trees, nil
	}
	return detect.DefaultTrees()
}

// scenes lists attacks, and what is none and lasts longer.
func (o *EvalOptions) scenes() ([]scene.Scenario, []string, error) {
	c := scene.CatalogueOptions{
		Seed: cmp.Or(o.First, evalSeed), Draws: max(1, o.Seeds), Ratios: o.Ratios, Shared: true,
		Lead: cmp.Or(o.Lead, EvalLead), Tail: 2 * time.Second, Low: 300, High: 1500,
	}
	attacks, controls, notes := o.recordings()
	var list []scene.Scenario
	for _, calm := range []bool{false, true} {
		c.Hold, c.Recordings, c.Families = eventHold, attacks, []string{}
		if calm {
			c.Hold, c.Recordings = calmHold, controls
		}
		for _, name := range scene.Families() {
			if isCalm(name) == calm && o.wants(name) {
				c.Families = append(c.Families, name)
			}
		}
		some, err := scene.Catalogue(c)
		if err != nil {
			return nil, nil, fmt.Errorf("list scenes: %w", err)
		}
		list = append(list, some...)
	}
	if len(list) == 0 {
		return nil, nil, fmt.Errorf("evaluate detection: no family or recording is one of %v", o.Families)
	}
	return list, notes, nil
}

func (o *EvalOptions) wants(name string) bool {
	return o.Families == nil || slices.Contains(o.Families, name)
}

// recordings reads those that are there and wanted.
func (o *EvalOptions) recordings() (attacks, controls []*scene.Recording, notes []string) {
	if o.Data == "" {
		return nil, nil, nil
	}
	attacks, err := scene.Recordings(o.Data)
	if err == nil {
		controls, err = scene.Controls(o.Data)
	}
	if err != nil {
		return nil, nil, []string{fmt.Sprintf("no recordings: %v", err)}
	}
	unwanted := func(r *scene.Recording) bool { return !o.wants(r.File) }
	return slices.DeleteFunc(attacks, unwanted), slices.DeleteFunc(controls, unwanted), nil
}

// fill sums up what one set of detectors made of the stages.
func (r *EvalReport) fill(stages []*stage, set int) {
	byCell, byRatio, summary := map[string]*Cell{}, map[string]*Cell{}, map[string]*Cell{}
	for _, st := range stages {
		calm := &st.lead[set]
		r.Hours += st.calm.Length.Hours()
		cellOf(byCell, "calm before events", false, 0).add(calm)
		cellOf(byRatio, "all benign", false, 0).add(calm)
		r.complain(calm)
		if st.armed[set] {
			r.Armed += 1 / float64(len(stages))
		}
		for i := range st.outcomes {
			out := &st.outcomes[i][set]
			s := out.s
			cellOf(byCell, s.Family, s.Attack(), s.Ratio).add(out)
			r.Hours += (s.Length - st.calm.Length).Hours()
			r.complain(out)
			if !s.Attack() {
				cellOf(byRatio, "all benign", false, 0).add(out)
				continue
			}
			cellOf(byRatio, "all attacks", true, s.Ratio).add(out)
			for _, group := range summaries {
				if s.Ratio >= group.from && s.Ratio < group.below {
					cellOf(summary, group.name, true, group.from).add(out)
				}
			}
		}
	}
	r.Cells, r.Totals, r.Summary = sorted(byCell), sorted(byRatio), sorted(summary)
}

// summaries are the groups of attacks that something is asked for.
var summaries = []struct {
	name        string
	from, below float64
}{{"attacks, 1× to 3×", 1, 3}, {"attacks, 3× and more", 3, math.Inf(1)}, {"attacks, 1× and more", 1, math.Inf(1)}}

// complain writes down what went wrong in a scene.
func (r *EvalReport) complain(out *outcome) {
	s := out.s
	if s.Attack() && s.Ratio >= 1 && !out.detected() {
		r.Missed = append(r.Missed, s.Name)
	}
	if out.falseAlarm() {
		r.Wrong = append(r.Wrong, fmt.Sprintf("%s: %s", s.Name, out.falsehood()))
	}
}

func cellOf(cells map[string]*Cell, family string, attack bool, ratio float64) *Cell {
	key := fmt.Sprint(family, " ", ratio)
	c := cells[key]
	if c == nil {
		c = &Cell{Family: family, Attack: attack, Ratio: ratio}
		cells[key] = c
	}
	return c
}

func (c *Cell) add(out *outcome) {
	c.Scenes++
	if out.falseAlarm() {
		c.False++
	}
	if out.detected() {
		c.Detected++
		if !math.IsNaN(out.delay) {
			c.delays = append(c.delays, out.delay)
		}
		if out.kindRight() {
			c.Kind++
		}
	} else if out.grey > 0 {
		c.Grey++
	}
}

// sorted returns the cells with their delays: attacks first, then by family and ratio.
func sorted(cells map[string]*Cell) []Cell {
	var list []Cell
	for _, c := range cells {
		slices.Sort(c.delays)
		c.P50, c.P95 = quantile(c.delays, 0.5), quantile(c.delays, 0.95)
		list = append(list, *c)
	}
	slices.SortFunc(list, func(a, b Cell) int {
		if a.Attack != b.Attack {
			if a.Attack {
				return -1
			}
			return 1
		}
		return cmp.Or(cmp.Compare(a.Family, b.Family), cmp.Compare(a.Ratio, b.Ratio))
	})
	return list
}

// quantile of sorted values: the least that so great a share is not above. 0 of none.
func quantile(list []float64, q float64) float64 {
	if len(list) == 0 {
		return 0
	}
	return list[max(0, int(math.Ceil(q*float64(len(list))))-1)]
}
