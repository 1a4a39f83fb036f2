// SPDX-License-Identifier: Apache-2.0

package test

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"github.com/sentinel-x/sentinel-x/internal/api"
	"github.com/sentinel-x/sentinel-x/internal/config"
	"github.com/sentinel-x/sentinel-x/internal/dataplane"
	"github.com/sentinel-x/sentinel-x/internal/engine"
	"github.com/sentinel-x/sentinel-x/internal/lab"
	"github.com/sentinel-x/sentinel-x/internal/scene"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// scenesFile writes composed scenes, all at once, as a capture.
func (s *site) scenesFile(t *testing.T, scenes ...scene.Scenario) string {
	t.Helper()
	var streams []scene.Stream
	for i := range scenes {
		stream, err := scenes[i].Stream()
		if err != nil {
			t.Fatal(err)
		}
		streams = append(streams, stream)
	}
	path := filepath.Join(s.dir, "scenes.pcap")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = scene.WriteCapture(f, scene.Merge(streams...), time.Unix(1_700_000_000, 0))
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	return path
}

// play sends a capture in its own time to the victim and returns how many packets that was.
func (s *site) play(t *testing.T, file string) uint64 {
	t.Helper()
	r, err := s.PeerEnd.Play(t.Context(), file, lab.PlayOptions{Speed: 1, DestMAC: s.VictimEnd.MAC, SourceMAC: s.PeerEnd.MAC})
	if err != nil || r.Skipped != 0 {
		t.Fatalf("played %+v: %v", r, err)
	}
	return r.Sent
}

// writeArrived writes what a receiver has kept as a capture, with the times at which it came.
func (s *site) writeArrived(t *testing.T, r *lab.Receiver) (file string, first time.Time) {
	t.Helper()
	frames, times := r.Frames(), r.Times()
	if _, lost := r.Count(); lost > 0 || len(frames) == 0 {
		t.Fatalf("%d frames, and %d were not seen", len(frames), lost)
	}
	file = filepath.Join(s.dir, "arrived.pcap")
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	w := pcapgo.NewWriterNanos(f)
	err = w.WriteFileHeader(1<<16, layers.LinkTypeEthernet)
	for i, frame := range frames {
		err = errors.Join(err, w.WritePacket(gopacket.CaptureInfo{Timestamp: times[i], CaptureLength: len(frame), Length: len(frame)}, frame))
	}
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	return file, times[0]
}

// ownIncident is what a daemon and a replay must agree on.
type ownIncident struct {
	kind            string
	onset, detected float64 // seconds since the first packet
}

// A daemon finds in what arrives the same attacks as a replay of just these packets: on the same hosts, of the
// same kind, begun and found at the same time but for a tick or two.
func TestLiveFindsWhatReplayFinds(t *testing.T) {
	s := newSite(t, lab.NetOptions{})
	d := s.start(t, s.runArgs()...)
	defer d.stop(t)
	const sec = time.Second
	file := s.scenesFile(
		t,
		scene.Scenario{
			Family: "syn_spoofed", Kind: traffic.KindSYNFlood, Profile: "web", Target: lab.Victim4,
			Onset: 4 * sec, End: 7 * sec, Length: 8 * sec, Ratio: 12, Baseline: 200, Seed: 5,
		},
		scene.Scenario{
			Family: "amplification_dns", Kind: traffic.KindAmplification, Protocol: "dns", Profile: "web", Target: lab.Victim6,
			Onset: 5 * sec, End: 7 * sec, Length: 8 * sec, Ratio: 12, Baseline: 200, Seed: 6,
		},
	)
	receiver, err := s.VictimEnd.NewReceiver(1<<17, nil)
	if err != nil {
		t.Fatal(err)
	}
	sent := s.play(t, file)
	if !receiver.WaitFor(sent, 5*sec) {
		t.Error("not all packets arrived")
	}
	if err := receiver.Close(); err != nil {
		t.Fatal(err)
	}
	arrived, first := s.writeArrived(t, receiver)
	late := s.status(t).Detection.Late
	hosts := []netip.Addr{lab.Victim4, lab.Victim6}
	live := s.liveIncidents(t, first)
	replayed := replayIncidents(t, arrived, hosts)
	for _, host := range hosts {
		l, r := live[host.String()], replayed[host.String()]
		if len(l) != 1 || len(r) != 1 {
			t.Errorf("%v: live %+v, in the replay %+v", host, l, r)
			continue
		}
		// Ticks begin at other times, and one that was late moves what it saw.
		near := (2*traffic.Tick + time.Duration(late)*traffic.Tick).Seconds() + 0.01
		if a, b := l[0], r[0]; a.kind != b.kind || abs(a.onset-b.onset) > near || abs(a.detected-b.detected) > near {
			t.Errorf("%v: live %+v, in the replay %+v; %d ticks were late", host, a, b, late)
		}
		t.Logf("%v: live %+v, in the replay %+v; %d ticks were late", host, l[0], r[0], late)
	}
}

func abs(x float64) float64 { return max(x, -x) }

// liveIncidents returns what the daemon has found on hosts, by host.
func (s *site) liveIncidents(t *testing.T, first time.Time) map[string][]ownIncident {
	t.Helper()
	found := map[string][]ownIncident{}
	for _, i := range s.incidents(t, "--all") {
		found[i.Target] = append(found[i.Target], ownIncident{i.Kind, i.Onset.Sub(first).Seconds(), i.Detected.Sub(first).Seconds()})
	}
	return found
}

