// SPDX-License-Identifier: Apache-2.0

package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"syscall"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// Client talks to a running engine. What the engine refuses comes back as an
// *Error with its sentence; an engine that cannot be reached as an error that
// wraps ErrNoDaemon. A Client may be used concurrently.
type Client struct {
	socket string
	http   *http.Client
}

// ErrNoDaemon means that nobody answers on the socket, or that the caller may
// not open it.
var ErrNoDaemon = errors.New("no engine answers")

// NewClient returns a client for the engine that listens on a socket. It does
// not connect yet.
func NewClient(socket string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "unix", socket)
	}
	return &Client{socket: socket, http: &http.Client{Transport: &http.Transport{
		DialContext: dial, MaxIdleConns: 2, IdleConnTimeout: 30 * time.Second,
	}}}
}

// Close closes idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Status describes the whole engine.
func (c *Client) Status(ctx context.Context) (Status, error) {
	return get[Status](ctx, c, "/v1/status")
}

// Health says whether everything works as configured.
func (c *Client) Health(ctx context.Context) (Health, error) {
	return get[Health](ctx, c, "/v1/health")
}

// Counters reads the packet path's counters.
func (c *Client) Counters(ctx context.Context) (Counters, error) {
	return get[Counters](ctx, c, "/v1/counters")
}

// Config returns the configuration that is running.
func (c *Client) Config(ctx context.Context) (ConfigText, error) {
	return get[ConfigText](ctx, c, "/v1/config")
}

// Bypass reads the bypass switch.
func (c *Client) Bypass(ctx context.Context) (bool, error) {
	s, err := get[BypassState](ctx, c, "/v1/bypass")
	return s.On, err
}

// SetBypass turns the bypass switch on or off.
func (c *Client) SetBypass(ctx context.Context, on bool) error {
	_, err := send[BypassState](ctx, c, http.MethodPut, "/v1/bypass", BypassState{on})
	return err
}

// Reload makes the engine read its configuration file again.
func (c *Client) Reload(ctx context.Context) (ReloadResult, error) {
	return send[ReloadResult](ctx, c, http.MethodPost, "/v1/reload", nil)
}

// Entries returns the entries of a list, or, if containing is valid, those that
// cover this address.
func (c *Client) Entries(ctx context.Context, list traffic.List, containing netip.Addr) ([]Entry, error) {
	path := listPath(list, "entries")
	if containing.IsValid() {
		path += "?containing=" + url.QueryEscape(containing.String())
	}
	body, err := get[entriesBody](ctx, c, path)
	return body.Entries, err
}

// AddEntries adds entries to a list, at most 10 000 at once. o.Replace is for Import only.
func (c *Client) AddEntries(ctx context.Context, list traffic.List, entries []NewEntry, o AddOptions) (AddResult, error) {
	if o.Replace {
		return AddResult{}, errors.New("entries replace a list by Import only")
	}
	var in addInput
	in.Body.Force, in.Body.Skip = o.Force, o.Skip
	for _, e := range entries {
		b := entryBody{Prefix: e.Prefix.String(), Comment: e.Comment}
		if e.TTL > 0 {
			b.TTL = e.TTL.String()
		}
		in.Body.Entries = append(in.Body.Entries, b)
	}
	return send[AddResult](ctx, c, http.MethodPost, listPath(list, "entries"), in.Body)
}

// Import adds the entries of a list file, at most 64 MiB of it.
func (c *Client) Import(ctx context.Context, list traffic.List, file io.Reader, o AddOptions) (AddResult, error) {
	q := url.Values{}
	for name, set := range map[string]bool{"force": o.Force, "skip": o.Skip, "replace": o.Replace} {
		if set {
			q.Set(name, strconv.FormatBool(set))
		}
	}
	var out AddResult
	err := c.do(ctx, http.MethodPost, listPath(list, "import")+"?"+q.Encode(), "text/plain", file, &out)
	return out, err
}

// DeleteEntries removes exactly these prefixes from a list.
func (c *Client) DeleteEntries(ctx context.Context, list traffic.List, prefixes []netip.Prefix) (DeleteResult, error) {
	var in deleteInput
	for _, p := range prefixes {
		in.Body.Prefixes = append(in.Body.Prefixes, p.String())
	}
	return send[DeleteResult](ctx, c, http.MethodPost, listPath(list, "delete"), in.Body)
}

// FlushEntries removes every entry of a list.
func (c *Client) FlushEntries(ctx context.Context, list traffic.List) (DeleteResult, error) {
	return send[DeleteResult](ctx, c, http.MethodDelete, listPath(list, "entries"), nil)
}

// Events follows the sampled packets until ctx ends, the engine stops, or the
// caller breaks off. An error is the last thing it yields.
func (c *Client) Events(ctx context.Context, f EventFilter) iter.Seq2[EventMessage, error] {
	return follow[EventMessage](ctx, c, "/v1/events?"+f.query().Encode(), "event stream")
}

// follow reads the lines of a stream.
func follow[T any](ctx context.Context, c *Client, path, what string) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		resp, err := c.open(ctx, http.MethodGet, path, "", nil)
		if err != nil {
			yield(*new(T), err)
			return
		}
		defer resp.Body.Close()
		lines := json.NewDecoder(resp.Body)
		for {
			var m T
			err := lines.Decode(&m)
			switch {
			case err == nil:
			case ctx.Err() != nil:
				err = ctx.Err()
			case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
				err = fmt.Errorf("the engine ended the %s; it has stopped", what)
			default:
				err = fmt.Errorf("read the %s: %w", what, err)
			}
			if !yield(m, err) || err != nil {
				return
			}
		}
	}
}

