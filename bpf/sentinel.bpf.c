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

SEC("xdp")
int sentinel(struct xdp_md *ctx)
{
	struct pkt pkt = { .knobs = knobs() };
	__u32 zero = 0;
	int v = NEXT;

	pkt.totals = bpf_map_lookup_elem(&totals, &zero);
	if (!pkt.totals)
		return XDP_PASS;
	pkt.length = pkt.limit = frame_length(ctx);
	if (due(&pkt.totals->next_latency, pkt.knobs->sample_latency))
		pkt.started = bpf_ktime_get_ns();
	if (pkt.knobs->bypass)
		v = set_apart(&pkt, REASON_BYPASS, 0);

	if (v == NEXT)
		v = stage_parse(ctx, &pkt);
	if (v == NEXT)
		v = stage_acl(&pkt);
	if (v == NEXT)
		v = stage_policy(&pkt);
	if (v == NEXT && !pkt.allowed)
		v = stage_signature(ctx, &pkt);
	if (v == NEXT && !pkt.allowed)
		v = stage_challenge(ctx, &pkt);
	if (v == NEXT)
		v = stage_meter(&pkt);
	return stage_account(ctx, &pkt, v);
}

char _license[] SEC("license") = "Dual BSD/GPL";
