/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * One packet, parsed once: who talks to whom, where the layer-4 header lies, and what was found out on the
 * way. Both families come out of here with 128-bit addresses, so nothing after the parser asks which it was,
 * except where a header is written.
 */
#ifndef MYCEL_PACKET_H
#define MYCEL_PACKET_H

#include "base.h"

#define L3_OFFSET      ETH_HLEN
#define PARSE_NOT_IP   (-1)	  /* ARP and the like: the caller decides */
#define L4_OFFSET_MAX  1024	  /* IPv6 extension headers longer than that are called invalid */
#define MARK_DONE      0x4d790000 /* translated already: the egress hook of the underlay lets it pass */
#define EXTENSIONS_MAX 6	  /* IPv6 extension headers followed before the packet is called invalid */

#define NEXT_HOP      0
#define NEXT_ROUTING  43
#define NEXT_FRAGMENT 44
#define NEXT_AUTH     51
#define NEXT_OPTIONS  60
#define PROTO_SCTP    132

#define ICMP4_ECHO_REPLY	0
#define ICMP4_UNREACHABLE	3
#define ICMP4_ECHO		8
#define ICMP4_TIME_EXCEEDED	11
#define ICMP4_PARAMETER		12
#define ICMP6_PARAMETER		4 /* 1..4 are the errors */
#define ICMP6_ECHO		128
#define ICMP6_ECHO_REPLY	129
#define ICMP6_ROUTER_SOLICIT	133
#define ICMP6_NEIGHBOUR_SOLICIT 135
#define ICMP6_REDIRECT		137
#define ICMP6_MLD2_REPORT	143

#define TCP_FIN 1
#define TCP_SYN 2
#define TCP_RST 4
#define TCP_PSH 8
#define TCP_ACK 16

#define ICMP_OTHER	0xffff
#define ICMP_OTHER_TYPE 0x100 /* and the type */

enum packet_flags {
	PACKET_FIRST_FRAGMENT = 1,
	PACKET_LATER_FRAGMENT = 2, /* no layer-4 header: ports come from mycel_fragments */
	PACKET_ICMP_ERROR = 4,	   /* about a packet whose head it carries */
	PACKET_TRACE = 8,	   /* connection tracking wants this one to be seen */
	PACKET_REPLY = 16,
	PACKET_TRANSLATED = 32,	 /* `original` is the frontend that was dialled */
	PACKET_TRACKED = 64,	 /* `reason` and PACKET_REPLY are known */
	PACKET_DOWNSTREAM = 128, /* a proxy's answer to the connection's initiator */
};

/* Which hook the packet came in by. */
enum origin {
	ORIGIN_POD,
	ORIGIN_OVERLAY,
	ORIGIN_HOST,	/* the node's stack, by cilium_net */
	ORIGIN_STACK,	/* the node's stack, by a pod's own interface */
	ORIGIN_NETWORK, /* the underlay */
	ORIGIN_PROXY,	/* a proxy of this node, in the name of the packet's source */
};

struct packet {
	struct tuple t;
	struct addr original;
	identity_t source_identity;
	identity_t destination_identity;
	__u32 l4; /* offset of the layer-4 header in the frame; 0: none */
	__be32 fragment_id;
	__be16 original_port;
	__be16 redirect_port; /* of the listener that takes connections of the service that was dialled; else 0 */
	__be16 through_port;  /* ORIGIN_PROXY: of the listener the packet's connection came through */
	__u16 endpoint_id;
	__u16 ether_type;
	__u8 family; /* 4, 6; 0: not IP */
	__u8 tcp_flags;
	__u8 icmp_type;
	__u8 icmp_code;
	__u8 flags;
	__u8 origin;
	__u8 reason; /* enum trace_reason */
	__u8 ttl;
	__u8 through; /* ORIGIN_PROXY: enum direction, whose rules that listener has applied; 0: nobody's */
};

/*
 * The frame's bytes. The compiler likes to load these 32-bit fields once and to widen them again later, and the
 * verifier then takes a pointer for a number: so each use is a load of its own.
 */
static __always_inline void *frame(const struct __sk_buff *skb)
{
	void *start;

	asm volatile("%0 = *(u32 *)(%1 + %2)" : "=r"(start) : "r"(skb), "i"(offsetof(struct __sk_buff, data)));
	return start;
}

static __always_inline void *frame_end(const struct __sk_buff *skb)
{
	void *end;

	asm volatile("%0 = *(u32 *)(%1 + %2)" : "=r"(end) : "r"(skb), "i"(offsetof(struct __sk_buff, data_end)));
	return end;
}

