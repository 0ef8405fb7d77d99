"""From what was found and asked for to the chart's values."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from mycel.cli.errors import BadInput, Failure
from mycel.cli.mesh.detect import Facts, Flavour, api_address, flavour, pod_networks
from mycel.cli.mesh.settings import Request, asked_values, found_values
from mycel.cli.mesh.waiting import parse_duration


def facts(kind: Flavour = Flavour.EMBEDDED, *, kube_proxy: bool = False) -> Facts:
    return Facts(kind, "v1.32.4", "mycel-kind", 4, "172.18.0.1", 6443, kube_proxy, ("10.244.0.0/24",))


@pytest.mark.parametrize("asked", ["", "true", "probe", "strict", "partial"])
def test_kube_proxy_replacement(asked: str) -> None:
    assert asked_values(Request(kube_proxy_replacement=asked)) == {}


def test_embedded_nodes_bring_their_mounts() -> None:
    here, there = found_values(facts()), found_values(facts(Flavour.KIND))
    assert (here["bpf"]["autoMount"]["enabled"], there["bpf"]["autoMount"]["enabled"]) == (False, True)
    assert here["ipv4ServiceRange"] == "auto"
    known = dataclasses.replace(facts(), service_network="10.96.0.0/16")
    assert found_values(known)["ipv4ServiceRange"] == "10.96.0.0/16"
    assert (here["k8sServiceHost"], here["k8sServicePort"]) == ("172.18.0.1", "6443")


def test_asked_values() -> None:
    request = Request(
        version="1.19.4",
        config=("enable-envoy-config=true", "empty="),
        agent_image="here/agent:x",
        datapath_mode="vxlan",
        set_values=("operator.replicas=2",),
        files=({"debug": {"enabled": True}},),
    )
    assert asked_values(request) == {
        "debug": {"enabled": True},
        "image": {"tag": "v1.19.4", "override": "here/agent:x"},
        "operator": {"image": {"tag": "v1.19.4"}, "replicas": 2},
        "extraConfig": {"enable-envoy-config": "true", "empty": ""},
    }


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        (Request(version="latest"), "--version latest is not a version"),
        (Request(config=("novalue",)), "--config novalue has no value"),
        (Request(config=("a b=c",)), "'a b' cannot be a setting's name"),
        (Request(datapath_mode="native"), "--datapath-mode native is not supported"),
        (Request(datapath_mode="geneve"), "VXLAN only"),
        (Request(kube_proxy_replacement="disabled"), "the mesh always translates services"),
        (Request(set_values=("x",)), "--set: 'x' is not of the form"),
    ],
)
def test_wrong_input_is_a_sentence(request_: Request, says: str) -> None:
    with pytest.raises(BadInput) as caught:
        asked_values(request_)
    assert says in caught.value.message
    assert caught.value.code == 2


@pytest.mark.parametrize(
    ("spec", "status", "context", "expected"),
    [
        ({}, {"nodeInfo": {"containerRuntimeVersion": "mycel://0.1.0"}}, "x", Flavour.EMBEDDED),
        ({"providerID": "kind://docker/kind/kind-worker"}, {}, "x", Flavour.KIND),
        ({"providerID": "aws:///a/i"}, {"nodeInfo": {"containerRuntimeVersion": "containerd://2"}}, "x", Flavour.EKS),
        ({}, {}, "kind-a", Flavour.KIND),
        ({}, {}, "prod", Flavour.OTHER),
    ],
)  # fmt: skip
def test_flavour(spec: dict[str, Any], status: dict[str, Any], context: str, expected: Flavour) -> None:
    assert flavour([{"metadata": {}, "spec": spec, "status": status}], context) is expected


def test_api_address_is_the_kubernetes_services_endpoint() -> None:
    slices = [
        {"endpoints": [{"addresses": ["10.0.0.9"], "conditions": {"ready": False}}], "ports": [{"port": 1}]},
        {"endpoints": [{"addresses": ["172.18.0.1"]}], "ports": [{"name": "https", "port": 6444}]},
    ]
    assert api_address(slices) == ("172.18.0.1", 6444)


def test_no_api_address_says_what_to_do() -> None:
    with pytest.raises(Failure) as caught:
        api_address([])
    assert "--set k8sServiceHost" in caught.value.hint


def test_pod_networks_without_repeats() -> None:
    nodes = [{"spec": {"podCIDRs": ["10.244.0.0/24"]}}, {"spec": {"podCIDR": "10.244.1.0/24"}}, {"spec": {}}]
    assert pod_networks(nodes) == ("10.244.0.0/24", "10.244.1.0/24")


@pytest.mark.parametrize(("text", "seconds"), [("5m", 300.0), ("1h30m", 5400.0), ("90s", 90.0), ("500ms", 0.5)])
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "5 m", "m5", "1d"])
def test_wrong_durations(text: str) -> None:
    with pytest.raises(BadInput):
        parse_duration(text)
