// SPDX-License-Identifier: Apache-2.0

// Package mitigate is the ledger of what operators and the configuration want
// on the block and allow lists, and of the signatures that are armed. It guards
// against blocking what must stay reachable, ends entries when their time is up,
// keeps what operators want in a journal on disk, and makes the packet path agree
// with all of it.
//
// A call that changes something works as a whole or not at all. The packet path
// changes first, then the journal is written and synced; if that fails, the
// packet path is put back. What a call has acknowledged survives a power cut.
package mitigate

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/sentinel-x/sentinel-x/internal/signature"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// Origins of entries that the ledger itself sets.
const (
	OriginOperator = "operator" // Add, unless the entry says otherwise
	OriginConfig   = "config"   // SetConfig
	OriginSystem   = "system"   // SetProtected
)

// Enforcer is the packet path's side of the lists and signatures.
type Enforcer interface {
	// Put adds entries or overwrites them, all or nothing.
	Put(list traffic.List, entries []traffic.Entry) error
	// Remove takes entries off a list, all or nothing. Absent ones are ignored.
	Remove(list traffic.List, prefixes []netip.Prefix) error
	// Replace exchanges a whole list in one step.
	Replace(list traffic.List, entries []traffic.Entry) error
	// SetSignatures exchanges all rules in one step, or leaves those it has in force.
	SetSignatures(armed []signature.Armed) error
}

// Options say what a ledger works with.
type Options struct {
	Path       string           // the journal's file; its directory is created (0700)
	Enforcer   Enforcer         // required
	MaxEntries int              // most entries of the block and of the allow list, from all origins
	Now        func() time.Time // time.Now if nil
	Log        *slog.Logger     // silent if nil
}

// Ledger holds the lists. Its methods may be called from several goroutines.
type Ledger struct {
	o       Options
	journal *journal

	mu     sync.Mutex
	lists  map[traffic.List]map[netip.Prefix]slot // block and allow
	ends   endings
	guard  guard
	behind map[traffic.List]bool // lists on which the packet path may differ: a change could not be undone
	hits   map[traffic.List]map[netip.Prefix]hit

	signatures       []signature.Armed // in the order of their IDs
	lastSignature    uint64            // the highest ID ever given
	unarmed          map[uint64]string // why the packet path did not take them at the start
	signaturesBehind bool              // as behind, of the signatures

	tallies map[traffic.List]*tally
}

// wish is what one origin wants of one prefix.
type wish struct {
	expires time.Time // zero: never
	created time.Time
	forced  bool
	origin  string
	comment string
}

// slot holds the wishes for one prefix of one list.
type slot struct {
	own    *wish // of an operator, or whoever called Add: journalled
	config *wish // of the configuration file
}

func (s slot) empty() bool { return s.own == nil && s.config == nil }

// entry merges the wishes: it lasts as long as the longer one, and the
// operator's comment goes before the file's.
func (s slot) entry(p netip.Prefix) traffic.Entry {
	w, o := s.own, s.config
	if w == nil {
		w, o = o, nil
	}
	e := traffic.Entry{
		Prefix: p, Expires: w.expires, Forced: w.forced,
		Origin: w.origin, Comment: w.comment, Created: w.created,
	}
	if o == nil {
		return e
	}
	e.Forced = e.Forced || o.forced
	e.Origin += "+" + o.origin
	e.Comment = cmp.Or(e.Comment, o.comment)
	if o.created.Before(e.Created) {
		e.Created = o.created
	}
	if o.expires.IsZero() || !e.Expires.IsZero() && o.expires.After(e.Expires) {
		e.Expires = o.expires
	}
	return e
}

// at returns the slot without the wishes that have ended.
func (s slot) at(now time.Time) slot {
	if s.own != nil && ended(s.own.expires, now) {
		s.own = nil
	}
	if s.config != nil && ended(s.config.expires, now) {
		s.config = nil
	}
	return s
}

func ended(expires, now time.Time) bool { return !expires.IsZero() && !now.Before(expires) }

// Open opens or creates the journal and reads it. The packet path stays as it
// is until Restore. The error names the file and says what to do.
func Open(o Options) (*Ledger, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	j, err := openJournal(o.Path)
	if err != nil {
		return nil, err
	}
	l := &Ledger{o: o, journal: j, behind: map[traffic.List]bool{}}
	l.lists = map[traffic.List]map[netip.Prefix]slot{traffic.ListBlock: {}, traffic.ListAllow: {}}
	l.hits = map[traffic.List]map[netip.Prefix]hit{traffic.ListBlock: {}, traffic.ListAllow: {}}
	l.tallies = map[traffic.List]*tally{
		traffic.ListBlock: {sources: map[netip.Addr]sampled{}}, traffic.ListAllow: {sources: map[netip.Addr]sampled{}},
	}
	err = j.read(func(list traffic.List, p netip.Prefix, w *wish) {
		if w == nil {
			delete(l.lists[list], p)
			return
		}
		l.lists[list][p] = slot{own: w}
	})
	if err == nil {
		l.ends = l.endings()
		l.signatures, l.lastSignature, err = j.readSignatures()
	}
	if err != nil {
		return nil, closeAfter(err, j)
	}
	return l, nil
}

