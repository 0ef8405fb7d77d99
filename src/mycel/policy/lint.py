"""What is valid and probably not meant: empty lists and their traps, selectors that match nobody, and the like.

Two looks: at each manifest as it is written (what an empty list means depends on which one it is), and at the
policies in a world of pods, nodes and addresses.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from mycel.policy.lint_world import Finding, Look, Unserved
from mycel.policy.parse import POLICY_KINDS
from mycel.policy.world import World

_NOTHING = ("Endpoints", "Nodes", "Entities", "CIDR", "CIDRSet")
_ANYBODY = ("Services", "FQDNs", "Groups")


def lint(world: World, objects: Iterable[Mapping[str, Any]], *, unserved: Unserved) -> list[Finding]:
    """Everything found, in order of objects."""
    listed = [manifest for manifest in objects if manifest.get("kind") in POLICY_KINDS]
    found = [each for manifest in listed for each in _written(manifest)]
    found += _twice(listed)
    look = Look(world, unserved)
    for policy in sorted(world.engine.held(), key=lambda each: each.ref):
        found += look.findings(policy)
    for policies in world.engine.policies.values():
        found += [each for policy in policies for each in look.unresolved(policy)]
    return found


# ---- as it is written


def _name(manifest: Mapping[str, Any]) -> str:
    metadata = manifest["metadata"]
    wide = manifest["kind"] == "CiliumClusterwideNetworkPolicy"
    parts = (metadata["name"],) if wide else (metadata.get("namespace") or "default", metadata["name"])
    return f"{manifest['kind']} {'/'.join(parts)}"


def _twice(listed: Iterable[Mapping[str, Any]]) -> Iterator[Finding]:
    """Of objects of one name the last counts, as with kubectl apply."""
    for name, times in Counter(map(_name, listed)).items():
        if times > 1:
            yield Finding(name, "metadata.name", "there-twice", f"is there {times} times: only the last one counts")


def _written(manifest: Mapping[str, Any]) -> Iterator[Finding]:
    name = _name(manifest)
    specs = [("spec", manifest.get("spec"))]
    specs += [(f"specs[{index}]", spec) for index, spec in enumerate(manifest.get("specs") or [])]
    look = _kubernetes_spec if manifest["kind"] == "NetworkPolicy" else _cilium_spec
    for path, spec in specs:
        if isinstance(spec, dict):
            for field, rule, message in look(path, spec):
                yield Finding(name, field, rule, message)


_Found = Iterator[tuple[str, str, str]]


def _kubernetes_spec(path: str, spec: Mapping[str, Any]) -> _Found:
    for direction, way in (("ingress", "from"), ("egress", "to")):
        for index, entry in enumerate(spec.get(direction) or []):
            at = f"{path}.{direction}[{index}]"
            if not entry.get(way) and not entry.get("ports"):
                yield at, "allows-everything", f"has neither {way} nor ports: it allows everything"
            elif entry.get(way) == []:
                yield f"{at}.{way}", "empty-list", f"is empty, which is as if it were absent: everybody ({direction})"
            if entry.get("ports") == []:
                yield f"{at}.ports", "empty-list", "is empty, which is as if it were absent: every port"


def _cilium_spec(path: str, spec: Mapping[str, Any]) -> _Found:
    if spec.get("nodeSelector") is not None:
        yield f"{path}.nodeSelector", "no-effect", "is about nodes, and there is no host firewall: it does nothing"
    for section in ("ingress", "ingressDeny", "egress", "egressDeny"):
        way = "from" if section.startswith("ingress") else "to"
        for index, entry in enumerate(spec.get(section) or []):
            yield from _cilium_entry(f"{path}.{section}[{index}]", entry or {}, way, deny=section.endswith("Deny"))


def _cilium_entry(at: str, entry: Mapping[str, Any], way: str, *, deny: bool) -> _Found:
    verb = "denies" if deny else "allows"
    said = {name: value for name, value in entry.items() if value is not None}
    if all(value != [] and (name == "authentication" or not value) for name, value in said.items()):
        yield at, "empty-entry", f"is empty: it {verb} nothing, and default deny is on"
    for name in _NOTHING:
        if said.get(f"{way}{name}") == []:
            yield f"{at}.{way}{name}", "empty-list", f"is empty and selects nobody: the entry {verb} nothing"
    for name in _ANYBODY:
        if said.get(f"{way}{name}") == []:
            yield f"{at}.{way}{name}", "empty-list", "is empty, which is as if it were absent: everybody"
    if said.get(f"{way}Nodes"):
        yield f"{at}.{way}Nodes", "no-effect", "matches nobody: identities of nodes carry no labels of theirs"
    if said.get(f"{way}Groups"):
        yield f"{at}.{way}Groups", "no-effect", "matches nobody: there is no cloud provider to ask"
    if said.get("toPorts") == []:
        yield f"{at}.toPorts", "empty-list", "is empty, which is as if it were absent: every port"
    for index, ports in enumerate(said.get("toPorts") or []):
        port_at = f"{at}.toPorts[{index}]"
        if not ports.get("ports"):
            yield port_at, "empty-list", f"has no ports: the entry {verb} nothing"
        rules = ports.get("rules")
        if rules is not None and not any(rules.values()):
            yield f"{port_at}.rules", "empty-list", "is empty: there is no layer 7 rule, every request is allowed"
