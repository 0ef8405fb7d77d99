/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * Connection tracking.
 *
 * One row a connection, found from both directions by one lookup: the key is the tuple with its lower end
 * first, and the row remembers which end began. A row is trusted while it is younger than its state allows;
 * nothing collects old ones (LRU does), so correctness never waits for a collector. Times are monotonic.
 *
 *   state                    lives      left by
 *   TCP, one side heard      60 s       an answer
 *   TCP, both sides heard    6 h        FIN or RST
 *   TCP, FIN or RST seen     10 s       a new SYN: the connection begins anew
 *   anything else            60 s
 *
 * A SYN is judged anew unless it repeats the one that began the connection: who answers may never become who
 * asks.
 *
 * The verdict is cached with the revision of the policy it was made under; endpoint's newer revision, new
 * verdict. So a denial that comes later ends the connection, whose replies stop with it.
 *
 * What is worth an event: the first packet of each direction, TCP flags that direction has not shown yet, and
 * then one packet an interval.
 */
#ifndef MYCEL_CT_H
#define MYCEL_CT_H

#include "maps.h"
#include "packet.h"

#define CT_LIFETIME_HALF_NS    (60 * NS_PER_S)
#define CT_LIFETIME_TCP_NS     (6 * 3600 * NS_PER_S)
#define CT_LIFETIME_CLOSING_NS (10 * NS_PER_S)
#define CT_TOUCH_NS	       (NS_PER_S) /* last_seen_ns is written at most this often: the line stays clean */

static __always_inline bool ct_source_is_high(const struct tuple *t)
{
	if (t->source.lo != t->destination.lo)
		return t->source.lo > t->destination.lo;
	if (t->source.hi != t->destination.hi)
		return t->source.hi > t->destination.hi;
	return t->source_port > t->destination_port;
}

/* The key of a tuple's connection. Returns whether the packet comes from the key's high end. */
static __always_inline bool ct_key(struct tuple *key, const struct tuple *t)
{
	bool high = ct_source_is_high(t);

	if (high)
		tuple_reverse(key, t);
	else
		*key = *t;
	return high;
}

static __always_inline __u64 ct_lifetime_ns(const struct ct_value *ct, __u8 protocol)
{
	if (protocol != IPPROTO_TCP)
		return CT_LIFETIME_HALF_NS;
	if (ct->flags & CT_CLOSING)
		return CT_LIFETIME_CLOSING_NS;
	return ct->flags & CT_SEEN_REPLY ? CT_LIFETIME_TCP_NS : CT_LIFETIME_HALF_NS;
}

/* The live connection of a tuple, or NULL. *reply: whether the packet comes from the end that did not begin it. */
static __always_inline struct ct_value *ct_find_with(struct tuple *key, const struct tuple *t, __u64 now, bool *reply)
{
	bool high = ct_key(key, t);
	struct ct_value *ct = bpf_map_lookup_elem(&mycel_ct, key);

	if (!ct)
		return NULL;
	if (unlikely((__s64)(now - ct->last_seen_ns) > (__s64)ct_lifetime_ns(ct, t->protocol)))
		return NULL;
	*reply = high != !!(ct->flags & CT_SOURCE_IS_HIGH);
	return ct;
}

static __always_inline struct ct_value *ct_find(const struct tuple *t, __u64 now, bool *reply)
{
	struct tuple key;

	return ct_find_with(&key, t, now, reply);
}

/*
 * Whether a SYN that meets this row begins a connection rather than repeats the SYN that made the row. Repeated to a
 * listener, which may not have been there, it is judged as the policy is by now.
 */
static __always_inline bool ct_begins_anew(const struct ct_value *ct, bool reply)
{
	return reply || ct->proxy_port || ct->flags & (CT_SEEN_REPLY | CT_CLOSING);
}

/*
 * Take a packet into its connection's row and fill what the packet's event will say. Races between CPUs lose
 * at most an event or repeat one.
 */
static __always_inline void ct_touch(struct ct_value *ct, struct packet *p, bool reply, __u64 now)
{
	__u8 flags = p->tcp_flags & (TCP_FIN | TCP_SYN | TCP_RST | TCP_PSH | TCP_ACK);
	__u32 side = reply ? 1 : 0;
	__u8 fresh = flags & ~ct->tcp_seen[side];

	if (now - ct->last_seen_ns > CT_TOUCH_NS)
		ct->last_seen_ns = now;
	if (fresh) {
		ct->tcp_seen[side] |= fresh;
		if (fresh & (TCP_FIN | TCP_RST)) {
			ct->flags |= CT_CLOSING;
			ct->last_seen_ns = now;
		}
		p->flags |= PACKET_TRACE;
	}
	if (reply && !(ct->flags & CT_SEEN_REPLY))
		ct->flags |= CT_SEEN_REPLY;
	if (unlikely(!ct->traced_ns[side] || now - ct->traced_ns[side] >= config_trace_interval_ns))
		p->flags |= PACKET_TRACE;
	if (p->flags & PACKET_TRACE)
		ct->traced_ns[side] = now;
	p->flags |= PACKET_TRACKED | (reply ? PACKET_REPLY : 0);
	p->reason = reply ? REASON_REPLY : REASON_ESTABLISHED;
	p->source_identity = reply ? ct->destination_identity : ct->source_identity;
	p->destination_identity = reply ? ct->source_identity : ct->destination_identity;
}

#endif
