// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"net/netip"
	"strings"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/sentinel-x/sentinel-x/internal/capture"
	"github.com/sentinel-x/sentinel-x/internal/scene"
)

const (
	maxSteps  = 240             // of a flow; what comes later is left out
	maxHeads  = 6               // packets of a flow whose first data bytes are kept
	maxGap    = 2 * time.Second // longer silences are cut to this
	maxLength = 1500
)

type endpoint struct {
	addr netip.Addr
	port uint16
}

type key struct {
	protocol uint8
	a, b     endpoint // in order
}

// flow is the packets of one connection, as they came.
type flow struct {
	protocol uint8
	client   endpoint
	server   endpoint
	last     time.Time
	closed   bool // a FIN or RST was seen
	heads    int
	steps    []scene.Step
}

// flowsOf returns the flows of a capture, of TCP those that a client began within it, in the order in which
// they began.
func flowsOf(path string) ([]*flow, error) {
	live, all := map[key]*flow{}, []*flow(nil)
	err := capture.Each(path, func(c capture.Packet) error {
		p, ok := decode(c.Frame)
		if !ok {
			return nil
		}
		k := p.key()
		f := live[k]
		if f == nil || f.closed && p.step.Flags&0x12 == 0x02 {
			f = begin(p)
			live[k] = f
			all = append(all, f)
		}
		f.add(p, c.Time)
		return nil
	})
	var good []*flow
	for _, f := range all {
		if len(f.steps) > 0 && (f.protocol == 17 || f.shakesHands()) {
			good = append(good, f)
		}
	}
	return good, err
}

// packet is what a step is made of.
type packet struct {
	protocol uint8
	src, dst endpoint
	step     scene.Step
	data     int // bytes of the data behind layer 4
	head     []byte
}

// decode returns TCP and UDP over IP, whole and from one host to another.
func decode(frame []byte) (p packet, ok bool) {
	g := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.DecodeOptions{NoCopy: true})
	length := 0
	switch ip := g.NetworkLayer().(type) {
	case *layers.IPv4:
		if ip.FragOffset > 0 || ip.Flags&layers.IPv4MoreFragments != 0 {
			return p, false
		}
		p.src.addr, p.dst.addr = netip.AddrFrom4([4]byte(ip.SrcIP)), netip.AddrFrom4([4]byte(ip.DstIP))
		p.step.TTL, p.step.DF, length = ip.TTL, ip.Flags&layers.IPv4DontFragment != 0, int(ip.Length)
		p.data = length - int(ip.IHL)*4
	case *layers.IPv6:
		p.src.addr, p.dst.addr = netip.AddrFrom16([16]byte(ip.SrcIP)), netip.AddrFrom16([16]byte(ip.DstIP))
		p.step.TTL, length = ip.HopLimit, int(ip.Length)+40
		p.data = int(ip.Length)
		if ip.NextHeader != layers.IPProtocolTCP && ip.NextHeader != layers.IPProtocolUDP {
			return p, false
		}
	default:
		return p, false
	}
	switch l := g.TransportLayer().(type) {
	case *layers.TCP:
		p.protocol, p.src.port, p.dst.port = 6, uint16(l.SrcPort), uint16(l.DstPort)
		p.step.DataOffset, p.step.Window = l.DataOffset, l.Window
		p.step.Flags = g.TransportLayer().LayerContents()[13] & 0x3f
		p.data -= int(l.DataOffset) * 4
		p.head = l.Payload
	case *layers.UDP:
		p.protocol, p.src.port, p.dst.port = 17, uint16(l.SrcPort), uint16(l.DstPort)
		p.data -= 8
		p.head = l.Payload
	default:
		return p, false
	}
	p.head = p.head[:max(0, min(len(p.head), p.data))]
	p.step.Length = uint16(min(length, 65535))
	d := p.dst.addr
	host := !d.IsMulticast() && d.IsValid() && !d.IsUnspecified() && d != netip.AddrFrom4([4]byte{255, 255, 255, 255}) && !strings.HasSuffix(d.String(), ".255")
	return p, host && p.data >= 0 && p.step.TTL > 0 && p.src.addr.Is4() == p.dst.addr.Is4()
}

