// SPDX-License-Identifier: Apache-2.0

package packettest

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/sentinel-x/sentinel-x/internal/signature"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

const anyIP layers.EthernetType = 0xffff

// reference is what gopacket's own packet decoder makes of a frame: the
// addresses of its first network layer and the ports of its first transport layer.
type reference struct {
	source, destination netip.Addr
	protocol            uint8
	sport, dport        uint16
	fragment            bool
	broken              bool
}

// refer returns gopacket's view of a frame, and whether it has an IP header.
// gopacket's own ethertype 0xffff, IP of either version, is no ethertype to us.
func refer(frame []byte) (r reference, isIP bool) {
	p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.DecodeOptions{NoCopy: true})
	r.broken = p.ErrorLayer() != nil || p.Metadata().Truncated
	for _, l := range p.Layers() {
		switch l := l.(type) {
		case *layers.Ethernet:
			if isIP || l.EthernetType == anyIP {
				return r, isIP
			}
		case *layers.Dot1Q:
			if isIP || l.Type == anyIP {
				return r, isIP
			}
		case *layers.IPv4:
			if isIP {
				return r, true
			}
			r.source, r.destination, r.protocol, isIP = addr(l.SrcIP), addr(l.DstIP), uint8(l.Protocol), true
			r.fragment = l.FragOffset > 0 || l.Flags&layers.IPv4MoreFragments != 0
		case *layers.IPv6:
			if isIP {
				return r, true
			}
			r.source, r.destination, r.protocol, isIP = addr(l.SrcIP), addr(l.DstIP), uint8(l.NextHeader), true
		default:
			if !isIP || !r.upper(l) {
				return r, isIP
			}
		}
	}
	return r, isIP
}

// upper takes in a layer behind the IP header and reports whether to go on.
func (r *reference) upper(l gopacket.Layer) bool {
	switch l := l.(type) {
	case *layers.IPv6HopByHop:
		r.protocol = uint8(l.NextHeader)
	case *layers.IPv6Routing:
		r.protocol = uint8(l.NextHeader)
	case *layers.IPv6Destination:
		r.protocol = uint8(l.NextHeader)
	case *layers.IPv6Fragment:
		r.protocol, r.fragment = uint8(l.NextHeader), l.FragmentOffset > 0 || l.MoreFragments
		return !r.fragment
	case *layers.IPSecAH:
		if r.source.Is4() {
			return false // in IPv4, AH is a protocol as any other
		}
		r.protocol = uint8(l.NextHeader)
	case *layers.TCP:
		r.sport, r.dport = uint16(l.SrcPort), uint16(l.DstPort)
		return false
	case *layers.UDP:
		r.sport, r.dport = uint16(l.SrcPort), uint16(l.DstPort)
		return false
	default:
		return false
	}
	return true
}

// compare checks the oracle against gopacket's own decoder where both have an
// opinion. It reports whether they had one.
func compare(t *testing.T, name string, frame []byte) bool {
	t.Helper()
	p := Decode(frame, Tunnels{})
	want, isIP := refer(frame)
	if isIP != p.IP && !want.broken && p.Anomaly == traffic.ReasonPass {
		t.Errorf("%s: readable IP header: oracle %v, gopacket %v\n%s", name, p.IP, isIP, hex.Dump(frame))
	}
	if !isIP || !p.IP || want.broken || p.Anomaly != traffic.ReasonPass {
		return false
	}
	got := reference{p.Source, p.Destination, p.Protocol, p.SourcePort, p.DestPort, p.Fragment != NoFragment, false}
	if p.Fragment == FirstFragment { // gopacket does not decode layer 4 of fragments
		got.sport, got.dport = 0, 0
	}
	// gopacket does not walk these, and stops there; fragments of IPv6 end its walk.
	if got != want && p.Source == want.source && stops(frame) {
		return false
	}
	if got != want {
		t.Errorf("%s: oracle %+v, gopacket %+v\n%s", name, got, want, hex.Dump(frame))
	}
	return true
}

