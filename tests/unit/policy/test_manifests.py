"""Manifests that are no policies are refused, with the field."""

from __future__ import annotations

from typing import Any

import pytest

from mycel.policy.errors import ManifestInvalid, PolicyInvalid
from mycel.policy.http import SecretRef, secrets_of
from mycel.policy.offline import evaluate_manifests
from mycel.policy.parse import parse_policy
from tests.unit.policy.worlds import CLUSTER, ccnp, cnp, into, knp, out_of, pods, to_ports

ENDPOINTS = {"fromEndpoints": [{}]}
HTTP = "spec.ingress[0].toPorts[0].rules.http[0]"
TO_443 = "spec.egress[0].toPorts[0]"
DNS = to_ports("53", rules={"dns": [{"matchPattern": "*"}]})
HTTP_53 = to_ports("53/TCP", rules={"http": [{}]})
MATCH = "spec.ingress[0].toPorts[0].rules.http[0].headerMatches[0]"


def matching(match: dict[str, Any], *, clusterwide: bool = False) -> dict[str, Any]:
    """A policy whose rule has one of headerMatches."""
    spec = into({"toPorts": to_ports("80/TCP", rules={"http": [{"headerMatches": [match]}]})})
    return ccnp(spec) if clusterwide else cnp(spec)


