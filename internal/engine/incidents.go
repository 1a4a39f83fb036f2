// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/sentinel-x/sentinel-x/internal/api"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

const (
	keptIncidents    = 1000     // that have ended
	incidentFileSize = 16 << 20 // bytes at which the file is written anew, without what is out of date
)

// incidents keeps what was found, in memory and as a file of JSON lines: the last
// line of an incident counts. Its methods are called concurrently.
type incidents struct {
	path string

	mu    sync.Mutex
	byID  map[string]*incident
	order []*incident // the oldest first, by when it was detected

	writing sync.Mutex // held while the file is written, never with mu
	size    int64      // of the file
}

// incident is one with what an operator says of it. It is also the form of a line.
type incident struct {
	traffic.Incident
	Label string `json:"label,omitempty"`
	dirty bool   // the file does not know it so
}

// openIncidents reads the file. Lines that cannot be read are left out and are the
// error; the incidents can be used all the same. Those that were open when the file
// was last written ended by now: nobody watched them since.
func openIncidents(path string, now time.Time) (*incidents, error) {
	s := &incidents{path: path, byID: map[string]*incident{}}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return s, fmt.Errorf("read incidents: %w", err)
	}
	s.size = int64(len(data))
	wrong := 0
	for line := range bytes.Lines(data) {
		if !s.read(line) {
			wrong++
		}
	}
	for _, i := range s.order {
		if i.Open() {
			i.Ended, i.dirty = now, true
			i.Notes = append(i.Notes, "the end is not known: the engine was restarted while it went on")
		}
	}
	slices.SortStableFunc(s.order, func(a, b *incident) int { return a.Detected.Compare(b.Detected) })
	s.forget()
	if wrong > 0 {
		s.size = incidentFileSize // the next write is a new file
		return s, fmt.Errorf("read incidents: %s of %s cannot be read and were left out", lines(wrong), path)
	}
	return s, nil
}

func lines(n int) string {
	if n == 1 {
		return "one line"
	}
	return fmt.Sprintf("%d lines", n)
}

func (s *incidents) read(line []byte) bool {
	i := &incident{}
	if json.Unmarshal(line, i) != nil || i.ID == "" || i.Detected.IsZero() {
		return false
	}
	if old := s.byID[i.ID]; old != nil {
		*old = *i
		return true
	}
	s.byID[i.ID] = i
	s.order = append(s.order, i)
	return true
}

// put keeps an incident that is new or has changed, and returns it for the wire.
func (s *incidents) put(t traffic.Incident) api.Incident {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.byID[t.ID]
	if i == nil {
		i = &incident{}
		s.byID[t.ID] = i
		s.order = append(s.order, i)
	}
	i.Incident, i.dirty = t, true
	s.forget()
	return api.IncidentOf(&i.Incident, i.Label)
}

// forget removes the oldest of those that have ended when there are too many. The caller holds mu.
func (s *incidents) forget() {
	ended := 0
	for _, i := range s.order {
		if !i.Open() {
			ended++
		}
	}
	s.order = slices.DeleteFunc(s.order, func(i *incident) bool {
		if i.Open() || ended <= keptIncidents {
			return false
		}
		ended--
		delete(s.byID, i.ID)
		return true
	})
}

func (s *incidents) count() (open, all int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, i := range s.order {
		if i.Open() {
			open++
		}
	}
	return open, len(s.order)
}

// list returns those that pass the filter, the newest first.
func (s *incidents) list(f api.IncidentFilter) []api.Incident {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []api.Incident
	for _, i := range slices.Backward(s.order) {
		if f.Limit > 0 && len(out) == f.Limit {
			break
		}
		if i.Open() || !f.Open && !i.Ended.Before(f.Since) {
			out = append(out, api.IncidentOf(&i.Incident, i.Label))
		}
	}
	return out
}

func (s *incidents) get(id string) (api.Incident, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.byID[id]
	if i == nil {
		return api.Incident{}, api.Errorf(http.StatusNotFound, "there is no incident %s; of those that ended the last %d are kept", id, keptIncidents)
	}
	return api.IncidentOf(&i.Incident, i.Label), nil
}

// label keeps what an operator says; it is in the file when it returns.
func (s *incidents) label(id, label string) (api.Incident, error) {
	if _, err := s.get(id); err != nil {
		return api.Incident{}, err
	}
	s.mu.Lock()
	if i := s.byID[id]; i != nil {
		i.Label, i.dirty = label, true
	}
	s.mu.Unlock()
	if err := s.flush(); err != nil {
		return api.Incident{}, err
	}
	return s.get(id)
}

// flush writes what the file does not know yet.
func (s *incidents) flush() error {
	s.writing.Lock()
	defer s.writing.Unlock()
	anew := s.size >= incidentFileSize
	data, written, err := s.encode(anew)
	if err != nil || len(written) == 0 && !anew {
		return err
	}
	if anew {
		err = writeAtomic(s.path, data)
		s.size = int64(len(data))
	} else {
		err = appendTo(s.path, data)
		s.size += int64(len(data))
	}
	if err == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, i := range written {
		i.dirty = true
	}
	s.size = incidentFileSize // what is there may end in half a line
	return fmt.Errorf("write incidents: %w", err)
}

// encode returns the lines that are to be written, and of which incidents they are.
func (s *incidents) encode(all bool) (data []byte, written []*incident, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b bytes.Buffer
	out := json.NewEncoder(&b)
	for _, i := range s.order {
		if !all && !i.dirty {
			continue
		}
		if err := out.Encode(i); err != nil {
			return nil, nil, fmt.Errorf("write incident %s: %w", i.ID, err)
		}
		i.dirty = false
		written = append(written, i)
	}
	return b.Bytes(), written, nil
}

func appendTo(path string, data []byte) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	return errors.Join(err, file.Sync(), file.Close())
}

// Incidents implements api.Backend.
func (e *Engine) Incidents(_ context.Context, f api.IncidentFilter) ([]api.Incident, error) {
	return e.detect.incidents.list(f), nil
}

// Incident implements api.Backend.
func (e *Engine) Incident(_ context.Context, id string) (api.Incident, error) {
	return e.detect.incidents.get(id)
}

// LabelIncident implements api.Backend.
func (e *Engine) LabelIncident(_ context.Context, id, label string) (api.Incident, error) {
	return e.detect.label(id, label)
}

// label keeps what an operator says of an incident, and puts its windows among those
// that training reads.
func (d *detection) label(id, label string) (api.Incident, error) {
	i, err := d.incidents.label(id, label)
	if err != nil {
		return i, err
	}
	kind, _ := traffic.ParseKind(i.Kind)
	err = d.evidence.label(id, label, kind)
	d.complain("windows of incidents", err)
	if err != nil {
		return i, fmt.Errorf("the label is kept, but not for training: %w", err)
	}
	return i, nil
}
