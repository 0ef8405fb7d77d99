"""Addresses of a node's pods."""

from __future__ import annotations

import pytest

from mycel.agent.ipam import Pool, PoolExhausted, ingress_address, router_address
from mycel.model.address import format_address, parse_address


def test_addresses_go_round() -> None:
    """The first is the router's, the last the ingress proxy's; a released one comes back last."""
    pool = Pool("10.0.0.0/29")
    assert format_address(router_address("10.0.0.0/29")) == "10.0.0.1"
    assert format_address(ingress_address("10.0.0.0/29")) == "10.0.0.6"
    given = [format_address(pool.allocate()) for _ in range(4)]
    assert given == [f"10.0.0.{number}" for number in range(2, 6)]
    with pytest.raises(PoolExhausted, match=r"10\.0\.0\.0/29"):
        pool.allocate()
    pool.release(parse_address("10.0.0.3"))
    assert format_address(pool.allocate()) == "10.0.0.3"


def test_a_released_address_is_not_given_at_once() -> None:
    """Others that are free come first."""
    pool = Pool("10.0.0.0/24")
    first = pool.allocate()
    pool.release(first)
    assert pool.allocate() != first


def test_restored_addresses_are_taken() -> None:
    """Allocation goes on behind them; addresses of other networks do not count."""
    pool = Pool("10.0.0.0/24", [parse_address("10.0.0.7"), parse_address("10.9.0.3"), parse_address("fd00::5")])
    assert (pool.used, pool.size) == (1, 252)
    assert format_address(pool.allocate()) == "10.0.0.8"


def test_ipv6() -> None:
    """The same in a /112."""
    pool = Pool("fd00::/112")
    assert format_address(pool.allocate()) == "fd00::2"
    assert parse_address("fd00::fffe") in pool
    assert format_address(ingress_address("fd00::/112")) == "fd00::ffff"
    assert ingress_address("fd00::/112") not in pool
    assert parse_address("fd01::2") not in pool


def test_a_network_without_room() -> None:
    """Said at start, not at the first pod."""
    with pytest.raises(ValueError, match="no room"):
        Pool("10.0.0.0/30")
