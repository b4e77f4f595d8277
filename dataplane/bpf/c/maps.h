// SPDX-License-Identifier: Apache-2.0
//
// Types and maps that the socket and the packet programs share. Every address is 16 bytes; IPv4 is written in its
// IPv6-mapped form, so that one set of maps serves both families. The Go twins of these structs are in layout.go;
// a test compares the sizes with the BTF of the compiled objects.
#pragma once

#include <linux/bpf.h>
#include <linux/in.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP 262
#endif

#define NS_PER_SECOND 1000000000ULL
// A set can shrink between the read of its size and the read of a slot: pick again, this often at most.
#define PICK_ATTEMPTS 3

// The size of a Maglev table, a prime. An entry that is missing leads to a slot at random.
#define MAGLEV_ENTRIES 1021
// Least connections compares all backends of a set up to so many, and so many neighbours of a larger one.
#define LEAST_COMPARED 16

enum algorithm {
	ALGORITHM_RANDOM = 0,
	ALGORITHM_ROUND_ROBIN = 1,
	ALGORITHM_MAGLEV = 2,
	ALGORITHM_LEAST_CONNECTIONS = 3,
};

enum set_flags {
	// With no backend here although the service has some elsewhere: drop instead of refusing.
	SET_DROP_WHEN_EMPTY = 1 << 0,
};

enum slot_flags {
	// The backend runs on this node: packets to it need no change of source.
	SLOT_LOCAL = 1 << 0,
	// What was picked is to be counted as a connection. It stands in no map.
	SLOT_COUNTED = 1 << 15,
};

enum frontend_flags {
	// Only clients of the sources that are listed for the outer set are served.
	FRONTEND_GUARDED = 1 << 0,
};

enum counter {
	COUNTER_SOCKET_TRANSLATED = 0,
	COUNTER_SOCKET_REFUSED,
	COUNTER_FLOW_OPENED,
	COUNTER_FLOW_REJECTED,
	COUNTER_FLOW_DROPPED,
	COUNTER_POD_REDIRECTED,
	// No source port was free: the packet that would have opened the flow was dropped.
	COUNTER_FLOW_EXHAUSTED,
	// A source port was taken over from a flow that had ended.
	COUNTER_FLOW_RECLAIMED,
	COUNTER_ERROR_TRANSLATED,
	COUNTER_TOO_BIG_SENT,
	COUNTER_SOURCE_DENIED,
	COUNTER_REMOTE_REDIRECTED,
	COUNTER_MAX = 16,
};

// An address with port and protocol: what a client asks for, and the key of the frontends.
struct endpoint {
	__u32 addr[4];
	__be16 port;
	__u8 proto;
	__u8 pad;
};

// inner_set serves what starts on this node, outer_set what arrives from outside (the external traffic policy).
struct frontend {
	__u32 inner_set;
	__u32 outer_set;
	__u32 flags;
};

// A range of addresses: set is part of the prefix, so prefix_bits begins at 32.
struct source_key {
	__u32 prefix_bits;
	__u32 set;
	__u32 addr[4];
};

struct set {
	__u32 count;
	__u32 affinity_seconds;
	__u16 flags;
	__u8 algorithm;
	__u8 pad;
};

struct slot_key {
	__u32 set;
	__u32 index;
};

struct slot {
	__u32 addr[4];
	__be16 port;
	__u16 flags;
};

struct member_key {
	__u32 set;
	__u32 addr[4];
	__be16 port;
	__u16 pad;
};

struct member {
	__u32 index;
};

// client is a network namespace's cookie in the first half, or an address.
struct affinity_key {
	__u32 set;
	__u32 client[4];
};

struct affinity {
	__u64 seen_ns;
	struct slot backend;
	__u32 pad;
};

// What a connected socket was asked to reach, and what it reaches instead.
struct peer {
	struct endpoint asked;
	struct endpoint reached;
	// 1 while the socket counts as a connection of what it reaches.
	__u32 counted;
};

struct socket_key {
	__u64 cookie;
	struct endpoint remote;
	__u32 pad;
};

struct tuple {
	__u32 saddr[4];
	__u32 daddr[4];
	__be16 sport;
	__be16 dport;
	__u8 proto;
	__u8 pad[3];
};

enum flow_flags {
	FLOW_CLIENT_FIN = 1 << 0,
	FLOW_BACKEND_FIN = 1 << 1,
	FLOW_RESET = 1 << 2,
	FLOW_ANSWERED = 1 << 3,
	// The flow counts as a connection of its backend.
	FLOW_COUNTED = 1 << 4,
};

// A flow's other form: packets that match the key leave as `rewritten`. set is 0 in the entry of the way back, which is
// where the state of the flow is.
struct flow {
	__u64 seen_ns;
	struct tuple rewritten;
	__u32 set;
	__u32 flags;
	__u32 pad[2];
};

struct pod_key {
	__u32 addr[4];
};

struct pod {
	__u32 ifindex;
	__u8 mac[6];
	__u8 host_mac[6];
};

