// SPDX-License-Identifier: Apache-2.0

package signature

import "slices"

// fieldNames are the fields in the language's own words; Fragment's and DF's values have words of their own.
var fieldNames = [NumFields]string{
	"proto", "src port", "dst port", "len", "ttl", "flags", "doff", "window", "icmptype", "icmpcode",
	"frag", "df", "inner proto",
}

// String returns the field's name in the language.
func (f Field) String() string {
	if f >= NumFields {
		return "unknown field"
	}
	return fieldNames[f]
}

// Max is the greatest value of the field; the least is 0.
func (f Field) Max() uint16 {
	switch f {
	case SourcePort, DestPort, Length, Window:
		return 0xffff
	case DataOffset:
		return 15
	case Fragment:
		return FragmentLater
	case DF:
		return 1
	}
	return 0xff
}

// NewSet returns the set of all values in the ranges, in any order, which may overlap; those
// with Lo above Hi count as empty. Of none it is the empty set, which no packet matches.
func NewSet(ranges ...Range) Set {
	sorted := slices.Clone(ranges)
	slices.SortFunc(sorted, func(a, b Range) int { return int(a.Lo) - int(b.Lo) })
	set := Set{}
	for _, r := range sorted {
		last := len(set) - 1
		switch {
		case r.Lo > r.Hi:
		case last >= 0 && int(r.Lo) <= int(set[last].Hi)+1:
			set[last].Hi = max(set[last].Hi, r.Hi)
		default:
			set = append(set, r)
		}
	}
	return set
}

// Values returns the set of single values.
func Values(values ...uint16) Set {
	ranges := make([]Range, 0, len(values))
	for _, v := range values {
		ranges = append(ranges, Range{v, v})
	}
	return NewSet(ranges...)
}

// Contains tells whether the set accepts a value; nil accepts every one.
func (s Set) Contains(value uint16) bool {
	if s == nil {
		return true
	}
	_, found := slices.BinarySearchFunc(s, value, func(r Range, v uint16) int {
		switch {
		case r.Hi < v:
			return -1
		case r.Lo > v:
			return 1
		}
		return 0
	})
	return found
}

// Union returns what either set accepts; nil if either is nil.
func (s Set) Union(t Set) Set {
	if s == nil || t == nil {
		return nil
	}
	return NewSet(slices.Concat(s, t)...)
}

// Intersect returns what both sets accept: the other one if one is nil. The result is not
// nil, but may be empty, if either is not nil.
func (s Set) Intersect(t Set) Set {
	if s == nil {
		return t
	}
	if t == nil {
		return s
	}
	both := Set{}
	for i, j := 0, 0; i < len(s) && j < len(t); {
		if lo, hi := max(s[i].Lo, t[j].Lo), min(s[i].Hi, t[j].Hi); lo <= hi {
			both = append(both, Range{lo, hi})
		}
		if s[i].Hi < t[j].Hi {
			i++
		} else {
			j++
		}
	}
	return both
}

// Complement returns the values 0…top that the set does not accept; of nil, the empty set.
func (s Set) Complement(top uint16) Set {
	rest := Set{}
	if s == nil {
		return rest
	}
	next := 0
	for _, r := range s {
		if next < int(r.Lo) {
			rest = append(rest, Range{uint16(next), min(r.Lo-1, top)})
		}
		next = int(r.Hi) + 1
	}
	if next <= int(top) {
		rest = append(rest, Range{uint16(next), top})
	}
	return rest
}

// Full tells whether the set accepts every value 0…top; nil does.
func (s Set) Full(top uint16) bool {
	return s == nil || len(s) == 1 && s[0].Lo == 0 && s[0].Hi >= top
}
