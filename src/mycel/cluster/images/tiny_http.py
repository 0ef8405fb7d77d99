"""The HTTP/1.1 server under the built-in test images: one thread, epoll, standard library only.

Python's http.server imports half the standard library and starts a thread per connection; a pod of this server
starts in about 20 ms, holds 9 MB and answers some thousand requests per second, so a hundred of them fit on two
cores. It speaks what test clients use: keep-alive, pipelining, HEAD, Content-Length and chunked bodies, Expect:
100-continue.
"""

from __future__ import annotations

import select
import signal
import socket
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing takes as long to import as everything else together
    from collections.abc import Callable
    from typing import NoReturn

    Answer = tuple[int, list[tuple[str, str]], bytes]
    Handler = Callable[["Request"], Answer]
    Peer = tuple[str, int]

_REASONS = {
    100: "Continue", 200: "OK", 201: "Created", 204: "No Content", 301: "Moved Permanently", 302: "Found",
    304: "Not Modified", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found",
    405: "Method Not Allowed", 413: "Content Too Large", 418: "I'm a Teapot", 429: "Too Many Requests",
    431: "Request Header Fields Too Large", 500: "Internal Server Error", 502: "Bad Gateway",
    503: "Service Unavailable",
}  # fmt: skip
_HEAD_LIMIT = 64 << 10
_BODY_LIMIT = 8 << 20
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class Request:
    """One request: `method`, `target` as sent, `path`, `headers` (lower-case names), `body`, `peer` (address, port)."""

    __slots__ = ("body", "headers", "method", "path", "peer", "target", "version")

    def __init__(
        self, method: str, target: str, version: str, headers: dict[str, str], body: bytes, peer: Peer
    ) -> None:
        self.method = method
        self.target = target
        self.path = target.partition("?")[0]
        self.version = version
        self.headers = headers
        self.body = body
        self.peer = peer


class _Bad(Exception):
    def __init__(self, status: int) -> None:
        self.status = status


class _Connection:
    __slots__ = ("closing", "continued", "inbox", "outbox", "peer", "sock")

    def __init__(self, sock: socket.socket, peer: Peer) -> None:
        self.sock = sock
        self.peer = peer
        self.inbox = bytearray()
        self.outbox = bytearray()
        self.closing = False
        self.continued = False


def date() -> str:
    """The Date header's value."""
    import time

    now = time.gmtime()
    return (
        f"{_DAYS[now.tm_wday]}, {now.tm_mday:02} {_MONTHS[now.tm_mon - 1]} {now.tm_year}"
        f" {now.tm_hour:02}:{now.tm_min:02}:{now.tm_sec:02} GMT"
    )


def parse(inbox: bytearray, peer: Peer) -> Request | None:
    """Take one whole request off the front of `inbox`; None when more bytes are needed. Raises _Bad."""
    end = inbox.find(b"\r\n\r\n")
    if end < 0:
        if len(inbox) > _HEAD_LIMIT:
            raise _Bad(431)
        return None
    lines = bytes(inbox[:end]).decode("latin-1").split("\r\n")
    words = lines[0].split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        raise _Bad(400)
    headers: dict[str, str] = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise _Bad(400)
        headers[name.lower()] = value.strip()
    start = end + 4
    if "chunked" in headers.get("transfer-encoding", "").lower():
        found = _chunks(inbox, start)
        if found is None:
            return None
        body, after = found
    else:
        text = headers.get("content-length", "0")
        if not text.isdigit():
            raise _Bad(400)
        length = int(text)
        if length > _BODY_LIMIT:
            raise _Bad(413)
        if len(inbox) < start + length:
            return None
        body, after = bytes(inbox[start : start + length]), start + length
    del inbox[:after]
    return Request(words[0], words[1], words[2], headers, body, peer)