REFUSED = [
    (cnp(out_of({"toPorts": to_ports("443/TCP", serverNames=[])})), f"{TO_443}.serverNames", "at least one server"),
    (cnp({"ingress": [{}]}), "spec", "needs endpointSelector"),
    (cnp({"endpointSelector": {}}), "spec", "at least one of ingress"),
    (cnp({"endpointSelector": {}, "ingress": []}), "spec", "at least one of ingress"),
    (cnp({"endpointSelector": {}, "enableDefaultDeny": {"ingress": True}}), "spec", "at least one"),
    (cnp({"nodeSelector": {}, "ingress": [{}]}), "spec.nodeSelector", "CiliumClusterwideNetworkPolicy"),
    (ccnp({"nodeSelector": {}, "endpointSelector": {}, "ingress": [{}]}), "spec", "not both"),
    (cnp(into({"fromEndpoint": [{}]})), "spec.ingress[0].fromEndpoint", "no such field"),
    (cnp(into({"fromendpoints": [{}]})), "spec.ingress[0].fromendpoints", "did you mean fromEndpoints"),
    (cnp(into(ENDPOINTS | {"fromEntities": ["world"]})), "spec.ingress[0]", "one kind of peers"),
    (cnp(into({"fromRequires": [{}]})), "spec.ingress[0].fromRequires", "no longer supported"),
    (cnp(into({"fromEntities": ["moon"]})), "spec.ingress[0].fromEntities[0]", "'moon'"),
    (cnp(into({"fromCIDR": ["10.0.0.0/40"]})), "spec.ingress[0].fromCIDR[0]", "not an address"),
    (
        cnp(into({"fromCIDRSet": [{"cidr": "10.0.0.0/8", "except": ["11.0.0.0/16"]}]})),
        "spec.ingress[0].fromCIDRSet[0].except[0]",
        "does not lie within",
    ),
    (
        cnp(into({"fromCIDRSet": [{"cidr": "::/0", "except": ["10.0.0.0/8"]}]})),
        "spec.ingress[0].fromCIDRSet[0].except[0]",
        "does not lie within",
    ),
    (
        knp(
            {"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.0.0.0/8"]}}]}]}
        ),
        "spec.ingress[0].from[0].ipBlock.except[0]",
        "nothing would be left",
    ),
    (cnp(into({"fromCIDRSet": [{}]})), "spec.ingress[0].fromCIDRSet[0]", "exactly one of"),
    (cnp(into({"toPorts": to_ports("70000/TCP")})), "spec.ingress[0].toPorts[0].ports[0].port", "70000"),
    (cnp(into({"toPorts": to_ports("80/XYZ")})), "spec.ingress[0].toPorts[0].ports[0].protocol", "XYZ"),
    (cnp(into({"toPorts": to_ports("80/tcp")})), "spec.ingress[0].toPorts[0].ports[0].protocol", "it may be ANY, TCP"),
    (
        cnp(into({"toPorts": [{"ports": [{"port": 80}]}]})),
        "spec.ingress[0].toPorts[0].ports[0].port",
        'must be a string: "80"',
    ),
    (
        cnp(into({"toPorts": to_ports("80"), "icmps": [{"fields": [{"type": 8}]}]})),
        "spec.ingress[0].icmps",
        "may not be combined",
    ),
    (cnp(into({"icmps": [{"fields": [{"type": "Nonsense"}]}]})), "spec.ingress[0].icmps[0].fields[0].type", "Nonsense"),
    (
        cnp(into({"toPorts": to_ports("80", rules={"http": [{}]})})),
        "spec.ingress[0].toPorts[0].rules.http",
        "TCP only",
    ),
    (
        cnp(out_of({"toPorts": to_ports("53/SCTP", rules={"dns": [{"matchPattern": "*"}]})})),
        "spec.egress[0].toPorts[0].rules.dns",
        "does not speak SCTP",
    ),
    (
        ccnp({"nodeSelector": {}, "ingress": [{"toPorts": to_ports("80/TCP", rules={"http": [{}]})}]}),
        "spec.ingress[0].toPorts[0].rules.http",
        "cannot be asked of nodes",
    ),
    (
        ccnp(
            out_of(
                {
                    "toPorts": [
                        {
                            "ports": [{"port": "80", "protocol": "TCP"}],
                            "listener": {"envoyConfig": {"kind": "CiliumEnvoyConfig", "name": "x"}, "name": "y"},
                        }
                    ]
                }
            )
        ),
        "spec.egress[0].toPorts[0].listener.envoyConfig.kind",
        "CiliumClusterwideEnvoyConfig",
    ),
    (
        cnp(into({"toPorts": to_ports(f"{'9' * 5000}/TCP")})),
        "spec.ingress[0].toPorts[0].ports[0].port",
        "neither a port",
    ),
    (
        cnp(into({"icmps": [{"fields": [{"type": "9" * 5000}]}]})),
        "spec.ingress[0].icmps[0].fields[0].type",
        "not a type",
    ),
    (
        matching({"name": "x a", "value": "1", "mismatch": "ADD"}),
        f"{MATCH}.name",
        "no name of a header",
    ),
    (
        matching({"name": "Host", "value": "a", "mismatch": "REPLACE"}),
        f"{MATCH}.name",
        "may be matched, and not changed",
    ),
    (matching({"name": ":path", "value": "/", "mismatch": "REPLACE"}), f"{MATCH}.name", "no name of a header"),
    (matching({"name": "X-Envoy-Retry-On", "mismatch": "DELETE"}), f"{MATCH}.name", "may be matched, and not changed"),
    (matching({"name": "a", "value": "1\r\nb: 2", "mismatch": "ADD"}), f"{MATCH}.value", "no value of a header"),
    (matching({"name": "a", "value": " 1"}), f"{MATCH}.value", "no value of a header"),
    (matching({"name": "a", "secret": {"name": "../x"}}), f"{MATCH}.secret.name", "no name of a Secret"),
    (matching({"name": "a", "secret": {"name": "x", "namespace": "a/b"}}), f"{MATCH}.secret.namespace", "no name of a"),
    (
        matching({"name": "a", "secret": {"name": "x"}}, clusterwide=True),
        f"{MATCH}.secret.namespace",
        "is needed",
    ),
    (
        cnp(into({"toPorts": to_ports("80/TCP", rules={"http": [{"path": "("}]})})),
        "spec.ingress[0].toPorts[0].rules.http[0].path",
        "regular expression",
    ),
    *(
        (cnp(into({"toPorts": to_ports("80/TCP", rules={"http": [rule]})})), f"{HTTP}.{field}", words)
        for rule, field, words in [
            ({"path": "a" * 4097}, "path", "4097 characters"),
            ({"method": "GET|\\pL{20}"}, "method", "Envoy takes 1000"),
            ({"host": "[a-z]{300}"}, "host", "a program of 1804 steps"),
            ({"headers": ["X-Role", "X-Role admin"]}, "headers[1]", "no name of a header"),
            ({"headers": [": admin"]}, "headers[0]", "no name of a header"),
            ({"headers": ["X-Role: a\nb"]}, "headers[0]", "no value of a header"),
            ({"headerMatches": [{"name": ":path", "value": "/"}]}, "headerMatches[0].name", "no name of a header"),
        ]
    ),
    *(
        (cnp(out_of(*entries)), "spec.egress[1]", "spec.egress[0] has rules.dns for: a port speaks one protocol")
        for entries in [
            ({"toPorts": DNS}, {"toPorts": HTTP_53}),
            ({"toPorts": DNS}, {"toEndpoints": [{}], "toPorts": HTTP_53}),
            ({"toEndpoints": [{}], "toPorts": DNS}, {"toPorts": to_ports("50-60/TCP", rules={"http": [{}]})}),
            ({"toCIDR": ["1.1.1.1/32"], "toPorts": DNS}, {"toCIDR": ["2.0.0.0/8", "1.1.1.1"], "toPorts": HTTP_53}),
        ]
    ),
    (
        cnp(into({"toPorts": to_ports("53/UDP", rules={"dns": [{"matchName": "a"}]})})),
        "spec.ingress[0].toPorts[0].rules.dns",
        "egress only",
    ),
    (
        cnp({"endpointSelector": {}, "ingressDeny": [{"toPorts": to_ports("80/TCP", rules={"http": [{}]})}]}),
        "spec.ingressDeny[0].toPorts[0].rules",
        "no such field",
    ),
    (
        cnp(out_of({"toFQDNs": [{"matchName": "a.b", "matchPattern": "*"}]})),
        "spec.egress[0].toFQDNs[0]",
        "not both",
    ),
    (
        cnp({"endpointSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}, "ingress": [{}]}),
        "spec.endpointSelector.matchExpressions[0].values",
        "at least one",
    ),
    (
        cnp({"endpointSelector": {"matchLabels": {"a": 1}}, "ingress": [{}]}),
        "spec.endpointSelector.matchLabels.a",
        "a number",
    ),
    (cnp({"endpointSelector": [], "ingress": [{}]}), "spec.endpointSelector", "a list"),
    (knp({"podSelector": {}, "ingress": [{"from": [{}]}]}), "spec.ingress[0].from[0]", "needs podSelector"),
    (
        knp({"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": "1.0.0.0/8"}, "podSelector": {}}]}]}),
        "spec.ingress[0].from[0].ipBlock",
        "may not be combined",
    ),
    (
        knp({"podSelector": {}, "ingress": [{"ports": [{"port": 9, "endPort": 3}]}]}),
        "spec.ingress[0].ports[0].endPort",
        "before",
    ),
    (knp({"podSelector": {}, "policyTypes": ["Sideways"]}), "spec.policyTypes[0]", "Sideways"),
]


