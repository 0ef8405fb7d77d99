"""Ingresses as a person types them: the walkthrough's section 4, and what becomes of mistakes.

Typed with the newest kubectl. The manifests are the walkthrough's, the pool's addresses of this cluster's network.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.clusters import Cluster, eventually, kind_file
from tests.e2e.walk import MANIFESTS, pool, rows

pytestmark = pytest.mark.cluster

SERVICE = "cilium-ingress-cilium-ingress"


@pytest.fixture(scope="module")
def mesh(make_cluster: Callable[[str], Cluster]) -> Cluster:
    """Two nodes with the mesh and the walkthrough's two servers."""
    cluster = make_cluster("ingress-e2e")
    cluster.create(kind_file(workers=1))
    cluster.mycel("install", "--wait")
    cluster.kubectl("apply", "-f", str(MANIFESTS / "foo-bar.yaml"))
    cluster.wait("--for=condition=Ready", "pod", "--all")
    return cluster


def shown(cluster: Cluster, kind: str, name: str) -> list[str]:
    """Its row of `kubectl get`; empty while it is not there."""
    return next((row for row in rows(cluster.kubectl("get", kind).stdout) if row and row[0] == name), [])


def events(cluster: Cluster, reason: str) -> list[str]:
    """Messages of events about the Ingress."""
    found = cluster.get("events", "--field-selector", f"involvedObject.kind=Ingress,reason={reason}")["items"]
    return [each["message"] for each in found]


def change(cluster: Cluster, *options: str) -> None:
    """`kubectl annotate` of the Ingress."""
    cluster.kubectl("annotate", "ingress", "cilium-ingress", *options)


def config(cluster: Cluster) -> dict[str, Any]:
    """The spec of the Ingress's CiliumEnvoyConfig."""
    return cluster.get("cec", "cilium-ingress-default-cilium-ingress")["spec"]


def test_without_a_pool_there_is_a_node_port(mesh: Cluster) -> None:
    """A service, no external address, nothing in the Ingress's own status."""
    mesh.kubectl("apply", "-f", str(MANIFESTS / "cilium-ingress.yaml"))
    eventually(lambda: shown(mesh, "svc", SERVICE), what="the service")
    name, kind, _, external, ports, _ = shown(mesh, "svc", SERVICE)
    assert (name, kind, external) == (SERVICE, "LoadBalancer", "<pending>")
    assert ports.startswith("80:3") and ports.endswith("/TCP")
    assert mesh.get("ingress", "cilium-ingress")["status"]["loadBalancer"] == {}


def test_with_a_pool_there_is_an_address(mesh: Cluster) -> None:
    """The same in the service and in the Ingress: class, hosts, address, port."""
    mesh.kubectl("apply", "-f", "-", stdin=pool(mesh))
    eventually(lambda: shown(mesh, "svc", SERVICE)[3] != "<pending>", what="the address")
    external = shown(mesh, "svc", SERVICE)[3]
    eventually(lambda: shown(mesh, "ing", "cilium-ingress")[3] == external, what="the address in the Ingress")
    assert shown(mesh, "ing", "cilium-ingress")[:5] == ["cilium-ingress", "cilium", "*", external, "80"]
    assert external.endswith(".255.200")


def test_what_others_change_is_changed_back(mesh: Cluster) -> None:
    """The config deleted, the service's port changed; what the API server added stays."""
    before = mesh.get("svc", SERVICE)["spec"]
    mesh.kubectl("delete", "cec", "cilium-ingress-default-cilium-ingress")
    mesh.kubectl("patch", "svc", SERVICE, "--type=json", "-p", json.dumps(
        [{"op": "replace", "path": "/spec/externalTrafficPolicy", "value": "Local"}]))  # fmt: skip
    eventually(lambda: shown(mesh, "cec", "cilium-ingress-default-cilium-ingress"), what="the config")
    eventually(lambda: mesh.get("svc", SERVICE)["spec"] == before, what="the service as it was")


def test_a_backend_that_goes_costs_its_own_path(mesh: Cluster) -> None:
    """An event says so; it is back when the service is."""
    whole = config(mesh)
    mesh.kubectl("delete", "svc", "bar-app")
    eventually(lambda: events(mesh, "BackendNotFound"), what="the event")
    assert events(mesh, "BackendNotFound") == ["service default/bar-app is not there: its paths answer 503"]
    eventually(lambda: [each["name"] for each in config(mesh)["backendServices"]] == ["foo-app"], what="foo alone")
    mesh.kubectl("apply", "-f", str(MANIFESTS / "foo-bar.yaml"))
    eventually(lambda: config(mesh) == whole, what="the config as it was")


