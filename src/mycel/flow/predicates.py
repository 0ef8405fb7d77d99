"""Every field of `flow.FlowFilter` as a predicate over a `flow.Flow`.

The semantics are those of Hubble's server, field by field: of a list one value is enough, an absent field
of the flow matches nothing unless said otherwise.
"""

import ipaddress
import re
from collections.abc import Callable, Iterable, Sequence
from urllib.parse import unquote, urlsplit

from mycel.api import flow_pb2 as pb
from mycel.flow.errors import FilterError
from mycel.flow.patterns import dns_names, node_names, regular_expression
from mycel.flow.selectors import label_matcher

Predicate = Callable[[pb.Flow], bool]
Names = Sequence[str]

_L7_EVENT = 129
_L4 = {
    "icmp": ("ICMPv4", "ICMPv6"),
    "icmpv4": ("ICMPv4",),
    "icmpv6": ("ICMPv6",),
    "tcp": ("TCP",),
    "udp": ("UDP",),
    "sctp": ("SCTP",),
    "vrrp": ("VRRP",),
    "igmp": ("IGMP",),
}
_L7 = ("dns", "http", "kafka")
_FLAGS = ("FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR", "NS")


def addresses(field: str, wanted: Names, get: Callable[[pb.Flow], str]) -> Predicate:
    """Exact addresses and prefixes."""
    exact: set[str] = set()
    networks: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
    for text in wanted:
        try:
            if "/" in text:
                networks.append(ipaddress.ip_network(text, strict=False))
            else:
                exact.add(str(ipaddress.ip_address(text)))
        except ValueError as problem:
            raise FilterError(f"{field}: {text!r} is neither an address nor a prefix") from problem

    def matches(flow: pb.Flow) -> bool:
        address = get(flow)
        if address in exact:
            return True
        if not networks or not address:
            return False
        parsed = ipaddress.ip_address(address)
        return any(parsed in network for network in networks)

    return matches


def namespaced(field: str, wanted: Names, get: Callable[[pb.Flow], tuple[str, str]]) -> Predicate:
    """`namespace/prefix`, `prefix` (in namespace default), `/prefix` (in any), `namespace/` (any name)."""
    pairs: list[tuple[str, str]] = []
    for text in wanted:
        if not text:
            raise FilterError(f"{field}: a name is empty: write namespace/name, namespace/ or name")
        namespace, slash, prefix = text.partition("/")
        pairs.append((namespace, prefix) if slash else ("default", text))

    def matches(flow: pb.Flow) -> bool:
        namespace, name = get(flow)
        if not namespace and not name:
            return False
        return any(name.startswith(prefix) and where in ("", namespace) for where, prefix in pairs)

    return matches


def protocols(field: str, wanted: Names) -> Predicate:
    """Names of L4 and L7 protocols."""
    l4: set[str] = set()
    l7: set[str] = set()
    for name in wanted:
        if (messages := _L4.get(name.lower())) is not None:
            l4.update(messages)
        elif name.lower() in _L7:
            l7.add(name.lower())
        else:
            raise FilterError(f"{field}: unknown protocol {name!r}: one of {', '.join([*_L4, *_L7])}")
    return lambda flow: flow.l4.WhichOneof("protocol") in l4 or flow.l7.WhichOneof("record") in l7


def port_numbers(field: str, wanted: Names) -> frozenset[int]:
    """Decimal ports of a filter."""
    for text in wanted:
        if not re.fullmatch(r"[0-9]{1,6}", text) or int(text) > 0xFFFF:
            raise FilterError(f"{field}: {text!r} is not a port")
    return frozenset(map(int, wanted))


def event_types(wanted: Sequence[pb.EventTypeFilter]) -> Predicate:
    """Type, and sub-type where asked for; type 0 is any."""

    def matches(flow: pb.Flow) -> bool:
        seen = flow.event_type
        return flow.HasField("event_type") and any(
            want.type in (0, seen.type) and (not want.match_sub_type or want.sub_type == seen.sub_type)
            for want in wanted
        )

    return matches


def replies(wanted: Iterable[bool]) -> Predicate:
    """An unknown direction is no reply for drops, and neither for everything else."""
    values = frozenset(wanted)
    return lambda flow: (
        flow.is_reply.value in values if flow.HasField("is_reply") or flow.verdict == pb.DROPPED else False
    )


