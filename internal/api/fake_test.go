// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/sentinel-x/sentinel-x/internal/signature"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

var gateway = netip.MustParseAddr("192.0.2.1")

// fakeBackend keeps lists in memory, and refuses to block the gateway.
type fakeBackend struct {
	mu      sync.Mutex
	lists   [traffic.NumLists]map[netip.Prefix]traffic.Entry
	added   []NewEntry // what the last AddEntries got
	options AddOptions
	rules   []Signature
	found   []Incident
	asked   IncidentFilter // what the last Incidents got
	wanted  []NewSignature // what the last AddSignatures got
	bypass  bool
	err     error // what every method returns, if set
}

func newFake() *fakeBackend {
	f := &fakeBackend{}
	for i := range f.lists {
		f.lists[i] = map[netip.Prefix]traffic.Entry{}
	}
	return f
}

func (f *fakeBackend) Status(context.Context) (Status, error) {
	return Status{Version: "v0.0.0-test", Uptime: Duration{time.Minute}, Health: Health{State: HealthOK}}, f.err
}

func (f *fakeBackend) Counters(context.Context) (Counters, error) {
	var c traffic.Counters
	c.Seen = traffic.Count{Packets: 3, Bytes: 300}
	c.Reasons[traffic.ReasonPass][traffic.Passed] = traffic.Count{Packets: 1, Bytes: 100}
	c.Reasons[traffic.ReasonBlocklist][traffic.Dropped] = traffic.Count{Packets: 2, Bytes: 200}
	return CountersOf(&c, time.Unix(1000, 0).UTC()), f.err
}

func (f *fakeBackend) Entries(_ context.Context, list traffic.List, containing netip.Addr) ([]traffic.Entry, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []traffic.Entry
	for p, e := range f.lists[list] {
		if !containing.IsValid() || p.Contains(containing) {
			out = append(out, e)
		}
	}
	slices.SortFunc(out, func(a, b traffic.Entry) int { return a.Prefix.Addr().Compare(b.Prefix.Addr()) })
	return out, f.err
}

func (f *fakeBackend) AddEntries(_ context.Context, list traffic.List, entries []NewEntry, o AddOptions) (AddResult, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.added, f.options = entries, o
	var r AddResult
	var good []NewEntry
	for _, e := range entries {
		if list == traffic.ListBlock && e.Prefix.Contains(gateway) && !o.Force {
			r.Refused = append(r.Refused, Refused{Prefix: e.Prefix.String(), Reason: e.Prefix.String() + " covers the default gateway 192.0.2.1; use --force to block it all the same"})
			continue
		}
		good = append(good, e)
	}
	if f.err != nil || len(r.Refused) > 0 && !o.Skip {
		return r, f.err
	}
	if o.Replace {
		r.Removed = len(f.lists[list])
		clear(f.lists[list])
	}
	for _, e := range good {
		if _, there := f.lists[list][e.Prefix]; there {
			r.Changed++
		} else {
			r.Added++
		}
		entry := traffic.Entry{Prefix: e.Prefix, Comment: e.Comment, Origin: "operator", Forced: o.Force}
		if e.TTL > 0 {
			entry.Expires = time.Unix(0, 0).Add(e.TTL)
		}
		f.lists[list][e.Prefix] = entry
	}
	return r, nil
}

func (f *fakeBackend) DeleteEntries(_ context.Context, list traffic.List, prefixes []netip.Prefix) (DeleteResult, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var r DeleteResult
	for _, p := range prefixes {
		if _, there := f.lists[list][p]; there {
			delete(f.lists[list], p)
			r.Deleted++
		} else {
			r.Missing = append(r.Missing, p)
		}
	}
	return r, f.err
}

func (f *fakeBackend) FlushEntries(_ context.Context, list traffic.List) (DeleteResult, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := DeleteResult{Deleted: len(f.lists[list])}
	clear(f.lists[list])
	return r, f.err
}

func (f *fakeBackend) Signatures(context.Context) ([]Signature, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.rules), f.err
}

func (f *fakeBackend) AddSignatures(_ context.Context, wanted []NewSignature, force bool) ([]Signature, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.wanted = wanted
	var armed []Signature
	for i, w := range wanted {
		if !w.Rule.Target.IsValid() && !force {
			return nil, &Error{Status: 409, Detail: "the rule has no target", Item: i + 1}
		}
		a := signature.Armed{ID: uint64(len(f.rules) + i + 1), Text: w.Text, Rule: w.Rule, Action: w.Action, Rate: w.Rate, Ceiling: w.Ceiling, Origin: "operator", Comment: w.Comment, Created: time.Unix(0, 0)}
		if w.TTL > 0 {
			a.Expires = a.Created.Add(w.TTL)
		}
		s := SignatureOf(a, signature.Stats{Matched: 9, LastSeen: time.Unix(5, 0)})
		s.State = StateArmed
		armed = append(armed, s)
	}
	f.rules = append(f.rules, armed...)
	return armed, f.err
}

func (f *fakeBackend) DeleteSignatures(_ context.Context, ids []uint64) (missing []uint64, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, id := range ids {
		before := len(f.rules)
		f.rules = slices.DeleteFunc(f.rules, func(s Signature) bool { return s.ID == id })
		if len(f.rules) == before {
			missing = append(missing, id)
		}
	}
	return missing, f.err
}

func (f *fakeBackend) FlushSignatures(context.Context) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := len(f.rules)
	f.rules = nil
	return n, f.err
}

func (f *fakeBackend) Incidents(_ context.Context, filter IncidentFilter) ([]Incident, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = filter
	return slices.Clone(f.found), f.err
}

func (f *fakeBackend) Incident(_ context.Context, id string) (Incident, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	i := slices.IndexFunc(f.found, func(i Incident) bool { return i.ID == id })
	if i < 0 {
		return Incident{}, Errorf(404, "there is no incident %s", id)
	}
	return f.found[i], f.err
}

func (f *fakeBackend) LabelIncident(ctx context.Context, id, label string) (Incident, error) {
	i, err := f.Incident(ctx, id)
	i.Label = label
	return i, err
}

func (f *fakeBackend) WindowSchema(context.Context) (WindowSchema, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return WindowSchema{Hash: "h", Features: []string{"a", "b"}}, f.err
}

func (f *fakeBackend) Bypass(context.Context) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.bypass, f.err
}

func (f *fakeBackend) SetBypass(_ context.Context, on bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.bypass = on
	return f.err
}

func (f *fakeBackend) Reload(context.Context) (ReloadResult, error) {
	return ReloadResult{Changed: []string{"limits.per_source.all.packets"}}, f.err
}

func (f *fakeBackend) Config(context.Context) (ConfigText, error) {
	return ConfigText{File: "/etc/sentinel-x.yaml", YAML: "mode: auto\n"}, f.err
}

// start serves a fake backend on a socket of its own, and returns a client.
func start(t *testing.T) (*fakeBackend, *Server, *Client, string) {
	t.Helper()
	f := newFake()
	s := NewServer(f, nil)
	path := filepath.Join(t.TempDir(), "run", "api.sock")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	c := NewClient(path)
	t.Cleanup(func() {
		c.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Errorf("shut down: %v", err)
		}
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return f, s, c, path
}
