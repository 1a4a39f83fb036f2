// SPDX-License-Identifier: Apache-2.0

package model

import (
	"errors"
	"fmt"
	"io"
)

const (
	learnerFormat  = "sentinel-x/learner"
	learnerVersion = 1
	maxLearnerFile = maxForestFile + maxHalfSpaceFile + 1<<20
)

// learnerFile is what is written of a Learner: its models and thresholds. Windows
// held back or kept for training are not: a restart learns them anew.
type learnerFile struct {
	fileHeader
	Forest    *forestFile    `json:"forest"`
	Calm      *calmState     `json:"calm"`
	HalfSpace *halfSpaceFile `json:"half_space"`
	Free      *calmState     `json:"half_space_calm"`
}

// Write writes models and thresholds as ReadLearner reads them.
func (l *Learner) Write(w io.Writer) error {
	file := learnerFile{
		fileHeader: newFileHeader(learnerFormat, learnerVersion, l.p.Schema),
		Calm:       l.calm.state(),
		Free:       l.free.state(),
	}
	if l.forest != nil {
		file.Forest = l.forest.file()
	}
	if l.half != nil {
		file.HalfSpace = l.half.file()
	}
	if err := writeModelFile(w, maxLearnerFile, file); err != nil {
		return fmt.Errorf("write learner: %w", err)
	}
	return nil
}

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
	if file.Calm == nil || file.Free == nil {
		return errors.New("the file is damaged: it has no thresholds")
	}
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
