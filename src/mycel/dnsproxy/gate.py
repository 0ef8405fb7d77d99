"""Where queries are judged and answers are let go: what UDP and TCP have in common."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Coroutine, Mapping
from typing import Any, NamedTuple

from mycel.dnsproxy.learner import Learner
from mycel.dnsproxy.wire import Answer, Bad, Query, read_query
from mycel.kit.dns import RCode
from mycel.model.address import Address, format_address, parse_address
from mycel.plan.dns import DnsRules, NamesAnswer, NamesRequest, Wanted
from mycel.policy.fqdn import Selectors

log = logging.getLogger(__name__)
ANSWER_WITHIN_S = 1.8
_FRESH_S = 1, 30
_MEMO, _MEMO_QUERY, _MEMO_BYTES = 8192, 512, 4 << 20  # entries; bytes of a query, and of all answers

Ask = Callable[[NamesRequest], Coroutine[Any, Any, NamesAnswer]]
"""Ask the agent. Raises OSError or ValueError when it does not answer."""


def boot_time_s() -> float:
    """Seconds since boot: the clock of everything that is learnt."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Judged(NamedTuple):
    """A query with its verdict. `refuse` None: it goes on."""

    query: Query | None
    refuse: RCode | None
    silent: bool = False


class Gate:
    """See the module."""

    def __init__(self, learner: Learner, ask: Ask, *, refuse: RCode = RCode.REFUSED) -> None:
        self.learner = learner
        self._ask = ask
        self._refuse = refuse
        self._allowed: dict[int, Selectors] = {}
        self._judged: defaultdict[int, dict[bytes, Judged]] = defaultdict(dict)
        self._fresh: dict[bytes, tuple[float, Answer]] = {}
        self._fresh_bytes = 0
        learner.changed = self._forget
        self._asking: asyncio.Task[None] | None = None
        self._missing: dict[Wanted, None] = {}

    def follow(self, rules: DnsRules) -> None:
        """New rules."""
        self._allowed = {port: Selectors(names) for port, names in rules.listeners.items()}
        for memo in self._judged.values():
            memo.clear()
        self._forget()
        self.want(self.learner.follow(rules))

    # ---- queries

    def judge(self, port: int, wire: bytes) -> Judged:
        """A query's verdict. Clients repeat themselves, so it is remembered by what follows the id."""
        memo = self._judged[port]
        found = memo.get(wire[2:])
        if found is None:
            if len(memo) >= _MEMO:
                memo.clear()
            found = self._judge(port, wire)
            if 2 < len(wire) <= _MEMO_QUERY:  # a bit of an id says nothing
                memo[wire[2:]] = found
        return found

    def memo(self, port: int) -> Mapping[bytes, Judged]:
        """The verdicts a listener has given, by what follows the id. Always the same object."""
        return self._judged[port]

    def _judge(self, port: int, wire: bytes) -> Judged:
        query = read_query(wire)
        if isinstance(query, Bad):
            return Judged(None, query.rcode, silent=query.rcode is None)
        allowed = self._allowed.get(port)
        if allowed is None or not allowed.any(query.name):
            return Judged(query, self._refuse)
        return Judged(query, None)

    # ---- answers

    def fresh(self, wire: bytes) -> Answer | None:
        """What this very answer said if it was let go lately: its addresses are where they belong, for longer than it
        says. None: it has to be read and admitted.
        """
        found = self._fresh.get(wire[2:])
        return found[1] if found is not None and found[0] > time.monotonic() else None

    def admit(self, wire: bytes, query: Query, answer: Answer, client: str) -> bool:
        """Whether an answer may leave now. If not, `settled` will tell."""
        if not answer.addresses:
            return True
        source = parse_address(client)
        # As long as its shortest TTL the answer may pass as it is, so what is learnt is kept for that long beyond.
        shortest, longest = _FRESH_S
        fresh_s = max(shortest, min(longest, *(ttl for _, ttl in answer.addresses)))
        kept = [(address, ttl + fresh_s) for address, ttl in answer.addresses]
        missing = self.learner.admit(query.name, kept, source, boot_time_s())
        if missing:
            self.want(missing)
            return False
        if len(self._fresh) >= _MEMO or self._fresh_bytes >= _MEMO_BYTES:
            self._forget()
        self._fresh_bytes += len(wire)
        self._fresh[wire[2:]] = time.monotonic() + fresh_s, answer
        return True

    def _forget(self) -> None:
        self._fresh.clear()
        self._fresh_bytes = 0

    async def settled(self, answer: Answer, within_s: float) -> bool:
        """Wait for the identities of an answer's addresses; False when they do not come in time."""
        addresses = [address for address, _ in answer.addresses]
        deadline = time.monotonic() + within_s
        while missing := self.learner.missing(addresses):
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return False
            if self._asking is None or self._asking.done():
                self.want(missing)
            if self._asking is not None:
                await asyncio.wait((self._asking,), timeout=left_s)
                if self.learner.missing(addresses):
                    await asyncio.sleep(min(0.1, left_s))  # the agent is away: not at every moment
        return True

    def want(self, missing: Collection[Wanted]) -> None:
        """Have identities allocated."""
        if missing:
            self._missing.update(dict.fromkeys(missing))
            self._start_asking()

    def _start_asking(self) -> None:
        if (self._asking is None or self._asking.done()) and self._missing:
            self._asking = asyncio.get_running_loop().create_task(self._ask_agent(), name="identities")

    async def _ask_agent(self) -> None:
        while self._missing:
            wanted, self._missing = tuple(self._missing), {}
            try:
                answer = await self._ask(NamesRequest(wanted=wanted))
            except (OSError, ValueError, EOFError) as exc:
                log.debug("the agent gives no identities: %s", exc)
                return
            self.learner.know(zip(wanted, answer.identities, strict=False))
            self.learner.retry()

    # ---- time

    async def sweep(self) -> None:
        """Forget what is over, but not what has connections: the agent knows them."""
        now_s = boot_time_s()
        due = self.learner.cache.due(now_s)
        live: set[Address] | None = set()
        try:
            answer = await self._ask(NamesRequest(used=self.learner.used, live=texts(due)))
            live = {parse_address(text) for text in answer.live}
        except (OSError, ValueError, EOFError):
            live = None  # nobody knows: all stay
        self.learner.sweep(now_s, live)
        self.want(self.learner.retry())


def texts(addresses: Collection[Address]) -> tuple[str, ...]:
    """For the agent."""
    return tuple(sorted(map(format_address, addresses)))
