"""Which of Envoy's connections to servers the kernel drops, by the rows it holds."""

from __future__ import annotations

import socket

import pytest

from mycel.abi import PolicyKey, PolicyValue, ProxyMark
from mycel.agent.proxy.stale_legs import Sides, is_stale
from mycel.kit.sock_diag import Marked
from mycel.model.proxy import upstream_mark
from mycel.policy.lookup import key_of
from mycel.policy.rows import FULL_BITS, L3_BITS

HERE, PEER = socket.inet_aton("10.0.0.1"), socket.inet_aton("10.0.0.2")
OLD, NEW, LOOKS = 10001, 10002, 10003
SIDES = {HERE: Sides(ingress=1, egress=2)}


def row(port: int, listener: int, *, looks: int = 0, length: int = FULL_BITS) -> tuple[PolicyKey, PolicyValue]:
    return key_of(length, 7, 6, port), PolicyValue(listener, 0, 1, 1, 1, looks)


@pytest.mark.parametrize(
    ("rows", "stale"),
    [
        ([row(80, NEW)], True),
        ([row(80, OLD)], False),
        ([row(80, NEW), row(80, OLD, length=L3_BITS)], False),
        ([row(64, NEW, length=FULL_BITS - 6)], True),
        ([row(81, NEW)], False),
        ([row(80, 0)], False),
        ([row(80, LOOKS, looks=1)], False),
        ([], False),
    ],
)
@pytest.mark.parametrize("ingress", [True, False])
def test_rules_that_are_others(*, rows: list[tuple[PolicyKey, PolicyValue]], stale: bool, ingress: bool) -> None:
    """Where rows for the port name listeners of rules, and not the one the connection came through."""
    kind = ProxyMark.UPSTREAM_INGRESS if ingress else ProxyMark.UPSTREAM_EGRESS
    ends = (PEER, HERE) if ingress else (HERE, PEER)
    leg = Marked(upstream_mark(kind, OLD), *ends, peer_port=80, handle=b"")
    assert is_stale(leg, SIDES, {1 if ingress else 2: dict(rows)}) == stale
    assert not is_stale(leg, {PEER: SIDES[HERE]}, {1: dict(rows), 2: dict(rows)}), "the other end's rules say nothing"
