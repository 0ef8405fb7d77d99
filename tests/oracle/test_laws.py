"""Laws the model itself must keep, whatever the policies."""

from __future__ import annotations

import copy
import json
from random import Random
from typing import Any

import pytest
import yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.oracle import laws
from tests.oracle.generate import Options, State, state
from tests.oracle.laws import denied, table, words
from tests.oracle.model import verdict
from tests.oracle.parties import Cluster, Object

OPTIONS = Options(flows=40)
states = st.integers(0, 10**7).map(lambda seed: state(seed, OPTIONS))
law = settings(max_examples=25, deadline=None, database=None, derandomize=True)


def _policy(namespace: str | None, spec: Object) -> Object:
    kind = "CiliumClusterwideNetworkPolicy" if namespace is None else "CiliumNetworkPolicy"
    meta = {"name": "added"} | ({} if namespace is None else {"namespace": namespace})
    return {"apiVersion": "cilium.io/v2", "kind": kind, "metadata": meta, "spec": spec}


@law
@given(states, st.randoms(use_true_random=False))
def test_order_of_policies_and_entries_is_irrelevant(made: State, random: Random) -> None:
    mixed = copy.deepcopy(made.policies)
    random.shuffle(mixed)
    for entries in laws.lists(mixed, "ingress", "egress", "ingressDeny", "egressDeny", "toPorts", "ports"):
        random.shuffle(entries)
    assert words(table(made, mixed)) == words(table(made))


@law
@given(states, states)
def test_an_added_allow_closes_nothing(made: State, other: State) -> None:
    more = copy.deepcopy(made.policies)
    donors = laws.specs(other.policies)
    added = 0
    for spec, donor in zip(laws.specs(more), donors, strict=False):
        for direction in ("ingress", "egress"):
            if spec.get(direction) and donor.get(direction) and "endpointSelector" in spec:
                spec[direction] += donor[direction]
                added += 1
    assume(added)
    assert denied(table(made, more)) <= denied(table(made))


@law
@given(states, states)
def test_an_added_deny_opens_nothing(made: State, other: State) -> None:
    denies: list[Object] = []
    for number, spec in enumerate(laws.specs(other.policies)):
        kept = {key: value for key, value in spec.items() if key not in ("ingress", "egress") and value != []}
        if "endpointSelector" in kept and ("ingressDeny" in kept or "egressDeny" in kept):
            denies.append(_policy(None, kept) | {"metadata": {"name": f"deny{number}"}})
    assume(denies)
    assert denied(table(made)) <= denied(table(made, [*made.policies, *denies]))


@law
@given(states)
def test_deny_wins_over_every_allow(made: State) -> None:
    wall = _policy(None, {"endpointSelector": {}, "ingressDeny": [{"fromEntities": ["all"]}]})
    door = _policy(None, {"endpointSelector": {}, "ingress": [{"fromEntities": ["all"]}]})
    for answer in table(made, [*made.policies, wall, door]):
        assert answer.ingress.reason in ("no-policy", "deny-rule") or not answer.ingress.rules


@law
@given(states)
def test_empty_subject_is_the_namespace_and_no_more(made: State) -> None:
    made = laws.direct(made)
    closing = _policy("shop", {"endpointSelector": {}, "ingress": [{}]})
    world = Cluster(made.objects)
    for flow, answer in zip(made.flows, table(made, [closing]), strict=True):
        target = _pod_of(world, flow["to"])
        inside = target is not None and target.startswith("shop/")
        assert (answer.ingress.reason != "no-policy") == (inside and target != _pod_of(world, flow["from"]))


def _pod_of(world: Cluster, end: Object) -> str | None:
    """The pod an end is, by name or address; None for nodes and what runs on their network."""
    for name, pod in world.pods.items():
        held = [entry["ip"] for entry in pod["status"]["podIPs"]]
        if not pod["spec"].get("hostNetwork") and (end.get("pod") == name or end.get("ip") in held):
            return name
    return None


