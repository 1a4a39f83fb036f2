// SPDX-License-Identifier: Apache-2.0

package test

import (
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/sentinel-x/sentinel-x/internal/config"
	"github.com/sentinel-x/sentinel-x/internal/dataplane"
	"github.com/sentinel-x/sentinel-x/internal/dataplane/packettest"
	"github.com/sentinel-x/sentinel-x/internal/engine"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

const (
	smallCaptures = "../internal/dataplane/testdata"
	largeCaptures = "../../shared/data"
)

// count is a capture as gopacket counts it.
type count struct {
	packets, bytes uint64
	first, last    time.Time
	sources        []netip.Addr // of each packet; invalid: none that the packet path reads
	local          []bool       // of each packet: neighbour discovery
	top            netip.Addr
	perSource      map[netip.Addr]uint64
	err            error // where gopacket stopped
}

// countCapture reads a capture through gopacket alone.
func countCapture(path string) count {
	c := count{perSource: map[netip.Addr]uint64{}}
	d := packettest.NewDecoder(packettest.Tunnels{})
	c.err = packettest.ReadCapture(path, func(r packettest.Record) error {
		if c.packets == 0 {
			c.first = r.Info.Timestamp
		}
		c.last = r.Info.Timestamp
		c.packets++
		c.bytes += uint64(r.Info.Length)
		source, local := sourceOf(d, r)
		c.sources, c.local = append(c.sources, source), append(c.local, local)
		if !source.IsValid() || local {
			return nil
		}
		c.perSource[source]++
		if n, top := c.perSource[source], c.perSource[c.top]; n > top || n == top && source.Less(c.top) {
			c.top = source
		}
		return nil
	})
	return c
}

// sourceOf returns the address in the packet's first IP header, as the oracle
// sees it; other links than Ethernet are first taken off by gopacket.
func sourceOf(d *packettest.Decoder, r packettest.Record) (source netip.Addr, local bool) {
	frame := r.Data
	if r.Link != layers.LinkTypeEthernet {
		frame = append(make([]byte, 12), 0x08, 0x00)
		body := r.Data
		p := gopacket.NewPacket(r.Data, r.Link, gopacket.DecodeOptions{NoCopy: true})
		if link := p.LinkLayer(); link != nil {
			body = link.LayerPayload()
		} else if r.Link == layers.LinkTypeLinuxSLL && len(body) > 16 {
			body = body[16:] // gopacket minds a wrong address length, we and Wireshark do not
		}
		if len(body) == 0 || body[0]>>4 != 4 && body[0]>>4 != 6 {
			return netip.Addr{}, false
		}
		if body[0]>>4 == 6 {
			frame[12], frame[13] = 0x86, 0xdd
		}
		frame = append(frame, body...)
	}
	p := d.Decode(frame)
	return p.Source, p.ND
}

func captures(t *testing.T) []string {
	t.Helper()
	files, err := packettest.Captures(smallCaptures, "captures")
	if err != nil || len(files) == 0 {
		t.Fatalf("no captures in %s: %v", smallCaptures, err)
	}
	large, err := packettest.Captures(largeCaptures, "attack-real", "attack-lab", "scan", "benign-*")
	if err != nil {
		t.Fatal(err)
	}
	if len(large) == 0 {
		t.Logf("LARGE CAPTURES ABSENT: %s is not there, only the %d small ones of the repository are replayed", largeCaptures, len(files))
	}
	return append(files, large...)
}

// unlikeGopacket are the captures that gopacket or we refuse, with what is in
// them instead; packets and bytes are what capinfos of Wireshark counts.
var unlikeGopacket = map[string]struct {
	packets, bytes uint64
	err            string
}{
	"nfsv2.pcap":            {156, 23144, ""}, // pcap version 2.1, which gopacket does not read
	"nfsv3.pcap":            {128, 22816, ""},
	"fuzz-2021-10-13.pcap":  {1, 524501, "the file is cut"},
	"someip_sd_sample.pcap": {0, 0, "link type 192 is not supported"},
}

// TestReplayOfEveryCapture: with the top source of a capture blocked, replay
// counts what gopacket counts, and drops exactly the packets of that source.
func TestReplayOfEveryCapture(t *testing.T) {
	files := make(chan string)
	var packets, dropped, incidents atomic.Uint64
	var wg sync.WaitGroup
	for range 8 { // loading the program is mostly waiting
		wg.Go(func() {
			for path := range files {
				result, d := checkReplay(t, path)
				packets.Add(result.Packets)
				dropped.Add(d)
				incidents.Add(uint64(len(result.Incidents)))
			}
		})
	}
	large := false
	for _, path := range captures(t) {
		large = large || strings.HasPrefix(path, largeCaptures) && watched(path)
		files <- path
	}
	close(files)
	wg.Wait()
	t.Logf("%d packets replayed, %d of top sources dropped, %d incidents", packets.Load(), dropped.Load(), incidents.Load())
	if dropped.Load() == 0 || large && incidents.Load() == 0 { // the small ones are of no attack
		t.Error("nothing was dropped, or nothing detected")
	}
}

func checkReplay(t *testing.T, path string) (result engine.ReplayResult, dropped uint64) {
	c := countCapture(path)
	result, reasons, err := replay(path, c.top)
	if known, ok := unlikeGopacket[filepath.Base(path)]; ok {
		if result.Packets != known.packets || result.Bytes != known.bytes || !says(err, known.err) {
			t.Errorf("%s: %d packets, %d bytes, error %v; want %+v", path, result.Packets, result.Bytes, err, known)
		}
		return result, 0
	}
	if err != nil || c.err != nil {
		t.Errorf("%s: replay says %v, gopacket %v", path, err, c.err)
		return result, 0
	}
	checkTotals(t, path, result, c)
	if watched(path) {
		checkIncidents(t, path, result)
	}
	return result, checkDrops(t, path, reasons, c)
}

func says(err error, want string) bool {
	return want == "" && err == nil || want != "" && err != nil && strings.Contains(err.Error(), want)
}

// replay runs a capture with one source blocked, and watched for attacks, and returns the
// reason of every packet.
func replay(path string, block netip.Addr) (engine.ReplayResult, []string, error) {
	o := engine.ReplayOptions{File: path, Config: config.Default(), NoDetect: !watched(path)}
	if strings.HasPrefix(path, largeCaptures) { // looking for targets loads another program: half of the time
		o.Targets = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}
	}
	if block.IsValid() && !block.Is4In6() {
		o.Block = []netip.Prefix{netip.PrefixFrom(block, block.BitLen())}
	}
	var verdicts bytes.Buffer
	o.Verdicts = &verdicts
	result, err := engine.Replay(context.Background(), o)
	rows, csvErr := csv.NewReader(&verdicts).ReadAll()
	var reasons []string
	for i, row := range rows {
		if i > 0 {
			reasons = append(reasons, row[3])
		}
	}
	return result, reasons, errors.Join(err, csvErr)
}

func checkTotals(t *testing.T, path string, r engine.ReplayResult, c count) {
	t.Helper()
	if r.Packets != c.packets || r.Bytes != c.bytes {
		t.Errorf("%s: %d packets, %d bytes; gopacket counts %d, %d", path, r.Packets, r.Bytes, c.packets, c.bytes)
	}
	if want := max(0, c.last.Sub(c.first).Seconds()); r.Duration < want-1e-6 || r.Duration > want+1e-6 {
		t.Errorf("%s: lasts %f s, want %f", path, r.Duration, want)
	}
	var sum uint64
	for _, n := range r.Reasons {
		sum += n
	}
	if sum != r.Packets || r.Passed+r.Dropped != r.Packets {
		t.Errorf("%s: %d packets, but %d passed, %d dropped, %d with a reason", path, r.Packets, r.Passed, r.Dropped, sum)
	}
	if want := c.perSource[c.top]; r.Reasons["blocklist"] != want && c.top.IsValid() && !c.top.Is4In6() {
		t.Errorf("%s: %d packets dropped as blocklist, %v sent %d", path, r.Reasons["blocklist"], c.top, want)
	}
}

// watched: the large captures are not under the race detector, which makes ten minutes of the one that
// detection takes in a single goroutine.
func watched(path string) bool { return !underRace() || !strings.HasPrefix(path, largeCaptures) }

// checkIncidents: whatever a capture is, its incidents lie within it, one after the other.
func checkIncidents(t *testing.T, path string, r engine.ReplayResult) {
	t.Helper()
	if r.Detection == nil || r.Incidents == nil {
		t.Errorf("%s: not watched", path)
	}
	last := 0.0
	for _, i := range r.Incidents {
		if i.Detected < last || i.Onset > i.Detected || i.Onset < -10 || i.Detected > r.Duration+traffic.Tick.Seconds() || len(i.Votes) == 0 {
			t.Errorf("%s, %f s: an incident of %v from %f s, detected at %f s (one before: %f s)", path, r.Duration, i.Target, i.Onset, i.Detected, last)
		}
		last = i.Detected
	}
}

