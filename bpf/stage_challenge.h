/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * challenge: the slot where sources prove themselves (SYN cookies, resets). Nothing
 * can be challenged in this release; allowed sources will skip it.
 */
#ifndef STAGE_CHALLENGE_H
#define STAGE_CHALLENGE_H

#include "pkt.h"

static __always_inline int stage_challenge(struct xdp_md *ctx, struct pkt *pkt)
{
	return NEXT;
}

#endif
