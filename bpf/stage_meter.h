/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * meter: leaky buckets for packets and bytes, of class all and of the packet's own
 * class, per source, per source prefix and per target. It limits; it never puts a
 * source on a list.
 *
 * A bucket lies in one of the four ways of the cache line that its hash chooses, and
 * is found there by its tag. Who has none takes the way that is empty soonest: there
 * is no insertion, and a heavy hitter, whose bucket is full, stays whatever else
 * comes, while there are no more of them than ways. Two that share a line and a tag
 * share a bucket: docs/decisions/0008.
 */
#ifndef STAGE_METER_H
#define STAGE_METER_H

#include "lib/bucket.h"
#include "lib/hash.h"
#include "maps.h"
#include "pkt.h"
#include "wire.h"

#define ADMIT 16 /* packets without a way that it takes until one gets a way in use */

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

/* place_of says where in its line the buckets of a scope are and which of them have a limit; false: none. */
static __always_inline bool place_of(struct pkt *pkt, __u32 scope, __u64 hash)
{
	struct meter_place *place = &pkt->places[scope];
	__u32 class = class_of(pkt);
	const struct limit *all = limit_of(pkt, scope, CLASS_ALL);
	const struct limit *own = limit_of(pkt, scope, class);

	place->class = class;
	place->wanted[0] = all->packet_cost || all->byte_cost;
	place->wanted[1] = class != CLASS_ALL && (own->packet_cost || own->byte_cost);
	if (!place->wanted[0] && !place->wanted[1])
		return false;
	place->line = hash & knobs(pkt)->meter_mask;
	place->tag[0] = hash >> 48;
	place->tag[1] = place->tag[0] ^ class * 0x5bd1;
	return true;
}

/* has_tag returns 1 if the way has the tag, else 0, without a branch. */
static __always_inline __u64 has_tag(const struct meter_line *line, __u32 way, __u16 tag)
{
	return (((line->ways[way].packets ^ tag) & BUCKET_TAG) - 1) >> 63;
}

/*
 * find returns the first way that has the tag, or NO_WAY. As arithmetic: of a number
 * that branches gave it, the verifier would follow each value on its own (6.18: 20 000
 * instructions), and the CPU would guess wrong three times of four.
 */
static __always_inline __u8 find(const struct meter_line *line, __u16 tag)
{
	__u64 first = has_tag(line, 0, tag), second = has_tag(line, 1, tag);
	__u64 third = has_tag(line, 2, tag), fourth = has_tag(line, 3, tag);
	__u64 two = first | second, three = two | third;

	return (second & ~first) | (third & ~two) << 1 | (fourth & ~three) * 3 |
	       (~(three | fourth) & 1) << 2;
}

/* lesser returns the smaller of two numbers under 2^63, without a branch: which it is, nobody can predict. */
static __always_inline __u64 lesser(__u64 a, __u64 b)
{
	__u64 mask = (__s64)(a - b) >> 63;

	return b + ((a - b) & mask);
}

/* rank_of orders ways by the time at which both buckets are empty; the lowest bits are the way's number. */
static __always_inline __u64 rank_of(const struct pkt *pkt, const struct meter_line *line,
				     __u32 way)
{
	__u64 clock = pkt->clock, reach = knobs(pkt)->meter_reach;
	__u64 packets = bucket_rank(line->ways[way].packets, clock, reach) >> 1;
	__u64 bytes = bucket_rank(line->ways[way].bytes, clock, reach) >> 1;

	return ((packets + bytes - lesser(packets, bytes)) & ~3ULL) | way;
}

