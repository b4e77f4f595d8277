// SPDX-License-Identifier: Apache-2.0
//
// ICMP errors of flows. An error quotes the packet that it is about in the form that was on the wire where it happened;
// whoever gets it must see the form that it sent. And where the programs send packets past the kernel's own forwarding,
// they themselves say that one is too big for the way ahead.
#pragma once

#include "flow.h"
#include "parse.h"

#define ICMP_ERROR_BYTES 8
#define ICMP_HOPS 64
// What an error quotes of a packet beyond its IP header: enough for the TCP checksum's place, which the kernel wants to
// keep within a packet whose checksum is not computed yet.
#define QUOTED_BYTES 20

// The kernel's own header of ICMP drags in that of the C library's sockets.
#define ICMP_DEST_UNREACH 3
#define ICMP_FRAG_NEEDED 4
#define ICMP_TIME_EXCEEDED 11
#define ICMP_PARAMETERPROB 12
#define ICMPV6_DEST_UNREACH 1
#define ICMPV6_PKT_TOOBIG 2
#define ICMPV6_PARAMPROB 4

struct icmp_error {
	__u8 type;
	__u8 code;
	__sum16 checksum;
	__be32 mtu;
};

static __always_inline int load_quoted_ports(struct __sk_buff *skb, struct quote *q)
{
	if (q->tuple.proto != IPPROTO_TCP && q->tuple.proto != IPPROTO_UDP)
		return -1;
	__be16 ports[2];
	if (bpf_skb_load_bytes(skb, q->l4_offset, ports, sizeof(ports)) < 0)
		return -1;
	q->tuple.sport = ports[0];
	q->tuple.dport = ports[1];
	return 0;
}

static __always_inline int parse_error4(struct __sk_buff *skb, const struct packet *p, struct quote *q)
{
	__u8 type;
	struct iphdr ip;
	if (bpf_skb_load_bytes(skb, p->l4_offset, &type, sizeof(type)) < 0)
		return -1;
	if (type != ICMP_DEST_UNREACH && type != ICMP_TIME_EXCEEDED && type != ICMP_PARAMETERPROB)
		return -1;
	q->ip_offset = p->l4_offset + ICMP_ERROR_BYTES;
	if (bpf_skb_load_bytes(skb, q->ip_offset, &ip, sizeof(ip)) < 0 || (ip.frag_off & bpf_htons(FRAGMENT_OFFSET_MASK)))
		return -1;
	map_v4(q->tuple.saddr, ip.saddr);
	map_v4(q->tuple.daddr, ip.daddr);
	q->tuple.proto = ip.protocol;
	q->l4_offset = q->ip_offset + ip.ihl * 4;
	return load_quoted_ports(skb, q);
}

static __always_inline int parse_error6(struct __sk_buff *skb, const struct packet *p, struct quote *q)
{
	__u8 type;
	struct ipv6hdr ip;
	if (bpf_skb_load_bytes(skb, p->l4_offset, &type, sizeof(type)) < 0)
		return -1;
	if (type < ICMPV6_DEST_UNREACH || type > ICMPV6_PARAMPROB)
		return -1;
	q->ip_offset = p->l4_offset + ICMP_ERROR_BYTES;
	if (bpf_skb_load_bytes(skb, q->ip_offset, &ip, sizeof(ip)) < 0)
		return -1;
	__builtin_memcpy(q->tuple.saddr, &ip.saddr, 16);
	__builtin_memcpy(q->tuple.daddr, &ip.daddr, 16);
	q->tuple.proto = ip.nexthdr;
	q->l4_offset = q->ip_offset + sizeof(ip);
	return load_quoted_ports(skb, q);
}

// store_quoted_addr replaces one address of the quoted packet. In IPv4 the quoted header's checksum changes with it, so
// that the ICMP checksum stays; IPv6 has none, so the ICMP checksum changes.
static __always_inline int store_quoted_addr(struct __sk_buff *skb, struct packet *p, __u32 ip_offset, __u32 v4_offset,
					     __u32 v6_offset, const __u32 *from, const __u32 *to)
{
	if (p->v4) {
		__u32 new = to[3];
		if (bpf_l3_csum_replace(skb, ip_offset + 10, from[3], new, 4) < 0)
			return -1;
		return bpf_skb_store_bytes(skb, ip_offset + v4_offset, &new, 4, 0);
	}
	__u32 old[4], new[4];
	copy_addr(old, from);
	copy_addr(new, to);
	__s64 diff = bpf_csum_diff(old, 16, new, 16, 0);
	if (bpf_l4_csum_replace(skb, p->l4_offset + 2, 0, diff, 0) < 0)
		return -1;
	return bpf_skb_store_bytes(skb, ip_offset + v6_offset, new, 16, 0);
}

