"""Real pods on a real node, seen through a real kubectl."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import re
import signal
import struct
import subprocess
import tarfile
import termios
from pathlib import Path
from typing import Any

import pytest

from tests.clusters import Cluster, eventually

pytestmark = [pytest.mark.root, pytest.mark.cluster]
CURL = "quay.io/cilium/alpine-curl:v1.4.0"


def pod(name: str, *containers: dict[str, Any], **spec: Any) -> dict[str, Any]:
    """A pod on the worker."""
    every = [{"image": CURL, "command": ["sleep", "infinity"], **container} for container in containers]
    spec = {"terminationGracePeriodSeconds": 1, **spec}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"containers": every, **spec},
    }


def status(cluster: Cluster, name: str) -> dict[str, Any]:
    return cluster.get("pod", name)["status"]


def ready(cluster: Cluster, *names: str) -> None:
    cluster.wait("--for=condition=Ready", *(f"pod/{name}" for name in names))


def inside(cluster: Cluster, name: str, script: str, *, check: bool = True) -> str:
    return cluster.kubectl("exec", name, "--", "sh", "-c", script, check=check).stdout


def test_every_kind_of_volume(cluster: Cluster) -> None:
    """emptyDir (disk and memory), configMap, secret, hostPath, projected, downwardAPI, subPath; configMaps follow
    changes.
    """
    cluster.apply(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "vols"}, "data": {"a": "one", "b": "two"}},
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "vols"}, "stringData": {"s": "hush"}},
        pod(
            "volumes",
            {
                "name": "main",
                "volumeMounts": [
                    {"name": "disk", "mountPath": "/disk"},
                    {"name": "memory", "mountPath": "/memory"},
                    {"name": "config", "mountPath": "/config"},
                    {"name": "config", "mountPath": "/one-file", "subPath": "a"},
                    {"name": "secret", "mountPath": "/secret"},
                    {"name": "host", "mountPath": "/host"},
                    {"name": "all", "mountPath": "/all"},
                ],
            },
            {"name": "second", "volumeMounts": [{"name": "disk", "mountPath": "/disk"}]},
            securityContext={"fsGroup": 1234},
            volumes=[
                {"name": "disk", "emptyDir": {}},
                {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
                {
                    "name": "config",
                    "configMap": {"name": "vols", "items": [{"key": "a", "path": "a"}, {"key": "b", "path": "deep/b"}]},
                },
                {"name": "secret", "secret": {"secretName": "vols", "defaultMode": 0o400}},
                {"name": "host", "hostPath": {"path": "/var/lib/volumes-test", "type": "DirectoryOrCreate"}},
                {
                    "name": "all",
                    "projected": {
                        "sources": [
                            {"serviceAccountToken": {"path": "token", "audience": "me", "expirationSeconds": 600}},
                            {"configMap": {"name": "kube-root-ca.crt"}},
                            {
                                "downwardAPI": {
                                    "items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]
                                }
                            },
                        ]
                    },
                },
            ],
        ),
    )
    ready(cluster, "volumes")
    said = inside(
        cluster,
        "volumes",
        "echo from-main > /disk/x; echo node > /host/y; cat /config/a /config/deep/b /one-file /secret/s; "
        "stat -c %a /disk; stat -f -c %T /memory; cat /all/labels; head -c 3 /all/token; echo; head -1 "
        "/all/ca.crt; id -G",
    )
    assert said.split("\n")[:1] == ["onetwoonehush2777"]
    assert said.split("\n")[1:6] == ["tmpfs", 'app="volumes"eyJ', "-----BEGIN CERTIFICATE-----", "0 1234", ""]
    assert cluster.kubectl("exec", "volumes", "-c", "second", "--", "cat", "/disk/x").stdout == "from-main\n"
    node = cluster.get("pod", "volumes")["spec"]["nodeName"]
    assert cluster.on_node(node, "cat", "/var/lib/volumes-test/y") == "node\n"
    assert not Path("/var/lib/volumes-test").exists(), "a host path of a node must not be the machine's"
    cluster.kubectl("patch", "configmap", "vols", "-p", '{"data":{"a":"changed"}}')
    eventually(lambda: inside(cluster, "volumes", "cat /config/a") == "changed", what="the new configMap in the volume")
    assert inside(cluster, "volumes", "cat /one-file") == "one"


def test_environment_and_identity(cluster: Cluster) -> None:
    """Variables of every source, DNS, hosts, users, capabilities, read-only root."""
    cluster.apply(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "env"}, "data": {"FROM_MAP": "map"}},
        pod(
            "identity",
            {
                "name": "main",
                "env": [
                    {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
                    {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                    {"name": "BOTH", "value": "$(NODE)/$(FROM_MAP)/$(NOPE)"},
                ],
                "envFrom": [{"configMapRef": {"name": "env"}}],
                "securityContext": {
                    "runAsUser": 1000,
                    "runAsGroup": 3000,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                },
            },
            hostAliases=[{"ip": "192.0.2.7", "hostnames": ["alias.example"]}],
            dnsConfig={"options": [{"name": "ndots", "value": "2"}]},
        ),
    )
    ready(cluster, "identity")
    found = status(cluster, "identity")
    node = cluster.get("pod", "identity")["spec"]["nodeName"]
    said = inside(
        cluster,
        "identity",
        "echo $BOTH; echo $IP; echo $KUBERNETES_SERVICE_HOST; id -u; id -g; hostname; touch /x 2>&1 | grep -c "
        "Read-only; "
        "grep CapEff /proc/self/status | cut -f2; grep -c alias.example /etc/hosts; grep -c ndots:2 /etc/resolv.conf",
    )
    assert said.split() == [
        f"{node}/map/$(NOPE)", found["podIP"], "10.96.0.1", "1000", "3000", "identity", "1",
        "0000000000000000", "1", "1",
    ]  # fmt: skip
    assert found["qosClass"] == "BestEffort"
    assert [entry["ip"] for entry in found["podIPs"]] == [found["podIP"]]


def test_init_containers_exit_codes_and_restarts(cluster: Cluster) -> None:
    """Init containers in order; a crash loop with its last state; Never leaves a failed pod with its message."""
    cluster.apply(
        pod(
            "inits",
            {"name": "main", "volumeMounts": [{"name": "d", "mountPath": "/d"}]},
            initContainers=[
                {
                    "name": "one",
                    "image": CURL,
                    "command": ["sh", "-c", "echo 1 >> /d/order"],
                    "volumeMounts": [{"name": "d", "mountPath": "/d"}],
                },
                {
                    "name": "side",
                    "image": CURL,
                    "restartPolicy": "Always",
                    "command": ["sh", "-c", "echo s >> /d/order; sleep infinity"],
                    "volumeMounts": [{"name": "d", "mountPath": "/d"}],
                },
                {
                    "name": "two",
                    "image": CURL,
                    "command": ["sh", "-c", "echo 2 >> /d/order"],
                    "volumeMounts": [{"name": "d", "mountPath": "/d"}],
                },
            ],
            volumes=[{"name": "d", "emptyDir": {}}],
        ),
        pod("crash", {"name": "main", "command": ["sh", "-c", "echo before-the-end; exit 7"]}),
        pod(
            "once",
            {"name": "main", "command": ["sh", "-c", "echo -n sorry > /dev/termination-log; exit 9"]},
            restartPolicy="Never",
        ),
        pod("missing", {"name": "main", "command": ["/no/such/program"]}, restartPolicy="Never"),
        pod("image", {"name": "main", "image": "registry.example/nothing:1"}),
        pod(
            "badref",
            {"name": "main", "env": [{"name": "X", "valueFrom": {"configMapKeyRef": {"name": "absent", "key": "k"}}}]},
        ),
    )
    ready(cluster, "inits")
    assert inside(cluster, "inits", "cat /d/order").split() == ["1", "s", "2"]

    def crash_loop() -> bool:
        one = (status(cluster, "crash").get("containerStatuses") or [{}])[0]
        return one.get("state", {}).get("waiting", {}).get("reason") == "CrashLoopBackOff" and one["restartCount"] >= 1

    eventually(crash_loop, what="CrashLoopBackOff")
    one = status(cluster, "crash")["containerStatuses"][0]
    assert one["lastState"]["terminated"]["exitCode"] == 7
    assert cluster.kubectl("logs", "crash", "--previous").stdout == "before-the-end\n"
    eventually(lambda: status(cluster, "once").get("phase") == "Failed", what="a failed pod")
    ended = status(cluster, "once")["containerStatuses"][0]["state"]["terminated"]
    assert (ended["exitCode"], ended["reason"], ended["message"]) == (9, "Error", "sorry")
    eventually(lambda: status(cluster, "missing").get("phase") == "Failed", what="a pod whose program is missing")
    assert status(cluster, "missing")["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 127

    def waiting(name: str) -> dict[str, Any]:
        return (status(cluster, name).get("containerStatuses") or [{}])[0].get("state", {}).get("waiting", {})

    eventually(lambda: waiting("image").get("reason") in ("ErrImagePull", "ImagePullBackOff"), what="the image error")
    assert "mycel cluster load-image" in waiting("image")["message"]
    eventually(lambda: waiting("badref").get("reason") == "CreateContainerConfigError", what="the config error")
    assert waiting("badref")["message"] == 'configmap "absent" not found'
    cluster.kubectl("delete", "pod", "inits", "crash", "once", "missing", "image", "badref", "--wait=false")


def test_an_end_is_told_by_who_holds_the_container(cluster: Cluster) -> None:
    """A container's process has ended and its conmon, which is slow, has not said how: nobody guesses."""
    script = "touch /tmp/begun; while [ ! -e /tmp/end ]; do sleep 0.1; done; exit 9"
    cluster.apply(pod("slow", {"name": "main", "command": ["sh", "-c", script]}, restartPolicy="Never"))
    ready(cluster, "slow")
    eventually(lambda: "begun" in inside(cluster, "slow", "ls /tmp"), what="its script")
    container = status(cluster, "slow")["containerStatuses"][0]["containerID"].rpartition("/")[2]
    (conmon,) = (
        int(path.parent.name)
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if path.read_bytes().startswith(b"/usr/bin/conmon\0--cid\0" + container.encode())
    )
    (process,) = (int(each) for each in Path(f"/proc/{conmon}/task/{conmon}/children").read_text().split())
    os.kill(conmon, signal.SIGSTOP)
    try:
        inside(cluster, "slow", "touch /tmp/end", check=False)  # may end with its container
        state = Path(f"/proc/{process}/stat")
        eventually(lambda: state.read_text().rpartition(")")[2].split()[0] == "Z", what="its end")
        cluster.kubectl("annotate", "pod", "slow", "look=again")  # the node looks
        cluster.apply(pod("beside", {"name": "main"}))
        ready(cluster, "beside")
        assert "running" in status(cluster, "slow")["containerStatuses"][0]["state"]
    finally:
        os.kill(conmon, signal.SIGCONT)
    eventually(lambda: status(cluster, "slow")["phase"] == "Failed", what="the end")
    assert status(cluster, "slow")["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 9
    cluster.kubectl("delete", "pod", "slow", "beside", "--wait=false")


def test_probes_and_hooks(cluster: Cluster) -> None:
    """Liveness restarts, readiness gates traffic, startup holds both back, preStop runs before the end."""
    shared = {"volumeMounts": [{"name": "h", "mountPath": "/h"}]}
    cluster.apply(
        pod(
            "probed",
            {
                "name": "main",
                "command": ["sh", "-c", "touch /tmp/alive; sleep infinity"],
                "startupProbe": {"exec": {"command": ["test", "-e", "/tmp/alive"]}, "periodSeconds": 1},
                "livenessProbe": {
                    "exec": {"command": ["test", "-e", "/tmp/alive"]},
                    "periodSeconds": 1,
                    "failureThreshold": 1,
                },
                "readinessProbe": {
                    "exec": {"command": ["test", "-e", "/tmp/ready"]},
                    "periodSeconds": 1,
                    "failureThreshold": 1,
                },
            },
        ),
        pod(
            "web",
            {
                "name": "main",
                "image": "cilium/json-mock",
                "command": None,
                "env": [{"name": "PORT", "value": "8080"}],
                "ports": [{"name": "http", "containerPort": 8080}],
                "readinessProbe": {
                    "httpGet": {"path": "/public", "port": "http", "httpHeaders": [{"name": "X-A", "value": "b"}]},
                    "periodSeconds": 1,
                },
                "livenessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
            },
        ),
        pod(
            "hooked",
            {
                "name": "main",
                "command": ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"],
                "lifecycle": {
                    "postStart": {"exec": {"command": ["sh", "-c", "echo post >> /h/log"]}},
                    "preStop": {"exec": {"command": ["sh", "-c", "echo pre >> /h/log"]}},
                },
                **shared,
            },
            volumes=[{"name": "h", "hostPath": {"path": "/var/lib/hooked", "type": "DirectoryOrCreate"}}],
            terminationGracePeriodSeconds=600,  # kubectl would give up first
        ),
    )
    ready(cluster, "web", "hooked")
    eventually(
        lambda: status(cluster, "probed")["containerStatuses"][0].get("started"), what="the startup probe's pass"
    )
    assert status(cluster, "probed")["containerStatuses"][0]["ready"] is False
    inside(cluster, "probed", "touch /tmp/ready")
    ready(cluster, "probed")
    inside(cluster, "probed", "rm /tmp/alive")
    eventually(
        lambda: status(cluster, "probed")["containerStatuses"][0]["restartCount"] == 1, what="the liveness restart"
    )
    node = cluster.get("pod", "hooked")["spec"]["nodeName"]
    # A container that ends on SIGTERM does not wait for its grace period.
    cluster.kubectl("delete", "pod", "hooked", "--timeout=300s", timeout_s=310)
    assert cluster.on_node(node, "cat", "/var/lib/hooked/log") == "post\npre\n"

    def missing() -> set[str]:
        events = (each for each in cluster.get("events")["items"] if each["involvedObject"]["name"] == "probed")
        told = {each["reason"] for each in events}
        return {"Scheduled", "Pulled", "Created", "Started", "Unhealthy", "Killing"} - told

    eventually(lambda: not missing(), what="every event")


@pytest.fixture(scope="module")
def tools(cluster: Cluster) -> Cluster:
    """Pods to exec into, forward to and attach to."""
    lines = "for i in 1 2 3; do echo line$i; done; exec sleep infinity"
    cluster.apply(
        pod("tools", {"name": "main", "command": ["sh", "-c", lines]}),
        pod("echo", {"name": "main", "image": "hashicorp/http-echo:0.2.3", "command": None, "args": ["-text=through"]}),
        pod("cat", {"name": "main", "stdin": True, "command": ["cat"]}),
    )
    ready(cluster, "tools", "echo", "cat")
    return cluster


@pytest.mark.parametrize("transport", ["websocket", "spdy"])
def test_exec_cp_attach_and_port_forward(tools: Cluster, tmp_path: Path, transport: str) -> None:
    """What people do with kubectl, over both transports: stdin, big output, exit codes, terminals, copies, tunnels."""
    on = str(transport == "websocket").lower()
    switches = {"KUBECTL_REMOTE_COMMAND_WEBSOCKETS": on, "KUBECTL_PORT_FORWARD_WEBSOCKETS": on}
    cluster = Cluster(tools.name, tools.folder, tools.kubectl_path)
    cluster.environment |= switches
    assert cluster.kubectl("exec", "tools", "--", "sh", "-c", "exit 42", check=False).returncode == 42
    assert cluster.kubectl("exec", "-i", "tools", "--", "wc", "-c", stdin="x" * 300_000).stdout.strip() == "300000"
    assert len(cluster.kubectl("exec", "tools", "--", "head", "-c", "3000000", "/dev/zero").stdout) == 3_000_000
    both = cluster.kubectl("exec", "tools", "--", "sh", "-c", "echo out; echo err >&2")
    assert (both.stdout, both.stderr) == ("out\n", "err\n")
    assert cluster.kubectl("exec", "tools", "--", "no-such-program", check=False).returncode != 0
    # The size follows the start of the process, as on any cluster: wait for it.
    script = "for i in $(seq 100); do [ \"$(stty size)\" = '33 77' ] && break; sleep 0.1; done; stty size; exit 3"
    typed = _with_terminal([cluster.kubectl_path, "exec", "-it", "tools", "--", "sh", "-c", script], cluster)
    assert (typed[0], b"33 77" in typed[1]) == (3, True)
    source = tmp_path / "file"
    source.write_bytes(os.urandom(200_000))
    cluster.kubectl("cp", str(source), "tools:/tmp/file")
    cluster.kubectl("cp", "tools:/tmp/file", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == source.read_bytes()
    forward = subprocess.Popen(
        [cluster.kubectl_path, "port-forward", "--address=127.0.0.1", "pod/echo", ":5678"],
        env=cluster.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        assert forward.stdout is not None
        said = re.fullmatch(rb"Forwarding from 127\.0\.0\.1:(\d+) -> 5678\n", forward.stdout.readline())
        assert said is not None
        for _ in range(3):
            curl = ["curl", "-s", f"http://127.0.0.1:{int(said[1])}/"]
            assert subprocess.run(curl, capture_output=True, text=True, timeout=60, check=True).stdout == "through\n"
    finally:
        forward.terminate()
        forward.communicate()
    assert "hello" in cluster.kubectl("attach", "-i", "cat", stdin="hello\n", check=False).stdout


def test_logs(tools: Cluster) -> None:
    """Tail, bytes, timestamps, follow until the container ends."""
    lines = "line1\nline2\nline3\n"
    eventually(lambda: tools.kubectl("logs", "tools").stdout == lines, what="what it wrote")
    assert tools.kubectl("logs", "tools", "--tail=1").stdout == "line3\n"
    assert tools.kubectl("logs", "tools", "--limit-bytes=4").stdout == "line"
    assert tools.kubectl("logs", "tools", "--timestamps", "--tail=1").stdout.split()[1] == "line3"
    script = "for i in 1 2 3 4; do echo tick$i; sleep 0.3; done"
    tools.apply(pod("ticks", {"name": "main", "command": ["sh", "-c", script]}, restartPolicy="Never"))
    eventually(lambda: tools.kubectl("logs", "ticks", check=False).returncode == 0, what="the first log")
    assert tools.kubectl("logs", "-f", "ticks").stdout == "tick1\ntick2\ntick3\ntick4\n"


def test_a_killed_node_program_adopts_its_pods(cluster: Cluster) -> None:
    """SIGKILL: no container is restarted, ends in between are noticed, exec works again."""
    cluster.apply(
        pod("stays", {"name": "main"}),
        pod("ends", {"name": "main", "command": ["sleep", "1.5"]}, restartPolicy="Never"),
    )
    ready(cluster, "stays")
    node = cluster.get("pod", "stays")["spec"]["nodeName"]
    before = status(cluster, "stays")["containerStatuses"][0]
    record = cluster.folder / "run" / cluster.name / "proc" / f"{node}.json"
    old = json.loads(record.read_text())
    os.kill(old["pid"], signal.SIGKILL)
    eventually(lambda: json.loads(record.read_text())["pid"] != old["pid"], what="a new node program")
    eventually(
        lambda: cluster.kubectl("exec", "stays", "--", "true", check=False).returncode == 0,
        what="exec after the restart",
    )
    after = status(cluster, "stays")["containerStatuses"][0]
    assert (after["containerID"], after["restartCount"]) == (before["containerID"], 0)
    eventually(lambda: status(cluster, "ends").get("phase") == "Succeeded", what="the end of the other pod")
    cluster.kubectl("delete", "pod", "stays", "ends")
    states = ("sh", "-c", "cat /var/lib/kubelet/pods/*/state.json 2>/dev/null || true")
    eventually(lambda: "stays" not in cluster.on_node(node, *states), what="nothing of it on the node")


def test_host_network_and_privileged(cluster: Cluster) -> None:
    """The node's addresses, its bpffs with mounts going both ways, its control group, a writable /proc/sys."""
    cluster.apply(
        pod(
            "host",
            {
                "name": "main",
                "securityContext": {"privileged": True},
                "volumeMounts": [
                    {"name": "bpf", "mountPath": "/sys/fs/bpf", "mountPropagation": "Bidirectional"},
                    {"name": "group", "mountPath": "/run/cilium/cgroupv2", "mountPropagation": "HostToContainer"},
                    {"name": "shared", "mountPath": "/shared", "mountPropagation": "Bidirectional"},
                ],
            },
            hostNetwork=True,
            volumes=[
                {"name": "bpf", "hostPath": {"path": "/sys/fs/bpf"}},
                {"name": "group", "hostPath": {"path": "/run/cilium/cgroupv2"}},
                {"name": "shared", "hostPath": {"path": "/var/lib/shared", "type": "DirectoryOrCreate"}},
            ],
        )
    )
    ready(cluster, "host")
    found = cluster.get("pod", "host")
    node, address = found["spec"]["nodeName"], found["status"]["hostIP"]
    assert found["status"]["podIP"] == address
    script = (
        "hostname; mkdir -p /sys/fs/bpf/kept; stat -f -c %T /sys/fs/bpf; echo 1 > "
        "/proc/sys/net/ipv4/conf/all/forwarding && echo wrote; "
        "mkdir -p /shared/inner && mount -t tmpfs none /shared/inner && touch /shared/inner/seen; "
        "grep -q $$ /run/cilium/cgroupv2/pod*/*/cgroup.procs && echo member"
    )
    assert inside(cluster, "host", script).split() == [node, "bpf_fs", "wrote", "member"]
    assert cluster.on_node(node, "ls", "/var/lib/shared/inner") == "seen\n"
    cluster.kubectl("delete", "pod", "host")
    assert "kept" in cluster.on_node(node, "ls", "/sys/fs/bpf"), "pins outlive the container"
    cluster.on_node(node, "umount", "/var/lib/shared/inner")


def test_limits_are_enforced_and_named(cluster: Cluster) -> None:
    """A container over its memory limit ends as OOMKilled."""
    hungry = ["python3", "-c", "x = bytearray(200 << 20)"]
    limits = {"limits": {"memory": "32Mi", "cpu": "500m"}}
    cluster.apply(pod("hungry", {"name": "main", "command": hungry, "resources": limits}, restartPolicy="Never"))
    eventually(lambda: status(cluster, "hungry").get("phase") == "Failed", what="a pod that is out of memory")
    ended = status(cluster, "hungry")["containerStatuses"][0]["state"]["terminated"]
    assert (ended["exitCode"], ended["reason"]) == (137, "OOMKilled")
    assert status(cluster, "hungry")["qosClass"] == "Guaranteed"


def test_a_stopped_cluster_comes_back_with_its_pods(cluster: Cluster) -> None:
    """As after a reboot: namespaces, memory volumes and processes are new, the pod objects are the same."""
    cluster.apply(
        pod(
            "again",
            {"name": "main", "volumeMounts": [{"name": "d", "mountPath": "/d"}, {"name": "m", "mountPath": "/m"}]},
            volumes=[{"name": "d", "emptyDir": {}}, {"name": "m", "emptyDir": {"medium": "Memory"}}],
        )
    )
    ready(cluster, "again")
    inside(cluster, "again", "echo kept > /d/x; echo gone > /m/x")
    before = cluster.get("pod", "again")
    cluster.mycel("cluster", "stop", "--name", cluster.name)
    cluster.mycel("cluster", "start", "--name", cluster.name)

    def back() -> bool:
        one = status(cluster, "again")["containerStatuses"][0]
        return one["ready"] and one["restartCount"] == 1

    eventually(back, what="the pod of before")
    after = cluster.get("pod", "again")
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert inside(cluster, "again", "cat /d/x; ls /m; stat -f -c %T /m") == "kept\ntmpfs\n"
    cluster.kubectl("delete", "pod", "again")


def _with_terminal(command: list[str], cluster: Cluster) -> tuple[int, bytes]:
    """Run under a terminal of 33 lines and 77 columns: (exit code, what it showed)."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 77, 0, 0))
    process = subprocess.Popen(
        command, stdin=slave, stdout=slave, stderr=slave, env=cluster.environment, start_new_session=True
    )
    os.close(slave)
    shown = b""
    try:
        while data := os.read(master, 4096):
            shown += data
    except OSError:  # EIO: the other side is closed
        pass
    finally:
        os.close(master)
    return process.wait(60), shown


def test_an_image_from_an_archive(cluster: Cluster, tmp_path: Path) -> None:
    """`mycel cluster load-image` of a `docker save`: its own files, user, environment and command; a writable "
    "layer per run."""
    busybox = Path("/bin/busybox")
    if not busybox.exists():
        pytest.skip("busybox is not installed")
    layer, libraries = io.BytesIO(), _libraries(busybox)
    with tarfile.open(fileobj=layer, mode="w") as made:
        for source, target in [(busybox, "bin/busybox"), *((path, str(path).lstrip("/")) for path in libraries)]:
            made.add(source.resolve(), target)
        for applet in ("sh", "cat", "id", "sleep"):
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            made.addfile(link)
        for name, text in (("etc/passwd", b"web:x:33:44::/:/bin/sh\n"), ("marker", b"mine")):
            info = tarfile.TarInfo(name)
            info.size = len(text)
            made.addfile(info, io.BytesIO(text))
    config = {
        "config": {
            "Cmd": ["/bin/sh", "-c", "cat /marker; id -u; echo $COLOUR; exec sleep 1000"],
            "User": "web",
            "Env": ["COLOUR=red"],
        }
    }
    manifest = [{"Config": "c.json", "RepoTags": ["example.org/mine:1"], "Layers": ["layer.tar"]}]
    archive = tmp_path / "mine.tar"
    with tarfile.open(archive, "w") as made:
        for name, data in (
            ("manifest.json", json.dumps(manifest).encode()),
            ("c.json", json.dumps(config).encode()),
            ("layer.tar", layer.getvalue()),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            made.addfile(info, io.BytesIO(data))
    assert "example.org/mine:1" in cluster.mycel("cluster", "load-image", str(archive), "--name", cluster.name).stdout
    cluster.apply(pod("mine", {"name": "main", "image": "example.org/mine:1", "command": None}))
    ready(cluster, "mine")
    eventually(lambda: cluster.kubectl("logs", "mine").stdout.split() == ["mine33", "red"], what="what it wrote")
    assert status(cluster, "mine")["containerStatuses"][0]["imageID"].startswith("sha256:")
    cluster.kubectl("delete", "pod", "mine")


def _libraries(program: Path) -> list[Path]:
    """Shared libraries a program needs, with its loader."""
    said = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=False).stdout
    return [Path(word) for line in said.splitlines() for word in line.split() if word.startswith("/")]


def test_an_images_own_files_below_usr(cluster: Cluster) -> None:
    """`/usr/bin/pause` of the curl image stands beside the machine's own programs."""
    cluster.apply(pod("own-files", {"name": "main", "command": ["/usr/bin/pause"]}))
    ready(cluster, "own-files")
    listed = inside(cluster, "own-files", "ls /usr/bin/pause /usr/bin/curl")
    assert listed.split() == ["/usr/bin/curl", "/usr/bin/pause"]
