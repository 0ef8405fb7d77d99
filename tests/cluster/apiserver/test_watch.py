"""Watches and lists over HTTP: revisions, bookmarks, 410, tables, anonymous requests, concurrent writers."""

from __future__ import annotations

import http.client
import json
import ssl
import threading
from collections.abc import Iterator

import pytest

from tests.cluster.apiserver.running import RunningServer, running

pytestmark = pytest.mark.cluster
MAPS = "/api/v1/namespaces/default/configmaps"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with running(tmp_path_factory.mktemp("watch")) as one:
        yield one


def _make(server: RunningServer, name: str, **labels: str) -> str:
    status, answer = server.call("POST", MAPS, {"metadata": {"name": name, "labels": labels}})
    assert status == 201, answer
    return answer["metadata"]["resourceVersion"]


def test_watch_from_a_list_misses_nothing(server: RunningServer) -> None:
    """List, change, watch from the list's revision: exactly the changes, in order, and a bookmark at the end."""
    _make(server, "w1", kind="w")
    _, listed = server.call("GET", f"{MAPS}?labelSelector=kind%3Dw")
    since = listed["metadata"]["resourceVersion"]
    _make(server, "w2", kind="w")
    server.call(
        "PATCH", f"{MAPS}/w1", {"metadata": {"labels": {"kind": None}}}, content_type="application/merge-patch+json"
    )
    server.call("DELETE", f"{MAPS}/w2")
    query = f"watch=1&labelSelector=kind%3Dw&resourceVersion={since}&timeoutSeconds=1&allowWatchBookmarks=true"
    seen = list(server.watch_lines(f"{MAPS}?{query}"))
    told = [(event["type"], event["object"]["metadata"].get("name")) for event in seen]
    assert told == [("ADDED", "w2"), ("DELETED", "w1"), ("DELETED", "w2"), ("BOOKMARK", None)]
    revisions = [int(event["object"]["metadata"]["resourceVersion"]) for event in seen]
    assert revisions == sorted(revisions)


def test_watch_without_a_revision_begins_with_what_is_there(server: RunningServer) -> None:
    """resourceVersion 0 and none: current objects as ADDED."""
    _make(server, "z1", kind="z")
    for version in ("", "&resourceVersion=0"):
        query = f"watch=true&timeoutSeconds=1&fieldSelector=metadata.name%3Dz1{version}"
        told = [(event["type"], event["object"]["metadata"]["name"]) for event in server.watch_lines(f"{MAPS}?{query}")]
        assert told == [("ADDED", "z1")]


def test_table_watch(server: RunningServer) -> None:
    """Each event is a Table of one row; the first has the columns."""
    connection = server.connect()
    try:
        accept = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"}
        connection.request("GET", "/api/v1/namespaces?watch=true&timeoutSeconds=1&resourceVersion=0", headers=accept)
        events = [json.loads(line)["object"] for line in connection.getresponse()]
    finally:
        connection.close()
    assert [column["name"] for column in events[0]["columnDefinitions"]] == ["Name", "Status", "Age"]
    assert all(event["kind"] == "Table" and len(event["rows"]) == 1 for event in events)
    assert {event["rows"][0]["cells"][0] for event in events} >= {"default", "kube-system"}
    assert events[0]["rows"][0]["object"]["kind"] == "PartialObjectMetadata"


def test_old_revisions_are_gone(server: RunningServer) -> None:
    """An ERROR event with 410, on which clients list again; a revision from the future is refused on lists."""
    first = int(_make(server, "old"))

    def write() -> None:
        connection = server.connect()
        for number in range(530):
            body = json.dumps({"data": {"n": f"{threading.get_ident()} {number}"}}).encode()
            connection.request("PATCH", f"{MAPS}/old", body, {"Content-Type": "application/merge-patch+json"})
            connection.getresponse().read()
        connection.close()

    threads = [threading.Thread(target=write) for _ in range(8)]  # together: they share commits
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    events = list(server.watch_lines(f"{MAPS}?watch=true&resourceVersion={first}&timeoutSeconds=5"))
    assert [event["type"] for event in events] == ["ERROR"]
    assert (events[0]["object"]["code"], events[0]["object"]["reason"]) == (410, "Expired")
    status, answer = server.call("GET", f"{MAPS}?resourceVersion=99999999")
    assert status == 504 and answer["details"]["retryAfterSeconds"] == 1


def test_writers_that_meet(server: RunningServer) -> None:
    """Eight writers PUT what they read: each success built upon the one before it."""
    _make(server, "counter")
    wins: list[int] = []

    def count() -> None:
        connection = server.connect()

        def ask(method: str, path: str, body: object = None) -> tuple[int, dict]:
            data = json.dumps(body).encode() if body else None
            connection.request(method, path, data, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())

        for _ in range(20):
            _, obj = ask("GET", f"{MAPS}/counter")
            number = int(obj.get("data", {}).get("n", "0"))
            status, answer = ask("PUT", f"{MAPS}/counter", {**obj, "data": {"n": str(number + 1)}})
            assert status in (200, 409), answer
            if status == 200:
                wins.append(number + 1)
        connection.close()

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    _, obj = server.call("GET", f"{MAPS}/counter")
    assert sorted(wins) == list(range(1, len(wins) + 1))
    assert obj["data"]["n"] == str(len(wins))


