/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * VXLAN (RFC 7348), two ways with one wire format.
 *
 * The device does everything: large packets that are cut later (GSO), IPv6 on either side, fragments. For the rest,
 * which is every question, answer and acknowledgement, the device and the two passes through the node's UDP stack cost
 * more than all of our work: so small IPv4 packets are wrapped here and sent out by the underlay at once, and unwrapped
 * where they arrive, straight into the pod. Either way may meet the other at the far end.
 *
 * Outer packets carry no UDP checksum, as RFC 7348 allows; one that has it goes to the device, which checks it.
 */
#ifndef MYCEL_OVERLAY_H
#define MYCEL_OVERLAY_H

#include "events.h"
#include "identity.h"
#include "maps.h"

#define VXLAN_HAS_VNI	     0x08000000 /* the I flag */
#define OVERLAY_TTL	     64
#define NEXT_HOP_LIFETIME_NS (NS_PER_S)

struct overlay_head {
	struct iphdr ip;
	struct udphdr udp;
	__be32 vxlan_flags;
	__be32 vni; /* in the upper 24 bits */
	struct ethhdr eth;
} __attribute__((packed));

_Static_assert(sizeof(struct overlay_head) == 50, "overlay_head");

static __always_inline bool is_small(const struct __sk_buff *skb)
{
	return !skb->gso_size && skb->len <= config_overlay_mtu + (__u32)ETH_HLEN;
}

/* Ask the node's routes for the way to another node. Returns 0 or a drop reason. */
__subprogram int next_hop_find(struct __sk_buff *skb, const struct addr *node, struct next_hop_value *next)
{
	struct bpf_fib_lookup fib = {.family = AF_INET, .l4_protocol = IPPROTO_UDP, .ifindex = skb->ifindex};
	int found;

	REQUIRE(node && next, DROP_FIB_LOOKUP_FAILED);
	fib.ipv4_src = config_node_ipv4.lo >> 32;
	fib.ipv4_dst = addr_to_v4(node);
	found = bpf_fib_lookup(skb, &fib, sizeof(fib), 0);
	if (found != BPF_FIB_LKUP_RET_SUCCESS && found != BPF_FIB_LKUP_RET_NO_NEIGH)
		return DROP_FIB_LOOKUP_FAILED;
	next->ifindex = fib.ifindex;
	next->family = fib.family;
	if (fib.family == AF_INET)
		next->next_hop = addr_v4(fib.ipv4_dst);
	else
		__builtin_memcpy(&next->next_hop, fib.ipv6_dst, sizeof(next->next_hop));
	next->looked_up_ns = now_coarse_ns();
	bpf_map_update_elem(&mycel_next_hops, node, next, BPF_ANY);
	return 0;
}

