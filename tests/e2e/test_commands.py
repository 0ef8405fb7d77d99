"""The mesh's own verbs on a cluster of two nodes: install again, configure, look inside, take away.

The tests build on each other, in the order of the file; one cluster serves them all.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from mycel.cli.mesh import release
from tests.clusters import Cluster, eventually, kind_file, settles

pytestmark = pytest.mark.cluster

RELEASES = ("secrets", "-n", "kube-system", "-l", "owner=helm,name=cilium")


@pytest.fixture(scope="module")
def cluster(make_cluster: Callable[[str], Cluster]) -> Cluster:
    """Two nodes and nothing on them."""
    made = make_cluster("verbs")
    made.create(kind_file(workers=1))
    return made


def read(cluster: Cluster, *arguments: str) -> Any:
    """What a verb prints with `-o json`."""
    return json.loads(cluster.mycel(*arguments, "-o", "json").stdout)


def releases(cluster: Cluster) -> dict[str, str]:
    """Revision → status of Helm's records."""
    labels = [item["metadata"]["labels"] for item in cluster.get(*RELEASES)["items"]]
    return {label["version"]: label["status"] for label in labels}


def test_dry_run_makes_nothing(cluster: Cluster) -> None:
    """It prints what would be made, without a private key."""
    printed = cluster.mycel("install", "--dry-run").stdout
    assert "kind: DaemonSet" in printed
    assert "name: ciliumnetworkpolicies.cilium.io" in printed
    assert "ca.key" not in printed
    assert cluster.get("daemonsets", "-n", "kube-system")["items"] == []
    assert cluster.get("crds")["items"] == []


def test_installing_twice_changes_nothing(cluster: Cluster) -> None:
    """The second run says so, and makes no new revision."""
    cluster.mycel("install", "--wait", "--config", "enable-envoy-config=true")
    before = {
        pod["metadata"]["uid"] for pod in cluster.get("pods", "-n", "kube-system", "-l", "k8s-app=cilium")["items"]
    }
    again = cluster.mycel("install", "--wait")
    after = {
        pod["metadata"]["uid"] for pod in cluster.get("pods", "-n", "kube-system", "-l", "k8s-app=cilium")["items"]
    }
    assert "nothing had to change" in again.stdout
    assert before == after
    assert releases(cluster) == {"1": "deployed"}
    assert read(cluster, "config", "view")["enable-envoy-config"] == "true"


def test_status_for_programs(cluster: Cluster) -> None:
    """JSON says the same as the rows."""
    found = read(cluster, "status")
    assert found["healthy"] is True
    assert found["problems"] == []
    assert found["components"]["cilium"] | {"images": {}} == {
        "state": "OK",
        "desired": 2,
        "ready": 2,
        "available": 2,
        "pods": {"Running": 2},
        "images": {},
        "errors": [],
        "warnings": [],
    }
    assert found["nodes"] == {"total": 2, "ready": 2}


def test_lists_agree_with_the_kernel(cluster: Cluster) -> None:
    """Every pod, identity and frontend is realized on every node just as planned."""
    settles(lambda: lists_agree(cluster))


def lists_agree(cluster: Cluster) -> None:
    pods = {
        pod["status"]["podIP"]
        for pod in cluster.get("pods", "-A")["items"]
        if not pod["spec"].get("hostNetwork") and pod["status"]["phase"] == "Running"
    }
    endpoints = read(cluster, "endpoint", "list")
    assert {row["ipv4"] for row in endpoints if row["identity"] != 1} == pods
    assert all(row["realized"]["identity"] == row["identity"] for row in endpoints)
    nodes = sorted(node["metadata"]["name"] for node in cluster.get("nodes")["items"])
    identities = read(cluster, "identity", "list")
    assert [row["pods"] for row in identities] == [2]
    assert identities[0]["nodes"] == nodes
    services = {row["frontend"]: row for row in read(cluster, "service", "list")}
    assert "10.96.0.10:53/UDP" in services
    assert services["10.96.0.10:53/UDP"]["nodes"] == dict.fromkeys(nodes, "same")
    assert {backend.partition(":")[0] for backend in services["10.96.0.10:53/UDP"]["backends"]} == pods
    for table in ("endpoint", "ipcache", "lb", "nodes"):
        assert read(cluster, "bpf", table, "list", "--diff") == []
    assert any(row["key"]["reason"] == "forwarded" for row in read(cluster, "bpf", "metrics", "list"))


