// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
)

// pcapFile returns a pcap of the given magic, byte order, version and link
// type with the records, each a captured part of a packet of length bytes.
func pcapFile(order binary.AppendByteOrder, magic uint32, minor uint16, link uint32, records ...[]byte) []byte {
	b := order.AppendUint32(nil, magic)
	b = order.AppendUint16(b, 2)
	b = order.AppendUint16(b, minor)
	b = append(b, make([]byte, 8)...)
	b = order.AppendUint32(b, 65535)
	b = order.AppendUint32(b, link)
	for i, r := range records {
		b = order.AppendUint32(b, uint32(1700000000+i))
		b = order.AppendUint32(b, 250)
		captured, length := uint32(len(r)), uint32(len(r)+10)
		if minor < 3 {
			captured, length = length, captured
		}
		b = order.AppendUint32(b, captured)
		b = order.AppendUint32(b, length)
		b = append(b, r...)
	}
	return b
}

func writeFile(t testing.TB, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "x.pcap")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// readAll returns the packets of a capture in hex, and the error it ended with.
func readAll(t *testing.T, data []byte) (packets []string, times []time.Time, wire []int, err error) {
	t.Helper()
	c, err := Open(writeFile(t, data))
	if err != nil {
		return nil, nil, nil, err
	}
	defer c.Close()
	for {
		p, err := c.Next()
		if errors.Is(err, io.EOF) {
			return packets, times, wire, nil
		}
		if err != nil {
			return packets, times, wire, err
		}
		packets, times, wire = append(packets, hex.EncodeToString(p.Frame)), append(times, p.Time), append(wire, p.Length)
	}
}

func TestCaptureReadsEveryPcapHeader(t *testing.T) {
	orders := map[string]binary.AppendByteOrder{"little": binary.LittleEndian, "big": binary.BigEndian}
	for name, order := range orders {
		for magic, nanoseconds := range map[uint32]int64{magicMicroseconds: 250_000, magicNanoseconds: 250} {
			for _, minor := range []uint16{0, 1, 2, 3, 4} {
				data := pcapFile(order, magic, minor, 0x50000001, bytes.Repeat([]byte{7}, 60), bytes.Repeat([]byte{8}, 20))
				packets, times, wire, err := readAll(t, data)
				if err != nil || len(packets) != 2 || len(packets[0]) != 120 || wire[0] != 70 || wire[1] != 30 {
					t.Fatalf("%s-endian, magic %x, version 2.%d: %v %v %v", name, magic, minor, packets, wire, err)
				}
				if want := time.Unix(1700000001, nanoseconds); !times[1].Equal(want) {
					t.Errorf("%s-endian, magic %x: time %v, want %v", name, magic, times[1], want)
				}
			}
		}
	}
}

func TestCaptureReadsSwappedLengthsOfVersion23(t *testing.T) {
	data := pcapFile(binary.LittleEndian, magicMicroseconds, 3, 1)
	data = append(data, make([]byte, 8)...)
	data = binary.LittleEndian.AppendUint32(data, 100) // length first
	data = binary.LittleEndian.AppendUint32(data, 60)
	data = append(data, make([]byte, 60)...)
	packets, _, wire, err := readAll(t, data)
	if err != nil || len(packets) != 1 || len(packets[0]) != 120 || wire[0] != 100 {
		t.Errorf("%d packets of %v bytes, error %v", len(packets), wire, err)
	}
}