def _chunks(inbox: bytearray, at: int) -> tuple[bytes, int] | None:
    body = bytearray()
    while True:
        end = inbox.find(b"\r\n", at)
        if end < 0:
            return None
        try:
            size = int(bytes(inbox[at:end]).partition(b";")[0], 16)
        except ValueError:
            raise _Bad(400) from None
        at = end + 2
        if len(body) + size > _BODY_LIMIT:
            raise _Bad(413)
        if size == 0:
            end = inbox.find(b"\r\n", at)
            while end > at:  # trailers
                at = end + 2
                end = inbox.find(b"\r\n", at)
            return None if end < 0 else (bytes(body), end + 2)
        if len(inbox) < at + size + 2:
            return None
        body += inbox[at : at + size]
        at += size + 2


def render(
    status: int, headers: list[tuple[str, str]], body: bytes, *, head: bool = False, close: bool = False
) -> bytes:
    """The bytes of an answer; Content-Length and Connection are added, the body is left out for HEAD."""
    lines = [f"HTTP/1.1 {status} {_REASONS.get(status, 'Unknown')}"]
    lines += [f"{name}: {value}" for name, value in headers]
    if status != 204 and status >= 200:
        lines.append(f"Content-Length: {len(body)}")
    if close:
        lines.append("Connection: close")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + (b"" if head or status == 204 else body)


def serve(listeners: list[socket.socket], handle: Handler) -> NoReturn:
    """Answer requests on the bound sockets with `handle(request) -> (status, [(name, value)], body)` until SIGTERM."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: sys.exit(0))
    epoll = select.epoll()
    accepting: dict[int, socket.socket] = {}
    for listener in listeners:
        listener.setblocking(False)
        epoll.register(listener.fileno(), select.EPOLLIN)
        accepting[listener.fileno()] = listener
    connections: dict[int, _Connection] = {}
    while True:
        for fd, events in epoll.poll():
            if fd in accepting:
                _accept(accepting[fd], epoll, connections)
                continue
            connection = connections[fd]
            try:
                alive = _turn(connection, events, handle)
            except OSError:
                alive = False
            if not alive:
                del connections[fd]
                epoll.unregister(fd)
                connection.sock.close()
            else:
                epoll.modify(fd, select.EPOLLIN | (select.EPOLLOUT if connection.outbox else 0))


def _accept(listener: socket.socket, epoll: select.epoll, connections: dict[int, _Connection]) -> None:
    try:
        sock, peer = listener.accept()
    except OSError:
        return
    sock.setblocking(False)
    if sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connections[sock.fileno()] = _Connection(sock, peer)
    epoll.register(sock.fileno(), select.EPOLLIN)


def _turn(connection: _Connection, events: int, handle: Handler) -> bool:
    if events & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
        data = connection.sock.recv(65536)
        if not data:
            return False
        connection.inbox += data
        _answer(connection, handle)
    if connection.outbox:
        try:
            sent = connection.sock.send(connection.outbox)
        except BlockingIOError:
            sent = 0
        del connection.outbox[:sent]
    return bool(connection.outbox) or not connection.closing


def _answer(connection: _Connection, handle: Handler) -> None:
    while not connection.closing:
        try:
            request = parse(connection.inbox, connection.peer)
        except _Bad as bad:
            connection.outbox += render(bad.status, [("Date", date())], b"", close=True)
            connection.closing = True
            return
        if request is None:
            if b"100-continue" in connection.inbox and not connection.continued and b"\r\n\r\n" in connection.inbox:
                connection.continued = True
                connection.outbox += b"HTTP/1.1 100 Continue\r\n\r\n"
            return
        connection.continued = False
        wants = request.headers.get("connection", "").lower()
        connection.closing = "close" in wants or (request.version == "HTTP/1.0" and "keep-alive" not in wants)
        status, headers, body = handle(request)
        connection.outbox += render(status, headers, body, head=request.method == "HEAD", close=connection.closing)


def listen(address: str, port: int) -> socket.socket:
    """A listening TCP socket; an empty address is every address of both families."""
    if not address:
        try:
            return socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=1024)
        except OSError:
            address = "0.0.0.0"  # noqa: S104
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return socket.create_server((address, port), family=family, backlog=1024)
