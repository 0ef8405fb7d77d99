"""Label selectors of filters: Kubernetes' syntax over labels with a source, `k8s:app in (a, b),
!reserved:host`.

A key without a source means any source; a label without a value has the empty one.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from mycel.flow.errors import FilterError

_TOKEN = re.compile(r"\s*(?:(?P<op>==|=|!=|!|\(|\)|,|<|>)|(?P<word>[^\s=!(),<>]+))")
_LONGEST = 4096


class Requirement(NamedTuple):
    """One part of a selector. An empty `source` is any."""

    source: str
    key: str
    operator: str  # exists, absent, in, notin, >, <
    values: frozenset[str] = frozenset()

    def matches(self, labels: Sequence["Label"]) -> bool:
        value = next((label.value for label in labels if self._is(label)), None)
        match self.operator:
            case "exists":
                return value is not None
            case "absent":
                return value is None
            case "in":
                return value in self.values
            case "notin":
                return value not in self.values
            case _:
                return self._compares(value)

    def _is(self, label: "Label") -> bool:
        return label.key == self.key and self.source in ("", "any", label.source)

    def _compares(self, value: str | None) -> bool:
        if value is None or not re.fullmatch(r"[+-]?\d{1,19}", value):
            return False
        (bound,) = self.values
        return int(value) > int(bound) if self.operator == ">" else int(value) < int(bound)


class Label(NamedTuple):
    """`k8s:app=web` taken apart."""

    source: str
    key: str
    value: str


def parse_label(text: str) -> Label:
    """`source:key=value`; without a source it is `unspec`."""
    key, _, value = text.partition("=")
    source, colon, rest = key.partition(":")
    return Label(source, rest, value) if colon else Label("unspec", key, value)


class _Tokens:
    def __init__(self, field: str, text: str) -> None:
        if len(text) > _LONGEST:
            raise FilterError(f"{field}: a selector of {len(text)} characters is longer than {_LONGEST}")
        self._field, self._text = field, text
        self._tokens = [(match["op"], match["word"]) for match in _TOKEN.finditer(text)]

    def more(self) -> bool:
        return bool(self._tokens)

    def operator(self, *wanted: str) -> str | None:
        """The next operator, taken if it is one of `wanted`."""
        if self._tokens and self._tokens[0][0] in wanted:
            return self._tokens.pop(0)[0]
        return None

    def word(self, *wanted: str) -> str | None:
        """The next word, taken if it is one of `wanted` (or any)."""
        if self._tokens and self._tokens[0][1] is not None and (not wanted or self._tokens[0][1] in wanted):
            return self._tokens.pop(0)[1]
        return None

    def wrong(self) -> FilterError:
        return FilterError(f"{self._field}: {self._text!r} is not a label selector")


def parse_selector(field: str, text: str) -> tuple[Requirement, ...]:
    """All requirements of a selector; an empty selector has none and selects everything."""
    tokens = _Tokens(field, text)
    requirements: list[Requirement] = []
    while tokens.more():
        requirements.append(_requirement(tokens))
        if tokens.more() and (tokens.operator(",") is None or not tokens.more()):
            raise tokens.wrong()
    return tuple(requirements)


def _requirement(tokens: _Tokens) -> Requirement:
    negated = tokens.operator("!") is not None
    key = tokens.word()
    if key is None:
        raise tokens.wrong()
    source, colon, rest = key.partition(":")
    if not colon:
        source, rest = "", key
    if not rest:
        raise tokens.wrong()
    if negated:
        return Requirement(source, rest, "absent")
    if (operator := tokens.operator("=", "==", "!=")) is not None:
        value = tokens.word() or ""
        return Requirement(source, rest, "notin" if operator == "!=" else "in", frozenset({value}))
    if (operator := tokens.operator("<", ">")) is not None:
        bound = tokens.word()
        if bound is None or not re.fullmatch(r"[+-]?\d{1,19}", bound):
            raise tokens.wrong()
        return Requirement(source, rest, operator, frozenset({bound}))
    if (word := tokens.word("in", "notin")) is not None:
        return Requirement(source, rest, word, _values(tokens))
    return Requirement(source, rest, "exists")


def _values(tokens: _Tokens) -> frozenset[str]:
    if tokens.operator("(") is None:
        raise tokens.wrong()
    values: set[str] = set()
    while True:
        values.add(tokens.word() or "")
        if tokens.operator(")") is not None:
            return frozenset(values)
        if tokens.operator(",") is None:
            raise tokens.wrong()


def label_matcher(field: str, selectors: Iterable[str]) -> Callable[[Iterable[str]], bool]:
    """Matches labels that one of the selectors selects."""
    parsed = [parse_selector(field, text) for text in selectors]

    def matches(labels: Iterable[str]) -> bool:
        known = [parse_label(label) for label in labels]
        return any(all(requirement.matches(known) for requirement in selector) for selector in parsed)

    return matches
