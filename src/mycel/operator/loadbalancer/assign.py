"""Which service has which addresses. Pure: the same from the same input.

What a service holds it keeps while it may; then those that ask for addresses by name are served, then the others, each
in order of age. So neither a restart nor a new service moves an address.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from mycel.model.service import ServiceRef
from mycel.operator.loadbalancer.claims import Claim
from mycel.operator.loadbalancer.pools import IpAddress, Pool, conflicts


class Reason(StrEnum):
    """Reasons of condition cilium.io/IPAMRequestSatisfied; the words are Cilium's."""

    SATISFIED = "satisfied"
    NO_POOL = "no_pool"
    OUT_OF_IPS = "out_of_ips"
    ALREADY_ALLOCATED = "already_allocated"
    INCOMPATIBLE = "already_allocated_incompatible_service"
    MISMATCH = "pool_selector_mismatch"
    INVALID = "invalid_ip"


class Outcome(NamedTuple):
    """A service's addresses, and how its wishes stand."""

    addresses: tuple[IpAddress, ...]
    reason: Reason
    message: str = ""


class PoolState(NamedTuple):
    """How a pool stands; `conflict` empty: with nobody."""

    conflict: str
    total: int
    used: int

    @property
    def available(self) -> int:
        """Addresses nobody has."""
        return self.total - self.used


class Decision(NamedTuple):
    """All of it. Services that are none of ours are absent."""

    services: Mapping[ServiceRef, Outcome]
    pools: Mapping[str, PoolState]


def decide(pools: Iterable[Pool], claims: Iterable[Claim], held: Mapping[str, tuple[IpAddress, ...]]) -> Decision:
    """Give addresses out. `held`: what services have now, by uid."""
    books = _Books(sorted(pools, key=lambda each: each.name))
    wanting = sorted((claim for claim in claims if claim.wants), key=lambda claim: (claim.created, claim.ref))
    for claim in wanting:
        books.keep(claim, held.get(claim.uid, ()))
    outcomes = {claim.ref: books.grant(claim) for claim in wanting if claim.requested or claim.unreadable}
    outcomes |= {claim.ref: books.fill(claim) for claim in wanting if claim.ref not in outcomes}
    return Decision(outcomes, books.states())


@dataclass
class _Books:
    """Who has what while a decision is made."""

    pools: list[Pool]
    holders: dict[IpAddress, list[Claim]] = field(default_factory=dict[IpAddress, list[Claim]])
    given: dict[ServiceRef, list[IpAddress]] = field(default_factory=dict[ServiceRef, list[IpAddress]])

    def __post_init__(self) -> None:
        self._conflicts = conflicts(self.pools)
        self._unseen = {(pool.name, version): _addresses(pool, version) for pool in self.pools for version in (4, 6)}
        self._by_key: dict[str, dict[IpAddress, None]] = {}

    def keep(self, claim: Claim, held: Iterable[IpAddress]) -> None:
        """Let a service keep what it may still have: also of pools that give nothing new away."""
        versions = set(claim.versions)
        for address in held:
            wanted = address in claim.requested if claim.requested else address.version in versions
            allowed = any(address in pool and pool.serves(claim.labels) for pool in self.pools)
            if wanted and allowed and self._free_for(claim, address):
                self._give(claim, address)
                if not claim.requested:
                    versions.discard(address.version)

    def grant(self, claim: Claim) -> Outcome:
        """Serve a service that asks for addresses by name."""
        problem: tuple[Reason, str] | None = None
        for text in claim.unreadable:
            problem = Reason.INVALID, f"'{text}' is not an address"
        for address in claim.requested:
            if address in self.given.get(claim.ref, ()):
                continue
            refused = self._refusal(claim, address)
            if refused is None:
                self._give(claim, address)
            problem = problem or refused
        return self._outcome(claim, problem)

    def fill(self, claim: Claim) -> Outcome:
        """Give a service an address of each of its families."""
        problem: tuple[Reason, str] | None = None
        present = {address.version for address in self.given.get(claim.ref, ())}
        for version in claim.versions:
            if version in present:
                continue
            eligible = [pool for pool in self._open(claim) if pool.has(version)]
            address = self._shared(claim, version, eligible) or self._next(version, eligible)
            if address is not None:
                self._give(claim, address)
            elif eligible:
                problem = (
                    Reason.OUT_OF_IPS,
                    "All enabled CiliumLoadBalancerIPPools that match this service ran out of allocatable IPs",
                )
            else:
                problem = (
                    Reason.NO_POOL,
                    f"There are no enabled CiliumLoadBalancerIPPools with IPv{version} that match this service",
                )
        return self._outcome(claim, problem)

    def states(self) -> dict[str, PoolState]:
        """How each pool stands now."""
        return {
            pool.name: PoolState(
                pool.problem or self._conflicts.get(pool.name, ""),
                pool.size,
                sum(1 for address in self.holders if address in pool),
            )
            for pool in self.pools
        }

    def _open(self, claim: Claim) -> list[Pool]:
        """Pools that may give this service a new address."""
        return [
            pool
            for pool in self.pools
            if not pool.disabled and pool.name not in self._conflicts and pool.serves(claim.labels)
        ]

    def _refusal(self, claim: Claim, address: IpAddress) -> tuple[Reason, str] | None:
        if address.version not in claim.versions:
            return Reason.INVALID, f"'{address}' is not of a family in spec.ipFamilies"
        if not any(address in pool for pool in self.pools):
            return Reason.NO_POOL, f"No pool contains the requested IP '{address}'"
        if not any(address in pool for pool in self._open(claim)):
            return (
                Reason.MISMATCH,
                f"The pool of the requested IP '{address}' is disabled or does not select this service",
            )
        if self._free_for(claim, address):
            return None
        others = ", ".join(str(each.ref) for each in self.holders[address])
        reason = Reason.INCOMPATIBLE if claim.sharing_key else Reason.ALREADY_ALLOCATED
        return reason, f"The IP '{address}' is already allocated to {others}"

    def _shared(self, claim: Claim, version: int, eligible: list[Pool]) -> IpAddress | None:
        """An address of services with the same sharing key."""
        for address in self._by_key.get(claim.sharing_key, {}) if claim.sharing_key else ():
            inside = address.version == version and any(address in pool for pool in eligible)
            if inside and self._free_for(claim, address):
                return address
        return None

    def _next(self, version: int, eligible: list[Pool]) -> IpAddress | None:
        for pool in eligible:
            for address in self._unseen[pool.name, version]:
                if address not in self.holders:
                    return address
        return None

    def _free_for(self, claim: Claim, address: IpAddress) -> bool:
        return all(each.shares_with(claim) for each in self.holders.get(address, ()))

    def _give(self, claim: Claim, address: IpAddress) -> None:
        self.holders.setdefault(address, []).append(claim)
        self.given.setdefault(claim.ref, []).append(address)
        if claim.sharing_key:
            self._by_key.setdefault(claim.sharing_key, {})[address] = None

    def _outcome(self, claim: Claim, problem: tuple[Reason, str] | None) -> Outcome:
        addresses = sorted(self.given.get(claim.ref, ()), key=lambda each: (each.version, int(each)))
        return Outcome(tuple(addresses), *(problem or (Reason.SATISFIED, "")))


def _addresses(pool: Pool, version: int) -> Iterator[IpAddress]:
    """A pool's addresses of one family, each once: what was passed over is somebody's for the whole decision."""
    for block in pool.blocks:
        if block.version == version:
            yield from block.addresses()