def test_strangers_see_health_only(server: RunningServer) -> None:
    """Without a certificate or token: /healthz and its like, /version, nothing else."""
    context = ssl.create_default_context(cafile=str(server.pki.ca_certificate))
    for path, wanted in (
        ("/healthz", 200),
        ("/readyz", 200),
        ("/livez", 200),
        ("/version", 200),
        ("/api", 401),
        (MAPS, 401),
    ):
        connection = http.client.HTTPSConnection("127.0.0.1", server.port, context=context, timeout=120)
        connection.request("GET", path)
        assert connection.getresponse().status == wanted, path
        connection.request("GET", MAPS, headers={"Authorization": "Bearer not.a.token"})
        connection.close()


def test_pods_leave_gracefully(server: RunningServer) -> None:
    """A pod on a node stays with a deletionTimestamp until its node deletes it with grace 0; others go at once."""
    pods = "/api/v1/namespaces/default/pods"
    for name, node in (("here", {"nodeName": "n"}), ("nowhere", {})):
        spec = {"containers": [{"name": "c", "image": "x"}], "terminationGracePeriodSeconds": 7, **node}
        assert server.call("POST", pods, {"metadata": {"name": name}, "spec": spec})[0] == 201
    status, answer = server.call("DELETE", f"{pods}/here")
    assert status == 200 and answer["metadata"]["deletionGracePeriodSeconds"] == 7
    assert server.call("GET", f"{pods}/here")[1]["metadata"]["deletionTimestamp"]
    assert server.call("DELETE", f"{pods}/here", {"gracePeriodSeconds": 0})[0] == 200
    assert server.call("GET", f"{pods}/here")[0] == 404
    assert server.call("DELETE", f"{pods}/nowhere")[0] == 200
    assert server.call("GET", f"{pods}/nowhere")[0] == 404


def test_binding_and_eviction(server: RunningServer) -> None:
    """The scheduler's POST sets the node once; eviction is a delete."""
    pods = "/api/v1/namespaces/default/pods"
    spec = {"containers": [{"name": "c", "image": "x"}]}
    server.call("POST", pods, {"metadata": {"name": "b"}, "spec": spec})
    binding = {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": "b"},
        "target": {"kind": "Node", "name": "n1"},
    }
    assert server.call("POST", f"{pods}/b/binding", binding)[0] == 201
    assert server.call("GET", f"{pods}/b")[1]["spec"]["nodeName"] == "n1"
    assert server.call("POST", f"{pods}/b/binding", binding)[0] == 409
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "b"}}
    assert server.call("POST", f"{pods}/b/eviction", eviction)[0] == 201
    assert "deletionTimestamp" in server.call("GET", f"{pods}/b")[1]["metadata"]


def test_propagation_sets_finalizers(server: RunningServer) -> None:
    """Foreground and Orphan leave the object to the garbage collector, with the finalizer it looks for."""
    for policy, finalizer in (("Foreground", "foregroundDeletion"), ("Orphan", "orphan")):
        name = policy.lower()
        _make(server, name)
        server.call("DELETE", f"{MAPS}/{name}", {"propagationPolicy": policy})
        _, obj = server.call("GET", f"{MAPS}/{name}")
        assert obj["metadata"]["finalizers"] == [finalizer] and obj["metadata"]["deletionTimestamp"]
    _make(server, "background")
    server.call("DELETE", f"{MAPS}/background", {"propagationPolicy": "Background"})
    assert server.call("GET", f"{MAPS}/background")[0] == 404


def test_methods_and_paths_that_are_none(server: RunningServer) -> None:
    """404, 405, 406, 415: each with a Status."""
    cases = (
        ("GET", "/api/v1/nothing", {}, 404),
        ("GET", "/apis/none.example.com/v1/things", {}, 404),
        ("PUT", "/api/v1/configmaps", {}, 405),
        ("POST", f"{MAPS}/some", {}, 405),
        ("DELETE", "/api/v1/configmaps", {}, 405),
        ("GET", MAPS, {"Accept": "text/html"}, 406),
        ("PATCH", f"{MAPS}/kube-root-ca.crt", {}, 415),
        ("GET", f"{MAPS}?limit=many", {}, 400),
        ("GET", f"{MAPS}?continue=%21", {}, 400),
        ("GET", f"{MAPS}?resourceVersion=x", {}, 400),
    )
    for method, path, headers, wanted in cases:
        status, answer = server.call(method, path, {} if method in ("PUT", "PATCH", "POST") else None, **headers)
        assert (status, answer["kind"]) == (wanted, "Status"), (method, path, answer)
