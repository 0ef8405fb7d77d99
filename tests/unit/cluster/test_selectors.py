"""Label and field selectors, and what a watch with one shows."""

from __future__ import annotations

from typing import Any

import pytest

from mycel.cluster.apiserver.errors import ApiFault
from mycel.cluster.apiserver.kinds import builtin_kinds
from mycel.cluster.apiserver.selectors import field_selector, label_selector
from mycel.cluster.apiserver.watch import visible_change
from mycel.cluster.store import Change, ChangeType, Record, ResourceId, Revision

PODS = next(kind for kind in builtin_kinds() if kind.resource == "pods")


def _pod(labels: dict[str, str] | None = None, **more: Any) -> dict[str, Any]:
    return {"metadata": {"name": "p", "namespace": "n", "labels": labels or {}}, **more}


@pytest.mark.parametrize(
    ("selector", "labels", "matches"),
    [
        ("a", {"a": "1"}, True),
        ("a", {}, False),
        ("!a", {}, True),
        ("a=1", {"a": "1"}, True),
        ("a==1", {"a": "2"}, False),
        ("a!=1", {}, True),
        ("a!=1", {"a": "1"}, False),
        ("a in (1,2)", {"a": "2"}, True),
        ("a in (1, 2)", {"a": "3"}, False),
        ("a notin (1,2)", {}, True),
        ("a notin (1)", {"a": "1"}, False),
        ("a,b=2", {"a": "1", "b": "2"}, True),
        ("a in (1),b notin (2)", {"a": "1", "b": "2"}, False),
        ("a>3", {"a": "4"}, True),
        ("a<3", {"a": "x"}, False),
        ("example.com/a=b", {"example.com/a": "b"}, True),
        ("a=", {"a": ""}, True),
    ],
)
def test_label_selectors(selector: str, labels: dict[str, str], matches: bool) -> None:
    """As kubectl's -l."""
    predicate = label_selector(selector)
    assert predicate is not None and predicate(_pod(labels)) is matches


@pytest.mark.parametrize("selector", ["a in", "a in 1", "=", "a=b=c", "(a)", "a = b c", "a=b!", "a>x"])
def test_label_selectors_that_are_none(selector: str) -> None:
    """400."""
    with pytest.raises(ApiFault) as raised:
        label_selector(selector)
    assert raised.value.code == 400


@pytest.mark.parametrize(
    ("selector", "matches"),
    [
        ("metadata.name=p", True),
        ("metadata.name!=p", False),
        ("metadata.namespace=n,spec.nodeName=n1", True),
        ("spec.nodeName=", False),
        ("status.phase!=Running", True),
        ("spec.hostNetwork=false", True),
    ],
)
def test_field_selectors(selector: str, matches: bool) -> None:
    """As --field-selector."""
    predicate = field_selector(selector, PODS)
    assert predicate is not None
    assert predicate(_pod(spec={"nodeName": "n1"}, status={"phase": "Pending"})) is matches


def test_field_selector_of_an_unknown_field() -> None:
    """400 names the field."""
    with pytest.raises(ApiFault, match=r"spec\.color"):
        field_selector("spec.color=red", PODS)


def _record(labels: dict[str, str], revision: int) -> Record:
    pod = _pod(labels)
    pod["metadata"]["resourceVersion"] = str(revision)
    return Record.of(ResourceId("pods"), pod, Revision(revision))


@pytest.mark.parametrize(
    ("kind", "before", "after", "seen"),
    [
        (ChangeType.ADDED, None, {"a": "1"}, ChangeType.ADDED),
        (ChangeType.ADDED, None, {}, None),
        (ChangeType.MODIFIED, {"a": "1"}, {"a": "1"}, ChangeType.MODIFIED),
        (ChangeType.MODIFIED, {}, {"a": "1"}, ChangeType.ADDED),
        (ChangeType.MODIFIED, {"a": "1"}, {}, ChangeType.DELETED),
        (ChangeType.MODIFIED, {}, {}, None),
        (ChangeType.DELETED, {"a": "1"}, {"a": "1"}, ChangeType.DELETED),
        (ChangeType.DELETED, {}, {}, None),
    ],
)
def test_objects_enter_and_leave_a_selected_watch(
    kind: ChangeType, before: dict[str, str] | None, after: dict[str, str], seen: ChangeType | None
) -> None:
    """Beginning to match is ADDED, ceasing is DELETED with the last matching state and the new revision."""
    predicate = label_selector("a=1")
    assert predicate is not None
    change = Change(Revision(5), kind, None if before is None else _record(before, 4), _record(after, 5))
    told = visible_change(change, predicate)
    assert (told[0] if told else None) is seen
    if told:
        assert told[1].obj["metadata"]["resourceVersion"] == "5"
        assert told[1].obj["metadata"]["labels"] == {"a": "1"}
