// SPDX-License-Identifier: Apache-2.0

package signature

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

func isDigit(c byte) bool  { return c >= '0' && c <= '9' }
func isLetter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\n' }

func (p *parser) skip() {
	for p.pos < len(p.text) && isSpace(p.text[p.pos]) {
		p.pos++
	}
}

func (p *parser) here() int { p.skip(); return p.pos }

func (p *parser) end() bool { return p.here() == len(p.text) }

// peek returns the next byte, 0 at the end.
func (p *parser) peek() byte {
	if p.pos < len(p.text) {
		return p.text[p.pos]
	}
	return 0
}

// span returns what begins here and is made of such bytes.
func (p *parser) span(of func(byte) bool) string {
	end := p.pos
	for end < len(p.text) && of(p.text[end]) {
		end++
	}
	return p.text[p.pos:end]
}

// peekWord returns the word that begins here: tcpdump's may have dashes within.
func (p *parser) peekWord() string {
	p.skip()
	if !isLetter(p.peek()) {
		return ""
	}
	word := p.span(func(c byte) bool { return isLetter(c) || isDigit(c) || c == '-' || c == '_' || c == '.' })
	return strings.TrimRight(word, "-_.")
}

// peekAddress returns what could be an address or a prefix.
func (p *parser) peekAddress() string {
	return p.span(func(c byte) bool {
		return isDigit(c) || isLetter(c) && c|0x20 <= 'f' || c == '.' || c == ':' || c == '/'
	})
}

// looksLikeAddress: with two dots, or two colons, as no number has.
func looksLikeAddress(text string) bool {
	return strings.Count(text, ".") > 1 || strings.Count(text, ":") > 1
}

