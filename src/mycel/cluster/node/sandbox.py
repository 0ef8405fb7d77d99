"""A pod's namespaces (network, IPC, UTS), pinned as files: no pause process is needed to hold them.

Namespaces belong to threads in Linux, so a worker thread leaves for new ones, pins them and comes back; nothing is
started.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
from collections.abc import Mapping
from pathlib import Path

from mycel.cluster import linux
from mycel.cluster.node.errors import SandboxError

NETNS = Path("/run/netns")
_KINDS = {"net": linux.CLONE_NEWNET, "ipc": linux.CLONE_NEWIPC, "uts": linux.CLONE_NEWUTS}
_SIOCSIFFLAGS = 0x8914
_SIOCGIFFLAGS = 0x8913
_IFF_UP = 1
# What container runtimes allow by default: ping without a capability, low ports without root.
_SYSCTLS = {"net.ipv4.ping_group_range": "0 2147483647", "net.ipv4.ip_unprivileged_port_start": "0"}


def netns_path(uid: str) -> Path:
    """Where a pod's network namespace is pinned, as CNI plugins see it."""
    return NETNS / f"cni-{uid}"


def pins(uid: str, base: Path) -> dict[str, Path]:
    """All pins of a pod by kind."""
    return {"net": netns_path(uid), "ipc": base / "ipc", "uts": base / "uts"}


def make(uid: str, base: Path, *, hostname: str, network: bool, ipc: bool, sysctls: Mapping[str, str]) -> None:
    """Make and pin the pod's own namespaces; `network` and `ipc` False share the node's. Raises SandboxError.

    To be called in a worker thread: it changes the namespaces of the calling thread for a moment.
    """
    wanted = {
        "uts": network,
        "net": network,
        "ipc": ipc,
    }  # a pod on the node's network also has its host name
    kinds = [kind for kind, own in wanted.items() if own]
    where = pins(uid, base)
    remove(uid, base)
    if not kinds:
        return
    home = {kind: os.open(f"/proc/thread-self/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC) for kind in kinds}
    try:
        linux.unshare(sum(_KINDS[kind] for kind in kinds))
        try:
            if "uts" in kinds:
                linux.sethostname(hostname)
            if network:
                _loopback_up()
            for name, value in ((_SYSCTLS if network else {}) | dict(sysctls)).items():
                _sysctl(name, value)
            for kind in kinds:
                where[kind].touch(mode=0o600)
                linux.bind(f"/proc/thread-self/ns/{kind}", where[kind])
        finally:
            for kind in kinds:
                linux.setns_fd(home[kind], _KINDS[kind], kind)
    except OSError as exc:
        remove(uid, base)
        raise SandboxError(f"cannot make the pod's namespaces: {exc}") from exc
    finally:
        for fd in home.values():
            os.close(fd)


def intact(uid: str, base: Path, *, network: bool, ipc: bool) -> bool:
    """Whether every pin the pod needs still holds a namespace; after a reboot of the node none does."""
    where = pins(uid, base)
    kinds = (["net", "uts"] if network else []) + (["ipc"] if ipc else [])
    return all(os.path.ismount(where[kind]) for kind in kinds)  # Path.is_mount only knows folders


def remove(uid: str, base: Path) -> None:
    """Unpin; the kernel removes what nobody uses any more. Doing it twice is fine."""
    for path in pins(uid, base).values():
        with contextlib.suppress(OSError):
            linux.umount(path)
        with contextlib.suppress(FileNotFoundError):
            path.unlink()


def socket_in(netns: Path | None) -> socket.socket:
    """A non-blocking TCP socket that lives in a network namespace (None: our own). For a worker thread."""
    if netns is None:
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.setblocking(False)
        return sock
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        linux.setns(netns, linux.CLONE_NEWNET)
        try:
            sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        finally:
            linux.setns_fd(home, linux.CLONE_NEWNET, "net")
    finally:
        os.close(home)
    sock.setblocking(False)
    return sock


def _loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = struct.pack("16sH14x", b"lo", 0)
        flags = struct.unpack("16sH14x", fcntl.ioctl(sock, _SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags | _IFF_UP))


def _sysctl(name: str, value: str) -> None:
    # Dots separate, slashes stand for dots inside names (net.ipv4.conf.eth0/1.…).
    path = Path("/proc/sys", *(part.replace("/", ".") for part in name.split(".")))
    try:
        path.write_text(value)
    except FileNotFoundError as exc:
        raise SandboxError(f"sysctl {name} does not exist on this kernel") from exc
