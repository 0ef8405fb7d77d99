"""Where the node's proxies listen, and where from and marked how they dial (docs/l7.md)."""

from __future__ import annotations

from typing import Final

from mycel.abi import ProxyMark

LISTEN_IPV4: Final = "192.0.0.8"
"""RFC 7600: no interface has it, so nobody can dial a listener."""
LISTEN_IPV6: Final = "100::8"
"""RFC 6666: likewise."""
DNS_PORTS: Final = range(15000, 16000)
"""Listeners of the DNS proxy; all others are Envoy's."""
UPSTREAM_PORTS: Final = (16384, 29999)
"""The first and last port of proxies' own sockets: apart from pods' ports and NodePorts."""


def upstream_mark(kind: ProxyMark, port: int) -> int:
    """The mark of what leaves for a server: what was judged (`ProxyMark.UPSTREAM_…`), and the listener's port."""
    return port << 16 | kind
