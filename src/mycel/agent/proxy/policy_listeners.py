"""Listeners for the HTTP rules of policies: made before the rows that name them, taken away after."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Mapping

from mycel.agent.planner import Planner
from mycel.agent.proxy.header_secrets import HeaderSecrets
from mycel.envoy.ads import Answers
from mycel.envoy.delta import Outcome
from mycel.envoy.listeners import listener_name, snapshot, unserved
from mycel.envoy.logs import Shown
from mycel.envoy.resources import LISTENER, Resource, Snapshot, merged
from mycel.kit.latest import Latest
from mycel.policy.engine import Engine
from mycel.policy.http import SecretRef, secrets_of
from mycel.policy.proxy_ports import HttpSections

_PATIENCE_S = 10.0
_AT_ONCE = 8  # listeners made before others have their turn


class PolicyListeners:
    """`snapshot` is for Envoy. An endpoint may switch to a set when `pending` names none of its listeners."""

    def __init__(
        self,
        engine: Engine,
        secrets: HeaderSecrets,
        *,
        connected: Callable[[], bool],
        envoy: bool = True,
        dns_proxy: bool = True,
        shown: Shown = (),
        remember: Callable[[], None] = lambda: None,
    ) -> None:
        """`envoy`, `dns_proxy`: whether the node is to have them. `remember`: called before Envoy hears of ports."""
        self._engine = engine
        self._envoy = envoy
        self._dns_proxy = dns_proxy
        self._secrets = secrets
        self._shown = shown
        self._connected = connected
        self._remember = remember
        self._answers: Answers = {}
        self._made_of: Mapping[int, HttpSections] = {}  # what `snapshot` has at each port
        self._asked: dict[int, float] = {}  # loop time since which a listener is waited for
        self._wake = asyncio.Event()
        self.snapshot: Latest[Snapshot] = Latest()
        self._hearers: list[Callable[[], None]] = []
        secrets.changed = self._secrets_changed

    def subscribe(self, hearer: Callable[[], None]) -> None:
        """Call `hearer` whenever what `pending` and `refused` say may be other than before."""
        self._hearers.append(hearer)

    def answered(self, answers: Answers) -> None:
        """Take in what Envoy has said so far."""
        before, self._answers = self._answers, answers
        if any(kind == LISTENER and before.get((kind, name)) != found for (kind, name), found in answers.items()):
            self._tell()

    def _secrets_changed(self) -> None:
        self._wake.set()
        self._tell()

    def _tell(self) -> None:
        for hearer in self._hearers:
            hearer()

    def planned(self) -> None:
        """The sets in use may be others."""
        self._wake.set()

    def pending(self, numbers: tuple[int, int]) -> bool:
        """Whether Envoy has yet to take or refuse a listener of these sets, and there is hope that it will soon."""
        now = asyncio.get_running_loop().time()
        listeners = self._engine.http_listeners
        waiting = {
            port
            for port in self._engine.ports_of(numbers)
            if port in listeners and not unserved(listeners[port]) and self.outcome(port, listeners[port]) is None
        }
        if not waiting or not self._connected():
            return False
        for port in waiting - self._asked.keys():
            self._asked[port] = now
            asyncio.get_running_loop().call_later(_PATIENCE_S, self._tell)  # then without it: closed, not as before
        since = min(self._asked[port] for port in waiting)
        return now - since < _PATIENCE_S

    def refused(self, number: int) -> str:
        """Why a listener of this set is not there for good: Envoy's words, or ours; empty when there is no such one."""
        listeners, dns_listeners = self._engine.http_listeners, self._engine.dns_listeners
        for port in sorted(self._engine.ports_of((number,))):
            if port in dns_listeners and not self._dns_proxy:
                return "nodes have no DNS proxy (dnsProxy.enabled): the ports of rules.dns stay closed"
            if port in listeners:
                if not self._envoy:
                    return "nodes have no Envoy (envoy.enabled): the ports of rules.http stay closed"
                if words := unserved(listeners[port]):
                    return words
                found = self.outcome(port, listeners[port])
                if found is not None and found.error:
                    return found.error
        return ""

    def outcome(self, port: int, http: HttpSections) -> Outcome | None:
        """What Envoy says of the listener as it is to be now: what had its port before does not count."""
        name = listener_name(port, http.direction)
        found = self._answers.get((LISTENER, name))
        if found is None or self._made_of.get(port) != http:
            return None
        return found if found.version == self.snapshot.value[LISTENER][name].version else None

    async def run(self, planner: Planner) -> None:
        """Keep `snapshot` until cancelled."""
        while True:
            self._wake.clear()
            listeners = self._engine.http_listeners
            secrets = await self._secrets.usable(
                secrets_of(each for http in listeners.values() for each in http.sections)
            )
            wanted = await self._made(listeners, secrets)
            self._asked = {port: since for port, since in self._asked.items() if port in listeners}
            self._remember()
            self._made_of = listeners
            held: Snapshot = self.snapshot.value if self.snapshot.version else {}
            if held.get(LISTENER, {}).keys() - wanted.get(LISTENER, {}).keys():
                self.snapshot.set(merged(wanted, held))
                await self._unnamed(planner)
            self.snapshot.set(wanted)
            await self._wake.wait()

    async def _made(self, listeners: Mapping[int, HttpSections], secrets: Mapping[SecretRef, Resource]) -> Snapshot:
        """The snapshot, a few listeners at a time: each takes a millisecond, and there may be thousands."""
        parts = [snapshot({}, secrets, self._shown)]
        waiting = iter(listeners.items())
        while some := dict(itertools.islice(waiting, _AT_ONCE)):
            parts.append(snapshot(some, secrets, self._shown))
            await asyncio.sleep(0)
        return merged(*parts)

    async def _unnamed(self, planner: Planner) -> None:
        """Until the kernel's rows are those of the plan, which does not name what goes."""
        try:
            async with asyncio.timeout(_PATIENCE_S):
                await planner.applied(planner.desired.version)
        except TimeoutError:
            pass  # the kernel is behind; a row without a listener drops
