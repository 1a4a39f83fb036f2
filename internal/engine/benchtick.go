// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sentinel-x/sentinel-x/internal/config"
	"github.com/sentinel-x/sentinel-x/internal/dataplane"
	"github.com/sentinel-x/sentinel-x/internal/detect"
	"github.com/sentinel-x/sentinel-x/internal/model"
	"github.com/sentinel-x/sentinel-x/internal/scene"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// TickSizes size BenchTick.
type TickSizes struct {
	Targets int // watched, all of them active
	Ticks   int // measured in each case
}

// DefaultTickSizes are those of the budget: TickLimit is for 256 targets.
func DefaultTickSizes() TickSizes { return TickSizes{Targets: 256, Ticks: 100} }

// What detection may take.
const (
	TickLimit      = 10 * time.Millisecond // of one core, for a tick of 256 active targets
	InferenceLimit = 10 * time.Microsecond // for one model and one vector
)

// TickCase is what a tick costs under one kind of traffic: the processor time of the thread that does it.
type TickCase struct {
	Name     string  `json:"name"`
	What     string  `json:"what"`
	Packets  int     `json:"packets"` // of each target in a tick
	MedianMS float64 `json:"median_ms"`
	MaxMS    float64 `json:"max_ms"`
	ReadMS   float64 `json:"read_ms"` // of the median: windows from the packet path
}

// InferenceCase is what one model takes to judge one vector.
type InferenceCase struct {
	Model       string  `json:"model"`
	NS          float64 `json:"ns"`
	Allocations float64 `json:"allocations"`
}

// TickReport is what detection costs here.
type TickReport struct {
	BenchHost
	Targets   int             `json:"targets"`
	Ticks     int             `json:"ticks"`
	LimitMS   float64         `json:"limit_ms"` // for 256 targets
	LimitNS   float64         `json:"inference_limit_ns"`
	Cases     []TickCase      `json:"cases"`
	Inference []InferenceCase `json:"inference"`
}

// BenchTick measures what the detector takes in a tick, from reading the windows of the real program to the
// decision, and what each model takes for a vector. Nothing is attached.
func BenchTick(ctx context.Context, sizes TickSizes) (TickReport, error) {
	r := TickReport{
		BenchHost: NewBenchHost(), Targets: sizes.Targets, Ticks: sizes.Ticks,
		LimitMS: TickLimit.Seconds() * 1e3, LimitNS: float64(InferenceLimit),
	}
	for _, c := range []TickCase{
		{Name: "calm", What: "web traffic of 150 packets a second each: no impact, models are not asked", Packets: 15},
		{Name: "busy", What: "web traffic of 400 packets a second each without a baseline: the trees judge every target", Packets: 40},
	} {
		if err := c.measure(ctx, sizes); err != nil {
			return r, fmt.Errorf("measure a tick, %s: %w", c.Name, err)
		}
		r.Cases = append(r.Cases, c)
	}
	var err error
	r.Inference, err = benchInference()
	return r, err
}

// tickBench is the real program with its targets, and a detector without a baseline.
type tickBench struct {
	tester   *dataplane.Tester
	detector *detect.Detector
	targets  int
	frames   [][]byte
	next     int
	at       time.Time
}

func newTickBench(targets int) (*tickBench, error) {
	b := &tickBench{targets: targets, at: time.Unix(1_700_000_000, 0)}
	var err error
	if b.frames, err = webFrames(4096); err != nil {
		return nil, err
	}
	live, err := builtIn()
	if err != nil {
		return nil, err
	}
	cfg := config.Default().Detect
	cfg.MaxTargets = uint32(targets)
	b.detector = detect.New(detect.SettingsOf(cfg), detect.Models{Trees: live.trees})
	if b.tester, err = dataplane.NewTester(dataplane.Options{MaxTargets: targets}); err != nil {
		return nil, err
	}
	watched := make([]netip.Prefix, targets)
	for i := range watched {
		watched[i] = netip.PrefixFrom(benchTarget(i), 32)
	}
	if err := b.tester.SetTargets(watched); err != nil {
		return nil, errors.Join(err, b.tester.Close())
	}
	return b, nil
}

// tick sends each target its packets and returns how long reading the windows took, and all of the tick.
func (b *tickBench) tick(packets int) (read, whole time.Duration, err error) {
	for i := range b.targets * packets {
		f := b.frames[b.next%len(b.frames)]
		b.next++
		to := benchTarget(i % b.targets).As4()
		copy(f[30:], to[:])
		if _, err := b.tester.Run(f, time.Duration(b.at.UnixNano())); err != nil {
			return 0, 0, err
		}
	}
	begin := threadTime()
	windows, err := b.tester.Tick(b.at.Add(traffic.Tick))
	if err != nil {
		return 0, 0, err
	}
	read = threadTime() - begin
	b.detector.Tick(b.at, traffic.Tick, windows)
	b.at = b.at.Add(traffic.Tick)
	return read, threadTime() - begin, nil
}

