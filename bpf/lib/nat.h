/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * Translation of packets. A row says: a packet with this tuple leaves with that one. Every translation is a
 * pair of rows, one each way, and there are two kinds, which may meet in one connection:
 *
 *   arrival     before connection tracking: a service's frontend becomes a backend, and the answer to a
 *               masqueraded packet gets its pod's address back. Only the destination changes.
 *   departure   after it: a pod's address becomes the node's (to the outside), a client's becomes the node's
 * (to a backend of another node), a backend's becomes the frontend again. Only the source changes.
 *
 * So connection tracking and policy always see who really talks to whom. The connection's row remembers that
 * a departure is needed (CT_NAT_FORWARD, CT_NAT_REPLY); packets of other connections never look here.
 *
 *   client → NodePort of node → pod of another node, and back:
 *     c:p → N:np   arrival    c:p → b:x     tracked as (c:p, b:x)
 *     c:p → b:x    departure  N:q → b:x     through the overlay
 *     b:x → N:q    arrival    b:x → c:p     tracked as the reply
 *     b:x → c:p    departure  N:np → c:p    out
 */
#ifndef MYCEL_NAT_H
#define MYCEL_NAT_H

#include "ct.h"
#include "maps.h"
#include "rewrite.h"
#include "service.h"

#define NAT_TRIES	24
#define NAT_TOUCH_NS	(2 * NS_PER_S)
#define NAT_IDLE_TCP_NS (3600 * NS_PER_S) /* after that a port may be given to another */
#define NAT_IDLE_NS	(60 * NS_PER_S)
#define NAT_CLOSED_NS	(10 * NS_PER_S)

static __always_inline bool nat_is_idle(const struct nat_value *row, __u8 protocol, __u64 now)
{
	__u64 limit = row->flags & NAT_CLOSING	? NAT_CLOSED_NS
		      : protocol == IPPROTO_TCP ? NAT_IDLE_TCP_NS
						: NAT_IDLE_NS;

	return (__s64)(now - row->last_seen_ns) > (__s64)limit;
}

/* Keep a used row young, and close both of a pair when either side ends. */
__subprogram int nat_touch(struct nat_value *row, const struct packet *p, __u64 now)
{
	struct scratch *room = scratch();
	struct nat_value *other;
	bool ends;

	REQUIRE(row && p && room, DROP_INVALID_PACKET);
	ends = p->t.protocol == IPPROTO_TCP && p->tcp_flags & (TCP_FIN | TCP_RST);
	if ((__s64)(now - row->last_seen_ns) < (__s64)NAT_TOUCH_NS && !(ends && !(row->flags & NAT_CLOSING)))
		return 0;
	tuple_reverse(&room->nat_key, &row->rewritten);
	other = bpf_map_lookup_elem(&mycel_nat, &room->nat_key);
	row->last_seen_ns = now;
	if (ends)
		row->flags |= NAT_CLOSING;
	if (other) {
		other->last_seen_ns = now;
		if (ends)
			other->flags |= NAT_CLOSING;
	}
	return 0;
}

/*
 * Write the row of the way back: `to` answered becomes `from` answered. `kind` is the forward row's NAT_SOURCE: what
 * changed the destination there changes the source here. Returns 0 or the helper's error.
 */
__subprogram int nat_write_reply(const struct tuple *from, const struct tuple *to, backend_id_t backend, __u32 kind,
				 __u64 update)
{
	struct scratch *room = scratch();

	REQUIRE(from && to && room, DROP_INVALID_PACKET);
	tuple_reverse(&room->nat_key, to);
	tuple_reverse(&room->nat_row.rewritten, from);
	room->nat_row.last_seen_ns = now_coarse_ns();
	room->nat_row.backend_id = backend;
	room->nat_row.flags = NAT_REPLY | (kind ^ NAT_SOURCE);
	return bpf_map_update_elem(&mycel_nat, &room->nat_key, &room->nat_row, update);
}

__subprogram int nat_write_forward(const struct tuple *from, const struct tuple *to, backend_id_t backend, __u32 flags)
{
	struct scratch *room = scratch();

	REQUIRE(from && to && room, DROP_INVALID_PACKET);
	room->nat_row.rewritten = *to;
	room->nat_row.last_seen_ns = now_coarse_ns();
	room->nat_row.backend_id = backend;
	room->nat_row.flags = flags;
	return bpf_map_update_elem(&mycel_nat, from, &room->nat_row, BPF_ANY);
}

