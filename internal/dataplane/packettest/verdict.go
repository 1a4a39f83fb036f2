// SPDX-License-Identifier: Apache-2.0

package packettest

import (
	"net/netip"
	"time"

	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// Lists are the three source lists at one moment.
type Lists struct {
	Block, Allow, Protected []traffic.Entry
	Now                     time.Time
}

// Verdict returns how a packet ends, with bypass and observe mode off and no
// limits set.
func Verdict(p Packet, l Lists, policies traffic.Policies) (traffic.Reason, traffic.Outcome) {
	switch {
	case !p.IP && p.Anomaly == traffic.ReasonPass:
		return traffic.ReasonNonIP, traffic.Passed
	case p.ND:
		return traffic.ReasonND, traffic.Passed
	}
	if p.IP {
		if reason, outcome, decided := l.decide(p); decided {
			return reason, outcome
		}
	}
	return policy(p, policies)
}

// decide asks the lists about the outer source, then about the inner one.
func (l Lists) decide(p Packet) (traffic.Reason, traffic.Outcome, bool) {
	if p.Tunnel {
		if reason, outcome, decided := l.source(p.OuterSource); decided {
			return reason, outcome, true
		}
	}
	return l.source(p.Source)
}

func (l Lists) source(a netip.Addr) (traffic.Reason, traffic.Outcome, bool) {
	blocked, forced := l.covers(l.Block, a)
	allowed, _ := l.covers(l.Allow, a)
	protected, _ := l.covers(l.Protected, a)
	switch {
	case forced && !allowed:
		return traffic.ReasonBlocklist, traffic.Dropped, true
	case allowed:
		return traffic.ReasonAllowlist, traffic.Passed, true
	case protected:
		return traffic.ReasonProtected, traffic.Passed, true
	case blocked:
		return traffic.ReasonBlocklist, traffic.Dropped, true
	}
	return traffic.ReasonPass, traffic.Passed, false
}

// covers reports whether an entry that has not expired covers a, and whether a
// forced one does.
func (l Lists) covers(entries []traffic.Entry, a netip.Addr) (covered, forced bool) {
	for i := range entries {
		e := &entries[i]
		if e.Prefix.Contains(a) && !e.Expired(l.Now) {
			covered = true
			forced = forced || e.Forced
		}
	}
	return covered, forced
}

func policy(p Packet, policies traffic.Policies) (traffic.Reason, traffic.Outcome) {
	var set traffic.Policy
	reason := p.Anomaly
	dropped := reason
	switch p.Anomaly {
	case traffic.ReasonPass:
		set, dropped = fragmentPolicy(p, policies)
	case traffic.ReasonFragmentTiny:
		set = policies.TinyFragments
	case traffic.ReasonExtensionHeaders:
		set = policies.ExtensionHeaders
	case traffic.ReasonVLANDepth:
		set = policies.VLANDepth
	case traffic.ReasonTunnelDepth:
		set = policies.TunnelDepth
	default:
		set = policies.Malformed
	}
	if set == traffic.PolicyDrop {
		return dropped, traffic.Dropped
	}
	return reason, traffic.Passed
}

func fragmentPolicy(p Packet, policies traffic.Policies) (traffic.Policy, traffic.Reason) {
	switch p.Fragment {
	case FirstFragment:
		return policies.FirstFragments, traffic.ReasonFragmentFirst
	case LaterFragment:
		return policies.LaterFragments, traffic.ReasonFragmentLater
	}
	return traffic.PolicyPass, traffic.ReasonPass
}
