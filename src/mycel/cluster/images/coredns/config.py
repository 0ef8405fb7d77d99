"""What a Corefile means: one `Server` per zone and port, with the settings of its plugins. Pure.

A plugin we do not have is refused with its line: a DNS server that silently ignores half of its configuration answers
wrongly, which is worse than not starting.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from mycel.cluster.images.coredns.corefile import CorefileError, Directive, Line, parse_corefile
from mycel.kit.dns import DnsFormatError, IPAddress, name_labels

_IGNORED = frozenset({"errors", "loop", "reload", "loadbalance", "bufsize", "metadata", "prometheus", "cancel"})
"""Accepted without effect: errors are always logged, answers are always rotated, a changed file restarts the pod."""


@dataclass(frozen=True, slots=True)
class Fallthrough:
    """For which zones an unknown name goes on to the next plugin; None: for none."""

    zones: tuple[str, ...] | None = None

    def covers(self, name: str) -> bool:
        """Whether an unknown `name` (lower case) is for the next plugin."""
        return self.zones is not None and any(within(name, zone) for zone in self.zones)


@dataclass(frozen=True, slots=True)
class Kubernetes:
    """Settings of the plugin kubernetes."""

    zones: tuple[str, ...] = ("cluster.local.",)
    pods: str = "disabled"
    ttl_s: int = 5
    namespaces: frozenset[str] = frozenset()
    endpoint_pod_names: bool = False
    fallthrough: Fallthrough = Fallthrough()
    endpoint: str = ""
    kubeconfig: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Upstream:
    """One DNS server to ask."""

    host: str
    port: int = 53


@dataclass(frozen=True, slots=True)
class Forward:
    """Settings of the plugin forward, for one zone."""

    zone: str
    upstreams: tuple[Upstream, ...]
    excepted: tuple[str, ...] = ()
    policy: str = "random"
    force_tcp: bool = False
    max_concurrent: int = 1000
    timeout_s: float = 2.0


@dataclass(frozen=True, slots=True)
class Hosts:
    """Settings and inline entries of the plugin hosts."""

    file: str = ""
    zones: tuple[str, ...] = (".",)
    entries: Mapping[str, tuple[IPAddress, ...]] = field(default_factory=dict[str, tuple[IPAddress, ...]])
    ttl_s: int = 3600
    reverse: bool = True
    fallthrough: Fallthrough = Fallthrough()


@dataclass(frozen=True, slots=True)
class Cache:
    """Settings of the plugin cache: longest lives and numbers of entries."""

    zones: tuple[str, ...] = (".",)
    success_ttl_s: int = 3600
    denial_ttl_s: int = 1800
    capacity: int = 9984


@dataclass(frozen=True, slots=True)
class Http:
    """Where health or ready is served."""

    host: str
    port: int
    lameduck_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Server:
    """One zone on one port and its plugins."""

    zone: str
    port: int
    addresses: tuple[str, ...] = ()
    local: bool = False
    log: bool = False
    health: Http | None = None
    ready: Http | None = None
    hosts: Hosts | None = None
    kubernetes: Kubernetes | None = None
    forwards: tuple[Forward, ...] = ()
    cache: Cache | None = None


def within(name: str, zone: str) -> bool:
    """Whether a name lies in (or is) a zone; both in lower case with final dots."""
    return zone == "." or name == zone or name.endswith("." + zone)


def configure(
    text: str, *, environment: Mapping[str, str], read_file: Callable[[str], str], default_port: int = 53
) -> tuple[Server, ...]:
    """The servers a Corefile asks for. `read_file` reads resolv.conf-like files. Raises CorefileError."""
    servers: list[Server] = []
    taken: dict[tuple[str, int], int] = {}
    for block in parse_corefile(text, environment):
        for written in block.keys:
            for zone, port in _zone_and_port(written, block.line, default_port):
                if (zone, port) in taken:
                    where = taken[zone, port]
                    raise CorefileError(block.line, f"zone {zone} on port {port} is served by line {where} already")
                taken[zone, port] = block.line
                servers.append(_server(zone, port, block.directives, read_file))
    if not servers:
        raise CorefileError(1, "there is no server block: nothing would be answered")
    return tuple(servers)


def _zone_and_port(written: str, line: int, default_port: int) -> list[tuple[str, int]]:
    scheme, mark, rest = written.rpartition("://")
    if mark and scheme != "dns":
        raise CorefileError(line, f"{written}: only plain DNS is served, not {scheme}")
    name, colon, port = rest.rpartition(":")
    if not colon or not port.isdecimal():
        name, port = rest, str(default_port)
    if not 0 < int(port) < 65536:
        raise CorefileError(line, f"{written}: {port} is no port")
    return [(zone, int(port)) for zone in _zones([name or "."], line)]


def _zones(written: Sequence[str], line: int) -> tuple[str, ...]:
    """Zones in lower case with final dots; an address with a prefix becomes its reverse zones."""
    zones: list[str] = []
    for one in written:
        if re.fullmatch(r"[0-9a-fA-F.:]+/\d+", one):
            zones += _reverse_zones(one, line)
            continue
        try:
            name_labels(one)
        except DnsFormatError as exc:
            raise CorefileError(line, f"{one!r} is no zone: {exc}") from exc
        zones.append(one.rstrip(".").lower() + ".")
    return tuple(zones)


def _reverse_zones(written: str, line: int) -> list[str]:
    try:
        network = ipaddress.ip_network(written, strict=False)
    except ValueError as exc:
        raise CorefileError(line, f"{written!r} is no network: {exc}") from exc
    step = 8 if network.version == 4 else 4
    whole = -(-network.prefixlen // step) * step
    found: list[str] = []
    for part in network.subnets(new_prefix=whole):
        labels = part.network_address.reverse_pointer.split(".")
        found.append(".".join(labels[(part.max_prefixlen - whole) // step :]) + ".")
    return found


def _server(zone: str, port: int, directives: Sequence[Directive], read_file: Callable[[str], str]) -> Server:
    settings: dict[str, object] = {}
    forwards: list[Forward] = []
    for one in directives:
        if one.name in _IGNORED:
            continue
        if one.name == "forward":
            forwards.append(_forward(one, read_file))
            continue
        reader = _READERS.get(one.name)
        if reader is None:
            known = ", ".join(sorted([*_READERS, *_IGNORED, "forward"]))
            raise CorefileError(one.line, f"plugin {one.name!r} is not supported here (supported: {known})")
        place = "addresses" if one.name == "bind" else one.name
        if place in settings:
            raise CorefileError(one.line, f"plugin {one.name!r} appears twice in one server block")
        settings[place] = reader(one, zone)
    return Server(zone, port, forwards=tuple(forwards), **settings)  # type: ignore[arg-type]


def _flag(one: Directive, _zone: str) -> bool:
    return True


def _bind(one: Directive, _zone: str) -> tuple[str, ...]:
    for address in one.arguments:
        try:
            ipaddress.ip_address(address)
        except ValueError as exc:
            raise CorefileError(
                one.line, f"bind: {address!r} is no address; names of interfaces are not taken"
            ) from exc
    return one.arguments


def _http(default_port: int) -> Callable[[Directive, str], Http]:
    def read(one: Directive, _zone: str) -> Http:
        host, _, port = (one.arguments[0] if one.arguments else f":{default_port}").rpartition(":")
        if not port.isdecimal():
            raise CorefileError(one.line, f"{one.name}: {one.arguments[0]!r} is not [ADDRESS]:PORT")
        lameduck_s = 0.0
        for line in one.block:
            if line.words[0] == "lameduck" and len(line.words) == 2:
                lameduck_s = _seconds(line.words[1], line.line)
            elif line.words[0] != "monitor":
                raise _unknown(one, line)
        return Http(host.strip("[]"), int(port), lameduck_s)

    return read


def _kubernetes(one: Directive, zone: str) -> Kubernetes:
    zones = _zones(one.arguments, one.line) if one.arguments else (zone,)
    found: dict[str, object] = {"zones": zones}
    for line in one.block:
        match line.words:
            case ("pods", ("disabled" | "insecure" | "verified") as mode):
                found["pods"] = mode
            case ("ttl", seconds):
                found["ttl_s"] = _number(seconds, line.line, most=3600)
            case ("fallthrough", *zones_):
                found["fallthrough"] = Fallthrough(_zones(zones_ or ["."], line.line))
            case ("namespaces", *spaces) if spaces:
                found["namespaces"] = frozenset(spaces)
            case ("endpoint_pod_names",):
                found["endpoint_pod_names"] = True
            case ("endpoint", url):
                found["endpoint"] = url
            case ("kubeconfig", *parts) if 1 <= len(parts) <= 2:
                found["kubeconfig"] = tuple(parts)
            case ("noendpoints" | "labels" | "namespace_labels" | "tls" | "ignore" | "transfer" | "upstream", *_):
                raise CorefileError(line.line, f"kubernetes: option {line.words[0]!r} is not supported here")
            case _:
                raise _unknown(one, line)
    return Kubernetes(**found)  # type: ignore[arg-type]


def _forward(one: Directive, read_file: Callable[[str], str]) -> Forward:
    if len(one.arguments) < 2:
        raise CorefileError(one.line, "forward: expected a zone and at least one upstream")
    (zone,) = _zones(one.arguments[:1], one.line)[:1]
    upstreams = [found for written in one.arguments[1:] for found in _upstreams(written, one.line, read_file)]
    found: dict[str, object] = {}
    for line in one.block:
        match line.words:
            case ("except", *zones) if zones:
                found["excepted"] = _zones(zones, line.line)
            case ("policy", ("random" | "round_robin" | "sequential") as policy):
                found["policy"] = policy
            case ("force_tcp",):
                found["force_tcp"] = True
            case ("max_concurrent", number):
                found["max_concurrent"] = _number(number, line.line, most=1_000_000)
            case ("prefer_udp",) | ("expire" | "max_fails" | "health_check" | "failfast_all_unhealthy_upstreams", *_):
                continue
            case _:
                raise _unknown(one, line)
    return Forward(zone, tuple(upstreams), **found)  # type: ignore[arg-type]


def _upstreams(written: str, line: int, read_file: Callable[[str], str]) -> list[Upstream]:
    if written.startswith("/"):
        try:
            text = read_file(written)
        except OSError as exc:
            raise CorefileError(line, f"forward: cannot read {written}: {exc.strerror}") from exc
        servers = [row.split()[1] for row in text.splitlines() if re.match(r"nameserver\s+\S", row)]
        return [Upstream(_address(one.partition("%")[0], line)) for one in servers]
    scheme, mark, rest = written.rpartition("://")
    if mark and scheme != "dns":
        raise CorefileError(line, f"forward: {written}: only plain DNS is spoken, not {scheme}")
    if match := re.fullmatch(r"\[(.+)\](?::(\d+))?|([^:]+):(\d+)", rest):
        return [Upstream(_address(match[1] or match[3], line), int(match[2] or match[4] or 53))]
    return [Upstream(_address(rest, line))]


def _address(text: str, line: int) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError as exc:
        raise CorefileError(line, f"forward: {text!r} is neither an address nor a file") from exc


def parse_hosts(rows: Sequence[tuple[str, ...]]) -> dict[str, tuple[IPAddress, ...]]:
    """Entries of a hosts file, words per line: name → addresses. Lines that are none are skipped."""
    entries: dict[str, list[IPAddress]] = {}
    for words in rows:
        try:
            address = ipaddress.ip_address(words[0].partition("%")[0])
        except ValueError:
            continue
        for name in words[1:]:
            entries.setdefault(name.rstrip(".").lower() + ".", []).append(address)
    return {name: tuple(found) for name, found in entries.items()}


def _hosts(one: Directive, zone: str) -> Hosts:
    file, zones = "/etc/hosts", one.arguments
    if one.arguments and "/" in one.arguments[0]:
        file, zones = one.arguments[0], one.arguments[1:]
    found: dict[str, object] = {"zones": _zones(zones, one.line) if zones else (zone,)}
    inline: list[tuple[str, ...]] = []
    for line in one.block:
        match line.words:
            case ("ttl", seconds):
                found["ttl_s"] = _number(seconds, line.line, most=65535)
            case ("no_reverse",):
                found["reverse"] = False
            case ("fallthrough", *zones_):
                found["fallthrough"] = Fallthrough(_zones(zones_ or ["."], line.line))
            case ("reload", _):
                continue
            case (first, _, *_) if re.match(r"[0-9a-fA-F]*[.:]", first):
                inline.append(line.words)
            case _:
                raise _unknown(one, line)
    if inline and not one.arguments:
        file = ""
    return Hosts(file=file, entries=parse_hosts(inline), **found)  # type: ignore[arg-type]


def _cache(one: Directive, zone: str) -> Cache:
    words = list(one.arguments)
    found: dict[str, object] = {}
    if words and words[0].isdecimal():
        seconds = _number(words.pop(0), one.line, most=86400)
        found = {"success_ttl_s": seconds, "denial_ttl_s": seconds}
    for line in one.block:
        match line.words:
            case ("success" | "denial" as kind, capacity, *rest):
                found["capacity"] = _number(capacity, line.line, most=10_000_000)
                if rest:
                    found[f"{kind}_ttl_s"] = _number(rest[0], line.line, most=86400)
            case ("prefetch" | "serve_stale" | "servfail" | "disable" | "keepttl", *_):
                continue
            case _:
                raise _unknown(one, line)
    return Cache(zones=_zones(words, one.line) if words else (zone,), **found)  # type: ignore[arg-type]


def _unknown(one: Directive, line: Line) -> CorefileError:
    return CorefileError(line.line, f"{one.name}: option {' '.join(line.words)!r} is not known")


def _number(text: str, line: int, *, most: int) -> int:
    if not text.isdecimal() or int(text) > most:
        raise CorefileError(line, f"{text!r} is no number between 0 and {most}")
    return int(text)


def _seconds(text: str, line: int) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m)", text)
    if match is None:
        raise CorefileError(line, f"{text!r} is no duration such as 5s")
    return float(match[1]) * {"ms": 0.001, "s": 1.0, "m": 60.0}[match[2]]


_READERS: Mapping[str, Callable[[Directive, str], object]] = {
    "bind": _bind,
    "cache": _cache,
    "health": _http(8080),
    "hosts": _hosts,
    "kubernetes": _kubernetes,
    "local": _flag,
    "log": _flag,
    "ready": _http(8181),
}
