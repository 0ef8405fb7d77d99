"""Maps for people: planned beside realized; metrics."""

from __future__ import annotations

import pytest

from mycel.abi import (
    AnnouncedKey,
    AnnouncedValue,
    BackendKey,
    BackendValue,
    IpcacheKey,
    IpcacheLpmKey,
    IpcacheValue,
    MetricKey,
    MetricValue,
    ServiceKey,
    ServiceValue,
    SlotKey,
    SlotValue,
)
from mycel.agent import tables, views
from mycel.model.address import NO_ADDRESS, parse_address

A = parse_address
SERVICE = {
    "services": {ServiceKey(A("10.96.0.1"), 443, 6): ServiceValue(3, 2, 1, 0, 1, 0, 0)},
    "service_slots": {SlotKey(3, 1): SlotValue(8), SlotKey(3, 2): SlotValue(9)},
    "backends": {
        BackendKey(8): BackendValue(A("10.0.0.1"), 6443, 6, 0),
        BackendKey(9): BackendValue(A("fd00::1"), 6443, 6, 0),
    },
}


def test_announced_addresses() -> None:
    """Per device, with the MAC that is said."""
    rows = {"announced": {AnnouncedKey(A("10.0.0.1"), 3): AnnouncedValue(bytes.fromhex("020000000042"))}}
    (row,) = tables.table("announced", rows, {})
    assert row == {
        "key": {"address": "10.0.0.1", "ifindex": 3},
        "desired": {"mac": "02:00:00:00:00:42"},
        "realized": None,
    }


def test_a_frontend_is_one_row() -> None:
    """Its slots and backends are looked up; what is missing is said."""
    (row,) = tables.table("lb", SERVICE, {**SERVICE, "backends": {}})
    assert row["key"] == {"address": "10.96.0.1", "port": 443, "protocol": "TCP"}
    assert row["desired"]["backends"] == ["10.0.0.1:6443", "[fd00::1]:6443"]
    assert row["realized"]["backends"] == ["missing", "missing"]
    assert row["desired"]["type"] == "ClusterIP"


def test_ipcache_shows_addresses_and_prefixes() -> None:
    """Both maps in one table; a row only one side has is shown."""
    value = IpcacheValue(NO_ADDRESS, 1, 2)
    desired = {"ipcache": {IpcacheKey(A("10.0.0.1")): value}, "ipcache_lpm": {IpcacheLpmKey(120, A("10.0.0.0")): value}}
    rows = {row["key"]["address"]: row for row in tables.table("ipcache", desired, {"ipcache": desired["ipcache"]})}
    assert rows["10.0.0.1"]["desired"] == rows["10.0.0.1"]["realized"]
    assert rows["10.0.0.0/24"]["realized"] is None
    assert rows["10.0.0.1"]["realized"]["flags"] == ["node"]


def test_metrics_have_names_of_reasons() -> None:
    """As stock tools filter them."""
    counters = {MetricKey(0, 1): MetricValue(5, 500), MetricKey(133, 2): MetricValue(1, 60)}
    rows = tables.table("metrics", {}, {"metrics": counters})
    assert [(row["key"], row["desired"], row["realized"]["packets"]) for row in rows] == [
        ({"reason": "Policy denied", "direction": "egress"}, None, 1),
        ({"reason": "forwarded", "direction": "ingress"}, None, 5),
    ]
    text = views.prometheus(views.metrics(counters, endpoints=2, targets=[], policy_revision=1, l7_losses={}))
    assert 'cilium_drop_count_total{direction="EGRESS",reason="Policy denied"} 1' in text
    assert 'cilium_forward_count_total{direction="INGRESS"} 5' in text


def test_an_unknown_table_is_named() -> None:
    """With those there are."""
    with pytest.raises(LookupError, match="no table nope: there are endpoint"):
        tables.table("nope", {}, {})
