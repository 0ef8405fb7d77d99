/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * The way of every packet that is ours, whichever hook it came in by:
 *
 *   connection known ─────────────────────────────┐
 *   not known: arrive (services) → judge → write ─┴→ route → judged again if the policy is newer or an end is
 *                                                    somebody else → depart → deliver
 *
 * The first line is the hot path: one connection lookup, one endpoint lookup, no event.
 */
#ifndef MYCEL_PATH_H
#define MYCEL_PATH_H

#include "ct.h"
#include "deliver.h"
#include "events.h"
#include "fragment.h"
#include "icmp.h"
#include "identity.h"
#include "nat.h"
#include "policy.h"

/* Who sends: an endpoint of this node (whose egress policy is asked), or NULL and p->source_identity. */
static __always_inline int judge_egress(struct __sk_buff *skb, struct packet *p, struct ct_value *ct,
					const struct endpoint_value *source)
{
	int reason = policy_judge(skb, p, source, DIRECTION_EGRESS, &ct->policy_rule);

	if (reason)
		return reason;
	ct->flags |= CT_EGRESS_JUDGED;
	ct->egress_revision = source->policy_revision;
	return 0;
}

static __always_inline int judge_ingress(struct __sk_buff *skb, struct packet *p, struct ct_value *ct,
					 const struct endpoint_value *destination)
{
	int reason = policy_judge(skb, p, destination, DIRECTION_INGRESS, &ct->policy_rule);

	if (reason)
		return reason;
	ct->flags |= CT_INGRESS_JUDGED;
	ct->ingress_revision = destination->policy_revision;
	return 0;
}

/* Which source translation a new connection needs. Returns 0, with flags added, or a drop reason. */
static __noinline int begin_source(struct packet *p, const struct route *route, __u16 *flags)
{
	struct addr source = {};

	if (p->origin == ORIGIN_POD && addr_equal(&p->t.source, &p->t.destination))
		source = addr_loopback(p->family == 6); /* a pod that meets itself behind a service */
	else if (p->origin == ORIGIN_POD && route->target == TARGET_OUT && config_masquerade)
		;
	else if (p->origin == ORIGIN_NETWORK && p->flags & PACKET_TRANSLATED &&
		 (route->target == TARGET_OUT || route->target == TARGET_OVERLAY))
		;
	else
		return 0;
	*flags |= CT_NAT_FORWARD;
	return nat_prepare_source(p, &source);
}

static __always_inline bool speaks_vxlan(const struct packet *p)
{
	return p->t.protocol == IPPROTO_UDP && p->t.destination_port == bpf_htons(config_vxlan_port);
}

static __always_inline bool is_pod(const struct route *route)
{
	return route->target == TARGET_ENDPOINT ||
	       (route->target == TARGET_OVERLAY && route->info && !(route->info->flags & IPCACHE_NODE));
}

/* Judge a new connection and write its row. Returns 0 or a drop reason. */
__subprogram int begin(struct __sk_buff *skb, struct packet *p, const struct endpoint_value *source, bool reopened)
{
	struct scratch *room = scratch();
	struct ct_value *ct;
	struct route route;
	__u16 flags = 0;
	int reason;

	REQUIRE(p && room, DROP_INVALID_PACKET);
	route_find(&route, &p->t.destination);
	p->destination_identity = route.identity;
	if (route.target == TARGET_NOWHERE)
		return DROP_UNROUTABLE_IP;
	if (source && speaks_vxlan(p) && !is_pod(&route))
		return DROP_ENCAP_PROHIBITED;
	ct = &room->ct;
	__builtin_memset(ct, 0, sizeof(*ct));
	ct->source_identity = p->source_identity;
	ct->destination_identity = route.identity;
	if (p->flags & PACKET_TRANSLATED)
		flags |= CT_NAT_REPLY;
	if (source) {
		reason = judge_egress(skb, p, ct, source);
		if (reason)
			return reason;
	}
	if (route.target == TARGET_ENDPOINT && route.endpoint) {
		reason = judge_ingress(skb, p, ct, route.endpoint);
		if (reason)
			return reason;
	}
	reason = begin_source(p, &route, &flags);
	if (reason)
		return reason;
	if (ct_key(&room->ct_key, &p->t))
		flags |= CT_SOURCE_IS_HIGH;
	ct->flags |= flags;
	ct->last_seen_ns = now_coarse_ns();
	if (bpf_map_update_elem(&mycel_ct, &room->ct_key, ct, BPF_ANY))
		return DROP_CT_INSERTION_FAILED;
	p->reason = reopened ? REASON_REOPENED : REASON_NEW;
	return 0;
}

