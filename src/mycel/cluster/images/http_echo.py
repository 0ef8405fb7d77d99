"""Stands in for hashicorp/http-echo 0.2.3: answers every request with a fixed text. Standard library only.

Flags as there: -text, -listen (:5678), -status-code (200), -version; one or two dashes, `=` or a space.
"""

from __future__ import annotations

import os
import sys

from mycel.cluster.images import tiny_http

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

VERSION = "0.2.3"


def settings(arguments: list[str], environment: Mapping[str, str]) -> tuple[str, str, int, int]:
    """(text, address, port, status) from the command line. Raises SystemExit with Go's exit code 2 on unknown flags."""
    values = {"text": environment.get("ECHO_TEXT", ""), "listen": ":5678", "status-code": "200"}
    rest = list(arguments)
    while rest:
        flag = rest.pop(0)
        name, equals, value = flag.lstrip("-").partition("=")
        if flag.startswith("-") and name == "version":
            print(f"http-echo v{VERSION}", file=sys.stderr)
            raise SystemExit(0)
        if not flag.startswith("-") or name not in values:
            print(f"flag provided but not defined: {flag}", file=sys.stderr)
            raise SystemExit(2)
        values[name] = value if equals else (rest.pop(0) if rest else "")
    if not values["text"]:
        print("Missing -text option!", file=sys.stderr)
        raise SystemExit(127)
    address, _, port = values["listen"].rpartition(":")
    return values["text"], address.strip("[]"), int(port), int(values["status-code"])


def main() -> None:
    """Serve until SIGTERM."""
    text, address, port, status = settings(sys.argv[1:], os.environ)
    body = (text + "\n").encode()

    def handle(request: tiny_http.Request) -> tiny_http.Answer:
        print(
            f"{request.headers.get('host', '')} {request.peer[0].removeprefix('::ffff:')}:{request.peer[1]} "
            f"{request.method} {request.target}",
            flush=True,
        )
        headers = [
            ("X-App-Name", "http-echo"),
            ("X-App-Version", VERSION),
            ("Date", tiny_http.date()),
            ("Content-Type", "text/plain; charset=utf-8"),
        ]
        return status, headers, body

    listener = tiny_http.listen(address, port)
    print(f"Server is listening on {address}:{port}", file=sys.stderr, flush=True)
    tiny_http.serve([listener], handle)


if __name__ == "__main__":
    main()
