"""Manifests from YAML files and folders of them, each with where it came from, so that errors can say it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

import yaml

from mycel.cli.errors import BadInput

_FILE_LIMIT = 64 << 20
_SUFFIXES = (".yaml", ".yml", ".json")


class Origin(NamedTuple):
    """A document of a file; numbered from 1."""

    path: Path
    document: int

    def __str__(self) -> str:
        return f"{self.path}, document {self.document}"


class Manifest(NamedTuple):
    """An object and its origin."""

    object: dict[str, Any]
    origin: Origin


def read_manifests(paths: Iterable[str]) -> list[Manifest]:
    """Every object of the files; folders are searched. Raises BadInput naming file and document."""
    found: list[Manifest] = []
    for path in paths:
        for file in _files(Path(path)):
            found += _read(file)
    return found


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        files = sorted(each for each in path.rglob("*") if each.suffix in _SUFFIXES and each.is_file())
        if not files:
            raise BadInput(f"{path} has no YAML files")
        return files
    if not path.is_file():
        raise BadInput(f"{path}: there is no such file or folder")
    return [path]


def _read(path: Path) -> Iterator[Manifest]:
    if path.stat().st_size > _FILE_LIMIT:
        raise BadInput(f"{path} is larger than {_FILE_LIMIT >> 20} MiB")
    try:
        documents: list[Any] = list(yaml.load_all(path.read_bytes(), Loader=yaml.CSafeLoader))
    except yaml.YAMLError as exc:
        raise BadInput(f"{path} is not YAML: {' '.join(str(exc).split())}") from exc
    for number, document in enumerate(documents, start=1):
        origin = Origin(path, number)
        if document is None:
            continue
        if not isinstance(document, dict):
            raise BadInput(f"{origin}: an object is a mapping with apiVersion and kind")
        whole = cast("dict[str, Any]", document)
        items = whole.get("items")
        if str(whole.get("kind", "")).endswith("List") and isinstance(items, list):
            yield from (_manifest(item, origin) for item in cast("list[Any]", items))
        else:
            yield _manifest(whole, origin)


def _manifest(value: Any, origin: Origin) -> Manifest:
    if not isinstance(value, dict) or not isinstance(cast("dict[str, Any]", value).get("kind"), str):
        raise BadInput(f"{origin}: kind: must be there and be a string")
    return Manifest(cast("dict[str, Any]", value), origin)


def read_lines(path: str) -> list[dict[str, Any]]:
    """A file of JSON objects, one a line. Raises BadInput naming the line."""
    found: list[dict[str, Any]] = []
    try:
        text = Path(path).read_text()
    except (OSError, UnicodeDecodeError) as exc:
        raise BadInput(f"{path}: {exc}") from exc
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except ValueError as exc:
            raise BadInput(f"{path}, line {number}: {exc}") from exc
        if not isinstance(value, dict):
            raise BadInput(f"{path}, line {number}: must be an object")
        found.append(cast("dict[str, Any]", value))
    return found
