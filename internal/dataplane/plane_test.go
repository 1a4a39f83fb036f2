// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

func newTester(t testing.TB, o Options) *Tester {
	t.Helper()
	p, err := NewTester(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// The words of internal/traffic are written a second time; this holds them to the enums of bpf/types.h.
func TestWordsAgreeWithTheProgram(t *testing.T) {
	check := func(what string, c any, word fmt.Stringer) {
		t.Helper()
		_, name, _ := strings.Cut(strings.ToLower(fmt.Sprint(c)), "_")
		if name != word.String() {
			t.Errorf("%s: C says %q, traffic says %q", what, name, word)
		}
	}
	if int(bpfReasonNUM_REASONS) != int(traffic.NumReasons) || int(bpfOutcomeNUM_OUTCOMES) != int(traffic.NumOutcomes) ||
		int(bpfClassNUM_CLASSES) != int(traffic.NumClasses) || int(bpfScopeNUM_SCOPES) != int(traffic.NumScopes) {
		t.Fatal("the number of reasons, outcomes, classes or scopes differs")
	}
	for r := range traffic.NumReasons {
		check("reason", bpfReason(r), r)
	}
	for o := range traffic.NumOutcomes {
		check("outcome", bpfOutcome(o), o)
	}
	for c := range traffic.NumClasses {
		check("class", bpfClass(c), c)
	}
	for s := range traffic.NumScopes {
		check("scope", bpfScope(s), s)
	}
}
