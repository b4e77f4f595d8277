//go:build ignore

// SPDX-License-Identifier: Apache-2.0
//
// Service translation where a connection starts: the destination is replaced before the kernel looks for a route, so a
// service costs a few map look-ups a connection and nothing a packet.
#include "maps.h"

#define ECONNREFUSED 111
#define ALLOW 1
#define DENY 0

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct peer);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} pv_peers SEC(".maps");

// Datagrams of a socket that is not connected: the backend stays the same while it is one (as connection tracking
// would have it), and answers carry the address that was asked.
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct socket_key);
	__type(value, struct slot);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} pv_datagrams SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct socket_key);
	__type(value, struct endpoint);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} pv_answers SEC(".maps");

static __always_inline __u8 protocol(struct bpf_sock_addr *ctx)
{
	return ctx->protocol == IPPROTO_MPTCP ? IPPROTO_TCP : (__u8)ctx->protocol;
}

static __always_inline void read4(struct bpf_sock_addr *ctx, struct endpoint *to)
{
	map_v4(to->addr, ctx->user_ip4);
	to->port = (__be16)ctx->user_port;
	to->proto = protocol(ctx);
}

static __always_inline void read6(struct bpf_sock_addr *ctx, struct endpoint *to)
{
	to->addr[0] = ctx->user_ip6[0];
	to->addr[1] = ctx->user_ip6[1];
	to->addr[2] = ctx->user_ip6[2];
	to->addr[3] = ctx->user_ip6[3];
	to->port = (__be16)ctx->user_port;
	to->proto = protocol(ctx);
}

static __always_inline void write4(struct bpf_sock_addr *ctx, const __u32 *addr, __be16 port)
{
	ctx->user_ip4 = addr[3];
	ctx->user_port = port;
}

static __always_inline void write6(struct bpf_sock_addr *ctx, const __u32 *addr, __be16 port)
{
	ctx->user_ip6[0] = addr[0];
	ctx->user_ip6[1] = addr[1];
	ctx->user_ip6[2] = addr[2];
	ctx->user_ip6[3] = addr[3];
	ctx->user_port = port;
}

enum asked { ASKED_OTHER = 0, ASKED_SERVICE, ASKED_DENIED };

// ask finds what a socket asks for: a service, something else, or a service that is not for it.
static __always_inline int ask(struct bpf_sock_addr *ctx, const struct endpoint *asked, __u64 *netns,
			       struct frontend **frontend)
{
	*netns = bpf_get_netns_cookie(ctx);
	struct settings *settings = load_settings();
	if (!settings)
		return ASKED_OTHER;
	int on_host = *netns == settings->host_netns;
	struct frontend *found = find_frontend(asked, on_host);
	if (!found)
		return ASKED_OTHER;
	if (found->flags & FRONTEND_GUARDED) {
		// A pod's address shows on its packets only: the program on its link decides.
		if (!on_host)
			return ASKED_OTHER;
		if (!is_allowed(found->outer_set, is_v4(asked->addr) ? settings->nat4 : settings->nat6)) {
			count(COUNTER_SOURCE_DENIED);
			return ASKED_DENIED;
		}
	}
	*frontend = found;
	return ASKED_SERVICE;
}

static __always_inline int choose(struct bpf_sock_addr *ctx, struct frontend *frontend, __u64 netns, __u8 proto,
				  struct slot *backend)
{
	struct asking asking = { .client = { (__u32)netns, (__u32)(netns >> 32), 0, 0 }, .proto = proto };
	// The port is not known yet, but the socket is the connection.
	__u64 cookie = bpf_get_socket_cookie(ctx);
	asking.hash = mix(mix((__u32)netns, (__u32)cookie), (__u32)(cookie >> 32));
	int picked = pick(frontend->inner_set, &asking, backend);
	count(picked == PICKED_ONE ? COUNTER_SOCKET_TRANSLATED : COUNTER_SOCKET_REFUSED);
	return picked == PICKED_ONE;
}

static __always_inline void uncount(struct peer *peer)
{
	if (!peer->counted)
		return;
	peer->counted = 0;
	load_drop(&pv_socket_load, &peer->reached);
}

static __always_inline int refuse(void)
{
	bpf_set_retval(-ECONNREFUSED);
	return DENY;
}

static __always_inline int forget_peer(struct bpf_sock_addr *ctx)
{
	if (!ctx->sk)
		return ALLOW;
	struct peer *peer = bpf_sk_storage_get(&pv_peers, ctx->sk, 0, 0);
	if (peer) {
		uncount(peer);
		bpf_sk_storage_delete(&pv_peers, ctx->sk);
	}
	return ALLOW;
}

static __always_inline int connect_to(struct bpf_sock_addr *ctx, struct endpoint *asked, struct slot *backend)
{
	__u64 netns;
	struct frontend *frontend = 0;
	int what = ask(ctx, asked, &netns, &frontend);
	if (what != ASKED_SERVICE || !frontend)
		return what == ASKED_DENIED ? DENY : -1;
	if (!choose(ctx, frontend, netns, asked->proto, backend))
		return refuse();
	struct peer *peer = ctx->sk ? bpf_sk_storage_get(&pv_peers, ctx->sk, 0, BPF_SK_STORAGE_GET_F_CREATE) : 0;
	if (peer) {
		uncount(peer);
		peer->asked = *asked;
		copy_addr(peer->reached.addr, backend->addr);
		peer->reached.port = backend->port;
		peer->reached.proto = asked->proto;
		if (backend->flags & SLOT_COUNTED) {
			peer->counted = 1;
			load_add(&pv_socket_load, &peer->reached);
		}
	}
	return ALLOW;
}

