// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/cilium/ebpf"
	"github.com/gaissmai/bart"
	"golang.org/x/sys/unix"

	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// ErrFull is returned by Put and Replace when the entries do not fit; nothing was changed.
var ErrFull = errors.New("list is full")

const never = ^uint64(0)

// source is what each list itself says of one prefix, as times of the program's
// clock: 0 not listed, never-ending ^0. Covering prefixes are not folded in.
type source bpfSourceValue

func (s source) empty() bool { return s == source{} }

// fold returns the later end of both for each list.
func (s source) fold(o source) source {
	return source{
		Blocked: max(s.Blocked, o.Blocked), Forced: max(s.Forced, o.Forced),
		Allowed: max(s.Allowed, o.Allowed), Protected: max(s.Protected, o.Protected),
	}
}

// set writes one entry of a list, or takes it off with until 0.
func (s *source) set(list traffic.List, until uint64, forced bool) {
	switch list {
	case traffic.ListAllow:
		s.Allowed = until
	case traffic.ListProtected:
		s.Protected = until
	case traffic.ListBlock:
		s.Blocked, s.Forced = until, 0
		if forced {
			s.Forced = until
		}
	}
}

// until returns when an entry ends on the program's clock: CLOCK_MONOTONIC, which
// no change of the wall clock moves, or, in replay, the capture's own.
func (p *Plane) until(expires time.Time) uint64 {
	switch {
	case expires.IsZero():
		return never
	case p.replay:
		return uint64(max(1, expires.UnixNano()))
	}
	return uint64(max(1, int64(monotonic())+int64(time.Until(expires))))
}

func monotonic() uint64 {
	var ts unix.Timespec
	// It fails for an unknown clock or a bad pointer only.
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return uint64(ts.Nano())
}

// Put adds entries to a list; one whose prefix is on it already is overwritten. All
// or nothing. Each prefix changes in one step, several of them one after the other.
func (p *Plane) Put(list traffic.List, entries []traffic.Entry) error {
	if err := checkEntries(entries); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.checkRoom(entries); err != nil {
		return err
	}
	own := make(map[netip.Prefix]source, len(entries))
	for _, e := range entries {
		s := p.own(own, e.Prefix)
		s.set(list, p.until(e.Expires), e.Forced)
		own[e.Prefix] = s
	}
	return p.apply(own)
}

// Remove takes prefixes off a list; those that are not on it are ignored. All or nothing.
func (p *Plane) Remove(list traffic.List, prefixes []netip.Prefix) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	own := make(map[netip.Prefix]source, len(prefixes))
	for _, prefix := range prefixes {
		s, ok := p.sources.Get(prefix)
		if !ok {
			continue
		}
		s.set(list, 0, false)
		own[prefix] = s
	}
	return p.apply(own)
}

// Replace puts a whole list in place of another in one step: no packet sees a mixture.
func (p *Plane) Replace(list traffic.List, entries []traffic.Entry) error {
	if err := checkEntries(entries); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	next := &bart.Table[source]{}
	for prefix, s := range p.sources.All() {
		s.set(list, 0, false)
		if !s.empty() {
			next.Insert(prefix, s)
		}
	}
	for _, e := range entries {
		s, _ := next.Get(e.Prefix)
		s.set(list, p.until(e.Expires), e.Forced)
		next.Insert(e.Prefix, s)
	}
	if n := max(next.Size4(), next.Size6()); n > p.o.MaxEntries {
		return fmt.Errorf("%w: %d prefixes of one address family, %d fit", ErrFull, n, p.o.MaxEntries)
	}
	return p.replaceTries(next)
}

// own returns what the lists say of exactly this prefix, pending changes first.
func (p *Plane) own(pending map[netip.Prefix]source, prefix netip.Prefix) source {
	if s, ok := pending[prefix]; ok {
		return s
	}
	s, _ := p.sources.Get(prefix)
	return s
}

func checkEntries(entries []traffic.Entry) error {
	for _, e := range entries {
		switch {
		case !e.Prefix.IsValid(), e.Prefix != e.Prefix.Masked():
			return fmt.Errorf("prefix %v: not a masked prefix", e.Prefix)
		case e.Prefix.Addr().Is4In6():
			return fmt.Errorf("prefix %v: IPv4-mapped IPv6 never appears on the wire, use the IPv4 prefix", e.Prefix)
		}
	}
	return nil
}

// checkRoom refuses before anything is touched.
func (p *Plane) checkRoom(entries []traffic.Entry) error {
	seen := make(map[netip.Prefix]bool, len(entries))
	size := [2]int{p.sources.Size4(), p.sources.Size6()}
	for _, e := range entries {
		if _, ok := p.sources.Get(e.Prefix); ok || seen[e.Prefix] {
			continue
		}
		seen[e.Prefix] = true
		size[family(e.Prefix)]++
	}
	if n := max(size[0], size[1]); n > p.o.MaxEntries {
		return fmt.Errorf("%w: %d prefixes of one address family, %d fit", ErrFull, n, p.o.MaxEntries)
	}
	return nil
}

func family(prefix netip.Prefix) int {
	if prefix.Addr().Is4() {
		return 0
	}
	return 1
}

// apply makes the changes in memory and in the kernel, or in neither.
func (p *Plane) apply(changes map[netip.Prefix]source) error {
	before := make(map[netip.Prefix]source, len(changes))
	for prefix := range changes {
		before[prefix], _ = p.sources.Get(prefix)
	}
	if err := p.store(changes); err != nil {
		return errors.Join(err, p.store(before))
	}
	return nil
}

