"""ConfigMaps, Secrets, RBAC, nodes, leases, CRDs."""

from __future__ import annotations

from typing import Any

from mycel.cluster.apiserver.schema.check import normalize
from mycel.cluster.apiserver.schema.problems import (
    Problem,
    duplicate,
    forbidden,
    invalid,
    not_supported,
    required,
    too_long,
)
from mycel.cluster.apiserver.schema.types import struct
from mycel.cluster.apiserver.validation import names
from mycel.cluster.apiserver.validation.addresses import is_prefix

Object = dict[str, Any]
_MAX_DATA = 1024 * 1024
_RBAC_GROUP = "rbac.authorization.k8s.io"


def validate_config_map(obj: Object, old: Object | None) -> list[Problem]:
    """A ConfigMap."""
    data, binary = obj.get("data") or {}, obj.get("binaryData") or {}
    problems: list[Problem] = []
    size = 0
    for kind, values in (("data", data), ("binaryData", binary)):
        for key, value in values.items():
            problems += names.config_key(key, f"{kind}[{key}]")
            size += len(value) if kind == "data" else len(value) * 3 // 4
    for key in sorted(set(data) & set(binary)):
        problems.append(invalid(f"data[{key}]", key, "duplicate of key present in binaryData"))
    if size > _MAX_DATA:
        problems.append(too_long("", _MAX_DATA))
    return problems + _immutable(obj, old, ("data", "binaryData"))


