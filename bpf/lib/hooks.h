/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* One function per packet hook: what must be true of a packet that comes in there, and who its sender is. */
#ifndef MYCEL_HOOKS_H
#define MYCEL_HOOKS_H

#include "arp.h"
#include "path.h"

static __always_inline bool mac_equal(const __u8 *a, const struct mac *b)
{
	return *(__u32 *)a == *(__u32 *)b->bytes && *(__u16 *)(a + 4) == *(__u16 *)(b->bytes + 4);
}

/* A pod may ask who the node is, in its own name. Everything else that is not IP ends here. */
__subprogram int pod_not_ip(struct __sk_buff *skb, struct packet *p, const struct endpoint_value *pod)
{
	REQUIRE(p && pod, TC_ACT_SHOT);
	struct arp_packet arp;
	struct addr sender, target;
	struct endpoint_value *known;
	__be32 ip;

	if (p->ether_type != ETH_P_ARP || bpf_skb_load_bytes(skb, ETH_HLEN, &arp, sizeof(arp)) < 0)
		return drop(skb, p, DROP_UNSUPPORTED_L3);
	if (!mac_equal(arp.sender_mac, &pod->mac))
		return drop(skb, p, DROP_INVALID_SOURCE_MAC);
	__builtin_memcpy(&ip, arp.sender_ip, sizeof(ip));
	sender = addr_v4(ip);
	if (!addr_equal(&sender, &pod->ipv4))
		return drop(skb, p, DROP_INVALID_SOURCE_IP);
	__builtin_memcpy(&ip, arp.target_ip, sizeof(ip));
	target = addr_v4(ip);
	known = endpoint_find(&target);
	if (!known || !(known->flags & ENDPOINT_HOST))
		return drop(skb, p, DROP_UNKNOWN_L3_TARGET);
	return TC_ACT_OK;
}

/*
 * IPv6's neighbour discovery from a pod: it may ask for the node's addresses and answer the node; it may not
 * be a router or redirect anybody, and its multicast chatter goes nowhere. Returns -1 for what is not of this
 * kind.
 */
__subprogram int pod_discovery(struct __sk_buff *skb, struct packet *p)
{
	REQUIRE(p, TC_ACT_SHOT);
	struct addr target;
	struct endpoint_value *known;
	bool solicit = p->icmp_type == ICMP6_NEIGHBOUR_SOLICIT;

	if (p->icmp_type == ICMP6_MLD2_REPORT || (p->icmp_type >= 130 && p->icmp_type <= 132))
		return drop(skb, p, DROP_FORBIDDEN_ICMP6);
	if (p->icmp_type < ICMP6_ROUTER_SOLICIT || p->icmp_type > ICMP6_REDIRECT)
		return -1;
	if (!solicit || p->ttl != 255 || bpf_skb_load_bytes(skb, p->l4 + 8, &target, sizeof(target)) < 0)
		return drop(skb, p, DROP_FORBIDDEN_ICMP6);
	known = endpoint_find(&target);
	if (!known || !(known->flags & ENDPOINT_HOST))
		return drop(skb, p, DROP_UNKNOWN_L3_TARGET);
	return TC_ACT_OK;
}

/* Ingress of the node's side of a pod's pair: what the pod sends. */
static __always_inline int hook_from_pod(struct __sk_buff *skb)
{
	struct packet p = {.origin = ORIGIN_POD};
	struct interface_key key = {.ifindex = skb->ifindex};
	struct endpoint_value *pod;
	const struct ethhdr *eth;
	int reason = parse(skb, &p);

	pod = bpf_map_lookup_elem(&mycel_interfaces, &key);
	if (unlikely(!pod))
		return drop(skb, &p, DROP_NO_ENDPOINT);
	p.source_identity = pod->identity;
	p.endpoint_id = pod->endpoint_id;
	if (unlikely(!(pod->flags & ENDPOINT_READY)))
		return drop(skb, &p, DROP_ENDPOINT_NOT_READY);
	eth = bytes_at(skb, 0, ETH_HLEN);
	if (unlikely(!eth))
		return drop(skb, &p, DROP_INVALID_PACKET);
	if (unlikely(!mac_equal(eth->h_source, &pod->mac)))
		return drop(skb, &p, DROP_INVALID_SOURCE_MAC);
	if (unlikely(reason == PARSE_NOT_IP))
		return pod_not_ip(skb, &p, pod);
	if (unlikely(reason))
		return drop(skb, &p, reason);
	if (p.family == 6 && p.t.protocol == IPPROTO_ICMPV6) {
		reason = pod_discovery(skb, &p);
		if (reason >= 0)
			return reason;
	}
	if (unlikely(!addr_equal(&p.t.source, p.family == 4 ? &pod->ipv4 : &pod->ipv6)))
		return drop(skb, &p, DROP_INVALID_SOURCE_IP);
	if (unlikely(p.flags & (PACKET_FIRST_FRAGMENT | PACKET_LATER_FRAGMENT))) {
		reason = fragment_track(&p);
		if (reason)
			return drop(skb, &p, reason);
	}
	return pass(skb, &p, pod);
}

