"""Startup, readiness and liveness probes of one run of a container: timers of the event loop, no thread and no
task while idle.

`thresholds` is the rule (pure); `check` does one probe; `Probes` schedules them and tells the pod what changed.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from mycel.cluster.node import runtime
from mycel.cluster.node.names import ContainerId, Object

_BODY_LIMIT = 10 << 10
_EARLY_S = (0.1, 0.2, 0.4, 0.8)  # between the first probes, before anything is counted
_insecure = ssl.create_default_context()
_insecure.check_hostname = False
_insecure.verify_mode = ssl.CERT_NONE  # kubelet does not verify probe targets either


class Kind(StrEnum):
    """What a probe decides about."""

    STARTUP = "startup"
    READINESS = "readiness"
    LIVENESS = "liveness"


class Outcome(NamedTuple):
    """One probe's answer."""

    ok: bool
    message: str = ""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a container's probes go."""

    container: ContainerId
    address: str
    ports: dict[str, int]


@dataclass(slots=True)
class Count:
    """How often in a row a probe said the same."""

    ok: bool = False
    times: int = 0


def thresholds(count: Count, outcome: Outcome, probe: Object) -> bool | None:
    """Take one outcome in; True or False once the threshold for it is reached, None before."""
    if outcome.ok == count.ok:
        count.times += 1
    else:
        count.ok, count.times = outcome.ok, 1
    needed = int(probe.get("successThreshold") or 1) if outcome.ok else int(probe.get("failureThreshold") or 3)
    return outcome.ok if count.times >= needed else None


def port_of(value: int | str, ports: dict[str, int]) -> int | None:
    """A number, or the container port of that name."""
    if isinstance(value, int):
        return value
    return ports.get(value) or (int(value) if value.isdigit() else None)


async def check(probe: Object, target: Target) -> Outcome:
    """Do the probe once."""
    timeout_s = float(probe.get("timeoutSeconds") or 1)
    try:
        if "exec" in probe:
            code, output = await runtime.execute(
                target.container, probe["exec"].get("command") or [], timeout_s=timeout_s
            )
            return Outcome(code == 0, output.decode(errors="replace").strip())
        async with asyncio.timeout(timeout_s):
            if "httpGet" in probe:
                return await _http(probe["httpGet"], target)
            if "tcpSocket" in probe:
                return await _tcp(probe["tcpSocket"], target)
    except TimeoutError:
        return Outcome(False, f"timeout: no answer within {timeout_s:g}s")
    except OSError as exc:
        return Outcome(False, f"dial tcp {target.address}: {exc.strerror or exc}")
    return Outcome(False, "the probe has no action this node knows (exec, httpGet, tcpSocket)")


async def _tcp(action: Object, target: Target) -> Outcome:
    port = port_of(action["port"], target.ports)
    if port is None:
        return Outcome(False, f"no container port is called {action['port']}")
    _, writer = await asyncio.open_connection(action.get("host") or target.address, port)
    writer.close()
    return Outcome(True)


async def _http(action: Object, target: Target) -> Outcome:
    port = port_of(action["port"], target.ports)
    if port is None:
        return Outcome(False, f"no container port is called {action['port']}")
    host, path = action.get("host") or target.address, action.get("path") or "/"
    path = path if path.startswith("/") else f"/{path}"
    headers = {
        "Host": f"{host}:{port}",
        "User-Agent": "kube-probe/1.32",
        "Accept": "*/*",
        "Connection": "close",
    }
    for header in action.get("httpHeaders") or []:
        headers[header["name"].title() if header["name"].lower() == "host" else header["name"]] = header["value"]
    tls = _insecure if str(action.get("scheme") or "HTTP").upper() == "HTTPS" else None
    reader, writer = await asyncio.open_connection(host, port, ssl=tls, limit=_BODY_LIMIT)
    try:
        lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        status = (await reader.readline()).decode("latin-1").split(" ", 2)
        if len(status) < 2 or not status[1].isdigit():
            return Outcome(False, "the answer is not HTTP")
        code = int(status[1])
        return Outcome(200 <= code < 400, "" if 200 <= code < 400 else f"HTTP probe failed with statuscode: {code}")
    finally:
        with contextlib.suppress(OSError):
            writer.transport.abort() if tls else writer.close()