// Close closes the journal. The packet path keeps its lists.
func (l *Ledger) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.journal.close()
}

// Restore makes the packet path's lists, the protected one included, and its
// signatures what the ledger holds, whatever they were before. What ended
// meanwhile is dropped, also from the journal.
func (l *Ledger) Restore() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, err := l.expire(); err != nil {
		return err
	}
	for _, list := range []traffic.List{traffic.ListProtected, traffic.ListAllow, traffic.ListBlock} {
		if n := len(l.lists[list]); n > l.o.MaxEntries {
			return fmt.Errorf("the journal %s holds %d entries of the %s list, but lists.max_entries is %d: raise it", l.o.Path, n, list, l.o.MaxEntries)
		}
		if err := l.replay(list); err != nil {
			return err
		}
	}
	return l.restoreSignatures()
}

// replay replaces a list of the packet path by what the ledger holds.
func (l *Ledger) replay(list traffic.List) error {
	entries := l.guard.enforced()
	if list != traffic.ListProtected {
		entries = merged(l.lists[list])
	}
	if err := l.o.Enforcer.Replace(list, entries); err != nil {
		return fmt.Errorf("fill the %s list: %w", list, err)
	}
	delete(l.behind, list)
	return nil
}

// merged returns the entries of a list in the order of their prefixes.
func merged(slots map[netip.Prefix]slot) []traffic.Entry {
	return (&change{before: slots}).entries()
}

// Entries returns what is in force on a list, in the order of the prefixes. Of
// the protected list it also returns the host's own addresses, which the guard
// alone looks at.
func (l *Ledger) Entries(list traffic.List) []traffic.Entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	if list == traffic.ListProtected {
		return l.guard.entries()
	}
	now := l.o.Now()
	entries := slices.DeleteFunc(merged(l.lists[list]), func(e traffic.Entry) bool { return e.Expired(now) })
	for i := range entries {
		entries[i] = l.withHits(list, entries[i])
	}
	return entries
}

// Count returns how many entries a list holds, without copying them. One that
// has ended counts until the next Expire.
func (l *Ledger) Count(list traffic.List) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if list == traffic.ListProtected {
		return len(l.guard.all)
	}
	return len(l.lists[list])
}

// Match is an entry that covers an address.
type Match struct {
	List  traffic.List
	Entry traffic.Entry
}

// Find returns every entry of every list that covers an address, the longest
// prefix first.
func (l *Ledger) Find(addr netip.Addr) []Match {
	addr = addr.Unmap().WithZone("")
	l.mu.Lock()
	defer l.mu.Unlock()
	var found []Match
	for _, e := range l.guard.entries() {
		if e.Prefix.Contains(addr) {
			found = append(found, Match{traffic.ListProtected, e})
		}
	}
	now := l.o.Now()
	for bits := addr.BitLen(); bits >= 0 && addr.IsValid(); bits-- {
		p := netip.PrefixFrom(addr, bits).Masked()
		for _, list := range []traffic.List{traffic.ListAllow, traffic.ListBlock} {
			if s := l.lists[list][p].at(now); !s.empty() {
				found = append(found, Match{list, l.withHits(list, s.entry(p))})
			}
		}
	}
	slices.SortStableFunc(found, func(a, b Match) int { return cmp.Compare(b.Entry.Prefix.Bits(), a.Entry.Prefix.Bits()) })
	return found
}

// Expire ends what has had its time, in the packet path, here and in the
// journal, and returns how many entries and signatures that were. The packet
// path stops heeding them at the right moment by itself; this only frees their
// place. It also repairs the packet path after a change that could not be undone.
func (l *Ledger) Expire() (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n, err := l.expireLists()
	rules, ruleErr := 0, l.repairSignatures()
	if ruleErr == nil {
		rules, ruleErr = l.expireSignatures()
	}
	return n + rules, errors.Join(err, ruleErr)
}

func (l *Ledger) expireLists() (int, error) {
	for _, list := range slices.Sorted(maps.Keys(l.behind)) {
		if err := l.replay(list); err != nil {
			return 0, err
		}
		l.o.Log.Info("list repaired", "list", list.String())
	}
	return l.expire()
}

func (l *Ledger) expire() (int, error) {
	now := l.o.Now()
	due := l.ends.due(now)
	if len(due) == 0 {
		return 0, nil
	}
	changes := newChanges()
	n := 0
	for _, e := range due {
		before, ok := l.lists[e.list][e.prefix]
		if after := before.at(now); ok && after != before {
			if _, seen := changes[e.list][e.prefix]; !seen {
				n++
			}
			changes[e.list][e.prefix] = after
		}
	}
	if err := l.commit(changes, false); err != nil {
		l.ends.add(due...)
		return 0, fmt.Errorf("remove %d expired entries: %w", n, err)
	}
	return n, nil
}
