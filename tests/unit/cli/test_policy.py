"""`mycel policy`: files, documents and fields in errors; expectations; explanations as text."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from mycel.api import flow_pb2 as pb
from mycel.cli.main import run
from mycel.cli.policies.live import as_flow, request_of, seen_text
from mycel.cli.policy import parse_ends
from tests.unit.policy.worlds import CLUSTER, cnp, into, pod, pods, to_ports

POLICY = cnp(into({"fromEndpoints": [pods(app="db")], "toPorts": to_ports("80/TCP")}))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Manifests in two files."""
    (tmp_path / "cluster.yaml").write_text(yaml.safe_dump_all(CLUSTER))
    (tmp_path / "policy.yml").write_text(yaml.safe_dump({"kind": "List", "apiVersion": "v1", "items": [POLICY]}))
    return tmp_path


def evaluate(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, output, errors."""
    code = run(["policy", *arguments])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_a_verdict_a_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """For the flows of a file."""
    flows = folder / "flows.jsonl"
    flow = {"id": "a", "from": {"pod": "bank/web"}, "to": {"pod": "shop/web"}, "protocol": "TCP", "port": 80}
    flows.write_text(json.dumps(flow) + "\n\n")
    code, out, _ = evaluate(capsys, "evaluate", "-f", str(folder), "--flows", str(flows), "-o", "json")
    assert code == 0
    assert json.loads(out) == {
        "id": "a",
        "verdict": "denied",
        "egress": {"verdict": "allowed", "reason": "no-policy", "rules": []},
        "ingress": {"verdict": "denied", "reason": "default-deny", "rules": ["CiliumNetworkPolicy shop/p spec"]},
    }


def test_invalid_manifests_are_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """File, document and field; exit code 2."""
    bad = folder / "bad.yaml"
    bad.write_text(yaml.safe_dump_all([POLICY, cnp({"ingress": [{}]}, place="shop/bad")]))
    code, _, err = evaluate(capsys, "evaluate", "-f", str(bad))
    assert code == 2
    assert f"{bad}, document 2: CiliumNetworkPolicy shop/bad: spec: needs endpointSelector" in err


NAMESPACE = "{apiVersion: v1, kind: Namespace, metadata: {name: a}}"
BOMB = "[&a {}" + ", *a" * 3000 + "]"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: b\n---\na: [", "document 2: line 4, column 1: did not find"),
        ("[1]", "document 1: an object is a mapping"),
        ("apiVersion: v1", "document 1: kind: must be there"),
        ("{kind: List, items: [1]}", "document 1, item 1: an object is a mapping"),
        ("{kind: List, items: {}}", "document 1: items: must be a list"),
        ("{kind: List, items: [{kind: List, items: []}]}", "document 1, item 1: kind: a List cannot be"),
        ('{"kind": "PodList", "items": [{"metadata": {}}]}', "document 1, item 1: Pod: metadata.name: must be"),
        (f"{NAMESPACE}\n---\n{{kind: Namespace, metadata: {{name: a}}, metadata: {{name: b}}}}", "document 2: line 3"),
        ("kind: Pod\0", "document 1: unacceptable character"),
        ("kind: !!python/name:os.system", "could not determine a constructor"),
        ("[" * 300_000, "document 1: is nested deeper than 200 levels"),
        ('{"a": ' + "[" * 300_000, "document 1: is nested deeper than 200 levels"),
        ("&a {kind: Pod, spec: *a}", "document 1: is nested deeper than 200 levels by its aliases"),
        (f"x: &x {BOMB}\ny: [{', '.join(['*x'] * 3000)}]", "document 1: has more than 5,000,000 values"),
        (f"kind: {'9' * 5000}", "document 1: cannot be read"),
    ],
)
def test_what_is_no_manifest(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, words: str) -> None:
    """Exit code 2, file, document and place."""
    path = tmp_path / "x.yaml"
    path.write_text(text)
    code, _, err = evaluate(capsys, "evaluate", "-f", str(path))
    assert code == 2 and f"{path}, document" in err
    assert words in err


MERGED = "x: &a {x: 1}\ny: &b {<<: *a, x: 3}\nkind: Namespace\nmetadata: {<<: *b, x: 4, name: a}\n"
POD = """{"metadata": {"name": "a"}, "status": {"podIP": "10.0.0.9"}}"""


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# nothing\n---\n",
        MERGED,
        "kind: Namespace\nmetadata: {name: 2026-01-01, labels: {since: 2026-01-01}}",
        f'{{"apiVersion": "v1", "kind": "PodList", "items": [{POD}]}}',
        '{"kind": "Namespace", "metadata": {"name": "a"}}\n{"kind": "Namespace", "metadata": {"name": "b"}}\n',
        '{"kind": "List", "items": null}',
        "kind: Kustomization\n",
    ],
)
def test_what_is_a_manifest(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    """What kubectl reads, as it reads it."""
    path = tmp_path / "x.yaml"
    path.write_text(text)
    code, _, err = evaluate(capsys, "evaluate", "-f", str(path))
    assert code == 0, err


def test_lists_of_one_kind(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The API's own lists leave out what their items are; folders may hold other files, and files that are none."""
    (folder / "pods.json").write_text(f'{{"apiVersion": "v1", "kind": "PodList", "items": [{POD}]}}')
    (folder / "README.md").write_text("[")
    (folder / "gone.yaml").symlink_to("nowhere")
    os.mkfifo(folder / "pipe.yaml")
    flows = folder / "flows.jsonl"
    flows.write_text('{"id": 7, "from": {"pod": "default/a"}, "to": {"ip": "10.0.0.9"}, "protocol": "ICMP"}')
    code, out, err = evaluate(capsys, "evaluate", "-f", str(folder), "--flows", str(flows), "-o", "json")
    assert code == 0, err
    assert (json.loads(out)["id"], json.loads(out)["verdict"]) == (7, "allowed")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("\n{nix", "line 2 is not JSON: Expecting property name enclosed in double quotes at column 2"),
        ("[1]", "line 1: must be an object"),
        ("[" * 100_000, "line 1 is not JSON"),
        ("\n\n{}", "line 3: from: takes one of"),
    ],
)
def test_what_is_no_flow(folder: Path, capsys: pytest.CaptureFixture[str], text: str, words: str) -> None:
    """Exit code 2, file and line."""
    flows = folder / "flows.jsonl"
    flows.write_text(text)
    code, _, err = evaluate(capsys, "evaluate", "-f", str(folder), "--flows", str(flows))
    assert code == 2 and f"{flows}, {words}" in err


