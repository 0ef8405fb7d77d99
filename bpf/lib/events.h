/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * What the kernel tells: counters for every packet, an event for every drop and for the packets of a
 * connection that matter (ct.h decides which). An event that finds no room is counted, so delivered + lost =
 * emitted.
 *
 * Submitting with flag 0 wakes the reader only if it has read everything before: one wake-up per batch, none
 * when idle.
 */
#ifndef MYCEL_EVENTS_H
#define MYCEL_EVENTS_H

#include "maps.h"
#include "packet.h"

static __always_inline void count(__u32 reason, __u32 direction, __u64 bytes)
{
	__u32 index = reason | direction << 8;
	struct metric_value *metric = bpf_map_lookup_elem(&mycel_metrics, &index);

	if (metric) {
		metric->packets++;
		metric->bytes += bytes;
	}
}

/* A record in this CPU's ring, or nothing, and then the loss is counted. */
static __always_inline struct flow_event *event_reserve(void)
{
	__u32 cpu = bpf_get_smp_processor_id(), zero = 0;
	void *ring = bpf_map_lookup_elem(&mycel_events, &cpu);
	struct flow_event *event = NULL;
	__u64 *lost;

	if (ring)
		event = bpf_ringbuf_reserve(ring, sizeof(*event), 0);
	if (!event) {
		lost = bpf_map_lookup_elem(&mycel_lost, &zero);
		if (lost)
			*lost += 1;
	}
	return event;
}

static __always_inline void event_fill(struct flow_event *event, struct __sk_buff *skb, const struct packet *p)
{
	const struct ethhdr *eth = bytes_at(skb, 0, ETH_HLEN);

	__builtin_memset(event, 0, sizeof(*event));
	event->time_ns = bpf_ktime_get_ns();
	event->source = p->t.source;
	event->destination = p->t.destination;
	event->source_identity = p->source_identity;
	event->destination_identity = p->destination_identity;
	event->ifindex = skb->ifindex;
	event->length = skb->len - ETH_HLEN;
	if (p->flags & PACKET_TRANSLATED) {
		event->original = p->original;
		event->original_port = p->original_port;
	}
	event->endpoint_id = p->endpoint_id;
	if (eth) {
		__builtin_memcpy(&event->source_mac, eth->h_source, ETH_ALEN);
		__builtin_memcpy(&event->destination_mac, eth->h_dest, ETH_ALEN);
	}
	event->protocol = p->t.protocol;
	event->tcp_flags = p->tcp_flags;
	event->icmp_type = p->icmp_type;
	event->icmp_code = p->icmp_code;
	if (p->t.protocol != IPPROTO_ICMP && p->t.protocol != IPPROTO_ICMPV6) {
		event->source_port = p->t.source_port;
		event->destination_port = p->t.destination_port;
	}
	event->family = p->family;
	if (!p->family)
		event->ether_type = p->ether_type;
}

/* Forget the packet, and say so: reason, event, counter. */
__subprogram int drop(struct __sk_buff *skb, const struct packet *p, __u32 reason)
{
	REQUIRE(p, TC_ACT_SHOT);
	__u32 direction = p->origin == ORIGIN_POD ? DIRECTION_EGRESS : DIRECTION_INGRESS;
	struct flow_event *event;

	count(reason & 0xff, direction, skb->len);
	event = event_reserve();
	if (event) {
		event_fill(event, skb, p);
		event->kind = EVENT_DROP;
		event->sub_type = reason;
		event->verdict = VERDICT_DROPPED;
		event->direction = direction;
		event->is_reply = REPLY_UNKNOWN;
		bpf_ringbuf_submit(event, 0);
	}
	return TC_ACT_SHOT;
}

/*
 * Say that a packet passed `point`. `at_source` is whether the endpoint that reports is the packet's source:
 * the connection's direction is egress if so, turned round for replies.
 */
__subprogram int trace(struct __sk_buff *skb, const struct packet *p, __u32 point, bool at_source)
{
	REQUIRE(p, DROP_INVALID_PACKET);
	struct flow_event *event = event_reserve();
	bool reply = p->flags & PACKET_REPLY;

	if (!event)
		return 0;
	event_fill(event, skb, p);
	event->kind = EVENT_TRACE;
	event->sub_type = point;
	event->verdict = VERDICT_FORWARDED;
	event->direction = at_source != reply ? DIRECTION_EGRESS : DIRECTION_INGRESS;
	event->reason = p->reason;
	event->is_reply = !(p->flags & PACKET_TRACKED) ? REPLY_UNKNOWN : reply ? REPLY_TRUE : REPLY_FALSE;
	bpf_ringbuf_submit(event, 0);
	return 0;
}

#endif
