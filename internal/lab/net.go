// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/signal"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/sentinel-x/sentinel-x/internal/dataplane"
)

// The addresses of a Net.
var (
	Victim4 = netip.MustParseAddr("10.90.0.1") // in 10.90.0.0/16
	Victim6 = netip.MustParseAddr("fd00:90::1")
	Peer4   = netip.MustParseAddr("10.90.0.2") // the victim's default gateway
	Peer6   = netip.MustParseAddr("fd00:90::2")
)

const (
	bits4        = 16
	bits6        = 64
	clientsInRow = 250
	maxClients   = 200 * clientsInRow
)

// NetOptions choose a Net; the zero value is the usual one.
type NetOptions struct {
	MTU     int  // 0: 1500
	Clients int  // addresses of the peer besides its own, of each family
	PinNAPI bool // the victim's end is served by its own thread on CPU
	CPU     int
}

// Net is two namespaces and a veth pair between them. The victim's end is where
// an engine attaches; clients, and whoever floods, are at the peer's.
type Net struct {
	*Lab
	Victim, Peer       *Namespace
	VictimEnd, PeerEnd *Link
	clients            int
}

// NewNet builds a Net; Close removes it.
func NewNet(o NetOptions) (*Net, error) {
	if o.Clients < 0 || o.Clients > maxClients {
		return nil, fmt.Errorf("build lab: %d clients, must be from 0 to %d", o.Clients, maxClients)
	}
	if o.MTU == 0 {
		o.MTU = 1500
	}
	l, err := New()
	if err != nil {
		return nil, fmt.Errorf("build lab: %w", err)
	}
	n := &Net{Lab: l, clients: o.Clients}
	if err := n.build(o); err != nil {
		return nil, fmt.Errorf("build lab: %w", errors.Join(err, l.Close()))
	}
	return n, nil
}

func (n *Net) build(o NetOptions) (err error) {
	if n.Victim, err = n.Namespace("victim"); err != nil {
		return err
	}
	if n.Peer, err = n.Namespace("peer"); err != nil {
		return err
	}
	if n.VictimEnd, n.PeerEnd, err = n.Connect(n.Victim, n.Peer, o.MTU); err != nil {
		return err
	}
	if err := n.address(); err != nil {
		return err
	}
	if o.PinNAPI {
		return n.VictimEnd.PinNAPI(o.CPU)
	}
	return nil
}

func (n *Net) address() error {
	err := n.VictimEnd.AddAddress(netip.PrefixFrom(Victim4, bits4), netip.PrefixFrom(Victim6, bits6))
	if err != nil {
		return err
	}
	peer := []netip.Prefix{netip.PrefixFrom(Peer4, bits4), netip.PrefixFrom(Peer6, bits6)}
	for i := range n.clients {
		peer = append(peer, netip.PrefixFrom(Client4(i), bits4), netip.PrefixFrom(Client6(i), bits6))
	}
	if err := n.PeerEnd.AddAddress(peer...); err != nil {
		return err
	}
	for _, gateway := range []netip.Addr{Peer4, Peer6} {
		if err := n.VictimEnd.AddDefaultRoute(gateway); err != nil {
			return err
		}
	}
	for _, gateway := range []netip.Addr{Victim4, Victim6} {
		if err := n.PeerEnd.AddDefaultRoute(gateway); err != nil {
			return err
		}
	}
	return nil
}

// Client4 is the IPv4 address of client i, counted from 0.
func Client4(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, 90, byte(1 + i/clientsInRow), byte(1 + i%clientsInRow)})
}

// Client6 is the IPv6 address of client i, counted from 0.
func Client6(i int) netip.Addr {
	a := Victim6.As16()
	a[13], a[14], a[15] = 1, byte((i+1)>>8), byte(i+1)
	return netip.AddrFrom16(a)
}

// Clients returns the IPv4 addresses of the peer's clients.
func (n *Net) Clients() []netip.Addr {
	a := make([]netip.Addr, n.clients)
	for i := range a {
		a[i] = Client4(i)
	}
	return a
}

// Flood sends a flood from the peer's end to the victim's and waits for its end.
// Interface and MAC addresses are filled in; Dest defaults to the victim's
// address of the source's family.
func (n *Net) Flood(ctx context.Context, f dataplane.Flood) (dataplane.FloodReport, error) {
	f.DestMAC = n.VictimEnd.MAC
	if !f.Dest.IsValid() {
		f.Dest = Victim4
		if f.Source.Addr().Is6() {
			f.Dest = Victim6
		}
	}
	return n.PeerEnd.Flood(ctx, f)
}

// Flood sends a flood out of the interface and waits for its end. Interface and
// source MAC address are filled in.
func (l *Link) Flood(ctx context.Context, f dataplane.Flood) (report dataplane.FloodReport, err error) {
	f.Interface, f.SourceMAC = l.Index, l.MAC
	g, err := dataplane.NewGenerator(f)
	if err != nil {
		return report, err
	}
	err = l.Namespace.Do(func() (err error) {
		report, err = g.Run(ctx)
		return err
	})
	return report, errors.Join(err, g.Close())
}

// TB is what NewTestNet needs of a testing.TB.
type TB interface {
	Helper()
	Fatalf(format string, args ...any)
	Errorf(format string, args ...any)
	Cleanup(func())
}

// NewTestNet builds a Net for a test and removes it with the test, also when
// the test panics or is interrupted.
func NewTestNet(t TB, o NetOptions) *Net {
	t.Helper()
	n, err := NewNet(o)
	if err != nil {
		t.Fatalf("%v", err)
	}
	watched.add(n.Lab)
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Errorf("remove lab: %v", err)
		}
	})
	return n
}

// watched are the labs of tests, which nobody else closes on an interrupt.
var watched watch

type watch struct {
	once sync.Once
	mu   sync.Mutex
	labs []*Lab
}

func (w *watch) add(l *Lab) {
	w.mu.Lock()
	w.labs = append(w.labs, l)
	w.mu.Unlock()
	w.once.Do(func() {
		c := make(chan os.Signal, 1)
		signal.Notify(c, unix.SIGINT, unix.SIGTERM)
		go w.closeOnSignal(c)
	})
}

// closeOnSignal removes all labs, then lets the signal do what it does by default.
func (w *watch) closeOnSignal(c <-chan os.Signal) {
	s := (<-c).(unix.Signal)
	w.mu.Lock()
	for _, l := range w.labs {
		l.Close() // the process ends here: what is left, the next start removes
	}
	signal.Reset(s)
	_ = unix.Kill(os.Getpid(), s)
}
