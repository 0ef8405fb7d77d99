/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * Every map key, map value and event that C and Python share. src/mycel/abi is generated from the
 * compiler's BTF of this file (make gen), so a change here shows as a diff there.
 *
 * Rules: fixed-width types, __be16/__be64 for wire order, named padding (zeroed), sizes asserted.
 */
#ifndef MYCEL_TYPES_H
#define MYCEL_TYPES_H

typedef __u32 identity_t;
typedef __u32 ifindex_t;
typedef __u32 policy_set_t; /* number of a set of policy rows, shared by endpoints with equal rows; 0: none */
typedef __u32 service_id_t;
typedef __u32 backend_id_t;

/* An IPv6 address, or an IPv4 one as ::ffff:a.b.c.d. One code path and one set of maps for both families. */
struct addr {
	__be64 hi;
	__be64 lo;
};

struct mac {
	__u8 bytes[6];
};

/*
 * mycel_endpoints: local addresses → endpoint; the node's own addresses (ENDPOINT_HOST) too, and there only
 * `flags`, `identity` and the address are read. mycel_interfaces: ifindex of the node's side of a pod's pair
 * → the same value.
 */
struct endpoint_key {
	struct addr addr;
};

struct endpoint_value {
	struct addr ipv4; /* v4-mapped; all zero when the endpoint has none */
	struct addr ipv6;
	ifindex_t ifindex; /* the node's side of the pair */
	identity_t identity;
	policy_set_t ingress_set;
	policy_set_t egress_set;
	__u32 policy_revision;
	__u16 endpoint_id;
	__u16 flags;	     /* enum endpoint_flags */
	struct mac mac;	     /* the pod's */
	struct mac node_mac; /* the node's side, the pod's next hop */
	__u32 pad;
};

struct interface_key {
	ifindex_t ifindex;
};

/* mycel_ipcache (exact) and mycel_ipcache_lpm (prefixes): address → who it is and how to reach it. */
struct ipcache_key {
	struct addr addr;
};

struct ipcache_lpm_key {
	__u32 prefixlen; /* of 128: an IPv4 /24 is 120 */
	__u8 addr[16];
};

struct ipcache_value {
	struct addr tunnel_endpoint; /* node to send to when IPCACHE_TUNNEL */
	identity_t identity;
	__u32 flags; /* enum ipcache_flags */
};

/*
 * mycel_names: an address → the identity that names policies speak of give it (IPCACHE flags are none). Written by the
 * DNS proxy.
 */
struct name_key {
	struct addr addr;
};

/* mycel_proxies: control groups whose sockets are the proxies': Envoy's and the DNS proxy's. */
struct proxy_key {
	__u64 cgroup_id;
};

struct proxy_value {
	__u32 kind; /* enum proxy_kind, for people */
};

/* mycel_announced: addresses of services this node answers for by ARP, on which device, with that device's MAC. */
struct announced_key {
	struct addr addr;
	ifindex_t ifindex;
	__u32 pad;
};

struct announced_value {
	struct mac mac;
	__u16 pad;
};

/* mycel_nodes: underlay addresses VXLAN is accepted from. Value: the node's number, for events. */
struct node_key {
	struct addr addr;
};

struct node_value {
	__u32 node_id;
};

/*
 * mycel_aliases: an address → the identity that policy knows it by, where prefixes tell addresses of one identity apart
 * (a NetworkPolicy's ipBlock over pods). Events and other nodes have the address's own identity.
 */
struct alias_key {
	struct addr addr;
};

struct alias_value {
	identity_t identity;
};

/* mycel_policy (hash of maps: policy_set_t → inner map): the rows of one direction of one set. */
struct policy_key {
	__u32 prefixlen;     /* of the fields below; ports are matched by prefix, so ranges are cut into masks */
	identity_t identity; /* 0: any */
	__u8 protocol;	     /* 0: any */
	__u8 pad;
	__be16 port;
};

