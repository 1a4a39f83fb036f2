// SPDX-License-Identifier: Apache-2.0

package train

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/sentinel-x/sentinel-x/internal/config"
	"github.com/sentinel-x/sentinel-x/internal/detect"
	"github.com/sentinel-x/sentinel-x/internal/model"
	"github.com/sentinel-x/sentinel-x/internal/scene"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// EvalOptions choose what the detector is judged on.
type EvalOptions struct {
	Trees    *model.Trees // nil: those in the program
	Seeds    int          // scenes of each family and ratio; 0: 1
	Ratios   []float64    // nil: 0.5, 1, 3, 10, 30
	Families []string     // nil: all
	Data     string       // folder of recordings; empty: none
	First    uint64       // seed; 0: one that the trees have not seen
	// Lead is the calm before an event; 0: 80 s, which makes a baseline. A forest and an online learner are armed after 280 s.
	Lead time.Duration
	// Detectors is one of DetectorSets; empty: the first.
	Detectors string
}

// DetectorSets are the combinations that can be judged: everything, by the rules tiered and and; less; or a plain
// threshold of three times what is normal, on any rate. The deterministic layer always has its say.
func DetectorSets() []string {
	return []string{"tiered", "and", "trees", "learners", "deterministic", "rate"}
}

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
	P50      float64 `json:"delay_p50_s"`  // of those detected; 0: none was
	P95      float64 `json:"delay_p95_s"`

	delays []float64
}

// EvalReport is the outcome of an evaluation.
type EvalReport struct {
	Cells  []Cell   `json:"cells"`
	Totals []Cell   `json:"totals"` // attacks by ratio, then all that is benign
	Hours  float64  `json:"hours"`  // of composed traffic, events included
	Missed []string `json:"missed"` // attacks at 1× and more without an alarm
	Wrong  []string `json:"wrong"`  // false alarms: the scene and what was said
	Notes  []string `json:"notes,omitempty"`
}

// Evaluate plays scenes that the trees were not made from to the whole detector.
func Evaluate(ctx context.Context, o EvalOptions) (EvalReport, error) {
	var report EvalReport
	trees := o.Trees
	if trees == nil {
		var err error
		if trees, err = detect.DefaultTrees(); err != nil {
			return report, err
		}
	}
	list, notes, err := o.scenes()
	if err != nil {
		return report, err
	}
	outcomes := make([]outcome, len(list))
	errs := make([]error, len(list))
	inParallel(ctx, len(list), func(i int) { outcomes[i], errs[i] = judge(&list[i], trees, o.Detectors) })
	if err := cmp.Or(append(errs, ctx.Err())...); err != nil {
		return report, fmt.Errorf("evaluate detection: %w", err)
	}
	report.Notes = notes
	report.fill(outcomes)
	return report, nil
}

func (o *EvalOptions) scenes() ([]scene.Scenario, []string, error) {
	c := scene.CatalogueOptions{
		Seed: cmp.Or(o.First, evalSeed), Draws: max(1, o.Seeds), Ratios: o.Ratios, Families: o.Families,
		Lead: cmp.Or(o.Lead, knownLead), Hold: 8 * time.Second, Tail: 2 * time.Second, Low: 300, High: 1500,
	}
	var notes []string
	if o.Data != "" {
		attacks, err := scene.Recordings(o.Data)
		if err == nil {
			var controls []*scene.Recording
			controls, err = scene.Controls(o.Data)
			c.Recordings = append(attacks, controls...)
		}
		if err != nil {
			notes, c.Recordings = append(notes, fmt.Sprintf("no recordings: %v", err)), nil
		}
	}
	list, err := scene.Catalogue(c)
	if err != nil {
		return nil, nil, fmt.Errorf("list scenes: %w", err)
	}
	return list, notes, nil
}

// judge plays one scene to a detector of its own.
func judge(s *scene.Scenario, trees *model.Trees, set string) (outcome, error) {
	classify, err := detect.NewTrees(trees)
	if err != nil {
		return outcome{}, err
	}
	bank, err := detect.NewBank(detect.BankTargets, model.LearnerParams{})
	if err != nil {
		return outcome{}, err
	}
	settings, models := detect.SettingsOf(config.Default().Detect), bank.Models(classify)
	switch set {
	case "", "tiered":
	case "and":
		settings.Rule = config.RuleAnd
	case "trees":
		models = detect.Models{Trees: classify}
	case "learners":
		models.Trees = always(0.6) // likely, never sure: the forest or the online learner decides
	case "deterministic":
		models = detect.Models{}
	case "rate":
		models, settings.Impact.Factor = detect.Models{Trees: always(1)}, 3
	default:
		return outcome{}, fmt.Errorf("no set of detectors %q", set)
	}
	return play(s, detect.New(settings, models), bank)
}

// always is a classifier that gives every window the same probability of an attack, once it is known what is normal.
type always float64

func (a always) Classify(x detect.Vector, p *detect.Probabilities) {
	*p = detect.Probabilities{}
	if known := x[detect.Index("packets_ratio_1s")]; known != known {
		a = 0
	}
	p[traffic.KindBenign], p[traffic.KindOther] = 1-float64(a), float64(a)
}

func (always) Explain(_ detect.Vector, _ traffic.Kind, out []float32) { clear(out) }

func (r *EvalReport) fill(outcomes []outcome) {
	byCell, byRatio := map[string]*Cell{}, map[string]*Cell{}
	for i := range outcomes {
		out := &outcomes[i]
		s := out.s
		family, all, ratio := s.Family, "all attacks", s.Ratio
		if !s.Attack() {
			all = "all benign"
			ratio = 0
		}
		cellOf(byCell, family, s.Attack(), s.Ratio).add(out)
		cellOf(byRatio, all, s.Attack(), ratio).add(out)
		r.Hours += s.Length.Hours()
		if s.Attack() && s.Ratio >= 1 && !out.detected() {
			r.Missed = append(r.Missed, s.Name)
		}
		if out.falseAlarm() {
			r.Wrong = append(r.Wrong, fmt.Sprintf("%s: %s", s.Name, out.falsehood()))
		}
	}
	r.Cells, r.Totals = sorted(byCell), sorted(byRatio)
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
		c.delays = append(c.delays, out.delay)
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
