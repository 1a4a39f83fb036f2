// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// checkingBackend fails the test if it is ever given something malformed.
type checkingBackend struct {
	*fakeBackend
	t *testing.T
}

func (b *checkingBackend) AddEntries(ctx context.Context, l traffic.List, entries []NewEntry, o AddOptions) (AddResult, error) {
	for _, e := range entries {
		b.checkPrefix(e.Prefix)
		if e.TTL < 0 || e.TTL > maxTTL || checkComment(e.Comment) != nil {
			b.t.Errorf("backend was given %+v", e)
		}
	}
	if len(entries) == 0 || l == traffic.ListProtected {
		b.t.Errorf("backend was given %d entries for %s", len(entries), l)
	}
	return b.fakeBackend.AddEntries(ctx, l, entries, o)
}

func (b *checkingBackend) DeleteEntries(ctx context.Context, l traffic.List, prefixes []netip.Prefix) (DeleteResult, error) {
	for _, p := range prefixes {
		b.checkPrefix(p)
	}
	return b.fakeBackend.DeleteEntries(ctx, l, prefixes)
}

func (b *checkingBackend) checkPrefix(p netip.Prefix) {
	if !p.IsValid() || p != p.Masked() || p.Addr().Is4In6() || p.Addr().Zone() != "" {
		b.t.Errorf("backend was given the prefix %v", p)
	}
}

// FuzzRequest sends bytes as the body of each request that has one: nothing may
// make the server fail, and only well-formed values may reach the backend.
func FuzzRequest(f *testing.F) {
	for _, body := range []string{
		`{"entries":[{"prefix":"198.51.100.0/24","ttl":"10m","comment":"x"}],"force":true}`,
		`{"entries":[{"prefix":"::ffff:198.51.100.1"},{"prefix":"fe80::1%eth0"},{"prefix":"0.0.0.0/0","expires":"2999-01-01T00:00:00Z"}],"skip":true}`,
		`{"prefixes":["2001:db8::/32","198.51.100.7"]}`,
		`{"on":true}`, `null`, `[]`, `{"entries":null}`, "",
		"198.51.100.7 ttl=1h # a\n2001:db8::/32 expires=2999-01-01T00:00:00Z\n\xff\xfe ; b\n",
		"198.51.100.7 # " + strings.Repeat("é", 300) + "\n",
	} {
		for i := range fuzzTargets {
			f.Add(i, []byte(body))
		}
	}
	backend := &checkingBackend{}
	s := NewServer(backend, nil)
	f.Fuzz(func(t *testing.T, target int, body []byte) {
		if target < 0 || target >= len(fuzzTargets) {
			return
		}
		backend.fakeBackend, backend.t = newFake(), t
		to := fuzzTargets[target]
		req := httptest.NewRequestWithContext(t.Context(), to.method, to.path, strings.NewReader(string(body)))
		req.Header.Set("Content-Type", to.contentType)
		rec := httptest.NewRecorder()
		s.http.Handler.ServeHTTP(rec, req)
		if rec.Code >= 500 || rec.Code < 200 {
			t.Errorf("%s %s answered %d %s", to.method, to.path, rec.Code, rec.Body)
		}
	})
}

var fuzzTargets = []struct{ method, path, contentType string }{
	{http.MethodPost, "/v1/lists/block/entries", "application/json"},
	{http.MethodPost, "/v1/lists/allow/delete", "application/json"},
	{http.MethodPost, "/v1/lists/block/import?skip=true", "text/plain"},
	{http.MethodPut, "/v1/bypass", "application/json"},
}
