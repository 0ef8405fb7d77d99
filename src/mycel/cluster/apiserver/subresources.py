"""Subresources that are not plain parts of an object: scale, binding, eviction, tokens, reviews."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

from aiohttp import web

from mycel.cluster.apiserver import codec, errors
from mycel.cluster.apiserver.answers import respond
from mycel.cluster.apiserver.registry import Kind, Registry
from mycel.cluster.apiserver.rest import Call, Rest, patcher
from mycel.cluster.apiserver.schema.check import normalize, validate_structure
from mycel.cluster.apiserver.schema.problems import invalid, required
from mycel.cluster.apiserver.schema.types import struct
from mycel.cluster.apiserver.tables.column import NONE, labels_text, selector_text
from mycel.cluster.apiserver.tokens import Tokens
from mycel.cluster.apiserver.writes import Writes, now_text
from mycel.cluster.store import ResourceId, Store

Object = dict[str, Any]
_SCALE = Kind("autoscaling", "v1", "scales", "Scale", "scale", namespaced=True, struct="autoscaling.v1.Scale")
_TOKEN = Kind(
    "authentication.k8s.io",
    "v1",
    "tokenrequests",
    "TokenRequest",
    "",
    namespaced=True,
    struct="authentication.v1.TokenRequest",
)
_EVICTION = Kind("policy", "v1", "evictions", "Eviction", "", namespaced=True, struct="policy.v1.Eviction")
_BINDING = Kind("", "v1", "bindings", "Binding", "", namespaced=True, struct="core.v1.Binding")
_MIN_TOKEN_S, _MAX_TOKEN_S = 600, 365 * 86400


class Subresources:
    """Everything below an object that has rules of its own."""

    def __init__(self, store: Store, writes: Writes, rest: Rest, tokens: Tokens, registry: Registry) -> None:
        self._store = store
        self._writes = writes
        self._rest = rest
        self._tokens = tokens
        self._registry = registry

    # --- scale ---

    async def scale(self, call: Call) -> web.StreamResponse:
        """GET, PUT and PATCH of a scalable object's replicas, as autoscaling/v1 Scale."""
        kind, target = call.kind, call.target
        if call.request.method == "GET":
            record = self._store.get(kind.resource, target.namespace, target.name)
            if record is None:
                raise errors.not_found(kind.plural, kind.group, target.name)
            return respond(_scale_of(kind, record.obj))
        options = call.write_options()
        if call.request.method == "PUT":
            body = codec.decode_object(call.content_type, call.body, _SCALE)
            change: Callable[[Object], Object] = lambda _: body  # noqa: E731
        else:
            change = patcher(call.content_type, call.body, _SCALE)

        def rescale(obj: Object) -> Object:
            wanted = change(_scale_of(kind, obj))
            _check(wanted, _SCALE)
            version = (wanted.get("metadata") or {}).get("resourceVersion")
            if version and version != obj["metadata"]["resourceVersion"]:
                raise errors.stale(kind.plural, kind.group, target.name)
            replicas = (wanted.get("spec") or {}).get("replicas", 0)
            if replicas < 0:
                problem = invalid("spec.replicas", replicas, "must be greater than or equal to 0")
                raise errors.invalid_object("Scale", "autoscaling", target.name, [problem])
            _set_path(obj, _scale_paths(kind)["specReplicasPath"], replicas)
            return obj

        written = self._writes.change(kind, target.namespace, target.name, rescale, options=options)
        if written.done is not None:
            await written.done
        return respond(_scale_of(kind, written.obj))

    # --- pods ---

    async def bind(self, call: Call) -> web.StreamResponse:
        """POST pods/NAME/binding (or a Binding to `bindings`): the scheduler's decision."""
        obj = codec.decode_object(call.content_type, call.body, _BINDING)
        _check(obj, _BINDING)
        name = call.target.name or (obj.get("metadata") or {}).get("name") or ""
        node = (obj.get("target") or {}).get("name")
        if not node:
            raise errors.invalid_object("Binding", "", name, [required("target.name")])
        pods = self._registry.find("", "v1", "pods")
        assert pods is not None, "pods are built in"
        moment = now_text()

        def assign(pod: Object) -> Object:
            if pod["metadata"].get("deletionTimestamp"):
                raise errors.conflict("pods", "", name, f"pod {name} is being deleted, cannot be assigned to a host")
            if pod["spec"].get("nodeName"):
                raise errors.conflict(
                    "pods", "", name, f'pod {name} is already assigned to node "{pod["spec"]["nodeName"]}"'
                )
            pod["spec"]["nodeName"] = node
            annotations = (obj.get("metadata") or {}).get("annotations")
            if annotations:
                pod["metadata"].setdefault("annotations", {}).update(annotations)
            status = pod.setdefault("status", {})
            conditions = [c for c in status.get("conditions") or () if c.get("type") != "PodScheduled"]
            scheduled = {"type": "PodScheduled", "status": "True", "lastProbeTime": None, "lastTransitionTime": moment}
            status["conditions"] = [*conditions, scheduled]
            return pod

        written = self._writes.change(
            pods, call.target.namespace, name, assign, options=call.write_options(), subresource="binding"
        )
        if written.done is not None:
            await written.done
        return respond({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}, status=201)

    async def evict(self, call: Call) -> web.StreamResponse:
        """POST pods/NAME/eviction: a delete that disruption budgets may refuse (429)."""
        obj = codec.decode_object(call.content_type, call.body, _EVICTION)
        if obj.get("apiVersion") == "policy/v1beta1":
            obj["apiVersion"] = "policy/v1"
        _check(obj, _EVICTION)
        target = call.target
        record = self._writes.newest(call.kind, target.namespace, target.name)
        budget = self._blocking_budget(record.obj)
        if budget is not None:
            message = f"Cannot evict pod as it would violate the pod's disruption budget {budget}."
            raise errors.ApiFault(429, "TooManyRequests", message)
        wishes = obj.get("deleteOptions") or {}
        written = self._writes.delete(call.kind, target.namespace, target.name, wishes, call.write_options())
        if written.done is not None:
            await written.done
        return respond({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}, status=201)

    def _blocking_budget(self, pod: Object) -> str | None:
        labels = pod["metadata"].get("labels") or {}
        for record in self._store.list(ResourceId("poddisruptionbudgets.policy"), pod["metadata"]["namespace"]):
            wanted = ((record.obj.get("spec") or {}).get("selector") or {}).get("matchLabels") or {}
            if not wanted or any(labels.get(key) != value for key, value in wanted.items()):
                continue
            status = record.obj.get("status") or {}
            if status.get("observedGeneration") and status.get("disruptionsAllowed", 0) <= 0:
                return record.name
        return None

    async def finalize(self, call: Call) -> web.StreamResponse:
        """PUT namespaces/NAME/finalize: the namespace controller gives up its finalizer."""
        obj = codec.decode_object(call.content_type, call.body, call.kind)
        finalizers = (obj.get("spec") or {}).get("finalizers") or []

        def set_finalizers(old: Object) -> Object:
            old["spec"] = {**old.get("spec", {}), "finalizers": finalizers}
            return old

        written = self._writes.change(
            call.kind, "", call.target.name, set_finalizers, options=call.write_options(), subresource="finalize"
        )
        if written.done is not None:
            await written.done
        return respond(written.obj)

    # --- identities ---

    async def token(self, call: Call) -> web.StreamResponse:
        """POST serviceaccounts/NAME/token: a bound token."""
        target = call.target
        account = self._store.get(ResourceId("serviceaccounts"), target.namespace, target.name)
        if account is None:
            raise errors.not_found("serviceaccounts", "", target.name)
        obj = codec.decode_object(call.content_type, call.body, _TOKEN)
        _check(obj, _TOKEN)
        spec = obj.setdefault("spec", {})
        lifetime_s = spec.get("expirationSeconds") or 3600
        if not _MIN_TOKEN_S <= lifetime_s <= 1 << 32:
            problem = invalid("spec.expirationSeconds", lifetime_s, "may not specify a duration less than 10 minutes")
            raise errors.invalid_object("TokenRequest", "authentication.k8s.io", target.name, [problem])
        bound = spec.get("boundObjectRef")
        if bound is not None:
            bound = self._bound(bound, target.namespace)
            spec["boundObjectRef"] = bound
        token, expires = self._tokens.issue(
            account.obj,
            audiences=spec.get("audiences") or (),
            lifetime_s=min(lifetime_s, _MAX_TOKEN_S),
            bound=bound,
        )
        moment = datetime.datetime.fromtimestamp(expires, datetime.UTC)
        obj["metadata"] = {"name": target.name, "namespace": target.namespace, "creationTimestamp": now_text()}
        obj["status"] = {"token": token, "expirationTimestamp": moment.strftime("%Y-%m-%dT%H:%M:%SZ")}
        return respond(obj, status=201)

    def _bound(self, reference: Object, namespace: str) -> Object:
        kind, name = reference.get("kind"), reference.get("name", "")
        if kind not in ("Pod", "Secret", "Node"):
            problem = invalid("spec.boundObjectRef.kind", kind, "must be Pod, Secret or Node")
            raise errors.invalid_object("TokenRequest", "authentication.k8s.io", name, [problem])
        plural = f"{kind.lower()}s"
        record = self._store.get(ResourceId(plural), "" if kind == "Node" else namespace, name)
        if record is None:
            raise errors.not_found(plural, "", name)
        uid = record.obj["metadata"]["uid"]
        if reference.get("uid") and reference["uid"] != uid:
            raise errors.conflict(
                plural, "", name, "the UID in the bound object reference does not match the UID in record"
            )
        return {**reference, "uid": uid}

    async def review(self, call: Call) -> web.StreamResponse:
        """POST of the review kinds: who am I, may I."""
        kind = call.kind
        obj = codec.decode_object(call.content_type, call.body, kind)
        _check(obj, kind)
        match kind.kind:
            case "TokenReview":
                spec = obj.get("spec") or {}
                user, audiences = self._tokens.review(spec.get("token") or "", spec.get("audiences") or ())
                obj["status"] = (
                    {"authenticated": True, "user": user.info(), "audiences": audiences}
                    if user is not None
                    else {"authenticated": False, "error": "the token is not valid (any more)", "user": {}}
                )
            case "SelfSubjectReview":
                obj["status"] = {"userInfo": call.user.info()}
            case "SelfSubjectRulesReview":
                rule = {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}
                paths = {"verbs": ["*"], "nonResourceURLs": ["*"]}
                obj["status"] = {"resourceRules": [rule], "nonResourceRules": [paths], "incomplete": False}
            case _:
                # RBAC objects are stored, not enforced: whoever is authenticated may.
                obj["status"] = {"allowed": True, "reason": "every authenticated user may do everything here"}
        obj.setdefault("metadata", {})
        return respond(obj, status=201)


