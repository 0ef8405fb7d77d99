"""A node's place: its network, mount and UTS namespaces, pinned as files, and its own root over the machine's.

The root is an overlay whose lower layer is the machine, so /usr is there and every write stays in the node. Made
by a child process that ends when all stands; the pins keep it. The node's bpffs and its v2 control group belong to
the mount namespace, so they outlive every container and the node program.
"""

from __future__ import annotations

import os
import site
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import mycel
from mycel.cluster import linux
from mycel.cluster.lifecycle import cgroups, network
from mycel.cluster.lifecycle.errors import LifecycleError
from mycel.cluster.lifecycle.paths import ClusterPaths
from mycel.cluster.lifecycle.record import ClusterRecord, NodeRecord

_KINDS = ("net", "mnt", "uts")
# Folders in which nothing of the machine may show: a node begins with its own.
_EMPTY = (
    "etc/cni",
    "opt/cni",
    "var/lib",
    "var/log",
    "var/cache",
    "var/tmp",
    "tmp",
    "run",
    "home",
    "root",
    "mnt",
    "srv",
)


def install_roots() -> list[Path]:
    """Folders that hold this program and its Python: shown at their own places in nodes and in the mesh's
    containers.
    """
    roots = {Path(sys.prefix).resolve(), Path(mycel.__file__).resolve().parents[1]}
    roots |= {Path(path).resolve() for path in site.getsitepackages() if Path(path).is_dir()}
    if Path(mycel.__file__).resolve().parents[1].name == "src":  # a source tree: its bpf/ and deploy/ belong to it
        roots.add(Path(mycel.__file__).resolve().parents[2])
    kept: list[Path] = []
    for root in sorted(roots):
        if not any(root.is_relative_to(other) for other in (*kept, Path("/usr"))):
            kept.append(root)
    return kept


def cgroup_of(record: ClusterRecord, node: NodeRecord) -> str:
    """The node's group below every hierarchy's root."""
    return f"{record.cgroup}/{node.name}"


def prepare_pins(paths: ClusterPaths) -> None:
    """The folder of pins must be a private mount: the kernel refuses to pin mount namespaces on shared ones."""
    paths.namespaces.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not os.path.ismount(paths.namespaces):
        linux.bind(paths.namespaces, paths.namespaces)
        linux.mount("none", paths.namespaces, flags=linux.MS_PRIVATE)


def make(paths: ClusterPaths, record: ClusterRecord, node: NodeRecord) -> None:
    """Make and pin the node's namespaces with everything mounted and its network up. Raises LifecycleError."""
    pins = [paths.namespace(node.name, kind) for kind in _KINDS]
    for pin in pins:
        if os.path.ismount(pin) or _is_nsfs(pin):
            linux.umount(pin)
        pin.touch(mode=0o600)
    paths.images.mkdir(parents=True, exist_ok=True, mode=0o755)
    leaf = cgroups.make(cgroup_of(record, node), "system")
    _layers(paths.node(node.name), record, node)
    ready_r, ready_w = os.pipe()
    go_r, go_w = os.pipe()
    child = os.fork()
    if child == 0:
        _child(lambda: _inside(paths, record, node, leaf.parent), ready_w, go_r)
    os.close(ready_w)
    os.close(go_r)
    try:
        if os.read(ready_r, 1):  # the namespaces exist
            for kind, pin in zip(_KINDS, pins, strict=True):
                linux.bind(f"/proc/{child}/ns/{kind}", pin)
            network.make_cable(record, node, child)
            os.write(go_w, b"1")
    finally:
        os.close(go_w)
        complaint = b"".join(iter(lambda: os.read(ready_r, 65536), b""))
        os.close(ready_r)
        _, status = os.waitpid(child, 0)
    if status != 0:
        raise LifecycleError(f"node {node.name} cannot be set up: {complaint.decode(errors='replace').strip()}")


def remove(paths: ClusterPaths) -> None:
    """Let go of all namespaces of the cluster; with the last pin the kernel takes mounts and interfaces down."""
    for point in linux.mounts_under(paths.run):
        linux.umount(point)


def _is_nsfs(path: Path) -> bool:
    return path.exists() and str(path) in linux.mounts_under(path)


