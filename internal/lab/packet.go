// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const snapLength = 1 << 16

// Sender sends raw Ethernet frames out of an interface.
type Sender struct {
	fd   int
	name string
}

// NewSender opens a sender on the interface.
func (l *Link) NewSender() (*Sender, error) {
	fd, err := l.packetSocket(0) // protocol 0: receives nothing
	if err != nil {
		return nil, err
	}
	return &Sender{fd, l.Name}, nil
}

// Send sends one frame, without FCS. A frame longer than the MTU allows fails
// with unix.EMSGSIZE.
func (s *Sender) Send(frame []byte) error {
	for {
		_, err := unix.Write(s.fd, frame)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, unix.ENOBUFS), errors.Is(err, unix.EINTR):
			time.Sleep(50 * time.Microsecond) // the queue is full: slow down, lose nothing
		default:
			return fmt.Errorf("send frame of %d bytes on %s: %w", len(frame), s.name, err)
		}
	}
}

// Close closes the sender.
func (s *Sender) Close() error { return unix.Close(s.fd) }

// Receiver collects what an interface receives, behind XDP: what it sees has
// reached the stack. It does not see what the interface sends.
type Receiver struct {
	fd    int
	match func(frame []byte) bool
	keep  int
	stop  chan struct{}
	done  chan struct{}
	once  sync.Once

	mu      sync.Mutex
	frames  [][]byte
	times   []time.Time
	matched uint64
	lost    uint64
	err     error
}

// NewReceiver starts to collect. It counts the frames that match (nil: all of
// them) and keeps the first keep of them.
func (l *Link) NewReceiver(keep int, match func(frame []byte) bool) (*Receiver, error) {
	fd, err := l.packetSocket(unix.ETH_P_ALL)
	if err != nil {
		return nil, err
	}
	if match == nil {
		match = func([]byte) bool { return true }
	}
	r := &Receiver{fd: fd, match: match, keep: keep, stop: make(chan struct{}), done: make(chan struct{})}
	go r.read()
	return r, nil
}

// Count returns the frames matched so far, and those that were lost because
// reading was slower than the interface, matching or not.
func (r *Receiver) Count() (matched, lost uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.matched, r.lost
}

// Frames returns the frames kept so far, as they were on the wire.
func (r *Receiver) Frames() [][]byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([][]byte(nil), r.frames...)
}

// Times returns when each of the frames kept so far arrived, by the kernel's clock.
func (r *Receiver) Times() []time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]time.Time(nil), r.times...)
}

// WaitFor waits until n frames have matched, and reports whether they did in time.
func (r *Receiver) WaitFor(n uint64, timeout time.Duration) bool {
	for deadline := time.Now().Add(timeout); ; time.Sleep(time.Millisecond) {
		if matched, _ := r.Count(); matched >= n {
			return true
		}
		if time.Now().After(deadline) {
			return false
		}
	}
}

// Close stops collecting at once and returns what went wrong meanwhile.
func (r *Receiver) Close() error {
	r.once.Do(func() {
		close(r.stop)
		<-r.done
		unix.Close(r.fd)
	})
	return r.err
}

func (r *Receiver) read() {
	defer close(r.done)
	buf, oob := make([]byte, snapLength), make([]byte, 128)
	for !r.stopped() {
		n, oobn, flags, _, err := unix.Recvmsg(r.fd, buf, oob, unix.MSG_TRUNC)
		switch {
		case err == nil:
			messages, _ := unix.ParseSocketControlMessage(oob[:oobn]) // what cannot be read says nothing
			r.take(withTag(buf[:min(n, len(buf))], messages), arrival(messages), flags)
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN): // the time limit of the socket
			r.countLost()
		case errors.Is(err, unix.ENETDOWN): // set down; may come up again
		default:
			r.fail(fmt.Errorf("receive frames: %w", err))
			return
		}
	}
}

func (r *Receiver) stopped() bool {
	select {
	case <-r.stop:
		return true
	default:
		return false
	}
}

func (r *Receiver) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err = err
}

func (r *Receiver) take(frame []byte, at time.Time, flags int) {
	if flags&unix.MSG_TRUNC != 0 || !r.match(frame) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.matched++
	if len(r.frames) < r.keep {
		r.frames = append(r.frames, append([]byte(nil), frame...))
		r.times = append(r.times, at)
	}
}

func (r *Receiver) countLost() {
	s, err := unix.GetsockoptTpacketStats(r.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err != nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lost += uint64(s.Drops) // the kernel sets it to 0 with each reading
}

// arrival returns when the kernel says that a frame came, now if it does not.
func arrival(messages []unix.SocketControlMessage) time.Time {
	for _, m := range messages {
		if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SCM_TIMESTAMPNS && len(m.Data) >= 16 {
			return time.Unix(int64(binary.NativeEndian.Uint64(m.Data)), int64(binary.NativeEndian.Uint64(m.Data[8:])))
		}
	}
	return time.Now()
}

// withTag puts the outer VLAN tag back, which the kernel takes out of the frame
// and hands over beside it.
func withTag(frame []byte, messages []unix.SocketControlMessage) []byte {
	const (
		statusAt, tciAt, tpidAt = 0, 16, 18 // of struct tpacket_auxdata
		size                    = 20
	)
	if len(frame) < 12 {
		return frame
	}
	for _, m := range messages {
		if m.Header.Level != unix.SOL_PACKET || m.Header.Type != unix.PACKET_AUXDATA || len(m.Data) < size {
			continue
		}
		if binary.NativeEndian.Uint32(m.Data[statusAt:])&unix.TP_STATUS_VLAN_VALID == 0 {
			continue
		}
		tagged := append(make([]byte, 0, len(frame)+4), frame[:12]...)
		tagged = binary.BigEndian.AppendUint16(tagged, binary.NativeEndian.Uint16(m.Data[tpidAt:]))
		tagged = binary.BigEndian.AppendUint16(tagged, binary.NativeEndian.Uint16(m.Data[tciAt:]))
		return append(tagged, frame[12:]...)
	}
	return frame
}

// packetSocket opens an AF_PACKET socket bound to the interface.
func (l *Link) packetSocket(protocol uint16) (fd int, err error) {
	order := protocol<<8 | protocol>>8 // network order; the lab runs on little-endian machines only
	err = l.Namespace.Do(func() (err error) {
		// Bound first: an unbound socket would receive from every interface.
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open packet socket (needs CAP_NET_RAW): %w", err)
		}
		if err = setPacketOptions(fd); err == nil {
			err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: order, Ifindex: l.Index})
		}
		if err != nil {
			unix.Close(fd)
			return fmt.Errorf("bind packet socket to %s: %w", l.Name, err)
		}
		return nil
	})
	return fd, err
}

func setPacketOptions(fd int) error {
	const receiveBuffer = 32 << 20
	return errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer),
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1),
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 20_000}),
	)
}
