//go:build ignore

// SPDX-License-Identifier: Apache-2.0
//
// What packets need: services for what arrives from outside (node ports, load balancers, host ports) or from a pod
// that is beyond the socket programs' reach, the way back of such flows, and the short way from pod to pod.
//
// A flow is a pair of entries in one map, each saying how packets with a tuple have to leave: client→service becomes
// client→pod, and pod→client becomes service→client. Every program applies the same map.
#include "maps.h"
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>
#include <linux/udp.h>

#define AF_INET 2
#define AF_INET6 10
#define FRAGMENT_MASK 0x3fff
// Source ports of translated flows lie above the kernel's own ephemeral range (32768–60999 by default).
#define SNAT_PORT_FIRST 61001
#define SNAT_PORT_COUNT 4500
#define SNAT_ATTEMPTS 16

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct tuple);
	__type(value, struct flow);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} pv_flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 8192);
	__type(key, struct pod_key);
	__type(value, struct pod);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} pv_pods SEC(".maps");

struct packet {
	struct tuple tuple;
	__u32 l4_offset;
	__u8 v4;
	__u8 has_ports;
	__u8 opens; // a TCP SYN
	__u8 pad;
};

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
		__u8 flags;
		if (bpf_skb_load_bytes(skb, p->l4_offset + 13, &flags, sizeof(flags)) < 0)
			return -1;
		p->opens = (flags & 0x12) == 0x02; // SYN without ACK
	}
	return 0;
}

// parse fills p; -1 for what is none of our business. Fragments keep has_ports 0.
static __always_inline int parse(struct __sk_buff *skb, struct packet *p)
{
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		struct iphdr ip;
		if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)) < 0)
			return -1;
		map_v4(p->tuple.saddr, ip.saddr);
		map_v4(p->tuple.daddr, ip.daddr);
		p->tuple.proto = ip.protocol;
		p->v4 = 1;
		p->l4_offset = ETH_HLEN + ip.ihl * 4;
		if (ip.frag_off & bpf_htons(FRAGMENT_MASK))
			return 0;
		return parse_ports(skb, p);
	}
	if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr ip;
		if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)) < 0)
			return -1;
		__builtin_memcpy(p->tuple.saddr, &ip.saddr, 16);
		__builtin_memcpy(p->tuple.daddr, &ip.daddr, 16);
		p->tuple.proto = ip.nexthdr;
		p->l4_offset = ETH_HLEN + sizeof(ip);
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
		if (bpf_l3_csum_replace(skb, ETH_HLEN + 10, old, new, 4) < 0)
			return -1;
		*diff = bpf_csum_diff(&old, 4, &new, 4, 0);
		return bpf_skb_store_bytes(skb, ETH_HLEN + v4_offset, &new, 4, 0);
	}
	__u32 old[4], new[4];
	copy_addr(old, from);
	copy_addr(new, to);
	*diff = bpf_csum_diff(old, 16, new, 16, 0);
	return bpf_skb_store_bytes(skb, ETH_HLEN + v6_offset, new, 16, 0);
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

// to_pod hands the packet straight to a pod of this node: foreign FORWARD rules never see it.
static __always_inline int to_pod(struct __sk_buff *skb, const __u32 *daddr)
{
	struct pod_key key;
	copy_addr(key.addr, daddr);
	struct pod *pod = bpf_map_lookup_elem(&pv_pods, &key);
	if (!pod)
		return -1;
	if (bpf_skb_store_bytes(skb, 0, pod->mac, ETH_ALEN, 0) < 0 ||
	    bpf_skb_store_bytes(skb, ETH_ALEN, pod->host_mac, ETH_ALEN, 0) < 0)
		return TC_ACT_SHOT;
	count(COUNTER_POD_REDIRECTED);
	return bpf_redirect_peer(pod->ifindex, 0);
}

// leave sends a rewritten packet on its way: to a local pod, out of another link, or up this machine's own stack.
static __always_inline int leave(struct __sk_buff *skb, struct packet *p)
{
	int verdict = to_pod(skb, p->tuple.daddr);
	if (verdict >= 0)
		return verdict;
	struct bpf_fib_lookup fib = {
		.ifindex = skb->ingress_ifindex,
		.l4_protocol = p->tuple.proto,
		.sport = p->tuple.sport,
		.dport = p->tuple.dport,
	};
	if (p->v4) {
		fib.family = AF_INET;
		fib.ipv4_src = p->tuple.saddr[3];
		fib.ipv4_dst = p->tuple.daddr[3];
	} else {
		fib.family = AF_INET6;
		copy_addr(fib.ipv6_src, p->tuple.saddr);
		copy_addr(fib.ipv6_dst, p->tuple.daddr);
	}
	long found = bpf_fib_lookup(skb, &fib, sizeof(fib), 0);
	if (found == BPF_FIB_LKUP_RET_SUCCESS || found == BPF_FIB_LKUP_RET_NO_NEIGH)
		return bpf_redirect_neigh(fib.ifindex, 0, 0, 0);
	return TC_ACT_OK;
}

static __always_inline void invert(const struct tuple *from, struct tuple *to)
{
	copy_addr(to->saddr, from->daddr);
	copy_addr(to->daddr, from->saddr);
	to->sport = from->dport;
	to->dport = from->sport;
	to->proto = from->proto;
}

// reserve records the way back of a flow; with a changed source it looks for a free source port first.
static __always_inline int reserve(struct tuple *forward, const struct flow *back, int snat)
{
	struct tuple key = {};
	if (!snat) {
		invert(forward, &key);
		return bpf_map_update_elem(&pv_flows, &key, back, BPF_ANY);
	}
	__u32 start = bpf_get_prandom_u32();
	for (int i = 0; i < SNAT_ATTEMPTS; i++) {
		forward->sport = bpf_htons(SNAT_PORT_FIRST + (start + i) % SNAT_PORT_COUNT);
		invert(forward, &key);
		if (bpf_map_update_elem(&pv_flows, &key, back, BPF_NOEXIST) == 0)
			return 0;
	}
	return -1;
}

