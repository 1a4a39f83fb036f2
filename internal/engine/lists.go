// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"runtime/debug"
	"sync"
	"time"

	"github.com/sentinel-x/sentinel-x/internal/api"
	"github.com/sentinel-x/sentinel-x/internal/mitigate"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// Entries implements api.Backend.
func (e *Engine) Entries(_ context.Context, list traffic.List, containing netip.Addr) ([]traffic.Entry, error) {
	if !containing.IsValid() {
		return e.ledger.Entries(list), nil
	}
	entries := []traffic.Entry{}
	for _, m := range e.ledger.Find(containing) {
		if m.List == list {
			entries = append(entries, m.Entry)
		}
	}
	return entries, nil
}

// manyEntries is an import whose garbage is worth a collection.
const manyEntries = 10000

// bulk is held by what has many entries in hand: one after the other they take less memory.
var bulk sync.Mutex

// sparing begins work on many entries, of which most memory is garbage soon: it is
// collected early, and given back once the request is answered. The result ends it.
func sparing() (end func()) {
	bulk.Lock()
	before := debug.SetGCPercent(25)
	return func() {
		debug.SetGCPercent(before)
		bulk.Unlock()
		time.AfterFunc(time.Second, debug.FreeOSMemory)
	}
}

// AddEntries implements api.Backend.
func (e *Engine) AddEntries(_ context.Context, list traffic.List, wanted []api.NewEntry, o api.AddOptions) (api.AddResult, error) {
	if len(wanted) > manyEntries {
		defer sparing()()
	}
	now := time.Now()
	entries := make([]traffic.Entry, 0, len(wanted))
	for _, w := range wanted {
		entry := traffic.Entry{Prefix: w.Prefix, Comment: w.Comment, Origin: mitigate.OriginOperator}
		if w.TTL != 0 {
			entry.Expires = now.Add(w.TTL)
		}
		entries = append(entries, entry)
	}
	r, err := e.ledger.Add(list, entries, mitigate.AddOptions{Force: o.Force, Skip: o.Skip, Replace: o.Replace})
	if err != nil {
		return api.AddResult{}, refusal(err)
	}
	e.log.Info("entries added", "list", list.String(), "added", r.Added, "changed", r.Changed, "removed", r.Removed, "refused", len(r.Refused), "force", o.Force)
	return api.AddResult{Added: r.Added, Changed: r.Changed, Removed: r.Removed, Refused: refusedEntries(r.Refused)}, nil
}

// DeleteEntries implements api.Backend.
func (e *Engine) DeleteEntries(_ context.Context, list traffic.List, prefixes []netip.Prefix) (api.DeleteResult, error) {
	removed, missing, err := e.ledger.Delete(list, prefixes)
	if err != nil {
		return api.DeleteResult{}, refusal(err)
	}
	e.log.Info("entries deleted", "list", list.String(), "deleted", len(removed), "missing", len(missing))
	return api.DeleteResult{Deleted: len(removed), Missing: append([]netip.Prefix{}, missing...)}, nil
}

// FlushEntries implements api.Backend.
func (e *Engine) FlushEntries(_ context.Context, list traffic.List) (api.DeleteResult, error) {
	n, err := e.ledger.Flush(list)
	if err != nil {
		return api.DeleteResult{}, refusal(err)
	}
	e.log.Info("list flushed", "list", list.String(), "deleted", n)
	return api.DeleteResult{Deleted: n, Missing: []netip.Prefix{}}, nil
}

// refusal turns what the ledger will not do into an answer; failures stay failures.
func refusal(err error) error {
	var r *mitigate.RefusedError
	if !errors.As(err, &r) {
		return err
	}
	return &api.Error{Status: http.StatusConflict, Detail: r.Error(), Refused: refusedEntries(r.Refused)}
}

func refusedEntries(refused []mitigate.Refused) []api.Refused {
	all := make([]api.Refused, 0, len(refused))
	for _, r := range refused {
		all = append(all, api.Refused{Prefix: r.Prefix.String(), Reason: r.Reason})
	}
	return all
}
