/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* What every other header needs: kernel types, helpers, shared layouts, and arithmetic on addresses. */
#ifndef MYCEL_BASE_H
#define MYCEL_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "mycel/enums.h"
#include "mycel/types.h"
#include "mycel/limits.h"
#include "mycel/config.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "addresses are composed for little-endian machines"
#endif

#define likely(x)   __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

/*
 * A global function: the verifier checks it once and by itself, not along every way that leads to it, so
 * loading takes milliseconds. The price: it takes nothing but numbers, the context and memory of a known
 * size, and has to ask whether that memory is there.
 */
#define __subprogram __attribute__((noinline))
#define REQUIRE(given, otherwise)                                                                                      \
	if (!(given))                                                                                                  \
		return otherwise;

#define NS_PER_S 1000000000ULL

/* Address families as the kernel numbers them; <sys/socket.h> is not for BPF. */
#define AF_INET	 2
#define AF_INET6 10

#define MAPPED_PREFIX 0xffff0000ULL /* ::ffff:0:0/96's last four bytes, as loaded from memory */

static __always_inline struct addr addr_v4(__be32 v4)
{
	struct addr addr = {.hi = 0, .lo = (__u64)v4 << 32 | MAPPED_PREFIX};

	return addr;
}

static __always_inline __be32 addr_to_v4(const struct addr *addr)
{
	return addr->lo >> 32;
}

static __always_inline bool addr_is_v4(const struct addr *addr)
{
	return !addr->hi && (__u32)addr->lo == (__u32)MAPPED_PREFIX;
}

static __always_inline bool addr_equal(const struct addr *a, const struct addr *b)
{
	return a->lo == b->lo && a->hi == b->hi;
}

static __always_inline bool addr_is_zero(const struct addr *addr)
{
	return !addr->lo && !addr->hi;
}

/* The node's own address on the underlay; zero where it has none of that family. */
static __always_inline struct addr addr_node(bool v6)
{
	struct addr addr = {
	    .hi = v6 ? config_node_ipv6.hi : config_node_ipv4.hi,
	    .lo = v6 ? config_node_ipv6.lo : config_node_ipv4.lo,
	};

	return addr;
}

/* 169.254.42.1 and fe80::a9fe:2a01: how a pod sees itself when a service sends it back to itself. */
static __always_inline struct addr addr_loopback(bool v6)
{
	struct addr addr = addr_v4(bpf_htonl(0xa9fe2a01));

	if (v6) {
		addr.hi = bpf_cpu_to_be64(0xfe80000000000000ULL);
		addr.lo = bpf_cpu_to_be64(0x00000000a9fe2a01ULL);
	}
	return addr;
}

/* Coarse (a jiffy), a few nanoseconds to read: for lifetimes. Events carry the exact clock. */
static __always_inline __u64 now_coarse_ns(void)
{
	return bpf_ktime_get_coarse_ns();
}

#endif
