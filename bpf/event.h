/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What is told of a packet, whoever is told. */
#ifndef EVENT_H
#define EVENT_H

#include "pkt.h"

static __always_inline void describe(struct event *e, const struct xdp_md *ctx,
				     const struct pkt *pkt, __u8 outcome)
{
	e->ifindex = ctx->ingress_ifindex;
	e->length = pkt->length;
	__builtin_memcpy(e->src, &pkt->src, sizeof(e->src));
	__builtin_memcpy(e->dst, &pkt->dst, sizeof(e->dst));
	e->src_port = pkt->src_port;
	e->dst_port = pkt->dst_port;
	e->family = pkt->family;
	e->protocol = pkt->protocol;
	e->tcp_flags = pkt->tcp_flags;
	e->ttl = pkt->ttl;
	e->vlans = pkt->vlans;
	e->fragment = pkt->fragment;
	e->tunnel = pkt->tunnel;
	e->reason = pkt->reason;
	e->outcome = outcome;
	__builtin_memset(e->pad, 0, sizeof(e->pad));
}

#endif
