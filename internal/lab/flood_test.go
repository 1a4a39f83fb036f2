// SPDX-License-Identifier: Apache-2.0

package lab_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/sentinel-x/sentinel-x/internal/dataplane"
	"github.com/sentinel-x/sentinel-x/internal/lab"
)

const delivery = 10 * time.Second // a limit, not an expectation

// fromFlood matches the frames of one sender, whatever the kernel itself sends beside them.
func fromFlood(n *lab.Net) func([]byte) bool {
	return func(frame []byte) bool {
		return len(frame) >= 14 && bytes.Equal(frame[6:12], n.PeerEnd.MAC) && !isNeighbour(frame)
	}
}

// isNeighbour tells ARP and ICMPv6 other than echo apart, which the kernel sends by itself.
func isNeighbour(frame []byte) bool {
	p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default)
	if p.Layer(layers.LayerTypeARP) != nil {
		return true
	}
	icmp, ok := p.Layer(layers.LayerTypeICMPv6).(*layers.ICMPv6)
	return ok && icmp.TypeCode.Type() != layers.ICMPv6TypeEchoRequest
}

var tagSets = map[string][]uint16{"untagged": nil, "one tag": {7}, "two tags": {100, 200}}

func TestFloodArrivesAsAsked(t *testing.T) {
	n := lab.NewTestNet(t, lab.NetOptions{})
	for _, kind := range []dataplane.FloodKind{dataplane.FloodUDP, dataplane.FloodSYN, dataplane.FloodICMP} {
		for _, source := range []string{"192.0.2.0/24", "2001:db8::/64"} {
			for tagName, tags := range tagSets {
				for _, size := range []int{0, 101, 1400} {
					name := fmt.Sprintf("%s/%s/%s/%d", kind, strings.NewReplacer("/", "-").Replace(source), tagName, size)
					t.Run(name, func(t *testing.T) {
						checkFlood(t, n, dataplane.Flood{
							Kind: kind, Source: netip.MustParsePrefix(source), Sources: 3, DestPort: 9,
							VLANs: tags, Size: size, Count: 130, // more than a batch, so that pages are used again
						})
					})
				}
			}
		}
	}
}

func checkFlood(t *testing.T, n *lab.Net, f dataplane.Flood) {
	t.Helper()
	r, err := n.VictimEnd.NewReceiver(int(f.Count)+1, fromFlood(n))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	report, err := n.Flood(t.Context(), f)
	if err != nil {
		t.Fatal(err)
	}
	if report.Sent.Packets != f.Count {
		t.Fatalf("sent %d frames, want %d", report.Sent.Packets, f.Count)
	}
	if !r.WaitFor(f.Count, delivery) {
		got, lost := r.Count()
		t.Fatalf("received %d of %d frames, %d lost", got, f.Count, lost)
	}
	sources := map[string]int{}
	for _, frame := range r.Frames() {
		if err := verify(frame, f, n); err != nil {
			t.Fatalf("%v in frame %x", err, frame[:60])
		}
		p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default)
		sources[p.NetworkLayer().NetworkFlow().Src().String()]++
	}
	if f.Sources > 0 && len(sources) != f.Sources {
		t.Fatalf("got sources %v, want %d of them", sources, f.Sources)
	}
}

// verify decodes a frame and compares it with what was asked for, checksums included.
func verify(frame []byte, f dataplane.Flood, n *lab.Net) error {
	p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default)
	if e := p.ErrorLayer(); e != nil && p.TransportLayer() == nil { // a payload of zeros may decode badly
		return e.Error()
	}
	eth := p.LinkLayer().(*layers.Ethernet)
	if !bytes.Equal(eth.DstMAC, n.VictimEnd.MAC) {
		return fmt.Errorf("destination %s, want %s", eth.DstMAC, n.VictimEnd.MAC)
	}
	var tags []uint16
	for _, l := range p.Layers() {
		if tag, ok := l.(*layers.Dot1Q); ok {
			tags = append(tags, tag.VLANIdentifier)
		}
	}
	if fmt.Sprint(tags) != fmt.Sprint(f.VLANs) {
		return fmt.Errorf("tags %v, want %v", tags, f.VLANs)
	}
	if want := max(f.Size, 60); len(frame) != want && f.Size != 0 {
		return fmt.Errorf("%d bytes, want %d", len(frame), want)
	}
	src, _ := netip.AddrFromSlice(p.NetworkLayer().NetworkFlow().Src().Raw())
	if !f.Source.Contains(src) {
		return fmt.Errorf("source %s is not in %s", src, f.Source)
	}
	return errors.Join(verifyL4(p, f), verifyChecksums(p))
}

