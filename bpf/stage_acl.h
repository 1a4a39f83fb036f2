/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * acl: what the lists say of the source, by longest prefix. Forced block, allow,
 * protected, block, in this order; the source of a tunnel before the one inside,
 * which its sender can make up.
 */
#ifndef STAGE_ACL_H
#define STAGE_ACL_H

#include "lists.h"

/* in_force: the clock is only read for what ends at all. */
static __always_inline bool in_force(struct pkt *pkt, __u64 until)
{
	if (!until || until == ~0ULL)
		return until;
	return now(pkt) < until;
}

static __always_inline int allow(struct pkt *pkt, __u8 reason)
{
	pkt->reason = reason;
	pkt->allowed = 1;
	return XDP_PASS;
}

static __always_inline int block(struct pkt *pkt)
{
	pkt->reason = REASON_BLOCKLIST;
	return XDP_DROP;
}

/* judge turns a verdict's number into what the lists say now. */
static __always_inline int judge(struct pkt *pkt, void *table, const struct list_set *set,
				 __u32 ref)
{
	struct list_line *line;
	__u32 w = (ref & 1) * 4;

	if (ref == REF_NONE)
		return NEXT;
	if (ref == REF_BLOCKED)
		return block(pkt);
	if (ref == REF_ALLOWED)
		return allow(pkt, REASON_ALLOWLIST);
	line = list_line(table, set->verdicts + (ref >> 1));
	if (!line)
		return NEXT;
	/* struct source_value: blocked, forced, allowed, protected */
	if (in_force(pkt, line->w[w + 2]))
		return allow(pkt, REASON_ALLOWLIST);
	if (!in_force(pkt, line->w[w + 1])) {
		if (in_force(pkt, line->w[w + 3]))
			return allow(pkt, REASON_PROTECTED);
		if (!in_force(pkt, line->w[w]))
			return NEXT;
	}
	return block(pkt);
}

/*
 * ask returns XDP_DROP, XDP_PASS for a source that is allowed, or NEXT if no list
 * knows it. Global, and so without pointers: the verifier goes through it once for both sources.
 */
__noinline int ask(__u32 outer)
{
	__u32 zero = 0;
	struct pkt *pkt = bpf_map_lookup_elem(&scratch, &zero);
	struct list_query q;

	if (!pkt || !list_query(&q, outer))
		return NEXT;
	if (tunnels && q.family == 4 && !list_near4(&q, bpf_ntohl(q.addr->w[0])))
		return NEXT;
	return judge(pkt, q.table, q.set, list_find(&q, outer));
}

/* ask4 is ask for the source of a packet of IPv4: most of a flood's, for which a call is saved. */
static __always_inline int ask4(struct pkt *pkt)
{
	struct list_query q = { .set = &knobs(pkt)->lists, .addr = &pkt->src, .family = 4 };
	__u32 slot = q.set->slot;

	q.table = bpf_map_lookup_elem(&lists, &slot);
	if (!q.table || !list_near4(&q, bpf_ntohl(pkt->src.w[0])))
		return NEXT;
	return judge(pkt, q.table, q.set, list_find(&q, 0));
}

static __always_inline int stage_acl(struct pkt *pkt)
{
	int v = NEXT;

	if (!knobs(pkt)->listed)
		return NEXT;
	if (pkt->outer_family)
		v = ask(1);
	/* With tunnels, the verifier has more ways to here than the call is worth (5.10). */
	if (v == NEXT)
		v = tunnels || pkt->family != 4 ? ask(0) : ask4(pkt);
	return v == XDP_DROP ? XDP_DROP : NEXT;
}

#endif