func (f EventFilter) query() url.Values {
	q := url.Values{}
	for _, r := range f.Reasons {
		q.Add("reason", r.String())
	}
	for _, o := range f.Outcomes {
		q.Add("outcome", o.String())
	}
	for _, p := range f.Sources {
		q.Add("source", p.String())
	}
	return q
}

// Signatures returns the rules in the order of their IDs.
func (c *Client) Signatures(ctx context.Context) ([]Signature, error) {
	body, err := get[signaturesBody](ctx, c, "/v1/signatures")
	return body.Signatures, err
}

// AddSignature arms one rule, or changes it if it is armed. A mistake in the
// expression is an *Error with Syntax.
func (c *Client) AddSignature(ctx context.Context, r SignatureRequest) (Signature, error) {
	return send[Signature](ctx, c, http.MethodPost, "/v1/signatures", r)
}

// ImportSignatures arms the rules of a file as WriteSignatures writes it, all or none.
func (c *Client) ImportSignatures(ctx context.Context, file io.Reader, force bool) ([]Signature, error) {
	var out signaturesBody
	err := c.do(ctx, http.MethodPost, "/v1/signatures/import?force="+strconv.FormatBool(force), "text/plain", file, &out)
	return out.Signatures, err
}

// DeleteSignature disarms one rule; an ID that no rule has is an *Error with status 404.
func (c *Client) DeleteSignature(ctx context.Context, id uint64) error {
	_, err := send[SignaturesDeleted](ctx, c, http.MethodDelete, "/v1/signatures/"+strconv.FormatUint(id, 10), nil)
	return err
}

// FlushSignatures disarms every rule and says how many there were.
func (c *Client) FlushSignatures(ctx context.Context) (int, error) {
	r, err := send[SignaturesDeleted](ctx, c, http.MethodDelete, "/v1/signatures", nil)
	return r.Deleted, err
}

// Incidents returns the attacks that were found and pass the filter, the newest first.
func (c *Client) Incidents(ctx context.Context, f IncidentFilter) ([]Incident, error) {
	q := url.Values{"limit": {strconv.Itoa(maxIncidents)}}
	if f.Limit > 0 {
		q.Set("limit", strconv.Itoa(min(f.Limit, maxIncidents)))
	}
	if f.Open {
		q.Set("open", "true")
	}
	if !f.Since.IsZero() {
		q.Set("since", f.Since.Format(time.RFC3339Nano))
	}
	body, err := get[incidentsBody](ctx, c, "/v1/incidents?"+q.Encode())
	return body.Incidents, err
}

// Incident returns one of them; an ID that none has is an *Error with status 404.
func (c *Client) Incident(ctx context.Context, id string) (Incident, error) {
	return get[Incident](ctx, c, "/v1/incidents/"+url.PathEscape(id))
}

// LabelIncident says that an incident was LabelAttack or LabelBenign.
func (c *Client) LabelIncident(ctx context.Context, id, label string) (Incident, error) {
	return send[Incident](ctx, c, http.MethodPost, "/v1/incidents/"+url.PathEscape(id)+"/label", LabelRequest{label})
}

func listPath(list traffic.List, what string) string {
	return "/v1/lists/" + list.String() + "/" + what
}

func get[T any](ctx context.Context, c *Client, path string) (T, error) {
	var out T
	err := c.do(ctx, http.MethodGet, path, "", nil, &out)
	return out, err
}

func send[T any](ctx context.Context, c *Client, method, path string, body any) (T, error) {
	var out T
	if body == nil {
		return out, c.do(ctx, method, path, "", nil, &out)
	}
	data, err := json.Marshal(body)
	if err != nil {
		return out, fmt.Errorf("write the request: %w", err)
	}
	err = c.do(ctx, method, path, "application/json", bytes.NewReader(data), &out)
	return out, err
}

// do sends a request and reads the answer into out.
func (c *Client) do(ctx context.Context, method, path, contentType string, body io.Reader, out any) error {
	resp, err := c.open(ctx, method, path, contentType, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
		return fmt.Errorf("read the answer of the engine: %w", err)
	}
	return nil
}

func (c *Client) open(ctx context.Context, method, path, contentType string, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://sentinel-x"+path, body)
	if err != nil {
		return nil, fmt.Errorf("make the request: %w", err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.explain(ctx, err)
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		return nil, readProblem(resp)
	}
	return resp, nil
}

func (c *Client) explain(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	for _, gone := range []error{fs.ErrNotExist, fs.ErrPermission, syscall.ECONNREFUSED, syscall.ENOTDIR, syscall.ENOTSOCK} {
		if errors.Is(err, gone) {
			return noDaemon{c.socket}
		}
	}
	if urlErr, ok := errors.AsType[*url.Error](err); ok {
		err = urlErr.Err
	}
	return fmt.Errorf("ask the engine on %s: %w", c.socket, err)
}

type noDaemon struct{ socket string }

func (e noDaemon) Error() string {
	return fmt.Sprintf("no sentinel-x answers on %s: is `sentinel-x run` running (and do you have the right to open it)?", e.socket)
}

func (noDaemon) Unwrap() error { return ErrNoDaemon }

func readProblem(resp *http.Response) error {
	var m huma.ErrorModel
	err := json.NewDecoder(io.LimitReader(resp.Body, maxBody)).Decode(&m)
	if err != nil || m.Detail == "" {
		return Errorf(resp.StatusCode, "the engine answered %s", resp.Status)
	}
	e := &Error{Status: resp.StatusCode, Detail: m.Detail}
	for _, d := range m.Errors {
		if d.Location == syntaxLocation {
			e.Syntax = readSyntax(d.Value)
			continue
		}
		line, _ := d.Value.(float64)
		e.Refused = append(e.Refused, Refused{Line: int(line), Prefix: d.Location, Reason: d.Message})
	}
	return e
}