// stops reports whether an IPv6 frame has an extension header that gopacket
// does not step over.
func stops(frame []byte) bool {
	kind, at := networkOffset(frame)
	if kind != layers.EthernetTypeIPv6 {
		return false
	}
	next, rest := frame[at+6], frame[at+40:]
	for isExtension(next) && len(rest) >= 8 {
		switch next {
		case 44, 135, 139, 140:
			return true
		}
		size := int(rest[1])*8 + 8
		if next == protocolAH {
			size = int(rest[1])*4 + 8
		}
		next, rest = rest[0], rest[min(size, len(rest)):]
	}
	return false
}

func TestOracleAgreesWithGopacketOnGoodPackets(t *testing.T) {
	compared := 0
	for _, n := range GoodPackets() {
		p := Decode(n.Frame, Tunnels{})
		if p.Anomaly != traffic.ReasonPass {
			t.Errorf("%s: good packet has anomaly %v\n%s", n.Name, p.Anomaly, hex.Dump(n.Frame))
		}
		if compare(t, n.Name, n.Frame) {
			compared++
		}
		if p := Decode(n.Frame, AllTunnels); p.Anomaly != traffic.ReasonPass {
			t.Errorf("%s: good packet has anomaly %v with tunnels on\n%s", n.Name, p.Anomaly, hex.Dump(n.Frame))
		}
	}
	if compared < 100 {
		t.Errorf("compared only %d good packets with gopacket", compared)
	}
}

// TestOracleAgreesWithGopacketOnCaptures runs over real traffic: what both
// sides call whole must be read the same.
func TestOracleAgreesWithGopacketOnCaptures(t *testing.T) {
	files, err := Captures("../testdata", "captures")
	if err != nil || len(files) == 0 {
		t.Fatalf("no captures in ../testdata/captures: %v", err)
	}
	large, err := Captures("../../../../shared/data", "attack-real", "attack-lab", "scan", "benign-*")
	if err != nil {
		t.Fatal(err)
	}
	if len(large) == 0 {
		t.Log("LARGE CAPTURES ABSENT: ../shared/data is not there, only testdata/captures was read")
	}
	var frames, compared int
	for _, path := range append(files, large...) {
		err := ReadCapture(path, func(r Record) error {
			if r.Link == layers.LinkTypeEthernet {
				frames++
				if compare(t, filepath.Base(path), r.Data) {
					compared++
				}
			}
			return nil
		})
		if err != nil {
			t.Logf("%v", err)
		}
	}
	t.Logf("%d Ethernet frames, %d compared", frames, compared)
	if compared*10 < frames*5 {
		t.Errorf("only %d of %d frames were compared", compared, frames)
	}
}

var update = flag.Bool("update", false, "write the made capture anew")

// TestMadeCapture holds testdata/captures/made-ipv6.pcap, which the tests on
// captures read, to the packets built here: go test -update writes it.
func TestMadeCapture(t *testing.T) {
	var frames [][]byte
	for _, n := range GoodPackets() {
		if strings.HasPrefix(n.Name, "IPv6") && !strings.Contains(n.Name, ", in ") {
			frames = append(frames, n.Frame)
		}
	}
	for kind := uint8(133); kind <= 137; kind++ {
		frames = append(frames, Neighbour(kind))
	}
	const committed = "../testdata/captures/made-ipv6.pcap"
	path := filepath.Join(t.TempDir(), "made.pcap")
	if *update {
		path = committed
	}
	if err := WriteCapture(path, frames); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(committed)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is not what GoodPackets makes; run go test -update", committed)
	}
}

