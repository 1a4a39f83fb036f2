// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Requests and answers beside a flood. Both ends are real-time threads, so that the
// time of a round trip is that of the packets' way and not the wait for a core.

const (
	echoPort    = 7
	rttPayload  = 64 // the first eight bytes are when it was sent
	rttPatience = 50 * time.Millisecond
)

// echo answers datagrams in a thread of its own.
type echo struct {
	stop  atomic.Bool
	ended chan error
}

func (n *Net) startEcho(cpu int) (*echo, error) {
	e := &echo{ended: make(chan error, 1)}
	ready := make(chan error, 1)
	go func() {
		e.ended <- n.Victim.Do(func() error {
			fd, err := rttSocket()
			if err == nil {
				err = errors.Join(realTime(cpu), unix.Bind(fd, &unix.SockaddrInet4{Port: echoPort, Addr: Victim4.As4()}))
			}
			ready <- err
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			return e.serve(fd)
		})
	}()
	if err := <-ready; err != nil {
		return nil, fmt.Errorf("start echo server: %w", err)
	}
	return e, nil
}

func (e *echo) serve(fd int) error {
	buf := make([]byte, 2*rttPayload)
	for !e.stop.Load() {
		length, from, err := unix.Recvfrom(fd, buf, 0)
		if err != nil {
			continue // nobody asked within the patience
		}
		_ = unix.Sendto(fd, buf[:length], 0, from) // lost, as UDP has it
	}
	return nil
}

func (e *echo) close() error {
	e.stop.Store(true)
	return <-e.ended
}

// realTime makes the calling thread, on that CPU, the first to run. Where that is
// not allowed, it runs among the others.
func realTime(cpu int) error {
	if err := pinThread(cpu); err != nil {
		return err
	}
	attr := &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 10}
	if err := unix.SchedSetAttr(0, attr, 0); err != nil && !errors.Is(err, unix.EPERM) {
		return fmt.Errorf("make the thread real-time: %w", err)
	}
	return nil
}

func rttSocket() (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open socket: %w", err)
	}
	patience := unix.NsecToTimeval(rttPatience.Nanoseconds())
	err = errors.Join(
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &patience),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1))
	if err != nil {
		return -1, errors.Join(fmt.Errorf("set up socket: %w", err), unix.Close(fd))
	}
	return fd, nil
}

// ask sends requests at an even rate, each from another of as many clients, for as
// long as told, and takes the times of their answers.
func (n *Net) ask(ctx context.Context, d time.Duration, s *peerSamples) error {
	var fd int
	err := n.Peer.Do(func() (err error) { fd, err = rttSocket(); return err })
	if err != nil {
		return err
	}
	var sent int
	asked := make(chan error, 1)
	go func() {
		asked <- n.Peer.Do(func() error {
			if err := realTime(generatorCPU); err != nil {
				return err
			}
			sent = sendRequests(ctx, fd, d)
			return nil
		})
	}()
	err = n.Peer.Do(func() error {
		if err := realTime(generatorCPU); err != nil {
			return err
		}
		return s.takeAnswers(fd, d+rttPatience)
	})
	err = errors.Join(err, <-asked, unix.Close(fd))
	s.requests += sent
	return err
}

func sendRequests(ctx context.Context, fd int, d time.Duration) (sent int) {
	const interval = time.Second / peerRequests
	to := &unix.SockaddrInet4{Port: echoPort, Addr: Victim4.As4()}
	start := time.Now()
	request := make([]byte, rttPayload)
	for ; time.Since(start) < d && ctx.Err() == nil; sent++ {
		rest := unix.NsecToTimespec((time.Duration(sent)*interval - time.Since(start)).Nanoseconds())
		if rest.Nano() > 0 {
			_ = unix.Nanosleep(&rest, nil) // cut short by a signal: a request too early
		}
		from := unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: clientAddr(sent % peerRequests).As4()})
		binary.LittleEndian.PutUint64(request, uint64(time.Now().UnixNano()))
		_ = unix.Sendmsg(fd, request, from, to, 0) // no room on the way: a request lost
	}
	return sent
}

func clientAddr(i int) netip.Addr { return addressAfter(clientNet.Addr(), uint32(i+1)) }

// takeAnswers records the time from a request's sending to when its answer reached
// this end's stack, which is the kernel's own stamp.
func (s *peerSamples) takeAnswers(fd int, d time.Duration) error {
	buf, control := make([]byte, 2*rttPayload), make([]byte, 128)
	for end := time.Now().Add(d); time.Now().Before(end); {
		length, controlLength, _, _, err := unix.Recvmsg(fd, buf, control, 0)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("receive answers: %w", err)
		}
		stamp, err := receivedAt(control[:controlLength])
		if err != nil {
			return err
		}
		if length != rttPayload {
			continue
		}
		rtt := stamp - int64(binary.LittleEndian.Uint64(buf))
		_ = s.rtt.RecordValue(min(max(rtt, 1), s.rtt.HighestTrackableValue()))
		s.answered++
	}
	return nil
}

func receivedAt(control []byte) (int64, error) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return 0, fmt.Errorf("read when an answer came: %w", err)
	}
	for _, m := range messages {
		if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SCM_TIMESTAMPNS && len(m.Data) >= 16 {
			seconds := int64(binary.NativeEndian.Uint64(m.Data))
			return seconds*int64(time.Second) + int64(binary.NativeEndian.Uint64(m.Data[8:])), nil
		}
	}
	return 0, errors.New("read when an answer came: the kernel gave no time")
}
