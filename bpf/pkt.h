/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The packet as the stages hand it on, and the cursor they read it with.
 */
#ifndef PKT_H
#define PKT_H

#include "config.h"
#include <bpf/bpf_endian.h>

/* What a stage returns when the next one shall decide; otherwise an XDP action. */
#define NEXT (-1)

/* Which layer-4 header was read. */
enum header {
	HEADER_NONE,
	HEADER_TCP,
	HEADER_UDP,
	HEADER_ICMP,
};

struct addr {
	__u32 w[4]; /* network order; IPv4: w[0], the rest 0 */
};

#define NO_WAY 4

/* Where the buckets of one scope are: [0] of class all, [1] of the packet's own class. */
struct meter_place {
	__u32 line;
	__u16 tag[2];
	__u8 way[2];
	__u8 wanted[2]; /* it has a limit */
	__u8 class;
	__u8 pad[3];
};

/*
 * It lies in a map of one entry per CPU and not on the stack: the verifier follows
 * every constant on the stack but none in a map, so that all the ways through
 * parse end in one state (152 791 instructions it processed become 34 409, on 6.18).
 */
struct pkt {
	/* Kept from packet to packet: the clock of this CPU. */
	__u64 jiffy; /* in which it was read */
	__u64 jiffy_time; /* what it said, ns */

	/* The meter's: written before they are read. */
	__u64 clock;
	__u64 source_hash;
	struct meter_place places[NUM_SCOPES];

	/* All from here on begins at 0 with each packet. */
	__u64 started; /* of a latency sample; 0: not sampled */
	__u64 rules; /* signatures that match what has been looked at */
	__u64 counting; /* signatures whose targets are still to be counted */
	struct addr src; /* of the innermost packet parsed */
	struct addr dst;
	struct addr outer_src; /* of the packet around it, if outer_family */
	__u32 length; /* bytes on the wire */
	__u32 offset; /* of what is parsed next */
	__u32 limit; /* where the frame, or the packet around it, ends */
	__u32 payload; /* bytes the IP header announces from offset on */
	__u32 ip_length; /* as the IP header announces it, header included; jumbograms: of the frame; 0: it makes no sense */
	__u32 data; /* where the data behind layer 4's header begins; 0: no such header was read */
	__u32 data_end; /* as the IP header announces it: may lie behind limit, or before data */
	__u16 src_port; /* host order */
	__u16 dst_port;
	__u16 window;
	__u8 family; /* 0: no readable source; 4; 6 */
	__u8 outer_family;
	__u8 protocol;
	__u8 tcp_flags;
	__u8 ttl;
	__u8 df;
	__u8 header; /* enum header */
	__u8 data_offset; /* of TCP, in words of 32 bits */
	__u8 icmp_type;
	__u8 icmp_code;
	__u8 vlans;
	__u8 fragment; /* enum fragment */
	__u8 tunnel;
	__u8 readable; /* layer 4 begins at offset */
	__u8 extended; /* IPv6 with extension headers */
	__u8 anomaly; /* first thing found wrong, 0: nothing */
	__u8 reason; /* of the verdict; while it is NEXT, of passing */
	__u8 allowed; /* on the allow list or protected */
	__u8 knob_set; /* the one it began with */
	__u8 evicted; /* of its buckets: found all places of the line in use */
	__u8 neighbour; /* ICMPv6 type and code are those of neighbour discovery */
};

static __always_inline struct knobs *knobs(const struct pkt *pkt)
{
	return (struct knobs *)&knob_sets[pkt->knob_set & 1];
}

/* note records what is wrong with a packet; the first thing counts. */
static __always_inline void note(struct pkt *pkt, __u8 reason)
{
	if (!pkt->anomaly)
		pkt->anomaly = reason;
}

/*
 * Beyond this, no header is looked for. It bounds the offset for the verifier,
 * whose packet pointers reach 64 KiB.
 */
#define MAX_OFFSET 0x3fff

/* at returns the `size` bytes at `offset`, or NULL where the linear part of the frame ends before. */
static __always_inline void *at(struct xdp_md *ctx, __u32 offset, __u32 size)
{
	void *end = (void *)(long)ctx->data_end;
	void *p = (void *)(long)ctx->data;

	if (offset > MAX_OFFSET)
		return NULL;
	p += offset;
	if (p + size > end)
		return NULL;
	return p;
}

/*
 * now returns the time in ns, as exact as a jiffy (1 to 10 ms): the clock is read once
 * a jiffy and CPU, since a read takes 20 to 35 ns and a look at jiffies takes none.
 */
static __always_inline __u64 now(struct pkt *pkt)
{
	__u64 jiffy;

	if (replay)
		return replay_now;
	jiffy = bpf_jiffies64();
	if (pkt->jiffy != jiffy) {
		pkt->jiffy = jiffy;
		pkt->jiffy_time = bpf_ktime_get_ns();
	}
	return pkt->jiffy_time;
}

#endif
