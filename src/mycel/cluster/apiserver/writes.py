"""Create, update and delete: from a request's object to an accepted version in the store.

Everything here runs without awaiting between reading the newest version and handing the next one to the store, so
no two writers ever overlap. The caller awaits the returned future before it answers.
"""

from __future__ import annotations

import asyncio
import copy
import datetime
import secrets
import uuid
from collections.abc import Callable
from typing import Any, NamedTuple

from mycel.cluster.apiserver import custom, errors
from mycel.cluster.apiserver.admission import Admission
from mycel.cluster.apiserver.defaults import DEFAULTS
from mycel.cluster.apiserver.kinds import STORED_ONLY
from mycel.cluster.apiserver.options import FieldValidation, WriteOptions
from mycel.cluster.apiserver.patch.ownership import note_update
from mycel.cluster.apiserver.registry import Kind
from mycel.cluster.apiserver.schema.check import Shapes, normalize, validate_structure
from mycel.cluster.apiserver.schema.problems import Problem, forbidden, invalid, required
from mycel.cluster.apiserver.schema.types import struct
from mycel.cluster.apiserver.validation import NAME_RULES, VALIDATORS
from mycel.cluster.apiserver.validation.metadata import validate_metadata
from mycel.cluster.apiserver.validation.names import dns_subdomain
from mycel.cluster.store import Record, Store

Object = dict[str, Any]
Change = Callable[[Object], Object]

_NAME_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
_UPDATE_KEEPS = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation")
_MAX_DEPTH = 200  # what is stored must be copied and encoded again, which recurses


class Written(NamedTuple):
    """The outcome of a write: the object as stored, and what to await (None: nothing was written)."""

    obj: Object
    done: asyncio.Future[None] | None
    removed: bool = False


