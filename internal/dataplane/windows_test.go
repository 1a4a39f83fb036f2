// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"net/netip"
	"testing"
	"time"

	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

func TestWindowsSmoke(t *testing.T) {
	p, err := NewTester(Options{MaxTargets: 16})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := p.SetTargets([]netip.Prefix{netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("203.0.113.1/32")}); err != nil {
		t.Fatal(err)
	}
	at := 100 * time.Second
	for i := range 3 {
		for range 50 {
			if _, err := p.Run(tcpFrame(netip.MustParseAddr("192.0.2.1")), at); err != nil {
				t.Fatal(err)
			}
		}
		at += traffic.Tick
		ws, err := p.Tick(time.Unix(0, int64(at)))
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range ws {
			n := len(w.Samples)
			var s traffic.Sample
			if n > 0 {
				s = w.Samples[0]
			}
			t.Logf("%d %v %v %+v counted %d samples %d %+v", i, w.Target, w.Length, w.Tally, w.Counted, n, s)
		}
	}
}
