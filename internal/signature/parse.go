// SPDX-License-Identifier: Apache-2.0

package signature

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Bounds of what Parse reads, so that no text takes more than about a second.
const (
	maxText        = 64 << 10 // bytes
	maxDepth       = 64       // of parentheses, and of not
	maxComparisons = 64
	maxOperations  = 256
)

// Parse reads an expression: the part of pcap-filter(7) that is a conjunction of conditions on single
// fields, and the words of our own in docs/signatures.md. The error is a *NotFieldsError for what
// tcpdump may understand but a Rule does not hold, and a *SyntaxError for anything else.
//
// A condition, also a negated one, holds only for packets that have the field.
func Parse(text string) (Rule, error) {
	p := &parser{text: text}
	root, wrong := p.whole()
	var r Rule
	if wrong == nil {
		r, wrong = new(solver).finish(root)
	}
	if wrong == nil {
		return r, nil
	}
	if !wrong.fields {
		return Rule{}, &SyntaxError{Text: text, Offset: wrong.at, Problem: wrong.problem, Hint: wrong.hint}
	}
	if p.own != "" {
		problem := wrong.problem + " (and tcpdump does not know `" + p.own + "`, so that it cannot run as a filter)"
		return Rule{}, &SyntaxError{Text: text, Offset: wrong.at, Problem: problem, Hint: wrong.hint}
	}
	return Rule{}, &NotFieldsError{Text: text, Offset: wrong.at, Problem: wrong.problem, Hint: wrong.hint}
}

type parser struct {
	text        string
	pos         int
	depth       int
	comparisons int
	operations  int
	own         string // first word that is not tcpdump's
	// last reads a bare value as the primitive before it did: `src port 53 or 123`. nil: none can follow.
	last func(at int, value string) (*node, *fault)
}

func (p *parser) whole() (*node, *fault) {
	if len(p.text) > maxText {
		return nil, &fault{problem: fmt.Sprintf("longer than %d bytes", maxText)}
	}
	if p.end() {
		return nil, &fault{problem: "no expression", hint: "ip or ip6 matches everything"}
	}
	root, wrong := p.expression()
	if wrong != nil {
		return nil, wrong
	}
	if !p.end() {
		return nil, p.unexpected("and, or, or the end")
	}
	return root, nil
}

func (p *parser) expression() (*node, *fault) {
	left, wrong := p.term()
	for wrong == nil {
		p.skip()
		at := p.pos
		op := byte(0)
		switch {
		case p.takeWord("and") || p.takeSign("&&"):
			op = opAnd
		case p.takeWord("or") || p.takeSign("||"):
			op = opOr
		default:
			return left, nil
		}
		var right *node
		if right, wrong = p.operand(); wrong == nil {
			left = &node{at: at, op: op, left: left, right: right}
		}
	}
	return nil, wrong
}

// operand is a term, or a bare value that takes the qualifiers of the primitive before it.
func (p *parser) operand() (*node, *fault) {
	p.skip()
	if p.last != nil && !p.atKeyword() {
		if at, value := p.pos, p.peekValue(); value != "" {
			p.pos += len(value)
			return p.last(at, value)
		}
	}
	return p.term()
}

func (p *parser) term() (*node, *fault) {
	p.skip()
	at := p.pos
	if p.depth++; p.depth > maxDepth {
		return nil, &fault{at: at, problem: fmt.Sprintf("nested deeper than %d", maxDepth)}
	}
	defer func() { p.depth-- }()
	if p.takeWord("not") || p.takeNot() {
		inner, wrong := p.operand()
		return &node{at: at, op: opNot, left: inner}, wrong
	}
	if p.peek() == '(' && !p.groupOfNumbers() {
		p.pos++
		p.last = nil
		inner, wrong := p.expression()
		if wrong != nil {
			return nil, wrong
		}
		if p.last = nil; !p.takeSign(")") {
			return nil, p.unexpected("and, or, or )")
		}
		return inner, nil
	}
	return p.primitive()
}

// groupOfNumbers tells whether the parenthesis here encloses numbers, which is so if an operator of numbers follows it.
func (p *parser) groupOfNumbers() bool {
	depth := 0
	for i := p.pos; i < len(p.text); i++ {
		switch p.text[i] {
		case '(':
			depth++
		case ')':
			depth--
		}
		if depth > 0 {
			continue
		}
		rest := strings.TrimLeft(p.text[i+1:], " \t\r\n")
		if strings.HasPrefix(rest, "&&") || strings.HasPrefix(rest, "||") {
			return false
		}
		return strings.HasPrefix(rest, "!=") || rest != "" && strings.IndexByte("=<>+-*/%&|^", rest[0]) >= 0
	}
	return false
}

