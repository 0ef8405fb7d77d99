"""Ports of proxies: the number that rows name for the layer 7 sections that apply there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from mycel.abi import Direction
from mycel.model.proxy import DNS_PORTS
from mycel.policy.l7 import allowed_names
from mycel.policy.numbers import HashedNumbers
from mycel.policy.rules import L7

FIRST_HTTP_PORT, _HTTP_PORTS = 10000, 4999
_NO_HTTP_LISTENER = FIRST_HTTP_PORT + _HTTP_PORTS
"""Named when there are more sets of rules than numbers: no listener is ever there, so such ports are closed."""
FIRST_DNS_PORT, _DNS_PORTS = DNS_PORTS.start, len(DNS_PORTS) - 1
_NO_DNS_LISTENER = FIRST_DNS_PORT + _DNS_PORTS
"""The same."""


class HttpSections(NamedTuple):
    """Sections that apply together, in one direction; None among them is "any request"."""

    direction: Direction
    sections: tuple[L7 | None, ...]


class ProxyPorts:
    """Ports by content, so that they are the same on every node and after every restart."""

    def __init__(self) -> None:
        self._http: HashedNumbers[HttpSections] = HashedNumbers(FIRST_HTTP_PORT, _HTTP_PORTS)
        self._dns: HashedNumbers[tuple[L7 | None, ...]] = HashedNumbers(FIRST_DNS_PORT, _DNS_PORTS)

    def number(self, direction: Direction, sections: frozenset[L7 | None]) -> int:
        """The port where these sections apply together: the DNS proxy's when they are about nothing else."""
        key = tuple(sorted(sections, key=lambda each: (each is not None, each or ())))
        if all(each is None or each.parser == "dns" for each in key):
            try:
                return self._dns.number(key)
            except OverflowError:
                return _NO_DNS_LISTENER
        try:
            return self._http.number(HttpSections(direction, key))
        except OverflowError:
            return _NO_HTTP_LISTENER

    @property
    def digests(self) -> dict[int, int]:
        """The ports given, with digests of what they stand for: for `expect` after a restart."""
        return self._http.digests | self._dns.digests

    def expect(self, digests: Mapping[int, int]) -> None:
        """Keep ports for the sections that had them: rows and proxies that are there already go by them."""
        self._http.expect(digests)
        self._dns.expect(digests)

    def sections(self, port: int) -> tuple[L7 | None, ...]:
        """The sections a port stands for; None among them is "any request"."""
        found = self._http.key(port)
        return found.sections if found else self._dns.key(port) or ()

    def http(self, ports: Iterable[int]) -> dict[int, HttpSections]:
        """Envoy's among these ports."""
        return {port: found for port in sorted(ports) if (found := self._http.key(port)) is not None}

    def dns(self, ports: Iterable[int]) -> dict[int, tuple[str, ...]]:
        """The DNS proxy's among these ports, with the selectors of names they let through."""
        return {port: allowed_names(found) for port in sorted(ports) if (found := self._dns.key(port)) is not None}

    def keep(self, ports: Iterable[int]) -> None:
        """All others may be given to other sections."""
        kept = set(ports)
        self._http.keep(http for port in kept if (http := self._http.key(port)) is not None)
        self._dns.keep(dns for port in kept if (dns := self._dns.key(port)) is not None)
