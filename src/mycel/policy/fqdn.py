"""Which names a selector of toFQDNs or rules.dns means. Names are lower case with a final dot.

`*` stands for any part of a label, never for a dot; `**.` in front for one or more labels; a selector of stars alone
for every name, the root's too. Wildcards stand for letters, digits, `-` and `_` only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

EVERY_NAME = "*"
_PLAIN = re.compile(r"[-a-z0-9_.]*")


def canonical_selector(text: str) -> str:
    """The one spelling of a matchName or matchPattern: lower case with a final dot, `*` for stars alone."""
    if text and not text.strip("*"):
        return EVERY_NAME
    return text.lower().removesuffix(".") + "."


def canonical_name(text: str) -> str:
    """A name as DNS messages have it, lower case with a final dot."""
    text = text.lower()
    return text if text.endswith(".") else text + "."


def selects(selector: str, name: str) -> bool:
    """Whether a canonical selector means a canonical name. Linear: no pattern of a user can make it slow."""
    if "*" not in selector:
        return selector == name
    if not _PLAIN.fullmatch(name):
        return False
    if selector == EVERY_NAME:
        return True
    labels = name[:-1].split(".")
    if selector.startswith("**."):
        wanted = selector[3:-1].split(".") if len(selector) > 3 else []
        if len(labels) <= len(wanted) or not all(labels):
            return False
        labels = labels[len(labels) - len(wanted) :]
    else:
        wanted = selector[:-1].split(".")
    return len(labels) == len(wanted) and all(map(_label, wanted, labels))


def _label(pattern: str, label: str) -> bool:
    first, *rest = pattern.split("*")
    if not rest:
        return pattern == label
    *middle, last = rest
    if len(label) < len(first) + len(last) or not label.startswith(first) or not label.endswith(last):
        return False
    at, end = len(first), len(label) - len(last)
    for part in middle:
        found = label.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True


class Selectors:
    """Many selectors at once: those without wildcards are looked up, the others are tried."""

    def __init__(self, selectors: Iterable[str]) -> None:
        self.all = frozenset(selectors)
        self._plain = frozenset(each for each in self.all if "*" not in each)
        self._wild = tuple(sorted(self.all - self._plain))

    def any(self, name: str) -> bool:
        """Whether one of them means the name."""
        return name in self._plain or any(selects(each, name) for each in self._wild)

    def matching(self, name: str) -> frozenset[str]:
        """Those that mean the name."""
        found = {each for each in self._wild if selects(each, name)}
        if name in self._plain:
            found.add(name)
        return frozenset(found)
