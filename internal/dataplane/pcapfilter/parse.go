// SPDX-License-Identifier: Apache-2.0

package pcapfilter

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"golang.org/x/net/bpf"

	"github.com/sentinel-x/sentinel-x/internal/signature"
)

const (
	maxText  = 4096
	maxDepth = 32
)

// Compile returns the classic BPF program of an expression: it returns 1 for frames that match, 0 for
// others. Errors are of type *signature.SyntaxError and say what cannot be compiled, and where.
func Compile(text string) ([]bpf.Instruction, error) {
	p := &parser{text: text}
	fail := func(at int, problem string) error {
		return &signature.SyntaxError{Text: text, Offset: at, Problem: problem}
	}
	if len(text) > maxText {
		return nil, fail(maxText, fmt.Sprintf("the expression is longer than %d bytes", maxText))
	}
	if err := p.lex(); err != nil {
		return nil, fail(err.at, err.problem)
	}
	n, err := p.expression()
	if err == nil && !p.end() {
		err = p.unexpected("and, or, or the end")
	}
	if err != nil {
		return nil, fail(err.at, err.problem)
	}
	code, emitErr := emit(n)
	if emitErr != nil {
		return nil, fail(0, emitErr.Error())
	}
	return code, nil
}

type fault struct {
	at      int
	problem string
}

type token struct {
	text string
	at   int
}

type parser struct {
	text   string
	tokens []token
	pos    int
	depth  int
	mixed  string     // operators of the arithmetic without parentheses that is being read
	last   qualifiers // of the primitive before, which a bare value takes over
}

var signs = []string{"<<", ">>", "<=", ">=", "==", "!=", "&&", "||", "(", ")", "[", "]", "+", "-", "*", "/", "%", "&", "|", "^", "<", ">", "=", "!", ":"}

func isWord(c byte) bool {
	return c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z' || c == '.' || c == '_' || c == '\\'
}

// lex splits the text. Inside brackets a colon is a sign and a dash subtracts; outside they are
// part of words: addresses, ranges, names.
func (p *parser) lex() *fault {
	brackets := 0
	for i := 0; i < len(p.text); {
		c := p.text[i]
		if c == ' ' || c == '\t' || c == '\n' || c == '\r' {
			i++
			continue
		}
		start := i
		if isWord(c) || c == ':' && brackets == 0 {
			for i < len(p.text) && (isWord(p.text[i]) || brackets == 0 && p.text[i] == ':' || p.dash(start, i) || brackets == 0 && p.slash(start, i)) {
				i++
			}
		} else {
			sign := ""
			for _, s := range signs {
				if strings.HasPrefix(p.text[i:], s) {
					sign = s
					break
				}
			}
			if sign == "" {
				return &fault{i, fmt.Sprintf("the character %q has no meaning here", rune(c))}
			}
			brackets += strings.Count(sign, "[") - strings.Count(sign, "]")
			i += len(sign)
		}
		p.tokens = append(p.tokens, token{p.text[start:i], start})
	}
	return nil
}

// slash: the slash at i is that of a prefix: 192.0.2.0/24.
func (p *parser) slash(start, i int) bool {
	if p.text[i] != '/' {
		return false
	}
	_, ok := parsePrefix(p.text[start:i])
	return ok
}

// dash: the dash at i belongs to the word that begins at start: tcp-syn, 1-1023.
func (p *parser) dash(start, i int) bool {
	if p.text[i] != '-' || i+1 == len(p.text) || !isWord(p.text[i+1]) {
		return false
	}
	word := p.text[start:i]
	_, number := parseNumber(word)
	return !number || len(p.tokens) > 0 && isRangeWord(p.tokens[len(p.tokens)-1].text)
}

func isRangeWord(word string) bool { return word == "portrange" || word == "or" }

func (p *parser) end() bool { return p.pos == len(p.tokens) }

func (p *parser) peek() string {
	if p.end() {
		return ""
	}
	return p.tokens[p.pos].text
}

