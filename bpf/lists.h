/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The look-up of a source in the lists, by longest prefix, at a cost that does not
 * grow with them. The tables, all in one map, in lines of 64 bytes:
 *
 *   control   w[0] version, counted up with every change in place
 *             w[1] low: length classes of IPv6 under /32 in use; high: verdict of ::/0
 *   net4      two bits for every /24 (enum list_cell); in a short list folded by
 *             net4_mask, where CELL_CLOSER stands for all that share the bits
 *   short4    u32 for every /20: verdict of the /20 and of what covers it
 *   lines4    hashed by /24; seven slots {address 32 | code 4 | shift 4 | verdict 24}: prefixes of
 *             /24 to /32, the longest one that matches counts. w[7]: line it goes on in
 *   leaves4   u32 for every address of a /24 with many prefixes
 *   verdicts  struct source_value, two a line, what a verdict's number means
 *   net6      u32 for a hash of the first 32 bits: length classes in use behind it
 *   lines6    hashed by prefix; seven slots {tag 32 | record 32}, w[7] as above
 *   records6  {first half, second half, length 32 | verdict 32, –}, two a line
 *
 * IPv6 prefixes are in classes of every fourth length (class 0: /128, 31: /4); those
 * between are expanded to the next. What user space changes for one entry is a single store of
 * 8 bytes for each address. `version` tells a reader that two or more of them
 * may have passed it by.
 */
#ifndef LISTS_H
#define LISTS_H

#include "maps.h"
#include "pkt.h"

#define LIST_HOPS 4 /* lines that a chain has at most */
#define LIST_RETRIES 3
#define LIST_REF_MASK 0xffffff

static __always_inline struct list_line *list_line(void *table, __u32 line)
{
	return bpf_map_lookup_elem(table, &line);
}

/* list_mix is lowbias32 by Chris Wellons (public domain). */
static __always_inline __u32 list_mix(__u32 x)
{
	x ^= x >> 16;
	x *= 0x7feb352d;
	x ^= x >> 15;
	x *= 0x846ca68b;
	return x ^ (x >> 16);
}

/* list_scale maps a hash to 0 … n-1. */
static __always_inline __u32 list_scale(__u32 hash, __u32 n)
{
	return ((__u64)hash * n) >> 32;
}

/*
 * list_longer returns the better match of `best` and a slot, as the slot's lower
 * half. Without a branch, which neither the verifier nor the CPU's predictor has to follow.
 */
static __always_inline __u64 list_longer(__u64 slot, __u32 addr, __u64 best)
{
	__u64 differs = ((__u32)(slot >> 32) ^ addr) >> ((slot >> 24) & 15);
	__u64 match, better;

	barrier_var(differs);
	match = (differs - 1) >> 63; /* 1 or 0 */
	barrier_var(match);
	slot = (__u32)slot * match;
	better = (best - slot) >> 63;
	barrier_var(better);
	return best + (slot - best) * better;
}

/* list_half returns the u32 at `index` of a table. */
static __always_inline __u32 list_half(void *table, __u32 base, __u32 index)
{
	struct list_line *line = list_line(table, base + (index >> 4));

	if (!line)
		return REF_NONE;
	return line->w[(index >> 1) & 7] >> ((index & 1) * 32);
}

/* What a look-up works on. */
struct list_query {
	const struct list_set *set;
	const struct addr *addr;
	void *table;
	__u8 family;
};

/*
 * list_query finds it anew in every global function: those take numbers only (pointers
 * came in 5.12). They are global so that the verifier goes through each once, not
 * for every family, length class, source and retry.
 */
static __always_inline bool list_query(struct list_query *q, __u32 outer)
{
	__u32 zero = 0, slot;
	struct pkt *pkt = bpf_map_lookup_elem(&scratch, &zero);

	if (!pkt)
		return false;
	q->set = &knobs(pkt)->lists;
	slot = q->set->slot;
	q->table = bpf_map_lookup_elem(&lists, &slot);
	q->addr = outer ? &pkt->outer_src : &pkt->src;
	q->family = outer ? pkt->outer_family : pkt->family;
	return q->table;
}

static __always_inline __u32 list_cell4(void *table, const struct list_set *set, __u32 addr)
{
	struct list_line *line = list_line(table, set->net4 + ((addr >> 16) & set->net4_mask));

	if (!line)
		return CELL_NOTHING;
	return (line->w[(addr >> 13) & 7] >> ((addr >> 7) & 62)) & 3;
}

/*
 * list_closer4 returns the verdict on an address whose /24 is CELL_CLOSER. Inline: a call and
 * its return cost 5 ns where returns are guarded against speculation.
 */
