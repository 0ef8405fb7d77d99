"""The OCI configuration of a container."""

from typing import Any

from mycel.cluster.node import bundle
from mycel.cluster.node.bundle import Bind, Surroundings
from tests.unit.cluster_node.samples import pod

BOUNDING = bundle.bounding_set((1 << 41) - 1) - {"SYS_RESOURCE"}


def around(**fields: Any) -> Surroundings:
    values: dict[str, Any] = {
        "rootfs": "/r", "hostname": "cart", "cgroups_path": "/c", "namespaces": {"network": "/n", "uts": "/u",
        "ipc": "/i"},
        "binds": [], "bounding": BOUNDING, "arguments": ["sh"],
    }  # fmt: skip
    return Surroundings(**values | fields)


def test_capabilities_add_and_drop() -> None:
    """Names with and without CAP_, ALL in both directions."""
    assert bundle.capabilities({"capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN", "CAP_BPF"]}}, BOUNDING) == [
        "CAP_BPF",
        "CAP_NET_ADMIN",
    ]
    assert "CAP_CHOWN" not in bundle.capabilities({"capabilities": {"drop": ["CHOWN"]}}, BOUNDING)
    assert "CAP_NET_RAW" in bundle.capabilities({}, BOUNDING)


def test_privileged_is_the_machines_bounding_set() -> None:
    """What the machine cannot give is not asked for."""
    held = bundle.capabilities({"privileged": True}, BOUNDING)
    assert "CAP_SYS_ADMIN" in held
    assert "CAP_SYS_RESOURCE" not in held
    assert "CAP_SYS_RESOURCE" not in bundle.capabilities({"capabilities": {"add": ["ALL"]}}, BOUNDING)


def test_users_come_from_container_then_pod_then_image() -> None:
    """fsGroup is a further group."""
    spec = pod(
        {"name": "m"}, securityContext={"runAsUser": 7, "runAsGroup": 8, "fsGroup": 9, "supplementalGroups": [10]}
    )
    assert bundle.user(spec, {"name": "m"}, "0") == (7, 8, [10, 9])
    assert bundle.user(spec, {"securityContext": {"runAsUser": 5}}, "0")[0] == 5
    assert bundle.user(pod(), {}, "100:200")[:2] == (100, 200)


def test_command_and_args_replace_as_kubernetes_says() -> None:
    """The table of the documentation."""
    image = (["/ep"], ["a"])
    assert bundle.command({}, *image) == ["/ep", "a"]
    assert bundle.command({"command": ["/c"]}, *image) == ["/c"]
    assert bundle.command({"args": ["b"]}, *image) == ["/ep", "b"]
    assert bundle.command({"command": ["/c"], "args": ["b"]}, *image) == ["/c", "b"]


def test_host_network_has_no_network_namespace_entry() -> None:
    """It inherits the node's; the pid namespace is the container's own unless the host's is asked for."""
    made = bundle.config(pod(hostNetwork=True), {"name": "m"}, around(namespaces={"ipc": "/i"}))
    kinds = {entry["type"] for entry in made["linux"]["namespaces"]}
    assert kinds == {"mount", "ipc", "pid"}
    hosted = bundle.config(pod(hostPID=True), {"name": "m"}, around())
    assert "pid" not in {entry["type"] for entry in hosted["linux"]["namespaces"]}


def test_only_privileged_containers_write_proc_sys() -> None:
    """Masks and read-only paths are left out, devices allowed."""
    plain = bundle.config(pod(), {"name": "m"}, around())["linux"]
    full = bundle.config(pod(), {"name": "m", "securityContext": {"privileged": True}}, around())["linux"]
    assert "/proc/sys" in plain["readonlyPaths"]
    assert "readonlyPaths" not in full
    assert (plain["resources"]["devices"][0]["allow"], full["resources"]["devices"][0]["allow"]) == (False, True)


def test_nested_mounts_come_after_their_parents() -> None:
    """By depth; propagation raises the root's."""
    binds = [Bind("/x", "/a/b/c"), Bind("/y", "/a", propagation="rshared")]
    made = bundle.config(pod(), {"name": "m"}, around(binds=binds))
    targets = [mount["destination"] for mount in made["mounts"]]
    assert targets.index("/a") < targets.index("/a/b/c")
    assert made["linux"]["rootfsPropagation"] == "rshared"


def test_limits_become_quota_shares_and_bytes() -> None:
    """500m is half a period."""
    made = bundle.resources({"resources": {"limits": {"cpu": "500m", "memory": "64Mi"}, "requests": {"cpu": "250m"}}})
    assert made["cpu"] == {"shares": 256, "period": 100000, "quota": 50000}
    assert made["memory"] == {"limit": 64 << 20}
