// SPDX-License-Identifier: Apache-2.0

package model

import (
	"errors"
	"fmt"
	"math"
)

// minTrainingRows is what a tree needs to say anything about a row it never saw.
const minTrainingRows = 20

// Data is a labelled set of rows.
type Data struct {
	X      [][]float32 // row × feature, NaN where unknown, never infinite
	Y      []int       // class of each row: 0 or 1 for Logistic, 0 to classes−1 for Softmax
	Weight []float32   // how much each row counts, finite and not negative; nil: 1 each
}

// weight returns the weight of a row.
func (d *Data) weight(row int) float32 {
	if d.Weight == nil {
		return 1
	}
	return d.Weight[row]
}

// check refuses rows that cannot be scored by a model of that shape.
func (d *Data) check(features, classes int) error {
	switch {
	case len(d.X) == 0:
		return errors.New("no rows")
	case len(d.X) > math.MaxInt32:
		return fmt.Errorf("%d rows are too many", len(d.X))
	case len(d.Y) != len(d.X):
		return fmt.Errorf("%d labels for %d rows", len(d.Y), len(d.X))
	case d.Weight != nil && len(d.Weight) != len(d.X):
		return fmt.Errorf("%d weights for %d rows", len(d.Weight), len(d.X))
	}
	total := 0.0
	for i := range d.X {
		if err := d.checkRow(i, features, classes); err != nil {
			return fmt.Errorf("row %d: %w", i, err)
		}
		total += float64(d.weight(i))
	}
	if total == 0 {
		return fmt.Errorf("all %d rows have no weight", len(d.X))
	}
	return nil
}

func (d *Data) checkRow(i, features, classes int) error {
	if len(d.X[i]) != features {
		return fmt.Errorf("%d features, %d are needed", len(d.X[i]), features)
	}
	for j, v := range d.X[i] {
		if math.IsInf(float64(v), 0) {
			return fmt.Errorf("feature %d is %g, which is not finite: unknown is NaN", j, v)
		}
	}
	if y := d.Y[i]; y < 0 || y >= classes {
		return fmt.Errorf("label %d, classes are 0 to %d", y, classes-1)
	}
	if w := d.weight(i); !finite(w) || w < 0 {
		return fmt.Errorf("weight %g is negative or not finite", w)
	}
	return nil
}

// checkTraining refuses, besides, what nothing can be learnt from.
func (d *Data) checkTraining(features, classes int) error {
	if n := len(d.X); n > 0 && n < minTrainingRows {
		return fmt.Errorf("only %d rows, at least %d are needed", n, minTrainingRows)
	}
	if err := d.check(features, classes); err != nil {
		return err
	}
	only := -1
	for i, y := range d.Y {
		if d.weight(i) == 0 {
			continue
		}
		if only >= 0 && y != only {
			return nil
		}
		only = y
	}
	return fmt.Errorf("all rows with a weight are of class %d, at least two classes are needed", only)
}

// LogLoss is the weighted mean of −log p(class of the row), natural logarithm.
func (t *Trees) LogLoss(d Data) (float64, error) {
	if err := d.check(t.features, t.Classes()); err != nil {
		return 0, fmt.Errorf("log-loss: %w", err)
	}
	margins := make([]float32, len(t.base))
	loss := lossSum{}
	for i, x := range d.X {
		t.Margin(x, margins)
		loss.add(t.objective, margins, d.Y[i], d.weight(i))
	}
	return loss.mean(), nil
}

// lossSum adds up the log-loss of rows.
type lossSum struct{ loss, weight float64 }

func (s *lossSum) add(o Objective, margins []float32, class int, weight float32) {
	s.loss += float64(float64(weight) * rowLoss(o, margins, class))
	s.weight += float64(weight)
}

func (s *lossSum) mean() float64 { return s.loss / s.weight }

// rowLoss is log(1+e^−m) for the margin m of the right side, or the logarithm of
// the sum of all e^margin less the margin of the class.
func rowLoss(o Objective, margins []float32, class int) float64 {
	if o == Logistic {
		m := float64(margins[0])
		if class == 0 {
			m = -m
		}
		return math.Max(-m, 0) + math.Log1p(math.Exp(-math.Abs(m)))
	}
	top := margins[0]
	for _, m := range margins {
		top = max(top, m)
	}
	sum := 0.0
	for _, m := range margins {
		sum += math.Exp(float64(m - top))
	}
	return math.Log(sum) - float64(margins[class]-top)
}
