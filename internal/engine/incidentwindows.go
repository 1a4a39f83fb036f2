// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/sentinel-x/sentinel-x/internal/api"
	"github.com/sentinel-x/sentinel-x/internal/detect"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

const (
	// incidentRows windows of an incident are kept: the first ones all, for there it is
	// decided, and of the rest every so manieth.
	incidentRows      = 64
	incidentFirstRows = 16
	// allIncidentRows of all incidents take 4 MiB; the oldest incident goes first, one
	// without a label before one with.
	allIncidentRows = 4096

	incidentWindowsFile = "incident.windows" // in the state directory
)

// incidentWindows keeps vectors of incidents, so that an operator's label becomes
// something to learn from. Its methods are called concurrently.
type incidentWindows struct {
	path     string // of all
	labelled string // of those with a label: what training reads

	mu    sync.Mutex // guards what follows
	order []*incidentVectors
	rows  int
	dirty bool // the file does not know all

	writing sync.Mutex // held while files are written, never with mu
}

// incidentVectors are those of one incident.
type incidentVectors struct {
	id     string
	target traffic.Target
	kind   traffic.Kind
	label  detect.WindowLabel
	rows   []vectorAt
	seen   int // windows
	stride int // of them for one row, behind the first
}

type vectorAt struct {
	at     time.Time
	vector detect.Vector
}

// openIncidentWindows reads the file. If it cannot be read, that is the error, and
// of the windows of before there are those with a label, if their file can.
func openIncidentWindows(stateDir, modelDir string) (*incidentWindows, error) {
	if modelDir == "" {
		modelDir = stateDir
	}
	s := &incidentWindows{path: filepath.Join(stateDir, incidentWindowsFile), labelled: filepath.Join(modelDir, detect.LabelledFile)}
	list, err := readWindows(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		err = fmt.Errorf("%w: the windows of earlier incidents without a label are lost to training", err)
		list, _ = readWindows(s.labelled)
	}
	for i := range list {
		s.read(&list[i])
	}
	s.bound(nil)
	return s, err
}

func readWindows(path string) ([]detect.LabelledWindow, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open the windows of incidents: %w", err)
	}
	defer file.Close()
	list, err := detect.ReadWindows(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return list, nil
}

// read takes a row of the file.
func (s *incidentWindows) read(w *detect.LabelledWindow) {
	i := s.find(w.Group)
	if i == nil {
		i = &incidentVectors{id: w.Group, target: w.Target, kind: w.Kind, label: w.Label, stride: 1}
		s.order = append(s.order, i)
	}
	if len(i.rows) < incidentRows {
		i.rows = append(i.rows, vectorAt{w.Time, w.Features})
		s.rows++
	}
}

// find returns the vectors of an incident. The caller holds mu.
func (s *incidentWindows) find(id string) *incidentVectors {
	for _, i := range slices.Backward(s.order) { // it is mostly one of the last
		if i.id == id {
			return i
		}
	}
	return nil
}

// see keeps a window of an incident. The detector calls it for each.
func (s *incidentWindows) see(w *detect.Seen) {
	if w.Incident != nil && w.Label == detect.LabelAttack {
		s.add(w.Incident, w.Time, w.Features)
	}
}

func (s *incidentWindows) add(of *traffic.Incident, at time.Time, features func() detect.Vector) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.find(of.ID)
	if i == nil {
		i = &incidentVectors{id: of.ID, target: of.Target, stride: 1}
		s.order = append(s.order, i)
	}
	i.kind = of.Kind
	before := len(i.rows)
	if !i.wants() {
		return
	}
	i.rows = append(i.rows, vectorAt{at, slices.Clone(features())})
	s.rows += len(i.rows) - before
	s.dirty = true
	s.bound(i)
}

