/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * acl: what the lists say of the source, by longest prefix. Forced block, allow,
 * protected, block, in this order; the source of a tunnel before the one inside,
 * which its sender can make up.
 */
#ifndef STAGE_ACL_H
#define STAGE_ACL_H

#include "maps.h"
#include "pkt.h"

static __always_inline struct source_value *find4(const struct addr *addr)
{
	struct source4_key key = { .prefixlen = 32 };
	__u32 zero = 0;
	void *trie = bpf_map_lookup_elem(&sources4, &zero);

	if (!trie)
		return NULL;
	__builtin_memcpy(key.addr, addr->w, sizeof(key.addr));
	return bpf_map_lookup_elem(trie, &key);
}

static __always_inline struct source_value *find6(const struct addr *addr)
{
	struct source6_key key = { .prefixlen = 128 };
	__u32 zero = 0;
	void *trie = bpf_map_lookup_elem(&sources6, &zero);

	if (!trie)
		return NULL;
	__builtin_memcpy(key.addr, addr->w, sizeof(key.addr));
	return bpf_map_lookup_elem(trie, &key);
}

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

/* ask returns XDP_DROP, XDP_PASS for a source that is allowed, or NEXT if no list knows it. */
static __noinline int ask(struct pkt *pkt, const struct addr *addr, __u8 family)
{
	struct source_value *source = family == 4 ? find4(addr) : find6(addr);

	if (!source)
		return NEXT;
	if (in_force(pkt, source->allowed))
		return allow(pkt, REASON_ALLOWLIST);
	if (!in_force(pkt, source->forced)) {
		if (in_force(pkt, source->protected))
			return allow(pkt, REASON_PROTECTED);
		if (!in_force(pkt, source->blocked))
			return NEXT;
	}
	pkt->reason = REASON_BLOCKLIST;
	return XDP_DROP;
}

static __always_inline int stage_acl(struct pkt *pkt)
{
	int v = NEXT;

	if (!knobs(pkt)->listed)
		return NEXT;
	if (pkt->outer_family)
		v = ask(pkt, &pkt->outer_src, pkt->outer_family);
	if (v == NEXT)
		v = ask(pkt, &pkt->src, pkt->family);
	return v == XDP_DROP ? XDP_DROP : NEXT;
}

#endif
