"""Section 6 of the walkthrough, typed with a real kubectl: HTTP and DNS policy through the node's proxy, as
flows show it.

One cluster for the file; every kubectl of this machine types each step.
"""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.clusters import Cluster, eventually
from tests.e2e.walk import MANIFESTS, TEST_SPACE, Follower, Walk, lines_of
from tests.kubectls import kubectls

pytestmark = pytest.mark.cluster

POLICIES = ("client-egress-only-dns", "client-egress-l7-http")
FILES = tuple(word for name in POLICIES for word in ("-f", str(MANIFESTS / f"{name}.yaml")))


@pytest.fixture(scope="module")
def walk(make_cluster: Callable[[str], Cluster]) -> Walk:
    """A cluster with the mesh and the test pods."""
    made = Walk(make_cluster("layer7"))
    made.test_pods()
    return made


@pytest.fixture(params=sorted(kubectls()) or ["none"])
def typed(walk: Walk, request: pytest.FixtureRequest) -> Iterator[Walk]:
    """The walk with both policies in force, typed with one kubectl after the other."""
    with walk.typed_with(request.param):
        walk.cluster.kubectl("apply", *FILES)
        eventually(lambda: valid(walk) == dict.fromkeys(POLICIES, "True"), what="both policies Valid")
        yield walk


def valid(walk: Walk) -> dict[str, str]:
    """VALID of each policy, as `kubectl get cnp` prints it."""
    table = walk.cluster.kubectl("-n", TEST_SPACE, "get", "cnp").stdout.splitlines()
    column = table[0].split().index("VALID") if table else 0
    return {line.split()[0]: line.split()[column] for line in table[1:]}


