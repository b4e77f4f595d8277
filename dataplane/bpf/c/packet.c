//go:build ignore

// SPDX-License-Identifier: Apache-2.0
//
// What packets need: services for what arrives from outside (node ports, load balancers, host ports) or from a pod
// that is beyond the socket programs' reach, the way back of such flows (flow.h) and errors about them (icmp.h), and the
// short way from pod to pod.
#include "maps.h"
#include "parse.h"
#include "flow.h"
#include "icmp.h"

#define AF_INET 2
#define AF_INET6 10

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 8192);
	__type(key, struct pod_key);
	__type(value, struct pod);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} pv_pods SEC(".maps");

// The pod ranges of other nodes, and the link that leads to each. IPv4 prefixes are 96 bits longer, as addresses are mapped.
struct remote_key {
	__u32 bits;
	__u32 addr[4];
};

struct remote {
	__u32 ifindex;
	__u32 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 32768);
	__type(key, struct remote_key);
	__type(value, struct remote);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} pv_remotes SEC(".maps");

// add_l2 gives a packet from a link without hardware addresses room for them.
static __always_inline int add_l2(struct __sk_buff *skb, struct packet *p)
{
	if (p->l2)
		return 0;
	if (bpf_skb_change_head(skb, ETH_HLEN, 0) < 0)
		return -1;
	__be16 proto = p->v4 ? bpf_htons(ETH_P_IP) : bpf_htons(ETH_P_IPV6);
	p->l2 = ETH_HLEN;
	p->l4_offset += ETH_HLEN;
	return bpf_skb_store_bytes(skb, 2 * ETH_ALEN, &proto, sizeof(proto), 0);
}

// to_pod hands the packet straight to a pod of this node: foreign FORWARD rules never see it.
static __always_inline int to_pod(struct __sk_buff *skb, struct packet *p)
{
	struct pod_key key;
	copy_addr(key.addr, p->tuple.daddr);
	struct pod *pod = bpf_map_lookup_elem(&pv_pods, &key);
	if (!pod)
		return -1;
	if (add_l2(skb, p) < 0 || bpf_skb_store_bytes(skb, 0, pod->mac, ETH_ALEN, 0) < 0 ||
	    bpf_skb_store_bytes(skb, ETH_ALEN, pod->host_mac, ETH_ALEN, 0) < 0)
		return TC_ACT_SHOT;
	count(COUNTER_POD_REDIRECTED);
	return bpf_redirect_peer(pod->ifindex, 0);
}

static __always_inline struct remote *find_remote(const __u32 *addr)
{
	struct remote_key key = { .bits = 128 };
	copy_addr(key.addr, addr);
	return bpf_map_lookup_elem(&pv_remotes, &key);
}

// to_remote sends a packet of a pod towards another node's. One that is too large for the way is the stack's, which
// tells the sender so.
static __always_inline int to_remote(struct __sk_buff *skb, struct packet *p)
{
	struct remote *remote = find_remote(p->tuple.daddr);
	if (!remote)
		return -1;
	__u32 mtu = 0;
	if (bpf_check_mtu(skb, remote->ifindex, &mtu, 0, 0) != 0)
		return -1;
	count(COUNTER_REMOTE_REDIRECTED);
	return bpf_redirect_neigh(remote->ifindex, 0, 0, 0);
}

