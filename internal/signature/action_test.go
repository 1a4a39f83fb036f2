// SPDX-License-Identifier: Apache-2.0

package signature

import "testing"

func TestActionWords(t *testing.T) {
	for a, word := range map[Action]string{Observe: "observe", Drop: "drop", Limit: "limit"} {
		if got, ok := ParseAction(word); a.String() != word || got != a || !ok {
			t.Errorf("%d: %q, %v %v", a, a, got, ok)
		}
	}
	if a, ok := ParseAction("block"); ok {
		t.Errorf("block is %v", a)
	}
	if got := Action(9).String(); got != "action(9)" {
		t.Error(got)
	}
}