/*
 * Who a packet from another node comes from. An inner source we know must belong to that very node, and then
 * we know its identity better than the wire does; except that a node may say that it translated a stranger's
 * packet. Returns 0 with p->source_identity, or a drop reason.
 */
__subprogram int overlay_sender(struct packet *p, const struct addr *node, identity_t vni)
{
	REQUIRE(p && node, DROP_INVALID_PACKET);
	struct ipcache_value *info;

	if (vni == IDENTITY_UNKNOWN || vni == IDENTITY_HOST)
		return DROP_INVALID_IDENTITY;
	if (endpoint_find(&p->t.source))
		return DROP_INVALID_SOURCE_IP;
	p->source_identity = vni;
	info = bpf_map_lookup_elem(&mycel_ipcache, &p->t.source);
	if (info) {
		if (!(info->flags & IPCACHE_TUNNEL) || !addr_equal(&info->tunnel_endpoint, node))
			return DROP_INVALID_SOURCE_IP;
		if (!(vni == IDENTITY_WORLD && info->flags & IPCACHE_NODE))
			p->source_identity = info->identity;
		return 0;
	}
	info = ipcache_find_prefix(&p->t.source);
	if (info && info->flags & (IPCACHE_TUNNEL | IPCACHE_CLUSTER)) {
		/* A pod nobody told us about yet: its node's network is known, its identity is the wire's. */
		if (!(info->flags & IPCACHE_TUNNEL) || !addr_equal(&info->tunnel_endpoint, node))
			return DROP_INVALID_SOURCE_IP;
		return 0;
	}
	return vni == IDENTITY_WORLD ? 0 : DROP_INVALID_IDENTITY;
}

/* Which node a packet came from, by its outer header, and the VNI. Returns 0 or a drop reason. */
__subprogram int overlay_node(struct __sk_buff *skb, struct addr *node, identity_t *vni)
{
	struct bpf_tunnel_key key = {};

	REQUIRE(node && vni, DROP_NO_TUNNEL_KEY);
	if (bpf_skb_get_tunnel_key(skb, &key, sizeof(key), 0) == 0)
		*node = addr_v4(bpf_htonl(key.remote_ipv4));
	else if (bpf_skb_get_tunnel_key(skb, &key, sizeof(key), BPF_F_TUNINFO_IPV6) == 0)
		__builtin_memcpy(node, key.remote_ipv6, sizeof(*node));
	else
		return DROP_NO_TUNNEL_KEY;
	*vni = key.tunnel_id;
	return bpf_map_lookup_elem(&mycel_nodes, node) ? 0 : DROP_UNKNOWN_SENDER;
}

/* An inner packet, from a node we know. */
static __always_inline int pass_overlay(struct __sk_buff *skb, struct packet *p, const struct addr *node,
					identity_t vni)
{
	struct ct_value *ct;
	bool reply = false;
	int reason;

	p->origin = ORIGIN_OVERLAY;
	reason = parse(skb, p);
	if (unlikely(reason == PARSE_NOT_IP))
		return drop(skb, p, DROP_UNSUPPORTED_L3);
	if (unlikely(reason))
		return drop(skb, p, reason);
	if (unlikely(p->flags & (PACKET_FIRST_FRAGMENT | PACKET_LATER_FRAGMENT))) {
		reason = fragment_track(p);
		if (reason)
			return drop(skb, p, reason);
	}
	/* A known connection's sender was checked when it began, unless it is somebody else by now. */
	ct = ct_find(&p->t, now_coarse_ns(), &reply);
	p->source_identity = vni;
	if (unlikely(is_tcp_syn(p) || !ct || vni != (reply ? ct->destination_identity : ct->source_identity))) {
		reason = overlay_sender(p, node, vni);
		if (reason)
			return drop(skb, p, reason);
	}
	return pass(skb, p, NULL);
}

