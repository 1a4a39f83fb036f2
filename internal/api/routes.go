// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// OpenAPI returns the description of the API as indented JSON (OpenAPI 3.1).
func OpenAPI() ([]byte, error) {
	s := NewServer(nil, nil)
	doc := s.register(http.NewServeMux()).OpenAPI()
	out, err := json.MarshalIndent(doc, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write the OpenAPI description: %w", err)
	}
	return append(out, '\n'), nil
}

func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	s.register(mux)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		writeProblem(w, Errorf(http.StatusNotFound, "the API has no %s %s; see GET /openapi.json", r.Method, r.URL.Path))
	})
	return mux
}

func (s *Server) register(mux *http.ServeMux) huma.API {
	config := huma.DefaultConfig("Sentinel-X", "1")
	config.Info.Description = "Control and observation of a running Sentinel-X engine, over its UNIX socket."
	config.Info.License = &huma.License{Name: "Apache-2.0", Identifier: "Apache-2.0"}
	config.DocsPath, config.SchemasPath, config.CreateHooks = "", "", nil
	config.Formats = map[string]huma.Format{"application/json": huma.DefaultJSONFormat, "json": huma.DefaultJSONFormat}
	config.RejectUnknownQueryParameters = true
	config.Transformers = []huma.Transformer{oneSentence}
	a := humago.New(mux, config)
	s.registerLooks(a)
	s.registerLists(a)
	s.registerSignatures(a)
	s.registerIncidents(a)
	s.registerWindows(a)
	s.registerActs(a)
	return a
}

type output[T any] struct{ Body T }

// op describes an operation: what it is called, and what it takes.
func op(id, method, path, summary string, more ...func(*huma.Operation)) huma.Operation {
	o := huma.Operation{
		OperationID: id, Method: method, Path: path, Summary: summary,
		DefaultStatus: http.StatusOK, MaxBodyBytes: maxBody, BodyReadTimeout: bodyTimeout,
	}
	for _, m := range more {
		m(&o)
	}
	return o
}

func describe(text string) func(*huma.Operation) {
	return func(o *huma.Operation) { o.Description = text }
}

// answer turns what a Backend returned into a response.
func answer[T any](v T, err error) (*output[T], error) {
	if err != nil {
		return nil, problem(err)
	}
	return &output[T]{v}, nil
}

func (s *Server) registerLooks(a huma.API) {
	huma.Register(a, op("status", http.MethodGet, "/v1/status", "Describe the whole engine"),
		func(ctx context.Context, _ *struct{}) (*output[Status], error) { return answer(s.status(ctx)) })
	huma.Register(a, op("health", http.MethodGet, "/v1/health", "Say whether everything works as configured"),
		func(ctx context.Context, _ *struct{}) (*output[Health], error) {
			st, err := s.status(ctx)
			return answer(st.Health, err)
		})
	huma.Register(a, op("counters", http.MethodGet, "/v1/counters", "Read the packet path's counters"),
		func(ctx context.Context, _ *struct{}) (*output[Counters], error) {
			return answer(s.backend.Counters(ctx))
		})
	huma.Register(a, op("config", http.MethodGet, "/v1/config", "Show the configuration that is running"),
		func(ctx context.Context, _ *struct{}) (*output[ConfigText], error) {
			return answer(s.backend.Config(ctx))
		})
	huma.Register(a, op("events", http.MethodGet, "/v1/events", "Follow sampled packets with their verdicts",
		describe("One JSON object a line, without an end: an event, an incident that changed, or how many of them this reader lost by being slow. "+
			"Values of one parameter are alternatives, parameters are combined. Incidents come on streams without parameters."),
		streams("application/x-ndjson", &EventMessage{}, a)),
		s.serveEvents)
}

// status reads the backend's status. An empty list is [] on the wire, not null.
func (s *Server) status(ctx context.Context) (Status, error) {
	st, err := s.backend.Status(ctx)
	st.Health.Reasons, st.Warnings = notNil(st.Health.Reasons), notNil(st.Warnings)
	st.Interfaces, st.Memory.Maps = notNil(st.Interfaces), notNil(st.Memory.Maps)
	st.Latency.Buckets = notNil(st.Latency.Buckets)
	return st, err
}

