// SPDX-License-Identifier: Apache-2.0

package api

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

var update = flag.Bool("update", false, "write docs/openapi.json anew")

func TestOpenAPIIsCurrent(t *testing.T) {
	const file = "../../docs/openapi.json"
	got, err := OpenAPI()
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("docs/openapi.json is not current; run `go generate ./internal/api`\n%s", diff)
	}
}

func TestLooks(t *testing.T) {
	_, _, c, _ := start(t)
	ctx := t.Context()
	st, err := c.Status(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if st.Version != "v0.0.0-test" || st.Uptime != (Duration{time.Minute}) || st.Warnings == nil || st.Interfaces == nil {
		t.Errorf("status = %+v", st)
	}
	h, err := c.Health(ctx)
	if err != nil || h.State != HealthOK || h.Reasons == nil {
		t.Errorf("health = %+v, %v", h, err)
	}
	counters, err := c.Counters(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if counters.Dropped.Packets != 2 || counters.Reasons["blocklist"].Dropped.Bytes != 200 || len(counters.Reasons) != int(traffic.NumReasons) {
		t.Errorf("counters = %+v", counters)
	}
	text, err := c.Config(ctx)
	if err != nil || text.YAML != "mode: auto\n" {
		t.Errorf("config = %+v, %v", text, err)
	}
	r, err := c.Reload(ctx)
	if diff := cmp.Diff(ReloadResult{Changed: []string{"limits.per_source.all.packets"}, Restart: []string{}}, r); diff != "" || err != nil {
		t.Errorf("reload: %v\n%s", err, diff)
	}
}

func TestBypass(t *testing.T) {
	_, _, c, _ := start(t)
	for _, on := range []bool{true, false} {
		if err := c.SetBypass(t.Context(), on); err != nil {
			t.Fatal(err)
		}
		if got, err := c.Bypass(t.Context()); got != on || err != nil {
			t.Errorf("bypass = %v, %v after it was set to %v", got, err, on)
		}
	}
}

func TestListsFromAddToFlush(t *testing.T) {
	_, _, c, _ := start(t)
	ctx := t.Context()
	want := []NewEntry{
		{Prefix: netip.MustParsePrefix("198.51.100.7/32"), TTL: 10 * time.Minute, Comment: "scanner"},
		{Prefix: netip.MustParsePrefix("203.0.113.0/24")},
	}
	r, err := c.AddEntries(ctx, traffic.ListBlock, want, AddOptions{})
	if err != nil || r.Added != 2 || r.Changed != 0 {
		t.Fatalf("add = %+v, %v", r, err)
	}
	if r, err = c.AddEntries(ctx, traffic.ListBlock, want[:1], AddOptions{}); err != nil || r.Changed != 1 {
		t.Errorf("add again = %+v, %v", r, err)
	}
	expires := time.Unix(600, 0).UTC()
	all := []Entry{
		{Prefix: want[0].Prefix, Expires: &expires, Origin: "operator", Comment: "scanner"},
		{Prefix: want[1].Prefix, Origin: "operator"},
	}
	samePrefix := cmpopts.EquateComparable(netip.Prefix{})
	got, err := c.Entries(ctx, traffic.ListBlock, netip.Addr{})
	if diff := cmp.Diff(all, got, samePrefix); diff != "" || err != nil {
		t.Errorf("entries: %v\n%s", err, diff)
	}
	got, err = c.Entries(ctx, traffic.ListBlock, netip.MustParseAddr("203.0.113.9"))
	if diff := cmp.Diff(all[1:], got, samePrefix); diff != "" || err != nil {
		t.Errorf("entries that contain an address: %v\n%s", err, diff)
	}
	absent := netip.MustParsePrefix("198.51.100.8/32")
	del, err := c.DeleteEntries(ctx, traffic.ListBlock, []netip.Prefix{want[0].Prefix, absent})
	if diff := cmp.Diff(DeleteResult{Deleted: 1, Missing: []netip.Prefix{absent}}, del, samePrefix); diff != "" || err != nil {
		t.Errorf("delete: %v\n%s", err, diff)
	}
	if del, err = c.FlushEntries(ctx, traffic.ListBlock); err != nil || del.Deleted != 1 {
		t.Errorf("flush = %+v, %v", del, err)
	}
	if got, err = c.Entries(ctx, traffic.ListBlock, netip.Addr{}); err != nil || len(got) != 0 {
		t.Errorf("entries after flush = %v, %v", got, err)
	}
}

func TestImport(t *testing.T) {
	file := "# a list\n198.51.100.7 ttl=1h # one host\n\n203.0.113.0/24 ; SBL1\n2001:db8::/32\n"
	f, _, c, _ := start(t)
	if _, err := c.Import(t.Context(), traffic.ListBlock, strings.NewReader("198.51.100.99\n"), AddOptions{}); err != nil {
		t.Fatal(err)
	}
	r, err := c.Import(t.Context(), traffic.ListBlock, strings.NewReader(file), AddOptions{Replace: true})
	if err != nil || r.Added != 3 || r.Removed != 1 {
		t.Errorf("import = %+v, %v", r, err)
	}
	want := []NewEntry{
		{Prefix: netip.MustParsePrefix("198.51.100.7/32"), TTL: time.Hour, Comment: "one host"},
		{Prefix: netip.MustParsePrefix("203.0.113.0/24"), Comment: "SBL1"},
		{Prefix: netip.MustParsePrefix("2001:db8::/32")},
	}
	if diff := cmp.Diff(want, f.added, cmpopts.EquateComparable(netip.Prefix{})); diff != "" {
		t.Error(diff)
	}
}

func TestExportImportsAgain(t *testing.T) {
	expires := time.Now().Add(time.Hour).Truncate(time.Second)
	entries := []Entry{
		{Prefix: netip.MustParsePrefix("198.51.100.7/32"), Expires: &expires, Comment: "one host"},
		{Prefix: netip.MustParsePrefix("2001:db8::/32")},
	}
	var file bytes.Buffer
	if err := WriteList(&file, entries); err != nil {
		t.Fatal(err)
	}
	good, refused := parseList(file.Bytes(), expires.Add(-time.Hour))
	got := good.entries
	if len(refused) != 0 || len(got) != 2 {
		t.Fatalf("parsed %v, refused %v from %q", got, refused, file.String())
	}
	for i, want := range []NewEntry{
		{Prefix: entries[0].Prefix, TTL: time.Hour, Comment: "one host"}, {Prefix: entries[1].Prefix},
	} {
		if got[i] != want {
			t.Errorf("entry %d = %+v, want %+v", i, got[i], want)
		}
	}
}

func TestImportRefusesAllOrSkips(t *testing.T) {
	file := "198.51.100.7\nnot-an-address\n198.51.100.9/24\n192.0.2.0/24\n"
	f, _, c, _ := start(t)
	_, err := c.Import(t.Context(), traffic.ListBlock, strings.NewReader(file), AddOptions{})
	var refusal *Error
	if !errors.As(err, &refusal) || refusal.Status != http.StatusUnprocessableEntity {
		t.Fatalf("import = %v", err)
	}
	if !strings.HasPrefix(err.Error(), `line 2: "not-an-address" is not an address`) || !strings.Contains(err.Error(), "and 1 more refused") {
		t.Errorf("error = %q", err)
	}
	if len(refusal.Refused) != 2 || refusal.Refused[1].Line != 3 || !strings.Contains(refusal.Refused[1].Reason, "198.51.100.0/24, or 198.51.100.9") {
		t.Errorf("refused = %+v", refusal.Refused)
	}
	if f.added != nil {
		t.Errorf("the backend was given %v although lines are bad", f.added)
	}
	r, err := c.Import(t.Context(), traffic.ListBlock, strings.NewReader(file), AddOptions{Skip: true})
	if err != nil || r.Added != 1 || len(r.Refused) != 3 || r.Refused[2].Line != 4 {
		t.Errorf("import with skip = %+v, %v", r, err)
	}
	if _, err = c.Import(t.Context(), traffic.ListBlock, strings.NewReader("<html>\n"), AddOptions{Skip: true, Replace: true}); err != nil {
		t.Error(err)
	}
	if got, _ := c.Entries(t.Context(), traffic.ListBlock, netip.Addr{}); len(got) != 1 {
		t.Errorf("a file with nothing readable left %v on the list", got)
	}
	if _, err = c.Import(t.Context(), traffic.ListBlock, strings.NewReader("# nothing\n"), AddOptions{Replace: true}); err == nil {
		t.Error("an empty file replaced the list")
	}
}

func TestGuardRefusal(t *testing.T) {
	f, _, c, _ := start(t)
	entries := []NewEntry{{Prefix: netip.MustParsePrefix("192.0.2.0/24")}, {Prefix: netip.MustParsePrefix("198.51.100.0/24")}}
	_, err := c.AddEntries(t.Context(), traffic.ListBlock, entries, AddOptions{})
	var refusal *Error
	if !errors.As(err, &refusal) || refusal.Status != http.StatusConflict {
		t.Fatalf("add = %v", err)
	}
	want := "192.0.2.0/24 covers the default gateway 192.0.2.1; use --force to block it all the same"
	if err.Error() != want || len(refusal.Refused) != 1 || refusal.Refused[0].Prefix != "192.0.2.0/24" {
		t.Errorf("error = %q, refused = %+v", err, refusal.Refused)
	}
	if len(f.lists[traffic.ListBlock]) != 0 {
		t.Error("something was added although the request was refused")
	}
	r, err := c.AddEntries(t.Context(), traffic.ListBlock, entries, AddOptions{Force: true})
	if err != nil || r.Added != 2 || !f.options.Force {
		t.Errorf("add with force = %+v, %v", r, err)
	}
}

func TestProtectedSetIsReadOnly(t *testing.T) {
	_, _, c, _ := start(t)
	p := netip.MustParsePrefix("198.51.100.0/24")
	if _, err := c.Entries(t.Context(), traffic.ListProtected, netip.Addr{}); err != nil {
		t.Errorf("list: %v", err)
	}
	_, add := c.AddEntries(t.Context(), traffic.ListProtected, []NewEntry{{Prefix: p}}, AddOptions{})
	_, imp := c.Import(t.Context(), traffic.ListProtected, strings.NewReader("198.51.100.0/24"), AddOptions{})
	_, del := c.DeleteEntries(t.Context(), traffic.ListProtected, []netip.Prefix{p})
	_, flush := c.FlushEntries(t.Context(), traffic.ListProtected)
	for name, err := range map[string]error{"add": add, "import": imp, "delete": del, "flush": flush} {
		if err == nil || !strings.Contains(err.Error(), "protect.addresses") {
			t.Errorf("%s = %v", name, err)
		}
	}
}

func TestBackendErrors(t *testing.T) {
	f, _, c, _ := start(t)
	f.err = errors.New("read map totals: bad file descriptor")
	_, err := c.Status(t.Context())
	var e *Error
	if !errors.As(err, &e) || e.Status != 500 || e.Detail != f.err.Error() {
		t.Errorf("status = %#v", err)
	}
	f.err = &Error{Status: 409, Detail: "refused", Refused: []Refused{{Prefix: "198.51.100.9/32", Reason: "because"}}}
	_, err = c.Import(t.Context(), traffic.ListBlock, strings.NewReader("198.51.100.8\n\n198.51.100.9\n"), AddOptions{})
	if !errors.As(err, &e) || e.Detail != "line 3: refused" || len(e.Refused) != 1 || e.Refused[0].Line != 3 {
		t.Errorf("import = %#v", err)
	}
	f.err = Conflict("the block list is full")
	_, err = c.AddEntries(t.Context(), traffic.ListBlock, []NewEntry{{Prefix: netip.MustParsePrefix("198.51.100.0/24")}}, AddOptions{})
	if !errors.As(err, &e) || e.Status != 409 || e.Detail != "the block list is full" {
		t.Errorf("add = %#v", err)
	}
	if _, err = c.Reload(t.Context()); err == nil || err.Error() != "the block list is full" {
		t.Errorf("reload = %v", err)
	}
}

// raw sends a request as a stranger would and returns status and body.
func raw(t *testing.T, socket, method, path, contentType string, body io.Reader) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://x"+path, body)
	if err != nil {
		t.Fatal(err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	c := NewClient(socket)
	defer c.Close()
	resp, err := c.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode >= 400 && resp.Header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("%s %s: content type %q", method, path, resp.Header.Get("Content-Type"))
	}
	return resp.StatusCode, string(text)
}

func TestBadRequests(t *testing.T) {
	const entries, js = "/v1/lists/block/entries", "application/json"
	one := func(entry string) string { return `{"entries":[` + entry + `]}` }
	for _, tc := range []struct {
		name, method, path, contentType, body string
		status                                int
		says                                  string
	}{
		{"unknown path", "GET", "/v1/nothing", "", "", 404, "the API has no GET /v1/nothing"},
		{"wrong method", "DELETE", "/v1/status", "", "", 404, "the API has no DELETE /v1/status"},
		{"unknown field", "POST", entries, js, `{"entries":[{"prefix":"198.51.100.1"}],"forec":true}`, 422, "unexpected property"},
		{"unknown field of an entry", "POST", entries, js, one(`{"prefix":"198.51.100.1","tll":"1h"}`), 422, "unexpected property"},
		{"unknown query parameter", "GET", entries + "?containign=198.51.100.1", "", "", 422, "unknown query parameter"},
		{"not JSON", "POST", entries, js, `{"entries":[`, 400, "unexpected end"},
		{"more behind the JSON", "POST", entries, js, one(`{"prefix":"198.51.100.1"}`) + "{}", 400, "after top-level value"},
		{"no body", "POST", entries, js, "", 400, "body is required"},
		{"wrong type", "PUT", "/v1/bypass", js, `{"on":"yes"}`, 422, "boolean"},
		{"wrong content type", "POST", entries, "text/xml", "<x/>", 415, ""},
		{"no entries", "POST", entries, js, `{"entries":[]}`, 422, "length >= 1"},
		{"null entries", "POST", entries, js, `{"entries":null}`, 422, "array"},
		{"unknown list", "GET", "/v1/lists/grey/entries", "", "", 422, "expected value to be one of"},
		{"no address", "GET", entries + "?containing=x", "", "", 422, "is not an address"},
		{"bad prefix", "POST", entries, js, one(`{"prefix":"198.51.100.256"}`), 422, "is not an address or CIDR prefix"},
		{"prefix too long", "POST", entries, js, one(`{"prefix":"198.51.100.0/33"}`), 422, "is not an address or CIDR prefix"},
		{"host bits", "POST", entries, js, one(`{"prefix":"198.51.100.1/24"}`), 422, "198.51.100.0/24, or 198.51.100.1 for the one"},
		{"IPv4-mapped address", "POST", entries, js, one(`{"prefix":"::ffff:198.51.100.1"}`), 422, "write 198.51.100.1"},
		{"IPv4-mapped prefix", "POST", entries, js, one(`{"prefix":"::ffff:198.51.100.0/120"}`), 422, "write 198.51.100.0/24"},
		{"zone", "POST", entries, js, one(`{"prefix":"fe80::1%eth0"}`), 422, "write fe80::1"},
		{"ttl that is over", "POST", entries, js, one(`{"prefix":"198.51.100.1","ttl":"-1s"}`), 422, "is over already"},
		{"ttl that is none", "POST", entries, js, one(`{"prefix":"198.51.100.1","ttl":"soon"}`), 422, "is not a duration"},
		{"ttl of a century", "POST", entries, js, one(`{"prefix":"198.51.100.1","ttl":"36500d"}`), 422, "more than ten years"},
		{"expired", "POST", entries, js, one(`{"prefix":"198.51.100.1","expires":"2020-01-01T00:00:00Z"}`), 422, "expired at 2020-01-01"},
		{"ttl and expires", "POST", entries, js, one(`{"prefix":"198.51.100.1","ttl":"1h","expires":"2999-01-01T00:00:00Z"}`), 422, "give one"},
		{"comment of two lines", "POST", entries, js, one(`{"prefix":"198.51.100.1","comment":"a\nb"}`), 422, "control characters"},
		{"comment too long", "POST", entries, js, one(`{"prefix":"198.51.100.1","comment":"` + strings.Repeat("x", 201) + `"}`), 422, "200"},
		{"no prefix to delete", "POST", "/v1/lists/block/delete", js, `{"prefixes":["x"]}`, 422, "is not an address"},
		{"unknown reason", "GET", "/v1/events?reason=because", "", "", 422, "is not a reason"},
		{"unknown outcome", "GET", "/v1/events?outcome=lost", "", "", 422, "is not an outcome"},
		{"bad source", "GET", "/v1/events?source=x", "", "", 422, "is not an address"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f, _, _, socket := start(t)
			status, body := raw(t, socket, tc.method, tc.path, tc.contentType, strings.NewReader(tc.body))
			if status != tc.status || !strings.Contains(body, tc.says) {
				t.Errorf("%d %s, want %d with %q", status, body, tc.status, tc.says)
			}
			if f.added != nil {
				t.Errorf("the backend was given %v", f.added)
			}
		})
	}
}

func TestOversizedBody(t *testing.T) {
	f, _, c, socket := start(t)
	body := `{"entries":[{"prefix":"198.51.100.1"}]}` + strings.Repeat(" ", maxBody)
	status, text := raw(t, socket, "POST", "/v1/lists/block/entries", "application/json", strings.NewReader(body))
	if status != http.StatusRequestEntityTooLarge || f.added != nil {
		t.Errorf("%d %s", status, text)
	}
	// A list file may be larger than that.
	file := strings.Repeat("198.51.100.1 # "+strings.Repeat("x", 150)+"\n", maxBody/100)
	if _, err := c.Import(t.Context(), traffic.ListBlock, strings.NewReader(file), AddOptions{}); err != nil {
		t.Errorf("import of %d bytes: %v", len(file), err)
	}
}

func TestChangesAreLoggedWithTheirSender(t *testing.T) {
	var log bytes.Buffer
	s := NewServer(newFake(), slog.New(slog.NewTextHandler(&log, nil)))
	path := filepath.Join(t.TempDir(), "api.sock")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	c := NewClient(path)
	if err := c.SetBypass(t.Context(), true); err != nil {
		t.Error(err)
	}
	if _, err := c.Status(t.Context()); err != nil {
		t.Error(err)
	}
	c.Close()
	if err := s.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	got := log.String()
	if !strings.Contains(got, "method=PUT path=/v1/bypass status=200 uid=0") || strings.Contains(got, "/v1/status") {
		t.Errorf("log = %s", got)
	}
}

func TestSocketIsPrivateAndGoesAway(t *testing.T) {
	path := filepath.Join(t.TempDir(), "made", "api.sock")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != os.ModeSocket|0o600 {
		t.Errorf("mode = %v, %v", info.Mode(), err)
	}
	if info, err = os.Stat(filepath.Dir(path)); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("mode of the directory = %v, %v", info.Mode(), err)
	}
	l.Close()
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after close: %v", err)
	}
}

