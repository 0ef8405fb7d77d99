"""Type tables, protobuf bodies, custom schemas, quantities, paths."""

from __future__ import annotations

from typing import Any

import pytest

from mycel.cluster.apiserver import custom
from mycel.cluster.apiserver.allocate import Allocator
from mycel.cluster.apiserver.kinds import builtin_kinds
from mycel.cluster.apiserver.paths import Target, parse_resource_path
from mycel.cluster.apiserver.protobuf import WireError, decode_message, unwrap
from mycel.cluster.apiserver.registry import CustomSchema, Kind, Registry
from mycel.cluster.apiserver.schema.check import normalize
from mycel.cluster.apiserver.schema.openapi import document, index
from mycel.cluster.apiserver.schema.openapi_v2 import document_v2
from mycel.cluster.apiserver.schema.quantity import is_quantity, quantity_value
from mycel.cluster.apiserver.schema.types import Shape, Type, struct, struct_names


def test_every_table_row_parses_and_refers_to_something() -> None:
    """All structs of all tables, with every struct they name."""
    names = struct_names()
    assert len(names) > 300
    known = set(names)
    for name in names:
        for field in struct(name).fields.values():
            kind: Type = field.type
            while kind.element is not None:
                kind = kind.element
            if kind.shape is Shape.STRUCT:
                assert kind.name in known, f"{name}.{field.name}"


def test_every_kind_has_a_struct_and_a_document() -> None:
    """No kind without a type; OpenAPI in both forms covers it."""
    registry = Registry(builtin_kinds())
    for kind in registry.kinds():
        assert kind.struct is not None and struct(kind.struct).fields, kind
        told = document(registry, kind.group, kind.version)
        assert told is not None
        gvk = [{"group": kind.group, "kind": kind.kind, "version": kind.version}]
        assert any(s.get("x-kubernetes-group-version-kind") == gvk for s in told["components"]["schemas"].values())
    assert set(index(registry)["paths"]) >= {"api/v1", "apis/apps/v1"}
    assert b"io.k8s.api.core.v1.Pod" in document_v2(registry)


@pytest.mark.parametrize(
    ("pod", "field"),
    [
        ({"spec": {"containers": [{"ports": [{"containerPort": "80"}]}]}}, "spec.containers[0].ports[0].containerPort"),
        ({"spec": {"containers": {}}}, "spec.containers"),
        ({"spec": {"hostNetwork": "yes"}}, "spec.hostNetwork"),
        ({"metadata": {"labels": {"a": 1}}}, "metadata.labels[a]"),
        ({"spec": {"terminationGracePeriodSeconds": 2**70}}, "spec.terminationGracePeriodSeconds"),
        ({"metadata": {"creationTimestamp": "yesterday"}}, "metadata.creationTimestamp"),
    ],
)
def test_wrong_types_are_found_where_they_are(pod: dict[str, Any], field: str) -> None:
    """The path of the value, with indices and keys."""
    found = normalize(pod, struct("core.v1.Pod"))
    assert [problem.field for problem in found.wrong] == [field]


def test_unknown_fields_and_nulls_go() -> None:
    """As a typed decoder would drop them, and told."""
    pod: dict[str, Any] = {
        "spec": {"containers": [{"name": "a", "imag": "x", "env": None}], "nodeNam": "n"},
        "extra": 1,
    }
    found = normalize(pod, struct("core.v1.Pod"))
    assert sorted(found.unknown) == ["extra", "spec.containers[0].imag", "spec.nodeNam"]
    assert pod == {"spec": {"containers": [{"name": "a"}]}}


def _field(number: int, data: bytes) -> bytes:
    return bytes([number << 3 | 2, len(data)]) + data


