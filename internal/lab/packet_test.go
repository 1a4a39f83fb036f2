// SPDX-License-Identifier: Apache-2.0

package lab_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
	"golang.org/x/sys/unix"

	"github.com/sentinel-x/sentinel-x/internal/lab"
)

// experimental is an ethertype for local experiments (IEEE 802): no stack answers it.
const experimental = 0x88b5

func frameTo(n *lab.Net, ethertype uint16, payload ...byte) []byte {
	f := append(append([]byte{}, n.VictimEnd.MAC...), n.PeerEnd.MAC...)
	f = append(f, byte(ethertype>>8), byte(ethertype))
	f = append(f, payload...)
	return append(f, make([]byte, max(0, 60-len(f)))...)
}

func ofType(ethertype uint16) func([]byte) bool {
	return func(f []byte) bool { return len(f) > 14 && f[12] == byte(ethertype>>8) && f[13] == byte(ethertype) }
}

func TestSenderToReceiverUnchanged(t *testing.T) {
	n := lab.NewTestNet(t, lab.NetOptions{})
	s, err := n.PeerEnd.NewSender()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for name, want := range map[string][]byte{
		"untagged":   frameTo(n, experimental, 1, 2, 3),
		"one tag":    frameTo(n, 0x8100, 0x20, 5, 0x88, 0xb5, 1, 2, 3),
		"two tags":   frameTo(n, 0x88a8, 0, 5, 0x81, 0, 0, 6, 0x88, 0xb5, 1, 2, 3),
		"full frame": append(frameTo(n, experimental), make([]byte, 1514-60)...),
	} {
		t.Run(name, func(t *testing.T) {
			r, err := n.VictimEnd.NewReceiver(1, func(f []byte) bool { return bytes.Equal(f, want) })
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			if err := s.Send(want); err != nil {
				t.Fatal(err)
			}
			if !r.WaitFor(1, delivery) {
				t.Fatal("did not arrive as it was sent")
			}
		})
	}
	if err := s.Send(make([]byte, 1519)); !errors.Is(err, unix.EMSGSIZE) {
		t.Errorf("got %v for a frame over the MTU, want EMSGSIZE", err)
	}
}

