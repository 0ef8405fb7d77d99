"""The walkthrough's section 4: requests to an Ingress, from this machine and from pods, by address and by node port."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest

from tests.clusters import Cluster, eventually
from tests.e2e.walk import INSTALL, MANIFESTS, pool, rows

pytestmark = pytest.mark.cluster

SERVICE = "cilium-ingress-cilium-ingress"
EXPECTED = {
    "/foo": ("200", "foo"),
    "/bar": ("200", "bar"),
    "/foo/x?y=/bar": ("200", "foo"),
    "/": ("404", ""),
    "/foobar": ("404", ""),
}


@pytest.fixture(scope="module")
def mesh(make_cluster: Callable[[str], Cluster]) -> Cluster:
    """The walkthrough's four nodes, servers and Ingress; no pool yet."""
    cluster = make_cluster("ingress-traffic")
    cluster.create((MANIFESTS / "kind-config.yaml").read_text())
    cluster.mycel(*INSTALL, "--wait")
    for name in ("foo-bar.yaml", "cilium-ingress.yaml"):
        cluster.kubectl("apply", "-f", str(MANIFESTS / name))
    cluster.kubectl("run", "client", "--image=quay.io/cilium/alpine-curl:v1.4.0", "--command", "--", "sleep", "1000000")
    cluster.kubectl("wait", "--for=condition=Ready", "pod", "--all", "--timeout=60s", timeout_s=70)
    return cluster


def request(place: str, path: str) -> tuple[str, str]:
    """Status and body, asked by curl on this machine."""
    command = ["curl", "-s", "--max-time", "3", "-w", "\n%{http_code}", f"http://{place}{path}"]
    body, _, status = subprocess.run(command, capture_output=True, text=True, check=False).stdout.rpartition("\n")
    return status, body.strip()


def external(cluster: Cluster) -> str:
    """The EXTERNAL-IP of the Ingress's service."""
    found = {row[0]: row[3] for row in rows(cluster.kubectl("get", "svc").stdout)}
    return found.get(SERVICE, "<pending>")


def test_node_ports_need_no_pool(mesh: Cluster) -> None:
    """On every node, whether or not a server is there."""
    eventually(lambda: mesh.kubectl("get", "svc", SERVICE, check=False).stdout, what="the service")
    assert external(mesh) == "<pending>"
    port = mesh.get("svc", SERVICE)["spec"]["ports"][0]["nodePort"]
    for node in mesh.get("nodes")["items"]:
        place = f"{node['status']['addresses'][0]['address']}:{port}"
        eventually(lambda place=place: request(place, "/foo") == ("200", "foo"), what=f"an answer at {place}")
        assert {path: request(place, path) for path in EXPECTED} == EXPECTED


def test_the_address(mesh: Cluster) -> None:
    """`foo`, `bar`, 404; the headers of the server and of the proxy before it."""
    mesh.kubectl("apply", "-f", "-", stdin=pool(mesh))
    eventually(lambda: external(mesh) != "<pending>", what="the address")
    place = external(mesh)
    eventually(lambda: request(place, "/foo") == ("200", "foo"), what="an answer")
    assert {path: request(place, path) for path in EXPECTED} == EXPECTED
    said = subprocess.run(
        ["curl", "-sI", "--max-time", "3", f"http://{place}/foo"], capture_output=True, text=True, check=False
    ).stdout
    headers = {
        name.lower(): value.strip() for name, _, value in (line.partition(":") for line in said.splitlines()[1:])
    }
    assert {name: headers.get(name) for name in ("server", "x-app-name", "x-app-version")} == {
        "server": "envoy", "x-app-name": "http-echo", "x-app-version": "0.2.3"
    }  # fmt: skip
    assert headers["x-envoy-upstream-service-time"].isdecimal()


def test_pods_reach_it_too(mesh: Cluster) -> None:
    """By its address and by the service's name."""
    for place in (external(mesh), SERVICE):
        said = mesh.kubectl("exec", "client", "--", "curl", "-s", "--max-time", "3", f"http://{place}/bar", check=False)
        assert said.stdout.strip() == "bar", place


def test_a_backend_without_pods_is_503_alone(mesh: Cluster) -> None:
    """The other path goes on."""
    mesh.kubectl("delete", "pod", "bar-app", "--wait=true")
    place = external(mesh)
    eventually(lambda: request(place, "/bar")[0] == "503", what="503")
    assert request(place, "/foo") == ("200", "foo")
    mesh.kubectl("apply", "-f", str(MANIFESTS / "foo-bar.yaml"))
    eventually(lambda: request(place, "/bar") == ("200", "bar"), what="bar again")