func replayIncidents(t *testing.T, file string, hosts []netip.Addr) map[string][]ownIncident {
	t.Helper()
	cfg := config.Default()
	for _, h := range hosts {
		cfg.Protect.Targets = append(cfg.Protect.Targets, netip.PrefixFrom(h, h.BitLen()))
	}
	r, err := engine.Replay(context.Background(), engine.ReplayOptions{File: file, Config: cfg})
	if err != nil {
		t.Fatal(err)
	}
	found := map[string][]ownIncident{}
	for _, i := range r.Incidents {
		found[i.Target.String()] = append(found[i.Target.String()], ownIncident{i.Kind.String(), i.Onset, i.Detected})
	}
	return found
}

// A daemon that stands still loses samples, and nothing else: every packet arrives and is counted, and the
// one long window that follows is no incident.
func TestStalledDaemonLosesOnlySamples(t *testing.T) {
	s := newSite(t, lab.NetOptions{})
	d := s.start(t, s.runArgs()...)
	const sec = time.Second
	file := s.scenesFile(t, scene.Scenario{
		Family: "normal", Profile: "web", Target: lab.Victim4, Length: 10 * sec, Baseline: 1500, Seed: 9,
	})
	receiver, err := s.VictimEnd.NewReceiver(0, func(f []byte) bool {
		return len(f) >= 34 && f[12] == 8 && f[13] == 0 && netip.AddrFrom4([4]byte(f[30:34])) == lab.Victim4
	})
	if err != nil {
		t.Fatal(err)
	}
	sent := make(chan uint64, 1)
	go func() { sent <- s.play(t, file) }()
	eventually(t, "traffic arrives", func() bool { return s.status(t).Counters.Seen.Packets > 3000 })
	before := s.status(t)
	signal := func(x syscall.Signal) {
		if err := d.cmd.Process.Signal(x); err != nil {
			t.Fatal(err)
		}
	}
	signal(syscall.SIGSTOP)
	time.Sleep(3 * sec)
	signal(syscall.SIGCONT)
	eventually(t, "the daemon says which ticks never came", func() bool { return s.status(t).Detection.Late >= before.Detection.Late+20 })
	n := <-sent
	if !receiver.WaitFor(n, 5*sec) {
		got, lost := receiver.Count()
		t.Errorf("%d of %d packets arrived, %d were not seen", got, n, lost)
	}
	if err := receiver.Close(); err != nil {
		t.Error(err)
	}
	eventually(t, "all packets are counted", func() bool { return s.status(t).Counters.Seen.Packets >= n })
	after := s.status(t)
	// At most 2000 of the 4500 or so that came meanwhile are sampled, and at most every packet of the other ticks.
	if got := after.Detection.SamplesSent + after.Detection.SamplesLost; got == 0 || got > after.Counters.Seen.Packets-1500 {
		t.Errorf("%d samples of %d packets", got, after.Counters.Seen.Packets)
	}
	if list := s.incidents(t, "--all"); len(list) != 0 {
		t.Errorf("clients are incidents: %+v", list)
	}
	if after.Detection.Ticks <= before.Detection.Ticks+10 {
		t.Errorf("%d ticks, then %d", before.Detection.Ticks, after.Detection.Ticks)
	}
	d.stop(t)
}

// A target that appears while it is flooded has no baseline. The incident says so, and neither forest nor
// online learner have a say in it.
func TestTargetAppearsInAnAttack(t *testing.T) {
	s := newSite(t, lab.NetOptions{})
	d := s.start(t, s.runArgs("--config", s.write(t, "sentinel.yaml", detectConfig))...)
	late := netip.MustParseAddr("10.90.77.7")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := s.Flood(ctx, dataplane.Flood{
			Source: netip.MustParsePrefix("198.18.0.0/16"), Dest: late, Kind: dataplane.FloodSYN, DestPort: 80,
			Rate: 20_000, Duration: time.Minute,
		})
		done <- err
	}()
	of := func(target string) (found []api.Incident) {
		for _, i := range s.incidents(t, "--all") {
			if i.Target == target {
				found = append(found, i)
			}
		}
		return found
	}
	eventually(t, "the flood is an incident of the interface", func() bool { return len(of("interface")) > 0 })
	if list := of(late.String()); len(list) != 0 {
		t.Fatalf("nobody watches it yet: %+v", list)
	}
	if err := s.VictimEnd.AddAddress(netip.PrefixFrom(late, 16)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the flood is an incident of the new address", func() bool { return len(of(late.String())) > 0 })
	found := of(late.String())[0]
	cancel()
	if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if !found.NoBaseline || found.Kind != "syn_flood" || found.Normal.Packets != 0 {
		t.Errorf("%+v", found)
	}
	for _, v := range found.Votes {
		want := map[string]string{"deterministic": "attack", "forest": "unsure", "online": "unsure"}[v.Detector]
		if want != "" && v.Opinion != want {
			t.Errorf("%s says %s, not %s", v.Detector, v.Opinion, want)
		}
	}
	d.stop(t)
}
