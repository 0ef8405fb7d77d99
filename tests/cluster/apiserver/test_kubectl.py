"""Real kubectls, typed against a real API server: what a person types and must see."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.cluster.apiserver.manifests import manifests
from tests.cluster.apiserver.running import Kubectl, RunningServer, running
from tests.kubectls import kubectls

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with running(tmp_path_factory.mktemp("kubectl")) as one:
        yield one


@pytest.fixture(scope="module", params=sorted(kubectls()) or ["none"])
def kubectl(request: pytest.FixtureRequest, server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> Kubectl:
    if request.param not in kubectls():
        pytest.skip("no kubectl on this machine: apt-get install kubernetes-client")
    return Kubectl(kubectls()[request.param], server, tmp_path_factory.mktemp("home"))


@pytest.fixture
def space(kubectl: Kubectl) -> Iterator[str]:
    """A namespace of the test's own."""
    name = f"space-{time.monotonic_ns()}"
    kubectl("create", "namespace", name)
    yield name
    kubectl("delete", "namespace", name, "--wait=false")


DEPLOYMENT = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: web, image: "example/web:1", ports: [{containerPort: 80}], env: [{name: A, value: "1"}]}
      - {name: side, image: "example/side:1"}
"""
SERVICE = """\
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {type: NodePort, selector: {app: web}, ports: [{name: http, port: 80}]}
"""
CRD = next(yaml.safe_dump(manifest) for _, manifest in manifests() if manifest["kind"] == "CustomResourceDefinition")
WIDGET = """\
apiVersion: example.com/v1
kind: Widget
metadata: {name: w}
spec: {size: 3}
"""


# The namespace would stay (nothing empties it here); the custom kind has a test of its own.
_NOT_TYPED = ("Namespace", "CustomResourceDefinition", "Widget")


def _table(text: str) -> list[list[str]]:
    return [re.split(r"\s{2,}|\s+$", line.strip()) for line in text.strip().splitlines()]


def test_apply_get_delete(kubectl: Kubectl, space: str) -> None:
    """Apply twice, change, look, delete."""
    both = f"{DEPLOYMENT}---\n{SERVICE}"
    said = kubectl("-n", space, "apply", "-f", "-", stdin=both)
    assert said == "deployment.apps/web created\nservice/web created\n"
    said = kubectl("-n", space, "apply", "-f", "-", stdin=both)
    assert said == "deployment.apps/web unchanged\nservice/web unchanged\n"
    said = kubectl("-n", space, "apply", "-f", "-", stdin=both.replace("replicas: 2", "replicas: 3"))
    assert said == "deployment.apps/web configured\nservice/web unchanged\n"
    got = _table(kubectl("-n", space, "get", "deploy", "-o", "wide"))
    assert got[0] == ["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE", "CONTAINERS", "IMAGES", "SELECTOR"]
    assert got[1][:4] == ["web", "0/3", "0", "0"]
    assert got[1][5:] == ["web,side", "example/web:1,example/side:1", "app=web"]
    got = _table(kubectl("-n", space, "get", "svc"))
    assert got[0] == ["NAME", "TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "AGE"]
    assert got[1][:2] == ["web", "NodePort"] and re.fullmatch(r"80:3[0-2]\d{3}/TCP", got[1][4])
    assert re.fullmatch(r"10\.96\.\d+\.\d+", got[1][2])
    said = kubectl("-n", space, "delete", "deploy/web", "svc/web")
    assert said == 'deployment.apps "web" deleted\nservice "web" deleted\n'
    failed = kubectl.run("-n", space, "get", "deploy", "web")
    assert failed.returncode == 1
    assert failed.stderr == 'Error from server (NotFound): deployments.apps "web" not found\n'


def test_defaults_and_strategic_patches(kubectl: Kubectl, space: str) -> None:
    """Lists merge by their keys: one container's image changes, the others stay."""
    kubectl("-n", space, "apply", "-f", "-", stdin=DEPLOYMENT)
    kubectl("-n", space, "set", "image", "deploy/web", "web=example/web:2")
    kubectl("-n", space, "set", "env", "deploy/web", "B=2", "-c", "web")
    got = json.loads(kubectl("-n", space, "get", "deploy", "web", "-o", "json"))
    web, side = got["spec"]["template"]["spec"]["containers"]
    assert (web["image"], side["image"]) == ("example/web:2", "example/side:1")
    assert web["env"] == [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]
    assert web["ports"] == [{"containerPort": 80, "protocol": "TCP"}]
    assert got["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": "25%", "maxUnavailable": "25%"}
    assert got["metadata"]["generation"] == 3
    patch = '{"spec":{"template":{"spec":{"containers":[{"name":"side","$patch":"delete"}]}}}}'
    kubectl("-n", space, "patch", "deploy", "web", "-p", patch)
    names = kubectl("-n", space, "get", "deploy", "web", "-o", "jsonpath={.spec.template.spec.containers[*].name}")
    assert names == "web"
    # Applying another variable removes what apply once set and keeps what others set.
    kubectl("-n", space, "apply", "-f", "-", stdin=DEPLOYMENT.replace("name: A", "name: C"))
    envs = "jsonpath={.spec.template.spec.containers[0].env[*].name}"
    assert sorted(kubectl("-n", space, "get", "deploy", "web", "-o", envs).split()) == ["B", "C"]


