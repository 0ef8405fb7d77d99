/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * Who has an address, and how it is reached. This node's endpoints first, then exact addresses (pods, nodes),
 * then addresses that names were resolved to, then prefixes (pod networks, CIDRs of policies); nobody is the world.
 */
#ifndef MYCEL_IDENTITY_H
#define MYCEL_IDENTITY_H

#include "maps.h"

#define IDENTITY_WIRE_MAX 0xffffff /* a VNI's 24 bits; above are identities only this node knows */

static __always_inline struct endpoint_value *endpoint_find(const struct addr *addr)
{
	return bpf_map_lookup_elem(&mycel_endpoints, addr);
}

static __noinline struct ipcache_value *ipcache_find_prefix(const struct addr *addr)
{
	struct ipcache_lpm_key key = {.prefixlen = 128};

	__builtin_memcpy(key.addr, addr, sizeof(key.addr));
	return bpf_map_lookup_elem(&mycel_ipcache_lpm, &key);
}

static __always_inline struct ipcache_value *ipcache_find(const struct addr *addr)
{
	struct ipcache_value *info = bpf_map_lookup_elem(&mycel_ipcache, addr);

	if (!info)
		info = bpf_map_lookup_elem(&mycel_names, addr);
	return info ? info : ipcache_find_prefix(addr);
}

static __always_inline bool is_node_address(const struct addr *addr)
{
	struct ipcache_value *info = bpf_map_lookup_elem(&mycel_ipcache, addr);

	return info && info->flags & IPCACHE_NODE;
}

/* Where a packet goes next, by its destination. */
enum target {
	TARGET_ENDPOINT, /* a pod of this node: `endpoint` */
	TARGET_STACK,	 /* an address of this node */
	TARGET_OVERLAY,	 /* another node's, or its pods': `info` */
	TARGET_OUT,	 /* neither */
	TARGET_NOWHERE,	 /* of the cluster's networks, but nobody has it */
};

struct route {
	struct endpoint_value *endpoint;
	struct ipcache_value *info;
	__u32 target;
	identity_t identity;
};

static __always_inline void route_find(struct route *route, const struct addr *destination)
{
	struct ipcache_value *info;

	route->info = NULL;
	route->endpoint = endpoint_find(destination);
	if (likely(route->endpoint != NULL)) {
		route->identity = route->endpoint->identity;
		route->target = route->endpoint->flags & ENDPOINT_HOST ? TARGET_STACK : TARGET_ENDPOINT;
		return;
	}
	route->info = info = ipcache_find(destination);
	route->identity = info ? info->identity : IDENTITY_WORLD;
	if (!info)
		route->target = TARGET_OUT;
	else if (info->flags & IPCACHE_TUNNEL)
		route->target = TARGET_OVERLAY;
	else
		route->target = info->flags & IPCACHE_CLUSTER ? TARGET_NOWHERE : TARGET_OUT;
}

/* What a node calls itself to others, and what only it knows, is translated for the wire. */
static __always_inline identity_t identity_on_wire(identity_t identity)
{
	if (identity == IDENTITY_HOST)
		return IDENTITY_REMOTE_NODE;
	return identity > IDENTITY_WIRE_MAX ? IDENTITY_WORLD : identity;
}

#endif
