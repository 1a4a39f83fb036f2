//go:build ignore
// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The packet path: the stages in order, one exit. docs/packet-path.md says what
 * each of them does.
 */
#include "stage_parse.h"
#include "stage_acl.h"
#include "stage_policy.h"
#include "stage_signature.h"
#include "stage_challenge.h"
#include "stage_meter.h"
#include "stage_account.h"

static __always_inline __u32 frame_length(struct xdp_md *ctx)
{
	if (frags)
		return bpf_xdp_get_buff_len(ctx);
	return ctx->data_end - ctx->data;
}

static __always_inline void begin_packet(struct xdp_md *ctx, struct pkt *pkt, struct totals *t)
{
	__builtin_memset(&pkt->started, 0, sizeof(*pkt) - offsetof(struct pkt, started));
	pkt->knob_set = active_knobs;
	pkt->length = pkt->limit = frame_length(ctx);
	if (due(&t->next_latency, knobs(pkt)->sample_latency))
		pkt->started = bpf_ktime_get_ns();
}

SEC("xdp")
int sentinel(struct xdp_md *ctx)
{
	__u32 zero = 0;
	struct totals *t = bpf_map_lookup_elem(&totals, &zero);
	struct pkt *pkt = bpf_map_lookup_elem(&scratch, &zero);
	struct meter_line *line = NULL;
	int v = NEXT;

	if (!t || !pkt)
		return XDP_PASS;
	begin_packet(ctx, pkt, t);

	if (knobs(pkt)->bypass)
		v = set_apart(pkt, REASON_BYPASS, 0);
	if (v == NEXT)
		v = stage_parse(ctx, pkt);
	if (v == NEXT)
		line = meter_begin(pkt);
	if (v == NEXT)
		v = stage_acl(pkt);
	if (v == NEXT)
		v = stage_policy(pkt);
	if (v == NEXT && !pkt->allowed)
		v = stage_signature(ctx, pkt);
	if (v == NEXT && !pkt->allowed)
		v = stage_challenge(ctx, pkt);
	if (v == NEXT)
		v = stage_meter(pkt, line);
	return stage_account(ctx, pkt, t, v);
}

char _license[] SEC("license") = "Dual BSD/GPL";
