/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * meter: leaky buckets per source, IPv4 /32 and IPv6 /64, for packets and bytes of
 * class all and of the packet's own class. It limits; it never puts a source on a
 * list. Two CPUs that meter one source at once may lose one of their updates: the
 * source then gets a packet more, which is cheaper than an atomic for every packet.
 */
#ifndef STAGE_METER_H
#define STAGE_METER_H

#include "lib/bucket.h"
#include "maps.h"
#include "pkt.h"
#include "wire.h"

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

/* take fills both buckets of one class in `next`; false: one of them is over. */
static __always_inline bool take(const struct pkt *pkt, __u64 time, const struct limit *limit,
				 const struct meter_bucket *bucket, struct meter_bucket *next)
{
	next->packets = bucket_take(bucket->packets, time, 1, limit->packet_cost, limit->burst);
	next->bytes = bucket_take(bucket->bytes, time, pkt->length, limit->byte_cost, limit->burst);
	return next->packets != BUCKET_OVER && next->bytes != BUCKET_OVER;
}

/* begin meters a source that was not there; without room for it, it passes and is counted. */
static __always_inline void begin(struct pkt *pkt, void *table, const struct meter_key *key,
				  const struct limit *limits, __u32 class)
{
	struct meter_value fresh = {};
	__u64 time = now(pkt);

	take(pkt, time, &limits[CLASS_ALL], &fresh.classes[CLASS_ALL], &fresh.classes[CLASS_ALL]);
	if (class != CLASS_ALL)
		take(pkt, time, &limits[class], &fresh.classes[class], &fresh.classes[class]);
	if (bpf_map_update_elem(table, key, &fresh, BPF_ANY))
		pkt->unmetered = 1;
}

static __always_inline int stage_meter(struct pkt *pkt)
{
	struct knobs *k = knobs(pkt);
	const struct limit *limits = pkt->allowed ? k->allowed_limits : k->limits;
	struct meter_key key = { .family = pkt->family };
	__u32 class = class_of(pkt) & (NUM_CLASSES - 1);
	struct meter_bucket all, own = {};
	struct meter_value *value;
	__u32 zero = 0;
	__u64 time;
	void *table;

	if (!k->limited)
		return NEXT;
	table = bpf_map_lookup_elem(&meters, &zero);
	if (!table)
		return NEXT;
	key.prefix[0] = pkt->src.w[0];
	key.prefix[1] = pkt->src.w[1];
	value = bpf_map_lookup_elem(table, &key);
	if (!value) {
		begin(pkt, table, &key, limits, class);
		return NEXT;
	}
	time = now(pkt);
	if (!take(pkt, time, &limits[CLASS_ALL], &value->classes[CLASS_ALL], &all) ||
	    (class != CLASS_ALL &&
	     !take(pkt, time, &limits[class], &value->classes[class], &own))) {
		pkt->reason = REASON_LIMIT;
		return XDP_DROP;
	}
	value->classes[CLASS_ALL] = all;
	if (class != CLASS_ALL)
		value->classes[class] = own;
	return NEXT;
}

#endif