struct policy_value {
	__be16 proxy_port; /* 0: none */
	__u8 deny;
	__u8 precedence;
	__u32 rule; /* index into the plan's rule table, for explanations */
	__u8 match; /* enum policy_match: what the row names */
	__u8 looks; /* 1: the listener allows everything, and where there is none connections go to their peer */
	__u8 pad[2];
};

/* mycel_services: frontend → service. A NodePort is a row with the unspecified address. */
struct service_key {
	struct addr addr;
	__be16 port;
	__u8 protocol;
	__u8 pad[5];
};

struct service_value {
	service_id_t service_id;
	__u16 backend_count; /* slots 1..backend_count exist; 0: dropped as DROP_SERVICE_BACKEND_NOT_FOUND */
	__u16 flags;	     /* enum service_flags */
	__u32 affinity_s;
	__u16 local_count;	   /* slots 1..local_count are on this node: local backends come first */
	__be16 proxy_port;	   /* of the listener that takes its connections; 0: the kernel chooses a backend */
	__be16 proxy_port_outside; /* the same for clients that are not of the cluster */
	__u16 pad;
};

/* mycel_service_slots: (service, slot from 1) → backend; slot 0 of one with a listener: its ClusterIP, as a backend. */
struct slot_key {
	service_id_t service_id;
	__u32 slot;
};

struct slot_value {
	backend_id_t backend_id;
};

/* mycel_backends */
struct backend_key {
	backend_id_t backend_id;
};

struct backend_value {
	struct addr addr;
	__be16 port;
	__u8 protocol;
	__u8 flags;
	__u32 pad;
};

/*
 * A connection's ends. In mycel_nat it is directional: the packet as it arrives. In mycel_ct it is
 * direction-free: the lower of the two ends comes first, so both directions of a connection find one row.
 * ICMP echo: a request is (source, identifier) → (destination, 0), a reply (source, 0) → (destination,
 * identifier); another type: (source, 0x100 | type) → (destination, 0xffff).
 */
struct tuple {
	struct addr source;
	struct addr destination;
	__be16 source_port;
	__be16 destination_port;
	__u8 protocol;
	__u8 pad[3];
};

/* mycel_ct: a connection this node has let pass. [0] is the initiator's direction, [1] the responder's. */
struct ct_value {
	__u64 last_seen_ns;	    /* CLOCK_MONOTONIC, coarse */
	__u64 traced_ns[2];	    /* when the last trace event was sent */
	identity_t source_identity; /* of the initiator */
	identity_t destination_identity;
	__u32 egress_revision; /* the policy revision the cached verdict is of */
	__u32 ingress_revision;
	__u32 policy_rule;
	__u16 flags;	   /* enum ct_flags */
	__u8 tcp_seen[2];  /* TCP flags seen so far */
	__be16 proxy_port; /* the listener that has the initiator's packets; 0: they go to the responder */
	__u16 pad;
	__u32 pad2;
};

/* mycel_nat: a packet's tuple as it arrives → as it leaves. Two rows a connection, one each way. */
struct nat_value {
	struct tuple rewritten;
	__u64 last_seen_ns;
	backend_id_t backend_id; /* of the service's choice; 0: masquerade */
	__u32 flags;		 /* enum nat_flags */
};

/* mycel_affinity: (client, service) → backend. A socket's client is its network namespace's cookie in `lo`.
 */
struct affinity_key {
	struct addr client;
	service_id_t service_id;
	__u32 pad;
};

struct affinity_value {
	__u64 last_used_ns;
	backend_id_t backend_id;
	__u32 pad;
};

/*
 * mycel_socket_nat, two rows a translated socket: (socket, backend) → the frontend it dialled, for answers; and for UDP
 * (socket, frontend) → the backend it was given, so that its datagrams stay together.
 */