def curl(walk: Walk, pod: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """curl in a pod of the test namespace, as a person types it."""
    return walk.cluster.kubectl(
        "exec", "-n", TEST_SPACE, walk.pod(pod), "--", "curl", "-sS", "-m", "10", *arguments, check=False
    )


def headers(shown: str) -> dict[str, str]:
    """Header names of an answer, in lower case, and their values, from `curl -v` or `curl -I`."""
    pairs = re.findall(r"^(?:< )?([\w-]+): (.*?)\r?$", shown, re.MULTILINE)
    return {name.lower(): value for name, value in pairs}


def test_both_policies_are_valid(typed: Walk) -> None:
    """`kubectl get cnp` says so."""
    assert valid(typed) == dict.fromkeys(POLICIES, "True")


def test_a_request_the_rules_allow(typed: Walk, follow: Callable[..., Follower]) -> None:
    """200; flows show DNS through the proxy, the connection handed to the proxy, and the request."""
    client, server = typed.pod("client2"), typed.pod("echo-other-node")
    follower = follow("--from-pod", f"{TEST_SPACE}/{client}")
    dns = lines_of(f"{TEST_SPACE}/{client}", r"kube-system/coredns-\S+:53")
    http = lines_of(f"{TEST_SPACE}/{client}", f"{TEST_SPACE}/{server}:8080")
    name = r"echo-other-node\.cilium-test\.svc\.cluster\.local\."
    expected = [
        dns + r"policy-verdict:L3-L4 EGRESS ALLOWED \(UDP\)$",
        dns + r"to-proxy FORWARDED \(UDP\)$",
        dns + rf"dns-request proxy FORWARDED \(DNS Query {name} A\)$",
        dns + rf"dns-request proxy FORWARDED \(DNS Query {name} AAAA\)$",
        http + r"policy-verdict:L3-L4 EGRESS ALLOWED \(TCP Flags: SYN\)$",
        http + r"to-proxy FORWARDED \(TCP Flags: SYN\)$",
        http + r"http-request FORWARDED \(HTTP/1\.1 GET http://echo-other-node:8080/\)$",
    ]

    def ask() -> list[str]:
        done = curl(typed, "client2", "-v", "echo-other-node:8080/")
        assert re.search(r"< HTTP/1\.1 200 OK", done.stderr), done.stderr
        return [pattern for pattern in expected if not follower.saw(pattern)]

    eventually(lambda: not ask(), what="all lines of the request")


def test_a_path_the_rules_do_not_allow(typed: Walk, follow: Callable[..., Follower]) -> None:
    """403 in the very words of the contract, and a flow that says DROPPED with the URL."""
    client, server = typed.pod("client2"), typed.pod("echo-same-node")
    follower = follow("--from-pod", f"{TEST_SPACE}/{client}")
    done = curl(typed, "client2", "-v", "echo-same-node:8080/foo")
    assert re.search(r"< HTTP/1\.1 403 Forbidden", done.stderr)
    said = headers(done.stderr)
    assert {key: said.get(key) for key in ("content-length", "content-type", "server")} == {
        "content-length": "15",
        "content-type": "text/plain",
        "server": "envoy",
    }
    assert done.stdout == "Access denied\n"  # its carriage return is lost as text
    line = lines_of(f"{TEST_SPACE}/{client}", f"{TEST_SPACE}/{server}:8080")
    wanted = line + r"http-request DROPPED \(HTTP/1\.1 GET http://echo-same-node:8080/foo\)$"
    # The first one may have been before the follower was there.
    eventually(
        lambda: follower.saw(wanted) or not curl(typed, "client2", "echo-same-node:8080/foo"), what="the denied request"
    )


def test_requests_name_the_rules_that_decided(typed: Walk) -> None:
    """Flows do, as Envoy and the DNS proxy went by them; `mycel policy explain` says it of a flow's uuid."""
    section = "spec.egress[0].toPorts[0].rules"
    expected = {
        ("http", "DROPPED", "egress_denied_by"): f"client-egress-l7-http {section}.http",
        ("http", "FORWARDED", "egress_allowed_by"): f"client-egress-l7-http {section}.http[0]",
        ("dns", "FORWARDED", "egress_allowed_by"): f"client-egress-only-dns {section}.dns",
    }
    found: dict[tuple[str, str, str], tuple[str, str]] = {}

    def ask() -> bool:
        for path in ("/", "/foo"):
            curl(typed, "client2", f"echo-same-node:8080{path}")
        said = typed.cluster.mycel("hubble", "observe", "--type", "l7", "--last", "100", "-o", "json").stdout
        for flow in (each["flow"] for each in map(json.loads, said.splitlines()) if "flow" in each):
            for kind, verdict, field in expected:
                if kind in flow["l7"] and flow["verdict"] == verdict and field in flow:
                    by = flow[field][0]
                    rule = next(label for label in by["labels"] if label.startswith("mycel:rule="))
                    found[kind, verdict, field] = f"{by['name']} {rule.removeprefix('mycel:rule=')}", flow["uuid"]
        return {key: rule for key, (rule, _) in found.items()} == expected

    eventually(ask, what="flows that name the rules that decided")
    _, uuid = found["http", "DROPPED", "egress_denied_by"]
    lines = typed.cluster.mycel("policy", "explain", uuid).stdout.splitlines()
    assert lines[0].endswith("GET http://echo-same-node:8080/foo: denied")
    for line in (
        f"  decided then by CiliumNetworkPolicy {TEST_SPACE}/client-egress-l7-http {section}.http",
        f"    nearest rule: CiliumNetworkPolicy {TEST_SPACE}/client-egress-l7-http {section}.http[0]",
        "    misses on path /$ (it is /foo)",
    ):
        assert line in lines


def test_a_method_the_rules_do_not_allow(typed: Walk) -> None:
    """HEAD is not GET."""
    assert curl(typed, "client2", "-I", "echo-same-node:8080/").stdout.startswith("HTTP/1.1 403 Forbidden")


def test_a_client_of_http_1_0(typed: Walk) -> None:
    """As load generators and proxies speak it: judged by the same rules."""
    for path, status in (("", "200"), ("foo", "403")):
        asked = curl(typed, "client2", "-0", "-o", "/dev/null", "-w", "%{http_code}", f"echo-other-node:8080/{path}")
        assert asked.stdout == status, asked.stderr


def test_a_client_without_rules_hears_nothing(typed: Walk, follow: Callable[..., Follower]) -> None:
    """DNS answers, TCP is dropped without an answer: curl times out (28), and a flow names the denial."""
    client, server = typed.pod("client"), typed.pod("echo-same-node")
    follower = follow("--from-pod", f"{TEST_SPACE}/{client}")
    line = lines_of(f"{TEST_SPACE}/{client}", f"{TEST_SPACE}/{server}:8080", arrow="<>")
    wanted = line + r"Policy denied DROPPED \(TCP Flags: SYN\)$"

    def ask() -> bool:
        done = curl(typed, "client", "--max-time", "3", "echo-same-node:8080/")
        assert (done.returncode, done.stdout) == (28, ""), done.stderr
        return follower.saw(wanted)

    eventually(ask, what="the denial")


KEPT_ALIVE = """
import http.client, sys
connection = http.client.HTTPConnection("echo-other-node", 8080, timeout=8)
for line in sys.stdin:
    connection.request("GET", line.strip())
    answer = connection.getresponse()
    answer.read()
    print(answer.status, flush=True)
"""


def test_a_kept_alive_connection_meets_the_rules_of_now(walk: Walk) -> None:
    """Its next request is judged by them at once: what Envoy keeps to the server of older rules is not used."""
    cluster = walk.cluster
    cluster.kubectl("apply", *FILES)
    eventually(lambda: curl(walk, "client2", "-o", "/dev/null", "-w", "%{http_code}", "echo-other-node:8080/foo")
               .stdout == "403", what="the rules")  # fmt: skip
    place = ["exec", "-i", "-n", TEST_SPACE, walk.pod("client2"), "--", "python3", "-c", KEPT_ALIVE]
    with subprocess.Popen(
        [cluster.kubectl_path, *place],
        env=cluster.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    ) as client:
        assert client.stdin is not None and client.stdout is not None

        def ask(path: str) -> str:
            assert client.stdin is not None and client.stdout is not None
            client.stdin.write(f"{path}\n")
            return client.stdout.readline().strip()

        assert ask("/") == "200"
        rule = {
            "op": "add",
            "path": "/spec/egress/0/toPorts/0/rules/http/-",
            "value": {"method": "GET", "path": "/foo"},
        }
        cluster.kubectl("-n", TEST_SPACE, "patch", "cnp", POLICIES[1], "--type=json", "-p", json.dumps([rule]))
        eventually(lambda: curl(walk, "client2", "-o", "/dev/null", "-w", "%{http_code}", "echo-other-node:8080/foo")
                   .stdout == "404", what="rules that let it through")  # fmt: skip
        assert ask("/") == "200"
        client.stdin.close()


def test_without_the_policies_everything_is_open_again(walk: Walk) -> None:
    """No pod was restarted."""
    before = {pod["metadata"]["name"] for pod in walk.cluster.get("pods", "-n", TEST_SPACE)["items"]}
    walk.cluster.kubectl("delete", "--ignore-not-found", *FILES)
    for pod in ("client", "client2"):
        eventually(
            lambda pod=pod: (
                curl(walk, pod, "-o", "/dev/null", "-w", "%{http_code}", "echo-same-node:8080/foo").stdout == "404"
            ),
            what=f"{pod} reaches the server itself",
        )
    pods = walk.cluster.get("pods", "-n", TEST_SPACE)["items"]
    assert {pod["metadata"]["name"] for pod in pods} == before
    restarts = [status["restartCount"] for pod in pods for status in pod["status"]["containerStatuses"]]
    assert restarts == [0] * len(restarts)


def test_a_header_from_a_secret(walk: Walk) -> None:
    """Closed and said until the Secret is there; then the server gets its value, whatever the client sent, and nobody
    is shown it.
    """
    name = "client-egress-set-header"
    match = {"name": "Authorization", "secret": {"name": "header-match"}, "mismatch": "REPLACE"}
    rules = {"http": [{"method": "GET", "path": "/echo", "headerMatches": [match]}]}
    ports = [{"ports": [{"port": "8080", "protocol": "TCP"}], "rules": rules}]
    policy = {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": name, "namespace": TEST_SPACE},
        "spec": {
            "endpointSelector": {"matchLabels": {"other": "client"}},
            "egress": [{"toEndpoints": [{"matchLabels": {"kind": "echo"}}], "toPorts": ports}],
        },
    }
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "header-match", "namespace": TEST_SPACE},
        "stringData": {"value": "Bearer nobody-may-see-this"},
    }
    server = walk.cluster.get("pod", "-n", TEST_SPACE, walk.pod("echo-other-node"))["status"]["podIP"]

    def answer() -> tuple[str, str]:
        done = curl(walk, "client2", "-H", "Authorization: mine", "-w", "\n%{http_code}", f"{server}:8080/echo")
        return done.stdout.rpartition("\n")[2], done.stdout

    def observed() -> str:
        return walk.cluster.mycel("hubble", "observe", "--last", "1000", "-o", "json").stdout

    def resolved() -> tuple[str, str]:
        status = walk.cluster.get("cnp", "-n", TEST_SPACE, name).get("status", {})
        found = [each for each in status.get("conditions", ()) if each["type"] == "ResolvedRefs"]
        return (found[0]["status"], found[0]["message"]) if found else ("", "")

    try:
        walk.cluster.apply(policy)
        missing = f"Secret {TEST_SPACE}/header-match is not there"
        eventually(lambda: resolved() == ("False", missing), what="the missing Secret in the status")
        eventually(lambda: answer()[0] == "403", what="403 without the Secret")
        walk.cluster.apply(secret)
        eventually(lambda: answer()[0] == "200", what="200 with the Secret")
        assert '"authorization": "Bearer nobody-may-see-this"' in answer()[1]
        eventually(lambda: resolved()[0] == "True", what="the Secret in the status")
        eventually(lambda: re.search(rf'"code":200,[^\n]*{server}:8080/echo', observed()), what="its flow")
        assert "nobody-may-see-this" not in observed()
        for kind in ("cilium", "cilium-envoy"):
            logs = walk.cluster.kubectl("-n", "kube-system", "logs", f"ds/{kind}", "--all-containers").stdout
            assert "nobody-may-see-this" not in logs
    finally:
        walk.cluster.kubectl("-n", TEST_SPACE, "delete", "--ignore-not-found", "secret/header-match", f"cnp/{name}")


