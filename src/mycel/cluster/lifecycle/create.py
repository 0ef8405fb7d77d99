"""`mycel cluster create` and `start`: from a `ClusterConfig` to a running cluster, step by step.

The record is written before anything is made; each step can be done twice. `report` is called with the title of
every step, so the terminal (or a test) can show it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import msgspec

from mycel.cluster.lifecycle import addons, cgroups, kubeconfig, network, nodespace, processes, record
from mycel.cluster.lifecycle.config import ClusterConfig
from mycel.cluster.lifecycle.delete import delete
from mycel.cluster.lifecycle.errors import LifecycleError, Refused
from mycel.cluster.lifecycle.paths import ClusterPaths, state_root
from mycel.cluster.lifecycle.record import ClusterRecord, MountRecord, NodeRecord

Report = Callable[[str], AbstractContextManager[object]]
_TOOLS = ("ip", "nft", "runc", "conmon")
_LOCK = Path("/run")  # locked as a folder: one for the machine, and nothing is left behind
_API_PORT = 6443


def create(config: ClusterConfig, *, report: Report, kubeconfig_file: Path | None = None) -> ClusterRecord:
    """Make the cluster and return its record. On failure what was made stays recorded, for `delete`. Raises
    LifecycleError.
    """
    check_machine()
    paths = ClusterPaths.of(config.name)
    with report("Preparing the node network"):
        with _machine_lock():
            if record.read(paths) is not None or paths.state.exists():
                raise Refused(
                    f"cluster {config.name} exists already: give --recreate to make it anew, or choose another --name"
                )
            cluster = plan_record(config, paths, taken=network.taken_networks(), port_free=_port_free)
            target = kubeconfig_file or kubeconfig.user_file()
            cluster = msgspec.structs.replace(cluster, kubeconfigs=(str(target),))
            record.write(paths, cluster)
            network.make_bridge(cluster)
        cgroups.make(cluster.cgroup, "system")
    with report("Making certificates"):
        make_credentials(paths, cluster)
    bring_up(paths, cluster, report=report)
    with report("Installing cluster DNS"):
        addons.install(paths, cluster)
    with report("Writing the kubeconfig"):
        kubeconfig.install(target, kubeconfig_document(paths, cluster))
        cluster = msgspec.structs.replace(cluster, ready=True)
        record.write(paths, cluster)
    return cluster


def start(name: str, *, report: Report) -> ClusterRecord:
    """Bring a stopped cluster up again (after a reboot, a stop, or the death of its supervisor). Raises
    LifecycleError.
    """
    check_machine()
    paths = ClusterPaths.of(name)
    cluster = record.read(paths)
    if cluster is None:
        raise LifecycleError(f"there is no cluster {name}: mycel cluster create --name {name}")
    with report("Preparing the node network"), _machine_lock():
        network.make_bridge(cluster)
    bring_up(paths, cluster, report=report)
    return cluster


def bring_up(paths: ClusterPaths, cluster: ClusterRecord, *, report: Report) -> None:
    """Namespaces, processes, readiness; what runs already is left alone."""
    with report(f"Preparing nodes ({len(cluster.nodes)})"):
        nodespace.prepare_pins(paths)
        for node in cluster.nodes:
            alive = processes.read(paths, node.name)
            if alive is None or not alive.alive or not paths.namespace(node.name, "mnt").exists():
                nodespace.make(paths, cluster, node)
    with report("Starting the control plane"):
        known = processes.read(paths, processes.SUPERVISOR)
        if known is None or not known.alive:
            processes.start(
                paths,
                processes.SUPERVISOR,
                processes.module("mycel.cluster.lifecycle.supervisor", "--cluster", cluster.name),
                cgroup=cgroups.make(cluster.cgroup, "system"),
            )
        addons.wait_api(paths, timeout_s=180)
    with report("Joining nodes"):
        addons.wait_nodes(paths, {node.name for node in cluster.nodes}, timeout_s=180)


def check_machine() -> None:
    """Refuse early what cannot work. Raises LifecycleError: Refused."""
    if os.geteuid() != 0:
        raise Refused("a cluster needs root (namespaces, mounts, BPF): run it with sudo")
    missing = [
        tool
        for tool in _TOOLS
        if shutil.which(tool, path="/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin") is None
    ]
    if missing:
        raise Refused(
            f"missing {', '.join(missing)}: apt-get install -y --no-install-recommends iproute2 nftables runc conmon"
        )
    cgroups.hierarchies()


def plan_record(
    config: ClusterConfig,
    paths: ClusterPaths,
    *,
    taken: list[network.IPv4Network],
    port_free: Callable[[str, int], bool],
) -> ClusterRecord:
    """Choose addresses, ports and names. Raises LifecycleError when there is no room."""
    subnet = network.choose([*taken, config.pod_subnet, config.service_subnet])
    nodes = tuple(
        NodeRecord(
            node.name,
            node.role.value,
            str(network.node_address(subnet, index)),
            paths.veth(index),
            dict(node.labels),
            tuple(MountRecord(extra.host_path, extra.container_path, extra.read_only) for extra in node.mounts),
        )
        for index, node in enumerate(config.nodes)
    )
    # Networks are the machine's own and taken under a lock; a port that follows from the network is taken with it,
    # though
    # nobody listens on it yet.
    first = _API_PORT + int(str(subnet).split(".")[1]) - 18
    ports = [config.api_server_port] if config.api_server_port else range(first, first + 1000, 20)
    port = next((port for port in ports if port_free(config.api_server_address, port)), None)
    if port is None:
        raise LifecycleError(f"no free port for the API server on {config.api_server_address} ({ports[0]} is in use)")
    return ClusterRecord(
        name=config.name,
        bridge=paths.bridge,
        network=str(subnet),
        gateway=str(subnet[1]),
        pod_subnet=str(config.pod_subnet),
        service_subnet=str(config.service_subnet),
        api_address=config.api_server_address,
        api_port=port,
        nft_table=paths.nft_table,
        cgroup=paths.cgroup,
        nodes=nodes,
        ip_forward_was=network.IP_FORWARD.read_text().strip(),
    )


def make_credentials(paths: ClusterPaths, cluster: ClusterRecord) -> None:
    """Certificates for the API server, the administrator and every node."""
    from mycel.cluster.apiserver.pki import Pki  # cryptography takes a while to import

    pki = Pki(paths.pki)
    addresses = (cluster.api_address, cluster.gateway, cluster.kubernetes_service)
    pki.ensure(addresses=dict.fromkeys(addresses))
    admin = pki.kubeconfig(cluster.servers[0], context=cluster.context)
    record.write_atomic(paths.kubeconfig, admin.encode(), mode=0o600)
    for node in cluster.nodes:
        folder = paths.node(node.name) / "upper/etc/kubernetes"
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        pair = pki.ensure_node(node.name, [node.address])
        client = pki.kubeconfig(cluster.servers[1], context=cluster.context, pair=f"nodes/{node.name}")
        record.write_atomic(folder / "kubelet.conf", client.encode(), mode=0o600)
        record.write_atomic(folder / "kubelet.crt", pair.certificate.read_bytes(), mode=0o600)
        record.write_atomic(folder / "kubelet.key", pair.key.read_bytes(), mode=0o600)
        record.write_atomic(folder / "ca.crt", pki.ca_certificate.read_bytes(), mode=0o644)
        settings = {
            "name": node.name,
            "cluster": cluster.name,
            "role": node.role,
            "address": node.address,
            "labels": node.labels,
            "cluster_dns": cluster.kube_dns,
            "cluster_domain": "cluster.local",
            "cgroup": nodespace.cgroup_of(cluster, node),
            "taint_control_plane": len(cluster.nodes) > 1,
            "install_roots": [str(path) for path in nodespace.install_roots()],
        }
        record.write_atomic(folder / "node.json", msgspec.json.format(msgspec.json.encode(settings)), mode=0o600)


def kubeconfig_document(paths: ClusterPaths, cluster: ClusterRecord) -> dict[str, Any]:
    """The administrator's kubeconfig as made by `make_credentials`."""
    import yaml

    return yaml.load(paths.kubeconfig.read_text(), Loader=yaml.CSafeLoader)


def recreate(config: ClusterConfig, *, report: Report) -> ClusterRecord:
    """Delete what is there under that name, then create."""
    delete(config.name, report=report)
    return create(config, report=report)


def _port_free(address: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True


@contextmanager
def _machine_lock(timeout_s: float = 60) -> Generator[None]:
    """Only one process at a time chooses networks and ports."""
    state_root().mkdir(parents=True, exist_ok=True, mode=0o700)
    deadline = time.monotonic() + timeout_s
    file = os.open(_LOCK, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as exc:
                if time.monotonic() > deadline:
                    raise LifecycleError(
                        f"another mycel has held {_LOCK} for {timeout_s:.0f} s: look for it with ps"
                    ) from exc
                time.sleep(0.05)
        yield
    finally:
        os.close(file)
