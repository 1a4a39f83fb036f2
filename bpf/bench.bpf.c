// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * What the benchmarks need: a program that gives every test packet another source
 * and hands it on, and the things we are compared with. No part of the packet path.
 */
#include "kernel.h"
#include "lib/hash.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

#define BPF_MAP_TYPE_PROG_ARRAY 3
#define ETHERTYPE_IPV4 0x0800
#define SOURCE4 26 /* offsets behind an Ethernet header without tags */
#define SOURCE6 22
#define SECOND 1000000000ULL
#define TC_OK 0
#define TC_SHOT 2

/* The fields of include/uapi/linux/bpf.h up to the ones that are read. */
struct __sk_buff {
	__u32 before[19];
	__u32 data;
	__u32 data_end;
};

/* Which sources the packets have: index → address is the same on both sides. */
__u64 packets; /* so far: no index comes twice where every source is new */
__u32 first_source;
__u32 source_count; /* 0: every source is new */
__u32 family;

/* 0 → the program that is measured. */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
} next SEC(".maps");

/* A permutation of 32 bits: different indices are different addresses. */
static __always_inline __u32 mix32(__u32 x)
{
	x = (x ^ (x >> 16)) * 0x7feb352d;
	x = (x ^ (x >> 15)) * 0x846ca68b;
	return x ^ (x >> 16);
}

/* The upper half of an IPv6 source, in 2000::/3; the lower is hash_mix of it. */
static __always_inline __u64 network6(__u32 index)
{
	return (hash_mix(index + 1ULL) & ~0xe0ULL) | 0x20;
}

static __always_inline void write_source(__u8 *frame, __u32 index)
{
	__u64 halves[2];

	if (family == 4) {
		*(__u32 *)(frame + SOURCE4) = mix32(index);
		return;
	}
	halves[0] = network6(index);
	halves[1] = hash_mix(halves[0]);
	__builtin_memcpy(frame + SOURCE6, halves, sizeof(halves));
}

SEC("xdp")
int stir(struct xdp_md *ctx)
{
	__u8 *frame = (__u8 *)(long)ctx->data;
	__u8 *end = (__u8 *)(long)ctx->data_end;
	__u32 index = packets++;

	if (frame + SOURCE6 + 16 > end)
		return XDP_ABORTED;
	if (source_count)
		index = ((__u64)mix32(index) * source_count) >> 32;
	write_source(frame, first_source + index);
	bpf_tail_call(ctx, &next, 0);
	return XDP_ABORTED;
}

SEC("xdp")
int drop(struct xdp_md *ctx)
{
	return XDP_DROP;
}

/* drop, but for frames that are not the flood's: told by their length, so that no packet is read. */
SEC("xdp")
int drop_smallest(struct xdp_md *ctx)
{
	return ctx->data_end - ctx->data == 60 ? XDP_DROP : XDP_PASS;
}

/*
 * The tutorial's firewall: the block list in an LPM trie, packets a second and
 * source in an LRU hash.
 */
struct prefix_key {
	__u32 length;
	__be32 addr;
};

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__type(key, struct prefix_key);
	__type(value, __u32);
} prefixes SEC(".maps");

struct rate {
	__u64 since;
	__u64 packets;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, __be32);
	__type(value, struct rate);
} rates SEC(".maps");

const volatile __u64 rate_limit = 0; /* packets a second and source; 0: none */
__u64 dropped;

static __always_inline bool listed(__be32 source)
{
	struct prefix_key key = { .length = 32, .addr = source };

	return bpf_map_lookup_elem(&prefixes, &key);
}

static __always_inline bool over_limit(__be32 source)
{
	struct rate *r = bpf_map_lookup_elem(&rates, &source);
	__u64 now = bpf_ktime_get_ns();
	struct rate fresh = { now, 1 };

	if (!r) {
		bpf_map_update_elem(&rates, &source, &fresh, BPF_ANY);
		return false;
	}
	if (now - r->since >= SECOND) {
		*r = fresh;
		return false;
	}
	return ++r->packets > rate_limit;
}

/* source4 returns an IPv4 packet's source, 0 for others. */
static __always_inline __be32 source4(void *frame, void *end)
{
	if (frame + 34 > end || *(__be16 *)(frame + 12) != bpf_htons(ETHERTYPE_IPV4))
		return 0;
	return *(__be32 *)(frame + SOURCE4);
}

SEC("xdp")
int tutorial(struct xdp_md *ctx)
{
	__be32 source = source4((void *)(long)ctx->data, (void *)(long)ctx->data_end);

	if (!source)
		return XDP_PASS;
	if (listed(source) || (rate_limit && over_limit(source))) {
		dropped++;
		return XDP_DROP;
	}
	return XDP_PASS;
}

/* The list alone, as a classifier of tc. */
SEC("tc")
int classify(struct __sk_buff *skb)
{
	__be32 source = source4((void *)(long)skb->data, (void *)(long)skb->data_end);

	return source && listed(source) ? TC_SHOT : TC_OK;
}

char _license[] SEC("license") = "Dual BSD/GPL";
