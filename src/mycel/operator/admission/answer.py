"""An AdmissionReview (admission.k8s.io/v1) and the answer to it, as bytes. Pure."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from mycel.operator.admission.review import Mesh, Problem, problem_of, warnings_of


class NoReview(ValueError):
    """A request that asks nothing; the text says why."""


class _Request(msgspec.Struct):
    uid: str
    object: dict[str, Any] | None = None
    oldObject: dict[str, Any] | None = None


class _Review(msgspec.Struct):
    request: _Request


class Answer(NamedTuple):
    """What is sent, and whether the write may be made."""

    body: bytes
    allowed: bool


_REVIEW = msgspec.json.Decoder(_Review)


def answer(body: bytes, mesh: Mesh) -> Answer:
    """The verdict on a review. Raises NoReview."""
    try:
        asked = _REVIEW.decode(body).request
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise NoReview(f"the body is no AdmissionReview: {error}") from None
    response: dict[str, Any] = {"uid": asked.uid, "allowed": True}
    if asked.object is not None:  # else it goes
        if problem := problem_of(asked.object, asked.oldObject):
            response |= {"allowed": False, "status": _status(problem)}
        elif warnings := warnings_of(asked.object, mesh):
            response["warnings"] = warnings
    review = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}
    return Answer(msgspec.json.encode(review), response["allowed"])


def _status(problem: Problem) -> dict[str, Any]:
    """As the API server says it of what it finds itself: kubectl before 1.25 shows nothing but the details."""
    cause = {"reason": "FieldValueInvalid", "field": problem.field, "message": problem.message}
    details = {"kind": problem.kind, "name": problem.name, "causes": [cause]}
    return {"code": 422, "reason": "Invalid", "message": str(problem), "details": details}
