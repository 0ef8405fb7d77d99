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


def meets_envoy(answer: str) -> bool:
    """Whether `curl -i` shows an answer that came through the listener."""
    return answer.startswith("HTTP/1.1 200") and "\nx-envoy-upstream-service-time:" in answer


def apply_listener(cluster: Cluster, name: str, port: int, *, selector: str) -> None:
    """A NodePort service, and the walkthrough's listener for it with the service's own endpoints behind."""
    config = yaml.safe_load(LISTENER.read_text())
    config["metadata"]["name"] = name
    config["spec"]["services"] = [{"name": name, "namespace": "cilium-test"}]
    listener, routes, dialled, _other = config["spec"]["resources"]
    route = routes["virtual_hosts"][0]["routes"][0]["route"]
    del route["weighted_clusters"]
    dialled["name"] = route["cluster"] = f"cilium-test/{name}"
    config["spec"]["resources"] = [listener, routes, dialled]
    spec = {"type": "NodePort", "selector": {"name": selector}, "ports": [{"port": 80, "targetPort": port}]}
    metadata = {"name": name, "namespace": "cilium-test"}
    cluster.apply({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}, config)
    eventually(lambda: conditions(cluster, "cilium-test", name).get("Programmed", ("", ""))[0] == "True", what=name)


def test_a_nodes_own_process_meets_the_listener(mesh: Cluster) -> None:
    """By the service's ClusterIP and, in the node's control group, by a NodePort of the node itself; on every node."""
    apply_listener(mesh, "for-nodes", 8080, selector="echo-same-node")
    spec = mesh.get("-n", "cilium-test", "svc", "for-nodes")["spec"]
    join = "echo $$ > /run/cilium/cgroupv2/cgroup.procs; "
    for node in mesh.nodes:
        for first, target in (
            ("", spec["clusterIP"]),
            (join, spec["clusterIP"]),
            (join, f"127.0.0.1:{spec['ports'][0]['nodePort']}"),
        ):
            curl = f"{first}exec curl -s -m 5 -i http://{target}/foo"
            answer = mesh.on_node(node, "sh", "-c", curl, check=False)
            assert meets_envoy(answer), (node, target, answer)
    mesh.kubectl("-n", "cilium-test", "delete", "cec,svc", "for-nodes", "--wait=false")


def test_a_listeners_endpoint_on_a_node_is_reached(mesh: Cluster) -> None:
    """A server in the network of a node, asked by a pod of that very node through its Envoy."""
    pods = {
        name: mesh.get("-n", "cilium-test", "pods", "-l", f"name={name}")["items"][0]
        for name in ("client", "echo-same-node")
    }
    container = {
        "name": "on-node",
        "image": pods["echo-same-node"]["spec"]["containers"][0]["image"],
        "env": [{"name": "PORT", "value": "8089"}],
        "readinessProbe": {"httpGet": {"path": "/", "port": 8089}, "periodSeconds": 1},
    }
    metadata = {"name": "on-node", "namespace": "cilium-test", "labels": {"name": "on-node"}}
    spec = {"hostNetwork": True, "nodeName": pods["client"]["spec"]["nodeName"], "containers": [container]}
    mesh.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    apply_listener(mesh, "on-node", 8089, selector="on-node")
    curl = ("exec", "-n", "cilium-test", pods["client"]["metadata"]["name"], "--", "curl", "-s", "-m", "5", "-i")
    answer = mesh.kubectl(*curl, "on-node/foo", check=False).stdout
    assert meets_envoy(answer), answer
    mesh.kubectl("-n", "cilium-test", "delete", "cec,svc,pod", "on-node", "--wait=false")


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
