/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The look-up of a source in the lists, by longest prefix, at a cost that does not
 * grow with them. The tables, all in one map, in lines of 64 bytes:
 *
 *   net4      a bit for every /24: prefixes in or around it may know it. Folded by net4_mask to
 *             a size that suits the list, so that it stays in the cache
 *   short4    u32 for every /20: verdict of the /20 and of what covers it
 *   lines4    hashed by /24; fifteen slots of 32 bits {tag 17 | host 8 | length 4 | kind 3}:
 *             prefixes of /24 to /32, the longest one that matches counts. The tag and the line
 *             are all of the /24, permuted. The sixteenth u32: line it goes on in
 *   refs4     u32 for every slot of lines4: verdict of KIND_REF, or number of the leaf
 *   leaves4   u32 for every address of a /24 with many prefixes
 *   verdicts  struct source_value, two a line, what a verdict's number means
 *   net6      a word for a hash of the first 32 bits; the length classes in use behind them are
 *             in it three times, each turned left by another part of the hash. Of those that other
 *             hashes left there, one in a hundred is in all three places
 *   lines6    hashed by prefix; five slots, w[0] to w[4], of a first half or, two together, of both,
 *             for each slot {class + 1 8 | verdict 24} in the 32-bit halves from w[5] on, and in the last
 *             of them the line it goes on in. Whose verdict is 0 was removed
 *
 * IPv6 prefixes are in classes of every fourth length (class 0: /128, 31: /4); those
 * between are expanded to the next. What user space changes for one entry is a single store
 * for each address. list_version tells a reader that two or more of them may have
 * passed it by.
 */
#ifndef LISTS_H
#define LISTS_H

#include "maps.h"
#include "pkt.h"

#define LIST_HOPS 3 /* lines that a chain has at most */
#define LIST_RETRIES 2
#define LIST_REF_MASK 0xffffff

#define LIST6_SLOTS 5
#define LIST6_CODE_SHIFT 24
#define LIST6_CLASS_32 24
#define LIST6_SHORT 0xfe000000 /* classes that net6 says nothing of */
#define LIST6_AT_ONCE 2 /* classes that one call asks for */
#define LIST6_CALLS 16
/* A slot of lines4. */
#define LIST4_SLOTS 15
#define LIST4_LENGTH_SHIFT 3
#define LIST4_REST_MASK 0x7f /* what is not key */
#define LIST4_HOST_SHIFT 7
#define LIST4_TAG_SHIFT 15
#define LIST4_RANGE 0x10000ULL /* keys in a prefix, times 2^length */

static __always_inline struct list_line *list_line(void *table, __u32 line)
{
	return bpf_map_lookup_elem(table, &line);
}

