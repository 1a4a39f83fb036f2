// SPDX-License-Identifier: Apache-2.0

package signature

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// MaxRanges is how many ranges one set may have.
const MaxRanges = 128

// Packet is what rules look at: the innermost IP packet that was looked into.
type Packet struct {
	Family      uint8            // 4, 6
	Destination netip.Addr       // an IPv4 one not mapped into IPv6
	Values      [NumFields]int32 // -1: the packet lacks the field; a Length above 65 535 counts as that
	// Payload is the data behind the layer-4 header, as far as the IP header announces it and
	// the frame holds it; empty for a later fragment and where that header does not fit.
	Payload []byte
}

// ErrNothing says that no packet can match a rule.
var ErrNothing = errors.New("matches nothing")

// Match tells whether the packet matches everything that the rule sets. Filter is not
// evaluated: the rule matches as if it had none.
func (r Rule) Match(p Packet) bool {
	if r.Family != 0 && r.Family != p.Family {
		return false
	}
	if r.Target != (netip.Prefix{}) && !r.Target.Contains(p.Destination) {
		return false
	}
	for f, set := range r.Fields {
		if set == nil {
			continue
		}
		value := min(p.Values[f], 0xffff)
		if value < 0 || !set.Contains(uint16(value)) {
			return false
		}
	}
	for _, word := range r.Payload {
		if !word.match(p.Payload) {
			return false
		}
	}
	return true
}

func (w Word) match(payload []byte) bool {
	for i := range int(w.Size) {
		mask, value := w.at(i)
		if mask == 0 {
			continue
		}
		at := int(w.Offset) + i
		if at >= len(payload) || payload[at]&mask != value {
			return false
		}
	}
	return true
}

// at returns mask and value of the word's byte i, counted from its first.
func (w Word) at(i int) (mask, value byte) {
	shift := 8 * (int(w.Size) - 1 - i)
	return byte(w.Mask >> shift), byte(w.Value >> shift)
}

// full is the mask that looks at every bit of the word.
func (w Word) full() uint64 {
	return ^uint64(0) >> (64 - 8*min(int(w.Size), 8))
}

// Bounded tells whether the rule has a target, and not one that is every address.
func (r Rule) Bounded() bool {
	return r.Target.IsValid() && r.Target.Bits() > 0
}

// Selective tells whether the rule leaves out any of its target's packets of its family, as far as
// can be told: a Filter counts as selective, a field that every packet has only if a value is left out.
func (r Rule) Selective() bool {
	for f, set := range r.Fields {
		field := Field(f)
		switch field {
		case Protocol, Length, TTL, Fragment, DF:
			if !set.Full(field.Max()) {
				return true
			}
		default:
			if set != nil {
				return true
			}
		}
	}
	return len(r.Payload) > 0 || r.Filter != ""
}

// Validate tells what is wrong with the rule: a set that is not sorted, overlaps, or leaves the field's
// values; a word out of bounds; a target with host bits, or of another family; and, wrapping
// ErrNothing, what no packet can match. Filter is not looked at.
func (r Rule) Validate() error {
	if r.Family != 0 && r.Family != 4 && r.Family != 6 {
		return fmt.Errorf("family %d: want 4, 6, or 0 for both", r.Family)
	}
	if err := r.validateTarget(); err != nil {
		return err
	}
	for f, set := range r.Fields {
		if err := set.validate(Field(f)); err != nil {
			return err
		}
	}
	if err := validateWords(r.Payload); err != nil {
		return err
	}
	return r.possible()
}

func (r Rule) validateTarget() error {
	switch {
	case r.Target == netip.Prefix{}:
		return nil
	case !r.Target.IsValid():
		return errors.New("target is not a prefix")
	case r.Target.Addr().Is4In6():
		return fmt.Errorf("target %v: write the IPv4 prefix, not one mapped into IPv6", r.Target)
	case r.Target != r.Target.Masked():
		return fmt.Errorf("target %v has host bits set: write %v", r.Target, r.Target.Masked())
	case r.Family != 0 && r.Target.Addr().Is4() != (r.Family == 4):
		return fmt.Errorf("%w: target %v is not IPv%d", ErrNothing, r.Target, r.Family)
	}
	return nil
}

