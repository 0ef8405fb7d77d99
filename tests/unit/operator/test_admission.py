"""What is said of objects before they are stored."""

from __future__ import annotations

from typing import Any

import pytest

from mycel.operator.admission.review import problem_of


def an_object(kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    api = {"NetworkPolicy": "networking.k8s.io/v1"}.get(kind, "cilium.io/v2")
    namespaced = kind in ("NetworkPolicy", "CiliumNetworkPolicy", "CiliumEnvoyConfig")
    metadata = {"name": "one", **({"namespace": "shop"} if namespaced else {})}
    return {"apiVersion": api, "kind": kind, "metadata": metadata, "spec": spec}


ANY: dict[str, Any] = {"endpointSelector": {}}
PORT = {"ingress": [{"toPorts": [{"ports": [{"port": "70000", "protocol": "TCP"}]}]}]}


@pytest.mark.parametrize(
    ("kind", "spec", "words"),
    [
        ("CiliumNetworkPolicy", {**ANY, **PORT}, "CiliumNetworkPolicy shop/one: spec.ingress[0].toPorts[0].ports[0]"),
        ("CiliumClusterwideNetworkPolicy", {**ANY, **PORT}, "CiliumClusterwideNetworkPolicy one: spec.ingress[0]"),
        ("NetworkPolicy", {"podSelector": {}, "policyTypes": ["Both"]}, "NetworkPolicy shop/one: spec.policyTypes"),
        ("CiliumCIDRGroup", {"externalCIDRs": ["10.0.0.0/40"]}, "CiliumCIDRGroup one: spec.externalCIDRs[0]"),
        ("CiliumEnvoyConfig", {}, "CiliumEnvoyConfig shop/one: spec.resources"),
        ("CiliumClusterwideEnvoyConfig", {}, "CiliumClusterwideEnvoyConfig one: spec.resources"),
        ("CiliumLoadBalancerIPPool", {"blocks": [{"cidr": "x"}]}, "CiliumLoadBalancerIPPool one: spec.blocks[0].cidr"),
    ],
)
def test_what_is_wrong_is_named_with_object_and_field(kind: str, spec: dict[str, Any], words: str) -> None:
    problem = problem_of(an_object(kind, spec))
    assert problem is not None
    assert problem.startswith(words)


@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        ("CiliumNetworkPolicy", {**ANY, "ingress": [{"fromEndpoints": [{}]}]}),
        ("NetworkPolicy", {"podSelector": {}}),
        ("CiliumCIDRGroup", {"externalCIDRs": ["10.0.0.0/8"]}),
        ("CiliumLoadBalancerIPPool", {"blocks": [{"cidr": "10.9.0.0/24"}]}),
        ("CiliumNode", {"addresses": "whatever"}),
    ],
)
def test_what_is_right_or_not_ours_passes(kind: str, spec: dict[str, Any]) -> None:
    assert problem_of(an_object(kind, spec)) is None