static __always_inline __u32 list_closer4(const struct list_query *q, __u32 addr)
{
	__u32 at = list_scale(list_mix((addr >> 8) ^ q->set->seed4), q->set->num_lines4);
	__u64 best = 0;

	for (int i = 0; i < LIST_HOPS; i++) {
		struct list_line *line = list_line(q->table, q->set->lines4 + at);

		if (!line)
			break;
#pragma unroll
		for (int j = 0; j < 7; j++)
			best = list_longer(line->w[j], addr, best);
		at = line->w[7];
		if (!at)
			break;
	}
	if ((__u32)best >> 28 == CODE_LEAF)
		return list_half(q->table, q->set->leaves4,
				 ((__u32)best & LIST_REF_MASK) << 8 | (addr & 255));
	if (!best && q->set->short4)
		return list_half(q->table, q->set->short4, addr >> 12);
	return best & LIST_REF_MASK;
}

/* list_hash6: the lower half is the tag, the upper one chooses the line. */
static __always_inline __u64 list_hash6(__u64 seed, __u64 hi, __u64 lo, __u32 bits)
{
	__u64 x = (hi ^ seed) * 0x9e3779b97f4a7c15ULL;

	x ^= x >> 32;
	x = (x ^ lo) * 0xd6e8feb86659fd93ULL + bits;
	x ^= x >> 32;
	x *= 0xd6e8feb86659fd93ULL;
	return x ^ (x >> 32);
}

/* list_record6 returns the verdict of a record if it is the prefix looked for. */
static __always_inline __u32 list_record6(void *table, const struct list_set *set, __u32 record,
					  __u64 hi, __u64 lo, __u32 bits)
{
	struct list_line *line = list_line(table, set->records6 + (record >> 1));
	__u32 w = (record & 1) * 4;
	__u64 meta;

	if (!line || line->w[w] != hi || line->w[w + 1] != lo)
		return REF_NONE;
	meta = line->w[w + 2];
	return meta >> 32 == bits ? meta & LIST_REF_MASK : REF_NONE;
}

/* list_probe6 returns the verdict on the source's prefix of one length class. */
__noinline __u32 list_probe6(__u32 outer, __u32 class)
{
	__u32 bits = 128 - 4 * (class & 31), at;
	struct list_query q;
	__u64 hi, lo, hash;

	if (!list_query(&q, outer))
		return REF_NONE;
	hi = (__u64)bpf_ntohl(q.addr->w[0]) << 32 | bpf_ntohl(q.addr->w[1]);
	lo = (__u64)bpf_ntohl(q.addr->w[2]) << 32 | bpf_ntohl(q.addr->w[3]);
	if (bits < 64)
		hi &= ~0ULL << (64 - bits);
	lo = bits > 64 ? lo & ~0ULL << (128 - bits) : 0;

	hash = list_hash6(q.set->seed6, hi, lo, bits);
	at = list_scale(hash >> 32, q.set->num_lines6);
	for (int i = 0; i < LIST_HOPS; i++) {
		struct list_line *line = list_line(q.table, q.set->lines6 + at);

		if (!line)
			break;
		for (int j = 0; j < 7; j++) {
			__u64 entry = line->w[j];
			__u32 ref;

			if (entry >> 32 != (__u32)hash || !(__u32)entry)
				continue;
			ref = list_record6(q.table, q.set, entry, hi, lo, bits);
			if (ref)
				return ref;
		}
		at = line->w[7];
		if (!at)
			break;
	}
	return REF_NONE;
}

/* list_lowest returns the number of the lowest bit set, by a de Bruijn sequence: BPF cannot count zeros. */
static __always_inline __u32 list_lowest(__u32 bit)
{
	static const __u8 position[32] = {
		0,  1,	28, 2,	29, 14, 24, 3, 30, 22, 20, 15, 25, 17, 4,  8,
		31, 27, 13, 23, 21, 19, 16, 7, 26, 12, 18, 6,  11, 5,  10, 9,
	};

	return position[(bit * 0x077cb531U) >> 27];
}

/* list_find6 asks for one length after the other, from the longest in use. */
__noinline __u32 list_find6(__u32 outer)
{
	struct list_line *control;
	struct list_query q;
	__u32 top, classes;
	__u64 rest;

	if (!list_query(&q, outer))
		return REF_NONE;
	control = list_line(q.table, 0);
	if (!control)
		return REF_NONE;
	top = list_mix(bpf_ntohl(q.addr->w[0]) ^ q.set->seed4);
	classes = list_half(q.table, q.set->net6, list_scale(top, q.set->num_net6));
	rest = control->w[1];
	classes |= (__u32)rest;
	for (int i = 0; i < 32 && classes; i++) {
		__u32 bit = classes & -classes;
		__u32 ref = list_probe6(outer, list_lowest(bit));

		if (ref)
			return ref;
		classes ^= bit;
	}
	return rest >> 32;
}

/* list_find returns the verdict on an address that needs more than net4. */
static __always_inline __u32 list_find(const struct list_query *q, __u32 outer)
{
	struct list_line *control = list_line(q->table, 0);
	__u32 ref = REF_NONE;

	if (!control)
		return REF_NONE;
	for (int i = 0; i < LIST_RETRIES; i++) {
		__u64 version = control->w[0];

		ref = q->family == 4 ? list_closer4(q, bpf_ntohl(q->addr->w[0]))
				     : list_find6(outer);
		if (control->w[0] == version)
			break;
	}
	return ref;
}

#endif
