"""What answers are made of: whole objects, tables, metadata only, pages of a list, lines of a watch."""

from __future__ import annotations

import base64
import binascii
import dataclasses
from collections.abc import Callable
from typing import Any

import msgspec
from aiohttp import web

from mycel.cluster.apiserver import codec, errors, tables
from mycel.cluster.apiserver.negotiate import Form, Wanted
from mycel.cluster.apiserver.options import ListOptions, WriteOptions
from mycel.cluster.apiserver.registry import Kind
from mycel.cluster.store import ChangeType, Record, Revision

Object = dict[str, Any]


def renderer(kind: Kind, wanted: Wanted, include: str) -> Callable[[ChangeType, Record], bytes]:
    """How a watch of `kind` shows one change, as a line of its stream."""
    if wanted.form is Form.OBJECT and kind.stored_as_is:
        return lambda change, record: record.frame(change)
    first = True

    def render(change: ChangeType, record: Record) -> bytes:
        nonlocal first
        obj = kind.present(record.obj)
        if wanted.form is Form.TABLE:
            meta = {"resourceVersion": str(record.revision)}
            obj = tables.table(kind, [obj], meta, version=wanted.version, include=include, columns=first)
            first = False
        elif wanted.form is Form.METADATA:
            obj = metadata_only(obj, wanted.version, nested=True)
        return b'{"type":"%s","object":%s}\n' % (change.value.encode(), codec.encode_json(obj))

    return render


def metadata_only(obj: Object, version: str, *, nested: bool) -> Object:
    """An object as PartialObjectMetadata."""
    result: Object = {"metadata": obj["metadata"]}
    if nested:
        return {"kind": "PartialObjectMetadata", "apiVersion": f"meta.k8s.io/{version}", **result}
    return result


def page(records: list[Record], options: ListOptions, revision: Revision) -> tuple[list[Record], Object]:
    """One page of a list, and the list's metadata. Later pages come from the state at their time."""
    meta: Object = {"resourceVersion": str(revision)}
    if options.continue_token:
        try:
            token = msgspec.json.decode(
                base64.urlsafe_b64decode(options.continue_token + "=="), type=tuple[int, str, str]
            )
        except (msgspec.DecodeError, msgspec.ValidationError, binascii.Error, ValueError) as error:
            raise errors.bad_request("continue key is not valid") from error
        meta["resourceVersion"] = str(token[0])
        records = [record for record in records if record.key > token[1:]]
    if options.limit and len(records) > options.limit:
        rest = len(records) - options.limit
        records = records[: options.limit]
        token = (int(meta["resourceVersion"]), *records[-1].key)
        meta["continue"] = base64.urlsafe_b64encode(msgspec.json.encode(token)).decode().rstrip("=")
        meta["remainingItemCount"] = rest
    return records, meta


def as_dry_run(options: WriteOptions) -> WriteOptions:
    """The same options for a write that is not made."""
    return WriteOptions(
        options.user,
        options.manager,
        dry_run=True,
        validation=options.validation,
        force=options.force,
        warnings=options.warnings,
    )


def as_trial(options: WriteOptions) -> WriteOptions:
    """The same options for a look at what a write would come to; its warnings are said by the write itself."""
    return dataclasses.replace(options, dry_run=True, warnings=[])


def respond(value: Any, wanted: Wanted | None = None, *, status: int = 200) -> web.Response:
    """A JSON (or YAML) answer."""
    if wanted is not None and wanted.yaml:
        return web.Response(body=codec.to_yaml(value), status=status, content_type="application/yaml")
    return respond_raw(codec.encode_json(value) + b"\n", status=status)


def respond_raw(body: bytes, *, status: int = 200) -> web.Response:
    """Bytes that are JSON already."""
    return web.Response(body=body, status=status, content_type="application/json")
