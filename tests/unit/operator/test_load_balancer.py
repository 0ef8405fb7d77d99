"""Pools, claims, and who gets which address."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mycel.model.service import ServiceRef
from mycel.operator.announcements import parse_item, patch
from mycel.operator.loadbalancer.assign import Decision, PoolState, Reason, decide
from mycel.operator.loadbalancer.claims import Claim, Told, parse_claim
from mycel.operator.loadbalancer.pools import IpAddress, Pool, conflicts, parse_pool
from mycel.operator.loadbalancer.status import parse_pool_status, pool_patch, pool_told, service_patch, services_told

NOW = "2026-01-01T00:00:00Z"


def pool(name: str = "a", *blocks: str, created: str = "1", **spec: Any) -> Pool:
    """A pool of `10.0.0.0/30` or `10.0.0.1-10.0.0.3` blocks."""
    made = [
        dict(zip(("start", "stop"), each.split("-"), strict=True)) if "-" in each else {"cidr": each} for each in blocks
    ]
    return parse_pool({"metadata": {"name": name, "creationTimestamp": created}, "spec": {"blocks": made, **spec}})


def claim(name: str = "web", *, namespace: str = "shop", held: tuple[str, ...] = (), **more: Any) -> Claim:
    """A service; `annotations`, `labels`, `created` and fields of the spec."""
    metadata = {
        "namespace": namespace,
        "name": name,
        "uid": f"{namespace}/{name}",
        "annotations": more.pop("annotations", {}),
        "labels": more.pop("labels", {}),
        "creationTimestamp": more.pop("created", "1"),
    }
    spec = {"type": "LoadBalancer", "ipFamilies": ["IPv4"], "ports": [{"port": 80}], **more}
    status = {"loadBalancer": {"ingress": [{"ip": text} for text in held]}}
    return parse_claim({"metadata": metadata, "spec": spec, "status": status})


def given_to(decision: Decision) -> dict[str, list[str]]:
    """Addresses by the services' names."""
    return {ref.name: [str(each) for each in outcome.addresses] for ref, outcome in decision.services.items()}


def ask(pools: list[Pool], *claims: Claim) -> Decision:
    """Decide, with what the services' statuses say they have."""
    held = {each.uid: tuple(map(ipaddress.ip_address, each.told.addresses)) for each in claims}
    return decide(pools, claims, held)


@pytest.mark.parametrize(
    ("blocks", "spec", "size"),
    [
        (("10.0.0.0/30",), {}, 4),
        (("10.0.0.0/30",), {"allowFirstLastIPs": "No"}, 2),
        (("10.0.0.0/31",), {"allowFirstLastIPs": "No"}, 2),
        (("10.0.0.5/32",), {"allowFirstLastIPs": "No"}, 1),
        (("10.0.0.1-10.0.0.1", "10.0.1.0-10.0.1.9"), {"allowFirstLastIPs": "No"}, 11),
        (("fd00::/112",), {}, 65536),
        ((), {}, 0),
    ],
)
def test_sizes_of_pools(blocks: tuple[str, ...], spec: dict[str, Any], size: int) -> None:
    made = pool("a", *blocks, **spec)
    assert (made.size, made.problem) == (size, "")


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ({"blocks": [{"start": "10.0.0.9", "stop": "10.0.0.1"}]}, "spec.blocks[0].stop: 10.0.0.1 does not come after"),
        ({"blocks": [{"start": "10.0.0.9", "stop": "fd00::1"}]}, "spec.blocks[0].stop"),
        ({"blocks": [{}]}, "spec.blocks[0]: needs a cidr"),
        ({"blocks": [{"cidr": "10.0.0.0/8", "start": "10.0.0.1"}]}, "spec.blocks[0]: has a cidr and a range"),
        ({"blocks": [{"cidr": "x"}]}, "spec.blocks[0].cidr"),
        ({"blocks": [{"first": "10.0.0.1"}]}, "spec.blocks[0].first: there is no such field"),
        ({"serviceSelector": {"matchLabel": {}}}, "spec.serviceSelector.matchLabel: there is no such field"),
    ],
)
def test_a_pool_that_is_not_well_formed_gives_nothing(spec: dict[str, Any], problem: str) -> None:
    made = parse_pool({"metadata": {"name": "a"}, "spec": spec})
    assert made.problem.startswith(problem)
    assert made.size == 0


