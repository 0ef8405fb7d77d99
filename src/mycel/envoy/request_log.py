"""What Envoy logs of a request: one line of text per field, written by `log_format` and read by `read_line`.

No method, path or header can hold the newline between two fields (RFC 9110 5.5, RFC 9113 8.2.1); Envoy refuses or folds
what tries. A format costs Envoy half of what its typed log of requests does (bench/README.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum, auto
from typing import NamedTuple

TEXT_BYTES = 2_100
"""Of a URL's path and of a header's value; the rest is not logged. A little more than flows show."""
_START = b"mycel 2\n"  # of lines of this form
_ABSENT = b"-"
_DENIED = b"rbac_access_denied"
_NO_ANSWER = b"0"
_HEAD_BYTES = len(_START + b"403\n" + _DENIED)
_REQUEST, _RESPONSE = b">", b"<"


class Outcome(Enum):
    """What became of a request."""

    ANSWERED = auto()
    UNANSWERED = auto()
    DENIED = auto()


def _outcome(code: bytes, details: bytes) -> Outcome:
    if details.startswith(_DENIED):
        return Outcome.DENIED
    return Outcome.UNANSWERED if code == _NO_ANSWER else Outcome.ANSWERED


class Line(NamedTuple):
    """A request as it was logged: the values of `_OPERATORS`, where b"" is what Envoy had not."""

    code: bytes  # decimal; 0: no answer
    details: bytes  # Envoy's reason for it
    protocol: bytes  # HTTP/1.1
    listener: bytes  # of a policy: its name
    duration_ns: bytes  # decimal, from the first byte of the request to the last of the answer
    client: bytes  # address:port
    server: bytes
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

    @property
    def outcome(self) -> Outcome:
        """See Outcome."""
        return _outcome(self.code, self.details)


_LISTENER = "%FILTER_CHAIN_NAME%"
_OPERATORS = (
    "%RESPONSE_CODE%",
    "%RESPONSE_CODE_DETAILS%",
    "%PROTOCOL%",
    _LISTENER,
    "%COMMON_DURATION(DS_RX_BEG:DS_TX_END:ns)%",
    "%DOWNSTREAM_REMOTE_ADDRESS%",
    "%DOWNSTREAM_LOCAL_ADDRESS%",
    "%DYNAMIC_METADATA(envoy.filters.http.rbac:enforced_effective_policy_id)%",
    "%REQ(:METHOD):100%",
    "%REQ(:SCHEME):100%",
    f"%REQ(:AUTHORITY):{TEXT_BYTES}%",
    f"%REQ(:PATH):{TEXT_BYTES}%",
    "%REQ(TRACEPARENT):100%",
    f"%REQ(USER-AGENT):{TEXT_BYTES}%",
    f"%REQ(X-REQUEST-ID):{TEXT_BYTES}%",
)


def log_format(shown: Iterable[str], *, of_users: bool) -> str:
    """The format of lines that also hold these headers (lower case) of request and response.

    `of_users`: of listeners that users wrote. There the path may have been rewritten, and Envoy's header says what it
    was, which elsewhere could be the client's; and filter chains are called anything.
    """
    names = tuple(shown)
    asked = [f"{_REQUEST.decode()}{name}:%REQ({name}):{TEXT_BYTES}%" for name in names]
    answered = [f"{_RESPONSE.decode()}{name}:%RESP({name}):{TEXT_BYTES}%" for name in names]
    made = _START.decode() + "\n".join((*_OPERATORS, *asked, *answered))
    if not of_users:
        return made
    return made.replace(_LISTENER, _ABSENT.decode()).replace("%REQ(:PATH)", "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)")


def head_of(text: bytes) -> bytes:
    """Enough of a line for `read_outcome`. Most requests have the same."""
    return text[:_HEAD_BYTES]


def is_line(text: bytes) -> bool:
    """Whether a text, or its head, is of a line of this form, and not of another release's."""
    return text.startswith(_START) and text.count(b"\n", 0, _HEAD_BYTES) > 1


def read_outcome(head: bytes) -> Outcome:
    """What a line's head says."""
    _, code, details, *_ = head.split(b"\n", 3)
    return _outcome(code, details)


def read_line(line: bytes) -> Line:
    """All of a line. Raises ValueError where fields are missing."""
    fields = line.split(b"\n")[1:]
    if len(fields) < len(_OPERATORS):
        raise ValueError(f"a line of {len(fields)} fields: {line[:_HEAD_BYTES]!r}")
    headers: dict[bytes, dict[str, bytes]] = {_REQUEST: {}, _RESPONSE: {}}
    for field in fields[len(_OPERATORS) :]:
        name, _, value = field[1:].partition(b":")
        if value != _ABSENT:
            headers[field[:1]][name.decode()] = value
    values = (b"" if value == _ABSENT else value for value in fields[: len(_OPERATORS)])
    return Line._make((*values, headers[_REQUEST], headers[_RESPONSE]))