func TestSocketInUse(t *testing.T) {
	_, _, c, path := start(t)
	_, err := Listen(path)
	if err == nil || !strings.Contains(err.Error(), "another sentinel-x is running") {
		t.Errorf("second listen = %v", err)
	}
	if _, err := c.Status(t.Context()); err != nil {
		t.Errorf("the first one no longer answers: %v", err)
	}
}

func TestStaleSocketIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "api.sock")
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	dead.Close()
	if _, err := NewClient(path).Status(t.Context()); !errors.Is(err, ErrNoDaemon) {
		t.Errorf("status on a stale socket = %v", err)
	}
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
}

func TestSocketPathErrors(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, says := range map[string]string{
		file:                       "is not a socket",
		filepath.Join(file, "sub"): "--socket",
		filepath.Join(dir, strings.Repeat("x", 108)): "longer than the 107 bytes",
	} {
		if _, err := Listen(path); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("Listen(%q) = %v, want %q", path, err, says)
		}
	}
	if text, _ := os.ReadFile(file); string(text) != "mine" {
		t.Errorf("the file in the way is now %q", text)
	}
}

func TestNoDaemon(t *testing.T) {
	path := filepath.Join(t.TempDir(), "none.sock")
	_, err := NewClient(path).Status(t.Context())
	want := "no sentinel-x answers on " + path + ": is `sentinel-x run` running (and do you have the right to open it)?"
	if !errors.Is(err, ErrNoDaemon) || err.Error() != want {
		t.Errorf("error = %q, want %q", err, want)
	}
}
