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
TLS, NO_TLS = "TLS", "no TLS"
"""What a line says for a protocol of what is not looked into; its authority is the name its client asked for."""
DENIED = "denied"
"""What a line says instead of a rule when none let a request through."""
_START = b"mycel 3\n"  # of lines of this form
_ABSENT = b"-"
_DENIED = DENIED.encode()
_NO_ANSWER = b"0"
_DENIALS = (_DENIED, b"rbac_access_denied")  # the latter in Envoy's own words, of a user's filter
_HEAD_BYTES = len(_START + b"403\n" + _DENIALS[1])
_REQUEST, _RESPONSE = b">", b"<"
_NOTED = "%DYNAMIC_METADATA(envoy.filters.http.rbac:enforced_"


class Decider(Enum):
    """What in a listener decides on requests, and so how its log is told of it."""

    ROUTES = "%ROUTE_NAME%"
    FILTER = f"{_NOTED}engine_result)% {_NOTED}effective_policy_id)%"
    USER = "%RESPONSE_CODE_DETAILS%"  # filters and routes that users wrote, and call as they like


class Outcome(Enum):
    """What became of a request."""

    ANSWERED = auto()
    UNANSWERED = auto()
    DENIED = auto()


def _outcome(code: bytes, decision: bytes) -> Outcome:
    if decision.startswith(_DENIALS):
        return Outcome.DENIED
    return Outcome.UNANSWERED if code == _NO_ANSWER else Outcome.ANSWERED


class Line(NamedTuple):
    """A request as it was logged: the values of `_OPERATORS`, where b"" is what Envoy had not."""

    code: bytes  # decimal; 0: no answer
    decision: bytes  # see Decider: DENIED, or the rule that let it through
    protocol: bytes  # HTTP/1.1
    listener: bytes  # of a policy: its name; of a connection with TLS, with the decision after a space
    duration_ns: bytes  # decimal, from the first byte of the request to the last of the answer
    client: bytes  # address:port
    server: bytes
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
        return _outcome(self.code, self.decision)

    @property
    def rule(self) -> bytes:
        """Of the listener's rules that which let the request through: `section/rule`, or ANY_REQUEST."""
        rule = self.decision.rpartition(b" ")[2]
        return b"" if not self.listener or rule == _ABSENT or self.outcome is Outcome.DENIED else rule


_LISTENER = "%FILTER_CHAIN_NAME%"
_OPERATORS = (
    "%RESPONSE_CODE%",
    Decider.ROUTES.value,
    "%PROTOCOL%",
    _LISTENER,
    "%COMMON_DURATION(DS_RX_BEG:DS_TX_END:ns)%",
    "%DOWNSTREAM_REMOTE_ADDRESS%",
    "%DOWNSTREAM_LOCAL_ADDRESS%",
    "%REQ(:METHOD):100%",
    "%REQ(:SCHEME):100%",
    f"%REQ(:AUTHORITY):{TEXT_BYTES}%",
    f"%REQ(:PATH):{TEXT_BYTES}%",
    "%REQ(TRACEPARENT):100%",
    f"%REQ(USER-AGENT):{TEXT_BYTES}%",
    f"%REQ(X-REQUEST-ID):{TEXT_BYTES}%",
)


def log_format(shown: Iterable[str], decider: Decider) -> str:
    """The format of lines that also hold these headers (lower case) of request and response.

    In listeners that users wrote the path may have been rewritten, and Envoy's header says what it was, which elsewhere
    could be the client's; and filter chains are called anything.
    """
    names = tuple(shown)
    asked = [f"{_REQUEST.decode()}{name}:%REQ({name}):{TEXT_BYTES}%" for name in names]
    answered = [f"{_RESPONSE.decode()}{name}:%RESP({name}):{TEXT_BYTES}%" for name in names]
    made = _START.decode() + "\n".join((*_OPERATORS, *asked, *answered)).replace(Decider.ROUTES.value, decider.value)
    if decider is not Decider.USER:
        return made
    return made.replace(_LISTENER, _ABSENT.decode()).replace("%REQ(:PATH)", "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)")


def tls_log_format(*, denied: bool, protocol: str) -> str:
    """The same for connections whose begin has decided. `protocol`: TLS, or NO_TLS.

    Filter chains are called after listener and rule, with a space between.
    """
    decision = DENIED if denied else _LISTENER
    made = "\n".join(_OPERATORS).replace(Decider.ROUTES.value, decision).replace("%PROTOCOL%", protocol)
    return _START.decode() + made.replace(f"%REQ(:AUTHORITY):{TEXT_BYTES}%", "%REQUESTED_SERVER_NAME%")


def head_of(text: bytes) -> bytes:
    """Enough of a line for `read_outcome`. Most requests have the same."""
    return text[:_HEAD_BYTES]


def is_line(text: bytes) -> bool:
    """Whether a text, or its head, is of a line of this form, and not of another release's."""
    return text.startswith(_START) and text.count(b"\n", 0, _HEAD_BYTES) > 1


def read_outcome(head: bytes) -> Outcome:
    """What a line's head says."""
    _, code, decision, *_ = head.split(b"\n", 3)
    return _outcome(code, decision)


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
