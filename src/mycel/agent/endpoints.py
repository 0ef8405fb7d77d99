"""The pods wired on this node: made by CNI ADD, kept on disk, found again at start, removed by CNI DEL.

ADD's order is its safety: devices down and programs attached → file written → identity of the pod's labels →
the plan with its rows realized → addresses, routes, devices up → answer. Whatever fails takes the whole
attempt back. A pod whose labels cannot be learned in time is refused (the runtime tries again); it never
starts with a guessed identity.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import NamedTuple, Protocol
from weakref import WeakValueDictionary

from mycel.agent.ipam import Pool, PoolExhausted
from mycel.agent.state import EndpointFiles
from mycel.agent.wiring import PodWiring, Wire, WiringError
from mycel.identity.numbering import NumbersExhausted
from mycel.k8s.errors import ApiError
from mycel.model.address import Address
from mycel.model.workload import EndpointId, IdentityId, LocalEndpoint, PodRef, Workload

log = logging.getLogger(__name__)
_LAST_ID = 65535


class AddFailed(Exception):
    """The pod could not be wired; the message is what CNI hands to the runtime."""


class AddRequest(NamedTuple):
    """What CNI ADD tells."""

    container_id: str
    netns: str
    pod_interface: str
    ref: PodRef
    uid: str


class PodLookup(Protocol):
    """The pod's facts."""

    async def pod(self, ref: PodRef, uid: str) -> Workload:
        """The pod as the API server has it, waiting a little. Raises ApiError, TimeoutError."""
        ...

    def identity_labels(self, pod: Workload) -> tuple[str, ...] | None:
        """Labels of the pod's identity; None while its namespace is not known."""
        ...


