// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"os"
	"regexp"
	"testing"
	"time"
)

func TestWordsAreReadBack(t *testing.T) {
	seen := map[string]bool{}
	for r := range NumReasons {
		if got, ok := ParseReason(r.String()); !ok || got != r || seen[r.String()] {
			t.Errorf("reason %d: %q is read as %v, %v", r, r, got, ok)
		}
		seen[r.String()] = true
	}
	for l := range NumLists {
		if got, ok := ParseList(l.String()); !ok || got != l {
			t.Errorf("list %d: %q is read as %v, %v", l, l, got, ok)
		}
	}
	for _, word := range []string{"", "Pass", "reason(99)"} {
		if r, ok := ParseReason(word); ok {
			t.Errorf("%q is read as %v", word, r)
		}
	}
	if got := Reason(99).String(); got != "reason(99)" {
		t.Errorf("an unknown reason prints %q", got)
	}
}

// docs/reasons.md has a row for each reason, in the order of their numbers.
func TestEveryReasonIsDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/reasons.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\|").FindAllStringSubmatch(string(page), -1)
	if len(rows) != int(NumReasons) {
		t.Fatalf("%d rows for %d reasons", len(rows), NumReasons)
	}
	for i, row := range rows {
		if row[1] != Reason(i).String() {
			t.Errorf("row %d is %s, want %v", i, row[1], Reason(i))
		}
	}
}

func TestSums(t *testing.T) {
	var c Counters
	c.Reasons[ReasonLimit][Dropped] = Count{2, 200}
	c.Reasons[ReasonLimit][WouldDrop] = Count{3, 300}
	c.Reasons[ReasonBlocklist][Dropped] = Count{5, 500}
	if got := c.Outcome(Dropped); got != (Count{7, 700}) {
		t.Errorf("dropped %v", got)
	}
	if got := c.Reason(ReasonLimit); got != (Count{5, 500}) {
		t.Errorf("limit %v", got)
	}
	if got := (Count{5, 500}).Sub(Count{2, 200}); got != (Count{3, 300}) {
		t.Errorf("difference %v", got)
	}
}

func TestQuantile(t *testing.T) {
	h := Histogram{Width: 10, Buckets: []uint64{50, 0, 49, 1}}
	for q, want := range map[float64]time.Duration{0: 10, .49: 10, .5: 30, .98: 30, .99: 40, 1: 40} {
		if got := h.Quantile(q); got != want {
			t.Errorf("quantile %v is %v, want %v", q, got, want)
		}
	}
	if got := (Histogram{Width: 10, Buckets: make([]uint64, 4)}).Quantile(.5); got != 0 {
		t.Errorf("without samples: %v", got)
	}
}

func TestExpired(t *testing.T) {
	end := time.Unix(100, 0)
	for now, want := range map[int64]bool{99: false, 100: true, 101: true} {
		if got := (Entry{Expires: end}).Expired(time.Unix(now, 0)); got != want {
			t.Errorf("at %d: %v", now, got)
		}
	}
	if (Entry{}).Expired(end) {
		t.Error("an entry without an end has expired")
	}
}
