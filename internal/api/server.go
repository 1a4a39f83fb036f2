// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

const (
	maxConns      = 128
	maxHeader     = 16 << 10
	maxBody       = 1 << 20
	maxImport     = 64 << 20 // a million entries with comments
	headerTimeout = 5 * time.Second
	bodyTimeout   = 10 * time.Second
	importTimeout = time.Minute
	writeTimeout  = time.Minute
	idleTimeout   = 2 * time.Minute
)

// Server answers API requests out of a Backend and spreads events to readers.
type Server struct {
	backend Backend
	log     *slog.Logger
	now     func() time.Time
	events  *fanOut
	windows windowFanOut
	http    *http.Server
	ctx     context.Context // ends when the server shuts down
	stop    context.CancelFunc
}

// NewServer returns a server for a backend. It logs requests that change
// something, with the user and process that sent them; a nil log discards.
func NewServer(b Backend, log *slog.Logger) *Server {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := &Server{backend: b, log: log, now: time.Now, events: newFanOut()}
	s.ctx, s.stop = context.WithCancel(context.Background())
	s.http = &http.Server{
		Handler:           s.audit(s.routes()),
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       importTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		BaseContext:       func(net.Listener) context.Context { return s.ctx },
		ConnContext:       withPeer,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	return s
}

// Serve answers requests on l until Shutdown, and then returns nil. It closes l.
func (s *Server) Serve(l net.Listener) error {
	err := s.http.Serve(newLimited(l, maxConns))
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// Shutdown ends the event streams, waits for other requests until ctx ends, and
// then closes every connection.
func (s *Server) Shutdown(ctx context.Context) error {
	s.stop()
	err := s.http.Shutdown(ctx)
	if err != nil {
		err = s.http.Close()
	}
	return err
}

// Publish hands an event, seen on an interface, to every reader whose filter it
// passes. It never blocks, and costs next to nothing while nobody reads.
func (s *Server) Publish(iface string, e *traffic.Event) { s.events.publish(iface, e) }

// PublishIncident hands an incident to every reader that has not asked for certain packets. It never blocks.
func (s *Server) PublishIncident(i Incident) { s.events.publishIncident(i) }

// Readers returns how many event streams are open.
func (s *Server) Readers() int { return int(s.events.count.Load()) }

type peerKey struct{}

// withPeer keeps the credentials of the process at the other end of a connection.
func withPeer(ctx context.Context, c net.Conn) context.Context {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return ctx
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return ctx
	}
	var cred *unix.Ucred
	err = raw.Control(func(fd uintptr) {
		cred, _ = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err != nil || cred == nil {
		return ctx
	}
	return context.WithValue(ctx, peerKey{}, cred)
}

// audit logs who sent a request that may change something, and what came of it.
func (s *Server) audit(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			next.ServeHTTP(w, r)
			return
		}
		rec := &statusRecorder{ResponseWriter: w, status: http.StatusOK}
		next.ServeHTTP(rec, r)
		attrs := []any{"method", r.Method, "path", r.URL.Path, "status", rec.status}
		if cred, ok := r.Context().Value(peerKey{}).(*unix.Ucred); ok {
			attrs = append(attrs, "uid", cred.Uid, "pid", cred.Pid)
		}
		s.log.Info("api request", attrs...)
	})
}

type statusRecorder struct {
	http.ResponseWriter
	status int
}

func (r *statusRecorder) WriteHeader(status int) {
	r.status = status
	r.ResponseWriter.WriteHeader(status)
}

// Unwrap lets http.ResponseController reach the connection's deadlines.
func (r *statusRecorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }
