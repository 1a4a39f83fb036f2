/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * parse: from the frame to struct pkt. docs/packet-path.md has every rule. What
 * has a readable source is never judged here: the first thing wrong is noted,
 * and the lists are asked first, so that nothing put in front of a blocked
 * source's packet gets it through.
 */
#ifndef STAGE_PARSE_H
#define STAGE_PARSE_H

#include "pkt.h"
#include "wire.h"

#define MAX_VLANS 2
#define MAX_EXTENSIONS 8

enum link {
	LINK_CUT, /* the frame ends inside */
	LINK_DEEP, /* a third tag */
	LINK_OTHER,
	LINK_IP4,
	LINK_IP6,
};

static __always_inline bool is_vlan(__u16 type)
{
	return type == ETHERTYPE_8021Q || type == ETHERTYPE_8021AD || type == ETHERTYPE_QINQ;
}

/* parse_link skips Ethernet and up to two tags; pkt->offset is then behind them. */
static __always_inline enum link parse_link(struct xdp_md *ctx, struct pkt *pkt)
{
	struct eth_header *eth = at(ctx, pkt->offset, sizeof(*eth));
	struct vlan_tag *tag;
	__u16 type;

	if (!eth || pkt->offset + sizeof(*eth) > pkt->limit)
		return LINK_CUT;
	type = bpf_ntohs(eth->type);
	pkt->offset += sizeof(*eth);
	for (int i = 0; i < MAX_VLANS && is_vlan(type); i++) {
		tag = at(ctx, pkt->offset, sizeof(*tag));
		if (!tag || pkt->offset + sizeof(*tag) > pkt->limit)
			return LINK_CUT;
		type = bpf_ntohs(tag->type);
		pkt->offset += sizeof(*tag);
		pkt->vlans += !pkt->tunnel;
	}
	if (is_vlan(type))
		return LINK_DEEP;
	if (type == ETHERTYPE_IP4)
		return LINK_IP4;
	return type == ETHERTYPE_IP6 ? LINK_IP6 : LINK_OTHER;
}

/* mark_fragment notes the kind of fragment at byte `offset` of its packet; true: layer 4 is elsewhere. */
static __always_inline bool mark_fragment(struct pkt *pkt, __u32 offset, bool more, __u32 payload)
{
	if (!offset) {
		if (more)
			pkt->fragment = FRAGMENT_FIRST;
		return false;
	}
	if (offset + payload > 65535)
		note(pkt, REASON_MALFORMED);
	if (pkt->protocol == PROTO_TCP && offset == 8)
		note(pkt, REASON_FRAGMENT_TINY);
	pkt->fragment = FRAGMENT_LATER;
	return true;
}

static __always_inline bool same(const struct addr *a, const struct addr *b)
{
	return a->w[0] == b->w[0] && a->w[1] == b->w[1] && a->w[2] == b->w[2] && a->w[3] == b->w[3];
}

/* check_ip notes what IPv4 and IPv6 have in common; `total` is what the header announces. */
static __always_inline void check_ip(struct pkt *pkt, __u32 left, __u32 total)
{
	/* The inner packet of a first fragment goes on in the later ones. */
	if (left < total && pkt->fragment != FRAGMENT_FIRST)
		note(pkt, REASON_TRUNCATED);
	if (!pkt->ttl)
		note(pkt, REASON_ZERO_TTL);
	if (same(&pkt->src, &pkt->dst))
		note(pkt, REASON_LAND);
}

/* parse_ip4 returns whether layer 4 follows at pkt->offset. */
static __always_inline bool parse_ip4(struct pkt *pkt, const struct ip4_header *ip)
{
	__u32 left = pkt->limit - pkt->offset;
	__u32 header = (ip->version_ihl & 0xf) * 4;
	__u32 total = bpf_ntohs(ip->total_length);
	__u16 fragment = bpf_ntohs(ip->fragment);
	__u8 wrong = 0;

	pkt->family = 4;
	pkt->src = (struct addr){ { ip->src } };
	pkt->dst = (struct addr){ { ip->dst } };
	pkt->protocol = ip->protocol;
	pkt->ttl = ip->ttl;
	if (ip->version_ihl >> 4 != 4)
		wrong = REASON_MALFORMED;
	else if (header < sizeof(*ip))
		wrong = REASON_BAD_HEADER_LENGTH;
	else if (total < header)
		wrong = REASON_MALFORMED;
	else if (left < header)
		wrong = pkt->fragment == FRAGMENT_FIRST ? REASON_FRAGMENT_TINY : REASON_TRUNCATED;
	if (wrong) {
		note(pkt, wrong);
		return false;
	}
	check_ip(pkt, left, total);
	pkt->ip_length = total;
	pkt->df = !!(fragment & IP4_DF);
	pkt->offset += header;
	pkt->payload = total - header;
	return !mark_fragment(pkt, (fragment & IP4_OFFSET) * 8, fragment & IP4_MF, pkt->payload);
}

static __always_inline bool is_extension(__u8 next)
{
	switch (next) {
	case PROTO_HOP_BY_HOP:
	case PROTO_ROUTING:
	case PROTO_FRAGMENT:
	case PROTO_DST_OPTIONS:
	case PROTO_AH:
	case PROTO_MOBILITY:
	case PROTO_HIP:
	case PROTO_SHIM6:
		return true;
	}
	return false;
}

static __always_inline __u32 extension_length(__u8 kind, __u8 length)
{
	if (kind == PROTO_FRAGMENT)
		return 8;
	return kind == PROTO_AH ? (length + 2) * 4 : (length + 1) * 8;
}

/* skip_extension steps over the header pkt->protocol names; false: the walk ends here. */
static __always_inline bool skip_extension(struct xdp_md *ctx, struct pkt *pkt, bool *fragmented)
{
	struct ip6_extension *ext = at(ctx, pkt->offset, sizeof(*ext));
	__u8 kind = pkt->protocol;
	__u32 length, offset;
	__u16 fragment;

	if (!ext || pkt->payload < sizeof(*ext))
		goto malformed;
	length = extension_length(kind, ext->length);
	if (pkt->payload < length || pkt->offset + length > pkt->limit)
		goto malformed;
	fragment = bpf_ntohs(ext->fragment);
	pkt->protocol = ext->next;
	pkt->offset += length;
	pkt->payload -= length;
	offset = fragment & IP6_OFFSET;
	if (kind != PROTO_FRAGMENT || *fragmented || !(fragment & (IP6_OFFSET | IP6_M)))
		return true;
	*fragmented = true;
	return !mark_fragment(pkt, offset, fragment & IP6_M, pkt->payload);

malformed:
	note(pkt, REASON_MALFORMED);
	return false;
}

/* parse_ip6 returns whether layer 4 follows at pkt->offset. */
static __always_inline bool parse_ip6(struct xdp_md *ctx, struct pkt *pkt,
				      const struct ip6_header *ip)
{
	__u32 left = pkt->limit - pkt->offset;
	__u32 payload = bpf_ntohs(ip->payload_length);
	bool fragmented = false;

	pkt->family = 6;
	__builtin_memcpy(&pkt->src, ip->src, sizeof(pkt->src));
	__builtin_memcpy(&pkt->dst, ip->dst, sizeof(pkt->dst));
	pkt->protocol = ip->next;
	pkt->ttl = ip->hop_limit;
	if ((bpf_ntohl(ip->version_class_flow) >> 28) != 6) {
		note(pkt, REASON_MALFORMED);
		return false;
	}
	if (!payload && ip->next == PROTO_HOP_BY_HOP)
		payload = left - sizeof(*ip);
	check_ip(pkt, left, payload + sizeof(*ip));
	pkt->ip_length = payload + sizeof(*ip);
	pkt->offset += sizeof(*ip);
	pkt->payload = payload;
	pkt->extended = is_extension(pkt->protocol);
	for (int i = 0; i < MAX_EXTENSIONS && is_extension(pkt->protocol); i++)
		if (!skip_extension(ctx, pkt, &fragmented))
			return false;
	if (is_extension(pkt->protocol)) {
		note(pkt, REASON_EXTENSION_HEADERS);
		return false;
	}
	return true;
}