func notNil[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

// streams describes a response body that a handler writes by itself.
func streams(contentType string, line any, a huma.API) func(*huma.Operation) {
	return func(o *huma.Operation) {
		schema := huma.SchemaFromType(a.OpenAPI().Components.Schemas, typeOf(line))
		o.Responses = map[string]*huma.Response{"200": {
			Description: "OK",
			Content:     map[string]*huma.MediaType{contentType: {Schema: schema}},
		}}
	}
}

func (s *Server) registerActs(a huma.API) {
	huma.Register(a, op("get-bypass", http.MethodGet, "/v1/bypass", "Read the bypass switch"),
		func(ctx context.Context, _ *struct{}) (*output[BypassState], error) {
			on, err := s.backend.Bypass(ctx)
			return answer(BypassState{on}, err)
		})
	huma.Register(a, op("set-bypass", http.MethodPut, "/v1/bypass", "Turn the bypass switch on or off",
		describe("While it is on, every packet passes unexamined, with the reason bypass.")),
		func(ctx context.Context, in *struct{ Body BypassState }) (*output[BypassState], error) {
			return answer(in.Body, s.backend.SetBypass(ctx, in.Body.On))
		})
	huma.Register(a, op("reload", http.MethodPost, "/v1/reload", "Read the configuration file again",
		describe("The new configuration is applied whole, or the old one stays and the answer says what is wrong with the new one.")),
		func(ctx context.Context, _ *struct{}) (*output[ReloadResult], error) {
			r, err := s.backend.Reload(ctx)
			r.Changed, r.Restart = notNil(r.Changed), notNil(r.Restart)
			return answer(r, err)
		})
}

type eventsInput struct {
	Reason  []string `query:"reason,explode" doc:"Words of docs/reasons.md"`
	Outcome []string `query:"outcome,explode" doc:"passed, dropped, would_drop"`
	Source  []string `query:"source,explode" doc:"Addresses or prefixes"`
}

func (in *eventsInput) filter() (EventFilter, error) {
	var f EventFilter
	for _, word := range in.Reason {
		r, ok := traffic.ParseReason(word)
		if !ok {
			return f, Invalid("%q is not a reason; docs/reasons.md lists them", clip(word))
		}
		f.Reasons = append(f.Reasons, r)
	}
	for _, word := range in.Outcome {
		o, ok := parseOutcome(word)
		if !ok {
			return f, Invalid("%q is not an outcome; write passed, dropped or would_drop", clip(word))
		}
		f.Outcomes = append(f.Outcomes, o)
	}
	for _, text := range in.Source {
		p, err := ParsePrefix(clip(text))
		if err != nil {
			return f, Invalid("source %v", err)
		}
		f.Sources = append(f.Sources, p)
	}
	return f, nil
}

func parseOutcome(word string) (traffic.Outcome, bool) {
	for o := range traffic.NumOutcomes {
		if o.String() == word {
			return o, true
		}
	}
	return 0, false
}

func (s *Server) serveEvents(_ context.Context, in *eventsInput) (*huma.StreamResponse, error) {
	filter, err := in.filter()
	if err != nil {
		return nil, problem(err)
	}
	r := s.events.add(filter)
	if r == nil {
		return nil, problem(Errorf(http.StatusServiceUnavailable, "%d event streams are open already; end one first", maxReaders))
	}
	return &huma.StreamResponse{Body: func(hc huma.Context) {
		defer s.events.remove(r)
		_, w := humago.Unwrap(hc)
		writeEvents(hc.Context(), w, r)
	}}, nil
}

// beginStream answers that lines of JSON follow; false: the client is gone.
func beginStream(w http.ResponseWriter) (*http.ResponseController, bool) {
	rc := http.NewResponseController(w)
	// A stream has no end, and reading slowly is no error.
	if errors.Join(rc.SetWriteDeadline(time.Time{}), rc.SetReadDeadline(time.Time{})) != nil {
		return nil, false
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.WriteHeader(http.StatusOK)
	return rc, true
}

// writeEvents writes to one reader until it goes away or the server stops. A
// reader that stops reading only blocks this goroutine.
func writeEvents(ctx context.Context, w http.ResponseWriter, r *reader) {
	rc, ok := beginStream(w)
	lines := json.NewEncoder(w)
	for ok {
		if len(r.events) == 0 && len(r.incidents) == 0 && rc.Flush() != nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case e := <-r.events:
			if lines.Encode(EventMessage{Event: &e, Lost: r.lost.Swap(0)}) != nil {
				return
			}
		case i := <-r.incidents:
			if lines.Encode(EventMessage{Incident: &i, Lost: r.lost.Swap(0)}) != nil {
				return
			}
		}
	}
}

// problem turns an error of a Backend into the answer to the client.
func problem(err error) *huma.ErrorModel {
	var e *Error
	if !errors.As(err, &e) {
		e = Errorf(http.StatusInternalServerError, "%v", err)
	}
	m := &huma.ErrorModel{Title: http.StatusText(e.Status), Status: e.Status, Detail: e.Detail}
	for _, r := range e.Refused {
		d := &huma.ErrorDetail{Message: r.Reason, Location: r.Prefix}
		if r.Line > 0 {
			d.Value = r.Line
		}
		m.Errors = append(m.Errors, d)
	}
	if e.Syntax != nil {
		m.Errors = append(m.Errors, &huma.ErrorDetail{Message: e.Detail, Location: syntaxLocation, Value: e.Syntax})
	}
	return m
}

func writeProblem(w http.ResponseWriter, e *Error) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(e.Status)
	// The client went away if this fails.
	_ = json.NewEncoder(w).Encode(problem(e))
}

// oneSentence makes what the framework found wrong into one sentence, and keeps
// it from sending the request's body back.
func oneSentence(_ huma.Context, _ string, v any) (any, error) {
	m, ok := v.(*huma.ErrorModel)
	if !ok || len(m.Errors) == 0 || m.Detail != "validation failed" {
		return v, nil
	}
	var parts []string
	for _, d := range m.Errors {
		d.Value = nil
		d.Message = strings.TrimPrefix(d.Message, "json: ")
		parts = append(parts, strings.TrimPrefix(d.Location+": ", ": ")+d.Message)
	}
	m.Detail = "bad request: " + strings.Join(parts, "; ")
	return m, nil
}

// addressOrNone reads an address that may be missing.
func addressOrNone(text string) (netip.Addr, error) {
	if text == "" {
		return netip.Addr{}, nil
	}
	a, err := netip.ParseAddr(text)
	if err != nil || a.Zone() != "" {
		return netip.Addr{}, Invalid("%q is not an address; write 192.0.2.7 or 2001:db8::7", clip(text))
	}
	return a.Unmap(), nil
}
