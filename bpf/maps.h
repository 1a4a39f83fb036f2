/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Every map. The loader sets the sizes from the configuration and creates what
 * is not in use at its minimum.
 */
#ifndef MAPS_H
#define MAPS_H

#include "pkt.h"
#include <bpf/bpf_helpers.h>

/* 0 → the packet this CPU is at. XDP runs in softirq, one packet at a time. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct pkt);
} scratch SEC(".maps");

/* Written by the packet path, read by the daemon. */

/* 0 → counters and samplers of this CPU. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct totals);
} totals SEC(".maps");

/* reason · NUM_OUTCOMES + outcome → packets and bytes on this CPU. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, NUM_REASONS * NUM_OUTCOMES);
	__type(key, __u32);
	__type(value, struct count);
} reasons SEC(".maps");

/* 0 → histogram of sampled verdict latencies on this CPU. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct latency);
} latency SEC(".maps");

/* Sampled packets. Full: the event is lost and counted in totals.events_lost. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 256 * 1024);
	__type(value, struct event);
} samples SEC(".maps");

/*
 * 0 → line → leaky buckets. The daemon puts a table of the configured size in place
 * when limits are switched on, and refreshes in it what has long been empty.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__array(values, struct {
		__uint(type, BPF_MAP_TYPE_ARRAY);
		__uint(map_flags, BPF_F_MMAPABLE | BPF_F_INNER_MAP);
		__uint(max_entries, 1);
		__uint(key_size, sizeof(__u32));
		__uint(value_size, sizeof(struct meter_line));
	});
} meters SEC(".maps");

/* 64 bytes, one cache line: all that the tables of the lists are made of. */
struct list_line {
	volatile __u64 w[8];
};

/*
 * Written by the daemon through shared memory, read by the packet path: all tables of a set of
 * lists, one behind the other (lists.h). Single entries change in place; a whole
 * list is built in a new map in the other slot, and put in force with the knobs.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 2);
	__uint(key_size, sizeof(__u32));
	__array(values, struct {
		__uint(type, BPF_MAP_TYPE_ARRAY);
		__uint(map_flags, BPF_F_MMAPABLE | BPF_F_INNER_MAP);
		__uint(max_entries, 1);
		__uint(key_size, sizeof(__u32));
		__uint(value_size, sizeof(struct list_line));
	});
} lists SEC(".maps");

/*
 * rule_set.slot → all rules, one value. The daemon builds a new one, puts it into
 * the idle slot, and the knobs flip to it. Empty while no rule is armed.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 2);
	__uint(key_size, sizeof(__u32));
	__array(values, struct {
		__uint(type, BPF_MAP_TYPE_ARRAY);
		__uint(max_entries, 1);
		__uint(key_size, sizeof(__u32));
		__uint(value_size, sizeof(struct signatures));
	});
} signature_tables SEC(".maps");

/* signature.line → what the rule has done on this CPU. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SIGNATURE_LINES);
	__type(key, __u32);
	__type(value, struct signature_stats);
} signature_counts SEC(".maps");

/* signature.line → the bucket of a rule that limits. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SIGNATURE_LINES);
	__type(key, __u32);
	__type(value, struct signature_bucket);
} signature_buckets SEC(".maps");

/* Hash of a target → its slot. Written by the daemon through shared memory. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct window_line);
} window_targets SEC(".maps");

/* CPU · window_slots + slot → what is counted there. Read by the daemon through shared memory. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct window_cell);
} window_cells SEC(".maps");

/* Sampled headers. Full: the sample is lost and counted in its cell. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
	__type(value, struct window_sample);
} window_samples SEC(".maps");

#endif
