"""Pods' `hostPort`s → frontends of their own node.

A host port is a frontend at each address of the node the pod runs on, with the pod as its one backend; with
`hostIP`, at that address only. It is no frontend anywhere else: other nodes send such packets to the pod's node.
127.0.0.1 is not answered at: there every pod and the node mean themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mycel.abi import ServiceFlags
from mycel.model.address import ANY_IPV4, ANY_IPV6, Address, is_ipv4, parse_address
from mycel.model.service import ServiceRef
from mycel.model.workload import HostPort, Workload
from mycel.service.balance import Backend, BackendKey, BackendState, Frontend, FrontendKey


def host_port_frontends(
    pods: Iterable[Workload], node: str, addresses: Sequence[Address]
) -> dict[FrontendKey, Frontend]:
    """The frontends of the pods of `node`, which has these addresses.

    Where two pods claim one, the first in order of names has it (the scheduler does not let it come to that).
    """
    found: dict[FrontendKey, Frontend] = {}
    for pod in sorted(pods, key=lambda pod: pod.ref):
        if pod.node != node or pod.finished or pod.host_network:
            continue
        for port in pod.host_ports:
            for own in map(parse_address, pod.addresses):
                backend = Backend(BackendKey(own, port.target, port.protocol.number), node, BackendState.ACTIVE)
                for address in _places(port, addresses, ipv4=is_ipv4(own)):
                    key = FrontendKey(address, port.port, port.protocol.number)
                    ref = ServiceRef(pod.ref.namespace, pod.ref.name)
                    frontend = Frontend(key, ref, "", key, ServiceFlags.NODE_PORT, 0, (backend,), 1)
                    found.setdefault(key, frontend)
    return found


def is_host_port(frontend: Frontend) -> bool:
    """Whether a frontend is a pod's host port: a NodePort is at the unspecified address."""
    at_an_address = frontend.key.address not in (ANY_IPV4, ANY_IPV6)
    return at_an_address and bool(frontend.flags & ServiceFlags.NODE_PORT)


def _places(port: HostPort, addresses: Sequence[Address], *, ipv4: bool) -> list[Address]:
    wanted = parse_address(port.address) if port.address else None
    if wanted in (ANY_IPV4, ANY_IPV6):
        wanted = None
    return [each for each in addresses if is_ipv4(each) == ipv4 and wanted in (None, each)]
