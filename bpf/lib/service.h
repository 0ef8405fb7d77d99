/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * Services: which frontend an address is, and which backend serves a client. Used by the socket hooks (at
 * connect) and by the packet programs (where no hook ran). Both cost the same with one service or ten
 * thousand.
 *
 * Backends sit in slots from 1, the node's own first, so "local only" is a smaller count and choosing is one
 * random number and two lookups. Slot 0 of a service that has a listener is its own ClusterIP.
 */
#ifndef MYCEL_SERVICE_H
#define MYCEL_SERVICE_H

#include "identity.h"
#include "maps.h"

#define SLOT_CLUSTER_IP	  0
#define AFFINITY_SCAN_MAX 64 /* slots looked through to see that a remembered backend still serves */

/* Who asks decides which frontends answer. */
enum service_client {
	CLIENT_CLUSTER, /* a pod or the node */
	CLIENT_OUTSIDE,
};

static __always_inline bool is_nodeport(__be16 port)
{
	__u16 host = bpf_ntohs(port);

	return host >= config_nodeport_min && host <= config_nodeport_max;
}

static __always_inline struct service_value *service_find_at(const struct addr *addr, __be16 port, __u8 protocol)
{
	struct service_key key = {.addr = *addr, .port = port, .protocol = protocol};

	return bpf_map_lookup_elem(&mycel_services, &key);
}

static __always_inline struct service_value *service_find_nodeport(bool v6, __be16 port, __u8 protocol)
{
	struct service_key key = {.port = port, .protocol = protocol};
	struct service_value *service;

	if (!v6)
		key.addr = addr_v4(0);
	service = bpf_map_lookup_elem(&mycel_services, &key);
	return service && service->flags & SERVICE_NODE_PORT ? service : NULL;
}

/* The service behind a destination, or NULL. `loopback`: NodePorts answer at 127.0.0.1 and ::1 (of the node's
 * own). */
static __always_inline struct service_value *service_find(const struct addr *addr, __be16 port, __u8 protocol,
							  __u32 client, bool loopback)
{
	struct service_value *service = service_find_at(addr, port, protocol);
	__u16 outside = SERVICE_LOAD_BALANCER | SERVICE_EXTERNAL_IP | SERVICE_NODE_PORT;

	if (service)
		return client == CLIENT_CLUSTER || service->flags & outside ? service : NULL;
	if (!is_nodeport(port) || !(loopback || is_node_address(addr)))
		return NULL;
	return service_find_nodeport(!addr_is_v4(addr), port, protocol);
}

static __always_inline backend_id_t service_slot(service_id_t service_id, __u32 slot)
{
	struct slot_key key = {.service_id = service_id, .slot = slot};
	struct slot_value *value = bpf_map_lookup_elem(&mycel_service_slots, &key);

	return value ? value->backend_id : 0;
}

static __always_inline struct backend_value *backend_find(backend_id_t id)
{
	return bpf_map_lookup_elem(&mycel_backends, &id);
}

/* The backend this client was given before, if it still serves. */
static __noinline backend_id_t service_remembered(const struct service_value *service, const struct affinity_key *key,
						  __u32 count)
{
	struct affinity_value *last = bpf_map_lookup_elem(&mycel_affinity, key);

	if (!last || now_coarse_ns() - last->last_used_ns > (__u64)service->affinity_s * NS_PER_S)
		return 0;
	for (__u32 slot = 1; slot <= AFFINITY_SCAN_MAX; slot++) {
		if (slot > count)
			return 0;
		if (service_slot(service->service_id, slot) == last->backend_id)
			return last->backend_id;
	}
	return 0;
}

/*
 * Choose a backend. `client_addr` is what session affinity goes by. Returns NULL when none serves; *id is its
 * number. traffic policy Local: internal for those who come from inside by a ClusterIP, external for those
 * from outside.
 */
static __noinline struct backend_value *service_choose(const struct service_value *service,
						       const struct addr *client_addr, __u32 client, backend_id_t *id)
{
	__u16 only_local = client == CLIENT_OUTSIDE ? SERVICE_LOCAL_EXTERNAL : SERVICE_LOCAL_INTERNAL;
	__u32 count = service->flags & only_local ? service->local_count : service->backend_count;
	struct affinity_key key = {.client = *client_addr, .service_id = service->service_id};
	struct affinity_value used = {};
	backend_id_t chosen = 0;

	if (!count)
		return NULL;
	if (service->flags & SERVICE_AFFINITY)
		chosen = service_remembered(service, &key, count);
	if (!chosen)
		chosen = service_slot(service->service_id, bpf_get_prandom_u32() % count + 1);
	if (!chosen)
		return NULL;
	if (service->flags & SERVICE_AFFINITY) {
		used.last_used_ns = now_coarse_ns();
		used.backend_id = chosen;
		bpf_map_update_elem(&mycel_affinity, &key, &used, BPF_ANY);
	}
	*id = chosen;
	return backend_find(chosen);
}

#endif
