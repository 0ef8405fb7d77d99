"""What a call to the API server can fail with.

`client` maps HTTP statuses (metav1.Status bodies) and connection failures to these at one seam; nobody above
it sees an aiohttp exception.
"""

from __future__ import annotations

import msgspec


class ApiError(Exception):
    """The API server refused a request: HTTP `status`, machine-readable `reason`, and its sentence."""

    def __init__(self, status: int, reason: str, message: str, *, body: bytes = b"") -> None:
        super().__init__(message or reason or f"HTTP {status}")
        self.status = status
        self.reason = reason
        self.message = message
        self.body = body


class BadRequest(ApiError):
    """400: the request itself is malformed."""


class Unauthorized(ApiError):
    """401: the credentials are missing, wrong or out of date."""


class Forbidden(ApiError):
    """403: RBAC or admission says no."""


class NotFound(ApiError):
    """404: no such object, kind or path."""


class Conflict(ApiError):
    """409: the object changed since it was read, or another field manager owns a field."""


class AlreadyExists(ApiError):
    """409 AlreadyExists: an object of that name is there already."""


class Gone(ApiError):
    """410: the resource version is too old; list again."""


class Invalid(ApiError):
    """422: the object breaks its schema; the message names the field."""


class Unavailable(ApiError):
    """No answer (refused, reset, timed out) or 429/5xx: the same request may work later."""


class _Status(msgspec.Struct, gc=False, frozen=True):
    message: str | None = None
    reason: str | None = None
    code: int | None = None


_BY_STATUS: dict[int, type[ApiError]] = {
    400: BadRequest,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Gone,
    422: Invalid,
    429: Unavailable,
}
_DECODER = msgspec.json.Decoder(_Status)


def from_status(status: int, body: bytes, *, request: str) -> ApiError:
    """The exception for an answer of `status` with `body`; `request` names it in bare messages."""
    try:
        said = _DECODER.decode(body)
    except msgspec.MsgspecError:
        said = _Status(message=body[:300].decode("utf-8", "replace").strip())
    reason = said.reason or ""
    message = said.message or f"{request} answered HTTP {status}"
    if status == 409 and reason == "AlreadyExists":
        return AlreadyExists(status, reason, message, body=body)
    if status >= 500:
        return Unavailable(status, reason, message, body=body)
    return _BY_STATUS.get(status, ApiError)(status, reason, message, body=body)


def from_watch_error(body: bytes) -> ApiError:
    """The exception for the object of a watch's ERROR event."""
    try:
        status = _DECODER.decode(body).code or 500
    except msgspec.MsgspecError:
        status = 500
    return from_status(status, body, request="watch")