static __always_inline int store_quoted_port(struct __sk_buff *skb, struct packet *p, __u32 offset, __be16 from, __be16 to)
{
	if (from == to)
		return 0;
	if (bpf_l4_csum_replace(skb, p->l4_offset + 2, from, to, 2) < 0)
		return -1;
	return bpf_skb_store_bytes(skb, offset, &to, sizeof(to), 0);
}

static __always_inline int rewrite_quote(struct __sk_buff *skb, struct packet *p, struct quote *q, const struct tuple *to)
{
	if (store_quoted_addr(skb, p, q->ip_offset, 12, 8, q->tuple.saddr, to->saddr) < 0 ||
	    store_quoted_addr(skb, p, q->ip_offset, 16, 24, q->tuple.daddr, to->daddr) < 0 ||
	    store_quoted_port(skb, p, q->l4_offset, q->tuple.sport, to->sport) < 0)
		return -1;
	return store_quoted_port(skb, p, q->l4_offset + 2, q->tuple.dport, to->dport);
}

static __always_inline int rewrite_error_addr(struct __sk_buff *skb, struct packet *p, const __u32 *from, const __u32 *to,
					      __u32 v4_offset, __u32 v6_offset)
{
	__s64 diff;
	if (rewrite_addr(skb, p, from, to, v4_offset, v6_offset, &diff) < 0)
		return -1;
	// The checksum of ICMP for IPv4 leaves the addresses out.
	if (p->v4 || !diff)
		return 0;
	return bpf_l4_csum_replace(skb, p->l4_offset + 2, 0, diff, BPF_F_PSEUDO_HDR);
}

// translate_error gives an error about a packet of a flow the form that the packet's sender understands; only_back leaves
// errors about what clients sent alone. It returns 1 if it did, 0 for what is none of our business.
static __noinline int translate_error(struct __sk_buff *skb, struct packet *p, int only_back)
{
	if (!p || p->tuple.proto != (p->v4 ? IPPROTO_ICMP : IPPROTO_ICMPV6) || p->fragment)
		return 0;
	struct quote *q = &p->quote;
	if ((p->v4 ? parse_error4(skb, p, q) : parse_error6(skb, p, q)) < 0)
		return 0;
	invert(&q->tuple, &p->key);
	struct flow *flow = bpf_map_lookup_elem(&pv_flows, &p->key);
	if (!flow || (only_back && flow->set))
		return 0;
	p->to = flow->rewritten;
	invert(&p->to, &p->original);
	// An error of the host that the packet was for comes from the address that its sender knows; a router's keeps its own.
	int from_target = same_addr(p->tuple.saddr, q->tuple.daddr);
	if (rewrite_quote(skb, p, q, &p->original) < 0)
		return -1;
	if (from_target && rewrite_error_addr(skb, p, p->tuple.saddr, p->to.saddr, 12, 8) < 0)
		return -1;
	if (rewrite_error_addr(skb, p, p->tuple.daddr, p->to.daddr, 16, 24) < 0)
		return -1;
	if (from_target)
		copy_addr(p->tuple.saddr, p->to.saddr);
	copy_addr(p->tuple.daddr, p->to.daddr);
	count(COUNTER_ERROR_TRANSLATED);
	return 1;
}

static __always_inline __u16 fold(__s64 sum)
{
	__u64 s = (__u32)sum;
	s = (s & 0xffff) + (s >> 16);
	s = (s & 0xffff) + (s >> 16);
	return ~s & 0xffff;
}

// turn_around sends the packet back out of the link that it came from.
static __always_inline int turn_around(struct __sk_buff *skb)
{
	__u8 macs[12], swapped[12];
	if (bpf_skb_load_bytes(skb, 0, macs, sizeof(macs)) < 0)
		return TC_ACT_SHOT;
	__builtin_memcpy(swapped, macs + 6, 6);
	__builtin_memcpy(swapped + 6, macs, 6);
	if (bpf_skb_store_bytes(skb, 0, swapped, sizeof(swapped), 0) < 0)
		return TC_ACT_SHOT;
	count(COUNTER_TOO_BIG_SENT);
	return bpf_redirect(skb->ifindex, 0);
}

struct error4 {
	struct iphdr ip;
	struct icmp_error icmp;
};

