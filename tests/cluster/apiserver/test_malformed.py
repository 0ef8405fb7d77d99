"""Broken manifests of every kind: a 4xx with the field's path, or a success where the change did no harm; never 5xx."""

from __future__ import annotations

import copy
import json
import random
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster.apiserver.manifests import manifests
from tests.cluster.apiserver.running import RunningServer, running

pytestmark = pytest.mark.cluster

# Each is wrong in nearly every place: a value of a type and shape that hardly any field takes.
_POISON: tuple[Any, ...] = (
    {"\u0000nope": []},
    [[1.5]],
    True,
    -7,
    1e30,
    "\u0000 not a name!",
    "x" * 300,
    [None],
    {"a": {"b": {"c": 1}}},
)

# NotFound: of a namespace; Forbidden: of an account or a priority class that does not exist.
_REASONS = ("Invalid", "BadRequest", "NotFound", "Forbidden")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with running(tmp_path_factory.mktemp("malformed")) as one:
        for path, manifest in manifests():
            status, answer = one.call("POST", path, manifest)
            assert status == 201, f"the unbroken {manifest['kind']} is refused: {answer}"
        yield one


def _places(value: Any, path: str = "") -> Iterator[tuple[Any, Any, str]]:
    """Every (container, key, path) within a manifest."""
    if isinstance(value, dict):
        for key, inner in value.items():
            here = f"{path}.{key}" if path else key
            yield value, key, here
            yield from _places(inner, here)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            here = f"{path}[{index}]"
            yield value, index, here
            yield from _places(inner, here)


def _break(manifest: dict[str, Any], rng: random.Random) -> tuple[dict[str, Any], str, str]:
    """A broken copy, the path that was broken, and how."""
    broken = copy.deepcopy(manifest)
    broken["metadata"]["name"] = f"broken-{rng.randrange(10**9)}"
    container, key, path = rng.choice([place for place in _places(broken) if place[2] != "metadata.name"])
    match rng.randrange(6):
        case 0 if isinstance(container, dict):
            del container[key]
            return broken, path, "removed"
        case 1 if isinstance(container, dict):
            container["bogusField"] = rng.choice(_POISON)
            parent = path.rpartition(".")[0]
            return broken, f"{parent}.bogusField" if parent else "bogusField", "unknown field"
        case 2 if isinstance(container, list):
            container.append(copy.deepcopy(container[key]))
            return broken, path, "duplicated"
        case _:
            container[key] = copy.deepcopy(rng.choice(_POISON))
            return broken, path, "poisoned"


def _check(server: RunningServer, count: int, seed: int) -> None:
    rng = random.Random(seed)
    every = manifests()
    refused = 0
    for number in range(count):
        path, manifest = every[number % len(every)]
        broken, place, how = _break(manifest, rng)
        status, answer = server.call("POST", f"{path}?fieldValidation=Strict&dryRun=All", broken)
        case = f"seed {seed} case {number}: {manifest['kind']} {place} {how}: {status} {answer}"
        assert status < 500, case
        if how == "unknown field" and not re.search(
            r"(labels|annotations|data|matchLabels|nodeSelector|selector|limits|requests)\.bogus", place
        ):
            assert 400 <= status < 500 or "Schema" in place, case
        if status >= 400:
            refused += 1
            assert answer["kind"] == "Status" and answer["reason"] in _REASONS, case
            if answer["reason"] in ("Invalid", "BadRequest"):
                causes = answer["details"]["causes"]
                assert causes and all("field" in cause for cause in causes), case
                _assert_names_place(causes, place, case)
    assert refused > count * 0.7, f"only {refused} of {count} broken manifests were refused"
    status, _ = server.call("GET", "/readyz")
    assert status == 200


def _assert_names_place(causes: list[dict[str, str]], place: str, case: str) -> None:
    """Some cause lies at the broken place, above it, or below it (or in what it is compared with)."""
    top = re.split(r"[.\[]", place)[0]
    assert any(
        re.split(r"[.\[]", cause["field"])[0] in (top, "", "<object>", "metadata", "spec") for cause in causes
    ), case


def test_broken_manifests_are_refused_with_a_path(server: RunningServer) -> None:
    """200 seeded mutations over every kind."""
    _check(server, 200, 20261123)


@pytest.mark.long
def test_many_broken_manifests_are_refused_with_a_path(server: RunningServer) -> None:
    """2,000 more."""
    _check(server, 2000, 4)


