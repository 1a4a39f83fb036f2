// SPDX-License-Identifier: Apache-2.0

package dataplane_test

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/sentinel-x/sentinel-x/internal/dataplane"
	"github.com/sentinel-x/sentinel-x/internal/lab"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// TestWindowsOnVeth: datagrams that come through an interface, small ones and ones of several buffers, are in the
// windows and, with their beginning, in the samples, in native and generic mode.
func TestWindowsOnVeth(t *testing.T) {
	features, err := dataplane.Probe()
	if err != nil {
		t.Fatal(err)
	}
	for _, mode := range []dataplane.Mode{dataplane.ModeNative, dataplane.ModeGeneric} {
		options, sizes := lab.NetOptions{MTU: 9000}, []int{18, 7000}
		if !features.Frags { // such a kernel has no program on an MTU of 9000
			options, sizes = lab.NetOptions{}, sizes[:1]
		}
		n := lab.NewTestNet(t, options)
		p := newPlane(t, dataplane.Options{MaxTargets: 8})
		mustAttach(t, n, p, mode)
		if err := p.SetTargets([]netip.Prefix{netip.PrefixFrom(lab.Victim4, 32)}); err != nil {
			t.Fatal(err)
		}
		for _, size := range sizes {
			checkWindow(t, n, p, mode, size)
		}
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func checkWindow(t *testing.T, n *lab.Net, p *dataplane.Plane, mode dataplane.Mode, size int) {
	t.Helper()
	const datagrams = 100
	began := time.Now()
	sendDatagrams(t, n, size, datagrams)
	var tally traffic.Tally
	samples := 0
	for tries := 0; tries < 50 && tally.UDP < datagrams; tries++ {
		time.Sleep(10 * time.Millisecond)
		windows, err := p.Tick(time.Now())
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range windows {
			if w.Target != traffic.HostTarget(lab.Victim4) {
				continue
			}
			tally.Add(&w.Tally)
			for _, s := range w.Samples {
				if s.Protocol != 17 {
					continue
				}
				samples++
				if len(s.Header) != min(size+42, traffic.SampleBytes) || s.Header[23] != 17 || s.Length != uint32(size+42) ||
					int(s.IPLength) != size+28 || s.Source != lab.Peer4 || s.DestPort != 9 ||
					s.Time.Before(began.Add(-time.Second)) || s.Time.After(time.Now().Add(time.Second)) {
					t.Fatalf("%v, %d bytes: sample %+v", mode, size, s)
				}
			}
		}
	}
	if tally.UDP != datagrams || samples == 0 {
		t.Errorf("%v, %d bytes: %d of %d datagrams, %d samples", mode, size, tally.UDP, datagrams, samples)
	}
}

// sendDatagrams sends from the peer to a port of the victim that nobody listens on.
func sendDatagrams(t *testing.T, n *lab.Net, size, datagrams int) {
	t.Helper()
	err := n.Peer.Do(func() error {
		c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(lab.Peer4, 0)))
		if err != nil {
			return err
		}
		defer c.Close()
		for range datagrams {
			if _, err := c.WriteToUDPAddrPort(make([]byte, size), netip.AddrPortFrom(lab.Victim4, 9)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