def test_files_that_are_not_there(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In words."""
    nowhere = str(folder / "nowhere")
    code, _, err = evaluate(capsys, "evaluate", "-f", nowhere)
    assert (code, err) == (2, f"mycel: {nowhere}: there is no such file or folder\n")
    code, _, err = evaluate(capsys, "evaluate", "-f", str(folder), "--flows", str(folder))
    assert (code, err) == (2, f"mycel: {folder}: cannot be read: Is a directory\n")


@pytest.mark.parametrize(("verdict", "code"), [("denied", 0), ("allowed", 1)])
def test_expectations(folder: Path, capsys: pytest.CaptureFixture[str], verdict: str, code: int) -> None:
    """A test of policies: the fields a line has are compared."""
    expected = folder / "expected.jsonl"
    line: dict[str, Any] = {
        "id": "bank/web -> shop/web:80/TCP",
        "verdict": verdict,
        "ingress": {"reason": "default-deny"},
    }
    expected.write_text(json.dumps(line))
    got, out, _ = evaluate(capsys, "evaluate", "-f", str(folder), "--expect", str(expected))
    assert got == code
    assert ('verdict is "denied", expected "allowed"' in out) == bool(code)
    assert f"1 flow compared, {code} difference" in out
    got, out, err = evaluate(capsys, "evaluate", "-f", str(folder), "--expect", str(expected), "-o", "json")
    assert got == code and "1 flow compared" in err
    assert {"id", "verdict", "egress", "ingress"} == set(json.loads(out.splitlines()[0]))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("\n", "expects nothing"),
        ('{"verdict": "denied"}', "line 1: id: must be there"),
        ('{"id": "b"}', "line 1: there is no flow 'b' in"),
        ('{"id": "a"}', "line 1: there are several flows 'a' in"),
    ],
)
def test_expectations_of_nothing(folder: Path, capsys: pytest.CaptureFixture[str], text: str, words: str) -> None:
    """A test that could not fail is none."""
    flow = '{"id": "a", "from": {"pod": "bank/web"}, "to": {"pod": "shop/web"}, "port": 80}\n'
    flows, expected = folder / "flows.jsonl", folder / "expected.jsonl"
    flows.write_text(flow * 2)
    expected.write_text(text)
    code, _, err = evaluate(capsys, "evaluate", "-f", str(folder), "--flows", str(flows), "--expect", str(expected))
    assert code == 2 and f"{expected}" in err and words in err


def test_explain_offline(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The policy that switched default deny on, the nearest rule, and a policy that would allow it."""
    code, out, _ = evaluate(capsys, "explain", "-f", str(folder), "--from", "bank/web", "--to", "shop/web:80/TCP")
    assert code == 0
    for words in (
        "bank/web → shop/web:80/TCP: denied",
        "default deny, switched on by CiliumNetworkPolicy shop/p spec",
        "nearest rule: CiliumNetworkPolicy shop/p spec.ingress[0]",
        "app=db (it has web)",
        "name: allow-from-web",
    ):
        assert words in out


SERVICE: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "front", "namespace": "shop"},
    "spec": {"selector": {"app": "web"}, "clusterIP": "10.96.0.9", "ports": [{"port": 8000, "targetPort": 80}]},
}
HTTP = cnp(
    into({"fromEndpoints": [pods(app="db")], "toPorts": to_ports("80/TCP", rules={"http": [{"path": "/public"}]})})
)
NAMED = cnp(
    {
        "endpointSelector": pods(app="web"),
        "egress": [{"toFQDNs": [{"matchPattern": "*.example"}], "toPorts": to_ports("443/TCP")}],
    },
    place="shop/named",
)


