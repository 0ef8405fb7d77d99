"""What agent and DNS proxy of a node tell each other: rules as a file, requests, and what was learnt."""

from __future__ import annotations

import msgspec

RULES_LIMIT = 64 << 20
"""Bytes of the file."""


class Wanted(msgspec.Struct, frozen=True, order=True):
    """What the identity of an address with names is made of; see `policy.names.Named`."""

    selectors: tuple[str, ...]
    network: str  # a prefix


class KnownIdentity(msgspec.Struct, frozen=True):
    """An identity, and what it is made of."""

    of: Wanted
    identity: int


class DnsRules(msgspec.Struct, frozen=True):
    """Everything the proxy goes by. Absent listeners have no socket, so their rows drop."""

    listeners: dict[int, tuple[str, ...]] = {}  # port → selectors of the names it lets through
    selectors: tuple[str, ...] = ()  # of toFQDNs
    networks: tuple[str, ...] = ()  # prefixes policies name
    identities: tuple[KnownIdentity, ...] = ()


class NamesRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """`POST /v1/names`: identities wanted; which of them any address has (None: not said); whose connections live."""

    wanted: tuple[Wanted, ...] = ()
    used: tuple[int, ...] | None = None
    live: tuple[str, ...] = ()  # addresses in question


class NamesAnswer(msgspec.Struct, frozen=True):
    """Sent when the rows of these identities are in the kernel. `live`: those that have connections."""

    identities: tuple[int, ...] = ()
    live: tuple[str, ...] = ()


class LearntLine(msgspec.Struct, frozen=True, rename={"name": "n", "address": "a", "until_s": "u", "source": "s"}):
    """One line of the proxy's journal: an address of a name, until when (CLOCK_BOOTTIME), and who asked last."""

    name: str
    address: str
    until_s: float
    source: str


def read_rules(content: bytes) -> DnsRules:
    """The file's content. Raises ValueError."""
    if len(content) > RULES_LIMIT:
        raise ValueError(f"{len(content)} bytes are more than {RULES_LIMIT}")
    return msgspec.json.decode(content, type=DnsRules)
