"""CiliumEnvoyConfigs as a person types them: what is accepted, what is refused, and what the object says of it.
Policies are refused in the same way.

Typed with the newest kubectl; the manifest is the walkthrough's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import yaml

from tests.clusters import Cluster, eventually, kind_file, settles
from tests.e2e.walk import INSTALL, MANIFESTS, rows

pytestmark = pytest.mark.cluster

LISTENER = MANIFESTS / "envoy-lb-listener.yaml"
NAME = "envoy-lb-listener"


@pytest.fixture(scope="module")
def mesh(make_cluster: Callable[[str], Cluster]) -> Cluster:
    """Two nodes with the mesh and the walkthrough's pods."""
    cluster = make_cluster("envoy-configs")
    cluster.create(kind_file(workers=1))
    cluster.mycel(*INSTALL, "--wait")
    cluster.kubectl("apply", "-f", str(MANIFESTS / "cilium-test.yaml"))
    cluster.wait("-n", "cilium-test", "--for=condition=Available", "deploy/echo-same-node")
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
    resolved = ("True", "all it names is there")  # once the agent that says so knows of it
    eventually(lambda: conditions(mesh, "cilium-test")["ResolvedRefs"] == resolved, what="what it names")
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
    targets = (
        ("", spec["clusterIP"]),
        (join, spec["clusterIP"]),
        (join, f"127.0.0.1:{spec['ports'][0]['nodePort']}"),
    )

    def check(node: str, first: str, target: str) -> None:
        curl = f"{first}exec curl -s -m 10 -i http://{target}/foo"
        answer = mesh.on_node(node, "sh", "-c", curl, check=False)
        assert meets_envoy(answer), (node, target, answer)

    try:
        for node in mesh.nodes:
            for target in targets:  # Envoy has the listener; its endpoints and the service's row follow
                settles(lambda node=node, target=target: check(node, *target))
    finally:
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
    mesh.wait("-n", "cilium-test", "--for=condition=Ready", "pod/on-node")
    curl = ("exec", "-n", "cilium-test", pods["client"]["metadata"]["name"], "--", "curl", "-s", "-m", "10", "-i")

    def check() -> None:
        answer = mesh.kubectl(*curl, "on-node/foo", check=False).stdout
        assert meets_envoy(answer), answer

    try:
        settles(check)
    finally:
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
    eventually(lambda: conditions(mesh, "default").get("ResolvedRefs", ("", ""))[0] == "False", what="the hint")
    found = conditions(mesh, "default")
    assert found["Accepted"][0] == "True"
    message = found["ResolvedRefs"][1]
    assert "Service cilium-test/echo-same-node is in another namespace than this object (default)" in message
    assert "kubectl -n cilium-test" in message


def broken(kind: str, spec: dict[str, Any], name: str = "broken") -> dict[str, Any]:
    metadata = {"name": name, "namespace": "cilium-test"}
    return {"apiVersion": "cilium.io/v2", "kind": kind, "metadata": metadata, "spec": spec}


def listener(**fields: Any) -> dict[str, Any]:
    """The spec of a CiliumEnvoyConfig."""
    return {"resources": [{"@type": "type.googleapis.com/envoy.config.listener.v3.Listener", "name": "a"} | fields]}


def http_rule(**rule: str) -> dict[str, Any]:
    """The spec of a policy about nobody."""
    ports = {"ports": [{"port": "80", "protocol": "TCP"}], "rules": {"http": [rule]}}
    return {"endpointSelector": {"matchLabels": {"no": "body"}}, "egress": [{"toPorts": [ports]}]}


LUA = {"@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua"}
REGEX = {"match": {"safe_regex": {"regex": "/" + "[a-z]{400}" * 5}}, "direct_response": {"status": 200}}
ROUTES = {"@type": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration", "name": "r"}
HOSTS = [{"name": "h", "domains": ["*"], "routes": [REGEX]}]
REFUSED = [
    ("CiliumNetworkPolicy", http_rule(path="("), "spec.egress[0].toPorts[0].rules.http[0].path: is not a regular"),
    ("CiliumNetworkPolicy", http_rule(path="[a-z]{999}" * 3), "rules.http[0].path: is a program of"),
    ("CiliumEnvoyConfig", listener(**{"@type": "type.googleapis.com/envoy.Any"}), "spec.resources[0].@type: is"),
    (
        "CiliumEnvoyConfig",
        listener(colour="red"),
        'spec.resources[0]: Listener: Message type "envoy.config.listener.v3',
    ),
    ("CiliumEnvoyConfig", listener(filter_chains=[{"filters": [{"name": "l", "typed_config": LUA}]}]), "Lua"),
    ("CiliumEnvoyConfig", {"resources": [ROUTES | {"virtual_hosts": HOSTS}]}, "safe_regex.regex: is a program of"),
]


def refusal(cluster: Cluster, item: dict[str, Any], *beside: dict[str, Any]) -> str:
    """What kubectl says; nothing when it applies. What is beside it is applied."""
    items = {"apiVersion": "v1", "kind": "List", "items": [item, *beside]}
    return cluster.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(items), check=False).stderr


