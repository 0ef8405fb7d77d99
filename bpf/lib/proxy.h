/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * Connections that pass a proxy of this node (Envoy, or the DNS proxy), in both directions transparently: docs/l7.md.
 *
 * A proxied connection is two legs and more, each with a row of its own in mycel_ct:
 *
 *   client → listener    the row has proxy_port; the initiator's packets go to that listener's socket, and only the
 *                        proxy answers (MARK_DOWNSTREAM)
 *   proxy → server       the row has CT_FROM_PROXY; only the proxy sends (an upstream mark), and the responder's
 * packets go to the proxy's socket
 *
 * A leg may be both: then one listener's upstream is the next one's client.
 */
#ifndef MYCEL_PROXY_H
#define MYCEL_PROXY_H

#include "ct.h"
#include "events.h"

#define TCP_LISTEN 10 /* bpf_sock.state */

/* 192.0.0.8 (RFC 7600) and 100::8 (RFC 6666): no interface has them, so nobody can dial a listener there. */
static __always_inline struct addr addr_proxy(bool v6)
{
	struct addr addr = addr_v4(bpf_htonl(0xc0000008));

	if (v6) {
		addr.hi = bpf_cpu_to_be64(0x0100000000000000ULL);
		addr.lo = bpf_cpu_to_be64(8);
	}
	return addr;
}

/* From the packet's source to the listener on `port`, or (0) to the packet's own destination, as socket lookups take
 * it. Returns the size.
 */
static __always_inline __u32 proxy_tuple(struct bpf_sock_tuple *tuple, const struct packet *p, __be16 port)
{
	struct addr to = port ? addr_proxy(p->family == 6) : p->t.destination;

	port = port ?: p->t.destination_port;
	if (p->family == 4) {
		tuple->ipv4.saddr = addr_to_v4(&p->t.source);
		tuple->ipv4.daddr = addr_to_v4(&to);
		tuple->ipv4.sport = p->t.source_port;
		tuple->ipv4.dport = port;
		return sizeof(tuple->ipv4);
	}
	__builtin_memcpy(tuple->ipv6.saddr, &p->t.source, sizeof(tuple->ipv6.saddr));
	__builtin_memcpy(tuple->ipv6.daddr, &to, sizeof(tuple->ipv6.daddr));
	tuple->ipv6.sport = p->t.source_port;
	tuple->ipv6.dport = port;
	return sizeof(tuple->ipv6);
}

/* Give a TCP packet to the listener on `port` (not 0), or else to the connection's own socket. Returns whether it was.
 */
__subprogram int proxy_assign_tcp(struct __sk_buff *skb, const struct packet *p, __be16 port)
{
	struct bpf_sock_tuple tuple = {};
	struct bpf_sock *socket;
	__u32 size;
	bool given;

	REQUIRE(p, false);
	size = proxy_tuple(&tuple, p, port);
	socket = bpf_skc_lookup_tcp(skb, &tuple, size, BPF_F_CURRENT_NETNS, 0);
	if (!socket)
		return false;
	/* A connection's own socket does not listen: that would be some other program of the node. */
	given = (socket->state == TCP_LISTEN) == !!port && !bpf_sk_assign(skb, socket, 0);
	bpf_sk_release(socket);
	return given;
}

/* The same for UDP, where the own socket is the one the proxy sent from: bound to the packet's very destination. */
__subprogram int proxy_assign_udp(struct __sk_buff *skb, const struct packet *p, __be16 port)
{
	struct bpf_sock_tuple tuple = {};
	struct bpf_sock *socket;
	__u32 size;
	bool given;

	REQUIRE(p, false);
	size = proxy_tuple(&tuple, p, port);
	socket = bpf_sk_lookup_udp(skb, &tuple, size, BPF_F_CURRENT_NETNS, 0);
	if (!socket)
		return false;
	given = p->family == 6 ? socket->src_ip6[3] == tuple.ipv6.daddr[3] && socket->src_ip6[0] == tuple.ipv6.daddr[0]
			       : socket->src_ip4 == tuple.ipv4.daddr;
	given = given && !bpf_sk_assign(skb, socket, 0);
	bpf_sk_release(socket);
	return given;
}

