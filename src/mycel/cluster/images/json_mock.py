"""Stands in for cilium/json-mock: a mock API that answers as json-server on Express does. Standard library only.

`GET /` is 200, `/public` and `/private` are 200, `/client-ip` tells the peer, `/auth-header-required` is 401 without an
Authorization header, `/echo…` repeats the request, POST is 201 with the body given back, everything else is 404 `{}`.
"""

from __future__ import annotations

import base64
import os

# hashlib would load OpenSSL: 4 MB for one digest.
from _sha1 import sha1  # pyright: ignore[reportMissingImports, reportUnknownVariableType] (private, but in every CPython 3.11)

from mycel.cluster.images import tiny_http

_INDEX = b"""<html>
  <head>
    <title>JSON Server</title>
  </head>
  <body>
    <h1>JSON Server</h1>
    <ul><li><a href="public">/public</a></li><li><a href="private">/private</a></li></ul>
  </body>
</html>
"""
_DOCUMENTS = {
    "/public": b'[\n  {\n    "id": 1,\n    "body": "public information"\n  }\n]',
    "/private": b'[\n  {\n    "id": 1,\n    "body": "secret information"\n  }\n]',
}


def etag(body: bytes) -> str:
    """Express' weak tag: length in hex and the first 27 characters of the base64 SHA-1."""
    digest = base64.b64encode(sha1(body).digest()).decode()[:27]  # what Express sends
    return f'W/"{len(body):x}-{digest}"'


def quoted(text: str) -> str:
    """A JSON string."""
    out: list[str] = []
    for char in text:
        if char in '"\\':
            out.append("\\" + char)
        elif ord(char) < 0x20 or ord(char) > 0x7E:
            out += [f"\\u{unit:04x}" for unit in _units(char)]
        else:
            out.append(char)
    return '"' + "".join(out) + '"'


def _units(char: str) -> list[int]:
    raw = char.encode("utf-16-be", "surrogatepass")
    return [int.from_bytes(raw[i : i + 2], "big") for i in range(0, len(raw), 2)]


def answer(request: tiny_http.Request) -> tiny_http.Answer:
    """(status, headers, body) for one request."""
    path = request.path.rstrip("/") or "/"
    status, kind, body = _content(request, path)
    headers = [
        ("X-Powered-By", "Express"),
        ("Vary", "Origin, Accept-Encoding"),
        ("Access-Control-Allow-Credentials", "true"),
        ("Cache-Control", "no-cache"),
        ("Pragma", "no-cache"),
        ("Expires", "-1"),
        ("X-Content-Type-Options", "nosniff"),
        ("Content-Type", kind),
        ("ETag", etag(body)),
        ("Date", tiny_http.date()),
    ]
    if request.headers.get("if-none-match") == etag(body) and request.method in ("GET", "HEAD") and status == 200:
        return 304, headers, b""
    return status, headers, body


def _content(request: tiny_http.Request, path: str) -> tuple[int, str, bytes]:
    json = "application/json; charset=utf-8"
    if path == "/auth-header-required" and "authorization" not in request.headers:
        return 401, json, b'{\n  "error": "Unauthorized"\n}'
    if request.method in ("POST", "PUT", "PATCH"):
        known = path in ("/", "/public", "/private", "/auth-header-required")
        return (201 if request.method == "POST" else 200) if known else 404, json, request.body or b"{}"
    if path == "/":
        return 200, "text/html; charset=UTF-8", _INDEX
    if path in _DOCUMENTS:
        return 200, json, _DOCUMENTS[path]
    if path == "/auth-header-required":
        return 200, json, b"{}"
    if path == "/client-ip":
        address = request.peer[0].removeprefix("::ffff:")
        return 200, json, f'{{\n  "client-ip": {quoted(address)}\n}}'.encode()
    if path == "/echo" or path.startswith("/echo/"):
        lines = ",\n".join(f"    {quoted(name)}: {quoted(value)}" for name, value in sorted(request.headers.items()))
        head = f'{{\n  "method": {quoted(request.method)},\n  "url": {quoted(request.target)},\n'
        text = f'{head}  "headers": {{\n{lines}\n  }}\n}}'
        return 200, json, text.encode()
    return 404, json, b"{}"


def main() -> None:
    """Serve on $PORT (3000, as json-server) and, where NAMED_PORT is a number, nothing else: it is only a label."""
    port = int(os.environ.get("PORT", "3000"))
    listener = tiny_http.listen("", port)
    print(f"JSON Server is running on port {port}", flush=True)
    tiny_http.serve([listener], answer)


if __name__ == "__main__":
    main()
