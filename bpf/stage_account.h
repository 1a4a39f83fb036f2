/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * account: the only exit. Counts the packet under its one reason and outcome, takes
 * samples within the budget, and turns drops into passes in observe mode. All
 * counters are per CPU and XDP runs in softirq: no atomics.
 */
#ifndef STAGE_ACCOUNT_H
#define STAGE_ACCOUNT_H

#include "event.h"
#include "maps.h"
#include "pkt.h"
#include "windows.h"

/*
 * due counts down to the next sample, and draws the distance to the one after it
 * at random with mean `every`, so that no sender can step around the samples. The
 * first packet of all only starts it: its latency is that of cold caches.
 */
static __always_inline bool due(__u32 *left, __u32 every)
{
	bool fire = *left == 1;

	if (!every)
		return false;
	if (*left > 1) {
		(*left)--;
		return false;
	}
	*left = 1 + bpf_get_prandom_u32() % (2 * every - 1);
	return fire;
}

/* within_budget: at most event_budget events a window and CPU. */
static __always_inline bool within_budget(const struct knobs *k, struct totals *t, __u64 time)
{
	if (time - t->window_start >= k->event_window_ns) {
		t->window_start = time;
		t->window_used = 0;
	}
	if (t->window_used >= k->event_budget)
		return false;
	t->window_used++;
	return true;
}

static __always_inline void sample(struct xdp_md *ctx, struct pkt *pkt, struct totals *t,
				   __u8 outcome)
{
	struct knobs *k = knobs(pkt);
	bool passed = outcome == OUTCOME_PASSED;
	struct event *e;
	__u64 time;

	if (!due(passed ? &t->next_passed : &t->next_dropped,
		 passed ? k->sample_passed : k->sample_dropped))
		return;
	time = bpf_ktime_get_ns();
	if (!within_budget(k, t, time))
		return;
	e = bpf_ringbuf_reserve(&samples, sizeof(*e), 0);
	if (!e) {
		t->events_lost++;
		return;
	}
	e->time = time;
	describe(e, ctx, pkt, outcome);
	bpf_ringbuf_submit(e, 0);
	t->events_sent++;
}

static __always_inline void record_latency(const struct pkt *pkt)
{
	__u32 zero = 0;
	struct latency *l = bpf_map_lookup_elem(&latency, &zero);
	__u64 bucket = (bpf_ktime_get_ns() - pkt->started) / LATENCY_WIDTH;

	if (bucket >= LATENCY_BUCKETS)
		bucket = LATENCY_BUCKETS - 1;
	if (l)
		l->buckets[bucket]++;
}

static __always_inline void count(const struct pkt *pkt, struct totals *t, __u8 outcome)
{
	__u32 key = pkt->reason * NUM_OUTCOMES + outcome;
	struct count *c = bpf_map_lookup_elem(&reasons, &key);

	t->seen.packets++;
	t->seen.bytes += pkt->length;
	t->meters_evicted += pkt->evicted;
	if (c) {
		c->packets++;
		c->bytes += pkt->length;
	}
}

static __always_inline int stage_account(struct xdp_md *ctx, struct pkt *pkt, struct totals *t,
					 int v)
{
	__u8 outcome = OUTCOME_PASSED;

	if (v == XDP_DROP)
		outcome = knobs(pkt)->observe ? OUTCOME_WOULD_DROP : OUTCOME_DROPPED;
	count(pkt, t, outcome);
	if (replay)
		describe(&replay_verdict, ctx, pkt, outcome);
	else
		sample(ctx, pkt, t, outcome);
	if (windows && pkt->family)
		window_count(ctx, pkt, outcome);
	if (pkt->started)
		record_latency(pkt);
	return outcome == OUTCOME_DROPPED ? XDP_DROP : XDP_PASS;
}

#endif
