"""The kernel's numbers are Hubble's."""

from enum import IntEnum
from typing import Any

import pytest

from mycel import abi
from mycel.api import flow_pb2 as pb
from mycel.flow import text

# What we call a drop, and what Hubble's clients call the same number. A new reason needs a line here.
MEANINGS = {
    "INVALID_SOURCE_MAC": "INVALID_SOURCE_MAC",
    "INVALID_SOURCE_IP": "INVALID_SOURCE_IP",
    "POLICY_DENIED": "POLICY_DENIED",
    "INVALID_PACKET": "INVALID_PACKET_DROPPED",
    "CT_INVALID_HEADER": "CT_TRUNCATED_OR_INVALID_HEADER",
    "CT_UNKNOWN_PROTO": "CT_UNKNOWN_L4_PROTOCOL",
    "UNSUPPORTED_L3": "UNSUPPORTED_L3_PROTOCOL",
    "WRITE_ERROR": "ERROR_WRITING_TO_PACKET",
    "UNKNOWN_L4": "UNKNOWN_L4_PROTOCOL",
    "NO_TUNNEL_KEY": "ERROR_RETRIEVING_TUNNEL_KEY",
    "UNKNOWN_L3_TARGET": "UNKNOWN_L3_TARGET_ADDRESS",
    "UNROUTABLE_IP": "STALE_OR_UNROUTABLE_IP",
    "NO_ENDPOINT": "NO_MATCHING_LOCAL_CONTAINER_FOUND",
    "CT_INSERTION_FAILED": "CT_MAP_INSERTION_FAILED",
    "INVALID_EXTENSION_HEADER": "INVALID_IPV6_EXTENSION_HEADER",
    "SERVICE_BACKEND_NOT_FOUND": "SERVICE_BACKEND_NOT_FOUND",
    "NO_TUNNEL_ENDPOINT": "NO_TUNNEL_OR_ENCAPSULATION_ENDPOINT",
    "NAT_NO_MAPPING": "NO_MAPPING_FOR_NAT_MASQUERADE",
    "NAT_UNSUPPORTED_PROTOCOL": "UNSUPPORTED_PROTOCOL_FOR_NAT_MASQUERADE",
    "NAT_NOT_NEEDED": "NAT_NOT_NEEDED",
    "FIB_LOOKUP_FAILED": "FIB_LOOKUP_FAILED",
    "ENCAP_PROHIBITED": "ENCAPSULATION_TRAFFIC_IS_PROHIBITED",
    "INVALID_IDENTITY": "INVALID_IDENTITY",
    "UNKNOWN_SENDER": "UNKNOWN_SENDER",
    "FRAGMENT_NOT_FOUND": "FIRST_LOGICAL_DATAGRAM_FRAGMENT_NOT_FOUND",
    "FORBIDDEN_ICMP6": "FORBIDDEN_ICMPV6_MESSAGE",
    "PROXY_LOOKUP_FAILED": "SOCKET_LOOKUP_FAILED",
    "PROXY_UNSUPPORTED": "PROXY_REDIRECTION_NOT_SUPPORTED_FOR_PROTOCOL",
    "POLICY_DENY": "POLICY_DENY",
    "TTL_EXCEEDED": "TTL_EXCEEDED",
    "ENDPOINT_NOT_READY": "DROP_EP_NOT_READY",
    "PROXY_FOREIGN": "PROXY_FOREIGN",
}


@pytest.mark.parametrize("reason", abi.DropReason, ids=lambda reason: reason.name)
def test_drop_reasons_mean_what_clients_read(reason: abi.DropReason) -> None:
    """Every reason of the kernel is known to Hubble under the same number and meaning, and has a text."""
    assert pb.DropReason.Name(reason.value) == MEANINGS[reason.name]
    assert reason.value in text.DROP_REASONS


@pytest.mark.parametrize(
    ("ours", "theirs", "renamed"),
    [
        (abi.Verdict, pb.Verdict, {"UNKNOWN": "VERDICT_UNKNOWN"}),
        (abi.Direction, pb.TrafficDirection, {"UNKNOWN": "TRAFFIC_DIRECTION_UNKNOWN"}),
        (abi.TraceReason, pb.TraceReason, {"UNKNOWN": "TRACE_REASON_UNKNOWN"}),
    ],
)
def test_enums_are_equal(ours: type[IntEnum], theirs: Any, renamed: dict[str, str]) -> None:
    """Verdicts, directions and trace reasons go out as they come in."""
    for each in ours:
        assert theirs.Name(each.value) == renamed.get(each.name, each.name)


def test_trace_points_are_equal() -> None:
    """Only to-endpoint has a number of its own in the API."""
    for point in abi.TracePoint:
        assert pb.TraceObservationPoint.Name(point.value or 101) == point.name
        assert text.TRACE_POINTS[point.value] == point.name.lower().replace("_", "-")


def test_policy_matches_have_texts() -> None:
    """Every way a policy can match is printable."""
    assert {match.value for match in abi.PolicyMatch} == set(text.POLICY_MATCHES)


def test_reserved_identities_have_names() -> None:
    """Reserved identities print by name."""
    for identity in abi.ReservedIdentity:
        assert text.RESERVED_IDENTITIES[identity.value] == identity.name.lower().replace("_", "-")