class Probes:
    """All probes of one run. `changed(kind, good, message)` is called when a threshold is reached, `failed` for
    every failure.
    """

    def __init__(
        self,
        container: Object,
        target: Target,
        *,
        changed: Callable[[Kind, bool, str], None],
        failed: Callable[[Kind, str], None],
        passed_startup: bool,
    ) -> None:
        self._target = target
        self._changed = changed
        self._failed = failed
        self._specs = {kind: container[f"{kind}Probe"] for kind in Kind if container.get(f"{kind}Probe")}
        self._counts = {kind: Count() for kind in self._specs}
        self._timers: dict[Kind, asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._last: dict[Kind, bool] = {}
        self._tries: dict[Kind, int] = {}
        self._stopped = False
        if Kind.STARTUP in self._specs and not passed_startup:
            self._schedule(Kind.STARTUP, first=True)
        else:
            self._begin()

    def _begin(self) -> None:
        for kind in (Kind.READINESS, Kind.LIVENESS):
            if kind in self._specs:
                self._schedule(kind, first=True)

    def stop(self, *, keep_readiness: bool = False) -> None:
        """No further probes; while a pod shuts down its readiness may go on."""
        self._stopped = not keep_readiness
        for kind, timer in list(self._timers.items()):
            if not (keep_readiness and kind is Kind.READINESS):
                timer.cancel()
                del self._timers[kind]

    def _schedule(self, kind: Kind, *, first: bool = False) -> None:
        probe = self._specs[kind]
        period_s = float(probe.get("periodSeconds") or 10)
        if first:
            delay_s = float(probe.get("initialDelaySeconds") or 0)
            # Liveness can wait a little, which spreads the probes of pods that were made together; readiness is
            # waited for.
            delay_s += random.uniform(0, period_s) if kind is Kind.LIVENESS else 0.05  # noqa: S311
        else:
            delay_s = period_s
        self._timers[kind] = asyncio.get_running_loop().call_later(delay_s, self._fire, kind)

    def _early(self, kind: Kind) -> bool:
        """A server that needs some milliseconds to listen is asked again at once and not called unhealthy.

        Only for probes over the network: a command in the container costs as much as starting a process.
        """
        tries = self._tries.get(kind, 0)
        if kind is Kind.LIVENESS or "exec" in self._specs[kind] or tries >= len(_EARLY_S) or kind in self._last:
            return False
        self._tries[kind] = tries + 1
        self._timers[kind] = asyncio.get_running_loop().call_later(_EARLY_S[tries], self._fire, kind)
        return True

    def _fire(self, kind: Kind) -> None:
        task = asyncio.get_running_loop().create_task(
            self._once(kind), name=f"{kind} probe of {self._target.container[:12]}"
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _once(self, kind: Kind) -> None:
        probe = self._specs[kind]
        outcome = await check(probe, self._target)
        if self._stopped:
            return
        if not outcome.ok and self._early(kind):
            return
        if not outcome.ok:
            self._failed(kind, outcome.message)
        reached = thresholds(self._counts[kind], outcome, probe)
        if reached is not None and self._last.get(kind) != reached:
            self._last[kind] = reached
            self._changed(kind, reached, outcome.message)
        if kind is Kind.STARTUP and reached:
            self._begin()
            return
        if kind is Kind.READINESS and not reached and self._last.get(kind) is None and not outcome.ok:
            # Not ready yet for the first time: look again soon, so that a slow start costs no whole period.
            period_s = min(1.0, float(probe.get("periodSeconds") or 10))
            self._timers[kind] = asyncio.get_running_loop().call_later(period_s, self._fire, kind)
            return
        if not (reached is False and kind is not Kind.READINESS):
            self._schedule(kind)