func verifyL4(p gopacket.Packet, f dataplane.Flood) error {
	switch f.Kind {
	case dataplane.FloodUDP:
		if udp, ok := p.Layer(layers.LayerTypeUDP).(*layers.UDP); !ok || udp.DstPort != layers.UDPPort(f.DestPort) || udp.SrcPort < 1024 {
			return errors.New("not the UDP asked for")
		}
	case dataplane.FloodSYN:
		if tcp, ok := p.Layer(layers.LayerTypeTCP).(*layers.TCP); !ok || !tcp.SYN || tcp.ACK || tcp.DstPort != layers.TCPPort(f.DestPort) {
			return errors.New("not the SYN asked for")
		}
	case dataplane.FloodICMP:
		echo4, ok4 := p.Layer(layers.LayerTypeICMPv4).(*layers.ICMPv4)
		echo6, ok6 := p.Layer(layers.LayerTypeICMPv6).(*layers.ICMPv6)
		if !(ok4 && echo4.TypeCode.Type() == layers.ICMPv4TypeEchoRequest) && !(ok6 && echo6.TypeCode.Type() == layers.ICMPv6TypeEchoRequest) {
			return errors.New("not the echo request asked for")
		}
	}
	return nil
}

func verifyChecksums(p gopacket.Packet) error {
	for _, l := range p.Layers() {
		if l4, ok := l.(interface {
			SetNetworkLayerForChecksum(gopacket.NetworkLayer) error
		}); ok {
			if err := l4.SetNetworkLayerForChecksum(p.NetworkLayer()); err != nil {
				return err
			}
		}
	}
	err, mismatches := p.VerifyChecksums()
	if err != nil {
		return err
	}
	for _, m := range mismatches {
		return fmt.Errorf("checksum of %s is %#x, correct is %#x", m.Layer.LayerType(), m.Actual, m.Correct)
	}
	return nil
}

