"""The four patches."""

from __future__ import annotations

from typing import Any

import pytest

from mycel.cluster.apiserver.errors import ApiFault
from mycel.cluster.apiserver.kinds import builtin_kinds
from mycel.cluster.apiserver.patch.apply import apply_configuration
from mycel.cluster.apiserver.patch.json_patch import apply_json_patch
from mycel.cluster.apiserver.patch.merge import apply_merge_patch
from mycel.cluster.apiserver.patch.ownership import decode_fields, encode_fields, field_set
from mycel.cluster.apiserver.patch.strategic import apply_strategic_patch
from mycel.cluster.apiserver.schema.types import struct

POD = struct("core.v1.Pod")
KINDS = {kind.kind: kind for kind in builtin_kinds() if kind.group in ("", "apps")}


@pytest.mark.parametrize(
    ("target", "patch", "wanted"),
    [  # RFC 7386, appendix A
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patch(target: Any, patch: Any, wanted: Any) -> None:
    """The RFC's own table."""
    assert apply_merge_patch(target, patch) == wanted


@pytest.mark.parametrize(
    ("target", "patch", "wanted"),
    [  # RFC 6902, appendix A
        ({"foo": "bar"}, [{"op": "add", "path": "/baz", "value": "qux"}], {"baz": "qux", "foo": "bar"}),
        ({"foo": ["bar", "baz"]}, [{"op": "add", "path": "/foo/1", "value": "q"}], {"foo": ["bar", "q", "baz"]}),
        ({"baz": "qux", "foo": "bar"}, [{"op": "remove", "path": "/baz"}], {"foo": "bar"}),
        ({"foo": ["a", "b", "c"]}, [{"op": "remove", "path": "/foo/1"}], {"foo": ["a", "c"]}),
        ({"baz": "qux"}, [{"op": "replace", "path": "/baz", "value": "boo"}], {"baz": "boo"}),
        (
            {"foo": {"bar": 1, "waldo": 2}, "qux": {}},
            [{"op": "move", "from": "/foo/waldo", "path": "/qux/thud"}],
            {"foo": {"bar": 1}, "qux": {"thud": 2}},
        ),
        ({"foo": ["a", "b"]}, [{"op": "move", "from": "/foo/0", "path": "/foo/1"}], {"foo": ["b", "a"]}),
        ({"a": [1]}, [{"op": "copy", "from": "/a/0", "path": "/a/-"}], {"a": [1, 1]}),
        ({"/": 9, "~1": 10}, [{"op": "test", "path": "/~01", "value": 10}], {"/": 9, "~1": 10}),
        ({"foo": "bar"}, [{"op": "add", "path": "/child", "value": {"g": {}}}], {"foo": "bar", "child": {"g": {}}}),
    ],
)
def test_json_patch(target: Any, patch: Any, wanted: Any) -> None:
    """The RFC's own table."""
    assert apply_json_patch(target, patch) == wanted


@pytest.mark.parametrize(
    "patch",
    [
        {"op": "add"},
        [{"op": "add", "path": "/a/b/c", "value": 1}],
        [{"op": "remove", "path": "/nothing"}],
        [{"op": "replace", "path": "/nothing", "value": 1}],
        [{"op": "test", "path": "/a", "value": 2}],
        [{"op": "test", "path": "/a", "value": True}],
        [{"op": "add", "path": "a", "value": 1}],
        [{"op": "add", "path": "/l/9", "value": 1}],
        [{"op": "add", "path": "/l/01", "value": 1}],
        [{"op": "move", "from": "/d", "path": "/d/x"}],
        [{"op": "jump", "path": "/a"}],
        [{"op": "add", "path": "/b"}],
        [7],
    ],
)
def test_json_patch_that_does_not_apply(patch: Any) -> None:
    """A 4xx, and nothing half done."""
    target = {"a": 1, "l": [1], "d": {"x": {}}}
    with pytest.raises(ApiFault) as raised:
        apply_json_patch(target, patch)
    assert 400 <= raised.value.code < 500
    assert target == {"a": 1, "l": [1], "d": {"x": {}}}


def _containers(*items: dict[str, Any]) -> dict[str, Any]:
    return {"spec": {"containers": list(items)}}


@pytest.mark.parametrize(
    ("target", "patch", "wanted"),
    [
        (
            _containers({"name": "a", "image": "1"}, {"name": "b", "image": "1"}),
            _containers({"name": "b", "image": "2"}),
            _containers({"name": "a", "image": "1"}, {"name": "b", "image": "2"}),
        ),
        (
            _containers({"name": "a"}),
            _containers({"name": "b"}),
            _containers({"name": "a"}, {"name": "b"}),
        ),
        (
            _containers({"name": "a"}, {"name": "b"}),
            _containers({"name": "a", "$patch": "delete"}),
            _containers({"name": "b"}),
        ),
        (
            _containers({"name": "a"}, {"name": "b"}),
            _containers({"$patch": "replace"}, {"name": "c"}),
            _containers({"name": "c"}),
        ),
        (
            _containers({"name": "a"}, {"name": "b"}),
            {"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}},
            _containers({"name": "b"}, {"name": "a"}),
        ),
        (
            {"metadata": {"finalizers": ["a", "b"]}},
            {"metadata": {"finalizers": ["c"]}},
            {"metadata": {"finalizers": ["a", "b", "c"]}},
        ),
        (
            {"metadata": {"finalizers": ["a", "b"]}},
            {"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]}},
            {"metadata": {"finalizers": ["b"]}},
        ),
        (
            {"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}},
            {"spec": {"volumes": [{"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/x"}}]}},
            {"spec": {"volumes": [{"name": "v", "hostPath": {"path": "/x"}}]}},
        ),
        (
            {"spec": {"tolerations": [{"key": "a"}]}},
            {"spec": {"tolerations": [{"key": "b"}]}},
            {"spec": {"tolerations": [{"key": "b"}]}},
        ),
        (
            {"spec": {"nodeSelector": {"a": "1"}}},
            {"spec": {"nodeSelector": {"$patch": "replace", "b": "2"}}},
            {"spec": {"nodeSelector": {"b": "2"}}},
        ),
        (
            {"metadata": {"labels": {"a": "1"}}},
            {"metadata": {"labels": {"a": None, "b": "2"}}},
            {"metadata": {"labels": {"b": "2"}}},
        ),
        ({"metadata": {"labels": {"a": "1"}}}, {"metadata": {"labels": None}}, {"metadata": {}}),
    ],
)
def test_strategic_patch(target: Any, patch: Any, wanted: Any) -> None:
    """Keyed lists merge, others are replaced, directives do what they say."""
    assert apply_strategic_patch(target, patch, POD) == wanted


@pytest.mark.parametrize(
    "patch",
    [
        [],
        {"spec": {"containers": [{"image": "x"}]}},
        {"spec": {"containers": [3]}},
        {"$patch": "explode"},
        {"spec": {"$retainKeys": 1}},
    ],
)
def test_strategic_patch_that_does_not_fit(patch: Any) -> None:
    """400, with what is wrong."""
    with pytest.raises(ApiFault) as raised:
        apply_strategic_patch(_containers({"name": "a"}), patch, POD)
    assert raised.value.code == 400


def _applied(current: Any, wanted: Any, manager: str, *, force: bool = False, kind: str = "ConfigMap") -> Any:
    return apply_configuration(current, wanted, KINDS[kind], manager=manager, force=force, now="2026-01-01T00:00:00Z")


def _map(**data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": data}


def test_apply_removes_what_is_no_longer_wanted() -> None:
    """A manager's field that it leaves out goes, unless somebody else has it too."""
    current = _applied(None, _map(a="1", b="2", c="3"), "one")
    current = _applied(current, _map(c="3"), "two")
    current = _applied(current, _map(a="1"), "one")
    assert current["data"] == {"a": "1", "c": "3"}


def test_apply_conflicts_name_manager_and_field() -> None:
    """409 without force; with force the field changes hands."""
    current = _applied(None, _map(a="1"), "one")
    with pytest.raises(ApiFault) as raised:
        _applied(current, _map(a="2"), "two")
    assert raised.value.code == 409
    assert raised.value.details == {
        "causes": [{"reason": "FieldManagerConflict", "message": 'conflict with "one"', "field": ".data.a"}]
    }
    current = _applied(current, _map(a="2"), "two", force=True)
    assert current["data"] == {"a": "2"}
    owners = {
        e["manager"]: ("f:data", "f:a") in decode_fields(e["fieldsV1"]) for e in current["metadata"]["managedFields"]
    }
    assert owners.get("two") is True and not owners.get("one")


def test_apply_merges_keyed_lists() -> None:
    """Two managers own an item each."""

    def pod(name: str) -> dict[str, Any]:
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "p"},
            "spec": {"containers": [{"name": name, "image": "x"}]},
        }

    current = _applied(None, pod("a"), "one", kind="Pod")
    current = _applied(current, pod("b"), "two", kind="Pod")
    assert [c["name"] for c in current["spec"]["containers"]] == ["a", "b"]
    empty = {**pod("a"), "spec": {"containers": []}}
    current = _applied(current, empty, "one", kind="Pod")
    assert [c["name"] for c in current["spec"]["containers"]] == ["b"]


def test_apply_twice_changes_nothing() -> None:
    """The same configuration again: the same object."""
    first = _applied(None, _map(a="1"), "one")
    assert _applied(first, _map(a="1"), "one") == first


def test_field_sets_survive_their_encoding() -> None:
    """paths → FieldsV1 → paths."""
    pod = {
        "metadata": {"name": "p", "labels": {"a": "1"}},
        "spec": {"containers": [{"name": "c", "image": "x", "ports": [{"containerPort": 1}]}], "hostNetwork": True},
    }
    paths = field_set(pod, KINDS["Pod"])
    assert ("f:spec", "f:containers", 'k:{"name":"c"}', "f:image") in paths
    assert decode_fields(encode_fields(paths)) == paths
