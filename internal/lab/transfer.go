// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"
)

// TransferOptions describe one TCP connection that carries random bytes.
type TransferOptions struct {
	From, To       *Namespace
	Source, Target netip.Addr
	Bytes          int64
}

// Transfer sends bytes over TCP and compares their SHA-256 at both ends. It
// returns how long that took, and an error if one byte differs or is missing.
func Transfer(ctx context.Context, o TransferOptions) (time.Duration, error) {
	start := time.Now()
	var l net.Listener
	err := o.To.Do(func() (err error) {
		l, err = net.Listen("tcp", netip.AddrPortFrom(o.Target, 0).String())
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("listen for transfer: %w", err)
	}
	defer l.Close()
	answered := make(chan error, 1)
	go func() { answered <- receive(ctx, l) }()
	err = o.From.Do(func() error { return send(ctx, o, l.Addr().String()) })
	l.Close() // before waiting: it may not have been connected to
	if err = errors.Join(err, <-answered); err != nil {
		return 0, fmt.Errorf("transfer %d bytes from %s to %s: %w", o.Bytes, o.Source, o.Target, err)
	}
	return time.Since(start), nil
}

// receive takes one connection, reads to its end and answers with the digest.
func receive(ctx context.Context, l net.Listener) error {
	conn, err := l.Accept()
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	digest := sha256.New()
	if _, err := io.CopyBuffer(struct{ io.Writer }{digest}, struct{ io.Reader }{conn}, make([]byte, 1<<18)); err != nil {
		return fmt.Errorf("receive: %w", err)
	}
	_, err = conn.Write(digest.Sum(nil))
	return err
}

func send(ctx context.Context, o TransferOptions, target string) error {
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(o.Source, 0))}
	conn, err := d.DialContext(ctx, "tcp", target)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	digest := sha256.New()
	random := io.LimitReader(rand.NewChaCha8([32]byte{}), o.Bytes)
	if _, err := io.CopyBuffer(struct{ io.Writer }{conn}, io.TeeReader(random, digest), make([]byte, 1<<18)); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	got := make([]byte, sha256.Size)
	if _, err := io.ReadFull(conn, got); err != nil {
		return fmt.Errorf("wait for digest: %w", err)
	}
	if want := digest.Sum(nil); [sha256.Size]byte(want) != [sha256.Size]byte(got) {
		return fmt.Errorf("received bytes differ from those sent: SHA-256 %x, want %x", got, want)
	}
	return nil
}