def test_names_of_tls_servers(walk: Walk) -> None:
    """Where a client may go by the name it asks for: the API server's here, which speaks TLS. Flows name the rule."""
    name = "client-egress-server-names"
    endpoints = walk.cluster.get("endpoints", "-n", "default", "kubernetes")
    port = endpoints["subsets"][0]["ports"][0]["port"]
    tls = {"ports": [{"port": str(port), "protocol": "TCP"}], "serverNames": ["kubernetes.default.svc"]}
    policy = {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": name, "namespace": TEST_SPACE},
        "spec": {
            "endpointSelector": {"matchLabels": {"name": "client"}},
            "egress": [{"toEntities": ["kube-apiserver"], "toPorts": [tls]}],
        },
    }
    address = walk.cluster.get("svc", "-n", "default", "kubernetes")["spec"]["clusterIP"]
    client = f"{TEST_SPACE}/{walk.pod('client')}"

    def shown() -> dict[tuple[str, str], str]:
        """By verdict and summary the policies that flows name."""
        said = walk.cluster.mycel("hubble", "observe", "--type", "l7", "--from-pod", client, "-o", "json").stdout
        flows = [json.loads(line)["flow"] for line in said.splitlines() if '"TLS ' in line]
        named = ("egress_allowed_by", "egress_denied_by")
        return {(each["verdict"], each["Summary"]): json.dumps([each.get(name) for name in named]) for each in flows}

    def reaches(asked: str) -> bool:
        """Whether the API server answers, whatever it says."""
        done = curl(walk, "client", "-k", "--resolve", f"{asked}:443:{address}", "-o", "/dev/null", f"https://{asked}/")
        return done.returncode == 0

    assert reaches("elsewhere.test")
    try:
        walk.cluster.apply(policy)
        eventually(lambda: not reaches("elsewhere.test"), what="an end to other names")
        assert reaches("kubernetes.default.svc")
        wanted = {("FORWARDED", "TLS kubernetes.default.svc"), ("DROPPED", "TLS elsewhere.test")}
        eventually(lambda: wanted <= shown().keys() or reaches("elsewhere.test"), what="both in the flows")
        assert all("toPorts[0].serverNames" in shown()[each] and name in shown()[each] for each in wanted), shown()
    finally:
        walk.cluster.kubectl("-n", TEST_SPACE, "delete", "--ignore-not-found", f"cnp/{name}")