/* Wrap a small IPv4 packet and send it to `node`. Returns a TC action. */
__subprogram int overlay_wrap(struct __sk_buff *skb, const struct packet *p, const struct addr *node, identity_t vni)
{
	struct overlay_head head __attribute__((aligned(8))) = {};
	struct bpf_redir_neigh next = {};
	struct next_hop_value fresh = {}, *known;
	__u64 sum;

	REQUIRE(p && node, TC_ACT_SHOT);
	known = bpf_map_lookup_elem(&mycel_next_hops, node);
	if (!known || (__s64)(now_coarse_ns() - known->looked_up_ns) > (__s64)NEXT_HOP_LIFETIME_NS) {
		if (next_hop_find(skb, node, &fresh))
			return drop(skb, p, DROP_FIB_LOOKUP_FAILED);
		known = &fresh;
	}
	next.nh_family = known->family;
	if (known->family == AF_INET)
		next.ipv4_nh = addr_to_v4(&known->next_hop);
	else
		__builtin_memcpy(next.ipv6_nh, &known->next_hop, sizeof(next.ipv6_nh));
	head.ip.version = 4;
	head.ip.ihl = 5;
	head.ip.ttl = OVERLAY_TTL;
	head.ip.protocol = IPPROTO_UDP;
	head.ip.frag_off = bpf_htons(0x4000); /* it fits: no need to be cut */
	head.ip.saddr = config_node_ipv4.lo >> 32;
	head.ip.daddr = addr_to_v4(node);
	head.ip.tot_len = bpf_htons(skb->len - ETH_HLEN + sizeof(head));
	sum = bpf_csum_diff(NULL, 0, (void *)&head, sizeof(head.ip), 0);
	sum = (sum & 0xffff) + (sum >> 16);
	head.ip.check = ~((sum & 0xffff) + (sum >> 16));
	/* One source port a flow, so that the underlay may spread flows over its paths (RFC 7348 5). */
	head.udp.source = bpf_htons(0xc000 | (bpf_get_hash_recalc(skb) & 0x3fff));
	head.udp.dest = bpf_htons(config_vxlan_port);
	head.udp.len = bpf_htons(skb->len - ETH_HLEN + sizeof(head) - sizeof(head.ip));
	head.vxlan_flags = bpf_htonl(VXLAN_HAS_VNI);
	head.vni = bpf_htonl(vni << 8);
	head.eth.h_proto = bpf_htons(ETH_P_IP);
	/* Locally administered; nobody reads them, but they must not be multicast. */
	head.eth.h_dest[0] = head.eth.h_source[0] = 0x02;
	if (bpf_skb_adjust_room(skb, sizeof(head), BPF_ADJ_ROOM_MAC,
				BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 | BPF_F_ADJ_ROOM_ENCAP_L4_UDP |
				    BPF_F_ADJ_ROOM_ENCAP_L2(ETH_HLEN) | BPF_F_ADJ_ROOM_ENCAP_L2_ETH) < 0 ||
	    bpf_skb_store_bytes(skb, ETH_HLEN, &head, sizeof(head), 0) < 0)
		return drop(skb, p, DROP_WRITE_ERROR);
	skb->mark = MARK_DONE;
	return bpf_redirect_neigh(known->ifindex, &next, sizeof(next), 0);
}

/*
 * Unwrap a packet of the overlay that came in by the underlay, if it is small IPv4 for a pod of this node, from a node
 * we know. Returns whether it was: then *node and *vni say who sent it, and the frame is the inner packet's.
 */
__subprogram int overlay_unwrap(struct __sk_buff *skb, struct addr *node, identity_t *vni)
{
	const struct overlay_head *head = bytes_at(skb, ETH_HLEN, sizeof(*head) + sizeof(struct iphdr));
	struct endpoint_value *own, *pod;
	const struct iphdr *inner;
	struct addr addr;

	REQUIRE(node && vni && head, false);
	inner = (const void *)(head + 1);
	if (skb->gso_size || head->udp.check || head->vxlan_flags != bpf_htonl(VXLAN_HAS_VNI) ||
	    head->eth.h_proto != bpf_htons(ETH_P_IP) || inner->version != 4 || inner->frag_off & bpf_htons(0x3fff) ||
	    bpf_ntohs(head->udp.len) + sizeof(struct iphdr) != skb->len - ETH_HLEN ||
	    bpf_ntohs(inner->tot_len) + sizeof(*head) > skb->len - ETH_HLEN)
		return false;
	*vni = bpf_ntohl(head->vni) >> 8;
	*node = addr_v4(head->ip.saddr);
	addr = addr_v4(inner->daddr);
	pod = endpoint_find(&addr);
	if (!pod || pod->flags & ENDPOINT_HOST)
		return false;
	if (head->ip.daddr != (__be32)(config_node_ipv4.lo >> 32)) {
		addr = addr_v4(head->ip.daddr);
		own = endpoint_find(&addr);
		if (!own || !(own->flags & ENDPOINT_HOST))
			return false;
	}
	if (!bpf_map_lookup_elem(&mycel_nodes, node))
		return false; /* the device's hook says so, by name */
	return !bpf_skb_adjust_room(skb, -(__s32)sizeof(struct overlay_head), BPF_ADJ_ROOM_MAC, 0);
}

#endif