def _child(work: Callable[[], None], ready_w: int, go_r: int) -> None:
    """In the forked child: never returns. Complaints travel through the ready pipe."""
    try:
        linux.unshare(linux.CLONE_NEWNS | linux.CLONE_NEWNET | linux.CLONE_NEWUTS)
        os.write(ready_w, b"1")
        if os.read(go_r, 1):
            work()
            os._exit(0)
    except (OSError, LifecycleError) as exc:
        os.write(ready_w, str(exc).encode())
    except BaseException:  # the parent must hear of anything; this process ends here
        os.write(ready_w, traceback.format_exc().encode())
    os._exit(1)


def _layers(base: Path, record: ClusterRecord, node: NodeRecord) -> None:
    """The node's own files, before the overlay is mounted over them."""
    upper = base / "upper"
    for folder in ("upper", "work", "root", "kubelet", "log"):
        (base / folder).mkdir(parents=True, exist_ok=True, mode=0o755)
    for name in _EMPTY:
        place = upper / name
        if not place.exists():
            place.mkdir(parents=True, mode=0o755)
            os.setxattr(place, "trusted.overlay.opaque", b"y")
    for name in ("tmp", "var/tmp"):
        (upper / name).chmod(0o1777)
    for name in ("etc/cni/net.d", "opt/cni/bin", "var/lib/kubelet", "var/log", "etc/kubernetes"):
        (upper / name).mkdir(parents=True, exist_ok=True)
    _file(upper / "etc/hostname", f"{node.name}\n")
    lines = ["127.0.0.1\tlocalhost", "::1\tlocalhost ip6-localhost ip6-loopback"]
    lines += [f"{other.address}\t{other.name}" for other in record.nodes]
    _file(upper / "etc/hosts", "\n".join(lines) + "\n")
    _file(upper / "etc/resolv.conf", _resolv_conf())


def _resolv_conf() -> str:
    """The machine's name servers as a node can use them: loopback stubs are not reachable from there."""
    for source in (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf")):
        try:
            lines = source.read_text().splitlines()
        except OSError:
            continue
        kept = [line for line in lines if not line.startswith(("nameserver 127.", "nameserver ::1"))]
        if any(line.startswith("nameserver") for line in kept):
            return "\n".join(kept) + "\n"
    return "# the machine has no name server that a node could reach\n"


def _file(path: Path, text: str) -> None:
    if path.is_symlink():
        path.unlink()
    path.write_text(text)


def _inside(paths: ClusterPaths, record: ClusterRecord, node: NodeRecord, cgroup: Path) -> None:
    """In the new namespaces: mounts, then the root, then the network."""
    base = paths.node(node.name)
    root = base / "root"
    linux.mount("none", "/", flags=linux.MS_REC | linux.MS_PRIVATE)
    linux.mount("overlay", root, "overlay", data=f"lowerdir=/,upperdir={base / 'upper'},workdir={base / 'work'}")
    linux.mount("proc", root / "proc", "proc", linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC)
    linux.mount("sysfs", root / "sys", "sysfs", linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC)
    linux.bind("/sys/fs/cgroup", root / "sys/fs/cgroup", recursive=True)
    linux.mount("bpf", root / "sys/fs/bpf", "bpf", data="mode=700")
    linux.bind("/dev", root / "dev", recursive=True)
    linux.mount("tmpfs", root / "run", "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, "mode=755")
    binds = [(base / "kubelet", "/var/lib/kubelet", False), (base / "log", "/var/log", False)]
    binds += [(paths.images, "/var/lib/mycel/images", True)]
    binds += [(path, str(path), True) for path in install_roots()]
    binds += [(Path(extra.host_path), extra.container_path, extra.read_only) for extra in node.mounts]
    for source, target, read_only in binds:
        place = root / target.lstrip("/")
        if source.is_dir():
            place.mkdir(parents=True, exist_ok=True)
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.touch()
        linux.bind(source, place, recursive=True, read_only=read_only)
    view = root / "run/cilium/cgroupv2"
    view.mkdir(parents=True)
    linux.bind(cgroup, view)
    (root / "run/old").mkdir()
    linux.pivot_root(root, root / "run/old")
    os.chdir("/")
    linux.umount("/run/old")
    Path("/run/old").rmdir()
    linux.mount("none", "/", flags=linux.MS_REC | linux.MS_SHARED)
    for folder in ("lock", "netns", "conmon", "runc"):
        (Path("/run") / folder).mkdir(mode=0o755)
    linux.sethostname(node.name)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    network.configure_node(record, node)
