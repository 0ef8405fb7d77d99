/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* ARP (RFC 826): its packet, and the answer for addresses of services that this node announces. */
#ifndef MYCEL_ARP_H
#define MYCEL_ARP_H

#include "maps.h"
#include "packet.h"

#define ARP_ETHERNET 1
#define ARP_REQUEST  1
#define ARP_REPLY    2

struct arp_packet {
	__be16 hardware;
	__be16 protocol;
	__u8 hardware_length;
	__u8 protocol_length;
	__be16 operation;
	__u8 sender_mac[ETH_ALEN];
	__u8 sender_ip[4];
	__u8 target_mac[ETH_ALEN];
	__u8 target_ip[4];
};

/*
 * Answer who has an address, if it is one of those this node announces: the question goes back out of its device as the
 * answer. Anything else is the stack's (TC_ACT_OK).
 */
__subprogram int arp_answer(struct __sk_buff *skb)
{
	struct announced_key key = {.ifindex = skb->ifindex};
	struct announced_value *own;
	struct ethhdr eth;
	struct arp_packet arp;
	__be32 ip;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &arp, sizeof(arp)) < 0)
		return TC_ACT_OK;
	if (arp.hardware != bpf_htons(ARP_ETHERNET) || arp.protocol != bpf_htons(ETH_P_IP) ||
	    arp.hardware_length != ETH_ALEN || arp.protocol_length != sizeof(ip) ||
	    arp.operation != bpf_htons(ARP_REQUEST) || arp.sender_mac[0] & 1)
		return TC_ACT_OK;
	__builtin_memcpy(&ip, arp.target_ip, sizeof(ip));
	key.addr = addr_v4(ip);
	own = bpf_map_lookup_elem(&mycel_announced, &key);
	/* Whoever says that the address is its own does not ask. */
	if (!own || !__builtin_memcmp(arp.sender_ip, arp.target_ip, sizeof(ip)))
		return TC_ACT_OK;
	__builtin_memcpy(arp.target_mac, arp.sender_mac, ETH_ALEN);
	__builtin_memcpy(arp.target_ip, arp.sender_ip, sizeof(ip));
	__builtin_memcpy(arp.sender_mac, own->mac.bytes, ETH_ALEN);
	__builtin_memcpy(arp.sender_ip, &ip, sizeof(ip));
	arp.operation = bpf_htons(ARP_REPLY);
	__builtin_memcpy(eth.h_dest, arp.target_mac, ETH_ALEN);
	__builtin_memcpy(eth.h_source, own->mac.bytes, ETH_ALEN);
	eth.h_proto = bpf_htons(ETH_P_ARP);
	if (bpf_skb_store_bytes(skb, 0, &eth, sizeof(eth), 0) < 0 ||
	    bpf_skb_store_bytes(skb, ETH_HLEN, &arp, sizeof(arp), 0) < 0)
		return TC_ACT_SHOT;
	return bpf_redirect(skb->ifindex, 0);
}

#endif
