// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"github.com/sentinel-x/sentinel-x/internal/api"
)

// Service is what clients ask a server for.
type Service string

// The services. Each request is a new connection, or a new socket.
const (
	ServiceHTTP Service = "http"
	ServiceEcho Service = "udp_echo"
	ServiceDNS  Service = "dns"
)

// ClientOptions describe a population of clients.
type ClientOptions struct {
	Service Service
	Server  netip.AddrPort
	Sources []netip.Addr  // in turn; they must be addresses of the namespace
	Rate    float64       // requests a second of all clients together
	Timeout time.Duration // of one request, 0: 2 s
	Workers int           // requests at the same time, 0: 64; each takes a thread
}

// Interval is what clients saw in a span of time. Latency runs from when a
// request was due to its complete answer, and counts successes only.
type Interval struct {
	Name      string            `json:"name"`
	Requests  uint64            `json:"requests"`
	Succeeded uint64            `json:"succeeded"`
	Errors    map[string]uint64 `json:"errors,omitempty"` // failures by kind: timeout, refused, reset, overload, …
	P50       api.Duration      `json:"p50"`
	P99       api.Duration      `json:"p99"`
	Max       api.Duration      `json:"max"`
	Elapsed   api.Duration      `json:"elapsed"`
}

// Success returns the share of requests that succeeded, 1 without requests.
func (i Interval) Success() float64 {
	if i.Requests == 0 {
		return 1
	}
	return float64(i.Succeeded) / float64(i.Requests)
}

// Clients is a population at work. Requests become due at the given rate
// whether or not earlier ones have been answered, so a slow server is not
// asked less.
type Clients struct {
	options ClientOptions
	jobs    chan job
	cancel  context.CancelFunc
	running sync.WaitGroup

	mu     sync.Mutex
	phases []*tally
	recent *tally
}

type job struct {
	due    time.Time
	source netip.Addr
	phase  *tally
}

// StartClients sets a population of clients to work in the namespace. It works
// until Stop, or until ctx ends.
func (n *Namespace) StartClients(ctx context.Context, o ClientOptions) (*Clients, error) {
	if o.Timeout == 0 {
		o.Timeout = 2 * time.Second
	}
	if o.Workers == 0 {
		o.Workers = 64
	}
	if _, known := exchanges[o.Service]; !known {
		return nil, fmt.Errorf("start clients: unknown service %q", o.Service)
	}
	if len(o.Sources) == 0 || o.Rate <= 0 || o.Workers < 0 || !o.Server.IsValid() {
		return nil, errors.New("start clients: server, sources and a rate must be given")
	}
	now := time.Now()
	c := &Clients{options: o, jobs: make(chan job, 4*o.Workers), recent: newTally("", now)}
	c.phases = []*tally{newTally("start", now)}
	schedule, cancel := context.WithCancel(ctx)
	c.cancel = cancel
	for range o.Workers {
		c.running.Go(func() { c.work(ctx, n) })
	}
	c.running.Go(func() { c.schedule(schedule) })
	return c, nil
}

// Phase starts a new interval. A request belongs to the one in which it was due.
func (c *Clients) Phase(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	c.phases[len(c.phases)-1].end = now
	c.phases = append(c.phases, newTally(name, now))
}

// Recent returns what was answered, or failed, since the last call.
func (c *Clients) Recent() Interval {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	r := c.recent.interval(now)
	c.recent = newTally("", now)
	return r
}

// Stop ends the requests, waits for those under way, and returns one interval a
// phase; the first is called start and reaches to the first call of Phase.
func (c *Clients) Stop() []Interval {
	now := time.Now()
	c.cancel()
	c.running.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []Interval
	for _, p := range c.phases {
		all = append(all, p.interval(now))
	}
	return all
}

func (c *Clients) schedule(ctx context.Context) {
	defer close(c.jobs)
	const tick = time.Millisecond
	start := time.Now()
	for i := 0; ctx.Err() == nil; wait(ctx, tick) {
		now := time.Now()
		for ; float64(i) < now.Sub(start).Seconds()*c.options.Rate; i++ {
			c.offer(job{due: now, source: c.options.Sources[i%len(c.options.Sources)]})
		}
	}
}

func (c *Clients) offer(j job) {
	c.mu.Lock()
	j.phase = c.phases[len(c.phases)-1]
	c.mu.Unlock()
	select {
	case c.jobs <- j:
	default:
		c.record(j, 0, errOverload)
	}
}

// work answers jobs in one thread of the namespace until there are no more.
func (c *Clients) work(ctx context.Context, n *Namespace) {
	err := n.Do(func() error {
		for j := range c.jobs {
			err := c.request(ctx, j)
			if ctx.Err() != nil {
				continue // given up, not failed
			}
			c.record(j, time.Since(j.due), err)
		}
		return nil
	})
	for j := range c.jobs { // the namespace could not be entered
		c.record(j, 0, err)
	}
}