SEC("cgroup/sock_release")
int pv_release(struct bpf_sock *ctx)
{
	struct peer *peer = bpf_sk_storage_get(&pv_peers, ctx, 0, 0);
	if (peer)
		uncount(peer);
	return ALLOW;
}

SEC("cgroup/connect4")
int pv_connect4(struct bpf_sock_addr *ctx)
{
	struct endpoint asked = {};
	struct slot backend = {};
	read4(ctx, &asked);
	int verdict = connect_to(ctx, &asked, &backend);
	if (verdict < 0)
		return forget_peer(ctx);
	if (verdict == ALLOW)
		write4(ctx, backend.addr, backend.port);
	return verdict;
}

SEC("cgroup/connect6")
int pv_connect6(struct bpf_sock_addr *ctx)
{
	struct endpoint asked = {};
	struct slot backend = {};
	read6(ctx, &asked);
	int verdict = connect_to(ctx, &asked, &backend);
	if (verdict < 0)
		return forget_peer(ctx);
	if (verdict == ALLOW)
		write6(ctx, backend.addr, backend.port);
	return verdict;
}

static __always_inline int send_to(struct bpf_sock_addr *ctx, struct endpoint *asked, struct slot *backend)
{
	__u64 netns;
	struct frontend *frontend = 0;
	int what = ask(ctx, asked, &netns, &frontend);
	if (what != ASKED_SERVICE || !frontend)
		return what == ASKED_DENIED ? DENY : -1;
	struct socket_key key = { .cookie = bpf_get_socket_cookie(ctx), .remote = *asked };
	struct slot *last = bpf_map_lookup_elem(&pv_datagrams, &key);
	if (last && is_member(frontend->inner_set, last)) {
		*backend = *last;
		count(COUNTER_SOCKET_TRANSLATED);
		return ALLOW;
	}
	if (!choose(ctx, frontend, netns, asked->proto, backend))
		return refuse();
	bpf_map_update_elem(&pv_datagrams, &key, backend, BPF_ANY);
	struct socket_key answer = { .cookie = key.cookie };
	copy_addr(answer.remote.addr, backend->addr);
	answer.remote.port = backend->port;
	answer.remote.proto = asked->proto;
	bpf_map_update_elem(&pv_answers, &answer, asked, BPF_ANY);
	return ALLOW;
}

SEC("cgroup/sendmsg4")
int pv_sendmsg4(struct bpf_sock_addr *ctx)
{
	struct endpoint asked = {};
	struct slot backend = {};
	read4(ctx, &asked);
	int verdict = send_to(ctx, &asked, &backend);
	if (verdict == ALLOW)
		write4(ctx, backend.addr, backend.port);
	return verdict < 0 ? ALLOW : verdict;
}

SEC("cgroup/sendmsg6")
int pv_sendmsg6(struct bpf_sock_addr *ctx)
{
	struct endpoint asked = {};
	struct slot backend = {};
	read6(ctx, &asked);
	int verdict = send_to(ctx, &asked, &backend);
	if (verdict == ALLOW)
		write6(ctx, backend.addr, backend.port);
	return verdict < 0 ? ALLOW : verdict;
}

static __always_inline struct endpoint *asked_of_peer(struct bpf_sock_addr *ctx, const struct endpoint *remote)
{
	struct peer *peer = ctx->sk ? bpf_sk_storage_get(&pv_peers, ctx->sk, 0, 0) : 0;
	if (peer && same_addr(peer->reached.addr, remote->addr) && peer->reached.port == remote->port)
		return &peer->asked;
	return 0;
}

static __always_inline struct endpoint *asked_of_answer(struct bpf_sock_addr *ctx, const struct endpoint *remote)
{
	struct endpoint *asked = asked_of_peer(ctx, remote);
	if (asked)
		return asked;
	struct socket_key key = { .cookie = bpf_get_socket_cookie(ctx), .remote = *remote };
	return bpf_map_lookup_elem(&pv_answers, &key);
}

SEC("cgroup/recvmsg4")
int pv_recvmsg4(struct bpf_sock_addr *ctx)
{
	struct endpoint remote = {};
	read4(ctx, &remote);
	struct endpoint *asked = asked_of_answer(ctx, &remote);
	if (asked)
		write4(ctx, asked->addr, asked->port);
	return ALLOW;
}

SEC("cgroup/recvmsg6")
int pv_recvmsg6(struct bpf_sock_addr *ctx)
{
	struct endpoint remote = {};
	read6(ctx, &remote);
	struct endpoint *asked = asked_of_answer(ctx, &remote);
	if (asked)
		write6(ctx, asked->addr, asked->port);
	return ALLOW;
}

SEC("cgroup/getpeername4")
int pv_getpeername4(struct bpf_sock_addr *ctx)
{
	struct endpoint remote = {};
	read4(ctx, &remote);
	struct endpoint *asked = asked_of_peer(ctx, &remote);
	if (asked)
		write4(ctx, asked->addr, asked->port);
	return ALLOW;
}

SEC("cgroup/getpeername6")
int pv_getpeername6(struct bpf_sock_addr *ctx)
{
	struct endpoint remote = {};
	read6(ctx, &remote);
	struct endpoint *asked = asked_of_peer(ctx, &remote);
	if (asked)
		write6(ctx, asked->addr, asked->port);
	return ALLOW;
}

char __license[] SEC("license") = "Dual MIT/GPL";
