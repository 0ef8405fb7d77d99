"""Which webhooks a write concerns, before anybody tries it, and calls that can reach nobody."""

from __future__ import annotations

from typing import Any

import pytest

from mycel.cluster.apiserver.registry import Kind
from mycel.cluster.apiserver.webhooks.call import CallFailed, Target, call
from mycel.cluster.apiserver.webhooks.match import Operation, Write, matching_kind, takes_namespace, takes_objects

PODS = Kind("", "v1", "pods", "Pod", "pod", namespaced=True, struct="core.v1.Pod")
SPACES = Kind("", "v1", "namespaces", "Namespace", "namespace", namespaced=False, struct="core.v1.Namespace")
RULE = {"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE", "UPDATE"]}


def labelled(**labels: str) -> dict[str, Any]:
    return {"metadata": {"name": "one", "labels": labels}}


@pytest.mark.parametrize(
    ("write", "concerned"),
    [
        (Write(Operation.CREATE, PODS), True),
        (Write(Operation.DELETE, PODS), False),
        (Write(Operation.UPDATE, PODS, "status"), False),
        (Write(Operation.CREATE, SPACES), False),
    ],
)
def test_rules_take_a_write_whose_objects_are_not_known(write: Write, concerned: bool) -> None:
    """So a write no rule is about is made at once, without a trial."""
    assert (matching_kind({"rules": [RULE]}, write, lambda: [PODS, SPACES]) is not None) is concerned


def test_namespace_selectors_are_about_the_namespace_objects_live_in() -> None:
    """Kinds without namespace are taken whatever it says; a Namespace by its own labels."""
    webhook = {"namespaceSelector": {"matchLabels": {"a": "b"}}}
    assert takes_namespace(webhook, PODS, lambda: {"a": "b"})
    assert not takes_namespace(webhook, PODS, dict)
    assert takes_namespace(webhook, SPACES, dict)
    assert takes_objects(webhook, Write(Operation.CREATE, SPACES, new=labelled(a="b")))
    assert not takes_objects(webhook, Write(Operation.CREATE, SPACES, new=labelled()))
    assert takes_objects(webhook, Write(Operation.CREATE, PODS, new=labelled()))


def test_object_selectors_take_the_new_or_the_old_object() -> None:
    """Or taking a label off would be a way around."""
    webhook = {"objectSelector": {"matchLabels": {"a": "b"}}}
    assert takes_objects(webhook, Write(Operation.UPDATE, PODS, new=labelled(), old=labelled(a="b")))
    assert not takes_objects(webhook, Write(Operation.UPDATE, PODS, new=labelled(), old=labelled()))


async def test_a_host_that_is_no_name_is_a_call_that_failed() -> None:
    """And no end of the request: such a webhook may say Ignore."""
    review = {"request": {"uid": "1"}}
    with pytest.raises(CallFailed, match="label empty"):
        await call({"clientConfig": {"caBundle": ""}}, (Target("https://a..b/"),), review)
