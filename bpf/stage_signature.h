/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * signature: the slot for rules on header fields. No rule can be armed in this
 * release, so it lets every packet on; allowed sources will skip it.
 */
#ifndef STAGE_SIGNATURE_H
#define STAGE_SIGNATURE_H

#include "pkt.h"

static __always_inline int stage_signature(struct xdp_md *ctx, struct pkt *pkt)
{
	return NEXT;
}

#endif