/* Take a port from a connection that is over: its other row goes too, or it would go on sending by this port. */
__subprogram int nat_evict(const struct nat_value *taken)
{
	struct scratch *room = scratch();

	REQUIRE(taken && room, DROP_INVALID_PACKET);
	tuple_reverse(&room->nat_row.rewritten, &taken->rewritten);
	return bpf_map_delete_elem(&mycel_nat, &room->nat_row.rewritten);
}

/*
 * Give a connection a port of the node's own: find one whose way back is free, and write both rows. `to` comes with the
 * source address set and leaves with the port. Returns 0 or a drop reason.
 */
__subprogram int nat_allocate(const struct packet *p, struct tuple *to)
{
	__u32 span = config_nat_port_max - config_nat_port_min + 1;
	__u32 start = bpf_get_prandom_u32() % span;
	__u64 now = now_coarse_ns();
	struct scratch *room = scratch();
	struct nat_value *taken;

	REQUIRE(p && to && room, DROP_INVALID_PACKET);
	for (int i = 0; i < NAT_TRIES; i++) {
		to->source_port = bpf_htons(config_nat_port_min + (start + i) % span);
		if (!nat_write_reply(&p->t, to, 0, NAT_SOURCE, BPF_NOEXIST))
			goto found;
		tuple_reverse(&room->nat_key, to);
		taken = bpf_map_lookup_elem(&mycel_nat, &room->nat_key);
		if (!taken || !nat_is_idle(taken, p->t.protocol, now))
			continue;
		nat_evict(taken);
		if (!nat_write_reply(&p->t, to, 0, NAT_SOURCE, BPF_ANY))
			goto found;
	}
	return DROP_NAT_NO_MAPPING;
found:
	return nat_write_forward(&p->t, to, 0, NAT_SOURCE) ? DROP_NAT_NO_MAPPING : 0;
}

/* Make sure the connection of p->t has a source translation: to `source`, or to the node's address where it is zero. */
__subprogram int nat_prepare_source(const struct packet *p, const struct addr *source)
{
	struct scratch *room = scratch();
	struct nat_value *row, *back;
	struct tuple *to;

	REQUIRE(p && source && room, DROP_INVALID_PACKET);
	row = bpf_map_lookup_elem(&mycel_nat, &p->t);
	if (row) {
		tuple_reverse(&room->nat_key, &row->rewritten);
		tuple_reverse(&room->nat_to, &p->t);
		back = bpf_map_lookup_elem(&mycel_nat, &room->nat_key);
		/* Either row may have been evicted, and the port be another connection's by now. */
		if (back && tuple_equal(&back->rewritten, &room->nat_to)) {
			row->flags &= ~NAT_CLOSING;
			back->flags &= ~NAT_CLOSING;
			return 0;
		}
	}
	to = &room->nat_to;
	*to = p->t;
	if (!addr_is_zero(source)) {
		to->source = *source;
		if (nat_write_reply(&p->t, to, 0, NAT_SOURCE, BPF_ANY) || nat_write_forward(&p->t, to, 0, NAT_SOURCE))
			return DROP_NAT_NO_MAPPING;
		return 0;
	}
	to->source = addr_node(p->family == 6);
	if (addr_is_zero(&to->source))
		return DROP_NAT_NO_MAPPING;
	switch (p->t.protocol) {
	case IPPROTO_TCP:
	case IPPROTO_UDP:
		return nat_allocate(p, to);
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		/* Only a request has an identifier that we can choose. */
		if (p->icmp_type == (p->family == 4 ? ICMP4_ECHO : ICMP6_ECHO))
			return nat_allocate(p, to);
		return DROP_NAT_UNSUPPORTED_PROTOCOL;
	default:
		return DROP_NAT_UNSUPPORTED_PROTOCOL;
	}
}

/* Whether a row found on arrival may still be used: its backend exists, and a SYN after the end chooses
 * again. */
static __always_inline bool nat_still_holds(const struct nat_value *row, const struct packet *p, __u64 now)
{
	if (row->flags & NAT_REPLY)
		return true;
	if (row->backend_id && !backend_find(row->backend_id))
		return false;
	if (is_tcp_syn(p) && row->flags & NAT_CLOSING)
		return false;
	return !nat_is_idle(row, p->t.protocol, now);
}

