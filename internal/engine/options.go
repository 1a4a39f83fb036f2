// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"github.com/sentinel-x/sentinel-x/internal/config"
	"github.com/sentinel-x/sentinel-x/internal/dataplane"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// PlaneOptions turns the configuration into what the packet path is loaded with.
func PlaneOptions(cfg config.Config) dataplane.Options {
	o := dataplane.Options{
		Sources: int(cfg.Limits.Sources),
		// Block, allow and protected entries share one table; the protected ones are few.
		MaxEntries:      2*int(cfg.Lists.MaxEntries) + protectedRoom,
		RingBytes:       int(cfg.Events.RingBytes),
		EventsPerSecond: int(cfg.Events.PerSecond),
		Limits:          limitsOf(cfg.Limits),
		Policies:        policiesOf(cfg.Parse),
		Observe:         cfg.DryRun,
	}
	if cfg.Detect.Enabled {
		o.MaxTargets = int(cfg.Detect.MaxTargets)
	}
	for _, name := range cfg.Parse.Tunnels {
		o.Tunnels |= dataplane.TunnelNames[string(name)]
	}
	return o
}

const protectedRoom = 4096

func limitsOf(l config.Limits) traffic.Limits {
	return traffic.Limits{
		Class: classLimitsOf(l.PerSource), Prefix: classLimitsOf(l.PerPrefix), Target: classLimitsOf(l.PerTarget),
		AllowedFactor: uint64(l.AllowedFactor),
	}
}

func classLimitsOf(l config.ClassLimits) traffic.ClassLimits {
	limit := func(l config.Limit) traffic.Limit {
		return traffic.Limit{Packets: uint64(l.Packets), Bytes: uint64(l.Bytes), Burst: l.Burst.Duration}
	}
	return traffic.ClassLimits{
		traffic.ClassAll:  limit(l.All),
		traffic.ClassSYN:  limit(l.SYN),
		traffic.ClassUDP:  limit(l.UDP),
		traffic.ClassICMP: limit(l.ICMP),
	}
}

func policiesOf(p config.Parsing) traffic.Policies {
	policy := func(p config.Policy) traffic.Policy {
		if p == config.PolicyDrop {
			return traffic.PolicyDrop
		}
		return traffic.PolicyPass
	}
	return traffic.Policies{
		Malformed:        policy(p.Malformed),
		FirstFragments:   policy(p.FirstFragments),
		LaterFragments:   policy(p.LaterFragments),
		TinyFragments:    policy(p.TinyFragments),
		ExtensionHeaders: policy(p.ExtensionHeaders),
		VLANDepth:        policy(p.VLANDepth),
		TunnelDepth:      policy(p.TunnelDepth),
	}
}

// listEntries turns a list of the configuration file into entries.
func listEntries(list []config.ListEntry) []traffic.Entry {
	entries := make([]traffic.Entry, 0, len(list))
	for _, e := range list {
		entries = append(entries, traffic.Entry{Prefix: e.Prefix, Comment: e.Comment, Origin: "config"})
	}
	return entries
}