def test_secrets_are_named_with_their_namespace() -> None:
    """The policy's own unless it says another, which only a clusterwide one may use."""

    def named(secret: dict[str, str], *, clusterwide: bool = False) -> list[SecretRef]:
        policies = parse_policy(matching({"name": "a", "secret": secret}, clusterwide=clusterwide))
        return sorted(secrets_of(rule.l7 for policy in policies for side in policy.sides for rule in side.rules))

    assert named({"name": "x"}) == [SecretRef("shop", "x")]
    assert named({"name": "x", "namespace": "shop"}) == [SecretRef("shop", "x")]
    assert named({"name": "x", "namespace": "bank"}) == [SecretRef("bank", "x", foreign=True)]
    assert named({"name": "x", "namespace": "bank"}, clusterwide=True) == [SecretRef("bank", "x")]


@pytest.mark.parametrize(("manifest", "path", "words"), REFUSED, ids=[f"{row[1]}: {row[2]}" for row in REFUSED])
def test_refused_with_the_field(manifest: Any, path: str, words: str) -> None:
    """Path and reason."""
    with pytest.raises(PolicyInvalid) as caught:
        parse_policy(manifest)
    assert caught.value.path == path
    assert words in caught.value.problem


@pytest.mark.parametrize(
    "entries",
    [
        ({"toPorts": to_ports("53/UDP", rules={"dns": [{}]})}, {"toPorts": HTTP_53}),
        ({"toEndpoints": [pods(app="a")], "toPorts": DNS}, {"toEndpoints": [pods(app="b")], "toPorts": HTTP_53}),
        ({"toPorts": DNS}, {"toPorts": to_ports("54-60/TCP", "dns/TCP", rules={"http": [{}]})}),
    ],
)
def test_http_and_dns_may_be_on_different_ports_and_peers(entries: tuple[Any, ...]) -> None:
    """Each has its listener."""
    assert parse_policy(cnp(out_of(*entries)))


