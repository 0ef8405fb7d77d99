"""Section 7 of the walkthrough, typed with a real kubectl: a CiliumEnvoyConfig, and no way around policy.

The DNS half of the walkthrough's policies is section 6's; here pods may resolve names whatever the DNS proxy does.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.clusters import Cluster, eventually
from tests.e2e.walk import MANIFESTS, TEST_SPACE, Walk

pytestmark = pytest.mark.cluster

CLOSED = (0, 403, 503)
CONFIG = str(MANIFESTS / "envoy-lb-listener.yaml")
HTTP_RULES = str(MANIFESTS / "client-egress-l7-http.yaml")
ONLY_DNS = {
    "apiVersion": "cilium.io/v2",
    "kind": "CiliumNetworkPolicy",
    "metadata": {"name": "client-egress-only-dns", "namespace": TEST_SPACE},
    "spec": {
        "endpointSelector": {"matchLabels": {"kind": "client"}},
        "egress": [
            {
                "toEndpoints": [{"matchLabels": {"k8s:io.kubernetes.pod.namespace": "kube-system"}}],
                "toPorts": [{"ports": [{"port": "53", "protocol": "ANY"}]}],
            }
        ],
    },
}


@pytest.fixture(scope="module")
def walk(make_cluster: Callable[[str], Cluster]) -> Walk:
    """A cluster with the mesh, the test pods, both policies and the listener."""
    made = Walk(make_cluster("config"))
    made.test_pods()
    made.cluster.apply(ONLY_DNS)
    made.cluster.kubectl("apply", "-f", HTTP_RULES, "-f", CONFIG)
    eventually(lambda: condition(made, "Programmed") == "True", what="every node's Envoy has the listener")
    eventually(lambda: status(made, "client2", "GET", "/foo") == 200, what="the listener rewrites")
    eventually(lambda: status(made, "client2", "HEAD", "/") == 403, what="the rules of client2")
    eventually(lambda: status(made, "client", "GET", "/") in CLOSED, what="the rules of client")
    eventually(lambda: codes(made, 20) == {"200": 20}, what="both backends in Envoy")
    return made


def condition(walk: Walk, kind: str, name: str = "envoy-lb-listener", namespace: str = TEST_SPACE) -> str:
    found = walk.cluster.get("-n", namespace, "cec", name).get("status", {}).get("conditions", [])
    return next((each["status"] for each in found if each["type"] == kind), "")


def head(walk: Walk, pod: str, *arguments: str) -> str:
    """What `curl -I` prints in a pod; empty when nobody answers."""
    return walk.cluster.kubectl(
        "exec", "-n", TEST_SPACE, walk.pod(pod), "--", "curl", "-sS", "-m", "10", "-I", *arguments, check=False
    ).stdout


def status(walk: Walk, pod: str, method: str, path: str) -> int:
    first = head(walk, pod, "-X", method, f"echo-same-node:8080{path}").split("\r\n")[0]
    return int(first.split()[1]) if first else 0


def codes(walk: Walk, requests: int, *, agent: str = "curl") -> Counter[str]:
    """The status codes of so many requests of client2, one after the other; it says it is `agent`."""
    each = f"echo-same-node:8080/#[1-{requests}]"  # what follows the # is not sent
    curl = ("curl", "-s", "-m", "30", "-o", "/dev/null", "-w", "%{http_code}\\n", "-A", agent, each)
    done = walk.cluster.kubectl("exec", "-n", TEST_SPACE, walk.pod("client2"), "--", *curl, check=False, timeout_s=600)
    return Counter(done.stdout.split())


def went(walk: Walk, agent: str) -> dict[str, str]:
    """Request id → the echo pod that such a request of client2 went on to (in the end, where Envoy tried again), by the
    flows of the rules that judged it.
    """
    done = walk.cluster.mycel(
        "hubble", "observe", "--all", "-o", "json", "--from-pod", f"{TEST_SPACE}/client2", "--type", "l7"
    )
    found: dict[str, str] = {}
    for line in done.stdout.splitlines():
        flow = json.loads(line)["flow"]
        pod = flow["destination"].get("pod_name", "")
        if pod.startswith("echo-") and flow["l7"]["type"] == "REQUEST" and flow["verdict"] == "FORWARDED":
            headers = {each["key"]: each["value"] for each in flow["l7"]["http"]["headers"]}
            if headers["User-Agent"] == agent:
                found[headers["X-Request-Id"]] = pod
    return found


@contextlib.contextmanager
def scaled(walk: Walk, deployment: str, replicas: int) -> Iterator[None]:
    """With so many pods instead of one."""
    scale = ("-n", TEST_SPACE, "scale", f"deployment/{deployment}")
    walk.cluster.kubectl(*scale, f"--replicas={replicas}")
    try:
        walk.cluster.rolled_out("-n", TEST_SPACE, f"deployment/{deployment}")
        yield
    finally:
        walk.cluster.kubectl(*scale, "--replicas=1")
        walk.cluster.rolled_out("-n", TEST_SPACE, f"deployment/{deployment}")


def kill(walk: Walk, pod: dict[str, Any]) -> None:
    """kill -9 of a pod's server."""
    killed = 0
    for pid in walk.cluster.processes():
        with contextlib.suppress(OSError):
            ours = pod["metadata"]["uid"] in Path(f"/proc/{pid}/cgroup").read_text()
            if ours and b"json_mock" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGKILL)
                killed += 1
    assert killed


