// SPDX-License-Identifier: Apache-2.0

package model

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
)

const (
	learnerFormat  = "sentinel-x/learner"
	learnerVersion = 1
	maxLearnerFile = maxForestFile + maxHalfSpaceFile + 1<<20
)

// learnerFile is what is written of a Learner: its models, thresholds, drift
// detector, and what each source has taught. Windows held back or kept for training
// are not: a restart learns them anew.
type learnerFile struct {
	fileHeader
	Forest    *forestFile    `json:"forest"`
	Calm      *calmState     `json:"calm"`
	HalfSpace *halfSpaceFile `json:"half_space"`
	Free      *calmState     `json:"half_space_calm"`
	Drift     *adwinState    `json:"drift"`
	Sources   []sourceState  `json:"sources"` // by slot
	Forgot    time.Time      `json:"forgot"`
}

// sourceState is the bucket of one slot of sources.
type sourceState struct {
	Slot  int       `json:"slot"`
	Level float64   `json:"level"`
	At    time.Time `json:"at"`
}

// LearnerSnapshot is a Learner at one moment, as it is written. Any goroutine may
// have it, while the Learner goes on.
type LearnerSnapshot struct {
	schema     Schema
	forest     *Forest
	half       *HalfSpace
	calm, free *calmState
	drift      *adwinState
	sources    []sourceState
	forgot     time.Time
}

// Snapshot copies what Write writes: about 250 KiB.
func (l *Learner) Snapshot() *LearnerSnapshot {
	s := &LearnerSnapshot{
		schema: l.p.Schema, forest: l.forest, calm: l.calm.state(), free: l.free.state(),
		drift: l.drift.state(), sources: l.guard.sources(), forgot: l.forgot,
	}
	if l.half != nil {
		half := *l.half
		half.nodes = slices.Clone(half.nodes)
		s.half = &half
	}
	return s
}

// Write writes models and thresholds as ReadLearner reads them.
func (s *LearnerSnapshot) Write(w io.Writer) error {
	file := learnerFile{
		fileHeader: newFileHeader(learnerFormat, learnerVersion, s.schema),
		Calm:       s.calm, Free: s.free, Drift: s.drift, Sources: s.sources, Forgot: s.forgot,
	}
	if s.forest != nil {
		file.Forest = s.forest.file()
	}
	if s.half != nil {
		file.HalfSpace = s.half.file()
	}
	if err := writeModelFile(w, maxLearnerFile, file); err != nil {
		return fmt.Errorf("write learner: %w", err)
	}
	return nil
}

// Write writes models and thresholds as ReadLearner reads them.
func (l *Learner) Write(w io.Writer) error { return l.Snapshot().Write(w) }

// Trained says whether the learner has a model, and so is worth being written.
func (l *Learner) Trained() bool { return l.forest != nil || l.half != nil }

// ReadLearner returns a learner with the parameters p and the models and thresholds
// that Write wrote. Models for other features than p.Schema are refused, with both
// lists.
func ReadLearner(r io.Reader, p LearnerParams) (*Learner, error) {
	l, err := NewLearner(p)
	if err != nil {
		return nil, err
	}
	var file learnerFile
	header := fileHeader{Format: learnerFormat, Version: learnerVersion, Features: l.p.Schema}
	if err := readModelFile(r, maxLearnerFile, header, &file); err != nil {
		return nil, fmt.Errorf("read learner: %w", err)
	}
	if err := l.restore(&file); err != nil {
		return nil, fmt.Errorf("read learner: %w", err)
	}
	return l, nil
}

func (l *Learner) restore(file *learnerFile) (err error) {
	if file.Calm == nil || file.Free == nil || file.Drift == nil {
		return errors.New("the file is damaged: it has no thresholds")
	}
	if err := l.drift.restore(file.Drift); err != nil {
		return fmt.Errorf("drift detector: %w", err)
	}
	if err := l.guard.restore(file.Sources); err != nil {
		return fmt.Errorf("what sources have taught: %w", err)
	}
	l.forgot = file.Forgot
	if err := l.calm.restore(file.Calm); err != nil {
		return fmt.Errorf("threshold of the forest: %w", err)
	}
	if err := l.free.restore(file.Free); err != nil {
		return fmt.Errorf("threshold of the half-space trees: %w", err)
	}
	if f := file.Forest; f != nil {
		if err = f.fileHeader.check(fileHeader{Format: forestFormat, Version: forestVersion, Features: l.p.Schema}); err == nil {
			l.forest, err = f.forest()
		}
		if err != nil {
			return fmt.Errorf("forest: %w", err)
		}
		l.due = false
	}
	if h := file.HalfSpace; h != nil {
		want := fileHeader{Format: halfSpaceFormat, Version: halfSpaceVersion, Features: l.p.Schema}
		if err = h.fileHeader.check(want); err == nil {
			l.half, err = h.halfSpace()
		}
		if err != nil {
			return fmt.Errorf("half-space trees: %w", err)
		}
	}
	return nil
}
