// SPDX-License-Identifier: Apache-2.0

package lab_test

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/sentinel-x/sentinel-x/internal/lab"
)

func start(t *testing.T, n *lab.Net, service lab.Service, addr netip.Addr) *lab.Server {
	t.Helper()
	serve := map[lab.Service]func(netip.AddrPort) (*lab.Server, error){
		lab.ServiceHTTP: n.Victim.ServeHTTP, lab.ServiceEcho: n.Victim.ServeUDPEcho, lab.ServiceDNS: n.Victim.ServeDNS,
	}
	s, err := serve[service](netip.AddrPortFrom(addr, 0))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// waitForRequests waits until clients have had n answers or failures.
func waitForRequests(t *testing.T, c *lab.Clients, n uint64) lab.Interval {
	t.Helper()
	sum := lab.Interval{Errors: map[string]uint64{}}
	for deadline := time.Now().Add(delivery); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		r := c.Recent()
		sum.Requests, sum.Succeeded = sum.Requests+r.Requests, sum.Succeeded+r.Succeeded
		for kind, count := range r.Errors {
			sum.Errors[kind] += count
		}
		if sum.Requests >= n {
			return sum
		}
	}
	t.Fatalf("only %+v in time", sum)
	return sum
}

func TestClientsAndServersAgree(t *testing.T) {
	n := lab.NewTestNet(t, lab.NetOptions{Clients: 10})
	for _, service := range []lab.Service{lab.ServiceHTTP, lab.ServiceEcho, lab.ServiceDNS} {
		for family, target := range map[string]netip.Addr{"IPv4": lab.Victim4, "IPv6": lab.Victim6} {
			t.Run(fmt.Sprintf("%s/%s", service, family), func(t *testing.T) {
				s := start(t, n, service, target)
				sources := n.Clients()
				if target.Is6() {
					sources = []netip.Addr{lab.Client6(0), lab.Client6(9)}
				}
				c, err := n.Peer.StartClients(t.Context(), lab.ClientOptions{Service: service, Server: s.Addr, Sources: sources, Rate: 200, Workers: 8})
				if err != nil {
					t.Fatal(err)
				}
				waitForRequests(t, c, 30)
				total := lab.Interval{}
				for _, i := range c.Stop() {
					total.Requests += i.Requests
					total.Succeeded += i.Succeeded
					if i.Requests > 0 && (i.P50.Duration <= 0 || i.P99.Duration < i.P50.Duration || i.Max.Duration < i.P99.Duration) {
						t.Errorf("latencies are out of order: %+v", i)
					}
				}
				if total.Requests < 30 || total.Succeeded != total.Requests {
					t.Errorf("%d of %d succeeded, want all", total.Succeeded, total.Requests)
				}
				if s.Requests() != total.Succeeded {
					t.Errorf("server saw %d requests, clients %d", s.Requests(), total.Succeeded)
				}
			})
		}
	}
}

func TestClientsUseAllTheirSources(t *testing.T) {
	n := lab.NewTestNet(t, lab.NetOptions{Clients: 5})
	s := start(t, n, lab.ServiceEcho, lab.Victim4)
	seen := map[netip.Addr]bool{}
	r, err := n.VictimEnd.NewReceiver(1000, ofType(0x0800))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	c, err := n.Peer.StartClients(t.Context(), lab.ClientOptions{Service: lab.ServiceEcho, Server: s.Addr, Sources: n.Clients(), Rate: 500})
	if err != nil {
		t.Fatal(err)
	}
	waitForRequests(t, c, 10)
	c.Stop()
	for _, f := range r.Frames() {
		src, _ := netip.AddrFromSlice(f[26:30])
		seen[src] = true
	}
	for _, want := range n.Clients() {
		if !seen[want] {
			t.Errorf("nothing came from %s", want)
		}
	}
}

