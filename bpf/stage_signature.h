/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * signature: up to 64 rules on header fields, all at once. For every field that
 * some rule constrains, one look-up gives the set of rules that accept the packet's
 * value; the sets are ANDed. What is left matches, and acts in the order of slots.
 * The cost does not depend on the number of rules, and without any there is none.
 */
#ifndef STAGE_SIGNATURE_H
#define STAGE_SIGNATURE_H

#include "lib/shared_bucket.h"
#include "maps.h"
#include "pkt.h"

#define SIGNATURE_BURST (100000000ULL << SHARED_BUCKET_SHIFT) /* 100 ms */
#define SECOND 1000000000ULL

/* Farther than any header that was read and any word behind it: bounds the packet pointer. */
#define MAX_WORD_OFFSET 0x7fff

/* slot_of returns the number of the lowest bit, by de Bruijn's sequence. */
static const __u8 bit_numbers[64] = {
	0,  1,	48, 2,	57, 49, 28, 3,	61, 58, 50, 42, 38, 29, 17, 4,	62, 55, 59, 36, 53, 51,
	43, 22, 45, 39, 33, 30, 24, 18, 12, 5,	63, 47, 56, 27, 60, 41, 37, 16, 54, 35, 52, 21,
	44, 32, 23, 11, 46, 26, 40, 15, 34, 20, 31, 10, 25, 14, 19, 9,	13, 8,	7,  6,
};

static __always_inline __u32 slot_of(__u64 set)
{
	return bit_numbers[((set & -set) * 0x03f79d71b4cb0a89ULL) >> 58];
}

static __always_inline struct signatures *armed_signatures(const struct pkt *pkt)
{
	__u32 slot = knobs(pkt)->signatures.slot, zero = 0;
	void *table = bpf_map_lookup_elem(&signature_tables, &slot);

	return table ? bpf_map_lookup_elem(table, &zero) : NULL;
}

static __always_inline struct signature_stats *stats_of(__u32 line)
{
	return bpf_map_lookup_elem(&signature_counts, &line);
}

/* narrow returns the rules that accept `value` of a field of 8 bits. */
static __always_inline __u64 narrow(const struct signatures *s, enum field f, bool has, __u8 value)
{
	if (!(s->used & 1U << f))
		return ~0ULL;
	return has ? s->fields[f][value] : s->absent[f];
}

/* wide returns the rules that accept `value` of a field of 16 bits. */
static __always_inline __u64 wide(const struct signatures *s, enum field f, enum wide_field w,
				  bool has, __u16 value)
{
	__u64 at = value;

	if (!(s->used & 1U << f))
		return ~0ULL;
	/* 5.10 forgets what a comparison of 32 bits has told it; the barrier keeps the mask for it. */
	asm volatile("" : "+r"(at));
	at &= 0xffff;
	return has ? s->fields[f][s->classes[w][at]] : s->absent[f];
}

/* targeted returns the rules that accept family and destination: a prefix is a condition on each byte. */
static __always_inline __u64 targeted(const struct pkt *pkt, const struct signatures *s)
{
	const __u8 *dst = (const __u8 *)&pkt->dst;
	__u64 set;

	if (pkt->family == 4) {
		set = s->families[0];
		for (int i = 0; i < 4; i++)
			if (s->used_targets & 1U << i)
				set &= s->targets[i][dst[i]];
		return set;
	}
	set = s->families[1];
	for (int i = 0; i < 16; i++)
		if (s->used_targets & 16U << i)
			set &= s->targets[4 + i][dst[i]];
	return set;
}

static __always_inline __u64 of_headers(const struct pkt *pkt, const struct signatures *s)
{
	bool tcp = pkt->header == HEADER_TCP, icmp = pkt->header == HEADER_ICMP;
	bool ports = tcp || pkt->header == HEADER_UDP;
	bool ip = pkt->ip_length;
	__u16 length = pkt->ip_length > 65535 ? 65535 : pkt->ip_length;

	return narrow(s, FIELD_PROTOCOL, true, pkt->protocol) &
	       wide(s, FIELD_SOURCE_PORT, WIDE_SOURCE_PORT, ports, pkt->src_port) &
	       wide(s, FIELD_DEST_PORT, WIDE_DEST_PORT, ports, pkt->dst_port) &
	       wide(s, FIELD_LENGTH, WIDE_LENGTH, ip, length) &
	       narrow(s, FIELD_TTL, true, pkt->ttl) &
	       narrow(s, FIELD_TCP_FLAGS, tcp, pkt->tcp_flags) &
	       narrow(s, FIELD_DATA_OFFSET, tcp, pkt->data_offset) &
	       wide(s, FIELD_WINDOW, WIDE_WINDOW, tcp, pkt->window) &
	       narrow(s, FIELD_ICMP_TYPE, icmp, pkt->icmp_type) &
	       narrow(s, FIELD_ICMP_CODE, icmp, pkt->icmp_code) &
	       narrow(s, FIELD_FRAGMENT, true, pkt->fragment) &
	       narrow(s, FIELD_DF, ip && pkt->family == 4, pkt->df) &
	       narrow(s, FIELD_INNER, pkt->tunnel, pkt->protocol);
}

