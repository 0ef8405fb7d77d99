"""What proxies ask of the requests of a connection, and how one request fares."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mycel.cli.policies.envoy import unserved
from mycel.envoy.http_misses import HttpRequest, Missed, missed
from mycel.policy.explain import Side
from mycel.policy.fqdn import canonical_name, selects
from mycel.policy.http_text import EVERY_REQUEST, rule_text
from mycel.policy.l7 import server_names
from mycel.policy.rules import Rule


@dataclass(frozen=True, slots=True)
class Request:
    """HTTP, or a question of DNS."""

    text: str
    http: HttpRequest | None = None
    query: str = ""


@dataclass(frozen=True, slots=True)
class Item:
    """One rule for requests. `lets` says which, `missed` how a request differs; None: nobody has asked."""

    ref: str
    lets: str
    missed: Missed | None = None


@dataclass(frozen=True, slots=True)
class Judged:
    """What a proxy does in one direction. `closed`: no proxy can serve it, so no connection comes about."""

    items: tuple[Item, ...]
    closed: str
    verdict: str  # passes, denied, depends; empty without a request
    by: tuple[str, ...]  # rules that let it through, or would if its headers are right
    nearest: Item | None

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        shown: dict[str, Any] = {"rules": [{"rule": each.ref, "lets": each.lets} for each in self.items]}
        if self.closed:
            shown["closed"] = self.closed
        if self.verdict:
            shown |= {"request": self.verdict, "by": list(self.by)}
        if self.nearest is not None and self.nearest.missed is not None:
            shown["nearest"] = {"rule": self.nearest.ref, "missed": list(self.nearest.missed.parts)}
        return shown


_NO_TLS = Missed(("TLS (what is in it is not seen)",), ())


def judge(side: Side, request: Request | None) -> Judged:
    """The rules of a direction's proxy, and a request's fate."""
    items = tuple(item for rule in side.proxied for item in _items(rule, request))
    if side.proxied_open:
        items += (Item("default allow", EVERY_REQUEST, Missed((), ())),)
    closed = next((why for rule in side.proxied if rule.l7 and (why := _closed(side, rule))), "")
    if request is None or closed:
        return Judged(items, closed, "", (), None)
    fits = [each for each in items if each.missed is not None and not each.missed.parts]
    sure = [each for each in fits if each.missed is not None and not each.missed.unknown]
    chosen = sure or fits
    verdict = "passes" if sure else "depends" if fits else "denied"
    nearest = None if fits else min(items, key=_distance, default=None)
    return Judged(items, closed, verdict, tuple(each.ref for each in chosen), nearest)


def lines(judged: Judged, request: Request | None) -> Iterator[str]:
    """The same for people."""
    if judged.closed:
        yield f"  {judged.closed}"
        return
    yield "  its requests are judged by the node's proxy, which lets through:"
    width = max((len(each.lets) for each in judged.items), default=0)
    yield from (f"    {each.lets:{width}}  {each.ref}" for each in judged.items)
    if request is None:
        return
    match judged.verdict:
        case "passes":
            yield from (f"  {request.text}: passes by {each}" for each in judged.by)
        case "depends":
            yield from (f"  {request.text}: passes by {each} if its headers are right" for each in judged.by)
            yield "    flows do not tell headers"
        case _:
            yield f"  {request.text}: denied, no rule lets it through"
            if judged.nearest is not None and judged.nearest.missed is not None:
                yield f"    nearest rule: {judged.nearest.ref}"
                yield f"    misses on {', '.join(judged.nearest.missed.parts)}"


def _items(rule: Rule, request: Request | None) -> Iterator[Item]:
    if rule.l7 is None:
        yield Item(str(rule.ref), EVERY_REQUEST, Missed((), ()) if request else None)
        return
    at = f"{rule.ref.object} {rule.section or rule.ref.field}.rules.{rule.l7.parser}"
    if names := server_names(rule.l7):
        yield Item(
            f"{rule.ref.object} {rule.section}.serverNames", f"TLS {', '.join(names)}", _NO_TLS if request else None
        )
    if rule.l7.parser not in ("http", "dns"):
        return
    for number, each in enumerate(json.loads(rule.l7.rules).get("rules", ())):
        if rule.l7.parser == "http":
            found = missed(each, request.http) if request and request.http else None
            yield Item(f"{at}[{number}]", rule_text(each), found)
        else:
            yield Item(at, f"names {each}", _name_missed(each, request))


def _name_missed(selector: str, request: Request | None) -> Missed | None:
    if request is None or not request.query:
        return None
    means = selects(selector, canonical_name(request.query))
    return Missed(() if means else (f"name {selector} (it is {request.query})",), ())


def _closed(side: Side, rule: Rule) -> str:
    return unserved(side.direction, rule.l7) if rule.l7 is not None and rule.l7.parser != "dns" else ""


def _distance(item: Item) -> int:
    if item.missed is None or item.missed is _NO_TLS:
        return 100
    return len(item.missed.parts)