@pytest.fixture
def shop(tmp_path: Path) -> str:
    """A service, rules for requests, rules for names."""
    (tmp_path / "shop.yaml").write_text(yaml.safe_dump_all([*CLUSTER, SERVICE, HTTP, NAMED]))
    return str(tmp_path)


@pytest.mark.parametrize("end", ["shop/front", "10.96.0.9"])
def test_a_service_is_its_pods(shop: str, capsys: pytest.CaptureFixture[str], end: str) -> None:
    """On the pods' port; the answer says so."""
    code, out, err = evaluate(capsys, "explain", "-f", shop, "--from", "bank/web", "--to", f"{end}:8000/TCP")
    assert code == 0, err
    assert "bank/web → shop/web:80/TCP: denied" in out
    assert "dialled as service shop/front:8000/TCP" in out
    code, _, err = evaluate(capsys, "explain", "-f", shop, "--from", "bank/web", "--to", f"{end}:80/TCP")
    assert code == 2
    assert "service shop/front has no port 80/TCP: it has 8000/TCP" in err


def test_evaluate_says_of_a_service_what_explain_says(shop: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The verdict of the pod that is the hardest to reach, and of the others; a port there is not is a mistake."""
    both = {**SERVICE, "metadata": {"name": "all", "namespace": "shop"}}
    both["spec"] = {**SERVICE["spec"], "selector": {"tier": "all"}, "clusterIP": "10.96.0.8"}
    pods_behind = [pod("shop/other", "10.0.0.9", tier="all"), pod("shop/web", "10.0.0.1", tier="all")]
    (Path(shop) / "shop.yaml").write_text(yaml.safe_dump_all([*CLUSTER, *pods_behind, both, HTTP]))
    flows = Path(shop) / "flows.jsonl"
    flow = {"id": 1, "from": {"pod": "bank/web"}, "to": {"ip": "10.96.0.8"}, "protocol": "TCP", "port": 8000}
    flows.write_text(json.dumps(flow))
    code, out, err = evaluate(capsys, "evaluate", "-f", shop, "--flows", str(flows), "-o", "json")
    assert code == 0, err
    found = json.loads(out)
    said = {"service": "shop/all:8000/TCP", "backend": "shop/web:80/TCP", "others": {"shop/other:80/TCP": "allowed"}}
    assert found | said == found and found["verdict"] == "denied"
    ends = ("--from", "bank/web", "--to", "10.96.0.8:8000/TCP")
    explained = json.loads(evaluate(capsys, "explain", "-f", shop, *ends, "-o", "json")[1])
    assert explained | said == explained and explained["verdict"] == "denied"
    assert explained["ingress"]["rules"] == found["ingress"]["rules"]
    assert "  also behind it, shop/other:80/TCP: allowed" in evaluate(capsys, "explain", "-f", shop, *ends)[1]
    _, out, _ = evaluate(capsys, "evaluate", "-f", shop, "--flows", str(flows))
    assert "bank/web → shop/web:80/TCP (service shop/all:8000/TCP)" in out
    flows.write_text(json.dumps(flow | {"port": 81}))
    code, _, err = evaluate(capsys, "evaluate", "-f", shop, "--flows", str(flows))
    assert code == 2 and f"{flows}, line 1: to: service shop/all has no port 81/TCP: it has 8000/TCP" in err


@pytest.mark.parametrize(
    ("request_", "verdict", "words"),
    [
        ("GET /public", "allowed", "passes by CiliumNetworkPolicy shop/p spec.ingress[0].toPorts[0].rules.http[0]"),
        ("GET http://a.b/private", "denied", "misses on path /public (it is /private)"),
    ],
)
def test_a_request(shop: str, capsys: pytest.CaptureFixture[str], request_: str, verdict: str, words: str) -> None:
    """Its connection is let through; the headline is about the request."""
    ends = ("explain", "-f", shop, "--from", "shop/db", "--to", "shop/web:80/TCP", "--request", request_)
    code, out, _ = evaluate(capsys, *ends)
    assert code == 0
    assert f"shop/db → shop/web:80/TCP, {request_}: {verdict}" in out
    assert words in out
    found = json.loads(evaluate(capsys, *ends, "-o", "json")[1])
    assert (found["verdict"], found["ingress"]["verdict"]) == (verdict, "l7")
    assert found["ingress"]["proxy"]["request"] == {"allowed": "passes", "denied": "denied"}[verdict]


@pytest.mark.parametrize(
    ("name", "verdict", "words"),
    [
        ("a.example", "allowed", "allowed by CiliumNetworkPolicy shop/named spec.egress[0]"),
        ("a.other", "denied", "- matchName: a.other"),
    ],
)
def test_a_name(shop: str, capsys: pytest.CaptureFixture[str], name: str, verdict: str, words: str) -> None:
    """As if DNS had answered; the remedy is about the name."""
    code, out, err = evaluate(capsys, "explain", "-f", shop, "--from", "shop/web", "--to", f"{name}:443")
    assert code == 0, err
    assert f"shop/web → {name}:443/TCP: {verdict}" in out
    assert words in out


@pytest.mark.parametrize(
    ("ends", "words"),
    [
        (("shop/gone", "shop/web:80"), "there is no pod or service shop/gone\n  There are shop/db"),
        (("web", "shop/web:80"), "A pod or service is written namespace/name"),
        (("shop/web", "shop/web"), "say the port and protocol too"),
    ],
)
def test_ends_that_are_not_there(
    shop: str, capsys: pytest.CaptureFixture[str], ends: tuple[str, str], words: str
) -> None:
    code, _, err = evaluate(capsys, "explain", "-f", shop, "--from", ends[0], "--to", ends[1])
    assert code == 2
    assert words in err


@pytest.mark.parametrize(
    ("to", "words"),
    [
        (
            "shop/web:80",
            "shop/web → shop/web:80/TCP: allowed\n\negress from shop/web: allowed\n  a pod may always talk",
        ),
        ("[2001:db8::1]:80/UDP", "shop/web → [2001:db8::1]:80/UDP: denied"),
        ("192.0.2.1:444", "  terminatingTLS is not supported yet"),
        ("192.0.2.1:445", "  POST /x: passes by default allow"),
    ],
)
def test_what_is_said(folder: Path, capsys: pytest.CaptureFixture[str], to: str, words: str) -> None:
    """Of a pod to itself, of IPv6, of ports no proxy can serve, of requests where nothing is denied."""
    closed = {"toPorts": to_ports("444/TCP", terminatingTLS={"secret": {"name": "s"}})}
    spec = {"endpointSelector": pods(app="web"), "egress": [closed], "egressDeny": [{"toPorts": to_ports("80/UDP")}]}
    spec["egress"].append({"toPorts": to_ports("445/TCP", rules={"http": [{"method": "GET"}]})})
    spec["enableDefaultDeny"] = {"egress": False}
    (folder / "more.yaml").write_text(yaml.safe_dump(cnp(spec, place="shop/more")))
    request = ("--request", "POST /x") if to.endswith("445") else ()
    code, out, err = evaluate(capsys, "explain", "-f", str(folder), "--from", "shop/web", "--to", to, *request)
    assert code == 0, err
    assert words in out


def test_what_a_proxy_saw_is_explained(shop: str) -> None:
    """A flow of layer 7 is its connection with a request, and says who decided."""
    flow = pb.Flow(uuid="u", verdict=pb.DROPPED, Summary="HTTP/1.1 GET http://web/private")
    flow.l7.type, flow.l7.http.method, flow.l7.http.url = pb.REQUEST, "GET", "http://web/private"
    flow.ingress_denied_by.add(name="p", namespace="shop", kind="CiliumNetworkPolicy", labels=["mycel:rule=spec"])
    request = request_of(flow)
    assert request is not None and request.http == ("GET", "/private", "web")
    assert seen_text(flow).splitlines() == [
        "http-request DROPPED (HTTP/1.1 GET http://web/private)",
        "decided then by CiliumNetworkPolicy shop/p spec",
    ]
    assert request_of(pb.Flow()) is None


def test_lint_exits_with_one(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """When there is something to look at."""
    assert evaluate(capsys, "lint", "-f", str(folder))[0] == 0
    (folder / "trap.yaml").write_text(yaml.safe_dump(cnp(into({"fromEndpoints": []}), place="shop/trap")))
    code, out, _ = evaluate(capsys, "lint", "-f", str(folder))
    assert code == 1 and "empty-list" in out


def test_lint_judges_envoy_configs_as_agents_do(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is refused with document and field; what is named in other namespaces is a finding."""
    path = folder / "listener.yaml"
    item = yaml.safe_load((Path(__file__).parents[3] / "examples/envoy-lb-listener.yaml").read_text())
    path.write_text(yaml.safe_dump(item))
    assert evaluate(capsys, "lint", "-f", str(folder))[0] == 0
    del item["metadata"]["namespace"]
    path.write_text(yaml.safe_dump(item))
    code, out, _ = evaluate(capsys, "lint", "-f", str(folder))
    assert code == 1 and "CiliumEnvoyConfig default/envoy-lb-listener" in out and "reference" in out
    item["spec"]["resources"][0]["address"] = {"socket_address": {"address": "0.0.0.0", "port_value": 80}}
    path.write_text(yaml.safe_dump(item))
    code, _, err = evaluate(capsys, "lint", "-f", str(folder))
    assert code == 2
    assert f"{path}, document 1: CiliumEnvoyConfig default/envoy-lb-listener: spec.resources[0].address: " in err


@pytest.mark.parametrize(
    ("destination", "expected"),
    [
        ("shop/db:5432/TCP", {"to": {"pod": "shop/db"}, "port": 5432, "protocol": "TCP"}),
        ("1.1.1.1:53/udp", {"to": {"ip": "1.1.1.1"}, "port": 53, "protocol": "UDP"}),
        ("[2001:db8::1]:443", {"to": {"ip": "2001:db8::1"}, "port": 443, "protocol": "TCP"}),
        ("shop/db:ICMP/0", {"to": {"pod": "shop/db"}, "protocol": "ICMP", "type": 0}),
        ("kube-apiserver:6443/TCP", {"to": {"entity": "kube-apiserver"}, "port": 6443, "protocol": "TCP"}),
    ],
)
def test_ends(destination: str, expected: dict[str, Any]) -> None:
    """As people write them."""
    assert parse_ends("a/b", destination) == {"id": f"a/b -> {destination}", "from": {"pod": "a/b"}} | expected


def test_an_answer_is_turned_round() -> None:
    """What is explained is the connection, not the packet."""
    flow = pb.Flow(uuid="u", source=pb.Endpoint(namespace="shop", pod_name="db"))
    flow.IP.source, flow.IP.destination = "10.0.0.2", "1.2.3.4"
    flow.l4.TCP.source_port, flow.l4.TCP.destination_port = 5432, 40000
    flow.is_reply.value = True
    assert as_flow(flow) == {
        "id": "u",
        "from": {"ip": "1.2.3.4"},
        "to": {"pod": "shop/db"},
        "family": 4,
        "protocol": "TCP",
        "port": 5432,
    }