/* list_scale maps a hash to 0 … n-1. */
static __always_inline __u32 list_scale(__u32 hash, __u32 n)
{
	return ((__u64)hash * n) >> 32;
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

/* list_near4 reports whether the lists may know the address. */
static __always_inline bool list_near4(const struct list_query *q, __u32 addr)
{
	__u32 bit = (addr >> 8) & q->set->net4_mask;
	struct list_line *line = list_line(q->table, q->set->net4 + (bit >> 9));

	return line && line->w[(bit >> 6) & 7] >> (bit & 63) & 1;
}

/* list_permute4 spreads a /24 over 24 bits; no two /24s give the same. */
static __always_inline __u32 list_permute4(__u32 net, __u32 seed)
{
	net = (net ^ seed ^ net >> 12) & 0xffffff;
	net = net * 0x6f4a95 & 0xffffff;
	net ^= net >> 11 ^ seed >> 24;
	net = net * 0xb5297d & 0xffffff;
	return net ^ net >> 13;
}

/* list_mask returns all bits if the number is negative, else none; a compiler that saw through it would branch. */
static __always_inline __u64 list_mask(__s64 x)
{
	barrier_var(x);
	x >>= 63;
	barrier_var(x);
	return x;
}

static __always_inline __u64 list_longer4(__u64 a, __u64 b)
{
	return a - ((a - b) & list_mask(a - b));
}

/*
 * list_match4 returns {length 4 | kind 3 | number 4} of a slot that holds a prefix of the key's address,
 * else 0. A prefix is a range of keys. Without a branch, which neither the verifier nor the CPU's
 * predictor has to follow.
 */
static __always_inline __u64 list_match4(const __u32 *slots, __u32 number, __u32 key)
{
	__u64 slot = slots[number & 15];
	__u64 behind = (__u32)(key - slot);
	__u64 keys = LIST4_RANGE >> (slot >> LIST4_LENGTH_SHIFT & 15);

	return ((slot & LIST4_REST_MASK) << 4 | number) & list_mask(behind - keys);
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

/*
 * list_tagged4 returns a bit, 31 - i, for each slot i with the key's tag, and perhaps for the one behind such a
 * slot: two are compared at once, and the lower one borrows from the upper one if it has the tag.
 */
static __always_inline __u32 list_tagged4(const volatile __u64 *words, __u32 key)
{
	const __u64 tags = 0xffff8000ffff8000ULL, lowest = 0x0000800000008000ULL;
	__u64 both = (__u64)key << 32 | key, found = 0;

#pragma unroll
	for (__u32 i = 0; i < 8; i++) {
		__u64 differs = (words[i] ^ both) & tags;

		found |= ((differs - lowest) & ~differs & 0x8000000080000000ULL) >> (2 * i);
	}
	return (found | found >> 33) & 0xfffe0000;
}

/* list_scan4 returns the longest match of a line. Mostly one slot has the tag, or none. */
static __always_inline __u64 list_scan4(const struct list_line *line, __u32 key)
{
	__u32 left = list_tagged4(line->w, key);
	__u64 best = 0;

	for (int i = 0; i < LIST4_SLOTS && left; i++) {
		__u32 bit = left & -left;

		best = list_longer4(
			best, list_match4((const __u32 *)line->w, 31 - list_lowest(bit), key));
		left ^= bit;
	}
	return best;
}

/*
 * list_closer4 returns the verdict on an address that is near a prefix. Inline: a call and
 * its return cost 5 ns where returns are guarded against speculation.
 */
static __always_inline __u32 list_closer4(const struct list_query *q, __u32 addr)
{
	__u32 net = list_permute4(addr >> 8, q->set->seed4);
	__u32 key = net << LIST4_TAG_SHIFT | (addr & 255) << LIST4_HOST_SHIFT | LIST4_REST_MASK;
	__u32 at = (__u64)net * q->set->num_lines4 >> 24;
	__u64 best = 0; /* {length 4 | kind 3 | where the slot is 32} */
	__u32 kind, ref;

	for (int i = 0; i < LIST_HOPS; i++) {
		struct list_line *line = list_line(q->table, q->set->lines4 + at);
		__u64 match;

		if (!line)
			break;
		match = list_scan4(line, key);
		match = match >> 4 << 32 | at << 4 | (match & LIST4_SLOTS);
		best = list_longer4(best, match);
		at = line->w[7] >> 32;
		if (!at)
			break;
	}
	if (!(best >> (32 + LIST4_LENGTH_SHIFT)))
		return q->set->short4 ? list_half(q->table, q->set->short4, addr >> 12) : REF_NONE;
	kind = best >> 32 & 7;
	if (kind < KIND_REF)
		return kind;
	ref = list_half(q->table, q->set->refs4, best);
	if (kind == KIND_LEAF)
		return list_half(q->table, q->set->leaves4, ref << 8 | (addr & 255));
	return ref;
}

/* list_hash6: the upper half chooses a line or word. */
static __always_inline __u64 list_hash6(__u64 seed, __u64 hi, __u64 lo, __u32 class)
{
	__u64 x = (hi ^ seed) * 0x9e3779b97f4a7c15ULL;

	x ^= x >> 32;
	x = (x ^ lo) * 0xd6e8feb86659fd93ULL + class;
	x ^= x >> 32;
	x *= 0xd6e8feb86659fd93ULL;
	return x ^ (x >> 32);
}

/* What is looked for in a line. */
struct list_key6 {
	__u64 hi, lo;
	__u64 wide; /* all ones where lo counts */
	__u32 code; /* class + 1 */
};

/*
 * list_same6 returns the verdict of slot j if it holds the prefix, otherwise 0. Without a branch,
 * which neither the verifier nor the CPU's predictor has to follow.
 */
static __always_inline __u32 list_same6(const __u64 *halves, __u32 j, __u32 meta,
					const struct list_key6 *key)
{
	__u64 differs = halves[j] ^ key->hi;

	differs |= (halves[j + 1] ^ key->lo) & key->wide;
	differs |= (meta >> LIST6_CODE_SHIFT) ^ key->code;
	barrier_var(differs);
	differs = (~differs & (differs - 1)) >> 63; /* 1 if it was 0 */
	barrier_var(differs);
	return meta & LIST_REF_MASK & -(__u32)differs;
}

/* list_slots6 returns the verdict of the slot that holds the prefix, and the line it goes on in. */
static __always_inline __u32 list_slots6(const struct list_line *line, const struct list_key6 *key,
					 __u32 *next)
{
	/* User space writes a slot's halves before it says that they are there. */
	__u64 meta[3] = { line->w[5], line->w[6], line->w[7] };
	__u64 halves[6] = { line->w[0], line->w[1], line->w[2], line->w[3], line->w[4], 0 };
	__u32 ref = REF_NONE;

#pragma unroll
	for (__u32 j = 0; j < LIST6_SLOTS; j++)
		ref |= list_same6(halves, j, meta[j / 2] >> (j % 2 * 32), key);
	*next = meta[2] >> 32;
	return ref;
}

/* list_upper6 and list_lower6 return the halves of an address. */
static __always_inline __u64 list_upper6(const struct addr *addr)
{
	return (__u64)bpf_ntohl(addr->w[0]) << 32 | bpf_ntohl(addr->w[1]);
}

static __always_inline __u64 list_lower6(const struct addr *addr)
{
	return (__u64)bpf_ntohl(addr->w[2]) << 32 | bpf_ntohl(addr->w[3]);
}

/* list_key6 sets what to look for, and returns the line to begin with. */
static __always_inline __u32 list_key6(const struct list_query *q, __u64 hi, __u64 lo, __u32 class,
				       struct list_key6 *key)
{
	__u32 cut = 4 * class & 63, lines;

	key->wide = (__u64)(class >> 4) - 1;
	key->hi = hi & ~0ULL << (cut & ~(__u32)key->wide);
	key->lo = lo & ~0ULL << cut & key->wide;
	key->code = class + 1;
	lines = class > LIST6_CLASS_32 ? q->set->num_short6 : q->set->num_lines6;
	return list_scale(list_hash6(q->set->seed6, key->hi, key->lo, class) >> 32, lines);
}

/* list_probe6 returns the verdict on the source's prefix of one length class. */
static __always_inline __u32 list_probe6(const struct list_query *q, __u64 hi, __u64 lo,
					 __u32 class)
{
	struct list_key6 key;
	__u32 at = list_key6(q, hi, lo, class, &key);

	for (int i = 0; i < LIST_HOPS; i++) {
		struct list_line *line = list_line(q->table, q->set->lines6 + at);
		__u32 ref;

		if (!line)
			break;
		ref = list_slots6(line, &key, &at);
		if (ref)
			return ref;
		if (!at)
			break;
	}
	return REF_NONE;
}

/*
 * list_chains6 asks for a few length classes, from the longest on. It returns the verdict, or, in the
 * upper half, the classes that are left.
 */
__noinline __u64 list_chains6(__u32 outer, __u32 classes)
{
	struct list_query q;
	__u64 hi, lo;

	if (!list_query(&q, outer))
		return REF_NONE;
	hi = list_upper6(q.addr);
	lo = list_lower6(q.addr);
	for (int i = 0; i < LIST6_AT_ONCE && classes; i++) {
		__u32 bit = classes & -classes;
		__u32 ref = list_probe6(&q, hi, lo, list_lowest(bit));

		if (ref)
			return ref;
		classes ^= bit;
	}
	return (__u64)classes << 32;
}

static __always_inline __u64 list_turn(__u64 word, __u64 by)
{
	return word >> (by & 63) | word << (-by & 63);
}

/* list_classes6 returns which of the length classes in use there may be prefixes of around an address. */
static __always_inline __u32 list_classes6(const struct list_query *q, __u32 used)
{
	__u64 hash = list_hash6(q->set->seed6, bpf_ntohl(q->addr->w[0]), 0, 0), word;
	__u32 at = list_scale(hash >> 32, q->set->num_net6);
	struct list_line *line;

	if (!used)
		return 0;
	line = list_line(q->table, q->set->net6 + (at >> 3));
	if (!line)
		return 0;
	word = line->w[at & 7];
	word = list_turn(word, hash) & list_turn(word, hash >> 6) & list_turn(word, hash >> 12);
	return used & ((__u32)word | LIST6_SHORT);
}

/*
 * list_find6 returns the verdict on an address. Those that are on no list mostly end before the first line, and
 * most of the others with it: a call and its return cost 5 ns where returns are guarded against speculation.
 */
static __always_inline __u32 list_find6(const struct list_query *q, __u32 outer)
{
	__u64 known = list_known6[q->set->slot & 1], found;
	__u32 classes = list_classes6(q, known), bit = classes & -classes, at, ref;
	struct list_line *line;
	struct list_key6 key;

	if (!classes)
		return known >> 32;
	at = list_key6(q, list_upper6(q->addr), list_lower6(q->addr), list_lowest(bit), &key);
	line = list_line(q->table, q->set->lines6 + at);
	if (!line)
		return REF_NONE;
	ref = list_slots6(line, &key, &at);
	if (ref)
		return ref;
	if (!at)
		classes ^= bit;
	for (int i = 0; i < LIST6_CALLS && classes; i++) {
		found = list_chains6(outer, classes);
		if ((__u32)found)
			return found;
		classes = found >> 32;
	}
	return known >> 32;
}

/* list_find returns the verdict on an address that needs more than net4. */
static __always_inline __u32 list_find(const struct list_query *q, __u32 outer)
{
	__u32 ref = REF_NONE;

	for (int i = 0; i < LIST_RETRIES; i++) {
		__u64 version = list_version;

		ref = q->family == 4 ? list_closer4(q, bpf_ntohl(q->addr->w[0]))
				     : list_find6(q, outer);
		if (list_version == version)
			break;
	}
	return ref;
}

#endif
