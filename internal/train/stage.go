// SPDX-License-Identifier: Apache-2.0

package train

import (
	"fmt"
	"time"

	"github.com/sentinel-x/sentinel-x/internal/model"
	"github.com/sentinel-x/sentinel-x/internal/scene"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// stage is normal traffic with the scenes that happen in it. Its calm beginning is composed once, and the detectors
// watch it once: then each scene goes on from copies of them.
type stage struct {
	scenes []*scene.Scenario
	calm   scene.Scenario // the beginning, as a scene in which nothing happens
	end    time.Duration  // of the longest scene

	lead     []outcome   // of the beginning, by contender
	armed    []bool      // whether the host's forest had a say at its end
	outcomes [][]outcome // by scene and contender
}

// stagesOf groups scenes by the normal traffic that they share, in the order in which they come.
func stagesOf(list []scene.Scenario, lead time.Duration) []*stage {
	var stages []*stage
	known := map[uint64]*stage{}
	for i := range list {
		s := &list[i]
		st := known[s.Calm]
		if st == nil {
			st = &stage{calm: *s}
			st.calm.Family, st.calm.Recording, st.calm.Length = "normal", nil, lead
			st.calm.Name = fmt.Sprintf("calm/%s/%d", s.Profile, len(stages))
			if s.Kind != traffic.KindCarpet { // which says that the normal traffic is that of a network
				st.calm.Kind = traffic.KindBenign
			}
			known[s.Calm] = st
			stages = append(stages, st)
		}
		st.scenes, st.end = append(st.scenes, s), max(st.end, s.Length)
	}
	return stages
}

// run plays all scenes to all sets of detectors.
func (st *stage) run(trees *model.Trees, sets []string) error {
	lead, err := scene.NewLead(&st.calm, st.end, counters(&st.calm))
	if err != nil {
		return err
	}
	var players []*player
	for _, set := range sets {
		p, err := newPlayer(set, trees)
		if err != nil {
			return err
		}
		players = append(players, p)
	}
	for w := range lead.Windows() {
		for _, p := range players {
			p.add(w)
		}
	}
	st.calm.Kind = traffic.KindBenign
	for _, p := range players {
		p.end()
		p.out.s = &st.calm
		st.lead = append(st.lead, p.outcome())
		forest, _ := p.thresholds(st.calm.Watch()[0])
		st.armed = append(st.armed, forest > 0)
	}
	return st.events(lead, players)
}

func (st *stage) events(lead *scene.Lead, players []*player) error {
	for _, s := range st.scenes {
		windows, err := lead.Scene(s)
		if err != nil {
			return err
		}
		forks := make([]*player, len(players))
		for i, p := range players {
			forks[i] = p.fork(s)
		}
		for w := range windows {
			for _, p := range forks {
				p.add(w)
			}
		}
		var outcomes []outcome
		for _, p := range forks {
			p.end()
			outcomes = append(outcomes, p.outcome())
		}
		st.outcomes = append(st.outcomes, outcomes)
	}
	return nil
}

// counters are how a scene is watched.
func counters(s *scene.Scenario) scene.CounterOptions {
	return scene.CounterOptions{
		Targets: s.Watch(), Seeds: seeds, Start: monday.Add(s.Begin), Length: s.Length, Lapse: s.Lapse, Samples: samplesPerWindow,
	}
}
