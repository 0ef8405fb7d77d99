"""The first day with the mesh, typed with a real kubectl: a cluster without a network, the mesh, pods that talk, flows.

One cluster for the whole file; the steps build on each other, in the order of the file. Each step is typed once with
every kubectl of this machine (new and old ones differ in discovery, validation and streaming).
"""

from __future__ import annotations

import ipaddress
import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.clusters import PATIENCE_S, Cluster, eventually, settles
from tests.e2e.walk import ECHOES, MANIFESTS, ORIGINALS, TEST_SPACE, Follower, Walk, lines_of, rows
from tests.kubectls import kubectls

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def walk(make_cluster: Callable[[str], Cluster]) -> Walk:
    """The walk; its cluster has the default name, in folders of its own."""
    return Walk(make_cluster("kind"))


@pytest.fixture(params=sorted(kubectls()) or ["none"])
def typed(walk: Walk, request: pytest.FixtureRequest) -> Iterator[Walk]:
    """The walk, typed with one kubectl after the other."""
    with walk.typed_with(request.param):
        yield walk


def test_manifests_are_the_walkthroughs() -> None:
    """Ours are those of the walkthrough, byte for byte, where it is at hand."""
    if not ORIGINALS.is_dir():
        pytest.skip("the walkthrough's own folder is not beside this checkout")
    for path in MANIFESTS.glob("*.yaml"):
        assert path.read_bytes() == (ORIGINALS / path.name).read_bytes(), path.name


def test_a_cluster_with_no_network(typed: Walk) -> None:
    """Four nodes with addresses of one network and roles, none of them ready; the context is current; a hint."""
    printed = typed.create()
    assert "mycel install" in printed
    assert typed.cluster.kubectl("config", "current-context").stdout.strip() == "mycel-kind"
    if "install" in typed.printed:
        return
    table = typed.cluster.kubectl("get", "nodes", "-o", "wide").stdout
    assert table.splitlines()[0].split()[:6] == ["NAME", "STATUS", "ROLES", "AGE", "VERSION", "INTERNAL-IP"]
    found = rows(table)
    assert [(row[0], row[1], row[2]) for row in found] == [
        ("kind-control-plane", "NotReady", "control-plane"),
        ("kind-worker", "NotReady", "<none>"),
        ("kind-worker2", "NotReady", "<none>"),
        ("kind-worker3", "NotReady", "<none>"),
    ]
    networks = {ipaddress.ip_network(f"{row[5]}/16", strict=False) for row in found}
    assert len(networks) == 1
    assert len({row[5] for row in found}) == 4


def test_a_cluster_without_the_mesh_is_not_healthy(walk: Walk) -> None:
    """`mycel status` says what is missing, with a code that scripts notice."""
    walk.create()
    if "install" not in walk.printed:
        assert walk.cluster.mycel("status", check=False).returncode == 1


def test_install_tells_what_it_finds_and_makes(walk: Walk) -> None:
    """Found, created, done; the nodes turn Ready."""
    printed = walk.install()
    for expected in ("mycel-kind", "kube-proxy", "DaemonSet cilium created", "Deployment cilium-operator created"):
        assert expected in printed
    assert "installed" in printed


def test_nodes_are_ready(typed: Walk) -> None:
    """All four, after --wait, at once."""
    typed.install()
    table = typed.cluster.kubectl("get", "nodes").stdout
    assert [row[1] for row in rows(table)] == ["Ready"] * 4


def test_status_is_healthy(walk: Walk) -> None:
    """Agents, operator, what is not there yet, pods managed, images; exit code 0."""
    walk.install()
    shown = walk.cluster.mycel("status", "--wait").stdout
    for pattern in (
        r"Agent:\s+OK 4/4",
        r"Operator:\s+OK 1/1",
        r"Envoy:\s+OK 4/4",
        r"Hubble Relay:\s+disabled",
        r"ClusterMesh:\s+disabled",
        r"Cluster Pods:\s+2/2 managed",
        r"quay.io/cilium/cilium:v1\.\S+: 4",
        r"quay.io/cilium/operator-generic:v1\.\S+: 1",
    ):
        assert re.search(pattern, shown), f"{pattern} is not in:\n{shown}"
    assert walk.cluster.mycel("status").returncode == 0


