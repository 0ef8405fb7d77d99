"""Host ports of pods → frontends of their node."""

from __future__ import annotations

import pytest

from mycel.model.address import format_address, parse_address
from mycel.model.service import Protocol
from mycel.model.workload import HostPort, PodRef, Workload
from mycel.service.hostports import host_port_frontends, is_host_port

NODE = tuple(map(parse_address, ("172.18.0.2", "192.168.1.2", "fd00::2")))


def pod(*ports: HostPort, name: str = "web", node: str = "n1", finished: bool = False) -> Workload:
    return Workload(
        ref=PodRef("shop", name),
        uid=name,
        node=node,
        labels={},
        service_account="",
        host_network=False,
        addresses=("10.0.0.5",) if name == "web" else ("10.0.0.6", "fd10::6"),
        owner=("", ""),
        named_ports=(),
        finished=finished,
        deleted=False,
        host_ports=ports,
    )


def port(address: str = "") -> HostPort:
    return HostPort(address, 8088, Protocol.TCP, 8080)


def shown(*pods: Workload) -> dict[str, str]:
    return {
        format_address(key.address): format_address(frontend.backends[0].key.address)
        for key, frontend in host_port_frontends(pods, "n1", NODE).items()
    }


@pytest.mark.parametrize(
    ("pods", "expected"),
    [
        ([pod(port())], {"172.18.0.2": "10.0.0.5", "192.168.1.2": "10.0.0.5"}),
        ([pod(port("0.0.0.0"))], {"172.18.0.2": "10.0.0.5", "192.168.1.2": "10.0.0.5"}),
        ([pod(port("192.168.1.2"))], {"192.168.1.2": "10.0.0.5"}),
        ([pod(port("192.168.9.9"))], {}),  # not this node's
        ([pod(port("127.0.0.1"))], {}),  # there everybody means himself
        ([pod(port(), node="n2")], {}),
        ([pod(port(), finished=True)], {}),
        ([pod(port("fd00::2"), name="both")], {"fd00::2": "fd10::6"}),
        ([pod(port("172.18.0.2")), pod(port("172.18.0.2"), name="a")], {"172.18.0.2": "10.0.0.6"}),
    ],
)
def test_where_a_host_port_answers(pods: list[Workload], expected: dict[str, str]) -> None:
    """At the node's addresses of the pod's family, or at the one it names, if it is the node's."""
    assert shown(*pods) == expected


def test_its_one_backend_is_local() -> None:
    """So no traffic policy ever changes it; it is told from a NodePort by its address."""
    (frontend, *_) = host_port_frontends([pod(port())], "n1", NODE).values()
    assert (frontend.local_count, frontend.backends[0].key.port, frontend.key.port) == (1, 8080, 8088)
    assert is_host_port(frontend)
