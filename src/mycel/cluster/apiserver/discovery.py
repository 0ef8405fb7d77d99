"""Discovery: which groups, versions and resources there are, in the aggregated and the legacy form."""

from __future__ import annotations

from typing import Any

from mycel.cluster.apiserver.registry import Kind, Registry

Object = dict[str, Any]
_GROUP_ORDER = (
    "",
    "apps",
    "events.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "networking.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "apiextensions.k8s.io",
    "scheduling.k8s.io",
    "coordination.k8s.io",
    "discovery.k8s.io",
)

# subresource → (group, version, kind, verbs) where they differ from the parent's.
_SUBRESOURCES: dict[str, tuple[str, str, str, tuple[str, ...]]] = {
    "scale": ("autoscaling", "v1", "Scale", ("get", "patch", "update")),
    "eviction": ("policy", "v1", "Eviction", ("create",)),
    "binding": ("", "v1", "Binding", ("create",)),
    "token": ("authentication.k8s.io", "v1", "TokenRequest", ("create",)),
    "exec": ("", "v1", "PodExecOptions", ("create", "get")),
    "attach": ("", "v1", "PodAttachOptions", ("create", "get")),
    "portforward": ("", "v1", "PodPortForwardOptions", ("create", "get")),
}


def _ordered(registry: Registry) -> list[tuple[str, list[str]]]:
    versions = registry.group_versions()
    known = [group for group in _GROUP_ORDER if group in versions]
    return [(group, versions[group]) for group in [*known, *sorted(set(versions) - set(known))]]


def _kinds_in(registry: Registry, group: str, version: str) -> list[Kind]:
    return [kind for kind in registry.kinds() if kind.group == group and kind.version == version]


def aggregated(registry: Registry, *, core: bool, version: str) -> Object:
    """APIGroupDiscoveryList for /api (`core`) or /apis, in `v2` or `v2beta1`."""
    items: list[Object] = []
    for group, versions in _ordered(registry):
        if (group == "") is not core:
            continue
        shown = [
            {
                "version": name,
                "resources": [_aggregated_resource(kind) for kind in _kinds_in(registry, group, name)],
                "freshness": "Current",
            }
            for name in versions
        ]
        items.append({"metadata": {"name": group} if group else {}, "versions": shown})
    return {
        "kind": "APIGroupDiscoveryList",
        "apiVersion": f"apidiscovery.k8s.io/{version}",
        "metadata": {},
        "items": items,
    }


def _aggregated_resource(kind: Kind) -> Object:
    result: Object = {
        "resource": kind.plural,
        "responseKind": {"group": kind.group, "version": kind.version, "kind": kind.kind},
        "scope": "Namespaced" if kind.namespaced else "Cluster",
        "singularResource": kind.singular,
        "verbs": list(kind.verbs),
    }
    if kind.short_names:
        result["shortNames"] = list(kind.short_names)
    if kind.categories:
        result["categories"] = list(kind.categories)
    if kind.subresources:
        result["subresources"] = [_aggregated_subresource(kind, name) for name in kind.subresources]
    return result


def _aggregated_subresource(kind: Kind, name: str) -> Object:
    group, version, response, verbs = _SUBRESOURCES.get(name, (kind.group, kind.version, kind.kind, _verbs(name)))
    return {
        "subresource": name,
        "responseKind": {"group": group, "version": version, "kind": response},
        "verbs": list(verbs),
    }


def _verbs(subresource: str) -> tuple[str, ...]:
    match subresource:
        case "log":
            return ("get",)
        case "finalize":
            return ("update",)
        case _:
            return ("get", "patch", "update")


def api_versions(address: str) -> Object:
    """/api in the legacy form."""
    return {
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    }


def _group(name: str, versions: list[str]) -> Object:
    shown = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {"name": name, "versions": shown, "preferredVersion": shown[0]}


def group_list(registry: Registry) -> Object:
    """/apis in the legacy form."""
    groups = [_group(name, versions) for name, versions in _ordered(registry) if name]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}


def group(registry: Registry, name: str) -> Object | None:
    """/apis/<group>; None when there is no such group."""
    versions = registry.group_versions().get(name)
    return {"kind": "APIGroup", "apiVersion": "v1", **_group(name, versions)} if versions else None


def resource_list(registry: Registry, group_name: str, version: str) -> Object | None:
    """/api/v1 and /apis/<group>/<version>; None when nothing is served there."""
    kinds = _kinds_in(registry, group_name, version)
    if not kinds:
        return None
    resources: list[Object] = []
    for kind in kinds:
        resources.append(
            {
                "name": kind.plural,
                "singularName": kind.singular,
                "namespaced": kind.namespaced,
                "kind": kind.kind,
                "verbs": list(kind.verbs),
                **({"shortNames": list(kind.short_names)} if kind.short_names else {}),
                **({"categories": list(kind.categories)} if kind.categories else {}),
            }
        )
        for name in kind.subresources:
            resources.append(_legacy_subresource(kind, name))
    group_version = f"{group_name}/{version}" if group_name else version
    head = {"kind": "APIResourceList", "groupVersion": group_version}
    return {**head, **({"apiVersion": "v1"} if group_name else {}), "resources": resources}


def _legacy_subresource(kind: Kind, name: str) -> Object:
    result: Object = {"name": f"{kind.plural}/{name}", "singularName": "", "namespaced": kind.namespaced}
    if name in _SUBRESOURCES:
        group_name, version, response, verbs = _SUBRESOURCES[name]
        result |= {"group": group_name, "version": version} if group_name else {}
        return {**result, "kind": response, "verbs": list(verbs)}
    return {**result, "kind": kind.kind, "verbs": list(_verbs(name))}