func (c *Clients) request(ctx context.Context, j job) error {
	ctx, cancel := context.WithTimeout(ctx, c.options.Timeout)
	defer cancel()
	network, local := "udp", net.Addr(net.UDPAddrFromAddrPort(netip.AddrPortFrom(j.source, 0)))
	if c.options.Service == ServiceHTTP {
		network, local = "tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(j.source, 0))
	}
	// With a literal address, the dialer opens its socket in the calling thread.
	d := net.Dialer{LocalAddr: local}
	conn, err := d.DialContext(ctx, network, c.options.Server.String())
	if err != nil {
		return err
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return err
	}
	return exchanges[c.options.Service](conn)
}

// exchanges ask a server once over a connection and check its answer.
var exchanges = map[Service]func(net.Conn) error{
	ServiceHTTP: exchangeHTTP,
	ServiceEcho: exchangeEcho,
	ServiceDNS:  exchangeDNS,
}

var errAnswer = errors.New("unexpected answer")

func exchangeHTTP(conn net.Conn) error {
	request, err := http.NewRequest(http.MethodGet, "http://"+conn.RemoteAddr().String()+"/", nil)
	if err != nil {
		return err
	}
	request.Close = true
	if err := request.Write(conn); err != nil {
		return err
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK || !bytes.Equal(body, page) {
		return errAnswer
	}
	return nil
}

func exchangeEcho(conn net.Conn) error {
	question := binary.BigEndian.AppendUint64([]byte("sentinel-x lab "), uint64(time.Now().UnixNano()))
	if _, err := conn.Write(question); err != nil {
		return err
	}
	answer := make([]byte, 2*len(question))
	n, err := conn.Read(answer)
	if err != nil {
		return err
	}
	if !bytes.Equal(answer[:n], question) {
		return errAnswer
	}
	return nil
}

func exchangeDNS(conn net.Conn) error {
	question := new(dns.Msg).SetQuestion("www.example.com.", dns.TypeA)
	d := &dns.Conn{Conn: conn}
	if err := d.WriteMsg(question); err != nil {
		return err
	}
	answer, err := d.ReadMsg()
	if err != nil {
		return err
	}
	if answer.Id != question.Id || len(answer.Answer) != 1 {
		return errAnswer
	}
	return nil
}

var errOverload = errors.New("no client was free")

func (c *Clients) record(j job, latency time.Duration, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	j.phase.record(latency, err)
	c.recent.record(latency, err)
}

// tally counts requests.
type tally struct {
	name       string
	start, end time.Time
	succeeded  uint64
	errors     map[string]uint64
	latency    *hdrhistogram.Histogram // microseconds
}

func newTally(name string, start time.Time) *tally {
	const longest, digits = 60_000_000, 3
	return &tally{name: name, start: start, errors: map[string]uint64{}, latency: hdrhistogram.New(1, longest, digits)}
}

func (t *tally) record(latency time.Duration, err error) {
	if err != nil {
		t.errors[errorKind(err)]++
		return
	}
	t.succeeded++
	// Longer than the histogram reaches is longer than any timeout in use.
	_ = t.latency.RecordValue(min(max(latency.Microseconds(), 1), t.latency.HighestTrackableValue()))
}

// interval returns the counts so far, for a tally that has not ended until now.
func (t *tally) interval(now time.Time) Interval {
	if !t.end.IsZero() {
		now = t.end
	}
	i := Interval{
		Name: t.name, Succeeded: t.succeeded, Requests: t.succeeded,
		Errors:  maps.Clone(t.errors),
		P50:     micros(t.latency.ValueAtQuantile(50)),
		P99:     micros(t.latency.ValueAtQuantile(99)),
		Max:     micros(t.latency.Max()),
		Elapsed: api.Duration{Duration: now.Sub(t.start)},
	}
	for _, n := range t.errors {
		i.Requests += n
	}
	return i
}

func micros(n int64) api.Duration {
	return api.Duration{Duration: time.Duration(n) * time.Microsecond}
}

func errorKind(err error) string {
	switch {
	case errors.Is(err, errOverload):
		return "overload"
	case errors.Is(err, errAnswer):
		return "answer"
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded), errors.Is(err, unix.ETIMEDOUT):
		return "timeout"
	case errors.Is(err, unix.ECONNREFUSED):
		return "refused"
	case errors.Is(err, unix.ECONNRESET), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, unix.EPIPE):
		return "reset"
	case errors.Is(err, unix.EHOSTUNREACH), errors.Is(err, unix.ENETUNREACH):
		return "unreachable"
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return "address"
	}
	return err.Error()
}
