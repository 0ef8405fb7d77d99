"""Explanations name what decided and what is nearest; findings name traps."""

from __future__ import annotations

from typing import Any

import pytest

from mycel.cli.policies.envoy import unserved
from mycel.policy.explain import Side, explain
from mycel.policy.lint import lint
from mycel.policy.offline import parse_flow
from mycel.policy.rules import Reason
from mycel.policy.world import read_world
from tests.unit.policy.worlds import CLUSTER, Object, ccnp, cnp, end, into, knp, out_of, pods, to_ports, verdict


def ingress(policies: list[Object], source: str, destination: str, port: int = 80) -> Side:
    """The explanation of a TCP connection's ingress."""
    world = read_world([*CLUSTER, *policies])
    flow = {"from": end(source), "to": end(destination), "protocol": "TCP", "port": port}
    return explain(world, parse_flow(world, flow)).ingress


POLICY = cnp(into({"fromEndpoints": [pods(app="db")], "toPorts": to_ports("80/TCP")}, {"fromCIDR": ["9.0.0.0/8"]}))


def test_the_nearest_rule_and_the_field_it_misses_on() -> None:
    """The peer's label, or the port; the rule that misses on one thing is nearer than one that misses on two."""
    side = ingress([POLICY], "bank/web", "shop/web")
    assert side.decision.reason is Reason.DEFAULT_DENY
    assert [str(rule) for rule in side.decision.rules] == ["CiliumNetworkPolicy shop/p spec"]
    assert side.nearest is not None and str(side.nearest.rule.ref) == "CiliumNetworkPolicy shop/p spec.ingress[0]"
    assert "app=db (it has web)" in side.nearest.peer and not side.nearest.port
    side = ingress([POLICY], "shop/db", "shop/web", 81)
    assert side.nearest is not None and not side.nearest.peer
    assert side.nearest.port == "80/TCP and not 81/TCP"


@pytest.mark.parametrize("source", ["bank/web", "shop/db", "1.2.3.4", "172.18.0.3", "remote-node"])
def test_the_remedy_allows_it(source: str) -> None:
    """Added to the manifests it lets the connection through, and no other port of it."""
    closed = cnp(into({"fromEntities": ["none"]}))
    side = ingress([closed], source, "shop/web")
    assert side.remedy is not None
    assert verdict([closed, side.remedy], source, "shop/web") == "allowed"
    assert verdict([closed, side.remedy], source, "shop/web", "81/TCP") == "denied"


def test_denied_by_a_rule() -> None:
    """Then there is no remedy but that rule."""
    deny = cnp({"endpointSelector": {}, "ingressDeny": [{"fromEntities": ["world"]}]})
    side = ingress([deny], "1.2.3.4", "shop/web")
    assert side.decision.reason is Reason.DENY_RULE and side.remedy is None
    assert [str(rule) for rule in side.decision.rules] == ["CiliumNetworkPolicy shop/p spec.ingressDeny[0]"]