def test_protobuf_body() -> None:
    """An envelope with a Namespace as client-go writes it: zero values dropped, maps and strings kept."""
    meta = _field(1, b"cilium-test") + _field(2, b"") + _field(8, b"") + _field(11, _field(1, b"a") + _field(2, b"b"))
    raw = _field(1, meta) + _field(2, b"") + _field(3, _field(1, b""))
    envelope = (
        b"k8s\x00"
        + _field(1, _field(1, b"v1") + _field(2, b"Namespace"))
        + _field(2, raw)
        + _field(3, b"")
        + _field(4, b"")
    )
    version, kind, message = unwrap(envelope)
    assert (version, kind) == ("v1", "Namespace")
    assert decode_message(message, struct("core.v1.Namespace")) == {
        "metadata": {"name": "cilium-test", "labels": {"a": "b"}}
    }


def test_protobuf_inline_and_special_types() -> None:
    """Inlined structs are flattened; IntOrString, Quantity, Time and pointers to zero come out right."""
    action = _field(1, b"/") + _field(2, bytes([1 << 3, 1]) + _field(3, b"http"))
    probe = _field(1, _field(2, action)) + bytes([2 << 3, 0])
    assert decode_message(probe, struct("core.v1.Probe")) == {"httpGet": {"path": "/", "port": "http"}}
    spec = bytes([1 << 3, 0])
    assert decode_message(spec, struct("apps.v1.DeploymentSpec")) == {"replicas": 0}
    limits = _field(1, _field(1, b"cpu") + _field(2, _field(1, b"100m")))
    assert decode_message(limits, struct("core.v1.ResourceRequirements")) == {"limits": {"cpu": "100m"}}
    stamp = _field(9, bytes([1 << 3]) + b"\x80\x94\xeb\xdc\x03")
    assert decode_message(stamp, struct("meta.v1.ObjectMeta")) == {"deletionTimestamp": "2001-09-09T01:46:40Z"}


@pytest.mark.parametrize("data", [b"\x0a", b"\x0a\x7f", b"\x0f", b"\xff" * 12, _field(1, b"\xff\xfe"), b"\x08\x01"])
def test_protobuf_that_is_cut_or_wrong(data: bytes) -> None:
    """A WireError, nothing else."""
    with pytest.raises(WireError):
        decode_message(data, struct("core.v1.ObjectReference"))


@pytest.mark.parametrize(
    ("text", "value"), [("100m", 0.1), ("1Gi", 2**30), ("1.5", 1.5), ("2e3", 2000), ("5k", 5000), ("-1", -1)]
)
def test_quantities(text: str, value: float) -> None:
    """Suffixes and exponents."""
    assert is_quantity(text) and float(quantity_value(text)) == value


@pytest.mark.parametrize("text", ["", "1GB", "m", "1 Gi", "--1", "1e", "0x10", "9" * 80])
def test_texts_that_are_no_quantities(text: str) -> None:
    """Refused."""
    assert not is_quantity(text)


