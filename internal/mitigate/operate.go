// SPDX-License-Identifier: Apache-2.0

package mitigate

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

const (
	maxComment = 200 // bytes

	forceHint    = "use --force to block it all the same"
	forceInstead = "take it out of the file, and add it with `block add --force`"

	maxTTL = 100 * 365 * 24 * time.Hour // beyond, "never" is meant
)

// AddOptions say how entries are added.
type AddOptions struct {
	Force   bool // also what covers a protected address, and /0
	Skip    bool // leave out entries that are refused, instead of refusing all
	Replace bool // the entries take the place of all that were added before, in one step
}

// Result says what became of the entries of a call.
type Result struct {
	Added   int       // were not there before
	Changed int       // were there, with another expiry, comment or origin
	Removed int       // taken away by Replace
	Refused []Refused // left out by Skip
}

// Refused is an entry that is not wanted.
type Refused struct {
	Prefix netip.Prefix
	Reason string // why, and what to do
}

// RefusedError is the refusal of a call that makes no sense or must not be
// obeyed; nothing was changed. Other errors are failures.
type RefusedError struct {
	Reason  string    // of the call as a whole, or of Item, or
	Refused []Refused // of these entries
	Item    int       // which of the signatures of the call, from 1; 0: all of them
	Err     error     // what the packet path says; nil: it was not asked
}

// Unwrap returns what the packet path says.
func (e *RefusedError) Unwrap() error { return e.Err }

// Error returns the reasons, of many entries the first five.
func (e *RefusedError) Error() string {
	if e.Reason != "" {
		return e.Reason
	}
	const most = 5
	var b strings.Builder
	for i, r := range e.Refused {
		if i == most {
			fmt.Fprintf(&b, "; and %d more", len(e.Refused)-most)
			break
		}
		if i > 0 {
			b.WriteString("; ")
		}
		fmt.Fprintf(&b, "%s: %s", r.Prefix, r.Reason)
	}
	return b.String()
}

func refuse(format string, args ...any) error {
	return &RefusedError{Reason: fmt.Sprintf(format, args...)}
}

// Add puts entries on the block or allow list. One that is there keeps its
// creation time and takes the rest from the new one; of two with the same prefix
// the later counts. A refused entry refuses the call, unless o.Skip is set.
func (l *Ledger) Add(list traffic.List, entries []traffic.Entry, o AddOptions) (Result, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	slots, ok := l.lists[list]
	if !ok {
		return Result{}, refuse("the %s list cannot be changed by hand", list)
	}
	now := l.o.Now()
	var result Result
	changed := make(map[netip.Prefix]slot, len(entries))
	own := new(wish)
	for i := range entries {
		e := &entries[i]
		w, reason := l.wish(list, e, o.Force, now)
		if reason != "" {
			result.Refused = append(result.Refused, Refused{e.Prefix, reason})
			continue
		}
		s := slots[e.Prefix]
		if s.own != nil {
			w.created = s.own.created
		}
		if own.origin == "" || !own.equal(w) {
			one := w
			own = &one
		}
		changed[e.Prefix] = slot{own, s.config} // those of an import are mostly the same, and share one
	}
	if len(result.Refused) > 0 && !o.Skip {
		return Result{}, &RefusedError{Refused: result.Refused}
	}
	added, removed := l.settle(slots, changed, o.Replace, &result)
	if err := l.room(list, added, removed); err != nil {
		return Result{}, err
	}
	if err := l.commit(changes{list: changed}, o.Replace); err != nil {
		return Result{}, err
	}
	return result, nil
}

// settle counts what the changed slots mean, drops those that change nothing,
// and, for a replacement, adds the removal of all others. It returns how many
// places on the list are taken and given back.
func (l *Ledger) settle(slots, changed map[netip.Prefix]slot, replace bool, result *Result) (added, removed int) {
	if replace {
		for p, s := range slots {
			if _, stays := changed[p]; !stays && s.own != nil {
				changed[p] = slot{config: s.config}
				result.Removed++
			}
		}
	}
	for p, s := range changed {
		before := slots[p]
		a, r := places(before, s)
		added, removed = added+a, removed+r
		switch {
		case s.own == nil:
		case before.own == nil:
			result.Added++
		case before.own.equal(*s.own):
			delete(changed, p)
		default:
			result.Changed++
		}
	}
	return added, removed
}

// places returns 1 if a slot takes a place on its list, or gives one back.
func places(before, after slot) (added, removed int) {
	switch {
	case before.empty() && !after.empty():
		return 1, 0
	case !before.empty() && after.empty():
		return 0, 1
	}
	return 0, 0
}

func (w wish) equal(o wish) bool {
	return w.expires.Equal(o.expires) && w.created.Equal(o.created) &&
		w.forced == o.forced && w.origin == o.origin && w.comment == o.comment
}

