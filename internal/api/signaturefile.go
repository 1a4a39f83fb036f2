// SPDX-License-Identifier: Apache-2.0

package api

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/sentinel-x/sentinel-x/internal/signature"
)

// maxRuleLine is longer than the longest expression and comment, every byte of them quoted.
const maxRuleLine = 32 << 10

// parseSignatures reads a file of signatures: a line each, the arguments of
// `signature add` quoted as in a shell. Empty lines and lines that begin with #
// are skipped. The first bad line is an *Error that names it.
func parseSignatures(data []byte, now time.Time) (rules []NewSignature, lines []int, err error) {
	text := bufio.NewScanner(bytes.NewReader(data))
	text.Buffer(make([]byte, 0, maxRuleLine), maxRuleLine)
	n := 0
	for text.Scan() {
		n++
		line := strings.TrimSpace(strings.TrimPrefix(text.Text(), "\ufeff"))
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		rule, err := parseRuleLine(line, now)
		if err != nil {
			return nil, nil, onLine(n, err)
		}
		if len(rules) == signature.Slots {
			return nil, nil, Invalid("line %d: more than %d signatures", n, signature.Slots)
		}
		rules, lines = append(rules, rule), append(lines, n)
	}
	if text.Err() != nil {
		return nil, nil, Invalid("line %d: longer than %d bytes; is this a file of signatures, one a line?", n+1, maxRuleLine)
	}
	if len(rules) == 0 {
		return nil, nil, Invalid("the file has no signatures, so nothing was changed")
	}
	return rules, lines, nil
}

func parseRuleLine(line string, now time.Time) (NewSignature, error) {
	words, err := splitWords(line)
	if err != nil {
		return NewSignature{}, err
	}
	r, err := requestOf(words)
	if err != nil {
		return NewSignature{}, err
	}
	return r.parse(now)
}

// onLine makes err an *Error about a line of a file.
func onLine(n int, err error) error {
	e, ok := errors.AsType[*Error](err)
	if !ok {
		return Invalid("line %d: %v", n, err)
	}
	out := &Error{Status: e.Status, Detail: atLine(n) + e.Detail, Syntax: e.Syntax}
	if out.Syntax != nil {
		out.Syntax.Line = n
	}
	return out
}

// requestOf reads the arguments of `signature add`.
func requestOf(words []string) (r SignatureRequest, err error) {
	var expression []string
	for i := 0; i < len(words); i++ {
		name, isFlag := strings.CutPrefix(words[i], "--")
		if !isFlag {
			expression = append(expression, words[i])
			continue
		}
		name, value, given := strings.Cut(name, "=")
		if !given {
			if i++; i == len(words) {
				return r, fmt.Errorf("--%s lacks its value", clip(name))
			}
			value = words[i]
		}
		if err := r.set(name, value); err != nil {
			return r, err
		}
	}
	r.Expression = strings.Join(expression, " ")
	if r.Action == "" {
		return r, errors.New("--action drop, limit or observe is missing")
	}
	return r, nil
}

// set sets what a flag of `signature add` is about.
func (r *SignatureRequest) set(flag, value string) (err error) {
	switch flag {
	case "target":
		r.Target = value
	case "action":
		r.Action = value
	case "ttl":
		r.TTL = value
	case "comment":
		r.Comment = value
	case "rate":
		r.Rate, err = parseRate(value)
	case "ceiling":
		r.Ceiling, err = ParseCeiling(value)
	case "expires":
		var t time.Time
		if t, err = time.Parse(time.RFC3339, value); err != nil {
			return fmt.Errorf("expires %q is not a time; write 2030-01-31T15:04:05Z", clip(value))
		}
		r.Expires = &t
	default:
		return fmt.Errorf("--%s is none of --target, --action, --rate, --ttl, --expires, --ceiling and --comment", clip(flag))
	}
	return err
}

func parseRate(s string) (uint64, error) {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("rate %q is not a number of packets a second above 0", clip(s))
	}
	return n, nil
}

// splitWords splits a line as a shell does: blanks part words, single quotes keep
// everything, double quotes all but \ and ", a backslash the next character.
func splitWords(line string) (words []string, err error) {
	var word strings.Builder
	in, quote, escaped := false, rune(0), false
	for _, c := range line {
		switch {
		case escaped:
			word.WriteRune(c)
			escaped = false
		case c == '\\' && quote != '\'':
			in, escaped = true, true
		case quote != 0 && c == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(c)
		case c == '\'' || c == '"':
			in, quote = true, c
		case c == ' ' || c == '\t':
			if in {
				words = append(words, word.String())
				word.Reset()
			}
			in = false
		default:
			in = true
			word.WriteRune(c)
		}
	}
	switch {
	case quote != 0:
		return nil, fmt.Errorf("the %c that begins a quotation has no end", quote)
	case escaped:
		return nil, errors.New(`\ at the end of the line quotes nothing`)
	case in:
		words = append(words, word.String())
	}
	return words, nil
}

// WriteSignatures writes rules as a file that an import reads.
func WriteSignatures(w io.Writer, rules []Signature) error {
	out := bufio.NewWriter(w)
	for _, r := range rules {
		out.WriteString("--action " + r.Action)
		if r.Target != "" {
			out.WriteString(" --target " + r.Target)
		}
		if r.Rate > 0 {
			fmt.Fprintf(out, " --rate %d", r.Rate)
		}
		if r.Ceiling != signature.FullCeiling {
			fmt.Fprintf(out, " --ceiling %v", r.Ceiling)
		}
		if r.Expires != nil {
			out.WriteString(" --expires " + r.Expires.UTC().Format(time.RFC3339))
		}
		if r.Comment != "" {
			out.WriteString(" --comment " + quoted(r.Comment))
		}
		out.WriteString(" " + quoted(r.Expression) + "\n")
	}
	return out.Flush()
}

// quoted writes a word so that splitWords, and a shell, read it as one.
func quoted(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
