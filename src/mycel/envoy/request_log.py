"""What Envoy logs of a request: one line of text per field, written by `log_format` and read by `read_line`.

No method, path or header can hold the newline between two fields (RFC 9110 5.5, RFC 9113 8.2.1); Envoy refuses or folds
what tries. A format costs Envoy half of what its typed log of requests does (bench/README.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

TEXT_BYTES = 2_100
"""Of a URL's path and of a header's value; the rest is not logged. A little more than flows show."""
_START = b"mycel 1\n"  # of lines of this form, should there be others one day
_ABSENT = b"-"
_REQUEST, _RESPONSE = b">", b"<"


class Line(NamedTuple):
    """A request as it was logged: the values of `_OPERATORS`, where b"" is what Envoy had not."""

    code: bytes  # decimal; 0: no answer
    details: bytes  # Envoy's reason for it
    duration_ns: bytes  # decimal, from the first byte of the request to the last of the answer
    client: bytes  # address:port
    server: bytes
    protocol: bytes  # HTTP/1.1
    rule: bytes  # of the listener's RBAC: section/rule
    method: bytes
    scheme: bytes
    authority: bytes
    path: bytes  # before anything was rewritten
    traceparent: bytes
    user_agent: bytes
    request_id: bytes
    request_headers: Mapping[str, bytes]
    response_headers: Mapping[str, bytes]


_OPERATORS = (
    "%RESPONSE_CODE%",
    "%RESPONSE_CODE_DETAILS%",
    "%COMMON_DURATION(DS_RX_BEG:DS_TX_END:ns)%",
    "%DOWNSTREAM_REMOTE_ADDRESS%",
    "%DOWNSTREAM_LOCAL_ADDRESS%",
    "%PROTOCOL%",
    "%DYNAMIC_METADATA(envoy.filters.http.rbac:enforced_effective_policy_id)%",
    "%REQ(:METHOD):100%",
    "%REQ(:SCHEME):100%",
    f"%REQ(:AUTHORITY):{TEXT_BYTES}%",
    f"%REQ(:PATH):{TEXT_BYTES}%",
    "%REQ(TRACEPARENT):100%",
    f"%REQ(USER-AGENT):{TEXT_BYTES}%",
    f"%REQ(X-REQUEST-ID):{TEXT_BYTES}%",
)


def log_format(shown: Iterable[str], *, rewritten: bool) -> str:
    """The format of lines that also hold these headers (lower case) of request and response.

    `rewritten`: the path may have been, and Envoy's header then says what it was. Elsewhere it could be the client's.
    """
    names = tuple(shown)
    asked = [f"{_REQUEST.decode()}{name}:%REQ({name}):{TEXT_BYTES}%" for name in names]
    answered = [f"{_RESPONSE.decode()}{name}:%RESP({name}):{TEXT_BYTES}%" for name in names]
    made = _START.decode() + "\n".join((*_OPERATORS, *asked, *answered))
    return made.replace("%REQ(:PATH)", "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)") if rewritten else made


def is_line(text: bytes) -> bool:
    """Whether a text is a line of this form, and not of another release's."""
    return text.startswith(_START) and text.count(b"\n") >= len(_OPERATORS)


def read_outcome(line: bytes) -> tuple[bytes, bytes]:
    """Only `code` and `details` of a line."""
    _, code, details, _ = line.split(b"\n", 3)
    return code, details


def read_line(line: bytes) -> Line:
    """All of a line."""
    fields = line.split(b"\n")[1:]
    headers: dict[bytes, dict[str, bytes]] = {_REQUEST: {}, _RESPONSE: {}}
    for field in fields[len(_OPERATORS) :]:
        name, _, value = field[1:].partition(b":")
        if value != _ABSENT:
            headers[field[:1]][name.decode()] = value
    values = (b"" if value == _ABSENT else value for value in fields[: len(_OPERATORS)])
    return Line._make((*values, headers[_REQUEST], headers[_RESPONSE]))