def test_a_block_without_stop_is_one_address() -> None:
    made = parse_pool({"metadata": {"name": "a"}, "spec": {"blocks": [{"start": "10.0.0.7"}]}})
    assert given_to(ask([made], claim())) == {"web": ["10.0.0.7"]}


def test_the_younger_of_two_overlapping_pools_gives_nothing() -> None:
    pools = [
        pool("a", "10.0.0.0/24", created="2"),
        pool("b", "10.0.0.128-10.0.1.3", created="1"),
        pool("c", "10.9.0.0/24"),
    ]
    assert set(conflicts(pools)) == {"a"}
    assert "overlaps range '10.0.0.128 - 10.0.1.3' from IP Pool 'b'" in conflicts(pools)["a"]
    assert given_to(ask(pools, claim())) == {"web": ["10.0.0.128"]}
    assert set(conflicts([pool("twice", "10.0.0.0/24", "10.0.0.7/32")])) == {"twice"}


def test_addresses_are_given_in_order_of_age_and_kept() -> None:
    """A new service, older by name, takes nothing from one that has an address."""
    pools = [pool("a", "10.0.0.0/30")]
    first = ask(pools, claim("old", created="1"), claim("new", created="2"))
    assert given_to(first) == {"old": ["10.0.0.0"], "new": ["10.0.0.1"]}
    then = ask(pools, claim("zz", created="2", held=("10.0.0.1",)), claim("aa", created="1"))
    assert given_to(then) == {"zz": ["10.0.0.1"], "aa": ["10.0.0.0"]}


@pytest.mark.parametrize(
    ("held", "spec", "blocks", "expected"),
    [
        (("10.0.0.2",), {}, ("10.0.0.0/30",), ["10.0.0.2"]),
        (("10.0.0.2",), {"disabled": True}, ("10.0.0.0/30",), ["10.0.0.2"]),
        (("10.0.0.2",), {}, ("10.1.0.0/30",), ["10.1.0.0"]),  # the pool went
        (("10.0.0.2",), {"serviceSelector": {"matchLabels": {"a": "b"}}}, ("10.0.0.0/30",), []),
        ((), {"disabled": True}, ("10.0.0.0/30",), []),
        (("10.0.0.2", "10.0.0.3"), {}, ("10.0.0.0/30",), ["10.0.0.2"]),
        (("fd00::1",), {}, ("10.0.0.0/30", "fd00::/120"), ["10.0.0.0"]),
    ],
)
def test_what_is_kept(
    held: tuple[str, ...], spec: dict[str, Any], blocks: tuple[str, ...], expected: list[str]
) -> None:
    assert given_to(ask([pool("a", *blocks, **spec)], claim(held=held))) == {"web": expected}


@pytest.mark.parametrize(
    ("service", "reason"),
    [
        (claim(), Reason.NO_POOL),
        (claim(namespace="bank"), Reason.SATISFIED),
        (claim(labels={"tier": "gold"}), Reason.NO_POOL),
        (claim("lb", namespace="bank", ipFamilies=["IPv6"]), Reason.NO_POOL),
    ],
)
def test_selectors_see_names_and_namespaces(service: Claim, reason: Reason) -> None:
    wanted = {"matchLabels": {"io.kubernetes.service.namespace": "bank"}}
    (outcome,) = ask([pool("a", "10.0.0.0/30", serviceSelector=wanted)], service).services.values()
    assert outcome.reason is reason


def test_a_full_pool_says_so() -> None:
    services = [claim(f"s{number}", created=str(number)) for number in range(3)]
    decision = ask([pool("a", "10.0.0.0/31")], *services)
    assert [outcome.reason for outcome in decision.services.values()] == [
        Reason.SATISFIED,
        Reason.SATISFIED,
        Reason.OUT_OF_IPS,
    ]
    assert decision.pools["a"] == PoolState("", 2, 2)
    assert decision.pools["a"].available == 0