/* Ingress of the VXLAN device: what other nodes send. */
static __always_inline int hook_from_overlay(struct __sk_buff *skb)
{
	struct packet p = {.origin = ORIGIN_OVERLAY};
	struct addr node = {};
	identity_t vni = 0;
	int reason = overlay_node(skb, &node, &vni);

	if (unlikely(reason)) {
		parse(skb, &p);
		return drop(skb, &p, reason);
	}
	return pass_overlay(skb, &p, &node, vni);
}

/* Who a packet of the node's own stack comes from. The stack refuses strangers that claim the node's
 * addresses. */
static __always_inline identity_t stack_sender(const struct addr *source)
{
	struct endpoint_value *own = endpoint_find(source);
	struct ipcache_value *info;

	if (own)
		return own->identity;
	info = ipcache_find(source);
	return info ? info->identity : IDENTITY_WORLD;
}

/* Ingress of cilium_net (ORIGIN_HOST) and egress to a pod (ORIGIN_STACK): what the node's own stack sends to
 * pods. */
static __always_inline int hook_from_stack(struct __sk_buff *skb, __u32 origin)
{
	struct packet p = {.origin = origin};
	struct interface_key key = {.ifindex = skb->ifindex};
	struct endpoint_value *pod = NULL, *source = NULL;
	int reason = parse(skb, &p);

	if (origin == ORIGIN_STACK) {
		pod = bpf_map_lookup_elem(&mycel_interfaces, &key);
		if (!pod)
			return drop(skb, &p, DROP_NO_ENDPOINT);
		p.endpoint_id = pod->endpoint_id;
		p.destination_identity = pod->identity;
		if (!(pod->flags & ENDPOINT_READY))
			return drop(skb, &p, DROP_ENDPOINT_NOT_READY);
		if (reason == PARSE_NOT_IP && p.ether_type == ETH_P_ARP)
			return TC_ACT_OK; /* answers to the pod's question for its gateway */
		if (!reason && p.t.protocol == IPPROTO_ICMPV6 && p.icmp_type == ICMP6_NEIGHBOUR_SOLICIT + 1)
			return TC_ACT_OK;
		if (!reason && !addr_equal(&p.t.destination, p.family == 4 ? &pod->ipv4 : &pod->ipv6))
			return drop(skb, &p, DROP_UNROUTABLE_IP);
	}
	if (reason == PARSE_NOT_IP)
		return drop(skb, &p, DROP_UNSUPPORTED_L3);
	if (reason)
		return drop(skb, &p, reason);
	if (p.flags & (PACKET_FIRST_FRAGMENT | PACKET_LATER_FRAGMENT)) {
		reason = fragment_track(&p);
		if (reason)
			return drop(skb, &p, reason);
	}
	if (origin == ORIGIN_HOST && unlikely((skb->mark & MARK_OF_PROXY_MASK) == MARK_OF_PROXY)) {
		reason = proxy_sender(skb, &p);
		if (reason)
			return drop(skb, &p, reason);
	}
	p.source_identity = stack_sender(&p.t.source);
	/* In a pod's name, its egress rules are asked; when an ingress listener sends, they have been. */
	if (p.origin == ORIGIN_PROXY && p.through != DIRECTION_INGRESS) {
		source = endpoint_find(&p.t.source);
		if (source && source->flags & ENDPOINT_HOST)
			source = NULL;
		if (source)
			p.endpoint_id = source->endpoint_id;
	}
	return pass(skb, &p, source);
}

/*
 * Whether this is the overlay's outer packet, by a glance: most of an underlay's packets are, and they need no more of
 * us here (their senders are checked when they come out of the VXLAN device).
 */
static __always_inline bool is_overlay_packet(const struct __sk_buff *skb)
{
	const __u8 *head = bytes_at(skb, ETH_HLEN, sizeof(struct ipv6hdr) + 4);

	if (!head)
		return false;
	if (head[0] == 0x45)
		return head[9] == IPPROTO_UDP && !(*(__be16 *)(head + 6) & bpf_htons(0x3fff)) &&
		       *(__be16 *)(head + 22) == bpf_htons(config_vxlan_port);
	return config_ipv6 && head[0] >> 4 == 6 && head[6] == IPPROTO_UDP &&
	       *(__be16 *)(head + 42) == bpf_htons(config_vxlan_port);
}