// wish checks one entry, and returns why it is refused.
func (l *Ledger) wish(list traffic.List, e *traffic.Entry, force bool, now time.Time) (wish, string) {
	w := wish{
		expires: e.Expires.UTC(), created: now.UTC(), origin: cmp.Or(e.Origin, OriginOperator), comment: e.Comment,
	}
	if err := checkPrefix(e.Prefix); err != nil {
		return w, err.Error()
	}
	if reason := lastsUntil(e.Expires, now); reason != "" {
		return w, reason
	}
	if w.origin == OriginConfig || w.origin == OriginSystem {
		return w, fmt.Sprintf("origin %q is not for entries that are added", w.origin)
	}
	if reason := noteProblem(e.Comment, w.origin); reason != "" {
		return w, reason
	}
	reason := l.objection(list, e.Prefix)
	if reason != "" && !force {
		return w, reason
	}
	w.forced = reason != "" && list == traffic.ListBlock
	return w, ""
}

// lastsUntil says what is wrong with an expiry.
func lastsUntil(expires, now time.Time) string {
	switch {
	case ended(expires, now):
		return fmt.Sprintf("expired TTL: it would have ended %s", expires.UTC().Format(time.RFC3339))
	case !expires.IsZero() && expires.Sub(now) > maxTTL:
		return "lasts longer than 100 years; leave the TTL out for never"
	}
	return ""
}

// noteProblem says what is wrong with a comment or an origin.
func noteProblem(comment, origin string) string {
	switch {
	case len(comment) > maxComment:
		return fmt.Sprintf("comment of %d bytes; at most %d fit", len(comment), maxComment)
	case !printable(comment), !printable(origin):
		return fmt.Sprintf("comment %q is not one line of text", comment)
	}
	return ""
}

// objection says why an entry needs --force.
func (l *Ledger) objection(list traffic.List, p netip.Prefix) string {
	switch {
	case p.Bits() == 0 && list == traffic.ListAllow:
		return "would let every source pass, whatever else is configured; use --force, or the bypass switch"
	case p.Bits() == 0:
		return "would block every source; " + forceHint
	case list == traffic.ListBlock:
		return l.guard.objection(p)
	}
	return ""
}

func printable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(c rune) bool { return !unicode.IsPrint(c) })
}

// room refuses changes that leave a list with more entries than it may hold.
func (l *Ledger) room(list traffic.List, added, removed int) error {
	slots := l.lists[list]
	free := max(0, l.o.MaxEntries-(len(slots)-removed))
	if added <= free {
		return nil
	}
	return refuse("the %s list is full: %d of %d entries are free, %d are needed; raise lists.max_entries, or merge prefixes",
		list, free, l.o.MaxEntries, added)
}

// Delete takes exactly these prefixes off a list and returns the entries they
// were, and the prefixes that were not there. An entry of the configuration file
// refuses the call: it would be back at the next start.
func (l *Ledger) Delete(list traffic.List, prefixes []netip.Prefix) (removed []traffic.Entry, missing []netip.Prefix, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	slots, ok := l.lists[list]
	if !ok {
		return nil, nil, refuse("the %s list cannot be changed by hand", list)
	}
	changed := map[netip.Prefix]slot{}
	var refused []Refused
	for _, p := range prefixes {
		s := slots[p]
		_, again := changed[p]
		switch {
		case s.config != nil:
			refused = append(refused, Refused{p, fmt.Sprintf("comes from the config file: remove it there, from lists.%s, and reload", list)})
		case again:
		case s.empty():
			missing = append(missing, p)
		default:
			changed[p] = slot{}
			removed = append(removed, s.entry(p))
		}
	}
	if len(refused) > 0 {
		return nil, nil, &RefusedError{Refused: refused}
	}
	if err := l.commit(changes{list: changed}, false); err != nil {
		return nil, nil, err
	}
	return removed, missing, nil
}

// Flush takes everything off a list but what the configuration file holds, and
// returns how many entries that were.
func (l *Ledger) Flush(list traffic.List) (int, error) {
	r, err := l.Add(list, nil, AddOptions{Replace: true})
	return r.Removed, err
}

// SetConfig makes the entries of the configuration file what it says now, for
// both lists at once. They are not journalled. Set the protected addresses first.
func (l *Ledger) SetConfig(block, allow []traffic.Entry) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := newChanges()
	now := l.o.Now()
	var errs []error
	for list, entries := range map[traffic.List][]traffic.Entry{traffic.ListBlock: block, traffic.ListAllow: allow} {
		errs = append(errs, l.configure(list, entries, c[list], now))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return l.commit(c, false)
}

// configure collects the changes that make entries the configuration's wishes for a list.
func (l *Ledger) configure(list traffic.List, entries []traffic.Entry, changed map[netip.Prefix]slot, now time.Time) error {
	slots := l.lists[list]
	for p, s := range slots {
		if s.config != nil {
			changed[p] = slot{own: s.own}
		}
	}
	for _, e := range entries {
		e.Origin = ""
		w, reason := l.wish(list, &e, false, now)
		if reason != "" {
			return refuse("lists.%s: %s %s", list, e.Prefix, strings.Replace(reason, forceHint, forceInstead, 1))
		}
		w.origin = OriginConfig
		s := slots[e.Prefix]
		if s.config != nil {
			w.created = s.config.created
		}
		changed[e.Prefix] = slot{s.own, &w}
	}
	added, removed := 0, 0
	for p, s := range changed {
		before := slots[p]
		a, r := places(before, s)
		added, removed = added+a, removed+r
		if before.config != nil && s.config != nil && before.config.equal(*s.config) {
			delete(changed, p)
		}
	}
	return l.room(list, added, removed)
}
