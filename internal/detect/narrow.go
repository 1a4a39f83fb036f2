// SPDX-License-Identifier: Apache-2.0

package detect

import (
	"net/netip"
	"slices"
	"time"

	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

const (
	// explains is the share of a wide target's excess that narrower ones must
	// have for it to be theirs.
	explains = 0.5
	// carpetHosts is how many hosts of a network make a carpet, each with at
	// least carpetShare of the network's excess.
	carpetHosts = 8
	carpetShare = 0.01
	// patience is how many ticks an alarm of a network waits for its hosts', and
	// that of the interface for its networks'.
	patience = 2
)

// narrow makes incidents of the tick's alarms: one for the narrowest target
// that explains each.
func (d *Detector) narrow() {
	if len(d.alarms) == 0 {
		return
	}
	slices.SortStableFunc(d.alarms, func(a, b alarm) int {
		return int(a.track.Target.Scope) - int(b.track.Target.Scope)
	})
	hosts := d.hostsByNetwork()
	for i := range d.alarms {
		if al := &d.alarms[i]; al.track.Target.Scope == traffic.TargetNetwork {
			d.carpet(al, hosts[al.track.Target])
		}
	}
	for i := range d.alarms {
		al := &d.alarms[i]
		switch {
		case al.track.watch.attack != nil: // a carpet
		case al.track.Target.Scope == traffic.TargetHost:
			d.hostAlarm(al)
		case al.track.Target.Scope == traffic.TargetNetwork:
			d.wideAlarm(al, attacked(hosts[al.track.Target]), patience)
		default:
			d.wideAlarm(al, d.attacked(), 2*patience)
		}
	}
	clear(d.alarms) // they hold vectors
}

// hostsByNetwork lists the excesses of the hosts in the networks that alarm or
// have an incident.
func (d *Detector) hostsByNetwork() map[traffic.Target][]*Track {
	hosts := map[traffic.Target][]*Track{}
	for i := range d.alarms {
		if t := d.alarms[i].track.Target; t.Scope == traffic.TargetNetwork {
			hosts[t] = nil
		}
	}
	if len(hosts) == 0 {
		return hosts
	}
	for target, t := range d.x.tracks {
		if target.Scope != traffic.TargetHost || t.last != d.x.tick || t.watch.excess <= 0 {
			continue
		}
		network := traffic.NetworkTarget(target.Prefix.Addr())
		if list, wanted := hosts[network]; wanted {
			hosts[network] = append(list, t)
		}
	}
	for _, list := range hosts { // so that a replay does the same
		slices.SortFunc(list, func(a, b *Track) int { return a.Target.Prefix.Compare(b.Target.Prefix) })
	}
	return hosts
}

// earlier returns the earlier of two onsets.
func earlier(a, b *attack) time.Time {
	if b.Onset.Before(a.Onset) {
		return b.Onset
	}
	return a.Onset
}

// merge ends an incident as part of another.
func (d *Detector) merge(a, into *attack) {
	a.MergedInto = into.ID
	d.finish(a, d.now())
}

// attackOn returns the open incident of a target.
func (d *Detector) attackOn(t traffic.Target) *attack {
	if track := d.x.Find(t); track != nil {
		return track.watch.attack
	}
	return nil
}

// hostAlarm opens an incident of a host, unless it is part of a carpet. A wide
// incident that the host explains becomes the host's.
func (d *Detector) hostAlarm(al *alarm) {
	network := traffic.NetworkTarget(al.track.Target.Prefix.Addr())
	wide := d.attackOn(network)
	if wide != nil && wide.Kind == traffic.KindCarpet {
		return
	}
	a := d.start(al, al.kind, 0)
	for _, w := range []*attack{wide, d.attackOn(traffic.Target{Scope: traffic.TargetInterface})} {
		if w != nil && al.excess.packets >= explains*float64(w.track.watch.excess) {
			a.Onset = earlier(a, w)
			d.merge(w, a)
		}
	}
}

// spreadHosts counts the destinations of samples, 0 if one has half of them.
func spreadHosts(samples []traffic.Sample) int {
	count := map[netip.Addr]int{}
	for i := range samples {
		if to := samples[i].Destination; to.IsValid() {
			count[to]++
		}
	}
	for _, n := range count {
		if float64(n) >= explains*float64(len(samples)) {
			return 0
		}
	}
	return len(count)
}

// carpet opens an incident of a network, if many of its hosts have a share of
// the excess and none has most of it. Hosts that are not watched by themselves
// show in the samples. It takes in the incidents of the hosts.
func (d *Detector) carpet(al *alarm, hosts []*Track) {
	share := float32(carpetShare * al.excess.packets)
	seen := 0
	for _, t := range hosts {
		if t.watch.excess >= share {
			seen++
		}
		if float64(t.watch.excess) >= explains*al.excess.packets {
			return
		}
	}
	many := max(seen, al.hosts)
	if many < carpetHosts {
		return
	}
	a := d.start(al, traffic.KindCarpet, many)
	for _, t := range hosts {
		if b := t.watch.attack; b != nil {
			a.Onset = earlier(a, b)
			d.merge(b, a)
		}
	}
}

// attacked sums up the excess of the hosts that have an incident.
func attacked(hosts []*Track) (sum float64) {
	for _, t := range hosts {
		if t.watch.attack != nil {
			sum += float64(t.watch.excess)
		}
	}
	return sum
}

// attacked sums up the excess of all incidents but the interface's.
func (d *Detector) attacked() (sum float64) {
	for _, a := range d.open {
		if a.Target.Scope != traffic.TargetInterface && a.MergedInto == "" {
			sum += float64(a.track.watch.excess)
		}
	}
	return sum
}

// wideAlarm opens an incident of a network or of the interface that narrower
// ones do not explain, once these have had the time to alarm.
func (d *Detector) wideAlarm(al *alarm, explained float64, patience int8) {
	w := &al.track.watch
	switch {
	case explained >= explains*al.excess.packets:
		w.undecided = 0
	case w.undecided < patience:
		w.undecided++
	default:
		d.start(al, al.kind, 0)
	}
}
