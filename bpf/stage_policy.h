/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * policy: the verdict on what parse set apart, once the lists have been asked. An
 * anomaly that may pass is the packet's reason, unless a later stage drops it.
 */
#ifndef STAGE_POLICY_H
#define STAGE_POLICY_H

#include "pkt.h"

static __always_inline __u8 drops_anomaly(const struct knobs *k, __u8 anomaly)
{
	switch (anomaly) {
	case REASON_FRAGMENT_TINY:
		return k->drop_tiny_fragments;
	case REASON_EXTENSION_HEADERS:
		return k->drop_extension_headers;
	case REASON_VLAN_DEPTH:
		return k->drop_vlan_depth;
	case REASON_TUNNEL_DEPTH:
		return k->drop_tunnel_depth;
	}
	return k->drop_malformed;
}

static __always_inline int stage_policy(struct pkt *pkt)
{
	struct knobs *k = knobs(pkt);

	if (pkt->allowed)
		return NEXT;
	if (pkt->anomaly) {
		pkt->reason = pkt->anomaly;
		return drops_anomaly(k, pkt->anomaly) ? XDP_DROP : NEXT;
	}
	if (pkt->fragment == FRAGMENT_FIRST && k->drop_first_fragments) {
		pkt->reason = REASON_FRAGMENT_FIRST;
		return XDP_DROP;
	}
	if (pkt->fragment == FRAGMENT_LATER && k->drop_later_fragments) {
		pkt->reason = REASON_FRAGMENT_LATER;
		return XDP_DROP;
	}
	return NEXT;
}

#endif