// primitive reads one condition.
func (p *parser) primitive() (*node, *fault) {
	at, word := p.pos, p.peekWord()
	p.last = nil
	if address := p.peekAddress(); address != "" && looksLikeAddress(address) {
		p.pos += len(address)
		return unfitNode(at, "an address alone is source or destination", "write dst host "+address), nil
	}
	if _, ok := layouts[word]; ok || unfit[word] {
		if p.followedBy(word, '[') {
			return p.comparison()
		}
	}
	switch {
	case word == "payload" || word == "sctp" && p.followedBy(word, '['):
		return p.comparison()
	case unfit[word]:
		return nil, &fault{at: at, fields: true, problem: "`" + word + "` is no field of a rule"}
	}
	if field, ok := scalars[word]; ok {
		return p.scalar(word, field)
	}
	if _, ok := constants[word]; ok || word == "" && (isDigit(p.peek()) || p.peek() == '(') {
		return p.comparison()
	}
	return p.named(at, word)
}

// named reads the conditions that begin with a word.
func (p *parser) named(at int, word string) (*node, *fault) {
	switch word {
	case "src", "dst", "host", "net", "port", "portrange":
		return p.qualified(at, "")
	case "greater", "less":
		p.take(word)
		return p.lengthBound(at, word)
	case "proto":
		p.take(word)
		return p.protocols(Protocol)
	case "inner":
		p.take(word)
		p.note(word)
		if !p.takeWord("proto") {
			return nil, p.unexpected("proto")
		}
		return p.protocols(Inner)
	case "frag":
		p.take(word)
		return p.fragment(at)
	case "df":
		p.take(word)
		p.note(word)
		return leafNode(at, fieldCond(DF, Values(1))), nil
	case "ip", "ip6":
		p.take(word)
		return p.family(at, word)
	}
	if slices.Contains(protocolWords, word) {
		p.take(word)
		return p.protocol(at, word)
	}
	if word == "" || word == "and" || word == "or" {
		return nil, p.unexpected("a condition")
	}
	return nil, &fault{at: at, problem: "unknown word `" + word + "`", hint: "docs/signatures.md has the language"}
}

// note remembers that the text is not tcpdump's.
func (p *parser) note(word string) {
	if p.own == "" {
		p.own = word
	}
}

// family reads what follows `ip` or `ip6`.
func (p *parser) family(at int, word string) (*node, *fault) {
	own := leafNode(at, context(word))
	inner := p.here()
	switch next := p.peekWord(); next {
	case "proto":
		p.take(next)
		right, wrong := p.protocols(Protocol)
		if wrong == nil {
			p.qualifyLast(own)
		}
		return both(at, own, right), wrong
	case "src", "dst", "host", "net":
		right, wrong := p.qualified(inner, word)
		p.qualifyLast(own)
		return both(at, own, right), wrong
	case "broadcast", "multicast", "protochain":
		return nil, &fault{at: inner, fields: true, problem: "`" + next + "` is no field of a rule"}
	}
	return own, nil
}

// qualifyLast makes bare values that follow also say `own`.
func (p *parser) qualifyLast(own *node) {
	read := p.last
	if read == nil {
		return
	}
	p.last = func(at int, value string) (*node, *fault) {
		right, wrong := read(at, value)
		return both(at, own, right), wrong
	}
}

// protocol reads what follows a protocol's name.
func (p *parser) protocol(at int, word string) (*node, *fault) {
	own := leafNode(at, fieldCond(Protocol, Values(protocolNames[word])))
	inner := p.here()
	switch p.peekWord() {
	case "src", "dst", "port", "portrange":
		right, wrong := p.qualified(inner, word)
		if wrong != nil {
			return nil, wrong
		}
		p.qualifyLast(own)
		return both(at, own, right), nil
	}
	return own, nil
}

