"""What is said of an object that is about to be written: by the same readers that serve it later. Pure.

Only what is wrong in the object itself is a reason to refuse, and only where it is new: what the cluster lacks is told
by status conditions, and an object that was stored broken can still be labelled, finalized and taken away.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from mycel.envoy.config.read import read
from mycel.envoy.resources import LISTENER
from mycel.k8s import resources
from mycel.operator.announcements import parse_item
from mycel.operator.ingress.model import LABEL, parse_ingress
from mycel.operator.ingress.translate import own_problems
from mycel.operator.loadbalancer.pools import parse_pool
from mycel.policy.errors import PolicyInvalid
from mycel.policy.parse import parse_cidr_group, parse_policy

Object = Mapping[str, Any]
_NOT_JUDGED = ("metadata", "status", "apiVersion")


def _pool(item: Object) -> None:
    _raise(parse_pool(item).problem)


def _announcement(item: Object) -> None:
    _raise(parse_item(item).problem)


def _raise(problem: str) -> None:
    if problem:
        raise PolicyInvalid("", problem)


_READERS: Mapping[resources.Resource, Callable[[Object], object]] = {
    resources.CILIUM_NETWORK_POLICIES: parse_policy,
    resources.CILIUM_CLUSTERWIDE_NETWORK_POLICIES: parse_policy,
    resources.NETWORK_POLICIES: parse_policy,
    resources.CILIUM_CIDR_GROUPS: parse_cidr_group,
    resources.CILIUM_ENVOY_CONFIGS: read,
    resources.CILIUM_CLUSTERWIDE_ENVOY_CONFIGS: read,
    resources.CILIUM_LOAD_BALANCER_IP_POOLS: _pool,
    resources.CILIUM_L2_ANNOUNCEMENT_POLICIES: _announcement,
}
KINDS = (*_READERS, resources.INGRESSES)
"""What is judged; Ingresses are never refused, since other controllers may read them otherwise."""
_BY_KIND = {resource.kind: reader for resource, reader in _READERS.items()}
_ENVOY_CONFIGS = (resources.CILIUM_ENVOY_CONFIGS.kind, resources.CILIUM_CLUSTERWIDE_ENVOY_CONFIGS.kind)


@dataclass(frozen=True, slots=True)
class Mesh:
    """What of this mesh's settings objects have to do with."""

    envoy_configs: bool = True  # those that people write are taken
    ingresses: bool = True  # those of class cilium are served


def prepare() -> None:
    """Read Envoy's schemas now, and not when somebody waits."""
    listener = {"@type": LISTENER, "name": "any"}
    read({"kind": "CiliumEnvoyConfig", "metadata": {"name": "any"}, "spec": {"resources": [listener]}})


class Problem(NamedTuple):
    """What is wrong with an object, and where."""

    kind: str
    name: str
    place: str  # of the object: namespace/name
    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.kind} {self.place}: {self.field}: {self.message}"


def problem_of(new: Object, old: Object | None = None) -> Problem | None:
    """What is wrong with an object; None: it may be written, also when its kind has no reader."""
    reader = _BY_KIND.get(str(new.get("kind")))
    if reader is None or _is_leaving(new) or (old is not None and _said(old) == _said(new)):
        return None
    try:
        reader(new)
    except PolicyInvalid as wrong:
        text = str(wrong)  # some readers say the field in their words
        field, _, message = text.partition(": ") if text.startswith("spec") else ("spec", "", text)
        return Problem(new["kind"], str(new["metadata"].get("name", "")), _place(new), field, message)
    return None


def warnings_of(new: Object, mesh: Mesh) -> tuple[str, ...]:
    """What a person should know of an object that may be written: it will not do what it says."""
    kind = new.get("kind")
    labels = new["metadata"].get("labels") or {}
    if kind in _ENVOY_CONFIGS and not mesh.envoy_configs and labels.get(LABEL) != "true":
        hint = "mycel config set enable-envoy-config true switches them on"
        return (f"{_name(new)}: is not used, since these objects are switched off: {hint}",)
    if kind == resources.INGRESSES.kind and mesh.ingresses:
        ingress = parse_ingress(new)
        if ingress.class_name == "cilium":
            return tuple(f"{_name(new)}: {problem.message}" for problem in own_problems(ingress))
    return ()


def _is_leaving(item: Object) -> bool:
    return bool(item["metadata"].get("deletionTimestamp"))


def _said(item: Object) -> dict[str, Any]:
    """What readers read of an object, its metadata aside."""
    return {name: value for name, value in item.items() if name not in _NOT_JUDGED}


def _place(item: Object) -> str:
    metadata = item["metadata"]
    return "/".join(str(part) for part in (metadata.get("namespace"), metadata.get("name")) if part)


def _name(item: Object) -> str:
    return f"{item['kind']} {_place(item)}"