def _check(obj: Object, kind: Kind) -> None:
    """Types and required fields of an object that is not stored."""
    assert kind.struct is not None
    for name, wanted in (("apiVersion", kind.api_version), ("kind", kind.kind)):
        if obj.setdefault(name, wanted) != wanted:
            raise errors.bad_request(
                f"{name}: expected {wanted}, got {str(obj[name])[:100]}",
                [invalid(name, obj[name], f"must be {wanted}")],
            )
    shape = struct(kind.struct)
    found = normalize(obj, shape)
    if found.wrong:
        said = "; ".join(str(problem) for problem in found.wrong[:10])
        raise errors.bad_request(f"{kind.kind} cannot be read: {said}", found.wrong)
    problems = validate_structure(obj, shape)
    if problems:
        raise errors.invalid_object(kind.kind, kind.group, "", problems)


def _scale_paths(kind: Kind) -> dict[str, str]:
    if kind.custom is not None and kind.custom.scale is not None:
        return kind.custom.scale
    return {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}


def _scale_of(kind: Kind, obj: Object) -> Object:
    paths = _scale_paths(kind)
    meta = obj["metadata"]
    kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    status: Object = {"replicas": _at_path(obj, paths.get("statusReplicasPath", "")) or 0}
    if kind.custom is not None:
        selector = _at_path(obj, paths.get("labelSelectorPath", ""))
        if isinstance(selector, str):
            status["selector"] = selector
    else:
        selector = (obj.get("spec") or {}).get("selector") or {}
        text = labels_text(selector) if kind.resource == "replicationcontrollers" else selector_text(selector)
        if text != NONE:
            status["selector"] = text
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {name: meta[name] for name in kept if name in meta},
        "spec": {"replicas": _at_path(obj, paths["specReplicasPath"]) or 0},
        "status": status,
    }


def _at_path(obj: Any, path: str) -> Any:
    for name in path.strip(".").split(".") if path else ():
        obj = obj.get(name) if isinstance(obj, dict) else None
    return obj if path else None


def _set_path(obj: Object, path: str, value: Any) -> None:
    *parents, last = path.strip(".").split(".")
    for name in parents:
        obj = obj.setdefault(name, {})
    obj[last] = value
