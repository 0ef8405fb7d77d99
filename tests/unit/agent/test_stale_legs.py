"""Which of Envoy's connections to servers the kernel drops, by the rows it holds."""

from __future__ import annotations

import socket

import pytest

from mycel.abi import PolicyKey, PolicyValue, ProxyMark
from mycel.agent.proxy.stale_legs import Enforced, is_stale
from mycel.kit.sock_diag import Marked
from mycel.model.proxy import upstream_mark
from mycel.policy.lookup import key_of
from mycel.policy.rows import FULL_BITS, L3_BITS

HERE, PEER = socket.inet_aton("10.0.0.1"), socket.inet_aton("10.0.0.2")
OLD, NEW, LOOKS = 10001, 10002, 10003
SERVICE, EGRESS, INGRESS = ProxyMark.UPSTREAM_SERVICE, ProxyMark.UPSTREAM_EGRESS, ProxyMark.UPSTREAM_INGRESS
Row = tuple[PolicyKey, PolicyValue]


def row(port: int, listener: int, *, looks: int = 0, length: int = FULL_BITS) -> Row:
    return key_of(length, 7, 6, port), PolicyValue(listener, 0, 1, 1, 1, looks)


def enforced(*rows: Row, egress: bool) -> Enforced:
    """Of an endpoint that has these rows in one direction."""
    return Enforced({1: dict(rows)}, {HERE: (0, 1) if egress else (1, 0)})


def leg(kind: ProxyMark, *, egress: bool) -> Marked:
    """A connection to port 80, from the endpoint or to it, by way of the listener OLD."""
    ends = (HERE, PEER) if egress else (PEER, HERE)
    return Marked(upstream_mark(kind, OLD), *ends, peer_port=80, handle=b"")


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
@pytest.mark.parametrize("egress", [True, False])
def test_rules_that_are_others(*, rows: list[Row], stale: bool, egress: bool) -> None:
    """Where rows for the port name listeners of rules, and not the one the connection came through."""
    now = enforced(*rows, egress=egress)
    made = leg(EGRESS if egress else INGRESS, egress=egress)
    assert is_stale(made, now, None) == stale
    elsewhere = Enforced({1: dict(rows)}, {PEER: now.numbers[HERE]})
    assert not is_stale(made, elsewhere, None), "the other end's rules say nothing"


@pytest.mark.parametrize(("kind", "egress"), [(SERVICE, True), (SERVICE, False), (EGRESS, False)])
def test_rules_that_come_over_a_connection(kind: ProxyMark, *, egress: bool) -> None:
    """A direction its listener has not judged: from then on it is; one that goes to a listener already goes on."""
    made, rules = leg(kind, egress=egress), enforced(row(80, NEW), egress=egress)
    assert is_stale(made, rules, enforced(row(80, 0), egress=egress))
    assert is_stale(made, rules, enforced(row(80, LOOKS, looks=1), egress=egress))
    assert not is_stale(made, rules, rules)
    assert not is_stale(made, rules, enforced(row(80, OLD), egress=egress))
    assert not is_stale(made, rules, None)
    assert not is_stale(made, enforced(row(80, 0), egress=egress), rules)


def test_what_was_judged_before_the_listener_is_not_judged_again() -> None:
    rules = enforced(row(80, NEW), egress=True)
    assert not is_stale(leg(INGRESS, egress=True), rules, enforced(egress=True))
