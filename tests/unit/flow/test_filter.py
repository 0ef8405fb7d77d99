"""Filters match as Hubble's server does."""

from typing import Any

import numpy as np
import pytest
from google.protobuf import json_format
from hypothesis import given, settings
from hypothesis import strategies as st

from mycel.api import flow_pb2 as pb
from mycel.flow.errors import FilterError
from mycel.flow.filter import FlowFilters
from mycel.flow.kinds import responses
from tests.unit.flow.samples import UUIDS, batch, event
from tests.unit.flow.test_kinds import EVENTS


def flow(text: dict[str, Any] | None = None) -> pb.Flow:
    """A forwarded request of shop/client to a service in the world, with changes."""
    base = {
        "verdict": "FORWARDED",
        "uuid": "u-1",
        "IP": {"source": "10.244.1.2", "destination": "192.0.2.9", "ipVersion": "IPv4"},
        "l4": {"TCP": {"source_port": 40000, "destination_port": 8080, "flags": {"SYN": True, "ACK": True}}},
        "source": {
            "identity": 1234,
            "namespace": "shop",
            "pod_name": "client-5d",
            "cluster_name": "default",
            "labels": ["k8s:app=client", "k8s:tier=1", "reserved:host"],
            "workloads": [{"kind": "Deployment", "name": "client"}],
        },
        "destination": {"identity": 2, "labels": ["reserved:world", "cidr:192.0.2.0/24"]},
        "node_name": "default/k8s1",
        "destination_names": ["www.cilium.io"],
        "event_type": {"type": 4, "sub_type": 3},
        "destination_service": {"name": "web", "namespace": "shop"},
        "traffic_direction": "EGRESS",
        "is_reply": False,
        "interface": {"index": 3, "name": "eth0"},
        "node_labels": ["k8s:zone=a"],
    }
    return json_format.ParseDict(base | (text or {}), pb.Flow())


HTTP_REQUEST = {
    "event_type": {"type": 129},
    "l7": {
        "type": "REQUEST",
        "http": {
            "code": 404,
            "method": "GET",
            "url": "http://web:8080/a%20b?q=1",
            "headers": [{"key": "X-Id", "value": "7"}],
        },
    },
}
DNS_REQUEST = {"event_type": {"type": 129}, "l7": {"dns": {"query": "www.cilium.io."}}}
DROPPED = {"verdict": "DROPPED", "drop_reason_desc": "POLICY_DENIED", "is_reply": None}


@pytest.mark.parametrize(
    ("wanted", "changes", "matches"),
    [
        ({"source_ip": ["10.244.1.2"]}, None, True),
        ({"source_ip": ["10.244.1.0/24", "1.1.1.1"]}, None, True),
        ({"destination_ip": ["10.0.0.0/8"]}, None, False),
        ({"source_ip": ["10.244.1.2"]}, {"IP": None}, False),
        ({"source_pod": ["shop/client"]}, None, True),
        ({"source_pod": ["shop/"]}, None, True),
        ({"source_pod": ["/client-5"]}, None, True),
        ({"source_pod": ["/"]}, None, True),
        ({"source_pod": ["client"]}, None, False),  # no slash: namespace default
        ({"destination_pod": ["/"]}, None, False),  # no pod at all
        ({"destination_service": ["shop/w"]}, None, True),
        ({"source_service": ["shop/"]}, None, False),
        ({"source_workload": [{"name": "client"}]}, None, True),
        ({"source_workload": [{"kind": "DaemonSet", "name": "client"}]}, None, False),
        ({"source_workload": [{"kind": "Deployment"}]}, None, True),
        ({"source_identity": [1, 1234]}, None, True),
        ({"destination_identity": [1234]}, None, False),
        ({"source_cluster_name": ["default"]}, None, True),
        ({"source_label": ["app=client"]}, None, True),
        ({"source_label": ["k8s:app in (web, client),!gone"]}, None, True),
        ({"source_label": ["container:app"]}, None, False),
        ({"source_label": ["app!=client"]}, None, False),
        ({"source_label": ["missing!=x"]}, None, True),
        ({"source_label": ["tier>0", "nope"]}, None, True),
        ({"destination_label": ["reserved:world"]}, None, True),
        ({"node_labels": ["zone=a"]}, None, True),
        ({"destination_fqdn": ["*.CILIUM.io."]}, None, True),
        ({"destination_fqdn": ["cilium.io"]}, None, False),
        ({"source_port": ["40000"]}, None, True),
        ({"destination_port": ["80", "8080"]}, None, True),
        ({"destination_port": ["8080"]}, {"l4": {"ICMPv4": {"type": 8}}}, False),
        ({"protocol": ["TCP"]}, None, True),
        ({"protocol": ["udp", "icmp"]}, None, False),
        ({"protocol": ["http"]}, HTTP_REQUEST, True),
        ({"protocol": ["icmp"]}, {"l4": {"ICMPv6": {}}}, True),
        ({"tcp_flags": [{"SYN": True}]}, None, True),
        ({"tcp_flags": [{"SYN": True, "FIN": True}, {"RST": True}]}, None, False),
        ({"tcp_flags": [{"SYN": True}]}, {"l4": {"UDP": {}}}, False),
        ({"verdict": ["DROPPED", "FORWARDED"]}, None, True),
        ({"drop_reason_desc": ["POLICY_DENIED"]}, DROPPED, True),
        ({"drop_reason_desc": ["DROP_REASON_UNKNOWN"]}, None, False),  # not dropped
        ({"reply": [False]}, None, True),
        ({"reply": [True]}, None, False),
        ({"reply": [False]}, DROPPED, True),  # unknown counts as no reply for drops
        ({"reply": [False]}, {"is_reply": None}, False),  # and as neither otherwise
        ({"event_type": [{"type": 4}]}, None, True),
        ({"event_type": [{"type": 4, "match_sub_type": True, "sub_type": 0}]}, None, False),
        ({"event_type": [{"type": 1}, {"match_sub_type": True, "sub_type": 3}]}, None, True),
        ({"traffic_direction": ["INGRESS"]}, None, False),
        ({"ip_version": ["IPv4"]}, None, True),
        ({"ip_version": ["IP_NOT_USED"]}, {"IP": None}, True),
        ({"node_name": ["k8s*"]}, None, True),
        ({"node_name": ["other/k8s1"]}, None, False),
        ({"node_name": ["default/"]}, {"node_name": "k8s1"}, True),
        ({"interface": [{"name": "eth0"}]}, None, True),
        ({"interface": [{"index": 4}]}, None, False),
        ({"uuid": ["u-0", "u-1"]}, None, True),
        ({"encrypted": [True]}, None, False),
        ({"http_status_code": ["40+"]}, HTTP_REQUEST, True),
        ({"http_status_code": ["404"]}, HTTP_REQUEST, True),
        ({"http_status_code": ["5+"]}, HTTP_REQUEST, False),
        ({"http_method": ["get"]}, HTTP_REQUEST, True),
        ({"http_path": ["^/a b$"]}, HTTP_REQUEST, True),
        ({"http_url": ["q=1$"]}, HTTP_REQUEST, True),
        ({"http_path": ["q=1"]}, HTTP_REQUEST, False),
        ({"http_header": [{"key": "X-Id", "value": "7"}]}, HTTP_REQUEST, True),
        ({"http_method": ["get"]}, None, False),
        ({"dns_query": ["cilium"]}, DNS_REQUEST, True),
        ({"dns_query": ["."]}, None, False),
        ({"source_pod": ["shop/client"], "verdict": ["DROPPED"]}, None, False),  # every field must match
    ],
)
def test_field(wanted: dict[str, Any], changes: dict[str, Any] | None, matches: bool) -> None:
    """One filter against one flow."""
    ff = json_format.ParseDict(wanted, pb.FlowFilter())
    seen = flow(changes)
    for key, value in (changes or {}).items():
        if value is None:
            seen.ClearField(key)
    assert matches == FlowFilters([ff]).matches(seen)
    assert matches != FlowFilters([], [ff]).matches(seen)