def validate_secret(obj: Object, old: Object | None) -> list[Problem]:
    """A Secret."""
    problems: list[Problem] = []
    data = obj.get("data") or {}
    for key in data:
        problems += names.config_key(key, f"data[{key}]")
    if sum(len(value) * 3 // 4 for value in data.values()) > _MAX_DATA:
        problems.append(too_long("data", _MAX_DATA))
    match obj.get("type"):
        case "kubernetes.io/tls":
            needed = ("tls.crt", "tls.key")
        case "kubernetes.io/dockerconfigjson":
            needed = (".dockerconfigjson",)
        case "kubernetes.io/service-account-token":
            needed = ()
            if not (obj["metadata"].get("annotations") or {}).get("kubernetes.io/service-account.name"):
                problems.append(required("metadata.annotations[kubernetes.io/service-account.name]"))
        case _:
            needed = ()
    problems += [required(f"data[{key}]") for key in needed if key not in data]
    if old is not None and obj.get("type") != old.get("type"):
        problems.append(invalid("type", obj.get("type"), "field is immutable"))
    return problems + _immutable(obj, old, ("data",))


def _immutable(obj: Object, old: Object | None, fields: tuple[str, ...]) -> list[Problem]:
    if old is None or not old.get("immutable"):
        return []
    problems = [] if obj.get("immutable") else [forbidden("immutable", "field is immutable when `immutable` is set")]
    for field in fields:
        if obj.get(field) != old.get(field):
            problems.append(forbidden(field, "field is immutable when `immutable` is set"))
    return problems


def validate_role(obj: Object, old: Object | None) -> list[Problem]:
    """A Role or ClusterRole."""
    problems: list[Problem] = []
    for index, rule in enumerate(obj.get("rules") or ()):
        here = f"rules[{index}]"
        if not rule.get("verbs"):
            problems.append(required(f"{here}.verbs", "verbs must contain at least one value"))
        if rule.get("nonResourceURLs"):
            if obj["metadata"].get("namespace"):
                detail = "namespaced rules cannot apply to non-resource URLs"
                problems.append(invalid(f"{here}.nonResourceURLs", rule["nonResourceURLs"], detail))
            continue
        if not rule.get("apiGroups"):
            problems.append(required(f"{here}.apiGroups", "resource rules must supply at least one api group"))
        if not rule.get("resources"):
            problems.append(required(f"{here}.resources", "resource rules must supply at least one resource"))
    return problems


def validate_role_binding(obj: Object, old: Object | None) -> list[Problem]:
    """A RoleBinding or ClusterRoleBinding."""
    reference = obj.get("roleRef") or {}
    problems: list[Problem] = []
    if reference.get("apiGroup") != _RBAC_GROUP:
        problems.append(not_supported("roleRef.apiGroup", reference.get("apiGroup"), [_RBAC_GROUP]))
    namespaced = bool(obj["metadata"].get("namespace"))
    allowed = ("Role", "ClusterRole") if namespaced else ("ClusterRole",)
    if reference.get("kind") not in allowed:
        problems.append(not_supported("roleRef.kind", reference.get("kind"), allowed))
    if not reference.get("name"):
        problems.append(required("roleRef.name"))
    if old is not None and old.get("roleRef") != reference:
        problems.append(invalid("roleRef", reference, "cannot change roleRef"))
    for index, subject in enumerate(obj.get("subjects") or ()):
        here = f"subjects[{index}]"
        kind = subject.get("kind")
        if not subject.get("name"):
            problems.append(required(f"{here}.name"))
        if kind not in ("ServiceAccount", "User", "Group"):
            problems.append(not_supported(f"{here}.kind", kind, ["Group", "ServiceAccount", "User"]))
        elif kind == "ServiceAccount" and not namespaced and not subject.get("namespace"):
            problems.append(required(f"{here}.namespace"))
    return problems


def validate_node(obj: Object, old: Object | None) -> list[Problem]:
    """A Node."""
    spec = obj.get("spec") or {}
    problems: list[Problem] = []
    seen: set[tuple[str, str]] = set()
    for index, taint in enumerate(spec.get("taints") or ()):
        here = f"spec.taints[{index}]"
        key, effect = taint.get("key") or "", taint.get("effect") or ""
        problems += names.qualified_name(key, f"{here}.key")
        problems += names.label_value(taint.get("value") or "", f"{here}.value")
        if effect not in ("NoSchedule", "PreferNoSchedule", "NoExecute"):
            allowed = ["NoExecute", "NoSchedule", "PreferNoSchedule"]
            problems.append(
                required(f"{here}.effect") if not effect else not_supported(f"{here}.effect", effect, allowed)
            )
        if (key, effect) in seen:
            problems.append(duplicate(here, taint))
        seen.add((key, effect))
    for index, prefix in enumerate(spec.get("podCIDRs") or ()):
        if not is_prefix(prefix):
            problems.append(invalid(f"spec.podCIDRs[{index}]", prefix, "must be a valid CIDR value"))
    if old is not None:
        before = (old.get("spec") or {}).get("podCIDR")
        if before and spec.get("podCIDR") != before:
            problems.append(forbidden("spec.podCIDR", 'node updates may not change podCIDR except from "" to valid'))
    return problems


def validate_lease(obj: Object, old: Object | None) -> list[Problem]:
    """A Lease."""
    spec = obj.get("spec") or {}
    problems: list[Problem] = []
    duration = spec.get("leaseDurationSeconds")
    if duration is not None and duration <= 0:
        problems.append(invalid("spec.leaseDurationSeconds", duration, "must be greater than 0"))
    return problems + names.non_negative(spec.get("leaseTransitions"), "spec.leaseTransitions")


def validate_crd(obj: Object, old: Object | None) -> list[Problem]:
    """A CustomResourceDefinition."""
    spec = obj["spec"]
    given = spec.get("names") or {}
    problems: list[Problem] = []
    problems += names.dns_subdomain(spec.get("group") or "", "spec.group")
    if "." not in (spec.get("group") or ""):
        problems.append(invalid("spec.group", spec.get("group"), "should be a domain with at least one dot"))
    wanted = f"{given.get('plural')}.{spec.get('group')}"
    if obj["metadata"]["name"] != wanted:
        detail = 'must be spec.names.plural+"."+spec.group'
        problems.append(invalid("metadata.name", obj["metadata"]["name"], detail))
    for field in ("plural", "kind"):
        if not given.get(field):
            problems.append(required(f"spec.names.{field}"))
        else:
            problems += names.dns_label_1035(given[field].lower(), f"spec.names.{field}")
    for index, short in enumerate(given.get("shortNames") or ()):
        problems += names.dns_label_1035(short, f"spec.names.shortNames[{index}]")
    if spec.get("scope") not in ("Namespaced", "Cluster"):
        problems.append(not_supported("spec.scope", spec.get("scope"), ["Cluster", "Namespaced"]))
    versions = spec.get("versions") or []
    storage = [version for version in versions if version.get("storage")]
    if len(storage) != 1:
        problems.append(
            invalid("spec.versions", len(storage), "must have exactly one version marked as storage version")
        )
    seen: set[str] = set()
    for index, version in enumerate(versions):
        problems += _crd_version(version, f"spec.versions[{index}]", seen)
    strategy = (spec.get("conversion") or {}).get("strategy", "None")
    if strategy != "None":
        detail = "only None is offered here: serve one schema for all versions"
        problems.append(invalid("spec.conversion.strategy", strategy, detail))
    if old is not None:
        before = old["spec"]
        if before.get("scope") != spec.get("scope"):
            problems.append(invalid("spec.scope", spec.get("scope"), "field is immutable"))
        if (before.get("names") or {}).get("kind") != given.get("kind"):
            problems.append(invalid("spec.names.kind", given.get("kind"), "field is immutable"))
        known = {version["name"] for version in versions if "name" in version}
        for name in (old.get("status") or {}).get("storedVersions") or ():
            if name not in known:
                detail = f"must still have version {name}, which is in status.storedVersions"
                problems.append(invalid("spec.versions", sorted(known), detail))
    return problems


def _crd_version(version: Object, path: str, seen: set[str]) -> list[Problem]:
    name = version.get("name") or ""
    problems = names.dns_label_1035(name, f"{path}.name")
    if name in seen:
        problems.append(duplicate(f"{path}.name", name))
    seen.add(name)
    schema = (version.get("schema") or {}).get("openAPIV3Schema")
    if schema is None:
        return [*problems, required(f"{path}.schema.openAPIV3Schema", "schemas are required")]
    at = f"{path}.schema.openAPIV3Schema"
    if schema.get("type") != "object":
        problems.append(invalid(f"{at}.type", schema.get("type"), "must be object at the root"))
    problems += _structural(schema, at, 0)
    scale = (version.get("subresources") or {}).get("scale")
    if scale is not None and not str(scale.get("specReplicasPath", "")).startswith(".spec."):
        detail = "should be a json path under .spec"
        problems.append(invalid(f"{path}.subresources.scale.specReplicasPath", scale.get("specReplicasPath"), detail))
    for index, column in enumerate(version.get("additionalPrinterColumns") or ()):
        if column.get("type") not in ("integer", "number", "string", "boolean", "date"):
            here = f"{path}.additionalPrinterColumns[{index}].type"
            allowed = ["boolean", "date", "integer", "number", "string"]
            problems.append(not_supported(here, column.get("type"), allowed))
    return problems


_TYPES = ("object", "array", "string", "integer", "number", "boolean", "")


def _structural(schema: Any, path: str, depth: int) -> list[Problem]:
    """Whether a schema is structural enough to be pruned and defaulted by; types must be known everywhere."""
    if not isinstance(schema, dict):
        return [invalid(path, schema, "must be a schema object")]
    if depth > 64:
        return [invalid(path, "...", "nested deeper than 64 levels")]
    problems: list[Problem] = []
    kind = schema.get("type") or ""
    if kind not in _TYPES:
        problems.append(not_supported(f"{path}.type", kind, [name for name in _TYPES if name]))
    open_ended = schema.get("x-kubernetes-preserve-unknown-fields") or schema.get("x-kubernetes-int-or-string")
    if not kind and not open_ended and depth:
        problems.append(required(f"{path}.type", "must not be empty for specified object fields"))
    if kind == "array" and not isinstance(schema.get("items"), dict):
        problems.append(required(f"{path}.items", "must be specified"))
    for name, inner in (schema.get("properties") or {}).items():
        problems += _structural(inner, f"{path}.properties[{name}]", depth + 1)
    for name in ("items", "additionalProperties"):
        inner = schema.get(name)
        if isinstance(inner, dict):
            # The tables cannot type these (a schema, or a list of schemas, or a boolean): checked here.
            wrong = normalize(inner, struct("apiextensions.v1.JSONSchemaProps"), f"{path}.{name}").wrong
            problems += wrong or _structural(inner, f"{path}.{name}", depth + 1)
    return problems[:50]
