"""Ends connections Envoy keeps to servers when the rules they were let through by are no longer in force.

Such a connection has the mark of the listener it came through, and the kernel drops its packets once the row names
another (docs/l7.md). Envoy does not notice, and would send the next request of a client's kept-alive connection into
it. Ended, it makes a new one, which is judged by the rules of now.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import NamedTuple

from mycel.abi import EndpointKey, EndpointValue, PolicyKey, PolicyValue, ProxyMark
from mycel.agent.planner import Planner
from mycel.kit.sock_diag import Marked, end, marked
from mycel.model.address import is_ipv4
from mycel.policy.lookup import key_of

log = logging.getLogger(__name__)
_JUDGED = ProxyMark.UPSTREAM_EGRESS & ProxyMark.UPSTREAM_INGRESS
_KIND = ProxyMark.KIND & ~(ProxyMark.UPSTREAM_EGRESS ^ ProxyMark.UPSTREAM_INGRESS)
_TCP = 6
Rows = Mapping[PolicyKey, PolicyValue]


class Sides(NamedTuple):
    """The numbers of an endpoint's sets."""

    ingress: int
    egress: int


def is_stale(leg: Marked, sides: Mapping[bytes, Sides], sets: Mapping[int, Rows]) -> bool:
    """Whether the kernel drops what the connection sends: rows for its port name listeners of rules, and not its own.

    `sides`: of endpoints of this node, by IPv4 address.
    """
    ingress = leg.mark & ProxyMark.KIND == ProxyMark.UPSTREAM_INGRESS
    of = sides.get(leg.peer if ingress else leg.source)
    if of is None:
        return False
    rows = sets.get(of.ingress if ingress else of.egress, {})
    named = [
        value
        for key, value in rows.items()
        if value.proxy_port and key_of(key.prefixlen, key.identity, _TCP, leg.peer_port) == key
    ]
    listener = leg.mark >> 16
    return any(not value.looks for value in named) and all(value.proxy_port != listener for value in named)


async def end_stale_legs(planner: Planner) -> None:
    """Look whenever an endpoint's sets are others in the kernel, until cancelled."""
    seen, before = 0, dict[bytes, Sides]()
    while True:
        seen = await planner.desired.newer_than(seen)
        desired = planner.desired.value
        await planner.applied(seen)
        sides = _sides(desired["endpoints"])
        if any(before.get(address) != each for address, each in sides.items()):
            await asyncio.to_thread(_end, sides, desired["policy"])
        before = sides


def _sides(endpoints: Mapping[EndpointKey, EndpointValue]) -> dict[bytes, Sides]:
    found = ((key.addr, Sides(value.ingress_set, value.egress_set)) for key, value in endpoints.items())
    return {address[12:]: each for address, each in found if any(each) and is_ipv4(address)}


def _end(sides: Mapping[bytes, Sides], sets: Mapping[int, Rows]) -> None:
    try:
        found = [each for each in marked(_JUDGED, _KIND) if is_stale(each, sides, sets)]
        if found:
            log.info("%d of Envoy's connections are ended: their rules are others now", end(found))
    except OSError as exc:
        log.warning("Envoy's connections by earlier rules are not ended: %s", exc)