@pytest.mark.parametrize("key", ["lbipam.cilium.io/ips", "io.cilium/lb-ipam-ips"])
def test_requested_addresses(key: str) -> None:
    """By annotation, several; by spec; out of no pool; of others; changed."""
    pools = [pool("a", "10.0.0.0/29"), pool("b", "10.5.0.0/30", disabled=True)]
    both = claim(annotations={key: "10.0.0.5, 10.0.0.6"}, held=("10.0.0.1",))
    assert given_to(ask(pools, both)) == {"web": ["10.0.0.5", "10.0.0.6"]}
    assert given_to(ask(pools, claim(loadBalancerIP="10.0.0.3"))) == {"web": ["10.0.0.3"]}
    for wished, reason in (
        ("10.9.9.9", Reason.NO_POOL),
        ("10.5.0.1", Reason.MISMATCH),
        ("fd00::1", Reason.INVALID),
        ("10.0.0.x", Reason.INVALID),
    ):
        decision = ask(pools, claim(annotations={key: wished}))
        assert (given_to(decision), next(iter(decision.services.values())).reason) == ({"web": []}, reason)
    taken = ask(pools, claim("first", held=("10.0.0.5",)), claim("second", annotations={key: "10.0.0.5"}, created="0"))
    assert taken.services[ServiceRef("shop", "second")].reason is Reason.ALREADY_ALLOCATED
    assert "shop/first" in taken.services[ServiceRef("shop", "second")].message


def test_sharing_of_addresses() -> None:
    """One address for services of one key whose ports differ, of one namespace unless both say otherwise."""
    pools = [pool("a", "10.0.0.0/29")]
    key = {"lbipam.cilium.io/sharing-key": "one"}
    web = claim("a-web", annotations=key)
    tls = claim("b-tls", annotations=key, ports=[{"port": 443}])
    same = claim("c-same", annotations=key)
    assert given_to(ask(pools, web, tls, same)) == {
        "a-web": ["10.0.0.0"],
        "b-tls": ["10.0.0.0"],
        "c-same": ["10.0.0.1"],
    }
    other = claim("d-other", namespace="bank", created="2", annotations=key, ports=[{"port": 444}])
    assert given_to(ask(pools, web, other))["d-other"] == ["10.0.0.1"]
    across = key | {"lbipam.cilium.io/sharing-cross-namespace": "*"}
    mine = claim("a-web", annotations=key | {"lbipam.cilium.io/sharing-cross-namespace": "bank"})
    welcome = claim("d-other", namespace="bank", created="2", annotations=across, ports=[{"port": 444}])
    assert given_to(ask(pools, mine, welcome))["d-other"] == ["10.0.0.0"]
    local = claim("b-tls", annotations=key, ports=[{"port": 443}], externalTrafficPolicy="Local")
    assert given_to(ask(pools, web, local))["b-tls"] == ["10.0.0.1"]


@pytest.mark.parametrize(
    ("spec", "wants"),
    [
        ({}, True),
        ({"loadBalancerClass": "io.cilium/l2-announcer"}, True),
        ({"loadBalancerClass": "example.com/other"}, False),
        ({"type": "NodePort"}, False),
    ],
)
def test_whose_services_are_ours(spec: dict[str, Any], wants: bool) -> None:
    assert claim(**spec).wants is wants


def test_both_families() -> None:
    pools = [pool("a", "10.0.0.0/30"), pool("b", "fd00::/126")]
    assert given_to(ask(pools, claim(ipFamilies=["IPv6", "IPv4"]))) == {"web": ["10.0.0.0", "fd00::"]}
    decision = ask(pools[:1], claim(ipFamilies=["IPv4", "IPv6"]))
    assert (given_to(decision), decision.services[ServiceRef("shop", "web")].reason) == (
        {"web": ["10.0.0.0"]},
        Reason.NO_POOL,
    )


