// SPDX-License-Identifier: Apache-2.0

package signature

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
)

// examples returns the lines of the page's boxes of this kind.
func examples(t *testing.T, page, kind string) []string {
	t.Helper()
	var lines []string
	for _, box := range regexp.MustCompile("(?s)```"+kind+"\n(.*?)```").FindAllStringSubmatch(page, -1) {
		lines = append(lines, strings.Split(strings.TrimSpace(box[1]), "\n")...)
	}
	if len(lines) < 10 {
		t.Fatalf("%d lines in boxes marked %q: is the page as this test reads it?", len(lines), kind)
	}
	return lines
}

// The page for operators says what is so.
func TestPage(t *testing.T) {
	data, err := os.ReadFile("../../docs/signatures.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(data)
	for _, text := range examples(t, page, "fits") {
		if _, err := Parse(text); err != nil {
			t.Errorf("fits: %q: %v", text, err)
		}
	}
	for _, text := range examples(t, page, "does not fit") {
		var unfit *NotFieldsError
		if _, err := Parse(text); !errors.As(err, &unfit) {
			t.Errorf("does not fit: %q: %v, want a NotFieldsError", text, err)
		}
	}
	added := regexp.MustCompile(`signature add '([^']*)'`).FindStringSubmatch(page)
	if added == nil {
		t.Error("no command that adds a signature")
	} else if _, err := Parse(added[1]); err != nil {
		t.Errorf("%q: %v", added[1], err)
	}
	_, table, _ := strings.Cut(page, "| written | understood |")
	rows := regexp.MustCompile("\\| `([^`]*)` \\| `([^`]*)` \\|").FindAllStringSubmatch(table, -1)
	if len(rows) == 0 {
		t.Error("no row of written and understood text")
	}
	for _, row := range rows {
		if r, err := Parse(row[1]); err != nil || r.String() != row[2] {
			t.Errorf("%q is understood as %q, %v; the page says %q", row[1], r, err, row[2])
		}
	}
	for name, row := range map[string]string{
		"Slots":      fmt.Sprintf("| rules armed | %d |", Slots),
		"MaxFilters": fmt.Sprintf("| filters armed | %d |", MaxFilters),
		"MaxWords":   fmt.Sprintf("| payload conditions in a rule | %d,", MaxWords),
		"MaxOffsets": fmt.Sprintf("| distinct payload offsets in all armed rules | %d |", MaxOffsets),
		"MaxRanges":  fmt.Sprintf("| ranges of one field in a rule | %d |", MaxRanges),
	} {
		if !strings.Contains(page, row) {
			t.Errorf("%s: the page lacks the line %q", name, row)
		}
	}
}