// route finds the link by which packets of a translated tuple leave: 0 for this machine's own stack, -1 if they are too
// big for it, with mtu then telling what it carries.
static __always_inline int route(struct __sk_buff *skb, const struct packet *p, const struct tuple *to, __u32 *mtu)
{
	struct bpf_fib_lookup fib = {
		.ifindex = skb->ingress_ifindex,
		.l4_protocol = to->proto,
		.sport = to->sport,
		.dport = to->dport,
	};
	if (p->v4) {
		fib.family = AF_INET;
		fib.ipv4_src = to->saddr[3];
		fib.ipv4_dst = to->daddr[3];
	} else {
		fib.family = AF_INET6;
		copy_addr(fib.ipv6_src, to->saddr);
		copy_addr(fib.ipv6_dst, to->daddr);
	}
	long found = bpf_fib_lookup(skb, &fib, sizeof(fib), 0);
	if (found == BPF_FIB_LKUP_RET_FRAG_NEEDED) {
		*mtu = fib.mtu_result;
		return -1;
	}
	if (found != BPF_FIB_LKUP_RET_SUCCESS && found != BPF_FIB_LKUP_RET_NO_NEIGH)
		return 0;
	if (bpf_check_mtu(skb, fib.ifindex, mtu, 0, BPF_MTU_CHK_SEGS) > 0)
		return -1;
	return fib.ifindex;
}

// leave sends a rewritten packet on its way: to a local pod, out of another link, or up this machine's own stack.
static __always_inline int leave(struct __sk_buff *skb, struct packet *p, int link)
{
	int verdict = to_pod(skb, p);
	if (verdict >= 0)
		return verdict;
	if (link > 0)
		return add_l2(skb, p) < 0 ? TC_ACT_SHOT : bpf_redirect_neigh(link, 0, 0, 0);
	return TC_ACT_OK;
}

static __always_inline int is_pod(const __u32 *addr)
{
	struct pod_key key;
	copy_addr(key.addr, addr);
	return bpf_map_lookup_elem(&pv_pods, &key) != 0;
}

// forward rewrites a packet to p->to and sends it on.
static __noinline int forward(struct __sk_buff *skb, struct packet *p)
{
	if (!p)
		return TC_ACT_SHOT;
	__u32 mtu = 0;
	int link = 0;
	// A pod takes in what is longer than its link carries; nobody has to shorten it.
	if (!is_pod(p->to.daddr))
		link = route(skb, p, &p->to, &mtu);
	if (link < 0)
		return add_l2(skb, p) < 0 ? TC_ACT_SHOT : too_big(skb, p, mtu);
	if (rewrite(skb, p, &p->to) < 0)
		return TC_ACT_SHOT;
	return leave(skb, p, link);
}

// open_flow records a flow of a packet to the backend that was picked for it, p->to; it returns 0 if it could.
__noinline int open_flow(struct packet *p, __u32 set_id)
{
	if (!p)
		return -1;
	const struct slot *backend = &p->backend;
	struct settings *settings = load_settings();
	if (!settings)
		return -1;
	p->forth.set = set_id;
	p->forth.rewritten = p->tuple;
	copy_addr(p->forth.rewritten.daddr, backend->addr);
	p->forth.rewritten.dport = backend->port;
	p->back.seen_ns = bpf_ktime_get_ns();
	p->back.flags = backend->flags & SLOT_COUNTED ? FLOW_COUNTED : 0;
	invert(&p->tuple, &p->back.rewritten);

	// A distant backend must answer through this node; a pod that reaches itself must not see its own address.
	int snat = !(backend->flags & SLOT_LOCAL) || same_addr(backend->addr, p->tuple.saddr);
	// A client may reach a backend in two ways with the same source port: the second flow gets another source.
	if (!snat && keep_source(p, &p->forth.rewritten) < 0)
		snat = 1;
	if (snat) {
		if (find_remote(backend->addr))
			copy_addr(p->forth.rewritten.saddr, p->v4 ? settings->pod_nat4 : settings->pod_nat6);
		else
			copy_addr(p->forth.rewritten.saddr, p->v4 ? settings->nat4 : settings->nat6);
		if (change_source(p) < 0) {
			count(COUNTER_FLOW_EXHAUSTED);
			return -1;
		}
	}
	bpf_map_update_elem(&pv_flows, &p->tuple, &p->forth, BPF_ANY);
	count(COUNTER_FLOW_OPENED);
	if (p->back.flags & FLOW_COUNTED) {
		struct endpoint counted = { .port = backend->port, .proto = p->tuple.proto };
		copy_addr(counted.addr, backend->addr);
		load_add(&pv_flow_load, &counted);
	}
	p->to = p->forth.rewritten;
	return 0;
}