func TestWrappedPacketIsSeenThroughTunnel(t *testing.T) {
	for _, w := range Wrappers {
		for _, inner := range plainPackets() {
			frame, ok := w.Rewrite(inner.Frame)
			if !ok {
				continue
			}
			want := Decode(inner.Frame, AllTunnels)
			got := Decode(frame, AllTunnels)
			if !got.Tunnel || got.OuterSource == got.Source {
				t.Errorf("%s in %s: not seen as a tunnel: %+v", inner.Name, w.Name, got)
			}
			want.Tunnel, want.OuterSource, want.ND = true, got.OuterSource, false
			want.Rules.Values[signature.Inner] = want.Rules.Values[signature.Protocol]
			if !reflect.DeepEqual(got, want) {
				t.Errorf("%s in %s: got %+v, want %+v", inner.Name, w.Name, got, want)
			}
			if p := Decode(frame, Tunnels{}); p.Tunnel || p.Source != got.OuterSource {
				t.Errorf("%s in %s: looked into although tunnels are off: %+v", inner.Name, w.Name, p)
			}
		}
	}
}

// TestRewritersKeepThePacket checks that a rewritten packet is still the same
// one, and as gopacket sees it a whole one.
func TestRewritersKeepThePacket(t *testing.T) {
	done := map[string]int{}
	for _, r := range Rewriters {
		for _, p := range plainPackets() {
			frame, ok := r.Rewrite(p.Frame)
			if !ok {
				continue
			}
			done[r.Name]++
			before, after := Decode(p.Frame, AllTunnels), Decode(frame, AllTunnels)
			before.VLANs, after.VLANs = 0, 0
			if r.Name[:4] == "IPv6" {
				before.ND = false // an extension header: no longer from the link for sure
			}
			before.Rules.Values[signature.Length] = after.Rules.Values[signature.Length]
			if !reflect.DeepEqual(before, after) {
				t.Errorf("%s, %s: %+v became %+v", p.Name, r.Name, before, after)
			}
			checkChecksum(t, r.Name, frame)
		}
	}
	for _, r := range Rewriters {
		if done[r.Name] < 5 {
			t.Errorf("%s rewrote only %d packets", r.Name, done[r.Name])
		}
	}
}

func checkChecksum(t *testing.T, name string, frame []byte) {
	t.Helper()
	p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default)
	if ip, ok := p.Layer(layers.LayerTypeIPv4).(*layers.IPv4); ok {
		if _, sum := ip.VerifyChecksum(); !sum.Valid {
			t.Errorf("%s: header checksum %#04x, want %#04x", name, sum.Actual, sum.Correct)
		}
	}
}

func TestInsertOptionStopsAtFortyBytes(t *testing.T) {
	frame := Build(Ethernet(layers.EthernetTypeIPv4), IPv4(layers.IPProtocolUDP), UDP(), Data(8))
	full, ok := InsertOption(frame, 10)
	if !ok || full[14] != 0x4f {
		t.Fatalf("ten words: %v, first byte %#x, want true, 0x4f", ok, full[14])
	}
	if _, ok := InsertOption(full, 1); ok {
		t.Error("an eleventh word was accepted")
	}
	if _, ok := InsertOption(Neighbour(135), 1); ok {
		t.Error("an option was put into an IPv6 packet")
	}
}

func TestFragmentsCarryTheWholePayload(t *testing.T) {
	for _, p := range plainPackets() {
		kind, at := networkOffset(p.Frame)
		packet, ok := packetOf(p.Frame, kind)
		if !ok {
			continue
		}
		var joined []byte
		for i, f := range Fragments(p.Frame, 16) {
			d := Decode(f, Tunnels{})
			if want := fragmentOf(uint16(i), true); d.Fragment != want {
				t.Errorf("%s: fragment %d is %v, want %v", p.Name, i, d.Fragment, want)
			}
			header := 20
			if kind == layers.EthernetTypeIPv6 {
				header = 48
			}
			joined = append(joined, f[at+header:]...)
		}
		if joined != nil && !bytes.HasSuffix(packet, joined) {
			t.Errorf("%s: fragments do not add up to the packet", p.Name)
		}
	}
}

