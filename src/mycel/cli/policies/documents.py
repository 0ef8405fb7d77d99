"""The text of a file of manifests → its documents: JSON or YAML, read as Kubernetes reads them, within limits."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, cast

import yaml

DEPTH_LIMIT = 200
VALUE_LIMIT = 5_000_000
"""Values that documents may have, what aliases repeat counted as often as it is there."""
_MERGE = "tag:yaml.org,2002:merge"
_WHITE = " \t\r\n"


class Unreadable(Exception):
    """A document is neither YAML nor JSON. `document` counts from 1; the message says where in it, and what."""

    def __init__(self, document: int, problem: str) -> None:
        super().__init__(problem)
        self.document = document


def read_documents(data: bytes) -> list[Any]:
    """The documents, None for an empty one. Raises Unreadable."""
    if data.lstrip()[:1] == b"{":
        found = _read_json(data)
        if found is not None:
            return found
    repeats = _check_depth(data)
    found = list(_read_yaml(data))
    if repeats:
        _check_size(found)
    return found


# ---- JSON: no aliases, and many times faster


def _read_json(data: bytes) -> list[Any] | None:
    """One object after another; None when it is not JSON (and so perhaps YAML)."""
    try:
        text, at, found = data.decode().strip(_WHITE), 0, list[Any]()
        while at < len(text):
            value, at = _JSON.raw_decode(text, at)
            found.append(value)
            while at < len(text) and text[at] in _WHITE:
                at += 1
    except (ValueError, RecursionError):
        return None  # YAML says what is wrong with it
    return found


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError("a name is there twice")
    return made


_JSON = json.JSONDecoder(object_pairs_hook=_pairs)


# ---- YAML


class _Loader(yaml.CSafeLoader):
    """Dates are text, as Kubernetes has it; a key that is there twice is a mistake, and not the last one's value."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._whole: set[yaml.MappingNode] = set()

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Called for each mapping before others are merged into it."""
        if node not in self._whole:
            self._whole.add(node)
            seen: set[str] = set()
            for key, _ in node.value:
                if not isinstance(key, yaml.ScalarNode) or key.tag == _MERGE:
                    continue
                if key.value in seen:
                    raise yaml.MarkedYAMLError(problem=f"{key.value} is there twice", problem_mark=key.start_mark)
                seen.add(key.value)
        super().flatten_mapping(node)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":timestamp", ":value"))]
    for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}


def _read_yaml(data: bytes) -> Iterator[Any]:
    number = 1
    try:
        loader = _Loader(data)
        while loader.check_data():
            yield loader.get_data()
            number += 1
    except yaml.YAMLError as exc:
        raise Unreadable(number, _said(exc)) from exc
    except (ValueError, RecursionError) as exc:  # a number of thousands of digits, an anchor within itself
        raise Unreadable(number, f"cannot be read: {exc}") from exc


def _said(exc: yaml.YAMLError) -> str:
    """Where, and what: `line 3, column 7: did not find expected ',' or ']'`."""
    if isinstance(exc, yaml.MarkedYAMLError):
        mark = exc.problem_mark or exc.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        return f"{place}{exc.problem or exc.context}"
    return " ".join(str(exc).replace('in "<byte string>", ', "at ").split())


def _check_depth(data: bytes) -> bool:
    """Refuse deep nesting before the C library's recursive composer meets it. True when there are aliases."""
    depth, repeats, number = 0, False, 0
    try:
        for event in yaml.parse(data, Loader=_Loader):
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
                if depth > DEPTH_LIMIT:
                    raise Unreadable(number, f"is nested deeper than {DEPTH_LIMIT} levels")
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
            elif isinstance(event, yaml.AliasEvent):
                repeats = True
            elif isinstance(event, yaml.DocumentStartEvent):
                number += 1
    except yaml.YAMLError as exc:
        raise Unreadable(max(number, 1), _said(exc)) from exc
    return repeats


def _check_size(documents: list[Any]) -> None:
    """Refuse what aliases blow up."""
    sizes: dict[int, int] = {}

    def size(value: Any, depth: int) -> int:
        if not isinstance(value, dict | list):
            return 1
        if depth > DEPTH_LIMIT:
            raise Unreadable(number, f"is nested deeper than {DEPTH_LIMIT} levels by its aliases")
        found = sizes.get(id(cast("Any", value)))
        if found is None:
            parts = cast("list[Any]", list(value.values()) if isinstance(value, dict) else value)
            found = sizes[id(cast("Any", value))] = 1 + sum(size(each, depth + 1) for each in parts)
        return found

    for number, document in enumerate(documents, start=1):
        if size(document, 0) > VALUE_LIMIT:
            raise Unreadable(number, f"has more than {VALUE_LIMIT:,} values by its aliases")
