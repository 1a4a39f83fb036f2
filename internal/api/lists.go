// SPDX-License-Identifier: Apache-2.0

package api

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"reflect"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// maxReported is how many refused entries an error names.
const maxReported = 100

// entryBody is a new entry on the wire.
type entryBody struct {
	Prefix  string     `json:"prefix" example:"192.0.2.0/24" maxLength:"100" doc:"Host or CIDR prefix"`
	TTL     string     `json:"ttl,omitempty" example:"10m" maxLength:"40" doc:"Time until it expires, as 30s, 10m, 1h30m or 7d; absent: never"`
	Expires *time.Time `json:"expires,omitempty" doc:"When it expires, instead of ttl"`
	Comment string     `json:"comment,omitempty" maxLength:"200" doc:"One line"`
}

func (b entryBody) parse(now time.Time) (NewEntry, error) {
	prefix, err := ParsePrefix(b.Prefix)
	if err != nil {
		return NewEntry{}, err
	}
	return newEntry(prefix, b.TTL, b.Expires, b.Comment, now)
}

func newEntry(prefix netip.Prefix, ttl string, expires *time.Time, comment string, now time.Time) (NewEntry, error) {
	left, err := timeLeft(ttl, expires, now)
	if err != nil {
		return NewEntry{}, err
	}
	return NewEntry{Prefix: prefix, TTL: left, Comment: comment}, checkComment(comment)
}

// timeLeft reads how long something is to last, from one of two forms; 0: for ever.
func timeLeft(ttl string, expires *time.Time, now time.Time) (time.Duration, error) {
	switch {
	case ttl != "" && expires != nil:
		return 0, errors.New("both ttl and expires are given; give one")
	case ttl != "":
		return ParseTTL(ttl)
	case expires != nil:
		return untilExpiry(*expires, now)
	}
	return 0, nil
}

func untilExpiry(t, now time.Time) (time.Duration, error) {
	d := t.Sub(now)
	if d <= 0 {
		return 0, fmt.Errorf("it expired at %s", t.UTC().Format(time.RFC3339))
	}
	if d > maxTTL {
		return 0, errors.New("it expires in more than ten years; leave expires out for an entry that stays")
	}
	return d, nil
}

type listInput struct {
	List string `path:"list" enum:"block,allow,protected"`
}

// readable returns the list of the path; writable refuses the protected set.
func readable(word string) (traffic.List, error) {
	l, ok := traffic.ParseList(word)
	if !ok {
		return 0, Invalid("%q is not a list; write block, allow or protected", clip(word))
	}
	return l, nil
}

func writable(word string) (traffic.List, error) {
	l, err := readable(word)
	if l == traffic.ListProtected {
		return 0, Invalid("the protected set follows from the host and from protect.addresses in the configuration; change it there and reload")
	}
	return l, err
}

type entriesInput struct {
	List       string `path:"list" enum:"block,allow,protected"`
	Containing string `query:"containing" doc:"Only the entries that cover this address"`
}

type addInput struct {
	List string `path:"list" enum:"block,allow,protected"`
	Body struct {
		Entries []entryBody `json:"entries" minItems:"1" maxItems:"10000" nullable:"false"`
		Force   bool        `json:"force,omitempty" doc:"Block also what covers a protected address"`
		Skip    bool        `json:"skip,omitempty" doc:"Leave out entries that are refused instead of refusing all"`
	}
}

type importInput struct {
	List    string `path:"list" enum:"block,allow,protected"`
	Force   bool   `query:"force" doc:"Block also what covers a protected address"`
	Skip    bool   `query:"skip" doc:"Leave out lines that are refused instead of refusing all"`
	Replace bool   `query:"replace" doc:"Put these in the place of what operators added before"`
	RawBody []byte
}

type deleteInput struct {
	List string `path:"list" enum:"block,allow,protected"`
	Body struct {
		Prefixes []string `json:"prefixes" minItems:"1" maxItems:"10000" nullable:"false" doc:"Hosts or prefixes, exactly as they are on the list"`
	}
}

type entriesBody struct {
	List    string  `json:"list" enum:"block,allow,protected"`
	Entries []Entry `json:"entries" nullable:"false"`
}

func (s *Server) registerLists(a huma.API) {
	huma.Register(a, op("entries", http.MethodGet, "/v1/lists/{list}/entries", "List the entries of a list",
		streams("application/json", &entriesBody{}, a)), s.serveEntries)
	huma.Register(a, op("add", http.MethodPost, "/v1/lists/{list}/entries", "Add entries to a list, or change them",
		describe("Refused entries make the whole request fail with status 409 or 422, unless skip is set.")), s.addEntries)
	huma.Register(a, op("import", http.MethodPost, "/v1/lists/{list}/import", "Add the entries of a list file",
		describe("The body is text: one host or prefix a line, then as wanted ttl=DURATION or expires=TIME, then as wanted # and a comment."),
		importBody), s.importEntries)
	huma.Register(a, op("delete", http.MethodPost, "/v1/lists/{list}/delete", "Remove entries from a list"), s.deleteEntries)
	huma.Register(a, op("flush", http.MethodDelete, "/v1/lists/{list}/entries", "Remove every entry of a list"),
		func(ctx context.Context, in *listInput) (*output[DeleteResult], error) {
			list, err := writable(in.List)
			if err != nil {
				return nil, problem(err)
			}
			result, err := s.backend.FlushEntries(ctx, list)
			result.Missing = notNil(result.Missing)
			return answer(result, err)
		})
}