struct settings {
	__u64 host_netns;
	// The sources of translated flows to distant backends: pods of other nodes answer to pod_nat, all others to nat.
	__u32 nat4[4];
	__u32 nat6[4];
	__u32 pod_nat4[4];
	__u32 pod_nat6[4];
	__u32 reject_mark;
	// Source ports of flows whose source is translated: a span that the host's own sockets do not draw from.
	__u16 snat_port_first;
	__u16 snat_ports;
	// How long a silent flow is kept.
	__u32 tcp_opening_seconds;
	__u32 tcp_idle_seconds;
	__u32 tcp_closed_seconds;
	__u32 udp_idle_seconds;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct settings);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} pv_settings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 262144);
	__type(key, struct endpoint);
	__type(value, struct frontend);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} pv_frontends SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 262144);
	__type(key, __u32);
	__type(value, struct set);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} pv_sets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1048576);
	__type(key, struct slot_key);
	__type(value, struct slot);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} pv_slots SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1048576);
	__type(key, struct member_key);
	__type(value, struct member);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} pv_members SEC(".maps");

// Maglev tables: which backend an entry of a set's table leads to.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 524288);
	__type(key, struct slot_key);
	__type(value, struct slot);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} pv_tables SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 262144);
	__type(key, struct source_key);
	__type(value, __u32);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} pv_sources SEC(".maps");

// How many connections a backend has: of sockets, and of flows of packets. Only sets that go by it are counted.
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct endpoint);
	__type(value, __u32);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} pv_socket_load SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct endpoint);
	__type(value, __u32);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} pv_flow_load SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct affinity_key);
	__type(value, struct affinity);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} pv_affinity SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, __u32);
	__type(value, __u32);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} pv_cursors SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1024);
	__type(key, struct pod_key);
	__type(value, __u32);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} pv_locals SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTER_MAX);
	__type(key, __u32);
	__type(value, __u64);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} pv_counters SEC(".maps");

static __always_inline void count(__u32 which)
{
	__u64 *value = bpf_map_lookup_elem(&pv_counters, &which);
	if (value)
		*value += 1;
}

static __always_inline void copy_addr(__u32 *to, const __u32 *from)
{
	to[0] = from[0];
	to[1] = from[1];
	to[2] = from[2];
	to[3] = from[3];
}

static __always_inline int same_addr(const __u32 *a, const __u32 *b)
{
	return a[0] == b[0] && a[1] == b[1] && a[2] == b[2] && a[3] == b[3];
}

static __always_inline void map_v4(__u32 *to, __u32 v4)
{
	to[0] = 0;
	to[1] = 0;
	to[2] = bpf_htonl(0xffff);
	to[3] = v4;
}

static __always_inline int is_v4(const __u32 *addr)
{
	return addr[0] == 0 && addr[1] == 0 && addr[2] == bpf_htonl(0xffff);
}

static __always_inline int is_loopback(const __u32 *addr)
{
	if (is_v4(addr))
		return (bpf_ntohl(addr[3]) >> 24) == 127;
	return addr[0] == 0 && addr[1] == 0 && addr[2] == 0 && addr[3] == bpf_htonl(1);
}

static __always_inline struct settings *load_settings(void)
{
	__u32 zero = 0;
	return bpf_map_lookup_elem(&pv_settings, &zero);
}

// find_frontend looks the address up as it is, then, if it is one of this machine's, as "any local address".
static __always_inline struct frontend *find_frontend(const struct endpoint *asked, int loopback_is_local)
{
	struct frontend *found = bpf_map_lookup_elem(&pv_frontends, asked);
	if (found)
		return found;
	struct endpoint any = { .port = asked->port, .proto = asked->proto };
	if (is_v4(asked->addr))
		any.addr[2] = bpf_htonl(0xffff);
	found = bpf_map_lookup_elem(&pv_frontends, &any);
	if (!found)
		return 0;
	if (is_loopback(asked->addr))
		return loopback_is_local ? found : 0;
	if (!bpf_map_lookup_elem(&pv_locals, asked->addr))
		return 0;
	return found;
}

static __always_inline int is_member(__u32 set, const struct slot *backend)
{
	struct member_key key = { .set = set, .port = backend->port };
	copy_addr(key.addr, backend->addr);
	return bpf_map_lookup_elem(&pv_members, &key) != 0;
}

static __always_inline __u32 next_turn(__u32 set)
{
	__u32 *cursor = bpf_map_lookup_elem(&pv_cursors, &set);
	if (cursor)
		return __sync_fetch_and_add(cursor, 1);
	__u32 first = 1;
	bpf_map_update_elem(&pv_cursors, &set, &first, BPF_NOEXIST);
	return 0;
}

static __always_inline int is_allowed(__u32 set, const __u32 *addr)
{
	struct source_key key = { .prefix_bits = 32 + 128, .set = set };
	copy_addr(key.addr, addr);
	return bpf_map_lookup_elem(&pv_sources, &key) != 0;
}

static __always_inline void load_add(void *map, const struct endpoint *backend)
{
	__u32 *load = bpf_map_lookup_elem(map, backend);
	if (load) {
		__sync_fetch_and_add(load, 1);
		return;
	}
	__u32 first = 1;
	bpf_map_update_elem(map, backend, &first, BPF_NOEXIST);
}

