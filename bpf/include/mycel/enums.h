/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Closed sets that C and Python share. BTF keeps enums and drops #define, so every shared constant is one. */
#ifndef MYCEL_ENUMS_H
#define MYCEL_ENUMS_H

/* Hubble's flow.Verdict numbers. */
enum verdict {
	VERDICT_UNKNOWN = 0,
	VERDICT_FORWARDED = 1,
	VERDICT_DROPPED = 2,
	VERDICT_ERROR = 3,
	VERDICT_AUDIT = 4,
	VERDICT_REDIRECTED = 5,
	VERDICT_TRACED = 6,
	VERDICT_TRANSLATED = 7,
};

/* Hubble's flow.TrafficDirection numbers. */
enum direction {
	DIRECTION_UNKNOWN = 0,
	DIRECTION_INGRESS = 1,
	DIRECTION_EGRESS = 2,
};

/* Numbers of Hubble's event types (flow.CiliumEventType.type). */
enum event_kind {
	EVENT_DROP = 1,
	EVENT_TRACE = 4,
	EVENT_POLICY_VERDICT = 5,
	EVENT_TRACE_SOCK = 7,
};

/* Sub-types of a trace event, by which clients print `to-endpoint` and the like. */
enum trace_point {
	TRACE_TO_ENDPOINT = 0,
	TRACE_TO_PROXY = 1,
	TRACE_TO_HOST = 2,
	TRACE_TO_STACK = 3,
	TRACE_TO_OVERLAY = 4,
	TRACE_FROM_ENDPOINT = 5,
	TRACE_FROM_PROXY = 6,
	TRACE_FROM_HOST = 7,
	TRACE_FROM_STACK = 8,
	TRACE_FROM_OVERLAY = 9,
	TRACE_FROM_NETWORK = 10,
	TRACE_TO_NETWORK = 11,
};

/* Hubble's flow.TraceReason numbers: what connection tracking said of the packet. */
enum trace_reason {
	REASON_UNKNOWN = 0,
	REASON_NEW = 1,
	REASON_ESTABLISHED = 2,
	REASON_REPLY = 3,
	REASON_RELATED = 4,
	REASON_REOPENED = 5,
};

/* is_reply is a nullable boolean on the wire: drops do not know. */
enum reply_state {
	REPLY_FALSE = 0,
	REPLY_TRUE = 1,
	REPLY_UNKNOWN = 2,
};

/* Hubble's policy_match_type numbers. */
enum policy_match {
	MATCH_NONE = 0,
	MATCH_L3_ONLY = 1,
	MATCH_L3_L4 = 2,
	MATCH_L4_ONLY = 3,
	MATCH_ALL = 4,
	MATCH_L3_PROTO = 5,
	MATCH_PROTO_ONLY = 6,
};

/* Why a packet was dropped. Numbers and meanings are flow.DropReason's where it has one. */
enum drop_reason {
	DROP_INVALID_SOURCE_MAC = 130,
	DROP_INVALID_SOURCE_IP = 132,
	DROP_POLICY_DENIED = 133,
	DROP_INVALID_PACKET = 134,
	DROP_CT_INVALID_HEADER = 135,
	DROP_CT_UNKNOWN_PROTO = 137,
	DROP_UNSUPPORTED_L3 = 139, /* also a family that is switched off */
	DROP_WRITE_ERROR = 141,
	DROP_UNKNOWN_L4 = 142,
	DROP_NO_TUNNEL_KEY = 147,
	DROP_UNKNOWN_L3_TARGET = 150,
	DROP_UNROUTABLE_IP = 151,
	DROP_NO_ENDPOINT = 152, /* no row for the interface the packet came from */
	DROP_CT_INSERTION_FAILED = 155,
	DROP_INVALID_EXTENSION_HEADER = 156,
	DROP_SERVICE_BACKEND_NOT_FOUND = 158,
	DROP_NO_TUNNEL_ENDPOINT = 160,
	DROP_NAT_NO_MAPPING = 167,
	DROP_NAT_UNSUPPORTED_PROTOCOL = 168,
	DROP_FIB_LOOKUP_FAILED = 169,
	DROP_ENCAP_PROHIBITED = 170, /* a pod speaks VXLAN to a node, or to the outside in the node's name */
	DROP_INVALID_IDENTITY = 171,
	DROP_UNKNOWN_SENDER = 172,
	DROP_FRAGMENT_NOT_FOUND = 175,
	DROP_FORBIDDEN_ICMP6 = 176,
	DROP_PROXY_LOOKUP_FAILED = 178,
	DROP_PROXY_UNSUPPORTED = 180,
	DROP_POLICY_DENY = 181,
	DROP_TTL_EXCEEDED = 196,
	DROP_ENDPOINT_NOT_READY = 203,
	DROP_PROXY_FOREIGN = 220, /* our own number: a packet that only the proxy may send, from somebody else */
};