/* soonest returns the way that is empty first, other than `taken`. */
static __always_inline int soonest(const struct pkt *pkt, const struct meter_line *line, __u8 taken)
{
	__u64 least = ~0ULL >> 1;

	for (__u32 i = 0; i < METER_WAYS; i++)
		least = lesser(least, rank_of(pkt, line, i) | (i == taken ? ~3ULL >> 1 : 0));
	return least & 3;
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

/* limited reads anew for each scope: of a value it knows, the verifier would go through all eight. */
static __always_inline bool limited(const struct pkt *pkt, __u32 scope)
{
	return knobs(pkt)->limited[pkt->allowed & 1] & 1 << scope;
}

/* line_of finds the line of a scope, and what has a limit in it; NULL: nothing has. */
static __always_inline struct meter_line *line_of(struct pkt *pkt, void *table, __u32 scope)
{
	if (!limited(pkt, scope) || !place_of(pkt, scope, hash_of(pkt, scope)))
		return NULL;
	return bpf_map_lookup_elem(table, &pkt->places[scope].line);
}

/* look looks at the buckets of one scope and remembers where they are; it writes none. */
static __always_inline int look(struct pkt *pkt, const struct meter_line *line, __u32 scope)
{
	struct meter_place *place = &pkt->places[scope];

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

/* in_use reports whether the way is another's who still needs it. */
static __always_inline bool in_use(const struct pkt *pkt, const struct meter_bucket *b, __u16 tag)
{
	__u64 reach = knobs(pkt)->meter_reach;
	__u32 busy = bucket_busy(b->packets, pkt->clock, reach);

	busy |= bucket_busy(b->bytes, pkt->clock, reach);
	return busy && (__u16)b->packets != tag;
}

/*
 * charge puts the packet into the bucket. Of the packets that find every way in use,
 * one in ADMIT takes a way from its owner: if all did, heavy hitters that are more than
 * the ways would push each other out before any has filled its bucket, and none were limited.
 */
static __always_inline void charge(struct pkt *pkt, struct meter_bucket *b, __u16 tag,
				   const struct limit *limit)
{
	if (in_use(pkt, b, tag)) {
		pkt->evicted++;
		if (bpf_get_prandom_u32() % ADMIT)
			return;
	}
	fill(pkt, &b->packets, tag, limit->packet_cost);
	if (limit->byte_cost)
		fill(pkt, &b->bytes, tag, (pkt->length * limit->byte_cost) & ~BUCKET_TAG);
}

/* charges puts the packet into the buckets of one scope, which refuses has found. */
static __always_inline int charge_all(struct pkt *pkt, struct meter_line *line, __u32 scope)
{
	struct meter_place *place = &pkt->places[scope];

	if (place->wanted[0])
		charge(pkt, &line->ways[place->way[0] & 3], place->tag[0],
		       limit_of(pkt, scope, CLASS_ALL));
	if (place->wanted[1])
		charge(pkt, &line->ways[place->way[1] & 3], place->tag[1],
		       limit_of(pkt, scope, place->class));
	return 0;
}

/*
 * meter_begin finds the line of the packet's source and reads from it, for nothing but
 * to have it in the cache when stage_meter comes to it: memory answers while the lists are asked.
 */
static __always_inline struct meter_line *meter_begin(struct pkt *pkt)
{
	__u32 zero = 0, at;
	struct meter_line *line;
	void *table;

	if (!((knobs(pkt)->limited[0] | knobs(pkt)->limited[1]) & 1 << SCOPE_SOURCE))
		return NULL;
	table = bpf_map_lookup_elem(&meters, &zero);
	if (!table)
		return NULL;
	pkt->source_hash = hash_of(pkt, SCOPE_SOURCE);
	at = pkt->source_hash & knobs(pkt)->meter_mask;
	line = bpf_map_lookup_elem(table, &at);
	if (line)
		asm volatile("r0 = *(u64 *)(%0 + 0)" : : "r"(line) : "r0");
	return line;
}

static __noinline int meter_source(struct pkt *pkt, struct meter_line *line)
{
	if (!place_of(pkt, SCOPE_SOURCE, pkt->source_hash))
		return REASON_PASS;
	pkt->clock = bucket_clock(now(pkt));
	if (look(pkt, line, SCOPE_SOURCE))
		return REASON_LIMIT;
	charge_all(pkt, line, SCOPE_SOURCE);
	return REASON_PASS;
}

static __noinline int refuses(struct pkt *pkt, const struct meter_line *line, __u32 scope)
{
	return look(pkt, line, scope);
}

static __noinline int charges(struct pkt *pkt, struct meter_line *line, __u32 scope)
{
	return charge_all(pkt, line, scope);
}

/*
 * meter_scopes returns the reason of the first scope that refuses the packet; REASON_PASS: none does.
 * It is a global function, so that the verifier goes through it once and not for every state in
 * which a packet may come here; kernel 5.10 hands such a function numbers only, hence no packet.
 */
__noinline int meter_scopes(__u32 zero)
{
	struct pkt *pkt = bpf_map_lookup_elem(&scratch, &zero);
	void *table = bpf_map_lookup_elem(&meters, &zero);
	struct meter_line *source, *prefix, *target;

	if (!pkt || !table)
		return REASON_PASS;
	pkt->clock = bucket_clock(now(pkt));
	source = line_of(pkt, table, SCOPE_SOURCE);
	prefix = line_of(pkt, table, SCOPE_PREFIX);
	target = line_of(pkt, table, SCOPE_TARGET);
	if (source && refuses(pkt, source, SCOPE_SOURCE))
		return REASON_LIMIT;
	if (prefix && refuses(pkt, prefix, SCOPE_PREFIX))
		return REASON_PREFIX_LIMIT;
	if (target && refuses(pkt, target, SCOPE_TARGET))
		return REASON_TARGET_LIMIT;
	if (source)
		charges(pkt, source, SCOPE_SOURCE);
	if (prefix)
		charges(pkt, prefix, SCOPE_PREFIX);
	if (target)
		charges(pkt, target, SCOPE_TARGET);
	return REASON_PASS;
}

static __always_inline int stage_meter(struct pkt *pkt, struct meter_line *line)
{
	__u8 scopes = knobs(pkt)->limited[pkt->allowed & 1], reason;

	if (!scopes)
		return NEXT;
	reason = line && scopes == 1 << SCOPE_SOURCE ? meter_source(pkt, line) : meter_scopes(0);
	if (!reason)
		return NEXT;
	pkt->reason = reason;
	return XDP_DROP;
}

#endif