/* Begin a connection to a service: choose, write both rows, rewrite. Returns 0 or a drop reason. */
__subprogram int nat_begin_service(struct __sk_buff *skb, struct packet *p, const struct service_value *service,
				   __u32 client)
{
	struct scratch *room = scratch();
	struct backend_value *backend;
	backend_id_t id = 0;
	struct tuple *to;

	REQUIRE(p && service && room, DROP_INVALID_PACKET);
	backend = service_choose(service, &p->t.source, client, &id);
	if (!backend)
		return DROP_SERVICE_BACKEND_NOT_FOUND;
	to = &room->nat_to;
	*to = p->t;
	to->destination = backend->addr;
	to->destination_port = backend->port;
	if (addr_is_v4(&to->destination) != addr_is_v4(&p->t.destination))
		return DROP_SERVICE_BACKEND_NOT_FOUND; /* a family cannot become the other */
	if (nat_write_reply(&p->t, to, id, 0, BPF_ANY) || nat_write_forward(&p->t, to, id, 0))
		return DROP_NAT_NO_MAPPING;
	p->original = p->t.destination;
	p->original_port = p->t.destination_port;
	p->flags |= PACKET_TRANSLATED;
	return rewrite_tuple(skb, p, to);
}

#define NAT_NONE (-1) /* nothing to translate */

/* Translate on arrival. Returns 0 when the packet was rewritten, NAT_NONE, or a drop reason. */
__subprogram int nat_arrive(struct __sk_buff *skb, struct packet *p)
{
	__u64 now = now_coarse_ns();
	struct scratch *room = scratch();
	struct service_value *service;
	struct nat_value *row;
	struct ct_value *ct;
	bool reply = false;
	__u32 client;

	REQUIRE(p && room, DROP_INVALID_PACKET);
	row = bpf_map_lookup_elem(&mycel_nat, &p->t);
	if (row && !(row->flags & NAT_SOURCE) && nat_still_holds(row, p, now)) {
		nat_touch(row, p, now);
		if (!(row->flags & NAT_REPLY)) {
			p->original = p->t.destination;
			p->original_port = p->t.destination_port;
			p->flags |= PACKET_TRANSLATED;
		}
		room->nat_to = row->rewritten;
		return rewrite_tuple(skb, p, &room->nat_to);
	}
	/* Other nodes' pods chose their backends at home; what they send to the node itself may be a host port. */
	if (p->origin == ORIGIN_OVERLAY && !is_node_address(&p->t.destination))
		return NAT_NONE;
	if (p->t.protocol != IPPROTO_TCP && p->t.protocol != IPPROTO_UDP && p->t.protocol != PROTO_SCTP)
		return NAT_NONE;
	/* The proxy has chosen already. */
	if (p->origin == ORIGIN_PROXY)
		return NAT_NONE;
	/* What comes from outside is asked for here first: a proxy's connection stays one, whatever its service does.
	 */
	if (p->origin == ORIGIN_NETWORK && !is_tcp_syn(p)) {
		ct = ct_find_with(&room->ct_key, &p->t, now, &reply);
		if (ct && !reply && ct->proxy_port) {
			p->redirect_port = ct->proxy_port;
			return NAT_NONE;
		}
	}
	client = p->origin == ORIGIN_NETWORK ? CLIENT_OUTSIDE : CLIENT_CLUSTER;
	service = service_find(&p->t.destination, p->t.destination_port, p->t.protocol, client, false);
	if (!service)
		return NAT_NONE;
	p->redirect_port = client == CLIENT_OUTSIDE ? service->proxy_port_outside : service->proxy_port;
	if (p->redirect_port) {
		if (row) /* of one before, that had a backend: later packets are not its */
			bpf_map_delete_elem(&mycel_nat, &p->t);
		return NAT_NONE;
	}
	return nat_begin_service(skb, p, service, client);
}

/* Translate on departure. Returns 0 when the packet was rewritten, NAT_NONE, or a drop reason. */
__subprogram int nat_depart(struct __sk_buff *skb, struct packet *p)
{
	struct scratch *room = scratch();
	struct nat_value *row;

	REQUIRE(p && room, DROP_INVALID_PACKET);
	row = bpf_map_lookup_elem(&mycel_nat, &p->t);
	if (!row || !(row->flags & NAT_SOURCE))
		return NAT_NONE;
	nat_touch(row, p, now_coarse_ns());
	room->nat_to = row->rewritten;
	return rewrite_tuple(skb, p, &room->nat_to);
}

#endif