def test_a_host_port_answers_on_its_node_alone(cluster: Cluster) -> None:
    """To pods of either node and to who comes from outside; on the other node nothing is there."""
    there, other = (node["status"]["addresses"][0]["address"] for node in cluster.get("nodes")["items"])
    here = cluster.get("nodes")["items"][0]["metadata"]["name"]
    port = {"containerPort": 8080, "hostPort": 8089}
    image, setting = "quay.io/cilium/json-mock:v1.3.8", [{"name": "PORT", "value": "8080"}]
    served = {"name": "c", "image": image, "env": setting, "ports": [port]}
    dialling = {"name": "c", "image": "curlimages/curl", "command": ["sleep", "600"]}
    pods = {"host-port": (here, served)} | {
        f"client-{node}": (node, dialling) for node in cluster.nodes
    }  # one client on each node
    cluster.apply(
        *(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": name, "namespace": "default"},
                "spec": {"nodeName": node, "terminationGracePeriodSeconds": 0, "containers": [container]},
            }
            for name, (node, container) in pods.items()
        )
    )
    try:
        cluster.wait("--for=condition=Ready", *(f"pod/{name}" for name in pods))
        dial = ["curl", "-sS", "-m", "10", "-o", "/dev/null"]

        def from_pod(node: str, address: str) -> int:
            return cluster.kubectl("exec", f"client-{node}", "--", *dial, f"{address}:8089", check=False).returncode

        for node in cluster.nodes:
            eventually(lambda node=node: from_pod(node, there) == 0, what=f"an answer for {node}")
            assert from_pod(node, other) == 7
        eventually(
            lambda: subprocess.run([*dial, f"{there}:8089"], check=False).returncode == 0, what="an answer for outside"
        )
    finally:
        cluster.kubectl("delete", "pods", "--now", *pods)


def test_a_setting_changes_and_the_mesh_recovers(cluster: Cluster) -> None:
    """Agents start anew with it; taking it away restores the default."""
    hooks = ("get", "validatingwebhookconfigurations", "-o", "name")
    eventually(lambda: "/cilium-admission" in cluster.kubectl(*hooks).stdout, what="admission")
    cluster.mycel("config", "set", "enable-admission", "false")
    eventually(lambda: cluster.kubectl(*hooks).stdout == "", what="no admission")
    assert "debug is now true" in cluster.mycel("config", "set", "debug", "true").stdout
    cluster.mycel("status", "--wait", "--wait-duration", "5m")
    assert read(cluster, "config", "view")["debug"] == "true"
    cluster.mycel("config", "delete", "debug", "--no-restart")
    assert "debug" not in read(cluster, "config", "view")
    refused = cluster.mycel("config", "delete", "debug", check=False)
    assert (refused.returncode, "there is no setting debug" in refused.stderr) == (1, True)


def test_upgrade_keeps_what_was_asked_before(cluster: Cluster) -> None:
    """A new revision on top of the old one; agents are restarted for their settings; old ones are kept by name."""
    cluster.mycel("install", "--wait", "--set", "bpf.monitorAggregation=none")
    config = read(cluster, "config", "view")
    assert (config["monitor-aggregation"], config["enable-envoy-config"]) == ("none", "true")
    assert releases(cluster) == {"1": "superseded", "2": "deployed"}
    assert cluster.mycel("status").returncode == 0


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"endpointSelector": {}, "egress": [{"toEntities": ["wrold"]}]}, "spec.egress[0].toEntities[0]"),
        ({"endpointSelector": {}, "egress": [{"toCIDR": ["300.0.0.0/8"]}]}, "spec.egress[0].toCIDR[0]"),
        (
            {"endpointSelector": {}, "ingress": [{"toPorts": [{"ports": [{"port": "70000"}]}]}]},
            "spec.ingress[0].toPorts[0].ports[0].port",
        ),
        ({"endpointSelector": {}, "nodeSelector": {}, "egress": []}, "spec"),
        ({"endpointSelector": {}}, "spec"),
        ({"endpointSelector": {"matchLabels": 1}, "egress": []}, "spec.endpointSelector.matchLabels"),
        (
            {"endpointSelector": {}, "ingressDeny": [{"toPorts": [{"rules": {}}]}]},
            "spec.ingressDeny[0].toPorts[0].rules",
        ),
    ],
)
def test_malformed_policies_are_refused_with_their_field(cluster: Cluster, spec: dict[str, Any], says: str) -> None:
    """The definitions name the place."""
    policy = {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": "bad", "namespace": "default"},
        "spec": spec,
    }
    refused = cluster.kubectl("create", "-f", "-", stdin=json.dumps(policy), check=False)
    assert refused.returncode == 1
    assert says in refused.stderr