func TestVerdictPrecedence(t *testing.T) {
	host := netip.MustParsePrefix(Source4 + "/32")
	net24 := netip.MustParsePrefix("192.0.2.0/24")
	now := time.Unix(1700000000, 0)
	packet := Decode(Build(Ethernet(layers.EthernetTypeIPv4), IPv4(layers.IPProtocolUDP), UDP()), Tunnels{})
	entry := func(p netip.Prefix) []traffic.Entry { return []traffic.Entry{{Prefix: p}} }
	for _, c := range []struct {
		name  string
		lists Lists
		want  traffic.Reason
	}{
		{"no list", Lists{}, traffic.ReasonPass},
		{"blocked", Lists{Block: entry(net24)}, traffic.ReasonBlocklist},
		{"allowed host in a blocked net", Lists{Block: entry(net24), Allow: entry(host)}, traffic.ReasonAllowlist},
		{"blocked host in an allowed net", Lists{Block: entry(host), Allow: entry(net24)}, traffic.ReasonAllowlist},
		{"protected", Lists{Block: entry(host), Protected: entry(net24)}, traffic.ReasonProtected},
		{"forced over protected", Lists{Block: []traffic.Entry{{Prefix: net24, Forced: true}, {Prefix: host}}, Protected: entry(host)}, traffic.ReasonBlocklist},
		{"allowed over forced", Lists{Block: []traffic.Entry{{Prefix: host, Forced: true}}, Allow: entry(net24)}, traffic.ReasonAllowlist},
		{"expired host in a blocked net", Lists{Block: []traffic.Entry{{Prefix: host, Expires: now}, {Prefix: net24}}, Now: now}, traffic.ReasonBlocklist},
		{"expired", Lists{Block: []traffic.Entry{{Prefix: host, Expires: now}}, Now: now}, traffic.ReasonPass},
	} {
		if got, _ := Verdict(packet, c.lists, traffic.Policies{}); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// TestMutatorReachesEveryAnomaly keeps the differential test honest: frames
// that break nothing would prove nothing.
func TestMutatorReachesEveryAnomaly(t *testing.T) {
	var seeds [][]byte
	for _, n := range GoodPackets() {
		seeds = append(seeds, n.Frame)
	}
	m, d := NewMutator(seeds, 1), NewDecoder(AllTunnels)
	seen := map[traffic.Reason]int{}
	var tunnels, later, first, nd int
	const n = 200000
	for range n {
		frame := m.Next()
		if len(frame) < 14 || len(frame) > MaxFuzzFrame {
			t.Fatalf("frame of %d bytes", len(frame))
		}
		p := d.Decode(frame)
		seen[p.Anomaly]++
		tunnels += count(p.Tunnel)
		later += count(p.Fragment == LaterFragment)
		first += count(p.Fragment == FirstFragment)
		nd += count(p.ND)
	}
	t.Logf("anomalies %v; tunnels %d, first %d, later %d, nd %d", seen, tunnels, first, later, nd)
	for _, r := range []traffic.Reason{
		traffic.ReasonPass, traffic.ReasonMalformed, traffic.ReasonTruncated, traffic.ReasonBadHeaderLength,
		traffic.ReasonLand, traffic.ReasonZeroTTL, traffic.ReasonBadTCPFlags, traffic.ReasonFragmentTiny,
		traffic.ReasonExtensionHeaders, traffic.ReasonVLANDepth, traffic.ReasonTunnelDepth,
	} {
		if seen[r] < n/1000 {
			t.Errorf("%v: only %d of %d frames", r, seen[r], n)
		}
	}
	if min(tunnels, later, first) < n/50 || nd < n/2000 {
		t.Errorf("tunnels %d, later fragments %d, first %d, neighbour discovery %d of %d", tunnels, later, first, nd, n)
	}
}

func count(b bool) int {
	if b {
		return 1
	}
	return 0
}

// FuzzDecode: no frame may make the oracle panic, and it never contradicts
// gopacket on what both call whole.
func FuzzDecode(f *testing.F) {
	for _, n := range GoodPackets() {
		f.Add(n.Frame)
	}
	f.Add(binary.BigEndian.AppendUint32(nil, 0))
	f.Fuzz(func(t *testing.T, frame []byte) {
		Decode(frame, AllTunnels)
		compare(t, "fuzz", frame)
	})
}