def test_names_are_seen_by_annotation(walk: Walk, follow: Callable[..., Follower]) -> None:
    """A pod without any policy: its questions and their answers, until the annotation goes."""
    client = walk.pod("client")
    annotate = ("-n", TEST_SPACE, "annotate", "--overwrite", "pod", client)
    follower = follow("--protocol", "dns", "--pod", f"{TEST_SPACE}/{client}")
    numbers = itertools.count()

    def ask() -> str:
        name = f"n{next(numbers)}.example.com."
        curl(walk, "client", name.rstrip("."))
        return re.escape(name)

    ask()
    walk.cluster.kubectl(*annotate, "policy.cilium.io/proxy-visibility=<Egress/53/UDP/DNS>")
    asked: list[str] = []

    def shows(name: str) -> bool:
        return follower.saw(rf"dns-request proxy FORWARDED \(DNS Query {name} A\)") and follower.saw(
            rf"dns-response proxy FORWARDED \(DNS Answer .*Proxy {name} A\)\)"
        )

    eventually(lambda: asked.append(ask()) or any(map(shows, asked)), what="a question in the flows")
    assert not follower.saw(r"Query n0\.example\.com\."), "asked before the annotation was there"
    walk.cluster.kubectl(*annotate, "policy.cilium.io/proxy-visibility-")


