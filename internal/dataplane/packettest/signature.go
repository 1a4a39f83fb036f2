// SPDX-License-Identifier: Apache-2.0

package packettest

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/sentinel-x/sentinel-x/internal/signature"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// Signatures is the signature stage in plain Go, without ceilings: the rules by slot, each
// evaluated one after the other, and what they have done.
type Signatures struct {
	Now   time.Duration // the injected clock
	slots [signature.Slots]*armedRule
}

type armedRule struct {
	signature.Armed
	stats signature.Stats
	// The bucket of Limit: how much time its packets are ahead of their rate, and since when.
	backlog float64
	since   time.Duration
}

// signatureBurst is the backlog that the bucket of a rule may have.
const signatureBurst = 100 * time.Millisecond

// Set arms these rules. One that was armed before keeps its slot and what it did; the others get the lowest free slots.
func (s *Signatures) Set(armed []signature.Armed) {
	old := s.slots
	s.slots = [signature.Slots]*armedRule{}
	var fresh []signature.Armed
	for _, a := range armed {
		i := slices.IndexFunc(old[:], func(r *armedRule) bool { return r != nil && r.ID == a.ID })
		if i < 0 {
			fresh = append(fresh, a)
			continue
		}
		s.slots[i] = old[i]
		s.slots[i].Armed = a
	}
	for _, a := range fresh {
		free := slices.Index(s.slots[:], nil)
		s.slots[free] = &armedRule{Armed: a}
	}
}

// Stats returns what every armed rule has done.
func (s *Signatures) Stats() map[uint64]signature.Stats {
	all := map[uint64]signature.Stats{}
	for _, r := range s.slots {
		if r != nil {
			all[r.ID] = r.stats
		}
	}
	return all
}

// Judge has the rules act on a packet that lists and policies let on, and returns how it ends.
func (s *Signatures) Judge(p Packet, length int, observe bool, reason traffic.Reason) (traffic.Reason, traffic.Outcome) {
	if !p.IP || p.ND || reason == traffic.ReasonAllowlist || reason == traffic.ReasonProtected {
		return reason, traffic.Passed
	}
	now := time.Unix(0, int64(s.Now))
	for _, r := range s.slots {
		if r == nil || !r.Expires.IsZero() && !now.Before(r.Expires) || !r.Rule.Match(p.Rules) {
			continue
		}
		r.stats.Matched++
		r.stats.Bytes += uint64(length)
		r.stats.LastSeen = now
		switch {
		case r.Action == signature.Observe:
			r.stats.WouldDrop++
			continue
		case r.Action == signature.Limit && r.take(s.Now):
			continue
		case observe:
			r.stats.WouldDrop++
		default:
			r.stats.Dropped++
		}
		return traffic.ReasonSignature, traffic.Dropped
	}
	return reason, traffic.Passed
}

// take fills the bucket by one packet, if it has room.
func (r *armedRule) take(now time.Duration) bool {
	r.backlog = max(0, r.backlog-float64(now-r.since))
	r.since = now
	if r.backlog > float64(signatureBurst) {
		return false
	}
	r.backlog += float64(time.Second) / float64(r.Rate)
	return true
}

// RandomRule returns a valid rule that often matches the packet. Payload words begin at one of the offsets.
func RandomRule(r *rand.Rand, like signature.Packet, offsets []uint16) signature.Rule {
	for {
		var rule signature.Rule
		if r.IntN(3) == 0 {
			rule.Family = like.Family
		}
		if r.IntN(2) == 0 {
			rule.Target, _ = like.Destination.Prefix(r.IntN(like.Destination.BitLen() + 1))
		}
		for n := r.IntN(5); n > 0; n-- {
			f := signature.Field(r.IntN(int(signature.NumFields)))
			rule.Fields[f] = randomSet(r, f, like.Values[f])
		}
		if r.IntN(3) == 0 {
			for n := 1 + r.IntN(signature.MaxWords); n > 0; n-- {
				rule.Payload = append(rule.Payload, randomWord(r, like.Payload, offsets))
			}
		}
		if r.IntN(64) == 0 {
			rule.Target = netip.MustParsePrefix("::/0")
		}
		if rule.Validate() == nil {
			return rule
		}
	}
}

// randomSet returns a few ranges, most often with the value in one of them or just beside.
func randomSet(r *rand.Rand, f signature.Field, value int32) signature.Set {
	last := int(f.Max())
	taken := make([]bool, last+3)
	mark := func(lo, hi int) {
		for v := max(lo, 0); v <= min(hi, last); v++ {
			taken[v] = true
		}
	}
	if value >= 0 && r.IntN(8) > 0 {
		v := int(value)
		mark(v-r.IntN(2)*r.IntN(last+1), v+r.IntN(2)*r.IntN(last+1))
		if r.IntN(8) == 0 {
			taken[min(v, last)] = false
		}
	}
	for n := r.IntN(4); n > 0; n-- {
		lo := r.IntN(last + 1)
		mark(lo, lo+r.IntN(2)*r.IntN(1+last/8))
	}
	var set signature.Set
	for v := 0; v <= last; v++ {
		if !taken[v] {
			continue
		}
		lo := v
		for taken[v+1] {
			v++
		}
		set = append(set, signature.Range{Lo: uint16(lo), Hi: uint16(v)})
	}
	return set
}

// randomWord returns a word, most often with the payload's own bytes, also at its very end and behind it.
func randomWord(r *rand.Rand, payload []byte, offsets []uint16) signature.Word {
	w := signature.Word{Offset: offsets[r.IntN(len(offsets))], Size: uint8(1 + r.IntN(8))}
	full := ^uint64(0) >> (64 - 8*int(w.Size))
	w.Mask = full
	if r.IntN(2) == 0 {
		w.Mask &= r.Uint64() | r.Uint64()
	}
	for i := range int(w.Size) {
		b := byte(r.Uint32())
		if at := int(w.Offset) + i; at < len(payload) && r.IntN(32) > 0 {
			b = payload[at]
		}
		w.Value = w.Value<<8 | uint64(b)
	}
	w.Value &= w.Mask
	return w
}
