// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// VerifierCost is what the kernel's verifier had to do to accept the program.
type VerifierCost struct {
	Instructions int   `json:"instructions"` // processed, of at most 1 000 000
	States       int   `json:"states"`       // kept to compare with
	Stack        []int `json:"stack"`        // bytes of the program and of each of its subprograms; 512 hold for a chain of calls
}

// Frames returns the bytes of stack that the program itself takes, and the largest of its
// subprograms. The kernel holds each chain of calls to 512, rounded up frame by frame.
func (c VerifierCost) Frames() (program, largest int) {
	if len(c.Stack) == 0 {
		return 0, 0
	}
	return c.Stack[0], slices.Max(c.Stack)
}

// Verify loads the program as New does, asks the verifier for its statistics and
// frees the program again.
func Verify(o Options) (c VerifierCost, err error) {
	o.PinPath, o.VerifierLog, o.VerifierStats = "", false, true
	p, err := New(o)
	if err != nil {
		return c, err
	}
	log := p.objs.Sentinel.VerifierLog
	if err := p.Close(); err != nil {
		return c, err
	}
	return parseVerifierLog(log)
}

// parseVerifierLog reads the statistics behind the log, in the words of kernels up to 6.18, and of 7.3:
//
//	stack depth 80+0+64
//	processed 33506 insns (limit 1000000) max_states_per_insn 12 total_states 1710 peak_states 598 mark_read 96
//
//	stack depth max 144
//	subprog 0 (sentinel) main insns_self 11694 insns_total 24186 stack 80
//	processed …
func parseVerifierLog(log string) (c VerifierCost, err error) {
	for line := range strings.Lines(log) {
		line = strings.TrimSpace(line)
		if depths, ok := stackDepths(line); ok {
			stack, err := parseDepths(depths)
			if err != nil {
				return c, err
			}
			c.Stack = append(c.Stack, stack...)
		}
		var limit, perInstruction int
		_, err := fmt.Sscanf(line, "processed %d insns (limit %d) max_states_per_insn %d total_states %d",
			&c.Instructions, &limit, &perInstruction, &c.States)
		if err == nil {
			return c, nil
		}
	}
	return c, fmt.Errorf("read the verifier's statistics: not in its log %q", log)
}

// stackDepths returns the frames that a line tells, joined by +.
func stackDepths(line string) (string, bool) {
	if depths, ok := strings.CutPrefix(line, "stack depth "); ok {
		return depths, !strings.HasPrefix(depths, "max ")
	}
	if !strings.HasPrefix(line, "subprog ") {
		return "", false
	}
	_, depth, ok := strings.Cut(line, " stack ")
	return depth, ok
}

func parseDepths(text string) ([]int, error) {
	var depths []int
	for word := range strings.SplitSeq(text, "+") {
		n, err := strconv.Atoi(word)
		if err != nil {
			return nil, fmt.Errorf("read the verifier's stack depths %q: %w", text, err)
		}
		depths = append(depths, n)
	}
	return depths, nil
}