/* layer4 returns the header of `size` bytes at pkt->offset, or notes that it does not fit. */
static __always_inline void *layer4(struct xdp_md *ctx, struct pkt *pkt, __u32 size)
{
	void *header = at(ctx, pkt->offset, size);

	if (header && pkt->payload >= size && pkt->offset + size <= pkt->limit)
		return header;
	note(pkt, pkt->fragment == FRAGMENT_FIRST ? REASON_FRAGMENT_TINY : REASON_MALFORMED);
	return NULL;
}

/*
 * find_data notes where the data behind a layer-4 header of `header` bytes lies. Without
 * a branch, each of which the verifier follows to the end; who reads it compares with limit.
 */
static __always_inline void find_data(struct pkt *pkt, __u32 header)
{
	pkt->data = pkt->offset + header;
	pkt->data_end = pkt->offset + pkt->payload;
}

/* impossible_flags: what no stack sends, whatever its state. */
static __always_inline bool impossible_flags(__u8 flags)
{
	__u8 pair = flags & (TCP_FIN | TCP_SYN | TCP_RST);

	if (!(flags & TCP_FLAGS))
		return true;
	if (pair & (pair - 1))
		return true;
	return (flags & (TCP_FIN | TCP_ACK)) == TCP_FIN;
}

static __always_inline void parse_tcp(struct xdp_md *ctx, struct pkt *pkt)
{
	struct tcp_header *tcp = layer4(ctx, pkt, sizeof(*tcp));
	__u32 length;

	if (!tcp)
		return;
	length = (tcp->data_offset >> 4) * 4;
	pkt->src_port = bpf_ntohs(tcp->src_port);
	pkt->dst_port = bpf_ntohs(tcp->dst_port);
	pkt->tcp_flags = tcp->flags;
	pkt->window = bpf_ntohs(tcp->window);
	pkt->data_offset = tcp->data_offset >> 4;
	pkt->header = HEADER_TCP;
	if (length < sizeof(*tcp))
		note(pkt, REASON_BAD_HEADER_LENGTH);
	else if (length > pkt->payload || pkt->offset + length > pkt->limit)
		note(pkt,
		     pkt->fragment == FRAGMENT_FIRST ? REASON_FRAGMENT_TINY : REASON_MALFORMED);
	else
		find_data(pkt, length);
	if (impossible_flags(tcp->flags))
		note(pkt, REASON_BAD_TCP_FLAGS);
}

static __always_inline void parse_udp(struct xdp_md *ctx, struct pkt *pkt)
{
	struct udp_header *udp = layer4(ctx, pkt, sizeof(*udp));
	__u32 length;

	if (!udp)
		return;
	length = bpf_ntohs(udp->length);
	pkt->src_port = bpf_ntohs(udp->src_port);
	pkt->dst_port = bpf_ntohs(udp->dst_port);
	pkt->header = HEADER_UDP;
	find_data(pkt, sizeof(*udp));
	if (length < sizeof(*udp))
		note(pkt, REASON_BAD_HEADER_LENGTH);
	else if (length > pkt->payload && pkt->fragment == FRAGMENT_NONE)
		note(pkt, REASON_MALFORMED);
}

static __always_inline void parse_icmp(struct xdp_md *ctx, struct pkt *pkt)
{
	struct icmp_header *icmp = layer4(ctx, pkt, sizeof(*icmp));

	if (!icmp)
		return;
	pkt->icmp_type = icmp->type;
	pkt->icmp_code = icmp->code;
	pkt->header = HEADER_ICMP;
	find_data(pkt, sizeof(*icmp));
	pkt->neighbour = pkt->protocol == PROTO_ICMP6 && icmp->type >= ND_FIRST_TYPE &&
			 icmp->type <= ND_LAST_TYPE && !icmp->code;
}

