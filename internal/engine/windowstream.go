// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"encoding/binary"
	"math"

	"github.com/sentinel-x/sentinel-x/internal/api"
	"github.com/sentinel-x/sentinel-x/internal/detect"
)

// WindowSchema implements api.Backend.
func (e *Engine) WindowSchema(context.Context) (api.WindowSchema, error) {
	if e.detect.detector == nil {
		return api.WindowSchema{}, api.Conflict("detection is off, so there are no windows: set detect.enabled")
	}
	return api.WindowSchema{Hash: detect.SchemaHash(), Features: detect.Names()}, nil
}

// streamWindows publishes, for as long as somebody reads them, one window a second of
// each target with packets, and those in between that are suspicious or have an impact.
func (d *detection) streamWindows(s *api.Server) {
	if d.detector == nil {
		return
	}
	d.detector.Observe(func(w *detect.Seen) {
		d.evidence.see(w)
		if s.WindowReaders() == 0 || !noteworthy(w) {
			return
		}
		s.PublishWindow(w.Target, apiWindow(w), func() []byte { return packVector(w.Features()) })
	})
}

// noteworthy reports whether a window is more than one of many that are alike.
func noteworthy(w *detect.Seen) bool {
	return w.Turn || w.Known && (w.Impact || w.Label != detect.LabelCalm)
}

func apiWindow(w *detect.Seen) api.Window {
	out := api.Window{Time: w.Time.UTC(), Target: w.Target.String(), Label: w.Label.String(), Baseline: w.Known}
	if w.Incident != nil {
		out.Incident, out.Kind = w.Incident.ID, w.Incident.Kind.String()
	}
	return out
}

// packVector writes a vector as api.Window has it.
func packVector(v detect.Vector) []byte {
	b := make([]byte, 0, 4*len(v))
	for _, x := range v {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
	}
	return b
}

// unpackVector reads what packVector wrote into v; false: it has another length.
func unpackVector(b []byte, v detect.Vector) bool {
	if len(b) != 4*len(v) {
		return false
	}
	for i := range v {
		v[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
	}
	return true
}
