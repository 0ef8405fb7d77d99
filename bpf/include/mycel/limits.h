/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* How many rows each map holds. Full maps fail closed: a named drop, never a pass. */
#ifndef MYCEL_LIMITS_H
#define MYCEL_LIMITS_H

enum limits {
	LIMIT_INTERFACES = 4096,
	LIMIT_ENDPOINTS = 8192,
	LIMIT_IPCACHE = 65536,
	LIMIT_IPCACHE_LPM = 65536,
	LIMIT_NODES = 4096,
	LIMIT_POLICY_SETS = 4096,
	LIMIT_POLICY_ROWS = 16384, /* of one set */
	LIMIT_ALIASES = 65536,
	LIMIT_ANNOUNCED = 16384,
	LIMIT_NAMES = 65536,
	LIMIT_PROXIES = 64,
	LIMIT_SERVICES = 65536,
	LIMIT_SERVICE_SLOTS = 262144,
	LIMIT_BACKENDS = 262144,
	LIMIT_CT = 131072,
	LIMIT_NAT = 131072,
	LIMIT_AFFINITY = 65536,
	LIMIT_SOCKET_NAT = 65536,
	LIMIT_FRAGMENTS = 8192,
	LIMIT_METRICS = 768,	    /* 256 reasons in each of three directions */
	LIMIT_RING_BYTES = 1048576, /* of each CPU's ring unless the loader chooses another power of two */
};

#endif
