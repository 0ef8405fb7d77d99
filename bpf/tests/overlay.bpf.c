// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
/*
 * For tests alone: the overlay's hook on a packet whose outer header is told by cb[0] (VNI) and cb[1] (the sender's
 * underlay address, host order), since a test run's packets come from no tunnel.
 */
#include "lib/hooks.h"

SEC("tc")
int from_overlay_of(struct __sk_buff *skb)
{
	struct bpf_tunnel_key key = {.tunnel_id = skb->cb[0], .local_ipv4 = skb->cb[1]};

	if (bpf_skb_set_tunnel_key(skb, &key, sizeof(key), 0) < 0)
		return TC_ACT_PIPE;
	return hook_from_overlay(skb);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
