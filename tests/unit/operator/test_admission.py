"""What is said of objects before they are stored."""

from __future__ import annotations

from typing import Any

import pytest

from mycel.operator.admission.configuration import configuration
from mycel.operator.admission.review import KINDS, Mesh, problem_of, warnings_of


def an_object(kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    api = {"NetworkPolicy": "networking.k8s.io/v1"}.get(kind, "cilium.io/v2")
    namespaced = kind in ("Ingress", "NetworkPolicy", "CiliumNetworkPolicy", "CiliumEnvoyConfig")
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
        ("CiliumL2AnnouncementPolicy", {"interfaces": ["("]}, "CiliumL2AnnouncementPolicy one: spec.interfaces[0]: is"),
    ],
)
def test_what_is_wrong_is_named_with_object_and_field(kind: str, spec: dict[str, Any], words: str) -> None:
    problem = problem_of(an_object(kind, spec))
    assert problem is not None
    assert str(problem).startswith(words)


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


def test_what_is_not_new_is_no_reason_to_refuse() -> None:
    """An object that was stored broken can be labelled, and go; what is changed of it is judged."""
    broken = an_object("CiliumNetworkPolicy", {**ANY, **PORT})
    labelled = broken | {"metadata": {**broken["metadata"], "labels": {"a": "b"}}, "status": {"conditions": []}}
    leaving = labelled | {"metadata": {**broken["metadata"], "deletionTimestamp": "2026-01-01T00:00:00Z"}}
    other = an_object("CiliumNetworkPolicy", {**ANY, **PORT, "description": "x"})
    assert problem_of(labelled, broken) is None
    assert problem_of(leaving | {"spec": other["spec"]}, broken) is None
    assert problem_of(other, broken) is not None
    assert problem_of(broken) is not None


def test_what_will_not_do_what_it_says_is_warned_of() -> None:
    """Objects that are switched off, and parts of an Ingress that are not served."""
    config = an_object("CiliumEnvoyConfig", {"resources": []})
    assert warnings_of(config, Mesh()) == ()
    [warning] = warnings_of(config, Mesh(envoy_configs=False))
    assert warning.startswith("CiliumEnvoyConfig shop/one: is not used")
    assert "mycel config set enable-envoy-config true" in warning
    ours = config | {"metadata": {**config["metadata"], "labels": {"cilium.io/ingress": "true"}}}
    assert warnings_of(ours, Mesh(envoy_configs=False)) == ()
    backend = {"service": {"name": "web", "port": {"number": 80}}}
    paths = [{"path": "/(", "pathType": "ImplementationSpecific", "backend": backend}]
    ingress = an_object("Ingress", {"ingressClassName": "cilium", "rules": [{"http": {"paths": paths}}]})
    ingress["metadata"]["annotations"] = {"ingress.cilium.io/request-timeout": "soon"}
    said = warnings_of(ingress, Mesh())
    assert [text.partition(":")[0] for text in said] == ["Ingress shop/one"] * 2
    assert "say a duration such as 30s" in said[0]
    assert "is not a regular expression" in said[1]
    assert warnings_of(ingress, Mesh(ingresses=False)) == ()
    assert warnings_of(ingress | {"spec": {"ingressClassName": "nginx"}}, Mesh()) == ()


def test_the_configuration_asks_about_what_can_be_judged_and_waits_for_nobody() -> None:
    """By the Service of the operators."""
    made = configuration("mesh", b"PEM", KINDS)
    [webhook] = made["webhooks"]
    assert (webhook["failurePolicy"], webhook["sideEffects"], webhook["timeoutSeconds"]) == ("Ignore", "None", 5)
    assert webhook["clientConfig"] == {
        "service": {"namespace": "mesh", "name": "cilium-admission", "path": "/validate", "port": 443},
        "caBundle": "UEVN",
    }
    asked = {plural for rule in webhook["rules"] for plural in rule["resources"]}
    assert asked == {kind.plural for kind in KINDS}
    assert {operation for rule in webhook["rules"] for operation in rule["operations"]} == {"CREATE", "UPDATE"}
