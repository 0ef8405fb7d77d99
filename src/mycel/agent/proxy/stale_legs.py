"""Ends connections Envoy keeps to servers when the kernel lets nothing through them any more.

Such a connection has the mark of the listener it came through, and its packets are dropped once the row names another;
or it went straight to its peer, and now there are rules (docs/l7.md). Envoy does not notice, and would send the next
request into it. Ended, it makes a new one, which is judged by the rules of now.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, NamedTuple

from mycel.abi import Direction, PolicyKey, PolicyValue, ProxyMark
from mycel.agent.planner import Planner
from mycel.kit.sock_diag import Marked, end, marked
from mycel.model.address import is_ipv4
from mycel.policy.lookup import key_of

log = logging.getLogger(__name__)
_UPSTREAM = (ProxyMark.UPSTREAM_SERVICE, ProxyMark.UPSTREAM_EGRESS, ProxyMark.UPSTREAM_INGRESS)
_TCP = 6
Rows = Mapping[PolicyKey, PolicyValue]
_NO_ROWS: Rows = {}


class Enforced(NamedTuple):
    """The rows of a plan, by set, and the sets of this node's endpoints, by IPv4 address."""

    sets: Mapping[int, Rows]
    numbers: Mapping[bytes, tuple[int, int]]  # ingress, egress

    def named(self, address: bytes, direction: Direction, port: int) -> dict[int, bool]:
        """The listeners an endpoint's rows name for a port; whether each has rules, or only looks."""
        number = self.numbers.get(address, (0, 0))[direction == Direction.EGRESS]
        return {
            value.proxy_port: not value.looks
            for key, value in self.sets.get(number, _NO_ROWS).items()
            if value.proxy_port and key_of(key.prefixlen, key.identity, _TCP, port) == key
        }


def is_stale(leg: Marked, now: Enforced, before: Enforced | None) -> bool:
    """Whether the kernel drops what the connection sends: in the direction its listener has judged, rows name listeners
    of rules and not that one; in one nobody has judged yet, they do since now. `before`: None where nothing is known.
    """
    kind, listener = leg.mark & ProxyMark.KIND, leg.mark >> 16
    for direction, address, own in (
        (Direction.EGRESS, leg.source, ProxyMark.UPSTREAM_EGRESS),
        (Direction.INGRESS, leg.peer, ProxyMark.UPSTREAM_INGRESS),
    ):
        if kind > own:
            continue  # judged before it came through this listener
        named = now.named(address, direction, leg.peer_port)
        if not any(named.values()):
            continue
        if kind == own and listener not in named:
            return True
        if kind < own and before and not any(before.named(address, direction, leg.peer_port).values()):
            return True
    return False


async def end_stale_legs(planner: Planner) -> None:
    """Look whenever an endpoint's sets are others in the kernel, until cancelled."""
    seen, before = 0, None
    while True:
        seen = await planner.desired.newer_than(seen)
        desired = planner.desired.value
        await planner.applied(seen)
        now = _enforced(desired)
        if before is None or now.numbers != before.numbers:
            await asyncio.to_thread(_end, now, before)
        before = now


def _enforced(desired: Mapping[str, Mapping[Any, Any]]) -> Enforced:
    endpoints = desired["endpoints"].items()
    numbers = {key.addr[12:]: (each.ingress_set, each.egress_set) for key, each in endpoints if is_ipv4(key.addr)}
    return Enforced(desired["policy"], numbers)


def _end(now: Enforced, before: Enforced | None) -> None:
    try:
        legs = (leg for kind in _UPSTREAM for leg in marked(kind, ProxyMark.KIND))
        found = [each for each in legs if is_stale(each, now, before)]
        if found:
            log.info("%d of Envoy's connections are ended: their rules are others now", end(found))
    except OSError as exc:
        log.warning("Envoy's connections by earlier rules are not ended: %s", exc)
