/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Leaky bucket that all CPUs fill (GCRA, as lib/bucket.h). Times are in ns·16,
 * modulo 2^64. A packet is added without reading what others add: they may let one
 * packet each pass at once, and all of them are paid for by the next ones.
 */
#ifndef LIB_SHARED_BUCKET_H
#define LIB_SHARED_BUCKET_H

#include <bpf/bpf_helpers.h>

#define SHARED_BUCKET_SHIFT 4

/* shared_bucket_take adds `cost`; false: the backlog exceeds `burst`, nothing is added. */
static __always_inline bool shared_bucket_take(__u64 *empty, __u64 now, __u64 cost, __u64 burst)
{
	__s64 backlog = *(volatile __u64 *)empty - now;

	if (backlog > (__s64)burst)
		return false;
	/* Only a bucket that has run empty is set: what races with it is a packet for free. */
	if (backlog < 0)
		*(volatile __u64 *)empty = now + cost;
	else
		__sync_fetch_and_add(empty, cost);
	return true;
}

#endif
