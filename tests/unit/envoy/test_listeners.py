"""Listeners of policies."""

from __future__ import annotations

from typing import Any

from mycel.abi import Direction
from mycel.envoy.listeners import listener
from mycel.policy.proxy_ports import HttpSections
from mycel.policy.rules import L7
from mycel.policy.visibility import LOOK


def logs_of(made: Any) -> list[Any]:
    """The access logs of a listener's connection manager."""
    (chain,) = made["filter_chains"]
    (only,) = chain["filters"]
    found: list[Any] = only["typed_config"]["access_log"]
    return found


def test_all_log_alike():
    """Envoy has a buffer for each log that differs, and keeps it after its listener is gone."""
    get = L7("http", '{"rules": [{"method": "GET"}]}')
    made = [
        listener(10001, HttpSections(Direction.EGRESS, (get,)), ()),
        listener(10002, HttpSections(Direction.INGRESS, (get,)), ()),
        listener(10003, HttpSections(Direction.INGRESS, (LOOK,)), ()),
    ]
    assert logs_of(made[0]) == logs_of(made[1]) == logs_of(made[2]) != []
    assert [each["filter_chains"][0]["name"] for each in made] == [each["name"] for each in made]