def test_requests_are_seen_by_annotation(walk: Walk, follow: Callable[..., Follower]) -> None:
    """From when it is there until it goes; who may ask whom is not another for it, and no connection ends for it."""
    server, client = walk.pod("echo-other-node"), walk.pod("client")
    address = walk.cluster.get("pod", "-n", TEST_SPACE, server)["status"]["podIP"]
    annotate = ("-n", TEST_SPACE, "annotate", "--overwrite", "pod", server)
    seen = (
        lines_of(f"{TEST_SPACE}/{client}", f"{TEST_SPACE}/{server}:8080") + r"http-request FORWARDED \(HTTP/1\.1 GET "
    )
    follower = follow("--protocol", "http", "--from-pod", f"{TEST_SPACE}/{client}")
    numbers = itertools.count()

    def ask() -> int:
        number = next(numbers)
        done = curl(walk, "client", "-o", "/dev/null", "-w", "%{http_code}", f"{address}:8080/private?number={number}")
        assert done.stdout == "200", done.stderr
        return number

    def shows(number: int) -> bool:
        return follower.saw(seen + rf"http://{address}:8080/private\?number={number}\)")

    with ThreadPoolExecutor(1) as beside:
        # Two requests on one connection, six seconds apart: one before, one after.
        url = f"{address}:8080/public"
        told = ("-w", "%{http_code} %{num_connects}\\n", "-o", "/dev/null", "-o", "/dev/null")
        under_way = beside.submit(curl, walk, "client2", "-m", "20", "--rate", "10/m", *told, url, url)
        for _ in range(3):
            ask()
        walk.cluster.kubectl(*annotate, "policy.cilium.io/proxy-visibility=<Ingress/8080/TCP/HTTP>")
        asked: list[int] = []
        eventually(lambda: asked.append(ask()) or any(map(shows, asked)), what="a request in the flows")
        assert under_way.result().stdout.split("\n")[:2] == ["200 1", "200 0"]
    deny = {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": "deny-client", "namespace": TEST_SPACE},
        "spec": {
            "endpointSelector": {"matchLabels": {"kind": "echo"}},
            "ingressDeny": [{"fromEndpoints": [{"matchLabels": {"name": "client"}}]}],
            "enableDefaultDeny": {"ingress": False},
        },
    }
    walk.cluster.apply(deny)
    try:
        denied = ("--max-time", "2", f"{address}:8080/")
        eventually(lambda: curl(walk, "client", *denied).returncode == 28, what="the denial")
        assert curl(walk, "client2", "-o", "/dev/null", "-w", "%{http_code}", f"{address}:8080/private").stdout == "200"
    finally:
        walk.cluster.kubectl("-n", TEST_SPACE, "delete", "cnp/deny-client")
    walk.cluster.kubectl(*annotate, "policy.cilium.io/proxy-visibility-")

    def unseen() -> bool:
        number = ask()
        time.sleep(1)
        return not shows(number)

    eventually(unseen, what="a request that is not in the flows")
