/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * The verdict on a connection, for one direction of one endpoint.
 *
 * A set's rows are an LPM trie over (identity, protocol, port): the longest prefix is the most specific row
 * of one identity, so a row may leave out the port, part of it (ranges are cut into masks), or the protocol
 * too. Rows for any identity have identity 0. Two lookups therefore find both candidates; the compiler has
 * put every broader denial into the more specific rows it covers. Between the two a denial wins, then
 * precedence, then the named identity.
 *
 * Some rules are about addresses and not identities; a peer one of them tells apart is asked for by its alias.
 */
#ifndef MYCEL_POLICY_H
#define MYCEL_POLICY_H

#include "events.h"
#include "maps.h"
#include "proxy.h"

#define POLICY_PREFIX_BITS 64

/* What a verdict event says beside the packet. reason 0 is allowed. */
struct verdict_of {
	const struct policy_value *row;
	__u32 direction;
	__u32 reason;
	__be16 proxy_port;
};

/* What an allowance says. */
struct judged {
	__u32 rule;
	__be16 proxy_port; /* 0: it goes to its peer */
	__u16 looks;	   /* 1: the listener only looks */
};

static __noinline void policy_event(struct __sk_buff *skb, const struct packet *p,
				    const struct endpoint_value *endpoint, const struct verdict_of *verdict)
{
	const struct policy_value *row = verdict->row;
	__u32 reason = verdict->reason;
	struct flow_event *event = event_reserve();

	if (!event)
		return;
	event_fill(event, skb, p);
	event->kind = EVENT_POLICY_VERDICT;
	event->sub_type = reason;
	event->verdict = reason ? VERDICT_DROPPED : verdict->proxy_port ? VERDICT_REDIRECTED : VERDICT_FORWARDED;
	event->proxy_port = verdict->proxy_port;
	event->direction = verdict->direction;
	event->endpoint_id = endpoint->endpoint_id;
	event->policy_revision = endpoint->policy_revision;
	event->reason = REASON_NEW;
	event->is_reply = reason ? REPLY_UNKNOWN : REPLY_FALSE;
	if (row) {
		event->policy_rule = row->rule;
		event->policy_match = row->match;
	}
	bpf_ringbuf_submit(event, 0);
}

/* Say that a connection to a service goes to the service's listener: no rule was asked, and all of them will be. */
__subprogram int policy_redirected(struct __sk_buff *skb, const struct packet *p, const struct endpoint_value *endpoint)
{
	REQUIRE(p && endpoint, DROP_INVALID_PACKET);
	struct verdict_of verdict = {.direction = DIRECTION_EGRESS, .proxy_port = p->redirect_port};

	policy_event(skb, p, endpoint, &verdict);
	return 0;
}

static __always_inline struct policy_value *policy_find(policy_set_t set, identity_t identity, const struct packet *p)
{
	struct policy_value *named, *any;
	struct policy_key key = {
	    .prefixlen = POLICY_PREFIX_BITS,
	    .identity = identity,
	    .protocol = p->t.protocol,
	    .port = p->t.destination_port,
	};
	void *rows = bpf_map_lookup_elem(&mycel_policy, &set);

	if (!rows)
		return NULL;
	/* ICMP has a type where others have a port. */
	if (p->t.protocol == IPPROTO_ICMP || p->t.protocol == IPPROTO_ICMPV6)
		key.port = bpf_htons(p->icmp_type);
	named = bpf_map_lookup_elem(rows, &key);
	key.identity = IDENTITY_UNKNOWN;
	any = bpf_map_lookup_elem(rows, &key);
	if (!named || !any)
		return named ? named : any;
	if (named->deny != any->deny)
		return named->deny ? named : any;
	return any->precedence > named->precedence ? any : named;
}

/*
 * Judge a connection in `direction` at `endpoint`. Returns 0 and fills *judged, or a drop reason. A row that names a
 * listener sends the connection there, unless it is what that very listener has let through, or the listener would only
 * look and is not there. The node itself may enter its own pods (it runs them: probes come from it) unless a rule
 * denies it or that is switched off, and a pod that meets itself behind a service may always do so.
 */
__subprogram int policy_judge(struct __sk_buff *skb, const struct packet *p, const struct endpoint_value *endpoint,
			      __u32 direction, struct judged *judged)
{
	REQUIRE(p && endpoint && judged, DROP_INVALID_PACKET);
	bool ingress = direction == DIRECTION_INGRESS;
	__u16 enforce = ingress ? ENDPOINT_ENFORCE_INGRESS : ENDPOINT_ENFORCE_EGRESS;
	bool host_enters = config_host_enters && ingress && p->source_identity == IDENTITY_HOST;
	identity_t peer = ingress ? p->source_identity : p->destination_identity;
	struct alias_value *alias;
	struct policy_value *row;
	struct verdict_of verdict = {.direction = direction};
	int reason = 0;

	if (!(endpoint->flags & ENDPOINT_READY))
		return DROP_ENDPOINT_NOT_READY;
	if (!(endpoint->flags & enforce))
		return 0;
	if (addr_equal(&p->t.source, &p->t.destination))
		return 0;
	alias = bpf_map_lookup_elem(&mycel_aliases, ingress ? &p->t.source : &p->t.destination);
	if (alias)
		peer = alias->identity;
	row = policy_find(ingress ? endpoint->ingress_set : endpoint->egress_set, peer, p);
	if (host_enters && !(row && row->deny))
		return 0;
	if (!row)
		reason = DROP_POLICY_DENIED;
	else if (row->deny)
		reason = DROP_POLICY_DENY;
	else if (row->looks && !proxy_listens(skb, p, row->proxy_port))
		judged->looks = 1;
	else if (row->proxy_port && p->t.protocol != IPPROTO_TCP && p->t.protocol != IPPROTO_UDP)
		reason = DROP_PROXY_UNSUPPORTED;
	else if (row->proxy_port && !(p->through == direction && p->through_port == row->proxy_port)) {
		judged->proxy_port = verdict.proxy_port = row->proxy_port;
		judged->looks = row->looks;
	}
	if (!reason)
		judged->rule = row->rule;
	verdict.row = row;
	verdict.reason = reason;
	policy_event(skb, p, endpoint, &verdict);
	return reason;
}

#endif
