/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Everything both sides see: bpf2go turns it into the Go types of
 * internal/dataplane. The enums also stand in internal/traffic, under the same
 * numbers (tested there).
 */
#ifndef TYPES_H
#define TYPES_H

#include "kernel.h"

/* Why a packet ended as it did. Numbers are never reused. */
enum reason {
	REASON_PASS,
	REASON_ALLOWLIST,
	REASON_PROTECTED,
	REASON_NON_IP,
	REASON_ND,
	REASON_BYPASS,
	REASON_BLOCKLIST,
	REASON_SIGNATURE,
	REASON_CHALLENGE,
	REASON_LIMIT,
	REASON_MALFORMED,
	REASON_TRUNCATED,
	REASON_BAD_HEADER_LENGTH,
	REASON_LAND,
	REASON_ZERO_TTL,
	REASON_BAD_TCP_FLAGS,
	REASON_FRAGMENT_FIRST,
	REASON_FRAGMENT_LATER,
	REASON_FRAGMENT_TINY,
	REASON_EXTENSION_HEADERS,
	REASON_VLAN_DEPTH,
	REASON_TUNNEL_DEPTH,
	REASON_PREFIX_LIMIT,
	REASON_TARGET_LIMIT,
	NUM_REASONS,
};

/* What happened to it. */
enum outcome {
	OUTCOME_PASSED,
	OUTCOME_DROPPED,
	OUTCOME_WOULD_DROP,
	NUM_OUTCOMES,
};

/* Which rate limit it counts for, beside CLASS_ALL. */
enum class {
	CLASS_ALL,
	CLASS_SYN,
	CLASS_UDP,
	CLASS_ICMP,
	NUM_CLASSES,
};

/* Whose rate is limited. */
enum scope {
	SCOPE_SOURCE,
	SCOPE_PREFIX,
	SCOPE_TARGET,
	NUM_SCOPES,
};

enum fragment {
	FRAGMENT_NONE,
	FRAGMENT_FIRST,
	FRAGMENT_LATER,
};

/* Tunnels that are looked into: bits of the constant `tunnels`. */
enum tunnel {
	TUNNEL_IPIP = 1,
	TUNNEL_6IN4 = 2,
	TUNNEL_GRE = 4,
	TUNNEL_VXLAN = 8,
};

struct count {
	__u64 packets;
	__u64 bytes;
};

/* One per CPU: what is counted whatever the reason, and the samplers' state. */
struct totals {
	struct count seen;
	__u64 events_sent;
	__u64 events_lost; /* the ring was full */
	__u64 meters_evicted; /* buckets that found all places of their line in use */
	__u64 window_start; /* of the event budget, ns */
	__u32 window_used;
	__u32 next_latency; /* packets until the next sample of each kind */
	__u32 next_passed;
	__u32 next_dropped;
};

#define LATENCY_BUCKETS 256
#define LATENCY_WIDTH 16 /* ns */

struct latency {
	__u64 buckets[LATENCY_BUCKETS];
};

/*
 * What the lists say of a prefix and of all shorter ones that cover it: for each
 * list the time (CLOCK_MONOTONIC, ns) until which it says so; 0 never did, ~0
 * always will. User space folds the covering prefixes in, so that the longest
 * match alone answers, also when a longer entry ends before a shorter one. It never
 * changes a record that a packet may be at.
 */
struct source_value {
	__u64 blocked;
	__u64 forced; /* a block that wins over the protected set */
	__u64 allowed;
	__u64 protected;
};

#define METER_WAYS 4

/* Two leaky buckets of one source, prefix or target and one class: lib/bucket.h. */
struct meter_bucket {
	__u64 packets;
	__u64 bytes;
};

/* One cache line: all classes of a source have their buckets in the same one. */
struct meter_line {
	struct meter_bucket ways[METER_WAYS];
};

/*
 * A rate as the time one unit takes, in 1/4 ns·2^-16; 0: unlimited. That of a packet
 * is a multiple of 2^16.
 */
struct limit {
	__u64 packet_cost;
	__u64 byte_cost;
	__u64 burst; /* backlog that may build up */
};

/* Verdicts that need no record; the others are indices of a source_value. */
enum list_ref {
	REF_NONE,
	REF_BLOCKED, /* for ever */
	REF_ALLOWED, /* for ever */
	FIRST_REF,
};

/* How long a match the slot of an IPv4 line is. 0: there is nothing in the slot. */
enum list_code {
	CODE_24 = 1,
	CODE_32 = 9,
};

/* The kind of a slot is its verdict, enum list_ref, if that needs no record. */
enum list_kind {
	KIND_REF = 3, /* refs4 has the verdict */
	KIND_LEAF = 4, /* refs4 has the number of a leaf */
};

/*
 * The lists in force: which map, and where in it each table begins, in lines of
 * 64 bytes. lists.h says what the tables hold.
 */