func TestCaptureMakesEthernetOfEveryLink(t *testing.T) {
	v4, v6 := "45000014aabb", "60000000ccdd"
	ether := strings.Repeat("00", 12)
	cooked := "0000" + "0001" + "0006" + strings.Repeat("00", 8)
	cooked2 := "0000" + "00000001" + "0001" + "00" + "06" + strings.Repeat("00", 8)
	for _, c := range []struct {
		name string
		link uint32
		in   string
		want string
	}{
		{"Ethernet", 1, "aabbcc", "aabbcc"},
		{"raw IPv4", 101, v4, ether + "0800" + v4},
		{"raw IPv6", 101, v6, ether + "86dd" + v6},
		{"raw of neither version", 101, "15", ether + "0800" + "15"},
		{"raw, empty", 101, "", ether + "0800"},
		{"raw, type 12", 12, v4, ether + "0800" + v4},
		{"raw, type 14", 14, v6, ether + "86dd" + v6},
		{"IPv4", 228, v4, ether + "0800" + v4},
		{"IPv6", 229, v6, ether + "86dd" + v6},
		{"Linux cooked", 113, cooked + "0800" + v4, ether + "0800" + v4},
		{"Linux cooked, VLAN", 113, cooked + "8100" + "0001" + "0800" + v4, ether + "8100" + "0001" + "0800" + v4},
		{"Linux cooked, cut", 113, cooked, cooked[:26]},
		{"Linux cooked 2", 276, "86dd" + cooked2 + v6, ether + "86dd" + v6},
		{"null, little-endian", 0, "02000000" + v4, ether + "0800" + v4},
		{"null, big-endian", 0, "00000002" + v4, ether + "0800" + v4},
		{"null, IPv6 of macOS", 0, "1e000000" + v6, ether + "86dd" + v6},
		{"null, IPv6 of FreeBSD", 0, "1c000000" + v6, ether + "86dd" + v6},
		{"null, IPv6 of Linux", 0, "0a000000" + v6, ether + "86dd" + v6},
		{"null, another family", 0, "07000000" + v4, ether + "0000" + v4},
		{"null, cut", 0, "0200", "0200"},
		{"loop", 108, "00000018" + v6, ether + "86dd" + v6},
		{"PPP", 9, "0021" + v4, ether + "0800" + v4},
		{"PPP with address and control", 9, "ff030057" + v6, ether + "86dd" + v6},
		{"PPP, control protocol", 9, "c021" + "01", ether + "0000" + "01"},
		{"PPP in HDLC", 50, "ff030021" + v4, ether + "0800" + v4},
		{"Cisco HDLC", 104, "0f000800" + v4, ether + "0800" + v4},
		{"Cisco HDLC, SLARP", 104, "8f008035" + "00", ether + "8035" + "00"},
	} {
		in, err := hex.DecodeString(c.in)
		if err != nil {
			t.Fatal(err)
		}
		packets, _, wire, err := readAll(t, pcapFile(binary.LittleEndian, magicMicroseconds, 4, c.link, in))
		if err != nil || len(packets) != 1 {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if packets[0] != c.want {
			t.Errorf("%s: frame %s, want %s", c.name, packets[0], c.want)
		}
		if wire[0] != len(in)+10 {
			t.Errorf("%s: %d bytes on the wire, want %d", c.name, wire[0], len(in)+10)
		}
	}
}

// ngFile returns a pcapng with one packet on each of two interfaces.
func ngFile(t testing.TB) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := pcapgo.NewNgWriterInterface(&b, pcapgo.NgInterface{LinkType: layers.LinkTypeEthernet, TimestampResolution: 9}, pcapgo.NgWriterOptions{})
	if err != nil {
		t.Fatal(err)
	}
	second, err := w.AddInterface(pcapgo.NgInterface{LinkType: layers.LinkTypeRaw, TimestampResolution: 9})
	if err != nil {
		t.Fatal(err)
	}
	for i, data := range [][]byte{bytes.Repeat([]byte{9}, 61), {0x45, 0, 0, 20}} {
		info := gopacket.CaptureInfo{Timestamp: time.Unix(1700000000, int64(i)), CaptureLength: len(data), Length: 100, InterfaceIndex: i * second}
		if err := w.WritePacket(info, data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestCaptureReadsPcapngWithTwoLinkTypes(t *testing.T) {
	packets, times, wire, err := readAll(t, ngFile(t))
	if err != nil || len(packets) != 2 {
		t.Fatalf("%d packets, error %v", len(packets), err)
	}
	if packets[0] != strings.Repeat("09", 61) || packets[1] != strings.Repeat("00", 12)+"0800"+"45000014" {
		t.Errorf("packets %v", packets)
	}
	if wire[1] != 100 || !times[1].Equal(time.Unix(1700000000, 1)) {
		t.Errorf("%d bytes at %v", wire[1], times[1])
	}
}

func TestCaptureWithoutTimesKeepsTheLast(t *testing.T) {
	var b []byte
	block := func(kind uint32, body []byte) {
		size := uint32(12 + len(body))
		b = binary.LittleEndian.AppendUint32(b, kind)
		b = binary.LittleEndian.AppendUint32(b, size)
		b = append(b, body...)
		b = binary.LittleEndian.AppendUint32(b, size)
	}
	section := binary.LittleEndian.AppendUint32(nil, 0x1a2b3c4d)
	section = append(section, 1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)
	block(magicSection, section)
	block(1, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	block(3, append([]byte{4, 0, 0, 0}, 1, 2, 3, 4)) // a simple packet block has no time
	packets, times, _, err := readAll(t, b)
	if err != nil || len(packets) != 1 || !times[0].Equal(time.Unix(0, 0)) {
		t.Errorf("%v at %v, error %v", packets, times, err)
	}
}

func TestCaptureSaysWhatIsWrongAndWhere(t *testing.T) {
	good := pcapFile(binary.LittleEndian, magicMicroseconds, 4, 1, make([]byte, 60), make([]byte, 60))
	ng := ngFile(t)
	huge := append([]byte(nil), good...)
	binary.LittleEndian.PutUint32(huge[24+16+60+8:], 0x7fffffff)
	for _, c := range []struct {
		name string
		data []byte
		read int
		want string
	}{
		{"empty", nil, 0, "the file is empty"},
		{"three bytes", good[:3], 0, "3 bytes are too few"},
		{"text", []byte("hello, world, this is no capture"), 0, "starts with 68656c6c"},
		{"compressed", []byte{0x1f, 0x8b, 8, 0, 0}, 0, "unpack it first"},
		{"header cut", good[:20], 0, "20 bytes of 24"},
		{"version 3", append([]byte{0xd4, 0xc3, 0xb2, 0xa1, 3}, good[5:]...), 0, "version 3.4"},
		{"record header cut", good[:24+16+60+7], 1, "cut: it ends at byte 107, inside what starts at byte 100 behind packet 1"},
		{"packet cut", good[:len(good)-1], 1, "cut: it ends at byte 175, inside what starts at byte 100 behind packet 1"},
		{"first packet cut", good[:24+16], 0, "cut: it ends at byte 40, inside what starts at byte 24 behind packet 0"},
		{"length out of bounds", huge, 1, "packet 2 at byte 100: a record of 2147483647 bytes"},
		{"link type of 802.11", pcapFile(binary.LittleEndian, magicMicroseconds, 4, 105, make([]byte, 60)), 0, "packet 1 at byte 24: link type 105"},
		{"pcapng header cut", ng[:20], 0, "cut inside the pcapng section header"},
		{"pcapng packet cut", ng[:len(ng)-9], 1, "cut: it ends at byte"},
		{"pcapng of garbage", append(append([]byte(nil), ng[:28]...), bytes.Repeat([]byte{0xff}, 40)...), 0, "byte 28"},
	} {
		packets, _, _, err := readAll(t, c.data)
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "x.pcap") {
			t.Errorf("%s: error %q, want x.pcap and %q", c.name, err, c.want)
		}
		if len(packets) != c.read {
			t.Errorf("%s: %d packets read, want %d", c.name, len(packets), c.read)
		}
	}
	if packets, _, _, err := readAll(t, good[:24]); err != nil || len(packets) != 0 {
		t.Errorf("a capture of no packets: %v, %v", packets, err)
	}
}

func TestCaptureThatCannotBeOpened(t *testing.T) {
	if _, err := Open(filepath.Join(t.TempDir(), "missing.pcap")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
	if _, err := Open(t.TempDir()); err == nil || !strings.Contains(err.Error(), "is a directory") {
		t.Errorf("directory: %v", err)
	}
}

func TestEachLeavesOutWhatIsNoEthernet(t *testing.T) {
	var b bytes.Buffer
	w, err := pcapgo.NewNgWriterInterface(&b, pcapgo.NgInterface{LinkType: layers.LinkTypeIEEE802_11}, pcapgo.NgWriterOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ethernet, err := w.AddInterface(pcapgo.NgInterface{LinkType: layers.LinkTypeEthernet})
	if err != nil {
		t.Fatal(err)
	}
	for i, length := range []int{60, 60, 61, 60, 60} {
		info := gopacket.CaptureInfo{Timestamp: time.Unix(1700000000, 0), CaptureLength: 60, Length: length, InterfaceIndex: i % 2 * ethernet}
		if err := w.WritePacket(info, make([]byte, 60)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	path, n, cut := writeFile(t, b.Bytes()), 0, 0
	err = Each(path, func(p Packet) error {
		n++
		if p.Cut {
			cut++
		}
		return nil
	})
	if n != 2 || cut != 0 || err != nil {
		t.Errorf("%d packets of 2, %d cut, error %v", n, cut, err)
	}
	stop := errors.New("enough")
	if err := Each(path, func(Packet) error { return stop }); !errors.Is(err, stop) || !strings.Contains(err.Error(), "packet 2: enough") {
		t.Errorf("stopped with %v", err)
	}
	if err := Each(writeFile(t, b.Bytes()[:b.Len()-9]), func(Packet) error { return nil }); err == nil || !strings.Contains(err.Error(), "cut") {
		t.Errorf("a cut capture: %v", err)
	}
}

// FuzzCapture: whatever a file holds, reading it ends with io.EOF or with an
// error, and never returns more than the file has.
func FuzzCapture(f *testing.F) {
	f.Add(pcapFile(binary.LittleEndian, magicMicroseconds, 4, 1, make([]byte, 60)))
	f.Add(pcapFile(binary.BigEndian, magicNanoseconds, 2, 113, make([]byte, 60)))
	f.Add(pcapFile(binary.LittleEndian, magicMicroseconds, 4, 0, make([]byte, 3)))
	f.Add(ngFile(f))
	f.Fuzz(func(t *testing.T, data []byte) {
		c := newFile("fuzz", bytes.NewReader(data))
		if c.detect() != nil {
			return
		}
		total := 0
		for {
			p, err := c.Next()
			if err != nil {
				return
			}
			if p.Time.IsZero() {
				t.Fatal("a packet without a time")
			}
			if total += len(p.Frame) + 2; total > 16*len(data)+64 { // 14 bytes of made-up header for a 16-byte record
				t.Fatalf("%d bytes of packets from a file of %d", total, len(data))
			}
		}
	})
}
