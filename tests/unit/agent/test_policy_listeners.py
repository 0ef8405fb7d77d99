"""Listeners of policies: when rows may name them, and what is said of those that cannot be."""

from __future__ import annotations

import asyncio

from mycel.abi import Direction
from mycel.agent.proxy.policy_listeners import PolicyListeners
from mycel.envoy.delta import Outcome
from mycel.envoy.listeners import listener_name
from mycel.envoy.resources import LISTENER, Version
from mycel.policy.engine import Engine
from tests.unit.policy.test_engine import WEB, engine
from tests.unit.policy.worlds import cnp, pods
from tests.virtual_time import run


def rules(**rule: object) -> dict[str, object]:
    """A policy that lets carts into the web pods by one HTTP rule."""
    ports = [{"ports": [{"port": "80", "protocol": "TCP"}], "rules": {"http": [rule]}}]
    return cnp(
        {"endpointSelector": pods(app="web"), "ingress": [{"fromEndpoints": [pods(app="cart")], "toPorts": ports}]}
    )


def subject(made: Engine) -> tuple[int, int]:
    """The sets of the web pods."""
    found = made.subject(WEB)
    return found.ingress.number, found.egress.number


def test_rows_wait_for_the_listener_they_name() -> None:
    """Until Envoy has taken or refused it, for ten seconds, and only while there is an Envoy."""

    async def story() -> None:
        made, connected = engine(rules(method="GET")), True
        listeners = PolicyListeners(made, connected=lambda: connected)
        numbers = subject(made)
        ((port, http),) = made.http_listeners.items()
        assert http.direction == Direction.INGRESS
        assert listeners.pending(numbers)
        await asyncio.sleep(9)
        assert listeners.pending(numbers)
        await asyncio.sleep(2)
        assert not listeners.pending(numbers)
        for outcome in (
            Outcome(LISTENER, listener_name(port, http.direction), Version("1"), None),
            Outcome(LISTENER, listener_name(port, http.direction), Version("1"), "bad address"),
        ):
            fresh = PolicyListeners(made, connected=lambda: True)
            fresh.answered({(outcome.type_url, outcome.name): outcome})
            assert not fresh.pending(numbers)
            assert fresh.refused(numbers[0]) == (outcome.error or "")
        connected = False
        assert not PolicyListeners(made, connected=lambda: connected).pending(numbers)

    run(story())


def test_rules_that_no_listener_can_serve_are_not_waited_for() -> None:
    """They are said, and their ports stay closed."""

    async def story() -> None:
        made = engine(rules(headerMatches=[{"name": "x", "value": "1", "mismatch": "ADD"}]))
        listeners = PolicyListeners(made, connected=lambda: True)
        numbers = subject(made)
        assert made.http_listeners
        assert not listeners.pending(numbers)
        assert "headerMatches" in listeners.refused(numbers[0])

    run(story())