/* Whether a new connection could be given to the listener on `port`. */
__subprogram int proxy_listens(struct __sk_buff *skb, const struct packet *p, __be16 port)
{
	struct bpf_sock_tuple tuple = {};
	struct bpf_sock *socket;
	bool tcp, found;
	__u32 size;

	REQUIRE(p, false);
	tcp = p->t.protocol == IPPROTO_TCP;
	if (p->origin == ORIGIN_STACK || (!tcp && p->t.protocol != IPPROTO_UDP)) /* see deliver_proxy */
		return false;
	size = proxy_tuple(&tuple, p, port);
	socket = tcp ? bpf_skc_lookup_tcp(skb, &tuple, size, BPF_F_CURRENT_NETNS, 0)
		     : bpf_sk_lookup_udp(skb, &tuple, size, BPF_F_CURRENT_NETNS, 0);
	if (!socket)
		return false;
	found = !tcp || socket->state == TCP_LISTEN;
	bpf_sk_release(socket);
	return found;
}

/* Up the stack, to the proxy: to listener `port`, or (0) to the socket that began the connection. Returns a TC action.
 */
static __always_inline int deliver_proxy(struct __sk_buff *skb, const struct packet *p, __be16 port)
{
	int given;

	if (p->origin == ORIGIN_STACK) /* egress hooks cannot assign */
		return drop(skb, p, DROP_PROXY_UNSUPPORTED);
	if (p->t.protocol == IPPROTO_TCP)
		given = proxy_assign_tcp(skb, p, 0) || (port && proxy_assign_tcp(skb, p, port));
	else
		given = proxy_assign_udp(skb, p, port);
	if (!given)
		return drop(skb, p, DROP_PROXY_LOOKUP_FAILED);
	skb->mark = MARK_TO_PROXY;
	if (skb->pkt_type != PACKET_HOST)
		bpf_skb_change_type(skb, PACKET_HOST);
	return TC_ACT_OK;
}

/*
 * What the mark of a packet from the node's stack says, if a proxy's socket sent it. The kernel sends the last packets
 * of a socket that is gone with its mark and without a control group: they pass on a row that exists. A mark of a kind
 * that is none of ours says nothing. Returns 0 or a drop reason.
 */
__subprogram int proxy_sender(struct __sk_buff *skb, struct packet *p)
{
	struct proxy_key key = {};
	__u32 mark = skb->mark;
	bool reply = false;

	REQUIRE(p, DROP_INVALID_PACKET);
	skb->mark = 0; /* it says nothing beyond this hook, and routes would read it: the overlay's too */
	switch (mark & MARK_KIND) {
	case MARK_DOWNSTREAM:
		p->flags |= PACKET_DOWNSTREAM;
		break;
	case MARK_UPSTREAM_SERVICE:
		p->origin = ORIGIN_PROXY;
		break;
	case MARK_UPSTREAM_EGRESS:
		p->origin = ORIGIN_PROXY;
		p->through = DIRECTION_EGRESS;
		break;
	case MARK_UPSTREAM_INGRESS:
		p->origin = ORIGIN_PROXY;
		p->through = DIRECTION_INGRESS;
		break;
	default:
		return 0;
	}
	p->through_port = bpf_htons(mark >> 16);
	key.cgroup_id = bpf_skb_cgroup_id(skb);
	if (key.cgroup_id ? bpf_map_lookup_elem(&mycel_proxies, &key) != NULL
			  : ct_find(&p->t, now_coarse_ns(), &reply) != NULL)
		return 0;
	return DROP_PROXY_FOREIGN;
}

/* Whether a packet may be sent by who sends it, on a connection that passes a proxy. Returns 0 or a drop reason. */
static __always_inline int proxy_check(const struct packet *p, const struct ct_value *ct, bool reply)
{
	bool right = reply ? !ct->proxy_port || p->flags & PACKET_DOWNSTREAM
			   : !(ct->flags & CT_FROM_PROXY) == (p->origin != ORIGIN_PROXY);

	return right ? 0 : DROP_PROXY_FOREIGN;
}

#endif
