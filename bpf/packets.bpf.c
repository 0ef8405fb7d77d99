// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
/* Packet programs: one per hook, loaded once per node and attached to every interface of its kind. */
#include "lib/hooks.h"

SEC("tc")
int from_pod(struct __sk_buff *skb)
{
	return hook_from_pod(skb);
}

SEC("tc")
int to_pod(struct __sk_buff *skb)
{
	return hook_from_stack(skb, ORIGIN_STACK);
}

SEC("tc")
int from_host(struct __sk_buff *skb)
{
	return hook_from_stack(skb, ORIGIN_HOST);
}

SEC("tc")
int from_overlay(struct __sk_buff *skb)
{
	return hook_from_overlay(skb);
}

SEC("tc")
int from_network(struct __sk_buff *skb)
{
	return hook_from_network(skb);
}

SEC("tc")
int to_network(struct __sk_buff *skb)
{
	return hook_to_network(skb);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
