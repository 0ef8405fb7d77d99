"""The verbs: get, list, watch, create, update, patch, delete, deletecollection; generic over kinds.

HTTP comes in as a `Call` (parsed path, query, user, body) and leaves as an aiohttp response. What a kind is, what a
write does and what a table shows is decided elsewhere.
"""

from __future__ import annotations

import asyncio
import copy
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from aiohttp import web

from mycel.cluster.apiserver import codec, errors, selectors, tables
from mycel.cluster.apiserver.answers import as_dry_run, as_trial, metadata_only, page, renderer, respond, respond_raw
from mycel.cluster.apiserver.authn import User
from mycel.cluster.apiserver.negotiate import Form, Wanted, choose
from mycel.cluster.apiserver.options import ListOptions, WriteOptions, list_options, write_options
from mycel.cluster.apiserver.patch.apply import apply_configuration
from mycel.cluster.apiserver.patch.json_patch import apply_json_patch
from mycel.cluster.apiserver.patch.merge import apply_merge_patch
from mycel.cluster.apiserver.patch.strategic import apply_strategic_patch
from mycel.cluster.apiserver.paths import Target
from mycel.cluster.apiserver.registry import Kind
from mycel.cluster.apiserver.schema.types import struct
from mycel.cluster.apiserver.watch import Schedule, Watcher, bookmark
from mycel.cluster.apiserver.webhooks import Operation, Webhooks, Write
from mycel.cluster.apiserver.writes import Writes, Written, now_text
from mycel.cluster.store import Record, Revision, RevisionTooOld, Store

Object = dict[str, Any]
Transform = Callable[[Object], Object]
PATCH_TYPES = (
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
)
_TRIES = 5  # as often as clients of busy objects do
_WATCH_S = (1800.0, 3600.0)


@dataclass(slots=True)
class Call:
    """One request to a resource."""

    request: web.BaseRequest
    target: Target
    kind: Kind
    user: User
    query: Mapping[str, str]
    body: bytes

    @property
    def content_type(self) -> str:
        """Of the body."""
        return self.request.headers.get("Content-Type", "")

    def wanted(self) -> Wanted:
        """The form of the answer."""
        return choose(self.request.headers.get("Accept", ""))

    def write_options(self) -> WriteOptions:
        """From the query."""
        return write_options(self.query, self.user, self.request.headers.get("User-Agent", ""))