// peekValue returns what could be the value of a primitive: a number, a name, an address, a range.
func (p *parser) peekValue() string {
	return p.span(func(c byte) bool {
		return isDigit(c) || isLetter(c) || strings.IndexByte(`.:/-_\`, c) >= 0
	})
}

// followedBy tells whether the word that begins here has the sign behind it.
func (p *parser) followedBy(word string, sign byte) bool {
	rest := strings.TrimLeft(p.text[p.pos+len(word):], " \t\r\n")
	return rest != "" && rest[0] == sign
}

// atKeyword tells whether a condition of its own begins here, and no bare value.
func (p *parser) atKeyword() bool {
	word := p.peekWord()
	if word == "" {
		return false
	}
	_, scalar := scalars[word]
	_, constant := constants[word]
	return scalar || constant || unfit[word] || slices.Contains(protocolWords, word) ||
		slices.Contains([]string{
			"and", "or", "not", "ip", "ip6", "src", "dst", "host", "net", "port", "portrange", "proto", "inner", "frag", "df",
			"greater", "less", "payload",
		}, word)
}

func (p *parser) take(word string) {
	p.skip()
	p.pos += len(word)
}

func (p *parser) takeWord(word string) bool {
	if p.peekWord() != word {
		return false
	}
	p.take(word)
	return true
}

func (p *parser) takeSign(sign string) bool {
	p.skip()
	if !strings.HasPrefix(p.text[p.pos:], sign) {
		return false
	}
	p.pos += len(sign)
	return true
}

// takeNot takes `!`, unless it is part of `!=`.
func (p *parser) takeNot() bool {
	return !strings.HasPrefix(p.text[p.here():], "!=") && p.takeSign("!")
}

// unexpected says what stands here instead of what was wanted.
func (p *parser) unexpected(wanted string) *fault {
	if p.end() {
		return &fault{at: p.pos, problem: "ends too soon: want " + wanted}
	}
	found := p.peekWord()
	if found == "" {
		found = p.span(func(c byte) bool { return isDigit(c) || isLetter(c) })
	}
	if found == "" {
		found = string([]rune(p.text[p.pos:min(len(p.text), p.pos+4)])[:1])
	}
	return &fault{at: p.pos, problem: fmt.Sprintf("unexpected %q: want %s", found, wanted)}
}

// comparison reads numbers, a relation, and numbers.
func (p *parser) comparison() (*node, *fault) {
	left, wrong := p.numbers(0)
	if wrong != nil {
		return nil, wrong
	}
	at := p.here()
	for _, relation := range []string{"==", "!=", "<=", ">=", "=", "<", ">"} {
		if !p.takeSign(relation) {
			continue
		}
		right, wrong := p.numbers(0)
		if wrong != nil {
			return nil, wrong
		}
		return p.countComparison(at, strings.Replace(relation, "==", "=", 1), left, right)
	}
	return nil, p.unexpected("=, !=, <, <=, > or >=")
}

func (p *parser) countComparison(at int, relation string, left, right *arith) (*node, *fault) {
	if p.comparisons++; p.comparisons > maxComparisons {
		return nil, &fault{at: at, problem: fmt.Sprintf("more than %d comparisons", maxComparisons)}
	}
	return relate(at, relation, left, right)
}

// numbers reads an expression of numbers whose operators bind at least as strongly as the level's.
func (p *parser) numbers(level int) (*arith, *fault) {
	if level == len(levels) {
		return p.number()
	}
	left, wrong := p.numbers(level + 1)
	for wrong == nil {
		at, op := p.here(), p.operator(levels[level])
		if op == "" {
			return left, nil
		}
		if p.operations++; p.operations > maxOperations {
			return nil, &fault{at: at, problem: fmt.Sprintf("more than %d operations on numbers", maxOperations)}
		}
		var right *arith
		if right, wrong = p.numbers(level + 1); wrong == nil {
			left, wrong = join(at, op, left, right)
		}
	}
	return nil, wrong
}

func (p *parser) operator(of []string) string {
	rest := p.text[p.here():]
	if strings.HasPrefix(rest, "&&") || strings.HasPrefix(rest, "||") {
		return ""
	}
	for _, op := range of {
		if p.takeSign(op) {
			return op
		}
	}
	return ""
}

// number reads one operand of an expression of numbers.
func (p *parser) number() (*arith, *fault) {
	at := p.here()
	if p.depth++; p.depth > maxDepth {
		return nil, &fault{at: at, problem: fmt.Sprintf("nested deeper than %d", maxDepth)}
	}
	defer func() { p.depth-- }()
	if p.takeSign("(") {
		inner, wrong := p.numbers(0)
		if wrong == nil && !p.takeSign(")") {
			wrong = p.unexpected("an operator or )")
		}
		return inner, wrong
	}
	if isDigit(p.peek()) {
		text := p.span(func(c byte) bool { return isDigit(c) || isLetter(c) })
		number, err := strconv.ParseUint(text, 0, 64)
		if err != nil || strings.HasPrefix(strings.ToLower(text), "0b") || strings.HasPrefix(strings.ToLower(text), "0o") {
			return nil, &fault{at: at, problem: fmt.Sprintf("%q is no number", text), hint: "write decimal, 0x and hexadecimal, or 0 and octal"}
		}
		p.pos += len(text)
		return &arith{at: at, value: number}, nil
	}
	return p.wordOfNumbers(at)
}

func (p *parser) wordOfNumbers(at int) (*arith, *fault) {
	word := p.peekWord()
	if number, ok := constants[word]; ok {
		p.take(word)
		return &arith{at: at, value: number}, nil
	}
	_, header := layouts[word]
	if header || unfit[word] || word == "sctp" || word == "payload" {
		p.take(word)
		if word == "payload" {
			p.note(word)
		}
		from, wrong := p.bytes(at, word)
		return &arith{at: at, op: "access", access: from}, wrong
	}
	if field, ok := scalars[word]; ok {
		p.take(word)
		if word != "len" {
			p.note(word)
		}
		return &arith{at: at, op: "access", access: &access{at: at, scalar: field, mask: math.MaxUint64}}, nil
	}
	return nil, p.unexpected("a number")
}

// index reads what stands in brackets before the colon.
func (p *parser) index() (*arith, *fault) {
	if word := p.peekWord(); word != "" {
		if number, ok := offsets[word]; ok {
			p.take(word)
			return &arith{at: p.pos, value: number}, nil
		}
	}
	return p.numbers(0)
}

// bytes reads the brackets behind a header's name.
func (p *parser) bytes(at int, header string) (*access, *fault) {
	if !p.takeSign("[") {
		return nil, p.unexpected("[")
	}
	if p.depth++; p.depth > maxDepth {
		return nil, &fault{at: at, problem: fmt.Sprintf("nested deeper than %d", maxDepth)}
	}
	defer func() { p.depth-- }()
	index, wrong := p.index()
	if wrong != nil {
		return nil, wrong
	}
	from := &access{at: at, header: header, size: 1}
	if p.takeSign(":") {
		if from.size, wrong = p.size(header); wrong != nil {
			return nil, wrong
		}
	}
	if !p.takeSign("]") {
		return nil, p.unexpected("]")
	}
	from.mask = math.MaxUint64 >> (64 - 8*from.size)
	return from, from.locate(index)
}

// size reads how many bytes are looked at.
func (p *parser) size(header string) (int, *fault) {
	at := p.here()
	number, wrong := p.number()
	switch {
	case wrong != nil:
		return 0, wrong
	case number.op == "" && (number.value == 1 || number.value == 2 || number.value == 4):
	case header != "payload":
		return 0, &fault{at: at, problem: "tcpdump looks at 1, 2 or 4 bytes", hint: "payload[0:8] takes 1 to 8"}
	case number.op != "" || number.value < 1 || number.value > 8:
		return 0, &fault{at: at, problem: "a word is 1 to 8 bytes"}
	}
	return int(number.value), nil
}

// locate sets where the bytes lie, or why they are no field.
func (a *access) locate(index *arith) *fault {
	if a.header == "payload" && index.op != "" {
		return &fault{at: index.at, problem: "the offset must be a number"}
	}
	if offset, ok := index.dataIndex(); ok && a.header == "tcp" {
		a.header, a.offset = "tcp data", offset
		return nil
	}
	_, known := layouts[a.header]
	switch {
	case !known && a.header != "payload":
		a.unfit = &fault{at: a.at, problem: "bytes of `" + a.header + "` are no field of a rule"}
	case index.op != "":
		a.unfit = &fault{at: index.at, problem: "the offset must be a number, or skip the TCP header", hint: "write payload[0:4] for the first four bytes of the data"}
	case index.value > 0xffff:
		return &fault{at: index.at, problem: fmt.Sprintf("offset %d lies behind every packet", index.value)}
	default:
		a.offset = int(index.value)
	}
	return nil
}
