"""Real sockets in a lab's namespaces, held by the test's own process: quick, and both ends can be looked at."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mycel.datapath import links, syscall
from tests.bpf.kernel import Datapath
from tests.bpf.lab import inside

TIMEOUT_S = 30.0
CGROUPS = next(
    (Path(each) for each in ("/sys/fs/cgroup/unified", "/sys/fs/cgroup") if Path(each, "cgroup.procs").exists()), None
)


class Talk(NamedTuple):
    """What both ends of one exchange saw."""

    server_saw: str  # the client's address, to the server
    client_saw: str  # the server's address, to the client


def listen(namespace: str, address: str, port: int, kind: socket.SocketKind) -> socket.socket:
    """A server's socket."""
    with inside(namespace):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        server = socket.socket(family, kind)
    server.settimeout(TIMEOUT_S)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind((address, port))
    if kind == socket.SOCK_STREAM:
        server.listen(16)
    return server


def dialler(namespace: str, kind: socket.SocketKind, *, family: socket.AddressFamily = socket.AF_INET) -> socket.socket:
    """A client's socket."""
    with inside(namespace):
        client = socket.socket(family, kind)
    client.settimeout(TIMEOUT_S)
    return client


def tcp(namespace: str, target: tuple[str, int], server: socket.socket, *, payload: bytes = b"mycel") -> Talk:
    """Connect, send, have it echoed, close: client first."""
    with dialler(namespace, socket.SOCK_STREAM, family=_family(target)) as client:
        client.connect(target)
        accepted, peer = server.accept()
        with accepted:
            accepted.settimeout(TIMEOUT_S)
            client.sendall(payload)
            _receive(accepted, len(payload))
            accepted.sendall(payload)
            _receive(client, len(payload))
            seen = client.getpeername()[0]
            client.shutdown(socket.SHUT_WR)
            assert accepted.recv(1) == b""
        assert client.recv(1) == b""
    return Talk(peer[0], seen)


def udp(namespace: str, target: tuple[str, int], server: socket.socket, *, size: int = 64) -> Talk:
    """One datagram each way, by an unconnected socket."""
    with dialler(namespace, socket.SOCK_DGRAM, family=_family(target)) as client:
        client.sendto(b"x" * size, target)
        data, peer = server.recvfrom(65535)
        server.sendto(data, peer)
        answer, seen = client.recvfrom(65535)
        assert answer == b"x" * size
    return Talk(peer[0], seen[0])


def _receive(sock: socket.socket, length: int) -> None:
    while length:
        data = sock.recv(length)
        assert data, "closed early"
        length -= len(data)


def _family(target: tuple[str, int]) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in target[0] else socket.AF_INET


@contextlib.contextmanager
def socket_hooks(datapath: Datapath, name: str) -> Iterator[None]:
    """Run this process in a cgroup of its own with the node's socket programs."""
    assert CGROUPS is not None, "no cgroup v2 hierarchy"
    home = next(
        line[3:] for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::")
    ).lstrip("/")
    group = CGROUPS / name
    group.mkdir()
    fd = os.open(group, os.O_RDONLY | os.O_DIRECTORY)
    attached: list[int] = []
    try:
        for program, hook in links.PROGRAM_HOOKS.items():
            if hook.name.startswith("CGROUP"):
                attached.append(syscall.link_create(datapath.program(program), fd, hook, program))
        (group / "cgroup.procs").write_text(str(os.getpid()))
        yield
    finally:
        (CGROUPS / home / "cgroup.procs").write_text(str(os.getpid()))
        for each in attached:
            os.close(each)
        os.close(fd)
        group.rmdir()
