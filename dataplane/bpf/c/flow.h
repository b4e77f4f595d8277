// SPDX-License-Identifier: Apache-2.0
//
// Flows. One is a pair of entries in one map, each saying how packets with a tuple have to leave: client→service becomes
// client→pod, and pod→client becomes service→client. The entry of the way back holds the state, for it is also what
// reserves the source port of a flow whose source is translated.
//
// A flow that has ended (both sides are through, a reset, silence) stays usable until somebody needs its port or the
// proxy sweeps it away: late packets still find their way, and no port is ever lost.
#pragma once

#include "parse.h"

#define SNAT_ATTEMPTS 32

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 131072);
	__type(key, struct tuple);
	__type(value, struct flow);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} pv_flows SEC(".maps");

static __always_inline void invert(const struct tuple *from, struct tuple *to)
{
	copy_addr(to->saddr, from->daddr);
	copy_addr(to->daddr, from->saddr);
	to->sport = from->dport;
	to->dport = from->sport;
	to->proto = from->proto;
}

static __always_inline int same_tuple(const struct tuple *a, const struct tuple *b)
{
	return same_addr(a->saddr, b->saddr) && same_addr(a->daddr, b->daddr) && a->sport == b->sport &&
	       a->dport == b->dport && a->proto == b->proto;
}

static __always_inline int is_closed(const struct flow *back)
{
	__u32 fins = FLOW_CLIENT_FIN | FLOW_BACKEND_FIN;
	return (back->flags & FLOW_RESET) || (back->flags & fins) == fins;
}

// is_over reports whether a flow, by its entry of the way back, has ended or was silent for too long.
static __always_inline int is_over(const struct flow *back, __u8 proto, const struct settings *settings, __u64 now)
{
	__u64 limit = settings->udp_idle_seconds;
	if (is_closed(back))
		limit = settings->tcp_closed_seconds;
	else if (proto == IPPROTO_TCP)
		limit = back->flags & FLOW_ANSWERED ? settings->tcp_idle_seconds : settings->tcp_opening_seconds;
	__u64 seen = back->seen_ns;
	return now > seen && now - seen > limit * NS_PER_SECOND;
}

// back_of finds the way back of a client's entry; 0 if it went, or is another flow's by now. It leaves the key in p.
static __always_inline struct flow *back_of(struct packet *p, const struct flow *forth)
{
	invert(&forth->rewritten, &p->key);
	struct flow *back = bpf_map_lookup_elem(&pv_flows, &p->key);
	if (!back || back->set)
		return 0;
	invert(&p->tuple, &p->original);
	return same_tuple(&back->rewritten, &p->original) ? back : 0;
}

// claim enters the way back of a new flow, p->back under p->key, in place of a flow that is over if need be.
__noinline int claim(struct packet *p)
{
	if (!p || bpf_map_update_elem(&pv_flows, &p->key, &p->back, BPF_NOEXIST) == 0)
		return p ? 0 : -1;
	struct settings *settings = load_settings();
	struct flow *old = bpf_map_lookup_elem(&pv_flows, &p->key);
	if (!old || !settings || old->set)
		return -1;
	if (same_tuple(&old->rewritten, &p->back.rewritten))
		return bpf_map_update_elem(&pv_flows, &p->key, &p->back, BPF_ANY);
	__u64 seen = old->seen_ns;
	if (!is_over(old, p->key.proto, settings, p->back.seen_ns))
		return -1;
	// Of several that find the same remains one wins.
	if (__sync_val_compare_and_swap(&old->seen_ns, seen, p->back.seen_ns) != seen)
		return -1;
	invert(&old->rewritten, &p->original);
	struct flow *forth = bpf_map_lookup_elem(&pv_flows, &p->original);
	if (forth) {
		struct tuple backwards = {};
		invert(&forth->rewritten, &backwards);
		if (same_tuple(&backwards, &p->key))
			bpf_map_delete_elem(&pv_flows, &p->original);
	}
	count(COUNTER_FLOW_RECLAIMED);
	return bpf_map_update_elem(&pv_flows, &p->key, &p->back, BPF_ANY);
}

// keep_source records the way back of a flow that keeps its source.
static __always_inline int keep_source(struct packet *p, const struct tuple *rewritten)
{
	invert(rewritten, &p->key);
	return claim(p);
}

// change_source finds a free source port for a flow and records its way back.
__noinline int change_source(struct packet *p)
{
	struct settings *settings = load_settings();
	if (!p || !settings || !settings->snat_ports)
		return -1;
	__u32 at = bpf_get_prandom_u32(), stride = bpf_get_prandom_u32() | 1;
	for (int i = 0; i < SNAT_ATTEMPTS; i++) {
		at += stride;
		p->forth.rewritten.sport = bpf_htons((__u16)(settings->snat_port_first + at % settings->snat_ports));
		invert(&p->forth.rewritten, &p->key);
		if (claim(p) == 0)
			return 0;
	}
	return -1;
}
