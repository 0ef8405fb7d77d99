"""The options of `hubble observe`, under the stock client's names.

Filters depend on the order in which they are typed (`--not` turns the next one), which click does not tell a command:
`FlowCommand` notes it while parsing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import click

_F = TypeVar("_F", bound=Callable[..., Any])
FLAGS_KEY = "mycel.cli.flow_options.flags"


class Filter(NamedTuple):
    """A filter option; without a value it is a switch."""

    name: str
    help: str
    short: str = ""
    switch: bool = False


FILTERS = (
    Filter("not", "Turn the next filter around: show what it does not match.", switch=True),
    Filter("uuid", "The flow with this identifier."),
    Filter("node-name", 'Nodes that saw the flow, as patterns ("k8s*", "cluster/*.company.com").'),
    Filter("node-label", "Labels of the node that saw the flow."),
    Filter("from-cluster", "Cluster of the source."),
    Filter("cluster", "Cluster of either end."),
    Filter("to-cluster", "Cluster of the destination."),
    Filter("protocol", "L4 or L7 protocol (tcp, udp, icmp, sctp, dns, http, …)."),
    Filter("tcp-flags", 'TCP flags that are set ("syn", "syn,ack").'),
    Filter("type", "Kind of event, TYPE[:SUBTYPE]: capture, drop, l7, policy-verdict, trace, trace:to-endpoint …", "t"),
    Filter("verdict", "FORWARDED, DROPPED, AUDIT, REDIRECTED, ERROR, TRACED or TRANSLATED."),
    Filter("drop-reason-desc", 'Why it was dropped ("POLICY_DENIED").'),
    Filter("http-status", 'HTTP status or its start ("404", "5+").'),
    Filter("http-method", "HTTP method."),
    Filter("http-path", "Regular expression over the path of an HTTP request."),
    Filter("http-url", "Regular expression over the URL of an HTTP request."),
    Filter("http-header", 'HTTP header "key:value".'),
    Filter("trace-id", "Trace identifier."),
    Filter("ip-trace-id", "IP trace identifier."),
    Filter("from-fqdn", 'DNS name of the source, as a pattern ("*.cilium.io").'),
    Filter("fqdn", "DNS name of either end."),
    Filter("to-fqdn", "DNS name of the destination."),
    Filter("from-ip", "Address or prefix of the source."),
    Filter("snat-ip", "Address the source was masqueraded with."),
    Filter("ip", "Address or prefix of either end."),
    Filter("to-ip", "Address or prefix of the destination."),
    Filter("ipv4", "IPv4 only.", "4", switch=True),
    Filter("ipv6", "IPv6 only.", "6", switch=True),
    Filter("ip-version", "none, v4 or v6."),
    Filter("from-pod", "Source pod, [namespace/]prefix; the namespace is default unless given."),
    Filter("pod", "Pod at either end, [namespace/]prefix.", ""),
    Filter("to-pod", "Destination pod, [namespace/]prefix."),
    Filter("from-namespace", "Namespace of the source."),
    Filter("namespace", "Namespace of either end.", "n"),
    Filter("to-namespace", "Namespace of the destination."),
    Filter("from-all-namespaces", "Source in any namespace.", switch=True),
    Filter("all-namespaces", "Either end in any namespace.", "A", switch=True),
    Filter("to-all-namespaces", "Destination in any namespace.", switch=True),
    Filter("from-label", 'Label selector of the source ("app=web", "reserved:world").'),
    Filter("label", "Label selector of either end.", "l"),
    Filter("to-label", "Label selector of the destination."),
    Filter("from-service", "Service of the source, [namespace/]prefix."),
    Filter("service", "Service of either end, [namespace/]prefix."),
    Filter("to-service", "Service of the destination, [namespace/]prefix."),
    Filter("from-port", "Source port."),
    Filter("port", "Port of either end."),
    Filter("to-port", "Destination port."),
    Filter("from-workload", "Workload of the source, [Kind/]name."),
    Filter("workload", "Workload of either end."),
    Filter("to-workload", "Workload of the destination."),
    Filter("from-identity", 'Security identity of the source (1234, "world").'),
    Filter("identity", "Security identity of either end."),
    Filter("to-identity", "Security identity of the destination."),
    Filter("traffic-direction", "ingress or egress."),
    Filter("cel-expression", "CEL expression (not supported by this server)."),
    Filter("interface", "Network interface that saw the flow."),
    Filter("encrypted", "Encrypted flows.", switch=True),
    Filter("unencrypted", "Unencrypted flows.", switch=True),
)
_NAMES = {entry.name.replace("-", "_"): entry.name for entry in FILTERS}


class FlowCommand(click.Command):
    """A command that keeps its filter flags in the order they were typed, in `ctx.meta[FLAGS_KEY]`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """`observe flows …` is `observe …`, as in the stock client."""
        return super().parse_args(ctx, args[1:] if args[:1] == ["flows"] else args)

    def make_parser(self, ctx: click.Context) -> Any:
        """A parser that also notes the order."""
        parser: Any = super().make_parser(ctx)
        parse = parser.parse_args

        def parse_and_note(args: list[str]) -> Any:
            values, rest, order = parse(args)
            ctx.meta[FLAGS_KEY] = _typed(values, order)
            return values, rest, order

        parser.parse_args = parse_and_note
        return parser


def _typed(values: dict[str, Any], order: Sequence[click.Parameter]) -> list[tuple[str, str]]:
    """(flag, value) in the order of the command line."""
    left = {name: iter(value) for name, value in values.items() if isinstance(value, list)}
    typed: list[tuple[str, str]] = []
    for parameter in order:
        key = parameter.name or ""
        if key in _NAMES:
            typed.append((_NAMES[key], str(next(left[key])) if key in left else "true"))
    return typed


def filter_options(function: _F) -> _F:
    """Adds every filter option; their values reach the command through `typed_flags`."""
    for entry in reversed(FILTERS):
        names = [f"--{entry.name}", *([f"-{entry.short}"] if entry.short else [])]
        key = entry.name.replace("-", "_")
        kind: dict[str, Any] = {"count": True} if entry.switch else {"multiple": True, "metavar": "FILTER"}
        function = click.option(*names, key, expose_value=False, help=entry.help, **kind)(function)
    return function


def typed_flags(ctx: click.Context) -> list[tuple[str, str]]:
    """The filter flags of this call, in order."""
    flags: list[tuple[str, str]] = ctx.meta.get(FLAGS_KEY, [])
    return flags