SCHEMA = {
    "type": "object",
    "properties": {
        "spec": {
            "type": "object",
            "required": ["size"],
            "properties": {
                "size": {"type": "integer", "minimum": 1, "maximum": 5},
                "color": {"type": "string", "default": "red", "enum": ["red", "blue"]},
                "port": {"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}]},
                "names": {
                    "type": "array",
                    "items": {"type": "string", "pattern": "^[a-z]+$"},
                    "x-kubernetes-list-type": "set",
                },
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                "one": {
                    "type": "object",
                    "oneOf": [{"required": ["a"]}, {"required": ["b"]}],
                    "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
                },
                "by": {"type": "object", "additionalProperties": {"type": "integer"}},
                "maybe": {"type": "string", "nullable": True},
            },
        }
    },
}
WIDGET = Kind(
    "example.com", "v1", "widgets", "Widget", "widget", namespaced=True, custom=CustomSchema(SCHEMA, (), None)
)


@pytest.mark.parametrize(
    ("spec", "fields"),
    [
        ({"size": 3}, []),
        ({}, ["spec.size"]),
        ({"size": 9}, ["spec.size"]),
        ({"size": "3"}, ["spec.size"]),
        ({"size": True}, ["spec.size"]),
        ({"size": 1, "color": "green"}, ["spec.color"]),
        ({"size": 1, "port": 80}, []),
        ({"size": 1, "port": "http"}, []),
        ({"size": 1, "port": []}, ["spec.port"]),
        ({"size": 1, "names": ["a", "B"]}, ["spec.names[1]"]),
        ({"size": 1, "names": ["a", "a"]}, ["spec.names[1]"]),
        ({"size": 1, "one": {"a": "x"}}, []),
        ({"size": 1, "one": {"a": "x", "b": "y"}}, ["spec.one"]),
        ({"size": 1, "by": {"k": "v"}}, ["spec.by.k"]),
        ({"size": 1, "maybe": None}, []),
        ({"size": None}, ["spec.size"]),
    ],
)
def test_custom_validation(spec: dict[str, Any], fields: list[str]) -> None:
    """A structural schema's words, with paths."""
    assert [problem.field for problem in custom.validate({"metadata": {}, "spec": spec}, WIDGET)] == fields


def test_custom_pruning_and_defaults() -> None:
    """Unknown fields go where nothing preserves them; defaults come where nothing is."""
    obj: dict[str, Any] = {"metadata": {}, "spec": {"size": 1, "bogus": 2, "free": {"x": {"y": 1}}}, "more": 1}
    assert sorted(custom.prune(obj, WIDGET)) == ["more", "spec.bogus"]
    custom.default(obj, WIDGET)
    assert obj == {"metadata": {}, "spec": {"size": 1, "free": {"x": {"y": 1}}, "color": "red"}}


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/api/v1/pods", Target("", "v1", "", "pods", "", "", "")),
        ("/api/v1/namespaces", Target("", "v1", "", "namespaces", "", "", "")),
        ("/api/v1/namespaces/a", Target("", "v1", "", "namespaces", "a", "", "")),
        ("/api/v1/namespaces/a/status", Target("", "v1", "", "namespaces", "a", "status", "")),
        ("/api/v1/namespaces/a/pods", Target("", "v1", "a", "pods", "", "", "")),
        ("/api/v1/namespaces/a/pods/b/exec", Target("", "v1", "a", "pods", "b", "exec", "")),
        ("/apis/apps/v1/namespaces/a/deployments/b/scale", Target("apps", "v1", "a", "deployments", "b", "scale", "")),
        ("/apis/x.io/v1/roles/system%3Anode", Target("x.io", "v1", "", "roles", "system:node", "", "")),
        ("/apis/apps/v1", None),
        ("/healthz", None),
    ],
)
def test_paths(path: str, target: Target | None) -> None:
    """What a URL names."""
    assert parse_resource_path(path) == target


def _service(uid: str, **spec: Any) -> dict[str, Any]:
    return {"metadata": {"uid": uid}, "spec": {"type": "ClusterIP", "ports": [{"port": 80}], **spec}}


def test_addresses_and_ports_are_given_once() -> None:
    """No two Services share one; what is freed can be had again."""
    import ipaddress

    allocator = Allocator(ipaddress.IPv4Network("10.0.0.0/28"))
    seen: set[str] = set()
    services = []
    for number in range(14):
        service = _service(str(number), type="NodePort")
        assert allocator.fill(service, None) == []
        allocator.take(service)
        services.append(service)
        seen.add(service["spec"]["clusterIP"])
        assert 30000 <= service["spec"]["ports"][0]["nodePort"] <= 32767
    assert len(seen) == 14 and len({s["spec"]["ports"][0]["nodePort"] for s in services}) == 14
    assert [problem.field for problem in allocator.fill(_service("full"), None)] == ["spec.clusterIPs"]
    allocator.release(services[3])
    late = _service("late")
    assert allocator.fill(late, None) == [] and late["spec"]["clusterIP"] == services[3]["spec"]["clusterIP"]
    taken = _service("x", clusterIP=services[0]["spec"]["clusterIP"])
    assert [problem.field for problem in allocator.fill(taken, None)] == ["spec.clusterIPs"]
