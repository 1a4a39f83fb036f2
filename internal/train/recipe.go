// SPDX-License-Identifier: Apache-2.0

package train

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sentinel-x/sentinel-x/internal/detect"
	"github.com/sentinel-x/sentinel-x/internal/model"
	"github.com/sentinel-x/sentinel-x/internal/scene"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// Recipe is what the trees are made from. The same recipe gives the same trees, bit for bit.
type Recipe struct {
	Seed    uint64
	Draws   int      // how many times everything is drawn anew
	Without []string // families that are left out
	Rounds  int      // each adds a tree a class; fewer if the validation's log-loss rises
	Depth   int
	// Progress is told what goes on; nil: nobody is.
	Progress func(format string, args ...any)
}

// Default is the recipe of the model that comes with the program.
func Default() Recipe { return Recipe{Seed: 1, Draws: 8, Rounds: 60, Depth: 5} }

// validationSeed is added to the seed for the scenes that say when to stop; evaluations begin at another.
const validationSeed = 1 << 20

const (
	// knownLead is how much calm makes a baseline; guessLead is enough for a provisional one, coldLead too little.
	knownLead = 80 * time.Second
	guessLead = 10 * time.Second
	coldLead  = 3 * time.Second
)

// confusing are families of attacks that resemble clients: few sources, real stacks, whole connections.
var confusing = []string{
	"syn_options", "syn_botnet", "ack_flood", "rst_flood", "synack_reflection", "udp_spoofed", "udp_botnet",
	"icmp_flood", "other_protocol", "fragment_flood", "connection_flood", "pulse_wave", "mixed",
}

// hard are those of them that the trees take for clients most often.
var hard = []string{"syn_options", "ack_flood", "udp_botnet", "connection_flood", "mixed"}

// suspicious are families that resemble attacks.
var suspicious = []string{"flash_crowd", "download", "monitoring", "port_scan", "reconnect_storm"}

// lessons are the catalogues of one draw.
func lessons() []scene.CatalogueOptions {
	var attacks, calm []string
	for _, name := range scene.Families() {
		if isCalm(name) {
			calm = append(calm, name)
		} else {
			attacks = append(attacks, name)
		}
	}
	const s = time.Second
	return []scene.CatalogueOptions{
		{Families: attacks, Ratios: []float64{.6, 1, 2.5}, Lead: knownLead, Hold: 6 * s, Tail: 3 * s, Low: 300, High: 2000},
		{Families: attacks, Ratios: []float64{8, 30}, Lead: knownLead, Hold: 3 * s, Tail: s, Low: 200, High: 600},
		{Families: attacks, Ratios: []float64{2, 10}, Lead: coldLead, Hold: 3 * s, Tail: s, Low: 300, High: 1000},
		{Families: attacks, Ratios: []float64{1, 3, 30}, Lead: guessLead, Hold: 3 * s, Tail: s, Low: 300, High: 1500},
		{Families: confusing, Ratios: []float64{.8, 1.3}, Lead: knownLead, Hold: 6 * s, Tail: s, Low: 300, High: 1500, Draws: 2},
		{Families: hard, Ratios: []float64{1, 3, 10}, Lead: knownLead, Hold: 4 * s, Tail: s, Low: 300, High: 1500, Draws: 4},
		{Families: calm, Lead: knownLead, Hold: 20 * s, Tail: 3 * s, Low: 300, High: 1500},
		{Families: calm, Lead: guessLead, Hold: 6 * s, Tail: s, Low: 300, High: 1500},
		{Families: calm, Lead: coldLead, Hold: 6 * s, Tail: s, Low: 300, High: 1500},
		{Families: suspicious, Lead: knownLead, Hold: 15 * s, Tail: s, Low: 300, High: 1500, Draws: 3},
		{Families: []string{"resolver_answers"}, Lead: knownLead, Hold: 6 * s, Tail: s, Low: 300, High: 1500, Draws: 4},
		{Families: []string{"normal"}, Lead: knownLead, Hold: 60 * s, Low: 300, High: 3000, Draws: 8},
	}
}

// calmFamilies are those at which nothing may happen.
var calmFamilies = []string{
	"normal", "flash_crowd", "reconnect_storm", "download", "backup", "nat_users", "resolver_answers", "monitoring", "port_scan",
}

func isCalm(family string) bool { return slices.Contains(calmFamilies, family) }

// Scenes returns the scenes of the recipe.
func (r *Recipe) Scenes() ([]scene.Scenario, error) { return r.scenes(r.Seed, r.Draws) }

func (r *Recipe) scenes(seed uint64, draws int) (list []scene.Scenario, err error) {
	for draw := range draws {
		for i, o := range lessons() {
			o.Seed = seed + uint64(draw)<<8 + uint64(i)
			o.Families = slices.DeleteFunc(slices.Clone(o.Families), func(name string) bool { return slices.Contains(r.Without, name) })
			some, err := scene.Catalogue(o)
			if err != nil {
				return nil, fmt.Errorf("list scenes: %w", err)
			}
			list = append(list, some...)
		}
	}
	return list, nil
}

// Rows composes the scenes to learn from, and those that say when to stop: of the same families, from
// other seeds.
func (r *Recipe) Rows(ctx context.Context) (learn, validate model.Data, err error) {
	for _, part := range []struct {
		data  *model.Data
		seed  uint64
		draws int
	}{{&learn, r.Seed, r.Draws}, {&validate, r.Seed + validationSeed, 1}} {
		list, err := r.scenes(part.seed, part.draws)
		if err != nil {
			return learn, validate, err
		}
		if *part.data, err = Rows(ctx, list); err != nil {
			return learn, validate, err
		}
		r.say("%d scenes give %d rows", len(list), len(part.data.X))
	}
	return learn, validate, nil
}

func (r *Recipe) say(format string, args ...any) {
	if r.Progress != nil {
		r.Progress(format, args...)
	}
}

// Train composes, learns, and returns trees that detect.NewTrees takes.
func (r *Recipe) Train(ctx context.Context) (*model.Trees, error) {
	learn, validate, err := r.Rows(ctx)
	if err != nil {
		return nil, err
	}
	return r.Grow(ctx, learn, validate)
}

// params are those of the trees.
func (r *Recipe) params() model.TreeParams {
	p := model.DefaultTreeParams()
	p.Objective, p.Classes, p.Schema = model.Softmax, traffic.TreeClasses, detect.Names()
	p.Rounds, p.MaxDepth, p.Seed = r.Rounds, r.Depth, r.Seed
	p.Subsample, p.Colsample, p.MinChildWeight, p.MaxBins, p.Eta = 0.6, 0.25, 4, 64, 0.25
	p.Report = func(x model.Round) {
		r.say("round %d: log-loss %.4f, of validation %.4f", x.Number, x.Train, x.Validation)
	}
	return p
}

// Grow learns from rows: vectors of the detector with classes of attacks. Without validation rows, no
// round is left out.
func (r *Recipe) Grow(ctx context.Context, learn, validate model.Data) (*model.Trees, error) {
	p := r.params()
	if len(validate.X) > 0 {
		p.Validation, p.EarlyStop = &validate, 8
	}
	trees, err := model.TrainTrees(ctx, learn, p)
	if err != nil {
		return nil, fmt.Errorf("train the trees: %w", err)
	}
	trees, err = trees.WithAttributes(map[string]string{detect.ClassesAttribute: strings.Join(detect.ClassNames(), ",")})
	if err != nil {
		return nil, fmt.Errorf("train the trees: %w", err)
	}
	return trees, nil
}
