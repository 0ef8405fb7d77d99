"""The flags of `hubble observe` as filters of a request, by the rules of the stock client.

Flags come in the order in which they were typed, since `--not` turns the next one. Flags about either end
of a flow (`--pod`, `--ip`, …) make two filters, one per end; all others go into both, and equal filters are
sent once.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from mycel.api import flow_pb2 as pb
from mycel.flow import text

EVENT_TYPES = {
    "drop": 1,
    "debug": 2,
    "capture": 3,
    "trace": 4,
    "policy-verdict": 5,
    "recorder": 6,
    "trace-sock": 7,
    "l7": 129,
    "agent": 130,
}
_AGENT = 130
_TRACE = 4
AGENT_EVENTS = {
    "unspecified": 0,
    "message": 1,
    "agent-started": 2,
    "policy-updated": 3,
    "policy-deleted": 4,
    "endpoint-regenerate-success": 5,
    "endpoint-regenerate-failure": 6,
    "endpoint-created": 7,
    "endpoint-deleted": 8,
    "ipcache-upserted": 9,
    "ipcache-deleted": 10,
}

_CONFLICTS = (
    ("from-fqdn", "from-ip", "ip", "fqdn", "from-namespace", "namespace", "from-all-namespaces", "all-namespaces"),
    ("from-fqdn", "from-ip", "ip", "fqdn", "from-pod", "pod"),
    ("to-fqdn", "to-ip", "ip", "fqdn", "to-namespace", "namespace", "to-all-namespaces", "all-namespaces"),
    ("to-fqdn", "to-ip", "ip", "fqdn", "to-pod", "pod"),
    ("to-pod", "namespace", "all-namespaces"),
    ("from-pod", "namespace", "all-namespaces"),
    ("to-service", "namespace", "all-namespaces"),
    ("from-service", "namespace", "all-namespaces"),
    ("label", "from-label"),
    ("label", "to-label"),
    ("service", "from-service"),
    ("service", "to-service"),
    ("port", "to-port"),
    ("port", "from-port"),
    ("identity", "to-identity"),
    ("identity", "from-identity"),
    ("workload", "to-workload"),
    ("workload", "from-workload"),
    ("encrypted", "unencrypted"),
)


class BadFlag(ValueError):
    """A flag or a combination of flags that means nothing; the message says which."""


class Filters(NamedTuple):
    """What is sent."""

    whitelist: list[pb.FlowFilter]
    blacklist: list[pb.FlowFilter]


def build_filters(flags: Iterable[tuple[str, str]]) -> Filters:
    """Filters for (flag name, value) pairs in the order of the command line. Raises BadFlag."""
    allow, deny = _Side(), _Side()
    negated = False
    for name, value in flags:
        if name == "not":
            if negated:
                raise BadFlag("consecutive --not statements")
            negated = True
            continue
        (deny if negated else allow).add(name, value)
        negated = False
    if negated:
        raise BadFlag("trailing --not found in the arguments")
    return Filters(allow.filters(), deny.filters())


class _Side:
    """The flags of one list. The result is `left` or `right`."""

    def __init__(self) -> None:
        self._left, self._right = pb.FlowFilter(), pb.FlowFilter()
        self._flags: list[str] = []
        self._namespaces: dict[str, list[str]] = {"": [], "from": [], "to": []}

    def add(self, name: str, value: str) -> None:
        if name not in self._flags:
            self._flags.append(name)
        for group in _CONFLICTS:
            given = [flag for flag in group if flag in self._flags]
            if len(given) > 1:
                raise BadFlag(f"filters --{given[0]} and --{given[1]} cannot be combined")
        side, plain = _end(name)
        if plain in ("namespace", "all-namespaces"):
            self._namespaces[side].append(value if plain == "namespace" else "")
        elif (set_end := _ENDS.get(plain)) is not None:
            if side:
                for each in (self._left, self._right):
                    set_end(each, "source" if side == "from" else "destination", value)
            else:
                set_end(self._left, "source", value)
                set_end(self._right, "destination", value)
        else:
            for each in (self._left, self._right):
                _WHOLE[name](each, value)
        for each in (self._left, self._right):
            self._check_namespaces(each)

    def filters(self) -> list[pb.FlowFilter]:
        if not self._flags:
            return []
        for each in (self._left, self._right):
            _set_namespaces(each, "destination", self._namespaces["to"])
            _set_namespaces(each, "source", self._namespaces["from"])
        _set_namespaces(self._left, "source", self._namespaces[""])
        _set_namespaces(self._right, "destination", self._namespaces[""])
        return [self._left] if self._left == self._right else [self._left, self._right]

    def _check_namespaces(self, ff: pb.FlowFilter) -> None:
        named = [*ff.source_pod, *ff.source_service, *ff.destination_pod, *ff.destination_service]
        by_side = (
            (self._namespaces[""], named),
            (self._namespaces["from"], [*ff.source_pod, *ff.source_service]),
            (self._namespaces["to"], [*ff.destination_pod, *ff.destination_service]),
        )
        for namespaces, names in by_side:
            for namespace in namespaces:
                for name in names:
                    if (found := _namespace_of(name)) and found != namespace:
                        raise BadFlag(f"namespace conflict: {namespace!r} does not contain {name!r}")
        for pods, services in (
            (ff.source_pod, ff.source_service),
            (ff.destination_pod, ff.destination_service),
        ):
            for pod in filter(_namespace_of, pods):
                for service in services:
                    if _namespace_of(service) != _namespace_of(pod):
                        raise BadFlag(f"namespace of service {service!r} conflicts with pod {pod!r}")


def _end(name: str) -> tuple[str, str]:
    for side in ("from", "to"):
        if name.startswith(f"{side}-"):
            return side, name.removeprefix(f"{side}-")
    return "", name


def _namespace_of(name: str) -> str:
    namespace, slash, _ = name.partition("/")
    return namespace if slash else ""


def _set_namespaces(ff: pb.FlowFilter, end: str, namespaces: list[str]) -> None:
    """Put names without a namespace into each of the given ones; without names, any pod of them."""
    if not namespaces:
        return
    pods, services = getattr(ff, f"{end}_pod"), getattr(ff, f"{end}_service")
    if not pods and not services:
        pods.append("")
    for names in (pods, services):
        placed: list[str] = []
        for name in names:
            placed += [name] if "/" in name else [f"{namespace}/{name}" for namespace in namespaces]
        names[:] = placed


def _append(suffix: str) -> Callable[[pb.FlowFilter, str, str], None]:
    return lambda ff, end, value: getattr(ff, f"{end}_{suffix}").append(value)


def _set_workload(ff: pb.FlowFilter, end: str, value: str) -> None:
    kind, slash, name = value.partition("/")
    getattr(ff, f"{end}_workload").add(kind=kind if slash else "", name=name if slash else value)


def parse_identity(value: str) -> int:
    """`world` or a number. Raises BadFlag."""
    for number, name in text.RESERVED_IDENTITIES.items():
        if name == value and number:
            return number
    if value.isascii() and value.isdigit() and int(value) < 1 << 32:
        return int(value)
    names = " ".join(text.RESERVED_IDENTITIES[number] for number in sorted(text.RESERVED_IDENTITIES))
    raise BadFlag(f"invalid security identity, expected one of [{names}] or a numeric value")


_ENDS: dict[str, Callable[[pb.FlowFilter, str, str], None]] = {
    "pod": _append("pod"),
    "ip": _append("ip"),
    "port": _append("port"),
    "label": _append("label"),
    "service": _append("service"),
    "fqdn": _append("fqdn"),
    "cluster": _append("cluster_name"),
    "workload": _set_workload,
    "identity": lambda ff, end, value: getattr(ff, f"{end}_identity").append(parse_identity(value)),
}
"""Flags about an end of a flow; with from- and to- before them, about that one only."""


def _of(field: str) -> Callable[[pb.FlowFilter, str], None]:
    return lambda ff, value: getattr(ff, field).append(value)


def _set_verdict(ff: pb.FlowFilter, value: str) -> None:
    if value not in pb.Verdict.keys():  # noqa: SIM118  # an enum wrapper, not a dict
        raise BadFlag(f"invalid --verdict value: {value}")
    ff.verdict.append(pb.Verdict.Value(value))  # type: ignore[arg-type]


def _set_drop_reason(ff: pb.FlowFilter, value: str) -> None:
    if value not in pb.DropReason.keys():  # noqa: SIM118
        raise BadFlag(f"invalid --drop-reason-desc value: {value}")
    ff.drop_reason_desc.append(pb.DropReason.Value(value))  # type: ignore[arg-type]


def _set_header(ff: pb.FlowFilter, value: str) -> None:
    key, colon, rest = value.partition(":")
    if not colon:
        raise BadFlag(f"invalid http-header value {value!r}, expected name:value")
    ff.http_header.add(key=key, value=rest)


def _number(value: str, said: str) -> int:
    if not (value.isascii() and value.isdigit() and int(value) < 1 << 31):
        raise BadFlag(said)
    return int(value)


def _set_type(ff: pb.FlowFilter, value: str) -> None:
    name, colon, detail = value.partition(":")
    wanted = pb.EventTypeFilter()
    wanted.type = EVENT_TYPES.get(name) or _number(
        name, f"unable to parse type '{name}', not a known type name and no number"
    )
    if colon:
        wanted.match_sub_type = True
        points = {point: number for number, point in text.TRACE_POINTS.items()}
        known = points if wanted.type == _TRACE else AGENT_EVENTS if wanted.type == _AGENT else {}
        said = f"unable to parse event sub-type '{detail}', not a known sub-type name and no number"
        wanted.sub_type = known[detail] if detail in known else _number(detail, said)
    ff.event_type.append(wanted)


def _set_tcp_flags(ff: pb.FlowFilter, value: str) -> None:
    flags = pb.TCPFlags()
    for name in value.split(","):
        if name.upper() not in pb.TCPFlags.DESCRIPTOR.fields_by_name:
            raise BadFlag(f"unknown tcp flag: {name}")
        setattr(flags, name.upper(), True)
    ff.tcp_flags.append(flags)


def _set_ip_version(ff: pb.FlowFilter, value: str) -> None:
    match value.lower():
        case "4" | "v4" | "ipv4" | "ip4":
            ff.ip_version.append(pb.IPv4)
        case "6" | "v6" | "ipv6" | "ip6":
            ff.ip_version.append(pb.IPv6)
        case _:
            ff.ip_version.append(pb.IP_NOT_USED)


def _set_direction(ff: pb.FlowFilter, value: str) -> None:
    directions = {"ingress": pb.INGRESS, "egress": pb.EGRESS}
    if value.lower() not in directions:
        raise BadFlag(f"{value.lower()}: invalid traffic direction, expected ingress or egress")
    ff.traffic_direction.append(directions[value.lower()])


def _set_trace_id(ff: pb.FlowFilter, value: str) -> None:
    number = _number(value, f"invalid --ip-trace-id value: {value}")
    if not number:
        raise BadFlag("invalid --ip-trace-id value; must be greater than 0")
    ff.ip_trace_id.append(number)


_WHOLE: dict[str, Callable[[pb.FlowFilter, str], None]] = {
    "uuid": _of("uuid"),
    "snat-ip": _of("source_ip_xlated"),
    "trace-id": _of("trace_id"),
    "ip-trace-id": _set_trace_id,
    "verdict": _set_verdict,
    "drop-reason-desc": _set_drop_reason,
    "http-status": _of("http_status_code"),
    "http-method": _of("http_method"),
    "http-path": _of("http_path"),
    "http-url": _of("http_url"),
    "http-header": _set_header,
    "type": _set_type,
    "protocol": _of("protocol"),
    "node-name": _of("node_name"),
    "node-label": _of("node_labels"),
    "tcp-flags": _set_tcp_flags,
    "traffic-direction": _set_direction,
    "ipv4": lambda ff, _: ff.ip_version.append(pb.IPv4),
    "ipv6": lambda ff, _: ff.ip_version.append(pb.IPv6),
    "ip-version": _set_ip_version,
    "interface": lambda ff, value: ff.interface.append(pb.NetworkInterface(name=value)),
    "encrypted": lambda ff, _: ff.encrypted.append(True),
    "unencrypted": lambda ff, _: ff.encrypted.append(False),
    "cel-expression": lambda ff, value: ff.experimental.cel_expression.append(value),
}
"""Flags about the flow as a whole."""