struct socket_nat_key {
	__u64 cookie;
	struct addr addr;
	__be16 port;
	__u8 protocol;
	__u8 pad[5];
};

struct socket_nat_value {
	struct addr addr;
	__be16 port;
	__u16 pad;
	backend_id_t backend_id;
};

/* mycel_fragments: a datagram's later fragments → its ports. */
struct fragment_key {
	struct addr source;
	struct addr destination;
	__be32 id;
	__u8 protocol;
	__u8 pad[3];
};

struct fragment_value {
	__u64 seen_ns;
	__be16 source_port;
	__be16 destination_port;
	__u32 pad;
};

/* mycel_next_hops: another node's underlay address → where its packets go next, as the node's routes said lately. */
struct next_hop_key {
	struct addr node;
};

struct next_hop_value {
	__u64 looked_up_ns;
	struct addr next_hop;
	ifindex_t ifindex;
	__u32 family; /* AF_INET or AF_INET6 */
};

/* mycel_metrics: per-CPU array; the key's four bytes are the index. reason 0 is forwarded. */
struct metric_key {
	__u8 reason;	/* enum drop_reason, 0: forwarded */
	__u8 direction; /* enum direction */
	__u16 pad;
};

struct metric_value {
	__u64 packets;
	__u64 bytes;
};

/*
 * mycel_events: array of ring buffers, one per possible CPU. A record is 8 bytes of ring header and 120 of
 * payload, so that a ring is an array of 128-byte records.
 */
struct flow_event {
	__u64 time_ns; /* bpf_ktime_get_ns(): CLOCK_MONOTONIC */
	struct addr source;
	struct addr destination;
	struct addr original; /* the frontend that was dialled, when translated; else zero */
	identity_t source_identity;
	identity_t destination_identity;
	ifindex_t ifindex;
	__u32 length; /* bytes on the wire, without the link header */
	__u32 policy_rule;
	__u32 policy_revision;
	__be16 source_port;
	__be16 destination_port;
	__be16 original_port;
	__be16 proxy_port;
	__u16 endpoint_id; /* the endpoint that reports, 0: the node itself */
	struct mac source_mac;
	struct mac destination_mac;
	__u8 kind;	/* enum event_kind */
	__u8 sub_type;	/* enum trace_point or enum drop_reason */
	__u8 verdict;	/* enum verdict */
	__u8 direction; /* enum direction */
	__u8 protocol;	/* IPPROTO_*; 0: not an IP packet */
	__u8 tcp_flags; /* as on the wire: FIN 1 SYN 2 RST 4 PSH 8 ACK 16 URG 32 ECE 64 CWR 128 */
	__u8 icmp_type;
	__u8 icmp_code;
	__u8 reason;	   /* enum trace_reason */
	__u8 is_reply;	   /* enum reply_state */
	__u8 policy_match; /* enum policy_match */
	__u8 family;	   /* 4, 6; 0: neither */
	__u16 ether_type;  /* host order, of what is not IP */
	__u32 pad;
};

_Static_assert(sizeof(struct endpoint_value) == 72, "endpoint_value");
_Static_assert(sizeof(struct ipcache_value) == 24, "ipcache_value");
_Static_assert(sizeof(struct service_key) == 24, "service_key");
_Static_assert(sizeof(struct tuple) == 40, "tuple");
_Static_assert(sizeof(struct ct_value) == 56, "ct_value");
_Static_assert(sizeof(struct nat_value) == 56, "nat_value");
_Static_assert(sizeof(struct affinity_key) == 24, "affinity_key");
_Static_assert(sizeof(struct socket_nat_key) == 32, "socket_nat_key");
_Static_assert(sizeof(struct fragment_key) == 40, "fragment_key");
_Static_assert(sizeof(struct next_hop_value) == 32, "next_hop_value");
_Static_assert(sizeof(struct policy_value) == 12, "policy_value");
_Static_assert(sizeof(struct flow_event) == 120, "flow_event");

#endif