def test_scale_label_annotate_patch(kubectl: Kubectl, space: str) -> None:
    """The small verbs."""
    kubectl("-n", space, "apply", "-f", "-", stdin=DEPLOYMENT)
    assert kubectl("-n", space, "scale", "deploy/web", "--replicas=5") == "deployment.apps/web scaled\n"
    kubectl("-n", space, "label", "deploy/web", "tier=front", "app-")
    kubectl("-n", space, "annotate", "deploy/web", "note=hello there")
    operations = json.dumps(
        [
            {"op": "replace", "path": "/spec/replicas", "value": 7},
            {"op": "test", "path": "/metadata/labels/tier", "value": "front"},
        ]
    )
    kubectl("-n", space, "patch", "deploy", "web", "--type=json", "-p", operations)
    got = json.loads(kubectl("-n", space, "get", "deploy", "web", "-o", "json"))
    assert got["spec"]["replicas"] == 7
    assert got["metadata"]["labels"] == {"tier": "front"}
    assert got["metadata"]["annotations"]["note"] == "hello there"
    refused = kubectl.run(
        "-n", space, "patch", "deploy", "web", "--type=json", "-p", '[{"op":"remove","path":"/spec/nothing"}]'
    )
    assert refused.returncode == 1 and "invalid" in refused.stderr  # 1.20 says no more than that


def test_selectors_and_outputs(kubectl: Kubectl, space: str) -> None:
    """-l in its forms, --field-selector, -L, --show-labels, sorting, names."""
    for name, labels in (("a", "tier=front"), ("b", "tier=back"), ("c", "other=x")):
        kubectl("-n", space, "create", "configmap", name, "--from-literal=k=v")
        kubectl("-n", space, "label", "configmap", name, labels)

    def names(*arguments: str) -> str:
        return kubectl("-n", space, "get", "cm", "-o", "jsonpath={.items[*].metadata.name}", *arguments)

    assert names("-l", "tier") == "a b"
    assert names("-l", "tier=front") == "a"
    assert names("-l", "tier in (front,back),tier!=front") == "b"
    assert names("-l", "!tier") == "c kube-root-ca.crt"
    assert names("--field-selector", "metadata.name=c") == "c"
    assert names("--chunk-size=1") == "a b c kube-root-ca.crt"
    got = _table(kubectl("-n", space, "get", "cm", "a", "--show-labels"))
    assert got[0][-1] == "LABELS" and got[1][-1] == "tier=front"
    assert kubectl("-n", space, "get", "cm", "-o", "name", "-l", "tier") == "configmap/a\nconfigmap/b\n"
    failed = kubectl.run("-n", space, "get", "cm", "--field-selector", "data.k=v")
    assert failed.returncode == 1 and "data.k" in failed.stderr


