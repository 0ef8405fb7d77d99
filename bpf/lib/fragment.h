/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Later fragments carry no ports: the first one leaves them here. A fragment nobody announced is dropped. */
#ifndef MYCEL_FRAGMENT_H
#define MYCEL_FRAGMENT_H

#include "maps.h"
#include "packet.h"

#define FRAGMENT_LIFETIME_NS (30 * NS_PER_S) /* as the kernel's net.ipv4.ipfrag_time */

/* Returns 0, with the ports known, or a drop reason. */
__subprogram int fragment_track(struct packet *p)
{
	REQUIRE(p, DROP_INVALID_PACKET);
	struct fragment_key key = {
	    .source = p->t.source,
	    .destination = p->t.destination,
	    .id = p->fragment_id,
	    .protocol = p->t.protocol,
	};
	struct fragment_value *known, fresh = {
					  .seen_ns = now_coarse_ns(),
					  .source_port = p->t.source_port,
					  .destination_port = p->t.destination_port,
				      };

	if (p->flags & PACKET_FIRST_FRAGMENT) {
		if (bpf_map_update_elem(&mycel_fragments, &key, &fresh, BPF_ANY))
			return DROP_FRAGMENT_NOT_FOUND;
		return 0;
	}
	known = bpf_map_lookup_elem(&mycel_fragments, &key);
	if (!known || fresh.seen_ns - known->seen_ns > FRAGMENT_LIFETIME_NS)
		return DROP_FRAGMENT_NOT_FOUND;
	p->t.source_port = known->source_port;
	p->t.destination_port = known->destination_port;
	return 0;
}

#endif
