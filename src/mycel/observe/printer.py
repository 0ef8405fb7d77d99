"""Responses of GetFlows as text: the four forms of the stock client of 1.19, character for character.

Everything that comes from flows is stripped of control characters that a terminal would obey; colours are
put on after.
"""

import json
from collections.abc import Callable
from enum import StrEnum
from typing import NamedTuple

from mycel.api import flow_pb2 as pb
from mycel.api import observer_pb2, relay_pb2
from mycel.flow import text
from mycel.observe.protojson import to_json
from mycel.observe.table import layout
from mycel.observe.times import format_time

_DRAW = {"red": "31", "green": "32", "yellow": "33", "magenta": "35", "cyan": "36"}
_POLICY_VERDICT = 5
_NODE_NAMES_LENGTH = 50
_RULE = "------------\n"
_POINTS = {
    pb.SOCK_XLATE_POINT_PRE_DIRECTION_FWD: "pre-xlate-fwd",
    pb.SOCK_XLATE_POINT_POST_DIRECTION_FWD: "post-xlate-fwd",
    pb.SOCK_XLATE_POINT_PRE_DIRECTION_REV: "pre-xlate-rev",
    pb.SOCK_XLATE_POINT_POST_DIRECTION_REV: "post-xlate-rev",
}
_VERDICT_COLORS = {
    pb.FORWARDED: "green",
    pb.REDIRECTED: "green",
    pb.DROPPED: "red",
    pb.ERROR: "red",
    pb.AUDIT: "yellow",
    pb.TRACED: "yellow",
    pb.TRANSLATED: "yellow",
}


class Output(StrEnum):
    """Forms of output."""

    COMPACT = "compact"
    DICT = "dict"
    TABLE = "table"
    JSON = "jsonpb"
    LEGACY_JSON = "legacy-json"


class Style(NamedTuple):
    """How to print."""

    output: Output = Output.COMPACT
    time_format: str = "StampMilli"
    translate_addresses: bool = True
    node_name: bool = False
    policy_names: bool = False
    color: bool = False
    debug: bool = False


def enum_name(name: Callable[[int], str], number: int) -> str:
    """The name of an enum value; an unknown one is its number."""
    try:
        return name(number)
    except ValueError:
        return str(number)


def clean(value: str) -> str:
    """Text that a terminal shows and does not obey."""
    return value.replace("\x1b", "^[").replace("\r", "\\r")


def event_type(flow: pb.Flow) -> str:
    """`to-endpoint`, `Policy denied`, `policy-verdict:L3-L4 EGRESS`, `dns-request proxy`, …"""
    if flow.HasField("l7"):
        record = flow.l7.WhichOneof("record") or "l7"
        kind = enum_name(pb.L7FlowType.Name, flow.l7.type).lower()
        return f"{record}-{kind}" + (f" {flow.l7.dns.observation_source}" if record == "dns" else "")
    seen = flow.event_type
    match seen.type:
        case 1:
            return text.drop_reason(seen.sub_type & 0xFF)
        case 3:
            return enum_name(pb.DebugCapturePoint.Name, flow.debug_capture_point)
        case 4:
            return text.TRACE_POINTS.get(seen.sub_type & 0xFF, f"{seen.sub_type & 0xFF}")
        case 5:
            match_type = text.POLICY_MATCHES.get(flow.policy_match_type, "unknown")
            direction = enum_name(pb.TrafficDirection.Name, flow.traffic_direction)
            return f"policy-verdict:{match_type} {direction}"
        case 7:
            point = flow.sock_xlate_point
            return _POINTS.get(point) or enum_name(pb.SocketTranslationPoint.Name, point)
        case _:
            return "UNKNOWN"


def _ports(flow: pb.Flow) -> tuple[int, int]:
    match flow.l4.WhichOneof("protocol"):
        case "TCP":
            return flow.l4.TCP.source_port, flow.l4.TCP.destination_port
        case "UDP":
            return flow.l4.UDP.source_port, flow.l4.UDP.destination_port
        case "SCTP":
            return flow.l4.SCTP.source_port, flow.l4.SCTP.destination_port
        case _:
            return 0, 0


def _policies(flow: pb.Flow) -> str:
    allowed = flow.verdict in (pb.FORWARDED, pb.REDIRECTED)
    match flow.traffic_direction:
        case pb.EGRESS:
            policies = flow.egress_allowed_by if allowed else flow.egress_denied_by
        case pb.INGRESS:
            policies = flow.ingress_allowed_by if allowed else flow.ingress_denied_by
        case _:
            return ""
    named = (each for each in policies if each.name and each.kind)
    names = dict.fromkeys(f"{'/'.join(filter(None, (each.namespace, each.name)))} ({each.kind})" for each in named)
    return f" BY {', '.join(names)}" if names else ""