def judged(cluster: Cluster) -> None:
    """Until an operator answers the API server."""
    kind, spec, words = REFUSED[0]
    tried = yaml.safe_dump(broken(kind, spec, "tried"))

    def refused() -> bool:
        return words in cluster.kubectl("create", "--dry-run=server", "-f", "-", stdin=tried, check=False).stderr

    eventually(refused, what="an answer of the operator")


def test_what_cannot_be_used_is_refused_with_its_field_and_what_is_beside_it_applied(mesh: Cluster) -> None:
    """By the operator, as the admission webhook it tells the API server about."""
    judged(mesh)
    for number, (kind, spec, words) in enumerate(REFUSED):
        good = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"good-{number}"}}
        said = refusal(mesh, broken(kind, spec), good)
        assert f'The {kind} "broken" is invalid: spec' in said
        assert words in said
        mesh.kubectl("get", "configmap", f"good-{number}")
    found = mesh.get("-n", "cilium-test", "cnp,cec")["items"]
    assert "broken" not in [each["metadata"]["name"] for each in found]


def test_a_secret_that_is_not_there_is_no_reason_to_refuse(mesh: Cluster) -> None:
    """It may come: the object says that it is missing."""
    secret = {"name": "nosuch", "sds_config": {}}
    tls = {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "common_tls_context": {"tls_certificate_sds_secret_configs": [secret]},
    }
    proxy = {"@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy", "cluster": "c"}
    chain = {
        "transport_socket": {"name": "tls", "typed_config": tls},
        "filters": [{"name": "tcp", "typed_config": proxy | {"stat_prefix": "t"}}],
    }
    spec = listener(filter_chains=[chain])
    spec["resources"].append({"@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster", "name": "c"})
    spec["resources"][1] |= {"type": "EDS", "eds_cluster_config": {"service_name": "cilium-test/echo-same-node"}}
    assert refusal(mesh, broken("CiliumEnvoyConfig", spec, "secretive")) == ""

    def told() -> None:
        status, message = conditions(mesh, "cilium-test", "secretive").get("ResolvedRefs", ("", ""))
        assert (status, "cilium-test/nosuch" in message) == ("False", True)

    settles(told)


def test_without_an_operator_nothing_is_refused_and_the_status_says_what_is_wrong(mesh: Cluster) -> None:
    """And when it is back, what was stored broken can still be labelled, and mended."""
    operator = ("-n", "kube-system", "scale", "deploy/cilium-operator")
    mesh.kubectl(*operator, "--replicas=0")
    pods = ("pods", "-n", "kube-system", "-l", "io.cilium/app=operator")
    eventually(lambda: not mesh.get(*pods)["items"], what="no operator")
    policy = broken("CiliumNetworkPolicy", http_rule(path="("))
    announcing = broken("CiliumL2AnnouncementPolicy", {"loadBalancerIPs": True, "interfaces": ["("]})
    assert refusal(mesh, policy, announcing | {"apiVersion": "cilium.io/v2alpha1"}) == ""
    apply(mesh, namespace="cilium-test", address={"socket_address": {"address": "0.0.0.0", "port_value": 6443}})
    eventually(lambda: conditions(mesh, "cilium-test").get("Accepted", ("", ""))[0] == "False", what="the refusal")
    assert conditions(mesh, "cilium-test")["Accepted"][1].startswith("spec.resources[0].address: ")
    assert conditions(mesh, "cilium-test")["Programmed"][0] == "False"
    valid = ("-n", "cilium-test", "get", "cnp", "broken")
    eventually(lambda: rows(mesh.kubectl(*valid).stdout)[0][2] == "False", what="VALID False")
    mesh.kubectl(*operator, "--replicas=1")
    judged(mesh)
    kind = "ciliuml2announcementpolicies"
    eventually(lambda: mesh.get(kind, "broken").get("status"), what="the operator's word")
    (condition,) = mesh.get(kind, "broken")["status"]["conditions"]
    assert (condition["type"], condition["status"]) == ("Valid", "False")
    assert condition["message"].startswith("spec.interfaces[0]: is not a regular expression")
    mesh.kubectl("-n", "cilium-test", "label", "cnp", "broken", "a=b")
    mesh.kubectl("-n", "cilium-test", "label", "cec", NAME, "a=b")
    policy["spec"]["egress"].append({})
    assert "rules.http[0].path" in refusal(mesh, policy)
    assert refusal(mesh, broken("CiliumNetworkPolicy", http_rule(path="/"))) == ""
    mesh.kubectl("apply", "-f", str(LISTENER))
    eventually(lambda: conditions(mesh, "cilium-test").get("Accepted", ("", ""))[0] == "True", what="the mending")
    mesh.kubectl("-n", "cilium-test", "delete", "cnp", "broken")
