"""CiliumEnvoyConfigs as a person types them: what is accepted, what is refused, and what the object says of it.

Typed with the newest kubectl; the manifest is the walkthrough's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import yaml

from tests.clusters import Cluster, eventually
from tests.conftest import TWO_NODES
from tests.e2e.walk import INSTALL, MANIFESTS, rows

pytestmark = pytest.mark.cluster

LISTENER = MANIFESTS / "envoy-lb-listener.yaml"
NAME = "envoy-lb-listener"


@pytest.fixture(scope="module")
def mesh(make_cluster: Callable[[str], Cluster]) -> Cluster:
    """Two nodes with the mesh and the walkthrough's pods."""
    cluster = make_cluster("envoy-configs")
    cluster.create(TWO_NODES)
    cluster.mycel(*INSTALL, "--wait")
    cluster.kubectl("apply", "-f", str(MANIFESTS / "cilium-test.yaml"))
    cluster.kubectl("-n", "cilium-test", "wait", "--for=condition=Available", "deploy/echo-same-node", timeout_s=70)
    return cluster


def conditions(cluster: Cluster, namespace: str, name: str = NAME) -> dict[str, tuple[str, str]]:
    """(status, message) by type, of the object as it is now."""
    item = cluster.get("-n", namespace, "cec", name)
    found: list[dict[str, Any]] = item.get("status", {}).get("conditions", [])
    current = [each for each in found if each["observedGeneration"] == item["metadata"]["generation"]]
    return {each["type"]: (each["status"], each["message"]) for each in current}


def apply(cluster: Cluster, *, namespace: str | None, **resource: Any) -> None:
    """The walkthrough's object, its listener with more fields; without a namespace kubectl chooses."""
    item = yaml.safe_load(LISTENER.read_text())
    if namespace is None:
        del item["metadata"]["namespace"]
    item["spec"]["resources"][0] |= resource
    cluster.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(item))


def test_every_node_says_how_it_stands(mesh: Cluster) -> None:
    """The walkthrough's object is accepted; `kubectl get` shows it."""
    mesh.kubectl("apply", "-f", str(LISTENER))
    eventually(lambda: conditions(mesh, "cilium-test"), what="the conditions")
    eventually(lambda: len(mesh.get("-n", "cilium-test", "cec", NAME)["status"].get("nodes", {})) == 2, what="nodes")
    assert conditions(mesh, "cilium-test")["Accepted"] == ("True", "valid")
    assert conditions(mesh, "cilium-test")["ResolvedRefs"] == ("True", "all it names is there")
    printed = mesh.kubectl("-n", "cilium-test", "get", "cec").stdout
    assert printed.split("\n", 1)[0].split() == ["NAME", "ACCEPTED", "RESOLVED", "PROGRAMMED", "AGE"]
    assert rows(printed)[0][:3] == [NAME, "True", "True"]


def test_a_cluster_without_endpoints_is_named(mesh: Cluster) -> None:
    """And no longer when there are some again."""
    mesh.kubectl("-n", "cilium-test", "scale", "deploy/echo-same-node", "--replicas=0")
    named = "no endpoints: cluster cilium-test/echo-"
    eventually(
        lambda: "cilium-test/echo-same-node" in conditions(mesh, "cilium-test")["Programmed"][1], what="the name"
    )
    assert named in conditions(mesh, "cilium-test")["Programmed"][1]
    mesh.kubectl("-n", "cilium-test", "scale", "deploy/echo-same-node", "--replicas=1")
    eventually(
        lambda: "cilium-test/echo-same-node" not in conditions(mesh, "cilium-test")["Programmed"][1], what="its pod"
    )


def test_services_of_another_namespace_are_not_used_and_told(mesh: Cluster) -> None:
    """Without a namespace it lands in `default`: accepted, with the hint."""
    apply(mesh, namespace=None)
    eventually(lambda: conditions(mesh, "default"), what="the conditions")
    found = conditions(mesh, "default")
    assert found["Accepted"][0] == "True"
    status, message = found["ResolvedRefs"]
    assert status == "False"
    assert "Service cilium-test/echo-same-node is in another namespace than this object (default)" in message
    assert "kubectl -n cilium-test" in message


def test_what_is_refused_says_the_field_and_is_mended(mesh: Cluster) -> None:
    """A listener with an address of its own; then without."""
    apply(mesh, namespace="cilium-test", address={"socket_address": {"address": "0.0.0.0", "port_value": 6443}})
    eventually(lambda: conditions(mesh, "cilium-test").get("Accepted", ("", ""))[0] == "False", what="the refusal")
    assert conditions(mesh, "cilium-test")["Accepted"][1].startswith("spec.resources[0].address: ")
    assert conditions(mesh, "cilium-test")["Programmed"][0] == "False"
    mesh.kubectl("apply", "-f", str(LISTENER))
    eventually(lambda: conditions(mesh, "cilium-test").get("Accepted", ("", ""))[0] == "True", what="the mending")
