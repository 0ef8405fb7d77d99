"""One row as a `flow.Flow` message: the field rules of Hubble's API in one place.

`describe` fills everything that rows of a kind share; `complete` adds what is a row's own (time, uuid,
ports).
"""

from typing import NamedTuple

from mycel import abi
from mycel.api import flow_pb2 as pb
from mycel.flow import text
from mycel.flow.enrich import Records
from mycel.flow.l7_rows import describe_l7
from mycel.flow.records import Endpoint, PolicyName

_TO_ENDPOINT = 101  # the API's number for the kernel's 0


class Names(NamedTuple):
    """The record numbers of a row, by column (see `rows.NAMES`)."""

    source_record: int = 0
    destination_record: int = 0
    source_service: int = 0
    destination_service: int = 0
    source_names: int = 0
    destination_names: int = 0
    interface: int = 0
    policies: int = 0
    l7: int = 0


def describe(event: abi.FlowEvent, names: Names, records: Records, *, node_name: str) -> pb.Flow:
    """The message of an event without time and uuid; `node_name` is `cluster/node`."""
    flow = pb.Flow(node_name=node_name)
    flow.verdict = event.verdict  # type: ignore[assignment]
    flow.traffic_direction = event.direction  # type: ignore[assignment]
    flow.Type = pb.SOCK if event.kind == abi.EventKind.TRACE_SOCK else pb.L3_L4
    _set_kind(flow, event)
    _set_reply(flow, event)
    _set_packet(flow, event)
    _set_endpoint(flow.source, records.endpoints[names.source_record], event.source_identity)
    _set_endpoint(flow.destination, records.endpoints[names.destination_record], event.destination_identity)
    _set_services(flow, names, records)
    flow.source_names.extend(records.names[names.source_names] or ())
    flow.destination_names.extend(records.names[names.destination_names] or ())
    if (interface := records.interfaces[names.interface]) is not None:
        flow.interface.index, flow.interface.name = interface
    flow.proxy_port = event.proxy_port
    _set_policies(flow, event, records.policies[names.policies] or ())
    if (record := records.l7[names.l7]) is not None:
        describe_l7(flow, record)
    return flow


def _set_kind(flow: pb.Flow, event: abi.FlowEvent) -> None:
    flow.event_type.type = event.kind
    dropped = event.kind == abi.EventKind.DROP
    if dropped or (event.kind == abi.EventKind.POLICY_VERDICT and event.verdict == abi.Verdict.DROPPED):
        reason = event.sub_type or abi.DropReason.POLICY_DENIED
        flow.drop_reason = reason
        flow.drop_reason_desc = reason  # type: ignore[assignment]  # an open enum takes any number
        flow.verdict = pb.DROPPED
    match event.kind:
        case abi.EventKind.DROP:
            flow.event_type.sub_type = event.sub_type
        case abi.EventKind.TRACE:
            flow.event_type.sub_type = event.sub_type
            flow.trace_observation_point = event.sub_type or _TO_ENDPOINT  # type: ignore[assignment]
            flow.trace_reason = event.reason  # type: ignore[assignment]
        case abi.EventKind.POLICY_VERDICT:
            flow.policy_match_type = event.policy_match
        case abi.EventKind.TRACE_SOCK:
            flow.event_type.sub_type = event.sub_type
            flow.sock_xlate_point = event.sub_type  # type: ignore[assignment]
        case _:
            flow.event_type.sub_type = event.sub_type


def _set_reply(flow: pb.Flow, event: abi.FlowEvent) -> None:
    """Drops do not know; an allowed verdict is about a new connection, so about a request."""
    if flow.verdict == pb.DROPPED or event.kind == abi.EventKind.DROP:
        return
    if event.kind == abi.EventKind.POLICY_VERDICT:
        flow.is_reply.value = False
    elif event.is_reply != abi.ReplyState.UNKNOWN:
        flow.is_reply.value = event.is_reply == abi.ReplyState.TRUE
        flow.reply = flow.is_reply.value