def test_specs_are_named_by_their_place() -> None:
    """Each with its own path."""
    manifest = cnp(into(ENDPOINTS), specs=[into(ENDPOINTS), {"endpointSelector": {}}])
    with pytest.raises(PolicyInvalid) as caught:
        parse_policy(manifest)
    assert caught.value.path == "specs[1]"


@pytest.mark.parametrize(
    ("manifest", "path", "words"),
    [
        ({"kind": "Namespace", "metadata": "x"}, "metadata", "a mapping"),
        ({"kind": "Namespace", "metadata": {"name": "x", "labels": ["a"]}}, "metadata.labels", "a mapping"),
        ({"kind": "Pod", "metadata": {"name": "x", "labels": {"a": 1}}}, "metadata.labels.a", "a string"),
        ({"kind": "Pod", "metadata": {"name": "x", "labels": {"a b": "c"}}}, "metadata.labels.a b", "the key of"),
        (
            {"kind": "Service", "metadata": {"name": "x"}, "spec": {"selector": {"a": "b c"}}},
            "spec.selector.a",
            "value",
        ),
        ({"kind": "ConfigMap", "metadata": {"name": "cilium-config"}, "data": []}, "data", "a mapping"),
        ({"kind": "ciliumnetworkpolicy", "metadata": {"name": "x"}}, "kind", "did you mean CiliumNetworkPolicy"),
    ],
)
def test_objects_around_are_checked_too(manifest: Any, path: str, words: str) -> None:
    """By the field."""
    with pytest.raises(ManifestInvalid) as caught:
        evaluate_manifests([*CLUSTER, manifest], [])
    assert (caught.value.index, caught.value.path) == (len(CLUSTER), path)
    assert words in caught.value.problem


def test_services_of_others_are_not_ours() -> None:
    """Kinds are of groups."""
    assert evaluate_manifests([{"apiVersion": "serving.knative.dev/v1", "kind": "Service", "metadata": {}}], []) == []


def test_the_object_is_named_in_a_set_of_manifests() -> None:
    """By its index, so that a file and document can be told."""
    bad = cnp({"ingress": [{}]}, place="shop/bad")
    with pytest.raises(ManifestInvalid) as caught:
        evaluate_manifests([*CLUSTER, bad], [])
    assert caught.value.index == len(CLUSTER)
    assert str(caught.value) == "CiliumNetworkPolicy shop/bad: spec: needs endpointSelector (write {} for every pod)"


@pytest.mark.parametrize(
    ("flow", "path"),
    [
        ({"from": {"pod": "a/b"}, "to": {"ip": "1.1.1.1"}, "port": 1}, "from.pod"),
        ({"from": {"ip": "1.1"}, "to": {"ip": "1.1.1.1"}, "port": 1}, "from.ip"),
        ({"from": {}, "to": {"ip": "1.1.1.1"}, "port": 1}, "from"),
        ({"from": {"entity": "moon"}, "to": {"ip": "1.1.1.1"}, "port": 1}, "from.entity"),
        ({"from": {"pod": "shop/web"}, "to": {"ip": "1.1.1.1"}}, "port"),
        ({"id": ["a"], "from": {"pod": "shop/web"}, "to": {"ip": "1.1.1.1"}, "port": 1}, "id"),
        ({"from": {"pod": "shop/web"}, "to": {"ip": "1.1.1.1"}, "protocol": "IP"}, "protocol"),
    ],
)
def test_flows_are_checked_too(flow: Any, path: str) -> None:
    """By the field."""
    with pytest.raises(PolicyInvalid) as caught:
        evaluate_manifests(CLUSTER, [flow])
    assert caught.value.path == path


def test_all_pairs_without_flows() -> None:
    """Every pod to every other one, on its container ports."""
    found = evaluate_manifests([*CLUSTER, cnp(into({"fromEndpoints": [pods(app="db")]}))])
    assert len(found) == 6
    assert {each["id"] for each in found if each["verdict"] == "denied"} == {"bank/web -> shop/web:80/TCP"}
