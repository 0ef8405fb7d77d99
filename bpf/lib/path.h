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
#include "proxy.h"

static __always_inline void judged_by(struct ct_value *ct, const struct judged *judged, __u32 direction,
				      const struct endpoint_value *endpoint)
{
	if (judged->rule)
		ct->policy_rule = judged->rule;
	if (direction == DIRECTION_EGRESS) {
		ct->flags |= CT_EGRESS_JUDGED;
		ct->egress_revision = endpoint->policy_revision;
	} else {
		ct->flags |= CT_INGRESS_JUDGED;
		ct->ingress_revision = endpoint->policy_revision;
	}
}

/* The verdict of one endpoint on a new connection, which may be that it goes to a listener. Returns 0 or a drop reason.
 */
static __always_inline int judge(struct __sk_buff *skb, struct packet *p, struct ct_value *ct,
				 const struct endpoint_value *endpoint, __u32 direction)
{
	struct judged judged = {};
	int reason = policy_judge(skb, p, endpoint, direction, &judged);

	if (reason)
		return reason;
	judged_by(ct, &judged, direction, endpoint);
	ct->proxy_port = judged.proxy_port;
	return 0;
}

/*
 * The same on a connection under way, which no verdict can move: one that was not the proxy's is closed when it should
 * be (an end that gives up may say so), unless the listener would only look. One that goes to a listener goes on to its
 * socket until that listener, which no row names any more, has drained. What is no TCP begins anew.
 */
static __always_inline int judge_known(struct __sk_buff *skb, struct packet *p, struct ct_value *ct,
				       const struct endpoint_value *endpoint, __u32 direction)
{
	struct judged judged = {};
	int reason = policy_judge(skb, p, endpoint, direction, &judged);

	if (reason)
		return reason;
	if (!judged.looks) {
		if (p->t.protocol != IPPROTO_TCP && judged.proxy_port != ct->proxy_port) {
			ct->last_seen_ns = 0;
			return DROP_PROXY_LOOKUP_FAILED;
		}
		if (judged.proxy_port && !ct->proxy_port)
			return p->tcp_flags & TCP_RST ? 0 : DROP_PROXY_LOOKUP_FAILED;
	}
	judged_by(ct, &judged, direction, endpoint);
	return 0;
}

