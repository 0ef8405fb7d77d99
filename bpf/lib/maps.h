/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Every map, with who writes it and what a miss means. The plan is the agent's; the rest is the kernel's own.
 */
#ifndef MYCEL_MAPS_H
#define MYCEL_MAPS_H

#include "base.h"

/* Written by the plan. Miss: the packet came from an interface nobody registered, and is dropped. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct interface_key);
	__type(value, struct endpoint_value);
	__uint(max_entries, LIMIT_INTERFACES);
} mycel_interfaces SEC(".maps");

/* Written by the plan. Miss: the address is not on this node. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct endpoint_key);
	__type(value, struct endpoint_value);
	__uint(max_entries, LIMIT_ENDPOINTS);
} mycel_endpoints SEC(".maps");

/* Written by the plan. Miss: look in mycel_names, then in mycel_ipcache_lpm. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct ipcache_key);
	__type(value, struct ipcache_value);
	__uint(max_entries, LIMIT_IPCACHE);
} mycel_ipcache SEC(".maps");

/* Written by the plan. Miss: world. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__type(key, struct ipcache_lpm_key);
	__type(value, struct ipcache_value);
	__uint(max_entries, LIMIT_IPCACHE_LPM);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} mycel_ipcache_lpm SEC(".maps");

/* Written by the plan. Miss: VXLAN from that address is dropped. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct node_key);
	__type(value, struct node_value);
	__uint(max_entries, LIMIT_NODES);
} mycel_nodes SEC(".maps");

/* Written by the plan. Miss: another node, or the stack, answers for that address. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct announced_key);
	__type(value, struct announced_value);
	__uint(max_entries, LIMIT_ANNOUNCED);
} mycel_announced SEC(".maps");

/* Written by the DNS proxy. Miss: look in mycel_ipcache_lpm. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct name_key);
	__type(value, struct ipcache_value);
	__uint(max_entries, LIMIT_NAMES);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} mycel_names SEC(".maps");

/* Written by the plan. Miss: what the socket's packets are marked with is not believed. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct proxy_key);
	__type(value, struct proxy_value);
	__uint(max_entries, LIMIT_PROXIES);
} mycel_proxies SEC(".maps");

/* Sizes and not types: clang leaves an inner map's types out of BTF. */
struct policy_rows {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(key_size, sizeof(struct policy_key));
	__uint(value_size, sizeof(struct policy_value));
	__uint(max_entries, LIMIT_POLICY_ROWS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
};

/* Written by the plan, whole sets at a time. Miss: denied, for endpoints that enforce. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH_OF_MAPS);
	__type(key, policy_set_t);
	__uint(max_entries, LIMIT_POLICY_SETS);
	__array(values, struct policy_rows);
} mycel_policy SEC(".maps");

/* Written by the plan. Miss: policy knows the address by its identity. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct alias_key);
	__type(value, struct alias_value);
	__uint(max_entries, LIMIT_ALIASES);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} mycel_aliases SEC(".maps");

/* Written by the plan. Miss: not a service. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct service_key);
	__type(value, struct service_value);
	__uint(max_entries, LIMIT_SERVICES);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} mycel_services SEC(".maps");

/* Written by the plan. Miss: no backend. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct slot_key);
	__type(value, struct slot_value);
	__uint(max_entries, LIMIT_SERVICE_SLOTS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} mycel_service_slots SEC(".maps");

/* Written by the plan. Miss: no backend; a connection to it chooses anew. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct backend_key);
	__type(value, struct backend_value);
	__uint(max_entries, LIMIT_BACKENDS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} mycel_backends SEC(".maps");

/* Miss: the client chooses anew. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__type(key, struct affinity_key);
	__type(value, struct affinity_value);
	__uint(max_entries, LIMIT_AFFINITY);
} mycel_affinity SEC(".maps");

/* Key: the tuple with its lower end first. Miss: a new connection. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__type(key, struct tuple);
	__type(value, struct ct_value);
	__uint(max_entries, LIMIT_CT);
} mycel_ct SEC(".maps");

/* Key: the tuple as the packet carries it. Miss: not translated. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__type(key, struct tuple);
	__type(value, struct nat_value);
	__uint(max_entries, LIMIT_NAT);
} mycel_nat SEC(".maps");

/* Miss: the fragment is dropped. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__type(key, struct fragment_key);
	__type(value, struct fragment_value);
	__uint(max_entries, LIMIT_FRAGMENTS);
} mycel_fragments SEC(".maps");

/* Miss: the node's routes are asked. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__type(key, struct next_hop_key);
	__type(value, struct next_hop_value);
	__uint(max_entries, LIMIT_NODES);
} mycel_next_hops SEC(".maps");

/* Miss: the socket's peer is what it dialled. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__type(key, struct socket_nat_key);
	__type(value, struct socket_nat_value);
	__uint(max_entries, LIMIT_SOCKET_NAT);
} mycel_socket_nat SEC(".maps");

/* Read by the agent. The index is struct metric_key's four bytes. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, struct metric_value);
	__uint(max_entries, LIMIT_METRICS);
} mycel_metrics SEC(".maps");

/* Read by the agent: events for which the CPU's ring had no room. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, __u64);
	__uint(max_entries, 1);
} mycel_lost SEC(".maps");

struct event_ring {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, LIMIT_RING_BYTES);
};

/* One ring per possible CPU, put there by the loader, which also sets the number. Miss: the event is lost. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__type(key, __u32);
	__uint(max_entries, 1);
	__array(values, struct event_ring);
} mycel_events SEC(".maps");

/*
 * Room beside the 512 bytes of stack that all nested calls share. Packet programs run with softirqs off and never
 * inside one another, so one row a CPU is enough; each field has one user at a time.
 */
struct scratch {
	struct tuple nat_key; /* nat_write_*, nat_touch: the row being written or looked up */
	struct nat_value nat_row;
	struct tuple nat_to; /* nat_*: what a packet becomes */
	struct tuple ct_key; /* begin */
	struct ct_value ct;
	struct tuple quoted_way; /* icmp_error: the direction the error travels in */
	struct tuple turned;	 /* packet_turn */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, struct scratch);
	__uint(max_entries, 1);
} mycel_scratch SEC(".maps");

static __always_inline struct scratch *scratch(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&mycel_scratch, &zero);
}

#endif
