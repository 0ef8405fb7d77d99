"""Answers that are not a success, as metav1.Status.

Handlers raise `ApiFault`; the server turns it into the HTTP answer. Clients branch on `reason`, people read
`message`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mycel.cluster.apiserver.schema.problems import Problem


class ApiFault(Exception):
    """One Status answer."""

    def __init__(self, code: int, reason: str, message: str, *, details: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details

    def status(self) -> dict[str, Any]:
        """The body of the answer."""
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            **({"details": self.details} if self.details else {}),
            "code": self.code,
        }


def _about(group: str, kind: str, name: str) -> dict[str, Any]:
    return {
        **({"name": name} if name else {}),
        **({"group": group} if group else {}),
        **({"kind": kind} if kind else {}),
    }


def _called(plural: str, group: str) -> str:
    return f"{plural}.{group}" if group else plural


def not_found(plural: str, group: str, name: str) -> ApiFault:
    """404: there is no such object."""
    return ApiFault(
        404, "NotFound", f'{_called(plural, group)} "{name}" not found', details=_about(group, plural, name)
    )


def no_such_path(path: str) -> ApiFault:
    """404: the server has no such resource."""
    return ApiFault(404, "NotFound", f"the server could not find the requested resource {path[:200]}", details={})


def already_exists(plural: str, group: str, name: str) -> ApiFault:
    """409: the name is taken."""
    message = f'{_called(plural, group)} "{name}" already exists'
    return ApiFault(409, "AlreadyExists", message, details=_about(group, plural, name))


def conflict(plural: str, group: str, name: str, detail: str) -> ApiFault:
    """409: somebody else was faster, or a precondition failed."""
    message = f'Operation cannot be fulfilled on {_called(plural, group)} "{name}": {detail}'
    return ApiFault(409, "Conflict", message, details=_about(group, plural, name))


def stale(plural: str, group: str, name: str) -> ApiFault:
    """409: the caller's resourceVersion is not the newest."""
    return conflict(
        plural,
        group,
        name,
        "the object has been modified; please apply your changes to the latest version and try again",
    )


def bad_request(message: str, problems: Sequence[Problem] = ()) -> ApiFault:
    """400: the request cannot be understood."""
    causes = [problem_cause(problem) for problem in problems]
    return ApiFault(400, "BadRequest", message, details={"causes": causes} if causes else None)


def invalid_object(kind: str, group: str, name: str, problems: Sequence[Problem]) -> ApiFault:
    """422: the object is understood and not allowed; every problem names its field."""
    texts = [str(problem) for problem in problems]
    said = texts[0] if len(texts) == 1 else "[" + ", ".join(texts) + "]"
    details = _about(group, kind, name)
    details["causes"] = [problem_cause(problem) for problem in problems]
    return ApiFault(422, "Invalid", f'{_called(kind, group)} "{name}" is invalid: {said}', details=details)


def forbidden(plural: str, group: str, name: str, detail: str) -> ApiFault:
    """403: understood, and not now or not here."""
    message = f'{_called(plural, group)} "{name}" is forbidden: {detail}'
    return ApiFault(403, "Forbidden", message, details=_about(group, plural, name))


def method_not_allowed(method: str) -> ApiFault:
    """405."""
    return ApiFault(405, "MethodNotAllowed", f"the server does not allow {method} on the requested resource")


def unsupported_media(got: str, allowed: Sequence[str]) -> ApiFault:
    """415."""
    wanted = ", ".join(allowed)
    message = f"the body of the request was in an unknown format ({got[:100]}) - accepted media types include: {wanted}"
    return ApiFault(415, "UnsupportedMediaType", message)


def gone(message: str) -> ApiFault:
    """410: the revision was compacted away; list again."""
    return ApiFault(410, "Expired", message)


def unauthorized() -> ApiFault:
    """401."""
    return ApiFault(401, "Unauthorized", "Unauthorized")


def unavailable(message: str) -> ApiFault:
    """503, with the reason clients retry on."""
    return ApiFault(503, "ServiceUnavailable", message)


def too_large(limit: int) -> ApiFault:
    """413."""
    return ApiFault(413, "RequestEntityTooLarge", f"limit is {limit} bytes")


def problem_cause(problem: Problem) -> dict[str, str]:
    """`details.causes[]` of one problem."""
    return {"reason": problem.cause.value, "message": problem.message, "field": problem.field}