@law
@given(states, st.sampled_from(["fromEndpoints", "fromEntities", "fromCIDR", "fromCIDRSet"]))
def test_missing_peers_are_all_and_empty_peers_none(made: State, kind: str) -> None:
    ports: Any = [{"ports": [{"port": "0", "protocol": "ANY"}]}]
    missing = _policy(None, {"endpointSelector": {}, "ingress": [{"toPorts": ports}]})
    empty = _policy(None, {"endpointSelector": {}, "ingress": [{kind: [], "toPorts": ports}]})
    nulled = _policy(None, {"endpointSelector": {}, "ingress": [{kind: None, "toPorts": ports}]})
    assert words(table(made, [missing])) == words(table(made, [nulled]))
    for flow, one, other in zip(made.flows, table(made, [missing]), table(made, [empty]), strict=True):
        assert one.ingress.verdict == "allowed" or flow["protocol"] == "ICMP"
        assert other.ingress.verdict == "denied" or not other.ingress.rules


@law
@given(states, st.sampled_from(["ingress", "egress"]))
def test_a_policy_isolates_only_its_direction(made: State, direction: str) -> None:
    made = laws.direct(made)
    closing = _policy(None, {"endpointSelector": {}, direction: [{}]})
    other = "egress" if direction == "ingress" else "ingress"
    for before, after in zip(table(made), table(made, [*made.policies, closing]), strict=True):
        assert getattr(before, other) == getattr(after, other)
        assert getattr(after, direction).reason != "no-policy" or getattr(before, direction).reason == "no-policy"


@law
@given(states)
def test_any_is_tcp_udp_and_sctp(made: State) -> None:
    assert words(table(made, laws.any_spelled_out(made.policies))) == words(table(made))


@law
@given(states)
def test_a_split_range_is_the_whole_range(made: State) -> None:
    assert words(table(made, laws.ranges_split(made.policies))) == words(table(made))


@law
@given(states)
def test_renaming_changes_nothing(made: State) -> None:
    names = {"shop": "stall", "bank": "vault", "web": "frontend", "tier": "layer", "app": "component", "prod": "live"}
    other = laws.renamed(made, names)
    assert words(table(other)) == words(table(made))


@law
@given(states)
def test_both_families_are_judged_alike(made: State) -> None:
    four = made._replace(flows=[flow for flow in made.flows if flow["family"] == 4])
    assume(four.flows)
    assert words(table(laws.family_swapped(made))) == words(table(four))


@law
@given(states)
def test_writing_and_reading_keeps_the_meaning(made: State) -> None:
    for copied in (json.loads(json.dumps(made)), yaml.safe_load(yaml.safe_dump(list(made)))):
        assert table(State(*copied)) == table(made)


@law
@given(states)
def test_no_policies_is_open(made: State) -> None:
    assert {answer[:3] for answer in words(table(made, []))} == {("allowed", "allowed", "no-policy")}


# ---- one line of the documents each, so that the model is not merely consistent

POD = {"from": {"pod": "shop/web"}, "to": {"pod": "bank/db"}, "protocol": "TCP", "port": 80}


@pytest.fixture(scope="module")
def world() -> Cluster:
    def pod(namespace: str, name: str, address: str, node: str) -> Object:
        meta = {"namespace": namespace, "name": name, "labels": {"app": name}}
        ports = [{"name": "http", "containerPort": 8080}]
        spec = {"nodeName": node, "containers": [{"name": "c", "ports": ports}]}
        return {"kind": "Pod", "metadata": meta, "spec": spec, "status": {"podIP": address}}

    def node(name: str, address: str) -> Object:
        held = [{"type": "InternalIP", "address": address}]
        return {"kind": "Node", "metadata": {"name": name}, "status": {"addresses": held}}

    pods = [
        pod("shop", "web", "10.0.0.1", "n1"),
        pod("bank", "db", "10.0.1.2", "n2"),
        pod("bank", "api", "10.0.0.3", "n1"),
    ]
    return Cluster([*pods, node("n1", "172.18.0.1"), node("n2", "172.18.0.2")])