def test_the_object_says_who_has_taken_it(walk: Walk) -> None:
    """`kubectl get cec` shows it, and the status names how many nodes."""
    shown = walk.cluster.kubectl("-n", TEST_SPACE, "get", "cec").stdout.splitlines()
    assert shown[1].split()[:4] == ["envoy-lb-listener", "True", "True", "True"]
    found = walk.cluster.get("-n", TEST_SPACE, "cec", "envoy-lb-listener")["status"]["conditions"]
    assert next(each["message"] for each in found if each["type"] == "Programmed") == "on 4 of 4 nodes"


def test_requests_pass_the_listener(walk: Walk) -> None:
    """`/` is answered by way of Envoy; `/foo` is rewritten to `/`, and policy judges what leaves for the backend."""
    for path in ("/", "/foo"):
        shown = head(walk, "client2", "-X", "GET", f"echo-same-node:8080{path}").lower()
        assert shown.startswith("http/1.1 200"), shown
        assert "\nserver: envoy" in shown
        assert "\nx-envoy-upstream-service-time: " in shown


def test_the_listener_is_no_way_around_policy(walk: Walk) -> None:
    """HEAD is not GET; a client without rules gets nothing."""
    assert status(walk, "client2", "HEAD", "/") == 403
    assert status(walk, "client", "GET", "/") in CLOSED
    assert status(walk, "client", "GET", "/foo") in CLOSED


def test_both_backends_answer_in_equal_parts(walk: Walk) -> None:
    """1,000 requests, all 200, 50:50 within 10 points, told apart by the flows' destination."""
    assert codes(walk, 1000, agent="thousand") == {"200": 1000}
    eventually(lambda: len(went(walk, "thousand")) >= 1000, what="a flow of each request")
    parts = Counter(re.sub(r"-[^-]+-[^-]+$", "", pod) for pod in went(walk, "thousand").values())
    assert parts.total() == 1000, parts
    assert all(400 <= parts[name] <= 600 for name in ("echo-same-node", "echo-other-node")), parts


def test_a_killed_process_is_not_noticed(walk: Walk) -> None:
    """Two of a backend, one is killed: another is asked, and 200 requests are all answered."""

    def both_are_asked() -> bool:
        assert codes(walk, 20, agent="two") == {"200": 20}
        return len({pod for pod in went(walk, "two").values() if pod.startswith("echo-same-node")}) == 2

    with scaled(walk, "echo-same-node", 2):
        eventually(both_are_asked, what="requests to both")
        kill(walk, walk.cluster.get("-n", TEST_SPACE, "pods", "-l", "name=echo-same-node")["items"][0])
        assert codes(walk, 200) == {"200": 200}


def test_a_cluster_without_endpoints_is_named(walk: Walk) -> None:
    """Half of the requests are 503 (a weighted route picks its cluster once), and the status names the cluster."""

    def named() -> bool:
        found = walk.cluster.get("-n", TEST_SPACE, "cec", "envoy-lb-listener")["status"]["conditions"]
        return any("echo-other-node" in each.get("message", "") for each in found)

    with scaled(walk, "echo-other-node", 0):
        eventually(named, what="the status names the cluster")
        eventually(lambda: "503" in codes(walk, 10), what="Envoy has it so")
        found = codes(walk, 100)
        assert set(found) == {"200", "503"} and 25 <= found["503"] <= 75, found
    eventually(lambda: codes(walk, 20) == {"200": 20}, what="all requests are answered again")


def test_services_of_another_namespace_are_not_taken(walk: Walk) -> None:
    """An object without namespace lands in `default`; ResolvedRefs says what it may not name."""
    manifest = yaml.safe_load((MANIFESTS / "envoy-lb-listener.yaml").read_text())
    del manifest["metadata"]["namespace"]
    walk.cluster.apply(manifest)
    eventually(
        lambda: condition(walk, "ResolvedRefs", namespace="default") == "False", what="ResolvedRefs says what is wrong"
    )
    found = walk.cluster.get("-n", "default", "cec", "envoy-lb-listener")["status"]["conditions"]
    hint = next(each["message"] for each in found if each["type"] == "ResolvedRefs")
    assert "cilium-test" in hint
    walk.cluster.kubectl("delete", "-n", "default", "cec", "envoy-lb-listener")


def test_without_the_object_services_are_the_kernels_again(walk: Walk) -> None:
    """No pod was restarted, and no Envoy answers where no rule asks for one."""
    walk.cluster.kubectl("delete", "-f", CONFIG, "-f", HTTP_RULES)
    walk.cluster.kubectl("-n", TEST_SPACE, "delete", "cnp", "client-egress-only-dns")
    eventually(lambda: status(walk, "client", "GET", "/foo") == 404, what="the server itself answers")
