/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* The last step: into a pod, into the overlay, out of the node, or up the node's own stack. */
#ifndef MYCEL_DELIVER_H
#define MYCEL_DELIVER_H

#include "events.h"
#include "identity.h"
#include "overlay.h"
#include "rewrite.h"

/* The node's stack counts its own packets' hops, and the overlay's receiver those that go there. */
static __always_inline bool counts_hop(const struct packet *p)
{
	return p->origin != ORIGIN_HOST && p->origin != ORIGIN_STACK && p->origin != ORIGIN_PROXY;
}

static __always_inline int hop(struct __sk_buff *skb, const struct packet *p)
{
	return counts_hop(p) ? rewrite_ttl(skb, p) : 0;
}

/* Count a packet that goes on, and say so if its connection is due. `endpoint_id`: who reports, 0 the node.
 */
static __always_inline void forwarded(struct __sk_buff *skb, struct packet *p, __u32 point, __u16 endpoint_id)
{
	bool inward = point == TRACE_TO_ENDPOINT || p->origin == ORIGIN_OVERLAY || p->origin == ORIGIN_NETWORK;

	count(0, inward ? DIRECTION_INGRESS : DIRECTION_EGRESS, skb->len);
	if (p->flags & PACKET_TRACE) {
		p->endpoint_id = endpoint_id;
		trace(skb, p, point, !inward);
	}
}

/* Into the pod's namespace without a pass through the node's stack. From the pod's own egress hook it just
 * goes on. */
static __always_inline int deliver_endpoint(struct __sk_buff *skb, const struct packet *p,
					    const struct endpoint_value *endpoint)
{
	int reason = hop(skb, p);

	if (unlikely(reason))
		return drop(skb, p, reason);
	reason = rewrite_macs(skb, &endpoint->mac, &endpoint->node_mac);
	if (unlikely(reason))
		return drop(skb, p, reason);
	if (p->origin == ORIGIN_STACK)
		return TC_ACT_OK;
	/* Frames of the overlay and of cilium_host were not addressed to this device; the pod's stack would
	 * ignore them. */
	if (unlikely(skb->pkt_type != PACKET_HOST))
		bpf_skb_change_type(skb, PACKET_HOST);
	return bpf_redirect_peer(endpoint->ifindex, 0);
}

/* To another node, the sender's identity as the VNI. */
__subprogram int deliver_overlay(struct __sk_buff *skb, const struct packet *p, const struct ipcache_value *to)
{
	struct bpf_tunnel_key key = {.tunnel_ttl = 64};
	__u64 flags = BPF_F_ZERO_CSUM_TX;
	const struct addr *tunnel_endpoint;

	REQUIRE(p && to, TC_ACT_SHOT);
	key.tunnel_id = identity_on_wire(p->source_identity);
	tunnel_endpoint = &to->tunnel_endpoint;
	if (!config_vxlan_ifindex || addr_is_zero(tunnel_endpoint))
		return drop(skb, p, DROP_NO_TUNNEL_ENDPOINT);
	if (config_overlay_direct && config_node_ipv4.lo && p->family == 4 && is_small(skb) &&
	    addr_is_v4(tunnel_endpoint))
		return overlay_wrap(skb, p, tunnel_endpoint, key.tunnel_id);
	if (addr_is_v4(tunnel_endpoint)) {
		key.remote_ipv4 = bpf_ntohl(addr_to_v4(tunnel_endpoint));
	} else {
		__builtin_memcpy(key.remote_ipv6, tunnel_endpoint, sizeof(key.remote_ipv6));
		flags = BPF_F_TUNINFO_IPV6;
	}
	if (unlikely(bpf_skb_set_tunnel_key(skb, &key, sizeof(key), flags) < 0))
		return drop(skb, p, DROP_NO_TUNNEL_KEY);
	return bpf_redirect(config_vxlan_ifindex, 0);
}

/* Out by the node's routes: the next hop's MAC is found, or asked for, by the kernel. */
__subprogram int deliver_out(struct __sk_buff *skb, const struct packet *p)
{
	REQUIRE(p, TC_ACT_SHOT);
	struct bpf_fib_lookup fib = {.l4_protocol = p->t.protocol, .ifindex = skb->ifindex};
	struct bpf_redir_neigh next = {};
	int reason = hop(skb, p), found;

	if (reason)
		return drop(skb, p, reason);
	if (p->family == 4) {
		fib.family = AF_INET;
		fib.ipv4_src = addr_to_v4(&p->t.source);
		fib.ipv4_dst = addr_to_v4(&p->t.destination);
	} else {
		fib.family = AF_INET6;
		__builtin_memcpy(fib.ipv6_src, &p->t.source, sizeof(fib.ipv6_src));
		__builtin_memcpy(fib.ipv6_dst, &p->t.destination, sizeof(fib.ipv6_dst));
	}
	found = bpf_fib_lookup(skb, &fib, sizeof(fib), 0);
	if (found != BPF_FIB_LKUP_RET_SUCCESS && found != BPF_FIB_LKUP_RET_NO_NEIGH)
		return drop(skb, p, DROP_FIB_LOOKUP_FAILED);
	next.nh_family = fib.family;
	if (fib.family == AF_INET)
		next.ipv4_nh = fib.ipv4_dst;
	else
		__builtin_memcpy(next.ipv6_nh, fib.ipv6_dst, sizeof(next.ipv6_nh));
	skb->mark = MARK_DONE;
	return bpf_redirect_neigh(fib.ifindex, &next, sizeof(next), 0);
}

/* Up the node's stack. */
static __always_inline int deliver_stack(struct __sk_buff *skb)
{
	if (skb->pkt_type != PACKET_HOST)
		bpf_skb_change_type(skb, PACKET_HOST);
	return TC_ACT_OK;
}

#endif
