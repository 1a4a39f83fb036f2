// SPDX-License-Identifier: Apache-2.0

package signature

import (
	"fmt"
	"math/bits"
	"strings"
)

// String returns the rule as an expression that Parse reads back as the same rule, if the rule is
// valid. It leaves Filter out.
func (r Rule) String() string {
	var parts []string
	switch r.Family {
	case 4:
		parts = append(parts, "ip")
	case 6:
		parts = append(parts, "ip6")
	}
	for f, set := range r.Fields {
		if set != nil {
			parts = append(parts, set.text(Field(f)))
		}
	}
	for _, w := range r.Payload {
		parts = append(parts, w.String())
	}
	if r.Target.IsSingleIP() {
		parts = append(parts, "dst host "+r.Target.Addr().String())
	} else if r.Target.IsValid() {
		parts = append(parts, "dst net "+r.Target.String())
	}
	if len(parts) == 0 {
		return "ip or ip6"
	}
	return strings.Join(parts, " and ")
}

// String returns the word as a condition.
func (w Word) String() string {
	digits, mask := 2*int(w.Size), ""
	if w.Mask != w.full() {
		mask = fmt.Sprintf(" & 0x%0*x", digits, w.Mask)
	}
	return fmt.Sprintf("payload[%d:%d]%s = 0x%0*x", w.Offset, w.Size, mask, digits, w.Value)
}

// text returns the set as one condition on the field, or several in parentheses.
func (s Set) text(field Field) string {
	rest := s.Complement(field.Max())
	if field == TCPFlags {
		if mask, value, ok := s.masked(); ok {
			return flagsText(mask, "=", value)
		}
		if mask, value, ok := rest.masked(); ok {
			return flagsText(mask, "!=", value)
		}
	}
	conditions, negated := s.conditions(field), rest.conditions(field)
	switch {
	case len(conditions) == 1:
		return conditions[0]
	case len(negated) == 1:
		return "not " + negated[0]
	}
	return "(" + strings.Join(conditions, " or ") + ")"
}

// conditions returns the alternatives that make up the set. Those after the first are bare values
// where the language lets them be.
func (s Set) conditions(field Field) []string {
	list := make([]string, 0, len(s))
	word := ""
	for _, r := range s {
		if r.Lo > r.Hi {
			continue
		}
		switch field {
		case Fragment:
			list = append(list, fragmentText(r)...)
			continue
		case DF:
			list = append(list, []string{"not df", "df"}[min(r.Lo, 1):min(r.Hi, 1)+1]...)
			continue
		}
		condition := ""
		before := word
		if word, condition = r.condition(field); word == before && word != "" {
			condition = strings.TrimPrefix(condition, word+" ")
		}
		list = append(list, condition)
	}
	return list
}

// condition returns the range as a condition, and the words that need not stand again before the next value.
func (r Range) condition(field Field) (word, condition string) {
	name, lo, hi := field.String(), int(r.Lo), int(r.Hi)
	switch field {
	case Protocol, Inner:
		return "", protocolText(r, field)
	case SourcePort, DestPort:
		if lo != hi {
			name += "range"
		}
	case Length:
		lo, hi = lo+frameHeader, hi+frameHeader
	}
	switch {
	case lo == hi:
		return name, fmt.Sprintf("%s %d", name, lo)
	case r.Hi == field.Max() && field != SourcePort && field != DestPort:
		return "", fmt.Sprintf("%s >= %d", name, lo)
	case r.Lo == 0 && field != SourcePort && field != DestPort:
		return "", fmt.Sprintf("%s <= %d", name, hi)
	}
	return name, fmt.Sprintf("%s %d-%d", name, lo, hi)
}

func protocolText(r Range, field Field) string {
	if r.Lo != r.Hi {
		return fmt.Sprintf("%v %d-%d", field, r.Lo, r.Hi)
	}
	for _, name := range protocolWords {
		if protocolNames[name] != r.Lo {
			continue
		}
		if field == Inner {
			return "inner proto " + name
		}
		return name
	}
	return fmt.Sprintf("%v %d", field, r.Lo)
}

func fragmentText(r Range) []string {
	switch r {
	case Range{FragmentFirst, FragmentLater}:
		return []string{"frag any"}
	case Range{FragmentNone, FragmentLater}:
		return []string{"frag none", "frag any"}
	}
	kinds := []string{"frag none", "frag first", "frag later"}
	return kinds[min(r.Lo, FragmentLater) : min(r.Hi, FragmentLater)+1]
}

// masked finds mask and value such that the set is every byte whose masked bits are the value.
func (s Set) masked() (mask, value uint16, ok bool) {
	if len(s) == 0 || s[len(s)-1].Hi > 0xff {
		return 0, 0, false
	}
	count, all, some := 0, uint16(0xff), uint16(0)
	for _, r := range s {
		for v := int(r.Lo); v <= int(r.Hi); v++ {
			count, all, some = count+1, all&uint16(v), some|uint16(v)
		}
	}
	mask = all | ^some&0xff
	return mask, all, mask != 0 && count == 1<<(8-bits.OnesCount16(mask))
}

// flagsText returns the comparison, turned so that it compares with 0 where one flag is asked for.
func flagsText(mask uint16, relation string, value uint16) string {
	if bits.OnesCount16(mask) == 1 && value != 0 {
		value, relation = 0, map[string]string{"=": "!=", "!=": "="}[relation]
	}
	if mask == 0xff {
		return "flags " + relation + " " + flagsSum(value)
	}
	sum := flagsSum(mask)
	if bits.OnesCount16(mask) > 1 {
		sum = "(" + sum + ")"
	}
	return "flags & " + sum + " " + relation + " " + flagsSum(value)
}

func flagsSum(value uint16) string {
	var names []string
	for bit, name := range flagNames {
		if value>>bit&1 != 0 {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return "0"
	}
	return strings.Join(names, "|")
}
