// SPDX-License-Identifier: Apache-2.0

package packettest

import (
	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// entrance is what lies behind a tunnel's own header.
type entrance int

const (
	noTunnel  entrance = iota
	misfit             // a header of the tunnel does not fit
	tooTagged          // inner Ethernet with a third VLAN tag
	innerIP
)

// enter looks into the tunnel that p is, if it is one: p becomes the inner packet.
func (d *Decoder) enter(p *Packet, n upper) {
	found, kind, body := d.open(p, n)
	if found == innerIP && len(body) < headerLength(kind) {
		found = misfit
	}
	switch found {
	case noTunnel:
	case misfit:
		if n.first {
			p.note(traffic.ReasonFragmentTiny)
		} else {
			p.note(traffic.ReasonMalformed)
		}
	case tooTagged:
		p.note(traffic.ReasonVLANDepth)
	case innerIP:
		d.inner(p, kind, body, n.first)
	}
}

// inner parses the packet in the tunnel. continued: it is the start of a
// fragmented one.
func (d *Decoder) inner(p *Packet, kind layers.EthernetType, body []byte, continued bool) {
	outer := *p
	p.Tunnel, p.OuterSource = true, outer.Source
	p.SourcePort, p.DestPort, p.TCPFlags, p.TCPData = 0, 0, 0, 0
	n := d.network(p, kind, body, continued)
	if n.readable {
		d.transport(p, n)
		if d.tunnelAgain(p) {
			p.note(traffic.ReasonTunnelDepth)
		}
	}
	if p.Fragment == NoFragment {
		p.Fragment = outer.Fragment
	}
}

func (d *Decoder) tunnelAgain(p *Packet) bool {
	switch p.Protocol {
	case protocolIPIP:
		return d.tunnels.IPIP
	case protocolIPv6:
		return d.tunnels.SixInFour
	case protocolGRE:
		return d.tunnels.GRE
	case protocolUDP:
		return d.tunnels.VXLAN && p.DestPort == portVXLAN
	}
	return false
}

// open decodes the tunnel's own headers, inner Ethernet included.
func (d *Decoder) open(p *Packet, n upper) (entrance, layers.EthernetType, []byte) {
	switch {
	case p.Protocol == protocolIPIP && d.tunnels.IPIP:
		return innerIP, layers.EthernetTypeIPv4, n.body
	case p.Protocol == protocolIPv6 && d.tunnels.SixInFour:
		return innerIP, layers.EthernetTypeIPv6, n.body
	case p.Protocol == protocolGRE && d.tunnels.GRE:
		return d.openGRE(n.body)
	case p.Protocol == protocolUDP && d.tunnels.VXLAN && p.DestPort == portVXLAN:
		return d.openVXLAN(n.body[transportLength(protocolUDP):])
	}
	return noTunnel, 0, nil
}

func (d *Decoder) openGRE(data []byte) (entrance, layers.EthernetType, []byte) {
	if len(data) < 4 {
		return misfit, 0, nil
	}
	err := d.gre.DecodeFromBytes(data, gopacket.NilDecodeFeedback)
	kind := d.gre.Protocol
	bridged := kind == layers.EthernetTypeTransparentEthernetBridging
	switch {
	case d.gre.Version != 0 || d.gre.RoutingPresent:
		return noTunnel, 0, nil
	case kind != layers.EthernetTypeIPv4 && kind != layers.EthernetTypeIPv6 && !bridged:
		return noTunnel, 0, nil
	case err != nil:
		return misfit, 0, nil
	case bridged:
		return d.openEthernet(d.gre.Payload)
	}
	return innerIP, kind, d.gre.Payload
}

func (d *Decoder) openVXLAN(data []byte) (entrance, layers.EthernetType, []byte) {
	if d.vxlan.DecodeFromBytes(data, gopacket.NilDecodeFeedback) != nil {
		return misfit, 0, nil
	}
	if !d.vxlan.ValidIDFlag {
		return noTunnel, 0, nil
	}
	return d.openEthernet(d.vxlan.Payload)
}

func (d *Decoder) openEthernet(data []byte) (entrance, layers.EthernetType, []byte) {
	kind, body, _, wrong := d.ethernet(data)
	switch {
	case wrong == traffic.ReasonTruncated:
		return misfit, 0, nil
	case wrong != traffic.ReasonPass:
		return tooTagged, 0, nil
	case kind != layers.EthernetTypeIPv4 && kind != layers.EthernetTypeIPv6:
		return noTunnel, 0, nil
	}
	return innerIP, kind, body
}