def test_custom_resources(kubectl: Kubectl, space: str) -> None:
    """A CRD's kind at once: discovery, columns, defaults, validation; gone with the CRD."""
    kubectl("apply", "-f", "-", stdin=CRD)
    kubectl("wait", "--for=condition=Established", "crd/widgets.example.com", "--timeout=120s")
    assert kubectl("-n", space, "apply", "-f", "-", stdin=WIDGET) == "widget.example.com/w created\n"
    assert kubectl("-n", space, "apply", "-f", "-", stdin=WIDGET) == "widget.example.com/w unchanged\n"
    assert _table(kubectl("-n", space, "get", "wg")) == [["NAME", "SIZE"], ["w", "3"]]
    assert kubectl("-n", space, "get", "wg", "w", "-o", "jsonpath={.spec.color}") == "red"
    refused = kubectl.run("-n", space, "apply", "-f", "-", stdin=WIDGET.replace("size: 3", "size: 0"))
    assert refused.returncode == 1 and "spec.size" in refused.stderr
    assert re.search(r"^widgets\s+wg\s+example.com/v1", kubectl("api-resources", "--api-group=example.com"), re.M)
    kubectl("delete", "crd", "widgets.example.com", "--timeout=120s")
    assert kubectl.run("-n", space, "get", "--raw", "/apis/example.com/v1/widgets").returncode == 1


def test_server_side_apply(kubectl: Kubectl, space: str) -> None:
    """Owners, a conflict without force, fields given up by their owner go."""
    arguments = ("-n", space, "apply", "--server-side", "-f", "-")
    both = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {a: '1', b: '2'}\n"
    assert "serverside-applied" in kubectl(*arguments, "--field-manager=one", stdin=both)
    other = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {b: '3'}\n"
    refused = kubectl.run(*arguments, "--field-manager=two", stdin=other)
    assert refused.returncode == 1 and 'conflict with "one": .data.b' in refused.stderr
    kubectl(*arguments, "--field-manager=two", "--force-conflicts", stdin=other)
    just_a = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {}\n"
    kubectl(*arguments, "--field-manager=one", stdin=just_a)
    assert kubectl("-n", space, "get", "cm", "c", "-o", "jsonpath={.data}") == '{"b":"3"}'


def test_watch_shows_changes(kubectl: Kubectl, space: str) -> None:
    """`get -w` prints what comes after the list."""
    process = subprocess.Popen(
        kubectl.command("-n", space, "get", "cm", "-w", "-l", "seen=yes", "--request-timeout=120s"),
        stdout=subprocess.PIPE,
        text=True,
        env=kubectl.environment(),
    )
    try:
        assert process.stdout is not None
        kubectl("-n", space, "create", "cm", "one")
        kubectl("-n", space, "label", "cm", "one", "seen=yes")
        kubectl("-n", space, "create", "cm", "two")
        kubectl("-n", space, "label", "cm", "two", "seen=yes")
        lines = [process.stdout.readline().split() for _ in range(3)]
    finally:
        process.kill()
        process.communicate()
    assert [line[:2] for line in lines] == [["NAME", "DATA"], ["one", "0"], ["two", "0"]]


def test_finalizers_hold(kubectl: Kubectl, space: str) -> None:
    """A finalizer holds a deleted object until it is taken away."""
    kubectl("-n", space, "create", "cm", "held")
    kubectl("-n", space, "patch", "cm", "held", "-p", '{"metadata":{"finalizers":["example.com/hold"]}}')
    kubectl("-n", space, "delete", "cm", "held", "--wait=false")
    stamp = kubectl("-n", space, "get", "cm", "held", "-o", "jsonpath={.metadata.deletionTimestamp}")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", stamp)
    assert kubectl.run("-n", space, "wait", "--for=delete", "cm/held", "--timeout=1s").returncode == 1
    kubectl("-n", space, "patch", "cm", "held", "-p", '{"metadata":{"finalizers":null}}')
    assert kubectl.run("-n", space, "get", "cm", "held").returncode == 1


def test_binary_bodies(kubectl: Kubectl, space: str) -> None:
    """Commands whose bodies are protobuf in 1.32: create, can-i, tokens."""
    kubectl("-n", space, "create", "deployment", "made", "--image=example/x", "--replicas=3")
    kubectl("-n", space, "create", "service", "nodeport", "made", "--tcp=80:http")
    kubectl("-n", space, "create", "secret", "generic", "made", "--from-literal=k=v")
    kubectl("-n", space, "create", "serviceaccount", "made")
    got = json.loads(kubectl("-n", space, "get", "deploy", "made", "-o", "json"))["spec"]
    assert (got["replicas"], got["selector"]) == (3, {"matchLabels": {"app": "made"}})
    port = json.loads(kubectl("-n", space, "get", "svc", "made", "-o", "json"))["spec"]["ports"][0]
    assert (port["port"], port["targetPort"]) == (80, "http")
    assert json.loads(kubectl("-n", space, "get", "secret", "made", "-o", "json"))["data"] == {"k": "dg=="}
    assert kubectl("auth", "can-i", "create", "pods") == "yes\n"


