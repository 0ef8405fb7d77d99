"""Answers about servers as text: `hubble status`, `list nodes`, `list namespaces`, `watch peers`."""

import json
from collections.abc import Iterable, Mapping

from mycel.api import observer_pb2, peer_pb2, relay_pb2
from mycel.observe.protojson import to_json, to_plain
from mycel.observe.table import layout
from mycel.observe.times import format_duration

_NONE = "N/A"
_STATES = {
    relay_pb2.NODE_CONNECTED: "Connected",
    relay_pb2.NODE_UNAVAILABLE: "Unavailable",
    relay_pb2.NODE_GONE: "Gone",
    relay_pb2.NODE_ERROR: "Error",
}
_NAMES = (
    "NUM FLOWS",
    "MAX FLOWS",
    "SEEN FLOWS",
    "FLOWS PER SECOND",
    "UPTIME",
    "NUM CONNECTED NODES",
    "NUM UNAVAIL. NODES",
    "VERSION",
)
_SECOND_NS = 1_000_000_000
Status = observer_pb2.ServerStatusResponse


def total(answers: Mapping[str, Status], problems: Mapping[str, str]) -> Status:
    """Many nodes' status as one, as a relay sums them up."""
    if len(answers) == 1 and not problems:
        return next(iter(answers.values()))
    whole = Status(
        num_flows=sum(each.num_flows for each in answers.values()),
        max_flows=sum(each.max_flows for each in answers.values()),
        seen_flows=sum(each.seen_flows for each in answers.values()),
        uptime_ns=min((each.uptime_ns for each in answers.values()), default=0),
        flows_rate=sum(each.flows_rate for each in answers.values()),
        unavailable_nodes=sorted(problems),
        version=next((each.version for each in answers.values()), ""),
    )
    whole.num_connected_nodes.value = len(answers)
    whole.num_unavailable_nodes.value = len(problems)
    return whole


def status_text(status: Status, *, output: str) -> str | None:
    """`hubble status` without its first line; None for a form that does not exist."""
    connected = str(status.num_connected_nodes.value) if status.HasField("num_connected_nodes") else _NONE
    missing = str(status.num_unavailable_nodes.value) if status.HasField("num_unavailable_nodes") else _NONE
    rate = f"{status.flows_rate:.2f}" if status.flows_rate > 0 else _NONE
    uptime = format_duration(status.uptime_ns)
    held, room, seen = (f"{number:,}" for number in (status.num_flows, status.max_flows, status.seen_flows))
    match output:
        case "compact":
            return _compact(status, rate=rate)
        case "dict":
            values = (held, room, seen, rate, uptime, connected, missing, status.version)
            return "".join(f"{name:>19}: {value}\n" for name, value in zip(_NAMES, values, strict=True))
        case "tab" | "table":
            header = [name.replace("UNAVAIL.", "UNAVAILABLE") for name in _NAMES]
            return layout([header, [held, room, seen, rate, uptime, connected, missing, status.version]])
        case "json" | "JSON" | "jsonpb":
            return to_json(status) + "\n"
        case _:
            return None


def _compact(status: Status, *, rate: str) -> str:
    share = f" ({status.num_flows / status.max_flows * 100:.2f}%)" if status.max_flows else ""
    lines = [f"Current/Max Flows: {status.num_flows:,}/{status.max_flows:,}{share}"]
    if rate == _NONE and status.uptime_ns:
        rate = f"{status.seen_flows / (status.uptime_ns / _SECOND_NS):.2f}"
    lines.append(f"Flows/s: {rate}")
    missing = status.num_unavailable_nodes.value
    if status.HasField("num_connected_nodes"):
        connected = status.num_connected_nodes.value
        of = f"/{connected + missing}" if status.HasField("num_unavailable_nodes") else ""
        lines.append(f"Connected Nodes: {connected}{of}")
    if missing:
        lines.append(f"Unavailable Nodes: {missing}")
        names = sorted(status.unavailable_nodes)
        if names and missing > len(names):
            names.append(f"and {missing - len(names)} more...")
        lines += [f"  - {name}" for name in names]
    return "\n".join(lines) + "\n"


def nodes_text(nodes: Iterable[observer_pb2.Node], problems: Mapping[str, str], *, output: str) -> str | None:
    """`hubble list nodes`: those that answered and those that did not."""
    silent = [observer_pb2.Node(name=name, state=relay_pb2.NODE_UNAVAILABLE) for name in problems]
    listed = sorted([*nodes, *silent], key=lambda node: node.name)
    match output:
        case "json":
            return json.dumps([to_plain(node) for node in listed], indent=2) + "\n"
        case "table" | "wide":
            wide = output == "wide"
            header = ["NAME", "STATUS", "AGE", "FLOWS/S", "CURRENT/MAX-FLOWS"]
            return layout(
                [header + (["VERSION", "ADDRESS", "TLS"] if wide else []), *(_node(node, wide=wide) for node in listed)]
            )
        case _:
            return None


def _node(node: observer_pb2.Node, *, wide: bool) -> list[str]:
    uptime_s = (node.uptime_ns + _SECOND_NS // 2) // _SECOND_NS
    age, rate = _NONE, _NONE
    if uptime_s:
        age, rate = format_duration(uptime_s * _SECOND_NS), f"{node.seen_flows / uptime_s:.2f}"
    held = _NONE
    if node.max_flows:
        held = f"{node.num_flows}/{node.max_flows} ({node.num_flows / node.max_flows * 100:6.2f}%)"
    row = [node.name, _STATES.get(node.state, "Unknown"), age, rate, held]
    if wide:
        tls = ("Enabled" if node.tls.enabled else "Disabled") if node.HasField("tls") else _NONE
        row += [node.version or _NONE, node.address, tls]
    return row


def namespaces_text(namespaces: Iterable[tuple[str, str]], *, output: str) -> str | None:
    """`hubble list namespaces` for (cluster, namespace) pairs."""
    match output:
        case "json":
            plain = [{"cluster": cluster, "namespace": namespace} for cluster, namespace in namespaces]
            return json.dumps(plain, indent=2) + "\n"
        case "table":
            return layout([["NAMESPACE"], *([namespace] for _, namespace in namespaces)])
        case "wide":
            rows = [[namespace, cluster] if cluster else [namespace] for cluster, namespace in namespaces]
            return layout([["NAMESPACE", "CLUSTER"], *rows])
        case _:
            return None


def connected_text(change: peer_pb2.ChangeNotification) -> str:
    """One line of `hubble watch peers`."""
    tls = f" (TLS.ServerName: {change.tls.server_name})" if change.HasField("tls") else ""
    return f"{peer_pb2.ChangeNotificationType.Name(change.type):<12} {change.address} {change.name}{tls}"