def test_annotations(mesh: Cluster) -> None:
    """An address and a node port asked for, taken back; what cannot be followed is told and changes nothing."""
    service = mesh.get("svc", SERVICE)
    change(mesh, "ingress.cilium.io/insecure-node-port=31234")
    eventually(lambda: mesh.get("svc", SERVICE)["spec"]["ports"][0]["nodePort"] == 31234, what="the node port")
    change(mesh, "ingress.cilium.io/insecure-node-port-", "ingress.cilium.io/service-type=ClusterIP")
    eventually(lambda: events(mesh, "AnnotationNotFollowed"), what="the event")
    assert mesh.get("svc", SERVICE)["spec"]["type"] == "LoadBalancer"
    change(mesh, "ingress.cilium.io/service-type-", "lbipam.cilium.io/ips=192.0.2.1")
    eventually(lambda: shown(mesh, "svc", SERVICE)[3] == "<pending>", what="an address no pool has")
    change(mesh, "lbipam.cilium.io/ips-")
    eventually(lambda: shown(mesh, "svc", SERVICE)[3].endswith(".255.200"), what="the pool's address")
    assert mesh.get("svc", SERVICE)["metadata"]["uid"] == service["metadata"]["uid"]


def test_shared_load_balancers_are_refused(mesh: Cluster) -> None:
    """Nothing is left of it, an event says why."""
    change(mesh, "ingress.cilium.io/loadbalancer-mode=shared")
    eventually(lambda: not shown(mesh, "svc", SERVICE), what="no service")
    eventually(lambda: events(mesh, "ModeNotSupported"), what="the event")
    assert len(events(mesh, "ModeNotSupported")) == 1
    eventually(lambda: not shown(mesh, "ing", "cilium-ingress")[3].count("."), what="no address")
    change(mesh, "ingress.cilium.io/loadbalancer-mode-")
    eventually(lambda: shown(mesh, "svc", SERVICE), what="the service")


def test_services_that_are_somebody_elses_are_left_alone(mesh: Cluster) -> None:
    """A name that is taken is not taken over, and an event says so; nor is what other controllers make of Ingresses."""
    mesh.kubectl("create", "service", "clusterip", "cilium-ingress-mine", "--tcp=80")
    before = mesh.get("svc", "cilium-ingress-mine")
    mesh.kubectl("create", "ingress", "mine", "--class=cilium", "--rule=a.example.com/=foo-app:5678")
    eventually(lambda: events(mesh, "NameTaken"), what="the event")
    assert not shown(mesh, "cec", "cilium-ingress-default-mine")
    assert mesh.get("svc", "cilium-ingress-mine") == before
    uid = mesh.get("ingress", "mine")["metadata"]["uid"]
    reference = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "name": "mine",
        "uid": uid,
        "controller": True,
    }
    owned = {"metadata": {"ownerReferences": [reference]}}
    mesh.kubectl("create", "service", "clusterip", "made-by-others", "--tcp=80")
    mesh.kubectl("patch", "svc", "made-by-others", "--type=merge", "-p", json.dumps(owned))
    mesh.kubectl("delete", "svc", "cilium-ingress-mine")
    eventually(lambda: shown(mesh, "cec", "cilium-ingress-default-mine"), what="its config, now that the name is free")
    assert shown(mesh, "svc", "made-by-others")
    mesh.kubectl("delete", "ingress", "mine")
    eventually(lambda: not shown(mesh, "svc", "cilium-ingress-mine"), what="no service")
    mesh.kubectl("delete", "svc", "made-by-others", check=False)


def test_everything_goes_with_the_ingress(mesh: Cluster) -> None:
    """Service, config, the address in the status when its class is another's, who may write it then; an Ingress of
    another class never had any.
    """
    mesh.kubectl("create", "ingress", "theirs", "--class=nginx", "--rule=a.example.com/=foo-app:5678")
    name = "cilium-ingress"
    eventually(lambda: shown(mesh, "ing", name)[3].endswith(".255.200"), what="the address")
    mesh.kubectl("patch", "ingress", name, "-p", json.dumps({"spec": {"ingressClassName": "nginx"}}))
    eventually(lambda: mesh.get("ingress", name)["status"]["loadBalancer"] == {}, what="no address")
    theirs = json.dumps({"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.7"}]}}})
    mesh.kubectl("patch", "ingress", name, "--subresource=status", "--type=merge", "-p", theirs)
    eventually(lambda: not shown(mesh, "svc", SERVICE), what="no service")
    assert shown(mesh, "ing", name)[3] == "192.0.2.7"
    mesh.kubectl("patch", "ingress", name, "-p", json.dumps({"spec": {"ingressClassName": "cilium"}}))
    eventually(lambda: shown(mesh, "svc", SERVICE), what="the service")
    mesh.kubectl("delete", "ingress", "cilium-ingress")
    eventually(lambda: not shown(mesh, "svc", SERVICE), what="no service")
    eventually(lambda: not mesh.get("cec")["items"], what="no config")
    names = {"kubernetes", "foo-app", "bar-app"}
    eventually(lambda: {each["metadata"]["name"] for each in mesh.get("svc")["items"]} == names, what="nothing of any")