func TestReceiverKeepsOnlyWhatItIsAskedTo(t *testing.T) {
	n := lab.NewTestNet(t, lab.NetOptions{})
	r, err := n.VictimEnd.NewReceiver(2, ofType(experimental))
	if err != nil {
		t.Fatal(err)
	}
	own, err := n.VictimEnd.NewSender()
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	s, err := n.PeerEnd.NewSender()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for range 5 {
		if err := errors.Join(own.Send(frameTo(n, experimental)), s.Send(frameTo(n, experimental+1)), s.Send(frameTo(n, experimental))); err != nil {
			t.Fatal(err)
		}
	}
	if !r.WaitFor(5, delivery) {
		t.Fatal("not all arrived")
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	matched, lost := r.Count()
	if matched != 5 || lost != 0 || len(r.Frames()) != 2 {
		t.Errorf("matched %d, lost %d, kept %d; want 5, 0, 2", matched, lost, len(r.Frames()))
	}
	if r.WaitFor(6, 0) {
		t.Error("waited for what never came")
	}
}

func TestJumboFramesPass(t *testing.T) {
	n := lab.NewTestNet(t, lab.NetOptions{MTU: 9000})
	r, err := n.VictimEnd.NewReceiver(1, ofType(experimental))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	s, err := n.PeerEnd.NewSender()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Send(append(frameTo(n, experimental), make([]byte, 9014-60)...)); err != nil {
		t.Fatal(err)
	}
	if !r.WaitFor(1, delivery) || len(r.Frames()[0]) != 9014 {
		t.Fatal("did not arrive whole")
	}
}

// capture writes a capture of count frames, 10 ms apart, the last one cut short.
func capture(t *testing.T, name string, link layers.LinkType, count int, packet []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	write := packetWriter(t, f, link)
	start := time.Unix(1_700_000_000, 0)
	for i := range count {
		info := gopacket.CaptureInfo{Timestamp: start.Add(time.Duration(i) * 10 * time.Millisecond), CaptureLength: len(packet), Length: len(packet)}
		if i == count-1 {
			info.Length += 100
		}
		if err := write(info, packet); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

func packetWriter(t *testing.T, f *os.File, link layers.LinkType) func(gopacket.CaptureInfo, []byte) error {
	if filepath.Ext(f.Name()) == ".pcap" {
		w := pcapgo.NewWriter(f)
		if err := w.WriteFileHeader(1<<16, link); err != nil {
			t.Fatal(err)
		}
		return w.WritePacket
	}
	w, err := pcapgo.NewNgWriter(f, link)
	if err != nil {
		t.Fatal(err)
	}
	return func(i gopacket.CaptureInfo, b []byte) error {
		return errors.Join(w.WritePacket(i, b), w.Flush())
	}
}

func TestPlayCapture(t *testing.T) {
	n := lab.NewTestNet(t, lab.NetOptions{})
	elsewhere := frameTo(n, experimental, 42)
	copy(elsewhere, []byte{2, 9, 9, 9, 9, 9})
	for _, c := range []struct {
		name, file string
		link       layers.LinkType
		packet     []byte
		want       func([]byte) bool
	}{
		{"pcap", "a.pcap", layers.LinkTypeEthernet, elsewhere, ofType(experimental)},
		{"pcapng", "a.pcapng", layers.LinkTypeEthernet, elsewhere, ofType(experimental)},
		{"bare IPv4", "a.pcap", layers.LinkTypeRaw, append([]byte{0x45}, make([]byte, 59)...), ofType(0x0800)},
		{"bare IPv6", "a.pcapng", layers.LinkTypeRaw, append([]byte{0x60}, make([]byte, 59)...), ofType(0x86dd)},
	} {
		t.Run(c.name, func(t *testing.T) {
			payload := c.packet
			if c.link == layers.LinkTypeEthernet {
				payload = payload[14:]
			}
			r, err := n.VictimEnd.NewReceiver(1, func(f []byte) bool {
				return c.want(f) && bytes.Equal(f[:6], n.VictimEnd.MAC) && bytes.Equal(f[14:], payload)
			})
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			report, err := n.PeerEnd.Play(t.Context(), capture(t, c.file, c.link, 6, c.packet), lab.PlayOptions{DestMAC: n.VictimEnd.MAC})
			if err != nil {
				t.Fatal(err)
			}
			if report.Sent != 5 || report.Skipped != 1 {
				t.Errorf("sent %d, skipped %d; want 5 and the cut one", report.Sent, report.Skipped)
			}
			if !r.WaitFor(5, delivery) {
				t.Error("not all arrived, or not at this address")
			}
		})
	}
}

func TestPlayInTheCapturesOwnTime(t *testing.T) {
	n := lab.NewTestNet(t, lab.NetOptions{})
	file := capture(t, "a.pcap", layers.LinkTypeEthernet, 6, frameTo(n, experimental))
	report, err := n.PeerEnd.Play(t.Context(), file, lab.PlayOptions{Speed: 1})
	if err != nil {
		t.Fatal(err)
	}
	if report.Sent != 5 || report.Elapsed < 50*time.Millisecond {
		t.Errorf("sent %d in %s, want 5 in no less than the capture's 50 ms", report.Sent, report.Elapsed)
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	report, err = n.PeerEnd.Play(ctx, file, lab.PlayOptions{Speed: 0.0001})
	if err != nil || report.Sent != 1 {
		t.Errorf("sent %d (%v), want only the first when cancelled", report.Sent, err)
	}
}

func TestPlaySkipsWhatDoesNotFit(t *testing.T) {
	n := lab.NewTestNet(t, lab.NetOptions{})
	file := capture(t, "a.pcap", layers.LinkTypeEthernet, 4, make([]byte, 2000))
	report, err := n.PeerEnd.Play(t.Context(), file, lab.PlayOptions{})
	if err != nil || report.Sent != 0 || report.Skipped != 4 {
		t.Errorf("got %+v, %v; want 4 skipped", report, err)
	}
}

func TestPlayRefusesWhatItCannotRead(t *testing.T) {
	n := lab.NewTestNet(t, lab.NetOptions{})
	good := capture(t, "a.pcap", layers.LinkTypeEthernet, 4, frameTo(n, experimental))
	whole, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	cut := filepath.Join(t.TempDir(), "cut.pcap")
	text := filepath.Join(t.TempDir(), "text.pcap")
	if err := errors.Join(os.WriteFile(cut, whole[:len(whole)-10], 0o600), os.WriteFile(text, []byte("not a capture at all, only text"), 0o600)); err != nil {
		t.Fatal(err)
	}
	for name, file := range map[string]string{
		"missing":         filepath.Join(t.TempDir(), "none.pcap"),
		"cut":             cut,
		"not a capture":   text,
		"other link type": capture(t, "a.pcap", layers.LinkTypeIEEE802_11, 2, frameTo(n, experimental)),
	} {
		if report, err := n.PeerEnd.Play(t.Context(), file, lab.PlayOptions{}); err == nil {
			t.Errorf("%s: played as %+v", name, report)
		}
	}
}
