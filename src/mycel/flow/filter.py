"""Whitelists and blacklists of `flow.FlowFilter` against flows.

A flow passes when one whitelist filter matches (or there is none) and no blacklist filter does. For rows of
a store each filter is judged once per kind; only ports and uuids, which are not the kind's, are compared as
columns.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from mycel.api import flow_pb2 as pb
from mycel.flow import predicates
from mycel.flow.errors import FilterError
from mycel.flow.kinds import Batch
from mycel.flow.predicates import Predicate
from mycel.flow.rows import Mask, Numbers, has_ports
from mycel.flow.uuids import UuidSpace

_MOST_FILTERS = 256
_MOST_VALUES = 4096


class Conditions(NamedTuple):
    """One FlowFilter, compiled. None: not asked about."""

    of_kind: tuple[Predicate, ...]
    source_ports: frozenset[int] | None
    destination_ports: frozenset[int] | None
    uuids: frozenset[str] | None

    def matches(self, flow: pb.Flow) -> bool:
        """Whether a complete flow fits."""
        if self.uuids is not None and flow.uuid not in self.uuids:
            return False
        ports = _ports(flow)
        for wanted, port in zip((self.source_ports, self.destination_ports), ports, strict=True):
            if wanted is not None and port not in wanted:
                return False
        return self.matches_kind(flow)

    def matches_kind(self, flow: pb.Flow) -> bool:
        """Whether everything but ports and uuid fits."""
        return all(predicate(flow) for predicate in self.of_kind)


def _ports(flow: pb.Flow) -> tuple[int | None, int | None]:
    match flow.l4.WhichOneof("protocol"):
        case "TCP":
            return flow.l4.TCP.source_port, flow.l4.TCP.destination_port
        case "UDP":
            return flow.l4.UDP.source_port, flow.l4.UDP.destination_port
        case "SCTP":
            return flow.l4.SCTP.source_port, flow.l4.SCTP.destination_port
        case _:
            return None, None


class FlowFilters:
    """Both lists of a request."""

    def __init__(self, whitelist: Iterable[pb.FlowFilter] = (), blacklist: Iterable[pb.FlowFilter] = ()) -> None:
        """Raises FilterError for a filter that cannot be understood."""
        self._allow = [compile_filter(each) for each in _limited(whitelist)]
        self._deny = [compile_filter(each) for each in _limited(blacklist)]

    def matches(self, flow: pb.Flow) -> bool:
        """Whether a complete flow passes."""
        allowed = not self._allow or any(each.matches(flow) for each in self._allow)
        return allowed and not any(each.matches(flow) for each in self._deny)

    def mask(self, batch: Batch, sequences: Numbers, *, uuids: UuidSpace) -> Mask:
        """Which rows of a batch pass."""
        if self._allow:
            passed = np.zeros(len(batch.rows), np.bool_)
            for each in self._allow:
                passed |= _rows(each, batch, sequences, uuids)
        else:
            passed = np.ones(len(batch.rows), np.bool_)
        for each in self._deny:
            passed &= ~_rows(each, batch, sequences, uuids)
        return passed


def _limited(filters: Iterable[pb.FlowFilter]) -> Sequence[pb.FlowFilter]:
    listed = list(filters)
    if len(listed) > _MOST_FILTERS:
        raise FilterError(f"{len(listed)} filters are more than {_MOST_FILTERS}")
    for each in listed:
        values = sum(len(value) for field, value in each.ListFields() if field.name != "experimental")
        if values > _MOST_VALUES:
            raise FilterError(f"a filter of {values} values has more than {_MOST_VALUES}")
    return listed


def _rows(conditions: Conditions, batch: Batch, sequences: Numbers, uuids: UuidSpace) -> Mask:
    of_kind = np.array([conditions.matches_kind(kind.flow) for kind in batch.kinds], np.bool_)
    mask: Mask = of_kind[batch.kind_of]
    for column, wanted in (
        ("source_port", conditions.source_ports),
        ("destination_port", conditions.destination_ports),
    ):
        if wanted is not None:
            mask &= np.isin(batch.rows["event"][column], list(wanted)) & has_ports(batch.rows)
    if conditions.uuids is not None:
        places = [place for place in map(uuids.sequence, conditions.uuids) if place is not None]
        mask &= np.isin(sequences, places)
    return mask


def _source(flow: pb.Flow) -> pb.Endpoint:
    return flow.source


def _destination(flow: pb.Flow) -> pb.Endpoint:
    return flow.destination


def _side(ff: pb.FlowFilter, side: str, end: Callable[[pb.Flow], pb.Endpoint]) -> list[Predicate]:
    """The fields that exist for both ends."""

    def values(suffix: str) -> list[str]:
        return list(getattr(ff, f"{side}_{suffix}"))

    def service(flow: pb.Flow) -> tuple[str, str]:
        found: pb.Service = getattr(flow, f"{side}_service")
        return found.namespace, found.name

    found: list[Predicate] = []
    if wanted := values("ip"):
        found.append(predicates.addresses(f"{side}_ip", wanted, lambda flow: getattr(flow.IP, side)))
    if wanted := values("pod"):
        found.append(
            predicates.namespaced(f"{side}_pod", wanted, lambda flow: (end(flow).namespace, end(flow).pod_name))
        )
    if wanted := values("service"):
        found.append(predicates.namespaced(f"{side}_service", wanted, service))
    if wanted := values("fqdn"):
        found.append(predicates.fqdns(f"{side}_fqdn", wanted, lambda flow: getattr(flow, f"{side}_names")))
    if wanted := values("label"):
        found.append(predicates.labels(f"{side}_label", wanted, lambda flow: end(flow).labels))
    if wanted := getattr(ff, f"{side}_workload"):
        found.append(predicates.workloads(list(wanted), end))
    if names := frozenset(values("cluster_name")):
        if "" in names:
            raise FilterError(f"{side}_cluster_name: a cluster name is empty")
        found.append(lambda flow: end(flow).cluster_name in names)
    if identities := frozenset(getattr(ff, f"{side}_identity")):
        found.append(lambda flow: flow.HasField(side) and end(flow).identity in identities)  # type: ignore[arg-type]
    return found


def _http(ff: pb.FlowFilter) -> list[Predicate]:
    found: list[Predicate] = []
    fields: tuple[tuple[str, Callable[[list[str]], Predicate]], ...] = (
        ("http_status_code", partial(predicates.http_status, "http_status_code")),
        ("http_method", predicates.http_methods),
        ("http_path", lambda wanted: predicates.http_urls("http_path", wanted, path_only=True)),
        ("http_url", lambda wanted: predicates.http_urls("http_url", wanted, path_only=False)),
    )
    for field, build in fields:
        if wanted := list(getattr(ff, field)):
            predicates.require_l7_events(field, ff.event_type)
            found.append(build(wanted))
    if ff.http_header:
        predicates.require_l7_events("http_header", ff.event_type)
        found.append(predicates.http_headers(ff.http_header))
    return found


def _whole(ff: pb.FlowFilter) -> list[Predicate]:
    """The fields about the flow as a whole."""
    found: list[Predicate] = []
    if ff.event_type:
        found.append(predicates.event_types(ff.event_type))
    if verdicts := frozenset(ff.verdict):
        found.append(lambda flow: flow.verdict in verdicts)
    if reasons := frozenset(ff.drop_reason_desc):
        found.append(lambda flow: flow.verdict == pb.DROPPED and flow.drop_reason_desc in reasons)
    if ff.reply:
        found.append(predicates.replies(ff.reply))
    if encrypted := frozenset(ff.encrypted):
        found.append(lambda flow: flow.IP.encrypted in encrypted)
    if ff.protocol:
        found.append(predicates.protocols("protocol", ff.protocol))
    if ff.source_ip_xlated:
        found.append(predicates.addresses("source_ip_xlated", ff.source_ip_xlated, lambda flow: flow.IP.source_xlated))
    if ff.dns_query:
        found.append(predicates.dns_queries("dns_query", ff.dns_query))
    if ff.tcp_flags:
        found.append(predicates.tcp_flags(ff.tcp_flags))
    if ff.node_name:
        found.append(predicates.nodes("node_name", ff.node_name))
    if ff.node_labels:
        found.append(predicates.labels("node_labels", ff.node_labels, lambda flow: flow.node_labels))
    if versions := frozenset(ff.ip_version):
        found.append(lambda flow: flow.IP.ipVersion in versions)
    if trace_ids := frozenset(ff.trace_id):
        found.append(lambda flow: flow.trace_context.parent.trace_id in trace_ids)
    if ip_trace_ids := frozenset(ff.ip_trace_id):
        found.append(lambda flow: flow.ip_trace_id.trace_id in ip_trace_ids)
    if directions := frozenset(ff.traffic_direction):
        found.append(lambda flow: flow.traffic_direction in directions)
    if ff.interface:
        found.append(predicates.interfaces(ff.interface))
    return found


def compile_filter(ff: pb.FlowFilter) -> Conditions:
    """A filter whose every field that is set must match. Raises FilterError."""
    if ff.experimental.cel_expression:
        raise FilterError("experimental.cel_expression: CEL expressions are not supported: use the other fields")
    return Conditions(
        of_kind=(
            *_whole(ff),
            *_side(ff, "source", _source),
            *_side(ff, "destination", _destination),
            *_http(ff),
        ),
        source_ports=predicates.port_numbers("source_port", ff.source_port) if ff.source_port else None,
        destination_ports=(
            predicates.port_numbers("destination_port", ff.destination_port) if ff.destination_port else None
        ),
        uuids=frozenset(ff.uuid) if ff.uuid else None,
    )
