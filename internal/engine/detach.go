// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"fmt"

	"github.com/sentinel-x/sentinel-x/internal/dataplane"
)

// DetachResult says what was found on an interface.
type DetachResult struct {
	Interface string `json:"interface"`
	Detached  bool   `json:"detached"` // a program that an earlier process left pinned was removed
	Remaining string `json:"remaining,omitempty"`
}

// Detach removes what an earlier process left on an interface. No daemon is needed;
// a living one is refused. What is not ours stays, and is named in the result.
func Detach(name, pinPath string) (DetachResult, error) {
	r := DetachResult{Interface: name}
	detached, err := dataplane.DetachPinned(pinPath, name)
	if err != nil {
		return r, err
	}
	r.Detached = detached
	// The interface itself may be gone, with pins left behind.
	if on, ok, err := dataplane.Look(name); err == nil && ok {
		r.Remaining = fmt.Sprintf("program %d %q in %s mode is not pinned under %s: end the process that holds it, or `ip link set %s xdp off`",
			on.ProgramID, on.Name, on.Mode, pinPath, name)
	} else if err != nil && !detached {
		return r, err
	}
	return r, nil
}
