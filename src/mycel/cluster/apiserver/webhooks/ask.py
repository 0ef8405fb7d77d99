"""Asking webhooks about a write: which, all at once, and what their answers mean."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Iterable
from typing import Any, NamedTuple

from mycel.cluster.apiserver import errors
from mycel.cluster.apiserver.options import WriteOptions
from mycel.cluster.apiserver.registry import Kind, Registry
from mycel.cluster.apiserver.webhooks.call import CallFailed, Verdict, addresses, call
from mycel.cluster.apiserver.webhooks.match import Operation, Write, matching_kind, takes_namespace, takes_objects
from mycel.cluster.store import ResourceId, Store

log = logging.getLogger("mycel.apiserver")
Object = dict[str, Any]
_CONFIGURATIONS = ResourceId("validatingwebhookconfigurations.admissionregistration.k8s.io")
_OPTIONS = {
    Operation.CREATE: "CreateOptions",
    Operation.UPDATE: "UpdateOptions",
    Operation.DELETE: "DeleteOptions",
}
_MOST_WARNINGS = 16
_WARNING_LIMIT = 256


class Concerned(NamedTuple):
    """A webhook to ask about a write, and the kind it wants to see it as."""

    webhook: Object
    kind: Kind


class Webhooks:
    """All webhooks the store has configurations of."""

    def __init__(self, store: Store, registry: Registry) -> None:
        self._store = store
        self._registry = registry

    def concerned(self, write: Write, namespace: str) -> tuple[Concerned, ...]:
        """Those whose rules and namespaceSelector take a write, whatever its objects: known before it is tried."""
        return tuple(
            Concerned(webhook, kind)
            for record in sorted(self._store.list(_CONFIGURATIONS), key=lambda each: each.name)
            for webhook in record.obj.get("webhooks") or ()
            if (kind := matching_kind(webhook, write, self._registry.kinds)) is not None
            and takes_namespace(webhook, kind, lambda: self._namespace_labels(namespace))
        )

    async def ask(self, concerned: Iterable[Concerned], write: Write, options: WriteOptions) -> None:
        """Nothing when the write may be made, with warnings added to `options`; else ApiFault."""
        asked = [each for each in concerned if takes_objects(each.webhook, write)]
        answers = await asyncio.gather(*(self._one(webhook, kind, write, options) for webhook, kind in asked))
        for (webhook, _), verdict in zip(asked, answers, strict=True):
            if verdict is not None:
                options.warnings.extend(text[:_WARNING_LIMIT] for text in verdict.warnings[:_MOST_WARNINGS])
                if not verdict.allowed:
                    raise _denied(webhook["name"], verdict.status)

    async def _one(self, webhook: Object, kind: Kind, write: Write, options: WriteOptions) -> Verdict | None:
        name = webhook["name"]
        try:
            targets = addresses(webhook["clientConfig"], self._store)
            return await call(webhook, targets, _review(kind, write, options))
        except CallFailed as error:
            if webhook.get("failurePolicy") == "Ignore":
                log.info("webhook %s is passed over: %s", name, error)
                return None
            message = f'Internal error occurred: failed calling webhook "{name}": {error}'
            raise errors.ApiFault(500, "InternalError", message) from error

    def _namespace_labels(self, namespace: str) -> Object:
        record = self._store.head(ResourceId("namespaces"), "", namespace)
        return (record.obj["metadata"].get("labels") or {}) if record else {}


def _review(kind: Kind, write: Write, options: WriteOptions) -> Object:
    meta, asked = write.metadata, write.kind
    request: Object = {
        "uid": str(uuid.uuid4()),
        "kind": {"group": kind.group, "version": kind.version, "kind": kind.kind},
        "resource": {"group": kind.group, "version": kind.version, "resource": kind.plural},
        "requestKind": {"group": asked.group, "version": asked.version, "kind": asked.kind},
        "requestResource": {"group": asked.group, "version": asked.version, "resource": asked.plural},
        "name": meta["name"],
        "operation": write.operation.value,
        "userInfo": options.user.info(),
        "object": None if write.new is None else kind.present(write.new),
        "oldObject": None if write.old is None else kind.present(write.old),
        "dryRun": options.dry_run,
        "options": {"apiVersion": "meta.k8s.io/v1", "kind": _OPTIONS[write.operation]},
    }
    if kind.namespaced:
        request["namespace"] = meta["namespace"]
    if write.subresource:
        request["subResource"] = request["requestSubResource"] = write.subresource
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}


def _denied(name: str, status: Object) -> errors.ApiFault:
    said = status.get("message") or status.get("reason")
    message = f'admission webhook "{name}" denied the request' + (f": {said}" if said else " without explanation")
    code = status.get("code")
    if not isinstance(code, int) or not 400 <= code < 600:
        code = 400
    details = status.get("details")
    return errors.ApiFault(
        code, str(status.get("reason") or ""), message, details=details if isinstance(details, dict) else None
    )