ADDRESSES = st.integers(0, 12).map(lambda number: f"10.0.0.{number}")


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 4), st.booleans(), st.integers(0, 2)), max_size=4),
    st.lists(
        st.tuples(st.lists(ADDRESSES, max_size=2), st.lists(ADDRESSES, max_size=2), st.booleans(), st.integers(0, 3)),
        max_size=8,
    ),
)
def test_what_always_holds(
    pools: list[tuple[int, int, bool, int]], services: list[tuple[list[str], list[str], bool, int]]
) -> None:
    """No address twice (but for sharing), none of outside the pools; asking again changes nothing; wishes are exact."""
    made = [
        pool(f"p{number}", f"10.0.0.{first}-10.0.0.{first + more}", disabled=off, created=str(age))
        for number, (first, more, off, age) in enumerate(pools)
    ]
    claims = [
        claim(
            f"s{number}",
            held=tuple(held),
            created=str(age),
            annotations={"lbipam.cilium.io/ips": ",".join(wished)}
            | ({"lbipam.cilium.io/sharing-key": "k"} if shares else {}),
            ports=[{"port": 80 + number % 2}],
        )
        for number, (held, wished, shares, age) in enumerate(services)
    ]
    decision = ask(made, *claims)
    by_name = {each.ref: each for each in claims}
    holders: dict[IpAddress, list[Claim]] = {}
    for ref, outcome in decision.services.items():
        assert len(set(outcome.addresses)) == len(outcome.addresses)
        assert not by_name[ref].requested or set(outcome.addresses) <= set(by_name[ref].requested)
        for address in outcome.addresses:
            assert any(address in each for each in made)
            holders.setdefault(address, []).append(by_name[ref])
    for sharing in holders.values():
        assert all(one.shares_with(other) for one in sharing for other in sharing if one is not other)
    again: Mapping[str, tuple[IpAddress, ...]] = {
        by_name[ref].uid: outcome.addresses for ref, outcome in decision.services.items()
    }
    assert decide(made, claims, again) == decision


def test_statuses_say_it() -> None:
    """What is written is what is read back, and what kubectl's columns look for."""
    decision = ask([pool("a", "10.0.0.0/30")], claim())
    told = services_told(decision)[ServiceRef("shop", "web")]
    status = service_patch(told, NOW)["status"]
    assert status["loadBalancer"] == {"ingress": [{"ip": "10.0.0.0"}]}
    assert status["conditions"][0]["type"] == "cilium.io/IPAMRequestSatisfied"
    item = {"metadata": {"name": "web", "namespace": "shop"}, "spec": {"type": "LoadBalancer"}, "status": status}
    assert parse_claim(item).told == told == Told(("10.0.0.0",), True, "satisfied", "")
    assert service_patch(None, NOW)["status"]["loadBalancer"] == {"ingress": None}
    said = pool_told(decision.pools["a"])
    assert parse_pool_status(pool_patch(said, NOW)) == said
    assert (said.total, said.available, said.used) == ("4", "3", "1")
    conflict = pool_told(PoolState("Pool conflicts …", 4, 0))
    assert parse_pool_status(pool_patch(conflict, NOW)) == conflict
    assert parse_pool_status({}) is None


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ({"loadBalancerIPs": True}, ""),
        ({"externalIPs": True, "interfaces": ["^eth"]}, ""),
        ({}, "spec: neither loadBalancerIPs nor externalIPs is true"),
        ({"loadBalancerIPs": True, "interfaces": ["("]}, "spec.interfaces[0]: is not a regular expression"),
        ({"loadBalancerIPs": True, "nodeSelector": {"labels": {}}}, "spec.nodeSelector.labels: there is no such field"),
    ],
)
def test_announcement_policies_say_whether_they_can_be_used(spec: dict[str, Any], problem: str) -> None:
    """And say it once: what is written is what is read back."""
    item = {"metadata": {"name": "p"}, "spec": spec}
    found = parse_item(item)
    assert found.problem.startswith(problem) and bool(found.problem) == bool(problem)
    assert found.told is None
    assert parse_item(item | patch(found.problem, NOW)).told == found.problem