/* byte_at reads one byte of the frame, also behind its linear part; false: it is not there. */
static __always_inline bool byte_at(struct xdp_md *ctx, __u32 offset, __u8 *byte)
{
	void *end = (void *)(long)ctx->data_end;
	__u8 *p = (void *)(long)ctx->data;

	p += offset;
	if ((void *)(p + 1) <= end) {
		*byte = *p;
		return true;
	}
	return frags && !bpf_xdp_load_bytes(ctx, offset, byte, 1);
}

/*
 * gather reads the bytes from `offset` on that lie in front of `end`, WORD_BYTES of
 * them at most, and returns how many there are.
 */
static __always_inline __u32 gather(struct xdp_md *ctx, __u32 offset, __u32 end, __u8 *bytes)
{
	void *linear = (void *)(long)ctx->data_end;
	void *p = (void *)(long)ctx->data;
	__u32 n;

	if (offset > MAX_WORD_OFFSET)
		return 0;
	p += offset;
	if (p + WORD_BYTES <= linear && offset + WORD_BYTES <= end) {
		__builtin_memcpy(bytes, p, WORD_BYTES);
		return WORD_BYTES;
	}
	for (n = 0; n < WORD_BYTES; n++)
		if (offset + n >= end || !byte_at(ctx, offset + n, &bytes[n]))
			break;
	return n;
}

/*
 * match_word takes the rules that do not accept payload word `i` out of pkt->rules. A
 * global function, which the verifier checks once and not for each word; on 5.10 one
 * takes the context and numbers, and so looks up the packet again.
 */
__noinline int match_word(struct xdp_md *ctx, __u32 i)
{
	__u32 zero = 0, end, n, size;
	struct pkt *pkt = bpf_map_lookup_elem(&scratch, &zero);
	struct signatures *s = pkt ? armed_signatures(pkt) : NULL;
	__u8 bytes[WORD_BYTES] = {};
	struct signature_word *w;
	__u64 set = ~0ULL;

	if (!s)
		return 0;
	i &= SIGNATURE_WORDS - 1;
	w = &s->words[i];
	end = pkt->data_end < pkt->limit ? pkt->data_end : pkt->limit;
	n = pkt->data ? gather(ctx, pkt->data + w->offset, end, bytes) : 0;
	size = w->size;
	for (__u32 b = 0; b < WORD_BYTES && b < size; b++)
		set &= b < n ? s->payload[i][b][bytes[b]] : w->blind[b];
	pkt->rules &= set;
	return 0;
}

/* count_target counts the packet for the target of the rule of a slot. A global function, see match_word. */
__noinline int count_target(__u32 slot)
{
	__u32 zero = 0;
	struct pkt *pkt = bpf_map_lookup_elem(&scratch, &zero);
	struct signatures *s = pkt ? armed_signatures(pkt) : NULL;
	struct signature_stats *stats;
	__u64 time;

	if (!s)
		return 0;
	stats = stats_of(s->rules[slot & (SIGNATURES - 1)].line);
	if (!stats)
		return 0;
	time = now(pkt);
	if (time - stats->second >= SECOND) {
		stats->second = time;
		stats->target_packets = stats->dropped_packets = 0;
	}
	stats->target_packets++;
	return 0;
}

/*
 * count_targets counts the packet for every target under a ceiling that it is for. The
 * set is taken from the map: of one in a register the verifier would follow every way
 * on which it came to be.
 */
static __noinline void count_targets(struct pkt *pkt, __u64 counted)
{
	pkt->counting = pkt->rules & counted;
	for (int i = 0; i < SIGNATURES && pkt->counting; i++) {
		count_target(slot_of(pkt->counting));
		pkt->counting &= pkt->counting - 1;
	}
}

/* below_ceiling: with this packet too, the rule has dropped at most its share of this second. */
static __always_inline bool below_ceiling(const struct signature *rule, struct signature_stats *own)
{
	struct signature_stats *target;

	if (rule->ceiling >= FULL_CEILING)
		return true;
	target = stats_of(rule->target_line);
	if (!target)
		return false;
	if (own->second != target->second) {
		own->second = target->second;
		own->dropped_packets = 0;
	}
	if ((__u64)(own->dropped_packets + 1) * FULL_CEILING >
	    (__u64)target->target_packets * rule->ceiling)
		return false;
	own->dropped_packets++;
	return true;
}

