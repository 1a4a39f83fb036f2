// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"
)

// reachWait is how long Reaches waits for a datagram; a veth pair takes microseconds.
const reachWait = 300 * time.Millisecond

// Reaches sends three UDP datagrams from an address of the peer to one of the
// victim and reports whether one arrives.
func (n *Net) Reaches(from, to netip.Addr) (bool, error) {
	var server, client *net.UDPConn
	err := n.Victim.Do(func() (err error) {
		server, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, 0)))
		return err
	})
	if err != nil {
		return false, fmt.Errorf("listen at the victim: %w", err)
	}
	defer server.Close()
	err = n.Peer.Do(func() (err error) {
		client, err = net.DialUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0)), server.LocalAddr().(*net.UDPAddr))
		return err
	})
	if err != nil {
		return false, fmt.Errorf("open a socket at the peer: %w", err)
	}
	defer client.Close()
	for range 3 {
		if _, err := client.Write([]byte("hello")); err != nil {
			return false, fmt.Errorf("send to the victim: %w", err)
		}
	}
	if err := server.SetReadDeadline(time.Now().Add(reachWait)); err != nil {
		return false, err
	}
	_, _, err = server.ReadFromUDPAddrPort(make([]byte, 16))
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return false, nil
	}
	return err == nil, err
}