func TestFloodSources(t *testing.T) {
	n := lab.NewTestNet(t, lab.NetOptions{})
	for _, c := range []struct {
		name, prefix string
		sources      int
		want         func(seen map[netip.Addr]int) error
	}{
		{"one", "192.0.2.7/32", 1, wantSources("192.0.2.7")},
		{"four in turn", "192.0.2.7/24", 4, wantSources("192.0.2.7", "192.0.2.8", "192.0.2.9", "192.0.2.10")},
		{"hosts of a /64", "2001:db8::5/64", 2, wantSources("2001:db8::5", "2001:db8::6")},
		{"/64s of a /48", "2001:db8::5/48", 3, wantSources("2001:db8::5", "2001:db8:0:1::5", "2001:db8:0:2::5")},
		{"random hosts", "198.51.100.0/24", 0, wantMany(150)},
		{"random of a v6 prefix", "2001:db8:ffff::/48", 0, wantMany(990)},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := dataplane.Flood{Kind: dataplane.FloodUDP, Source: netip.MustParsePrefix(c.prefix), Sources: c.sources, Count: 1000}
			if err := c.want(sourcesOf(t, n, f)); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func sourcesOf(t *testing.T, n *lab.Net, f dataplane.Flood) map[netip.Addr]int {
	t.Helper()
	r, err := n.VictimEnd.NewReceiver(int(f.Count), fromFlood(n))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	f.Rate = 20000 // slower than the veth's ring fills
	if _, err := n.Flood(t.Context(), f); err != nil {
		t.Fatal(err)
	}
	if !r.WaitFor(f.Count, delivery) {
		t.Fatal("not all frames arrived")
	}
	seen := map[netip.Addr]int{}
	for _, frame := range r.Frames() {
		if err := verify(frame, f, n); err != nil {
			t.Fatal(err)
		}
		p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default)
		src, _ := netip.AddrFromSlice(p.NetworkLayer().NetworkFlow().Src().Raw())
		seen[src]++
	}
	return seen
}

func wantSources(want ...string) func(map[netip.Addr]int) error {
	return func(seen map[netip.Addr]int) error {
		for _, w := range want {
			if n := seen[netip.MustParseAddr(w)]; n < 1000/len(want) {
				return fmt.Errorf("%d frames from %s, want an equal share; got %v", n, w, seen)
			}
		}
		if len(seen) != len(want) {
			return fmt.Errorf("got %v, want only %v", seen, want)
		}
		return nil
	}
}

func wantMany(n int) func(map[netip.Addr]int) error {
	return func(seen map[netip.Addr]int) error {
		if len(seen) < n {
			return fmt.Errorf("%d different sources, want at least %d", len(seen), n)
		}
		return nil
	}
}

func TestFloodKeepsToItsRate(t *testing.T) {
	n := lab.NewTestNet(t, lab.NetOptions{})
	report, err := n.Flood(t.Context(), dataplane.Flood{
		Kind: dataplane.FloodUDP, Source: netip.MustParsePrefix("192.0.2.1/32"), Sources: 1, Rate: 5000, Duration: 300 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	most := uint64(report.Elapsed.Seconds() * 5000)
	if report.Sent.Packets == 0 || report.Sent.Packets > most {
		t.Fatalf("sent %d frames in %s, want some and at most %d", report.Sent.Packets, report.Elapsed, most)
	}
	if report.Sent.Bytes != 60*report.Sent.Packets {
		t.Fatalf("sent %d bytes in %d frames of 60", report.Sent.Bytes, report.Sent.Packets)
	}
}

func TestFloodAtFullSpeedKeepsToItsCount(t *testing.T) {
	n := lab.NewTestNet(t, lab.NetOptions{})
	const count = 100_003 // no multiple of a burst
	report, err := n.Flood(t.Context(), dataplane.Flood{
		Kind: dataplane.FloodUDP, Source: netip.MustParsePrefix("192.0.2.1/32"), Sources: 1, Count: count,
	})
	if err != nil {
		t.Fatal(err)
	}
	if report.Sent.Packets != count {
		t.Fatalf("sent %d frames, want %d", report.Sent.Packets, count)
	}
	stats, err := n.VictimEnd.Stats()
	if err != nil {
		t.Fatal(err)
	}
	if stats.RxPackets == 0 {
		t.Fatal("none arrived")
	}
	t.Logf("%d of %d arrived in %s", stats.RxPackets, count, report.Elapsed)
}

func TestFloodStopsWithItsContext(t *testing.T) {
	n := lab.NewTestNet(t, lab.NetOptions{})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := n.Flood(ctx, dataplane.Flood{
			Kind: dataplane.FloodUDP, Source: netip.MustParsePrefix("192.0.2.1/32"), Sources: 1, Rate: 1000, Duration: time.Hour,
		})
		done <- err
	}()
	waitForPackets(t, n)
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(delivery):
		t.Fatal("still running")
	}
}

func waitForPackets(t *testing.T, n *lab.Net) {
	t.Helper()
	for deadline := time.Now().Add(delivery); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		s, err := n.VictimEnd.Stats()
		if err != nil {
			t.Fatal(err)
		}
		if s.RxPackets > 100 {
			return
		}
	}
	t.Fatal("the flood did not start")
}

func TestFloodRefusesWhatWouldVanish(t *testing.T) {
	n := lab.NewTestNet(t, lab.NetOptions{})
	f := dataplane.Flood{Kind: dataplane.FloodUDP, Source: netip.MustParsePrefix("192.0.2.1/32"), Sources: 1, Count: 1, Size: 1515}
	if _, err := n.Flood(t.Context(), f); err == nil || !strings.Contains(err.Error(), "MTU") {
		t.Fatalf("got %v, want an error about the MTU", err)
	}
	if err := n.PeerEnd.SetUp(false); err != nil {
		t.Fatal(err)
	}
	f.Size = 0
	if _, err := n.Flood(t.Context(), f); err == nil || !strings.Contains(err.Error(), "is down") {
		t.Fatalf("got %v, want an error about the interface", err)
	}
}

func TestFloodLeavesNoInterface(t *testing.T) {
	n := lab.NewTestNet(t, lab.NetOptions{})
	var before, after string
	if err := n.Peer.Do(func() error { before = links(t); return nil }); err != nil {
		t.Fatal(err)
	}
	f := dataplane.Flood{Kind: dataplane.FloodUDP, Source: netip.MustParsePrefix("192.0.2.1/32"), Sources: 1, Count: 10}
	for range 2 {
		if _, err := n.Flood(t.Context(), f); err != nil {
			t.Fatal(err)
		}
	}
	if err := n.Peer.Do(func() error { after = links(t); return nil }); err != nil {
		t.Fatal(err)
	}
	if before != after {
		t.Errorf("interfaces were %s, are %s", before, after)
	}
}