// note keeps the state of a flow in its way back.
static __always_inline void note(struct flow *back, const struct packet *p, __u32 fin, __u32 flags)
{
	if (p->tcp_flags & TCP_FIN)
		flags |= fin;
	if (p->tcp_flags & TCP_RST)
		flags |= FLOW_RESET;
	back->seen_ns = bpf_ktime_get_ns();
	if ((back->flags & flags) == flags)
		return;
	__sync_fetch_and_or(&back->flags, flags);
	if (!is_closed(back) || !(__sync_fetch_and_and(&back->flags, ~FLOW_COUNTED) & FLOW_COUNTED))
		return;
	int from_backend = fin == FLOW_BACKEND_FIN;
	struct endpoint backend = { .port = from_backend ? p->tuple.sport : p->to.dport, .proto = p->tuple.proto };
	copy_addr(backend.addr, from_backend ? p->tuple.saddr : p->to.daddr);
	load_drop(&pv_flow_load, &backend);
}

// goes_on reports whether a packet of a client belongs to the flow that is known by its tuple, rather than to a new one.
static __always_inline int goes_on(const struct packet *p, const struct flow *forth, struct flow *back)
{
	if (p->tuple.proto == IPPROTO_TCP && !opens(p))
		return 1;
	struct slot backend = { .port = forth->rewritten.dport };
	copy_addr(backend.addr, forth->rewritten.daddr);
	struct settings *settings = load_settings();
	if (!settings || is_closed(back) || !is_member(forth->set, &backend))
		return 0;
	return !is_over(back, p->tuple.proto, settings, bpf_ktime_get_ns());
}