/*
 * Ingress of the underlay. Ours are: packets to this node's pods, to a service's outside addresses, and
 * answers to what we translated. The rest is the node's own and goes to its stack untouched.
 */
static __always_inline int hook_from_network(struct __sk_buff *skb)
{
	struct packet p = {.origin = ORIGIN_NETWORK};
	struct endpoint_value *destination;
	struct ipcache_value *info;
	int reason;

	if (likely(is_overlay_packet(skb))) {
		struct addr node = {};
		identity_t vni = 0;

		if (!config_overlay_direct || !overlay_unwrap(skb, &node, &vni))
			return TC_ACT_OK;
		return pass_overlay(skb, &p, &node, vni);
	}
	reason = parse(skb, &p);

	if (reason == PARSE_NOT_IP && p.ether_type == ETH_P_ARP)
		return arp_answer(skb);
	/* What we do not understand the node's stack may: it is not for pods. */
	if (reason == PARSE_NOT_IP || !p.family)
		return TC_ACT_OK;
	destination = endpoint_find(&p.t.destination);
	if (reason)
		return destination && !(destination->flags & ENDPOINT_HOST) ? drop(skb, &p, reason) : TC_ACT_OK;
	if (p.flags & PACKET_FIRST_FRAGMENT || p.flags & PACKET_LATER_FRAGMENT) {
		reason = fragment_track(&p);
		if (reason && destination && !(destination->flags & ENDPOINT_HOST))
			return drop(skb, &p, reason);
		if (reason)
			return TC_ACT_OK;
	}
	info = ipcache_find(&p.t.source);
	p.source_identity = info ? info->identity : IDENTITY_WORLD;
	if (!destination || destination->flags & ENDPOINT_HOST) {
		if (p.flags & PACKET_ICMP_ERROR) {
			reason = icmp_error(skb, &p);
			if (reason == NAT_NONE || reason == DROP_INVALID_PACKET)
				return TC_ACT_OK;
			if (!reason) {
				struct route route;

				route_find(&route, &p.t.destination);
				if (route.target == TARGET_STACK)
					return TC_ACT_OK;
				return deliver(skb, &p, &route, false);
			}
		} else {
			reason = nat_arrive(skb, &p);
			if (reason == NAT_NONE && !p.redirect_port)
				return TC_ACT_OK;
		}
		if (reason > 0)
			return drop(skb, &p, reason);
	}
	/* The cluster's own talk through the overlay: whoever uses their addresses here is somebody else. */
	if (info && info->flags & IPCACHE_CLUSTER)
		return drop(skb, &p, DROP_INVALID_SOURCE_IP);
	return pass(skb, &p, NULL);
}

/* Whether an address is of the cluster's networks, or a service's own there: nobody outside has it. */
__subprogram int is_of_cluster(struct packet *p)
{
	struct ipcache_value *info;
	struct service_value *service;

	REQUIRE(p, false);
	info = ipcache_find(&p->t.destination);
	if (info)
		p->destination_identity = info->identity;
	if (info && info->flags & IPCACHE_CLUSTER)
		return true;
	service = service_find_at(&p->t.destination, p->t.destination_port, p->t.protocol);
	return service && service->flags & SERVICE_CLUSTER_IP;
}

/* Egress of the underlay: answers of the node's own sockets that stand behind a service get the frontend's
 * address. What is the cluster's own stays in the cluster. */
static __always_inline int hook_to_network(struct __sk_buff *skb)
{
	struct packet p = {.origin = ORIGIN_STACK};
	struct nat_value *row;
	struct tuple to;
	int reason;

	if (skb->mark == MARK_DONE || is_overlay_packet(skb))
		return TC_ACT_OK;
	reason = parse(skb, &p);
	if (p.family && is_of_cluster(&p)) {
		p.source_identity = stack_sender(&p.t.source);
		return drop(skb, &p, DROP_UNROUTABLE_IP);
	}
	if (reason || p.flags & (PACKET_LATER_FRAGMENT | PACKET_ICMP_ERROR))
		return TC_ACT_OK;
	row = bpf_map_lookup_elem(&mycel_nat, &p.t);
	if (!row || (row->flags & (NAT_SOURCE | NAT_REPLY)) != (NAT_SOURCE | NAT_REPLY))
		return TC_ACT_OK;
	nat_touch(row, &p, now_coarse_ns());
	to = row->rewritten;
	reason = rewrite_tuple(skb, &p, &to);
	return reason ? drop(skb, &p, reason) : TC_ACT_OK;
}

#endif
