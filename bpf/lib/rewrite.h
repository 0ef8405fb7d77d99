/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Writing headers: addresses, ports, TTL and MACs, with every checksum that covers them. */
#ifndef MYCEL_REWRITE_H
#define MYCEL_REWRITE_H

#include "packet.h"

#define IP4_CHECK	(offsetof(struct iphdr, check))
#define IP4_SOURCE	(offsetof(struct iphdr, saddr))
#define IP4_DESTINATION (offsetof(struct iphdr, daddr))
#define IP6_SOURCE	(offsetof(struct ipv6hdr, saddr))
#define IP6_DESTINATION (offsetof(struct ipv6hdr, daddr))

/* Where a protocol keeps its checksum, from its header's start; 0: none that we can mend. */
static __always_inline __u32 checksum_offset(__u8 protocol)
{
	switch (protocol) {
	case IPPROTO_TCP:
		return offsetof(struct tcphdr, check);
	case IPPROTO_UDP:
		return offsetof(struct udphdr, check);
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		return 2;
	default:
		return 0;
	}
}

/* Offsets are small; the bits above them say more, since five arguments is all a BPF function has. */
#define REWRITE_OFFSET 0xffff
#define REWRITE_SOURCE 0x10000 /* with an IP header's offset: its source, not its destination */
#define REWRITE_UDP    0x10000 /* with a checksum's offset: zero there means that there is none (RFC 768) */

/* Replace one address of the IP header at `ip`. `pseudo`: a checksum over a pseudo-header with it, or 0. */
__subprogram int rewrite_address(struct __sk_buff *skb, __u32 ip, const struct addr *old, const struct addr *new,
				 __u32 pseudo)
{
	REQUIRE(old && new, DROP_INVALID_PACKET);
	__u64 flags = BPF_F_PSEUDO_HDR | (pseudo & REWRITE_UDP ? BPF_F_MARK_MANGLED_0 : 0);
	__u32 l3 = ip & REWRITE_OFFSET;
	bool source = ip & REWRITE_SOURCE;
	__s64 diff;

	if (addr_is_v4(old)) {
		__be32 from = addr_to_v4(old), to = addr_to_v4(new);

		diff = bpf_csum_diff(&from, sizeof(from), &to, sizeof(to), 0);
		if (bpf_l3_csum_replace(skb, l3 + IP4_CHECK, 0, diff, 0) < 0 ||
		    bpf_skb_store_bytes(skb, l3 + (source ? IP4_SOURCE : IP4_DESTINATION), &to, sizeof(to), 0) < 0)
			return DROP_WRITE_ERROR;
	} else {
		diff = bpf_csum_diff((__be32 *)old, sizeof(*old), (__be32 *)new, sizeof(*new), 0);
		if (bpf_skb_store_bytes(skb, l3 + (source ? IP6_SOURCE : IP6_DESTINATION), new, sizeof(*new), 0) < 0)
			return DROP_WRITE_ERROR;
	}
	if (pseudo && bpf_l4_csum_replace(skb, pseudo & REWRITE_OFFSET, 0, diff, flags) < 0)
		return DROP_WRITE_ERROR;
	return 0;
}

/* Replace the 16 bits at `offset`, covered by the checksum at `check` (0: by none). */
__subprogram int rewrite_port(struct __sk_buff *skb, __u32 offset, __be16 old, __be16 new, __u32 check)
{
	__u64 flags = sizeof(new) | (check & REWRITE_UDP ? BPF_F_MARK_MANGLED_0 : 0);

	if (bpf_skb_store_bytes(skb, offset, &new, sizeof(new), 0) < 0)
		return DROP_WRITE_ERROR;
	if (check && bpf_l4_csum_replace(skb, check & REWRITE_OFFSET, old, new, flags) < 0)
		return DROP_WRITE_ERROR;
	return 0;
}

/* Make the packet's ends `to`, on the wire and in p->t. Returns 0 or a drop reason. */
__subprogram int rewrite_tuple(struct __sk_buff *skb, struct packet *p, const struct tuple *to)
{
	REQUIRE(p && to, DROP_INVALID_PACKET);
	bool icmp = p->t.protocol == IPPROTO_ICMP || p->t.protocol == IPPROTO_ICMPV6;
	__u32 check = checksum_offset(p->t.protocol), pseudo, port;
	int reason = 0;

	check = p->l4 && check ? p->l4 + check : 0;
	if (check && p->t.protocol == IPPROTO_UDP)
		check |= REWRITE_UDP;
	pseudo = p->t.protocol == IPPROTO_ICMP ? 0 : check;
	if (!addr_equal(&p->t.source, &to->source))
		reason = rewrite_address(skb, L3_OFFSET | REWRITE_SOURCE, &p->t.source, &to->source, pseudo);
	if (!reason && !addr_equal(&p->t.destination, &to->destination))
		reason = rewrite_address(skb, L3_OFFSET, &p->t.destination, &to->destination, pseudo);
	if (reason)
		return reason;
	if (p->l4 && p->t.source_port != to->source_port) {
		if (!check)
			return DROP_NAT_UNSUPPORTED_PROTOCOL;
		port = p->l4 + (icmp ? 4 : 0);
		reason = rewrite_port(skb, port, p->t.source_port, to->source_port, check);
	}
	if (!reason && p->l4 && p->t.destination_port != to->destination_port) {
		if (!check)
			return DROP_NAT_UNSUPPORTED_PROTOCOL;
		port = p->l4 + (icmp ? 4 : 2);
		reason = rewrite_port(skb, port, p->t.destination_port, to->destination_port, check);
	}
	p->t = *to;
	return reason;
}

/* One hop further: TTL less one (RFC 1141 for the checksum). The caller has seen that it is above 1. */
static __always_inline int rewrite_ttl(struct __sk_buff *skb, const struct packet *p)
{
	if (likely(p->family == 4)) {
		struct iphdr *ip = bytes_at(skb, L3_OFFSET, sizeof(*ip));
		__u32 check;

		if (unlikely(!ip))
			return DROP_WRITE_ERROR;
		check = ip->check + bpf_htons(0x0100);
		ip->check = check + (check >= 0xffff);
		ip->ttl--;
	} else {
		struct ipv6hdr *ip = bytes_at(skb, L3_OFFSET, sizeof(*ip));

		if (unlikely(!ip))
			return DROP_WRITE_ERROR;
		ip->hop_limit--;
	}
	return 0;
}

static __always_inline int rewrite_macs(struct __sk_buff *skb, const struct mac *destination, const struct mac *source)
{
	struct ethhdr *eth = bytes_at(skb, 0, ETH_HLEN);

	if (unlikely(!eth))
		return DROP_WRITE_ERROR;
	__builtin_memcpy(eth->h_dest, destination, ETH_ALEN);
	__builtin_memcpy(eth->h_source, source, ETH_ALEN);
	return 0;
}

#endif