func (p *parser) at() int {
	if p.end() {
		return len(p.text)
	}
	return p.tokens[p.pos].at
}

func (p *parser) take(words ...string) bool {
	for _, w := range words {
		if !p.end() && p.peek() == w {
			p.pos++
			return true
		}
	}
	return false
}

func (p *parser) unexpected(wanted string) *fault {
	if p.end() {
		return &fault{len(p.text), "the expression ends here: want " + wanted}
	}
	return &fault{p.at(), fmt.Sprintf("unexpected %q: want %s", p.peek(), wanted)}
}

// expression: and, or have one precedence and associate to the left, as in pcap-filter(7).
func (p *parser) expression() (node, *fault) {
	if p.depth++; p.depth > maxDepth {
		return nil, &fault{p.at(), "nested too deeply"}
	}
	defer func() { p.depth-- }()
	left, err := p.term()
	for err == nil {
		var right node
		switch {
		case p.take("and", "&&"):
			right, err = p.term()
			left = both{left, right}
		case p.take("or", "||"):
			right, err = p.term()
			left = either{left, right}
		default:
			return left, nil
		}
	}
	return nil, err
}

func (p *parser) term() (node, *fault) {
	if p.take("not", "!") {
		if p.depth++; p.depth > maxDepth {
			return nil, &fault{p.at(), "nested too deeply"}
		}
		defer func() { p.depth-- }()
		n, err := p.term()
		return not{n}, err
	}
	start := p.pos
	if p.arithmeticAhead() {
		n, err := p.comparison()
		if err == nil || p.tokens[start].text != "(" {
			return n, err
		}
		// A parenthesis may as well hold conditions; the error that got farther is the better one.
		first := err
		p.pos = start
		if n, err = p.parenthesis(); err != nil && first.at > err.at {
			err = first
		}
		return n, err
	}
	if p.peek() == "(" {
		return p.parenthesis()
	}
	return p.primitive()
}

func (p *parser) parenthesis() (node, *fault) {
	p.pos++
	n, err := p.expression()
	if err == nil && !p.take(")") {
		err = p.unexpected(")")
	}
	return n, err
}

// arithmeticAhead: what follows may be a number that is compared.
func (p *parser) arithmeticAhead() bool {
	if p.end() {
		return false
	}
	next := ""
	if p.pos+1 < len(p.tokens) {
		next = p.tokens[p.pos+1].text
	}
	word := p.peek()
	if word == "(" || word == "-" || next == "[" || word == "len" || names[word] != nil {
		return true
	}
	_, number := parseNumber(word)
	return number && next != "" && strings.Contains("<< >> <= >= == != + - * / % & | ^ < > =", next) && next != "&&" && next != "||"
}

var relations = map[string]struct {
	op      bpf.JumpTest
	negated bool
}{
	"=": {bpf.JumpEqual, false}, "==": {bpf.JumpEqual, false}, "!=": {bpf.JumpEqual, true},
	">": {bpf.JumpGreaterThan, false}, "<=": {bpf.JumpGreaterThan, true},
	">=": {bpf.JumpGreaterOrEqual, false}, "<": {bpf.JumpGreaterOrEqual, true},
}

func (p *parser) comparison() (node, *fault) {
	left, err := p.sum()
	if err != nil {
		return nil, err
	}
	r, ok := relations[p.peek()]
	if !ok {
		return nil, p.unexpected("a comparison")
	}
	p.pos++
	right, err := p.sum()
	if err != nil {
		return nil, err
	}
	var n node = relation{r.op, left, right}
	if r.negated {
		n = not{n}
	}
	if guard := join(guards(left), guards(right)); guard != nil {
		n = both{guard, n}
	}
	return n, nil
}

// join joins two guards, each of which may be absent; both must hold.
func join(a, b node) node {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	}
	return both{a, b}
}