// wants counts a window and says whether it is to be kept; there is room for it
// then. When there is none, every second of the later rows goes.
func (i *incidentVectors) wants() bool {
	later := i.seen - incidentFirstRows
	i.seen++
	if later >= 0 && later%i.stride != 0 {
		return false
	}
	if len(i.rows) < incidentRows {
		return true
	}
	kept := i.rows[:incidentFirstRows]
	for k := incidentFirstRows; k < incidentRows; k += 2 {
		kept = append(kept, i.rows[k])
	}
	clear(i.rows[len(kept):])
	i.rows = kept
	i.stride *= 2
	return true // it is a multiple: the row at the old stride that would have been kept is an even one
}

// bound lets incidents go until the rest is not too much, never the one that goes
// on. The caller holds mu.
func (s *incidentWindows) bound(on *incidentVectors) {
	for _, withLabel := range []bool{false, true} {
		s.order = slices.DeleteFunc(s.order, func(i *incidentVectors) bool {
			if s.rows <= allIncidentRows || i == on || !withLabel && i.label != detect.LabelUnknown {
				return false
			}
			s.rows -= len(i.rows)
			return true
		})
	}
}

// label says what an incident was, and writes the files.
func (s *incidentWindows) label(id, label string, kind traffic.Kind) error {
	s.mu.Lock()
	i := s.find(id)
	if i != nil {
		i.label, i.kind, s.dirty = windowLabel(label), kind, true
	}
	s.mu.Unlock()
	if i == nil {
		return nil // of before the windows were kept, or among those that went
	}
	return errors.Join(s.flush(), s.writeLabelled())
}

// windowLabel is an operator's label in the words of windows.
func windowLabel(label string) detect.WindowLabel {
	switch label {
	case api.LabelAttack:
		return detect.LabelAttack
	case api.LabelBenign:
		return detect.LabelBenign
	}
	return detect.LabelUnknown
}

// list returns the rows, the oldest incident first.
func (s *incidentWindows) list(onlyLabelled bool) (list []detect.LabelledWindow) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, i := range s.order {
		if onlyLabelled && i.label == detect.LabelUnknown {
			continue
		}
		w := detect.LabelledWindow{Target: i.target, Label: i.label, Group: i.id, Weight: 1}
		if w.Label == detect.LabelAttack {
			w.Kind = i.kind
		}
		for _, r := range i.rows {
			w.Time, w.Features = r.at, r.vector
			list = append(list, w)
		}
	}
	return list
}

// flush writes the file of all windows if it does not know all.
func (s *incidentWindows) flush() error {
	s.writing.Lock()
	defer s.writing.Unlock()
	s.mu.Lock()
	dirty := s.dirty
	s.dirty = false
	s.mu.Unlock()
	if !dirty {
		return nil
	}
	err := replaceFile(s.path, func(w io.Writer) error { return detect.WriteWindows(w, s.list(false)) })
	if err != nil {
		s.mu.Lock()
		s.dirty = true
		s.mu.Unlock()
		return fmt.Errorf("keep the windows of incidents: %w", err)
	}
	return nil
}

// writeLabelled writes the file that training reads.
func (s *incidentWindows) writeLabelled() error {
	s.writing.Lock()
	defer s.writing.Unlock()
	if err := os.MkdirAll(filepath.Dir(s.labelled), 0o700); err != nil {
		return fmt.Errorf("write labelled windows: %w", err)
	}
	err := replaceFile(s.labelled, func(w io.Writer) error { return detect.WriteWindows(w, s.list(true)) })
	if err != nil {
		return fmt.Errorf("write labelled windows: %w", err)
	}
	return nil
}

// agree gives windows the labels that the incidents have: a crash may have come
// between the two.
func (d *detection) agree() (err error) {
	for _, i := range d.evidence.order {
		known, gone := d.incidents.get(i.id)
		if gone == nil && known.Label != "" && windowLabel(known.Label) != i.label {
			kind, _ := traffic.ParseKind(known.Kind)
			err = errors.Join(err, d.evidence.label(i.id, known.Label, kind))
		}
	}
	return err
}
