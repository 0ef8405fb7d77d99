/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * Knobs: the loader writes them into .rodata before the programs are verified, so a branch that is switched
 * off costs nothing. A node whose knobs change (an interface was made anew) loads the programs again and
 * updates the links.
 */
#ifndef MYCEL_CONFIG_H
#define MYCEL_CONFIG_H

const volatile __u8 config_ipv4 = 1;		   /* off: DROP_UNSUPPORTED_L3 */
const volatile __u8 config_ipv6 = 0;		   /* off: DROP_UNSUPPORTED_L3 */
const volatile __u8 config_host_enters = 1;	   /* off: the node enters its pods by rules alone */
const volatile __u8 config_masquerade = 1;	   /* off: pods' own addresses leave the node, through its stack */
const volatile ifindex_t config_vxlan_ifindex = 0; /* the collect-metadata device; 0: DROP_NO_TUNNEL_ENDPOINT */
const volatile __u16 config_vxlan_port = 8472;	   /* UDP, host order: the overlay's outer packets pass untouched */
const volatile struct addr config_node_ipv4 = {};  /* source of masqueraded packets; zero: DROP_NAT_NO_MAPPING */
const volatile struct addr config_node_ipv6 = {};
const volatile __u16 config_overlay_mtu = 1450;	  /* of inner packets; longer ones are the device's affair */
const volatile __u8 config_overlay_direct = 1;	  /* small packets are wrapped by the programs, not by the device */
const volatile __u16 config_nat_port_min = 61000; /* outside of ip_local_port_range, or sockets are hit */
const volatile __u16 config_nat_port_max = 65535;
const volatile __u16 config_nodeport_min = 30000;
const volatile __u16 config_nodeport_max = 32767;
const volatile __u64 config_host_netns_cookie = 0;	    /* 0: NodePorts do not answer on loopback */
const volatile __u64 config_trace_interval_ns = 5000000000; /* of an established connection; 0: every packet */

#endif
