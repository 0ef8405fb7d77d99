"""What agents write into a policy's status, and when nothing has to be written."""

from __future__ import annotations

from typing import Any

from mycel.agent.policy_objects import PolicyState
from mycel.agent.policy_status import status_patch

VALID, INVALID = PolicyState(3, "", 7, 0.0), PolicyState(4, "spec: needs endpointSelector", 8, 0.0)
NOW = "2026-01-01T00:00:00Z"


def patch(status: dict[str, Any], state: PolicyState, *, judge: bool = True, enforced: bool = True) -> dict[str, Any]:
    """The body node n1 would send."""
    return status_patch(status, state, node="n1", enforced=enforced, judge=judge, now=NOW).get("status", {})


def test_what_is_said_is_not_said_again() -> None:
    """A status with our judgement and our node's entry needs nothing."""
    first = patch({}, VALID)
    assert first["conditions"][0] | {"lastTransitionTime": ""} == {
        "type": "Valid",
        "status": "True",
        "reason": "Valid",
        "message": "Policy validation succeeded",
        "observedGeneration": 3,
        "lastTransitionTime": "",
    }
    assert first["nodes"]["n1"]["enforcing"] and first["nodes"]["n1"]["localPolicyRevision"] == 7
    assert patch(first, VALID) == {}


def resolved(status: dict[str, Any], unresolved: list[str] | None, *, names: bool = True) -> dict[str, Any]:
    """The body node n1 would send of an object that names Secrets."""
    return status_patch(
        status, VALID, node="n1", enforced=True, judge=True, now=NOW, names=names, unresolved=unresolved
    ).get("status", {})


def test_secrets_that_are_missing_are_named_until_they_come() -> None:
    """In a condition and in the node's entry; an object that names none has no such condition."""
    missing = ["Secret shop/token is not there"]
    said = resolved({}, missing)
    valid, refs = said["conditions"]
    assert (valid["type"], valid["status"]) == ("Valid", "True")
    assert (refs["type"], refs["status"], refs["message"]) == ("ResolvedRefs", "False", missing[0])
    assert said["nodes"]["n1"]["error"] == missing[0] and not said["nodes"]["n1"]["ok"]
    assert resolved(said, missing) == {}
    assert "conditions" not in resolved(said, None)  # who does not know says nothing
    healed = resolved(said, [])
    assert [each["status"] for each in healed["conditions"]] == ["True", "True"]
    assert healed["nodes"]["n1"]["error"] is None and healed["nodes"]["n1"]["ok"]
    assert [each["type"] for each in resolved(said, [], names=False)["conditions"]] == ["Valid"]


def test_only_the_judge_writes_conditions() -> None:
    """The others write their own entry."""
    assert patch({}, VALID, judge=False).keys() == {"nodes"}


def test_invalid_says_the_field_and_enforces_nothing() -> None:
    """And the entry's error goes when it is valid again; other conditions stay."""
    other = {"type": "Other", "status": "True"}
    said = patch(patch({}, VALID) | {"conditions": [other]}, INVALID)
    assert [each["type"] for each in said["conditions"]] == ["Other", "Valid"]
    assert said["conditions"][1]["status"] == "False" and said["conditions"][1]["message"] == INVALID.problem
    assert said["nodes"]["n1"]["error"] == INVALID.problem and not said["nodes"]["n1"]["enforcing"]
    assert patch(said, VALID)["nodes"]["n1"]["error"] is None
