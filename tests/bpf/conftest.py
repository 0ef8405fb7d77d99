"""One load of the programs for all packet tables, in a namespace that has a way out."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import pytest

from mycel import abi
from mycel.datapath.testrun import SkbContext, run_skb
from tests.bpf.frames import Frame
from tests.bpf.kernel import Datapath
from tests.bpf.lab import inside, run
from tests.bpf.rows import addr
from tests.bpf.world import V4, V6, rows

PASS, DROP, REDIRECT = 0, 2, 7  # TC_ACT_OK, TC_ACT_SHOT, TC_ACT_REDIRECT
KNOBS = {
    "config_ipv6": 1,
    "config_vxlan_ifindex": 4243,
    "config_node_ipv4": addr(V4.node),
    "config_node_ipv6": addr(V6.node),
}


class Seen(NamedTuple):
    """What became of a frame."""

    verdict: int
    frame: bytes
    events: list[abi.FlowEvent]

    @property
    def reason(self) -> str | None:
        """The drop reason, when one event tells of it."""
        told = [each for each in self.events if each.kind == abi.EventKind.DROP]
        return abi.DropReason(told[0].sub_type).name if len(told) == 1 else None

    @property
    def points(self) -> list[str]:
        """Where the packet was traced."""
        return [abi.TracePoint(each.sub_type).name for each in self.events if each.kind == abi.EventKind.TRACE]


class Bench:
    """The loaded programs. `pod` and `other` are the indexes of interfaces that stand for the two pods'."""

    def __init__(self, datapath: Datapath, pod: int, other: int) -> None:
        self.datapath = datapath
        self.pod = pod
        self.other = other

    def reset(self) -> None:
        """The world as the plan would write it, and nothing else."""
        self.datapath.forget()
        self.write(rows(self.pod, self.other))

    def write(self, tables: Mapping[str, Mapping[Any, Any]]) -> None:
        """Write rows by map."""
        self.datapath.write(tables)

    def send(self, frame: Frame | bytes, program: str = "from_pod", *, by: str = "pod") -> Seen:
        """Run a program on a frame that came by the interface of `pod` or `other`."""
        context = SkbContext(ifindex=self.pod if by == "pod" else self.other)
        done = run_skb(self.datapath.program(program), bytes(frame), context=context)
        return Seen(done.verdict, done.packet, self.datapath.events())


@pytest.fixture(scope="session")
def bench_namespace() -> Iterator[str]:
    name = f"my{os.getpid() % 100000}-bench"
    run("ip", "netns", "add", name)
    try:
        for command in (
            "link add e0 type veth peer name e1",
            "link set e0 up",
            "link set e1 up",
            f"addr add {V4.node}/24 dev e0",
            f"route add default via {V4.underlay_gateway} dev e0",
            f"addr add {V6.node}/64 dev e0 nodad",
            f"-6 route add default via {V6.underlay_gateway} dev e0",
        ):
            run("ip", "-n", name, *command.split())
        forwarding = ("net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        run("ip", "netns", "exec", name, "sysctl", "-qw", *forwarding)
        yield name
    finally:
        run("ip", "netns", "delete", name)


@pytest.fixture(scope="session")
def loaded(bench_namespace: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    datapath = Datapath(KNOBS, lock=tmp_path_factory.mktemp("bench") / "rings")
    with inside(bench_namespace):
        pod, other = (socket.if_nametoindex(name) for name in ("e0", "e1"))
    yield Bench(datapath, pod, other)
    datapath.close()


@pytest.fixture
def bench(loaded: Bench, bench_namespace: str) -> Iterator[Bench]:
    """The world, fresh, with this process inside its namespace."""
    loaded.reset()
    with inside(bench_namespace):
        yield loaded
