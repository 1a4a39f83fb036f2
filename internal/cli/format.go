// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// table is rows of cells under a heading, columns padded to the widest cell.
// Columns whose heading begins with ">" are aligned to the right.
type table struct {
	head []string
	rows [][]string
}

func newTable(head ...string) *table { return &table{head: head} }

func (t *table) row(cells ...string) { t.rows = append(t.rows, cells) }

// write writes the table, or nothing if it has no rows.
func (t *table) write(w io.Writer) {
	if len(t.rows) == 0 {
		return
	}
	head := make([]string, len(t.head))
	for i, h := range t.head {
		head[i] = strings.TrimPrefix(h, ">")
	}
	all := append([][]string{head}, t.rows...)
	width := make([]int, len(head))
	for _, row := range all {
		for i, cell := range row {
			width[i] = max(width[i], utf8.RuneCountInString(cell))
		}
	}
	for _, row := range all {
		var line strings.Builder
		for i, cell := range row {
			gap := strings.Repeat(" ", width[i]-utf8.RuneCountInString(cell))
			if strings.HasPrefix(t.head[i], ">") {
				line.WriteString(gap + cell + "  ")
			} else {
				line.WriteString(cell + gap + "  ")
			}
		}
		fmt.Fprintln(w, strings.TrimRight(line.String(), " "))
	}
}

// markdown writes the table as one of a Markdown page.
func (t *table) markdown(w io.Writer) {
	head, rule := make([]string, len(t.head)), make([]string, len(t.head))
	for i, h := range t.head {
		head[i], rule[i] = strings.ToLower(strings.TrimPrefix(h, ">")), "---"
		if strings.HasPrefix(h, ">") {
			rule[i] = "---:"
		}
	}
	for _, row := range append([][]string{head, rule}, t.rows...) {
		fmt.Fprintf(w, "| %s |\n", strings.Join(row, " | "))
	}
}

// grouped writes a number with commas: 1,234,567.
func grouped(n uint64) string {
	s := strconv.FormatUint(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// short writes a number with three digits and a decimal prefix: 1.23M.
func short(n float64) string {
	for _, unit := range []struct {
		factor float64
		suffix string
	}{{1e12, "T"}, {1e9, "G"}, {1e6, "M"}, {1e3, "k"}} {
		if n >= unit.factor*0.9995 {
			return threeDigits(n/unit.factor) + unit.suffix
		}
	}
	return threeDigits(n)
}

func threeDigits(n float64) string {
	decimals := 2
	switch {
	case n >= 99.95:
		decimals = 0
	case n >= 9.995:
		decimals = 1
	}
	s := strconv.FormatFloat(n, 'f', decimals, 64)
	if strings.Contains(s, ".") {
		s = strings.TrimRight(strings.TrimRight(s, "0"), ".")
	}
	return s
}

func bits(bytesPerSecond float64) string {
	return withUnit(short(bytesPerSecond*8), "bit/s")
}

func size(bytes uint64) string { return withUnit(short(float64(bytes)), "B") }

// withUnit puts a space between the number and its unit: 1.2 MB.
func withUnit(s, unit string) string {
	if i := strings.IndexAny(s, "kMGT"); i >= 0 {
		return s[:i] + " " + s[i:] + unit
	}
	return s + " " + unit
}

// memory writes bytes in powers of 1024, as memory is counted.
func memory(bytes uint64) string {
	n := float64(bytes)
	for _, unit := range []string{"B", "KiB", "MiB", "GiB"} {
		if n < 1023.5 || unit == "GiB" {
			return threeDigits(n) + " " + unit
		}
		n /= 1024
	}
	return ""
}

func percent(part, whole uint64) string {
	if whole == 0 {
		return "-"
	}
	return strconv.FormatFloat(100*float64(part)/float64(whole), 'f', 2, 64) + " %"
}

// age writes a duration with its two largest units: 3h12m, 2d4h, 45s.
func age(d time.Duration) string {
	if d >= time.Second {
		d = d.Round(time.Second)
	}
	switch {
	case d >= 24*time.Hour:
		return fmt.Sprintf("%dd%dh", d/(24*time.Hour), d%(24*time.Hour)/time.Hour)
	case d >= time.Hour:
		return fmt.Sprintf("%dh%dm", d/time.Hour, d%time.Hour/time.Minute)
	case d >= time.Minute:
		return fmt.Sprintf("%dm%ds", d/time.Minute, d%time.Minute/time.Second)
	}
	return d.String()
}

// prefix writes a prefix of one address as the address.
func prefix(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return grouped(uint64(n)) + " " + many
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
