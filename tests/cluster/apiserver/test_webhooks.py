"""Admission webhooks: a real API server asks a real HTTPS server, kubectls show what it said."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.apiserver.running import Kubectl, RunningServer, running
from tests.cluster.apiserver.webhook import Webhook, listening
from tests.kubectls import kubectls

pytestmark = pytest.mark.cluster
CONFIGURATIONS = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
MAPS = "/api/v1/namespaces/default/configmaps"
Object = dict[str, Any]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with running(tmp_path_factory.mktemp("webhooks")) as one:
        yield one


@pytest.fixture
def hook(server: RunningServer, tmp_path: Path) -> Iterator[Webhook]:
    with listening(tmp_path / "pki") as one:
        yield one
    server.call("DELETE", f"{CONFIGURATIONS}/test")
    server.call("DELETE", MAPS)


def configure(
    server: RunningServer, client: Object, *operations: str, resource: str = "configmaps", **more: Any
) -> None:
    rule = {
        "apiGroups": [""],
        "apiVersions": ["v1"],
        "resources": [resource],
        "operations": list(operations or ("CREATE", "UPDATE")),
    }
    webhook = {
        "name": "maps.example.com",
        "clientConfig": client,
        "rules": [rule],
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        **more,
    }
    status, said = server.call("POST", CONFIGURATIONS, configuration(webhook))
    assert status == 201, said


def configuration(webhook: Object) -> Object:
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "test"},
        "webhooks": [webhook],
    }


def config_map(name: str = "one", **labels: str) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": labels}, "data": {"a": "1"}}


def deny(_request: Object) -> Object:
    return {"allowed": False, "status": {"code": 403, "reason": "Forbidden", "message": "data.a: say 2"}}


def test_a_denied_write_is_not_made_and_says_why(server: RunningServer, hook: Webhook) -> None:
    configure(server, hook.client())
    hook.answer = deny
    status, said = server.call("POST", MAPS, config_map())
    assert (status, said["reason"]) == (403, "Forbidden")
    assert said["message"] == 'admission webhook "maps.example.com" denied the request: data.a: say 2'
    assert server.call("GET", f"{MAPS}/one")[0] == 404
    [request] = hook.asked
    assert request["operation"] == "CREATE"
    assert request["object"]["data"] == {"a": "1"}
    assert request["oldObject"] is None
    assert (request["name"], request["namespace"], request["dryRun"]) == ("one", "default", False)


def test_a_good_write_is_asked_about_once_and_made(server: RunningServer, hook: Webhook) -> None:
    configure(server, hook.client())
    generated = {**config_map(), "metadata": {"generateName": "g-"}}
    status, said = server.call("POST", MAPS, generated)
    assert status == 201, said
    assert [request["name"] for request in hook.asked] == [said["metadata"]["name"]]
    patch = {"data": {"a": "2"}}
    path = f"{MAPS}/{said['metadata']['name']}"
    assert server.call("PATCH", path, patch, content_type="application/merge-patch+json")[0] == 200
    assert hook.asked[1]["operation"] == "UPDATE"
    assert (hook.asked[1]["object"]["data"], hook.asked[1]["oldObject"]["data"]) == ({"a": "2"}, {"a": "1"})
    assert server.call("DELETE", path)[0] == 200
    assert len(hook.asked) == 2, "a delete is asked about only where the rules say so"


def test_what_no_rule_or_selector_takes_is_not_asked_about(server: RunningServer, hook: Webhook) -> None:
    configure(server, hook.client(), objectSelector={"matchExpressions": [{"key": "judge", "operator": "Exists"}]})
    hook.answer = deny
    assert server.call("POST", MAPS, config_map("plain"))[0] == 201
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "labels": {"judge": "me"}}}
    assert server.call("POST", "/api/v1/namespaces/default/secrets", secret)[0] == 201
    assert hook.asked == []
    assert server.call("POST", MAPS, config_map("judged", judge="me"))[0] == 403


def test_deletes_are_asked_about_where_the_rules_say_so(server: RunningServer, hook: Webhook) -> None:
    assert server.call("POST", MAPS, config_map())[0] == 201
    configure(server, hook.client(), "DELETE")
    hook.answer = deny
    assert server.call("DELETE", f"{MAPS}/one")[0] == 403
    assert server.call("DELETE", MAPS)[0] == 403
    assert server.call("GET", f"{MAPS}/one")[0] == 200
    assert {(request["operation"], request["object"] is None) for request in hook.asked} == {("DELETE", True)}
    hook.answer = lambda request: {"allowed": True}


@pytest.mark.parametrize(("policy", "status"), [("Ignore", 201), ("Fail", 500)])
def test_a_webhook_that_is_away_is_passed_over_or_not(
    server: RunningServer, hook: Webhook, policy: str, status: int
) -> None:
    client = {"url": "https://127.0.0.1:1/validate", "caBundle": hook.bundle}
    configure(server, client, failurePolicy=policy)
    got, said = server.call("POST", MAPS, config_map())
    assert got == status, said
    if status == 500:
        assert 'failed calling webhook "maps.example.com"' in said["message"]


def test_an_answer_from_somebody_with_another_certificate_does_not_count(
    server: RunningServer, hook: Webhook, tmp_path: Path
) -> None:
    with listening(tmp_path / "other") as other:
        configure(server, {**hook.client(), "caBundle": other.bundle}, failurePolicy="Fail")
    assert server.call("POST", MAPS, config_map())[0] == 500
    assert hook.asked == []


def test_a_webhook_behind_a_service_is_found_by_its_endpoints(server: RunningServer, hook: Webhook) -> None:
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "hook"},
        "spec": {"ports": [{"name": "https", "port": 443}]},
    }
    endpoints = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "hook-1", "labels": {"kubernetes.io/service-name": "hook"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": True}}],
        "ports": [{"name": "https", "port": hook.port, "protocol": "TCP"}],
    }
    assert server.call("POST", "/api/v1/namespaces/default/services", service)[0] == 201
    slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
    status, said = server.call("POST", slices, endpoints)
    assert status == 201, said
    configure(server, {"service": {"name": "hook", "namespace": "default", "path": "/v"}, "caBundle": hook.bundle})
    hook.answer = deny
    assert server.call("POST", MAPS, config_map())[0] == 403


def test_what_changes_while_a_webhook_thinks_is_asked_about_again(server: RunningServer, hook: Webhook) -> None:
    assert server.call("POST", MAPS, config_map())[0] == 201
    configure(server, hook.client())

    def meddle(request: Object) -> Object:
        if len(hook.asked) == 1:
            connection = server.connect()
            headers = {"Content-Type": "application/merge-patch+json"}
            connection.request("PATCH", f"{MAPS}/one", json.dumps({"data": {"b": "3"}}), headers)
            assert connection.getresponse().status == 200
            connection.close()
        return {"allowed": True}

    hook.answer = meddle
    patch = {"data": {"a": "2"}}
    status, said = server.call("PATCH", f"{MAPS}/one", patch, content_type="application/merge-patch+json")
    assert (status, said["data"]) == (200, {"a": "2", "b": "3"})
    assert hook.asked[-1]["object"]["data"] == {"a": "2", "b": "3"}, "what was written was judged"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": "short"}, "webhooks[0].name"),
        ({"sideEffects": None}, "webhooks[0].sideEffects"),
        ({"timeoutSeconds": 31}, "webhooks[0].timeoutSeconds"),
        ({"clientConfig": {"url": "http://x/"}}, "webhooks[0].clientConfig.url"),
        ({"clientConfig": {"url": "https://a..b/"}}, "webhooks[0].clientConfig.url"),
        ({"clientConfig": {}}, "webhooks[0].clientConfig"),
        (
            {"rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"]}]},
            "webhooks[0].rules[0].resources",
        ),
        ({"matchConditions": [{"name": "a", "expression": "true"}]}, "webhooks[0].matchConditions"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused(server: RunningServer, change: Object, field: str) -> None:
    webhook = {
        "name": "maps.example.com",
        "clientConfig": {"url": "https://127.0.0.1:1/"},
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        **change,
    }
    status, said = server.call("POST", CONFIGURATIONS, configuration(webhook))
    assert status == 422, said
    assert field in [cause["field"] for cause in said["details"]["causes"]]


@pytest.mark.parametrize("version", sorted(kubectls()))
def test_kubectl_shows_denials_warnings_and_the_configuration(
    server: RunningServer, hook: Webhook, tmp_path: Path, version: str
) -> None:
    kubectl = Kubectl(kubectls()[version], server, tmp_path / "home")
    configure(server, hook.client())
    hook.answer = deny
    done = kubectl.run("apply", "-f", "-", stdin=json.dumps(config_map()))
    assert done.returncode == 1
    assert 'admission webhook "maps.example.com" denied the request: data.a: say 2' in done.stderr
    hook.answer = lambda request: {"allowed": True, "warnings": ["data.a is odd"]}
    done = kubectl.run("apply", "-f", "-", stdin=json.dumps(config_map()))
    assert done.returncode == 0, done.stderr
    assert "Warning: data.a is odd" in done.stderr
    shown = kubectl("get", "validatingwebhookconfigurations").splitlines()
    assert [line.split()[:2] for line in shown] == [["NAME", "WEBHOOKS"], ["test", "1"]]
    kubectl("delete", "validatingwebhookconfigurations", "test")
