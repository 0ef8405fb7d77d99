"""CustomResourceDefinitions: from the object to the kinds it adds, and its own status."""

from __future__ import annotations

from typing import Any

from mycel.cluster.apiserver.registry import CustomSchema, Kind, Registry

Object = dict[str, Any]


def kinds_of(crd: Object) -> tuple[Kind, ...]:
    """One kind per served version of an established CRD."""
    spec = crd["spec"]
    names = spec["names"]
    storage = next((version["name"] for version in spec["versions"] if version.get("storage")), "")
    return tuple(
        Kind(
            group=spec["group"],
            version=version["name"],
            plural=names["plural"],
            kind=names["kind"],
            singular=names.get("singular") or names["kind"].lower(),
            namespaced=spec["scope"] == "Namespaced",
            short_names=tuple(names.get("shortNames") or ()),
            categories=tuple(names.get("categories") or ()),
            subresources=tuple(sorted(version.get("subresources") or {})),
            has_generation=True,
            list_kind=names.get("listKind") or names["kind"] + "List",
            custom=CustomSchema(
                schema=(version.get("schema") or {}).get("openAPIV3Schema"),
                columns=tuple(version.get("additionalPrinterColumns") or ()),
                scale=(version.get("subresources") or {}).get("scale"),
            ),
            storage_version=storage,
        )
        for version in spec["versions"]
        if version.get("served")
    )


def establish(crd: Object, registry: Registry, *, now: str) -> None:
    """Set status: names accepted, Established, stored versions."""
    spec = crd["spec"]
    names = spec["names"]
    status = crd.setdefault("status", {})
    accepted = {**names}
    accepted.setdefault("singular", names["kind"].lower())
    accepted.setdefault("listKind", names["kind"] + "List")
    status["acceptedNames"] = accepted
    stored = status.setdefault("storedVersions", [])
    for version in spec["versions"]:
        if version.get("storage") and version["name"] not in stored:
            stored.append(version["name"])
    kept = {condition["type"]: condition for condition in status.get("conditions") or ()}
    clash = _clash(crd, registry)
    wanted = (
        ("NamesAccepted", "False" if clash else "True", *(clash or ("NoConflicts", "no conflicts found"))),
        (
            "Established",
            "False" if clash else "True",
            "NotAccepted" if clash else "InitialNamesAccepted",
            "not all names are accepted" if clash else "the initial names have been accepted",
        ),
    )
    for kind, value, reason, message in wanted:
        before = kept.get(kind)
        changed = now if before is None or before["status"] != value else before["lastTransitionTime"]
        kept[kind] = {
            "type": kind,
            "status": value,
            "lastTransitionTime": changed,
            "reason": reason,
            "message": message,
        }
    status["conditions"] = list(kept.values())


def _clash(crd: Object, registry: Registry) -> tuple[str, str] | None:
    """Another resource of the same group with one of the names."""
    spec = crd["spec"]
    names = spec["names"]
    for kind in registry.kinds():
        if kind.group == spec["group"] and kind.plural != names["plural"] and kind.kind == names["kind"]:
            return "KindConflict", f'"{names["kind"]}" is already in use'
    return None