func TestPhasesSeparateSuccessFromFailure(t *testing.T) {
	n := lab.NewTestNet(t, lab.NetOptions{})
	s := start(t, n, lab.ServiceHTTP, lab.Victim4)
	c, err := n.Peer.StartClients(t.Context(), lab.ClientOptions{
		Service: lab.ServiceHTTP, Server: s.Addr, Sources: []netip.Addr{lab.Peer4}, Rate: 100, Timeout: 200 * time.Millisecond, Workers: 4,
	})
	if err != nil {
		t.Fatal(err)
	}
	waitForRequests(t, c, 20)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	c.Phase("closed")
	waitForRequests(t, c, 20)
	if err := n.VictimEnd.SetUp(false); err != nil {
		t.Fatal(err)
	}
	c.Phase("down")
	waitForRequests(t, c, 20)
	phases := c.Stop()
	if len(phases) != 3 || phases[0].Name != "start" || phases[1].Name != "closed" || phases[2].Name != "down" {
		t.Fatalf("phases %+v", phases)
	}
	if phases[0].Succeeded == 0 || phases[0].Success() < 0.5 {
		t.Errorf("with a server: %+v", phases[0])
	}
	if phases[1].Succeeded != 0 || phases[1].Errors["refused"] == 0 {
		t.Errorf("with no server: %+v, want all refused", phases[1])
	}
	if phases[2].Succeeded != 0 || phases[2].Errors["timeout"]+phases[2].Errors["unreachable"]+phases[2].Errors["overload"] == 0 {
		t.Errorf("with no network: %+v, want timeouts", phases[2])
	}
}

func TestClientsStopWithTheirContext(t *testing.T) {
	n := lab.NewTestNet(t, lab.NetOptions{})
	s := start(t, n, lab.ServiceEcho, lab.Victim4)
	ctx, cancel := context.WithCancel(t.Context())
	c, err := n.Peer.StartClients(ctx, lab.ClientOptions{Service: lab.ServiceEcho, Server: s.Addr, Sources: []netip.Addr{lab.Peer4}, Rate: 200})
	if err != nil {
		t.Fatal(err)
	}
	waitForRequests(t, c, 5)
	cancel()
	before := s.Requests()
	for _, i := range c.Stop() {
		if i.Succeeded != i.Requests {
			t.Errorf("what was given up counts as failed: %+v", i)
		}
	}
	if after := s.Requests(); after > before+64 { // as many as were under way
		t.Errorf("%d requests after the end", after-before)
	}
}

func TestStartClientsRefusesBadOptions(t *testing.T) {
	n := lab.NewTestNet(t, lab.NetOptions{})
	good := lab.ClientOptions{Service: lab.ServiceHTTP, Server: netip.AddrPortFrom(lab.Victim4, 80), Sources: []netip.Addr{lab.Peer4}, Rate: 1}
	for name, change := range map[string]func(*lab.ClientOptions){
		"service": func(o *lab.ClientOptions) { o.Service = "gopher" },
		"server":  func(o *lab.ClientOptions) { o.Server = netip.AddrPort{} },
		"sources": func(o *lab.ClientOptions) { o.Sources = nil },
		"rate":    func(o *lab.ClientOptions) { o.Rate = 0 },
		"workers": func(o *lab.ClientOptions) { o.Workers = -1 },
	} {
		o := good
		change(&o)
		if c, err := n.Peer.StartClients(t.Context(), o); err == nil {
			c.Stop()
			t.Errorf("bad %s was accepted", name)
		}
	}
}

func TestServerRefusesAddressThatIsNotThere(t *testing.T) {
	n := lab.NewTestNet(t, lab.NetOptions{})
	at := netip.MustParseAddrPort("192.0.2.1:80")
	for name, serve := range map[string]func(netip.AddrPort) (*lab.Server, error){
		"HTTP": n.Victim.ServeHTTP, "UDP": n.Victim.ServeUDPEcho, "DNS": n.Victim.ServeDNS,
	} {
		if s, err := serve(at); err == nil {
			s.Close()
			t.Errorf("%s server started", name)
		}
	}
}

func TestTransferIsIntact(t *testing.T) {
	for _, mtu := range []int{1500, 9000} {
		n := lab.NewTestNet(t, lab.NetOptions{MTU: mtu})
		for _, pair := range [][2]netip.Addr{{lab.Peer4, lab.Victim4}, {lab.Peer6, lab.Victim6}} {
			o := lab.TransferOptions{From: n.Peer, To: n.Victim, Source: pair[0], Target: pair[1], Bytes: 20<<20 + 1}
			if _, err := lab.Transfer(t.Context(), o); err != nil {
				t.Errorf("MTU %d: %v", mtu, err)
			}
		}
		stats, err := n.VictimEnd.Stats()
		if err != nil {
			t.Fatal(err)
		}
		if stats.RxBytes < 40<<20 {
			t.Errorf("only %d bytes went through the veth", stats.RxBytes)
		}
	}
}

func TestTransferEndsWithItsContext(t *testing.T) {
	n := lab.NewTestNet(t, lab.NetOptions{})
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	o := lab.TransferOptions{From: n.Peer, To: n.Victim, Source: lab.Peer4, Target: lab.Victim4, Bytes: 1 << 40}
	if _, err := lab.Transfer(ctx, o); err == nil {
		t.Error("a terabyte went through in 100 ms")
	}
}