def test_uninstall_takes_everything_away(cluster: Cluster) -> None:
    """No object of the mesh stays but the definitions; nodes say that they have no network."""
    cluster.mycel("uninstall", "--wait")
    kinds = "daemonsets,deployments,configmaps,secrets,serviceaccounts,roles,rolebindings,leases"
    left = [item["metadata"]["name"] for item in cluster.get(kinds, "-n", "kube-system")["items"]]
    assert [name for name in left if "cilium" in name or "hubble" in name] == []
    assert cluster.get("validatingwebhookconfigurations")["items"] == []
    for kind in ("ciliumendpoints", "ciliumnodes", "ciliumidentities"):
        assert cluster.get(kind, "-A")["items"] == []
    assert len(cluster.get("crds")["items"]) == 14

    def not_ready() -> bool:
        conditions = [entry for node in cluster.get("nodes")["items"] for entry in node["status"]["conditions"]]
        return [entry["status"] for entry in conditions if entry["type"] == "Ready"] == ["False", "False"]

    eventually(not_ready, what="nodes without a network")
    for node in cluster.nodes:
        links = json.loads(cluster.on_node(node, "ip", "-j", "link"))
        assert [link["ifname"] for link in links if link["ifname"].startswith("cilium")] == []
        # A pod's own device goes with its pod; until then it is down, as no program watches it any more.
        assert [link["ifname"] for link in links if link["ifname"].startswith("lxc") and "UP" in link["flags"]] == []
        assert cluster.on_node(node, "ip", "route", "show", "table", "all", "proto", "77") == ""
        assert cluster.on_node(node, "ls", "/etc/cni/net.d", "/sys/fs/bpf").split() == [
            "/etc/cni/net.d:", "/sys/fs/bpf:", "maps.debug", "progs.debug"
        ]  # fmt: skip
    gone = cluster.mycel("uninstall", check=False)
    assert (gone.returncode, "is not installed" in gone.stderr) == (1, True)


def test_pods_work_again_after_the_next_install(cluster: Cluster) -> None:
    """The pods that were cut off are adopted where they are: the same ones answer names again."""
    before = {
        pod["metadata"]["uid"] for pod in cluster.get("pods", "-n", "kube-system", "-l", "k8s-app=kube-dns")["items"]
    }
    cluster.mycel("install", "--wait", "--wait-duration", "5m")
    pods = cluster.get("pods", "-n", "kube-system", "-l", "k8s-app=kube-dns")["items"]
    assert {pod["metadata"]["uid"] for pod in pods} == before
    for node in cluster.nodes:
        cluster.on_node(node, "dig", "+short", "+tries=3", "@10.96.0.10", "kubernetes.default.svc.cluster.local")


def test_what_the_operator_made_goes_with_the_chart(cluster: Cluster) -> None:
    """Somebody else than `mycel uninstall` deletes what the chart made, as Helm does: nothing of admission stays."""
    made = ("validatingwebhookconfigurations,secrets", "-n", "kube-system", "-o", "name")

    def left() -> set[str]:
        names = {line.rpartition("/")[2] for line in cluster.kubectl("get", *made).stdout.splitlines()}
        return names & {"cilium-admission", "cilium-admission-certs"}

    eventually(lambda: len(left()) == 2, what="admission")
    record = release.newest(cluster.get(*RELEASES)["items"])
    assert record is not None
    cluster.kubectl("delete", "--wait=false", "-f", "-", stdin=record.manifest)
    operator = ("pods", "-n", "kube-system", "-l", "io.cilium/app=operator")
    eventually(lambda: not cluster.get(*operator)["items"], what="no operator")
    eventually(lambda: not left(), what="nothing of admission")