/* over_rate: the rule limits, and the packet comes too early. */
static __always_inline bool over_rate(const struct signature *rule, __u64 time)
{
	__u32 line = rule->line;
	struct signature_bucket *bucket = bpf_map_lookup_elem(&signature_buckets, &line);

	return bucket && !shared_bucket_take(&bucket->empty, time << SHARED_BUCKET_SHIFT,
					     rule->cost, SIGNATURE_BURST);
}

/* wants_drop counts a packet that the rule matches, and returns whether it is to be dropped. */
static __always_inline bool wants_drop(const struct pkt *pkt, const struct signature *rule,
				       struct signature_stats *stats, __u64 time)
{
	stats->matched++;
	stats->bytes += pkt->length;
	stats->last_seen = time;
	if (rule->action == ACTION_LIMIT && !over_rate(rule, time))
		return false;
	if (rule->action == ACTION_OBSERVE) {
		stats->would_drop++;
		return false;
	}
	if (!below_ceiling(rule, stats)) {
		stats->would_drop++;
		stats->over_ceiling++;
		return false;
	}
	if (knobs(pkt)->observe)
		stats->would_drop++;
	else
		stats->dropped++;
	return true;
}

/*
 * The places of filters: tcpdump expressions that the fields cannot hold. The daemon
 * replaces the function by a program of its own (BPF_PROG_TYPE_EXT); until it has, and
 * when it has died, nothing matches. The barrier keeps clang from knowing the answer.
 */
#define FILTER(n)                                                                                  \
	__noinline int filter##n(struct xdp_md *ctx)                                               \
	{                                                                                          \
		int match = 0;                                                                     \
		asm volatile("" : "+r"(match), "+r"(ctx));                                         \
		return match;                                                                      \
	}

FILTER(0)
FILTER(1)
FILTER(2)
FILTER(3)
FILTER(4)
FILTER(5)
FILTER(6)
FILTER(7)

/* passes_filter runs the filter of the rule. */
static __always_inline bool passes_filter(struct xdp_md *ctx, __u8 filter)
{
	switch (filter) {
	case 0:
		return true;
	case 1:
		return filter0(ctx);
	case 2:
		return filter1(ctx);
	case 3:
		return filter2(ctx);
	case 4:
		return filter3(ctx);
	case 5:
		return filter4(ctx);
	case 6:
		return filter5(ctx);
	case 7:
		return filter6(ctx);
	case 8:
		return filter7(ctx);
	}
	return false;
}

/*
 * rule_drops has the rule of a slot, whose fields match, act on the packet. A global
 * function for the same reason as match_word: there are 64 slots.
 */
__noinline int rule_drops(struct xdp_md *ctx, __u32 slot)
{
	__u32 zero = 0;
	struct pkt *pkt = bpf_map_lookup_elem(&scratch, &zero);
	struct signatures *s = pkt ? armed_signatures(pkt) : NULL;
	struct signature_stats *stats;
	struct signature *rule;
	__u64 time;

	if (!s)
		return false;
	rule = &s->rules[slot & (SIGNATURES - 1)];
	stats = stats_of(rule->line);
	if (!stats)
		return false;
	time = now(pkt);
	if (time >= rule->until || !passes_filter(ctx, rule->filter))
		return false;
	return wants_drop(pkt, rule, stats, time);
}

/*
 * first_drop has the rules in pkt->rules act, lowest slot first, and returns whether one of
 * them drops.
 */
static __always_inline bool first_drop(struct xdp_md *ctx, struct pkt *pkt)
{
	for (int i = 0; i < SIGNATURES && pkt->rules; i++) {
		if (rule_drops(ctx, slot_of(pkt->rules)))
			return true;
		pkt->rules &= pkt->rules - 1;
	}
	return false;
}

static __always_inline int stage_signature(struct xdp_md *ctx, struct pkt *pkt)
{
	struct signatures *s;

	pkt->rules = knobs(pkt)->signatures.rules;
	if (!pkt->rules)
		return NEXT;
	s = armed_signatures(pkt);
	if (!s)
		return NEXT;
	pkt->rules &= targeted(pkt, s);
	if (pkt->rules & s->counted)
		count_targets(pkt, s->counted);
	pkt->rules &= of_headers(pkt, s);
	for (__u32 i = 0; i < SIGNATURE_WORDS && i < s->num_words; i++)
		if (pkt->rules & s->words[i].rules)
			match_word(ctx, i);
	if (!pkt->rules || !first_drop(ctx, pkt))
		return NEXT;
	pkt->reason = REASON_SIGNATURE;
	return XDP_DROP;
}

#endif
