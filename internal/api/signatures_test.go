// SPDX-License-Identifier: Apache-2.0

package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sentinel-x/sentinel-x/internal/signature"
)

func TestSignaturesFromAddToFlush(t *testing.T) {
	f, _, c, _ := start(t)
	ctx := t.Context()
	text := "udp and src port 53 and len > 512"
	s, err := c.AddSignature(ctx, SignatureRequest{
		Expression: text, Target: "192.0.2.10", Action: "limit", Rate: 100, TTL: "10m", Ceiling: 0.9, Comment: "resolvers", Force: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	rule, err := signature.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	rule.Target = netip.MustParsePrefix("192.0.2.10/32")
	want := []NewSignature{{Text: text, Rule: rule, Action: signature.Limit, Rate: 100, Ceiling: 0.9, TTL: 10 * time.Minute, Comment: "resolvers"}}
	if diff := cmp.Diff(want, f.wanted, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Errorf("the backend got:\n%s", diff)
	}
	expires, seen := time.Unix(600, 0).UTC(), time.Unix(5, 0).UTC()
	answer := Signature{
		ID: 1, Expression: text, Rule: rule.String(), Target: "192.0.2.10/32", Action: "limit", Rate: 100, Ceiling: 0.9,
		State: StateArmed, Expires: &expires, Created: time.Unix(0, 0).UTC(), Origin: "operator", Comment: "resolvers",
		Matched: 9, LastSeen: &seen,
	}
	if diff := cmp.Diff(answer, s); diff != "" {
		t.Errorf("answer:\n%s", diff)
	}
	all, err := c.Signatures(ctx)
	if diff := cmp.Diff([]Signature{answer}, all); diff != "" || err != nil {
		t.Errorf("list: %v\n%s", err, diff)
	}
	if err := c.DeleteSignature(ctx, 7); !isStatus(err, http.StatusNotFound, "there is no signature 7") {
		t.Errorf("delete: %v", err)
	}
	if err := c.DeleteSignature(ctx, 1); err != nil {
		t.Errorf("delete: %v", err)
	}
	if _, err := c.AddSignature(ctx, SignatureRequest{Expression: "icmp and dst host 192.0.2.1", Action: "drop"}); err != nil || f.wanted[0].Ceiling != 1 {
		t.Errorf("add: %v, %+v", err, f.wanted)
	}
	if n, err := c.FlushSignatures(ctx); n != 1 || err != nil {
		t.Errorf("flushed %d, %v", n, err)
	}
	if all, err = c.Signatures(ctx); all == nil || len(all) != 0 || err != nil {
		t.Errorf("after the flush: %v, %v", all, err)
	}
}

func isStatus(err error, status int, detail string) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Status == status && strings.Contains(e.Detail, detail)
}

// An expression that does not fit the fields becomes a filter, and the answer says why.
func TestExpressionThatDoesNotFit(t *testing.T) {
	f, _, c, _ := start(t)
	s, err := c.AddSignature(t.Context(), SignatureRequest{Expression: "udp port 53", Target: "192.0.2.0/24", Action: "observe"})
	if err != nil {
		t.Fatal(err)
	}
	if r := f.wanted[0].Rule; r.Filter != "udp port 53" || r.Target != netip.MustParsePrefix("192.0.2.0/24") || r.Fields[signature.Protocol] != nil {
		t.Errorf("rule %+v", r)
	}
	if !s.Filter || s.Rule != "" || !strings.HasPrefix(s.Note, "column ") {
		t.Errorf("answer %+v", s)
	}
}

func TestRefusedSignatureRequests(t *testing.T) {
	_, _, c, _ := start(t)
	soon := time.Now().Add(-time.Hour)
	for name, tt := range map[string]struct {
		r      SignatureRequest
		status int
		want   string
	}{
		"no target":     {SignatureRequest{Expression: "udp", Action: "drop"}, 409, "the rule has no target"},
		"two targets":   {SignatureRequest{Expression: "udp and dst host 192.0.2.1", Target: "192.0.2.2", Action: "drop"}, 422, "the expression is about 192.0.2.1/32 and the target is 192.0.2.2/32"},
		"bad target":    {SignatureRequest{Expression: "udp", Target: "192.0.2.1/24", Action: "drop"}, 422, "192.0.2.0/24"},
		"bad action":    {SignatureRequest{Expression: "udp", Target: "192.0.2.1", Action: "block"}, 422, "action"},
		"bad TTL":       {SignatureRequest{Expression: "udp", Target: "192.0.2.1", Action: "drop", TTL: "soon"}, 422, `ttl "soon" is not a duration`},
		"expired":       {SignatureRequest{Expression: "udp", Target: "192.0.2.1", Action: "drop", Expires: &soon}, 422, "it expired at"},
		"both":          {SignatureRequest{Expression: "udp", Target: "192.0.2.1", Action: "drop", Expires: &soon, TTL: "1m"}, 422, "both ttl and expires"},
		"bad ceiling":   {SignatureRequest{Expression: "udp", Target: "192.0.2.1", Action: "drop", Ceiling: 1.5}, 422, "ceiling"},
		"bad comment":   {SignatureRequest{Expression: "udp", Target: "192.0.2.1", Action: "drop", Comment: "a\nb"}, 422, "control characters"},
		"contradiction": {SignatureRequest{Expression: "udp and tcp", Target: "192.0.2.1", Action: "drop"}, 422, "nothing"},
	} {
		if _, err := c.AddSignature(t.Context(), tt.r); !isStatus(err, tt.status, tt.want) {
			t.Errorf("%s: %+v", name, err)
		}
	}
}

// A mistake in an expression comes back with its place.
func TestSyntaxError(t *testing.T) {
	_, _, c, socket := start(t)
	_, err := c.AddSignature(t.Context(), SignatureRequest{Expression: "udp plus src port 53", Target: "192.0.2.1", Action: "drop"})
	e, ok := errors.AsType[*Error](err)
	if !ok || e.Status != 422 || e.Syntax == nil || e.Syntax.Offset != 4 || e.Syntax.Text != "udp plus src port 53" {
		t.Fatalf("%+v", err)
	}
	if want := "udp plus src port 53\n    ^"; e.Syntax.Caret() != want {
		t.Errorf("caret:\n%s", e.Syntax.Caret())
	}
	body := post(t, socket, "/v1/signatures", `{"expression":"udp and src port 99999","target":"192.0.2.1","action":"drop"}`)
	var m struct {
		Errors []struct{ Value Syntax }
	}
	if err := json.Unmarshal(body, &m); err != nil || len(m.Errors) != 1 || m.Errors[0].Value.Offset != 17 {
		t.Errorf("%v in %s", err, body)
	}
}

func post(t *testing.T, socket, path, body string) []byte {
	t.Helper()
	c := NewClient(socket)
	defer c.Close()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://sentinel-x"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestImportSignatures(t *testing.T) {
	f, _, c, _ := start(t)
	file := `# armed on a Tuesday
--target 192.0.2.10 --action drop --ttl 10m 'udp and src port 53 and len > 512'

  --action=limit --rate=100 --ceiling=90% --comment "it's \"why\"" icmp and dst net 192.0.2.0/24
`
	armed, err := c.ImportSignatures(t.Context(), strings.NewReader(file), false)
	if err != nil || len(armed) != 2 || len(f.wanted) != 2 {
		t.Fatalf("%+v, %v", armed, err)
	}
	if w := f.wanted[0]; w.TTL != 10*time.Minute || w.Action != signature.Drop || w.Text != "udp and src port 53 and len > 512" {
		t.Errorf("%+v", w)
	}
	if w := f.wanted[1]; w.Rate != 100 || w.Ceiling != 0.9 || w.Comment != `it's "why"` || w.Text != "icmp and dst net 192.0.2.0/24" {
		t.Errorf("%+v", w)
	}
	f.wanted = nil
	good := "--target 192.0.2.10 --action drop udp\n"
	for name, tt := range map[string]struct{ file, want string }{
		"empty":      {"# nothing\n", "the file has no signatures"},
		"no action":  {good + "--target 192.0.2.10 udp\n", "line 2: --action drop, limit or observe is missing"},
		"bad flag":   {good + "\n--tgt 192.0.2.10 udp\n", "line 3: --tgt is none of --target"},
		"no value":   {good + "udp --target\n", "line 2: --target lacks its value"},
		"bad rate":   {"--action limit --rate 0 udp\n", `line 1: rate "0" is not a number`},
		"bad time":   {"--action drop --expires today udp\n", `line 1: expires "today" is not a time`},
		"bad quote":  {good + good + "--action drop 'udp\n", "line 3: the ' that begins a quotation has no end"},
		"bad escape": {"--action drop udp \\\n", `line 1: \ at the end of the line`},
		"bad target": {"--action drop --target x udp\n", `line 1: target "x" is not an address`},
		"bad syntax": {good + "--action drop --target 192.0.2.10 udp plus\n", "line 2: column 5"},
		"ceiling":    {"--action drop --ceiling 200% udp\n", `line 1: ceiling "200%" is not a share`},
		"a long one": {"--action drop " + strings.Repeat("x", maxRuleLine) + "\n", "line 1: longer than 32768 bytes"},
		"too many":   {strings.Repeat(good, 65), "line 65: more than 64 signatures"},
		"not text":   {"\x00\x01\x02\n", "line 1: --action"},
	} {
		_, err := c.ImportSignatures(t.Context(), strings.NewReader(tt.file), false)
		if !isStatus(err, 422, tt.want) || f.wanted != nil {
			t.Errorf("%s: %v, armed %v", name, err, f.wanted)
		}
	}
	_, err = c.ImportSignatures(t.Context(), strings.NewReader(good+"\n--action drop udp\n"), false)
	if !isStatus(err, 409, "line 3: the rule has no target") {
		t.Errorf("refused by the backend: %v", err)
	}
	if _, err = c.ImportSignatures(t.Context(), strings.NewReader("--action drop udp\n"), true); err != nil {
		t.Errorf("with force: %v", err)
	}
}

// What export writes, import reads as the same.
func TestSignatureFileRoundTrip(t *testing.T) {
	expires := time.Now().Add(time.Hour).Truncate(time.Second)
	rules := []Signature{
		{Expression: "udp and src port 53", Target: "192.0.2.10/32", Action: "drop", Ceiling: 1},
		{Expression: `udp and (src port 53 or 123)`, Target: "2001:db8::/32", Action: "limit", Rate: 7, Ceiling: 0.125, Expires: &expires, Comment: `a 'b' "c" \d # e --f`},
		{Expression: "icmp and dst host 192.0.2.10", Target: "192.0.2.10/32", Action: "observe", Ceiling: 1, Comment: "--x"},
	}
	var b bytes.Buffer
	if err := WriteSignatures(&b, rules); err != nil {
		t.Fatal(err)
	}
	got, lines, err := parseSignatures(b.Bytes(), time.Now())
	if err != nil || !slices.Equal(lines, []int{1, 2, 3}) {
		t.Fatalf("%v, lines %v in\n%s", err, lines, b.String())
	}
	for i, n := range got {
		r := rules[i]
		if n.Text != r.Expression || n.Rule.Target.String() != r.Target || n.Action.String() != r.Action || n.Rate != r.Rate ||
			n.Ceiling != r.Ceiling || n.Comment != r.Comment || (n.TTL > 59*time.Minute) != (r.Expires != nil) {
			t.Errorf("%+v\nbecame %+v", r, n)
		}
	}
}

func FuzzSignatureFile(f *testing.F) {
	f.Add("--target 192.0.2.10 --action drop 'udp and src port 53'\n")
	f.Add("--action=limit --rate 5 \"icmp\" --comment 'it'\\''s'\n# x\n")
	f.Fuzz(func(t *testing.T, text string) {
		now := time.Unix(1_700_000_000, 0)
		rules, lines, err := parseSignatures([]byte(text), now)
		if err != nil {
			if _, ok := errors.AsType[*Error](err); !ok || len(rules) > 0 {
				t.Fatalf("%v, %d rules", err, len(rules))
			}
			return
		}
		if len(rules) != len(lines) || len(rules) == 0 {
			t.Fatalf("%d rules on %d lines", len(rules), len(lines))
		}
		for _, r := range rules {
			words, err := splitWords(quoted(r.Text) + " " + quoted(r.Comment))
			if err != nil || !slices.Equal(words, []string{r.Text, r.Comment}) {
				t.Fatalf("%q and %q became %q, %v", r.Text, r.Comment, words, err)
			}
		}
	})
}

func TestParseCeiling(t *testing.T) {
	for text, want := range map[string]float64{"90%": 0.9, "0.9": 0.9, "100%": 1, "1": 1, "0.5%": 0.005} {
		if got, err := ParseCeiling(text); got != want || err != nil {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "0", "0%", "-1", "101%", "2", "NaN", "%", "x"} {
		if got, err := ParseCeiling(text); err == nil {
			t.Errorf("%s: %v", text, got)
		}
	}
}

func TestSignatureBackendFails(t *testing.T) {
	f, _, c, _ := start(t)
	f.err = errors.New("the disk is full")
	ctx := context.Background()
	_, err1 := c.Signatures(ctx)
	_, err2 := c.AddSignature(ctx, SignatureRequest{Expression: "udp", Target: "192.0.2.1", Action: "drop"})
	_, err3 := c.FlushSignatures(ctx)
	_, err4 := c.ImportSignatures(ctx, strings.NewReader("--action drop --target 192.0.2.1 udp"), false)
	for i, err := range []error{err1, err2, err3, err4, c.DeleteSignature(ctx, 1)} {
		if !isStatus(err, 500, "the disk is full") {
			t.Errorf("%s: %v", fmt.Sprint("call ", i+1), err)
		}
	}
}