func (c *TickCase) measure(ctx context.Context, sizes TickSizes) error {
	b, err := newTickBench(sizes.Targets)
	if err != nil {
		return err
	}
	defer b.tester.Close()
	runtime.LockOSThread() // whose time is taken
	defer runtime.UnlockOSThread()
	const warm = 20
	var whole, read []float64
	for n := range warm + sizes.Ticks {
		if err := ctx.Err(); err != nil {
			return err
		}
		r, w, err := b.tick(c.Packets)
		if err != nil {
			return err
		}
		if n >= warm {
			whole, read = append(whole, w.Seconds()*1e3), append(read, r.Seconds()*1e3)
		}
	}
	slices.Sort(whole)
	slices.Sort(read)
	c.MedianMS, c.MaxMS, c.ReadMS = whole[len(whole)/2], whole[len(whole)-1], read[len(read)/2]
	return nil
}

// benchTarget is one of the watched addresses, from 198.51.100.0 on.
func benchTarget(i int) netip.Addr {
	var a [4]byte
	binary.BigEndian.PutUint32(a[:], 0xc6336400+uint32(i))
	return netip.AddrFrom4(a)
}

// webFrames returns IPv4 frames of composed web traffic.
func webFrames(n int) (frames [][]byte, err error) {
	s := scene.Scenario{
		Family: "normal", Profile: "web", Target: benchTarget(0), Length: time.Hour, Baseline: 1000, Seed: 1,
	}
	stream, err := s.Stream()
	if err != nil {
		return nil, err
	}
	for p := range scene.All(stream) {
		if frames = append(frames, slices.Clone(p.Frame)); len(frames) == n {
			break
		}
	}
	return frames, nil
}

// threadTime is the processor time that the calling thread has had.
func threadTime() time.Duration {
	var t unix.Timespec
	if unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t) != nil {
		return 0 // every kernel has it
	}
	return time.Duration(t.Nano())
}

// benchInference asks each model for its score of vectors of composed traffic.
func benchInference() ([]InferenceCase, error) {
	vectors, err := benchVectors()
	if err != nil {
		return nil, err
	}
	live, err := builtIn()
	if err != nil {
		return nil, err
	}
	rows := learnedRows(vectors)
	forest, err := model.TrainForest(rows, model.ForestParams{Seed: 1})
	if err != nil {
		return nil, err
	}
	online, err := model.NewHalfSpace(rows, model.HalfSpaceParams{Seed: 1})
	if err != nil {
		return nil, err
	}
	for _, row := range rows {
		online.Update(row, 1)
	}
	var p detect.Probabilities
	return []InferenceCase{
		inference("trees", func(i int) { live.trees.Classify(vectors[i%len(vectors)], &p) }),
		inference("forest", func(i int) { forest.Score(rows[i%len(rows)]) }),
		inference("online learner", func(i int) { online.Score(rows[i%len(rows)]) }),
	}, nil
}

func inference(name string, score func(i int)) InferenceCase {
	const rounds = 20_000
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	begin := threadTime()
	for i := range rounds {
		score(i)
	}
	spent := threadTime() - begin
	runtime.ReadMemStats(&after)
	return InferenceCase{
		Model: name, NS: float64(spent) / rounds,
		Allocations: float64((after.Mallocs - before.Mallocs) / rounds), // less than one a vector is not the model's
	}
}

// benchVectors are the features of a minute of web traffic.
func benchVectors() (list []detect.Vector, err error) {
	s := scene.Scenario{
		Family: "normal", Profile: "web", Target: benchTarget(0), Length: time.Minute, Baseline: 500, Seed: 2,
	}
	stream, err := s.Stream()
	if err != nil {
		return nil, err
	}
	x := detect.NewExtractor(1)
	for w := range scene.Windows(stream, scene.CounterOptions{Targets: s.Watch()[:1], Start: time.Unix(1_700_000_000, 0), Length: s.Length, Samples: 100}) {
		if !x.Begin(w.Start, w.Length) {
			continue
		}
		v := make(detect.Vector, detect.NumFeatures())
		t := x.Observe(w)
		t.Features(v)
		t.Settle(true)
		list = append(list, v)
	}
	return list, nil
}

// learnedRows picks what a target's own models see.
func learnedRows(vectors []detect.Vector) (rows [][]float32) {
	names := detect.LearnedNames()
	for _, v := range vectors {
		row := make([]float32, len(names))
		for i, name := range names {
			row[i] = v[detect.Index(name)]
		}
		rows = append(rows, row)
	}
	return rows
}
