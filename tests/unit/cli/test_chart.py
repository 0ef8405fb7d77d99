"""The chart itself: its objects have the names and shapes that clients of a Cilium cluster look for."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from mycel.agent.settings import parse_settings
from mycel.cli.chart.load import Chart, Release, load_chart
from mycel.cli.chart.values import ValuesError
from mycel.flow.redact import Redaction
from mycel.kit.deploy import chart_dir

Object = dict[str, Any]
RELEASE = Release("cilium", "kube-system")


@pytest.fixture(scope="module")
def chart() -> Chart:
    return load_chart(chart_dir())


def render(chart: Chart, **over: Any) -> dict[tuple[str, str], Object]:
    objects = chart.render(chart.values(over), RELEASE).objects
    return {(item["kind"], item["metadata"]["name"]): item for item in objects}


def test_objects_clients_look_for(chart: Chart) -> None:
    pair = {"cert": "eA==", "key": "eA=="}
    made = render(chart, tls={"ca": pair}, hubble={"tls": {"server": pair}})
    assert set(made) == {
        ("Namespace", "cilium-secrets"),
        ("IngressClass", "cilium"),
        ("Service", "cilium-admission"),
        ("ServiceAccount", "cilium"),
        ("ServiceAccount", "cilium-operator"),
        ("ServiceAccount", "cilium-envoy"),
        ("ConfigMap", "cilium-envoy-config"),
        ("DaemonSet", "cilium-envoy"),
        ("Secret", "cilium-ca"),
        ("Secret", "hubble-server-certs"),
        ("ConfigMap", "cilium-config"),
        ("ClusterRole", "cilium"),
        ("ClusterRole", "cilium-operator"),
        ("ClusterRoleBinding", "cilium"),
        ("ClusterRoleBinding", "cilium-operator"),
        ("Role", "cilium-agent-leases"),
        ("Role", "cilium-config-agent"),
        ("Role", "cilium-operator"),
        ("RoleBinding", "cilium-agent-leases"),
        ("RoleBinding", "cilium-config-agent"),
        ("RoleBinding", "cilium-operator"),
        ("DaemonSet", "cilium"),
        ("Deployment", "cilium-operator"),
    }


def test_objects_come_in_the_order_they_are_needed(chart: Chart) -> None:
    kinds = [item["kind"] for item in chart.render(chart.values({}), RELEASE).objects]
    assert kinds.index("Namespace") < kinds.index("ServiceAccount") < kinds.index("ClusterRole")
    assert kinds.index("ConfigMap") < kinds.index("DaemonSet") < kinds.index("Deployment")


def test_agent(chart: Chart) -> None:
    made = render(chart, k8sServiceHost="172.18.0.1", k8sServicePort="6444")[("DaemonSet", "cilium")]
    template = made["spec"]["template"]
    assert template["metadata"]["labels"].items() >= {
        ("k8s-app", "cilium"),
        ("app.kubernetes.io/part-of", "cilium"),
        ("app.kubernetes.io/name", "cilium-agent"),
    }
    pod = template["spec"]
    container = pod["containers"][0]
    assert (pod["hostNetwork"], container["name"]) == (True, "cilium-agent")
    assert pod["tolerations"] == [{"operator": "Exists"}]
    environment = {item["name"]: item.get("value") for item in container["env"]}
    assert environment["KUBERNETES_SERVICE_HOST"] == "172.18.0.1"
    assert environment["KUBERNETES_SERVICE_PORT"] == "6444"
    mounts = {item["mountPath"]: item for item in container["volumeMounts"]}
    assert mounts["/sys/fs/bpf"]["mountPropagation"] == "Bidirectional"
    assert {item["name"] for item in container["volumeMounts"]} == {item["name"] for item in pod["volumes"]}


@pytest.mark.parametrize(
    ("bpf", "cgroup", "expected"),
    [
        (True, True, ["mount-cgroup", "mount-bpf-fs"]),
        (True, False, ["mount-bpf-fs"]),
        (False, False, None),
    ],
)
def test_init_containers_mount_what_nodes_lack(
    chart: Chart, bpf: bool, cgroup: bool, expected: list[str] | None
) -> None:
    made = render(chart, bpf={"autoMount": {"enabled": bpf}}, cgroup={"autoMount": {"enabled": cgroup}})
    pod = made[("DaemonSet", "cilium")]["spec"]["template"]["spec"]
    names = [item["name"] for item in pod["initContainers"]] if "initContainers" in pod else None
    assert names == expected
    assert pod.get("hostPID", False) == (expected is not None)


@pytest.mark.parametrize(
    ("envoy", "dns", "expected"),
    [
        (True, True, ["cilium-envoy", "dns-proxy"]),
        (True, False, ["cilium-envoy"]),
        (False, True, ["dns-proxy"]),
        (False, False, None),
    ],
)
def test_each_proxy_may_be_alone(chart: Chart, envoy: bool, dns: bool, expected: list[str] | None) -> None:
    made = render(chart, envoy={"enabled": envoy}, dnsProxy={"enabled": dns})
    found = made.get(("DaemonSet", "cilium-envoy"))
    pod = found["spec"]["template"]["spec"] if found else {}
    assert [each["name"] for each in pod["containers"]] == expected if found else expected is None
    assert (("ServiceAccount", "cilium-envoy") in made) == bool(expected)
    assert (("ConfigMap", "cilium-envoy-config") in made) == envoy
    mounted = {mount["name"] for each in pod.get("containers", ()) for mount in each["volumeMounts"]}
    assert mounted <= {each["name"] for each in pod.get("volumes", ())}
    data = made[("ConfigMap", "cilium-config")]["data"]
    assert (data["enable-l7-proxy"], data["enable-dns-proxy"]) == (str(envoy).lower(), str(dns).lower())


def test_extra_config_wins(chart: Chart) -> None:
    made = render(chart, extraConfig={"enable-envoy-config": "true", "new-key": "x"})
    data = made[("ConfigMap", "cilium-config")]["data"]
    assert (data["enable-envoy-config"], data["new-key"], data["tunnel-protocol"]) == ("true", "x", "vxlan")
    assert all(isinstance(value, str) for value in data.values())


def test_what_flows_hide_is_what_the_agent_reads(chart: Chart) -> None:
    """Lists become one value each."""
    hide: Object = {"enabled": True, "http": {"urlQuery": True, "headers": {"allow": ["X-Team", "x-run"]}}}
    data = render(chart, hubble={"redact": hide})[("ConfigMap", "cilium-config")]["data"]
    found = parse_settings(data, {"K8S_NODE_NAME": "n1"}).redaction
    assert found == Redaction(enabled=True, url_query=True, allow=frozenset({"x-team", "x-run"}))


def test_images(chart: Chart) -> None:
    made = render(chart, image={"tag": "v1.2.3"}, operator={"image": {"override": "here/operator:x"}})
    agent = made[("DaemonSet", "cilium")]["spec"]["template"]["spec"]["containers"][0]
    operator = made[("Deployment", "cilium-operator")]["spec"]["template"]["spec"]["containers"][0]
    assert (agent["image"], operator["image"]) == ("quay.io/cilium/cilium:v1.2.3", "here/operator:x")


@pytest.mark.parametrize(
    ("over", "says"),
    [
        ({"tunnelProtocol": "geneve"}, "tunnelProtocol is 'geneve'"),
        ({"hubble": {"relay": {"enabled": True}}}, "hubble.relay.enabled"),
        ({"clustre": {}}, "there is no setting clustre"),
        ({"cluster": {"name": "Not A Name"}}, "cluster.name"),
    ],
)
def test_wrong_settings_are_named(chart: Chart, over: Object, says: str) -> None:
    with pytest.raises(ValuesError, match=says):
        chart.values(over)


def test_every_setting_is_in_the_schema(chart: Chart) -> None:
    """A default without a schema entry could be misspelt by users unseen."""

    def paths(values: Object, schema: Object, path: str = "") -> list[str]:
        missing: list[str] = []
        for key, value in values.items():
            inner = schema.get("properties", {}).get(key)
            if inner is None:
                missing.append(path + key)
            elif isinstance(value, dict) and "properties" in inner:
                missing += paths(value, inner, f"{path}{key}.")
        return missing

    assert paths(chart.defaults, chart.schema) == []


def test_numbers_print_alike_in_helm(chart: Chart) -> None:
    """Helm reads numbers as floats and prints those from 1e6 up as 1e+06."""

    def numbers(value: Any) -> list[int]:
        if isinstance(value, dict):
            return [number for item in value.values() for number in numbers(item)]
        if isinstance(value, list):
            return [number for item in value for number in numbers(item)]
        return [value] if isinstance(value, int) and not isinstance(value, bool) else []

    assert all(number < 1_000_000 for number in numbers(chart.defaults))


def test_admission_is_reached_where_the_operator_listens(chart: Chart) -> None:
    made = render(chart, admission={"port": 9555})
    service, deployment = made["Service", "cilium-admission"], made["Deployment", "cilium-operator"]
    assert service["spec"]["ports"] == [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": 9555}]
    pod = deployment["spec"]["template"]
    assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    fields = {each["name"]: each.get("valueFrom", {}) for each in pod["spec"]["containers"][0]["env"]}
    assert fields["K8S_NODE_IP"]["fieldRef"]["fieldPath"] == "status.hostIP"
    config = made["ConfigMap", "cilium-config"]["data"]
    assert (config["enable-admission"], config["admission-port"]) == ("true", "9555")
    off = render(chart, admission={"enabled": False})
    assert ("Service", "cilium-admission") not in off
    assert off["ConfigMap", "cilium-config"]["data"]["enable-admission"] == "false"


def test_operator_may_change_every_definition(chart: Chart) -> None:
    role = render(chart)[("ClusterRole", "cilium-operator")]
    rules = [rule for rule in role["rules"] if rule["apiGroups"] == ["apiextensions.k8s.io"]]
    named = {name for rule in rules for name in rule.get("resourceNames", ())}
    assert named == {item["metadata"]["name"] for item in chart.crds}


def test_roles_have_no_wildcards(chart: Chart) -> None:
    roles = [item for (kind, _), item in render(chart).items() if kind in {"ClusterRole", "Role"}]
    words = {word for role in roles for rule in role["rules"] for part in rule.values() for word in part}
    assert "*" not in words


def test_agents_read_secrets_by_name_only(chart: Chart) -> None:
    """Those that objects name, one by one; never a list or a watch of all."""
    role = render(chart)[("ClusterRole", "cilium")]
    assert [rule["verbs"] for rule in role["rules"] if "secrets" in rule["resources"]] == [["get"]]


def test_envoys_runtime_is_the_pages(chart: Chart) -> None:
    """Rules about headers rely on it; the tests with the real Envoy read docs/l7.md."""
    made = render(chart)[("ConfigMap", "cilium-envoy-config")]["data"]
    page = (Path(__file__).parents[3] / "docs/l7.md").read_text()
    told = next(json.loads(block) for block in re.findall(r"```json\n(.*?)```", page, re.DOTALL) if "layered" in block)
    (text,) = made.values()
    assert json.loads(text)["layered_runtime"] == told["layered_runtime"]