def tcp_flags(wanted: Sequence[pb.TCPFlags]) -> Predicate:
    """Every flag that is asked for must be set; others may be."""
    sets = [[name for name in _FLAGS if getattr(flags, name)] for flags in wanted]

    def matches(flow: pb.Flow) -> bool:
        if flow.l4.WhichOneof("protocol") != "TCP" or not flow.l4.TCP.HasField("flags"):
            return False
        return any(all(getattr(flow.l4.TCP.flags, name) for name in names) for names in sets)

    return matches


def workloads(wanted: Sequence[pb.Workload], get: Callable[[pb.Flow], pb.Endpoint]) -> Predicate:
    """Kind and name, of which either may be empty."""
    return lambda flow: any(
        want.name in ("", seen.name) and want.kind in ("", seen.kind) for seen in get(flow).workloads for want in wanted
    )


def interfaces(wanted: Sequence[pb.NetworkInterface]) -> Predicate:
    """Index and name, of which either may be empty."""
    return lambda flow: (
        flow.HasField("interface")
        and any(want.index in (0, flow.interface.index) and want.name in ("", flow.interface.name) for want in wanted)
    )


def fqdns(field: str, wanted: Names, get: Callable[[pb.Flow], Iterable[str]]) -> Predicate:
    """Patterns of DNS names."""
    matches = dns_names(field, wanted)
    return lambda flow: any(map(matches, get(flow)))


def dns_queries(field: str, wanted: Names) -> Predicate:
    """Expressions over the question of a DNS message."""
    expressions = [regular_expression(field, text) for text in wanted]
    return lambda flow: flow.l7.HasField("dns") and any(matches(flow.l7.dns.query) for matches in expressions)


def nodes(field: str, wanted: Names) -> Predicate:
    """Patterns of node names."""
    matches = node_names(field, wanted)
    return lambda flow: matches(flow.node_name)


def labels(field: str, wanted: Names, get: Callable[[pb.Flow], Iterable[str]]) -> Predicate:
    """Label selectors."""
    matches = label_matcher(field, wanted)
    return lambda flow: matches(get(flow))


def require_l7_events(field: str, types: Sequence[pb.EventTypeFilter]) -> None:
    """A filter on HTTP that excludes L7 events can never match: say so."""
    if types and not any(want.type == _L7_EVENT for want in types):
        raise FilterError(f"{field}: filtering by HTTP needs the event type filter to include 'l7'")


def http_status(field: str, wanted: Names) -> Predicate:
    """`404`, or the start of one: `4+`, `40+`."""
    for text in wanted:
        if not re.fullmatch(r"[1-5][0-9]{2}|[1-5][0-9]?\+", text):
            raise FilterError(f"{field}: {text!r} is not a status code or a prefix like 4+ or 40+")
    exact = {text for text in wanted if not text.endswith("+")}
    prefixes = tuple(text[:-1] for text in wanted if text.endswith("+"))

    def matches(flow: pb.Flow) -> bool:
        if not flow.l7.HasField("http") or not flow.l7.http.code:
            return False
        code = f"{flow.l7.http.code:03d}"
        return code in exact or code.startswith(prefixes)

    return matches


def http_methods(wanted: Names) -> Predicate:
    """Methods, whatever the case."""
    methods = {text.lower() for text in wanted}
    return lambda flow: bool(flow.l7.http.method) and flow.l7.http.method.lower() in methods


def http_urls(field: str, wanted: Names, *, path_only: bool) -> Predicate:
    """Expressions over the whole URL or its decoded path."""
    expressions = [regular_expression(field, text) for text in wanted]

    def matches(flow: pb.Flow) -> bool:
        url = flow.l7.http.url
        text = _path(url) if path_only else url or None
        return text is not None and any(expression(text) for expression in expressions)

    return matches


def _path(url: str) -> str | None:
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    return unquote(parts.path) if url.startswith("/") or parts.scheme else None


def http_headers(wanted: Sequence[pb.HTTPHeader]) -> Predicate:
    """Exact key and value."""
    pairs = {(header.key, header.value) for header in wanted}
    return lambda flow: any((header.key, header.value) in pairs for header in flow.l7.http.headers)