// operators of arithmetic, from the weakest to the strongest, as in C.
var operators = []map[string]bpf.ALUOp{
	{"|": bpf.ALUOpOr},
	{"^": bpf.ALUOpXor},
	{"&": bpf.ALUOpAnd},
	{"<<": bpf.ALUOpShiftLeft, ">>": bpf.ALUOpShiftRight},
	{"+": bpf.ALUOpAdd, "-": bpf.ALUOpSub},
	{"*": bpf.ALUOpMul, "/": bpf.ALUOpDiv, "%": bpf.ALUOpMod},
}

// sum reads arithmetic up to a parenthesis, bracket or comparison. libpcap's grammar reads some
// mixtures of operators otherwise than C does: those need parentheses.
func (p *parser) sum() (number, *fault) {
	at, outer := p.at(), p.mixed
	p.mixed = ""
	n, err := p.arithmetic(0)
	mixed := p.mixed
	p.mixed = outer
	has := func(ops string) bool { return strings.ContainsAny(mixed, ops) }
	if err == nil && (has("&") && has("|") || has("%") && has("+-*/&|^<>") || has("^") && has("+-*/%&|<>")) {
		err = &fault{at, "write parentheses: tcpdump and C read this mixture of operators differently"}
	}
	return n, err
}

func (p *parser) arithmetic(level int) (number, *fault) {
	if level == len(operators) {
		return p.factor()
	}
	left, err := p.arithmetic(level + 1)
	for err == nil {
		at := p.at()
		op, ok := operators[level][p.peek()]
		if !ok || p.end() {
			return left, nil
		}
		p.mixed += p.peek()
		p.pos++
		var right number
		if right, err = p.arithmetic(level + 1); err == nil {
			left, err = fold(at, op, left, right)
		}
	}
	return nil, err
}

// fold computes what is constant: classic BPF takes a constant on the right only, and no division by 0.
func fold(at int, op bpf.ALUOp, left, right number) (number, *fault) {
	r, ok := right.(constant)
	if !ok {
		return operation{op, left, right}, nil
	}
	if r.value == 0 && (op == bpf.ALUOpDiv || op == bpf.ALUOpMod) {
		return nil, &fault{at, "division by zero"}
	}
	if r.value > 31 && (op == bpf.ALUOpShiftLeft || op == bpf.ALUOpShiftRight) {
		return nil, &fault{at, "shift by more than 31 bits"}
	}
	l, ok := left.(constant)
	if !ok {
		return operation{op, left, right}, nil
	}
	a, b := l.value, r.value
	switch op {
	case bpf.ALUOpOr:
		a |= b
	case bpf.ALUOpXor:
		a ^= b
	case bpf.ALUOpAnd:
		a &= b
	case bpf.ALUOpShiftLeft:
		a <<= b
	case bpf.ALUOpShiftRight:
		a >>= b
	case bpf.ALUOpAdd:
		a += b
	case bpf.ALUOpSub:
		a -= b
	case bpf.ALUOpMul:
		a *= b
	case bpf.ALUOpDiv:
		a /= b
	case bpf.ALUOpMod:
		a %= b
	}
	return constant{a}, nil
}

func (p *parser) factor() (number, *fault) {
	if p.depth++; p.depth > maxDepth {
		return nil, &fault{p.at(), "nested too deeply"}
	}
	defer func() { p.depth-- }()
	at, word := p.at(), p.peek()
	switch {
	case p.end():
		return nil, p.unexpected("a number")
	case p.take("("):
		n, err := p.sum()
		if err == nil && !p.take(")") {
			err = p.unexpected(")")
		}
		return n, err
	case p.take("-"):
		n, err := p.factor()
		if err != nil {
			return nil, err
		}
		return fold(at, bpf.ALUOpSub, constant{0}, n)
	case p.take("len"):
		return length{}, nil
	case names[word] != nil:
		p.pos++
		return constant{*names[word]}, nil
	}
	if v, ok := parseNumber(word); ok {
		p.pos++
		return constant{v}, nil
	}
	return p.accessor()
}

