// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The lab's packet generator. BPF_PROG_TEST_RUN with live frames calls it once a
 * frame; it writes the frame's headers and redirects it into a veth. It is never
 * attached to an interface and is no part of the packet path.
 */
#include "kernel.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

#define HEADER_MAX 96 /* Ethernet, two tags, IPv6 and TCP are 82 */
#define PORT_MIN 1024

/* All of it is constant to the verifier, so offsets need no further bounds. */
struct gen_config {
	__u8 header[HEADER_MAX]; /* source, port and checksums are 0 */
	__u32 header_length;
	__u32 ifindex;
	__u32 ip_sum; /* one's complement sum of the IPv4 header, not folded */
	__u32 l4_sum; /* the same of pseudo header, header and payload */
	__be32 source[4]; /* IPv4: the first word */
	__be32 random_mask[4]; /* the bits that are random each frame */
	__u32 source_words; /* 1: IPv4, 4: IPv6 */
	__u32 source_count; /* 0 and 1: the source does not count */
	__u32 index_word; /* the word of the source that counts */
	__u16 source_port; /* host order, 0: random each frame */
	__u16 source_at;
	__u16 port_at;
	__u16 ip_check_at; /* 0: none */
	__u16 l4_check_at;
	__u8 pseudo; /* the checksum of layer 4 covers the source */
	__u8 udp; /* a checksum of 0 is sent as 0xffff */
};

const volatile struct gen_config config;

__u64 quota; /* frames that may still be sent; set before each run */
__u64 sent;

static __always_inline __u16 fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

/*
 * The kernel hands out pages again with what the receiver wrote into them, so
 * every header is written whole.
 */
static __always_inline void write_header(__u8 *frame)
{
	for (__u32 i = 0; i < HEADER_MAX; i += 2) {
		if (i < config.header_length)
			*(__u16 *)(frame + i) = *(const volatile __u16 *)(config.header + i);
	}
}

static __always_inline __be32 source_word(__u32 i, __u32 index)
{
	__be32 word = config.source[i];

	if (config.random_mask[i])
		word |= bpf_get_prandom_u32() & config.random_mask[i];
	if (config.source_count > 1 && i == config.index_word)
		word = bpf_htonl(bpf_ntohl(word) + index);
	return word;
}

/* Writes the source and returns its one's complement sum. */
static __always_inline __u64 write_source(__u8 *frame, __u32 index)
{
	__u64 sum = 0;

	for (__u32 i = 0; i < 4; i++) {
		if (i < config.source_words) {
			__be32 word = source_word(i, index);

			*(__be32 *)(frame + config.source_at + 4 * i) = word;
			sum += word;
		}
	}
	return sum;
}

static __always_inline __be16 write_port(__u8 *frame)
{
	__u16 port = config.source_port;

	if (!port)
		port = PORT_MIN + bpf_get_prandom_u32() % (0x10000 - PORT_MIN);
	*(__be16 *)(frame + config.port_at) = bpf_htons(port);
	return bpf_htons(port);
}

static __always_inline void write_checksums(__u8 *frame, __u64 source, __be16 port)
{
	__u64 l4 = (__u64)config.l4_sum + port;
	__u16 check;

	if (config.ip_check_at)
		*(__u16 *)(frame + config.ip_check_at) = fold(config.ip_sum + source);
	if (config.pseudo)
		l4 += source;
	check = fold(l4);
	if (config.udp && !check)
		check = 0xffff;
	*(__u16 *)(frame + config.l4_check_at) = check;
}

SEC("xdp")
int generate(struct xdp_md *ctx)
{
	__u8 *frame = (__u8 *)(long)ctx->data;
	__u8 *end = (__u8 *)(long)ctx->data_end;
	__u32 index = 0;
	__u64 source;
	__be16 port;

	if (!quota || frame + config.header_length > end)
		return XDP_DROP;
	quota--;
	if (config.source_count > 1)
		index = sent % config.source_count;
	sent++;
	write_header(frame);
	source = write_source(frame, index);
	port = write_port(frame);
	write_checksums(frame, source, port);
	return bpf_redirect(config.ifindex, 0);
}

char _license[] SEC("license") = "Dual BSD/GPL";
