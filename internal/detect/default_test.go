// SPDX-License-Identifier: Apache-2.0

package detect

import (
	"strings"
	"testing"

	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// TestDefaultTrees: the model in the program is made for these features and these classes. What it
// decides is tested in internal/train.
func TestDefaultTrees(t *testing.T) {
	trees, err := DefaultTrees()
	if err != nil {
		t.Fatal(err)
	}
	if err := trees.Match(Names()); err != nil {
		t.Fatalf("%v: make models", err)
	}
	if _, err := NewTrees(trees); err != nil {
		t.Fatal(err)
	}
	if got, want := trees.Attributes()[ClassesAttribute], strings.Join(ClassNames(), ","); got != want {
		t.Errorf("classes %s, want %s", got, want)
	}
	if trees.Outputs() != traffic.TreeClasses {
		t.Errorf("%d classes, want %d", trees.Outputs(), traffic.TreeClasses)
	}
	if most := 1 << 20; len(defaultModel) > most {
		t.Errorf("the model takes %d bytes, want at most %d", len(defaultModel), most)
	}
	if rounds := trees.Len() / traffic.TreeClasses; rounds > 60 || trees.MaxDepth() > 5 {
		t.Errorf("%d rounds of depth %d: a prediction takes too long", rounds, trees.MaxDepth())
	}
}

// BenchmarkDefaultTrees is one prediction of the model in the program.
func BenchmarkDefaultTrees(b *testing.B) {
	trees, err := DefaultTrees()
	if err != nil {
		b.Fatal(err)
	}
	classify, err := NewTrees(trees)
	if err != nil {
		b.Fatal(err)
	}
	x, at, v := NewExtractor(1), epoch, make(Vector, NumFeatures())
	extractTick(x, &at, busyTick(1), v)
	var p Probabilities
	for b.Loop() {
		classify.Classify(v, &p)
	}
}