func (p *packet) key() key {
	k := key{p.protocol, p.src, p.dst}
	if c := k.a.addr.Compare(k.b.addr); c > 0 || c == 0 && k.a.port > k.b.port {
		k.a, k.b = k.b, k.a
	}
	return k
}

// begin starts a flow with its first packet. In UDP the service port tells the server.
func begin(p packet) *flow {
	f := &flow{protocol: p.protocol, client: p.src, server: p.dst}
	if p.protocol == 17 && p.src.port < 1024 && p.dst.port >= 1024 {
		f.client, f.server = p.dst, p.src
	}
	return f
}

// add appends a packet; one longer than the MTU (segmentation was left to the card) becomes several.
func (f *flow) add(p packet, at time.Time) {
	s := p.step
	s.Reverse = p.src != f.client
	if len(f.steps) > 0 {
		s.Gap = max(0, min(at.Sub(f.last), maxGap)).Truncate(time.Microsecond)
	}
	f.last = at
	f.closed = f.closed || s.Flags&5 != 0 && p.protocol == 6
	if f.heads < maxHeads && len(p.head) >= 4 {
		s.Head = bytes.Clone(p.head[:min(len(p.head), scene.MaxHead)&^1])
		f.heads++
	}
	headers := int(s.Length) - p.data
	for rest := p.data; ; {
		part := min(rest, maxLength-headers)
		s.Length = uint16(headers + part)
		if f.protocol == 17 && rest > part { // a datagram that long would be fragments
			return
		}
		if len(f.steps) < maxSteps {
			f.steps = append(f.steps, s)
		}
		if rest -= part; rest <= 0 {
			return
		}
		s.Gap, s.Head = 12*time.Microsecond, nil
	}
}

// shakesHands reports whether a TCP flow begins with a client's SYN that is answered and acknowledged.
func (f *flow) shakesHands() bool {
	var forward, answered int
	for i, s := range f.steps {
		switch {
		case i == 0 && (s.Flags&0x17 != 0x02 || s.DataOffset == 5):
			return false
		case s.Reverse && s.Flags&0x12 == 0x12:
			answered++
		case !s.Reverse && s.Flags&0x12 == 0x10:
			forward++
		}
	}
	return forward > 0 && answered > 0
}

func (f *flow) template(name string) scene.Template {
	if len(name) > 60 {
		name = name[:60]
	}
	return scene.Template{
		Name: name, Class: classOf(name, f.protocol, f.server.port),
		Protocol: f.protocol, IPv6: f.client.addr.Is6(),
		ClientPort: f.client.port, ServerPort: f.server.port, Steps: f.steps,
	}
}

// named classes go by the name of the capture, for what has no port of its own.
var named = []struct {
	class scene.Class
	parts string
}{
	{scene.ClassGame, "source_engine raknet activision roblox among_us genshin riot lol_wild path_of_exile tencent_games netease_games gaijin epicgames geforcenow codm crynet hots nintendo toca-boca teso yojimbo wow starcraft steam quickplay armagetron"},
	{scene.ClassVPN, "openvpn opvn wireguard ipsec anyconnect forticlient cloudflare-warp protonvpn mullvad tailscale softether windscribe tunnelbear pia ovpn opera-vpn tinc esp psiphon ultrasurf wg"},
	{scene.ClassVoice, "teamspeak mumble discord zoom teams webex skype wa_v whatsapp_v whatsapp_login_call viber telegram_video sip rtp stun h323 iax fax-call linecall signal google_meet snapchat_call video_call imo facetime mgcp"},
}

func classOf(name string, protocol uint8, port uint16) scene.Class {
	switch port {
	case 53, 853:
		if protocol == 6 {
			return scene.ClassStream
		}
		return scene.ClassDNS
	case 123:
		return scene.ClassTime
	case 25, 110, 143, 465, 587, 993, 995:
		return scene.ClassMail
	case 22, 23, 3389, 5900, 5901:
		return scene.ClassRemote
	case 51820, 1194:
		return scene.ClassVPN
	}
	low := strings.ToLower(name)
	for _, n := range named {
		for part := range strings.FieldsSeq(n.parts) {
			if strings.Contains(low, part) && (protocol == 17 || port != 443 && port != 80 || n.class == scene.ClassVPN) {
				return n.class
			}
		}
	}
	switch port {
	case 80, 443, 8080, 8443:
		return scene.ClassWeb
	}
	return scene.ClassOther
}
