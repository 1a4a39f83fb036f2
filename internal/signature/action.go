// SPDX-License-Identifier: Apache-2.0

package signature

import "fmt"

var actionNames = [...]string{Observe: "observe", Drop: "drop", Limit: "limit"}

// String returns observe, drop or limit.
func (a Action) String() string {
	if int(a) < len(actionNames) {
		return actionNames[a]
	}
	return fmt.Sprintf("action(%d)", a)
}

// ParseAction returns the action of a word, and false for an unknown one.
func ParseAction(word string) (Action, bool) {
	for a, name := range actionNames {
		if name == word {
			return Action(a), true
		}
	}
	return 0, false
}
