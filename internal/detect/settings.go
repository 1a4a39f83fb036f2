// SPDX-License-Identifier: Apache-2.0

package detect

import (
	"github.com/sentinel-x/sentinel-x/internal/config"
	"github.com/sentinel-x/sentinel-x/internal/model"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// Settings is the section detect of the configuration, in the units of this package.
type Settings struct {
	Rule     config.Rule
	Sure     float64 // probability above which the trees alone are enough
	Likely   float64 // above which they object
	Agree    float64 // above which they are enough with one who agrees, with rule tiered
	Window   int     // ticks that the decision looks back, 1…100
	Need     int     // of them that have to show an attack
	Impact   Impact
	EndAfter int64 // calm ticks after which an incident ends
	Limits   Limits
	Targets  int // that have a place; see SettingsOf
}

// Limits are rates per second of one target that are an attack by themselves; 0: none.
type Limits struct {
	Packets, Bytes, SYN, UDP, ICMP float64
	Reflected                      float64 // of reflectors' answers, where they are most of the UDP
}

// SettingsOf translates a valid configuration. Besides the targets that it counts,
// each address may bring the network around it, and there is the interface.
func SettingsOf(c config.Detect) Settings {
	window := int(min(max(1, ticksIn(c.Window.Duration)), historyTicks))
	likely := min(c.Likely, c.Threshold)
	return Settings{
		Rule: c.Rule, Sure: c.Threshold, Likely: likely, Agree: max(c.Agree, likely),
		Window: window, Need: (2*window + 2) / 3,
		Impact:   Impact{Floor: float64(c.Floor), Factor: c.Factor},
		EndAfter: max(1, ticksIn(c.EndAfter.Duration)),
		Limits: Limits{
			Packets: float64(c.Limits.Packets), Bytes: float64(c.Limits.Bytes), SYN: float64(c.Limits.SYN),
			UDP: float64(c.Limits.UDP), ICMP: float64(c.Limits.ICMP), Reflected: float64(c.Limits.Reflected),
		},
		Targets: 2*int(c.MaxTargets) + 1,
	}
}

// historyTicks is how far a decision can look back.
const historyTicks = 128

// history holds for the last windows whether each showed an attack.
type history [2]uint64

// push adds a window and forgets the oldest.
func (h *history) push(attack bool) {
	h[1] = h[1]<<1 | h[0]>>63
	h[0] <<= 1
	if attack {
		h[0] |= 1
	}
}

// count counts the attacks among the last n windows.
func (h *history) count(n int) int {
	count := 0
	for i := range n {
		count += int(h[i/64] >> (i % 64) & 1)
	}
	return count
}

// Classifier gives the probability of each kind of attack: the trees.
type Classifier interface {
	// Classify writes the probability of each class to p; they sum up to 1. The
	// vector may hold NaN. It is called for each window under suspicion and must
	// not allocate.
	Classify(x Vector, p *Probabilities)
	// Explain writes what each feature adds to the class, in units of the model,
	// positive towards it. It may take milliseconds.
	Explain(x Vector, class traffic.Kind, out []float32)
}

// Probabilities holds one per class of the trees: KindBenign to KindOther.
type Probabilities [traffic.TreeClasses]float64

// attack returns the probability of any attack and the likeliest one.
func (p *Probabilities) attack() (probability float64, class traffic.Kind) {
	class = traffic.KindSYNFlood
	for k := class; int(k) < len(p); k++ {
		if p[k] > p[class] {
			class = k
		}
	}
	return 1 - p[traffic.KindBenign], class
}

// Scorer says how unlike its calm windows a target's window is: the isolation
// forest, an online learner.
type Scorer interface {
	// Score rates a window of a target against a threshold of the target's own.
	// An unarmed scorer has not learnt enough. It must not allocate.
	Score(t traffic.Target, x Vector) Score
	// Explain writes what each feature adds to the score, positive towards an attack.
	Explain(t traffic.Target, x Vector, out []float32)
}

// Learner teaches scorers.
type Learner interface {
	// Follows reports whether it wants the windows of a target, one after the other.
	Follows(t traffic.Target) bool
	// Observe takes the next one, calm or not. It is the learner's business to wait
	// whether a window stays calm. The row is good until Observe returns.
	Observe(t traffic.Target, w model.Window)
}

// Score is what a Scorer says of a window; above the threshold it objects.
type Score struct {
	Value, Threshold float64
	Armed            bool
}

func (s Score) objects() bool { return s.Armed && s.Value > s.Threshold }

// Models are the scorers, and who teaches them; nil where one is absent.
type Models struct {
	Trees          Classifier
	Forest, Online Scorer
	Learner        Learner
}
