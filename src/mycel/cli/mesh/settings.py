"""The command line and what was found → values of the chart. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mycel.cli.chart.values import Values, ValuesError, merge, parse_set
from mycel.cli.errors import BadInput
from mycel.cli.mesh.detect import Facts, Flavour

KUBE_PROXY_REPLACEMENT = ("true", "false", "probe", "strict", "partial", "disabled")
DATAPATH_MODES = ("vxlan", "tunnel", "auto")
_VERSION = re.compile(r"v?(\d+\.\d+\.\d+(?:-[0-9A-Za-z.-]+)?)")
_CONFIG_KEY = re.compile(r"[A-Za-z0-9][-._A-Za-z0-9]{0,252}")


@dataclass(frozen=True, slots=True)
class Request:
    """What a person asked for on the command line."""

    version: str = ""
    config: tuple[str, ...] = ()
    kube_proxy_replacement: str = ""
    agent_image: str = ""
    operator_image: str = ""
    datapath_mode: str = ""
    set_values: tuple[str, ...] = ()
    files: tuple[Mapping[str, Any], ...] = ()


def asked_values(request: Request) -> Values:
    """What the command line says, as values; kept with the release. Raises BadInput."""
    values: Values = {}
    for file in request.files:
        values = merge(values, file)
    check_datapath_mode(request.datapath_mode)
    check_replacement(request.kube_proxy_replacement)
    if request.version:
        match = _VERSION.fullmatch(request.version)
        if match is None:
            raise BadInput(f"--version {request.version} is not a version", hint="Write it as 1.19.4.")
        tag = {"tag": f"v{match[1]}"}
        values = merge(values, {"image": tag, "operator": {"image": tag}})
    if request.agent_image:
        values = merge(values, {"image": {"override": request.agent_image}})
    if request.operator_image:
        values = merge(values, {"operator": {"image": {"override": request.operator_image}}})
    if request.config:
        values = merge(values, {"extraConfig": parse_config(request.config)})
    try:
        for assignment in request.set_values:
            values = merge(values, parse_set(assignment))
    except ValuesError as exc:
        raise BadInput(f"--set: {exc}") from exc
    return values


def found_values(facts: Facts) -> Values:
    """What the cluster decides. What was asked for is merged on top."""
    # The embedded cluster's nodes bring bpffs and control groups; elsewhere init containers see to both.
    brings_mounts = facts.flavour is Flavour.EMBEDDED
    return {
        "k8sServiceHost": facts.api_host,
        "k8sServicePort": str(facts.api_port),
        "ipv4ServiceRange": facts.service_network or "auto",
        "bpf": {"autoMount": {"enabled": not brings_mounts}},
        "cgroup": {"autoMount": {"enabled": not brings_mounts}},
    }


def check_replacement(asked: str) -> None:
    """Raise BadInput for a mesh that would leave services to kube-proxy.

    The datapath translates services in any case, and before kube-proxy's rules see a packet; both can be there,
    so `probe`, `partial` and `strict` of 2021 come to the same as `true`.
    """
    if asked in {"false", "disabled"}:
        raise BadInput(
            f"--kube-proxy-replacement {asked} is not supported: the mesh always translates services",
            hint="kube-proxy may stay beside it; leave the option out.",
        )


def parse_config(assignments: Iterable[str]) -> dict[str, str]:
    """`key=value` pairs for the ConfigMap. Raises BadInput."""
    config: dict[str, str] = {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals:
            raise BadInput(f"--config {assignment} has no value", hint=f"Write it as --config {key}=value.")
        config[check_config_key(key)] = value
    return config


def check_config_key(key: str) -> str:
    """The key, if a ConfigMap can hold it. Raises BadInput."""
    if not _CONFIG_KEY.fullmatch(key):
        raise BadInput(
            f"{key!r} cannot be a setting's name",
            hint="Letters, digits, '-', '_' and '.' make one; docs/settings.md lists them.",
        )
    return key


def check_datapath_mode(mode: str) -> None:
    """Raise BadInput for a mode there is not."""
    if mode and mode not in DATAPATH_MODES:
        raise BadInput(
            f"--datapath-mode {mode} is not supported: pods of different nodes talk through VXLAN only",
            hint="Use --datapath-mode vxlan, or leave it out.",
        )
