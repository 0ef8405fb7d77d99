"""Takes and keeps the leases of services this node may announce, and says which addresses it answers for.

A lease we hold is ours until another's name is seen in it: while the API server is away nobody can take it, and nothing
changes. An agent that starts again finds its name there and goes on.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping

from mycel.agent.l2.election import Act, Times, step
from mycel.agent.watches import Watches
from mycel.k8s.client import ApiClient
from mycel.k8s.errors import ApiError, Conflict, NotFound
from mycel.k8s.informer import Key
from mycel.k8s.lease import Lease, holding_spec
from mycel.k8s.resources import LEASES
from mycel.kit.latest import Latest
from mycel.kit.workqueue import WorkQueue
from mycel.model.address import Address, parse_address
from mycel.model.service import ServiceRef, SliceEndpoint
from mycel.policy.announce import AnnouncementPolicy, Wish, is_lease_name, lease_name, wishes

log = logging.getLogger(__name__)
_GATHER_S = 0.02
_WORKERS = 4


class Announcer:
    """Keeps `addresses` at what this node answers for."""

    def __init__(
        self,
        client: ApiClient,
        watches: Watches,
        *,
        node: str,
        namespace: str,
        devices: tuple[str, ...],
        times: Times,
    ) -> None:
        self._client = client
        self._watches = watches
        self._node = node
        self._namespace = namespace
        self._devices = devices
        self._times = times
        self._policies = watches.announcement_policies
        self._leases = watches.leases
        self._wishes: Mapping[str, Wish] = {}
        self._known: set[str] = set()  # lease names of all services there are
        self._since_s: dict[str, float] = {}  # when a lease became as it is, or was first wished for
        self._queue: WorkQueue[str] = WorkQueue()
        self._changed = asyncio.Event()
        self.addresses: Latest[frozenset[Address]] = Latest(frozenset())
        self._policies.subscribe(_tell_problem)
        self._leases.subscribe(self._lease_changed)
        watches.on_any((self._policies, watches.services, watches.nodes, watches.slices), self.touch)

    def touch(self) -> None:
        """Something that decides who announces may have changed."""
        self._changed.set()

    async def run(self) -> None:
        """Until cancelled. Start it when every informer is synced."""
        async with asyncio.TaskGroup() as group:
            for _ in range(_WORKERS):
                group.create_task(self._work())
            while True:
                self._changed.clear()
                self.look()
                await self._changed.wait()
                await asyncio.sleep(_GATHER_S)

    def look(self) -> None:
        """Find out what this node may announce, and what it does."""
        nodes = self._watches.nodes.store.values()
        self._wishes = wishes(
            self._policies.store.values(),
            self._watches.services.store.values(),
            node=self._node,
            nodes={node.name: node.labels for node in nodes},
            devices=self._devices,
            serving=self._serving(),
            taken={parse_address(text) for node in nodes for text in (*node.internal_addresses, *node.other_addresses)},
        )
        self._known = {lease_name(service.ref) for service in self._watches.services.store.values()}
        leases = {key.name for key in self._leases.store if is_lease_name(key.name)}
        now_s = time.monotonic()
        self._since_s = {name: self._since_s.get(name, now_s) for name in leases | self._wishes.keys()}
        for name in self._since_s:
            self._queue.add(name)
        mine = [wish for name, wish in self._wishes.items() if self._holds(name)]
        self.addresses.set(frozenset(address for wish in mine for address in wish.addresses))

    def _serving(self) -> set[ServiceRef]:
        """Services with a backend on this node, and those without any slices: every node's proxy serves them."""
        slices = self._watches.slices.store.values()
        here = {each.ref for each in slices if any(_serves(one, self._node) for one in each.endpoints)}
        sliced = {each.ref for each in slices}
        return here | {each.ref for each in self._watches.services.store.values() if each.ref not in sliced}

    def _lease_changed(self, key: Key, old: Lease | None, new: Lease | None) -> None:
        if not is_lease_name(key.name):
            return
        self._since_s[key.name] = time.monotonic()
        if (old.holder if old else "") != (new.holder if new else ""):
            self.touch()
        else:
            self._queue.add(key.name)

    def _holds(self, name: str) -> bool:
        lease = self._leases.get(name, self._namespace)
        return lease is not None and lease.holder == self._node

    async def _work(self) -> None:
        while True:
            name = await self._queue.get()
            try:
                await self._step(name)
            except (Conflict, NotFound):
                self._queue.add_after(name, self._times.retry_s)  # another was faster; its watch event says who
            except ApiError as exc:
                log.info("lease %s: %s", name, exc)
                self._queue.add_after(name, self._times.retry_s)
            finally:
                self._queue.done(name)

    async def _step(self, name: str) -> None:
        lease, wish = self._leases.get(name, self._namespace), self._wishes.get(name)
        due = step(
            lease,
            self._node,
            wanted=wish is not None,
            orphan=name not in self._known,
            preferred=wish is not None and not (lease and lease.holder) and wish.preferred(name) == self._node,
            age_s=time.monotonic() - self._since_s.get(name, time.monotonic()),
            times=self._times,
        )
        if due.act is Act.TAKE:
            await self._take(name, lease)
        elif due.act is Act.DROP and lease is not None:
            await self._client.delete(LEASES, name, namespace=self._namespace, uid=lease.uid)
        if due.again_s is not None:
            self._queue.add_after(name, due.again_s)

    async def _take(self, name: str, lease: Lease | None) -> None:
        spec = holding_spec(lease, self._node, self._times.lease_s)
        metadata = {"name": name, "namespace": self._namespace}
        if lease is None:
            await self._client.create(LEASES, {"metadata": metadata, "spec": spec})
            return
        body = {"metadata": {"resourceVersion": lease.version}, "spec": spec}
        await self._client.patch(LEASES, name, body, namespace=self._namespace)


def _serves(endpoint: SliceEndpoint, node: str) -> bool:
    return endpoint.node == node and (endpoint.ready or endpoint.serving)


def _tell_problem(_key: Key, _old: AnnouncementPolicy | None, new: AnnouncementPolicy | None) -> None:
    if new is not None and new.problem:
        log.error("CiliumL2AnnouncementPolicy %s announces nothing: %s", new.name, new.problem)
