// SPDX-License-Identifier: Apache-2.0

package mitigate

import (
	"cmp"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/sentinel-x/sentinel-x/internal/signature"
)

const (
	maxExpression = 4000 // bytes
	maxRate       = 1_000_000_000
)

// pathError is what the packet path says of a set of signatures.
type pathError struct{ error }

func (e pathError) Unwrap() error { return e.error }

// AddSignatures arms rules, all of them or none, and returns them as they are
// armed: with their ID and creation time. A rule that is armed already keeps
// both and takes the rest (action, rate, ceiling, expiry, comment) from the new
// one. What must not be armed, does not fit, or what the packet path does not
// take, is a *RefusedError whose Item says which of them it is about. Force
// arms what an operator (no other origin) was warned of; o.Skip and o.Replace
// are not for signatures.
func (l *Ledger) AddSignatures(wanted []signature.Armed, o AddOptions) ([]signature.Armed, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.o.Now()
	next, last := l.liveSignatures(now), l.lastSignature
	armed := make([]signature.Armed, 0, len(wanted))
	for i, s := range wanted {
		s, reason := l.checkSignature(s, o.Force, now)
		if reason != "" {
			return nil, &RefusedError{Reason: reason, Item: i + 1}
		}
		at := slices.IndexFunc(next, func(x signature.Armed) bool { return reflect.DeepEqual(x.Rule, s.Rule) })
		if at < 0 {
			last++
			s.ID = last
			next = append(next, s)
		} else {
			s.ID, s.Created = next[at].ID, next[at].Created
			next[at] = s
		}
		armed = append(armed, s)
	}
	if err := roomForSignatures(next); err != nil {
		return nil, err
	}
	unarmed := l.unarmed
	l.unarmed = without(unarmed, armed) // what was refused at the start gets another try
	err := l.commitSignatures(next, last)
	if err != nil {
		l.unarmed = unarmed
	}
	if path, ok := errors.AsType[pathError](err); ok {
		return nil, &RefusedError{Reason: path.Error(), Err: path.error}
	}
	return armed, err
}

func without(unarmed map[uint64]string, armed []signature.Armed) map[uint64]string {
	left := map[uint64]string{}
	for id, why := range unarmed {
		if !slices.ContainsFunc(armed, func(s signature.Armed) bool { return s.ID == id }) {
			left[id] = why
		}
	}
	return left
}

func roomForSignatures(next []signature.Armed) error {
	filters := 0
	for _, s := range next {
		if s.Rule.Filter != "" {
			filters++
		}
	}
	switch {
	case len(next) > signature.Slots:
		return refuse("%d signatures would be armed, and there are %d slots; delete one first", len(next), signature.Slots)
	case filters > signature.MaxFilters:
		return refuse("%d signatures would run as extra programs, at most %d can; delete one first, or write it with the fields of docs/signatures.md", filters, signature.MaxFilters)
	}
	return nil
}

// checkSignature completes one that is wanted, and returns why it is refused.
func (l *Ledger) checkSignature(s signature.Armed, force bool, now time.Time) (signature.Armed, string) {
	s.ID, s.Created, s.Expires = 0, now.UTC(), s.Expires.UTC()
	s.Origin = cmp.Or(s.Origin, OriginOperator)
	if err := s.Rule.Validate(); err != nil {
		return s, err.Error()
	}
	for _, reason := range []string{termsOf(s), textsOf(s), lastsUntil(s.Expires, now)} {
		if reason != "" {
			return s, reason
		}
	}
	reason := l.guard.signatureObjection(s)
	switch {
	case reason == "", force && s.Origin == OriginOperator:
		return s, ""
	case s.Origin != OriginOperator:
		return s, reason
	}
	return s, reason + ", or use --force"
}

// termsOf says what is wrong with what is done with packets that match.
func termsOf(s signature.Armed) string {
	switch {
	case s.Action != signature.Observe && s.Action != signature.Drop && s.Action != signature.Limit:
		return fmt.Sprintf("action %d is none of observe, drop and limit", s.Action)
	case s.Action == signature.Limit && s.Rate == 0:
		return "to limit needs a rate above 0; to let nothing pass, drop"
	case s.Action != signature.Limit && s.Rate != 0:
		return fmt.Sprintf("a rate is for limit, not for %s", s.Action)
	case s.Rate > maxRate:
		return fmt.Sprintf("rate %d is above %d packets a second", s.Rate, maxRate)
	case !(s.Ceiling > 0 && s.Ceiling <= signature.FullCeiling): // also not a number
		return fmt.Sprintf("ceiling %v is not above 0 and at most 1 (100%%)", s.Ceiling)
	}
	return ""
}

func textsOf(s signature.Armed) string {
	text := s.Text
	switch {
	case strings.TrimSpace(text) == "":
		return "an expression is missing"
	case len(text) > maxExpression:
		return fmt.Sprintf("expression of %d bytes; at most %d fit", len(text), maxExpression)
	case !printable(text), !printable(s.Rule.Filter):
		return fmt.Sprintf("expression %q is not one line of text", text)
	case s.Origin == OriginConfig, s.Origin == OriginSystem:
		return fmt.Sprintf("origin %q is not for signatures that are added", s.Origin)
	}
	return noteProblem(s.Comment, s.Origin)
}