static __always_inline void parse_layer4(struct xdp_md *ctx, struct pkt *pkt)
{
	switch (pkt->protocol) {
	case PROTO_TCP:
		return parse_tcp(ctx, pkt);
	case PROTO_UDP:
		return parse_udp(ctx, pkt);
	case PROTO_ICMP:
	case PROTO_ICMP6:
		return parse_icmp(ctx, pkt);
	}
	find_data(pkt, 0);
}

/* parse_packet parses the IP packet at pkt->offset and its layer 4; false: its header does not fit. */
static __always_inline bool parse_packet(struct xdp_md *ctx, struct pkt *pkt, enum link kind)
{
	__u32 size = kind == LINK_IP4 ? sizeof(struct ip4_header) : sizeof(struct ip6_header);
	bool more;
	void *ip;

	if (pkt->offset + size > pkt->limit)
		return false;
	if (kind == LINK_IP4) {
		ip = at(ctx, pkt->offset, sizeof(struct ip4_header));
		if (!ip)
			return false;
		pkt->ip_length = pkt->df = 0;
		more = parse_ip4(pkt, ip);
	} else {
		ip = at(ctx, pkt->offset, sizeof(struct ip6_header));
		if (!ip)
			return false;
		pkt->ip_length = pkt->df = 0;
		more = parse_ip6(ctx, pkt, ip);
	}
	pkt->readable = more;
	pkt->header = HEADER_NONE;
	pkt->data = pkt->data_end = 0;
	if (more)
		parse_layer4(ctx, pkt);
	return true;
}

/*
 * parse_ip is parse_packet as a function of its own, so that the verifier of every kernel
 * walks the outer and the inner packet through one copy of the code.
 */
static __noinline bool parse_ip(struct xdp_md *ctx, struct pkt *pkt, enum link kind)
{
	return parse_packet(ctx, pkt, kind);
}

/* tunnel_of returns the bit of the tunnel that protocol and port announce, if it is looked into. */
static __always_inline __u32 tunnel_of(const struct pkt *pkt)
{
	if (!pkt->readable)
		return 0;
	switch (pkt->protocol) {
	case PROTO_IPIP:
		return tunnels & TUNNEL_IPIP;
	case PROTO_IP6:
		return tunnels & TUNNEL_6IN4;
	case PROTO_GRE:
		return tunnels & TUNNEL_GRE;
	case PROTO_UDP:
		return pkt->dst_port == VXLAN_PORT ? tunnels & TUNNEL_VXLAN : 0;
	}
	return 0;
}

/* parse_gre steps over the GRE header, and over the Ethernet header a TEB tunnel carries. */
static __always_inline enum link parse_gre(struct xdp_md *ctx, struct pkt *pkt)
{
	struct gre_header *gre = at(ctx, pkt->offset, sizeof(*gre));
	__u16 flags, type;

	if (!gre || pkt->offset + sizeof(*gre) > pkt->limit)
		return LINK_CUT;
	flags = bpf_ntohs(gre->flags);
	type = bpf_ntohs(gre->protocol);
	if (flags & (GRE_VERSION | GRE_ROUTING))
		return LINK_OTHER;
	pkt->offset += sizeof(*gre);
	pkt->offset +=
		(!!(flags & GRE_CHECKSUM) + !!(flags & GRE_KEY) + !!(flags & GRE_SEQUENCE)) * 4;
	if (type == ETHERTYPE_TEB)
		return parse_link(ctx, pkt);
	if (type == ETHERTYPE_IP4)
		return LINK_IP4;
	return type == ETHERTYPE_IP6 ? LINK_IP6 : LINK_OTHER;
}