/* Identities that are reserved: never allocated, the same on every node. */
enum reserved_identity {
	IDENTITY_UNKNOWN = 0,
	IDENTITY_HOST = 1,
	IDENTITY_WORLD = 2,
	IDENTITY_UNMANAGED = 3,
	IDENTITY_HEALTH = 4,
	IDENTITY_INIT = 5,
	IDENTITY_REMOTE_NODE = 6,
	IDENTITY_KUBE_APISERVER = 7,
	IDENTITY_INGRESS = 8,
};

enum endpoint_flags {
	ENDPOINT_READY = 1,	      /* its policy is realized; without it every packet is dropped */
	ENDPOINT_HOST = 2,	      /* the address is this node's own */
	ENDPOINT_ENFORCE_INGRESS = 4, /* look ingress rows up; a miss is a denial */
	ENDPOINT_ENFORCE_EGRESS = 8,
};

enum ipcache_flags {
	IPCACHE_TUNNEL = 1,  /* reached through the overlay at `tunnel_endpoint` */
	IPCACHE_NODE = 2,    /* an address of a node itself: NodePorts answer there */
	IPCACHE_CLUSTER = 4, /* of the pod or service network: never masqueraded; dropped when nothing answers */
};

enum service_flags {
	SERVICE_CLUSTER_IP = 1,
	SERVICE_NODE_PORT = 2,
	SERVICE_LOAD_BALANCER = 4,
	SERVICE_EXTERNAL_IP = 8,
	SERVICE_AFFINITY = 16,	     /* sessionAffinity: ClientIP */
	SERVICE_LOCAL_EXTERNAL = 32, /* externalTrafficPolicy: Local */
	SERVICE_LOCAL_INTERNAL = 64, /* internalTrafficPolicy: Local */
};

/* What connection tracking remembers of a connection. */
enum ct_flags {
	CT_SOURCE_IS_HIGH = 1, /* the initiator is the key's high end */
	CT_SEEN_REPLY = 2,
	CT_CLOSING = 4,		/* FIN or RST was seen */
	CT_NAT_FORWARD = 8,	/* packets of the initiator are rewritten: see mycel_nat */
	CT_NAT_REPLY = 16,	/* packets of the responder are rewritten: see mycel_nat */
	CT_EGRESS_JUDGED = 32,	/* the initiator is a local endpoint; its egress verdict is of egress_revision */
	CT_INGRESS_JUDGED = 64, /* the responder is a local endpoint; its ingress verdict is of ingress_revision */
	CT_FROM_PROXY = 128,	/* the proxy began it in the initiator's name: replies go to the proxy's socket */
};

/* Who a control group's sockets belong to. */
enum proxy_kind {
	PROXY_ENVOY = 1,
	PROXY_DNS = 2,
};

/*
 * Marks of the proxies' packets, in bits 8 to 11; an upstream mark has the port of the listener its connection came
 * through in the upper half. docs/l7.md says what each is believed to mean.
 */
enum proxy_mark {
	MARK_TO_PROXY = 0x200,	       /* assigned to a socket of the proxy: take it up the stack */
	MARK_OF_PROXY = 0x800,	       /* this bit: a proxy sends it */
	MARK_DOWNSTREAM = 0xa00,       /* by a socket that it accepted */
	MARK_UPSTREAM_SERVICE = 0xb00, /* nothing judged yet */
	MARK_UPSTREAM_EGRESS = 0xc00,  /* the client's egress rules were applied */
	MARK_UPSTREAM_INGRESS = 0xd00, /* the server's too */
	MARK_KIND = 0xf00,
	MARK_OF_PROXY_MASK = 0xf8ff, /* where a proxy's mark has MARK_OF_PROXY and nothing else; others' marks differ */
};

enum nat_flags {
	NAT_SOURCE = 1,	 /* the source changes */
	NAT_REPLY = 2,	 /* the row of the way back */
	NAT_CLOSING = 4, /* FIN or RST was seen: a new SYN chooses again */
};

#endif