func importBody(o *huma.Operation) {
	o.MaxBodyBytes, o.BodyReadTimeout = maxImport, importTimeout
	o.RequestBody = &huma.RequestBody{
		Required: true,
		Content:  map[string]*huma.MediaType{"text/plain": {Schema: &huma.Schema{Type: huma.TypeString}}},
	}
}

func typeOf(v any) reflect.Type { return reflect.TypeOf(v).Elem() }

// serveEntries writes the list entry by entry: a million of them are never in
// memory as JSON.
func (s *Server) serveEntries(ctx context.Context, in *entriesInput) (*huma.StreamResponse, error) {
	list, err := readable(in.List)
	if err != nil {
		return nil, problem(err)
	}
	containing, err := addressOrNone(in.Containing)
	if err != nil {
		return nil, problem(err)
	}
	entries, err := s.backend.Entries(ctx, list, containing)
	if err != nil {
		return nil, problem(err)
	}
	return &huma.StreamResponse{Body: func(hc huma.Context) {
		_, w := humago.Unwrap(hc)
		w.Header().Set("Content-Type", "application/json")
		writeEntries(w, list, entries)
	}}, nil
}

// writeEntries ignores errors: they mean that the client went away, or that it
// gets a body that does not end.
func writeEntries(w http.ResponseWriter, list traffic.List, entries []traffic.Entry) {
	out := bufio.NewWriterSize(w, 32<<10)
	fmt.Fprintf(out, `{"list":%q,"entries":[`, list)
	for i, e := range entries {
		line, err := json.Marshal(EntryOf(e))
		if err != nil {
			return
		}
		if i > 0 {
			line = append([]byte{','}, line...)
		}
		if _, err := out.Write(line); err != nil {
			return
		}
	}
	out.WriteString("]}\n")
	_ = out.Flush()
}

func (s *Server) addEntries(ctx context.Context, in *addInput) (*output[AddResult], error) {
	list, err := writable(in.List)
	if err != nil {
		return nil, problem(err)
	}
	now := s.now()
	var good newEntries
	var bad []Refused
	for _, b := range in.Body.Entries {
		e, err := b.parse(now)
		if err != nil {
			bad = append(bad, Refused{Prefix: b.Prefix, Reason: err.Error()})
			continue
		}
		good.entries = append(good.entries, e)
	}
	return s.add(ctx, list, good, bad, AddOptions{Force: in.Body.Force, Skip: in.Body.Skip})
}

func (s *Server) importEntries(ctx context.Context, in *importInput) (*output[AddResult], error) {
	list, err := writable(in.List)
	if err != nil {
		return nil, problem(err)
	}
	good, bad := parseList(in.RawBody, s.now())
	if len(good.entries)+len(bad) == 0 {
		return nil, problem(Invalid("the file has no entries, so nothing was changed; flush empties a list"))
	}
	return s.add(ctx, list, good, bad, AddOptions{Force: in.Force, Skip: in.Skip, Replace: in.Replace})
}

// add gives the good entries to the backend, unless bad ones forbid it.
func (s *Server) add(ctx context.Context, list traffic.List, good newEntries, bad []Refused, o AddOptions) (*output[AddResult], error) {
	if len(bad) > 0 && !o.Skip {
		return nil, problem(refusal(http.StatusUnprocessableEntity, bad))
	}
	if len(good.entries) == 0 { // also with Replace: a broken file must not empty the list
		return &output[AddResult]{AddResult{Refused: bad}}, nil
	}
	result, err := s.backend.AddEntries(ctx, list, good.entries, o)
	if e, ok := errors.AsType[*Error](err); ok && len(e.Refused) > 0 {
		good.addLines(e.Refused)
		return nil, problem(&Error{Status: e.Status, Detail: atLine(e.Refused[0].Line) + e.Detail, Refused: e.Refused[:min(len(e.Refused), maxReported)]})
	}
	if err != nil {
		return nil, problem(err)
	}
	good.addLines(result.Refused)
	if len(result.Refused) > 0 && !o.Skip {
		return nil, problem(refusal(http.StatusConflict, result.Refused))
	}
	result.Refused = notNil(append(bad, result.Refused...))
	return &output[AddResult]{result}, nil
}

// addLines says on which line of the imported file each refused entry stands.
func (n newEntries) addLines(refused []Refused) {
	if len(refused) == 0 || len(n.lines) == 0 {
		return
	}
	lines := make(map[string]int, len(n.entries))
	for i, e := range n.entries {
		lines[e.Prefix.String()] = n.lines[i]
	}
	for i := range refused {
		refused[i].Line = lines[refused[i].Prefix]
	}
}

func refusal(status int, refused []Refused) *Error {
	e := &Error{Status: status, Detail: atLine(refused[0].Line) + refused[0].Reason, Refused: refused}
	if n := len(refused) - 1; n > 0 {
		e.Detail += fmt.Sprintf(" (and %d more refused; nothing was added)", n)
	}
	e.Refused = e.Refused[:min(len(refused), maxReported)]
	return e
}

func atLine(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("line %d: ", n)
}

func (s *Server) deleteEntries(ctx context.Context, in *deleteInput) (*output[DeleteResult], error) {
	list, err := writable(in.List)
	if err != nil {
		return nil, problem(err)
	}
	prefixes := make([]netip.Prefix, 0, len(in.Body.Prefixes))
	for _, text := range in.Body.Prefixes {
		p, err := ParsePrefix(clip(text))
		if err != nil {
			return nil, problem(Invalid("%v", err))
		}
		prefixes = append(prefixes, p)
	}
	result, err := s.backend.DeleteEntries(ctx, list, prefixes)
	result.Missing = notNil(result.Missing)
	return answer(result, err)
}
