/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * meter: leaky buckets for packets and bytes, of class all and of the packet's own
 * class, per source, per source prefix and per target. It limits; it never puts a
 * source on a list.
 *
 * A bucket lies in one of the four ways of the cache line that its hash chooses, and
 * is found there by its tag. Who has none takes the way that is empty soonest: there
 * is no insertion, and a heavy hitter, whose bucket is full, stays whatever else
 * comes. Two that share a line and a tag share a bucket: docs/decisions/0008.
 */
#ifndef STAGE_METER_H
#define STAGE_METER_H

#include "lib/bucket.h"
#include "lib/hash.h"
#include "maps.h"
#include "pkt.h"
#include "wire.h"

static __always_inline __u32 class_of(const struct pkt *pkt)
{
	switch (pkt->protocol) {
	case PROTO_TCP:
		return (pkt->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN ? CLASS_SYN : CLASS_ALL;
	case PROTO_UDP:
		return CLASS_UDP;
	case PROTO_ICMP:
	case PROTO_ICMP6:
		return CLASS_ICMP;
	}
	return CLASS_ALL;
}

static __always_inline const struct limit *limit_of(const struct pkt *pkt, __u32 scope, __u32 class)
{
	return &knobs(pkt)->limits[pkt->allowed & 1][scope][class & (NUM_CLASSES - 1)];
}

/* hash_of: IPv4 /32, /24 and /32, IPv6 /64, /48 and /128. Each scope and family has a seed of its own. */
static __always_inline __u64 hash_of(const struct pkt *pkt, __u32 scope)
{
	const struct addr *a = scope == SCOPE_TARGET ? &pkt->dst : &pkt->src;
	bool six = pkt->family == 6;
	__u32 high = a->w[0], low = a->w[1];
	__u64 hash;

	if (scope == SCOPE_PREFIX) {
		high &= six ? ~0U : bpf_htonl(0xffffff00);
		low &= bpf_htonl(0xffff0000);
	}
	hash = hash_mix(meter_seeds[2 * scope + six] ^ ((__u64)high << 32 | low));
	if (scope == SCOPE_TARGET && six)
		hash = hash_mix(hash ^ ((__u64)a->w[2] << 32 | a->w[3]));
	return hash;
}

/* locate says where the buckets of a scope are and which of them have a limit; false: none. */
static __always_inline bool locate(const struct pkt *pkt, __u32 scope, struct meter_place *place)
{
	__u32 class = class_of(pkt);
	const struct limit *all = limit_of(pkt, scope, CLASS_ALL);
	const struct limit *own = limit_of(pkt, scope, class);
	__u64 hash;

	place->class = class;
	place->wanted[0] = all->packet_cost || all->byte_cost;
	place->wanted[1] = class != CLASS_ALL && (own->packet_cost || own->byte_cost);
	if (!place->wanted[0] && !place->wanted[1])
		return false;
	hash = hash_of(pkt, scope);
	place->line = hash & knobs(pkt)->meter_mask;
	place->tag[0] = hash >> 48;
	place->tag[1] = place->tag[0] ^ class * 0x5bd1;
	return true;
}

/* find returns the way that has the tag, or NO_WAY. */
static __always_inline __u8 find(const struct meter_line *line, __u16 tag)
{
	if ((__u16)line->ways[0].packets == tag)
		return 0;
	if ((__u16)line->ways[1].packets == tag)
		return 1;
	if ((__u16)line->ways[2].packets == tag)
		return 2;
	if ((__u16)line->ways[3].packets == tag)
		return 3;
	return NO_WAY;
}

/* soonest returns the way that is empty first, other than `taken`. */
static __noinline int soonest(const struct pkt *pkt, const struct meter_line *line, __u8 taken)
{
	__u64 clock = pkt->clock, reach = knobs(pkt)->meter_reach;
	__u64 least = ~0ULL;
	int way = 0;

	for (int i = 0; i < METER_WAYS; i++) {
		__u64 rank = bucket_rank(line->ways[i].packets, clock, reach);
		__u64 bytes = bucket_rank(line->ways[i].bytes, clock, reach);

		if (bytes > rank)
			rank = bytes;
		if (i == taken || rank >= least)
			continue;
		least = rank;
		way = i;
	}
	return way;
}

/* over reports whether one of the buckets in the way is full; one with another tag is somebody else's. */
static __always_inline bool over(const struct pkt *pkt, const struct meter_bucket *b, __u16 tag,
				 const struct limit *limit)
{
	__u64 reach = knobs(pkt)->meter_reach;

	if (limit->packet_cost && (__u16)b->packets == tag &&
	    bucket_over(b->packets, pkt->clock, limit->burst, reach))
		return true;
	return limit->byte_cost && (__u16)b->bytes == tag &&
	       bucket_over(b->bytes, pkt->clock, limit->burst, reach);
}

/* refuses looks at the buckets of one scope and remembers where they are; it writes none. */
static __noinline int refuses(struct pkt *pkt, void *table, __u32 scope)
{
	struct meter_place *place = &pkt->places[scope];
	struct meter_line *line;

	if (!locate(pkt, scope, place))
		return 0;
	line = bpf_map_lookup_elem(table, &place->line);
	if (!line)
		return 0;
	place->way[0] = place->wanted[0] ? find(line, place->tag[0]) : NO_WAY;
	place->way[1] = place->wanted[1] ? find(line, place->tag[1]) : NO_WAY;
	if (place->wanted[0] && place->way[0] == NO_WAY)
		place->way[0] = soonest(pkt, line, place->way[1]);
	else if (place->wanted[0] && over(pkt, &line->ways[place->way[0] & 3], place->tag[0],
					  limit_of(pkt, scope, CLASS_ALL)))
		return 1;
	if (place->wanted[1] && place->way[1] == NO_WAY)
		place->way[1] = soonest(pkt, line, place->way[0]);
	else if (place->wanted[1] && over(pkt, &line->ways[place->way[1] & 3], place->tag[1],
					  limit_of(pkt, scope, place->class)))
		return 1;
	return 0;
}

/*
 * fill adds to a bucket that is not empty without a look at what other CPUs add: none of
 * it is lost, so that the rate of a source is exact however its packets are spread.
 */
static __always_inline void fill(const struct pkt *pkt, __u64 *word, __u16 tag, __u64 cost)
{
	if ((__u16)*word == tag && bucket_busy(*word, pkt->clock, knobs(pkt)->meter_reach))
		__sync_fetch_and_add(word, cost);
	else
		*word = bucket_begin(tag, pkt->clock, cost);
}

static __always_inline void charge(struct pkt *pkt, struct meter_bucket *b, __u16 tag,
				   const struct limit *limit)
{
	if ((__u16)b->packets != tag &&
	    bucket_busy(b->packets, pkt->clock, knobs(pkt)->meter_reach))
		pkt->evicted++;
	fill(pkt, &b->packets, tag, limit->packet_cost);
	if (limit->byte_cost)
		fill(pkt, &b->bytes, tag, (pkt->length * limit->byte_cost) & ~BUCKET_TAG);
}

/* charges puts the packet into the buckets of one scope, which refuses has found. */
static __noinline int charges(struct pkt *pkt, void *table, __u32 scope)
{
	struct meter_place *place = &pkt->places[scope];
	struct meter_line *line;

	if (!place->wanted[0] && !place->wanted[1])
		return 0;
	line = bpf_map_lookup_elem(table, &place->line);
	if (!line)
		return 0;
	if (place->wanted[0])
		charge(pkt, &line->ways[place->way[0] & 3], place->tag[0],
		       limit_of(pkt, scope, CLASS_ALL));
	if (place->wanted[1])
		charge(pkt, &line->ways[place->way[1] & 3], place->tag[1],
		       limit_of(pkt, scope, place->class));
	return 0;
}

/* limited reads anew for each scope: of a value it knows, the verifier would go through all eight. */
static __always_inline bool limited(const struct pkt *pkt, __u32 scope)
{
	return knobs(pkt)->limited[pkt->allowed & 1] & 1 << scope;
}

/* refused returns the reason of the first scope that refuses the packet, REASON_PASS if none does. */
static __always_inline __u8 refused(struct pkt *pkt, void *table)
{
	if (limited(pkt, SCOPE_SOURCE) && refuses(pkt, table, SCOPE_SOURCE))
		return REASON_LIMIT;
	if (limited(pkt, SCOPE_PREFIX) && refuses(pkt, table, SCOPE_PREFIX))
		return REASON_PREFIX_LIMIT;
	if (limited(pkt, SCOPE_TARGET) && refuses(pkt, table, SCOPE_TARGET))
		return REASON_TARGET_LIMIT;
	return REASON_PASS;
}

static __always_inline int stage_meter(struct pkt *pkt)
{
	__u32 zero = 0;
	__u8 reason;
	void *table;

	if (!knobs(pkt)->limited[pkt->allowed & 1])
		return NEXT;
	table = bpf_map_lookup_elem(&meters, &zero);
	if (!table)
		return NEXT;
	pkt->clock = bucket_clock(now(pkt));
	reason = refused(pkt, table);
	if (reason) {
		pkt->reason = reason;
		return XDP_DROP;
	}
	if (limited(pkt, SCOPE_SOURCE))
		charges(pkt, table, SCOPE_SOURCE);
	if (limited(pkt, SCOPE_PREFIX))
		charges(pkt, table, SCOPE_PREFIX);
	if (limited(pkt, SCOPE_TARGET))
		charges(pkt, table, SCOPE_TARGET);
	return NEXT;
}

#endif
