"""Which image names we stand in for, by repository path: any registry, any tag. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

_TAG = re.compile(r":[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$")
_REPOSITORY = re.compile(r"[a-z0-9]+(?:[._-]+[a-z0-9]+)*(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*")


class InvalidReference(ValueError):
    """The reference is not an image name (kubelet's InvalidImageName)."""


@dataclass(frozen=True, slots=True)
class Command:
    """An in-container command: a link to a program of the machine, or one of our own modules run by our Python."""

    program: str = ""
    fallback: str = ""  # when the machine lacks `program`
    module: str = ""
    words: tuple[str, ...] = ()  # before those of the caller
    light: bool = False  # standard library only: start Python isolated, without site packages


@dataclass(frozen=True, slots=True)
class Image:
    """What a container gets when its pod does not say otherwise."""

    name: str
    entrypoint: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    user: str = "0"
    workdir: str = "/"
    commands: Mapping[str, Command] = field(default_factory=dict[str, Command])  # in /opt/mycel/bin
    paths: Mapping[str, Command] = field(default_factory=dict[str, Command])  # elsewhere, by absolute path
    carries_mesh: bool = False  # shows this installation at its own place


PATH = "/opt/mycel/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PAUSE = Command(module="mycel.cluster.images.pause", light=True)
# BIND's nslookup follows the search list, which people (and test suites) rely on; BusyBox's does not.
_SHELL = {
    "nslookup": Command(program="/usr/bin/nslookup", fallback="/usr/bin/busybox"),
    "sh": Command(program="/usr/bin/dash"),
}


def _served(name: str, module: str, **options: object) -> Image:
    command = Command(module=module, light=True)
    return Image(name, (f"/{name}",), paths={f"/{name}": command}, carries_mesh=True, **options)  # type: ignore[arg-type]


_MESH_COMMANDS = {
    "cilium-agent": Command(module="mycel.agent"),
    "cilium-cleanup": Command(module="mycel.agent.cleanup"),
    "cilium": Command(module="mycel.agent.dbg", light=True),
    "cilium-dbg": Command(module="mycel.agent.dbg", light=True),
    "cilium-health": Command(module="mycel.agent.health", light=True),
    "cilium-operator": Command(module="mycel.operator"),
    "cilium-operator-generic": Command(module="mycel.operator"),
    "cilium-dns-proxy": Command(module="mycel.dnsproxy.supervise"),
    "hubble-dial": Command(module="mycel.observe.dial", light=True),
    "hubble": Command(module="mycel.cli.main", words=("hubble",)),
    "mycel": Command(module="mycel.cli.main"),
    "sh": Command(program="/usr/bin/dash"),
}
_MESH = Image("cilium", commands=_MESH_COMMANDS, carries_mesh=True)
_ENVOY = Image(
    "cilium-envoy",
    commands={
        "cilium-envoy": Command(module="mycel.envoy.supervise", light=True),
        "cilium-envoy-stand-in": Command(module="mycel.envoy.stand_in"),
    },
    carries_mesh=True,
)
_COREDNS = Image(
    "coredns",
    ("/coredns",),
    paths={"/coredns": Command(module="mycel.cluster.images.coredns")},
    carries_mesh=True,
)
_CURL = Image(
    "alpine-curl",
    arguments=("/usr/bin/pause",),
    commands=_SHELL,
    paths={"/usr/bin/pause": _PAUSE},
    carries_mesh=True,
)

_IMAGES: dict[str, Image] = {
    "hashicorp/http-echo": _served("http-echo", "mycel.cluster.images.http_echo"),
    "cilium/json-mock": _served("json-mock", "mycel.cluster.images.json_mock"),
    "cilium/alpine-curl": _CURL,
    "curlimages/curl": _CURL,
    "coredns/coredns": _COREDNS,
    "coredns": _COREDNS,
    "pause": Image("pause", ("/pause",), paths={"/pause": _PAUSE}, carries_mesh=True),
    "busybox": Image("busybox", arguments=("sh",), commands=_SHELL),
    "cilium/cilium": _MESH,
    "cilium/cilium-ci": _MESH,
    "cilium/cilium-envoy": _ENVOY,
    "cilium/operator": _MESH,
    "cilium/operator-generic": _MESH,
    "cilium/operator-generic-ci": _MESH,
    "cilium/hubble-relay": _MESH,
}


def repository(reference: str) -> str:
    """The repository path without registry, tag and digest: `quay.io/cilium/cilium:v1` → `cilium/cilium`. Raises
    InvalidReference.
    """
    name = _TAG.sub("", reference.split("@", 1)[0])
    first, slash, rest = name.partition("/")
    if slash and (first == "localhost" or "." in first or ":" in first):
        name = rest
    name = name.removeprefix("library/")
    if not _REPOSITORY.fullmatch(name):
        raise InvalidReference(f'"{reference}" is not an image reference')
    return name


def find(reference: str) -> Image | None:
    """The image we bring for a reference, or None. Raises InvalidReference."""
    return _IMAGES.get(repository(reference))


def known() -> list[str]:
    """Repository paths that work without a registry."""
    return sorted(_IMAGES)
