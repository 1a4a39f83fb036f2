// SPDX-License-Identifier: Apache-2.0

package api

import (
	"bufio"
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

func blocked(source string) *traffic.Event {
	return &traffic.Event{
		Time: time.Unix(1000, 0), Reason: traffic.ReasonBlocklist, Outcome: traffic.Dropped,
		Source: netip.MustParseAddr(source), Destination: netip.MustParseAddr("192.0.2.1"),
		Protocol: 17, SourcePort: 53, DestPort: 4444, TTL: 60, Length: 512,
	}
}

// waitReaders waits until n event streams are open.
func waitReaders(t *testing.T, s *Server, n int) {
	t.Helper()
	for range 1000 {
		if s.Readers() == n {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("%d readers, want %d", s.Readers(), n)
}

func TestEvents(t *testing.T) {
	_, s, c, _ := start(t)
	filter := EventFilter{
		Reasons:  []traffic.Reason{traffic.ReasonLimit, traffic.ReasonBlocklist},
		Outcomes: []traffic.Outcome{traffic.Dropped},
		Sources:  []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("2001:db8::/32")},
	}
	go func() {
		for s.Readers() == 0 {
			time.Sleep(time.Millisecond)
		}
		passed, other := blocked("198.51.100.1"), blocked("198.51.100.2")
		passed.Outcome, other.Reason = traffic.WouldDrop, traffic.ReasonLand
		s.Publish("eth9", passed)
		s.Publish("eth9", other)
		s.Publish("eth9", blocked("203.0.113.1"))
		s.Publish("eth9", &traffic.Event{Reason: traffic.ReasonBlocklist, Outcome: traffic.Dropped})
		s.Publish("eth9", blocked("198.51.100.3"))
		s.Publish("eth9", blocked("2001:db8::3"))
	}()
	var sources []string
	for m, err := range c.Events(t.Context(), filter) {
		if err != nil {
			t.Fatal(err)
		}
		sources = append(sources, m.Event.Source)
		if len(sources) == 1 {
			want := Event{
				Time: time.Unix(1000, 0).UTC(), Interface: "eth9", Reason: "blocklist", Outcome: "dropped",
				Source: "198.51.100.3", Destination: "192.0.2.1", Protocol: 17, SourcePort: 53, DestinationPort: 4444, TTL: 60, Length: 512,
			}
			if diff := cmp.Diff(want, *m.Event); diff != "" {
				t.Error(diff)
			}
		} else {
			break
		}
	}
	if diff := cmp.Diff([]string{"198.51.100.3", "2001:db8::3"}, sources); diff != "" {
		t.Error(diff)
	}
	waitReaders(t, s, 0) // breaking off ends the stream at the server too
}

func TestConcurrentStreams(t *testing.T) {
	_, s, c, _ := start(t)
	const streams, events = 8, 200
	var wg sync.WaitGroup
	for range streams {
		wg.Go(func() {
			n := 0
			for m, err := range c.Events(t.Context(), EventFilter{}) {
				if err != nil || m.Lost != 0 {
					t.Errorf("lost %d: %v", m.Lost, err)
					return
				}
				if n++; n == events {
					return
				}
			}
		})
	}
	waitReaders(t, s, streams)
	for range events {
		s.Publish("eth9", blocked("198.51.100.3"))
	}
	wg.Wait()
}

func TestTooManyStreams(t *testing.T) {
	_, s, c, _ := start(t)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range maxReaders {
		wg.Go(func() {
			for _, err := range c.Events(ctx, EventFilter{}) {
				if !errors.Is(err, context.Canceled) {
					t.Errorf("stream ended with %v", err)
				}
			}
		})
	}
	waitReaders(t, s, maxReaders)
	for _, err := range c.Events(ctx, EventFilter{}) {
		if err == nil || !strings.Contains(err.Error(), "event streams are open already") {
			t.Errorf("one stream too many: %v", err)
		}
	}
	if _, err := c.Status(t.Context()); err != nil {
		t.Errorf("other requests suffer: %v", err)
	}
	cancel()
	wg.Wait()
	waitReaders(t, s, 0)
}

// A reader that does not read must neither block the publisher nor get the
// events it missed; it is told how many those are.
func TestSlowReaderIsToldWhatItLost(t *testing.T) {
	_, s, _, socket := start(t)
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	waitReaders(t, s, 1)
	const published = 50_000
	for range published {
		s.Publish("eth9", blocked("198.51.100.3"))
	}
	c := NewClient(socket)
	c.http.Transport = replay{conn}
	var got, lost uint64
	go func() { // one more event carries the last loss
		for range 100 {
			time.Sleep(10 * time.Millisecond)
			s.Publish("eth9", blocked("198.51.100.99"))
		}
		shut, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = s.Shutdown(shut)
	}()
	for m, err := range c.Events(t.Context(), EventFilter{}) {
		if err != nil {
			break
		}
		got++
		lost += m.Lost
	}
	if lost == 0 || got+lost < published {
		t.Errorf("got %d and lost %d of %d", got, lost, published)
	}
}

func TestStreamEndsWithTheServer(t *testing.T) {
	f := newFake()
	s := NewServer(f, nil)
	path := t.TempDir() + "/api.sock"
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	go func() {
		waitReaders(t, s, 1)
		if err := s.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	for _, err := range NewClient(path).Events(t.Context(), EventFilter{}) {
		if err == nil || !strings.Contains(err.Error(), "it has stopped") {
			t.Errorf("stream ended with %v", err)
		}
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestStreamEndsWithTheCaller(t *testing.T) {
	_, s, c, _ := start(t)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		waitReaders(t, s, 1)
		cancel()
	}()
	for _, err := range c.Events(ctx, EventFilter{}) {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("stream ended with %v", err)
		}
	}
	waitReaders(t, s, 0)
}

// replay answers every request with what comes out of a connection on which the
// request was already sent.
type replay struct{ conn net.Conn }

func (r replay) RoundTrip(req *http.Request) (*http.Response, error) {
	return http.ReadResponse(bufio.NewReader(r.conn), req)
}
