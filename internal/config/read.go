// SPDX-License-Identifier: Apache-2.0

package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

const (
	maxFileBytes = 1 << 20
	maxDepth     = 16
	maxKeys      = 500 // in a row without a list entry; the whole file has fewer than 100
	maxErrors    = 10
)

// Error is one mistake in a configuration.
type Error struct {
	File         string // empty when the configuration did not come from a file
	Line, Column int    // from 1; 0 without a file
	Path         string // key path, as limits.per_source.syn.packets; empty for the file as a whole
	Msg          string
}

// Error writes file:line:column: path: message.
func (e *Error) Error() string {
	var b strings.Builder
	if e.File != "" {
		fmt.Fprintf(&b, "%s:%d:%d: ", e.File, e.Line, e.Column)
	}
	if e.Path != "" {
		b.WriteString(e.Path + ": ")
	}
	return b.String() + e.Msg
}

// Load reads and checks a file. The error holds one *Error a mistake, at most
// ten, or says why the file cannot be read.
func Load(path string) (Config, error) {
	f, err := os.Open(path)
	if err != nil {
		return Config{}, fmt.Errorf("open config file: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err != nil {
		return Config{}, fmt.Errorf("read config file: %w", err)
	}
	return Parse(path, data)
}

// Parse reads and checks the text of a file over the defaults; name is what
// errors call it. Interfaces may be missing: a flag can name them.
func Parse(name string, data []byte) (Config, error) {
	r := reader{file: name, at: map[string]position{}}
	cfg := Default()
	body, err := r.parse(data)
	if err != nil {
		return Config{}, err
	}
	r.decodeFile(body, &cfg)
	if len(r.errs) == 0 {
		r.validate(cfg)
	}
	if len(r.errs) > 0 {
		return Config{}, errors.Join(r.errs...)
	}
	return cfg, nil
}

// reader turns the text into a tree and the tree into a Config, and remembers
// where each key stands.
type reader struct {
	file  string
	at    map[string]position
	errs  []error
	total int
}

type position struct{ line, column int }

func (r *reader) errorAt(p position, path, format string, args ...any) *Error {
	return &Error{File: r.file, Line: p.line, Column: p.column, Path: path, Msg: fmt.Sprintf(format, args...)}
}

func (r *reader) fail(p position, path, format string, args ...any) {
	r.total++
	if r.total <= maxErrors {
		r.errs = append(r.errs, r.errorAt(p, path, format, args...))
	}
}

// parse returns the tree of the file's one document, nil if it is empty.
func (r *reader) parse(data []byte) (body ast.Node, err error) {
	// The YAML library is not ours; whatever it does with a file, the engine
	// must keep the configuration it has.
	defer func() {
		if p := recover(); p != nil {
			body, err = nil, r.errorAt(position{1, 1}, "", "not readable as YAML")
		}
	}()
	if err := r.checkText(data); err != nil {
		return nil, err
	}
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	// Windows line ends confuse the library's columns.
	text := strings.ReplaceAll(string(data), "\r\n", "\n")
	tokens := lexer.Tokenize(text)
	if err := r.checkTokens(tokens); err != nil {
		return nil, err
	}
	// Duplicate keys are reported by the decoder, which knows their path.
	file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		return nil, r.syntaxError(err)
	}
	for _, doc := range file.Docs {
		if doc == nil || doc.Body == nil {
			continue
		}
		if body != nil {
			return nil, r.errorAt(nodePosition(doc.Body), "", "second document; the file holds only one")
		}
		body = doc.Body
	}
	return body, nil
}

func (r *reader) syntaxError(err error) error {
	var e yaml.Error
	if !errors.As(err, &e) {
		return r.errorAt(position{1, 1}, "", "not readable as YAML: %v", err)
	}
	return r.errorAt(tokenPosition(e.GetToken()), "", "not readable as YAML: %s", e.GetMessage())
}