def now_text() -> str:
    """This moment as metadata has it."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Writes:
    """The write path of the API server."""

    def __init__(self, store: Store, admission: Admission) -> None:
        self._store = store
        self._admission = admission

    # --- create ---

    def create(self, kind: Kind, namespace: str, obj: Object, options: WriteOptions) -> Written:
        """A new object; ApiFault when it is malformed, not allowed or already there."""
        self.check_shape(kind, obj, options)
        meta: dict[str, Any] = obj.setdefault("metadata", {})
        self._set_namespace(kind, namespace, meta)
        generated = meta.get("generateName")
        if not meta.get("name") and generated:
            meta["name"] = generated[:58] + "".join(secrets.choice(_NAME_ALPHABET) for _ in range(5))
        if not meta.get("name"):
            raise errors.invalid_object(
                kind.kind, kind.group, "", [required("metadata.name", "name or generateName is required")]
            )
        if meta.get("resourceVersion"):
            raise errors.bad_request("resourceVersion should not be set on objects to be created")
        for name in ("selfLink", "deletionTimestamp", "deletionGracePeriodSeconds", "resourceVersion"):
            meta.pop(name, None)
        if "status" in kind.subresources:
            obj.pop("status", None)
        obj = kind.absorb(obj)
        if kind.resource in STORED_ONLY:
            options.warnings.append(
                f"{kind.plural} are stored, and nothing in this cluster acts on them: {meta['name']} stays as it is"
            )
        self._default(kind, obj)
        self._admission.before_create(kind, obj)
        self._judge(kind, obj, None)
        existing = self._store.head(kind.resource, meta.get("namespace", ""), meta["name"])
        if existing is not None:
            raise errors.already_exists(kind.plural, kind.group, meta["name"])
        meta["uid"] = str(uuid.uuid4())
        meta["creationTimestamp"] = now_text()
        meta.pop("generation", None)
        if kind.has_generation:
            meta["generation"] = 1
        self._admission.allocate(kind, obj, None, dry_run=options.dry_run)
        if options.dry_run:
            return Written(obj, None)
        record, done = self._store.put(kind.resource, obj)
        self._admission.written(kind, record.obj, None)
        return Written(record.obj, done)

    # --- update ---

    def newest(self, kind: Kind, namespace: str, name: str) -> Record:
        """The newest version; ApiFault 404 when there is none."""
        record = self._store.head(kind.resource, namespace, name)
        if record is None:
            raise errors.not_found(kind.plural, kind.group, name)
        return record

    def change(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        change: Change,
        *,
        options: WriteOptions,
        subresource: str = "",
        tracked: bool = True,
    ) -> Written:
        """Apply `change` (which must not keep its argument) to the newest version, as `kind` shows it.

        `subresource` says which part may change; `tracked` records field ownership for server-side apply.
        """
        record = self.newest(kind, namespace, name)
        old = record.obj
        wanted = change(copy.deepcopy(kind.present(old)))
        self.check_shape(kind, wanted, options)
        meta: dict[str, Any] = wanted.setdefault("metadata", {})
        self._set_namespace(kind, namespace, meta)
        if meta.setdefault("name", name) != name:
            problem = invalid("metadata.name", meta["name"], "field is immutable")
            raise errors.bad_request(
                f"the name of the object ({meta['name']}) does not match the name on the URL ({name})", [problem]
            )
        version = meta.get("resourceVersion")
        if version and version != old["metadata"]["resourceVersion"]:
            raise errors.stale(kind.plural, kind.group, name)
        if meta.get("uid") and meta["uid"] != old["metadata"]["uid"]:
            detail = (
                f"Precondition failed: UID in precondition: {meta['uid']}, UID in object meta: {old['metadata']['uid']}"
            )
            raise errors.conflict(kind.plural, kind.group, name, detail)
        return self._replace(kind, old, kind.absorb(wanted), options=options, subresource=subresource, tracked=tracked)

    def _replace(
        self, kind: Kind, old: Object, new: Object, *, options: WriteOptions, subresource: str, tracked: bool
    ) -> Written:
        new = _limit_to(kind, old, new, subresource)
        meta, before = new["metadata"], old["metadata"]
        for name in _UPDATE_KEEPS:
            if name in before:
                meta[name] = before[name]
            else:
                meta.pop(name, None)
        meta.pop("selfLink", None)
        meta["resourceVersion"] = before["resourceVersion"]
        if subresource != "status":
            self._default(kind, new, old)
            if before.get("deletionTimestamp"):
                self._check_finalizers(kind, meta, before)
            self._admission.before_update(kind, new, old)
        if subresource != "status" or kind.custom is not None:  # a built-in kind's status is typed, not judged
            self._judge(kind, new, old)
        if kind.has_generation and subresource != "status" and _spec_of(new, kind) != _spec_of(old, kind):
            meta["generation"] = before.get("generation", 0) + 1
        if tracked:
            note_update(old, new, options.manager, subresource=subresource, now=now_text(), kind=kind)
        self._admission.allocate(kind, new, old, dry_run=options.dry_run)
        if new == old:
            return Written(old, None)
        if options.dry_run:
            return Written(new, None)
        if before.get("deletionTimestamp") and self._may_go(kind, new):
            return self._remove(kind, new)
        record, done = self._store.put(kind.resource, new)
        self._admission.written(kind, record.obj, old)
        return Written(record.obj, done)

    @staticmethod
    def _check_finalizers(kind: Kind, meta: Object, before: Object) -> None:
        added = set(meta.get("finalizers") or ()) - set(before.get("finalizers") or ())
        if added:
            detail = (
                f"no new finalizers can be added if the object is being deleted, found new finalizers {sorted(added)}"
            )
            raise errors.invalid_object(kind.kind, kind.group, meta["name"], [forbidden("metadata.finalizers", detail)])

    # --- delete ---

    def delete(self, kind: Kind, namespace: str, name: str, wishes: Object, options: WriteOptions) -> Written:
        """Delete, or begin to: finalizers and grace periods keep the object with a deletionTimestamp."""
        record = self.newest(kind, namespace, name)
        old = record.obj
        meta = old["metadata"]
        preconditions = wishes.get("preconditions") or {}
        for field, key in (("UID", "uid"), ("ResourceVersion", "resourceVersion")):
            wanted = preconditions.get(key)
            if wanted and wanted != meta[key]:
                detail = f"Precondition failed: {field} in precondition: {wanted}, {field} in object meta: {meta[key]}"
                raise errors.conflict(kind.plural, kind.group, name, detail)
        new = copy.deepcopy(old)
        _set_propagation(new["metadata"], wishes)
        grace_s = self._grace(kind, old, wishes)
        self._mark_deleted(kind, new, grace_s)
        if grace_s == 0 and self._may_go(kind, new):
            return Written(old, None, removed=True) if options.dry_run else self._remove(kind, new)
        if options.dry_run or new == old:
            return Written(new, None)
        done_record, done = self._store.put(kind.resource, new)
        self._admission.written(kind, done_record.obj, old)
        return Written(done_record.obj, done)

    @staticmethod
    def _grace(kind: Kind, obj: Object, wishes: Object) -> int:
        """Seconds a pod gets to end; 0 for everything else and for pods that run nowhere."""
        if kind.resource != "pods":
            return 0
        spec, status = obj.get("spec") or {}, obj.get("status") or {}
        asked = wishes.get("gracePeriodSeconds")
        if asked is None:
            asked = spec.get("terminationGracePeriodSeconds", 30)
        if not isinstance(asked, int) or isinstance(asked, bool):
            raise errors.bad_request("gracePeriodSeconds must be a number")
        if asked < 0:
            asked = 1
        if not spec.get("nodeName") or status.get("phase") in ("Succeeded", "Failed"):
            return 0
        return asked

    @staticmethod
    def _mark_deleted(kind: Kind, obj: Object, grace_s: int) -> None:
        meta = obj["metadata"]
        pending = meta.get("deletionTimestamp")
        if pending and grace_s >= (meta.get("deletionGracePeriodSeconds") or 0):
            return
        moment = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=grace_s)
        meta["deletionTimestamp"] = moment.strftime("%Y-%m-%dT%H:%M:%SZ")
        meta["deletionGracePeriodSeconds"] = grace_s
        if kind.has_generation and not pending:
            meta["generation"] = meta.get("generation", 0) + 1
        if kind.resource == "namespaces":
            obj["status"] = {**obj.get("status", {}), "phase": "Terminating"}

    def _may_go(self, kind: Kind, obj: Object) -> bool:
        if obj["metadata"].get("finalizers"):
            return False
        if kind.resource == "namespaces":
            return not (obj.get("spec") or {}).get("finalizers")
        if kind.resource == "pods":
            return not obj["metadata"].get("deletionGracePeriodSeconds")
        return self._admission.may_go(kind, obj)

    def _remove(self, kind: Kind, obj: Object) -> Written:
        record, done = self._store.delete(kind.resource, obj)
        self._admission.removed(kind, record.obj)
        return Written(record.obj, done, removed=True)

    # --- judging ---

    def check_shape(self, kind: Kind, obj: Object, options: WriteOptions) -> None:
        """Types, unknown fields, apiVersion and kind; ApiFault 400. Unknown fields are removed from `obj`."""
        for name, wanted in (("apiVersion", kind.api_version), ("kind", kind.kind)):
            got = obj.setdefault(name, wanted)
            if got != wanted:
                raise errors.bad_request(
                    f"the object provided is unrecognized: {name} is {str(got)[:100]!r}, "
                    f"and this address takes {wanted!r}",
                    [invalid(name, got, f"must be {wanted}")],
                )
        if not within_depth(obj, _MAX_DEPTH):
            raise errors.bad_request(f"the object is nested deeper than {_MAX_DEPTH} levels")
        found = self._shapes(kind, obj)
        if found.wrong:
            said = "; ".join(str(problem) for problem in found.wrong[:10])
            message = f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}: {said}'
            raise errors.bad_request(message, found.wrong)
        if found.unknown:
            names = [f'unknown field "{path}"' for path in found.unknown]
            if options.validation is FieldValidation.STRICT:
                message = (
                    f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}: '
                    f"strict decoding error: {', '.join(names[:20])}"
                )
                problems = [invalid(path, None, "unknown field") for path in found.unknown[:20]]
                raise errors.bad_request(message, problems)
            if options.validation is FieldValidation.WARN:
                options.warnings.extend(names[:20])

    @staticmethod
    def _shapes(kind: Kind, obj: Object) -> Shapes:
        if kind.struct is not None:
            return normalize(obj, struct(kind.struct))
        meta = obj.get("metadata", {})
        found = normalize({} if meta is None else meta, struct("meta.v1.ObjectMeta"), "metadata")
        if not found.wrong:
            found.unknown += custom.prune(obj, kind)
        return found

    def _default(self, kind: Kind, obj: Object, old: Object | None = None) -> None:
        if kind.custom is not None:
            custom.default(obj, kind)
            return
        setter = DEFAULTS.get(kind.resource)
        if setter is not None:
            setter(obj, old)

    def _judge(self, kind: Kind, obj: Object, old: Object | None) -> None:
        name_rule = NAME_RULES.get(kind.resource, dns_subdomain)
        problems: list[Problem] = validate_metadata(obj["metadata"], old, name_rule, namespaced=kind.namespaced)
        if kind.custom is not None:
            problems += custom.validate(obj, kind)
        else:
            assert kind.struct is not None
            if kind.storage is None:
                problems += validate_structure(obj, struct(kind.struct))
            rule = VALIDATORS.get(kind.resource)
            if rule is not None and not problems:
                problems += rule(obj, old)
        if problems:
            raise errors.invalid_object(kind.kind, kind.group, obj["metadata"]["name"], problems)

    @staticmethod
    def _set_namespace(kind: Kind, namespace: str, meta: Object) -> None:
        if not kind.namespaced:
            meta.pop("namespace", None)
            return
        given = meta.setdefault("namespace", namespace)
        if given != namespace:
            raise errors.bad_request(
                "the namespace of the provided object does not match the namespace sent on the request "
                f"({given} and {namespace})",
                [invalid("metadata.namespace", given, f"must be {namespace}")],
            )


def within_depth(value: Any, limit: int) -> bool:
    """Whether `value` has at most `limit` levels of objects and lists. Does not recurse."""
    level = [value]
    for _ in range(limit):
        level = [
            inner
            for item in level
            for inner in (item.values() if isinstance(item, dict) else item)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return True
    return False


def _limit_to(kind: Kind, old: Object, new: Object, subresource: str) -> Object:
    """What a write to `subresource` may change: the status alone, or all but the status."""
    if subresource == "status":
        result = {**old, "metadata": dict(old["metadata"])}
        if "status" in new:
            result["status"] = new["status"]
        else:
            result.pop("status", None)
        if "managedFields" in new["metadata"]:
            result["metadata"]["managedFields"] = new["metadata"]["managedFields"]
        if kind.resource in ("nodes", "pods"):
            for name in ("labels", "annotations"):
                if name in new["metadata"]:
                    result["metadata"][name] = new["metadata"][name]
        return result
    if subresource == "" and "status" in kind.subresources:
        if "status" in old:
            new["status"] = old["status"]
        else:
            new.pop("status", None)
    return new


def _spec_of(obj: Object, kind: Kind) -> Object:
    ignored = {"metadata"} if kind.custom is not None and "status" not in kind.subresources else {"metadata", "status"}
    return {name: value for name, value in obj.items() if name not in ignored}


def _set_propagation(meta: Object, wishes: Object) -> None:
    """The finalizers that tell the garbage collector what to do with dependents."""
    policy = wishes.get("propagationPolicy")
    if policy is None and "orphanDependents" in wishes:
        policy = "Orphan" if wishes["orphanDependents"] else "Background"
    if policy is None:
        return
    if policy not in ("Background", "Foreground", "Orphan"):
        raise errors.bad_request(
            f"invalid propagationPolicy {str(policy)[:40]!r}: use Background, Foreground or Orphan"
        )
    finalizers = [name for name in meta.get("finalizers") or () if name not in ("foregroundDeletion", "orphan")]
    if policy == "Foreground":
        finalizers.append("foregroundDeletion")
    elif policy == "Orphan":
        finalizers.append("orphan")
    if finalizers:
        meta["finalizers"] = finalizers
    else:
        meta.pop("finalizers", None)
