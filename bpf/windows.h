/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * windows: what the detector is told of each target: exact counters, hashed histograms
 * and a sample of headers (docs/decisions/0011). Every packet with a readable destination
 * updates exactly one cell, that of its host on this CPU; of its network where the host has
 * no slot; of slot 0 where neither has. The daemon adds them up.
 *
 * Nothing here waits for the daemon: if it stalls, samples and histograms stop at
 * the limits of the tick, and counters go on.
 */
#ifndef WINDOWS_H
#define WINDOWS_H

#include "event.h"
#include "lib/hash.h"
#include "maps.h"
#include "wire.h"

/* Constants, fixed when the program is loaded. */
volatile const bool windows = false;
volatile const __u32 window_slots = 1;
volatile const __u32 window_rows = 1;
volatile const bool window_shared = false; /* more CPUs than rows: they count with atomics */
volatile const __u32 window_mask = 0; /* lines of window_targets less one, at most 65535 */
volatile const __u32 window_most = 32768; /* packets of a cell in the histograms in a tick */
volatile const __u64 window_seeds[NUM_WINDOW_SEEDS] = {};

/* Nobody reads it: it keeps in the object's BTF the types that only Go names. */
volatile const struct window_types {
	enum window_seed seed;
	enum window_kind kind;
} window_types = {};

/* The daemon counts it up with every tick. */
volatile __u32 window_tick = 0;

/* window_row returns the place of this CPU's first cell. */
static __always_inline __u32 window_row(void)
{
	__u32 row = bpf_get_smp_processor_id();

	if (window_shared)
		row %= window_rows;
	return row * window_slots;
}

static __always_inline __u64 window_hash(__u32 seed, __u32 high, __u32 low)
{
	return hash_mix(window_seeds[seed] ^ ((__u64)high << 32 | low));
}

/*
 * window_find returns the slot that the table has for a hash; 0: none. The lower 16 bits choose the line, the
 * others are the tag. Without a branch, each of which the verifier follows to the end; no two words of a line
 * have the same tag.
 */
static __always_inline __u32 window_find(__u64 hash)
{
	__u32 at = hash & window_mask;
	struct window_line *line = bpf_map_lookup_elem(&window_targets, &at);
	__u64 slot = 0;

	if (!line)
		return 0;
#pragma unroll
	for (int i = 0; i < 8; i++) {
		__u64 word = line->words[i];
		__u64 differs =
			(word ^ hash) >> 16; /* below 2^48: 0 less one has the upper bits set */

		slot |= word & (differs - 1) >> 48;
	}
	return slot;
}

/* window_slot: the host's, else that of its /24 or /48. */
static __always_inline __u32 window_slot(const struct pkt *pkt)
{
	bool six = pkt->family == 6;
	__u32 high = pkt->dst.w[0], low = pkt->dst.w[1], slot;
	__u64 hash = window_hash(WINDOW_SEED_HOST + six, high, low);

	if (six)
		hash = hash_mix(hash ^ ((__u64)pkt->dst.w[2] << 32 | pkt->dst.w[3]));
	slot = window_find(hash);
	if (slot)
		return slot;
	high &= six ? ~0U : bpf_htonl(0xffffff00);
	low &= bpf_htonl(0xffff0000);
	return window_find(window_hash(WINDOW_SEED_NETWORK + six, high, low));
}

/* window_below returns 1 if a is less than b, else 0, without a branch. Both are below 2^63. */
static __always_inline __u32 window_below(__u64 a, __u64 b)
{
	return (a - b) >> 63;
}

/* window_size returns the traffic.SizeClass of an IP length. */
static __always_inline __u32 window_size(__u32 length)
{
	return 6 - window_below(length, 64) - window_below(length, 128) -
	       window_below(length, 256) - window_below(length, 512) - window_below(length, 1024) -
	       window_below(length, 1500);
}

/*
 * window_reflection returns the traffic.Reflection of a UDP source port. The factor was
 * looked for until no two of the ports shared a place.
 */
static __always_inline __u32 window_reflection(__u16 port)
{
	static const struct {
		__u16 port;
		__u16 service;
	} table[32] = {
		[1] = { 3389, 10 },   [2] = { 4500, 8 },    [3] = { 500, 8 },	[4] = { 3283, 10 },
		[6] = { 27015, 10 },  [7] = { 5353, 10 },   [9] = { 137, 10 },	[10] = { 389, 4 },
		[12] = { 10001, 10 }, [13] = { 1194, 10 },  [14] = { 1900, 5 }, [15] = { 11211, 6 },
		[18] = { 123, 2 },    [19] = { 19, 7 },	    [20] = { 69, 10 },	[21] = { 17, 10 },
		[22] = { 5683, 10 },  [23] = { 520, 10 },   [25] = { 111, 9 },	[26] = { 161, 3 },
		[27] = { 3702, 10 },  [28] = { 37810, 10 }, [30] = { 53, 1 },
	};
	__u32 at = (port * 0xfaf10fc7U) >> 27;

	return table[at].port == port ? table[at].service : 0;
}