@pytest.mark.parametrize(
    "wanted",
    [
        {"source_ip": ["10.0.0"]},
        {"destination_ip": ["10.0.0.0/33"]},
        {"source_pod": [""]},
        {"protocol": ["quic"]},
        {"source_port": ["http"]},
        {"destination_port": ["65536"]},
        {"http_status_code": ["4"]},
        {"http_status_code": ["404"], "event_type": [{"type": 4}]},
        {"http_path": ["("]},
        {"source_fqdn": ["a b"]},
        {"source_fqdn": ["a.."]},
        {"node_name": ["a/b/c"]},
        {"source_label": ["a in b"]},
        {"source_label": ["a=b,"]},
        {"destination_cluster_name": [""]},
        {"experimental": {"cel_expression": ["true"]}},
    ],
)
def test_refused(wanted: dict[str, Any]) -> None:
    """What cannot be understood is refused, with the name of the field."""
    with pytest.raises(FilterError, match=next(iter(wanted)).split("[")[0]):
        FlowFilters([json_format.ParseDict(wanted, pb.FlowFilter())])


def test_too_many_filters_are_refused() -> None:
    """A request cannot make the server work without bound."""
    with pytest.raises(FilterError):
        FlowFilters([pb.FlowFilter()] * 1000)
    with pytest.raises(FilterError):
        FlowFilters([pb.FlowFilter(source_ip=["10.0.0.1"] * 10_000)])


def test_lists() -> None:
    """One of the whitelist, none of the blacklist; empty lists say nothing."""
    pod, dropped = pb.FlowFilter(source_pod=["shop/"]), pb.FlowFilter(verdict=[pb.DROPPED])
    forwarded_flow, dropped_flow = flow(), flow({"verdict": "DROPPED"})
    assert FlowFilters().matches(forwarded_flow)
    assert FlowFilters([dropped, pod]).matches(forwarded_flow)
    assert not FlowFilters([pod], [dropped]).matches(dropped_flow)


FILTERS = st.builds(
    pb.FlowFilter,
    source_port=st.lists(st.sampled_from(["0", "80", "40000"]), max_size=2),
    destination_port=st.lists(st.sampled_from(["8080", "1"]), max_size=2),
    protocol=st.lists(st.sampled_from(["tcp", "udp", "icmp", "sctp"]), max_size=2),
    verdict=st.lists(st.sampled_from([pb.FORWARDED, pb.DROPPED]), max_size=2),
    source_pod=st.lists(st.sampled_from(["shop/", "shop/cl"]), max_size=1),
    reply=st.lists(st.booleans(), max_size=1),
    uuid=st.lists(st.sampled_from([UUIDS.text(np.array([1]))[0].tobytes().decode(), "x"]), max_size=2),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(EVENTS, min_size=1, max_size=8), st.lists(FILTERS, max_size=2), st.lists(FILTERS, max_size=1))
def test_columns_and_messages_agree(listed: list, allow: list, deny: list) -> None:
    """The mask over rows picks exactly the flows that match as messages."""
    made = batch(*listed, event(source_port=80))
    sequences = np.arange(len(made.rows))
    filters = FlowFilters(allow, deny)
    expected = [filters.matches(response.flow) for response in responses(made, sequences, uuids=UUIDS)]
    assert expected == filters.mask(made, sequences, uuids=UUIDS).tolist()
