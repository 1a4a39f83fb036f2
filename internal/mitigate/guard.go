// SPDX-License-Identifier: Apache-2.0

package mitigate

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/gaissmai/bart"

	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// Protected is a prefix that no block may cover unless it is forced.
type Protected struct {
	Prefix netip.Prefix
	Why    string // what it is, as "default gateway"
	// Own is set for an address of this host. Only the guard looks at it: a
	// packet that arrives with it as its source is spoofed, and must not pass
	// as protected.
	Own bool
}

// guard answers which protected prefix a block would cover.
type guard struct {
	all   []Protected // merged, in the order of the prefixes
	tree  *bart.Table[Protected]
	since time.Time
}

func newGuard(protected []Protected, now time.Time) (guard, error) {
	g := guard{tree: &bart.Table[Protected]{}, since: now}
	for _, p := range protected {
		if err := checkPrefix(p.Prefix); err != nil {
			return guard{}, err
		}
		if p.Prefix.Bits() == 0 {
			return guard{}, fmt.Errorf("%s cannot be protected: every source would pass", p.Prefix)
		}
		if q, ok := g.tree.Get(p.Prefix); ok {
			if !slices.Contains(strings.Split(q.Why, ", "), p.Why) {
				p.Why = q.Why + ", " + p.Why
			} else {
				p.Why = q.Why
			}
			p.Own = p.Own && q.Own
		}
		g.tree.Insert(p.Prefix, p)
	}
	for _, p := range g.tree.AllSorted() {
		g.all = append(g.all, p)
	}
	return g, nil
}

// objection says why a block must not cover p, "" if it may.
func (g guard) objection(p netip.Prefix) string {
	if g.tree == nil || !g.tree.OverlapsPrefix(p) {
		return ""
	}
	for _, q := range g.tree.Subnets(p) {
		return fmt.Sprintf("covers %s (%s); %s", short(q.Prefix), q.Why, forceHint)
	}
	for _, q := range g.tree.Supernets(p) {
		return fmt.Sprintf("lies in %s (%s); %s", short(q.Prefix), q.Why, forceHint)
	}
	return ""
}

// enforced returns the entries of the packet path's protected list.
func (g guard) enforced() []traffic.Entry {
	entries := []traffic.Entry{}
	for _, p := range g.all {
		if !p.Own {
			entries = append(entries, g.entry(p))
		}
	}
	return entries
}

func (g guard) entries() []traffic.Entry {
	entries := []traffic.Entry{}
	for _, p := range g.all {
		entries = append(entries, g.entry(p))
	}
	return entries
}

func (g guard) entry(p Protected) traffic.Entry {
	return traffic.Entry{Prefix: p.Prefix, Origin: OriginSystem, Comment: p.Why, Created: g.since}
}

// SetProtected exchanges the protected set. Entries on the block list that
// cover a new one stay, but the packet path lets protected sources pass unless
// the block was forced.
func (l *Ledger) SetProtected(protected []Protected) error {
	g, err := newGuard(protected, l.o.Now())
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.o.Enforcer.Replace(traffic.ListProtected, g.enforced()); err != nil {
		return fmt.Errorf("fill the protected list: %w", err)
	}
	l.guard = g
	return nil
}

func checkPrefix(p netip.Prefix) error {
	switch {
	case !p.IsValid():
		return errors.New("not a prefix")
	case p.Addr().Is4In6():
		return fmt.Errorf("%s is an IPv4-mapped IPv6 prefix; write the IPv4 prefix", p)
	case p.Masked() != p:
		return fmt.Errorf("%s has host bits set; write %s", p, p.Masked())
	}
	return nil
}

// short writes a host without its prefix length.
func short(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}