// protocols reads the protocols behind `proto` and `inner proto`.
func (p *parser) protocols(field Field) (*node, *fault) {
	read := func(at int, value string) (*node, *fault) {
		lo, hi, wrong := p.bounds(at, strings.TrimPrefix(value, `\`), protocolNames, field)
		if wrong != nil {
			return nil, wrong
		}
		return leafNode(at, fieldCond(field, NewSet(Range{lo, hi}))), nil
	}
	return p.values(read)
}

// values reads one value, or several in parentheses, and lets bare ones follow.
func (p *parser) values(read func(at int, value string) (*node, *fault)) (*node, *fault) {
	if !p.takeSign("(") {
		first, wrong := p.oneValue(read)
		p.last = read
		return first, wrong
	}
	p.last = nil
	left, wrong := p.oneValue(read)
	for wrong == nil && !p.takeSign(")") {
		at := p.here()
		if !p.takeWord("or") && !p.takeSign("||") {
			return nil, p.unexpected("or, or )")
		}
		var right *node
		if right, wrong = p.oneValue(read); wrong == nil {
			left = &node{at: at, op: opOr, left: left, right: right}
		}
	}
	return left, wrong
}

func (p *parser) oneValue(read func(at int, value string) (*node, *fault)) (*node, *fault) {
	at, value := p.here(), p.peekValue()
	if value == "" {
		return nil, p.unexpected("a value")
	}
	p.pos += len(value)
	return read(at, value)
}

// bounds reads a value, or two with a dash between, of the field.
func (p *parser) bounds(at int, text string, names map[string]uint16, field Field) (lo, hi uint16, wrong *fault) {
	first, second, ranged := strings.Cut(text, "-")
	if _, named := names[text]; named {
		first, ranged = text, false
	}
	if ranged {
		p.note(text)
	} else {
		second = first
	}
	if lo, wrong = value(at, first, names, field); wrong != nil {
		return 0, 0, wrong
	}
	if hi, wrong = value(at, second, names, field); wrong != nil {
		return 0, 0, wrong
	}
	if lo > hi {
		return 0, 0, &fault{at: at, problem: fmt.Sprintf("range %s begins behind its end", text)}
	}
	return lo, hi, nil
}

// value reads a number or a name.
func value(at int, text string, names map[string]uint16, field Field) (uint16, *fault) {
	if number, ok := names[text]; ok {
		return number, nil
	}
	number, err := strconv.ParseUint(text, 0, 64)
	switch {
	case err != nil || strings.ContainsAny(text, "_boBO"):
		return 0, &fault{at: at, problem: fmt.Sprintf("%q is no %v", text, field), hint: "write its number"}
	case number > uint64(field.Max()):
		return 0, &fault{at: at, problem: fmt.Sprintf("%s is out of range: %v is 0 to %d", text, field, field.Max())}
	}
	return uint16(number), nil
}

func (p *parser) fragment(at int) (*node, *fault) {
	p.note("frag")
	kinds := map[string]Set{
		"none": Values(FragmentNone), "first": Values(FragmentFirst), "later": Values(FragmentLater),
		"any": Values(FragmentFirst, FragmentLater),
	}
	p.skip()
	word := p.peekWord()
	set, ok := kinds[word]
	if !ok {
		return nil, p.unexpected("none, first, later or any")
	}
	p.take(word)
	return leafNode(at, fieldCond(Fragment, set)), nil
}

// lengthBound reads `greater` and `less`, which include the bound.
func (p *parser) lengthBound(at int, word string) (*node, *fault) {
	p.skip()
	number, wrong := p.number()
	if wrong != nil {
		return nil, wrong
	}
	relation := "<="
	if word == "greater" {
		relation = ">="
	}
	from := &access{at: at, scalar: Length, mask: ^uint64(0)}
	return p.countComparison(at, relation, &arith{op: "access", access: from}, number)
}

// scalar reads a comparison that begins with a field's own word, or the word and bare values.
func (p *parser) scalar(word string, field Field) (*node, *fault) {
	at := p.pos
	if word != "len" {
		p.note(word)
	}
	if next := strings.TrimLeft(p.text[at+len(word):], " \t\r\n"); next == "" || !isDigit(next[0]) {
		return p.comparison()
	}
	p.take(word)
	p.note(word)
	read := func(at int, text string) (*node, *fault) {
		if field != Length {
			lo, hi, wrong := p.bounds(at, text, nil, field)
			return leafNode(at, fieldCond(field, NewSet(Range{lo, hi}))), wrong
		}
		return p.lengths(at, text)
	}
	return p.values(read)
}

// lengths reads a length of the frame, or two with a dash between.
func (p *parser) lengths(at int, text string) (*node, *fault) {
	first, second, ranged := strings.Cut(text, "-")
	if !ranged {
		second = first
	}
	lo, err := strconv.ParseUint(first, 0, 32)
	hi, err2 := strconv.ParseUint(second, 0, 32)
	if err != nil || err2 != nil || lo > hi {
		return nil, &fault{at: at, problem: fmt.Sprintf("%q is no length", text), hint: "write a number, or two with a dash between"}
	}
	set := accepted(Length, func(v uint64) bool { return v+frameHeader >= lo && v+frameHeader <= hi })
	return leafNode(at, fieldCond(Length, set)), nil
}

// qualified reads `src port 53`, `dst net 192.0.2.0/24` and the like; `before` is the word in front of it.
func (p *parser) qualified(at int, before string) (*node, *fault) {
	direction := p.direction()
	p.skip()
	kind := p.peekWord()
	switch kind {
	case "port", "portrange":
		p.take(kind)
		return p.ports(at, before, direction, kind)
	case "host", "net":
		p.take(kind)
		return p.hosts(at, direction, kind)
	}
	if direction == "" {
		return nil, p.unexpected("src, dst, host, net, port or portrange")
	}
	if next := p.peekAddress(); next == "" || !looksLikeAddress(next) {
		return nil, p.unexpected("host, net, port or portrange")
	}
	return p.hosts(at, direction, "host")
}

// direction reads src, dst, `src or dst`, `src and dst`, and the two the other way round.
func (p *parser) direction() string {
	for _, first := range []string{"src", "dst"} {
		if !p.takeWord(first) {
			continue
		}
		second := "dst"
		if first == "dst" {
			second = "src"
		}
		start := p.pos
		for _, join := range []string{"or", "and"} {
			if p.takeWord(join) && p.takeWord(second) {
				return join
			}
			p.pos = start
		}
		return first
	}
	return ""
}

func (p *parser) ports(at int, before, direction, kind string) (*node, *fault) {
	read := func(at int, text string) (*node, *fault) {
		if strings.Contains(text, "-") && kind == "port" && portNames[text] == 0 {
			return nil, &fault{at: at, problem: "`port` takes one port", hint: "write portrange " + text}
		}
		own := p.own
		field := SourcePort
		if direction == "dst" {
			field = DestPort
		}
		lo, hi, wrong := p.bounds(at, text, portNames, field)
		p.own = own // a range is tcpdump's here
		if wrong != nil {
			return nil, wrong
		}
		source := leafNode(at, fieldCond(SourcePort, NewSet(Range{lo, hi})))
		dest := leafNode(at, fieldCond(DestPort, NewSet(Range{lo, hi})))
		switch {
		case before == "sctp":
			return unfitNode(at, "a rule knows the ports of TCP and UDP only", ""), nil
		case direction == "src":
			return source, nil
		case direction == "dst":
			return dest, nil
		case direction == "and":
			return both(at, source, dest), nil
		}
		hint := fmt.Sprintf("write src %[1]s %[2]s, dst %[1]s %[2]s, or a rule for each", kind, text)
		return unfitNode(at, "`"+kind+"` alone looks at two fields", hint), nil
	}
	return p.values(read)
}

func (p *parser) hosts(at int, direction, kind string) (*node, *fault) {
	read := func(at int, text string) (*node, *fault) {
		if kind == "net" && p.takeWord("mask") {
			p.skip()
			p.pos += len(p.peekValue())
			return unfitNode(at, "a net is written with its length", "write dst net "+text+"/24, say"), nil
		}
		prefix, wrong := target(at, text, kind)
		switch {
		case wrong != nil:
			return nil, wrong
		case direction == "src":
			return unfitNode(at, "a rule does not look at the source", "use the block list"), nil
		case direction != "dst":
			return unfitNode(at, "source and destination are two fields", "write dst "+kind+" "+text), nil
		}
		c := everything()
		c.target = prefix
		return leafNode(at, c), nil
	}
	return p.values(read)
}

// target reads an address, or for `net` a prefix, which may leave out bytes: 192.0.2 is 192.0.2.0/24.
func target(at int, text, kind string) (netip.Prefix, *fault) {
	full, ranged := text, strings.Contains(text, "/")
	if dots := strings.Count(text, "."); kind == "net" && !ranged && dots < 3 && !strings.Contains(text, ":") {
		full = text + strings.Repeat(".0", 3-dots) + fmt.Sprintf("/%d", 8*(dots+1))
	} else if !ranged {
		full = text + "/128"
		if !strings.Contains(text, ":") {
			full = text + "/32"
		}
	}
	prefix, err := netip.ParsePrefix(full)
	switch {
	case err != nil:
		return prefix, &fault{at: at, problem: fmt.Sprintf("%q is no address", text), hint: "names are not looked up: write the address"}
	case prefix.Addr().Is4In6():
		return prefix, &fault{at: at, problem: "IPv4 address mapped into IPv6", hint: "write the IPv4 address"}
	case ranged && kind == "host":
		return prefix, &fault{at: at, problem: "`host` takes an address without a length", hint: "write net " + text}
	case prefix != prefix.Masked():
		return prefix, &fault{at: at, problem: text + " has host bits set", hint: "write " + prefix.Masked().String()}
	}
	return prefix, nil
}
