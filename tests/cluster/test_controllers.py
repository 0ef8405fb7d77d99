"""Controllers and scheduler against a real API server process; nodes are objects that say they are ready."""

from __future__ import annotations

import collections
import datetime
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster.apiserver.running import RunningServer
from tests.clusters import eventually

pytestmark = pytest.mark.cluster

PODS = "/api/v1/namespaces/{0}/pods"
MERGE = "application/merge-patch+json"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """An API server with its controllers, and three ready nodes."""
    one = RunningServer(tmp_path_factory.mktemp("controllers"), arguments=())
    one.start()
    for name in ("n1", "n2", "n3"):
        make(one, "/api/v1/nodes", {"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}}})
        # Heard of in advance: nobody renews it.
        later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)
        now = later.strftime("%Y-%m-%dT%H:%M:%SZ")
        room = {"cpu": "8", "memory": "16Gi", "pods": "110"}
        ready = {"type": "Ready", "status": "True", "lastHeartbeatTime": now, "lastTransitionTime": now}
        patch(one, f"/api/v1/nodes/{name}/status", {"status": {"allocatable": room, "conditions": [ready]}})
    yield one
    one.end()


def make(server: RunningServer, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """POST."""
    status, answer = server.call("POST", path, body)
    assert status == 201, answer
    return answer


def patch(server: RunningServer, path: str, body: dict[str, Any]) -> None:
    """Merge patch."""
    status, answer = server.call("PATCH", path, body, content_type=MERGE)
    assert status == 200, answer


def items(server: RunningServer, path: str) -> list[dict[str, Any]]:
    """A collection's objects."""
    status, answer = server.call("GET", path)
    assert status == 200, answer
    return answer["items"]


def exists(server: RunningServer, path: str) -> bool:
    """Whether the object is there."""
    return server.call("GET", path)[0] == 200


def space(server: RunningServer, name: str) -> str:
    """A new namespace with what controllers put into it."""
    make(server, "/api/v1/namespaces", {"metadata": {"name": name}})
    eventually(lambda: exists(server, f"/api/v1/namespaces/{name}/serviceaccounts/default"), what="the account")
    return name


def deployment(name: str, replicas: int) -> dict[str, Any]:
    """A Deployment whose pods only have to be placed."""
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "pause"}]}}
    return {
        "metadata": {"name": name},
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template},
    }


def end_pods(server: RunningServer, namespace: str) -> bool:
    """What nodes do: terminating pods end. True when none is left."""
    pods = items(server, PODS.format(namespace))
    for pod in pods:
        if pod["metadata"].get("deletionTimestamp"):
            path = f"{PODS.format(namespace)}/{pod['metadata']['name']}"
            server.call("DELETE", path, {"gracePeriodSeconds": 0})
    return not pods


def test_a_burst_of_pods_is_placed_evenly(server: RunningServer) -> None:
    """90 pods of one Deployment: 30 on each node; every node has a share of the pod network of its own."""
    where = space(server, "burst")
    make(server, f"/apis/apps/v1/namespaces/{where}/deployments", deployment("web", 90))

    def placed() -> bool:
        pods = items(server, PODS.format(where))
        return len(pods) == 90 and all(pod["spec"].get("nodeName") for pod in pods)

    eventually(placed, what="90 pods placed")
    spread = collections.Counter(pod["spec"]["nodeName"] for pod in items(server, PODS.format(where)))
    assert spread == {"n1": 30, "n2": 30, "n3": 30}
    shares = {node["spec"]["podCIDR"] for node in items(server, "/api/v1/nodes")}
    assert shares == {"10.244.0.0/24", "10.244.1.0/24", "10.244.2.0/24"}


def test_a_pod_that_fits_nowhere_says_so_and_goes_once_it_fits(server: RunningServer) -> None:
    """Condition and Event with the familiar sentence; a label on a node is enough to place it."""
    where = space(server, "picky")
    body = {
        "metadata": {"name": "p"},
        "spec": {"nodeSelector": {"disk": "fast"}, "containers": [{"name": "c", "image": "pause"}]},
    }
    make(server, PODS.format(where), body)
    path = f"{PODS.format(where)}/p"

    def message() -> str:
        conditions = server.call("GET", path)[1].get("status", {}).get("conditions") or []
        return next((one["message"] for one in conditions if one["type"] == "PodScheduled"), "")

    said = "0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector."
    eventually(lambda: message() == said, what=said)
    patch(server, "/api/v1/nodes/n2", {"metadata": {"labels": {"disk": "fast"}}})
    eventually(lambda: server.call("GET", path)[1]["spec"].get("nodeName") == "n2", what="the pod on n2")

    def told() -> list[tuple[str, str]]:
        found = items(server, f"/api/v1/namespaces/{where}/events")
        return sorted((one["reason"], one["source"]["component"]) for one in found)

    expected = [("FailedScheduling", "default-scheduler"), ("Scheduled", "default-scheduler")]
    eventually(lambda: told() == expected, what="both events")


