/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * Services at the socket: the backend is chosen when a process dials, so no packet of the connection is ever
 * translated, and the cost of a service is paid once. Answers look to the process as if the frontend had sent them:
 * recvmsg for UDP, getpeername for both.
 *
 * A frontend without backends refuses the dial (ECONNREFUSED), with an event and a counter: what people understand.
 * IPv6 sockets that dial IPv4 need no code of their own, since their addresses are v4-mapped as all of ours are.
 */
#ifndef MYCEL_SOCKET_H
#define MYCEL_SOCKET_H

#include "events.h"
#include "maps.h"
#include "service.h"

#define SOCKET_ALLOW  1
#define SOCKET_REFUSE 0
#define ECONNREFUSED  111

static __always_inline struct addr socket_addr(const struct bpf_sock_addr *ctx, bool v6)
{
	struct addr addr;
	__u32 *words = (__u32 *)&addr;

	if (!v6)
		return addr_v4(ctx->user_ip4);
	words[0] = ctx->user_ip6[0];
	words[1] = ctx->user_ip6[1];
	words[2] = ctx->user_ip6[2];
	words[3] = ctx->user_ip6[3];
	return addr;
}

static __always_inline void socket_set(struct bpf_sock_addr *ctx, bool v6, const struct addr *addr, __be16 port)
{
	const __u32 *words = (const __u32 *)addr;

	if (v6) {
		ctx->user_ip6[0] = words[0];
		ctx->user_ip6[1] = words[1];
		ctx->user_ip6[2] = words[2];
		ctx->user_ip6[3] = words[3];
	} else {
		ctx->user_ip4 = addr_to_v4(addr);
	}
	ctx->user_port = port;
}

static __always_inline bool is_loopback(const struct addr *addr)
{
	struct addr one = {.hi = 0, .lo = bpf_cpu_to_be64(1)};

	return addr_is_v4(addr) ? (addr_to_v4(addr) & bpf_htonl(0xff000000)) == bpf_htonl(0x7f000000)
				: addr_equal(addr, &one);
}

/* Refuse a dial, and say so. The process's own address is not known yet. */
static __noinline int socket_refuse(struct bpf_sock_addr *ctx, const struct addr *addr, __be16 port)
{
	struct flow_event *event;

	count(DROP_SERVICE_BACKEND_NOT_FOUND, DIRECTION_EGRESS, 0);
	event = event_reserve();
	if (event) {
		__builtin_memset(event, 0, sizeof(*event));
		event->time_ns = bpf_ktime_get_ns();
		event->source = addr_is_v4(addr) ? addr_v4(0) : event->source;
		event->destination = *addr;
		event->destination_port = port;
		event->protocol = ctx->protocol;
		event->family = addr_is_v4(addr) ? 4 : 6;
		event->kind = EVENT_DROP;
		event->sub_type = DROP_SERVICE_BACKEND_NOT_FOUND;
		event->verdict = VERDICT_DROPPED;
		event->direction = DIRECTION_EGRESS;
		event->is_reply = REPLY_UNKNOWN;
		bpf_ringbuf_submit(event, 0);
	}
	bpf_set_retval(-ECONNREFUSED);
	return SOCKET_REFUSE;
}

/* The backend this UDP socket already talks to for a frontend, if that still exists. */
static __always_inline struct socket_nat_value *socket_remembered(const struct socket_nat_key *key)
{
	struct socket_nat_value *given = bpf_map_lookup_elem(&mycel_socket_nat, key);

	return given && backend_find(given->backend_id) ? given : NULL;
}

/* A socket dials: connect(2), or sendto(2) of an unconnected UDP one. */
static __always_inline int socket_dial(struct bpf_sock_addr *ctx, bool v6)
{
	struct addr addr = socket_addr(ctx, v6), client = {};
	__be16 port = ctx->user_port;
	__u8 protocol = ctx->protocol;
	struct socket_nat_key key = {};
	struct socket_nat_value value = {}, *given;
	struct service_value *service;
	struct backend_value *backend;
	bool of_node;

	if (protocol != IPPROTO_TCP && protocol != IPPROTO_UDP)
		return SOCKET_ALLOW;
	client.lo = bpf_get_netns_cookie(ctx);
	of_node = config_host_netns_cookie && client.lo == config_host_netns_cookie;
	service = service_find(&addr, port, protocol, CLIENT_CLUSTER, of_node && is_loopback(&addr));
	if (!service)
		return SOCKET_ALLOW;
	/* Its packets are given to the listener. Of the node's own, those to a ClusterIP get there, and only they. */
	if (service->proxy_port && (!of_node || service->flags & SERVICE_CLUSTER_IP))
		return SOCKET_ALLOW;
	key.cookie = bpf_get_socket_cookie(ctx);
	key.protocol = protocol;
	if (protocol == IPPROTO_UDP) {
		key.addr = addr;
		key.port = port;
		given = socket_remembered(&key);
		if (given && !service->proxy_port) {
			value = *given;
			socket_set(ctx, v6, &value.addr, value.port);
			return SOCKET_ALLOW;
		}
	}
	if (service->proxy_port) {
		value.backend_id = service_slot(service->service_id, SLOT_CLUSTER_IP);
		backend = backend_find(value.backend_id);
	} else {
		backend = service_choose(service, &client, CLIENT_CLUSTER, &value.backend_id);
	}
	if (!backend || addr_is_v4(&backend->addr) != addr_is_v4(&addr))
		return socket_refuse(ctx, &addr, port);
	value.addr = backend->addr;
	value.port = backend->port;
	if (protocol == IPPROTO_UDP)
		bpf_map_update_elem(&mycel_socket_nat, &key, &value, BPF_ANY);
	socket_set(ctx, v6, &value.addr, value.port);
	key.addr = value.addr;
	key.port = value.port;
	value.addr = addr;
	value.port = port;
	bpf_map_update_elem(&mycel_socket_nat, &key, &value, BPF_ANY);
	return SOCKET_ALLOW;
}

/* A socket asks who sent, or who is at the other end: the frontend it dialled. */
static __always_inline int socket_peer(struct bpf_sock_addr *ctx, bool v6)
{
	struct socket_nat_key key = {};
	struct socket_nat_value *value;
	struct addr addr;

	key.cookie = bpf_get_socket_cookie(ctx);
	key.addr = socket_addr(ctx, v6);
	key.port = ctx->user_port;
	key.protocol = ctx->protocol;
	value = bpf_map_lookup_elem(&mycel_socket_nat, &key);
	if (value) {
		addr = value->addr;
		socket_set(ctx, v6, &addr, value->port);
	}
	return SOCKET_ALLOW;
}

#endif