def test_token_of_an_account(kubectl: Kubectl, server: RunningServer, space: str) -> None:
    """A bound token signs in as its account, until the account is gone."""
    kubectl("-n", space, "create", "serviceaccount", "robot")
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 700}}
    status, answer = server.call("POST", f"/api/v1/namespaces/{space}/serviceaccounts/robot/token", body)
    assert status == 201
    token = answer["status"]["token"]
    plain = Kubectl(kubectl.command()[0], server, Path(kubectl.environment()["HOME"]) / "robot")
    config = yaml.safe_load((Path(plain.environment()["HOME"]) / "config").read_text())
    config["users"][0]["user"] = {}
    (Path(plain.environment()["HOME"]) / "config").write_text(yaml.safe_dump(config))
    assert plain.run("get", "ns").returncode == 1
    assert plain.run("--token", token, "get", "ns").returncode == 0
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}}
    _, answer = server.call("POST", "/apis/authentication.k8s.io/v1/tokenreviews", review)
    assert answer["status"]["user"]["username"] == f"system:serviceaccount:{space}:robot"
    kubectl("-n", space, "delete", "serviceaccount", "robot")
    assert plain.run("--token", token, "get", "ns").returncode == 1


def test_discovery_explain_dry_run(kubectl: Kubectl, space: str) -> None:
    """What there is, what it is made of, and changes that are not made."""
    resources = kubectl("api-resources", "--verbs=list")
    for name, short in (("pods", "po"), ("deployments", "deploy"), ("endpointslices", ""), ("leases", "")):
        assert re.search(rf"^{name}\s+{short}", resources, re.M), name
    assert "apps/v1" in kubectl("api-versions").split()
    assert "maxSurge" in kubectl("explain", "deployment.spec.strategy.rollingUpdate")
    said = kubectl("-n", space, "apply", "--dry-run=server", "-f", "-", stdin=SERVICE)
    assert said == "service/web created (server dry run)\n"
    assert kubectl("-n", space, "get", "svc", "-o", "name") == ""


def test_manifests_of_every_kind(kubectl: Kubectl) -> None:
    """Each kind is created, described or listed, changed and deleted."""
    every = [manifest for _, manifest in manifests() if manifest["kind"] not in _NOT_TYPED]
    document = yaml.safe_dump_all(every)
    said = kubectl("create", "-f", "-", stdin=document)
    assert said.count(" created\n") == len(every)
    said = kubectl("get", "-f", "-", "-o", "name", stdin=document)
    assert len(said.split()) == len(every)
    kubectl("label", "-f", "-", "tested=yes", stdin=document)
    for manifest in every:
        printed = kubectl("get", manifest["kind"].lower(), manifest["metadata"]["name"], "-o", "wide")
        assert len(printed.splitlines()) == 2, printed
    kubectl("delete", "--wait=false", "-f", "-", stdin=document)


def test_kinds_nothing_acts_on_say_so(kubectl: Kubectl, space: str) -> None:
    """A Job is kept and never runs: whoever makes one is told; what is acted on says nothing."""
    job = kubectl.run("-n", space, "create", "job", "j", "--image=busybox")
    assert job.returncode == 0
    assert "Warning: jobs are stored, and nothing in this cluster acts on them: j stays as it is" in job.stderr
    assert kubectl.run("-n", space, "create", "configmap", "c").stderr == ""


def test_debug_containers_are_refused(kubectl: Kubectl, space: str) -> None:
    """An ephemeral container would never start: the path is absent, as on a cluster with the feature off."""
    kubectl("-n", space, "run", "p", "--image=busybox", "--restart=Never")
    refused = kubectl.run("get", "--raw", f"/api/v1/namespaces/{space}/pods/p/ephemeralcontainers")
    assert refused.returncode == 1 and "NotFound" in refused.stderr
