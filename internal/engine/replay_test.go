// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"github.com/sentinel-x/sentinel-x/internal/config"
	"github.com/sentinel-x/sentinel-x/internal/signature"
)

// packet is one of a made-up capture.
type packet struct {
	at     time.Duration
	source string
	flags  string // of TCP: "S", "A", "" none
}

func writeCapture(t *testing.T, packets []packet) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "made.pcap")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := pcapgo.NewWriterNanos(f)
	if err := w.WriteFileHeader(65535, layers.LinkTypeEthernet); err != nil {
		t.Fatal(err)
	}
	for _, p := range packets {
		data := frameOf(t, p)
		info := gopacket.CaptureInfo{Timestamp: time.Unix(1_700_000_000, 0).Add(p.at), CaptureLength: len(data), Length: len(data)}
		if err := w.WritePacket(info, data); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

func frameOf(t *testing.T, p packet) []byte {
	t.Helper()
	ip := &layers.IPv4{
		Version: 4, TTL: 64, Protocol: layers.IPProtocolTCP,
		SrcIP: netip.MustParseAddr(p.source).AsSlice(), DstIP: []byte{198, 51, 100, 10},
	}
	tcp := &layers.TCP{SrcPort: 1024, DstPort: 80, SYN: strings.Contains(p.flags, "S"), ACK: strings.Contains(p.flags, "A")}
	eth := &layers.Ethernet{SrcMAC: make([]byte, 6), DstMAC: make([]byte, 6), EthernetType: layers.EthernetTypeIPv4}
	b := gopacket.NewSerializeBuffer()
	err := errors.Join(tcp.SetNetworkLayerForChecksum(ip),
		gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, eth, ip, tcp))
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func replayOf(t *testing.T, o ReplayOptions) (ReplayResult, string) {
	t.Helper()
	var csv bytes.Buffer
	o.Verdicts, o.NoDetect = &csv, true
	r, err := Replay(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	return r, csv.String()
}

func TestReplayJudgesAndReports(t *testing.T) {
	file := writeCapture(t, []packet{
		{0, "192.0.2.1", "S"}, {time.Millisecond, "192.0.2.2", "S"}, {1500 * time.Millisecond, "203.0.113.1", ""}, {2 * time.Second, "203.0.113.2", "A"},
	})
	r, csv := replayOf(t, ReplayOptions{
		File: file, Config: config.Default(),
		Block: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}, Allow: []netip.Prefix{netip.MustParsePrefix("192.0.2.2/32")},
	})
	want := ReplayResult{
		File: file, Packets: 4, Bytes: 4 * 60, Duration: 2, Passed: 3, Dropped: 1,
		Reasons: map[string]uint64{"blocklist": 1, "allowlist": 1, "bad_tcp_flags": 1, "pass": 1},
	}
	if d := cmp.Diff(want, r); d != "" {
		t.Error(d)
	}
	wantCSV := "index,time_s,verdict,reason\n0,0.000000000,drop,blocklist\n1,0.001000000,pass,allowlist\n" +
		"2,1.500000000,pass,bad_tcp_flags\n3,2.000000000,pass,pass\n"
	if d := cmp.Diff(wantCSV, csv); d != "" {
		t.Error(d)
	}
}

// Rules act in the order they are given, and say what they matched.
func TestReplaySignatures(t *testing.T) {
	file := writeCapture(t, []packet{
		{0, "192.0.2.1", "S"}, {time.Millisecond, "192.0.2.2", "SA"}, {2 * time.Millisecond, "203.0.113.2", "A"},
	})
	rules := func(action signature.Action, texts ...string) (rules []signature.Armed) {
		for _, text := range texts {
			rule, err := signature.Parse(text)
			if err != nil {
				t.Fatal(err)
			}
			rules = append(rules, signature.Armed{Text: text, Rule: rule, Action: action})
		}
		return rules
	}
	const syn, ack = "tcp[tcpflags] & tcp-syn != 0", "tcp[tcpflags] & tcp-ack != 0"
	r, csv := replayOf(t, ReplayOptions{File: file, Config: config.Default(), Signatures: rules(signature.Drop, syn, ack)})
	want := []ReplaySignature{
		{Expression: syn, Action: "drop", Matched: 2, Bytes: 120, Dropped: 2}, {Expression: ack, Action: "drop", Matched: 1, Bytes: 60, Dropped: 1},
	}
	if d := cmp.Diff(want, r.Signatures); d != "" || r.Dropped != 3 || strings.Count(csv, ",drop,signature") != 3 {
		t.Errorf("%s\n%+v\n%s", d, r, csv)
	}
	r, _ = replayOf(t, ReplayOptions{File: file, Config: config.Default(), Signatures: rules(signature.Observe, syn, ack)})
	want = []ReplaySignature{
		{Expression: syn, Action: "observe", Matched: 2, Bytes: 120, WouldDrop: 2}, {Expression: ack, Action: "observe", Matched: 2, Bytes: 120, WouldDrop: 2},
	}
	if d := cmp.Diff(want, r.Signatures); d != "" || r.Dropped != 0 {
		t.Errorf("%s\n%+v", d, r)
	}
	_, err := Replay(context.Background(), ReplayOptions{File: file, Config: config.Default(), Signatures: make([]signature.Armed, signature.Slots+1)})
	if err == nil {
		t.Error("65 signatures are armed")
	}
}

func TestReplayFollowsTheConfiguration(t *testing.T) {
	file := writeCapture(t, []packet{{0, "192.0.2.1", ""}, {1, "192.0.2.2", "S"}})
	parse := func(text string) config.Config {
		cfg, err := config.Parse("test.yaml", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return cfg
	}
	for text, want := range map[string]map[string]uint64{
		"parse: {malformed: drop}":                                          {"bad_tcp_flags": 1, "pass": 1},
		"lists: {block: [192.0.2.0/24]}":                                    {"blocklist": 2},
		"lists: {block: [192.0.2.0/24]}\nprotect: {addresses: [192.0.2.2]}": {"blocklist": 1, "protected": 1},
	} {
		r, _ := replayOf(t, ReplayOptions{File: file, Config: parse(text)})
		if d := cmp.Diff(want, r.Reasons); d != "" {
			t.Errorf("%s: %s", text, d)
		}
		dry, _ := replayOf(t, ReplayOptions{File: file, Config: parse(text + "\ndry_run: true")})
		if dry.Dropped != 0 || dry.WouldDrop != r.Dropped || dry.Passed != 2 {
			t.Errorf("%s, dry run: %+v, without it %d dropped", text, dry, r.Dropped)
		}
	}
}

// The meter runs on the capture's clock: 100 packets a second for ten seconds pass a limit of 100, and half of 200 do.
func TestReplayLimitsInTheCapturesTime(t *testing.T) {
	for rate, low := range map[int]float64{100: 1, 200: .5} {
		var packets []packet
		for i := range 10 * rate {
			packets = append(packets, packet{time.Duration(i) * time.Second / time.Duration(rate), "192.0.2.1", "A"})
		}
		cfg := config.Default()
		cfg.Limits.PerSource.All.Packets = 100
		cfg.Limits.PerSource.All.Burst.Duration = 100 * time.Millisecond
		r, _ := replayOf(t, ReplayOptions{File: writeCapture(t, packets), Config: cfg})
		if got := float64(r.Passed) / float64(r.Packets); got < low-.02 || got > low+.02 {
			t.Errorf("%d/s against a limit of 100/s: %.3f pass, want %.2f", rate, got, low)
		}
		if r.Reasons["limit"] != r.Dropped {
			t.Errorf("reasons %v, dropped %d", r.Reasons, r.Dropped)
		}
	}
}

func TestReplayStopsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := Replay(ctx, ReplayOptions{File: writeCapture(t, []packet{{0, "192.0.2.1", "A"}}), Config: config.Default()})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("err %v", err)
	}
}

func TestReplayReportsWhatItCannotWrite(t *testing.T) {
	_, err := Replay(context.Background(), ReplayOptions{
		File: writeCapture(t, []packet{{0, "192.0.2.1", "A"}}), Config: config.Default(), Verdicts: brokenWriter{},
	})
	if err == nil || !strings.Contains(err.Error(), "no room") {
		t.Errorf("err %v", err)
	}
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, fmt.Errorf("no room") }