/* `length` bytes of the frame from `offset`, or NULL when they are not (yet) in its linear part. */
static __always_inline void *bytes_at(const struct __sk_buff *skb, __u32 offset, __u32 length)
{
	void *start = frame(skb) + offset;

	return start + length <= frame_end(skb) ? start : NULL;
}

/* The same, fetched into the linear part if need be, or NULL when the frame ends before. Earlier pointers are void
 * then. */
static __always_inline void *bytes_needed(struct __sk_buff *skb, __u32 offset, __u32 length)
{
	void *start = bytes_at(skb, offset, length);

	if (likely(start != NULL) || bpf_skb_pull_data(skb, offset + length) < 0)
		return start;
	return bytes_at(skb, offset, length);
}

static __always_inline void tuple_reverse(struct tuple *to, const struct tuple *t)
{
	to->source = t->destination;
	to->destination = t->source;
	to->source_port = t->destination_port;
	to->destination_port = t->source_port;
	to->protocol = t->protocol;
	__builtin_memset(to->pad, 0, sizeof(to->pad));
}

static __always_inline bool tuple_equal(const struct tuple *a, const struct tuple *b)
{
	return addr_equal(&a->source, &b->source) && addr_equal(&a->destination, &b->destination) &&
	       a->source_port == b->source_port && a->destination_port == b->destination_port &&
	       a->protocol == b->protocol;
}

