/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Leaky bucket by the generic cell rate algorithm (ITU-T I.371) in one word: the
 * time at which the bucket is empty again, in 1/4 ns modulo 2^48 (19.5 hours), above
 * a tag of 16 bits that says whose it is. All else that measures time here has the
 * same form: 1/4 ns in the upper 48 bits. Time comes in; no map, no clock.
 */
#ifndef LIB_BUCKET_H
#define LIB_BUCKET_H

#include <bpf/bpf_helpers.h>

#define BUCKET_TAG 0xffffULL

/* bucket_clock gives a time in ns the form of a word. */
static __always_inline __u64 bucket_clock(__u64 ns)
{
	return ns << (2 + 16);
}

/*
 * bucket_over reports whether `word` takes longer than `burst` to run empty. What is
 * further ahead than `reach` was not put there: the time has gone round, or the
 * limits were larger. That is empty, too.
 *
 * Here and below one subtraction modulo 2^64 does for several comparisons: the
 * verifier follows each branch.
 */
static __always_inline bool bucket_over(__u64 word, __u64 clock, __u64 burst, __u64 reach)
{
	return word - clock - burst - 1 < reach - burst;
}

/* bucket_busy reports whether there is anything in the bucket. */
static __always_inline bool bucket_busy(__u64 word, __u64 clock, __u64 reach)
{
	return bucket_over(word, clock, 0, reach);
}

/* bucket_rank orders buckets by the time at which they are empty, soonest first. */
static __always_inline __u64 bucket_rank(__u64 word, __u64 clock, __u64 reach)
{
	return word - clock - reach - 1;
}

/* bucket_begin returns an empty bucket with `cost` in it. The cost leaves the tag alone. */
static __always_inline __u64 bucket_begin(__u16 tag, __u64 clock, __u64 cost)
{
	return (clock | tag) + cost;
}

#endif
