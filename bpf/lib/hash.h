/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A hash of 64 bits for keys that senders choose. It is as strong as the seed is
 * secret: user space draws it anew whenever the program is loaded.
 */
#ifndef LIB_HASH_H
#define LIB_HASH_H

#include <bpf/bpf_helpers.h>

/* hash_mix spreads every bit of x over all others (the finalizer of splitmix64); no two x give the same. */
static __always_inline __u64 hash_mix(__u64 x)
{
	x ^= x >> 30;
	x *= 0xbf58476d1ce4e5b9ULL;
	x ^= x >> 27;
	x *= 0x94d049bb133111ebULL;
	return x ^ x >> 31;
}

#endif