static __always_inline bool is_tcp_syn(const struct packet *p)
{
	return p->t.protocol == IPPROTO_TCP && (p->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
}

/*
 * An echo request's ports are (identifier, 0) and a reply's (0, identifier), so a request never looks like a reply.
 * Other types have no identity but their own: each is a connection by itself, with ports that echoes never have and
 * that differ by direction, so that one type's verdict is not another's.
 */
static __always_inline void parse_icmp(struct packet *p, __u8 type, __u8 code, __be16 id, bool v6)
{
	__u8 request = v6 ? ICMP6_ECHO : ICMP4_ECHO, reply = v6 ? ICMP6_ECHO_REPLY : ICMP4_ECHO_REPLY;

	p->icmp_type = type;
	p->icmp_code = code;
	if (type == request)
		p->t.source_port = id;
	else if (type == reply)
		p->t.destination_port = id;
	else if (v6 ? type >= 1 && type <= ICMP6_PARAMETER
		    : type == ICMP4_UNREACHABLE || type == ICMP4_TIME_EXCEEDED || type == ICMP4_PARAMETER)
		p->flags |= PACKET_ICMP_ERROR;
	else {
		p->t.source_port = bpf_htons(ICMP_OTHER_TYPE | type);
		p->t.destination_port = bpf_htons(ICMP_OTHER);
	}
}

/* Fill ports and flags from the layer-4 header at `l4`. Returns 0 or a drop reason. */
static __always_inline int parse_l4(struct __sk_buff *skb, struct packet *p, __u32 l4)
{
	const __be16 *ports;
	const __u8 *bytes;

	if (likely(p->t.protocol == IPPROTO_TCP)) {
		const struct tcphdr *tcp = bytes_needed(skb, l4, sizeof(*tcp));

		if (unlikely(!tcp))
			return DROP_CT_INVALID_HEADER;
		p->t.source_port = tcp->source;
		p->t.destination_port = tcp->dest;
		p->tcp_flags = ((const __u8 *)tcp)[13];
		return 0;
	}
	bytes = bytes_needed(skb, l4, 8);
	if (unlikely(!bytes))
		return DROP_CT_INVALID_HEADER;
	ports = (const void *)bytes;
	switch (p->t.protocol) {
	case IPPROTO_UDP:
	case PROTO_SCTP:
		break;
	case IPPROTO_ICMP:
		if (p->family != 4)
			return DROP_CT_UNKNOWN_PROTO;
		parse_icmp(p, bytes[0], bytes[1], ports[2], false);
		return 0;
	case IPPROTO_ICMPV6:
		if (p->family != 6)
			return DROP_CT_UNKNOWN_PROTO;
		parse_icmp(p, bytes[0], bytes[1], ports[2], true);
		return 0;
	default:
		return DROP_CT_UNKNOWN_PROTO;
	}
	p->t.source_port = ports[0];
	p->t.destination_port = ports[1];
	return 0;
}

static __always_inline int parse_v4(struct __sk_buff *skb, struct packet *p)
{
	const struct iphdr *ip = bytes_needed(skb, L3_OFFSET, sizeof(*ip));
	__u32 offset;

	if (unlikely(!ip))
		return DROP_INVALID_PACKET;
	p->family = 4;
	p->t.source = addr_v4(ip->saddr);
	p->t.destination = addr_v4(ip->daddr);
	p->t.protocol = ip->protocol;
	p->ttl = ip->ttl;
	if (unlikely(ip->version != 4 || ip->ihl < 5))
		return DROP_INVALID_PACKET;
	if (!config_ipv4)
		return DROP_UNSUPPORTED_L3;
	offset = ip->frag_off & bpf_htons(0x1fff);
	if (unlikely(ip->frag_off & bpf_htons(0x3fff))) {
		p->fragment_id = (__be32)ip->id;
		p->flags |= offset ? PACKET_LATER_FRAGMENT : PACKET_FIRST_FRAGMENT;
		if (offset)
			return 0;
	}
	p->l4 = L3_OFFSET + ip->ihl * 4;
	return parse_l4(skb, p, p->l4);
}

/* Walk IPv6's extension headers. Returns 0, or a drop reason; on 0 p->l4 is set unless this is a later
 * fragment. */
__subprogram int parse_v6_extensions(struct __sk_buff *skb, struct packet *p)
{
	REQUIRE(p, DROP_INVALID_PACKET);
	__u32 offset = L3_OFFSET + sizeof(struct ipv6hdr);
	__u8 next = p->t.protocol;
	__u8 head[8];

	for (int i = 0; i < EXTENSIONS_MAX; i++) {
		if (next != NEXT_HOP && next != NEXT_ROUTING && next != NEXT_OPTIONS && next != NEXT_AUTH &&
		    next != NEXT_FRAGMENT) {
			p->t.protocol = next;
			p->l4 = offset;
			return 0;
		}
		if (bpf_skb_load_bytes(skb, offset, head, sizeof(head)) < 0)
			return DROP_INVALID_EXTENSION_HEADER;
		if (next == NEXT_FRAGMENT) {
			p->fragment_id = *(__be32 *)&head[4];
			if (*(__be16 *)&head[2] & bpf_htons(0xfff8)) {
				p->t.protocol = head[0];
				p->flags |= PACKET_LATER_FRAGMENT;
				return 0;
			}
			p->flags |= PACKET_FIRST_FRAGMENT;
			offset += 8;
		} else if (next == NEXT_AUTH) {
			offset += (head[1] + 2) * 4;
		} else {
			offset += (head[1] + 1) * 8;
		}
		next = head[0];
	}
	return DROP_INVALID_EXTENSION_HEADER;
}

static __always_inline int parse_v6(struct __sk_buff *skb, struct packet *p)
{
	const struct ipv6hdr *ip = bytes_needed(skb, L3_OFFSET, sizeof(*ip));
	__u32 l4;
	int reason;

	if (unlikely(!ip))
		return DROP_INVALID_PACKET;
	p->family = 6;
	p->t.source = *(struct addr *)&ip->saddr;
	p->t.destination = *(struct addr *)&ip->daddr;
	p->t.protocol = ip->nexthdr;
	p->ttl = ip->hop_limit;
	if (!config_ipv6)
		return DROP_UNSUPPORTED_L3;
	/* An IPv4 address written as IPv6 would be taken for the IPv4 one: RFC 4291 2.5.5.2 keeps it off the
	 * wire. */
	if (unlikely(addr_is_v4(&p->t.source) || addr_is_v4(&p->t.destination)))
		return DROP_INVALID_PACKET;
	reason = parse_v6_extensions(skb, p);
	if (unlikely(reason))
		return reason;
	if (unlikely(p->flags & PACKET_LATER_FRAGMENT))
		return 0;
	l4 = p->l4;
	if (unlikely(l4 > L4_OFFSET_MAX))
		return DROP_INVALID_EXTENSION_HEADER;
	return parse_l4(skb, p, l4);
}

/*
 * Fill `p` (zeroed by the caller) from the frame. Returns 0, PARSE_NOT_IP, or a drop reason; what was read
 * until then stays, so that the drop's event can say whose packet it was.
 */
static __always_inline int parse(struct __sk_buff *skb, struct packet *p)
{
	const struct ethhdr *eth;

	eth = bytes_needed(skb, 0, ETH_HLEN);
	if (unlikely(!eth))
		return DROP_INVALID_PACKET;
	p->ether_type = bpf_ntohs(eth->h_proto);
	if (likely(eth->h_proto == bpf_htons(ETH_P_IP)))
		return parse_v4(skb, p);
	if (eth->h_proto == bpf_htons(ETH_P_IPV6))
		return parse_v6(skb, p);
	return PARSE_NOT_IP;
}

#endif
