// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// pageSize is the length of the page the HTTP server answers with.
const pageSize = 1024

var page = []byte(strings.Repeat("x", pageSize))

// Server is a real service in a namespace.
type Server struct {
	Addr     netip.AddrPort
	requests atomic.Uint64
	shutdown func() error
	serving  sync.WaitGroup

	mu  sync.Mutex
	err error
}

// Requests returns the requests that have reached the server.
func (s *Server) Requests() uint64 { return s.requests.Load() }

// Close stops the server and returns what made it stop before, if anything did.
func (s *Server) Close() error {
	err := s.shutdown()
	s.serving.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	return errors.Join(err, s.err)
}

// serve runs the server's loop; it ends with errors that are no faults when closed.
func (s *Server) serve(loop func() error) {
	s.serving.Go(func() {
		err := loop()
		if err == nil || errors.Is(err, net.ErrClosed) || errors.Is(err, http.ErrServerClosed) {
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.err = fmt.Errorf("serve %s: %w", s.Addr, err)
	})
}

// ServeHTTP starts an HTTP server that answers every request with a page of
// 1 KiB. Port 0 takes a free one.
func (n *Namespace) ServeHTTP(addr netip.AddrPort) (*Server, error) {
	var l net.Listener
	err := n.Do(func() (err error) {
		// MPTCP, Go's default for listeners, is not answered with SYN cookies by every kernel.
		var config net.ListenConfig
		config.SetMultipathTCP(false)
		l, err = config.Listen(context.Background(), "tcp", addr.String())
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("start HTTP server in %s: %w", n.Name, err)
	}
	s := &Server{Addr: netip.MustParseAddrPort(l.Addr().String())}
	h := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		s.requests.Add(1)
		_, _ = w.Write(page) // a client that has gone away notices for itself
	})}
	s.shutdown = h.Close
	s.serve(func() error { return h.Serve(l) })
	return s, nil
}

// ServeUDPEcho starts a server that sends every datagram back.
func (n *Namespace) ServeUDPEcho(addr netip.AddrPort) (*Server, error) {
	conn, err := n.listenUDP(addr)
	if err != nil {
		return nil, fmt.Errorf("start UDP echo server in %s: %w", n.Name, err)
	}
	s := &Server{Addr: conn.LocalAddr().(*net.UDPAddr).AddrPort(), shutdown: conn.Close}
	s.serve(func() error {
		buf := make([]byte, snapLength)
		for {
			length, from, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				return err
			}
			s.requests.Add(1)
			// What cannot be sent is a datagram lost, as UDP has it.
			_, _ = conn.WriteToUDPAddrPort(buf[:length], from)
		}
	})
	return s, nil
}

// ServeDNS starts a DNS server over UDP that answers every A query with
// 192.0.2.1 and every AAAA query with 2001:db8::1.
func (n *Namespace) ServeDNS(addr netip.AddrPort) (*Server, error) {
	conn, err := n.listenUDP(addr)
	if err != nil {
		return nil, fmt.Errorf("start DNS server in %s: %w", n.Name, err)
	}
	s := &Server{Addr: conn.LocalAddr().(*net.UDPAddr).AddrPort()}
	started := make(chan struct{})
	d := &dns.Server{PacketConn: conn, NotifyStartedFunc: func() { close(started) }}
	d.Handler = dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		s.requests.Add(1)
		_ = w.WriteMsg(answer(q)) // lost, as UDP has it
	})
	s.shutdown = d.Shutdown
	s.serve(d.ActivateAndServe)
	<-started
	return s, nil
}

func answer(q *dns.Msg) *dns.Msg {
	a := new(dns.Msg).SetReply(q)
	for _, question := range q.Question {
		header := dns.RR_Header{Name: question.Name, Rrtype: question.Qtype, Class: dns.ClassINET, Ttl: 60}
		switch question.Qtype {
		case dns.TypeA:
			a.Answer = append(a.Answer, &dns.A{Hdr: header, A: net.IPv4(192, 0, 2, 1)})
		case dns.TypeAAAA:
			a.Answer = append(a.Answer, &dns.AAAA{Hdr: header, AAAA: net.ParseIP("2001:db8::1")})
		}
	}
	return a
}

func (n *Namespace) listenUDP(addr netip.AddrPort) (conn *net.UDPConn, err error) {
	err = n.Do(func() (err error) {
		conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr))
		return err
	})
	return conn, err
}