func parseNumber(word string) (uint32, bool) {
	if word == "" || word[0] < '0' || word[0] > '9' {
		return 0, false
	}
	v, err := strconv.ParseUint(word, 0, 32)
	if err != nil || strings.Contains(word, "_") {
		return 0, false
	}
	return uint32(v), true
}

// accessor: proto[index:size]
func (p *parser) accessor() (number, *fault) {
	at, word := p.at(), p.peek()
	l, ok := accessors[word]
	if !ok {
		return nil, p.unexpected("a number, len, or a header such as ip[9] or tcp[13]")
	}
	p.pos++
	if !p.take("[") {
		return nil, &fault{at, fmt.Sprintf("%q is not a number: want %s[offset] or %s[offset:size]", word, word, word)}
	}
	index, err := p.sum()
	if err != nil {
		return nil, err
	}
	size := uint32(1)
	if p.take(":") {
		var ok bool
		if size, ok = parseNumber(p.peek()); !ok || size != 1 && size != 2 && size != 4 {
			return nil, p.unexpected("a size of 1, 2 or 4 bytes")
		}
		p.pos++
	}
	if !p.take("]") {
		return nil, p.unexpected("]")
	}
	if c, ok := index.(constant); ok && c.value > math.MaxUint16 {
		return nil, &fault{at, "the offset is behind the end of every frame"}
	}
	return access{load{l.base, index, int(size)}, l.guard}, nil
}

// access is a load with the condition that the header is there.
type access struct {
	load
	guard node
}

type header struct {
	base  base
	guard node
}

func upper(p uint32) header { return header{baseUpper, both{protocol4(p), notLater()}} }

var accessors = map[string]header{
	"ether": {baseLink, nil}, "link": {baseLink, nil},
	"ip": {baseNet, isIPv4()}, "ip6": {baseNet, isIPv6()},
	"tcp": upper(6), "udp": upper(17), "icmp": upper(1), "sctp": upper(132), "igmp": upper(2), "pim": upper(103),
	"icmp6": {baseUpper6, plain6(58)},
}

// guards returns what must hold for the loads in the number; nil: nothing.
func guards(n number) node {
	switch n := n.(type) {
	case access:
		return join(n.guard, guards(n.index))
	case operation:
		return join(guards(n.left), guards(n.right))
	}
	return nil
}

// names are the constants that tcpdump knows.
var names = map[string]*uint32{
	"tcpflags": new(uint32(13)), "icmptype": new(uint32(0)), "icmpcode": new(uint32(1)), "icmp6type": new(uint32(0)), "icmp6code": new(uint32(1)),
	"tcp-fin": new(uint32(1)), "tcp-syn": new(uint32(2)), "tcp-rst": new(uint32(4)), "tcp-push": new(uint32(8)),
	"tcp-ack": new(uint32(16)), "tcp-urg": new(uint32(32)), "tcp-ece": new(uint32(64)), "tcp-cwr": new(uint32(128)),
	"icmp-echoreply": new(uint32(0)), "icmp-unreach": new(uint32(3)), "icmp-sourcequench": new(uint32(4)), "icmp-redirect": new(uint32(5)),
	"icmp-echo": new(uint32(8)), "icmp-routeradvert": new(uint32(9)), "icmp-routersolicit": new(uint32(10)), "icmp-timxceed": new(uint32(11)),
	"icmp-paramprob": new(uint32(12)), "icmp-tstamp": new(uint32(13)), "icmp-tstampreply": new(uint32(14)), "icmp-ireq": new(uint32(15)),
	"icmp-ireqreply": new(uint32(16)), "icmp-maskreq": new(uint32(17)), "icmp-maskreply": new(uint32(18)),
	"icmp6-destinationunreach": new(uint32(1)), "icmp6-packettoobig": new(uint32(2)), "icmp6-timeexceeded": new(uint32(3)),
	"icmp6-parameterproblem": new(uint32(4)), "icmp6-echo": new(uint32(128)), "icmp6-echoreply": new(uint32(129)),
}