/* A tuple without a connection: translate it, and begin one unless the translated tuple has it. */
__subprogram int open(struct __sk_buff *skb, struct packet *p, const struct endpoint_value *source)
{
	struct scratch *room = scratch();
	struct ct_value *ct;
	bool reply = false;
	int reason;

	REQUIRE(p && room, DROP_INVALID_PACKET);
	reason = nat_arrive(skb, p);
	if (reason > 0)
		return reason;
	ct = ct_find_with(&room->ct_key, &p->t, now_coarse_ns(), &reply);
	if (ct && !(is_tcp_syn(p) && ct_begins_anew(ct, reply)))
		return 0;
	return begin(skb, p, source, ct != NULL);
}

/* Make a reply look like what it answers, or back. */
static __noinline int packet_turn(struct packet *p)
{
	struct scratch *room = scratch();
	identity_t identity = p->source_identity;
	__u8 asks = p->family == 6 ? ICMP6_ECHO : ICMP4_ECHO,
	     answers = p->family == 6 ? ICMP6_ECHO_REPLY : ICMP4_ECHO_REPLY;

	if (!room)
		return DROP_INVALID_PACKET;
	room->turned = p->t;
	tuple_reverse(&p->t, &room->turned);
	p->source_identity = p->destination_identity;
	p->destination_identity = identity;
	if (p->t.protocol == IPPROTO_ICMP || p->t.protocol == IPPROTO_ICMPV6)
		p->icmp_type = p->icmp_type == asks ? answers : p->icmp_type == answers ? asks : p->icmp_type;
	return 0;
}

/*
 * Policy is newer than the verdict, or an end is not who it was (its labels changed, or its address is another pod's
 * now): judge the connection again, also when it is a reply that shows it. A denial keeps the row as it is, so every
 * further packet is asked again.
 */
__subprogram int judge_again(struct __sk_buff *skb, struct packet *p, struct ct_value *ct,
			     const struct endpoint_value *initiator, const struct endpoint_value *responder)
{
	REQUIRE(p && ct, DROP_INVALID_PACKET);
	bool reply = p->flags & PACKET_REPLY, others;
	int reason = 0;

	if (reply && packet_turn(p))
		return DROP_INVALID_PACKET;
	others = ct->source_identity != p->source_identity || ct->destination_identity != p->destination_identity;
	if (initiator && (others || ct->egress_revision != initiator->policy_revision))
		reason = judge_egress(skb, p, ct, initiator);
	if (!reason && responder && (others || ct->ingress_revision != responder->policy_revision))
		reason = judge_ingress(skb, p, ct, responder);
	if (!reason) {
		ct->source_identity = p->source_identity;
		ct->destination_identity = p->destination_identity;
	}
	if (reply)
		packet_turn(p);
	return reason;
}

/* Whether a route's identity is the destination's own: a node also stands for whom it translates. */
static __always_inline bool tells_identity(const struct route *route)
{
	return route->target == TARGET_ENDPOINT || ((route->target == TARGET_OVERLAY || route->target == TARGET_OUT) &&
						    !(route->info && route->info->flags & IPCACHE_NODE));
}