@pytest.mark.parametrize(
    ("kind", "change", "field"),
    [
        (
            "Pod",
            lambda o: o["spec"]["containers"][0]["ports"][0].update(containerPort=70000),
            "spec.containers[0].ports[0].containerPort",
        ),
        (
            "Pod",
            lambda o: o["spec"]["containers"][0]["ports"][0].update(containerPort="x"),
            "spec.containers[0].ports[0].containerPort",
        ),
        ("Pod", lambda o: o["spec"]["containers"][0].pop("image"), "spec.containers[0].image"),
        ("Pod", lambda o: o["spec"].update(containers=[]), "spec.containers"),
        ("Pod", lambda o: o["spec"].update(restartPolicy="Sometimes"), "spec.restartPolicy"),
        (
            "Pod",
            lambda o: o["spec"]["containers"][0]["volumeMounts"][0].update(name="gone"),
            "spec.containers[0].volumeMounts[0].name",
        ),
        (
            "Pod",
            lambda o: o["spec"]["containers"][0]["resources"]["limits"].update(cpu="many"),
            "spec.containers[0].resources.limits[cpu]",
        ),
        ("Pod", lambda o: o["metadata"].update(name="Not_A_Name"), "metadata.name"),
        ("Pod", lambda o: o["metadata"].update(labels={"a": "b c"}), "metadata.labels"),
        ("Service", lambda o: o["spec"]["ports"][1].update(name="http"), "spec.ports[1].name"),
        ("Service", lambda o: o["spec"]["ports"][0].update(nodePort=80), "spec.ports[0].nodePort"),
        ("Service", lambda o: o["spec"].update(clusterIP="10.0.0.1"), "spec.clusterIPs"),
        ("Deployment", lambda o: o["spec"]["selector"]["matchLabels"].update(app="y"), "spec.template.metadata.labels"),
        ("Deployment", lambda o: o["spec"].update(replicas=-1), "spec.replicas"),
        (
            "Deployment",
            lambda o: o["spec"]["template"]["spec"]["containers"].append(
                o["spec"]["template"]["spec"]["containers"][0]
            ),
            "spec.template.spec.containers[1].name",
        ),
        (
            "NetworkPolicy",
            lambda o: o["spec"]["ingress"][0]["from"][0]["ipBlock"].update(cidr="ten"),
            "spec.ingress[0].from[0].ipBlock.cidr",
        ),
        (
            "Ingress",
            lambda o: o["spec"]["rules"][0]["http"]["paths"][0].pop("pathType"),
            "spec.rules[0].http.paths[0].pathType",
        ),
        ("RoleBinding", lambda o: o["roleRef"].update(kind="Rule"), "roleRef.kind"),
        ("CustomResourceDefinition", lambda o: o["spec"]["versions"][0].update(storage=False), "spec.versions"),
        ("Widget", lambda o: o["spec"].update(size=0), "spec.size"),
        ("Widget", lambda o: o["spec"]["parts"][0].update(name="UP"), "spec.parts[0].name"),
        ("Widget", lambda o: o["spec"].pop("size"), "spec.size"),
    ],
)
def test_error_names_exactly_the_field(server: RunningServer, kind: str, change: Any, field: str) -> None:
    """The first cause is the broken field itself."""
    path, manifest = next((path, copy.deepcopy(each)) for path, each in manifests() if each["kind"] == kind)
    if kind != "CustomResourceDefinition":
        manifest["metadata"]["name"] += "-2"
    change(manifest)
    status, answer = server.call("POST", f"{path}?dryRun=All", manifest)
    assert 400 <= status < 500, answer
    assert answer["details"]["causes"][0]["field"] == field, answer
    assert field in answer["message"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b'"x"',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"metadata":' * 5000,
        b'{"metadata":{"name":7}}',
        b"{}" * 9,
    ],
)
@pytest.mark.parametrize(
    "content_type", ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf", "text/csv"]
)
def test_bodies_that_are_no_object(server: RunningServer, body: bytes, content_type: str) -> None:
    """Garbage in any encoding is the client's fault."""
    status, answer = server.call("POST", "/api/v1/namespaces/default/pods", body, content_type=content_type)
    assert 400 <= status < 500, answer
    assert answer["kind"] == "Status"


def test_yaml_aliases_do_not_explode(server: RunningServer) -> None:
    """A YAML bomb is refused, quickly."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    status, answer = server.call(
        "POST", "/api/v1/namespaces/default/configmaps", "\n".join(lines).encode(), content_type="application/yaml"
    )
    assert status == 400, answer


def test_bodies_have_a_limit(server: RunningServer) -> None:
    """More than 3 MiB is 413."""
    status, answer = server.call("POST", "/api/v1/namespaces/default/configmaps", b"x" * (3 * 1024 * 1024 + 10))
    assert (status, answer["reason"]) == (413, "RequestEntityTooLarge")


@pytest.mark.parametrize("depth", [50, 300, 500, 700, 900, 990])
@pytest.mark.parametrize("content_type", ["application/json", "application/merge-patch+json"])
def test_deep_objects_are_no_crash(server: RunningServer, depth: int, content_type: str) -> None:
    """As deep as the decoder takes, where any field is preserved: accepted or refused, never a 5xx."""
    nested = b'{"a":' * depth + b"1" + b"}" * depth
    base = "/apis/example.com/v1/namespaces/default/widgets"
    if content_type == "application/json":
        body = b'{"metadata":{"name":"deep-%d"},"spec":{"size":1},"status":%s}' % (depth, nested)
        status, answer = server.call("POST", base, body)
        if status == 201:
            assert server.call("DELETE", f"{base}/deep-{depth}")[0] == 200
    else:
        path = f"{base}/widget/status"
        status, answer = server.call("PATCH", path, b'{"status":%s}' % nested, content_type=content_type)
    assert status < 500, answer
    assert server.call("GET", f"{base}/widget")[0] == 200


@pytest.mark.parametrize("name", ["a\r\nInjected: yes", "\u00e9\u4e2d", '"quoted\\', "\x00", "x" * 5000])
def test_warnings_carry_any_field_name(server: RunningServer, name: str) -> None:
    """An unknown field's name goes into a header, and only there."""
    body = {"metadata": {"name": "warned"}, name: 1}
    connection = server.connect()
    connection.request(
        "POST",
        "/api/v1/namespaces/default/configmaps?dryRun=All",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    answer = connection.getresponse()
    answer.read()
    connection.close()
    assert answer.status == 201
    assert answer.headers["Warning"].startswith("299 - ") and "Injected" not in answer.headers


def test_lone_surrogates(server: RunningServer) -> None:
    """Text that is no Unicode is refused or kept, and never breaks a later list."""
    body = b'{"metadata":{"name":"sur"},"data":{"a":"\\ud800"}}'
    status, _ = server.call("POST", "/api/v1/namespaces/default/configmaps", body)
    assert status < 500
    assert server.call("GET", "/api/v1/namespaces/default/configmaps")[0] == 200
