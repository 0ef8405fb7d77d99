"""Manifests from files and folders of them, each with where it came from, so that errors can say it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

from mycel.cli.errors import BadInput
from mycel.cli.policies.documents import Unreadable, read_documents

_FILE_LIMIT = 64 << 20
_SUFFIXES = (".yaml", ".yml", ".json")
_STDIN = Path("-")


class Origin(NamedTuple):
    """A document of a file, and an item of its list (0: it is none). Both are numbered from 1."""

    path: Path
    document: int
    item: int = 0

    def __str__(self) -> str:
        return f"{self.path}, document {self.document}" + (f", item {self.item}" if self.item else "")


class Manifest(NamedTuple):
    """An object and its origin."""

    object: dict[str, Any]
    origin: Origin


def read_manifests(paths: Iterable[str]) -> list[Manifest]:
    """Every object of the files (`-`: of stdin); folders are searched. Raises BadInput naming file and document."""
    return [found for path in paths for file in _files(Path(path)) for found in _read(file)]


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        files = sorted(each for each in path.rglob("*") if each.suffix in _SUFFIXES and each.is_file())
        if not files:
            raise BadInput(f"{path} has no files named {', '.join(f'*{suffix}' for suffix in _SUFFIXES)}")
        return files
    return [path]


def _bytes(path: Path) -> bytes:
    try:
        if path == _STDIN:
            data = sys.stdin.buffer.read(_FILE_LIMIT + 1)
        else:
            with path.open("rb") as file:
                data = file.read(_FILE_LIMIT + 1)
    except OSError as exc:
        raise BadInput(f"{path}: {_why(exc)}") from exc
    if len(data) > _FILE_LIMIT:
        raise BadInput(f"{path} is larger than {_FILE_LIMIT >> 20} MiB")
    return data


def _why(exc: OSError) -> str:
    missing = isinstance(exc, FileNotFoundError)
    return "there is no such file or folder" if missing else f"cannot be read: {exc.strerror}"


def _read(path: Path) -> Iterator[Manifest]:
    try:
        documents = read_documents(_bytes(path))
    except Unreadable as exc:
        raise BadInput(f"{path}, document {exc.document}: {exc}") from exc
    for number, document in enumerate(documents, start=1):
        origin = Origin(path, number)
        if document is None:
            continue
        whole = _object(document, origin)
        kind, items = whole["kind"], whole.get("items")
        if not kind.endswith("List") or not ("items" in whole or kind == "List"):
            yield Manifest(whole, origin)
            continue
        if not isinstance(items, list | None):
            raise BadInput(f"{origin}: items: must be a list")
        # Lists of one kind, as the API answers with, leave out what their items are.
        common = {} if kind == "List" else {"apiVersion": whole.get("apiVersion"), "kind": kind.removesuffix("List")}
        for index, item in enumerate(cast("list[Any]", items or []), start=1):
            at = origin._replace(item=index)
            yield Manifest(_object(common | cast("Any", item) if isinstance(item, dict) else item, at), at)


def _object(value: Any, origin: Origin) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadInput(f"{origin}: an object is a mapping with apiVersion and kind")
    whole = cast("dict[str, Any]", value)
    if not isinstance(whole.get("kind"), str):
        raise BadInput(f"{origin}: kind: must be there and be a string")
    if origin.item and whole["kind"] == "List":
        raise BadInput(f"{origin}: kind: a List cannot be an item of another one")
    return whole


class Line(NamedTuple):
    """An object of a file of them, and the number of its line."""

    number: int
    value: dict[str, Any]


def read_lines(path: str) -> list[Line]:
    """A file of JSON objects, one a line; empty lines are skipped. Raises BadInput naming the line."""
    found: list[Line] = []
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
    except OSError as exc:
        raise BadInput(f"{path}: {_why(exc)}") from exc
    except UnicodeDecodeError as exc:
        raise BadInput(f"{path} is not UTF-8: {exc.reason} at byte {exc.start}") from exc
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as exc:
            what = f"{exc.msg} at column {exc.colno}" if isinstance(exc, json.JSONDecodeError) else str(exc)
            raise BadInput(f"{path}, line {number} is not JSON: {what}") from exc
        if not isinstance(value, dict):
            raise BadInput(f'{path}, line {number}: must be an object, as {{"id": …}}')
        found.append(Line(number, cast("dict[str, Any]", value)))
    return found
