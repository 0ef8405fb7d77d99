"""From a URL's path to what it names. Pure."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import unquote

_NAMESPACE_PARTS = ("finalize", "status")


class Target(NamedTuple):
    """A resource path: collection (no name), object, or subresource."""

    group: str
    version: str
    namespace: str
    plural: str
    name: str
    subresource: str
    rest: str


def parse_resource_path(raw_path: str) -> Target | None:
    """`/apis/apps/v1/namespaces/x/deployments/y/scale` → its parts; None when it is no resource path."""
    parts = [unquote(part) for part in raw_path.strip("/").split("/")]
    if len(parts) >= 3 and parts[0] == "api":
        group, version, parts = "", parts[1], parts[2:]
    elif len(parts) >= 4 and parts[0] == "apis":
        group, version, parts = parts[1], parts[2], parts[3:]
    else:
        return None
    namespace = ""
    if parts[0] == "namespaces" and len(parts) >= 3 and not (group == "" and parts[2] in _NAMESPACE_PARTS):
        namespace, parts = parts[1], parts[2:]
        if not namespace:
            return None
    padded = [*parts, "", "", ""]
    return Target(group, version, namespace, padded[0], padded[1], padded[2], "/".join(parts[3:]))