class Rest:
    """The verbs over one store."""

    def __init__(self, store: Store, writes: Writes, webhooks: Webhooks) -> None:
        self._store = store
        self._writes = writes
        self._webhooks = webhooks
        self.closing = asyncio.Event()
        self._watchers: set[Watcher] = set()

    def close(self) -> None:
        """End all watches."""
        self.closing.set()
        for watcher in tuple(self._watchers):
            watcher.close()

    # --- reading ---

    def get(self, call: Call) -> web.StreamResponse:
        """One object."""
        target, kind = call.target, call.kind
        record = self._store.get(kind.resource, target.namespace, target.name)
        if record is None:
            raise errors.not_found(kind.plural, kind.group, target.name)
        wanted = call.wanted()
        if wanted == (Form.OBJECT, "v1", False) and kind.stored_as_is:
            return respond_raw(record.raw)
        return self.respond(call, kind.present(record.obj), wanted=wanted)

    async def list(self, call: Call) -> web.StreamResponse:
        """A collection, or a watch on it."""
        options = list_options(call.query)
        predicate = selectors.both(
            selectors.label_selector(options.label_selector),
            selectors.field_selector(options.field_selector, call.kind),
        )
        if call.query.get("watch", "").lower() in ("true", "1"):
            return await self._watch(call, options, predicate)
        if options.resource_version and int(options.resource_version) > self._store.revision:
            raise errors.ApiFault(
                504,
                "Timeout",
                f"Too large resource version: {options.resource_version}, current: {self._store.revision}",
                details={
                    "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
                    "retryAfterSeconds": 1,
                },
            )
        records = self._select(call, predicate)
        records, meta = page(records, options, self._store.revision)
        wanted = call.wanted()
        kind = call.kind
        if wanted.form is Form.TABLE:
            objects = [kind.present(record.obj) for record in records]
            include = call.query.get("includeObject", "Metadata")
            return respond(tables.table(kind, objects, meta, version=wanted.version, include=include), wanted)
        head = {"kind": kind.list_kind, "apiVersion": kind.api_version, "metadata": meta}
        if wanted.form is Form.METADATA:
            items = [metadata_only(record.obj, wanted.version, nested=False) for record in records]
            head |= {"kind": "PartialObjectMetadataList", "apiVersion": f"meta.k8s.io/{wanted.version}"}
            return respond({**head, "items": items}, wanted)
        if wanted.yaml or not kind.stored_as_is:
            return respond({**head, "items": [kind.present(record.obj) for record in records]}, wanted)
        start = codec.encode_json(head)[:-1]
        return respond_raw(b"".join((start, b',"items":[', b",".join([record.raw for record in records]), b"]}\n")))

    def _select(self, call: Call, predicate: selectors.Predicate | None) -> list[Record]:
        records = self._store.list(call.kind.resource, call.target.namespace or None)
        return records if predicate is None else [record for record in records if predicate(record.obj)]

    async def _watch(
        self, call: Call, options: ListOptions, predicate: selectors.Predicate | None
    ) -> web.StreamResponse:
        if options.initial_events:
            detail = "sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled"
            raise errors.ApiFault(
                422, "Invalid", f'ListOptions.meta.k8s.io "" is invalid: sendInitialEvents: Forbidden: {detail}'
            )
        kind = call.kind
        wanted = call.wanted()
        watcher = Watcher(
            self._store,
            kind,
            call.target.namespace,
            predicate=predicate,
            render=renderer(call.kind, wanted, call.query.get("includeObject", "Metadata")),
        )
        self._watchers.add(watcher)
        try:
            response = web.StreamResponse(
                headers={"Content-Type": "application/json", "Cache-Control": "no-cache, private"}
            )
            response.enable_chunked_encoding()
            version = options.resource_version
            try:
                if version in ("", "0"):
                    watcher.start_with(self._select(call, predicate))
                else:
                    watcher.start_from(Revision(int(version)))
            except RevisionTooOld as error:
                fault = errors.gone(str(error))
                await response.prepare(call.request)
                await response.write(b'{"type":"ERROR","object":%s}\n' % codec.encode_json(fault.status()))
                return response
            await response.prepare(call.request)
            await self._stream(response, watcher, kind, options)
            return response
        finally:
            watcher.close()
            self._watchers.discard(watcher)

    async def _stream(self, response: web.StreamResponse, watcher: Watcher, kind: Kind, options: ListOptions) -> None:
        timeout_s = options.timeout_s or random.uniform(*_WATCH_S)  # noqa: S311 (spreads reconnects)
        schedule = Schedule(timeout_s=timeout_s, bookmarks=options.bookmarks)
        try:
            while True:
                frames = await watcher.take(schedule.wait_s())
                if frames:
                    await response.write(frames)
                if schedule.bookmark_due() and not watcher.overflowed:
                    # Nothing is queued for us: every change up to this revision has been offered.
                    frames = await watcher.take(0)
                    await response.write(frames + bookmark(kind, self._store.revision))
                if schedule.over() or watcher.closed or watcher.overflowed:
                    break
            await response.write_eof()
        except ConnectionError:
            return  # the client went away

    # --- writing ---

    async def create(self, call: Call) -> web.StreamResponse:
        """POST to a collection."""
        options = call.write_options()
        obj = codec.decode_object(call.content_type, call.body, call.kind)
        return await self.finish(call, await self._create(call, obj, options), options, created=True)

    async def update(self, call: Call) -> web.StreamResponse:
        """PUT to an object or its status; creates where the kind allows that is not offered (404)."""
        options = call.write_options()
        obj = codec.decode_object(call.content_type, call.body, call.kind)
        written = await self._change(call, lambda _: copy.deepcopy(obj), options)
        return await self.finish(call, written, options)

    async def patch(self, call: Call) -> web.StreamResponse:
        """PATCH in any of the four types."""
        options = call.write_options()
        if codec.media_type(call.content_type) == "application/apply-patch+yaml":
            return await self._apply(call, options)
        change = patcher(call.content_type, call.body, call.kind)
        written = await self._change(call, change, options)
        return await self.finish(call, written, options)

    async def _apply(self, call: Call, options: WriteOptions) -> web.StreamResponse:
        target, kind = call.target, call.kind
        if not call.query.get("fieldManager"):
            raise errors.bad_request(
                "PatchOptions.meta.k8s.io is invalid: fieldManager: Required value: is required for apply patch"
            )
        wanted = codec.decode_yaml(call.body)
        if not isinstance(wanted, dict):
            raise errors.bad_request("the request body is not an object")
        name = (wanted.get("metadata") or {}).get("name") if isinstance(wanted.get("metadata"), dict) else None
        if name not in (None, target.name):
            raise errors.bad_request(
                f"the name of the object ({name}) does not match the name on the URL ({target.name})"
            )
        self._writes.check_shape(kind, wanted, options)
        wanted.setdefault("metadata", {})["name"] = target.name

        def merge(current: Object | None) -> Object:
            return apply_configuration(
                current,
                wanted,
                kind,
                manager=options.manager,
                force=options.force,
                now=now_text(),
                subresource=target.subresource,
            )

        if self._store.head(kind.resource, target.namespace, target.name) is None:
            if target.subresource:
                raise errors.not_found(kind.plural, kind.group, target.name)
            written = await self._create(call, merge(None), options)
            return await self.finish(call, written, options, created=True)
        written = await self._change(call, merge, options, tracked=False)
        return await self.finish(call, written, options)

    async def _create(self, call: Call, obj: Object, options: WriteOptions) -> Written:
        """Try the write, ask the webhooks about what would come of it, then make it."""
        kind, namespace = call.kind, call.target.namespace
        write = Write(Operation.CREATE, kind)
        if concerned := self._webhooks.concerned(write, namespace):
            planned = self._writes.create(kind, namespace, copy.deepcopy(obj), as_trial(options)).obj
            await self._webhooks.ask(concerned, replace(write, new=planned), options)
            obj.setdefault("metadata", {})["name"] = planned["metadata"]["name"]  # it may have been generated
        return self._writes.create(kind, namespace, obj, options)

    async def _change(self, call: Call, change: Transform, options: WriteOptions, *, tracked: bool = True) -> Written:
        """Like `_create`; what others change while the webhooks think is asked about again."""
        kind, target = call.kind, call.target

        def make(how: WriteOptions) -> Written:
            return self._writes.change(
                kind,
                target.namespace,
                target.name,
                change,
                options=how,
                subresource=target.subresource,
                tracked=tracked,
            )

        write = Write(Operation.UPDATE, kind, target.subresource)
        concerned = self._webhooks.concerned(write, target.namespace)
        if not concerned:
            return make(options)
        for _ in range(_TRIES):
            old = self._writes.newest(kind, target.namespace, target.name)
            planned = make(as_trial(options)).obj
            await self._webhooks.ask(concerned, replace(write, new=planned, old=old.obj), options)
            if self._store.head(kind.resource, target.namespace, target.name) is old:
                return make(options)
        raise errors.stale(kind.plural, kind.group, target.name)

    async def delete(self, call: Call) -> web.StreamResponse:
        """DELETE one object."""
        options = call.write_options()
        wishes = self._wishes(call)
        if wishes.get("dryRun"):
            options = as_dry_run(options)
        write = Write(Operation.DELETE, call.kind)
        if concerned := self._webhooks.concerned(write, call.target.namespace):
            old = self._writes.newest(call.kind, call.target.namespace, call.target.name)
            await self._webhooks.ask(concerned, replace(write, old=old.obj), options)
        written = self._writes.delete(call.kind, call.target.namespace, call.target.name, wishes, options)
        if written.done is not None:
            await written.done
        if not written.removed or call.kind.resource == "pods":
            return self.respond(call, call.kind.present(written.obj))
        meta = written.obj["metadata"]
        details = {"name": meta["name"], "kind": call.kind.plural, "uid": meta["uid"]}
        if call.kind.group:
            details["group"] = call.kind.group
        return respond({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})

    async def delete_collection(self, call: Call) -> web.StreamResponse:
        """DELETE what a collection's selectors match."""
        listing, options, wishes = list_options(call.query), call.write_options(), self._wishes(call)
        if wishes.get("dryRun"):
            options = as_dry_run(options)
        predicate = selectors.both(
            selectors.label_selector(listing.label_selector),
            selectors.field_selector(listing.field_selector, call.kind),
        )
        records = self._select(call, predicate)
        for record in records:
            write = Write(Operation.DELETE, call.kind, old=record.obj)
            await self._webhooks.ask(self._webhooks.concerned(write, record.namespace), write, options)
        waiting: list[asyncio.Future[None]] = []
        for record in records:
            try:
                written = self._writes.delete(call.kind, record.namespace, record.name, wishes, options)
            except errors.ApiFault as fault:
                if fault.code != 404:
                    raise
                continue
            if written.done is not None:
                waiting.append(written.done)
        if waiting:
            await asyncio.gather(*waiting)
        head = {
            "kind": call.kind.list_kind,
            "apiVersion": call.kind.api_version,
            "metadata": {"resourceVersion": str(self._store.revision)},
        }
        return respond({**head, "items": [call.kind.present(record.obj) for record in records]})

    @staticmethod
    def _wishes(call: Call) -> Object:
        wishes = codec.decode_options(call.content_type, call.body)
        for name in ("propagationPolicy",):
            if name in call.query:
                wishes.setdefault(name, call.query[name])
        if "gracePeriodSeconds" in call.query:
            text = call.query["gracePeriodSeconds"]
            if not text.lstrip("-").isdigit() or len(text) > 10:
                raise errors.bad_request("gracePeriodSeconds must be a number")
            wishes.setdefault("gracePeriodSeconds", int(text))
        preconditions = wishes.get("preconditions")
        if preconditions is not None and not isinstance(preconditions, dict):
            raise errors.bad_request("preconditions: must be an object")
        return wishes

    async def finish(
        self, call: Call, written: Written, options: WriteOptions, *, created: bool = False
    ) -> web.StreamResponse:
        """Answer a write once it is on the disk."""
        if written.done is not None:
            await written.done
        response = self.respond(call, call.kind.present(written.obj))
        if created:
            response.set_status(201)
        for warning in options.warnings:
            response.headers.add("Warning", f"299 - {codec.quoted(warning)}")
        return response

    def respond(self, call: Call, obj: Object, *, wanted: Wanted | None = None) -> web.Response:
        """One object in the form the client wants."""
        wanted = wanted or call.wanted()
        if wanted.form is Form.TABLE:
            include = call.query.get("includeObject", "Metadata")
            meta = {"resourceVersion": obj["metadata"].get("resourceVersion", "")}
            return respond(tables.table(call.kind, [obj], meta, version=wanted.version, include=include), wanted)
        if wanted.form is Form.METADATA:
            return respond(metadata_only(obj, wanted.version, nested=True), wanted)
        return respond(obj, wanted)


def patcher(content_type: str, body: bytes, kind: Kind) -> Transform:
    """The function a PATCH body stands for; ApiFault 415 for unknown types."""
    media = codec.media_type(content_type)
    if media not in PATCH_TYPES or (media == PATCH_TYPES[2] and kind.struct is None):
        allowed = PATCH_TYPES if kind.struct else (*PATCH_TYPES[:2], PATCH_TYPES[3])
        raise errors.unsupported_media(content_type, allowed)
    patch = codec.decode_json(body)
    match media:
        case "application/json-patch+json":
            change: Transform = lambda old: apply_json_patch(old, patch)  # noqa: E731
        case "application/merge-patch+json":
            change = lambda old: apply_merge_patch(old, patch)  # noqa: E731
        case _:
            assert kind.struct is not None
            shape = struct(kind.struct)
            change = lambda old: apply_strategic_patch(old, patch, shape)  # noqa: E731

    def checked(old: Object) -> Object:
        result = change(old)
        if not isinstance(result, dict) or not isinstance(result.get("metadata"), dict):
            raise errors.bad_request("metadata: the patch leaves an object without metadata")
        return result

    return checked
