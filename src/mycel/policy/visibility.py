"""Which connections of a pod are looked at by a proxy, as an annotation of the pod or of its namespace asks. Pure.

`<Egress/53/UDP/DNS>,<Ingress/80/TCP/HTTP>`: direction, port of the server, protocol, what is spoken there. A proxy that
looks allows everything: no verdict is another for it (policy/rows.py).
"""

from __future__ import annotations

import re
from typing import NamedTuple

from mycel.abi import Direction
from mycel.policy.rules import L7, TCP, UDP

ANNOTATION = "policy.cilium.io/proxy-visibility"
LOOK = L7("look", "{}")
"""What a listener that only looks is made of, where HTTP is spoken; for DNS it is None, as any rule for everything."""
_LONGEST = 4096  # of an annotation, in letters
_ENTRY = re.compile(r"<(Ingress|Egress)/([1-9][0-9]{0,4})/(TCP|UDP|SCTP|ANY)/([A-Za-z]{3,32})>")
_PROTOCOLS = {"TCP": (TCP,), "UDP": (UDP,), "SCTP": (), "ANY": (TCP, UDP)}


class Visible(NamedTuple):
    """Connections to this port, in one direction."""

    direction: Direction
    protocol: int
    port: int
    dns: bool  # else HTTP


def parse_visibility(text: str) -> tuple[Visible, ...]:
    """What an annotation asks for, sorted. Raises ValueError, which says what is wrong."""
    if len(text) > _LONGEST:
        raise ValueError(f"is longer than {_LONGEST} letters")
    found: dict[tuple[Direction, int, int], Visible] = {}
    for entry in filter(None, text.replace(" ", "").split(",")):
        parts = _ENTRY.fullmatch(entry)
        if parts is None or int(parts[2]) > 65535:
            raise ValueError(f"{entry[:80]!r} is not as <Egress/53/UDP/DNS> or <Ingress/80/TCP/HTTP>")
        direction, port, spoken = Direction[parts[1].upper()], int(parts[2]), parts[4].upper()
        dns = spoken == "DNS"
        protocols = _PROTOCOLS[parts[3]] if dns else tuple(each for each in _PROTOCOLS[parts[3]] if each == TCP)
        if spoken not in ("HTTP", "DNS") or not protocols or (dns and direction != Direction.EGRESS):
            raise ValueError(f"{entry!r}: HTTP on TCP can be looked at, and DNS (TCP, UDP, ANY) of egress")
        for protocol in protocols:
            each = Visible(direction, protocol, port, dns)
            if found.setdefault((direction, protocol, port), each) != each:
                raise ValueError(f"{entry!r}: port {port} is named for HTTP and for DNS")
    return tuple(sorted(found.values()))
