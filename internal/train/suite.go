// SPDX-License-Identifier: Apache-2.0

package train

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/sentinel-x/sentinel-x/internal/config"
	"github.com/sentinel-x/sentinel-x/internal/detect"
	"github.com/sentinel-x/sentinel-x/internal/model"
	"github.com/sentinel-x/sentinel-x/internal/scene"
)

// suiteSeed is far from those that anything is learnt from, and from evalSeed.
const suiteSeed = 8_000_000

// Suite returns the scenes that a candidate must do as well on as the live trees:
// every family, attacks at the normal rate and at three times that. They are always the same.
func Suite() ([]scene.Scenario, error) {
	list, err := scene.Catalogue(scene.CatalogueOptions{
		Seed: suiteSeed, Ratios: []float64{1, 3}, Lead: knownLead, Hold: 5 * time.Second, Tail: time.Second, Low: 250, High: 600,
	})
	if err != nil {
		return nil, fmt.Errorf("list the scenes of the suite: %w", err)
	}
	return list, nil
}

// suite plays scenes to the whole detector.
func (s *Score) suite(ctx context.Context, trees *model.Trees, list []scene.Scenario) error {
	outcomes := make([]outcome, len(list))
	errs := make([]error, len(list))
	inParallel(ctx, len(list), func(i int) { outcomes[i], errs[i] = playScene(&list[i], trees, DetectorSets()[0]) })
	if err := cmp.Or(append(errs, ctx.Err())...); err != nil {
		return fmt.Errorf("play the suite: %w", err)
	}
	for i := range outcomes {
		out := &outcomes[i]
		if out.s.Attack() {
			s.SuiteAttacks++
			if out.detected() {
				s.Suite++
			}
		}
		if out.falseAlarm() {
			s.SuiteFalse++
		}
	}
	return nil
}

// playScene plays a scene from its beginning to detectors of its own.
func playScene(s *scene.Scenario, trees *model.Trees, set string) (outcome, error) {
	p, err := newPlayer(set, trees)
	if err != nil {
		return outcome{}, err
	}
	p.out.s, p.onset = s, monday.Add(s.Begin+s.Onset)
	stream, err := s.Stream()
	if err != nil {
		return outcome{}, err
	}
	p.play(scene.Windows(stream, counters(s)))
	return p.outcome(), nil
}

func defaultSettings() detect.Settings { return detect.SettingsOf(config.Default().Detect) }