// checkDrops compares packet by packet and returns how many were dropped.
func checkDrops(t *testing.T, path string, reasons []string, c count) (dropped uint64) {
	t.Helper()
	if len(reasons) != len(c.sources) {
		t.Errorf("%s: %d verdicts for %d packets", path, len(reasons), len(c.sources))
		return 0
	}
	for i, reason := range reasons {
		want := c.sources[i] == c.top && c.top.IsValid() && !c.top.Is4In6() && !c.local[i]
		if got := reason == "blocklist"; got != want {
			t.Errorf("%s: packet %d from %v has reason %s", path, i+1, c.sources[i], reason)
			return dropped
		}
		if want {
			dropped++
		}
	}
	return dropped
}

// TestNothingPrependedGetsThrough rewrites every packet of every Ethernet
// capture with a VLAN tag, QinQ, an IPv4 option and IPv6 extension headers: the
// top source is dropped all the same, and nobody else is for its sake.
func TestNothingPrependedGetsThrough(t *testing.T) {
	tester, err := dataplane.NewTester(dataplane.Options{Policies: traffic.Policies{
		TinyFragments: traffic.PolicyDrop, ExtensionHeaders: traffic.PolicyDrop, VLANDepth: traffic.PolicyDrop,
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer tester.Close()
	tallies := make([]tally, len(packettest.Rewriters))
	notEthernet := 0
	for _, path := range captures(t) {
		c := countCapture(path)
		if !c.top.IsValid() || c.top.Is4In6() {
			continue
		}
		block := []traffic.Entry{{Prefix: netip.PrefixFrom(c.top, c.top.BitLen())}}
		if err := tester.Replace(traffic.ListBlock, block); err != nil {
			t.Fatal(err)
		}
		i := -1
		_ = packettest.ReadCapture(path, func(r packettest.Record) error {
			i++
			if r.Link != layers.LinkTypeEthernet || len(r.Data) < 14 {
				notEthernet++
				return nil
			}
			for n, w := range packettest.Rewriters {
				if err := tallies[n].run(tester, w, r, c.sources[i], c.top); err != nil {
					t.Errorf("%s, packet %d, %s: %v", path, i+1, w.Name, err)
					return err
				}
			}
			return nil
		})
	}
	t.Logf("%d packets of other links than Ethernet (or shorter than its header) were not rewritten", notEthernet)
	for n, w := range packettest.Rewriters {
		y := tallies[n]
		t.Logf("%s: %d packets rewritten, %d of top sources dropped as blocklist, %d as vlan_depth or extension_headers, %d neighbour discovery; not rewritten: %d of the other family or not IP, %d without room or damaged",
			w.Name, y.rewritten, y.blocked, y.tooDeep, y.local, y.foreign, y.noRoom)
		if y.blocked == 0 || y.noRoom*20 > y.rewritten {
			t.Errorf("%s proves too little: %+v", w.Name, y)
		}
	}
}

// tally counts what became of the packets of one rewriter.
type tally struct {
	rewritten, blocked, tooDeep, local, foreign, noRoom int
}

// run rewrites a packet and says if its verdict is wrong.
func (y *tally) run(tester *dataplane.Tester, w packettest.Rewriter, r packettest.Record, source, top netip.Addr) error {
	frame, ok := w.Rewrite(r.Data)
	if !ok {
		y.skip(w, source)
		return nil
	}
	y.rewritten++
	v, err := tester.Run(frame, time.Duration(r.Info.Timestamp.UnixNano()))
	if err != nil {
		return err
	}
	switch {
	case source != top && v.Reason == traffic.ReasonBlocklist:
		return fmt.Errorf("from %v, dropped as blocklist", source)
	case source != top:
	case v.Reason == traffic.ReasonND:
		y.local++ // a tag makes it no less local
	case v.Outcome != traffic.Dropped:
		return fmt.Errorf("from the blocked %v, passed with reason %v: %x", source, v.Reason, frame)
	case v.Reason == traffic.ReasonBlocklist:
		y.blocked++
	default:
		y.tooDeep++
	}
	return nil
}

// skip counts why a packet cannot be rewritten.
func (y *tally) skip(w packettest.Rewriter, source netip.Addr) {
	switch {
	case strings.HasPrefix(w.Name, "IPv4") && source.Is4(), strings.HasPrefix(w.Name, "IPv6") && source.Is6():
		y.noRoom++
	default:
		y.foreign++
	}
}
