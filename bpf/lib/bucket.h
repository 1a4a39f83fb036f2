/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Leaky bucket by the generic cell rate algorithm (ITU-T I.371): one number, the
 * time at which the bucket will be empty. Time comes in; no map, no clock.
 */
#ifndef LIB_BUCKET_H
#define LIB_BUCKET_H

#include <bpf/bpf_helpers.h>

#define BUCKET_OVER (~0ULL)

/*
 * bucket_take adds `units` of `cost` (ns·2^16 each) to the bucket that is empty at
 * `empty`, and returns when it is empty then, or BUCKET_OVER if its backlog exceeds `burst`.
 * cost 0: no limit, the bucket stays as it is. Idle hours leave an empty bucket.
 */
static __always_inline __u64 bucket_take(__u64 empty, __u64 now, __u64 units, __u64 cost,
					 __u64 burst)
{
	if (empty < now)
		empty = now;
	if (cost && empty - now > burst)
		return BUCKET_OVER;
	return empty + ((units * cost) >> 16);
}

#endif