def test_the_meshs_kinds_have_short_names(typed: Walk) -> None:
    """`kubectl api-resources | grep cilium`."""
    typed.install()
    listed = typed.cluster.kubectl("api-resources").stdout
    mine = {
        short: line.split()[0]
        for line in listed.splitlines()
        if "cilium.io" in line
        for short in line.split()[1].split(",")
    }
    expected = {
        "ccnp": "ciliumclusterwidenetworkpolicies",
        "cnp": "ciliumnetworkpolicies",
        "cep": "ciliumendpoints",
        "cec": "ciliumenvoyconfigs",
        "ccec": "ciliumclusterwideenvoyconfigs",
        "cew": "ciliumexternalworkloads",
        "cn": "ciliumnodes",
        "ciliumid": "ciliumidentities",
    }
    assert {short: mine.get(short) for short in expected} == expected, listed


def test_the_systems_pods_run(typed: Walk) -> None:
    """An agent on every node, the operator, two coredns pods, all Running and complete."""
    typed.install()

    def running() -> bool:
        found = rows(typed.cluster.kubectl("-n", "kube-system", "get", "pods", "-o", "wide").stdout)
        return all(len(set(row[1].split("/"))) == 1 and row[2] == "Running" for row in found)

    eventually(running, what="every pod of kube-system Running")
    table = rows(typed.cluster.kubectl("-n", "kube-system", "get", "pods", "-o", "wide").stdout)
    names = [row[0] for row in table]
    assert sum(bool(re.fullmatch(r"cilium-[a-z0-9]{5}", name)) for name in names) == 4
    assert sum(name.startswith("cilium-operator-") for name in names) == 1
    assert sum(name.startswith("coredns-") for name in names) == 2
    nodes = {row[6] for row in table if re.fullmatch(r"cilium-[a-z0-9]{5}", row[0])}
    assert len(nodes) == 4


def test_the_test_pods_come_up_where_they_belong(typed: Walk) -> None:
    """client, client2 and echo-same-node on one node, echo-other-node on another; all Ready."""
    typed.install()
    typed.cluster.kubectl("apply", "-f", str(MANIFESTS / "cilium-test.yaml"))
    for name in ("client", "client2", *ECHOES):
        rollout = typed.cluster.kubectl(
            "-n", TEST_SPACE, "rollout", "status", f"deployment/{name}", f"--timeout={PATIENCE_S}s"
        )
        assert f'deployment "{name}" successfully rolled out' in rollout.stdout
    pods = typed.cluster.get("pods", "-n", TEST_SPACE)["items"]
    where = {pod["metadata"]["labels"]["name"]: pod["spec"]["nodeName"] for pod in pods}
    assert len(pods) == 4
    assert where["client"] == where["client2"] == where["echo-same-node"] != where["echo-other-node"]


def test_get_all_and_labels(typed: Walk) -> None:
    """Deployments, ReplicaSets, pods and NodePort services; labels with the template's hash."""
    shown = typed.cluster.kubectl("-n", TEST_SPACE, "get", "all").stdout
    for pattern in (
        r"pod/client2-[a-z0-9]+-[a-z0-9]{5}\s+1/1\s+Running\s+0",
        r"service/echo-same-node\s+NodePort\s+10\.96\.\d+\.\d+\s+<none>\s+8080:3\d{4}/TCP",
        r"deployment\.apps/echo-other-node\s+1/1\s+1\s+1",
        r"replicaset\.apps/client-[a-z0-9]+\s+1\s+1\s+1",
    ):
        assert re.search(pattern, shown), f"{pattern} is not in:\n{shown}"
    labelled = typed.cluster.kubectl("-n", TEST_SPACE, "get", "pods", "--show-labels", "-o", "wide").stdout
    for line in labelled.splitlines()[1:]:
        assert re.search(r"10\.244\.\d+\.\d+\s+kind-\S+\s.*kind=\w+,name=[\w-]+,.*pod-template-hash=[a-z0-9]+", line)