static __always_inline __u32 window_kind(const struct pkt *pkt)
{
	__u32 flags = pkt->tcp_flags;

	switch (pkt->protocol) {
	case PROTO_TCP:
		return WINDOW_TCP + ((flags & (TCP_FIN | TCP_SYN | TCP_RST)) |
				     (flags & TCP_ACK) >> 1 |
				     window_below(pkt->data, pkt->data_end) * WINDOW_TCP_DATA |
				     (pkt->data_offset == 5) * WINDOW_TCP_BARE);
	case PROTO_UDP:
		return WINDOW_UDP + window_reflection(pkt->src_port);
	case PROTO_ICMP:
	case PROTO_ICMP6:
		return WINDOW_ICMP;
	}
	return WINDOW_OTHER;
}

/* window_add counts exactly, also where CPUs share a cell. */
static __always_inline void window_add(__u32 *count, __u32 n)
{
	if (window_shared)
		__sync_fetch_and_add(count, n);
	else
		*count += n;
}

static __always_inline void window_add_bytes(__u64 *count, __u32 bytes)
{
	if (window_shared)
		__sync_fetch_and_add(count, bytes);
	else
		*count += bytes;
}

static __always_inline void window_counters(struct window_cell *cell, const struct pkt *pkt,
					    __u32 size, __u32 dropped)
{
	__u32 kind = window_kind(pkt);

	window_add_bytes(&cell->bytes, pkt->length);
	window_add(&cell->sizes[size & (WINDOW_SIZES - 1)], 1);
	if (kind < WINDOW_KINDS)
		window_add(&cell->kinds[kind], 1);
	/* Without a branch: the verifier would follow each to the end. */
	window_add(&cell->fragments, !!pkt->fragment);
	window_add(&cell->malformed, !!pkt->anomaly);
	window_add(&cell->dropped, dropped);
	window_add_bytes(&cell->dropped_bytes, pkt->length & -dropped);
}

/* window_fingerprint hashes what tells one sender's program from another's. */
static __always_inline __u32 window_fingerprint(const struct pkt *pkt, __u32 size)
{
	__u32 low = pkt->protocol | pkt->tcp_flags << 8 | pkt->data_offset << 16 | pkt->df << 20 |
		    pkt->fragment << 21 | size << 24 | (__u32)(pkt->ttl >> 5) << 28;

	return window_hash(WINDOW_SEED_FINGERPRINT, pkt->window, low);
}

static __always_inline void window_histograms(struct window_cell *cell, const struct pkt *pkt,
					      __u32 size)
{
	bool six = pkt->family == 6;
	__u32 high = pkt->src.w[0], low = pkt->src.w[1];
	__u32 length = pkt->ip_length / 24;

	cell->sources[window_hash(WINDOW_SEED_SOURCE, high, low) & (WINDOW_SOURCES - 1)]++;
	high &= six ? ~0U : bpf_htonl(0xffffff00);
	low &= bpf_htonl(0xffff0000);
	cell->source_nets[window_hash(WINDOW_SEED_SOURCE, high, low) & (WINDOW_NETS - 1)]++;
	if (pkt->header == HEADER_TCP || pkt->header == HEADER_UDP) {
		high = window_hash(WINDOW_SEED_PORT, 0, pkt->src_port);
		low = window_hash(WINDOW_SEED_PORT, 0, pkt->dst_port);
		cell->source_ports[high & (WINDOW_BINS - 1)]++;
		cell->dest_ports[low & (WINDOW_BINS - 1)]++;
	}
	if (length >= WINDOW_BINS)
		length = WINDOW_BINS - 1;
	barrier_var(length);
	cell->lengths[length & (WINDOW_BINS - 1)]++;
	cell->ttls[pkt->ttl >> 2]++;
	cell->fingerprints[window_fingerprint(pkt, size) & (WINDOW_FINGERPRINTS - 1)]++;
	cell->counted++;
}

static __always_inline void window_renew(struct window_cell *cell)
{
	__u32 tick = window_tick;

	if (cell->tick == tick)
		return;
	cell->tick = tick;
	cell->tick_counted = cell->tick_sampled = cell->tick_all = 0;
}

/* window_later reports whether others come before the next packet that is taken. */
static __always_inline bool window_later(__u32 left, __u32 every)
{
	return left > 1 && left < 2 * every;
}

/*
 * window_due counts down to the next packet that is taken, and draws the distance to the
 * one after it with mean `every`. A distance of when `every` was longer does not hold.
 */
