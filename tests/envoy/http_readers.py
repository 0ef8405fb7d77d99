"""What servers make of the bytes they get: one that is strict, and lenient ones that repair whatever they can."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import quote, unquote_to_bytes

from tests.oracle.http import Request

Headers = tuple[tuple[str, str], ...]


class Reader(NamedTuple):
    """How a server reads. The strict one stops at what is malformed; `last`, of several lengths, hosts and values."""

    strict: bool = False
    last: bool = False
    length_first: bool = False  # content-length counts more than transfer-encoding
    bare_cr: bool = False  # a CR alone ends a line
    joined: bool = False  # several headers of a name are a list


READERS = (
    Reader(strict=True),
    *(Reader(last=last, length_first=length) for last in (False, True) for length in (False, True)),
    Reader(bare_cr=True),
    Reader(joined=True),
)


def read(stream: bytes, how: Reader) -> Iterator[Request]:
    """The requests of one connection, as this server understands them."""
    text = stream.decode("latin-1")
    newline = r"\r\n" if how.strict else r"(?:\r\n|\r(?!\n)|\n)" if how.bare_cr else r"\r?\n"
    end = newline * 2
    while found := re.search(end, text):
        head, text = text[: found.start()].lstrip("\r\n"), text[found.end() :]
        lines = re.split(newline, head if how.strict else re.sub(newline + r"[ \t]+", " ", head))
        words = lines[0].split(" ") if how.strict else lines[0].split()
        headers = tuple(
            (name.strip().lower(), value.strip()) for name, _, value in (x.partition(":") for x in lines[1:])
        )
        if len(words) < 2 or (how.strict and not all(re.fullmatch(r"[!-9;-~]+:[^\0\r\n]*", x) for x in lines[1:])):
            return
        yield understood(words[0], words[1], headers, how)
        text = text[_body(text, headers, how) :]


def _body(text: str, headers: Headers, how: Reader) -> int:
    coded = [value.lower() for name, value in headers if name == "transfer-encoding"]
    lengths = [re.match(r"[+]?(\d*)", value) for name, value in headers if name == "content-length"]
    chunked = any(value == "chunked" if how.strict else "chunked" in value for value in coded)
    if not chunked or (how.length_first and lengths):
        length = lengths[-1 if how.last else 0] if lengths else None
        return int(length[1] or 0) if length else 0
    place = 0
    while found := re.compile(r"([0-9a-fA-F]+)[^\n]*\n").match(text, place):
        place = found.end() + int(found[1], 16)
        place += 2 if text[place : place + 2] == "\r\n" else 1
        if int(found[1], 16) == 0:
            break
    return place


def understood(method: str, target: str, headers: Headers, how: Reader) -> Request:
    """What it is about: lenient servers decode, drop parameters, and read `X_A` as `X-A`."""
    chosen: dict[str, str] = {}
    for name, value in headers:
        key = name if how.strict else name.replace("_", "-")
        if how.joined and key in chosen:
            chosen[key] += f",{value}"
        elif how.last or key not in chosen:
            chosen[key] = value
    absolute = re.fullmatch(r"(?i)[a-z]+://([^/?#]*)(.*)", target)
    host = absolute[1] if absolute else chosen.get("host", "")
    path = absolute[2] or "/" if absolute else target
    path = path.partition("?")[0].partition("#")[0]
    if not how.strict:
        host, method = host.rpartition("@")[2], method.upper()
        path = re.sub(r";[^/]*", "", path)
    path = unquote_to_bytes(path).decode("latin-1")
    if not how.strict:
        path = re.sub(r";[^/]*", "", path.partition("\0")[0].replace("\\", "/"))
    kept: list[str] = []
    parts = path.split("/")
    for part in parts:
        if part == "..":
            kept = kept[:-1]
        elif part not in ("", "."):
            kept.append(part)
    path = "/" + "/".join(kept) + ("/" if kept and parts[-1] in ("", ".", "..") else "")
    return Request(method, host, quote(path.encode("latin-1"), safe="/!$&'()*+,:=@~"), tuple(chosen.items()))