@pytest.mark.parametrize("target", ECHOES)
def test_pods_talk_by_service_name(typed: Walk, target: str) -> None:
    """A verbose curl shows 200 with Express' header; `/foo` is the server's own 404."""
    in_client = ("exec", "-n", TEST_SPACE, typed.pod("client2"), "--")
    shown: list[str] = []

    def answered() -> bool:  # its name and its endpoints are known on the client's node in their own time
        done = typed.cluster.kubectl(*in_client, "curl", "-v", "-m", "10", f"{target}:8080/", check=False)
        shown.append(done.stderr)
        return done.returncode == 0

    eventually(answered, what=f"an answer of {target}")
    assert re.search(r"< HTTP/1\.1 200 OK", shown[-1])
    assert re.search(r"< X-Powered-By: Express", shown[-1])
    missing = typed.cluster.kubectl(
        *in_client, "curl", "-s", "-m", "30", "-o", "/dev/null", "-w", "%{http_code}", f"{target}:8080/foo"
    )
    assert missing.stdout == "404"


def test_flows_show_the_conversation(walk: Walk, follow: Callable[..., Follower]) -> None:
    """DNS to coredns, then TCP from SYN to FIN: at the endpoint on the same node, on the overlay to the other."""
    client = walk.pod("client2")
    follower = follow("--from-pod", f"{TEST_SPACE}/{client}")
    source = f"{TEST_SPACE}/{client}"
    expected = [lines_of(source, r"kube-system/coredns-\S+:53") + r"to-(endpoint|overlay) FORWARDED \(UDP\)$"]
    for deployment, point in (("echo-same-node", "endpoint"), ("echo-other-node", "overlay")):
        line = lines_of(source, rf"{TEST_SPACE}/{walk.pod(deployment)}:8080")
        flags = ("SYN", "ACK", "ACK, PSH", "ACK, FIN")
        expected += [rf"{line}to-{point} FORWARDED \(TCP Flags: {flag}\)$" for flag in flags]

    def talk() -> bool:
        for target in ECHOES:
            walk.cluster.kubectl(
                "exec", "-n", TEST_SPACE, client, "--", "curl", "-sS", "-m", "30", "-o", "/dev/null", f"{target}:8080/"
            )
        return all(follower.saw(pattern) for pattern in expected)

    eventually(talk, what="all lines of the conversation")


def test_node_ports_answer_on_every_node(walk: Walk) -> None:
    """Both services, every node, from the machine and from a pod."""
    client = walk.pod("client2")
    services = {one["metadata"]["name"]: one for one in walk.cluster.get("services", "-n", TEST_SPACE)["items"]}
    urls = [
        f"http://{address}:{services[name]['spec']['ports'][0]['nodePort']}/"
        for name in ECHOES
        for address in walk.node_addresses()
    ]
    assert len(urls) == 8
    curl = ["curl", "-s", "-m", "10", "-o", "/dev/null", "-w", "%{http_code}\\n"]

    def check() -> None:
        outside = subprocess.run([*curl, *_each(urls)], capture_output=True, text=True, check=False)
        inside = walk.cluster.kubectl("exec", "-n", TEST_SPACE, client, "--", *curl, *_each(urls), check=False)
        assert outside.stdout.split() == ["200"] * 8
        assert inside.stdout.split() == ["200"] * 8

    settles(check)  # every node learns of the services by itself


def _each(urls: list[str]) -> list[str]:
    """curl's arguments for several addresses, every body thrown away."""
    first, *others = urls
    return [first, *(word for url in others for word in ("-o", "/dev/null", url))]


def test_deleting_the_cluster_leaves_nothing(walk: Walk) -> None:
    """No interface, mount, process, namespace or file of it is left."""
    walk.create()
    folder = str(walk.cluster.folder)
    record = json.loads((walk.cluster.state / "cluster.json").read_text())
    walk.cluster.mycel("cluster", "delete")
    links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
    assert record["bridge"] not in links
    assert folder not in Path("/proc/self/mounts").read_text()
    mine = [
        path.parent.name
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if folder.encode() in _content(path) and path.parent.name != "self"
    ]
    assert mine == []
    assert not walk.cluster.state.exists()
    assert not (walk.cluster.folder / "run" / "kind").exists()
    contexts = walk.cluster.kubectl("config", "get-contexts", "-o", "name").stdout
    assert "mycel-kind" not in contexts


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
