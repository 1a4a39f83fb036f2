// SPDX-License-Identifier: Apache-2.0

package test

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sentinel-x/sentinel-x/internal/lab"
)

// resident returns the memory that the daemon holds now, and held at most, in MiB.
func (p *process) resident(t *testing.T) (now, most float64) {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	of := func(key string) float64 {
		m := regexp.MustCompile(key + `:\s+(\d+) kB`).FindSubmatch(data)
		if m == nil {
			t.Fatalf("no %s in %s", key, data)
		}
		n, err := strconv.ParseFloat(string(m[1]), 64)
		if err != nil {
			t.Fatal(err)
		}
		return n / 1024
	}
	return of("VmRSS"), of("VmHWM")
}

// hostAt is one of the hosts of these tests: 10.90.16.0 and on.
func hostAt(i int) netip.Addr {
	var a [4]byte
	binary.BigEndian.PutUint32(a[:], 10<<24|90<<16|16<<8+uint32(i))
	return netip.AddrFrom4(a)
}

// visit sends rounds of one datagram to each host, evenly over a time.
func (s *site) visit(t *testing.T, hosts, rounds int, during time.Duration) {
	t.Helper()
	sender, err := s.PeerEnd.NewSender()
	if err != nil {
		t.Fatal(err)
	}
	defer sender.Close()
	start, total := time.Now(), rounds*hosts
	for n := range total {
		if n%64 == 0 {
			time.Sleep(time.Until(start.Add(during * time.Duration(n) / time.Duration(total))))
		}
		if err := sender.Send(s.datagram(hostAt(n%hosts), uint16(n))); err != nil {
			t.Fatal(err)
		}
	}
}

// datagram is a frame of 100 bytes with one to port 9 of a host.
func (s *site) datagram(to netip.Addr, sport uint16) []byte {
	f := make([]byte, 100)
	copy(f, s.VictimEnd.MAC)
	copy(f[6:], s.PeerEnd.MAC)
	ip := f[14:]
	copy(f[12:], []byte{8, 0, 0x45, 0, 0, 86, 0, 0, 0x40, 0, 64, 17})
	copy(ip[12:], lab.Peer4.AsSlice())
	copy(ip[16:], to.AsSlice())
	var sum uint32
	for i := 0; i < 20; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(ip[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(ip[10:], ^uint16(sum))
	binary.BigEndian.PutUint16(ip[20:], sport)
	binary.BigEndian.PutUint16(ip[22:], 9)
	binary.BigEndian.PutUint16(ip[24:], 66)
	return f
}

// The memory of a daemon with 4080 active targets and their networks, the most that are watched, is bounded: 8 MiB of
// maps for each CPU, as much to compare them with, and what it knows of each target.
func TestDaemonWithAllTargets(t *testing.T) {
	s := newSite(t, lab.NetOptions{})
	const hosts = 4080
	var list strings.Builder
	for i := range hosts {
		fmt.Fprintf(&list, "    - %v\n", hostAt(i))
	}
	cfg := s.write(t, "sentinel.yaml", "detect: {max_targets: 4096}\nprotect:\n  targets:\n"+list.String())
	d := s.start(t, s.runArgs("--config", cfg)...)
	s.visit(t, hosts, 40, 8*time.Second)
	if st := s.status(t).Detection; st.Targets != hosts || st.Capacity != 4096 || st.Unplaced != 0 {
		t.Errorf("%+v", st)
	}
	now, most := d.resident(t)
	t.Logf("resident %.1f MiB, at most %.1f", now, most)
	if limit := 104 + 16*float64(min(runtime.NumCPU(), 16)); raceFlags == nil && most > limit {
		t.Errorf("resident %.1f MiB, at most %.1f, want no more than %.0f", now, most, limit)
	}
	d.stop(t)
}
