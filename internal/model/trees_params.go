// SPDX-License-Identifier: Apache-2.0

package model

import (
	"fmt"
	"math"
)

// Method is how a tree looks for its splits.
type Method uint8

const (
	// Histogram tries the edges of at most MaxBins bins of each feature.
	Histogram Method = iota
	// Exact tries the middle between any two neighbouring values.
	Exact
)

// maxTrainedDepth is that of a full tree of maxTreeNodes.
const maxTrainedDepth = 15

// TreeParams say how trees are trained. The names in parentheses are XGBoost's;
// begin with DefaultTreeParams, since a zero means zero.
type TreeParams struct {
	Objective Objective
	Classes   int // of Softmax; 0: the highest label and one
	Method    Method
	Rounds    int // each adds one tree, or one a class
	MaxDepth  int // 1 to 15
	MaxBins   int // of Histogram, 2 to 4096 (max_bin)

	Eta            float64 // share of a tree's weights that is used, over 0 to 1
	Lambda         float64 // L2 penalty on weights (reg_lambda)
	Gamma          float64 // a split that gains less is pruned (min_split_loss)
	MinChildWeight float64 // least sum of second derivatives on either side of a split
	BaseScore      float32 // start: probability of class 1, or margin of every class

	Subsample float64 // share of the rows that a tree is grown on, over 0 to 1
	Colsample float64 // share of the features that a tree may use (colsample_bytree)
	Seed      uint64  // of both

	Schema Schema // names of the features; nil: the model has none

	// Validation and EarlyStop: training ends when the log-loss of these rows was
	// not lowered in EarlyStop rounds, and the rounds after the best are dropped.
	Validation *Data
	EarlyStop  int

	// Report is told of every round; nil: nobody is.
	Report func(Round)
}

// Round is the state after a round of training.
type Round struct {
	Number     int     // from 1
	Train      float64 // log-loss of the training rows
	Validation float64 // log-loss of the validation rows, NaN without them
}

// DefaultTreeParams are XGBoost's defaults, for 100 rounds of Histogram.
func DefaultTreeParams() TreeParams {
	return TreeParams{
		Rounds: 100, MaxDepth: 6, MaxBins: 256,
		Eta: 0.3, Lambda: 1, MinChildWeight: 1, BaseScore: 0.5,
		Subsample: 1, Colsample: 1, Seed: 1,
	}
}

// check refuses parameters out of their range, by name.
func (p *TreeParams) check() error {
	for _, c := range []struct {
		name        string
		value       float64
		least, most float64
	}{
		{"rounds", float64(p.Rounds), 1, maxTrees},
		{"max depth", float64(p.MaxDepth), 1, maxTrainedDepth},
		{"max bins", float64(p.MaxBins), 2, 4096},
		{"classes", float64(p.Classes), 0, maxClasses},
		{"eta", p.Eta, math.SmallestNonzeroFloat64, 1},
		{"lambda", p.Lambda, 0, math.MaxFloat32},
		{"gamma", p.Gamma, 0, math.MaxFloat32},
		{"min child weight", p.MinChildWeight, 0, math.MaxFloat32},
		{"subsample", p.Subsample, math.SmallestNonzeroFloat64, 1},
		{"colsample", p.Colsample, math.SmallestNonzeroFloat64, 1},
		{"early stop", float64(p.EarlyStop), 0, maxTrees},
	} {
		if !(c.value >= c.least && c.value <= c.most) { // NaN is refused, too
			return fmt.Errorf("%s %v is not within %v and %v", c.name, c.value, c.least, c.most)
		}
	}
	if p.Objective > Softmax || p.Method > Exact {
		return fmt.Errorf("unknown objective %d or method %d", p.Objective, p.Method)
	}
	if p.Objective == Logistic && !(p.BaseScore > 0 && p.BaseScore < 1) {
		return fmt.Errorf("base score %v is no probability between 0 and 1", p.BaseScore)
	}
	if p.EarlyStop > 0 && p.Validation == nil {
		return fmt.Errorf("early stop after %d rounds needs validation rows", p.EarlyStop)
	}
	return nil
}

// outputs is the number of margins that data asks for.
func (p *TreeParams) outputs(d Data) int {
	if p.Objective == Logistic {
		return 1
	}
	classes := max(p.Classes, 2)
	if p.Classes == 0 {
		for _, y := range d.Y {
			classes = max(classes, y+1)
		}
	}
	return classes
}