func (p *Plane) store(changes map[netip.Prefix]source) error {
	for prefix, s := range changes {
		if s.empty() {
			p.sources.Delete(prefix)
		} else {
			p.sources.Insert(prefix, s)
		}
	}
	if p.sources.Size() > 0 && p.knobs.Listed == 0 {
		p.knobs.Listed = 1
		if err := p.publish(); err != nil {
			return err
		}
	}
	if err := p.push(changes); err != nil {
		return err
	}
	if p.sources.Size() == 0 && p.knobs.Listed == 1 {
		p.knobs.Listed = 0
		return p.publish()
	}
	return nil
}

// push writes the changed prefixes and all that they cover to the kernel.
func (p *Plane) push(changes map[netip.Prefix]source) error {
	affected := make(map[netip.Prefix]bool, len(changes))
	for prefix := range changes {
		for nested := range p.sources.Subnets(prefix) {
			affected[nested] = true
		}
	}
	var b [2]batch
	for prefix := range affected {
		b[family(prefix)].add(prefix, folded(p.sources, prefix))
	}
	for f := range b {
		if err := b[f].update(p.tries[f]); err != nil {
			return err
		}
	}
	for prefix, s := range changes {
		if !s.empty() {
			continue
		}
		if err := p.tries[family(prefix)].Delete(trieKey(prefix)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("remove %v from the kernel: %w", prefix, err)
		}
	}
	return nil
}

// folded returns what the lists say of a prefix and of all that cover it.
func folded(t *bart.Table[source], prefix netip.Prefix) (sum source) {
	for _, s := range t.Supernets(prefix) {
		sum = sum.fold(s)
	}
	return sum
}

// replaceTries builds new tries and puts them in force. The caller holds mu.
func (p *Plane) replaceTries(next *bart.Table[source]) error {
	var b [2]batch
	for prefix := range next.All() {
		b[family(prefix)].add(prefix, folded(next, prefix))
	}
	var tries [2]*ebpf.Map
	for f, outer := range []string{bpfMapSources4, bpfMapSources6} {
		spec := p.spec.Maps[outer].InnerMap.Copy()
		spec.Name = outer
		trie, err := ebpf.NewMap(spec)
		if err == nil {
			tries[f] = trie
			err = b[f].update(trie)
		}
		if err != nil {
			closeMaps(tries[:])
			return fmt.Errorf("build list: %w", err)
		}
	}
	return p.swap(tries, next)
}

func (p *Plane) swap(tries [2]*ebpf.Map, next *bart.Table[source]) error {
	p.knobs.Listed = toByte(next.Size() > 0 || p.sources.Size() > 0)
	err := p.publish()
	for f, outer := range []*ebpf.Map{p.objs.Sources4, p.objs.Sources6} {
		if err == nil {
			err = outer.Put(uint32(0), tries[f])
		}
	}
	if err != nil {
		if p.tries[0] != nil {
			err = errors.Join(err, p.objs.Sources4.Put(uint32(0), p.tries[0]))
		}
		closeMaps(tries[:])
		return fmt.Errorf("put list in place: %w", err)
	}
	closeMaps(p.tries[:])
	p.tries, p.sources = tries, next
	p.knobs.Listed = toByte(next.Size() > 0)
	return p.publish()
}

func closeMaps(maps []*ebpf.Map) {
	for _, m := range maps {
		if m != nil {
			m.Close()
		}
	}
}

// batch collects keys and values of one trie.
type batch struct {
	keys4  []bpfSource4Key
	keys6  []bpfSource6Key
	values []bpfSourceValue
}

func (b *batch) add(prefix netip.Prefix, s source) {
	if s.empty() {
		return
	}
	if prefix.Addr().Is4() {
		b.keys4 = append(b.keys4, bpfSource4Key{Prefixlen: uint32(prefix.Bits()), Addr: prefix.Addr().As4()})
	} else {
		b.keys6 = append(b.keys6, bpfSource6Key{Prefixlen: uint32(prefix.Bits()), Addr: prefix.Addr().As16()})
	}
	b.values = append(b.values, bpfSourceValue(s))
}

func trieKey(prefix netip.Prefix) any {
	if prefix.Addr().Is4() {
		return bpfSource4Key{Prefixlen: uint32(prefix.Bits()), Addr: prefix.Addr().As4()}
	}
	return bpfSource6Key{Prefixlen: uint32(prefix.Bits()), Addr: prefix.Addr().As16()}
}

// update writes the batch in one call where the kernel has that for tries (5.16), else one by one.
func (b *batch) update(trie *ebpf.Map) error {
	if len(b.values) == 0 {
		return nil
	}
	var err error
	if b.keys4 != nil {
		_, err = trie.BatchUpdate(b.keys4, b.values, nil)
	} else {
		_, err = trie.BatchUpdate(b.keys6, b.values, nil)
	}
	if !errors.Is(err, ebpf.ErrNotSupported) {
		return explainUpdate(err)
	}
	for i, value := range b.values {
		if b.keys4 != nil {
			err = trie.Put(b.keys4[i], value)
		} else {
			err = trie.Put(b.keys6[i], value)
		}
		if err != nil {
			return explainUpdate(err)
		}
	}
	return nil
}

func explainUpdate(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ENOSPC):
		return fmt.Errorf("%w in the kernel: %w", ErrFull, err)
	case errors.Is(err, unix.ENOMEM):
		return fmt.Errorf("no memory for the list in the kernel (the memory limit of this control group?): %w", err)
	}
	return fmt.Errorf("write list to the kernel: %w", err)
}