// checkText refuses what no text file holds.
func (r *reader) checkText(data []byte) error {
	if len(data) > maxFileBytes {
		return r.errorAt(offsetPosition(data, maxFileBytes), "", "file is larger than %d bytes; import long lists with `block import`", maxFileBytes)
	}
	for i := 0; i < len(data); {
		c, n := utf8.DecodeRune(data[i:])
		switch {
		case c == utf8.RuneError && n == 1:
			return r.errorAt(offsetPosition(data, i), "", "byte 0x%02x is not UTF-8", data[i])
		case c == '\t' || c == '\n' || c == '\r' && i+1 < len(data) && data[i+1] == '\n':
		case c < ' ' || c >= 0x7f && c < 0xa0:
			return r.errorAt(offsetPosition(data, i), "", "control character 0x%02x", c)
		case c == '\ufeff' && i > 0, c == '\u2028', c == '\u2029':
			return r.errorAt(offsetPosition(data, i), "", "invisible character U+%04X", c)
		}
		i += n
	}
	return nil
}

func offsetPosition(data []byte, offset int) position {
	before := data[:offset]
	start := bytes.LastIndexByte(before, '\n') + 1
	return position{bytes.Count(before, []byte("\n")) + 1, utf8.RuneCount(before[start:]) + 1}
}

// checkTokens refuses the parts of YAML that this file has no use for, nesting
// deep enough to exhaust the stack of a recursive parser, and mappings so long
// that the library's quadratic work on them shows.
func (r *reader) checkTokens(tokens token.Tokens) error {
	d := depth{line: -1}
	for _, tk := range tokens {
		if word := unusedYAML(tk.Type); word != "" {
			return r.errorAt(tokenPosition(tk), "", "YAML %s is not supported here (a value that starts with %s needs quotes)", word, clip(tk.Value))
		}
		if d.add(tk) > maxDepth {
			return r.errorAt(tokenPosition(tk), "", "nested deeper than %d levels", maxDepth)
		}
		if d.keys > maxKeys {
			return r.errorAt(tokenPosition(tk), "", "more than %d keys", maxKeys)
		}
	}
	return nil
}

func unusedYAML(t token.Type) string {
	switch t {
	case token.AnchorType:
		return "anchor"
	case token.AliasType:
		return "alias"
	case token.TagType:
		return "tag"
	case token.DirectiveType:
		return "directive"
	case token.MergeKeyType:
		return "merge key"
	case token.MappingKeyType:
		return "complex key"
	}
	return ""
}

// depth follows how deep a stream of tokens is nested: flow brackets, block
// indentation, and entries that open on the same line. It also counts keys.
type depth struct {
	flow, line, onLine int
	columns            []int
	keys               int
}

func (d *depth) add(tk *token.Token) int {
	switch tk.Type {
	case token.SequenceStartType, token.MappingStartType:
		d.flow++
		d.keys = 0
	case token.SequenceEndType, token.MappingEndType:
		d.flow = max(0, d.flow-1)
	}
	at := tokenPosition(tk)
	if at.line != d.line && d.flow == 0 {
		d.line, d.onLine = at.line, 0
		for len(d.columns) > 0 && d.columns[len(d.columns)-1] >= at.column {
			d.columns = d.columns[:len(d.columns)-1]
		}
		d.columns = append(d.columns, at.column)
	}
	switch tk.Type {
	case token.SequenceEntryType:
		d.onLine++
		d.keys = 0
	case token.MappingValueType:
		d.onLine++
		d.keys++
	case token.CollectEntryType:
		d.onLine = 0
	}
	return max(d.flow, d.onLine, len(d.columns))
}

func tokenPosition(tk *token.Token) position {
	if tk == nil || tk.Position == nil {
		return position{1, 1}
	}
	return position{max(tk.Position.Line, 1), max(tk.Position.Column, 1)}
}

func nodePosition(n ast.Node) position {
	switch n := n.(type) {
	case *ast.MappingNode:
		// The token of a block mapping is the first colon; the key stands before it.
		if !n.IsFlowStyle && len(n.Values) > 0 {
			return nodePosition(n.Values[0].Key)
		}
	case *ast.MappingValueNode:
		return nodePosition(n.Key)
	}
	return tokenPosition(n.GetToken())
}
