"""The walkthrough's section 4: requests to an Ingress, from this machine and from pods, by address and by node port."""

from __future__ import annotations

import base64
import datetime
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mycel.kit.certificates import KeyPair, make_authority, make_server
from tests.clusters import Cluster, eventually, settles
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
    cluster.wait("--for=condition=Ready", "pod", "--all")
    return cluster


def request(place: str, path: str) -> tuple[str, str]:
    """Status and body, asked by curl on this machine."""
    command = ["curl", "-s", "--max-time", "10", "-w", "\n%{http_code}", f"http://{place}{path}"]
    body, _, status = subprocess.run(command, capture_output=True, text=True, check=False).stdout.rpartition("\n")
    return status, body.strip()


def check(place: str) -> None:
    """Every path is answered as expected there. Each backend becomes known in its own time: for `settles`."""
    assert {path: request(place, path) for path in EXPECTED} == EXPECTED


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
        settles(lambda place=place: check(place))


def test_the_address(mesh: Cluster) -> None:
    """`foo`, `bar`, 404; the headers of the server and of the proxy before it."""
    mesh.kubectl("apply", "-f", "-", stdin=pool(mesh))
    eventually(lambda: external(mesh) != "<pending>", what="the address")
    place = external(mesh)
    settles(lambda: check(place))
    said = subprocess.run(
        ["curl", "-sI", "--max-time", "30", f"http://{place}/foo"], capture_output=True, text=True, check=False
    ).stdout
    headers = {
        name.lower(): value.strip() for name, _, value in (line.partition(":") for line in said.splitlines()[1:])
    }
    assert {name: headers.get(name) for name in ("server", "x-app-name", "x-app-version")} == {
        "server": "envoy", "x-app-name": "http-echo", "x-app-version": "0.2.3"
    }  # fmt: skip
    assert headers["x-envoy-upstream-service-time"].isdecimal()
    old = subprocess.run(["curl", "-0", "-s", f"http://{place}/foo"], capture_output=True, text=True, check=False)
    assert old.stdout.strip() == "foo", "HTTP/1.0"


def test_pods_reach_it_too(mesh: Cluster) -> None:
    """By its address and by the service's name."""
    for place in (external(mesh), SERVICE):
        ask = ("exec", "client", "--", "curl", "-s", "--max-time", "10", f"http://{place}/bar")
        eventually(lambda ask=ask: mesh.kubectl(*ask, check=False).stdout.strip() == "bar", what=f"bar at {place}")


def secret(name: str, pair: KeyPair) -> dict[str, Any]:
    """A Secret as `kubectl create secret tls` makes it."""
    data = {"tls.crt": pair.certificate, "tls.key": pair.key}
    metadata = {"name": name, "namespace": "default"}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "kubernetes.io/tls", "data": data}


def test_certificates_are_chosen_by_name(mesh: Cluster, tmp_path: Path) -> None:
    """One that is missing or broken costs its own name; it is told, and served when it comes."""
    now = datetime.datetime.now(datetime.UTC)
    authority = make_authority("test", now, days=1)
    (tmp_path / "ca.crt").write_bytes(base64.b64decode(authority.certificate))
    made = {name: make_server(authority, [f"{name}.example.com"], now, days=1) for name in ("a", "b")}
    names = {each: f"{each}.example.com" for each in ("a", "b", "c")}
    foo, bar = ({"service": {"name": f"{name}-app", "port": {"number": 5678}}} for name in ("foo", "bar"))
    only_a = {"paths": [{"path": "/", "pathType": "Prefix", "backend": bar}]}
    ingress = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": "secure", "namespace": "default"},
        "spec": {
            "ingressClassName": "cilium",
            "tls": [{"hosts": [host], "secretName": f"cert-{each}"} for each, host in names.items()],
            "defaultBackend": foo,
            "rules": [{"host": names["a"], "http": only_a}],
        },
    }
    junk = base64.b64encode(b"junk").decode()
    mesh.apply(secret("cert-a", made["a"]), secret("cert-c", KeyPair(junk, junk)), ingress)

    def address() -> str:
        found = mesh.get("ingress", "secure").get("status", {}).get("loadBalancer", {}).get("ingress") or [{}]
        return found[0].get("ip", "")

    def ask(each: str) -> str:
        resolve = ["--resolve", f"{names[each]}:443:{address()}", "--cacert", str(tmp_path / "ca.crt")]
        command = ["curl", "-s", "--max-time", "10", *resolve, f"https://{names[each]}/x"]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()

    def conditions() -> dict[str, str]:
        said = mesh.get("cec", "cilium-ingress-tls.default-secure").get("status", {}).get("conditions", [])
        return {each["type"]: each["message"] for each in said if each["status"] == "False"}

    eventually(address, what="the address")
    eventually(lambda: ask("a") == "bar", what="the host's own backend")
    assert (ask("b"), ask("c")) == ("", "")

    def told() -> None:
        said = conditions()
        assert said.get("ResolvedRefs") == "Secret default/cert-b is not there"
        assert "Secret default/cert-c: Failed to load certificate chain" in said.get("Programmed", "")

    settles(told)
    mesh.apply(secret("cert-b", made["b"]))
    eventually(lambda: ask("b") == "foo", what="the default backend, by the certificate that has come")
    assert ask("a") == "bar"
    mesh.kubectl("delete", "ingress", "secure")


def test_a_backend_without_pods_is_503_alone(mesh: Cluster) -> None:
    """The other path goes on."""
    mesh.kubectl("delete", "pod", "bar-app", "--wait=true")
    place = external(mesh)
    eventually(lambda: request(place, "/bar")[0] == "503", what="503")
    assert request(place, "/foo") == ("200", "foo")
    mesh.kubectl("apply", "-f", str(MANIFESTS / "foo-bar.yaml"))
    eventually(lambda: request(place, "/bar") == ("200", "bar"), what="bar again")
