"""Fields of flow.Flow, kind by kind."""

import pytest

from mycel import abi
from mycel.api import flow_pb2 as pb
from tests.unit.flow.samples import CLIENT, ECHO, FRONTEND, NODE, Names, address, batch, event


def flow_of(made: abi.FlowEvent, names: Names | None = None) -> pb.Flow:
    """The message of one event."""
    return batch(made, names=names).kinds[0].flow


def test_trace() -> None:
    """A forwarded packet carries both ends, its point and its summary."""
    flow = flow_of(event(reason=abi.TraceReason.ESTABLISHED, tcp_flags=18, is_reply=1, ifindex=3))
    expected = pb.Flow(
        verdict=pb.FORWARDED,
        Type=pb.L3_L4,
        node_name=NODE,
        ethernet=pb.Ethernet(source="02:00:00:00:00:01", destination="02:00:00:00:00:02"),
        IP=pb.IP(source="10.244.1.2", destination="10.244.2.3", ipVersion=pb.IPv4),
        l4=pb.Layer4(TCP=pb.TCP(flags=pb.TCPFlags(SYN=True, ACK=True))),
        source=pb.Endpoint(
            ID=7,
            identity=1234,
            namespace="shop",
            pod_name="client-5d",
            cluster_name="default",
            labels=["k8s:app=client", "k8s:io.kubernetes.pod.namespace=shop"],
            workloads=[pb.Workload(kind="Deployment", name="client")],
        ),
        destination=pb.Endpoint(
            identity=2345,
            namespace="shop",
            pod_name="echo-77",
            cluster_name="default",
            labels=["k8s:app=echo"],
            workloads=[pb.Workload(kind="Deployment", name="echo")],
        ),
        event_type=pb.CiliumEventType(type=4, sub_type=0),
        traffic_direction=pb.INGRESS,
        trace_observation_point=pb.TO_ENDPOINT,
        trace_reason=pb.ESTABLISHED,
        interface=pb.NetworkInterface(index=3, name="lxc3"),
        Summary="TCP Flags: SYN, ACK",
        reply=True,
    )
    expected.is_reply.value = True
    assert expected == flow


def test_drop() -> None:
    """A drop names its reason twice and does not know its direction of reply."""
    flow = flow_of(event(kind=1, sub_type=133, verdict=abi.Verdict.DROPPED, direction=2))
    assert (flow.event_type.type, flow.event_type.sub_type) == (1, 133)
    assert (flow.verdict, flow.drop_reason, flow.drop_reason_desc) == (pb.DROPPED, 133, pb.POLICY_DENIED)
    assert not flow.HasField("is_reply")
    assert flow.traffic_direction == pb.EGRESS


@pytest.mark.parametrize(
    ("verdict", "sub_type", "reply", "reason"),
    [
        (abi.Verdict.FORWARDED, 0, True, pb.DROP_REASON_UNKNOWN),
        (abi.Verdict.REDIRECTED, 0, True, pb.DROP_REASON_UNKNOWN),
        (abi.Verdict.AUDIT, 0, True, pb.DROP_REASON_UNKNOWN),
        (abi.Verdict.DROPPED, 181, False, pb.POLICY_DENY),
        (abi.Verdict.DROPPED, 0, False, pb.POLICY_DENIED),
    ],
)
def test_policy_verdict(verdict: int, sub_type: int, reply: bool, reason: pb.DropReason) -> None:
    """An allowed verdict is about a request; a denied one has the reason of the drop and no direction."""
    flow = flow_of(event(kind=5, sub_type=sub_type, verdict=verdict, policy_match=2, is_reply=2, proxy_port=10_001))
    assert (flow.event_type.type, flow.event_type.sub_type, flow.policy_match_type) == (5, 0, 2)
    assert reply == flow.HasField("is_reply")
    assert not flow.is_reply.value
    assert reason == flow.drop_reason_desc
    assert flow.proxy_port == 10_001


@pytest.mark.parametrize(
    ("changes", "layer", "summary"),
    [
        ({"protocol": 17}, "UDP", "UDP"),
        ({"protocol": 132}, "SCTP", "SCTP"),
        ({"protocol": 1, "icmp_type": 8}, "ICMPv4", "ICMPv4 EchoRequest"),
        ({"protocol": 58, "icmp_type": 129, "family": 6}, "ICMPv6", "ICMPv6 EchoReply"),
        ({"protocol": 1, "icmp_type": 0}, "ICMPv4", "ICMPv4 EchoReply"),
        ({"protocol": 47}, None, "IP protocol 47"),
        ({"family": 0, "protocol": 0, "ether_type": 0x0806}, None, "ARP"),
    ],
)
def test_protocols(changes: dict[str, int], layer: str | None, summary: str) -> None:
    """Every protocol has its message and its summary."""
    flow = flow_of(event(**changes))
    assert layer == flow.l4.WhichOneof("protocol")
    assert summary == flow.Summary
    assert flow.HasField("IP") == (changes.get("family") != 0)


def test_ipv6() -> None:
    """Both families go one way."""
    flow = flow_of(event(source=address("fd00::1"), destination=address("fd00::2"), family=6))
    assert ("fd00::1", "fd00::2", pb.IPv6) == (flow.IP.source, flow.IP.destination, flow.IP.ipVersion)


def test_service_of_another_namespace_is_left_out() -> None:
    """Clients would print the service's namespace over the pod's."""
    names = Names()
    dialled = event(original=FRONTEND, original_port=80)
    assert flow_of(dialled, names).destination_service == pb.Service(namespace="shop", name="echo")
    names.endpoints[ECHO] = names.endpoints[ECHO]._replace(namespace="other")
    assert not flow_of(dialled, names).HasField("destination_service")


def test_socket_translation() -> None:
    """Socket events are flows of their own type."""
    flow = flow_of(event(kind=7, sub_type=1, verdict=abi.Verdict.TRACED, source=CLIENT))
    assert (flow.Type, flow.sock_xlate_point) == (pb.SOCK, pb.SOCK_XLATE_POINT_PRE_DIRECTION_FWD)