static __always_inline bool window_due(struct window_cell *cell, __u32 *left, __u32 every)
{
	if (window_later(*left, every)) {
		(*left)--;
		return false;
	}
	*left = 1;
	if (every > 1) {
		cell->random += 0x9e3779b97f4a7c15ULL;
		*left += (__u32)hash_mix(cell->random) % (2 * every - 1);
	}
	return true;
}

/* window_header copies the beginning of the frame and returns how much of it. */
static __always_inline __u32 window_header(struct xdp_md *ctx, const struct pkt *pkt, __u8 *to)
{
	__u64 last = pkt->length - 1U;

	if (last >= WINDOW_SAMPLE_BYTES)
		last = WINDOW_SAMPLE_BYTES - 1;
	/*
	 * 6.1 wants to see that the size is neither 0 nor too large, and of a number
	 * remembers what that number was compared with, not another one less.
	 */
	barrier_var(last);
	if (last >= WINDOW_SAMPLE_BYTES)
		return 0;
	if (frags)
		return bpf_xdp_load_bytes(ctx, 0, to, last + 1) ? 0 : last + 1;
	for (__u32 i = 0; i < WINDOW_SAMPLE_BYTES; i++) {
		__u8 *byte = at(ctx, i, 1);

		if (!byte)
			return i;
		to[i] = *byte;
	}
	return WINDOW_SAMPLE_BYTES;
}

static __always_inline void window_describe(struct window_sample *s, struct xdp_md *ctx,
					    const struct pkt *pkt, __u32 slot, __u8 outcome)
{
	s->event.time = replay ? replay_now : bpf_ktime_get_ns();
	describe(&s->event, ctx, pkt, outcome);
	s->slot = slot;
	s->ip_length = pkt->ip_length > 65535 ? 65535 : pkt->ip_length;
	s->tcp_window = pkt->window;
	s->data_offset = pkt->data_offset;
	s->df = pkt->df;
	s->pad = 0;
	s->captured = window_header(ctx, pkt, s->header);
}

/* window_sample hands a packet to the daemon, if neither the slot nor all of them have had their share. */
static __always_inline void window_sample(struct xdp_md *ctx, const struct pkt *pkt, __u32 row,
					  __u32 slot, struct window_cell *cell, __u8 outcome)
{
	struct window_cell *first = bpf_map_lookup_elem(&window_cells, &row);
	struct window_sample *s;

	if (!first)
		return;
	window_renew(first);
	if (cell->tick_sampled >= first->limit || first->tick_all >= first->limit_all)
		return;
	cell->tick_sampled++;
	first->tick_all++;
	s = bpf_ringbuf_reserve(&window_samples, sizeof(*s), 0);
	if (!s) {
		cell->lost++;
		return;
	}
	window_describe(s, ctx, pkt, slot, outcome);
	bpf_ringbuf_submit(s, BPF_RB_NO_WAKEUP);
	cell->sampled++;
}

/*
 * window_details does for some packets what is not done for all. It is global so that the verifier
 * goes through it once, whatever way the packet came.
 */
__noinline int window_details(struct xdp_md *ctx, __u32 outcome, __u32 slot)
{
	__u32 zero = 0, row = window_row(), key = row + slot, size;
	struct pkt *pkt = bpf_map_lookup_elem(&scratch, &zero);
	struct window_cell *cell = bpf_map_lookup_elem(&window_cells, &key);

	if (!pkt || !cell)
		return 0;
	size = window_size(pkt->ip_length);
	if (window_due(cell, &cell->count_left, cell->count_every) &&
	    cell->tick_counted < window_most) {
		cell->tick_counted++;
		window_histograms(cell, pkt, size);
	}
	if (cell->sample_every && window_due(cell, &cell->sample_left, cell->sample_every))
		window_sample(ctx, pkt, row, slot, cell, outcome);
	return 0;
}

static __always_inline void window_count(struct xdp_md *ctx, const struct pkt *pkt, __u8 outcome)
{
	__u32 slot = window_slot(pkt), key = window_row() + slot;
	struct window_cell *cell = bpf_map_lookup_elem(&window_cells, &key);

	if (!cell)
		return;
	window_counters(cell, pkt, window_size(pkt->ip_length), outcome != OUTCOME_PASSED);
	window_renew(cell);
	/* Most packets of a flood only count down to the next that is taken: a call is saved. */
	if (window_later(cell->count_left, cell->count_every) &&
	    (!cell->sample_every || window_later(cell->sample_left, cell->sample_every))) {
		cell->count_left--;
		cell->sample_left -= !!cell->sample_every;
		return;
	}
	window_details(ctx, outcome, slot);
}

#endif
