// SPDX-License-Identifier: Apache-2.0

package test

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/sentinel-x/sentinel-x/internal/dataplane"
	"github.com/sentinel-x/sentinel-x/internal/lab"
)

const floodPort = 9

// bannedFrames counts frames of the flood that reach the victim's stack.
func (s *site) bannedFrames(t *testing.T) *lab.Receiver {
	t.Helper()
	r, err := s.VictimEnd.NewReceiver(0, func(f []byte) bool {
		return len(f) > 38 && f[12] == 8 && f[23] == 17 && binary.BigEndian.Uint16(f[36:]) == floodPort
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// flood sends banned frames until the returned function is called, which returns how many were sent.
func (s *site) flood(t *testing.T, source netip.Addr, most time.Duration) (stop func() uint64) {
	t.Helper()
	return s.floodOf(t, dataplane.Flood{
		Source: netip.PrefixFrom(source, 32), Sources: 1, Kind: dataplane.FloodUDP, DestPort: floodPort,
		Rate: 20000, Duration: most,
	})
}

func (s *site) floodOf(t *testing.T, f dataplane.Flood) (stop func() uint64) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	type result struct {
		report dataplane.FloodReport
		err    error
	}
	done := make(chan result, 1)
	go func() {
		r, err := s.Flood(ctx, f)
		done <- result{r, err}
	}()
	t.Cleanup(cancel)
	return func() uint64 {
		t.Helper()
		cancel()
		r := <-done
		if r.err != nil && ctx.Err() == nil {
			t.Fatal(r.err)
		}
		return r.report.Sent.Packets
	}
}

// Restarts of a pinned daemon, by SIGKILL and by SIGTERM with on_exit: keep in
// turn, under a flood from a banned source: no frame gets through. The control
// without pins leaks, so the test can see a leak.
func TestRestartUnderFire(t *testing.T) {
	source := lab.Client4(0)
	restarts := func(t *testing.T, n int, args ...string) (leaked uint64) {
		s := newSite(t, lab.NetOptions{Clients: 1})
		args = s.runArgs(args...)
		for i, a := range args {
			args[i] = strings.ReplaceAll(a, "BPFFS", s.dir)
		}
		if strings.Contains(fmt.Sprint(args), s.dir+"/bpffs") {
			s.bpffs(t)
		}
		d := s.start(t, args...)
		s.ok(t, "block", "add", source.String())
		received := s.bannedFrames(t)
		stop := s.flood(t, source, 2*time.Minute)
		for i := range n {
			if i%2 == 0 {
				d.kill()
			} else {
				d.stop(t)
			}
			d = s.start(t, args...)
		}
		if sent := stop(); sent < 3000 {
			t.Errorf("only %d frames were sent", sent)
		}
		d.stop(t)
		leaked, lost := received.Count()
		t.Logf("leaked %d (and %d uncounted)", leaked, lost)
		return leaked + lost
	}
	t.Run("pinned", func(t *testing.T) {
		if leaked := restarts(t, 10, "--pin-path", "BPFFS/bpffs/sentinel-x", "--on-exit", "keep"); leaked != 0 {
			t.Errorf("%d frames of a banned source reached the stack", leaked)
		}
	})
	t.Run("control: not pinned", func(t *testing.T) {
		if leaked := restarts(t, 2, "--no-pin"); leaked == 0 {
			t.Error("nothing leaked without pins: the test cannot see a leak")
		}
	})
}

// A killed daemon's pinned program keeps a flood out and lets real traffic in.
func TestKilledDaemonKeepsFiltering(t *testing.T) {
	s := newSite(t, lab.NetOptions{Clients: 2})
	pins := s.bpffs(t)
	d := s.start(t, s.runArgs("--pin-path", pins)...)
	s.ok(t, "block", "add", lab.Client4(0).String())
	received := s.bannedFrames(t)
	stop := s.flood(t, lab.Client4(0), time.Minute)
	d.kill()
	server, err := s.Victim.ServeUDPEcho(netip.AddrPortFrom(lab.Victim4, 7))
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	for range 5 {
		s.wantReach(t, "allowed traffic after kill -9", lab.Client4(1), true)
		time.Sleep(200 * time.Millisecond)
	}
	if sent := stop(); sent < 3000 {
		t.Errorf("only %d frames were sent", sent)
	}
	if leaked, lost := received.Count(); leaked+lost != 0 {
		t.Errorf("%d frames of a banned source reached the stack after kill -9", leaked+lost)
	}
	s.ok(t, "detach", "--interface", s.VictimEnd.Name, "--pin-path", pins)
}

// Real traffic passes unharmed: 1 GB by TCP, intact, with GRO and GSO as the kernel
// sets them, with plain and with jumbo frames.
func TestOneGigabyteIntact(t *testing.T) {
	for _, mode := range []string{"native", "generic"} {
		for _, mtu := range []int{1500, 9000} {
			t.Run(fmt.Sprintf("%s, MTU %d", mode, mtu), func(t *testing.T) {
				s := newSite(t, lab.NetOptions{Clients: 1, MTU: mtu})
				d := s.start(t, s.runArgs("--mode", mode)...)
				ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
				defer cancel()
				const bytes = 1 << 30
				_, err := lab.Transfer(ctx, lab.TransferOptions{
					From: s.Peer, To: s.Victim, Source: lab.Client4(0), Target: lab.Victim4, Bytes: bytes,
				})
				if err != nil {
					t.Error(err)
				}
				st := s.status(t)
				if st.Counters.Passed.Bytes < bytes || st.Counters.Dropped.Packets != 0 {
					t.Errorf("passed %d bytes, dropped %d packets", st.Counters.Passed.Bytes, st.Counters.Dropped.Packets)
				}
				if st.Interfaces[0].MTU != mtu || st.Interfaces[0].Mode != mode {
					t.Errorf("interface %+v", st.Interfaces[0])
				}
				d.stop(t)
			})
		}
	}
}