static __noinline int too_big4(struct __sk_buff *skb, __u32 mtu)
{
	__u32 quoted[(sizeof(struct iphdr) + QUOTED_BYTES) / 4];
	if (bpf_skb_load_bytes(skb, ETH_HLEN, quoted, sizeof(quoted)) < 0)
		return TC_ACT_SHOT;
	struct iphdr *was = (struct iphdr *)quoted;
	if (was->ihl != 5)
		return TC_ACT_SHOT;
	struct error4 e = {};
	e.ip.version = 4;
	e.ip.ihl = 5;
	e.ip.tot_len = bpf_htons(sizeof(e) + sizeof(quoted));
	e.ip.ttl = ICMP_HOPS;
	e.ip.protocol = IPPROTO_ICMP;
	e.ip.saddr = was->daddr;
	e.ip.daddr = was->saddr;
	e.ip.check = fold(bpf_csum_diff(0, 0, (__be32 *)&e.ip, sizeof(e.ip), 0));
	e.icmp.type = ICMP_DEST_UNREACH;
	e.icmp.code = ICMP_FRAG_NEEDED;
	e.icmp.mtu = bpf_htonl(mtu);
	__s64 sum = bpf_csum_diff(0, 0, (__be32 *)&e.icmp, sizeof(e.icmp), 0);
	e.icmp.checksum = fold(bpf_csum_diff(0, 0, quoted, sizeof(quoted), (__u32)sum));
	if (bpf_skb_change_tail(skb, ETH_HLEN + sizeof(quoted), 0) < 0 ||
	    bpf_skb_adjust_room(skb, sizeof(e), BPF_ADJ_ROOM_MAC, 0) < 0 ||
	    bpf_skb_store_bytes(skb, ETH_HLEN, &e, sizeof(e), 0) < 0)
		return TC_ACT_SHOT;
	return turn_around(skb);
}

struct error6 {
	struct ipv6hdr ip;
	struct icmp_error icmp;
};

static __noinline int too_big6(struct __sk_buff *skb, __u32 mtu)
{
	__u32 quoted[(sizeof(struct ipv6hdr) + QUOTED_BYTES) / 4];
	if (bpf_skb_load_bytes(skb, ETH_HLEN, quoted, sizeof(quoted)) < 0)
		return TC_ACT_SHOT;
	struct ipv6hdr *was = (struct ipv6hdr *)quoted;
	struct error6 e = {};
	e.ip.version = 6;
	e.ip.payload_len = bpf_htons(sizeof(e.icmp) + sizeof(quoted));
	e.ip.nexthdr = IPPROTO_ICMPV6;
	e.ip.hop_limit = ICMP_HOPS;
	e.ip.saddr = was->daddr;
	e.ip.daddr = was->saddr;
	e.icmp.type = ICMPV6_PKT_TOOBIG;
	e.icmp.mtu = bpf_htonl(mtu);
	__be32 pseudo[2] = { bpf_htonl(sizeof(e.icmp) + sizeof(quoted)), bpf_htonl(IPPROTO_ICMPV6) };
	__s64 sum = bpf_csum_diff(0, 0, (__be32 *)&e.ip.saddr, 32, 0);
	sum = bpf_csum_diff(0, 0, pseudo, sizeof(pseudo), (__u32)sum);
	sum = bpf_csum_diff(0, 0, (__be32 *)&e.icmp, sizeof(e.icmp), (__u32)sum);
	e.icmp.checksum = fold(bpf_csum_diff(0, 0, quoted, sizeof(quoted), (__u32)sum));
	if (bpf_skb_change_tail(skb, ETH_HLEN + sizeof(quoted), 0) < 0 ||
	    bpf_skb_adjust_room(skb, sizeof(e), BPF_ADJ_ROOM_MAC, 0) < 0 ||
	    bpf_skb_store_bytes(skb, ETH_HLEN, &e, sizeof(e), 0) < 0)
		return TC_ACT_SHOT;
	return turn_around(skb);
}

// too_big answers a packet that the way ahead cannot carry. An IPv4 packet that may be cut to pieces gets no answer, and
// is dropped: its pieces would carry no ports to go by.
static __always_inline int too_big(struct __sk_buff *skb, const struct packet *p, __u32 mtu)
{
	if (!p->v4)
		return too_big6(skb, mtu);
	if (p->dont_fragment)
		return too_big4(skb, mtu);
	count(COUNTER_FLOW_DROPPED);
	return TC_ACT_SHOT;
}