func (s Set) validate(field Field) error {
	if s == nil {
		return nil
	}
	if len(s) == 0 {
		return fmt.Errorf("%w: %v accepts no value", ErrNothing, field)
	}
	if len(s) > MaxRanges {
		return fmt.Errorf("%v has %d ranges: at most %d", field, len(s), MaxRanges)
	}
	next := 0
	for _, r := range s {
		if r.Lo > r.Hi || int(r.Lo) < next {
			return fmt.Errorf("%v: range %d-%d: want ascending ranges that neither overlap nor touch", field, r.Lo, r.Hi)
		}
		if r.Hi > field.Max() {
			return fmt.Errorf("%v: %d is out of range: at most %d", field, r.Hi, field.Max())
		}
		next = int(r.Hi) + 2
	}
	return nil
}

func validateWords(words []Word) error {
	if len(words) > MaxWords {
		return fmt.Errorf("%d conditions on the payload: at most %d", len(words), MaxWords)
	}
	for i, w := range words {
		switch {
		case w.Size < 1 || w.Size > 8:
			return fmt.Errorf("payload word of %d bytes: want 1 to 8", w.Size)
		case int(w.Offset)+int(w.Size) > MaxOffset+1:
			return fmt.Errorf("payload word at %d of %d bytes: must end within the first %d bytes", w.Offset, w.Size, MaxOffset+1)
		case w.Mask == 0:
			return fmt.Errorf("payload word at %d: mask 0 looks at nothing", w.Offset)
		case w.Mask&^w.full() != 0:
			return fmt.Errorf("payload word at %d: mask %#x does not fit %d bytes", w.Offset, w.Mask, w.Size)
		case w.Value&^w.Mask != 0:
			return fmt.Errorf("%w: payload word at %d: value %#x has bits that mask %#x clears", ErrNothing, w.Offset, w.Value, w.Mask)
		case slices.Contains(words[:i], w):
			return fmt.Errorf("payload word at %d stands twice", w.Offset)
		}
	}
	if at, clash := clashing(words); clash {
		return fmt.Errorf("%w: payload byte %d cannot be two values", ErrNothing, at)
	}
	return nil
}

// clashing finds a byte from which two of the words want different bits.
func clashing(words []Word) (at int, found bool) {
	for i, a := range words {
		for _, b := range words[:i] {
			for k := range int(a.Size) {
				at = int(a.Offset) + k
				j := at - int(b.Offset)
				if j < 0 || j >= int(b.Size) {
					continue
				}
				maskA, valueA := a.at(k)
				maskB, valueB := b.at(j)
				if (valueA^valueB)&maskA&maskB != 0 {
					return at, true
				}
			}
		}
	}
	return 0, false
}

// carriers are the protocols that have a field; a field that is not in it every packet has.
var carriers = map[Field]Set{
	SourcePort: Values(protoTCP, protoUDP),
	DestPort:   Values(protoTCP, protoUDP),
	TCPFlags:   Values(protoTCP),
	DataOffset: Values(protoTCP),
	Window:     Values(protoTCP),
	ICMPType:   Values(protoICMP, protoICMP6),
	ICMPCode:   Values(protoICMP, protoICMP6),
}

// possible finds fields that no packet has together.
func (r Rule) possible() error {
	protocols := r.Fields[Protocol]
	onlyLater := r.Fields[Fragment] != nil && r.Fields[Fragment].Intersect(Values(FragmentNone, FragmentFirst)).empty()
	for f, set := range r.Fields {
		carrier, ok := carriers[Field(f)]
		if set == nil || !ok {
			continue
		}
		if protocols = protocols.Intersect(carrier); protocols.empty() {
			return fmt.Errorf("%w: no packet of these protocols has %v", ErrNothing, Field(f))
		}
		if onlyLater {
			return fmt.Errorf("%w: later fragments have no %v", ErrNothing, Field(f))
		}
	}
	if onlyLater && len(r.Payload) > 0 {
		return fmt.Errorf("%w: the payload of later fragments is not looked at", ErrNothing)
	}
	if r.Fields[DF] != nil && (r.Family == 6 || r.Target.Addr().Is6()) {
		return fmt.Errorf("%w: IPv6 has no df", ErrNothing)
	}
	if in := r.Fields[Inner]; in != nil && in.Intersect(protocols).empty() {
		return fmt.Errorf("%w: the packet inside a tunnel cannot be of two protocols", ErrNothing)
	}
	return nil
}

// empty: no value at all, which nil is not.
func (s Set) empty() bool { return s != nil && len(s) == 0 }
