"""What only a proxy can check: sections of toPorts, checked and carried in canonical form.

Nothing here judges a request. A port with such a section is handed to the proxy by its row, and where there
is no proxy it is closed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from mycel.policy.fields import Field
from mycel.policy.fqdn import EVERY_NAME, canonical_selector
from mycel.policy.http import http_rule
from mycel.policy.rules import L7, LAST_PORT, SCTP, TCP, UDP, PortMatch

_NAME = re.compile(r"[-a-zA-Z0-9_]+(?:\.[-a-zA-Z0-9_]+)*\.?")
_SERVER_NAME = re.compile(r"(?:\*\*?\.)?[-a-zA-Z0-9_]+(?:\.[-a-zA-Z0-9_]+)*\.?")
_PATTERN = re.compile(r"[-a-zA-Z0-9_*]+(?:\.[-a-zA-Z0-9_*]+)*\.?")


def dns_name(field: Field) -> str:
    """An item of toFQDNs or rules.dns, as canonical text. Raises PolicyInvalid."""
    field.knows("matchName", "matchPattern")
    name, pattern = field["matchName"], field["matchPattern"]
    if not name.absent and not pattern.absent:
        raise field.fail("takes matchName or matchPattern, not both")
    chosen, allowed = (name, _NAME) if not name.absent else (pattern, _PATTERN)
    text = chosen.text("")
    if len(text) > 255 or (text and not allowed.fullmatch(text)):
        raise chosen.fail(f"{text!r} is not a DNS name" + ("" if allowed is _NAME else " with wildcards"))
    return canonical_selector(text)


def is_server_name(text: str) -> bool:
    """Whether an item of serverNames is one, or one after `*.` or `**.`; others are taken, and their port is closed."""
    return len(text) <= 255 and _SERVER_NAME.fullmatch(text) is not None


def server_names(section: L7) -> tuple[str, ...]:
    """The names of TLS servers that a section lets pass: of kind tls; `*.` stands for one label, `**.` for more."""
    return tuple(json.loads(section.rules).get("serverNames", ())) if section.parser == "tls" else ()


def allowed_names(sections: Iterable[L7 | None]) -> tuple[str, ...]:
    """The selectors of names that any of these sections of rules.dns lets through; None is every name."""
    found: set[str] = set()
    for each in sections:
        found.update((EVERY_NAME,) if each is None else json.loads(each.rules).get("rules", ()))
    return tuple(sorted(found))


def parse_l7(entry: Field, ports: tuple[PortMatch, ...], *, ingress: bool, home: str) -> L7 | None:
    """The proxy's part of one toPorts entry of a policy in namespace `home`, None without one. Raises PolicyInvalid."""
    rules, listener, names = entry["rules"], entry["listener"], entry["serverNames"]
    rules.knows("http", "dns", "kafka", "l7proto", "l7")
    http, dns = list(rules["http"].items()), list(rules["dns"].items())
    others = [name for name in ("kafka", "l7") if list(rules[name].items())]
    others += ["l7proto"] if rules["l7proto"].text("") and "l7" not in others else []
    given = [name for name, items in (("http", http), ("dns", dns)) if items] + others
    if len(given) > 1:
        raise rules.fail(f"takes one protocol, not {' and '.join(given)}")
    tls = [entry[name] for name in ("terminatingTLS", "originatingTLS") if not entry[name].absent]
    if not listener.absent:
        listener.knows("envoyConfig", "name", "priority")
        if ingress:
            raise listener.fail("is for egress only")
        if http or dns:
            raise listener.fail("may not be combined with rules")
        config = listener["envoyConfig"].knows("kind", "name")
        if not home and config["kind"].text("") == "CiliumEnvoyConfig":
            raise config["kind"].fail(
                "is of a namespace, and this policy is of none: name a CiliumClusterwideEnvoyConfig"
            )
        config["name"].text()
        listener["name"].text()
        listener["priority"].number(least=1, most=100)
        return _carry("listener", listener.value, entry, tls, [])
    servers = [item.text().lower().removesuffix(".") for item in names.items()]
    if not names.absent and not servers:
        raise names.fail("must name at least one server; leave it out to allow every one")
    if others:
        return _carry("other", rules.value, entry, tls, servers)  # parsed, and closed: no proxy speaks it
    if servers and (http or dns) and not tls:
        raise names.fail("with rules needs terminatingTLS")
    if http:
        _needs_ports(rules["http"], ports, transport=True)
        return _carry("http", [http_rule(each, home) for each in http], entry, tls, servers)
    if dns:
        if ingress:
            raise rules["dns"].fail("is for egress only")
        if ports and all(each.protocol == SCTP for each in ports):
            raise rules["dns"].fail("is for TCP and UDP: DNS does not speak SCTP")
        _needs_ports(rules["dns"], ports, transport=False)
        return _carry("dns", sorted(dns_name(each) for each in dns), entry, tls, servers)
    if servers or tls:
        _needs_ports(names if servers else tls[0], ports, transport=True)
        return _carry("tls", None, entry, tls, servers)
    return None


def _needs_ports(at: Field, ports: tuple[PortMatch, ...], *, transport: bool) -> None:
    for each in ports:
        if (each.first, each.last) == (0, LAST_PORT) and not each.name:
            raise at.fail("needs ports that are numbered: not 0, not none")
        if transport and each.protocol != TCP:
            raise at.fail("works on ports of protocol TCP only; say protocol: TCP")
        if not transport and (each.first != each.last or each.protocol not in (TCP, UDP, SCTP)):
            raise at.fail("works on single ports of protocol TCP, UDP or ANY")


def _carry(parser: str, rules: Any, entry: Field, tls: list[Field], server_names: list[str]) -> L7:
    for each in tls:
        each.knows("secret", "trustedCA", "certificate", "privateKey")
        each["secret"].knows("name", "namespace")
        each["secret"]["name"].text()
    content: dict[str, Any] = {"rules": rules, "serverNames": sorted(server_names)}
    content |= {each.path.removeprefix(f"{entry.path}."): each.value for each in tls}
    return L7(parser, json.dumps({name: value for name, value in content.items() if value}, sort_keys=True))