struct list_set {
	__u64 seed6;
	__u32 seed4;
	__u32 slot; /* index into the outer map */
	__u32 net4;
	__u32 net4_mask; /* bits - 1 */
	__u32 short4; /* 0: no such table */
	__u32 lines4;
	__u32 num_lines4; /* that are hashed to; those for overflow come behind */
	__u32 refs4;
	__u32 leaves4;
	__u32 verdicts;
	__u32 net6;
	__u32 num_net6; /* words */
	__u32 lines6;
	__u32 num_lines6;
	__u32 num_short6; /* of them, that prefixes shorter than /32 are hashed to */
};

/* What a rule can constrain; the numbers are internal/signature's (tested). */
enum field {
	FIELD_PROTOCOL,
	FIELD_SOURCE_PORT,
	FIELD_DEST_PORT,
	FIELD_LENGTH,
	FIELD_TTL,
	FIELD_TCP_FLAGS,
	FIELD_DATA_OFFSET,
	FIELD_WINDOW,
	FIELD_ICMP_TYPE,
	FIELD_ICMP_CODE,
	FIELD_FRAGMENT,
	FIELD_DF,
	FIELD_INNER,
	NUM_FIELDS,
};

/* The fields of 16 bits: their values are sorted into classes first. */
enum wide_field {
	WIDE_SOURCE_PORT,
	WIDE_DEST_PORT,
	WIDE_LENGTH,
	WIDE_WINDOW,
	NUM_WIDE_FIELDS,
};

/* What a rule does with what it matches. */
enum action {
	ACTION_OBSERVE,
	ACTION_DROP,
	ACTION_LIMIT,
};

#define SIGNATURES 64 /* rules at once, one bit each in every set */
#define SIGNATURE_LINES (2 * SIGNATURES) /* a new rule does not count where the old one did */
#define SIGNATURE_WORDS 8 /* offsets of payload words */
#define WORD_BYTES 8
#define TARGET_BYTES (4 + 16) /* of IPv4 and of IPv6 */
#define FULL_CEILING 65536

/* What is done with packets that match the rule of one slot. */
struct signature {
	__u64 until; /* ns of now(); ~0: for ever */
	__u64 cost; /* of ACTION_LIMIT: ns·16 a packet */
	__u32 ceiling; /* share it may drop, in 1/FULL_CEILING */
	__u8 action;
	__u8 filter; /* 1 + index of the filter program; 0: none */
	__u8 line; /* of its statistics and its bucket */
	__u8 target_line; /* where the packets of its target are counted */
};

/* Where a payload word lies behind the layer-4 header, and who looks at its bytes. */
struct signature_word {
	__u32 offset;
	__u32 size; /* bytes that any rule looks at are in front of it */
	__u64 rules; /* that look at any of them */
	__u64 blind[WORD_BYTES]; /* rules that do not look at this byte */
};

/*
 * All rules at once. A set has the bits of the rules that accept a value; the packet
 * matches the rules that are in all of its sets.
 */
struct signatures {
	__u32 used; /* fields that a rule constrains, bits of enum field */
	__u32 used_targets; /* bytes of the destination, IPv4's first */
	__u32 num_words;
	__u32 pad;
	__u64 families[2]; /* IPv4, IPv6 */
	__u64 counted; /* one rule for every target under a ceiling */
	__u64 absent[NUM_FIELDS]; /* of packets that lack the field */
	struct signature_word words[SIGNATURE_WORDS];
	struct signature rules[SIGNATURES];
	__u64 fields[NUM_FIELDS][256]; /* of wide fields: by class */
	__u64 targets[TARGET_BYTES][256];
	__u64 payload[SIGNATURE_WORDS][WORD_BYTES][256];
	__u8 classes[NUM_WIDE_FIELDS][65536];
};

/* What a rule has done on one CPU. One cache line. */
struct signature_stats {
	__u64 matched;
	__u64 bytes;
	__u64 dropped;
	__u64 would_drop;
	__u64 over_ceiling;
	__u64 last_seen; /* ns of now() */
	__u64 second; /* when the counts below began */
	__u32 target_packets; /* in this second; on the target's line */
	__u32 dropped_packets; /* in this second */
};

/* Of all CPUs: when it is empty, in ns·16 (wraps after 36 years). A cache line of its own. */
struct signature_bucket {
	__u64 empty;
	__u64 pad[7];
};

/* Which set of rules is in force; rules 0: none, and nothing is looked at. */
struct rule_set {
	__u64 rules; /* slots that hold one */
	__u32 slot; /* index into the outer map */
	__u32 pad;
};

