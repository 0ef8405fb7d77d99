"""Kubernetes' JSON → the mesh's nouns."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mycel.k8s import parse
from mycel.k8s.informer import Codec
from mycel.model.service import Protocol, ServicePort, SliceEndpoint
from mycel.model.workload import NamedPort


def decode(codec: Codec[Any], value: object) -> Any:
    return codec.decode(json.dumps(value).encode())


def test_pod() -> None:
    """Owner, ports by name, state; what is absent or null has its default."""
    pod = decode(
        parse.PODS_CODEC,
        {
            "metadata": {
                "name": "p",
                "namespace": "n",
                "labels": None,
                "ownerReferences": [
                    {"kind": "Other", "name": "x"},
                    {"kind": "ReplicaSet", "name": "web-5d", "controller": True},
                ],
                "deletionTimestamp": "2026-01-01T00:00:00Z",
            },
            "spec": {
                "nodeName": "n1",
                "hostNetwork": True,
                "containers": [{"ports": [{"containerPort": 80, "name": "http"}, {"containerPort": 81}]}, {}],
            },
            "status": {"phase": "Failed", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]},
        },
    )
    assert (str(pod.ref), pod.node, pod.owner) == ("n/p", "n1", ("ReplicaSet", "web-5d"))
    assert pod.named_ports == (NamedPort("http", 80, "TCP"),)
    assert (pod.labels, pod.addresses) == ({}, ("10.0.0.1", "fd00::1"))
    assert pod.host_network and pod.finished and pod.deleted


def test_services() -> None:
    """Headless and ExternalName services have no frontends; affinity has Kubernetes' default."""
    base: dict[str, Any] = {"metadata": {"name": "s", "namespace": "n"}}
    ports = [{"name": "dns", "protocol": "UDP", "port": 53, "nodePort": 30053}]
    made = decode(
        parse.SERVICES_CODEC,
        base
        | {
            "spec": {
                "clusterIP": "10.96.0.9",
                "clusterIPs": ["10.96.0.9", "fd00::9"],
                "ipFamilies": ["IPv4", "IPv6"],
                "ports": ports,
                "sessionAffinity": "ClientIP",
                "externalTrafficPolicy": "Local",
            },
            "status": {
                "loadBalancer": {
                    "ingress": [{"ip": "192.0.2.1"}, {"hostname": "x"}, {"ip": "192.0.2.2", "ipMode": "Proxy"}]
                }
            },
        },
    )
    assert made.cluster_addresses == ("10.96.0.9", "fd00::9")
    assert made.ports == (ServicePort("dns", Protocol.UDP, 53, 30053),)
    assert (made.ip_families, made.affinity_s, made.local_external) == ((4, 6), 10800, True)
    assert made.ingress_addresses == ("192.0.2.1",)
    for spec in ({"clusterIP": "None", "clusterIPs": ["None"]}, {"type": "ExternalName", "externalName": "x"}):
        assert decode(parse.SERVICES_CODEC, base | {"spec": spec}).cluster_addresses == ()


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ({}, (True, True, False)),
        ({"ready": None}, (True, True, False)),
        ({"ready": False, "serving": True, "terminating": True}, (False, True, True)),
        ({"ready": False}, (False, False, False)),
    ],
)
def test_conditions_of_a_target(conditions: dict[str, Any], expected: tuple[bool, bool, bool]) -> None:
    """Absent means ready; serving follows ready."""
    made = decode(
        parse.SLICES_CODEC,
        {
            "metadata": {"name": "s-1", "namespace": "n", "labels": {"kubernetes.io/service-name": "s"}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": ["10.0.0.1"], "conditions": conditions, "nodeName": "n1"}],
            "ports": [{"name": None, "port": 80}],
        },
    )
    assert str(made.ref) == "n/s"
    assert made.endpoints == (SliceEndpoint("10.0.0.1", "n1", *expected),)


def test_an_identity_needs_a_number() -> None:
    """Anything else is skipped by the informer."""
    with pytest.raises(ValueError, match="abc"):
        decode(parse.IDENTITIES_CODEC, {"metadata": {"name": "abc"}})
    made = decode(
        parse.IDENTITIES_CODEC, {"metadata": {"name": "300"}, "security-labels": {"k8s:b": "2", "k8s:a": "1"}}
    )
    assert (made.id, made.labels) == (300, ("k8s:a=1", "k8s:b=2"))


def test_endpoints_and_nodes_others_published() -> None:
    """Fields an older agent did not write are empty."""
    endpoint = decode(
        parse.ENDPOINTS_CODEC,
        {
            "metadata": {"name": "p", "namespace": "n"},
            "status": {
                "id": 5,
                "identity": {"id": 300, "labels": ["k8s:b=1", "k8s:a=1"]},
                "networking": {"addressing": [{"ipv4": "10.0.0.1", "ipv6": "fd00::1"}], "node": "172.18.0.2"},
            },
        },
    )
    assert (endpoint.identity, endpoint.labels, endpoint.addresses, endpoint.node_address) == (
        300,
        ("k8s:a=1", "k8s:b=1"),
        ("10.0.0.1", "fd00::1"),
        "172.18.0.2",
    )
    empty = decode(parse.ENDPOINTS_CODEC, {"metadata": {"name": "p", "namespace": "n"}})
    assert (empty.identity, empty.addresses) == (0, ())
    node = decode(
        parse.PUBLISHED_NODES_CODEC,
        {
            "metadata": {"name": "n1"},
            "spec": {
                "addresses": [
                    {"type": "InternalIP", "ip": "172.18.0.2"},
                    {"type": "CiliumInternalIP", "ip": "10.244.0.1"},
                ],
                "ipam": {"podCIDRs": ["10.244.0.0/24"]},
            },
        },
    )
    assert (node.internal_addresses, node.router_addresses, node.pod_networks) == (
        ("172.18.0.2",),
        ("10.244.0.1",),
        ("10.244.0.0/24",),
    )
