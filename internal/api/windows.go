// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"encoding/json"
	"iter"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

const (
	maxWindowReaders = 4    // streams of windows at once
	windowQueue      = 1024 // windows a reader may be behind before it loses some
)

// WindowSchema names the features of every Window of a stream.
type WindowSchema struct {
	Hash     string   `json:"schema_hash" doc:"SHA-256 of the names, each followed by a zero byte"`
	Features []string `json:"features" nullable:"false" doc:"As in docs/features.md, in the order of a vector"`
}

// Window is what one target got in a tick, as the detectors see it.
type Window struct {
	Time     time.Time `json:"time" doc:"When it began"`
	Target   string    `json:"target" doc:"Address, /24 or /48, or interface" example:"192.0.2.10"`
	Label    string    `json:"label" enum:"calm,attack,unknown" doc:"calm: no detector objects, and a baseline says what is normal. attack: the target has an open incident. unknown: suspicious, or no baseline"`
	Baseline bool      `json:"baseline" doc:"It is known what is normal for the target"`
	Incident string    `json:"incident,omitempty" doc:"That is open for the target"`
	Kind     string    `json:"kind,omitempty" doc:"Of the incident"`
	Features []byte    `json:"features,omitempty" doc:"The vector: a float32 in little-endian for each feature, NaN where unknown. Absent if it was not asked for"`
}

// WindowMessage is one line of the stream of windows. The first one holds the schema.
type WindowMessage struct {
	Schema *WindowSchema `json:"schema,omitempty"`
	Window *Window       `json:"window,omitempty"`
	Lost   uint64        `json:"lost,omitempty" doc:"Windows missing since the line before, because this reader was too slow"`
}

// WindowFilter selects windows.
type WindowFilter struct {
	Target netip.Prefix // only hosts and networks within it; invalid: all targets
	All    bool         // with the vectors of windows that are not calm
}

func (f *WindowFilter) match(t traffic.Target) bool {
	if !f.Target.IsValid() {
		return true
	}
	return t.Prefix.IsValid() && f.Target.Bits() <= t.Prefix.Bits() && f.Target.Contains(t.Prefix.Addr())
}

// windowFanOut hands windows to the readers that want them, and never waits for one.
type windowFanOut struct {
	count   atomic.Int32
	mu      sync.Mutex
	readers map[*windowReader]bool
}

type windowReader struct {
	filter  WindowFilter
	windows chan Window
	lost    atomic.Uint64
}

// add returns a new reader, or nil if there are too many.
func (f *windowFanOut) add(filter WindowFilter) *windowReader {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.readers) >= maxWindowReaders {
		return nil
	}
	r := &windowReader{filter: filter, windows: make(chan Window, windowQueue)}
	if f.readers == nil {
		f.readers = map[*windowReader]bool{}
	}
	f.readers[r] = true
	f.count.Add(1)
	return r
}

func (f *windowFanOut) remove(r *windowReader) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.readers, r)
	f.count.Add(-1)
}

func (f *windowFanOut) publish(t traffic.Target, w Window, features func() []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var vector []byte
	for r := range f.readers {
		if !r.filter.match(t) {
			continue
		}
		w.Features = nil
		if r.filter.All || w.Label == LabelCalm {
			if vector == nil {
				vector = features()
			}
			w.Features = vector
		}
		select {
		case r.windows <- w:
		default:
			r.lost.Add(1)
		}
	}
}

// LabelCalm is the label of windows in which nothing happens.
const LabelCalm = "calm"

// WindowReaders returns how many streams of windows are open.
func (s *Server) WindowReaders() int { return int(s.windows.count.Load()) }

// PublishWindow hands a window of a target to every reader that wants it, and asks
// for its vector only then. It never blocks for a reader.
func (s *Server) PublishWindow(t traffic.Target, w Window, features func() []byte) {
	s.windows.publish(t, w, features)
}

type windowsInput struct {
	Target string `query:"target" doc:"Only addresses and networks within this address or prefix"`
	All    bool   `query:"all" doc:"With the vectors of windows that are not calm"`
}

func (s *Server) registerWindows(a huma.API) {
	huma.Register(a, op("windows", http.MethodGet, "/v1/windows", "Follow the windows that the detectors judge",
		describe("One JSON object a line, until the client or the engine ends the stream: first the schema, then of every target with packets one window a second, and those in between that are suspicious or above what is normal. "+
			"With detection switched off it is refused."),
		streams("application/x-ndjson", &WindowMessage{}, a)),
		s.serveWindows)
}

func (s *Server) serveWindows(ctx context.Context, in *windowsInput) (*huma.StreamResponse, error) {
	filter := WindowFilter{All: in.All}
	if in.Target != "" {
		var err error
		if filter.Target, err = ParsePrefix(clip(in.Target)); err != nil {
			return nil, problem(Invalid("target %v", err))
		}
	}
	schema, err := s.backend.WindowSchema(ctx)
	if err != nil {
		return nil, problem(err)
	}
	r := s.windows.add(filter)
	if r == nil {
		return nil, problem(Errorf(http.StatusServiceUnavailable, "%d streams of windows are open already; end one first", maxWindowReaders))
	}
	return &huma.StreamResponse{Body: func(hc huma.Context) {
		defer s.windows.remove(r)
		_, w := humago.Unwrap(hc)
		writeWindows(hc.Context(), w, schema, r)
	}}, nil
}

// writeWindows writes to one reader until it goes away or the server stops.
func writeWindows(ctx context.Context, w http.ResponseWriter, schema WindowSchema, r *windowReader) {
	rc, ok := beginStream(w)
	lines := json.NewEncoder(w)
	if !ok || lines.Encode(WindowMessage{Schema: &schema}) != nil {
		return
	}
	for {
		if len(r.windows) == 0 && rc.Flush() != nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case window := <-r.windows:
			if lines.Encode(WindowMessage{Window: &window, Lost: r.lost.Swap(0)}) != nil {
				return
			}
		}
	}
}

// Windows follows the windows that the detectors judge until ctx ends, the engine
// stops, or the caller stops. The first message holds the schema.
func (c *Client) Windows(ctx context.Context, f WindowFilter) iter.Seq2[WindowMessage, error] {
	q := url.Values{"all": {strconv.FormatBool(f.All)}}
	if f.Target.IsValid() {
		q.Set("target", f.Target.String())
	}
	return follow[WindowMessage](ctx, c, "/v1/windows?"+q.Encode(), "stream of windows")
}
