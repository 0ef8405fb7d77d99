"""The identity of a label set: found among the CiliumIdentities, or created by whoever needs it first.

Which numbers to try is `identity.numbering`'s decision; creating the object is what settles a race. Until the
informer has seen a new object, it is remembered here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from mycel.identity.labels import split_label
from mycel.identity.numbering import candidates, index_by_labels
from mycel.k8s import parse
from mycel.k8s.client import ApiClient
from mycel.k8s.errors import AlreadyExists, ApiError, NotFound
from mycel.k8s.informer import Informer, Key
from mycel.k8s.resources import CILIUM_IDENTITIES
from mycel.model.workload import Identity, IdentityId

log = logging.getLogger(__name__)
_TRIES = 64


class Identities:
    """Label sets → numbers."""

    def __init__(self, client: ApiClient, informer: Informer[Identity]) -> None:
        self._client = client
        self._informer = informer
        self._index: dict[tuple[str, ...], IdentityId] | None = None
        self._mine: dict[IdentityId, Identity] = {}  # created or met, not yet seen by the informer
        self._locks: dict[tuple[str, ...], asyncio.Lock] = {}
        self._used: Callable[[IdentityId], tuple[str, ...] | None] = lambda _number: None
        informer.subscribe(self._changed)
        self.lost: asyncio.Queue[IdentityId] = asyncio.Queue()

    def watch_use(self, used: Callable[[IdentityId], tuple[str, ...] | None]) -> None:
        """Tell which identities endpoints of this node have; a deleted one of them is put on `lost`."""
        self._used = used

    def known(self, labels: tuple[str, ...]) -> IdentityId | None:
        """The number of a label set, without asking anybody."""
        if self._index is None:
            self._index = index_by_labels((*self._informer.store.values(), *self._mine.values()))
        return self._index.get(labels)

    def labels(self, number: IdentityId) -> tuple[str, ...]:
        """The labels of a number; empty when it is not known."""
        found = self._informer.get(str(number)) or self._mine.get(number)
        return found.labels if found else ()

    def all(self) -> Mapping[IdentityId, Identity]:
        """Every cluster identity known here."""
        return {each.id: each for each in (*self._mine.values(), *self._informer.store.values())}

    async def resolve(self, labels: tuple[str, ...]) -> IdentityId:
        """The number of a label set, created if nobody has. Raises ApiError, NumbersExhausted."""
        async with self._locks.setdefault(labels, asyncio.Lock()):
            found = self.known(labels)
            if found is None:
                found = await self._create(labels)
        self._locks.pop(labels, None)
        return found

    async def restore(self, number: IdentityId, labels: tuple[str, ...]) -> IdentityId:
        """Make sure an identity that endpoints have exists: create it again under its number.

        When the number stands for other labels by now, the answer is another number. Raises ApiError.
        """
        met = await self._attempt(number, labels)
        return number if met is not None and met.labels == labels else await self.resolve(labels)

    async def _create(self, labels: tuple[str, ...]) -> IdentityId:
        taken = self.all()
        for _, number in zip(range(_TRIES), candidates(labels, taken), strict=False):
            met = await self._attempt(number, labels)
            if met is not None:
                self._remember(met)
                if met.labels == labels:
                    return met.id
        raise ApiError(409, "Conflict", f"{_TRIES} identity numbers in a row were taken by others")

    async def _attempt(self, number: IdentityId, labels: tuple[str, ...]) -> Identity | None:
        """Create the object, or meet the one that is there."""
        security = dict(split_label(label) for label in labels)
        body = {
            "metadata": {
                "name": str(number),
                # For kubectl's selectors; what is too long for a label is in security-labels alone.
                "labels": {key.removeprefix("k8s:"): value for key, value in security.items() if len(value) < 64},
            },
            "security-labels": security,
        }
        try:
            await self._client.create(CILIUM_IDENTITIES, body)
        except AlreadyExists:
            try:
                path = CILIUM_IDENTITIES.path(name=str(number))
                met = parse.IDENTITIES_CODEC.decode(await self._client.request("GET", path))
            except NotFound:
                return None
        else:
            log.info("identity %d created for %s", number, ",".join(labels))
            met = Identity(number, labels)
        self._remember(met)
        return met

    def _remember(self, identity: Identity) -> None:
        if Key("", str(identity.id)) not in self._informer.store:
            self._mine[identity.id] = identity
            self._index = None

    def _changed(self, key: Key, old: Identity | None, new: Identity | None) -> None:
        self._index = None
        identity = new or old
        if identity is None:
            return
        self._mine.pop(identity.id, None)
        if new is None and self._used(identity.id) is not None:
            log.info("identity %d was deleted while endpoints have it", identity.id)
            self.lost.put_nowait(identity.id)