// DeleteSignatures disarms rules by their IDs and returns them, and the IDs that no rule has.
func (l *Ledger) DeleteSignatures(ids []uint64) (removed []signature.Armed, missing []uint64, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	next := l.liveSignatures(l.o.Now())
	for _, id := range ids {
		at := slices.IndexFunc(next, func(s signature.Armed) bool { return s.ID == id })
		if at < 0 {
			missing = append(missing, id)
			continue
		}
		removed = append(removed, next[at])
		next = slices.Delete(next, at, at+1)
	}
	if len(removed) == 0 {
		return nil, missing, nil
	}
	if err := l.commitSignatures(next, l.lastSignature); err != nil {
		return nil, nil, err
	}
	return removed, missing, nil
}

// FlushSignatures disarms every rule and returns how many there were.
func (l *Ledger) FlushSignatures() (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := len(l.signatures)
	if n == 0 {
		return 0, nil
	}
	return n, l.commitSignatures(nil, l.lastSignature)
}

// Signatures returns the rules that have not ended, in the order of their IDs,
// also those that are in Unarmed.
func (l *Ledger) Signatures() []signature.Armed {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.liveSignatures(l.o.Now())
}

// Unarmed says why rules of the journal are not in force, by ID: the packet path
// did not take them at the start. They are tried again at the next one, or when
// they are added again.
func (l *Ledger) Unarmed() map[uint64]string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return without(l.unarmed, nil)
}

func (l *Ledger) liveSignatures(now time.Time) []signature.Armed {
	live := make([]signature.Armed, 0, len(l.signatures)+1)
	for _, s := range l.signatures {
		if !ended(s.Expires, now) {
			live = append(live, s)
		}
	}
	return live
}

// commitSignatures makes a set the armed one in the packet path, then in the
// journal, then here. If one step fails, those before it are undone.
func (l *Ledger) commitSignatures(next []signature.Armed, last uint64) error {
	if err := l.o.Enforcer.SetSignatures(l.enforced(next)); err != nil {
		return pathError{fmt.Errorf("nothing was changed: %w", err)}
	}
	if err := l.journal.writeSignatures(next, last); err != nil {
		l.lastSignature = last // the packet path has seen the IDs: it may count on them still
		return l.rollback(err, []func() error{func() error {
			err := l.o.Enforcer.SetSignatures(l.enforced(l.signatures))
			l.signaturesBehind = err != nil
			return err
		}})
	}
	l.signatures, l.lastSignature, l.signaturesBehind = next, last, false
	for id := range l.unarmed {
		if !slices.ContainsFunc(next, func(s signature.Armed) bool { return s.ID == id }) {
			delete(l.unarmed, id)
		}
	}
	return nil
}

// enforced returns what of a set the packet path is to have.
func (l *Ledger) enforced(set []signature.Armed) []signature.Armed {
	out := make([]signature.Armed, 0, len(set))
	for _, s := range set {
		if _, not := l.unarmed[s.ID]; !not {
			out = append(out, s)
		}
	}
	return out
}

// restoreSignatures arms what the journal holds. A rule that this kernel, or this
// version, does not take must not keep all the rest from protecting the host: the
// rules are tried one after the other then, and those refused are in Unarmed.
func (l *Ledger) restoreSignatures() error {
	l.unarmed = map[uint64]string{}
	if live := l.liveSignatures(l.o.Now()); len(live) < len(l.signatures) {
		if err := l.journal.writeSignatures(live, l.lastSignature); err != nil {
			return err
		}
		l.signatures = live
	}
	err := l.o.Enforcer.SetSignatures(l.enforced(l.signatures))
	if err == nil {
		l.signaturesBehind = false
		return nil
	}
	for _, s := range l.signatures {
		l.unarmed[s.ID] = err.Error()
	}
	for _, s := range l.signatures {
		delete(l.unarmed, s.ID)
		if err := l.o.Enforcer.SetSignatures(l.enforced(l.signatures)); err != nil {
			l.unarmed[s.ID] = err.Error()
			l.o.Log.Error("signature is not armed", "id", s.ID, "expression", s.Text, "error", err)
		}
	}
	if len(l.unarmed) < len(l.signatures) {
		return nil
	}
	if err := l.o.Enforcer.SetSignatures(nil); err != nil {
		return fmt.Errorf("empty the signatures: %w", err)
	}
	return nil
}

// expireSignatures disarms what has had its time and returns how many rules that were.
func (l *Ledger) expireSignatures() (int, error) {
	live := l.liveSignatures(l.o.Now())
	n := len(l.signatures) - len(live)
	if n == 0 {
		return 0, nil
	}
	if err := l.commitSignatures(live, l.lastSignature); err != nil {
		return 0, fmt.Errorf("remove %d expired signatures: %w", n, err)
	}
	return n, nil
}

// repairSignatures puts the packet path right after a change that could not be undone.
func (l *Ledger) repairSignatures() error {
	if !l.signaturesBehind {
		return nil
	}
	if err := l.o.Enforcer.SetSignatures(l.enforced(l.signatures)); err != nil {
		return fmt.Errorf("repair the signatures: %w", err)
	}
	l.signaturesBehind = false
	l.o.Log.Info("signatures repaired")
	return nil
}
