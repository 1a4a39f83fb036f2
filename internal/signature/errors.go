// SPDX-License-Identifier: Apache-2.0

package signature

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// SyntaxError says that a text is no expression, or one that matches nothing.
type SyntaxError struct {
	Text    string
	Offset  int    // byte in Text, 0…len(Text)
	Problem string // what is wrong there
	Hint    string // what to write instead; may be empty
}

// Error says what is wrong, where, and what to write instead.
func (e *SyntaxError) Error() string { return describe(e.Text, e.Offset, e.Problem, e.Hint) }

// Caret returns Text as one line, and under it a line with a caret at Offset.
func (e *SyntaxError) Caret() string { return caret(e.Text, e.Offset) }

// NotFieldsError says that an expression may well be tcpdump's, but asks what a rule's fields do not hold. It may
// still run as a Filter.
type NotFieldsError struct {
	Text    string
	Offset  int    // byte in Text, 0…len(Text)
	Problem string // what does not fit, and why
	Hint    string // what to write instead; may be empty
}

// Error says what does not fit, where, and what to write instead.
func (e *NotFieldsError) Error() string { return describe(e.Text, e.Offset, e.Problem, e.Hint) }

// Caret returns Text as one line, and under it a line with a caret at Offset.
func (e *NotFieldsError) Caret() string { return caret(e.Text, e.Offset) }

func describe(text string, offset int, problem, hint string) string {
	message := fmt.Sprintf("column %d: %s", utf8.RuneCountInString(text[:offset])+1, problem)
	if hint != "" {
		message += ": " + hint
	}
	return message
}

func caret(text string, offset int) string {
	line := strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, text)
	return line + "\n" + strings.Repeat(" ", utf8.RuneCountInString(text[:offset])) + "^"
}