// current_flow finds how a packet leaves, p->to; it reports 0 for one that belongs to no flow yet.
static __always_inline int current_flow(struct packet *p)
{
	struct flow *flow = bpf_map_lookup_elem(&pv_flows, &p->tuple);
	if (!flow)
		return 0;
	p->to = flow->rewritten;
	if (!flow->set) {
		note(flow, p, FLOW_BACKEND_FIN, FLOW_ANSWERED);
		return 1;
	}
	struct flow *back = back_of(p, flow);
	if (back && goes_on(p, flow, back)) {
		note(back, p, FLOW_CLIENT_FIN, 0);
		return 1;
	}
	if (back) {
		bpf_map_delete_elem(&pv_flows, &p->key);
	} else if (p->tuple.proto == IPPROTO_TCP && !opens(p)) {
		// The map was full and the way back went. It is entered again unless its place is taken.
		p->back.seen_ns = bpf_ktime_get_ns();
		p->back.flags = FLOW_ANSWERED;
		invert(&p->tuple, &p->back.rewritten);
		if (keep_source(p, &p->to) == 0)
			return 1;
	}
	bpf_map_delete_elem(&pv_flows, &p->tuple);
	return 0;
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

// pick_for picks a backend for the client of a packet, p->backend.
__noinline int pick_for(struct packet *p, __u32 set_id)
{
	if (!p)
		return PICKED_NONE;
	// The same on every node, so that a flow which changes its way in keeps its backend with Maglev.
	struct asking asking = { .proto = p->tuple.proto, .hash = mix(p->tuple.proto, (__u32)p->tuple.sport) };
	copy_addr(asking.client, p->tuple.saddr);
	for (int i = 0; i < 4; i++)
		asking.hash = mix(asking.hash, asking.client[i]);
	return pick(set_id, &asking, &p->backend);
}

static __always_inline int serve(struct __sk_buff *skb, struct packet *p, int from_outside)
{
	struct endpoint asked = { .port = p->tuple.dport, .proto = p->tuple.proto };
	copy_addr(asked.addr, p->tuple.daddr);
	struct frontend *frontend = find_frontend(&asked, 0);
	if (!frontend)
		return -1;
	if ((frontend->flags & FRONTEND_GUARDED) && !is_allowed(frontend->outer_set, p->tuple.saddr)) {
		count(COUNTER_SOURCE_DENIED);
		return TC_ACT_SHOT;
	}
	__u32 set_id = from_outside ? frontend->outer_set : frontend->inner_set;
	// Only a SYN opens a TCP flow: the rest of an unknown one is refused.
	if (p->tuple.proto == IPPROTO_TCP && !opens(p))
		return p->tcp_flags & TCP_RST ? TC_ACT_SHOT : refuse(skb);
	int picked = pick_for(p, set_id);
	if (picked == PICKED_ONE)
		return open_flow(p, set_id) ? TC_ACT_SHOT : forward(skb, p);
	if (picked == PICKED_DROP) {
		count(COUNTER_FLOW_DROPPED);
		return TC_ACT_SHOT;
	}
	return refuse(skb);
}

static __always_inline int enter(struct __sk_buff *skb, struct packet *p, int from_outside)
{
	if (!p->has_ports) {
		int translated = translate_error(skb, p, 0);
		if (translated <= 0)
			return translated < 0 ? TC_ACT_SHOT : -1;
		__u32 mtu = 0;
		return leave(skb, p, route(skb, p, &p->tuple, &mtu));
	}
	if (current_flow(p))
		return forward(skb, p);
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
	struct packet *p = begin();
	if (!p || parse(skb, p, ETH_HLEN) < 0)
		return TC_ACT_UNSPEC;
	int verdict = enter(skb, p, 1);
	// Where pods of other nodes come in without a tunnel.
	if (verdict < 0 && find_remote(p->tuple.saddr))
		verdict = to_pod(skb, p);
	return finish(verdict);
}

static __always_inline int from_tunnel(struct __sk_buff *skb, __u8 l2)
{
	struct packet *p = begin();
	if (!p || parse(skb, p, l2) < 0)
		return TC_ACT_UNSPEC;
	int verdict = enter(skb, p, 1);
	if (verdict < 0)
		verdict = to_pod(skb, p);
	return finish(verdict);
}

// On the ingress of a tunnel: pods and nodes of the cluster, and answers to what this node sent on.
SEC("tc")
int pv_from_tunnel(struct __sk_buff *skb)
{
	return from_tunnel(skb, ETH_HLEN);
}

// The same for a tunnel without hardware addresses (WireGuard, TUN).
SEC("tc")
int pv_from_tunnel_l3(struct __sk_buff *skb)
{
	return from_tunnel(skb, 0);
}

// On the egress of a link to the outside world, or to a pod: answers and errors of backends that live in the host's own
// namespace.
SEC("tc")
int pv_to_outside(struct __sk_buff *skb)
{
	struct packet *p = begin();
	if (!p || parse(skb, p, ETH_HLEN) < 0)
		return TC_ACT_UNSPEC;
	if (!p->has_ports)
		return translate_error(skb, p, 1) < 0 ? TC_ACT_SHOT : TC_ACT_UNSPEC;
	struct flow *flow = bpf_map_lookup_elem(&pv_flows, &p->tuple);
	if (!flow || flow->set)
		return TC_ACT_UNSPEC;
	note(flow, p, FLOW_BACKEND_FIN, FLOW_ANSWERED);
	p->to = flow->rewritten;
	return rewrite(skb, p, &p->to) < 0 ? TC_ACT_SHOT : TC_ACT_UNSPEC;
}

// On the host's end of a pod's link: everything that the pod sends.
SEC("tc")
int pv_from_pod(struct __sk_buff *skb)
{
	struct packet *p = begin();
	if (!p || parse(skb, p, ETH_HLEN) < 0)
		return TC_ACT_UNSPEC;
	int verdict = enter(skb, p, 0);
	if (verdict < 0)
		verdict = to_pod(skb, p);
	if (verdict < 0)
		verdict = to_remote(skb, p);
	return finish(verdict);
}

char __license[] SEC("license") = "Dual MIT/GPL";
