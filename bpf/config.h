/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Configuration. Constants are fixed when the program is loaded, and what they
 * switch off is pruned by the verifier; `knob_sets` change while packets flow.
 */
#ifndef CONFIG_H
#define CONFIG_H

#include "types.h"
#include <bpf/bpf_helpers.h>

/* Multi-buffer frames (xdp.frags, 5.18): their length needs a helper older kernels lack. */
volatile const bool frags = false;

/* Tunnels that are looked into, bits of enum tunnel. */
volatile const __u32 tunnels = 0;

/* Of the meter's hash, drawn at each load: for each scope, of IPv4 and of IPv6. */
volatile const __u64 meter_seeds[2 * NUM_SCOPES] = {};

/* Replay: the clock is replay_now, and the verdict is left in replay_verdict. */
volatile const bool replay = false;

/* Nobody reads it: it keeps in the object's BTF the types that only Go names. */
volatile const struct go_types {
	enum reason reason;
	enum outcome outcome;
	enum class class;
	enum scope scope;
	enum fragment fragment;
	enum tunnel tunnel;
	struct signatures signatures[0];
	enum field field;
	enum wide_field wide_field;
	enum action action;
	enum list_ref list_ref;
	enum list_code list_code;
	enum list_kind list_kind;
	struct meter_line meter_line;
	struct source_value source_value;
} go_types = {};

/* User space writes the idle set and then flips: a packet sees the old set or the new. */
volatile struct knobs knob_sets[2] = {};
volatile __u32 active_knobs = 0;

/* list_set.slot → low: length classes of IPv6 in use; high: verdict of ::/0. */
volatile __u64 list_known6[2] = {};

/* Counted up with every change to the lists in place. */
volatile __u64 list_version = 0;

volatile __u64 replay_now SEC(".data.replay") = 0;
struct event replay_verdict SEC(".data.replay") = {};

#endif