static __always_inline void load_drop(void *map, const struct endpoint *backend)
{
	__u32 *load = bpf_map_lookup_elem(map, backend);
	if (load && *load)
		__sync_fetch_and_add(load, -1);
}

// The functions below that are not static are checked by the kernel by themselves, once: in place, the loops within loops
// would take it seconds at each start. A pointer may be null there.
__noinline __u32 load_of(const struct slot *slot, __u8 proto)
{
	if (!slot)
		return 0;
	struct endpoint backend = { .port = slot->port, .proto = proto };
	copy_addr(backend.addr, slot->addr);
	__u32 *sockets = bpf_map_lookup_elem(&pv_socket_load, &backend);
	__u32 *flows = bpf_map_lookup_elem(&pv_flow_load, &backend);
	return (sockets ? *sockets : 0) + (flows ? *flows : 0);
}

// mix folds a word into a hash.
static __always_inline __u32 mix(__u32 hash, __u32 word)
{
	hash ^= word * 0xcc9e2d51;
	hash = (hash << 13) | (hash >> 19);
	hash = hash * 5 + 0xe6546b64;
	hash ^= hash >> 16;
	hash *= 0x85ebca6b;
	return hash ^ (hash >> 13);
}

enum picked { PICKED_NONE = 0, PICKED_DROP, PICKED_ONE };

// asking is what a pick goes by besides the set.
struct asking {
	// The client as affinity knows it.
	__u32 client[4];
	// What makes this connection different from others of the client.
	__u32 hash;
	__u8 proto;
};

// pick_least takes the backend with the fewest connections, beginning anywhere so that equal ones get equal shares.
__noinline int pick_least(__u32 set_id, __u32 size, __u8 proto, struct slot *out)
{
	if (!out || !size)
		return 0;
	__u32 start = bpf_get_prandom_u32() % size, least = ~0U;
	for (__u32 i = 0; i < LEAST_COMPARED && i < size; i++) {
		struct slot_key key = { .set = set_id, .index = (start + i) % size };
		struct slot *slot = bpf_map_lookup_elem(&pv_slots, &key);
		if (!slot)
			continue;
		__u32 load = load_of(slot, proto);
		if (load >= least)
			continue;
		least = load;
		*out = *slot;
		if (!load)
			break;
	}
	return least != ~0U;
}

static __always_inline int pick_at(void *map, __u32 set_id, __u32 index, struct slot *out)
{
	struct slot_key key = { .set = set_id, .index = index };
	struct slot *slot = bpf_map_lookup_elem(map, &key);
	if (slot)
		*out = *slot;
	return slot != 0;
}

__noinline int pick_slot(__u32 set_id, const struct asking *asking, struct slot *out)
{
	if (!asking || !out)
		return PICKED_NONE;
	for (int attempt = 0; attempt < PICK_ATTEMPTS; attempt++) {
		struct set *set = bpf_map_lookup_elem(&pv_sets, &set_id);
		if (!set)
			return PICKED_NONE;
		__u32 size = set->count;
		if (!size)
			return set->flags & SET_DROP_WHEN_EMPTY ? PICKED_DROP : PICKED_NONE;
		if (set->algorithm == ALGORITHM_MAGLEV && pick_at(&pv_tables, set_id, asking->hash % MAGLEV_ENTRIES, out))
			return PICKED_ONE;
		if (set->algorithm == ALGORITHM_LEAST_CONNECTIONS && pick_least(set_id, size, asking->proto, out))
			return PICKED_ONE;
		__u32 turn = set->algorithm == ALGORITHM_ROUND_ROBIN ? next_turn(set_id) : bpf_get_prandom_u32();
		if (pick_at(&pv_slots, set_id, turn % size, out))
			return PICKED_ONE;
	}
	return PICKED_NONE;
}

// pick chooses a backend of the set for a client; the client keeps it while the set asks for affinity.
static __always_inline int pick(__u32 set_id, const struct asking *asking, struct slot *out)
{
	struct set *set = bpf_map_lookup_elem(&pv_sets, &set_id);
	if (!set)
		return PICKED_NONE;
	__u16 counted = set->algorithm == ALGORITHM_LEAST_CONNECTIONS ? SLOT_COUNTED : 0;
	int result = PICKED_ONE;
	if (!set->affinity_seconds) {
		result = pick_slot(set_id, asking, out);
		out->flags |= counted;
		return result;
	}

	__u64 now = bpf_ktime_get_ns();
	struct affinity_key key = { .set = set_id };
	copy_addr(key.client, asking->client);
	struct affinity *last = bpf_map_lookup_elem(&pv_affinity, &key);
	if (last && now - last->seen_ns < set->affinity_seconds * NS_PER_SECOND && is_member(set_id, &last->backend)) {
		*out = last->backend;
		last->seen_ns = now;
	} else {
		result = pick_slot(set_id, asking, out);
		if (result == PICKED_ONE) {
			struct affinity fresh = { .seen_ns = now, .backend = *out };
			bpf_map_update_elem(&pv_affinity, &key, &fresh, BPF_ANY);
		}
	}
	out->flags |= counted;
	return result;
}
