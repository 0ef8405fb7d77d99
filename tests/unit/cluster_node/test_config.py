"""kind's cluster file."""

import pytest

from mycel.cluster.lifecycle import config
from mycel.cluster.lifecycle.config import Role
from mycel.cluster.lifecycle.errors import ConfigInvalid

HEAD = "apiVersion: kind.x-k8s.io/v1alpha4\nkind: Cluster\n"


def test_nodes_are_named_as_kind_names_them() -> None:
    """The first of a role has no number."""
    parsed = config.parse(HEAD + "nodes: [{role: control-plane}, {role: worker}, {role: worker}]\n", name="kind")
    assert [node.name for node in parsed.nodes] == ["kind-control-plane", "kind-worker", "kind-worker2"]
    assert parsed.nodes[0].role is Role.CONTROL_PLANE


def test_without_a_file_it_is_one_control_plane() -> None:
    """As kind does."""
    parsed = config.default()
    assert (parsed.name, [node.name for node in parsed.nodes]) == ("kind", ["kind-control-plane"])


def test_the_command_line_name_wins() -> None:
    """--name over the file's name."""
    assert config.parse(HEAD + "name: a\n", name="b").name == "b"
    assert config.parse(HEAD + "name: a\n").name == "a"


def test_networking_is_taken_over() -> None:
    """Subnets, port, CNI."""
    text = "networking: {disableDefaultCNI: true, podSubnet: 10.1.0.0/16, serviceSubnet: 10.2.0.0/16,"
    text += " apiServerPort: 7443}\n"
    parsed = config.parse(HEAD + text)
    assert (str(parsed.pod_subnet), str(parsed.service_subnet)) == ("10.1.0.0/16", "10.2.0.0/16")
    assert (parsed.api_server_port, parsed.disable_default_cni) == (7443, True)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("featureGates: {X: true}\n", "featureGates"),
        ("nodes: [{role: control-plane}, {role: worker, extraPortMappings: []}]\n", "nodes[1].extraPortMappings"),
        ("nodes: [{role: boss}]\n", "nodes[0].role"),
        ("nodes: [{role: worker}]\n", "nodes"),
        ("nodes: []\n", "nodes"),
        ("nodes: [{role: control-plane, labels: {a: 1}}]\n", "nodes[0].labels.a"),
        ("nodes: [{extraMounts: [{hostPath: x, containerPath: /y}]}]\n", "nodes[0].extraMounts[0].hostPath"),
        ("networking: {ipFamily: dual}\n", "networking.ipFamily"),
        ("networking: {podSubnet: 10.0.0.0/30}\n", "networking.podSubnet"),
        ("networking: {podSubnet: 10.96.0.0/12}\n", "networking.serviceSubnet"),
        ("networking: {dnsSearch: []}\n", "networking.dnsSearch"),
        ("networking: {apiServerPort: x}\n", "networking.apiServerPort"),
        ("networking: []\n", "networking"),
        ("name: UPPER\n", "name"),
    ],
)
def test_what_is_wrong_is_named_by_its_path(text: str, path: str) -> None:
    """The message begins with the field."""
    with pytest.raises(ConfigInvalid) as caught:
        config.parse(HEAD + text)
    assert str(caught.value).startswith(f"{path}:")


@pytest.mark.parametrize(
    "text", ["", " \n", "kind: Cluster\n", "apiVersion: kind.x-k8s.io/v1alpha3\nkind: Cluster\n", "[1]\n", "{\n"]
)
def test_other_files_are_refused(text: str) -> None:
    """Not a v1alpha4 cluster."""
    with pytest.raises(ConfigInvalid):
        config.parse(text)
