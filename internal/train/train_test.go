// SPDX-License-Identifier: Apache-2.0

package train

import (
	"context"
	"math"
	"testing"
	"time"

	"github.com/sentinel-x/sentinel-x/internal/detect"
	"github.com/sentinel-x/sentinel-x/internal/model"
	"github.com/sentinel-x/sentinel-x/internal/scene"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// catalogue returns one scene for a family and ratio, of a seed that the model has not seen.
func catalogue(t *testing.T, family string, ratio float64, lead time.Duration) *scene.Scenario {
	t.Helper()
	list, err := scene.Catalogue(scene.CatalogueOptions{
		Seed: 4242, Families: []string{family}, Ratios: []float64{ratio}, Lead: lead, Hold: 4 * time.Second,
		Tail: time.Second, Low: 300, High: 800,
	})
	if err != nil {
		t.Fatal(err)
	}
	return &list[0]
}

// TestDefaultModelDecides: the model in the program, in the whole detector, finds floods and names them,
// and leaves what is none alone.
func TestDefaultModelDecides(t *testing.T) {
	trees, err := detect.DefaultTrees()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range []string{
		"syn_spoofed", "amplification_dns", "udp_spoofed", "icmp_flood", "carpet_udp", "flash_crowd", "download", "normal",
	} {
		t.Run(family, func(t *testing.T) {
			s := catalogue(t, family, 3, knownLead)
			out := playAlone(t, s, trees, "tiered")
			switch {
			case out.falseAlarm():
				t.Errorf("%s: a false alarm of %s", s.Name, out.kind)
			case s.Attack() && (!out.detected() || out.delay > 1):
				t.Errorf("%s: found after %g s, want at most 1", s.Name, out.delay)
			case s.Attack() && !out.kindRight():
				t.Errorf("%s: a %s, want %s", s.Name, out.kind, s.Kind)
			case s.Kind == traffic.KindAmplification && out.protocol != s.Protocol:
				t.Errorf("%s: protocol %q, want %q", s.Name, out.protocol, s.Protocol)
			}
		})
	}
}

// TestRowsHaveLabels: windows of an attack have its class, those before and in a crowd are benign, and
// each class has its share of the weight.
func TestRowsHaveLabels(t *testing.T) {
	list := []scene.Scenario{
		*catalogue(t, "syn_spoofed", 3, coldLead), *catalogue(t, "amplification_dns", 3, coldLead), *catalogue(t, "flash_crowd", 5, coldLead),
	}
	data, err := Rows(context.Background(), list)
	if err != nil {
		t.Fatal(err)
	}
	weight := map[traffic.Kind]float64{}
	for i, y := range data.Y {
		weight[traffic.Kind(y)] += float64(data.Weight[i])
	}
	total := float64(len(data.Y))
	for kind, share := range map[traffic.Kind]float64{
		traffic.KindBenign: 0.5, traffic.KindSYNFlood: 0.25, traffic.KindAmplification: 0.25,
	} {
		if got := weight[kind] / total; math.Abs(got-share) > 1e-3 {
			t.Errorf("%s has %.3f of the weight, want %.3f", kind, got, share)
		}
	}
	if len(weight) != 3 {
		t.Errorf("%d classes, want 3: %v", len(weight), weight)
	}
	again, err := Rows(context.Background(), list)
	if err != nil || len(again.X) != len(data.X) || again.X[7][3] != data.X[7][3] {
		t.Errorf("the same scenes give other rows: %v", err)
	}
}

// TestScenesAreOfOtherSeeds: no scene that says when to stop, or that the detector is judged on, is one to learn from.
func TestScenesAreOfOtherSeeds(t *testing.T) {
	r := Default()
	learn, err := r.Scenes()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[uint64]string{}
	for i := range learn {
		seen[learn[i].Seed] = learn[i].Name
	}
	if len(seen) != len(learn) {
		t.Errorf("%d scenes have only %d seeds", len(learn), len(seen))
	}
	validate, err := r.scenes(r.Seed+validationSeed, 1)
	if err != nil {
		t.Fatal(err)
	}
	judged, _, err := (&EvalOptions{Seeds: 20}).scenes()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range append(validate, judged...) {
		if name, known := seen[s.Seed]; known {
			t.Errorf("%s is %s, which is learnt from", s.Name, name)
		}
	}
	r.Without = []string{"syn_spoofed"}
	if learn, err = r.Scenes(); err != nil {
		t.Fatal(err)
	}
	for i := range learn {
		if learn[i].Family == "syn_spoofed" {
			t.Fatalf("%s was to be left out", learn[i].Name)
		}
	}
}

// TestCalmFamilies holds the list of families at which nothing may happen.
func TestCalmFamilies(t *testing.T) {
	for _, name := range scene.Families() {
		list, err := scene.Catalogue(scene.CatalogueOptions{Seed: 1, Families: []string{name}, Ratios: []float64{1}})
		if err != nil {
			t.Fatal(err)
		}
		if list[0].Attack() == isCalm(name) {
			t.Errorf("%s: an attack %v, on the list of calm families %v", name, list[0].Attack(), isCalm(name))
		}
	}
}

// TestGrowIsReproducible: the same rows give the same trees, for the detector's classes.
func TestGrowIsReproducible(t *testing.T) {
	data, err := Rows(context.Background(), []scene.Scenario{*catalogue(t, "syn_spoofed", 3, coldLead)})
	if err != nil {
		t.Fatal(err)
	}
	r := Recipe{Seed: 3, Rounds: 2, Depth: 3}
	margins := func() []float32 {
		trees, err := r.Grow(context.Background(), data, model.Data{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := detect.NewTrees(trees); err != nil {
			t.Fatal(err)
		}
		out := make([]float32, trees.Outputs())
		trees.Margin(data.X[0], out)
		return out
	}
	first, second := margins(), margins()
	for i := range first {
		if first[i] != second[i] {
			t.Errorf("margin %d: %g, then %g", i, first[i], second[i])
		}
	}
	data.Y = make([]int, len(data.Y))
	if _, err := r.Grow(context.Background(), data, model.Data{}); err == nil {
		t.Error("one class is enough to learn from")
	}
}

// TestQuantile: the least value that so great a share is not above.
func TestQuantile(t *testing.T) {
	list := []float64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}
	for q, want := range map[float64]float64{0.5: 5, 0.95: 10, 0.05: 1, 1: 10} {
		if got := quantile(list, q); got != want {
			t.Errorf("quantile %g of 1 to 10 is %g, want %g", q, got, want)
		}
	}
}
