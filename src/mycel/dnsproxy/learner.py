"""From answers to rows of the kernel's map: the one place that decides whether an answer may leave.

Rules, cache and rows; no sockets and no clock.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from mycel.dnsproxy.journal import Journal
from mycel.dnsproxy.names_map import NamesMap
from mycel.model.address import Address, is_ipv4, parse_prefix
from mycel.plan.dns import DnsRules, Wanted
from mycel.policy.fqdn import Selectors
from mycel.policy.name_cache import NAMES, NameCache


class Learner:
    """See the module."""

    def __init__(self, cache: NameCache, rows: NamesMap, journal: Journal) -> None:
        self.cache = cache
        self._rows = rows
        self._journal = journal
        self._selectors = Selectors(())
        self._by_name: dict[str, frozenset[str]] = {}
        # by family: length → first bits → text, the longest first
        self._networks: dict[bool, dict[int, dict[int, str]]] = {True: {}, False: {}}
        self.identities: dict[Wanted, int] = {}
        self._held: dict[Address, int] = {}  # rows as they are in the kernel
        self._wanted: dict[Address, Wanted | None] = {}
        self.changed: Callable[[], object] = lambda: None
        """Called when a row goes or gets another identity: answers with its address must not leave as they did."""

    def restore(self) -> None:
        """Take over what an earlier process had learnt, and its rows. Rules come after."""
        for entry in self._journal.load():
            self.cache.put(entry)
        self._held = dict(self._rows.dump())

    def follow(self, rules: DnsRules) -> tuple[Wanted, ...]:
        """New rules: every row is looked at again. Returns identities that somebody has to allocate."""
        self._selectors = Selectors(rules.selectors)
        self._by_name.clear()
        self._wanted.clear()
        found: dict[bool, dict[int, dict[int, str]]] = {True: {}, False: {}}
        for text in rules.networks:
            address, length = parse_prefix(text)
            of_length = found[":" not in text].setdefault(length, {})
            of_length[int.from_bytes(address, "big") >> (128 - length)] = text
        self._networks = {family: dict(sorted(each.items(), reverse=True)) for family, each in found.items()}
        self.identities = {each.of: each.identity for each in rules.identities}
        return self._write({*self.cache.addresses, *self._held})

    def admit(
        self, name: str, answers: Collection[tuple[Address, int]], source: Address, now_s: float
    ) -> tuple[Wanted, ...]:
        """Take an answer in. Nothing returned: it may leave; else it waits for these identities, then `settled`."""
        changed = self.cache.learn(name, answers, source=source, now_s=now_s)
        for address in changed:
            self._wanted.pop(address, None)
        learnt = (self.cache.entry(name, address) for address, _ in answers)
        self._journal.append(each for each in learnt if each is not None)
        self._journal.compact(self.cache.entries(), len(self.cache.addresses))
        return self._write({*changed, *(address for address, _ in answers)})

    def know(self, identities: Iterable[tuple[Wanted, int]]) -> None:
        """Identities that are there by now, rows and all."""
        self.identities.update(identities)

    def missing(self, addresses: Iterable[Address]) -> tuple[Wanted, ...]:
        """What these addresses still wait for; empty: they are in the kernel as their names want it."""
        return self._write(addresses)

    def retry(self) -> tuple[Wanted, ...]:
        """Write every row that waits. Returns what is still missing."""
        return self._write([address for address, wanted in self._wanted.items() if self._waits(address, wanted)])

    def _waits(self, address: Address, wanted: Wanted | None) -> bool:
        return wanted is not None and self._held.get(address) != self.identities.get(wanted, -1)

    def sweep(self, now_s: float, live: Collection[Address] | None) -> None:
        """Forget what is over."""
        changed = self.cache.sweep(now_s, live)
        for address in changed:
            self._wanted.pop(address, None)
        self._write(changed)
        self._journal.compact(self.cache.entries(), len(self.cache.addresses), now=bool(changed))

    @property
    def used(self) -> tuple[int, ...]:
        """Identities that rows have."""
        return tuple(sorted(set(self._held.values())))

    def _write(self, addresses: Iterable[Address]) -> tuple[Wanted, ...]:
        missing: dict[Wanted, None] = {}
        for address in addresses:
            if address not in self._wanted:
                self._wanted[address] = self._want(address)
            wanted = self._wanted[address]
            if wanted is None:
                self._wanted.pop(address)
                if self._held.pop(address, None) is not None:
                    self._rows.remove(address)
                    self.changed()
                continue
            identity = self.identities.get(wanted)
            if identity is None:
                missing[wanted] = None
            elif (held := self._held.get(address)) != identity:
                if self._rows.put(address, identity):
                    self._held[address] = identity
                    if held is not None:
                        self.changed()
                else:
                    missing[wanted] = None
        return tuple(missing)

    def _want(self, address: Address) -> Wanted | None:
        selectors: set[str] = set()
        for name in self.cache.names(address):
            found = self._by_name.get(name)
            if found is None:
                if len(self._by_name) >= NAMES:
                    self._by_name.clear()
                found = self._by_name[name] = self._selectors.matching(name)
            selectors |= found
        if not selectors:
            return None
        return Wanted(tuple(sorted(selectors)), self._network(address))

    def _network(self, address: Address) -> str:
        number = int.from_bytes(address, "big")
        ipv4 = is_ipv4(address)
        for length, of_length in self._networks[ipv4].items():
            found = of_length.get(number >> (128 - length))
            if found is not None:
                return found
        return "0.0.0.0/0" if ipv4 else "::/0"
