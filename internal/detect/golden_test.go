// SPDX-License-Identifier: Apache-2.0

package detect

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

var update = flag.Bool("update", false, "write the generated files instead of comparing them")

// storedWindow is a window in testdata: histograms hold bin, count, bin, count …
type storedWindow struct {
	Start      time.Time
	Length     time.Duration
	Tally      traffic.Tally
	Counted    uint64
	Histograms [numHistograms][]uint32
	Sources    []netip.Addr
}

func store(w *traffic.Window) storedWindow {
	s := storedWindow{Start: w.Start, Length: w.Length, Tally: w.Tally, Counted: w.Counted}
	for h, bins := range parts(&w.Histograms) {
		for i, n := range bins {
			if n > 0 {
				s.Histograms[h] = append(s.Histograms[h], uint32(i), n)
			}
		}
	}
	for i := range w.Samples {
		s.Sources = append(s.Sources, w.Samples[i].Source)
	}
	return s
}

func (s *storedWindow) window() traffic.Window {
	w := traffic.Window{Target: victim, Start: s.Start, Length: s.Length, Tally: s.Tally}
	w.Counted = s.Counted
	for h, bins := range parts(&w.Histograms) {
		for i := 0; i < len(s.Histograms[h]); i += 2 {
			bins[s.Histograms[h][i]] = s.Histograms[h][i+1]
		}
	}
	for _, a := range s.Sources {
		w.Samples = append(w.Samples, traffic.Sample{Source: a})
	}
	return w
}

// goldenScene is 70 s of few clients, then two ticks of SYN flood, one of an
// amplification, and one window of three ticks. Only the last 25 windows and
// every tenth before are kept; what is left out are missing ticks.
func goldenScene() (kept []storedWindow) {
	s := newSim(1)
	for i := range 700 {
		w := s.window(victim)
		s.clients(&w, 60, 40)
		switch i {
		case 695, 696:
			s.synFlood(&w, 900)
		case 698:
			s.udpFlood(&w, 700, 53, 1400)
		case 699:
			w.Length = 3 * traffic.Tick
		}
		if i >= 675 || i%10 == 0 {
			kept = append(kept, store(&w))
		}
	}
	return kept
}

// goldenVectors runs stored windows through an extractor and keeps the last
// vectors. What the few windows cannot teach in time is planted.
func goldenVectors(t *testing.T, windows []storedWindow) (vectors []Vector) {
	x := NewExtractor(4)
	for i := range windows {
		w := windows[i].window()
		if !x.Begin(w.Start, w.Length) {
			t.Fatalf("window %d is out of order", i)
		}
		track := x.Observe(&w)
		if i == len(windows)-25 {
			track.baseline.recent.n = recentKnown
			track.reference.learned = referenceKnown
			track.samples, track.first = noveltySamples, 0
		}
		v := make(Vector, NumFeatures())
		track.Features(v)
		track.Settle(track.Learnable(DefaultImpact()))
		if i >= len(windows)-8 {
			vectors = append(vectors, v)
		}
	}
	return vectors
}

// TestGoldenVectors holds every feature of recorded windows to recorded values.
func TestGoldenVectors(t *testing.T) {
	if *update {
		writeJSON(t, "testdata/windows.json", goldenScene())
	}
	var windows []storedWindow
	readJSON(t, "testdata/windows.json", &windows)
	got := goldenVectors(t, windows)
	if *update {
		writeVectors(t, "testdata/vectors.json", got)
	}
	var want []map[string]*float64
	readJSON(t, "testdata/vectors.json", &want)
	if len(want) != len(got) {
		t.Fatalf("%d vectors, want %d", len(got), len(want))
	}
	for i, v := range got {
		if len(want[i]) != len(v) {
			t.Errorf("vector %d has %d features, want %d", i, len(v), len(want[i]))
		}
		for j, name := range Names() {
			if !agree(v[j], want[i][name]) {
				t.Errorf("vector %d: %s is %g, want %s", i, name, v[j], number(want[i][name]))
			}
		}
	}
}

func agree(got float32, want *float64) bool {
	if want == nil {
		return math.IsNaN(float64(got))
	}
	return math.Abs(float64(got)-*want) <= 1e-5*max(1, math.Abs(*want))
}

func number(n *float64) string {
	if n == nil {
		return "unknown"
	}
	return fmt.Sprint(*n)
}

func readJSON(t *testing.T, path string, to any) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(data, to)
	}
	if err != nil {
		t.Fatalf("read %s: %v", path, err)
	}
}

func writeJSON[T any](t *testing.T, path string, list []T) {
	t.Helper()
	var b bytes.Buffer
	for i, item := range list {
		line, err := json.Marshal(item)
		if err != nil {
			t.Fatal(err)
		}
		b.WriteString([]string{",\n", "[\n"}[btoi(i == 0)])
		b.Write(line)
	}
	b.WriteString("\n]\n")
	if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func writeVectors(t *testing.T, path string, vectors []Vector) {
	t.Helper()
	var list []map[string]*float32
	for _, v := range vectors {
		m := map[string]*float32{}
		for j, name := range Names() {
			m[name] = nil
			if x := v[j]; x == x { // a number
				m[name] = &x
			}
		}
		list = append(list, m)
	}
	writeJSON(t, path, list)
}

// TestFeatureTable holds docs/features.md to the definitions.
func TestFeatureTable(t *testing.T) {
	const path = "../../docs/features.md"
	want := featureTable()
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("%s is not what internal/detect defines; run `go generate ./internal/detect`", path)
	}
}

func featureTable() string {
	var b strings.Builder
	fmt.Fprintf(&b, tableHead, len(definitions), SchemaHash())
	for _, f := range definitions {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", f.name, f.meaning, f.span, f.unit)
	}
	return b.String()
}

const tableHead = `# Features

<!-- Generated from internal/detect by go generate; do not edit. -->

Every model sees a target as these %d numbers, ten times a second, in this order. Live engine, replay and training
compute them with the same code from the same windows. Schema hash: ` + "`%s`" + `; a model made for
another list is refused.

- Unknown is NaN, never 0: a share of no packets, a ratio without a baseline. No feature is infinite.
- Spans: 100ms is the tick itself (or the whole window when the engine fell behind); 1s the last ten ticks; 10s the
  second at hand and the nine before it. Rates divide by the part of the span that was observed.
- Histogram features of 1s and 10s come from fading sums: what was there is multiplied by 0.9 each tick (1s) or each
  second (10s).
- Entropies are of the greatest possible for the bins and packets there are. Counts of different values are linear
  counts over hashed bins; they stop at bins × ln(2 × bins): 1597 sources, 710 networks.
- Ratios and deviations compare with the target's baseline: the higher of the level at this hour of the week (else at
  this hour on other days) and the recent one (30 min). It is learnt one calm second at a time, robustly, rises by at
  most 10 %% an hour once known, and stands still while the target is suspicious. It is known after a calm minute; what five calm seconds tell stands in until then.
- Drift compares with the target's packets of the last calm minutes; known after a calm minute.
- New-source shares are of the sampled headers, against the sources of calm ticks of the last 10 to 20 minutes; known
  after a minute and 200 samples.

The first six are those of the prototype's models, by its names.

| feature | meaning | span | unit |
|---|---|---|---|
`