def _set_packet(flow: pb.Flow, event: abi.FlowEvent) -> None:
    source_mac, destination_mac = text.mac(event.source_mac), text.mac(event.destination_mac)
    if source_mac or destination_mac:
        flow.ethernet.source, flow.ethernet.destination = source_mac, destination_mac
    if not event.family:
        flow.Summary = text.ether_type(event.ether_type)
        return
    flow.IP.source = text.address(event.source, family=event.family)
    flow.IP.destination = text.address(event.destination, family=event.family)
    flow.IP.ipVersion = pb.IPv4 if event.family == 4 else pb.IPv6
    match event.protocol:
        case 6:
            flow.l4.TCP.source_port, flow.l4.TCP.destination_port = event.source_port, event.destination_port
            flow.l4.TCP.flags.SetInParent()
            for name, bit in text.TCP_FLAGS:
                if event.tcp_flags & bit:
                    setattr(flow.l4.TCP.flags, name, True)
            flow.Summary = f"TCP Flags: {text.tcp_flags(event.tcp_flags)}"
        case 17:
            flow.l4.UDP.source_port, flow.l4.UDP.destination_port = event.source_port, event.destination_port
            flow.Summary = "UDP"
        case 132:
            flow.l4.SCTP.source_port, flow.l4.SCTP.destination_port = (
                event.source_port,
                event.destination_port,
            )
            flow.Summary = "SCTP"
        case 1:
            flow.l4.ICMPv4.type, flow.l4.ICMPv4.code = event.icmp_type, event.icmp_code
            flow.l4.ICMPv4.SetInParent()
            flow.Summary = text.icmp(event.icmp_type, event.icmp_code, family=4)
        case 58:
            flow.l4.ICMPv6.type, flow.l4.ICMPv6.code = event.icmp_type, event.icmp_code
            flow.l4.ICMPv6.SetInParent()
            flow.Summary = text.icmp(event.icmp_type, event.icmp_code, family=6)
        case 2:
            flow.l4.IGMP.type = event.icmp_type
            flow.l4.IGMP.SetInParent()
            flow.Summary = "IGMP"
        case 112:
            flow.l4.VRRP.SetInParent()
            flow.Summary = "VRRP"
        case _:
            flow.Summary = f"IP protocol {event.protocol}"


def _set_policies(flow: pb.Flow, event: abi.FlowEvent, policies: tuple[PolicyName, ...]) -> None:
    """The policies that allowed or denied; of a default denial those that switched it on."""
    ingress = event.direction == abi.Direction.INGRESS
    if event.verdict == abi.Verdict.DROPPED:
        named = flow.ingress_denied_by if ingress else flow.egress_denied_by
    else:
        named = flow.ingress_allowed_by if ingress else flow.egress_allowed_by
    for each in policies:
        labels = [
            f"k8s:io.cilium.k8s.policy.derived-from={each.kind}",
            f"k8s:io.cilium.k8s.policy.name={each.name}",
            *([f"k8s:io.cilium.k8s.policy.namespace={each.namespace}"] if each.namespace else []),
            f"mycel:rule={each.rule}",
        ]
        named.add(name=each.name, namespace=each.namespace, kind=each.kind, labels=labels, revision=each.revision)


def _set_endpoint(message: pb.Endpoint, record: Endpoint | None, identity: int) -> None:
    message.identity = identity
    if record is None:
        message.SetInParent()
        return
    message.ID, message.identity = record.endpoint_id, record.identity
    message.namespace, message.pod_name = record.namespace, record.pod_name
    message.cluster_name = record.cluster_name
    message.labels.extend(record.labels)
    for workload in record.workloads:
        message.workloads.add(kind=workload.kind, name=workload.name)
    message.SetInParent()


def _set_services(flow: pb.Flow, names: Names, records: Records) -> None:
    """Clients print a service's namespace over the pod's, so a service of another namespace is left out."""
    for number, endpoint, message in (
        (names.source_service, flow.source, flow.source_service),
        (names.destination_service, flow.destination, flow.destination_service),
    ):
        service = records.services[number]
        if service is not None and (not endpoint.pod_name or endpoint.namespace == service.namespace):
            message.namespace, message.name = service.namespace, service.name


def complete(flow: pb.Flow, *, wall_ns: int, uuid: str, source_port: int = 0, destination_port: int = 0) -> pb.Flow:
    """A copy of a kind's message with what is one row's own."""
    message = pb.Flow()
    message.CopyFrom(flow)
    message.time.seconds, message.time.nanos = divmod(wall_ns, 1_000_000_000)
    message.uuid = uuid
    for layer in (message.l4.TCP, message.l4.UDP, message.l4.SCTP) if message.HasField("l4") else ():
        if message.l4.WhichOneof("protocol") == layer.DESCRIPTOR.name:
            layer.source_port, layer.destination_port = source_port, destination_port
    return message