/* Where a packet goes, and what its connection needs before. */
static __always_inline int deliver(struct __sk_buff *skb, struct packet *p, const struct route *route, bool depart)
{
	int reason;

	if (unlikely(p->ttl <= 1 && counts_hop(p) && (route->target == TARGET_ENDPOINT || route->target == TARGET_OUT)))
		return drop(skb, p, DROP_TTL_EXCEEDED);
	/* What other nodes send is for this node, or the answer to what it translated: two nodes never play ball. */
	if (unlikely(p->origin == ORIGIN_OVERLAY &&
		     (route->target == TARGET_OVERLAY ||
		      (route->target == TARGET_OUT && !depart && !(p->flags & PACKET_ICMP_ERROR)))))
		return drop(skb, p, DROP_UNROUTABLE_IP);
	switch (route->target) {
	case TARGET_ENDPOINT:
		if (unlikely(!(route->endpoint->flags & ENDPOINT_READY)))
			return drop(skb, p, DROP_ENDPOINT_NOT_READY);
		forwarded(skb, p, TRACE_TO_ENDPOINT, route->endpoint->endpoint_id);
		break;
	case TARGET_STACK:
		forwarded(skb, p, TRACE_TO_STACK, p->endpoint_id);
		break;
	case TARGET_OVERLAY:
		forwarded(skb, p, TRACE_TO_OVERLAY, p->endpoint_id);
		break;
	case TARGET_OUT:
		forwarded(skb, p, config_masquerade || depart ? TRACE_TO_NETWORK : TRACE_TO_STACK, p->endpoint_id);
		break;
	default:
		return drop(skb, p, DROP_UNROUTABLE_IP);
	}
	if (unlikely(depart)) {
		reason = nat_depart(skb, p);
		if (reason > 0)
			return drop(skb, p, reason);
		if (reason == NAT_NONE) /* the row was evicted: better closed than with a wrong address */
			return drop(skb, p, DROP_NAT_NO_MAPPING);
	}
	switch (route->target) {
	case TARGET_ENDPOINT:
		return deliver_endpoint(skb, p, route->endpoint);
	case TARGET_STACK:
		return deliver_stack(skb);
	case TARGET_OVERLAY:
		return deliver_overlay(skb, p, route->info);
	default:
		if (!config_masquerade && !depart)
			return TC_ACT_OK;
		return deliver_out(skb, p);
	}
}

/*
 * Take a parsed packet to where it goes. `source`: the endpoint of this node that sent it, or NULL with
 * p->source_identity known. Returns a TC action.
 */
static __always_inline int pass(struct __sk_buff *skb, struct packet *p, const struct endpoint_value *source)
{
	__u64 now = now_coarse_ns();
	const struct endpoint_value *receiver, *initiator, *responder;
	identity_t sender = p->source_identity;
	struct ct_value *ct;
	struct route route;
	__u8 begun = 0;
	bool reply = false, stale, depart = false;
	int reason;

	if (unlikely(p->flags & PACKET_ICMP_ERROR)) {
		reason = icmp_error(skb, p);
		if (reason)
			return drop(skb, p, reason == NAT_NONE ? DROP_CT_INVALID_HEADER : (__u32)reason);
		route_find(&route, &p->t.destination);
		goto known;
	}
	ct = ct_find(&p->t, now, &reply);
	if (unlikely(!ct || (is_tcp_syn(p) && ct_begins_anew(ct, reply)))) {
		reason = open(skb, p, source);
		if (reason)
			return drop(skb, p, reason);
		begun = p->reason;
		ct = ct_find(&p->t, now, &reply);
		if (!ct)
			return drop(skb, p, DROP_CT_INSERTION_FAILED);
	}
	ct_touch(ct, p, reply, now);
	if (unlikely(begun))
		p->reason = begun;
	depart = ct->flags & (reply ? CT_NAT_REPLY : CT_NAT_FORWARD);
	route_find(&route, &p->t.destination);
	receiver = route.target == TARGET_ENDPOINT ? route.endpoint : NULL;
	initiator = reply ? receiver : source;
	responder = reply ? source : receiver;
	stale = (initiator && ct->egress_revision != initiator->policy_revision) ||
		(responder && ct->ingress_revision != responder->policy_revision);
	if (unlikely(sender != p->source_identity)) {
		p->source_identity = sender;
		stale = true;
	}
	if (unlikely(route.identity != p->destination_identity) && tells_identity(&route)) {
		p->destination_identity = route.identity;
		stale = true;
	}
	if (unlikely(stale)) {
		reason = judge_again(skb, p, ct, initiator, responder);
		if (reason)
			return drop(skb, p, reason);
	}
known:
	return deliver(skb, p, &route, depart);
}

#endif
