"""A pod's devices and programs, as the endpoint manager wants them: steps that may block, each in a thread.

`PodWiring` is the interface, `KernelWiring` the real one. Order is the caller's business (endpoints.py).
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

from mycel.datapath import pod_link
from mycel.datapath.errors import DatapathError
from mycel.datapath.netlink import find_link, set_link
from mycel.datapath.rtnetlink import Netlink
from mycel.model.address import Address, format_address, is_ipv4

T = TypeVar("T")


class WiringError(Exception):
    """A pod could not be wired; the message says at which step."""


class Wire(NamedTuple):
    """A made pair."""

    interface: str
    ifindex: int
    mac: bytes
    node_mac: bytes


class PodWiring(Protocol):
    """Makes and takes away pods' devices."""

    async def make(self, *, container_id: str, netns: str, pod_interface: str) -> Wire:
        """A fresh pair, down, with programs attached. Raises WiringError."""
        ...

    async def furnish(
        self, wire: Wire, *, netns: str, pod_interface: str, addresses: Iterable[Address], routers: Iterable[Address]
    ) -> None:
        """Addresses and routes in the pod, then both sides up. Raises WiringError."""
        ...

    async def remove(self, interface: str) -> bool:
        """Delete a pair; False when it was gone."""
        ...

    async def present(self) -> dict[str, int]:
        """The node's sides there are: name → ifindex."""
        ...

    async def attach(self, ifindex: int) -> None:
        """Attach programs to a device that exists, if they are not, and set it up: a clean-up set it down."""
        ...


class KernelWiring:
    """The real devices, through netlink, in the network namespace the agent runs in."""

    def __init__(
        self,
        *,
        attach: Callable[[int], object],
        forget: Callable[[int], object],
        mtu: int,
    ) -> None:
        self._attach = attach
        self._forget = forget
        self._mtu = mtu
        self._going: dict[str, asyncio.Future[bool]] = {}
        self._removal: asyncio.Task[None] | None = None
        self._netlink = Netlink()
        self._lock = threading.Lock()  # one request at a time on the socket

    def close(self) -> None:
        """Close the socket."""
        self._netlink.close()

    async def make(self, *, container_id: str, netns: str, pod_interface: str) -> Wire:
        """See PodWiring."""
        name = pod_link.device_name(container_id, pod_interface)

        def work() -> Wire:
            with _Namespace(netns) as namespace, self._lock:
                link = pod_link.make_pair(
                    self._netlink, name, namespace_fd=namespace, ifname=pod_interface, mtu=self._mtu
                )
                self._attach(link.ifindex)
            return Wire(link.name, link.ifindex, link.mac, link.node_mac)

        return await _in_thread(work)

    async def furnish(
        self, wire: Wire, *, netns: str, pod_interface: str, addresses: Iterable[Address], routers: Iterable[Address]
    ) -> None:
        """See PodWiring."""
        link = pod_link.PodLink(wire.ifindex, wire.interface, wire.node_mac, wire.mac)
        own, gateways = _ip(addresses), _ip(routers)
        families = {address.version for address in own}

        def work() -> None:
            with self._lock:
                pod_link.set_up(self._netlink, link, ipv6=6 in families)
            with _Namespace(netns) as namespace:
                pod_link.furnish(
                    link,
                    namespace_fd=namespace,
                    ifname=pod_interface,
                    addresses=own,
                    routers=[each for each in gateways if each.version in families],
                )

        await _in_thread(work)

    async def remove(self, interface: str) -> bool:
        """See PodWiring. Pairs that go while others are being removed go together, as the next ones."""
        if interface not in self._going:
            self._going[interface] = asyncio.get_running_loop().create_future()
        if self._removal is None or self._removal.done():
            self._removal = asyncio.create_task(self._remove_all(), name="pod device removal")
        return await asyncio.shield(self._going[interface])

    async def _remove_all(self) -> None:
        while self._going:
            batch, self._going = self._going, {}
            try:
                there = await _in_thread(lambda names=tuple(batch): self._delete(names))
            except (WiringError, OSError) as exc:
                for waiting in batch.values():
                    waiting.set_exception(exc)
            else:
                for name, waiting in batch.items():
                    waiting.set_result(name in there)

    def _delete(self, names: tuple[str, ...]) -> set[str]:
        """Delete pairs; returns those that were there."""
        with self._lock:
            found = {name: link for name in names if (link := find_link(self._netlink, name)) is not None}
            if found:
                pod_link.delete_pairs(self._netlink, found)
        for link in found.values():
            self._forget(link.ifindex)
        return set(found)

    async def present(self) -> dict[str, int]:
        """See PodWiring."""

        def work() -> dict[str, int]:
            with self._lock:
                return {name: link.ifindex for name, link in pod_link.pod_devices(self._netlink).items()}

        return await _in_thread(work)

    async def attach(self, ifindex: int) -> None:
        """See PodWiring."""

        def work() -> None:
            self._attach(ifindex)
            with self._lock:
                set_link(self._netlink, ifindex, up=True)

        await _in_thread(work)


class _Namespace:
    """A descriptor of a namespace for the length of a `with`."""

    def __init__(self, path: str) -> None:
        self._fd = pod_link.open_namespace(visible_path(path))

    def __enter__(self) -> int:
        return self._fd

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


def visible_path(netns: str) -> Path:
    """A namespace's path as this container sees it: /run and /var/run are the same on a node, maybe not here."""
    path = Path(netns)
    if not path.exists():
        for here, there in (("/run/", "/var/run/"), ("/var/run/", "/run/")):
            if netns.startswith(here) and Path(there, netns.removeprefix(here)).exists():
                return Path(there, netns.removeprefix(here))
    return path


def _ip(addresses: Iterable[Address]) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    return [
        ipaddress.IPv4Address(each[12:]) if is_ipv4(each) else ipaddress.IPv6Address(format_address(each))
        for each in addresses
    ]


async def _in_thread(work: Callable[[], T]) -> T:
    try:
        return await asyncio.to_thread(work)
    except DatapathError as exc:
        raise WiringError(str(exc)) from exc