/* Which source translation a new connection needs. Returns 0, with flags added, or a drop reason. */
static __noinline int begin_source(struct packet *p, const struct route *route, __u16 *flags)
{
	struct endpoint_value *own = p->origin == ORIGIN_PROXY ? endpoint_find(&p->t.source) : NULL;
	bool of_pod = p->origin == ORIGIN_POD || (own && !(own->flags & ENDPOINT_HOST));
	struct addr node = addr_node(p->family == 6);
	/* The outside does not know the router's address, nor the one that proxies dial from. */
	bool of_pod_network = of_pod || (own && !addr_equal(&p->t.source, &node));
	bool of_stranger =
	    p->origin == ORIGIN_NETWORK ? p->flags & PACKET_TRANSLATED : p->origin == ORIGIN_PROXY && !own;
	struct addr source = {};
	struct ipcache_value *info;

	/* The node itself would answer a stranger by the underlay, past the proxy. */
	if (p->origin == ORIGIN_PROXY && !own && route->target == TARGET_STACK) {
		info = ipcache_find(&p->t.source);
		if (!info || !(info->flags & IPCACHE_CLUSTER))
			return DROP_PROXY_UNSUPPORTED;
	}
	if (of_pod && addr_equal(&p->t.source, &p->t.destination))
		source = addr_loopback(p->family == 6); /* a pod that meets itself behind a service */
	else if (of_pod_network && route->target == TARGET_OUT && config_masquerade)
		;
	else if (of_stranger && (route->target == TARGET_OUT || route->target == TARGET_OVERLAY))
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
	if (route.target == TARGET_NOWHERE && !p->redirect_port)
		return DROP_UNROUTABLE_IP;
	/* What an ingress listener lets through is for the pod whose rules it applied. */
	if (p->through == DIRECTION_INGRESS && route.target != TARGET_ENDPOINT)
		return DROP_PROXY_FOREIGN;
	if (source && speaks_vxlan(p) && !is_pod(&route))
		return DROP_ENCAP_PROHIBITED;
	ct = &room->ct;
	__builtin_memset(ct, 0, sizeof(*ct));
	ct->source_identity = p->source_identity;
	ct->destination_identity = route.identity;
	if (p->flags & PACKET_TRANSLATED)
		flags |= CT_NAT_REPLY;
	ct->proxy_port = p->redirect_port;
	if (ct->proxy_port && source)
		policy_redirected(skb, p, source);
	/* Where a listener comes between, its upstream leg is judged by those who are not asked here. */
	if (!ct->proxy_port && source) {
		reason = judge(skb, p, ct, source, DIRECTION_EGRESS);
		if (reason)
			return reason;
	}
	if (!ct->proxy_port && route.target == TARGET_ENDPOINT && route.endpoint) {
		reason = judge(skb, p, ct, route.endpoint, DIRECTION_INGRESS);
		if (reason)
			return reason;
	}
	if (!ct->proxy_port) {
		reason = begin_source(p, &route, &flags);
		if (reason)
			return reason;
	}
	if (p->origin == ORIGIN_PROXY)
		flags |= CT_FROM_PROXY;
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
	if (p->flags & PACKET_DOWNSTREAM)
		return DROP_PROXY_FOREIGN; /* a proxy answers; it does not begin */
	reason = nat_arrive(skb, p);
	if (reason > 0)
		return reason;
	ct = ct_find_with(&room->ct_key, &p->t, now_coarse_ns(), &reply);
	if (ct && !(is_tcp_syn(p) && ct_begins_anew(ct, reply)))
		return 0;
	/* A pod and a proxy in its name may come to one port: neither takes the other's connection before its end. */
	if (ct && !reply && !(ct->flags & CT_CLOSING) && !(ct->flags & CT_FROM_PROXY) == (p->origin == ORIGIN_PROXY))
		return DROP_PROXY_FOREIGN;
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
		reason = judge_known(skb, p, ct, initiator, DIRECTION_EGRESS);
	if (!reason && responder && (others || ct->ingress_revision != responder->policy_revision))
		reason = judge_known(skb, p, ct, responder, DIRECTION_INGRESS);
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

/* To the proxy, which the endpoint reports whose rules sent the connection there. */
static __always_inline int to_proxy(struct __sk_buff *skb, struct packet *p, struct ct_value *ct,
				    const struct endpoint_value *receiver, bool reply)
{
	bool inward = !reply && ct->flags & CT_INGRESS_JUDGED;
	int action = deliver_proxy(skb, p, reply ? 0 : ct->proxy_port);

	if (action != TC_ACT_OK) {
		if (p->t.protocol != IPPROTO_TCP && !reply)
			ct->last_seen_ns = 0; /* no SYN will begin it anew: the next packet does */
		return action;
	}
	if (inward && receiver)
		p->endpoint_id = receiver->endpoint_id;
	count(0, inward ? DIRECTION_INGRESS : DIRECTION_EGRESS, skb->len);
	if (p->flags & PACKET_TRACE)
		trace(skb, p, TRACE_TO_PROXY, !inward && !reply);
	return TC_ACT_OK;
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
	if (unlikely(ct->proxy_port || ct->flags & CT_FROM_PROXY || p->origin == ORIGIN_PROXY)) {
		reason = proxy_check(p, ct, reply);
		if (reason)
			return drop(skb, p, reason);
		/* A leg is judged by those who judged it when it began, as the proxy sends. */
		if ((reply && ct->flags & CT_FROM_PROXY) || (ct->proxy_port && !(ct->flags & CT_EGRESS_JUDGED)))
			initiator = NULL;
		if ((reply && ct->flags & CT_FROM_PROXY) || (ct->proxy_port && !(ct->flags & CT_INGRESS_JUDGED)))
			responder = NULL;
	}
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
	if (unlikely(reply ? ct->flags & CT_FROM_PROXY : ct->proxy_port))
		return to_proxy(skb, p, ct, receiver, reply);
known:
	return deliver(skb, p, &route, depart);
}

#endif