class Printer:
    """Turns responses into text for stdout and stderr. A table is complete only after `finish`."""

    def __init__(self, style: Style, *, out: Callable[[str], None], error: Callable[[str], None]) -> None:
        self._style = style
        self._out = out
        self._error = error
        self._printed = 0
        self._rows: list[list[str]] = []

    def write(self, response: observer_pb2.GetFlowsResponse) -> None:
        """Print one response of any kind."""
        match response.WhichOneof("response_types"):
            case "flow":
                self._flow(response)
            case "lost_events":
                self._lost(response)
            case "node_status":
                self._node_status(response)
            case _:
                pass

    def finish(self) -> None:
        """Print what had to wait for the widths of all rows."""
        if self._rows:
            header = ["TIMESTAMP", "SOURCE", "DESTINATION", "TYPE", "VERDICT", "SUMMARY"]
            if self._style.node_name:
                header.insert(1, "NODE")
            self._out(layout([header, *self._rows]))
            self._rows.clear()

    def _flow(self, response: observer_pb2.GetFlowsResponse) -> None:
        flow, style = response.flow, self._style
        match style.output:
            case Output.JSON:
                self._out(to_json(response) + "\n")
            case Output.LEGACY_JSON:
                self._out(to_json(flow) + "\n")
            case Output.COMPACT:
                self._out(self._compact(flow))
            case Output.TABLE | Output.DICT:
                source, destination = self._hosts(flow)
                self._record(
                    time=self._time(flow),
                    node=clean(flow.node_name),
                    fields=[
                        ("SOURCE", source),
                        ("DESTINATION", destination),
                        ("TYPE", clean(event_type(flow))),
                        ("VERDICT", self._verdict(flow)),
                        ("SUMMARY", self._summary(flow)),
                    ],
                )
        self._printed += 1

    def _compact(self, flow: pb.Flow) -> str:
        left, right = zip(self._hosts(flow), self._identities(flow), strict=True)
        arrow = "<>"
        if flow.HasField("is_reply"):
            arrow = "<-" if flow.is_reply.value else "->"
            if flow.is_reply.value:
                left, right = right, left
        node = f" [{clean(flow.node_name)}]" if self._style.node_name else ""
        ends = f"{left[0]} {left[1]} {arrow} {right[0]} {right[1]}"
        what = f"{clean(event_type(flow))} {self._verdict(flow)} ({self._summary(flow)})"
        return f"{self._time(flow)}{node}: {ends} {what}\n"

    def _record(self, *, time: str, node: str, fields: list[tuple[str, str]]) -> None:
        """One entry of the forms with a place for every field."""
        named = [("TIMESTAMP", time), *([("NODE", node)] if self._style.node_name else []), *fields]
        if self._style.output is Output.TABLE:
            self._rows.append([value for _, value in named])
        else:
            lines = "".join(f"{name:>11}: {value}\n" for name, value in named)
            self._out((_RULE if self._printed else "") + lines)

    def _draw(self, value: str, color: str) -> str:
        colored = self._style.color and self._style.output is not Output.TABLE
        return f"\x1b[{_DRAW[color]}m{value}\x1b[0m" if colored else value

    def _time(self, message: pb.Flow | observer_pb2.GetFlowsResponse) -> str:
        if not message.HasField("time"):
            return "N/A"
        at = message.time
        return format_time(at.seconds * 1_000_000_000 + at.nanos, self._style.time_format)

    def _hosts(self, flow: pb.Flow) -> tuple[str, str]:
        if not flow.HasField("IP"):
            return (
                self._draw(clean(flow.ethernet.source), "cyan"),
                self._draw(clean(flow.ethernet.destination), "cyan"),
            )
        ports = _ports(flow)
        return (
            self._host(flow.IP.source, ports[0], flow.source, flow.source_service, flow.source_names),
            self._host(
                flow.IP.destination, ports[1], flow.destination, flow.destination_service, flow.destination_names
            ),
        )

    def _host(
        self, address: str, port: int, endpoint: pb.Endpoint, service: pb.Service, names: "list[str] | object"
    ) -> str:
        host = address
        if self._style.translate_addresses:
            has_service = bool(service.ListFields())
            namespace = service.namespace if has_service else endpoint.namespace
            if name := endpoint.pod_name or service.name:
                host = f"{namespace}/{name}" if namespace else name
            elif joined := ",".join(names):  # type: ignore[arg-type]
                host = joined
        host = clean(host)
        if port:
            host = f"[{host}]" if ":" in host else host
            host = f"{host}:{self._draw(str(port), 'yellow')}"
        return self._draw(host, "cyan")

    def _identities(self, flow: pb.Flow) -> tuple[str, str]:
        source, destination = (
            self._draw(f"({text.identity(number)})", "magenta")
            for number in (flow.source.identity, flow.destination.identity)
        )
        return source, destination

    def _verdict(self, flow: pb.Flow) -> str:
        word = enum_name(pb.Verdict.Name, flow.verdict)
        if flow.event_type.type == _POLICY_VERDICT:
            match flow.verdict:
                case pb.FORWARDED | pb.REDIRECTED:
                    word = "ALLOWED"
                case pb.DROPPED | pb.ERROR:
                    word = "DENIED"
                case pb.AUDIT:
                    word = "AUDITED"
                case _:
                    pass
            if self._style.policy_names and word in ("ALLOWED", "DENIED"):
                word += _policies(flow)
        color = _VERDICT_COLORS.get(flow.verdict)
        return self._draw(clean(word), color) if color else clean(word)

    def _summary(self, flow: pb.Flow) -> str:
        """What stands between the brackets."""
        trace = f"IP Trace ID: {flow.ip_trace_id.trace_id}; " if flow.ip_trace_id.trace_id else ""
        auth = ""
        if flow.auth_type:
            color = "red" if flow.auth_type == pb.TEST_ALWAYS_FAIL else "green"
            auth = f"; Auth: {self._draw(enum_name(pb.AuthType.Name, flow.auth_type), color)}"
        return f"{trace}{clean(flow.Summary)}{auth}"

    def _lost(self, response: observer_pb2.GetFlowsResponse) -> None:
        lost = response.lost_events
        source = enum_name(pb.LostEventSource.Name, lost.source)
        span = ""
        if lost.HasField("first") and lost.HasField("last"):
            first, last = (
                format_time(at.seconds * 1_000_000_000 + at.nanos, self._style.time_format)
                for at in (lost.first, lost.last)
            )
            span = f" (first: {first}, last: {last})"
        match self._style.output:
            case Output.JSON:
                self._out(to_json(response) + "\n")
            case Output.LEGACY_JSON:
                self._out(to_json(lost) + "\n")
            case Output.COMPACT:
                count = f"CPU({lost.cpu.value}) {lost.num_events_lost}"
                self._out(f"{self._time(response)} EVENTS LOST: {source} {count}{span}\n")
            case Output.TABLE | Output.DICT:
                fields = [("SOURCE", source), ("DESTINATION", "-"), ("TYPE", "EVENTS LOST"), ("VERDICT", "-")]
                if self._style.output is Output.DICT:
                    del fields[1]
                fields.append(("SUMMARY", f"CPU({lost.cpu.value}) - {lost.num_events_lost}{span}"))
                self._record(time=self._time(response), node=clean(response.node_name) or "-", fields=fields)
        self._printed += 1

    def _node_status(self, response: observer_pb2.GetFlowsResponse) -> None:
        """On standard error, and only what went wrong unless debugging."""
        status = response.node_status
        wrong = status.state_change in (relay_pb2.NODE_ERROR, relay_pb2.NODE_UNAVAILABLE)
        if not wrong and not self._style.debug:
            return
        names = clean(_shortened(list(status.node_names)))
        state = enum_name(relay_pb2.NodeState.Name, status.state_change)
        match self._style.output:
            case Output.JSON | Output.LEGACY_JSON:
                self._error(to_json(response) + "\n")
            case Output.DICT:
                message = json.dumps(status.message) if status.message else "N/A"
                fields = (("TIMESTAMP", self._time(response)), ("STATE", state), ("NODES", names), ("MESSAGE", message))
                rule = _RULE if self._printed else ""
                self._printed += not self._printed
                self._error(rule + "".join(f"{name:>11}: {value}\n" for name, value in fields))
            case Output.COMPACT | Output.TABLE:
                count = len(status.node_names)
                match status.state_change:
                    case relay_pb2.NODE_CONNECTED:
                        said = f"Receiving flows from {count} nodes: {names}"
                    case relay_pb2.NODE_UNAVAILABLE:
                        said = f"{count} nodes are unavailable: {names}"
                    case relay_pb2.NODE_GONE:
                        said = f"{count} nodes removed from cluster: {names}"
                    case relay_pb2.NODE_ERROR:
                        said = f"Error {json.dumps(clean(status.message))} on {count} nodes: {names}"
                    case _:
                        said = f"unknown node status event: {state}: {names}"
                self._error(f"{self._time(response)} [{clean(response.node_name)}]: {said}\n")


def _shortened(names: list[str]) -> str:
    """Names joined up to a length; at least one is told."""
    length, shown = 0, 0
    for name in names:
        length += len(name) + 2
        if length > _NODE_NAMES_LENGTH and shown:
            break
        shown += 1
    joined = ", ".join(names[:shown])
    return joined if shown == len(names) else f"{joined} (and {len(names) - shown} more)"