@pytest.mark.parametrize(
    ("spec", "flow", "expected"),
    [
        ({"ingress": [{}]}, {}, "denied"),
        ({"ingress": [{"fromEndpoints": [{}]}]}, {}, "denied"),
        ({"ingress": [{"fromEndpoints": [{}]}]}, {"from": {"pod": "bank/api"}}, "allowed"),
        (
            {"ingress": [{"fromEndpoints": [{"matchLabels": {"k8s:io.kubernetes.pod.namespace": "shop"}}]}]},
            {},
            "allowed",
        ),
        ({"ingress": [{"toPorts": [{"ports": [{"port": "http"}]}]}]}, {"port": 8080}, "allowed"),
        ({"ingress": [{"toPorts": [{"ports": [{"port": "http"}]}]}]}, {}, "denied"),
        ({"ingress": [{"fromCIDR": ["0.0.0.0/0"]}]}, {}, "denied"),
        ({"ingress": [{"fromCIDR": ["0.0.0.0/0"]}]}, {"from": {"ip": "192.0.2.1"}}, "allowed"),
        ({"ingress": [{"fromCIDR": ["0.0.0.0/0"]}]}, {"from": {"ip": "172.18.0.1"}}, "denied"),
        ({"ingress": [{"fromEntities": ["none"]}]}, {"from": {"ip": "172.18.0.2"}}, "allowed"),
        ({"ingress": [{"fromEntities": ["remote-node"]}]}, {"from": {"ip": "172.18.0.1"}}, "allowed"),
        ({"ingress": [{"fromEntities": ["world"]}]}, {"from": {"entity": "remote-node"}}, "denied"),
        ({"ingress": [{"icmps": [{"fields": [{"type": 0}]}]}]}, {"protocol": "ICMP", "type": 8}, "denied"),
        ({"ingress": [{"toPorts": [{"ports": [{"port": "0"}]}]}]}, {"protocol": "ICMP", "type": 8}, "denied"),
        ({"ingress": [{"fromEntities": ["all"]}]}, {"protocol": "ICMP", "type": 8}, "allowed"),
        ({"ingressDeny": [{"fromCIDR": ["192.0.2.0/24"]}]}, {}, "denied"),
        ({"ingressDeny": [{"fromCIDR": ["192.0.2.0/24"]}], "enableDefaultDeny": {"ingress": False}}, {}, "allowed"),
        ({"egress": [{}]}, {}, "allowed"),
        ({"egress": [{"toEntities": ["none"]}], "enableDefaultDeny": {"ingress": True}}, {}, "denied"),
    ],
)
def test_line_by_line(world: Cluster, spec: Object, flow: Object, expected: str) -> None:
    policy = _policy("bank", {"endpointSelector": {}, **spec})
    assert verdict(world, [policy], {**POD, **flow}).verdict == expected


def test_a_redirect_wins_over_the_broader_and_the_narrower_allow(world: Cluster) -> None:
    l7 = {"ports": [{"port": "80", "protocol": "TCP"}], "rules": {"http": [{"method": "GET"}]}}
    entries = [{"fromEntities": ["all"]}, {"toPorts": [{"ports": [{"port": "1", "endPort": 65535}]}]}]
    spec = {"endpointSelector": {}, "ingress": [{"toPorts": [l7]}, *entries]}
    assert verdict(world, [_policy("bank", spec)], POD).verdict == "l7"
    assert verdict(world, [_policy("bank", spec)], {**POD, "port": 81}).verdict == "allowed"


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"ingress": [{}]}, "allowed"),
        ({"ingress": []}, "denied"),
        ({}, "denied"),
        ({"egress": []}, "denied"),
        ({"policyTypes": ["Egress"], "ingress": []}, "allowed"),
        ({"ingress": [{"from": [], "ports": []}]}, "allowed"),
        ({"ingress": [{"from": [{"podSelector": {}}]}]}, "denied"),
        ({"ingress": [{"from": [{"namespaceSelector": {}}]}]}, "allowed"),
        ({"ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/24"}}]}]}, "allowed"),
        ({"ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/24", "except": ["10.0.0.1/32"]}}]}]}, "denied"),
        ({"ingress": [{"ports": [{"port": 80}]}]}, "allowed"),
        ({"ingress": [{"ports": [{"port": 80, "protocol": "SCTP"}]}]}, "denied"),
        ({"ingress": [{"ports": [{}]}]}, "allowed"),
    ],
)
def test_kubernetes_line_by_line(world: Cluster, spec: Object, expected: str) -> None:
    meta = {"name": "p", "namespace": "bank"}
    policy = {"kind": "NetworkPolicy", "metadata": meta, "spec": {"podSelector": {}, **spec}}
    assert verdict(world, [policy], POD).verdict == expected
