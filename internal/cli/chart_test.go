// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"encoding/xml"
	"errors"
	"image/png"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sentinel-x/sentinel-x/internal/engine"
	"github.com/sentinel-x/sentinel-x/internal/lab"
)

// sampleCharts are of every kind, with what is hard to draw: nothing, zeros, negatives.
func sampleCharts() map[string]chart {
	var verdict engine.VerdictReport
	verdict.Cases = []engine.BenchCase{{Name: "pass_clean", AddedNS: 40, MinNS: 38, MaxNS: 61, P99NS: 96}, {Name: "drop_<&>", AddedNS: -1}}
	scale := engine.ScaleReport{Series: []engine.ScaleSeries{
		{Axis: "prefixes", Engine: "sentinel_x", Case: "listed", Points: []engine.ScalePoint{{N: 1000, AddedNS: 80}, {N: 1_000_000, AddedNS: 95}}},
		{Axis: "sources", Engine: "tutorial", Case: "metered", Points: []engine.ScalePoint{{N: 1, AddedNS: 0}}},
	}}
	peers := lab.PeerReport{Prefixes: 1, Cases: []lab.PeerCase{
		{Name: "xdp_drop_bare", MPPS: 5.1, OfBare: 1, P50Micros: 40, P99Micros: 80, MaxMicros: 20_000}, {Name: "none"},
	}}
	memory := engine.MemoryReport{LimitBytes: 5_200_000, Setups: []engine.MemorySetup{
		{What: "as configured", Bytes: 3000, Maps: []engine.MemoryMap{{Name: "totals", Bytes: 3000}}}, {What: "empty"},
	}}
	return map[string]chart{
		"verdict": verdictChart(verdict), "scale": scaleChart(scale), "peers": peersChart(peers), "memory": memoryChart(memory),
		"no verdict": verdictChart(engine.VerdictReport{}), "no scale": scaleChart(engine.ScaleReport{}),
		"no peers": peersChart(lab.PeerReport{}), "no memory": memoryChart(engine.MemoryReport{}),
	}
}

func TestChartsAreWhatTheirFileNamesSay(t *testing.T) {
	for name, c := range sampleCharts() {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for _, ending := range plotFormats {
				if err := c.save(filepath.Join(dir, "plot"+ending)); err != nil {
					t.Fatal(err)
				}
			}
			svg, err := os.ReadFile(filepath.Join(dir, "plot.svg"))
			if err != nil {
				t.Fatal(err)
			}
			checkSVG(t, svg, c.title)
			picture, err := os.ReadFile(filepath.Join(dir, "plot.png"))
			if err != nil {
				t.Fatal(err)
			}
			if img, err := png.Decode(bytes.NewReader(picture)); err != nil || img.Bounds().Empty() {
				t.Errorf("PNG: %v", err)
			}
		})
	}
}

// checkSVG: it is XML, has the title, and no coordinate is not a number.
func checkSVG(t *testing.T, svg []byte, title string) {
	t.Helper()
	d := xml.NewDecoder(bytes.NewReader(svg))
	var text strings.Builder
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("SVG: %v", err)
		}
		if s, ok := token.(xml.CharData); ok {
			text.Write(s)
		}
	}
	if !strings.Contains(text.String(), title) {
		t.Errorf("SVG without its title %q", title)
	}
	if bytes.Contains(svg, []byte("NaN")) || bytes.Contains(svg, []byte("Inf")) {
		t.Errorf("SVG with a coordinate that is no number:\n%s", svg)
	}
}

func TestScalesHoldTheirValues(t *testing.T) {
	for _, c := range []struct {
		values []float64
		log    bool
		ticks  []float64
	}{
		{[]float64{12, 95}, false, []float64{0, 20, 40, 60, 80, 100}},
		{[]float64{0}, false, []float64{0}},
		{[]float64{0, 30, 700}, true, []float64{20, 50, 100, 200, 500, 1000}},
		{[]float64{1, 10_000_000}, true, []float64{1, 10, 100, 1e3, 1e4, 1e5, 1e6, 1e7}},
		{[]float64{5}, true, []float64{0.5, 1, 2, 5}},
		{nil, true, []float64{1, 2, 5, 10}},
	} {
		s := newScale(c.values, c.log, 0, 1)
		got := s.ticks()
		same := slices.EqualFunc(got[:min(len(got), len(c.ticks))], c.ticks, func(a, b float64) bool { return math.Abs(a-b) <= 1e-9*b })
		if !same {
			t.Errorf("%v: ticks %v, want %v", c.values, got, c.ticks)
		}
		for _, v := range append(c.values, got...) {
			if at := s.at(v); math.IsNaN(at) || at < 0 || at > 1 {
				t.Errorf("%v: %v is at %v", c.values, v, at)
			}
		}
	}
}

func TestPlotNeedsAKnownEnding(t *testing.T) {
	for _, command := range []string{"verdict", "scale", "peers", "memory"} {
		if out := runCLI(t, "", "bench", command, "--plot", "plot.gif"); out.exit != 2 || !strings.Contains(out.stderr, ".svg") {
			t.Errorf("bench %s: exit status %d, %s", command, out.exit, out.stderr)
		}
	}
	if err := (chart{}).save(filepath.Join(t.TempDir(), "no", "plot.svg")); err == nil {
		t.Error("a plot in a directory that is not there was written")
	}
}
