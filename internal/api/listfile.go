// SPDX-License-Identifier: Apache-2.0

package api

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"strings"
	"time"
)

const (
	maxLine     = 1024
	maxExpected = 1 << 20 // lines that get their place before they are read
)

// newEntries are entries and, if they come from a file, the lines they stand on.
type newEntries struct {
	entries []NewEntry
	lines   []int
}

// parseList reads a list file: one host or prefix a line, then as wanted
// ttl=DURATION or expires=TIME (RFC 3339), then as wanted a comment behind # or
// ; which becomes the entry's. Empty lines and lines with only a comment are
// skipped. What cannot be read comes back as refused; a line that is too long
// ends the reading.
func parseList(data []byte, now time.Time) (good newEntries, refused []Refused) {
	expected := min(bytes.Count(data, []byte{'\n'})+1, maxExpected)
	good = newEntries{make([]NewEntry, 0, expected), make([]int, 0, expected)}
	lines := bufio.NewScanner(bytes.NewReader(data))
	lines.Buffer(make([]byte, 0, maxLine), maxLine)
	n := 0
	for lines.Scan() {
		n++
		fields, comment := splitComment(lines.Text())
		if len(fields) == 0 {
			continue
		}
		entry, err := parseLine(fields, comment, now)
		if err != nil {
			refused = append(refused, Refused{Line: n, Prefix: clip(fields[0]), Reason: err.Error()})
			continue
		}
		good.entries, good.lines = append(good.entries, entry), append(good.lines, n)
	}
	if lines.Err() != nil {
		refused = append(refused, Refused{Line: n + 1, Reason: fmt.Sprintf("line is longer than %d bytes; is this a list of prefixes, one a line?", maxLine)})
	}
	return good, refused
}

func splitComment(line string) (fields []string, comment string) {
	line = strings.TrimPrefix(line, "\ufeff")
	if i := strings.IndexAny(line, "#;"); i >= 0 {
		line, comment = line[:i], strings.TrimSpace(line[i+1:])
	}
	return strings.Fields(line), comment
}

func parseLine(fields []string, comment string, now time.Time) (NewEntry, error) {
	prefix, err := ParsePrefix(clip(fields[0]))
	if err != nil {
		return NewEntry{}, err
	}
	var ttl string
	var expires *time.Time
	for _, f := range fields[1:] {
		key, value, _ := strings.Cut(f, "=")
		switch key {
		case "ttl":
			ttl = value
		case "expires":
			t, err := time.Parse(time.RFC3339, value)
			if err != nil {
				return NewEntry{}, fmt.Errorf("expires %q is not a time; write 2030-01-31T15:04:05Z", value)
			}
			expires = &t
		default:
			return NewEntry{}, fmt.Errorf("%q is neither ttl=DURATION nor expires=TIME; a comment goes behind #", clip(f))
		}
	}
	return newEntry(prefix, ttl, expires, clipComment(comment), now)
}

// clipComment keeps of a file's comment what an entry can hold: published lists
// carry longer ones.
func clipComment(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == '\uFFFD' {
			return ' '
		}
		return r
	}, s)
	for len(s) > MaxComment {
		s = s[:strings.LastIndexFunc(s, func(rune) bool { return true })]
	}
	return s
}

// clip shortens what is quoted back in an error.
func clip(s string) string {
	if len(s) > 80 {
		return strings.ToValidUTF8(s[:80], "") + "…"
	}
	return s
}

// WriteList writes entries as a list file that an import reads.
func WriteList(w io.Writer, entries []Entry) error {
	out := bufio.NewWriter(w)
	for _, e := range entries {
		prefix := e.Prefix.String()
		if e.Prefix.IsSingleIP() {
			prefix = e.Prefix.Addr().String()
		}
		out.WriteString(prefix)
		if e.Expires != nil {
			out.WriteString(" expires=" + e.Expires.UTC().Format(time.RFC3339))
		}
		if e.Comment != "" {
			out.WriteString(" # " + e.Comment)
		}
		out.WriteByte('\n')
	}
	return out.Flush()
}
