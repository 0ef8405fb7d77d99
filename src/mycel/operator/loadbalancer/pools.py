"""CiliumLoadBalancerIPPool → ranges of addresses, and which pools stand in each other's way. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from mycel.policy.errors import PolicyInvalid
from mycel.policy.fields import Field, selector
from mycel.policy.labels import LabelMap, Selector

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
MOST_BLOCKS = 1024
EVERYTHING = Selector()


class Block(NamedTuple):
    """Addresses of one family, from `first` to `last`, both among them."""

    version: int
    first: int
    last: int

    def __contains__(self, address: object) -> bool:
        return (
            isinstance(address, ipaddress.IPv4Address | ipaddress.IPv6Address)
            and address.version == self.version
            and self.first <= int(address) <= self.last
        )

    @property
    def size(self) -> int:
        """How many addresses there are."""
        return max(0, self.last - self.first + 1)

    def overlaps(self, other: Block) -> bool:
        """Whether an address is in both."""
        return self.version == other.version and self.first <= other.last and other.first <= self.last

    def addresses(self) -> Iterator[IpAddress]:
        """Every address, in order."""
        make = ipaddress.IPv4Address if self.version == 4 else ipaddress.IPv6Address
        return (make(number) for number in range(self.first, self.last + 1))

    def __str__(self) -> str:
        make = ipaddress.IPv4Address if self.version == 4 else ipaddress.IPv6Address
        return f"{make(self.first)} - {make(self.last)}"


@dataclass(frozen=True, slots=True)
class Pool:
    """A pool. `problem`: it cannot be used at all; then it has no blocks."""

    name: str
    created: str
    blocks: tuple[Block, ...]
    selector: Selector = EVERYTHING
    disabled: bool = False
    problem: str = ""

    def __contains__(self, address: object) -> bool:
        return any(address in block for block in self.blocks)

    def serves(self, labels: LabelMap) -> bool:
        """Whether a service with these labels may have an address of it."""
        return self.selector.matches(labels)

    @property
    def size(self) -> int:
        """How many addresses it has."""
        return sum(block.size for block in self.blocks)

    def has(self, version: int) -> bool:
        """Whether it has addresses of a family."""
        return any(block.version == version for block in self.blocks)


def parse_pool(item: Mapping[str, Any]) -> Pool:
    """A pool of its object; one that is not well formed has a problem and no blocks."""
    metadata = item["metadata"]
    name, created = str(metadata["name"]), str(metadata.get("creationTimestamp", ""))
    spec = Field(item.get("spec"), "spec")
    try:
        ends = spec["allowFirstLastIPs"].choice("Yes", "No", default="Yes") == "Yes"
        blocks = spec["blocks"].list_of(lambda field: _block(field, ends=ends)) or ()
        if len(blocks) > MOST_BLOCKS:
            raise spec["blocks"].fail(f"has {len(blocks)} blocks: {MOST_BLOCKS} are the most")
        wanted = selector(spec["serviceSelector"], sources=False)
        return Pool(name, created, blocks, wanted, disabled=bool(spec["disabled"].flag()))
    except PolicyInvalid as problem:
        return Pool(name, created, (), problem=str(problem))


def _block(field: Field, *, ends: bool) -> Block:
    field.knows("cidr", "start", "stop")
    if not field["cidr"].absent:
        if not field["start"].absent or not field["stop"].absent:
            raise field.fail("has a cidr and a range: say one of them")
        return _network(field["cidr"], ends=ends)
    if field["start"].absent:
        raise field.fail("needs a cidr, or start (and stop)")
    first = _address(field["start"])
    last = first if field["stop"].absent else _address(field["stop"])
    if first.version != last.version or int(last) < int(first):
        raise field["stop"].fail(f"{last} does not come after {first}")
    return Block(first.version, int(first), int(last))


def _network(field: Field, *, ends: bool) -> Block:
    text = field.text()
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise field.fail(f"{text!r} is not a prefix such as 10.0.0.0/24") from None
    # Of two addresses or one, none is left when the ends are taken away: then both are usable, as in RFC 3021.
    cut = 0 if ends or network.num_addresses <= 2 else 1
    return Block(network.version, int(network[0]) + cut, int(network[-1]) - cut)


def _address(field: Field) -> IpAddress:
    text = field.text()
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        raise field.fail(f"{text!r} is not an address") from None


def conflicts(pools: Iterable[Pool]) -> dict[str, str]:
    """Pools that may give nothing away, with the reason: they overlap with an older pool, or with themselves.

    Names → what to say. The oldest pool wins; of two of one age, the first by name.
    """
    found: dict[str, str] = {}
    settled: list[tuple[Block, str]] = []
    for pool in sorted(pools, key=lambda each: (each.created, each.name)):
        for block in pool.blocks:
            hit = next(((other, owner) for other, owner in settled if other.overlaps(block)), None)
            if hit is not None:
                text = f"Pool conflicts since range '{block}' overlaps range '{hit[0]}' from IP Pool '{hit[1]}'"
                found.setdefault(pool.name, text)
            settled.append((block, pool.name))
    return found