/* Knobs that change while packets flow. */
struct knobs {
	struct list_set lists;
	struct rule_set signatures;
	struct limit limits[2][NUM_SCOPES][NUM_CLASSES]; /* of others; of allowed sources */
	__u64 meter_reach; /* no backlog is longer than this, in 1/4 ns·2^-16 */
	__u32 meter_mask; /* lines of the meter less one */
	__u32 event_window_ns; /* the event budget: at most event_budget a window and CPU */
	__u32 event_budget;
	__u32 sample_passed; /* mean distance of sampled packets; 1: all; 0: none */
	__u32 sample_dropped;
	__u32 sample_latency;
	__u8 limited[2]; /* scopes, as bits, with a limit: for others; for allowed sources */
	__u8 listed; /* any list has an entry */
	__u8 observe;
	__u8 bypass;
	__u8 drop_malformed; /* policies: 1 drops */
	__u8 drop_first_fragments;
	__u8 drop_later_fragments;
	__u8 drop_tiny_fragments;
	__u8 drop_extension_headers;
	__u8 drop_vlan_depth;
	__u8 drop_tunnel_depth;
	__u8 pad[4];
};

/* A sampled packet. Addresses in network order, IPv4 in the first four bytes; the rest in host order. */
struct event {
	__u64 time; /* CLOCK_MONOTONIC, ns */
	__u32 ifindex;
	__u32 length;
	__u8 src[16];
	__u8 dst[16];
	__u16 src_port;
	__u16 dst_port;
	__u8 family; /* 0: no readable source; 4; 6 */
	__u8 protocol;
	__u8 tcp_flags;
	__u8 ttl;
	__u8 vlans;
	__u8 fragment;
	__u8 tunnel; /* 1: the addresses are an inner packet's */
	__u8 reason;
	__u8 outcome;
	__u8 pad[3];
};

/*
 * Windows: what is counted of each target, for the detector. A target has a slot; slot 0
 * is that of all packets whose target has none.
 */

/* 64 bytes of the table that finds a target's slot: words of {tag 48 | slot 16}. */
struct window_line {
	volatile __u64 words[8];
};

/* Whose address is hashed with which seed. */
enum window_seed {
	WINDOW_SEED_HOST, /* IPv4, then IPv6 */
	WINDOW_SEED_NETWORK = 2, /* the same */
	WINDOW_SEED_SOURCE = 4,
	WINDOW_SEED_PORT,
	WINDOW_SEED_FINGERPRINT,
	NUM_WINDOW_SEEDS,
};

/*
 * What kind of packet it is: exactly one, from whose counts those of protocols, flags and
 * reflection follow. TCP: four flags and the bits below.
 */
enum window_kind {
	WINDOW_OTHER,
	WINDOW_ICMP,
	WINDOW_UDP, /* and traffic.Reflection */
	WINDOW_TCP = 16, /* and FIN 1, SYN 2, RST 4, ACK 8 */
	WINDOW_TCP_DATA = 16, /* it carries data */
	WINDOW_TCP_BARE = 32, /* its data offset is 5: no options */
	WINDOW_KINDS = 80,
};

#define WINDOW_SIZES 8 /* of traffic.SizeClass, and one that stays 0 */
#define WINDOW_SOURCES 256
#define WINDOW_NETS 128
#define WINDOW_BINS 64 /* of ports, lengths and TTLs */
#define WINDOW_FINGERPRINTS 128

/*
 * One slot on one CPU. Counts only ever go up, modulo their width: the daemon takes
 * differences, so that reading races with nothing and nothing is ever set back.
 * A tick counts less in the histograms than their 16 bits hold.
 */
struct window_cell {
	__u64 bytes;
	__u64 dropped_bytes;
	__u32 sizes[WINDOW_SIZES];
	__u32 dropped;
	__u32 fragments;
	__u32 malformed;
	__u32 counted; /* in the histograms */

	/* Written by the daemon. */
	__u32 count_every; /* mean distance of packets in the histograms */
	__u32 sample_every; /* of samples; 0: none */
	__u32 limit; /* slot 0: samples of one slot in a tick, on this CPU */
	__u32 limit_all; /* slot 0: of all slots */

	/* How far the CPU is. */
	__u32 tick;
	__u32 tick_counted; /* in this tick */
	__u32 tick_sampled;
	__u32 tick_all; /* slot 0: sampled of all slots */
	__u32 count_left; /* packets until the next one that is counted, or sampled */
	__u32 sample_left;
	__u32 sampled;
	__u32 lost; /* the ring was full */
	__u64 random;
	__u64 pad;

	__u32 kinds[WINDOW_KINDS];
	__u16 sources[WINDOW_SOURCES];
	__u16 source_nets[WINDOW_NETS];
	__u16 source_ports[WINDOW_BINS];
	__u16 dest_ports[WINDOW_BINS];
	__u16 lengths[WINDOW_BINS];
	__u16 ttls[WINDOW_BINS];
	__u16 fingerprints[WINDOW_FINGERPRINTS];
	__u64 room[8]; /* 2 KiB in all: a shift finds it */
};

#define WINDOW_SAMPLE_BYTES 96

/* The beginning of a packet with what became of it. */
struct window_sample {
	struct event event;
	__u16 slot;
	__u16 ip_length;
	__u16 tcp_window;
	__u8 data_offset;
	__u8 df;
	__u32 captured; /* bytes of the header below */
	__u32 pad;
	__u8 header[WINDOW_SAMPLE_BYTES];
};

#endif