class Endpoints:
    """Every endpoint of this node. All changes go through here."""

    def __init__(
        self,
        *,
        files: EndpointFiles,
        pools: Iterable[Pool],
        routers: Iterable[Address],
        wiring: PodWiring,
        pods: PodLookup,
        resolve: Callable[[tuple[str, ...]], Awaitable[IdentityId]],
        realize: Callable[[], Awaitable[None]],
        add_timeout_s: float = 20.0,
    ) -> None:
        self._files = files
        self._pools = tuple(pools)
        self._routers = tuple(routers)
        self._wiring = wiring
        self._pods = pods
        self._resolve = resolve
        self._realize = realize
        self._add_timeout_s = add_timeout_s
        self._by_id: dict[EndpointId, LocalEndpoint] = {}
        self._by_pod: dict[PodRef, list[EndpointId]] = {}  # the newest last
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()  # gone with the last user
        self._next_id = 0
        self._listeners: list[Callable[[LocalEndpoint | None, LocalEndpoint | None], None]] = []

    # ---- reading

    def all(self) -> Mapping[EndpointId, LocalEndpoint]:
        """Endpoints by number."""
        return self._by_id

    def of_pod(self, ref: PodRef) -> LocalEndpoint | None:
        """The newest endpoint of a pod (a sandbox that is made again overlaps with the old one for a moment)."""
        found = self._by_pod.get(ref)
        return self._by_id[found[-1]] if found else None

    def subscribe(self, listener: Callable[[LocalEndpoint | None, LocalEndpoint | None], None]) -> None:
        """Call `listener(old, new)` after each change."""
        self._listeners.append(listener)

    def pool_usage(self) -> tuple[int, int]:
        """Addresses in use and in all."""
        return sum(pool.used for pool in self._pools), sum(pool.size for pool in self._pools)

    # ---- at start

    async def restore(self) -> None:
        """Take back what an earlier agent wired; forget what is not there any more, remove what nobody knows."""
        present = await self._wiring.present()
        known: set[str] = set()
        for endpoint in self._files.load():
            if present.get(endpoint.interface) != endpoint.ifindex:
                log.info("endpoint %d of pod %s is gone: its device is", endpoint.endpoint_id, endpoint.ref)
                self._files.remove(endpoint.endpoint_id)
                continue
            await self._wiring.attach(endpoint.ifindex)
            known.add(endpoint.interface)
            self._hold(endpoint)
            self._next_id = max(self._next_id, endpoint.endpoint_id)
        for pool in self._pools:
            for endpoint in self._by_id.values():
                pool.reserve(endpoint.addresses)
        for interface in present.keys() - known:
            # Made by an ADD that never answered: the runtime has forgotten it or will DEL it.
            await self._wiring.remove(interface)
        log.info("%d endpoints restored", len(self._by_id))

    # ---- CNI

    async def add(self, request: AddRequest) -> LocalEndpoint:
        """Wire a pod. Raises AddFailed."""
        async with self._locked(request.container_id):
            await self._remove(request.container_id, request.pod_interface)
            try:
                async with asyncio.timeout(self._add_timeout_s):
                    return await self._add(request)
            except TimeoutError as exc:
                reason = f"it took longer than {self._add_timeout_s:g} s; the API server or the datapath is behind"
                raise AddFailed(f"pod {request.ref}: {reason}") from exc
            except (WiringError, ApiError, PoolExhausted, NumbersExhausted, OSError) as exc:
                raise AddFailed(f"pod {request.ref}: {exc}") from exc

    async def delete(self, container_id: str, pod_interface: str) -> bool:
        """Take a pod's wiring away; False when there was none (no error: DEL is repeated freely)."""
        async with self._locked(container_id):
            return await self._remove(container_id, pod_interface)

    def check(self, container_id: str, pod_interface: str) -> LocalEndpoint | None:
        """The endpoint of a container's interface."""
        for endpoint in self._by_id.values():
            if (endpoint.container_id, endpoint.pod_interface) == (container_id, pod_interface):
                return endpoint
        return None

    # ---- identity

    def set_identity(self, endpoint_id: EndpointId, identity: IdentityId, labels: tuple[str, ...]) -> None:
        """Give an endpoint another identity (its pod's or namespace's labels changed)."""
        old = self._by_id.get(endpoint_id)
        if old is not None and (old.identity, old.labels) != (identity, labels):
            self._put(old, dataclasses.replace(old, identity=identity, labels=labels))

    async def _add(self, request: AddRequest) -> LocalEndpoint:
        addresses: list[Address] = []
        wire: Wire | None = None
        endpoint: LocalEndpoint | None = None
        try:
            addresses += [pool.allocate() for pool in self._pools]
            wire = await self._wiring.make(
                container_id=request.container_id, netns=request.netns, pod_interface=request.pod_interface
            )
            endpoint = LocalEndpoint(
                ref=request.ref,
                uid=request.uid,
                container_id=request.container_id,
                endpoint_id=self._free_id(),
                addresses=tuple(addresses),
                interface=wire.interface,
                ifindex=wire.ifindex,
                mac=wire.mac,
                node_mac=wire.node_mac,
                netns=request.netns,
                pod_interface=request.pod_interface,
            )
            self._put(None, endpoint)
            pod = await self._pods.pod(request.ref, request.uid)
            labels = self._pods.identity_labels(pod)
            if labels is None:
                raise WiringError(f"namespace {request.ref.namespace} is not known yet")
            identity = await self._resolve(labels)
            ready = dataclasses.replace(endpoint, uid=pod.uid, identity=identity, labels=labels)
            self._put(endpoint, ready)
            endpoint = ready
            await self._realize()
            await self._wiring.furnish(
                wire,
                netns=request.netns,
                pod_interface=request.pod_interface,
                addresses=addresses,
                routers=self._routers,
            )
        except BaseException:
            await asyncio.shield(self._take_back(endpoint, wire, addresses))
            raise
        log.info("endpoint %d: pod %s is wired, identity %d", endpoint.endpoint_id, endpoint.ref, endpoint.identity)
        return endpoint

    async def _take_back(self, endpoint: LocalEndpoint | None, wire: Wire | None, addresses: list[Address]) -> None:
        if wire is not None:
            await self._wiring.remove(wire.interface)
        if endpoint is not None:
            self._put(endpoint, None)
        else:
            for pool in self._pools:
                for address in addresses:
                    pool.release(address)

    async def _remove(self, container_id: str, pod_interface: str) -> bool:
        endpoint = self.check(container_id, pod_interface)
        if endpoint is None:
            return False
        await self._wiring.remove(endpoint.interface)
        self._put(endpoint, None)
        log.info("endpoint %d: pod %s is removed", endpoint.endpoint_id, endpoint.ref)
        return True

    def _put(self, old: LocalEndpoint | None, new: LocalEndpoint | None) -> None:
        if new is not None:
            self._files.save(new)
            self._hold(new)
        elif old is not None:
            self._let_go(old)
            self._files.remove(old.endpoint_id)
            for pool in self._pools:
                for address in old.addresses:
                    pool.release(address)
        for listener in self._listeners:
            listener(old, new)

    def _hold(self, endpoint: LocalEndpoint) -> None:
        if endpoint.endpoint_id not in self._by_id:
            self._by_pod.setdefault(endpoint.ref, []).append(endpoint.endpoint_id)
        self._by_id[endpoint.endpoint_id] = endpoint

    def _let_go(self, endpoint: LocalEndpoint) -> None:
        if self._by_id.pop(endpoint.endpoint_id, None) is None:
            return
        numbers = self._by_pod[endpoint.ref]
        numbers.remove(endpoint.endpoint_id)
        if not numbers:
            del self._by_pod[endpoint.ref]

    def _free_id(self) -> EndpointId:
        for _ in range(_LAST_ID):
            self._next_id = self._next_id % _LAST_ID + 1
            if self._next_id not in self._by_id:
                return EndpointId(self._next_id)
        raise PoolExhausted("every endpoint number is in use")

    @asynccontextmanager
    async def _locked(self, container_id: str) -> AsyncGenerator[None]:
        """One request per container at a time, in order of arrival."""
        lock = self._locks.get(container_id)
        if lock is None:
            lock = self._locks[container_id] = asyncio.Lock()
        async with lock:
            yield
