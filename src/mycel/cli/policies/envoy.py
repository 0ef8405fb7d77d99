"""What of manifests is Envoy's business, judged as agents do: CiliumEnvoyConfigs, and rules for requests."""

from __future__ import annotations

from collections.abc import Iterable

from mycel.abi import Direction
from mycel.cli.errors import BadInput
from mycel.cli.policies.files import Manifest
from mycel.envoy.config.model import CLUSTERWIDE, NAMESPACED
from mycel.envoy.config.read import read, ref_of
from mycel.policy.errors import PolicyInvalid
from mycel.policy.lint import Finding
from mycel.policy.rules import L7


def unserved(direction: Direction, section: L7) -> str:
    """Why no listener can serve a section of a policy; empty when one can."""
    from mycel.envoy.listeners import unserved as why
    from mycel.policy.proxy_ports import HttpSections

    return why(HttpSections(direction, (section,)))


def envoy_findings(manifests: Iterable[Manifest]) -> list[Finding]:
    """What objects name and may not use. Raises BadInput for one that is refused, with document and field."""
    found: list[Finding] = []
    for each in manifests:
        if each.object.get("kind") not in (NAMESPACED, CLUSTERWIDE):
            continue
        metadata = each.object.get("metadata")
        if not isinstance(metadata, dict) or not metadata.get("name"):
            raise BadInput(f"{each.origin}: metadata.name: is missing")
        ref = ref_of(each.object)
        try:
            config = read(each.object)
        except PolicyInvalid as exc:
            raise BadInput(f"{each.origin}: {ref}: {exc}") from exc
        found += [Finding(str(ref), "spec", "reference", text) for text in config.unresolved]
    return found
