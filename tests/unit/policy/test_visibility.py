"""What annotations want to be looked at, and that no verdict is another for it."""

from __future__ import annotations

import random

import pytest

from mycel.abi import Direction
from mycel.agent.proxy.listing import rule_words
from mycel.envoy.listeners import snapshot
from mycel.envoy.resources import LISTENER
from mycel.policy.fqdn import EVERY_NAME
from mycel.policy.judge import Judge
from mycel.policy.rules import TCP, UDP, Outcome
from mycel.policy.visibility import LOOK, Visible, parse_visibility
from tests.unit.policy.test_engine import CART, DB, WEB, engine
from tests.unit.policy.worlds import cnp, out_of, pods, to_ports

HTTP = Visible(Direction.INGRESS, TCP, 80, dns=False)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ()),
        ("<Ingress/80/TCP/HTTP>", (HTTP,)),
        ("<Ingress/80/ANY/http>, <Ingress/80/TCP/HTTP>", (HTTP,)),
        (
            "<Egress/53/ANY/DNS>",
            (Visible(Direction.EGRESS, TCP, 53, dns=True), Visible(Direction.EGRESS, UDP, 53, dns=True)),
        ),
    ],
)
def test_what_is_asked_for(text: str, expected: tuple[Visible, ...]) -> None:
    assert parse_visibility(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "Ingress/80/TCP/HTTP",
        "<ingress/80/TCP/HTTP>",
        "<Ingress/0/TCP/HTTP>",
        "<Ingress/70000/TCP/HTTP>",
        "<Ingress/80/UDP/HTTP>",
        "<Ingress/80/TCP/KAFKA>",
        "<Ingress/53/UDP/DNS>",
        "<Egress/80/TCP/HTTP>,<Egress/80/TCP/DNS>",
        "<Egress/80/TCP/HTTP>" * 500,
    ],
)
def test_what_cannot_be(text: str) -> None:
    with pytest.raises(ValueError, match=r"is |are |can be|longer"):
        parse_visibility(text)


def test_a_pod_without_policy_is_looked_at_and_not_judged() -> None:
    """Its set lets everything through; one port is looked at, by a listener of its own."""
    made = engine()
    subject = made.subject(WEB, (HTTP,))
    assert (subject.ingress.enforced, subject.ingress.judged, subject.egress.enforced) == (True, False, False)
    judge = Judge(made)
    for port in (80, 81):
        assert (
            judge.decide(subject, Direction.INGRESS, CART.identity, protocol=TCP, port=port).outcome == Outcome.ALLOWED
        )
    row, other = (judge.row(subject.ingress, CART.identity, TCP, port) for port in (80, 81))
    assert row is not None and row.looks and made.proxy_rules(row.proxy_port) == (LOOK,)
    assert other is not None and not other.proxy_port
    assert rule_words(made.http_listeners[row.proxy_port].sections) == ("every request",)
    ((name, listener),) = snapshot(made.http_listeners)[LISTENER].items()
    assert name == f"policy/ingress/{row.proxy_port}" and b"http_inspector" in listener.body
    assert made.subject(WEB).ingress.number == 0


RULES = [
    {"fromEndpoints": [pods(app="cart")], "toPorts": to_ports("80/TCP")},
    {"fromEndpoints": [pods(app="cart")]},
    {"fromEndpoints": [pods(app="db")], "toPorts": to_ports("80/TCP", rules={"http": [{"path": "/a"}]})},
    {"toPorts": to_ports("80/TCP", rules={"http": [{"path": "/b"}]})},
    {"toPorts": to_ports("79-90/TCP")},
    {"fromEndpoints": [pods(app="db")], "toPorts": to_ports("443/TCP")},
]
DENIALS = [
    {"fromEndpoints": [pods(app="cart")]},
    {"fromEndpoints": [pods(app="db")], "toPorts": to_ports("80/TCP")},
    {"toPorts": to_ports("443/TCP")},
]


def test_no_verdict_is_another_for_being_looked_at() -> None:
    """Over random policies: outcome, reason, rules and layer 7 sections are the same with and without."""
    looked_at = judged = 0
    for seed in range(100):
        rand = random.Random(seed)
        allowed = rand.sample(RULES, rand.randint(0, 3))
        spec = {"endpointSelector": pods(app="web"), "ingress": allowed or [{}]}
        spec |= {"ingressDeny": rand.sample(DENIALS, rand.randint(0, 1))}
        spec |= {"enableDefaultDeny": {"ingress": rand.random() < 0.7}}
        made = engine(cnp(spec))
        visible = tuple(Visible(Direction.INGRESS, TCP, port, dns=False) for port in (80, 443))
        plain, seen = made.subject(WEB), made.subject(WEB, visible)
        judge = Judge(made)
        for peer in (CART.identity, DB.identity, 2):
            for port in (79, 80, 81, 443):
                before, after = (
                    judge.decide(each, Direction.INGRESS, peer, protocol=TCP, port=port) for each in (plain, seen)
                )
                assert before == after, f"seed {seed}: {spec}, {peer}, {port}"
                row, other = (judge.row(each.ingress, peer, TCP, port) for each in (plain, seen))
                if row is not None and other is not None and not other.looks:
                    assert made.proxy_rules(row.proxy_port) == made.proxy_rules(other.proxy_port)
                looked_at += other is not None and bool(other.looks)
                judged += before.outcome == Outcome.L7
                assert other is None or not (other.looks and other.deny)
                assert port in (80, 443) or other is None or not other.looks
    assert looked_at > 100 and judged > 50


def test_dns_is_looked_at_by_the_dns_proxy() -> None:
    """It lets every name through; rules for DNS stay what they are."""
    visible = parse_visibility("<Egress/53/UDP/DNS>")
    made = engine(cnp(out_of({"toEndpoints": [pods(app="db")]})))
    subject = made.subject(WEB, visible)
    row = Judge(made).row(subject.egress, DB.identity, UDP, 53)
    assert row is not None and row.looks
    assert made.dns_listeners == {row.proxy_port: (EVERY_NAME,)}
    assert not subject.ingress.enforced