@pytest.mark.parametrize("policy", ["Background", "Foreground", "Orphan"])
def test_deleting_a_deployment(server: RunningServer, policy: str) -> None:
    """Dependents go after it, before it, or not at all."""
    where = space(server, f"cascade-{policy.lower()}")
    base = f"/apis/apps/v1/namespaces/{where}"
    make(server, f"{base}/deployments", deployment("web", 2))
    eventually(lambda: len(items(server, PODS.format(where))) == 2, what="two pods")
    server.call("DELETE", f"{base}/deployments/web", {"propagationPolicy": policy})
    if policy == "Foreground":
        leaving = [pod["metadata"].get("deletionTimestamp") for pod in items(server, PODS.format(where))]
        assert len(leaving) == 2
        assert exists(server, f"{base}/deployments/web")
    if policy != "Orphan":
        eventually(lambda: end_pods(server, where), what="no pods")
    eventually(lambda: not exists(server, f"{base}/deployments/web"), what="the Deployment gone")
    sets = items(server, f"{base}/replicasets")
    if policy == "Orphan":
        assert [one["metadata"].get("ownerReferences") for one in sets] == [None]
        assert len(items(server, PODS.format(where))) == 2
    else:
        eventually(lambda: not items(server, f"{base}/replicasets"), what="no ReplicaSets")


CRD = {
    "metadata": {"name": "boxes.test.example"},
    "spec": {
        "group": "test.example",
        "names": {"plural": "boxes", "singular": "box", "kind": "Box", "listKind": "BoxList"},
        "scope": "Namespaced",
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
            }
        ],
    },
}


def test_custom_owners_and_namespaces(server: RunningServer) -> None:
    """What a custom object owns goes with it; a namespace goes with all that is in it, custom objects too."""
    make(server, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", CRD)
    where = space(server, "custom")
    boxes = f"/apis/test.example/v1/namespaces/{where}/boxes"
    eventually(lambda: exists(server, boxes), what="the new kind")
    maps = f"/api/v1/namespaces/{where}/configmaps"
    head = {"apiVersion": "test.example/v1", "kind": "Box"}
    for name in ("a", "b"):
        box = make(server, boxes, {**head, "metadata": {"name": name}})
        owner = {**head, "name": name, "uid": box["metadata"]["uid"]}
        make(server, maps, {"metadata": {"name": f"of-{name}", "ownerReferences": [owner]}})
    stray = {**head, "name": "a", "uid": "00000000-0000-0000-0000-000000000000"}
    make(server, maps, {"metadata": {"name": "stray", "ownerReferences": [stray]}})
    eventually(lambda: not exists(server, f"{maps}/stray"), what="an owner of another uid is none")
    server.call("DELETE", f"{boxes}/a")
    eventually(lambda: not exists(server, f"{maps}/of-a"), what="the map of box a gone")
    assert exists(server, f"{maps}/of-b")
    make(server, f"/apis/apps/v1/namespaces/{where}/deployments", deployment("web", 1))
    eventually(lambda: items(server, PODS.format(where)), what="a pod")
    server.call("DELETE", f"/api/v1/namespaces/{where}")
    assert server.call("POST", maps, {"metadata": {"name": "late"}})[0] == 403

    def gone() -> bool:
        end_pods(server, where)
        return not exists(server, f"/api/v1/namespaces/{where}")

    eventually(gone, what="the namespace gone")
    assert server.call("GET", f"{boxes}/b")[0] == 404


def test_what_every_namespace_has_comes_back(server: RunningServer) -> None:
    """The default account and the CA's map are made again when somebody deletes them."""
    where = space(server, "basics")
    bundle = f"/api/v1/namespaces/{where}/configmaps/kube-root-ca.crt"
    eventually(lambda: exists(server, bundle), what="the CA")
    before = server.call("GET", bundle)[1]
    assert before["data"]["ca.crt"] == server.pki.ca_certificate.read_text()
    server.call("DELETE", bundle)
    server.call("DELETE", f"/api/v1/namespaces/{where}/serviceaccounts/default")

    def back() -> bool:
        status, found = server.call("GET", bundle)
        fresh = status == 200 and found["metadata"]["uid"] != before["metadata"]["uid"]
        return fresh and exists(server, f"/api/v1/namespaces/{where}/serviceaccounts/default")

    eventually(back, what="both back")