static __always_inline int open_flow(struct __sk_buff *skb, struct packet *p, __u32 set_id, const struct slot *backend)
{
	struct settings *settings = load_settings();
	if (!settings)
		return TC_ACT_SHOT;
	__u64 now = bpf_ktime_get_ns();
	struct flow forward = { .seen_ns = now, .set = set_id, .rewritten = p->tuple };
	copy_addr(forward.rewritten.daddr, backend->addr);
	forward.rewritten.dport = backend->port;
	// A distant backend must answer through this node; a pod that reaches itself must not see its own address.
	int snat = !(backend->flags & SLOT_LOCAL) || same_addr(backend->addr, p->tuple.saddr);
	if (snat)
		copy_addr(forward.rewritten.saddr, p->v4 ? settings->nat4 : settings->nat6);

	struct flow back = { .seen_ns = now };
	invert(&p->tuple, &back.rewritten);
	if (reserve(&forward.rewritten, &back, snat) < 0)
		return TC_ACT_SHOT;
	bpf_map_update_elem(&pv_flows, &p->tuple, &forward, BPF_ANY);
	count(COUNTER_FLOW_OPENED);
	if (rewrite(skb, p, &forward.rewritten) < 0)
		return TC_ACT_SHOT;
	return leave(skb, p);
}

// current_flow finds the flow of a packet, unless the packet begins a new one or its backend has gone.
static __always_inline struct flow *current_flow(struct packet *p)
{
	struct flow *flow = bpf_map_lookup_elem(&pv_flows, &p->tuple);
	if (!flow)
		return 0;
	__u64 now = bpf_ktime_get_ns();
	if (flow->set) {
		struct slot backend = { .port = flow->rewritten.dport };
		copy_addr(backend.addr, flow->rewritten.daddr);
		int member = is_member(flow->set, &backend);
		if (p->opens && !member)
			return 0;
		if (p->tuple.proto == IPPROTO_UDP && (!member || now - flow->seen_ns > UDP_IDLE_NS))
			return 0;
	}
	flow->seen_ns = now;
	return flow;
}

static __always_inline int refuse(struct __sk_buff *skb)
{
	struct settings *settings = load_settings();
	if (!settings)
		return TC_ACT_SHOT;
	// The rule of the nftables table answers packets with this mark with an ICMP error.
	skb->mark |= settings->reject_mark;
	count(COUNTER_FLOW_REJECTED);
	return TC_ACT_OK;
}

static __always_inline int serve(struct __sk_buff *skb, struct packet *p, int from_outside)
{
	struct endpoint asked = { .port = p->tuple.dport, .proto = p->tuple.proto };
	copy_addr(asked.addr, p->tuple.daddr);
	struct frontend *frontend = find_frontend(&asked, 0);
	if (!frontend)
		return -1;
	__u32 set_id = from_outside ? frontend->outer_set : frontend->inner_set;
	// Only a SYN opens a TCP flow: the rest of an unknown one is for the stack to refuse.
	if (p->tuple.proto == IPPROTO_TCP && !p->opens)
		return -1;
	struct slot backend = {};
	int picked = pick(set_id, p->tuple.saddr, &backend);
	if (picked == PICKED_ONE)
		return open_flow(skb, p, set_id, &backend);
	if (picked == PICKED_DROP) {
		count(COUNTER_FLOW_DROPPED);
		return TC_ACT_SHOT;
	}
	return refuse(skb);
}

static __always_inline int enter(struct __sk_buff *skb, struct packet *p, int from_outside)
{
	if (!p->has_ports)
		return -1;
	struct flow *flow = current_flow(p);
	if (flow) {
		struct tuple to = flow->rewritten;
		if (rewrite(skb, p, &to) < 0)
			return TC_ACT_SHOT;
		return leave(skb, p);
	}
	return serve(skb, p, from_outside);
}

// finish lets the programs of others see what is not ours to decide.
static __always_inline int finish(int verdict)
{
	return verdict <= TC_ACT_OK ? TC_ACT_UNSPEC : verdict;
}

// On the ingress of a link to the outside world.
SEC("tc")
int pv_from_outside(struct __sk_buff *skb)
{
	struct packet p = {};
	if (parse(skb, &p) < 0)
		return TC_ACT_UNSPEC;
	return finish(enter(skb, &p, 1));
}

// On the egress of a link to the outside world: answers of backends that live in the host's own namespace.
SEC("tc")
int pv_to_outside(struct __sk_buff *skb)
{
	struct packet p = {};
	if (parse(skb, &p) < 0 || !p.has_ports)
		return TC_ACT_UNSPEC;
	struct flow *flow = bpf_map_lookup_elem(&pv_flows, &p.tuple);
	if (!flow || flow->set)
		return TC_ACT_UNSPEC;
	struct tuple to = flow->rewritten;
	return rewrite(skb, &p, &to) < 0 ? TC_ACT_SHOT : TC_ACT_UNSPEC;
}

// On the host's end of a pod's link: everything that the pod sends.
SEC("tc")
int pv_from_pod(struct __sk_buff *skb)
{
	struct packet p = {};
	if (parse(skb, &p) < 0)
		return TC_ACT_UNSPEC;
	int verdict = enter(skb, &p, 0);
	if (verdict < 0)
		verdict = to_pod(skb, p.tuple.daddr);
	return finish(verdict);
}

char __license[] SEC("license") = "Dual MIT/GPL";