FINDINGS: list[tuple[str, Object, set[tuple[str, str]]]] = [
    ("clean", POLICY, set()),
    ("nobody", cnp(into({"fromEndpoints": []})), {("spec.ingress[0].fromEndpoints", "empty-list")}),
    (
        "anybody",
        cnp(out_of({"toServices": [], "toPorts": to_ports("80")})),
        {("spec.egress[0].toServices", "empty-list")},
    ),
    ("nothing", cnp(into({})), {("spec.ingress[0]", "empty-entry")}),
    ("no ports", cnp(into({"fromEndpoints": [{}], "toPorts": [{}]})), {("spec.ingress[0].toPorts[0]", "empty-list")}),
    ("everything", knp({"podSelector": {}, "ingress": [{}]}), {("spec.ingress[0]", "allows-everything")}),
    ("no subject", cnp(into({"fromEndpoints": [{}]}, app="gone")), {("spec.endpointSelector", "selects-nothing")}),
    ("no peer", cnp(into({"fromEndpoints": [pods(app="gone")]})), {("spec.ingress[0]", "selects-nothing")}),
    (
        "over a pod, with a hole",
        cnp(into({"fromCIDRSet": [{"cidr": "10.0.0.9/8", "except": ["10.0.0.1/32"]}]})),
        {("spec.ingress[0]", "cidr-of-the-cluster")},
    ),
    ("in holes alone", cnp(into({"fromCIDRSet": [{"cidr": "10.0.0.0/8", "except": ["10.0.0.0/15"]}]})), set()),
    (
        "probes",
        cnp(
            {
                "endpointSelector": {},
                "ingressDeny": [{"fromEntities": ["host"]}],
                "ingress": [{"fromEntities": ["all"]}],
            }
        ),
        {("spec.ingressDeny[0]", "denies-probes")},
    ),
    (
        "probes of some ports",
        cnp({"endpointSelector": {}, "ingressDeny": [{"toPorts": to_ports("80/TCP")}]}),
        {("spec.ingressDeny[0]", "denies-probes")},
    ),
    ("over pods", cnp(into({"fromCIDR": ["10.0.0.0/8"]})), {("spec.ingress[0]", "cidr-of-the-cluster")}),
    (
        "names without DNS",
        cnp(out_of({"toFQDNs": [{"matchName": "a.b"}]})),
        {("spec.egress[0].toFQDNs", "no-dns")},
    ),
    (
        "shadowed",
        cnp(into({"fromEndpoints": [pods(app="db")]}, ingressDeny=[{"fromEndpoints": [{}]}])),
        {("spec.ingress[0]", "shadowed-by-deny")},
    ),
    (
        "shadowed in part",
        cnp(
            into(
                {"fromEndpoints": [pods(app="db")]},
                ingressDeny=[{"fromEndpoints": [{}], "toPorts": to_ports("22/TCP")}],
            )
        ),
        set(),
    ),
    ("nodes", ccnp({"nodeSelector": {}, "ingress": [{"fromEntities": ["all"]}]}), {("spec.nodeSelector", "no-effect")}),
    ("HTTP", cnp(into({"toPorts": to_ports("80/TCP", rules={"http": [{}]})})), set()),
    ("DNS", cnp(out_of({"toPorts": to_ports("53/UDP", rules={"dns": [{"matchPattern": "*"}]})})), set()),
    (
        "what no proxy understands",
        cnp(into({"toPorts": [*to_ports("80/TCP"), *to_ports("443/TCP", originatingTLS={"secret": {"name": "s"}})]})),
        {("spec.ingress[0].toPorts[1]", "layer-7")},
    ),
    (
        "authentication",
        cnp(into({"fromEndpoints": [{}], "authentication": {"mode": "required"}})),
        {("spec.ingress[0]", "layer-7")},
    ),
    (
        "no such service",
        cnp(out_of({"toServices": [{"k8sService": {"serviceName": "gone"}}]})),
        {("spec.egress[0]", "selects-nothing")},
    ),
    (
        "no such group",
        cnp(into({"fromCIDRSet": [{"cidrGroupRef": "gone"}]})),
        {("spec.ingress[0]", "selects-nothing")},
    ),
]


@pytest.mark.parametrize(("policy", "expected"), [row[1:] for row in FINDINGS], ids=[row[0] for row in FINDINGS])
def test_findings(policy: Any, expected: set[tuple[str, str]]) -> None:
    """Field and rule of each."""
    objects = [*CLUSTER, policy]
    found = lint(read_world(objects), objects, unserved=unserved)
    assert {(each.field, each.rule) for each in found} == expected


def test_of_two_objects_of_one_name_the_last_counts() -> None:
    """Which is easily overlooked in a folder."""
    objects = [*CLUSTER, cnp(into({"fromEntities": ["world"]})), cnp(into({"fromEntities": ["cluster"]}))]
    found = lint(read_world(objects), objects, unserved=unserved)
    assert [(each.object, each.field, each.rule) for each in found] == [
        ("CiliumNetworkPolicy shop/p", "metadata.name", "there-twice")
    ]


def test_prefixes_over_pods_where_they_are_about_pods() -> None:
    """Then it is meant."""
    mode = {"kind": "ConfigMap", "metadata": {"name": "cilium-config"}, "data": {"policy-cidr-match-mode": "pods"}}
    objects = [*CLUSTER, mode, cnp(into({"fromCIDR": ["10.0.0.0/8"]}))]
    assert lint(read_world(objects), objects, unserved=unserved) == []
