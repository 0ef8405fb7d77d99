"""As much HTTP/1.1 as the node's port needs: heads, plain answers, chunked streams, upgrades. One request per
connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qs, unquote, urlsplit

_HEAD_LIMIT = 256 << 10
_HEAD_TIMEOUT_S = 20
_REASONS = {
    101: "Switching Protocols", 200: "OK", 400: "Bad Request", 403: "Forbidden", 404: "Not Found",
    405: "Method Not Allowed", 500: "Internal Server Error", 503: "Service Unavailable",
}  # fmt: skip


class BadRequest(Exception):
    """The request cannot be served; `status` is the answer's."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Request:
    """A request's head. `headers` hold every value of a name, lower-case, in order."""

    method: str
    path: tuple[str, ...]
    query: Mapping[str, list[str]]
    headers: Mapping[str, list[str]]

    def header(self, name: str) -> str:
        """All values of a header, joined with commas."""
        return ", ".join(self.headers.get(name, []))

    def listed(self, name: str) -> list[str]:
        """The comma-separated items of a header."""
        return [item.strip() for item in self.header(name).split(",") if item.strip()]

    def flag(self, *names: str) -> bool:
        """Whether one of the query parameters is true."""
        return any(value in ("1", "true", "True") for name in names for value in self.query.get(name, []))

    def value(self, name: str) -> str | None:
        """A query parameter."""
        found = self.query.get(name)
        return found[0] if found else None


def parse(head: bytes) -> Request:
    """Everything before the empty line. Raises BadRequest."""
    lines = head.decode("latin-1").split("\r\n")
    words = lines[0].split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        raise BadRequest("this is not HTTP/1.1")
    headers: dict[str, list[str]] = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if colon:
            headers.setdefault(name.strip().lower(), []).append(value.strip())
    target = urlsplit(words[1])
    path = tuple(unquote(part) for part in target.path.split("/") if part)
    return Request(words[0], path, parse_qs(target.query, keep_blank_values=True), headers)


async def read_request(reader: asyncio.StreamReader) -> Request | None:
    """The next request's head; None when the peer closed. A body, where one comes, is left unread. Raises
    BadRequest.
    """
    try:
        async with asyncio.timeout(_HEAD_TIMEOUT_S):
            head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, TimeoutError, ConnectionError):
        return None
    except asyncio.LimitOverrunError as exc:
        raise BadRequest(f"the request's head is longer than {_HEAD_LIMIT} bytes") from exc
    return parse(head[:-4])


def head(status: int, headers: Mapping[str, str]) -> bytes:
    """An answer's head."""
    lines = [
        f"HTTP/1.1 {status} {_REASONS.get(status, 'Unknown')}",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def answer(status: int, text: str) -> bytes:
    """A whole plain answer that ends the connection."""
    body = text.encode()
    headers = {"Content-Type": "text/plain; charset=utf-8", "Content-Length": str(len(body)), "Connection": "close"}
    return head(status, headers) + body


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body; an empty one ends it."""
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"
