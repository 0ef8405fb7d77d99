"""The Corefile's grammar: server blocks of directives, each with arguments and perhaps a block of its own. Pure.

Tokens are words or double-quoted strings, `#` begins a comment, `{$NAME}` and `{%NAME%}` are environment variables.
What the directives mean is `config`'s business.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

_VARIABLE = re.compile(r"\{\$([A-Za-z_][A-Za-z0-9_]*)\}|\{%([A-Za-z_][A-Za-z0-9_]*)%\}")
_TOKEN = re.compile(r'\s*(?:#.*$|"((?:[^"\\]|\\.)*)"|(\S+))')


class CorefileError(ValueError):
    """The Corefile cannot be used; the message begins with its line."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(f"Corefile:{line}: {message}")
        self.line = line


class Line(NamedTuple):
    """One line within a directive's block."""

    words: tuple[str, ...]
    line: int


class Directive(NamedTuple):
    """`name arguments… { block }`."""

    name: str
    arguments: tuple[str, ...]
    block: tuple[Line, ...]
    line: int


class ServerBlock(NamedTuple):
    """Zones (as written, port included) and what happens to queries for them."""

    keys: tuple[str, ...]
    directives: tuple[Directive, ...]
    line: int


def parse_corefile(text: str, environment: Mapping[str, str]) -> tuple[ServerBlock, ...]:
    """All server blocks in order. Raises CorefileError."""
    lines = _Lines(text, environment)
    blocks: list[ServerBlock] = []
    keys: list[str] = []
    for found in lines:
        words = list(found.words)
        opens = words[-1] == "{"
        keys += [one.rstrip(",") for one in (words[:-1] if opens else words)]
        if not opens:
            if not words[-1].endswith(","):
                raise CorefileError(found.line, "expected '{' after the zones of a server block")
            continue
        if not keys:
            raise CorefileError(found.line, "a server block begins without a zone")
        blocks.append(ServerBlock(tuple(keys), tuple(_directives(lines, found.line)), found.line))
        keys = []
    if keys:
        raise CorefileError(lines.last, "the file ends before the server block of these zones")
    return tuple(blocks)


def _directives(lines: _Lines, opened: int) -> Iterator[Directive]:
    for found in lines:
        words = found.words
        if words == ("}",):
            return
        if words[-1] != "{":
            yield Directive(words[0], words[1:], (), found.line)
            continue
        yield Directive(words[0], words[1:-1], tuple(_block(lines, found.line)), found.line)
    raise CorefileError(opened, "this server block is never closed")


def _block(lines: _Lines, opened: int) -> Iterator[Line]:
    for found in lines:
        if found.words == ("}",):
            return
        if found.words[-1] == "{":
            raise CorefileError(found.line, f"{found.words[0]}: blocks within a plugin's block are not supported")
        yield found
    raise CorefileError(opened, "this block is never closed")


class _Lines:
    """The file's lines as words; empty ones are skipped."""

    def __init__(self, text: str, environment: Mapping[str, str]) -> None:
        self._rows = enumerate(text.splitlines(), start=1)
        self._environment = environment
        self.last = 1

    def __iter__(self) -> Iterator[Line]:
        return self

    def __next__(self) -> Line:
        for number, row in self._rows:
            self.last = number
            words = tuple(self._words(row, number))
            if words:
                return Line(words, number)
        raise StopIteration

    def _words(self, row: str, number: int) -> Iterator[str]:
        row = _VARIABLE.sub(lambda match: self._environment.get(match[1] or match[2], ""), row)
        at = 0
        while at < len(row) and row[at:].strip():
            match = _TOKEN.match(row, at)
            if match is None:
                return
            quoted, word = match.groups()
            if word is not None and word.startswith('"'):
                raise CorefileError(number, "a string in double quotes does not end on its line")
            if quoted is not None:
                yield re.sub(r"\\(.)", r"\1", quoted)
            elif word is not None:
                yield word
            at = match.end()
