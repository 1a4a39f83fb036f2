/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Headers as they are on the wire, fields in network order. */
#ifndef WIRE_H
#define WIRE_H

#include "kernel.h"

#define ETHERTYPE_IP4 0x0800
#define ETHERTYPE_IP6 0x86dd
#define ETHERTYPE_8021Q 0x8100
#define ETHERTYPE_8021AD 0x88a8
#define ETHERTYPE_QINQ 0x9100 /* before 802.1ad had its own */
#define ETHERTYPE_TEB 0x6558 /* Ethernet inside GRE, RFC 1701 */

struct eth_header {
	__u8 dst[6];
	__u8 src[6];
	__be16 type;
};

struct vlan_tag {
	__be16 tci;
	__be16 type;
};

/* RFC 791 */
struct ip4_header {
	__u8 version_ihl;
	__u8 tos;
	__be16 total_length;
	__be16 id;
	__be16 fragment; /* IP4_MF, IP4_OFFSET */
	__u8 ttl;
	__u8 protocol;
	__sum16 checksum;
	__be32 src;
	__be32 dst;
};

#define IP4_DF 0x4000
#define IP4_MF 0x2000
#define IP4_OFFSET 0x1fff

/* RFC 8200 */
struct ip6_header {
	__be32 version_class_flow;
	__be16 payload_length;
	__u8 next;
	__u8 hop_limit;
	__be32 src[4];
	__be32 dst[4];
};

struct ip6_extension {
	__u8 next;
	__u8 length;
	__be16 fragment; /* of a fragment header: IP6_OFFSET, IP6_M */
	__be32 rest;
};

#define IP6_OFFSET 0xfff8
#define IP6_M 0x0001

#define PROTO_HOP_BY_HOP 0
#define PROTO_ICMP 1
#define PROTO_IPIP 4
#define PROTO_TCP 6
#define PROTO_UDP 17
#define PROTO_IP6 41
#define PROTO_ROUTING 43
#define PROTO_FRAGMENT 44
#define PROTO_GRE 47
#define PROTO_AH 51
#define PROTO_ICMP6 58
#define PROTO_DST_OPTIONS 60
#define PROTO_MOBILITY 135
#define PROTO_HIP 139
#define PROTO_SHIM6 140

struct tcp_header {
	__be16 src_port;
	__be16 dst_port;
	__be32 seq;
	__be32 ack;
	__u8 data_offset; /* upper four bits, in 32-bit words */
	__u8 flags;
	__be16 window;
	__sum16 checksum;
	__be16 urgent;
};

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_PSH 0x08
#define TCP_ACK 0x10
#define TCP_URG 0x20
#define TCP_FLAGS 0x3f

struct udp_header {
	__be16 src_port;
	__be16 dst_port;
	__be16 length;
	__sum16 checksum;
};

struct icmp_header {
	__u8 type;
	__u8 code;
	__sum16 checksum;
	__be32 rest;
};

#define ND_FIRST_TYPE 133
#define ND_LAST_TYPE 137
#define ND_HOP_LIMIT 255

/* RFC 2784, 2890 */
struct gre_header {
	__be16 flags;
	__be16 protocol;
};

#define GRE_CHECKSUM 0x8000
#define GRE_KEY 0x2000
#define GRE_SEQUENCE 0x1000
#define GRE_VERSION 0x0007
#define GRE_ROUTING 0x4000 /* RFC 1701, which RFC 2784 took away */

/* RFC 7348 */
struct vxlan_header {
	__u8 flags;
	__u8 reserved[3];
	__be32 vni;
};

#define VXLAN_PORT 4789
#define VXLAN_VALID 0x08

#endif