static __always_inline enum link parse_vxlan(struct xdp_md *ctx, struct pkt *pkt)
{
	struct vxlan_header *vxlan;

	pkt->offset += sizeof(struct udp_header);
	vxlan = at(ctx, pkt->offset, sizeof(*vxlan));
	if (!vxlan || pkt->offset + sizeof(*vxlan) > pkt->limit)
		return LINK_CUT;
	if (!(vxlan->flags & VXLAN_VALID))
		return LINK_OTHER;
	pkt->offset += sizeof(*vxlan);
	return parse_link(ctx, pkt);
}

static __always_inline enum link parse_outer(struct xdp_md *ctx, struct pkt *pkt, __u32 kind)
{
	switch (kind) {
	case TUNNEL_IPIP:
		return LINK_IP4;
	case TUNNEL_6IN4:
		return LINK_IP6;
	case TUNNEL_GRE:
		return parse_gre(ctx, pkt);
	}
	return parse_vxlan(ctx, pkt);
}

/*
 * parse_inner replaces the packet by the one inside the tunnel `kind`; what is not
 * a tunnel after all stays what it is. The fragment stays the outer's unless the
 * inner packet is one itself.
 */
static __noinline bool parse_inner(struct xdp_md *ctx, struct pkt *pkt, __u32 kind)
{
	__u16 src_port = pkt->src_port, dst_port = pkt->dst_port;
	__u32 end = pkt->offset + pkt->payload;
	enum link link;

	if (end < pkt->limit)
		pkt->limit = end;
	pkt->tunnel = 1;
	link = parse_outer(ctx, pkt, kind);
	if (link == LINK_DEEP)
		note(pkt, REASON_VLAN_DEPTH);
	pkt->outer_src = pkt->src;
	pkt->outer_family = pkt->family;
	pkt->src_port = pkt->dst_port = 0;
	if (link >= LINK_IP4 && parse_ip(ctx, pkt, link))
		return true;
	if (link == LINK_CUT || link >= LINK_IP4)
		note(pkt,
		     pkt->fragment == FRAGMENT_FIRST ? REASON_FRAGMENT_TINY : REASON_MALFORMED);
	pkt->src_port = src_port;
	pkt->dst_port = dst_port;
	pkt->outer_family = 0;
	pkt->tunnel = 0;
	return false;
}

static __always_inline void parse_tunnel(struct xdp_md *ctx, struct pkt *pkt)
{
	__u32 kind = tunnel_of(pkt);

	if (kind && parse_inner(ctx, pkt, kind) && tunnel_of(pkt))
		note(pkt, REASON_TUNNEL_DEPTH);
}

/* set_apart ends a packet whose source cannot be read: there is nothing to ask the lists. */
static __always_inline int set_apart(struct pkt *pkt, __u8 reason, __u8 drop)
{
	pkt->reason = reason;
	return drop ? XDP_DROP : XDP_PASS;
}

static __always_inline bool is_neighbour_discovery(const struct pkt *pkt)
{
	return pkt->neighbour && pkt->family == 6 && pkt->ttl == ND_HOP_LIMIT && !pkt->extended &&
	       !pkt->fragment && !pkt->tunnel && !pkt->anomaly;
}

static __always_inline int stage_parse(struct xdp_md *ctx, struct pkt *pkt)
{
	struct knobs *k = knobs(pkt);
	enum link kind = parse_link(ctx, pkt);

	if (kind == LINK_CUT)
		return set_apart(pkt, REASON_TRUNCATED, k->drop_malformed);
	if (kind == LINK_DEEP)
		return set_apart(pkt, REASON_VLAN_DEPTH, k->drop_vlan_depth);
	if (kind == LINK_OTHER)
		return set_apart(pkt, REASON_NON_IP, 0);
	/* Where nothing is looked into, there is one copy anyway, and the call is saved. */
	if (!(tunnels ? parse_ip(ctx, pkt, kind) : parse_packet(ctx, pkt, kind)))
		return set_apart(pkt, REASON_TRUNCATED, k->drop_malformed);
	if (is_neighbour_discovery(pkt))
		return set_apart(pkt, REASON_ND, 0);
	if (tunnels)
		parse_tunnel(ctx, pkt);
	return NEXT;
}

#endif
