// SPDX-License-Identifier: Apache-2.0
//
// Reading and rewriting the headers of packets.
#pragma once

#include "maps.h"
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>
#include <linux/udp.h>

#define DONT_FRAGMENT 0x4000
#define FRAGMENT_MASK 0x3fff
#define FRAGMENT_OFFSET_MASK 0x1fff
#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

// A packet that is quoted in an ICMP error.
struct quote {
	struct tuple tuple;
	__u32 ip_offset;
	__u32 l4_offset;
};

// What a program knows of the packet it looks at, and its working space, for the stack is too small for both.
struct packet {
	struct tuple tuple;
	__u32 l4_offset;
	__u8 v4;
	__u8 has_ports;
	__u8 tcp_flags;
	__u8 fragment;
	__u8 dont_fragment;
	__u8 l2; // bytes before the IP header: ETH_HLEN, or 0 on a link without hardware addresses
	__u8 pad[2];
	// How the packet leaves.
	struct tuple to;
	struct flow forth;
	struct flow back;
	struct quote quote;
	struct tuple key;
	struct tuple original;
	struct slot backend;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct packet);
} pv_packet SEC(".maps");

// begin finds the working space of this CPU.
static __always_inline struct packet *begin(void)
{
	__u32 zero = 0;
	struct packet *p = bpf_map_lookup_elem(&pv_packet, &zero);
	if (p)
		__builtin_memset(p, 0, sizeof(*p));
	return p;
}

// opens reports whether the packet begins a TCP connection.
static __always_inline int opens(const struct packet *p)
{
	return (p->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
}

static __always_inline int parse_ports(struct __sk_buff *skb, struct packet *p)
{
	if (p->tuple.proto != IPPROTO_TCP && p->tuple.proto != IPPROTO_UDP)
		return 0;
	__be16 ports[2];
	if (bpf_skb_load_bytes(skb, p->l4_offset, ports, sizeof(ports)) < 0)
		return -1;
	p->tuple.sport = ports[0];
	p->tuple.dport = ports[1];
	p->has_ports = 1;
	if (p->tuple.proto == IPPROTO_TCP) {
		if (bpf_skb_load_bytes(skb, p->l4_offset + 13, &p->tcp_flags, sizeof(p->tcp_flags)) < 0)
			return -1;
	}
	return 0;
}

// parse fills p; -1 for what is none of our business. Fragments keep has_ports 0.
static __always_inline int parse(struct __sk_buff *skb, struct packet *p, __u8 l2)
{
	p->l2 = l2;
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		struct iphdr ip;
		if (bpf_skb_load_bytes(skb, l2, &ip, sizeof(ip)) < 0)
			return -1;
		map_v4(p->tuple.saddr, ip.saddr);
		map_v4(p->tuple.daddr, ip.daddr);
		p->tuple.proto = ip.protocol;
		p->v4 = 1;
		p->l4_offset = l2 + ip.ihl * 4;
		p->dont_fragment = (ip.frag_off & bpf_htons(DONT_FRAGMENT)) != 0;
		p->fragment = (ip.frag_off & bpf_htons(FRAGMENT_MASK)) != 0;
		if (p->fragment)
			return 0;
		return parse_ports(skb, p);
	}
	if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr ip;
		if (bpf_skb_load_bytes(skb, l2, &ip, sizeof(ip)) < 0)
			return -1;
		__builtin_memcpy(p->tuple.saddr, &ip.saddr, 16);
		__builtin_memcpy(p->tuple.daddr, &ip.daddr, 16);
		p->tuple.proto = ip.nexthdr;
		p->l4_offset = l2 + sizeof(ip);
		return parse_ports(skb, p);
	}
	return -1;
}

static __always_inline int fix_l4(struct __sk_buff *skb, struct packet *p, __s64 diff, __be16 from, __be16 to,
				  __u32 port_offset)
{
	__u32 csum_offset = p->l4_offset + (p->tuple.proto == IPPROTO_TCP ? 16 : 6);
	__u64 zero_ok = p->tuple.proto == IPPROTO_UDP ? BPF_F_MARK_MANGLED_0 : 0;
	if (diff && bpf_l4_csum_replace(skb, csum_offset, 0, diff, zero_ok | BPF_F_PSEUDO_HDR) < 0)
		return -1;
	if (from == to)
		return 0;
	if (bpf_l4_csum_replace(skb, csum_offset, from, to, zero_ok | 2) < 0)
		return -1;
	return bpf_skb_store_bytes(skb, port_offset, &to, sizeof(to), 0);
}

static __always_inline int rewrite_addr(struct __sk_buff *skb, struct packet *p, const __u32 *from, const __u32 *to,
					__u32 v4_offset, __u32 v6_offset, __s64 *diff)
{
	*diff = 0;
	if (same_addr(from, to))
		return 0;
	if (p->v4) {
		__u32 old = from[3], new = to[3];
		if (bpf_l3_csum_replace(skb, p->l2 + 10, old, new, 4) < 0)
			return -1;
		*diff = bpf_csum_diff(&old, 4, &new, 4, 0);
		return bpf_skb_store_bytes(skb, p->l2 + v4_offset, &new, 4, 0);
	}
	__u32 old[4], new[4];
	copy_addr(old, from);
	copy_addr(new, to);
	*diff = bpf_csum_diff(old, 16, new, 16, 0);
	return bpf_skb_store_bytes(skb, p->l2 + v6_offset, new, 16, 0);
}

static __always_inline int rewrite(struct __sk_buff *skb, struct packet *p, const struct tuple *to)
{
	__s64 diff;
	if (rewrite_addr(skb, p, p->tuple.saddr, to->saddr, 12, 8, &diff) < 0 ||
	    fix_l4(skb, p, diff, p->tuple.sport, to->sport, p->l4_offset) < 0)
		return -1;
	if (rewrite_addr(skb, p, p->tuple.daddr, to->daddr, 16, 24, &diff) < 0 ||
	    fix_l4(skb, p, diff, p->tuple.dport, to->dport, p->l4_offset + 2) < 0)
		return -1;
	p->tuple = *to;
	return 0;
}
