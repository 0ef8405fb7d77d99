"""What the node's proxies listen on, why, and how far each listener is: for people and in the status. Pure."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from enum import StrEnum
from typing import Any, NamedTuple

from mycel.envoy.config.model import EnvoyConfig
from mycel.envoy.delta import Outcome
from mycel.envoy.listeners import listener_name, unserved
from mycel.model.proxy import LISTEN_IPV4
from mycel.policy.engine import Engine
from mycel.policy.http_text import EVERY_REQUEST, rule_text
from mycel.policy.l7 import allowed_names, server_names
from mycel.policy.proxy_ports import HttpSections
from mycel.policy.rules import L7
from mycel.policy.subjects import Subject
from mycel.policy.visibility import LOOK

Json = dict[str, Any]
Outcomes = Callable[[int, HttpSections], Outcome | None]
"""What Envoy says of a port's listener as it is to be, None until it has (`PolicyListeners.outcome`)."""
_LISTEN_IPV4 = f"{int.from_bytes(socket.inet_aton(LISTEN_IPV4), sys.byteorder):08X}"


class Proxy(StrEnum):
    """Who listens."""

    ENVOY = "envoy"
    DNS = "dns"


class State(StrEnum):
    """How far a listener is. Connections to one that is not acknowledged are dropped."""

    ACKNOWLEDGED = "acknowledged"
    WAITING = "waiting"
    REFUSED = "refused"


class Listener(NamedTuple):
    """One listener of this node. `words` say why it is refused: Envoy's, or ours."""

    port: int
    proxy: Proxy
    name: str  # in Envoy; empty for the DNS proxy's
    direction: str  # ingress, egress; of a CiliumEnvoyConfig service, and outside: for clients of the outside
    origins: tuple[str, ...]  # rules and objects that want it
    rules: tuple[str, ...]  # what it lets through; services that go there
    state: State
    words: str = ""

    def as_json(self) -> Json:
        """For `-o json`."""
        return {
            "port": self.port,
            "proxy": self.proxy.value,
            "name": self.name,
            "direction": self.direction,
            "origins": list(self.origins),
            "rules": list(self.rules),
            "state": self.state.value,
            "message": self.words,
        }

    def as_redirect(self) -> Json:
        """models.ProxyRedirect."""
        return {"name": ", ".join(self.origins), "proxy": self.name or self.proxy.value, "proxy-port": self.port}


def of_policies(
    engine: Engine, subjects: Iterable[Subject], outcome: Outcomes, open_: Collection[int]
) -> list[Listener]:
    """Those that rows of policies name. `open_`: UDP ports somebody has, which is how the DNS proxy says yes."""
    origins = _origins(engine, subjects)
    found = [_of_envoy(port, http, origins, outcome(port, http)) for port, http in engine.http_listeners.items()]
    for port, names in engine.dns_listeners.items():
        state = State.ACKNOWLEDGED if port in open_ else State.WAITING
        found.append(Listener(port, Proxy.DNS, "", "egress", tuple(sorted(origins.get(port, ()))), names, state))
    return found


def _of_envoy(port: int, http: HttpSections, origins: Mapping[int, set[str]], answer: Outcome | None) -> Listener:
    words = unserved(http) or (answer.error if answer and answer.error else "")
    state = State.REFUSED if words else State.ACKNOWLEDGED if answer and answer.version else State.WAITING
    return Listener(
        port,
        Proxy.ENVOY,
        listener_name(port, http.direction),
        http.direction.name.lower(),
        tuple(sorted(origins.get(port, ()))),
        rule_words(http.sections),
        state,
        words,
    )


def _origins(engine: Engine, subjects: Iterable[Subject]) -> dict[int, set[str]]:
    """Where the rules behind each port are written, as far as this node's pods have them."""
    found: dict[int, set[str]] = {}
    for side in {side.number: side for subject in subjects for side in subject if side.number}.values():
        if side.rules is None or not engine.has_sets((side.number,)):
            continue
        for port in engine.ports_of((side.number,)):
            sections = set(engine.proxy_rules(port)) - {None}
            names = found.setdefault(port, set())
            names.update(str(rule.ref) for rule in side.rules.rules if rule.l7 in sections)
    return found


def of_config(config: EnvoyConfig, *, listens: bool, words: str) -> list[Listener]:
    """Those of one CiliumEnvoyConfig; `words` say what keeps it from listening."""
    state = State.ACKNOWLEDGED if listens else State.REFUSED if words else State.WAITING
    found: list[Listener] = []
    for name, port in sorted(config.listeners.items()):
        services = tuple(f"service {each.service}" for each in config.services if each.port == port)
        sides = [(port, config.ref, "service")]
        if port in config.twins:
            sides.append((config.twins[port], config.ref.outside, "outside"))
        found += [
            Listener(number, Proxy.ENVOY, ref.qualify(name), side, (str(config.ref),), services, state, words)
            for number, ref, side in sides
        ]
    return found


def rule_words(sections: Iterable[L7 | None]) -> tuple[str, ...]:
    """What sections of HTTP let through, a line for each rule."""
    found: dict[str, None] = {}
    for section in sections:
        if section is None or section == LOOK:
            return (EVERY_REQUEST,)
        if section.parser == "dns":
            found.update(dict.fromkeys(allowed_names((section,))))
            continue
        found.update(dict.fromkeys(f"TLS {name}" for name in server_names(section)))
        for rule in json.loads(section.rules).get("rules") or ():
            found[rule_text(rule) if section.parser == "http" else str(rule)] = None
    return tuple(found) or ("nothing",)


def bound(table: str) -> frozenset[int]:
    """The UDP ports of 192.0.0.8 that somebody has, of the text of /proc/net/udp (proc_net_udp(5))."""
    places = (line.split(maxsplit=2)[1].partition(":") for line in table.splitlines()[1:])
    return frozenset(int(port, 16) for address, _, port in places if address == _LISTEN_IPV4)
