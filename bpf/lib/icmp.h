/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * ICMP errors belong to the connection of the packet they quote. They pass if that connection is known, and
 * travel its translations: the quoted packet was seen as it left, so the error is treated as a packet the
 * other way.
 *
 * For a row (s → d) ⇒ (s' → d') of the error's direction, the error's own destination d becomes d', its
 * source becomes s' if it was s (a router on the way keeps its address), and in the quotation, which runs the
 * other way, the source d becomes d' and the destination s becomes s'. The quoted IPv4 header has its own
 * checksum, so address changes leave the ICMP sum alone; ports do not, and IPv6 has no such luck with
 * addresses either.
 */
#ifndef MYCEL_ICMP_H
#define MYCEL_ICMP_H

#include "ct.h"
#include "nat.h"

struct quotation {
	struct tuple t; /* as quoted: the direction of the packet that failed */
	__u32 l3;	/* offset of the quoted IP header */
	__u32 l4;
};

/* Read the quoted packet. Returns 0 or a drop reason. */
__subprogram int icmp_quotation(struct __sk_buff *skb, const struct packet *p, struct quotation *q)
{
	REQUIRE(p && q, DROP_INVALID_PACKET);
	__be16 ports[4];

	q->l3 = p->l4 + 8;
	if (p->family == 4) {
		struct iphdr ip;

		if (bpf_skb_load_bytes(skb, q->l3, &ip, sizeof(ip)) < 0 || ip.version != 4 || ip.ihl < 5 ||
		    ip.frag_off & bpf_htons(0x1fff))
			return DROP_INVALID_PACKET;
		q->t.source = addr_v4(ip.saddr);
		q->t.destination = addr_v4(ip.daddr);
		q->t.protocol = ip.protocol;
		q->l4 = q->l3 + ip.ihl * 4;
	} else {
		struct ipv6hdr ip;

		if (bpf_skb_load_bytes(skb, q->l3, &ip, sizeof(ip)) < 0 || ip.version != 6)
			return DROP_INVALID_PACKET;
		__builtin_memcpy(&q->t.source, &ip.saddr, sizeof(q->t.source));
		__builtin_memcpy(&q->t.destination, &ip.daddr, sizeof(q->t.destination));
		q->t.protocol = ip.nexthdr;
		q->l4 = q->l3 + sizeof(ip);
	}
	if (bpf_skb_load_bytes(skb, q->l4, ports, sizeof(ports)) < 0)
		return DROP_INVALID_PACKET;
	switch (q->t.protocol) {
	case IPPROTO_TCP:
	case IPPROTO_UDP:
	case PROTO_SCTP:
		q->t.source_port = ports[0];
		q->t.destination_port = ports[1];
		return 0;
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6: {
		__u8 type = *(__u8 *)ports;

		if (type == ICMP4_ECHO || type == ICMP6_ECHO)
			q->t.source_port = ports[2];
		else
			q->t.destination_port = ports[2];
		return 0;
	}
	default:
		return DROP_INVALID_PACKET;
	}
}

/* Change one quoted address, and the sums over it. */
static __always_inline int icmp_quoted_address(struct __sk_buff *skb, const struct packet *p, const struct quotation *q,
					       bool source, const struct addr *old, const struct addr *new)
{
	__s64 diff;
	int reason;

	if (addr_equal(old, new))
		return 0;
	reason = rewrite_address(skb, q->l3 | (source ? REWRITE_SOURCE : 0), old, new, 0);
	if (reason || p->family == 4)
		return reason;
	diff = bpf_csum_diff((__be32 *)old, sizeof(*old), (__be32 *)new, sizeof(*new), 0);
	return bpf_l4_csum_replace(skb, p->l4 + 2, 0, diff, 0) < 0 ? DROP_WRITE_ERROR : 0;
}

/* Take the error along one translation row. Returns 0 or a drop reason. */
__subprogram int icmp_translate(struct __sk_buff *skb, struct packet *p, struct quotation *q, const struct tuple *to)
{
	REQUIRE(p && q && to, DROP_INVALID_PACKET);
	bool echo = q->t.protocol == IPPROTO_ICMP || q->t.protocol == IPPROTO_ICMPV6;
	struct tuple outer = p->t;
	int reason;

	if (addr_equal(&p->t.source, &q->t.destination))
		outer.source = to->source;
	outer.destination = to->destination;
	reason = icmp_quoted_address(skb, p, q, true, &q->t.source, &to->destination);
	if (!reason)
		reason = icmp_quoted_address(skb, p, q, false, &q->t.destination, &to->source);
	if (!reason && q->t.source_port != to->destination_port)
		reason = rewrite_port(skb, q->l4 + (echo ? 4 : 0), q->t.source_port, to->destination_port, p->l4 + 2);
	if (!reason && q->t.destination_port != to->source_port)
		reason = rewrite_port(skb, q->l4 + (echo ? 4 : 2), q->t.destination_port, to->source_port, p->l4 + 2);
	if (reason)
		return reason;
	tuple_reverse(&q->t, to);
	return rewrite_tuple(skb, p, &outer);
}

/*
 * Find the connection an error belongs to, and translate it as that one's packets of the same direction are.
 * Returns 0 with p filled, NAT_NONE when no connection is known, or a drop reason.
 */
__subprogram int icmp_error(struct __sk_buff *skb, struct packet *p)
{
	struct scratch *room = scratch();
	struct quotation q = {};
	struct nat_value *row;
	struct ct_value *ct;
	bool reply = false;
	struct tuple *way;
	int reason;

	REQUIRE(p && room, DROP_INVALID_PACKET);
	way = &room->quoted_way;
	reason = icmp_quotation(skb, p, &q);
	if (reason)
		return reason;
	/* The error goes to whom it quotes; and a pod speaks of packets that it got, not of others'. */
	if (!addr_equal(&p->t.destination, &q.t.source) ||
	    (p->origin == ORIGIN_POD && !addr_equal(&p->t.source, &q.t.destination)))
		return DROP_INVALID_PACKET;
	tuple_reverse(way, &q.t);
	row = bpf_map_lookup_elem(&mycel_nat, way);
	if (row && !(row->flags & NAT_SOURCE)) {
		room->nat_to = row->rewritten;
		reason = icmp_translate(skb, p, &q, &room->nat_to);
		if (reason)
			return reason;
		tuple_reverse(way, &q.t);
	}
	ct = ct_find_with(&room->ct_key, way, now_coarse_ns(), &reply);
	if (!ct)
		return NAT_NONE;
	p->flags |= PACKET_TRACE | PACKET_TRACKED | (reply ? PACKET_REPLY : 0);
	p->reason = REASON_RELATED;
	p->source_identity = reply ? ct->destination_identity : ct->source_identity;
	p->destination_identity = reply ? ct->source_identity : ct->destination_identity;
	if (!(ct->flags & (reply ? CT_NAT_REPLY : CT_NAT_FORWARD)))
		return 0;
	row = bpf_map_lookup_elem(&mycel_nat, way);
	if (!row || !(row->flags & NAT_SOURCE))
		return 0;
	room->nat_to = row->rewritten;
	return icmp_translate(skb, p, &q, &room->nat_to);
}

#endif
